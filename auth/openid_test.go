package auth

import (
	"slices"
	"strings"
	"testing"

	"github.com/dezky/platform-api/auth/authtest"
	"github.com/dezky/platform-api/db/dbtest"
)

func TestParseAudiences(t *testing.T) {
	const issuer = "https://id.example.com/application/o/portal/"
	for _, tt := range []struct {
		text     string
		want     []Audience
		mistakes []string
	}{
		{"", nil, nil},
		{"portal=" + issuer + "#dezky-portal", []Audience{{KindPortal, issuer, "dezky-portal"}}, nil},
		{" service=" + issuer + "#a\n\toperator=http://127.0.0.1:9000/#b ", []Audience{{KindService, issuer, "a"}, {KindOperator, "http://127.0.0.1:9000/", "b"}}, nil},
		{"service=" + issuer + "#a=b", []Audience{{KindService, issuer, "a=b"}}, nil},
		{"portal", nil, []string{`"portal" is not of the form kind=issuer#audience`}},
		{"portal=" + issuer, nil, []string{`"portal=` + issuer + `" is not of the form kind=issuer#audience`}},
		{"portal=" + issuer + "#", nil, []string{`"portal=` + issuer + `#" is not of the form kind=issuer#audience`}},
		{"customer=" + issuer + "#a", nil, []string{`"customer=` + issuer + `#a": the kind is one of operator, service, portal`}},
		{"portal=http://id.example.com/#a", nil, []string{`"portal=http://id.example.com/#a": the issuer "http://id.example.com/" is not an https address such as https://id.example.com/application/o/SLUG/ (http only on loopback)`}},
		{"service=" + issuer + "#a portal=" + issuer + "#a", []Audience{{KindService, issuer, "a"}}, []string{`"portal=` + issuer + `#a": the issuer and audience are given twice`}},
		{"x y", nil, []string{`"x" is not of the form kind=issuer#audience`, `"y" is not of the form kind=issuer#audience`}},
	} {
		got, mistakes := ParseAudiences(tt.text)
		if !slices.Equal(got, tt.want) || !slices.Equal(mistakes, tt.mistakes) {
			t.Errorf("ParseAudiences(%q) = %v, %q, want %v, %q", tt.text, got, mistakes, tt.want, tt.mistakes)
		}
	}
}

func TestCheckIssuer(t *testing.T) {
	for address, ok := range map[string]bool{
		"https://id.example.com/application/o/x/": true,
		"https://id.example.com":                  true,
		"http://localhost:9000/":                  true,
		"http://127.0.0.1:9000/":                  true,
		"http://[::1]:9000/":                      true,
		"":                                        false,
		"id.example.com":                          false,
		"https://":                                false,
		"https:///application":                    false,
		"http://id.example.com/":                  false,
		"http://localhost.example.com/":           false,
		"http://10.0.0.1/":                        false,
		"https://a:b@id.example.com/":             false,
		"https://id.example.com/?x":               false,
		"https://id.example.com/#x":               false,
		"ftp://id.example.com/":                   false,
		"https://id.example.com/\x7f":             false,
	} {
		if got := CheckIssuer(address); (got == "") != ok {
			t.Errorf("CheckIssuer(%q) = %q, want it to be fine: %t", address, got, ok)
		}
	}
}

// Without a provider there is none to ask, and no token of one is taken.
func TestNoProvider(t *testing.T) {
	var none *OpenID
	if got := none.State(); got != "off" || none.Providers() != nil {
		t.Errorf("of none: State = %q and Providers = %v, want off and nothing", got, none.Providers())
	}
	o, err := NewOpenID(t.Context(), OpenIDOptions{DB: dbtest.Open(t)})
	if err != nil {
		t.Fatal(err)
	}
	if o.State() != "off" || o.JWTs != nil || o.SignIn != nil {
		t.Errorf("without options: %+v and State %q, want nothing and off", o, o.State())
	}
	o.Run(t.Context()) // ends
}

// One provider is asked once, however many of its audiences are trusted; of several, the worst tells.
func TestStateOfSeveralProviders(t *testing.T) {
	a, b := provider(t), provider(t)
	x := trusts(t, a, dbtest.Open(t), append(audiences(a.Issuer()), audiences(b.Issuer())...)...)
	if got := len(x.issuers); got != 2 {
		t.Fatalf("%d providers, want 2", got)
	}
	ask := func(want string) {
		t.Helper()
		for _, i := range x.issuers {
			i.fetch(t.Context())
		}
		if got := x.State(); got != want {
			t.Errorf("State = %q, want %q", got, want)
		}
	}
	if got := x.State(); got != "away" {
		t.Errorf("before anyone was asked: State = %q, want away", got)
	}
	ask("ok")
	b.Break(authtest.Keys, authtest.Failing)
	ask("away")
	since := x.issuers[1].trouble.Load().Since
	a.Set(authtest.NoSigningKey, true)
	ask("misconfigured")
	if got := x.issuers[1].trouble.Load(); !got.Since.Equal(since) {
		t.Errorf("in trouble since %v, want %v still", got.Since, since)
	}
	if got := strings.Count(x.log.String(), "can't be used"); got != 2 {
		t.Errorf("the log says %d times that a provider can't be used, want once of each", got)
	}
	a.Set(authtest.NoSigningKey, false)
	b.Break(authtest.Keys, authtest.None)
	ask("ok")
}
