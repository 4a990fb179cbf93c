package handlers

import (
	"compress/gzip"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/dezky/platform-api/auth"
	"github.com/dezky/platform-api/db"
	"github.com/dezky/platform-api/db/dbtest"
	"github.com/dezky/platform-api/flags"
)

// benchConsole is a console without a network, with a person signed in.
type benchConsole struct {
	*Server
	cookie *http.Cookie
}

func startConsole(t testing.TB, d flags.Document) benchConsole {
	t.Helper()
	database := dbtest.Open(t)
	if err := database.Plant(t.Context(), db.By{Actor: "system:seed"}, d); err != nil {
		t.Fatal(err)
	}
	c := benchConsole{Server: New(Options{Log: discard, Version: "bench"})}
	a := appliance(t, database, time.Now, discard, "http://127.0.0.1:3001")
	if err := c.Start(a); err != nil {
		t.Fatal(err)
	}
	w := httptest.NewRecorder()
	if err := a.Sessions.SignIn(w, httptest.NewRequest(http.MethodGet, "/", nil), auth.Principal{Name: "maria@dezky.example", Role: auth.Operator}); err != nil {
		t.Fatal(err)
	}
	c.cookie = w.Result().Cookies()[0]
	return c
}

// request is one that htmx makes, or a person for a page.
func (c benchConsole) request(method, path, body string, fragment bool) *http.Request {
	r := httptest.NewRequest(method, "http://127.0.0.1:3001"+path, strings.NewReader(body))
	r.AddCookie(c.cookie)
	r.Header.Set("Accept-Encoding", "gzip")
	if body != "" {
		r.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	}
	if fragment {
		r.Header.Set("HX-Request", "true")
		r.Header.Set("HX-Request-Type", "partial")
	}
	return r
}

func (c benchConsole) run(b *testing.B, method, path, body string, fragment bool) {
	b.Helper()
	b.ReportAllocs()
	for b.Loop() {
		w := &recorded{header: http.Header{}}
		if c.ServeHTTP(w, c.request(method, path, body, fragment)); w.status != http.StatusOK {
			b.Fatalf("%s %s = %d, want 200", method, path, w.status)
		}
	}
}

// manyFlags returns n flags in all states, with descriptions of a usual length.
func manyFlags(n int) []flags.NewFlag {
	pct := 25
	out := make([]flags.NewFlag, n)
	for i := range out {
		description := fmt.Sprintf("Sends the mail of the %dth queue through the new gateway, once its partner agrees", i)
		out[i] = flags.NewFlag{Key: fmt.Sprintf("flag_%04d_of_a_usual_length", i), Patch: flags.Patch{Description: &description, State: &flags.States[i%4], Pct: &pct,
			Scope: map[flags.Axis][]string{flags.AxisPlans: []string{"business", "enterprise"}[:i%3]}}}
	}
	return out
}

func TestListPageOf500FlagsIsSmall(t *testing.T) {
	c := startConsole(t, flags.Document{Tenants: crowd(124), Flags: manyFlags(500)})
	w := httptest.NewRecorder()
	c.ServeHTTP(w, c.request("GET", "/operator/flags", "", false))
	const most = 25 << 10
	if n := w.Body.Len(); w.Code != http.StatusOK || w.Header().Get("Content-Encoding") != "gzip" || n > most {
		t.Errorf("status %d, %q, %d bytes; want 200, gzip, at most %d", w.Code, w.Header().Get("Content-Encoding"), n, most)
	}
	z, err := gzip.NewReader(w.Body)
	if err != nil {
		t.Fatal(err)
	}
	page, err := io.ReadAll(z)
	if err != nil {
		t.Fatal(err)
	}
	if n := strings.Count(string(page), `<tr role="row" class="flag-row`); n != 500 {
		t.Errorf("%d rows, want 500", n)
	}
}

// BenchmarkListPage500 is the list's whole page with 500 flags, compressed.
func BenchmarkListPage500(b *testing.B) {
	startConsole(b, flags.Document{Tenants: crowd(124), Flags: manyFlags(500)}).run(b, "GET", "/operator/flags", "", false)
}

func crowded() flags.Document {
	rollout, pct := flags.Rollout, 10
	return flags.Document{Tenants: crowd(100_000), Flags: []flags.NewFlag{{Key: "search_v2", Patch: flags.Patch{State: &rollout, Pct: &pct}}}}
}

// BenchmarkPanel100k is a flag's panel among 100,000 tenants, with the counts for the whole slider.
func BenchmarkPanel100k(b *testing.B) {
	startConsole(b, crowded()).run(b, "GET", "/operator/flags/search_v2", "", true)
}

// BenchmarkPalette100k is what the palette finds among 100,000 tenants and 1,000 partners: for a letter that
// nearly all have, and for the end of one's name.
func BenchmarkPalette100k(b *testing.B) {
	d := crowded()
	for i := range d.Tenants {
		name := fmt.Sprintf("Tenant %06d AS", i)
		d.Tenants[i].Name = &name
	}
	for i := range 1000 {
		slug, name := fmt.Sprintf("partner-%03d", i), fmt.Sprintf("Partner %03d AS", i)
		d.Partners = append(d.Partners, flags.PartnerPatch{Slug: &slug, Name: &name})
	}
	c := startConsole(b, d)
	for _, text := range []string{"a", "nt", "99999"} {
		b.Run(text, func(b *testing.B) { c.run(b, "GET", "/operator/palette?q="+text, "", true) })
	}
}

// BenchmarkDraftImpact100k is what a moved slider asks for, among 100,000 tenants.
func BenchmarkDraftImpact100k(b *testing.B) {
	form := url.Values{"version": {"1"}, "state": {"rollout"}, "pct": {"25"}}.Encode()
	startConsole(b, crowded()).run(b, "POST", "/operator/flags/search_v2/impact", form, true)
}
