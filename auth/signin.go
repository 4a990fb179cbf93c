package auth

import (
	"context"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	exact "github.com/go-jose/go-jose/v4/json"
	"github.com/gorilla/securecookie"
	"golang.org/x/oauth2"
	"golang.org/x/sync/singleflight"

	"github.com/dezky/platform-api/db"
	"github.com/dezky/platform-api/flags"
)

// Times of the sign-in through an identity provider.
const (
	AttemptLasts = 10 * time.Minute // from the sign-in page to the way back
	CheckEvery   = 5 * time.Minute  // how often the provider is asked whether a session still holds
	CheckMost    = 15 * time.Minute // how long reading goes on while it can't be asked

	attemptsMost  = 5                // sign-ins that one browser may have under way
	attemptsSize  = 6 << 10          // bytes of their cookies: proxies take 8 KiB of a header
	attemptSize   = 4000             // bytes of one: browsers drop those over 4,096
	usedMost      = 10_000           // sign-ins that are remembered as used; twice as many at most
	askFirst      = time.Minute      // nobody is sent to a provider that was not heard from for so long
	lookMost      = time.Second      // how long the sign-in page waits for it
	askAgain      = 10 * time.Second // after userinfo failed
	accessDefault = 5 * time.Minute  // an access token's life where the provider does not tell
)

// Paths of the sign-in that the provider knows of.
const (
	CallbackPath    = "/login/callback"
	BackChannelPath = "/logout/backchannel"
)

// Why a session can't be used now. ErrProviderAway is another reason.
var (
	ErrSessionEnded = errors.New("the identity provider has ended the session")
	ErrSignInAgain  = errors.New("the identity provider's access token has expired")
)

// Client is our own registration at the identity provider by which people sign in.
type Client struct{ Issuer, ID, Secret string }

// SignIn signs people in through an identity provider (OpenID Connect Core 1.0, authorization code with
// PKCE, RFC 7636), and asks it now and then whether they still may.
type SignIn struct {
	client    Client
	issuer    *issuer
	groups    Groups
	sessions  *Sessions
	publicURL string
	now       func() time.Time
	log       *slog.Logger

	asking    singleflight.Group // by session: one question to userinfo at a time
	awayUntil atomic.Int64       // Unix milliseconds; until then userinfo is taken to be away

	mu          sync.Mutex
	used, older map[string]time.Time // states of sign-ins that came back, until they would have expired
}

// attempt is one sign-in that is under way, as its cookie holds it.
type attempt struct {
	State, Nonce, Verifier string
	ReturnTo               string
	Until                  int64 // Unix seconds
}

// Rejection is a sign-in that failed, for the person.
type Rejection struct {
	Text   string   // what was wrong and what helps, a sentence
	Cause  string   // for the log
	Groups []string // that the person is in, where none of them is the right one
	Who    string   // then: the person's name
	Away   bool     // the provider can't be asked now
}

func (e *Rejection) Error() string {
	if e.Cause == "" {
		return e.Text
	}
	return e.Cause
}

// NoGroup tells whether the person is known, and in no group that matters here.
func (e *Rejection) NoGroup() bool { return e.Who != "" }

// Groups are the groups that let people in.
func (s *SignIn) Groups() Groups { return s.groups }

// Trouble is what is wrong with the provider, or nil.
func (s *SignIn) Trouble() *Trouble { return s.issuer.trouble.Load() }

// Issuer is the provider as it calls itself, or as it is configured until it has answered.
func (s *SignIn) Issuer() string {
	if k := s.issuer.known.Load(); k != nil {
		return k.Issuer
	}
	return s.issuer.url
}

// EndSessionOrigin is the origin to which a sign-out goes on, or "".
func (s *SignIn) EndSessionOrigin() string {
	if k := s.issuer.known.Load(); k != nil && k.EndSession != "" {
		return strings.TrimSuffix(root(k.EndSession), "/")
	}
	return ""
}

func (s *SignIn) config(k *knowledge) *oauth2.Config {
	style := oauth2.AuthStyleInHeader // the default of OpenID Connect Discovery 1.0
	if len(k.TokenAuth) > 0 && !slices.Contains(k.TokenAuth, "client_secret_basic") {
		style = oauth2.AuthStyleInParams
	}
	return &oauth2.Config{ClientID: s.client.ID, ClientSecret: s.client.Secret, RedirectURL: s.publicURL + CallbackPath,
		Scopes:   []string{"openid", "profile", "email"},
		Endpoint: oauth2.Endpoint{AuthURL: k.Authorization, TokenURL: k.Token, AuthStyle: style}}
}

// Refresh asks the provider how it is, where that was not asked of late, and waits a second at most.
func (s *SignIn) Refresh(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, lookMost)
	defer cancel()
	s.heardFrom(ctx) // Trouble has the outcome
}

// heardFrom is what is known of a provider that answered just now.
func (s *SignIn) heardFrom(ctx context.Context) (*knowledge, error) {
	k, err := s.issuer.ask(ctx)
	if err != nil || s.Trouble() == nil && s.now().Sub(k.fetched) < askFirst {
		return k, err
	}
	if err := s.issuer.force(ctx); err != nil {
		return nil, err
	}
	if s.Trouble() != nil { // it was asked too often to be asked again
		return nil, s.issuer.away()
	}
	return s.issuer.known.Load(), nil
}

// Begin returns the address at the provider where a sign-in goes on, and sets the cookie that its way back
// needs. With anew the provider asks for the password even of someone it knows.
func (s *SignIn) Begin(w http.ResponseWriter, r *http.Request, returnTo string, anew bool) (string, error) {
	k, err := s.heardFrom(r.Context())
	if err != nil {
		return "", s.unreachable(err)
	}
	a := attempt{State: oauth2.GenerateVerifier(), Nonce: oauth2.GenerateVerifier(), Verifier: oauth2.GenerateVerifier(),
		ReturnTo: returnTo, Until: s.now().Add(AttemptLasts).Unix()}
	options := []oauth2.AuthCodeOption{oauth2.S256ChallengeOption(a.Verifier), oauth2.SetAuthURLParam("nonce", a.Nonce)}
	if anew {
		options = append(options, oauth2.SetAuthURLParam("prompt", "login"))
	}
	name := s.attemptCookie(a.State)
	value, err := securecookie.EncodeMulti(name, a, s.sessions.store.codecs...)
	if err != nil || len(name)+len(value) > attemptSize {
		a.ReturnTo = ""
		if value, err = securecookie.EncodeMulti(name, a, s.sessions.store.codecs...); err != nil {
			return "", fmt.Errorf("sign-in cookie: %w", err)
		}
	}
	count, size := 1, len(value)
	for _, c := range slices.Backward(r.Cookies()) { // the newest come last
		if !strings.HasPrefix(c.Name, s.attemptCookie("")) {
			continue
		}
		count, size = count+1, size+len(c.Value)
		if count > attemptsMost || size > attemptsSize {
			s.forget(w, c.Name)
		}
	}
	http.SetCookie(w, s.loginCookie(name, value, int(AttemptLasts/time.Second)))
	return s.config(k).AuthCodeURL(a.State, options...), nil
}

// attemptCookie is the cookie's name for a state: each sign-in that is under way has its own.
func (s *SignIn) attemptCookie(state string) string {
	name := "dezky-login-"
	if s.sessions.store.secure {
		name = "__Host-" + name
	}
	return name + state[:min(8, len(state))]
}

func (s *SignIn) loginCookie(name, value string, maxAge int) *http.Cookie {
	return &http.Cookie{Name: name, Value: value, Path: "/", MaxAge: maxAge, Secure: s.sessions.store.secure, HttpOnly: true, SameSite: http.SameSiteLaxMode}
}

func (s *SignIn) forget(w http.ResponseWriter, name string) {
	http.SetCookie(w, s.loginCookie(name, "", -1))
}

// Finish takes the provider's answer, begins a session and returns where the person wanted to go. Of who
// is not let in, and of every answer that is not to a sign-in of this browser, the error is a *Rejection.
func (s *SignIn) Finish(w http.ResponseWriter, r *http.Request) (returnTo string, err error) {
	a, err := s.attempt(w, r)
	if err != nil {
		return "", err
	}
	k, err := s.issuer.ask(r.Context())
	if err != nil {
		return a.ReturnTo, s.unreachable(err)
	}
	q := r.URL.Query()
	if iss, given := q.Get("iss"), q.Has("iss"); given && iss != k.Issuer { // RFC 9207
		return a.ReturnTo, &Rejection{Text: "The answer came from another identity provider than the one that was asked.", Cause: fmt.Sprintf("callback: iss is %q, not %q", iss, k.Issuer)}
	}
	if code := q.Get("error"); code != "" {
		return a.ReturnTo, refusedBy(code, q.Get("error_description"))
	}
	if q.Get("code") == "" {
		return a.ReturnTo, &Rejection{Text: "The identity provider’s answer has no code. Start the sign-in again.", Cause: "callback: no code"}
	}
	ctx := context.WithValue(r.Context(), oauth2.HTTPClient, s.issuer.http)
	token, err := s.config(k).Exchange(ctx, q.Get("code"), oauth2.VerifierOption(a.Verifier))
	if err != nil {
		return a.ReturnTo, s.exchangeFailed(err)
	}
	p, kept, sid, err := s.identify(r.Context(), k, token, a)
	var rejection *Rejection
	if errors.As(err, &rejection) && rejection.NoGroup() { // then neither has the session that the browser had
		err = errors.Join(s.sessions.SignOut(w, r), err)
	}
	if err != nil {
		return a.ReturnTo, err
	}
	if err := s.sessions.begin(w, r, *p, kept, sid); err != nil {
		return a.ReturnTo, fmt.Errorf("sign in: %w", err)
	}
	s.log.Info("signed in", "actor", p.Name, "role", p.Role.String(), "subject", p.Subject, "issuer", p.Issuer)
	return a.ReturnTo, nil
}

// attempt returns the sign-in that a callback ends. It can be had once.
func (s *SignIn) attempt(w http.ResponseWriter, r *http.Request) (attempt, error) {
	never := &Rejection{Text: "This is no answer to a sign-in that this browser began in the last ten minutes. Start the sign-in again."}
	var a attempt
	state := r.URL.Query().Get("state")
	name := s.attemptCookie(state)
	cookie, err := r.Cookie(name)
	if state == "" || err != nil {
		never.Cause = "callback: there is no cookie of the sign-in"
		return a, never
	}
	s.forget(w, name)
	if err := securecookie.DecodeMulti(name, cookie.Value, &a, s.sessions.store.codecs...); err != nil {
		never.Cause = "callback: the cookie of the sign-in can't be read"
		return a, never
	}
	now := s.now()
	switch {
	case subtle.ConstantTimeCompare([]byte(state), []byte(a.State)) != 1:
		never.Cause = "callback: the state is another"
	case now.Unix() >= a.Until:
		never.Cause = "callback: the sign-in has expired"
	case !s.use(a.State, now, now.Add(AttemptLasts)):
		never.Cause = "callback: the sign-in was used before"
	default:
		return a, nil
	}
	return attempt{}, never
}

// use marks a sign-in as used, and tells whether it was not. Under a flood the older half is forgotten: then
// the provider alone refuses a code that comes again.
func (s *SignIn) use(state string, now, until time.Time) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if now.Before(s.used[state]) || now.Before(s.older[state]) {
		return false
	}
	if len(s.used) >= usedMost {
		s.used, s.older = map[string]time.Time{}, s.used
	}
	s.used[state] = until
	return true
}

// identify verifies what the provider gave for the code, and makes a principal of who it is.
func (s *SignIn) identify(ctx context.Context, k *knowledge, token *oauth2.Token, a attempt) (*Principal, *tokens, string, error) {
	raw, _ := token.Extra("id_token").(string)
	kept := &tokens{ID: raw, Access: token.AccessToken, AccessUntil: token.Expiry}
	if kept.AccessUntil.IsZero() {
		kept.AccessUntil = s.now().Add(accessDefault)
	} else { // by our clock, which a test may move
		kept.AccessUntil = s.now().Add(time.Until(token.Expiry).Round(time.Second))
	}
	c, sid, err := s.idToken(ctx, raw, token.AccessToken, a.Nonce)
	if errors.Is(err, ErrProviderAway) {
		return nil, nil, "", s.unreachable(err)
	}
	if err != nil {
		text := "The identity provider’s id token was refused; the log says why."
		var known *refusal
		switch {
		case raw == "":
			text = "The identity provider gave no id token. Its provider must have the scope openid."
		case errors.As(err, &known) && known.remedy != "":
			text = fmt.Sprintf("The identity provider’s id token was refused (%s): %s.", known.cause, known.remedy)
		}
		return nil, nil, "", &Rejection{Text: text, Cause: "id token: " + err.Error()}
	}
	who, err := s.userInfo(ctx, k, token.AccessToken, c.Subject)
	switch {
	case err == nil:
		kept.Groups = who.Groups != nil
		c.person = c.person.merged(who)
	case errors.Is(err, errUserInfo), errors.Is(err, errOther):
		return nil, nil, "", &Rejection{Text: "The identity provider’s userinfo does not fit its id token; the log says how.", Cause: err.Error()}
	case errors.Is(err, errAccessRefused):
		return nil, nil, "", &Rejection{Text: "The identity provider does not take the access token that it gave. Your account there may have been deactivated.", Cause: err.Error()}
	case c.Groups == nil: // else the id token says enough
		return nil, nil, "", s.unreachable(err)
	}
	p := &Principal{Name: label(c.Email, c.Username, c.Subject), Role: s.groups.role(c.groups()), Subject: c.Subject, Issuer: c.Issuer, Client: c.Client}
	if p.Client == "" {
		p.Client = s.client.ID
	}
	c.describe(p)
	if p.Role == Nobody {
		return nil, nil, "", &Rejection{Text: "You are known, and in no group that may enter.", Cause: fmt.Sprintf("sign-in of %s: in no group that may enter", p.Name), Who: p.Name, Groups: c.groups()}
	}
	return p, kept, sid, nil
}

// merged is a person with what userinfo says, which is newer than the id token.
func (p person) merged(newer person) person {
	if newer.Email != "" {
		p.Email = newer.Email
	}
	if newer.FullName != "" {
		p.FullName = newer.FullName
	}
	if newer.Username != "" {
		p.Username = newer.Username
	}
	if newer.Groups != nil {
		p.Groups = newer.Groups
	}
	return p
}

// idToken verifies an id token (OpenID Connect Core 1.0, section 3.1.3.7), which must be for us, for this
// sign-in and for the access token that came with it.
func (s *SignIn) idToken(ctx context.Context, raw, access, nonce string) (c claims, sid string, err error) {
	h, _, err := readHeader(raw, "JWT")
	if err != nil {
		return c, "", err
	}
	token, c, _, err := s.issuer.verify(ctx, raw, h)
	if err != nil {
		return c, "", err
	}
	var more struct {
		SID string `json:"sid"`
	}
	var payload json.RawMessage
	if token.Claims(&payload) != nil || exact.Unmarshal(payload, &more) != nil {
		return c, "", refused("its sid is no text")
	}
	switch {
	case !slices.Contains(c.Audience, s.client.ID):
		return c, "", refused("its audience is %q, not %q", []string(c.Audience), s.client.ID)
	case len(c.Audience) > 1 && c.Client != s.client.ID:
		return c, "", refused("it is for several audiences, and its azp is %q", c.Client)
	case subtle.ConstantTimeCompare([]byte(token.Nonce), []byte(nonce)) != 1:
		return c, "", refused("its nonce is another")
	case c.Subject == "":
		return c, "", refused("it has no sub")
	case c.Events != nil:
		return c, "", refused("it is a logout token")
	case c.IssuedAt != nil && seconds(*c.IssuedAt).After(s.now().Add(aheadMost)):
		return c, "", &refusal{"it was issued in the future", sameTime}
	case token.AccessTokenHash != "" && token.VerifyAccessToken(access) != nil:
		return c, "", refused("its at_hash is not of the access token")
	}
	return c, more.SID, nil
}

// Errors of userinfo: the access token is refused, the answer is of somebody else, or it can't be read.
var (
	errAccessRefused = errors.New("userinfo refuses the access token")
	errOther         = errors.New("userinfo's answer is of another sub")
	errUserInfo      = errors.New("userinfo's answer is not JSON of the right form")
)

// userInfo asks the provider who an access token is for now (OpenID Connect Core 1.0, section 5.3). Beside
// the errors above, an error says that it could not be asked.
func (s *SignIn) userInfo(ctx context.Context, k *knowledge, access, subject string) (person, error) {
	var who struct {
		Subject string `json:"sub"`
		person
	}
	if k.UserInfo == "" {
		return who.person, nil
	}
	ctx, cancel := context.WithTimeout(ctx, fetchWithin)
	defer cancel()
	r, err := http.NewRequestWithContext(ctx, http.MethodGet, k.UserInfo, nil)
	if err != nil {
		return who.person, err
	}
	r.Header.Set("Authorization", "Bearer "+access)
	response, err := s.issuer.http.Do(r)
	if err != nil {
		return who.person, err
	}
	defer response.Body.Close()
	body, err := io.ReadAll(io.LimitReader(response.Body, fetchMost))
	switch {
	case err != nil:
		return who.person, err
	case response.StatusCode == http.StatusUnauthorized || response.StatusCode == http.StatusForbidden:
		return who.person, errAccessRefused
	case response.StatusCode != http.StatusOK:
		return who.person, fmt.Errorf("userinfo answers %s", response.Status)
	case exact.Unmarshal(body, &who) != nil:
		return who.person, errUserInfo
	case who.Subject != subject: // section 5.3.2
		return who.person, fmt.Errorf("%w: %q, not %q", errOther, who.Subject, subject)
	}
	return who.person, nil
}

// unreachable is the rejection for a provider that can't be asked.
func (s *SignIn) unreachable(err error) error {
	text := "The identity provider can’t be asked now. Try again in a minute."
	if t := s.Trouble(); t != nil && !t.Away {
		text = "The identity provider can’t be used: " + t.Error() + "."
	}
	return &Rejection{Text: text, Cause: err.Error(), Away: true}
}

// exchangeFailed explains why a code gave no tokens.
func (s *SignIn) exchangeFailed(err error) error {
	var answer *oauth2.RetrieveError
	if !errors.As(err, &answer) {
		return s.unreachable(err)
	}
	if answer.ErrorCode == "" { // no answer of OAuth: of a proxy, say
		return s.unreachable(err)
	}
	return refusedBy(answer.ErrorCode, answer.ErrorDescription)
}

// remedies are what helps against an OAuth error (RFC 6749, sections 4.1.2.1 and 5.2), by Authentik's habits.
var remedies = map[string]string{
	"access_denied":             "Your account may lack access to the application in Authentik.",
	"invalid_client":            "The client secret or id is not the provider’s: compare PLATFORM_API_OIDC_CLIENT_ID and PLATFORM_API_OIDC_CLIENT_SECRET.",
	"invalid_grant":             "The code was used before or is too old: start the sign-in again. If it happens each time, choose the grant type Authorization Code in the Authentik provider.",
	"invalid_request":           "The Authentik provider may have no grant types: choose Authorization Code there. Or it does not know our redirect URI.",
	"invalid_scope":             "The Authentik provider must have the scope mappings openid, profile and email.",
	"unauthorized_client":       "The Authentik provider may have no grant types: choose Authorization Code there.",
	"unsupported_grant_type":    "The Authentik provider may have no grant types: choose Authorization Code there.",
	"unsupported_response_type": "The Authentik provider may have no grant types: choose Authorization Code there.",
	"redirect_uri_mismatch":     "The provider does not know our redirect URI.",
	"temporarily_unavailable":   "Try again in a minute.",
	"server_error":              "Its own log says more.",
}

// describedMost is how many characters of a provider's description are shown.
const describedMost = 300

func refusedBy(code, description string) *Rejection {
	if runes := []rune(description); len(runes) > describedMost {
		description = string(runes[:describedMost]) + "…"
	}
	if runes := []rune(code); len(runes) > 60 {
		code = string(runes[:60]) + "…"
	}
	text := fmt.Sprintf("The identity provider refused the sign-in (%s).", code)
	if description != "" {
		text = fmt.Sprintf("The identity provider refused the sign-in (%s): %s.", code, strings.TrimSuffix(description, "."))
	}
	if remedy := remedies[code]; remedy != "" {
		text += " " + remedy
	}
	return &Rejection{Text: text, Cause: fmt.Sprintf("provider: %s: %s", code, description)}
}

// Use says what a request wants of a session.
type Use int

// The uses.
const (
	Navigate Use = iota // a whole page, which can go through the sign-in and come back
	Look                // a part of a page, or a stream
	Change              // a change
)

// Check returns who a session is for, asking the provider where it was not asked for CheckEvery. The error
// is ErrSessionEnded, ErrSignInAgain (the access token can't be used to ask any more) or ErrProviderAway.
func (s *SignIn) Check(ctx context.Context, session *Session, use Use) (*Principal, error) {
	k := s.issuer.known.Load()
	if !s.issuer.named(session.row.Issuer) { // another provider is configured now
		return nil, ErrSessionEnded
	}
	now := s.now()
	age := now.Sub(session.row.CheckedAt)
	if age >= 0 && age < CheckEvery {
		return &session.Principal, nil
	}
	kept, err := session.tokens()
	if err != nil {
		return nil, err
	}
	reading := use != Change && age < CheckMost
	expired := !now.Before(kept.AccessUntil)
	switch {
	case expired && reading && use == Look:
		return &session.Principal, nil
	case expired && !reading:
		return nil, ErrSignInAgain
	case k == nil || now.UnixMilli() < s.awayUntil.Load():
		err = ErrProviderAway
	default:
		var fresh any
		key := string(session.row.Hash[:])
		if expired {
			key = "expired " + key
		}
		fresh, err, _ = s.asking.Do(key, func() (any, error) {
			return s.recheck(context.WithoutCancel(ctx), k, session, kept, expired)
		})
		if err == nil {
			session.Principal = fresh.(Principal)
			return &session.Principal, nil
		}
	}
	if errors.Is(err, ErrProviderAway) && reading {
		return &session.Principal, nil
	}
	return nil, err
}

// recheck asks userinfo about a session, and ends it or notes the answer. Of an expired access token it only
// finds out whether the provider answers, so that nobody is sent to one that is away.
func (s *SignIn) recheck(ctx context.Context, k *knowledge, session *Session, kept *tokens, expired bool) (Principal, error) {
	p := session.Principal
	row, err := s.sessions.store.row(ctx, session.row.Hash)
	switch {
	case errors.Is(err, flags.ErrNotFound):
		return p, ErrSessionEnded
	case err != nil:
		return p, err
	case row.CheckedAt.After(session.row.CheckedAt): // by another request, just now
		return p, json.Unmarshal([]byte(row.Data), &p)
	}
	who, err := s.userInfo(ctx, k, kept.Access, p.Subject)
	if expired && (err == nil || errors.Is(err, errAccessRefused) || errors.Is(err, errOther)) {
		return p, ErrSignInAgain
	}
	if err == nil {
		if who.Groups != nil {
			p.Role = s.groups.role(*who.Groups)
		} else if kept.Groups {
			p.Role = Nobody
		}
		if who.Email != "" {
			p.Name = label(who.Email, who.Username, p.Subject)
		}
		who.describe(&p)
	}
	switch {
	case err == nil && p.Role != Nobody:
		data, err := json.Marshal(p)
		if err != nil {
			return p, err
		}
		row.Data, row.CheckedAt = string(data), s.now()
		s.sessions.store.note(row)
		err = s.sessions.store.db.CheckSession(ctx, row.Hash, row.Data, row.CheckedAt)
		if _, broken := db.Broken(err); broken {
			err = nil // it is known here, which is enough for as long
		}
		return p, err
	case err == nil || errors.Is(err, errAccessRefused) || errors.Is(err, errOther):
		s.log.Info("session ended by the identity provider", "actor", p.Name, "subject", p.Subject, "issuer", p.Issuer)
		if err := s.sessions.store.end(ctx, session.row.Hash); err != nil {
			return p, err
		}
		return p, ErrSessionEnded
	}
	s.awayUntil.Store(s.now().Add(askAgain).UnixMilli())
	s.log.Warn("userinfo can't be asked", "provider", s.issuer.url, "error", err)
	return p, fmt.Errorf("%w: %w", ErrProviderAway, err)
}

// SignOut ends the request's session and returns where the sign-out goes on at the provider (OpenID Connect
// RP-Initiated Logout 1.0), or "".
func (s *SignIn) SignOut(w http.ResponseWriter, r *http.Request) (string, error) {
	session, err := s.sessions.Find(r)
	if err != nil {
		return "", err
	}
	if err := s.sessions.SignOut(w, r); err != nil {
		return "", err
	}
	k := s.issuer.known.Load()
	if session == nil || !session.FromProvider() || k == nil || k.EndSession == "" {
		return "", nil
	}
	u, err := url.Parse(k.EndSession)
	if err != nil {
		return "", fmt.Errorf("end_session_endpoint: %w", err)
	}
	q := u.Query()
	if kept, err := session.tokens(); err == nil {
		q.Set("id_token_hint", kept.ID)
	}
	q.Set("client_id", s.client.ID)
	q.Set("post_logout_redirect_uri", s.publicURL+"/login")
	u.RawQuery = q.Encode()
	return u.String(), nil
}

// BackChannelLogout ends the sessions that a logout token names (OpenID Connect Back-Channel Logout 1.0).
// The error is ErrToken for a bad one.
func (s *SignIn) BackChannelLogout(ctx context.Context, raw string) error {
	h, _, err := readHeader(raw, "JWT", "logout+jwt", "application/logout+jwt")
	if err != nil {
		return err
	}
	verifier, _, err := s.issuer.verifier(ctx, h)
	if err != nil {
		return err
	}
	token, err := verifier.VerifyLogout(ctx, raw)
	if err != nil {
		return refused("%s", err)
	}
	now := s.now()
	switch {
	case !slices.Contains(token.Audience, s.client.ID):
		return refused("its audience is %q, not %q", token.Audience, s.client.ID)
	case token.IssuedAt.After(now.Add(aheadMost)):
		return refused("it was issued in the future")
	}
	hash := sha256.Sum256([]byte(token.TokenID))
	if !s.use("logout "+string(hash[:]), now, token.Expiry.Add(expLeeway)) {
		return refused("it was used before")
	}
	n, err := s.sessions.store.endAll(ctx, token.Issuer, token.Subject, token.SessionID)
	if err != nil {
		return err
	}
	s.log.Info("sessions ended by back-channel logout", "subject", token.Subject, "issuer", token.Issuer, "sessions", n)
	return nil
}
