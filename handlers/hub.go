package handlers

import (
	"net"
	"runtime"
	"slices"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/dezky/platform-api/flags"
)

// Bounds of event streams.
const (
	streamsMost  = 20_000           // open at once, the console's not counted
	streamBuffer = 16 << 10         // what the system holds for a reader that does not read, in bytes
	partMost     = 64 << 10         // what a stream is told at once, in bytes, but for its first event
	slowFor      = 30 * time.Second // how long a reader may take for that
	turnsMost    = 64               // turns of the hub in pingEvery, so that not all streams are pinged at once
	yieldEvery   = 32               // streams written to before requests get their turn
)

// ping is a comment: it says that a quiet stream lives, and finds out whether its reader does.
var ping = []byte(": ping\n\n")

// opening begins a stream: it shows that the stream is open, and has a reader that is cut off come back after
// a second instead of its own three or so.
var opening = []byte(": ping\nretry: 1000\n\n")

// streamKind is what a stream tells, and whom.
type streamKind int

const (
	consoleStream streamKind = iota
	eventStream
	ofrepStream
	streamKinds // how many there are
)

// streamNames are the kinds as the metrics name them.
var streamNames = [streamKinds]string{"console", "events", "ofrep"}

// stream is one reader of GET /events or of OFREP's stream.
type stream struct {
	kind   streamKind
	member bool      // is told of revisions alone
	tenant string    // of an OFREP stream: the slug of whom it is about
	token  string    // id of the API token by which it was opened, or ""
	until  time.Time // when the credential ends by itself; zero is never
	at     int64     // the revision up to which it was told

	conn  *net.TCPConn // what follows is of a stream of the hub
	raw   syscall.RawConn
	ended bool // the reader has gone, or was too slow
}

// hub owns the event streams over HTTP/1.1. One goroutine writes to all of them, so that a stream costs its
// connection and nothing else. It waits for no reader: what one does not take at once goes to a goroutine
// of its own, and the stream comes back when that is through.
type hub struct {
	live *flags.Live
	good func(*stream) bool // whether the credential still is
	quit <-chan struct{}
	turn time.Duration // between two of turnsMost turns
	most int64
	open [streamKinds]atomic.Int64 // streams by kind, those of other goroutines too
	in   chan *stream              // new ones, and those that come back

	// Of run alone:
	turns [turnsMost][]*stream // each stream is pinged in one turn
	now   int                  // whose turn it is
	put   int                  // the turn of the next stream
	slow  map[*stream]bool     // with a goroutine of their own
	done  int                  // writes since the last yield
	text  []byte               // what write writes
	n     int                  // how much of it was taken
	err   error
	write func(fd uintptr) bool
	read  func(fd uintptr) bool
}

func newHub(live *flags.Live, good func(*stream) bool, pings time.Duration, quit <-chan struct{}) *hub {
	h := &hub{live: live, good: good, quit: quit, turn: pings / turnsMost, most: streamsMost, in: make(chan *stream), slow: map[*stream]bool{}}
	// Both try once and never wait; made here once, they cost no allocation each.
	h.write = func(fd uintptr) bool {
		h.n, h.err = syscall.Write(int(fd), h.text)
		return true
	}
	h.read = func(fd uintptr) bool {
		var rest [64]byte
		h.n, h.err = syscall.Read(int(fd), rest[:])
		return true
	}
	return h
}

// admit counts a stream, and tells whether there is room for it.
func (h *hub) admit(kind streamKind) bool {
	if h.open[kind].Add(1); h.open[eventStream].Load()+h.open[ofrepStream].Load() > h.most {
		h.leave(kind)
		return false
	}
	return true
}

func (h *hub) leave(kind streamKind) { h.open[kind].Add(-1) }

// count returns how many streams are open.
func (h *hub) count() (n int) {
	for i := range h.open {
		n += int(h.open[i].Load())
	}
	return n
}

// give hands the hub a stream whose head was written.
func (h *hub) give(st *stream) {
	select {
	case h.in <- st:
	case <-h.quit:
		st.conn.Close()
		h.leave(st.kind)
	}
}

// run serves the streams until the server is to end them.
func (h *hub) run() {
	wake, end := h.live.Subscribe()
	defer end()
	tick := time.NewTicker(h.turn)
	defer tick.Stop()
	for {
		select {
		case <-wake:
			n := newNews(h.live)
			for i := range h.turns {
				h.each(i, func(st *stream) bool { return h.tell(st, n) })
			}
		case <-tick.C:
			h.now = (h.now + 1) % turnsMost
			h.each(h.now, h.ping)
		case st := <-h.in:
			delete(h.slow, st)
			if st.ended {
				h.end(st)
			} else if h.tell(st, newNews(h.live)) {
				h.keep(st)
			}
		case <-h.quit:
			for i := range h.turns {
				h.each(i, func(st *stream) bool { h.end(st); return false })
			}
			for st := range h.slow {
				h.end(st)
			}
			return
		}
	}
}

// keep puts a stream in the turns, which so have about as many each.
func (h *hub) keep(st *stream) {
	h.turns[h.put] = append(h.turns[h.put], st)
	h.put = (h.put + 1) % turnsMost
}

// each serves the streams of a turn; those that do not stay are taken out.
func (h *hub) each(turn int, stays func(*stream) bool) {
	h.turns[turn] = slices.DeleteFunc(h.turns[turn], func(st *stream) bool {
		if h.done++; h.done%yieldEvery == 0 {
			runtime.Gosched() // else a change to many streams would hold requests up
		}
		return !stays(st)
	})
}

// end closes a stream.
func (h *hub) end(st *stream) {
	st.conn.Close()
	h.leave(st.kind)
}

// tell sends a stream what it was not told, and says whether it stays with the hub.
func (h *hub) tell(st *stream, n *news) bool {
	for {
		text, to, last := n.next(st)
		if len(text) == 0 {
			st.at = to
		} else if !h.send(st, text, to) {
			return false
		}
		if last {
			return true
		}
	}
}

// ping finds out whether the reader is there.
func (h *hub) ping(st *stream) bool {
	// An end of file, or an error other than that there is nothing to read. What it says is not heard.
	if err := st.raw.Read(h.read); err != nil || h.n == 0 && h.err == nil || h.err != nil && !transient(h.err) {
		h.end(st)
		return false
	}
	return h.send(st, ping, st.at)
}

// transient tells whether a system call would have had to wait.
func transient(err error) bool { return err == syscall.EAGAIN || err == syscall.EINTR }

// send writes text, which brings a stream to a revision, and says whether the stream stays with the hub.
func (h *hub) send(st *stream, text []byte, to int64) bool {
	if !h.good(st) {
		h.end(st)
		return false
	}
	h.text, h.n, h.err = text, 0, nil
	err := st.raw.Write(h.write)
	h.text = nil
	if err != nil || h.err != nil && !transient(h.err) {
		h.end(st)
		return false
	}
	if taken := max(0, h.n); taken < len(text) {
		h.slow[st] = true
		go h.finish(st, text[taken:], to)
		return false
	}
	st.at = to
	return true
}

// finish waits for a slow reader, within bounds, and hands the stream back.
func (h *hub) finish(st *stream, rest []byte, to int64) {
	st.conn.SetWriteDeadline(time.Now().Add(slowFor)) // where it fails, so does Write
	if _, err := st.conn.Write(rest); err != nil {
		st.ended = true
	}
	st.conn.SetWriteDeadline(time.Time{})
	st.at = to
	select {
	case h.in <- st:
	case <-h.quit: // run closes it
	}
}

// stillGood tells whether a stream's credential has neither ended nor been revoked.
func (a *app) stillGood(st *stream) bool {
	return (st.until.IsZero() || a.now().Before(st.until)) && (st.token == "" || a.tokens.Good(st.token))
}
