package flags

import (
	"cmp"
	"maps"
	"slices"
	"strings"
	"time"
)

// Snapshot is everything that evaluation needs, at one revision. It never changes, so it is read
// without a lock; what it returns must not be changed either.
type Snapshot struct {
	epoch        string
	revision     int64
	modified     time.Time
	environments []string
	flags        []*Flag    // by key
	tenants      []*Tenant  // by slug
	partners     []*Partner // by slug
	freeze       *Freeze    // the last one, perhaps over; nil: none
}

// NewSnapshot returns a snapshot of the given things in any order. The epoch names the line of
// revisions: a database that came from a copy has another, so that a revision is never mistaken.
func NewSnapshot(epoch string, revision int64, environments []string, fs []*Flag, ts []*Tenant, ps []*Partner) *Snapshot {
	s := &Snapshot{epoch, revision, time.Time{}, environments, slices.Clone(fs), slices.Clone(ts), slices.Clone(ps), nil}
	slices.SortFunc(s.flags, func(a, b *Flag) int { return cmp.Compare(a.Key, b.Key) })
	slices.SortFunc(s.tenants, func(a, b *Tenant) int { return cmp.Compare(a.Slug, b.Slug) })
	slices.SortFunc(s.partners, func(a, b *Partner) int { return cmp.Compare(a.Slug, b.Slug) })
	return s
}

// Epoch names the line of revisions.
func (s *Snapshot) Epoch() string { return s.epoch }

// Revision counts the transactions that changed flags or registry; it only grows within an epoch.
func (s *Snapshot) Revision() int64 { return s.revision }

// Modified is when flags or registry changed last, as the history has it; zero where nobody knows.
func (s *Snapshot) Modified() time.Time { return s.modified }

// Environments returns the known environments, in the configured order.
func (s *Snapshot) Environments() []string { return s.environments }

// Flags returns all flags by key.
func (s *Snapshot) Flags() []*Flag { return s.flags }

// Tenants returns all tenants by slug.
func (s *Snapshot) Tenants() []*Tenant { return s.tenants }

// Partners returns all partners by slug.
func (s *Snapshot) Partners() []*Partner { return s.partners }

// Flag returns the flag with the key, or nil.
func (s *Snapshot) Flag(key string) *Flag { return find(s.flags, key, flagKey) }

// FlagIndex returns where in Flags the flag with the key is; it is not ok where there is none.
func (s *Snapshot) FlagIndex(key string) (int, bool) {
	return slices.BinarySearchFunc(s.flags, key, func(f *Flag, key string) int { return strings.Compare(f.Key, key) })
}

// Tenant returns the tenant with the slug, or nil.
func (s *Snapshot) Tenant(slug string) *Tenant { return find(s.tenants, slug, tenantSlug) }

// Partner returns the partner with the slug, or nil.
func (s *Snapshot) Partner(slug string) *Partner { return find(s.partners, slug, partnerSlug) }

func flagKey(f *Flag) string        { return f.Key }
func tenantSlug(t *Tenant) string   { return t.Slug }
func partnerSlug(p *Partner) string { return p.Slug }

func find[T any](sorted []*T, name string, nameOf func(*T) string) *T {
	i, ok := slices.BinarySearchFunc(sorted, name, func(x *T, name string) int { return strings.Compare(nameOf(x), name) })
	if !ok {
		return nil
	}
	return sorted[i]
}

// HasEnvironment tells whether the environment is known.
func (s *Snapshot) HasEnvironment(name string) bool { return s.environmentIndex(name) >= 0 }

func (s *Snapshot) environmentIndex(name string) int { return slices.Index(s.environments, name) }

// Known tells whether a value may be added to an axis. It is a Known.
func (s *Snapshot) Known(a Axis, value string) bool {
	switch a {
	case AxisPlans:
		return slices.Contains(Plans, value)
	case AxisTenants:
		return s.Tenant(value) != nil
	case AxisPartners:
		return s.Partner(value) != nil
	default:
		return s.HasEnvironment(value)
	}
}

// TenantsOf returns the slugs of the first limit tenants of a partner.
func (s *Snapshot) TenantsOf(partner string, limit int) []string {
	var slugs []string
	for _, t := range s.tenants {
		if t.PartnerSlug == partner {
			if slugs = append(slugs, t.Slug); len(slugs) == limit {
				break
			}
		}
	}
	return slugs
}

// Edit is a working copy of a snapshot: it collects changes and folds them into a new snapshot, sharing
// all that did not change. It is for one goroutine.
type Edit struct {
	base     *Snapshot
	flags    map[string]*Flag // nil: deleted
	tenants  map[string]*Tenant
	partners map[string]*Partner
}

// Edit begins a working copy.
func (s *Snapshot) Edit() *Edit {
	return &Edit{s, map[string]*Flag{}, map[string]*Tenant{}, map[string]*Partner{}}
}

// Flag returns the flag as edited, or nil.
func (e *Edit) Flag(key string) *Flag {
	if f, edited := e.flags[key]; edited {
		return f
	}
	return e.base.Flag(key)
}

// Tenant returns the tenant as edited, or nil.
func (e *Edit) Tenant(slug string) *Tenant {
	if t, edited := e.tenants[slug]; edited {
		return t
	}
	return e.base.Tenant(slug)
}

// Partner returns the partner as edited, or nil.
func (e *Edit) Partner(slug string) *Partner {
	if p, edited := e.partners[slug]; edited {
		return p
	}
	return e.base.Partner(slug)
}

// Known is Snapshot.Known for the working copy.
func (e *Edit) Known(a Axis, value string) bool {
	switch a {
	case AxisTenants:
		return e.Tenant(value) != nil
	case AxisPartners:
		return e.Partner(value) != nil
	default:
		return e.base.Known(a, value)
	}
}

// ScopedTo returns the keys of the flags whose scope names the value on the axis, sorted.
func (e *Edit) ScopedTo(a Axis, value string) []string {
	var keys []string
	names := func(f *Flag) bool {
		_, found := slices.BinarySearch(f.Scope.Axis(a), value)
		return found
	}
	for _, f := range e.base.flags {
		if _, edited := e.flags[f.Key]; !edited && names(f) {
			keys = append(keys, f.Key)
		}
	}
	for key, f := range e.flags {
		if f != nil && names(f) {
			keys = append(keys, key)
		}
	}
	slices.Sort(keys)
	return keys
}

// SetFlag puts a flag, nil to remove it.
func (e *Edit) SetFlag(key string, f *Flag) { e.flags[key] = f }

// SetTenant puts a tenant, nil to remove it.
func (e *Edit) SetTenant(slug string, t *Tenant) { e.tenants[slug] = t }

// SetPartner puts a partner, nil to remove it.
func (e *Edit) SetPartner(slug string, p *Partner) { e.partners[slug] = p }

// Revision returns the revision that the working copy is at.
func (e *Edit) Revision() int64 { return e.base.revision }

// SetRevision puts the working copy at a later revision, which was made at a time.
func (e *Edit) SetRevision(revision int64, at time.Time) {
	next := *e.View()
	next.revision, next.modified = revision, at
	e.base = &next
}

// View folds what was edited so far and returns it. Kinds that were not edited are shared with the
// snapshot that the edit began from, not copied; without any edit it is that snapshot itself.
func (e *Edit) View() *Snapshot {
	if len(e.flags)+len(e.tenants)+len(e.partners) == 0 {
		return e.base
	}
	next := *e.base
	next.flags = fold(next.flags, e.flags, flagKey)
	next.tenants = fold(next.tenants, e.tenants, tenantSlug)
	next.partners = fold(next.partners, e.partners, partnerSlug)
	clear(e.flags)
	clear(e.tenants)
	clear(e.partners)
	e.base = &next
	return e.base
}

// fold merges edits into a sorted list; both are walked once.
func fold[T any](list []*T, edits map[string]*T, nameOf func(*T) string) []*T {
	if len(edits) == 0 {
		return list
	}
	out := make([]*T, 0, len(list)+len(edits))
	for _, name := range slices.Sorted(maps.Keys(edits)) {
		i, found := slices.BinarySearchFunc(list, name, func(x *T, name string) int { return strings.Compare(nameOf(x), name) })
		out = append(out, list[:i]...)
		if found {
			i++
		}
		list = list[i:]
		if x := edits[name]; x != nil {
			out = append(out, x)
		}
	}
	return append(out, list...)
}
