package flags

import (
	"encoding/json"
	"math/bits"
)

// TenantChange is a tenant before and after a change.
type TenantChange struct{ Before, After *Tenant }

// Flip is a flag that tenants gain or lose although the flag did not change.
type Flip struct {
	Flag   *Flag
	Impact []EnvImpact // for each of Snapshot.Environments()
}

// Flips returns which flags of the snapshot the changes flip, by key; lists hold at most limit tenants. The
// changes are by slug. Only plan and partner matter: id and slug never change, evaluation ignores the rest.
func (s *Snapshot) Flips(changes []TenantChange, limit int) []Flip {
	type place struct{ plan, partner string }
	type move struct{ from, to place }
	known := map[move]int{}
	var moves []TenantChange // one change of each move: many tenants make the same one
	moveOf := make([]int, len(changes))
	for i, c := range changes {
		m := move{place{c.Before.Plan, c.Before.PartnerSlug}, place{c.After.Plan, c.After.PartnerSlug}}
		n, seen := known[m]
		if !seen {
			n, known[m] = len(moves), len(moves)
			moves = append(moves, c)
		}
		moveOf[i] = n
	}
	var flips []Flip
	gained, lost := make([]bool, len(moves)), make([]bool, len(moves))
	for _, f := range s.flags {
		r := s.reach(f)
		if f.State == On || r.nobody() || r.envs == 0 {
			continue
		}
		moved := false
		for i, m := range moves {
			was, is := f.matchesPlace(m.Before), f.matchesPlace(m.After)
			gained[i], lost[i] = is && !was, was && !is
			moved = moved || was != is
		}
		if !moved {
			continue
		}
		var impact []EnvImpact
		for i, c := range changes {
			m := moveOf[i]
			if !gained[m] && !lost[m] || !admits(f.Scope.TenantSlugs, c.After.Slug) || f.State == Rollout && !f.InRolloutBucket(c.After) {
				continue
			}
			if impact == nil {
				impact = make([]EnvImpact, len(s.environments))
			}
			for set := uint64(r.envs); set != 0; set &= set - 1 {
				impact[bits.TrailingZeros64(set)].add(c.After, gained[m], limit)
			}
		}
		if impact != nil {
			flips = append(flips, Flip{f, impact})
		}
	}
	return flips
}

// matchesPlace is MatchesScope for the two axes that speak of what can change about a tenant.
func (f *Flag) matchesPlace(t *Tenant) bool {
	return admits(f.Scope.Plans, t.Plan) && admits(f.Scope.PartnerSlugs, t.PartnerSlug)
}

// TenantFlip is a flag that one tenant gains or loses, by the environments in which it does.
type TenantFlip struct {
	Key          string            `json:"key"`
	Environments map[string]Switch `json:"environments"`
}

// Switch is a flag's value before and after.
type Switch struct {
	From bool `json:"from"`
	To   bool `json:"to"`
}

// OfTenant tells the flips of one tenant's change.
func (s *Snapshot) OfTenant(flips []Flip) []TenantFlip {
	var out []TenantFlip
	for _, flip := range flips {
		t := TenantFlip{flip.Flag.Key, map[string]Switch{}}
		for i, name := range s.environments {
			if e := &flip.Impact[i]; e.Gained+e.Lost > 0 {
				t.Environments[name] = Switch{From: e.Lost > 0, To: e.Gained > 0}
			}
		}
		out = append(out, t)
	}
	return out
}

// ChangedTenant is a tenant after a change, with the flags that the change flipped for it.
type ChangedTenant struct {
	*Tenant
	Flips    []TenantFlip
	Revision int64 // of the change; 0 where there was nothing to change
}

// MarshalJSON writes the tenant with its flips as one more field, if there are any.
func (c ChangedTenant) MarshalJSON() ([]byte, error) {
	return json.Marshal(struct {
		tenantFields
		Flips []TenantFlip `json:"flips,omitempty"`
	}{c.Tenant.fields(), c.Flips})
}
