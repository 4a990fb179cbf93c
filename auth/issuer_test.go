package auth

import (
	"bytes"
	"context"
	"crypto"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/dezky/platform-api/auth/authtest"
	"github.com/dezky/platform-api/db"
	"github.com/dezky/platform-api/db/dbtest"
)

// party is who trusts a provider. Nothing goes on in the background unless a test runs it.
type party struct {
	*OpenID
	provider *authtest.Provider
	ahead    *atomic.Int64 // how far its clock is ahead, in nanoseconds
	log      *lines
}

// lines is a log that can be read while it is written.
type lines struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *lines) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *lines) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}

// provider starts a provider whose keys are quickly made.
func provider(t testing.TB) *authtest.Provider {
	return authtest.New(t, authtest.Options{Alg: "ES256"})
}

// audiences are those of a provider's clients.
func audiences(issuer string) []Audience {
	return []Audience{{KindOperator, issuer, authtest.ConsoleID}, {KindService, issuer, authtest.ServiceID}, {KindPortal, issuer, authtest.PortalID}}
}

// trusts returns who trusts a provider, and keeps what it learns in the database.
func trusts(t testing.TB, p *authtest.Provider, d *db.DB, as ...Audience) *party {
	t.Helper()
	x := &party{provider: p, ahead: new(atomic.Int64), log: &lines{}}
	if as == nil {
		as = audiences(p.Issuer())
	}
	life, end := context.WithCancel(context.Background())
	var err error
	x.OpenID, err = NewOpenID(life, OpenIDOptions{DB: d, Audiences: as, Groups: Groups{Operator: "dezky-operators", Read: "dezky-viewers"},
		Now: func() time.Time { return time.Now().Add(time.Duration(x.ahead.Load())) }, Log: slog.New(slog.NewJSONHandler(x.log, nil))})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		end()
		x.settle()
	})
	return x
}

// settle waits until no fetch is under way.
func (x *party) settle() {
	for _, i := range x.issuers {
		i.mu.Lock()
		f := i.flight
		i.mu.Unlock()
		if f != nil {
			<-f.done
		}
	}
}

// move moves the clocks of both.
func (x *party) move(d time.Duration) { x.provider.SetOffset(time.Duration(x.ahead.Add(int64(d)))) }

// service is a new token of the service, signed with the present key.
func (x *party) service() string {
	return x.provider.AccessToken(authtest.ServiceID, authtest.ServiceSub(authtest.ServiceID))
}

// strange is a token with a kid that is not the provider's.
func (x *party) strange(kid string) string {
	return x.provider.Token(x.provider.Claims(authtest.ServiceID, authtest.OpsSub), authtest.Header("kid", kid))
}

// want verifies a token that is to give the error, or none.
func (x *party) want(t testing.TB, want error, token string) *Principal {
	t.Helper()
	p, err := x.JWTs.Verify(t.Context(), token)
	if !errors.Is(err, want) || (p == nil) != (want != nil) || want == ErrToken && errors.Is(err, ErrProviderAway) {
		t.Fatalf("Verify = %+v, %v, want the error %v", p, err, want)
	}
	return p
}

// fetches is how often the provider was asked for its keys.
func (x *party) fetches() int { return x.provider.Fetches(authtest.Keys) }

func TestAKnownKeyFetchesNothing(t *testing.T) {
	x := trusts(t, provider(t), dbtest.Open(t))
	x.want(t, nil, x.service())
	for range 20 {
		x.move(40 * time.Second)
		x.want(t, nil, x.service())
	}
	if got := x.fetches(); got != 1 {
		t.Errorf("twenty tokens in 14 minutes caused %d fetches, want 1", got)
	}
}

func TestAnUnknownKeyFetchesThriceInHalfAMinute(t *testing.T) {
	x := trusts(t, provider(t), dbtest.Open(t))
	x.want(t, nil, x.service())
	for n, want := range []int{2, 3, 3, 3} {
		x.want(t, ErrToken, x.strange(fmt.Sprint("theirs-", n)))
		if got := x.fetches(); got != want {
			t.Errorf("%d unknown kids caused %d fetches, want %d", n+1, got, want)
		}
	}
	x.move(keyFetchWindow - time.Second)
	x.want(t, ErrToken, x.strange("theirs"))
	if got := x.fetches(); got != 3 {
		t.Errorf("within half a minute: %d fetches, want 3", got)
	}
	x.move(time.Second)
	for range 5 {
		x.want(t, ErrToken, x.strange("theirs"))
	}
	if got := x.fetches(); got != 6 {
		t.Errorf("half a minute later: %d fetches, want 6", got)
	}
}

// Whether a fetch is allowed, and its beginning, are one step: many who come at once must not each see
// room for it.
func TestUnknownKeysAtOnceFetchThrice(t *testing.T) {
	x := trusts(t, provider(t), dbtest.Open(t))
	x.want(t, nil, x.service())
	i := x.issuers[0]
	for range 20 {
		before := x.fetches()
		x.move(keyFetchWindow)
		var all sync.WaitGroup
		for range 200 {
			all.Go(func() {
				for range 5 {
					if _, _, err := i.key(t.Context(), "theirs"); !errors.Is(err, errNoSuchKey) {
						t.Errorf("key = %v, want errNoSuchKey", err)
					}
				}
			})
		}
		all.Wait()
		if got := x.fetches() - before; got != 3 {
			t.Fatalf("a thousand unknown kids at once caused %d fetches, want 3", got)
		}
	}
}

// Keys of a quarter of an hour are asked for again by whoever uses them, who does not wait for it.
func TestUseRefreshesKeys(t *testing.T) {
	x := trusts(t, provider(t), dbtest.Open(t))
	x.want(t, nil, x.service())
	x.move(keysFresh - time.Second)
	x.want(t, nil, x.service())
	if got := x.fetches(); got != 1 {
		t.Fatalf("a second before: %d fetches, want 1", got)
	}
	stall := x.provider.Stall(authtest.Keys)
	x.move(time.Second)
	for range 10 {
		x.want(t, nil, x.service())
	}
	<-stall.Arrived
	stall.Release()
	x.settle()
	x.want(t, nil, x.service())
	if got := x.fetches(); got != 2 {
		t.Errorf("%d fetches, want 2: the second is shared", got)
	}
}

// While the provider is away its keys serve on, for a day; it is not asked more often for that.
func TestStaleKeysServeForADay(t *testing.T) {
	x := trusts(t, provider(t), dbtest.Open(t))
	x.want(t, nil, x.service())
	x.provider.Break(authtest.Discovery, authtest.Failing)
	x.move(time.Hour)
	before := x.provider.Fetches(authtest.Discovery)
	for range 100 {
		x.want(t, nil, x.service())
		x.settle()
	}
	if got := x.provider.Fetches(authtest.Discovery) - before; got != keyFetches {
		t.Errorf("100 tokens with keys of an hour caused %d fetches, want %d", got, keyFetches)
	}
	if got := len(x.issuers[0].fetches); got > keyFetches {
		t.Errorf("%d fetches are remembered, want %d", got, keyFetches)
	}
	x.move(keysMost - time.Hour - time.Second)
	last := x.service()
	x.want(t, nil, last)
	x.move(time.Second)
	x.want(t, ErrProviderAway, x.service())
	if got := x.State(); got != "away" {
		t.Errorf("State = %q, want away", got)
	}
	x.provider.Break(authtest.Discovery, authtest.None)
	x.move(keyFetchWindow)
	x.want(t, nil, x.service())
	if got := x.State(); got != "ok" {
		t.Errorf("State = %q, want ok", got)
	}
}

// While the provider is away nobody can say that a key is not one of its.
func TestAnUnknownKeyWhileTheProviderIsAway(t *testing.T) {
	x := trusts(t, provider(t), dbtest.Open(t))
	x.want(t, nil, x.service())
	x.want(t, ErrToken, x.strange("theirs"))
	x.provider.Stop()
	x.want(t, ErrProviderAway, x.strange("theirs"))
	x.want(t, nil, x.service())
	x.move(keyFetchWindow)
	x.want(t, ErrProviderAway, x.strange("theirs"))
	if err := x.provider.Restart(); err != nil {
		t.Fatal(err)
	}
	x.want(t, ErrToken, x.strange("theirs"))
}

// A rotated key is noticed by the first token with the new one. What the old one signed is refused then,
// remembered or not.
func TestRotationIsNoticedAtOnce(t *testing.T) {
	x := trusts(t, provider(t), dbtest.Open(t))
	remembered, unseen := x.service(), x.service()
	x.want(t, nil, remembered)
	x.provider.RotateKey()
	x.want(t, nil, remembered) // nobody knows yet
	x.want(t, nil, x.service())
	x.want(t, ErrToken, remembered)
	x.want(t, ErrToken, unseen)
}

// What verified a token while the keys changed does not outlive them.
func TestRotationAmongManyTokens(t *testing.T) {
	x := trusts(t, provider(t), dbtest.Open(t))
	for range 20 {
		old := make([]string, 16)
		for n := range old {
			old[n] = x.service()
		}
		x.want(t, nil, old[0])
		x.provider.RotateKey()
		next := x.service()
		x.move(keyFetchWindow)
		var all sync.WaitGroup
		for _, token := range append(old, next) {
			all.Go(func() {
				for range 10 {
					if _, err := x.JWTs.Verify(t.Context(), token); err != nil && !errors.Is(err, ErrToken) {
						t.Error(err)
					}
				}
			})
		}
		all.Wait()
		x.want(t, nil, next)
		x.move(keyFetchWindow)
		for _, token := range old {
			x.want(t, ErrToken, token)
		}
	}
}

func TestKeysOutliveARestart(t *testing.T) {
	p, d := provider(t), dbtest.Open(t)
	first := trusts(t, p, d)
	first.want(t, nil, first.service())
	asked := first.Providers()[0].Asked
	p.Stop()
	second := trusts(t, p, d)
	second.want(t, nil, second.service())
	if got := second.Providers()[0]; got.Issuer != p.Issuer() || !got.Asked.Equal(asked.Truncate(time.Millisecond)) {
		t.Errorf("after a restart: %+v, want one asked at %v", got, asked)
	}
	if got := second.State(); got != "ok" {
		t.Errorf("State = %q, want ok: nobody has found it away yet", got)
	}
	second.want(t, ErrProviderAway, second.strange("theirs"))

	late := trusts(t, p, d)
	late.move(keysMost)
	late.want(t, ErrProviderAway, late.service())
	if err := p.Restart(); err != nil {
		t.Fatal(err)
	}
	late.want(t, nil, late.service())

	// A day later, the keys of before count for nothing at the next start.
	p.Stop()
	ahead := late.ahead.Load() + int64(keysMost)
	life, end := context.WithCancel(t.Context())
	defer end()
	o, err := NewOpenID(life, OpenIDOptions{DB: d, Audiences: audiences(p.Issuer()), Log: slog.New(slog.DiscardHandler),
		Now: func() time.Time { return time.Now().Add(time.Duration(ahead)) }})
	if err != nil {
		t.Fatal(err)
	}
	if o.issuers[0].known.Load() != nil {
		t.Error("keys of a day ago are loaded, want none")
	}
}

// What is kept and can't be read keeps nobody from starting.
func TestKeptKeysThatCannotBeRead(t *testing.T) {
	p, d := provider(t), dbtest.Open(t)
	for _, kept := range []db.Provider{
		{URL: p.Issuer(), Document: `{"issuer":7}`, Keys: `{}`, FetchedAt: time.Now()},
		{URL: p.Issuer(), Document: `{}`, Keys: `{"keys":7}`, FetchedAt: time.Now()},
	} {
		if err := d.PutProvider(t.Context(), kept); err != nil {
			t.Fatal(err)
		}
		x := trusts(t, p, d)
		if !strings.Contains(x.log.String(), "kept provider not read") {
			t.Errorf("the log does not say it: %s", x.log)
		}
		x.want(t, nil, x.service())
	}
}

// The well-known mistakes are told in words that help, and whether somebody has to do something.
func TestTrouble(t *testing.T) {
	for _, tt := range []struct {
		name          string
		make          func(p *authtest.Provider)
		issuer        func(p *authtest.Provider) string // as configured; nil: rightly
		cause, remedy string                            // ISSUER and HOST are the provider's
		away          bool
	}{
		{"stopped", (*authtest.Provider).Stop, nil, "discovery: Get \"ISSUER.well-known/openid-configuration\": dial tcp HOST: connect: connection refused", "", true},
		{"discovery failing", broken(authtest.Discovery, authtest.Failing), nil, "ISSUER.well-known/openid-configuration answers 500 Internal Server Error", "", true},
		{"discovery away", broken(authtest.Discovery, authtest.Away), nil, "discovery: Get \"ISSUER.well-known/openid-configuration\": EOF", "", true},
		{"discovery rubbish", broken(authtest.Discovery, authtest.Rubbish), nil, "the discovery document at ISSUER.well-known/openid-configuration is not JSON of the right form",
			"check that the issuer is an OpenID provider's", false},
		{"discovery of 2 MiB", broken(authtest.Discovery, authtest.Huge), nil, "ISSUER.well-known/openid-configuration is larger than 1048576 bytes", "", false},
		{"keys failing", broken(authtest.Keys, authtest.Failing), nil, "ISSUERjwks/ answers 500 Internal Server Error", "", true},
		{"keys away", broken(authtest.Keys, authtest.Away), nil, "keys: Get \"ISSUERjwks/\": EOF", "", true},
		{"keys rubbish", broken(authtest.Keys, authtest.Rubbish), nil, "the key set at ISSUERjwks/ can't be read", "", false},
		{"keys of 2 MiB", broken(authtest.Keys, authtest.Huge), nil, "ISSUERjwks/ is larger than 1048576 bytes", "", false},
		{"no signing key", habit(authtest.NoSigningKey), nil, "the key set at ISSUERjwks/ has no signing key, and tokens are signed with HS256",
			"choose a Signing Key in the Authentik provider", false},
		{"the slash is not in the configuration", nil, func(p *authtest.Provider) string { return strings.TrimSuffix(p.Issuer(), "/") },
			`the issuer is configured as "SLASHLESS", and the provider says that it is "ISSUER"`, `the two differ by the slash at the end; configure "ISSUER"`, false},
		{"the slash is in the configuration alone", habit(authtest.NoTrailingSlash), nil,
			`the issuer is configured as "ISSUER", and the provider says that it is "SLASHLESS"`, `the two differ by the slash at the end; configure "SLASHLESS"`, false},
		{"internal against public host name", habit(authtest.OtherHost), nil,
			`the issuer is configured as "ISSUER", and the provider says that it is "OTHER"`,
			"Authentik builds its issuer from the host name that it is asked by; use the public host name here too", false},
		{"another slug", nil, func(p *authtest.Provider) string { return p.URL() + "/application/o/mistyped/" },
			"MISTYPED.well-known/openid-configuration answers 404", "check the application's slug in the issuer, https://HOST/application/o/SLUG/", false},
	} {
		t.Run(tt.name, func(t *testing.T) {
			p := provider(t)
			if tt.make != nil {
				tt.make(p)
			}
			issuer := p.Issuer()
			if tt.issuer != nil {
				issuer = tt.issuer(p)
			}
			host := strings.TrimPrefix(p.URL(), "http://")
			fill := func(s string) string {
				if strings.Contains(s, "https://HOST") {
					return s
				}
				return strings.NewReplacer("ISSUER", p.Issuer(), "SLASHLESS", strings.TrimSuffix(p.Issuer(), "/"), "MISTYPED", issuer,
					"OTHER", strings.Replace(p.Issuer(), "127.0.0.1", "localhost", 1), "HOST", host).Replace(s)
			}
			x := trusts(t, p, dbtest.Open(t), audiences(issuer)...)
			claims := p.Claims(authtest.ServiceID, authtest.OpsSub)
			claims["iss"] = issuer
			x.want(t, ErrProviderAway, p.Token(claims))
			got := x.Providers()[0].Trouble
			if got == nil || got.Cause != fill(tt.cause) || got.Remedy != fill(tt.remedy) || got.Away != tt.away {
				t.Errorf("Trouble = %+v\nwant cause  %s\nand remedy  %s\naway %t", got, fill(tt.cause), fill(tt.remedy), tt.away)
			}
			state := "misconfigured"
			if tt.away {
				state = "away"
			}
			if got := x.State(); got != state {
				t.Errorf("State = %q, want %q", got, state)
			}
			if !strings.Contains(x.log.String(), "identity provider can't be used") {
				t.Errorf("the log does not say it: %s", x.log)
			}
		})
	}
}

func broken(e authtest.Endpoint, f authtest.Fault) func(*authtest.Provider) {
	return func(p *authtest.Provider) { p.Break(e, f) }
}

func habit(h authtest.Habit) func(*authtest.Provider) {
	return func(p *authtest.Provider) { p.Set(h, true) }
}

// Whatever becomes of the provider, the keys that are known go on, and its return mends all.
func TestEarlierKeysGoOn(t *testing.T) {
	for name, spoil := range map[string]func(*authtest.Provider){
		"discovery failing": broken(authtest.Discovery, authtest.Failing),
		"keys failing":      broken(authtest.Keys, authtest.Failing),
		"keys rubbish":      broken(authtest.Keys, authtest.Rubbish),
		"keys of 2 MiB":     broken(authtest.Keys, authtest.Huge),
		"no signing key":    habit(authtest.NoSigningKey),
		"no slash":          habit(authtest.NoTrailingSlash),
		"another host name": habit(authtest.OtherHost),
	} {
		t.Run(name, func(t *testing.T) {
			x := trusts(t, provider(t), dbtest.Open(t))
			good := x.provider.Token(x.provider.Claims(authtest.ServiceID, authtest.OpsSub))
			other := x.provider.Token(x.provider.Claims(authtest.ServiceID, authtest.OpsSub))
			x.want(t, nil, good)
			theirs := x.strange("theirs")
			spoil(x.provider)
			x.want(t, ErrProviderAway, theirs)
			if x.Providers()[0].Trouble == nil {
				t.Error("Trouble = nil, want what is wrong")
			}
			x.want(t, nil, good)
			x.want(t, nil, other)
			for _, e := range []authtest.Endpoint{authtest.Discovery, authtest.Keys} {
				x.provider.Break(e, authtest.None)
			}
			for _, h := range []authtest.Habit{authtest.NoSigningKey, authtest.NoTrailingSlash, authtest.OtherHost} {
				x.provider.Set(h, false)
			}
			x.move(keyFetchWindow)
			x.want(t, ErrToken, x.strange("theirs"))
			if got := x.Providers()[0]; got.Trouble != nil || x.State() != "ok" {
				t.Errorf("mended: %+v, %s, want no trouble", got.Trouble, x.State())
			}
		})
	}
}

// A key of use enc is no signing key; the other one is used on, and encrypted tokens are refused.
func TestEncryptionKey(t *testing.T) {
	x := trusts(t, provider(t), dbtest.Open(t))
	x.provider.Set(authtest.EncryptedTokens, true)
	x.want(t, nil, x.provider.Token(x.provider.Claims(authtest.ServiceID, authtest.OpsSub)))
	if got := len(x.issuers[0].known.Load().keys.byID); got != 1 {
		t.Errorf("%d keys are known, want the signing key alone", got)
	}
	x.want(t, ErrToken, x.service())
	_, err := x.JWTs.Verify(t.Context(), x.service())
	if err == nil || !strings.Contains(err.Error(), "leave Encryption Key empty in the Authentik provider") {
		t.Errorf("an encrypted token: %v, want what to change", err)
	}
}

// Authentik's global mode: the issuer is the host, while discovery stays at the application.
func TestGlobalIssuer(t *testing.T) {
	x := trusts(t, provider(t), dbtest.Open(t))
	x.provider.Set(authtest.GlobalIssuer, true)
	p := x.want(t, nil, x.service())
	if want := x.provider.URL() + "/"; p.Issuer != want || x.Providers()[0].Issuer != want {
		t.Errorf("the issuer is %q, and %q to the console, want %q", p.Issuer, x.Providers()[0].Issuer, want)
	}
	claims := x.provider.Claims(authtest.ServiceID, authtest.OpsSub)
	for _, iss := range []string{x.provider.Issuer(), x.provider.URL(), strings.TrimSuffix(x.provider.Issuer(), "/")} {
		claims["iss"] = iss
		x.want(t, ErrToken, x.provider.Token(claims))
	}
}

// Two applications of one Authentik in global mode share the issuer. Each has its own keys, and the kind
// of an audience counts for the one application whose it is.
func TestApplicationsThatShareAnIssuer(t *testing.T) {
	clients := func(ids ...string) (cs []authtest.Client) {
		for _, id := range ids {
			cs = append(cs, authtest.Client{ID: id, Secret: "x"})
		}
		return cs
	}
	a := authtest.New(t, authtest.Options{Slug: "a", Clients: clients("ours", "shared")})
	b := authtest.New(t, authtest.Options{Slug: "b", Clients: clients("ours", "theirs", "shared")})
	mux := http.NewServeMux()
	for slug, p := range map[string]*authtest.Provider{"a": a, "b": b} {
		p.Set(authtest.GlobalIssuer, true)
		to, err := url.Parse(p.URL())
		if err != nil {
			t.Fatal(err)
		}
		mux.Handle("/application/o/"+slug+"/", &httputil.ReverseProxy{Rewrite: func(r *httputil.ProxyRequest) {
			r.SetURL(to)
			r.Out.Host = r.In.Host
		}})
	}
	host := httptest.NewServer(mux)
	defer host.Close()
	issuerA, issuerB := host.URL+"/application/o/a/", host.URL+"/application/o/b/"
	x := trusts(t, a, dbtest.Open(t), Audience{KindService, issuerA, "ours"}, Audience{KindPortal, issuerB, "theirs"},
		Audience{KindOperator, issuerA, "shared"}, Audience{KindPortal, issuerB, "shared"})
	token := func(p *authtest.Provider, client string) string {
		claims := p.Claims(client, authtest.OpsSub)
		claims["iss"] = host.URL + "/"
		return p.Token(claims)
	}
	for range 2 { // not asked yet, and asked
		for _, tt := range []struct {
			name, token string
			want        Role
		}{
			{"of the one", token(a, "ours"), Operator},
			{"of the other", token(b, "theirs"), Member},
			{"of the one, for what both have", token(a, "shared"), Operator},
			{"of the other, for what both have", token(b, "shared"), Member},
		} {
			if p := x.want(t, nil, tt.token); p.Role != tt.want {
				t.Errorf("%s: the role is %v, want %v", tt.name, p.Role, tt.want)
			}
		}
		x.want(t, ErrToken, token(b, "ours"))
	}
}

// One who goes away does not end the fetch for the others.
func TestWhoWaitsForAFetch(t *testing.T) {
	x := trusts(t, provider(t), dbtest.Open(t))
	stall := x.provider.Stall(authtest.Keys)
	token := x.service()
	first, leave := context.WithCancel(t.Context())
	left := make(chan error)
	go func() {
		_, err := x.JWTs.Verify(first, token)
		left <- err
	}()
	<-stall.Arrived
	stayed := make(chan error)
	for range 10 {
		go func() {
			_, err := x.JWTs.Verify(t.Context(), token)
			stayed <- err
		}()
	}
	leave()
	if err := <-left; !errors.Is(err, context.Canceled) || errors.Is(err, ErrToken) || errors.Is(err, ErrProviderAway) {
		t.Errorf("who went away: %v, want %v", err, context.Canceled)
	}
	stall.Release()
	for range 10 {
		if err := <-stayed; err != nil {
			t.Errorf("who stayed: %v, want a principal", err)
		}
	}
	if got := x.fetches(); got != 1 {
		t.Errorf("%d fetches, want one for all", got)
	}
}

// The end waits for a fetch that is under way, which ends at once and says nothing of trouble.
func TestTheEndOfAFetch(t *testing.T) {
	p, log := provider(t), &lines{}
	life, end := context.WithCancel(t.Context())
	o, err := NewOpenID(life, OpenIDOptions{DB: dbtest.Open(t), Audiences: audiences(p.Issuer()), Now: time.Now, Log: slog.New(slog.NewJSONHandler(log, nil))})
	if err != nil {
		t.Fatal(err)
	}
	stall := p.Stall(authtest.Keys)
	ended := make(chan struct{})
	go func() {
		o.Run(life)
		close(ended)
	}()
	<-stall.Arrived
	end()
	<-ended
	if o.issuers[0].flight != nil {
		t.Error("a fetch is still under way")
	}
	if log.String() != "" {
		t.Errorf("the log has %s, want nothing", log)
	}
	if _, err := o.JWTs.Verify(t.Context(), p.AccessToken(authtest.ServiceID, authtest.OpsSub)); !errors.Is(err, ErrProviderAway) {
		t.Errorf("after the end: %v, want %v", err, ErrProviderAway)
	}
}

// bubble runs a party in a synctest bubble. Its provider is outside, over connections that each end with
// their answer: one that is kept would keep the bubble's time from passing.
func bubble(t *testing.T, p *authtest.Provider, test func(t *testing.T, x *party, i *issuer)) {
	synctest.Test(t, func(t *testing.T) {
		x := trusts(t, p, dbtest.Open(t))
		i := x.issuers[0]
		i.http = &http.Client{Transport: &http.Transport{DisableKeepAlives: true}, Timeout: fetchWithin}
		ctx, stop := context.WithCancel(t.Context())
		ended := make(chan struct{})
		go func() {
			x.Run(ctx)
			close(ended)
		}()
		synctest.Wait()
		test(t, x, i)
		stop()
		<-ended
	})
}

// While the provider is away it is asked after 2 s, 4 s, … and then each minute; after it is back, each
// quarter of an hour.
func TestBackOff(t *testing.T) {
	p := provider(t)
	p.Break(authtest.Discovery, authtest.Failing)
	bubble(t, p, func(t *testing.T, x *party, _ *issuer) {
		step := func(wait time.Duration, want string) {
			t.Helper()
			before := p.Fetches(authtest.Discovery)
			time.Sleep(wait - time.Millisecond)
			synctest.Wait()
			if got := p.Fetches(authtest.Discovery) - before; got != 0 {
				t.Errorf("before %v: %d fetches, want none", wait, got)
			}
			time.Sleep(time.Millisecond)
			synctest.Wait()
			if got := p.Fetches(authtest.Discovery) - before; got != 1 || x.State() != want {
				t.Errorf("after %v: %d fetches and the state %s, want one and %s", wait, got, x.State(), want)
			}
		}
		for _, wait := range []time.Duration{2, 4, 8, 16, 32, 60, 60} {
			step(wait*time.Second, "away")
		}
		p.Break(authtest.Discovery, authtest.None)
		step(time.Minute, "ok")
		step(15*time.Minute, "ok")
		p.Break(authtest.Discovery, authtest.Failing)
		step(15*time.Minute, "away")
		step(2*time.Second, "away")
		if got := strings.Count(x.log.String(), "can't be used"); got != 2 {
			t.Errorf("the log says %d times that the provider can't be used, want 2", got)
		}
	})
}

// A token that finds the provider away makes the asking begin: else all would think it away until the
// next quarter of an hour.
func TestATokenThatFindsTheProviderAway(t *testing.T) {
	p := provider(t)
	bubble(t, p, func(t *testing.T, x *party, i *issuer) {
		time.Sleep(time.Minute)
		p.Break(authtest.Discovery, authtest.Failing)
		if _, _, err := i.key(t.Context(), "theirs"); !errors.Is(err, ErrProviderAway) {
			t.Errorf("key = %v, want %v", err, ErrProviderAway)
		}
		synctest.Wait()
		p.Break(authtest.Discovery, authtest.None)
		time.Sleep(retryFirst)
		synctest.Wait()
		if got := x.State(); got != "ok" {
			t.Errorf("State = %q, want ok", got)
		}
	})
}

// A provider that takes a connection and says nothing costs five seconds, and no more.
func TestASilentProvider(t *testing.T) {
	p := provider(t)
	bubble(t, p, func(t *testing.T, x *party, i *issuer) {
		i.http = &http.Client{Timeout: fetchWithin, Transport: &http.Transport{DisableKeepAlives: true,
			DialContext: func(context.Context, string, string) (net.Conn, error) {
				ours, theirs := net.Pipe()
				go io.Copy(io.Discard, theirs) // until our end is closed
				return ours, nil
			}}}
		begun := time.Now()
		if _, _, err := i.key(t.Context(), "theirs"); !errors.Is(err, ErrProviderAway) {
			t.Errorf("key = %v, want %v", err, ErrProviderAway)
		}
		if took := time.Since(begun); took != fetchWithin {
			t.Errorf("it took %v, want %v", took, fetchWithin)
		}
		if trouble := x.Providers()[0].Trouble; trouble == nil || !trouble.Away {
			t.Errorf("Trouble = %+v, want one of a provider that is away", trouble)
		}
	})
}

// Secrets and keys go over https, or stay on this machine, redirects included.
func TestUnsafeAddresses(t *testing.T) {
	var answer atomic.Value
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if text := answer.Load().(string); strings.HasPrefix(text, "http") {
			http.Redirect(w, r, text, http.StatusFound)
		} else {
			io.WriteString(w, text)
		}
	}))
	defer server.Close()
	document := func(name, address string) string {
		parts := map[string]string{"issuer": server.URL + "/", "authorization_endpoint": server.URL + "/a", "token_endpoint": server.URL + "/t", "jwks_uri": server.URL + "/k"}
		parts[name] = address
		var fields []string
		for n, v := range parts {
			fields = append(fields, fmt.Sprintf("%q:%q", n, v))
		}
		slices.Sort(fields)
		return "{" + strings.Join(fields, ",") + "}"
	}
	for _, tt := range []struct{ name, answer, cause string }{
		{"keys over http", document("jwks_uri", "http://id.example.com/k"), `the discovery document's jwks_uri is "http://id.example.com/k"; it must be https, or loopback`},
		{"keys in a file", document("jwks_uri", "file:///etc/passwd"), `jwks_uri is "file:///etc/passwd"`},
		{"keys with a password", document("jwks_uri", "https://a:b@id.example.com/k"), "it must be https"},
		{"tokens over http", document("token_endpoint", "http://id.example.com/t"), `token_endpoint is "http://id.example.com/t"`},
		{"sign-in by script", document("authorization_endpoint", "javascript:alert(1)"), `authorization_endpoint is "javascript:alert(1)"`},
		{"issuer of another host", document("issuer", "https://id.example.com/"), `says that it is "https://id.example.com/"`},
		{"redirected to plain http", "http://id.example.com/", "answers 302 Found"},
		{"redirected for ever", server.URL + "/", "answers 302 Found"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			answer.Store(tt.answer)
			x := trusts(t, nil, dbtest.Open(t), Audience{KindService, server.URL + "/", "x"})
			if _, err := x.issuers[0].ask(t.Context()); !errors.Is(err, ErrProviderAway) || !strings.Contains(err.Error(), tt.cause) {
				t.Errorf("ask = %v, want %v because %s", err, ErrProviderAway, tt.cause)
			}
			if got := x.State(); got != "misconfigured" {
				t.Errorf("State = %q, want misconfigured", got)
			}
		})
	}
}

func newKey(t testing.TB, alg string) crypto.Signer {
	t.Helper()
	key, err := authtest.NewKey(alg)
	if err != nil {
		t.Fatal(err)
	}
	return key
}
