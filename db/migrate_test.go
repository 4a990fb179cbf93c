package db

import (
	"bytes"
	"database/sql"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"testing/fstest"
	"time"

	"github.com/pressly/goose/v3"

	"github.com/dezky/platform-api/flags"
)

// migrationsBefore are this program's migrations of lower numbers.
func migrationsBefore(t testing.TB, number int) fstest.MapFS {
	t.Helper()
	out := fstest.MapFS{}
	for _, e := range must(migrationFiles.ReadDir("migrations"))(t) {
		if numberOf(t, e.Name()) < number {
			out[e.Name()] = &fstest.MapFile{Data: must(migrationFiles.ReadFile("migrations/" + e.Name()))(t)}
		}
	}
	return out
}

func numberOf(t testing.TB, migration string) int {
	t.Helper()
	number, _, _ := strings.Cut(migration, "_")
	return must(strconv.Atoi(number))(t)
}

// schemaNow is the number of the program's last migration.
func schemaNow(t *testing.T) (last int) {
	t.Helper()
	for _, e := range must(migrationFiles.ReadDir("migrations"))(t) {
		last = max(last, numberOf(t, e.Name()))
	}
	return last
}

// withMigration is this program's migrations and one more.
func withMigration(t *testing.T, sql string) fstest.MapFS {
	t.Helper()
	next := schemaNow(t) + 1
	more := migrationsBefore(t, next)
	more[fmt.Sprintf("%05d_more.sql", next)] = &fstest.MapFile{Data: []byte("-- +goose Up\n" + sql)}
	return more
}

// files returns what a directory of closed databases holds.
func files(t *testing.T, dir string) map[string][]byte {
	t.Helper()
	out := map[string][]byte{}
	for _, e := range must(os.ReadDir(dir))(t) {
		out[e.Name()] = must(os.ReadFile(filepath.Join(dir, e.Name())))(t)
	}
	return out
}

// filled returns the options of a closed database with some content, and that content.
func filled(t *testing.T, o Options) (Options, *flags.Snapshot, []flags.Entry) {
	t.Helper()
	d := openTest(t, o)
	importTest(t, d, world)
	must(d.CreateFlag(t.Context(), ops, newFlag(t, `{"key": "search", "state": "rollout", "pct": 20, "note": "why"}`)))(t)
	s, log := d.Current(), history(t, d, HistoryFilter{})
	closeTest(t, d)
	return d.opts, s, log
}

func sameLog(t *testing.T, d *DB, want []flags.Entry) {
	t.Helper()
	if got := history(t, d, HistoryFilter{}); show(got) != show(want) {
		t.Errorf("the log is\n%s\nwant\n%s", show(got), show(want))
	}
}

func TestMigrate(t *testing.T) {
	o, want, log := filled(t, Options{Now: newClock().now})
	o.migrations = withMigration(t, "ALTER TABLE partners ADD COLUMN country TEXT;\nINSERT INTO partners VALUES ('new', 'New', 1, 1, 'NO');")
	d := openTest(t, o)
	if d.Current().Partner("new") == nil {
		t.Error("the migration has not run")
	}
	if got := d.Current(); got.Epoch() != want.Epoch() || got.Revision() != want.Revision() {
		t.Errorf("epoch %s, revision %d, want %s, %d", got.Epoch(), got.Revision(), want.Epoch(), want.Revision())
	}
	sameLog(t, d, log)
	closeTest(t, d)

	// The copy is the whole database as it was.
	name := fmt.Sprintf("platform-api.db.schema-%d.20260102T030405Z", schemaNow(t))
	if got := slices.Sorted(maps.Keys(files(t, o.Dir))); !slices.Equal(got, []string{File, name}) {
		t.Fatalf("files %v, want the database and %s", got, name)
	}
	copied := filepath.Join(o.Dir, name)
	if got := must(os.Stat(copied))(t).Mode(); got != 0o600 {
		t.Errorf("the copy's mode is %v, want 0600", got)
	}
	dir := t.TempDir()
	if err := os.Rename(copied, filepath.Join(dir, File)); err != nil {
		t.Fatal(err)
	}
	old := openTest(t, Options{Dir: dir})
	same(t, old.Current(), want)
	sameLog(t, old, log)
	if got := check(t, old); got != "ok" {
		t.Errorf("the copy: %s", got)
	}

	// Once is enough.
	closeTest(t, openTest(t, o))
	if got := slices.Sorted(maps.Keys(files(t, o.Dir))); !slices.Equal(got, []string{File}) {
		t.Errorf("files %v after another start, want the database only", got)
	}
}

// check is SQLite's word on the whole file.
func check(t testing.TB, d *DB) string {
	t.Helper()
	var broken int
	if err := d.reader.QueryRowContext(t.Context(), "SELECT count(*) FROM pragma_foreign_key_check").Scan(&broken); err != nil {
		t.Fatal(err)
	}
	if broken > 0 {
		return "rows that point to nothing"
	}
	var said string
	if err := d.reader.QueryRowContext(t.Context(), "PRAGMA integrity_check").Scan(&said); err != nil {
		t.Fatal(err)
	}
	return said
}

func TestNewDatabaseIsNotCopied(t *testing.T) {
	d := openTest(t, Options{migrations: withMigration(t, "SELECT 1;")})
	closeTest(t, d)
	if got := slices.Sorted(maps.Keys(files(t, d.opts.Dir))); !slices.Equal(got, []string{File}) {
		t.Errorf("files %v, want the database only", got)
	}
}

func TestNewerSchemaIsRefused(t *testing.T) {
	o, _, _ := filled(t, Options{migrations: withMigration(t, "SELECT 1;")})
	before := files(t, o.Dir)
	o.migrations = nil
	want := fmt.Sprintf("the database has schema %d, newer than this program's %d: run the version that wrote it, or a later one", schemaNow(t)+1, schemaNow(t))
	if _, err := Open(t.Context(), o); err == nil || err.Error() != want {
		t.Errorf("Open: %v, want %s", err, want)
	}
	if _, err := OpenBeside(t.Context(), o); err == nil || err.Error() != want {
		t.Errorf("OpenBeside: %v, want %s", err, want)
	}
	if after := files(t, o.Dir); !maps.EqualFunc(after, before, bytes.Equal) {
		t.Errorf("the refusal changed the files %v; before there were %v", slices.Sorted(maps.Keys(after)), slices.Sorted(maps.Keys(before)))
	}
}

func TestOpenBesideRefusesOlderSchema(t *testing.T) {
	o, want, _ := filled(t, Options{})
	before := files(t, o.Dir)
	o.migrations = withMigration(t, "SELECT 1;")
	message := fmt.Sprintf("the database has schema %d, older than this program's %d: start the server first, it migrates", schemaNow(t), schemaNow(t)+1)
	if _, err := OpenBeside(t.Context(), o); err == nil || err.Error() != message {
		t.Errorf("OpenBeside: %v, want %s", err, message)
	}
	if after := files(t, o.Dir); !maps.EqualFunc(after, before, bytes.Equal) {
		t.Errorf("the refusal changed the files %v; before there were %v", slices.Sorted(maps.Keys(after)), slices.Sorted(maps.Keys(before)))
	}
	o.migrations = nil
	same(t, openTest(t, o).Current(), want)
}

func TestFailedMigrationChangesNothing(t *testing.T) {
	o, want, log := filled(t, Options{Now: newClock().now})
	bad := o
	bad.migrations = withMigration(t, "DELETE FROM tenants;\nCREATE TABLE more (x TEXT) STRICT;\nINSERT INTO nowhere VALUES (1);")
	_, err := Open(t.Context(), bad)
	failed := fmt.Sprintf("migrate from schema %d to %d: ", schemaNow(t), schemaNow(t)+1)
	if err == nil || !strings.HasPrefix(err.Error(), failed) || !strings.Contains(err.Error(), "no such table: nowhere") {
		t.Fatalf("Open: %v, want %s and why", err, failed)
	}
	d := openTest(t, o)
	same(t, d.Current(), want)
	sameLog(t, d, log)
	var tables int
	if err := d.reader.QueryRowContext(t.Context(), "SELECT count(*) FROM sqlite_schema WHERE name = 'more'").Scan(&tables); err != nil || tables > 0 {
		t.Errorf("%d tables of the failed migration, %v; want none", tables, err)
	}
}

func TestNoCopyNoMigration(t *testing.T) {
	o, want, _ := filled(t, Options{Now: newClock().now})
	bad := o
	bad.migrations = withMigration(t, "DELETE FROM tenants;")
	// Earlier copies stand wherever one could go: of starts in the same second.
	name := filepath.Join(o.Dir, fmt.Sprintf("platform-api.db.schema-%d.20260102T030405Z", schemaNow(t)))
	for i := 1; i <= copiesASecond; i++ {
		taken := name
		if i > 1 {
			taken = fmt.Sprintf("%s-%d", name, i)
		}
		if err := os.WriteFile(taken, []byte("earlier"), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := Open(t.Context(), bad); err == nil || !strings.HasPrefix(err.Error(), "copy the database before migrating it: ") {
		t.Errorf("Open: %v, want that the database could not be copied", err)
	}
	if got := string(must(os.ReadFile(name))(t)); got != "earlier" {
		t.Errorf("the earlier copy is %q now", got)
	}
	same(t, openTest(t, o).Current(), want)
}

// madeBefore makes a database in dir as this program did before the migration of a number, with the content
// of d, which is closed.
func madeBefore(t testing.TB, number int, dir string, d *DB) {
	t.Helper()
	old := must(sql.Open("sqlite", filepath.Join(dir, File)))(t)
	defer old.Close()
	old.SetMaxOpenConns(1) // ATTACH is of one connection
	p := must(goose.NewProvider(goose.DialectSQLite3, old, migrationsBefore(t, number), goose.WithDisableGlobalRegistry(true)))(t)
	must(p.Up(t.Context()))(t)
	must(old.ExecContext(t.Context(), "ATTACH ? AS later", d.path))(t)
	for _, table := range []string{"instance", "partners", "tenants", "flags", "tokens", "log", "seeded"} {
		var columns string
		err := old.QueryRowContext(t.Context(), "SELECT group_concat(name) FROM pragma_table_info(?)", table).Scan(&columns)
		if err != nil {
			t.Fatal(err)
		}
		must(old.ExecContext(t.Context(), fmt.Sprintf("INSERT INTO main.%s (%s) SELECT %s FROM later.%s ORDER BY 1", table, columns, columns, table)))(t)
	}
}

// Since when a tenant has its plan and status is read out of the log of earlier versions as it would have
// been kept.
func TestMigrateSubscriptions(t *testing.T) {
	c := newClock()
	d := openTest(t, Options{Now: c.now})
	do := func(_ any, err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		c.advance(time.Hour)
	}
	patch := func(slug, body string) {
		t.Helper()
		do(d.PatchTenant(t.Context(), ops, slug, tenantOf(t, body)))
	}
	importTest(t, d, world)
	c.advance(time.Hour)
	patch("globex", `{"plan": "starter"}`)
	patch("globex", `{"plan": "business"}`)
	patch("globex", `{"name": "Globex AS"}`)
	patch("hooli", `{"status": "suspended"}`)
	patch("initech", `{"partnerSlug": "fjordit"}`)
	do(nil, d.DeleteTenant(t.Context(), ops, "acme"))
	do(d.CreateTenant(t.Context(), ops, tenantOf(t, `{"slug": "acme", "name": "Acme", "plan": "starter"}`)))
	want := d.Current()
	since := map[string]string{}
	for _, x := range want.Tenants() {
		since[x.Slug] = x.SubscribedAt.Format(time.TimeOnly)
	}
	kept := map[string]string{"acme": "10:04:05", "globex": "05:04:05", "hooli": "07:04:05", "initech": "03:04:05"}
	if !maps.Equal(since, kept) {
		t.Errorf("they have their plan and status since %v, want %v", since, kept)
	}
	closeTest(t, d)

	dir := t.TempDir()
	madeBefore(t, 6, dir, d)
	migrated := openTest(t, Options{Dir: dir, Now: c.now})
	same(t, migrated.Current(), want)
	if got := check(t, migrated); got != "ok" {
		t.Errorf("the database: %s", got)
	}
	if _, err := migrated.writer.ExecContext(t.Context(), "DELETE FROM log"); err == nil {
		t.Error("the log can be deleted from")
	}
}

// A tenant without an entry, as by hand, has had what it has since its creation.
func TestMigrateSubscriptionsWithoutLog(t *testing.T) {
	dir := t.TempDir()
	madeBefore(t, 6, dir, func() *DB {
		d := openTest(t, Options{})
		must(d.writer.ExecContext(t.Context(), "INSERT INTO tenants ("+tenantColumns+") VALUES ('t1', 'acme', 'Acme', 'starter', NULL, 'active', '{}', '{}', 5000, 9000, 7000)"))(t)
		closeTest(t, d)
		return d
	}())
	if got := openTest(t, Options{Dir: dir}).Current().Tenant("acme").SubscribedAt; got.UnixMilli() != 5000 {
		t.Errorf("since %v, want its creation", got)
	}
}
