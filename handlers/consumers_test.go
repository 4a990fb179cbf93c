package handlers

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/dezky/platform-api/auth"
	"github.com/dezky/platform-api/auth/authtest"
	"github.com/dezky/platform-api/db"
	"github.com/dezky/platform-api/flags"
)

func tokenPrincipal(name string) *auth.Principal {
	return &auth.Principal{Name: "token:" + name, Via: flags.ViaToken, Consumer: "token " + name}
}

// told are the consumers as "name revision second".
func told(cs *consumers, start, now time.Time) []string {
	out := []string{}
	for _, c := range cs.list(now) {
		out = append(out, fmt.Sprintf("%s %d %v", c.name, c.revision, c.at.Sub(start)))
	}
	return out
}

func TestConsumersNote(t *testing.T) {
	start := time.UnixMilli(1_700_000_000_000)
	cs := &consumers{}
	if got := told(cs, start, start); len(got) != 0 {
		t.Errorf("at first = %q, want none", got)
	}
	billing, mail := tokenPrincipal("billing"), tokenPrincipal("mail")
	for _, step := range []struct {
		what     string
		who      *auth.Principal
		revision int64
		after    time.Duration
		want     []string
	}{
		{"new", mail, 5, 0, []string{"mail 5 0s"}},
		{"another", billing, 4, time.Second, []string{"billing 4 1s", "mail 5 0s"}},
		{"a newer revision, less than a second later", mail, 6, time.Second - time.Millisecond, []string{"billing 4 1s", "mail 6 0s"}},
		{"a second later", mail, 6, time.Second, []string{"billing 4 1s", "mail 6 1s"}},
		{"an answer from an older snapshot", mail, 5, 3 * time.Second, []string{"billing 4 1s", "mail 6 3s"}},
		{"a person", &auth.Principal{Name: "maja@dezky.example"}, 7, 4 * time.Second, []string{"billing 4 1s", "mail 6 3s"}},
		{"after a day", billing, 7, 24*time.Hour + 4*time.Second, []string{"billing 7 24h0m4s"}},
	} {
		now := start.Add(step.after)
		cs.note(step.who, step.revision, now)
		if got := told(cs, start, now); !slices.Equal(got, step.want) {
			t.Errorf("%s: %q, want %q", step.what, got, step.want)
		}
	}
}

// Those that are active keep their place; one that was idle for a day gives it up.
func TestConsumersAreBounded(t *testing.T) {
	now := time.UnixMilli(1_700_000_000_000)
	cs := &consumers{}
	for n := range consumersMost {
		cs.note(tokenPrincipal(strconv.Itoa(n)), 1, now)
	}
	count := func(what string, want int, name string, has bool) {
		t.Helper()
		all := cs.list(now)
		if got := slices.ContainsFunc(all, func(c received) bool { return c.name == name }); len(all) != want || got != has {
			t.Errorf("%s: %d, with %s = %t; want %d, %t", what, len(all), name, got, want, has)
		}
		if held := len(*cs.known.Load()); held > consumersMost {
			t.Errorf("%s: %d are held", what, held)
		}
	}
	cs.note(tokenPrincipal("late"), 1, now)
	count("one more", consumersMost, "late", false)
	now = now.Add(consumerKept)
	cs.note(tokenPrincipal("0"), 2, now)
	now = now.Add(time.Second)
	cs.note(tokenPrincipal("late"), 2, now)
	count("a day later", 2, "late", true)
}

func TestConsumersAtOnce(t *testing.T) {
	now := time.UnixMilli(1_700_000_000_000)
	cs := &consumers{}
	const workers, revisions = 8, 500
	var all sync.WaitGroup
	for w := range workers {
		all.Go(func() {
			for r := range revisions {
				cs.note(tokenPrincipal("shared"), int64((r*7+w)%revisions), now)
				cs.note(tokenPrincipal(fmt.Sprint("own", w, r%5)), int64(r), now)
			}
		})
	}
	all.Wait()
	got := cs.list(now)
	if len(got) != workers*5+1 || got[len(got)-1].revision != revisions-1 {
		t.Errorf("%d consumers, the shared one at %d; want %d, %d", len(got), got[len(got)-1].revision, workers*5+1, revisions-1)
	}
	p := tokenPrincipal("shared")
	if n := testing.AllocsPerRun(100, func() { cs.note(p, 1, now) }); n != 0 {
		t.Errorf("note allocates %v times, want none", n)
	}
}

func BenchmarkNoteConsumer(b *testing.B) {
	cs, now := &consumers{}, time.Now()
	var all []*auth.Principal
	for n := range 12 {
		all = append(all, tokenPrincipal("service-"+strconv.Itoa(n)))
		cs.note(all[n], 1, now)
	}
	for _, run := range []struct {
		name string
		of   []*auth.Principal
	}{{"one", all[:1]}, {"twelve", all}} {
		b.Run(run.name, func(b *testing.B) {
			b.ReportAllocs()
			b.RunParallel(func(pb *testing.PB) {
				for n := 0; pb.Next(); n++ {
					cs.note(run.of[n%len(run.of)], 1, now)
				}
			})
		})
	}
}

func TestWhoLacks(t *testing.T) {
	changed := time.Date(2026, 3, 2, 13, 30, 0, 0, time.UTC)
	at := func(name string, before time.Duration) received {
		return received{name: name, at: changed.Add(-before)}
	}
	for _, tt := range []struct {
		name  string
		lack  []received
		after time.Duration
		want  string
	}{
		{"just now", []received{at("billing", 0)}, 59 * time.Second, "waiting for billing"},
		{"one", []received{at("billing", 15*time.Minute)}, 4 * time.Minute, "billing is 4 min behind"},
		{"two", []received{at("a", 0), at("b", 0)}, time.Hour, "a and b are 1 h 0 min behind"},
		{"three", []received{at("a", 0), at("b", 0), at("c", 0)}, time.Minute, "a, b and c are 1 min behind"},
		{"seven", []received{at("a", 0), at("b", 0), at("c", 0), at("d", 0), at("e", 0), at("f", 0), at("g", 0)}, 0, "waiting for a, b, c and 4 more"},
		{"quiet before", []received{at("nightly", 28*time.Minute)}, 4 * time.Minute, "nightly not seen since 13:02 UTC"},
		{"quiet since yesterday", []received{at("nightly", 20*time.Hour)}, 0, "nightly not seen since 1 Mar 17:30 UTC"},
		{"both", []received{at("a", 5*time.Hour), at("b", 0), at("c", 30*time.Minute), at("d", 4*time.Hour), at("e", 0)}, 2 * time.Minute,
			"b and e are 2 min behind; c not seen since 13:00 UTC; 2 more not seen for a while"},
	} {
		if got := whoLacks(tt.lack, changed, changed.Add(tt.after)); got != tt.want {
			t.Errorf("%s: %q, want %q", tt.name, got, tt.want)
		}
	}
}

// consuming is the status page's table, a line a consumer, with the times left out.
func (s *running) consuming(t *testing.T) []string {
	t.Helper()
	out := []string{}
	for _, row := range s.app.Load().consumerRows(s.db.Current().Revision()) {
		out = append(out, strings.TrimSpace(fmt.Sprintf("%s, %s, %d %s", row.Name, row.Kind, row.Revision, row.Behind)))
	}
	return out
}

func TestConsumersOfEvaluations(t *testing.T) {
	t.Parallel()
	p := authtest.New(t, authtest.Options{})
	s := trusting(t, p)
	wants := func(what string, want ...string) {
		t.Helper()
		if got := s.consuming(t); !slices.Equal(got, want) {
			t.Errorf("%s: %q, want %q", what, got, want)
		}
	}
	id := s.token(t, db.NewToken{Name: "billing", Role: "evaluate"}).ID
	s.token(t, db.NewToken{Name: "staging", Role: "evaluate", Environment: "staging"})
	s.want(t, 404, "POST /flags/evaluate", `{"tenantSlug":"nobody"}`, s.as("billing"))
	s.want(t, 422, "POST /flags/evaluate", `{}`, s.as("billing"))
	s.want(t, 401, "POST /flags/evaluate", acmeQuestion, bearer("dzk_nothing"))
	s.want(t, 403, "POST /flags/evaluate", `{"tenantSlug":"acme","environment":"production"}`, s.as("staging"))
	s.want(t, 200, "GET /flags", "")
	wants("refused and others")

	tag := s.want(t, 200, "POST /flags/evaluate", acmeQuestion, s.as("billing")).header.Get("ETag")
	wants("a 200", "billing, API token, 9")
	s.want(t, 201, "POST /tenants", `{"id":"t5","slug":"hooli","name":"Hooli","plan":"starter"}`)
	s.want(t, 200, "PATCH /flags/calendar", `{"state":"off"}`)
	wants("two changes later", "billing, API token, 9 2 revisions behind")
	s.want(t, 200, "POST /flags/evaluate", acmeQuestion, s.as("billing"), "If-None-Match: "+tag)
	s.want(t, 200, "PATCH /flags/calendar", `{"state":"on"}`)
	s.want(t, 304, "POST /flags/evaluate", acmeQuestion, s.as("billing"), "If-None-Match: *")
	wants("a 304", "billing, API token, 12")

	// Of JWTs it is the client, whoever's they are; of a portal's person too.
	issuer := "client of " + p.Issuer()
	s.want(t, 200, "POST /flags/evaluate", acmeQuestion, bearer(serviceToken(p)))
	s.want(t, 200, "POST /flags/evaluate", acmeQuestion, bearer(p.AccessToken(authtest.PortalID, authtest.AcmeSub)))
	s.want(t, 200, "POST /flags/evaluate", acmeQuestion, bearer(serviceToken(p)))
	all := []string{"billing, API token, 12", authtest.PortalID + ", " + issuer + ", 12", authtest.ServiceID + ", " + issuer + ", 12"}
	wants("clients", all...)
	metrics := s.want(t, 200, "GET /metrics", "", s.as("read")).body
	if got := samplesOf(metrics); !got["platform_api_consumers 3"] || !got["platform_api_consumers_behind 0"] || strings.Contains(metrics, "billing") {
		t.Errorf("the metrics do not count 3 consumers with none behind, or name one")
	}
	s.want(t, 200, "PATCH /flags/calendar", `{"state":"off"}`)
	if got := samplesOf(s.want(t, 200, "GET /metrics", "", s.as("read")).body); !got["platform_api_consumers_behind 3"] {
		t.Errorf("after a change the metrics do not say that 3 are behind")
	}

	// A token that is revoked is not waited for.
	if _, err := s.db.RevokeToken(t.Context(), db.By{Actor: "ops@dezky.example"}, id); err != nil {
		t.Fatal(err)
	}
	s.app.Load().tokens.Forget(id)
	if got := s.consuming(t); len(got) != 2 || strings.HasPrefix(got[0], "billing") {
		t.Errorf("after its token was revoked: %q, want two clients", got)
	}
}

// A person who evaluates in the console's session is no service.
func TestConsumersAreNoPeople(t *testing.T) {
	t.Parallel()
	s := start(t)
	s.registry(t)
	s.want(t, 200, "POST /api/flags/evaluate", acmeQuestion, nobody, s.cookie(t, auth.Read))
	if got := s.consuming(t); len(got) != 0 {
		t.Errorf("after a person's evaluation: %q, want none", got)
	}
}

// A database that came from a replica may use revisions again: nothing is remembered of those before.
func TestConsumersOfAnotherEpoch(t *testing.T) {
	t.Parallel()
	s := start(t)
	s.registry(t)
	s.want(t, 200, "POST /flags/evaluate", acmeQuestion, s.as("evaluate"))
	epoch := s.db.Current().Epoch()
	s.stop(t)
	if err := db.MarkRestored(s.dir); err != nil {
		t.Fatal(err)
	}
	again := open(t, s.dir)
	if got := again.consuming(t); len(got) != 0 || again.db.Current().Epoch() == epoch {
		t.Errorf("in the epoch after %s: %q, want none", epoch, got)
	}
}

// The line of the panel asks again until all have the change, each second at first, and keeps no session.
func TestConsumersLine(t *testing.T) {
	t.Parallel()
	s := start(t)
	s.registry(t)
	cookie := s.cookie(t, auth.Read)
	const line = "GET /operator/flags/calendar/consumers"
	wants := func(what, text, every string) {
		t.Helper()
		body := s.want(t, 200, line, "", cookie, "HX-Request: true", "HX-Request-Type: partial").body
		if !strings.Contains(body, ">"+text+"<") || strings.Contains(body, "hx-get") != (every != "") || !strings.Contains(body, every) {
			t.Errorf("%s: %s, want %q and %q", what, body, text, every)
		}
	}
	wants("no consumer", "No service has evaluated here yet", "")
	s.token(t, db.NewToken{Name: "billing", Role: "evaluate"})
	s.token(t, db.NewToken{Name: "mail", Role: "evaluate"})
	s.want(t, 200, "POST /flags/evaluate", acmeQuestion, s.as("billing"))
	wants("one", "Live at the only consumer", "")
	s.want(t, 200, "POST /flags/evaluate", acmeQuestion, s.as("mail"))
	wants("two", "Live at both consumers", "")
	s.want(t, 200, "PATCH /flags/search", `{"pct":51}`)
	wants("after a change of another flag", "Live at both consumers", "")
	s.want(t, 200, "PATCH /flags/calendar", `{"state":"targeted"}`)
	wants("after a change", `Live at 0 of 2 consumers<span aria-live="off">; waiting for billing and mail</span>`, `hx-trigger="every 1s"`)
	s.want(t, 200, "POST /flags/evaluate", acmeQuestion, s.as("mail"))
	s.moveClock(11 * time.Minute)
	wants("eleven minutes later", `Live at 1 of 2 consumers<span aria-live="off">; billing is 11 min behind</span>`, `hx-trigger="every 10s"`)
	s.want(t, 200, "PATCH /flags/calendar", `{"state":"off","pct":0}`)
	s.want(t, 200, "POST /flags/evaluate", acmeQuestion, s.as("evaluate"))
	wants("after a kill", `Kill live at 1 of 3 consumers<span aria-live="off">; waiting for billing and mail</span>`, `hx-trigger="every 1s"`)
	s.want(t, 200, "POST /flags/evaluate", acmeQuestion, s.as("billing"))
	s.want(t, 200, "POST /flags/evaluate", acmeQuestion, s.as("mail"))
	wants("all", "Kill live at all 3 consumers", "")
	s.want(t, 204, "DELETE /flags/calendar", "")
	wants("deleted", "", "")

	status := s.want(t, 200, "GET /operator/status", "", cookie).body
	for _, text := range []string{`<th scope="row">billing</th><td>API token</td>`, "1 revision behind", "Consumer: mail (API token), evaluated "} {
		if !strings.Contains(status, text) {
			t.Errorf("the status page has no %q", text)
		}
	}

	// Half an hour of asking by itself is no use of the session.
	s.moveClock(auth.SessionIdle - time.Minute)
	a := s.send(t, line, "", cookie, "HX-Request: true")
	s.moveClock(2 * time.Minute)
	if b := s.send(t, line, "", cookie, "HX-Request: true"); a.status != 200 || b.status != 401 {
		t.Errorf("before and after the session's idle time = %d, %d, want 200, 401", a.status, b.status)
	}
}
