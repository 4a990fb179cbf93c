package db

import (
	"context"
	"database/sql"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"strings"
	"time"

	"github.com/dezky/platform-api/flags"
)

const entryColumns = "id, at, revision, actor, kind, name, action, version, note, changes, impact, via, subject, issuer, client"

func scanEntry(row scanner) (flags.Entry, error) {
	var e flags.Entry
	var at int64
	var version *int64
	var changes string
	var impact *string
	err := row.Scan(&e.ID, &at, &e.Revision, &e.Actor, &e.Kind, &e.Name, &e.Action, &version, &e.Note, &changes, &impact,
		&e.Via, &e.Subject, &e.Issuer, &e.Client)
	if err != nil {
		return e, err
	}
	e.At = fromMillis(at)
	if version != nil {
		e.Version = *version
	}
	if err := json.Unmarshal([]byte(changes), &e.Changes); err != nil {
		return e, fmt.Errorf("log entry %d: changes: %w", e.ID, err)
	}
	if impact != nil {
		if err := json.Unmarshal([]byte(*impact), &e.Impact); err != nil {
			return e, fmt.Errorf("log entry %d: impact: %w", e.ID, err)
		}
	}
	return e, nil
}

// HistoryFilter selects entries of the log; what is empty does not restrict, the rest must all hold.
type HistoryFilter struct {
	Flag    string // key
	Tenant  string // slug
	Partner string // slug
	Actor   string
	Action  flags.Action
	// From and To are times, both inclusive; the zero time does not restrict. They are kept to the millisecond.
	From, To time.Time
	// Versions leaves out what makes no version of the flag: its being flipped by changes of the registry.
	Versions bool
	Before   int64 // entries older than this id; 0 is from the newest
	Limit    int   // at most so many
}

// where is the condition that the filter is, but for Limit.
func (f HistoryFilter) where() (string, []any) {
	where, args := []string{"1"}, []any{}
	and := func(condition string, values ...any) {
		where, args = append(where, condition), append(args, values...)
	}
	if f.Flag != "" {
		and("kind = 'flag' AND name = ?", f.Flag)
	}
	if f.Tenant != "" {
		and("kind = 'tenant' AND name = ?", f.Tenant)
	}
	if f.Partner != "" {
		and("kind = 'partner' AND name = ?", f.Partner)
	}
	if f.Actor != "" {
		and("actor = ?", f.Actor)
	}
	if f.Action != "" {
		and("action = ?", f.Action)
	}
	const last = "(" + searchLog + "SELECT low FROM search WHERE low = high)" // up to a time: ids and times grow together
	if !f.From.IsZero() {
		and("id > "+last, f.From.UnixMilli()-1, math.MaxInt64)
	}
	switch { // one bound: SQLite seeks by one, and reads from there to the other
	case f.Before > 0 && !f.To.IsZero():
		and("id < min(?, 1 + "+last+")", f.Before, f.To.UnixMilli(), math.MaxInt64)
	case f.Before > 0:
		and("id < ?", f.Before)
	case !f.To.IsZero():
		and("id <= "+last, f.To.UnixMilli(), math.MaxInt64)
	}
	if f.Versions {
		and("version IS NOT NULL")
	}
	return strings.Join(where, " AND "), args
}

// History returns entries of the log, newest first. A thing, an actor and an action each have an index that ends in
// the id; where an action is asked for with others, its index tests those too.
func (db *DB) History(ctx context.Context, f HistoryFilter) ([]flags.Entry, error) {
	where, args := f.where()
	order := "id"
	if f.Versions { // they grow with ids and have an index of their own, which many flips do not slow down
		order = "version"
	}
	entries, err := collect(ctx, db.reader, scanEntry, "SELECT "+entryColumns+" FROM log "+f.index()+"WHERE "+where+" ORDER BY "+order+" DESC LIMIT ?", append(args, f.Limit)...)
	if err != nil {
		return nil, fmt.Errorf("history: %w", err)
	}
	return entries, nil
}

// index names the index to use where SQLite, which knows nothing of how often a value is there, would take another:
// with an actor alone it reads each of the actor's entries to see its action.
func (f HistoryFilter) index() string {
	if f.Action != "" && f.Actor != "" && f.Flag+f.Tenant+f.Partner == "" {
		return "INDEXED BY log_action "
	}
	return ""
}

// Began is when the log's first entry came; the zero time where it has none.
func (db *DB) Began(ctx context.Context) (time.Time, error) {
	var at sql.NullInt64
	if err := db.reader.QueryRowContext(ctx, "SELECT (SELECT at FROM log ORDER BY id LIMIT 1)").Scan(&at); err != nil || !at.Valid {
		return time.Time{}, err
	}
	return fromMillis(at.Int64), nil
}

// FlippedWith returns the entries of the flags that were flipped in the revision of a tenant's change, by key.
// A revision in which the tenant did not change has none.
func (db *DB) FlippedWith(ctx context.Context, slug string, revision int64) ([]flags.Entry, error) {
	// Ids and revisions grow together, so both ends are found by an index, whatever the length of the log.
	entries, err := collect(ctx, db.reader, scanEntry, "WITH own AS (SELECT max(id) AS id FROM log WHERE kind = 'tenant' AND name = ?1 AND revision = ?2)"+
		" SELECT "+entryColumns+" FROM log WHERE id > (SELECT id FROM own) AND revision = ?2 AND action = ?3"+
		" AND id < coalesce((SELECT id FROM log WHERE id > (SELECT id FROM own) AND revision > ?2 ORDER BY id LIMIT 1), 1 << 62) ORDER BY name",
		slug, revision, flags.Flipped)
	if err != nil {
		return nil, fmt.Errorf("flips of the tenant %q: %w", slug, err)
	}
	return entries, nil
}

// Entry returns one entry of the log; the error is ErrNotFound where there is none.
func (db *DB) Entry(ctx context.Context, id int64) (flags.Entry, error) {
	e, err := scanEntry(db.reader.QueryRowContext(ctx, "SELECT "+entryColumns+" FROM log WHERE id = ?", id))
	if errors.Is(err, sql.ErrNoRows) {
		return e, fmt.Errorf("log entry %d: %w", id, flags.ErrNotFound)
	}
	if err != nil {
		return e, fmt.Errorf("log entry %d: %w", id, err)
	}
	return e, nil
}

// EverFlag tells whether a flag with the key exists or ever did.
func (db *DB) EverFlag(ctx context.Context, key string) (bool, error) {
	var ever bool
	err := db.reader.QueryRowContext(ctx, "SELECT EXISTS (SELECT 1 FROM log WHERE kind = 'flag' AND name = ?)", key).Scan(&ever)
	if err != nil {
		return false, fmt.Errorf("flag %q: %w", key, err)
	}
	return ever, nil
}
