package replica

import (
	"strings"
	"testing"
	"time"

	"github.com/dezky/platform-api/db"
)

func TestRestoreOnBoot(t *testing.T) {
	onEach(t, func(t *testing.T, c *Config) {
		dir := dirs(t)
		n := serve(t, Options{Config: c, Dir: dir, FirstBoot: true})
		if _, restored := n.Restored(); restored {
			t.Error("a first boot says that it restored something")
		}
		n.create(t, "a", "b")
		n.synced(t)
		if s := n.Status(); s.State != OK || s.Pending != 0 || s.Position == 0 || s.LastSuccess.IsZero() || s.LastError != "" || s.Late() {
			t.Errorf("Status = %+v", s)
		}
		epoch, revision := n.db.Current().Epoch(), n.db.Current().Revision()
		if err := n.stop(); err != nil {
			t.Fatal(err)
		}
		lose(t, dir)

		n = serve(t, Options{Config: c, Dir: dir})
		if names(n.db) != "a b" || n.db.Current().Revision() != revision {
			t.Errorf("restored: %s at revision %d, want a b at %d", names(n.db), n.db.Current().Revision(), revision)
		}
		if n.db.Current().Epoch() == epoch {
			t.Error("the database that came from the replica has the old epoch")
		}
		restored, ok := n.Restored()
		if !ok || restored.Contents.Revision != revision || restored.Contents.Flags != 2 || restored.Took <= 0 {
			t.Errorf("Restored = %+v, %t", restored, ok)
		}
		integrity(t, n)
		second := n.db.Current().Epoch()
		n.create(t, "c")
		n.synced(t)
		if err := n.stop(); err != nil {
			t.Fatal(err)
		}

		// A restart with its data keeps the epoch, and goes on where it was.
		n = serve(t, Options{Config: c, Dir: dir})
		if n.db.Current().Epoch() != second || names(n.db) != "a b c" {
			t.Errorf("restarted: epoch %s, want %s; flags %s", n.db.Current().Epoch(), second, names(n.db))
		}
		n.create(t, "d")
		n.synced(t)
		n.stop()
		lose(t, dir)
		n = serve(t, Options{Config: c, Dir: dir})
		if names(n.db) != "a b c d" {
			t.Errorf("restored again: %s", names(n.db))
		}
		if third := n.db.Current().Epoch(); third == second || third == epoch {
			t.Errorf("epoch %s was there before", third)
		}
	})
}

// The stop's last sync takes along what no beat has.
func TestLastSync(t *testing.T) {
	onEach(t, func(t *testing.T, c *Config) {
		lazy := swift
		lazy.beat, lazy.gap = time.Hour, time.Hour
		dir := dirs(t)
		n := serve(t, Options{Config: c, Dir: dir, FirstBoot: true, pace: &lazy})
		for _, key := range strings.Fields("a b c d e") {
			n.create(t, key)
		}
		if err := n.stop(); err != nil {
			t.Fatal(err)
		}
		lose(t, dir)
		if n = serve(t, Options{Config: c, Dir: dir}); names(n.db) != "a b c d e" {
			t.Errorf("restored: %s", names(n.db))
		}
	})
}

// Trap C: an unmounted directory or a mistyped prefix is no empty database.
func TestFirstBoot(t *testing.T) {
	onEach(t, func(t *testing.T, c *Config) {
		dir := dirs(t)
		_, err := begin(t.Context(), Options{Config: c, Dir: dir})
		if err == nil || !strings.Contains(err.Error(), "-first-boot") || !strings.Contains(err.Error(), c.String()) {
			t.Fatalf("neither database nor backup: %v, want that it names -first-boot", err)
		}
		if _, err := db.InspectBeside(t.Context(), dir); err == nil {
			t.Error("it made a database")
		}
		n := serve(t, Options{Config: c, Dir: dir, FirstBoot: true})
		n.create(t, "a")
		n.synced(t)
		n.stop()
		lose(t, dir)
		if n = serve(t, Options{Config: c, Dir: dir, FirstBoot: true}); names(n.db) != "a" {
			t.Errorf("with a backup there, -first-boot starts with %q", names(n.db))
		}
	})
}
