package handlers_test

import (
	"encoding/json"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/dezky/platform-api/db"
	"github.com/dezky/platform-api/flags"
)

// formTime is a time as the console's addresses have it.
func formTime(at time.Time) string { return at.UTC().Format("2006-01-02T15:04:05.999") }

// told is the site of a short story with a time after each step: acme is created on starter, moves to business,
// goes, and comes back as another; paid is for business, then off, then deleted.
func told(t *testing.T) (s *site, at map[string]time.Time) {
	t.Helper()
	s, _ = registrySite(t)
	at = map[string]time.Time{}
	var last time.Time
	note := func(name string, err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		for { // the next change is at another time
			log, err := s.db.History(t.Context(), db.HistoryFilter{Limit: 1})
			if err != nil {
				t.Fatal(err)
			}
			if now := time.Now(); log[0].At.After(last) && now.UnixMilli() > log[0].At.UnixMilli() {
				at[name], last = log[0].At, log[0].At
				return
			}
		}
	}
	note("begun", nil)
	_, err := s.db.PatchTenant(t.Context(), jonas.By(), "acme", flags.TenantPatch{Plan: new("business")})
	note("moved", err)
	off := flags.Off
	_, err = s.db.PatchFlag(t.Context(), maria.By(), "paid", flags.Patch{State: &off, Note: "an incident"})
	note("off", err)
	note("gone", s.db.DeleteTenant(t.Context(), jonas.By(), "acme"))
	_, err = s.db.CreateTenant(t.Context(), jonas.By(), flags.TenantPatch{ID: new("t9"), Slug: new("acme"), Name: new("Acme again"), Plan: new("enterprise")})
	note("another", err)
	note("deleted", s.db.DeleteFlag(t.Context(), maria.By(), "paid", "", nil))
	return s, at
}

// valuesThen is what the API evaluates for a tenant as of a time, by key.
func (s *site) valuesThen(slug, env string, at time.Time) map[string]bool {
	s.t.Helper()
	status, text := s.ask(s.cookie(viewer), http.MethodPost, "/api/flags/explain", strings.NewReader(fmt.Sprintf(`{"tenantSlug": %q, "environment": %q, "at": %q}`,
		slug, env, at.UTC().Format(time.RFC3339Nano))), map[string]string{"Content-Type": "application/json"})
	if status != http.StatusOK {
		s.t.Fatalf("explain: %d %s", status, text)
	}
	var all map[string]flags.Explanation
	if err := json.Unmarshal([]byte(text), &all); err != nil {
		s.t.Fatal(err)
	}
	out := map[string]bool{}
	for key, e := range all {
		out[key] = e.Value
	}
	return out
}

func TestConsoleTimeOfATenant(t *testing.T) {
	t.Parallel()
	s, at := told(t)
	for _, l := range []look{{}, {noScript: true}} {
		p := s.tab(maria, l)
		names, envs := []string{"begun", "moved", "off", "another"}, []string{"production", "staging"}
		if !l.noScript { // the server's answer is the same
			names, envs = names[1:2], envs[1:]
		}
		for _, name := range names {
			for _, env := range envs {
				p.open("/operator/tenants/acme?env=" + env + "&at=" + formTime(at[name]))
				want := []string{}
				for key, value := range s.valuesThen("acme", env, at[name]) {
					want = append(want, fmt.Sprint(key, " ", value))
				}
				slices.Sort(want)
				got := []string{}
				for i, key := range p.texts("#rows .key") {
					got = append(got, fmt.Sprint(key, " ", p.texts("#rows .state")[i] == "On"))
				}
				equalLists(t, name+" in "+env, got, want)
			}
		}
		p.open("/operator/tenants/acme?at=" + formTime(at["moved"]))
		equal(t, "the notice", strings.HasPrefix(p.textOf("#then"), "As it was at "+at["moved"].UTC().Format("2006-01-02 15:04:05")), true)
		equal(t, "who it was", strings.Contains(p.textOf("#then"), "now: Acme, id t1, plan business, partner none."), true)
		equal(t, "a way to change it", p.has("#tenant-top button, #tenant-top .btn:not(.ghost), #provisioning"), false)
		// The environment, the filter and the time stay together.
		p.loads(func() { p.click(`.pills [href*="show=on"]`) })
		equal(t, "the time under a filter", p.value("#at"), formTime(at["moved"]))
		equalLists(t, "on then", p.texts("#rows .key"), []string{"everyone", "paid"})
		p.loads(func() { p.clickText("#then", "Now") })
		equal(t, "a notice now", p.has("#then"), false)
	}

	p := s.tab(maria, look{})
	p.open("/operator/tenants/globex?at=" + formTime(at["moved"]))
	equalLists(t, "not as now", p.texts("#rows .tag"), []string{"now gone"}) // paid
	for _, name := range []string{"light", "dark"} {
		p.media(map[string]string{"prefers-color-scheme": name})
		for _, at := range []size{desktop, phone} {
			p.resize(at)
			p.audit(fmt.Sprint("a tenant as it was, ", name, at), false)
			equal(t, "scrolls sideways", js[bool](p, `document.documentElement.scrollWidth > innerWidth`), false)
		}
	}
	p.loads(func() { p.click(`#rows [href*="paid/life"]`) })
	equal(t, "to the life of a deleted flag", strings.Contains(p.address(), "/operator/flags/paid/life"), true)
}

// What can't be is said at the field, or on a page with the way on.
func TestTimeOfATenantRefuses(t *testing.T) {
	s, at := told(t)
	begun := at["begun"]
	for _, tt := range []struct {
		path   string
		status int
		want   string
	}{
		{"acme?at=yesterday", 422, "Must be a time such as 2026-01-31T14:02:00, in UTC."},
		{"acme?at=2999-01-01T00:00", 422, "Must not be in the future; it is "},
		{"acme?at=2001-01-01T00:00:00", 422, ", when the log began."},
		{"none?at=2001-01-01T00:00:00", 422, ", when the log began."},
		{"none?at=" + formTime(begun), 404, "Nobody held “none” at "},
		{"acme?at=" + formTime(at["gone"]), 404, "A tenant of that slug was created at " + at["another"].UTC().Format("2006-01-02 15:04:05")},
		{"acme?at=" + formTime(at["gone"]), 404, "Back to Acme again, as it is now"},
		{"acme?at=" + url.QueryEscape(begun.Format(time.RFC3339Nano)), 200, "As it was at "},
		{"acme?at=", 200, "Acme again"},
	} {
		status, text := s.ask(s.cookie(viewer), http.MethodGet, "/operator/tenants/"+tt.path, nil, nil)
		if status != tt.status || !strings.Contains(text, tt.want) {
			t.Errorf("%s: %d, want %d and %q", tt.path, status, tt.status, tt.want)
		}
		if atField := strings.Contains(text, `aria-describedby="at-e"`); atField != (status == 422 && strings.HasPrefix(tt.path, "acme")) {
			t.Errorf("%s: told at the field: %t", tt.path, atField)
		}
	}
}

func TestConsoleTimeOfAnExplanation(t *testing.T) {
	t.Parallel()
	s, at := told(t)
	for _, l := range []look{{}, {noScript: true}} {
		p := s.tab(maria, l)
		ask := func(at string) string {
			p.open("/operator/flags/starter_only?tenant=acme&env=production&at=" + url.QueryEscape(at))
			return p.textOf("#explain")
		}
		for name, want := range map[string]string{"begun": "Onfor Acme in production at ", "moved": "Offfor Acme in production at ", "another": "Offfor Acme again in production"} {
			if got := ask(formTime(at[name])); !strings.Contains(got, want) || !strings.Contains(got, "by version 1") {
				t.Errorf("at %s: %q, want %q", name, got, want)
			}
		}
		for given, want := range map[string]string{formTime(at["gone"]): "Nobody held “acme” at ", "soon": "Must be a time such as", "2999-01-01T00:00:00": "Must not be in the future"} {
			if got := ask(given); !strings.Contains(got, want) {
				t.Errorf("at %s: %q, want %q", given, got, want)
			}
		}
	}
	s.make("later", flags.On, 0, nil)
	p := s.tab(maria, look{})
	p.openLive("/operator/flags/later?tenant=acme&env=production")
	equal(t, "now", strings.Contains(p.textOf("#explain .verdict"), "Onfor Acme again in production"), true)
	js[any](p, `{ const a = document.querySelector('#ex-a'); a.step = 'any'; a.value = `+quote(formTime(at["begun"]))+`; a.dispatchEvent(new Event('change', {bubbles: true})) }`) // by htmx
	p.waitText("#explain .verdict", "This flag did not exist at ")
	p.audit("an explanation as of a time", false)
}

func TestConsoleTimeOfAFlag(t *testing.T) {
	t.Parallel()
	s, at := told(t)
	var want []string // the table is as the as-of evaluation counts
	for _, name := range []string{"deleted", "gone", "off", "moved"} {
		n, total := 0, 0
		tenants, err := s.db.TenantsAt(t.Context(), at[name])
		if err != nil {
			t.Fatal(err)
		}
		for _, x := range tenants {
			if total++; s.valuesThen(x.Slug, "production", at[name])["paid"] {
				n++
			}
		}
		if name != "gone" { // it was off already
			want = append(want, fmt.Sprintf("%s %d of %d", at[name].UTC().Format("2006-01-02 15:04:05.999"), n, total))
		}
	}
	for _, l := range []look{{}, {noScript: true}} {
		p := s.tab(maria, l)
		p.open("/operator/flags/paid/life")
		var got []string
		reaches := p.texts(".life-table .c-reached")
		for i, when := range p.texts(".life-table time") {
			reach, _, _ := strings.Cut(reaches[i], " tenants")
			fields := strings.Fields(reach)
			got = append(got, when+" "+strings.Join(fields[:3], " "))
		}
		equalLists(t, "the newest of its life", got[:len(got)-1], want)
		equal(t, "who and why", strings.Contains(p.textOf(".life-table"), "maria@dezky.example changed") || strings.Contains(p.textOf(".life-table"), "an incident"), true)
		marks := js[string](p, `[...document.querySelectorAll('.mark title')].map(x => x.textContent).join('\n')`)
		for _, told := range []string{"jonas@dezky.example changed the plan or partner of tenants. Reach 1 → 2", "maria@dezky.example used the kill switch", "(an incident). Reach 2 → 0"} {
			if !strings.Contains(marks, told) {
				t.Errorf("the marks tell %q, want %q", marks, told)
			}
		}
	}
	p := s.tab(viewer, look{})
	for _, path := range []string{"/operator/flags/paid/life", "/operator/flags/starter_only/life?env=staging"} {
		p.open(path)
		for _, name := range []string{"light", "dark"} {
			p.media(map[string]string{"prefers-color-scheme": name})
			for _, at := range []size{desktop, phone} {
				p.resize(at)
				p.audit(fmt.Sprint(path, name, at), false)
				equal(t, "scrolls sideways", js[bool](p, `document.documentElement.scrollWidth > innerWidth`), false)
			}
		}
	}
	p.open("/operator/flags/starter_only")
	p.loads(func() { p.clickText("#history", "Draw its life") })
	equal(t, "the page", p.text("h1"), "starter_only")
	p.expectStatus(404)
	p.open("/operator/flags/none_like_it/life")
}
