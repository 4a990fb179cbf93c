package auth

import (
	"cmp"
	"context"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rsa"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/coreos/go-oidc/v3/oidc"
	"github.com/go-jose/go-jose/v4"
	exact "github.com/go-jose/go-jose/v4/json"

	"github.com/dezky/platform-api/flags"
)

// Bounds of bearer JWTs.
const (
	jwtMost     = 16 << 10         // bytes of a token
	expLeeway   = 30 * time.Second // how long after its exp a token is still taken
	aheadMost   = 60 * time.Second // how far iat and nbf may lie ahead of our clock
	cachedFor   = 5 * time.Minute  // how long a verified token is not verified again
	cachedMost  = 10_000           // how many verified tokens are remembered
	rsaLeast    = 2048             // bits of an RSA key
	causeLength = 300              // characters of a refusal's cause in the log
)

// algorithms are the only ones that a token may be signed with.
var algorithms = []jose.SignatureAlgorithm{jose.RS256, jose.ES256, jose.ES384, jose.ES512, jose.EdDSA}

var algorithmNames = func() []string {
	names := make([]string, len(algorithms))
	for i, a := range algorithms {
		names[i] = string(a)
	}
	return names
}()

// keyAlgorithms are the algorithms of ours that a public key signs with.
func keyAlgorithms(key jose.JSONWebKey) []jose.SignatureAlgorithm {
	var out []jose.SignatureAlgorithm
	switch k := key.Key.(type) {
	case *rsa.PublicKey:
		if k.N.BitLen() >= rsaLeast {
			out = append(out, jose.RS256)
		}
	case *ecdsa.PublicKey:
		switch k.Curve {
		case elliptic.P256():
			out = append(out, jose.ES256)
		case elliptic.P384():
			out = append(out, jose.ES384)
		case elliptic.P521():
			out = append(out, jose.ES512)
		}
	case ed25519.PublicKey:
		out = append(out, jose.EdDSA)
	}
	return slices.DeleteFunc(out, func(a jose.SignatureAlgorithm) bool { return key.Algorithm != "" && key.Algorithm != string(a) })
}

// signedBy verifies signatures by the one key that a token names. It is an oidc.KeySet.
type signedBy struct{ key jose.JSONWebKey }

// VerifySignature returns the payload of a token that the key has signed.
func (s signedBy) VerifySignature(_ context.Context, raw string) ([]byte, error) {
	jws, err := jose.ParseSignedCompact(raw, algorithms)
	if err != nil {
		return nil, err
	}
	return jws.Verify(s.key.Key)
}

// header is what we read of a token's header (RFC 7515, section 4.1).
type header struct {
	Algorithm string          `json:"alg"`
	KeyID     string          `json:"kid"`
	Type      string          `json:"typ"`
	Critical  json.RawMessage `json:"crit"`
	Key       json.RawMessage `json:"jwk"`
	KeyURL    json.RawMessage `json:"jku"`
	Chain     json.RawMessage `json:"x5c"`
	ChainURL  json.RawMessage `json:"x5u"`
}

// claims are what we read of a token.
type claims struct {
	Issuer    string          `json:"iss"`
	Subject   string          `json:"sub"`
	Audience  texts           `json:"aud"`
	Expires   *float64        `json:"exp"`
	IssuedAt  *float64        `json:"iat"`
	NotBefore *float64        `json:"nbf"`
	Scope     json.RawMessage `json:"scope"`
	UID       json.RawMessage `json:"uid"`
	Events    json.RawMessage `json:"events"`
	Client    string          `json:"azp"`
	ClientID  string          `json:"client_id"` // the same in RFC 9068
	person
}

// person is what the claims of an id token, an access token or userinfo say of who it is.
type person struct {
	Email    string `json:"email"`
	FullName shown  `json:"name"`
	Username string `json:"preferred_username"`
	Groups   *texts `json:"groups"` // nil: the claim is not there
}

// shown is a claim that is only shown: one that is no text is none.
type shown string

// UnmarshalJSON reads a text, and nothing of anything else.
func (s *shown) UnmarshalJSON(b []byte) error {
	if json.Unmarshal(b, (*string)(s)) != nil {
		*s = ""
	}
	return nil
}

// describe gives a principal what the person's claims say of it; what they leave out stays.
func (p person) describe(to *Principal) {
	if p.Email != "" {
		to.Email = short(p.Email)
	}
	if name := cmp.Or(string(p.FullName), p.Username); name != "" {
		to.FullName = short(name)
	}
	if p.Groups != nil {
		to.Groups = some(*p.Groups)
	}
}

func (p person) groups() []string {
	if p.Groups == nil {
		return nil
	}
	return *p.Groups
}

// texts is a claim that is one text or a list of them.
type texts []string

// UnmarshalJSON reads either form.
func (t *texts) UnmarshalJSON(b []byte) error {
	var one string
	if json.Unmarshal(b, &one) == nil {
		*t = texts{one}
		return nil
	}
	return json.Unmarshal(b, (*[]string)(t))
}

// refusal is an invalid token, with the cause for the log and what would help.
type refusal struct{ cause, remedy string }

func (e *refusal) Error() string {
	if e.remedy == "" {
		return ErrToken.Error() + ": " + e.cause
	}
	return ErrToken.Error() + ": " + e.cause + ": " + e.remedy
}

func (e *refusal) Unwrap() error { return ErrToken }

func refused(format string, args ...any) error {
	cause := fmt.Sprintf(format, args...)
	if len(cause) > causeLength {
		cause = strings.ToValidUTF8(cause[:causeLength], "") + "…"
	}
	return &refusal{cause: cause}
}

// What helps against the well-known mistakes in Authentik, and between clocks.
const (
	noEncryption = "leave Encryption Key empty in the Authentik provider"
	signingKey   = "choose a Signing Key in the Authentik provider"
	sameTime     = "compare the clocks of this machine and the identity provider"
)

// decodePart reads a header or claims with names to the letter, and no member twice, so that nobody else can
// read something else in them.
func decodePart(part string, into any) error {
	b, err := base64.RawURLEncoding.DecodeString(part)
	if err != nil {
		return err
	}
	return exact.Unmarshal(b, into)
}

// readHeader takes a compact token apart and refuses what no issuer of ours makes.
func readHeader(raw string, types ...string) (h header, payload string, err error) {
	if len(raw) > jwtMost {
		return h, "", refused("longer than %d bytes", jwtMost)
	}
	parts := strings.Split(raw, ".")
	if len(parts) == 5 {
		return h, "", &refusal{"encrypted", noEncryption}
	}
	if len(parts) != 3 {
		return h, "", refused("not a JWT")
	}
	if err := decodePart(parts[0], &h); err != nil {
		return h, "", refused("its header can't be read")
	}
	switch {
	case h.Algorithm == "HS256":
		return h, "", &refusal{"signed with HS256", signingKey}
	case !slices.Contains(algorithmNames, h.Algorithm):
		return h, "", refused("its algorithm is %q, not one of %s", h.Algorithm, strings.Join(algorithmNames, ", "))
	case h.KeyID == "":
		return h, "", refused("names no key")
	case h.Type != "" && !slices.ContainsFunc(types, func(t string) bool { return strings.EqualFold(h.Type, t) }):
		return h, "", refused("its type is %q", h.Type)
	case h.Critical != nil:
		return h, "", refused("has critical headers")
	case h.Key != nil || h.KeyURL != nil || h.Chain != nil || h.ChainURL != nil:
		return h, "", refused("brings a key of its own")
	}
	return h, parts[1], nil
}

// verifier returns what verifies a token by the key that it names, and the keys that this key is of. It
// leaves the audience to the caller.
func (i *issuer) verifier(ctx context.Context, h header) (*oidc.IDTokenVerifier, *keySet, error) {
	key, k, err := i.key(ctx, h.KeyID)
	if errors.Is(err, errNoSuchKey) {
		return nil, nil, refused("%s: %q", err, h.KeyID)
	}
	if err != nil {
		return nil, nil, err
	}
	if !slices.Contains(keyAlgorithms(key), jose.SignatureAlgorithm(h.Algorithm)) {
		return nil, nil, refused("its algorithm %s is not that of the key %q", h.Algorithm, h.KeyID)
	}
	return oidc.NewVerifier(k.Issuer, signedBy{key}, &oidc.Config{
		SkipClientIDCheck: true, SupportedSigningAlgs: algorithmNames,
		Now: func() time.Time { return i.now().Add(-expLeeway) },
	}), k.keys, nil
}

// verify verifies a token's signature, issuer and times, and reads its claims.
func (i *issuer) verify(ctx context.Context, raw string, h header) (*oidc.IDToken, claims, *keySet, error) {
	var c claims
	verifier, keys, err := i.verifier(ctx, h)
	if err != nil {
		return nil, c, nil, err
	}
	token, err := verifier.Verify(ctx, raw)
	var payload json.RawMessage
	if err == nil {
		err = token.Claims(&payload)
	}
	if err == nil {
		err = exact.Unmarshal(payload, &c)
	}
	if expired := (*oidc.TokenExpiredError)(nil); errors.As(err, &expired) {
		return nil, c, nil, &refusal{"expired at " + expired.Expiry.UTC().Format(time.RFC3339), sameTime}
	}
	if err != nil {
		return nil, c, nil, refused("%s", err)
	}
	return token, c, keys, nil
}

// named tells whether the issuer makes tokens with an iss. Before the provider was ever asked, the root of
// its origin may be its name too (Authentik's global mode).
func (i *issuer) named(iss string) bool {
	if k := i.known.Load(); k != nil {
		return iss == k.Issuer
	}
	return iss == i.url || iss == root(i.url)
}

// Kind says whose tokens an audience's are.
type Kind string

// The kinds of audiences.
const (
	KindOperator Kind = "operator" // people of Dezky, by group
	KindService  Kind = "service"  // services, which read, or operate by group
	KindPortal   Kind = "portal"   // customers' people, who are never more than members
)

// Kinds are the kinds of audiences, the least trusted first.
var Kinds = []Kind{KindPortal, KindOperator, KindService}

// Audience is a pair of issuer and audience whose tokens are accepted.
type Audience struct {
	Kind   Kind
	Issuer string // as the configuration gives it
	Name   string // in aud
}

// trusted is an Audience with its issuer.
type trusted struct {
	Audience
	issuer *issuer
}

// JWTs verifies bearer JWTs. One that was verified lately costs one hash and one map read: no lock.
type JWTs struct {
	groups  Groups
	now     func() time.Time
	trusted []trusted
	cache   tokenCache
}

// Verify returns the principal of a token. The error is ErrToken for a bad one, ErrProviderAway where the
// provider would have to be asked and can't be.
func (js *JWTs) Verify(ctx context.Context, raw string) (*Principal, error) {
	if len(raw) > jwtMost {
		return nil, refused("longer than %d bytes", jwtMost)
	}
	hash, now := hashText(raw), js.now()
	if p := js.cache.get(hash, now); p != nil {
		return p, nil
	}
	e, err := js.verify(ctx, raw)
	if err != nil {
		return nil, err
	}
	if last := now.Add(cachedFor); e.until.After(last) {
		e.until = last
	}
	js.cache.put(hash, e)
	return e.principal, nil
}

// hashed are buffers of hashText.
var hashed = sync.Pool{New: func() any { return new([]byte) }}

// hashText is the SHA-256 of a text, without a copy of it for the collector.
func hashText(text string) [sha256.Size]byte {
	b := hashed.Get().(*[]byte)
	defer hashed.Put(b)
	*b = append((*b)[:0], text...)
	return sha256.Sum256(*b)
}

// verify is the whole check: cheap refusals first, then the signature, then what only a signed claim can say.
func (js *JWTs) verify(ctx context.Context, raw string) (*cached, error) {
	h, payload, err := readHeader(raw, "JWT", "at+jwt", "application/at+jwt")
	if err != nil {
		return nil, err
	}
	var unverified claims
	if err := decodePart(payload, &unverified); err != nil {
		return nil, refused("its claims can't be read: %s", err)
	}
	if unverified.Expires == nil {
		return nil, refused("has no exp")
	}
	now, until := js.now(), seconds(*unverified.Expires).Add(expLeeway)
	if !now.Before(until) {
		return nil, refused("expired at %s", seconds(*unverified.Expires).UTC().Format(time.RFC3339))
	}
	err = refused("issuer %q and audience %q are not trusted together", unverified.Issuer, []string(unverified.Audience))
	for _, t := range js.of(unverified) {
		var c claims
		var keys *keySet
		if _, c, keys, err = t.issuer.verify(ctx, raw, h); err == nil {
			if err := c.judge(h, now); err != nil {
				return nil, err
			}
			p := js.principal(t.Kind, c)
			p.Until = until
			return &cached{principal: p, issuer: t.issuer, keys: keys, until: until}, nil
		}
		if !errors.Is(err, ErrToken) {
			return nil, err
		} // else: an issuer in global mode shares its name with others, whose keys are others
	}
	return nil, err
}

// of returns the trusted pairs that a token names, the least trusted first: one for each provider.
func (js *JWTs) of(c claims) []trusted {
	var out []trusted
	for _, t := range js.trusted {
		if slices.Contains(c.Audience, t.Name) && t.issuer.named(c.Issuer) &&
			!slices.ContainsFunc(out, func(o trusted) bool { return o.issuer == t.issuer }) {
			out = append(out, t)
		}
	}
	return out
}

// judge refuses what is signed and yet no access token for now.
func (c *claims) judge(h header, now time.Time) error {
	ahead := func(at *float64) bool { return at != nil && seconds(*at).After(now.Add(aheadMost)) }
	marked := strings.HasSuffix(strings.ToLower(h.Type), "at+jwt") || c.Scope != nil || c.Client != "" && c.UID != nil
	switch {
	case c.Subject == "":
		return refused("has no sub")
	case c.Events != nil:
		return refused("is a logout token")
	case !marked:
		return refused("is an id token, not an access token")
	case ahead(c.IssuedAt):
		return &refusal{"was issued in the future", sameTime}
	case ahead(c.NotBefore):
		return refused("is not valid yet")
	}
	return nil
}

// principal is who a good token stands for.
func (js *JWTs) principal(kind Kind, c claims) *Principal {
	p := &Principal{Name: label(c.Email, c.Username, c.Subject), Via: flags.ViaAPI, Subject: c.Subject, Issuer: c.Issuer, Client: cmp.Or(c.Client, c.ClientID), Kind: kind}
	p.Consumer = p.consumer()
	c.describe(p)
	switch kind {
	case KindPortal:
		p.Role, p.Tenants, p.Partners = Member, slugsOf(c.groups(), tenantGroup), slugsOf(c.groups(), partnerGroup)
	case KindOperator:
		p.Role = js.groups.role(c.groups())
	case KindService:
		p.Role = max(Read, js.groups.role(c.groups()))
	}
	return p
}

// seconds is a NumericDate (RFC 7519, section 2); what lies beyond the year 9999 is that year.
func seconds(s float64) time.Time { return time.UnixMilli(int64(max(0, min(s, 253402300799)) * 1000)) }

// tokenCache remembers verified tokens by the SHA-256 of the whole token. Reading takes no lock. When it is
// full, one goes that was not used since the last round; what was verified by keys that are no longer the
// issuer's counts as not there.
type tokenCache struct {
	entries sync.Map // hash to *cached

	mu   sync.Mutex // of what follows
	ring [][sha256.Size]byte
	hand int
}

type cached struct {
	principal *Principal
	issuer    *issuer
	keys      *keySet
	until     time.Time
	used      atomic.Bool
}

func (tc *tokenCache) get(hash [sha256.Size]byte, now time.Time) *Principal {
	x, ok := tc.entries.Load(hash)
	if !ok {
		return nil
	}
	e := x.(*cached)
	if !now.Before(e.until) || e.issuer.known.Load().keys != e.keys {
		return nil
	}
	if !e.used.Load() { // a store each time would make a cache line of it that all share
		e.used.Store(true)
	}
	return e.principal
}

func (tc *tokenCache) put(hash [sha256.Size]byte, e *cached) {
	tc.mu.Lock()
	defer tc.mu.Unlock()
	if _, again := tc.entries.Swap(hash, e); again {
		return // it stands in the ring already
	}
	if len(tc.ring) < cachedMost {
		tc.ring = append(tc.ring, hash)
		return
	}
	for {
		x, _ := tc.entries.Load(tc.ring[tc.hand])
		if old := x.(*cached); !old.used.Swap(false) {
			break
		}
		tc.hand = (tc.hand + 1) % cachedMost
	}
	tc.entries.Delete(tc.ring[tc.hand])
	tc.ring[tc.hand] = hash
	tc.hand = (tc.hand + 1) % cachedMost
}
