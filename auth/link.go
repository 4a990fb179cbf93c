package auth

import (
	"crypto/rand"
	"crypto/sha256"
	"crypto/subtle"
	"sync"
	"time"
)

// LinkLasts is how long a one-time sign-in link is good.
const LinkLasts = 10 * time.Minute

// LocalOperator is who signs in by a one-time link.
var LocalOperator = Principal{Name: "operator@localhost", Role: Operator}

// Links makes one-time sign-in links for whoever sees the server's output. Only the newest counts, once,
// for LinkLasts; of its secret only the hash is kept.
type Links struct {
	now func() time.Time

	mu    sync.Mutex
	hash  [sha256.Size]byte
	until time.Time // zero: there is none
}

// NewLinks returns links with the clock now.
func NewLinks(now func() time.Time) *Links { return &Links{now: now} }

// New returns the secret of a new link; an earlier one is void.
func (l *Links) New() string {
	secret := rand.Text() + rand.Text()
	l.mu.Lock()
	defer l.mu.Unlock()
	l.hash, l.until = sha256.Sum256([]byte(secret)), l.now().Add(LinkLasts)
	return secret
}

// Redeem tells whether the secret is the link's; if so, the link is used up.
func (l *Links) Redeem(secret string) bool {
	hash := sha256.Sum256([]byte(secret))
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.until.IsZero() || !l.now().Before(l.until) || subtle.ConstantTimeCompare(hash[:], l.hash[:]) != 1 {
		return false
	}
	l.until = time.Time{}
	return true
}
