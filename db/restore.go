package db

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/dezky/platform-api/flags"
)

// RestoreAt says which flags are to become what they were, and when that was.
type RestoreAt struct {
	flags.BringBack
	// Seen are versions of flags as the caller saw them, by key, 0 where there was none: a flag that is to change
	// must still be at its.
	Seen map[string]int64
}

// Restored is what came back, or would.
type Restored struct {
	At        time.Time        // the moment, in whole milliseconds
	Entries   []flags.Entry    // a version of each flag that changed, by key
	Unchanged []string         // keys that were named of flags that are as they were
	Left      []string         // keys of flags made since that were not named
	Refused   []flags.Comeback // of a dry run: those that can't come back
	Last      int64            // id of the last log entry, for UndoRevision; 0 where nothing was written
}

// RestoreAt makes flags what they were at a time, all or nothing: their content of then as new versions, in one
// transaction. One that was deleted since comes back; one that was made since is deleted where a key names it.
// The error is *flags.Invalid, its fields "at" as AsOf's and "keys[2]" for one that never was, is named twice, or
// whose scope names what is not known any more; *flags.Conflict for what is not as seen; or *flags.Frozen.
func (db *DB) RestoreAt(ctx context.Context, by By, r RestoreAt) (*Restored, error) {
	var out *Restored
	err := db.change(ctx, by, func(tx *tx) error {
		bad := flags.Invalid{Errors: slices.Clone(r.Problems)}
		if len(bad.Errors) > 0 {
			return &bad
		}
		m := moment{at: fromMillis(r.At.UnixMilli()), now: tx.edit.View()}
		if err := db.find(tx.ctx, tx.sql, &m); err != nil {
			return err
		}
		then, err := db.flagsAt(tx.ctx, tx.sql, m.entry)
		if err != nil {
			return err
		}
		c := m.now.Choose(m.now.Comebacks(then), r.Keys)
		out = &Restored{At: m.at, Unchanged: c.Unchanged, Left: c.Left}
		if tx.trial = r.DryRun; tx.trial {
			c.Flags = slices.DeleteFunc(c.Flags, func(d flags.Comeback) bool {
				if d.Refused != nil {
					out.Refused = append(out.Refused, d)
				}
				return d.Refused != nil
			})
			c.Refusals = nil
		}
		if bad.Errors = slices.Concat(c.Problems, c.Refusals); len(bad.Errors) > 0 {
			return &bad
		}
		var changed []string
		for _, d := range c.Flags {
			if version, seen := r.Seen[d.Key]; seen && version != versionOf(d.Now) {
				changed = append(changed, d.Key)
			}
		}
		if changed != nil {
			return &flags.Conflict{Message: "flags were changed meanwhile", Flags: changed}
		}
		if err := tx.bringBack(c.Flags, "restored from "+m.at.Format(time.RFC3339Nano)); err != nil {
			return err
		}
		if out.Entries = tx.entries; tx.trial {
			return errRollback
		}
		out.Last = tx.lastOf()
		return nil
	})
	return out, err
}

func versionOf(f *flags.Flag) int64 {
	if f == nil {
		return 0
	}
	return f.Version
}

// lastOf is the id of the last entry that this transaction wrote, 0 for none.
func (tx *tx) lastOf() int64 {
	if len(tx.entries) == 0 {
		return 0
	}
	return tx.last
}

// bringBack makes flags what they were. While changes are frozen it may do nothing but kill.
func (tx *tx) bringBack(ds []flags.Comeback, note string) error {
	tx.kills = !slices.ContainsFunc(ds, func(d flags.Comeback) bool { return !flags.IsKill(d.Now, d.Then) })
	for _, d := range ds {
		var err error
		if d.Then == nil {
			err = tx.dropFlag(d.Now, note)
		} else {
			_, err = tx.putFlag(d.Now, *d.Then, flags.Restored, note)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// UndoRevision makes the flags that the transaction of a log entry changed what they were before it, all or
// nothing, in one transaction; what else it changed stays. The error is ErrNotFound where there is no such entry or
// its transaction changed no flag, *flags.Conflict where one of them was changed since, and *flags.Invalid and
// *flags.Frozen as RestoreAt's.
func (db *DB) UndoRevision(ctx context.Context, by By, entry int64) (*Restored, error) {
	var out *Restored
	err := db.change(ctx, by, func(tx *tx) error {
		made, before, err := flagsOfRevision(tx.ctx, tx.sql, entry)
		if err != nil {
			return err
		}
		if len(made) == 0 {
			return fmt.Errorf("flags changed with log entry %d: %w", entry, flags.ErrNotFound)
		}
		then, err := db.flagsAt(tx.ctx, tx.sql, before)
		if err != nil {
			return err
		}
		last := map[string]int64{}
		for _, e := range made {
			last[e.Name] = max(last[e.Name], e.Version)
		}
		var changed []string
		for key, version := range last {
			var newest int64
			if err := tx.get("SELECT max(version) FROM log WHERE name = ? AND version IS NOT NULL", []any{key}, &newest); err != nil {
				return fmt.Errorf("flag %q: last version: %w", key, err)
			}
			if newest != version {
				changed = append(changed, key)
			}
		}
		if changed != nil {
			slices.Sort(changed)
			return &flags.Conflict{Message: "flags were changed since, and so not all can be undone together", Flags: changed}
		}
		now := tx.edit.View()
		ds := slices.DeleteFunc(now.Comebacks(then), func(d flags.Comeback) bool { return last[d.Key] == 0 })
		var bad flags.Invalid
		for _, d := range ds {
			if d.Refused != nil {
				bad.Errors = append(bad.Errors, flags.FieldError{Message: d.Why()})
			}
		}
		if bad.Errors != nil {
			return &bad
		}
		if err := tx.bringBack(ds, fmt.Sprintf("undo of revision %d", made[0].Revision)); err != nil {
			return err
		}
		out = &Restored{At: made[0].At, Entries: tx.entries, Last: tx.lastOf()}
		return nil
	})
	return out, err
}

// FlagsOfRevision returns the log entries that the transaction of an entry wrote of flags' versions, oldest first;
// none where it changed no flag, or where there is no such entry.
func (db *DB) FlagsOfRevision(ctx context.Context, entry int64) ([]flags.Entry, error) {
	entries, _, err := flagsOfRevision(ctx, db.reader, entry)
	return entries, err
}

// flagsOfRevision is FlagsOfRevision, with the id of the last entry before the transaction. Ids and revisions grow
// together; an entry about a token has the revision before it, and is of no transaction of flags.
func flagsOfRevision(ctx context.Context, q querier, entry int64) (made []flags.Entry, before int64, err error) {
	var revision, after int64
	err = q.QueryRowContext(ctx, "SELECT revision, coalesce((SELECT id FROM log WHERE id < ?1 AND revision < l.revision ORDER BY id DESC LIMIT 1), 0),"+
		" coalesce((SELECT id FROM log WHERE id > ?1 AND revision > l.revision ORDER BY id LIMIT 1), 1 << 62) FROM log l WHERE id = ?1", entry).Scan(&revision, &before, &after)
	if errors.Is(err, sql.ErrNoRows) {
		return nil, 0, nil
	}
	if err == nil {
		made, err = collect(ctx, q, scanEntry, "SELECT "+entryColumns+" FROM log WHERE id > ? AND id < ? AND revision = ? AND kind = 'flag' AND version IS NOT NULL ORDER BY id",
			before, after, revision)
	}
	if err != nil {
		return nil, 0, fmt.Errorf("revision of log entry %d: %w", entry, err)
	}
	return made, before, nil
}
