package replica

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/dezky/platform-api/db"
	"github.com/dezky/platform-api/flags"
)

// childVariable makes the test binary play another process: "what", with the directory and the replica in
// variables of their own.
const childVariable = "PLATFORM_API_TEST_CHILD"

// children go on until they are killed or their stdin is closed, and say on stdout, a line each, what has
// been done.
var children = map[string]func(ctx context.Context, dir, replica string) error{
	"storm":      func(ctx context.Context, dir, url string) error { return childStorms(ctx, dir, url, false) },
	"replicated": func(ctx context.Context, dir, url string) error { return childStorms(ctx, dir, url, true) },
	"read":       childReads,
}

func TestMain(m *testing.M) {
	os.Unsetenv("AWS_CA_BUNDLE") // the SDK reads it by itself; Parse refuses it
	if what := os.Getenv(childVariable); what != "" {
		ctx, done := context.WithCancel(context.Background())
		go func() {
			defer done()
			io.Copy(io.Discard, os.Stdin)
		}()
		if err := children[what](ctx, os.Getenv(childVariable+"_DIR"), os.Getenv(childVariable+"_REPLICA")); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	os.Exit(m.Run())
}

// child is another process.
type child struct {
	cmd   *exec.Cmd
	stdin io.Closer
	lines *bufio.Scanner
}

func startChild(t *testing.T, what, dir string, c *Config) *child {
	t.Helper()
	cmd := exec.Command(must(os.Executable())(t))
	cmd.Env = append(os.Environ(), childVariable+"="+what, childVariable+"_DIR="+dir, childVariable+"_REPLICA="+c.String())
	cmd.Stderr = os.Stderr
	stdin, stdout := must(cmd.StdinPipe())(t), must(cmd.StdoutPipe())(t)
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { // does nothing to one that has ended
		cmd.Process.Kill()
		cmd.Wait()
	})
	return &child{cmd, stdin, bufio.NewScanner(stdout)}
}

// take waits for so many lines.
func (c *child) take(t *testing.T, n int) []string {
	t.Helper()
	var out []string
	for range n {
		if !c.lines.Scan() {
			t.Fatalf("the child ended: %v", c.lines.Err())
		}
		out = append(out, c.lines.Text())
	}
	return out
}

// kill ends it as a power failure would, and returns what it had still said.
func (c *child) kill(t *testing.T) []string {
	t.Helper()
	if err := c.cmd.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	return c.rest()
}

func (c *child) rest() []string {
	var out []string
	for c.lines.Scan() {
		out = append(out, c.lines.Text())
	}
	c.cmd.Wait()
	return out
}

// childStorms is a server whose flags are changed from several sides at once, which says "key version" of
// each change, and the time, when that is acknowledged.
func childStorms(ctx context.Context, dir, url string, replicated bool) error {
	c, err := Parse(url, keys())
	if err != nil {
		return err
	}
	brisk := usual // as in life, but for what takes long
	brisk.lease = swift.lease
	n, err := begin(context.Background(), Options{Config: c, Dir: dir, FirstBoot: true, pace: &brisk})
	if err != nil {
		return err
	}
	if replicated {
		n.db.AcknowledgeBy(n.Wait)
	}
	failed := make(chan error, 8)
	var writers sync.WaitGroup
	for _, key := range strings.Fields("a b c d") {
		writers.Go(func() {
			for i := 0; ctx.Err() == nil; i++ {
				var f *flags.Flag
				var err error
				if n.db.Current().Flag(key) == nil {
					f, err = n.db.CreateFlag(context.Background(), ops, flags.NewFlag{Key: key})
				} else {
					f, err = n.db.PatchFlag(context.Background(), ops, key, flags.Patch{Description: new(fmt.Sprint(os.Getpid(), " ", i))})
				}
				if err == nil {
					_, err = fmt.Println(key, f.Version, time.Now().UnixMilli()) // in one write
				}
				if err != nil {
					failed <- err
					return
				}
			}
		})
	}
	writers.Wait()
	if err := n.stop(); err != nil {
		return err
	}
	select {
	case err := <-failed:
		return err
	default:
		return nil
	}
}

// childReads opens the database of a running server, reads, and closes it, again and again.
func childReads(ctx context.Context, dir, _ string) error {
	for ctx.Err() == nil {
		d, err := db.OpenBeside(context.Background(), db.Options{Dir: dir, Environments: environments})
		if err != nil {
			return err
		}
		s, err := d.Load(context.Background())
		if err != nil {
			return err
		}
		if err := d.TouchTokens(context.Background(), nil); err != nil { // opens a connection that may write
			return err
		}
		if err := d.Close(); err != nil {
			return err
		}
		fmt.Println(s.Revision())
	}
	return nil
}

// acknowledgement is one that a storm has told of.
type acknowledgement struct {
	key     string
	version int64
	at      time.Time
}

func acknowledgements(t *testing.T, lines []string) []acknowledgement {
	t.Helper()
	out := make([]acknowledgement, len(lines))
	for i, line := range lines {
		var ms int64
		if n, err := fmt.Sscanf(line, "%s %d %d", &out[i].key, &out[i].version, &ms); n != 3 || err != nil {
			t.Fatalf("the child says %q: %v", line, err)
		}
		out[i].at = time.UnixMilli(ms)
	}
	return out
}

// lost returns those of which a database holds nothing.
func lost(n *node, all []acknowledgement) (out []acknowledgement) {
	for _, a := range all {
		if f := n.db.Current().Flag(a.key); f == nil || f.Version < a.version {
			out = append(out, a)
		}
	}
	return out
}
