package db

import (
	"context"
	"errors"
	"fmt"
	"math"
	"time"

	"github.com/dezky/platform-api/flags"
)

// Difference compares two moments: see flags.Between. The zero time is now. Errors are as AsOf's, at the fields
// "from" and "to"; from must not be after to. One is made at a time, others wait: each takes every core, which
// evaluation needs.
func (db *DB) Difference(ctx context.Context, from, to time.Time, filter flags.DifferenceFilter) (*flags.Difference, error) {
	select {
	case db.single <- struct{}{}:
		defer func() { <-db.single }()
	case <-ctx.Done():
		return nil, ctx.Err()
	}
	tx, err := db.reader.BeginTx(ctx, nil)
	if err != nil {
		return nil, fmt.Errorf("the difference: %w", err)
	}
	defer tx.Rollback()
	now := db.Current()
	var moments [2]moment
	var bad flags.Invalid
	for i, at := range []time.Time{from, to} {
		m := moment{at: fromMillis(at.UnixMilli()), latest: at.IsZero(), now: now}
		var invalid *flags.Invalid
		switch err := db.find(ctx, tx, &m); {
		case errors.As(err, &invalid):
			bad.Errors = append(bad.Errors, flags.FieldError{Field: []string{"from", "to"}[i], Message: invalid.Errors[0].Message})
		case err != nil:
			return nil, err
		}
		moments[i] = m
	}
	earlier, later := moments[0], moments[1]
	if len(bad.Errors) == 0 && earlier.at.After(later.at) {
		bad.Errors = []flags.FieldError{{Field: "from", Message: "must not be after to, " + later.at.Format(time.RFC3339Nano)}}
	}
	if filter.Environment != "" && !now.HasEnvironment(filter.Environment) {
		bad.Errors = append(bad.Errors, flags.FieldError{Field: "env", Message: "must be a known environment"})
	}
	if len(bad.Errors) > 0 {
		return nil, &bad
	}

	// From now back to the later moment, and on to the earlier: each entry is read once, and who did not change
	// between the moments is the same in both.
	edit := now.Edit()
	snapshot := func(m moment, until int64) (*flags.Snapshot, error) {
		if err := undoTenants(ctx, tx, edit, m, until); err != nil {
			return nil, err
		}
		fs, err := db.flagsAt(ctx, tx, m.entry)
		if err != nil {
			return nil, err
		}
		return flags.NewSnapshot(now.Epoch(), m.revision, now.Environments(), fs, edit.View().Tenants(), nil), nil
	}
	after, err := snapshot(later, math.MaxInt64)
	if err != nil {
		return nil, err
	}
	before, err := snapshot(earlier, later.entry)
	if err != nil {
		return nil, err
	}
	tx.Rollback() // nothing more is read, and comparing may take a while
	d, err := flags.Between(ctx, before, after, filter)
	if err != nil {
		return nil, err
	}
	d.From, d.To = flags.Moment{At: earlier.at, Entry: earlier.entry}, flags.Moment{At: later.at, Entry: later.entry}
	return d, nil
}
