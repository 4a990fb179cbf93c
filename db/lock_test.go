package db

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestLock(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "data")
	now := newClock().now()
	lock := must(AcquireLock(dir, "serve", now))(t)
	host := must(os.Hostname())(t)
	want := fmt.Sprintf(`the data directory %s is in use by "platform-api serve", process %d on %s, since 2026-01-02T03:04:05Z`, dir, os.Getpid(), host)
	for range 2 { // asking does not take it away
		if second, err := AcquireLock(dir, "import", now); err == nil || err.Error() != want {
			t.Errorf("AcquireLock = %v, %v, want %s", second, err, want)
		}
	}
	if got := must(os.Stat(filepath.Join(dir, LockFile)))(t).Mode(); got != 0o600 {
		t.Errorf("the lock file's mode is %v, want 0600", got)
	}
	if err := lock.Release(); err != nil {
		t.Fatal(err)
	}
	// The next holder, with a longer name, and then one with a shorter.
	for _, command := range []string{"token create and more", "x"} {
		lock := must(AcquireLock(dir, command, now))(t)
		if _, err := AcquireLock(dir, "serve", now); err == nil || !strings.Contains(err.Error(), `"platform-api `+command+`"`) {
			t.Errorf("AcquireLock: %v, want that %s has it", err, command)
		}
		if err := lock.Release(); err != nil {
			t.Fatal(err)
		}
	}
}

func TestLockOfUnknownHolder(t *testing.T) {
	dir := t.TempDir()
	lock := must(AcquireLock(dir, "serve", newClock().now()))(t)
	defer lock.Release()
	if err := os.WriteFile(filepath.Join(dir, LockFile), []byte("{"), 0o600); err != nil { // as between Truncate and WriteAt
		t.Fatal(err)
	}
	_, err := AcquireLock(dir, "import", newClock().now())
	if want := "the data directory " + dir + " is in use by another process"; err == nil || err.Error() != want {
		t.Errorf("AcquireLock: %v, want %s", err, want)
	}
}

// However its holder ends, the lock is free then.
func TestLockOfKilledProcess(t *testing.T) {
	dir := t.TempDir()
	c := startChild(t, "lock", dir)
	pid := c.line(t)
	if _, err := AcquireLock(dir, "import", newClock().now()); err == nil || !strings.Contains(err.Error(), `"platform-api serve", process `+pid+" on ") {
		t.Errorf("AcquireLock: %v, want that process %s has it", err, pid)
	}
	if err := c.cmd.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	c.rest()
	lock := must(AcquireLock(dir, "import", newClock().now()))(t)
	if err := lock.Release(); err != nil {
		t.Error(err)
	}
}

func TestLockFails(t *testing.T) {
	file := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := AcquireLock(file, "serve", newClock().now()); err == nil || !strings.HasPrefix(err.Error(), "data directory: ") {
		t.Errorf("AcquireLock in a file: %v, want an error of the data directory", err)
	}
}
