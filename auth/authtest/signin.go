package authtest

import (
	"cmp"
	"context"
	"crypto/rand"
	_ "embed"
	"errors"
	"html/template"
	"net/http"
	"net/url"
	"slices"
	"time"

	"github.com/zitadel/oidc/v3/pkg/oidc"
	"github.com/zitadel/oidc/v3/pkg/op"
)

const (
	signInPath    = "/if/flow/sign-in/"
	sessionCookie = "authentik_session"
)

//go:embed signin.html
var signInHTML string

var signInPage = template.Must(template.New("signin.html").Parse(signInHTML))

// SignInAs makes a person sign in without being asked, whoever the browser belongs to. "" shows the page
// again. It panics if there is no such person.
func (p *Provider) SignInAs(sub string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if sub != "" && p.accounts[sub] == nil {
		panic("authtest: no person " + sub)
	}
	p.preset = sub
}

// serveSignIn shows who can sign in, one button each, and takes the answer. It does not ask where the
// browser has a session already, or SignInAs has said who it is.
func (p *Provider) serveSignIn(w http.ResponseWriter, r *http.Request) {
	asked, err := p.op.Storage().AuthRequestByID(r.Context(), r.FormValue("id"))
	if err != nil {
		http.Error(w, err.Error(), http.StatusNotFound)
		return
	}
	request := asked.(*authRequest)
	posted := r.Method == http.MethodPost
	if posted && r.PostFormValue("cancel") != "" {
		op.AuthRequestError(w, r, request, oidc.ErrAccessDenied(), p.op)
		return
	}
	p.mu.Lock()
	sid, sub := p.browser(r)
	chosen := p.preset
	if posted {
		chosen = r.PostFormValue("person")
	}
	account := p.accounts[cmp.Or(chosen, sub)]
	people := make([]Person, len(p.order))
	for i, sub := range p.order {
		people[i] = p.accounts[sub].Person
	}
	p.mu.Unlock()

	again := slices.Contains(request.asked.Prompt, oidc.PromptLogin) || request.asked.MaxAge != nil && *request.asked.MaxAge == 0
	switch {
	case slices.Contains(request.asked.Prompt, oidc.PromptNone) && chosen == "" && sub == "":
		op.AuthRequestError(w, r, request, oidc.ErrLoginRequired(), p.op)
	case account == nil && posted:
		http.Error(w, "no such person", http.StatusBadRequest)
	case account == nil, again && chosen == "":
		w.Header().Set("Content-Type", "text/html; charset=utf-8")
		signInPage.Execute(w, struct {
			ID, Client string
			People     []Person
		}{request.id, request.asked.ClientID, people})
	case account.inactive:
		http.Error(w, "this account is deactivated", http.StatusForbidden)
	default:
		if chosen != "" && (chosen != sub || again) {
			sid = p.begin(w, chosen)
		}
		p.callback(w, r, request.id, sid)
	}
}

// browser returns the session of a request, or "". The caller holds mu.
func (p *Provider) browser(r *http.Request) (sid, sub string) {
	cookie, err := r.Cookie(sessionCookie)
	if err != nil {
		return "", ""
	}
	sid = digest(cookie.Value) // so that a sid doesn't give the cookie away
	return sid, p.sessions[sid].sub
}

// begin starts a browser's session.
func (p *Provider) begin(w http.ResponseWriter, sub string) (sid string) {
	value := rand.Text()
	http.SetCookie(w, &http.Cookie{Name: sessionCookie, Value: value, Path: "/", HttpOnly: true, SameSite: http.SameSiteLaxMode})
	p.mu.Lock()
	defer p.mu.Unlock()
	sid = digest(value)
	p.sessions[sid] = session{sub: sub, at: p.time()}
	return sid
}

// callback sends the browser back to the client, with a code.
func (p *Provider) callback(w http.ResponseWriter, r *http.Request, id, sid string) {
	p.mu.Lock()
	request, s := p.requests[id], p.sessions[sid]
	if request == nil || s.sub == "" {
		p.mu.Unlock()
		http.Error(w, "this sign-in is over", http.StatusNotFound)
		return
	}
	request.sub, request.sid, request.authTime, request.expires = s.sub, sid, s.at, p.time().Add(codeLife)
	answered := *request
	right, wrong := p.habits[IssInCallback], p.habits[WrongIssInCallback]
	p.mu.Unlock()

	address, err := op.BuildAuthResponseCallbackURL(r.Context(), &answered, p.op)
	if err != nil {
		op.AuthRequestError(w, r, &answered, err, p.op)
		return
	}
	if right {
		address += "&iss=" + url.QueryEscape(op.IssuerFromContext(r.Context()))
	}
	if wrong {
		address += "&iss=" + url.QueryEscape("http://wrong.example/application/o/dezky-operator/")
	}
	http.Redirect(w, r, address, http.StatusSeeOther)
}

// serveEndSession ends the browser's session (OpenID Connect RP-Initiated Logout 1.0), tells the clients
// that were in it, and goes where the client asks, if that is registered and the id_token_hint is good.
func (p *Provider) serveEndSession(w http.ResponseWriter, r *http.Request) {
	back, err := p.afterLogout(r)
	if err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	for _, logout := range p.endSession(r) {
		ctx, cancel := context.WithTimeout(r.Context(), 5*time.Second)
		p.BackChannelLogout(ctx, logout.address, logout.token) // as with Authentik, nobody waits for an answer
		cancel()
	}
	http.SetCookie(w, &http.Cookie{Name: sessionCookie, Path: "/", MaxAge: -1})
	if back == "" {
		w.Write([]byte("You are signed out."))
		return
	}
	http.Redirect(w, r, back, http.StatusFound)
}

// afterLogout returns where to go after a sign-out, "" if nowhere was asked for.
func (p *Provider) afterLogout(r *http.Request) (string, error) {
	hint, back, state := r.FormValue("id_token_hint"), r.FormValue("post_logout_redirect_uri"), r.FormValue("state")
	var client op.Client
	if hint != "" {
		claims, err := op.VerifyIDTokenHint[*oidc.IDTokenClaims](r.Context(), hint, p.op.IDTokenHintVerifier(r.Context()))
		if expired := (op.IDTokenHintExpiredError{}); err != nil && !errors.As(err, &expired) {
			return "", oidc.ErrInvalidRequest().WithDescription("id_token_hint is not good").WithParent(err)
		}
		for _, audience := range claims.Audience {
			if client, err = p.op.Storage().GetClientByClientID(r.Context(), audience); err != nil {
				return "", oidc.ErrInvalidRequest().WithDescription("id_token_hint is not a client's").WithParent(err)
			}
		}
	}
	if back == "" {
		return "", nil
	}
	if client == nil {
		return "", oidc.ErrInvalidRequest().WithDescription("post_logout_redirect_uri needs an id_token_hint")
	}
	if err := op.ValidateEndSessionPostLogoutRedirectURI(back, client); err != nil {
		return "", err
	}
	if state == "" {
		return back, nil
	}
	address, err := url.Parse(back)
	if err != nil {
		return "", err
	}
	query := address.Query()
	query.Set("state", state)
	address.RawQuery = query.Encode()
	return address.String(), nil
}

// logout is a back-channel logout to send.
type logout struct{ address, token string }

// endSession ends a browser's session and returns whom to tell.
func (p *Provider) endSession(r *http.Request) []logout {
	p.mu.Lock()
	defer p.mu.Unlock()
	sid, sub := p.browser(r)
	if sub == "" {
		return nil
	}
	delete(p.sessions, sid)
	told := map[string]bool{}
	var logouts []logout
	for _, g := range p.grants {
		address := p.clients[g.client].BackChannelLogoutURI
		if g.sid != sid || told[g.client] || address == "" || p.habits[NoBackChannelLogout] {
			continue
		}
		told[g.client] = true
		logouts = append(logouts, logout{address, p.encode(g, p.logoutClaims(g.client, sub, sid))})
	}
	return logouts
}
