package handlers_test

import (
	"encoding/csv"
	"fmt"
	"html"
	"io"
	"net/http"
	"net/url"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/dezky/platform-api/auth"
	"github.com/dezky/platform-api/db"
	"github.com/dezky/platform-api/db/dbtest"
	"github.com/dezky/platform-api/flags"
)

// reader asks for pages as one person.
type reader struct {
	*site
	cookies []*http.Cookie
}

func (s *site) reader(p auth.Principal) *reader { return &reader{s, []*http.Cookie{s.cookie(p)}} }

// answer is a response with its body.
type answer struct {
	*http.Response
	text string
}

// send asks with the person's cookies and does not follow redirects.
func (rd *reader) send(method, path string, form url.Values, headers ...string) answer {
	rd.t.Helper()
	var body io.Reader
	if form != nil {
		body = strings.NewReader(form.Encode())
	}
	r, err := http.NewRequestWithContext(rd.t.Context(), method, rd.url+path, body)
	if err != nil {
		rd.t.Fatal(err)
	}
	if form != nil {
		r.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	}
	for i := 0; i < len(headers); i += 2 {
		r.Header.Set(headers[i], headers[i+1])
	}
	for _, c := range rd.cookies {
		r.AddCookie(c)
	}
	client := &http.Client{CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}
	resp, err := client.Do(r)
	if err != nil {
		rd.t.Fatal(err)
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	if err != nil {
		rd.t.Fatal(err)
	}
	return answer{resp, string(b)}
}

// page gets a page that must be there.
func (rd *reader) page(path string) answer {
	rd.t.Helper()
	a := rd.send(http.MethodGet, path, nil)
	if a.StatusCode != http.StatusOK {
		rd.t.Fatalf("GET %s: status %d, want 200", path, a.StatusCode)
	}
	return a
}

// post sends a form and wants a status, and for 303 an address.
func (rd *reader) post(path string, form url.Values, status int, to string) answer {
	rd.t.Helper()
	a := rd.send(http.MethodPost, path, form)
	if a.StatusCode != status || a.Header.Get("Location") != to {
		rd.t.Errorf("POST %s: status %d to %q, want %d to %q", path, a.StatusCode, a.Header.Get("Location"), status, to)
	}
	return a
}

func (a answer) contains(t testing.TB, texts ...string) {
	t.Helper()
	for _, text := range texts {
		if !strings.Contains(a.text, text) {
			t.Errorf("%s: no %q", a.Request.URL.RequestURI(), text)
		}
	}
}

func (a answer) lacks(t testing.TB, texts ...string) {
	t.Helper()
	for _, text := range texts {
		if strings.Contains(a.text, text) {
			t.Errorf("%s: %q, which must not be there", a.Request.URL.RequestURI(), text)
		}
	}
}

// all are the first groups of a pattern's matches in the page, unescaped.
func (a answer) all(pattern string) []string {
	var out []string
	for _, m := range regexp.MustCompile(pattern).FindAllStringSubmatch(a.text, -1) {
		out = append(out, html.UnescapeString(m[1]))
	}
	return out
}

var rowNames = `<a class="row-link" href="/operator/tenants/([^"?]+)`

func TestPagesOfTheConsole(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	pages := map[string][]string{
		"/operator/tenants":                       {"<title>Tenants · Dezky</title>", "41 tenants", "Åsgård Advokater", "Nordhost AS", "suspended"},
		"/operator/tenants?q=ZZZ":                 {"No tenant matches “ZZZ”.", "Clear the filters"},
		"/operator/tenants?partner=nordhost":      {"<title>Nordhost AS · Dezky</title>", `<h1 id="page-h">Nordhost AS</h1>`, "7 tenants"},
		"/operator/tenants?plan=gold&partner=x":   {"41 tenants"},
		"/operator/tenants?after=zzz":             {"The list ends before here."},
		"/operator/tenants/asgard-advokater":      {"65f4cf40eac87cd2d2d796dc", "on for everyone", "plan business is not enterprise", "Nordhost AS"},
		"/operator/tenants/dezky?show=on&env=x":   {"Flags of Dezky in production"},
		"/operator/audit":                         {"Audit log", "thread_summaries", "mette@dezky.example", "Older"},
		"/operator/audit?flag=none":               {"No entry matches."},
		"/operator/audit?before=1":                {"Nothing is older than this."},
		"/operator/audit/1":                       {"Entry 1", "system:seed"},
		"/operator/status":                        {"not configured", "one-time link", "154", "production, staging, development", `data-copy="dezky-platform-api, `},
		"/operator/settings":                      {"Theme", "Single-key shortcuts", `name="keys" value="on" checked`},
		"/operator/audit?tenant=kvitbrekka-media": {"fjordit"},
	}
	for _, who := range []auth.Principal{maria, viewer} {
		rd := s.reader(who)
		for path, texts := range pages {
			a := rd.page(path)
			a.contains(t, texts...)
			a.contains(t, "<!doctype html>", who.Name)
			equal(t, path+": Cache-Control", a.Header.Get("Cache-Control"), "no-store")
			if a.Header.Get("Content-Security-Policy") == "" {
				t.Errorf("%s: no Content-Security-Policy", path)
			}
		}
	}
	s.reader(maria).page("/operator/tokens").contains(t, "No API tokens yet.", "Create token")
	a := s.reader(viewer).send(http.MethodGet, "/operator/nowhere", nil)
	equal(t, "an unknown path's status", a.StatusCode, http.StatusNotFound)
	a.contains(t, "<!doctype html>", "Not found", `href="/operator/flags">Back to the flags`, a.Header.Get("X-Request-Id"))
	for _, path := range []string{"/", "/operator", "/operator/"} {
		a := s.reader(viewer).send(http.MethodGet, path, nil)
		equal(t, path+": status", a.StatusCode, http.StatusSeeOther)
		equal(t, path+": leads to", a.Header.Get("Location"), "/operator/flags")
	}
	for _, path := range []string{"/operator/tenants/nobody", "/operator/audit/99999", "/operator/audit/x"} {
		a := s.reader(viewer).send(http.MethodGet, path, nil)
		equal(t, path+": status", a.StatusCode, http.StatusNotFound)
		a.contains(t, "<!doctype html>", "Back to the flags")
	}
	a = s.reader(maria).send(http.MethodGet, "/operator/flags/dkim_key_rotation/kill", nil)
	equal(t, "a wrong method's status", a.StatusCode, http.StatusMethodNotAllowed)
	equal(t, "Allow", a.Header.Get("Allow"), "POST")
	a.contains(t, "<!doctype html>")
	nobody := &reader{site: s}
	for _, path := range []string{"/operator/status", "/operator/nowhere"} {
		a := nobody.send(http.MethodGet, path, nil)
		equal(t, path+" without a session", a.Header.Get("Location"), "/login?return_to="+url.QueryEscape(path))
	}
}

func TestPagesForAViewer(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	_, token, err := s.db.CreateToken(t.Context(), db.By{Actor: maria.Name}, db.NewToken{Name: "ci", Role: "read"})
	if err != nil {
		t.Fatal(err)
	}
	rd := s.reader(viewer)
	for _, path := range []string{"/operator/tenants", "/operator/tenants/dezky", "/operator/audit?flag=legacy_caldav_redirect", "/operator/audit/1", "/operator/status", "/operator/settings", "/operator/nowhere"} {
		a := rd.send(http.MethodGet, path, nil)
		for _, to := range a.all(`method="post" action="([^"]*)"`) {
			if to != "/logout" && to != "/operator/settings" {
				t.Errorf("%s has a form for %s", path, to)
			}
		}
		a.lacks(t, "/edit", "Restore", `href="/operator/tokens"`, "Revoke", "New token")
	}
	equal(t, "GET /operator/tokens", rd.send(http.MethodGet, "/operator/tokens", nil).StatusCode, http.StatusForbidden)
	equal(t, "GET the edit form", rd.send(http.MethodGet, "/operator/tenants/dezky/edit", nil).StatusCode, http.StatusForbidden)
	forms := map[string]url.Values{
		"/operator/tenants/dezky":                        {"name": {"Mine"}, "plan": {"starter"}, "status": {"active"}},
		"/operator/tokens":                               {"name": {"mine"}, "role": {"operator"}},
		"/operator/tokens/" + token.ID + "/revoke":       {},
		"/operator/flags/legacy_caldav_redirect/restore": {"version": {"5"}},
	}
	revision := s.db.Current().Revision()
	for path, form := range forms {
		rd.post(path, form, http.StatusForbidden, "").contains(t, "needs the role operator")
	}
	equal(t, "the revision", s.db.Current().Revision(), revision)
	tokens, err := s.db.Tokens(t.Context())
	if err != nil || len(tokens) != 1 || !tokens[0].RevokedAt.IsZero() {
		t.Errorf("tokens %v, %v: want the one, not revoked", tokens, err)
	}
	for path, form := range forms {
		a := s.reader(maria).send(http.MethodPost, path, form, "Origin", "https://elsewhere.example", "Sec-Fetch-Site", "cross-site")
		equal(t, "from another origin, POST "+path, a.StatusCode, http.StatusForbidden)
	}
}

func TestPagesOfManyTenants(t *testing.T) {
	t.Parallel()
	d := dbtest.Open(t)
	var story []db.Step
	want := []string{}
	for i := range 250 {
		slug, name, plan := fmt.Sprintf("t%03d", i), fmt.Sprintf("Tenant %d", i), flags.Plans[i%3]
		story = append(story, db.Step{By: db.By{Actor: maria.Name}, Tenant: &flags.TenantPatch{Slug: &slug, Name: &name, Plan: &plan}})
		want = append(want, slug)
	}
	if err := d.Tell(t.Context(), story); err != nil {
		t.Fatal(err)
	}
	s := serve(t, d)
	on := flags.On
	s.make("everyone", on, 0, nil)
	s.make("staged", flags.Targeted, 0, map[flags.Axis][]string{flags.AxisEnvironments: {"staging"}})
	rd := s.reader(viewer)
	var got, back []string
	path, pages := "/operator/tenants", 0
	var previous []string
	for ; path != "" && pages < 9; pages++ {
		a := rd.page(path)
		got = append(got, a.all(rowNames)...)
		equal(t, path+": tenants with one flag on", strings.Count(a.text, "<span>1 of 2</span>"), len(a.all(rowNames)))
		previous = a.all(`href="([^"]+)" rel="prev"`)
		path = strings.Join(a.all(`href="([^"]+)" rel="next"`), " ")
	}
	equal(t, "pages", pages, 3)
	equalLists(t, "the tenants of all pages", got, want)
	for len(previous) > 0 {
		a := rd.page(previous[0])
		back = append(a.all(rowNames), back...)
		previous = a.all(`href="([^"]+)" rel="prev"`)
	}
	equalLists(t, "the tenants of the pages back", back, want[:200])
	a := rd.page("/operator/tenants?plan=starter&q=TENANT+1&env=staging")
	a.contains(t, "36 tenants", "<span>2 of 2</span>")
	for _, link := range a.all(`class="row-link" href="([^"]+)"`) {
		if !strings.HasSuffix(link, "?env=staging") {
			t.Fatalf("link %s does not keep the environment", link)
		}
	}
	a = rd.send(http.MethodGet, "/operator/tenants?q=t00&plan=", nil, "HX-Request", "true", "HX-Request-Type", "partial")
	equal(t, "HX-Replace-Url", a.Header.Get("HX-Replace-Url"), "/operator/tenants?q=t00")
	a.contains(t, `hx-target="#tenant-count"`, "10 tenants")
	a.lacks(t, "<html")
}

// The page of a tenant says what evaluation says, in every environment.
func TestPagesOfATenantAgreeWithEvaluation(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	s.make("by_plan", flags.Targeted, 0, map[flags.Axis][]string{flags.AxisPlans: {"business"}})
	s.make("by_partner", flags.Targeted, 0, map[flags.Axis][]string{flags.AxisPartners: {"nordhost"}})
	s.make("no_rules", flags.Targeted, 0, nil)
	half := s.make("half", flags.Rollout, 50, nil)
	rd := s.reader(viewer)
	snapshot := s.db.Current()
	for _, slug := range []string{"dezky", "asgard-advokater", "studio-kaj"} {
		tenant := snapshot.Tenant(slug)
		for _, env := range snapshot.Environments() {
			var on, off []string
			for _, f := range snapshot.Flags() {
				if f.Evaluate(tenant, env) {
					on = append(on, f.Key)
				} else {
					off = append(off, f.Key)
				}
			}
			base := "/operator/tenants/" + slug + "?env=" + env
			keys := `class="row-link" href="/operator/flags/([^"?]+)`
			equalLists(t, base+": on", rd.page(base+"&show=on").all(keys), on)
			equalLists(t, base+": off", rd.page(base+"&show=off").all(keys), off)
			a := rd.page(base)
			equal(t, base+": flags", len(a.all(keys)), len(snapshot.Flags()))
			a.contains(t, fmt.Sprintf(`On <span class="n">%d</span>`, len(on)),
				html.EscapeString("/operator/flags/half?env="+env+"&tenant="+slug)+"#explain")
		}
	}
	bucket := flags.Bucket(snapshot.Tenant("dezky").ID, half.Key)
	reason := fmt.Sprintf("bucket %d is below 50", bucket)
	if bucket >= 50 {
		reason = fmt.Sprintf("bucket %d is not below 50: joins at %d %%", bucket, bucket+1)
	}
	rd.page("/operator/tenants/dezky").contains(t, "plan enterprise is not business", "no partner, and the rule asks for nordhost", "targeted without any rule, so nobody has it", reason)
	rd.page("/operator/tenants/asgard-advokater").contains(t, "plan business matches", "partner nordhost matches")
}

func TestPagesChangeATenant(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	rd := s.reader(maria)
	const path = "/operator/tenants/studio-kaj"
	mark := `name="base" value="([0-9a-f]+)"`
	base := rd.page(path + "/edit").all(mark)[0]
	form := url.Values{"base": {base}, "name": {" Studio Kaj & Co "}, "plan": {"business"}, "partner": {"fjordit"}, "status": {"suspended"}}
	saved := func(changes int64) string { return fmt.Sprintf("%s?saved=%d", path, s.db.Current().Revision()+changes) }
	rd.post(path, form, http.StatusSeeOther, saved(1))
	got := *s.db.Current().Tenant("studio-kaj")
	if got.Name != "Studio Kaj & Co" || got.Plan != "business" || got.PartnerSlug != "fjordit" || got.Status != flags.Suspended {
		t.Errorf("tenant %+v, want what the form said", got)
	}
	rd.page(saved(0)).contains(t, "Saved.", "Studio Kaj &amp; Co", "Fjord IT AS", "suspended")
	rd.page("/operator/audit?tenant=studio-kaj").contains(t, "changed 4 fields", maria.Name)

	// The form began from an older state: nothing is overwritten, and the second try may.
	form.Set("plan", "enterprise")
	a := rd.post(path, form, http.StatusConflict, "")
	a.contains(t, "maria@dezky.example changed this tenant", "Live now: plan business.", `<option value="enterprise" selected>`)
	equal(t, "the plan after a conflict", s.db.Current().Tenant("studio-kaj").Plan, "business")
	form.Set("base", a.all(mark)[0])
	form.Set("name", "")
	form.Set("partner", "nobody")
	a = rd.post(path, form, http.StatusUnprocessableEntity, "")
	a.contains(t, "Must not be empty.", "te-r-e", "<dialog")
	form.Set("name", "Kaj")
	form.Set("partner", "")
	a = rd.send(http.MethodPost, path, form, "HX-Request", "true", "HX-Request-Type", "partial")
	equal(t, "HX-Redirect", a.Header.Get("HX-Redirect"), saved(0))
	equal(t, "the partner", s.db.Current().Tenant("studio-kaj").PartnerSlug, "")
}

func TestPagesOfTheLogCoverEveryEntryOnce(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	rd := s.reader(viewer)
	for _, query := range []string{"", "actor=jonas%40dezky.example", "action=killed", "action=updated&actor=mette%40dezky.example", "flag=thread_summaries", "action=nonsense"} {
		q, err := url.ParseQuery(query)
		if err != nil {
			t.Fatal(err)
		}
		filter := db.HistoryFilter{Actor: q.Get("actor"), Flag: q.Get("flag"), Limit: 1000}
		if q.Get("action") != "nonsense" {
			filter.Action = flags.Action(q.Get("action"))
		}
		entries, err := s.db.History(t.Context(), filter)
		if err != nil {
			t.Fatal(err)
		}
		var want, got []string
		for _, e := range entries {
			want = append(want, strconv.FormatInt(e.ID, 10))
			if filter.Action != "" && e.Action != filter.Action {
				t.Errorf("%s: entry %d is %s", query, e.ID, e.Action)
			}
		}
		if len(want) == 0 {
			t.Errorf("%s: no entry at all", query)
		}
		path := "/operator/audit?" + query
		for n := 0; path != "" && n < 9; n++ {
			a := rd.page(path)
			ids := a.all(`class="when" href="/operator/audit/(\d+)"`)
			if len(ids) > 50 {
				t.Errorf("%s: %d entries on a page, want 50 at most", path, len(ids))
			}
			got = append(got, ids...)
			path = strings.Join(a.all(`href="([^"]+)" rel="next"`), " ")
		}
		equalLists(t, "entries for "+query, got, want)
	}
}

func TestPagesOfOneEntry(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	rd := s.reader(maria)
	f := s.make("told", flags.Off, 0, nil)
	s.patch(f.Key, flags.Patch{State: new(flags.On), Note: "for <everyone>"})
	entries, err := s.db.History(t.Context(), db.HistoryFilter{Flag: f.Key, Limit: 1})
	if err != nil {
		t.Fatal(err)
	}
	a := rd.page(fmt.Sprintf("/operator/audit/%d", entries[0].ID))
	a.contains(t, "for &lt;everyone&gt;", "+41 gain", `<a class="key" href="/operator/flags/told">`, "<td>off</td><td>on</td>")
	for _, tenant := range s.db.Current().Tenants() {
		a.contains(t, `href="/operator/tenants/`+tenant.Slug+`">`)
	}
	if _, err := s.db.PatchFlag(t.Context(), db.By{Actor: maria.Name}, f.Key, flags.Patch{State: new(flags.Off)}); err != nil {
		t.Fatal(err)
	}
	if err := s.db.DeleteFlag(t.Context(), db.By{Actor: maria.Name}, f.Key, "", nil); err != nil {
		t.Fatal(err)
	}
	a = rd.page("/operator/audit?flag=told")
	a.contains(t, `action="/operator/flags/told/restore"`, `name="version" value="3"`)
	a.lacks(t, `href="/operator/flags/told"`) // it is not there to be opened
	rd.post("/operator/flags/told/restore", url.Values{"version": {"3"}}, http.StatusSeeOther, "/operator/flags/told")
	if s.db.Current().Flag("told") == nil {
		t.Error("the deleted flag is not back")
	}
	rd.page("/operator/audit?flag=told").lacks(t, "/told/restore")
}

func TestPagesAuditCSV(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	var story []db.Step // more than are read at once
	for i := range 1000 {
		slug, name, plan := fmt.Sprintf("many-%04d", i), "-2+3", "starter"
		story = append(story, db.Step{By: db.By{Actor: maria.Name}, Tenant: &flags.TenantPatch{Slug: &slug, Name: &name, Plan: &plan}})
	}
	if err := s.db.Tell(t.Context(), story); err != nil {
		t.Fatal(err)
	}
	tenants := strconv.Itoa(len(s.db.Current().Tenants()))
	f := s.make("in_csv", flags.Off, 0, nil)
	s.patch(f.Key, flags.Patch{State: new(flags.On), Note: `=HYPERLINK("https://evil.example","x")`})
	a := s.reader(viewer).page("/operator/audit.csv")
	equal(t, "Content-Type", a.Header.Get("Content-Type"), "text/csv; charset=utf-8")
	rows, err := csv.NewReader(strings.NewReader(a.text)).ReadAll()
	if err != nil {
		t.Fatal(err)
	}
	entries, err := s.db.History(t.Context(), db.HistoryFilter{Limit: 10_000})
	if err != nil {
		t.Fatal(err)
	}
	equal(t, "rows", len(rows), len(entries)+1)
	equalLists(t, "head", rows[0], []string{"id", "time", "revision", "actor", "kind", "name", "action", "version", "note", "changes",
		"via", "subject", "issuer", "client", "production gained", "production lost", "staging gained", "staging lost", "development gained", "development lost"})
	e := entries[0]
	equalLists(t, "newest row", rows[1], []string{strconv.FormatInt(e.ID, 10), e.At.Format(time.RFC3339), strconv.FormatInt(e.Revision, 10), e.Actor, "flag", "in_csv", "updated", "2",
		`'=HYPERLINK("https://evil.example","x")`, `{"state":{"from":"off","to":"on"}}`, "", "", "", "", tenants, "0", tenants, "0", tenants, "0"})
	for _, row := range rows {
		if i := slices.IndexFunc(row, func(cell string) bool { return cell != "" && strings.ContainsRune("=+-@", rune(cell[0])) }); i >= 0 {
			t.Errorf("cell %q can be a formula", row[i])
		}
	}
	a = s.reader(viewer).page("/operator/audit.csv?action=killed&before=" + strconv.FormatInt(e.ID, 10))
	if rows, err = csv.NewReader(strings.NewReader(a.text)).ReadAll(); err != nil {
		t.Fatal(err)
	}
	for _, row := range rows[1:] {
		equal(t, "action", row[6], "killed")
	}
	if len(rows) < 2 {
		t.Error("the filtered CSV is empty")
	}
}

func TestPagesOfTokens(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	rd := s.reader(maria)
	form := url.Values{"name": {"billing"}, "role": {"read"}, "env": {"staging"}, "days": {"30"}}
	a := rd.post("/operator/tokens", form, http.StatusOK, "")
	secret := a.all(`<code id="secret">([^<]+)</code>`)
	if len(secret) != 1 || !strings.HasPrefix(secret[0], db.TokenPrefix) {
		t.Fatalf("secrets %q, want one", secret)
	}
	a.contains(t, `data-copy="`+secret[0]+`"`, "in 30 days")
	equal(t, "Cache-Control", a.Header.Get("Cache-Control"), "no-store")
	rd.post("/operator/tokens", form, http.StatusConflict, "").contains(t, "exists or existed") // a reload of the answer
	a = rd.page("/operator/tokens")
	a.contains(t, "billing", "read", "staging", maria.Name, "1 active token")
	a.lacks(t, secret[0], db.TokenPrefix)
	tokens, err := s.db.Tokens(t.Context())
	if err != nil || len(tokens) != 1 {
		t.Fatalf("tokens %v, %v: want one", tokens, err)
	}
	equal(t, "the token's life", tokens[0].ExpiresAt.Sub(tokens[0].CreatedAt), 30*24*time.Hour)

	for name, bad := range map[string]url.Values{
		"tk-n-e": {"name": {"no spaces"}, "role": {"read"}},
		"tk-r-e": {"name": {"other"}, "role": {"member"}},
		"tk-e-e": {"name": {"other"}, "role": {"read"}, "env": {"moon"}},
		"tk-d-e": {"name": {"other"}, "role": {"read"}, "days": {"-1"}},
	} {
		rd.post("/operator/tokens", bad, http.StatusUnprocessableEntity, "").contains(t, `id="`+name+`"`, "<details class=\"maker\" open>")
	}
	rd.post("/operator/tokens", url.Values{"name": {"for-ever"}, "role": {"evaluate"}}, http.StatusOK, "").contains(t, "never", "every environment")

	works := func() int {
		status, _ := s.ask(nil, http.MethodGet, "/flags", nil, map[string]string{"Authorization": "Bearer " + secret[0]})
		return status
	}
	equal(t, "the token before", works(), http.StatusOK)
	path := "/operator/tokens/" + tokens[0].ID + "/revoke"
	rd.page(path).contains(t, "Revoke billing?", "can’t be undone", "<dialog")
	equal(t, "the token after the question", works(), http.StatusOK)
	rd.post(path, url.Values{}, http.StatusSeeOther, "/operator/tokens?revoked="+tokens[0].ID)
	equal(t, "the token after", works(), http.StatusUnauthorized)
	a = rd.page("/operator/tokens?revoked=" + tokens[0].ID)
	a.contains(t, "<b>billing</b> is revoked.", "Revoked")
	a.lacks(t, path)
	rd.page("/operator/tokens?revoked=%3Cb%3E").lacks(t, "is revoked.")
	equal(t, "asking again", rd.send(http.MethodGet, path, nil).StatusCode, http.StatusConflict)
	equal(t, "an unknown token", rd.send(http.MethodGet, "/operator/tokens/none/revoke", nil).StatusCode, http.StatusNotFound)
	rd.page("/operator/audit?action=revoked").contains(t, "billing", "revoked it")
}

func TestPagesOfSettings(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	rd := s.reader(viewer)
	a := rd.post("/operator/settings", url.Values{"theme": {"dark"}, "density": {"compact"}, "env": {"staging"}}, http.StatusSeeOther, "/operator/settings?saved=1")
	cookies := a.Cookies()
	if len(cookies) != 1 {
		t.Fatalf("cookies %v, want one", cookies)
	}
	c := cookies[0]
	if c.Name != "dezky-preferences" || c.Path != "/" || !c.HttpOnly || c.Secure || c.SameSite != http.SameSiteLaxMode || c.MaxAge != 365*24*3600 {
		t.Errorf("cookie %v, want dezky-preferences for a year, HttpOnly, SameSite=Lax, and not Secure on http", c)
	}
	rd.cookies = append(rd.cookies, c)
	a = rd.page("/operator/settings?saved=1")
	a.contains(t, `data-theme="dark"`, `data-density="compact"`, `data-keys="off"`, "Saved.", `<option value="staging" selected>`, `value="dark" checked`)
	a.lacks(t, `value="on" checked`)
	a = rd.page("/operator/tenants")
	a.contains(t, `data-theme="dark"`, "<option selected>staging</option>")
	rd.page("/operator/tenants?env=production").contains(t, "<option selected>production</option>", "/operator/tenants/dezky?env=production")

	a = rd.post("/operator/settings", url.Values{"theme": {"pink"}, "env": {"moon"}, "keys": {"on"}}, http.StatusSeeOther, "/operator/settings?saved=1")
	if c := a.Cookies(); len(c) != 1 || c[0].MaxAge >= 0 {
		t.Errorf("cookies %v: want the one taken back, because all is as usual", c)
	}
}
