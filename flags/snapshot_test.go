package flags_test

import (
	"slices"
	"testing"
	"time"

	"github.com/dezky/platform-api/flags"
)

func TestSnapshotLookup(t *testing.T) {
	given := []*flags.Flag{{Key: "b"}, {Key: "a_b"}, {Key: "a"}}
	s := flags.NewSnapshot("e1", 3, []string{"staging", "production"}, given, registry().Tenants(), registry().Partners())

	if s.Epoch() != "e1" || s.Revision() != 3 || !slices.Equal(s.Environments(), []string{"staging", "production"}) {
		t.Errorf("snapshot = %s, %d, %v, want e1, 3 and the environments as given", s.Epoch(), s.Revision(), s.Environments())
	}
	if given[0].Key != "b" {
		t.Errorf("NewSnapshot sorted the caller's list: %s is first, want b", given[0].Key)
	}
	keys := func(s *flags.Snapshot) (out []string) {
		for _, f := range s.Flags() {
			out = append(out, f.Key)
		}
		return out
	}
	if got, want := keys(s), []string{"a", "a_b", "b"}; !slices.Equal(got, want) {
		t.Errorf("Flags() = %v, want %v", got, want)
	}
	if got, want := s.Tenants()[0].Slug, "acme"; got != want {
		t.Errorf("Tenants()[0] = %s, want %s", got, want)
	}
	if got, want := s.Partners()[0].Slug, "fjordit"; got != want {
		t.Errorf("Partners()[0] = %s, want %s", got, want)
	}

	tests := []struct {
		name                  string
		flag, tenant, partner bool
	}{
		{"a", true, false, false},
		{"b", true, false, false},
		{"c", false, false, false},
		{"", false, false, false},
		{"acme", false, true, false},
		{"initech", false, true, false},
		{"nordhost", false, false, true},
		{"Acme", false, false, false},
	}
	for _, tt := range tests {
		f, tenant, p := s.Flag(tt.name), s.Tenant(tt.name), s.Partner(tt.name)
		if (f != nil) != tt.flag || (tenant != nil) != tt.tenant || (p != nil) != tt.partner {
			t.Errorf("%q is flag %v, tenant %v, partner %v, want %t, %t, %t", tt.name, f, tenant, p, tt.flag, tt.tenant, tt.partner)
		}
		if f != nil && f.Key != tt.name || tenant != nil && tenant.Slug != tt.name || p != nil && p.Slug != tt.name {
			t.Errorf("%q finds %v, %v, %v, want that name", tt.name, f, tenant, p)
		}
	}
}

func TestKnown(t *testing.T) {
	s := registry()
	edit := s.Edit()
	edit.SetTenant("acme", nil)
	edit.SetTenant("new", &flags.Tenant{Slug: "new"})
	edit.SetPartner("fjordit", nil)
	edit.SetPartner("mailbyen", &flags.Partner{Slug: "mailbyen"})

	tests := []struct {
		axis         flags.Axis
		value        string
		want, edited bool
	}{
		{flags.AxisPlans, "starter", true, true},
		{flags.AxisPlans, "Starter", false, false},
		{flags.AxisPlans, "", false, false},
		{flags.AxisTenants, "globex", true, true},
		{flags.AxisTenants, "acme", true, false},
		{flags.AxisTenants, "new", false, true},
		{flags.AxisTenants, "nordhost", false, false},
		{flags.AxisPartners, "nordhost", true, true},
		{flags.AxisPartners, "fjordit", true, false},
		{flags.AxisPartners, "mailbyen", false, true},
		{flags.AxisPartners, "", false, false},
		{flags.AxisEnvironments, "staging", true, true},
		{flags.AxisEnvironments, "development", false, false},
		{flags.AxisEnvironments, "", false, false},
	}
	for _, tt := range tests {
		if got := s.Known(tt.axis, tt.value); got != tt.want {
			t.Errorf("Snapshot.Known(%s, %q) = %t, want %t", tt.axis, tt.value, got, tt.want)
		}
		if got := edit.Known(tt.axis, tt.value); got != tt.edited {
			t.Errorf("Edit.Known(%s, %q) = %t, want %t", tt.axis, tt.value, got, tt.edited)
		}
	}
	view := edit.View()
	for _, tt := range tests {
		if got := view.Known(tt.axis, tt.value); got != tt.edited {
			t.Errorf("View().Known(%s, %q) = %t, want %t", tt.axis, tt.value, got, tt.edited)
		}
	}
}

func TestScopedTo(t *testing.T) {
	edit := flags.NewSnapshot("e", 1, []string{"production"}, []*flags.Flag{
		{Key: "c", Scope: flags.Scope{TenantSlugs: []string{"acme", "globex", "initech"}}},
		{Key: "a", Scope: flags.Scope{TenantSlugs: []string{"globex"}, PartnerSlugs: []string{"acme"}}},
		{Key: "b", State: flags.Off},
		{Key: "gone", Scope: flags.Scope{TenantSlugs: []string{"globex"}}},
		{Key: "moved", Scope: flags.Scope{TenantSlugs: []string{"globex"}}},
	}, nil, nil).Edit()
	edit.SetFlag("gone", nil)
	edit.SetFlag("moved", &flags.Flag{Key: "moved", Scope: flags.Scope{TenantSlugs: []string{"initech"}}})
	edit.SetFlag("b_new", &flags.Flag{Key: "b_new", Scope: flags.Scope{TenantSlugs: []string{"globex"}}})

	tests := []struct {
		axis  flags.Axis
		value string
		want  []string
	}{
		{flags.AxisTenants, "globex", []string{"a", "b_new", "c"}},
		{flags.AxisTenants, "initech", []string{"c", "moved"}},
		{flags.AxisTenants, "acme", []string{"c"}},
		{flags.AxisPartners, "acme", []string{"a"}},
		{flags.AxisPlans, "acme", nil},
		{flags.AxisTenants, "", nil},
	}
	for _, when := range []string{"pending", "folded"} {
		for _, tt := range tests {
			if got := edit.ScopedTo(tt.axis, tt.value); !slices.Equal(got, tt.want) {
				t.Errorf("%s: ScopedTo(%s, %q) = %v, want %v", when, tt.axis, tt.value, got, tt.want)
			}
		}
		edit.View()
	}
}

func TestTenantsOf(t *testing.T) {
	tests := []struct {
		partner string
		limit   int
		want    []string
	}{
		{"nordhost", 100, []string{"globex", "initech"}},
		{"nordhost", 2, []string{"globex", "initech"}},
		{"nordhost", 1, []string{"globex"}},
		{"fjordit", 100, nil},
		{"nobody", 100, nil},
	}
	for _, tt := range tests {
		if got := registry().TenantsOf(tt.partner, tt.limit); !slices.Equal(got, tt.want) {
			t.Errorf("TenantsOf(%q, %d) = %v, want %v", tt.partner, tt.limit, got, tt.want)
		}
	}
}

func TestEditView(t *testing.T) {
	s := registry()
	edit := s.Edit()
	if got := edit.View(); got != s {
		t.Errorf("View() of no edits is another snapshot, want the base")
	}
	edit.SetFlag("search", &flags.Flag{Key: "search", Version: 1})
	view := edit.View()
	if view.Revision() != 7 || view.Flag("search") == nil || s.Flag("search") != nil {
		t.Errorf("View() = revision %d, flag %v; the base has %v; want 7, the flag and none", view.Revision(), view.Flag("search"), s.Flag("search"))
	}
	edit.SetFlag("search", nil)
	edit.SetFlag("search", &flags.Flag{Key: "search", Version: 2})
	if got := edit.Flag("search"); got == nil || got.Version != 2 {
		t.Errorf("Flag() after two edits = %v, want version 2", got)
	}
	made := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	edit.SetRevision(8, made)
	next := edit.View()
	if !next.Modified().Equal(made) || !view.Modified().IsZero() {
		t.Errorf("Modified() = %v, and %v of the view, want %v and zero", next.Modified(), view.Modified(), made)
	}
	if edit.Revision() != 8 || next.Revision() != 8 || next.Epoch() != "epoch" || next.Flag("search").Version != 2 || view.Flag("search").Version != 1 {
		t.Errorf("after SetRevision(8): revision %d, %d, epoch %s, %v; the view has %v; want 8, 8, epoch, version 2 and 1",
			edit.Revision(), next.Revision(), next.Epoch(), next.Flag("search"), view.Flag("search"))
	}
	if view.Revision() != 7 || s.Revision() != 7 {
		t.Errorf("the view and the base are at revision %d and %d, want 7", view.Revision(), s.Revision())
	}
}

func TestLive(t *testing.T) {
	var live flags.Live
	if got := live.Current(); got != nil {
		t.Errorf("Current() before Publish = %v, want nil", got)
	}
	one, two := registry(), registry()
	live.Publish(one)
	live.Publish(two)
	if got := live.Current(); got != two {
		t.Errorf("Current() = %p, want the one published last, %p", got, two)
	}
}

// TestImpact spells one change out; the properties hold the rest.
func TestImpact(t *testing.T) {
	s := registry()
	before := &flags.Flag{Key: "search", State: flags.Targeted, Scope: flags.Scope{Plans: []string{"business", "starter"}}}
	after := &flags.Flag{Key: "search", State: flags.Targeted, Scope: flags.Scope{PartnerSlugs: []string{"nordhost"}, Environments: []string{"staging"}}}

	impact, gainedAny := s.Impact(before, after, 1)
	outcomes := []flags.EnvOutcome{}
	for i := range impact {
		outcomes = append(outcomes, impact[i].Outcome())
	}
	const want = `[{"gained":0,"lost":2,"gains":[],"losses":["acme"]},{"gained":1,"lost":1,"gains":["initech"],"losses":["acme"]}]`
	if got := show(outcomes); got != want || gainedAny != 1 {
		t.Errorf("Impact = %s, %d, want %s, 1", got, gainedAny, want)
	}

	p := s.Preview(before, after, "staging", 100)
	if p.Total != 3 || p.Matched != 2 || p.Gained != 1 || p.Lost != 1 || p.GainedAny != 1 || p.ByPct[0] != 0 || p.ByPct[100] != 2 {
		t.Errorf("Preview = %+v, want total 3, matched 2, gained 1, lost 1, gainedAny 1, byPct from 0 to 2", p)
	}
}
