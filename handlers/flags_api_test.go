package handlers

import (
	"fmt"
	"net/url"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/dezky/platform-api/db"
	"github.com/dezky/platform-api/flags"
)

func TestCreateFlag(t *testing.T) {
	t.Parallel()
	s := start(t)
	s.registry(t)
	got := s.want(t, 201, "POST /flags", `{"key":"least"}`)
	f := decode[flagWithHistory](t, got)
	want := flags.New("least")
	want.Version, want.CreatedAt, want.UpdatedAt = 1, f.CreatedAt, f.UpdatedAt
	if !reflect.DeepEqual(*f.Flag, want) || !f.CreatedAt.Equal(f.UpdatedAt) || f.CreatedAt.IsZero() {
		t.Errorf("created %s, want %s", show(f.Flag), show(want))
	}
	if location, tag := got.header.Get("Location"), got.header.Get("ETag"); location != "/flags/least" || tag != `"1"` {
		t.Errorf("Location %s and ETag %s, want /flags/least and \"1\"", location, tag)
	}
	if at := s.want(t, 200, "GET "+got.header.Get("Location"), "").body; at != got.body {
		t.Errorf("at its Location: %s, want %s", at, got.body)
	}

	got = s.want(t, 201, "POST /flags", `{"key":"most","description":"All of it.\nTwo lines.","state":"rollout","pct":25.0,
		"scope":{"plans":["starter"," business ","starter"],"tenantSlugs":["globex","acme"],"partnerSlugs":["nordhost"],"environments":["staging","production"]},"note":"Why not"}`)
	f = decode[flagWithHistory](t, got)
	want = flags.Flag{Key: "most", Description: "All of it.\nTwo lines.", State: "rollout", Pct: 25, Version: 1, CreatedAt: f.CreatedAt, UpdatedAt: f.UpdatedAt,
		Scope: flags.Scope{Plans: []string{"business", "starter"}, TenantSlugs: []string{"acme", "globex"}, PartnerSlugs: []string{"nordhost"}, Environments: []string{"production", "staging"}}}
	if !reflect.DeepEqual(*f.Flag, want) {
		t.Errorf("created %s, want %s", show(f.Flag), show(want))
	}
	e := f.History[0]
	if len(f.History) != 1 || e.Action != flags.Created || e.Note != "Why not" || e.Actor != "token:operator" || e.Version != 1 ||
		e.Revision != s.db.Current().Revision() || !e.At.Equal(f.CreatedAt) {
		t.Errorf("history %s, want one creation by token:operator with its note", show(f.History))
	}
	if from, to := string(e.Changes["pct"].From), string(e.Changes["pct"].To); from != "null" || to != "25" || len(e.Changes) != 7 {
		t.Errorf("changes %s, want all seven fields from null", show(e.Changes))
	}

	conflict := decode[problem](t, s.want(t, 409, "POST /flags", `{"key":"most"}`))
	if want := `a flag "most" exists`; conflict.Detail != want || conflict.Type != "urn:dezky:problem:conflict" || conflict.Title != "Conflict" {
		t.Errorf("a taken key: %s, want %q", show(conflict), want)
	}
}

func TestFlagValues(t *testing.T) {
	t.Parallel()
	s := start(t)
	s.registry(t)
	long := strings.Repeat("a", 64)
	tests := []struct {
		line, body string
		want       []string // bad fields; none is accepted
	}{
		{"POST /flags", `{}`, []string{"key"}},
		{"POST /flags", `{"key":null}`, []string{"key"}},
		{"POST /flags", `{"key":""}`, []string{"key"}},
		{"POST /flags", `{"key":"evaluate"}`, []string{"key"}},
		{"POST /flags", `{"key":"explain"}`, []string{"key"}},
		{"POST /flags", `{"key":"evaluated"}`, nil},
		{"POST /flags", `{"key":"Search"}`, []string{"key"}},
		{"POST /flags", `{"key":"1st"}`, []string{"key"}},
		{"POST /flags", `{"key":"_x"}`, []string{"key"}},
		{"POST /flags", `{"key":"dark-mode"}`, []string{"key"}},
		{"POST /flags", `{"key":" dark_mode"}`, []string{"key"}},
		{"POST /flags", `{"key":"møte"}`, []string{"key"}},
		{"POST /flags", `{"key":"` + long + `a"}`, []string{"key"}},
		{"POST /flags", `{"key":"` + long + `"}`, nil},
		{"POST /flags", `{"key":"a"}`, nil},

		{"PATCH /flags/search", `{"pct":12.5}`, []string{"pct"}},
		{"PATCH /flags/search", `{"pct":101}`, []string{"pct"}},
		{"PATCH /flags/search", `{"pct":-1}`, []string{"pct"}},
		{"PATCH /flags/search", `{"pct":1e99}`, []string{"pct"}},
		{"PATCH /flags/search", `{"pct":null}`, []string{"pct"}},
		{"PATCH /flags/search", `{"pct":0}`, nil},
		{"PATCH /flags/search", `{"pct":100}`, nil},
		{"PATCH /flags/search", `{"pct":25.0}`, nil},
		{"PATCH /flags/search", `{"pct":2.6e1}`, nil},
		{"PATCH /flags/search", `{"state":"On"}`, []string{"state"}},
		{"PATCH /flags/search", `{"state":""}`, []string{"state"}},
		{"PATCH /flags/search", `{"state":null}`, []string{"state"}},
		{"PATCH /flags/search", `{"description":null}`, []string{"description"}},
		{"PATCH /flags/search", `{"description":"` + strings.Repeat("å", 2001) + `"}`, []string{"description"}},
		{"PATCH /flags/search", `{"description":"` + strings.Repeat("å", 2000) + `"}`, nil},
		{"PATCH /flags/search", `{"description":"\u0000"}`, []string{"description"}},
		{"PATCH /flags/search", `{"note":null}`, []string{"note"}},
		{"PATCH /flags/search", `{"note":"` + strings.Repeat("å", 501) + `"}`, []string{"note"}},
		{"PATCH /flags/search", `{"pct":1,"note":"` + strings.Repeat("å", 500) + `"}`, nil},
		{"PATCH /flags/search", `{"scope":null}`, []string{"scope"}},
		{"PATCH /flags/search", `{"scope":{"plans":["gold"]}}`, []string{"scope.plans[0]"}},
		{"PATCH /flags/search", `{"scope":{"plans":["Business"]}}`, []string{"scope.plans[0]"}},
		{"PATCH /flags/search", `{"scope":{"plans":["business","","starter",null]}}`, []string{"scope.plans[1]", "scope.plans[3]"}},
		{"PATCH /flags/search", `{"scope":{"tenantSlugs":["acme","nobody"]}}`, []string{"scope.tenantSlugs[1]"}},
		{"PATCH /flags/search", `{"scope":{"partnerSlugs":["acme"]}}`, []string{"scope.partnerSlugs[0]"}},
		{"PATCH /flags/search", `{"scope":{"environments":["moon"]}}`, []string{"scope.environments[0]"}},
		{"PATCH /flags/search", `{"scope":{"plans":null,"environments":[]}}`, nil},
		{"PATCH /flags/search", `{"scope":{"tenantSlugs":["  acme\t","acme"]}}`, nil},
		{"POST /flags/search/restore", `{}`, []string{"version"}},
		{"POST /flags/search/restore", `{"version":null}`, []string{"version"}},
		{"POST /flags/search/restore", `{"version":0}`, []string{"version"}},
		{"POST /flags/search/restore", `{"version":-1}`, []string{"version"}},
		{"POST /flags/search/restore", `{"version":1.5,"note":"` + strings.Repeat("x", 501) + `"}`, []string{"version", "note"}},
		{"POST /flags/search/restore", `{"version":1.0}`, nil},

		// All at once.
		{"PATCH /flags/search", `{"description":null,"state":"asleep","pct":12.5,"scope":{"plans":["gold","business","silver"],"tenantSlugs":["nobody"]},"note":"\u0007"}`,
			[]string{"description", "note", "pct", "scope.plans[0]", "scope.plans[2]", "scope.tenantSlugs[0]", "state"}},
		{"POST /flags", `{"key":"explain","pct":-1,"scope":{"environments":["mars"]}}`, []string{"key", "pct", "scope.environments[0]"}},
	}
	for _, tt := range tests {
		got := s.send(t, tt.line, tt.body)
		if tt.want == nil {
			if got.status != 200 && got.status != 201 {
				t.Errorf("%s %.80s = %d %.300s, want it accepted", tt.line, tt.body, got.status, got.body)
			}
			continue
		}
		bad := []string(nil)
		if got.status == 422 {
			bad = errorFields(t, got)
		}
		slices.Sort(bad)
		slices.Sort(tt.want)
		if got.status != 422 || !slices.Equal(bad, tt.want) {
			t.Errorf("%s %.80s = %d with the bad fields %v, want 422 with %v", tt.line, tt.body, got.status, bad, tt.want)
		}
	}
	p := decode[problem](t, s.want(t, 422, "PATCH /flags/search", `{"pct":12.5,"scope":{"plans":["business","gold"]}}`))
	want := []flags.FieldError{
		{Field: "pct", Message: "must be a whole number from 0 to 100"},
		{Field: "scope.plans[1]", Message: `must be a known plan (starter, business, enterprise), not "gold"`},
	}
	if !slices.Equal(p.Errors, want) || p.Detail != "some fields have values that are not allowed" || p.Type != "urn:dezky:problem:invalid" || p.Status != 422 {
		t.Errorf("problem %s, want the errors %v", show(p), want)
	}
}

// TestAxisLimit holds that an axis takes 10,000 distinct values and not one more, and that a mistake
// among many is told.
func TestAxisLimit(t *testing.T) {
	t.Parallel()
	s := start(t)
	var crowd flags.Document
	slugs := make([]string, flags.MaxAxis+1)
	for i := range slugs {
		slugs[i] = fmt.Sprintf("t%05d", i)
		crowd.Tenants = append(crowd.Tenants, flags.TenantPatch{Slug: &slugs[i], Name: &slugs[i], Plan: &flags.Plans[0]})
	}
	if err := s.db.Plant(t.Context(), db.By{Actor: "system:seed"}, crowd); err != nil {
		t.Fatal(err)
	}
	body := func(slugs []string) string {
		return `{"key":"crowd","scope":{"tenantSlugs":` + show(slugs) + `}}`
	}
	if got := errorFields(t, s.want(t, 422, "POST /flags", body(slugs))); !slices.Equal(got, []string{"scope.tenantSlugs"}) {
		t.Errorf("10,001 values: bad fields %v, want scope.tenantSlugs", got)
	}
	twice := slices.Concat(slugs[:flags.MaxAxis], slugs[:flags.MaxAxis])
	f := decode[flagWithHistory](t, s.want(t, 201, "POST /flags", body(twice)))
	if !slices.Equal(f.Scope.TenantSlugs, slugs[:flags.MaxAxis]) {
		t.Errorf("10,000 values twice: %d are left, want each once", len(f.Scope.TenantSlugs))
	}
}

func TestPatchFlag(t *testing.T) {
	t.Parallel()
	s := start(t)
	s.registry(t)
	patch := func(body string) flagWithHistory {
		t.Helper()
		return decode[flagWithHistory](t, s.want(t, 200, "PATCH /flags/search", body))
	}
	before := decode[flagWithHistory](t, s.want(t, 200, "GET /flags/search", ""))

	f := patch(`{"pct":60,"note":"more"}`)
	want := *before.Flag
	want.Pct, want.Version, want.UpdatedAt = 60, 2, f.UpdatedAt
	if !reflect.DeepEqual(*f.Flag, want) {
		t.Errorf("patched %s, want %s", show(f.Flag), show(want))
	}
	e := f.History[0]
	wantEntry := flags.Entry{ID: e.ID, At: e.At, Revision: s.db.Current().Revision(), Actor: "token:operator", Action: flags.Updated, Version: 2, Note: "more",
		Changes: flags.Changes{"pct": {From: []byte("50"), To: []byte("60")}}, Impact: e.Impact, Via: flags.ViaToken}
	if !reflect.DeepEqual(e, wantEntry) || !e.At.Equal(f.UpdatedAt) || len(f.History) != 2 || f.History[1].Action != flags.Created {
		t.Errorf("history %s, want first %s", show(f.History), show(wantEntry))
	}
	for _, environment := range []string{"production", "development"} {
		if got, want := e.Impact[environment], (flags.EnvOutcome{Gains: []string{}, Losses: []string{}}); !reflect.DeepEqual(got, want) {
			t.Errorf("impact in %s %s, want none", environment, show(got))
		}
	}

	// Each axis on its own.
	f = patch(`{"scope":{"plans":["enterprise","business"]}}`)
	if want := (flags.Scope{Plans: []string{"business", "enterprise"}, TenantSlugs: []string{}, PartnerSlugs: []string{}, Environments: []string{"staging"}}); !reflect.DeepEqual(f.Scope, want) {
		t.Errorf("scope %s, want %s", show(f.Scope), show(want))
	}
	f = patch(`{"scope":{"environments":null,"partnerSlugs":["fjordit"]}}`)
	if want := (flags.Scope{Plans: []string{"business", "enterprise"}, TenantSlugs: []string{}, PartnerSlugs: []string{"fjordit"}, Environments: []string{}}); !reflect.DeepEqual(f.Scope, want) {
		t.Errorf("scope %s, want %s", show(f.Scope), show(want))
	}
	f = patch(`{"scope":{"plans":[]}}`)
	if want := (flags.Scope{Plans: []string{}, TenantSlugs: []string{}, PartnerSlugs: []string{"fjordit"}, Environments: []string{}}); !reflect.DeepEqual(f.Scope, want) {
		t.Errorf("scope %s, want %s", show(f.Scope), show(want))
	}

	// What changes nothing writes nothing.
	revision := s.db.Current().Revision()
	for _, body := range []string{`{}`, `{"note":"only a note"}`, `{"pct":60}`, `{"scope":{}}`, `{"scope":{"partnerSlugs":[" fjordit","fjordit"],"plans":null}}`,
		`{"description":"New search","state":"rollout","pct":60.0}`} {
		if same := patch(body); !reflect.DeepEqual(same, f) || s.db.Current().Revision() != revision {
			t.Errorf("%s: version %d at revision %d, want %d at %d", body, same.Version, s.db.Current().Revision(), f.Version, revision)
		}
	}

	// Who gained and lost by a change is in its entry.
	s.want(t, 200, "PATCH /flags/search", `{"state":"on"}`)
	f = patch(`{"state":"off","pct":0}`)
	if e := f.History[0]; e.Action != flags.Killed || !reflect.DeepEqual(e.Impact["production"], flags.EnvOutcome{Lost: 4, Gains: []string{}, Losses: []string{"acme", "globex", "initech", "umbrella"}}) {
		t.Errorf("killed: %s, want four losses", show(e))
	}
	f = patch(`{"pct":1}`)
	if e := f.History[0]; e.Action != flags.Updated {
		t.Errorf("a change of a flag that is off is %s, want updated", e.Action)
	}
}

func TestListFlags(t *testing.T) {
	t.Parallel()
	s := start(t)
	s.registry(t)
	s.want(t, 201, "POST /flags", `{"key":"a_last","description":"Made Last, found by SEARCH"}`)
	tests := []struct {
		query string
		want  []string
	}{
		{"", []string{"a_last", "calendar", "mail_rules", "search"}},
		{"?q=", []string{"a_last", "calendar", "mail_rules", "search"}},
		{"?q=search", []string{"a_last", "search"}},
		{"?q=SEARCH", []string{"a_last", "search"}},
		{"?q=last%2C+found", []string{"a_last"}},
		{"?q=nothing", []string{}},
		{"?state=rollout", []string{"search"}},
		{"?state=off", []string{"a_last"}},
		{"?state=on&q=cal", []string{"calendar"}},
		{"?state=on&q=mail", []string{}},
		{"?limit=1", []string{"a_last", "calendar", "mail_rules", "search"}}, // flags have no pages
	}
	for _, tt := range tests {
		got := s.want(t, 200, "GET /flags"+tt.query, "")
		keys := []string{}
		for _, f := range decode[[]flags.Flag](t, got) {
			keys = append(keys, f.Key)
		}
		if !slices.Equal(keys, tt.want) || got.header.Get("Link") != "" || strings.Contains(got.body, "history") || got.body[0] != '[' {
			t.Errorf("GET /flags%s: %v, want %v, without Link and history", tt.query, keys, tt.want)
		}
	}
	if got := errorFields(t, s.want(t, 422, "GET /flags?state=Off", "")); !slices.Equal(got, []string{"state"}) {
		t.Errorf("a bad state: bad fields %v, want state", got)
	}
}

func TestDeleteFlag(t *testing.T) {
	t.Parallel()
	s := start(t)
	s.registry(t)
	if got := s.want(t, 204, "DELETE /flags/calendar", ""); got.header.Get("Content-Type") != "" {
		t.Errorf("204 has Content-Type %s", got.header.Get("Content-Type"))
	}
	for _, line := range []string{"GET /flags/calendar", "DELETE /flags/calendar", "PATCH /flags/calendar", "POST /flags/calendar/impact"} {
		body := ""
		if !strings.HasPrefix(line, "GET") && !strings.HasPrefix(line, "DELETE") {
			body = "{}"
		}
		if got := decode[problem](t, s.want(t, 404, line, body)).Detail; got != `flag "calendar": not found` {
			t.Errorf("%s: detail %q, want that it is not found", line, got)
		}
	}
	if got := s.want(t, 200, "POST /flags/evaluate", `{"tenantSlug":"acme"}`).body; strings.Contains(got, "calendar") {
		t.Errorf("a deleted flag is evaluated: %s", got)
	}
	entries := decode[[]flags.Entry](t, s.want(t, 200, "GET /flags/calendar/history", ""))
	if len(entries) != 2 || entries[0].Action != flags.Deleted || entries[0].Version != 2 || string(entries[0].Changes["state"].To) != "null" ||
		entries[0].Impact["production"].Lost != 4 {
		t.Errorf("history %s, want a deletion, version 2, that four tenants lose by", show(entries))
	}
	s.want(t, 404, "GET /flags/missing/history", "")
}

func TestRestore(t *testing.T) {
	t.Parallel()
	s := start(t)
	s.registry(t)
	s.want(t, 200, "PATCH /flags/search", `{"description":"Second","state":"targeted","pct":1,"scope":{"plans":["business"],"tenantSlugs":["umbrella"],"partnerSlugs":["fjordit"],"environments":[]}}`)
	s.want(t, 200, "PATCH /flags/search", `{"state":"off","pct":0,"scope":{"tenantSlugs":[],"partnerSlugs":[]}}`)
	restore := func(body string) flagWithHistory {
		t.Helper()
		return decode[flagWithHistory](t, s.want(t, 200, "POST /flags/search/restore", body))
	}
	one := flags.Flag{Key: "search", Description: "New search", State: "rollout", Pct: 50,
		Scope: flags.Scope{Plans: []string{}, TenantSlugs: []string{}, PartnerSlugs: []string{}, Environments: []string{"staging"}}}
	two := flags.Flag{Key: "search", Description: "Second", State: "targeted", Pct: 1,
		Scope: flags.Scope{Plans: []string{"business"}, TenantSlugs: []string{"umbrella"}, PartnerSlugs: []string{"fjordit"}, Environments: []string{}}}

	f := restore(`{"version":1,"note":"as it began"}`)
	created := f.CreatedAt
	if !f.SameContent(&one) || f.Version != 4 || f.History[0].Action != flags.Restored || f.History[0].Note != "as it began" {
		t.Errorf("version 1 restored: %s, want version 4 with %s", show(f), show(one))
	}
	if f := restore(`{"version":2}`); !f.SameContent(&two) || f.Version != 5 {
		t.Errorf("version 2 restored: %s, want version 5 with %s", show(f), show(two))
	}

	// No difference writes nothing.
	revision := s.db.Current().Revision()
	for _, version := range []int{2, 5} {
		if f := restore(fmt.Sprintf(`{"version":%d,"note":"again"}`, version)); f.Version != 5 || s.db.Current().Revision() != revision {
			t.Errorf("version %d restored again: version %d, want 5 still", version, f.Version)
		}
	}

	// It brings back a deleted flag, also its present version's content; a deletion has none.
	s.want(t, 204, "DELETE /flags/search", "")
	if got := errorFields(t, s.want(t, 422, "POST /flags/search/restore", `{"version":6}`)); !slices.Equal(got, []string{"version"}) {
		t.Errorf("a deletion's version: bad fields %v, want version", got)
	}
	if f := restore(`{"version":5}`); !f.SameContent(&two) || f.Version != 7 || !f.CreatedAt.Equal(created) {
		t.Errorf("brought back: %s, want version 7 with %s, created at %s", show(f), show(two), created)
	}
	s.want(t, 422, "POST /flags/search/restore", `{"version":6}`)

	// Unknown versions and keys.
	for _, x := range []struct{ line, body string }{
		{"POST /flags/search/restore", `{"version":8}`},
		{"POST /flags/search/restore", `{"version":999999999}`},
		{"POST /flags/missing/restore", `{"version":1}`},
		{"POST /flags/acme/restore", `{"version":1}`}, // a tenant has no versions
	} {
		s.want(t, 404, x.line, x.body)
	}

	// Content that names something unknown now is refused, unless the flag has it already.
	s.want(t, 200, "POST /flags/search/restore", `{"version":1}`)
	s.want(t, 204, "DELETE /tenants/umbrella", "")
	s.want(t, 200, "PATCH /tenants/initech", `{"partnerSlug":null}`)
	s.want(t, 204, "DELETE /partners/fjordit", "")
	if got := errorFields(t, s.want(t, 422, "POST /flags/search/restore", `{"version":2}`)); !slices.Equal(got, []string{"scope.tenantSlugs[0]", "scope.partnerSlugs[0]"}) {
		t.Errorf("gone since: bad fields %v, want the tenant and the partner", got)
	}
	s.want(t, 200, "POST /flags/search/restore", `{"version":3}`)
}

// TestHistoryPages follows Link through each list of entries, at several page sizes.
func TestHistoryPages(t *testing.T) {
	t.Parallel()
	s := startDemo(t)
	for i := range 60 { // a flag with more entries than a page
		s.want(t, map[bool]int{true: 201, false: 200}[i == 0], map[bool]string{true: "POST /flags", false: "PATCH /flags/busy"}[i == 0],
			map[bool]string{true: `{"key":"busy"}`, false: fmt.Sprintf(`{"pct":%d}`, i)}[i == 0])
	}
	whole, err := s.db.History(t.Context(), db.HistoryFilter{Limit: 1 << 20})
	if err != nil || len(whole) < 150 {
		t.Fatalf("%d entries, %v, want more than 150", len(whole), err)
	}
	ids := func(keep func(flags.Entry) bool) []int64 {
		var out []int64
		for _, e := range whole {
			if keep(e) {
				out = append(out, e.ID)
			}
		}
		return out
	}
	tests := []struct {
		path string
		want []int64
	}{
		{"/history", ids(func(flags.Entry) bool { return true })},
		{"/history?flag=busy", ids(func(e flags.Entry) bool { return e.Kind == "flag" && e.Name == "busy" })},
		{"/flags/busy/history", ids(func(e flags.Entry) bool { return e.Kind == "flag" && e.Name == "busy" })},
		{"/api/flags/busy/history", ids(func(e flags.Entry) bool { return e.Kind == "flag" && e.Name == "busy" })},
		{"/history?tenant=dezky", ids(func(e flags.Entry) bool { return e.Kind == "tenant" && e.Name == "dezky" })},
		{"/history?actor=aino@dezky.example", ids(func(e flags.Entry) bool { return e.Actor == "aino@dezky.example" })},
		{"/history?actor=token:operator&flag=busy", ids(func(e flags.Entry) bool { return e.Name == "busy" })},
		{"/history?actor=aino", nil},
		{"/history?flag=dezky", nil},
		{"/history?flag=busy&tenant=dezky", nil},
	}
	for _, tt := range tests {
		for _, limit := range []int{0, 1, 7, 200} {
			if limit == 1 && len(tt.want) > 70 {
				continue
			}
			query, most := "", 50
			if limit > 0 {
				query, most = "limit="+strconv.Itoa(limit), limit
			}
			got := pages(t, s, tt.path, query, most, func(e flags.Entry) int64 { return e.ID })
			if !slices.Equal(got, tt.want) {
				t.Errorf("GET %s by %d: the entries %v, want %v", tt.path, most, got, tt.want)
			}
		}
	}
	if n := len(tests[0].want); n <= 200 {
		t.Logf("the whole log has %d entries only", n)
	}
	for _, query := range []string{"limit=0", "limit=201", "limit=-1", "limit=x", "limit=1.0", "before=0", "before=-3", "before=x", "before=1e3"} {
		name, _, _ := strings.Cut(query, "=")
		for _, path := range []string{"/history", "/flags/busy/history"} {
			if got := errorFields(t, s.want(t, 422, "GET "+path+"?"+query, "")); !slices.Equal(got, []string{name}) {
				t.Errorf("GET %s?%s: bad fields %v, want %s", path, query, got, name)
			}
		}
	}
	if got := errorFields(t, s.want(t, 422, "GET /history?limit=0&before=x", "")); !slices.Equal(got, []string{"limit", "before"}) {
		t.Errorf("two bad parameters: bad fields %v, want both", got)
	}

	// A flag shows the newest 20.
	f := decode[flagWithHistory](t, s.want(t, 200, "GET /flags/busy", ""))
	if len(f.History) != 20 || f.History[0].ID != tests[1].want[0] || f.History[19].ID != tests[1].want[19] {
		t.Errorf("a flag with 60 entries shows %d, want the newest 20", len(f.History))
	}
}

// pages reads a list page by page and returns the names of its elements. Each page but the last has as
// many as were asked for, and a Link.
func pages[T, N any](t *testing.T, s *running, path, query string, most int, name func(T) N) []N {
	t.Helper()
	if query != "" {
		path += map[bool]string{true: "&", false: "?"}[strings.Contains(path, "?")] + query
	}
	want, _ := url.Parse(path)
	var out []N
	for {
		a := s.want(t, 200, "GET "+path, "")
		page := decode[[]T](t, a)
		for _, x := range page {
			out = append(out, name(x))
		}
		link := a.header.Get("Link")
		if link == "" {
			if len(page) > most {
				t.Errorf("GET %s: %d elements, want at most %d", path, len(page), most)
			}
			return out
		}
		next, ok := strings.CutSuffix(strings.TrimPrefix(link, "<"), `>; rel="next"`)
		u, err := url.Parse(next)
		if !ok || err != nil || u.IsAbs() || u.Path != want.Path || len(page) != most || next == path {
			t.Fatalf("GET %s: %d elements and Link %s, want %d and the same path from further on", path, len(page), link, most)
		}
		path = next
	}
}

// TestHistory looks at entries of all kinds in the one log.
func TestHistory(t *testing.T) {
	t.Parallel()
	s := start(t)
	before := time.Now().Add(-time.Minute)
	s.registry(t)
	s.want(t, 200, "PATCH /tenants/globex", `{"plan":"business"}`)
	token := s.token(t, db.NewToken{Name: "ci", Role: "read", Environment: "staging", Expires: time.Hour})
	if _, err := s.db.RevokeToken(t.Context(), db.By{Actor: "ops@dezky.example"}, token.ID); err != nil {
		t.Fatal(err)
	}
	s.want(t, 200, "PATCH /partners/nordhost", `{"name":"Nordhost AS"}`)
	s.want(t, 204, "DELETE /flags/calendar", "")
	entries := decode[[]flags.Entry](t, s.want(t, 200, "GET /history", "", s.as("read")))
	var got []string
	for i, e := range entries {
		got = append(got, fmt.Sprintf("%s %s %s by %s", e.Kind, e.Name, e.Action, e.Actor))
		if i > 0 && (e.ID >= entries[i-1].ID || e.At.After(entries[i-1].At) || e.Revision > entries[i-1].Revision) {
			t.Errorf("entry %d is not older than the one before it: %s, %s", i, show(e), show(entries[i-1]))
		}
		if e.At.Before(before) || e.At.After(time.Now()) || e.At.Location() != time.UTC {
			t.Errorf("entry %d is of %s", i, e.At)
		}
	}
	want := []string{
		"flag calendar deleted by token:operator",
		"partner nordhost updated by token:operator",
		"token ci revoked by ops@dezky.example",
		"token ci created by ops@dezky.example",
		"tenant globex updated by token:operator",
		"flag search created by token:operator",
		"flag mail_rules created by token:operator",
		"flag calendar created by token:operator",
		"tenant umbrella created by token:operator",
		"tenant initech created by token:operator",
		"tenant globex created by token:operator",
		"tenant acme created by token:operator",
		"partner nordhost created by token:operator",
		"partner fjordit created by token:operator",
		"token evaluate created by ops@dezky.example",
		"token read created by ops@dezky.example",
		"token operator created by ops@dezky.example",
	}
	if !slices.Equal(got, want) {
		t.Errorf("history\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
	if got, want := show(entries[4].Changes), `{"plan":{"from":"starter","to":"business"}}`; got != want {
		t.Errorf("changes %s, want %s", got, want)
	}
	if c := entries[3].Changes; string(c["role"].To) != `"read"` || string(c["environment"].To) != `"staging"` || len(c) != 3 {
		t.Errorf("changes of a token %s, want role, environment and expiresAt", show(c))
	}
	if got := show(entries[2].Changes); got != "{}" {
		t.Errorf("changes of a revocation %s, want none", got)
	}
}
