package handlers_test

import (
	"encoding/json"
	"fmt"
	"log/slog"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/chromedp/chromedp"

	"github.com/dezky/platform-api/auth"
	"github.com/dezky/platform-api/db"
	"github.com/dezky/platform-api/db/dbtest"
	"github.com/dezky/platform-api/flags"
	"github.com/dezky/platform-api/handlers"
	"github.com/dezky/platform-api/provisioning"
	"github.com/dezky/platform-api/provisioning/provisioningtest"
)

// registrySite is a site with a few tenants, flags that they have by plan and partner, and an Authentik. Nothing
// works its queue off: only who reconciles asks Authentik.
func registrySite(t *testing.T) (*site, *provisioningtest.Server) {
	t.Helper()
	d := dbtest.OpenAt(t, t.TempDir(), time.Now, provisioning.Name)
	doc := flags.Document{}
	for _, slug := range []string{"mailbyen", "nordhost"} {
		doc.Partners = append(doc.Partners, flags.PartnerPatch{Slug: &slug, Name: &slug})
	}
	for _, x := range []struct{ id, slug, name, plan, partner string }{{"t1", "acme", "Acme", "starter", ""}, {"t2", "globex", "Globex", "business", "nordhost"}} {
		doc.Tenants = append(doc.Tenants, flags.TenantPatch{ID: &x.id, Slug: &x.slug, Name: &x.name, Plan: &x.plan, PartnerSlug: &x.partner})
	}
	if err := d.Plant(t.Context(), jonas.By(), doc); err != nil {
		t.Fatal(err)
	}
	authentik := provisioningtest.New(t)
	s := serve(t, d, func(s *site, a *handlers.Appliance) {
		a.Provisioning = provisioning.New(provisioning.Options{DB: d, Now: time.Now, Log: slog.New(slog.NewJSONHandler(s.log, nil)),
			Authentik: provisioning.NewAuthentik(authentik.URL, provisioningtest.Token)})
	})
	s.make("everyone", flags.On, 0, nil)
	s.make("starter_only", flags.Targeted, 0, map[flags.Axis][]string{flags.AxisPlans: {"starter"}})
	s.make("paid", flags.Targeted, 0, map[flags.Axis][]string{flags.AxisPlans: {"business", "enterprise"}})
	s.make("paid_staging", flags.Targeted, 0, map[flags.Axis][]string{flags.AxisPlans: {"business"}, flags.AxisEnvironments: {"staging"}})
	s.make("partners", flags.Targeted, 0, map[flags.Axis][]string{flags.AxisPartners: {"nordhost"}})
	return s, authentik
}

// has is which flags a tenant has by evaluation, as "environment key".
func (s *site) has(slug string) []string {
	var out []string
	now := s.db.Current()
	for _, env := range now.Environments() {
		for _, f := range now.Flags() {
			if f.Evaluate(now.Tenant(slug), env) {
				out = append(out, env+" "+f.Key)
			}
		}
	}
	slices.Sort(out)
	return out
}

// difference is what is gained and lost between two of those, as "environment +key".
func difference(before, after []string) []string {
	var out []string
	for sign, in := range map[string][2][]string{"+": {before, after}, "-": {after, before}} {
		for _, x := range in[1] {
			if env, key, _ := strings.Cut(x, " "); !slices.Contains(in[0], x) {
				out = append(out, env+" "+sign+key)
			}
		}
	}
	slices.Sort(out)
	return out
}

// impactOf is what the API says that a change of a tenant flips, in the same form.
func (s *site) impactOf(slug, patch string) []string {
	s.t.Helper()
	status, text := s.ask(s.cookie(maria), http.MethodPost, "/api/tenants/"+slug+"/impact", strings.NewReader(patch), map[string]string{"Content-Type": "application/json"})
	var answer struct{ Flips []flags.TenantFlip }
	if err := json.Unmarshal([]byte(text), &answer); err != nil || status != http.StatusOK {
		s.t.Fatalf("impact = %d %s", status, text)
	}
	out := []string{}
	for _, f := range answer.Flips {
		for env, change := range f.Environments {
			out = append(out, env+" "+map[bool]string{true: "+", false: "-"}[change.To]+f.Key)
		}
	}
	slices.Sort(out)
	return out
}

// flips is what the page says that flips, in the same form.
func (p *tab) flips(within string) []string {
	p.t.Helper()
	out := js[[]string](p, `[...document.querySelectorAll(`+quote(within+" .flips")+`)].flatMap(g => g.querySelector('h3').textContent.split(', ').flatMap(env =>
		[...g.querySelectorAll('li')].map(li => env + ' ' + {gains: '+', loses: '-'}[li.querySelector('small').textContent] + li.querySelector('.key').textContent)))`)
	slices.Sort(out)
	return out
}

// pickOption picks an option of a select as a person does, and returns what the button that saves says at once.
func (p *tab) pickOption(selector, value string) (button string) {
	p.t.Helper()
	return js[string](p, `(e => {
		e.value = `+quote(value)+`
		for (const type of ['input', 'change']) e.dispatchEvent(new Event(type, {bubbles: true}))
		return document.querySelector('#te-save, #nt-make').textContent
	})(document.querySelector(`+quote(selector)+`))`)
}

func (p *tab) waitOpen(dialog string) {
	p.t.Helper()
	p.wait(`document.querySelector(` + quote(dialog) + `).matches(':modal')`)
}

func TestConsoleTenantLifeCreatedAndChanged(t *testing.T) {
	t.Parallel()
	needsBrowser(t)
	s, _ := registrySite(t)
	p := s.tab(maria, look{})
	p.expectStatus(409)
	p.openLive("/operator/tenants?partner=nordhost")
	p.clickText(".page-head", "New tenant")
	p.waitOpen("#new-tenant")
	p.waitFocus("#te-n")
	equal(t, "the list's partner", p.value("#te-r"), "nordhost")
	p.press("Bodø & Årdal AS")
	equal(t, "the slug that is suggested", p.value("#nt-s"), "bodo-ardal-as")
	p.fill("#nt-s", "acme")
	p.typeIn("#te-n", "!")
	equal(t, "a slug of one's own", p.value("#nt-s"), "acme")
	p.pickOption("#te-p", "enterprise")
	p.click("#nt-make")
	p.waitText("#nt-s-e", "exists")
	p.waitFocus("#nt-s")
	equal(t, "the link to the one that has it", p.attr("#nt-s-e a", "href"), "/operator/tenants/acme")
	equal(t, "what was typed", p.value("#te-n")+" "+p.value("#te-p")+" "+p.value("#te-r"), "Bodø & Årdal AS! enterprise nordhost")
	p.fill("#nt-s", "bodo")
	p.loads(func() { p.click("#nt-make") })
	equal(t, "the page", p.address(), "/operator/tenants/bodo?created=1")
	p.waitText(".notice.saved", "Created.")
	equal(t, "the plan", s.db.Current().Tenant("bodo").Plan, "enterprise")

	// What the dialog says is what the API says, and then what evaluation says.
	before := s.has("bodo")
	want := s.impactOf("bodo", `{"plan":"business","partnerSlug":""}`)
	p.ready()
	p.clickText(".page-head", "Edit")
	p.waitOpen("#tenant-edit")
	equal(t, "the button before a change", p.text("#te-save"), "Save tenant")
	p.pickOption("#te-p", "business")
	p.pickOption("#te-r", "")
	p.waitText("#te-save", "Save · 2 flags flip")
	equalLists(t, "before it is saved", p.flips("#te-impact"), want)
	equal(t, "the button until it is counted", p.pickOption("#te-p", "enterprise"), "Save tenant")
	p.waitText("#te-save", "Save · 1 flag flips")
	p.pickOption("#te-p", "business")
	p.waitText("#te-save", "Save · 2 flags flip")
	p.loads(func() { p.click("#te-save") })
	p.waitText(".notice.saved", "2 flags flipped")
	equalLists(t, "after it is saved", p.flips(".notice.saved"), want)
	equalLists(t, "by evaluation", difference(before, s.has("bodo")), want)

	// Somebody else's change is not overwritten, and the second try may.
	p.ready()
	p.clickText(".page-head", "Edit")
	p.waitOpen("#tenant-edit")
	if _, err := s.db.PatchTenant(t.Context(), jonas.By(), "bodo", flags.TenantPatch{Name: new("Theirs")}); err != nil {
		t.Fatal(err)
	}
	p.pickOption("#te-p", "starter")
	p.waitText("#te-save", "flip")
	p.click("#te-save")
	p.waitText("#tenant-edit .notice", "jonas@dezky.example changed this tenant just now. Nothing was saved. Live now: name Theirs, plan business.")
	p.waitOpen("#tenant-edit")
	equal(t, "what is kept meanwhile", s.db.Current().Tenant("bodo").Name+" "+s.db.Current().Tenant("bodo").Plan, "Theirs business")
	p.loads(func() { p.click("#te-save") })
	equal(t, "what is saved then", s.db.Current().Tenant("bodo").Name+" "+s.db.Current().Tenant("bodo").Plan, "Bodø & Årdal AS! starter")
}

func TestConsoleTenantLifeSuspendedReconciledAndRemoved(t *testing.T) {
	t.Parallel()
	needsBrowser(t)
	s, authentik := registrySite(t)
	p := s.tab(maria, look{})
	for _, status := range []int{404, 409} {
		p.expectStatus(status)
	}
	p.openLive("/operator/tenants/globex")
	before := s.has("globex")
	p.click("#te-status")
	p.waitText("#toasts", "Globex is suspended. This changes no flag.")
	p.waitText("#te-status", "Resume")
	p.waitText(".page-head", "suspended")
	p.waitFocus("#te-status")
	equalLists(t, "its flags", s.has("globex"), before)
	p.click("#te-status")
	p.waitText("#te-status", "Suspend")
	equal(t, "its status", s.db.Current().Tenant("globex").Status, flags.Active)

	// It waits, and asks by itself: here somebody else has it tried, and it fails, and heals by the button.
	equal(t, "in Authentik", p.text("#provisioning li"), "Authentik waiting")
	authentik.Behave(func(w http.ResponseWriter, _ *http.Request) {
		provisioningtest.Detail(w, http.StatusForbidden, "Token invalid/expired")
	})
	s.ask(s.cookie(jonas), http.MethodPost, "/operator/tenants/globex/reconcile", nil, nil)
	p.waitText("#provisioning li", "Token invalid/expired")
	p.waitText("#provisioning li", "error")
	asked, gate := make(chan struct{}), make(chan struct{})
	authentik.Behave(func(w http.ResponseWriter, r *http.Request) {
		authentik.Behave(nil)
		close(asked)
		<-gate
		authentik.ServeHTTP(w, r)
	})
	p.click("#reconcile")
	<-asked
	p.wait(`document.querySelector('#provisioning').getAttribute('aria-busy') === 'true' && document.querySelector('.working').checkVisibility()`)
	close(gate)
	p.waitText("#provisioning li", "Authentik ok")
	equal(t, "no error any more", p.has("#provisioning .why"), false)
	equal(t, "at work", p.attr("#provisioning", "aria-busy"), "")
	p.waitFocus("#reconcile")
	equal(t, "its groups", len(authentik.Groups("tenant:globex")), 1)

	// A scope that names it forbids the removal, before and after it is asked.
	named := s.make("named", flags.Targeted, 0, map[flags.Axis][]string{flags.AxisTenants: {"acme"}})
	p.clickText(".page-head", "Remove")
	p.waitOpen("#tenant-remove")
	p.waitFocus("#tenant-remove [data-cancel]")
	p.waitText("#tenant-remove", fmt.Sprintf("Globex has %d flags on in production.", strings.Count(strings.Join(before, "\n"), "production ")))
	equalLists(t, "its flags in production", p.texts("#tenant-remove .names .key"), []string{"everyone", "paid", "partners"})
	p.waitText("#tenant-remove", "tenant:globex goes, with its members")
	s.patch("named", flags.Patch{Scope: map[flags.Axis][]string{flags.AxisTenants: {"globex"}}})
	p.clickText("#tenant-remove", "Remove globex")
	p.waitText("#tenant-remove .notice", "can’t be removed")
	equal(t, "the flag that names it", p.attr("#tenant-remove .notice a", "href"), "/operator/flags/"+named.Key)
	equal(t, "the button", p.has("#tenant-remove .kill"), false)
	s.patch("named", flags.Patch{Scope: map[flags.Axis][]string{flags.AxisTenants: {}}})
	p.clickText("#tenant-remove", "Keep it")
	p.clickText(".page-head", "Remove")
	p.waitOpen("#tenant-remove")
	p.loads(func() { p.clickText("#tenant-remove", "Remove globex") })
	equal(t, "the page", p.address(), "/operator/tenants?removed=globex")
	p.waitText(".notice.saved", "globex is removed.")
	if s.db.Current().Tenant("globex") != nil {
		t.Error("the tenant is still there")
	}

	// What is gone can't be changed, and the page that was open says so and stays.
	p.openLive("/operator/tenants/acme")
	if err := s.db.DeleteTenant(t.Context(), jonas.By(), "acme"); err != nil {
		t.Fatal(err)
	}
	p.click("#te-status")
	p.waitText("#toasts [role=alert]", "not found")
	equal(t, "the page", p.textOf("h1"), "Acme")
}

func TestConsoleTenantLifeWithoutJavaScript(t *testing.T) {
	t.Parallel()
	needsBrowser(t)
	s, authentik := registrySite(t)
	authentik.Down()
	p := s.tab(maria, look{size: phone, noScript: true})
	p.expectStatus(422)
	p.open("/operator/tenants?partner=mailbyen")
	p.loads(func() { p.clickText(".page-head", "New tenant") })
	equal(t, "the list's partner", p.value("#te-r"), "mailbyen")
	p.typeIn("#te-n", " ")
	p.typeIn("#nt-s", "initech")
	p.loads(func() { p.click("#nt-make") })
	equal(t, "the error", p.text("#te-n-e"), "Must not be empty.")
	p.typeIn("#te-n", "Initech")
	p.loads(func() { p.click("#nt-make") })
	equal(t, "the page", p.address(), "/operator/tenants/initech?created=1")
	p.loads(func() { p.clickText(".page-head", "Edit") })
	js[chromedp.Void](p, `document.querySelector('#te-p').value = 'business'`)
	p.loads(func() { p.clickText("#tenant-edit", "Preview") })
	want := s.impactOf("initech", `{"plan":"business"}`)
	equalLists(t, "before it is saved", p.flips("#te-impact"), want)
	equal(t, "the button", p.text("#te-save"), "Save · 3 flags flip")
	p.loads(func() { p.click("#te-save") })
	equalLists(t, "after it is saved", p.flips(".notice.saved"), want)
	p.loads(func() { p.click("#te-status") })
	equal(t, "the notice", p.text(".notice.saved"), "Initech is suspended. This changes no flag.")
	equal(t, "in Authentik", p.text("#provisioning li"), "Authentik waiting")
	p.loads(func() { p.click("#reconcile") })
	if text := p.text("#provisioning li"); !strings.Contains(text, "Authentik error") || !strings.Contains(text, "can't be reached") {
		t.Errorf("with Authentik down: %s", text)
	}
	p.loads(func() { p.clickText(".page-head", "Remove") })
	p.loads(func() { p.clickText("#tenant-remove", "Remove initech") })
	equal(t, "the notice", p.text(".notice.saved"), "initech is removed.")
}

func TestConsoleTenantLifeAxe(t *testing.T) {
	t.Parallel()
	for _, at := range []size{{1280, 1400}, {390, 1800}} {
		t.Run(fmt.Sprint(at.width), func(t *testing.T) {
			t.Parallel()
			needsBrowser(t)
			s, authentik := registrySite(t)
			authentik.Behave(func(w http.ResponseWriter, _ *http.Request) {
				provisioningtest.Detail(w, http.StatusForbidden, "Token invalid/expired")
			})
			s.make("named", flags.Targeted, 0, map[flags.Axis][]string{flags.AxisTenants: {"acme"}})
			p := s.tab(maria, look{size: at})
			p.expectStatus(422)
			opens := func(button, dialog string) func() {
				return func() { p.clickText(".page-head", button); p.waitOpen(dialog) }
			}
			for _, sc := range []struct {
				name, path string
				prepare    func()
			}{
				{"page", "/operator/tenants/globex?created=1", func() {}},
				{"failed", "/operator/tenants/globex", func() { p.click("#reconcile"); p.waitText("#provisioning", "error") }},
				{"new", "/operator/tenants", func() {
					opens("New tenant", "#new-tenant")()
					p.click("#new-tenant summary")
					p.typeIn("#te-n", "A")
					js[chromedp.Void](p, `document.querySelector('#new-tenant form').noValidate = true`)
					p.fill("#nt-s", "-")
					p.typeIn("#nt-i", "ø")
					p.click("#nt-make")
					p.waitText("#nt-s-e", "Must be")
				}},
				{"edit", "/operator/tenants/acme", func() {
					opens("Edit", "#tenant-edit")()
					p.pickOption("#te-p", "business")
					p.waitText("#te-save", "3 flags flip")
				}},
				{"remove", "/operator/tenants/globex", opens("Remove", "#tenant-remove")},
				{"refused", "/operator/tenants/acme", opens("Remove", "#tenant-remove")},
			} {
				p.openLive(sc.path)
				sc.prepare()
				for i, scheme := range []string{"light", "dark"} {
					p.media(map[string]string{"prefers-color-scheme": scheme})
					p.audit(fmt.Sprintf("%s, %s at %d", sc.name, scheme, at.width), i > 0)
				}
				equalLists(t, sc.name+": too wide", js[[]string](p, tooWide), []string{})
				equalLists(t, sc.name+": smaller than 24 px", js[[]string](p, tooSmall), []string{})
				p.media(nil)
			}
		})
	}
}

// A reader sees all of it and may do none of it; nothing that is refused changes anything.
func TestTenantLifeForms(t *testing.T) {
	t.Parallel()
	s, authentik := registrySite(t)
	base := s.db.Current().Tenant("acme").Mark()
	forms := map[string]url.Values{
		"/operator/tenants":                {"name": {"Mine"}, "slug": {"mine"}, "plan": {"starter"}, "status": {"active"}},
		"/operator/tenants/acme":           {"base": {base}, "name": {"Mine"}, "plan": {"starter"}, "status": {"active"}},
		"/operator/tenants/acme/impact":    {"plan": {"business"}},
		"/operator/tenants/acme/status":    {"status": {"suspended"}},
		"/operator/tenants/acme/delete":    {"base": {base}},
		"/operator/tenants/acme/reconcile": {},
	}
	revision := s.db.Current().Revision()
	reads := s.reader(viewer)
	for path, form := range forms {
		reads.post(path, form, http.StatusForbidden, "").contains(t, "needs the role operator")
	}
	for _, path := range []string{"/operator/new-tenant", "/operator/tenants/acme/edit", "/operator/tenants/acme/delete"} {
		equal(t, "GET "+path, reads.send(http.MethodGet, path, nil).StatusCode, http.StatusForbidden)
	}
	reads.page("/operator/tenants").lacks(t, "new-tenant")
	reads.page("/operator/tenants/acme").lacks(t, "acme/status", "acme/delete", "acme/reconcile")
	reads.page("/operator/tenants/acme").contains(t, "Authentik", "waiting")
	a := reads.page("/operator/tenants/acme/provisioning")
	a.contains(t, `hx-trigger="every 2s"`, "waiting")
	a.lacks(t, "/reconcile", "<html")

	rd := s.reader(maria)
	for _, bad := range []struct {
		path   string
		form   url.Values
		status int
		says   string
	}{
		{"/operator/tenants", url.Values{}, 422, "Must not be empty."},
		{"/operator/tenants", url.Values{"name": {"A"}, "slug": {"A b"}, "plan": {"gold"}, "partner": {"x"}, "status": {"gone"}, "id": {"ø"}}, 422, `id="nt-i-e"`},
		{"/operator/tenants", url.Values{"name": {"A"}, "slug": {"import"}, "plan": {"starter"}, "status": {"active"}}, 422, "reserved"},
		{"/operator/tenants", url.Values{"name": {"A"}, "slug": {"acme"}, "plan": {"starter"}, "status": {"active"}}, 409, "/operator/tenants/acme"},
		{"/operator/tenants", url.Values{"name": {"A"}, "slug": {"b"}, "id": {"t1"}, "plan": {"starter"}, "status": {"active"}}, 409, `id="nt-i-e"`},
		{"/operator/tenants/acme", url.Values{"name": {"A"}, "plan": {"starter"}, "status": {"active"}}, 409, "Live now: name Acme"},
		{"/operator/tenants/acme/impact", url.Values{"plan": {"gold"}}, 422, "gold"},
		{"/operator/tenants/acme/status", url.Values{"status": {"gone"}}, 422, "active or suspended"},
		{"/operator/tenants/acme/delete", url.Values{}, 409, "Nothing was removed."},
		{"/operator/tenants/nobody/delete", url.Values{}, 404, "nobody"},
		{"/operator/tenants/nobody/reconcile", url.Values{}, 404, "nobody"},
	} {
		rd.post(bad.path, bad.form, bad.status, "").contains(t, bad.says)
	}
	equal(t, "the revision", s.db.Current().Revision(), revision)
	equal(t, "what Authentik was asked", len(authentik.Calls()), 0)

	// The page says nothing was done that was not.
	for _, path := range []string{"/operator/tenants?removed=acme", "/operator/tenants?removed=nobody", "/operator/tenants/acme?saved=suspended"} {
		rd.page(path).lacks(t, "is removed", "is suspended")
	}
	rd.page("/operator/tenants/acme?saved=1").lacks(t, "flipped:")

	// Without an integration there is nothing to see of one.
	d := dbtest.Open(t)
	plain := serve(t, d)
	slug, name, plan := "acme", "Acme", "starter"
	if err := d.Tell(t.Context(), []db.Step{{By: jonas.By(), Tenant: &flags.TenantPatch{Slug: &slug, Name: &name, Plan: &plan}}}); err != nil {
		t.Fatal(err)
	}
	for _, who := range []auth.Principal{maria, viewer} {
		plain.reader(who).page("/operator/tenants/acme").lacks(t, "rovisioning")
	}
}
