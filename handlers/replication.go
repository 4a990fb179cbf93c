package handlers

import (
	"context"
	"fmt"
	"net/http"
	"time"

	"github.com/dezky/platform-api/flags"
	"github.com/dezky/platform-api/replica"
	"github.com/dezky/platform-api/templates"
)

// unusable says what a database that can't be used means.
func unusable(reason string) string {
	return "the database can't be used: " + reason + "; flags are evaluated as they were, and nothing can be changed"
}

// databaseWord is how the database is, in a word.
func (a *app) databaseWord() string {
	if a.db.Trouble() != "" {
		return "unusable"
	}
	return "ok"
}

// alarm is what everybody in the console should know now, or "".
func (a *app) alarm() string {
	if reason := a.db.Trouble(); reason != "" {
		return sentence(unusable(reason))
	}
	if s := a.replica.Status(); s.Late() {
		return sentence(behind(s))
	}
	if c := a.chain.last.Load(); c != nil && c.Wrong != "" {
		return sentence("the log is not as it was written: " + c.Wrong)
	}
	return ""
}

// behind says what the replica lacks.
func behind(s replica.Status) string {
	lag := lasting(s.Lag)
	switch {
	case s.State == replica.Taken:
		return "another server writes to the replica, so changes exist on this machine only"
	case s.State == replica.Diverged:
		return "the replica has changes that this server lacks, so changes exist on this machine only"
	case s.Pending == 1:
		return "1 change not yet in the replica, " + lag
	case s.Pending > 0:
		return fmt.Sprintf("%d changes not yet in the replica, %s", s.Pending, lag)
	case s.Pending == 0:
		return "every change is in the replica, which has not answered for " + lag
	}
	return "it is not known what the replica has; it has not answered for " + lag
}

// replicaFacts are those of the status page.
func (a *app) replicaFacts() []templates.StatusFact {
	s := a.replica.Status()
	if s.State == replica.Off {
		return []templates.StatusFact{{Name: "Replication", Value: "not configured", Note: "changes exist on this machine only"}}
	}
	value, note := "every change is in the replica", ""
	if s.State != replica.OK || s.Pending != 0 {
		value, note = behind(s), s.LastError
	}
	facts := []templates.StatusFact{{Name: "Replication", Value: string(s.State) + ": " + value, Note: note}, {Name: "Replica", Value: s.Replica}}
	if s.Holder != "" {
		holder := templates.StatusFact{Name: "Written to by", Value: s.Holder}
		if !s.HolderSince.IsZero() {
			holder.Note = "since " + clock(s.HolderSince)
		}
		facts = append(facts, holder)
	}
	last := templates.StatusFact{Name: "Last success", Value: "none since the start"}
	if !s.LastSuccess.IsZero() {
		last = templates.StatusFact{Name: "Last success", Value: ago(s.LastSuccess, a.now()), Note: clock(s.LastSuccess)}
	}
	facts = append(facts, last, templates.StatusFact{Name: "Position", Value: fmt.Sprint(s.Position), Note: "the last transaction in the replica"})
	if s.Bytes > 0 {
		facts = append(facts, templates.StatusFact{Name: "Replica’s size", Value: size(s.Bytes)})
	}
	if !s.Snapshot.IsZero() {
		facts = append(facts, templates.StatusFact{Name: "Newest snapshot", Value: ago(s.Snapshot, a.now()), Note: clock(s.Snapshot)})
	}
	drill := templates.StatusFact{Name: "Last drill", Value: "none since the start", Note: "the replica is restored and checked once a day"}
	switch d := s.Drill; {
	case d.Error != "":
		drill = templates.StatusFact{Name: "Last drill", Value: "failed " + ago(d.At, a.now()), Note: d.Error}
	case !d.At.IsZero():
		drill = templates.StatusFact{Name: "Last drill", Value: "passed " + ago(d.At, a.now()),
			Note: fmt.Sprintf("revision %d, %s, %s, restored and checked in %s", d.Contents.Revision, plural(int(d.Contents.Flags), "flag"),
				plural(int(d.Contents.Tenants), "tenant"), d.Took.Round(time.Millisecond))}
	}
	return append(facts, drill)
}

// databaseFact says whether the database can be used.
func (a *app) databaseFact() templates.StatusFact {
	if reason := a.db.Trouble(); reason != "" {
		return templates.StatusFact{Name: "Database", Value: "can’t be used", Note: reason}
	}
	return templates.StatusFact{Name: "Database", Value: "ok"}
}

func clock(t time.Time) string { return t.UTC().Format("2 Jan 2006 15:04:05") + " UTC" }

// drillWithin is how long somebody waits for a drill.
const drillWithin = 50 * time.Second

// runDrill tries the replica now; the page says what came of it.
func (a *app) runDrill(w http.ResponseWriter, r *http.Request, v visit) error {
	if a.replica == nil {
		return fmt.Errorf("replica: %w", flags.ErrNotFound)
	}
	ctx, cancel := context.WithTimeout(r.Context(), drillWithin)
	defer cancel()
	a.replica.RunDrill(ctx)
	http.Redirect(w, r, "/operator/status", http.StatusSeeOther)
	return nil
}
