package db

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
)

// About is what can be told of the database itself.
type About struct {
	SQLite  string // its version
	Schema  int64  // the last migration
	Bytes   int64  // of the database, as its pages are
	WAL     int64  // bytes of the write-ahead log beside it
	Entries int64  // of the log
}

// About asks the database about itself.
func (db *DB) About(ctx context.Context) (About, error) {
	var a About
	err := db.reader.QueryRowContext(ctx, "SELECT sqlite_version(), (SELECT max(version_id) FROM goose_db_version),"+
		" (SELECT page_count FROM pragma_page_count) * (SELECT page_size FROM pragma_page_size), (SELECT count(*) FROM log)").
		Scan(&a.SQLite, &a.Schema, &a.Bytes, &a.Entries)
	if err != nil {
		return a, fmt.Errorf("about the database: %w", err)
	}
	info, err := os.Stat(db.path + "-wal")
	switch {
	case err == nil:
		a.WAL = info.Size()
	case !errors.Is(err, fs.ErrNotExist):
		return a, fmt.Errorf("about the database: %w", err)
	}
	return a, nil
}
