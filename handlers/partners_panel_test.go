package handlers_test

import (
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"testing"

	"github.com/dezky/platform-api/flags"
)

func TestPartnersForAViewer(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	s.make("theirs", flags.Targeted, 0, map[flags.Axis][]string{flags.AxisPartners: {"nordhost"}})
	rd := s.reader(viewer)
	a := rd.page("/operator/tenants?partner=nordhost")
	rd.page("/operator/tenants").contains(t, `href="/operator/partners"`)
	a.contains(t, "partner:nordhost", `href="/operator/flags?partner=nordhost">2 flags<`, `href="/operator/audit?partner=nordhost"`, "1 enterprise")
	for _, path := range []string{"/operator/tenants", "/operator/tenants?partner=nordhost", "/operator/partners"} {
		rd.page(path).lacks(t, "New partner", "Rename", "Remove")
	}
	rd.page("/operator/palette?q=n").lacks(t, "New partner", "New tenant", "Import tenants")
	for _, path := range []string{"/operator/new-partner", "/operator/partners/nordhost/edit", "/operator/partners/nordhost/remove"} {
		equal(t, "GET "+path, rd.send(http.MethodGet, path, nil).StatusCode, http.StatusForbidden)
	}
	revision := s.db.Current().Revision()
	for path, form := range map[string]url.Values{
		"/operator/partners":                 {"slug": {"mine"}, "name": {"Mine"}},
		"/operator/partners/nordhost":        {"base": {"Nordhost AS"}, "name": {"Mine"}},
		"/operator/partners/nordhost/remove": {},
	} {
		rd.post(path, form, http.StatusForbidden, "").contains(t, "needs the role operator")
		a := s.reader(maria).send(http.MethodPost, path, form, "Origin", "https://elsewhere.example", "Sec-Fetch-Site", "cross-site")
		equal(t, "from another origin, POST "+path, a.StatusCode, http.StatusForbidden)
	}
	equal(t, "the revision", s.db.Current().Revision(), revision)
}

func TestPartnersRefusedChangeNothing(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	rd := s.reader(maria)
	revision := s.db.Current().Revision()
	for _, tt := range []struct {
		path   string
		form   url.Values
		status int
		says   string
	}{
		{"/operator/partners", url.Values{}, 422, "Must not be empty."},
		{"/operator/partners", url.Values{"slug": {"Nord Host"}, "name": {"x"}}, 422, "Must be 1 to 63 lower-case letters"},
		{"/operator/partners", url.Values{"slug": {"x"}, "name": {strings.Repeat("x", 201)}}, 422, "has 201 characters; at most 200 are allowed."},
		{"/operator/partners", url.Values{"slug": {" nordhost "}, "name": {"x"}}, 409, "There is a partner nordhost already."},
		{"/operator/partners/nordhost", url.Values{"base": {"Nordhost AS"}, "name": {"  "}}, 422, "Must not be empty."},
		{"/operator/partners/nordhost", url.Values{"name": {"Mine"}}, 409, "Nothing was saved. Its name now: Nordhost AS."},
		{"/operator/partners/nordhost/remove", url.Values{}, 409, "Nordhost AS can’t be removed"},
		{"/operator/partners/nobody", url.Values{"base": {""}, "name": {"x"}}, 404, "Partner &#34;nobody&#34;: not found."},
		{"/operator/partners/nobody/remove", url.Values{}, 404, "Partner &#34;nobody&#34;: not found."},
	} {
		a := rd.post(tt.path, tt.form, tt.status, "")
		if !strings.Contains(strings.ToLower(a.text), strings.ToLower(tt.says)) {
			t.Errorf("POST %s %v: no %q", tt.path, tt.form, tt.says)
		}
		a.contains(t, "<!doctype html>")
	}
	equal(t, "the revision", s.db.Current().Revision(), revision)
	equal(t, "an unknown partner's form", rd.send(http.MethodGet, "/operator/partners/nobody/edit", nil).StatusCode, 404)
	s.rename("nordhost", "Nordhost Group")
	rd.page("/operator/partners?removed=nordhost").lacks(t, "is removed")
	rd.page("/operator/partners?removed=nobody").lacks(t, "is removed")
}

func TestPartnersAreListedAndFound(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	s.partner("havgap", "İstanbul ȺȺ")
	s.rename("havgap", "İzmir ȺȺ")
	rd := s.reader(maria)
	a := rd.page("/operator/partners")
	equalLists(t, "partners", a.all(`class="row-link" href="/operator/tenants\?partner=([^"]+)`), []string{"cloudkontor", "fjordit", "havgap", "mailbyen", "nordhost"})
	var want []string
	for _, p := range s.db.Current().Partners() {
		want = append(want, strconv.Itoa(len(s.db.Current().TenantsOf(p.Slug, 100))))
	}
	equalLists(t, "their tenants", a.all(`class="c-n">(\d+)`), want)
	a = rd.page("/operator/audit?partner=havgap")
	equal(t, "entries of a partner", len(a.all(`class="when" href="/operator/audit/(\d+)"`)), 2)
	a.contains(t, "İstanbul", `href="/operator/audit.csv?partner=havgap"`)
	equal(t, "lines of its CSV", strings.Count(rd.page("/operator/audit.csv?partner=havgap").text, "\n"), 3)
	for text, want := range map[string]string{
		"ⱥⱥ":     `data-href="/operator/tenants?partner=havgap"`, // longer in lower case than as it is written
		"izmir":  `data-href="/operator/tenants?partner=havgap"`,
		"havg":   `data-href="/operator/tenants?partner=havgap"`,
		"import": `data-href="/operator/tenants/import"`,
		"new t":  `data-href="/operator/new-tenant" data-dialog`,
		"new f":  `data-href="/operator/new-flag" data-dialog`,
	} {
		rd.page("/operator/palette?"+url.Values{"q": {text}}.Encode()).contains(t, want)
	}
}
