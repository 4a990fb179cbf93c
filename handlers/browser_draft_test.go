package handlers_test

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/chromedp/chromedp"
	"github.com/chromedp/chromedp/kb"

	"github.com/dezky/platform-api/auth"
	"github.com/dezky/platform-api/flags"
)

// reaches is how many tenants a rollout at pct reaches in production.
func reaches(s *site, f *flags.Flag, pct int) string {
	d := with(f, func(c *flags.Flag) { c.State, c.Pct = flags.Rollout, pct })
	return fmt.Sprintf("%d of %d tenants", len(s.who(d, "production")), len(s.db.Current().Tenants()))
}

func TestConsole08_TheSliderCountsAtEveryStep(t *testing.T) {
	t.Parallel()
	s, p := console(t, look{})
	f := s.make("checkout_v2", flags.Rollout, 25, map[flags.Axis][]string{flags.AxisPlans: {"business", "enterprise"}})
	p.openLive("/operator/flags/checkout_v2")
	steps := js[[]struct {
		Value int
		Out   string
	}](p, `new Promise(done => {
		const r = document.querySelector('#pct'), seen = []
		const step = () => {
			r.stepUp()
			r.dispatchEvent(new Event('input', {bubbles: true}))
			seen.push({value: +r.value, out: document.querySelector('#pct-out').textContent.trim()})
			if (seen.length < 20) requestAnimationFrame(step); else done(seen)
		}
		step()
	})`)
	for i, step := range steps {
		equal(t, "value", step.Value, 26+i)
		equal(t, fmt.Sprintf("count at %d %%", step.Value), step.Out, reaches(s, f, step.Value))
	}
	p.waitEffect(s.effect(f, withPct(f, 45), "production"))
	if n := s.count(`^POST /operator/flags/checkout_v2/impact`); n > 2 {
		t.Errorf("%d impact requests for twenty steps, want at most 2", n)
	}
	equal(t, "number field", p.value("#pct-n"), "45")

	// The keys of a slider, the number field and the steps write the same value.
	js[chromedp.Void](p, `document.querySelector('#pct').focus()`)
	for _, key := range []struct {
		name, key string
		want      int
	}{{"right", kb.ArrowRight, 46}, {"page up", kb.PageUp, 56}, {"left", kb.ArrowLeft, 55}, {"home", kb.Home, 0}, {"end", kb.End, 100}} {
		p.press(key.key)
		equal(t, key.name, p.value("#pct"), strconv.Itoa(key.want))
		equal(t, "count after "+key.name, p.textOf("#pct-out"), reaches(s, f, key.want))
	}
	p.click(`[data-pct="10"]`)
	equal(t, "slider after a step button", p.value("#pct"), "10")
	equal(t, "pressed", p.attr(`[data-pct="10"]`, "aria-pressed"), "true")
	p.fill("#pct-n", "33")
	equal(t, "slider after the number field", p.value("#pct"), "33")
	equal(t, "count", p.textOf("#pct-out"), reaches(s, f, 33))
}

func TestConsole09_TheSliderAgreesWithTheServer(t *testing.T) {
	t.Parallel()
	s, p := console(t, look{})
	f := s.make("checkout_v2", flags.Rollout, 25, nil)
	p.openLive("/operator/flags/checkout_v2")
	draft := withPct(f, 60)
	p.fill("#pct-n", "60")
	agree := func() {
		t.Helper()
		e := s.effect(f, draft, "production")
		p.waitEffect(e)
		want := fmt.Sprintf("%d of %d tenants", e.after, e.total)
		p.waitText("#pct-out", want)
		said := fmt.Sprintf("%d → %d of %d", e.before, e.after, e.total)
		if len(e.gains)+len(e.losses) == 0 {
			said = fmt.Sprintf("Stays at %d of %d", e.after, e.total)
		}
		p.waitText("#impact", said)
	}
	agree()
	for _, step := range []struct {
		click string
		do    func(*flags.Flag)
	}{
		{`input[name=plan][value=business]`, func(c *flags.Flag) { c.Scope.Plans = []string{"business"} }},
		{`input[name=plan][value=starter]`, func(c *flags.Flag) { c.Scope.Plans = []string{"business", "starter"} }},
		{`input[name=env][value=staging]`, func(c *flags.Flag) { c.Scope.Environments = []string{"staging"} }},
		{`input[name=env][value=production]`, func(c *flags.Flag) { c.Scope.Environments = []string{"production", "staging"} }},
		{`input[name=plan][value=business]`, func(c *flags.Flag) { c.Scope.Plans = []string{"starter"} }},
	} {
		p.click(step.click)
		draft = with(draft, step.do)
		agree()
	}
	p.addChip("partner", "nordhost", "nordhost")
	draft = with(draft, func(c *flags.Flag) { c.Scope.PartnerSlugs = []string{"nordhost"} })
	agree()
}

// addChip adds a value to an axis by its combobox.
func (p *tab) addChip(axis, typed, value string) {
	p.t.Helper()
	p.typeIn("#"+axis+"-in", typed)
	p.wait(`document.querySelector('#` + axis + `-opts [role=option][data-value="` + value + `"]')?.checkVisibility()`)
	p.press(kb.ArrowDown)
	p.wait(`(e => e && e.dataset.value === ` + quote(value) + `)(document.getElementById(document.querySelector('#` + axis + `-in').getAttribute('aria-activedescendant')))`)
	p.press(kb.Enter)
	p.wait(`document.querySelector('#` + axis + `-chips .chip[data-value="` + value + `"]')`)
}

func TestConsole10_EveryDraftNamesWhoGainsAndWhoLoses(t *testing.T) {
	t.Parallel()
	s, p := console(t, look{})
	f := s.make("checkout_v2", flags.Targeted, 40, map[flags.Axis][]string{flags.AxisPlans: {"business"}})
	p.openLive("/operator/flags/checkout_v2")
	check := func(name string, draft *flags.Flag) {
		t.Helper()
		e := s.effect(f, draft, "production")
		p.waitEffect(e)
		equal(t, name+": total", strings.Contains(p.textOf("#impact"), fmt.Sprintf("%d → %d of %d", e.before, e.after, e.total)), true)
		if !p.has("#impact details[open]") {
			p.click("#impact summary")
		}
		if p.has("#impact .names button") {
			equal(t, name+": first names", len(p.texts("#impact .who-list")), min(len(e.gains), 1)+min(len(e.losses), 1))
			p.clickText("#impact .names", "Show more")
			p.wait(fmt.Sprintf(`document.querySelectorAll('#impact .nm').length === %d`, len(e.gains)+len(e.losses)))
		}
		slices.Sort(e.gains)
		slices.Sort(e.losses)
		equalLists(t, name+": gains", slices.Sorted(slices.Values(p.named("+"))), e.gains)
		equalLists(t, name+": losses", slices.Sorted(slices.Values(p.named("−"))), e.losses)
	}
	p.click(`input[name=plan][value=enterprise]`)
	check("one plan more", with(f, func(c *flags.Flag) { c.Scope.Plans = []string{"business", "enterprise"} }))
	p.click(`input[name=plan][value=business]`)
	check("another plan", with(f, func(c *flags.Flag) { c.Scope.Plans = []string{"enterprise"} }))
	p.click(`.seg label:has([value=rollout])`)
	check("a rollout to another plan", with(f, func(c *flags.Flag) { c.State, c.Scope.Plans = flags.Rollout, []string{"enterprise"} }))
	p.click(`.seg label:has([value=on])`)
	check("on", with(f, func(c *flags.Flag) { c.State = flags.On }))
	p.click(`.seg label:has([value=off])`)
	check("off", with(f, func(c *flags.Flag) { c.State = flags.Off }))
	js[chromedp.Void](p, `document.querySelector('button[type=reset]').click()`)
	p.wait(`document.querySelector('#foot').hasAttribute('data-clean')`)
}

// named is the names that the impact lists with a sign.
func (p *tab) named(sign string) []string {
	p.t.Helper()
	return js[[]string](p, `[...document.querySelectorAll('#impact .who-list li')].filter(l => l.querySelector('i').textContent === `+quote(sign)+`).map(l => l.querySelector('.nm').textContent.trim())`)
}

func TestConsole11_SaveNamesItsEffect(t *testing.T) {
	t.Parallel()
	s, p := console(t, look{})
	f := s.make("checkout_v2", flags.Targeted, 0, map[flags.Axis][]string{flags.AxisPlans: {"business"}})
	p.openLive("/operator/flags/checkout_v2")
	equal(t, "Save is disabled", js[bool](p, `document.querySelector('#save').disabled`), true)
	equal(t, "foot", p.dirty(), false)
	p.click(`input[name=plan][value=enterprise]`)
	p.click(`input[name=plan][value=business]`)
	e := s.effect(f, with(f, func(c *flags.Flag) { c.Scope.Plans = []string{"enterprise"} }), "production")
	if len(e.gains) == 0 || len(e.losses) == 0 {
		t.Fatalf("the demo registry has nobody to gain or to lose: %+v", e)
	}
	p.waitEffect(e)
	equal(t, "label", strings.HasPrefix(p.textOf("#save"), fmt.Sprintf("Save · %d gain, %d lose", len(e.gains), len(e.losses))), true)
	equal(t, "Save is disabled with a draft", js[bool](p, `document.querySelector('#save').disabled`), false)
	equal(t, "fields", p.textOf("#what"), "1 unsaved change plan")
	p.clickText("#foot", "Discard")
	p.wait(`document.querySelector('#save').disabled`)
	equal(t, "foot after Discard", p.dirty(), false)
	equal(t, "plans after Discard", js[string](p, `[...document.querySelectorAll('input[name=plan]:checked')].map(e => e.value).join()`), "business")
	equal(t, "version", s.flag("checkout_v2").Version, f.Version)
}

func TestConsole12_TargetedWithoutRulesIsNobody(t *testing.T) {
	t.Parallel()
	s, p := console(t, look{})
	s.make("checkout_v2", flags.Targeted, 0, map[flags.Axis][]string{flags.AxisPlans: {"business"}})
	p.openLive("/operator/flags/checkout_v2")
	equal(t, "warning with a rule", strings.Contains(p.textOf("#impact"), "nobody will get it"), false)
	p.click(`input[name=plan][value=business]`)
	p.waitText("#impact", "No rules: nobody will get it.")
	p.wait(`document.querySelector('#impact .notice').checkVisibility()`)
	p.click(`.seg label:has([value=rollout])`)
	p.wait(`!document.querySelector('#impact').textContent.includes('nobody will get it')`)
	equal(t, "hint", p.textOf("#tgt-hint"), "Every row that has chips must match")
	p.click(`.seg label:has([value=off])`)
	p.waitText("#tgt-hint", "Kept, not used while Off")
}

func TestConsole13_LessReachIsSavedAtOnce(t *testing.T) {
	t.Parallel()
	s, p := console(t, look{})
	f := s.make("checkout_v2", flags.On, 0, map[flags.Axis][]string{flags.AxisPlans: {"business"}})
	p.openLive("/operator/flags/checkout_v2")
	p.click(`.seg label:has([value=targeted])`)
	e := s.effect(f, with(f, func(c *flags.Flag) { c.State = flags.Targeted }), "production")
	p.waitEffect(e)
	p.click("#save")
	p.waitVersion(2)
	equal(t, "a dialog", p.has("#dialogs dialog"), false)
	equal(t, "state", s.flag("checkout_v2").State, flags.Targeted)
	p.waitText("#toasts", fmt.Sprintf("%d tenants lost it.", len(e.losses)))
	p.waitFocus("#now")
	p.waitText("#flag-checkout_v2", "Targeted")
	equal(t, "foot", p.dirty(), false)
	p.click("#toasts .undo")
	p.waitVersion(3)
	equal(t, "state after Undo", s.flag("checkout_v2").State, flags.On)

	// Up to ten tenants gain without a question, because the button said so.
	few := s.make("few_tenants", flags.Targeted, 0, map[flags.Axis][]string{flags.AxisTenants: {"dezky"}})
	p.openLive("/operator/flags/few_tenants")
	p.addChip("tenant", "polarlab", "polarlab")
	p.waitEffect(s.effect(few, with(few, func(c *flags.Flag) { c.Scope.TenantSlugs = []string{"dezky", "polarlab"} }), "production"))
	p.press("s", chromedp.ModifierCtrl)
	p.waitVersion(2)
	equalLists(t, "tenants", s.flag("few_tenants").Scope.TenantSlugs, []string{"dezky", "polarlab"})
}

// ask opens a draft by which everybody gains, and presses Save.
func askForMany(t *testing.T) (*site, *tab, *flags.Flag) {
	t.Helper()
	s, p := console(t, look{})
	f := s.make("checkout_v2", flags.Off, 0, map[flags.Axis][]string{flags.AxisPlans: {"business"}})
	p.openLive("/operator/flags/checkout_v2")
	p.click(`.seg label:has([value=on])`)
	p.waitEffect(s.effect(f, with(f, func(c *flags.Flag) { c.State = flags.On }), "production"))
	p.expectStatus(428)
	p.click("#save")
	p.wait(`document.querySelector('#confirm').open`)
	return s, p, f
}

func TestConsole14_MuchMoreReachIsAskedAboutOnce(t *testing.T) {
	t.Parallel()
	s, p, f := askForMany(t)
	n := len(s.db.Current().Tenants())
	equal(t, "question", p.textOf("#confirm h2"), fmt.Sprintf("Turn on checkout_v2 for %d more tenants?", n))
	p.wait(`document.activeElement.textContent.trim() === 'Keep editing'`)
	enterprise := 0
	for _, tenant := range s.db.Current().Tenants() {
		if tenant.Plan == "enterprise" {
			enterprise++
		}
	}
	equal(t, "plans", strings.Contains(p.textOf("#cf-d"), fmt.Sprintf("%d of them on the enterprise plan.", enterprise)), true)
	p.press(kb.Escape)
	p.wait(`!document.querySelector('#dialogs dialog[open]')`)
	equal(t, "version after Esc", s.flag("checkout_v2").Version, f.Version)
	equal(t, "draft after Esc", p.dirty(), true)
	equal(t, "state of the draft", js[string](p, `document.querySelector('[name=state]:checked').value`), "on")
	p.waitFocus("#save")
	p.click("#save")
	p.wait(`document.querySelector('#confirm').open`)
	p.fill("#cf-note", "The launch")
	p.clickText("#confirm", fmt.Sprintf("Turn on for %d tenants", n))
	p.waitVersion(2)
	p.wait(`!document.querySelector('#dialogs dialog')`)
	equal(t, "state", s.flag("checkout_v2").State, flags.On)
	p.waitText("#history .log", "The launch")
}

func TestConsole15_AnotherNumberIsAskedAboutAgain(t *testing.T) {
	t.Parallel()
	s, p, f := askForMany(t)
	n := len(s.db.Current().Tenants())
	name, slug, plan := "Latecomer", "latecomer", "business"
	if _, err := s.db.CreateTenant(t.Context(), jonas.By(), flags.TenantPatch{Name: &name, Slug: &slug, Plan: &plan}); err != nil {
		t.Fatal(err)
	}
	p.clickText("#confirm", fmt.Sprintf("Turn on for %d tenants", n))
	p.waitText("#confirm h2", fmt.Sprintf("for %d more tenants?", n+1))
	equal(t, "version", s.flag("checkout_v2").Version, f.Version)
	p.clickText("#confirm", fmt.Sprintf("Turn on for %d tenants", n+1))
	p.waitVersion(2)
	equal(t, "state", s.flag("checkout_v2").State, flags.On)
}

func TestConsole16_KillIsOneClick(t *testing.T) {
	t.Parallel()
	s, p := console(t, look{})
	f := s.make("checkout_v2", flags.Rollout, 25, map[flags.Axis][]string{flags.AxisPlans: {"business", "enterprise"}})
	killed := func(what string, version int64) {
		t.Helper()
		p.waitVersion(version)
		now := s.flag("checkout_v2")
		equal(t, what+": state", now.State, flags.Off)
		equal(t, what+": percent", now.Pct, 0)
		equalLists(t, what+": plans", now.Scope.Plans, f.Scope.Plans)
		equal(t, what+": draft", p.dirty(), false)
		p.waitText("#flag-checkout_v2", "Off")
		equal(t, what+": a dialog", p.has("dialog[open]"), false)
	}
	p.openLive("/operator/flags/checkout_v2")
	p.click("#kill")
	killed("plain", 2)
	p.waitText("#toasts", "checkout_v2 is off.")
	p.waitText("#toasts", fmt.Sprintf("%d tenants lost it", len(s.who(f, "production"))))
	equal(t, "kill switch while off", p.has("#kill"), false)

	s.patch("checkout_v2", flags.Patch{State: new(flags.Rollout), Pct: new(25)})
	p.waitVersion(3)
	p.fill("#pct-n", "77")
	p.wait(`!document.querySelector('#foot').hasAttribute('data-clean')`)
	p.click("#kill")
	killed("with a draft", 4)

	s.patch("checkout_v2", flags.Patch{State: new(flags.Rollout), Pct: new(25)})
	p.waitVersion(5)
	p.fill("#pct-n", "77")
	p.wait(`!document.querySelector('#foot').hasAttribute('data-clean')`)
	s.setPct("checkout_v2", 60)
	p.waitText("#stale", "jonas@dezky.example")
	p.click("#kill")
	killed("with a stale version", 7)
	equal(t, "restored drafts", js[int](p, `Object.keys(sessionStorage).filter(k => k.includes('checkout_v2')).length`), 0)
}

func TestConsole17_UndoOfAKill(t *testing.T) {
	t.Parallel()
	for _, way := range []struct {
		name string
		undo func(p *tab)
	}{
		{"the button that has the focus", func(p *tab) { p.press(kb.Enter) }},
		{"the key u", func(p *tab) { p.press("u") }},
		{"the toast", func(p *tab) { p.click("#toasts .undo") }},
	} {
		t.Run(way.name, func(t *testing.T) {
			t.Parallel()
			s, p := console(t, look{})
			f := s.make("checkout_v2", flags.Rollout, 25, map[flags.Axis][]string{
				flags.AxisPlans: {"business", "enterprise"}, flags.AxisPartners: {"nordhost"}, flags.AxisEnvironments: {"production"}})
			p.openLive("/operator/flags/checkout_v2")
			p.click("#kill")
			p.waitVersion(2)
			p.waitFocus("#undo")
			equal(t, "label", p.textOf("#undo"), "Undo kill")
			p.waitText("#now", "killed just now by you")
			p.wait(`document.querySelector('#toasts .undo')`)
			way.undo(p)
			p.waitVersion(3)
			now := s.flag("checkout_v2")
			if !now.SameContent(f) {
				t.Errorf("after Undo the flag is %+v, want %+v", now, f)
			}
			p.waitText("#now", "Rollout 25%")
		})
	}
}

func TestConsole18_UndoDoesNotOverwriteAnother(t *testing.T) {
	t.Parallel()
	s, p := console(t, look{})
	s.make("checkout_v2", flags.Rollout, 25, nil)
	p.openLive("/operator/flags/checkout_v2")
	p.click("#kill")
	p.waitVersion(2)
	p.wait(`document.querySelector('#toasts .undo')`)
	s.patch("checkout_v2", flags.Patch{State: new(flags.On)})
	p.waitVersion(3)
	p.click("#toasts .undo")
	p.wait(`!document.querySelector('#foot').hasAttribute('data-clean')`)
	equal(t, "version", s.flag("checkout_v2").Version, int64(3))
	equal(t, "state", s.flag("checkout_v2").State, flags.On)
	equal(t, "state of the draft", js[string](p, `document.querySelector('[name=state]:checked').value`), "rollout")
	equal(t, "percent of the draft", p.value("#pct-n"), "25")
	p.waitText("#announce", "The flag has changed since")
	p.waitEffect(s.effect(s.flag("checkout_v2"), with(s.flag("checkout_v2"), func(c *flags.Flag) { c.State, c.Pct = flags.Rollout, 25 }), "production"))
}

// conflictRows is the table of a conflict card, a line a row.
func (p *tab) conflictRows() []string {
	p.t.Helper()
	return js[[]string](p, `[...document.querySelectorAll('#conflict tbody tr')].map(r => [...r.children].map(c => c.textContent.trim()).join(' | '))`)
}

func TestConsole19_TheSecondSaveIsRefused(t *testing.T) {
	t.Parallel()
	s, p := console(t, look{})
	f := s.make("checkout_v2", flags.Rollout, 10, map[flags.Axis][]string{flags.AxisPlans: {"enterprise"}})
	p.openLive("/operator/flags/checkout_v2")
	p.draftPct(f, 50)
	p.expectLoss("/operator/events")
	s.cutStreams() // so that the save is the first to meet the change
	p.wait(`document.querySelector('#live-state').dataset.state !== 'live'`)
	s.patch("checkout_v2", flags.Patch{Pct: new(25), Scope: map[flags.Axis][]string{flags.AxisPlans: {"business", "enterprise"}}})
	p.expectStatus(409)
	p.click("#save")
	p.waitText("#conflict", "jonas@dezky.example saved this flag just now. Your draft was not saved.")
	equalLists(t, "fields that differ", p.conflictRows(), []string{"rollout | 10% | 25% | 50%", "plan | enterprise | business or enterprise | enterprise"})
	equal(t, "the draft", p.value("#pct-n"), "50")
	equal(t, "Save is disabled", js[bool](p, `document.querySelector('#save').disabled`), true)
	equal(t, "percent", s.flag("checkout_v2").Pct, 25)
	p.waitFocus("#conflict")
	s.hear()
	p.clickText("#conflict", "Use the live version")
	p.waitVersion(2)
	equal(t, "percent of the form", p.value("#pct-n"), "25")
	equal(t, "draft", p.dirty(), false)
}

func TestConsole20_MyChangesOnTop(t *testing.T) {
	t.Parallel()
	s, p := console(t, look{})
	f := s.make("checkout_v2", flags.Rollout, 10, map[flags.Axis][]string{flags.AxisPlans: {"enterprise"}})
	p.openLive("/operator/flags/checkout_v2")
	p.draftPct(f, 50)
	live := s.patch("checkout_v2", flags.Patch{Pct: new(25), Scope: map[flags.Axis][]string{flags.AxisPlans: {"business", "enterprise"}}})
	p.waitText("#conflict", "Your draft is kept.")
	p.clickText("#conflict", "Put my changes on top")
	p.waitVersion(2)
	e := s.effect(live, withPct(live, 50), "production")
	p.waitEffect(e)
	equal(t, "the draft", p.value("#pct-n"), "50")
	equal(t, "plans of the draft", js[string](p, `[...document.querySelectorAll('input[name=plan]:checked')].map(e => e.value).join()`), "business,enterprise")
	equal(t, "unsaved", p.dirty(), true)
	equal(t, "conflict", p.has("#conflict"), false)
	equal(t, "version", s.flag("checkout_v2").Version, int64(2))
	if len(e.gains) > 10 {
		t.Fatalf("%d gain, so that Save would ask", len(e.gains))
	}
	p.click("#save")
	p.waitVersion(3)
	equal(t, "percent", s.flag("checkout_v2").Pct, 50)
	equalLists(t, "plans", s.flag("checkout_v2").Scope.Plans, []string{"business", "enterprise"})
}

func TestConsole25_ADraftSurvives(t *testing.T) {
	t.Parallel()
	s, p := console(t, look{})
	f := s.make("checkout_v2", flags.Rollout, 25, nil)
	p.openLive("/operator/flags/checkout_v2")
	p.draftPct(f, 36)
	p.addChip("partner", "nordhost", "nordhost")
	draft := with(withPct(f, 36), func(c *flags.Flag) { c.Scope.PartnerSlugs = []string{"nordhost"} })
	e := s.effect(f, draft, "production")
	p.waitEffect(e)
	restored := func(how string) {
		t.Helper()
		p.waitText("#announce", "unsaved draft was restored")
		p.waitEffect(e)
		equal(t, "percent after "+how, p.value("#pct-n"), "36")
		equal(t, "slider after "+how, p.value("#pct"), "36")
		equal(t, "partner after "+how, p.has(`#partner-chips .chip[data-value=nordhost] input[value=nordhost]`), true)
		equal(t, "unsaved after "+how, p.dirty(), true)
	}
	p.reload()
	restored("reload")
	if p.dialogs == 0 {
		t.Error("leaving a draft was not asked about")
	}
	p.loads(func() { js[chromedp.Void](p, `location.assign('/operator/flags')`) })
	p.loads(func() { js[chromedp.Void](p, `history.back()`) })
	restored("Back")
	s.endSessions()
	p.expectStatus(401)
	p.loads(func() { js[chromedp.Void](p, `location.reload()`) })
	p.wait(`location.pathname === '/login'`)
	p.signIn()
	restored("signing in again")
	equal(t, "version", s.flag("checkout_v2").Version, f.Version)
}

// signIn signs in on the sign-in page, by a link that is printed anew.
func (p *tab) signIn() {
	p.t.Helper()
	p.loads(func() { p.clickText("main", "Print a new link") })
	var secret string
	select {
	case secret = <-p.site.secrets:
	case <-time.After(patience):
		p.t.Fatal("no link was printed")
	}
	p.loads(func() { p.clickText("main", "paste the secret") })
	p.typeIn("#token", secret)
	p.loads(func() { p.press(kb.Enter) })
}

func TestConsole26_AnotherRowAsksAboutTheDraft(t *testing.T) {
	t.Parallel()
	s, p := console(t, look{})
	f := s.make("checkout_v2", flags.Rollout, 25, map[flags.Axis][]string{flags.AxisPartners: {"nordhost"}})
	s.make("checkout_v3", flags.On, 0, nil)
	p.openLive("/operator/flags/checkout_v2")
	p.draftPct(f, 36)
	p.click(`input[name=plan][value=business]`)
	p.addChip("tenant", "polarlab", "polarlab")
	p.click("summary:has(+ .note-pop)")
	p.typeIn("#note", "DZ-7")
	fields := func() string {
		return js[string](p, `new URLSearchParams(new FormData(document.querySelector('#flag-form'))).toString()`)
	}
	before := fields()
	for _, leave := range []struct {
		name string
		do   func()
	}{
		{"another row", func() { p.click("#flag-checkout_v3 .row-link") }},
		{"the close button", func() { p.click("[data-close=panel]") }},
		{"Esc", func() {
			js[chromedp.Void](p, `document.querySelector('#panel-title').focus()`)
			p.press(kb.Escape)
		}},
	} {
		leave.do()
		p.wait(`document.querySelector('#leave').open`)
		p.wait(`document.activeElement.textContent.trim() === 'Keep editing'`)
		p.clickText("#leave", "Keep editing")
		p.wait(`!document.querySelector('#leave').open`)
		equal(t, "fields after "+leave.name, fields(), before)
		equal(t, "panel after "+leave.name, p.textOf("#panel-title"), "checkout_v2")
	}
	p.click("#flag-checkout_v3 .row-link")
	p.wait(`document.querySelector('#leave').open`)
	p.clickText("#leave", "Discard the draft")
	p.waitText("#panel-title", "checkout_v3")
	p.wait(`location.pathname === '/operator/flags/checkout_v3'`)
	p.click("#flag-checkout_v2 .row-link")
	p.waitText("#panel-title", "checkout_v2")
	equal(t, "draft after it was discarded", p.dirty(), false)
}

func TestConsole27_SavingWithoutASession(t *testing.T) {
	t.Parallel()
	s, p := console(t, look{})
	f := s.make("checkout_v2", flags.Rollout, 25, nil)
	p.openLive("/operator/flags/checkout_v2")
	e := p.draftPct(f, 30)
	s.endSessions()
	p.expectStatus(401)
	p.click("#save")
	p.wait(`document.querySelector('#signed-out').open`)
	equal(t, "draft under the dialog", p.value("#pct-n"), "30")
	equal(t, "unsaved", p.dirty(), true)
	equal(t, "version", s.flag("checkout_v2").Version, f.Version)
	p.loads(func() { p.clickText("#signed-out", "Sign in") })
	p.signIn()
	p.wait(`location.pathname === '/operator/flags/checkout_v2'`)
	p.waitText("#announce", "unsaved draft was restored")
	p.waitEffect(e)
	p.click("#save")
	p.waitVersion(2)
	equal(t, "percent", s.flag("checkout_v2").Pct, 30)
	entries := p.texts("#history .log li")
	equal(t, "who saved it", strings.Contains(entries[0], auth.LocalOperator.Name), true)
}
