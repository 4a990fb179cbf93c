package handlers_test

import (
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/chromedp/chromedp"

	"github.com/dezky/platform-api/db"
	"github.com/dezky/platform-api/flags"
)

// service makes an API token and returns what evaluates with it.
func (s *site) service(name string) (evaluate func()) {
	s.t.Helper()
	secret, _, err := s.db.CreateToken(s.t.Context(), jonas.By(), db.NewToken{Name: name, Role: "evaluate"})
	if err != nil {
		s.t.Fatal(err)
	}
	return func() {
		s.t.Helper()
		status, text := s.ask(nil, "POST", "/flags/evaluate", strings.NewReader(`{"tenantSlug":"polarlab"}`),
			map[string]string{"Authorization": "Bearer " + secret, "Content-Type": "application/json"})
		if status != http.StatusOK {
			s.t.Fatalf("evaluation by %s = %d %s", name, status, text)
		}
	}
}

const asksForConsumers = `^GET /operator/flags/\w+/consumers$`

// waitQuiet waits until the line no longer asks by itself.
func (p *tab) waitQuiet(text string) {
	p.t.Helper()
	p.wait(`(e => e.textContent === ` + quote(text) + ` && !e.hasAttribute('hx-get'))(document.querySelector('#consumers'))`)
}

func TestConsole46_AKillCountsUpToAll(t *testing.T) {
	t.Parallel()
	needsBrowser(t)
	s := newSite(t)
	s.make("checkout_v2", flags.Rollout, 25, nil)
	p, v := s.tab(maria, look{}), s.tab(viewer, look{})
	p.openLive("/operator/flags/checkout_v2")
	p.waitText("#now", "No service has evaluated here yet")
	mail, billing := s.service("mail-worker"), s.service("billing-worker-north")
	mail()
	billing()
	p.reload()
	p.ready()
	p.waitQuiet("Live at both consumers")
	v.openLive("/operator/flags/checkout_v2")
	equal(t, "asked while all have it", s.count(asksForConsumers), 0)

	p.click("#kill")
	p.waitText("#consumers", "Kill live at 0 of 2 consumers; waiting for billing-worker-north and mail-worker")
	v.waitText("#consumers", "Kill live at 0 of 2 consumers; waiting for billing-worker-north and mail-worker")
	p.waitFocus("#undo")
	js[chromedp.Void](p, `void (window.region = document.querySelector("#consumers"))`)
	below := js[float64](p, `document.querySelector('.seg').getBoundingClientRect().top`)
	mail()
	for _, w := range []*tab{p, v} {
		w.waitText("#consumers", "Kill live at 1 of 2 consumers")
		w.audit("one of two", false)
		w.media(map[string]string{"prefers-color-scheme": "dark"})
		w.audit("one of two, dark", true)
	}
	billing()
	p.waitQuiet("Kill live at both consumers")
	v.waitQuiet("Kill live at both consumers")
	equal(t, "focus, which stays", p.focus(), "#undo")
	equal(t, "place of what is below", js[float64](p, `document.querySelector('.seg').getBoundingClientRect().top`), below)
	equal(t, "the live region is the same", js[bool](p, `region === document.querySelector('#consumers') && region.getAttribute('role') === 'status'`), true)
	equal(t, "a timer that still asks", js[bool](p, `!!region._htmx?.triggerSpecs.some(t => t.interval)`), false)
	equal(t, "streams opened by the two", s.count(`^GET /operator/events\b`), 3)
}

// What the line asks for is nothing that a person did: it disturbs no draft, no focus and no dialog, and what
// goes wrong with it is not told.
func TestConsole47_TheCountDisturbsNothing(t *testing.T) {
	t.Parallel()
	s, p := console(t, look{})
	f := s.make("checkout_v2", flags.Rollout, 25, nil)
	mail, billing := s.service("mail"), s.service("billing")
	mail()
	billing()
	f = s.setPct(f.Key, 30)
	p.openLive("/operator/flags/checkout_v2")
	p.waitText("#consumers", "Live at 0 of 2 consumers")
	e := p.draftPct(f, 100)

	// A dialog's focus goes back to where it came from, whatever the line asked meanwhile.
	p.expectStatus(http.StatusPreconditionRequired) // the question whether so many are to gain it
	p.click("#save")
	p.wait(`document.querySelector('#confirm').open`)
	asked := s.count(asksForConsumers)
	for end := time.Now().Add(patience); s.count(asksForConsumers) < asked+2; {
		if time.Now().After(end) {
			t.Fatal("the line does not ask while a dialog is open")
		}
		js[bool](p, `new Promise(done => requestAnimationFrame(() => done(true)))`)
	}
	p.press("\x1b")
	p.wait(`!document.querySelector('#confirm')`)
	p.waitFocus("#save")
	equal(t, "the draft after the dialog", p.value("#pct-n"), "100")

	p.click("#tenant-in")
	p.press("po")
	p.wait(`document.querySelector('#tenant-opts [role=option]')?.checkVisibility()`)
	mail()
	p.waitText("#consumers", "Live at 1 of 2 consumers")
	equal(t, "focus", p.focus(), "#tenant-in")
	equal(t, "what was typed", p.value("#tenant-in"), "po")
	equal(t, "the list is open", js[bool](p, `document.querySelector('#tenant-opts').checkVisibility()`), true)
	equal(t, "the draft", p.value("#pct-n"), "100")
	p.waitEffect(e)

	// No answer is no news, and no end of it.
	p.expectLoss("/operator/flags/checkout_v2/consumers")
	p.expect(`^console\.error: .*htmx`)
	lost, mend := s.wrong("GET", "/operator/flags/checkout_v2/consumers", hangUp)
	for end := time.Now().Add(patience); lost.met.Load() < 2; {
		if time.Now().After(end) {
			t.Fatal("the line does not ask again")
		}
		js[bool](p, `new Promise(done => requestAnimationFrame(() => done(true)))`)
	}
	mend()
	billing()
	p.waitQuiet("Live at both consumers")
	equal(t, "toasts", p.textOf("#toasts"), "")

	// An ended session is told by what a person does, not by the line.
	s.setPct("checkout_v2", 31)
	p.waitText("#consumers", "Live at 0 of 2 consumers")
	p.expectStatus(http.StatusUnauthorized)
	p.expect(`^console\.error: .*htmx`)
	s.endSessions()
	p.wait(`!document.querySelector('#consumers')`)
	equal(t, "a dialog", p.has("dialog[open]"), false)
	equal(t, "the draft at the end", p.value("#pct-n"), "100")
}

// The line and the table fit on every width, also with long names.
func TestConsole48_TheCountFits(t *testing.T) {
	t.Parallel()
	needsBrowser(t)
	s := newSite(t)
	s.make("checkout_v2", flags.Rollout, 25, nil)
	for _, name := range []string{"billing-worker", "invoice-exporter-for-the-accounting-of-partners", "mail", "webmail", "portal"} {
		s.service(name)()
	}
	s.setPct("checkout_v2", 30)
	for _, at := range []size{desktop, phone, {320, 700}} {
		p := s.tab(maria, look{size: at})
		p.openLive("/operator/flags/checkout_v2")
		p.waitText("#consumers", "Live at 0 of 5 consumers")
		p.waitText("#consumers", "billing-worker, invoice-exporter-for-the-accounting-of-partners, mail and 2 more")
		equal(t, "it is cut off or wider than the strip", js[bool](p, `(e => e.scrollWidth > e.clientWidth || e.getBoundingClientRect().right > document.querySelector('#now').getBoundingClientRect().right)(document.querySelector('#consumers'))`), false)
		p.openLive("/operator/status")
		equalLists(t, "the first column of the status page", p.texts(".consumers tbody th"), []string{"billing-worker", "invoice-exporter-for-the-accounting-of-partners", "mail", "portal", "webmail"})
		equal(t, "the page is wider than its window", js[bool](p, `(e => e.scrollWidth > e.clientWidth)(document.querySelector('.sheet-page'))`), false)
		p.audit(fmt.Sprintf("status at %d", at.width), false)
	}
}
