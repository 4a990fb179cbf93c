package auth

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"reflect"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/dezky/platform-api/db"
	"github.com/dezky/platform-api/db/dbtest"
	"github.com/dezky/platform-api/flags"
)

var ops = db.By{Actor: "ops@dezky.example"}

func newTokens(d *db.DB, now func() time.Time) *Tokens {
	return NewTokens(d, now, slog.New(slog.NewTextHandler(io.Discard, nil)))
}

// create makes a token and returns its secret and id.
func create(t testing.TB, d *db.DB, n db.NewToken) (secret, id string) {
	t.Helper()
	secret, token, err := d.CreateToken(t.Context(), ops, n)
	if err != nil {
		t.Fatal(err)
	}
	return secret, token.ID
}

// lastUse is what the database knows of a token's last use.
func lastUse(t testing.TB, d *db.DB, secret string) time.Time {
	t.Helper()
	token, err := d.TokenByHash(t.Context(), db.HashToken(secret))
	if err != nil {
		t.Fatal(err)
	}
	return token.LastUsedAt
}

func known(ts *Tokens) int { return len(*ts.known.Load()) }

func TestVerify(t *testing.T) {
	now := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	clock := func() time.Time { return now }
	d := dbtest.OpenAt(t, t.TempDir(), clock)
	operator, operatorID := create(t, d, db.NewToken{Name: "deploy", Role: "operator"})
	reader, readerID := create(t, d, db.NewToken{Name: "dash", Role: "read", Environment: "staging"})
	short, shortID := create(t, d, db.NewToken{Name: "short", Role: "evaluate", Expires: time.Minute})
	old, _ := create(t, d, db.NewToken{Name: "old", Role: "evaluate", Expires: time.Second})
	revoked, id := create(t, d, db.NewToken{Name: "revoked", Role: "operator"})
	if _, err := d.RevokeToken(t.Context(), ops, id); err != nil {
		t.Fatal(err)
	}
	now = now.Add(time.Second)
	tests := []struct {
		name   string
		secret string
		want   Principal // empty: ErrToken
		known  int       // tokens remembered then
	}{
		{"empty", "", Principal{}, 0},
		{"only a prefix", "dzk_", Principal{}, 0},
		{"unknown", "dzk_" + strings.Repeat("A", 43), Principal{}, 0},
		{"another prefix", "DZK_" + strings.TrimPrefix(operator, "dzk_"), Principal{}, 0},
		{"a part of one", operator[:len(operator)-1], Principal{}, 0},
		{"more than one", operator + "A", Principal{}, 0},
		{"too long to be one", "dzk_" + strings.Repeat("A", 17<<10), Principal{}, 0},
		{"revoked before it was seen", revoked, Principal{}, 0},
		{"expired before it was seen", old, Principal{}, 0},
		{"good", operator, Principal{Name: "token:deploy", Role: Operator, Via: flags.ViaToken, Consumer: "token deploy", TokenID: operatorID}, 1},
		{"good, for one environment", reader, Principal{Name: "token:dash", Role: Read, Environment: "staging", Via: flags.ViaToken, Consumer: "token dash", TokenID: readerID}, 2},
		{"good, for a while", short, Principal{Name: "token:short", Role: Evaluate, Via: flags.ViaToken, Consumer: "token short", TokenID: shortID, Until: now.Add(time.Minute - time.Second)}, 3},
	}
	ts := newTokens(d, clock)
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			for range 2 { // not seen before, and seen
				p, err := ts.Verify(t.Context(), tt.secret)
				switch {
				case tt.want.Name == "" && (p != nil || !errors.Is(err, ErrToken)):
					t.Errorf("Verify = %+v, %v, want ErrToken", p, err)
				case tt.want.Name != "" && (err != nil || !reflect.DeepEqual(*p, tt.want)):
					t.Errorf("Verify = %+v, %v, want %+v", p, err, tt.want)
				}
				if got := known(ts); got != tt.known {
					t.Errorf("%d tokens are remembered, want %d", got, tt.known)
				}
			}
		})
	}

	// One that was seen ends by the clock, and is forgotten then.
	for _, step := range []struct {
		at   time.Duration // after the token was made
		want error
	}{{time.Minute - time.Millisecond, nil}, {time.Minute, ErrToken}, {time.Hour, ErrToken}} {
		now = time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC).Add(step.at)
		if _, err := ts.Verify(t.Context(), short); err != step.want {
			t.Errorf("Verify after %v of a minute: %v, want %v", step.at, err, step.want)
		}
	}
	if err := ts.forgetRevoked(t.Context()); err != nil || known(ts) != 2 {
		t.Errorf("%d tokens are remembered, %v, want 2 without the expired one", known(ts), err)
	}
}

func TestVerifyWithoutDatabase(t *testing.T) {
	d := dbtest.Open(t)
	ts := newTokens(d, time.Now)
	seen, _ := create(t, d, db.NewToken{Name: "seen", Role: "read"})
	unseen, _ := create(t, d, db.NewToken{Name: "unseen", Role: "read"})
	if _, err := ts.Verify(t.Context(), seen); err != nil {
		t.Fatal(err)
	}
	if err := d.Close(); err != nil {
		t.Fatal(err)
	}
	if p, err := ts.Verify(t.Context(), seen); err != nil || p.Name != "token:seen" {
		t.Errorf("Verify of one seen before, without a database: %+v, %v, want it", p, err)
	}
	if p, err := ts.Verify(t.Context(), unseen); p != nil || err == nil || errors.Is(err, ErrToken) {
		t.Errorf("Verify of another: %+v, %v, want an error that is not ErrToken: nobody knows whether it is good", p, err)
	}
}

// A token that is revoked, by this process or beside it, is refused within one tick.
func TestRevocation(t *testing.T) {
	for _, where := range []string{"here", "beside"} {
		t.Run(where, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				dir := t.TempDir()
				d := dbtest.OpenAt(t, dir, time.Now)
				by := d
				if where == "beside" {
					second, err := db.OpenBeside(t.Context(), db.Options{Dir: dir, Environments: dbtest.Environments})
					if err != nil {
						t.Fatal(err)
					}
					defer second.Close()
					by = second
				}
				secret, id := create(t, by, db.NewToken{Name: "ci", Role: "read"})
				other, _ := create(t, by, db.NewToken{Name: "other", Role: "read"})
				ts := newTokens(d, time.Now)
				ctx, stop := context.WithCancel(t.Context())
				ended := make(chan struct{})
				go func() {
					defer close(ended)
					ts.Run(ctx)
				}()
				for _, s := range []string{secret, other} {
					if _, err := ts.Verify(ctx, s); err != nil {
						t.Fatal(err)
					}
				}
				time.Sleep(10 * time.Second) // of the bubble's clock: tokens that are good stay
				if p, err := ts.Verify(ctx, secret); err != nil || known(ts) != 2 {
					t.Errorf("before it is revoked: %+v, %v, with %d remembered, want both", p, err, known(ts))
				}
				used := time.Now()
				if _, err := by.RevokeToken(ctx, ops, id); err != nil {
					t.Fatal(err)
				}
				time.Sleep(revocationInterval)
				synctest.Wait()
				if p, err := ts.Verify(ctx, secret); err != ErrToken {
					t.Errorf("one tick after it was revoked: %+v, %v, want ErrToken", p, err)
				}
				if p, err := ts.Verify(ctx, other); err != nil || known(ts) != 1 {
					t.Errorf("the other token: %+v, %v, with %d remembered, want it alone", p, err, known(ts))
				}
				// Whoever revokes a token wants to know whether it was used before.
				if got := lastUse(t, d, secret); !got.Equal(used.Truncate(time.Millisecond)) {
					t.Errorf("the revoked token was last used at %v, want %v", got, used)
				}
				stop()
				<-ended
			})
		})
	}
}

// The last use comes into the database by and by, and by the end at the latest.
func TestLastUse(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := dbtest.OpenAt(t, t.TempDir(), time.Now)
		secret, _ := create(t, d, db.NewToken{Name: "ci", Role: "read"})
		idle, _ := create(t, d, db.NewToken{Name: "idle", Role: "read"})
		ts := newTokens(d, time.Now)
		ctx, stop := context.WithCancel(t.Context())
		ended := make(chan struct{})
		go func() {
			defer close(ended)
			ts.Run(ctx)
		}()
		use := func() time.Time {
			t.Helper()
			if _, err := ts.Verify(t.Context(), secret); err != nil {
				t.Fatal(err)
			}
			return time.Now().Truncate(time.Millisecond).UTC()
		}
		want := func(when string, want time.Time) {
			t.Helper()
			synctest.Wait()
			if got := lastUse(t, d, secret); !got.Equal(want) {
				t.Errorf("%s, it was last used at %v, want %v", when, got, want)
			}
		}
		want("before any use", time.Time{})
		first := use()
		want("right after a use", time.Time{})
		time.Sleep(lastUseInterval)
		want("an interval later", first)
		time.Sleep(7 * time.Second)
		second := use()
		time.Sleep(500 * time.Millisecond)
		use() // within the second: the same use
		time.Sleep(lastUseInterval)
		want("two intervals later", second)
		time.Sleep(2 * time.Second)
		last := use()
		want("before the end", second)
		stop()
		<-ended
		want("after the end", last)
		if got := lastUse(t, d, idle); !got.IsZero() {
			t.Errorf("a token that nobody used was last used at %v", got)
		}

		// Another process's later word stands, and a new verifier goes on from it.
		later := last.Add(time.Hour)
		token, err := d.TokenByHash(t.Context(), db.HashToken(secret))
		if err != nil {
			t.Fatal(err)
		}
		if err := d.TouchTokens(t.Context(), map[string]time.Time{token.ID: later}); err != nil {
			t.Fatal(err)
		}
		ts = newTokens(d, time.Now)
		use()
		if err := ts.noteUses(t.Context()); err != nil {
			t.Fatal(err)
		}
		want("after a use before the last one", later)
	})
}

// What could not be noted is noted when the database is back.
func TestLastUseIsKeptWhileTheDatabaseIsBusy(t *testing.T) {
	now := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	d := dbtest.OpenAt(t, t.TempDir(), func() time.Time { return now })
	secret, _ := create(t, d, db.NewToken{Name: "ci", Role: "read"})
	ts := newTokens(d, func() time.Time { return now })
	if _, err := ts.Verify(t.Context(), secret); err != nil {
		t.Fatal(err)
	}
	cancelled, cancel := context.WithCancel(t.Context())
	cancel()
	if err := ts.noteUses(cancelled); !errors.Is(err, context.Canceled) {
		t.Fatalf("noteUses = %v, want context.Canceled", err)
	}
	if err := ts.noteUses(t.Context()); err != nil {
		t.Fatal(err)
	}
	if got := lastUse(t, d, secret); !got.Equal(now) {
		t.Errorf("last used at %v, want %v", got, now)
	}
}

// Verifying, learning, revoking and noting at once; the race detector watches.
func TestVerifyAtOnce(t *testing.T) {
	d := dbtest.Open(t)
	ts := newTokens(d, time.Now)
	const n = 8
	secrets, ids := make([]string, n), make([]string, n)
	for i := range secrets {
		secrets[i], ids[i] = create(t, d, db.NewToken{Name: fmt.Sprint("no-", i), Role: "evaluate"})
	}
	stop := make(chan struct{})
	var background, verifying sync.WaitGroup
	background.Go(func() {
		for {
			if err := errors.Join(ts.forgetRevoked(t.Context()), ts.noteUses(t.Context())); err != nil {
				t.Error(err)
			}
			select {
			case <-stop:
				return
			default:
			}
		}
	})
	for g := range 16 {
		verifying.Go(func() {
			for i := range 200 {
				k := (g + i) % n
				p, err := ts.Verify(t.Context(), secrets[k])
				if k < n/2 && (err != nil || p.Name != fmt.Sprint("token:no-", k)) {
					t.Errorf("Verify of token %d: %+v, %v", k, p, err)
				}
				if k >= n/2 && err != nil && err != ErrToken { // is being revoked
					t.Errorf("Verify of token %d: %v, want none or ErrToken", k, err)
				}
				if _, err := ts.Verify(t.Context(), fmt.Sprintf("dzk_%d-%d", g, i)); err != ErrToken {
					t.Errorf("Verify of an unknown token: %v, want ErrToken", err)
				}
			}
		})
	}
	for _, id := range ids[n/2:] {
		if _, err := d.RevokeToken(t.Context(), ops, id); err != nil {
			t.Error(err)
		}
	}
	verifying.Wait()
	close(stop)
	background.Wait()
	if err := ts.forgetRevoked(t.Context()); err != nil {
		t.Fatal(err)
	}
	for k, secret := range secrets {
		if _, err := ts.Verify(t.Context(), secret); (err == nil) != (k < n/2) {
			t.Errorf("Verify of token %d at the end: %v", k, err)
		}
	}
	if got := known(ts); got != n/2 {
		t.Errorf("%d tokens are remembered, want %d", got, n/2)
	}
}

// Run says what went wrong, and goes on.
func TestRunLogs(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := dbtest.OpenAt(t, t.TempDir(), time.Now)
		secret, _ := create(t, d, db.NewToken{Name: "ci", Role: "read"})
		var out strings.Builder
		ts := NewTokens(d, time.Now, slog.New(slog.NewTextHandler(&out, nil)))
		if _, err := ts.Verify(t.Context(), secret); err != nil {
			t.Fatal(err)
		}
		if err := d.Close(); err != nil {
			t.Fatal(err)
		}
		ctx, stop := context.WithTimeout(t.Context(), 2*revocationInterval+time.Millisecond)
		defer stop()
		ts.Run(ctx)
		if got := strings.Count(out.String(), "tokens not brought up to date"); got != 1 {
			t.Errorf("logged %d times that tokens are not up to date, want once for the same cause:\n%s", got, out.String())
		}
		if got := strings.Count(out.String(), "last use of tokens not noted"); got != 1 {
			t.Errorf("logged %d times that the last use is not noted, want 1:\n%s", got, out.String())
		}
		if strings.Contains(out.String(), db.TokenPrefix) {
			t.Errorf("the log names a token:\n%s", out.String())
		}
	})
}

func BenchmarkVerifyKnown(b *testing.B) {
	d := dbtest.Open(b)
	ts := newTokens(d, time.Now)
	secret, _ := create(b, d, db.NewToken{Name: "ci", Role: "evaluate"})
	for i := range 100 {
		other, _ := create(b, d, db.NewToken{Name: fmt.Sprint("other-", i), Role: "evaluate"})
		if _, err := ts.Verify(b.Context(), other); err != nil {
			b.Fatal(err)
		}
	}
	ctx := b.Context()
	b.Run("one", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			if _, err := ts.Verify(ctx, secret); err != nil {
				b.Fatal(err)
			}
		}
	})
	b.Run("parallel", func(b *testing.B) {
		b.ReportAllocs()
		b.RunParallel(func(pb *testing.PB) {
			for pb.Next() {
				if _, err := ts.Verify(ctx, secret); err != nil {
					b.Fatal(err)
				}
			}
		})
	})
}

func BenchmarkVerifyUnknown(b *testing.B) {
	d := dbtest.Open(b)
	ts := newTokens(d, time.Now)
	secret := db.TokenPrefix + strings.Repeat("A", 43)
	ctx := b.Context()
	b.ReportAllocs()
	for b.Loop() {
		if _, err := ts.Verify(ctx, secret); err != ErrToken {
			b.Fatal(err)
		}
	}
}
