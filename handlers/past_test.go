package handlers

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/dezky/platform-api/auth/authtest"
	"github.com/dezky/platform-api/db"
	"github.com/dezky/platform-api/flags"
)

// questionAt is a question of evaluate and explain as of a time.
func questionAt(slug string, at time.Time, more ...string) string {
	return fmt.Sprintf(`{"tenantSlug":%q,"at":%q%s}`, slug, at.Format(time.RFC3339Nano), strings.Join(append([]string{""}, more...), ","))
}

// contextAt is a context of OFREP as of a time.
func contextAt(slug string, at time.Time, more ...string) string {
	return ask(slug, append(more, fmt.Sprintf(`"at":%q`, at.Format(time.RFC3339Nano)))...)
}

// lastEntry is when the log's newest entry came, after which the clock is moved on.
func (s *running) lastEntry(t testing.TB) time.Time {
	t.Helper()
	log, err := s.db.History(t.Context(), db.HistoryFilter{Limit: 1})
	if err != nil || len(log) == 0 {
		t.Fatalf("the log: %v, %v", log, err)
	}
	s.moveClock(time.Hour)
	return log[0].At
}

// Every route answers of a time as it answered then, but for what is of now alone.
func TestAsOf(t *testing.T) {
	t.Parallel()
	s := start(t)
	s.registry(t)
	type told struct {
		at                          time.Time
		evaluated, explained, ofrep string
	}
	answers := func(evaluate, ofrep string) told {
		set := decode[bulk](t, s.want(t, 200, "POST /ofrep/v1/evaluate/flags", ofrep))
		set.Streams = nil
		delete(set.Metadata, "at")
		return told{evaluated: s.want(t, 200, "POST /flags/evaluate", evaluate).body, explained: s.want(t, 200, "POST /flags/explain", evaluate).body, ofrep: show(set)}
	}
	var then []told
	for _, change := range []struct{ line, body string }{
		{"PATCH /flags/search", `{"scope":{"environments":[],"plans":["business"]},"pct":100}`},
		{"PATCH /tenants/acme", `{"plan":"starter","partnerSlug":null}`},
		{"DELETE /flags/calendar", ""},
		{"POST /flags", `{"key":"calendar","state":"targeted","description":"Another \"one\"","scope":{"plans":["starter"]}}`},
		{"POST /flags/search/restore", `{"version":1}`},
	} {
		now := answers(question("acme", "production"), ask("acme"))
		now.at = s.lastEntry(t)
		then = append(then, now)
		s.send(t, change.line, change.body)
	}
	for i, want := range then {
		got := answers(questionAt("acme", want.at, `"environment":"production"`), contextAt("acme", want.at))
		got.at = want.at
		if got != want {
			t.Errorf("moment %d: %+v\nwas %+v", i, got, want)
		}
		next := questionAt("acme", want.at.Add(59*time.Minute))
		if got := s.want(t, 200, "POST /flags/evaluate", next).body; got != want.evaluated {
			t.Errorf("until the next change: %s, want %s", got, want.evaluated)
		}
		if i > 0 && want.explained == then[i-1].explained {
			t.Errorf("moments %d and %d are the same, %s: they show nothing", i-1, i, want.explained)
		}
		for _, f := range decode[bulk](t, s.want(t, 200, "POST /ofrep/v1/evaluate/flags", contextAt("acme", want.at))).Flags {
			one := decode[evaluated](t, s.want(t, 200, "POST /ofrep/v1/evaluate/flags/"+f.Key, contextAt("acme", want.at)))
			if show(one) != show(f) {
				t.Errorf("moment %d: %s alone is %s, in all %s", i, f.Key, show(one), show(f))
			}
		}
	}
	// What did not exist then is absent; of OFREP's single route that is 404.
	gone := then[3].at
	if got := s.want(t, 200, "POST /flags/evaluate", questionAt("acme", gone)).body; strings.Contains(got, "calendar") {
		t.Errorf("a deleted flag is in %s", got)
	}
	if got := decode[ofrepError](t, s.want(t, 404, "POST /ofrep/v1/evaluate/flags/calendar", contextAt("acme", gone))); got.Code != flags.FlagNotFound {
		t.Errorf("a deleted flag alone: %s", show(got))
	}
	set := decode[bulk](t, s.want(t, 200, "POST /ofrep/v1/evaluate/flags", contextAt("acme", gone)))
	if set.Metadata["at"] != gone.Format(time.RFC3339Nano) || set.Streams != nil {
		t.Errorf("the set has the metadata %v and the streams %v, want the time and none", set.Metadata, set.Streams)
	}
	// Both forms of the routes, and every role that may evaluate.
	for _, role := range db.TokenRoles {
		s.want(t, 200, "POST /api/flags/evaluate", questionAt("acme", gone), s.as(role))
	}
}

func TestAsOfRefused(t *testing.T) {
	t.Parallel()
	s := start(t)
	s.moveClock(time.Hour)
	s.registry(t)
	s.moveClock(time.Hour)
	log, err := s.db.History(t.Context(), db.HistoryFilter{Limit: 1000})
	if err != nil {
		t.Fatal(err)
	}
	began := log[len(log)-1].At
	before, future := began.Add(-time.Millisecond), s.now().Add(time.Hour)
	for _, line := range []string{"POST /flags/evaluate", "POST /flags/explain"} {
		for _, tt := range []struct {
			body, says string
			status     int
			fields     []string
		}{
			{questionAt("acme", before), "must not be before " + began.Format(time.RFC3339Nano) + ", when the log began", 422, []string{"at"}},
			{questionAt("acme", future), "must not be in the future; it is ", 422, []string{"at"}},
			{questionAt("acme", future, `"environment":"moon"`), "must be a known environment", 422, []string{"environment", "at"}},
			{questionAt("acme", s.now(), `"environment":"moon"`), "must be a known environment", 422, []string{"environment"}},
			{`{"tenantSlug":"acme","at":"yesterday"}`, "must be a time by RFC 3339", 422, []string{"at"}},
			{`{"tenantSlug":"acme","at":""}`, "must be a time by RFC 3339", 422, []string{"at"}},
			{`{"tenantSlug":"acme","at":null}`, "must not be null", 422, []string{"at"}},
			{`{"tenantSlug":"acme","at":1769860800}`, "at must be a string, not a number", 400, nil},
			{questionAt("acme", began), fmt.Sprintf("tenant %q did not exist at %s: not found", "acme", began.Format(time.RFC3339Nano)), 404, nil},
			{questionAt("nobody", s.now().Add(-time.Minute), `"environment":"moon"`), `tenant "nobody" did not exist at `, 404, nil},
		} {
			got := s.want(t, tt.status, line, tt.body)
			p := decode[problem](t, got)
			says := p.Detail
			if len(p.Errors) > 0 {
				says = p.Errors[0].Message
			}
			if fields := errorFields(t, got); !slices.Equal(fields, tt.fields) || !strings.HasPrefix(says, tt.says) {
				t.Errorf("%s %s: bad fields %v, %q; want %v, %q", line, tt.body, fields, says, tt.fields, tt.says)
			}
		}
	}
	for _, path := range []string{"/ofrep/v1/evaluate/flags", "/ofrep/v1/evaluate/flags/search"} {
		for _, tt := range []struct{ body, says string }{
			{contextAt("acme", before), "context.at must not be before "},
			{contextAt("acme", future), "context.at must not be in the future; it is "},
			{ask("acme", `"at":"soon"`), "context.at must be a time by RFC 3339"},
			{ask("acme", `"at":5`), "context.at must be a string, not a number"},
			{contextAt("acme", s.now(), `"environment":"moon"`), "context.environment must be a known environment"},
		} {
			if got := decode[ofrepError](t, s.want(t, 400, "POST "+path, tt.body)); got.Code != flags.InvalidContext || !strings.HasPrefix(got.Details, tt.says) {
				t.Errorf("%s %s: %s, want %q", path, tt.body, show(got), tt.says)
			}
		}
		// What the context tells of a tenant does not make it one of then.
		got := decode[ofrepError](t, s.want(t, 404, "POST "+path, contextAt("nobody", s.now(), `"plan":"business"`)))
		if !strings.HasPrefix(got.Details, `tenant "nobody" did not exist at `) {
			t.Errorf("%s of nobody: %s", path, show(got))
		}
		// Below the role read, never the present for the past.
		refused := decode[problem](t, s.want(t, 403, "POST "+path, contextAt("acme", s.now()), s.as("evaluate")))
		if want := "context.at asks of the past, which needs the role read here; yours is evaluate"; refused.Detail != want {
			t.Errorf("%s: %q, want %q", path, refused.Detail, want)
		}
		s.want(t, 200, "POST "+path, contextAt("acme", s.now()), s.as("read"))
		s.want(t, 200, "POST "+path, ask("acme", `"at":null`), s.as("evaluate"))
	}
}

// The past does not change, unless it is still now.
func TestAsOfTags(t *testing.T) {
	t.Parallel()
	s := start(t)
	s.registry(t)
	at := s.lastEntry(t)
	for _, tt := range []struct {
		line        string
		body, other string // of the same moment, with another answer
	}{
		{"POST /flags/evaluate", questionAt("acme", at), questionAt("acme", at, `"environment":"staging"`)},
		{"POST /ofrep/v1/evaluate/flags", contextAt("acme", at), contextAt("acme", at, `"plan":"starter"`)},
	} {
		now := s.want(t, 200, tt.line, strings.Replace(strings.Replace(tt.body, `,"at":"`, `,"environment":"`, 1), at.Format(time.RFC3339Nano), "production", 1))
		first := s.want(t, 200, tt.line, tt.body)
		etag := "If-None-Match: " + first.header.Get("ETag")
		if first.header.Get("ETag") == now.header.Get("ETag") {
			t.Errorf("%s: the tag %s is that of now too", tt.line, etag)
		}
		if got := first.header.Get("Cache-Control"); got != "private, no-cache" {
			t.Errorf("%s: Cache-Control %q", tt.line, got)
		}
		s.want(t, 200, tt.line, tt.other, etag)
		s.want(t, 200, "PATCH /flags/search", show(map[string]string{"description": tt.line})) // of later
		s.moveClock(2 * time.Hour)
		s.want(t, 304, tt.line, tt.body, etag)
	}
	// Another change at the very time that was asked for: the clock stands before the log's last entry.
	at = s.lastEntry(t)
	s.moveClock(-5 * time.Hour)
	first := s.want(t, 200, "POST /flags/evaluate", questionAt("acme", at))
	s.want(t, 200, "PATCH /flags/calendar", `{"state":"off"}`)
	second := s.want(t, 200, "POST /flags/evaluate", questionAt("acme", at), "If-None-Match: "+first.header.Get("ETag"))
	if first.body == second.body {
		t.Errorf("at the same time %s before and after a change", second.body)
	}
	// A tenant that took the slug has its own tag; of the one before it holds still.
	moment := s.lastEntry(t)
	s.moveClock(5 * time.Hour)
	s.want(t, 204, "DELETE /tenants/umbrella", "")
	s.want(t, 201, "POST /tenants", `{"slug":"umbrella","id":"t5","name":"Umbrella","plan":"enterprise"}`)
	old := s.want(t, 200, "POST /flags/evaluate", questionAt("umbrella", moment)).header.Get("ETag")
	if next := s.want(t, 200, "POST /flags/evaluate", questionAt("umbrella", s.lastEntry(t)), "If-None-Match: "+old).header.Get("ETag"); next == old || !strings.Contains(old, ".t4.") {
		t.Errorf("tags %s and %s, want different ones, the first of t4", old, next)
	}
}

// A member learns of a tenant that is its own now, never of another customer who had the slug.
func TestAsOfForMembers(t *testing.T) {
	p := authtest.New(t, authtest.Options{})
	s := trusting(t, p)
	p.SetGroups(authtest.AcmeSub, "tenant:umbrella", "tenant:globex", "partner:nordhost")
	member := bearer(p.AccessToken(authtest.PortalID, authtest.AcmeSub))
	begin := s.now()
	pass := func() time.Time { s.moveClock(time.Minute); return s.now().Add(-time.Second) }
	was := pass()
	s.want(t, 200, "PATCH /flags/search", `{"description":"later"}`)
	s.want(t, 200, "PATCH /flags/mail_rules", `{"scope":{"tenantSlugs":[]}}`)
	s.want(t, 204, "DELETE /tenants/umbrella", "")
	s.want(t, 204, "DELETE /tenants/globex", "")
	gone := pass()
	s.want(t, 201, "POST /tenants", `{"slug":"umbrella","id":"t5","name":"Another","plan":"starter"}`)
	s.want(t, 200, "PATCH /tenants/initech", `{"partnerSlug":"nordhost"}`)
	s.want(t, 200, "PATCH /tenants/acme", `{"partnerSlug":"fjordit"}`)
	now := pass()
	for _, path := range []string{"/flags/evaluate", "/flags/explain"} {
		for _, tt := range []struct {
			slug   string
			at     time.Time
			status int
			says   string // %s is the time
		}{
			{"umbrella", now, 200, ""},
			{"umbrella", gone, 404, `tenant "umbrella" did not exist at %s: not found`},
			{"umbrella", was, 404, `tenant "umbrella" did not exist at %s: not found`}, // another's then: no word of it
			{"globex", was, 404, `tenant "globex": not found`},                         // nobody's now, whoever had it
			{"initech", was, 200, ""},                      // the same, then another partner's
			{"acme", was, 404, `tenant "acme": not found`}, // its partner's no more
			{"nowhere", was, 404, `tenant "nowhere": not found`},
			{"umbrella", begin.Add(-24 * time.Hour), 422, ""},
			{"acme", begin.Add(-24 * time.Hour), 404, `tenant "acme": not found`},
		} {
			a := s.want(t, tt.status, "POST "+path, questionAt(tt.slug, tt.at), member, "If-None-Match: \"x\"")
			if want := strings.ReplaceAll(tt.says, "%s", tt.at.Truncate(time.Millisecond).UTC().Format(time.RFC3339Nano)); want != "" && decode[problem](t, a).Detail != want {
				t.Errorf("%s of %s: %q, want %q", path, tt.slug, decode[problem](t, a).Detail, want)
			}
		}
	}
	s.want(t, 404, "POST /flags/evaluate", questionAt("umbrella", was), member, "If-None-Match: *")
	s.want(t, 403, "POST /ofrep/v1/evaluate/flags", contextAt("umbrella", now), member)
	// To the staff the slug means who held it then.
	if a, b := s.want(t, 200, "POST /flags/explain", questionAt("umbrella", was)), s.want(t, 200, "POST /flags/explain", questionAt("umbrella", now)); a.body == b.body {
		t.Errorf("both who held the slug have %s", a.body)
	}
}

// Who asks about the past has not come to know the present by it.
func TestAsOfIsNoConsumption(t *testing.T) {
	t.Parallel()
	s := start(t)
	s.registry(t)
	at := s.lastEntry(t)
	s.want(t, 200, "POST /flags/evaluate", questionAt("acme", at), s.as("evaluate"))
	s.want(t, 200, "POST /ofrep/v1/evaluate/flags", contextAt("acme", at), s.as("read"))
	s.want(t, 200, "POST /ofrep/v1/evaluate/flags/search", contextAt("acme", at), s.as("read"))
	if got := s.want(t, 200, "GET /metrics", "").body; !strings.Contains(got, "platform_api_consumers 0\n") || !strings.Contains(got, "platform_api_evaluations_total 3\n") {
		t.Errorf("there are consumers, or not three evaluations: %s", got)
	}
	s.want(t, 200, "POST /flags/evaluate", question("acme", "production"), s.as("evaluate"))
	if got := s.want(t, 200, "GET /metrics", "").body; !strings.Contains(got, "platform_api_consumers 1\n") {
		t.Errorf("there is not one consumer: %s", got)
	}
}
