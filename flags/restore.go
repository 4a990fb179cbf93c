package flags

import (
	"errors"
	"fmt"
	"math/bits"
	"slices"
	"strings"
	"time"
)

// Comeback is a flag that is not now as it was at a moment.
type Comeback struct {
	Key     string
	Now     *Flag        // nil: there is none
	Then    *Flag        // as it would come back; nil: there was none, and so it would be deleted
	Refused []FieldError // why it can't: its scope names what is not known any more
}

// Comebacks returns, by key, in what the snapshot's flags differ in content from those of a moment, which are by
// key too.
func (s *Snapshot) Comebacks(then []*Flag) []Comeback {
	var out []Comeback
	now := s.flags
	for len(now) > 0 || len(then) > 0 {
		var d Comeback
		switch order := compareHeads(now, then); {
		case order < 0:
			d, now = Comeback{Key: now[0].Key, Now: now[0]}, now[1:]
		case order > 0:
			d, then = s.comeBack(nil, then[0]), then[1:]
		default:
			was := then[0]
			same := now[0].SameContent(was)
			d = s.comeBack(now[0], was)
			now, then = now[1:], then[1:]
			if same {
				continue
			}
		}
		out = append(out, d)
	}
	return out
}

// compareHeads tells which of two lists by key goes on with the lower key; one that is empty goes on with none.
func compareHeads(a, b []*Flag) int {
	switch {
	case len(a) == 0:
		return 1
	case len(b) == 0:
		return -1
	}
	return strings.Compare(a[0].Key, b[0].Key)
}

// comeBack makes the content of then the next one of now. Values that now has on an axis may stay.
func (s *Snapshot) comeBack(now, then *Flag) Comeback {
	d := Comeback{Key: then.Key, Now: now}
	base := New(then.Key)
	base.CreatedAt = then.CreatedAt
	if now != nil {
		base = *now
	}
	content := Patch{Description: &then.Description, State: &then.State, Pct: &then.Pct, Scope: map[Axis][]string{}}
	for _, a := range Axes {
		content.Scope[a] = then.Scope.Axis(a)
	}
	next, err := content.Apply(base, s.Known)
	var invalid *Invalid
	if errors.As(err, &invalid) {
		d.Refused = invalid.Errors
		next = *then
	}
	d.Then = &next
	return d
}

// refusedNamed is how many of a flag's mistakes are told in one text.
const refusedNamed = 3

// Why says in one text why the flag can't come back, "" where it can.
func (d *Comeback) Why() string {
	if len(d.Refused) == 0 {
		return ""
	}
	var parts []string
	for _, e := range d.Refused[:min(len(d.Refused), refusedNamed)] {
		parts = append(parts, e.Field+" "+e.Message)
	}
	out := fmt.Sprintf("the flag %q can't come back: %s", d.Key, strings.Join(parts, "; "))
	if more := len(d.Refused) - refusedNamed; more > 0 {
		out += fmt.Sprintf("; and %d more", more)
	}
	return out
}

// ImpactOfAll counts, for each known environment in order, the tenants that gain and that lose at least one of
// the flags as they go from Now to Then; lists are empty. It also returns how many gain one in at least one
// environment.
func (s *Snapshot) ImpactOfAll(ds []Comeback) ([]EnvImpact, int) {
	type move struct{ gains, losses envSet }
	moves := make([]move, len(s.tenants))
	for _, d := range ds {
		s.moved(d.Now, d.Then, func(i int, gains, losses envSet) {
			moves[i].gains |= gains
			moves[i].losses |= losses
		})
	}
	out := make([]EnvImpact, len(s.environments))
	gainedAny := 0
	for _, m := range moves {
		if m.gains != 0 {
			gainedAny++
		}
		for set := uint64(m.gains); set != 0; set &= set - 1 {
			out[bits.TrailingZeros64(set)].Gained++
		}
		for set := uint64(m.losses); set != 0; set &= set - 1 {
			out[bits.TrailingZeros64(set)].Lost++
		}
	}
	return out, gainedAny
}

// BringBack is a request that flags become what they were at a time.
type BringBack struct {
	At       time.Time
	Keys     []string // nil: all that existed then and differ
	DryRun   bool
	Problems []FieldError
}

// DecodeBringBack reads at, keys and dryRun. Bad values are in Problems.
func DecodeBringBack(body []byte) (BringBack, error) {
	var b BringBack
	r, v, err := begin(body)
	if err != nil {
		return b, err
	}
	var at *string
	r.fields("", v, map[string]func(string, value){
		"at":   r.text(&at),
		"keys": func(path string, v value) { b.Keys = r.keys(path, v) },
		"dryRun": func(path string, v value) {
			if r.is(path, v, "a boolean") {
				b.DryRun = v.text == "true"
			}
		},
	})
	r.required("at", at)
	if at != nil {
		if t := parseTime(*at); t == nil {
			r.problem("at", timeMessage)
		} else {
			b.At = *t
		}
	}
	b.Problems = r.problems
	return b, r.err()
}

// keys reads a list of flag keys that has at least one.
func (r *reader) keys(path string, v value) []string {
	if !r.is(path, v, "an array") {
		return nil
	}
	if len(v.items) == 0 {
		r.problem(path, "must name at least one flag; leave it out for all that existed then")
	}
	out := []string{}
	for i, item := range v.items {
		if r.is(fmt.Sprintf("%s[%d]", path, i), item, "a string") {
			out = append(out, item.text)
		}
	}
	return out
}

// Choice is what a request picks out of differences.
type Choice struct {
	Flags     []Comeback   // by key
	Unchanged []string     // keys that were named of flags that are as they were
	Left      []string     // keys of flags made since that were not named
	Problems  []FieldError // of the keys, at "keys[2]"
	Refusals  []FieldError // of what can't come back, at its key, or at "keys" where none were named
}

// Choose picks what the keys name out of the snapshot's differences; nil keys name all flags that
// were there then.
func (s *Snapshot) Choose(all []Comeback, keys []string) Choice {
	var c Choice
	fail := func(field, message string) { c.Problems = append(c.Problems, FieldError{field, message}) }
	refuse := func(field string, d *Comeback) {
		if d.Refused != nil {
			c.Refusals = append(c.Refusals, FieldError{field, d.Why()})
		}
	}
	first := map[string]int{}
	for i, key := range keys {
		field := fmt.Sprintf("keys[%d]", i)
		at, differs := slices.BinarySearchFunc(all, key, func(d Comeback, key string) int { return strings.Compare(d.Key, key) })
		switch before, twice := first[key]; {
		case twice:
			fail(field, fmt.Sprintf("is %q, as keys[%d] is", key, before))
			continue
		case differs:
			refuse(field, &all[at])
		case s.Flag(key) != nil:
			c.Unchanged = append(c.Unchanged, key)
		default:
			fail(field, fmt.Sprintf("is %q: there is no such flag, and there was none then", key))
		}
		first[key] = i
	}
	for _, d := range all {
		_, named := first[d.Key]
		switch {
		case !named && (keys != nil || d.Then == nil):
			if d.Then == nil {
				c.Left = append(c.Left, d.Key)
			}
			continue
		case !named:
			refuse("keys", &d)
		}
		c.Flags = append(c.Flags, d)
	}
	slices.Sort(c.Unchanged)
	return c
}
