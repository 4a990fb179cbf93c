package handlers_test

import (
	"encoding/csv"
	"fmt"
	"net/url"
	"strings"
	"testing"

	"github.com/dezky/platform-api/db"
	"github.com/dezky/platform-api/flags"
)

// A bulk mistake: an import turns twelve flags on. It is found in the log, and its effect read by tenant.
func TestConsoleDifference(t *testing.T) {
	t.Parallel()
	s, p := console(t, look{})
	var document flags.Document
	for i := range 12 {
		key := fmt.Sprintf("bulk_%02d", i)
		s.make(key, flags.Targeted, 0, map[flags.Axis][]string{flags.AxisTenants: {"polarlab"}})
		document.Flags = append(document.Flags, flags.NewFlag{Key: key, Patch: flags.Patch{State: new(flags.On)}})
	}
	if _, err := s.db.Import(t.Context(), db.By{Actor: "system:import"}, document, db.Import{}); err != nil {
		t.Fatal(err)
	}
	tenants := len(s.db.Current().Tenants())
	environments := s.db.Current().Environments()

	p.open("/operator/audit")
	p.loads(func() { p.clickText(".presets", "Last hour") })
	equal(t, "from", p.value("#r-from") != "", true)
	p.fill("#a-actor", "system:import")
	p.loads(func() { p.clickText(".ask-log .acts", "Filter") })
	equal(t, "entries of the import", len(p.texts(".log.whole > li")), 12)
	p.loads(func() { p.click(".log.whole > li .when") })
	p.loads(func() { p.clickText("main", "What flipped by this change") })
	equal(t, "what flipped", strings.HasPrefix(p.textOf(".flipped .lead"), fmt.Sprintf("12 flags: %d gained, 0 lost between ", 12*(tenants-1))), true)
	equal(t, "flags with counts", len(p.texts("nav[aria-label='Flags that flipped'] a")), 12)
	equal(t, "the first flag", p.textOf("#f-bulk_00"), fmt.Sprintf("bulk_00: %d gained, 0 lost", tenants-1))

	for _, theme := range []string{"light", "dark"} {
		p.media(map[string]string{"prefers-color-scheme": theme})
		for _, at := range []size{{1280, 800}, {1024, 800}, phone} {
			p.resize(at)
			p.audit(fmt.Sprintf("difference at %d, %s", at.width, theme), false)
			equal(t, "scrolls sideways", js[bool](p, `document.documentElement.scrollWidth > innerWidth`), false)
		}
	}
	p.media(nil)
	p.resize(desktop)

	// Its page by page is what the CSV is, whatever has flipped since.
	s.make("later", flags.On, 0, nil)
	address := p.attr(".page-head a[download]", "href")
	var table [][]string
	for {
		rows := js[[][]string](p, `[...document.querySelectorAll('.turns tbody tr')].map(tr => [tr.closest('section').querySelector('h2 a').textContent,
			tr.querySelector('th .mono').textContent, tr.children[1].textContent, tr.children[2].textContent.replaceAll(',', '')])`)
		table = append(table, rows...)
		if !p.has(`.pager a[rel="next"]`) {
			break
		}
		p.loads(func() { p.click(`.pager a[rel="next"]`) })
	}
	status, text := s.ask(s.cookie(viewer), "GET", address, nil, nil)
	equal(t, "status of the CSV", status, 200)
	rows, err := csv.NewReader(strings.NewReader(text)).ReadAll()
	if err != nil {
		t.Fatal(err)
	}
	var file [][]string
	for _, row := range rows[1:] {
		file = append(file, []string{row[0], row[1], row[6], row[7]})
	}
	if fmt.Sprint(file) != fmt.Sprint(table) || len(table) != 12*(tenants-1) {
		t.Errorf("the CSV has %d rows, the table %d, want the same %d", len(file), len(table), 12*(tenants-1))
	}

	first := s.db.Current().Tenants()[0]
	// One tenant, by the filter; and the flag's and the tenant's own pages.
	p.fill("#d-tenant", first.Slug)
	p.loads(func() { p.clickText(".ask-log .acts", "Compare") })
	equal(t, "flags of one tenant", len(p.texts(".turns tbody tr")), 12)
	equal(t, "environments", p.textOf(".turns tbody td:nth-child(3)"), strings.Join(environments, ", "))
	equal(t, "the tenant's page", p.attr(".turns tbody th a", "href"), "/operator/tenants/"+first.Slug)
	equal(t, "the flag's page", p.attr("#f-bulk_00 a", "href"), "/operator/flags/bulk_00")
	p.fill("#d-tenant", "polarlab")
	p.loads(func() { p.clickText(".ask-log .acts", "Compare") })
	equal(t, "of the one that had them", strings.HasPrefix(p.textOf(".flipped .empty"), "Nothing flipped for anybody between "), true)
	p.audit("nothing flipped", false)
	p.loads(func() { p.clickText(".flipped .empty", "Clear the filters") })
	equal(t, "cleared", len(p.texts(".turns tbody tr")) > 50, true)

	// A mistake is told at its field.
	u, err := url.Parse(p.address())
	if err != nil {
		t.Fatal(err)
	}
	q := u.Query()
	q.Set("to", "2026-01-01T00:00")
	q.Set("from", "2099-01-01T00:00")
	p.expectStatus(422)
	p.open("/operator/audit/difference?" + q.Encode())
	equal(t, "the fault of from", strings.HasPrefix(p.textOf("#r-from-e"), "From: Must not be in the future; it is "), true)
	equal(t, "the fault of to", strings.HasPrefix(p.textOf("#r-to-e"), "To: Must not be before "), true)
	p.audit("refused", false)
}

// Without JavaScript it is plain forms; a tenant that came or went is marked.
func TestConsoleDifferenceWithoutScript(t *testing.T) {
	t.Parallel()
	s, p := console(t, look{noScript: true})
	s.make("checkout_v2", flags.On, 0, nil)
	if err := s.db.DeleteTenant(t.Context(), jonas.By(), "polarlab"); err != nil {
		t.Fatal(err)
	}
	if _, err := s.db.CreateTenant(t.Context(), jonas.By(), flags.TenantPatch{Slug: new("polarlab"), Name: new("Another"), Plan: new("starter")}); err != nil {
		t.Fatal(err)
	}
	removed, err := s.db.History(t.Context(), db.HistoryFilter{Tenant: "polarlab", Action: flags.Deleted, Limit: 1})
	if err != nil || len(removed) != 1 {
		t.Fatal(removed, err)
	}
	p.open(fmt.Sprintf("/operator/audit/%d", removed[0].ID))
	p.loads(func() { p.clickText("main", "What flipped since") })
	p.fill("#d-flag", "checkout_v2")
	p.loads(func() { p.clickText(".ask-log .acts", "Compare") })
	rows := p.texts(".turns tbody tr")
	equal(t, "rows", len(rows), 2)
	all := strings.Join(rows, "\n")
	equal(t, "who went and who came", strings.Contains(all, "removed") && strings.Contains(all, "lost") && strings.Contains(all, "new") && strings.Contains(all, "gained"), true)
	equal(t, "links to the one that is there", len(p.texts(".turns tbody th a")), 1)
	p.loads(func() { p.clickText(".page-head", "Entries") })
	equal(t, "back in the log", strings.HasPrefix(p.address(), "/operator/audit?"), true)
	p.loads(func() { p.clickText(".ask-log .acts", "What flipped for whom") })
	equal(t, "and again", strings.HasPrefix(p.address(), "/operator/audit/difference?"), true)
}
