package handlers

import (
	"cmp"
	"maps"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/dezky/platform-api/auth"
	"github.com/dezky/platform-api/flags"
)

// Bounds of what is remembered of consumers.
const (
	consumersMost = 1000             // consumers; while so many are active, further ones are not told of
	consumerKept  = 24 * time.Hour   // how long after its last evaluation one is told of
	consumerEvery = time.Second      // how exact the time of the last evaluation is
	sweepEvery    = 10 * time.Second // how often a full map is searched for idle ones
)

// consumers are the credentials that evaluate on this node, with what each received last. They are not kept
// over a restart; an epoch begins with one, so that all revisions are of the epoch that is served.
type consumers struct {
	known atomic.Pointer[map[string]*consumer] // by auth.Principal.Consumer

	mu    sync.Mutex   // held to replace the map
	swept atomic.Int64 // Unix milliseconds of when a full map was searched last
}

// consumer is one credential. Many cores note the same one, so nothing is written that is written already.
type consumer struct {
	name, issuer string       // no issuer: an API token
	revision     atomic.Int64 // the newest that it received
	at           atomic.Int64 // Unix milliseconds of its last evaluation
}

// note remembers that a principal is answered at a revision. Of a consumer that is known it takes no lock
// and allocates nothing.
func (cs *consumers) note(p *auth.Principal, revision int64, now time.Time) {
	if p.Consumer == "" {
		return
	}
	var c *consumer
	if known := cs.known.Load(); known != nil {
		c = (*known)[p.Consumer]
	}
	if c == nil {
		if c = cs.learn(p, revision, now); c == nil {
			return
		}
	}
	// An answer from an older snapshot may come late: a revision never goes back.
	for got := c.revision.Load(); got < revision && !c.revision.CompareAndSwap(got, revision); got = c.revision.Load() {
	}
	if ms := now.UnixMilli(); ms-c.at.Load() >= consumerEvery.Milliseconds() {
		c.at.Store(ms)
	}
}

// learn returns a new consumer, or nil where there are too many.
func (cs *consumers) learn(p *auth.Principal, revision int64, now time.Time) *consumer {
	full := func(known *map[string]*consumer) bool { return known != nil && len(*known) >= consumersMost }
	if ms := now.UnixMilli(); full(cs.known.Load()) && ms-cs.swept.Load() < sweepEvery.Milliseconds() {
		return nil
	}
	cs.mu.Lock()
	defer cs.mu.Unlock()
	next := map[string]*consumer{}
	if known := cs.known.Load(); known != nil {
		if c := (*known)[p.Consumer]; c != nil {
			return c
		}
		if full(known) {
			cs.swept.Store(now.UnixMilli())
		}
		next = maps.Clone(*known)
		maps.DeleteFunc(next, func(_ string, c *consumer) bool { return c.idle(now) })
	}
	var c *consumer
	if len(next) < consumersMost {
		c = &consumer{name: p.ConsumerName()}
		if p.Via != flags.ViaToken {
			c.issuer = p.Issuer
		}
		c.revision.Store(revision)
		c.at.Store(now.UnixMilli())
		next[p.Consumer] = c
	}
	cs.known.Store(&next)
	return c
}

func (c *consumer) idle(now time.Time) bool {
	return now.UnixMilli()-c.at.Load() > consumerKept.Milliseconds()
}

// received is a consumer as it was when it was asked for.
type received struct {
	id           string // its auth.Principal.Consumer
	name, issuer string
	revision     int64
	at           time.Time
}

// consuming are the consumers to be told of. A token that was revoked or has expired is to receive nothing.
func (a *app) consuming() []received {
	used := a.tokens.Used()
	return slices.DeleteFunc(a.consumers.list(a.now()), func(c received) bool { return c.issuer == "" && !used[c.id] })
}

// list returns the consumers that evaluated within 24 hours, by name.
func (cs *consumers) list(now time.Time) []received {
	known := cs.known.Load()
	if known == nil {
		return nil
	}
	out := make([]received, 0, len(*known))
	for id, c := range *known {
		if !c.idle(now) {
			out = append(out, received{id, c.name, c.issuer, c.revision.Load(), time.UnixMilli(c.at.Load())})
		}
	}
	slices.SortFunc(out, func(a, b received) int { return cmp.Or(cmp.Compare(a.name, b.name), cmp.Compare(a.issuer, b.issuer)) })
	return out
}

// lacking are those that have not received a revision.
func lacking(all []received, revision int64) []received {
	var out []received
	for _, c := range all {
		if c.revision < revision {
			out = append(out, c)
		}
	}
	return out
}
