package replica

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	awss3 "github.com/aws/aws-sdk-go-v2/service/s3"
	"github.com/benbjohnson/litestream"
	"github.com/johannesboyne/gofakes3"
	"github.com/johannesboyne/gofakes3/backend/s3mem"
	"github.com/superfly/ltx"

	"github.com/dezky/platform-api/db"
	"github.com/dezky/platform-api/flags"
)

// outage is a replica that can be taken away.
type outage struct {
	*Config
	away, back func()
	asked      func() int // how often it was asked while it was away, as far as that is known
}

// outages are the replicas with their way to go: an unmount, and a server that breaks every connection off.
var outages = map[string]func(t *testing.T) outage{
	"file": func(t *testing.T) outage {
		c, calls := fileReplica(t), 0
		rename := func(from, to string) func() {
			return func() {
				t.Helper()
				os.RemoveAll(to)
				if err := os.Rename(from, to); err != nil {
					t.Fatal(err)
				}
			}
		}
		return outage{c, rename(c.dir, c.dir+".away"), rename(c.dir+".away", c.dir), func() int { calls++; return calls }}
	},
	"s3": func(t *testing.T) outage {
		c, down, refused := s3Outages(t)
		return outage{c, func() { down.Store(true) }, func() { down.Store(false) }, func() int { return int(refused.Load()) }}
	},
}

func onEachOutage(t *testing.T, test func(t *testing.T, c outage)) {
	for name, make := range outages {
		t.Run(name, func(t *testing.T) { test(t, make(t)) })
	}
}

// Trap A: litestream's start fails without the replica, and would drop this process's locks on the
// database; another process that closes it would then unlink the write-ahead log under the pools.
func TestReplicaAwayAtBoot(t *testing.T) {
	onEachOutage(t, testReplicaAwayAtBoot)
}

func testReplicaAwayAtBoot(t *testing.T, out outage) {
	c := out.Config
	dir := dirs(t)
	n := serve(t, Options{Config: c, Dir: dir, FirstBoot: true})
	n.create(t, "first")
	n.synced(t)
	if err := n.stop(); err != nil {
		t.Fatal(err)
	}
	epoch := must(db.InspectBeside(t.Context(), dir))(t).Epoch
	out.away()

	n = serve(t, Options{Config: c, Dir: dir})
	if s := n.Status(); s.State != Away || s.LastError == "" || s.Pending != -1 {
		t.Errorf("Status = %+v, want away", s)
	}
	n.create(t, "flag")
	reader := startChild(t, "read", dir, c)
	written := int64(1)
	write := func(times int) {
		for range times {
			written = must(n.db.PatchFlag(t.Context(), ops, "flag", flags.Patch{Pct: new(int(written) % 101)}))(t).Version
		}
	}
	for first := out.asked(); out.asked() < first+8; { // until it was tried to come back in vain
		write(5)
		reader.take(t, 3)
	}
	if !locked(t, filepath.Join(dir, db.File)) {
		t.Error("trying to reach the replica has dropped this process's locks on the database")
	}
	out.back()
	n.untilState(t, OK)
	for range 20 {
		write(5)
		reader.take(t, 3)
	}
	reader.stdin.Close()
	reader.rest()
	n.synced(t)
	if !locked(t, filepath.Join(dir, db.File)) {
		t.Error("the replica's return has dropped this process's locks on the database")
	}
	n.stop()

	n = serve(t, Options{Config: c, Dir: dir})
	if f := n.db.Current().Flag("flag"); f == nil || f.Version != written {
		t.Errorf("version %d was acknowledged, and there is %+v", written, f)
	}
	if got := n.db.Current().Epoch(); got != epoch {
		t.Errorf("epoch %s, want %s: nothing was restored", got, epoch)
	}
	integrity(t, n)
	n.stop()
	lose(t, dir)
	n = serve(t, Options{Config: c, Dir: dir})
	if f := n.db.Current().Flag("flag"); f == nil || f.Version != written {
		t.Errorf("version %d was replicated, and restored is %+v", written, f)
	}
	integrity(t, n)
}

// locked tells whether this process has a lock on a file, as far as the system says.
func locked(t *testing.T, name string) bool {
	t.Helper()
	locks, err := os.ReadFile("/proc/locks")
	if err != nil {
		t.Log("no /proc/locks here, so the locks are not looked at")
		return true
	}
	inode := must(os.Stat(name))(t).Sys().(*syscall.Stat_t).Ino
	for line := range strings.Lines(string(locks)) {
		if strings.Contains(line, fmt.Sprintf(" %d ", os.Getpid())) && strings.Contains(line, fmt.Sprintf(":%d ", inode)) {
			return true
		}
	}
	return false
}

func TestReplicaAwayAndNoDatabase(t *testing.T) {
	onEachOutage(t, func(t *testing.T, c outage) {
		c.away()
		_, err := begin(t.Context(), Options{Config: c.Config, Dir: dirs(t), FirstBoot: true})
		if err == nil || !strings.Contains(err.Error(), "can't be reached") {
			t.Errorf("Open = %v, want that the replica can't be reached", err)
		}
		if _, err := os.Stat(c.dir); c.dir != "" && !os.IsNotExist(err) {
			t.Error("the replica's directory was made")
		}
	})
}

func TestReplicaAwayLater(t *testing.T) {
	onEachOutage(t, func(t *testing.T, c outage) {
		n := serve(t, Options{Config: c.Config, Dir: dirs(t), FirstBoot: true})
		n.create(t, "a")
		n.synced(t)
		c.away()
		n.create(t, "b")
		n.untilState(t, Away)
		if s := n.Status(); s.Pending != 1 || s.LastError == "" {
			t.Errorf("Status = %+v, want one change pending", s)
		}
		ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
		defer cancel()
		if err := n.Wait(ctx); err == nil {
			t.Error("Wait says that the replica has what it can't have")
		}
		c.back()
		n.untilState(t, OK)
		n.synced(t)
		dir := n.dir
		n.stop()
		lose(t, dir)
		if n = serve(t, Options{Config: c.Config, Dir: dir}); names(n.db) != "a b" {
			t.Errorf("restored: %s", names(n.db))
		}
	})
}

// The empty directory below a mount that is gone must not be taken for the replica, at any time.
func TestReplicaUnmounted(t *testing.T) {
	c := outages["file"](t)
	dir := dirs(t)
	n := serve(t, Options{Config: c.Config, Dir: dir, FirstBoot: true})
	n.create(t, "a")
	n.synced(t)
	until(t, "the first snapshot is there", func() bool { // else it may be under way at the very moment of the unmount
		files, err := filepath.Glob(filepath.Join(c.dir, "ltx", "9", "*.ltx"))
		return err == nil && len(files) > 0
	})
	n.stop()

	unmounted := func() {
		t.Helper()
		c.away()
		if err := os.Mkdir(c.dir, 0o700); err != nil {
			t.Fatal(err)
		}
	}
	is := func(n *node) {
		t.Helper()
		until(t, "the server says that the replica is empty", func() bool {
			s := n.Status()
			return s.State == Away && strings.Contains(s.LastError, "not mounted")
		})
		if _, err := os.Stat(filepath.Join(c.dir, "ltx")); err == nil {
			t.Error("something was replicated to where nothing is mounted")
		}
	}
	n = serve(t, Options{Config: c.Config, Dir: dir})
	n.synced(t)
	unmounted()
	n.create(t, "b")
	is(n)
	long := time.Now().Add(2 * swift.stuck)
	until(t, "what is stuck for so long begins anew", func() bool { return time.Now().After(long) })
	is(n)
	c.back()
	n.untilState(t, OK)
	n.synced(t)
	n.stop()

	unmounted()
	n = serve(t, Options{Config: c.Config, Dir: dir})
	is(n)
	n.create(t, "c")
	n.stop()
	// Unless that is said to be so: it is a new replica.
	n = serve(t, Options{Config: c.Config, Dir: dir, FirstBoot: true})
	n.synced(t)
	n.stop()
	lose(t, dir)
	if n = serve(t, Options{Config: c.Config, Dir: dir}); names(n.db) != "a b c" {
		t.Errorf("restored: %s", names(n.db))
	}
}

// Trap B: two writers.
func TestTwoWriters(t *testing.T) {
	onEach(t, func(t *testing.T, c *Config) {
		first := serve(t, Options{Config: c, Dir: dirs(t), FirstBoot: true})
		first.create(t, "a")
		first.synced(t)
		started := time.Now()
		_, err := begin(t.Context(), Options{Config: c, Dir: dirs(t)})
		var held *HeldError
		if !errors.As(err, &held) || held.Holder != owner(first.dir) || started.Sub(held.Since) > time.Minute || !strings.Contains(err.Error(), first.dir) {
			t.Errorf("the second writer: %v, want that %s has it", err, owner(first.dir))
		}
		first.create(t, "b")
		first.synced(t)
		dir := first.dir
		first.stop()
		lose(t, dir)
		if n := serve(t, Options{Config: c, Dir: dirs(t)}); names(n.db) != "a b" {
			t.Errorf("restored: %s", names(n.db))
		}
	})
}

// A writer that was killed is followed by itself at once, and by others when they have waited.
func TestLeaseOfADeadWriter(t *testing.T) {
	c := s3Replica(t)
	dir := dirs(t)
	slow := swift
	slow.lease = time.Hour // nobody could wait that out
	for range 2 {
		dead := startChild(t, "storm", dir, c)
		dead.take(t, 5)
		dead.kill(t)
	}
	begun := time.Now()
	n := serve(t, Options{Config: c, Dir: dir, pace: &slow})
	if took := time.Since(begun); took > time.Minute {
		t.Errorf("the same owner started after %s", took)
	}
	n.synced(t)
	n.stop()

	dead := startChild(t, "storm", dir, c)
	dead.take(t, 5)
	dead.kill(t)
	n = serve(t, Options{Config: c, Dir: dirs(t)})
	if !strings.Contains(n.log.String(), "has another writer; waiting") || !strings.Contains(n.log.String(), owner(dir)) {
		t.Error("another owner did not say for whom it waits")
	}
	n.synced(t)
	integrity(t, n)
}

// overwriteLease makes another the writer, as a human error or a split network would.
func overwriteLease(t *testing.T, c *Config, body string) {
	t.Helper()
	api := must(c.api(t.Context()))(t)
	if _, err := api.PutObject(t.Context(), &awss3.PutObjectInput{Bucket: &c.bucket, Key: new(c.prefix + "/lock.json"), Body: strings.NewReader(body)}); err != nil {
		t.Fatal(err)
	}
}

func TestLeaseLost(t *testing.T) {
	c := s3Replica(t)
	n := serve(t, Options{Config: c, Dir: dirs(t), FirstBoot: true})
	n.create(t, "a")
	n.synced(t)
	overwriteLease(t, c, `{"generation":7,"expires_at":"2030-01-01T00:00:00Z","owner":"other:/data since 2026-01-02T03:04:05Z"}`)
	n.untilState(t, Taken)
	s := n.Status()
	if s.Holder != "other:/data" || !s.HolderSince.Equal(time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)) || !s.Late() {
		t.Errorf("Status = %+v, want who has it and since when", s)
	}
	before := must(Points(t.Context(), c))(t)
	n.create(t, "b") // goes on here
	if err := n.Wait(t.Context()); err == nil {
		t.Error("Wait says that the replica has what this server may not write")
	}
	n.stop()
	if after := must(Points(t.Context(), c))(t); len(after) != len(before) {
		t.Errorf("the replica has %d states, had %d when another took it", len(after), len(before))
	}
}

// grant is a hold that a test gives and takes.
type grant struct {
	ctx context.Context
	end context.CancelCauseFunc
}

func (g *grant) valid() (context.Context, error) { return g.ctx, context.Cause(g.ctx) }
func (g *grant) renew(context.Context) error     { return nil }
func (g *grant) release(context.Context) error   { return nil }

// Nothing of litestream's, at whatever time, writes without the right to.
func TestGate(t *testing.T) {
	c := fileReplica(t)
	g := &gate{ReplicaClient: must(c.client())(t), hold: &grant{}}
	ctx, end := context.WithCancelCause(context.Background())
	g.hold = &grant{ctx, end}
	blocked := make(chan struct{})
	piece := make([]byte, 100)
	read := func(ctx context.Context) io.Reader {
		return readerFunc(func(p []byte) (int, error) {
			close(blocked)
			<-ctx.Done()
			return copy(p, piece), ctx.Err()
		})
	}
	// A write under way when the right ends is cut short.
	spy := &spyClient{ReplicaClient: g.ReplicaClient, read: read}
	g.ReplicaClient = spy
	done := make(chan error, 1)
	go func() {
		_, err := g.WriteLTXFile(context.Background(), 0, 1, 1, nil)
		done <- err
	}()
	<-blocked
	end(errLapsed)
	if err := <-done; err == nil {
		t.Error("a write went on after the right to it had ended")
	}
	for name, write := range map[string]func() error{
		"WriteLTXFile":   func() error { _, err := g.WriteLTXFile(t.Context(), 9, 1, 1, nil); return err },
		"DeleteLTXFiles": func() error { return g.DeleteLTXFiles(t.Context(), nil) },
	} {
		if err := write(); !errors.Is(err, errLapsed) {
			t.Errorf("%s without the right: %v", name, err)
		}
	}
	if spy.writes != 1 {
		t.Errorf("%d writes reached the replica, want the first alone", spy.writes)
	}
}

type readerFunc func([]byte) (int, error)

func (f readerFunc) Read(p []byte) (int, error) { return f(p) }

// spyClient counts writes, each of which reads from read.
type spyClient struct {
	litestream.ReplicaClient
	read   func(context.Context) io.Reader
	writes int
}

func (c *spyClient) WriteLTXFile(ctx context.Context, _ int, _, _ ltx.TXID, _ io.Reader) (*ltx.FileInfo, error) {
	c.writes++
	_, err := io.ReadAll(c.read(ctx))
	return nil, err
}

func (c *spyClient) DeleteLTXFiles(context.Context, []*ltx.FileInfo) error {
	c.writes++
	return nil
}

// A storage that takes no notice of conditions would let everybody write.
func TestLeaseWithoutConditions(t *testing.T) {
	backend := s3mem.New()
	if err := backend.CreateBucket("backups"); err != nil {
		t.Fatal(err)
	}
	bucket := gofakes3.New(backend).Server()
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		r.Header.Del("If-Match")
		r.Header.Del("If-None-Match")
		bucket.ServeHTTP(w, r)
	}))
	t.Cleanup(server.Close)
	c := must(Parse("s3://backups/platform?endpoint="+server.URL, keys()))(t)
	_, err := begin(t.Context(), Options{Config: c, Dir: dirs(t), FirstBoot: true})
	if err == nil || !strings.Contains(err.Error(), "knows no conditional writes") {
		t.Errorf("Open = %v, want that the storage is refused", err)
	}
}

// A lease that lapsed is taken up again, as nobody else has it.
func TestLeaseLapsed(t *testing.T) {
	c, down, _ := s3Outages(t)
	n := serve(t, Options{Config: c, Dir: dirs(t), FirstBoot: true})
	n.create(t, "a")
	n.synced(t)
	down.Store(true)
	until(t, "the lease lapses", func() bool { _, err := n.hold.valid(); return errors.Is(err, errLapsed) })
	n.create(t, "b")
	down.Store(false)
	n.untilState(t, OK)
	n.synced(t)
}

// Trap D: a write-ahead log left of a database that is gone.
func TestStaleWAL(t *testing.T) {
	c := fileReplica(t)
	dir := dirs(t)
	n := serve(t, Options{Config: c, Dir: dir, FirstBoot: true})
	text := strings.Repeat("x", 1900)
	for _, key := range strings.Fields("a b c d e f g h") {
		must(n.db.CreateFlag(t.Context(), ops, flags.NewFlag{Key: key, Patch: flags.Patch{Description: &text}}))(t)
	}
	wal := filepath.Join(dir, db.File+"-wal")
	stale := must(os.ReadFile(wal))(t)
	for i := range 50 {
		for _, key := range strings.Fields("a b c d e f g h") {
			must(n.db.PatchFlag(t.Context(), ops, key, flags.Patch{Pct: new(i + 1)}))(t)
		}
	}
	n.synced(t)
	revision := n.db.Current().Revision()
	n.stop()
	os.Remove(filepath.Join(dir, db.File))
	if err := os.WriteFile(wal, stale, 0o600); err != nil {
		t.Fatal(err)
	}
	n = serve(t, Options{Config: c, Dir: dir})
	if got := n.db.Current().Revision(); got != revision || n.db.Current().Flag("h").Pct != 50 {
		t.Errorf("revision %d, want %d", got, revision)
	}
	integrity(t, n)
	n.synced(t)
	n.stop()
	if c, err := db.InspectBeside(t.Context(), dir); err != nil || c.Revision != revision {
		t.Errorf("the file has %+v, %v", c, err)
	}
	if aside := must(filepath.Glob(wal + ".aside-*"))(t); len(aside) != 1 {
		t.Errorf("moved aside: %v", aside)
	}
}

// Trap E: with its own files gone litestream believes itself in sync. Trap F: its own way out makes some
// replicas unrestorable; ours begins with a snapshot.
func TestMetaLost(t *testing.T) {
	onEach(t, func(t *testing.T, c *Config) {
		for _, what := range []struct {
			name string
			lose func(dir string) error
		}{
			{"all of it", func(dir string) error { return os.RemoveAll(metaDir(dir)) }},
			{"the last file", func(dir string) error {
				files, err := filepath.Glob(filepath.Join(metaDir(dir), "ltx", "0", "*.ltx"))
				if err != nil || len(files) == 0 {
					return errors.Join(err, errors.New("no files"))
				}
				return os.Remove(files[len(files)-1])
			}},
			{"what is in the last file", func(dir string) error {
				files, err := filepath.Glob(filepath.Join(metaDir(dir), "ltx", "0", "*.ltx"))
				if err != nil || len(files) == 0 {
					return errors.Join(err, errors.New("no files"))
				}
				return os.WriteFile(files[len(files)-1], []byte("nothing of the kind"), 0o600)
			}},
		} {
			t.Run(what.name, func(t *testing.T) {
				dir := dirs(t)
				n := serve(t, Options{Config: c, Dir: dir, FirstBoot: true})
				before := names(n.db)
				for i := range 30 {
					n.create(t, strings.ReplaceAll(what.name, " ", "_")+strings.Repeat("x", i))
				}
				n.synced(t)
				if err := what.lose(dir); err != nil {
					t.Fatal(err)
				}
				n.create(t, strings.ReplaceAll(what.name, " ", "_")+"_more")
				n.synced(t)
				if d := n.RunDrill(t.Context()); d.Error != "" {
					t.Errorf("drill: %s", d.Error)
				}
				want := names(n.db)
				n.stop()
				// Also lost while nobody runs.
				if err := what.lose(dir); err != nil {
					t.Fatal(err)
				}
				n = serve(t, Options{Config: c, Dir: dir})
				if names(n.db) != want || want == before {
					t.Errorf("restarted: %s", names(n.db))
				}
				n.create(t, strings.ReplaceAll(what.name, " ", "_")+"_again")
				n.synced(t)
				want = names(n.db)
				n.stop()
				lose(t, dir)
				n = serve(t, Options{Config: c, Dir: dir})
				if names(n.db) != want {
					t.Errorf("restored: %s\nwant %s", names(n.db), want)
				}
				integrity(t, n)
				n.stop()
			})
		}
	})
}

// A server that comes back with its old data, after another has gone on from the replica, must not bury
// what that has done.
func TestDiverged(t *testing.T) {
	onEach(t, func(t *testing.T, c *Config) {
		old, other := dirs(t), dirs(t)
		n := serve(t, Options{Config: c, Dir: old, FirstBoot: true})
		n.create(t, "a", "b")
		n.synced(t)
		n.stop()
		n = serve(t, Options{Config: c, Dir: other})
		n.synced(t)
		n.stop()

		// The other has changed nothing: the old data may go on.
		n = serve(t, Options{Config: c, Dir: old})
		n.create(t, "c")
		n.synced(t)
		n.stop()
		lose(t, other)
		n = serve(t, Options{Config: c, Dir: other})
		if names(n.db) != "a b c" {
			t.Errorf("restored: %s", names(n.db))
		}
		n.create(t, "d")
		n.synced(t)
		n.stop()

		_, err := begin(t.Context(), Options{Config: c, Dir: old})
		var diverged *DivergedError
		if !errors.As(err, &diverged) || diverged.Replica.Last.Name != "d" {
			t.Fatalf("Open = %v, want that the replica has flag d", err)
		}
		n = serve(t, Options{Config: c, Dir: other})
		if names(n.db) != "a b c d" {
			t.Errorf("after the refusal: %s", names(n.db))
		}
	})
}
