package db

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"io/fs"
	"net/url"
	"os"
	"path/filepath"

	"github.com/dezky/platform-api/flags"
)

// Contents is what a database file holds.
type Contents struct {
	Empty    bool // it has no schema yet; nothing below is set
	Schema   int64
	Epoch    string
	Revision int64
	Flags    int64
	Tenants  int64
	Partners int64
	Entries  int64       // of the log
	Last     flags.Entry // the newest of them, without changes, note and impact
}

// Create makes an empty database in dir, where none is.
func Create(ctx context.Context, dir string) error {
	db, err := open(Options{Dir: dir})
	if err != nil {
		return err
	}
	// The journal mode comes with the connection; a page makes it a database that can be copied.
	_, err = db.writer.ExecContext(ctx, "PRAGMA user_version = 0")
	if err != nil {
		err = fmt.Errorf("create the database: %w", err)
	}
	return errors.Join(err, db.Close())
}

// RequireKnownSchema refuses dir's database if its schema is newer than this program's. It changes nothing,
// and a server may have the database open.
func RequireKnownSchema(ctx context.Context, dir string) error {
	d, err := openFile(filepath.Join(dir, File), false)
	if err != nil {
		return err
	}
	defer d.Close()
	has, err := schemaOf(ctx, d)
	if err != nil {
		return fmt.Errorf("schema version: %w", err)
	}
	knows, err := newestMigration()
	if err == nil && has > knows {
		err = newerSchema(has, knows)
	}
	return err
}

// newestMigration returns the schema that this program knows.
func newestMigration() (knows int64, err error) {
	names, err := fs.Glob(migrationFiles, "migrations/*.sql")
	if err != nil {
		return 0, err
	}
	for _, name := range names {
		var version int64
		if _, err := fmt.Sscanf(filepath.Base(name), "%d_", &version); err != nil {
			return 0, fmt.Errorf("migration %s: %w", name, err)
		}
		knows = max(knows, version)
	}
	return knows, nil
}

// Inspect checks the integrity of a database file that nobody has open, leaves nothing beside it, and says
// what it holds.
func Inspect(ctx context.Context, file string) (Contents, error) {
	d, err := openFile(file, true)
	if err != nil {
		return Contents{}, err
	}
	defer d.Close()
	if err := integrity(ctx, d); err != nil {
		return Contents{}, err
	}
	return contents(ctx, d)
}

// integrity is SQLite's own check of the whole file.
func integrity(ctx context.Context, q querier) error {
	var said string
	if err := q.QueryRowContext(ctx, "PRAGMA integrity_check").Scan(&said); err != nil {
		return fmt.Errorf("integrity check: %w", err)
	}
	if said != "ok" {
		return fmt.Errorf("integrity check: %s", said)
	}
	return nil
}

// InspectBeside says what dir's database holds, which a server may have open. It checks nothing.
func InspectBeside(ctx context.Context, dir string) (Contents, error) {
	d, err := openFile(filepath.Join(dir, File), false)
	if err != nil {
		return Contents{}, err
	}
	defer d.Close()
	return contents(ctx, d)
}

// HasEntry tells whether dir's database has that very entry in its log. The log only grows, so then it has
// all that came before as well.
func HasEntry(ctx context.Context, dir string, e flags.Entry) (bool, error) {
	d, err := openFile(filepath.Join(dir, File), false)
	if err != nil {
		return false, err
	}
	defer d.Close()
	if has, err := schemaOf(ctx, d); err != nil || has == 0 {
		return false, err
	}
	var has bool
	err = d.QueryRowContext(ctx, "SELECT EXISTS (SELECT 1 FROM log WHERE id = ? AND at = ? AND revision = ? AND actor = ? AND kind = ? AND name = ? AND action = ?)",
		e.ID, e.At.UnixMilli(), e.Revision, e.Actor, e.Kind, e.Name, e.Action).Scan(&has)
	if err != nil {
		return false, fmt.Errorf("log: %w", err)
	}
	return has, nil
}

// openFile opens a database file for reading alone. What is immutable is read without locks, and gets no
// -wal and -shm beside it.
func openFile(file string, immutable bool) (*sql.DB, error) {
	if _, err := os.Stat(file); err != nil {
		return nil, err
	}
	q := url.Values{"mode": {"ro"}, "_pragma": {"busy_timeout(5000)"}}
	if immutable {
		q.Set("immutable", "1")
	}
	d, err := sql.Open("sqlite", (&url.URL{Scheme: "file", Opaque: (&url.URL{Path: file}).EscapedPath(), RawQuery: q.Encode()}).String())
	if err != nil {
		return nil, fmt.Errorf("database: %w", err)
	}
	d.SetMaxOpenConns(1)
	return d, nil
}

// schemaOf returns the last migration, 0 where there was none.
func schemaOf(ctx context.Context, q querier) (version int64, err error) {
	var has bool
	if err := q.QueryRowContext(ctx, "SELECT EXISTS (SELECT 1 FROM sqlite_schema WHERE name = 'goose_db_version')").Scan(&has); err != nil || !has {
		return 0, err
	}
	err = q.QueryRowContext(ctx, "SELECT coalesce(max(version_id), 0) FROM goose_db_version").Scan(&version)
	return version, err
}

func contents(ctx context.Context, d *sql.DB) (c Contents, err error) {
	tx, err := d.BeginTx(ctx, nil) // so that the parts belong together
	if err != nil {
		return c, fmt.Errorf("contents: %w", err)
	}
	defer tx.Rollback()
	if c.Schema, err = schemaOf(ctx, tx); err != nil {
		return c, fmt.Errorf("contents: schema version: %w", err)
	}
	err = sql.ErrNoRows // where migrations were begun and did not end
	if c.Schema > 0 {
		err = tx.QueryRowContext(ctx, "SELECT epoch, revision, (SELECT count(*) FROM flags), (SELECT count(*) FROM tenants),"+
			" (SELECT count(*) FROM partners), (SELECT count(*) FROM log) FROM instance").
			Scan(&c.Epoch, &c.Revision, &c.Flags, &c.Tenants, &c.Partners, &c.Entries)
	}
	if errors.Is(err, sql.ErrNoRows) {
		c.Empty = true
		return c, nil
	}
	if err != nil {
		return c, fmt.Errorf("contents: %w", err)
	}
	var at int64
	err = tx.QueryRowContext(ctx, "SELECT id, at, revision, actor, kind, name, action FROM log ORDER BY id DESC LIMIT 1").
		Scan(&c.Last.ID, &at, &c.Last.Revision, &c.Last.Actor, &c.Last.Kind, &c.Last.Name, &c.Last.Action)
	switch {
	case err == nil:
		c.Last.At = fromMillis(at)
	case !errors.Is(err, sql.ErrNoRows):
		return c, fmt.Errorf("contents: %w", err)
	}
	return c, nil
}
