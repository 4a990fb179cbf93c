package handlers_test

import (
	"context"
	"fmt"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/chromedp/chromedp"

	"github.com/dezky/platform-api/db"
	"github.com/dezky/platform-api/db/dbtest"
	"github.com/dezky/platform-api/flags"
	"github.com/dezky/platform-api/handlers"
	"github.com/dezky/platform-api/provisioning"
	"github.com/dezky/platform-api/provisioning/provisioningtest"
	"github.com/dezky/platform-api/seed"
)

// chooseFile puts a file into the form of the import.
func (p *tab) chooseFile(name, text string) {
	p.t.Helper()
	js[chromedp.Void](p, `(() => { const d = new DataTransfer(), f = document.querySelector('#im-f'); d.items.add(new File([`+quote(text)+`], `+quote(name)+`)); f.files = d.files; f.dispatchEvent(new Event('input', {bubbles: true})) })()`)
}

// auditBoth looks for what axe finds, in light and dark, on a desk and on a phone.
func (p *tab) auditBoth(what string) {
	p.t.Helper()
	for _, at := range []size{{1280, 2000}, {390, 2600}} {
		p.resize(at)
		equal(p.t, fmt.Sprintf("%s is wider than %d px", what, at.width), js[bool](p, `document.documentElement.scrollWidth > innerWidth`), false)
		for _, theme := range []string{"light", "dark"} {
			p.media(map[string]string{"prefers-color-scheme": theme})
			p.audit(fmt.Sprintf("%s, %d px, %s", what, at.width, theme), theme == "dark")
		}
	}
	p.resize(desktop)
	p.media(nil)
}

func TestConsoleRows1_AnImportIsCheckedAndWatched(t *testing.T) {
	t.Parallel()
	s, p := console(t, look{})
	s.make("plans_big", flags.Targeted, 0, map[flags.Axis][]string{flags.AxisPlans: {"enterprise"}})
	other := s.tab(jonas, look{})
	other.openLive(importPath)
	p.openLive("/operator/tenants")
	p.loads(func() { p.clickText(".page-head", "Import") })
	p.ready()

	p.expectStatus(http.StatusUnprocessableEntity)
	p.chooseFile("bad.csv", "slug,name,plan\nok,Ok,starter\nbad,,gold\nok,Twice,starter\n")
	p.click("#import-go")
	p.waitText("#import-says", "3 mistakes. Nothing was changed.")
	p.waitFocus("#import-says")
	equalLists(t, "the mistakes", p.texts(".mistakes li"), []string{
		"Line 3 name is required", `Line 3 plan must be a known plan (starter, business, enterprise), not "gold"`, `Line 4 slug is "ok", as on line 2`})
	p.auditBoth("mistakes")

	p.chooseFile("good.csv", "slug,name,plan\nnew-one,New One,starter\nstudio-kaj,Studio Kaj,enterprise\n")
	p.click("#import-check")
	p.waitText("#import-says", "The rows are right. An import makes this: 1 created, 1 changed, 0 unchanged.")
	equal(t, "the button", p.text("#import-go.primary"), "Import 2 tenants")
	if got := strings.Join(p.texts(".flips li"), "; "); !strings.Contains(got, "plans_big production +1 gain staging +1 gain") {
		t.Errorf("the flips are %q, want plans_big with one gain in each environment", got)
	}
	p.auditBoth("checked")

	release := s.hold()
	p.click("#import-go")
	p.waitText("#import-says", "Writing 0 of 2")
	equal(t, "progress", p.attr("progress", "max")+p.attr("progress", "aria-label"), "2Rows")
	p.audit("writing", false)
	other.expectStatus(http.StatusConflict)
	other.typeIn("#im-r", "slug,name,plan")
	other.click("#import-go")
	other.waitText("#import-says", "maria@dezky.example imports tenants. Yours was not begun")
	js[chromedp.Void](p, `void (window.region = document.querySelector('#import-says'))`)
	release()
	p.waitText("#import-says", "Imported: 1 created, 1 changed, 0 unchanged.")
	equal(t, "the live region is the same", js[bool](p, `region === document.querySelector('#import-says')`), true)
	equal(t, "a timer that still asks", js[bool](p, `!!document.querySelector('#import-now')._htmx?.triggerSpecs?.some(t => t.interval)`), false)
	other.wait(`document.querySelector('#import-says').textContent === ''`)
	equal(t, "the button after it", p.text("#import-check.primary")+p.textOf("#import-go"), "CheckImport")

	p.openLive("/operator/audit?tenant=studio-kaj")
	equal(t, "the history", strings.Contains(p.text(".log"), maria.Name), true)
	p.openLive(importPath)
	p.waitText("#import-says", "Imported: 1 created")

	// What a check counted is of the rows that it read.
	p.chooseFile("good.csv", "slug,name,plan\nnew-two,New Two,starter\n")
	p.click("#import-check")
	p.waitText("#import-go", "Import 1 tenant")
	p.chooseFile("other.csv", "slug,name,plan\nnew-two,New Two,starter\nnew-three,New Three,starter\n")
	equal(t, "the button for another file", p.textOf("#import-go"), "Import")
}

func TestConsoleRows2_AnImportWithoutScript(t *testing.T) {
	t.Parallel()
	s, p := console(t, look{noScript: true})
	p.open(importPath)
	p.expectStatus(http.StatusBadRequest)
	p.typeIn("#im-r", `{"slug":"new-one"`)
	p.loads(func() { p.click("#import-check") })
	equalLists(t, "the mistakes", p.texts(".mistakes li b"), []string{"Line 1"})
	equal(t, "what was pasted", p.value("#im-r"), `{"slug":"new-one"`)
	p.typeIn("#im-r", "")
	js[chromedp.Void](p, `void (document.querySelector('#im-r').value = '')`)
	p.chooseFile("good.jsonl", `{"slug":"new-one","name":"New One","plan":"starter"}`)
	p.loads(func() { p.click("#import-go") })
	equal(t, "the answer", strings.HasPrefix(p.textOf("#import-says"), "Imported: 1 created"), true)
	if s.db.Current().Tenant("new-one") == nil {
		t.Error("the tenant is not there")
	}
}

// authentik is one before a real server of groups: shut, it answers nobody; it refuses tenants that are named.
type authentik struct {
	*provisioningtest.Server
	mu      sync.Mutex
	gate    chan struct{}
	refuses atomic.Pointer[string]
}

func (k *authentik) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	k.mu.Lock()
	gate := k.gate
	k.mu.Unlock()
	select {
	case <-gate:
	case <-r.Context().Done():
		return
	}
	if names := k.refuses.Load(); names != nil && r.Method == http.MethodGet && strings.Contains(*names, strings.TrimPrefix(r.URL.Query().Get("name"), "tenant:")) {
		provisioningtest.Detail(w, http.StatusForbidden, "You do not have permission to perform this action.")
		return
	}
	k.Server.ServeHTTP(w, r)
}

// shut has everybody wait until open is called.
func (k *authentik) shut() (open func()) {
	k.mu.Lock()
	defer k.mu.Unlock()
	gate := make(chan struct{})
	k.gate = gate
	return sync.OnceFunc(func() { close(gate) })
}

// provisioned is a site with the demo registry whose tenants an Authentik is to hold, once run is called.
func provisioned(t *testing.T) (s *site, k *authentik, run func()) {
	t.Helper()
	k = &authentik{Server: provisioningtest.New(t)}
	k.shut()()
	front := httptest.NewServer(k)
	t.Cleanup(front.Close)
	d := dbtest.OpenAt(t, t.TempDir(), time.Now, provisioning.Name)
	if err := seed.Plant(t.Context(), d, true, time.Now()); err != nil {
		t.Fatal(err)
	}
	runner := provisioning.New(provisioning.Options{DB: d, Now: time.Now, Log: slog.New(slog.DiscardHandler), Authentik: provisioning.NewAuthentik(front.URL, provisioningtest.Token)})
	s = serve(t, d, func(_ *site, a *handlers.Appliance) { a.Provisioning = runner })
	return s, k, func() {
		ctx, cancel := context.WithCancel(context.Background())
		var running sync.WaitGroup
		running.Go(func() { runner.Run(ctx) })
		t.Cleanup(func() {
			cancel()
			running.Wait()
		})
	}
}

func TestConsoleRows3_AllAreReconciled(t *testing.T) {
	t.Parallel()
	needsBrowser(t)
	s, k, run := provisioned(t)
	k.refuses.Store(new("studio-kaj polarlab"))
	p, v, plain := s.tab(maria, look{}), s.tab(viewer, look{}), s.tab(maria, look{noScript: true})
	total := len(s.db.Current().Tenants())

	// At the first start all wait, and whoever looks sees how it goes.
	v.openLive("/operator/tenants")
	v.waitText("#reconciling", fmt.Sprintf("Bringing tenants in line with Authentik: 0 of %d", total))
	equalLists(t, "a viewer's buttons", v.texts(".page-head .btn"), []string{"Partners"})
	equal(t, "progress", v.attr("progress", "aria-label"), "Tenants brought in line")
	v.auditBoth("waiting")
	plain.open("/operator/tenants")
	plain.waitText("#reconciling", fmt.Sprintf("0 of %d", total))
	run()
	v.waitText("#reconciling", fmt.Sprintf("%d of %d tenants in line with Authentik. 2 failed; that is tried again by itself.", total-2, total))
	v.waitText("tr:has([href$=polarlab]) .held", "error") // the rows follow
	equal(t, "a timer that still asks", js[bool](v, `!!document.querySelector('#reconciling')._htmx?.triggerSpecs?.some(t => t.interval)`), false)
	v.audit("two failed", false)
	v.loads(func() { v.clickText("#reconciling", "Show the failing ones") })
	equalLists(t, "the failing ones", v.texts("#rows .name"), []string{"Polarlab Tromsø AS", "Studio Kaj"})
	equal(t, "why", strings.Contains(v.text("tr:has([href$=polarlab]) .why"), "permission"), true)
	v.ready()

	k.refuses.Store(nil)
	p.openLive("/operator/tenants")
	p.clickText(".page-head", "Reconcile all")
	p.wait(`document.querySelector('#reconcile-all')?.open`)
	equal(t, "the question", p.textOf("#reconcile-all h2"), fmt.Sprintf("Reconcile %d tenants?", total))
	p.audit("asked", false)
	p.press("\x1b")
	p.wait(`!document.querySelector('#reconcile-all')`)
	p.clickText(".page-head", "Reconcile all")
	open := k.shut()
	t.Cleanup(open)
	p.loads(func() { p.clickText("#reconcile-all", fmt.Sprintf("Reconcile %d tenants", total)) })
	p.waitText("#reconciling", fmt.Sprintf("0 of %d", total))
	open()
	p.waitText("#reconciling", fmt.Sprintf("%d tenants in line with Authentik.", total))
	p.waitText("tr:has([href$=polarlab]) .held", "ok")

	plain.open("/operator/tenants")
	equal(t, "a strip when all is done", plain.textOf("#reconciling"), "")
	plain.loads(func() { plain.clickText(".page-head", "Reconcile all") })
	plain.loads(func() { plain.clickText("#reconcile-all", fmt.Sprintf("Reconcile %d tenants", total)) })
	equal(t, "where that leads", plain.address(), "/operator/tenants?reconciled=1")
	equal(t, "the strip", strings.Contains(plain.textOf("#reconciling"), "in line with Authentik"), true)
}

func TestConsoleRows4_TenantsByTheirState(t *testing.T) {
	t.Parallel()
	needsBrowser(t)
	s, _, _ := provisioned(t)
	for slug, words := range map[string]string{"polarlab": "", "studio-kaj": "403: " + strings.Repeat("a long reason ", 20)} {
		job, due, err := s.db.DueJob(t.Context(), provisioning.Name, slug)
		if err != nil || !due {
			t.Fatalf("the job of %s: %t, %v", slug, due, err)
		}
		if err = s.db.JobDone(t.Context(), provisioning.Name, job); words != "" {
			err = s.db.JobFailed(t.Context(), provisioning.Name, job, words, time.Now().Add(time.Hour))
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	p := s.tab(viewer, look{})
	p.openLive("/operator/tenants?plan=")
	for _, step := range [][2]string{{"ok", "Polarlab Tromsø AS"}, {"error", "Studio Kaj"}} {
		state, want := step[0], step[1:]
		p.loads(func() {
			js[chromedp.Void](p, `(e => { e.value = `+quote(state)+`; e.dispatchEvent(new Event('change', {bubbles: true})) })(document.querySelector('#f-held'))`)
		})
		p.ready()
		equalLists(t, "those in the state "+state, p.texts("#rows .name"), want)
		equalLists(t, "their state", p.texts("#rows .held"), []string{state})
	}
	for _, link := range js[[]string](p, `[...document.querySelectorAll('#plans a')].map(a => a.search)`) {
		if !strings.Contains(link, "provisioning=error") {
			t.Errorf("the link %q does not keep the state", link)
		}
	}
	p.auditBoth("a long error")
	p.openLive("/operator/tenants?provisioning=nonsense")
	equal(t, "rows for an unknown state", len(p.texts("#rows .name")), len(s.db.Current().Tenants()))
	equal(t, "those that wait", strings.Count(strings.Join(p.texts("#rows .held"), " "), "waiting"), len(s.db.Current().Tenants())-2)
	bare := serve(t, dbtest.Open(t))
	if _, err := bare.db.CreateTenant(t.Context(), db.By{Actor: maria.Name}, flags.TenantPatch{Slug: new("solo"), Name: new("Solo"), Plan: new("starter")}); err != nil {
		t.Fatal(err)
	}
	bare.reader(maria).page("/operator/tenants").lacks(t, "Provisioning", "Reconcile all")
	equal(t, "GET /operator/reconcile without another system", bare.reader(maria).send(http.MethodGet, "/operator/reconcile", nil).StatusCode, http.StatusNotFound)
}
