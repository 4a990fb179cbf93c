package handlers_test

import (
	"fmt"
	"net/url"
	"slices"
	"strings"
	"testing"

	"github.com/chromedp/chromedp"
	"github.com/chromedp/chromedp/kb"

	"github.com/dezky/platform-api/flags"
)

func TestConsole01_TheAddressIsTheStateOfTheList(t *testing.T) {
	t.Parallel()
	s, p := console(t, look{})
	s.make("checkout_v2", flags.Rollout, 25, nil)
	s.make("express_check", flags.Rollout, 10, nil)
	s.make("checkout_one_page", flags.Off, 0, nil)
	const path = "/operator/flags?q=check&state=rollout"
	want := []string{"express_check", "checkout_v2"} // the last change first
	p.openLive(path)
	equalLists(t, "rows", p.rows(), want)
	p.reload()
	equalLists(t, "rows after reload", p.rows(), want)
	equal(t, "address", p.address(), path)
	plain := s.tab(maria, look{noScript: true})
	plain.open(path)
	equalLists(t, "rows without JavaScript", plain.rows(), want)
	equal(t, "the filter without JavaScript", plain.value("#q"), "check")
	plain.open("/operator/flags?q=check&state=nonsense&plan=gold&tenant=nobody&sort=size")
	equalLists(t, "rows with unknown values, which are ignored", plain.rows(), []string{"checkout_one_page", "express_check", "checkout_v2"})
}

func TestConsole02_ARowOpensThePanel(t *testing.T) {
	t.Parallel()
	s, p := console(t, look{})
	s.make("checkout_v2", flags.Rollout, 25, nil)
	s.make("checkout_v3", flags.Rollout, 5, nil)
	p.openLive("/operator/flags?state=rollout&q=check")
	p.click("#flag-checkout_v2 .row-link")
	p.waitFocus("#panel-title")
	equal(t, "title", p.textOf("#panel-title"), "checkout_v2")
	u, err := url.Parse(p.address())
	if err != nil {
		t.Fatal(err)
	}
	equal(t, "path", u.Path, "/operator/flags/checkout_v2")
	equal(t, "filters", u.Query().Encode(), "q=check&state=rollout")
	p.wait(`document.querySelector('#flag-checkout_v2').getAttribute('aria-current') === 'true'`)
	equal(t, "current rows", len(p.texts(`#rows tr[aria-current="true"]`)), 1)
	equal(t, "title of the document", js[string](p, `document.title`), "checkout_v2 · Dezky")
	p.click("#flag-checkout_v3 .row-link")
	p.waitText("#panel-title", "checkout_v3")
	p.waitFocus("#panel-title")
	equal(t, "current rows", len(p.texts(`#rows tr[aria-current="true"]`)), 1)
}

func TestConsole03_EscapeClosesThePanel(t *testing.T) {
	t.Parallel()
	s, p := console(t, look{})
	s.make("checkout_v2", flags.Rollout, 25, nil)
	p.openLive("/operator/flags?q=check&state=rollout")
	p.click("#flag-checkout_v2 .row-link")
	p.waitFocus("#panel-title")
	p.press(kb.Escape)
	p.wait(`!document.querySelector('#panel > *')`)
	p.waitFocus("#flag-checkout_v2 .row-link")
	equal(t, "address", p.address(), "/operator/flags?q=check&state=rollout")
	p.wait(`document.title === 'Flags · Dezky'`)
	equal(t, "current rows", p.has("#rows tr[aria-current]"), false)
}

func TestConsole04_BackAndForward(t *testing.T) {
	t.Parallel()
	s, p := console(t, look{})
	s.make("checkout_v2", flags.Rollout, 25, nil)
	p.openLive("/operator/flags?q=check")
	p.click("#flag-checkout_v2 .row-link")
	p.waitFocus("#panel-title")
	p.press(kb.Escape)
	p.wait(`!document.querySelector('#panel > *')`)
	s.setPct("checkout_v2", 30) // nobody may see the 25 again
	p.waitText("#flag-checkout_v2", "30%")
	back, forward := `history.back()`, `history.forward()`
	js[chromedp.Void](p, back)
	p.waitText("#panel-title", "checkout_v2")
	equal(t, "address after Back", p.address(), "/operator/flags/checkout_v2?q=check")
	p.waitText("#now", "Rollout 30%")
	js[chromedp.Void](p, back)
	p.wait(`!document.querySelector('#panel > *') && document.querySelector('#rows')`)
	equal(t, "address after Back twice", p.address(), "/operator/flags?q=check")
	js[chromedp.Void](p, forward)
	p.waitText("#panel-title", "checkout_v2")
	equal(t, "address after Forward", p.address(), "/operator/flags/checkout_v2?q=check")
	p.ready()
	equal(t, "event streams", s.count(`^GET /operator/events`), 1)
}

func TestConsole05_AFlagHasItsOwnAddress(t *testing.T) {
	t.Parallel()
	s, p := console(t, look{})
	s.make("checkout_v2", flags.Rollout, 25, nil)
	p.openLive("/operator/flags/checkout_v2")
	equal(t, "title", p.text("#panel-title"), "checkout_v2")
	equal(t, "rows", len(p.rows()), len(s.db.Current().Flags()))
	p.expectStatus(404)
	p.open("/operator/flags/no_such_flag")
	equal(t, "heading", p.text("h1"), "Not found")
	p.loads(func() { p.click(`main a[href="/operator/flags"]`) })
	equal(t, "the way back", p.address(), "/operator/flags")
	status, _ := s.ask(s.cookie(maria), "GET", "/operator/flags/no_such_flag", nil, nil)
	equal(t, "status", status, 404)
}

func TestConsole06_TheFilterHidesRowsAtOnce(t *testing.T) {
	t.Parallel()
	needsBrowser(t)
	s := newSite(t)
	manyFlags(s, 500)
	p := s.tab(maria, look{})
	p.openLive("/operator/flags")
	equal(t, "rows", len(p.rows()), len(s.db.Current().Flags()))
	// What the list shows when the key's own event ends is what the next frame paints.
	js[chromedp.Void](p, `(() => {
		window.seen = []
		const shown = () => [...document.querySelectorAll('#rows tr')].filter(r => !r.hidden).length
		addEventListener('input', e => { const from = performance.now(), n = shown(); document.body.offsetHeight; seen.push({n, at: e.timeStamp, took: performance.now() - from}) })
		addEventListener('htmx:before:request', e => { if (e.detail.ctx.sourceElement?.id === 'q') window.sent = performance.now() })
	})()`)
	p.typeIn("#q", "no_3")
	want := 0
	for _, f := range s.db.Current().Flags() {
		if strings.Contains(f.Key+" "+strings.ToLower(f.Description), "no_3") {
			want++
		}
	}
	p.wait(`window.sent > seen.at(-1).at`)
	seen := js[[]struct{ N, At, Took float64 }](p, `seen`)
	equal(t, "keys", len(seen), 4)
	equal(t, "rows as the last key's event ends", int(seen[3].N), want)
	wait := js[float64](p, `sent - seen.at(-1).at`)
	if wait < 199 { // a timer may be early by its own rounding
		t.Errorf("the server was asked %.0f ms after the last key, want 200", wait)
	}
	p.wait(`performance.getEntriesByType('resource').some(e => e.name.includes('?q=no_3'))`)
	p.wait(`document.querySelector('#list-count').textContent === '` + fmt.Sprint(want) + ` flags'`)
	equalLists(t, "rows after the server's answer", p.rows()[:1], []string{newest(s, "no_3")})
	questions := 1 // and one more for each pause in the typing, which a slow machine makes
	for i := range seen[1:] {
		if seen[i+1].At-seen[i].At > 190 {
			questions++
		}
	}
	if n := s.count(`^GET /operator/flags\?.*q=`); n < 1 || n > questions {
		t.Errorf("%d questions to the server, want %d", n, questions)
	}
	t.Logf("layout after the second key took %.1f ms", seen[1].Took)
}

// manyFlags adds flags until there are n.
func manyFlags(s *site, n int) {
	s.t.Helper()
	states := flags.States
	var d flags.Document
	for i := len(s.db.Current().Flags()); i < n; i++ {
		state, pct := states[i%4], i%101
		description := fmt.Sprintf("What the flag with the number %d is for", i)
		d.Flags = append(d.Flags, flags.NewFlag{Key: fmt.Sprintf("flag_no_%d", i), Patch: flags.Patch{Description: &description, State: &state, Pct: &pct,
			Scope: map[flags.Axis][]string{flags.AxisPlans: []string{"business", "enterprise"}[:i%3]}}})
	}
	if err := s.db.Plant(s.t.Context(), jonas.By(), d); err != nil {
		s.t.Fatal(err)
	}
}

// newest is the first of the flags that match, in the list's own order.
func newest(s *site, text string) string {
	all := slices.Clone(s.db.Current().Flags())
	all = slices.DeleteFunc(all, func(f *flags.Flag) bool { return !strings.Contains(f.Key+" "+strings.ToLower(f.Description), text) })
	slices.SortStableFunc(all, func(a, b *flags.Flag) int { return b.UpdatedAt.Compare(a.UpdatedAt) })
	return all[0].Key
}

func TestConsole07_FocusStaysInFilter(t *testing.T) {
	t.Parallel()
	s, p := console(t, look{})
	s.make("checkout_v2", flags.Rollout, 25, nil)
	p.openLive("/operator/flags")
	js[chromedp.Void](p, `addEventListener('htmx:after:swap', e => { if (e.detail.ctx.target?.id === 'list') window.swapped = (window.swapped ?? 0) + 1 })`)
	p.press("/")
	p.waitFocus("#q")
	p.press("chek")
	p.press(kb.ArrowLeft)
	p.press("c")
	p.wait(`window.swapped && document.querySelector('#rows tr') && document.querySelectorAll('#rows tr').length < 5`)
	equal(t, "focus", p.focus(), "#q")
	equal(t, "text", p.value("#q"), "check")
	equal(t, "caret", js[int](p, `document.querySelector('#q').selectionStart`), 4)
	p.wait(`location.search === '?q=check'`)
}
