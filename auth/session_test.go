package auth_test

import (
	"bytes"
	"context"
	"database/sql"
	"errors"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/dezky/platform-api/auth"
	"github.com/dezky/platform-api/db"
	"github.com/dezky/platform-api/db/dbtest"
)

// clock is a time that a test moves.
type clock struct{ now time.Time }

func (c *clock) time() time.Time { return c.now }

func key(fill byte) []byte { return bytes.Repeat([]byte{fill}, auth.SessionKeySize) }

func sessions(t *testing.T, d *db.DB, c *clock, secure bool, keys ...[]byte) *auth.Sessions {
	t.Helper()
	s, err := auth.NewSessions(auth.SessionOptions{DB: d, Keys: keys, Secure: secure, Now: c.time, Log: slog.New(slog.NewJSONHandler(io.Discard, nil))})
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// signIn returns the cookie of a new session; with are the cookies that the browser had.
func signIn(t *testing.T, s *auth.Sessions, p auth.Principal, with ...*http.Cookie) *http.Cookie {
	t.Helper()
	w := httptest.NewRecorder()
	if err := s.SignIn(w, request(with...), p); err != nil {
		t.Fatal(err)
	}
	cookies := w.Result().Cookies()
	return cookies[len(cookies)-1]
}

func request(cookies ...*http.Cookie) *http.Request {
	r := httptest.NewRequest(http.MethodGet, "/operator/flags", nil)
	for _, c := range cookies {
		r.AddCookie(c)
	}
	return r
}

// who is the name of the session's principal, or "".
func who(t *testing.T, s *auth.Sessions, cookies ...*http.Cookie) string {
	t.Helper()
	found, err := s.Find(request(cookies...))
	if err != nil {
		t.Fatal(err)
	}
	if found == nil {
		return ""
	}
	return found.Principal.Name + " " + found.Principal.Role.String()
}

var maja = auth.Principal{Name: "maja@dezky.example", Role: auth.Read}

func TestSessionCookie(t *testing.T) {
	for _, test := range []struct {
		secure bool
		name   string
	}{{true, "__Host-dezky-session"}, {false, "dezky-session"}} {
		c := signIn(t, sessions(t, dbtest.Open(t), &clock{time.Now()}, test.secure, key(1)), maja)
		if c.Name != test.name || c.Secure != test.secure || !c.HttpOnly || c.SameSite != http.SameSiteLaxMode || c.Path != "/" || c.Domain != "" {
			t.Errorf("cookie on https=%t = %+v, want %s, HttpOnly, SameSite=Lax, Path=/", test.secure, c, test.name)
		}
	}
}

func TestSessionLasts(t *testing.T) {
	c := &clock{time.Now()}
	s := sessions(t, dbtest.Open(t), c, false, key(1))
	cookie := signIn(t, s, maja)
	begin := c.now
	for c.now.Sub(begin) < auth.SessionMost-25*time.Minute { // in use, it lasts
		c.now = c.now.Add(20 * time.Minute)
		if got := who(t, s, cookie); got != "maja@dezky.example read" {
			t.Fatalf("after %v in use: %q, want the viewer", c.now.Sub(begin), got)
		}
	}
	c.now = begin.Add(auth.SessionMost)
	if got := who(t, s, cookie); got != "" {
		t.Errorf("after %v: %q, want nobody", auth.SessionMost, got)
	}

	cookie = signIn(t, s, maja)
	c.now = c.now.Add(auth.SessionIdle - time.Second)
	if got := who(t, s, cookie); got == "" {
		t.Error("a second before the idle limit: nobody, want the viewer")
	}
	c.now = c.now.Add(auth.SessionIdle)
	if got := who(t, s, cookie); got != "" {
		t.Errorf("after the idle limit: %q, want nobody", got)
	}
}

// What is no use by a person, such as a stream that goes on, does not keep a session.
func TestSessionIsNotKeptByPeeking(t *testing.T) {
	c := &clock{time.Now()}
	s := sessions(t, dbtest.Open(t), c, false, key(1))
	cookie := signIn(t, s, maja)
	for range 2 {
		c.now = c.now.Add(auth.SessionIdle/2 - time.Second)
		if found, err := s.Peek(request(cookie)); err != nil || found == nil {
			t.Fatalf("Peek = %v, %v, want the session", found, err)
		}
	}
	c.now = c.now.Add(2 * time.Second)
	if found, err := s.Peek(request(cookie)); err != nil || found != nil {
		t.Errorf("Peek after the idle limit = %v, %v, want none", found, err)
	}
	if got := who(t, s, cookie); got != "" {
		t.Errorf("after the idle limit: %q, want nobody", got)
	}
}

func TestSessionFixation(t *testing.T) {
	s := sessions(t, dbtest.Open(t), &clock{time.Now()}, false, key(1))
	first := signIn(t, s, maja)
	second := signIn(t, s, auth.LocalOperator, first)
	if first.Value == second.Value {
		t.Error("signing in again kept the id")
	}
	if got := who(t, s, first); got != "" {
		t.Errorf("the session from before the sign-in is %q, want it ended", got)
	}
	if got := who(t, s, second); got != "operator@localhost operator" {
		t.Errorf("the new session is %q", got)
	}
}

func TestSignOut(t *testing.T) {
	s := sessions(t, dbtest.Open(t), &clock{time.Now()}, false, key(1))
	cookie := signIn(t, s, maja)
	w := httptest.NewRecorder()
	if err := s.SignOut(w, request(cookie)); err != nil {
		t.Fatal(err)
	}
	if c := w.Result().Cookies()[0]; c.MaxAge >= 0 || c.Value != "" {
		t.Errorf("cookie after sign-out = %+v, want it taken back", c)
	}
	if got := who(t, s, cookie); got != "" {
		t.Errorf("the old cookie after sign-out is %q, want nobody", got)
	}
	if err := s.SignOut(httptest.NewRecorder(), request()); err != nil {
		t.Errorf("sign-out without a session: %v", err)
	}
}

func TestUnreadableCookieIsNoSession(t *testing.T) {
	s := sessions(t, dbtest.Open(t), &clock{time.Now()}, false, key(1))
	good := signIn(t, s, maja)
	middle, other := len(good.Value)/2, "A"
	if good.Value[middle] == 'A' {
		other = "B"
	}
	for name, value := range map[string]string{
		"empty":               "",
		"rubbish":             "%%%",
		"cut":                 good.Value[:middle],
		"tampered":            good.Value[:middle] + other + good.Value[middle+1:],
		"other key":           signIn(t, sessions(t, dbtest.Open(t), &clock{time.Now()}, false, key(2)), maja).Value,
		"of another database": signIn(t, sessions(t, dbtest.Open(t), &clock{time.Now()}, false, key(1)), maja).Value,
		"long":                strings.Repeat("x", 8000),
	} {
		if got := who(t, s, &http.Cookie{Name: good.Name, Value: value}); got != "" {
			t.Errorf("%s: %q, want nobody", name, got)
		}
	}
}

func TestSessionKeysRotate(t *testing.T) {
	d, c := dbtest.Open(t), &clock{time.Now()}
	old := signIn(t, sessions(t, d, c, false, key(1)), maja)
	both := sessions(t, d, c, false, key(2), key(1))
	if got := who(t, both, old); got == "" {
		t.Error("a cookie of the older key is not opened")
	}
	renewed := signIn(t, both, maja)
	if got := who(t, sessions(t, d, c, false, key(2)), renewed); got == "" {
		t.Error("a new cookie is not of the newest key")
	}
	if got := who(t, sessions(t, d, c, false, key(2)), old); got != "" {
		t.Errorf("a cookie of a key that is gone is %q, want nobody", got)
	}
	for _, keys := range [][][]byte{nil, {[]byte("short")}} {
		if _, err := auth.NewSessions(auth.SessionOptions{DB: d, Keys: keys, Now: c.time}); err == nil {
			t.Errorf("NewSessions with keys %q made sessions", keys)
		}
	}
}

func TestSessionSecretIsNotKept(t *testing.T) {
	dir := t.TempDir()
	d := dbtest.OpenAt(t, dir, time.Now)
	cookie := signIn(t, sessions(t, d, &clock{time.Now()}, false, key(1)), maja)
	files, err := filepath.Glob(filepath.Join(dir, "platform-api.db*"))
	if err != nil || len(files) == 0 {
		t.Fatal("no database files", err)
	}
	for _, name := range files {
		content, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		if bytes.Contains(content, []byte(cookie.Value)) {
			t.Errorf("%s holds the cookie", name)
		}
	}
}

func TestOneTimeLink(t *testing.T) {
	c := &clock{time.Now()}
	links := auth.NewLinks(c.time)
	if links.Redeem("") {
		t.Error("an empty secret was good before any link")
	}
	first := links.New()
	if links.Redeem(first + "x") {
		t.Error("another secret was good")
	}
	if !links.Redeem(first) {
		t.Error("the secret was not good")
	}
	if links.Redeem(first) {
		t.Error("the secret was good twice")
	}
	old, newest := links.New(), links.New()
	if links.Redeem(old) {
		t.Error("a secret was good after a newer one")
	}
	if !links.Redeem(newest) {
		t.Error("the newest secret was not good")
	}
	late := links.New()
	c.now = c.now.Add(auth.LinkLasts)
	if links.Redeem(late) {
		t.Errorf("the secret was good after %v", auth.LinkLasts)
	}
}

// Sessions are in the database alone.
func TestTenThousandSessionsCostNoMemory(t *testing.T) {
	dir := t.TempDir()
	s := sessions(t, dbtest.OpenAt(t, dir, time.Now), &clock{time.Now()}, false, key(1))
	first := signIn(t, s, maja)
	inUse := func() uint64 {
		runtime.GC()
		runtime.GC() // what pools held for one round more
		var m runtime.MemStats
		runtime.ReadMemStats(&m)
		return m.HeapAlloc
	}
	before := inUse()
	file, err := sql.Open("sqlite", filepath.Join(dir, "platform-api.db"))
	if err != nil {
		t.Fatal(err)
	}
	_, err = file.ExecContext(t.Context(), `INSERT INTO sessions (hash, data, created_at, seen_at, sealed)
		WITH RECURSIVE n (i) AS (VALUES (1) UNION ALL SELECT i + 1 FROM n WHERE i < 9600)
		SELECT randomblob(32), data, created_at, seen_at, randomblob(300) FROM n, sessions`)
	if err := errors.Join(err, file.Close()); err != nil {
		t.Fatal(err)
	}
	for range 400 {
		if got := who(t, s, signIn(t, s, maja)); got != "maja@dezky.example read" {
			t.Fatalf("among many: %q, want the viewer", got)
		}
	}
	if got := who(t, s, first); got != "maja@dezky.example read" {
		t.Errorf("the first of many: %q, want the viewer", got)
	}
	if after := inUse(); after > before+256<<10 {
		t.Errorf("10,000 sessions take %d bytes of memory, want next to none", after-before)
	}
}

// Where the database can't be read, who was seen before is known, for as long as a session lasts, and can
// still sign out.
func TestSessionsOutliveTheDatabase(t *testing.T) {
	dir, c := t.TempDir(), &clock{time.Now()}
	d := dbtest.OpenAt(t, dir, c.time)
	s := sessions(t, d, c, false, key(1))
	seen, unseen := signIn(t, s, maja), signIn(t, s, maja)
	if got := who(t, s, seen); got == "" {
		t.Fatal("nobody is signed in")
	}
	err := d.Reopen(t.Context(), func(context.Context) error {
		return os.WriteFile(filepath.Join(dir, db.File), bytes.Repeat([]byte("rubbish "), 2048), 0o600)
	})
	if err != nil {
		t.Fatal(err)
	}
	c.now = c.now.Add(2 * time.Minute) // a use would be noted now
	if got := who(t, s, seen); got != "maja@dezky.example read" {
		t.Errorf("without the database: %q, want the viewer", got)
	}
	if _, err := s.Find(request(unseen)); err == nil {
		t.Error("a session that was never read is found without the database")
	}
	c.now = c.now.Add(auth.SessionIdle - time.Second)
	if got := who(t, s, seen); got == "" {
		t.Error("a second before the idle limit: nobody, want the viewer")
	}
	c.now = c.now.Add(auth.SessionIdle)
	if got := who(t, s, seen); got != "" {
		t.Errorf("after the idle limit: %q, want nobody", got)
	}
	c.now = c.now.Add(-2 * auth.SessionIdle)
	if err := s.SignOut(httptest.NewRecorder(), request(seen)); err == nil {
		t.Error("the sign-out does not say that it could not be written down")
	}
	if _, err := s.Find(request(seen)); err == nil {
		t.Error("after the sign-out the session is still known")
	}
}
