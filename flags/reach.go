package flags

import (
	"math/bits"
	"slices"
	"sync"
)

// Reach knows how many tenants have each flag in each environment. It counts a flag once, and again only
// when the flag changes; a changed tenant costs one evaluation a flag. Its methods may be called at once
// from anywhere.
type Reach struct {
	mu     sync.Mutex
	last   *Snapshot
	counts map[*Flag][]int // by environment, in the snapshot's order
}

// Of returns how many tenants have the flag of the snapshot, by environment in its order.
func (r *Reach) Of(s *Snapshot, f *Flag) []int {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.of(s, f)
}

// All counts every flag of the snapshot.
func (r *Reach) All(s *Snapshot) {
	for _, f := range s.flags { // the lock is taken for each, so that nobody waits for all
		r.Of(s, f)
	}
}

func (r *Reach) of(s *Snapshot, f *Flag) []int {
	r.advance(s)
	if counts, known := r.counts[f]; known && s == r.last {
		return counts
	}
	counts := make([]int, len(s.environments))
	if reach := s.reach(f); !reach.nobody() {
		for _, t := range s.tenants {
			bucket := -1
			for set := uint64(reach.of(t, &bucket)); set != 0; set &= set - 1 {
				counts[bits.TrailingZeros64(set)]++
			}
		}
	}
	if s == r.last { // an older snapshot is counted anew, for whoever still shows it
		r.counts[f] = counts
	}
	return counts
}

// advance brings the counts from the last snapshot to a newer one.
func (r *Reach) advance(s *Snapshot) {
	if r.last == s || r.last != nil && r.last.epoch == s.epoch && r.last.revision > s.revision {
		return
	}
	last := r.last
	r.last = s
	if last == nil || last.epoch != s.epoch || !slices.Equal(last.environments, s.environments) {
		r.counts = map[*Flag][]int{}
		return
	}
	kept := make(map[*Flag][]int, len(s.flags))
	for _, f := range s.flags {
		if counts, known := r.counts[f]; known {
			kept[f] = counts
		}
	}
	r.counts = kept
	gone, come := difference(last.tenants, s.tenants)
	if len(gone)+len(come) == 0 {
		return
	}
	for f, old := range kept {
		reach := s.reach(f)
		if reach.nobody() {
			continue
		}
		counts := slices.Clone(old)
		add := func(ts []*Tenant, by int) {
			for _, t := range ts {
				bucket := -1
				for set := uint64(reach.of(t, &bucket)); set != 0; set &= set - 1 {
					counts[bits.TrailingZeros64(set)] += by
				}
			}
		}
		add(gone, -1)
		add(come, 1)
		kept[f] = counts
	}
}

// difference returns the tenants that only the first and only the second list has; both are by slug, and
// a changed tenant is in both results.
func difference(a, b []*Tenant) (onlyA, onlyB []*Tenant) {
	if len(a) == len(b) && (len(a) == 0 || &a[0] == &b[0]) {
		return nil, nil // shared
	}
	for len(a) > 0 && len(b) > 0 {
		switch {
		case a[0] == b[0]:
			a, b = a[1:], b[1:]
		case a[0].Slug < b[0].Slug:
			onlyA, a = append(onlyA, a[0]), a[1:]
		case a[0].Slug > b[0].Slug:
			onlyB, b = append(onlyB, b[0]), b[1:]
		default:
			onlyA, onlyB, a, b = append(onlyA, a[0]), append(onlyB, b[0]), a[1:], b[1:]
		}
	}
	return append(onlyA, a...), append(onlyB, b...)
}
