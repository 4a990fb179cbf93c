package handlers

import (
	"fmt"
	"net/http"
	"reflect"
	"strings"
	"testing"

	"github.com/dezky/platform-api/flags"
)

func TestEntityTags(t *testing.T) {
	t.Parallel()
	type result struct {
		tags []string
		any  bool
	}
	tests := []struct {
		name   string
		fields []string
		want   *result // nil: malformed
	}{
		{"none", nil, &result{}},
		{"empty", []string{""}, &result{}},
		{"one", []string{`"3"`}, &result{tags: []string{`"3"`}}},
		{"weak", []string{`W/"3"`}, &result{tags: []string{`W/"3"`}}},
		{"empty tag", []string{`""`}, &result{tags: []string{`""`}}},
		{"star", []string{"*"}, &result{any: true}},
		{"list", []string{`"1", W/"2","3"`}, &result{tags: []string{`"1"`, `W/"2"`, `"3"`}}},
		{"empty elements", []string{` ,, "1" , ,"2",`}, &result{tags: []string{`"1"`, `"2"`}}},
		{"two lines", []string{`"1"`, `"2"`}, &result{tags: []string{`"1"`, `"2"`}}},
		{"comma in a tag", []string{`"1,2"`}, &result{tags: []string{`"1,2"`}}},
		{"tab", []string{"\"1\"\t,\t\"2\""}, &result{tags: []string{`"1"`, `"2"`}}},
		{"no quotes", []string{"3"}, nil},
		{"one quote", []string{`"3`}, nil},
		{"quote at the end", []string{`3"`}, nil},
		{"weak without quotes", []string{"W/3"}, nil},
		{"weak alone", []string{"W/"}, nil},
		{"weak in lower case", []string{`w/"3"`}, nil},
		{"no comma", []string{`"1" "2"`}, nil},
		{"no space either", []string{`"1""2"`}, nil},
		{"something after a tag", []string{`"1"x`}, nil},
		{"something after the star", []string{"*x"}, nil},
		{"bad end of a list", []string{`"1", 2`}, nil},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			h := http.Header{}
			for _, f := range tt.fields {
				h.Add("If-Match", f)
			}
			tags, anyTag, err := entityTags(h, "If-Match")
			switch {
			case tt.want == nil && err == nil:
				t.Errorf("entityTags(%q) = %q, %t, want an error", tt.fields, tags, anyTag)
			case tt.want == nil:
			case err != nil || !reflect.DeepEqual(tags, tt.want.tags) || anyTag != tt.want.any:
				t.Errorf("entityTags(%q) = %q, %t, %v, want %q, %t", tt.fields, tags, anyTag, err, tt.want.tags, tt.want.any)
			}
		})
	}
}

func TestIfMatch(t *testing.T) {
	t.Parallel()
	s := start(t)
	s.registry(t)
	s.want(t, 200, "PATCH /flags/search", `{"pct":51}`)
	tests := []struct {
		name    string
		headers []string // VERSION stands for the present one, STALE for the one before
		status  int      // of a change; 0 is what it is without a condition
	}{
		{"none", nil, 0},
		{"exact", []string{`If-Match: "VERSION"`}, 0},
		{"any", []string{"If-Match: *"}, 0},
		{"list", []string{`If-Match: "STALE", "VERSION"`}, 0},
		{"two lines", []string{`If-Match: "STALE"`, `If-Match: "VERSION"`}, 0},
		{"with a weak one", []string{`If-Match: W/"STALE","VERSION"`}, 0},
		{"stale", []string{`If-Match: "STALE"`}, 412},
		{"to come", []string{`If-Match: "1000"`}, 412},
		{"weak", []string{`If-Match: W/"VERSION"`}, 412},
		{"stale list", []string{`If-Match: "STALE", W/"VERSION", "x"`}, 412},
		{"not a version", []string{`If-Match: "x"`}, 412},
		{"zero", []string{`If-Match: "0"`}, 412},
		{"another spelling", []string{`If-Match: "0VERSION"`}, 412},
		{"signed", []string{`If-Match: "+VERSION"`}, 412},
		{"with space", []string{`If-Match: " VERSION"`}, 412},
		{"empty", []string{"If-Match:"}, 412},
		{"no quotes", []string{"If-Match: VERSION"}, 400},
		{"one quote", []string{`If-Match: "VERSION`}, 400},
		{"malformed after a match", []string{`If-Match: "VERSION", VERSION`}, 400},
	}
	changes := []struct {
		line, body string
		status     int
		undo       func()
	}{
		{"PATCH /flags/search", `{"pct":%d}`, 200, func() {}},
		{"POST /flags/search/restore", `{"version":1}`, 200, func() { s.want(t, 200, "PATCH /flags/search", `{"pct":51}`) }},
		{"DELETE /flags/search", "", 204, func() {
			s.want(t, 201, "POST /flags", `{"key":"search","state":"rollout","pct":51,"description":"New search","scope":{"environments":["staging"]}}`)
		}},
	}
	for i, tt := range tests {
		for _, c := range changes {
			t.Run(tt.name+", "+c.line, func(t *testing.T) {
				before := decode[flagWithHistory](t, s.want(t, 200, "GET /flags/search", ""))
				numbers := strings.NewReplacer("VERSION", fmt.Sprint(before.Version), "STALE", fmt.Sprint(before.Version-1))
				var headers []string
				for _, h := range tt.headers {
					headers = append(headers, numbers.Replace(h))
				}
				body := c.body
				if strings.Contains(body, "%d") {
					body = fmt.Sprintf(body, i)
				}
				got := s.send(t, c.line, body, headers...)
				switch tt.status {
				case 0:
					if got.status != c.status {
						t.Fatalf("status %d %s, want %d", got.status, got.body, c.status)
					}
					c.undo()
				case 412:
					p := decode[struct {
						problem
						Current flagWithHistory `json:"current"`
					}](t, got)
					if got.status != 412 || !reflect.DeepEqual(p.Current, before) {
						t.Errorf("status %d, current %.400s, want 412 and %.400s", got.status, show(p.Current), show(before))
					}
					if want := fmt.Sprintf("the flag is at version %d now", before.Version); p.Detail != want {
						t.Errorf("detail %q, want %q", p.Detail, want)
					}
				default:
					if detail := decode[problem](t, got).Detail; got.status != tt.status || !strings.HasPrefix(detail, "If-Match must be a list of entity tags") {
						t.Errorf("status %d %q, want %d and what is wrong with If-Match", got.status, detail, tt.status)
					}
				}
			})
		}
	}

	t.Run("a patch that changes nothing", func(t *testing.T) {
		f := decode[flagWithHistory](t, s.want(t, 200, "GET /flags/search", ""))
		same := fmt.Sprintf(`{"pct":%d}`, f.Pct)
		s.want(t, 412, "PATCH /flags/search", same, fmt.Sprintf(`If-Match: "%d"`, f.Version-1))
		s.want(t, 200, "PATCH /flags/search", same, fmt.Sprintf(`If-Match: "%d"`, f.Version))
	})
	t.Run("a deleted flag", func(t *testing.T) {
		f := decode[flagWithHistory](t, s.want(t, 200, "GET /flags/search", ""))
		s.want(t, 204, "DELETE /flags/search", "")
		for _, condition := range []string{"*", fmt.Sprintf(`"%d"`, f.Version), fmt.Sprintf(`"%d"`, f.Version+1)} {
			got := s.want(t, 412, "POST /flags/search/restore", `{"version":1}`, "If-Match: "+condition)
			if !strings.Contains(got.body, `"current":null`) {
				t.Errorf("restore if %s: %s, want current null", condition, got.body)
			}
			s.want(t, 404, "PATCH /flags/search", `{"pct":1}`, "If-Match: "+condition)
			s.want(t, 404, "DELETE /flags/search", "", "If-Match: "+condition)
		}
		s.want(t, 200, "POST /flags/search/restore", `{"version":1}`)
	})
}

func TestIfNoneMatch(t *testing.T) {
	t.Parallel()
	s := start(t)
	s.registry(t)
	for _, sample := range []struct{ line, body string }{
		{"POST /flags/evaluate", `{"tenantSlug":"acme"}`},
		{"POST /api/flags/evaluate", `{"tenantSlug":"acme","environment":"staging"}`},
		{"GET /flags/search", ""},
	} {
		first := s.want(t, 200, sample.line, sample.body)
		tag := first.header.Get("ETag")
		tests := []struct {
			name, condition string
			status          int
		}{
			{"the same", tag, 304},
			{"weak", "W/" + tag, 304},
			{"any", "*", 304},
			{"in a list", `"x", W/` + tag + `, "y"`, 304},
			{"another", `"x"`, 200},
			{"a weak other", `W/"x"`, 200},
			{"a list of others", `"x", "y"`, 200},
			{"a part of it", tag[:len(tag)-2] + `"`, 200},
			{"empty", "", 200},
			{"no quotes", strings.Trim(tag, `"`), 400},
		}
		for _, tt := range tests {
			t.Run(sample.line+", "+tt.name, func(t *testing.T) {
				got := s.want(t, tt.status, sample.line, sample.body, "If-None-Match: "+tt.condition)
				switch tt.status {
				case 200:
					if got.body != first.body || got.header.Get("ETag") != tag {
						t.Errorf("body %s with ETag %s, want %s with %s", got.body, got.header.Get("ETag"), first.body, tag)
					}
				case 304:
					if got.header.Get("ETag") != tag || got.body != "" || got.header.Get("Content-Type") != "" {
						t.Errorf("ETag %s, Content-Type %q, body %q, want %s, none and none", got.header.Get("ETag"), got.header.Get("Content-Type"), got.body, tag)
					}
				default:
					if got.header.Get("ETag") != "" {
						t.Errorf("a refusal has the ETag %s", got.header.Get("ETag"))
					}
				}
				if want := map[int]string{200: "private, no-cache", 304: "private, no-cache", 400: "no-store"}[tt.status]; got.header.Get("Cache-Control") != want {
					t.Errorf("Cache-Control %q, want %q", got.header.Get("Cache-Control"), want)
				}
			})
		}
	}
}

// TestEvaluationETag holds that the tag is new after each change of anything, and another one for each
// tenant and environment.
func TestEvaluationETag(t *testing.T) {
	t.Parallel()
	s := start(t)
	s.registry(t)
	const acme = `{"tenantSlug":"acme"}`
	seen := map[string]string{}
	fresh := func(after string) *answer {
		t.Helper()
		a := s.want(t, 200, "POST /flags/evaluate", acme)
		tag := a.header.Get("ETag")
		if before, known := seen[tag]; known {
			t.Errorf("after %s the ETag is %s again, as after %s", after, tag, before)
		}
		for old := range seen {
			s.want(t, 200, "POST /flags/evaluate", acme, "If-None-Match: "+old)
		}
		s.want(t, 304, "POST /flags/evaluate", acme, "If-None-Match: "+tag)
		seen[tag] = after
		return a
	}
	first := fresh("the beginning")
	snapshot := s.db.Current()
	if got, want := first.header.Get("ETag"), fmt.Sprintf(`"%s.%d.acme.production"`, snapshot.Epoch(), snapshot.Revision()); got != want {
		t.Errorf("ETag %s, want %s", got, want)
	}

	s.want(t, 200, "PATCH /flags/calendar", `{"state":"off"}`)
	fresh("B")
	s.want(t, 200, "PATCH /flags/calendar", `{"state":"on"}`)
	if again := fresh("A again"); again.body != first.body {
		t.Errorf("A→B→A: %s, want %s", again.body, first.body)
	}
	s.want(t, 204, "DELETE /flags/calendar", "")
	fresh("deletion")
	s.want(t, 201, "POST /flags", `{"key":"calendar","state":"on"}`)
	if again := fresh("recreation"); again.body != first.body {
		t.Errorf("after delete and recreate: %s, want %s", again.body, first.body)
	}
	s.want(t, 200, "PATCH /tenants/globex", `{"name":"Globex Corporation"}`)
	fresh("another tenant's change")
	s.want(t, 201, "POST /partners", `{"slug":"mailbyen","name":"Mailbyen"}`)
	last := fresh("a new partner")

	// What changes nothing is no revision.
	s.want(t, 200, "PATCH /flags/calendar", `{"state":"on"}`)
	s.want(t, 304, "POST /flags/evaluate", acme, "If-None-Match: "+last.header.Get("ETag"))

	for _, other := range []string{`{"tenantSlug":"globex"}`, `{"tenantSlug":"acme","environment":"staging"}`} {
		got := s.want(t, 200, "POST /flags/evaluate", other, "If-None-Match: "+last.header.Get("ETag"))
		if got.header.Get("ETag") == last.header.Get("ETag") {
			t.Errorf("%s has the ETag of %s", other, acme)
		}
	}
	s.want(t, 304, "POST /flags/evaluate", `{"tenantSlug":"acme","environment":"production"}`, "If-None-Match: "+last.header.Get("ETag"))
}

// TestVersionsContinue holds that a key has one line of versions, also over deletion.
func TestVersionsContinue(t *testing.T) {
	t.Parallel()
	s := start(t)
	s.registry(t)
	version := func(a *answer) int64 {
		t.Helper()
		f := decode[flagWithHistory](t, a)
		if tag, want := a.header.Get("ETag"), fmt.Sprintf(`"%d"`, f.Version); tag != want {
			t.Errorf("ETag %s, want %s", tag, want)
		}
		return f.Version
	}
	steps := []struct {
		line, body string
		status     int
		want       int64
		action     flags.Action
	}{
		{"GET /flags/search", "", 200, 1, flags.Created},
		{"PATCH /flags/search", `{"pct":1}`, 200, 2, flags.Updated},
		{"PATCH /flags/search", `{"pct":1}`, 200, 2, flags.Updated},
		{"DELETE /flags/search", "", 204, 3, flags.Deleted},
		{"POST /flags", `{"key":"search"}`, 201, 4, flags.Created},
		{"PATCH /flags/search", `{"state":"on"}`, 200, 5, flags.Updated},
		{"DELETE /flags/search", "", 204, 6, flags.Deleted},
		{"POST /flags/search/restore", `{"version":2}`, 200, 7, flags.Restored},
		{"PATCH /flags/search", `{"state":"off","pct":0}`, 200, 8, flags.Killed},
		{"POST /flags/search/restore", `{"version":5}`, 200, 9, flags.Restored},
	}
	for _, step := range steps {
		got := s.want(t, step.status, step.line, step.body)
		if step.status != 204 {
			if v := version(got); v != step.want {
				t.Errorf("%s %s: version %d, want %d", step.line, step.body, v, step.want)
			}
		}
		newest := decode[[]flags.Entry](t, s.want(t, 200, "GET /flags/search/history?limit=1", ""))[0]
		if newest.Version != step.want || newest.Action != step.action {
			t.Errorf("after %s %s: newest entry is %s %d, want %s %d", step.line, step.body, newest.Action, newest.Version, step.action, step.want)
		}
	}
}
