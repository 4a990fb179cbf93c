package handlers

import (
	"encoding/json"
	"html"
	"net/http"
	"net/url"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/dezky/platform-api/auth"
	"github.com/dezky/platform-api/auth/authtest"
)

const noAnswer = "This is no answer to a sign-in that this browser began in the last ten minutes."

func TestSignInRefusesACallbackThatWasNeverStarted(t *testing.T) {
	t.Parallel()
	s := signInServer(t, authtest.Options{})
	b := s.surfer(t)
	for _, query := range []string{"", "?code=x", "?state=", "?code=x&state=", "?code=x&state=short", "?code=x&state=" + strings.Repeat("a", 43), "?error=access_denied&state=" + strings.Repeat("a", 43), "?code=x&state=%22%3b%0a%00"} {
		b.get(http.StatusForbidden, auth.CallbackPath+query).says(t, noAnswer)
		b.nothing(query)
	}
	if n := s.p.Fetches(authtest.Tokens); n != 0 {
		t.Errorf("the provider was asked for tokens %d times, want never", n)
	}
}

func TestSignInRefusesAWrongState(t *testing.T) {
	t.Parallel()
	s := signInServer(t, authtest.Options{})
	b := s.surfer(t)
	to, err := url.Parse(b.callback(authtest.OpsSub, "/login/start"))
	if err != nil {
		t.Fatal(err)
	}
	q := to.Query()
	state := q.Get("state")
	q.Set("state", state[:8]+strings.Repeat("x", len(state)-8)) // as long, and of the same cookie
	to.RawQuery = q.Encode()
	b.get(http.StatusForbidden, to.String()).says(t, noAnswer)
	b.nothing("with another state")
	if !strings.Contains(s.log.String(), "the state is another") {
		t.Error("the log does not say that the state is another")
	}
}

func TestSignInRefusesAReplayedCode(t *testing.T) {
	t.Parallel()
	s := signInServer(t, authtest.Options{})
	b := s.surfer(t)
	to := b.callback(authtest.OpsSub, "/login/start")
	names, _ := b.attempts()
	kept := b.cookie(names[0])
	b.get(http.StatusOK, to)
	first := b.cookie(sessionCookie)
	if names, _ := b.attempts(); len(names) != 0 {
		t.Errorf("the cookies %v stay after the sign-in", names)
	}
	b.get(http.StatusForbidden, to).says(t, noAnswer) // as the back button does
	b.setCookie(names[0], kept)
	b.get(http.StatusForbidden, to).says(t, noAnswer)
	if !strings.Contains(s.log.String(), "the sign-in was used before") {
		t.Error("the log does not say that the sign-in was used before")
	}
	if n := s.p.Fetches(authtest.Tokens); n != 1 {
		t.Errorf("the code was exchanged %d times, want once", n)
	}
	if b.cookie(sessionCookie) != first || b.role() != "ops@dezky.example Operator" {
		t.Errorf("after the replay the session is of %q", b.role())
	}
}

func TestSignInRefusesAStolenCode(t *testing.T) {
	t.Parallel()
	s := signInServer(t, authtest.Options{})
	victim := s.surfer(t)
	stolen := victim.callback(authtest.OpsSub, "/login/start")
	t.Run("in another browser", func(t *testing.T) {
		thief := s.surfer(t)
		thief.get(http.StatusForbidden, stolen).says(t, noAnswer)
		thief.nothing("with a stolen callback")
	})
	t.Run("with another verifier", func(t *testing.T) {
		thief := s.surfer(t)
		own, err := url.Parse(thief.callback(authtest.StrangerSub, "/login/start"))
		if err != nil {
			t.Fatal(err)
		}
		code, err := url.Parse(stolen)
		if err != nil {
			t.Fatal(err)
		}
		q := own.Query()
		q.Set("code", code.Query().Get("code"))
		own.RawQuery = q.Encode()
		thief.get(http.StatusForbidden, own.String()).says(t, "The identity provider refused the sign-in (invalid_grant)")
		thief.nothing("with a stolen code")
	})
}

func TestSignInRefusesACallbackAfterTenMinutes(t *testing.T) {
	t.Parallel()
	s := signInServer(t, anHour)
	b := s.surfer(t)
	to := b.callback(authtest.OpsSub, "/login/start")
	s.moveClock(auth.AttemptLasts)
	b.get(http.StatusForbidden, to).says(t, noAnswer)
	b.nothing("after ten minutes")
	if !strings.Contains(s.log.String(), "the sign-in has expired") {
		t.Error("the log does not say that the sign-in has expired")
	}
	to = b.callback(authtest.OpsSub, "/login/start")
	s.moveClock(auth.AttemptLasts - almost)
	b.get(http.StatusOK, to)
	if b.role() != "ops@dezky.example Operator" {
		t.Error("just before ten minutes nobody is signed in")
	}
}

func TestSignInShowsTheProvidersErrorEscaped(t *testing.T) {
	t.Parallel()
	s := signInServer(t, authtest.Options{})
	b := s.surfer(t)
	to, err := url.Parse(b.callback(authtest.OpsSub, "/login/start"))
	if err != nil {
		t.Fatal(err)
	}
	const evil = `<script>alert("x")</script>`
	to.RawQuery = url.Values{"state": {to.Query().Get("state")}, "error": {"<b>bad"}, "error_description": {evil + strings.Repeat("é", 400) + "\nline"}}.Encode()
	a := b.get(http.StatusForbidden, to.String())
	a.says(t, `(<b>bad)`, evil, "é…")
	for _, raw := range []string{"<script>alert", "<b>bad"} {
		if strings.Contains(a.text, raw) {
			t.Errorf("the page contains %q", raw)
		}
	}
	policy := a.Header.Get("Content-Security-Policy")
	if !strings.Contains(policy, "default-src 'none'; script-src 'self';") || strings.Contains(policy, "unsafe") {
		t.Errorf("CSP %q, want no inline script", policy)
	}
	for line := range strings.Lines(s.log.String()) {
		if !json.Valid([]byte(line)) {
			t.Errorf("the log has the line %q", line)
		}
	}
	b.nothing("with an error")
}

func TestSignInSaysWhatTheProviderRefuses(t *testing.T) {
	t.Parallel()
	s := signInServer(t, authtest.Options{})
	b := s.surfer(t)
	to, err := url.Parse(b.callback(authtest.OpsSub, "/login/start"))
	if err != nil {
		t.Fatal(err)
	}
	to.RawQuery = url.Values{"state": {to.Query().Get("state")}, "error": {"access_denied"}}.Encode()
	b.get(http.StatusForbidden, to.String()).says(t, "(access_denied)", "Your account may lack access to the application in Authentik.")

	to, err = url.Parse(b.callback(authtest.OpsSub, "/login/start"))
	if err != nil {
		t.Fatal(err)
	}
	to.RawQuery = url.Values{"state": {to.Query().Get("state")}}.Encode()
	b.get(http.StatusForbidden, to.String()).says(t, "has no code")

	to2 := b.callback(authtest.OpsSub, "/login/start")
	other := authtest.Console(s.url)
	other.Secret = "another"
	s.p.PutClient(other)
	b.get(http.StatusForbidden, to2).says(t, "(invalid_client)", "PLATFORM_API_OIDC_CLIENT_SECRET")
	s.p.PutClient(authtest.Console(s.url))

	to2 = b.callback(authtest.OpsSub, "/login/start")
	s.p.Set(authtest.NoGrantTypes, true)
	b.get(http.StatusForbidden, to2).says(t, "(unauthorized_client)", "no grant types: choose Authorization Code there.")
	b.nothing("refused by the provider")
}

func TestSignInRefusesLoginCSRF(t *testing.T) {
	t.Parallel()
	s := signInServer(t, authtest.Options{})
	attacker, victim := s.surfer(t), s.surfer(t)
	victim.signIn(authtest.OpsSub)
	before := victim.cookie(sessionCookie)
	theirs := attacker.callback(authtest.ViewerSub, "/login/start")
	victim.callback(authtest.OpsSub, "/login/start") // even while a sign-in of their own is under way
	victim.get(http.StatusForbidden, theirs).says(t, noAnswer)
	if victim.cookie(sessionCookie) != before || victim.role() != "ops@dezky.example Operator" {
		t.Errorf("the victim is now %q", victim.role())
	}
}

// backs are addresses to return to that are none, with why.
var backs = map[string]string{
	"another host":                     "//evil.example/",
	"another host, encoded":            "/%2Fevil.example/",
	"another host, doubly encoded":     "/%252Fevil.example/",
	"a backslash":                      `/\evil.example`,
	"a backslash, encoded":             "/%5Cevil.example",
	"a backslash, doubly encoded":      "/%255Cevil.example",
	"a line feed":                      "/operator/flags\n//evil.example",
	"a tab":                            "/\t/evil.example",
	"a line feed, encoded":             "/operator%0aSet-Cookie:x",
	"a line feed, doubly encoded":      "/operator%250aSet-Cookie:x",
	"a line feed, encoded three times": "/operator%25250aSet-Cookie:x",
	"a NUL, encoded":                   "/operator/%00",
	"a C1 control":                     "/operator/\u0085",
	"a scheme":                         "https://evil.example/operator",
	"a scheme of no host":              "javascript:alert(1)",
	"a host without a scheme":          "evil.example/operator",
	"no slash":                         "operator/flags",
	"the sign-in":                      "/login",
	"the sign-in's start":              "/login/start?return_to=/operator",
	"the sign-in, encoded":             "/%6cogin/start",
	"the sign-in by a detour":          "/operator/../login/start",
	"the sign-in by an encoded detour": "/operator/%2e%2e/login/start",
	"a bad escape":                     "/operator/%zz",
	"over 2 KB":                        "/operator/flags?q=" + strings.Repeat("x", 2048),
}

func TestSignInRefusesOpenRedirects(t *testing.T) {
	t.Parallel()
	s := signInServer(t, authtest.Options{})
	b := s.surfer(t)
	for why, back := range backs {
		query := "?return_to=" + url.QueryEscape(back)
		if a := b.get(http.StatusOK, "/login"+query); !strings.Contains(a.text, `href="/login/start"`) {
			t.Errorf("%s: the sign-in page hands it on", why)
		}
		to := b.callback(authtest.OpsSub, "/login/start"+query)
		if got := b.stop("/", to).Header.Get("Location"); got != "/operator/flags" {
			t.Errorf("%s: the sign-in ends at %q, want /operator/flags", why, got)
		}
	}
	for _, back := range []string{"/operator/flags", "/operator/flags/calendar?env=staging&q=%C3%A5%20b", "/operator/audit?actor=100%25", "/operator/flags?q=" + strings.Repeat("x", 1500)} {
		query := "?return_to=" + url.QueryEscape(back)
		if a := b.get(http.StatusOK, "/login"+query); !strings.Contains(a.text, `href="/login/start?return_to=`) {
			t.Errorf("%.60s: the sign-in page does not hand it on", back)
		}
		if got := b.stop("/", b.callback(authtest.OpsSub, "/login/start"+query)).Header.Get("Location"); got != back {
			t.Errorf("the sign-in ends at %.80q, want %.80q", got, back)
		}
	}
}

func TestSignInEndsAFixedSession(t *testing.T) {
	t.Parallel()
	s := signInServer(t, authtest.Options{})
	attacker, victim := s.surfer(t), s.surfer(t)
	attacker.signIn(authtest.ViewerSub)
	fixed := attacker.cookie(sessionCookie)
	victim.setCookie(sessionCookie, fixed)
	victim.signIn(authtest.OpsSub)
	if victim.cookie(sessionCookie) == fixed {
		t.Error("the session has the id that it was given")
	}
	if got := attacker.role(); got != "" {
		t.Errorf("by the fixed session the attacker is %q, want nobody", got)
	}
	again := victim.cookie(sessionCookie)
	victim.signIn(authtest.OpsSub)
	if victim.cookie(sessionCookie) == again {
		t.Error("a second sign-in kept the id")
	}
	if n := s.sessionRows(t); n != 1 {
		t.Errorf("%d sessions, want 1", n)
	}
}

func TestSignInTakesATamperedCookieForNone(t *testing.T) {
	t.Parallel()
	s := signInServer(t, authtest.Options{})
	damaged := func(good string) map[string]string {
		middle := len(good) / 2
		flip := "A"
		if good[middle] == 'A' {
			flip = "B"
		}
		return map[string]string{"empty": "", "rubbish": "%%%", "cut": good[:middle], "flipped": good[:middle] + flip + good[middle+1:], "long": strings.Repeat("x", 8000)}
	}
	t.Run("session", func(t *testing.T) {
		b := s.surfer(t)
		b.signIn(authtest.OpsSub)
		good := b.cookie(sessionCookie)
		cases := damaged(good)
		to := b.callback(authtest.OpsSub, "/login/start")
		names, _ := b.attempts()
		cases["the cookie of a sign-in"] = b.cookie(names[0])
		for why, value := range cases {
			c := s.surfer(t)
			c.setCookie(sessionCookie, value)
			if a := c.stop("/login", "/operator/flags"); a.StatusCode != http.StatusSeeOther || a.Header.Get("Location") != "/login?return_to=%2Foperator%2Fflags" {
				t.Errorf("%s: a page answers %d %q, want 303 to the sign-in", why, a.StatusCode, a.Header.Get("Location"))
			}
			c.api(http.StatusUnauthorized, "GET /api/flags", "")
			if a := c.kill(); a.StatusCode != http.StatusUnauthorized {
				t.Errorf("%s: a change answers %d, want 401", why, a.StatusCode)
			}
			if a := c.stop("/login", "/login"); a.StatusCode != http.StatusOK {
				t.Errorf("%s: the sign-in page answers %d, want 200", why, a.StatusCode)
			}
		}
		b.get(http.StatusOK, to)
	})
	t.Run("attempt", func(t *testing.T) {
		b := s.surfer(t)
		to := b.callback(authtest.OpsSub, "/login/start")
		names, _ := b.attempts()
		cases := damaged(b.cookie(names[0]))
		other := s.surfer(t)
		other.signIn(authtest.OpsSub)
		cases["the cookie of a session"] = other.cookie(sessionCookie)
		for why, value := range cases {
			b.setCookie(names[0], value)
			b.get(http.StatusForbidden, to).says(t, noAnswer)
			if b.cookie(sessionCookie) != "" {
				t.Errorf("%s: a session was begun", why)
			}
		}
	})
}

func TestPagesCantBeFramed(t *testing.T) {
	t.Parallel()
	s := signInServer(t, authtest.Options{})
	b, stranger := s.surfer(t), s.surfer(t)
	b.signIn(authtest.OpsSub)
	s.p.SignInAs(authtest.StrangerSub)
	for _, a := range []*seen{
		b.get(200, "/login"), b.get(200, "/operator/flags"), b.get(200, "/operator/flags", "HX-Request: true", "HX-Request-Type: partial"),
		b.get(404, "/operator/nowhere"), b.get(403, auth.CallbackPath), b.get(200, "/docs"), stranger.get(403, "/login/start"),
	} {
		policy := a.Header.Get("Content-Security-Policy")
		if !slices.Contains(strings.Split(policy, "; "), "frame-ancestors 'none'") {
			t.Errorf("%s: CSP %q, want frame-ancestors 'none'", a.Request.URL, policy)
		}
	}
	want := "form-action 'self' " + strings.TrimSuffix(s.p.URL(), "/")
	if policy := b.get(200, "/operator/flags").Header.Get("Content-Security-Policy"); !slices.Contains(strings.Split(policy, "; "), want) {
		t.Errorf("CSP %q, want %s", policy, want)
	}
}

func TestSignInRefusesTheProvidersBadAnswers(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		name  string
		habit authtest.Habit
		says  string
		log   string
	}{
		{"wrong nonce", authtest.WrongNonce, "id token was refused; the log says why", "its nonce is another"},
		{"wrong iss in the callback", authtest.WrongIssInCallback, "The answer came from another identity provider", "iss is"},
		{"wrong at_hash", authtest.WrongAtHash, "id token was refused; the log says why", "its at_hash is not of the access token"},
		{"other sub in userinfo", authtest.OtherSubInUserinfo, "userinfo does not fit its id token", "another sub"},
		{"HS256", authtest.NoSigningKey, "choose a Signing Key in the Authentik provider", "HS256"},
		{"JWE", authtest.EncryptedTokens, "leave Encryption Key empty in the Authentik provider", "encrypted"},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			s := signInServer(t, authtest.Options{})
			b := s.surfer(t)
			b.signIn(authtest.OpsSub) // so that the provider's good manners are known
			b.send(http.MethodPost, "/logout", url.Values{})
			s.p.Set(test.habit, true)
			b.get(http.StatusForbidden, b.callback(authtest.OpsSub, "/login/start")).says(t, test.says)
			b.nothing(test.name)
			if !strings.Contains(s.log.String(), test.log) {
				t.Errorf("the log does not say %q", test.log)
			}
		})
	}
	t.Run("right iss in the callback", func(t *testing.T) {
		t.Parallel()
		s := signInServer(t, authtest.Options{})
		s.p.Set(authtest.IssInCallback, true)
		s.surfer(t).signIn(authtest.OpsSub)
	})
}

func TestSignInRefusesTamperedIDTokens(t *testing.T) {
	t.Parallel()
	s, tp := tamperedServer(t)
	key, err := authtest.NewKey("ES256")
	if err != nil {
		t.Fatal(err)
	}
	signed := func(change func(claims map[string]any), opts ...authtest.TokenOption) func(map[string]any) {
		return func(answer map[string]any) {
			claims := claimsOf(t, answer["id_token"].(string))
			change(claims)
			answer["id_token"] = s.p.Token(claims, opts...)
		}
	}
	same := func(map[string]any) {}
	now := time.Now()
	for name, test := range map[string]struct {
		change func(answer map[string]any)
		log    string
	}{
		"none at all":                    {func(a map[string]any) { delete(a, "id_token") }, "not a JWT"},
		"of another audience":            {signed(func(c map[string]any) { c["aud"] = authtest.PortalID }), "its audience is"},
		"of no audience":                 {signed(func(c map[string]any) { delete(c, "aud") }), "its audience is"},
		"of several, for another":        {signed(func(c map[string]any) { c["aud"], c["azp"] = []string{authtest.ConsoleID, "x"}, "x" }), "its azp is"},
		"of several, for nobody":         {signed(func(c map[string]any) { c["aud"] = []string{authtest.ConsoleID, "x"} }), "its azp is"},
		"of another issuer":              {signed(func(c map[string]any) { c["iss"] = s.p.Issuer() }), "issued by a different provider"},
		"without a nonce":                {signed(func(c map[string]any) { delete(c, "nonce") }), "its nonce is another"},
		"without a sub":                  {signed(func(c map[string]any) { delete(c, "sub") }), "no sub"},
		"of another sub":                 {signed(func(c map[string]any) { c["sub"] = authtest.ViewerSub }), "another sub"},
		"expired":                        {signed(func(c map[string]any) { c["exp"] = now.Add(-time.Minute).Unix() }), "expired at"},
		"without exp":                    {signed(func(c map[string]any) { delete(c, "exp") }), "expired at"},
		"issued in ten minutes":          {signed(func(c map[string]any) { c["iat"] = now.Add(10 * time.Minute).Unix() }), "issued in the future"},
		"a logout token":                 {signed(func(c map[string]any) { c["events"] = s.p.LogoutClaims(authtest.OpsSub, "")["events"] }), "it is a logout token"},
		"signed by nobody":               {signed(same, authtest.SignedWith(nil)), "its algorithm is"},
		"signed with the client secret":  {signed(same, authtest.SignedWith([]byte(authtest.Secret(authtest.ConsoleID)))), "HS256"},
		"signed with another key":        {signed(same, authtest.SignedWith(key)), "signature"},
		"signed with a key of its own":   {signed(same, authtest.Header("kid", "own"), authtest.SignedWith(key)), "signed by no key of the issuer"},
		"bringing its key":               {signed(same, authtest.Header("jwk", map[string]any{"kty": "EC"})), "brings a key of its own"},
		"with critical headers":          {signed(same, authtest.Header("crit", []string{"b64"})), "critical"},
		"at_hash of another token":       {func(a map[string]any) { a["access_token"] = s.p.AccessToken(authtest.ConsoleID, authtest.OpsSub) }, "at_hash"},
		"in the access token's own form": {signed(same, authtest.Header("typ", "at+jwt")), "its type is"},
	} {
		t.Run(name, func(t *testing.T) {
			b := s.surfer(t)
			tp.set(test.change)
			from := len(s.log.String())
			a := b.get(http.StatusForbidden, b.callback(authtest.OpsSub, "/login/start"))
			a.says(t, "The identity provider")
			b.nothing(name)
			if log := s.log.String()[from:]; !strings.Contains(log, test.log) {
				t.Errorf("the log does not say %q, but %s", test.log, log)
			}
		})
	}
	tp.set(signed(same))
	s.surfer(t).signIn(authtest.OpsSub)
}

func TestSignInMapsGroupsEachTime(t *testing.T) {
	t.Parallel()
	s := signInServer(t, authtest.Options{})
	b := s.surfer(t)
	for _, step := range []struct {
		groups []string
		role   string
	}{
		{[]string{"dezky-operators"}, "ops@dezky.example Operator"},
		{[]string{"x", "dezky-viewers"}, "ops@dezky.example Viewer"},
		{[]string{"dezky-viewers", "dezky-operators"}, "ops@dezky.example Operator"},
		{[]string{"Dezky-Operators", "dezky-operators2"}, ""},
	} {
		s.p.SetGroups(authtest.OpsSub, step.groups...)
		s.p.SignInAs(authtest.OpsSub)
		b.send(http.MethodGet, "/login/start", nil)
		if got := b.role(); got != step.role {
			t.Errorf("with groups %v: %q, want %q", step.groups, got, step.role)
		}
	}
	if n := s.sessionRows(t); n != 0 { // the session from before is not for who has lost the groups
		t.Errorf("%d sessions, want none", n)
	}
}

func TestSignInTakesGroupsFromUserinfo(t *testing.T) {
	t.Parallel()
	s := signInServer(t, anHour)
	s.p.Set(authtest.NoClaimsInTokens, true)
	b := s.surfer(t)
	b.signIn(authtest.OpsSub)
	if got := b.role(); got != "ops@dezky.example Operator" {
		t.Errorf("%q, want the operator by email", got)
	}
	// Userinfo is newer than the id token: what it says counts.
	s.p.Set(authtest.NoClaimsInTokens, false)
	to := b.callback(authtest.OpsSub, "/login/start")
	stall := s.p.Stall(authtest.Userinfo)
	done := make(chan error, 1)
	go func() {
		_, err := b.try(http.MethodGet, to, nil)
		done <- err
	}()
	<-stall.Arrived
	s.p.SetGroups(authtest.OpsSub, "dezky-viewers")
	stall.Release()
	if err := <-done; err != nil {
		t.Fatal(err)
	}
	if got := b.role(); got != "ops@dezky.example Viewer" {
		t.Errorf("%q, want a viewer", got)
	}
}

// Somebody who is deactivated between the token and userinfo is not let in, whatever the id token says.
func TestSignInOfSomebodyDeactivated(t *testing.T) {
	t.Parallel()
	s := signInServer(t, authtest.Options{})
	b := s.surfer(t)
	to := b.callback(authtest.OpsSub, "/login/start")
	stall := s.p.Stall(authtest.Userinfo)
	go func() {
		<-stall.Arrived
		s.p.Deactivate(authtest.OpsSub)
		stall.Release()
	}()
	b.get(http.StatusForbidden, to).says(t, "The identity provider does not take the access token that it gave.")
	b.nothing("deactivated")
}

func TestSignInWithoutAnyGroupsClaim(t *testing.T) {
	t.Parallel()
	s := signInServer(t, authtest.Options{})
	s.p.Set(authtest.NoGroups, true)
	b := s.surfer(t)
	s.p.SignInAs(authtest.OpsSub)
	b.get(http.StatusForbidden, "/login/start").says(t, "You have no access", "ops@dezky.example", "The identity provider sent none.", "lacks the scope “profile”", "dezky-operators to change flags", "dezky-viewers to look at them")
	b.nothing("without groups")
}

func TestSignInTellsAStrangerWhy(t *testing.T) {
	t.Parallel()
	s := signInServer(t, authtest.Options{})
	s.p.SetGroups(authtest.StrangerSub, "marketing", `<script>x</script>`, "tenant:acme")
	b := s.surfer(t)
	s.p.SignInAs(authtest.StrangerSub)
	a := b.get(http.StatusForbidden, "/login/start?return_to="+url.QueryEscape("/operator/flags/calendar?env=staging"))
	a.says(t, "stranger@dezky.example", "marketing", `<script>x</script>`, "tenant:acme", "dezky-operators to change flags", "dezky-viewers to look at them")
	if strings.Contains(a.text, "<script>x") {
		t.Error("a group's name is not escaped")
	}
	b.nothing("a stranger")
	links := regexp.MustCompile(`href="(/login/start[^"]*)"`).FindAllStringSubmatch(a.text, -1)
	if len(links) != 2 {
		t.Fatalf("%d ways on, want 2", len(links))
	}
	another := html.UnescapeString(links[1][1])
	to, err := url.Parse(b.stop("/application/", another).Header.Get("Location"))
	if err != nil || to.Query().Get("prompt") != "login" {
		t.Errorf("%s leads to %s, want prompt=login", another, to)
	}
	s.p.SignInAs(authtest.OpsSub)
	if a := b.get(http.StatusOK, another); a.Request.URL.RequestURI() != "/operator/flags/calendar?env=staging" {
		t.Errorf("with another account the sign-in ends at %s", a.Request.URL)
	}
	if to := b.stop("/application/", "/login/start").Header.Get("Location"); strings.Contains(to, "prompt=") {
		t.Errorf("a plain sign-in asks for the password: %s", to)
	}
}

func TestSignInLabels(t *testing.T) {
	t.Parallel()
	operator := []string{"dezky-operators"}
	long := strings.Repeat("ö", 300) + "@dezky.example"
	o := authtest.Options{People: []authtest.Person{
		{Sub: "s1", Email: "a@dezky.example", Username: "a", Groups: operator},
		{Sub: "s2", Username: "only-a-username", Groups: operator},
		{Sub: "s3", Groups: operator},
		{Sub: "s4", Email: "token:ci", Groups: operator},
		{Sub: "s5", Email: "System:seed", Groups: operator},
		{Sub: "s6", Email: "operator@localhost", Groups: operator},
		{Sub: "s7", Email: "two\nlines\t@dezky.example\u0000", Groups: operator},
		{Sub: "s8", Email: long, Groups: operator},
		{Sub: "s9", Email: `<b>"'&@dezky.example`, Groups: operator},
	}}
	s := signInServer(t, o)
	for sub, want := range map[string]string{"s1": "a@dezky.example", "s2": "only-a-username", "s3": "s3", "s4": "person:token:ci", "s5": "person:System:seed",
		"s6": "person:operator@localhost", "s7": "two lines @dezky.example", "s8": strings.Repeat("ö", 200), "s9": `<b>"'&@dezky.example`} {
		b := s.surfer(t)
		b.signIn(sub)
		b.api(http.StatusOK, "PATCH /api/flags/search", show(map[string]string{"description": "by " + sub}))
		e := s.newest(t)
		if e.Actor != want || e.Subject != sub {
			t.Errorf("%s: the history has %q, subject %q, want %q", sub, e.Actor, e.Subject, want)
		}
	}
}

func TestSignInInTwoTabsAtOnce(t *testing.T) {
	t.Parallel()
	s := signInServer(t, authtest.Options{})
	b := s.surfer(t)
	one := b.callback(authtest.OpsSub, "/login/start?return_to=/operator/audit")
	two := b.callback(authtest.OpsSub, "/login/start?return_to=/operator/status")
	for _, tab := range []struct{ to, back string }{{two, "/operator/status"}, {one, "/operator/audit"}} {
		if a := b.get(http.StatusOK, tab.to); a.Request.URL.Path != tab.back {
			t.Errorf("the sign-in ends at %s, want %s", a.Request.URL.Path, tab.back)
		}
	}
	if n := s.sessionRows(t); n != 1 {
		t.Errorf("%d sessions, want 1", n)
	}
}

// However many sign-ins a browser begins, its cookies fit a proxy's limit for headers, and the newest work.
func TestSignInCookiesStaySmall(t *testing.T) {
	t.Parallel()
	s := signInServer(t, authtest.Options{})
	for name, back := range map[string]string{"short": "/operator/flags", "long": "/operator/flags?q=" + strings.Repeat("x", 1200), "longest": "/operator/flags?q=" + strings.Repeat("&", 1950)} {
		b := s.surfer(t)
		start := "/login/start?return_to=" + url.QueryEscape(back)
		var last string
		for range 9 {
			last = b.callback(authtest.OpsSub, start)
			names, size := b.attempts()
			if len(names) > 5 || size > 6<<10 {
				t.Errorf("%s: %d cookies of %d bytes, want at most 5 and 6 KiB", name, len(names), size)
			}
			for _, n := range names {
				if size := len(n) + len(b.cookie(n)); size > 4096 {
					t.Errorf("%s: a cookie of %d bytes, which browsers drop", name, size)
				}
			}
		}
		b.get(http.StatusOK, last)
		if got := b.role(); got != "ops@dezky.example Operator" {
			t.Errorf("%s: %q, want the operator", name, got)
		}
	}
	for size := 1900; size < 2040; size += 4 {
		b := s.surfer(t)
		b.stop("/application/", "/login/start?return_to=/operator/flags?q="+strings.Repeat("x", size))
		names, _ := b.attempts()
		if len(names) != 1 || len(names[0])+len(b.cookie(names[0])) > 4096 {
			t.Errorf("an address of %d bytes more makes a cookie of %d bytes, which browsers drop", size, len(b.cookie(names[0])))
		}
	}
}

func TestSignInWhileTheProviderIsAway(t *testing.T) {
	t.Parallel()
	away := func(t *testing.T, s *signIns) {
		t.Helper()
		b := s.surfer(t)
		b.get(http.StatusOK, "/login").says(t, "The identity provider does not answer, since", "Continue with sign-on")
		a := b.get(http.StatusServiceUnavailable, "/login/start?return_to=/operator/audit")
		a.says(t, "The identity provider can’t be asked now. Try again in a minute.")
		if a.Header.Get("Retry-After") == "" || !strings.Contains(a.text, `href="/login/start?return_to=`) {
			t.Error("no Retry-After, or no way to try again")
		}
		for range 5 {
			b.get(http.StatusServiceUnavailable, "/login/start")
		}
		s.want(t, http.StatusOK, "GET /ready", "", nobody)
		b.nothing("while the provider is away")
		if err := s.p.Restart(); err != nil {
			t.Fatal(err)
		}
		s.later(30 * time.Second)
		if a := b.get(http.StatusOK, "/login"); strings.Contains(main(a.text), "does not answer") {
			t.Error("the sign-in page says that the provider is away, which is back")
		}
		b.signIn(authtest.OpsSub)
	}
	t.Run("from the start", func(t *testing.T) {
		t.Parallel()
		p := authtest.New(t, authtest.Options{Alg: "ES256"})
		p.Stop()
		away(t, &signIns{trusting(t, p), p})
	})
	t.Run("later", func(t *testing.T) {
		t.Parallel()
		s := signInServer(t, authtest.Options{})
		s.surfer(t).signIn(authtest.OpsSub)
		if err := s.db.DeleteOldSessions(t.Context(), s.now().Add(time.Hour), s.now()); err != nil {
			t.Fatal(err)
		}
		s.p.Stop()
		s.later(time.Minute)
		away(t, s)
	})
	t.Run("on the way back", func(t *testing.T) {
		t.Parallel()
		s := signInServer(t, authtest.Options{})
		b := s.surfer(t)
		to := b.callback(authtest.OpsSub, "/login/start?return_to=/operator/audit")
		s.p.Break(authtest.Tokens, authtest.Failing)
		if a := b.get(http.StatusServiceUnavailable, to); !strings.Contains(a.text, `href="/login/start?return_to=`) {
			t.Error("the page forgets where the person wanted to go")
		}
		b.nothing("while the token endpoint fails")
		s.p.Break(authtest.Tokens, authtest.None)
		s.p.Break(authtest.Userinfo, authtest.Failing)
		s.p.Set(authtest.NoClaimsInTokens, true)
		b.get(http.StatusServiceUnavailable, b.callback(authtest.OpsSub, "/login/start"))
		b.nothing("while userinfo fails and the id token has no groups")
		s.p.Set(authtest.NoClaimsInTokens, false) // the id token then says enough
		b.signIn(authtest.OpsSub)
	})
}

func TestSignInAcrossTheProvidersRestart(t *testing.T) {
	t.Parallel()
	s := signInServer(t, anHour)
	b := s.surfer(t)
	b.signIn(authtest.OpsSub)
	s.p.Stop()
	if err := s.p.Restart(); err != nil {
		t.Fatal(err)
	}
	s.later(auth.CheckEvery)
	if got := b.role(); got != "ops@dezky.example Operator" {
		t.Errorf("after the restart: %q", got)
	}
	s.p.RotateKey()
	s.surfer(t).signIn(authtest.OpsSub) // by a key that is not known yet
	for _, off := range []time.Duration{time.Minute, -time.Minute} {
		s.p.SetOffset(time.Duration(s.ahead.Load()) + off)
		c := s.surfer(t)
		c.signIn(authtest.OpsSub)
		if got := c.role(); got != "ops@dezky.example Operator" {
			t.Errorf("with the provider's clock off by %v: %q", off, got)
		}
	}
	s.p.SetOffset(time.Duration(s.ahead.Load()) + 10*time.Minute)
	s.p.SignInAs(authtest.OpsSub)
	s.surfer(t).get(http.StatusForbidden, "/login/start").says(t, "compare the clocks of this machine and the identity provider")
}

// A viewer sees everything and changes nothing, whichever way the request comes.
func TestSignInAsViewer(t *testing.T) {
	t.Parallel()
	s := signInServer(t, authtest.Options{})
	b := s.surfer(t)
	b.signIn(authtest.ViewerSub)
	b.api(http.StatusOK, "GET /api/flags", "")
	b.api(http.StatusForbidden, "PATCH /api/flags/calendar", patch)
	if a := b.kill(); a.StatusCode != http.StatusForbidden {
		t.Errorf("a kill answers %d, want 403", a.StatusCode)
	}
	b.s.want(t, http.StatusUnauthorized, "GET /flags", "", nobody, "Cookie: "+sessionCookie+"="+b.cookie(sessionCookie)) // cookies count below /api alone
}
