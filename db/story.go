package db

import (
	"context"
	"errors"
	"fmt"

	"github.com/dezky/platform-api/flags"
)

// Step is one change of a story; exactly one of its fields beside By is set.
type Step struct {
	By          By
	Plant       *flags.Document // as DB.Plant
	Partner     *flags.PartnerPatch
	Tenant      *flags.TenantPatch
	PatchTenant *flags.TenantPatch // Slug says which
	Create      *flags.NewFlag
	Patch       *flags.NewFlag // Key says which
	Delete      *flags.NewFlag // Key and Note
	Restore     *flags.NewFlag // Key and Note
	Version     int64          // of Restore
}

// Tell makes the changes of a story, each with its own time, actor and revision, in one transaction, all
// or nothing.
func (db *DB) Tell(ctx context.Context, story []Step) error {
	return db.change(ctx, By{}, func(tx *tx) error {
		for i, s := range story {
			if err := tx.step(s.By, s.do); err != nil {
				return fmt.Errorf("step %d: %w", i, err)
			}
		}
		tx.changed = false // each step has taken its own revision
		return nil
	})
}

func (s Step) do(tx *tx) (err error) {
	switch {
	case s.Plant != nil:
		return tx.plant(*s.Plant)
	case s.Partner != nil:
		_, err = tx.createPartner(*s.Partner)
	case s.Tenant != nil:
		_, err = tx.createTenant(*s.Tenant)
	case s.PatchTenant != nil && s.PatchTenant.Slug != nil:
		_, err = tx.patchTenant(*s.PatchTenant.Slug, *s.PatchTenant)
	case s.Create != nil:
		_, err = tx.createFlag(*s.Create)
	case s.Patch != nil:
		_, err = tx.patchFlag(s.Patch.Key, s.Patch.Patch)
	case s.Delete != nil:
		err = tx.deleteFlag(s.Delete.Key, s.Delete.Note, nil)
	case s.Restore != nil:
		_, err = tx.restoreFlag(s.Restore.Key, Restore{Version: s.Version, Note: s.Restore.Note})
	default:
		err = errors.New("names no change")
	}
	return err
}
