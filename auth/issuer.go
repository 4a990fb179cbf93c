package auth

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/go-jose/go-jose/v4"

	"github.com/dezky/platform-api/db"
)

// How an issuer's keys are kept: asked for again after keysFresh, used while the provider is away up to
// keysMost. A token with an unknown key asks at most keyFetches times in keyFetchWindow, however many come.
const (
	keysFresh      = 15 * time.Minute
	keysMost       = 24 * time.Hour
	keyFetches     = 3
	keyFetchWindow = 30 * time.Second

	fetchWithin = 5 * time.Second // one request to a provider
	fetchMost   = 1 << 20         // bytes of an answer

	retryFirst = 2 * time.Second // back-off while a provider is away
	retryMost  = time.Minute
)

// ErrProviderAway says that a credential can't be checked now, because the identity provider can't be
// asked and nothing recent is known of it.
var ErrProviderAway = errors.New("the identity provider can't be asked")

var errNoSuchKey = errors.New("signed by no key of the issuer")

// metadata is what we use of a provider's discovery document (OpenID Connect Discovery 1.0, section 3).
type metadata struct {
	Issuer        string   `json:"issuer"`
	Authorization string   `json:"authorization_endpoint"`
	Token         string   `json:"token_endpoint"`
	UserInfo      string   `json:"userinfo_endpoint"`
	EndSession    string   `json:"end_session_endpoint"`
	Keys          string   `json:"jwks_uri"`
	Algorithms    []string `json:"id_token_signing_alg_values_supported"`
	TokenAuth     []string `json:"token_endpoint_auth_methods_supported"`
}

// keySet is an issuer's signing keys by kid. It is never changed: other keys are another set, so that what
// was verified by a set can tell whether it still holds.
type keySet struct{ byID map[string]jose.JSONWebKey }

// knowledge is what was last learned of an issuer.
type knowledge struct {
	metadata
	keys    *keySet
	fetched time.Time
}

// issuer is one OpenID provider: its discovery document and keys, fetched when they are needed.
type issuer struct {
	url  string          // as configured; discovery lives below it
	life context.Context // of what goes on in the background
	http *http.Client
	db   *db.DB
	now  func() time.Time
	log  *slog.Logger

	known   atomic.Pointer[knowledge] // nil until the provider has answered once
	trouble atomic.Pointer[Trouble]   // what was wrong at the last fetch; nil when nothing was

	failing chan struct{} // tells run that a fetch failed after one that did not; holds one

	mu      sync.Mutex
	flight  *flight     // the fetch that is under way
	fetches []time.Time // the last ones
}

// flight is one fetch, shared by all who wait for it.
type flight struct {
	done chan struct{}
	err  error
}

// Trouble is what is wrong with a provider, for people.
type Trouble struct {
	Since  time.Time
	Cause  string // what was seen
	Remedy string // what to change, where that is known; else ""
	Away   bool   // it does not answer; else it answers something that can't be used
}

func (t *Trouble) Error() string {
	if t.Remedy == "" {
		return t.Cause
	}
	return t.Cause + ": " + t.Remedy
}

// load takes over what an earlier run learned.
func (i *issuer) load(p db.Provider) error {
	k := knowledge{fetched: p.FetchedAt}
	if err := json.Unmarshal([]byte(p.Document), &k.metadata); err != nil {
		return fmt.Errorf("provider %s: kept document: %w", p.URL, err)
	}
	var err error
	if k.keys, err = parseKeys([]byte(p.Keys)); err != nil {
		return fmt.Errorf("provider %s: kept keys: %w", p.URL, err)
	}
	i.known.Store(&k)
	return nil
}

// run keeps the keys fresh until ctx ends, and asks again with a back-off while the provider is away, no
// matter who found it away. It ends when no fetch is under way.
func (i *issuer) run(ctx context.Context) {
	wait, fetch := retryFirst, true
	for {
		if fetch {
			i.fetch(ctx)
			select {
			case <-i.failing: // what it says, trouble says too
			default:
			}
		}
		next := keysFresh
		if i.trouble.Load() != nil {
			next, wait = wait, min(2*wait, retryMost)
		} else {
			wait = retryFirst
		}
		timer := time.NewTimer(next)
		select {
		case <-timer.C:
			fetch = true
		case <-i.failing:
			timer.Stop()
			fetch = false
		case <-ctx.Done():
			timer.Stop()
			i.mu.Lock()
			f := i.flight
			i.mu.Unlock()
			if f != nil {
				<-f.done
			}
			return
		}
	}
}

// ask returns what is known of the provider, asking it first where nothing is.
func (i *issuer) ask(ctx context.Context) (*knowledge, error) {
	if k := i.known.Load(); k != nil {
		return k, nil
	}
	if err := i.force(ctx); err != nil {
		return nil, err
	}
	if k := i.known.Load(); k != nil {
		return k, nil
	}
	return nil, i.away()
}

func (i *issuer) away() error {
	if t := i.trouble.Load(); t != nil {
		return fmt.Errorf("%w: %s: %w", ErrProviderAway, i.url, t)
	}
	return fmt.Errorf("%w: %s", ErrProviderAway, i.url)
}

// key returns the key with a kid, and the set that it is of. A known one costs no fetch; an unknown one
// causes few.
func (i *issuer) key(ctx context.Context, kid string) (jose.JSONWebKey, *knowledge, error) {
	for asked := false; ; asked = true {
		k := i.known.Load()
		usable := k != nil && i.now().Sub(k.fetched) < keysMost
		if usable {
			if key, ok := k.keys.byID[kid]; ok {
				if i.now().Sub(k.fetched) >= keysFresh {
					i.begin(false) // nobody waits for it; run comes by too
				}
				return key, k, nil
			}
		}
		if asked {
			if !usable || i.trouble.Load() != nil { // the key may well be a new one
				return jose.JSONWebKey{}, nil, i.away()
			}
			return jose.JSONWebKey{}, nil, errNoSuchKey
		}
		if err := i.force(ctx); err != nil && ctx.Err() != nil {
			return jose.JSONWebKey{}, nil, err
		}
	}
}

// force fetches because something unknown was asked for, unless that happened often of late.
func (i *issuer) force(ctx context.Context) error {
	if f := i.begin(false); f != nil {
		return f.wait(ctx)
	}
	return nil
}

// fetch asks the provider for its document and keys; whoever comes while that is under way shares it.
func (i *issuer) fetch(ctx context.Context) error { return i.begin(true).wait(ctx) }

// begin returns the fetch that is under way, or begins one. It is nil where there were enough of late, and
// this one need not be.
func (i *issuer) begin(must bool) *flight {
	i.mu.Lock()
	defer i.mu.Unlock()
	if i.flight != nil {
		return i.flight
	}
	now := i.now()
	i.fetches = slices.DeleteFunc(i.fetches, func(at time.Time) bool { return now.Sub(at) >= keyFetchWindow || at.After(now) })
	if !must && len(i.fetches) >= keyFetches {
		return nil
	}
	f := &flight{done: make(chan struct{})}
	i.flight, i.fetches = f, append(i.fetches, now)
	go func() { // by no request's context: one who goes away must not end it for the others
		f.err = i.learn(i.life)
		i.mu.Lock()
		i.flight = nil
		i.mu.Unlock()
		close(f.done)
	}()
	return f
}

func (f *flight) wait(ctx context.Context) error {
	select {
	case <-f.done:
		return f.err
	case <-ctx.Done():
		return ctx.Err()
	}
}

// learn is one fetch of the document and the keys.
func (i *issuer) learn(ctx context.Context) error {
	k, trouble := i.query(ctx)
	before, now := i.trouble.Load(), i.now()
	if ctx.Err() != nil {
		return ctx.Err()
	}
	if trouble != nil {
		if trouble.Since = now; before != nil {
			trouble.Since = before.Since
		}
		i.trouble.Store(trouble)
		if before == nil {
			select {
			case i.failing <- struct{}{}:
			default:
			}
		}
		if before == nil || before.Cause != trouble.Cause {
			i.log.Warn("identity provider can't be used", "provider", i.url, "cause", trouble.Cause, "remedy", trouble.Remedy)
		}
		return i.away()
	}
	old := i.known.Load()
	if old != nil && sameKeys(old.keys, k.keys) {
		k.keys = old.keys // what was verified by them holds on
	}
	i.known.Store(k)
	i.trouble.Store(nil)
	if old == nil || before != nil || old.keys != k.keys {
		i.log.Info("identity provider learned", "provider", i.url, "issuer", k.Issuer, "keys", len(k.keys.byID))
	}
	if err := i.keep(ctx, k); err != nil && ctx.Err() == nil { // of no use to whoever asks; the next start then asks again
		i.log.Error("identity provider's keys not kept", "provider", i.url, "error", err)
	}
	return nil
}

func (i *issuer) keep(ctx context.Context, k *knowledge) error {
	document, err := json.Marshal(k.metadata)
	if err != nil {
		return err
	}
	set := jose.JSONWebKeySet{}
	for _, key := range k.keys.byID {
		set.Keys = append(set.Keys, key)
	}
	keys, err := json.Marshal(set)
	if err != nil {
		return err
	}
	return i.db.PutProvider(ctx, db.Provider{URL: i.url, Document: string(document), Keys: string(keys), FetchedAt: k.fetched})
}

// query asks for document and keys, and judges them.
func (i *issuer) query(ctx context.Context) (*knowledge, *Trouble) {
	k := &knowledge{fetched: i.now()}
	where := strings.TrimSuffix(i.url, "/") + "/.well-known/openid-configuration"
	body, trouble := i.get(ctx, "discovery", where)
	if trouble != nil {
		return nil, trouble
	}
	if err := json.Unmarshal(body, &k.metadata); err != nil {
		return nil, &Trouble{Cause: "the discovery document at " + where + " is not JSON of the right form", Remedy: "check that the issuer is an OpenID provider's"}
	}
	if trouble := i.judge(&k.metadata); trouble != nil {
		return nil, trouble
	}
	if body, trouble = i.get(ctx, "keys", k.Keys); trouble != nil {
		return nil, trouble
	}
	var err error
	if k.keys, err = parseKeys(body); err != nil {
		return nil, &Trouble{Cause: "the key set at " + k.Keys + " can't be read"}
	}
	if len(k.keys.byID) == 0 {
		t := &Trouble{Cause: "the key set at " + k.Keys + " has no signing key", Remedy: signingKey}
		if slices.Contains(k.Algorithms, "HS256") {
			t.Cause += ", and tokens are signed with HS256"
		}
		return nil, t
	}
	return k, nil
}

// get fetches one document of the provider.
func (i *issuer) get(ctx context.Context, what, where string) ([]byte, *Trouble) {
	ctx, cancel := context.WithTimeout(ctx, fetchWithin)
	defer cancel()
	r, err := http.NewRequestWithContext(ctx, http.MethodGet, where, nil)
	if err != nil {
		return nil, &Trouble{Cause: fmt.Sprintf("%s: %q is no address", what, where)}
	}
	response, err := i.http.Do(r)
	if err != nil {
		return nil, &Trouble{Cause: what + ": " + err.Error(), Away: true}
	}
	defer response.Body.Close()
	body, err := io.ReadAll(io.LimitReader(response.Body, fetchMost+1))
	switch {
	case err != nil:
		return nil, &Trouble{Cause: what + ": " + where + ": " + err.Error(), Away: true}
	case response.StatusCode == http.StatusNotFound:
		return nil, &Trouble{Cause: where + " answers 404", Remedy: "check the application's slug in the issuer, https://HOST/application/o/SLUG/"}
	case response.StatusCode != http.StatusOK:
		return nil, &Trouble{Cause: where + " answers " + response.Status, Away: response.StatusCode >= 500}
	case len(body) > fetchMost:
		return nil, &Trouble{Cause: fmt.Sprintf("%s is larger than %d bytes", where, fetchMost)}
	}
	return body, nil
}

// judge refuses a document that can't be trusted or used. The issuer must be the configured one; the root
// of the same origin is Authentik's global mode, whose document still lives at the application.
func (i *issuer) judge(m *metadata) *Trouble {
	if m.Issuer != i.url && m.Issuer != root(i.url) {
		t := &Trouble{Cause: fmt.Sprintf("the issuer is configured as %q, and the provider says that it is %q", i.url, m.Issuer)}
		switch {
		case strings.TrimSuffix(m.Issuer, "/") == strings.TrimSuffix(i.url, "/"):
			t.Remedy = fmt.Sprintf("the two differ by the slash at the end; configure %q", m.Issuer)
		case path(m.Issuer) == path(i.url):
			t.Remedy = "Authentik builds its issuer from the host name that it is asked by; use the public host name here too"
		default:
			t.Remedy = "configure the issuer that the provider names, if it is the right one"
		}
		return t
	}
	for name, address := range map[string]string{"authorization_endpoint": m.Authorization, "token_endpoint": m.Token, "jwks_uri": m.Keys} {
		if !safeURL(address) {
			return &Trouble{Cause: fmt.Sprintf("the discovery document's %s is %q; it must be https, or loopback", name, address)}
		}
	}
	for _, address := range []*string{&m.UserInfo, &m.EndSession} {
		if !safeURL(*address) {
			*address = "" // not there
		}
	}
	return nil
}

// root is the address of an origin, such as https://id.example.com/.
func root(address string) string {
	u, err := url.Parse(address)
	if err != nil {
		return ""
	}
	return u.Scheme + "://" + u.Host + "/"
}

func path(address string) string {
	u, err := url.Parse(address)
	if err != nil {
		return ""
	}
	return strings.TrimSuffix(u.Path, "/")
}

// safeURL tells whether secrets may be sent to an address: https, or http on loopback.
func safeURL(address string) bool {
	u, err := url.Parse(address)
	return err == nil && u.Host != "" && u.User == nil && (u.Scheme == "https" || u.Scheme == "http" && IsLoopback(u.Hostname()))
}

// IsLoopback tells whether a host is this machine's own: localhost or a loopback address.
func IsLoopback(host string) bool {
	ip := net.ParseIP(host)
	return host == "localhost" || ip != nil && ip.IsLoopback()
}

// parseKeys reads a key set (RFC 7517) and keeps the public keys that sign: with a kid, not for encryption,
// and of a kind that we verify. Others are skipped, as the RFC asks.
func parseKeys(body []byte) (*keySet, error) {
	var raw struct {
		Keys []json.RawMessage `json:"keys"`
	}
	if err := json.Unmarshal(body, &raw); err != nil {
		return nil, err
	}
	set := &keySet{byID: map[string]jose.JSONWebKey{}}
	for _, text := range raw.Keys {
		var key jose.JSONWebKey
		if json.Unmarshal(text, &key) != nil || key.KeyID == "" || key.Use != "" && key.Use != "sig" || !key.IsPublic() || !key.Valid() || len(keyAlgorithms(key)) == 0 {
			continue
		}
		set.byID[key.KeyID] = key
	}
	return set, nil
}

func sameKeys(a, b *keySet) bool {
	if len(a.byID) != len(b.byID) {
		return false
	}
	for kid, x := range a.byID {
		y, ok := b.byID[kid]
		if !ok {
			return false
		}
		one, err1 := x.MarshalJSON()
		two, err2 := y.MarshalJSON()
		if err1 != nil || err2 != nil || string(one) != string(two) {
			return false
		}
	}
	return true
}
