package handlers_test

import (
	"fmt"
	"net/http"
	"net/url"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/chromedp/chromedp"

	"github.com/dezky/platform-api/auth"
	"github.com/dezky/platform-api/flags"
)

func TestConsole34_AViewerChangesNothing(t *testing.T) {
	t.Parallel()
	needsBrowser(t)
	s := newSite(t)
	s.make("checkout_v2", flags.Rollout, 25, nil)
	s.setPct("checkout_v2", 30)
	p := s.tab(viewer, look{})
	for _, path := range []string{"/operator/flags", "/operator/flags/checkout_v2", "/operator/flags/checkout_v2?restore=1", "/operator/tenants", "/operator/tenants/polarlab", "/operator/audit", "/operator/status", "/operator/settings"} {
		p.openLive(path)
		equal(t, path+": role", strings.Contains(p.textOf(".side .who"), "Viewer"), true)
		equalLists(t, path+": what writes", js[[]string](p, `[...document.querySelectorAll('form[method=post], [formaction], [hx-post]')]
			.filter(e => (e.matches('[hx-post]') || (e.formMethod || e.form?.method) !== 'get') && !e.matches('[action="/logout"], [action="/operator/settings"], [hx-post$="/explain"]')).map(e => e.outerHTML.slice(0, 120))`), []string{})
		equalLists(t, path+": buttons", js[[]string](p, `[...document.querySelectorAll('#save, #kill, .undo, .again, [data-open=new-flag], [href$="/edit"], [href="/operator/tokens"], [href="/operator/new-flag"]')].map(e => e.outerHTML.slice(0, 120))`), []string{})
	}
	p.openLive("/operator/flags")
	p.press("n") // there is no such key for a viewer
	p.click("#flag-checkout_v2 .row-link")
	p.waitText("#panel", "You have view access. Members of the operator group can change flags.")
	equal(t, "facts", strings.Contains(p.textOf("#panel .facts"), "30% of matching tenants"), true)
	equal(t, "a dialog", p.has("dialog[open]"), false)

	cookie := s.cookie(viewer)
	for _, path := range []string{"", "/checkout_v2", "/checkout_v2/impact", "/checkout_v2/preview", "/checkout_v2/kill", "/checkout_v2/undo", "/checkout_v2/ontop", "/checkout_v2/theirs", "/checkout_v2/conflict", "/checkout_v2/delete", "/checkout_v2/restore"} {
		form := url.Values{"key": {"forged"}, "version": {"2"}, "undo": {"2"}, "state": {"on"}, "pct": {"100"}, "ack": {"41"}}
		for _, headers := range []map[string]string{{}, {"HX-Request": "true", "HX-Request-Type": "partial"}} {
			headers["Content-Type"] = "application/x-www-form-urlencoded"
			status, _ := s.ask(cookie, "POST", "/operator/flags"+path, strings.NewReader(form.Encode()), headers)
			equal(t, "status of POST /operator/flags"+path, status, http.StatusForbidden)
		}
	}
	for _, path := range []string{"/operator/tenants/polarlab", "/operator/tokens"} {
		status, _ := s.ask(cookie, "POST", path, strings.NewReader("name=x&role=operator"), map[string]string{"Content-Type": "application/x-www-form-urlencoded"})
		equal(t, "status of POST "+path, status, http.StatusForbidden)
	}
	for _, path := range []string{"/operator/tokens", "/operator/new-flag", "/operator/flags/checkout_v2/delete", "/operator/tenants/polarlab/edit"} {
		status, _ := s.ask(cookie, "GET", path, nil, nil)
		equal(t, "status of GET "+path, status, http.StatusForbidden)
	}
	status, _ := s.ask(s.cookie(maria), "POST", "/operator/flags/checkout_v2/kill", nil, map[string]string{"Origin": "https://evil.example", "Sec-Fetch-Site": "cross-site"})
	equal(t, "status of a kill from another origin", status, http.StatusForbidden)
	equal(t, "version", s.flag("checkout_v2").Version, int64(2))
}

func TestConsole35_WithoutJavaScript(t *testing.T) {
	t.Parallel()
	needsBrowser(t)
	s := newSite(t)
	f := s.make("checkout_v2", flags.Off, 0, nil)
	p := s.tab(auth.Principal{}, look{noScript: true})
	p.expectStatus(428)
	p.expectStatus(422)

	p.open("/operator/flags?q=check")
	equal(t, "sent to", p.address(), "/login?return_to=%2Foperator%2Fflags%3Fq%3Dcheck")
	p.signIn()
	equal(t, "address after signing in", p.address(), "/operator/flags?q=check")

	p.fill("#q", "checkout")
	p.loads(func() { p.clickText("#filter", "Apply") })
	equalLists(t, "rows", p.rows(), []string{"checkout_v2"})
	p.loads(func() { p.clickText("#pills", fmt.Sprintf("Off %s", p.textOf("#count-off"))) })
	equalLists(t, "rows that are off", p.rows(), []string{"checkout_v2"})
	p.loads(func() { p.click("#flag-checkout_v2 .row-link") })
	equal(t, "title", p.textOf("#panel-title"), "checkout_v2")

	p.click(".seg label:has([value=rollout])")
	p.fill("#pct-n", "60")
	p.click("input[name=plan][value=business]")
	p.fill("#partner-in", "nordhost, mailbyen")
	p.loads(func() { p.clickText("#foot", "Preview impact") })
	draft := with(f, func(c *flags.Flag) {
		c.State, c.Pct, c.Scope.Plans, c.Scope.PartnerSlugs = flags.Rollout, 60, []string{"business"}, []string{"mailbyen", "nordhost"}
	})
	e := s.effect(f, draft, "production")
	equal(t, "gain in the preview", p.attr("#impact", "data-gain"), fmt.Sprint(len(e.gains)))
	equal(t, "version after the preview", s.flag("checkout_v2").Version, int64(1))
	equal(t, "label", strings.HasPrefix(p.textOf("#save"), e.saveLabel()), true)
	p.loads(func() { p.click(`#partner-chips .chip[data-value="mailbyen"] button`) })
	draft.Scope.PartnerSlugs = []string{"nordhost"}
	equal(t, "gain without a partner", p.attr("#impact", "data-gain"), fmt.Sprint(len(s.effect(f, draft, "production").gains)))
	p.loads(func() { p.click("#save") })
	if now := s.flag("checkout_v2"); !now.SameContent(draft) {
		t.Fatalf("saved %+v, want %+v", now, draft)
	}
	equal(t, "address after Save", strings.HasPrefix(p.address(), "/operator/flags/checkout_v2?"), true)

	// More than ten: the page asks, and Keep editing keeps the draft.
	p.click(".seg label:has([value=on])")
	p.loads(func() { p.click("#save") })
	gain := len(s.effect(draft, with(draft, func(c *flags.Flag) { c.State = flags.On }), "production").gains)
	equal(t, "question", p.textOf("#confirm h2"), fmt.Sprintf("Turn on checkout_v2 for %d more tenants?", gain))
	p.loads(func() { p.clickText("#confirm", "Keep editing") })
	equal(t, "state of the draft", js[string](p, `document.querySelector('[name=state]:checked').value`), "on")
	equal(t, "version", s.flag("checkout_v2").Version, int64(2))
	p.loads(func() { p.click("#save") })
	p.loads(func() { p.clickText("#confirm", fmt.Sprintf("Turn on for %d tenants", gain)) })
	equal(t, "state", s.flag("checkout_v2").State, flags.On)

	p.loads(func() { p.click("#kill") })
	equal(t, "state after Kill", s.flag("checkout_v2").State, flags.Off)
	p.loads(func() { p.clickText("#now", "Undo kill") })
	equal(t, "state after Undo", s.flag("checkout_v2").State, flags.On)

	// A conflict is a page too, with the three values and both ways out.
	p.click(".seg label:has([value=rollout])")
	p.fill("#pct-n", "70")
	s.setPct("checkout_v2", 65)
	p.expectStatus(409)
	p.loads(func() { p.click("#save") })
	equalLists(t, "fields that differ", p.conflictRows(), []string{"state | On | On | Rollout", "rollout | 60% | 65% | 70%"})
	p.loads(func() { p.clickText("#conflict", "Put my changes on top") })
	equal(t, "percent of the draft", p.value("#pct-n"), "70")
	p.loads(func() { p.click("#save") })
	equal(t, "percent", s.flag("checkout_v2").Pct, 70)

	p.loads(func() { p.clickText(".page-head", "New flag N") })
	p.typeIn("#nf-k", "checkout_v2")
	p.loads(func() { p.clickText("#new-flag", "Create flag") })
	equal(t, "error", p.textOf("#nf-k-e"), "checkout_v2 already exists. Open it")
	p.fill("#nf-k", "made_plainly")
	p.loads(func() { p.clickText("#new-flag", "Create flag") })
	equal(t, "address after Create", p.address(), "/operator/flags/made_plainly")
	equal(t, "state", s.flag("made_plainly").State, flags.Off)
}

// What the CSP forbids must not be in any page or fragment, whoever swaps it in.
var forbiddenMarkup = []*regexp.Regexp{
	regexp.MustCompile(`(?i)<[a-z][^>]*\sstyle\s*=`),
	regexp.MustCompile(`(?i)<[a-z][^>]*\son[a-z]+\s*=`),
	regexp.MustCompile(`(?i)<[a-z][^>]*\shx-on[^=]*=`),
	regexp.MustCompile(`(?i)=\s*["']?\s*(js|javascript):`),
	regexp.MustCompile(`(?i)\shx-trigger\s*=\s*"[^"']*\[`),
	regexp.MustCompile(`(?i)<style\b`),
}

func TestConsole36_NothingInline(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	s.make("checkout_v2", flags.Rollout, 10, map[flags.Axis][]string{flags.AxisPlans: {"enterprise"}})
	s.setPct("checkout_v2", 12)
	s.make("is_off", flags.Off, 0, nil)
	cookie := s.cookie(maria)
	seen := 0
	check := func(what string, status int, text string) {
		t.Helper()
		seen++
		for _, re := range forbiddenMarkup {
			if at := re.FindString(text); at != "" {
				t.Errorf("%s (%d): %q", what, status, at[max(0, len(at)-160):])
			}
		}
		for _, tag := range regexp.MustCompile(`(?i)<script\b[^>]*>`).FindAllString(text, -1) {
			if !strings.Contains(tag, ` src="/static/`) {
				t.Errorf("%s: %s", what, tag)
			}
		}
		if !strings.Contains(text, "<") {
			t.Errorf("%s (%d) has no markup: %q", what, status, text)
		}
	}
	get := []string{"/login", "/login/link", "/operator/flags", "/operator/flags?q=nothing_like_it", "/operator/flags/checkout_v2", "/operator/flags/checkout_v2?tenant=polarlab", "/operator/flags/checkout_v2?restore=1",
		"/operator/flags/checkout_v2/explain?tenant=polarlab", "/operator/flags/is_off/delete", "/operator/flags/no_such_flag", "/operator/new-flag", "/operator/palette?q=e", "/operator/palette?q=none_such", "/operator/suggest?kind=tenant&tenant_add=a", "/operator/suggest?kind=explain&tenant=a",
		"/operator/tenants", "/operator/tenants?partner=nordhost", "/operator/tenants/polarlab", "/operator/tenants/polarlab/edit", "/operator/audit", "/operator/tokens", "/operator/status", "/operator/settings"}
	for _, path := range get {
		for _, headers := range []map[string]string{nil, {"HX-Request": "true", "HX-Request-Type": "partial", "HX-Current-URL": s.url + "/operator/flags"}} {
			status, text := s.ask(cookie, "GET", path, nil, headers)
			check("GET "+path, status, text)
		}
	}
	_, text := s.ask(cookie, "GET", "/operator/audit", nil, nil)
	if entry := regexp.MustCompile(`/operator/audit/\d+`).FindString(text); entry != "" {
		status, text := s.ask(cookie, "GET", entry, nil, nil)
		check("GET "+entry, status, text)
	} else {
		t.Error("the log names no entry")
	}
	draft := url.Values{"version": {"2"}, "state": {"on"}, "pct": {"12"}, "plan": {"enterprise"}, "description": {"About checkout_v2"}}
	stale := url.Values{"version": {"1"}, "state": {"rollout"}, "pct": {"50"}, "plan": {"enterprise"}, "description": {"About checkout_v2"}}
	for _, post := range []struct {
		path   string
		form   url.Values
		status int
	}{
		{"/operator/flags/checkout_v2/impact", draft, 200},
		{"/operator/flags/checkout_v2", draft, 428},
		{"/operator/flags/checkout_v2", stale, 409},
		{"/operator/flags/checkout_v2", url.Values{"version": {"2"}, "state": {"rollout"}, "pct": {"400"}}, 422},
		{"/operator/flags/checkout_v2/conflict", stale, 200},
		{"/operator/flags/checkout_v2/ontop", stale, 200},
		{"/operator/flags/checkout_v2/preview", draft, 200},
		{"/operator/flags/checkout_v2/kill", draft, 200},
		{"/operator/flags/checkout_v2/undo", url.Values{"undo": {"3"}}, 200},
		{"/operator/flags", url.Values{"key": {"checkout_v2"}}, 422},
		{"/operator/flags", url.Values{"key": {"crawled"}}, 200},
		{"/operator/flags/is_off/delete", url.Values{"version": {"1"}}, 200},
		{"/operator/flags/is_off/restore", url.Values{"version": {"1"}}, 200},
		{"/operator/flags/no_such_flag/kill", draft, 404},
	} {
		status, text := s.ask(cookie, "POST", post.path, strings.NewReader(post.form.Encode()), map[string]string{
			"HX-Request": "true", "HX-Request-Type": "partial", "HX-Current-URL": s.url + "/operator/flags", "Content-Type": "application/x-www-form-urlencoded"})
		equal(t, "status of POST "+post.path, status, post.status)
		check("POST "+post.path, status, text)
	}
	status, text := s.ask(nil, "GET", "/operator/flags", nil, map[string]string{"HX-Request": "true", "HX-Request-Type": "partial"})
	equal(t, "status without a session", status, 401)
	check("GET without a session", status, text)
	if seen < 60 {
		t.Errorf("%d answers were looked at, want all", seen)
	}
	for _, path := range []string{"/operator/flags", "/login", "/operator/status"} {
		r, err := http.NewRequestWithContext(t.Context(), "GET", s.url+path, nil)
		if err != nil {
			t.Fatal(err)
		}
		r.AddCookie(cookie)
		resp, err := http.DefaultClient.Do(r)
		if err != nil {
			t.Fatal(err)
		}
		resp.Body.Close()
		const policy = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
		equal(t, "CSP of "+path, resp.Header.Get("Content-Security-Policy"), policy)
		equal(t, "Cache-Control of "+path, resp.Header.Get("Cache-Control"), "no-store")
		equal(t, "Vary of "+path, strings.Contains(strings.Join(resp.Header.Values("Vary"), ", "), "HX-Request, HX-Request-Type"), true)
	}
}

// The one-time link signs in by itself where there is a script, and its secret never reaches the address bar's history.
func TestConsoleLinkSignsIn(t *testing.T) {
	t.Parallel()
	needsBrowser(t)
	s := newSite(t)
	p := s.tab(auth.Principal{}, look{})
	p.open("/login")
	p.loads(func() { p.clickText("main", "Print a new link") })
	var secret string
	select {
	case secret = <-s.secrets:
	case <-time.After(patience):
		t.Fatal("no link was printed")
	}
	p.do(chromedp.Navigate(s.url + "/login/link#" + secret))
	p.wait(`location.pathname === '/operator/flags'`)
	p.ready()
	equal(t, "who", strings.Contains(p.textOf(".side .who"), auth.LocalOperator.Name), true)
	if n := s.count(regexp.QuoteMeta(secret)); n > 0 {
		t.Errorf("the secret is in %d requests' addresses", n)
	}
	p.click(".side .whoami summary")
	p.loads(func() { p.clickText(".side .whoami", "Sign out") })
	equal(t, "address after signing out", p.address(), "/login")
}

// The window of a test notices what goes wrong in it: else silence would prove nothing.
func TestConsole36_WhatGoesWrongIsNoticed(t *testing.T) {
	t.Parallel()
	s, p := console(t, look{})
	p.openLive("/operator/flags")
	p.expect(`.*`)
	s.wrong("GET", "/operator/status", breakDown)
	js[chromedp.Void](p, `(async () => {
		document.body.insertAdjacentHTML('beforeend', '<p style="color: red" onclick="alert()">x</p>')
		console.error('said by the page')
		setTimeout(() => { throw new Error('thrown by the page') })
		await fetch('/operator/status')
		await new Promise(done => setTimeout(done))
	})()`)
	for _, want := range []string{"CSP: style-src", "CSP: script-src", "console.error: said by the page", "exception: Uncaught Error: thrown by the page", "status 500: GET /operator/status"} {
		p.mu.Lock()
		seen := strings.Join(p.amiss, "\n")
		p.mu.Unlock()
		if !strings.Contains(seen, want) {
			t.Errorf("not noticed: %q, but\n%s", want, seen)
		}
	}
}
