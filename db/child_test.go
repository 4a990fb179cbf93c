package db

import (
	"bufio"
	"context"
	"database/sql/driver"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strconv"
	"sync"
	"syscall"
	"testing"
	"time"

	"modernc.org/sqlite"

	"github.com/dezky/platform-api/flags"
)

// childVariable makes the test binary play another process: "what directory".
const childVariable = "PLATFORM_API_TEST_CHILD"

// children are what the other process may do in a directory. It goes on until it is killed or its stdin
// is closed, and says on stdout, a line each, what has been done.
var children = map[string]func(dir string) error{
	"patch":   childPatches,
	"tokens":  childTokens,
	"lock":    childLocks,
	"migrate": childMigrates,
}

func TestMain(m *testing.M) {
	if what := os.Getenv(childVariable); what != "" {
		if err := children[what](os.Getenv(childVariable + "_DIR")); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	code := m.Run()
	if err := removeLarge(); err != nil {
		fmt.Fprintln(os.Stderr, err)
		code = 1
	}
	os.Exit(code)
}

// child is another process.
type child struct {
	cmd   *exec.Cmd
	stdin io.Closer
	lines *bufio.Scanner
}

func startChild(t *testing.T, what, dir string) *child {
	t.Helper()
	cmd := exec.Command(must(os.Executable())(t))
	cmd.Env = append(os.Environ(), childVariable+"="+what, childVariable+"_DIR="+dir)
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

// line waits for the next line.
func (c *child) line(t *testing.T) string {
	t.Helper()
	if !c.lines.Scan() {
		t.Fatalf("the child ended: %v", c.lines.Err())
	}
	return c.lines.Text()
}

// rest waits for the end, and returns what it said until then.
func (c *child) rest() (lines []string, err error) {
	for c.lines.Scan() {
		lines = append(lines, c.lines.Text())
	}
	return lines, c.cmd.Wait()
}

// untilClosed is done when stdin is.
func untilClosed() context.Context {
	ctx, done := context.WithCancel(context.Background())
	go func() {
		defer done()
		io.Copy(io.Discard, os.Stdin)
	}()
	return ctx
}

// childPatches is a server whose flags are changed from several sides at once, which says "key version"
// of each change when that is acknowledged.
func childPatches(dir string) error {
	ctx := untilClosed()
	d, err := Open(context.Background(), Options{Dir: dir, Environments: []string{"production", "staging"}})
	if err != nil {
		return err
	}
	defer d.Close()
	failed := make(chan error, 1)
	var writers sync.WaitGroup
	for _, key := range []string{"a", "b", "c", "d"} {
		writers.Go(func() {
			for i := 0; ctx.Err() == nil; i++ {
				var f *flags.Flag
				var err error
				if d.Current().Flag(key) == nil {
					f, err = d.CreateFlag(context.Background(), ops, flags.NewFlag{Key: key})
				} else {
					description := fmt.Sprint(os.Getpid(), " ", i)
					f, err = d.PatchFlag(context.Background(), ops, key, flags.Patch{Description: &description, Pct: new(i % 101)})
				}
				if err == nil {
					_, err = fmt.Println(key, f.Version) // in one write
				}
				if err != nil {
					select {
					case failed <- err:
					default:
					}
					return
				}
			}
		})
	}
	writers.Wait()
	select {
	case err := <-failed:
		return err
	default:
		return nil
	}
}

// childTokens is the command that makes a token, again and again, and says the name of each.
func childTokens(dir string) error {
	ctx := untilClosed()
	for i := 0; ctx.Err() == nil; i++ {
		d, err := OpenBeside(context.Background(), Options{Dir: dir})
		if err != nil {
			return err
		}
		name := fmt.Sprint("token-", i)
		if _, _, err := d.CreateToken(context.Background(), By{Actor: "system:cli"}, NewToken{Name: name, Role: "read"}); err != nil {
			return err
		}
		if err := d.Close(); err != nil {
			return err
		}
		fmt.Println(name)
	}
	return nil
}

// childLocks holds the directory and says its process id.
func childLocks(dir string) error {
	if _, err := AcquireLock(dir, "serve", time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)); err != nil {
		return err
	}
	fmt.Println(os.Getpid())
	<-untilClosed().Done()
	return nil
}

// childMigrates opens a database with migrations in which it dies after the statement of the number in
// childVariable_AT, as a power failure would have it; without such a statement it says "done".
func childMigrates(dir string) error {
	sqlite.MustRegisterScalarFunction("die", 0, func(*sqlite.FunctionContext, []driver.Value) (driver.Value, error) {
		return nil, syscall.Kill(os.Getpid(), syscall.SIGKILL)
	})
	at, err := strconv.Atoi(os.Getenv(childVariable + "_AT"))
	if err != nil {
		return err
	}
	migrations, err := migrationsThatDie(at)
	if err != nil {
		return err
	}
	d, err := Open(context.Background(), Options{Dir: dir, Environments: []string{"production", "staging"}, migrations: migrations})
	if err != nil {
		return err
	}
	fmt.Println("done")
	return d.Close()
}
