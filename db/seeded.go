package db

import (
	"context"
	"fmt"

	"github.com/dezky/platform-api/flags"
)

// Plant creates what of the document was never there: neither planted before nor made by anyone since,
// also when it was removed again.
func (db *DB) Plant(ctx context.Context, by By, d flags.Document) error {
	return db.change(ctx, by, func(tx *tx) error { return tx.plant(d) })
}

func (tx *tx) plant(d flags.Document) error {
	return tx.eachSeed(d, func(kind flags.Kind, name string, create func() error) error {
		var was bool
		if err := tx.get("SELECT EXISTS (SELECT 1 FROM seeded WHERE kind = ? AND name = ?)"+
			" OR EXISTS (SELECT 1 FROM log WHERE kind = ? AND name = ?)", []any{kind, name, kind, name}, &was); err != nil || was {
			return err
		}
		if err := tx.markSeeded(kind, name); err != nil {
			return err
		}
		return create()
	})
}

// eachSeed visits the elements of a document of seeds, whose names are all there.
func (tx *tx) eachSeed(d flags.Document, visit func(kind flags.Kind, name string, create func() error) error) error {
	for _, p := range d.Partners {
		if err := visit(flags.KindPartner, *p.Slug, func() error { _, err := tx.createPartner(p); return err }); err != nil {
			return fmt.Errorf("partner %q: %w", *p.Slug, err)
		}
	}
	for _, t := range d.Tenants {
		if err := visit(flags.KindTenant, *t.Slug, func() error { _, err := tx.createTenant(t); return err }); err != nil {
			return fmt.Errorf("tenant %q: %w", *t.Slug, err)
		}
	}
	for _, f := range d.Flags {
		if err := visit(flags.KindFlag, f.Key, func() error { _, err := tx.createFlag(f); return err }); err != nil {
			return fmt.Errorf("flag %q: %w", f.Key, err)
		}
	}
	return nil
}

func (tx *tx) markSeeded(kind flags.Kind, name string) error {
	return tx.exec("INSERT INTO seeded (kind, name) VALUES (?, ?) ON CONFLICT DO NOTHING", kind, name)
}

// markIfNew makes the seeds count as planted in a database that never held a flag, tenant or partner.
func (tx *tx) markIfNew(seeds flags.Document) error {
	var used bool
	if err := tx.get("SELECT EXISTS (SELECT 1 FROM log WHERE kind <> 'token')", nil, &used); err != nil || used {
		return err
	}
	return tx.eachSeed(seeds, func(kind flags.Kind, name string, _ func() error) error { return tx.markSeeded(kind, name) })
}
