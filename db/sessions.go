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

	// Of a session that an identity provider began:
	Issuer    string
	Subject   string
	SID       string    // the provider's id of it, where it tells
	CheckedAt time.Time // when the provider was last asked about it
	Sealed    []byte    // the owner's business too, encrypted
}

// PutSession keeps a session, replacing one with the same hash.
func (db *DB) PutSession(ctx context.Context, s Session) error {
	return db.write(ctx, func(tx *tx) error {
		err := tx.exec("INSERT OR REPLACE INTO sessions (hash, data, created_at, seen_at, issuer, subject, sid, checked_at, sealed)"+
			" VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)",
			s.Hash[:], s.Data, s.CreatedAt.UnixMilli(), s.SeenAt.UnixMilli(), s.Issuer, s.Subject, s.SID, s.CheckedAt.UnixMilli(), s.Sealed)
		if err != nil {
			return fmt.Errorf("session: %w", err)
		}
		return nil
	})
}

// TouchSession notes that a session was used. One that has ended meanwhile stays ended.
func (db *DB) TouchSession(ctx context.Context, hash [sha256.Size]byte, at time.Time) error {
	return db.updateSession(ctx, "UPDATE sessions SET seen_at = ? WHERE hash = ?", at.UnixMilli(), hash[:])
}

// CheckSession notes that the provider was asked about a session, and who it is by its answer. One that has
// ended meanwhile stays ended.
func (db *DB) CheckSession(ctx context.Context, hash [sha256.Size]byte, data string, at time.Time) error {
	return db.updateSession(ctx, "UPDATE sessions SET data = ?, checked_at = ? WHERE hash = ?", data, at.UnixMilli(), hash[:])
}

func (db *DB) updateSession(ctx context.Context, update string, args ...any) error {
	return db.write(ctx, func(tx *tx) error {
		if err := tx.exec(update, args...); err != nil {
			return fmt.Errorf("session: %w", err)
		}
		return nil
	})
}

// Session returns the session with the hash; the error is ErrNotFound where there is none.
func (db *DB) Session(ctx context.Context, hash [sha256.Size]byte) (Session, error) {
	s := Session{Hash: hash}
	var created, seen, checked int64
	err := db.reader.QueryRowContext(ctx, "SELECT data, created_at, seen_at, issuer, subject, sid, checked_at, sealed FROM sessions WHERE hash = ?", hash[:]).
		Scan(&s.Data, &created, &seen, &s.Issuer, &s.Subject, &s.SID, &checked, &s.Sealed)
	if errors.Is(err, sql.ErrNoRows) {
		return s, fmt.Errorf("session: %w", flags.ErrNotFound)
	}
	if err != nil {
		return s, fmt.Errorf("session: %w", err)
	}
	s.CreatedAt, s.SeenAt, s.CheckedAt = fromMillis(created), fromMillis(seen), fromMillis(checked)
	return s, nil
}

// DeleteSessionsOf ends the sessions that a provider began for someone: those with its sid, or, without
// one, all of the subject. It returns how many there were.
func (db *DB) DeleteSessionsOf(ctx context.Context, issuer, subject, sid string) (n int64, err error) {
	query, args := "DELETE FROM sessions WHERE issuer = ?", []any{issuer}
	if subject != "" {
		query, args = query+" AND subject = ?", append(args, subject)
	}
	switch {
	case sid != "" && subject != "": // one whose sid the provider never told may be meant
		query, args = query+" AND sid IN (?, '')", append(args, sid)
	case sid != "":
		query, args = query+" AND sid = ?", append(args, sid)
	}
	if subject == "" && sid == "" {
		return 0, errors.New("sessions of nobody")
	}
	err = db.write(ctx, func(tx *tx) error {
		result, err := tx.sql.ExecContext(tx.ctx, query, args...)
		if err == nil {
			n, err = result.RowsAffected()
		}
		if err != nil {
			return fmt.Errorf("sessions: %w", err)
		}
		return nil
	})
	return n, err
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
