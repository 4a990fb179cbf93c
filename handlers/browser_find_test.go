package handlers_test

import (
	"fmt"
	"net/url"
	"strings"
	"testing"

	"github.com/chromedp/chromedp"
	"github.com/chromedp/chromedp/kb"

	"github.com/dezky/platform-api/flags"
)

func TestConsole29_ATakenKeyIsSaidInTheDialog(t *testing.T) {
	t.Parallel()
	s, p := console(t, look{})
	s.make("checkout_v2", flags.Rollout, 25, nil)
	p.openLive("/operator/flags")
	p.press("n")
	p.wait(`document.querySelector('#new-flag').open`)
	p.waitFocus("#nf-k")
	p.press("checkout_v2")
	p.click("#nf-d")
	p.press("Again")
	p.expectStatus(422)
	p.clickText("#new-flag", "Create flag")
	p.waitText("#new-flag", "checkout_v2 already exists.")
	p.waitFocus("#nf-k")
	equal(t, "dialog", js[bool](p, `document.querySelector('#new-flag').open`), true)
	equal(t, "key", p.value("#nf-k"), "checkout_v2")
	equal(t, "description", p.value("#nf-d"), "Again")
	equal(t, "link", p.attr("#new-flag .error a", "href"), "/operator/flags/checkout_v2")
	equal(t, "invalid", p.attr("#nf-k", "aria-invalid"), "true")
	p.press(kb.Escape)
	p.wait(`!document.querySelector('dialog[open]')`)
	p.wait(`document.activeElement.matches('[data-open=new-flag]')`)
}

func TestConsole30_ANewFlagIsOpenAndFirst(t *testing.T) {
	t.Parallel()
	s, p := console(t, look{})
	p.openLive("/operator/flags")
	p.press("n")
	p.waitFocus("#nf-k")
	p.press("brand_new")
	p.press(kb.Enter)
	p.waitText("#panel-title", "brand_new")
	p.waitFocus("#panel-title")
	p.wait(`!document.querySelector('#dialogs dialog')`)
	p.wait(`location.pathname === '/operator/flags/brand_new'`)
	equal(t, "first row", p.rows()[0], "brand_new")
	equal(t, "state", s.flag("brand_new").State, flags.Off)
	equal(t, "rows of it", len(p.texts("#flag-brand_new")), 1)
	equal(t, "offered as somebody else's", p.textOf("#fresh"), "")
	p.press("k", chromedp.ModifierCtrl)
	p.waitFocus("#pal-q")
	p.press("brand")
	p.waitText("#pal-opts [aria-selected=true]", "brand_new")
}

// options is what the palette offers, a line each.
func (p *tab) options(group string) []string {
	p.t.Helper()
	return js[[]string](p, `[...document.querySelectorAll('#pal-opts [aria-labelledby="pg-`+group+`"] [role=option]')].map(o => (o.querySelector('span:not(.end, .d)')?.textContent ?? o.textContent).replace(/\s+/g, ' ').trim())`)
}

func TestConsole31_ThePalette(t *testing.T) {
	t.Parallel()
	s, p := console(t, look{})
	s.make("checkout_v2", flags.Rollout, 25, nil)
	s.make("new_checkout", flags.On, 0, nil)
	s.make("uncheckered", flags.On, 0, nil)
	for _, path := range []string{"/operator/flags", "/operator/flags/checkout_v2", "/operator/tenants", "/operator/audit", "/operator/tokens", "/operator/status", "/operator/settings"} {
		p.openLive(path)
		p.press("k", chromedp.ModifierCtrl)
		p.wait(`document.querySelector('#palette').open`)
		p.waitFocus("#pal-q")
		p.wait(`document.querySelectorAll('#pal-opts [role=option]').length > 3`)
		p.press(kb.Escape)
		p.wait(`!document.querySelector('#palette').open`)
	}
	p.openLive("/operator/flags")
	p.press("k", chromedp.ModifierMeta)
	p.waitFocus("#pal-q")
	p.press("check")
	p.waitText("#pal-opts mark", "check")
	p.wait(`document.querySelectorAll('#pal-opts [aria-labelledby="pg-flags"] [role=option]').length >= 3`)
	equalLists(t, "flags: prefix, word, within", p.options("flags")[:3], []string{"checkout_v2", "new_checkout", "uncheckered"})
	marked := func() string {
		return js[string](p, `document.querySelectorAll('#pal-opts [aria-selected=true]').length === 1 && document.querySelector('#pal-opts [aria-selected=true]').id === document.querySelector('#pal-q').getAttribute('aria-activedescendant') ? document.querySelector('#pal-opts [aria-selected=true] .key')?.textContent ?? '?' : 'several'`)
	}
	p.waitText("#pal-opts [aria-selected=true]", "checkout_v2")
	p.press(kb.ArrowDown)
	equal(t, "after Down", marked(), "new_checkout")
	p.press(kb.ArrowUp)
	equal(t, "after Up", marked(), "checkout_v2")
	p.press(kb.ArrowDown)
	p.press(kb.Enter)
	p.wait(`!document.querySelector('#palette').open`)
	p.waitText("#panel-title", "new_checkout")
	p.waitFocus("#panel-title")
	p.wait(`location.pathname === '/operator/flags/new_checkout'`)

	// A kill switch kills at once, and what it does stands in its line.
	f := s.flag("checkout_v2")
	p.press("k", chromedp.ModifierCtrl)
	p.waitFocus("#pal-q")
	// At once, as pasted: between the letters of slow typing the list is made anew, perhaps under the click.
	js[chromedp.Void](p, `(q => { q.value = 'checkout_v2'; q.dispatchEvent(new Event('input', {bubbles: true})) })(document.querySelector('#pal-q'))`)
	p.wait(`document.querySelectorAll('#pal-opts [aria-labelledby="pg-flags"] [role=option]').length === 1`)
	kill := `[...document.querySelectorAll('#pal-opts [data-post]')].find(o => o.textContent.includes('checkout_v2'))`
	p.wait(kill)
	equal(t, "effect", strings.Contains(js[string](p, kill+`.textContent`), fmt.Sprintf("%d tenants lose it", len(s.who(f, "production")))), true)
	js[chromedp.Void](p, kill+`.setAttribute('data-to-click', '')`)
	p.click("#pal-opts [data-to-click]")
	p.waitText("#toasts", "checkout_v2 is off.")
	p.wait(`document.querySelector('#toasts .undo')`)
	equal(t, "state", s.flag("checkout_v2").State, flags.Off)
	p.waitText("#flag-checkout_v2", "Off")

	// An action that makes a flag opens the dialog with the key in it.
	p.press("k", chromedp.ModifierCtrl)
	p.waitFocus("#pal-q")
	p.press("quite_new")
	p.waitText("#pal-opts [aria-selected=true]", "quite_new")
	p.press(kb.Enter)
	p.wait(`document.querySelector('#new-flag').open`)
	equal(t, "key", p.value("#nf-k"), "quite_new")

	// From another page the palette goes to the flag, and acts.
	p.openLive("/operator/status")
	p.press("k", chromedp.ModifierCtrl)
	p.waitFocus("#pal-q")
	p.press("new_checkout")
	p.waitText("#pal-opts [aria-selected=true]", "new_checkout")
	p.loads(func() { p.press(kb.Enter) })
	equal(t, "address", p.address(), "/operator/flags/new_checkout")
	p.ready()

	// Without single-key shortcuts only the keys with Control work; ? tells all of them.
	p.click("#panel-title")
	p.press("?")
	p.wait(`document.querySelector('#keys').open`)
	p.press(kb.Escape)
	p.wait(`!document.querySelector('#keys').open`)
}

func TestConsole32_HistoryAndRestore(t *testing.T) {
	t.Parallel()
	s, p := console(t, look{})
	s.make("checkout_v2", flags.Rollout, 1, map[flags.Axis][]string{flags.AxisPlans: {"enterprise"}})
	for pct := 2; pct < 25; pct++ {
		s.setPct("checkout_v2", pct)
	}
	s.patch("checkout_v2", flags.Patch{Scope: map[flags.Axis][]string{flags.AxisPlans: {"business", "enterprise"}}, Note: "DZ-42"})
	p.openLive("/operator/flags/checkout_v2")
	entries := js[[]struct {
		Who, When, Full, Diffs string
		Again                  bool
	}](p, `[...document.querySelectorAll('#history .log > li')].map(li => ({who: li.querySelector('.by').textContent, when: li.querySelector('time').textContent, full: li.querySelector('time').title, diffs: li.querySelector('.diff').textContent.replace(/\s+/g, ' '), again: !!li.querySelector('.again')}))`)
	equal(t, "entries", len(entries), 20)
	for i, e := range entries {
		if !strings.Contains(e.Who, jonas.Name) || e.When == "" || !strings.HasSuffix(e.Full, " UTC") || strings.TrimSpace(e.Diffs) == "" {
			t.Errorf("entry %d: %+v, want actor, time and field diffs", i, e)
		}
		equal(t, fmt.Sprintf("entry %d can be restored", i), e.Again, i > 0)
	}
	equal(t, "newest", strings.Contains(entries[0].Diffs, "plan + business") && strings.Contains(entries[0].Diffs, "DZ-42"), true)
	equal(t, "the one before", strings.Contains(entries[1].Diffs, "rollout 23% 24%"), true)
	equal(t, "the whole log", p.attr(`#history .head a[href^="/operator/audit"]`, "href"), "/operator/audit?flag=checkout_v2")
	f := s.flag("checkout_v2")
	p.click("#history .log > li:nth-child(5) .again")
	p.wait(`!document.querySelector('#foot').hasAttribute('data-clean')`)
	equal(t, "percent of the draft", p.value("#pct-n"), "21")
	draft := with(f, func(c *flags.Flag) { c.Pct, c.Scope.Plans = 21, []string{"enterprise"} })
	p.waitEffect(s.effect(f, draft, "production"))
	p.waitText("#announce", "is loaded as a draft")
	equal(t, "version", s.flag("checkout_v2").Version, f.Version)
	p.click("#save")
	p.waitVersion(f.Version + 1)
	if !s.flag("checkout_v2").SameContent(draft) {
		t.Errorf("after Restore and Save the flag is %+v, want %+v", s.flag("checkout_v2"), draft)
	}
}

func TestConsole33_ExplainAgreesWithEvaluation(t *testing.T) {
	t.Parallel()
	s, p := console(t, look{})
	s.make("by_plan", flags.Targeted, 0, map[flags.Axis][]string{flags.AxisPlans: {"business", "enterprise"}})
	s.make("by_partner", flags.Rollout, 50, map[flags.Axis][]string{flags.AxisPartners: {"nordhost", "mailbyen"}})
	s.make("by_environment", flags.Rollout, 70, map[flags.Axis][]string{flags.AxisEnvironments: {"staging"}})
	s.make("by_tenant", flags.Targeted, 0, map[flags.Axis][]string{flags.AxisTenants: {"dezky", "polarlab"}})
	s.make("for_nobody", flags.Targeted, 0, nil)
	s.make("for_everyone", flags.On, 0, nil)
	s.make("is_off", flags.Off, 0, map[flags.Axis][]string{flags.AxisPlans: {"business"}})
	keys := []string{"by_plan", "by_partner", "by_environment", "by_tenant", "for_nobody", "for_everyone", "is_off"}
	cookie := s.cookie(maria)
	for _, tenant := range s.db.Current().Tenants() {
		for _, env := range s.db.Current().Environments() {
			status, body := s.ask(cookie, "POST", "/api/flags/evaluate", strings.NewReader(fmt.Sprintf(`{"tenantSlug":%q,"environment":%q}`, tenant.Slug, env)), map[string]string{"Content-Type": "application/json"})
			equal(t, "status of evaluate", status, 200)
			for _, key := range keys {
				_, fragment := s.ask(cookie, "GET", "/operator/flags/"+key+"/explain?"+url.Values{"tenant": {tenant.Slug}, "env": {env}}.Encode(), nil,
					map[string]string{"HX-Request": "true", "HX-Request-Type": "partial"})
				want := strings.Contains(body, `"`+key+`":true`)
				if got := strings.Contains(fragment, `class="state on"`); got != want || strings.Contains(fragment, `class="state off"`) == want {
					t.Errorf("%s for %s in %s: explained as %t, evaluated as %t", key, tenant.Slug, env, got, want)
				}
			}
		}
	}
	for _, test := range []struct{ key, tenant, env, step string }{
		{"by_plan", "solbakken-tannklinikk", "production", "Plan starter is not one of business, enterprise"},
		{"by_partner", "polarlab", "production", "Partner no partner"},
		{"by_environment", "polarlab", "production", "Environment production is not staging"},
		{"by_tenant", "havnes-sjomat", "production", "Tenant havnes-sjomat is not one of dezky, polarlab"},
		{"for_nobody", "dezky", "production", "State targeted without any rule"},
		{"is_off", "dezky", "production", "State off"},
	} {
		p.open("/operator/flags/" + test.key + "?tenant=" + test.tenant + "&env=" + test.env + "#explain")
		equal(t, test.key+": deciding step", strings.HasPrefix(p.text("#explain .steps li:last-child"), test.step), true)
		equal(t, test.key+": it decides", p.has("#explain .steps li:last-child.stop"), true)
	}
	p.openLive("/operator/flags/by_plan")
	p.typeIn("#ex-t", "polarlab")
	p.press(kb.Enter)
	p.waitText("#explain .verdict", "Polarlab Tromsø AS in production")
	p.wait(`document.querySelector('#explain .verdict .state.on')`)
	equal(t, "percent step of a rollout", strings.Contains(func() string {
		p.open("/operator/flags/by_partner?tenant=fjellvik-regnskap")
		return p.text("#explain .steps li:last-child")
	}(), fmt.Sprintf("bucket %d is", flags.Bucket(s.db.Current().Tenant("fjellvik-regnskap").ID, "by_partner"))), true)
	// With a draft, the draft is explained as well.
	f := s.flag("by_plan")
	p.openLive("/operator/flags/by_plan?tenant=solbakken-tannklinikk")
	p.wait(`document.querySelector('#explain .verdict .state.off')`)
	p.click(`input[name=plan][value=starter]`)
	p.waitEffect(s.effect(f, with(f, func(c *flags.Flag) { c.Scope.Plans = []string{"business", "enterprise", "starter"} }), "production"))
}
