package flags_test

import (
	"testing"
	"time"

	"github.com/dezky/platform-api/flags"
)

func TestParseDuration(t *testing.T) {
	const day = 24 * time.Hour
	tests := []struct {
		in      string
		want    time.Duration
		message string // of the error
	}{
		{"90d", 90 * day, ""},
		{"36d4h12m", 36*day + 4*time.Hour + 12*time.Minute, ""},
		{"0d", 0, ""},
		{"12h", 12 * time.Hour, ""},
		{"1h30m", 90 * time.Minute, ""},
		{"65535d", 65535 * day, ""},
		{"65536d", 0, `"65536d" is not a duration such as 90d or 12h`},
		{"1.5d", 0, `"1.5d" is not a duration such as 90d or 12h`},
		{"-1d", 0, `"-1d" is not a duration such as 90d or 12h`},
		{"d", 0, `"d" is not a duration such as 90d or 12h`},
		{"12h1d", 0, `"12h1d" is not a duration such as 90d or 12h`},
		{"1d2d", 0, `"1d2d" is not a duration such as 90d or 12h`},
		{"1d-5h", 0, `"1d-5h" is not a duration such as 90d or 12h`},
		{"90", 0, `time: missing unit in duration "90"`},
		{"", 0, `time: invalid duration ""`},
	}
	for _, tt := range tests {
		got, err := flags.ParseDuration(tt.in)
		message := ""
		if err != nil {
			message = err.Error()
		}
		if got != tt.want || message != tt.message {
			t.Errorf("ParseDuration(%q) = %v, %q, want %v, %q", tt.in, got, message, tt.want, tt.message)
		}
	}
}
