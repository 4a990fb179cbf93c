package handlers

import (
	"fmt"
	"net/http"

	"github.com/dezky/platform-api/auth"
	"github.com/dezky/platform-api/templates"
)

// signIn shows how to sign in.
func (a *app) signIn(w http.ResponseWriter, r *http.Request, _ visit) error {
	return a.html(w, http.StatusOK, a.signInPage(returnTo(r.URL.Query().Get("return_to"))))
}

func (a *app) signInPage(back string) templates.SignIn {
	return templates.SignIn{Link: a.links != nil, ReturnTo: back,
		Reason: "Nobody can sign in here: without an identity provider the console is for loopback addresses alone. Let the server listen on 127.0.0.1 (PLATFORM_API_ADDR) and reach it through a tunnel. API tokens work as ever."}
}

// printLink has a new one-time link printed on the server's output.
func (a *app) printLink(w http.ResponseWriter, r *http.Request, _ visit) error {
	if a.links == nil {
		return &refusal{http.StatusForbidden, "forbidden", "there is no sign-in by link on this address"}
	}
	a.announceLink(a.links.New())
	page := a.signInPage(returnTo(r.PostFormValue("return_to")))
	page.Printed = true
	return a.html(w, http.StatusOK, page)
}

// link shows the page behind a one-time link. The secret is in the fragment, which no log and no Referer
// sees: a script takes it from there, or the person pastes it.
func (a *app) link(w http.ResponseWriter, r *http.Request, _ visit) error {
	if a.links == nil {
		http.Redirect(w, r, "/login", http.StatusSeeOther)
		return nil
	}
	return a.html(w, http.StatusOK, templates.SignInLink{ReturnTo: returnTo(r.URL.Query().Get("return_to"))})
}

// redeemLink begins a session for a good secret.
func (a *app) redeemLink(w http.ResponseWriter, r *http.Request, _ visit) error {
	back := returnTo(r.PostFormValue("return_to"))
	if a.links == nil {
		return &refusal{http.StatusForbidden, "forbidden", "there is no sign-in by link on this address"}
	}
	if !a.links.Redeem(r.PostFormValue("token")) {
		return a.html(w, http.StatusForbidden, templates.SignInLink{ReturnTo: back,
			Error: "That link does not work: it was used, is older than ten minutes, or is not the newest."})
	}
	if err := a.sessions.SignIn(w, r, auth.LocalOperator); err != nil {
		return fmt.Errorf("sign in: %w", err)
	}
	if back == "" {
		back = "/operator/flags"
	}
	http.Redirect(w, r, back, http.StatusSeeOther)
	return nil
}

// signOut ends the session.
func (a *app) signOut(w http.ResponseWriter, r *http.Request, _ visit) error {
	if err := a.sessions.SignOut(w, r); err != nil {
		return fmt.Errorf("sign out: %w", err)
	}
	http.Redirect(w, r, "/login", http.StatusSeeOther)
	return nil
}
