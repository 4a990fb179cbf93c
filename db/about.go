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
	_, a.WAL, err = db.Size()
	return a, err
}

// Size returns the bytes of the database file, and of the write-ahead log beside it. It asks the file
// system alone.
func (db *DB) Size() (file, wal int64, err error) {
	info, err := os.Stat(db.path)
	if err != nil {
		return 0, 0, fmt.Errorf("size of the database: %w", err)
	}
	file = info.Size()
	if info, err = os.Stat(db.path + "-wal"); errors.Is(err, fs.ErrNotExist) {
		return file, 0, nil
	} else if err != nil {
		return 0, 0, fmt.Errorf("size of the database: %w", err)
	}
	return file, info.Size(), nil
}
