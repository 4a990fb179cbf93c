package flags_test

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"github.com/dezky/platform-api/flags"
)

// crowd returns n tenants, over all plans and ten partners.
func crowd(n int) ([]*flags.Tenant, []*flags.Partner) {
	rng := rand.New(rand.NewPCG(1, 2))
	partners := make([]*flags.Partner, 10)
	for i := range partners {
		partners[i] = &flags.Partner{Slug: fmt.Sprintf("partner-%d", i)}
	}
	tenants := make([]*flags.Tenant, n)
	for i := range tenants {
		tenants[i] = &flags.Tenant{ID: fmt.Sprintf("%08x%016x", i, rng.Uint64()), Slug: fmt.Sprintf("tenant-%06d", i),
			Name: "Tenant", Plan: flags.Plans[i%3], Status: flags.Active}
		if i%2 == 0 {
			tenants[i].PartnerSlug = partners[i/2%10].Slug
		}
	}
	return tenants, partners
}

// switchboard returns n flags. Every third is a rollout that has to ask the tenant's bucket; the scopes
// of the others go from none to lists of 10,000 tenants.
func switchboard(n int, tenants []*flags.Tenant) []*flags.Flag {
	slugs := func(count int) []string {
		out := make([]string, 0, count)
		for i := range count {
			out = append(out, tenants[i*len(tenants)/count].Slug)
		}
		return slices.Compact(out)
	}
	large, middle, small := slugs(10_000), slugs(200), slugs(4)
	fs := make([]*flags.Flag, n)
	for i := range fs {
		f := flags.New(fmt.Sprintf("flag_%04d_of_a_usual_length", i))
		switch {
		case i%3 == 0:
			f.State, f.Pct = flags.Rollout, 1+i%99
			if i%2 == 0 {
				f.Scope.Plans = []string{"business", "enterprise", "starter"}
				f.Scope.Environments = []string{"production", "staging"}
			}
		case i%25 == 1:
			f.State, f.Scope.TenantSlugs = flags.Targeted, slices.Clone(large)
		case i%10 == 2:
			f.State, f.Scope.TenantSlugs = flags.Targeted, middle
		case i%10 == 4:
			f.State, f.Scope.TenantSlugs = flags.Targeted, small
			f.Scope.Environments = []string{"production"}
		case i%10 == 5:
			f.State, f.Scope.Plans = flags.Targeted, []string{"enterprise"}
			f.Scope.PartnerSlugs = []string{"partner-0", "partner-1", "partner-2", "partner-3", "partner-4", "partner-5"}
		case i%10 == 7:
			f.State = flags.On
		}
		fs[i] = &f
	}
	return fs
}

// BenchmarkEvaluate is all flags for one tenant, another one each time, so that nothing is warm.
func BenchmarkEvaluate(b *testing.B) {
	tenants, _ := crowd(100_000)
	for _, n := range []int{100, 1000} {
		fs := switchboard(n, tenants)
		b.Run(fmt.Sprintf("%dflags", n), func(b *testing.B) {
			b.ReportAllocs()
			i, enabled := 0, 0
			for b.Loop() {
				i = (i + 7919) % len(tenants)
				for _, f := range fs {
					if f.Evaluate(tenants[i], "production") {
						enabled++
					}
				}
			}
			if enabled == 0 {
				b.Error("no flag was ever true")
			}
		})
	}
}

func BenchmarkExplain(b *testing.B) {
	tenants, _ := crowd(100_000)
	fs := switchboard(100, tenants)
	b.ReportAllocs()
	i, split := 0, 0
	for b.Loop() {
		i = (i + 7919) % len(tenants)
		for _, f := range fs {
			if f.Explain(tenants[i], "production").Reason == flags.ReasonSplit {
				split++
			}
		}
	}
	if split == 0 {
		b.Error("no flag was ever split")
	}
}

// BenchmarkImpact100k is a rollout raised from 10 to 25 among 100,000 tenants in three environments.
func BenchmarkImpact100k(b *testing.B) {
	tenants, partners := crowd(100_000)
	s := flags.NewSnapshot("epoch", 1, []string{"production", "staging", "development"}, nil, tenants, partners)
	before := flags.New("search_v2")
	before.State, before.Pct = flags.Rollout, 10
	after := before
	after.Pct = 25
	b.Run("Impact", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			s.Impact(&before, &after, 50)
		}
	})
	b.Run("Preview", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			s.Preview(&before, &after, "production", 100)
		}
	})
}

// BenchmarkEditFlag is what one change of one flag costs the snapshot: 1,000 flags, 100,000 tenants.
func BenchmarkEditFlag(b *testing.B) {
	tenants, partners := crowd(100_000)
	s := flags.NewSnapshot("epoch", 1, []string{"production"}, switchboard(1000, tenants), tenants, partners)
	changed := *s.Flags()[500]
	b.ReportAllocs()
	for b.Loop() {
		e := s.Edit()
		e.SetFlag(changed.Key, &changed)
		e.SetRevision(2, time.Time{})
		e.View()
	}
}

func BenchmarkEditTenant(b *testing.B) {
	tenants, partners := crowd(100_000)
	s := flags.NewSnapshot("epoch", 1, []string{"production"}, switchboard(1000, tenants), tenants, partners)
	changed := *s.Tenants()[50_000]
	b.ReportAllocs()
	for b.Loop() {
		e := s.Edit()
		e.SetTenant(changed.Slug, &changed)
		e.SetRevision(2, time.Time{})
		e.View()
	}
}

func BenchmarkDecodeQuestion(b *testing.B) {
	body := []byte(`{"tenantSlug":"tenant-050000","environment":"production"}`)
	b.ReportAllocs()
	b.SetBytes(int64(len(body)))
	for b.Loop() {
		if _, err := flags.DecodeQuestion(body); err != nil {
			b.Fatal(err)
		}
	}
}

// BenchmarkSheet is what every flag comes to for a tenant: where it is remembered, right after one flag has
// changed, and without any memory. 1,000 tenants take turns.
func BenchmarkSheet(b *testing.B) {
	tenants, partners := crowd(10_000)
	for _, n := range []int{100, 1000} {
		start := func() *flags.Live {
			live := &flags.Live{}
			live.Publish(flags.NewSnapshot("e", 1, []string{"production", "staging"}, switchboard(n, tenants), tenants, partners))
			return live
		}
		b.Run(fmt.Sprintf("%d/remembered", n), func(b *testing.B) {
			board, i := start().Board(), 0
			for b.Loop() {
				board.Sheet(tenants[i%1000], "production")
				i++
			}
		})
		b.Run(fmt.Sprintf("%d/changed", n), func(b *testing.B) {
			live, i := start(), 0
			for b.Loop() {
				if i%1000 == 0 { // each tenant asks once after each change
					e := live.Current().Edit()
					f := *live.Current().Flags()[i/1000*3%n]
					f.Version++
					e.SetFlag(f.Key, &f)
					live.Publish(e.View())
				}
				live.Board().Sheet(tenants[i%1000], "production")
				i++
			}
		})
		b.Run(fmt.Sprintf("%d/fresh", n), func(b *testing.B) {
			board, i := start().Board(), 0
			for b.Loop() {
				board.Fresh(tenants[i%1000], "production")
				i++
			}
		})
	}
}
