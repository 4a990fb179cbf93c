package flags_test

import (
	"reflect"
	"slices"
	"testing"

	"github.com/dezky/platform-api/flags"
	"pgregory.net/rapid"
)

// Flips are the difference of all evaluations before and after, over every tenant, flag and environment.
func TestFlipsAreTheDifference(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		registry := drawRegistry(t)
		edit := registry.Edit()
		for _, key := range []string{"alpha", "beta", "gamma"} {
			edit.SetFlag(key, drawMaybe(t, registry, key))
		}
		edit.SetFlag("delta", drawFlag(t, registry, "delta"))
		s := edit.View()
		partners := []string{""}
		for _, p := range s.Partners() {
			partners = append(partners, p.Slug)
		}
		var changes []flags.TenantChange
		for _, before := range s.Tenants() {
			if rapid.IntRange(0, 3).Draw(t, "changed") == 0 {
				continue
			}
			after := *before
			after.Plan = rapid.SampledFrom(flags.Plans).Draw(t, "plan")
			after.PartnerSlug = rapid.SampledFrom(partners).Draw(t, "partner")
			after.Status = rapid.SampledFrom([]string{flags.Active, flags.Suspended}).Draw(t, "status")
			changes = append(changes, flags.TenantChange{Before: before, After: &after})
		}
		limit := rapid.IntRange(0, 4).Draw(t, "limit")
		var want []flags.Flip
		for _, f := range s.Flags() {
			flip, any := flags.Flip{Flag: f}, false
			for _, environment := range s.Environments() {
				var e flags.EnvImpact
				for _, c := range changes {
					switch was, is := f.Evaluate(c.Before, environment), f.Evaluate(c.After, environment); {
					case is && !was:
						e.Gains = append(e.Gains, c.After)
					case was && !is:
						e.Losses = append(e.Losses, c.After)
					}
				}
				e.Gained, e.Lost = len(e.Gains), len(e.Losses)
				e.Gains, e.Losses = first(e.Gains, limit), first(e.Losses, limit)
				any = any || e.Gained+e.Lost > 0
				flip.Impact = append(flip.Impact, e)
			}
			if any {
				want = append(want, flip)
			}
		}
		got := s.Flips(changes, limit)
		if !reflect.DeepEqual(got, want) {
			t.Errorf("Flips(%s, %d) = %s, want %s", show(changes), limit, show(got), show(want))
		}
		for _, c := range changes {
			one := s.OfTenant(s.Flips([]flags.TenantChange{c}, 0))
			var keys []string
			for _, flip := range one {
				keys = append(keys, flip.Key)
				for environment, v := range flip.Environments {
					f := s.Flag(flip.Key)
					if was, is := f.Evaluate(c.Before, environment), f.Evaluate(c.After, environment); was != v.From || is != v.To || was == is {
						t.Errorf("%s flips for %s in %s from %t to %t, want %t to %t", flip.Key, c.Before.Slug, environment, v.From, v.To, was, is)
					}
				}
			}
			if !slices.IsSorted(keys) {
				t.Errorf("OfTenant has the keys %v, want them sorted", keys)
			}
		}
	})
}

func TestChangedTenantJSON(t *testing.T) {
	tenant := registry().Tenant("acme")
	plain := show(tenant)
	if got := show(flags.ChangedTenant{Tenant: tenant}); got != plain {
		t.Errorf("without flips it is %s, want %s", got, plain)
	}
	got := show(flags.ChangedTenant{Tenant: tenant, Flips: []flags.TenantFlip{{Key: "a", Environments: map[string]flags.Switch{"staging": {To: true}}}}})
	if want := plain[:len(plain)-1] + `,"flips":[{"key":"a","environments":{"staging":{"from":false,"to":true}}}]}`; got != want {
		t.Errorf("with flips it is %s, want %s", got, want)
	}
}
