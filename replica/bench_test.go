package replica

import (
	"fmt"
	"testing"

	"github.com/dezky/platform-api/db"
	"github.com/dezky/platform-api/flags"
)

// Acknowledged changes: alone, replicated after the fact, and acknowledged by the replica. ns/op is per change.
func BenchmarkChange(b *testing.B) {
	change := func(b *testing.B, d *db.DB, writers int) {
		for i := range 8 {
			must(d.CreateFlag(b.Context(), ops, flags.NewFlag{Key: fmt.Sprint("flag", i)}))(b)
		}
		b.SetParallelism(writers)
		b.ResetTimer()
		b.RunParallel(func(p *testing.PB) {
			for i := 0; p.Next(); i++ {
				if _, err := d.PatchFlag(b.Context(), ops, fmt.Sprint("flag", i%8), flags.Patch{Pct: new(i % 101)}); err != nil {
					b.Error(err)
					return
				}
			}
		})
	}
	for _, writers := range []int{1, 16} {
		b.Run(fmt.Sprintf("alone/%d", writers), func(b *testing.B) {
			d := must(db.Open(b.Context(), db.Options{Dir: b.TempDir(), Environments: environments}))(b)
			defer d.Close()
			change(b, d, writers)
		})
		for kind, make := range kinds {
			for _, durability := range []string{"local", "replicated"} {
				b.Run(fmt.Sprintf("%s-%s/%d", kind, durability, writers), func(b *testing.B) {
					pace := usual
					n := serve(b, Options{Config: make(b), Dir: b.TempDir(), FirstBoot: true, pace: &pace})
					if durability == "replicated" {
						n.db.AcknowledgeBy(n.Wait)
					}
					change(b, n.db, writers)
				})
			}
		}
	}
}
