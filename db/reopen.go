package db

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"net/url"
	"slices"
	"sync"
	"sync/atomic"
	"time"
)

// pool is a *sql.DB that Reopen may exchange. Its lock is held while a query begins, not until its rows
// are read, and never on the way to the snapshot.
type pool struct {
	mu  sync.RWMutex
	sql *sql.DB
	old []*sql.DB // closed, with a query under way that outlasted Reopen

	trouble atomic.Pointer[error] // what the last query failed with; nil when it did not
}

// note remembers whether a query found the database usable.
func (p *pool) note(err error) {
	if _, broken := Broken(err); broken {
		p.trouble.Store(&err)
	} else if err == nil && p.trouble.Load() != nil {
		p.trouble.Store(nil)
	}
}

func (p *pool) QueryContext(ctx context.Context, query string, args ...any) (*sql.Rows, error) {
	p.mu.RLock()
	defer p.mu.RUnlock()
	rows, err := p.sql.QueryContext(ctx, query, args...)
	p.note(err)
	return rows, err
}

func (p *pool) QueryRowContext(ctx context.Context, query string, args ...any) *sql.Row {
	p.mu.RLock()
	defer p.mu.RUnlock()
	row := p.sql.QueryRowContext(ctx, query, args...)
	p.note(row.Err())
	return row
}

func (p *pool) ExecContext(ctx context.Context, query string, args ...any) (sql.Result, error) {
	p.mu.RLock()
	defer p.mu.RUnlock()
	return p.sql.ExecContext(ctx, query, args...)
}

func (p *pool) BeginTx(ctx context.Context, o *sql.TxOptions) (*sql.Tx, error) {
	p.mu.RLock()
	defer p.mu.RUnlock()
	return p.sql.BeginTx(ctx, o)
}

func (p *pool) Close() error {
	p.mu.RLock()
	defer p.mu.RUnlock()
	return p.sql.Close()
}

// openPools opens both pools. It touches no file: a connection is made when one is first needed.
func (db *DB) openPools() error {
	// temp_store keeps what a statement would need to undo itself out of a temporary file: half the time of an import.
	writer, err := sql.Open("sqlite", dsn(db.path, url.Values{"_txlock": {"immediate"}, "_pragma": {"temp_store(MEMORY)"}}))
	if err != nil {
		return fmt.Errorf("database: %w", err)
	}
	reader, err := sql.Open("sqlite", dsn(db.path, url.Values{"_pragma": {"query_only(1)"}}))
	if err != nil {
		writer.Close()
		return fmt.Errorf("database: %w", err)
	}
	writer.SetMaxOpenConns(1)
	reader.SetMaxOpenConns(readers)
	reader.SetMaxIdleConns(readers)
	db.writer.sql, db.reader.sql = writer, reader
	return nil
}

// Reopen runs fn while this process has no connection to the database, as whoever opens or closes the
// file's descriptors past SQLite needs it: closing one drops every lock of the process on the file. Reads
// under way end first, others and writes wait; who asks the snapshot notices nothing. The pools open again
// whatever comes of it.
func (db *DB) Reopen(ctx context.Context, fn func(context.Context) error) error {
	if err := db.await(ctx); err != nil {
		return err
	}
	defer func() { db.turn <- struct{}{} }()
	for _, p := range []*pool{db.reader, db.writer} {
		p.mu.Lock()
		defer p.mu.Unlock()
	}
	err := errors.Join(db.reader.sql.Close(), db.writer.sql.Close())
	for _, p := range []*pool{db.reader, db.writer} {
		p.old = append(p.old, p.sql)
	}
	if err == nil {
		err = drained(ctx, slices.Concat(db.reader.old, db.writer.old)...)
	}
	if err == nil {
		db.reader.old, db.writer.old = nil, nil
		err = fn(ctx)
	}
	return errors.Join(err, db.openPools())
}

// drained waits until the last connections of closed pools are given back. database/sql tells nobody when
// that is.
func drained(ctx context.Context, pools ...*sql.DB) error {
	tick := time.NewTicker(time.Millisecond)
	defer tick.Stop()
	for {
		open := 0
		for _, p := range pools {
			open += p.Stats().OpenConnections
		}
		if open == 0 {
			return nil
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("%d reads of the database did not end: %w", open, ctx.Err())
		case <-tick.C:
		}
	}
}
