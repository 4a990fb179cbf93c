package db

import (
	"context"
	"errors"
	"fmt"

	"github.com/dezky/platform-api/flags"
)

// Import says how a document is taken in.
type Import struct {
	Replace bool // also removes what a list of the document does not name
	DryRun  bool // changes nothing, and says what would change
	// Seeds count as planted when the database never held a flag, tenant or partner before.
	Seeds flags.Document
}

// Import takes a document in as one transaction, all or nothing, and returns the log entries of its
// changes, in order. What an element leaves out stays as it is; a list that the document lacks is not
// touched. The error is *flags.Invalid with every bad element, its fields as in "flags[3].pct",
// or *flags.Frozen.
func (db *DB) Import(ctx context.Context, by By, d flags.Document, o Import) ([]flags.Entry, error) {
	var entries []flags.Entry
	err := db.change(ctx, by, func(tx *tx) error {
		if tx.trial = o.DryRun; !tx.trial {
			if err := tx.refuseFrozen(); err != nil { // also what only kills
				return err
			}
		}
		if err := tx.markIfNew(o.Seeds); err != nil {
			return err
		}
		if err := tx.importDocument(d, o.Replace); err != nil {
			return err
		}
		entries = tx.entries
		if o.DryRun {
			return errRollback
		}
		return nil
	})
	return entries, err
}

// importDocument puts the registry first, so that scopes may name what the document brings, and removes
// last, when no scope of the document's flags is in the way any more.
func (tx *tx) importDocument(d flags.Document, replace bool) error {
	var bad flags.Invalid
	each := func(list string, n int, name func(i int) *string, put func(i int) error) error {
		seen := map[string]int{}
		for i := range n {
			path := fmt.Sprintf("%s[%d]", list, i)
			if name := name(i); name != nil && *name != "" { // without one, put says that it is missing
				if first, twice := seen[*name]; twice {
					bad.Errors = append(bad.Errors, flags.FieldError{Field: path, Message: fmt.Sprintf("is %q, as %s[%d] is", *name, list, first)})
					continue
				}
				seen[*name] = i
			}
			var invalid *flags.Invalid
			var conflict *flags.Conflict
			switch err := put(i); {
			case errors.As(err, &invalid):
				bad.Errors = append(bad.Errors, invalid.Prefixed(path).Errors...)
			case errors.As(err, &conflict):
				bad.Errors = append(bad.Errors, flags.FieldError{Field: path, Message: conflict.Message})
			case err != nil:
				return fmt.Errorf("%s: %w", path, err)
			}
		}
		return nil
	}
	err := errors.Join(
		each("partners", len(d.Partners), func(i int) *string { return d.Partners[i].Slug }, func(i int) (err error) {
			if p := d.Partners[i]; p.Slug != nil && tx.edit.Partner(*p.Slug) != nil {
				_, err = tx.patchPartner(*p.Slug, p)
			} else {
				_, err = tx.createPartner(p)
			}
			return err
		}),
		each("tenants", len(d.Tenants), func(i int) *string { return d.Tenants[i].Slug }, func(i int) (err error) {
			if p := d.Tenants[i]; p.Slug != nil && tx.edit.Tenant(*p.Slug) != nil {
				_, err = tx.patchTenant(*p.Slug, p)
			} else {
				_, err = tx.createTenant(p)
			}
			return err
		}),
		each("flags", len(d.Flags), func(i int) *string { return &d.Flags[i].Key }, func(i int) (err error) {
			if n := d.Flags[i]; tx.edit.Flag(n.Key) != nil {
				_, err = tx.patchFlag(n.Key, n.Patch)
			} else {
				_, err = tx.createFlag(n)
			}
			return err
		}),
	)
	if err != nil {
		return err
	}
	if len(bad.Errors) > 0 {
		return &bad
	}
	if replace {
		return tx.removeOthers(d)
	}
	return nil
}

// removeOthers removes what the document's lists do not name.
func (tx *tx) removeOthers(d flags.Document) error {
	s := tx.edit.View()
	if d.Flags != nil {
		named := map[string]bool{}
		for _, f := range d.Flags {
			named[f.Key] = true
		}
		for _, f := range s.Flags() {
			if !named[f.Key] {
				if err := tx.deleteFlag(f.Key, "", nil); err != nil {
					return err
				}
			}
		}
	}
	if d.Tenants != nil {
		named := map[string]bool{}
		for _, t := range d.Tenants {
			named[*t.Slug] = true
		}
		for _, t := range s.Tenants() {
			if !named[t.Slug] {
				if err := tx.deleteTenant(t.Slug); err != nil {
					return err
				}
			}
		}
	}
	if d.Partners != nil {
		named := map[string]bool{}
		for _, p := range d.Partners {
			named[*p.Slug] = true
		}
		for _, p := range s.Partners() {
			if !named[p.Slug] {
				if err := tx.deletePartner(p.Slug); err != nil {
					return err
				}
			}
		}
	}
	return nil
}

// Load reads the state of flags and registry as the database has it now, for a database opened beside a
// server.
func (db *DB) Load(ctx context.Context) (*flags.Snapshot, error) {
	tx, err := db.reader.BeginTx(ctx, nil)
	if err != nil {
		return nil, fmt.Errorf("load: %w", err)
	}
	defer tx.Rollback()
	return load(ctx, tx, db.opts.Environments)
}
