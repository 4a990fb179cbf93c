package handlers

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/dezky/platform-api/auth"
	"github.com/dezky/platform-api/auth/authtest"
	"github.com/dezky/platform-api/db"
	"github.com/dezky/platform-api/flags"
)

func TestSessionEndsIdle(t *testing.T) {
	t.Parallel()
	s := signInServer(t, anHour)
	b := s.surfer(t)
	b.signIn(authtest.OpsSub)
	s.later(auth.SessionIdle - almost)
	if got := b.role(); got == "" {
		t.Fatal("just before the idle limit nobody is signed in")
	}
	s.later(auth.SessionIdle)
	if got := b.role(); got != "" {
		t.Errorf("after the idle limit: %q, want nobody", got)
	}
	b.api(http.StatusUnauthorized, "GET /api/flags", "")
}

func TestSessionEndsAfterEightHours(t *testing.T) {
	t.Parallel()
	for name, life := range map[string]time.Duration{"asked about": 24 * time.Hour, "renewed silently": 5 * time.Minute} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := signInServer(t, authtest.Options{AccessTokenLife: life})
			b := s.surfer(t)
			b.signIn(authtest.OpsSub)
			first := b.cookie(sessionCookie)
			for at := time.Duration(0); at < auth.SessionMost-20*time.Minute; at += 20 * time.Minute {
				s.later(20 * time.Minute)
				if a := b.get(http.StatusOK, "/operator/flags"); a.Request.URL.Path != "/operator/flags" {
					t.Fatalf("after %v a page is %s", at, a.Request.URL)
				}
			}
			if renewed := b.cookie(sessionCookie) != first; renewed != (life < time.Hour) {
				t.Fatalf("the session was renewed: %t", renewed)
			}
			s.later(20 * time.Minute)
			a := b.get(http.StatusOK, "/operator/flags")
			if a.Request.URL.RequestURI() != "/login?return_to=%2Foperator%2Fflags" {
				t.Errorf("after %v a page is %s, want the sign-in", auth.SessionMost, a.Request.URL)
			}
			if got := b.role(); got != "" {
				t.Errorf("after %v: %q, want nobody", auth.SessionMost, got)
			}
		})
	}
}

func TestSignOutByGetChangesNothing(t *testing.T) {
	t.Parallel()
	s := signInServer(t, authtest.Options{})
	b := s.surfer(t)
	b.signIn(authtest.OpsSub)
	for _, path := range []string{"/logout", auth.BackChannelPath} {
		a := b.get(http.StatusMethodNotAllowed, path)
		if got := a.Header.Get("Allow"); got != "POST" {
			t.Errorf("GET %s allows %q, want POST", path, got)
		}
	}
	if got := b.role(); got != "ops@dezky.example Operator" {
		t.Errorf("after GET /logout: %q", got)
	}
}

func TestSessionEndsWithItsGroup(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		name   string
		life   time.Duration
		change func(p *authtest.Provider)
		role   string // after five minutes
		page   string // on which a whole page then ends
		write  int
	}{
		{"group removed", time.Hour, func(p *authtest.Provider) { p.SetGroups(authtest.OpsSub, "marketing") }, "", "/login", 401},
		{"all groups removed", time.Hour, func(p *authtest.Provider) { p.SetGroups(authtest.OpsSub) }, "", "/login", 401},
		{"groups no longer told", time.Hour, func(p *authtest.Provider) { p.Set(authtest.NoGroups, true) }, "", "/login", 401},
		{"demoted", time.Hour, func(p *authtest.Provider) { p.SetGroups(authtest.OpsSub, "dezky-viewers") }, "ops@dezky.example Viewer", "/operator/flags", 403},
		{"deactivated", time.Hour, func(p *authtest.Provider) { p.Deactivate(authtest.OpsSub) }, "", "/login", 401},
		{"signed out at the provider", time.Hour, func(p *authtest.Provider) { p.EndSessions(authtest.OpsSub) }, "", "/login", 401},
		{"userinfo of another sub", time.Hour, func(p *authtest.Provider) { p.Set(authtest.OtherSubInUserinfo, true) }, "", "/login", 401},
		// With an access token that lasts no longer, a page goes through the sign-in, which looks at the groups.
		{"group removed, token expired", 5 * time.Minute, func(p *authtest.Provider) { p.SetGroups(authtest.OpsSub, "marketing") }, "", auth.CallbackPath, 401},
		{"demoted, token expired", 5 * time.Minute, func(p *authtest.Provider) { p.SetGroups(authtest.OpsSub, "dezky-viewers") }, "ops@dezky.example Viewer", "/operator/flags", 403},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			s := signInServer(t, authtest.Options{AccessTokenLife: test.life})
			b := s.surfer(t)
			b.signIn(authtest.OpsSub)
			test.change(s.p)
			s.later(auth.CheckEvery - almost)
			if got := b.role(); got != "ops@dezky.example Operator" {
				t.Errorf("just before the provider is asked: %q", got)
			}
			s.later(almost)
			if a := b.send(http.MethodGet, "/operator/flags", nil); a.Request.URL.Path != test.page {
				t.Errorf("a page ends on %s, want %s", a.Request.URL, test.page)
			}
			if got := b.role(); got != test.role {
				t.Errorf("after five minutes: %q, want %q", got, test.role)
			}
			before := s.db.Current().Revision()
			if a := b.kill(); a.StatusCode != test.write {
				t.Errorf("a change answers %d, want %d", a.StatusCode, test.write)
			}
			b.api(test.write, "PATCH /api/flags/calendar", patch)
			if now := s.db.Current().Revision(); now != before {
				t.Error("a change was made")
			}
			if n, want := s.sessionRows(t), map[bool]int{true: 1}[test.role != ""]; n != want {
				t.Errorf("%d sessions, want %d", n, want)
			}
		})
	}
}

func TestChangesFromElsewhereAreRefused(t *testing.T) {
	t.Parallel()
	s := signInServer(t, authtest.Options{})
	b := s.surfer(t)
	b.signIn(authtest.OpsSub)
	before := s.db.Current()
	for name, headers := range map[string][]string{
		"cross-site":             {"Sec-Fetch-Site: cross-site", "Origin: https://evil.example"},
		"cross-site, no Origin":  {"Sec-Fetch-Site: cross-site"},
		"same-site":              {"Sec-Fetch-Site: same-site", "Origin: http://127.0.0.1:1"},
		"Origin null":            {"Origin: null"},
		"Origin null, same-site": {"Sec-Fetch-Site: same-site", "Origin: null"},
		"another Origin alone":   {"Origin: https://evil.example"},
	} {
		t.Run(name, func(t *testing.T) {
			b := &surfer{t: t, s: s, client: b.client}
			if a := b.kill(headers...); a.StatusCode != http.StatusForbidden {
				t.Errorf("a kill answers %d, want 403", a.StatusCode)
			}
			for _, path := range []string{"/logout", "/operator/settings", "/operator/tokens", auth.BackChannelPath} {
				if a := b.send(http.MethodPost, path, url.Values{"name": {"forged"}, "role": {"operator"}, "logout_token": {s.p.LogoutToken(authtest.OpsSub, "")}}, headers...); a.StatusCode != http.StatusForbidden {
					t.Errorf("POST %s answers %d, want 403", path, a.StatusCode)
				}
			}
			b.api(http.StatusForbidden, "PATCH /api/flags/calendar", patch, headers...)
			if s.db.Current() != before || b.role() != "ops@dezky.example Operator" {
				t.Error("something was changed")
			}
		})
	}
	if a := b.kill("Sec-Fetch-Site: same-origin", "Origin: "+s.url); a.StatusCode != http.StatusOK {
		t.Errorf("a kill from the console answers %d, want 200", a.StatusCode)
	}
}

func TestForgedHostIsRefusedOnLoopback(t *testing.T) {
	t.Parallel()
	s := open(t, t.TempDir()) // with one-time links
	links := s.app.Load().links
	b := (&signIns{running: s}).surfer(t)
	a := b.send(http.MethodPost, "/login/link", url.Values{"token": {links.New()}})
	if a.StatusCode != http.StatusOK || b.role() != "operator@localhost Operator" {
		t.Fatalf("the link signs %q in", b.role())
	}
	secret := links.New()
	for _, host := range []string{"evil.example", "evil.example:3001", "127.0.0.1.evil.example", "localhost.evil.example", "169.254.169.254", "0.0.0.0", "[::2]:3001", "localhost@evil.example"} {
		for _, path := range []string{"/login", "/login/link", "/operator/flags", "/api/flags"} {
			if a := b.send(http.MethodGet, path, nil, "Host: "+host); a.StatusCode != http.StatusForbidden && a.StatusCode != http.StatusBadRequest {
				t.Errorf("GET %s of %s answers %d, want 403", path, host, a.StatusCode)
			}
		}
		if a := b.send(http.MethodPost, "/login/link", url.Values{"token": {secret}}, "Host: "+host); a.StatusCode != http.StatusForbidden && a.StatusCode != http.StatusBadRequest {
			t.Errorf("a link at %s answers %d, want 403", host, a.StatusCode)
		}
	}
	for _, host := range []string{"localhost", "localhost:3001", "127.0.0.1:3001", "[::1]:3001", "[::1]"} {
		if a := b.send(http.MethodGet, "/login", nil, "Host: "+host); a.StatusCode != http.StatusOK {
			t.Errorf("GET /login of %s answers %d, want 200", host, a.StatusCode)
		}
	}
}

func TestSignOutGoesOnToTheProvider(t *testing.T) {
	t.Parallel()
	s := signInServer(t, authtest.Options{})
	b := s.surfer(t)
	b.signIn(authtest.OpsSub)
	old := b.cookie(sessionCookie)
	a := b.send(http.MethodPost, "/logout", url.Values{}, "Sec-Fetch-Site: same-origin", "Origin: "+s.url)
	if a.StatusCode != http.StatusOK || a.Request.URL.String() != s.url+"/login" {
		t.Fatalf("the sign-out ends with %d at %s, want the sign-in page: %s", a.StatusCode, a.Request.URL, a.text)
	}
	if len(b.way) != 3 {
		t.Fatalf("the way was %q", b.way)
	}
	end, err := url.Parse(b.way[1])
	if err != nil {
		t.Fatal(err)
	}
	q := end.Query()
	if want := s.p.Issuer() + "end-session/"; end.Scheme+"://"+end.Host+end.Path != want {
		t.Errorf("the sign-out goes on to %s, want %s", end, want)
	}
	if q.Get("client_id") != authtest.ConsoleID || q.Get("post_logout_redirect_uri") != s.url+"/login" || claimsOf(t, q.Get("id_token_hint"))["sub"] != authtest.OpsSub {
		t.Errorf("the sign-out goes on with %v", q)
	}
	if s.p.Fetches(authtest.EndSession) != 1 || s.sessionRows(t) != 0 || b.cookie(sessionCookie) != "" {
		t.Errorf("%d sign-outs at the provider, %d sessions, cookie %q", s.p.Fetches(authtest.EndSession), s.sessionRows(t), b.cookie(sessionCookie))
	}
	b.setCookie(sessionCookie, old)
	if got := b.role(); got != "" {
		t.Errorf("the old cookie is of %q, want nobody", got)
	}

	b.signIn(authtest.OpsSub)
	b.s.p.Stop() // the session here ends all the same
	b.try(http.MethodPost, "/logout", url.Values{})
	if n := s.sessionRows(t); n != 0 {
		t.Errorf("%d sessions after a sign-out while the provider is away", n)
	}
}

func TestSignOutWithoutEndSession(t *testing.T) {
	t.Parallel()
	o := authtest.Options{Alg: "ES256"}
	p := authtest.New(t, o)
	p.Set(authtest.NoEndSession, true)
	s := &signIns{trusting(t, p), p}
	b := s.surfer(t)
	b.signIn(authtest.OpsSub)
	policy := b.get(http.StatusOK, "/operator/flags").Header.Get("Content-Security-Policy")
	if policy != consolePolicy {
		t.Errorf("CSP %q, want %q", policy, consolePolicy)
	}
	a := b.send(http.MethodPost, "/logout", url.Values{})
	if want := []string{s.url + "/logout", s.url + "/login"}; a.StatusCode != http.StatusOK || !slices.Equal(b.way, want) {
		t.Errorf("the way was %q, want %q", b.way, want)
	}
	if n := s.sessionRows(t); n != 0 {
		t.Errorf("%d sessions, want none", n)
	}
	if a := s.surfer(t).send(http.MethodPost, "/logout", url.Values{}); a.Request.URL.Path != "/login" {
		t.Errorf("a sign-out without a session ends at %s", a.Request.URL)
	}
}

// sidOf is the provider's id of a browser's session there.
func (b *surfer) sidOf() string {
	b.t.Helper()
	sum := sha256.Sum256([]byte(b.cookie("authentik_session")))
	return hex.EncodeToString(sum[:])
}

func (s *signIns) backChannel(t testing.TB, token string) int {
	t.Helper()
	status, err := s.p.BackChannelLogout(t.Context(), s.url+auth.BackChannelPath, token)
	if err != nil {
		t.Fatal(err)
	}
	return status
}

func TestBackChannelLogoutEndsTheRightSessions(t *testing.T) {
	t.Parallel()
	s := signInServer(t, authtest.Options{})
	one, two, other := s.surfer(t), s.surfer(t), s.surfer(t)
	for _, b := range []*surfer{one, two} {
		b.signIn(authtest.OpsSub)
	}
	other.signIn(authtest.ViewerSub)
	roles := func() string {
		return fmt.Sprintf("%t %t %t", one.role() != "", two.role() != "", other.role() != "")
	}
	for _, step := range []struct{ what, sub, sid, want string }{
		{"an unknown sid", "", "x", "true true true"},
		{"a sub that has no session", authtest.AcmeSub, "", "true true true"},
		{"a sid of somebody else", authtest.ViewerSub, one.sidOf(), "true true true"},
		{"a sid alone", "", one.sidOf(), "false true true"},
		{"a sub and its sid", authtest.OpsSub, two.sidOf(), "false false true"},
	} {
		if status := s.backChannel(t, s.p.LogoutToken(step.sub, step.sid)); status != http.StatusOK {
			t.Errorf("%s: %d, want 200", step.what, status)
		}
		if got := roles(); got != step.want {
			t.Errorf("after %s: %s, want %s", step.what, got, step.want)
		}
	}
	one.signIn(authtest.OpsSub)
	two.signIn(authtest.OpsSub)
	if status := s.backChannel(t, s.p.LogoutToken(authtest.OpsSub, "", authtest.Header("typ", "logout+jwt"))); status != http.StatusOK {
		t.Errorf("a sub alone: %d, want 200", status)
	}
	if got := roles(); got != "false false true" {
		t.Errorf("after a sub alone: %s", got)
	}
	// The provider itself sends one as it ends its session.
	one.signIn(authtest.OpsSub)
	resp, err := one.client.Get(s.p.Issuer() + "end-session/")
	if err != nil {
		t.Fatal(err)
	}
	resp.Body.Close()
	if got := roles(); got != "false false true" {
		t.Errorf("after the provider's own sign-out: %s", got)
	}
}

func TestBackChannelLogoutRefusesBadTokens(t *testing.T) {
	t.Parallel()
	s := signInServer(t, authtest.Options{})
	b := s.surfer(t)
	b.signIn(authtest.OpsSub)
	key, err := authtest.NewKey("ES256")
	if err != nil {
		t.Fatal(err)
	}
	with := func(name string, value any, opts ...authtest.TokenOption) string {
		claims := s.p.LogoutClaims(authtest.OpsSub, "")
		if claims[name] = value; value == nil {
			delete(claims, name)
		}
		return s.p.Token(claims, opts...)
	}
	good := s.p.LogoutToken(authtest.OpsSub, "")
	for name, token := range map[string]string{
		"nothing":                 "",
		"rubbish":                 "x.y.z",
		"17 KB":                   strings.Repeat("x", 17<<10),
		"of another audience":     with("aud", authtest.PortalID),
		"of no audience":          with("aud", nil),
		"of another issuer":       with("iss", "http://127.0.0.1:1/application/o/dezky-operator/"),
		"with a nonce":            with("nonce", "n"),
		"with an empty nonce":     with("nonce", ""),
		"without events":          with("events", nil),
		"of another event":        with("events", map[string]any{"http://schemas.openid.net/event/other": map[string]any{}}),
		"without jti":             with("jti", nil),
		"without exp":             with("exp", nil),
		"expired":                 with("exp", time.Now().Add(-time.Minute).Unix()),
		"issued in ten minutes":   with("iat", time.Now().Add(10*time.Minute).Unix()),
		"without sub":             with("sub", nil),
		"an id token":             s.p.IDToken(authtest.ConsoleID, authtest.OpsSub),
		"an access token":         s.p.AccessToken(authtest.ConsoleID, authtest.OpsSub),
		"signed by nobody":        with("sub", authtest.OpsSub, authtest.SignedWith(nil)),
		"signed with the secret":  with("sub", authtest.OpsSub, authtest.SignedWith([]byte(authtest.Secret(authtest.ConsoleID)))),
		"signed with another key": with("sub", authtest.OpsSub, authtest.SignedWith(key)),
		"of an unknown key":       with("sub", authtest.OpsSub, authtest.Header("kid", "x")),
		"an access token's type":  with("sub", authtest.OpsSub, authtest.Header("typ", "at+jwt")),
		"signature cut":           good[:len(good)-4],
	} {
		if status := s.backChannel(t, token); status != http.StatusBadRequest {
			t.Errorf("%s: %d, want 400", name, status)
		}
	}
	if got := b.role(); got != "ops@dezky.example Operator" {
		t.Errorf("after bad tokens the session is of %q", got)
	}
	if status := s.backChannel(t, good); status != http.StatusOK || b.role() != "" {
		t.Errorf("a good token: %d", status)
	}
	b.signIn(authtest.OpsSub)
	claims := s.p.LogoutClaims(authtest.OpsSub, "")
	claims["exp"] = time.Now().Add(time.Hour).Unix()
	lasting := s.p.Token(claims)
	if status := s.backChannel(t, lasting); status != http.StatusOK {
		t.Errorf("a token that lasts an hour: %d, want 200", status)
	}
	s.later(20 * time.Minute)
	b.signIn(authtest.OpsSub)
	for name, token := range map[string]string{"a used token": good, "a used token that lasts": lasting} {
		if status := s.backChannel(t, token); status != http.StatusBadRequest {
			t.Errorf("%s: %d, want 400", name, status)
		}
	}
	if b.role() == "" {
		t.Error("a replayed logout token ended the session")
	}
}

// The stream ends with the session, at the latest when it next says that it lives.
func TestStreamEndsWithItsSession(t *testing.T) {
	t.Parallel()
	s := signInServer(t, authtest.Options{})
	b := s.surfer(t)
	b.signIn(authtest.OpsSub)
	other := s.surfer(t)
	other.signIn(authtest.ViewerSub)
	follow := func(b *surfer) (lines chan string, ended chan struct{}) {
		r, err := http.NewRequestWithContext(t.Context(), http.MethodGet, s.url+"/operator/events", nil)
		if err != nil {
			t.Fatal(err)
		}
		r.Header.Set("Accept", "text/event-stream")
		response, err := b.client.Do(r)
		if err != nil || response.StatusCode != http.StatusOK {
			t.Fatal(response, err)
		}
		lines, ended = make(chan string, 1000), make(chan struct{})
		go func() {
			defer close(ended)
			defer response.Body.Close()
			buffer := make([]byte, 64<<10)
			for {
				n, err := response.Body.Read(buffer)
				if n > 0 {
					lines <- string(buffer[:n])
				}
				if err != nil {
					return
				}
			}
		}()
		<-lines // it has begun
		return lines, ended
	}
	told, ended := follow(b)
	lines, _ := follow(other)
	if status := s.backChannel(t, s.p.LogoutToken(authtest.OpsSub, "")); status != http.StatusOK {
		t.Fatalf("back-channel logout: %d", status)
	}
	patience := time.After(2 * pingEvery)
	s.want(t, http.StatusOK, "PATCH /flags/search", `{"description":"for the other"}`)
	select {
	case <-ended:
	case <-patience:
		t.Fatal("the stream goes on without its session")
	}
	for len(told) > 0 {
		if line := <-told; strings.Contains(line, "search") {
			t.Errorf("after its session the stream says %q", line)
		}
	}
	b.get(http.StatusUnauthorized, "/operator/events", "Accept: text/event-stream", "HX-Request: true")
	for text := ""; !strings.Contains(text, `"key":"search"`); {
		select {
		case line := <-lines:
			text += line
		case <-patience:
			t.Fatal("the other's stream has ended too")
		}
	}
}

func TestCheckAsksUserinfoOnceInFiveMinutes(t *testing.T) {
	t.Parallel()
	s := signInServer(t, anHour)
	b := s.surfer(t)
	b.signIn(authtest.OpsSub)
	asked := s.p.Fetches(authtest.Userinfo)
	want := func(more int, when string) {
		t.Helper()
		if n := s.p.Fetches(authtest.Userinfo) - asked; n != more {
			t.Errorf("%s userinfo was asked %d times, want %d", when, n, more)
		}
	}
	b.get(200, "/operator/flags")
	b.kill()
	s.later(auth.CheckEvery - almost)
	b.get(200, "/operator/flags")
	want(0, "within five minutes")
	for n := range 3 {
		s.later(auth.CheckEvery)
		for range 3 {
			b.get(200, "/operator/flags")
			b.role()
			b.api(200, "GET /api/flags", "")
		}
		want(n+1, "later")
	}

	// Whoever asks at the same time, waits for the one answer.
	s.later(auth.CheckEvery)
	stall := s.p.Stall(authtest.Userinfo)
	const together = 20
	statuses := make(chan int, together)
	for range together {
		c := &surfer{t: t, s: s, client: b.client}
		go func() {
			r, err := http.NewRequestWithContext(t.Context(), http.MethodGet, s.url+"/api/tenants", nil)
			if err != nil {
				statuses <- 0
				return
			}
			response, err := c.client.Do(r)
			if err != nil {
				statuses <- 0
				return
			}
			response.Body.Close()
			statuses <- response.StatusCode
		}()
	}
	<-stall.Arrived
	stall.Release()
	for range together {
		if status := <-statuses; status != http.StatusOK {
			t.Errorf("a request meanwhile answers %d, want 200", status)
		}
	}
	want(4, "for requests at once")
}

func TestCheckOfAnExpiredAccessToken(t *testing.T) {
	t.Parallel()
	s := signInServer(t, authtest.Options{}) // five minutes, Authentik's default
	b := s.surfer(t)
	b.signIn(authtest.OpsSub)
	first := b.cookie(sessionCookie)
	s.later(auth.CheckEvery)

	a := b.kill()
	if a.StatusCode != http.StatusUnauthorized || !strings.Contains(a.text, `<dialog id="signed-out"`) {
		t.Fatalf("an htmx write answers %d %.300s, want 401 with the dialog", a.StatusCode, a.text)
	}
	if want := `href="/login?return_to=%2foperator%2fflags%2fcalendar%3fenv%3dstaging"`; !strings.Contains(strings.ToLower(a.text), want) {
		t.Errorf("the dialog leads elsewhere than to %s: %s", want, a.text)
	}
	b.api(http.StatusUnauthorized, "PATCH /api/flags/calendar", patch)
	b.api(http.StatusOK, "GET /api/flags", "")
	b.get(http.StatusOK, "/operator/flags", "HX-Request: true", "HX-Request-Type: partial")
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	r, err := http.NewRequestWithContext(ctx, http.MethodGet, s.url+"/operator/events", nil)
	if err != nil {
		t.Fatal(err)
	}
	r.Header.Set("Accept", "text/event-stream")
	response, err := b.client.Do(r)
	if err != nil || response.StatusCode != http.StatusOK {
		t.Errorf("the stream: %v %v, want 200", response, err)
	}
	cancel()
	response.Body.Close()
	if b.cookie(sessionCookie) != first || s.sessionRows(t) != 1 {
		t.Error("the session has changed")
	}

	const page = "/operator/flags/calendar?env=staging"
	a = b.stop("/login", page)
	if a.StatusCode != http.StatusSeeOther || a.Header.Get("Location") != "/login/start?return_to="+url.QueryEscape(page) {
		t.Fatalf("a page answers %d to %q, want 303 to the sign-in's start", a.StatusCode, a.Header.Get("Location"))
	}
	a = b.get(http.StatusOK, page)
	if a.Request.URL.RequestURI() != page || b.cookie(sessionCookie) == first || b.role() != "ops@dezky.example Operator" || s.sessionRows(t) != 1 {
		t.Errorf("the renewal ends at %s with %q, %d sessions, same cookie: %t", a.Request.URL, b.role(), s.sessionRows(t), b.cookie(sessionCookie) == first)
	}
	if a := b.kill(); a.StatusCode != http.StatusOK {
		t.Errorf("a write after the renewal answers %d, want 200", a.StatusCode)
	}

	s.later(auth.CheckMost - almost)
	b.api(http.StatusOK, "GET /api/flags", "")
	s.later(almost)
	b.api(http.StatusUnauthorized, "GET /api/flags", "")
	b.get(http.StatusUnauthorized, "/operator/flags", "HX-Request: true", "HX-Request-Type: partial")
	b.get(http.StatusUnauthorized, "/operator/events", "Accept: text/event-stream", "HX-Request: true")
}

func TestCheckWhileTheProviderIsAway(t *testing.T) {
	t.Parallel()
	for name, life := range map[string]time.Duration{"with an access token": time.Hour, "with an expired one": 5 * time.Minute} {
		for fault, do := range map[string]struct {
			harm, mend func(p *authtest.Provider) error
		}{
			"stopped":  {func(p *authtest.Provider) error { p.Stop(); return nil }, (*authtest.Provider).Restart},
			"failing":  {broken(authtest.Failing), broken(authtest.None)},
			"hangs up": {broken(authtest.Away), broken(authtest.None)},
			"rubbish":  {broken(authtest.Rubbish), broken(authtest.None)},
			"too long": {broken(authtest.Huge), broken(authtest.None)},
		} {
			if fault == "too long" && life < time.Hour {
				continue // of an expired token userinfo says no more than that
			}
			t.Run(name+", "+fault, func(t *testing.T) {
				t.Parallel()
				s := signInServer(t, authtest.Options{AccessTokenLife: life})
				b := s.surfer(t)
				b.signIn(authtest.OpsSub)
				if err := do.harm(s.p); err != nil {
					t.Fatal(err)
				}
				before := s.db.Current()
				expired := life < auth.CheckMost
				write := http.StatusServiceUnavailable
				if expired {
					write = http.StatusUnauthorized // the dialog, whose way leads to a page that says it
				}
				for _, at := range []time.Duration{auth.CheckEvery, auth.CheckMost - almost} {
					s.later(at - time.Duration(s.ahead.Load()))
					if a := b.get(http.StatusOK, "/operator/flags"); a.Request.URL.Path != "/operator/flags" {
						t.Errorf("after %v a page ends at %s", at, a.Request.URL)
					}
					b.get(http.StatusOK, "/operator/flags", "HX-Request: true", "HX-Request-Type: partial")
					b.api(http.StatusOK, "GET /api/flags", "")
					a := b.kill()
					if a.StatusCode != write || !expired && (!strings.Contains(a.text, "It could not be asked whether you still may, so nothing was changed.") || a.Header.Get("Retry-After") != "5") {
						t.Errorf("after %v a write answers %d %.300s, want %d with the reason", at, a.StatusCode, a.text, write)
					}
					if a := b.api(write, "PATCH /api/flags/calendar", patch); !expired && a.header.Get("Retry-After") == "" {
						t.Error("503 without Retry-After")
					}
				}
				s.later(almost)
				if !expired {
					b.get(http.StatusServiceUnavailable, "/operator/flags").says(t, "The identity provider is away")
					b.get(http.StatusServiceUnavailable, "/operator/flags", "HX-Request: true", "HX-Request-Type: partial")
					b.api(http.StatusServiceUnavailable, "GET /api/flags", "")
				} else {
					b.api(http.StatusUnauthorized, "GET /api/flags", "")
				}
				if s.db.Current() != before || s.sessionRows(t) != 1 {
					t.Errorf("something was changed, or the session has ended: %d", s.sessionRows(t))
				}
				if err := do.mend(s.p); err != nil {
					t.Fatal(err)
				}
				s.later(time.Minute)
				b.get(http.StatusOK, "/operator/flags")
				if a := b.kill(); a.StatusCode != http.StatusOK {
					t.Errorf("once the provider is back, a write answers %d, want 200", a.StatusCode)
				}
			})
		}
	}
}

func broken(f authtest.Fault) func(*authtest.Provider) error {
	return func(p *authtest.Provider) error {
		p.Break(authtest.Userinfo, f)
		return nil
	}
}

// A provider that does not answer costs one request five seconds, and the others nothing.
func TestCheckIsBounded(t *testing.T) {
	t.Parallel()
	s := signInServer(t, anHour)
	b := s.surfer(t)
	b.signIn(authtest.OpsSub)
	s.later(auth.CheckEvery)
	stall := s.p.Stall(authtest.Userinfo)
	defer stall.Release()
	asked, begun := s.p.Fetches(authtest.Userinfo), time.Now()
	b.get(http.StatusOK, "/operator/flags")
	if took := time.Since(begun); took > 20*time.Second {
		t.Errorf("a page took %v, want about 5 s", took)
	}
	for range 5 {
		b.get(http.StatusOK, "/operator/flags")
		if a := b.kill(); a.StatusCode != http.StatusServiceUnavailable {
			t.Errorf("a write answers %d, want 503", a.StatusCode)
		}
	}
	if n := s.p.Fetches(authtest.Userinfo) - asked; n != 1 {
		t.Errorf("userinfo was asked %d times, want once", n)
	}
}

// A restart while the provider is away keeps people signed in; its end of theirs is learned once it is back.
func TestSessionsAcrossOurRestart(t *testing.T) {
	t.Parallel()
	s := signInServer(t, anHour)
	b := s.surfer(t)
	b.signIn(authtest.OpsSub)
	s.p.Stop()
	s.stop(t)
	again := &signIns{trustingIn(t, s.p, s.dir), s.p}
	again.moveClock(auth.CheckEvery)
	c := &surfer{t: t, s: again, client: b.client}
	if got := c.role(); got != "ops@dezky.example Operator" {
		t.Errorf("after a restart: %q", got)
	}
	if a := c.kill(); a.StatusCode != http.StatusServiceUnavailable {
		t.Errorf("a write answers %d, want 503", a.StatusCode)
	}
	if err := s.p.Restart(); err != nil {
		t.Fatal(err)
	}
	s.p.EndSessions(authtest.OpsSub)
	again.later(time.Minute)
	if got := c.role(); got != "" {
		t.Errorf("once the provider is back: %q, want nobody", got)
	}
}

// A session counts for the way of signing in alone by which it began.
func TestSessionsOfAnotherWayAreNone(t *testing.T) {
	t.Parallel()
	p := authtest.New(t, authtest.Options{Alg: "ES256"})
	dir := t.TempDir()
	byLink := &signIns{open(t, dir), p}
	b := byLink.surfer(t)
	b.send(http.MethodPost, "/login/link", url.Values{"token": {byLink.app.Load().links.New()}})
	if got := b.role(); got != "operator@localhost Operator" {
		t.Fatalf("by link: %q", got)
	}
	byLink.stop(t)

	byProvider := &signIns{trustingIn(t, p, dir), p}
	c := &surfer{t: t, s: byProvider, client: b.client}
	if got := c.role(); got != "" {
		t.Errorf("by link, once a provider is configured: %q, want nobody", got)
	}
	if a := c.send(http.MethodPost, "/login/link", url.Values{"token": {"x"}}); a.StatusCode != http.StatusForbidden {
		t.Errorf("a link answers %d, want 403", a.StatusCode)
	}
	b.s = byProvider
	b.signIn(authtest.OpsSub)
	byProvider.stop(t)

	linksAgain := &signIns{open(t, dir), p}
	b.s = linksAgain
	if got := b.role(); got != "" {
		t.Errorf("by the provider, once there is none: %q, want nobody", got)
	}
	if a := b.send(http.MethodPost, auth.BackChannelPath, url.Values{"logout_token": {"x"}}); a.StatusCode != http.StatusNotFound {
		t.Errorf("a back-channel logout answers %d, want 404", a.StatusCode)
	}
	if a := b.get(http.StatusOK, "/login/start"); a.Request.URL.Path != "/login" {
		t.Errorf("the sign-in's start is %s", a.Request.URL)
	}
	linksAgain.stop(t)

	other := authtest.New(t, authtest.Options{Alg: "ES256"})
	b.s = &signIns{trustingIn(t, other, dir), other}
	if got := b.role(); got != "" {
		t.Errorf("by one provider, once there is another: %q, want nobody", got)
	}
}

func TestSessionsKeepNoSecretAtRest(t *testing.T) {
	t.Parallel()
	s, tp := tamperedServer(t)
	b := s.surfer(t)
	b.signIn(authtest.OpsSub)
	access, id := tp.answered("access_token"), tp.answered("id_token")
	if access == "" || id == "" {
		t.Fatal("the provider gave no tokens")
	}
	files, err := filepath.Glob(filepath.Join(s.dir, "*"))
	if err != nil || len(files) == 0 {
		t.Fatal(files, err)
	}
	found := false
	for _, name := range files {
		content, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		found = found || bytes.Contains(content, []byte(authtest.OpsSub)) // the row is there
		for what, secret := range map[string]string{"access token": access, "id token": id, "cookie": b.cookie(sessionCookie)} {
			for _, part := range append(strings.Split(secret, "."), secret) {
				if len(part) > 40 && bytes.Contains(content, []byte(part)) {
					t.Errorf("%s holds the %s", filepath.Base(name), what)
				}
			}
		}
	}
	if !found {
		t.Error("no file has the session's row")
	}
	if log := s.log.String(); strings.Contains(log, access) || strings.Contains(log, id) || strings.Contains(log, b.cookie(sessionCookie)) {
		t.Error("the log holds a secret")
	}
}

func TestHistorySaysWhoSignedIn(t *testing.T) {
	t.Parallel()
	s := signInServer(t, authtest.Options{})
	b := s.surfer(t)
	b.signIn(authtest.OpsSub)
	if a := b.kill(); a.StatusCode != http.StatusOK {
		t.Fatalf("kill: %d", a.StatusCode)
	}
	e := s.newest(t)
	got := fmt.Sprintf("%s %s by %s via %s: %s at %s through %s", e.Name, e.Action, e.Actor, e.Via, e.Subject, e.Issuer, e.Client)
	if want := fmt.Sprintf("calendar killed by ops@dezky.example via console: %s at %s through %s", authtest.OpsSub, s.p.Issuer(), authtest.ConsoleID); got != want {
		t.Errorf("the history has\n%s, want\n%s", got, want)
	}
	b.get(http.StatusOK, fmt.Sprintf("/operator/audit/%d", e.ID)).says(t, "ops@dezky.example", "in the console", authtest.OpsSub, s.p.Issuer(), authtest.ConsoleID)
	b.api(http.StatusOK, "PATCH /api/flags/calendar", patch)
	if e := s.newest(t); e.Via != flags.ViaAPI || e.Actor != "ops@dezky.example" || e.Subject != authtest.OpsSub {
		t.Errorf("by the session on the API the history has %+v", e)
	}
	s.want(t, http.StatusOK, "PATCH /flags/calendar", `{"description":"by a token"}`)
	if e := s.newest(t); e.Via != flags.ViaToken || e.Actor != "token:operator" || e.Subject != "" || e.Issuer != "" || e.Client != "" {
		t.Errorf("by a token the history has %+v", e)
	}
	a := b.get(http.StatusOK, fmt.Sprintf("/operator/audit/%d", s.newest(t).ID))
	a.says(t, "by an API token")
	if strings.Contains(main(a.text), "Subject") {
		t.Error("a token's entry has a subject")
	}

	byLink := &signIns{open(t, t.TempDir()), s.p}
	byLink.token(t, db.NewToken{Name: "operator", Role: "operator"})
	byLink.registry(t)
	c := byLink.surfer(t)
	c.send(http.MethodPost, "/login/link", url.Values{"token": {byLink.app.Load().links.New()}})
	if a := c.kill(); a.StatusCode != http.StatusOK {
		t.Fatalf("kill: %d", a.StatusCode)
	}
	if e := byLink.newest(t); e.Via != flags.ViaConsole || e.Actor != "operator@localhost" || e.Subject != "" || e.Issuer != "" {
		t.Errorf("by a link the history has %+v", e)
	}
}
