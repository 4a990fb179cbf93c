package flags_test

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/dezky/platform-api/flags"
)

func TestCheckKey(t *testing.T) {
	const rule = "must be 1 to 64 lower-case letters, digits and underscores, and begin with a letter"
	tests := []struct{ name, in, want string }{
		{"one letter", "a", ""},
		{"all that is allowed", "jmap_native_v2", ""},
		{"64 characters", strings.Repeat("a", 64), ""},
		{"65 characters", strings.Repeat("a", 65), rule},
		{"empty", "", rule},
		{"digit first", "2fa", rule},
		{"underscore first", "_a", rule},
		{"upper case", "aB", rule},
		{"hyphen", "a-b", rule},
		{"space", "a b", rule},
		{"space around", " a", rule},
		{"not ASCII", "grün", rule},
		{"slash", "a/b", rule},
		{"evaluate", "evaluate", `"evaluate" is reserved`},
		{"explain", "explain", `"explain" is reserved`},
		{"begins like a reserved one", "evaluate2", ""},
		{"import is a tenant's", "import", ""},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			if got := flags.CheckKey(tt.in); got != tt.want {
				t.Errorf("CheckKey(%q) = %q, want %q", tt.in, got, tt.want)
			}
		})
	}
}

// scope is a patch of one axis.
func scope(a flags.Axis, values ...string) flags.Patch {
	return flags.Patch{Scope: map[flags.Axis][]string{a: values}}
}

// numbered returns n distinct values in descending order.
func numbered(n int) []string {
	values := make([]string, n)
	for i := range values {
		values[i] = fmt.Sprintf("t%05d", n-i)
	}
	return values
}

func TestPatchApply(t *testing.T) {
	known := registry().Known
	had := flags.New("search")
	had.Description, had.State, had.Pct = "Search", flags.Rollout, 25
	had.Scope.TenantSlugs = []string{"acme", "gone"}
	had.Scope.Environments = []string{"qa"}

	tests := []struct {
		name  string
		patch flags.Patch
		known flags.Known
		want  string
	}{
		{"nothing", flags.Patch{}, known, "ok"},
		{"everything", flags.Patch{
			Description: new("Other"), State: new(flags.On), Pct: new(0), Note: "why",
			Scope: map[flags.Axis][]string{
				flags.AxisPlans: {"starter"}, flags.AxisTenants: {"globex"},
				flags.AxisPartners: {"fjordit"}, flags.AxisEnvironments: {"staging"},
			},
		}, known, "ok"},

		{"description of 2000", flags.Patch{Description: new(strings.Repeat("ø", 2000))}, known, "ok"},
		{"description of 2001", flags.Patch{Description: new(strings.Repeat("ø", 2001))}, known,
			"invalid: description has 2001 characters; at most 2000 are allowed"},
		{"description empty", flags.Patch{Description: new("")}, known, "ok"},
		{"description of lines", flags.Patch{Description: new("a\r\n\tb")}, known, "ok"},
		{"description with a bell", flags.Patch{Description: new("a\ab")}, known,
			"invalid: description must not contain control characters"},
		{"description with NEL", flags.Patch{Description: new("a\u0085b")}, known,
			"invalid: description must not contain control characters"},
		{"description not UTF-8", flags.Patch{Description: new("a\xffb")}, known,
			"invalid: description must not contain U+FFFD or invalid UTF-8"},
		{"description with U+FFFD", flags.Patch{Description: new("a\uFFFDb")}, known,
			"invalid: description must not contain U+FFFD or invalid UTF-8"},

		{"note of 500", flags.Patch{Note: strings.Repeat("€", 500)}, known, "ok"},
		{"note of 501", flags.Patch{Note: strings.Repeat("€", 501)}, known,
			"invalid: note has 501 characters; at most 500 are allowed"},
		{"note with NUL", flags.Patch{Note: "\x00"}, known, "invalid: note must not contain control characters"},

		{"unknown state", flags.Patch{State: new(flags.State("On"))}, known,
			"invalid: state must be one of off, on, targeted, rollout"},
		{"empty state", flags.Patch{State: new(flags.State(""))}, known,
			"invalid: state must be one of off, on, targeted, rollout"},

		{"pct -1", flags.Patch{Pct: new(-1)}, known, "invalid: pct must be a whole number from 0 to 100"},
		{"pct 0", flags.Patch{Pct: new(0)}, known, "ok"},
		{"pct 100", flags.Patch{Pct: new(100)}, known, "ok"},
		{"pct 101", flags.Patch{Pct: new(101)}, known, "invalid: pct must be a whole number from 0 to 100"},

		{"10,000 values", scope(flags.AxisTenants, numbered(10_000)...), everything, "ok"},
		{"10,000 distinct values, twice", scope(flags.AxisTenants, append(numbered(10_000), numbered(10_000)...)...), everything, "ok"},
		{"10,001 values", scope(flags.AxisTenants, numbered(10_001)...), everything,
			"invalid: scope.tenantSlugs has 10001 values; at most 10000 are allowed"},

		{"unknown plan", scope(flags.AxisPlans, "starter", "free", "gold"), known,
			`invalid: scope.plans[1] must be a known plan (starter, business, enterprise), not "free"; ` +
				`scope.plans[2] must be a known plan (starter, business, enterprise), not "gold"`},
		{"unknown tenant, at its place in the request", scope(flags.AxisTenants, "globex", "globex", "acme", "nobody"), known,
			`invalid: scope.tenantSlugs[3] must be a known tenant, not "nobody"`},
		{"unknown partner", scope(flags.AxisPartners, "acme"), known, `invalid: scope.partnerSlugs[0] must be a known partner, not "acme"`},
		{"unknown environment", scope(flags.AxisEnvironments, "staging", " prod "), known,
			`invalid: scope.environments[1] must be a known environment, not "prod"`},
		{"another case", scope(flags.AxisTenants, "Acme"), known, `invalid: scope.tenantSlugs[0] must be a known tenant, not "Acme"`},
		{"empty values", scope(flags.AxisPlans, "", " \t"), everything,
			"invalid: scope.plans[0] must not be empty or null; scope.plans[1] must not be empty or null"},
		{"what was there stays, though unknown", scope(flags.AxisTenants, "acme", " gone"), known, "ok"},
		{"what was there on another axis does not", scope(flags.AxisEnvironments, "gone", "qa"), known,
			`invalid: scope.environments[0] must be a known environment, not "gone"`},
		{"an axis emptied", scope(flags.AxisTenants), nothing, "ok"},

		{"all at once, decoding's problems first", flags.Patch{
			Description: new(strings.Repeat("x", 2001)), State: new(flags.State("paused")), Pct: new(200),
			Note: strings.Repeat("x", 501),
			Scope: map[flags.Axis][]string{
				flags.AxisPlans: {"free"}, flags.AxisTenants: {"nobody"}, flags.AxisPartners: {""}, flags.AxisEnvironments: {"prod"},
			},
			Problems: []flags.FieldError{{Field: "key", Message: "is required"}},
		}, known, "invalid: key is required; description has 2001 characters; at most 2000 are allowed; " +
			"state must be one of off, on, targeted, rollout; pct must be a whole number from 0 to 100; " +
			`scope.plans[0] must be a known plan (starter, business, enterprise), not "free"; ` +
			`scope.tenantSlugs[0] must be a known tenant, not "nobody"; scope.partnerSlugs[0] must not be empty or null; ` +
			`scope.environments[0] must be a known environment, not "prod"; note has 501 characters; at most 500 are allowed`},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			before := show(had)
			got, err := tt.patch.Apply(had, tt.known)
			if outcome(err) != tt.want {
				t.Errorf("Apply(%.200s) = %.500s, want %s", show(tt.patch), outcome(err), tt.want)
			}
			if err != nil && show(got) != show(flags.Flag{}) {
				t.Errorf("Apply(%.200s) = %.500s beside its error, want no flag", show(tt.patch), show(got))
			}
			if after := show(had); after != before {
				t.Errorf("Apply(%.200s) changed the flag to %.500s, want %s", show(tt.patch), after, before)
			}
		})
	}
}

func TestPatchApplyValues(t *testing.T) {
	known := registry().Known
	had := flags.New("search")
	had.Description, had.State, had.Pct, had.Version = "Search", flags.Rollout, 25, 3
	had.Scope.TenantSlugs = []string{"acme", "gone"}
	had.CreatedAt = time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	had.UpdatedAt = had.CreatedAt

	const rest = `"version":3,"createdAt":"2026-01-02T03:04:05Z","updatedAt":"2026-01-02T03:04:05Z"}`
	tests := []struct {
		name string
		in   flags.Patch
		want string
	}{
		{"nothing", flags.Patch{Note: "no change"}, `{"key":"search","description":"Search","state":"rollout","pct":25,` +
			`"scope":{"plans":[],"tenantSlugs":["acme","gone"],"partnerSlugs":[],"environments":[]},` + rest},
		{"everything", flags.Patch{
			Description: new(" kept as it is "), State: new(flags.Targeted), Pct: new(0),
			Scope: map[flags.Axis][]string{
				flags.AxisPlans:        {"starter", " business", "starter "},
				flags.AxisTenants:      {"\tinitech\n", "globex", "initech"},
				flags.AxisPartners:     {"nordhost", "fjordit"},
				flags.AxisEnvironments: {"staging", "production"},
			},
		}, `{"key":"search","description":" kept as it is ","state":"targeted","pct":0,` +
			`"scope":{"plans":["business","starter"],"tenantSlugs":["globex","initech"],"partnerSlugs":["fjordit","nordhost"],` +
			`"environments":["production","staging"]},` + rest},
		{"one axis leaves the others", scope(flags.AxisPlans, "starter"), `{"key":"search","description":"Search","state":"rollout","pct":25,` +
			`"scope":{"plans":["starter"],"tenantSlugs":["acme","gone"],"partnerSlugs":[],"environments":[]},` + rest},
		{"an axis emptied", scope(flags.AxisTenants), `{"key":"search","description":"Search","state":"rollout","pct":25,` +
			`"scope":{"plans":[],"tenantSlugs":[],"partnerSlugs":[],"environments":[]},` + rest},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			got, err := tt.in.Apply(had, known)
			if err != nil || show(got) != tt.want {
				t.Errorf("Apply(%s) = %s, %v, want %s", show(tt.in), show(got), err, tt.want)
			}
		})
	}
}

// TestPatchApplyManyProblems: a request full of mistakes does not get an answer many times its size.
func TestPatchApplyManyProblems(t *testing.T) {
	for _, n := range []int{999, 1000, 1001, 50_000} {
		p := scope(flags.AxisPlans, slices.Repeat([]string{"free"}, n)...)
		_, err := p.Apply(flags.New("search"), nothing)
		invalid, ok := errors.AsType[*flags.Invalid](err)
		if !ok {
			t.Fatalf("Apply(%d unknown plans) = %v, want *Invalid", n, err)
		}
		want, wantLast := n, fmt.Sprintf("scope.plans[%d]", n-1)
		if n > 1000 {
			want, wantLast = 1001, "scope.plans"
		}
		if got, last := len(invalid.Errors), invalid.Errors[len(invalid.Errors)-1].Field; got != want || last != wantLast {
			t.Errorf("Apply(%d unknown plans) = %d errors, the last of %s, want %d, %s", n, got, last, want, wantLast)
		}
	}
}

func TestFlagJSON(t *testing.T) {
	const want = `{"key":"search","description":"","state":"off","pct":0,` +
		`"scope":{"plans":[],"tenantSlugs":[],"partnerSlugs":[],"environments":[]},` +
		`"version":0,"createdAt":"0001-01-01T00:00:00Z","updatedAt":"0001-01-01T00:00:00Z"}`
	if got := show(flags.New("search")); got != want {
		t.Errorf("JSON of New = %s, want %s", got, want)
	}
	// No values on an axis, nil or not, is an empty list and never null.
	for _, values := range [][]string{nil, {}} {
		p := flags.Patch{Scope: map[flags.Axis][]string{}}
		for _, a := range flags.Axes {
			p.Scope[a] = values
		}
		f, err := p.Apply(flags.New("search"), nothing)
		if got := show(f); err != nil || got != want {
			t.Errorf("JSON after Apply(%s) = %s, %v, want %s", show(p), got, err, want)
		}
	}
}

func TestSameContent(t *testing.T) {
	base := flags.New("search")
	base.Scope.Plans = []string{"starter"}
	tests := []struct {
		name   string
		change func(f *flags.Flag)
		want   bool
	}{
		{"nothing", func(f *flags.Flag) {}, true},
		{"nil is empty", func(f *flags.Flag) { f.Scope.TenantSlugs = nil }, true},
		{"version and times are no content", func(f *flags.Flag) { f.Version, f.UpdatedAt = 9, time.Unix(1, 0) }, true},
		{"description", func(f *flags.Flag) { f.Description = "x" }, false},
		{"state", func(f *flags.Flag) { f.State = flags.On }, false},
		{"pct", func(f *flags.Flag) { f.Pct = 1 }, false},
		{"plans", func(f *flags.Flag) { f.Scope.Plans = []string{"business"} }, false},
		{"tenants", func(f *flags.Flag) { f.Scope.TenantSlugs = []string{"acme"} }, false},
		{"partners", func(f *flags.Flag) { f.Scope.PartnerSlugs = []string{"nordhost"} }, false},
		{"environments", func(f *flags.Flag) { f.Scope.Environments = []string{"staging"} }, false},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			other := base
			tt.change(&other)
			if got := base.SameContent(&other); got != tt.want {
				t.Errorf("SameContent(%s) = %t, want %t", show(other), got, tt.want)
			}
		})
	}
}

func TestAtVersion(t *testing.T) {
	three := &flags.Flag{Key: "search", Version: 3}
	tests := []struct {
		name string
		flag *flags.Flag
		in   []int64
		want bool
	}{
		{"nothing asked", three, nil, true},
		{"nothing asked, no flag", nil, nil, true},
		{"its version", three, []int64{3}, true},
		{"its version among others", three, []int64{1, 2, 3}, true},
		{"another version", three, []int64{2}, false},
		{"no version that can match", three, []int64{}, false},
		{"any version", three, []int64{flags.AnyVersion}, true},
		{"any version, no flag", nil, []int64{flags.AnyVersion}, false},
		{"a version, no flag", nil, []int64{3}, false},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			err := tt.flag.AtVersion(tt.in)
			if got := err == nil; got != tt.want {
				t.Errorf("AtVersion(%v) = %v, want match %t", tt.in, err, tt.want)
			}
			if stale, ok := errors.AsType[*flags.Stale](err); err != nil && (!ok || stale.Current != tt.flag) {
				t.Errorf("AtVersion(%v) = %#v, want *Stale with the current flag", tt.in, err)
			}
		})
	}
}
