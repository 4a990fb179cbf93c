package handlers

import (
	"encoding/json"
	"fmt"
	"maps"
	"net/http"
	"reflect"
	"slices"
	"strings"
	"testing"

	"github.com/dezky/platform-api/db"
	"github.com/dezky/platform-api/db/dbtest"
	"github.com/dezky/platform-api/flags"
)

func question(tenant, environment string) string {
	return show(map[string]string{"tenantSlug": tenant, "environment": environment})
}

func TestEvaluate(t *testing.T) {
	t.Parallel()
	s := start(t)
	if got := s.want(t, 201, "POST /tenants", `{"slug":"alone","name":"Alone","plan":"starter"}`).status; got != 201 {
		t.Fatal(got)
	}
	if got := s.want(t, 200, "POST /flags/evaluate", `{"tenantSlug":"alone"}`).body; got != "{}\n" {
		t.Errorf("without flags: %q, want {}", got)
	}
	s.registry(t)
	// bucket(t1, search) and so on are fixed by their ids.
	for _, tt := range []struct{ tenant, environment, want string }{
		{"acme", "production", `{"calendar":true,"mail_rules":false,"search":false}`},
		{"globex", "production", `{"calendar":true,"mail_rules":false,"search":false}`},
		{"umbrella", "development", `{"calendar":true,"mail_rules":false,"search":false}`},
	} {
		a := s.want(t, 200, "POST /flags/evaluate", question(tt.tenant, tt.environment), s.as("evaluate"))
		if a.body != tt.want+"\n" {
			t.Errorf("%s in %s: %s, want %s", tt.tenant, tt.environment, a.body, tt.want)
		}
		for name, want := range map[string]string{"Content-Type": "application/json", "Cache-Control": "private, no-cache", "X-Content-Type-Options": "nosniff"} {
			if got := a.header.Get(name); got != want {
				t.Errorf("%s: %q, want %q", name, got, want)
			}
		}
	}
	s.want(t, 200, "PATCH /flags/mail_rules", `{"scope":{"tenantSlugs":["acme","globex"]}}`)
	s.want(t, 200, "PATCH /flags/search", `{"pct":100}`)
	if got, want := s.want(t, 200, "POST /flags/evaluate", question("acme", "staging")).body, `{"calendar":true,"mail_rules":true,"search":true}`+"\n"; got != want {
		t.Errorf("after two changes: %s, want %s", got, want)
	}
	// A suspended tenant is evaluated like any other.
	s.want(t, 200, "PATCH /tenants/acme", `{"status":"suspended"}`)
	if got, want := s.want(t, 200, "POST /flags/evaluate", question("acme", "staging")).body, `{"calendar":true,"mail_rules":true,"search":true}`+"\n"; got != want {
		t.Errorf("suspended: %s, want %s", got, want)
	}
}

func TestQuestionsRefused(t *testing.T) {
	t.Parallel()
	s := start(t)
	s.registry(t)
	tests := []struct {
		body, detail string
		status       int
		fields       []string
	}{
		{`{"tenantSlug":"missing"}`, `tenant "missing": not found`, 404, nil},
		{`{"tenantSlug":"Acme"}`, `tenant "Acme": not found`, 404, nil},
		{`{"tenantSlug":" acme"}`, `tenant " acme": not found`, 404, nil},
		{`{"tenantSlug":""}`, `tenant "": not found`, 404, nil},
		{`{}`, "", 422, []string{"tenantSlug"}},
		{`{"environment":"production"}`, "", 422, []string{"tenantSlug"}},
		{`{"tenantSlug":null,"environment":null}`, "", 422, []string{"tenantSlug", "environment"}},
		{`{"tenantSlug":"acme","environment":"moon"}`, "", 422, []string{"environment"}},
		{`{"tenantSlug":"acme","environment":"Production"}`, "", 422, []string{"environment"}},
		{`{"tenantSlug":"acme","environment":""}`, "", 422, []string{"environment"}},
	}
	for _, line := range []string{"POST /flags/evaluate", "POST /flags/explain"} {
		for _, tt := range tests {
			got := s.want(t, tt.status, line, tt.body)
			if bad := errorFields(t, got); !slices.Equal(bad, tt.fields) {
				t.Errorf("%s %s: bad fields %v, want %v", line, tt.body, bad, tt.fields)
			}
			if detail := decode[problem](t, got).Detail; tt.detail != "" && detail != tt.detail {
				t.Errorf("%s %s: detail %q, want %q", line, tt.body, detail, tt.detail)
			}
		}
	}
	got := decode[problem](t, s.want(t, 422, "POST /flags/evaluate", `{"tenantSlug":"acme","environment":"moon"}`)).Errors[0].Message
	if want := `must be a known environment (production, staging, development), not "moon"`; got != want {
		t.Errorf("message %q, want %q", got, want)
	}
}

// TestDemoEvaluation asks for every demo tenant in every environment: the keys are those of the flags,
// sorted, and explain has the same values.
func TestDemoEvaluation(t *testing.T) {
	t.Parallel()
	s := startDemo(t)
	var keys []string
	for _, f := range decode[[]flags.Flag](t, s.want(t, 200, "GET /flags", "")) {
		keys = append(keys, f.Key)
	}
	tenants := decode[[]tenantJSON](t, s.want(t, 200, "GET /tenants", ""))
	if len(tenants) < 41 || len(keys) <= 10 || !slices.IsSorted(keys) {
		t.Fatalf("%d tenants and the flags %v, want 41 and more than 10, sorted", len(tenants), keys)
	}
	reasons, trues := map[flags.Reason]int{}, 0
	for _, tenant := range tenants {
		for _, environment := range dbtest.Environments {
			body := question(tenant.Slug, environment)
			evaluated := s.want(t, 200, "POST /flags/evaluate", body).body
			var want strings.Builder // exactly this, and nothing else
			explained := decode[map[string]flags.Explanation](t, s.want(t, 200, "POST /flags/explain", body))
			for i, key := range keys {
				e, ok := explained[key]
				if !ok {
					t.Fatalf("%s in %s: %s is not explained", tenant.Slug, environment, key)
				}
				if i > 0 {
					want.WriteByte(',')
				}
				fmt.Fprintf(&want, `"%s":%t`, key, e.Value)
				reasons[e.Reason]++
				if e.Value {
					trues++
				}
			}
			if got := strings.TrimSuffix(evaluated, "\n"); got != "{"+want.String()+"}" || len(explained) != len(keys) {
				t.Errorf("%s in %s: evaluate %s, explain {%s}", tenant.Slug, environment, got, want.String())
			}
		}
	}
	if trues == 0 || len(reasons) < 4 {
		t.Errorf("%d values are true, for the reasons %v: the demo shows too little", trues, reasons)
	}
}

// tenantJSON is a tenant as the API shows it.
type tenantJSON struct {
	ID, Slug, Name, Plan, Status           string
	PartnerSlug                            *string
	ProvisioningStatus, ProvisioningErrors map[string]string
	CreatedAt, UpdatedAt                   string
}

// preview is the answer to an impact question.
type preview struct {
	Total, Matched, Gained, Lost, GainedAny int
	Gains, Losses                           []tenantBrief
	ByEnvironment                           map[string]impactCount
	ByPct                                   []int
}

// evaluateAll returns the value of one flag for all tenants, by environment and slug.
func (s *running) evaluateAll(t *testing.T, key string) map[string]map[string]bool {
	t.Helper()
	out := map[string]map[string]bool{}
	for _, environment := range dbtest.Environments {
		out[environment] = map[string]bool{}
		for _, tenant := range s.db.Current().Tenants() {
			a := s.do(t, s.request(t, "POST /flags/evaluate", question(tenant.Slug, environment)))
			var values map[string]bool
			if err := json.Unmarshal([]byte(a.body), &values); err != nil || a.status != 200 {
				t.Fatalf("%s in %s: %d %s", tenant.Slug, environment, a.status, a.body)
			}
			out[environment][tenant.Slug] = values[key]
		}
	}
	return out
}

// TestImpact asks what a draft would do, makes the change, and compares with what every tenant is then
// answered.
func TestImpact(t *testing.T) {
	t.Parallel()
	s := startDemo(t)
	s.want(t, 201, "POST /flags", `{"key":"probe"}`)
	tenants := map[string]tenantBrief{}
	for _, tenant := range decode[[]tenantJSON](t, s.want(t, 200, "GET /tenants", "")) {
		tenants[tenant.Slug] = tenantBrief{tenant.Slug, tenant.Name, tenant.Plan, tenant.PartnerSlug}
	}
	drafts := []string{ // each is looked at, then made
		`{"state":"rollout","pct":30}`,
		`{"pct":70}`,
		`{"scope":{"plans":["business","enterprise"],"environments":["production","staging"]}}`,
		`{"pct":20,"scope":{"plans":[],"environments":["staging"]}}`,
		`{"state":"targeted","scope":{"partnerSlugs":["nordhost"],"environments":null}}`,
		`{"scope":{"tenantSlugs":["dezky"],"partnerSlugs":[]}}`,
		`{"scope":{"tenantSlugs":[]}}`,
		`{"state":"on"}`,
		`{}`,
		`{"state":"off","pct":0}`,
		`{"state":"rollout","pct":100}`,
	}
	before := s.evaluateAll(t, "probe")
	for _, draft := range drafts {
		previews := map[string]preview{}
		for _, environment := range dbtest.Environments {
			body := strings.Replace(strings.Replace(draft, "{", `{"environment":"`+environment+`",`, 1), ",}", "}", 1)
			previews[environment] = decode[preview](t, s.want(t, 200, "POST /flags/probe/impact", body))
		}
		if byDefault := decode[preview](t, s.want(t, 200, "POST /flags/probe/impact", draft, s.as("read"))); !reflect.DeepEqual(byDefault, previews["production"]) {
			t.Errorf("%s: without an environment %s, want production's %s", draft, show(byDefault), show(previews["production"]))
		}
		s.want(t, 200, "PATCH /flags/probe", draft)
		after := s.evaluateAll(t, "probe")

		gainers := map[string]bool{}
		byEnvironment := map[string]impactCount{}
		for _, environment := range dbtest.Environments {
			want := preview{Total: len(tenants), Gains: []tenantBrief{}, Losses: []tenantBrief{}}
			for _, slug := range slices.Sorted(maps.Keys(tenants)) {
				was, is := before[environment][slug], after[environment][slug]
				if is {
					want.Matched++
				}
				if is && !was {
					want.Gains = append(want.Gains, tenants[slug])
					gainers[slug] = true
				}
				if was && !is {
					want.Losses = append(want.Losses, tenants[slug])
				}
			}
			want.Gained, want.Lost = len(want.Gains), len(want.Losses)
			byEnvironment[environment] = impactCount{want.Gained, want.Lost}
			got := previews[environment]
			got.GainedAny, got.ByEnvironment, got.ByPct = 0, nil, nil // below
			if !reflect.DeepEqual(got, want) {
				t.Errorf("%s in %s: %s, want %s", draft, environment, show(got), show(want))
			}
		}
		for environment, got := range previews {
			if !reflect.DeepEqual(got.ByEnvironment, byEnvironment) || got.GainedAny != len(gainers) {
				t.Errorf("%s in %s: byEnvironment %v and gainedAny %d, want %v and %d", draft, environment, got.ByEnvironment, got.GainedAny, byEnvironment, len(gainers))
			}
		}
		before = after
	}

	// byPct says what the draft's scope gives at each percent, whatever its state.
	s.want(t, 200, "PATCH /flags/probe", `{"state":"rollout","scope":{"plans":["starter","business"],"environments":["production","staging"]}}`)
	byPct := map[string][]int{}
	for _, environment := range dbtest.Environments {
		for _, state := range []string{"off", "on", "targeted", "rollout"} {
			got := decode[preview](t, s.want(t, 200, "POST /flags/probe/impact", `{"state":"`+state+`","environment":"`+environment+`"}`)).ByPct
			if byPct[environment] != nil && !slices.Equal(got, byPct[environment]) {
				t.Errorf("byPct in %s, state %s: %v, want %v as for any other", environment, state, got, byPct[environment])
			}
			byPct[environment] = got
		}
	}
	for _, pct := range []int{0, 1, 17, 50, 99, 100} {
		s.want(t, 200, "PATCH /flags/probe", fmt.Sprintf(`{"pct":%d}`, pct))
		for environment, values := range s.evaluateAll(t, "probe") {
			want := 0
			for _, value := range values {
				if value {
					want++
				}
			}
			if got := byPct[environment][pct]; got != want {
				t.Errorf("byPct[%d] in %s = %d, want %d", pct, environment, got, want)
			}
		}
	}
}

// TestImpactLists holds that counts are exact where the lists are cut, and that all=1 has all.
func TestImpactLists(t *testing.T) {
	t.Parallel()
	s := start(t)
	var crowd flags.Document
	for i := range 130 {
		slug, name, plan := fmt.Sprintf("tenant-%03d", i), "Tenant", flags.Plans[i%2]
		crowd.Tenants = append(crowd.Tenants, flags.TenantPatch{Slug: &slug, Name: &name, Plan: &plan})
	}
	if err := s.db.Plant(t.Context(), db.By{Actor: "system:seed"}, crowd); err != nil {
		t.Fatal(err)
	}
	s.want(t, 201, "POST /flags", `{"key":"wide","state":"on"}`)
	s.want(t, 201, "POST /flags", `{"key":"narrow"}`)
	tests := []struct {
		line, body           string
		gained, gains        int
		lost, losses         int
		firstGain, firstLoss string
	}{
		{"POST /flags/narrow/impact", `{"state":"on"}`, 130, 100, 0, 0, "tenant-000", ""},
		{"POST /flags/narrow/impact?all=1", `{"state":"on"}`, 130, 130, 0, 0, "tenant-000", ""},
		{"POST /flags/narrow/impact", `{"state":"targeted","scope":{"plans":["business"]}}`, 65, 65, 0, 0, "tenant-001", ""},
		{"POST /flags/wide/impact", `{"state":"off"}`, 0, 0, 130, 100, "", "tenant-000"},
		{"POST /flags/wide/impact?all=1", `{"state":"off"}`, 0, 0, 130, 130, "", "tenant-000"},
		{"POST /flags/wide/impact", `{}`, 0, 0, 0, 0, "", ""},
	}
	for _, tt := range tests {
		got := decode[preview](t, s.want(t, 200, tt.line, tt.body))
		if got.Gained != tt.gained || len(got.Gains) != tt.gains || got.Lost != tt.lost || len(got.Losses) != tt.losses {
			t.Errorf("%s %s: gained %d (%d listed), lost %d (%d listed), want %d (%d), %d (%d)", tt.line, tt.body,
				got.Gained, len(got.Gains), got.Lost, len(got.Losses), tt.gained, tt.gains, tt.lost, tt.losses)
		}
		for _, l := range []struct {
			list  []tenantBrief
			first string
		}{{got.Gains, tt.firstGain}, {got.Losses, tt.firstLoss}} {
			bySlug := func(a, b tenantBrief) int { return strings.Compare(a.Slug, b.Slug) }
			if !slices.IsSortedFunc(l.list, bySlug) || len(l.list) > 0 && l.list[0].Slug != l.first {
				t.Errorf("%s %s: a list begins with %v, want it by slug, from %s", tt.line, tt.body, l.list[0], l.first)
			}
		}
	}
}

func TestImpactRefused(t *testing.T) {
	t.Parallel()
	s := start(t)
	s.registry(t)
	for body, want := range map[string][]string{
		`{"pct":101}`:         {"pct"},
		`{"state":"asleep"}`:  {"state"},
		`{"scope":null}`:      {"scope"},
		`{"environment":""}`:  {"environment"},
		`{"environment":"x"}`: {"environment"},
		`{"environment":"moon","pct":-1,"scope":{"plans":["gold",""],"tenantSlugs":["nobody"]}}`: {
			"environment", "pct", "scope.plans[0]", "scope.plans[1]", "scope.tenantSlugs[0]"},
	} {
		if got := errorFields(t, s.want(t, http.StatusUnprocessableEntity, "POST /flags/search/impact", body)); !slices.Equal(got, want) {
			t.Errorf("%s: bad fields %v, want %v", body, got, want)
		}
	}
}
