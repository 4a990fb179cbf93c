package db

import (
	"context"
	"errors"
	"fmt"
	"os"
	"runtime"
	"runtime/metrics"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/dezky/platform-api/flags"
)

// The large database is as large as an appliance should ever have to bear.
const (
	largeTenants = 100_000
	largeFlags   = 1_000
)

func manyTenants(n int) []flags.TenantPatch {
	ts := make([]flags.TenantPatch, n)
	for i := range ts {
		ts[i] = flags.TenantPatch{ID: new(fmt.Sprintf("65f0c0ffee%014d", i)), Slug: new(fmt.Sprintf("tenant-%06d", i)),
			Name: new(fmt.Sprintf("Tenant number %d AS", i)), Plan: &flags.Plans[i%len(flags.Plans)]}
		if i%2 == 0 {
			ts[i].PartnerSlug = new(fmt.Sprintf("partner-%02d", i%40))
		}
	}
	return ts
}

func manyPartners() []flags.PartnerPatch {
	ps := make([]flags.PartnerPatch, 40)
	for i := range ps {
		ps[i] = flags.PartnerPatch{Slug: new(fmt.Sprintf("partner-%02d", i)), Name: new(fmt.Sprintf("Partner %d AS", i))}
	}
	return ps
}

func manyFlags(n int) []flags.NewFlag {
	fs := make([]flags.NewFlag, n)
	for i := range fs {
		fs[i] = flags.NewFlag{Key: fmt.Sprintf("flag_%04d", i), Patch: flags.Patch{
			Description: new(strings.Repeat("What the flag is for. ", 10)),
			State:       &flags.States[i%len(flags.States)],
			Pct:         new(i % 101),
			Scope:       map[flags.Axis][]string{flags.AxisPlans: flags.Plans[:i%3], flags.AxisEnvironments: {"production"}}}}
	}
	return fs
}

// large returns the options of the large database, which is filled once.
var large = sync.OnceValues(func() (o Options, err error) {
	o.Environments = []string{"production", "staging", "development"}
	if o.Dir, err = os.MkdirTemp("", "platform-api-large-"); err != nil {
		return o, err
	}
	largeDir = o.Dir
	d, err := Open(context.Background(), o)
	if err != nil {
		return o, err
	}
	for _, document := range []flags.Document{{Flags: manyFlags(largeFlags)}, {Partners: manyPartners(), Tenants: manyTenants(largeTenants)}} {
		if _, err := d.Import(context.Background(), ops, document, Import{}); err != nil {
			return o, errors.Join(err, d.Close())
		}
	}
	return o, d.Close()
})

var largeDir string

func removeLarge() error {
	var err error
	for _, dir := range []string{largeDir, longDir} {
		if dir != "" {
			err = errors.Join(err, os.RemoveAll(dir))
		}
	}
	return err
}

// sized runs a benchmark on a small database and on the large one.
func sized(b *testing.B, run func(b *testing.B, d *DB)) {
	b.Run("small", func(b *testing.B) {
		d := openTest(b, Options{Environments: []string{"production", "staging", "development"}})
		document := flags.Document{Partners: manyPartners(), Tenants: manyTenants(40), Flags: manyFlags(20)}
		must(d.Import(b.Context(), ops, document, Import{}))(b)
		run(b, d)
	})
	b.Run("large", func(b *testing.B) { run(b, openTest(b, must(large())(b))) })
}

func heap() float64 {
	runtime.GC()
	runtime.GC() // what the first one finalized
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return float64(m.HeapAlloc) / (1 << 20)
}

// From nothing to ready, and what it holds in memory then.
func BenchmarkOpen(b *testing.B) {
	sized(b, func(b *testing.B, d *DB) {
		closeTest(b, d)
		o := d.opts
		for b.Loop() {
			d := must(Open(b.Context(), o))(b)
			b.StopTimer()
			closeTest(b, d)
			b.StartTimer()
		}
		before := heap()
		open := must(Open(b.Context(), o))(b)
		b.ReportMetric(heap()-before, "heap-MB")
		b.ReportMetric(float64(len(open.Current().Tenants())), "tenants")
		closeTest(b, open)
	})
}

func BenchmarkPatchFlag(b *testing.B) {
	sized(b, func(b *testing.B, d *DB) {
		for _, bb := range []struct {
			name, key string
			patch     func(i int) flags.Patch
		}{
			{"off", "flag_0000", func(i int) flags.Patch { return flags.Patch{Description: new(fmt.Sprint(i))} }},
			{"rollout", "flag_0003", func(i int) flags.Patch { return flags.Patch{Pct: new(1 + i%100)} }},
			{"on", "flag_0001", func(i int) flags.Patch { return flags.Patch{State: &[]flags.State{flags.Off, flags.On}[i%2]} }},
		} {
			b.Run(bb.name, func(b *testing.B) {
				i := 0
				for b.Loop() {
					must(d.PatchFlag(b.Context(), ops, bb.key, bb.patch(i)))(b)
					i++
				}
			})
		}
	})
}

func BenchmarkPatchTenant(b *testing.B) {
	sized(b, func(b *testing.B, d *DB) {
		i := 0
		for b.Loop() {
			must(d.PatchTenant(b.Context(), ops, "tenant-000007", flags.TenantPatch{Name: new(fmt.Sprint(i))}))(b)
			i++
		}
	})
}

// A change of plan that flips every flag whose scope names a plan: half of 1,000.
func BenchmarkTenantFlips(b *testing.B) {
	d := openTest(b, Options{Environments: []string{"production", "staging", "development"}})
	document := flags.Document{Partners: manyPartners(), Tenants: manyTenants(10_000), Flags: manyFlags(largeFlags)}
	for i := range document.Flags {
		document.Flags[i].Patch = flags.Patch{State: new(flags.Targeted), Scope: map[flags.Axis][]string{flags.AxisPlans: {flags.Plans[1+i%2]}}}
	}
	must(d.Import(b.Context(), ops, document, Import{}))(b)
	i, flipped := 0, 0
	for b.Loop() {
		x := must(d.PatchTenant(b.Context(), ops, "tenant-000007", flags.TenantPatch{Plan: &flags.Plans[2*(i%2)]}))(b)
		flipped = len(x.Flips)
		i++
	}
	b.ReportMetric(float64(flipped), "flips")
}

// 100,000 tenants to an appliance with 1,000 flags, as lines: all of them new, all with another plan, all as
// they are.
func BenchmarkImportTenants100k(b *testing.B) {
	lines := func(plan int) string {
		var out strings.Builder
		for i, p := range manyTenants(largeTenants) {
			fmt.Fprintf(&out, `{"id":%q,"slug":%q,"name":%q,"plan":%q`, *p.ID, *p.Slug, *p.Name, flags.Plans[(i+plan)%3])
			if p.PartnerSlug != nil {
				fmt.Fprintf(&out, `,"partnerSlug":%q`, *p.PartnerSlug)
			}
			out.WriteString("}\n")
		}
		return out.String()
	}
	texts := []string{lines(0), lines(1)}
	for _, bb := range []struct {
		name         string
		first, again int // -1: none before
	}{{"new", -1, 0}, {"moved", 0, 1}, {"same", 0, 0}} {
		b.Run(bb.name, func(b *testing.B) {
			take := func(d *DB, text string) ImportedTenants {
				return must(d.ImportTenants(b.Context(), ops, must(flags.DecodeTenantLines(strings.NewReader(text)))(b), TenantImport{}))(b)
			}
			var peak float64
			for b.Loop() {
				b.StopTimer()
				d := openTest(b, Options{Environments: []string{"production", "staging", "development"}})
				must(d.Import(b.Context(), ops, flags.Document{Partners: manyPartners(), Flags: manyFlags(largeFlags)}, Import{}))(b)
				if bb.first >= 0 {
					take(d, texts[bb.first])
				}
				before := heap()
				stop := watchHeap()
				b.StartTimer()
				done := take(d, texts[bb.again])
				b.StopTimer()
				peak = max(peak, stop()-before)
				b.ReportMetric(float64(len(done.Flips)), "flips")
				closeTest(b, d)
				b.StartTimer()
			}
			b.ReportMetric(peak, "peak-MB")
		})
	}
}

// watchHeap looks at the memory in use each few milliseconds until it is stopped, and returns the most.
func watchHeap() (stop func() float64) {
	end, most := make(chan struct{}), make(chan float64)
	go func() {
		peak := uint64(0)
		for ticks := time.NewTicker(5 * time.Millisecond); ; {
			select {
			case <-ticks.C:
				sample := []metrics.Sample{{Name: "/memory/classes/heap/objects:bytes"}}
				metrics.Read(sample)
				peak = max(peak, sample[0].Value.Uint64())
			case <-end:
				ticks.Stop()
				most <- float64(peak) / (1 << 20)
				return
			}
		}
	}()
	return func() float64 { close(end); return <-most }
}

// 10,000 tenants into an empty database.
func BenchmarkImport(b *testing.B) {
	document := flags.Document{Partners: manyPartners(), Tenants: manyTenants(10_000)}
	for b.Loop() {
		b.StopTimer()
		d := openTest(b, Options{})
		b.StartTimer()
		must(d.Import(b.Context(), ops, document, Import{}))(b)
		b.StopTimer()
		closeTest(b, d)
		b.StartTimer()
	}
}

// The check of a log of 100,000 entries, and the migration that gave it its hashes.
func BenchmarkChain100k(b *testing.B) {
	b.Run("check", func(b *testing.B) {
		d := openTest(b, must(large())(b))
		for b.Loop() {
			if c := must(d.CheckChain(b.Context(), ""))(b); c.Wrong != "" || c.Entries < largeTenants {
				b.Fatal(c)
			}
		}
	})
	b.Run("migrate", func(b *testing.B) {
		d := openTest(b, must(large())(b))
		closeTest(b, d)
		for b.Loop() {
			b.StopTimer()
			dir := b.TempDir()
			madeBefore(b, 7, dir, d)
			b.StartTimer()
			closeTest(b, must(Open(b.Context(), Options{Dir: dir, Environments: d.opts.Environments}))(b))
		}
	})
}

// What the command export reads.
func BenchmarkLoad(b *testing.B) {
	sized(b, func(b *testing.B, d *DB) {
		for b.Loop() {
			must(d.Load(b.Context()))(b)
		}
	})
}

func BenchmarkHistory(b *testing.B) {
	sized(b, func(b *testing.B, d *DB) {
		for _, bb := range []struct {
			name   string
			filter HistoryFilter
		}{
			{"newest", HistoryFilter{Limit: 50}},
			{"rare action", HistoryFilter{Action: flags.Killed, Limit: 50}},
			{"rare action of an actor", HistoryFilter{Actor: ops.Actor, Action: flags.Killed, Limit: 50}},
			{"rare action of a flag in a time", HistoryFilter{Flag: "flag_0003", Action: flags.Killed, From: time.UnixMilli(1), To: time.Now(), Limit: 50}},
			{"deep, in a time", HistoryFilter{From: time.UnixMilli(1), To: time.Now(), Before: 1000, Limit: 50}},
			{"frequent action of nobody", HistoryFilter{Actor: "nobody", Action: flags.Created, Limit: 50}},
			{"flag", HistoryFilter{Flag: "flag_0003", Limit: 50}},
			{"tenant", HistoryFilter{Tenant: "tenant-000007", Limit: 50}},
			{"actor", HistoryFilter{Actor: ops.Actor, Before: 1000, Limit: 50}},
		} {
			b.Run(bb.name, func(b *testing.B) {
				for b.Loop() {
					must(d.History(b.Context(), bb.filter))(b)
				}
			})
		}
	})
}

func BenchmarkTokenByHash(b *testing.B) {
	d := openTest(b, Options{})
	secret, _, err := d.CreateToken(b.Context(), ops, NewToken{Name: "ci", Role: "read"})
	if err != nil {
		b.Fatal(err)
	}
	hash := HashToken(secret)
	for b.Loop() {
		must(d.TokenByHash(b.Context(), hash))(b)
	}
}
