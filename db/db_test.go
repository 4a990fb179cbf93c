package db

import (
	"context"
	"database/sql"
	"database/sql/driver"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/dezky/platform-api/flags"
)

// ops is who changes things where it does not matter who.
var ops = By{Actor: "ops@dezky.example"}

// clock stands still until a test moves it.
type clock struct{ ms atomic.Int64 }

func newClock() *clock {
	c := &clock{}
	c.ms.Store(time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC).UnixMilli())
	return c
}

func (c *clock) now() time.Time          { return fromMillis(c.ms.Load()) }
func (c *clock) advance(d time.Duration) { c.ms.Add(d.Milliseconds()) }

// openTest opens a database that the test's end closes; by default in a directory of its own.
func openTest(t testing.TB, o Options) *DB {
	t.Helper()
	if o.Dir == "" {
		o.Dir = t.TempDir()
	}
	if o.Environments == nil {
		o.Environments = []string{"production", "staging"}
	}
	d, err := Open(t.Context(), o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { closeTest(t, d) })
	return d
}

func closeTest(t testing.TB, d *DB) {
	t.Helper()
	if err := d.Close(); err != nil {
		t.Error(err)
	}
}

// reopen closes the database and opens it again.
func reopen(t testing.TB, d *DB) *DB {
	t.Helper()
	closeTest(t, d)
	return openTest(t, d.opts)
}

// beside opens the database a second time, as a command does beside the server.
func beside(t testing.TB, d *DB) *DB {
	t.Helper()
	second, err := OpenBeside(t.Context(), d.opts)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { closeTest(t, second) })
	return second
}

// must is for steps of a test that are not what it is about.
func must[T any](x T, err error) func(testing.TB) T {
	return func(t testing.TB) T {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		return x
	}
}

func newFlag(t testing.TB, body string) flags.NewFlag {
	t.Helper()
	return must(flags.DecodeNewFlag([]byte(body)))(t)
}

func patchOf(t testing.TB, body string) flags.Patch {
	t.Helper()
	return must(flags.DecodePatch([]byte(body)))(t)
}

func tenantOf(t testing.TB, body string) flags.TenantPatch {
	t.Helper()
	return must(flags.DecodeTenant([]byte(body)))(t)
}

func partnerOf(t testing.TB, body string) flags.PartnerPatch {
	t.Helper()
	return must(flags.DecodePartner([]byte(body)))(t)
}

func documentOf(t testing.TB, body string) flags.Document {
	t.Helper()
	return must(flags.DecodeDocument([]byte(body)))(t)
}

// world is a small registry. The buckets of its tenants for the key "search" are 5 (acme), 15 (globex),
// 28 (hooli) and 60 (initech).
const world = `{
	"partners": [{"slug": "fjordit", "name": "Fjord IT"}, {"slug": "nordhost", "name": "Nordhost"}],
	"tenants": [
		{"id": "t3", "slug": "acme", "name": "Acme", "plan": "starter"},
		{"id": "t0", "slug": "globex", "name": "Globex", "plan": "business", "partnerSlug": "nordhost"},
		{"id": "t16", "slug": "hooli", "name": "Hooli", "plan": "business"},
		{"id": "t19", "slug": "initech", "name": "Initech", "plan": "enterprise", "partnerSlug": "nordhost"}]}`

// importTest takes a document in.
func importTest(t testing.TB, d *DB, body string) {
	t.Helper()
	must(d.Import(t.Context(), By{Actor: "system:import"}, documentOf(t, body), Import{}))(t)
}

// export is the registry as a document.
func export(t testing.TB, d *DB) string {
	t.Helper()
	var b strings.Builder
	if err := flags.WriteDocument(&b, must(d.Load(t.Context()))(t)); err != nil {
		t.Fatal(err)
	}
	return b.String()
}

// history is the log under a filter, newest first; without a limit, all of it.
func history(t testing.TB, d *DB, f HistoryFilter) []flags.Entry {
	t.Helper()
	if f.Limit == 0 {
		f.Limit = 1_000_000
	}
	return must(d.History(t.Context(), f))(t)
}

// newest is the log's last entry, rendered.
func newest(t testing.TB, d *DB) string {
	t.Helper()
	entries := history(t, d, HistoryFilter{Limit: 1})
	if len(entries) == 0 {
		return ""
	}
	return render(entries[0])
}

// show renders a value for a comparison or a message.
func show(v any) string {
	data, err := json.Marshal(v)
	if err != nil {
		return err.Error()
	}
	return string(data)
}

// render is everything that an entry says, for people: a line, then one for each changed field and for
// each environment.
func render(e flags.Entry) string {
	var b strings.Builder
	fmt.Fprintf(&b, "#%d %s r%d %s: ", e.ID, e.At.Format("15:04:05"), e.Revision, e.Actor)
	return b.String() + what(e)
}

// what is an entry without its number, time, revision and actor.
func what(e flags.Entry) string {
	var b strings.Builder
	fmt.Fprintf(&b, "%s %s %s", e.Action, e.Kind, e.Name)
	if e.Version > 0 {
		fmt.Fprintf(&b, " v%d", e.Version)
	}
	if e.Note != "" {
		fmt.Fprintf(&b, " %q", e.Note)
	}
	for _, field := range e.Changes.Fields() {
		fmt.Fprintf(&b, "\n  %s: %s -> %s", field, e.Changes[field].From, e.Changes[field].To)
	}
	environments := make([]string, 0, len(e.Impact))
	for name := range e.Impact {
		environments = append(environments, name)
	}
	slices.Sort(environments)
	for _, name := range environments {
		o := e.Impact[name]
		fmt.Fprintf(&b, "\n  %s: +%d %s -%d %s", name, o.Gained, o.Gains, o.Lost, o.Losses)
	}
	return b.String()
}

// headline is the first line of what.
func headline(e flags.Entry) string {
	line, _, _ := strings.Cut(what(e), "\n")
	return line
}

func headlines(entries []flags.Entry) []string {
	lines := make([]string, len(entries))
	for i, e := range entries {
		lines[i] = headline(e)
	}
	return lines
}

// outcome is what an error says, after its kind; of bad values only where they are, for the words are not
// this package's.
func outcome(err error) string {
	var invalid *flags.Invalid
	var conflict *flags.Conflict
	var stale *flags.Stale
	switch {
	case err == nil:
		return "ok"
	case errors.As(err, &invalid):
		fields := make([]string, len(invalid.Errors))
		for i, e := range invalid.Errors {
			fields[i] = e.Field
		}
		return "invalid: " + strings.Join(fields, ", ")
	case errors.As(err, &conflict):
		return strings.TrimSuffix(fmt.Sprintf("conflict: %s %s %s", conflict.Message, conflict.Flags, conflict.Tenants), " [] []")
	case errors.As(err, &stale):
		return "stale: " + stale.Error()
	case errors.Is(err, flags.ErrNotFound):
		return "not found: " + err.Error()
	}
	return "error: " + err.Error()
}

// same fails unless two snapshots agree in everything.
func same(t testing.TB, got, want *flags.Snapshot) {
	t.Helper()
	all := func(s *flags.Snapshot) []any {
		return []any{s.Epoch(), s.Revision(), s.Environments(), append([]*flags.Flag{}, s.Flags()...),
			append([]*flags.Tenant{}, s.Tenants()...), append([]*flags.Partner{}, s.Partners()...)}
	}
	if g, w := all(got), all(want); !reflect.DeepEqual(g, w) {
		t.Errorf("the snapshot is\n%s\nwant\n%s", show(g), show(w))
	}
}

func TestOpenCreates(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "a", "data dir #1 100%?")
	d := openTest(t, Options{Dir: dir, Environments: []string{"staging", "production"}})
	s := d.Current()
	if got, want := s.Revision(), int64(0); got != want {
		t.Errorf("revision %d, want %d", got, want)
	}
	if got, want := len(s.Epoch()), 16; got != want {
		t.Errorf("the epoch %q has %d characters, want %d", s.Epoch(), got, want)
	}
	if got, want := s.Environments(), []string{"staging", "production"}; !slices.Equal(got, want) {
		t.Errorf("Environments() = %v, want %v", got, want)
	}
	if n := len(s.Flags()) + len(s.Tenants()) + len(s.Partners()); n != 0 {
		t.Errorf("a new database holds %d things, want none", n)
	}
	// A change, so that the WAL is in use.
	must(d.CreateFlag(t.Context(), ops, newFlag(t, `{"key": "search"}`)))(t)
	modes := map[string]fs.FileMode{}
	for _, e := range must(os.ReadDir(dir))(t) {
		modes[e.Name()] = must(e.Info())(t).Mode()
	}
	want := map[string]fs.FileMode{"platform-api.db": 0o600, "platform-api.db-wal": 0o600, "platform-api.db-shm": 0o600}
	if !reflect.DeepEqual(modes, want) {
		t.Errorf("files %v, want %v", modes, want)
	}
	if got, want := must(os.Stat(dir))(t).Mode().Perm(), fs.FileMode(0o700); got != want {
		t.Errorf("the directory's mode is %v, want %v", got, want)
	}
}

func TestOpenAgain(t *testing.T) {
	d := openTest(t, Options{})
	importTest(t, d, world)
	must(d.CreateFlag(t.Context(), ops, newFlag(t, `{"key": "search"}`)))(t)
	before := d.Current()
	if got, want := before.Revision(), int64(2); got != want {
		t.Fatalf("revision %d after an import and a flag, want %d", got, want)
	}
	for range 3 {
		d = reopen(t, d)
		same(t, d.Current(), before)
	}
}

// The time of the last change is the same after a start, whatever happened to tokens since.
func TestModifiedIsLoaded(t *testing.T) {
	c, dir := newClock(), t.TempDir()
	d := openTest(t, Options{Dir: dir, Now: c.now})
	if at := d.Current().Modified(); !at.IsZero() {
		t.Errorf("nothing was changed, and yet at %v", at)
	}
	c.advance(time.Minute)
	want := c.now()
	if _, err := d.CreateFlag(t.Context(), ops, flags.NewFlag{Key: "search"}); err != nil {
		t.Fatal(err)
	}
	c.advance(time.Minute)
	if _, _, err := d.CreateToken(t.Context(), ops, NewToken{Name: "ci", Role: "read"}); err != nil {
		t.Fatal(err)
	}
	again := openTest(t, Options{Dir: dir, Now: c.now})
	for name, s := range map[string]*flags.Snapshot{"as it was made": d.Current(), "as it was loaded": again.Current()} {
		if !s.Modified().Equal(want) {
			t.Errorf("%s: Modified() = %v, want %v", name, s.Modified(), want)
		}
	}
}

func TestEpochs(t *testing.T) {
	a, b := openTest(t, Options{}), openTest(t, Options{})
	if a.Current().Epoch() == b.Current().Epoch() {
		t.Errorf("two databases have the epoch %q", a.Current().Epoch())
	}
	c := openTest(t, Options{Rand: strings.NewReader("12345678 and more")})
	if got, want := c.Current().Epoch(), "3132333435363738"; got != want {
		t.Errorf("epoch %q, want %q from the given randomness", got, want)
	}
}

// pragmas asks one connection.
func pragmas(t *testing.T, c *sql.Conn) string {
	t.Helper()
	var out []string
	for _, name := range []string{"synchronous", "journal_mode", "foreign_keys", "busy_timeout", "query_only", "wal_autocheckpoint", "temp_store"} {
		var value string
		if err := c.QueryRowContext(t.Context(), "PRAGMA "+name).Scan(&value); err != nil {
			t.Fatal(err)
		}
		out = append(out, name+"="+value)
	}
	return strings.Join(out, " ")
}

func TestPragmas(t *testing.T) {
	d := openTest(t, Options{})
	second := beside(t, d)
	for _, pool := range []struct {
		name string
		pool *sql.DB
		size int
		want string
	}{
		{"writer", d.writer.sql, 1, "synchronous=2 journal_mode=wal foreign_keys=1 busy_timeout=5000 query_only=0 wal_autocheckpoint=1000 temp_store=2"},
		{"readers", d.reader.sql, readers, "synchronous=2 journal_mode=wal foreign_keys=1 busy_timeout=5000 query_only=1 wal_autocheckpoint=1000 temp_store=0"},
		{"writer beside", second.writer.sql, 1, "synchronous=2 journal_mode=wal foreign_keys=1 busy_timeout=5000 query_only=0 wal_autocheckpoint=1000 temp_store=2"},
	} {
		t.Run(pool.name, func(t *testing.T) {
			if got := pool.pool.Stats().MaxOpenConnections; got != pool.size {
				t.Fatalf("the pool opens at most %d connections, want %d", got, pool.size)
			}
			// Twice: what a pool opens in place of a broken connection has the same pragmas.
			for range 2 {
				conns := make([]*sql.Conn, pool.size)
				for i := range conns { // all at once, so that each is another one
					conns[i] = must(pool.pool.Conn(t.Context()))(t)
					if got := pragmas(t, conns[i]); got != pool.want {
						t.Errorf("connection %d: %s, want %s", i, got, pool.want)
					}
				}
				for _, c := range conns {
					c.Raw(func(any) error { return driver.ErrBadConn })
				}
			}
		})
	}
	_, err := d.reader.ExecContext(t.Context(), "DELETE FROM flags")
	if err == nil || !strings.Contains(err.Error(), "attempt to write a readonly database") {
		t.Errorf("a reader that writes gets %v, want that it is refused", err)
	}
}

func TestOpenBesideNeverCreates(t *testing.T) {
	empty, missing := t.TempDir(), filepath.Join(t.TempDir(), "missing")
	for _, dir := range []string{empty, missing} {
		if _, err := OpenBeside(t.Context(), Options{Dir: dir}); !errors.Is(err, ErrNoDatabase) {
			t.Errorf("OpenBeside(%s): %v, want ErrNoDatabase", dir, err)
		}
	}
	if entries := must(os.ReadDir(empty))(t); len(entries) > 0 {
		t.Errorf("OpenBeside made %v", entries)
	}
	if _, err := os.Stat(missing); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("the directory that was missing: %v, want ErrNotExist", err)
	}
}

func TestOpenBesideOtherFile(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, File)
	for _, content := range []string{"", "this is not a database, however long one looks at it"} {
		if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
		_, err := OpenBeside(t.Context(), Options{Dir: dir})
		if err == nil || !strings.Contains(err.Error(), "is not a database of this program's") || strings.Contains(err.Error(), "\n") {
			t.Errorf("OpenBeside on %q: %q, want one line that says it is no database of this program's", content, err)
		}
	}
}

func TestOpenFails(t *testing.T) {
	file := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	foreign := t.TempDir()
	if err := os.WriteFile(filepath.Join(foreign, File), []byte("no database at all, but a note"), 0o600); err != nil {
		t.Fatal(err)
	}
	cancelled, cancel := context.WithCancel(t.Context())
	cancel()
	tests := []struct {
		name string
		ctx  context.Context
		dir  string
		want string
	}{
		{"a file for a directory", t.Context(), file, "data directory: mkdir " + file + ": not a directory"},
		{"another file for the database", t.Context(), foreign, "file is not a database"},
		{"cancelled", cancelled, t.TempDir(), "context canceled"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			d, err := Open(tt.ctx, Options{Dir: tt.dir, Environments: []string{"production"}})
			if err == nil || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("Open = %v, %v, want an error with %q", d, err, tt.want)
			}
		})
	}
}

func TestSQLiteVersion(t *testing.T) {
	got := must(SQLiteVersion(t.Context()))(t)
	var major, minor, patch int
	if n, err := fmt.Sscanf(got, "%d.%d.%d", &major, &minor, &patch); n != 3 || err != nil || major != 3 {
		t.Errorf("SQLiteVersion() = %q, want 3.x.y", got)
	}
}
