package handlers

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/dezky/platform-api/auth"
	"github.com/dezky/platform-api/flags"
)

// planFlag is a flag of business tenants, in production alone, at version 2.
func (s *running) planFlag(t testing.TB) {
	t.Helper()
	s.want(t, 201, "POST /flags", `{"key":"archive","state":"targeted","scope":{"plans":["business"],"environments":["production"]}}`)
	s.want(t, 200, "PATCH /flags/archive", `{"description":"Mail archive"}`)
}

const gainsArchive = `[{"key":"archive","environments":{"production":{"from":false,"to":true}}}]`

// A change of plan answers with its flips before and after, and is told in the log and nowhere else.
func TestTenantFlips(t *testing.T) {
	t.Parallel()
	s := start(t)
	s.registry(t)
	s.planFlag(t)
	flips := func(line, body string) string {
		t.Helper()
		got := decode[struct {
			tenantJSON
			Flips []flags.TenantFlip `json:"flips"`
		}](t, s.want(t, 200, line, body))
		return show(got.Flips)
	}
	before := s.db.Current()
	if got := strings.TrimSpace(s.want(t, 200, "POST /tenants/globex/impact", `{"plan":"business"}`, s.as("read")).body); got != `{"flips":`+gainsArchive+`}` {
		t.Errorf("the preview says %s, want %s", got, gainsArchive)
	}
	for _, body := range []string{`{}`, `{"plan":"enterprise"}`, `{"status":"suspended","name":"G"}`, `{"partnerSlug":"fjordit"}`} {
		if got := strings.TrimSpace(s.want(t, 200, "POST /api/tenants/globex/impact", body).body); got != `{"flips":[]}` {
			t.Errorf("the preview of %s says %s, want no flips", body, got)
		}
	}
	s.want(t, 404, "POST /tenants/missing/impact", `{"plan":"gold"}`)
	for body, field := range map[string]string{`{"plan":"gold"}`: "plan", `{"slug":"other"}`: "slug", `{"id":"other"}`: "id", `{"partnerSlug":"nobody"}`: "partnerSlug"} {
		if got := errorFields(t, s.want(t, 422, "POST /tenants/globex/impact", body)); !slices.Equal(got, []string{field}) {
			t.Errorf("the preview of %s: bad fields %v, want %s", body, got, field)
		}
	}
	if s.db.Current() != before {
		t.Error("a preview changed something")
	}

	if got := flips("PATCH /tenants/globex", `{"plan":"business"}`); got != gainsArchive {
		t.Errorf("PATCH flips %s, want %s", got, gainsArchive)
	}
	const losesArchive = `[{"key":"archive","environments":{"production":{"from":true,"to":false}}}]`
	if got := flips("PUT /tenants/globex", `{"name":"Globex","plan":"starter"}`); got != losesArchive {
		t.Errorf("PUT flips %s, want %s", got, losesArchive)
	}
	for line, body := range map[string]string{"PATCH /tenants/globex": `{"status":"suspended"}`, "PUT /tenants/globex": `{"name":"Globex","plan":"starter"}`} {
		if got := s.want(t, 200, line, body).body; strings.Contains(got, "flips") {
			t.Errorf("%s %s: %s, want no flips", line, body, got)
		}
	}
	s.want(t, 200, "PATCH /tenants/globex", `{"plan":"business"}`)

	var actions []string
	for _, e := range decode[[]flags.Entry](t, s.want(t, 200, "GET /flags/archive/history", "")) {
		actions = append(actions, fmt.Sprintf("%s v%d", e.Action, e.Version))
	}
	if want := []string{"flipped v0", "flipped v0", "flipped v0", "updated v2", "created v1"}; !slices.Equal(actions, want) {
		t.Errorf("the log of the flag is %v, want %v", actions, want)
	}
	whole := decode[flagWithHistory](t, s.want(t, 200, "GET /flags/archive", ""))
	if len(whole.History) != 2 || whole.Version != 2 || whole.History[0].Version != 2 {
		t.Errorf("the flag is at version %d with %s, want two versions", whole.Version, show(whole.History))
	}
	all := decode[[]flags.Entry](t, s.want(t, 200, "GET /history?limit=2", ""))
	if all[0].Action != flags.Flipped || all[0].Name != "archive" || all[1].Name != "globex" || all[0].Revision != all[1].Revision || all[0].Via != flags.ViaToken {
		t.Errorf("the log ends with %s, want the flip of archive after the change of globex", show(all))
	}

	// What a version came to is still undone by its restore, and a flip can't be restored.
	if f := decode[flagWithHistory](t, s.want(t, 200, "POST /flags/archive/restore", `{"version":1}`)); f.Version != 3 || f.Description != "" {
		t.Errorf("restored to %s, want version 3", show(f.Flag))
	}
}

// A flip is told in the panel and the log in words; what is live, and who changed the flag, are as they were.
func TestFlipsInTheConsole(t *testing.T) {
	t.Parallel()
	s := start(t)
	s.registry(t)
	s.planFlag(t)
	cookie := s.cookie(t, auth.Operator)
	s.want(t, 200, "POST /flags/evaluate", acmeQuestion, s.as("evaluate"))
	for _, plan := range []string{"business", "starter", "business", "starter", "business", "starter", "business"} {
		s.want(t, 200, "PATCH /tenants/globex", `{"plan":"`+plan+`"}`)
	}
	panel := s.want(t, 200, "GET /operator/flags/archive", "", cookie).body
	const words = "changed the plan or partner of tenants, which flipped it"
	if got := strings.Count(panel, words); got != flipsShown {
		t.Errorf("the panel tells %d flips, want %d", got, flipsShown)
	}
	for _, text := range []string{`name="undo" value="2"`, "Live at the only consumer", "+1 gain", "?restore=1", "created it"} {
		if !strings.Contains(panel, text) {
			t.Errorf("the panel has no %q", text)
		}
	}
	if strings.Contains(panel, "?restore=0") || strings.Contains(panel, "flipped by registry change") {
		t.Error("the panel offers to restore a flip, or says twice what it is")
	}
	for _, path := range []string{"/operator/audit", "/operator/audit?action=flipped"} {
		if page := s.want(t, 200, "GET "+path, "", cookie).body; strings.Count(page, words) != 7 || !strings.Contains(page, `value="flipped"`) {
			t.Errorf("%s tells %d flips, want 7, and offers them", path, strings.Count(page, words))
		}
	}
	id := decode[[]flags.Entry](t, s.want(t, 200, "GET /history?limit=1", ""))[0].ID
	if page := s.want(t, 200, fmt.Sprintf("GET /operator/audit/%d", id), "", cookie).body; !strings.Contains(page, words) || strings.Contains(page, "<dt>Version</dt>") {
		t.Error("the entry's page does not tell the flip, or tells a version")
	}
}

// A change of plan is told to those who ask for this tenant, by all streams, and to no others.
func TestFlipsOnStreams(t *testing.T) {
	t.Parallel()
	s := start(t)
	s.registry(t)
	s.planFlag(t)
	events := s.follow(t, "GET /events")
	follow := func(tenant string) *reader {
		url := s.app.Load().streamURL(&http.Request{}, &auth.Principal{Role: auth.Evaluate}, tenant, s.now())
		return s.follow(t, "GET "+strings.TrimPrefix(url, s.url), nobody)
	}
	s.moveClock(time.Hour) // the changes so far were long before
	globex, acme := follow("globex"), follow("acme")
	s.want(t, 200, "PATCH /tenants/globex", `{"plan":"business"}`)
	told := s.db.Current()
	events.want("", s.id(told.Revision()), fmt.Sprintf(`{"revision":%d,"action":"updated","actor":"token:operator","flags":[],"tenants":["globex"]}`, told.Revision()))
	refetch := func(now *flags.Snapshot) (id, data string) {
		return eventID(now), fmt.Sprintf(`{"type":"refetchEvaluation","etag":"\"%s-%d\"","lastModified":%d}`, now.Epoch(), now.Revision(), now.Modified().Unix())
	}
	id, data := refetch(told)
	globex.want("", id, data)
	s.want(t, 200, "PATCH /tenants/acme", `{"plan":"starter"}`) // the first that acme is told of
	id, data = refetch(s.db.Current())
	acme.want("", id, data)
}

// Suspension is told and logged, and evaluation does not look at it.
func TestSuspension(t *testing.T) {
	t.Parallel()
	s := start(t)
	s.registry(t)
	s.planFlag(t)
	ask := func() string {
		return s.want(t, 200, "POST /flags/evaluate", acmeQuestion).body + s.want(t, 200, "POST /flags/explain", acmeQuestion).body +
			s.want(t, 200, "POST /ofrep/v1/evaluate/flags/archive", ask("acme")).body
	}
	active := ask()
	if !strings.Contains(active, `"archive":true`) {
		t.Fatalf("acme has not what the test is about: %s", active)
	}
	stream := s.follow(t, "GET /events")
	for _, status := range []string{"suspended", "active"} {
		s.want(t, 200, "PATCH /tenants/acme", `{"status":"`+status+`"}`)
		revision := s.db.Current().Revision()
		stream.want("", s.id(revision), fmt.Sprintf(`{"revision":%d,"action":"updated","actor":"token:operator","flags":[],"tenants":["acme"]}`, revision))
		log := decode[[]flags.Entry](t, s.want(t, 200, "GET /history?limit=1", ""))[0]
		if log.Name != "acme" || log.Action != flags.Updated || string(log.Changes["status"].To) != `"`+status+`"` || len(log.Changes) != 1 {
			t.Errorf("%s: the log ends with %s, want the change of status alone", status, show(log))
		}
		if got := ask(); got != active {
			t.Errorf("%s: %s, want %s", status, got, active)
		}
	}
}

// A removed tenant is unknown everywhere; one that gets its slug later is another, with buckets of its own.
func TestRemovalAndReturn(t *testing.T) {
	t.Parallel()
	s := start(t)
	s.registry(t)
	const question = `{"tenantSlug":"umbrella"}`
	s.want(t, 201, "POST /flags", `{"key":"half","state":"rollout","pct":50}`)
	explain := func() flags.Explanation {
		return decode[map[string]flags.Explanation](t, s.want(t, 200, "POST /flags/explain", question))["half"]
	}
	if got, want := *explain().Bucket, flags.Bucket("t4", "half"); got != want {
		t.Fatalf("bucket %d, want %d", got, want)
	}
	s.want(t, 204, "DELETE /tenants/umbrella", "")
	s.want(t, 404, "POST /flags/evaluate", question)
	s.want(t, 404, "POST /flags/explain", question)
	s.want(t, 404, "POST /tenants/umbrella/impact", `{}`)
	gone := decode[bulk](t, s.want(t, 200, "POST /ofrep/v1/evaluate/flags", ask("umbrella")))
	if gone.Metadata["tenantRegistered"] != false {
		t.Errorf("OFREP says %v of a removed tenant, want that it is not registered", gone.Metadata)
	}
	made := decode[tenantJSON](t, s.want(t, 201, "PUT /tenants/umbrella", `{"name":"Umbrella","plan":"enterprise"}`))
	if made.ID == "t4" || made.ID == "" {
		t.Fatalf("the id is %q, want a new one", made.ID)
	}
	e, want := explain(), flags.Bucket(made.ID, "half")
	if *e.Bucket != want || e.Value != (want < 50) {
		t.Errorf("bucket %d (%t), want %d of the new id", *e.Bucket, e.Value, want)
	}
	if got := decode[map[string]bool](t, s.want(t, 200, "POST /flags/evaluate", question))["half"]; got != (want < 50) {
		t.Errorf("half is %t, want %t", got, want < 50)
	}
	if log := decode[[]flags.Entry](t, s.want(t, 200, "GET /flags/half/history", "")); len(log) != 1 {
		t.Errorf("removal and return made %d entries of the flag, want none", len(log)-1)
	}
}

func TestImportTenantsRoute(t *testing.T) {
	t.Parallel()
	s := start(t)
	s.registry(t)
	s.planFlag(t)
	const line = "POST /tenants/import"
	const objects = `{"slug":"globex","name":"Globex","plan":"business"}` + "\n" + `{"slug":"hooli","name":"Hooli","plan":"business"}` + "\n" + `{"slug":"umbrella","name":"Umbrella","plan":"enterprise"}`
	const table = "plan,slug,partnerSlug,name\nstarter,globex,,Globex\nbusiness,hooli,nordhost,Hooli\n"
	for _, x := range []struct{ line, body, header, want string }{
		{line + "?dryRun=1", objects, ndjson, `{"created":1,"changed":1,"unchanged":1,"flips":[{"key":"archive","environments":{"production":{"gained":1,"lost":0}}}],"dryRun":true}`},
		{line, objects, ndjson, `{"created":1,"changed":1,"unchanged":1,"flips":[{"key":"archive","environments":{"production":{"gained":1,"lost":0}}}]}`},
		{line, objects, ndjson, `{"created":0,"changed":0,"unchanged":3,"flips":[]}`},
		{"POST /api/tenants/import?dryRun=1", table, csvTable + "; charset=utf-8; header=present",
			`{"created":0,"changed":2,"unchanged":0,"flips":[{"key":"archive","environments":{"production":{"gained":0,"lost":1}}}],"dryRun":true}`},
	} {
		before := s.db.Current()
		got := strings.TrimSpace(s.want(t, 200, x.line, x.body, x.header).body)
		if got != x.want {
			t.Errorf("%s %s: %s\nwant %s", x.line, x.header, got, x.want)
		}
		if changed := s.db.Current() != before; changed != (strings.Contains(x.want, `"changed":1`) && !strings.Contains(x.want, "dryRun")) {
			t.Errorf("%s: changed something: %t", x.line, changed)
		}
	}

	for _, x := range []struct {
		status             int
		name, body, header string
		want               string // the detail, or the errors
	}{
		{400, "not JSON", "{}\n{", ndjson, "line 2 is not JSON: unexpected end of JSON input at column 1"},
		{400, "unknown column", "slug,name,plan,colour\n", csvTable, "line 1: colour is not a known column; the columns are id, name, partnerSlug, plan, slug, status"},
		{400, "empty", "", ndjson, "the body is empty; a JSON object for each tenant is expected, one a line"},
		{413, "rows", strings.Repeat("{}\n", 100_001), ndjson, "an import has at most 100000 tenants"},
		{413, "rows of a table", "slug,name,plan\n" + strings.Repeat(",,\n", 100_001), csvTable, "an import has at most 100000 tenants"},
		{415, "JSON", objects, "Content-Type: application/json", "the body must be application/x-ndjson or text/csv in UTF-8, not compressed"},
		{415, "another character set", table, csvTable + "; charset=iso-8859-1", "the body must be application/x-ndjson or text/csv in UTF-8, not compressed"},
		{422, "bad rows", `{"slug":"a","name":"A","plan":"gold"}` + "\n\n" + `{"slug":"a","name":"A","plan":"starter"}`, ndjson,
			`[{"field":"line 1: plan","message":"must be a known plan (starter, business, enterprise), not \"gold\""},{"field":"line 3: slug","message":"is \"a\", as on line 1"}] 0`},
		{422, "a column missing", "slug,plan\n", csvTable, `[{"field":"line 1: name","message":"is required; there is no such column"}] 0`},
	} {
		got := decode[problem](t, s.want(t, x.status, line, x.body, x.header))
		says := got.Detail
		if x.status == 422 {
			says = show(got.Errors) + fmt.Sprint(" ", got.More)
		}
		if says != x.want {
			t.Errorf("%s: %s, want %s", x.name, says, x.want)
		}
	}
	many := decode[problem](t, s.want(t, 422, line, strings.Repeat("{}\n", 400), ndjson))
	if len(many.Errors) != 1000 || many.More != 200 {
		t.Errorf("1,200 mistakes: %d and %d more, want 1,000 and 200", len(many.Errors), many.More)
	}
	s.want(t, 403, line, objects, ndjson, s.as("read"))
}

// A body of more than 64 MiB is refused: at once where its length is told, else once it is read, for a sender
// that is still sending would not read the answer.
func TestImportIsBounded(t *testing.T) {
	t.Parallel()
	s := start(t)
	const want = "the body is larger than 67108864 bytes"
	r := s.request(t, "POST /tenants/import", "x", ndjson)
	r.Body, r.ContentLength = io.NopCloser(io.LimitReader(newlines{}, importBody+1)), -1
	if got := s.do(t, r); got.status != 413 || decode[problem](t, got).Detail != want {
		t.Errorf("of unknown length: %d %s, want 413", got.status, got.body)
	}

	r = s.request(t, "POST /tenants/import", "x", ndjson)
	conn, err := net.Dial("tcp", r.URL.Host)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	fmt.Fprintf(conn, "POST /tenants/import HTTP/1.1\r\nHost: %s\r\n%s\r\n%s\r\nContent-Length: %d\r\n\r\n", r.URL.Host, ndjson, s.as("operator"), importBody+1)
	response, err := http.ReadResponse(bufio.NewReader(conn), r)
	if err != nil {
		t.Fatal(err)
	}
	defer response.Body.Close()
	if body, err := io.ReadAll(response.Body); response.StatusCode != 413 || !strings.Contains(string(body), want) {
		t.Errorf("of a length that is told: %d %s, %v, want 413", response.StatusCode, body, err)
	}
}

// newlines are empty lines without end.
type newlines struct{}

func (newlines) Read(p []byte) (int, error) {
	for i := range p {
		p[i] = '\n'
	}
	return len(p), nil
}
