package handlers

import (
	"errors"
	"fmt"
	"net/http"
	"strings"
	"time"

	"github.com/dezky/platform-api/db"
	"github.com/dezky/platform-api/flags"
	"github.com/dezky/platform-api/templates"
)

// formTime is the form of a time to the second or finer in forms and addresses; it is in UTC.
const formTime = "2006-01-02T15:04:05.999"

// readMoment reads a time out of a form or an address: in UTC as an input sends it, or by RFC 3339. The error is
// *flags.Invalid, its field "at".
func readMoment(text string) (time.Time, error) {
	for _, form := range []string{"2006-01-02T15:04:05", freezeTime, time.RFC3339} {
		if at, err := time.Parse(form, strings.TrimSpace(text)); err == nil {
			return at.UTC(), nil
		}
	}
	return time.Time{}, badQuery("at", "must be a time such as 2026-01-31T14:02:00, in UTC")
}

// moment is a time in the field of a form.
func moment(at time.Time) templates.Moment {
	m := templates.Moment{Value: at.Format(formTime), Step: "1"}
	if at.Nanosecond() != 0 {
		m.Step = "0.001"
	}
	return m
}

// asked is a time that can't be, back in its field, which takes nothing but times.
func asked(text string, bad *flags.Invalid) templates.Moment {
	m := templates.Moment{Error: fieldErrors(bad.Errors)["at"]}
	if at, err := readMoment(text); err == nil {
		m.Value, m.Step = moment(at).Value, moment(at).Step
	}
	return m
}

// exactly is a time as people read it where the second matters.
func exactly(at time.Time) string { return at.UTC().Format("2006-01-02 15:04:05.999") + " UTC" }

// asOf is DB.AsOf for a time in a form.
func (a *app) asOf(r *http.Request, text, slug string) (*flags.Past, error) {
	at, err := readMoment(text)
	if err != nil {
		return nil, err
	}
	return a.db.AsOf(r.Context(), at, slug)
}

// tenantThen is a tenant's page as of a time. Nothing can be changed there.
func (a *app) tenantThen(w http.ResponseWriter, r *http.Request, v visit, text string) error {
	slug := r.PathValue("slug")
	now := v.snapshot.Tenant(slug)
	p, err := a.asOf(r, text, slug)
	var invalid *flags.Invalid
	switch {
	case errors.As(err, &invalid) && now != nil:
		return a.showTenantAt(w, r, v, now, http.StatusUnprocessableEntity, nil, asked(text, invalid))
	case errors.Is(err, flags.ErrNotFound):
		return a.nobodyThen(w, r, v, slug, text)
	case err != nil:
		return err
	}
	t, at := p.Tenant(slug), moment(p.At)
	then := v
	then.snapshot = p.Snapshot
	list := a.tenantFlags(then, t, r.URL.Query().Get("show"), at.Value)
	top := templates.TenantTop{Name: t.Name, Slug: t.Slug, Suspended: t.Status == flags.Suspended, AuditLink: address("/operator/audit", "tenant", t.Slug),
		Then: &templates.TenantThen{At: exactly(p.At), Now: a.ofTenant(v, t, "")}}
	partner := "none"
	if t.PartnerSlug != "" {
		partner = t.PartnerSlug
	}
	created := a.time(t.CreatedAt)
	top.Facts = []templates.TenantFact{{Name: "Plan", Value: t.Plan}, {Name: "Partner", Value: partner}, {Name: "Status", Value: t.Status},
		{Name: "Id", Value: t.ID, Mono: true}, {Name: "Slug", Value: t.Slug, Mono: true}, {Name: "Created", Time: &created}}
	switch {
	case now == nil:
		top.Then.Other, top.Then.Now = "Nobody holds the slug now.", "/operator/tenants"
	case now.ID != t.ID:
		top.Then.Other = fmt.Sprintf("It was another tenant than the one that holds the slug now: %s, id %s, plan %s, partner %s.", t.Name, t.ID, t.Plan, partner)
	default:
		for i := range list.Rows {
			row := &list.Rows[i]
			row.Now = nowOf(v, now, p.Flag(row.Key), t)
		}
	}
	later := 0
	for _, f := range v.snapshot.Flags() {
		if p.Flag(f.Key) == nil {
			later++
		}
	}
	switch {
	case later == 1:
		top.Then.Later = "One flag of now did not exist then."
	case later > 1:
		top.Then.Later = fmt.Sprintf("%d flags of now did not exist then.", later)
	}
	for i := range list.Rows {
		if row := &list.Rows[i]; v.snapshot.Flag(row.Key) == nil { // it has no page of its own any more
			row.Link = address("/operator/flags/"+row.Key+"/life", "env", a.withEnv(v))
		}
	}
	return a.html(w, http.StatusOK, templates.TenantPage{Chrome: a.chrome(v, "tenants", t.Name+", as it was"), Top: top, At: at, List: list})
}

// nowOf says what a tenant has now of a flag where that is not as it was.
func nowOf(v visit, now *flags.Tenant, was *flags.Flag, then *flags.Tenant) string {
	f := v.snapshot.Flag(was.Key)
	switch {
	case f == nil:
		return "gone"
	case f.Evaluate(now, v.env) == was.Evaluate(then, v.env):
		return ""
	}
	return onOff(f.Evaluate(now, v.env)).Name
}

// creationsRead is of how many holders of one slug a page knows.
const creationsRead = 100

// nobodyThen says that nobody held a slug at a time, and who did next.
func (a *app) nobodyThen(w http.ResponseWriter, r *http.Request, v visit, slug, text string) error {
	at, err := readMoment(text)
	if err != nil {
		return err
	}
	created, err := a.db.History(r.Context(), db.HistoryFilter{Tenant: slug, Action: flags.Created, Limit: creationsRead})
	if err != nil {
		return err
	}
	page := templates.ErrorPage{Chrome: a.chrome(v, "tenants", "Not found"), SignedIn: true, Status: http.StatusNotFound, Heading: "There was no such tenant",
		Text: fmt.Sprintf("Nobody held “%s” at %s.", slug, exactly(at)), ID: w.(*recorder).id, Back: "/operator/tenants", BackText: "Back to the tenants"}
	next := time.Time{}
	for _, e := range created { // newest first
		if e.At.After(at) {
			next = e.At
		}
	}
	if !next.IsZero() {
		page.Text += fmt.Sprintf(" A tenant of that slug was created at %s.", exactly(next))
		page.Back, page.BackText = address("/operator/tenants/"+slug, "env", a.withEnv(v), "at", next.Format(formTime)), "As it was then"
	}
	if t := v.snapshot.Tenant(slug); t != nil {
		page.Back, page.BackText = a.ofTenant(v, t, ""), "Back to "+t.Name+", as it is now"
	}
	return a.html(w, http.StatusNotFound, page)
}

// explanationThen answers for a tenant and a flag as of a time.
func (a *app) explanationThen(r *http.Request, v visit, key, slug, env, text string) (templates.Explain, error) {
	out := templates.Explain{Key: key, Tenant: slug, Env: env, Envs: v.snapshot.Environments()}
	at, err := readMoment(text)
	if err == nil {
		out.At, out.Then = moment(at), exactly(at)
	}
	var p *flags.Past
	if err == nil && slug != "" {
		p, err = a.db.AsOf(r.Context(), at, slug)
	}
	switch invalid := (*flags.Invalid)(nil); {
	case errors.As(err, &invalid):
		out.At = asked(text, invalid)
	case errors.Is(err, flags.ErrNotFound):
		out.Asked, out.Unknown = true, true
	case err != nil:
		return out, err
	case p == nil:
	case p.Flag(key) == nil:
		out.Asked = true
	default:
		f := p.Flag(key)
		was := explainView(f, p.Tenant(slug), env)
		was.At, was.Then, was.Envs, was.Version = out.At, out.Then, out.Envs, f.Version
		return was, nil
	}
	return out, nil
}
