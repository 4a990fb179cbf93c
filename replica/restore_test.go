package replica

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/benbjohnson/litestream"
	"github.com/superfly/ltx"

	"github.com/dezky/platform-api/db"
)

// moment returns a time that nothing before shares with anything after.
func moment(t testing.TB) time.Time {
	t.Helper()
	at := time.Now().Add(2 * time.Millisecond).Truncate(time.Millisecond)
	until(t, "the clock moves on", func() bool { return time.Now().After(at.Add(time.Millisecond)) })
	return at
}

func TestRestoreAt(t *testing.T) {
	onEach(t, func(t *testing.T, c *Config) {
		if _, err := Restore(t.Context(), c, dirs(t), time.Time{}); !errors.Is(err, ErrEmpty) {
			t.Errorf("an empty replica: %v, want ErrEmpty", err)
		}
		before := moment(t)
		dir := dirs(t)
		n := serve(t, Options{Config: c, Dir: dir, FirstBoot: true})
		n.create(t, "a")
		n.synced(t)
		good := moment(t)
		n.create(t, "b")
		n.synced(t)
		n.create(t, "c")
		n.synced(t)
		epoch := n.db.Current().Epoch()

		points := must(Points(t.Context(), c))(t)
		if len(points) < 4 {
			t.Errorf("%d points, want at least the empty database and three changes", len(points))
		}
		for i, p := range points[1:] {
			if p.Position <= points[i].Position || p.At.Before(points[i].At) {
				t.Errorf("point %v comes after %v", p, points[i])
			}
		}

		if _, err := Restore(t.Context(), c, dir, good); err == nil || !strings.Contains(err.Error(), "holds a database already") {
			t.Errorf("into a directory that has one: %v", err)
		}
		for _, refused := range []struct {
			at   time.Time
			want string
		}{{time.Now().Add(time.Hour), "in the future"}, {before, "before the first state"}} {
			dir := dirs(t)
			if _, err := Restore(t.Context(), c, dir, refused.at); err == nil || !strings.Contains(err.Error(), refused.want) {
				t.Errorf("Restore(%s) = %v, want that it is %s", refused.at, err, refused.want)
			}
			if entries, _ := os.ReadDir(dir); len(entries) > 0 {
				t.Errorf("a refused restore left %v", entries)
			}
		}

		other := dirs(t)
		r := must(Restore(t.Context(), c, other, good))(t)
		if r.Contents.Revision != 1 || r.Contents.Flags != 1 || r.Contents.Entries != 1 || r.Contents.Last.Name != "a" || r.At.After(good) {
			t.Errorf("Restored = %+v", r)
		}
		if info := must(os.Stat(filepath.Join(other, db.File)))(t); info.Mode().Perm() != 0o600 {
			t.Errorf("mode %s", info.Mode())
		}
		latest := must(Restore(t.Context(), c, dirs(t), time.Time{}))(t)
		if latest.Contents.Revision != 3 {
			t.Errorf("the latest: %+v", latest)
		}
		n.stop()

		// It is served with an epoch of its own, and the replica goes on from there.
		n = serve(t, Options{Config: c, Dir: other})
		if names(n.db) != "a" || n.db.Current().Epoch() == epoch {
			t.Errorf("served: %s in epoch %s", names(n.db), n.db.Current().Epoch())
		}
		n.create(t, "d")
		n.synced(t)
		n.stop()
		n = serve(t, Options{Config: c, Dir: dirs(t)})
		if names(n.db) != "a d" {
			t.Errorf("restored after that: %s", names(n.db))
		}
		integrity(t, n)
		n.stop()

		// And what was left behind can still be had.
		r = must(Restore(t.Context(), c, dirs(t), latestOf(points).At))(t)
		if r.Contents.Flags != 3 {
			t.Errorf("the state that was left: %+v", r)
		}
	})
}

func latestOf(points []Point) Point { return points[len(points)-1] }

// The first start on what was restored may come while the replica is away.
func TestRestoredWhileAway(t *testing.T) {
	c := outages["file"](t)
	n := serve(t, Options{Config: c.Config, Dir: dirs(t), FirstBoot: true})
	n.create(t, "a")
	n.synced(t)
	good := moment(t)
	n.create(t, "b")
	n.synced(t)
	n.stop()
	dir := dirs(t)
	must(Restore(t.Context(), c.Config, dir, good))(t)
	c.away()
	for range 2 {
		n = serve(t, Options{Config: c.Config, Dir: dir})
		n.stop()
	}
	n = serve(t, Options{Config: c.Config, Dir: dir})
	c.back()
	n.untilState(t, OK)
	n.create(t, "c")
	n.synced(t)
	n.stop()
	if n = serve(t, Options{Config: c.Config, Dir: dirs(t)}); names(n.db) != "a c" {
		t.Errorf("restored: %s", names(n.db))
	}
}

// Only what can be restored is offered: not what lies after a gap.
func TestPointsAfterAGap(t *testing.T) {
	c := fileReplica(t)
	n := serve(t, Options{Config: c, Dir: dirs(t), FirstBoot: true})
	for _, key := range strings.Fields("a b c d e") {
		n.create(t, key)
		n.synced(t)
	}
	n.stop()
	os.RemoveAll(filepath.Join(c.dir, "ltx", "9"))
	all := must(Points(t.Context(), c))(t)
	files := must(filepath.Glob(filepath.Join(c.dir, "ltx", "0", "*.ltx")))(t)
	if len(files) != len(all) || len(all) < 5 {
		t.Fatalf("%d files and %d points", len(files), len(all))
	}
	if err := os.Remove(files[len(files)-2]); err != nil {
		t.Fatal(err)
	}
	left := must(Points(t.Context(), c))(t)
	if len(left) != len(all)-2 {
		t.Errorf("%d points after a gap before the last, want %d", len(left), len(all)-2)
	}
	for _, p := range left {
		if _, err := Restore(t.Context(), c, dirs(t), p.At); err != nil {
			t.Errorf("%v is offered, and restoring it gives %v", p, err)
		}
	}
}

func TestDrill(t *testing.T) {
	onEach(t, func(t *testing.T, c *Config) {
		n := serve(t, Options{Config: c, Dir: dirs(t), FirstBoot: true})
		n.create(t, "a", "b")
		d := n.RunDrill(t.Context())
		if d.Error != "" || d.Contents.Revision != 2 || d.Contents.Flags != 2 || d.At.IsZero() || d.Took <= 0 {
			t.Errorf("RunDrill = %+v", d)
		}
		if got := n.Status().Drill; got.At != d.At || got.Error != "" {
			t.Errorf("Status().Drill = %+v", got)
		}
		if left := must(filepath.Glob(filepath.Join(n.dir, "*.drill*")))(t); len(left) > 0 {
			t.Errorf("the drill left %v", left)
		}
		r := must(Check(t.Context(), c, t.TempDir()))(t)
		if r.Contents.Revision != 2 {
			t.Errorf("Check = %+v", r)
		}
	})
}

// A replica with a bad file is found, said loudly, and mended.
func TestDrillOfABrokenReplica(t *testing.T) {
	for _, breaking := range []struct {
		name    string
		destroy func(name string) error
	}{
		{"corrupt", func(name string) error {
			data, err := os.ReadFile(name)
			if err != nil {
				return err
			}
			for i := len(data) / 2; i < len(data)/2+64; i++ {
				data[i] ^= 0xff
			}
			return os.WriteFile(name, data, 0o600)
		}},
		{"missing", os.Remove},
		{"empty", func(name string) error { return os.Truncate(name, 0) }},
	} {
		t.Run(breaking.name, func(t *testing.T) {
			c := fileReplica(t)
			dir := dirs(t)
			n := serve(t, Options{Config: c, Dir: dir, FirstBoot: true})
			for _, key := range strings.Fields("a b c d e") {
				n.create(t, key)
				n.synced(t)
			}
			snapshots := filepath.Join(c.dir, "ltx", "9", "*.ltx")
			had := len(must(filepath.Glob(snapshots))(t))
			files := must(filepath.Glob(filepath.Join(c.dir, "ltx", "0", "*.ltx")))(t)
			if err := breaking.destroy(files[len(files)-2]); err != nil {
				t.Fatal(err)
			}
			d := n.RunDrill(t.Context())
			if d.Error == "" {
				t.Fatal("the drill finds nothing")
			}
			if !strings.Contains(n.log.String(), "level=ERROR msg=\"the drill failed") || n.Status().Drill.Error == "" {
				t.Error("the failure is not said")
			}
			if !strings.Contains(d.Error, "mended since") || n.Status().Drill.Error != d.Error {
				t.Errorf("after it was mended the drill says %q", d.Error)
			}
			if has := len(must(filepath.Glob(snapshots))(t)); has <= had {
				t.Errorf("%d snapshots, had %d", has, had)
			}
			if d = n.RunDrill(t.Context()); d.Error != "" {
				t.Errorf("the next drill: %s", d.Error)
			}
			want := names(n.db)
			n.stop()
			lose(t, dir)
			if n = serve(t, Options{Config: c, Dir: dir}); names(n.db) != want {
				t.Errorf("restored: %s, want %s", names(n.db), want)
			}
		})
	}
}

func TestCompaction(t *testing.T) {
	onEach(t, func(t *testing.T, c *Config) {
		dir := dirs(t)
		n := serve(t, Options{Config: c, Dir: dir, FirstBoot: true})
		for i := range 20 {
			n.create(t, "f"+strings.Repeat("x", i))
			n.synced(t)
		}
		n.stop()
		n = serve(t, Options{Config: c, Dir: dir})
		client := must(c.client())(t)
		until(t, "the changes are compacted", func() bool {
			return must(litestream.NewReplicaWithClient(nil, client).MaxLTXFileInfo(t.Context(), 1))(t).MaxTXID >= 20
		})
		want := names(n.db)
		n.stop()
		// Nothing but what is left when the changes one by one have had their time.
		level0 := must(litestream.FindLTXFiles(t.Context(), client, 0, false, func(info *ltx.FileInfo) (bool, error) { return info.MaxTXID < 20, nil }))(t)
		if err := client.DeleteLTXFiles(t.Context(), level0); err != nil || len(level0) < 10 {
			t.Fatalf("%d files removed, %v", len(level0), err)
		}
		lose(t, dir)
		if n = serve(t, Options{Config: c, Dir: dir}); names(n.db) != want {
			t.Errorf("restored: %s, want %s", names(n.db), want)
		}
	})
}

func TestParse(t *testing.T) {
	for url, want := range map[string]string{
		"file:///var/backups/flags":                                             "",
		"s3://bucket/prefix?region=eu-central-1":                                "",
		"s3://bucket/prefix":                                                    "a bucket at AWS needs its region",
		"s3://bucket/a/b?endpoint=https://fly.storage.tigris.dev&region=auto":   "",
		"s3://bucket/prefix?endpoint=http://127.0.0.1:9000&forcePathStyle=true": "",
		"/var/backups":                        "must be file:///path or s3://bucket/prefix",
		"http://example.com/x":                "must be file:///path or s3://bucket/prefix",
		"file://backups/flags":                "not the absolute path",
		"file:///":                            "not the absolute path",
		"file:///a?x=1":                       "not the absolute path",
		"s3://bucket":                         "no bucket or no prefix",
		"s3:///prefix":                        "no bucket or no prefix",
		"s3://key:secret@bucket/prefix":       "neither user nor fragment",
		"s3://bucket/prefix?endpoint=minio":   "not an origin",
		"s3://bucket/prefix?forcePathStyle=x": "must be true or false",
		"s3://bucket/prefix?speed=9":          "the parameters are endpoint, region and forcePathStyle",
		"s3://bucket/p?region=a&region=b":     "twice",
		"s3://%zz/p":                          "is not a URL",
	} {
		c, err := Parse(url, keys())
		switch {
		case want == "" && (err != nil || c.String() != url):
			t.Errorf("Parse(%q) = %v, %v", url, c, err)
		case want != "" && (err == nil || !strings.Contains(err.Error(), want)):
			t.Errorf("Parse(%q): %v, want %q", url, err, want)
		}
	}
	none := func(string) string { return "" }
	if _, err := Parse("s3://bucket/prefix?region=x", none); err == nil || !strings.Contains(err.Error(), "AWS_ACCESS_KEY_ID") {
		t.Errorf("without keys: %v", err)
	}
	if _, err := Parse("file:///x", none); err != nil {
		t.Errorf("a file replica needs no keys: %v", err)
	}
	if _, err := Parse("s3://bucket/prefix?region=x", keys("AWS_CA_BUNDLE", "/etc/ca.pem")); err == nil || !strings.Contains(err.Error(), "SSL_CERT_FILE") {
		t.Errorf("with AWS_CA_BUNDLE: %v", err)
	}
	if c, err := Parse("s3://bucket/prefix", keys("AWS_REGION", "eu-north-1")); err != nil || c.query.Get("region") != "eu-north-1" {
		t.Errorf("with AWS_REGION: %v, %v", c, err)
	}
}
