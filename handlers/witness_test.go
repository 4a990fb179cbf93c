package handlers

import (
	"encoding/json"
	"io"
	"net/http"
	"net/http/cookiejar"
	"net/url"
	"strings"
	"testing"

	"github.com/dezky/platform-api/auth"
	"github.com/dezky/platform-api/auth/authtest"
	"github.com/dezky/platform-api/db"
)

// What works with the provider that we made must work with one that others made, too: sign-in, a change
// with its entry in the history, a service's token, and sign-out.
func TestSignInAtACertifiedProvider(t *testing.T) {
	t.Parallel()
	s := listen(t, readSpec())
	issuer := authtest.Witness(t, s.url+auth.CallbackPath)
	s.trust(t, issuer, t.TempDir(), map[string]auth.Kind{authtest.WitnessResource: auth.KindService})
	jar, err := cookiejar.New(nil)
	if err != nil {
		t.Fatal(err)
	}
	browser := &http.Client{Jar: jar}
	visit := func(method, path, form string) (*http.Response, string) {
		t.Helper()
		r := s.request(t, method+" "+path, form, nobody, "Content-Type: application/x-www-form-urlencoded")
		response, err := browser.Do(r)
		if err != nil {
			t.Fatal(err)
		}
		defer response.Body.Close()
		text, err := io.ReadAll(response.Body)
		if err != nil {
			t.Fatal(err)
		}
		return response, string(text)
	}
	response, body := visit("GET", "/login/start?return_to="+url.QueryEscape("/operator/audit"), "")
	if response.StatusCode != http.StatusOK || response.Request.URL.Path != "/operator/audit" || !strings.Contains(body, "Operator") {
		t.Fatalf("signed in at the provider, one is at %s: %d %.300s\n%s", response.Request.URL, response.StatusCode, body, s.log)
	}
	response, body = visit("POST", "/operator/flags", "key=from_afar")
	if response.StatusCode != http.StatusOK {
		t.Fatalf("a new flag: %d %.300s", response.StatusCode, body)
	}
	entries, err := s.db.History(t.Context(), db.HistoryFilter{Flag: "from_afar", Limit: 1})
	if err != nil || len(entries) != 1 {
		t.Fatalf("the history of the new flag: %s, %v", show(entries), err)
	}
	if got := entries[0]; got.Actor != "ops@dezky.example" || got.Via != "console" || got.Issuer != issuer || got.Subject == "" || got.Client != authtest.ConsoleID {
		t.Errorf("history %s, want ops@dezky.example in the console, through %s at %s", show(got), authtest.ConsoleID, issuer)
	}
	response, _ = visit("POST", "/logout", "")
	if !strings.HasPrefix(response.Request.URL.String(), strings.TrimSuffix(issuer, "/")) || response.Request.URL.Query().Get("id_token_hint") == "" {
		t.Errorf("sign-out leads to %s, want the provider's end of the session, with the id token", response.Request.URL)
	}
	if response, _ = visit("GET", "/operator/flags", ""); response.Request.URL.Path != "/login" {
		t.Errorf("after the sign-out one is at %s, want /login", response.Request.URL)
	}

	// A service, by a token of type at+jwt for a resource of ours.
	var document struct {
		Token string `json:"token_endpoint"`
	}
	var token struct {
		Access string `json:"access_token"`
	}
	fetch := func(r *http.Request, into any) {
		t.Helper()
		response, err := http.DefaultClient.Do(r)
		if err != nil {
			t.Fatal(err)
		}
		defer response.Body.Close()
		if err := json.NewDecoder(response.Body).Decode(into); err != nil || response.StatusCode != http.StatusOK {
			t.Fatalf("%s = %d, %v", r.URL, response.StatusCode, err)
		}
	}
	r, err := http.NewRequestWithContext(t.Context(), "GET", issuer+"/.well-known/openid-configuration", nil)
	if err != nil {
		t.Fatal(err)
	}
	fetch(r, &document)
	form := url.Values{"grant_type": {"client_credentials"}, "resource": {authtest.WitnessResource}}
	if r, err = http.NewRequestWithContext(t.Context(), "POST", document.Token, strings.NewReader(form.Encode())); err != nil {
		t.Fatal(err)
	}
	r.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	r.SetBasicAuth(authtest.ServiceID, authtest.Secret(authtest.ServiceID))
	fetch(r, &token)
	s.want(t, http.StatusOK, "GET /flags/from_afar", "", "Authorization: Bearer "+token.Access)
	s.want(t, http.StatusForbidden, "PATCH /flags/from_afar", `{"pct":1}`, "Authorization: Bearer "+token.Access)
}
