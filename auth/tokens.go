package auth

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/dezky/platform-api/db"
	"github.com/dezky/platform-api/flags"
)

// How often the database is asked for revocations made beside this process, and told of last uses.
const (
	revocationInterval = 500 * time.Millisecond
	lastUseInterval    = 30 * time.Second
)

// ErrToken says that a token is unknown, revoked or expired; nobody is told which.
var ErrToken = errors.New("invalid token")

// Tokens verifies API tokens. A token that was seen before costs one hash and one map read: no SQL, no
// lock. An unknown one costs an indexed read.
type Tokens struct {
	db  *db.DB
	now func() time.Time
	log *slog.Logger

	mu    sync.Mutex // held to replace a map
	known atomic.Pointer[map[[sha256.Size]byte]*token]
	ids   atomic.Pointer[map[string]*token] // those of known, and those that a stream's credential names
}

type token struct {
	id        string
	principal Principal
	expires   time.Time    // zero: never
	used      atomic.Int64 // Unix milliseconds of the last use
	noted     int64        // what the database was told; Run's own
}

// NewTokens returns a verifier on the database, with the clock now.
func NewTokens(d *db.DB, now func() time.Time, log *slog.Logger) *Tokens {
	t := &Tokens{db: d, now: now, log: log}
	t.known.Store(&map[[sha256.Size]byte]*token{})
	t.ids.Store(&map[string]*token{})
	return t
}

// Verify returns the principal of a token. The error is ErrToken for a bad one, and another where the
// database could not be asked.
func (ts *Tokens) Verify(ctx context.Context, secret string) (*Principal, error) {
	if len(secret) > 256 || !strings.HasPrefix(secret, db.TokenPrefix) {
		return nil, ErrToken
	}
	hash := db.HashToken(secret)
	t := (*ts.known.Load())[hash]
	if t == nil {
		var err error
		if t, err = ts.learn(ctx, hash); err != nil {
			return nil, err
		}
	}
	now := ts.now()
	if t.expired(now) {
		return nil, ErrToken
	}
	if ms := now.UnixMilli(); t.used.Load() < ms-1000 { // once a second is enough, and spares a shared cache line
		t.used.Store(ms)
	}
	return &t.principal, nil
}

func (t *token) expired(now time.Time) bool { return !t.expires.IsZero() && !now.Before(t.expires) }

// Good tells whether the token with the id is neither revoked nor expired. It asks nobody: the token was
// verified by this process, or found good by Check.
func (ts *Tokens) Good(id string) bool {
	t := (*ts.ids.Load())[id]
	return t != nil && !t.expired(ts.now())
}

// Check is Good for a token that this process may not know yet, which costs one indexed read. The error is
// ErrToken for one that is not good, and another where the database could not be asked.
func (ts *Tokens) Check(ctx context.Context, id string) error {
	if ts.Good(id) {
		return nil
	}
	t, err := ts.usable(ts.db.TokenByID(ctx, id))
	if err != nil {
		return err
	}
	ts.mu.Lock()
	defer ts.mu.Unlock()
	ts.remember(t)
	return nil
}

// remember keeps a token in mind by its id; the caller holds mu.
func (ts *Tokens) remember(t *token) {
	ids := maps.Clone(*ts.ids.Load())
	ids[t.id] = t
	ts.ids.Store(&ids)
}

// usable is what was found of a token, if that is good.
func (ts *Tokens) usable(row db.Token, err error) (*token, error) {
	if errors.Is(err, flags.ErrNotFound) {
		return nil, ErrToken
	}
	if err != nil {
		return nil, err
	}
	if !row.Usable(ts.now()) {
		return nil, ErrToken
	}
	role, err := ParseRole(row.Role)
	if err != nil {
		return nil, fmt.Errorf("token %s: %w", row.ID, err)
	}
	t := &token{id: row.ID, expires: row.ExpiresAt,
		principal: Principal{Name: "token:" + row.Name, Role: role, Environment: row.Environment, Via: flags.ViaToken, Consumer: "token " + row.Name, TokenID: row.ID, Until: row.ExpiresAt}}
	if !row.LastUsedAt.IsZero() {
		t.used.Store(row.LastUsedAt.UnixMilli())
		t.noted = row.LastUsedAt.UnixMilli()
	}
	return t, nil
}

// learn looks a token up and remembers it if it is good.
func (ts *Tokens) learn(ctx context.Context, hash [sha256.Size]byte) (*token, error) {
	t, err := ts.usable(ts.db.TokenByHash(ctx, hash))
	if err != nil {
		return nil, err
	}
	// One that is revoked meanwhile is remembered for one more tick of Run.
	ts.mu.Lock()
	defer ts.mu.Unlock()
	next := maps.Clone(*ts.known.Load())
	if other := next[hash]; other != nil {
		return other, nil
	}
	next[hash] = t
	ts.known.Store(&next)
	ts.remember(t)
	return t, nil
}

// Run forgets revoked tokens, within a second also those revoked by another process, and notes last
// uses, until ctx ends; then it notes them once more.
func (ts *Tokens) Run(ctx context.Context) {
	revocations := time.NewTicker(revocationInterval)
	defer revocations.Stop()
	uses := time.NewTicker(lastUseInterval)
	defer uses.Stop()
	told := "" // of what goes wrong each time
	for {
		var err error
		select {
		case <-revocations.C:
			err = ts.forgetRevoked(ctx)
		case <-uses.C:
			err = ts.noteUses(ctx)
		case <-ctx.Done():
			if err := ts.noteUses(context.WithoutCancel(ctx)); err != nil {
				ts.log.Error("last use of tokens not noted", "error", err)
			}
			return
		}
		if err == nil {
			told = ""
		} else if ctx.Err() == nil && err.Error() != told {
			told = err.Error()
			ts.log.Error("tokens not brought up to date", "error", err)
		}
	}
}

func (ts *Tokens) forgetRevoked(ctx context.Context) error {
	if len(*ts.ids.Load()) == 0 {
		return nil
	}
	revoked, err := ts.db.RevokedTokens(ctx)
	if err != nil {
		return err
	}
	now := ts.now()
	gone := func(t *token) bool { return revoked[t.id] || t.expired(now) }
	for _, t := range *ts.ids.Load() {
		if gone(t) {
			noted := ts.noteUses(ctx) // else the last use would go with the token
			ts.forget(gone)
			return noted
		}
	}
	return nil
}

// forget makes tokens unknown.
func (ts *Tokens) forget(gone func(*token) bool) {
	ts.mu.Lock()
	defer ts.mu.Unlock()
	known, ids := maps.Clone(*ts.known.Load()), maps.Clone(*ts.ids.Load())
	maps.DeleteFunc(known, func(_ [sha256.Size]byte, t *token) bool { return gone(t) })
	maps.DeleteFunc(ids, func(_ string, t *token) bool { return gone(t) })
	ts.known.Store(&known)
	ts.ids.Store(&ids)
}

// Forget makes a token that was revoked just now unknown at once.
func (ts *Tokens) Forget(id string) { ts.forget(func(t *token) bool { return t.id == id }) }

// Used returns the Consumers of the tokens that were used since the start and can still be.
func (ts *Tokens) Used() map[string]bool {
	used := map[string]bool{}
	for _, t := range *ts.known.Load() {
		used[t.principal.Consumer] = true
	}
	return used
}

func (ts *Tokens) noteUses(ctx context.Context) error {
	used := map[string]time.Time{}
	for _, t := range *ts.known.Load() {
		if ms := t.used.Load(); ms > t.noted {
			used[t.id] = time.UnixMilli(ms)
		}
	}
	if len(used) == 0 {
		return nil
	}
	if err := ts.db.TouchTokens(ctx, used); err != nil {
		return err
	}
	for _, t := range *ts.known.Load() {
		if at, told := used[t.id]; told {
			t.noted = at.UnixMilli()
		}
	}
	return nil
}
