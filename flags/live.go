package flags

import (
	"sync"
	"sync/atomic"
	"time"
)

// remembered is how many events Live keeps for those who resume.
const remembered = 1024

// Event is one change of flags or registry, as a subscriber learns of it.
type Event struct {
	Revision int64
	At       time.Time
	Actor    string
	Action   Action   // the first change's
	Flags    []string // keys of the flags that changed
	Tenants  []string // slugs of the tenants that changed
	Partners []string // slugs of the partners that changed
}

// Live holds the snapshot that is served now, and wakes those who wait for the next one.
type Live struct {
	current atomic.Pointer[Board]

	mu     sync.Mutex // of what follows; reading the current snapshot takes no lock
	events []Event    // the last ones, oldest first
	wakes  map[chan struct{}]struct{}
}

// Current returns the snapshot served now, or nil before the first Publish. It takes no lock.
func (l *Live) Current() *Snapshot {
	if b := l.current.Load(); b != nil {
		return b.Snapshot
	}
	return nil
}

// Board returns the snapshot served now, ready for many questions, or nil before the first Publish. It
// takes no lock.
func (l *Live) Board() *Board { return l.current.Load() }

// Publish makes s the current snapshot and wakes the subscribers. It belongs after the commit and in
// commit order: nobody may see a flag that can still roll back, and a revision never goes back. It never
// waits for a subscriber.
func (l *Live) Publish(s *Snapshot, events ...Event) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.current.Store(l.current.Load().next(s))
	l.events = append(l.events, events...)
	if over := len(l.events) - remembered; over > 0 {
		l.events = append([]Event(nil), l.events[over:]...)
	}
	for wake := range l.wakes {
		select {
		case wake <- struct{}{}:
		default: // it has a wake to come already, and a wake only says look
		}
	}
}

// Subscribe returns a channel that gets a wake, at most one at a time, whenever there is something new
// to look at; and a function that ends it.
func (l *Live) Subscribe() (wake <-chan struct{}, end func()) {
	c := make(chan struct{}, 1)
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.wakes == nil {
		l.wakes = map[chan struct{}]struct{}{}
	}
	l.wakes[c] = struct{}{}
	return c, func() {
		l.mu.Lock()
		defer l.mu.Unlock()
		delete(l.wakes, c)
	}
}

// Since returns the current snapshot and the events after a revision up to it. It is not ok where the
// revision is too old, or none of this line, so that the events can't be told.
func (l *Live) Since(revision int64) (s *Snapshot, events []Event, ok bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	s = l.Current()
	if s == nil || revision > s.revision {
		return s, nil, false
	}
	if revision == s.revision {
		return s, nil, true
	}
	first := 0
	for first < len(l.events) && l.events[first].Revision <= revision {
		first++
	}
	// Every revision has its event, so what is remembered must begin right after the one asked for.
	if first == len(l.events) || l.events[first].Revision != revision+1 {
		return s, nil, false
	}
	return s, append(events, l.events[first:]...), true
}
