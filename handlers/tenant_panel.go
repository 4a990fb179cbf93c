package handlers

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strconv"
	"strings"

	"github.com/dezky/platform-api/db"
	"github.com/dezky/platform-api/flags"
	"github.com/dezky/platform-api/provisioning"
	"github.com/dezky/platform-api/templates"
)

// tenant returns the tenant in the path.
func (a *app) tenant(r *http.Request, v visit) (*flags.Tenant, error) {
	slug := r.PathValue("slug")
	t := v.snapshot.Tenant(slug)
	if t == nil {
		return nil, noTenant(slug)
	}
	return t, nil
}

// ofTenant is the address of a tenant's page, or of what belongs to it, in the environment that is looked at.
func (a *app) ofTenant(v visit, t *flags.Tenant, part string, pairs ...string) string {
	return address("/operator/tenants/"+t.Slug+part, append([]string{"env", a.withEnv(v)}, pairs...)...)
}

// tenantPage is every flag of one tenant, with the reason.
func (a *app) tenantPage(w http.ResponseWriter, r *http.Request, v visit) error {
	if at := r.URL.Query().Get("at"); at != "" {
		return a.tenantThen(w, r, v, at)
	}
	t, err := a.tenant(r, v)
	if err != nil {
		return err
	}
	return a.showTenant(w, r, v, t, http.StatusOK, nil)
}

func (a *app) showTenant(w http.ResponseWriter, r *http.Request, v visit, t *flags.Tenant, status int, dialog templates.View) error {
	return a.showTenantAt(w, r, v, t, status, dialog, templates.Moment{})
}

// showTenantAt is the page of now, with the time that was asked for and can't be.
func (a *app) showTenantAt(w http.ResponseWriter, r *http.Request, v visit, t *flags.Tenant, status int, dialog templates.View, at templates.Moment) error {
	top := a.tenantTop(v, t)
	var err error
	if top.Done, err = a.doneTo(r, v, t); err != nil {
		return err
	}
	return a.html(w, status, templates.TenantPage{Chrome: a.chrome(v, "tenants", t.Name), Top: top, Dialog: dialog, At: at,
		List: a.tenantFlags(v, t, r.URL.Query().Get("show"), "")})
}

// tenantTop is what is known of a tenant, and what can be done with it.
func (a *app) tenantTop(v visit, t *flags.Tenant) templates.TenantTop {
	partner := templates.TenantFact{Name: "Partner", Value: "none"}
	if p := v.snapshot.Partner(t.PartnerSlug); p != nil {
		partner.Value, partner.Link = p.Name, address("/operator/tenants", "partner", p.Slug)
	}
	created := a.time(t.CreatedAt)
	return templates.TenantTop{Name: t.Name, Slug: t.Slug, Suspended: t.Status == flags.Suspended, Operator: v.operator(),
		Facts: []templates.TenantFact{
			{Name: "Plan", Value: t.Plan, Link: address("/operator/tenants", "plan", t.Plan)}, partner,
			{Name: "Status", Value: t.Status, Status: true}, {Name: "Id", Value: t.ID, Mono: true}, {Name: "Slug", Value: t.Slug, Mono: true},
			{Name: "Created", Time: &created}},
		Provisioning: a.held(v, t), AuditLink: address("/operator/audit", "tenant", t.Slug), EditLink: a.ofTenant(v, t, "/edit"),
		RemoveLink: a.ofTenant(v, t, "/delete"), StatusLink: a.ofTenant(v, t, "/status")}
}

// doneTo says what the address tells of as done, as far as it is so.
func (a *app) doneTo(r *http.Request, v visit, t *flags.Tenant) (*templates.TenantDone, error) {
	q := r.URL.Query()
	saved := q.Get("saved")
	switch {
	case q.Get("created") != "":
		return &templates.TenantDone{Text: "Created."}, nil
	case saved == t.Status:
		return &templates.TenantDone{Text: statusText(t)}, nil
	case saved == "":
		return nil, nil
	}
	done := &templates.TenantDone{Text: "Saved."}
	revision, err := strconv.ParseInt(saved, 10, 64)
	if err != nil || revision == 0 {
		return done, nil
	}
	entries, err := a.db.FlippedWith(r.Context(), t.Slug, revision)
	if err != nil {
		return nil, err
	}
	var flips []flags.TenantFlip
	for _, e := range entries {
		flip := flags.TenantFlip{Key: e.Name, Environments: map[string]flags.Switch{}}
		for env, o := range e.Impact {
			gained, lost := slices.Contains(o.Gains, t.Slug), slices.Contains(o.Losses, t.Slug)
			if gained || lost {
				flip.Environments[env] = flags.Switch{From: lost, To: gained}
			}
		}
		flips = append(flips, flip)
	}
	if done.Flips = flipsByEnvironment(v.snapshot, flips); len(done.Flips) > 0 {
		done.Text = fmt.Sprintf("Saved. %s flipped.", plural(len(flips), "flag"))
	} else {
		done.Text = "Saved. No flag flipped."
	}
	return done, nil
}

// statusText says what a change to the status that the tenant has did.
func statusText(t *flags.Tenant) string {
	if t.Status == flags.Suspended {
		return t.Name + " is suspended. This changes no flag."
	}
	return t.Name + " is active. This changes no flag."
}

// flipsByEnvironment tells one tenant's flips once for all environments in which they are the same.
func flipsByEnvironment(s *flags.Snapshot, flips []flags.TenantFlip) []templates.TenantFlips {
	var out []templates.TenantFlips
	for _, env := range s.Environments() {
		here := templates.TenantFlips{Envs: env}
		for _, f := range flips {
			switch change, flipped := f.Environments[env]; {
			case flipped && change.To:
				here.Gains = append(here.Gains, f.Key)
			case flipped:
				here.Losses = append(here.Losses, f.Key)
			}
		}
		if len(here.Gains)+len(here.Losses) == 0 {
			continue
		}
		same := slices.IndexFunc(out, func(o templates.TenantFlips) bool {
			return slices.Equal(o.Gains, here.Gains) && slices.Equal(o.Losses, here.Losses)
		})
		if same >= 0 {
			out[same].Envs += ", " + env
		} else {
			out = append(out, here)
		}
	}
	return out
}

// tenantFlags is the flags of the visit's snapshot as one tenant has them; links lead to the same time.
func (a *app) tenantFlags(v visit, t *flags.Tenant, show, at string) templates.TenantFlags {
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
			Link: address("/operator/flags/"+f.Key, "tenant", t.Slug, "env", v.env, "at", at) + "#explain"})
	}
	total := len(v.snapshot.Flags())
	link := func(show string) string {
		return address("/operator/tenants/"+t.Slug, "env", a.withEnv(v), "show", show, "at", at)
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

// tenantFields is the part of a form that says what a tenant is.
func tenantFields(v visit, t *flags.Tenant) templates.TenantFields {
	f := templates.TenantFields{Name: t.Name, Errors: map[string]string{}, Focus: "name"}
	for _, plan := range flags.Plans {
		f.Plans = append(f.Plans, templates.Choice{Value: plan, Label: plan, Checked: plan == t.Plan})
	}
	f.Partners = []templates.Choice{{Label: "none", Checked: t.PartnerSlug == ""}}
	for _, p := range v.snapshot.Partners() {
		f.Partners = append(f.Partners, templates.Choice{Value: p.Slug, Label: p.Name, Checked: p.Slug == t.PartnerSlug})
	}
	for _, status := range []string{flags.Active, flags.Suspended} {
		f.Statuses = append(f.Statuses, templates.Choice{Value: status, Label: status, Checked: status == t.Status})
	}
	return f
}

// wrong puts the errors at the form's fields, and the focus on the first that has one.
func wrong(f *templates.TenantFields, bad *flags.Invalid) {
	f.Errors = fieldErrors(bad.Errors)
	f.Errors["partner"] = f.Errors["partnerSlug"]
	for _, field := range []string{"name", "slug", "plan", "status", "partner", "id"} {
		if f.Errors[field] != "" {
			f.Focus = field
			return
		}
	}
}

// formTenant is a tenant with what a form says of it.
func formTenant(r *http.Request, t flags.Tenant) flags.Tenant {
	t.Name, t.Plan = strings.TrimSpace(r.PostFormValue("name")), r.PostFormValue("plan")
	t.PartnerSlug, t.Status = r.PostFormValue("partner"), r.PostFormValue("status")
	return t
}

// newTenant is the dialog that makes a tenant, over the list or as a page.
func (a *app) newTenant(w http.ResponseWriter, r *http.Request, v visit) error {
	partner := a.tenantFilter(r.URL.Query(), v).Partner
	d := templates.TenantNew{Fields: tenantFields(v, &flags.Tenant{Plan: flags.Plans[0], Status: flags.Active, PartnerSlug: partner}),
		Back: address("/operator/tenants", "partner", partner)}
	if wantsFragment(r) {
		return a.html(w, http.StatusOK, d)
	}
	return a.showNewTenant(w, r, v, http.StatusOK, d)
}

// showNewTenant shows the dialog over the list, for those without JavaScript.
func (a *app) showNewTenant(w http.ResponseWriter, r *http.Request, v visit, status int, d templates.TenantNew) error {
	d.Page = true
	return a.showTenants(w, r, v, a.tenantFilter(r.URL.Query(), v), status, d)
}

// makeTenant creates a tenant and goes to its page.
func (a *app) makeTenant(w http.ResponseWriter, r *http.Request, v visit) error {
	t := formTenant(r, flags.Tenant{Slug: strings.TrimSpace(r.PostFormValue("slug")), ID: strings.TrimSpace(r.PostFormValue("id"))})
	p := flags.TenantPatch{Slug: &t.Slug, Name: &t.Name, Plan: &t.Plan, PartnerSlug: &t.PartnerSlug, Status: &t.Status}
	if t.ID != "" {
		p.ID = &t.ID
	}
	created, err := a.db.CreateTenant(r.Context(), v.principal.By(), p)
	d := templates.TenantNew{Slug: t.Slug, ID: t.ID, Fields: tenantFields(v, &t), Back: "/operator/tenants"}
	status := http.StatusUnprocessableEntity
	var invalid *flags.Invalid
	var taken *flags.Conflict
	switch {
	case errors.As(err, &invalid):
		wrong(&d.Fields, invalid)
	case errors.As(err, &taken):
		status = http.StatusConflict
		field := "id"
		if d.Exists = a.db.Current().Tenant(t.Slug) != nil; d.Exists {
			field = "slug"
		}
		wrong(&d.Fields, &flags.Invalid{Errors: []flags.FieldError{{Field: field, Message: taken.Message}}})
	case err != nil:
		return err
	default:
		return a.leadTo(w, r, a.ofTenant(v, created, "", "created", "1"))
	}
	if fromHtmx(r) {
		return a.html(w, status, d)
	}
	return a.showNewTenant(w, r, v, status, d)
}

// leadTo sends the person to another page, by htmx or without it.
func (a *app) leadTo(w http.ResponseWriter, r *http.Request, to string) error {
	if fromHtmx(r) {
		w.Header().Set("HX-Redirect", to)
		w.WriteHeader(http.StatusNoContent)
		return nil
	}
	http.Redirect(w, r, to, http.StatusSeeOther)
	return nil
}

// tenantEdit is the form that changes a tenant, with the values that it is to have and what they flip.
func (a *app) tenantEdit(v visit, t, next *flags.Tenant) templates.TenantEdit {
	flips := v.snapshot.OfTenant(v.snapshot.Flips([]flags.TenantChange{{Before: t, After: next}}, 0))
	return templates.TenantEdit{Slug: t.Slug, Base: t.Mark(), Fields: tenantFields(v, next), Back: a.ofTenant(v, t, ""), Action: a.ofTenant(v, t, ""),
		Previews: a.ofTenant(v, t, "/impact"),
		Impact:   templates.TenantImpact{Changed: len(flags.DiffTenant(t, next)) > 0, Count: len(flips), Flips: flipsByEnvironment(v.snapshot, flips)}}
}

// editTenant is the dialog that changes a tenant, over its page or as a page.
func (a *app) editTenant(w http.ResponseWriter, r *http.Request, v visit) error {
	t, err := a.tenant(r, v)
	if err != nil {
		return err
	}
	e := a.tenantEdit(v, t, t)
	if wantsFragment(r) {
		return a.html(w, http.StatusOK, e)
	}
	e.Page = true
	return a.showTenant(w, r, v, t, http.StatusOK, e)
}

// draftTenant shows which flags the form would flip. Nothing changes.
func (a *app) draftTenant(w http.ResponseWriter, r *http.Request, v visit) error {
	t, err := a.tenant(r, v)
	if err != nil {
		return err
	}
	next := formTenant(r, *t)
	known := flags.TenantPatch{Plan: &next.Plan, PartnerSlug: &next.PartnerSlug}
	if _, err := known.Apply(*t, v.snapshot.Known); err != nil {
		return err
	}
	e := a.tenantEdit(v, t, &next)
	if fromHtmx(r) {
		return a.swaps(w, http.StatusOK, templates.Swaps{Main: e.Impact, Parts: []templates.Part{
			{Target: "#te-save", Swap: "textContent", Text: e.Impact.SaveLabel()}}})
	}
	e.Base, e.Page = r.PostFormValue("base"), true
	return a.showTenant(w, r, v, t, http.StatusOK, e)
}

// saveTenant makes a tenant what the form says, unless it was changed since the form began.
func (a *app) saveTenant(w http.ResponseWriter, r *http.Request, v visit) error {
	t, err := a.tenant(r, v)
	if err != nil {
		return err
	}
	next := formTenant(r, *t)
	saved, err := a.db.PatchTenantAt(r.Context(), v.principal.By(), t.Slug, r.PostFormValue("base"),
		flags.TenantPatch{Name: &next.Name, Plan: &next.Plan, PartnerSlug: &next.PartnerSlug, Status: &next.Status})
	var invalid *flags.Invalid
	var stale *flags.StaleTenant
	switch {
	case errors.As(err, &stale):
		v.snapshot, t, next = a.db.Current(), stale.Current, formTenant(r, *stale.Current)
		changes := flags.DiffTenant(t, &next)
		if len(changes) == 0 { // somebody else saved the same
			return a.leadTo(w, r, a.ofTenant(v, t, "", "saved", "0"))
		}
		e := a.tenantEdit(v, t, &next)
		who, err := a.whoChanged(r.Context(), t)
		if err != nil {
			return err
		}
		e.Stale = who + " Nothing was saved. Live now: " + liveValues(changes) + ". Save again to put your values on top."
		return a.answerTenantForm(w, r, v, t, http.StatusConflict, e)
	case errors.As(err, &invalid):
		e := a.tenantEdit(v, t, &next)
		wrong(&e.Fields, invalid)
		return a.answerTenantForm(w, r, v, t, http.StatusUnprocessableEntity, e)
	case err != nil:
		return err
	}
	return a.leadTo(w, r, a.ofTenant(v, t, "", "saved", strconv.FormatInt(saved.Revision, 10)))
}

// whoChanged says who changed a tenant last.
func (a *app) whoChanged(ctx context.Context, t *flags.Tenant) (string, error) {
	entries, err := a.db.History(ctx, db.HistoryFilter{Tenant: t.Slug, Limit: 1})
	if err != nil {
		return "", err
	}
	if len(entries) == 0 {
		return "Somebody changed this tenant.", nil
	}
	return entries[0].Actor + " changed this tenant " + ago(entries[0].At, a.now()) + ".", nil
}

// liveValues tells what is live of the fields that a form would change.
func liveValues(changes flags.Changes) string {
	var live []string
	for _, field := range orderedFields(changes) {
		live = append(live, fieldWord(field)+" "+cmp.Or(plainValue(field, changes[field].From), "none"))
	}
	return strings.Join(live, ", ")
}

func (a *app) answerTenantForm(w http.ResponseWriter, r *http.Request, v visit, t *flags.Tenant, status int, form templates.TenantEdit) error {
	if fromHtmx(r) {
		return a.html(w, status, form)
	}
	form.Page = true
	return a.showTenant(w, r, v, t, status, form)
}

// setTenantStatus suspends a tenant, or ends that.
func (a *app) setTenantStatus(w http.ResponseWriter, r *http.Request, v visit) error {
	t, err := a.tenant(r, v)
	if err != nil {
		return err
	}
	status := r.PostFormValue("status")
	changed, err := a.db.PatchTenant(r.Context(), v.principal.By(), t.Slug, flags.TenantPatch{Status: &status})
	if err != nil {
		return err
	}
	if !fromHtmx(r) {
		http.Redirect(w, r, a.ofTenant(v, t, "", "saved", status), http.StatusSeeOther)
		return nil
	}
	v.snapshot = a.db.Current()
	return a.swaps(w, http.StatusOK, templates.Swaps{Main: a.tenantTop(v, changed.Tenant), Parts: []templates.Part{
		{Target: "#toasts", Swap: "beforeend", View: templates.Toast{Text: statusText(changed.Tenant)}}}})
}

// tenantRemoval is the question before a tenant is removed, with what follows.
func (a *app) tenantRemoval(v visit, t *flags.Tenant) templates.TenantRemove {
	d := templates.TenantRemove{Name: t.Name, Slug: t.Slug, Base: t.Mark(), Env: v.env, Back: a.ofTenant(v, t, ""), Action: a.ofTenant(v, t, "/delete"),
		Scoped: v.snapshot.Edit().ScopedTo(flags.AxisTenants, t.Slug)}
	for _, f := range v.snapshot.Flags() {
		if f.Evaluate(t, v.env) {
			d.On = append(d.On, f.Key)
		}
	}
	if a.provisioning != nil {
		d.Group = "tenant:" + t.Slug
	}
	return d
}

// askRemove asks before a tenant is removed.
func (a *app) askRemove(w http.ResponseWriter, r *http.Request, v visit) error {
	t, err := a.tenant(r, v)
	if err != nil {
		return err
	}
	return a.answerRemoval(w, r, v, t, http.StatusOK, "")
}

func (a *app) answerRemoval(w http.ResponseWriter, r *http.Request, v visit, t *flags.Tenant, status int, stale string) error {
	d := a.tenantRemoval(v, t)
	d.Stale = stale
	if wantsFragment(r) {
		return a.html(w, status, d)
	}
	d.Page = true
	return a.showTenant(w, r, v, t, status, d)
}

// removeTenant removes a tenant that is as it was when it was asked about.
func (a *app) removeTenant(w http.ResponseWriter, r *http.Request, v visit) error {
	t, err := a.tenant(r, v)
	if err != nil {
		return err
	}
	err = a.db.DeleteTenantAt(r.Context(), v.principal.By(), t.Slug, r.PostFormValue("base"))
	var stale *flags.StaleTenant
	var scoped *flags.Conflict
	switch {
	case errors.As(err, &stale):
		v.snapshot = a.db.Current()
		who, err := a.whoChanged(r.Context(), stale.Current)
		if err != nil {
			return err
		}
		return a.answerRemoval(w, r, v, stale.Current, http.StatusConflict, who+" Nothing was removed.")
	case errors.As(err, &scoped):
		v.snapshot = a.db.Current()
		return a.answerRemoval(w, r, v, t, http.StatusConflict, "")
	case err != nil:
		return err
	}
	return a.leadTo(w, r, address("/operator/tenants", "env", a.withEnv(v), "removed", t.Slug))
}

// removed is the slug of the tenant that the address tells of as removed, if one was and there is no other now.
func (a *app) removed(r *http.Request, v visit) (string, error) {
	slug := r.URL.Query().Get("removed")
	if slug == "" || v.snapshot.Tenant(slug) != nil {
		return "", nil
	}
	was, err := a.db.HadTenant(r.Context(), slug)
	if err != nil || !was {
		return "", err
	}
	return slug, nil
}

// integrationNames are the integrations as people call them.
var integrationNames = map[string]string{provisioning.Name: "Authentik"}

// held is how other systems hold a tenant.
func (a *app) held(v visit, t *flags.Tenant) templates.Provisioning {
	p := templates.Provisioning{Asks: a.ofTenant(v, t, "/provisioning"), Page: a.ofTenant(v, t, "")}
	list := t.Integrations.All()
	if a.provisioning != nil {
		if !slices.ContainsFunc(list, func(i flags.Integration) bool { return i.Name == provisioning.Name }) {
			list = flags.WithIntegration(list, flags.Integration{Name: provisioning.Name, State: flags.IntegrationPending}) // about to be queued
		}
		if v.operator() {
			p.Reconcile = a.ofTenant(v, t, "/reconcile")
		}
	}
	for _, i := range list {
		p.Rows = append(p.Rows, templates.ProvisioningRow{Name: cmp.Or(integrationNames[i.Name], i.Name), Held: heldAs(i)})
		p.Waiting = p.Waiting || i.State == flags.IntegrationPending && a.provisioning != nil
	}
	return p
}

// tenantProvisioning is the section of a tenant's page that says how other systems hold it. It asks by itself
// while there is something to wait for.
func (a *app) tenantProvisioning(w http.ResponseWriter, r *http.Request, v visit) error {
	w.(*recorder).quiet = true
	t, err := a.tenant(r, v)
	if err != nil {
		return err
	}
	return a.html(w, http.StatusOK, a.held(v, t))
}

// reconcileNow brings a tenant in line, and shows what came of it.
func (a *app) reconcileNow(w http.ResponseWriter, r *http.Request, v visit) error {
	t, err := a.tenant(r, v)
	if err != nil {
		return err
	}
	if err := a.provisioning.Reconcile(r.Context(), t.Slug); err != nil {
		return err
	}
	if !fromHtmx(r) {
		http.Redirect(w, r, a.ofTenant(v, t, "")+"#provisioning", http.StatusSeeOther)
		return nil
	}
	return a.html(w, http.StatusOK, a.held(v, t))
}
