package handlers

import (
	"bytes"
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/dezky/platform-api/auth"
	"github.com/dezky/platform-api/db"
	"github.com/dezky/platform-api/flags"
)

func TestCredentials(t *testing.T) {
	t.Parallel()
	s := start(t)
	s.registry(t)
	revoked := s.token(t, db.NewToken{Name: "revoked", Role: "operator"})
	if _, err := s.db.RevokeToken(t.Context(), db.By{Actor: "ops@dezky.example"}, revoked.ID); err != nil {
		t.Fatal(err)
	}
	s.token(t, db.NewToken{Name: "short", Role: "operator", Expires: time.Hour})
	s.token(t, db.NewToken{Name: "short-unseen", Role: "operator", Expires: time.Hour})
	s.want(t, 200, "GET /flags", "", s.as("short"))
	s.ahead.Store(int64(time.Hour))

	good := s.tokens["operator"]
	const none, invalid = "Bearer", `Bearer error="invalid_token"`
	tests := []struct {
		name    string
		headers []string
		query   string
		want    string // WWW-Authenticate of a 401, or ""
	}{
		{"none", []string{nobody}, "", none},
		{"in the query", []string{nobody}, "?access_token=" + good + "&token=" + good, none},
		{"in a cookie", []string{nobody, "Cookie: token=" + good + "; session=" + good}, "", none},
		{"basic", []string{"Authorization: Basic b3BzOm9wcw=="}, "", invalid},
		{"no scheme", []string{"Authorization: " + good}, "", invalid},
		{"no token", []string{"Authorization: Bearer"}, "", invalid},
		{"no API key", []string{"X-API-Key:"}, "", invalid},
		{"not one of ours", []string{"Authorization: Bearer eyJhbGciOiJub25lIn0.e30."}, "", invalid},
		{"unknown", []string{"Authorization: Bearer dzk_AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA"}, "", invalid},
		{"unknown API key", []string{"X-API-Key: dzk_AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA"}, "", invalid},
		{"cut short", []string{"Authorization: Bearer " + good[:len(good)-1]}, "", invalid},
		{"too long", []string{"Authorization: Bearer " + good + "A"}, "", invalid},
		{"endless", []string{"Authorization: Bearer dzk_" + strings.Repeat("A", 10_000)}, "", invalid},
		{"two in one", []string{"Authorization: Bearer " + good + ", Bearer " + good}, "", invalid},
		{"revoked", []string{s.as("revoked")}, "", invalid},
		{"expired", []string{s.as("short")}, "", invalid},
		{"expired and never seen", []string{s.as("short-unseen")}, "", invalid},
		{"both headers", []string{"Authorization: Bearer " + good, "X-API-Key: " + good}, "", invalid},
		{"both headers, one empty", []string{"Authorization: Bearer " + good, "X-API-Key:"}, "", invalid},
		{"Authorization twice", []string{"Authorization: Bearer " + good, "Authorization: Bearer " + good}, "", invalid},
		{"X-API-Key twice", []string{"X-API-Key: " + good, "X-API-Key: " + good}, "", invalid},

		{"bearer", []string{"Authorization: Bearer " + good}, "", ""},
		{"scheme in lower case", []string{"Authorization: bearer " + good}, "", ""},
		{"two spaces", []string{"Authorization: Bearer  " + good}, "", ""},
		{"API key", []string{"X-API-Key: " + good}, "", ""},
		{"with a cookie", []string{"Authorization: Bearer " + good, "Cookie: session=x"}, "", ""},
	}
	body := s.want(t, 401, "GET /flags", "", nobody).body
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			s.moveClock(time.Minute) // which forgets the failures so far: too many are answered otherwise
			for _, prefix := range []string{"", "/api"} {
				get := s.send(t, "GET "+prefix+"/flags"+tt.query, "", tt.headers...)
				post := s.send(t, "POST "+prefix+"/flags/evaluate"+tt.query, `{"tenantSlug":"acme"}`, tt.headers...)
				for _, got := range []*answer{get, post} {
					if tt.want == "" {
						if got.status != 200 {
							t.Errorf("status %d %s, want 200", got.status, got.body)
						}
						continue
					}
					if challenge := got.header.Values("WWW-Authenticate"); got.status != 401 || len(challenge) != 1 || challenge[0] != tt.want {
						t.Errorf("status %d, WWW-Authenticate %q, want 401 and %q", got.status, challenge, tt.want)
					}
					if got.body != body {
						t.Errorf("body %s, want the one of every 401, %s", got.body, body)
					}
				}
			}
		})
	}
}

// TestRoles sends every role to every route. What a role may do ends otherwise than in 401 or 403: the
// requests name nothing that is there.
func TestRoles(t *testing.T) {
	t.Parallel()
	s := start(t)
	for _, rt := range (&app{}).apiRoutes() {
		path := strings.NewReplacer("{key}", "missing", "{slug}", "missing").Replace(rt.path)
		for _, role := range []auth.Role{auth.Evaluate, auth.Read, auth.Operator} {
			for _, prefix := range []string{"", "/api"} {
				got := s.send(t, rt.method+" "+prefix+path, "", s.as(role.String()))
				switch {
				case role >= rt.need && (got.status == 401 || got.status == 403):
					t.Errorf("%s %s as %s = %d, want neither 401 nor 403", rt.method, path, role, got.status)
				case role < rt.need:
					want := fmt.Sprintf("this needs the role %s; yours is %s", rt.need, role)
					if detail := decode[problem](t, got).Detail; got.status != 403 || detail != want {
						t.Errorf("%s %s as %s = %d %q, want 403 %q", rt.method, path, role, got.status, detail, want)
					}
				}
			}
		}
	}
}

// TestPinnedToken is about tokens for one environment: it is their default, and any other is refused.
func TestPinnedToken(t *testing.T) {
	t.Parallel()
	s := start(t)
	s.registry(t)
	s.want(t, 201, "POST /flags", `{"key":"lab","state":"targeted","scope":{"environments":["staging"]}}`)
	for _, role := range db.TokenRoles {
		s.token(t, db.NewToken{Name: "staging-" + role, Role: role, Environment: "staging"})
	}
	type values = map[string]bool
	type reasons = map[string]flags.Explanation
	lab := map[string]func(t *testing.T, environment string, headers ...string) (int, bool){
		"evaluate": func(t *testing.T, environment string, headers ...string) (int, bool) {
			a := s.send(t, "POST /flags/evaluate", `{"tenantSlug":"acme"`+environment+`}`, headers...)
			return a.status, a.status == 200 && decode[values](t, a)["lab"]
		},
		"explain": func(t *testing.T, environment string, headers ...string) (int, bool) {
			a := s.send(t, "POST /flags/explain", `{"tenantSlug":"acme"`+environment+`}`, headers...)
			return a.status, a.status == 200 && decode[reasons](t, a)["lab"].Value
		},
		"impact": func(t *testing.T, environment string, headers ...string) (int, bool) {
			a := s.send(t, "POST /flags/lab/impact", `{"state":"targeted"`+environment+`}`, headers...)
			return a.status, a.status == 200 && decode[preview](t, a).Matched == 4
		},
	}
	tests := []struct {
		name, token, environment string
		status                   int
		value                    bool
	}{
		{"pinned, none named", "staging-operator", ``, 200, true},
		{"pinned, its own", "staging-operator", `,"environment":"staging"`, 200, true},
		{"pinned, another", "staging-operator", `,"environment":"production"`, 403, false},
		{"pinned, an unknown one", "staging-operator", `,"environment":"moon"`, 403, false},
		{"pinned reader, none named", "staging-read", ``, 200, true},
		{"pinned reader, another", "staging-read", `,"environment":"development"`, 403, false},
		{"free, none named", "read", ``, 200, false},
		{"free, staging", "read", `,"environment":"staging"`, 200, true},
		{"free, production", "read", `,"environment":"production"`, 200, false},
		{"free, an unknown one", "read", `,"environment":"moon"`, 422, false},
		{"free, empty", "read", `,"environment":""`, 422, false},
		{"free, null", "read", `,"environment":null`, 422, false},
		{"free, another case", "read", `,"environment":"Staging"`, 422, false},
	}
	for _, tt := range tests {
		for name, ask := range lab {
			t.Run(tt.name+", "+name, func(t *testing.T) {
				if status, value := ask(t, tt.environment, s.as(tt.token)); status != tt.status || value != tt.value {
					t.Errorf("status %d and %t, want %d and %t", status, value, tt.status, tt.value)
				}
			})
		}
	}
	for environment, want := range map[string]int{``: 200, `,"environment":"staging"`: 200, `,"environment":"production"`: 403} {
		if status, value := lab["evaluate"](t, environment, s.as("staging-evaluate")); status != want || value != (want == 200) {
			t.Errorf("evaluate%s as staging-evaluate = %d and %t, want %d", environment, status, value, want)
		}
	}
	got := decode[problem](t, s.want(t, 403, "POST /flags/evaluate", `{"tenantSlug":"acme","environment":"production"}`, s.as("staging-read"))).Detail
	if want := "this credential is for the environment staging alone"; got != want {
		t.Errorf("detail %q, want %q", got, want)
	}
	// It binds what is asked, not what is changed.
	s.want(t, 200, "PATCH /flags/lab", `{"scope":{"environments":["production"]}}`, s.as("staging-operator"))
}

// withBody are the operations that take a body, each with a request that is good but for its body.
var withBody = []string{"evaluateFlags", "explainFlags", "createFlag", "updateFlag", "restoreFlag", "previewImpact",
	"createTenant", "putTenant", "updateTenant", "previewTenant", "createPartner", "updatePartner"}

func TestMediaTypes(t *testing.T) {
	t.Parallel()
	s := start(t)
	s.registry(t)
	tests := []struct {
		name, contentType string
		patch, others     bool // whether it is taken
		headers           []string
	}{
		{"none", "", false, false, nil},
		{"JSON", "application/json", true, true, nil},
		{"another case", "Application/JSON", true, true, nil},
		{"UTF-8", "application/json; charset=utf-8", true, true, nil},
		{"UTF-8 in quotes", `application/json;charset="UTF-8"`, true, true, nil},
		{"Latin 1", "application/json; charset=iso-8859-1", false, false, nil},
		{"UTF-16", "application/json; charset=utf-16", false, false, nil},
		{"two charsets", "application/json; charset=utf-8; charset=utf-16", false, false, nil},
		{"merge patch", "application/merge-patch+json", true, false, nil},
		{"merge patch, UTF-8", "application/merge-patch+json; charset=utf-8", true, false, nil},
		{"merge patch, Latin 1", "application/merge-patch+json; charset=latin1", false, false, nil},
		{"JSON patch", "application/json-patch+json", false, false, nil},
		{"problem", "application/problem+json", false, false, nil},
		{"text", "text/plain", false, false, nil},
		{"a form", "application/x-www-form-urlencoded", false, false, nil},
		{"a form with parts", "multipart/form-data; boundary=x", false, false, nil},
		{"any", "*/*", false, false, nil},
		{"not a media type", "json", false, false, nil},
		{"two", "application/json, application/json", false, false, nil},
		{"compressed", "application/json", false, false, []string{"Content-Encoding: gzip"}},
		{"not compressed", "application/json", true, true, []string{"Content-Encoding: identity"}},
	}
	for _, id := range withBody {
		sample := samples[id]
		for _, tt := range tests {
			want := tt.others
			if strings.HasPrefix(sample.line, "PATCH") {
				want = tt.patch
			}
			// A good media type is told by the mistake in the body that comes next.
			got := s.send(t, sample.line, "{", append(tt.headers, "Content-Type: "+tt.contentType)...)
			if status := map[bool]int{true: 400, false: 415}[want]; got.status != status {
				t.Errorf("%s: %s (%s) = %d, want %d", id, tt.name, tt.contentType, got.status, status)
			}
		}
	}
	got := decode[problem](t, s.want(t, 415, "PATCH /flags/search", `{}`, "Content-Type: text/plain")).Detail
	if want := "the body must be application/json or application/merge-patch+json in UTF-8, not compressed"; got != want {
		t.Errorf("detail %q, want %q", got, want)
	}
	s.want(t, 200, "PATCH /flags/search", `{"pct":7}`, "Content-Type: application/merge-patch+json")

	// A route without a body takes what comes.
	s.want(t, 200, "GET /flags/search", "", "Content-Type: text/plain")
	s.want(t, 204, "DELETE /flags/search", "", "Content-Type: text/plain")
	s.want(t, 204, "DELETE /flags/calendar", "")
}

// endless is a body without a length.
type endless struct{ io.Reader }

func TestBodySize(t *testing.T) {
	t.Parallel()
	s := start(t)
	s.registry(t)
	for _, id := range withBody {
		limit := largeBody
		if id == "evaluateFlags" || id == "explainFlags" {
			limit = smallBody
		}
		if want := map[bool]int{true: 65536, false: 1048576}[strings.HasPrefix(samples[id].line, "POST /flags/e")]; limit != want {
			t.Errorf("%s: the limit is %d, want %d", id, limit, want)
		}
		sample := samples[id]
		space := strings.Repeat(" ", limit-len(sample.body))
		got := decode[problem](t, s.want(t, 413, sample.line, sample.body+space+" ")).Detail
		if want := fmt.Sprintf("the body is larger than %d bytes", limit); got != want {
			t.Errorf("%s: detail %q, want %q", id, got, want)
		}
		r := s.request(t, sample.line, sample.body)
		r.Body, r.ContentLength = io.NopCloser(endless{strings.NewReader(sample.body + space + " ")}), -1
		if got := s.do(t, r); got.status != 413 {
			t.Errorf("%s: one byte too many in chunks = %d, want 413", id, got.status)
		}
		if got := s.send(t, sample.line, sample.body+space); got.status != 200 && got.status != 201 {
			t.Errorf("%s: a body at the limit = %d %s, want 200 or 201", id, got.status, got.body)
		}
	}
}

// TestMalformedBodies holds that what can't be understood is 400 everywhere, with the place.
func TestMalformedBodies(t *testing.T) {
	t.Parallel()
	s := start(t)
	s.registry(t)
	anywhere := []struct{ body, want string }{
		{"", "the body is empty; a JSON object is expected"},
		{" \n", "the body is empty; a JSON object is expected"},
		{"{", "the body is not JSON: unexpected end of JSON input at line 1, column 1"},
		{"pct=5", "the body is not JSON: invalid character 'p' looking for beginning of value at line 1, column 1"},
		{"{}\n{}", "the body is not JSON: invalid character '{' after top-level value at line 2, column 1"},
		{"{},", "the body is not JSON: invalid character ',' after top-level value at line 1, column 3"},
		{"[]", "the body must be an object, not an array"},
		{`"{}"`, "the body must be an object, not a string"},
		{"null", "the body must be an object, not null"},
		{"\xef\xbb\xbf{}", "the body is not JSON: invalid character 'ï' looking for beginning of value at line 1, column 1"},
		{`{"x":"` + "\xff" + `"}`, "the body is not UTF-8"},
		{`{"name":"a","name":"a"}`, "name is given twice"},
	}
	for _, id := range withBody {
		sample := samples[id]
		for _, tt := range anywhere {
			got := s.want(t, 400, sample.line, tt.body, "Content-Type: application/json")
			if detail := decode[problem](t, got).Detail; detail != tt.want {
				t.Errorf("%s with %q: detail %q, want %q", id, tt.body, detail, tt.want)
			}
		}
		got := s.want(t, 400, sample.line, `{"nonsense":1}`)
		if detail := decode[problem](t, got).Detail; !strings.HasPrefix(detail, "nonsense is not a known field; the fields are ") {
			t.Errorf("%s with an unknown field: detail %q, want it to name the field", id, detail)
		}
	}
	tests := []struct{ id, body, want string }{
		{"evaluateFlags", `{"tenantSlug":1}`, "tenantSlug must be a string, not a number"},
		{"evaluateFlags", `{"tenantSlug":"acme","environment":["production"]}`, "environment must be a string, not an array"},
		{"evaluateFlags", `{"tenantSlug":"acme","at":1767225600}`, "at must be a string, not a number"},
		{"explainFlags", `{"tenantSlug":"acme","when":"now"}`, "when is not a known field; the fields are at, environment, tenantSlug"},
		{"createFlag", `{"key":"a","pct":"25"}`, "pct must be a number, not a string"},
		{"createFlag", `{"key":"a","version":1}`, "version is not a known field; the fields are description, key, note, pct, scope, state"},
		{"createFlag", `{"key":1}`, "key must be a string, not a number"},
		{"updateFlag", `{"pct":"25"}`, "pct must be a number, not a string"},
		{"updateFlag", `{"pct":true}`, "pct must be a number, not a boolean"},
		{"updateFlag", `{"state":1}`, "state must be a string, not a number"},
		{"updateFlag", `{"key":"search"}`, "key is not a known field; the fields are description, note, pct, scope, state"},
		{"updateFlag", `{"scope":[]}`, "scope must be an object, not an array"},
		{"updateFlag", `{"scope":{"plans":"business"}}`, "scope.plans must be an array, not a string"},
		{"updateFlag", `{"scope":{"plans":["business",7]}}`, "scope.plans[1] must be a string, not a number"},
		{"updateFlag", `{"scope":{"countries":["no"]}}`, "scope.countries is not a known field; the fields are environments, partnerSlugs, plans, tenantSlugs"},
		{"updateFlag", `{"scope":{"plans":[],"plans":[]}}`, "scope.plans is given twice"},
		{"restoreFlag", `{"version":"1"}`, "version must be a number, not a string"},
		{"restoreFlag", `{"version":1,"note":{}}`, "note must be a string, not an object"},
		{"previewImpact", `{"note":"x"}`, "note is not a known field; the fields are environment, pct, scope, state"},
		{"previewImpact", `{"description":"x"}`, "description is not a known field; the fields are environment, pct, scope, state"},
		{"createTenant", `{"slug":"a","name":"A","plan":1}`, "plan must be a string, not a number"},
		{"createTenant", `{"slug":"a","name":"A","plan":"starter","provisioningStatus":{}}`, "provisioningStatus is not a known field; the fields are id, name, partnerSlug, plan, slug, status"},
		{"putTenant", `{"name":"A","plan":"starter","createdAt":"x"}`, "createdAt is not a known field; the fields are id, name, partnerSlug, plan, slug, status"},
		{"updateTenant", `{"partnerSlug":false}`, "partnerSlug must be a string, not a boolean"},
		{"createPartner", `{"slug":"a","name":"A","plan":"starter"}`, "plan is not a known field; the fields are name, slug"},
		{"updatePartner", `{"name":[]}`, "name must be a string, not an array"},
		// A mistake that can't be understood goes before values that are not allowed.
		{"updateFlag", `{"pct":101,"scope":{"plans":["gold",7]}}`, "scope.plans[1] must be a string, not a number"},
	}
	for _, tt := range tests {
		if got := decode[problem](t, s.want(t, 400, samples[tt.id].line, tt.body)); got.Detail != tt.want || got.Errors != nil {
			t.Errorf("%s with %s: detail %q and errors %v, want %q and none", tt.id, tt.body, got.Detail, got.Errors, tt.want)
		}
	}
}

// TestOrderOfRefusals holds which mistake is told when a request has several.
func TestOrderOfRefusals(t *testing.T) {
	t.Parallel()
	s := start(t)
	s.registry(t)
	tests := []struct {
		name, line, body string
		status           int
		headers          []string
	}{
		{"credentials before media type", "PATCH /flags/missing", "{", 401, []string{nobody, "Content-Type: text/plain"}},
		{"role before media type", "PATCH /flags/missing", "{", 403, []string{s.as("read"), "Content-Type: text/plain"}},
		{"media type before size", "PATCH /flags/missing", strings.Repeat(" ", largeBody+1), 415, []string{"Content-Type: text/plain"}},
		{"absent flag before bad value", "PATCH /flags/missing", `{"pct":101}`, 404, nil},
		{"absent flag before failed precondition", "PATCH /flags/missing", `{"pct":1}`, 404, []string{`If-Match: "1"`}},
		{"absent flag before bad draft", "POST /flags/missing/impact", `{"pct":101}`, 404, nil},
		{"absent flag before unknown environment", "POST /flags/missing/impact", `{"environment":"moon"}`, 404, nil},
		{"absent flag before bad version", "POST /flags/missing/restore", `{"version":0}`, 404, nil},
		{"absent flag before missing version", "POST /flags/missing/restore", `{}`, 404, nil},
		{"absent flag before bad limit", "GET /flags/missing/history?limit=0", "", 404, nil},
		{"absent tenant before bad value", "PATCH /tenants/missing", `{"plan":"gold"}`, 404, nil},
		{"absent partner before bad value", "PATCH /partners/missing", `{"name":""}`, 404, nil},
		{"absent tenant before unknown environment", "POST /flags/evaluate", `{"tenantSlug":"missing","environment":"moon"}`, 404, nil},
		{"bad value before taken key", "POST /flags", `{"key":"search","pct":101}`, 422, nil},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) { s.want(t, tt.status, tt.line, tt.body, tt.headers...) })
	}
}

// TestRefusedRequestsChangeNothing compares all that there is, beside what send looks at every time.
func TestRefusedRequestsChangeNothing(t *testing.T) {
	t.Parallel()
	s := start(t)
	s.registry(t)
	everything := func() string {
		var b bytes.Buffer
		for _, path := range []string{"/flags", "/tenants", "/partners", "/history?limit=200"} {
			b.WriteString(s.want(t, 200, "GET "+path, "").body)
		}
		return b.String()
	}
	before := everything()
	for _, id := range withBody {
		sample := samples[id]
		s.want(t, 401, sample.line, sample.body, nobody)
		s.want(t, 400, sample.line, sample.body[:len(sample.body)-1]+`,"nonsense":1}`)
		s.want(t, 413, sample.line, sample.body+strings.Repeat(" ", largeBody))
		s.want(t, 415, sample.line, sample.body, "Content-Type: text/plain")
	}
	s.want(t, 422, "PATCH /flags/search", `{"pct":1,"state":"on","description":"x","scope":{"plans":["business","gold"]}}`)
	s.want(t, 412, "PATCH /flags/search", `{"pct":1}`, `If-Match: "7"`)
	s.want(t, 412, "DELETE /flags/search", "", `If-Match: W/"1"`)
	s.want(t, 409, "POST /flags", `{"key":"search","state":"on"}`)
	s.want(t, 409, "DELETE /tenants/globex", "")
	s.want(t, 409, "DELETE /partners/nordhost", "")
	if after := everything(); after != before {
		t.Errorf("refused requests made\n%s\nof\n%s", after, before)
	}
}

// TestBrowserPaths is about /api: there a change from another origin is refused, whatever its token.
func TestBrowserPaths(t *testing.T) {
	t.Parallel()
	s := start(t)
	s.registry(t)
	evil := []string{"Origin: https://evil.example", "Sec-Fetch-Site: cross-site"}
	tests := []struct {
		name    string
		headers []string
		allowed bool
	}{
		{"no browser", nil, true},
		{"its own origin", []string{"Origin: " + s.url, "Sec-Fetch-Site: same-origin"}, true},
		{"its own origin, an old browser", []string{"Origin: " + s.url}, true},
		{"typed by a person", []string{"Sec-Fetch-Site: none"}, true},
		{"another origin", evil, false},
		{"another origin, an old browser", []string{"Origin: https://evil.example"}, false},
		{"another port of its host", []string{"Origin: http://127.0.0.1:1", "Sec-Fetch-Site: same-site"}, false},
		{"an origin that is not told", []string{"Origin: null"}, false},
	}
	for i, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			create := fmt.Sprintf(`{"key":"flag_%d"}`, i)
			if got := s.send(t, "POST /api/flags", create, tt.headers...); (got.status == 201) != tt.allowed || !tt.allowed && got.status != 403 {
				t.Errorf("POST /api/flags = %d %s, want allowed: %t", got.status, got.body, tt.allowed)
			}
			patch := fmt.Sprintf(`{"pct":%d}`, i+1)
			if got := s.send(t, "PATCH /api/flags/search", patch, tt.headers...); (got.status == 200) != tt.allowed {
				t.Errorf("PATCH /api/flags/search = %d, want allowed: %t", got.status, tt.allowed)
			}
			s.want(t, 200, "GET /api/flags", "", tt.headers...)
			s.want(t, 201, "POST /flags", fmt.Sprintf(`{"key":"root_%d"}`, i), tt.headers...)
			s.want(t, 200, "POST /flags/evaluate", `{"tenantSlug":"acme"}`, tt.headers...)
		})
	}
	got := decode[problem](t, s.want(t, 403, "DELETE /api/flags/search", "", evil...)).Detail
	if want := "a change from another origin is refused"; got != want {
		t.Errorf("detail %q, want %q", got, want)
	}
	if got := s.want(t, 201, "POST /api/flags", `{"key":"below_api"}`).header.Get("Location"); got != "/api/flags/below_api" {
		t.Errorf("Location %q, want /api/flags/below_api", got)
	}
	s.want(t, 200, "GET /api/flags/below_api", "", "X-API-Key: "+s.tokens["read"])
}

// TestEachRouteStandsTwice holds that what needs credentials is under /api too, but for the metrics, and
// nothing else.
func TestEachRouteStandsTwice(t *testing.T) {
	t.Parallel()
	s := start(t)
	s.registry(t)
	for id, sample := range samples {
		method, path, _ := strings.Cut(sample.line, " ")
		if method != http.MethodGet && id != "evaluateFlags" && id != "explainFlags" && id != "previewImpact" && id != "previewTenant" && !strings.HasPrefix(id, "evaluateOFREP") {
			continue
		}
		root, api := s.want(t, 200, sample.line, sample.body), s.send(t, method+" /api"+path, sample.body)
		switch id {
		case "getHealth", "getReady", "getOpenAPI", "getDocs", "getMetrics", "streamOFREPChanges":
			if api.status != 404 {
				t.Errorf("%s /api%s = %d, want 404", method, path, api.status)
			}
		default:
			if api.status != 200 || api.body != root.body || api.header.Get("ETag") != root.header.Get("ETag") {
				t.Errorf("%s /api%s = %d %s, want 200 %s", method, path, api.status, api.body, root.body)
			}
		}
	}
}

// TestNothingElseIsThere lists paths that a reader of other documentation might try.
func TestNothingElseIsThere(t *testing.T) {
	t.Parallel()
	s := start(t)
	s.registry(t)
	for _, line := range []string{
		"GET /ofrep/v1/configuration", "POST /ofrep/v1/evaluate", "POST /ofrep/v1/evaluate/flags/search/more",
		"GET /tenants/import", "GET /tokens", "POST /tokens", "GET /flags/evaluate", "GET /flags/explain",
		"PATCH /flags/evaluate", "DELETE /flags/explain", "POST /flags/evaluate/impact", "GET /flags/explain/history",
		"POST /flags/evaluate/restore", "GET /flags/search/scope", "GET /nothing", "GET /flags/", "GET /debug/pprof/", "GET /docs/", "GET /favicon.ico",
	} {
		for _, prefix := range []string{"", "/api"} {
			method, path, _ := strings.Cut(line, " ")
			body := ""
			if method != "GET" && method != "DELETE" {
				body = `{}`
			}
			got := s.send(t, method+" "+prefix+path, body)
			if got.status != 404 {
				t.Errorf("%s %s%s = %d %.100s, want 404", method, prefix, path, got.status, got.body)
			}
		}
	}
	s.want(t, 404, "GET /api", "")
	s.want(t, 404, "GET /api/", "")
	got := s.want(t, 200, "POST /flags/evaluate", `{"tenantSlug":"acme"}`, "Origin: https://evil.example")
	for name := range got.header {
		if strings.HasPrefix(name, "Access-Control-") {
			t.Errorf("an answer has the header %s", name)
		}
	}
}
