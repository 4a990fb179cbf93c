package db

import (
	"context"
	"crypto/sha256"
	"errors"
	"reflect"
	"testing"
	"time"

	"github.com/dezky/platform-api/flags"
)

func hashOf(id string) [sha256.Size]byte { return sha256.Sum256([]byte(id)) }

func putSession(t testing.TB, d *DB, s Session) {
	t.Helper()
	if s.Data == "" {
		s.Data = "{}"
	}
	if err := d.PutSession(t.Context(), s); err != nil {
		t.Fatal(err)
	}
}

// sessionIDs are those of the ids whose sessions are there.
func sessionIDs(t testing.TB, d *DB, ids ...string) string {
	t.Helper()
	there := ""
	for _, id := range ids {
		switch _, err := d.Session(t.Context(), hashOf(id)); {
		case err == nil:
			there += id
		case !errors.Is(err, flags.ErrNotFound):
			t.Fatal(err)
		}
	}
	return there
}

func TestSessionRoundTrip(t *testing.T) {
	c := newClock()
	d := openTest(t, Options{Now: c.now})
	want := Session{Hash: hashOf("a"), Data: `{"name":"ops"}`, CreatedAt: c.now(), SeenAt: c.now().Add(time.Minute),
		Issuer: "https://id.example/", Subject: "s", SID: "sid", CheckedAt: c.now().Add(2 * time.Minute), Sealed: []byte{0, 1, 255}}
	putSession(t, d, want)
	if got := must(d.Session(t.Context(), want.Hash))(t); !reflect.DeepEqual(got, want) {
		t.Errorf("Session() = %+v\nwant %+v", got, want)
	}
	byLink := Session{Hash: hashOf("b"), Data: "{}", CreatedAt: c.now(), SeenAt: c.now(), CheckedAt: c.now()}
	putSession(t, d, byLink)
	if got := must(d.Session(t.Context(), byLink.Hash))(t); !reflect.DeepEqual(got, byLink) {
		t.Errorf("Session() = %+v\nwant %+v", got, byLink)
	}
	if _, err := d.Session(t.Context(), hashOf("c")); !errors.Is(err, flags.ErrNotFound) {
		t.Errorf("Session() of none = %v, want %v", err, flags.ErrNotFound)
	}
	before := d.Current()
	if err := d.PutSession(t.Context(), Session{Hash: hashOf("d"), Data: "no JSON"}); err == nil {
		t.Error("PutSession took data that is no JSON")
	}
	if d.Current() != before {
		t.Error("a session made a new snapshot")
	}
}

func TestSessionUseIsNoted(t *testing.T) {
	c := newClock()
	d := openTest(t, Options{Now: c.now})
	want := Session{Hash: hashOf("a"), Data: `{"role":"operator"}`, CreatedAt: c.now(), SeenAt: c.now(), CheckedAt: c.now(), Issuer: "i", Subject: "s"}
	putSession(t, d, want)
	want.SeenAt = c.now().Add(time.Minute)
	if err := d.TouchSession(t.Context(), want.Hash, want.SeenAt); err != nil {
		t.Fatal(err)
	}
	want.CheckedAt, want.Data = c.now().Add(5*time.Minute), `{"role":"read"}`
	if err := d.CheckSession(t.Context(), want.Hash, want.Data, want.CheckedAt); err != nil {
		t.Fatal(err)
	}
	if got := must(d.Session(t.Context(), want.Hash))(t); !reflect.DeepEqual(got, want) {
		t.Errorf("Session() = %+v\nwant %+v", got, want)
	}
}

// What is noted late about a session that has ended must not bring it back.
func TestSessionStaysEnded(t *testing.T) {
	c := newClock()
	d := openTest(t, Options{Now: c.now})
	for name, note := range map[string]func(hash [sha256.Size]byte) error{
		"TouchSession": func(h [sha256.Size]byte) error { return d.TouchSession(t.Context(), h, c.now()) },
		"CheckSession": func(h [sha256.Size]byte) error { return d.CheckSession(t.Context(), h, "{}", c.now()) },
	} {
		putSession(t, d, Session{Hash: hashOf("a"), CreatedAt: c.now(), SeenAt: c.now()})
		if err := d.DeleteSession(t.Context(), hashOf("a")); err != nil {
			t.Fatal(err)
		}
		if err := note(hashOf("a")); err != nil {
			t.Errorf("%s of an ended session: %v", name, err)
		}
		if sessionIDs(t, d, "a") != "" {
			t.Errorf("%s brought the session back", name)
		}
	}
	if err := d.DeleteSession(t.Context(), hashOf("a")); err != nil {
		t.Errorf("DeleteSession of none: %v", err)
	}
}

func TestDeleteSessionsOf(t *testing.T) {
	const all = "abcdef"
	for _, test := range []struct {
		issuer, subject, sid string
		left                 string
		n                    int64
	}{
		{"i", "", "1", "bcdef", 1},
		{"i", "s", "1", "bcdef", 1},
		{"i", "s", "", "cdef", 2},
		{"i", "other", "1", all, 0},
		{"i", "s", "9", all, 0},
		{"i", "third", "9", "abcdf", 1}, // its sid is not known
		{"j", "", "9", all, 0},
		{"j", "s", "", "abcef", 1},
		{"j", "", "1", "abcef", 1},
		{"", "s", "", all, 0},
		{"i%", "s", "", all, 0},
	} {
		d := openTest(t, Options{})
		for id, s := range map[string]Session{
			"a": {Issuer: "i", Subject: "s", SID: "1"}, "b": {Issuer: "i", Subject: "s", SID: "2"}, "c": {Issuer: "i", Subject: "other", SID: "3"},
			"d": {Issuer: "j", Subject: "s", SID: "1"}, "e": {Issuer: "i", Subject: "third"}, "f": {}, // by a link
		} {
			s.Hash = hashOf(id)
			putSession(t, d, s)
		}
		n := must(d.DeleteSessionsOf(t.Context(), test.issuer, test.subject, test.sid))(t)
		if left := sessionIDs(t, d, "a", "b", "c", "d", "e", "f"); n != test.n || left != test.left {
			t.Errorf("DeleteSessionsOf(%q, %q, %q) = %d and leaves %s, want %d and %s", test.issuer, test.subject, test.sid, n, left, test.n, test.left)
		}
	}
	d := openTest(t, Options{})
	putSession(t, d, Session{Hash: hashOf("f")})
	for _, issuer := range []string{"", "i"} {
		if n, err := d.DeleteSessionsOf(t.Context(), issuer, "", ""); err == nil || n != 0 || sessionIDs(t, d, "f") != "f" {
			t.Errorf("DeleteSessionsOf(%q) of nobody = %d, %v, want an error", issuer, n, err)
		}
	}
}

func TestDeleteOldSessions(t *testing.T) {
	c := newClock()
	d := openTest(t, Options{Now: c.now})
	now := c.now()
	for id, ages := range map[string][2]time.Duration{"a": {8 * time.Hour, time.Minute}, "b": {time.Hour, 30 * time.Minute}, "c": {time.Hour, time.Minute}} {
		putSession(t, d, Session{Hash: hashOf(id), CreatedAt: now.Add(-ages[0]), SeenAt: now.Add(-ages[1])})
	}
	if err := d.DeleteOldSessions(t.Context(), now.Add(-29*time.Minute), now.Add(-8*time.Hour)); err != nil {
		t.Fatal(err)
	}
	if got := sessionIDs(t, d, "a", "b", "c"); got != "ac" {
		t.Errorf("left are %s, want ac", got)
	}
	if err := d.DeleteOldSessions(t.Context(), now.Add(-29*time.Minute), now.Add(-7*time.Hour)); err != nil {
		t.Fatal(err)
	}
	if got := sessionIDs(t, d, "a", "b", "c"); got != "c" {
		t.Errorf("left are %s, want c", got)
	}
}

func TestSessionOfACancelledRequest(t *testing.T) {
	d := openTest(t, Options{})
	putSession(t, d, Session{Hash: hashOf("a")})
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := d.Session(ctx, hashOf("a")); !errors.Is(err, context.Canceled) || errors.Is(err, flags.ErrNotFound) {
		t.Errorf("Session() of a cancelled request: %v, want %v", err, context.Canceled)
	}
}
