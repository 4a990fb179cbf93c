package db

import (
	"context"
	"database/sql"
	"errors"
	"fmt"

	"github.com/dezky/platform-api/flags"
)

// freezeName is what entries about a freeze are about.
const freezeName = "changes"

// Freeze stops all changes of flags and registry but kills, or gives the freeze in force another reason and end.
// API tokens are made and revoked all the same. The error is *flags.Invalid.
func (db *DB) Freeze(ctx context.Context, by By, n flags.NewFreeze) (*flags.Freeze, error) {
	var out *flags.Freeze
	err := db.change(ctx, by, func(tx *tx) error {
		now := db.opts.Now()
		n, err := n.Check(now)
		if err != nil {
			return err
		}
		before := tx.edit.Frozen(now)
		out = &flags.Freeze{Reason: n.Reason, By: tx.by.Actor, Since: fromMillis(now.UnixMilli()), Until: n.Until}
		if before != nil {
			if before.Reason == n.Reason && before.Until.Equal(n.Until) {
				out = before
				return nil
			}
			if before.Since.Before(out.Since) { // else the clock was put back
				out.Since = before.Since
			}
		}
		err = tx.exec("INSERT INTO freeze (id, reason, actor, since, until) VALUES (1, ?, ?, ?, ?) ON CONFLICT DO UPDATE SET"+
			" reason = excluded.reason, actor = excluded.actor, since = excluded.since, until = excluded.until",
			out.Reason, out.By, out.Since.UnixMilli(), out.Until.UnixMilli())
		if err != nil {
			return fmt.Errorf("freeze: %w", err)
		}
		return tx.recordFreeze(before, out, flags.Froze)
	})
	return out, err
}

// Thaw ends the freeze in force. Where there is none, it writes nothing.
func (db *DB) Thaw(ctx context.Context, by By) error {
	return db.change(ctx, by, func(tx *tx) error {
		before := tx.edit.Frozen(db.opts.Now())
		if before == nil {
			return nil
		}
		if err := tx.exec("DELETE FROM freeze"); err != nil {
			return fmt.Errorf("freeze: %w", err)
		}
		return tx.recordFreeze(before, nil, flags.Thawed)
	})
}

func (tx *tx) recordFreeze(before, after *flags.Freeze, action flags.Action) error {
	if err := tx.touch(true); err != nil {
		return err
	}
	tx.edit.SetFreeze(after)
	return tx.log(flags.Entry{Kind: flags.KindInstance, Name: freezeName, Action: action, Changes: flags.DiffFreeze(before, after)})
}

// refuseFrozen is the error of a change while changes are frozen.
func (tx *tx) refuseFrozen() error {
	if f := tx.edit.Frozen(tx.db.opts.Now()); f != nil {
		return &flags.Frozen{Freeze: *f}
	}
	return nil
}

// loadFreeze reads the last freeze, also one that has ended by itself; nil where there is none.
func loadFreeze(ctx context.Context, q querier) (*flags.Freeze, error) {
	var f flags.Freeze
	var since, until int64
	err := q.QueryRowContext(ctx, "SELECT reason, actor, since, until FROM freeze").Scan(&f.Reason, &f.By, &since, &until)
	if errors.Is(err, sql.ErrNoRows) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("load the freeze: %w", err)
	}
	f.Since, f.Until = fromMillis(since), fromMillis(until)
	return &f, nil
}
