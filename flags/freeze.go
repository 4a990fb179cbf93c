package flags

import (
	"fmt"
	"strings"
	"time"
	"unicode/utf8"
)

// Bounds of a freeze.
const (
	MaxReason = 500                 // characters
	MaxFreeze = 30 * 24 * time.Hour // from now to its end
)

// Freeze stops all changes of flags and registry but kills, until it ends by itself or is ended.
type Freeze struct {
	Reason string    `json:"reason"`
	By     string    `json:"by"` // the actor
	Since  time.Time `json:"since"`
	Until  time.Time `json:"until"`
}

// Frozen is a change that a freeze refuses.
type Frozen struct{ Freeze }

func (e *Frozen) Error() string {
	return fmt.Sprintf("changes are frozen until %s UTC by %s: %s", e.Until.UTC().Format("2 Jan 2006 15:04"), e.By, e.Reason)
}

// Frozen returns the freeze that is in force at a time, or nil.
func (s *Snapshot) Frozen(now time.Time) *Freeze {
	if s.freeze == nil || !now.Before(s.freeze.Until) {
		return nil
	}
	return s.freeze
}

// Frozen is Snapshot.Frozen for the working copy.
func (e *Edit) Frozen(now time.Time) *Freeze { return e.base.Frozen(now) }

// SetFreeze puts a freeze, nil to remove it.
func (e *Edit) SetFreeze(f *Freeze) {
	next := *e.View()
	next.freeze = f
	e.base = &next
}

// NewFreeze is a freeze to be made.
type NewFreeze struct {
	Reason   string    // 1 to MaxReason characters
	Until    time.Time // after now, at most MaxFreeze
	Problems []FieldError
}

// DecodeFreeze reads the reason and the end of a freeze. Bad values wait in Problems for Check.
func DecodeFreeze(body []byte) (NewFreeze, error) {
	r, v, err := begin(body)
	if err != nil {
		return NewFreeze{}, err
	}
	var n NewFreeze
	var reason, until *string
	r.fields("", v, map[string]func(string, value){"reason": r.text(&reason), "until": r.text(&until)})
	r.required("reason", reason)
	r.required("until", until)
	if reason != nil {
		n.Reason = *reason
	}
	if until != nil {
		if n.Until, err = time.Parse(time.RFC3339, *until); err != nil {
			r.problem("until", "must be a time such as 2026-01-31T14:05:00Z")
		}
	}
	n.Problems = r.problems
	return n, r.err()
}

// Check returns the freeze with its texts trimmed and its end in whole milliseconds, or *Invalid.
func (n NewFreeze) Check(now time.Time) (NewFreeze, error) {
	bad := Invalid{Errors: n.Problems}
	fail := func(field, message string) {
		if !bad.names(field) {
			bad.Errors = append(bad.Errors, FieldError{field, message})
		}
	}
	n.Reason, n.Until = strings.TrimSpace(n.Reason), n.Until.UTC().Truncate(time.Millisecond)
	if message := checkText(n.Reason, MaxReason); message != "" {
		fail("reason", message)
	} else if utf8.RuneCountInString(n.Reason) == 0 {
		fail("reason", "must not be empty: it is what everybody is told")
	}
	switch {
	case !n.Until.After(now):
		fail("until", "must lie in the future")
	case n.Until.After(now.Add(MaxFreeze)):
		fail("until", "must be within 30 days")
	}
	if len(bad.Errors) > 0 {
		return n, &bad
	}
	return n, nil
}

// DiffFreeze lists what differs between two freezes; nil is none.
func DiffFreeze(before, after *Freeze) Changes {
	fields := func(f *Freeze) []field {
		if f == nil {
			return nil
		}
		return []field{{"reason", f.Reason}, {"until", f.Until}}
	}
	return diff(fields(before), fields(after))
}

// IsKill tells whether a change turns a flag off, with pct 0, and does nothing else: what goes on while changes
// are frozen.
func IsKill(before, after *Flag) bool {
	if before == nil || after == nil || after.State != Off || after.Pct != 0 {
		return false
	}
	same := *after
	same.State, same.Pct = before.State, before.Pct
	return before.SameContent(&same)
}
