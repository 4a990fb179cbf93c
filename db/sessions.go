package db

import (
	"context"
	"crypto/sha256"
	"database/sql"
	"errors"
	"fmt"
	"time"

	"github.com/dezky/platform-api/flags"
)

// Session is a person's session as it is kept: under the hash of the id that the cookie holds.
type Session struct {
	Hash      [sha256.Size]byte
	Data      string // a JSON object, the owner's business
	CreatedAt time.Time
	SeenAt    time.Time
}

// PutSession keeps a session, replacing one with the same hash.
func (db *DB) PutSession(ctx context.Context, s Session) error {
	return db.write(ctx, func(tx *tx) error {
		err := tx.exec("INSERT INTO sessions (hash, data, created_at, seen_at) VALUES (?, ?, ?, ?)"+
			" ON CONFLICT (hash) DO UPDATE SET data = excluded.data, seen_at = excluded.seen_at",
			s.Hash[:], s.Data, s.CreatedAt.UnixMilli(), s.SeenAt.UnixMilli())
		if err != nil {
			return fmt.Errorf("session: %w", err)
		}
		return nil
	})
}

// Session returns the session with the hash; the error is ErrNotFound where there is none.
func (db *DB) Session(ctx context.Context, hash [sha256.Size]byte) (Session, error) {
	s := Session{Hash: hash}
	var created, seen int64
	err := db.reader.QueryRowContext(ctx, "SELECT data, created_at, seen_at FROM sessions WHERE hash = ?", hash[:]).Scan(&s.Data, &created, &seen)
	if errors.Is(err, sql.ErrNoRows) {
		return s, fmt.Errorf("session: %w", flags.ErrNotFound)
	}
	if err != nil {
		return s, fmt.Errorf("session: %w", err)
	}
	s.CreatedAt, s.SeenAt = fromMillis(created), fromMillis(seen)
	return s, nil
}

// DeleteSession ends a session.
func (db *DB) DeleteSession(ctx context.Context, hash [sha256.Size]byte) error {
	return db.write(ctx, func(tx *tx) error {
		if err := tx.exec("DELETE FROM sessions WHERE hash = ?", hash[:]); err != nil {
			return fmt.Errorf("session: %w", err)
		}
		return nil
	})
}

// DeleteOldSessions removes the sessions last seen, or begun, before the given times.
func (db *DB) DeleteOldSessions(ctx context.Context, seenBefore, begunBefore time.Time) error {
	return db.write(ctx, func(tx *tx) error {
		if err := tx.exec("DELETE FROM sessions WHERE seen_at < ? OR created_at < ?", seenBefore.UnixMilli(), begunBefore.UnixMilli()); err != nil {
			return fmt.Errorf("old sessions: %w", err)
		}
		return nil
	})
}
