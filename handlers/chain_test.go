package handlers

import (
	"bufio"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/dezky/platform-api/auth"
	"github.com/dezky/platform-api/db"
)

// hashOf is an exported line's hash by the words of docs/history.md, from nothing but its JSON.
func hashOf(t *testing.T, line string) (previous, hash, computed string) {
	t.Helper()
	var entry map[string]any
	dec := json.NewDecoder(strings.NewReader(line))
	dec.UseNumber()
	if err := dec.Decode(&entry); err != nil {
		t.Fatalf("%s: %v", line, err)
	}
	text := "17:dezky log entry 1"
	for _, name := range []string{"previous", "id", "at", "revision", "actor", "kind", "name", "action", "version", "note", "changes", "impact",
		"via", "subject", "issuer", "client"} {
		value, there := entry[name]
		switch {
		case !there:
			t.Fatalf("%s has no %s", line, name)
		case value == nil:
			text += "-"
		default:
			s := fmt.Sprint(value)
			text += fmt.Sprintf("%d:%s", len(s), s)
		}
	}
	sum := sha256.Sum256([]byte(text))
	return entry["previous"].(string), entry["hash"].(string), hex.EncodeToString(sum[:])
}

// The log as lines can be checked by what is documented alone, and its last hash is what a check finds.
func TestHistoryLines(t *testing.T) {
	t.Parallel()
	s := startDemo(t)
	s.token(t, db.NewToken{Name: "more", Role: "read"})
	s.want(t, http.StatusCreated, "POST /flags", `{"key":"odd","description":"<&> ø \u2028","note":"a:b\n\"c\""}`)
	schema := openapi().Components.Schemas["LogLine"].Value
	chain, err := s.db.CheckChain(t.Context(), "")
	if err != nil || chain.Wrong != "" {
		t.Fatal(chain, err)
	}
	a := s.want(t, http.StatusOK, "GET /history", "", s.as("read"), "Accept: application/x-ndjson")
	if got := a.header.Get("Content-Type"); got != "application/x-ndjson" {
		t.Errorf("it is %s", got)
	}
	last, n := "", int64(0)
	for in := bufio.NewScanner(strings.NewReader(a.body)); in.Scan(); n++ {
		var plain any
		if err := json.Unmarshal(in.Bytes(), &plain); err != nil {
			t.Fatal(err)
		}
		if err := schema.VisitJSON(plain); err != nil {
			t.Fatalf("%s: %v", in.Text(), err)
		}
		previous, hash, computed := hashOf(t, in.Text())
		if previous != last || hash != computed {
			t.Fatalf("%s follows %s and has the hash %s", in.Text(), last, computed)
		}
		last = hash
	}
	if n != chain.Entries || n < linesPage/10 || last != chain.Head {
		t.Errorf("%d lines to %s, want %d to %s", n, last, chain.Entries, chain.Head)
	}
	if got := s.want(t, http.StatusOK, "GET /history?format=ndjson", "").body; got != a.body {
		t.Error("?format=ndjson is something else")
	}
	if got := s.want(t, http.StatusOK, "GET /operator/audit.jsonl", "", s.cookie(t, auth.Read)); got.body != a.body || !strings.Contains(got.header.Get("Content-Disposition"), "audit.jsonl") {
		t.Error("the console's is something else")
	}
	lines := strings.SplitAfter(a.body, "\n")
	if got := s.want(t, http.StatusOK, fmt.Sprintf("GET /history?format=ndjson&after=%d", n-2), "").body; got != strings.Join(lines[n-2:], "") {
		t.Errorf("after entry %d: %s", n-2, got)
	}
	filtered := s.want(t, http.StatusOK, "GET /history?format=ndjson&tenant=dezky", "").body
	for in := bufio.NewScanner(strings.NewReader(filtered)); in.Scan(); {
		if _, hash, computed := hashOf(t, in.Text()); hash != computed || !strings.Contains(in.Text(), `"name":"dezky"`) {
			t.Errorf("under a filter: %s", in.Text())
		}
	}
	for _, query := range []string{"format=xml", "format=ndjson&limit=3", "after=3", "format=ndjson&after=x"} {
		s.want(t, http.StatusUnprocessableEntity, "GET /history?"+query, "")
	}
	// What others ask with stays what it was.
	if got := s.want(t, http.StatusOK, "GET /history?limit=1&format=json", "").body; !strings.HasPrefix(got, "[{") {
		t.Errorf("as JSON: %s", got)
	}
}

// The status page and the metric follow what a check finds.
func TestLogChecked(t *testing.T) {
	t.Parallel()
	s := start(t)
	s.registry(t)
	operator := s.cookie(t, auth.Operator)
	status := func() string {
		t.Helper()
		return s.want(t, http.StatusOK, "GET /operator/status", "", operator).body
	}
	if got := status(); !strings.Contains(got, "not checked since the start") {
		t.Errorf("before any check: %s", got)
	}
	press := func() {
		t.Helper()
		s.want(t, http.StatusSeeOther, "POST /operator/status/chain", "", operator)
	}
	press()
	chain, err := s.db.CheckChain(t.Context(), "")
	if err != nil {
		t.Fatal(err)
	}
	got := status()
	for _, want := range []string{"whole", fmt.Sprintf("each of %d follows", chain.Entries), chain.Head, "none is removed"} {
		if !strings.Contains(got, want) {
			t.Errorf("the status page lacks %q", want)
		}
	}
	if got := s.want(t, http.StatusOK, "GET /metrics", "").body; !strings.Contains(got, "platform_api_log_chain_ok 1\n") {
		t.Error("the metric is not 1")
	}
	s.want(t, http.StatusForbidden, "POST /operator/status/chain", "", s.cookie(t, auth.Read))

	// A byte changes in the file, behind SQLite's back: as the server reads it next, it says so.
	file := filepath.Join(s.dir, db.File)
	s.stop(t)
	whole, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	at := strings.Index(string(whole), `{"from":null,"to":"New search"}`)
	whole[at+len(`{"from":null,"to":"`)] = 'n'
	if err := os.WriteFile(file, whole, 0o600); err != nil {
		t.Fatal(err)
	}
	again := open(t, s.dir)
	again.tokens = s.tokens
	again.want(t, http.StatusSeeOther, "POST /operator/status/chain", "", again.cookie(t, auth.Operator))
	page := again.want(t, http.StatusOK, "GET /operator/audit", "", again.cookie(t, auth.Read)).body
	if !strings.Contains(page, "The log is not as it was written: entry ") {
		t.Error("no page says that the log is broken")
	}
	if got := again.want(t, http.StatusOK, "GET /metrics", "").body; !strings.Contains(got, "platform_api_log_chain_ok 0\n") {
		t.Error("the metric is not 0")
	}
}

// Nobody's request waits for a check that somebody else began: on a slow disk it would be cut off.
func TestChainCheckUnderWay(t *testing.T) {
	t.Parallel()
	s := start(t)
	operator, form := s.cookie(t, auth.Operator), "Content-Type: application/x-www-form-urlencoded"
	turn := &s.app.Load().chain.turn
	turn.Lock()
	if a := s.want(t, 409, "POST /operator/status/chain", "", operator, form); !strings.Contains(a.body, "is being checked already") {
		t.Errorf("during a check: %s", a.body)
	}
	turn.Unlock()
	s.want(t, 303, "POST /operator/status/chain", "", operator, form)
}
