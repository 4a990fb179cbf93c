// Package db is the only SQL. It opens the database, holds the one way to write, and publishes each
// committed state as a flags.Snapshot.
package db

import (
	"context"
	"crypto/rand"
	"database/sql"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/url"
	"os"
	"path/filepath"
	"sync/atomic"
	"time"

	_ "modernc.org/sqlite" // registers the driver "sqlite"

	"github.com/dezky/platform-api/flags"
)

// File is the database's name in the data directory.
const File = "platform-api.db"

// readers is how many connections answer reads at once.
const readers = 4

// ErrNoDatabase says that the data directory holds no database yet.
var ErrNoDatabase = errors.New("no database")

// Options says where the database is and what it is told from outside.
type Options struct {
	Dir          string           // data directory; created if need be
	Environments []string         // the known environments, the default one first or not; at least one
	Now          func() time.Time // the clock; time.Now if nil
	Rand         io.Reader        // for ids and secrets; crypto/rand if nil
	Integrations []string         // the other systems that hold tenants: each change of one is queued for them

	migrations fs.FS // another set of migrations, for tests
}

// DB is an open database. Its methods may be called at once from anywhere.
type DB struct {
	path   string
	opts   Options
	writer *pool         // one connection; every transaction on it begins IMMEDIATE
	reader *pool         // read-only connections
	turn   chan struct{} // holds a token while nobody writes
	copied replication
	queued chan struct{} // holds a token when there may be something new to do for an integration
	single chan struct{} // holds a token while two moments are compared

	file    os.FileInfo           // of the database, as it was opened
	trouble atomic.Pointer[error] // of the last transaction, if the database can't be used
	live    flags.Live
	moments moments
}

// Open opens the data directory's database for its one server: it creates or migrates it (after a copy
// of the file) and loads the first snapshot. It refuses a database of a newer schema. The caller holds
// the Lock.
func Open(ctx context.Context, o Options) (*DB, error) {
	if err := os.MkdirAll(o.Dir, 0o700); err != nil {
		return nil, fmt.Errorf("data directory: %w", err)
	}
	db, err := open(o)
	if err != nil {
		return nil, err
	}
	if err := db.start(ctx); err != nil {
		db.Close()
		return nil, err
	}
	return db, nil
}

func (db *DB) start(ctx context.Context) error {
	if err := db.migrate(ctx); err != nil {
		return err
	}
	if err := db.renewEpoch(ctx); err != nil {
		return err
	}
	s, err := load(ctx, db.reader, db.opts.Environments)
	if err != nil {
		return err
	}
	db.live.Publish(s)
	return nil
}

// OpenBeside opens a database that a server may have open at the same time. It never creates or migrates,
// refuses another schema version, and has no snapshot: only tokens and Export are of use. The error is
// ErrNoDatabase where there is none.
func OpenBeside(ctx context.Context, o Options) (*DB, error) {
	if _, err := os.Stat(filepath.Join(o.Dir, File)); errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("%w in %s", ErrNoDatabase, o.Dir)
	} else if err != nil {
		return nil, err
	}
	db, err := open(o)
	if err != nil {
		return nil, err
	}
	if err := db.requireSchema(ctx); err != nil {
		db.Close()
		return nil, err
	}
	return db, nil
}

func open(o Options) (*DB, error) {
	if o.Now == nil {
		o.Now = time.Now
	}
	if o.Rand == nil {
		o.Rand = rand.Reader
	}
	db := &DB{path: filepath.Join(o.Dir, File), opts: o, writer: &pool{}, reader: &pool{}, turn: make(chan struct{}, 1), queued: make(chan struct{}, 1), single: make(chan struct{}, 1)}
	db.turn <- struct{}{}
	// The file is made here, so that its mode is ours and SQLite gives -wal and -shm the same one.
	f, err := os.OpenFile(db.path, os.O_RDWR|os.O_CREATE|os.O_EXCL, 0o600)
	switch {
	case err == nil:
		f.Close()
	case !errors.Is(err, fs.ErrExist):
		return nil, fmt.Errorf("database: %w", err)
	}
	if db.file, err = os.Stat(db.path); err != nil {
		return nil, fmt.Errorf("database: %w", err)
	}
	if err := db.openPools(); err != nil {
		return nil, err
	}
	return db, nil
}

// dsn carries the pragmas, because a PRAGMA by Exec reaches one pooled connection only. busy_timeout is
// first so that the others wait too; synchronous FULL alone survives power loss. Only open makes the file:
// one that is gone must not come back empty.
func dsn(path string, more url.Values) string {
	more.Set("mode", "rw")
	more["_pragma"] = append([]string{
		"busy_timeout(5000)", "journal_mode(WAL)", "synchronous(FULL)", "foreign_keys(1)",
	}, more["_pragma"]...)
	return (&url.URL{Scheme: "file", Opaque: (&url.URL{Path: path}).EscapedPath(), RawQuery: more.Encode()}).String()
}

// Close closes the pools; SQLite folds the WAL into the file when the last connection goes.
func (db *DB) Close() error {
	return errors.Join(db.reader.Close(), db.writer.Close())
}

// Current returns the snapshot of the last commit. It takes no lock.
func (db *DB) Current() *flags.Snapshot { return db.live.Current() }

// Live returns the snapshots as they come, for those who wait for the next.
func (db *DB) Live() *flags.Live { return &db.live }

// SQLiteVersion returns the version of the SQLite that is compiled in.
func SQLiteVersion(ctx context.Context) (string, error) {
	d, err := sql.Open("sqlite", ":memory:")
	if err != nil {
		return "", err
	}
	defer d.Close()
	var version string
	if err := d.QueryRowContext(ctx, "SELECT sqlite_version()").Scan(&version); err != nil {
		return "", fmt.Errorf("SQLite's version: %w", err)
	}
	return version, nil
}

// querier is a pool or a transaction.
type querier interface {
	QueryContext(ctx context.Context, query string, args ...any) (*sql.Rows, error)
	QueryRowContext(ctx context.Context, query string, args ...any) *sql.Row
}

// load reads the whole state of flags and registry.
func load(ctx context.Context, q querier, environments []string) (*flags.Snapshot, error) {
	var epoch string
	var revision int64
	if err := q.QueryRowContext(ctx, "SELECT epoch, revision FROM instance").Scan(&epoch, &revision); err != nil {
		return nil, fmt.Errorf("load instance: %w", err)
	}
	fs, err := collect(ctx, q, scanFlag, "SELECT "+flagColumns+" FROM flags")
	if err != nil {
		return nil, fmt.Errorf("load flags: %w", err)
	}
	ts, err := collect(ctx, q, scanTenant, "SELECT "+tenantColumns+" FROM tenants")
	if err != nil {
		return nil, fmt.Errorf("load tenants: %w", err)
	}
	ps, err := collect(ctx, q, scanPartner, "SELECT "+partnerColumns+" FROM partners")
	if err != nil {
		return nil, fmt.Errorf("load partners: %w", err)
	}
	// Every revision has its entry; entries about tokens take none.
	var modified sql.NullInt64
	if err := q.QueryRowContext(ctx, "SELECT (SELECT at FROM log WHERE kind <> ? ORDER BY id DESC LIMIT 1)", flags.KindToken).Scan(&modified); err != nil {
		return nil, fmt.Errorf("load the last change: %w", err)
	}
	freeze, err := loadFreeze(ctx, q)
	if err != nil {
		return nil, err
	}
	edit := flags.NewSnapshot(epoch, revision, environments, fs, ts, ps).Edit()
	edit.SetFreeze(freeze)
	if modified.Valid {
		edit.SetRevision(revision, fromMillis(modified.Int64))
	}
	return edit.View(), nil
}

// scanner is a row.
type scanner interface{ Scan(dest ...any) error }

// collect runs a query and scans every row.
func collect[T any](ctx context.Context, q querier, scan func(scanner) (T, error), query string, args ...any) ([]T, error) {
	rows, err := q.QueryContext(ctx, query, args...)
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	var out []T
	for rows.Next() {
		x, err := scan(rows)
		if err != nil {
			return nil, err
		}
		out = append(out, x)
	}
	if p, ok := q.(*pool); ok {
		p.note(rows.Err())
	}
	return out, rows.Err()
}

func fromMillis(ms int64) time.Time { return time.UnixMilli(ms).UTC() }

// toJSON encodes what the schema keeps as JSON.
func toJSON(v any) (string, error) {
	data, err := json.Marshal(v)
	return string(data), err
}
