// Package flags is the domain: what a flag, a tenant and a snapshot are, who gets a flag, and who gains
// or loses it by a change. Standard library only: no SQL, no HTTP, no clock, no logger.
package flags

import (
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"
)

// State is a flag's switch position.
type State string

// The four states. See Flag.Evaluate for what each means.
const (
	Off      State = "off"
	On       State = "on"
	Targeted State = "targeted"
	Rollout  State = "rollout"
)

// States lists the states in the order in which they are shown.
var States = []State{Off, On, Targeted, Rollout}

// Bounds of a flag's fields.
const (
	MaxDescription = 2000   // characters
	MaxNote        = 500    // characters
	MaxAxis        = 10_000 // distinct values on one axis
	MaxPct         = 100    // per cent of the buckets
)

// Axis names one dimension of a scope.
type Axis string

// The four axes, in the order in which evaluation asks them.
const (
	AxisPlans        Axis = "plans"
	AxisTenants      Axis = "tenantSlugs"
	AxisPartners     Axis = "partnerSlugs"
	AxisEnvironments Axis = "environments"
)

// Axes lists the axes in the order in which evaluation asks them.
var Axes = [...]Axis{AxisPlans, AxisTenants, AxisPartners, AxisEnvironments}

// Scope says whom a targeted or rollout flag is for. Each axis is sorted and free of duplicates; an
// empty axis does not restrict.
type Scope struct {
	Plans        []string `json:"plans"`
	TenantSlugs  []string `json:"tenantSlugs"`
	PartnerSlugs []string `json:"partnerSlugs"`
	Environments []string `json:"environments"`
}

// Axis returns the values on one axis.
func (s *Scope) Axis(a Axis) []string { return *s.axis(a) }

func (s *Scope) axis(a Axis) *[]string {
	switch a {
	case AxisPlans:
		return &s.Plans
	case AxisTenants:
		return &s.TenantSlugs
	case AxisPartners:
		return &s.PartnerSlugs
	default:
		return &s.Environments
	}
}

// filled returns the scope with no nil axis.
func (s Scope) filled() Scope {
	for _, a := range Axes {
		if values := s.axis(a); *values == nil {
			*values = []string{}
		}
	}
	return s
}

// MarshalJSON writes an axis without values as an empty list, never as null.
func (s Scope) MarshalJSON() ([]byte, error) {
	type plain Scope
	return json.Marshal(plain(s.filled()))
}

// Equal tells whether each axis has the same values.
func (s Scope) Equal(o Scope) bool {
	for _, a := range Axes {
		if !slices.Equal(s.Axis(a), o.Axis(a)) {
			return false
		}
	}
	return true
}

// Flag is one feature flag at one version. A Flag in a Snapshot is never changed.
type Flag struct {
	Key         string    `json:"key"` // [a-z][a-z0-9_]{0,63}; never changes
	Description string    `json:"description"`
	State       State     `json:"state"`
	Pct         int       `json:"pct"` // 0 to 100; used in state Rollout only
	Scope       Scope     `json:"scope"`
	Version     int64     `json:"version"` // from 1; continues over deletion and recreation
	CreatedAt   time.Time `json:"createdAt"`
	UpdatedAt   time.Time `json:"updatedAt"`
}

// New returns a flag as it is before its first version: off, for nobody.
func New(key string) Flag {
	return Flag{Key: key, State: Off, Scope: Scope{}.filled()}
}

// SameContent tells whether description, state, pct and scope are the same.
func (f *Flag) SameContent(o *Flag) bool {
	return f.Description == o.Description && f.State == o.State && f.Pct == o.Pct && f.Scope.Equal(o.Scope)
}

// CheckKey returns what is wrong with a flag key, or "".
func CheckKey(key string) string {
	if key == "evaluate" || key == "explain" {
		return fmt.Sprintf("%q is reserved", key)
	}
	ok := len(key) >= 1 && len(key) <= 64 && key[0] >= 'a' && key[0] <= 'z'
	for i := 0; ok && i < len(key); i++ {
		c := key[i]
		ok = c >= 'a' && c <= 'z' || c >= '0' && c <= '9' || c == '_'
	}
	if !ok {
		return "must be 1 to 64 lower-case letters, digits and underscores, and begin with a letter"
	}
	return ""
}

// Patch is a change of some of a flag's fields (RFC 7396, each axis on its own); nil leaves a field.
type Patch struct {
	Description *string
	State       *State
	Pct         *int
	Scope       map[Axis][]string // a named axis is replaced; no values empties it
	Note        string            // goes into the history, not onto the flag

	// IfVersion, when not nil, lists the versions of which the flag must be at one (If-Match); AnyVersion
	// among them asks only that it exists.
	IfVersion []int64

	// Problems are mistakes found while decoding; Apply reports them with its own.
	Problems []FieldError
}

// AnyVersion in IfVersion stands for every version of a flag that exists.
const AnyVersion int64 = 0

// AtVersion returns *Stale unless the flag, nil if there is none, is at one of the versions. nil versions
// ask nothing.
func (f *Flag) AtVersion(versions []int64) error {
	if versions == nil || f != nil && (slices.Contains(versions, f.Version) || slices.Contains(versions, AnyVersion)) {
		return nil
	}
	return &Stale{Current: f}
}

// Known tells whether a value may be added to an axis now.
type Known func(a Axis, value string) bool

// Apply returns f as changed by p, or *Invalid naming every bad field. Values that f already has on an
// axis stay allowed when they are no longer known; a value that p adds must be known.
func (p *Patch) Apply(f Flag, known Known) (Flag, error) {
	bad := Invalid{Errors: slices.Clone(p.Problems)}
	fail := func(field, message string) { bad.Errors = append(bad.Errors, FieldError{field, message}) }

	if p.Description != nil {
		if message := checkText(*p.Description, MaxDescription); message != "" {
			fail("description", message)
		}
		f.Description = *p.Description
	}
	if p.State != nil {
		if !slices.Contains(States, *p.State) {
			fail("state", "must be one of off, on, targeted, rollout")
		}
		f.State = *p.State
	}
	if p.Pct != nil {
		if *p.Pct < 0 || *p.Pct > MaxPct {
			fail("pct", pctMessage)
		}
		f.Pct = *p.Pct
	}
	for _, a := range Axes {
		values, named := p.Scope[a]
		if !named {
			continue
		}
		axis, problems := normalizeAxis(a, values, f.Scope.Axis(a), known)
		bad.Errors = append(bad.Errors, problems...)
		*f.Scope.axis(a) = axis
	}
	if message := checkText(p.Note, MaxNote); message != "" {
		fail("note", message)
	}
	if len(bad.Errors) > 0 {
		return Flag{}, &bad
	}
	return f, nil
}

const pctMessage = "must be a whole number from 0 to 100"

// maxProblems bounds what is said of one axis: an answer must not dwarf its request.
const maxProblems = 1000

// normalizeAxis trims, sorts and merges values, and reports each that is empty or newly added and unknown.
func normalizeAxis(a Axis, values, had []string, known Known) ([]string, []FieldError) {
	var problems []FieldError
	out := make([]string, 0, len(values))
	for i, v := range values {
		v = strings.TrimSpace(v)
		message := ""
		switch _, old := slices.BinarySearch(had, v); {
		case v == "":
			message = "must not be empty or null"
		case !old && !known(a, v):
			message = unknownMessage(a, v)
		default:
			out = append(out, v)
			continue
		}
		if len(problems) == maxProblems {
			problems = append(problems, FieldError{"scope." + string(a), "has more bad values than are listed here"})
			break
		}
		problems = append(problems, FieldError{fmt.Sprintf("scope.%s[%d]", a, i), message})
	}
	slices.Sort(out)
	out = slices.Compact(out)
	if len(out) > MaxAxis {
		problems = append(problems, FieldError{"scope." + string(a), fmt.Sprintf("has %d values; at most %d are allowed", len(out), MaxAxis)})
	}
	return out, problems
}

func unknownMessage(a Axis, value string) string {
	switch a {
	case AxisPlans:
		return fmt.Sprintf("must be a known plan (%s), not %q", strings.Join(Plans, ", "), value)
	case AxisTenants:
		return fmt.Sprintf("must be a known tenant, not %q", value)
	case AxisPartners:
		return fmt.Sprintf("must be a known partner, not %q", value)
	default:
		return fmt.Sprintf("must be a known environment, not %q", value)
	}
}

// checkText returns what is wrong with a free text of at most limit characters, or "". Line breaks and
// tabs are allowed, other control characters are not.
func checkText(s string, limit int) string {
	if n := utf8.RuneCountInString(s); n > limit {
		return fmt.Sprintf("has %d characters; at most %d are allowed", n, limit)
	}
	if strings.ContainsFunc(s, func(r rune) bool { return unicode.IsControl(r) && r != '\n' && r != '\r' && r != '\t' }) {
		return "must not contain control characters"
	}
	if strings.ContainsRune(s, utf8.RuneError) {
		return notTextMessage
	}
	return ""
}

// notTextMessage is for what a decoder refuses: accepted by another way in, it could not be imported again.
const notTextMessage = "must not contain U+FFFD or invalid UTF-8"
