package auth

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"runtime"
	"sync"
	"testing"
	"time"
)

// counted is a count of failures whose clock a test moves.
func counted() (*Failures, func(time.Duration)) {
	now := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	return NewFailures(func() time.Time { return now }), func(d time.Duration) { now = now.Add(d) }
}

func TestFailures(t *testing.T) {
	f, move := counted()
	for n := range failuresMost {
		if wait := f.Count("198.51.100.1"); wait != 0 {
			t.Fatalf("Count, number %d = %v, want 0", n+1, wait)
		}
	}
	if wait := f.Count("198.51.100.1"); wait != failuresWindow {
		t.Errorf("Count, one too many = %v, want %v", wait, failuresWindow)
	}
	if wait := f.Count("198.51.100.2"); wait != 0 {
		t.Errorf("Count, of another address = %v, want 0", wait)
	}
	move(45 * time.Second)
	if wait := f.Count("198.51.100.1"); wait != 15*time.Second {
		t.Errorf("Count, after 45 s = %v, want 15s", wait)
	}
	move(15 * time.Second)
	for n := range failuresMost {
		if wait := f.Count("198.51.100.1"); wait != 0 {
			t.Fatalf("Count, a minute later, number %d = %v, want 0", n+1, wait)
		}
	}
	if wait := f.Count("198.51.100.1"); wait != failuresWindow {
		t.Errorf("Count, a minute later, one too many = %v, want %v", wait, failuresWindow)
	}
	move(-time.Hour) // a clock that was put right
	if wait := f.Count("198.51.100.1"); wait != 0 {
		t.Errorf("Count, an hour before = %v, want 0", wait)
	}
}

// A window that began in one generation counts on in the next.
func TestFailuresAcrossGenerations(t *testing.T) {
	f, move := counted()
	move(failuresWindow - time.Second)
	for range failuresMost {
		f.Count("198.51.100.1")
	}
	move(2 * time.Second)
	if wait := f.Count("198.51.100.1"); wait != failuresWindow-2*time.Second {
		t.Errorf("Count = %v, want %v", wait, failuresWindow-2*time.Second)
	}
}

func TestFailuresByNetwork(t *testing.T) {
	for _, tt := range []struct {
		name, one, other string
		same             bool
	}{
		{"IPv4", "198.51.100.1", "198.51.100.2", false},
		{"IPv4 in IPv6", "198.51.100.1", "::ffff:198.51.100.1", true},
		{"two of IPv4 in IPv6", "::ffff:198.51.100.2", "::ffff:198.51.100.1", false},
		{"IPv6 of one /64", "2001:db8:1:2::1", "2001:db8:1:2:ffff:ffff:ffff:ffff", true},
		{"IPv6 of two /64", "2001:db8:1:2::1", "2001:db8:1:3::1", false},
		{"IPv6 with zones", "fe80::1%eth0", "fe80::2%eth1", true},
		{"no addresses", "@", "unix", true},
	} {
		t.Run(tt.name, func(t *testing.T) {
			f, _ := counted()
			for range failuresMost {
				f.Count(tt.one)
			}
			if wait := f.Count(tt.other); (wait > 0) != tt.same {
				t.Errorf("Count(%s) after %d of %s = %v, want one count: %t", tt.other, failuresMost, tt.one, wait, tt.same)
			}
		})
	}
}

// A flood from ever new addresses takes no more than the bound, and an address that goes on failing
// through it is not forgotten.
func TestFailuresUnderAFlood(t *testing.T) {
	f, _ := counted()
	for range failuresMost {
		f.Count("198.51.100.1")
	}
	var before, after runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&before)
	address := netip.MustParseAddr("2001:db8::").As16()
	for n := range 200_000 {
		address[4], address[5], address[6], address[7] = byte(n>>24), byte(n>>16), byte(n>>8), byte(n)
		f.Count(netip.AddrFrom16(address).String())
		if n%5000 == 0 {
			if wait := f.Count("198.51.100.1"); wait == 0 {
				t.Fatalf("after %d others the address is forgotten", n)
			}
		}
		if got := len(f.recent) + len(f.old); got > 2*addressesMost {
			t.Fatalf("%d addresses are remembered, want at most %d", got, 2*addressesMost)
		}
	}
	runtime.GC()
	runtime.ReadMemStats(&after)
	if took := float64(int64(after.HeapAlloc)-int64(before.HeapAlloc)) / (1 << 20); took > 5 {
		t.Errorf("it takes %.1f MiB, want at most 5", took)
	}
	runtime.KeepAlive(f)
}

func TestFailuresAtOnce(t *testing.T) {
	f := NewFailures(time.Now)
	var all sync.WaitGroup
	var mu sync.Mutex
	told := 0
	for range 10 {
		all.Go(func() {
			for range 20 {
				if f.Count("198.51.100.1") > 0 {
					mu.Lock()
					told++
					mu.Unlock()
				}
			}
		})
	}
	all.Wait()
	if told != 200-failuresMost {
		t.Errorf("%d of 200 were told to wait, want %d", told, 200-failuresMost)
	}
}

func TestClientAddress(t *testing.T) {
	for _, tt := range []struct {
		name    string
		remote  string
		heard   []string // X-Forwarded-For
		proxies int
		want    string
	}{
		{"no proxy", "192.0.2.1:4711", nil, 0, "192.0.2.1"},
		{"no proxy, and one is claimed", "192.0.2.1:4711", []string{"198.51.100.1"}, 0, "192.0.2.1"},
		{"no proxy, IPv6", "[2001:db8::1]:4711", nil, 0, "2001:db8::1"},
		{"no port", "192.0.2.1", nil, 0, "192.0.2.1"},
		{"one proxy", "10.0.0.1:4711", []string{"198.51.100.1"}, 1, "198.51.100.1"},
		{"one proxy, what the client says is left of it", "10.0.0.1:4711", []string{"203.0.113.9, 203.0.113.8, 198.51.100.1"}, 1, "198.51.100.1"},
		{"one proxy, in several headers", "10.0.0.1:4711", []string{"203.0.113.9", "203.0.113.8, 198.51.100.1"}, 1, "198.51.100.1"},
		{"one proxy that says nothing", "10.0.0.1:4711", nil, 1, "10.0.0.1"},
		{"one proxy that says nothing much", "10.0.0.1:4711", []string{""}, 1, "10.0.0.1"},
		{"one proxy that says rubbish", "10.0.0.1:4711", []string{"198.51.100.1, unknown"}, 1, "10.0.0.1"},
		{"one proxy, a comma too many", "10.0.0.1:4711", []string{"198.51.100.1,"}, 1, "10.0.0.1"},
		{"one proxy, with a port", "10.0.0.1:4711", []string{"198.51.100.1:80"}, 1, "198.51.100.1"},
		{"one proxy, IPv6", "10.0.0.1:4711", []string{"2001:db8::1"}, 1, "2001:db8::1"},
		{"one proxy, IPv6 in brackets", "10.0.0.1:4711", []string{"[2001:db8::1]"}, 1, "2001:db8::1"},
		{"one proxy, IPv6 with a port", "10.0.0.1:4711", []string{"[2001:db8::1]:443"}, 1, "2001:db8::1"},
		{"one proxy, IPv4 in IPv6", "10.0.0.1:4711", []string{"::ffff:198.51.100.1"}, 1, "198.51.100.1"},
		{"one proxy, blanks", "10.0.0.1:4711", []string{" 203.0.113.9 ,\t198.51.100.1 "}, 1, "198.51.100.1"},
		{"two proxies", "10.0.0.1:4711", []string{"198.51.100.1, 10.0.0.2"}, 2, "198.51.100.1"},
		{"two proxies, what the client says is left of them", "10.0.0.1:4711", []string{"127.0.0.1", "203.0.113.9, 198.51.100.1, 10.0.0.2"}, 2, "198.51.100.1"},
		{"two proxies of which one speaks", "10.0.0.1:4711", []string{"10.0.0.2"}, 2, "10.0.0.2"},
		{"two proxies of which one speaks rubbish", "10.0.0.1:4711", []string{"<script>, 10.0.0.2"}, 2, "10.0.0.2"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			r := httptest.NewRequestWithContext(t.Context(), http.MethodGet, "/", nil)
			r.RemoteAddr, r.Header["X-Forwarded-For"] = tt.remote, tt.heard
			if got := ClientAddress(r, tt.proxies); got != tt.want {
				t.Errorf("ClientAddress(%s, %q, %d) = %s, want %s", tt.remote, tt.heard, tt.proxies, got, tt.want)
			}
		})
	}
}

func BenchmarkFailuresCount(b *testing.B) {
	f := NewFailures(time.Now)
	addresses := make([]string, 1000)
	for n := range addresses {
		addresses[n] = fmt.Sprintf("198.51.%d.%d", n/250, n%250)
	}
	n := 0
	for b.Loop() {
		f.Count(addresses[n%len(addresses)])
		n++
	}
}
