package handlers

import (
	"encoding/json"
	"strconv"
	"sync/atomic"

	"github.com/dezky/platform-api/flags"
)

// answers holds the texts that answers are put together from, for the board that is served.
type answers struct {
	live    *flags.Live
	current atomic.Pointer[texts]
}

// texts are the pieces of answers for one board. They are shared with the next board as far as they hold.
type texts struct {
	*flags.Board
	blocks  []block
	entries []entry // by flag
}

// now returns the texts for the board that is served. The first who asks after a change makes what it needs.
func (a *answers) now() *texts {
	for {
		last := a.current.Load() // before the board, so that it is never the later one
		board := a.live.Board()
		if last != nil && last.Board == board {
			return last
		}
		next := arrange(last, board)
		if a.current.CompareAndSwap(last, next) {
			return next
		}
	}
}

// arrange makes the texts of a board from the last ones.
func arrange(last *texts, board *flags.Board) *texts {
	if last == nil {
		last = &texts{}
	}
	fs := board.Flags()
	t := &texts{Board: board, blocks: make([]block, (len(fs)+blockSize-1)/blockSize), entries: make([]entry, len(fs))}
	same := true // whether every key is where it was
	from := 0    // in the last entries: they are in the order of the keys, too
	for i, f := range fs {
		for from < len(last.entries) && last.entries[from].flag.Key < f.Key {
			from++
		}
		if from < len(last.entries) && last.entries[from].flag == f {
			t.entries[i] = last.entries[from]
		} else {
			t.entries[i] = newEntry(f)
		}
		same = same && i < len(last.entries) && last.entries[i].flag.Key == f.Key
	}
	if same && len(last.entries) == len(fs) {
		t.blocks = last.blocks
		return t
	}
	for i := range t.blocks {
		t.blocks[i] = newBlock(fs[i*blockSize : min((i+1)*blockSize, len(fs))])
	}
	return t
}

// blockSize is how many flags one block answers for.
const blockSize = 4

// block has the answer of /flags/evaluate for some neighboring flags, for each combination of values.
type block [1 << blockSize]string

func newBlock(fs []*flags.Flag) block {
	var b block
	for on := range 1 << len(fs) {
		var text []byte
		for i, f := range fs {
			text = append(text, '"')
			text = append(text, f.Key...) // a key needs no escaping
			text = append(text, `":`...)
			text = strconv.AppendBool(text, on>>i&1 == 1)
			text = append(text, ',')
		}
		b[on] = string(text)
	}
	return b
}

// appendValues appends the answer of /flags/evaluate.
func (t *texts) appendValues(b []byte, sh *flags.Sheet) []byte {
	b = append(b, '{')
	for i := range t.blocks {
		b = append(b, t.blocks[i][sh.On[i/2]>>(i%2*blockSize)&(1<<blockSize-1)]...)
	}
	if len(t.blocks) > 0 {
		b = b[:len(b)-1] // the last comma
	}
	return append(b, '}', '\n')
}

// entry has what OFREP answers for one flag, but for the bucket and the end of its metadata: by outcome
// where no bucket counts, else by value.
type entry struct {
	flag     *flags.Flag
	fixed    [int(flags.Excluded-flags.Disabled) + len(flags.Axes)]string
	bucketed [2]string
}

func newEntry(f *flags.Flag) entry {
	e := entry{flag: f}
	description := ""
	if f.Description != "" {
		text, err := json.Marshal(f.Description)
		if err != nil {
			panic(err) // a string encodes
		}
		description = `"description":` + string(text) + ","
	}
	text := func(x flags.Explanation, rest string) string {
		variant := map[bool]string{true: "on", false: "off"}[x.Value]
		return `{"key":"` + f.Key + `","value":` + strconv.FormatBool(x.Value) + `,"reason":"` + string(x.Reason) +
			`","variant":"` + variant + `","metadata":{` + description + `"version":` + strconv.FormatInt(f.Version, 10) + rest
	}
	for _, o := range f.Outcomes() {
		x := f.Explained(o)
		axis := ""
		if x.Axis != "" {
			axis = `,"axis":"` + string(x.Axis) + `"`
		}
		e.fixed[o-flags.Disabled] = text(x, axis)
	}
	if f.State == flags.Rollout {
		for i := range e.bucketed {
			e.bucketed[i] = text(flags.Explanation{Value: i == 1, Reason: flags.ReasonSplit}, `,"bucket":`)
		}
	}
	return e
}

// append appends the flag's evaluation; registered tells whether the registry knows the tenant.
func (e *entry) append(b []byte, o flags.Outcome, registered bool) []byte {
	if bucket, ok := o.Bucket(); ok {
		value := 0
		if e.flag.Holds(o) {
			value = 1
		}
		b = append(b, e.bucketed[value]...)
		b = strconv.AppendInt(b, int64(bucket), 10)
	} else {
		b = append(b, e.fixed[o-flags.Disabled]...)
	}
	if !registered {
		b = append(b, unregistered...)
	}
	return append(b, "}}"...)
}

// unregistered marks in metadata that the tenant was evaluated from the request's context.
const unregistered = `,"tenantRegistered":false`
