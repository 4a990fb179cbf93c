package handlers

import (
	"net/http"

	"github.com/dezky/platform-api/templates"
)

// pagePolicy is the CSP of HTML: nothing but our own style sheets and images.
const pagePolicy = "default-src 'none'; style-src 'self'; img-src 'self'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'"

// health says that the process is up, whatever else is not.
func (s *Server) health(w http.ResponseWriter, r *http.Request) {
	rec := w.(*recorder)
	rec.routed, rec.quiet = true, true
	writeJSON(w, http.StatusOK, struct {
		Status  string `json:"status"`
		Service string `json:"service"`
		Version string `json:"version"`
	}{"ok", Service, s.opts.Version})
}

func (a *app) health(w http.ResponseWriter, r *http.Request, _ call) error {
	a.server.health(w, r)
	return nil
}

// ready says whether requests should be sent here, and in a word how the parts are that may be away.
func (a *app) ready(w http.ResponseWriter, r *http.Request, _ call) error {
	w.(*recorder).quiet = true
	if reason := a.server.state.Load(); reason != nil {
		return &unavailable{*reason}
	}
	return writeJSON(w, http.StatusOK, struct {
		Status           string `json:"status"`
		Database         string `json:"database"`
		Replication      string `json:"replication"`
		IdentityProvider string `json:"identityProvider"`
	}{"ready", a.databaseWord(), string(a.replica.Status().State), a.openID.State()})
}

// root leads a person to the console.
func (a *app) root(w http.ResponseWriter, r *http.Request, _ call) error {
	http.Redirect(w, r, "/operator/flags", http.StatusSeeOther)
	return nil
}

// front leads from the console's bare address to its first page.
func (a *app) front(w http.ResponseWriter, r *http.Request, _ visit) error {
	http.Redirect(w, r, "/operator/flags", http.StatusSeeOther)
	return nil
}

func (a *app) spec(w http.ResponseWriter, r *http.Request, _ call) error {
	w.Header().Set("Content-Type", "application/yaml")
	w.Header().Set("Cache-Control", "no-cache")
	w.Write(a.server.opts.Spec)
	return nil
}

func (a *app) docsPage(w http.ResponseWriter, r *http.Request, _ call) error {
	docs, err := a.docs()
	if err != nil {
		return err
	}
	h := w.Header()
	h.Set("Content-Type", "text/html; charset=utf-8")
	h.Set("Content-Security-Policy", pagePolicy)
	h.Set("Referrer-Policy", "no-referrer")
	h.Set("Cache-Control", "no-cache")
	return templates.Render(w, docs)
}
