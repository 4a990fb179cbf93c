package main

import (
	"encoding/json"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/dezky/platform-api/db"
)

// replicated runs serve in another process, with a replica.
func replicated(t *testing.T, dir, replicaURL string, args ...string) (*exec.Cmd, server) {
	t.Helper()
	t.Setenv("PLATFORM_API_REPLICA_URL", replicaURL)
	for i := 0; i < len(args); i += 2 {
		t.Setenv(args[i], args[i+1])
	}
	return process(t, dir)
}

func kill(t *testing.T, cmd *exec.Cmd, dir string) {
	t.Helper()
	if err := cmd.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	cmd.Wait()
	if err := os.RemoveAll(dir); err != nil {
		t.Fatal(err)
	}
}

// patches changes flags, 200 times in all, and returns when the last was acknowledged.
func patches(t *testing.T, s server, token string) {
	t.Helper()
	for i := range 200 {
		key := []string{"jmap_native_v2", "gdpr_export_v2", "new_billing_engine"}[i%3]
		status, body := s.ask(t, token, "PATCH", "/flags/"+key, fmt.Sprintf(`{"pct": %d, "note": "change %d"}`, (i/3+1)%101, i))
		if status != http.StatusOK {
			t.Fatalf("PATCH = %d %s", status, body)
		}
	}
}

// The machine burns down, and the flags are back in a second with their history.
func TestDisaster(t *testing.T) {
	for _, durability := range []string{"local", "replicated"} {
		t.Run(durability, func(t *testing.T) {
			dir := filepath.Join(t.TempDir(), "data")
			copied := "file://" + t.TempDir()
			cmd, s := replicated(t, dir, copied, "PLATFORM_API_FIRST_BOOT", "true", "PLATFORM_API_DURABILITY", durability)
			t.Setenv("PLATFORM_API_FIRST_BOOT", "")
			token := strings.TrimSpace(must(t, "token", "create", "-name", "ops", "-role", "operator", "-data-dir", dir))
			patches(t, s, token)
			want := flagsAndHistory(t, s, token)
			if durability == "local" {
				soon(t, dir, copied)
			}
			kill(t, cmd, dir)

			best := time.Hour // of three, since other tests take their time beside this one
			for i := range 3 {
				begun := time.Now()
				cmd, s = replicated(t, dir, copied)
				best = min(best, time.Since(begun))
				if i < 2 {
					kill(t, cmd, dir)
				}
			}
			if os.Getenv("FAULTS") != "" && best > time.Second { // else other work may be under way beside it
				t.Errorf("it was ready after %s, want a second at most", best)
			}
			if got := flagsAndHistory(t, s, token); got != want {
				t.Errorf("after the disaster: %s\nwant: %s", got, want)
			}
		})
	}
}

// soon waits until the replica has everything, which is promised within 3 s; on a busy machine it takes longer.
func soon(t *testing.T, dir, replicaURL string) {
	t.Helper()
	for deadline := time.Now().Add(30 * time.Second); ; {
		status, out, stderr := execute(t, env("PLATFORM_API_REPLICA_URL", replicaURL), "restore", "-check", "-data-dir", dir)
		if status == exitOK && strings.Contains(out, ", 0 ahead.") {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("restore -check = %d %s %s after 30 s", status, out, stderr)
		}
	}
}

func flagsAndHistory(t *testing.T, s server, token string) string {
	t.Helper()
	var out strings.Builder
	for _, path := range []string{"/flags", "/history?limit=200"} {
		status, body := s.ask(t, token, "GET", path, "")
		if status != http.StatusOK {
			t.Fatalf("GET %s = %d %s", path, status, body)
		}
		out.WriteString(body)
	}
	return out.String()
}

// An ETag or event id from before is never honoured after a restore, though its revision is used again.
func TestStaleAfterRestore(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "data")
	copied := "file://" + t.TempDir()
	cmd, s := replicated(t, dir, copied, "PLATFORM_API_FIRST_BOOT", "true", "PLATFORM_API_DURABILITY", "replicated")
	t.Setenv("PLATFORM_API_FIRST_BOOT", "")
	token := strings.TrimSpace(must(t, "token", "create", "-name", "ops", "-role", "operator", "-data-dir", dir))
	patches(t, s, token)
	evaluate := func(s server, tag string) (int, string) {
		t.Helper()
		r, err := http.NewRequest("POST", s.base+"/flags/evaluate", strings.NewReader(`{"tenantSlug": "dezky"}`))
		if err != nil {
			t.Fatal(err)
		}
		r.Header.Set("Authorization", "Bearer "+token)
		r.Header.Set("Content-Type", "application/json")
		r.Header.Set("If-None-Match", tag)
		response, err := http.DefaultClient.Do(r)
		if err != nil {
			t.Fatal(err)
		}
		response.Body.Close()
		return response.StatusCode, response.Header.Get("ETag")
	}
	_, tag := evaluate(s, "")
	if status, _ := evaluate(s, tag); status != http.StatusNotModified {
		t.Errorf("the tag before = %d, want 304", status)
	}
	before := must(t, "export", "-data-dir", dir)
	kill(t, cmd, dir)
	_, s = replicated(t, dir, copied)
	if status, now := evaluate(s, tag); status != http.StatusOK || now == tag {
		t.Errorf("the tag after the restore = %d, and the new one is %s, want 200 and another than %s", status, now, tag)
	}
	if after := must(t, "export", "-data-dir", dir); after != before {
		t.Errorf("after: %s\nbefore: %s", after, before)
	}
}

// A stop in the middle of a storm of changes loses none that was acknowledged: the last sync takes them along.
func TestStopInAStorm(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "data")
	copied := "file://" + t.TempDir()
	cmd, s := replicated(t, dir, copied, "PLATFORM_API_FIRST_BOOT", "true")
	t.Setenv("PLATFORM_API_FIRST_BOOT", "")
	token := strings.TrimSpace(must(t, "token", "create", "-name", "ops", "-role", "operator", "-data-dir", dir))
	keys := []string{"jmap_native_v2", "gdpr_export_v2", "new_billing_engine"}
	acknowledged := make([]int, len(keys)) // the last pct of each
	enough := make(chan struct{})
	var storm sync.WaitGroup
	var changes atomic.Int32
	for i, key := range keys {
		storm.Go(func() {
			for n := 1; ; n++ {
				status, _, err := request(s.base, token, "PATCH", "/flags/"+key, fmt.Sprintf(`{"pct": %d}`, n%101))
				if err != nil || status != http.StatusOK {
					return // it has stopped
				}
				acknowledged[i] = n
				if changes.Add(1) == 100 {
					close(enough)
				}
			}
		})
	}
	<-enough
	if err := cmd.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	storm.Wait()
	if err := cmd.Wait(); err != nil {
		t.Errorf("serve ended with %v", err)
	}
	if err := os.RemoveAll(dir); err != nil {
		t.Fatal(err)
	}
	_, s = replicated(t, dir, copied)
	for i, key := range keys {
		_, body := s.ask(t, token, "GET", "/flags/"+key, "")
		var f struct{ Version int }
		if err := json.Unmarshal([]byte(body), &f); err != nil {
			t.Fatal(err)
		}
		if last := acknowledged[i] + 1; f.Version < last || f.Version > last+1 {
			t.Errorf("flag %s is at version %d, acknowledged was %d", key, f.Version, last)
		}
	}
}

func TestRestoreCommand(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "data")
	copied := "file://" + t.TempDir()
	cmd, s := replicated(t, dir, copied, "PLATFORM_API_FIRST_BOOT", "true", "PLATFORM_API_DURABILITY", "replicated")
	token := strings.TrimSpace(must(t, "token", "create", "-name", "ops", "-role", "operator", "-data-dir", dir))
	if status, body := s.ask(t, token, "PATCH", "/flags/jmap_native_v2", `{"state": "on"}`); status != http.StatusOK {
		t.Fatalf("PATCH = %d %s", status, body)
	}
	good := time.Now().Add(time.Second).Truncate(time.Second)
	for time.Now().Before(good.Add(time.Millisecond)) {
		<-time.After(time.Until(good.Add(time.Millisecond)))
	}
	patches(t, s, token) // the bulk mistake

	getenv := env("PLATFORM_API_REPLICA_URL", copied)
	status, list, stderr := execute(t, getenv, "restore", "-list")
	lines := strings.Split(strings.TrimSpace(list), "\n")
	if status != exitOK || len(lines) < 100 || !regexp.MustCompile(`^20\d\d-\S+Z  1$`).MatchString(lines[0]) {
		t.Errorf("restore -list = %d, %d lines, the first %q, %s", status, len(lines), lines[0], stderr)
	}
	status, out, stderr := execute(t, getenv, "restore", "-check", "-data-dir", dir)
	if status != exitOK || !strings.Contains(out, "The replica can be restored") || !strings.Contains(out, "0 ahead") {
		t.Errorf("restore -check = %d %s %s", status, out, stderr)
	}
	if status, _, stderr := execute(t, getenv, "restore", "-data-dir", dir); status != exitFailure || !strings.Contains(stderr, "in use by \"platform-api serve\"") {
		t.Errorf("restore beside the server = %d %s", status, stderr)
	}
	if err := cmd.Process.Signal(os.Interrupt); err != nil {
		t.Fatal(err)
	}
	if err := cmd.Wait(); err != nil {
		t.Errorf("serve ended with %v", err)
	}
	if status, _, stderr := execute(t, getenv, "restore", "-data-dir", dir); status != exitFailure || !strings.Contains(stderr, "holds a database already") {
		t.Errorf("restore over a database = %d %s", status, stderr)
	}
	other := filepath.Join(t.TempDir(), "other")
	at := good.UTC().Format(time.RFC3339)
	status, out, stderr = execute(t, getenv, "restore", "-at", at, "-o", other)
	if status != exitOK || !strings.Contains(out, other+" now holds the state of ") || !strings.Contains(out, "flag jmap_native_v2 updated by token:ops") || !regexp.MustCompile(`(?m)^  flags        10$`).MatchString(out) {
		t.Errorf("restore -at = %d %s %s", status, out, stderr)
	}
	_, s = replicated(t, other, copied, "PLATFORM_API_FIRST_BOOT", "")
	if _, body := s.ask(t, token, "GET", "/flags/jmap_native_v2", ""); !strings.Contains(body, `"state":"on"`) || !strings.Contains(body, `"pct":0`) {
		t.Errorf("what is served after the restore: %s", body)
	}

	for _, test := range []struct {
		args []string
		want string
		exit int
	}{
		{[]string{"restore"}, "PLATFORM_API_REPLICA_URL: is required", exitUsage},
		{[]string{"restore", "-replica-url", copied, "-at", "yesterday"}, "-at: \"yesterday\" is not a time", exitUsage},
		{[]string{"restore", "-replica-url", copied, "-list", "-o", "x"}, "-o: does not go with", exitUsage},
		{[]string{"restore", "-replica-url", copied, "-at", "2001-01-01T00:00:00Z", "-o", t.TempDir()}, "before the first state", exitFailure},
		{[]string{"restore", "-replica-url", copied, "-at", "2999-01-01T00:00:00Z", "-o", t.TempDir()}, "in the future", exitFailure},
		{[]string{"restore", "-replica-url", "ftp://x/y"}, "must be file:///path or s3://bucket/prefix", exitUsage},
	} {
		if status, _, stderr := execute(t, env(), test.args...); status != test.exit || !strings.Contains(stderr, test.want) {
			t.Errorf("%v = %d %s, want %d and %q", test.args, status, stderr, test.exit, test.want)
		}
	}
}

// Where a replica is configured no command makes a database of its own.
func TestNoDatabaseBesideAReplica(t *testing.T) {
	copied := t.TempDir()
	getenv := env("PLATFORM_API_REPLICA_URL", "file://"+copied)
	document := filepath.Join(t.TempDir(), "flags.json")
	if err := os.WriteFile(document, []byte(`{"flags": [{"key": "a"}]}`), 0o600); err != nil {
		t.Fatal(err)
	}
	for want, args := range map[string][]string{
		"start the server first": {"token", "create", "-name", "x", "-role", "read"},
		"no database in":         {"export"},
		"-first-boot":            {"import", document},
	} {
		dir := t.TempDir()
		status, _, stderr := execute(t, getenv, append(args, "-data-dir", dir)...)
		if status != exitFailure || !strings.Contains(stderr, want) {
			t.Errorf("%v = %d %s, want %q", args, status, stderr, want)
		}
		if _, err := os.Stat(filepath.Join(dir, db.File)); err == nil {
			t.Errorf("%v made a database", args)
		}
	}

	// An import replicates what it takes in.
	dir := t.TempDir()
	if status, _, stderr := execute(t, getenv, "import", document, "-first-boot", "-data-dir", dir); status != exitOK || stderr != "" {
		t.Fatalf("import = %d %s", status, stderr)
	}
	status, out, stderr := execute(t, getenv, "restore", "-check", "-data-dir", dir)
	if status != exitOK || !strings.Contains(out, "flags        1") || !strings.Contains(out, "0 ahead") {
		t.Errorf("restore -check = %d %s %s", status, out, stderr)
	}
	// And says so where it can't.
	if err := os.Rename(copied, copied+".away"); err != nil {
		t.Fatal(err)
	}
	status, _, stderr = execute(t, getenv, "import", document, "-data-dir", dir)
	if status != exitOK || !strings.Contains(stderr, "the replica does not have this yet") {
		t.Errorf("import without the replica = %d %s", status, stderr)
	}
}

func TestReplicaMistakes(t *testing.T) {
	for _, test := range []struct {
		getenv func(string) string
		want   string
	}{
		{env("PLATFORM_API_REPLICA_URL", "flags"), "PLATFORM_API_REPLICA_URL: \"flags\" is neither"},
		{env("PLATFORM_API_FIRST_BOOT", "maybe"), "PLATFORM_API_FIRST_BOOT: \"maybe\" is neither true nor false"},
		{env("PLATFORM_API_DURABILITY", "both"), "PLATFORM_API_DURABILITY: \"both\" is neither local nor replicated"},
		{env("PLATFORM_API_DURABILITY", "replicated"), "PLATFORM_API_DURABILITY: replicated needs a replica"},
	} {
		if status, _, stderr := execute(t, test.getenv, "serve", "-data-dir", t.TempDir()); status != exitUsage || !strings.Contains(stderr, test.want) {
			t.Errorf("serve = %d %s, want %q", status, stderr, test.want)
		}
	}
}
