package handlers

import (
	"errors"
	"fmt"
	"net/http"
	"net/url"

	"github.com/dezky/platform-api/auth"
	"github.com/dezky/platform-api/templates"
)

// signInPage shows how to sign in.
func (a *app) signInPage(w http.ResponseWriter, r *http.Request, _ visit) error {
	page := a.signInView(returnTo(r.URL.Query().Get("return_to")))
	if a.signIn != nil {
		a.signIn.Refresh(r.Context())
		if t := a.signIn.Trouble(); t != nil && t.Away {
			page.Error = fmt.Sprintf("The identity provider does not answer, since %s UTC. You can try all the same.", t.Since.UTC().Format("15:04"))
		} else if t != nil {
			page.Error = sentence("the identity provider can’t be used: " + t.Error())
		}
	}
	return a.html(w, http.StatusOK, page)
}

func (a *app) signInView(back string) templates.SignIn {
	page := templates.SignIn{Link: a.links != nil, ReturnTo: back,
		Reason: "Nobody can sign in here: without an identity provider the console is for loopback addresses alone. Configure one (PLATFORM_API_OIDC_ISSUER), or let the server listen on 127.0.0.1 (PLATFORM_API_ADDR) and reach it through a tunnel. API tokens work as ever."}
	if a.signIn != nil {
		page.Provider = hostOf(a.signIn.Issuer())
	}
	return page
}

func hostOf(address string) string {
	u, err := url.Parse(address)
	if err != nil {
		return address
	}
	return u.Host
}

// beginSignIn leads to the identity provider. It comes from the sign-in page, or from a page whose session
// has to be renewed.
func (a *app) beginSignIn(w http.ResponseWriter, r *http.Request, _ visit) error {
	back := returnTo(r.URL.Query().Get("return_to"))
	if a.signIn == nil {
		http.Redirect(w, r, loginAddress(back), http.StatusSeeOther)
		return nil
	}
	to, err := a.signIn.Begin(w, r, back, r.URL.Query().Get("anew") != "")
	if err != nil {
		return a.rejected(w, r, back, err)
	}
	http.Redirect(w, r, to, http.StatusSeeOther)
	return nil
}

func loginAddress(back string) string { return address("/login", "return_to", back) }

// finishSignIn takes the identity provider's answer.
func (a *app) finishSignIn(w http.ResponseWriter, r *http.Request, _ visit) error {
	if a.signIn == nil {
		http.Redirect(w, r, "/login", http.StatusSeeOther)
		return nil
	}
	back, err := a.signIn.Finish(w, r)
	if err != nil {
		return a.rejected(w, r, back, err)
	}
	if back == "" {
		back = "/operator/flags"
	}
	http.Redirect(w, r, back, http.StatusSeeOther)
	return nil
}

// rejected tells a person why they are not in, and what helps.
func (a *app) rejected(w http.ResponseWriter, r *http.Request, back string, err error) error {
	var rejection *auth.Rejection
	if !errors.As(err, &rejection) {
		return err
	}
	w.(*recorder).cause = rejection.Error()
	if rejection.Away {
		w.Header().Set("Retry-After", "5")
		page := a.signInView(back)
		page.Error = rejection.Text
		return a.html(w, http.StatusServiceUnavailable, page)
	}
	var many *tooMany
	if errors.As(a.failed(r, err), &many) {
		return many
	}
	if rejection.NoGroup() {
		groups := a.signIn.Groups()
		return a.html(w, http.StatusForbidden, templates.NoGroup{Who: rejection.Who, Groups: rejection.Groups,
			Operator: groups.Operator, Read: groups.Read, ReturnTo: back})
	}
	page := a.signInView(back)
	page.Error = rejection.Text
	return a.html(w, http.StatusForbidden, page)
}

// printLink has a new one-time link printed on the server's output.
func (a *app) printLink(w http.ResponseWriter, r *http.Request, _ visit) error {
	if a.links == nil {
		return &refusal{http.StatusForbidden, "forbidden", "there is no sign-in by link on this address"}
	}
	a.announceLink(a.links.New())
	page := a.signInView(returnTo(r.PostFormValue("return_to")))
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
		w.(*recorder).cause = "a sign-in link that is not good"
		if err := a.failed(r, nil); err != nil {
			return err
		}
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

// signOut ends the session, and goes on to the identity provider's own end of it.
func (a *app) signOut(w http.ResponseWriter, r *http.Request, _ visit) error {
	to, err := "", error(nil)
	if a.signIn != nil {
		to, err = a.signIn.SignOut(w, r)
	} else {
		err = a.sessions.SignOut(w, r)
	}
	if err != nil {
		return fmt.Errorf("sign out: %w", err)
	}
	if to == "" {
		to = "/login"
	}
	http.Redirect(w, r, to, http.StatusSeeOther)
	return nil
}

// backChannelLogout takes the identity provider's word that somebody's sessions have ended. Nobody reads
// the answer's text (OpenID Connect Back-Channel Logout 1.0, section 2.8).
func (a *app) backChannelLogout(w http.ResponseWriter, r *http.Request, _ visit) error {
	if a.signIn == nil {
		return &refusal{http.StatusNotFound, "not-found", "there is nothing at this path"}
	}
	w.Header().Set("Cache-Control", "no-store")
	err := a.signIn.BackChannelLogout(r.Context(), r.PostFormValue("logout_token"))
	switch {
	case errors.Is(err, auth.ErrToken):
		w.(*recorder).cause = err.Error()
		if many := a.failed(r, nil); many != nil {
			return many
		}
		w.WriteHeader(http.StatusBadRequest)
		return nil
	case err != nil:
		return err
	}
	w.WriteHeader(http.StatusOK)
	return nil
}
