package db

import (
	"context"
	"embed"
	"errors"
	"fmt"
	"io/fs"
	"os"

	"github.com/pressly/goose/v3"
)

//go:embed migrations/*.sql
var migrationFiles embed.FS

func (db *DB) provider() (*goose.Provider, error) {
	from := db.opts.migrations
	if from == nil {
		sub, err := fs.Sub(migrationFiles, "migrations")
		if err != nil {
			return nil, err
		}
		from = sub
	}
	return goose.NewProvider(goose.DialectSQLite3, db.writer.sql, from, goose.WithDisableGlobalRegistry(true))
}

// migrate brings the schema up to this program's, forward only, after a copy of the file. goose itself
// accepts a database that is newer than its migrations, so that is refused here.
func (db *DB) migrate(ctx context.Context) error {
	p, err := db.provider()
	if err != nil {
		return fmt.Errorf("migrations: %w", err)
	}
	has, knows, err := p.GetVersions(ctx)
	switch {
	case err != nil:
		return fmt.Errorf("schema version: %w", err)
	case has > knows:
		return newerSchema(has, knows)
	case has < knows && has > 0:
		if err := db.copyBefore(ctx, has); err != nil {
			return err
		}
	}
	if has < knows {
		if _, err := p.Up(ctx); err != nil {
			return fmt.Errorf("migrate from schema %d to %d: %w", has, knows, err)
		}
	}
	return db.write(ctx, func(tx *tx) error {
		epoch, err := db.randomHex(8)
		if err != nil {
			return err
		}
		return tx.exec("INSERT INTO instance (id, epoch, revision) VALUES (1, ?, 0) ON CONFLICT DO NOTHING", epoch)
	})
}

func newerSchema(has, knows int64) error {
	return fmt.Errorf("the database has schema %d, newer than this program's %d: run the version that wrote it, or a later one", has, knows)
}

// copiesASecond is how many starts of the same second can each keep a copy.
const copiesASecond = 100

// copyBefore keeps the file as it is before a migration.
func (db *DB) copyBefore(ctx context.Context, schema int64) error {
	name := fmt.Sprintf("%s.schema-%d.%s", db.path, schema, db.opts.Now().UTC().Format("20060102T150405Z"))
	// The file is made here, so that its mode is ours and an earlier copy is neither written over nor removed.
	f, err := os.OpenFile(name, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	for i, plain := 2, name; errors.Is(err, fs.ErrExist) && i <= copiesASecond; i++ { // a start that failed within the same second
		name = fmt.Sprintf("%s-%d", plain, i)
		f, err = os.OpenFile(name, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	}
	if err == nil {
		_, err = db.writer.ExecContext(ctx, "VACUUM INTO ?", name)
		if err = errors.Join(err, f.Sync(), f.Close()); err != nil { // VACUUM INTO itself syncs nothing
			os.Remove(name)
		}
	}
	if err != nil {
		return fmt.Errorf("copy the database before migrating it: %w", err)
	}
	return nil
}

// requireSchema refuses any schema but this program's.
func (db *DB) requireSchema(ctx context.Context) error {
	p, err := db.provider()
	if err != nil {
		return fmt.Errorf("migrations: %w", err)
	}
	// Asked of the table itself: goose's own question would create it.
	var has int64
	if err := db.reader.QueryRowContext(ctx, "SELECT max(version_id) FROM goose_db_version").Scan(&has); err != nil {
		return fmt.Errorf("%s is not a database of this program's: %w", db.path, err)
	}
	sources := p.ListSources()
	return sameSchema(has, sources[len(sources)-1].Version)
}

func sameSchema(has, knows int64) error {
	switch {
	case has > knows:
		return newerSchema(has, knows)
	case has < knows:
		return fmt.Errorf("the database has schema %d, older than this program's %d: start the server first, it migrates", has, knows)
	}
	return nil
}

// timestamp is the clock's time as the schema keeps it.
func (db *DB) timestamp() int64 { return db.opts.Now().UnixMilli() }
