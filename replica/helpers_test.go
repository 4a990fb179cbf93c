package replica

import (
	"bytes"
	"context"
	"errors"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/johannesboyne/gofakes3"
	"github.com/johannesboyne/gofakes3/backend/s3mem"

	"github.com/dezky/platform-api/db"
	"github.com/dezky/platform-api/flags"
)

// ops is who changes things where it does not matter who.
var ops = db.By{Actor: "ops@dezky.example"}

var environments = []string{"production", "staging"}

// swift is a pace at which tests need not wait.
var swift = pace{beat: 20 * time.Millisecond, gap: 2 * time.Millisecond, retry: 20 * time.Millisecond, stuck: 300 * time.Millisecond,
	call: 300 * time.Millisecond, sync: 10 * time.Second, pause: 5 * time.Second, lease: 900 * time.Millisecond, drill: time.Hour, first: time.Hour, survey: time.Hour}

// must is for steps of a test that are not what it is about.
func must[T any](x T, err error) func(testing.TB) T {
	return func(t testing.TB) T {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		return x
	}
}

// keys are an environment with S3 keys, and what else is given.
func keys(pairs ...string) func(string) string {
	pairs = append(pairs, "AWS_ACCESS_KEY_ID", "key", "AWS_SECRET_ACCESS_KEY", "secret")
	return func(name string) string {
		for i := 0; i < len(pairs); i += 2 {
			if pairs[i] == name {
				return pairs[i+1]
			}
		}
		return ""
	}
}

func fileReplica(t testing.TB) *Config {
	t.Helper()
	return must(Parse("file://"+t.TempDir(), keys()))(t)
}

// s3Replica is a bucket in a server of its own, in this process.
func s3Replica(t testing.TB) *Config {
	t.Helper()
	c, _, _ := s3Outages(t)
	return c
}

// s3Outages is such a bucket, and a switch that has the server break every connection off.
func s3Outages(t testing.TB) (c *Config, down *atomic.Bool, refused *atomic.Int64) {
	t.Helper()
	backend := s3mem.New()
	if err := backend.CreateBucket("backups"); err != nil {
		t.Fatal(err)
	}
	down, refused = new(atomic.Bool), new(atomic.Int64)
	bucket := gofakes3.New(backend).Server()
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if down.Load() {
			refused.Add(1)
			panic(http.ErrAbortHandler)
		}
		bucket.ServeHTTP(w, r)
	}))
	t.Cleanup(server.Close)
	return must(Parse("s3://backups/platform?endpoint="+server.URL+"&forcePathStyle=true", keys()))(t), down, refused
}

// kinds are the replicas that most tests run with.
var kinds = map[string]func(testing.TB) *Config{"file": fileReplica, "s3": s3Replica}

func onEach(t *testing.T, test func(t *testing.T, c *Config)) {
	for name, make := range kinds {
		t.Run(name, func(t *testing.T) { test(t, make(t)) })
	}
}

// record keeps a log for a test to read.
type record struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (r *record) Write(line []byte) (int, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.b.Write(line)
}

func (r *record) String() string {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.b.String()
}

// node is a server's database with its replica.
type node struct {
	*Replica
	db  *db.DB
	dir string
	log *record
}

// begin is the start of a server, as the program does it.
func begin(ctx context.Context, o Options) (*node, error) {
	n := &node{dir: o.Dir, log: &record{}}
	o.Log = slog.New(slog.NewTextHandler(n.log, nil))
	if o.pace == nil {
		o.pace = &swift
	}
	r, err := Open(ctx, o)
	if err != nil {
		return nil, err
	}
	n.Replica = r
	if n.db, err = db.Open(ctx, db.Options{Dir: o.Dir, Environments: environments}); err != nil {
		return nil, errors.Join(err, r.Close(context.Background()))
	}
	r.Start(n.db)
	return n, nil
}

// serve begins a server that the test's end stops.
func serve(t testing.TB, o Options) *node {
	t.Helper()
	n, err := begin(t.Context(), o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		n.stop()
		if t.Failed() {
			t.Log(n.log)
		}
	})
	return n
}

// stop ends it in order; a second time does nothing.
func (n *node) stop() error {
	if n.db == nil {
		return nil
	}
	err := n.db.Close()
	n.db = nil
	if closing := n.Replica.Close(context.Background()); err == nil {
		err = closing
	}
	return err
}

func (n *node) create(t testing.TB, keys ...string) {
	t.Helper()
	for _, key := range keys {
		must(n.db.CreateFlag(t.Context(), ops, flags.NewFlag{Key: key}))(t)
	}
}

// synced waits until the replica has all there is.
func (n *node) synced(t testing.TB) {
	t.Helper()
	if err := n.Wait(t.Context()); err != nil {
		t.Fatalf("%v\n%s", err, n.log)
	}
}

// until polls a condition that comes true by itself. litestream compacts at full half minutes: some wait for
// the next one.
func until(t testing.TB, what string, holds func() bool) {
	t.Helper()
	deadline := time.Now().Add(time.Minute)
	for !holds() {
		if time.Now().After(deadline) {
			t.Fatalf("never: %s", what)
		}
		<-time.After(2 * time.Millisecond)
	}
}

func (n *node) untilState(t testing.TB, want State) {
	t.Helper()
	until(t, "state "+string(want)+"\n"+n.log.String(), func() bool { return n.Status().State == want })
}

// names are the keys of the flags, in one string.
func names(d *db.DB) string {
	var out []string
	for _, f := range d.Current().Flags() {
		out = append(out, f.Key)
	}
	return strings.Join(out, " ")
}

// lose removes a data directory, as a disk that burns does.
func lose(t testing.TB, dir string) {
	t.Helper()
	if err := os.RemoveAll(dir); err != nil {
		t.Fatal(err)
	}
}

// dirs is a fresh data directory inside a fresh directory.
func dirs(t testing.TB) string { return filepath.Join(t.TempDir(), "data") }

// integrity checks that a database that is served is whole, and that its log has every revision once.
func integrity(t testing.TB, n *node) {
	t.Helper()
	entries := must(n.db.History(t.Context(), db.HistoryFilter{Limit: 1 << 20}))(t)
	want := n.db.Current().Revision()
	for _, e := range entries {
		if e.Kind == flags.KindToken {
			continue // takes no revision
		}
		if e.Revision != want {
			t.Fatalf("the log has revision %d where %d is next", e.Revision, want)
		}
		want--
	}
	if want != 0 {
		t.Fatalf("the log ends after revision %d", want+1)
	}
}
