package handlers

import (
	"net/http"
	"time"

	"github.com/dezky/platform-api/db"
	"github.com/dezky/platform-api/flags"
)

// broughtBack is what POST /restore did, or would do.
type broughtBack struct {
	At        time.Time        `json:"at"`
	DryRun    bool             `json:"dryRun"`
	Restored  []restoredFlag   `json:"restored"`
	Unchanged []string         `json:"unchanged"`
	Left      []string         `json:"left"`
	Refused   []refusedRestore `json:"refused"`
}

// restoredFlag is a flag's new version.
type restoredFlag struct {
	Key     string                      `json:"key"`
	Action  flags.Action                `json:"action"` // restored, or deleted where there was none
	Version int64                       `json:"version"`
	Changes flags.Changes               `json:"changes"`
	Impact  map[string]flags.EnvOutcome `json:"impact"`
}

// refusedRestore is a flag that can't come back.
type refusedRestore struct {
	Key    string             `json:"key"`
	Errors []flags.FieldError `json:"errors"`
}

// restore makes flags what they were at a time.
func (a *app) restore(w http.ResponseWriter, r *http.Request, c call) error {
	back, err := flags.DecodeBringBack(c.body)
	if err != nil {
		return err
	}
	done, err := a.db.RestoreAt(r.Context(), c.principal.By(), db.RestoreAt{BringBack: back})
	if err != nil {
		return err
	}
	out := broughtBack{At: done.At, DryRun: back.DryRun, Restored: []restoredFlag{}, Unchanged: list(done.Unchanged), Left: list(done.Left), Refused: []refusedRestore{}}
	for _, e := range done.Entries {
		out.Restored = append(out.Restored, restoredFlag{e.Name, e.Action, e.Version, e.Changes, e.Impact})
	}
	for _, d := range done.Refused {
		out.Refused = append(out.Refused, refusedRestore{d.Key, d.Refused})
	}
	return writeJSON(w, http.StatusOK, out)
}
