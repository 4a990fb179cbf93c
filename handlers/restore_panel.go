package handlers

import (
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/dezky/platform-api/db"
	"github.com/dezky/platform-api/flags"
	"github.com/dezky/platform-api/templates"
)

// restoreAddress is the page of a time.
func restoreAddress(at time.Time) string {
	return address("/operator/restore", "at", at.UTC().Format(time.RFC3339Nano))
}

// bringing is what a form of the page says, with what it is about.
type bringing struct {
	at     time.Time
	all    []flags.Comeback
	ticked map[string]bool
	seen   map[string]int64 // versions by key
	ack    int
}

// chosen are the differences that are ticked.
func (b *bringing) chosen() []flags.Comeback {
	var out []flags.Comeback
	for _, d := range b.all {
		if b.ticked[d.Key] && d.Refused == nil {
			out = append(out, d)
		}
	}
	return out
}

// tickAll ticks what can come back: all, or those that are no flags made since.
func (b *bringing) tickAll(made bool) {
	b.ticked = map[string]bool{}
	for _, d := range b.all {
		b.ticked[d.Key] = d.Refused == nil && (made || d.Then != nil)
	}
}

// compare finds how flags differ from a time.
func (a *app) compare(r *http.Request, v visit, at time.Time) (*bringing, error) {
	then, err := a.db.FlagsAt(r.Context(), at)
	if err != nil {
		return nil, err
	}
	return &bringing{at: at, all: v.snapshot.Comebacks(then)}, nil
}

// readRestore reads the page's form.
func (a *app) readRestore(r *http.Request, v visit) (*bringing, error) {
	at, err := readMoment(r.PostFormValue("at"))
	if err != nil {
		return nil, err
	}
	b, err := a.compare(r, v, at)
	if err != nil {
		return nil, err
	}
	b.ticked, b.seen = map[string]bool{}, map[string]int64{}
	b.ack, _ = strconv.Atoi(r.PostFormValue("ack"))
	for _, key := range r.PostForm["key"] {
		b.ticked[key] = true
	}
	for _, seen := range r.PostForm["seen"] {
		key, text, _ := strings.Cut(seen, ":")
		version, err := strconv.ParseInt(text, 10, 64)
		if err != nil {
			return nil, &refusal{http.StatusUnprocessableEntity, "invalid", "the versions of the flags are missing"}
		}
		b.seen[key] = version
	}
	return b, nil
}

// restorePage is the form for a time, and with a time how flags differ from it.
func (a *app) restorePage(w http.ResponseWriter, r *http.Request, v visit) error {
	q := r.URL.Query()
	var list *templates.RestoreList
	if q.Get("at") != "" {
		at, err := readMoment(q.Get("at"))
		var b *bringing
		if err == nil {
			b, err = a.compare(r, v, at)
		}
		var invalid *flags.Invalid
		if errors.As(err, &invalid) {
			return a.showRestore(w, v, http.StatusUnprocessableEntity, q.Get("at"), invalid, nil, nil)
		}
		if err != nil {
			return err
		}
		b.tickAll(false)
		list = a.restoreList(v, b)
		if entry, err := strconv.ParseInt(q.Get("done"), 10, 64); err == nil {
			if list.Done, err = a.restoreDone(r, entry, list.At); err != nil {
				return err
			}
			list.Focus = "done"
		}
	}
	return a.showRestore(w, v, http.StatusOK, q.Get("at"), nil, list, nil)
}

// showRestore answers with the page.
func (a *app) showRestore(w http.ResponseWriter, v visit, status int, at string, bad *flags.Invalid, list *templates.RestoreList, ask templates.View) error {
	now := a.now().UTC()
	page := templates.RestorePage{Chrome: a.chrome(v, "audit", "Bring back"), Step: "1", Latest: now.Format("2006-01-02T15:04:05"), List: list, Ask: ask}
	if moment, err := readMoment(at); err == nil {
		if page.At = moment.Format(formTime); moment.Nanosecond() != 0 {
			page.Step = "0.001"
		}
	}
	if bad != nil {
		page.Error = sentence(bad.Error())
	}
	for _, p := range []struct {
		label string
		ago   time.Duration
	}{{"15 min ago", 15 * time.Minute}, {"1 h ago", time.Hour}, {"1 day ago", 24 * time.Hour}} {
		page.Presets = append(page.Presets, templates.Choice{Label: p.label, Value: restoreAddress(now.Add(-p.ago).Truncate(time.Second))})
	}
	return a.html(w, status, page)
}

// restoreNamed is how many tenants each list of the page names.
const restoreNamed = 50

// restoreList is the page's list.
func (a *app) restoreList(v visit, b *bringing) *templates.RestoreList {
	at := b.at.Truncate(time.Millisecond)
	l := &templates.RestoreList{At: at.Format(time.RFC3339Nano), When: at.Format("2 Jan 2006 15:04:05.999") + " UTC", Env: v.env}
	for _, d := range b.all {
		e := flags.Entry{Kind: flags.KindFlag, Name: d.Key, Action: flags.ChangeAction(d.Now, d.Then), Changes: flags.DiffFlag(d.Now, d.Then)}
		row := templates.RestoreRow{HistoryEntry: a.historyEntry(e), Ticked: b.ticked[d.Key] && d.Refused == nil}
		switch {
		case d.Now == nil:
			row.What, row.Link = "was deleted since, and comes back", ""
		case d.Then == nil:
			row.What = "was made since, and would be deleted"
		default:
			row.What = plural(len(row.Diffs), "field") + " " + verb(len(row.Diffs), "differ")
		}
		if d.Now != nil {
			row.Version = d.Now.Version
		}
		if d.Refused != nil {
			row.Why = sentence(d.Why())
		} else {
			impact, _ := v.snapshot.Impact(d.Now, d.Then, restoreNamed)
			row.Reach = reachOf(v, impact)
		}
		l.Rows = append(l.Rows, row)
	}
	l.Tally = a.restoreTally(v, b)
	return l
}

// reachOf is an impact in words, by the environments in which tenants change; the one that is looked at comes first.
func reachOf(v visit, impact []flags.EnvImpact) []templates.ReachChange {
	var out []templates.ReachChange
	for i, env := range v.snapshot.Environments() {
		e := &impact[i]
		if e.Gained+e.Lost == 0 {
			continue
		}
		change := templates.ReachChange{Env: env, Gained: e.Gained, Lost: e.Lost, MoreGains: e.Gained - len(e.Gains), MoreLosses: e.Lost - len(e.Losses)}
		for _, t := range e.Gains {
			change.Gains = append(change.Gains, t.Name)
		}
		for _, t := range e.Losses {
			change.Losses = append(change.Losses, t.Name)
		}
		out = append(out, change)
	}
	slices.SortStableFunc(out, func(x, y templates.ReachChange) int {
		switch v.env {
		case x.Env:
			return -1
		case y.Env:
			return 1
		}
		return 0
	})
	return out
}

// restoreTally says what the ticked flags would do together.
func (a *app) restoreTally(v visit, b *bringing) templates.RestoreTally {
	chosen := b.chosen()
	impact, _ := v.snapshot.ImpactOfAll(chosen)
	t := templates.RestoreTally{Flags: len(chosen), Of: len(b.all), Reach: reachOf(v, impact), Label: "Bring back"}
	t.Frozen = v.snapshot.Frozen(a.now()) != nil && slices.ContainsFunc(chosen, func(d flags.Comeback) bool { return !flags.IsKill(d.Now, d.Then) })
	if len(chosen) == 0 {
		return t
	}
	here := impact[slices.Index(v.snapshot.Environments(), v.env)]
	var moves []string
	if here.Lost > 0 {
		moves = append(moves, plural(here.Lost, "tenant")+" "+verb(here.Lost, "lose"))
	}
	if here.Gained > 0 {
		moves = append(moves, plural(here.Gained, "tenant")+" "+verb(here.Gained, "gain"))
	}
	if len(moves) == 0 && len(t.Reach) > 0 {
		moves = []string{"changes other environments"}
	} else if len(moves) == 0 {
		moves = []string{"no tenant changes"}
	}
	t.Label += " " + plural(len(chosen), "flag") + " · " + strings.Join(moves, ", ")
	return t
}

// verb is a verb in the form that a number asks for.
func verb(n int, plural string) string {
	if n == 1 {
		return plural + "s"
	}
	return plural
}

// restoreDone tells of flags that one change made; nil where the entry is of no such change.
func (a *app) restoreDone(r *http.Request, entry int64, at string) (*templates.RestoreDone, error) {
	made, err := a.db.FlagsOfRevision(r.Context(), entry)
	if err != nil || len(made) == 0 {
		return nil, err
	}
	says := plural(len(made), "flag") + " changed together by " + made[0].Actor
	if made[0].Note != "" {
		says += ": " + made[0].Note
	}
	return &templates.RestoreDone{Says: says + ".", Entry: made[len(made)-1].ID, At: at}, nil
}

// previewRestore counts what is ticked anew, or ticks all or none.
func (a *app) previewRestore(w http.ResponseWriter, r *http.Request, v visit) error {
	b, err := a.readRestore(r, v)
	if err != nil {
		return err
	}
	tick := r.PostFormValue("tick")
	switch tick {
	case "all":
		b.tickAll(true)
	case "none":
		b.ticked = nil
	}
	if fromHtmx(r) && tick == "" {
		t := a.restoreTally(v, b)
		return a.swaps(w, http.StatusOK, templates.Swaps{Main: t, Parts: []templates.Part{{Target: "#back-go", Swap: "textContent", Text: t.Label}}})
	}
	list := a.restoreList(v, b)
	list.Focus = tick
	return a.answerRestore(w, r, v, http.StatusOK, list)
}

// answerRestore answers with the list in the way that the request can use.
func (a *app) answerRestore(w http.ResponseWriter, r *http.Request, v visit, status int, list *templates.RestoreList, parts ...templates.Part) error {
	if fromHtmx(r) {
		return a.swaps(w, status, templates.Swaps{Main: *list, Parts: append(parts, templates.Part{Target: "#dialogs", Swap: "innerHTML"})})
	}
	return a.showRestore(w, v, status, list.At, nil, list, nil)
}

// restoreFlags brings the ticked flags back, or says why not.
func (a *app) restoreFlags(w http.ResponseWriter, r *http.Request, v visit) error {
	b, err := a.readRestore(r, v)
	if err != nil {
		return err
	}
	if len(b.ticked) == 0 {
		return &refusal{http.StatusUnprocessableEntity, "invalid", "no flag is ticked"}
	}
	chosen := b.chosen()
	if _, gaining := v.snapshot.ImpactOfAll(chosen); gaining > a.confirmGain && b.ack != gaining && !b.stale() {
		return a.confirmRestore(w, r, v, b, gaining)
	}
	back := db.RestoreAt{Seen: b.seen}
	back.At = b.at
	for key := range b.ticked {
		back.Keys = append(back.Keys, key)
	}
	slices.Sort(back.Keys)
	done, err := a.db.RestoreAt(r.Context(), v.principal.By(), back)
	var conflict *flags.Conflict
	if errors.As(err, &conflict) {
		if v.snapshot = a.db.Current(); b.refresh(r, a, v) != nil {
			return err
		}
		list := a.restoreList(v, b)
		list.Focus, list.Changed = "changed", sentence(conflict.Error())+" The list is as it is now."
		return a.answerRestore(w, r, v, http.StatusConflict, list)
	}
	if err != nil {
		return err
	}
	if !fromHtmx(r) {
		http.Redirect(w, r, address("/operator/restore", "at", b.at.Format(time.RFC3339Nano), "done", strconv.FormatInt(done.Last, 10)), http.StatusSeeOther)
		return nil
	}
	v.snapshot = a.db.Current()
	moved := a.restoreTally(v, b)
	if err := b.refresh(r, a, v); err != nil {
		return err
	}
	b.tickAll(false)
	list := a.restoreList(v, b)
	list.Focus = "done"
	if list.Done, err = a.restoreDone(r, done.Last, list.At); err != nil {
		return err
	}
	toast := templates.Toast{Strong: "Nothing was changed.", Text: "The flags are like that already."}
	if list.Done != nil {
		undo := list.Done.Undo()
		_, effect, _ := strings.Cut(moved.Label, " · ")
		toast = templates.Toast{Icon: "undo", Strong: plural(len(done.Entries), "flag") + " came back.", Text: sentence(effect), All: &undo}
	}
	return a.answerRestore(w, r, v, http.StatusOK, list, templates.Part{Target: "#toasts", Swap: "beforeend", View: toast})
}

// stale tells whether a flag that is ticked is not at the version that was seen.
func (b *bringing) stale() bool {
	return slices.ContainsFunc(b.chosen(), func(d flags.Comeback) bool {
		version, seen := b.seen[d.Key]
		return seen && (d.Now == nil) != (version == 0) || seen && d.Now != nil && d.Now.Version != version
	})
}

// refresh compares anew with what is now.
func (b *bringing) refresh(r *http.Request, a *app, v visit) error {
	next, err := a.compare(r, v, b.at)
	if err == nil {
		b.all = next.all
	}
	return err
}

// confirmRestore asks before many tenants gain flags; the answer carries the number that was asked about.
func (a *app) confirmRestore(w http.ResponseWriter, r *http.Request, v visit, b *bringing, gaining int) error {
	c := templates.ConfirmRestore{Ack: gaining, Flags: len(b.chosen()), Tally: a.restoreTally(v, b)}
	if fromHtmx(r) {
		return a.swaps(w, http.StatusPreconditionRequired, templates.Swaps{Parts: []templates.Part{{Target: "#dialogs", Swap: "innerHTML", View: c}}})
	}
	c.List = a.restoreList(v, b)
	return a.showRestore(w, v, http.StatusPreconditionRequired, c.List.At, nil, c.List, c)
}

// undoAll takes back all flags of one change.
func (a *app) undoAll(w http.ResponseWriter, r *http.Request, v visit) error {
	entry, err := strconv.ParseInt(r.PostFormValue("entry"), 10, 64)
	if err != nil {
		return &refusal{http.StatusUnprocessableEntity, "invalid", "there is nothing to undo"}
	}
	done, err := a.db.UndoRevision(r.Context(), v.principal.By(), entry)
	if err != nil {
		return err
	}
	at := r.PostFormValue("at")
	if _, err := readMoment(at); err != nil {
		at = done.At.Add(-time.Millisecond).Format(time.RFC3339Nano)
	}
	to := address("/operator/restore", "at", at, "done", strconv.FormatInt(done.Last, 10))
	if !fromHtmx(r) {
		http.Redirect(w, r, to, http.StatusSeeOther)
		return nil
	}
	w.Header().Set("HX-Redirect", to)
	w.WriteHeader(http.StatusNoContent)
	return nil
}

// waysBack are the ways back from an entry of the log about a flag.
func (a *app) waysBack(r *http.Request, e flags.Entry) (before string, undo *templates.UndoAll, err error) {
	if e.Kind != flags.KindFlag || e.Version == 0 {
		return "", nil, nil
	}
	made, err := a.db.FlagsOfRevision(r.Context(), e.ID)
	if err == nil && len(made) > 1 {
		undo = &templates.UndoAll{Entry: e.ID, Label: fmt.Sprintf("Undo all %d flags of this change", len(made))}
	}
	return restoreAddress(e.At.Add(-time.Millisecond)), undo, err
}
