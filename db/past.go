package db

import (
	"context"
	"database/sql"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/dezky/platform-api/flags"
)

// A moment of the past is the log up to an entry. Entries about flags have their flag's state kept beside them
// (flag_states); those about tenants are few for each, and say what changed from what to what.

// moment is a time in the log.
type moment struct {
	at              time.Time
	latest          bool            // the moment is now, whatever at says
	entry, revision int64           // of the last entry that counts
	now             *flags.Snapshot // as it was published when the question came
}

// AsOf returns flags and the tenant with the slug as they were at a time; changes at that very time count. The
// slug means who held it then. The error is ErrNotFound where nobody did, and *flags.Invalid, its field "at",
// for a time before the log began or in the future.
func (db *DB) AsOf(ctx context.Context, at time.Time, slug string) (*flags.Past, error) {
	var out *flags.Past
	err := db.past(ctx, at, func(q querier, m moment) error {
		fs, err := db.flagsAt(ctx, q, m.entry)
		if err != nil {
			return err
		}
		t, err := tenantAt(ctx, q, m.entry, slug)
		if err != nil {
			return err
		}
		if t == nil {
			return flags.NoTenantAt(slug, m.at)
		}
		s := flags.NewSnapshot(m.now.Epoch(), m.revision, m.now.Environments(), fs, []*flags.Tenant{t}, nil)
		out = &flags.Past{Snapshot: s, At: m.at, Entry: m.entry}
		return nil
	})
	return out, err
}

// FlagsAt returns all flags as they were at a time, by key. The list must not be changed. Errors are as AsOf's.
func (db *DB) FlagsAt(ctx context.Context, at time.Time) (fs []*flags.Flag, err error) {
	err = db.past(ctx, at, func(q querier, m moment) error {
		fs, err = db.flagsAt(ctx, q, m.entry)
		return err
	})
	return fs, err
}

// TenantsAt returns all tenants as they were at a time, by slug; those that are the same now are those of the
// snapshot, of the others some times are not told: see flags.Edit.UndoTenant. Errors are as AsOf's.
func (db *DB) TenantsAt(ctx context.Context, at time.Time) (ts []*flags.Tenant, err error) {
	err = db.past(ctx, at, func(q querier, m moment) error {
		ts, err = tenantsAt(ctx, q, m)
		return err
	})
	return ts, err
}

// past runs fn on one state of the database, with the moment of a time.
func (db *DB) past(ctx context.Context, at time.Time, fn func(querier, moment) error) error {
	m := moment{at: fromMillis(at.UnixMilli()), now: db.Current()}
	tx, err := db.reader.BeginTx(ctx, nil)
	if err != nil {
		return fmt.Errorf("the past: %w", err)
	}
	defer tx.Rollback()
	if err := db.find(ctx, tx, &m); err != nil {
		return err
	}
	return fn(tx, m)
}

// searchLog halves the log, whose ids, times and revisions grow together, until low is the last entry up to a time
// and a revision.
const searchLog = `WITH RECURSIVE search (low, high, time, last) AS (
		SELECT min(id) - 1, (SELECT max(id) FROM log), ?, ? FROM log
		UNION ALL
		SELECT iif(at <= time AND revision <= last, (low + high + 1) / 2, low), iif(at <= time AND revision <= last, high, (low + high + 1) / 2 - 1), time, last
		FROM search CROSS JOIN log ON id = (SELECT max(id) FROM log WHERE id <= (low + high + 1) / 2)
		WHERE low < high) `

// momentQuery asks up to a revision too: a change that is not published yet has not been for anyone.
const momentQuery = searchLog + "SELECT id, revision FROM log WHERE id <= (SELECT low FROM search WHERE low = high) ORDER BY id DESC LIMIT 1"

// find finds a moment's entry. The log may be ahead of a clock that was put back: then its end is now.
func (db *DB) find(ctx context.Context, q querier, m *moment) error {
	var first, last sql.NullInt64
	err := q.QueryRowContext(ctx, "SELECT (SELECT at FROM log ORDER BY id LIMIT 1), (SELECT at FROM log ORDER BY id DESC LIMIT 1)").Scan(&first, &last)
	if err != nil {
		return fmt.Errorf("the log's times: %w", err)
	}
	refuse := func(format string, ms int64) error {
		return &flags.Invalid{Errors: []flags.FieldError{{Field: "at", Message: fmt.Sprintf(format, fromMillis(ms).Format(time.RFC3339Nano))}}}
	}
	now := max(db.timestamp(), last.Int64)
	if m.latest {
		m.at = fromMillis(now)
	}
	at := m.at.UnixMilli()
	if at > now {
		return refuse("must not be in the future; it is %s now", now)
	}
	err = q.QueryRowContext(ctx, momentQuery, at, m.now.Revision()).Scan(&m.entry, &m.revision)
	switch {
	case errors.Is(err, sql.ErrNoRows) && first.Valid:
		return refuse("must not be before %s, when the log began", first.Int64)
	case errors.Is(err, sql.ErrNoRows):
		return refuse("must not be before the log begins; at %s it has no entry", db.timestamp())
	case err != nil:
		return fmt.Errorf("the log at %s: %w", m.at, err)
	}
	return nil
}

// flagsAtQuery steps from key to key rather than through all states, and looks up each key's last one.
const flagsAtQuery = `WITH RECURSIVE keys (key) AS (
		SELECT min(key) FROM flag_states
		UNION ALL
		SELECT (SELECT min(key) FROM flag_states WHERE key > keys.key) FROM keys WHERE keys.key IS NOT NULL)
	SELECT s.key, s.description, s.state, s.pct, o.scope, s.version, s.created_at, s.updated_at
	FROM keys CROSS JOIN flag_states s ON s.id = (SELECT max(id) FROM flag_states WHERE key = keys.key AND id <= ?)
		CROSS JOIN flag_states o ON o.id = s.scope_id
	WHERE s.state IS NOT NULL`

// flagsAt returns the flags as the log up to an entry left them, by key.
func (db *DB) flagsAt(ctx context.Context, q querier, entry int64) ([]*flags.Flag, error) {
	var last sql.NullInt64
	if err := q.QueryRowContext(ctx, "SELECT max(id) FROM flag_states WHERE id <= ?", entry).Scan(&last); err != nil {
		return nil, fmt.Errorf("flags at log entry %d: %w", entry, err)
	}
	if fs, ok := db.moments.get(last.Int64); ok {
		return fs, nil
	}
	fs, err := collect(ctx, q, scanFlag, flagsAtQuery, last.Int64)
	if err != nil {
		return nil, fmt.Errorf("flags at log entry %d: %w", entry, err)
	}
	slices.SortFunc(fs, func(a, b *flags.Flag) int { return strings.Compare(a.Key, b.Key) })
	db.moments.put(last.Int64, fs)
	return fs, nil
}

// tenantAt returns the tenant with a slug as the log up to an entry left it, nil where there was none: by the
// entries since its creation, which says all of it.
func tenantAt(ctx context.Context, q querier, entry int64, slug string) (*flags.Tenant, error) {
	log, err := collect(ctx, q, scanEntry, "SELECT "+entryColumns+" FROM log WHERE kind = 'tenant' AND name = ?1 AND id <= ?2"+
		" AND id >= (SELECT id FROM log WHERE kind = 'tenant' AND name = ?1 AND id <= ?2 AND action = 'created' ORDER BY id DESC LIMIT 1)"+
		" ORDER BY id", slug, entry)
	if err != nil {
		return nil, fmt.Errorf("tenant %q at log entry %d: %w", slug, entry, err)
	}
	return flags.TenantAfter(log)
}

// tenantsAt returns the tenants as they were at a moment: those of now, with their changes since taken back.
func tenantsAt(ctx context.Context, q querier, m moment) ([]*flags.Tenant, error) {
	edit := m.now.Edit()
	if err := undoTenants(ctx, q, edit, m, math.MaxInt64); err != nil {
		return nil, err
	}
	return edit.View().Tenants(), nil
}

// undoTenants takes the changes of tenants between a moment and a later entry back. The index has the entries about
// tenants by slug, so that neither other entries are read nor these sorted.
func undoTenants(ctx context.Context, q querier, edit *flags.Edit, m moment, until int64) error {
	_, err := collect(ctx, q, func(row scanner) (_ struct{}, err error) {
		var e flags.Entry
		var changes []byte
		if err := row.Scan(&e.Name, &e.Action, &changes); err != nil {
			return struct{}{}, err
		}
		if changes != nil {
			if err := json.Unmarshal(changes, &e.Changes); err != nil {
				return struct{}{}, fmt.Errorf("tenant %q: changes: %w", e.Name, err)
			}
		}
		return struct{}{}, edit.UndoTenant(e)
	}, "SELECT name, action, iif(action = 'created', NULL, changes) FROM log INDEXED BY log_thing"+
		" WHERE kind = 'tenant' AND id > ? AND id <= ? AND revision <= ? ORDER BY name DESC, id DESC", m.entry, until, m.now.Revision())
	if err != nil {
		return fmt.Errorf("tenants at log entry %d: %w", m.entry, err)
	}
	return nil
}

// Bounds of the flags of the past that are remembered.
const (
	momentsMost = 64       // moments
	momentsSize = 32 << 20 // bytes of all together
)

// moments remembers the flags of the moments that were asked for last, so that one moment can be asked for many
// tenants. Evaluation of now never comes here.
type moments struct {
	mu    sync.Mutex
	held  []heldFlags // the last one asked for first
	bytes int
}

// heldFlags are the flags as a log entry left them.
type heldFlags struct {
	entry int64
	flags []*flags.Flag
	bytes int
}

func (ms *moments) get(entry int64) ([]*flags.Flag, bool) {
	ms.mu.Lock()
	defer ms.mu.Unlock()
	i := slices.IndexFunc(ms.held, func(h heldFlags) bool { return h.entry == entry })
	if i < 0 {
		return nil, false
	}
	h := ms.held[i]
	copy(ms.held[1:], ms.held[:i])
	ms.held[0] = h
	return h.flags, true
}

// put remembers flags, and forgets those that were not asked for longest, as the bounds want it.
func (ms *moments) put(entry int64, fs []*flags.Flag) {
	h := heldFlags{entry, fs, 0}
	for _, f := range fs {
		h.bytes += flagSize(f)
	}
	if h.bytes > momentsSize {
		return
	}
	ms.mu.Lock()
	defer ms.mu.Unlock()
	if slices.ContainsFunc(ms.held, func(h heldFlags) bool { return h.entry == entry }) {
		return // another asked at the same time
	}
	ms.held = slices.Insert(ms.held, 0, h)
	ms.bytes += h.bytes
	for len(ms.held) > momentsMost || ms.bytes > momentsSize {
		last := len(ms.held) - 1
		ms.bytes -= ms.held[last].bytes
		ms.held[last] = heldFlags{}
		ms.held = ms.held[:last]
	}
}

// flagSize is about what a flag takes, in bytes.
func flagSize(f *flags.Flag) int {
	size := 256 + len(f.Key) + len(f.Description)
	for _, a := range flags.Axes {
		for _, value := range f.Scope.Axis(a) {
			size += 16 + len(value)
		}
	}
	return size
}

// keepState keeps what the newest log entry left of a flag, nil after its deletion.
func (tx *tx) keepState(key string, version int64, before, after *flags.Flag) error {
	var err error
	if after == nil {
		err = tx.exec("INSERT INTO flag_states (id, key, version, updated_at) VALUES (?, ?, ?, ?)", tx.last, key, version, tx.at.UnixMilli())
	} else {
		var scope any // NULL: as it was
		if before == nil || !before.Scope.Equal(after.Scope) {
			if scope, err = toJSON(after.Scope); err != nil {
				return err
			}
		}
		err = tx.exec("INSERT INTO flag_states (id, key, version, state, pct, description, scope_id, scope, created_at, updated_at)"+
			" VALUES (?1, ?2, ?3, ?4, ?5, ?6, iif(?7 IS NULL, (SELECT scope_id FROM flag_states WHERE key = ?2 ORDER BY id DESC LIMIT 1), ?1), ?7, ?8, ?9)",
			tx.last, key, version, after.State, after.Pct, after.Description, scope, after.CreatedAt.UnixMilli(), after.UpdatedAt.UnixMilli())
	}
	if err != nil {
		return fmt.Errorf("flag %q, version %d: state: %w", key, version, err)
	}
	return nil
}
