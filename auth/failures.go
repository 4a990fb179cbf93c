package auth

import (
	"net"
	"net/http"
	"net/netip"
	"strings"
	"sync"
	"time"
)

// Bounds of failed credentials, by client address.
const (
	failuresMost   = 60 // in failuresWindow; past them a failing credential is told to wait
	failuresWindow = time.Minute
	addressesMost  = 10_000 // remembered in one generation; there are two
)

// Failures counts the credentials that failed, by client address. Nothing else counts: a good credential is
// never refused for its neighbours. It remembers a bounded number of addresses; under a flood from more of
// them, the ones that were quiet longest are forgotten.
type Failures struct {
	now func() time.Time

	mu          sync.Mutex
	recent, old map[netip.Addr]failed
	turned      time.Time // when recent was begun
}

type failed struct {
	since time.Time // the first of its window
	count int
}

// NewFailures returns a count with the clock now.
func NewFailures(now func() time.Time) *Failures {
	return &Failures{now: now, recent: map[netip.Addr]failed{}, turned: now()}
}

// Count notes a failed credential, and returns how long the address is to wait; 0 is not at all.
func (f *Failures) Count(address string) time.Duration {
	key := network(address)
	f.mu.Lock()
	defer f.mu.Unlock()
	now := f.now() // under the lock: a count must not see a later one's time and begin anew
	if len(f.recent) >= addressesMost || now.Sub(f.turned) >= failuresWindow || now.Before(f.turned) {
		f.old, f.recent, f.turned = f.recent, map[netip.Addr]failed{}, now
	}
	e, ok := f.recent[key]
	if !ok {
		e = f.old[key]
	}
	if age := now.Sub(e.since); age >= failuresWindow || age < 0 {
		e = failed{since: now}
	}
	e.count++
	f.recent[key] = e
	if e.count > failuresMost {
		return failuresWindow - now.Sub(e.since)
	}
	return 0
}

// network is what counts as one client: an IPv4 address, or the /64 of an IPv6 address, which a single
// subscriber has.
func network(address string) netip.Addr {
	a, err := netip.ParseAddr(address)
	if err != nil {
		return netip.Addr{}
	}
	a = a.Unmap().WithZone("")
	if a.Is4() {
		return a
	}
	p, err := a.Prefix(64)
	if err != nil {
		return a
	}
	return p.Addr()
}

// ClientAddress is the address of a request's client, where proxies of ours stand before the server: each
// adds who it heard from to X-Forwarded-For, so only the last ones of that list are true. What can't be
// read is replaced by the nearest that can.
func ClientAddress(r *http.Request, proxies int) string {
	host, _, err := net.SplitHostPort(r.RemoteAddr)
	if err != nil {
		host = r.RemoteAddr
	}
	var heard []string
	if proxies > 0 {
		heard = strings.Split(strings.Join(r.Header.Values("X-Forwarded-For"), ","), ",")
	}
	for n := 0; n < proxies && n < len(heard); n++ {
		text := strings.TrimSpace(heard[len(heard)-1-n])
		if a, err := netip.ParseAddr(strings.Trim(text, "[]")); err == nil {
			host = a.Unmap().String()
		} else if ap, err := netip.ParseAddrPort(text); err == nil {
			host = ap.Addr().Unmap().String()
		} else {
			break
		}
	}
	return host
}
