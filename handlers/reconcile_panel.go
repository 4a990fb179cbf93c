package handlers

import (
	"net/http"
	"net/url"

	"github.com/dezky/platform-api/templates"
)

// reconciling says how far all tenants are in the other system; what is done already is told only where it is
// asked for.
func (a *app) reconciling(r *http.Request, asked bool) (templates.Reconciling, error) {
	p, err := a.provisioning.Progress(r.Context())
	if err != nil {
		return templates.Reconciling{}, err
	}
	running := p.Pending > 0
	return templates.Reconciling{Shown: a.provisioning != nil && (running || asked), Running: running, Total: p.Total, Done: p.OK + p.Errors, Failed: p.Errors}, nil
}

// reconcileProgress is the strip over the list, which asks by itself until all is done. Then the rows are shown
// anew, unless they would go because of the filter.
func (a *app) reconcileProgress(w http.ResponseWriter, r *http.Request, v visit) error {
	w.(*recorder).quiet = true
	strip, err := a.reconciling(r, true)
	if err != nil {
		return err
	}
	out := templates.Swaps{Main: strip}
	if at, err := url.Parse(r.Header.Get("HX-Current-URL")); err == nil && !strip.Running {
		if f := a.tenantFilter(at.Query(), v); f.Provisioning == "" {
			list, _ := a.tenantList(v, f, at.Query().Get("after"))
			out.Parts = []templates.Part{{Target: "#tenant-list", Swap: "innerMorph", View: list}}
		}
	}
	return a.swaps(w, http.StatusOK, out)
}

// askReconcile asks before every tenant is brought in line.
func (a *app) askReconcile(w http.ResponseWriter, r *http.Request, v visit) error {
	if a.provisioning == nil {
		return noOtherSystem
	}
	ask := templates.ReconcileAll{Tenants: len(v.snapshot.Tenants())}
	if wantsFragment(r) {
		return a.html(w, http.StatusOK, ask)
	}
	ask.Page = true
	return a.showTenants(w, r, v, a.tenantFilter(nil, v), http.StatusOK, ask)
}

var noOtherSystem = &refusal{http.StatusNotFound, "not-found", "no other system holds the tenants of this appliance"}

// reconcileAll queues every tenant once more.
func (a *app) reconcileAll(w http.ResponseWriter, r *http.Request, v visit) error {
	if a.provisioning == nil {
		return noOtherSystem
	}
	if err := a.provisioning.RetryAll(r.Context()); err != nil {
		return err
	}
	http.Redirect(w, r, "/operator/tenants?reconciled=1", http.StatusSeeOther)
	return nil
}
