package handlers

import (
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/dezky/platform-api/db"
	"github.com/dezky/platform-api/db/dbtest"
)

func TestCORS(t *testing.T) {
	t.Parallel()
	s := listen(t, readSpec())
	s.db = dbtest.OpenAt(t, t.TempDir(), s.now)
	a := appliance(t, s.db, s.now, discard, s.url)
	a.Origins = []string{"https://app.example.com", "http://localhost:5173"}
	if err := s.Start(a); err != nil {
		t.Fatal(err)
	}
	for _, role := range db.TokenRoles {
		s.token(t, db.NewToken{Name: role, Role: role})
	}
	s.registry(t)
	head := func(status int, line, body, origin string, more ...string) http.Header {
		t.Helper()
		return s.want(t, status, line, body, append([]string{"Origin: " + origin}, more...)...).header
	}
	const own, other = "https://app.example.com", "https://evil.example"
	for _, path := range []string{"/flags/evaluate", "/ofrep/v1/evaluate/flags", "/ofrep/v1/evaluate/flags/search"} {
		h := head(204, "OPTIONS "+path, "", own, nobody, "Access-Control-Request-Method: POST", "Access-Control-Request-Headers: authorization,content-type")
		if h.Get("Access-Control-Allow-Origin") != own || h.Get("Access-Control-Allow-Methods") != "POST" || h.Get("Vary") != "Origin" ||
			h.Get("Access-Control-Allow-Credentials") != "" || h.Get("Access-Control-Max-Age") != "7200" {
			t.Errorf("the preflight of %s has %v", path, h)
		}
		for _, name := range []string{"Authorization", "Content-Type", "If-None-Match", "X-API-Key"} {
			if !strings.Contains(h.Get("Access-Control-Allow-Headers"), name) {
				t.Errorf("the preflight of %s does not allow %s", path, name)
			}
		}
		if h := head(403, "OPTIONS "+path, "", other, nobody); h.Get("Access-Control-Allow-Origin") != "" {
			t.Errorf("the preflight of %s lets %s through", path, other)
		}
		body := ask("acme")
		if path == "/flags/evaluate" {
			body = `{"tenantSlug":"acme"}`
		}
		for _, origin := range append(a.Origins, other) {
			for status, headers := range map[int][]string{200: nil, 401: {nobody}, 415: {"Content-Type: text/plain"}} {
				h := head(status, "POST "+path, body, origin, headers...)
				want := map[bool]string{false: origin}[origin == other]
				if h.Get("Access-Control-Allow-Origin") != want || h.Get("Vary") != "Origin" {
					t.Errorf("%s for %s, %d: Access-Control-Allow-Origin is %q, Vary %q, want %q", path, origin, status, h.Get("Access-Control-Allow-Origin"), h.Get("Vary"), want)
				}
				if got := strings.Contains(h.Get("Access-Control-Expose-Headers"), "ETag"); got != (want != "") {
					t.Errorf("%s for %s: the ETag can be read: %t", path, origin, got)
				}
			}
		}
	}
	// Nothing else is for other origins, and where cookies count they are refused.
	for _, line := range []string{"GET /flags", "GET /flags/search", "GET /history"} {
		if h := head(200, line, "", own); h.Get("Access-Control-Allow-Origin") != "" {
			t.Errorf("%s may be read by %s", line, own)
		}
	}
	s.want(t, 405, "OPTIONS /flags", "", "Origin: "+own)
	s.want(t, 405, "OPTIONS /api/flags/evaluate", "", "Origin: "+own)

	none := listen(t, readSpec())
	none.tokens = s.tokens
	if err := none.Start(appliance(t, s.db, time.Now, discard, none.url)); err != nil {
		t.Fatal(err)
	}
	none.want(t, 405, "OPTIONS /flags/evaluate", "", "Origin: "+own)
	if h := none.want(t, 200, "POST /flags/evaluate", `{"tenantSlug":"acme"}`, "Origin: "+own).header; h.Get("Access-Control-Allow-Origin") != "" || h.Get("Vary") != "" {
		t.Errorf("with no origins configured: %v", h)
	}
}
