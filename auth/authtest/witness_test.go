package authtest_test

import (
	"net/http"
	"net/url"
	"strings"
	"testing"

	"github.com/coreos/go-oidc/v3/oidc"
	"golang.org/x/oauth2"

	"github.com/dezky/platform-api/auth/authtest"
)

func TestWitness(t *testing.T) {
	issuer := authtest.Witness(t, console+"/login/callback")
	provider, err := oidc.NewProvider(t.Context(), issuer)
	if err != nil {
		t.Fatal(err)
	}
	endpoint := provider.Endpoint()
	endpoint.AuthStyle = oauth2.AuthStyleInHeader
	client := oauth2.Config{ClientID: authtest.ConsoleID, ClientSecret: authtest.Secret(authtest.ConsoleID),
		RedirectURL: console + "/login/callback", Scopes: []string{"openid", "profile", "email"}, Endpoint: endpoint}

	for _, test := range []struct{ name, hint, groups string }{
		{"by default", "", `["dezky-operators"]`},
		{"by login_hint", "viewer", `["dezky-viewers"]`},
	} {
		t.Run(test.name, func(t *testing.T) {
			verifier := oauth2.GenerateVerifier()
			options := []oauth2.AuthCodeOption{oauth2.S256ChallengeOption(verifier), oidc.Nonce("nonce")}
			if test.hint != "" {
				options = append(options, oauth2.SetAuthURLParam("login_hint", test.hint))
			}
			status, body, callback := visit(t, browser(t), client.AuthCodeURL("state", options...))
			code := callback.Query().Get("code")
			if code == "" || callback.Query().Get("state") != "state" || callback.Query().Get("iss") != issuer {
				t.Fatalf("callback = %d %s %s", status, callback, body)
			}
			token, err := client.Exchange(t.Context(), code, oauth2.VerifierOption(verifier))
			if err != nil {
				t.Fatal(err)
			}
			id, err := provider.Verifier(&oidc.Config{ClientID: authtest.ConsoleID}).Verify(t.Context(), token.Extra("id_token").(string))
			if err != nil {
				t.Fatal(err)
			}
			if err := id.VerifyAccessToken(token.AccessToken); err != nil || id.Nonce != "nonce" {
				t.Errorf("id token = %+v, %v", id, err)
			}
			info, err := provider.UserInfo(t.Context(), oauth2.StaticTokenSource(token))
			if err != nil {
				t.Fatal(err)
			}
			for what, source := range map[string]interface{ Claims(any) error }{"id token": id, "userinfo": info} {
				var claims map[string]any
				if err := source.Claims(&claims); err != nil {
					t.Fatal(err)
				}
				want(t, what, claims, map[string]string{"groups": test.groups, "email_verified": "false"})
			}
		})
	}

	t.Run("JWT access token", func(t *testing.T) {
		response, err := http.PostForm(endpoint.TokenURL, url.Values{"grant_type": {"client_credentials"}, "resource": {authtest.WitnessResource}})
		if err != nil {
			t.Fatal(err)
		}
		if status, body, _ := ended(t, response); status == http.StatusOK {
			t.Errorf("without a client: %d %s", status, body)
		}
		r, err := http.NewRequest(http.MethodPost, endpoint.TokenURL, strings.NewReader(url.Values{
			"grant_type": {"client_credentials"}, "resource": {authtest.WitnessResource}}.Encode()))
		if err != nil {
			t.Fatal(err)
		}
		r.Header.Set("Content-Type", "application/x-www-form-urlencoded")
		r.SetBasicAuth(authtest.ServiceID, authtest.Secret(authtest.ServiceID))
		if response, err = http.DefaultClient.Do(r); err != nil {
			t.Fatal(err)
		}
		_, body, _ := ended(t, response)
		token, _ := decode(t, body)["access_token"].(string)
		want(t, "header", part(t, token, 0), map[string]string{"typ": `"at+jwt"`, "alg": `"RS256"`})
		want(t, "claims", part(t, token, 1), map[string]string{"iss": `"` + issuer + `"`, "aud": `"` + authtest.WitnessResource + `"`, "client_id": `"dezky-service"`})
	})
}
