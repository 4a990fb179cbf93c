package db

import (
	"cmp"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/dezky/platform-api/flags"
)

// turned is the difference by the book: every flag evaluated for every tenant in every environment, twice.
func turned(from, to *flags.Snapshot, f flags.DifferenceFilter) (lines []string, counts string) {
	byID := func(s *flags.Snapshot) map[string]*flags.Tenant {
		out := map[string]*flags.Tenant{}
		for _, t := range s.Tenants() {
			out[t.ID] = t
		}
		return out
	}
	was, is := byID(from), byID(to)
	var ts []*flags.Tenant
	ts = append(ts, to.Tenants()...)
	for _, t := range from.Tenants() {
		if is[t.ID] == nil {
			ts = append(ts, t)
		}
	}
	slices.SortFunc(ts, func(a, b *flags.Tenant) int {
		return cmp.Or(strings.Compare(a.Slug, b.Slug), strings.Compare(a.ID, b.ID))
	})
	var keys []string
	for _, s := range []*flags.Snapshot{from, to} {
		keys = append(keys, names(s.Flags(), func(f *flags.Flag) string { return f.Key })...)
	}
	slices.Sort(keys)
	has := func(s *flags.Snapshot, key string, t *flags.Tenant, environment string) bool {
		f := s.Flag(key)
		return f != nil && t != nil && f.Evaluate(t, environment)
	}
	sums := map[string]int{}
	for _, key := range slices.Compact(keys) {
		for _, t := range ts {
			a, b := was[t.ID], is[t.ID]
			fits := func(want string, of func(*flags.Tenant) string) bool {
				return want == "" || a != nil && of(a) == want || b != nil && of(b) == want
			}
			if f.Flag != "" && f.Flag != key || !fits(f.Tenant, func(t *flags.Tenant) string { return t.Slug }) ||
				!fits(f.Partner, func(t *flags.Tenant) string { return t.PartnerSlug }) || !fits(f.Plan, func(t *flags.Tenant) string { return t.Plan }) {
				continue
			}
			for _, change := range []flags.Direction{flags.Gained, flags.Lost} {
				var in []string
				for _, environment := range to.Environments() {
					before, after := has(from, key, a, environment), has(to, key, b, environment)
					if change == flags.Lost {
						before, after = after, before
					}
					if after && !before && (f.Environment == "" || f.Environment == environment) && (f.Change == "" || f.Change == change) {
						in = append(in, environment)
						sums[fmt.Sprintf("%s %s %s", key, environment, change)]++
					}
				}
				if in != nil {
					lines = append(lines, fmt.Sprintf("%s %s %s %s %s %t %t", key, t.Slug, t.ID, change, in, a == nil, b == nil))
					sums[fmt.Sprintf("%s %s", key, change)]++
				}
			}
		}
	}
	return lines, fmt.Sprint(sums)
}

// told is a difference as turned tells it.
func told(d *flags.Difference, after flags.Place) (lines []string, counts string) {
	for t := range d.Turns(after) {
		lines = append(lines, fmt.Sprintf("%s %s %s %s %s %t %t", t.Key, t.Tenant.Slug, t.Tenant.ID, t.Change, t.Environments, t.New, t.Removed))
	}
	sums := map[string]int{}
	add := func(name string, t flags.Turned) {
		for change, n := range map[flags.Direction]int{flags.Gained: t.Gained, flags.Lost: t.Lost} {
			if n > 0 {
				sums[fmt.Sprint(name, " ", change)] = n
			}
		}
	}
	for _, f := range d.Flags {
		add(f.Key, f.Turned)
		for i, environment := range d.Environments {
			add(f.Key+" "+environment, f.ByEnvironment[i])
		}
	}
	return lines, fmt.Sprint(sums)
}

// Whatever happened between two moments, the difference is that of two full evaluations.
func TestDifferenceAgainstWhatWas(t *testing.T) {
	found := map[string]int{}
	for _, seed := range []uint64{1, rand.Uint64()} { // the last is named by its subtest
		t.Run(fmt.Sprint("seed ", seed), func(t *testing.T) {
			c := newClock()
			x := &teller{rand.New(rand.NewPCG(seed, 9)), openTest(t, Options{Environments: []string{"production", "staging"}, Now: c.now, Rand: rand.NewChaCha8([32]byte{byte(seed)})}), c, map[string]int{}}
			type record struct {
				at time.Time
				s  *flags.Snapshot
			}
			var records []record
			for range 120 {
				stories := x.words["story"]
				x.step(t)
				log := history(t, x.d, HistoryFilter{Limit: 1})
				if len(log) == 0 {
					continue
				}
				// What came at the same time counts; a story's first step may have come at the time before it.
				if n := len(records); n > 0 && (records[n-1].at.Equal(log[0].At) || x.words["story"] > stories) {
					records = records[:n-1]
				}
				records = append(records, record{log[0].At, x.d.Current()})
			}
			maybe := func(list []string) string { return x.of(append(slices.Repeat([]string{""}, 3*len(list)), list...)) }
			for range 300 {
				i, j := x.IntN(len(records)), x.IntN(len(records))
				from, to := records[min(i, j)], records[max(i, j)]
				f := flags.DifferenceFilter{Flag: maybe(toldKeys), Tenant: maybe(toldSlugs), Partner: maybe(toldPartners), Plan: maybe(flags.Plans),
					Environment: maybe(from.s.Environments()), Change: flags.Direction(maybe([]string{"gained", "lost"}))}
				at := to.at
				if max(i, j) == len(records)-1 {
					at = time.Time{} // now
				}
				d := must(x.d.Difference(t.Context(), from.at, at, f))(t)
				want, wantCounts := turned(from.s, to.s, f)
				got, counts := told(d, flags.Place{})
				if !slices.Equal(got, want) || counts != wantCounts || d.Gained+d.Lost != len(want) {
					t.Fatalf("from %s to %s, %+v: %d turns\n%s\n%s\nwant\n%s\n%s", from.at, to.at, f, d.Gained+d.Lost,
						strings.Join(got, "\n"), counts, strings.Join(want, "\n"), wantCounts)
				}
				n := 0
				for turn := range d.Turns(flags.Place{}) {
					if n++; x.IntN(len(want)) == 0 {
						if rest, _ := told(d, turn.Place()); !slices.Equal(rest, want[n:]) {
							t.Fatalf("after %+v:\n%s\nwant\n%s", turn.Place(), strings.Join(rest, "\n"), strings.Join(want[n:], "\n"))
						}
					}
					found[fmt.Sprintf("%s, new %t, removed %t", turn.Change, turn.New, turn.Removed)]++
				}
			}
		})
	}
	for _, want := range []string{"gained, new false, removed false", "lost, new false, removed false", "gained, new true, removed false", "lost, new false, removed true"} {
		if found[want] == 0 {
			t.Errorf("no difference has a turn %s", want)
		}
	}
}

// A slug that changed hands: who held it before lost, who holds it now gained.
func TestDifferenceMatchesTenantsByID(t *testing.T) {
	c := newClock()
	d := openTest(t, Options{Now: c.now})
	must(d.CreateFlag(t.Context(), ops, newFlag(t, `{"key": "search", "state": "on"}`)))(t)
	must(d.CreateTenant(t.Context(), ops, tenantOf(t, `{"id": "t1", "slug": "acme", "name": "Acme", "plan": "starter"}`)))(t)
	begin := c.now()
	c.advance(time.Minute)
	if err := d.DeleteTenant(t.Context(), ops, "acme"); err != nil {
		t.Fatal(err)
	}
	must(d.CreateTenant(t.Context(), ops, tenantOf(t, `{"id": "t2", "slug": "acme", "name": "Another", "plan": "starter"}`)))(t)
	must(d.CreateTenant(t.Context(), ops, tenantOf(t, `{"id": "t1", "slug": "anew", "name": "Acme", "plan": "starter"}`)))(t)
	env := d.Current().Environments()
	got, _ := told(must(d.Difference(t.Context(), begin, time.Time{}, flags.DifferenceFilter{}))(t), flags.Place{})
	if want := []string{fmt.Sprintf("search acme t2 gained %s true false", env)}; !slices.Equal(got, want) {
		t.Errorf("%s, want %s: the one that is called otherwise now still has it", got, want)
	}
}

func TestDifferenceRefuses(t *testing.T) {
	c := newClock()
	d := openTest(t, Options{Now: c.now})
	begin := c.now()
	importTest(t, d, world)
	c.advance(time.Hour)
	for _, tt := range []struct {
		from, to time.Time
		env      string
		want     string
	}{
		{begin, time.Time{}, "", "<nil>"},
		{begin, begin, "", "<nil>"},
		{time.Time{}, time.Time{}, "", "<nil>"},
		{begin.Add(-time.Hour), begin.Add(2 * time.Hour), "moon", "from must not be before 2026-01-02T03:04:05Z, when the log began;" +
			" to must not be in the future; it is 2026-01-02T04:04:05Z now; env must be a known environment"},
		{begin.Add(time.Minute), begin, "", "from must not be after to, 2026-01-02T03:04:05Z"},
		{time.Time{}, begin, "", "from must not be after to, 2026-01-02T03:04:05Z"},
	} {
		if _, err := d.Difference(t.Context(), tt.from, tt.to, flags.DifferenceFilter{Environment: tt.env}); fmt.Sprint(err) != tt.want {
			t.Errorf("from %s to %s: %v, want %s", tt.from, tt.to, err, tt.want)
		}
	}
}

// What the worst comes to: every flag a rollout, and its share of all tenants new.
func BenchmarkDifference(b *testing.B) {
	l := must(long())(b)
	d := openTest(b, l.o)
	rows := 0
	for _, bb := range []struct {
		name     string
		from, to time.Time
	}{
		{"20,000 tenants moved", l.full, time.Time{}},
		{"every pct raised", l.half, l.half.Add(39_000 * time.Second)},
		{"100,000 tenants new", l.half, time.Time{}},
	} {
		b.Run(bb.name, func(b *testing.B) {
			stop, before := watchHeap(), heap()
			for b.Loop() {
				x := must(d.Difference(b.Context(), bb.from, bb.to, flags.DifferenceFilter{}))(b)
				rows = 0
				for range x.Turns(flags.Place{}) {
					if rows++; rows == 200 {
						break
					}
				}
				rows = x.Gained + x.Lost
			}
			b.ReportMetric(stop()-before, "peak-MB")
			b.ReportMetric(float64(rows), "turns")
		})
	}
}

// Flags change, all tenants stay: as many flags as a bulk mistake turns, and all that there are.
func BenchmarkDifferenceOfFlags(b *testing.B) {
	for _, n := range []int{12, largeFlags} {
		b.Run(fmt.Sprint(n), func(b *testing.B) {
			d := openTest(b, must(large())(b))
			s := d.Current()
			var fs []*flags.Flag
			for i, f := range s.Flags() {
				after := *f
				if i < n {
					after.State, after.Pct = flags.States[(i+1)%4], (f.Pct+7)%101
				}
				fs = append(fs, &after)
			}
			to := flags.NewSnapshot(s.Epoch(), s.Revision()+1, s.Environments(), fs, s.Tenants(), nil)
			for b.Loop() {
				x := must(flags.Between(b.Context(), s, to, flags.DifferenceFilter{}))(b)
				b.ReportMetric(float64(x.Gained+x.Lost), "turns")
			}
		})
	}
}
