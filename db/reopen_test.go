package db

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/dezky/platform-api/flags"
)

// openDescriptors returns this process's descriptors of the database and its companions; skips where the
// system does not tell.
func openDescriptors(t *testing.T, d *DB) []string {
	t.Helper()
	entries, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		t.Skip("no /proc/self/fd here")
	}
	var out []string
	for _, e := range entries {
		if target, err := os.Readlink(filepath.Join("/proc/self/fd", e.Name())); err == nil && strings.HasPrefix(target, d.path) {
			out = append(out, target)
		}
	}
	return out
}

// While fn runs nothing of the database is open, and nobody who reads or writes at the time gets an error.
func TestReopen(t *testing.T) {
	d := openTest(t, Options{})
	must(d.CreateFlag(t.Context(), ops, flags.NewFlag{Key: "a"}))(t)
	stop := make(chan struct{})
	var others sync.WaitGroup
	var written int64
	others.Go(func() {
		for i := 0; ; i++ {
			select {
			case <-stop:
				return
			default:
			}
			if _, err := d.PatchFlag(context.Background(), ops, "a", flags.Patch{Pct: new(i % 2)}); err != nil {
				t.Errorf("a writer gets %v", err)
				return
			}
			written = d.Current().Flag("a").Version
		}
	})
	for range 3 {
		others.Go(func() {
			for {
				select {
				case <-stop:
					return
				default:
				}
				if _, err := d.History(context.Background(), HistoryFilter{Flag: "a", Limit: 50}); err != nil {
					t.Errorf("a reader gets %v", err)
					return
				}
				if _, err := d.Load(context.Background()); err != nil {
					t.Errorf("a reader's transaction gets %v", err)
					return
				}
			}
		})
	}
	for range 20 {
		err := d.Reopen(t.Context(), func(context.Context) error {
			if open := openDescriptors(t, d); len(open) > 0 {
				t.Errorf("open within Reopen: %v", open)
			}
			before := d.Current() // takes no lock
			if before.Flag("a") == nil {
				t.Error("the snapshot is gone")
			}
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	close(stop)
	others.Wait()
	if f := d.Current().Flag("a"); f.Version != written || written < 2 {
		t.Errorf("flag a is at version %d, the last that was acknowledged is %d", f.Version, written)
	}
	if open := openDescriptors(t, d); len(open) == 0 {
		t.Error("nothing of the database is ever seen open, so this test tells nothing")
	}
}

func TestReopenWaitsForReads(t *testing.T) {
	d := openTest(t, Options{})
	rows := must(d.reader.QueryContext(t.Context(), "SELECT 1 UNION SELECT 2"))(t)
	done := make(chan error, 1)
	var closed atomic.Bool
	go func() {
		done <- d.Reopen(context.Background(), func(context.Context) error {
			if !closed.Load() {
				t.Error("fn runs while rows are open")
			}
			return nil
		})
	}()
	for range 2 {
		if !rows.Next() {
			t.Errorf("the read under way ends early: %v", rows.Err())
		}
	}
	closed.Store(true)
	if rows.Next() || rows.Err() != nil { // after the last row this closes them
		t.Errorf("the read under way goes on with a third row or %v", rows.Err())
	}
	if err := <-done; err != nil {
		t.Fatal(err)
	}

	// One that does not end in time leaves everything as it was.
	rows = must(d.reader.QueryContext(t.Context(), "SELECT 1 UNION SELECT 2"))(t)
	ctx, cancel := context.WithCancel(t.Context())
	go cancel()
	err := d.Reopen(ctx, func(context.Context) error {
		t.Error("fn runs although a read did not end")
		return nil
	})
	if !errors.Is(err, context.Canceled) {
		t.Errorf("Reopen = %v, want context.Canceled", err)
	}
	// The next one counts it too, although it began on connections that have been replaced.
	ctx, cancel = context.WithCancel(t.Context())
	go cancel()
	if err := d.Reopen(ctx, func(context.Context) error { t.Error("fn runs while the first read goes on"); return nil }); !errors.Is(err, context.Canceled) {
		t.Errorf("the next Reopen = %v, want context.Canceled", err)
	}
	rows.Close()
	ran := false
	if err := d.Reopen(t.Context(), func(context.Context) error { ran = true; return nil }); err != nil || !ran {
		t.Errorf("after the read Reopen = %v, fn ran: %t", err, ran)
	}
	must(d.CreateFlag(t.Context(), ops, flags.NewFlag{Key: "a"}))(t)
}

func TestReopenAfterAnError(t *testing.T) {
	d := openTest(t, Options{})
	want := fmt.Errorf("no")
	if err := d.Reopen(t.Context(), func(context.Context) error { return want }); !errors.Is(err, want) {
		t.Errorf("Reopen = %v, want fn's error", err)
	}
	must(d.CreateFlag(t.Context(), ops, flags.NewFlag{Key: "a"}))(t)
	must(d.History(t.Context(), HistoryFilter{Limit: 1}))(t)
}
