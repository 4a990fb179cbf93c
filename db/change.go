package db

import (
	"context"
	"database/sql"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/dezky/platform-api/flags"
)

// By says who makes a change.
type By struct {
	Actor string    // an email, "token:NAME", "system:seed" or "system:import"
	At    time.Time // when it happened, for history that is told later; zero is now

	Via     flags.Via // by which entrance; "" where nobody knows
	Subject string    // who it is to the issuer, where an identity provider knows them
	Issuer  string    // the identity provider
	Client  string    // through which of its clients, where it tells
}

// errRollback ends a transaction without its changes and without an error.
var errRollback = errors.New("roll back")

// tx is one transaction on the writer.
type tx struct {
	ctx        context.Context
	sql        *sql.Tx
	statements map[string]*sql.Stmt
	db         *DB
	after      []func() // what others see of it once it is committed
	queued     bool     // whether it queued something for an integration

	// Of a change only:
	by       By
	edit     *flags.Edit // flags and registry as this transaction has them
	at       time.Time   // of every entry of this transaction
	revision int64       // the next one, or the present one until flags or registry change
	changed  bool        // whether flags or registry changed
	last     int64       // id of the log's last entry
	head     string      // and its hash in hex
	entries  []flags.Entry
	trial    bool                     // it is rolled back in any case
	kills    bool                     // it is nothing but kills, also where it restores
	brief    bool                     // entries are kept without their changes: there are very many
	events   []flags.Event            // one for each revision
	moved    map[string]*flags.Tenant // by slug, as they were: tenants with another plan or partner, not told by flip yet
}

// prepare prepares a statement once per transaction.
func (tx *tx) prepare(query string) (*sql.Stmt, error) {
	if stmt := tx.statements[query]; stmt != nil {
		return stmt, nil
	}
	stmt, err := tx.sql.PrepareContext(tx.ctx, query)
	if err == nil {
		tx.statements[query] = stmt
	}
	return stmt, err
}

func (tx *tx) exec(query string, args ...any) error {
	stmt, err := tx.prepare(query)
	if err == nil {
		_, err = stmt.ExecContext(tx.ctx, args...)
	}
	return err
}

// get scans the one row of a query; sql.ErrNoRows says that there is none.
func (tx *tx) get(query string, args []any, dest ...any) error {
	stmt, err := tx.prepare(query)
	if err != nil {
		return err
	}
	return stmt.QueryRowContext(tx.ctx, args...).Scan(dest...)
}

// await waits for the turn to write; a context that has ended never gets it.
func (db *DB) await(ctx context.Context) error {
	select {
	case <-ctx.Done():
	case <-db.turn:
		if ctx.Err() == nil {
			return nil
		}
		db.turn <- struct{}{}
	}
	return ctx.Err()
}

// write runs fn in one transaction on the writer: for a node's own state, which has no history and no
// revision. Once it has its turn it is not interrupted, so that a caller who goes away leaves no doubt.
func (db *DB) write(ctx context.Context, fn func(*tx) error) error {
	if err := db.await(ctx); err != nil {
		return err
	}
	defer func() { db.turn <- struct{}{} }()
	return db.transact(context.WithoutCancel(ctx), fn)
}

func (db *DB) transact(ctx context.Context, fn func(*tx) error) (err error) {
	defer func() { db.noteTrouble(err) }()
	if err := db.Intact(); err != nil {
		return fmt.Errorf("database: %w", err)
	}
	sqlTx, err := db.writer.BeginTx(ctx, nil)
	if err != nil {
		return fmt.Errorf("begin: %w", err)
	}
	defer sqlTx.Rollback()
	tx := &tx{ctx: ctx, sql: sqlTx, statements: map[string]*sql.Stmt{}, db: db, moved: map[string]*flags.Tenant{}}
	if err := fn(tx); err != nil {
		if errors.Is(err, errRollback) {
			return nil
		}
		return err
	}
	if err := sqlTx.Commit(); err != nil {
		return fmt.Errorf("commit: %w", err)
	}
	for _, fn := range tx.after {
		fn()
	}
	return nil
}

// committed has fn called once the transaction is committed, before anybody else may write.
func (tx *tx) committed(fn func()) { tx.after = append(tx.after, fn) }

// change is the one way to change flags, registry and tokens: one transaction that holds rows and
// history together, and, when flags or registry changed, one new revision, whose snapshot is published
// after the commit and in commit order. The error is *NotReplicated where only the wait for a replica failed.
func (db *DB) change(ctx context.Context, by By, fn func(*tx) error) error {
	var version int64
	wrote := false
	err := db.commit(ctx, by, func(tx *tx) error {
		err := fn(tx)
		for _, e := range tx.entries {
			version, wrote = max(version, e.Version), true
		}
		return err
	})
	if err != nil {
		return err
	}
	if wrote {
		db.copied.changed()
	}
	return db.copied.acknowledged(ctx, version)
}

func (db *DB) commit(ctx context.Context, by By, fn func(*tx) error) error {
	var next *flags.Snapshot // stays nil where nothing is to be published
	var events []flags.Event
	if err := db.await(ctx); err != nil {
		return err
	}
	defer func() { db.turn <- struct{}{} }()
	err := db.transact(context.WithoutCancel(ctx), func(tx *tx) error {
		if s := db.live.Current(); s != nil {
			tx.edit = s.Edit()
		}
		if err := tx.step(by, fn); err != nil {
			return err
		}
		if tx.edit != nil {
			next, events = tx.edit.View(), tx.events
		}
		return nil
	})
	if err == nil && next != nil && next != db.live.Current() {
		db.live.Publish(next, events...)
	}
	return err
}

// step runs fn as one change by someone: with the next revision if it changes flags or registry, and
// with a time that is never before the previous entry's, whatever the clock does.
func (tx *tx) step(by By, fn func(*tx) error) error {
	tx.by, tx.changed = by, false
	first := len(tx.entries)
	var last int64
	var head []byte
	// The id comes from what was ever written: where the log's end was cut off, the gap stays.
	err := tx.get("SELECT revision, coalesce((SELECT at FROM log ORDER BY id DESC LIMIT 1), 0), (SELECT hash FROM log ORDER BY id DESC LIMIT 1),"+
		" coalesce((SELECT seq FROM sqlite_sequence WHERE name = 'log'), 0) FROM instance", nil, &tx.revision, &last, &head, &tx.last)
	if err != nil {
		return fmt.Errorf("instance: %w", err)
	}
	tx.head = hex.EncodeToString(head)
	if tx.edit != nil && tx.edit.Revision() != tx.revision {
		return fmt.Errorf("the database is at revision %d, this process at %d: another process wrote to it", tx.revision, tx.edit.Revision())
	}
	at := tx.db.timestamp()
	if !by.At.IsZero() {
		at = by.At.UnixMilli()
	}
	tx.at = fromMillis(max(at, last))
	if err := fn(tx); err != nil {
		return err
	}
	if _, err := tx.flip(); err != nil {
		return err
	}
	if !tx.changed {
		return nil
	}
	tx.edit.SetRevision(tx.revision, tx.at)
	tx.events = append(tx.events, tx.event(tx.entries[first:]))
	return tx.exec("UPDATE instance SET revision = ?", tx.revision)
}

// event tells subscribers what the entries of one revision say. Flags that flipped did not change, and only for
// the tenants named: to name them would have every client of every tenant ask again.
func (tx *tx) event(entries []flags.Entry) flags.Event {
	e := flags.Event{Revision: tx.revision, At: tx.at, Actor: tx.by.Actor, Action: entries[0].Action}
	for _, entry := range entries {
		switch {
		case entry.Action == flags.Flipped:
		case entry.Kind == flags.KindFlag:
			e.Flags = append(e.Flags, entry.Name)
		case entry.Kind == flags.KindTenant:
			e.Tenants = append(e.Tenants, entry.Name)
		case entry.Kind == flags.KindPartner:
			e.Partners = append(e.Partners, entry.Name)
		}
	}
	return e
}

// touch marks that flags or registry change, which takes the next revision. While changes are frozen it refuses
// all but what is always allowed: every change passes here.
func (tx *tx) touch(always bool) error {
	if !always && !tx.trial {
		if err := tx.refuseFrozen(); err != nil {
			return err
		}
	}
	if !tx.changed {
		tx.changed = true
		tx.revision++
	}
	return nil
}

// log adds an entry about something that this transaction changed, chained to the one before.
func (tx *tx) log(e flags.Entry) error {
	changes, err := toJSON(e.Changes)
	if err != nil {
		return err
	}
	kept := e
	if tx.brief {
		kept.Changes = nil
	}
	tx.entries = append(tx.entries, kept)
	ms := tx.at.UnixMilli()
	l := flags.Line{ID: tx.last + 1, At: flags.LineTime(ms), Revision: tx.revision, Actor: tx.by.Actor, Kind: e.Kind, Name: e.Name, Action: e.Action,
		Note: e.Note, Changes: changes, Via: tx.by.Via, Subject: tx.by.Subject, Issuer: tx.by.Issuer, Client: tx.by.Client, Previous: tx.head}
	if e.Version > 0 {
		l.Version = &e.Version
	}
	if e.Impact != nil {
		impact, err := toJSON(e.Impact)
		if err != nil {
			return err
		}
		l.Impact = &impact
	}
	hash := l.Sum()
	if err := tx.exec("INSERT INTO log ("+entryColumns+", hash) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
		l.ID, ms, l.Revision, l.Actor, l.Kind, l.Name, l.Action, l.Version, l.Note, l.Changes, l.Impact, l.Via, l.Subject, l.Issuer, l.Client, hash[:]); err != nil {
		return fmt.Errorf("log: %w", err)
	}
	tx.last, tx.head = l.ID, hex.EncodeToString(hash[:])
	return nil
}

// randomHex returns n random bytes in hex.
func (db *DB) randomHex(n int) (string, error) {
	b := make([]byte, n)
	if _, err := io.ReadFull(db.opts.Rand, b); err != nil {
		return "", fmt.Errorf("random: %w", err)
	}
	return hex.EncodeToString(b), nil
}
