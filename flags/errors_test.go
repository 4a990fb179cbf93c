package flags_test

import (
	"errors"
	"fmt"
	"testing"

	"github.com/dezky/platform-api/flags"
)

func TestErrors(t *testing.T) {
	taken := &flags.Conflict{Message: "the key is taken"}
	invalid := &flags.Invalid{Errors: []flags.FieldError{
		{Field: "pct", Message: "must be whole"}, {Field: "", Message: "must be one flag"},
	}}
	tests := []struct {
		name string
		in   error
		want string
	}{
		{"malformed, the whole", &flags.Malformed{Message: "is empty"}, "the body is empty"},
		{"malformed, a field", &flags.Malformed{Where: "scope.plans[1]", Message: "is wrong"}, "scope.plans[1] is wrong"},
		{"invalid", invalid, "pct must be whole; must be one flag"},
		{"invalid, prefixed", invalid.Prefixed("flags[3]"), "flags[3].pct must be whole; flags[3] must be one flag"},
		{"the original stays", invalid, "pct must be whole; must be one flag"},
		{"conflict", taken, "the key is taken"},
		{"stale", &flags.Stale{Current: &flags.Flag{Version: 4}}, "the flag is at version 4 now"},
		{"stale, deleted", &flags.Stale{}, "the flag does not exist now, so no version matches"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			if got := tt.in.Error(); got != tt.want {
				t.Errorf("Error() = %q, want %q", got, tt.want)
			}
		})
	}
	if wrapped := fmt.Errorf("flag: %w", taken); !errors.Is(wrapped, flags.ErrConflict) || errors.Is(wrapped, flags.ErrNotFound) {
		t.Errorf("errors.Is(%v) holds for other than ErrConflict alone", wrapped)
	}
}
