package handlers

import (
	"bufio"
	"net/http"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/dezky/platform-api/auth"
	"github.com/dezky/platform-api/flags"
)

func freezeBody(reason string, until time.Time) string {
	return `{"reason":"` + reason + `","until":"` + until.UTC().Format(time.RFC3339) + `"}`
}

func TestFreezeRoutes(t *testing.T) {
	t.Parallel()
	s := start(t)
	s.registry(t)
	if got := s.want(t, 200, "GET /freeze", "", s.as("read")).body; got != `{"frozen":false}`+"\n" {
		t.Errorf("before: %s", got)
	}
	end := s.now().Add(time.Hour).Truncate(time.Second)
	s.want(t, 403, "PUT /freeze", freezeBody("launch", end), s.as("read"))
	before := s.want(t, 200, "POST /flags/evaluate", `{"tenantSlug":"acme"}`, s.as("evaluate"))
	s.want(t, 200, "PUT /freeze", freezeBody("launch", end))
	state := decode[freezeState](t, s.want(t, 200, "GET /freeze", "", s.as("read")))
	if !state.Frozen || state.Reason != "launch" || state.By != "token:operator" || !state.Until.Equal(end) {
		t.Errorf("frozen: %+v", state)
	}

	a := s.want(t, http.StatusLocked, "PATCH /flags/search", `{"pct":61}`)
	p := decode[problem](t, a)
	if p.Type != "urn:dezky:problem:frozen" || p.Freeze == nil || *p.Freeze != *state.Freeze || !strings.Contains(p.Detail, "by token:operator: launch") {
		t.Errorf("the refusal is %+v", p)
	}
	if wait, err := strconv.Atoi(a.header.Get("Retry-After")); err != nil || wait < 3000 || wait > 3600 {
		t.Errorf("Retry-After is %q, want the seconds to the end", a.header.Get("Retry-After"))
	}
	// What is asked of it stays right before whether it may be made now.
	s.want(t, 404, "PATCH /flags/missing", `{"pct":61}`)
	s.want(t, 422, "PATCH /flags/search", `{"pct":101}`)
	s.want(t, 200, "POST /tenants/import?dryRun=1", `{"slug":"hooli","name":"Hooli","plan":"starter"}`, ndjson)
	s.want(t, 423, "POST /tenants/import", `{"slug":"hooli","name":"Hooli","plan":"starter"}`, ndjson)

	after := s.want(t, 200, "POST /flags/evaluate", `{"tenantSlug":"acme"}`, s.as("evaluate"))
	if after.body != before.body {
		t.Errorf("evaluation says %s, and before %s", after.body, before.body)
	}
	s.want(t, 200, "PATCH /flags/calendar", `{"state":"off","pct":0,"note":"it burns"}`)
	s.want(t, 423, "PATCH /flags/calendar", `{"state":"on"}`)
	s.want(t, 423, "POST /flags/calendar/restore", `{"version":1}`)
	operator := s.cookie(t, auth.Operator)
	s.want(t, 200, "POST /operator/tokens", "name=made&role=read", operator, "Content-Type: application/x-www-form-urlencoded")

	// Extended, it goes on; at its end changes are made again.
	s.want(t, 200, "PUT /freeze", freezeBody("launch", end.Add(time.Hour)))
	s.moveClock(time.Hour + time.Minute)
	s.want(t, 423, "PATCH /flags/search", `{"pct":61}`)
	if got := s.want(t, 200, "GET /metrics", "").body; !strings.Contains(got, "platform_api_frozen 1\n") {
		t.Error("the metric does not say that changes are frozen")
	}
	s.moveClock(time.Hour)
	s.want(t, 200, "PATCH /flags/search", `{"pct":61}`)
	if got := s.want(t, 200, "GET /freeze", "").body; got != `{"frozen":false}`+"\n" {
		t.Errorf("at the end: %s", got)
	}

	s.want(t, 200, "PUT /freeze", freezeBody("again", s.now().Add(time.Hour)))
	s.want(t, 204, "DELETE /freeze", "")
	s.want(t, 204, "DELETE /freeze", "")
	s.want(t, 200, "PATCH /flags/search", `{"pct":62}`)
	var told []string
	for _, e := range decode[[]flags.Entry](t, s.want(t, 200, "GET /history", "")) {
		if e.Kind == flags.KindInstance {
			told = append(told, string(e.Action))
		}
	}
	if got := strings.Join(told, " "); got != "thawed frozen frozen frozen" {
		t.Errorf("the log says %s", got)
	}
}

// An open page learns that changes are frozen, and when they are not any more.
func TestFreezeComesOverTheStream(t *testing.T) {
	t.Parallel()
	s := start(t)
	r := s.request(t, "GET /operator/events", "", s.cookie(t, auth.Read), "Accept: text/event-stream")
	response, err := s.client.Do(r)
	if err != nil || response.StatusCode != http.StatusOK {
		t.Fatal(response, err)
	}
	defer response.Body.Close()
	lines := bufio.NewScanner(response.Body)
	await := func(texts ...string) {
		t.Helper()
		for lines.Scan() {
			line := lines.Text()
			found := true
			for _, text := range texts {
				found = found && strings.Contains(line, text)
			}
			if found {
				return
			}
		}
		t.Fatalf("the stream ended without %q: %v", texts, lines.Err())
	}
	await("ping")
	s.want(t, 200, "PUT /freeze", freezeBody("launch", s.now().Add(time.Hour)))
	await(`id="freeze" class="notice`, "by token:operator: launch")
	s.want(t, 204, "DELETE /freeze", "")
	await(`id="freeze" hidden`)
}

// Whoever ends a freeze from a page that answers a form comes to a page that can be opened.
func TestThawLeadsToAPage(t *testing.T) {
	t.Parallel()
	s := start(t)
	s.registry(t)
	operator, form := s.cookie(t, auth.Operator), "Content-Type: application/x-www-form-urlencoded"
	for page, want := range map[string]string{
		"/operator/flags/search?q=a":    "/operator/flags/search?q=a",
		"/operator/status/freeze":       "/operator/status",
		"/operator/flags/search/kill":   "/operator/status",
		"/operator/partners/nordhost":   "/operator/status",
		"/operator/tenants/acme/delete": "/operator/tenants/acme/delete",
		"/flags/search":                 "/operator/status",
		"/operator/../health":           "/operator/status",
	} {
		a := s.want(t, 303, "POST /operator/thaw", "", operator, form, "Referer: "+s.url+page)
		if got := a.header.Get("Location"); got != want {
			t.Errorf("from %s it leads to %s, want %s", page, got, want)
		}
	}
}
