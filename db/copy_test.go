package db

import (
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"

	"github.com/dezky/platform-api/flags"
)

// copyOf copies the database as a backup does.
func copyOf(t *testing.T, d *DB) string {
	t.Helper()
	name := filepath.Join(t.TempDir(), "copy.db")
	if _, err := d.writer.ExecContext(t.Context(), "VACUUM INTO ?", name); err != nil {
		t.Fatal(err)
	}
	return name
}

func TestInspect(t *testing.T) {
	d := openTest(t, Options{Now: newClock().now})
	must(d.CreatePartner(t.Context(), ops, flags.PartnerPatch{Slug: new("nordic"), Name: new("Nordic")}))(t)
	must(d.CreateFlag(t.Context(), ops, flags.NewFlag{Key: "a"}))(t)
	must(d.PatchFlag(t.Context(), ops, "a", flags.Patch{Pct: new(7)}))(t)
	name := copyOf(t, d)
	c := must(Inspect(t.Context(), name))(t)
	if c.Empty || c.Epoch != d.Current().Epoch() || c.Revision != 3 || c.Flags != 1 || c.Tenants != 0 || c.Partners != 1 || c.Entries != 3 ||
		c.Last.ID != 3 || c.Last.Name != "a" || c.Last.Action != flags.Updated || !c.Last.At.Equal(newClock().now()) || c.Last.Actor != ops.Actor {
		t.Errorf("Inspect = %+v", c)
	}
	if beside := must(InspectBeside(t.Context(), d.opts.Dir))(t); !reflect.DeepEqual(beside, c) {
		t.Errorf("InspectBeside = %+v, want %+v", beside, c)
	}
	if entries := must(os.ReadDir(filepath.Dir(name)))(t); len(entries) != 1 {
		t.Errorf("Inspect left %v", entries)
	}

	other := c.Last
	other.Action = flags.Killed
	for e, want := range map[flags.Action]bool{c.Last.Action: true, other.Action: false} {
		entry := c.Last
		entry.Action = e
		if got := must(HasEntry(t.Context(), d.opts.Dir, entry))(t); got != want {
			t.Errorf("HasEntry(%s) = %t, want %t", e, got, want)
		}
	}

	// A byte that is not what it was is found.
	data := must(os.ReadFile(name))(t)
	for i := len(data) - 4096; i < len(data); i++ {
		data[i] ^= 0xff
	}
	if err := os.WriteFile(name, data, 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := Inspect(t.Context(), name); err == nil {
		t.Error("a corrupt file passes")
	}
}

func TestCreateEmpty(t *testing.T) {
	dir := t.TempDir()
	if err := Create(t.Context(), dir); err != nil {
		t.Fatal(err)
	}
	if info := must(os.Stat(filepath.Join(dir, File)))(t); info.Size() == 0 || info.Mode().Perm() != 0o600 {
		t.Errorf("the file has %d bytes and mode %s", info.Size(), info.Mode())
	}
	if c := must(Inspect(t.Context(), filepath.Join(dir, File)))(t); !c.Empty {
		t.Errorf("Inspect = %+v, want that it is empty", c)
	}
	if has := must(HasEntry(t.Context(), dir, flags.Entry{ID: 1}))(t); has {
		t.Error("an empty database has an entry")
	}
	if err := RequireKnownSchema(t.Context(), dir); err != nil {
		t.Errorf("an empty database: %v", err)
	}
	d := openTest(t, Options{Dir: dir})
	if err := RequireKnownSchema(t.Context(), dir); err != nil {
		t.Errorf("a database of our own: %v", err)
	}
	if _, err := d.writer.ExecContext(t.Context(), "INSERT INTO goose_db_version (version_id, is_applied) VALUES (9000, 1)"); err != nil {
		t.Fatal(err)
	}
	if err := RequireKnownSchema(t.Context(), dir); err == nil || !strings.Contains(err.Error(), "schema 9000, newer") {
		t.Errorf("a newer database: %v", err)
	}
}
