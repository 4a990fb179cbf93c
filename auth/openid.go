package auth

import (
	"context"
	"fmt"
	"log/slog"
	"net/http"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/dezky/platform-api/db"
)

// OpenIDOptions says which identity providers are trusted, and for what.
type OpenIDOptions struct {
	DB        *db.DB
	Sessions  *Sessions
	Client    *Client    // by which people sign in; nil: they don't. Its own access tokens are of KindOperator
	Audiences []Audience // whose bearer tokens are accepted besides
	Groups    Groups
	PublicURL string
	Now       func() time.Time
	Log       *slog.Logger
}

// OpenID is what identity providers are used for here. Nothing waits for a provider until it is needed.
type OpenID struct {
	SignIn *SignIn // nil without a Client
	JWTs   *JWTs   // nil where no audience is trusted

	issuers []*issuer
}

// NewOpenID begins with what the database keeps of the providers. What goes on in the background, such as
// asking them, ends with ctx.
func NewOpenID(ctx context.Context, o OpenIDOptions) (*OpenID, error) {
	kept, err := o.DB.Providers(ctx)
	if err != nil {
		return nil, err
	}
	client := &http.Client{
		Timeout: fetchWithin,
		CheckRedirect: func(r *http.Request, via []*http.Request) error { // a redirect must not lead to where secrets may not go
			if !safeURL(r.URL.String()) || len(via) > 3 {
				return http.ErrUseLastResponse
			}
			return nil
		},
	}
	out := &OpenID{}
	issuerOf := func(url string) *issuer {
		for _, i := range out.issuers {
			if i.url == url {
				return i
			}
		}
		i := &issuer{url: url, life: ctx, http: client, db: o.DB, now: o.Now, log: o.Log, failing: make(chan struct{}, 1)}
		for _, p := range kept {
			if p.URL == url && o.Now().Sub(p.FetchedAt) < keysMost {
				if err := i.load(p); err != nil { // then it is as though nothing were kept
					o.Log.Warn("kept provider not read", "error", err)
				}
			}
		}
		out.issuers = append(out.issuers, i)
		return i
	}
	audiences := slices.Clone(o.Audiences)
	if o.Client != nil {
		out.SignIn = &SignIn{client: *o.Client, issuer: issuerOf(o.Client.Issuer), groups: o.Groups, sessions: o.Sessions, publicURL: o.PublicURL,
			now: o.Now, log: o.Log, used: map[string]time.Time{}}
		audiences = append(audiences, Audience{KindOperator, o.Client.Issuer, o.Client.ID})
	}
	if len(audiences) > 0 {
		out.JWTs = &JWTs{groups: o.Groups, now: o.Now}
	}
	slices.SortStableFunc(audiences, func(a, b Audience) int { return slices.Index(Kinds, a.Kind) - slices.Index(Kinds, b.Kind) })
	for _, a := range audiences {
		out.JWTs.trusted = append(out.JWTs.trusted, trusted{a, issuerOf(a.Issuer)})
	}
	return out, nil
}

// Run keeps the providers' keys fresh until ctx ends.
func (o *OpenID) Run(ctx context.Context) {
	var all sync.WaitGroup
	for _, i := range o.issuers {
		all.Go(func() { i.run(ctx) })
	}
	all.Wait()
}

// State says in a word how the providers are: off, ok, away (none answers now, kept keys serve), or
// misconfigured (one answers what can't be used).
func (o *OpenID) State() string {
	state := "ok"
	if o == nil || len(o.issuers) == 0 {
		return "off"
	}
	for _, i := range o.issuers {
		switch t := i.trouble.Load(); {
		case t != nil && !t.Away:
			return "misconfigured"
		case t != nil, i.known.Load() == nil:
			state = "away"
		}
	}
	return state
}

// ParseAudiences reads space-separated kind=issuer#audience. The mistakes say each what is wrong.
func ParseAudiences(text string) (out []Audience, mistakes []string) {
	for field := range strings.FieldsSeq(text) {
		kind, rest, ok := strings.Cut(field, "=")
		issuer, name, ok2 := strings.Cut(rest, "#")
		a := Audience{Kind(kind), issuer, name}
		switch {
		case !ok || !ok2 || name == "":
			mistakes = append(mistakes, fmt.Sprintf("%q is not of the form kind=issuer#audience", field))
		case !slices.Contains(Kinds, a.Kind):
			mistakes = append(mistakes, fmt.Sprintf("%q: the kind is one of operator, service, portal", field))
		case CheckIssuer(issuer) != "":
			mistakes = append(mistakes, fmt.Sprintf("%q: the issuer %s", field, CheckIssuer(issuer)))
		case slices.ContainsFunc(out, func(b Audience) bool { return b.Issuer == issuer && b.Name == name }):
			mistakes = append(mistakes, fmt.Sprintf("%q: the issuer and audience are given twice", field))
		default:
			out = append(out, a)
		}
	}
	return out, mistakes
}

// CheckIssuer says what is wrong with an issuer's address, or "".
func CheckIssuer(address string) string {
	if !safeURL(address) || strings.ContainsAny(address, "?#") {
		return fmt.Sprintf("%q is not an https address such as https://id.example.com/application/o/SLUG/ (http only on loopback)", address)
	}
	return ""
}

// ProviderState is how one identity provider is.
type ProviderState struct {
	Issuer  string    // as it calls itself, or as it is configured until it has answered
	Asked   time.Time // when it last answered; zero: never
	Trouble *Trouble  // what is wrong now, or nil
}

// Providers returns how each identity provider is.
func (o *OpenID) Providers() []ProviderState {
	if o == nil {
		return nil
	}
	out := make([]ProviderState, len(o.issuers))
	for n, i := range o.issuers {
		out[n] = ProviderState{Issuer: i.url, Trouble: i.trouble.Load()}
		if k := i.known.Load(); k != nil {
			out[n].Issuer, out[n].Asked = k.Issuer, k.fetched
		}
	}
	return out
}
