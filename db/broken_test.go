package db

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strings"
	"testing"

	"github.com/dezky/platform-api/flags"
)

// A database whose file is gone takes no change, is not made anew, and what is served goes on.
func TestFileGone(t *testing.T) {
	for name, lose := range map[string]func(d *DB) error{
		"removed": func(d *DB) error { return os.Remove(d.path) },
		"replaced": func(d *DB) error {
			return errors.Join(os.Rename(d.path, d.path+".old"), os.WriteFile(d.path, nil, 0o600))
		},
	} {
		t.Run(name, func(t *testing.T) {
			d := openTest(t, Options{})
			must(d.CreateFlag(t.Context(), ops, flags.NewFlag{Key: "a"}))(t)
			if trouble := d.Trouble(); trouble != "" {
				t.Errorf("Trouble() = %q before there is any", trouble)
			}
			if err := lose(d); err != nil {
				t.Fatal(err)
			}
			_, err := d.PatchFlag(t.Context(), ops, "a", flags.Patch{Pct: new(7)})
			if reason, broken := Broken(err); !broken || !strings.Contains(reason, "removed or replaced") {
				t.Errorf("a change gets %v, want that the file is gone", err)
			}
			if d.Trouble() == "" {
				t.Error("Trouble() is silent")
			}
			if f := d.Current().Flag("a"); f.Pct != 0 {
				t.Errorf("served is %s, want the flag as it was", show(f))
			}
			if err := d.Reopen(t.Context(), func(context.Context) error { return nil }); err != nil {
				t.Fatal(err)
			}
			if _, err := d.History(t.Context(), HistoryFilter{Limit: 1}); err == nil {
				t.Error("a history is read from nothing")
			}
			if info, err := os.Stat(d.path); name == "removed" && err == nil {
				t.Errorf("the file was made anew, %d bytes", info.Size())
			}
		})
	}
}

// A file that is back is no trouble any more, before anybody makes a change.
func TestFileBack(t *testing.T) {
	d := openTest(t, Options{})
	must(d.CreateFlag(t.Context(), ops, flags.NewFlag{Key: "a"}))(t)
	if err := os.Rename(d.path, d.path+".away"); err != nil {
		t.Fatal(err)
	}
	if _, err := d.PatchFlag(t.Context(), ops, "a", flags.Patch{Pct: new(7)}); err == nil || d.Trouble() == "" {
		t.Errorf("a change without the file: %v, and Trouble() = %q", err, d.Trouble())
	}
	if err := os.Rename(d.path+".away", d.path); err != nil {
		t.Fatal(err)
	}
	if trouble := d.Trouble(); trouble != "" {
		t.Errorf("Trouble() = %q with the file back", trouble)
	}
	must(d.PatchFlag(t.Context(), ops, "a", flags.Patch{Pct: new(7)}))(t)
}

func TestBroken(t *testing.T) {
	d := openTest(t, Options{})
	must(d.CreateFlag(t.Context(), ops, flags.NewFlag{Key: "a"}))(t)
	if _, err := d.writer.ExecContext(t.Context(), "PRAGMA query_only = 1"); err != nil {
		t.Fatal(err)
	}
	_, err := d.PatchFlag(t.Context(), ops, "a", flags.Patch{Pct: new(7)})
	if reason, broken := Broken(fmt.Errorf("wrapped: %w", err)); !broken || reason != "its file can't be written" || d.Trouble() != reason {
		t.Errorf("read-only: %q, %t, and Trouble() = %q: %v", reason, broken, d.Trouble(), err)
	}
	if _, err := d.writer.ExecContext(t.Context(), "PRAGMA query_only = 0"); err != nil {
		t.Fatal(err)
	}
	must(d.PatchFlag(t.Context(), ops, "a", flags.Patch{Pct: new(7)}))(t)
	if trouble := d.Trouble(); trouble != "" {
		t.Errorf("Trouble() = %q after a change that succeeded", trouble)
	}
	for _, err := range []error{nil, flags.ErrNotFound, &flags.Invalid{}} {
		if reason, broken := Broken(err); broken {
			t.Errorf("Broken(%v) = %q", err, reason)
		}
	}
}

// What only reads notice is told too, until a read succeeds.
func TestReadsNoticeTrouble(t *testing.T) {
	d := openTest(t, Options{})
	must(d.CreateFlag(t.Context(), ops, flags.NewFlag{Key: "a"}))(t)
	var whole []byte
	damage := func(text []byte) {
		t.Helper()
		err := d.Reopen(t.Context(), func(context.Context) (err error) {
			if whole == nil {
				whole, err = os.ReadFile(d.path)
			}
			return errors.Join(err, os.WriteFile(d.path, text, 0o600)) // the same file, of other content
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	damage([]byte(strings.Repeat("rubbish ", 2048)))
	if _, err := d.Tokens(t.Context()); err == nil {
		t.Fatal("tokens are read out of rubbish")
	}
	if trouble := d.Trouble(); trouble != "its file is damaged" {
		t.Errorf("Trouble() = %q, want that the file is damaged", trouble)
	}
	damage(whole)
	must(d.Tokens(t.Context()))(t)
	if trouble := d.Trouble(); trouble != "" {
		t.Errorf("Trouble() = %q after a read that succeeded", trouble)
	}
}
