package handlers

import (
	"maps"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/getkin/kin-openapi/openapi3"

	"github.com/dezky/platform-api/auth"
	"github.com/dezky/platform-api/auth/authtest"
	"github.com/dezky/platform-api/db"
	"github.com/dezky/platform-api/flags"
)

// samples are one request for each operation that the registry of (*running).registry accepts.
var samples = map[string]struct{ line, body string }{
	"streamEvents":       {"GET /events", ""},
	"streamOFREPChanges": {"GET /ofrep/v1/stream?credential=" + streamCredential(&auth.Principal{}, "acme"), ""},
	"getMe":              {"GET /me", ""},
	"evaluateFlags":      {"POST /flags/evaluate", `{"tenantSlug":"acme"}`},
	"explainFlags":       {"POST /flags/explain", `{"tenantSlug":"acme"}`},

	"evaluateOFREPFlags": {"POST /ofrep/v1/evaluate/flags", `{"context":{"targetingKey":"acme"}}`},
	"evaluateOFREPFlag":  {"POST /ofrep/v1/evaluate/flags/search", `{"context":{"targetingKey":"acme"}}`},

	"listFlags":       {"GET /flags", ""},
	"createFlag":      {"POST /flags", `{"key":"dark_mode"}`},
	"getFlag":         {"GET /flags/search", ""},
	"updateFlag":      {"PATCH /flags/search", `{"pct":60}`},
	"deleteFlag":      {"DELETE /flags/search", ""},
	"restoreFlag":     {"POST /flags/search/restore", `{"version":1}`},
	"previewImpact":   {"POST /flags/search/impact", `{"pct":60}`},
	"listFlagHistory": {"GET /flags/search/history", ""},
	"listHistory":     {"GET /history", ""},
	"compareMoments":  {"GET /history/difference?from=now&format=csv", ""},
	"listTenants":     {"GET /tenants", ""},
	"createTenant":    {"POST /tenants", `{"slug":"hooli","name":"Hooli","plan":"starter"}`},
	"getTenant":       {"GET /tenants/umbrella", ""},
	"putTenant":       {"PUT /tenants/umbrella", `{"name":"Umbrella","plan":"business"}`},
	"updateTenant":    {"PATCH /tenants/umbrella", `{"plan":"starter"}`},
	"deleteTenant":    {"DELETE /tenants/umbrella", ""},
	"previewTenant":   {"POST /tenants/umbrella/impact", `{"plan":"starter"}`},
	"importTenants":   {"POST /tenants/import", `{"slug":"hooli","name":"Hooli","plan":"starter"}`},
	"reconcileTenant": {"POST /tenants/umbrella/reconcile", ""},
	"listPartners":    {"GET /partners", ""},
	"createPartner":   {"POST /partners", `{"slug":"mailbyen","name":"Mailbyen"}`},
	"getPartner":      {"GET /partners/fjordit", ""},
	"updatePartner":   {"PATCH /partners/fjordit", `{"name":"Fjord"}`},
	"deletePartner":   {"DELETE /partners/fjordit", ""},
	"restoreFlags":    {"POST /restore", `{"at":"2026-01-31T14:02:00Z"}`},
	"getFreeze":       {"GET /freeze", ""},
	"freezeChanges":   {"PUT /freeze", `{"reason":"launch","until":"2026-01-31T14:05:00Z"}`},
	"endFreeze":       {"DELETE /freeze", ""},
	"getHealth":       {"GET /health", ""},
	"getReady":        {"GET /ready", ""},
	"getOpenAPI":      {"GET /openapi.yaml", ""},
	"getDocs":         {"GET /docs", ""},
	"getMetrics":      {"GET /metrics", ""},
}

// The headers of what an import takes.
const (
	ndjson   = "Content-Type: application/x-ndjson"
	csvTable = "Content-Type: text/csv"
)

// eachOperation visits the operations of the document in order.
func eachOperation(visit func(path, method string, op *openapi3.Operation)) {
	for _, path := range slices.Sorted(maps.Keys(openapi().Paths.Map())) {
		operations := openapi().Paths.Value(path).Operations()
		for _, method := range slices.Sorted(maps.Keys(operations)) {
			visit(path, method, operations[method])
		}
	}
}

// TestDocumentIsValid holds the document against OpenAPI 3.1, and its examples against its schemas.
func TestDocumentIsValid(t *testing.T) {
	t.Parallel()
	doc, err := openapi3.NewLoader().LoadFromData(readSpec())
	if err != nil {
		t.Fatal(err)
	}
	if doc.OpenAPI != "3.1.0" {
		t.Errorf("openapi is %s, want 3.1.0", doc.OpenAPI)
	}
	if err := doc.Validate(t.Context()); err != nil {
		t.Error(err)
	}
}

// TestDocumentHasTheRoutes holds that document and routes are the same, with role, security and bodies.
func TestDocumentHasTheRoutes(t *testing.T) {
	t.Parallel()
	routed := map[string]route{}
	a := &app{}
	for _, rt := range a.apiRoutes() {
		routed[rt.method+" "+rt.path] = rt
	}
	for _, rt := range a.plainRoutes() {
		routed[rt.method+" "+rt.path] = rt
	}
	for _, rt := range a.openRoutes() {
		if rt.path != "/{$}" {
			routed[rt.method+" "+rt.path] = rt
		}
	}
	documented := map[string]bool{}
	eachOperation(func(path, method string, op *openapi3.Operation) {
		name := method + " " + path
		documented[name] = true
		rt, ok := routed[name]
		if !ok {
			t.Errorf("the document has %s, the routes have not", name)
			return
		}
		role := rt.need.String()
		if rt.need == auth.Nobody {
			role = "none"
		}
		if got := op.Extensions["x-role"]; got != role {
			t.Errorf("%s: x-role is %v, want %s", name, got, role)
		}
		if got := op.Extensions["x-members"] == true; rt.need != auth.Nobody && got != rt.members {
			t.Errorf("%s: x-members is %t, want %t", name, got, rt.members)
		}
		if open := op.Security != nil && len(*op.Security) == 0; open != (rt.need == auth.Nobody) {
			t.Errorf("%s: open is %t, want %t", name, open, !open)
		}
		for _, status := range []int{401, 403, 429} {
			// A stream's URL has its credential, which gives no role.
			if got, want := op.Responses.Status(status) != nil, rt.need != auth.Nobody || rt.path == "/ofrep/v1/stream" && status != 403; got != want {
				t.Errorf("%s: has %d: %t, want %t", name, status, got, want)
			}
		}
		var media []string
		if op.RequestBody != nil {
			media = slices.Sorted(maps.Keys(op.RequestBody.Value.Content))
		}
		var want []string
		switch {
		case rt.body == rowsBody:
			want = []string{"application/x-ndjson", "text/csv"}
		case rt.body != noBody && rt.method == "PATCH":
			want = []string{"application/json", "application/merge-patch+json"}
		case rt.body != noBody:
			want = []string{"application/json"}
		}
		if !slices.Equal(media, want) {
			t.Errorf("%s: takes %v, want %v", name, media, want)
		}
		for _, status := range []int{413, 415} {
			if got, want := op.Responses.Status(status) != nil, rt.body != noBody; got != want {
				t.Errorf("%s: has %d: %t, want %t", name, status, got, want)
			}
		}
	})
	for name := range routed {
		if !documented[name] {
			t.Errorf("%s is a route that the document does not have", name)
		}
	}
}

// TestDocumentShowsProblems holds that each example of a problem could be the server's.
func TestDocumentShowsProblems(t *testing.T) {
	t.Parallel()
	for name, response := range openapi().Components.Responses {
		if strings.HasPrefix(name, "OFREP") {
			continue // in the protocol's own words
		}
		example, _ := response.Value.Content["application/problem+json"].Example.(map[string]any)
		status, _ := strconv.Atoi(show(example["status"]))
		if got, want := example["title"], http.StatusText(status); got != want {
			t.Errorf("%s: the title of the example is %v, want %q", name, got, want)
		}
	}
	example := openapi().Components.Responses["Unauthorized"].Value.Content["application/problem+json"].Example.(map[string]any)
	got := start(t).want(t, http.StatusUnauthorized, "GET /flags", "", nobody)
	if detail := decode[problem](t, got).Detail; example["detail"] != detail {
		t.Errorf("Unauthorized: the detail of the example is %v, want %q", example["detail"], detail)
	}
}

// TestContract drives every operation to every status that the document gives it.
func TestContract(t *testing.T) {
	t.Parallel()
	s := start(t)
	s.registry(t)
	for _, role := range db.TokenRoles {
		s.token(t, db.NewToken{Name: "staging-" + role, Role: role, Environment: "staging"})
	}
	starting := listen(t, readSpec())
	starting.tokens = s.tokens
	starting.want(t, http.StatusOK, "GET /health", "")

	broken := start(t)
	broken.db.Close()
	flooded := start(t)
	bad := "Authorization: Bearer nothing"
	for range 60 {
		flooded.want(t, http.StatusUnauthorized, "GET /flags", "", bad)
	}
	misprinted := listen(t, []byte("openapi: ["))
	if err := misprinted.Start(appliance(t, s.db, time.Now, discard, misprinted.url)); err != nil {
		t.Fatal(err)
	}

	frozen := start(t)
	frozen.registry(t)
	frozen.want(t, 200, "PATCH /flags/search", `{"pct":61}`)
	frozen.want(t, 200, "PATCH /tenants/initech", `{"partnerSlug":null}`)
	if _, err := frozen.db.Freeze(t.Context(), db.By{Actor: "ops@dezky.example"}, flags.NewFreeze{Reason: "launch", Until: time.Now().Add(time.Hour)}); err != nil {
		t.Fatal(err)
	}

	provider := authtest.New(t, authtest.Options{})
	stranger := trusting(t, provider)
	nobodyIn := provider.AccessToken(authtest.ConsoleID, authtest.StrangerSub)

	const stream = "GET /ofrep/v1/stream?credential="
	s.want(t, 401, stream+"nothing", "", nobody)
	flooded.want(t, 429, stream+"nothing", "", nobody)
	broken.want(t, 500, stream+streamCredential(&auth.Principal{TokenID: "unseen"}, "acme"), "", nobody)
	starting.want(t, 503, samples["streamOFREPChanges"].line, "", nobody)
	s.want(t, 200, samples["streamOFREPChanges"].line, "", nobody)

	// What each operation answers to the same mistake.
	eachOperation(func(path, method string, op *openapi3.Operation) {
		sample, ok := samples[op.OperationID]
		if !ok {
			t.Fatalf("no sample of %s %s (%s)", method, path, op.OperationID)
		}
		if op.OperationID == "streamOFREPChanges" {
			return // its credential is another kind; see below
		}
		body := op.RequestBody != nil
		media := "Content-Type: application/json"
		if op.OperationID == "importTenants" {
			media = ndjson
		}
		for status := range op.Responses.Map() {
			switch {
			case status == "400" && body:
				s.want(t, 400, sample.line, "{", media)
			case status == "401":
				s.want(t, 401, sample.line, sample.body, nobody)
			case status == "403" && (op.OperationID == "streamEvents" || op.OperationID == "getMe"):
				stranger.want(t, 403, sample.line, sample.body, bearer(nobodyIn))
			case status == "403" && op.Extensions["x-role"] == "operator":
				s.want(t, 403, sample.line, sample.body, s.as("read"))
			case status == "403" && op.Extensions["x-role"] == "read":
				s.want(t, 403, sample.line, sample.body, s.as("evaluate"))
			case status == "404" && strings.Contains(path, "{"):
				s.want(t, 404, strings.NewReplacer("search", "missing", "umbrella", "missing", "fjordit", "missing").Replace(sample.line), sample.body)
			case status == "413" && op.OperationID == "importTenants":
				s.want(t, 413, sample.line, strings.Repeat("{}\n", 100_001), media)
			case status == "413":
				s.want(t, 413, sample.line, sample.body+strings.Repeat(" ", largeBody))
			case status == "415":
				s.want(t, 415, sample.line, sample.body, "Content-Type: text/plain")
			case status == "423" && op.OperationID == "restoreFlags":
				log := decode[[]flags.Entry](t, frozen.want(t, 200, "GET /history", ""))
				frozen.want(t, 423, sample.line, `{"keys":["search"],"at":"`+log[len(log)-1].At.Format(time.RFC3339Nano)+`"}`)
			case status == "423":
				frozen.want(t, 423, sample.line, sample.body, media)
			case status == "429":
				flooded.want(t, 429, sample.line, sample.body, bad)
			case status == "500" && op.OperationID == "getDocs":
				misprinted.want(t, 500, sample.line, sample.body)
			case status == "500":
				broken.want(t, 500, sample.line, sample.body) // the token can't be looked up
			case status == "503":
				starting.want(t, 503, sample.line, sample.body)
			}
		}
	})

	// What is particular to one.
	for _, x := range []struct {
		status  int
		line    string
		body    string
		headers []string
	}{
		{403, "POST /flags/evaluate", `{"tenantSlug":"acme","environment":"production"}`, []string{s.as("staging-evaluate")}},
		{403, "POST /ofrep/v1/evaluate/flags", `{"context":{"targetingKey":"acme","environment":"production"}}`, []string{s.as("staging-evaluate")}},
		{403, "POST /ofrep/v1/evaluate/flags/search", `{"context":{"targetingKey":"acme","environment":"production"}}`, []string{s.as("staging-evaluate")}},
		{304, "POST /ofrep/v1/evaluate/flags", `{"context":{"targetingKey":"acme"}}`, []string{"If-None-Match: *"}},
		{400, "POST /ofrep/v1/evaluate/flags", `{"context":{}}`, nil},
		{200, "POST /ofrep/v1/evaluate/flags", `{"context":{"targetingKey":"acme"}}`, nil},
		{200, "POST /ofrep/v1/evaluate/flags/search", `{"context":{"targetingKey":"acme"}}`, nil},
		{404, "POST /flags/evaluate", `{"tenantSlug":"missing"}`, nil},
		{404, "POST /flags/explain", `{"tenantSlug":"missing"}`, nil},
		{422, "POST /flags/evaluate", `{"tenantSlug":"acme","environment":"moon"}`, nil},
		{422, "POST /flags/explain", `{"tenantSlug":"acme","environment":"moon"}`, nil},
		{422, "POST /flags/explain", `{"tenantSlug":"acme","at":"soon"}`, nil},
		{304, "POST /flags/evaluate", `{"tenantSlug":"acme"}`, []string{"If-None-Match: *"}},
		{304, "GET /flags/search", "", []string{`If-None-Match: "1"`}},
		{400, "GET /flags/search", "", []string{"If-None-Match: 1"}},
		{400, "DELETE /flags/search", "", []string{"If-Match: 1"}},
		{412, "DELETE /flags/search", "", []string{`If-Match: "9"`}},
		{412, "PATCH /flags/search", `{"pct":1}`, []string{`If-Match: "9"`}},
		{412, "POST /flags/search/restore", `{"version":1}`, []string{`If-Match: "9"`}},
		{422, "GET /flags?state=asleep", "", nil},
		{422, "POST /flags", `{"key":"Search"}`, nil},
		{409, "POST /flags", `{"key":"search"}`, nil},
		{422, "PATCH /flags/search", `{"pct":101}`, nil},
		{422, "POST /flags/search/restore", `{}`, nil},
		{422, "POST /flags/search/impact", `{"pct":101}`, nil},
		{422, "GET /flags/search/history?limit=0", "", nil},
		{422, "GET /history?before=x", "", nil},
		{422, "GET /history/difference?from=2026-01-31", "", nil},
		{200, "GET /history/difference?from=now", "", nil},
		{200, "GET /history/difference?from=now&format=csv", "", nil},
		{422, "POST /restore", `{"at":"soon","keys":[]}`, nil},
		{200, "POST /restore", `{"at":"` + time.Now().UTC().Format(time.RFC3339Nano) + `"}`, nil},
		{422, "PUT /freeze", `{"reason":"launch","until":"yesterday"}`, nil},
		{200, "GET /freeze", "", nil},
		{200, "PUT /freeze", `{"reason":"launch","until":"` + time.Now().Add(time.Hour).UTC().Format(time.RFC3339) + `"}`, nil},
		{200, "GET /freeze", "", nil},
		{200, "GET /history", "", nil},
		{204, "DELETE /freeze", "", nil},
		{200, "GET /history", "", nil},
		{200, "GET /history?format=ndjson", "", nil},
		{422, "GET /me?limit=0", "", nil},
		{422, "GET /tenants?plan=gold", "", nil},
		{422, "POST /tenants", `{}`, nil},
		{409, "POST /tenants", `{"slug":"acme","name":"Acme","plan":"starter"}`, nil},
		{422, "PUT /tenants/acme", `{}`, nil},
		{409, "PUT /tenants/hooli", `{"id":"t1","name":"Hooli","plan":"starter"}`, nil},
		{422, "PATCH /tenants/acme", `{"plan":"gold"}`, nil},
		{422, "POST /tenants/acme/impact", `{"plan":"gold"}`, nil},
		{422, "POST /tenants/import", `{}`, []string{ndjson}},
		{409, "DELETE /tenants/globex", "", nil},
		{422, "GET /partners?limit=1001", "", nil},
		{422, "POST /partners", `{}`, nil},
		{409, "POST /partners", `{"slug":"fjordit","name":"Fjord IT"}`, nil},
		{422, "PATCH /partners/fjordit", `{"name":""}`, nil},
		{409, "DELETE /partners/fjordit", "", nil},

		{200, "POST /flags/evaluate", `{"tenantSlug":"acme"}`, nil},
		{200, "POST /flags/explain", `{"tenantSlug":"acme"}`, nil},
		{200, "GET /events", "", nil},
		{200, "GET /me", "", nil},
		{200, "GET /flags", "", nil},
		{201, "POST /flags", `{"key":"dark_mode"}`, nil},
		{200, "GET /flags/search", "", nil},
		{200, "PATCH /flags/search", `{"pct":60}`, nil},
		{200, "POST /flags/search/restore", `{"version":1}`, nil},
		{200, "POST /flags/search/impact", `{"pct":60}`, nil},
		{200, "GET /flags/search/history", "", nil},
		{204, "DELETE /flags/search", "", nil},
		{200, "GET /tenants", "", nil},
		{201, "POST /tenants", `{"slug":"hooli","name":"Hooli","plan":"starter"}`, nil},
		{200, "GET /tenants/hooli", "", nil},
		{201, "PUT /tenants/pied-piper", `{"name":"Pied Piper","plan":"business"}`, nil},
		{200, "PUT /tenants/pied-piper", `{"name":"Pied Piper","plan":"starter"}`, nil},
		{200, "PATCH /tenants/hooli", `{"plan":"business"}`, nil},
		{200, "POST /tenants/hooli/impact", `{"plan":"enterprise"}`, nil},
		{200, "POST /tenants/import", `{"slug":"hooli","name":"Hooli","plan":"enterprise"}`, []string{ndjson}},
		{200, "POST /tenants/hooli/reconcile", "", nil},
		{204, "DELETE /tenants/hooli", "", nil},
		{200, "GET /partners", "", nil},
		{201, "POST /partners", `{"slug":"mailbyen","name":"Mailbyen"}`, nil},
		{200, "GET /partners/mailbyen", "", nil},
		{200, "PATCH /partners/mailbyen", `{"name":"Mail"}`, nil},
		{204, "DELETE /partners/mailbyen", "", nil},
		{200, "GET /history", "", nil},
		{200, "GET /history/difference?from=now", "", nil},
		{200, "GET /health", "", []string{nobody}},
		{200, "GET /ready", "", []string{nobody}},
		{200, "GET /openapi.yaml", "", []string{nobody}},
		{200, "GET /docs", "", []string{nobody}},
		{200, "GET /metrics", "", nil},
	} {
		s.want(t, x.status, x.line, x.body, x.headers...)
	}

	member := bearer(provider.AccessToken(authtest.PortalID, authtest.AcmeSub))
	stranger.want(t, 404, "POST /ofrep/v1/evaluate/flags", `{"context":{"targetingKey":"globex"}}`, member)

	covered := map[string]bool{}
	for _, s := range []*running{s, starting, broken, flooded, frozen, misprinted, stranger} {
		maps.Copy(covered, s.covered)
	}
	eachOperation(func(path, method string, op *openapi3.Operation) {
		for _, status := range slices.Sorted(maps.Keys(op.Responses.Map())) {
			if !covered[op.OperationID+" "+status] {
				t.Errorf("%s %s (%s) was never answered with %s", method, path, op.OperationID, status)
			}
		}
	})
}
