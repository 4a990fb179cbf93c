package db

import (
	"bytes"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"testing/fstest"

	"github.com/dezky/platform-api/flags"
)

// withMigration is this program's migrations and one more.
func withMigration(t *testing.T, sql string) fstest.MapFS {
	t.Helper()
	more := fstest.MapFS{"00004_more.sql": {Data: []byte("-- +goose Up\n" + sql)}}
	for _, e := range must(migrationFiles.ReadDir("migrations"))(t) {
		more[e.Name()] = &fstest.MapFile{Data: must(migrationFiles.ReadFile("migrations/" + e.Name()))(t)}
	}
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
	name := "platform-api.db.schema-3.20260102T030405Z"
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
	want := "the database has schema 4, newer than this program's 3: run the version that wrote it, or a later one"
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
	message := "the database has schema 3, older than this program's 4: start the server first, it migrates"
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
	if err == nil || !strings.HasPrefix(err.Error(), "migrate from schema 3 to 4: ") || !strings.Contains(err.Error(), "no such table: nowhere") {
		t.Fatalf("Open: %v, want that the migration from schema 3 to 4 failed, and why", err)
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
	name := filepath.Join(o.Dir, "platform-api.db.schema-3.20260102T030405Z")
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
