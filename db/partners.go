package db

import (
	"context"
	"fmt"

	"github.com/dezky/platform-api/flags"
)

const partnerColumns = "slug, name, created_at, updated_at"

func scanPartner(row scanner) (*flags.Partner, error) {
	var p flags.Partner
	var created, updated int64
	if err := row.Scan(&p.Slug, &p.Name, &created, &updated); err != nil {
		return nil, err
	}
	p.CreatedAt, p.UpdatedAt = fromMillis(created), fromMillis(updated)
	return &p, nil
}

// CreatePartner creates a partner. The error is *flags.Invalid, or a *flags.Conflict for a slug that is taken.
func (db *DB) CreatePartner(ctx context.Context, by By, p flags.PartnerPatch) (*flags.Partner, error) {
	var out *flags.Partner
	err := db.change(ctx, by, func(tx *tx) (err error) {
		out, err = tx.createPartner(p)
		return err
	})
	return out, err
}

// PatchPartner changes a partner. A patch that changes nothing writes nothing.
func (db *DB) PatchPartner(ctx context.Context, by By, slug string, p flags.PartnerPatch) (*flags.Partner, error) {
	var out *flags.Partner
	err := db.change(ctx, by, func(tx *tx) (err error) {
		out, err = tx.patchPartner(slug, p)
		return err
	})
	return out, err
}

// DeletePartner removes a partner that no tenant has and no scope names; else the error is a
// *flags.Conflict with them.
func (db *DB) DeletePartner(ctx context.Context, by By, slug string) error {
	return db.change(ctx, by, func(tx *tx) error { return tx.deletePartner(slug) })
}

func (tx *tx) createPartner(p flags.PartnerPatch) (*flags.Partner, error) {
	next, err := p.Apply(flags.Partner{})
	if err != nil {
		return nil, err
	}
	if tx.edit.Partner(next.Slug) != nil {
		return nil, &flags.Conflict{Message: fmt.Sprintf("a partner %q exists", next.Slug)}
	}
	next.CreatedAt = tx.at
	return tx.putPartner(nil, next, flags.Created)
}

func (tx *tx) patchPartner(slug string, p flags.PartnerPatch) (*flags.Partner, error) {
	before := tx.edit.Partner(slug)
	if before == nil {
		return nil, fmt.Errorf("partner %q: %w", slug, flags.ErrNotFound)
	}
	next, err := p.Apply(*before)
	if err != nil {
		return nil, err
	}
	if len(flags.DiffPartner(before, &next)) == 0 {
		return before, nil
	}
	return tx.putPartner(before, next, flags.Updated)
}

func (tx *tx) putPartner(before *flags.Partner, next flags.Partner, action flags.Action) (*flags.Partner, error) {
	next.UpdatedAt = tx.at
	err := tx.exec("INSERT INTO partners ("+partnerColumns+") VALUES (?, ?, ?, ?)"+
		" ON CONFLICT (slug) DO UPDATE SET name = excluded.name, updated_at = excluded.updated_at",
		next.Slug, next.Name, next.CreatedAt.UnixMilli(), next.UpdatedAt.UnixMilli())
	if err != nil {
		return nil, fmt.Errorf("partner %q: %w", next.Slug, err)
	}
	if err := tx.touch(false); err != nil {
		return nil, err
	}
	tx.edit.SetPartner(next.Slug, &next)
	return &next, tx.log(flags.Entry{Kind: flags.KindPartner, Name: next.Slug, Action: action, Changes: flags.DiffPartner(before, &next)})
}

func (tx *tx) deletePartner(slug string) error {
	before := tx.edit.Partner(slug)
	if before == nil {
		return fmt.Errorf("partner %q: %w", slug, flags.ErrNotFound)
	}
	keys, tenants := tx.edit.ScopedTo(flags.AxisPartners, slug), tx.edit.View().TenantsOf(slug, inUse)
	if len(keys)+len(tenants) > 0 {
		return &flags.Conflict{Message: fmt.Sprintf("the partner %q is in use by tenants or by the scope of flags", slug), Flags: keys, Tenants: tenants}
	}
	if err := tx.exec("DELETE FROM partners WHERE slug = ?", slug); err != nil {
		return fmt.Errorf("partner %q: %w", slug, err)
	}
	if err := tx.touch(false); err != nil {
		return err
	}
	tx.edit.SetPartner(slug, nil)
	return tx.log(flags.Entry{Kind: flags.KindPartner, Name: slug, Action: flags.Deleted, Changes: flags.DiffPartner(before, nil)})
}
