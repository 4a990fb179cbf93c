package handlers

import (
	"slices"
	"strings"
	"testing"
)

func TestBestIsInOrderAndNoMoreThanAsked(t *testing.T) {
	names := []string{"uncheck", "x", "check-in", "one-check", "recheck", "checkout", "check", "two check"}
	also := map[string]string{"x": "check"}
	self, other := func(s string) string { return s }, func(s string) string { return also[s] }
	want := []string{"check", "check-in", "checkout", "one-check", "two check", "recheck", "uncheck", "x"}
	for most := range len(want) + 1 {
		got := best(names, most, self, other, "check", strings.Compare)
		if !slices.Equal(got, want[:most]) {
			t.Errorf("best %d: %q, want %q", most, got, want[:most])
		}
	}
	if got := best(names, 8, self, nil, "check", func(string, string) int { return 0 }); !slices.Equal(got[3:5], []string{"one-check", "two check"}) {
		t.Errorf("where nothing decides: %q, want the first of them first", got[3:5])
	}
}
