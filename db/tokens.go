package db

import (
	"context"
	"crypto/sha256"
	"database/sql"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"

	"github.com/dezky/platform-api/flags"
)

// TokenPrefix begins every API token, so that people and secret scanners know one when they see it.
const TokenPrefix = "dzk_"

// TokenRoles are the roles that an API token can have.
var TokenRoles = []string{"operator", "read", "evaluate"}

// Token is an API token as it is kept: without its secret.
type Token struct {
	ID          string
	Name        string
	Role        string // one of TokenRoles
	Environment string // "" when it is for every environment
	CreatedAt   time.Time
	CreatedBy   string
	ExpiresAt   time.Time // zero: never
	RevokedAt   time.Time // zero: not revoked
	LastUsedAt  time.Time // zero: never; up to a minute late
}

// Usable tells whether the token is neither revoked nor expired.
func (t *Token) Usable(now time.Time) bool {
	return t.RevokedAt.IsZero() && (t.ExpiresAt.IsZero() || now.Before(t.ExpiresAt))
}

// HashToken is what is kept of a token: the SHA-256 of the whole of it. Tokens are random and long, so a
// fast hash is enough.
func HashToken(secret string) [sha256.Size]byte {
	var buf [64]byte // a token has 47 bytes
	return sha256.Sum256(append(buf[:0], secret...))
}

const tokenColumns = "id, name, role, environment, created_at, created_by, expires_at, revoked_at, last_used_at"

func scanToken(row scanner) (Token, error) {
	var t Token
	var environment *string
	var created int64
	var expires, revoked, used *int64
	err := row.Scan(&t.ID, &t.Name, &t.Role, &environment, &created, &t.CreatedBy, &expires, &revoked, &used)
	if err != nil {
		return t, err
	}
	if environment != nil {
		t.Environment = *environment
	}
	t.CreatedAt = fromMillis(created)
	for _, m := range []struct {
		ms *int64
		to *time.Time
	}{{expires, &t.ExpiresAt}, {revoked, &t.RevokedAt}, {used, &t.LastUsedAt}} {
		if m.ms != nil {
			*m.to = fromMillis(*m.ms)
		}
	}
	return t, nil
}

// NewToken is an API token to be made.
type NewToken struct {
	Name        string        // flags.IsName; never used twice, because the history names it
	Role        string        // one of TokenRoles
	Environment string        // one of Options.Environments, or "" for every one
	Expires     time.Duration // from now; 0 is never
}

// Check returns what is wrong with a token's fields: name, role, env, expires.
func (n NewToken) Check(environments []string) []flags.FieldError {
	var bad []flags.FieldError
	fail := func(field, message string) { bad = append(bad, flags.FieldError{Field: field, Message: message}) }
	if !flags.IsName(n.Name) {
		fail("name", "must be "+flags.NameRule)
	}
	if !slices.Contains(TokenRoles, n.Role) {
		fail("role", "must be one of "+strings.Join(TokenRoles, ", "))
	}
	if n.Environment != "" && !slices.Contains(environments, n.Environment) {
		fail("env", fmt.Sprintf("unknown environment %q; the environments are %s", n.Environment, strings.Join(environments, ", ")))
	}
	if n.Expires < 0 {
		fail("expires", "must lie in the future")
	}
	return bad
}

// CreateToken makes a token and returns its secret, which is not kept. The error is *flags.Invalid, or a
// *flags.Conflict for a name that is or was taken; with *NotReplicated the token is made, and its secret is
// returned too.
func (db *DB) CreateToken(ctx context.Context, by By, n NewToken) (secret string, t Token, err error) {
	if bad := n.Check(db.opts.Environments); len(bad) > 0 {
		return "", t, &flags.Invalid{Errors: bad}
	}
	random := make([]byte, 32)
	if _, err := io.ReadFull(db.opts.Rand, random); err != nil {
		return "", t, fmt.Errorf("random: %w", err)
	}
	id, err := db.randomHex(6)
	if err != nil {
		return "", t, err
	}
	secret = TokenPrefix + base64.RawURLEncoding.EncodeToString(random)
	err = db.change(ctx, by, func(tx *tx) error {
		var taken bool
		if err := tx.get("SELECT EXISTS (SELECT 1 FROM tokens WHERE name = ?)", []any{n.Name}, &taken); err != nil {
			return fmt.Errorf("token %q: %w", n.Name, err)
		}
		if taken {
			return &flags.Conflict{Message: fmt.Sprintf("a token named %q exists or existed; a name is not used twice, because the history names its token by it", n.Name)}
		}
		t = Token{ID: id, Name: n.Name, Role: n.Role, Environment: n.Environment, CreatedAt: tx.at, CreatedBy: by.Actor}
		var environment, expires, expiresText any
		if n.Environment != "" {
			environment = n.Environment
		}
		if n.Expires > 0 {
			t.ExpiresAt = fromMillis(tx.at.Add(n.Expires).UnixMilli())
			expires, expiresText = t.ExpiresAt.UnixMilli(), t.ExpiresAt
		}
		hash := HashToken(secret)
		if err := tx.exec("INSERT INTO tokens (id, name, hash, role, environment, created_at, created_by, expires_at) VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
			id, n.Name, hash[:], n.Role, environment, tx.at.UnixMilli(), by.Actor, expires); err != nil {
			return fmt.Errorf("token %q: %w", n.Name, err)
		}
		changes := flags.Changes{}
		for field, to := range map[string]any{"role": n.Role, "environment": environment, "expiresAt": expiresText} {
			text, err := json.Marshal(to)
			if err != nil {
				return err
			}
			changes[field] = flags.FromTo{From: json.RawMessage("null"), To: text}
		}
		return tx.log(flags.Entry{Kind: flags.KindToken, Name: n.Name, Action: flags.Created, Changes: changes})
	})
	var alone *NotReplicated
	if err != nil && !errors.As(err, &alone) {
		return "", Token{}, err
	}
	return secret, t, err
}

// RevokeToken ends a token for ever and returns it; one that is revoked already stays as it was.
func (db *DB) RevokeToken(ctx context.Context, by By, id string) (Token, error) {
	var t Token
	err := db.change(ctx, by, func(tx *tx) (err error) {
		t, err = scanToken(tx.sql.QueryRowContext(tx.ctx, "SELECT "+tokenColumns+" FROM tokens WHERE id = ?", id))
		switch {
		case errors.Is(err, sql.ErrNoRows):
			return fmt.Errorf("token %q: %w", id, flags.ErrNotFound)
		case err != nil:
			return fmt.Errorf("token %q: %w", id, err)
		case !t.RevokedAt.IsZero():
			return nil
		}
		t.RevokedAt = tx.at
		if err := tx.exec("UPDATE tokens SET revoked_at = ? WHERE id = ?", tx.at.UnixMilli(), id); err != nil {
			return fmt.Errorf("token %q: %w", id, err)
		}
		return tx.log(flags.Entry{Kind: flags.KindToken, Name: t.Name, Action: flags.Revoked, Changes: flags.Changes{}})
	})
	return t, err
}

// Tokens returns all tokens, also expired and revoked ones, oldest first.
func (db *DB) Tokens(ctx context.Context) ([]Token, error) {
	ts, err := collect(ctx, db.reader, scanToken, "SELECT "+tokenColumns+" FROM tokens ORDER BY created_at, id")
	if err != nil {
		return nil, fmt.Errorf("tokens: %w", err)
	}
	return ts, nil
}

// TokenByHash returns the token with the hash: one indexed read. The error is ErrNotFound where there is none.
func (db *DB) TokenByHash(ctx context.Context, hash [sha256.Size]byte) (Token, error) {
	return db.token(ctx, "hash", hash[:])
}

// TokenByID is TokenByHash for a token's id.
func (db *DB) TokenByID(ctx context.Context, id string) (Token, error) {
	return db.token(ctx, "id", id)
}

func (db *DB) token(ctx context.Context, column string, value any) (Token, error) {
	t, err := scanToken(db.reader.QueryRowContext(ctx, "SELECT "+tokenColumns+" FROM tokens WHERE "+column+" = ?", value))
	if errors.Is(err, sql.ErrNoRows) {
		return t, fmt.Errorf("token: %w", flags.ErrNotFound)
	}
	if err != nil {
		return t, fmt.Errorf("token: %w", err)
	}
	return t, nil
}

// RevokedTokens returns the ids of the revoked tokens.
func (db *DB) RevokedTokens(ctx context.Context) (map[string]bool, error) {
	ids, err := collect(ctx, db.reader, func(row scanner) (id string, err error) { return id, row.Scan(&id) },
		"SELECT id FROM tokens WHERE revoked_at IS NOT NULL")
	if err != nil {
		return nil, fmt.Errorf("revoked tokens: %w", err)
	}
	out := make(map[string]bool, len(ids))
	for _, id := range ids {
		out[id] = true
	}
	return out, nil
}

// TouchTokens notes when tokens were last used: a node's own state, without history.
func (db *DB) TouchTokens(ctx context.Context, used map[string]time.Time) error {
	return db.write(ctx, func(tx *tx) error {
		for id, at := range used {
			if err := tx.exec("UPDATE tokens SET last_used_at = ? WHERE id = ? AND coalesce(last_used_at, 0) < ?", at.UnixMilli(), id, at.UnixMilli()); err != nil {
				return fmt.Errorf("token %s: last use: %w", id, err)
			}
		}
		return nil
	})
}
