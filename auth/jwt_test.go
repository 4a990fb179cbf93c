package auth

import (
	"crypto"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"encoding/base64"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"reflect"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/go-jose/go-jose/v4"

	"github.com/dezky/platform-api/auth/authtest"
	"github.com/dezky/platform-api/db/dbtest"
	"github.com/dezky/platform-api/flags"
)

// remembered counts the tokens that the cache holds, in its map and in its ring.
func (tc *tokenCache) remembered() (entries, ring int) {
	tc.entries.Range(func(any, any) bool { entries++; return true })
	return entries, len(tc.ring)
}

func TestPrincipalOfAToken(t *testing.T) {
	x := trusts(t, provider(t), dbtest.Open(t))
	p := x.provider
	groups := []string{"tenant:globex", "partner:nordhost", "tenant:acme", "tenant:acme", "tenant:", "partner:", "partner:fjordit", "dezky-operators"}
	p.SetGroups(authtest.AcmeSub, groups...)
	for _, tt := range []struct {
		client, sub string
		want        Principal
	}{
		{authtest.ConsoleID, authtest.OpsSub, Principal{Name: "ops@dezky.example", Role: Operator, Kind: KindOperator,
			Email: "ops@dezky.example", FullName: "Olivia Ops", Groups: []string{"dezky-operators"}}},
		{authtest.ConsoleID, authtest.StrangerSub, Principal{Name: "stranger@dezky.example", Kind: KindOperator,
			Email: "stranger@dezky.example", FullName: "Stella Stranger", Groups: []string{"marketing"}}},
		{authtest.ServiceID, authtest.ServiceSub(authtest.ServiceID), Principal{Name: authtest.ServiceID, Role: Read, Kind: KindService,
			FullName: authtest.ServiceID, Groups: []string{"dezky-services"}}},
		{authtest.PortalID, authtest.AcmeSub, Principal{Name: "alma@acme.example", Role: Member, Kind: KindPortal,
			Email: "alma@acme.example", FullName: "Alma of Acme", Groups: groups,
			Tenants: []string{"acme", "globex"}, Partners: []string{"fjordit", "nordhost"}}},
	} {
		tt.want.Via, tt.want.Subject, tt.want.Issuer, tt.want.Client = flags.ViaAPI, tt.sub, p.Issuer(), tt.client
		tt.want.Consumer = "client " + p.Issuer() + " " + tt.client
		token := p.AccessToken(tt.client, tt.sub)
		var c claims
		if _, payload, err := readHeader(token, "at+jwt", "JWT"); err != nil || decodePart(payload, &c) != nil {
			t.Fatal(err)
		}
		tt.want.Until = seconds(*c.Expires).Add(expLeeway)
		if got := x.want(t, nil, token); !reflect.DeepEqual(*got, tt.want) {
			t.Errorf("Verify(%s of %s) = %+v, want %+v", tt.sub, tt.client, *got, tt.want)
		}
	}
}

// Each algorithm of ours verifies, with a key that may sign with it.
func TestAlgorithms(t *testing.T) {
	for _, alg := range algorithmNames {
		t.Run(alg, func(t *testing.T) {
			x := trusts(t, authtest.New(t, authtest.Options{Alg: alg}), dbtest.Open(t))
			x.want(t, nil, x.service())
			parts := strings.Split(x.service(), ".")
			other := strings.Split(x.service(), ".")
			x.want(t, ErrToken, strings.Join([]string{parts[0], parts[1], other[2]}, "."))
		})
	}
}

// A key signs with one algorithm, its own, whatever a token says.
func TestKeyAlgorithms(t *testing.T) {
	weak, err := rsa.GenerateKey(rand.Reader, 1024)
	if err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct {
		name string
		key  jose.JSONWebKey
		want []jose.SignatureAlgorithm
	}{
		{"RSA", jose.JSONWebKey{Key: newKey(t, "RS256").Public()}, []jose.SignatureAlgorithm{"RS256"}},
		{"RSA for RS256", jose.JSONWebKey{Key: newKey(t, "RS256").Public(), Algorithm: "RS256"}, []jose.SignatureAlgorithm{"RS256"}},
		{"RSA for RS512", jose.JSONWebKey{Key: newKey(t, "RS256").Public(), Algorithm: "RS512"}, nil},
		{"RSA for HS256", jose.JSONWebKey{Key: newKey(t, "RS256").Public(), Algorithm: "HS256"}, nil},
		{"RSA of 1024 bits", jose.JSONWebKey{Key: weak.Public()}, nil},
		{"P-256", jose.JSONWebKey{Key: newKey(t, "ES256").Public()}, []jose.SignatureAlgorithm{"ES256"}},
		{"P-256 for ES512", jose.JSONWebKey{Key: newKey(t, "ES256").Public(), Algorithm: "ES512"}, nil},
		{"P-384", jose.JSONWebKey{Key: newKey(t, "ES384").Public()}, []jose.SignatureAlgorithm{"ES384"}},
		{"P-521", jose.JSONWebKey{Key: newKey(t, "ES512").Public()}, []jose.SignatureAlgorithm{"ES512"}},
		{"Ed25519", jose.JSONWebKey{Key: newKey(t, "EdDSA").Public()}, []jose.SignatureAlgorithm{"EdDSA"}},
		{"a secret", jose.JSONWebKey{Key: []byte("secret")}, nil},
	} {
		if got := keyAlgorithms(tt.key); !slices.Equal(got, tt.want) {
			t.Errorf("keyAlgorithms(%s) = %v, want %v", tt.name, got, tt.want)
		}
	}
}

// Of a published set, what can't verify our tokens is left out, and does no harm to the rest.
func TestParseKeys(t *testing.T) {
	good := newKey(t, "ES256")
	text := func(k jose.JSONWebKey) string {
		b, err := k.MarshalJSON()
		if err != nil {
			t.Fatal(err)
		}
		return string(b)
	}
	for name, key := range map[string]string{
		"for encryption":  text(jose.JSONWebKey{Key: newKey(t, "RS256").Public(), KeyID: "x", Use: "enc"}),
		"a private one":   text(jose.JSONWebKey{Key: newKey(t, "ES256"), KeyID: "x"}),
		"a secret":        text(jose.JSONWebKey{Key: []byte("0123456789abcdef0123456789abcdef"), KeyID: "x"}),
		"without a kid":   text(jose.JSONWebKey{Key: newKey(t, "ES256").Public()}),
		"of another alg":  text(jose.JSONWebKey{Key: newKey(t, "RS256").Public(), KeyID: "x", Algorithm: "RS512"}),
		"of unknown kind": `{"kty":"XYZ","kid":"x"}`,
		"no object":       `7`,
		"off its curve":   `{"kty":"EC","crv":"P-256","kid":"x","x":"AAAA","y":"AAAA"}`,
	} {
		set, err := parseKeys([]byte(`{"keys":[` + key + `,` + text(jose.JSONWebKey{Key: good.Public(), KeyID: "good", Use: "sig"}) + `]}`))
		if err != nil || len(set.byID) != 1 || set.byID["good"].Key == nil {
			t.Errorf("%s: parseKeys = %v, %v, want the good key alone", name, set, err)
		}
	}
	for _, body := range []string{``, `[]`, `{"keys":{}}`, `{"keys":"x"}`, `{"keys":[}`} {
		if set, err := parseKeys([]byte(body)); err == nil {
			t.Errorf("parseKeys(%s) = %v, want an error", body, set)
		}
	}
}

// by signs a header and claims that are given to the letter.
func by(t testing.TB, key crypto.Signer, header, claims string) string {
	t.Helper()
	encode := base64.RawURLEncoding.EncodeToString
	input := encode([]byte(header)) + "." + encode([]byte(claims))
	sum := sha256.Sum256([]byte(input))
	signature, err := key.Sign(rand.Reader, sum[:], crypto.SHA256)
	if err != nil {
		t.Fatal(err)
	}
	return input + "." + encode(signature)
}

// Names in a token count to the letter and once: nobody can read something else in it than we do.
func TestNamesInATokenAreExact(t *testing.T) {
	x := trusts(t, authtest.New(t, authtest.Options{}), dbtest.Open(t))
	p := x.provider
	header := fmt.Sprintf(`"alg":"RS256","kid":%q`, p.KeyID())
	claims := fmt.Sprintf(`"iss":%q,"aud":%q,"sub":"s1","exp":%d,"scope":"openid"`, p.Issuer(), authtest.ConsoleID, time.Now().Add(time.Minute).Unix())
	for _, tt := range []struct {
		name, header, claims string
		want                 error
	}{
		{"as they are", header, claims, nil},
		{"with others", header + `,"x":{"a":[1]}`, claims + `,"y":{"a":[1]}`, nil},
		{"kid in capitals", strings.Replace(header, "kid", "KID", 1), claims, ErrToken},
		{"alg in capitals", strings.Replace(header, "alg", "ALG", 1), claims, ErrToken},
		{"iss in capitals", header, strings.Replace(claims, "iss", "ISS", 1), ErrToken},
		{"sub in capitals", header, strings.Replace(claims, "sub", "Sub", 1), ErrToken},
		{"exp in capitals", header, strings.Replace(claims, "exp", "Exp", 1), ErrToken},
		{"kid twice", header + `,"kid":"x"`, claims, ErrToken},
		{"sub twice", header, claims + `,"sub":"s2"`, ErrToken},
		{"aud twice", header, claims + `,"aud":"dezky-portal"`, ErrToken},
		{"groups twice", header, claims + `,"groups":[],"groups":["dezky-operators"]`, ErrToken},
		{"something after", header, claims + `} {`, ErrToken},
		{"sub a number", header, strings.Replace(claims, `"s1"`, "1", 1), ErrToken},
		{"groups of numbers", header, claims + `,"groups":[1]`, ErrToken},
		{"groups null", header, claims + `,"groups":null`, nil},
		{"azp a list", header, claims + `,"azp":["a"]`, ErrToken},
		{"exp beyond all time", header, strings.Replace(claims, `"exp":`, `"exp":9`, 1), nil},
		{"exp below zero", header, strings.Replace(claims, `"exp":`, `"exp":-`, 1), ErrToken},
		{"exp of an impossible size", header, strings.Replace(claims, `"exp":`, `"x":1,"exp":1e999,"z":`, 1), ErrToken},
	} {
		t.Run(tt.name, func(t *testing.T) { x.want(t, tt.want, by(t, p.Key(), "{"+tt.header+"}", "{"+tt.claims+"}")) })
	}
	t.Run("groups in capitals", func(t *testing.T) {
		got := x.want(t, nil, by(t, p.Key(), "{"+header+"}", "{"+claims+`,"Groups":["dezky-operators"]}`))
		if got.Role != Nobody {
			t.Errorf("the role is %v, want %v", got.Role, Nobody)
		}
	})
}

// The clocks of provider and appliance may be a minute apart.
func TestClocksApart(t *testing.T) {
	for _, tt := range []struct {
		offset time.Duration // of the provider
		life   time.Duration
		want   error
	}{
		{time.Minute - time.Second, 5 * time.Minute, nil},
		{time.Minute + 5*time.Second, 5 * time.Minute, ErrToken}, // issued in the future
		{-time.Minute, 5 * time.Minute, nil},
		{-time.Minute, 40 * time.Second, nil},      // expired for 20 s
		{-time.Minute, 29 * time.Second, ErrToken}, // expired for 31 s
	} {
		t.Run(fmt.Sprintf("%v off, tokens of %v", tt.offset, tt.life), func(t *testing.T) {
			x := trusts(t, authtest.New(t, authtest.Options{Alg: "ES256", AccessTokenLife: tt.life}), dbtest.Open(t))
			x.provider.SetOffset(tt.offset)
			x.want(t, tt.want, x.service())
		})
	}
	t.Run("the log says so", func(t *testing.T) {
		x := trusts(t, provider(t), dbtest.Open(t))
		x.provider.SetOffset(10 * time.Minute)
		if _, err := x.JWTs.Verify(t.Context(), x.service()); err == nil || !strings.Contains(err.Error(), sameTime) {
			t.Errorf("Verify = %v, want one that says: %s", err, sameTime)
		}
	})
}

// A token is verified once in five minutes, and never taken after its end.
func TestVerifiedTokensAreRemembered(t *testing.T) {
	x := trusts(t, authtest.New(t, authtest.Options{Alg: "ES256", AccessTokenLife: time.Hour}), dbtest.Open(t))
	long := x.service()
	first := x.want(t, nil, long)
	x.move(cachedFor - time.Second)
	if again := x.want(t, nil, long); again != first {
		t.Error("before five minutes it is verified again")
	}
	x.move(time.Second)
	second := x.want(t, nil, long)
	if second == first {
		t.Error("after five minutes it is not verified again")
	}
	x.move(time.Second)
	if again := x.want(t, nil, long); again != second {
		t.Error("it is verified each time after five minutes")
	}

	x.provider.SetAccessTokenLife(time.Minute)
	short := x.service()
	x.want(t, nil, short)
	x.move(time.Minute + expLeeway - 2*time.Second)
	x.want(t, nil, short)
	x.move(2 * time.Second)
	x.want(t, ErrToken, short)
	if entries, ring := x.JWTs.cache.remembered(); entries != 2 || ring != 2 {
		t.Errorf("%d entries and %d in the ring, want 2 of each: a token has one place", entries, ring)
	}
}

// What was refused may be good later.
func TestFailuresAreNotRemembered(t *testing.T) {
	x := trusts(t, provider(t), dbtest.Open(t))
	claims := x.provider.Claims(authtest.ServiceID, authtest.OpsSub)
	claims["nbf"] = time.Now().Add(2 * time.Minute).Unix()
	soon := x.provider.Token(claims)
	for range 3 {
		x.want(t, ErrToken, soon)
	}
	x.provider.Break(authtest.Keys, authtest.Failing)
	x.provider.RotateKey()
	next := x.service()
	x.want(t, ErrProviderAway, next)
	if entries, ring := x.JWTs.cache.remembered(); entries != 0 || ring != 0 {
		t.Errorf("%d entries and %d in the ring, want none", entries, ring)
	}
	x.provider.Break(authtest.Keys, authtest.None)
	x.want(t, nil, next)
	claims["exp"] = time.Now().Add(time.Hour).Unix()
	soon = x.provider.Token(claims)
	x.want(t, ErrToken, soon)
	x.move(time.Minute + time.Second)
	x.want(t, nil, soon)
}

// One token that was verified vouches for no other that differs in a letter.
func TestTheWholeTokenIsRemembered(t *testing.T) {
	x := trusts(t, provider(t), dbtest.Open(t))
	good := x.service()
	x.want(t, nil, good)
	for n := range len(good) - 1 { // the last one has bits that count for nothing
		if good[n] == '.' {
			continue
		}
		other := byte('A')
		if good[n] == other {
			other = 'Q'
		}
		changed := good[:n] + string(other) + good[n+1:]
		if p, err := x.JWTs.Verify(t.Context(), changed); err == nil {
			t.Errorf("with another letter at %d it is taken, for %s", n, p.Name)
		}
	}
}

// The cache never holds more than it may; those that are used stay when others go.
func TestTheCacheEvicts(t *testing.T) {
	tc, now := &tokenCache{}, time.Now()
	i := &issuer{}
	keys := &keySet{}
	i.known.Store(&knowledge{keys: keys})
	hash := func(n int) (h [sha256.Size]byte) {
		binary.BigEndian.PutUint64(h[:], uint64(n))
		return h
	}
	put := func(n int) {
		tc.put(hash(n), &cached{principal: &Principal{Name: fmt.Sprint(n)}, issuer: i, keys: keys, until: now.Add(time.Minute)})
	}
	full := func(after string) {
		t.Helper()
		if entries, ring := tc.remembered(); entries != cachedMost || ring != cachedMost {
			t.Fatalf("after %s: %d entries and %d in the ring, want %d of each", after, entries, ring, cachedMost)
		}
	}
	for n := range cachedMost {
		put(n)
	}
	full("the first ten thousand")
	for n := range 100 { // these are in use
		if p := tc.get(hash(n), now); p == nil || p.Name != fmt.Sprint(n) {
			t.Fatalf("get(%d) = %v, want its principal", n, p)
		}
	}
	put(0) // verified anew, and not used since
	full("one that was there")
	for n := range 100 {
		put(cachedMost + n)
	}
	full("a hundred more")
	for _, x := range []struct {
		from, to int
		there    bool
	}{{1, 100, true}, {0, 1, false}, {100, 199, false}, {199, cachedMost + 100, true}} {
		for n := x.from; n < x.to; n++ {
			if p := tc.get(hash(n), now); (p != nil) != x.there {
				t.Fatalf("get(%d) = %v, want it there: %t", n, p, x.there)
			}
		}
	}
	for n := range 3 * cachedMost {
		put(2*cachedMost + n)
	}
	full("three times as many")
	if p := tc.get(hash(5*cachedMost-1), now); p == nil {
		t.Error("the newest is not there")
	}
	if p := tc.get(hash(5*cachedMost-1), now.Add(time.Minute)); p != nil {
		t.Error("one that has ended is there")
	}
	i.known.Store(&knowledge{keys: &keySet{}})
	for n := range cachedMost {
		if p := tc.get(hash(4*cachedMost+n), now); p != nil {
			t.Fatalf("after the keys have changed: get(%d) = %v, want none", n, p)
		}
	}
}

func TestTheCacheAtOnce(t *testing.T) {
	tc, now := &tokenCache{}, time.Now()
	i, keys := &issuer{}, &keySet{}
	i.known.Store(&knowledge{keys: keys})
	var all sync.WaitGroup
	for range 8 {
		all.Go(func() {
			for n := range 5000 {
				var h [sha256.Size]byte
				binary.BigEndian.PutUint64(h[:], uint64(n*7919%15000))
				if tc.get(h, now) == nil {
					tc.put(h, &cached{principal: &Principal{}, issuer: i, keys: keys, until: now.Add(time.Minute)})
				}
			}
		})
	}
	all.Wait()
	entries, ring := tc.remembered()
	places := map[[sha256.Size]byte]bool{}
	for _, h := range tc.ring {
		places[h] = true
	}
	if entries != ring || entries != len(places) || entries > cachedMost {
		t.Errorf("%d entries, %d in the ring, %d of them different, want as many of each", entries, ring, len(places))
	}
}

// Ten thousand tokens, as Authentik makes them, take a few megabytes.
func TestTheCacheIsSmall(t *testing.T) {
	x := trusts(t, provider(t), dbtest.Open(t))
	x.want(t, nil, x.service())
	i := x.issuers[0]
	text, err := json.Marshal(x.provider.Claims(authtest.PortalID, authtest.AcmeSub))
	if err != nil {
		t.Fatal(err)
	}
	heap := func() uint64 {
		runtime.GC()
		runtime.GC()
		var m runtime.MemStats
		runtime.ReadMemStats(&m)
		return m.HeapAlloc
	}
	before := heap()
	for n := range cachedMost {
		var c claims // each with texts of its own, as they come out of a token
		if err := json.Unmarshal(text, &c); err != nil {
			t.Fatal(err)
		}
		x.JWTs.cache.put(sha256.Sum256(fmt.Append(nil, n)), &cached{principal: x.JWTs.principal(KindPortal, c), issuer: i, keys: i.known.Load().keys, until: time.Now().Add(time.Minute)})
	}
	after := heap()
	if entries, _ := x.JWTs.cache.remembered(); entries != cachedMost {
		t.Fatalf("%d tokens are remembered, want %d", entries, cachedMost)
	}
	took := float64(int64(after)-int64(before)) / (1 << 20)
	t.Logf("%d tokens take %.1f MiB", cachedMost, took)
	if took > 10 {
		t.Errorf("%d tokens take %.1f MiB, want at most 10", cachedMost, took)
	}
	runtime.KeepAlive(x)
}

func TestRefusalsAreErrToken(t *testing.T) {
	x := trusts(t, provider(t), dbtest.Open(t))
	long := x.provider.Claims(authtest.ServiceID, authtest.OpsSub)
	long["iss"] = strings.Repeat("\x00ø", 2000)
	for _, token := range []string{"", ".", "..", "...", "a.b", "a.b.c", "a.b.c.d", "a.b.c.d.e", " . . ", strings.Repeat("a", jwtMost), strings.Repeat("a", jwtMost+1),
		"e30.e30.", "bnVsbA.bnVsbA.", "{\"payload\":\"e30\",\"signatures\":[]}", x.provider.Token(long)} {
		p, err := x.JWTs.Verify(t.Context(), token)
		if p != nil || !errors.Is(err, ErrToken) || errors.Is(err, ErrProviderAway) || len(err.Error()) > causeLength+50 {
			t.Errorf("Verify(%.40q) = %v, %v, want ErrToken, shortly", token, p, err)
		}
	}
	if got := x.provider.Fetches(authtest.Discovery); got != 0 {
		t.Errorf("they caused %d fetches, want none", got)
	}
}
