package handlers

import (
	"errors"
	"fmt"
	"net/http"
	"strconv"
	"strings"

	"github.com/dezky/platform-api/db"
	"github.com/dezky/platform-api/flags"
	"github.com/dezky/platform-api/templates"
)

// Bounds of what is shown of partners: those in the list, which its filter narrows, and the tenants or flags
// that a dialog names.
const (
	partnersMost = 1000
	usesNamed    = 10
)

// partnerList is the partners whose name or slug has a text, by slug.
func partnerList(s *flags.Snapshot, text string) templates.PartnerList {
	l := templates.PartnerList{Text: strings.TrimSpace(text), Total: len(s.Partners())}
	tenants := map[string]int{}
	for _, t := range s.Tenants() {
		tenants[t.PartnerSlug]++
	}
	for _, p := range s.Partners() {
		if !contains(strings.ToLower(l.Text), p.Slug, p.Name) {
			continue
		}
		if l.Matches++; l.Matches <= partnersMost {
			l.Rows = append(l.Rows, templates.PartnerRow{Name: p.Name, Slug: p.Slug, Tenants: tenants[p.Slug]})
		}
	}
	return l
}

// partnersPage is all partners, whole or as the fragment that a filter replaces.
func (a *app) partnersPage(w http.ResponseWriter, r *http.Request, v visit) error {
	q := r.URL.Query()
	list := partnerList(v.snapshot, q.Get("q"))
	if wantsFragment(r) {
		w.Header().Set("HX-Replace-Url", address("/operator/partners", "q", list.Text))
		return a.swaps(w, http.StatusOK, templates.Swaps{Main: list, Parts: []templates.Part{
			{Target: "#partner-count", Swap: "textContent", Text: list.Count()}}})
	}
	page := templates.PartnersPage{Chrome: a.chrome(v, "tenants", "Partners"), List: list}
	if slug := q.Get("removed"); slug != "" {
		entries, err := a.db.History(r.Context(), db.HistoryFilter{Partner: slug, Limit: 1})
		if err != nil {
			return err
		}
		if len(entries) > 0 && entries[0].Action == flags.Deleted {
			page.Removed, page.Group = plainValue("name", entries[0].Changes["name"].From), partnerGroup(slug)
		}
	}
	return a.html(w, http.StatusOK, page)
}

// partnerGroup is the group at the identity provider whose people are a partner's.
func partnerGroup(slug string) string { return "partner:" + slug }

// newPartner is the dialog that makes a partner, over the page that asks or as a page.
func (a *app) newPartner(w http.ResponseWriter, r *http.Request, v visit) error {
	return a.answerNewPartner(w, r, v, http.StatusOK, templates.NewPartner{})
}

func (a *app) answerNewPartner(w http.ResponseWriter, r *http.Request, v visit, status int, d templates.NewPartner) error {
	if fromHtmx(r) {
		return a.html(w, status, d)
	}
	d.Page = true
	return a.html(w, status, templates.PartnersPage{Chrome: a.chrome(v, "tenants", "New partner"), List: partnerList(v.snapshot, ""), Ask: d})
}

// makePartner creates a partner and goes to its page.
func (a *app) makePartner(w http.ResponseWriter, r *http.Request, v visit) error {
	d := templates.NewPartner{Slug: strings.TrimSpace(r.PostFormValue("slug")), Name: strings.TrimSpace(r.PostFormValue("name"))}
	p, err := a.db.CreatePartner(r.Context(), v.principal.By(), flags.PartnerPatch{Slug: &d.Slug, Name: &d.Name})
	var invalid *flags.Invalid
	var conflict *flags.Conflict
	switch {
	case errors.As(err, &invalid):
		wrong := fieldErrors(invalid.Errors)
		d.SlugError, d.NameError = wrong["slug"], wrong["name"]
		return a.answerNewPartner(w, r, v, http.StatusUnprocessableEntity, d)
	case errors.As(err, &conflict):
		d.SlugError, d.Taken = "There is a partner "+d.Slug+" already.", true
		return a.answerNewPartner(w, r, v, http.StatusConflict, d)
	case err != nil:
		return err
	}
	return a.leadTo(w, r, a.partnerAddress(v, p.Slug))
}

// partnerAddress is the page of a partner, with more parameters in pairs.
func (a *app) partnerAddress(v visit, slug string, more ...string) string {
	return address("/operator/tenants", append([]string{"partner", slug, "env", a.withEnv(v)}, more...)...)
}

// partner returns the partner in the path.
func (a *app) partner(r *http.Request, v visit) (*flags.Partner, error) {
	slug := r.PathValue("slug")
	p := v.snapshot.Partner(slug)
	if p == nil {
		return nil, fmt.Errorf("partner %q: %w", slug, flags.ErrNotFound)
	}
	return p, nil
}

// partnerHead is what a partner's page says of it, or nil where the list of tenants is not one partner's.
func (a *app) partnerHead(v visit, l templates.TenantList) *templates.PartnerHead {
	p := v.snapshot.Partner(l.Filter.Partner)
	if p == nil {
		return nil
	}
	self := "/operator/partners/" + p.Slug
	env := a.withEnv(v)
	h := templates.PartnerHead{AuditLink: address("/operator/audit", "partner", p.Slug),
		EditLink: address(self+"/edit", "env", env), RemoveLink: address(self+"/remove", "env", env)}
	tenants := templates.TenantFact{Name: "Tenants", Value: "none"}
	var plans []string
	for _, pill := range l.Plans[1:] { // the first is of all
		if pill.N > 0 {
			plans = append(plans, strconv.Itoa(pill.N)+" "+pill.Word)
		}
	}
	if len(plans) > 0 {
		tenants.Value = strings.Join(plans, ", ")
	}
	targeting := templates.TenantFact{Name: "Flags that target it", Value: "none"}
	if n := len(flagsOfPartner(v.snapshot, p.Slug)); n > 0 {
		targeting.Value, targeting.Link = plural(n, "flag"), address("/operator/flags", "partner", p.Slug, "env", env)
	}
	created := a.time(p.CreatedAt)
	h.Facts = []templates.TenantFact{tenants, targeting, {Name: "Group of its people", Value: partnerGroup(p.Slug), Mono: true},
		{Name: "Slug", Value: p.Slug, Mono: true}, {Name: "Created", Time: &created}}
	return &h
}

// flagsOfPartner are the keys of the flags whose scope names a partner.
func flagsOfPartner(s *flags.Snapshot, slug string) []string {
	return s.Edit().ScopedTo(flags.AxisPartners, slug)
}

// askPartner answers with a dialog about a partner: alone, or without JavaScript over the partner's page.
func (a *app) askPartner(w http.ResponseWriter, r *http.Request, v visit, p *flags.Partner, status int, dialog func(page bool) templates.View) error {
	if fromHtmx(r) {
		return a.html(w, status, dialog(false))
	}
	return a.showTenants(w, r, v, templates.TenantFilter{Partner: p.Slug, Env: a.withEnv(v)}, status, dialog(true))
}

// partnerForm is the form with a partner's name.
func (a *app) partnerForm(v visit, p *flags.Partner) templates.PartnerEdit {
	return templates.PartnerEdit{Slug: p.Slug, Base: p.Name, Name: p.Name, Back: a.partnerAddress(v, p.Slug)}
}

func (a *app) answerPartnerForm(w http.ResponseWriter, r *http.Request, v visit, p *flags.Partner, status int, form templates.PartnerEdit) error {
	return a.askPartner(w, r, v, p, status, func(page bool) templates.View {
		form.Page = page
		return form
	})
}

// editPartner is the dialog that renames a partner.
func (a *app) editPartner(w http.ResponseWriter, r *http.Request, v visit) error {
	p, err := a.partner(r, v)
	if err != nil {
		return err
	}
	return a.answerPartnerForm(w, r, v, p, http.StatusOK, a.partnerForm(v, p))
}

// savePartner renames a partner, unless somebody else did since the form was opened: then that is said, and the
// second try may.
func (a *app) savePartner(w http.ResponseWriter, r *http.Request, v visit) error {
	p, err := a.partner(r, v)
	if err != nil {
		return err
	}
	form := a.partnerForm(v, p)
	form.Name = strings.TrimSpace(r.PostFormValue("name"))
	if r.PostFormValue("base") != p.Name && form.Name != p.Name {
		if form.Stale, err = a.partnerRenamed(r, p); err != nil {
			return err
		}
		return a.answerPartnerForm(w, r, v, p, http.StatusConflict, form)
	}
	_, err = a.db.PatchPartner(r.Context(), v.principal.By(), p.Slug, flags.PartnerPatch{Name: &form.Name})
	var invalid *flags.Invalid
	if errors.As(err, &invalid) {
		form.NameError = fieldErrors(invalid.Errors)["name"]
		return a.answerPartnerForm(w, r, v, p, http.StatusUnprocessableEntity, form)
	}
	if err != nil {
		return err
	}
	return a.leadTo(w, r, a.partnerAddress(v, p.Slug, "saved", "1"))
}

// partnerRenamed says who renamed a partner while its form was open.
func (a *app) partnerRenamed(r *http.Request, p *flags.Partner) (string, error) {
	entries, err := a.db.History(r.Context(), db.HistoryFilter{Partner: p.Slug, Limit: 1})
	if err != nil {
		return "", err
	}
	who := "Somebody renamed this partner."
	if len(entries) > 0 {
		who = entries[0].Actor + " renamed this partner " + ago(entries[0].At, a.now()) + "."
	}
	return who + " Nothing was saved. Its name now: " + p.Name + ". Save again to put yours in its place.", nil
}

// partnerRemoval is the dialog that removes a partner, or says what keeps it.
func (a *app) partnerRemoval(v visit, p *flags.Partner) templates.PartnerRemoval {
	s := v.snapshot
	d := templates.PartnerRemoval{Slug: p.Slug, Name: p.Name, Group: partnerGroup(p.Slug), Back: a.partnerAddress(v, p.Slug),
		AllFlags: address("/operator/flags", "partner", p.Slug)}
	tenants, keys := s.TenantsOf(p.Slug, len(s.Tenants())), flagsOfPartner(s, p.Slug)
	d.TenantCount, d.FlagCount = len(tenants), len(keys)
	for _, slug := range tenants[:min(len(tenants), usesNamed)] {
		d.Tenants = append(d.Tenants, templates.Named{Slug: slug, Name: s.Tenant(slug).Name})
	}
	d.Flags = keys[:min(len(keys), usesNamed)]
	return d
}

func (a *app) answerPartnerRemoval(w http.ResponseWriter, r *http.Request, v visit, p *flags.Partner, status int, d templates.PartnerRemoval) error {
	return a.askPartner(w, r, v, p, status, func(page bool) templates.View {
		d.Page = page
		return d
	})
}

// askRemovePartner asks before a partner is removed.
func (a *app) askRemovePartner(w http.ResponseWriter, r *http.Request, v visit) error {
	p, err := a.partner(r, v)
	if err != nil {
		return err
	}
	return a.answerPartnerRemoval(w, r, v, p, http.StatusOK, a.partnerRemoval(v, p))
}

// removePartner removes a partner that nothing uses, and goes to the others.
func (a *app) removePartner(w http.ResponseWriter, r *http.Request, v visit) error {
	p, err := a.partner(r, v)
	if err != nil {
		return err
	}
	err = a.db.DeletePartner(r.Context(), v.principal.By(), p.Slug)
	var used *flags.Conflict
	if errors.As(err, &used) {
		v.snapshot = a.db.Current() // what uses it may be newer than the request
		d := a.partnerRemoval(v, p)
		d.Refused = true
		return a.answerPartnerRemoval(w, r, v, p, http.StatusConflict, d)
	}
	if err != nil {
		return err
	}
	return a.leadTo(w, r, address("/operator/partners", "removed", p.Slug))
}
