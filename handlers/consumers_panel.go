package handlers

import (
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/dezky/platform-api/db"
	"github.com/dezky/platform-api/flags"
	"github.com/dezky/platform-api/templates"
)

const (
	consumersNamed = 3                // how many of those that lack a change are named
	quietFor       = 15 * time.Minute // who did not ask for so long before a change may well be idle
	watchedFor     = 10 * time.Minute // how long after a change the panel asks each second who has it
)

// arrival says at how many consumers the last of a flag's versions, the newest first, has arrived. A registry
// change that flips the flag does not count: it concerns who asks about its tenants, not all, and a nightly
// import would hide whether a kill has arrived.
func (a *app) arrival(key string, entries []flags.Entry) templates.FlagConsumers {
	now, all := a.now(), a.consuming()
	out := templates.FlagConsumers{Key: key}
	if len(entries) == 0 {
		return out
	}
	if len(all) == 0 {
		out.Count = "No service has evaluated here yet"
		return out
	}
	last := entries[0]
	live := "Live"
	if last.Action == flags.Killed {
		live = "Kill live"
	}
	lack := lacking(all, last.Revision)
	switch n := len(all); {
	case len(lack) > 0:
		out.Count = fmt.Sprintf("%s at %d of %s", live, n-len(lack), plural(n, "consumer"))
	case n == 1:
		out.Count = live + " at the only consumer"
	case n == 2:
		out.Count = live + " at both consumers"
	default:
		out.Count = fmt.Sprintf("%s at all %d consumers", live, n)
	}
	if len(lack) == 0 {
		return out
	}
	out.Behind, out.Every = whoLacks(lack, last.At, now), "10s"
	if now.Sub(last.At) < watchedFor {
		out.Every = "1s"
	}
	return out
}

// whoLacks tells in words who has not received a change: first those that evaluated until it was made, then
// those that had been quiet for a while, the last seen first.
func whoLacks(lack []received, changed, now time.Time) string {
	var late []string
	var quiet []received
	for _, c := range lack {
		if changed.Sub(c.at) > quietFor {
			quiet = append(quiet, c)
		} else {
			late = append(late, c.name)
		}
	}
	slices.SortStableFunc(quiet, func(a, b received) int { return b.at.Compare(a.at) })
	var out []string
	named := min(len(late), consumersNamed)
	if len(late) > 0 {
		who := enumerated(late[:named], len(late)-named)
		is := "is"
		if len(late) > 1 {
			is = "are"
		}
		if d := now.Sub(changed); d < time.Minute {
			out = append(out, "waiting for "+who)
		} else {
			out = append(out, fmt.Sprintf("%s %s %s behind", who, is, lasting(d)))
		}
	}
	for i, c := range quiet {
		if named == consumersNamed {
			out = append(out, fmt.Sprintf("%d more not seen for a while", len(quiet)-i))
			break
		}
		named++
		out = append(out, c.name+" not seen since "+clockOf(c.at, now))
	}
	return strings.Join(out, "; ")
}

// enumerated joins names, and counts those that are not among them.
func enumerated(names []string, more int) string {
	last := names[len(names)-1]
	if more > 0 {
		last = fmt.Sprintf("%d more", more)
	} else {
		names = names[:len(names)-1]
	}
	if len(names) == 0 {
		return last
	}
	return strings.Join(names, ", ") + " and " + last
}

// clockOf is a time of today without its day.
func clockOf(t, now time.Time) string {
	t, now = t.UTC(), now.UTC()
	if t.YearDay() == now.YearDay() && t.Year() == now.Year() {
		return t.Format("15:04") + " UTC"
	}
	return t.Format("2 Jan 15:04") + " UTC"
}

// flagConsumers is the line of a panel that says where the flag's last change has arrived. It asks by itself
// while there is something to wait for.
func (a *app) flagConsumers(w http.ResponseWriter, r *http.Request, v visit) error {
	w.(*recorder).quiet = true
	f, err := a.flag(v.snapshot, r)
	if errors.Is(err, flags.ErrNotFound) { // deleted while its panel is open, which says so
		return a.html(w, http.StatusOK, templates.FlagConsumers{})
	}
	if err != nil {
		return err
	}
	entries, err := a.flagEntries(r, db.HistoryFilter{Flag: f.Key, Versions: true, Limit: 1})
	if err != nil {
		return err
	}
	line := a.arrival(f.Key, entries)
	line.Asked = true
	return a.html(w, http.StatusOK, line)
}
