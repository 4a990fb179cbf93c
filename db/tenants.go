package db

import (
	"context"
	"database/sql"
	"encoding/json"
	"errors"
	"fmt"
	"unique"

	"github.com/dezky/platform-api/flags"
)

// inUse is how many tenants a conflict names.
const inUse = 100

const tenantColumns = "id, slug, name, plan, partner_slug, status, provisioning_status, provisioning_errors, created_at, updated_at, subscribed_at"

func scanTenant(row scanner) (*flags.Tenant, error) {
	var t flags.Tenant
	var partner *string
	var status, errs string
	var created, updated, subscribed int64
	err := row.Scan(&t.ID, &t.Slug, &t.Name, &t.Plan, &partner, &t.Status, &status, &errs, &created, &updated, &subscribed)
	if err != nil {
		return nil, err
	}
	if partner != nil {
		t.PartnerSlug = unique.Make(*partner).Value()
	}
	t.Plan, t.Status = unique.Make(t.Plan).Value(), unique.Make(t.Status).Value() // many have the same
	var maps [2]map[string]string
	for i, text := range []string{status, errs} {
		if text == "{}" {
			continue
		}
		if err := json.Unmarshal([]byte(text), &maps[i]); err != nil {
			return nil, fmt.Errorf("tenant %q: provisioning: %w", t.Slug, err)
		}
	}
	t.Integrations = flags.NewIntegrations(maps[0], maps[1])
	t.CreatedAt, t.UpdatedAt, t.SubscribedAt = fromMillis(created), fromMillis(updated), fromMillis(subscribed)
	return &t, nil
}

// CreateTenant creates a tenant; without an id it gets a random one. The error is *flags.Invalid, or a
// *flags.Conflict for a slug or id that is taken.
func (db *DB) CreateTenant(ctx context.Context, by By, p flags.TenantPatch) (*flags.Tenant, error) {
	var out *flags.Tenant
	err := db.change(ctx, by, func(tx *tx) (err error) {
		out, err = tx.createTenant(p)
		return err
	})
	return out, err
}

// PutTenant makes the tenant with the slug what p says, creating it if need be: what p leaves out is
// what it would be for a new tenant. It tells whether it was created.
func (db *DB) PutTenant(ctx context.Context, by By, slug string, p flags.TenantPatch) (t *flags.ChangedTenant, created bool, err error) {
	err = db.change(ctx, by, func(tx *tx) (err error) {
		created = tx.edit.Tenant(slug) == nil
		t, err = tx.withFlips(tx.upsertTenant(slug, p))
		return err
	})
	return t, created, err
}

// PatchTenant changes a tenant. A patch that changes nothing writes nothing.
func (db *DB) PatchTenant(ctx context.Context, by By, slug string, p flags.TenantPatch) (*flags.ChangedTenant, error) {
	var out *flags.ChangedTenant
	err := db.change(ctx, by, func(tx *tx) (err error) {
		out, err = tx.withFlips(tx.patchTenant(slug, p))
		return err
	})
	return out, err
}

// PatchTenantAt is PatchTenant for a tenant that is as the caller saw it, by its Mark; else the error is a
// *flags.StaleTenant.
func (db *DB) PatchTenantAt(ctx context.Context, by By, slug, mark string, p flags.TenantPatch) (*flags.ChangedTenant, error) {
	var out *flags.ChangedTenant
	err := db.change(ctx, by, func(tx *tx) error {
		err := tx.unchanged(slug, mark)
		if err == nil {
			out, err = tx.withFlips(tx.patchTenant(slug, p))
		}
		return err
	})
	return out, err
}

// unchanged holds a tenant against the mark that it had. Where there is none, the change itself says so.
func (tx *tx) unchanged(slug, mark string) error {
	if t := tx.edit.Tenant(slug); t != nil && t.Mark() != mark {
		return &flags.StaleTenant{Current: t}
	}
	return nil
}

// withFlips adds what the one change of this transaction flipped.
func (tx *tx) withFlips(t *flags.Tenant, err error) (*flags.ChangedTenant, error) {
	if err != nil {
		return nil, err
	}
	flips, err := tx.flip()
	out := &flags.ChangedTenant{Tenant: t, Flips: tx.edit.View().OfTenant(flips)}
	if tx.changed {
		out.Revision = tx.revision
	}
	return out, err
}

// DeleteTenant removes a tenant that no scope names; else the error is a *flags.Conflict with the flags.
func (db *DB) DeleteTenant(ctx context.Context, by By, slug string) error {
	return db.change(ctx, by, func(tx *tx) error { return tx.deleteTenant(slug) })
}

// DeleteTenantAt is DeleteTenant for a tenant that is as the caller saw it, by its Mark; else the error is a
// *flags.StaleTenant.
func (db *DB) DeleteTenantAt(ctx context.Context, by By, slug, mark string) error {
	return db.change(ctx, by, func(tx *tx) error {
		if err := tx.unchanged(slug, mark); err != nil {
			return err
		}
		return tx.deleteTenant(slug)
	})
}

// knownOr lets a tenant keep the partner it has.
func (tx *tx) knownOr(t *flags.Tenant) flags.Known {
	return func(a flags.Axis, value string) bool {
		return a == flags.AxisPartners && value == t.PartnerSlug || tx.edit.Known(a, value)
	}
}

func (tx *tx) createTenant(p flags.TenantPatch) (*flags.Tenant, error) {
	return tx.createTenantAt("", p)
}

// createTenantAt creates a tenant whose slug is given by its path, unless that is "".
func (tx *tx) createTenantAt(slug string, p flags.TenantPatch) (*flags.Tenant, error) {
	if slug != "" && p.Slug == nil {
		p.Slug = &slug
	}
	next, err := p.Apply(flags.Tenant{}, tx.edit.Known)
	if err == nil && slug != "" && next.Slug != slug {
		err = &flags.Invalid{Errors: []flags.FieldError{{Field: "slug", Message: fmt.Sprintf("is not the path's %q", slug)}}}
	}
	if err != nil {
		return nil, err
	}
	if tx.edit.Tenant(next.Slug) != nil {
		return nil, &flags.Conflict{Message: fmt.Sprintf("a tenant %q exists", next.Slug)}
	}
	if next.ID == "" {
		if next.ID, err = tx.db.randomHex(12); err != nil {
			return nil, err
		}
	}
	holder, err := tx.tenantWithID(next.ID)
	if err != nil {
		return nil, err
	}
	if holder != "" {
		return nil, &flags.Conflict{Message: fmt.Sprintf("the id %q belongs to the tenant %q", next.ID, holder)}
	}
	next.CreatedAt, next.UpdatedAt, next.SubscribedAt = tx.at, tx.at, tx.at
	return tx.putTenant(nil, next, flags.Created)
}

// upsertTenant makes the tenant with the slug what p says.
func (tx *tx) upsertTenant(slug string, p flags.TenantPatch) (*flags.Tenant, error) {
	before := tx.edit.Tenant(slug)
	if before == nil {
		return tx.createTenantAt(slug, p)
	}
	blank := *before
	blank.Name, blank.Plan, blank.PartnerSlug, blank.Status = "", "", "", ""
	next, err := p.Apply(blank, tx.knownOr(before))
	if err != nil {
		return nil, err
	}
	return tx.updateTenant(before, next)
}

// tenantWithID returns the slug of the tenant with the id, or "".
func (tx *tx) tenantWithID(id string) (string, error) {
	var slug string
	err := tx.get("SELECT slug FROM tenants WHERE id = ?", []any{id}, &slug)
	if err != nil && !errors.Is(err, sql.ErrNoRows) {
		return "", fmt.Errorf("tenant with id %q: %w", id, err)
	}
	return slug, nil
}

func (tx *tx) patchTenant(slug string, p flags.TenantPatch) (*flags.Tenant, error) {
	before := tx.edit.Tenant(slug)
	if before == nil {
		return nil, fmt.Errorf("tenant %q: %w", slug, flags.ErrNotFound)
	}
	next, err := p.Apply(*before, tx.edit.Known)
	if err != nil {
		return nil, err
	}
	return tx.updateTenant(before, next)
}

func (tx *tx) updateTenant(before *flags.Tenant, next flags.Tenant) (*flags.Tenant, error) {
	if len(flags.DiffTenant(before, &next)) == 0 {
		return before, nil
	}
	next.UpdatedAt = tx.at
	if next.Plan != before.Plan || next.Status != before.Status {
		next.SubscribedAt = tx.at
	}
	return tx.putTenant(before, next, flags.Updated)
}

func (tx *tx) putTenant(before *flags.Tenant, next flags.Tenant, action flags.Action) (*flags.Tenant, error) {
	var partner any
	if next.PartnerSlug != "" {
		partner = next.PartnerSlug
	}
	held := tx.pending(next.Integrations.All())
	states, errs := flags.IntegrationMaps(held)
	status, err := toJSON(states)
	if err != nil {
		return nil, err
	}
	failures, err := toJSON(errs)
	if err != nil {
		return nil, err
	}
	err = tx.exec("INSERT INTO tenants ("+tenantColumns+") VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)"+
		" ON CONFLICT (id) DO UPDATE SET name = excluded.name, plan = excluded.plan, partner_slug = excluded.partner_slug,"+
		" status = excluded.status, updated_at = excluded.updated_at, subscribed_at = excluded.subscribed_at,"+
		" provisioning_status = excluded.provisioning_status, provisioning_errors = excluded.provisioning_errors",
		next.ID, next.Slug, next.Name, next.Plan, partner, next.Status, status, failures, next.CreatedAt.UnixMilli(), next.UpdatedAt.UnixMilli(),
		next.SubscribedAt.UnixMilli())
	if err != nil {
		return nil, fmt.Errorf("tenant %q: %w", next.Slug, err)
	}
	if err := tx.touch(false); err != nil {
		return nil, err
	}
	if _, known := tx.moved[next.Slug]; before != nil && !known && (before.Plan != next.Plan || before.PartnerSlug != next.PartnerSlug) {
		tx.moved[next.Slug] = before
	}
	tx.edit.SetTenant(next.Slug, &next)
	if err := tx.queueTenant(&next, held); err != nil {
		return nil, err
	}
	return &next, tx.log(flags.Entry{Kind: flags.KindTenant, Name: next.Slug, Action: action, Changes: flags.DiffTenant(before, &next)})
}

func (tx *tx) deleteTenant(slug string) error {
	before := tx.edit.Tenant(slug)
	if before == nil {
		return fmt.Errorf("tenant %q: %w", slug, flags.ErrNotFound)
	}
	if keys := tx.edit.ScopedTo(flags.AxisTenants, slug); len(keys) > 0 {
		return &flags.Conflict{Message: fmt.Sprintf("the tenant %q is named by the scope of flags", slug), Flags: keys}
	}
	if err := tx.exec("DELETE FROM tenants WHERE slug = ?", slug); err != nil {
		return fmt.Errorf("tenant %q: %w", slug, err)
	}
	if err := tx.touch(false); err != nil {
		return err
	}
	delete(tx.moved, slug)
	tx.edit.SetTenant(slug, nil)
	if err := tx.queueRemoval(slug); err != nil {
		return err
	}
	return tx.log(flags.Entry{Kind: flags.KindTenant, Name: slug, Action: flags.Deleted, Changes: flags.DiffTenant(before, nil)})
}
