package handlers_test

import (
	"fmt"
	"strings"
	"testing"

	"github.com/chromedp/chromedp"
	"github.com/chromedp/chromedp/kb"

	"github.com/dezky/platform-api/flags"
)

// partner makes a partner as jonas.
func (s *site) partner(slug, name string) {
	s.t.Helper()
	if _, err := s.db.CreatePartner(s.t.Context(), jonas.By(), flags.PartnerPatch{Slug: &slug, Name: &name}); err != nil {
		s.t.Fatal(err)
	}
}

// rename renames a partner as jonas.
func (s *site) rename(slug, name string) {
	s.t.Helper()
	if _, err := s.db.PatchPartner(s.t.Context(), jonas.By(), slug, flags.PartnerPatch{Name: &name}); err != nil {
		s.t.Fatal(err)
	}
}

// give gives a tenant another partner, or none, as jonas.
func (s *site) give(tenant, partner string) {
	s.t.Helper()
	if _, err := s.db.PatchTenant(s.t.Context(), jonas.By(), tenant, flags.TenantPatch{PartnerSlug: &partner}); err != nil {
		s.t.Fatal(err)
	}
}

func TestConsolePartnersCreate(t *testing.T) {
	t.Parallel()
	s, p := console(t, look{})
	p.openLive("/operator/tenants")
	p.loads(func() { p.clickText(".page-head", "Partners") })
	p.clickText(".page-head", "New partner")
	p.wait(`document.querySelector('#partner-new').open`)
	p.waitFocus("#pn-s")
	p.press("nordhost")
	p.typeIn("#pn-n", "Havgap Drift")
	p.expectStatus(409)
	p.clickText("#partner-new", "Create partner")
	p.waitText("#partner-new", "There is a partner nordhost already.")
	p.waitFocus("#pn-s")
	equal(t, "invalid", p.attr("#pn-s", "aria-invalid"), "true")
	equal(t, "link", p.attr("#partner-new .error a", "href"), "/operator/tenants?partner=nordhost")
	equal(t, "name", p.value("#pn-n"), "Havgap Drift")
	p.fill("#pn-s", "havgap")
	p.loads(func() { p.press(kb.Enter) })
	equal(t, "address", p.address(), "/operator/tenants?partner=havgap")
	equal(t, "heading", p.text("#page-h"), "Havgap Drift")
	equal(t, "its tenants", strings.Contains(p.text("#tenant-list"), "No tenant has Havgap Drift as its partner yet."), true)
	equal(t, "facts", strings.Contains(p.text(".strip-facts"), "partner:havgap"), true)
	equal(t, "in the registry", s.db.Current().Partner("havgap") != nil, true)

	p.openLive("/operator/partners")
	p.clickText(".page-head", "New partner")
	p.waitFocus("#pn-s")
	p.press(kb.Escape)
	p.wait(`!document.querySelector('dialog[open]')`)
	p.wait(`document.activeElement.textContent === 'New partner'`)
	p.typeIn("#q", "HAVG")
	p.wait(`document.querySelectorAll('#rows tr').length === 1`)
	p.waitText("#partner-count", "1 partner")
	p.wait(`location.search === '?q=HAVG'`)
	p.waitText("#rows", "Havgap Drift")
}

func TestConsolePartnersRename(t *testing.T) {
	t.Parallel()
	s, p := console(t, look{})
	p.openLive("/operator/tenants?partner=nordhost")
	p.clickText(".page-head", "Rename")
	p.waitFocus("#pe-n")
	equal(t, "name", p.value("#pe-n"), "Nordhost AS")
	s.rename("nordhost", "Nordhost Group")
	p.fill("#pe-n", "Nordhost Norge")
	p.expectStatus(409)
	p.clickText("#partner-edit", "Save name")
	p.waitText("#partner-edit [role=alert]", "jonas@dezky.example renamed this partner")
	p.waitText("#partner-edit [role=alert]", "Nothing was saved. Its name now: Nordhost Group.")
	equal(t, "name in the form", p.value("#pe-n"), "Nordhost Norge")
	equal(t, "name in the registry", s.db.Current().Partner("nordhost").Name, "Nordhost Group")
	p.loads(func() { p.clickText("#partner-edit", "Save name") })
	equal(t, "address", p.address(), "/operator/tenants?partner=nordhost&saved=1")
	equal(t, "heading", p.text("#page-h"), "Nordhost Norge")
	equal(t, "notice", p.text(".notice.saved"), "Saved.")
	equal(t, "name in the registry", s.db.Current().Partner("nordhost").Name, "Nordhost Norge")
}

func TestConsolePartnersRemove(t *testing.T) {
	t.Parallel()
	s, p := console(t, look{})
	s.partner("havgap", "Havgap Drift")
	p.openLive("/operator/tenants?partner=havgap")
	p.clickText(".page-head", "Remove")
	p.waitText("#partner-remove", "Remove Havgap Drift?")
	p.waitText("#partner-remove", "Their group partner:havgap in Authentik is not removed by this.")
	p.wait(`document.activeElement.textContent === 'Keep it'`)
	s.give("polarlab", "havgap")
	s.make("theirs", flags.Targeted, 0, map[flags.Axis][]string{flags.AxisPartners: {"havgap"}})
	p.expectStatus(409)
	p.clickText("#partner-remove", "Remove havgap")
	p.waitText("#partner-remove [role=alert]", "Nothing was removed: 1 tenant and 1 flag")
	equalLists(t, "what uses it", js[[]string](p, `[...document.querySelectorAll('#partner-remove .slugs a')].map(a => a.getAttribute('href'))`),
		[]string{"/operator/tenants/polarlab", "/operator/flags/theirs"})
	p.clickText("#partner-remove", "Close")
	p.wait(`!document.querySelector('dialog[open]')`)
	equal(t, "in the registry", s.db.Current().Partner("havgap") != nil, true)
	s.give("polarlab", "")
	s.patch("theirs", flags.Patch{Scope: map[flags.Axis][]string{flags.AxisPartners: {}}})
	p.clickText(".page-head", "Remove")
	p.waitText("#partner-remove", "Remove Havgap Drift?")
	p.loads(func() { p.clickText("#partner-remove", "Remove havgap") })
	equal(t, "address", p.address(), "/operator/partners?removed=havgap")
	equal(t, "notice", p.text(".notice.saved"), "Havgap Drift is removed. Delete the group partner:havgap in Authentik by hand.")
	equal(t, "in the registry", s.db.Current().Partner("havgap") != nil, false)
}

func TestConsolePartnersByTheKeyboardAlone(t *testing.T) {
	t.Parallel()
	s, p := console(t, look{})
	s.partner("old-nordic", "Nordhost Arkiv")
	find := func(text, first string) {
		t.Helper()
		p.press("k", chromedp.ModifierCtrl)
		p.waitFocus("#pal-q")
		p.press(text)
		p.waitText("#pal-opts [aria-selected=true]", first)
	}
	p.openLive("/operator/flags")
	find("åsgård", "Åsgård Advokater")
	p.loads(func() { p.press(kb.Enter) })
	equal(t, "a tenant by name", p.address(), "/operator/tenants/asgard-advokater")
	p.ready()
	find("asgard-adv", "Åsgård Advokater")
	p.press(kb.Escape)
	p.wait(`!document.querySelector('#palette').open`)
	find("nordhost ar", "Nordhost Arkiv")
	equalLists(t, "partners", p.options("partners"), []string{"Nordhost Arkiv"})
	p.loads(func() { p.press(kb.Enter) })
	equal(t, "a partner by name", p.address(), "/operator/tenants?partner=old-nordic")
	p.ready()
	find("nordhost a", "Nordhost AS")
	equalLists(t, "partners that fit as well, by slug", p.options("partners"), []string{"Nordhost AS", "Nordhost Arkiv"})
	p.press(kb.Escape)
	p.wait(`!document.querySelector('#palette').open`)
	find("new partn", "New partner")
	p.press(kb.Enter)
	p.waitFocus("#pn-s")
	p.press(kb.Escape)
	p.wait(`!document.querySelector('dialog[open]')`)
	p.press("k", chromedp.ModifierCtrl)
	p.waitFocus("#pal-q")
	p.press("partners")
	p.waitText("#pal-opts", "New flag “partners”") // the last letter has been answered
	p.press(kb.ArrowUp)
	p.waitText("#pal-opts [aria-selected=true]", "Partners")
	p.loads(func() { p.press(kb.Enter) })
	equal(t, "the page of all", p.address(), "/operator/partners")
}

func TestConsolePartnersWithoutScript(t *testing.T) {
	t.Parallel()
	s, p := console(t, look{noScript: true})
	p.expectStatus(409)
	p.open("/operator/partners")
	p.loads(func() { p.clickText(".page-head", "New partner") })
	p.typeIn("#pn-s", "fjordit")
	p.typeIn("#pn-n", "Havgap")
	p.loads(func() { p.clickText("#partner-new", "Create partner") })
	equal(t, "mistake", strings.Contains(p.text("#pn-s-e"), "There is a partner fjordit already."), true)
	p.fill("#pn-s", "havgap")
	p.loads(func() { p.clickText("#partner-new", "Create partner") })
	equal(t, "created", p.address(), "/operator/tenants?partner=havgap")
	p.loads(func() { p.clickText(".page-head", "Rename") })
	p.fill("#pe-n", "Havgap Drift")
	s.rename("havgap", "Havgap AS")
	p.loads(func() { p.clickText("#partner-edit", "Save name") })
	equal(t, "stale", strings.Contains(p.text("#partner-edit"), "Its name now: Havgap AS."), true)
	p.loads(func() { p.clickText("#partner-edit", "Save name") })
	equal(t, "renamed", p.text("#page-h"), "Havgap Drift")
	p.loads(func() { p.clickText(".page-head", "Remove") })
	p.loads(func() { p.clickText("#partner-remove", "Remove havgap") })
	equal(t, "removed", strings.HasPrefix(p.text(".notice.saved"), "Havgap Drift is removed."), true)
	equal(t, "in the registry", s.db.Current().Partner("havgap") != nil, false)
}

func TestConsolePartnersForEverybody(t *testing.T) {
	t.Parallel()
	_, p := console(t, look{})
	p.expectStatus(409)
	p.site.partner("havgap", "Havgap Drift")
	p.site.make("theirs", flags.Targeted, 0, map[flags.Axis][]string{flags.AxisPartners: {"nordhost"}})
	open := func(within, text, dialog string) func() {
		return func() {
			p.clickText(within, text)
			p.wait(`document.querySelector('` + dialog + `').open`)
		}
	}
	for _, sc := range []struct {
		name, path string
		prepare    func()
	}{
		{"partners", "/operator/partners", nil},
		{"partners without a match", "/operator/partners?q=nothing", nil},
		{"new", "/operator/partners", func() {
			open(".page-head", "New partner", "#partner-new")()
			p.press("havgap")
			p.typeIn("#pn-n", "x")
			p.press(kb.Enter)
			p.waitText("#partner-new", "already")
		}},
		{"page", "/operator/tenants?partner=nordhost", nil},
		{"page without tenants", "/operator/tenants?partner=havgap", nil},
		{"rename", "/operator/tenants?partner=nordhost", open(".page-head", "Rename", "#partner-edit")},
		{"remove", "/operator/tenants?partner=havgap", open(".page-head", "Remove", "#partner-remove")},
		{"in use", "/operator/tenants?partner=nordhost", open(".page-head", "Remove", "#partner-remove")},
		{"tenants", "/operator/tenants", nil},
		{"log", "/operator/audit?partner=havgap", nil},
	} {
		for _, at := range []size{desktop, phone} {
			p.resize(at)
			p.openLive(sc.path)
			if sc.prepare != nil {
				sc.prepare()
			}
			for _, theme := range []string{"light", "dark"} {
				p.media(map[string]string{"prefers-color-scheme": theme})
				p.audit(fmt.Sprintf("%s, %s, %d", sc.name, theme, at.width), theme == "dark")
			}
			for _, fault := range append(js[[]string](p, tooWide), js[[]string](p, tooSmall)...) {
				t.Errorf("%s at %d: %s", sc.name, at.width, fault)
			}
		}
	}
}
