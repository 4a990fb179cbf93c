package handlers

import (
	"encoding/csv"
	"encoding/json"
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

// auditMost is how many entries one page of the log shows.
const auditMost = 50

// Bounds of the log as CSV: the entries of one file, and those read at once.
const (
	csvMost = 100_000
	csvPage = 500
)

// actions are those that the log knows, as the filter offers them.
var actions = []flags.Action{flags.Created, flags.Updated, flags.Killed, flags.Deleted, flags.Restored, flags.Revoked, flags.Flipped, flags.Froze, flags.Thawed}

// auditFilter reads the log's filter out of an address. Unknown actions are ignored.
func auditFilter(r *http.Request) (templates.AuditFilter, db.HistoryFilter) {
	q := r.URL.Query()
	f := templates.AuditFilter{Flag: strings.TrimSpace(q.Get("flag")), Tenant: strings.TrimSpace(q.Get("tenant")),
		Partner: strings.TrimSpace(q.Get("partner")), Actor: strings.TrimSpace(q.Get("actor"))}
	if action := q.Get("action"); slices.Contains(actions, flags.Action(action)) {
		f.Action = action
	}
	before, err := strconv.ParseInt(q.Get("before"), 10, 64)
	if err != nil || before < 1 {
		before = 0
	}
	var from, to time.Time
	f.From, from = consoleTime(q.Get("from"))
	f.To, to = consoleTime(q.Get("to"))
	return f, db.HistoryFilter{From: from, To: to, Flag: f.Flag, Tenant: f.Tenant, Partner: f.Partner, Actor: f.Actor, Action: flags.Action(f.Action), Before: before}
}

func auditAddress(path string, f templates.AuditFilter, before int64) string {
	from := ""
	if before > 0 {
		from = strconv.FormatInt(before, 10)
	}
	return address(path, "flag", f.Flag, "tenant", f.Tenant, "partner", f.Partner, "actor", f.Actor, "action", f.Action, "from", f.From, "to", f.To, "before", from)
}

// auditPage is the log, newest first.
func (a *app) auditPage(w http.ResponseWriter, r *http.Request, v visit) error {
	f, filter := auditFilter(r)
	filter.Limit = auditMost + 1
	entries, err := a.db.History(r.Context(), filter)
	if err != nil {
		return err
	}
	page := templates.AuditPage{Chrome: a.chrome(v, "audit", "Audit log"), Filter: f, CSV: auditAddress("/operator/audit.csv", f, 0), Lines: auditAddress("/operator/audit.jsonl", f, 0), Most: csvMost,
		Fresh: f == templates.AuditFilter{}}
	page.Presets = presets(a.now(), func(from string) string {
		g := f
		g.From, g.To = from, ""
		return auditAddress("/operator/audit", g, 0)
	})
	for _, action := range actions {
		page.Actions = append(page.Actions, templates.Choice{Value: string(action), Label: string(action), Checked: string(action) == f.Action})
	}
	if len(entries) > auditMost {
		entries = entries[:auditMost]
		page.Older = auditAddress("/operator/audit", f, entries[auditMost-1].ID)
	}
	if filter.Before > 0 {
		page.Newest = auditAddress("/operator/audit", f, 0)
	}
	for _, e := range entries {
		page.Entries = append(page.Entries, a.auditRow(v, e))
	}
	return a.html(w, http.StatusOK, page)
}

// auditRow is an entry in the list, with the way to the thing where it still exists, and back to a deleted flag.
func (a *app) auditRow(v visit, e flags.Entry) templates.AuditRow {
	row := templates.AuditRow{HistoryEntry: a.historyEntry(e), Self: "/operator/audit/" + strconv.FormatInt(e.ID, 10)}
	exists := true
	switch e.Kind {
	case flags.KindFlag:
		exists = v.snapshot.Flag(e.Name) != nil
		if !exists && e.Action == flags.Deleted && e.Version > 1 && v.operator() {
			row.Restore = e.Version - 1
		}
	case flags.KindTenant:
		exists = v.snapshot.Tenant(e.Name) != nil
	case flags.KindPartner:
		exists = v.snapshot.Partner(e.Name) != nil
	case flags.KindToken:
		if v.operator() {
			row.Link = "/operator/tokens"
		}
	}
	if !exists {
		row.Link = ""
	}
	return row
}

// auditEntry is one entry, whole.
func (a *app) auditEntry(w http.ResponseWriter, r *http.Request, v visit) error {
	id, err := strconv.ParseInt(r.PathValue("id"), 10, 64)
	if err != nil {
		return fmt.Errorf("log entry %q: %w", r.PathValue("id"), flags.ErrNotFound)
	}
	e, err := a.db.Entry(r.Context(), id)
	if err != nil {
		return err
	}
	page := templates.AuditEntryPage{Chrome: a.chrome(v, "audit", "Entry "+strconv.FormatInt(id, 10)), Entry: a.auditRow(v, e), Action: string(e.Action),
		Subject: e.Subject, Issuer: e.Issuer, Client: e.Client}
	justBefore := e.At.UTC().Add(-time.Millisecond)
	earlier, err := a.db.History(r.Context(), db.HistoryFilter{To: justBefore, Limit: 1})
	if err != nil {
		return err
	}
	if len(earlier) > 0 {
		page.Since = address("/operator/audit/difference", "from", justBefore.Format(formTime))
		page.Change = address("/operator/audit/difference", "from", justBefore.Format(formTime), "to", e.At.UTC().Format(formTime))
	}
	if v.operator() {
		if page.Before, page.Undo, err = a.waysBack(r, e); err != nil {
			return err
		}
	}
	for _, field := range orderedFields(e.Changes) {
		page.Fields = append(page.Fields, auditField(field, e.Changes[field]))
	}
	reached := map[string]templates.ReachChange{}
	for _, change := range page.Entry.Reach {
		reached[change.Env] = change
	}
	for _, name := range sortedNames(e.Impact) {
		change, moved := reached[name]
		change.Env = name
		page.Reach = append(page.Reach, templates.AuditReach{ReachChange: change, Nobody: !moved})
	}
	return a.html(w, http.StatusOK, page)
}

// auditField is a changed field with its whole values.
func auditField(field string, c flags.FromTo) templates.AuditField {
	out := templates.AuditField{Name: fieldWord(field)}
	text := func(raw json.RawMessage) (string, bool) {
		if len(raw) == 0 || string(raw) == "null" {
			return "", false
		}
		if isList(raw) {
			var values []string
			if json.Unmarshal(raw, &values) != nil || len(values) == 0 {
				return "any", true
			}
			return strings.Join(values, ", "), true
		}
		return plainValue(field, raw), true
	}
	out.From, out.Had = text(c.From)
	out.To, out.Has = text(c.To)
	return out
}

// auditCSV is the log under the same filter as a file, newest first: at most csvMost entries, and those
// before an entry with ?before=. It is written as it is read.
func (a *app) auditCSV(w http.ResponseWriter, r *http.Request, v visit) error {
	_, filter := auditFilter(r)
	filter.Limit = csvPage
	entries, err := a.db.History(r.Context(), filter) // before the answer begins, so that an error can still be told
	if err != nil {
		return err
	}
	h := w.Header()
	h.Set("Content-Type", "text/csv; charset=utf-8")
	h.Set("Content-Disposition", `attachment; filename="audit.csv"`)
	h.Set("Cache-Control", "no-store")
	out := csv.NewWriter(w)
	head := []string{"id", "time", "revision", "actor", "kind", "name", "action", "version", "note", "changes", "via", "subject", "issuer", "client"}
	for _, env := range v.snapshot.Environments() {
		head = append(head, env+" gained", env+" lost")
	}
	control := http.NewResponseController(w)
	err = out.Write(head)
	for written := 0; err == nil && len(entries) > 0; {
		for _, e := range entries {
			if err = out.Write(csvRow(e, v.snapshot.Environments())); err != nil {
				break
			}
		}
		if written += len(entries); err != nil || written >= csvMost || len(entries) < csvPage {
			break
		}
		if err = control.SetWriteDeadline(time.Now().Add(30 * time.Second)); err != nil {
			break
		}
		filter.Before = entries[len(entries)-1].ID
		entries, err = a.db.History(r.Context(), filter)
	}
	if out.Flush(); err == nil {
		err = out.Error()
	}
	a.cutShort(r, err)
	return nil
}

func csvRow(e flags.Entry, environments []string) []string {
	changes, err := json.Marshal(e.Changes)
	if err != nil {
		panic(err) // it was read from JSON
	}
	version := ""
	if e.Version > 0 {
		version = strconv.FormatInt(e.Version, 10)
	}
	row := []string{strconv.FormatInt(e.ID, 10), e.At.UTC().Format(time.RFC3339), strconv.FormatInt(e.Revision, 10), e.Actor, string(e.Kind), e.Name,
		string(e.Action), version, e.Note, string(changes), string(e.Via), e.Subject, e.Issuer, e.Client}
	for _, env := range environments {
		gained, lost := "", ""
		if o, counted := e.Impact[env]; counted {
			gained, lost = strconv.Itoa(o.Gained), strconv.Itoa(o.Lost)
		}
		row = append(row, gained, lost)
	}
	for i := range row {
		row[i] = csvCell(row[i])
	}
	return row
}

// csvCell keeps a spreadsheet from taking a text for a formula (OWASP, CSV injection).
func csvCell(text string) string {
	if text != "" && strings.ContainsRune("=+-@\t\r", rune(text[0])) {
		return "'" + text
	}
	return text
}
