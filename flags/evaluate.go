package flags

import (
	"crypto/sha256"
	"encoding/binary"
	"slices"
)

// Bucket is the tenant's place in a flag's rollout, 0 to 99: SHA-256 of tenantID + ":" + key, read as one
// big-endian whole number, mod 100. It depends on nothing else, so raising pct only adds tenants.
func Bucket(tenantID, key string) int {
	var buf [160]byte // an id and a key are at most 64 bytes each
	b := append(buf[:0], tenantID...)
	b = append(b, ':')
	b = append(b, key...)
	sum := sha256.Sum256(b)
	rest := uint64(0)
	for i := 0; i < len(sum); i += 8 {
		// 2^64 mod 100 is 16: the number is folded one 64-bit digit at a time.
		rest = (rest*16 + binary.BigEndian.Uint64(sum[i:])%100) % 100
	}
	return int(rest)
}

// HasAnyScope tells whether any axis has values.
func (f *Flag) HasAnyScope() bool {
	s := &f.Scope
	return len(s.Plans)+len(s.TenantSlugs)+len(s.PartnerSlugs)+len(s.Environments) > 0
}

// MatchesScope tells whether every axis that has values contains the tenant's (or the environment).
// A tenant without a partner is in no list of partners. Comparison is exact.
func (f *Flag) MatchesScope(t *Tenant, environment string) bool {
	return f.failingAxis(t, environment) == ""
}

// matchesTenant is MatchesScope for the three axes that speak of the tenant.
func (f *Flag) matchesTenant(t *Tenant) bool {
	s := &f.Scope
	return admits(s.Plans, t.Plan) && admits(s.TenantSlugs, t.Slug) && admits(s.PartnerSlugs, t.PartnerSlug)
}

// failingAxis returns the first axis that excludes the tenant, or "".
func (f *Flag) failingAxis(t *Tenant, environment string) Axis {
	s := &f.Scope
	switch {
	case !admits(s.Plans, t.Plan):
		return AxisPlans
	case !admits(s.TenantSlugs, t.Slug):
		return AxisTenants
	case !admits(s.PartnerSlugs, t.PartnerSlug):
		return AxisPartners
	case !admits(s.Environments, environment):
		return AxisEnvironments
	}
	return ""
}

// admits tells whether an axis lets a value through: it has no values, or this one among them.
func admits(axis []string, value string) bool {
	if len(axis) == 0 {
		return true
	}
	if len(axis) <= 4 { // a short list is faster to read than to search
		return slices.Contains(axis, value)
	}
	_, found := slices.BinarySearch(axis, value)
	return found
}

// InRolloutBucket tells whether the tenant's bucket is below the flag's pct.
func (f *Flag) InRolloutBucket(t *Tenant) bool {
	switch {
	case f.Pct <= 0:
		return false
	case f.Pct >= MaxPct:
		return true
	}
	return Bucket(t.ID, f.Key) < f.Pct
}

// Evaluate tells whether the tenant has the flag in the environment.
func (f *Flag) Evaluate(t *Tenant, environment string) bool {
	switch f.State {
	case On:
		return true
	case Targeted:
		return f.HasAnyScope() && f.MatchesScope(t, environment)
	case Rollout:
		return f.MatchesScope(t, environment) && f.InRolloutBucket(t)
	default:
		return false
	}
}

// Reason says why a flag has its value, in OpenFeature's words.
type Reason string

// The reasons that occur. Default also stands for "not in scope", as flagd and GO Feature Flag use it.
const (
	ReasonDisabled       Reason = "DISABLED"
	ReasonStatic         Reason = "STATIC"
	ReasonDefault        Reason = "DEFAULT"
	ReasonTargetingMatch Reason = "TARGETING_MATCH"
	ReasonSplit          Reason = "SPLIT"
)

// Explanation is a value with its reason. Axis is set when an axis excluded the tenant; Bucket and Pct
// when the rollout decided (ReasonSplit).
type Explanation struct {
	Value  bool   `json:"value"`
	Reason Reason `json:"reason"`
	Axis   Axis   `json:"axis,omitempty"`
	Bucket *int   `json:"bucket,omitempty"`
	Pct    *int   `json:"pct,omitempty"`
}

// Explain is Evaluate with the deciding step. Its Value always equals Evaluate's.
func (f *Flag) Explain(t *Tenant, environment string) Explanation {
	return f.Explained(f.Outcome(t, environment))
}

// Outcome is what a flag came to for a tenant in an environment, in one byte: the tenant's bucket where the
// rollout decided (0 to 99), else one of the outcomes below. It holds for the flag as it was.
type Outcome uint8

// The outcomes in which no bucket counts.
const (
	Disabled Outcome = 100 + iota // the flag is off
	Static                        // the flag is on
	Matched                       // targeted, and each axis that has values contains the tenant's
	NoAxis                        // targeted, and no axis has values
	Excluded                      // + the index in Axes of the first axis that excludes the tenant
)

// Outcome evaluates the flag to all there is to say of it.
func (f *Flag) Outcome(t *Tenant, environment string) Outcome {
	switch f.State {
	case On:
		return Static
	case Targeted, Rollout:
		if f.State == Targeted && !f.HasAnyScope() {
			return NoAxis
		}
		if axis := f.failingAxis(t, environment); axis != "" {
			return Excluded + Outcome(slices.Index(Axes[:], axis))
		}
		if f.State == Targeted {
			return Matched
		}
		return Outcome(Bucket(t.ID, f.Key))
	default:
		return Disabled
	}
}

// Bucket returns the bucket by which the rollout decided; it is not ok where none did.
func (o Outcome) Bucket() (bucket int, ok bool) { return int(o), o < Disabled }

// Outcomes returns the outcomes without a bucket that the flag can have.
func (f *Flag) Outcomes() []Outcome {
	var out []Outcome
	switch f.State {
	case On:
		return []Outcome{Static}
	case Targeted:
		out = []Outcome{Matched, NoAxis}
	case Rollout:
	default:
		return []Outcome{Disabled}
	}
	for o := Excluded; o < Excluded+Outcome(len(Axes)); o++ {
		out = append(out, o)
	}
	return out
}

// Holds tells whether an outcome of the flag is its being on.
func (f *Flag) Holds(o Outcome) bool {
	if o < Disabled {
		return int(o) < f.Pct
	}
	return o == Static || o == Matched
}

// Explained says an outcome of the flag in words.
func (f *Flag) Explained(o Outcome) Explanation {
	e := Explanation{Value: f.Holds(o)}
	switch {
	case o < Disabled:
		bucket, pct := int(o), f.Pct
		e.Reason, e.Bucket, e.Pct = ReasonSplit, &bucket, &pct
	case o == Disabled:
		e.Reason = ReasonDisabled
	case o == Static:
		e.Reason = ReasonStatic
	case o == Matched:
		e.Reason = ReasonTargetingMatch
	default:
		e.Reason = ReasonDefault
		if o >= Excluded {
			e.Axis = Axes[o-Excluded]
		}
	}
	return e
}
