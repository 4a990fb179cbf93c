package db

import (
	"context"
	"errors"
	"fmt"

	"github.com/dezky/platform-api/flags"
)

// Bounds of what an import of tenants tells.
const (
	mistakesTold  = 1000 // mistakes; the rest are counted
	progressEvery = 1000 // rows from one call of Progress to the next
)

// TenantImport says how tenants are taken in.
type TenantImport struct {
	DryRun bool // changes nothing, and says what would change
	// Progress, where it is given, is called in the transaction, now and then and at the end: it must not wait.
	Progress func(done, total int)
	// Interruptible has the import end with its context also while rows are written. Then nothing is changed.
	Interruptible bool
}

// ImportedTenants is what an import of tenants did, or would do.
type ImportedTenants struct {
	Created, Changed, Unchanged int
	Flips                       []flags.Flip // for the snapshot's environments, by key
}

// ImportTenants makes each row's tenant what the row says, as PutTenant does, in one transaction, all or
// nothing. The error is *flags.Invalid with the bad rows, its fields as in "line 17: plan": the first 1,000
// mistakes, and how many more there are; or the context's.
func (db *DB) ImportTenants(ctx context.Context, by By, rows []flags.TenantRow, o TenantImport) (ImportedTenants, error) {
	var out ImportedTenants
	err := db.change(ctx, by, func(tx *tx) (err error) {
		if tx.brief, tx.trial = true, o.DryRun; !tx.trial {
			if err := tx.refuseFrozen(); err != nil {
				return err
			}
		}
		stop := context.WithoutCancel(ctx)
		if o.Interruptible {
			stop = ctx
		}
		if err := tx.importTenants(stop, rows, o.Progress, &out); err != nil {
			return err
		}
		if out.Flips, err = tx.flip(); err == nil && o.DryRun {
			err = errRollback
		}
		return err
	})
	return out, err
}

func (tx *tx) importTenants(ctx context.Context, rows []flags.TenantRow, progress func(done, total int), out *ImportedTenants) error {
	var bad flags.Invalid
	fail := func(e *flags.Invalid) {
		room := min(mistakesTold-len(bad.Errors), len(e.Errors))
		bad.Errors = append(bad.Errors, e.Errors[:room]...)
		bad.More += len(e.Errors) - room
	}
	lines := make(map[string]int, len(rows)) // by slug
	for i, row := range rows {
		if err := ctx.Err(); err != nil {
			return err
		}
		if progress != nil && i%progressEvery == 0 && i > 0 {
			progress(i, len(rows))
		}
		slug := ""
		if row.Tenant.Slug != nil {
			slug = *row.Tenant.Slug
		}
		if first, twice := lines[slug]; twice && slug != "" {
			fail((&flags.Invalid{Errors: []flags.FieldError{{Field: "slug", Message: fmt.Sprintf("is %q, as on line %d", slug, first)}}}).AtLine(row.Line))
			continue
		}
		lines[slug] = row.Line
		before := tx.edit.Tenant(slug)
		t, err := tx.upsertTenant(slug, row.Tenant)
		var invalid *flags.Invalid
		var conflict *flags.Conflict
		switch {
		case errors.As(err, &invalid):
			fail(invalid.AtLine(row.Line))
		case errors.As(err, &conflict): // of the id: the slug is this row's
			fail((&flags.Invalid{Errors: []flags.FieldError{{Field: "id", Message: "is taken: " + conflict.Message}}}).AtLine(row.Line))
		case err != nil:
			return fmt.Errorf("line %d: %w", row.Line, err)
		case before == nil:
			out.Created++
		case t == before:
			out.Unchanged++
		default:
			out.Changed++
		}
	}
	if len(bad.Errors) > 0 {
		return &bad
	}
	if progress != nil {
		progress(len(rows), len(rows))
	}
	return nil
}
