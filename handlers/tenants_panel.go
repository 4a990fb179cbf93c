package handlers

import (
	"cmp"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"

	"github.com/dezky/platform-api/flags"
	"github.com/dezky/platform-api/templates"
)

// tenantsMost is how many tenants one page shows. Flags are evaluated for these alone: a registry may
// hold a hundred thousand.
const tenantsMost = 100

// withEnv is the environment as an address has to name it: "" where it is what the person sees anyway.
func (a *app) withEnv(v visit) string {
	usual := a.environment
	if v.snapshot.HasEnvironment(v.prefs.Env) {
		usual = v.prefs.Env
	}
	if v.env == usual {
		return ""
	}
	return v.env
}

// address is a path with those of the parameters, in pairs of name and value, that have a value.
func address(path string, pairs ...string) string {
	q := url.Values{}
	for i := 0; i < len(pairs); i += 2 {
		if pairs[i+1] != "" {
			q.Set(pairs[i], pairs[i+1])
		}
	}
	if len(q) == 0 {
		return path
	}
	return path + "?" + q.Encode()
}

// tenantFilter reads the list's filter out of an address. Unknown values are ignored.
func (a *app) tenantFilter(q url.Values, v visit) templates.TenantFilter {
	f := templates.TenantFilter{Text: strings.TrimSpace(q.Get("q")), Env: a.withEnv(v)}
	if plan := q.Get("plan"); slices.Contains(flags.Plans, plan) {
		f.Plan = plan
	}
	if partner := q.Get("partner"); v.snapshot.Partner(partner) != nil {
		f.Partner = partner
	}
	if state := q.Get("provisioning"); heldWords[state].Word != "" {
		f.Provisioning = state
	}
	return f
}

// heldStates are the states of a tenant in other systems, the worst last, and heldWords how people read them.
var (
	heldStates = []string{flags.IntegrationOK, flags.IntegrationPending, flags.IntegrationError}
	heldWords  = map[string]templates.Held{
		flags.IntegrationOK:      {State: flags.IntegrationOK, Word: "ok", Icon: "check"},
		flags.IntegrationPending: {State: flags.IntegrationPending, Word: "waiting", Icon: "more"},
		flags.IntegrationError:   {State: flags.IntegrationError, Word: "error", Icon: "warn"},
	}
)

// worstState is the worst of a tenant's states in other systems; "" where none holds it.
func worstState(t *flags.Tenant) string {
	worst := ""
	for _, i := range t.Integrations.All() {
		if slices.Index(heldStates, i.State) > slices.Index(heldStates, worst) {
			worst = i.State
		}
	}
	return worst
}

// heldAs is how one other system holds a tenant.
func heldAs(i flags.Integration) templates.Held {
	out := heldWords[i.State]
	out.Error = sentence(i.Error)
	return out
}

// held is a tenant's state in other systems, with the errors where there are some.
func held(t *flags.Tenant) templates.Held {
	out := heldWords[worstState(t)]
	var errs []string
	for _, i := range t.Integrations.All() {
		if i.Error != "" {
			errs = append(errs, i.Error)
		}
	}
	out.Error = strings.Join(errs, "; ")
	return out
}

func tenantsAddress(f templates.TenantFilter, after string) string {
	return address("/operator/tenants", "q", f.Text, "plan", f.Plan, "partner", f.Partner, "provisioning", f.Provisioning, "env", f.Env, "after", after)
}

// tenantList is the page of the tenants that the filter lets through, after a slug. It tells whether any of all
// tenants still waits for another system.
func (a *app) tenantList(v visit, f templates.TenantFilter, after string) (l templates.TenantList, waiting bool) {
	s := v.snapshot
	l = templates.TenantList{Filter: f, Env: v.env, Total: len(s.Tenants()), WithoutFilter: address("/operator/tenants", "env", f.Env)}
	if p := s.Partner(f.Partner); p != nil {
		l.Partner = p.Name
	}
	for _, p := range s.Partners() {
		l.Partners = append(l.Partners, templates.Choice{Value: p.Slug, Label: p.Name, Checked: p.Slug == f.Partner})
	}
	byPlan, all := map[string]int{}, 0
	text := strings.ToLower(f.Text)
	var before []string // slugs of the matches on earlier pages
	var rows []*flags.Tenant
	anyHeld := a.provisioning != nil || f.Provisioning != ""
	for _, t := range s.Tenants() {
		state := worstState(t)
		anyHeld = anyHeld || state != ""
		waiting = waiting || state == flags.IntegrationPending
		if f.Provisioning != "" && state != f.Provisioning {
			continue
		}
		if f.Partner != "" && t.PartnerSlug != f.Partner {
			continue
		}
		all++
		byPlan[t.Plan]++
		if f.Plan != "" && t.Plan != f.Plan || !contains(text, t.Slug, t.Name) {
			continue
		}
		l.Matches++
		if t.Slug <= after {
			before = append(before, t.Slug)
		} else if len(rows) < tenantsMost {
			rows = append(rows, t)
		}
	}
	pill := func(word, plan string, n int) {
		other := f
		other.Plan = plan
		l.Plans = append(l.Plans, templates.PlanPill{Word: word, N: n, Link: tenantsAddress(other, ""), Current: f.Plan == plan})
	}
	pill("All", "", all)
	for _, plan := range flags.Plans {
		pill(plan, plan, byPlan[plan])
	}
	if anyHeld {
		l.Provisioning = []templates.Choice{{Label: "Any provisioning"}}
		for _, state := range heldStates {
			l.Provisioning = append(l.Provisioning, templates.Choice{Value: state, Label: heldWords[state].Word, Checked: state == f.Provisioning})
		}
	}
	for _, t := range rows {
		l.Rows = append(l.Rows, tenantRow(s, t, v.env, f.Env))
	}
	l.Unserved = f.Partner != "" && f.Provisioning == "" && all == 0
	l.From, l.To = len(before)+1, len(before)+len(rows)
	if l.To < l.Matches && len(rows) > 0 {
		l.Older = tenantsAddress(f, rows[len(rows)-1].Slug)
	}
	switch {
	case len(before) > tenantsMost:
		l.Newer = tenantsAddress(f, before[len(before)-tenantsMost-1])
	case len(before) > 0:
		l.Newer = tenantsAddress(f, "")
	}
	return l, waiting
}

func tenantRow(s *flags.Snapshot, t *flags.Tenant, env, withEnv string) templates.TenantRow {
	row := templates.TenantRow{Name: t.Name, Slug: t.Slug, Plan: t.Plan, Suspended: t.Status == flags.Suspended, Flags: len(s.Flags()), Width: "0",
		Link: address("/operator/tenants/"+t.Slug, "env", withEnv), Held: held(t)}
	if p := s.Partner(t.PartnerSlug); p != nil {
		row.Partner = p.Name
	}
	for _, f := range s.Flags() {
		if f.Evaluate(t, env) {
			row.On++
		}
	}
	if row.Flags > 0 {
		row.Width = strconv.FormatFloat(100*float64(row.On)/float64(row.Flags), 'f', 1, 64)
	}
	return row
}

// tenantsPage is the registry, whole or as the fragment that a filter replaces.
func (a *app) tenantsPage(w http.ResponseWriter, r *http.Request, v visit) error {
	q := r.URL.Query()
	f := a.tenantFilter(q, v)
	if !wantsFragment(r) {
		return a.showTenants(w, r, v, f, http.StatusOK, nil)
	}
	list, _ := a.tenantList(v, f, q.Get("after"))
	w.Header().Set("HX-Replace-Url", tenantsAddress(f, ""))
	return a.swaps(w, http.StatusOK, templates.Swaps{Main: list, Parts: []templates.Part{
		{Target: "#tenant-count", Swap: "textContent", Text: list.Count()},
		{Target: "#plans", Swap: "innerHTML", View: templates.PlanPills{Plans: list.Plans}},
	}})
}

// showTenants is the whole page, with a dialog over it where one is asked without JavaScript.
func (a *app) showTenants(w http.ResponseWriter, r *http.Request, v visit, f templates.TenantFilter, status int, ask templates.View) error {
	q := r.URL.Query()
	list, waiting := a.tenantList(v, f, q.Get("after"))
	page := templates.TenantsPage{Chrome: a.chrome(v, "tenants", cmp.Or(list.Partner, "Tenants")), List: list, Partner: a.partnerHead(v, list),
		Reconcile: a.provisioning != nil && v.operator(), Ask: ask}
	if ask == nil {
		page.Saved = q.Get("saved") != ""
		var err error
		if page.Removed, err = a.removed(r, v); err != nil {
			return err
		}
	}
	if begun := q.Get("reconciled") != ""; waiting || begun {
		var err error
		if page.Reconciling, err = a.reconciling(r, begun); err != nil {
			return err
		}
	}
	return a.html(w, status, page)
}
