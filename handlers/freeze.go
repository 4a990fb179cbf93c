package handlers

import (
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"strings"
	"time"

	"github.com/dezky/platform-api/flags"
	"github.com/dezky/platform-api/templates"
)

// freezeState is what GET /freeze says: without a freeze in force only that.
type freezeState struct {
	Frozen bool `json:"frozen"`
	*flags.Freeze
}

func (a *app) getFreeze(w http.ResponseWriter, r *http.Request, _ call) error {
	f := a.db.Current().Frozen(a.now())
	return writeJSON(w, http.StatusOK, freezeState{f != nil, f})
}

// putFreeze stops all changes but kills, or gives the freeze in force another reason and end.
func (a *app) putFreeze(w http.ResponseWriter, r *http.Request, c call) error {
	n, err := flags.DecodeFreeze(c.body)
	if err != nil {
		return err
	}
	f, err := a.db.Freeze(r.Context(), c.principal.By(), n)
	if err != nil {
		return err
	}
	return writeJSON(w, http.StatusOK, freezeState{true, f})
}

func (a *app) deleteFreeze(w http.ResponseWriter, r *http.Request, c call) error {
	if err := a.db.Thaw(r.Context(), c.principal.By()); err != nil {
		return err
	}
	w.WriteHeader(http.StatusNoContent)
	return nil
}

// freezeTime is the form of a time without a zone in a form; it is in UTC.
const freezeTime = "2006-01-02T15:04"

// freezeUsual is for how long a freeze is offered.
const freezeUsual = 4 * time.Hour

// freezeForm offers a freeze, or another reason and end of the one in force.
func (a *app) freezeForm(v visit) *templates.FreezeForm {
	if !v.operator() {
		return nil
	}
	now := a.now().UTC()
	form := &templates.FreezeForm{Until: now.Add(freezeUsual).Round(time.Hour).Format(freezeTime),
		Least: now.Format(freezeTime), Most: now.Add(flags.MaxFreeze).Format(freezeTime)}
	if f := v.snapshot.Frozen(now); f != nil {
		form.Frozen, form.Reason, form.Until = true, f.Reason, f.Until.UTC().Format(freezeTime)
	}
	return form
}

// freezeChanges stops all changes but kills from the form on the status page.
func (a *app) freezeChanges(w http.ResponseWriter, r *http.Request, v visit) error {
	n := flags.NewFreeze{Reason: strings.ReplaceAll(r.PostFormValue("reason"), "\r\n", "\n")}
	var err error
	if n.Until, err = time.Parse(freezeTime, r.PostFormValue("until")); err != nil {
		n.Problems = append(n.Problems, flags.FieldError{Field: "until", Message: "must be a time such as 2026-01-31T14:05, in UTC"})
	}
	_, err = a.db.Freeze(r.Context(), v.principal.By(), n)
	var invalid *flags.Invalid
	if errors.As(err, &invalid) {
		form := a.freezeForm(v)
		form.Reason, form.Until, form.Errors = n.Reason, r.PostFormValue("until"), fieldErrors(invalid.Errors)
		return a.showStatus(w, r, v, http.StatusUnprocessableEntity, form)
	}
	if err != nil {
		return err
	}
	http.Redirect(w, r, "/operator/status", http.StatusSeeOther)
	return nil
}

// thawChanges ends the freeze from any page, and leads back there; where the page answered a form and has no
// address of its own, to the status page.
func (a *app) thawChanges(w http.ResponseWriter, r *http.Request, v visit) error {
	if err := a.db.Thaw(r.Context(), v.principal.By()); err != nil {
		return err
	}
	back := "/operator/status"
	if page, err := url.Parse(r.Referer()); err == nil && page.Host == r.Host {
		if _, pattern := a.server.routes.Load().Handler(&http.Request{Method: http.MethodGet, Host: r.Host, URL: page}); strings.HasPrefix(pattern, "GET /operator/") {
			back = page.RequestURI()
		}
	}
	http.Redirect(w, r, back, http.StatusSeeOther)
	return nil
}

// freezeBanner is what every page says of a freeze in force.
func (a *app) freezeBanner(v visit, f *flags.Freeze) templates.Freeze {
	if f == nil {
		return templates.Freeze{}
	}
	return templates.Freeze{By: f.By, Reason: f.Reason, Until: templates.Time{At: f.Until, Ago: f.Until.UTC().Format("2 Jan 2006 15:04") + " UTC"}, Operator: v.operator()}
}

// freezeMessage puts the banner into an open page, or takes it away.
func (a *app) freezeMessage(v visit, f *flags.Freeze) (string, error) {
	message, err := inStream(templates.Swaps{Parts: []templates.Part{{Target: "#freeze", Swap: "outerMorph", View: a.freezeBanner(v, f)}}})
	if err != nil {
		return "", fmt.Errorf("freeze: %w", err)
	}
	return message + "\n", nil
}
