package db

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/dezky/platform-api/flags"
)

// Fifty writers, readers of all sorts and another process, all at once: no error anywhere, every
// acknowledged change is in the log once, and snapshots come in the order of revisions.
func TestManyAtOnce(t *testing.T) {
	const writers, changes, keys = 50, 8, 7
	d := openTest(t, Options{})
	importTest(t, d, world)
	for k := range keys {
		must(d.CreateFlag(t.Context(), ops, newFlag(t, fmt.Sprintf(`{"key": "k%d"}`, k))))(t)
	}
	start := d.Current().Revision()

	command := startChild(t, "tokens", d.opts.Dir)
	tokens := []string{command.line(t)}

	// Each reader reads again whenever something has changed since.
	var reading, writing sync.WaitGroup
	var wakes []chan struct{}
	read := func(name string, once func() error) {
		wake := make(chan struct{}, 1)
		wakes = append(wakes, wake)
		reading.Go(func() {
			for range wake {
				if err := once(); err != nil {
					t.Errorf("%s: %v", name, err)
				}
			}
		})
	}
	changed := func() {
		for _, wake := range wakes {
			select {
			case wake <- struct{}{}:
			default:
			}
		}
	}
	read("History", func() error {
		log, err := d.History(context.Background(), HistoryFilter{Limit: 50})
		for i := 1; i < len(log); i++ {
			if log[i-1].ID != log[i].ID+1 || log[i-1].Revision < log[i].Revision {
				return fmt.Errorf("entry %d of revision %d follows entry %d of revision %d", log[i-1].ID, log[i-1].Revision, log[i].ID, log[i].Revision)
			}
		}
		return err
	})
	read("Tokens", func() error {
		_, err := d.Tokens(context.Background())
		return err
	})
	loaded := start
	read("Load", func() error {
		s, err := d.Load(context.Background())
		if err != nil {
			return err
		}
		versions := int64(0) // one transaction of reading sees one revision
		for _, f := range s.Flags() {
			versions += f.Version
		}
		if s.Revision() < loaded || versions-keys != s.Revision()-start {
			return fmt.Errorf("revision %d after %d, with versions that add up to %d", s.Revision(), loaded, versions)
		}
		loaded = s.Revision()
		return nil
	})
	current := d.Current()
	read("Current", func() error {
		next := d.Current()
		if next.Revision() < current.Revision() {
			return fmt.Errorf("revision %d after %d", next.Revision(), current.Revision())
		}
		for _, f := range next.Flags() {
			if f.Version < current.Flag(f.Key).Version {
				return fmt.Errorf("flag %s at version %d after %d", f.Key, f.Version, current.Flag(f.Key).Version)
			}
		}
		current = next
		return nil
	})

	type change struct {
		key     string
		version int64
		text    string
	}
	acknowledged := make(chan change, writers*changes)
	for w := range writers {
		writing.Go(func() {
			for i := range changes {
				key, text := fmt.Sprintf("k%d", (w+i)%keys), fmt.Sprintf("%d of writer %d", i, w)
				f, err := d.PatchFlag(context.Background(), ops, key, flags.Patch{Description: &text})
				if err != nil {
					t.Errorf("writer %d: %v", w, err)
					return
				}
				if got := d.Current().Flag(key).Version; got < f.Version {
					t.Errorf("flag %s is at version %d in the snapshot when %d is acknowledged", key, got, f.Version)
				}
				acknowledged <- change{key, f.Version, text}
				changed()
			}
		})
	}
	writing.Wait()
	for _, wake := range wakes {
		close(wake)
	}
	reading.Wait()
	close(acknowledged)
	command.stdin.Close()
	more, err := command.rest()
	if err != nil {
		t.Errorf("the process beside: %v", err)
	}
	tokens = append(tokens, more...)

	want := map[change]int{}
	for c := range acknowledged {
		want[c]++
	}
	got, last, revision := map[change]int{}, map[string]int64{}, start
	log := history(t, d, HistoryFilter{})
	slices.Reverse(log)
	for _, e := range log {
		if e.Kind != flags.KindFlag {
			continue
		}
		if last[e.Name]++; e.Version != last[e.Name] {
			t.Errorf("entry %d: version %d of flag %s, want %d", e.ID, e.Version, e.Name, last[e.Name])
		}
		if e.Action == flags.Created {
			continue
		}
		if revision++; e.Revision != revision {
			t.Errorf("entry %d: revision %d, want %d", e.ID, e.Revision, revision)
		}
		var text string
		if _, err := fmt.Sscanf(string(e.Changes["description"].To), "%q", &text); err != nil {
			t.Fatal(err)
		}
		got[change{e.Name, e.Version, text}]++
	}
	if len(want) != writers*changes {
		t.Errorf("%d different changes were acknowledged, want %d", len(want), writers*changes)
	}
	for c, n := range want {
		if n != 1 || got[c] != 1 {
			t.Errorf("%+v was acknowledged %d times and is in the log %d times, want once each", c, n, got[c])
		}
	}
	if len(got) != len(want) {
		t.Errorf("the log has %d changes, want %d", len(got), len(want))
	}
	if got, want := d.Current().Revision(), start+writers*changes; got != want {
		t.Errorf("revision %d, want %d", got, want)
	}
	if got := must(d.Tokens(t.Context()))(t); len(got) != len(tokens) {
		t.Errorf("%d tokens, want %d", len(got), len(tokens))
	}
	s := d.Current()
	same(t, must(d.Load(t.Context()))(t), s)
	same(t, reopen(t, d).Current(), s)
}

// entered is a change that says when it has its turn, and keeps it until release.
func entered(d *DB) (release func()) {
	in, out, done := make(chan struct{}), make(chan struct{}), make(chan struct{})
	go func() {
		defer close(done)
		d.change(context.Background(), ops, func(*tx) error {
			close(in)
			<-out
			return nil
		})
	}()
	<-in
	return func() {
		close(out)
		<-done
	}
}

// Who reads waits for nobody who writes, nor the other way round.
func TestReadersAndWriterDoNotWait(t *testing.T) {
	d := openTest(t, Options{})
	importTest(t, d, world)
	second := beside(t, d)
	release := entered(d)
	defer release()
	for name, db := range map[string]*DB{"the server's own": d, "beside": second} {
		if s, err := db.Load(t.Context()); err != nil || s.Revision() != 1 {
			t.Errorf("Load %s, while a change is under way: %v, want revision 1", name, err)
		}
		if log, err := db.History(t.Context(), HistoryFilter{Limit: 10}); err != nil || len(log) != 6 {
			t.Errorf("History %s, while a change is under way: %d entries, %v, want 6", name, len(log), err)
		}
	}
}

func TestCancelledWhileWaiting(t *testing.T) {
	d := openTest(t, Options{})
	before := d.Current()
	body := newFlag(t, `{"key": "search"}`)
	writes := map[string]func(context.Context) error{
		"CreateFlag": func(ctx context.Context) error {
			_, err := d.CreateFlag(ctx, ops, body)
			return err
		},
		"Import": func(ctx context.Context) error {
			_, err := d.Import(ctx, ops, flags.Document{Flags: []flags.NewFlag{body}}, Import{})
			return err
		},
		"CreateToken": func(ctx context.Context) error {
			_, _, err := d.CreateToken(ctx, ops, NewToken{Name: "ci", Role: "read"})
			return err
		},
		"TouchTokens": func(ctx context.Context) error {
			return d.TouchTokens(ctx, map[string]time.Time{"x": time.Now()})
		},
	}
	for name, write := range writes {
		t.Run(name, func(t *testing.T) {
			release := entered(d)
			ctx, cancel := context.WithCancel(t.Context())
			failed := make(chan error)
			go func() { failed <- write(ctx) }()
			cancel()
			if err := <-failed; !errors.Is(err, context.Canceled) {
				t.Errorf("cancelled while another writes: %v, want context.Canceled", err)
			}
			release()
			for range 20 { // with nobody in the way, too, every time
				if err := write(ctx); !errors.Is(err, context.Canceled) {
					t.Fatalf("cancelled before it begins: %v, want context.Canceled", err)
				}
			}
		})
	}
	if d.Current() != before {
		t.Error("something was published")
	}
	if log := history(t, d, HistoryFilter{}); len(log) > 0 {
		t.Errorf("the log has %q, want nothing", headlines(log))
	}
	// The turn was given back each time.
	must(d.CreateFlag(t.Context(), ops, body))(t)
}

// A change that has begun ends, whatever becomes of who asked for it.
func TestCancelledOnceBegun(t *testing.T) {
	cancel := func() {}
	c := newClock()
	d := openTest(t, Options{Now: func() time.Time {
		cancel() // asked within the transaction
		return c.now()
	}})
	ctx, cancelled := context.WithCancel(t.Context())
	cancel = cancelled
	f, err := d.CreateFlag(ctx, ops, newFlag(t, `{"key": "search", "note": "whole"}`))
	if err != nil || ctx.Err() == nil {
		t.Fatalf("CreateFlag = %s, %v, in a context that is %v, want the flag, and a cancelled context", show(f), err, ctx.Err())
	}
	if got, want := headlines(history(t, d, HistoryFilter{})), []string{`created flag search v1 "whole"`}; !slices.Equal(got, want) {
		t.Errorf("the log has %q, want %q", got, want)
	}
	s := d.Current()
	if s.Flag("search") == nil || s.Revision() != 1 {
		t.Errorf("the snapshot of revision %d has %s, want the flag at revision 1", s.Revision(), show(s.Flags()))
	}
	same(t, reopen(t, d).Current(), s)
}

// Whatever goes wrong within a change, nothing of it stays, and the next one can go on.
func TestFailedChange(t *testing.T) {
	d := openTest(t, Options{})
	before := d.Current()
	failure := errors.New("on purpose")
	write := func(end func() error) error {
		return d.change(t.Context(), ops, func(tx *tx) error {
			if _, err := tx.createFlag(flags.NewFlag{Key: "search"}); err != nil {
				return err
			}
			return end()
		})
	}
	if err := write(func() error { return failure }); err != failure {
		t.Errorf("change: %v, want the error itself", err)
	}
	if err := write(func() error { return errRollback }); err != nil {
		t.Errorf("change that rolls back: %v, want no error", err)
	}
	// One that fails as late as a change can.
	err := d.change(t.Context(), ops, func(tx *tx) error {
		_, err := tx.createFlag(flags.NewFlag{Key: "search"})
		return errors.Join(err, tx.exec("PRAGMA defer_foreign_keys = ON"),
			tx.exec("INSERT INTO tenants ("+tenantColumns+") VALUES ('t1', 'acme', 'Acme', 'starter', 'nobody', 'active', '{}', '{}', 1, 1, 1)"))
	})
	if err == nil || !strings.HasPrefix(err.Error(), "commit: ") || !strings.Contains(err.Error(), "FOREIGN KEY constraint failed") {
		t.Errorf("change that does not commit: %v, want that it does not", err)
	}
	func() {
		defer func() {
			if got := recover(); got != failure {
				t.Errorf("change that panics: recovered %v, want the panic itself", got)
			}
		}()
		write(func() error { panic(failure) })
	}()
	if d.Current() != before || len(history(t, d, HistoryFilter{})) > 0 {
		t.Errorf("of failed changes there is revision %d, %q", d.Current().Revision(), headlines(history(t, d, HistoryFilter{})))
	}
	if err := write(func() error { return nil }); err != nil {
		t.Fatal(err)
	}
	if got, want := d.Current().Revision(), int64(1); got != want {
		t.Errorf("revision %d, want %d", got, want)
	}
}

// A server that finds the database ahead of it must not go on as if it were alone.
func TestAnotherWriter(t *testing.T) {
	a := openTest(t, Options{})
	b := openTest(t, a.opts) // which the lock is there to prevent
	must(b.CreateFlag(t.Context(), ops, newFlag(t, `{"key": "b"}`)))(t)
	_, err := a.CreateFlag(t.Context(), ops, newFlag(t, `{"key": "a"}`))
	if want := "the database is at revision 1, this process at 0: another process wrote to it"; err == nil || err.Error() != want {
		t.Errorf("CreateFlag: %v, want %s", err, want)
	}
	if got, want := headlines(history(t, a, HistoryFilter{})), []string{"created flag b v1"}; !slices.Equal(got, want) {
		t.Errorf("the log has %q, want %q", got, want)
	}
}
