package db

import (
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"testing/fstest"
)

// migrationsThatDie are this program's migrations and one more, with a statement that ends the process
// behind the one of the given number, of all in order.
func migrationsThatDie(at int) (fs.FS, error) {
	out := fstest.MapFS{}
	names, err := fs.Glob(migrationFiles, "migrations/*.sql")
	if err != nil {
		return nil, err
	}
	slices.Sort(names)
	texts := map[string]string{"00999_more.sql": "-- +goose Up\nALTER TABLE partners ADD COLUMN country TEXT;\nUPDATE partners SET country = 'NO';\nCREATE TABLE more (x INTEGER) STRICT;\n"}
	for _, name := range names {
		data, err := fs.ReadFile(migrationFiles, name)
		if err != nil {
			return nil, err
		}
		texts[strings.TrimPrefix(name, "migrations/")] = string(data)
	}
	statement := 0
	for _, name := range slices.Sorted(maps.Keys(texts)) {
		var b strings.Builder
		block := false
		for line := range strings.Lines(texts[name]) {
			b.WriteString(line)
			code, _, _ := strings.Cut(line, "--")
			ends := !block && strings.HasSuffix(strings.TrimSpace(code), ";")
			switch strings.TrimSpace(line) {
			case "-- +goose StatementBegin":
				block = true
			case "-- +goose StatementEnd":
				block, ends = false, true
			}
			if ends {
				if statement == at {
					b.WriteString("SELECT die();\n")
				}
				statement++
			}
		}
		out[name] = &fstest.MapFile{Data: []byte(b.String())}
	}
	return out, nil
}

// A migration that is cut short at any statement leaves what the next start needs: all data, and a schema
// from which the same migrations go on.
func TestKilledMigration(t *testing.T) {
	fresh := openTest(t, Options{migrations: must(migrationsThatDie(-1))(t)})
	want := schema(t, fresh)
	o, _, log := filled(t, Options{})
	content := export(t, openTest(t, o))
	deaths := 0
	for at := 0; ; at++ {
		t.Setenv(childVariable+"_AT", strconv.Itoa(at))
		dir := t.TempDir()
		said, err := startChild(t, "migrate", dir).rest()
		if err == nil && slices.Equal(said, []string{"done"}) {
			break // there is no such statement
		}
		if err == nil || err.Error() != "signal: killed" {
			t.Fatalf("statement %d: the child said %v and ended with %v", at, said, err)
		}
		deaths++
		d := openTest(t, Options{Dir: dir, migrations: must(migrationsThatDie(-1))(t)})
		if got := schema(t, d); got != want {
			t.Errorf("killed after statement %d: the schema is\n%s\nwant\n%s", at, got, want)
		}
		if got := check(t, d); got != "ok" {
			t.Errorf("killed after statement %d: %s", at, got)
		}
		importTest(t, d, world)
		closeTest(t, d)
	}
	if deaths < 10 {
		t.Errorf("%d statements, want those of all migrations", deaths)
	}

	// And with data in it, which the last migration changes.
	for at := deaths - 3; at < deaths; at++ {
		t.Setenv(childVariable+"_AT", strconv.Itoa(at))
		if _, err := startChild(t, "migrate", o.Dir).rest(); err == nil || err.Error() != "signal: killed" {
			t.Fatalf("statement %d: the child ended with %v", at, err)
		}
		d := openTest(t, o) // as it was: the migration has not happened
		if got := export(t, d); got != content {
			t.Errorf("killed after statement %d: %s\nwant %s", at, got, content)
		}
		sameLog(t, d, log)
		closeTest(t, d)
		for _, name := range must(filepath.Glob(filepath.Join(o.Dir, File+".schema-*")))(t) {
			os.Remove(name) // a copy that is there is not written over, and these would be of the same second
		}
	}
	o.migrations = must(migrationsThatDie(-1))(t)
	d := openTest(t, o)
	if got := export(t, d); got != content {
		t.Errorf("migrated in the end: %s\nwant %s", got, content)
	}
	sameLog(t, d, log)
}

// schema is what the database says of itself, in order.
func schema(t *testing.T, d *DB) string {
	t.Helper()
	rows := must(collect(t.Context(), d.reader, func(row scanner) (s string, err error) { return s, row.Scan(&s) },
		"SELECT type || ' ' || name || ' ' || coalesce(sql, '') FROM sqlite_schema WHERE name NOT LIKE 'sqlite_%' AND name NOT LIKE '_litestream_%' ORDER BY 1"))(t)
	return strings.Join(rows, "\n")
}
