package handlers

import (
	"bufio"
	"context"
	"errors"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/dezky/platform-api/auth"
	"github.com/dezky/platform-api/db"
	"github.com/dezky/platform-api/db/dbtest"
	"github.com/dezky/platform-api/replica"
)

// startReplicated starts a server with a file replica, and returns the replica's directory.
func startReplicated(t *testing.T) (s *running, at string) {
	t.Helper()
	s, at = listen(t, readSpec()), t.TempDir()
	config, err := replica.Parse("file://"+at, func(string) string { return "" })
	if err != nil {
		t.Fatal(err)
	}
	s.dir = t.TempDir()
	copied, err := replica.Open(t.Context(), replica.Options{Config: config, Dir: s.dir, FirstBoot: true, Log: s.opts.Log})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { copied.Close(context.Background()) }) // after the database
	s.db = dbtest.OpenAt(t, s.dir, s.now)
	copied.Start(s.db)
	a := appliance(t, s.db, s.now, s.opts.Log, s.url)
	a.Replica = copied
	if err := s.Start(a); err != nil {
		t.Fatal(err)
	}
	for _, role := range db.TokenRoles {
		s.token(t, db.NewToken{Name: role, Role: role})
	}
	s.registry(t)
	return s, at
}

// cookie is that of a person who signs in to the console.
func (s *running) cookie(t *testing.T, role auth.Role) string {
	t.Helper()
	w := httptest.NewRecorder()
	p := auth.Principal{Name: "maja@dezky.example", Role: role}
	if err := s.app.Load().sessions.SignIn(w, httptest.NewRequest(http.MethodGet, s.url, nil), p); err != nil {
		t.Fatal(err)
	}
	c := w.Result().Cookies()[0]
	return "Cookie: " + c.Name + "=" + c.Value
}

// eventually polls a page until it has a text.
func (s *running) eventually(t *testing.T, line, cookie, text string) string {
	t.Helper()
	for deadline := time.Now().Add(30 * time.Second); ; {
		a := s.do(t, s.request(t, line, "", cookie))
		if strings.Contains(a.body, text) {
			return a.body
		}
		if time.Now().After(deadline) {
			t.Fatalf("%s never has %q: %s", line, text, a.body)
		}
		<-time.After(20 * time.Millisecond)
	}
}

func TestReplication(t *testing.T) {
	t.Parallel()
	s, at := startReplicated(t)
	person := s.cookie(t, auth.Operator)
	page := s.eventually(t, "GET /operator/status", person, "ok: every change is in the replica")
	for _, want := range []string{"file://" + at, "none since the start", "Run the drill now", "Last success"} {
		if !strings.Contains(page, want) {
			t.Errorf("the status page does not have %q", want)
		}
	}
	if strings.Contains(page, `class="notice bad alarm"`) {
		t.Error("an alarm where all is well")
	}
	if got := s.want(t, 200, "GET /ready", "", nobody).body; !strings.Contains(got, `"replication":"ok"`) {
		t.Errorf("/ready: %s", got)
	}
	viewer := s.cookie(t, auth.Read)
	if strings.Contains(s.do(t, s.request(t, "GET /operator/status", "", viewer)).body, "Run the drill now") {
		t.Error("a viewer is offered the drill")
	}
	if a := s.do(t, s.request(t, "POST /operator/status/drill", "", viewer)); a.status != http.StatusForbidden {
		t.Errorf("a viewer's drill = %d, want 403", a.status)
	}
	if a := s.do(t, s.request(t, "POST /operator/status/drill", "", person)); a.status != http.StatusSeeOther || a.header.Get("Location") != "/operator/status" {
		t.Errorf("the drill = %d %s", a.status, a.header.Get("Location"))
	}
	s.eventually(t, "GET /operator/status", person, "passed just now")
	told := s.want(t, 200, "GET /metrics", "", s.as("read")).body
	for _, want := range []string{"replication_ok 1\n", "replication_pending_revisions 0\n", "replication_drill_ok 1\n", "replication_lag_seconds ", "replication_position ", "replication_last_success_timestamp_seconds "} {
		if !strings.Contains(told, "\nplatform_api_"+want) {
			t.Errorf("the metrics do not have platform_api_%s", want)
		}
	}

	if err := os.Rename(at, at+".away"); err != nil {
		t.Fatal(err)
	}
	s.want(t, 200, "PATCH /flags/search", `{"pct":61}`)
	s.eventually(t, "GET /ready", nobody, `"replication":"away"`)
	s.eventually(t, "GET /operator/status", person, "away: 1 change not yet in the replica, ")
	if told := s.want(t, 200, "GET /metrics", "", s.as("read")).body; !strings.Contains(told, "\nplatform_api_replication_ok 0\n") || !strings.Contains(told, "\nplatform_api_replication_pending_revisions 1\n") {
		t.Error("the metrics do not say that the replica is away and lacks a change")
	}
	if err := os.Rename(at+".away", at); err != nil {
		t.Fatal(err)
	}
	s.eventually(t, "GET /ready", nobody, `"replication":"ok"`)
}

// An open page learns that another server has the replica.
func TestAlarmComesOverTheStream(t *testing.T) {
	t.Parallel()
	s, at := startReplicated(t)
	s.eventually(t, "GET /ready", nobody, `"replication":"ok"`)
	r := s.request(t, "GET /operator/events", "", s.cookie(t, auth.Read), "Accept: text/event-stream")
	response, err := s.client.Do(r)
	if err != nil || response.StatusCode != http.StatusOK {
		t.Fatal(response, err)
	}
	defer response.Body.Close()
	lines := bufio.NewScanner(response.Body)
	if !lines.Scan() { // it has begun
		t.Fatal(lines.Err())
	}
	if err := os.Rename(at, at+".away"); err != nil {
		t.Fatal(err)
	}
	if err := os.Mkdir(at, 0o700); err != nil {
		t.Fatal(err)
	}
	lock, err := os.Create(filepath.Join(at, "writer.lock"))
	if err != nil {
		t.Fatal(err)
	}
	defer lock.Close()
	if _, err := lock.WriteString(`{"holder":"mail2:/data","since":"2026-01-02T03:04:05Z"}`); err != nil {
		t.Fatal(err)
	}
	if err := syscall.Flock(int(lock.Fd()), syscall.LOCK_EX|syscall.LOCK_NB); err != nil {
		t.Fatal(err)
	}
	s.want(t, 200, "PATCH /flags/search", `{"pct":61}`)
	page := s.eventually(t, "GET /operator/status", s.cookie(t, auth.Read), "taken: another server writes to the replica")
	if !strings.Contains(page, "mail2:/data") || !strings.Contains(page, `id="alarm" class="notice bad alarm" role="alert"`) {
		t.Error("the status page does not say who has it, in an alarm")
	}
	s.want(t, 200, "PATCH /flags/search", `{"pct":62}`) // which wakes the stream
	for lines.Scan() {
		if strings.Contains(lines.Text(), `id="alarm" class="notice bad alarm"`) && strings.Contains(lines.Text(), "changes exist on this machine only") {
			return
		}
	}
	t.Errorf("the stream ended without the alarm: %v", lines.Err())
}

func TestAlarm(t *testing.T) {
	t.Parallel()
	for want, s := range map[string]replica.Status{
		"1 change not yet in the replica, 16 s":                                                 {State: replica.Away, Pending: 1, Lag: 16 * time.Second},
		"2 changes not yet in the replica, 4 s":                                                 {State: replica.OK, Pending: 2, Lag: 4 * time.Second},
		"every change is in the replica, which has not answered for 2 min":                      {State: replica.Behind, Lag: 2 * time.Minute},
		"it is not known what the replica has; it has not answered for 1 h 0 min":               {State: replica.Away, Pending: -1, Lag: time.Hour},
		"another server writes to the replica, so changes exist on this machine only":           {State: replica.Taken, Pending: 3},
		"the replica has changes that this server lacks, so changes exist on this machine only": {State: replica.Diverged},
	} {
		if got := behind(s); got != want {
			t.Errorf("behind(%+v) = %q, want %q", s, got, want)
		}
	}
	for late, s := range map[bool][]replica.Status{
		true:  {{State: replica.Away, Lag: 16 * time.Second}, {State: replica.Taken}, {State: replica.Diverged}, {State: replica.Behind, Lag: time.Minute}},
		false: {{}, {State: replica.Off, Lag: time.Hour}, {State: replica.OK, Lag: 3 * time.Second}, {State: replica.Away, Lag: 3 * time.Second}},
	} {
		for _, s := range s {
			if got := s.Late(); got != late {
				t.Errorf("%+v: Late() = %t, want %t", s, got, late)
			}
		}
	}
}

// A change that the replica does not have is not acknowledged, and stands all the same.
func TestNotReplicated(t *testing.T) {
	t.Parallel()
	s := start(t)
	s.registry(t)
	person := s.cookie(t, auth.Operator)
	away := errors.New("it did not answer within 5s")
	s.db.AcknowledgeBy(func(context.Context) error { return away })
	change := func(line, body string, version int64) {
		t.Helper()
		r := s.request(t, line, body)
		a := s.do(t, r)
		openapi().check(t, r, body, a)
		p := decode[problem](t, a)
		if a.status != 503 || p.Type != "urn:dezky:problem:not-replicated" || p.Version != version || !strings.Contains(p.Detail, away.Error()) {
			t.Errorf("%s = %d %s, want not-replicated and version %d", line, a.status, a.body, version)
		}
	}
	change("PATCH /flags/search", `{"pct":61}`, 2)
	if f := s.db.Current().Flag("search"); f.Pct != 61 || f.Version != 2 {
		t.Errorf("the flag is at %d, version %d, want that the change stands", f.Pct, f.Version)
	}
	change("PATCH /flags/search", `{"pct":61}`, 0) // changes nothing, and is not acknowledged for that
	change("POST /flags", `{"key":"dark_mode"}`, 1)
	change("POST /flags/search/restore", `{"version":1}`, 3)
	change("DELETE /flags/dark_mode", "", 2)
	change("PATCH /tenants/acme", `{"plan":"enterprise"}`, 0)
	change("POST /partners", `{"slug":"mailbyen","name":"Mailbyen"}`, 0)

	a := s.do(t, s.request(t, "POST /operator/tokens", "name=ci&role=read", person, "Content-Type: application/x-www-form-urlencoded"))
	if a.status != 503 || !strings.Contains(a.body, `id="secret">dzk_`) || !strings.Contains(a.body, "the replica does not have it yet") {
		t.Errorf("a token in the console = %d %s, want its secret, which is never shown again", a.status, a.body)
	}
	a = s.do(t, s.request(t, "POST /operator/tokens/nobody/revoke", "", person))
	if a.status != 404 {
		t.Errorf("revoking an unknown token = %d, want 404", a.status)
	}
	a = s.do(t, s.request(t, "POST /operator/flags", "key=light_mode", person, "Content-Type: application/x-www-form-urlencoded"))
	if a.status != 503 || !strings.Contains(a.body, "Not in the replica yet") || a.header.Get("X-Reason") == "" {
		t.Errorf("a flag in the console = %d %.500s", a.status, a.body)
	}
	s.want(t, 200, "POST /flags/evaluate", `{"tenantSlug":"acme"}`)
}

// With the database's file gone the server goes on evaluating for whom it knows, says so, and refuses changes.
func TestDatabaseGone(t *testing.T) {
	t.Parallel()
	s, _ := startReplicated(t)
	person := s.cookie(t, auth.Operator)
	before := s.want(t, 200, "POST /flags/evaluate", `{"tenantSlug":"acme"}`, s.as("evaluate")).body
	s.want(t, 200, "GET /flags/search", "", s.as("operator"))
	if err := os.Rename(filepath.Join(s.dir, db.File), filepath.Join(s.dir, "elsewhere")); err != nil {
		t.Fatal(err)
	}
	p := decode[problem](t, s.want(t, 503, "PATCH /flags/search", `{"pct":61}`, s.as("operator")))
	if p.Type != "urn:dezky:problem:unavailable" || !strings.Contains(p.Detail, "its file was removed or replaced") {
		t.Errorf("a change gets %+v", p)
	}
	if got := s.want(t, 200, "POST /flags/evaluate", `{"tenantSlug":"acme"}`, s.as("evaluate")).body; got != before {
		t.Errorf("evaluated is %s, before %s", got, before)
	}
	if got := s.want(t, 200, "GET /ready", "", nobody).body; !strings.Contains(got, `"database":"unusable"`) {
		t.Errorf("/ready: %s", got)
	}
	s.eventually(t, "GET /ready", nobody, `"replication":"stuck"`)
	s.moveClock(2 * time.Minute) // the session's use would be noted now
	page := s.do(t, s.request(t, "GET /operator/flags", "", person)).body
	if !strings.Contains(page, `class="notice bad alarm"`) || !strings.Contains(page, "be used: its file was removed or replaced") {
		t.Errorf("the console does not say so: %.2000s", page)
	}
	if err := os.Rename(filepath.Join(s.dir, "elsewhere"), filepath.Join(s.dir, db.File)); err != nil {
		t.Fatal(err)
	}
	s.want(t, 200, "PATCH /flags/search", `{"pct":61}`, s.as("operator"))
	s.eventually(t, "GET /ready", nobody, `"database":"ok","replication":"ok"`)
}
