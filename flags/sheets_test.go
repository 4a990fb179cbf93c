package flags

import (
	"fmt"
	"testing"
)

// However many tenants are asked about, the memory of their sheets stays within its bound, and whoever is
// asked about all the time stays in it.
func TestSheetsAreBounded(t *testing.T) {
	t.Parallel()
	const most = 64 << 10
	var fs []*Flag
	for i := range 100 {
		fs = append(fs, &Flag{Key: fmt.Sprintf("f%03d", i), State: On})
	}
	s := NewSnapshot("e", 1, []string{"production", "staging"}, fs, nil, nil)
	b := newBoard(s, most)
	often := &Tenant{ID: "often"}
	kept := b.Sheet(often, "production")
	held := func() (rows int, bytes int64) {
		for _, g := range []*generation{b.sheets.young.Load(), b.sheets.old.Load()} {
			g.rows.Range(func(_, x any) bool {
				rows++
				bytes += 64
				for i := range x.(*row).sheets {
					bytes += x.(*row).sheets[i].Load().size()
				}
				return true
			})
		}
		return rows, bytes
	}
	for i := range 2000 {
		b.Sheet(&Tenant{ID: fmt.Sprint(i)}, "production")
		if i%20 == 0 && b.Sheet(often, "production") != kept {
			t.Fatalf("after %d others, one that is asked for all the time is made anew", i)
		}
		if rows, bytes := held(); bytes > most || i > 100 && rows < 50 {
			t.Fatalf("after %d tenants %d are remembered in %d bytes, want as many as go into %d", i, rows, bytes, most)
		}
	}
}
