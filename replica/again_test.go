package replica

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/benbjohnson/litestream"
	"github.com/johannesboyne/gofakes3"
	"github.com/johannesboyne/gofakes3/backend/s3mem"

	"github.com/dezky/platform-api/db"
	"github.com/dezky/platform-api/flags"
)

// hooked is a bucket whose requests go through a function first, which tells whether it has answered.
func hooked(t *testing.T, hook func(w http.ResponseWriter, r *http.Request) bool) *Config {
	t.Helper()
	backend := s3mem.New()
	if err := backend.CreateBucket("backups"); err != nil {
		t.Fatal(err)
	}
	bucket := gofakes3.New(backend).Server()
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if !hook(w, r) {
			bucket.ServeHTTP(w, r)
		}
	}))
	t.Cleanup(server.Close)
	return must(Parse("s3://backups/platform?endpoint="+server.URL, keys()))(t)
}

// stall is a hook that keeps requests waiting while it is on.
type stall struct {
	on     atomic.Bool
	which  func(r *http.Request) bool
	caught chan struct{} // a request waits
}

func newStall(which func(r *http.Request) bool) *stall {
	return &stall{which: which, caught: make(chan struct{}, 1)}
}

func (s *stall) hook(_ http.ResponseWriter, r *http.Request) bool {
	if !s.on.Load() || !s.which(r) {
		return false
	}
	io.Copy(io.Discard, r.Body) // else the server does not notice that the client has gone
	wake(s.caught)
	<-r.Context().Done()
	return true
}

// existing makes a data directory with a database that no replica has had, of so many flags.
func existing(t *testing.T, keys ...string) string {
	t.Helper()
	dir := dirs(t)
	d := must(db.Open(t.Context(), db.Options{Dir: dir, Environments: environments}))(t)
	(&node{db: d}).create(t, keys...)
	if err := d.Close(); err != nil {
		t.Fatal(err)
	}
	return dir
}

// whole waits until the first snapshot is in a file replica, which comes by itself after a start.
func whole(t *testing.T, c *Config) {
	t.Helper()
	until(t, "the first snapshot is there", func() bool {
		files, err := filepath.Glob(filepath.Join(c.dir, "ltx", "9", "*.ltx"))
		return err == nil && len(files) > 0
	})
}

// The right to write is gone, and can't be had again for a reason that is neither an outage nor another writer.
func TestLockCannotBeTaken(t *testing.T) {
	c := outages["file"](t)
	n := serve(t, Options{Config: c.Config, Dir: dirs(t), FirstBoot: true})
	n.create(t, "a")
	n.synced(t)
	whole(t, c.Config)
	c.away()
	if err := os.MkdirAll(filepath.Join(c.dir, lockFile), 0o700); err != nil {
		t.Fatal(err)
	}
	n.create(t, "b")
	until(t, "the server says that the lock can't be taken", func() bool {
		s := n.Status()
		return s.State == Away && strings.Contains(s.LastError, lockFile)
	})
	for range 5 { // and goes on trying
		ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
		if err := n.Wait(ctx); err == nil {
			t.Error("Wait says that the replica has what it can't have")
		}
		cancel()
	}
	c.back()
	n.untilState(t, OK)
	n.synced(t)
	if r := must(Check(t.Context(), c.Config, t.TempDir()))(t); r.Contents.Flags != 2 {
		t.Errorf("the replica has %+v", r.Contents)
	}
}

// A lock that is gone again soon after it was taken again.
func TestLockGoneTwice(t *testing.T) {
	c := fileReplica(t)
	patient := swift
	patient.retry = waitFor
	n := serve(t, Options{Config: c, Dir: dirs(t), FirstBoot: true, pace: &patient})
	lock := filepath.Join(c.dir, lockFile)
	for _, key := range strings.Fields("a b c") {
		if err := os.Remove(lock); err != nil {
			t.Fatal(err)
		}
		n.create(t, key)
		err := n.Wait(t.Context())
		r := must(Check(t.Context(), c, t.TempDir()))(t)
		if err != nil || r.Contents.Revision != n.db.Current().Revision() {
			t.Fatalf("Wait = %v with the replica at revision %d, want %d", err, r.Contents.Revision, n.db.Current().Revision())
		}
		if _, err := os.Stat(lock); err != nil {
			t.Fatal(err)
		}
	}
}

// Another's lease that has long run out by our clock may be renewed all the same.
func TestLeaseOfAnotherClock(t *testing.T) {
	c := s3Replica(t)
	overwriteLease(t, c, `{"generation":7,"expires_at":"2020-01-01T00:00:00Z","owner":"other:/data since 2020-01-01T00:00:00Z"}`)
	n := serve(t, Options{Config: c, Dir: existing(t)})
	n.untilState(t, OK)
	if !strings.Contains(n.log.String(), "has another writer; waiting") {
		t.Error("the lease was taken without a look whether it is renewed")
	}
}

// After a stall of the whole process the timer that ends a lease may not have fired yet.
func TestLeaseAfterAStall(t *testing.T) {
	l := &lease{pace: pace{lease: 10 * time.Millisecond}}
	l.extend(&litestream.Lease{}, time.Now())
	l.expire.Stop()
	until(t, "the lease ends without its timer", func() bool { _, err := l.valid(); return errors.Is(err, errLapsed) })
	if l.ctx.Err() == nil {
		t.Error("what is under way is not ended")
	}
	l.extend(&litestream.Lease{}, time.Now().Add(time.Hour))
	if _, err := l.valid(); err != nil {
		t.Errorf("renewed: %v", err)
	}
}

// A migration between Open and Start may take longer than a lease lasts.
func TestLeaseBetweenOpenAndStart(t *testing.T) {
	r := must(Open(t.Context(), Options{Config: s3Replica(t), Dir: dirs(t), FirstBoot: true, Log: slog.New(slog.DiscardHandler), pace: &swift}))(t)
	l := r.hold.(*lease)
	tag := func() string {
		l.mu.Lock()
		defer l.mu.Unlock()
		return l.now.ETag
	}
	first := tag()
	until(t, "the lease is renewed", func() bool { return tag() != first })
	if err := r.Close(t.Context()); err != nil {
		t.Error(err)
	}
}

// A database that exists meets an empty replica that fails at first.
func TestFirstUploadFails(t *testing.T) {
	var failing atomic.Bool
	c := hooked(t, func(w http.ResponseWriter, r *http.Request) bool {
		if failing.Load() && r.Method == http.MethodPut && strings.HasSuffix(r.URL.Path, ".ltx") {
			http.Error(w, "not now", http.StatusForbidden)
			return true
		}
		return false
	})
	for _, restart := range []bool{false, true} {
		t.Run(fmt.Sprintf("restart %t", restart), func(t *testing.T) {
			c := *c
			c.prefix = fmt.Sprint("restart-", restart)
			dir := existing(t, "a", "b")
			failing.Store(true)
			n := serve(t, Options{Config: &c, Dir: dir})
			n.untilState(t, Away)
			if restart {
				n.stop()
			}
			failing.Store(false)
			if restart {
				n = serve(t, Options{Config: &c, Dir: dir})
			}
			n.untilState(t, OK)
			n.synced(t)
			if r := must(Check(t.Context(), &c, t.TempDir()))(t); r.Contents.Flags != 2 {
				t.Errorf("the replica has %+v", r.Contents)
			}
		})
	}
}

type loggedClient struct {
	litestream.ReplicaClient
	set int
}

func (c *loggedClient) SetLogger(*slog.Logger) { c.set++ }

// Litestream sets the logger of its client when it begins, and a drill may be using the client.
func TestGateKeepsTheLogger(t *testing.T) {
	dir := existing(t)
	client := &loggedClient{ReplicaClient: must(fileReplica(t).client())(t)}
	e := must(startEngine(t.Context(), dir, client, &grant{ctx: context.Background()}, slog.New(slog.DiscardHandler)))(t)
	defer e.abandon()
	if client.set != 0 {
		t.Errorf("the client's logger was set %d times by whom it does not belong to", client.set)
	}
}

// A storage that takes requests and never answers.
func TestHangs(t *testing.T) {
	t.Run("at the lease", func(t *testing.T) {
		s := newStall(func(r *http.Request) bool { return strings.HasSuffix(r.URL.Path, "lock.json") })
		s.on.Store(true)
		brief := swift
		brief.sync, brief.lease = 50*time.Millisecond, 50*time.Millisecond
		ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
		defer cancel()
		n := must(begin(ctx, Options{Config: hooked(t, s.hook), Dir: existing(t, "a"), pace: &brief}))(t)
		defer n.stop()
		if ctx.Err() != nil {
			t.Error("the start waits for ever")
		}
		n.untilState(t, Away)
	})
	t.Run("at a snapshot", func(t *testing.T) {
		s := newStall(func(r *http.Request) bool {
			return r.Method == http.MethodPut && strings.Contains(r.URL.Path, "/0009/")
		})
		brief := swift
		brief.sync = time.Second
		n := serve(t, Options{Config: hooked(t, s.hook), Dir: existing(t, "a"), pace: &brief})
		n.synced(t)
		until(t, "the first snapshot is there", func() bool {
			info, err := litestream.NewReplicaWithClient(nil, n.client).MaxLTXFileInfo(t.Context(), litestream.SnapshotLevel)
			return err == nil && info.MaxTXID > 0
		})
		s.on.Store(true)
		ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
		defer cancel()
		if err := n.askSnapshot(ctx, false); ctx.Err() != nil {
			t.Errorf("the loop waits for ever: %v", err)
		}
		s.on.Store(false)
	})
}

// A drill that its asker gives up on says nothing about the replica, and nobody waits for another's for ever.
func TestDrillGivenUp(t *testing.T) {
	s := newStall(func(r *http.Request) bool { return r.Method == http.MethodGet && strings.HasSuffix(r.URL.Path, ".ltx") })
	n := serve(t, Options{Config: hooked(t, s.hook), Dir: dirs(t), FirstBoot: true})
	n.synced(t)
	s.on.Store(true)
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan Drill)
	go func() { done <- n.RunDrill(ctx) }()
	<-s.caught
	brief, end := context.WithTimeout(t.Context(), 20*time.Millisecond)
	defer end()
	if d := n.RunDrill(brief); d.Error == "" {
		t.Errorf("a drill beside another: %+v", d)
	}
	cancel()
	if d := <-done; d.Error == "" {
		t.Errorf("a drill that was given up: %+v", d)
	}
	s.on.Store(false)
	if d := n.Status().Drill; !d.At.IsZero() || strings.Contains(n.log.String(), "the drill failed") {
		t.Errorf("noted: %+v", d)
	}
}

// A failure is told before it is mended, and mending has an end.
func TestDrillCannotMend(t *testing.T) {
	c := fileReplica(t)
	n := serve(t, Options{Config: c, Dir: dirs(t), FirstBoot: true})
	n.create(t, "a", "b")
	n.synced(t)
	whole(t, c)
	if err := n.Stop(t.Context()); err != nil { // nobody makes the snapshot that is asked for
		t.Fatal(err)
	}
	n.final = errors.New("stopped")
	for _, level := range []string{"0", "9"} {
		for _, name := range must(filepath.Glob(filepath.Join(c.dir, "ltx", level, "*.ltx")))(t) {
			if err := os.Truncate(name, 10); err != nil {
				t.Fatal(err)
			}
		}
	}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan Drill)
	go func() { done <- n.RunDrill(ctx) }()
	until(t, "the failure is told", func() bool { return n.Status().Drill.Error != "" })
	cancel()
	<-done
	n.pace.sync = 5 * time.Millisecond
	if d := n.RunDrill(t.Context()); d.Error == "" || strings.Contains(d.Error, "mended since") {
		t.Errorf("RunDrill = %+v", d)
	}
}

// Without the right to write, for good or for now, the write-ahead log stays of a size.
func TestLogWithoutTheRight(t *testing.T) {
	for name, lose := range map[string]func(t *testing.T, n *node, c *Config, down *atomic.Bool){
		"taken": func(t *testing.T, n *node, c *Config, _ *atomic.Bool) {
			overwriteLease(t, c, `{"generation":7,"expires_at":"2030-01-01T00:00:00Z","owner":"other:/data since 2026-01-02T03:04:05Z"}`)
			n.untilState(t, Taken)
		},
		"lapsed": func(t *testing.T, n *node, _ *Config, down *atomic.Bool) {
			down.Store(true)
			until(t, "the lease lapses", func() bool { _, err := n.hold.valid(); return errors.Is(err, errLapsed) })
		},
	} {
		t.Run(name, func(t *testing.T) {
			c, down, _ := s3Outages(t)
			n := serve(t, Options{Config: c, Dir: dirs(t), FirstBoot: true})
			n.create(t, "a")
			n.synced(t)
			lose(t, n, c, down)
			text := strings.Repeat("x", 1900)
			file := filepath.Join(n.dir, db.File)
			for range 6 {
				written := must(os.Stat(file))(t).ModTime()
				for i := range 200 {
					must(n.db.PatchFlag(t.Context(), ops, "a", flags.Patch{Pct: new(i % 101), Description: &text}))(t)
				}
				until(t, "the changes get from the log into the file", func() bool { return must(os.Stat(file))(t).ModTime().After(written) })
			}
			if size := must(os.Stat(filepath.Join(n.dir, db.File+"-wal")))(t).Size(); size > 20<<20 {
				t.Errorf("the log has %d MiB", size>>20)
			}
			down.Store(false)
		})
	}
}

// A replica that comes back and is slow holds no change up, neither with what is compared nor with what it gets.
func TestSlowReturn(t *testing.T) {
	for method, meta := range map[string]bool{http.MethodGet: false, http.MethodPut: true} {
		t.Run(method, func(t *testing.T) {
			var down atomic.Bool
			s := newStall(func(r *http.Request) bool { return r.Method == method && strings.HasSuffix(r.URL.Path, ".ltx") })
			c := hooked(t, func(w http.ResponseWriter, r *http.Request) bool {
				if down.Load() {
					panic(http.ErrAbortHandler)
				}
				return s.hook(w, r)
			})
			patient := swift
			patient.pause, patient.sync = time.Minute, time.Minute
			dir := dirs(t)
			n := serve(t, Options{Config: c, Dir: dir, FirstBoot: true, pace: &patient})
			n.create(t, "a")
			n.synced(t)
			n.stop()
			if !meta {
				lose(t, metaDir(dir))
			}
			down.Store(true)
			n = serve(t, Options{Config: c, Dir: dir, pace: &patient})
			n.create(t, "b")
			s.on.Store(true)
			down.Store(false)
			<-s.caught
			ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
			defer cancel()
			if _, err := n.db.CreateFlag(ctx, ops, flags.NewFlag{Key: "c"}); err != nil {
				t.Errorf("a change waits for the replica: %v", err)
			}
			if err := n.Stop(ctx); err != nil { // ends the request
				t.Error(err)
			}
			if !locked(t, filepath.Join(dir, db.File)) {
				t.Error("what was done for the replica has dropped this process's locks on the database")
			}
			s.on.Store(false)
		})
	}
}

// The replica can't be restored, and what was left here to go on from is gone.
func TestBrokenReplicaAndMetaLost(t *testing.T) {
	c := fileReplica(t)
	dir := dirs(t)
	n := serve(t, Options{Config: c, Dir: dir, FirstBoot: true})
	n.create(t, "a", "b")
	n.synced(t)
	whole(t, c)
	n.stop()
	lose(t, metaDir(dir))
	for _, name := range must(filepath.Glob(filepath.Join(c.dir, "ltx", "*", "*.ltx")))(t) {
		data := must(os.ReadFile(name))(t)
		for i := len(data) / 2; i < len(data)/2+64 && i < len(data); i++ {
			data[i] ^= 0xff
		}
		if err := os.WriteFile(name, data, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	n = serve(t, Options{Config: c, Dir: dir})
	if s := n.Status(); s.State != Stuck || !strings.Contains(s.LastError, "use another, empty replica") {
		t.Errorf("Status = %+v, want stuck, and what to do", s)
	}
	n.stop()
	lose(t, filepath.Join(c.dir, "ltx"))
	n = serve(t, Options{Config: c, Dir: dir, FirstBoot: true})
	n.synced(t)
	if r := must(Check(t.Context(), c, t.TempDir()))(t); r.Contents.Flags != 2 {
		t.Errorf("after what is said was done: %+v", r.Contents)
	}
}

// Stop ends also what waits for the database, so that that can be closed.
func TestStop(t *testing.T) {
	if err := (*Replica)(nil).Stop(t.Context()); err != nil {
		t.Error(err)
	}
	c := fileReplica(t)
	patient := swift
	patient.pause, patient.sync = time.Hour, time.Hour
	n := serve(t, Options{Config: c, Dir: dirs(t), FirstBoot: true, pace: &patient})
	n.create(t, "a")
	n.synced(t)
	lock := filepath.Join(c.dir, lockFile)
	free, entered, released := make(chan struct{}), make(chan struct{}), make(chan error, 1)
	go func() {
		released <- n.db.Reopen(t.Context(), func(context.Context) error {
			close(entered)
			<-free
			return nil
		})
	}()
	<-entered
	if err := os.Remove(lock); err != nil {
		t.Fatal(err)
	}
	until(t, "the loop begins anew", func() bool { _, err := os.Stat(lock); return err == nil })
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	for range 2 {
		if err := n.Stop(ctx); err != nil {
			t.Errorf("Stop = %v", err)
		}
	}
	close(free)
	if err := <-released; err != nil {
		t.Fatal(err)
	}
	if err := n.stop(); !errors.Is(err, errShut) {
		t.Errorf("Close = %v, want that replication had ended before", err)
	}
	if held := must(lockDir(c.dir, "another", time.Now()))(t); held != nil {
		held.release(t.Context())
	}
}
