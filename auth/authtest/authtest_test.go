package authtest_test

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"io"
	"net"
	"net/http"
	"net/http/cookiejar"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/coreos/go-oidc/v3/oidc"
	"golang.org/x/oauth2"

	"github.com/dezky/platform-api/auth/authtest"
)

const console = "http://console.example" // nobody is there: the browser stops at its door

// start returns a provider that knows the console, and signs the operator in without asking.
func start(t *testing.T, o authtest.Options) *authtest.Provider {
	t.Helper()
	p := authtest.New(t, o)
	p.PutClient(authtest.Console(console))
	p.SignInAs(authtest.OpsSub)
	return p
}

// browser returns a client that keeps cookies and follows redirects up to the console.
func browser(t *testing.T) *http.Client {
	t.Helper()
	jar, err := cookiejar.New(nil)
	if err != nil {
		t.Fatal(err)
	}
	return &http.Client{Jar: jar, CheckRedirect: func(r *http.Request, _ []*http.Request) error {
		if strings.HasPrefix(r.URL.String(), console) {
			return http.ErrUseLastResponse
		}
		return nil
	}}
}

func config(p *authtest.Provider) *oauth2.Config {
	return &oauth2.Config{ClientID: authtest.ConsoleID, ClientSecret: authtest.Secret(authtest.ConsoleID),
		RedirectURL: console + "/login/callback", Scopes: []string{"openid", "profile", "email"},
		Endpoint: oauth2.Endpoint{AuthURL: p.URL() + "/application/o/authorize/", TokenURL: p.URL() + "/application/o/token/",
			AuthStyle: oauth2.AuthStyleInHeader}} // else a refused code is tried a second time
}

// visit gets a page and returns where it ended: the status, the body, and the way to the console, if any.
func visit(t *testing.T, c *http.Client, address string) (int, string, *url.URL) {
	t.Helper()
	response, err := c.Get(address)
	if err != nil {
		t.Fatal(err)
	}
	return ended(t, response)
}

func ended(t *testing.T, response *http.Response) (int, string, *url.URL) {
	t.Helper()
	defer response.Body.Close()
	body, err := io.ReadAll(response.Body)
	if err != nil {
		t.Fatal(err)
	}
	location, err := response.Location()
	if err != nil {
		location = &url.URL{}
	}
	return response.StatusCode, string(body), location
}

// signIn goes through the whole flow and returns the tokens.
func signIn(t *testing.T, p *authtest.Provider, c *http.Client) *oauth2.Token {
	t.Helper()
	verifier := oauth2.GenerateVerifier()
	status, body, callback := visit(t, c, config(p).AuthCodeURL("state", oauth2.S256ChallengeOption(verifier), oauth2.SetAuthURLParam("nonce", "nonce")))
	code := callback.Query().Get("code")
	if code == "" {
		t.Fatalf("no code: %d %s %s", status, callback, body)
	}
	token, err := config(p).Exchange(t.Context(), code, oauth2.VerifierOption(verifier))
	if err != nil {
		t.Fatal(err)
	}
	return token
}

// part decodes a token's header (0) or claims (1).
func part(t *testing.T, token string, i int) map[string]any {
	t.Helper()
	parts := strings.Split(token, ".")
	if i >= len(parts) {
		t.Fatalf("token has %d parts: %s", len(parts), token)
	}
	text, err := base64.RawURLEncoding.DecodeString(parts[i])
	if err != nil {
		t.Fatal(err)
	}
	return decode(t, string(text))
}

func decode(t *testing.T, text string) map[string]any {
	t.Helper()
	var document map[string]any
	if err := json.Unmarshal([]byte(text), &document); err != nil {
		t.Fatalf("%v: %s", err, text)
	}
	return document
}

func document(t *testing.T, address string) map[string]any {
	t.Helper()
	status, body, _ := visit(t, http.DefaultClient, address)
	if status != http.StatusOK {
		t.Fatalf("%s = %d %s", address, status, body)
	}
	return decode(t, body)
}

func discovery(t *testing.T, p *authtest.Provider) map[string]any {
	t.Helper()
	return document(t, p.Issuer()+".well-known/openid-configuration")
}

func jwks(t *testing.T, p *authtest.Provider) string {
	t.Helper()
	_, body, _ := visit(t, http.DefaultClient, p.Issuer()+"jwks/")
	return body
}

// userinfo returns the status and the claims.
func userinfo(t *testing.T, p *authtest.Provider, token string) (int, map[string]any) {
	t.Helper()
	r, err := http.NewRequest(http.MethodGet, p.URL()+"/application/o/userinfo/", nil)
	if err != nil {
		t.Fatal(err)
	}
	r.Header.Set("Authorization", "Bearer "+token)
	response, err := http.DefaultClient.Do(r)
	if err != nil {
		t.Fatal(err)
	}
	status, body, _ := ended(t, response)
	if status != http.StatusOK {
		return status, nil
	}
	return status, decode(t, body)
}

func str(t *testing.T, v any) string {
	t.Helper()
	text, err := json.Marshal(v)
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

// want compares claims with JSON; null means absent.
func want(t *testing.T, what string, claims map[string]any, wants map[string]string) {
	t.Helper()
	for name, value := range wants {
		if got := str(t, claims[name]); got != value {
			t.Errorf("%s: %s = %s, want %s", what, name, got, value)
		}
	}
}

func TestSignInWithGoOIDC(t *testing.T) {
	for _, alg := range []string{"RS256", "ES256", "ES384", "ES512", "EdDSA"} {
		t.Run(alg, func(t *testing.T) {
			p := start(t, authtest.Options{Alg: alg})
			provider, err := oidc.NewProvider(t.Context(), p.Issuer())
			if err != nil {
				t.Fatal(err)
			}
			token := signIn(t, p, browser(t))
			raw, _ := token.Extra("id_token").(string)
			id, err := provider.Verifier(&oidc.Config{ClientID: authtest.ConsoleID}).Verify(t.Context(), raw)
			if err != nil {
				t.Fatal(err)
			}
			if id.Subject != authtest.OpsSub || id.Nonce != "nonce" || id.Issuer != p.URL()+"/application/o/dezky-operator/" {
				t.Errorf("id token = %+v", id)
			}
			if err := id.VerifyAccessToken(token.AccessToken); err != nil {
				t.Error(err)
			}
			if _, err := provider.Verifier(&oidc.Config{ClientID: authtest.ConsoleID}).Verify(t.Context(), token.AccessToken); err != nil {
				t.Errorf("access token: %v", err)
			}
			info, err := provider.UserInfo(t.Context(), oauth2.StaticTokenSource(token))
			if err != nil || info.Subject != authtest.OpsSub || info.Email != "ops@dezky.example" || info.EmailVerified {
				t.Errorf("userinfo = %+v, %v", info, err)
			}
			if got := p.Fetches(authtest.Keys); got != 1 {
				t.Errorf("%d key fetches, want 1", got)
			}
		})
	}
}

func TestClaims(t *testing.T) {
	now := time.Date(2026, 7, 1, 12, 0, 0, 0, time.UTC)
	p := start(t, authtest.Options{Now: func() time.Time { return now }, AccessTokenLife: 10 * time.Minute})
	token := signIn(t, p, browser(t))
	id, access := token.Extra("id_token").(string), token.AccessToken
	identity := map[string]string{
		"iss": `"` + p.Issuer() + `"`, "sub": `"` + authtest.OpsSub + `"`, "aud": `"dezky-console"`,
		"iat": "1782907200", "exp": "1782907800", "auth_time": "1782907200", "acr": `"goauthentik.io/providers/oauth2/default"`,
		"nonce": `"nonce"`, "name": `"Olivia Ops"`, "given_name": `"Olivia Ops"`, "preferred_username": `"ops"`, "nickname": `"ops"`,
		"groups": `["dezky-operators"]`, "email": `"ops@dezky.example"`, "email_verified": "false",
	}
	want(t, "id token", part(t, id, 1), identity)
	want(t, "id token", part(t, id, 1), map[string]string{"azp": "null", "uid": "null", "scope": "null"})
	want(t, "access token", part(t, access, 1), identity)
	want(t, "access token", part(t, access, 1), map[string]string{"azp": `"dezky-console"`, "scope": `"openid profile email"`, "at_hash": "null"})
	if part(t, access, 1)["uid"] == nil || part(t, id, 1)["at_hash"] == nil {
		t.Error("no uid, or no at_hash")
	}
	sids := p.SessionIDs(authtest.OpsSub)
	if sid := part(t, id, 1)["sid"]; len(sids) != 1 || sid != sids[0] || sid != part(t, access, 1)["sid"] {
		t.Errorf("sid = %v, sessions %v", sid, sids)
	}
	for _, token := range []string{id, access} {
		want(t, "header", part(t, token, 0), map[string]string{"typ": `"JWT"`, "alg": `"RS256"`, "kid": `"` + p.KeyID() + `"`})
	}

	p.SetOffset(time.Minute)
	want(t, "a minute early", p.Claims(authtest.ConsoleID, authtest.OpsSub), map[string]string{"iat": "1782907260", "exp": "1782907860"})
	want(t, "without profile", p.Claims(authtest.ConsoleID, authtest.OpsSub, "openid", "email"), map[string]string{"groups": "null", "name": "null", "email": `"ops@dezky.example"`})
}

func TestHabits(t *testing.T) {
	all := map[string]string{"name": `"Olivia Ops"`, "groups": `["dezky-operators"]`, "email": `"ops@dezky.example"`}
	none := map[string]string{"name": "null", "groups": "null", "email": "null"}
	for _, test := range []struct {
		name  string
		habit authtest.Habit
		check func(t *testing.T, p *authtest.Provider)
	}{
		{"no claims in tokens", authtest.NoClaimsInTokens, func(t *testing.T, p *authtest.Provider) {
			token := signIn(t, p, browser(t))
			want(t, "id token", part(t, token.Extra("id_token").(string), 1), none)
			want(t, "access token", part(t, token.AccessToken, 1), none)
			_, claims := userinfo(t, p, token.AccessToken)
			want(t, "userinfo", claims, all)
		}},
		{"no groups", authtest.NoGroups, func(t *testing.T, p *authtest.Provider) {
			token := signIn(t, p, browser(t))
			_, claims := userinfo(t, p, token.AccessToken)
			for _, claims := range []map[string]any{part(t, token.Extra("id_token").(string), 1), part(t, token.AccessToken, 1), claims} {
				want(t, "no groups", claims, map[string]string{"name": `"Olivia Ops"`, "groups": "null"})
			}
		}},
		{"no signing key", authtest.NoSigningKey, func(t *testing.T, p *authtest.Provider) {
			want(t, "discovery", discovery(t, p), map[string]string{"id_token_signing_alg_values_supported": `["HS256"]`})
			if got := jwks(t, p); got != "{}" {
				t.Errorf("JWKS = %s, want {}", got)
			}
			token := signIn(t, p, browser(t))
			want(t, "header", part(t, token.AccessToken, 0), map[string]string{"alg": `"HS256"`, "kid": "null"})
			key := []byte(authtest.Secret(authtest.ConsoleID))
			if same := p.Token(part(t, token.AccessToken, 1), authtest.SignedWith(key), authtest.Header("kid", nil)); len(same) != len(token.AccessToken) {
				t.Errorf("access token %s, want %s", token.AccessToken, same)
			}
		}},
		{"encrypted tokens", authtest.EncryptedTokens, func(t *testing.T, p *authtest.Provider) {
			token := signIn(t, p, browser(t))
			for _, token := range []string{token.AccessToken, token.Extra("id_token").(string)} {
				if n := strings.Count(token, "."); n != 4 {
					t.Errorf("%d dots, want 4", n)
				}
				want(t, "header", part(t, token, 0), map[string]string{"alg": `"RSA-OAEP-256"`, "enc": `"A256CBC-HS512"`, "typ": `"JWE"`})
			}
			keys := decode(t, jwks(t, p))["keys"].([]any)
			if len(keys) != 2 {
				t.Fatalf("%d keys, want 2", len(keys))
			}
			want(t, "first key", keys[0].(map[string]any), map[string]string{"use": `"sig"`, "kid": `"` + p.KeyID() + `"`})
			want(t, "second key", keys[1].(map[string]any), map[string]string{"use": `"enc"`, "alg": `"RSA-OAEP-256"`, "enc": `"A256CBC-HS512"`})
			if status, claims := userinfo(t, p, token.AccessToken); status != http.StatusOK {
				t.Errorf("userinfo = %d %v", status, claims)
			}
		}},
		{"global issuer", authtest.GlobalIssuer, wantIssuer(func(p *authtest.Provider) string { return p.URL() + "/" })},
		{"no trailing slash", authtest.NoTrailingSlash, wantIssuer(func(p *authtest.Provider) string { return strings.TrimSuffix(p.Issuer(), "/") })},
		{"other host", authtest.OtherHost, wantIssuer(func(p *authtest.Provider) string {
			return strings.Replace(p.Issuer(), "127.0.0.1", "localhost", 1)
		})},
		{"no grant types", authtest.NoGrantTypes, func(t *testing.T, p *authtest.Provider) {
			_, _, callback := visit(t, browser(t), config(p).AuthCodeURL("state", oauth2.S256ChallengeOption(oauth2.GenerateVerifier())))
			if got := callback.Query(); got.Get("error") != "unauthorized_client" || got.Get("state") != "state" || got.Get("code") != "" {
				t.Errorf("callback = %s", callback)
			}
			status, answer := clientCredentials(t, p, authtest.ServiceID, authtest.Secret(authtest.ServiceID), "profile")
			if status != http.StatusBadRequest || answer["error"] != "unauthorized_client" {
				t.Errorf("client_credentials = %d %v", status, answer)
			}
		}},
		{"no redirect URIs", authtest.NoRedirectURIs, func(t *testing.T, p *authtest.Provider) {
			status, _, callback := visit(t, browser(t), config(p).AuthCodeURL("state", oauth2.S256ChallengeOption(oauth2.GenerateVerifier())))
			if status != http.StatusBadRequest || callback.String() != "" {
				t.Errorf("authorize = %d %s, want 400", status, callback)
			}
		}},
		{"iss in callback", authtest.IssInCallback, func(t *testing.T, p *authtest.Provider) {
			wantCallback(t, p, p.Issuer())
		}},
		{"wrong iss in callback", authtest.WrongIssInCallback, func(t *testing.T, p *authtest.Provider) {
			wantCallback(t, p, "http://wrong.example/application/o/dezky-operator/")
		}},
		{"wrong nonce", authtest.WrongNonce, func(t *testing.T, p *authtest.Provider) {
			if got := part(t, signIn(t, p, browser(t)).Extra("id_token").(string), 1)["nonce"]; got == "nonce" || got == nil {
				t.Errorf("nonce = %v", got)
			}
		}},
		{"wrong at_hash", authtest.WrongAtHash, func(t *testing.T, p *authtest.Provider) {
			provider, err := oidc.NewProvider(t.Context(), p.Issuer())
			if err != nil {
				t.Fatal(err)
			}
			token := signIn(t, p, browser(t))
			id, err := provider.Verifier(&oidc.Config{ClientID: authtest.ConsoleID}).Verify(t.Context(), token.Extra("id_token").(string))
			if err != nil {
				t.Fatal(err)
			}
			if id.VerifyAccessToken(token.AccessToken) == nil {
				t.Error("the hash is right")
			}
		}},
		{"other sub in userinfo", authtest.OtherSubInUserinfo, func(t *testing.T, p *authtest.Provider) {
			if _, claims := userinfo(t, p, signIn(t, p, browser(t)).AccessToken); claims["sub"] == authtest.OpsSub {
				t.Errorf("sub = %v", claims["sub"])
			}
		}},
		{"no end session", authtest.NoEndSession, func(t *testing.T, p *authtest.Provider) {
			want(t, "discovery", discovery(t, p), map[string]string{"end_session_endpoint": "null"})
		}},
		{"no back-channel logout", authtest.NoBackChannelLogout, func(t *testing.T, p *authtest.Provider) {
			want(t, "discovery", discovery(t, p), map[string]string{"backchannel_logout_supported": "null", "backchannel_logout_session_supported": "null"})
		}},
	} {
		t.Run(test.name, func(t *testing.T) {
			p := start(t, authtest.Options{Alg: "ES256"})
			p.Set(test.habit, true)
			test.check(t, p)
			p.Set(test.habit, false)
			wantIssuer(func(p *authtest.Provider) string { return p.Issuer() })(t, p)
		})
	}
}

// wantIssuer checks discovery's issuer and the tokens' iss, and that discovery stays where it is.
func wantIssuer(issuer func(*authtest.Provider) string) func(*testing.T, *authtest.Provider) {
	return func(t *testing.T, p *authtest.Provider) {
		t.Helper()
		p.SignInAs(authtest.OpsSub)
		text := map[string]string{"issuer": `"` + issuer(p) + `"`}
		want(t, "discovery", discovery(t, p), text)
		text = map[string]string{"iss": `"` + issuer(p) + `"`}
		token := signIn(t, p, browser(t))
		want(t, "id token", part(t, token.Extra("id_token").(string), 1), text)
		want(t, "access token", part(t, token.AccessToken, 1), text)
		want(t, "Claims", p.Claims(authtest.ConsoleID, authtest.OpsSub), text)
	}
}

func wantCallback(t *testing.T, p *authtest.Provider, iss string) {
	t.Helper()
	want(t, "discovery", discovery(t, p), map[string]string{"authorization_response_iss_parameter_supported": "true"})
	_, _, callback := visit(t, browser(t), config(p).AuthCodeURL("state", oauth2.S256ChallengeOption(oauth2.GenerateVerifier())))
	if got := callback.Query(); got.Get("iss") != iss || got.Get("code") == "" || got.Get("state") != "state" {
		t.Errorf("callback = %s, want iss %s", callback, iss)
	}
}

// clientCredentials asks for a service's token, and returns the status and the answer.
func clientCredentials(t *testing.T, p *authtest.Provider, id, secret, scope string) (int, map[string]any) {
	t.Helper()
	response, err := http.PostForm(p.URL()+"/application/o/token/", url.Values{"grant_type": {"client_credentials"},
		"client_id": {id}, "client_secret": {secret}, "scope": {scope}})
	if err != nil {
		t.Fatal(err)
	}
	status, body, _ := ended(t, response)
	return status, decode(t, body)
}

func TestClientCredentials(t *testing.T) {
	p := authtest.New(t, authtest.Options{Alg: "ES256"})
	for _, test := range []struct {
		name, id, scope string
		wants           map[string]string
	}{
		{"service, profile", authtest.ServiceID, "profile", map[string]string{"groups": `["dezky-services"]`, "preferred_username": `"dezky-service"`,
			"azp": `"dezky-service"`, "aud": `"dezky-service"`, "scope": `"profile"`, "sid": "null", "email": "null"}},
		{"service, no scope", authtest.ServiceID, "", map[string]string{"groups": "null", "scope": `""`}},
		{"service, unknown scope", authtest.ServiceID, "openid groups", map[string]string{"groups": "null", "scope": `"openid"`}},
		{"bare, all scopes", authtest.BareID, "openid profile email", map[string]string{"groups": "[]", "email": `""`,
			"preferred_username": `"ak-dezky-bare-client_credentials"`}},
	} {
		t.Run(test.name, func(t *testing.T) {
			status, answer := clientCredentials(t, p, test.id, authtest.Secret(test.id), test.scope)
			if status != http.StatusOK || answer["token_type"] != "Bearer" || answer["expires_in"] != 300.0 || answer["id_token"] != nil {
				t.Fatalf("answer = %d %v", status, answer)
			}
			want(t, "access token", part(t, answer["access_token"].(string), 1), test.wants)
		})
	}
	if status, answer := clientCredentials(t, p, authtest.ServiceID, "wrong", "profile"); status != http.StatusUnauthorized || answer["error"] != "invalid_client" {
		t.Errorf("wrong secret = %d %v", status, answer)
	}
	p.PutClient(authtest.Client{ID: "two", Secret: "two", Audience: []string{"a", "b"}})
	_, answer := clientCredentials(t, p, "two", "two", "profile")
	want(t, "audience", part(t, answer["access_token"].(string), 1), map[string]string{"aud": `["a","b"]`, "azp": `"two"`})
}

func TestAuthorizationRefused(t *testing.T) {
	p := start(t, authtest.Options{Alg: "ES256"})
	verifier := oauth2.GenerateVerifier()
	challenge := oauth2.S256ChallengeOption(verifier)
	for _, test := range []struct {
		name    string
		change  func(*oauth2.Config)
		options []oauth2.AuthCodeOption
		want    string // error in the callback; "" stays at the provider
	}{
		{"no PKCE", nil, nil, "invalid_request"},
		{"PKCE plain", nil, []oauth2.AuthCodeOption{oauth2.SetAuthURLParam("code_challenge", verifier), oauth2.SetAuthURLParam("code_challenge_method", "plain")}, "invalid_request"},
		{"implicit", nil, []oauth2.AuthCodeOption{challenge, oauth2.SetAuthURLParam("response_type", "id_token")}, ""},
		{"unknown client", func(c *oauth2.Config) { c.ClientID = "nobody" }, []oauth2.AuthCodeOption{challenge}, ""},
		{"foreign redirect URI", func(c *oauth2.Config) { c.RedirectURL = console + "/elsewhere" }, []oauth2.AuthCodeOption{challenge}, ""},
	} {
		t.Run(test.name, func(t *testing.T) {
			c := config(p)
			if test.change != nil {
				test.change(c)
			}
			status, body, callback := visit(t, browser(t), c.AuthCodeURL("state", test.options...))
			if test.want == "" && (status != http.StatusBadRequest || callback.String() != "") {
				t.Errorf("authorize = %d %s %s, want 400", status, callback, body)
			}
			if got := callback.Query().Get("error"); got != test.want {
				t.Errorf("error = %q, want %q: %s", got, test.want, callback)
			}
		})
	}
}

func TestCodeIsGoodOnceForItsVerifier(t *testing.T) {
	now := time.Now()
	p := start(t, authtest.Options{Alg: "ES256", Now: func() time.Time { return now }})
	verifier := oauth2.GenerateVerifier()
	code := func() string {
		_, _, callback := visit(t, browser(t), config(p).AuthCodeURL("state", oauth2.S256ChallengeOption(verifier)))
		return callback.Query().Get("code")
	}
	exchange := func(code, verifier string) string {
		_, err := config(p).Exchange(t.Context(), code, oauth2.VerifierOption(verifier))
		if err == nil {
			return ""
		}
		refused, ok := err.(*oauth2.RetrieveError)
		if !ok {
			t.Fatal(err)
		}
		return refused.ErrorCode
	}
	used := code()
	for _, test := range []struct{ name, code, verifier, want string }{
		{"good", used, verifier, ""},
		{"replayed", used, verifier, "invalid_grant"},
		{"stolen", code(), oauth2.GenerateVerifier(), "invalid_grant"},
		{"without verifier", code(), "", "invalid_request"},
		{"made up", "made-up", verifier, "invalid_grant"},
	} {
		if got := exchange(test.code, test.verifier); got != test.want {
			t.Errorf("%s: error = %q, want %q", test.name, got, test.want)
		}
	}
	late := code()
	now = now.Add(time.Minute)
	if got := exchange(late, verifier); got != "invalid_grant" {
		t.Errorf("after a minute: error = %q, want invalid_grant", got)
	}
}

func TestSignInPage(t *testing.T) {
	p := start(t, authtest.Options{Alg: "ES256"})
	p.SignInAs("")
	c := browser(t)
	address := func(options ...oauth2.AuthCodeOption) string {
		return config(p).AuthCodeURL("state", append(options, oauth2.S256ChallengeOption(oauth2.GenerateVerifier()))...)
	}
	// open gets the sign-in page and returns its request's id.
	open := func(options ...oauth2.AuthCodeOption) string {
		status, body, _ := visit(t, c, address(options...))
		_, rest, found := strings.Cut(body, `name="id" value="`)
		if status != http.StatusOK || !found || strings.Count(body, `name="person"`) != 4 {
			t.Fatalf("page = %d %s", status, body)
		}
		id, _, _ := strings.Cut(rest, `"`)
		return id
	}
	press := func(id, name, value string) (int, string, *url.URL) {
		response, err := c.PostForm(p.URL()+"/if/flow/sign-in/", url.Values{"id": {id}, name: {value}})
		if err != nil {
			t.Fatal(err)
		}
		return ended(t, response)
	}
	silent := func() bool {
		_, _, callback := visit(t, c, address(oauth2.SetAuthURLParam("prompt", "none")))
		if got := callback.Query(); got.Get("code") == "" && got.Get("error") != "login_required" {
			t.Fatalf("callback = %s", callback)
		}
		return callback.Query().Get("code") != ""
	}

	if silent() {
		t.Error("silent without a session")
	}
	if _, _, callback := press(open(), "cancel", "1"); callback.Query().Get("error") != "access_denied" {
		t.Errorf("cancelled: callback = %s", callback)
	}
	if status, body, _ := press(open(), "person", "nobody"); status != http.StatusBadRequest {
		t.Errorf("nobody = %d %s", status, body)
	}
	if status, body, _ := press("made-up", "person", authtest.OpsSub); status != http.StatusNotFound {
		t.Errorf("made-up request = %d %s", status, body)
	}
	if _, _, callback := press(open(), "person", authtest.ViewerSub); callback.Query().Get("code") == "" {
		t.Errorf("chosen: callback = %s", callback)
	}
	if !silent() {
		t.Error("not silent with a session")
	}
	want(t, "token", part(t, signIn(t, p, c).AccessToken, 1), map[string]string{"sub": `"` + authtest.ViewerSub + `"`})
	open(oauth2.SetAuthURLParam("prompt", "login")) // asks again

	p.EndSessions(authtest.ViewerSub)
	if silent() {
		t.Error("silent after the session's end")
	}
	p.SignInAs(authtest.StrangerSub)
	p.Deactivate(authtest.StrangerSub)
	if status, _, callback := visit(t, c, address()); status != http.StatusForbidden {
		t.Errorf("deactivated = %d %s", status, callback)
	}
}

func TestUserinfoIsLive(t *testing.T) {
	now := time.Now()
	for _, test := range []struct {
		name   string
		change func(*authtest.Provider)
		want   int
	}{
		{"nothing", func(*authtest.Provider) {}, http.StatusOK},
		{"a rotated key", (*authtest.Provider).RotateKey, http.StatusOK},
		{"a group removed", func(p *authtest.Provider) { p.SetGroups(authtest.OpsSub) }, http.StatusOK},
		{"deactivated", func(p *authtest.Provider) { p.Deactivate(authtest.OpsSub) }, http.StatusUnauthorized},
		{"session ended", func(p *authtest.Provider) { p.EndSessions(authtest.OpsSub) }, http.StatusUnauthorized},
		{"somebody else's session ended", func(p *authtest.Provider) { p.EndSessions(authtest.ViewerSub) }, http.StatusOK},
		{"expired", func(p *authtest.Provider) { p.SetOffset(5 * time.Minute) }, http.StatusUnauthorized},
		{"not yet expired", func(p *authtest.Provider) { p.SetOffset(5*time.Minute - time.Second) }, http.StatusOK},
	} {
		t.Run(test.name, func(t *testing.T) {
			p := start(t, authtest.Options{Alg: "ES256", Now: func() time.Time { return now }})
			token := signIn(t, p, browser(t)).AccessToken
			test.change(p)
			status, claims := userinfo(t, p, token)
			if status != test.want {
				t.Fatalf("userinfo = %d, want %d", status, test.want)
			}
			if groups := str(t, claims["groups"]); test.name == "a group removed" && groups != "[]" {
				t.Errorf("groups = %s, want []", groups)
			}
		})
	}
	p := start(t, authtest.Options{Alg: "ES256"})
	if status, _ := userinfo(t, p, p.Token(p.Claims(authtest.ConsoleID, authtest.OpsSub))); status != http.StatusUnauthorized {
		t.Errorf("userinfo of an unknown token = %d, want 401", status)
	}
	if status, _ := userinfo(t, p, p.AccessToken(authtest.ConsoleID, authtest.OpsSub)); status != http.StatusOK {
		t.Errorf("userinfo of AccessToken = %d, want 200", status)
	}
}

func TestSubjects(t *testing.T) {
	p := start(t, authtest.Options{Alg: "ES256"})
	seen := map[any]bool{}
	for subject, want := range map[authtest.Subject]string{
		authtest.SubAsIs: authtest.OpsSub, authtest.SubHashed: "", authtest.SubEmail: "ops@dezky.example",
		authtest.SubUsername: "ops", authtest.SubUPN: "ops@corp.dezky.example",
	} {
		p.SetSubject(subject)
		token := signIn(t, p, browser(t))
		_, claims := userinfo(t, p, token.AccessToken)
		sub := claims["sub"]
		if want != "" && sub != want || sub != part(t, token.AccessToken, 1)["sub"] || seen[sub] {
			t.Errorf("sub = %v, want %q", sub, want)
		}
		seen[sub] = true
	}
}

func TestFaults(t *testing.T) {
	p := start(t, authtest.Options{Alg: "ES256"})
	token := p.AccessToken(authtest.ConsoleID, authtest.OpsSub)
	for endpoint, address := range map[authtest.Endpoint]string{
		authtest.Discovery: p.Issuer() + ".well-known/openid-configuration",
		authtest.Keys:      p.Issuer() + "jwks/",
		authtest.Userinfo:  p.URL() + "/application/o/userinfo/?access_token=" + token,
	} {
		before := p.Fetches(endpoint)
		p.Break(endpoint, authtest.Away)
		http.DefaultClient.CloseIdleConnections() // or the request is sent again, on a new connection
		if _, err := http.Get(address); err == nil {
			t.Errorf("%s: an answer, though away", address)
		}
		p.Break(endpoint, authtest.Failing)
		if status, _, _ := visit(t, http.DefaultClient, address); status != http.StatusInternalServerError {
			t.Errorf("%s = %d, want 500", address, status)
		}
		p.Break(endpoint, authtest.Rubbish)
		if _, body, _ := visit(t, http.DefaultClient, address); json.Valid([]byte(body)) {
			t.Errorf("%s = %s, want rubbish", address, body)
		}
		p.Break(endpoint, authtest.Huge)
		if _, body, _ := visit(t, http.DefaultClient, address); len(body) < 2<<20 || !json.Valid([]byte(body)) {
			t.Errorf("%s: %d bytes, want 2 MiB of JSON", address, len(body))
		}
		p.Break(endpoint, authtest.None)
		if status, body, _ := visit(t, http.DefaultClient, address); status != http.StatusOK || !json.Valid([]byte(body)) {
			t.Errorf("%s = %d %s", address, status, body)
		}

		stall := p.Stall(endpoint)
		ctx, cancel := context.WithCancel(t.Context())
		r, err := http.NewRequestWithContext(ctx, http.MethodGet, address, nil)
		if err != nil {
			t.Fatal(err)
		}
		failed := make(chan error, 1)
		go func() {
			response, err := http.DefaultClient.Do(r)
			if err == nil {
				response.Body.Close()
			}
			failed <- err
		}()
		<-stall.Arrived
		cancel()
		if err := <-failed; err == nil {
			t.Errorf("%s: an answer, though stalled", address)
		}
		stall.Release()
		if status, _, _ := visit(t, http.DefaultClient, address); status != http.StatusOK {
			t.Errorf("%s after the stall = %d", address, status)
		}
		if got := p.Fetches(endpoint) - before; got != 7 {
			t.Errorf("%s: %d fetches, want 7", address, got)
		}
	}
}

func TestStopRestartRotate(t *testing.T) {
	p := start(t, authtest.Options{Alg: "ES256"})
	keys, kid, token := jwks(t, p), p.KeyID(), p.AccessToken(authtest.ConsoleID, authtest.OpsSub)
	p.Stop()
	if _, err := http.Get(p.Issuer()); err == nil {
		t.Error("an answer, though stopped")
	}
	if err := p.Restart(); err != nil {
		t.Fatal(err)
	}
	if got := jwks(t, p); got != keys {
		t.Errorf("keys = %s, want %s", got, keys)
	}
	if status, _ := userinfo(t, p, token); status != http.StatusOK {
		t.Errorf("userinfo = %d, want 200", status)
	}
	p.RotateKey()
	if list := decode(t, jwks(t, p))["keys"].([]any); len(list) != 1 || list[0].(map[string]any)["kid"] != p.KeyID() || p.KeyID() == kid {
		t.Errorf("keys = %v", list)
	}
}

func TestToken(t *testing.T) {
	p := start(t, authtest.Options{})
	claims := p.Claims(authtest.PortalID, authtest.AcmeSub)
	want(t, "claims", claims, map[string]string{"aud": `"dezky-portal"`, "groups": `["tenant:acme"]`})
	other, err := authtest.NewKey("ES384")
	if err != nil {
		t.Fatal(err)
	}
	for _, test := range []struct {
		name    string
		options []authtest.TokenOption
		header  map[string]string
		signed  int // bytes of the signature
	}{
		{"good", nil, map[string]string{"alg": `"RS256"`, "typ": `"JWT"`, "kid": `"` + p.KeyID() + `"`}, 256},
		{"none", []authtest.TokenOption{authtest.SignedWith(nil), authtest.Header("alg", "nOnE")}, map[string]string{"alg": `"nOnE"`}, 0},
		{"another key", []authtest.TokenOption{authtest.SignedWith(other)}, map[string]string{"alg": `"ES384"`, "kid": `"` + p.KeyID() + `"`}, 96},
		{"HS256", []authtest.TokenOption{authtest.SignedWith([]byte("secret")), authtest.Header("kid", nil)}, map[string]string{"alg": `"HS256"`, "kid": "null"}, 32},
		{"crit", []authtest.TokenOption{authtest.Header("crit", []string{"x"})}, map[string]string{"crit": `["x"]`}, 256},
	} {
		token := p.Token(claims, test.options...)
		want(t, test.name, part(t, token, 0), test.header)
		want(t, test.name, part(t, token, 1), map[string]string{"sub": `"` + authtest.AcmeSub + `"`})
		signature, err := base64.RawURLEncoding.DecodeString(strings.Split(token, ".")[2])
		if err != nil || len(signature) != test.signed {
			t.Errorf("%s: signature of %d bytes, want %d", test.name, len(signature), test.signed)
		}
	}
	provider, err := oidc.NewProvider(t.Context(), p.Issuer())
	if err != nil {
		t.Fatal(err)
	}
	verifier := provider.Verifier(&oidc.Config{ClientID: authtest.PortalID})
	if _, err := verifier.Verify(t.Context(), p.Token(claims)); err != nil {
		t.Error(err)
	}
	if _, err := verifier.Verify(t.Context(), p.Token(claims, authtest.SignedWith(other), authtest.Header("alg", "RS256"))); err == nil {
		t.Error("another key's token verifies")
	}
}

func TestSignOut(t *testing.T) {
	received := make(chan string, 1)
	client := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { received <- r.PostFormValue("logout_token") })}
	listener := listen(t)
	go client.Serve(listener)
	t.Cleanup(func() { client.Close() })

	p := start(t, authtest.Options{Alg: "ES256"})
	settings := authtest.Console(console)
	settings.BackChannelLogoutURI = "http://" + listener.Addr().String() + "/logout/backchannel"
	p.PutClient(settings)
	c := browser(t)
	endSession := func(values url.Values) (int, *url.URL) {
		status, _, location := visit(t, c, p.Issuer()+"end-session/?"+values.Encode())
		return status, location
	}
	token := signIn(t, p, c)
	hint := token.Extra("id_token").(string)
	good := url.Values{"id_token_hint": {hint}, "post_logout_redirect_uri": {console + "/login"}, "state": {"s"}}

	for _, test := range []struct{ name, field, value string }{
		{"no hint", "id_token_hint", ""},
		{"another's hint", "id_token_hint", authtest.New(t, authtest.Options{Alg: "ES256"}).IDToken(authtest.ConsoleID, authtest.OpsSub)},
		{"foreign address", "post_logout_redirect_uri", "http://elsewhere.example/"},
	} {
		values := url.Values{}
		for name := range good {
			values.Set(name, good.Get(name))
		}
		values.Set(test.field, test.value)
		if status, location := endSession(values); status != http.StatusBadRequest {
			t.Errorf("%s = %d %s, want 400", test.name, status, location)
		}
	}
	if status, location := endSession(good); status != http.StatusFound || location.String() != console+"/login?state=s" {
		t.Errorf("end_session = %d %s", status, location)
	}
	claims := part(t, <-received, 1)
	want(t, "logout token", claims, map[string]string{"iss": `"` + p.Issuer() + `"`, "aud": `"dezky-console"`, "sub": `"` + authtest.OpsSub + `"`,
		"sid": str(t, part(t, hint, 1)["sid"]), "events": `{"http://schemas.openid.net/event/backchannel-logout":{}}`, "nonce": "null"})
	if status, _ := userinfo(t, p, token.AccessToken); status != http.StatusUnauthorized {
		t.Errorf("userinfo = %d, want 401", status)
	}
	p.SignInAs("")
	if _, _, callback := visit(t, c, config(p).AuthCodeURL("state", oauth2.S256ChallengeOption(oauth2.GenerateVerifier()), oauth2.SetAuthURLParam("prompt", "none"))); callback.Query().Get("error") != "login_required" {
		t.Errorf("after sign-out: callback = %s", callback)
	}

	status, err := p.BackChannelLogout(t.Context(), settings.BackChannelLogoutURI, p.LogoutToken(authtest.OpsSub, "sid"))
	if err != nil || status != http.StatusOK {
		t.Fatal(status, err)
	}
	want(t, "LogoutToken", part(t, <-received, 1), map[string]string{"sub": `"` + authtest.OpsSub + `"`, "sid": `"sid"`})
}

func listen(t *testing.T) net.Listener {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	return listener
}
