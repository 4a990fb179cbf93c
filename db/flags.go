package db

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"math"
	"slices"
	"time"

	"github.com/dezky/platform-api/flags"
)

// listed is how many slugs a log entry keeps of each list of an impact.
const listed = 50

const flagColumns = "key, description, state, pct, scope, version, created_at, updated_at"

func scanFlag(row scanner) (*flags.Flag, error) {
	f := flags.New("")
	var scope string
	var created, updated int64
	err := row.Scan(&f.Key, &f.Description, &f.State, &f.Pct, &scope, &f.Version, &created, &updated)
	if err != nil {
		return nil, err
	}
	if err := json.Unmarshal([]byte(scope), &f.Scope); err != nil {
		return nil, fmt.Errorf("flag %q: scope: %w", f.Key, err)
	}
	f.CreatedAt, f.UpdatedAt = fromMillis(created), fromMillis(updated)
	return &f, nil
}

// CreateFlag creates a flag; its version continues the key's line. The error is *flags.Invalid for bad
// fields and a *flags.Conflict for a key that is taken.
func (db *DB) CreateFlag(ctx context.Context, by By, n flags.NewFlag) (*flags.Flag, error) {
	var out *flags.Flag
	err := db.change(ctx, by, func(tx *tx) (err error) {
		out, err = tx.createFlag(n)
		return err
	})
	return out, err
}

// PatchFlag changes a flag. A patch that changes nothing writes nothing. The error is ErrNotFound,
// *flags.Stale when p.IfVersion does not hold, or *flags.Invalid, in this order.
func (db *DB) PatchFlag(ctx context.Context, by By, key string, p flags.Patch) (*flags.Flag, error) {
	var out *flags.Flag
	err := db.change(ctx, by, func(tx *tx) (err error) {
		out, err = tx.patchFlag(key, p)
		return err
	})
	return out, err
}

// DeleteFlag removes a flag; its log stays. ifVersion is as flags.Patch.IfVersion.
func (db *DB) DeleteFlag(ctx context.Context, by By, key, note string, ifVersion []int64) error {
	return db.change(ctx, by, func(tx *tx) error { return tx.deleteFlag(key, note, ifVersion) })
}

// Restore says which version of a flag is to come back.
type Restore struct {
	Version   int64
	Note      string
	IfVersion []int64            // as flags.Patch.IfVersion
	Problems  []flags.FieldError // as flags.Patch.Problems
}

// RestoreFlag makes the content of an earlier version the newest version, also of a deleted flag. No
// difference writes nothing. The error is ErrNotFound for an unknown key or version, *flags.Stale, or
// *flags.Invalid for a deletion's version and for content that names something unknown now.
func (db *DB) RestoreFlag(ctx context.Context, by By, key string, r Restore) (*flags.Flag, error) {
	var out *flags.Flag
	err := db.change(ctx, by, func(tx *tx) (err error) {
		out, err = tx.restoreFlag(key, r)
		return err
	})
	return out, err
}

func (tx *tx) createFlag(n flags.NewFlag) (*flags.Flag, error) {
	next, err := n.Apply(flags.New(n.Key), tx.edit.Known)
	if err != nil {
		return nil, err
	}
	if tx.edit.Flag(n.Key) != nil {
		return nil, &flags.Conflict{Message: fmt.Sprintf("a flag %q exists", n.Key)}
	}
	next.CreatedAt = tx.at
	return tx.putFlag(nil, next, flags.Created, n.Note)
}

func (tx *tx) patchFlag(key string, p flags.Patch) (*flags.Flag, error) {
	before := tx.edit.Flag(key)
	if before == nil {
		return nil, fmt.Errorf("flag %q: %w", key, flags.ErrNotFound)
	}
	if err := before.AtVersion(p.IfVersion); err != nil {
		return nil, err
	}
	next, err := p.Apply(*before, tx.edit.Known)
	if err != nil {
		return nil, err
	}
	if before.SameContent(&next) {
		return before, nil
	}
	return tx.putFlag(before, next, flags.ChangeAction(before, &next), p.Note)
}

func (tx *tx) deleteFlag(key, note string, ifVersion []int64) error {
	before := tx.edit.Flag(key)
	if before == nil {
		return fmt.Errorf("flag %q: %w", key, flags.ErrNotFound)
	}
	if err := before.AtVersion(ifVersion); err != nil {
		return err
	}
	return tx.dropFlag(before, note)
}

func (tx *tx) dropFlag(before *flags.Flag, note string) error {
	if err := tx.exec("DELETE FROM flags WHERE key = ?", before.Key); err != nil {
		return fmt.Errorf("flag %q: %w", before.Key, err)
	}
	return tx.recordFlag(before, nil, before.Version+1, flags.Deleted, note)
}

func (tx *tx) restoreFlag(key string, r Restore) (*flags.Flag, error) {
	before := tx.edit.Flag(key)
	past, err := flagLog(tx.ctx, tx.sql, key, r.Version)
	if err != nil {
		return nil, fmt.Errorf("flag %q, version %d: %w", key, r.Version, err)
	}
	if len(past) == 0 || r.Version > 0 && past[0].Version != r.Version {
		return nil, fmt.Errorf("flag %q, version %d: %w", key, r.Version, flags.ErrNotFound)
	}
	if err := before.AtVersion(r.IfVersion); err != nil {
		return nil, err
	}
	var content flags.Patch
	if r.Version > 0 { // else the problems say what is wrong with it
		content, err = contentOf(past, key, r.Version)
		var deletion *flags.Invalid
		if errors.As(err, &deletion) {
			deletion.Errors = slices.Concat(r.Problems, deletion.Errors)
		}
		if err != nil {
			return nil, err
		}
	}
	content.Note, content.Problems = r.Note, r.Problems
	base := flags.New(key)
	if before != nil {
		base = *before
	} else if base.CreatedAt, err = tx.flagCreated(key); err != nil {
		return nil, err
	}
	next, err := content.Apply(base, tx.edit.Known)
	if err != nil {
		return nil, err
	}
	if before != nil && before.SameContent(&next) {
		return before, nil
	}
	return tx.putFlag(before, next, flags.Restored, r.Note)
}

// putFlag writes next as the key's next version, with its history. before is nil when there is no flag.
func (tx *tx) putFlag(before *flags.Flag, next flags.Flag, action flags.Action, note string) (*flags.Flag, error) {
	last := int64(0)
	if before != nil {
		last = before.Version
	} else if err := tx.get("SELECT coalesce(max(version), 0) FROM log WHERE name = ? AND version IS NOT NULL", []any{next.Key}, &last); err != nil {
		return nil, fmt.Errorf("flag %q: last version: %w", next.Key, err)
	}
	next.Version, next.UpdatedAt = last+1, tx.at
	scope, err := toJSON(next.Scope)
	if err != nil {
		return nil, err
	}
	err = tx.exec("INSERT INTO flags ("+flagColumns+") VALUES (?, ?, ?, ?, ?, ?, ?, ?)"+
		" ON CONFLICT (key) DO UPDATE SET description = excluded.description, state = excluded.state, pct = excluded.pct,"+
		" scope = excluded.scope, version = excluded.version, updated_at = excluded.updated_at",
		next.Key, next.Description, next.State, next.Pct, scope, next.Version, next.CreatedAt.UnixMilli(), next.UpdatedAt.UnixMilli())
	if err != nil {
		return nil, fmt.Errorf("flag %q: %w", next.Key, err)
	}
	if err := tx.recordFlag(before, &next, next.Version, action, note); err != nil {
		return nil, err
	}
	return &next, nil
}

// recordFlag logs the change of a flag with who gained and lost it by it, and takes it into the edit.
func (tx *tx) recordFlag(before, after *flags.Flag, version int64, action flags.Action, note string) error {
	if _, err := tx.flip(); err != nil {
		return err
	}
	if err := tx.touch((action != flags.Restored || tx.kills) && flags.IsKill(before, after)); err != nil {
		return err
	}
	key := cmp.Or(before, after).Key
	registry := tx.edit.View()
	impact, _ := registry.Impact(before, after, listed)
	tx.edit.SetFlag(key, after)
	err := tx.log(flags.Entry{Kind: flags.KindFlag, Name: key, Action: action, Version: version, Note: note,
		Changes: flags.DiffFlag(before, after), Impact: outcomes(registry, impact)})
	if err != nil {
		return err
	}
	return tx.keepState(key, version, before, after)
}

// outcomes is an impact as the log keeps it.
func outcomes(s *flags.Snapshot, impact []flags.EnvImpact) map[string]flags.EnvOutcome {
	out := make(map[string]flags.EnvOutcome, len(impact))
	for i, name := range s.Environments() {
		out[name] = impact[i].Outcome()
	}
	return out
}

// flippedNote is why an entry of flipped is there.
const flippedNote = "flipped by registry change"

// flip logs which flags flipped for the tenants that have another plan or partner since it was last called: an
// entry a flag, which makes no version. It comes before the change of a flag, whose own impact is told apart.
func (tx *tx) flip() ([]flags.Flip, error) {
	if len(tx.moved) == 0 {
		return nil, nil
	}
	changes := make([]flags.TenantChange, 0, len(tx.moved))
	for _, slug := range slices.Sorted(maps.Keys(tx.moved)) {
		changes = append(changes, flags.TenantChange{Before: tx.moved[slug], After: tx.edit.Tenant(slug)})
	}
	clear(tx.moved)
	s := tx.edit.View()
	flips := s.Flips(changes, listed)
	for _, f := range flips {
		err := tx.log(flags.Entry{Kind: flags.KindFlag, Name: f.Flag.Key, Action: flags.Flipped, Note: flippedNote,
			Changes: flags.Changes{}, Impact: outcomes(s, f.Impact)})
		if err != nil {
			return nil, err
		}
	}
	return flips, nil
}

// FlagContent returns the content that a flag had at a version, as the patch that gives it. The error is
// ErrNotFound for an unknown key or version and *flags.Invalid for a deletion's.
func (db *DB) FlagContent(ctx context.Context, key string, version int64) (flags.Patch, error) {
	past, err := flagLog(ctx, db.reader, key, version)
	if err != nil {
		return flags.Patch{}, fmt.Errorf("flag %q, version %d: %w", key, version, err)
	}
	return contentOf(past, key, version)
}

// contentOf reads a version's content out of the log up to it.
func contentOf(past []flags.Entry, key string, version int64) (flags.Patch, error) {
	if len(past) == 0 || past[0].Version != version {
		return flags.Patch{}, fmt.Errorf("flag %q, version %d: %w", key, version, flags.ErrNotFound)
	}
	if past[0].Action == flags.Deleted {
		return flags.Patch{}, &flags.Invalid{Errors: []flags.FieldError{{
			Field: "version", Message: fmt.Sprintf("%d is the flag's deletion, which has no content", version)}}}
	}
	changes := make([]flags.Changes, len(past))
	for i, e := range past {
		changes[i] = e.Changes
	}
	content, err := flags.Content(changes)
	if err != nil {
		return flags.Patch{}, fmt.Errorf("flag %q, version %d: %w", key, version, err)
	}
	return content, nil
}

// flagLog returns what a flag's versions up to one changed, newest first; all of them for version 0.
func flagLog(ctx context.Context, q querier, key string, version int64) ([]flags.Entry, error) {
	if version == 0 {
		version = math.MaxInt64
	}
	return collect(ctx, q, func(row scanner) (e flags.Entry, err error) {
		var changes []byte
		if err := row.Scan(&e.Version, &e.Action, &changes); err != nil {
			return e, err
		}
		return e, json.Unmarshal(changes, &e.Changes)
	}, "SELECT version, action, changes FROM log WHERE name = ? AND version <= ? AND version IS NOT NULL ORDER BY version DESC", key, version)
}

// flagCreated returns when a deleted flag was last created.
func (tx *tx) flagCreated(key string) (time.Time, error) {
	var at int64
	err := tx.get("SELECT at FROM log WHERE kind = 'flag' AND name = ? AND action = 'created' ORDER BY id DESC LIMIT 1", []any{key}, &at)
	if err != nil {
		return time.Time{}, fmt.Errorf("flag %q: creation: %w", key, err)
	}
	return fromMillis(at), nil
}
