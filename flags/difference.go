package flags

import (
	"cmp"
	"context"
	"iter"
	"math/bits"
	"runtime"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"
)

// Direction is which way a flag turned for a tenant.
type Direction string

// The directions, in the order in which they are listed.
const (
	Gained Direction = "gained"
	Lost   Direction = "lost"
)

// DifferenceFilter selects turns; what is empty does not restrict, the rest must all hold. Tenant, partner and plan
// are those that the tenant had at either moment.
type DifferenceFilter struct {
	Flag        string // key
	Tenant      string // slug
	Partner     string // slug
	Plan        string
	Environment string // a known one
	Change      Direction
}

// Moment is a time in the log.
type Moment struct {
	At    time.Time // in whole milliseconds
	Entry int64     // the id of the last log entry that counts
}

// Difference is who has which flag at the later of two moments and not at the earlier, and the reverse, in the
// environments of now. Tenants are matched by id; a flag or a tenant that is not there has and is nothing.
type Difference struct {
	From, To     Moment
	Environments []string    // that were compared
	Flags        []FlagTurns // those that turned for anybody, by key
	Turned                   // of all flags together: the turns that Turns lists

	environments []string // of the snapshots, in whose order sets are
	mask         envSet   // of the environments that were compared
	change       Direction
	pairs        []tenantPair // by slug and id
	classes      []tenantClass
	reslugged    []int // of pairs: those with another slug before
}

// Turned counts tenants. One may gain a flag in one environment and lose it in another.
type Turned struct {
	Gained int `json:"gained"`
	Lost   int `json:"lost"`
}

func (t *Turned) add(gained, lost envSet, n int) {
	if gained != 0 {
		t.Gained += n
	}
	if lost != 0 {
		t.Lost += n
	}
}

// FlagTurns is how often one flag turned: for how many tenants in at least one of the environments, and in each.
type FlagTurns struct {
	Key string
	Turned
	ByEnvironment []Turned // for each of Difference.Environments
	flag          flagPair
}

// Turn is one flag that turned for one tenant.
type Turn struct {
	Key          string
	Tenant       *Tenant // as at the later moment; one that was removed, as at the earlier
	Change       Direction
	Environments []string // in which it turned so
	New, Removed bool     // the tenant came, or went, between the moments
}

// Place returns where a list goes on after this turn.
func (t *Turn) Place() Place { return Place{t.Key, t.Tenant.Slug, t.Tenant.ID, t.Change} }

// Place is one turn's in the list of all: by key, slug, id and direction. The zero Place is before all.
type Place struct {
	Key, Slug, ID string
	Change        Direction
}

func (p Place) compare(o Place) int {
	return cmp.Or(strings.Compare(p.Key, o.Key), strings.Compare(p.Slug, o.Slug), strings.Compare(p.ID, o.ID),
		strings.Compare(string(p.Change), string(o.Change)))
}

type flagPair struct {
	key           string
	before, after *Flag // nil: there was none
	same          bool  // for evaluation
}

type tenantPair struct {
	before, after *Tenant // nil: there was none
	class         int
}

func (p *tenantPair) tenant() *Tenant { return cmp.Or(p.after, p.before) }

// tenantClass is tenants whose plan and partner are the same before, and the same after.
type tenantClass struct {
	like    tenantPair
	moved   bool // they are not what they were
	renamed bool // their slug is another, or they came or went
	n       int
	ids     []string // of all, one after the other in memory: to hash them is then not to wait for it
}

// Between compares two snapshots of the same environments. Its cost grows with flags that changed times tenants,
// and tenants that changed times flags; it holds no turn.
func Between(ctx context.Context, from, to *Snapshot, f DifferenceFilter) (*Difference, error) {
	d := &Difference{Environments: to.environments, environments: to.environments, mask: to.reach(nil).all, change: f.Change}
	if f.Environment != "" {
		d.Environments, d.mask = []string{f.Environment}, 1<<to.environmentIndex(f.Environment)
	}
	d.pairTenants(from, to, f)
	all := pairFlags(from.flags, to.flags, f.Flag)
	counts := make([]FlagTurns, len(all))
	var next atomic.Int64
	var done sync.WaitGroup
	for range runtime.GOMAXPROCS(0) {
		done.Go(func() {
			for ctx.Err() == nil {
				i := int(next.Add(1)) - 1
				if i >= len(all) {
					return
				}
				counts[i] = d.count(all[i])
			}
		})
	}
	if done.Wait(); ctx.Err() != nil {
		return nil, ctx.Err()
	}
	for _, c := range counts {
		if c.Gained+c.Lost > 0 {
			d.Flags = append(d.Flags, c)
			d.Gained, d.Lost = d.Gained+c.Gained, d.Lost+c.Lost
		}
	}
	return d, nil
}

// pairFlags puts the flags of two lists by key together; key restricts it to one.
func pairFlags(before, after []*Flag, key string) (out []flagPair) {
	add := func(b, a *Flag) {
		p := flagPair{cmp.Or(a, b).Key, b, a, b != nil && a != nil && b.State == a.State && b.Pct == a.Pct && b.Scope.Equal(a.Scope)}
		if key == "" || p.key == key {
			out = append(out, p)
		}
	}
	for len(before) > 0 || len(after) > 0 {
		switch {
		case len(after) == 0 || len(before) > 0 && before[0].Key < after[0].Key:
			add(before[0], nil)
			before = before[1:]
		case len(before) == 0 || after[0].Key < before[0].Key:
			add(nil, after[0])
			after = after[1:]
		default:
			add(before[0], after[0])
			before, after = before[1:], after[1:]
		}
	}
	return out
}

// pairTenants puts the tenants of two snapshots together by id, and those of like plan and partner into classes.
func (d *Difference) pairTenants(from, to *Snapshot, f DifferenceFilter) {
	gone, come := difference(from.tenants, to.tenants)
	wasOf := make(map[string]*Tenant, len(gone)) // by id
	for _, t := range gone {
		wasOf[t.ID] = t
	}
	changed := make(map[*Tenant]bool, len(come))
	for _, t := range come {
		changed[t] = true
	}
	add := func(before, after *Tenant) {
		has := func(want string, of func(*Tenant) string) bool {
			return want == "" || before != nil && of(before) == want || after != nil && of(after) == want
		}
		if has(f.Tenant, tenantSlug) && has(f.Plan, func(t *Tenant) string { return t.Plan }) && has(f.Partner, func(t *Tenant) string { return t.PartnerSlug }) {
			d.pairs = append(d.pairs, tenantPair{before: before, after: after})
		}
	}
	for _, t := range to.tenants {
		if !changed[t] {
			add(t, t)
			continue
		}
		add(wasOf[t.ID], t)
		delete(wasOf, t.ID)
	}
	for _, t := range wasOf {
		add(t, nil)
	}
	slices.SortFunc(d.pairs, func(a, b tenantPair) int {
		return cmp.Or(strings.Compare(a.tenant().Slug, b.tenant().Slug), strings.Compare(a.tenant().ID, b.tenant().ID))
	})

	type place struct{ plan, partner string }
	type class struct {
		before, after  place
		moved, renamed bool
	}
	known := map[class]int{}
	for i := range d.pairs {
		p := &d.pairs[i]
		var c class
		if p.before != nil {
			c.before = place{p.before.Plan, p.before.PartnerSlug}
		}
		if p.after != nil {
			c.after = place{p.after.Plan, p.after.PartnerSlug}
		}
		c.renamed = p.before == nil || p.after == nil || p.before.Slug != p.after.Slug
		c.moved = c.renamed || c.before != c.after
		n, seen := known[c]
		if !seen {
			n, known[c] = len(d.classes), len(d.classes)
			d.classes = append(d.classes, tenantClass{like: *p, moved: c.moved, renamed: c.renamed})
		}
		p.class = n
		d.classes[n].n++
		if p.before != nil && p.after != nil && c.renamed {
			d.reslugged = append(d.reslugged, i)
		}
	}
	d.packIDs()
}

// packIDs copies the ids of each class to one place.
func (d *Difference) packIDs() {
	texts := make([][]byte, len(d.classes))
	for i := range d.pairs {
		p := &d.pairs[i]
		texts[p.class] = append(texts[p.class], p.tenant().ID...)
	}
	rest := make([]string, len(d.classes))
	for n := range d.classes {
		rest[n], d.classes[n].ids = string(texts[n]), make([]string, 0, d.classes[n].n)
	}
	for i := range d.pairs {
		p := &d.pairs[i]
		size := len(p.tenant().ID)
		d.classes[p.class].ids = append(d.classes[p.class].ids, rest[p.class][:size])
		rest[p.class] = rest[p.class][size:]
	}
}

// judge tells for whom one flag turned.
type judge struct {
	was, is reach
	classes []judged
	change  Direction // "" for both
}

// judged is what can be said of a whole class: the environments in which its tenants had and have the flag, if
// slug and bucket let them.
type judged struct{ was, is envSet }

func (d *Difference) judge(p flagPair) *judge {
	s := Snapshot{environments: d.environments}
	j := &judge{was: s.reach(p.before), is: s.reach(p.after), classes: make([]judged, len(d.classes)), change: d.change}
	for i := range d.classes {
		c := &d.classes[i]
		if p.same && !c.moved {
			continue
		}
		was, is := j.was.place(c.like.before)&d.mask, j.is.place(c.like.after)&d.mask
		if p.same && !c.renamed && was == is {
			continue
		}
		j.classes[i] = judged{was, is}
	}
	return j
}

// of returns the environments in which a pair's tenant gained and lost the flag.
func (j *judge) of(p *tenantPair) (gained, lost envSet) {
	c := j.classes[p.class]
	bucket := -1 // the same before and after: id and key are
	if c.was != 0 && !j.was.picks(p.before, &bucket) {
		c.was = 0
	}
	if c.is != 0 && !j.is.picks(p.after, &bucket) {
		c.is = 0
	}
	return j.turned(c)
}

func (j *judge) turned(c judged) (gained, lost envSet) {
	gained, lost = c.is&^c.was, c.was&^c.is
	if j.change == Lost {
		gained = 0
	}
	if j.change == Gained {
		lost = 0
	}
	return gained, lost
}

func (d *Difference) count(p flagPair) FlagTurns {
	out := FlagTurns{Key: p.key, flag: p}
	byEnvironment := make([]Turned, len(d.environments))
	add := func(gained, lost envSet, n int) {
		out.add(gained, lost, n)
		for set := uint64(gained); set != 0; set &= set - 1 {
			byEnvironment[bits.TrailingZeros64(set)].Gained += n
		}
		for set := uint64(lost); set != 0; set &= set - 1 {
			byEnvironment[bits.TrailingZeros64(set)].Lost += n
		}
	}
	j := d.judge(p)
	if named, few := d.named(j); few {
		for _, i := range named {
			gained, lost := j.of(&d.pairs[i])
			add(gained, lost, 1)
		}
	} else {
		d.countClasses(j, add)
	}
	for i, turned := range byEnvironment {
		if d.mask&(1<<i) != 0 {
			out.ByEnvironment = append(out.ByEnvironment, turned)
		}
	}
	return out
}

// countClasses adds what each class comes to.
func (d *Difference) countClasses(j *judge, add func(gained, lost envSet, n int)) {
	if j.was.lists() || j.is.lists() { // one side is, so that each tenant is asked
		for i := range d.pairs {
			if gained, lost := j.of(&d.pairs[i]); gained|lost != 0 {
				add(gained, lost, 1)
			}
		}
		return
	}
	for n, c := range j.classes {
		switch {
		case c.was|c.is == 0:
		case (c.was == 0 || j.was.whole()) && (c.is == 0 || j.is.whole()):
			gained, lost := j.turned(c)
			add(gained, lost, d.classes[n].n)
		default: // nothing but the bucket decides
			var buckets [MaxPct]int
			key := cmp.Or(j.is.flag, j.was.flag).Key
			for _, id := range d.classes[n].ids {
				buckets[Bucket(id, key)]++
			}
			for bucket, n := range buckets {
				c := c
				if !j.was.holds(bucket) {
					c.was = 0
				}
				if !j.is.holds(bucket) {
					c.is = 0
				}
				gained, lost := j.turned(c)
				add(gained, lost, n)
			}
		}
	}
}

// named returns the pairs, in their order, that alone can have the flag, where either side is for listed slugs or
// for nobody.
func (d *Difference) named(j *judge) (pairs []int, few bool) {
	var slugs []string
	for _, r := range []*reach{&j.was, &j.is} {
		if r.lists() {
			slugs = append(slugs, r.flag.Scope.TenantSlugs...)
		} else if !r.nobody() {
			return nil, false
		}
	}
	slices.Sort(slugs)
	for _, slug := range slices.Compact(slugs) {
		i, _ := slices.BinarySearchFunc(d.pairs, slug, func(p tenantPair, slug string) int { return strings.Compare(p.tenant().Slug, slug) })
		for ; i < len(d.pairs) && d.pairs[i].tenant().Slug == slug; i++ {
			pairs = append(pairs, i)
		}
	}
	pairs = append(pairs, d.reslugged...)
	slices.Sort(pairs)
	return slices.Compact(pairs), true
}

// lists tells that the flag is for listed slugs alone.
func (r *reach) lists() bool {
	f := r.flag
	return f != nil && (f.State == Targeted || f.State == Rollout) && len(f.Scope.TenantSlugs) > 0
}

// holds tells whether a bucket is such that a tenant of the flag's scope has it.
func (r *reach) holds(bucket int) bool {
	f := r.flag
	return f != nil && (f.State != Rollout || bucket < f.Pct)
}

// Turns lists the turns after a place.
func (d *Difference) Turns(after Place) iter.Seq[Turn] {
	return func(yield func(Turn) bool) {
		for _, f := range d.Flags {
			if f.Key < after.Key {
				continue
			}
			j := d.judge(f.flag)
			named, few := d.named(j)
			candidates := len(d.pairs)
			if few {
				candidates = len(named)
			}
			for i := range candidates {
				if few {
					i = named[i]
				}
				p := &d.pairs[i]
				if c := j.classes[p.class]; c.was|c.is == 0 {
					continue
				}
				t := Turn{Key: f.Key, Tenant: p.tenant(), New: p.before == nil, Removed: p.after == nil}
				gained, lost := j.of(p)
				for _, side := range []struct {
					change Direction
					set    envSet
				}{{Gained, gained}, {Lost, lost}} {
					t.Change = side.change
					if side.set == 0 || f.Key == after.Key && t.Place().compare(after) <= 0 {
						continue
					}
					t.Environments = nil
					for set := uint64(side.set); set != 0; set &= set - 1 {
						t.Environments = append(t.Environments, d.environments[bits.TrailingZeros64(set)])
					}
					if !yield(t) {
						return
					}
				}
			}
		}
	}
}
