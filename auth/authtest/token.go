package authtest

import (
	"cmp"
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/hmac"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"time"

	"github.com/go-jose/go-jose/v4"
	"github.com/zitadel/oidc/v3/pkg/oidc"
)

// acr is what Authentik names in every token.
const acr = "goauthentik.io/providers/oauth2/default"

// Authentik's encryption of tokens.
const (
	encryptionAlg = string(jose.RSA_OAEP_256)
	encryptionEnc = string(jose.A256CBC_HS512)
)

// grant is what a set of tokens stands for.
type grant struct {
	client   string
	sub      string // Person.Sub
	scopes   []string
	nonce    string
	sid      string // "": no browser was there
	authTime time.Time
	issuer   string
	expires  time.Time // of the access token
}

// alive tells whether a grant's access token is still good. The caller holds mu.
func (p *Provider) alive(g grant) bool {
	_, hasSession := p.sessions[g.sid]
	return p.time().Before(g.expires) && !p.accounts[g.sub].inactive && (g.sid == "" || hasSession)
}

// identity is what the scopes tell of a person, as they are now. The caller holds mu.
func (p *Provider) identity(person Person, scopes []string) map[string]any {
	claims := map[string]any{}
	if slices.Contains(scopes, oidc.ScopeProfile) {
		claims["name"] = person.Name
		claims["given_name"] = person.Name // Authentik knows no other
		claims["preferred_username"] = person.Username
		claims["nickname"] = person.Username
		if !p.habits[NoGroups] {
			claims["groups"] = append([]string{}, person.Groups...)
		}
	}
	if slices.Contains(scopes, oidc.ScopeEmail) {
		claims["email"] = person.Email
		claims["email_verified"] = false // the default since 2025.10
	}
	return claims
}

// claims returns the id token's claims. The caller holds mu.
func (p *Provider) claims(g grant) map[string]any {
	person := p.accounts[g.sub].Person
	claims := map[string]any{}
	if !p.habits[NoClaimsInTokens] {
		claims = p.identity(person, g.scopes)
	}
	now := p.time()
	claims["iss"] = g.issuer
	claims["sub"] = p.sub(person)
	claims["aud"] = g.client
	claims["iat"] = now.Unix()
	claims["exp"] = now.Add(cmp.Or(p.idLife, p.life)).Unix()
	claims["auth_time"] = g.authTime.Unix()
	claims["acr"] = acr
	if g.nonce != "" {
		claims["nonce"] = g.nonce
	}
	if g.sid != "" {
		claims["sid"] = g.sid
	}
	return claims
}

// accessClaims returns the access token's: the id token's, and three more. The caller holds mu.
func (p *Provider) accessClaims(g grant) map[string]any {
	claims := p.claims(g)
	switch audience := p.clients[g.client].Audience; len(audience) {
	case 0:
	case 1:
		claims["aud"] = audience[0]
	default:
		claims["aud"] = audience
	}
	claims["exp"] = p.time().Add(p.life).Unix()
	claims["azp"] = g.client
	claims["uid"] = rand.Text()
	claims["scope"] = strings.Join(g.scopes, " ")
	return claims
}

// issue makes a grant's tokens, and lets userinfo know the access token. The caller holds mu.
func (p *Provider) issue(g grant) (access, id string) {
	g.expires = p.time().Add(p.life)
	if g.authTime.IsZero() {
		g.authTime = p.time()
	}
	access = p.encode(g, p.accessClaims(g))
	p.grants[access] = g

	claims := p.claims(g)
	if p.habits[WrongNonce] {
		claims["nonce"] = rand.Text()
	}
	hashed := access
	if p.habits[WrongAtHash] {
		hashed = rand.Text()
	}
	claims["at_hash"] = atHash(hashed, p.signedBy())
	return access, p.encode(g, claims)
}

// signedBy returns the alg of tokens. The caller holds mu.
func (p *Provider) signedBy() string {
	if p.habits[NoSigningKey] {
		return "HS256"
	}
	return p.alg
}

// atHash is the left half of the token's hash; see OpenID Connect Core, 3.1.3.6.
func atHash(token, alg string) string {
	h := hashOf(alg).New()
	h.Write([]byte(token))
	sum := h.Sum(nil)
	return base64.RawURLEncoding.EncodeToString(sum[:len(sum)/2])
}

// encode signs claims, and encrypts them, as the habits will have it. The caller holds mu.
func (p *Provider) encode(g grant, claims map[string]any) string {
	if p.habits[NoSigningKey] {
		return sign(claims, map[string]any{"typ": "JWT", "alg": "HS256"}, []byte(p.clients[g.client].Secret))
	}
	token := sign(claims, p.header(), p.key.Signer)
	if p.habits[EncryptedTokens] {
		return p.encryption().encrypt(token)
	}
	return token
}

// header is that of id tokens and access tokens alike.
func (p *Provider) header() map[string]any {
	return map[string]any{"typ": "JWT", "alg": p.alg, "kid": p.key.id}
}

// A TokenOption changes how Token signs.
type TokenOption func(*tokenForm)

type tokenForm struct {
	header map[string]any
	key    any
}

// Header sets a header field, such as typ, alg, kid, jwk, jku or crit. Nil removes it.
func Header(name string, value any) TokenOption {
	return func(f *tokenForm) {
		f.header[name] = value
		if value == nil {
			delete(f.header, name)
		}
	}
}

// SignedWith signs with another key: a crypto.Signer, bytes for HS256, or nil for an empty signature. The
// header's alg follows, unless a later Header says otherwise; its kid does not.
func SignedWith(key any) TokenOption {
	return func(f *tokenForm) {
		f.key, f.header["alg"] = key, algOf(key)
	}
}

// Token signs any claims, by default like a true token, with the present key. Habits don't apply, and
// userinfo won't know it.
func (p *Provider) Token(claims map[string]any, opts ...TokenOption) string {
	p.mu.Lock()
	defer p.mu.Unlock()
	f := tokenForm{header: p.header(), key: p.key.Signer}
	for _, o := range opts {
		o(&f)
	}
	return sign(claims, f.header, f.key)
}

// Claims returns the claims of a good access token for a client and a person, to be changed and passed to
// Token. Without scopes they are openid, profile and email.
func (p *Provider) Claims(clientID, sub string, scopes ...string) map[string]any {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.accessClaims(p.grantFor(clientID, sub, scopes))
}

// IDClaims returns the claims of a good id token, like Claims.
func (p *Provider) IDClaims(clientID, sub string, scopes ...string) map[string]any {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.claims(p.grantFor(clientID, sub, scopes))
}

// AccessToken issues an access token as the token endpoint would, known to userinfo, for a client and a
// person. Without scopes they are openid, profile and email.
func (p *Provider) AccessToken(clientID, sub string, scopes ...string) string {
	p.mu.Lock()
	defer p.mu.Unlock()
	access, _ := p.issue(p.grantFor(clientID, sub, scopes))
	return access
}

// IDToken issues an id token, like AccessToken.
func (p *Provider) IDToken(clientID, sub string, scopes ...string) string {
	p.mu.Lock()
	defer p.mu.Unlock()
	_, id := p.issue(p.grantFor(clientID, sub, scopes))
	return id
}

// grantFor panics where there is no such client or person: a test asked for what it has not made. The
// caller holds mu.
func (p *Provider) grantFor(clientID, sub string, scopes []string) grant {
	if len(scopes) == 0 {
		scopes = scopesKnown
	}
	if _, known := p.clients[clientID]; !known {
		panic(fmt.Sprintf("authtest: no client %q", clientID))
	}
	if p.accounts[sub] == nil {
		panic(fmt.Sprintf("authtest: no person %q", sub))
	}
	return grant{client: clientID, sub: sub, scopes: scopes, authTime: p.time(), issuer: p.issuer(p.addr)}
}

// logoutEvent marks a logout token; see OpenID Connect Back-Channel Logout 1.0, 2.4.
const logoutEvent = "http://schemas.openid.net/event/backchannel-logout"

// LogoutClaims returns the claims of a back-channel logout token for the console. Either of sub, which is
// a Person's, and sid may be empty.
func (p *Provider) LogoutClaims(sub, sid string) map[string]any {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.logoutClaims(ConsoleID, sub, sid)
}

func (p *Provider) logoutClaims(client, sub, sid string) map[string]any {
	now := p.time()
	claims := map[string]any{
		"iss": p.issuer(p.addr), "aud": client, "jti": rand.Text(),
		"iat": now.Unix(), "exp": now.Add(2 * time.Minute).Unix(),
		"events": map[string]any{logoutEvent: map[string]any{}},
	}
	if a := p.accounts[sub]; a != nil {
		claims["sub"] = p.sub(a.Person)
	}
	if sid != "" {
		claims["sid"] = sid
	}
	return claims
}

// LogoutToken signs LogoutClaims.
func (p *Provider) LogoutToken(sub, sid string, opts ...TokenOption) string {
	return p.Token(p.LogoutClaims(sub, sid), opts...)
}

// BackChannelLogout posts a logout token to a client's address and returns the answer's status.
func (p *Provider) BackChannelLogout(ctx context.Context, address, token string) (int, error) {
	r, err := http.NewRequestWithContext(ctx, http.MethodPost, address, strings.NewReader(url.Values{"logout_token": {token}}.Encode()))
	if err != nil {
		return 0, fmt.Errorf("back-channel logout: %w", err)
	}
	r.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	response, err := http.DefaultClient.Do(r)
	if err != nil {
		return 0, fmt.Errorf("back-channel logout: %w", err)
	}
	return response.StatusCode, response.Body.Close()
}

// Key returns the present signing key.
func (p *Provider) Key() crypto.Signer {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.key.Signer
}

// KeyID returns the present key's kid.
func (p *Provider) KeyID() string {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.key.id
}

// RotateKey replaces the signing key, under a new kid, at once: the old one is no longer published.
func (p *Provider) RotateKey() {
	key := must(newSigningKey(p.alg)) // Start has made one of this kind
	p.mu.Lock()
	defer p.mu.Unlock()
	p.key = key
}

// NewKey returns a new key for RS256, ES256, ES384, ES512 or EdDSA.
func NewKey(alg string) (crypto.Signer, error) {
	switch alg {
	case "RS256":
		return rsa.GenerateKey(rand.Reader, 2048)
	case "ES256":
		return ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	case "ES384":
		return ecdsa.GenerateKey(elliptic.P384(), rand.Reader)
	case "ES512":
		return ecdsa.GenerateKey(elliptic.P521(), rand.Reader)
	case "EdDSA":
		_, key, err := ed25519.GenerateKey(rand.Reader)
		return key, err
	}
	return nil, fmt.Errorf("authtest: no keys for %q", alg)
}

type signingKey struct {
	crypto.Signer
	id, alg string
}

func newSigningKey(alg string) (signingKey, error) {
	key, err := NewKey(alg)
	return signingKey{Signer: key, id: rand.Text(), alg: alg}, err
}

func (k signingKey) jwk() jose.JSONWebKey {
	return jose.JSONWebKey{Key: k.Public(), KeyID: k.id, Algorithm: k.alg, Use: "sig"}
}

// encryptionKey is the client's, as Authentik holds it.
type encryptionKey struct {
	key *rsa.PrivateKey
	id  string
}

// encryption returns the encryption key. The caller holds mu.
func (p *Provider) encryption() *encryptionKey {
	if p.enc == nil {
		p.enc = &encryptionKey{must(rsa.GenerateKey(rand.Reader, 2048)), rand.Text()}
	}
	return p.enc
}

func (k *encryptionKey) jwk() map[string]any {
	var fields map[string]any
	text := must(jose.JSONWebKey{Key: &k.key.PublicKey, KeyID: k.id, Algorithm: encryptionAlg, Use: "enc"}.MarshalJSON())
	if err := json.Unmarshal(text, &fields); err != nil {
		panic(err)
	}
	fields["enc"] = encryptionEnc // Authentik adds it
	return fields
}

func (k *encryptionKey) encrypt(token string) string {
	encrypter := must(jose.NewEncrypter(jose.A256CBC_HS512, jose.Recipient{Algorithm: jose.RSA_OAEP_256, Key: &k.key.PublicKey, KeyID: k.id},
		(&jose.EncrypterOptions{}).WithType("JWE")))
	return must(must(encrypter.Encrypt([]byte(token))).CompactSerialize())
}

// must is for what fails only if this package, or a test that calls it, is wrong.
func must[T any](value T, err error) T {
	if err != nil {
		panic(fmt.Sprintf("authtest: %v", err))
	}
	return value
}

// sign makes a JWS by hand, since a library rightly refuses most of what tests want to see refused.
func sign(claims, header map[string]any, key any) string {
	encode := func(v map[string]any) string { return base64.RawURLEncoding.EncodeToString(must(json.Marshal(v))) }
	input := encode(header) + "." + encode(claims)
	return input + "." + base64.RawURLEncoding.EncodeToString(signature([]byte(input), key))
}

func signature(input []byte, key any) []byte {
	switch key := key.(type) {
	case nil:
		return nil
	case []byte:
		mac := hmac.New(sha256.New, key)
		mac.Write(input)
		return mac.Sum(nil)
	case ed25519.PrivateKey:
		return ed25519.Sign(key, input)
	case *rsa.PrivateKey:
		sum := sha256.Sum256(input)
		return must(rsa.SignPKCS1v15(nil, key, crypto.SHA256, sum[:]))
	case *ecdsa.PrivateKey:
		h := hashOf(algOf(key)).New()
		h.Write(input)
		r, s, err := ecdsa.Sign(rand.Reader, key, h.Sum(nil))
		if err != nil {
			panic(err)
		}
		size := (key.Curve.Params().BitSize + 7) / 8
		signed := make([]byte, 2*size)
		r.FillBytes(signed[:size])
		s.FillBytes(signed[size:])
		return signed
	}
	panic(fmt.Sprintf("authtest: can't sign with a %T", key))
}

// algOf returns the alg of what signature makes with a key.
func algOf(key any) string {
	switch key := key.(type) {
	case nil:
		return "none"
	case []byte:
		return "HS256"
	case ed25519.PrivateKey:
		return "EdDSA"
	case *ecdsa.PrivateKey:
		return map[int]string{256: "ES256", 384: "ES384", 521: "ES512"}[key.Curve.Params().BitSize]
	}
	return "RS256"
}

func hashOf(alg string) crypto.Hash {
	switch alg {
	case "ES384":
		return crypto.SHA384
	case "ES512", "EdDSA":
		return crypto.SHA512
	}
	return crypto.SHA256
}
