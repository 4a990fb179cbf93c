package flags_test

import (
	"strings"
	"testing"

	"github.com/dezky/platform-api/flags"
)

func TestIsName(t *testing.T) {
	tests := []struct {
		name, in string
		want     bool
	}{
		{"one letter", "a", true},
		{"all that is allowed", "Prod.eu_1-b", true},
		{"digit first", "2nd", true},
		{"64 characters", strings.Repeat("a", 64), true},
		{"65 characters", strings.Repeat("a", 65), false},
		{"empty", "", false},
		{"dot first", ".a", false},
		{"underscore first", "_a", false},
		{"hyphen first", "-a", false},
		{"space", "a b", false},
		{"comma", "a,b", false},
		{"slash", "a/b", false},
		{"not ASCII", "ø", false},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			if got := flags.IsName(tt.in); got != tt.want {
				t.Errorf("IsName(%q) = %t, want %t", tt.in, got, tt.want)
			}
		})
	}
}
