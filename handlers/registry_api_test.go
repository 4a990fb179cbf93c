package handlers

import (
	"encoding/json"
	"fmt"
	"reflect"
	"slices"
	"strings"
	"testing"

	"github.com/dezky/platform-api/db"
	"github.com/dezky/platform-api/flags"
)

// without decodes an object and takes some members out of it.
func without(t *testing.T, a *answer, names ...string) string {
	t.Helper()
	out := map[string]any{}
	if err := json.Unmarshal([]byte(a.body), &out); err != nil {
		t.Fatalf("%v in %s", err, a.body)
	}
	for _, name := range names {
		delete(out, name)
	}
	return show(out)
}

func TestTenants(t *testing.T) {
	t.Parallel()
	s := start(t)
	s.registry(t)
	const times = "createdAt updatedAt"
	tenant := func(id, slug, name, plan, partner, status string) string {
		var p any
		if partner != "" {
			p = partner
		}
		return show(map[string]any{"id": id, "slug": slug, "name": name, "plan": plan, "partnerSlug": p, "status": status,
			"provisioningStatus": map[string]string{}, "provisioningErrors": map[string]string{}})
	}
	tests := []struct {
		line, body string
		status     int
		want       string // the tenant without its times, or the bad fields
		location   string
	}{
		{"GET /tenants/acme", "", 200, tenant("t1", "acme", "Acme", "business", "nordhost", "active"), ""},
		{"GET /tenants/missing", "", 404, "", ""},
		{"GET /tenants/ACME", "", 404, "", ""},

		{"POST /tenants", `{"id":"h-1_X","slug":"hooli","name":"  Hooli ","plan":"starter","partnerSlug":"nordhost","status":"suspended"}`, 201, tenant("h-1_X", "hooli", "Hooli", "starter", "nordhost", "suspended"), "/tenants/hooli"},
		{"POST /api/tenants", `{"id":"p","slug":"0","name":"Ærø","plan":"enterprise","partnerSlug":null}`, 201, tenant("p", "0", "Ærø", "enterprise", "", "active"), "/api/tenants/0"},
		{"POST /tenants", `{"id":"q","slug":"q","name":"Q","plan":"enterprise","partnerSlug":""}`, 201, tenant("q", "q", "Q", "enterprise", "", "active"), "/tenants/q"},
		{"POST /tenants", `{"slug":"acme","name":"Acme","plan":"starter"}`, 409, "", ""},
		{"POST /tenants", `{"id":"t1","slug":"acme2","name":"Acme","plan":"starter"}`, 409, "", ""},
		{"POST /tenants", `{}`, 422, "slug name plan", ""},
		{"POST /tenants", `{"slug":null,"name":null,"plan":null,"id":null,"status":null}`, 422, "slug name plan id status", ""},
		{"POST /tenants", `{"slug":"import","name":"Import","plan":"starter"}`, 422, "slug", ""},
		{"POST /tenants", `{"slug":"-a","name":"A","plan":"starter"}`, 422, "slug", ""},
		{"POST /tenants", `{"slug":"A","name":"","plan":"gold","id":"a b","partnerSlug":"missing","status":"asleep"}`, 422, "id slug name plan partnerSlug status", ""},
		{"POST /tenants", `{"slug":"` + strings.Repeat("a", 64) + `","name":"` + strings.Repeat("å", 201) + `","plan":"starter","id":"` + strings.Repeat("x", 65) + `"}`, 422, "id slug name", ""},
		{"POST /tenants", `{"slug":"` + strings.Repeat("a", 63) + `","name":"` + strings.Repeat("å", 200) + `","plan":"starter","id":"` + strings.Repeat("x", 64) + `"}`, 201,
			tenant(strings.Repeat("x", 64), strings.Repeat("a", 63), strings.Repeat("å", 200), "starter", "", "active"), "/tenants/" + strings.Repeat("a", 63)},

		{"PUT /tenants/acme", `{"name":"Acme AS","plan":"starter"}`, 200, tenant("t1", "acme", "Acme AS", "starter", "", "active"), ""},
		{"PUT /tenants/acme", `{"id":"t1","slug":"acme","name":"Acme AS","plan":"starter","partnerSlug":"fjordit","status":"suspended"}`, 200, tenant("t1", "acme", "Acme AS", "starter", "fjordit", "suspended"), ""},
		{"PUT /tenants/acme", `{"name":"Acme","plan":"business","partnerSlug":"nordhost"}`, 200, tenant("t1", "acme", "Acme", "business", "nordhost", "active"), ""},
		{"PUT /tenants/acme", `{"plan":"business"}`, 422, "name", ""},
		{"PUT /tenants/acme", `{"id":"t9","slug":"acmes","name":"A","plan":"gold"}`, 422, "id slug plan", ""},
		{"PUT /tenants/new", `{"id":"n1","name":"New","plan":"starter"}`, 201, tenant("n1", "new", "New", "starter", "", "active"), "/tenants/new"},
		{"PUT /api/tenants/new-2", `{"id":"n2","slug":"new-2","name":"New","plan":"starter"}`, 201, tenant("n2", "new-2", "New", "starter", "", "active"), "/api/tenants/new-2"},
		{"PUT /tenants/new-3", `{"slug":"new-4","name":"New","plan":"starter"}`, 422, "slug", ""},
		{"PUT /tenants/new-3", `{"id":"t1","name":"New","plan":"starter"}`, 409, "", ""},
		{"PUT /tenants/New", `{"name":"New","plan":"starter"}`, 422, "slug", ""},
		{"PUT /tenants/import", `{"name":"New","plan":"starter"}`, 422, "slug", ""},

		{"PATCH /tenants/globex", `{"name":"Globex Corp"}`, 200, tenant("t2", "globex", "Globex Corp", "starter", "", "active"), ""},
		{"PATCH /tenants/globex", `{"partnerSlug":"fjordit","status":"suspended","plan":"enterprise"}`, 200, tenant("t2", "globex", "Globex Corp", "enterprise", "fjordit", "suspended"), ""},
		{"PATCH /tenants/globex", `{"partnerSlug":null,"id":"t2","slug":"globex"}`, 200, tenant("t2", "globex", "Globex Corp", "enterprise", "", "suspended"), ""},
		{"PATCH /tenants/globex", `{"partnerSlug":""}`, 200, tenant("t2", "globex", "Globex Corp", "enterprise", "", "suspended"), ""},
		{"PATCH /tenants/globex", `{}`, 200, tenant("t2", "globex", "Globex Corp", "enterprise", "", "suspended"), ""},
		{"PATCH /tenants/globex", `{"id":"t1"}`, 422, "id", ""},
		{"PATCH /tenants/globex", `{"slug":"globex2"}`, 422, "slug", ""},
		{"PATCH /tenants/globex", `{"name":null,"plan":null,"status":"","partnerSlug":"missing"}`, 422, "name plan partnerSlug status", ""},
		{"PATCH /tenants/missing", `{}`, 404, "", ""},

		{"DELETE /tenants/umbrella", "", 204, "", ""},
		{"DELETE /tenants/umbrella", "", 404, "", ""},
		{"GET /tenants/umbrella", "", 404, "", ""},
		{"POST /tenants", `{"id":"t4","slug":"umbrella","name":"Umbrella","plan":"enterprise"}`, 201, tenant("t4", "umbrella", "Umbrella", "enterprise", "", "active"), "/tenants/umbrella"},
	}
	for _, tt := range tests {
		got := s.want(t, tt.status, tt.line, tt.body)
		switch tt.status {
		case 200, 201:
			if shown := without(t, got, strings.Fields(times)...); shown != tt.want {
				t.Errorf("%s %s: %s, want %s", tt.line, tt.body, shown, tt.want)
			}
			if location := got.header.Get("Location"); location != tt.location {
				t.Errorf("%s %s: Location %q, want %q", tt.line, tt.body, location, tt.location)
			}
			if x := decode[tenantJSON](t, got); s.want(t, 200, "GET /tenants/"+x.Slug, "").body != got.body {
				t.Errorf("%s %s: the tenant is not what the answer says", tt.line, tt.body)
			}
		case 422:
			bad, want := errorFields(t, got), strings.Fields(tt.want)
			slices.Sort(bad)
			slices.Sort(want)
			if !slices.Equal(bad, want) {
				t.Errorf("%s %s: bad fields %v, want %v", tt.line, tt.body, bad, want)
			}
		}
	}

	// Without an id one is made.
	first, second := decode[tenantJSON](t, s.want(t, 201, "POST /tenants", `{"slug":"x1","name":"X","plan":"starter"}`)), decode[tenantJSON](t, s.want(t, 201, "PUT /tenants/x2", `{"name":"X","plan":"starter"}`))
	if len(first.ID) != 24 || len(second.ID) != 24 || first.ID == second.ID {
		t.Errorf("the ids made are %q and %q, want two different ones", first.ID, second.ID)
	}

	// What changes nothing writes nothing.
	revision := s.db.Current().Revision()
	for line, body := range map[string]string{"PATCH /tenants/acme": `{"name":"Acme"}`, "PUT /tenants/acme": `{"name":"Acme","plan":"business","partnerSlug":"nordhost"}`} {
		if s.want(t, 200, line, body); s.db.Current().Revision() != revision {
			t.Errorf("%s %s made a revision of no change", line, body)
		}
	}
}

// TestInUse is about what can't be removed, because something has it.
func TestInUse(t *testing.T) {
	t.Parallel()
	s := start(t)
	s.registry(t)
	s.want(t, 201, "POST /flags", `{"key":"a_first","scope":{"tenantSlugs":["globex","acme"]}}`)
	tests := []struct {
		line           string
		flags, tenants []string
	}{
		{"DELETE /tenants/globex", []string{"a_first", "mail_rules"}, nil},
		{"DELETE /tenants/acme", []string{"a_first"}, nil},
		{"DELETE /partners/nordhost", []string{"mail_rules"}, []string{"acme"}},
		{"DELETE /partners/fjordit", nil, []string{"initech"}},
	}
	for _, tt := range tests {
		p := decode[problem](t, s.want(t, 409, tt.line, ""))
		if !reflect.DeepEqual(p.Flags, tt.flags) || !reflect.DeepEqual(p.Tenants, tt.tenants) {
			t.Errorf("%s: flags %v and tenants %v, want %v and %v", tt.line, p.Flags, p.Tenants, tt.flags, tt.tenants)
		}
	}
	// A scope that lets go of them lets them go.
	s.want(t, 204, "DELETE /flags/a_first", "")
	s.want(t, 200, "PATCH /flags/mail_rules", `{"scope":{"tenantSlugs":null,"partnerSlugs":[]}}`)
	s.want(t, 204, "DELETE /tenants/globex", "")
	s.want(t, 409, "DELETE /partners/nordhost", "")
	s.want(t, 204, "DELETE /tenants/acme", "")
	s.want(t, 204, "DELETE /partners/nordhost", "")
	s.want(t, 404, "DELETE /partners/nordhost", "")

	// A scope alone holds a partner too, and of many tenants the first hundred are named.
	s.want(t, 201, "POST /partners", `{"slug":"big","name":"Big"}`)
	s.want(t, 201, "POST /flags", `{"key":"big_only","scope":{"partnerSlugs":["big"]}}`)
	if p := decode[problem](t, s.want(t, 409, "DELETE /partners/big", "")); !slices.Equal(p.Flags, []string{"big_only"}) || p.Tenants != nil {
		t.Errorf("a partner in a scope: flags %v and tenants %v, want big_only and none", p.Flags, p.Tenants)
	}
	var crowd flags.Document
	for i := range 120 {
		slug, big := fmt.Sprintf("big-%03d", i), "big"
		crowd.Tenants = append(crowd.Tenants, flags.TenantPatch{Slug: &slug, Name: &slug, Plan: &flags.Plans[0], PartnerSlug: &big})
	}
	if err := s.db.Plant(t.Context(), db.By{Actor: "system:seed"}, crowd); err != nil {
		t.Fatal(err)
	}
	if p := decode[problem](t, s.want(t, 409, "DELETE /partners/big", "")); len(p.Tenants) != 100 || p.Tenants[0] != "big-000" || p.Tenants[99] != "big-099" {
		t.Errorf("a partner of 120 tenants: %d are named, %v…, want the first 100", len(p.Tenants), p.Tenants[:1])
	}
}

func TestPartners(t *testing.T) {
	t.Parallel()
	s := start(t)
	s.registry(t)
	tests := []struct {
		line, body string
		status     int
		want       string // the body, or the bad fields
	}{
		{"GET /partners", "", 200, `[{"slug":"fjordit","name":"Fjord IT"},{"slug":"nordhost","name":"Nordhost"}]`},
		{"GET /partners?q=FJORD", "", 200, `[{"slug":"fjordit","name":"Fjord IT"}]`},
		{"GET /partners?q=host", "", 200, `[{"slug":"nordhost","name":"Nordhost"}]`},
		{"GET /partners?q=nothing", "", 200, `[]`},
		{"GET /partners?limit=0", "", 422, "limit"},
		{"GET /partners/fjordit", "", 200, `{"slug":"fjordit","name":"Fjord IT"}`},
		{"GET /partners/missing", "", 404, ""},
		{"POST /partners", `{"slug":"mailbyen","name":" Mailbyen "}`, 201, `{"slug":"mailbyen","name":"Mailbyen"}`},
		{"POST /partners", `{"slug":"mailbyen","name":"Mailbyen"}`, 409, ""},
		{"POST /partners", `{}`, 422, "slug name"},
		{"POST /partners", `{"slug":"Mail","name":null}`, 422, "slug name"},
		{"PATCH /partners/mailbyen", `{"name":"Mail","slug":"mailbyen"}`, 200, `{"slug":"mailbyen","name":"Mail"}`},
		{"PATCH /partners/mailbyen", `{}`, 200, `{"slug":"mailbyen","name":"Mail"}`},
		{"PATCH /partners/mailbyen", `{"slug":"mail"}`, 422, "slug"},
		{"PATCH /partners/mailbyen", `{"name":"` + strings.Repeat("x", 201) + `"}`, 422, "name"},
		{"PATCH /partners/missing", `{"name":"X"}`, 404, ""},
		{"DELETE /partners/mailbyen", "", 204, ""},
		{"DELETE /partners/mailbyen", "", 404, ""},
		{"PUT /partners/mailbyen", `{"name":"X"}`, 405, ""},
	}
	for _, tt := range tests {
		got := s.want(t, tt.status, tt.line, tt.body)
		switch {
		case tt.status < 300 && strings.TrimSuffix(got.body, "\n") != tt.want:
			t.Errorf("%s %s: %s, want %s", tt.line, tt.body, got.body, tt.want)
		case tt.status == 422 && strings.Join(errorFields(t, got), " ") != tt.want && strings.Join(errorFields(t, got), " ") != "name slug":
			t.Errorf("%s %s: bad fields %v, want %s", tt.line, tt.body, errorFields(t, got), tt.want)
		}
		if location := got.header.Get("Location"); (location == "/partners/mailbyen") != (tt.status == 201) {
			t.Errorf("%s %s: Location %q", tt.line, tt.body, location)
		}
	}
}

// TestRegistryPages follows Link through the lists of tenants and partners, with every filter.
func TestRegistryPages(t *testing.T) {
	t.Parallel()
	s := startDemo(t)
	slugs := func(keep func(*flags.Tenant) bool) []string {
		var out []string
		for _, x := range s.db.Current().Tenants() {
			if keep(x) {
				out = append(out, x.Slug)
			}
		}
		return out
	}
	has := func(x *flags.Tenant, text string) bool {
		return strings.Contains(strings.ToLower(x.Slug+"\x00"+x.Name), text)
	}
	tests := []struct {
		query string
		want  []string
		least int
	}{
		{"", slugs(func(*flags.Tenant) bool { return true }), 41},
		{"?plan=business", slugs(func(x *flags.Tenant) bool { return x.Plan == "business" }), 5},
		{"?partner=nordhost", slugs(func(x *flags.Tenant) bool { return x.PartnerSlug == "nordhost" }), 3},
		{"?q=AS", slugs(func(x *flags.Tenant) bool { return has(x, "as") }), 3},
		{"?q=%C3%A6", slugs(func(x *flags.Tenant) bool { return has(x, "æ") }), 1},
		{"?partner=nordhost&plan=business&q=a", slugs(func(x *flags.Tenant) bool { return x.PartnerSlug == "nordhost" && x.Plan == "business" && has(x, "a") }), 1},
		{"?partner=missing", nil, 0},
		{"?q=no+such+tenant", nil, 0},
		{"?after=dezky", slugs(func(x *flags.Tenant) bool { return x.Slug > "dezky" }), 10},
		{"?after=e", slugs(func(x *flags.Tenant) bool { return x.Slug > "e" }), 10},
		{"?after=zzz", nil, 0},
	}
	for _, tt := range tests {
		if len(tt.want) < tt.least {
			t.Fatalf("GET /tenants%s would find %d, want at least %d", tt.query, len(tt.want), tt.least)
		}
		for _, limit := range []int{0, 1, 3, 10, len(tt.want), 1000} {
			query, most := "", 1000
			if limit > 0 {
				query, most = fmt.Sprintf("limit=%d", limit), limit
			}
			got := pages(t, s, "/tenants"+tt.query, query, most, func(x tenantJSON) string { return x.Slug })
			if !slices.Equal(got, tt.want) {
				t.Errorf("GET /tenants%s by %d: %v, want %v", tt.query, most, got, tt.want)
			}
		}
	}
	partners := []string{"cloudkontor", "fjordit", "mailbyen", "nordhost"}
	for limit := 1; limit <= 5; limit++ {
		got := pages(t, s, "/partners", fmt.Sprintf("limit=%d", limit), limit, func(x flags.Partner) string { return x.Slug })
		if !slices.Equal(got, partners) {
			t.Errorf("GET /partners by %d: %v, want %v", limit, got, partners)
		}
	}
	for _, query := range []string{"limit=0", "limit=1001", "limit=-1", "limit=all", "plan=gold", "plan=Business"} {
		name, _, _ := strings.Cut(query, "=")
		if got := errorFields(t, s.want(t, 422, "GET /tenants?"+query, "")); !slices.Equal(got, []string{name}) {
			t.Errorf("GET /tenants?%s: bad fields %v, want %s", query, got, name)
		}
	}
}
