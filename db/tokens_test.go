package db

import (
	"bytes"
	"crypto/sha256"
	"errors"
	"os"
	"reflect"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/dezky/platform-api/flags"
)

func TestTokenLife(t *testing.T) {
	c := newClock()
	d := openTest(t, Options{Now: c.now, Rand: seededRand()})
	importTest(t, d, world)
	ctx := t.Context()
	before := d.Current()

	secret, ci, err := d.CreateToken(ctx, ops, NewToken{Name: "ci", Role: "evaluate", Environment: "staging", Expires: 36 * time.Hour})
	if err != nil {
		t.Fatal(err)
	}
	want := Token{ID: "4cf4929ef54f", Name: "ci", Role: "evaluate", Environment: "staging", CreatedAt: c.now(), CreatedBy: "ops@dezky.example",
		ExpiresAt: c.now().Add(36 * time.Hour)}
	if ci != want {
		t.Errorf("CreateToken = %+v\nwant %+v", ci, want)
	}
	if !regexp.MustCompile(`^dzk_[A-Za-z0-9_-]{43}$`).MatchString(secret) {
		t.Errorf("the secret %q is not dzk_ and 32 bytes in base64", secret)
	}
	if got, want := newest(t, d), `#7 03:04:05 r1 ops@dezky.example: created token ci
  environment: null -> "staging"
  expiresAt: null -> "2026-01-03T15:04:05Z"
  role: null -> "evaluate"`; got != want {
		t.Errorf("the log has\n%s\nwant\n%s", got, want)
	}

	c.advance(time.Second)
	other, forever, err := d.CreateToken(ctx, By{Actor: "system:cli"}, NewToken{Name: "backup", Role: "read"})
	if err != nil {
		t.Fatal(err)
	}
	if got, want := newest(t, d), `#8 03:04:06 r1 system:cli: created token backup
  environment: null -> null
  expiresAt: null -> null
  role: null -> "read"`; got != want {
		t.Errorf("the log has\n%s\nwant\n%s", got, want)
	}
	if other == secret || forever.ID == ci.ID {
		t.Errorf("two tokens are %s %s and %s %s, want different ones", ci.ID, secret, forever.ID, other)
	}

	if got, want := must(d.Tokens(ctx))(t), []Token{ci, forever}; !reflect.DeepEqual(got, want) {
		t.Errorf("Tokens() = %+v\nwant %+v", got, want)
	}
	for secret, want := range map[string]Token{secret: ci, other: forever} {
		if got, err := d.TokenByHash(ctx, HashToken(secret)); got != want || err != nil {
			t.Errorf("TokenByHash = %+v, %v\nwant %+v", got, err, want)
		}
	}
	if _, err := d.TokenByHash(ctx, HashToken("dzk_unknown")); !errors.Is(err, flags.ErrNotFound) {
		t.Errorf("TokenByHash of an unknown token: %v, want ErrNotFound", err)
	}

	// Revoked once; a second time it stays as it was.
	c.advance(time.Second)
	revoked, err := d.RevokeToken(ctx, ops, ci.ID)
	ci.RevokedAt = c.now()
	if revoked != ci || err != nil {
		t.Errorf("RevokeToken = %+v, %v\nwant %+v", revoked, err, ci)
	}
	if got, want := newest(t, d), `#9 03:04:07 r1 ops@dezky.example: revoked token ci`; got != want {
		t.Errorf("the log has %s, want %s", got, want)
	}
	c.advance(time.Second)
	if again, err := d.RevokeToken(ctx, ops, ci.ID); again != ci || err != nil {
		t.Errorf("RevokeToken again = %+v, %v\nwant %+v", again, err, ci)
	}
	if _, err := d.RevokeToken(ctx, ops, "nothing"); outcome(err) != `not found: token "nothing": not found` {
		t.Errorf("RevokeToken of an unknown id: %v, want ErrNotFound", err)
	}
	if got, want := len(history(t, d, HistoryFilter{})), 9; got != want {
		t.Errorf("%d log entries, want %d", got, want)
	}
	if got, want := must(d.RevokedTokens(ctx))(t), map[string]bool{ci.ID: true}; !reflect.DeepEqual(got, want) {
		t.Errorf("RevokedTokens() = %v, want %v", got, want)
	}

	// A name stays taken, because the history speaks of it.
	if _, _, err := d.CreateToken(ctx, ops, NewToken{Name: "ci", Role: "read"}); !errors.Is(err, flags.ErrConflict) {
		t.Errorf("a revoked token's name again: %v, want ErrConflict", err)
	}

	if d.Current() != before {
		t.Errorf("tokens published a snapshot of revision %d, want %d to stay", d.Current().Revision(), before.Revision())
	}
	d = reopen(t, d)
	same(t, d.Current(), before)
	if got, want := must(d.Tokens(ctx))(t), []Token{ci, forever}; !reflect.DeepEqual(got, want) {
		t.Errorf("Tokens() after reopening = %+v\nwant %+v", got, want)
	}
}

func TestTokenRefusals(t *testing.T) {
	d := openTest(t, Options{})
	ctx := t.Context()
	if _, _, err := d.CreateToken(ctx, ops, NewToken{Name: "taken", Role: "read"}); err != nil {
		t.Fatal(err)
	}
	tests := []struct {
		name string
		in   NewToken
		want string
	}{
		{"everything wrong", NewToken{Name: "a b", Role: "admin", Environment: "moon", Expires: -1}, "invalid: name, role, env, expires"},
		{"nothing given", NewToken{}, "invalid: name, role"},
		{"a long name", NewToken{Name: strings.Repeat("a", 65), Role: "read"}, "invalid: name"},
		{"no member's role", NewToken{Name: "a", Role: "member"}, "invalid: role"},
		{"no nobody's role", NewToken{Name: "a", Role: "nobody"}, "invalid: role"},
		{"taken", NewToken{Name: "taken", Role: "operator"}, `conflict: a token named "taken" exists or existed; a name is not used twice, because the history names its token by it`},
		{"the longest name", NewToken{Name: strings.Repeat("a", 64), Role: "operator"}, "ok"},
		{"another case is another name", NewToken{Name: "Taken", Role: "evaluate", Environment: "production"}, "ok"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			secret, token, err := d.CreateToken(ctx, ops, tt.in)
			if got := outcome(err); got != tt.want {
				t.Errorf("CreateToken(%+v): %s, want %s", tt.in, got, tt.want)
			}
			if made := secret != ""; made != (err == nil) || (token == Token{}) != (err != nil) {
				t.Errorf("CreateToken(%+v) = %q, %+v, %v, want a token or an error", tt.in, secret, token, err)
			}
		})
	}
	if got, want := len(must(d.Tokens(ctx))(t)), 3; got != want {
		t.Errorf("%d tokens, want %d", got, want)
	}
}

func TestUsable(t *testing.T) {
	now := newClock().now()
	tests := []struct {
		name string
		in   Token
		want bool
	}{
		{"for ever", Token{}, true},
		{"until later", Token{ExpiresAt: now.Add(time.Millisecond)}, true},
		{"until now", Token{ExpiresAt: now}, false},
		{"until before", Token{ExpiresAt: now.Add(-time.Hour)}, false},
		{"revoked", Token{RevokedAt: now}, false},
		{"revoked before it expires", Token{RevokedAt: now, ExpiresAt: now.Add(time.Hour)}, false},
	}
	for _, tt := range tests {
		if got := tt.in.Usable(now); got != tt.want {
			t.Errorf("%s: Usable() = %t, want %t", tt.name, got, tt.want)
		}
	}
}

// A secret is nowhere in the files, neither in the WAL nor in the database.
func TestSecretsAreNotKept(t *testing.T) {
	d := openTest(t, Options{})
	ctx := t.Context()
	var secrets []string
	for _, name := range []string{"a", "b", "c"} {
		secret, token, err := d.CreateToken(ctx, ops, NewToken{Name: name, Role: "read"})
		if err != nil {
			t.Fatal(err)
		}
		secrets = append(secrets, secret)
		must(d.RevokeToken(ctx, ops, token.ID))(t)
	}
	look := func(file string) {
		t.Helper()
		data := must(os.ReadFile(d.path + file))(t)
		for _, secret := range secrets {
			if hash := HashToken(secret); !bytes.Contains(data, hash[:]) {
				t.Errorf("%s does not hold the hash of a token, so looking for the token in it means nothing", File+file)
			}
			if random := strings.TrimPrefix(secret, TokenPrefix); bytes.Contains(data, []byte(random)) {
				t.Errorf("%s holds the token %s", File+file, secret)
			}
		}
		if bytes.Contains(data, []byte(TokenPrefix)) {
			t.Errorf("%s holds something that begins with %s", File+file, TokenPrefix)
		}
	}
	look("-wal") // only this one: opening the live database beside SQLite would drop its locks
	closeTest(t, d)
	look("")
}

func TestTouchTokens(t *testing.T) {
	c := newClock()
	d := openTest(t, Options{Now: c.now})
	ctx := t.Context()
	secret, token, err := d.CreateToken(ctx, ops, NewToken{Name: "ci", Role: "read"})
	if err != nil {
		t.Fatal(err)
	}
	before, log := d.Current(), history(t, d, HistoryFilter{})
	used := func() time.Time { return must(d.TokenByHash(ctx, HashToken(secret)))(t).LastUsedAt }
	if got := used(); !got.IsZero() {
		t.Errorf("last used at %v, want never", got)
	}
	for _, tt := range []struct {
		name string
		at   time.Duration
		want time.Duration
	}{
		{"first", 10 * time.Second, 10 * time.Second},
		{"later", 20 * time.Second, 20 * time.Second},
		{"earlier, told late", 15 * time.Second, 20 * time.Second},
		{"the same", 20 * time.Second, 20 * time.Second},
		{"later still", 21 * time.Second, 21 * time.Second},
	} {
		if err := d.TouchTokens(ctx, map[string]time.Time{token.ID: c.now().Add(tt.at), "gone": c.now()}); err != nil {
			t.Fatalf("%s: %v", tt.name, err)
		}
		if got, want := used(), c.now().Add(tt.want); !got.Equal(want) {
			t.Errorf("%s: last used at %v, want %v", tt.name, got, want)
		}
	}
	if d.Current() != before {
		t.Error("a last use published a snapshot")
	}
	sameLog(t, d, log)
}

// The command makes and revokes tokens beside a running server, which knows at once.
func TestTokensBeside(t *testing.T) {
	d := openTest(t, Options{})
	importTest(t, d, world)
	ctx := t.Context()
	command := beside(t, d)
	secret, token, err := command.CreateToken(ctx, By{Actor: "system:cli"}, NewToken{Name: "ci", Role: "read", Environment: "staging"})
	if err != nil {
		t.Fatal(err)
	}
	if got, err := d.TokenByHash(ctx, HashToken(secret)); got != token || err != nil {
		t.Errorf("the server knows the token as %+v, %v, want %+v", got, err, token)
	}
	must(command.RevokeToken(ctx, By{Actor: "system:cli"}, token.ID))(t)
	if got, err := d.RevokedTokens(ctx); !got[token.ID] || err != nil {
		t.Errorf("the server knows %v as revoked, %v, want the token among them", got, err)
	}
	if command.Current() != nil {
		t.Error("a database opened beside has a snapshot, want none")
	}
	// The server goes on: tokens took no revision.
	must(d.CreateFlag(ctx, ops, newFlag(t, `{"key": "search"}`)))(t)
	if got, want := d.Current().Revision(), int64(2); got != want {
		t.Errorf("revision %d, want %d", got, want)
	}
	if got, want := export(t, command), export(t, d); got != want {
		t.Errorf("beside, the registry is\n%s\nwant\n%s", got, want)
	}
}

func TestHashToken(t *testing.T) {
	if got, want := HashToken("dzk_x"), sha256.Sum256([]byte("dzk_x")); got != want {
		t.Errorf("HashToken = %x, want %x", got, want)
	}
}
