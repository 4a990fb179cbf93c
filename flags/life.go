package flags

import (
	"fmt"
	"slices"
	"time"
)

// LifeStep is a time at which a flag changed or its reach did, and how it was from then on.
type LifeStep struct {
	At           time.Time
	Flag         *Flag // nil: it did not exist
	Reach, Total int   // tenants that had it, and all tenants
	Before       int   // its reach until then
	Entries      []Entry
	Came, Went   Moved // tenants that were made and removed, and had it
}

// Moved counts tenants, and names the first few.
type Moved struct {
	Count int
	Slugs []string
}

// movedNamed is how many of them are named.
const movedNamed = 3

func (m *Moved) add(slug string) {
	if m.Count++; len(m.Slugs) < movedNamed {
		m.Slugs = append(m.Slugs, slug)
	}
}

// Life walks back through a flag's life in an environment, from the snapshot on, newest step first. Changes at one
// time are one step. versions are the flag's, by number but for deletions; log is all of its entries, oldest first.
// registry is the entries since about tenants, newest first: removals, changes, and all creations of those slugs that
// have a removal. Creations of other slugs are known from the snapshot.
func (s *Snapshot) Life(environment string, versions map[int64]*Flag, log, registry []Entry) ([]LifeStep, error) {
	if len(log) == 0 {
		return nil, nil
	}
	birth := log[0].At
	events := s.tenantEvents(birth, registry)
	c := s.newCensus(environment, log[0].Name, versions)
	left := len(log)
	c.turn(flagAfter(versions, log))
	var steps []LifeStep
	for left > 0 {
		at := log[left-1].At
		if len(events) > 0 && events[0].at.After(at) {
			at = events[0].at
		}
		step := LifeStep{At: at, Flag: c.flag, Reach: c.reached, Total: c.total}
		for ; len(events) > 0 && events[0].at.Equal(at); events = events[1:] {
			if err := c.undo(events[0], &step); err != nil {
				return nil, err
			}
		}
		for ; left > 0 && log[left-1].At.Equal(at); left-- {
			step.Entries = append(step.Entries, log[left-1])
		}
		if len(step.Entries) > 0 {
			c.turn(flagAfter(versions, log[:left]))
		}
		if step.Before = c.reached; len(step.Entries) > 0 || step.Before != step.Reach {
			steps = append(steps, step)
		}
	}
	return steps, nil
}

// flagAfter is the flag as a log left it.
func flagAfter(versions map[int64]*Flag, log []Entry) *Flag {
	for _, e := range slices.Backward(log) {
		if e.Version > 0 {
			return versions[e.Version] // none of a deletion
		}
	}
	return nil
}

// tenantEvent is a change of a tenant to be taken back: the creation of the one given, or an entry.
type tenantEvent struct {
	at      time.Time
	created *Tenant
	entry   *Entry
}

// tenantEvents returns the changes after a time, newest first. Of one slug's at the same time the order is the log's.
func (s *Snapshot) tenantEvents(after time.Time, registry []Entry) []tenantEvent {
	removed := map[string]bool{}
	var events []tenantEvent
	for i := range registry {
		e := &registry[i]
		if e.Action == Deleted {
			removed[e.Name] = true
		}
		events = append(events, tenantEvent{at: e.At, entry: e})
	}
	for _, t := range s.tenants {
		if t.CreatedAt.After(after) && !removed[t.Slug] {
			events = append(events, tenantEvent{at: t.CreatedAt, created: t})
		}
	}
	slices.SortStableFunc(events, func(a, b tenantEvent) int { return b.at.Compare(a.at) })
	return events
}

// census counts the tenants of a moment so that who has a version of one flag is counted without asking each: by
// plan, partner and bucket, and by slug those that some version names.
type census struct {
	snapshot *Snapshot
	here     envSet
	key      string
	rolls    bool               // some version asks for buckets
	partners map[string]bool    // that some version names; others are as none
	named    map[string]*Tenant // by each slug that some version names, nil where nobody holds it
	changed  map[string]*Tenant // as they were; others are those of the snapshot
	places   map[place][]int    // tenants, by bucket
	total    int
	flag     *Flag
	is       reach
	reached  int
}

// place is what evaluation asks about a tenant beside its slug and bucket.
type place struct{ plan, partner string }

func (s *Snapshot) newCensus(environment, key string, versions map[int64]*Flag) *census {
	c := &census{snapshot: s, here: 1 << s.environmentIndex(environment), key: key, partners: map[string]bool{}, named: map[string]*Tenant{},
		changed: map[string]*Tenant{}, places: map[place][]int{}}
	for _, f := range versions {
		c.rolls = c.rolls || f.State == Rollout && f.Pct > 0
		for _, slug := range f.Scope.PartnerSlugs {
			c.partners[slug] = true
		}
		for _, slug := range f.Scope.TenantSlugs {
			c.named[slug] = nil
		}
	}
	for _, t := range s.tenants {
		c.move(t, c.bucket(t), 1)
	}
	return c
}

// bucket is a tenant's, or any where no version asks for it.
func (c *census) bucket(t *Tenant) int {
	if c.rolls {
		return Bucket(t.ID, c.key)
	}
	return 0
}

// move takes a tenant in, or out by -1, and tells whether it has the flag.
func (c *census) move(t *Tenant, bucket, by int) bool {
	p := place{plan: t.Plan}
	if c.partners[t.PartnerSlug] {
		p.partner = t.PartnerSlug
	}
	if c.places[p] == nil {
		c.places[p] = make([]int, MaxPct)
	}
	c.places[p][bucket] += by
	c.total += by
	if _, named := c.named[t.Slug]; named {
		if c.named[t.Slug] = t; by < 0 {
			c.named[t.Slug] = nil
		}
	}
	has := c.is.of(t, &bucket)&c.here != 0
	if has {
		c.reached += by
	}
	return has
}

// undo takes back one change of a tenant.
func (c *census) undo(e tenantEvent, step *LifeStep) error {
	var slug string
	if e.created != nil {
		slug = e.created.Slug
	} else {
		slug = e.entry.Name
	}
	after, known := c.changed[slug]
	if !known {
		after = c.snapshot.Tenant(slug)
	}
	if e.created != nil || e.entry.Action == Created {
		if after == nil {
			return fmt.Errorf("tenant %q was created, says the log, and was not there", slug)
		}
		if c.move(after, c.bucket(after), -1) {
			step.Came.add(slug)
		}
		c.changed[slug] = nil
		return nil
	}
	before, err := e.entry.tenantBefore(after)
	if err != nil {
		return err
	}
	bucket := c.bucket(before)
	if after != nil { // of the same id
		c.move(after, bucket, -1)
	}
	if c.move(before, bucket, 1) && after == nil {
		step.Went.add(slug)
	}
	c.changed[slug] = before
	return nil
}

// turn puts another version in the flag's place, and counts who has it.
func (c *census) turn(f *Flag) {
	c.flag, c.is, c.reached = f, c.snapshot.reach(f), 0
	switch {
	case c.is.nobody():
	case f.State == On:
		c.reached = c.total
	case c.is.envs&c.here == 0:
	case len(f.Scope.TenantSlugs) > 0:
		for _, slug := range f.Scope.TenantSlugs {
			bucket := -1
			if t := c.named[slug]; t != nil && c.is.of(t, &bucket)&c.here != 0 {
				c.reached++
			}
		}
	default:
		most := MaxPct
		if f.State == Rollout {
			most = f.Pct
		}
		for p, buckets := range c.places {
			if f.matchesPlace(&Tenant{Plan: p.plan, PartnerSlug: p.partner}) {
				for _, n := range buckets[:most] {
					c.reached += n
				}
			}
		}
	}
}
