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
	return f
}

func tenantsAddress(f templates.TenantFilter, after string) string {
	return address("/operator/tenants", "q", f.Text, "plan", f.Plan, "partner", f.Partner, "env", f.Env, "after", after)
}

// tenantList is the page of the tenants that the filter lets through, after a slug.
func (a *app) tenantList(v visit, f templates.TenantFilter, after string) templates.TenantList {
	s := v.snapshot
	l := templates.TenantList{Filter: f, Env: v.env, Total: len(s.Tenants()), WithoutFilter: address("/operator/tenants", "env", f.Env)}
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
	for _, t := range s.Tenants() {
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
	for _, t := range rows {
		l.Rows = append(l.Rows, tenantRow(s, t, v.env, f.Env))
	}
	l.Unserved = f.Partner != "" && all == 0
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
	return l
}

func tenantRow(s *flags.Snapshot, t *flags.Tenant, env, withEnv string) templates.TenantRow {
	row := templates.TenantRow{Name: t.Name, Slug: t.Slug, Plan: t.Plan, Suspended: t.Status == flags.Suspended, Flags: len(s.Flags()), Width: "0",
		Link: address("/operator/tenants/"+t.Slug, "env", withEnv)}
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
	list := a.tenantList(v, f, q.Get("after"))
	if wantsFragment(r) {
		w.Header().Set("HX-Replace-Url", tenantsAddress(f, ""))
		return a.swaps(w, http.StatusOK, templates.Swaps{Main: list, Parts: []templates.Part{
			{Target: "#tenant-count", Swap: "textContent", Text: list.Count()},
			{Target: "#plans", Swap: "innerHTML", View: templates.PlanPills{Plans: list.Plans}},
		}})
	}
	removed, err := a.removed(r, v)
	if err != nil {
		return err
	}
	page := a.tenantsView(v, list)
	page.Saved, page.Removed = q.Get("saved") != "", removed
	return a.html(w, http.StatusOK, page)
}

// tenantsView is the page around a list of tenants.
func (a *app) tenantsView(v visit, list templates.TenantList) templates.TenantsPage {
	return templates.TenantsPage{Chrome: a.chrome(v, "tenants", cmp.Or(list.Partner, "Tenants")), List: list, Partner: a.partnerHead(v, list)}
}
