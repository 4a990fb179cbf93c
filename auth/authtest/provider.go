// Package authtest runs a real OpenID provider, for tests and for make dev: zitadel/oidc's op, behind the
// addresses, the claims and the bad habits of Authentik. It is never part of the shipped binary.
package authtest

import (
	"cmp"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/zitadel/oidc/v3/pkg/oidc"
	"github.com/zitadel/oidc/v3/pkg/op"
)

// Options is what a provider is made of; the zero value is a good one.
type Options struct {
	Addr            string           // listen address; default a free port of 127.0.0.1
	Slug            string           // the application's, in every path; default dezky-operator
	Alg             string           // of the signing key: RS256 (the default), ES256, ES384, ES512 or EdDSA
	Now             func() time.Time // default time.Now
	AccessTokenLife time.Duration    // default 5 minutes
	IDTokenLife     time.Duration    // default that of the access token, as with Authentik
	Clients         []Client         // default Clients()
	People          []Person         // default People()
}

// Provider is a running OpenID provider. All methods may be called while it serves.
type Provider struct {
	alg   string
	slug  string
	op    *op.Provider
	count [endpoints]atomic.Int64

	mu       sync.Mutex // guards what follows
	addr     string
	server   *http.Server
	now      func() time.Time
	offset   time.Duration
	life     time.Duration // of access tokens
	idLife   time.Duration // 0: the same
	key      signingKey
	enc      *encryptionKey // made when first needed
	clients  map[string]Client
	accounts map[string]*account // by Person.Sub
	order    []string            // of accounts that can sign in
	preset   string              // who signs in without being asked, or ""
	habits   map[Habit]bool
	subject  Subject
	faults   [endpoints]Fault
	stalls   [endpoints]*Stall
	requests map[string]*authRequest // under way, by id
	codes    map[string]string       // ids of requests, by code
	sessions map[string]session      // by sid
	grants   map[string]grant        // by access token
}

// New starts a provider that ends with the test.
func New(t testing.TB, o Options) *Provider {
	t.Helper()
	p, err := Start(o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(p.Close)
	return p
}

// Start starts a provider; the caller closes it.
func Start(o Options) (*Provider, error) {
	p := &Provider{
		addr: cmp.Or(o.Addr, "127.0.0.1:0"), slug: cmp.Or(o.Slug, "dezky-operator"), alg: cmp.Or(o.Alg, "RS256"),
		now: o.Now, life: cmp.Or(o.AccessTokenLife, 5*time.Minute), idLife: o.IDTokenLife,
		clients: map[string]Client{}, accounts: map[string]*account{}, habits: map[Habit]bool{},
		requests: map[string]*authRequest{}, codes: map[string]string{}, sessions: map[string]session{}, grants: map[string]grant{},
	}
	if p.now == nil {
		p.now = time.Now
	}
	if o.Clients == nil {
		o.Clients = Clients()
	}
	if o.People == nil {
		o.People = People()
	}
	for _, person := range o.People {
		p.accounts[person.Sub] = &account{Person: person}
		p.order = append(p.order, person.Sub)
	}
	for _, c := range o.Clients {
		p.PutClient(c)
	}
	var err error
	if p.key, err = newSigningKey(p.alg); err != nil {
		return nil, err
	}
	config := &op.Config{CodeMethodS256: true, AuthMethodPost: true}
	rand.Read(config.CryptoKey[:])
	p.op, err = op.NewProvider(config, storage{p: p}, func(bool) (op.IssuerFromRequest, error) {
		return func(r *http.Request) string {
			p.mu.Lock()
			defer p.mu.Unlock()
			return p.issuer(r.Host)
		}, nil
	}, op.WithIDTokenHintVerifierOpts(op.WithSupportedIDTokenHintSigningAlgorithms(p.alg)))
	if err != nil {
		return nil, fmt.Errorf("authtest: %w", err)
	}
	if err := p.listen(); err != nil {
		return nil, err
	}
	return p, nil
}

func (p *Provider) listen() error {
	listener, err := net.Listen("tcp", p.addr)
	if err != nil {
		return fmt.Errorf("authtest: %w", err)
	}
	server := &http.Server{Handler: p.handler(), ReadHeaderTimeout: 5 * time.Second}
	p.mu.Lock()
	p.addr, p.server = listener.Addr().String(), server
	p.mu.Unlock()
	go server.Serve(listener) // until Close
	return nil
}

// Stop closes the listener and every connection. Keys, sessions and tokens are kept for Restart.
func (p *Provider) Stop() {
	p.mu.Lock()
	server := p.server
	p.mu.Unlock()
	server.Close()
}

// Restart listens again, on the same address.
func (p *Provider) Restart() error { return p.listen() }

// Close ends the provider.
func (p *Provider) Close() { p.Stop() }

// URL returns the provider's origin, such as http://127.0.0.1:9400.
func (p *Provider) URL() string {
	p.mu.Lock()
	defer p.mu.Unlock()
	return "http://" + p.addr
}

// Issuer returns the URL that a client is configured with. With some habits discovery names another.
func (p *Provider) Issuer() string { return p.URL() + p.path() }

func (p *Provider) path() string { return "/application/o/" + p.slug + "/" }

// issuer returns what discovery and tokens name for a request to host. The caller holds mu.
func (p *Provider) issuer(host string) string {
	switch {
	case p.habits[GlobalIssuer]:
		return p.origin(host) + "/"
	case p.habits[NoTrailingSlash]:
		return p.origin(host) + strings.TrimSuffix(p.path(), "/")
	}
	return p.origin(host) + p.path()
}

func (p *Provider) origin(host string) string {
	if p.habits[OtherHost] {
		name, port, _ := net.SplitHostPort(host)
		if host = "localhost:" + port; name == "localhost" {
			host = "127.0.0.1:" + port
		}
	}
	return "http://" + host
}

// time is the provider's clock. The caller holds mu.
func (p *Provider) time() time.Time { return p.now().Add(p.offset) }

// An Endpoint is one of the provider's addresses.
type Endpoint int

// The endpoints.
const (
	Discovery Endpoint = iota
	Keys
	Authorize
	Tokens
	Userinfo
	EndSession
	endpoints // how many there are
)

// Fetches returns how many requests an endpoint has got, whatever the answer.
func (p *Provider) Fetches(e Endpoint) int { return int(p.count[e].Load()) }

// handler serves at Authentik's addresses.
func (p *Provider) handler() http.Handler {
	mux := http.NewServeMux()
	for _, route := range []struct {
		pattern  string
		endpoint Endpoint
		serve    http.HandlerFunc
	}{
		{"GET " + p.path() + ".well-known/openid-configuration", Discovery, p.serveDiscovery},
		{"GET " + p.path() + "jwks/{$}", Keys, p.serveKeys},
		{"/application/o/authorize/{$}", Authorize, func(w http.ResponseWriter, r *http.Request) { op.Authorize(w, r, p.op) }},
		{"POST /application/o/token/{$}", Tokens, p.serveToken},
		{"/application/o/userinfo/{$}", Userinfo, p.serveUserinfo},
		{p.path() + "end-session/{$}", EndSession, p.serveEndSession},
	} {
		mux.Handle(route.pattern, p.faulty(route.endpoint, route.serve))
	}
	mux.HandleFunc("GET "+signInPath, p.serveSignIn)
	mux.HandleFunc("POST "+signInPath, p.serveSignIn)
	return op.NewIssuerInterceptor(p.op.IssuerFromRequest).Handler(mux)
}

func (p *Provider) serveDiscovery(w http.ResponseWriter, r *http.Request) {
	p.respond(w, Discovery, p.discovery(r.Host))
}

func (p *Provider) discovery(host string) map[string]any {
	p.mu.Lock()
	defer p.mu.Unlock()
	at := p.origin(host)
	document := map[string]any{
		"issuer":                                p.issuer(host),
		"authorization_endpoint":                at + "/application/o/authorize/",
		"token_endpoint":                        at + "/application/o/token/",
		"userinfo_endpoint":                     at + "/application/o/userinfo/",
		"end_session_endpoint":                  at + p.path() + "end-session/",
		"jwks_uri":                              at + p.path() + "jwks/",
		"response_types_supported":              []string{"code"},
		"response_modes_supported":              []string{"query"},
		"grant_types_supported":                 []string{"authorization_code", "client_credentials"},
		"id_token_signing_alg_values_supported": []string{p.signedBy()},
		"subject_types_supported":               []string{"public"},
		"token_endpoint_auth_methods_supported": []string{"client_secret_post", "client_secret_basic"},
		"acr_values_supported":                  []string{acr},
		"scopes_supported":                      scopesKnown,
		"request_parameter_supported":           false,
		"claims_supported":                      []string{"sub", "iss", "aud", "exp", "iat", "auth_time", "acr"},
		"claims_parameter_supported":            false,
		"code_challenge_methods_supported":      []string{"S256"},
	}
	if p.habits[NoEndSession] {
		delete(document, "end_session_endpoint")
	}
	if !p.habits[NoBackChannelLogout] {
		document["backchannel_logout_supported"] = true
		document["backchannel_logout_session_supported"] = true
	}
	if p.habits[EncryptedTokens] {
		document["id_token_encryption_alg_values_supported"] = []string{encryptionAlg}
		document["id_token_encryption_enc_values_supported"] = []string{encryptionEnc}
	}
	if p.habits[IssInCallback] || p.habits[WrongIssInCallback] {
		document["authorization_response_iss_parameter_supported"] = true
	}
	return document
}

func (p *Provider) serveKeys(w http.ResponseWriter, _ *http.Request) { p.respond(w, Keys, p.keys()) }

// keys lists the present key alone: a rotation is a hard cut. Without any key Authentik's document has no
// member "keys".
func (p *Provider) keys() map[string]any {
	p.mu.Lock()
	defer p.mu.Unlock()
	var keys []any
	if !p.habits[NoSigningKey] {
		keys = append(keys, p.key.jwk())
	}
	if p.habits[EncryptedTokens] {
		keys = append(keys, p.encryption().jwk())
	}
	if keys == nil {
		return map[string]any{}
	}
	return map[string]any{"keys": keys}
}

// serveToken lets op judge the request, and answers with tokens of our own making.
func (p *Provider) serveToken(w http.ResponseWriter, r *http.Request) {
	answer, err := p.exchange(r)
	if err != nil {
		op.RequestError(w, r, err, nil)
		return
	}
	w.Header().Set("Cache-Control", "no-store")
	p.respond(w, Tokens, answer)
}

func (p *Provider) exchange(r *http.Request) (map[string]any, error) {
	switch grantType := oidc.GrantType(r.FormValue("grant_type")); grantType {
	case oidc.GrantTypeCode:
		request, err := op.ParseAccessTokenRequest(r, p.op.Decoder())
		if err != nil {
			return nil, err
		}
		accepted, client, err := op.ValidateAccessTokenRequest(r.Context(), request, p.op)
		if err != nil {
			return nil, err
		}
		asked, ok := accepted.(*authRequest)
		if !ok {
			return nil, errors.New("not our request")
		}
		return p.answer(r.Host, grant{client: client.GetID(), sub: asked.sub, scopes: asked.GetScopes(),
			nonce: asked.GetNonce(), sid: asked.sid, authTime: asked.authTime}, true), nil
	case oidc.GrantTypeClientCredentials:
		request, err := op.ParseClientCredentialsRequest(r, p.op.Decoder())
		if err != nil {
			return nil, err
		}
		accepted, client, err := op.ValidateClientCredentialsRequest(r.Context(), request, p.op)
		if err != nil {
			return nil, err
		}
		return p.answer(r.Host, grant{client: client.GetID(), sub: accepted.GetSubject(), scopes: accepted.GetScopes()}, false), nil
	default:
		return nil, oidc.ErrUnsupportedGrantType().WithDescription("%q is not supported", grantType)
	}
}

// answer issues tokens and returns what the token endpoint says.
func (p *Provider) answer(host string, g grant, withIDToken bool) map[string]any {
	p.mu.Lock()
	defer p.mu.Unlock()
	g.issuer = p.issuer(host)
	access, id := p.issue(g)
	answer := map[string]any{"access_token": access, "token_type": "Bearer", "expires_in": int(p.life.Seconds()), "scope": strings.Join(g.scopes, " ")}
	if withIDToken {
		answer["id_token"] = id
	}
	return answer
}

func (p *Provider) serveUserinfo(w http.ResponseWriter, r *http.Request) {
	token, err := op.ParseUserinfoRequest(r, p.op.Decoder())
	document := p.userinfo(token)
	if err != nil || document == nil {
		w.Header().Set("WWW-Authenticate", `error="invalid_token"`)
		w.WriteHeader(http.StatusUnauthorized)
		return
	}
	p.respond(w, Userinfo, document)
}

// userinfo evaluates a token's person as they are now. It is nil once the token has expired, the person is
// deactivated or the session is gone.
func (p *Provider) userinfo(token string) map[string]any {
	p.mu.Lock()
	defer p.mu.Unlock()
	g, known := p.grants[token]
	if !known || !p.alive(g) {
		return nil
	}
	person := p.accounts[g.sub].Person
	document := p.identity(person, g.scopes)
	document["sub"] = p.sub(person)
	if p.habits[OtherSubInUserinfo] {
		document["sub"] = rand.Text()
	}
	if g.nonce != "" {
		document["nonce"] = g.nonce
	}
	return document
}

// respond writes a document, made too long if that is the endpoint's fault.
func (p *Provider) respond(w http.ResponseWriter, e Endpoint, document map[string]any) {
	if p.fault(e) == Huge {
		document["padding"] = strings.Repeat("x", hugeSize)
	}
	body, err := json.Marshal(document)
	if err != nil {
		http.Error(w, err.Error(), http.StatusInternalServerError)
		return
	}
	w.Header().Set("Content-Type", "application/json")
	w.Write(body)
}
