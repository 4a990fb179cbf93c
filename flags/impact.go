package flags

import "math/bits"

// envSet is a set of known environments: bit i stands for Snapshot.Environments()[i].
type envSet uint64

// MaxEnvironments is the most known environments, so that a set of them is one word.
const MaxEnvironments = 64

// reach answers in which of the snapshot's environments a tenant has a flag.
type reach struct {
	flag *Flag // nil for a flag that does not exist: nobody has it
	all  envSet
	envs envSet // the environments that the scope's axis admits
}

func (s *Snapshot) reach(f *Flag) reach {
	r := reach{flag: f, all: 1<<len(s.environments) - 1}
	if f == nil {
		return r
	}
	for i, name := range s.environments {
		if admits(f.Scope.Environments, name) {
			r.envs |= 1 << i
		}
	}
	return r
}

// of agrees with Flag.Evaluate in each environment; a property test holds the two together. bucket is
// the tenant's for this key if it is known already, and else negative.
func (r *reach) of(t *Tenant, bucket *int) envSet {
	if envs := r.place(t); envs != 0 && r.picks(t, bucket) {
		return envs
	}
	return 0
}

// place is of for a tenant, nil for none, whose slug and bucket are such that it has the flag if they decide.
func (r *reach) place(t *Tenant) envSet {
	f := r.flag
	switch {
	case f == nil || t == nil:
	case f.State == On:
		return r.all
	case f.State == Targeted && f.HasAnyScope() || f.State == Rollout && f.Pct > 0:
		if r.envs != 0 && f.matchesPlace(t) {
			return r.envs
		}
	}
	return 0
}

// picks tells whether slug and bucket of a tenant whose place has the flag are such that it has it.
func (r *reach) picks(t *Tenant, bucket *int) bool {
	f := r.flag
	return r.whole() || admits(f.Scope.TenantSlugs, t.Slug) && (f.State == Targeted || f.Pct >= MaxPct || bucketOf(t, f, bucket) < f.Pct)
}

// whole tells that neither slug nor bucket decides.
func (r *reach) whole() bool {
	f := r.flag
	return f.State == On || len(f.Scope.TenantSlugs) == 0 && (f.State == Targeted || f.Pct >= MaxPct)
}

// bucketOf hashes once for all who ask about the same tenant and key.
func bucketOf(t *Tenant, f *Flag, bucket *int) int {
	if *bucket < 0 {
		*bucket = Bucket(t.ID, f.Key)
	}
	return *bucket
}

// nobody tells cheaply that no tenant can have the flag.
func (r *reach) nobody() bool {
	f := r.flag
	return f == nil || f.State == Off || f.State == Rollout && f.Pct == 0 ||
		f.State == Targeted && !f.HasAnyScope()
}

// EnvImpact is who gains and who loses a flag in one environment. The counts are exact; the lists are
// by slug and may be cut.
type EnvImpact struct {
	Gained, Lost  int
	Gains, Losses []*Tenant
}

func (e *EnvImpact) add(t *Tenant, gained bool, limit int) {
	count, list := &e.Lost, &e.Losses
	if gained {
		count, list = &e.Gained, &e.Gains
	}
	*count++
	if len(*list) < limit {
		*list = append(*list, t)
	}
}

// Impact returns, for each known environment in order, who gains and who loses when a flag goes from
// before to after; nil stands for a flag that does not exist. Lists hold at most limit tenants.
// It also returns how many gain in at least one environment.
func (s *Snapshot) Impact(before, after *Flag, limit int) ([]EnvImpact, int) {
	out := make([]EnvImpact, len(s.environments))
	gainedAny := 0
	s.moved(before, after, func(i int, gains, losses envSet) {
		if gains != 0 {
			gainedAny++
		}
		for diff := uint64(gains | losses); diff != 0; diff &= diff - 1 {
			env := bits.TrailingZeros64(diff)
			out[env].add(s.tenants[i], gains&(1<<env) != 0, limit)
		}
	})
	return out, gainedAny
}

// moved visits each tenant, by its place in the snapshot, that gains or loses a flag in an environment when the
// flag goes from before to after.
func (s *Snapshot) moved(before, after *Flag, visit func(i int, gains, losses envSet)) {
	was, is := s.reach(before), s.reach(after)
	if was.nobody() && is.nobody() {
		return
	}
	for i, t := range s.tenants {
		bucket := -1
		if a, b := was.of(t, &bucket), is.of(t, &bucket); a != b {
			visit(i, b&^a, a&^b)
		}
	}
}

// Preview is what a draft would do, seen from one environment.
type Preview struct {
	EnvImpact                     // of the environment asked for
	Total         int             // all tenants
	Matched       int             // tenants that have the flag under the draft
	GainedAny     int             // tenants that gain in at least one environment
	ByEnvironment []EnvImpact     // for each of Snapshot.Environments(), counts only
	ByPct         [MaxPct + 1]int // tenants that would have it were the state rollout at p
}

// Preview compares a draft with the flag as it is. The environment must be a known one; lists hold at
// most limit tenants. All counts come from one walk over the registry.
func (s *Snapshot) Preview(before, after *Flag, environment string, limit int) Preview {
	p := Preview{Total: len(s.tenants), ByEnvironment: make([]EnvImpact, len(s.environments))}
	here := s.environmentIndex(environment)
	was, is := s.reach(before), s.reach(after)
	inScope := is.envs&(1<<here) != 0
	var buckets [MaxPct]int
	for _, t := range s.tenants {
		bucket := -1
		if inScope && after.matchesTenant(t) {
			buckets[bucketOf(t, after, &bucket)]++
		}
		a, b := was.of(t, &bucket), is.of(t, &bucket)
		if b&(1<<here) != 0 {
			p.Matched++
		}
		if b&^a != 0 {
			p.GainedAny++
		}
		for diff := uint64(a ^ b); diff != 0; diff &= diff - 1 {
			i := bits.TrailingZeros64(diff)
			gained := b&(1<<i) != 0
			p.ByEnvironment[i].add(t, gained, 0)
			if i == here {
				p.add(t, gained, limit)
			}
		}
	}
	for pct := range MaxPct {
		p.ByPct[pct+1] = p.ByPct[pct] + buckets[pct]
	}
	return p
}
