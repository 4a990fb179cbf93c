package handlers_test

import (
	"strings"
	"testing"
	"time"

	"github.com/chromedp/chromedp"

	"github.com/dezky/platform-api/flags"
)

// An operator freezes changes from Status: every page says so to everybody, an open one at once; a change is
// refused in the same words, the kill switch works, and whoever may ends it from where they are.
func TestConsoleFreeze(t *testing.T) {
	t.Parallel()
	s, p := console(t, look{})
	s.make("checkout_v2", flags.On, 0, nil)
	s.make("search_v2", flags.Rollout, 20, nil)
	other := s.tab(viewer, look{size: phone})
	other.openLive("/operator/flags")
	equal(t, "a banner before", other.has("#freeze.notice"), false)

	p.open("/operator/status")
	p.fill("#fr-r", " ")
	p.expectStatus(422)
	p.loads(func() { p.clickText("main", "Freeze changes") })
	equal(t, "without a reason", p.textOf("#fr-r-e"), "Must not be empty: it is what everybody is told.")
	equal(t, "the focus", p.focus(), "#fr-r")
	p.fill("#fr-r", "The launch of the new plans")
	p.loads(func() { p.clickText("main", "Freeze changes") })
	const words = "by maria@dezky.example: The launch of the new plans"
	equal(t, "frozen", s.db.Current().Frozen(time.Now()) != nil, true)
	for _, theme := range []string{"light", "dark"} {
		p.media(map[string]string{"prefers-color-scheme": theme})
		p.audit("status, "+theme, false)
	}
	p.media(nil)
	p.resize(phone)
	js[chromedp.Void](p, `document.querySelector('#h-fr').scrollIntoView()`)
	p.audit("status on a phone", false)
	equal(t, "scrolls sideways", js[bool](p, `document.documentElement.scrollWidth > innerWidth`), false)
	p.resize(desktop)

	other.waitText("#freeze.notice", words)
	equal(t, "a viewer's way to end it", other.has("#freeze button"), false)
	for _, theme := range []string{"light", "dark"} {
		other.media(map[string]string{"prefers-color-scheme": theme})
		other.audit("list on a phone, "+theme, false)
	}

	for _, path := range []string{"/operator/flags", "/operator/flags/search_v2", "/operator/new-flag", "/operator/tenants", "/operator/tenants/dezky",
		"/operator/audit", "/operator/audit/1", "/operator/tokens", "/operator/status", "/operator/settings"} {
		p.open(path)
		if got := p.textOf("#freeze"); !strings.Contains(got, words) {
			t.Errorf("%s says %q", path, got)
		}
	}
	p.expectStatus(404)
	p.open("/operator/flags/none_like_it")
	equal(t, "the banner on an error page", p.has("#freeze.notice"), true)

	// A save is refused, and the draft stays.
	p.openLive("/operator/flags/search_v2")
	p.audit("panel", false)
	p.draftPct(s.flag("search_v2"), 10)
	p.expectStatus(423)
	p.click("#save")
	p.waitText("#toasts", "Changes are frozen until")
	equal(t, "why", strings.Contains(p.textOf("#toasts"), words), true)
	equal(t, "the draft is there", p.dirty(), true)
	equal(t, "the flag", s.flag("search_v2").Pct, 20)
	p.click("#kill")
	p.waitText("#toasts", "search_v2 is off.")
	equal(t, "killed", s.flag("search_v2").State, flags.Off)

	p.loads(func() { p.clickText("#freeze", "End freeze") })
	equal(t, "the same page", strings.HasSuffix(p.address(), "/operator/flags/search_v2"), true)
	equal(t, "a banner afterwards", p.has("#freeze.notice"), false)
	other.wait(`document.querySelector('#freeze').hidden`)
	p.open("/operator/audit")
	equal(t, "in the log", strings.Contains(p.textOf(".log"), "froze all changes") && strings.Contains(p.textOf(".log"), "ended the freeze of changes"), true)
}

// Without JavaScript it is plain forms.
func TestConsoleFreezeWithoutScript(t *testing.T) {
	t.Parallel()
	s, p := console(t, look{noScript: true})
	s.make("checkout_v2", flags.On, 0, nil)
	p.open("/operator/status")
	p.fill("#fr-r", "launch")
	p.loads(func() { p.clickText("main", "Freeze changes") })
	equal(t, "the banner", strings.Contains(p.textOf("#freeze.notice"), "by maria@dezky.example: launch"), true)
	p.open("/operator/flags/checkout_v2")
	p.loads(func() { p.click("#kill") })
	equal(t, "killed", s.flag("checkout_v2").State, flags.Off)
	p.loads(func() { p.clickText("#freeze", "End freeze") })
	equal(t, "a banner afterwards", p.has("#freeze.notice"), false)
}
