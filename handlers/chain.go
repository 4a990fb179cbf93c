package handlers

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"github.com/dezky/platform-api/db"
	"github.com/dezky/platform-api/flags"
	"github.com/dezky/platform-api/templates"
)

// chainEvery is how often the log is checked by itself. A check reads all of it: less would not see an old
// entry change.
const chainEvery = 24 * time.Hour

// chain is what is known of the log's chain.
type chain struct {
	turn sync.Mutex // of the one check at a time
	head string     // of the last check that found it whole; it must stay an entry's
	last atomic.Pointer[checkedChain]
}

// checkedChain is what came of the last check.
type checkedChain struct {
	db.Chain
	failed string // why it could not be checked, or ""
}

func (c *checkedChain) whole() bool { return c.failed == "" && c.Wrong == "" }

// WatchLog checks the log's chain now and once a day until ctx ends. It belongs after Start.
func (s *Server) WatchLog(ctx context.Context) {
	a := s.app.Load()
	tick := time.NewTicker(chainEvery)
	defer tick.Stop()
	for {
		a.chain.turn.Lock()
		a.checkChain(ctx)
		a.chain.turn.Unlock()
		select {
		case <-tick.C:
		case <-ctx.Done():
			return
		}
	}
}

// checkChain checks the log now. It is for who has the turn; nothing comes of it where ctx ends first.
func (a *app) checkChain(ctx context.Context) {
	found, err := a.db.CheckChain(ctx, a.chain.head)
	if ctx.Err() != nil {
		return
	}
	c := &checkedChain{Chain: found}
	log := a.server.opts.Log
	switch {
	case err != nil:
		c.failed = err.Error()
		log.Error("log not checked", "error", err.Error())
	case found.Wrong != "":
		log.Error("log broken", "wrong", found.Wrong, "whole", found.Entries)
	default:
		a.chain.head = found.Head
		log.Info("log whole", "entries", found.Entries, "head", found.Head, "durationMs", found.Took.Milliseconds())
	}
	a.chain.last.Store(c)
}

// chainWithin is how long somebody waits for a check.
const chainWithin = 50 * time.Second

// runChainCheck checks the log now; the page says what came of it. The server's own check can take minutes where
// the disk is slow: it is not waited for.
func (a *app) runChainCheck(w http.ResponseWriter, r *http.Request, v visit) error {
	if !a.chain.turn.TryLock() {
		return &refusal{http.StatusConflict, "conflict", "the log is being checked already; Status will say what came of it"}
	}
	defer a.chain.turn.Unlock()
	ctx, cancel := context.WithTimeout(r.Context(), chainWithin)
	defer cancel()
	a.checkChain(ctx)
	if ctx.Err() != nil {
		return &refusal{http.StatusServiceUnavailable, "unavailable",
			fmt.Sprintf("the log was not read within %d seconds; the server checks it by itself after each start and once a day", chainWithin/time.Second)}
	}
	http.Redirect(w, r, "/operator/status", http.StatusSeeOther)
	return nil
}

// chainFacts are those of the status page about the log.
func (a *app) chainFacts(entries int64) []templates.StatusFact {
	facts := []templates.StatusFact{{Name: "Log entries", Value: strconv.FormatInt(entries, 10), Note: "all that were ever made; none is removed"}}
	c := a.chain.last.Load()
	if c == nil {
		return append(facts, templates.StatusFact{Name: "Chain", Value: "not checked since the start"})
	}
	value, note := "whole", fmt.Sprintf("each of %d follows the one before", c.Entries)
	switch {
	case c.failed != "":
		value, note = "could not be checked", c.failed
	case c.Wrong != "":
		value, note = "broken", c.Wrong
	}
	facts = append(facts, templates.StatusFact{Name: "Chain", Value: value, Note: note},
		templates.StatusFact{Name: "Last check", Value: ago(c.At, a.now()), Note: clock(c.At) + ", in " + c.Took.Round(time.Millisecond).String() + "; once a day"})
	if c.whole() {
		facts = append(facts, templates.StatusFact{Name: "Size of the log", Value: size(c.Bytes), Note: "of what its entries say"},
			templates.StatusFact{Name: "Last hash", Value: c.Head})
	}
	return facts
}

// linesPage is how many entries an export reads at once.
const linesPage = 1000

// historyLines answers with all entries of the log under a filter after one, oldest first, one a line, with its
// hash and the one before. It is written as it is read.
func (a *app) historyLines(w http.ResponseWriter, r *http.Request, filter db.HistoryFilter, after int64) error {
	filter.Limit = linesPage
	lines, err := a.db.Lines(r.Context(), filter, after) // before the answer begins, so that an error can still be told
	if err != nil {
		return err
	}
	h := w.Header()
	h.Set("Content-Type", linesType)
	h.Set("Cache-Control", "no-store")
	enc := json.NewEncoder(w)
	enc.SetEscapeHTML(false)
	control := http.NewResponseController(w)
	for err == nil && len(lines) > 0 {
		for i := range lines {
			if err = enc.Encode(&lines[i]); err != nil {
				break
			}
		}
		if err != nil || len(lines) < linesPage {
			break
		}
		if err = control.SetWriteDeadline(time.Now().Add(30 * time.Second)); err == nil {
			lines, err = a.db.Lines(r.Context(), filter, lines[len(lines)-1].ID)
		}
	}
	a.cutShort(r, err)
	return nil
}

// cutShort ends an answer that has begun and can't be told to its end: a file that only looks whole would be worse
// than none.
func (a *app) cutShort(r *http.Request, err error) {
	if err != nil && r.Context().Err() == nil {
		a.server.opts.Log.Error("audit log cut short", "error", err.Error())
		panic(http.ErrAbortHandler)
	}
}

// auditLines is the log under the console's filter as a file.
func (a *app) auditLines(w http.ResponseWriter, r *http.Request, v visit) error {
	_, filter := auditFilter(r)
	w.Header().Set("Content-Disposition", `attachment; filename="audit.jsonl"`)
	return a.historyLines(w, r, filter, 0)
}

// wantsLines tells whether the log is asked for as lines, and after which entry.
func wantsLines(r *http.Request) (lines bool, after int64, err error) {
	q := r.URL.Query()
	var bad flags.Invalid
	fail := func(field, message string) {
		bad.Errors = append(bad.Errors, flags.FieldError{Field: field, Message: message})
	}
	switch format := q.Get("format"); format {
	case "ndjson":
		lines = true
	case "":
		lines = r.Header.Get("Accept") == linesType
	case "json":
	default:
		fail("format", "must be json or ndjson")
	}
	if text := q.Get("after"); text != "" {
		if after, err = strconv.ParseInt(text, 10, 64); err != nil || after < 0 {
			fail("after", "must be the id of an entry")
		} else if !lines {
			fail("after", "goes with format ndjson alone")
		}
	}
	if lines && q.Get("limit") != "" {
		fail("limit", "does not go with format ndjson, which has all entries")
	}
	if len(bad.Errors) > 0 {
		return false, 0, &bad
	}
	return lines, after, nil
}
