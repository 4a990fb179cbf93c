package flags_test

import (
	"testing"

	"github.com/dezky/platform-api/flags"
)

func TestBucket(t *testing.T) {
	tests := []struct {
		tenantID, key string
		want          int
	}{
		{"65f0c0ffee00000000000001", "jmap_native_v2", 4},
		{"t49", "search_v2", 0},
		{"t26", "search_v2", 42},
		{"t27", "search_v2", 99},
		{"ø", "æ", 28},
		{"", "", 35},
	}
	for _, tt := range tests {
		if got := flags.Bucket(tt.tenantID, tt.key); got != tt.want {
			t.Errorf("Bucket(%q, %q) = %d, want %d", tt.tenantID, tt.key, got, tt.want)
		}
	}
}

// TestExplain holds each state and each failing axis; Evaluate must agree with it.
func TestExplain(t *testing.T) {
	tenant := &flags.Tenant{ID: "t26", Slug: "acme", Plan: "business", PartnerSlug: "nordhost", Status: flags.Active}
	direct := &flags.Tenant{ID: "t26", Slug: "acme", Plan: "business", Status: flags.Suspended}
	match := flags.Scope{
		Plans: []string{"business"}, TenantSlugs: []string{"acme"},
		PartnerSlugs: []string{"nordhost"}, Environments: []string{"production"},
	}
	other := flags.Scope{
		Plans: []string{"starter"}, TenantSlugs: []string{"globex"},
		PartnerSlugs: []string{"fjordit"}, Environments: []string{"staging"},
	}
	// with is match, but for the named axes, which exclude the tenant.
	with := func(axes ...flags.Axis) flags.Scope {
		s := match
		for _, a := range axes {
			switch a {
			case flags.AxisPlans:
				s.Plans = other.Plans
			case flags.AxisTenants:
				s.TenantSlugs = other.TenantSlugs
			case flags.AxisPartners:
				s.PartnerSlugs = other.PartnerSlugs
			case flags.AxisEnvironments:
				s.Environments = other.Environments
			}
		}
		return s
	}
	slugs := func(values ...string) flags.Scope { return flags.Scope{TenantSlugs: values} }

	tests := []struct {
		name   string
		tenant *flags.Tenant
		state  flags.State
		pct    int
		scope  flags.Scope
		want   string
	}{
		{"off", tenant, flags.Off, 100, match, `{"value":false,"reason":"DISABLED"}`},
		{"no such state", tenant, "paused", 100, match, `{"value":false,"reason":"DISABLED"}`},
		{"on", tenant, flags.On, 0, match, `{"value":true,"reason":"STATIC"}`},
		{"on asks no scope", tenant, flags.On, 0, other, `{"value":true,"reason":"STATIC"}`},

		{"targeted at nobody", tenant, flags.Targeted, 100, flags.Scope{}, `{"value":false,"reason":"DEFAULT"}`},
		{"targeted on every axis", tenant, flags.Targeted, 0, match, `{"value":true,"reason":"TARGETING_MATCH"}`},
		{"targeted by plan", tenant, flags.Targeted, 0, flags.Scope{Plans: match.Plans}, `{"value":true,"reason":"TARGETING_MATCH"}`},
		{"targeted by slug", tenant, flags.Targeted, 0, slugs("acme"), `{"value":true,"reason":"TARGETING_MATCH"}`},
		{"targeted by partner", tenant, flags.Targeted, 0, flags.Scope{PartnerSlugs: match.PartnerSlugs}, `{"value":true,"reason":"TARGETING_MATCH"}`},
		{"targeted by environment", tenant, flags.Targeted, 0, flags.Scope{Environments: match.Environments}, `{"value":true,"reason":"TARGETING_MATCH"}`},
		{"targeted, all axes fail", tenant, flags.Targeted, 0, other, `{"value":false,"reason":"DEFAULT","axis":"plans"}`},
		{"targeted, plan fails", tenant, flags.Targeted, 0, with(flags.AxisPlans), `{"value":false,"reason":"DEFAULT","axis":"plans"}`},
		{"targeted, slug fails", tenant, flags.Targeted, 0, with(flags.AxisTenants), `{"value":false,"reason":"DEFAULT","axis":"tenantSlugs"}`},
		{"targeted, slug before partner", tenant, flags.Targeted, 0, with(flags.AxisTenants, flags.AxisPartners), `{"value":false,"reason":"DEFAULT","axis":"tenantSlugs"}`},
		{"targeted, slug before environment", tenant, flags.Targeted, 0, with(flags.AxisTenants, flags.AxisEnvironments), `{"value":false,"reason":"DEFAULT","axis":"tenantSlugs"}`},
		{"targeted, partner fails", tenant, flags.Targeted, 0, with(flags.AxisPartners), `{"value":false,"reason":"DEFAULT","axis":"partnerSlugs"}`},
		{"targeted, partner before environment", tenant, flags.Targeted, 0, with(flags.AxisPartners, flags.AxisEnvironments), `{"value":false,"reason":"DEFAULT","axis":"partnerSlugs"}`},
		{"targeted, environment fails", tenant, flags.Targeted, 0, with(flags.AxisEnvironments), `{"value":false,"reason":"DEFAULT","axis":"environments"}`},
		{"no partner is in no list", direct, flags.Targeted, 0, match, `{"value":false,"reason":"DEFAULT","axis":"partnerSlugs"}`},
		{"status is ignored", direct, flags.Targeted, 0, slugs("acme"), `{"value":true,"reason":"TARGETING_MATCH"}`},

		{"comparison is exact: case", tenant, flags.Targeted, 0, slugs("Acme"), `{"value":false,"reason":"DEFAULT","axis":"tenantSlugs"}`},
		{"comparison is exact: prefix", tenant, flags.Targeted, 0, slugs("acme2"), `{"value":false,"reason":"DEFAULT","axis":"tenantSlugs"}`},
		{"first of five", tenant, flags.Targeted, 0, slugs("acme", "b", "c", "d", "e"), `{"value":true,"reason":"TARGETING_MATCH"}`},
		{"last of five", tenant, flags.Targeted, 0, slugs("a", "aa", "ab", "ac", "acme"), `{"value":true,"reason":"TARGETING_MATCH"}`},
		{"last of four", tenant, flags.Targeted, 0, slugs("a", "aa", "ab", "acme"), `{"value":true,"reason":"TARGETING_MATCH"}`},
		{"none of five", tenant, flags.Targeted, 0, slugs("a", "acm", "acmf", "b", "c"), `{"value":false,"reason":"DEFAULT","axis":"tenantSlugs"}`},

		{"rollout below its bucket", tenant, flags.Rollout, 41, match, `{"value":false,"reason":"SPLIT","bucket":42,"pct":41}`},
		{"rollout at its bucket", tenant, flags.Rollout, 42, match, `{"value":false,"reason":"SPLIT","bucket":42,"pct":42}`},
		{"rollout past its bucket", tenant, flags.Rollout, 43, match, `{"value":true,"reason":"SPLIT","bucket":42,"pct":43}`},
		{"rollout to everyone, no scope", tenant, flags.Rollout, 100, flags.Scope{}, `{"value":true,"reason":"SPLIT","bucket":42,"pct":100}`},
		{"rollout at 0, bucket 0", &flags.Tenant{ID: "t49", Slug: "x"}, flags.Rollout, 0, flags.Scope{}, `{"value":false,"reason":"SPLIT","bucket":0,"pct":0}`},
		{"rollout at 1, bucket 0", &flags.Tenant{ID: "t49", Slug: "x"}, flags.Rollout, 1, flags.Scope{}, `{"value":true,"reason":"SPLIT","bucket":0,"pct":1}`},
		{"rollout at 99, bucket 99", &flags.Tenant{ID: "t27", Slug: "x"}, flags.Rollout, 99, flags.Scope{}, `{"value":false,"reason":"SPLIT","bucket":99,"pct":99}`},
		{"rollout at 100, bucket 99", &flags.Tenant{ID: "t27", Slug: "x"}, flags.Rollout, 100, flags.Scope{}, `{"value":true,"reason":"SPLIT","bucket":99,"pct":100}`},
		{"rollout out of scope", tenant, flags.Rollout, 100, with(flags.AxisPartners, flags.AxisEnvironments), `{"value":false,"reason":"DEFAULT","axis":"partnerSlugs"}`},
		{"rollout in another environment", tenant, flags.Rollout, 100, with(flags.AxisEnvironments), `{"value":false,"reason":"DEFAULT","axis":"environments"}`},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			f := &flags.Flag{Key: "search_v2", State: tt.state, Pct: tt.pct, Scope: tt.scope}
			e := f.Explain(tt.tenant, "production")
			if got := show(e); got != tt.want {
				t.Errorf("Explain(%s, %d, %s) = %s, want %s", tt.state, tt.pct, show(tt.scope), got, tt.want)
			}
			if got := f.Evaluate(tt.tenant, "production"); got != e.Value {
				t.Errorf("Evaluate(%s, %d, %s) = %t, want %t", tt.state, tt.pct, show(tt.scope), got, e.Value)
			}
		})
	}
}

func TestHasAnyScope(t *testing.T) {
	one := []string{"x"}
	tests := []struct {
		name string
		in   flags.Scope
		want bool
	}{
		{"nil axes", flags.Scope{}, false},
		{"empty axes", flags.New("a").Scope, false},
		{"plans", flags.Scope{Plans: one}, true},
		{"tenants", flags.Scope{TenantSlugs: one}, true},
		{"partners", flags.Scope{PartnerSlugs: one}, true},
		{"environments", flags.Scope{Environments: one}, true},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			f := flags.Flag{Scope: tt.in}
			if got := f.HasAnyScope(); got != tt.want {
				t.Errorf("HasAnyScope(%s) = %t, want %t", show(tt.in), got, tt.want)
			}
		})
	}
}
