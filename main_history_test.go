package main

import (
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/dezky/platform-api/db"
)

var chainWhole = regexp.MustCompile(`^(\d+) entries, chain whole, last hash ([0-9a-f]{64})\n$`)

// verify passes beside a running server and without one, and finds a byte that was changed in the file.
func TestVerify(t *testing.T) {
	dir := t.TempDir()
	s := start(t, dir, "-demo")
	s.log.await("log whole")
	match := chainWhole.FindStringSubmatch(must(t, "verify", "-data-dir", dir))
	if match == nil {
		t.Fatal("verify beside a server does not say that the chain is whole")
	}
	s.stop()
	head := match[2]
	if got := must(t, "verify", "-data-dir", dir, "-head", strings.ToUpper(head)); got != match[0] {
		t.Errorf("without a server and with the hash noted: %q, want %q", got, match[0])
	}
	for _, bad := range []string{"12", head + "00", strings.Repeat("x", 64)} {
		if status, _, stderr := execute(t, env(), "verify", "-data-dir", dir, "-head", bad); status != exitUsage || !strings.Contains(stderr, "-head: must be the 64 hex digits of a hash") {
			t.Errorf("-head %s = exit %d, %q", bad, status, stderr)
		}
	}
	status, stdout, stderr := execute(t, env(), "verify", "-data-dir", dir, "-head", strings.Repeat("0", 64))
	if status != exitFailure || stdout != "" || !strings.Contains(stderr, "no entry has the hash 000") {
		t.Errorf("a hash that no entry has = exit %d, %q, %q", status, stdout, stderr)
	}

	name := filepath.Join(dir, db.File)
	file, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	at := strings.Index(string(file), `"state":{"from":"`)
	if at < 0 {
		t.Fatal("the file has no change of a state")
	}
	file[at+len(`"state":{"from":"`)] ^= 1
	if err := os.WriteFile(name, file, 0o600); err != nil {
		t.Fatal(err)
	}
	status, stdout, stderr = execute(t, env(), "verify", "-data-dir", dir)
	if status != exitFailure || stdout != "" || !regexp.MustCompile(`^platform-api: the log is not as it was written: entry \d+ has another hash[^\n]*\n$`).MatchString(stderr) {
		t.Errorf("a changed byte = exit %d, %q, %q, want 1 and the entry", status, stdout, stderr)
	}
}

// A freeze stops imports too, outlives a restart, and lets a start wait with its seeds.
func TestFrozenCommands(t *testing.T) {
	dir := t.TempDir()
	file := filepath.Join(t.TempDir(), "document.json")
	if err := os.WriteFile(file, []byte(`{"partners":[],"tenants":[],"flags":[{"key":"only_one"}]}`), 0o600); err != nil {
		t.Fatal(err)
	}
	must(t, "token", "create", "-data-dir", dir, "-name", "ops", "-role", "operator")
	token := strings.TrimSpace(must(t, "token", "create", "-data-dir", dir, "-name", "ci", "-role", "operator"))
	s := start(t, dir)
	body := fmt.Sprintf(`{"reason":"launch","until":%q}`, time.Now().Add(time.Hour).UTC().Format(time.RFC3339))
	if status, answer := s.ask(t, token, "PUT", "/freeze", body); status != 200 {
		t.Fatalf("PUT /freeze = %d %s", status, answer)
	}
	s.stop()
	status, _, stderr := execute(t, env(), "import", "-data-dir", dir, file)
	if status != exitFailure || !strings.Contains(stderr, "changes are frozen until ") || !strings.Contains(stderr, "by token:ci: launch") || strings.Count(stderr, "\n") != 1 {
		t.Errorf("import = exit %d, %q, want 1 and why", status, stderr)
	}
	must(t, "import", "-data-dir", dir, "-dry-run", file)
	s = start(t, dir) // its seeds are there already
	if status, answer := s.ask(t, token, "PATCH", "/flags/gdpr_export_v2", `{"pct":3}`); status != 423 {
		t.Errorf("a change after a restart = %d %s, want 423", status, answer)
	}
	must(t, "token", "create", "-data-dir", dir, "-name", "more", "-role", "read")
}
