package handlers_test

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"net/http"
	"os"
	"strings"
	"sync"
	"testing"

	"github.com/chromedp/chromedp"
	"github.com/chromedp/chromedp/kb"

	"github.com/dezky/platform-api/auth"
	"github.com/dezky/platform-api/db"
	"github.com/dezky/platform-api/db/dbtest"
	"github.com/dezky/platform-api/flags"
)

// scene is a state of the console to be looked at.
type scene struct {
	name    string
	who     auth.Principal
	path    string
	prepare func(p *tab)
	narrow  bool // only where there is a top bar
}

var nobody auth.Principal

// pick chooses a state in the form.
func (p *tab) pick(state flags.State) {
	p.t.Helper()
	p.click(fmt.Sprintf(`.seg label:has([value=%s])`, state))
}

func scenes(s *site) []scene {
	draft := func(p *tab) {
		p.pick(flags.Targeted)
		p.wait(`document.querySelector('#impact summary')`)
		p.click("#impact summary")
		p.wait(`document.querySelector('#impact details').open`)
	}
	askMany := func(p *tab) {
		p.pick(flags.On)
		p.waitText("#save", "gain")
		p.click("#save")
		p.wait(`document.querySelector('#confirm').open`)
	}
	return []scene{
		{name: "list", path: "/operator/flags"},
		{name: "list without a match", path: "/operator/flags?q=nothing_like_it"},
		{name: "list with facets", path: "/operator/flags?partner=nordhost&plan=business"},
		{name: "menu", path: "/operator/flags", narrow: true, prepare: func(p *tab) { p.click(".topbar .menu summary") }},
		{name: "panel", path: "/operator/flags/a_rollout"},
		{name: "panel of a flag that is off", path: "/operator/flags/is_off"},
		{name: "explained", path: "/operator/flags/a_rollout?tenant=polarlab#explain"},
		{name: "draft with names", path: "/operator/flags/a_rollout", prepare: draft},
		{name: "draft for nobody", path: "/operator/flags/a_target", prepare: func(p *tab) {
			p.click("input[name=plan][value=business]")
			p.waitText("#impact", "nobody will get it")
		}},
		{name: "picker", path: "/operator/flags/a_rollout", prepare: func(p *tab) {
			p.typeIn("#tenant-in", "a")
			p.wait(`document.querySelector('#tenant-opts [role=option]')?.checkVisibility()`)
		}},
		{name: "conflict", path: "/operator/flags/contested", prepare: func(p *tab) {
			p.draftPct(s.flag("contested"), 44)
			s.setPct("contested", s.flag("contested").Pct+1)
			p.waitText("#conflict", "Your draft is kept.")
		}},
		{name: "invalid draft", path: "/operator/flags/a_rollout", prepare: func(p *tab) {
			p.fill("#pct-n", "400")
			p.wait(`!document.querySelector('#save').disabled`)
			p.click("#save")
			p.wait(`document.querySelector('#err-pct').textContent.trim()`)
		}},
		{name: "question", path: "/operator/flags/is_off", prepare: askMany},
		{name: "leaving", path: "/operator/flags/a_rollout", prepare: func(p *tab) {
			p.pick(flags.Off)
			p.waitText("#save", "·")
			p.click("[data-close=panel]")
			p.wait(`document.querySelector('#leave').open`)
		}},
		{name: "killed", path: "/operator/flags/to_kill", prepare: func(p *tab) {
			if p.has("#kill") {
				p.click("#kill")
			}
			p.wait(`document.querySelector('#undo')`)
		}},
		{name: "error", path: "/operator/flags/a_rollout", prepare: func(p *tab) {
			_, mend := s.wrong("POST", "/operator/flags/a_rollout/kill", breakDown)
			p.click("#kill")
			p.waitText("#toasts", "Kill is not confirmed")
			mend()
		}},
		{name: "palette", path: "/operator/flags", prepare: func(p *tab) {
			p.press("k", chromedp.ModifierCtrl)
			p.waitFocus("#pal-q")
			p.press("a")
			p.wait(`document.querySelector('#pal-opts mark')`)
		}},
		{name: "new flag", path: "/operator/flags", prepare: func(p *tab) {
			p.press("n")
			p.waitFocus("#nf-k")
			p.press("is_off" + kb.Enter)
			p.waitText("#new-flag", "already exists")
		}},
		{name: "delete", path: "/operator/flags/is_off", prepare: func(p *tab) {
			p.click(".panel .menu summary")
			p.click(".panel .menu a[href*='/delete']")
			p.wait(`document.querySelector('#delete').open`)
		}},
		{name: "keys", path: "/operator/flags", prepare: func(p *tab) {
			p.press("?")
			p.wait(`document.querySelector('#keys').open`)
		}},
		{name: "signed out", path: "/operator/flags/is_off", prepare: func(p *tab) {
			_, mend := s.wrong("GET", "/operator/flags/a_target", func(w http.ResponseWriter, r *http.Request, next http.Handler) {
				r.Header.Del("Cookie")
				next.ServeHTTP(w, r)
			})
			js[chromedp.Void](p, `htmx.ajax('GET', '/operator/flags/a_target', {source: '#panel', target: '#panel', swap: 'innerHTML'})`)
			p.wait(`document.querySelector('#signed-out').open`)
			mend()
		}},
		{name: "panel for a viewer", who: viewer, path: "/operator/flags/a_rollout"},
		{name: "tenants", path: "/operator/tenants"},
		{name: "tenant", path: "/operator/tenants/polarlab"},
		{name: "tenant edited", path: "/operator/tenants/polarlab", prepare: func(p *tab) {
			p.clickText(".page-head", "Edit")
			p.wait(`document.querySelector('#tenant-edit').open`)
		}},
		{name: "audit log", path: "/operator/audit"},
		{name: "tokens", path: "/operator/tokens", prepare: func(p *tab) {
			if !p.has(".maker[open]") {
				p.click(".maker > summary")
			}
		}},
		{name: "status", path: "/operator/status"},
		{name: "settings", path: "/operator/settings"},
		{name: "not found", path: "/operator/flags/no_such_flag"},
		{name: "sign-in", who: nobody, path: "/login"},
		{name: "pasted link", who: nobody, path: "/login/link"},
	}
}

// stage opens a site with the flags that the scenes need, and little else: axe looks at everything.
func stage(t *testing.T) *site {
	t.Helper()
	d := dbtest.Open(t)
	doc := flags.Document{}
	for _, slug := range []string{"mailbyen", "nordhost"} {
		doc.Partners = append(doc.Partners, flags.PartnerPatch{Slug: &slug, Name: &slug})
	}
	for i, slug := range []string{"alfa", "bravo", "charlie", "delta", "echo", "foxtrot", "golf", "hotel", "india", "juliett", "kilo", "lima", "polarlab"} {
		id, name, partner := fmt.Sprintf("%024d", i), strings.ToUpper(slug[:1])+slug[1:]+" AS", []string{"nordhost", "nordhost", "nordhost", "mailbyen", ""}[i%5]
		doc.Tenants = append(doc.Tenants, flags.TenantPatch{ID: &id, Slug: &slug, Name: &name, Plan: &flags.Plans[i%3], PartnerSlug: &partner})
	}
	if err := d.Plant(t.Context(), jonas.By(), doc); err != nil {
		t.Fatal(err)
	}
	s := serve(t, d)
	s.make("is_on", flags.On, 0, nil)
	s.make("a_rollout", flags.Rollout, 5, map[flags.Axis][]string{flags.AxisPlans: {"business", "enterprise"}, flags.AxisPartners: {"nordhost"}})
	s.setPct("a_rollout", 25)
	s.make("a_target", flags.Targeted, 0, map[flags.Axis][]string{flags.AxisPlans: {"business"}})
	s.make("contested", flags.Rollout, 10, nil)
	s.make("to_kill", flags.Rollout, 60, nil)
	s.make("is_off", flags.Off, 0, map[flags.Axis][]string{flags.AxisPlans: {"business"}})
	for _, name := range []string{"billing", "webmail"} {
		if _, _, err := d.CreateToken(t.Context(), jonas.By(), db.NewToken{Name: name, Role: "evaluate"}); err != nil {
			t.Fatal(err)
		}
	}
	return s
}

// play shows each scene at a width to look, in one window a person.
func play(t *testing.T, s *site, at size, only func(scene) bool, see func(p *tab, sc scene)) {
	t.Helper()
	tabs := map[string]*tab{}
	for _, sc := range scenes(s) {
		if sc.narrow && at.width > 760 || only != nil && !only(sc) {
			continue
		}
		who := sc.who
		if who.Name == "" && !strings.HasPrefix(sc.path, "/login") {
			who = maria
		}
		p := tabs[who.Name]
		if p == nil {
			p = s.tab(who, look{size: at})
			for _, status := range []int{401, 404, 422, 428, 500} {
				p.expectStatus(status)
			}
			tabs[who.Name] = p
		}
		p.open(sc.path)
		if who.Name != "" {
			p.ready()
		}
		if sc.prepare != nil {
			sc.prepare(p)
		}
		see(p, sc)
		js[chromedp.Void](p, `sessionStorage.clear()`) // the next scene begins without a draft
	}
}

const axeHash = "29348999450cdf2849a8e70b7912fc2da85a849da39c0d0d5394f51d4a9ed95c" // of version 4.14.1, as npm has it

var axe = sync.OnceValues(func() (string, error) {
	b, err := os.ReadFile("testdata/axe/axe.min.js")
	return string(b), err
})

func TestAxeIsAsPublished(t *testing.T) {
	text, err := axe()
	if err != nil {
		t.Fatal(err)
	}
	sum := sha256.Sum256([]byte(text))
	equal(t, "sha256 of axe.min.js", hex.EncodeToString(sum[:]), axeHash)
	equal(t, "version", strings.HasPrefix(text, "/*! axe v4.14.1\n"), true)
}

// still waits until nothing moves.
const still = `Promise.all(document.getAnimations().filter(a => a.effect.getComputedTiming().endTime < Infinity).map(a => a.finished.catch(() => {})))`

// audit has axe look at the page: by all rules, or by those alone that colours decide.
func (p *tab) audit(what string, coloursOnly bool) {
	p.t.Helper()
	script, err := axe()
	if err != nil {
		p.t.Fatal(err)
	}
	if js[bool](p, `typeof axe === 'undefined'`) {
		js[chromedp.Void](p, script+";void 0")
	}
	only := `{type: 'tag', values: ['wcag2a', 'wcag2aa', 'wcag21a', 'wcag21aa', 'wcag22aa', 'best-practice']}`
	if coloursOnly {
		only = `{type: 'rule', values: ['color-contrast', 'link-in-text-block']}`
	}
	found := js[[]string](p, still+`.then(() => axe.run(document, {
		runOnly: `+only+`, resultTypes: ['violations'], preload: false,
	})).then(r => r.violations.flatMap(v => v.nodes.slice(0, 3).map(n => v.id + ': ' + n.target.join(' ') + ' ' + n.html.slice(0, 140) + ' ' + (n.any[0] ?? n.all[0] ?? n.none[0])?.message)))`)
	for _, text := range found {
		p.t.Errorf("%s: %s", what, text)
	}
}

func TestConsole37_Axe(t *testing.T) {
	t.Parallel()
	for _, at := range []size{{1280, 2600}, {1024, 2600}, {390, 2600}} {
		t.Run(fmt.Sprint(at.width), func(t *testing.T) {
			t.Parallel()
			needsBrowser(t)
			s := stage(t)
			s.log.fine = true // one scene breaks the server
			var only func(scene) bool
			if at.width == 1024 {
				only = func(sc scene) bool { return sc.name == "list" || sc.name == "panel" || sc.name == "draft with names" }
			}
			play(t, s, at, only, func(p *tab, sc scene) {
				for _, theme := range []string{"light", "dark"} {
					p.media(map[string]string{"prefers-color-scheme": theme})
					p.audit(fmt.Sprintf("%s, %s", sc.name, theme), theme == "dark")
				}
			})
		})
	}
}

func TestConsole38_StatesWithoutColour(t *testing.T) {
	t.Parallel()
	s, p := console(t, look{})
	s.make("is_on", flags.On, 0, nil)
	s.make("is_off", flags.Off, 0, nil)
	s.make("is_targeted", flags.Targeted, 0, nil)
	s.make("is_rollout", flags.Rollout, 40, nil)
	s.make("is_rollout_too", flags.Rollout, 80, nil)
	p.openLive("/operator/flags")
	// Shape and word tell them apart: what is drawn, without any colour.
	shapes, words := map[string]string{}, map[string]string{}
	for _, key := range []string{"is_on", "is_off", "is_targeted", "is_rollout", "is_rollout_too"} {
		shape := js[string](p, `[...document.querySelectorAll('#flag-`+key+` .state svg *')].map(e => { const c = getComputedStyle(e); return [e.tagName, ...[...e.attributes].filter(a => !['class', 'fill', 'stroke'].includes(a.name)).map(a => a.name + '=' + a.value), c.fill === 'none' ? 'hollow' : 'filled', c.stroke === 'none' ? '' : 'drawn', c.strokeDasharray].join(' ') }).join('|')`)
		word := p.textOf("#flag-" + key + " .state")
		if other, taken := shapes[shape]; taken || shape == "" {
			t.Errorf("%s and %s have the same shape %q", key, other, shape)
		}
		if other, taken := words[word]; taken || word == "" {
			t.Errorf("%s and %s have the same word %q", key, other, word)
		}
		shapes[shape], words[word] = key, key
	}
	equal(t, "words", p.textOf("#flag-is_rollout .state"), "Rollout 40%")
	// Gain and lose differ by their signs.
	p.openLive("/operator/flags/is_rollout")
	p.fill("#pct-n", "90")
	p.waitText("#impact .delta.gain", "+")
	p.fill("#pct-n", "5")
	p.waitText("#impact .delta.lose", "−")
}

// What is too wide for the window, by the elements that stick out.
const tooWide = `(() => {
	const e = document.scrollingElement
	if (e.scrollWidth <= innerWidth) return []
	return ['the page is ' + e.scrollWidth + ' wide', ...[...document.body.querySelectorAll('*')].filter(x => x.checkVisibility() && x.getBoundingClientRect().right > innerWidth + 1).slice(0, 4).map(x => x.outerHTML.slice(0, 100))]
})()`

// Controls that are smaller than 24 by 24, are not part of a sentence, and have another control within 12 of
// their middle (WCAG 2.2, 2.5.8). A hidden input counts with its label, a row's link with its row.
const tooSmall = `(() => {
	const all = [...document.querySelectorAll('a[href], button, input:not([type=hidden]), select, textarea, summary, [role=option]')]
		.filter(e => e.checkVisibility({visibilityProperty: true}) && !e.closest('.sr, .skip') && !e.matches('.sr, .default'))
		.map(e => [e, (e.matches('.row-link') ? e.closest('tr') : e.matches('input') && e.closest('label') || e).getBoundingClientRect()])
		.filter(([, r]) => r.width && r.height)
		.filter(([e, r]) => (top => top && (e.contains(top) || top.contains(e) || e.closest('label, tr')?.contains(top)))(document.elementFromPoint(r.x + r.width / 2, r.y + r.height / 2)))
	const small = r => r.width < 23.5 || r.height < 23.5
	const near = (x, y, r) => Math.hypot(x - Math.max(r.left, Math.min(x, r.right)), y - Math.max(r.top, Math.min(y, r.bottom))) < 12
	return all.filter(([e, r]) => small(r) && !e.matches('p a, dd a, td a') && all.some(([o, b]) => o !== e && !o.matches('.row-link') &&
		near(r.x + r.width / 2, r.y + r.height / 2, small(b) ? {left: b.x + b.width / 2 - 12, right: b.x + b.width / 2 + 12, top: b.y + b.height / 2 - 12, bottom: b.y + b.height / 2 + 12} : b)))
		.map(([e, r]) => Math.round(r.width) + '×' + Math.round(r.height) + ' ' + e.outerHTML.slice(0, 100))
})()`

func TestConsole39_NothingIsCutOffOrCovered(t *testing.T) {
	t.Parallel()
	widths := []int64{320, 390, 760, 1024, 1280, 1920}
	t.Run("widths", func(t *testing.T) {
		t.Parallel()
		needsBrowser(t)
		s := stage(t)
		s.log.fine = true
		play(t, s, size{1280, 800}, nil, func(p *tab, sc scene) {
			for _, width := range widths {
				p.resize(size{width, 800})
				equalLists(t, fmt.Sprintf("%s at %d: too wide", sc.name, width), js[[]string](p, tooWide), []string{})
				if width == 390 || width == 1280 {
					equalLists(t, fmt.Sprintf("%s at %d: smaller than 24 px", sc.name, width), js[[]string](p, tooSmall), []string{})
				}
			}
			p.resize(size{1280, 800})
		})
	})
	for _, at := range []size{desktop, phone} {
		t.Run(fmt.Sprintf("focus at %d", at.width), func(t *testing.T) {
			t.Parallel()
			needsBrowser(t)
			s := stage(t)
			p := s.tab(maria, look{size: at})
			p.openLive("/operator/flags/a_rollout")
			p.draftPct(s.flag("a_rollout"), 90)
			js[chromedp.Void](p, `document.querySelector('#panel-title').focus()`)
			met := map[string]bool{}
			for range 80 {
				p.press(kb.Tab)
				at := js[struct {
					Name    string
					Covered bool
					By      string
				}](p, `(e => {
					const box = e.matches('input[type=radio], input[type=checkbox]') ? e.closest('label') : e.matches('.row-link') ? e.closest('tr') : e
					const r = box.getBoundingClientRect()
					const inside = (x, y) => { const top = document.elementFromPoint(x, y); return top && (box.contains(top) || top.contains(box) && top !== document.documentElement && top !== document.body) ? '' : top ? top.outerHTML.slice(0, 80) : 'the edge' }
					const points = [[.5, .5], [.1, .2], [.9, .2], [.1, .8], [.9, .8]].map(([x, y]) => inside(r.x + r.width * x, r.y + r.height * y))
					return {name: e === document.body ? '' : e.id || e.name || e.className + ' ' + e.textContent.trim().slice(0, 30), covered: points.filter(p => p).length > 2, by: points.find(p => p) ?? ''}
				})(document.activeElement)`)
				if at.Name != "" && at.Covered {
					t.Errorf("the focus on %s is covered by %s", at.Name, at.By)
				}
				met[at.Name] = true
			}
			for _, name := range []string{"pct", "pct-n", "plan", "partner-in", "tenant-in", "ex-t", "save"} {
				if !met[name] {
					t.Errorf("Tab does not reach %s", name)
				}
			}
		})
	}
}

func TestConsole40_MotionColoursAndSettings(t *testing.T) {
	t.Parallel()
	t.Run("reduced motion", func(t *testing.T) {
		t.Parallel()
		needsBrowser(t)
		s := newSite(t)
		f := s.make("checkout_v2", flags.Rollout, 25, nil)
		p := s.tab(maria, look{features: map[string]string{"prefers-reduced-motion": "reduce"},
			onStart: `window.moved = []; for (const name of ['animationstart', 'transitionstart']) addEventListener(name, e => { for (const a of e.target.getAnimations()) moved.push([e.animationName ?? e.propertyName, a.effect.getComputedTiming().activeDuration]) }, true)`})
		p.openLive("/operator/flags/checkout_v2")
		p.draftPct(f, 30)
		p.click("#save")
		p.waitVersion(2)
		s.setPct("checkout_v2", 31)
		p.waitVersion(3)
		p.click("#impact summary, .panel .menu summary")
		for _, m := range js[[][]any](p, `moved`) {
			if ms, ok := m[1].(float64); ok && ms > 1 {
				t.Errorf("%v moves for %.1f ms", m[0], ms)
			}
		}
	})
	t.Run("forced colors", func(t *testing.T) {
		t.Parallel()
		needsBrowser(t)
		s := newSite(t)
		s.make("checkout_v2", flags.Rollout, 25, map[flags.Axis][]string{flags.AxisPlans: {"business"}})
		p := s.tab(maria, look{features: map[string]string{"forced-colors": "active"}})
		p.openLive("/operator/flags/checkout_v2")
		edge := func(selector string) bool { // an outline or a border that is drawn
			return js[bool](p, `(e => { const c = getComputedStyle(e); return c.outlineStyle !== 'none' && parseFloat(c.outlineWidth) >= 1 || c.borderTopStyle !== 'none' && parseFloat(c.borderTopWidth) >= 1 })(document.querySelector(`+quote(selector)+`))`)
		}
		for _, selector := range []string{".seg label:has(:checked)", ".pick:has(:checked)", `#rows tr[aria-current]`, `.nav a[aria-current]`, `#pills a[aria-current]`, `.flag-row .bar`} {
			equal(t, "an edge of "+selector, edge(selector), true)
		}
		outline := func(selector string) string {
			return js[string](p, `(c => c.outlineStyle + ' ' + c.outlineWidth + ' ' + c.outlineColor)(getComputedStyle(document.querySelector(`+quote(selector)+`)))`)
		}
		if chosen, other := outline(".seg label:has(:checked)"), outline(".seg label:not(:has(:checked))"); chosen == other {
			t.Errorf("a chosen state looks as the others do: %s", chosen)
		}
		p.press(kb.Tab)
		equal(t, "the focus", js[bool](p, `(c => c.outlineStyle !== 'none' && parseFloat(c.outlineWidth) >= 2)(getComputedStyle(document.activeElement))`), true)
	})
	t.Run("settings", func(t *testing.T) {
		t.Parallel()
		s, p := console(t, look{features: map[string]string{"prefers-color-scheme": "light"}})
		p.openLive("/operator/flags")
		tall := js[float64](p, `document.querySelector('#rows tr').getBoundingClientRect().height`)
		p.openLive("/operator/settings")
		p.click(`label:has([name=theme][value=dark])`)
		p.click(`label:has([name=density][value=compact])`)
		p.click(`label:has([name=keys])`)
		p.loads(func() { p.clickText("main", "Save settings") })
		p.openLive("/operator/flags")
		p.reload()
		equal(t, "theme", p.attr("html", "data-theme"), "dark")
		equal(t, "density", p.attr("html", "data-density"), "compact")
		equal(t, "scheme", js[string](p, `getComputedStyle(document.documentElement).colorScheme`), "dark")
		equal(t, "lower rows", js[float64](p, `document.querySelector('#rows tr').getBoundingClientRect().height`) < tall, true)
		p.press("n")
		p.press("k", chromedp.ModifierCtrl)
		p.wait(`document.querySelector('#palette').open`)
		equal(t, "the dialog of the key n, which is off", p.has("#new-flag"), false)
		// There is no flash: the server's own answer has it, before any script.
		plain := s.tab(maria, look{noScript: true})
		plain.open("/operator/settings")
		plain.click(`label:has([name=theme][value=dark])`)
		plain.loads(func() { plain.clickText("main", "Save settings") })
		plain.open("/operator/flags")
		equal(t, "theme without a script", plain.attr("html", "data-theme"), "dark")
	})
}
