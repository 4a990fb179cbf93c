package replica

import (
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
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

// smallDisk mounts a file system of its own of so many KiB, which the test's end unmounts.
func smallDisk(t *testing.T, kib int) string {
	t.Helper()
	dir := t.TempDir()
	if out, err := exec.Command("mount", "-t", "tmpfs", "-o", fmt.Sprintf("size=%dk", kib), "tmpfs", dir).CombinedOutput(); err != nil {
		t.Skipf("a small disk can't be mounted here: %v %s", err, out)
	}
	t.Cleanup(func() {
		if out, err := exec.Command("umount", "-l", dir).CombinedOutput(); err != nil {
			t.Errorf("umount: %v %s", err, out)
		}
	})
	return dir
}

// fillUp takes all the room on a disk, and returns a function that gives it back.
func fillUp(t *testing.T, dir string) (empty func()) {
	t.Helper()
	name := filepath.Join(dir, "ballast")
	f := must(os.Create(name))(t)
	for block := make([]byte, 64<<10); len(block) > 0; {
		if _, err := f.Write(block); err != nil {
			block = block[:len(block)/2]
		}
	}
	f.Close()
	return func() { os.Remove(name) }
}

// afterwards makes sure that a server that has gone through a fault holds all that it acknowledged, here and
// in the replica.
func afterwards(t *testing.T, n *node, c *Config, want map[string]int64) {
	t.Helper()
	n.untilState(t, OK)
	n.synced(t)
	check := func(where string, n *node) {
		t.Helper()
		for key, version := range want {
			if f := n.db.Current().Flag(key); f == nil || f.Version != version {
				t.Errorf("%s: flag %s: version %d was acknowledged, and there is %+v", where, key, version, f)
			}
		}
		integrity(t, n)
	}
	check("here", n)
	if d := n.RunDrill(t.Context()); d.Error != "" {
		t.Errorf("drill: %s", d.Error)
	}
	n.stop()
	if _, err := db.Inspect(t.Context(), filepath.Join(n.dir, db.File)); err != nil {
		t.Errorf("the file: %v", err)
	}
	back := serve(t, Options{Config: c, Dir: dirs(t)})
	check("restored", back)
	back.stop()
}

// patch changes a flag and notes what was acknowledged.
func (n *node) patch(t *testing.T, want map[string]int64, key string) error {
	t.Helper()
	text := strings.Repeat("x", 1500) + fmt.Sprint(want[key])
	var f *flags.Flag
	var err error
	if want[key] == 0 {
		f, err = n.db.CreateFlag(t.Context(), ops, flags.NewFlag{Key: key, Patch: flags.Patch{Description: &text}})
	} else {
		f, err = n.db.PatchFlag(t.Context(), ops, key, flags.Patch{Description: &text})
	}
	if err == nil {
		want[key] = f.Version
	}
	return err
}

func TestDiskFull(t *testing.T) {
	c, disk := fileReplica(t), smallDisk(t, 4<<10)
	dir := filepath.Join(disk, "data")
	n := serve(t, Options{Config: c, Dir: dir, FirstBoot: true})
	want := map[string]int64{}
	for range 10 {
		if err := n.patch(t, want, "a"); err != nil {
			t.Fatal(err)
		}
	}
	empty := fillUp(t, disk)
	var refused error
	for range 1000 { // there is room in the log for some more
		if refused = n.patch(t, want, "a"); refused != nil {
			break
		}
	}
	if reason, broken := db.Broken(refused); !broken || reason != "the disk is full" {
		t.Errorf("on a full disk a change gets %v", refused)
	}
	if n.db.Trouble() == "" {
		t.Error("nothing is said of it")
	}
	if f := n.db.Current().Flag("a"); f.Version != want["a"] {
		t.Errorf("served is version %d, acknowledged was %d", f.Version, want["a"])
	}
	if d := n.RunDrill(t.Context()); !strings.Contains(d.Error, "disk is full") || strings.Contains(n.log.String(), "would not have brought") {
		t.Errorf("a drill without room says of the replica: %q", d.Error)
	}
	empty()
	if err := n.patch(t, want, "a"); err != nil {
		t.Errorf("with room again a change gets %v", err)
	}
	afterwards(t, n, c, want)
}

// On a disk that has become read-only, as a failing one does, a start says so and changes nothing.
func TestDiskReadOnly(t *testing.T) {
	c, disk := fileReplica(t), smallDisk(t, 8<<10)
	remount := func(how string) {
		t.Helper()
		if out, err := exec.Command("mount", "-o", "remount,"+how, disk).CombinedOutput(); err != nil {
			t.Fatalf("remount: %v %s", err, out)
		}
	}
	dir := filepath.Join(disk, "data")
	n := serve(t, Options{Config: c, Dir: dir, FirstBoot: true})
	want := map[string]int64{}
	if err := n.patch(t, want, "a"); err != nil {
		t.Fatal(err)
	}
	n.synced(t)
	n.stop()
	remount("ro")
	if _, err := begin(t.Context(), Options{Config: c, Dir: dir}); err == nil {
		t.Error("it starts on a disk that it can't write to")
	} else if reason, broken := db.Broken(err); !broken && !strings.Contains(err.Error(), "read-only") {
		t.Errorf("the start says %v (%s), want that the disk is read-only", err, reason)
	}
	remount("rw")
	n = serve(t, Options{Config: c, Dir: dir})
	afterwards(t, n, c, want)
}

func TestReplicaFull(t *testing.T) {
	disk := smallDisk(t, 2<<10)
	at := filepath.Join(disk, "replica")
	if err := os.Mkdir(at, 0o700); err != nil {
		t.Fatal(err)
	}
	c := must(Parse("file://"+at, keys()))(t)
	n := serve(t, Options{Config: c, Dir: dirs(t), FirstBoot: true})
	want := map[string]int64{}
	if err := n.patch(t, want, "a"); err != nil {
		t.Fatal(err)
	}
	n.synced(t)
	empty := fillUp(t, disk)
	for range 50 {
		if err := n.patch(t, want, "a"); err != nil {
			t.Fatalf("a change fails for the replica's sake: %v", err)
		}
	}
	n.untilState(t, Away)
	if s := n.Status(); !strings.Contains(s.LastError, "no space left") {
		t.Errorf("Status = %+v", s)
	}
	empty()
	afterwards(t, n, c, want)
}

// A replica that answers slowly, or with errors now and then, slows no change down.
func TestReplicaSlow(t *testing.T) {
	backend := s3mem.New()
	if err := backend.CreateBucket("backups"); err != nil {
		t.Fatal(err)
	}
	var requests atomic.Int64
	bucket := gofakes3.New(backend).Server()
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		<-time.After(20 * time.Millisecond)
		if requests.Add(1)%15 == 0 {
			http.Error(w, "not now", http.StatusServiceUnavailable)
			return
		}
		bucket.ServeHTTP(w, r)
	}))
	t.Cleanup(server.Close)
	c := must(Parse("s3://backups/platform?endpoint="+server.URL, keys()))(t)
	patient := swift
	patient.call, patient.lease = 10*time.Second, 15*time.Second
	n := serve(t, Options{Config: c, Dir: dirs(t), FirstBoot: true, pace: &patient})
	want := map[string]int64{}
	var took []time.Duration
	for range 50 {
		begun := time.Now()
		if err := n.patch(t, want, "a"); err != nil {
			t.Fatal(err)
		}
		took = append(took, time.Since(begun))
	}
	slices.Sort(took)
	if median := took[len(took)/2]; atLength && median > 100*time.Millisecond {
		t.Errorf("a change takes %s beside a slow replica", median)
	}
	n.untilState(t, OK)
	n.synced(t)
	n.stop()
	n = serve(t, Options{Config: c, Dir: dirs(t), pace: &patient})
	if f := n.db.Current().Flag("a"); f == nil || f.Version != want["a"] {
		t.Errorf("restored: %+v, want version %d", f, want["a"])
	}
	integrity(t, n)
}

// Started, stopped and killed again and again, at whatever moment of a start.
func TestRestartLoop(t *testing.T) {
	onEach(t, func(t *testing.T, c *Config) {
		dir := dirs(t)
		n := serve(t, Options{Config: c, Dir: dir, FirstBoot: true})
		want := map[string]int64{}
		if err := n.patch(t, want, "own"); err != nil {
			t.Fatal(err)
		}
		n.stop()
		for round := range rounds(6, 40) {
			storm := startChild(t, "storm", dir, c)
			if round%3 == 0 {
				storm.take(t, 1)
				storm.stdin.Close()
				storm.rest()
				continue
			}
			<-time.After(time.Duration(round*7%90) * time.Millisecond) // the moment is the point, not a wait for something
			storm.kill(t)
		}
		n = serve(t, Options{Config: c, Dir: dir})
		if err := n.patch(t, want, "own"); err != nil {
			t.Fatal(err)
		}
		afterwards(t, n, c, want)
	})
}

// Files whose times went back, as a clock's correction leaves them.
func TestClockJumps(t *testing.T) {
	c := fileReplica(t)
	var ahead atomic.Int64
	dir := dirs(t)
	now := func() time.Time { return time.Now().Add(time.Duration(ahead.Load())) }
	n := serve(t, Options{Config: c, Dir: dir, FirstBoot: true, Now: now})
	want := map[string]int64{}
	for _, jump := range []time.Duration{0, time.Hour, -24 * time.Hour, 3 * time.Minute, -time.Hour} {
		ahead.Store(int64(jump))
		for range 3 {
			if err := n.patch(t, want, "a"); err != nil {
				t.Fatal(err)
			}
			n.synced(t)
		}
		if s := n.Status(); s.State != OK || s.Lag > LagAlarm {
			t.Errorf("after a jump by %s: %+v", jump, s)
		}
	}
	n.stop()
	files := must(filepath.Glob(filepath.Join(c.dir, "ltx", "0", "*.ltx")))(t)
	for i, name := range files {
		at := time.Now().Add(-time.Hour + time.Duration(i)*time.Minute)
		if i > len(files)/2 {
			at = at.Add(-45 * time.Minute)
		}
		if err := os.Chtimes(name, at, at); err != nil {
			t.Fatal(err)
		}
	}
	points := must(Points(t.Context(), c))(t)
	if len(points) < len(files) {
		t.Errorf("%d points of %d files", len(points), len(files))
	}
	for _, p := range points {
		if r, err := Restore(t.Context(), c, dirs(t), p.At); err != nil || r.At.After(p.At) {
			t.Errorf("restore to %s: %+v, %v", p.At, r.Point, err)
		}
	}
	n = serve(t, Options{Config: c, Dir: dir})
	afterwards(t, n, c, want)
}

// Commands beside the server, and a second server, while a storm goes on.
func TestOthersBeside(t *testing.T) {
	c := fileReplica(t)
	dir := dirs(t)
	lock := must(db.AcquireLock(dir, "serve", time.Now()))(t)
	defer lock.Release()
	n := serve(t, Options{Config: c, Dir: dir, FirstBoot: true})
	if _, err := db.AcquireLock(dir, "serve", time.Now()); err == nil || !strings.Contains(err.Error(), "in use") {
		t.Errorf("a second server: %v", err)
	}
	reader := startChild(t, "read", dir, c)
	var beside sync.WaitGroup
	made := 0
	beside.Go(func() {
		for i := range 20 {
			d, err := db.OpenBeside(t.Context(), db.Options{Dir: dir, Environments: environments})
			if err == nil {
				_, _, err = d.CreateToken(t.Context(), ops, db.NewToken{Name: fmt.Sprint("t", i), Role: "read"})
				err = errors.Join(err, d.Close())
			}
			if err != nil {
				t.Errorf("token %d beside the server: %v", i, err)
				return
			}
			made++
		}
	})
	want := map[string]int64{}
	for range 200 {
		if err := n.patch(t, want, "a"); err != nil {
			t.Fatal(err)
		}
	}
	beside.Wait()
	reader.stdin.Close()
	if len(reader.rest()) == 0 {
		t.Error("the reader read nothing")
	}
	n.synced(t)
	tokens := must(n.db.Tokens(t.Context()))(t)
	if len(tokens) != made || made != 20 {
		t.Errorf("%d tokens, want %d", len(tokens), made)
	}
	afterwards(t, n, c, want)
}
