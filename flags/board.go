package flags

import (
	"slices"
	"sync"
	"sync/atomic"
)

// sheetsMost bounds the memory of remembered sheets, in bytes.
const sheetsMost = 48 << 20

// Board is a snapshot made ready for many questions: it remembers what each flag came to for a tenant.
// Boards of one line share that memory, so a change costs each tenant only the flags that it touched. Asking
// takes no lock.
type Board struct {
	*Snapshot
	serial int64   // counts the boards of a line
	since  []int64 // by flag: the serial of the first board that has it as it is
	shape  int64   // the serial of the first board with just these keys
	sheets *sheets
}

// newBoard begins a line.
func newBoard(s *Snapshot, most int64) *Board {
	b := &Board{Snapshot: s, since: make([]int64, len(s.flags)), sheets: &sheets{half: most / 2}}
	b.sheets.young.Store(&generation{})
	b.sheets.old.Store(&generation{})
	return b
}

// next goes on with a later snapshot, in the same line unless that is of another.
func (b *Board) next(s *Snapshot) *Board {
	if b == nil || b.epoch != s.epoch || !slices.Equal(b.environments, s.environments) {
		return newBoard(s, sheetsMost)
	}
	n := &Board{Snapshot: s, serial: b.serial + 1, since: b.since, shape: b.shape, sheets: b.sheets}
	if !slices.EqualFunc(b.flags, s.flags, func(x, y *Flag) bool { return x.Key == y.Key }) {
		n.shape, n.since = n.serial, make([]int64, len(s.flags))
		return n
	}
	shared := true
	for i, f := range s.flags {
		if f == b.flags[i] {
			continue
		}
		if shared {
			n.since, shared = slices.Clone(b.since), false
		}
		n.since[i] = n.serial
	}
	return n
}

// Sheet is what every flag came to for one tenant in one environment. It must not be changed.
type Sheet struct {
	serial   int64
	Outcomes []Outcome // in the order of the flags
	On       []uint8   // bit i%8 of byte i/8: whether the tenant has flag i
}

func (b *Board) fill(sh *Sheet, i int, t *Tenant, environment string) {
	f := b.flags[i]
	o := f.Outcome(t, environment)
	sh.Outcomes[i] = o
	sh.On[i/8] &^= 1 << (i % 8)
	if f.Holds(o) {
		sh.On[i/8] |= 1 << (i % 8)
	}
}

// Sheet evaluates every flag for a tenant of the board in a known environment, as far as it is not
// remembered from before.
func (b *Board) Sheet(t *Tenant, environment string) *Sheet {
	row := b.sheets.row(t, len(b.environments))
	place := &row.sheets[b.environmentIndex(environment)]
	last := place.Load()
	if last != nil && last.serial == b.serial {
		return last
	}
	if last != nil && last.serial > b.serial { // of a board that has replaced this one meanwhile
		return b.Fresh(t, environment)
	}
	if last == nil || last.serial < b.shape {
		sh := b.Fresh(t, environment)
		if place.CompareAndSwap(last, sh) {
			b.sheets.grow(sh.size() - last.size())
		}
		return sh
	}
	sh, shared := &Sheet{serial: b.serial, Outcomes: last.Outcomes, On: last.On}, true
	for i, since := range b.since {
		if since <= last.serial {
			continue
		}
		if shared {
			sh.Outcomes, sh.On, shared = slices.Clone(last.Outcomes), slices.Clone(last.On), false
		}
		b.fill(sh, i, t, environment)
	}
	place.CompareAndSwap(last, sh)
	return sh
}

// Fresh is Sheet without the memory, for a tenant that need not be in the registry.
func (b *Board) Fresh(t *Tenant, environment string) *Sheet {
	n := len(b.flags)
	sh := &Sheet{serial: b.serial, Outcomes: make([]Outcome, n), On: make([]uint8, (n+7)/8)}
	for i := range b.flags {
		b.fill(sh, i, t, environment)
	}
	return sh
}

// size is about what a sheet takes, in bytes.
func (sh *Sheet) size() int64 {
	if sh == nil {
		return 0
	}
	return int64(64 + cap(sh.Outcomes) + cap(sh.On))
}

// sheets remembers sheets by tenant within a bound of bytes. When the young generation is full it becomes
// the old one, and what nobody asked for meanwhile goes.
type sheets struct {
	half       int64 // bytes of one generation
	young, old atomic.Pointer[generation]
}

type generation struct {
	rows  sync.Map // *Tenant to *row: a tenant that has changed is another
	bytes atomic.Int64
}

type row struct {
	sheets []atomic.Pointer[Sheet] // by environment
}

// row returns the place of a tenant's sheets.
func (ss *sheets) row(t *Tenant, environments int) *row {
	young := ss.young.Load()
	if x, ok := young.rows.Load(t); ok {
		return x.(*row)
	}
	kept := int64(256 + 8*environments)
	r := &row{sheets: make([]atomic.Pointer[Sheet], environments)}
	if x, ok := ss.old.Load().rows.Load(t); ok {
		r = x.(*row)
		for i := range r.sheets {
			kept += r.sheets[i].Load().size()
		}
	}
	x, known := young.rows.LoadOrStore(t, r)
	if !known {
		ss.grow(kept)
	}
	return x.(*row)
}

// grow counts bytes, and turns the generations over when the young one is full.
func (ss *sheets) grow(bytes int64) {
	young := ss.young.Load()
	if young.bytes.Add(bytes) > ss.half && ss.young.CompareAndSwap(young, &generation{}) {
		ss.old.Store(young)
	}
}
