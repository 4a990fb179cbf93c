package handlers

import (
	"fmt"
	"net/http"
	"slices"
	"strings"

	"github.com/dezky/platform-api/auth"
	"github.com/dezky/platform-api/flags"
)

// registryMost is both the default and the most of ?limit= on a list of tenants or partners.
const registryMost = 1000

// writePage answers with a page of a list.
func writePage[T any](w http.ResponseWriter, r *http.Request, sorted []T, slug func(T) string, keep func(T) bool) error {
	out, err := pageOf(w, r, sorted, slug, keep)
	if err != nil {
		return err
	}
	return writeJSON(w, http.StatusOK, out)
}

// pageOf is the part of a list, sorted by slug, that ?after= and ?limit= ask for and keep lets through. The
// header says where the next one is.
func pageOf[T any](w http.ResponseWriter, r *http.Request, sorted []T, slug func(T) string, keep func(T) bool) ([]T, error) {
	var bad flags.Invalid
	limit := number(r, "limit", registryMost, registryMost, &bad)
	if len(bad.Errors) > 0 {
		return nil, &bad
	}
	if after := r.URL.Query().Get("after"); after != "" {
		i, found := slices.BinarySearchFunc(sorted, after, func(x T, after string) int { return strings.Compare(slug(x), after) })
		if found {
			i++
		}
		sorted = sorted[i:]
	}
	out := []T{}
	for _, x := range sorted {
		if !keep(x) {
			continue
		}
		if len(out) == limit {
			linkNext(w, r, "after", slug(out[limit-1]))
			break
		}
		out = append(out, x)
	}
	return out, nil
}

func contains(text string, in ...string) bool {
	return text == "" || slices.ContainsFunc(in, func(s string) bool { return strings.Contains(strings.ToLower(s), text) })
}

func (a *app) listTenants(w http.ResponseWriter, r *http.Request, c call) error {
	q := r.URL.Query()
	text, plan, partner := strings.ToLower(q.Get("q")), q.Get("plan"), q.Get("partner")
	if plan != "" && !slices.Contains(flags.Plans, plan) {
		return badQuery("plan", "must be one of "+strings.Join(flags.Plans, ", "))
	}
	return writePage(w, r, inReach(a.db.Current(), c.principal), slugOf, func(t *flags.Tenant) bool {
		return c.principal.Sees(t) && (plan == "" || t.Plan == plan) && (partner == "" || t.PartnerSlug == partner) && contains(text, t.Slug, t.Name)
	})
}

// inReach are the tenants, by slug, among which are all that a principal sees. Those of a member without a
// partner are looked up: there may be a hundred thousand others.
func inReach(s *flags.Snapshot, p *auth.Principal) []*flags.Tenant {
	if p.Role != auth.Member || len(p.Partners) > 0 {
		return s.Tenants()
	}
	var own []*flags.Tenant
	for _, slug := range p.Tenants {
		if t := s.Tenant(slug); t != nil {
			own = append(own, t)
		}
	}
	return own
}

func slugOf(t *flags.Tenant) string { return t.Slug }

func (a *app) getTenant(w http.ResponseWriter, r *http.Request, c call) error {
	slug := r.PathValue("slug")
	t := a.db.Current().Tenant(slug)
	if t == nil || !c.principal.Sees(t) {
		return noTenant(slug)
	}
	return writeJSON(w, http.StatusOK, t)
}

func noTenant(slug string) error { return fmt.Errorf("tenant %q: %w", slug, flags.ErrNotFound) }

func (a *app) createTenant(w http.ResponseWriter, r *http.Request, c call) error {
	p, err := flags.DecodeTenant(c.body)
	if err != nil {
		return err
	}
	t, err := a.db.CreateTenant(r.Context(), c.principal.By(), p)
	if err != nil {
		return err
	}
	w.Header().Set("Location", r.URL.Path+"/"+t.Slug)
	return writeJSON(w, http.StatusCreated, t)
}

func (a *app) putTenant(w http.ResponseWriter, r *http.Request, c call) error {
	p, err := flags.DecodeTenant(c.body)
	if err != nil {
		return err
	}
	t, created, err := a.db.PutTenant(r.Context(), c.principal.By(), r.PathValue("slug"), p)
	if err != nil {
		return err
	}
	status := http.StatusOK
	if created {
		status = http.StatusCreated
		w.Header().Set("Location", r.URL.Path)
	}
	return writeJSON(w, status, t)
}

func (a *app) patchTenant(w http.ResponseWriter, r *http.Request, c call) error {
	p, err := flags.DecodeTenant(c.body)
	if err != nil {
		return err
	}
	t, err := a.db.PatchTenant(r.Context(), c.principal.By(), r.PathValue("slug"), p)
	if err != nil {
		return err
	}
	return writeJSON(w, http.StatusOK, t)
}

func (a *app) deleteTenant(w http.ResponseWriter, r *http.Request, c call) error {
	if err := a.db.DeleteTenant(r.Context(), c.principal.By(), r.PathValue("slug")); err != nil {
		return err
	}
	w.WriteHeader(http.StatusNoContent)
	return nil
}

// tenantImpact says which flags a change of a tenant would flip for it. Nothing changes.
func (a *app) tenantImpact(w http.ResponseWriter, r *http.Request, c call) error {
	p, err := flags.DecodeTenant(c.body)
	if err != nil {
		return err
	}
	s, slug := a.db.Current(), r.PathValue("slug")
	before := s.Tenant(slug)
	if before == nil {
		return noTenant(slug)
	}
	after, err := p.Apply(*before, s.Known)
	if err != nil {
		return err
	}
	return writeJSON(w, http.StatusOK, struct {
		Flips []flags.TenantFlip `json:"flips"`
	}{list(s.OfTenant(s.Flips([]flags.TenantChange{{Before: before, After: &after}}, 0)))})
}

// reconcileTenant answers with the tenant also where an integration fails: its state then says so.
func (a *app) reconcileTenant(w http.ResponseWriter, r *http.Request, c call) error {
	if a.db.Current().Tenant(r.PathValue("slug")) != nil {
		if err := a.provisioning.Reconcile(r.Context(), r.PathValue("slug")); err != nil {
			return err
		}
	}
	return a.getTenant(w, r, c)
}

func (a *app) listPartners(w http.ResponseWriter, r *http.Request, _ call) error {
	text := strings.ToLower(r.URL.Query().Get("q"))
	return writePage(w, r, a.db.Current().Partners(), func(p *flags.Partner) string { return p.Slug }, func(p *flags.Partner) bool {
		return contains(text, p.Slug, p.Name)
	})
}

func (a *app) getPartner(w http.ResponseWriter, r *http.Request, _ call) error {
	slug := r.PathValue("slug")
	p := a.db.Current().Partner(slug)
	if p == nil {
		return fmt.Errorf("partner %q: %w", slug, flags.ErrNotFound)
	}
	return writeJSON(w, http.StatusOK, p)
}

func (a *app) createPartner(w http.ResponseWriter, r *http.Request, c call) error {
	p, err := flags.DecodePartner(c.body)
	if err != nil {
		return err
	}
	partner, err := a.db.CreatePartner(r.Context(), c.principal.By(), p)
	if err != nil {
		return err
	}
	w.Header().Set("Location", r.URL.Path+"/"+partner.Slug)
	return writeJSON(w, http.StatusCreated, partner)
}

func (a *app) patchPartner(w http.ResponseWriter, r *http.Request, c call) error {
	p, err := flags.DecodePartner(c.body)
	if err != nil {
		return err
	}
	partner, err := a.db.PatchPartner(r.Context(), c.principal.By(), r.PathValue("slug"), p)
	if err != nil {
		return err
	}
	return writeJSON(w, http.StatusOK, partner)
}

func (a *app) deletePartner(w http.ResponseWriter, r *http.Request, c call) error {
	if err := a.db.DeletePartner(r.Context(), c.principal.By(), r.PathValue("slug")); err != nil {
		return err
	}
	w.WriteHeader(http.StatusNoContent)
	return nil
}
