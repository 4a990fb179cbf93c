package handlers

import (
	"cmp"
	"fmt"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/dezky/platform-api/flags"
	"github.com/dezky/platform-api/templates"
)

// lifePage is how many steps of a flag's life the table has on a page. The chart always has all of it.
const lifePage = 100

// flagLife is a flag's page of its state and reach over time, also of one that was deleted.
func (a *app) flagLife(w http.ResponseWriter, r *http.Request, v visit) error {
	key := r.PathValue("key")
	steps, err := a.db.Life(r.Context(), key, v.env)
	if err != nil {
		return err
	}
	page := templates.FlagLife{Chrome: a.chrome(v, "flags", key+", its life"), Key: key, Exists: steps[0].Flag != nil,
		Reach: steps[0].Reach, Total: len(v.snapshot.Tenants()), Chart: lifeChart(steps, a.now())}
	if f := steps[0].Flag; f != nil {
		page.State = stateOf(f)
	}
	rows := steps
	if before, err := strconv.ParseInt(r.URL.Query().Get("before"), 10, 64); err == nil {
		i := slices.IndexFunc(steps, func(s flags.LifeStep) bool { return s.At.UnixMilli() < before })
		if i < 0 {
			i = len(steps)
		}
		rows, page.Newest = steps[i:], address("/operator/flags/"+key+"/life", "env", a.withEnv(v))+"#changes"
	}
	if len(rows) > lifePage {
		rows = rows[:lifePage]
		page.Older = address("/operator/flags/"+key+"/life", "env", a.withEnv(v), "before", strconv.FormatInt(rows[lifePage-1].At.UnixMilli(), 10)) + "#changes"
	}
	for _, s := range rows {
		page.Rows = append(page.Rows, a.lifeRow(s))
	}
	return a.html(w, http.StatusOK, page)
}

// lifeRow is a step in words.
func (a *app) lifeRow(s flags.LifeStep) templates.LifeRow {
	row := templates.LifeRow{When: a.time(s.At), Exactly: s.At.UTC().Format("2006-01-02 15:04:05.999"), Reach: s.Reach, Total: s.Total, Gained: max(0, s.Reach-s.Before), Lost: max(0, s.Before-s.Reach),
		State: templates.State{Name: "gone", Word: "Deleted"}}
	if s.Flag != nil {
		row.State = stateOf(s.Flag)
	}
	for _, e := range s.Entries {
		h := a.historyEntry(e)
		h.Link = "/operator/audit/" + strconv.FormatInt(e.ID, 10)
		row.Entries = append(row.Entries, h)
	}
	moved := func(m flags.Moved, one, many string) {
		if m.Count == 0 {
			return
		}
		if m.Count > 1 {
			one = strconv.Itoa(m.Count) + many
		}
		out := templates.LifeMoved{Text: one, More: m.Count - len(m.Slugs)}
		for _, slug := range m.Slugs {
			out.Tenants = append(out.Tenants, templates.Choice{Label: slug, Value: address("/operator/audit", "tenant", slug)})
		}
		row.Moved = append(row.Moved, out)
	}
	moved(s.Came, "A tenant that has it was created", " tenants that have it were created")
	moved(s.Went, "A tenant that had it was removed", " tenants that had it were removed")
	return row
}

// The chart's own units, which stretch to the room that it has. What is finer is not drawn.
const (
	lifeWidth  = 1000
	lifeHeight = 200
	bandHeight = 24
	markWidth  = 14 // of a mark, which stands for all changes in it
	markTells  = 4  // how many of them it tells
)

// lifeChart draws steps, newest first, from the first to now.
func lifeChart(steps []flags.LifeStep, now time.Time) templates.LifeChart {
	first, last := steps[len(steps)-1].At, steps[0].At
	if now.After(last) {
		last = now
	}
	most := 1
	for _, s := range steps {
		most = max(most, s.Reach)
	}
	span := max(last.Sub(first), time.Millisecond)
	c := templates.LifeChart{Most: most, Width: lifeWidth, Height: lifeHeight, BandHeight: bandHeight, Patterns: []templates.LifeBand{
		{State: templates.State{Name: "off", Word: "Off"}}, {State: templates.State{Name: "on", Word: "On"}},
		{State: templates.State{Name: "targeted", Word: "Targeted"}}, {State: templates.State{Name: "rollout", Word: "Rollout, as high as its percent"}}}}
	for i := range c.Patterns {
		c.Patterns[i].Width = 40
		c.Patterns[i].Fill(50, bandHeight)
	}
	for _, part := range []time.Duration{0, span / 2, span} {
		c.Times = append(c.Times, lifeTime(first.Add(part), span))
	}
	x := func(at time.Time) int { return int(float64(at.Sub(first)) / float64(span) * lifeWidth) }
	y := func(reach int) int { return lifeHeight - reach*lifeHeight/most }
	line := thinLine{}
	var mark *templates.LifeMark
	var begin, left int // where the mark's changes begin; how many it has no room for
	endMark := func() {
		if left > 0 {
			mark.Title += "\nand " + strconv.Itoa(left) + " more"
		}
	}
	for _, s := range slices.Backward(steps) {
		at := x(s.At)
		line.step(at, y(s.Reach))
		c.Bands = appendBand(c.Bands, s, at)
		if len(s.Entries) == 0 {
			continue
		}
		if mark == nil || at-begin > markWidth {
			endMark()
			c.Marks = append(c.Marks, templates.LifeMark{})
			mark, begin, left = &c.Marks[len(c.Marks)-1], at, 0
		}
		mark.X, mark.Y = at, y(s.Reach) // of the last one
		for _, e := range s.Entries {
			mark.Kill = mark.Kill || e.Action == flags.Killed
			if mark.Count++; mark.Count > markTells {
				left++
				continue
			}
			if mark.Title != "" {
				mark.Title += "\n"
			}
			mark.Title += lifeTold(s, e)
		}
	}
	endMark()
	line.step(lifeWidth, y(steps[0].Reach))
	c.Line = line.String()
	for i := range c.Bands {
		end := lifeWidth
		if i+1 < len(c.Bands) {
			end = c.Bands[i+1].X
		}
		b := &c.Bands[i]
		b.Width = max(1, end-b.X)
		b.Fill(b.State.Pct, bandHeight)
	}
	c.Summary = fmt.Sprintf("Reach from %s to %s: at most %s, now %d. The table below has every change.", exactly(first), exactly(last), plural(most, "tenant"), steps[0].Reach)
	return c
}

// lifeTime is a time under the chart, as fine as the chart's span wants it.
func lifeTime(at time.Time, span time.Duration) string {
	form := "2 Jan 2006"
	switch {
	case span < time.Hour:
		form = "15:04:05"
	case span < 4*24*time.Hour:
		form = "2 Jan 15:04"
	}
	return at.UTC().Format(form)
}

// lifeTold is one change in a line, with who and why.
func lifeTold(s flags.LifeStep, e flags.Entry) string {
	var what []string
	for _, d := range diffs(e) {
		switch {
		case len(d.Added)+len(d.Gone) > 0:
			what = append(what, d.Field)
		case d.From == "":
			what = append(what, d.Field+" "+d.To)
		case d.Field != "description":
			what = append(what, d.Field+" "+d.From+" → "+d.To)
		default:
			what = append(what, d.Field)
		}
	}
	word := map[flags.Action]string{flags.Created: "created it", flags.Deleted: "deleted it", flags.Killed: "used the kill switch",
		flags.Restored: "restored an earlier version", flags.Flipped: "changed the plan or partner of tenants"}[e.Action]
	text := exactly(s.At) + ", " + e.Actor + " " + cmp.Or(word, "changed it")
	if len(what) > 0 && e.Action != flags.Deleted {
		text += ": " + strings.Join(what, ", ")
	}
	if e.Note != "" && e.Action != flags.Flipped {
		text += " (" + e.Note + ")"
	}
	return fmt.Sprintf("%s. Reach %d → %d", text, s.Before, s.Reach)
}

// appendBand begins another band where the state is another. Of states within one unit the last one is drawn.
func appendBand(bands []templates.LifeBand, s flags.LifeStep, x int) []templates.LifeBand {
	state := templates.State{Name: "gone", Word: "Deleted"}
	if s.Flag != nil {
		state = stateOf(s.Flag)
	}
	n := len(bands)
	if n > 0 && bands[n-1].State.Word == state.Word {
		return bands
	}
	band := templates.LifeBand{X: x, State: state, Title: state.Word + " from " + exactly(s.At)}
	if n > 0 && bands[n-1].X == x {
		bands[n-1] = band
		return bands
	}
	return append(bands, band)
}

// thinLine is a line of steps of which no more is drawn than shows: where it enters a unit, its bounds there, and
// where it leaves.
type thinLine struct {
	path           strings.Builder
	begun          bool
	x, y, low, top int
}

func (l *thinLine) step(x, y int) {
	switch {
	case !l.begun:
		fmt.Fprintf(&l.path, "M%d %d", x, y)
		l.begun, l.x, l.low, l.top = true, x, y, y
	case x > l.x:
		l.end()
		fmt.Fprintf(&l.path, "H%d", x)
		l.x, l.low, l.top = x, min(l.y, y), max(l.y, y)
	default:
		l.low, l.top = min(l.low, y), max(l.top, y)
	}
	l.y = y
}

// end draws what is in a unit.
func (l *thinLine) end() {
	if l.low != l.y {
		fmt.Fprintf(&l.path, "V%d", l.low)
	}
	if l.top != l.y {
		fmt.Fprintf(&l.path, "V%d", l.top)
	}
	fmt.Fprintf(&l.path, "V%d", l.y)
}

func (l *thinLine) String() string {
	l.end()
	return l.path.String()
}
