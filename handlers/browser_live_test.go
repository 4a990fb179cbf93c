package handlers_test

import (
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/chromedp/chromedp"

	"github.com/dezky/platform-api/flags"
)

func TestConsole21_AColleaguesSaveAppearsInPlace(t *testing.T) {
	t.Parallel()
	s, p := console(t, look{})
	s.make("checkout_v2", flags.Rollout, 25, nil)
	s.make("checkout_v3", flags.On, 0, nil)
	p.openLive("/operator/flags")
	before := p.rows()
	on := p.textOf("#count-on")
	js[chromedp.Void](p, `(() => {
		window.flashes = []
		addEventListener('animationstart', e => { const r = e.target.closest('tr'); if (r) flashes.push(r.id + ' ' + e.animationName) })
		const row = document.querySelector('#flag-checkout_v2')
		window.top0 = row.getBoundingClientRect().top
	})()`)
	saved := time.Now()
	s.patch("checkout_v2", flags.Patch{State: new(flags.On)})
	p.waitText("#flag-checkout_v2 .c-state", "On")
	t.Logf("seen %v after the save began", time.Since(saved).Round(time.Millisecond))
	p.wait(`flashes.length`)
	equalLists(t, "rows", p.rows(), before)
	equal(t, "place of the row", js[bool](p, `document.querySelector('#flag-checkout_v2').getBoundingClientRect().top === top0`), true)
	p.wait(`document.querySelector('#count-on').textContent !== ` + quote(on))
	s.setPct("checkout_v2", 40)
	p.wait(`document.querySelector('#flag-checkout_v2').dataset.version === '3' && flashes.length === 2`)
	equalLists(t, "rows that flashed", js[[]string](p, `flashes.map(f => f.split(' ')[0])`), []string{"flag-checkout_v2", "flag-checkout_v2"})
	equal(t, "questions to the server", s.count(`^GET /operator/flags\b`), 1)

	// A new flag by somebody else is a button, which puts it in when it is pressed.
	s.make("by_jonas", flags.Off, 0, nil)
	p.waitText("#fresh", "1 new flag")
	equalLists(t, "rows with a new flag elsewhere", p.rows(), before)
	p.click("#fresh button")
	p.wait(`document.querySelector('#rows tr')?.id === 'flag-by_jonas'`)
	p.wait(`!document.querySelector('#fresh').textContent.trim()`)

	// A row that no longer matches stays where it is, until the list is filtered again.
	p.openLive("/operator/flags?state=on&q=checkout")
	equalLists(t, "rows that are on", p.rows(), []string{"checkout_v2", "checkout_v3"})
	s.patch("checkout_v2", flags.Patch{State: new(flags.Off)})
	p.wait(`document.querySelector('#flag-checkout_v2 .unmatched').checkVisibility()`)
	equalLists(t, "rows with one that no longer matches", p.rows(), []string{"checkout_v2", "checkout_v3"})
	equal(t, "the other's mark", js[bool](p, `document.querySelector('#flag-checkout_v3 .unmatched').checkVisibility()`), false)
}

func TestConsole22_AnOpenPanelFollows(t *testing.T) {
	t.Parallel()
	s, p := console(t, look{})
	s.make("checkout_v2", flags.Rollout, 25, nil)
	p.openLive("/operator/flags/checkout_v2")
	p.click("#q")
	s.setPct("checkout_v2", 30)
	p.waitVersion(2)
	equal(t, "percent of the form", p.value("#pct-n"), "30")
	equal(t, "focus, which a refresh leaves alone", p.focus(), "#q")
	f := s.flag("checkout_v2")
	p.draftPct(f, 36)
	s.setPct("checkout_v2", 10)
	p.waitText("#conflict", "jonas@dezky.example changed this flag just now. Your draft is kept.")
	equalLists(t, "fields that differ", p.conflictRows(), []string{"rollout | 30% | 10% | 36%"})
	equal(t, "the draft", p.value("#pct-n"), "36")
	equal(t, "Save is disabled", js[bool](p, `document.querySelector('#save').disabled`), true)
	equal(t, "panel's version", p.attr("#panel > .panel", "data-version"), "2")

	// A change of the description alone is not in the way of a draft.
	p.clickText("#conflict", "Put my changes on top")
	p.waitVersion(3)
	s.patch("checkout_v2", flags.Patch{Description: new("Another description")})
	p.waitText("#flag-checkout_v2", "Another description")
	equal(t, "conflict", p.has("#conflict"), false)
	p.wait(`!document.querySelector('#save').disabled`)
	p.click("#save")
	p.waitVersion(5)
	equal(t, "percent", s.flag("checkout_v2").Pct, 36)
	equal(t, "description", s.flag("checkout_v2").Description, "Another description")

	// A flag that is deleted while it is open stays to be read.
	s.patch("checkout_v2", flags.Patch{State: new(flags.Off)})
	p.waitVersion(6)
	if err := s.db.DeleteFlag(t.Context(), jonas.By(), "checkout_v2", "", nil); err != nil {
		t.Fatal(err)
	}
	p.waitText("#panel", "was deleted")
	p.wait(`!document.querySelector('#kill') && [...document.querySelectorAll('#save')].every(e => e.disabled || !e.checkVisibility())`)
	equal(t, "title", p.textOf("#panel-title"), "checkout_v2")
}

func TestConsole23_TheStreamIsResumed(t *testing.T) {
	t.Parallel()
	s, p := console(t, look{})
	s.make("checkout_v2", flags.Rollout, 25, nil)
	p.openLive("/operator/flags")
	p.expectLoss("/operator/events")
	s.cutStreams()
	p.wait(`document.querySelector('#live-state').dataset.state === 'reconnecting'`)
	p.waitText("#live-state", "Reconnecting")
	for pct := 26; pct < 30; pct++ {
		s.setPct("checkout_v2", pct)
	}
	s.hear()
	p.waitText("#flag-checkout_v2", "Rollout 29%")
	p.ready()
	equal(t, "version", p.attr("#flag-checkout_v2", "data-version"), "5")
	equal(t, "lists asked for", s.count(`^GET /operator/flags\b`), 1)
}

// A clock that a test moves, and timers that look at it more often.
const fastClock = `(() => {
	let ahead = 0
	const now = Date.now, every = window.setInterval
	Date.now = () => now() + ahead
	window.setInterval = (f, ms, ...rest) => every(f, Math.min(ms, 100), ...rest)
	window.advance = ms => { ahead += ms }
})()`

func TestConsole24_SilenceIsTold(t *testing.T) {
	t.Parallel()
	s, p := console(t, look{onStart: fastClock})
	f := s.make("checkout_v2", flags.Rollout, 25, nil)
	p.openLive("/operator/flags/checkout_v2")
	js[chromedp.Void](p, `advance(39000)`)
	equal(t, "state after 39 s", p.attr("#live-state", "data-state"), "live")
	js[chromedp.Void](p, `advance(2000)`)
	p.wait(`/Not live since \d\d:\d\d/.test(document.querySelector('#live-state').textContent)`)
	p.wait(`[...document.querySelectorAll('#live-state a, #live-state button')].some(e => e.textContent.includes('Reload') && e.checkVisibility())`)
	p.draftPct(f, 30)
	p.click("#save")
	p.waitVersion(2)
	equal(t, "percent", s.flag("checkout_v2").Pct, 30)
	p.click("#q")
	p.press("checkout")
	p.wait(`document.querySelectorAll('#rows tr').length === 1`)
	js[chromedp.Void](p, `advance(1)`)
	s.setPct("checkout_v2", 31) // the stream still is there, and says so
	p.ready()
}

func TestConsole28_AWriteWithoutAnAnswer(t *testing.T) {
	t.Parallel()
	type handler = func(w http.ResponseWriter, r *http.Request, next http.Handler)
	for _, test := range []struct {
		name   string
		action string // save or kill
		do     handler
		lost   bool   // the connection ends without an answer
		done   bool   // although it was done
		deaf   bool   // what the server has now can't be learnt either
		toast  string // what is said
	}{
		{"save, 500", "save", breakDown, false, false, false, "The flag is unchanged. Try again."},
		{"save, connection lost", "save", hangUp, true, false, false, "The flag is unchanged. Try again."},
		{"save, time-out", "save", fallSilent, true, false, false, "The flag is unchanged. Try again."},
		{"save, answer lost", "save", doThenHangUp, true, true, false, "The flag has changed (version 2)."},
		{"save, network gone", "save", hangUp, true, false, true, "It is not known whether the change was saved."},
		{"kill, 500", "kill", breakDown, false, false, false, "Kill is not confirmed"},
		{"kill, connection lost", "kill", hangUp, true, false, false, "Kill is not confirmed"},
		{"kill, time-out", "kill", fallSilent, true, false, false, "Kill is not confirmed"},
		{"kill, network gone", "kill", hangUp, true, false, true, "Kill is not confirmed"},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			s, p := console(t, look{})
			f := s.make("checkout_v2", flags.Rollout, 25, nil)
			p.openLive("/operator/flags/checkout_v2")
			equal(t, "the time limit", js[int](p, `htmx.config.defaultTimeout`), 15000)
			p.draftPct(f, 30)
			path := "/operator/flags/checkout_v2"
			button := "#save"
			if test.action == "kill" {
				path, button = path+"/kill", "#kill"
			}
			broken, mend := s.wrong("POST", path, test.do)
			if strings.Contains(test.name, "time-out") {
				js[chromedp.Void](p, `htmx.config.defaultTimeout = 300`)
			}
			p.expectStatus(500)
			if test.lost {
				p.expectLoss(path)
			}
			mendToo := func() {}
			if test.deaf {
				_, mendToo = s.wrong("GET", "/api/flags/checkout_v2", hangUp)
				p.expectLoss("/api/flags/checkout_v2")
			}
			p.expect(`^console\.error: .*(htmx|` + path + `)`)
			p.click(button)
			p.waitText("#toasts [role=alert]", test.toast)
			if broken.met.Load() == 0 {
				t.Error("the request was not sent")
			}
			equal(t, "title", p.textOf("#panel-title"), "checkout_v2")
			if test.done {
				equal(t, "percent on the server", s.flag("checkout_v2").Pct, 30)
				mend()
				p.waitVersion(2)
				return
			}
			equal(t, "version on the server", s.flag("checkout_v2").Version, int64(1))
			equal(t, "the draft", p.value("#pct-n"), "30")
			equal(t, "unsaved", p.dirty(), true)
			mend()
			mendToo()
			if test.action == "kill" {
				p.clickText("#toasts", "Try again")
				p.waitVersion(2)
				equal(t, "state", s.flag("checkout_v2").State, flags.Off)
				return
			}
			p.wait(`!document.querySelector('#save').disabled`)
			p.click("#save")
			p.waitVersion(2)
			equal(t, "percent", s.flag("checkout_v2").Pct, 30)
		})
	}
	t.Run("a read that fails leaves the page", func(t *testing.T) {
		t.Parallel()
		s, p := console(t, look{})
		s.make("checkout_v2", flags.Rollout, 25, nil)
		s.make("checkout_v3", flags.Rollout, 25, nil)
		p.openLive("/operator/flags/checkout_v2")
		s.wrong("GET", "/operator/flags/checkout_v3", breakDown)
		p.expectStatus(500)
		p.click("#flag-checkout_v3 .row-link")
		p.waitText("#toasts [role=alert]", "500")
		equal(t, "title", p.textOf("#panel-title"), "checkout_v2")
		equal(t, "toasts", len(p.texts("#toasts .toast")), 1)
		p.click("#toasts [data-dismiss]")
		p.wait(`!document.querySelector('#toasts .toast')`)
	})
	t.Run("three toasts at most", func(t *testing.T) {
		t.Parallel()
		// The toasts' own clock stands still, so that none goes by itself meanwhile.
		s, p := console(t, look{onStart: `(every => { window.setInterval = (f, ms, ...rest) => every(f, ms < 1000 ? 1e9 : ms, ...rest) })(window.setInterval)`})
		f := s.make("checkout_v2", flags.Rollout, 25, nil)
		p.openLive("/operator/flags/checkout_v2")
		for i := range 4 {
			p.draftPct(f, 26+i)
			p.click("#save")
			p.waitVersion(int64(2 + i))
			f = s.flag("checkout_v2")
		}
		p.wait(fmt.Sprintf(`document.querySelectorAll('#toasts .toast').length === %d`, 3))
	})
}
