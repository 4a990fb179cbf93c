package db

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"github.com/dezky/platform-api/flags"
)

// At each time of random histories, a flag's life says what the evaluation of all tenants as of that time counts.
func TestLifeAgainstAsOf(t *testing.T) {
	moved := map[string]int{}
	for _, seed := range []uint64{1, rand.Uint64()} { // the last is named by its subtest
		t.Run(fmt.Sprint("seed ", seed), func(t *testing.T) {
			c := newClock()
			x := &teller{rand.New(rand.NewPCG(seed, 9)), openTest(t, Options{Now: c.now, Rand: rand.NewChaCha8([32]byte{byte(seed)})}), c, map[string]int{}}
			for range 150 {
				x.step(t)
			}
			log := history(t, x.d, HistoryFilter{Limit: 10_000})
			for _, key := range toldKeys {
				for _, env := range x.d.Current().Environments() {
					steps, err := x.d.Life(t.Context(), key, env)
					if errors.Is(err, flags.ErrNotFound) {
						continue
					}
					if err != nil {
						t.Fatal(err)
					}
					var entries []int64
					for i, s := range steps {
						moved["came"] += s.Came.Count
						moved["went"] += s.Went.Count
						if len(s.Entries) == 0 {
							moved["alone"]++
						}
						for _, e := range s.Entries {
							entries = append(entries, e.ID)
						}
						if i+1 < len(steps) && (s.Before != steps[i+1].Reach || !s.At.After(steps[i+1].At)) {
							t.Errorf("%s: step %d: %+v does not follow %+v", key, i, s, steps[i+1])
						}
					}
					if want := history(t, x.d, HistoryFilter{Flag: key, Limit: 10_000}); !slices.EqualFunc(want, entries, func(e flags.Entry, id int64) bool { return e.ID == id }) {
						t.Errorf("%s: its entries are %v, of %d", key, entries, len(want))
					}
					for _, e := range log {
						want, flag, total := countAt(t, x.d, e.At, key, env)
						got := flags.LifeStep{}
						if i := slices.IndexFunc(steps, func(s flags.LifeStep) bool { return !s.At.After(e.At) }); i >= 0 {
							got = steps[i]
							if got.At.Equal(e.At) && got.Total != total {
								t.Errorf("%s at %s: %d tenants, want %d", key, e.At, got.Total, total)
							}
						}
						if got.Reach != want || show(got.Flag) != show(flag) {
							t.Fatalf("%s in %s at %s: %d have %s, want %d and %s", key, env, e.At, got.Reach, show(got.Flag), want, show(flag))
						}
					}
				}
			}
		})
	}
	for _, want := range []string{"came", "went", "alone"} {
		if moved[want] == 0 {
			t.Errorf("no history has a tenant that %s moves a flag's reach", want)
		}
	}
}

// countAt evaluates a flag for all tenants as of a time.
func countAt(t *testing.T, d *DB, at time.Time, key, env string) (n int, f *flags.Flag, total int) {
	t.Helper()
	fs, ts := must(d.FlagsAt(t.Context(), at))(t), must(d.TenantsAt(t.Context(), at))(t)
	i := slices.IndexFunc(fs, func(f *flags.Flag) bool { return f.Key == key })
	if i < 0 {
		return 0, nil, len(ts)
	}
	for _, tenant := range ts {
		if fs[i].Evaluate(tenant, env) {
			n++
		}
	}
	return n, fs[i], len(ts)
}

func TestLifeOfNoFlag(t *testing.T) {
	d := openTest(t, Options{})
	if steps, err := d.Life(t.Context(), "search", "production"); !errors.Is(err, flags.ErrNotFound) {
		t.Errorf("%v, %v, want that it is not found", steps, err)
	}
}

// A flag with 500 entries in a log of 100,000, since whose creation 20,000 tenants were made and 10,000 of them changed.
func BenchmarkLife(b *testing.B) {
	c := newClock()
	d := openTest(b, Options{Environments: []string{"production", "staging", "development"}, Now: c.now})
	if _, err := d.Import(b.Context(), ops, flags.Document{Flags: manyFlags(largeFlags), Partners: manyPartners()}, Import{}); err != nil {
		b.Fatal(err)
	}
	take := func(plan int, ps []flags.TenantPatch) {
		var rows []flags.TenantRow
		for i, p := range ps {
			p.Plan = &flags.Plans[(i+plan)%len(flags.Plans)]
			rows = append(rows, flags.TenantRow{Line: i + 1, Tenant: p})
		}
		c.advance(time.Hour)
		must(d.ImportTenants(b.Context(), ops, rows, TenantImport{}))(b)
	}
	tell := func(n int, key func(int) string) {
		var story []Step
		for i := range n {
			c.advance(time.Second)
			story = append(story, Step{By: By{Actor: ops.Actor, At: c.now()}, Patch: &flags.NewFlag{Key: key(i),
				Patch: flags.Patch{State: new(flags.Rollout), Pct: new(1 + i%99), Description: new(fmt.Sprint("Change ", i))}}})
		}
		if err := d.Tell(b.Context(), story); err != nil {
			b.Fatal(err)
		}
	}
	tell(66_000, func(i int) string { return fmt.Sprintf("flag_%04d", 1+i%(largeFlags-1)) })
	take(0, manyTenants(20_000))
	tell(490, func(int) string { return "flag_0000" })
	take(1, manyTenants(20_000)[:10_000])
	log := history(b, d, HistoryFilter{Limit: 1})[0].ID
	b.ResetTimer()
	for b.Loop() {
		must(d.Life(b.Context(), "flag_0000", "production"))(b)
	}
	b.ReportMetric(float64(log), "entries")
}
