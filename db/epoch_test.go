package db

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/dezky/platform-api/flags"
)

func TestEpochOfARestoredDatabase(t *testing.T) {
	d := openTest(t, Options{})
	must(d.CreateFlag(t.Context(), ops, flags.NewFlag{Key: "a"}))(t)
	first, revision := d.Current().Epoch(), d.Current().Revision()
	d = reopen(t, d)
	if got := d.Current().Epoch(); got != first {
		t.Fatalf("a database of our own has epoch %s after a restart, was %s", got, first)
	}

	if err := MarkRestored(d.opts.Dir); err != nil {
		t.Fatal(err)
	}
	d = reopen(t, d)
	second := d.Current().Epoch()
	if second == first {
		t.Error("a database that came from a replica kept its epoch")
	}
	if got := d.Current().Revision(); got != revision {
		t.Errorf("revision %d, was %d", got, revision)
	}
	if got := must(InspectBeside(t.Context(), d.opts.Dir))(t).Epoch; got != second {
		t.Errorf("the file has epoch %s, served is %s", got, second)
	}
	if got := must(reopen(t, d).Load(t.Context()))(t).Epoch(); got != second {
		t.Errorf("the next start has epoch %s, want %s: once is enough", got, second)
	}
}

// A crash after the new epoch's commit and before the mark is gone costs one epoch more.
func TestEpochAfterACrash(t *testing.T) {
	d := openTest(t, Options{})
	if err := MarkRestored(d.opts.Dir); err != nil {
		t.Fatal(err)
	}
	name := filepath.Join(d.opts.Dir, restoredFile)
	text := must(os.ReadFile(name))(t)
	d = reopen(t, d)
	second := d.Current().Epoch()
	if _, err := os.Stat(name); !os.IsNotExist(err) {
		t.Fatalf("the mark: %v, want that it is gone", err)
	}
	if err := os.WriteFile(name, text, 0o600); err != nil {
		t.Fatal(err)
	}
	if d = reopen(t, d); d.Current().Epoch() == second {
		t.Error("the mark was there, and the epoch is the old one")
	}
	if err := UnmarkRestored(d.opts.Dir); err != nil {
		t.Errorf("UnmarkRestored without a mark: %v", err)
	}
}
