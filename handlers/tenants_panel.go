package handlers

import (
	"cmp"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"

	"github.com/dezky/platform-api/db"
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
	page := a.tenantsView(v, list)
	page.Saved = q.Get("saved") != ""
	return a.html(w, http.StatusOK, page)
}

// tenantsView is the page around a list of tenants.
func (a *app) tenantsView(v visit, list templates.TenantList) templates.TenantsPage {
	return templates.TenantsPage{Chrome: a.chrome(v, "tenants", cmp.Or(list.Partner, "Tenants")), List: list, Partner: a.partnerHead(v, list)}
}

// tenant returns the tenant in the path.
func (a *app) tenant(r *http.Request, v visit) (*flags.Tenant, error) {
	slug := r.PathValue("slug")
	t := v.snapshot.Tenant(slug)
	if t == nil {
		return nil, noTenant(slug)
	}
	return t, nil
}

// tenantPage is every flag of one tenant, with the reason.
func (a *app) tenantPage(w http.ResponseWriter, r *http.Request, v visit) error {
	t, err := a.tenant(r, v)
	if err != nil {
		return err
	}
	return a.showTenant(w, r, v, t, http.StatusOK, nil)
}

func (a *app) showTenant(w http.ResponseWriter, r *http.Request, v visit, t *flags.Tenant, status int, dialog *templates.TenantEdit) error {
	self := "/operator/tenants/" + t.Slug
	page := templates.TenantPage{Chrome: a.chrome(v, "tenants", t.Name), Name: t.Name, Slug: t.Slug, Suspended: t.Status == flags.Suspended,
		Saved: r.URL.Query().Get("saved") != "", Dialog: dialog, List: a.tenantFlags(v, t, r.URL.Query().Get("show")),
		AuditLink: address("/operator/audit", "tenant", t.Slug), EditLink: address(self+"/edit", "env", a.withEnv(v))}
	partner := templates.TenantFact{Name: "Partner", Value: "none"}
	if p := v.snapshot.Partner(t.PartnerSlug); p != nil {
		partner.Value, partner.Link = p.Name, address("/operator/tenants", "partner", p.Slug)
	}
	created := a.time(t.CreatedAt)
	page.Facts = []templates.TenantFact{
		{Name: "Plan", Value: t.Plan, Link: address("/operator/tenants", "plan", t.Plan)}, partner,
		{Name: "Status", Value: t.Status}, {Name: "Id", Value: t.ID, Mono: true}, {Name: "Slug", Value: t.Slug, Mono: true}, {Name: "Created", Time: &created}}
	return a.html(w, status, page)
}

// tenantFlags is the flags as one tenant has them.
func (a *app) tenantFlags(v visit, t *flags.Tenant, show string) templates.TenantFlags {
	if show != "on" && show != "off" {
		show = ""
	}
	l := templates.TenantFlags{Tenant: t.Name, Env: v.env, Show: show, Any: len(v.snapshot.Flags()) > 0}
	on := 0
	for _, f := range v.snapshot.Flags() {
		e := f.Explain(t, v.env)
		if e.Value {
			on++
		}
		if show == "on" && !e.Value || show == "off" && e.Value {
			continue
		}
		l.Rows = append(l.Rows, templates.TenantFlag{Key: f.Key, Description: f.Description, State: onOff(e.Value), Reason: reasonFor(f, t, v.env),
			Link: address("/operator/flags/"+f.Key, "tenant", t.Slug, "env", v.env) + "#explain"})
	}
	total := len(v.snapshot.Flags())
	link := func(show string) string {
		return address("/operator/tenants/"+t.Slug, "env", a.withEnv(v), "show", show)
	}
	l.AllLink = link("")
	l.Pills = []templates.PlanPill{{Word: "All", N: total, Link: link(""), Current: show == ""},
		{Word: "On", N: on, Link: link("on"), Current: show == "on"}, {Word: "Off", N: total - on, Link: link("off"), Current: show == "off"}}
	return l
}

// reasonFor says in a line why a tenant has a flag or has it not: the step that decided.
func reasonFor(f *flags.Flag, t *flags.Tenant, env string) string {
	e := f.Explain(t, env)
	own := map[flags.Axis]string{flags.AxisPlans: t.Plan, flags.AxisTenants: t.Slug, flags.AxisPartners: t.PartnerSlug, flags.AxisEnvironments: env}
	switch {
	case f.State == flags.Off:
		return "off for everyone"
	case f.State == flags.On:
		return "on for everyone"
	case f.State == flags.Targeted && !f.HasAnyScope():
		return "targeted without any rule, so nobody has it"
	case e.Axis != "" && own[e.Axis] == "":
		return "no " + axisWords[e.Axis] + ", and the rule asks for " + orWords(f.Scope.Axis(e.Axis), 4, axisWords[e.Axis]+"s")
	case e.Axis != "":
		return axisWords[e.Axis] + " " + own[e.Axis] + " is not " + oneOf(f.Scope.Axis(e.Axis), axisWords[e.Axis])
	case e.Bucket != nil && e.Value:
		return fmt.Sprintf("bucket %d is below %d", *e.Bucket, *e.Pct)
	case e.Bucket != nil:
		return fmt.Sprintf("bucket %d is not below %d: joins at %d %%", *e.Bucket, *e.Pct, *e.Bucket+1)
	}
	var matched []string
	for _, axis := range flags.Axes {
		if len(f.Scope.Axis(axis)) > 0 {
			matched = append(matched, axisWords[axis]+" "+own[axis])
		}
	}
	return strings.Join(matched, " and ") + " matches"
}

// tenantForm is the form with a tenant's values.
func tenantForm(v visit, t *flags.Tenant, withEnv string) templates.TenantEdit {
	e := templates.TenantEdit{Slug: t.Slug, Base: t.UpdatedAt.UnixMilli(), Name: t.Name, Errors: map[string]string{},
		Back: address("/operator/tenants/"+t.Slug, "env", withEnv)}
	for _, plan := range flags.Plans {
		e.Plans = append(e.Plans, templates.Choice{Value: plan, Label: plan, Checked: plan == t.Plan})
	}
	e.Partners = []templates.Choice{{Label: "none", Checked: t.PartnerSlug == ""}}
	for _, p := range v.snapshot.Partners() {
		e.Partners = append(e.Partners, templates.Choice{Value: p.Slug, Label: p.Name, Checked: p.Slug == t.PartnerSlug})
	}
	for _, status := range []string{flags.Active, flags.Suspended} {
		e.Statuses = append(e.Statuses, templates.Choice{Value: status, Label: status, Checked: status == t.Status})
	}
	return e
}

// editTenant is the dialog that changes a tenant, over its page or as a page.
func (a *app) editTenant(w http.ResponseWriter, r *http.Request, v visit) error {
	t, err := a.tenant(r, v)
	if err != nil {
		return err
	}
	e := tenantForm(v, t, a.withEnv(v))
	if wantsFragment(r) {
		return a.html(w, http.StatusOK, e)
	}
	e.Page = true
	return a.showTenant(w, r, v, t, http.StatusOK, &e)
}

// saveTenant changes the fields that the form changed.
func (a *app) saveTenant(w http.ResponseWriter, r *http.Request, v visit) error {
	if err := r.ParseForm(); err != nil {
		return fmt.Errorf("form: %w", err)
	}
	t, err := a.tenant(r, v)
	if err != nil {
		return err
	}
	next := *t
	next.Name, next.Plan = strings.TrimSpace(r.PostFormValue("name")), r.PostFormValue("plan")
	next.PartnerSlug, next.Status = r.PostFormValue("partner"), r.PostFormValue("status")
	var p flags.TenantPatch
	for _, field := range []struct {
		was, is string
		to      **string
	}{{t.Name, next.Name, &p.Name}, {t.Plan, next.Plan, &p.Plan}, {t.PartnerSlug, next.PartnerSlug, &p.PartnerSlug}, {t.Status, next.Status, &p.Status}} {
		if field.is != field.was {
			*field.to = &field.is
		}
	}
	form := tenantForm(v, &next, a.withEnv(v))
	form.Base = t.UpdatedAt.UnixMilli()
	changes := flags.DiffTenant(t, &next)
	if r.PostFormValue("base") != strconv.FormatInt(form.Base, 10) && len(changes) > 0 {
		if form.Stale, err = a.tenantChanged(r, t, changes); err != nil {
			return err
		}
		return a.answerTenantForm(w, r, v, t, http.StatusConflict, form)
	}
	_, err = a.db.PatchTenant(r.Context(), v.principal.By(), t.Slug, p)
	var invalid *flags.Invalid
	if errors.As(err, &invalid) {
		for _, e := range invalid.Errors {
			form.Errors[cmp.Or(map[string]string{"partnerSlug": "partner"}[e.Field], e.Field)] = sentence(e.Message)
		}
		return a.answerTenantForm(w, r, v, t, http.StatusUnprocessableEntity, form)
	}
	if err != nil {
		return err
	}
	back := address("/operator/tenants/"+t.Slug, "env", a.withEnv(v), "saved", "1")
	if fromHtmx(r) {
		w.Header().Set("HX-Redirect", back)
		w.WriteHeader(http.StatusNoContent)
		return nil
	}
	http.Redirect(w, r, back, http.StatusSeeOther)
	return nil
}

// tenantChanged says who changed a tenant while its form was open, and what is live of what differs.
func (a *app) tenantChanged(r *http.Request, t *flags.Tenant, changes flags.Changes) (string, error) {
	entries, err := a.db.History(r.Context(), db.HistoryFilter{Tenant: t.Slug, Limit: 1})
	if err != nil {
		return "", err
	}
	who := "Somebody changed this tenant."
	if len(entries) > 0 {
		who = entries[0].Actor + " changed this tenant " + ago(entries[0].At, a.now()) + "."
	}
	var live []string
	for _, field := range orderedFields(changes) {
		live = append(live, fieldWord(field)+" "+cmp.Or(plainValue(field, changes[field].From), "none"))
	}
	return who + " Nothing was saved. Live now: " + strings.Join(live, ", ") + ". Save again to put your values on top.", nil
}

func (a *app) answerTenantForm(w http.ResponseWriter, r *http.Request, v visit, t *flags.Tenant, status int, form templates.TenantEdit) error {
	if fromHtmx(r) {
		return a.html(w, status, form)
	}
	form.Page = true
	return a.showTenant(w, r, v, t, status, &form)
}
