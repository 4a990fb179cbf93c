package flags_test

import (
	"bytes"
	"cmp"
	"fmt"
	"maps"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/dezky/platform-api/flags"
	"pgregory.net/rapid"
)

// drawText draws a text with all that may hurt: quotes, markup, line breaks, control characters, U+FFFD.
func drawText(t *rapid.T, label string) string {
	rare := rapid.SampledFrom([]rune("\"\\<>&\n\r\t\a\u0085\u2028\uFEFF\uFFFDøß€😀 "))
	return rapid.StringOfN(rapid.OneOf(rapid.Rune(), rare), 0, 12, -1).Draw(t, label)
}

// drawSlugs draws distinct slugs, of few enough letters that they often share a beginning.
func drawSlugs(t *rapid.T, label string, most int) []string {
	return rapid.SliceOfNDistinct(rapid.StringMatching(`[a-c0-1][a-c0-1-]{0,4}`), 0, most, rapid.ID).Draw(t, label)
}

// drawTenant draws a tenant that a snapshot with the partners may hold.
func drawTenant(t *rapid.T, slug string, partners []string) *flags.Tenant {
	tenant := &flags.Tenant{
		ID:          rapid.StringMatching(`[A-Za-z0-9_-]{1,24}`).Draw(t, "id"),
		Slug:        slug,
		Name:        "Name of " + slug,
		Plan:        rapid.SampledFrom(flags.Plans).Draw(t, "plan"),
		PartnerSlug: rapid.SampledFrom(append([]string{""}, partners...)).Draw(t, "partner"),
		Status:      rapid.SampledFrom([]string{flags.Active, flags.Suspended}).Draw(t, "status"),
	}
	named := flags.TenantPatch{Name: new(drawText(t, "name"))}
	if renamed, err := named.Apply(*tenant, nothing); err == nil {
		tenant = &renamed
	}
	return tenant
}

// drawRegistry draws environments, partners and tenants.
func drawRegistry(t *rapid.T) *flags.Snapshot {
	environments := make([]string, rapid.SampledFrom([]int{1, 2, 3, flags.MaxEnvironments}).Draw(t, "environments"))
	for i := range environments {
		environments[i] = fmt.Sprintf("env%d", len(environments)-i)
	}
	var partners []*flags.Partner
	partnerSlugs := drawSlugs(t, "partners", 4)
	for _, slug := range partnerSlugs {
		partners = append(partners, &flags.Partner{Slug: slug, Name: "Partner " + slug})
	}
	var tenants []*flags.Tenant
	for _, slug := range drawSlugs(t, "tenants", 12) {
		tenants = append(tenants, drawTenant(t, slug, partnerSlugs))
	}
	return flags.NewSnapshot("epoch", 1, environments, nil, tenants, partners)
}

// drawPatch draws a patch of any fields; its axes name known values, padded, repeated and in any order.
func drawPatch(t *rapid.T, s *flags.Snapshot) flags.Patch {
	known := map[flags.Axis][]string{flags.AxisPlans: flags.Plans, flags.AxisEnvironments: s.Environments()}
	for _, tenant := range s.Tenants() {
		known[flags.AxisTenants] = append(known[flags.AxisTenants], tenant.Slug)
	}
	for _, partner := range s.Partners() {
		known[flags.AxisPartners] = append(known[flags.AxisPartners], partner.Slug)
	}
	some := rapid.IntRange(0, 2) // two of three
	p := flags.Patch{Scope: map[flags.Axis][]string{}}
	if some.Draw(t, "set state") > 0 {
		p.State = new(rapid.SampledFrom(flags.States).Draw(t, "state"))
	}
	if some.Draw(t, "set pct") > 0 {
		p.Pct = new(rapid.OneOf(rapid.SampledFrom([]int{0, 1, 50, 99, 100}), rapid.IntRange(0, 100)).Draw(t, "pct"))
	}
	if text := drawText(t, "description"); text != "" {
		p.Description = &text
		if _, err := (&flags.Patch{Description: &text}).Apply(flags.New("a"), nothing); err != nil {
			p.Description = nil
		}
	}
	for _, a := range flags.Axes {
		if some.Draw(t, "set "+string(a)) > 0 || len(known[a]) == 0 {
			continue
		}
		p.Scope[a] = rapid.SliceOfN(rapid.Custom(func(t *rapid.T) string {
			padding := rapid.SampledFrom([]string{"", "", " ", "\t\n", "\u00a0"})
			return padding.Draw(t, "before") + rapid.SampledFrom(known[a]).Draw(t, string(a)) + padding.Draw(t, "after")
		}), 0, 8).Draw(t, string(a))
	}
	return p
}

// drawFlag draws a flag for the snapshot: three times out of four in a state that asks the scope.
func drawFlag(t *rapid.T, s *flags.Snapshot, key string) *flags.Flag {
	p := drawPatch(t, s)
	if rapid.Bool().Draw(t, "scoped state") {
		p.State = new(rapid.SampledFrom([]flags.State{flags.Targeted, flags.Rollout}).Draw(t, "state"))
	}
	f, err := p.Apply(flags.New(key), s.Known)
	if err != nil {
		t.Fatalf("Apply(%s) = %v, want no error", show(p), err)
	}
	return &f
}

// drawMaybe is drawFlag, or nil for a flag that does not exist.
func drawMaybe(t *rapid.T, s *flags.Snapshot, key string) *flags.Flag {
	if rapid.IntRange(0, 5).Draw(t, "exists") == 0 {
		return nil
	}
	return drawFlag(t, s, key)
}

// has is Evaluate for a flag that may not exist.
func has(f *flags.Flag, tenant *flags.Tenant, environment string) bool {
	return f != nil && f.Evaluate(tenant, environment)
}

// having lists who has a flag, by environment and tenant.
func having(s *flags.Snapshot, f *flags.Flag) (out []string) {
	for _, environment := range s.Environments() {
		for _, tenant := range s.Tenants() {
			if f.Evaluate(tenant, environment) {
				out = append(out, environment+"/"+tenant.Slug)
			}
		}
	}
	return out
}

func TestRaisingPctOnlyAdds(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		s := drawRegistry(t)
		low := drawFlag(t, s, "search")
		low.State = flags.Rollout
		raise := flags.Patch{Pct: new(rapid.IntRange(low.Pct, 100).Draw(t, "raised"))}
		high, err := raise.Apply(*low, nothing)
		if err != nil {
			t.Fatal(err)
		}
		atLow, atHigh := having(s, low), having(s, &high)
		for _, who := range atLow {
			if !slices.Contains(atHigh, who) {
				t.Errorf("%s has the flag at %d and not at %d, want it kept", who, low.Pct, high.Pct)
			}
		}
		impact, _ := s.Impact(low, &high, 0)
		for i, e := range impact {
			if e.Lost != 0 {
				t.Errorf("Impact(%d -> %d)[%d].Lost = %d, want 0", low.Pct, high.Pct, i, e.Lost)
			}
		}

		lower, err := (&flags.Patch{Pct: &low.Pct}).Apply(high, nothing)
		if err != nil {
			t.Fatal(err)
		}
		if got := having(s, &lower); !slices.Equal(got, atLow) {
			t.Errorf("lowered to %d again, %v have the flag, want %v", low.Pct, got, atLow)
		}
		again, err := raise.Apply(lower, nothing)
		if err != nil {
			t.Fatal(err)
		}
		if got := having(s, &again); !slices.Equal(got, atHigh) {
			t.Errorf("raised to %d again, %v have the flag, want %v", high.Pct, got, atHigh)
		}
	})
}

// explain is the rule of evaluation once more, as plain as can be.
func explain(f *flags.Flag, tenant *flags.Tenant, environment string) flags.Explanation {
	switch f.State {
	case flags.Off:
		return flags.Explanation{Reason: "DISABLED"}
	case flags.On:
		return flags.Explanation{Value: true, Reason: "STATIC"}
	}
	axes := []struct {
		name   flags.Axis
		values []string
		value  string
	}{
		{"plans", f.Scope.Plans, tenant.Plan},
		{"tenantSlugs", f.Scope.TenantSlugs, tenant.Slug},
		{"partnerSlugs", f.Scope.PartnerSlugs, tenant.PartnerSlug},
		{"environments", f.Scope.Environments, environment},
	}
	empty := true
	for _, a := range axes {
		empty = empty && len(a.values) == 0
		if len(a.values) > 0 && !slices.Contains(a.values, a.value) {
			return flags.Explanation{Reason: "DEFAULT", Axis: a.name}
		}
	}
	switch {
	case f.State == flags.Targeted && empty:
		return flags.Explanation{Reason: "DEFAULT"}
	case f.State == flags.Targeted:
		return flags.Explanation{Value: true, Reason: "TARGETING_MATCH"}
	}
	bucket := bigBucket(tenant.ID, f.Key)
	return flags.Explanation{Value: bucket < f.Pct, Reason: "SPLIT", Bucket: &bucket, Pct: &f.Pct}
}

func TestExplainAgreesWithEvaluate(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		s := drawRegistry(t)
		f := drawFlag(t, s, "search")
		for _, tenant := range s.Tenants() {
			for _, environment := range s.Environments() {
				want := explain(f, tenant, environment)
				if got := f.Explain(tenant, environment); !reflect.DeepEqual(got, want) {
					t.Errorf("Explain(%s, %s, %s) = %s, want %s", show(f), show(tenant), environment, show(got), show(want))
				}
				if got := f.Evaluate(tenant, environment); got != want.Value {
					t.Errorf("Evaluate(%s, %s, %s) = %t, want %t", show(f), show(tenant), environment, got, want.Value)
				}
				matches := want.Reason != "DEFAULT" || want.Axis == ""
				if scoped := f.State == flags.Targeted || f.State == flags.Rollout; scoped && f.MatchesScope(tenant, environment) != matches {
					t.Errorf("MatchesScope(%s, %s, %s) = %t, want %t", show(f), show(tenant), environment, !matches, matches)
				}
			}
		}
	})
}

// difference is who gains and loses between two flags, and how many gain anywhere, one evaluation after
// the other.
func difference(s *flags.Snapshot, before, after *flags.Flag, limit int) (impact []flags.EnvImpact, gainedAny int) {
	anywhere := map[string]bool{}
	for _, environment := range s.Environments() {
		var e flags.EnvImpact
		for _, tenant := range s.Tenants() {
			switch was, is := has(before, tenant, environment), has(after, tenant, environment); {
			case is && !was:
				e.Gains = append(e.Gains, tenant)
				anywhere[tenant.Slug] = true
			case was && !is:
				e.Losses = append(e.Losses, tenant)
			}
		}
		e.Gained, e.Lost = len(e.Gains), len(e.Losses)
		e.Gains, e.Losses = first(e.Gains, limit), first(e.Losses, limit)
		impact = append(impact, e)
	}
	return impact, len(anywhere)
}

// first cuts a list; a list cut to nothing is nil.
func first(list []*flags.Tenant, limit int) []*flags.Tenant {
	if limit == 0 {
		return nil
	}
	return list[:min(len(list), limit)]
}

func TestImpactIsTheDifference(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		s := drawRegistry(t)
		before, after := drawMaybe(t, s, "search"), drawMaybe(t, s, "search")
		limit := rapid.SampledFrom([]int{0, 1, 2, 100}).Draw(t, "limit")
		want, wantAny := difference(s, before, after, limit)
		got, gainedAny := s.Impact(before, after, limit)
		if !reflect.DeepEqual(got, want) || gainedAny != wantAny {
			t.Errorf("Impact(%s, %s, %d) = %s, %d, want %s, %d", show(before), show(after), limit, show(got), gainedAny, show(want), wantAny)
		}
	})
}

func TestPreviewCounts(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		s := drawRegistry(t)
		before, after := drawMaybe(t, s, "search"), drawMaybe(t, s, "search")
		here := rapid.IntRange(0, len(s.Environments())-1).Draw(t, "environment")
		environment := s.Environments()[here]
		limit := rapid.SampledFrom([]int{0, 1, 2, 100}).Draw(t, "limit")

		impact, gainedAny := difference(s, before, after, limit)
		want := flags.Preview{EnvImpact: impact[here], Total: len(s.Tenants()), GainedAny: gainedAny}
		want.ByEnvironment, _ = difference(s, before, after, 0)
		for _, tenant := range s.Tenants() {
			if has(after, tenant, environment) {
				want.Matched++
			}
		}
		for pct := range want.ByPct {
			if after == nil {
				break
			}
			rollout := *after
			rollout.State, rollout.Pct = flags.Rollout, pct
			for _, tenant := range s.Tenants() {
				if rollout.Evaluate(tenant, environment) {
					want.ByPct[pct]++
				}
			}
		}
		if got := s.Preview(before, after, environment, limit); !reflect.DeepEqual(got, want) {
			t.Errorf("Preview(%s, %s, %s, %d) = %s, want %s", show(before), show(after), environment, limit, show(got), show(want))
		}
	})
}

// kind is one of the three lists of a snapshot, as the edit sees it, and as a plain map does.
type kind[T any] struct {
	list   func(*flags.Snapshot) []*T
	get    func(*flags.Edit, string) *T
	set    func(*flags.Edit, string, *T)
	name   func(*T) string
	have   map[string]*T
	edited bool
}

func (k *kind[T]) start(s *flags.Snapshot) {
	k.have = map[string]*T{}
	for _, x := range k.list(s) {
		k.have[k.name(x)] = x
	}
}

// step sets or removes one thing, in the edit and in the map.
func (k *kind[T]) step(t *rapid.T, e *flags.Edit, draw func(name string) *T) {
	k.edited = true
	names := append(slices.Sorted(maps.Keys(k.have)), "a", "b0", "zz")
	name := rapid.SampledFrom(names).Draw(t, "name")
	if rapid.IntRange(0, 2).Draw(t, "remove") == 0 {
		delete(k.have, name)
		k.set(e, name, nil)
		return
	}
	k.have[name] = draw(name)
	k.set(e, name, k.have[name])
}

// check compares the edit, and what it gives, with the map.
func (k *kind[T]) check(t *rapid.T, e *flags.Edit, base *flags.Snapshot) {
	for _, x := range k.list(base) {
		if got, want := k.get(e, k.name(x)), k.have[k.name(x)]; got != want {
			t.Errorf("the edit has %s = %s, want %s", k.name(x), show(got), show(want))
		}
	}
	for name, want := range k.have {
		if got := k.get(e, name); got != want {
			t.Errorf("the edit has %s = %s, want %s", name, show(got), show(want))
		}
	}
}

func (k *kind[T]) values() []*T { return slices.Collect(maps.Values(k.have)) }

func (k *kind[T]) checkFolded(t *rapid.T, base, got, scratch *flags.Snapshot) {
	if !slices.Equal(k.list(got), k.list(scratch)) {
		t.Errorf("the edited list is %s, want %s", show(k.list(got)), show(k.list(scratch)))
	}
	if was, is := k.list(base), k.list(got); !k.edited && len(was) > 0 && &was[0] != &is[0] {
		t.Errorf("a list without edits was copied, want it shared")
	}
}

func TestEditIsASnapshotFromScratch(t *testing.T) {
	// frozen is what a snapshot held when it was given out.
	type frozen struct {
		revision int64
		fs       []*flags.Flag
		ts       []*flags.Tenant
		ps       []*flags.Partner
	}
	freeze := func(s *flags.Snapshot) frozen {
		return frozen{s.Revision(), slices.Clone(s.Flags()), slices.Clone(s.Tenants()), slices.Clone(s.Partners())}
	}
	unchanged := func(s *flags.Snapshot, was frozen) bool {
		return s.Revision() == was.revision && slices.Equal(s.Flags(), was.fs) &&
			slices.Equal(s.Tenants(), was.ts) && slices.Equal(s.Partners(), was.ps)
	}

	rapid.Check(t, func(t *rapid.T) {
		registry := drawRegistry(t)
		var fs []*flags.Flag
		for _, key := range []string{"a", "ab", "b", "c"} {
			if f := drawMaybe(t, registry, key); f != nil {
				fs = append(fs, f)
			}
		}
		base := flags.NewSnapshot("epoch", 1, registry.Environments(), fs, registry.Tenants(), registry.Partners())
		given := map[*flags.Snapshot]frozen{base: freeze(base)}

		e := base.Edit()
		ofFlags := kind[flags.Flag]{list: (*flags.Snapshot).Flags, get: (*flags.Edit).Flag, set: (*flags.Edit).SetFlag,
			name: func(f *flags.Flag) string { return f.Key }}
		ofTenants := kind[flags.Tenant]{list: (*flags.Snapshot).Tenants, get: (*flags.Edit).Tenant, set: (*flags.Edit).SetTenant,
			name: func(t *flags.Tenant) string { return t.Slug }}
		ofPartners := kind[flags.Partner]{list: (*flags.Snapshot).Partners, get: (*flags.Edit).Partner, set: (*flags.Edit).SetPartner,
			name: func(p *flags.Partner) string { return p.Slug }}
		ofFlags.start(base)
		ofTenants.start(base)
		ofPartners.start(base)

		revision := base.Revision()
		for range rapid.IntRange(0, 10).Draw(t, "steps") {
			switch rapid.SampledFrom([]string{"flag", "flag", "tenant", "tenant", "partner", "view", "revision"}).Draw(t, "step") {
			case "flag":
				ofFlags.step(t, e, func(key string) *flags.Flag { return drawFlag(t, registry, key) })
			case "tenant":
				ofTenants.step(t, e, func(slug string) *flags.Tenant { return drawTenant(t, slug, nil) })
			case "partner":
				ofPartners.step(t, e, func(slug string) *flags.Partner { return &flags.Partner{Slug: slug} })
			case "view":
				view := e.View()
				given[view] = freeze(view)
				if again := e.View(); again != view {
					t.Errorf("a second View() is another snapshot, want the same")
				}
			case "revision":
				revision++
				e.SetRevision(revision, time.Time{})
			}
			ofFlags.check(t, e, base)
			ofTenants.check(t, e, base)
			ofPartners.check(t, e, base)
			for _, slug := range []string{"a", "b0", "zz"} {
				tenant, partner := ofTenants.have[slug] != nil, ofPartners.have[slug] != nil
				if e.Known(flags.AxisTenants, slug) != tenant || e.Known(flags.AxisPartners, slug) != partner {
					t.Errorf("Known(%s) = %t, %t, want %t, %t", slug, e.Known(flags.AxisTenants, slug), e.Known(flags.AxisPartners, slug), tenant, partner)
				}
			}
		}
		pending := e.ScopedTo(flags.AxisPlans, "starter")

		got := e.View()
		scratch := flags.NewSnapshot("epoch", revision, base.Environments(), ofFlags.values(), ofTenants.values(), ofPartners.values())
		ofFlags.checkFolded(t, base, got, scratch)
		ofTenants.checkFolded(t, base, got, scratch)
		ofPartners.checkFolded(t, base, got, scratch)
		if got.Revision() != revision || e.Revision() != revision || got.Epoch() != "epoch" || !slices.Equal(got.Environments(), base.Environments()) {
			t.Errorf("edited to %d, %s, %v, want %d, epoch, %v", got.Revision(), got.Epoch(), got.Environments(), revision, base.Environments())
		}
		if want := scratch.Edit().ScopedTo(flags.AxisPlans, "starter"); !slices.Equal(pending, want) {
			t.Errorf("ScopedTo before the view = %v, want %v", pending, want)
		}
		for s, was := range given {
			if !unchanged(s, was) {
				t.Errorf("an edit changed the snapshot of revision %d that was given out before, want it left alone", was.revision)
			}
		}
	})
}

func TestPatchIsIdempotent(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		s := drawRegistry(t)
		f, p := drawFlag(t, s, "search"), drawPatch(t, s)
		once, err := p.Apply(*f, s.Known)
		if err != nil {
			t.Fatalf("Apply(%s) = %v, want no error", show(p), err)
		}
		twice, err := p.Apply(once, nothing) // all values are there already
		if err != nil || show(twice) != show(once) {
			t.Errorf("Apply(%s) twice = %s, %v, want %s", show(p), show(twice), err, show(once))
		}
		if !once.SameContent(&twice) || once.SameContent(f) != (len(flags.DiffFlag(f, &once)) == 0) {
			t.Errorf("SameContent and DiffFlag(%s, %s) = %s disagree", show(f), show(once), show(flags.DiffFlag(f, &once)))
		}
		for _, a := range flags.Axes {
			values := once.Scope.Axis(a)
			if values == nil || !ascending(values) {
				t.Errorf("%s after Apply(%s) = %q, want ascending and not nil", a, show(p), values)
			}
			asked, named := p.Scope[a]
			if !named {
				asked = f.Scope.Axis(a)
			}
			want := map[string]bool{}
			for _, v := range asked {
				want[strings.TrimSpace(v)] = true
			}
			if !slices.Equal(values, slices.Sorted(maps.Keys(want))) {
				t.Errorf("%s after Apply(%s) = %q, want %q, trimmed and distinct", a, show(p), values, asked)
			}
		}
	})
}

// ascending tells whether values are sorted and distinct.
func ascending(values []string) bool {
	for i := range values {
		if i > 0 && values[i-1] >= values[i] {
			return false
		}
	}
	return true
}

// TestContentIsTheFlag plays a flag's whole life and asks the log for every version of it.
func TestContentIsTheFlag(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		s := drawRegistry(t)
		var versions []*flags.Flag
		var newestFirst []flags.Changes
		var current *flags.Flag
		for range rapid.IntRange(1, 8).Draw(t, "versions") {
			next := drawMaybe(t, s, "search")
			if current != nil && next != nil { // a change of some fields more often than of all
				p := drawPatch(t, s)
				patched, err := p.Apply(*current, s.Known)
				if err != nil {
					t.Fatalf("Apply(%s) = %v, want no error", show(p), err)
				}
				next = &patched
			}
			newestFirst = slices.Insert(newestFirst, 0, flags.DiffFlag(current, next))
			versions = append(versions, next)
			current = next
		}
		// Before anything is created, a flag that stays away has nothing in the log.
		existed := false
		for i, want := range versions {
			existed = existed || want != nil
			p, err := flags.Content(newestFirst[len(versions)-1-i:])
			if want == nil {
				if deleted := i > 0 && versions[i-1] != nil; deleted && err == nil || !existed && err == nil {
					t.Errorf("Content of a deletion = %s, want an error", show(p))
				}
				continue
			}
			if err != nil {
				t.Errorf("Content of version %d = %v, want %s", i+1, err, show(want))
				continue
			}
			for _, onto := range []flags.Flag{flags.New("search"), *cmp.Or(current, want)} {
				if got, err := p.Apply(onto, s.Known); err != nil || !got.SameContent(want) {
					t.Errorf("Content of version %d gives %s, %v, want %s", i+1, show(got), err, show(want))
				}
			}
		}
	})
}

func TestDocumentComesBack(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		registry := drawRegistry(t)
		var fs []*flags.Flag
		for _, key := range []string{"a", "a1", "b"} {
			fs = append(fs, drawFlag(t, registry, key))
		}
		s := flags.NewSnapshot("epoch", 1, registry.Environments(), fs, registry.Tenants(), registry.Partners())

		var out bytes.Buffer
		if err := flags.WriteDocument(&out, s); err != nil {
			t.Fatal(err)
		}
		doc, err := flags.DecodeDocument(out.Bytes())
		if err != nil {
			t.Fatalf("DecodeDocument(%s) = %v, want no error", &out, err)
		}
		back, err := snapshotOf(doc, s.Environments())
		if err != nil {
			t.Fatalf("applying %s = %v, want no error", &out, err)
		}
		var again bytes.Buffer
		if err := flags.WriteDocument(&again, back); err != nil {
			t.Fatal(err)
		}
		if again.String() != out.String() {
			t.Errorf("the document came back as %s, want %s", &again, &out)
		}
		for i, f := range back.Flags() {
			if !f.SameContent(fs[i]) {
				t.Errorf("the flag came back as %s, want %s", show(f), show(fs[i]))
			}
		}
		for i, tenant := range back.Tenants() {
			if show(tenant) != show(s.Tenants()[i]) {
				t.Errorf("the tenant came back as %s, want %s", show(tenant), show(s.Tenants()[i]))
			}
		}
	})
}
