package handlers

import (
	"crypto"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"maps"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/go-jose/go-jose/v4"

	"github.com/dezky/platform-api/auth"
	"github.com/dezky/platform-api/auth/authtest"
	"github.com/dezky/platform-api/db"
	"github.com/dezky/platform-api/flags"
)

const (
	acmeQuestion = `{"tenantSlug":"acme"}`
	invalidToken = `Bearer error="invalid_token"`
)

// bearer is the header line that shows a token.
func bearer(token string) string { return "Authorization: Bearer " + token }

// from is the header line by which the proxy before a server names its client.
func from(n int) string { return fmt.Sprintf("X-Forwarded-For: 198.51.100.%d", n) }

// logged is the line of the log that tells of an answer's request.
func (s *running) logged(t testing.TB, a *answer) map[string]any {
	t.Helper()
	id := a.header.Get("X-Request-Id")
	for line := range strings.Lines(s.log.String()) {
		var entry map[string]any
		if json.Unmarshal([]byte(line), &entry) == nil && entry["msg"] == "request" && entry["id"] == id {
			return entry
		}
	}
	t.Fatalf("no line of the log tells of %s", id)
	return nil
}

// serviceClaims are those of a good access token of the service.
func serviceClaims(p *authtest.Provider) map[string]any {
	return p.Claims(authtest.ServiceID, authtest.ServiceSub(authtest.ServiceID))
}

func serviceToken(p *authtest.Provider) string {
	return p.AccessToken(authtest.ServiceID, authtest.ServiceSub(authtest.ServiceID))
}

func newKey(t testing.TB, alg string) crypto.Signer {
	t.Helper()
	key, err := authtest.NewKey(alg)
	if err != nil {
		t.Fatal(err)
	}
	return key
}

// Every token that is not to be taken: the status, the header and the body are one for all of them, and
// the log says why.
func TestBearerRefused(t *testing.T) {
	p := authtest.New(t, authtest.Options{})
	other := authtest.New(t, authtest.Options{Slug: "other", Alg: "ES256",
		Clients: []authtest.Client{{ID: "other-service", Secret: "x", Groups: []string{"dezky-operators"}}}})
	s := trusting(t, p, auth.Audience{Kind: auth.KindService, Issuer: other.Issuer(), Name: "other-service"})
	s.opts.Proxies = 1 // so that no case waits for the failures of another

	good, otherGood := serviceToken(p), other.AccessToken("other-service", authtest.ServiceSub("other-service"))
	accepted := func(t *testing.T) {
		t.Helper()
		s.want(t, 200, "POST /flags/evaluate", acmeQuestion, bearer(good))
		s.want(t, 200, "POST /flags/evaluate", acmeQuestion, bearer(otherGood))
		s.want(t, 200, "POST /flags/evaluate", acmeQuestion, bearer(p.Token(serviceClaims(p))))
		s.want(t, 200, "POST /flags/evaluate", acmeQuestion, bearer(other.Token(other.Claims("other-service", authtest.ServiceSub("other-service")))))
	}
	accepted(t)

	// with is a good token but for its claims, which change gets, and its header or signature.
	with := func(change func(c map[string]any), opts ...authtest.TokenOption) []string {
		claims := serviceClaims(p)
		if change != nil {
			change(claims)
		}
		return []string{bearer(p.Token(claims, opts...))}
	}
	set := func(name string, value any) []string { return with(func(c map[string]any) { c[name] = value }) }
	without := func(name string) []string { return with(func(c map[string]any) { delete(c, name) }) }
	signature := func(change func(parts []string)) []string {
		parts := strings.Split(good, ".")
		change(parts)
		return []string{bearer(strings.Join(parts, "."))}
	}
	der, err := x509.MarshalPKIXPublicKey(p.Key().Public())
	if err != nil {
		t.Fatal(err)
	}
	public := pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: der})
	mine, curve := newKey(t, "RS256"), newKey(t, "ES256")
	jwk := func(key crypto.Signer) jose.JSONWebKey {
		return jose.JSONWebKey{Key: key.Public(), KeyID: p.KeyID(), Algorithm: "RS256", Use: "sig"}
	}
	now := time.Now()
	id, logout := p.IDToken(authtest.ConsoleID, authtest.OpsSub), p.LogoutToken(authtest.OpsSub, "")
	p.Set(authtest.EncryptedTokens, true)
	encrypted := serviceToken(p)
	p.Set(authtest.EncryptedTokens, false)

	tests := []struct {
		name    string
		headers []string
		cause   string // part of it
	}{
		{"alg none", with(nil, authtest.SignedWith(nil)), `its algorithm is "none"`},
		{"alg nOnE", with(nil, authtest.SignedWith(nil), authtest.Header("alg", "nOnE")), `its algorithm is "nOnE"`},
		{"alg none with a good signature", with(nil, authtest.Header("alg", "none")), `its algorithm is "none"`},
		{"alg missing", with(nil, authtest.Header("alg", nil)), `its algorithm is ""`},
		{"HS256 with the RSA public key, PEM", with(nil, authtest.SignedWith(public)), "signed with HS256"},
		{"HS256 with the RSA public key, DER", with(nil, authtest.SignedWith(der)), "signed with HS256"},
		{"HS256 with the RSA public key, called RS256", with(nil, authtest.SignedWith(public), authtest.Header("alg", "RS256")), "signature"},
		{"HS256 with the client secret", with(nil, authtest.SignedWith([]byte(authtest.Secret(authtest.ServiceID)))), "choose a Signing Key"},
		{"PS256 named over RS256", with(nil, authtest.Header("alg", "PS256")), `its algorithm is "PS256"`},
		{"RS512 named over RS256", with(nil, authtest.Header("alg", "RS512")), `its algorithm is "RS512"`},

		{"flipped signature", signature(func(parts []string) {
			b, err := base64.RawURLEncoding.DecodeString(parts[2])
			if err != nil {
				t.Fatal(err)
			}
			b[len(b)/2] ^= 1
			parts[2] = base64.RawURLEncoding.EncodeToString(b)
		}), "signature"},
		{"empty signature", signature(func(parts []string) { parts[2] = "" }), "signature"},
		{"swapped signature", signature(func(parts []string) { parts[2] = strings.Split(serviceToken(p), ".")[2] }), "signature"},
		{"swapped claims", signature(func(parts []string) {
			parts[1] = strings.Split(p.AccessToken(authtest.ServiceID, authtest.OpsSub), ".")[1]
		}), "signature"},
		{"another key under our kid", with(nil, authtest.SignedWith(mine)), "signature"},
		{"unknown kid", with(nil, authtest.SignedWith(mine), authtest.Header("kid", "theirs")), `no key of the issuer: "theirs"`},
		{"kid of another trusted issuer", with(nil, authtest.Header("kid", other.KeyID())), "no key of the issuer"},
		{"EC key under an RSA kid", with(nil, authtest.SignedWith(curve)), "its algorithm ES256 is not that of the key"},
		{"RSA key under an EC kid", []string{bearer(other.Token(other.Claims("other-service", authtest.ServiceSub("other-service")), authtest.SignedWith(mine)))},
			"its algorithm RS256 is not that of the key"},
		{"EC key of another curve under an EC kid", []string{bearer(other.Token(other.Claims("other-service", authtest.ServiceSub("other-service")), authtest.SignedWith(newKey(t, "ES384"))))},
			"its algorithm ES384 is not that of the key"},
		{"embedded jwk", with(nil, authtest.SignedWith(mine), authtest.Header("jwk", jwk(mine))), "brings a key of its own"},
		{"embedded jwk without a kid", with(nil, authtest.SignedWith(mine), authtest.Header("jwk", jwk(mine)), authtest.Header("kid", nil)), "names no key"},
		{"embedded jwk over our key", with(nil, authtest.Header("jwk", jwk(p.Key()))), "brings a key of its own"},
		{"jku", with(nil, authtest.SignedWith(mine), authtest.Header("jku", other.URL()+"/application/o/other/jwks/")), "brings a key of its own"},
		{"jku over our key", with(nil, authtest.Header("jku", p.Issuer()+"jwks/")), "brings a key of its own"},
		{"x5u over our key", with(nil, authtest.Header("x5u", p.URL()+"/cert.pem")), "brings a key of its own"},
		{"x5c over our key", with(nil, authtest.Header("x5c", []string{base64.StdEncoding.EncodeToString(der)})), "brings a key of its own"},
		{"unknown crit", with(nil, authtest.Header("crit", []string{"exp-policy"}), authtest.Header("exp-policy", "soft")), "critical"},
		{"crit b64", with(nil, authtest.Header("crit", []string{"b64"}), authtest.Header("b64", true)), "critical"},
		{"no kid", with(nil, authtest.Header("kid", nil)), "names no key"},
		{"typ of something else", with(nil, authtest.Header("typ", "logout+jwt")), `its type is "logout+jwt"`},

		{"aud wrong", set("aud", "somebody-else"), "not trusted together"},
		{"aud of several, all wrong", set("aud", []string{"somebody-else", "dezky-service/"}), "not trusted together"},
		{"aud missing", without("aud"), "not trusted together"},
		{"aud empty", set("aud", ""), "not trusted together"},
		{"aud of another trusted issuer", set("aud", "other-service"), "not trusted together"},
		{"iss wrong", set("iss", "https://id.example.com/application/o/dezky-operator/"), "not trusted together"},
		{"iss missing", without("iss"), "not trusted together"},
		{"iss without its slash", set("iss", strings.TrimSuffix(p.Issuer(), "/")), "not trusted together"},
		{"iss the host alone", set("iss", p.URL()+"/"), "not trusted together"},
		{"iss and aud of another trusted issuer", with(func(c map[string]any) { c["iss"], c["aud"] = other.Issuer(), "other-service" }), "no key of the issuer"},

		{"expired", set("exp", now.Add(-time.Minute).Unix()), "expired at"},
		{"exp missing", without("exp"), "no exp"},
		{"exp null", set("exp", nil), "no exp"},
		{"exp a string", set("exp", fmt.Sprint(now.Add(time.Minute).Unix())), "can't be read"},
		{"nbf in ten minutes", set("nbf", now.Add(10*time.Minute).Unix()), "not before"},
		{"nbf in two minutes", set("nbf", now.Add(2*time.Minute).Unix()), "not valid yet"},
		{"iat in ten minutes", set("iat", now.Add(10*time.Minute).Unix()), "issued in the future"},
		{"no sub", without("sub"), "no sub"},
		{"empty sub", set("sub", ""), "no sub"},
		{"id token", []string{bearer(id)}, "an id token"},
		{"logout token", []string{bearer(logout)}, "a logout token"},
		{"logout token with a scope", set("events", map[string]any{"http://schemas.openid.net/event/backchannel-logout": map[string]any{}}), "a logout token"},
		{"JWE", []string{bearer(encrypted)}, "leave Encryption Key empty"},
		{"17 KB", set("padding", strings.Repeat("x", 17<<10*3/4)), "longer than 16384 bytes"},
		{"not a JWT", []string{bearer("opaque")}, "not a JWT"},
		{"a JWT in pieces", []string{bearer("a.b.c")}, "header can't be read"},

		{"two Authorization headers", []string{bearer(good), bearer(otherGood)}, "ambiguous"},
		{"two Authorization headers of one token", []string{bearer(good), bearer(good)}, "ambiguous"},
		{"two tokens in one header", []string{bearer(good) + ", Bearer " + good}, "invalid token"},
		{"Authorization with X-API-Key", []string{bearer(good), "X-API-Key: " + s.tokens["operator"]}, "ambiguous"},
		{"JWT in X-API-Key", []string{"X-API-Key: " + good}, "invalid token"},
		{"JWT as Basic", []string{"Authorization: Basic " + good}, "unknown credentials"},
	}
	body := ""
	for n, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			for _, path := range []string{"/flags/evaluate", "/api/flags/evaluate"} {
				a := s.want(t, 401, "POST "+path, acmeQuestion, append(tt.headers, from(n))...)
				if got := a.header.Get("WWW-Authenticate"); got != invalidToken {
					t.Errorf("WWW-Authenticate = %q, want %q", got, invalidToken)
				}
				if body == "" {
					body = a.body
				}
				if a.body != body {
					t.Errorf("the body is %s, want %s as for every other cause", a.body, body)
				}
				if cause, _ := s.logged(t, a)["cause"].(string); !strings.Contains(cause, tt.cause) {
					t.Errorf("the log gives the cause %q, want one with %q", cause, tt.cause)
				}
			}
		})
	}
	accepted(t)
}

// A token in the query is no credential: addresses end up in logs.
func TestBearerInTheQuery(t *testing.T) {
	p := authtest.New(t, authtest.Options{})
	s := trusting(t, p)
	good := serviceToken(p)
	for _, name := range []string{"access_token", "token", "api_key"} {
		a := s.want(t, 401, "POST /flags/evaluate?"+name+"="+good, acmeQuestion, nobody)
		if got := a.header.Get("WWW-Authenticate"); got != "Bearer" {
			t.Errorf("%s: WWW-Authenticate = %q, want Bearer alone: no credential was given", name, got)
		}
	}
	s.want(t, 200, "POST /flags/evaluate", acmeQuestion, bearer(good))
	if strings.Contains(s.log.String(), good) {
		t.Error("the log has the token")
	}
}

// What is long but not too long, and what differs without meaning anything, is accepted.
func TestBearerAccepted(t *testing.T) {
	p := authtest.New(t, authtest.Options{})
	s := trusting(t, p)
	now := time.Now()
	with := func(name string, value any, opts ...authtest.TokenOption) string {
		claims := serviceClaims(p)
		claims[name] = value
		if value == nil {
			delete(claims, name)
		}
		return p.Token(claims, opts...)
	}
	for name, token := range map[string]string{
		"typ at+jwt, and neither scope nor uid": p.Token(func() map[string]any {
			c := serviceClaims(p)
			delete(c, "scope")
			delete(c, "uid")
			return c
		}(), authtest.Header("typ", "at+jwt")),
		"typ application/at+jwt":           with("x", 1, authtest.Header("typ", "application/AT+JWT")),
		"no typ":                           with("x", 1, authtest.Header("typ", nil)),
		"no scope, but azp and uid":        with("scope", nil),
		"no uid, but scope":                with("uid", nil),
		"several audiences":                with("aud", []string{"somebody-else", authtest.ServiceID}),
		"15 KB":                            with("padding", strings.Repeat("x", 11<<10)),
		"exp 20 s ago, within the leeway":  with("exp", now.Add(-20*time.Second).Unix()),
		"exp with a fraction":              with("exp", float64(now.Add(time.Minute).UnixMilli())/1000),
		"iat in 50 s, within the leeway":   with("iat", now.Add(50*time.Second).Unix()),
		"no iat":                           with("iat", nil),
		"nbf in 50 s, within the leeway":   with("nbf", now.Add(50*time.Second).Unix()),
		"email not verified, as Authentik": with("email_verified", false),
	} {
		t.Run(name, func(t *testing.T) {
			s.want(t, 200, "POST /flags/evaluate", acmeQuestion, bearer(token))
		})
	}
}

// However many bad tokens come, the provider is asked for its keys three times at most, and a good token
// goes on without.
func TestBadTokensFetchFewKeys(t *testing.T) {
	mine := newKey(t, "RS256")
	for _, kids := range []string{"of different kids", "of one kid"} {
		for _, order := range []string{"one by one", "at once"} {
			t.Run(kids+", "+order, func(t *testing.T) {
				p := authtest.New(t, authtest.Options{})
				s := trusting(t, p)
				s.opts.Proxies = 1
				s.want(t, 200, "POST /flags/evaluate", acmeQuestion, bearer(serviceToken(p)))
				one := func(n int) {
					kid := "theirs"
					if kids == "of different kids" {
						kid = fmt.Sprint("theirs-", n)
					}
					token := p.Token(serviceClaims(p), authtest.SignedWith(mine), authtest.Header("kid", kid))
					if a := s.send(t, "POST /flags/evaluate", acmeQuestion, bearer(token), from(n)); a.status != 401 {
						t.Errorf("a bad token = %d %s, want 401", a.status, a.body)
					}
				}
				var all sync.WaitGroup
				for n := range 200 {
					if order == "at once" {
						all.Go(func() { one(n) })
					} else {
						one(n)
					}
				}
				all.Wait()
				if d, k := p.Fetches(authtest.Discovery), p.Fetches(authtest.Keys); d > 3 || k > 3 || k < 2 {
					t.Errorf("200 bad tokens caused %d fetches of the document and %d of the keys, want 2 or 3", d, k)
				}
				before := p.Fetches(authtest.Keys)
				s.want(t, 200, "POST /flags/evaluate", acmeQuestion, bearer(serviceToken(p)))
				if got := p.Fetches(authtest.Keys); got != before {
					t.Errorf("a good token caused %d fetches, want none", got-before)
				}
			})
		}
	}
}

// may tells what a token may do: nothing, evaluate, read or write.
func (s *running) may(t testing.TB, token string) auth.Role {
	t.Helper()
	statuses := [3]int{}
	for n, line := range []string{"POST /flags/evaluate", "GET /history", "PATCH /flags/calendar"} {
		body := [3]string{acmeQuestion, "", `{"note":"may I?"}`}[n]
		statuses[n] = s.send(t, line, body, bearer(token)).status
	}
	for role, want := range map[auth.Role][3]int{
		auth.Nobody: {403, 403, 403}, auth.Member: {404, 403, 403}, auth.Read: {200, 200, 403}, auth.Operator: {200, 200, 200}} {
		if statuses == want {
			return role
		}
	}
	t.Errorf("evaluating, reading and writing are answered with %v, which is no role", statuses)
	return -1
}

// A token's role comes from its audience's kind and its groups alone.
func TestBearerRoles(t *testing.T) {
	p := authtest.New(t, authtest.Options{})
	s := trusting(t, p)
	operators, viewers := "dezky-operators", "dezky-viewers"
	for _, tt := range []struct {
		kind, client string
		groups       any
		want         auth.Role
	}{
		{"operator", authtest.ConsoleID, []string{operators}, auth.Operator},
		{"operator", authtest.ConsoleID, []string{viewers}, auth.Read},
		{"operator", authtest.ConsoleID, []string{"a", viewers, operators, "b"}, auth.Operator},
		{"operator", authtest.ConsoleID, []string{"marketing", "tenant:acme", "Dezky-Operators", operators + " "}, auth.Nobody},
		{"operator", authtest.ConsoleID, []string{}, auth.Nobody},
		{"operator", authtest.ConsoleID, nil, auth.Nobody},
		{"operator", authtest.ConsoleID, operators, auth.Operator}, // one group as a text
		{"service", authtest.ServiceID, []string{operators}, auth.Operator},
		{"service", authtest.ServiceID, []string{viewers}, auth.Read},
		{"service", authtest.ServiceID, []string{"dezky-services"}, auth.Read},
		{"service", authtest.ServiceID, []string{}, auth.Read},
		{"service", authtest.ServiceID, nil, auth.Read},
		{"portal", authtest.PortalID, []string{operators}, auth.Member},
		{"portal", authtest.PortalID, []string{operators, viewers, "tenant:globex"}, auth.Member},
		{"portal", authtest.PortalID, []string{}, auth.Member},
		{"portal", authtest.PortalID, nil, auth.Member},
	} {
		t.Run(fmt.Sprintf("%s of %v", tt.kind, tt.groups), func(t *testing.T) {
			claims := p.Claims(tt.client, authtest.OpsSub)
			claims["groups"] = tt.groups
			if tt.groups == nil {
				delete(claims, "groups")
			}
			if got := s.may(t, p.Token(claims)); got != tt.want {
				t.Errorf("may = %v, want %v", got, tt.want)
			}
		})
	}
	t.Run("of two audiences, the least", func(t *testing.T) {
		claims := p.Claims(authtest.ConsoleID, authtest.OpsSub)
		for _, aud := range [][]string{{authtest.PortalID, authtest.ConsoleID}, {authtest.ServiceID, authtest.ConsoleID, authtest.PortalID}} {
			claims["aud"] = aud
			if got := s.may(t, p.Token(claims)); got != auth.Member {
				t.Errorf("%v: may = %v, want %v", aud, got, auth.Member)
			}
		}
		claims["aud"], claims["groups"] = []string{authtest.ServiceID, authtest.ConsoleID}, []string{}
		if got := s.may(t, p.Token(claims)); got != auth.Nobody {
			t.Errorf("of a service and the console, in no group: may = %v, want %v", got, auth.Nobody)
		}
	})
}

// Whoever is no operator changes nothing, by any route.
func TestWritesByOthersRefused(t *testing.T) {
	p := authtest.New(t, authtest.Options{})
	s := trusting(t, p)
	for name, token := range map[string]string{
		"viewer":                               p.AccessToken(authtest.ConsoleID, authtest.ViewerSub),
		"stranger":                             p.AccessToken(authtest.ConsoleID, authtest.StrangerSub),
		"service of no group":                  serviceToken(p),
		"service with a bare secret":           p.AccessToken(authtest.BareID, authtest.ServiceSub(authtest.BareID)),
		"member":                               p.AccessToken(authtest.PortalID, authtest.AcmeSub),
		"an operator by a token of the portal": p.AccessToken(authtest.PortalID, authtest.OpsSub),
		"API token that reads":                 s.tokens["read"],
		"API token that evaluates":             s.tokens["evaluate"],
	} {
		t.Run(name, func(t *testing.T) {
			for _, rt := range s.app.Load().apiRoutes() {
				if rt.need != auth.Operator {
					continue
				}
				a := s.want(t, 403, pathOf(rt), bodyOf(rt), bearer(token))
				if detail := decode[problem](t, a).Detail; !strings.Contains(detail, "operator") {
					t.Errorf("%s: 403 says %q, want the role that is needed", pathOf(rt), detail)
				}
			}
		})
	}
	operator := bearer(p.AccessToken(authtest.ConsoleID, authtest.OpsSub))
	s.want(t, 201, "POST /flags", `{"key":"by_an_operator"}`, operator)
	s.want(t, 204, "DELETE /flags/by_an_operator", "", operator)
}

// pathOf is a request to a route, and bodyOf a body for it.
func pathOf(rt route) string {
	path := strings.ReplaceAll(rt.path, "{key}", "calendar")
	if strings.HasPrefix(path, "/partners") {
		return rt.method + " " + strings.ReplaceAll(path, "{slug}", "nordhost")
	}
	return rt.method + " " + strings.ReplaceAll(path, "{slug}", "globex")
}

func bodyOf(rt route) string {
	if rt.body == noBody {
		return ""
	}
	return `{}`
}

// A member has its own tenants; of another it can't tell that it is there.
func TestMembersSeeTheirTenantsAlone(t *testing.T) {
	p := authtest.New(t, authtest.Options{})
	s := trusting(t, p)
	p.SetGroups(authtest.AcmeSub, "tenant:acme", "tenant:initech", "tenant:", "tenant:GLOBEX", "globex", "Tenant:globex", "tenant:globex ", "dezky-operators")
	member := bearer(p.AccessToken(authtest.PortalID, authtest.AcmeSub))
	for _, own := range []string{"acme", "initech"} {
		s.want(t, 200, "POST /flags/evaluate", `{"tenantSlug":"`+own+`"}`, member)
		s.want(t, 200, "POST /flags/explain", `{"tenantSlug":"`+own+`"}`, member)
		s.want(t, 200, "GET /tenants/"+own, "", member)
	}
	for _, line := range []string{"POST /flags/evaluate", "POST /flags/explain", "GET /tenants/"} {
		for _, question := range []string{`{"tenantSlug":"SLUG"}`, `{"tenantSlug":"SLUG","environment":"staging"}`, `{"tenantSlug":"SLUG","environment":"mars"}`} {
			ask := func(slug string) *answer {
				if strings.HasPrefix(line, "GET") {
					return s.want(t, 404, line+slug, "", member)
				}
				return s.want(t, 404, line, strings.ReplaceAll(question, "SLUG", slug), member, "If-None-Match: *")
			}
			there, not := ask("globex"), ask("nowhere")
			if got := strings.ReplaceAll(there.body, "globex", "nowhere"); got != not.body {
				t.Errorf("%s of another's tenant: %s, want %s as of one that is not there", line, there.body, not.body)
			}
			for _, h := range []http.Header{there.header, not.header} {
				h.Del("X-Request-Id")
				h.Del("Date")
				h.Del("Content-Length")
			}
			if !maps.EqualFunc(there.header, not.header, slices.Equal) {
				t.Errorf("%s: the header of another's tenant is %v, want %v", line, there.header, not.header)
			}
		}
	}
	for _, query := range []string{"", "?q=o", "?plan=starter", "?partner=nordhost", "?limit=1", "?after=acme"} {
		for _, tenant := range decode[[]tenantJSON](t, s.want(t, 200, "GET /tenants"+query, "", member)) {
			if tenant.Slug != "acme" && tenant.Slug != "initech" {
				t.Errorf("GET /tenants%s has %s", query, tenant.Slug)
			}
		}
	}
	if got := decode[[]tenantJSON](t, s.want(t, 200, "GET /tenants", "", member)); len(got) != 2 {
		t.Errorf("GET /tenants has %d tenants, want its own two", len(got))
	}
}

// What names other customers is not for members.
func TestMembersSeeFlagsWithoutScopeAndHistory(t *testing.T) {
	p := authtest.New(t, authtest.Options{})
	s := trusting(t, p)
	member := bearer(p.AccessToken(authtest.PortalID, authtest.AcmeSub))
	for _, path := range []string{"/flags", "/flags?q=mail", "/flags/mail_rules", "/api/flags/mail_rules"} {
		a := s.want(t, 200, "GET "+path, "", member)
		for _, secret := range []string{"scope", "history", "globex", "nordhost", "ops@dezky.example"} {
			if strings.Contains(a.body, secret) {
				t.Errorf("GET %s has %q: %s", path, secret, a.body)
			}
		}
		if !strings.Contains(a.body, `"key":"mail_rules"`) {
			t.Errorf("GET %s = %s, want the flag", path, a.body)
		}
	}
	if a := s.want(t, 200, "GET /flags/mail_rules", "", s.as("read")); !strings.Contains(a.body, "globex") || !strings.Contains(a.body, "history") {
		t.Errorf("for staff GET /flags/mail_rules = %s, want scope and history", a.body)
	}
}

// Of every other route a member hears that it is not theirs, whether the thing in its path is there or not.
func TestMembersElsewhere(t *testing.T) {
	p := authtest.New(t, authtest.Options{})
	s := trusting(t, p)
	member := bearer(p.AccessToken(authtest.PortalID, authtest.AcmeSub))
	refused := 0
	for _, rt := range s.app.Load().apiRoutes() {
		if rt.members {
			continue
		}
		refused++
		there := s.want(t, 403, pathOf(rt), bodyOf(rt), member)
		not := s.want(t, 403, rt.method+" "+strings.NewReplacer("{key}", "nothing", "{slug}", "nothing").Replace(rt.path), bodyOf(rt), member)
		if there.body != not.body {
			t.Errorf("%s = %s, want %s as where nothing is", pathOf(rt), there.body, not.body)
		}
	}
	if refused < 15 {
		t.Errorf("%d routes were tried, want all but the few that members have", refused)
	}
}

func TestAPITokensRefused(t *testing.T) {
	s := trusting(t, authtest.New(t, authtest.Options{}))
	s.token(t, db.NewToken{Name: "short", Role: "operator", Expires: time.Hour})
	s.token(t, db.NewToken{Name: "staging", Role: "read", Environment: "staging"})
	t.Run("a token pinned to one environment used for another", func(t *testing.T) {
		s.want(t, 200, "POST /flags/evaluate", `{"tenantSlug":"acme","environment":"staging"}`, s.as("staging"))
		for _, environment := range []string{"production", "development", "mars"} {
			for _, path := range []string{"/flags/evaluate", "/flags/explain"} {
				s.want(t, 403, "POST "+path, `{"tenantSlug":"acme","environment":"`+environment+`"}`, s.as("staging"))
			}
		}
	})
	t.Run("expired", func(t *testing.T) {
		s.want(t, 200, "GET /flags", "", s.as("short"))
		s.moveClock(time.Hour)
		if a := s.want(t, 401, "GET /flags", "", s.as("short")); a.header.Get("WWW-Authenticate") != invalidToken {
			t.Errorf("WWW-Authenticate = %q, want %q", a.header.Get("WWW-Authenticate"), invalidToken)
		}
	})
	t.Run("revoked", func(t *testing.T) {
		token := s.token(t, db.NewToken{Name: "revoked", Role: "operator"})
		if _, err := s.db.RevokeToken(t.Context(), db.By{Actor: "ops@dezky.example"}, token.ID); err != nil {
			t.Fatal(err)
		}
		s.want(t, 401, "GET /flags", "", s.as("revoked"))
	})
}

// clientCredentials gets a service's token as the service does.
func clientCredentials(t testing.TB, p *authtest.Provider, client, scope string) string {
	t.Helper()
	response, err := http.PostForm(p.URL()+"/application/o/token/", url.Values{"grant_type": {"client_credentials"},
		"client_id": {client}, "client_secret": {authtest.Secret(client)}, "scope": {scope}})
	if err != nil {
		t.Fatal(err)
	}
	defer response.Body.Close()
	var got struct {
		AccessToken string `json:"access_token"`
	}
	if err := json.NewDecoder(response.Body).Decode(&got); err != nil || got.AccessToken == "" {
		t.Fatalf("the token endpoint answers %s, %v", response.Status, err)
	}
	return got.AccessToken
}

// A service evaluates with a token of its own, and changes something only if its account is an operator's.
func TestClientCredentials(t *testing.T) {
	p := authtest.New(t, authtest.Options{})
	s := trusting(t, p)
	const all = "openid profile email"
	for _, tt := range []struct {
		name, client, scope string
		groups              []string
		want                auth.Role
	}{
		{"a service account", authtest.ServiceID, all, []string{"dezky-services"}, auth.Read},
		{"of an operator", authtest.ServiceID, all, []string{"dezky-services", "dezky-operators"}, auth.Operator},
		{"of an operator, without the scope profile", authtest.ServiceID, "openid", []string{"dezky-operators"}, auth.Read},
		{"a bare client secret", authtest.BareID, all, nil, auth.Read},
	} {
		t.Run(tt.name, func(t *testing.T) {
			p.PutClient(authtest.Client{ID: tt.client, Secret: authtest.Secret(tt.client), Groups: tt.groups})
			if got := s.may(t, clientCredentials(t, p, tt.client, tt.scope)); got != tt.want {
				t.Errorf("may = %v, want %v", got, tt.want)
			}
		})
	}
	p.PutClient(authtest.Client{ID: authtest.ServiceID, Secret: authtest.Secret(authtest.ServiceID), Groups: []string{"dezky-operators"}})
	s.want(t, 201, "POST /flags", `{"key":"by_a_service"}`, bearer(clientCredentials(t, p, authtest.ServiceID, all)))
	entry := s.newest(t, "by_a_service")
	want := flags.Entry{Actor: authtest.ServiceID, Via: flags.ViaAPI, Subject: authtest.ServiceSub(authtest.ServiceID), Issuer: p.Issuer(), Client: authtest.ServiceID}
	if got := whose(entry); got != whose(want) {
		t.Errorf("the entry is of %+v, want %+v", got, whose(want))
	}
}

// newest is the newest entry of a flag's history.
func (s *running) newest(t testing.TB, key string) flags.Entry {
	t.Helper()
	entries := decode[[]flags.Entry](t, s.want(t, 200, "GET /flags/"+key+"/history?limit=1", ""))
	if len(entries) != 1 {
		t.Fatalf("%s has %d entries, want one", key, len(entries))
	}
	return entries[0]
}

// identity is what an entry says of who it was.
type identity struct {
	actor                   string
	via                     flags.Via
	subject, issuer, client string
}

func whose(e flags.Entry) identity { return identity{e.Actor, e.Via, e.Subject, e.Issuer, e.Client} }

// The history names who it was by what the token says, and nobody can claim to be what is no person.
func TestHistoryNamesBearers(t *testing.T) {
	p := authtest.New(t, authtest.Options{})
	s := trusting(t, p)
	long := strings.Repeat("ø", 5000)
	for n, tt := range []struct {
		name                 string
		email, username, sub any
		want                 string
	}{
		{"email", "ops@dezky.example", "ops", "s1", "ops@dezky.example"},
		{"no email", nil, "ops", "s1", "ops"},
		{"an empty email", "", "ops", "s1", "ops"},
		{"subject alone", nil, nil, "s1", "s1"},
		{"of the seed", "system:seed", "ops", "s1", "person:system:seed"},
		{"of the import, in capitals", "SYSTEM:IMPORT", "ops", "s1", "person:SYSTEM:IMPORT"},
		{"of a token", nil, "token:ci", "s1", "person:token:ci"},
		{"of the seed, after a blank", " \tsystem:seed", nil, "s1", "person:system:seed"},
		{"of the local operator", "operator@localhost", nil, "s1", "person:operator@localhost"},
		{"subject of a token", nil, nil, "token:ci", "person:token:ci"},
		{"control characters", "a\x00b\r\nsystem:seed\x1b[31m\u0085", nil, "s1", "a b system:seed [31m"},
		{"control characters alone", "\x00\n", nil, "s1", "s1"},
		{"5,000 characters", long, nil, "s1", strings.Repeat("ø", 200)},
	} {
		t.Run(tt.name, func(t *testing.T) {
			claims := p.Claims(authtest.ConsoleID, authtest.OpsSub)
			for name, value := range map[string]any{"email": tt.email, "preferred_username": tt.username, "sub": tt.sub} {
				claims[name] = value
				if value == nil {
					delete(claims, name)
				}
			}
			key := fmt.Sprint("named_", n)
			s.want(t, 201, "POST /flags", `{"key":"`+key+`"}`, bearer(p.Token(claims)))
			want := identity{tt.want, flags.ViaAPI, fmt.Sprint(tt.sub), p.Issuer(), authtest.ConsoleID}
			if got := whose(s.newest(t, key)); got != want {
				t.Errorf("the entry is of %+v, want %+v", got, want)
			}
		})
	}
	t.Run("an API token", func(t *testing.T) {
		s.want(t, 201, "POST /flags", `{"key":"by_token"}`)
		if got, want := whose(s.newest(t, "by_token")), (identity{actor: "token:operator", via: flags.ViaToken}); got != want {
			t.Errorf("the entry is of %+v, want %+v", got, want)
		}
	})
}

// Past sixty failures in a minute, an address is told to wait; a good credential never is.
func TestFailuresAreLimited(t *testing.T) {
	p := authtest.New(t, authtest.Options{})
	s := trusting(t, p)
	s.opts.Proxies = 1
	bad, good := "Authorization: Bearer "+db.TokenPrefix+"nobody", bearer(serviceToken(p))
	mix := []string{bad, bearer("a.b.c"), "X-API-Key: nothing", "Authorization: Basic Og=="}
	for n := range 60 {
		s.want(t, 401, "GET /flags", "", mix[n%len(mix)], from(1))
	}
	for _, header := range mix {
		a := s.want(t, 429, "GET /flags", "", header, from(1))
		if after := a.header.Get("Retry-After"); after != "60" {
			t.Errorf("Retry-After = %q, want 60", after)
		}
	}
	s.want(t, 200, "GET /flags", "", good, from(1))
	s.want(t, 200, "GET /flags", "", s.as("read"), from(1))
	s.want(t, 401, "GET /flags", "", nobody, from(1)) // giving no credential is no failure
	s.want(t, 401, "GET /flags", "", bad, from(2))
	s.want(t, 401, "GET /flags", "", bad) // the proxy itself
	s.want(t, 429, "GET /flags", "", bad, "X-Forwarded-For: 203.0.113.9, 198.51.100.1")
	s.want(t, 401, "GET /flags", "", bad, "X-Forwarded-For: 198.51.100.1, 203.0.113.9")

	s.moveClock(50 * time.Second)
	if after := s.want(t, 429, "GET /flags", "", bad, from(1)).header.Get("Retry-After"); after != "10" {
		t.Errorf("after 50 s: Retry-After = %q, want 10", after)
	}
	s.moveClock(10 * time.Second)
	s.want(t, 401, "GET /flags", "", bad, from(1))
}

// Without proxies nobody's word for an address counts.
func TestForwardedForIsIgnoredWithoutProxies(t *testing.T) {
	s := trusting(t, authtest.New(t, authtest.Options{}))
	for n := range 60 {
		s.want(t, 401, "GET /flags", "", bearer("a.b.c"), from(n))
	}
	a := s.want(t, 429, "GET /flags", "", bearer("a.b.c"), from(100))
	if client := s.logged(t, a)["client"]; client != "127.0.0.1" {
		t.Errorf("the log names the client %v, want 127.0.0.1", client)
	}
}

// move moves the clocks of the server and of its provider.
func (s *running) move(p *authtest.Provider, d time.Duration) {
	s.moveClock(d)
	p.SetOffset(time.Duration(s.ahead.Load()))
}

// identityProvider is the word of /ready, which is 200 all the time.
func (s *running) identityProvider(t testing.TB) string {
	t.Helper()
	return decode[map[string]string](t, s.want(t, 200, "GET /ready", ""))["identityProvider"]
}

// away is the answer where a token can't be verified now: no refusal, since it may be good.
func (s *running) away(t testing.TB, token string) {
	t.Helper()
	a := s.want(t, 503, "POST /flags/evaluate", acmeQuestion, bearer(token))
	if after := a.header.Get("Retry-After"); after != "5" {
		t.Errorf("Retry-After = %q, want 5", after)
	}
	if cause, _ := s.logged(t, a)["cause"].(string); !strings.Contains(cause, "the identity provider can't be asked") {
		t.Errorf("the log gives the cause %q, want what is wrong with the provider", cause)
	}
	if strings.Contains(a.body, "127.0.0.1") {
		t.Errorf("the answer says where the provider is: %s", a.body)
	}
}

// The server starts and works without its provider, and needs nobody to notice that it is back.
func TestProviderAwayAtTheStart(t *testing.T) {
	p := authtest.New(t, authtest.Options{})
	p.Stop()
	s := trusting(t, p)
	s.away(t, serviceToken(p))
	s.want(t, 200, "POST /flags/evaluate", acmeQuestion, s.as("evaluate"))
	if got := s.identityProvider(t); got != "away" {
		t.Errorf("identityProvider = %q, want away", got)
	}
	if err := p.Restart(); err != nil {
		t.Fatal(err)
	}
	s.move(p, 30*time.Second)
	s.want(t, 200, "POST /flags/evaluate", acmeQuestion, bearer(serviceToken(p)))
	if got := s.identityProvider(t); got != "ok" {
		t.Errorf("identityProvider = %q, want ok", got)
	}
}

// While the provider is away its tokens are taken on, for a day.
func TestProviderAwayLater(t *testing.T) {
	p := authtest.New(t, authtest.Options{})
	s := trusting(t, p)
	s.want(t, 200, "POST /flags/evaluate", acmeQuestion, bearer(serviceToken(p)))
	p.Stop()
	unknown := p.Token(serviceClaims(p), authtest.SignedWith(newKey(t, "RS256")), authtest.Header("kid", "theirs"))
	s.away(t, unknown)
	s.move(p, 23*time.Hour+59*time.Minute)
	s.want(t, 200, "POST /flags/evaluate", acmeQuestion, bearer(serviceToken(p)))
	if got := s.identityProvider(t); got != "away" {
		t.Errorf("identityProvider = %q, want away", got)
	}
	s.move(p, time.Minute)
	s.away(t, serviceToken(p))
	s.want(t, 200, "POST /flags/evaluate", acmeQuestion, s.as("evaluate"))
	if err := p.Restart(); err != nil {
		t.Fatal(err)
	}
	s.move(p, 30*time.Second)
	s.want(t, 200, "POST /flags/evaluate", acmeQuestion, bearer(serviceToken(p)))
}

// A server that is started anew needs no provider for the tokens that it knew the keys of.
func TestRestartWhileTheProviderIsAway(t *testing.T) {
	p := authtest.New(t, authtest.Options{})
	s := trusting(t, p)
	s.want(t, 200, "POST /flags/evaluate", acmeQuestion, bearer(serviceToken(p)))
	p.Stop()
	s.stop(t)
	again := trustingIn(t, p, s.dir)
	again.want(t, 200, "POST /flags/evaluate", acmeQuestion, bearer(serviceToken(p)))
}

// A new key counts from its first token on, and the old one no more.
func TestKeyRotation(t *testing.T) {
	p := authtest.New(t, authtest.Options{})
	s := trusting(t, p)
	old := serviceToken(p)
	s.want(t, 200, "POST /flags/evaluate", acmeQuestion, bearer(old))
	p.RotateKey()
	s.want(t, 200, "POST /flags/evaluate", acmeQuestion, bearer(serviceToken(p)))
	s.want(t, 401, "POST /flags/evaluate", acmeQuestion, bearer(old))
}

// A provider that is set up so that its tokens can't be verified is told of, and API tokens work.
func TestProviderMisconfigured(t *testing.T) {
	p := authtest.New(t, authtest.Options{})
	p.Set(authtest.NoSigningKey, true)
	s := trusting(t, p)
	a := s.want(t, 401, "POST /flags/evaluate", acmeQuestion, bearer(serviceToken(p)))
	if cause, _ := s.logged(t, a)["cause"].(string); !strings.Contains(cause, "choose a Signing Key") {
		t.Errorf("the log gives the cause %q, want what to change", cause)
	}
	s.away(t, p.Token(serviceClaims(p)))
	if got := s.identityProvider(t); got != "misconfigured" {
		t.Errorf("identityProvider = %q, want misconfigured", got)
	}
	s.want(t, 200, "POST /flags/evaluate", acmeQuestion, s.as("evaluate"))
}
