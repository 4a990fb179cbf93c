package handlers_test

import (
	"fmt"
	"log/slog"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/chromedp/chromedp"

	"github.com/dezky/platform-api/auth"
	"github.com/dezky/platform-api/auth/authtest"
	"github.com/dezky/platform-api/db/dbtest"
	"github.com/dezky/platform-api/flags"
	"github.com/dezky/platform-api/handlers"
	"github.com/dezky/platform-api/seed"
)

// newSignOn starts a server with the demo registry, to which people sign in through an identity provider.
func newSignOn(t *testing.T) (*site, *authtest.Provider) {
	t.Helper()
	provider := authtest.New(t, authtest.Options{Alg: "ES256"})
	d := dbtest.Open(t)
	if err := seed.Plant(t.Context(), d, true, time.Now()); err != nil {
		t.Fatal(err)
	}
	s := serve(t, d, func(s *site, a *handlers.Appliance) {
		provider.PutClient(authtest.Console(a.PublicURL))
		var err error
		a.OpenID, err = auth.NewOpenID(t.Context(), auth.OpenIDOptions{DB: d, Sessions: a.Sessions, PublicURL: a.PublicURL, Now: time.Now, Log: slog.New(slog.NewJSONHandler(s.log, nil)),
			Client: &auth.Client{Issuer: provider.Issuer(), ID: authtest.ConsoleID, Secret: authtest.Secret(authtest.ConsoleID)},
			Groups: auth.Groups{Operator: "dezky-operators", Read: "dezky-viewers"}})
		if err != nil {
			t.Fatal(err)
		}
		a.Links = nil
	})
	return s, provider
}

// signOn goes on from the sign-in page through the provider's own, as the person whose name is on a button.
func (p *tab) signOn(name string) {
	p.t.Helper()
	p.loads(func() { p.clickText("main", "Continue with sign-on") })
	p.choose(name)
}

// choose presses a person's button on the provider's page.
func (p *tab) choose(name string) {
	p.t.Helper()
	p.expect(`favicon\.ico`) // the provider's page has none
	p.wait(`document.title === 'Choose who you are'`)
	p.loads(func() { p.click(`button[value="` + name + `"]`) })
}

// signOut presses the button in the person's menu.
func (p *tab) signOut() {
	p.t.Helper()
	p.click(".side .whoami summary")
	p.loads(func() { p.clickText(".side .whoami", "Sign out") })
}

func TestConsole41_SignInAsOperator(t *testing.T) {
	t.Parallel()
	needsBrowser(t)
	s, provider := newSignOn(t)
	s.make("checkout_v2", flags.Rollout, 25, nil)
	p := s.tab(auth.Principal{}, look{})
	p.open("/operator/flags/checkout_v2?env=staging")
	equal(t, "sent to", p.address(), "/login?return_to=%2Foperator%2Fflags%2Fcheckout_v2%3Fenv%3Dstaging")
	equal(t, "focus", p.focus(), "Continue with sign-on")
	p.signOn(authtest.OpsSub)
	equal(t, "address after signing in", p.address(), "/operator/flags/checkout_v2?env=staging")
	p.ready()
	equal(t, "who", p.textOf(".side .who .names"), "ops@dezky.exampleOperator")

	p.click("#kill")
	p.wait(`document.querySelector('#undo')`)
	f := s.flag("checkout_v2")
	equal(t, "state after Kill", f.State, flags.Off)
	p.openLive("/operator/audit?flag=checkout_v2")
	p.loads(func() { p.click(`a[href^="/operator/audit/"]`) })
	for _, text := range []string{"ops@dezky.example", "in the console", authtest.OpsSub, provider.Issuer(), authtest.ConsoleID} {
		if !strings.Contains(p.textOf("main"), text) {
			t.Errorf("the history's entry does not say %q, but %s", text, p.textOf("main"))
		}
	}

	// The form's way leads through the provider, which the CSP has to let it.
	p.signOut()
	p.wait(`location.pathname === '/login'`)
	equal(t, "address after signing out", p.address(), "/login")
	equal(t, "sign-outs at the provider", provider.Fetches(authtest.EndSession), 1)
	p.loads(func() { js[chromedp.Void](p, `history.back()`) })
	p.wait(`location.search.includes('return_to')`)
	equal(t, "address after going back", strings.HasPrefix(p.address(), "/login?return_to=%2Foperator%2Faudit%2F"), true)
	equal(t, "the page then names the person", strings.Contains(p.textOf("body"), "ops@dezky.example"), false)
	p.loads(func() { p.clickText("main", "Continue with sign-on") })
	p.wait(`document.title === 'Choose who you are'`) // the provider asks again: its session has ended too
}

func TestConsole42_SignInAsViewer(t *testing.T) {
	t.Parallel()
	needsBrowser(t)
	s, _ := newSignOn(t)
	s.make("checkout_v2", flags.Rollout, 25, nil)
	p := s.tab(auth.Principal{}, look{})
	p.open("/login?return_to=/operator/flags/checkout_v2")
	p.signOn(authtest.ViewerSub)
	p.ready()
	equal(t, "address", p.address(), "/operator/flags/checkout_v2")
	equal(t, "who", p.textOf(".side .who .names"), "viewer@dezky.exampleViewer")
	p.waitText("#panel", "You have view access. Members of the operator group can change flags.")
	for _, path := range []string{"/operator/flags/checkout_v2", "/operator/flags", "/operator/tenants/polarlab", "/operator/audit"} {
		p.openLive(path)
		equalLists(t, path+": what writes", js[[]string](p, `[...document.querySelectorAll('form[method=post], [formaction], [hx-post], #save, #kill, [data-open=new-flag]')]
			.filter(e => (e.matches('[hx-post]') || (e.formMethod || e.form?.method) !== 'get') && !e.matches('[action="/logout"], [hx-post$="/explain"]')).map(e => e.outerHTML.slice(0, 120))`), []string{})
	}
}

func TestConsole43_SignInAsStranger(t *testing.T) {
	t.Parallel()
	needsBrowser(t)
	s, provider := newSignOn(t)
	provider.SetGroups(authtest.StrangerSub, "marketing", "a-group-with-quite-a-long-name-as-they-have-in-companies")
	p := s.tab(auth.Principal{}, look{features: map[string]string{"prefers-color-scheme": "light"}})
	p.expectStatus(http.StatusForbidden)
	p.open("/operator/audit")
	for _, theme := range []string{"light", "dark"} {
		p.media(map[string]string{"prefers-color-scheme": theme})
		p.audit("sign-in with a provider, "+theme, theme == "dark")
	}
	p.signOn(authtest.StrangerSub)
	p.waitText("main h1", "You have no access")
	for _, text := range []string{"stranger@dezky.example", "marketing", "dezky-operators to change flags", "dezky-viewers to look at them"} {
		if !strings.Contains(p.textOf("main"), text) {
			t.Errorf("the page does not say %q, but %s", text, p.textOf("main"))
		}
	}
	for _, theme := range []string{"light", "dark"} {
		p.media(map[string]string{"prefers-color-scheme": theme})
		p.audit("no group, "+theme, theme == "dark")
	}
	equal(t, "what sticks out of the card", js[int](p, `[...document.querySelectorAll('.card *')].filter(e => e.getBoundingClientRect().right > document.querySelector('.card').getBoundingClientRect().right).length`), 0)
	for _, width := range []int64{320, 390, 1280} {
		p.resize(size{width, 800})
		equalLists(t, fmt.Sprintf("no group at %d: too wide", width), js[[]string](p, tooWide), []string{})
		equalLists(t, fmt.Sprintf("no group at %d: smaller than 24 px", width), js[[]string](p, tooSmall), []string{})
	}
	p.loads(func() { p.clickText("main", "Use another account") })
	p.choose(authtest.OpsSub) // the provider asks, though it knows the stranger
	equal(t, "address", p.address(), "/operator/audit")
	p.ready()
}

func TestConsole44_ADraftOutlivesTheSession(t *testing.T) {
	t.Parallel()
	needsBrowser(t)
	s, _ := newSignOn(t)
	f := s.make("checkout_v2", flags.Rollout, 25, nil)
	p := s.tab(auth.Principal{}, look{})
	p.expectStatus(http.StatusUnauthorized)
	p.open("/login?return_to=/operator/flags/checkout_v2")
	p.signOn(authtest.OpsSub)
	p.ready()
	p.draftPct(f, 28)
	s.endSessions()
	p.click("#save")
	p.wait(`document.querySelector('#signed-out').open`)
	equal(t, "version", s.flag("checkout_v2").Version, int64(1))
	equal(t, "the draft behind the dialog", p.value("#pct-n"), "28")
	p.loads(func() { p.clickText("#signed-out", "Sign in") })
	equal(t, "sent to", p.address(), "/login?return_to=%2foperator%2fflags%2fcheckout_v2")
	p.loads(func() { p.clickText("main", "Continue with sign-on") }) // the provider knows the person still
	p.wait(`location.pathname === '/operator/flags/checkout_v2'`)
	p.ready()
	p.wait(`document.querySelector('#pct-n').value === '28'`)
	p.waitEffect(s.effect(f, withPct(f, 28), "production"))
	p.click("#save")
	p.waitVersion(2)
	equal(t, "percent", s.flag("checkout_v2").Pct, 28)
}

// TestSignInPictures makes pictures of the pages around the sign-in, where -screenshots asks for some.
func TestSignInPictures(t *testing.T) {
	if *screenshots == "" {
		t.Skip("asked for with -screenshots DIR")
	}
	needsBrowser(t)
	s, provider := newSignOn(t)
	provider.SetGroups(authtest.StrangerSub, "marketing", "authentik Admins", "a-group-with-quite-a-long-name-as-they-have-in-companies", "tenant:acme")
	for _, at := range []size{{1280, 800}, phone} {
		for _, theme := range []string{"light", "dark"} {
			p := s.tab(auth.Principal{}, look{size: at, features: map[string]string{"prefers-color-scheme": theme}})
			p.expectStatus(http.StatusForbidden)
			p.expectStatus(http.StatusServiceUnavailable)
			picture := func(name string) {
				png, err := chromedp.Run(p.ctx, chromedp.CaptureScreenshot())
				if err != nil {
					t.Fatal(err)
				}
				if err := os.WriteFile(filepath.Join(*screenshots, fmt.Sprintf("%s-%s-%d.png", name, theme, at.width)), png, 0o644); err != nil {
					t.Fatal(err)
				}
			}
			p.open("/login")
			picture("login")
			p.open("/login/callback")
			picture("refused")
			p.open("/login?return_to=/operator/audit")
			p.signOn(authtest.StrangerSub)
			picture("stranger")
		}
	}
}
