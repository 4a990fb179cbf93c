package flags

import (
	"errors"
	"strings"
	"testing"
	"time"
)

func TestDecodeFreeze(t *testing.T) {
	now := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	for _, tt := range []struct{ body, want string }{
		{`{"reason": " launch ", "until": "2026-01-02T05:00:00+01:00"}`, ""},
		{`{"reason": "launch", "until": "2026-02-01T03:04:05Z"}`, ""},
		{`{"reason": "launch", "until": "2026-02-01T03:04:05.001Z"}`, "until must be within 30 days"},
		{`{"reason": "launch", "until": "2026-01-02T03:04:05Z"}`, "until must lie in the future"},
		{`{"reason": "launch", "until": "tomorrow"}`, "until must be a time such as 2026-01-31T14:05:00Z"},
		{`{"reason": " ", "until": "2026-01-03T00:00:00Z"}`, "reason must not be empty: it is what everybody is told"},
		{`{"reason": "` + strings.Repeat("ø", 501) + `", "until": "2026-01-03T00:00:00Z"}`, "reason has 501 characters; at most 500 are allowed"},
		{`{}`, "reason is required; until is required"},
		{`{"reason": null, "until": "2026-01-03T00:00:00Z"}`, "reason must not be null"},
	} {
		n, err := DecodeFreeze([]byte(tt.body))
		if err == nil {
			n, err = n.Check(now)
		}
		got := ""
		if err != nil {
			got = err.Error()
		}
		if got != tt.want {
			t.Errorf("%.80s: %q, want %q", tt.body, got, tt.want)
		}
		if err == nil && n.Reason != "launch" {
			t.Errorf("%s: the reason is %q", tt.body, n.Reason)
		}
	}
	for _, body := range []string{`{"reason": 1}`, `{"why": ""}`, `[]`, ``} {
		var malformed *Malformed
		if _, err := DecodeFreeze([]byte(body)); !errors.As(err, &malformed) {
			t.Errorf("%s: %v, want that it is malformed", body, err)
		}
	}
}

func TestIsKill(t *testing.T) {
	on := New("search")
	on.State, on.Pct, on.Description = On, 30, "what"
	off := on
	off.State, off.Pct = Off, 0
	half, other, scoped := off, off, off
	half.Pct, other.Description, scoped.Scope = 30, "else", Scope{Plans: []string{"business"}}
	for _, tt := range []struct {
		name          string
		before, after *Flag
		want          bool
	}{
		{"to off and 0", &on, &off, true},
		{"the percent of one that is off", &half, &off, true},
		{"to off with the percent kept", &on, &half, false},
		{"with another description", &on, &other, false},
		{"with another scope", &on, &scoped, false},
		{"back", &off, &on, false},
		{"creation", nil, &off, false},
		{"deletion", &on, nil, false},
	} {
		if got := IsKill(tt.before, tt.after); got != tt.want {
			t.Errorf("%s: IsKill = %t, want %t", tt.name, got, tt.want)
		}
	}
}
