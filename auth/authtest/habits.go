package authtest

import (
	"net/http"
	"sync"
	"time"
)

// A Habit is a way in which a provider differs from a plain one. All are off at first; any set of them may
// be on, and be changed while the provider runs.
type Habit int

// The habits. What is said of Authentik holds for 2025.8 to 2026.5.
const (
	// NoClaimsInTokens leaves name, email and groups to userinfo (Authentik's include_claims_in_id_token: false).
	NoClaimsInTokens Habit = iota
	// NoGroups has no groups claim anywhere.
	NoGroups
	// NoSigningKey signs with HS256 and the client secret, and publishes no key (Authentik without a Signing Key).
	NoSigningKey
	// EncryptedTokens makes five-part JWEs of the tokens, and publishes a second key, of use "enc".
	EncryptedTokens
	// GlobalIssuer has http://host/ for issuer, while discovery stays under the slug.
	GlobalIssuer
	// NoTrailingSlash leaves the issuer without its slash.
	NoTrailingSlash
	// OtherHost answers as though asked by its other name: localhost for 127.0.0.1 and the reverse.
	OtherHost
	// NoGrantTypes refuses everything with unauthorized_client (Authentik 2026.5, a provider made by blueprint).
	NoGrantTypes
	// NoRedirectURIs has no redirect URI registered.
	NoRedirectURIs
	// IssInCallback names the issuer in the callback (RFC 9207).
	IssInCallback
	// WrongIssInCallback names another issuer there.
	WrongIssInCallback
	// WrongNonce puts another nonce into the id token.
	WrongNonce
	// WrongAtHash puts the hash of another access token into the id token.
	WrongAtHash
	// OtherSubInUserinfo answers userinfo for somebody else.
	OtherSubInUserinfo
	// NoEndSession has no end_session_endpoint in discovery.
	NoEndSession
	// NoBackChannelLogout neither announces nor sends back-channel logouts (Authentik before 2025.8).
	NoBackChannelLogout
)

// Set turns a habit on or off.
func (p *Provider) Set(h Habit, on bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.habits[h] = on
}

// A Subject is what the sub claim is made of.
type Subject int

// The subjects: Person.Sub as it is, or as Authentik can be told to.
const (
	SubAsIs Subject = iota
	SubHashed
	SubEmail
	SubUsername
	SubUPN
)

// SetSubject changes the sub claim of everybody.
func (p *Provider) SetSubject(s Subject) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.subject = s
}

// SetOffset puts the provider's clock off by d; a negative d is late.
func (p *Provider) SetOffset(d time.Duration) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.offset = d
}

// SetAccessTokenLife changes how long new access tokens last, and id tokens too unless Options said otherwise.
func (p *Provider) SetAccessTokenLife(d time.Duration) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.life = d
}

// A Fault is how an endpoint fails.
type Fault int

// The faults.
const (
	None    Fault = iota
	Away          // the connection is closed without an answer
	Failing       // 500
	Rubbish       // 200, with a page instead of JSON
	Huge          // right, and more than 2 MiB long
)

const hugeSize = 2 << 20

// Break makes an endpoint fail from now on; None mends it.
func (p *Provider) Break(e Endpoint, f Fault) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.faults[e] = f
}

func (p *Provider) fault(e Endpoint) Fault {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.faults[e]
}

// A Stall holds back the requests to an endpoint.
type Stall struct {
	Arrived  chan struct{} // closed when the first request waits
	arrive   func()
	released chan struct{}
	release  func()
}

// Stall makes requests to an endpoint wait for Release, the end of their connection, or the provider's.
func (p *Provider) Stall(e Endpoint) *Stall {
	s := &Stall{Arrived: make(chan struct{}), released: make(chan struct{})}
	s.arrive = sync.OnceFunc(func() { close(s.Arrived) })
	s.release = sync.OnceFunc(func() { close(s.released) })
	p.mu.Lock()
	defer p.mu.Unlock()
	p.stalls[e] = s
	return s
}

// Release lets the waiting requests, and all later ones, go on.
func (s *Stall) Release() { s.release() }

// faulty counts an endpoint's requests and lets its faults happen.
func (p *Provider) faulty(e Endpoint, next http.HandlerFunc) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		p.count[e].Add(1)
		p.mu.Lock()
		stall := p.stalls[e]
		p.mu.Unlock()
		if stall != nil {
			stall.arrive()
			select {
			case <-stall.released:
			case <-r.Context().Done():
				return
			}
		}
		switch p.fault(e) {
		case Away:
			panic(http.ErrAbortHandler)
		case Failing:
			http.Error(w, "broken", http.StatusInternalServerError)
		case Rubbish:
			w.Header().Set("Content-Type", "text/html")
			w.Write([]byte("<!DOCTYPE html><title>Not what you asked for</title>"))
		default:
			next(w, r)
		}
	})
}
