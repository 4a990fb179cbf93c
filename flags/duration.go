package flags

import (
	"fmt"
	"strconv"
	"strings"
	"time"
)

// ParseDuration is time.ParseDuration with days before the rest: "90d", "36d4h12m".
func ParseDuration(s string) (time.Duration, error) {
	head, rest, found := strings.Cut(s, "d")
	if !found {
		return time.ParseDuration(s)
	}
	days, err := strconv.ParseUint(head, 10, 16)
	if err != nil {
		return 0, fmt.Errorf("%q is not a duration such as 90d or 12h", s)
	}
	d := time.Duration(days) * 24 * time.Hour
	if rest == "" {
		return d, nil
	}
	more, err := time.ParseDuration(rest)
	if err != nil || more < 0 || d+more < d {
		return 0, fmt.Errorf("%q is not a duration such as 90d or 12h", s)
	}
	return d + more, nil
}
