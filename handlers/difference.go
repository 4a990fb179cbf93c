package handlers

import (
	"encoding/csv"
	"io"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/dezky/platform-api/flags"
)

// Bounds of ?limit= on the turns of a difference.
const (
	turnsDefault = 100
	turnsLimit   = 1000
)

// differenceTime is a time in the query of a difference; "now" and nothing are the zero time.
func differenceTime(r *http.Request, name string, bad *flags.Invalid) time.Time {
	text := r.URL.Query().Get(name)
	if text == "" || text == "now" {
		return time.Time{}
	}
	at, err := time.Parse(time.RFC3339, text)
	if err != nil || at.IsZero() {
		bad.Errors = append(bad.Errors, flags.FieldError{Field: name, Message: `must be now or a time by RFC 3339, such as "2026-01-31T14:02:00Z"`})
	}
	return at
}

// changeFilter reads which turns are wanted out of a query.
func changeFilter(r *http.Request) flags.DifferenceFilter {
	q := r.URL.Query()
	text := func(name string) string { return strings.TrimSpace(q.Get(name)) }
	return flags.DifferenceFilter{Flag: text("flag"), Tenant: text("tenant"), Partner: text("partner"), Plan: text("plan"),
		Environment: text("env"), Change: flags.Direction(text("change"))}
}

// differenceOf finds the difference that a request to the API asks for.
func (a *app) differenceOf(r *http.Request, bad *flags.Invalid) (*flags.Difference, error) {
	q := r.URL.Query()
	from, to, filter := differenceTime(r, "from", bad), differenceTime(r, "to", bad), changeFilter(r)
	if q.Get("from") == "" {
		bad.Errors = append(bad.Errors, flags.FieldError{Field: "from", Message: "is required"})
	}
	if filter.Plan != "" && !slices.Contains(flags.Plans, filter.Plan) {
		bad.Errors = append(bad.Errors, flags.FieldError{Field: "plan", Message: "must be one of " + strings.Join(flags.Plans, ", ")})
	}
	if filter.Change != "" && filter.Change != flags.Gained && filter.Change != flags.Lost {
		bad.Errors = append(bad.Errors, flags.FieldError{Field: "change", Message: "must be gained or lost"})
	}
	if now := a.db.Current(); filter.Environment != "" && !now.HasEnvironment(filter.Environment) {
		bad.Errors = append(bad.Errors, unknownEnvironment(now, filter.Environment))
		bad.Errors[len(bad.Errors)-1].Field = "env"
	}
	if len(bad.Errors) > 0 {
		return nil, bad
	}
	return a.db.Difference(r.Context(), from, to, filter)
}

// differenceAnswer is a difference in JSON: all counts, and a page of the turns.
type differenceAnswer struct {
	From         time.Time `json:"from"`
	To           time.Time `json:"to"`
	Environments []string  `json:"environments"`
	flags.Turned
	Flags []flagTurns `json:"flags"`
	Turns []turn      `json:"turns"`
}

type flagTurns struct {
	Key string `json:"key"`
	flags.Turned
	Environments map[string]flags.Turned `json:"environments"`
}

type turn struct {
	Flag         string          `json:"flag"`
	Tenant       string          `json:"tenant"`
	TenantID     string          `json:"tenantId"`
	Plan         string          `json:"plan"`
	PartnerSlug  *string         `json:"partnerSlug"`
	Change       flags.Direction `json:"change"`
	Environments []string        `json:"environments"`
	New          bool            `json:"new,omitempty"`
	Removed      bool            `json:"removed,omitempty"`
}

// historyDifference tells who gained and who lost which flag between two moments.
func (a *app) historyDifference(w http.ResponseWriter, r *http.Request, _ call) error {
	var bad flags.Invalid
	q := r.URL.Query()
	limit := number(r, "limit", turnsDefault, turnsLimit, &bad)
	asTable := r.Header.Get("Accept") == tableType
	switch format := q.Get("format"); format {
	case "csv":
		asTable = true
	case "json":
		asTable = false
	case "":
	default:
		bad.Errors = append(bad.Errors, flags.FieldError{Field: "format", Message: "must be json or csv"})
	}
	if asTable && (q.Get("limit") != "" || q.Get("after") != "") {
		bad.Errors = append(bad.Errors, flags.FieldError{Field: "format", Message: "csv has all turns: neither limit nor after goes with it"})
	}
	after := place(q.Get("after"), &bad)
	d, err := a.differenceOf(r, &bad)
	if err != nil {
		return err
	}
	if asTable {
		a.differenceTable(w, r, d)
		return nil
	}
	out := differenceAnswer{d.From.At, d.To.At, d.Environments, d.Turned, []flagTurns{}, []turn{}}
	for _, f := range d.Flags {
		by := make(map[string]flags.Turned, len(d.Environments))
		for i, environment := range d.Environments {
			by[environment] = f.ByEnvironment[i]
		}
		out.Flags = append(out.Flags, flagTurns{f.Key, f.Turned, by})
	}
	turns, more := turnsPage(d, after, limit)
	for _, t := range turns {
		x := turn{t.Key, t.Tenant.Slug, t.Tenant.ID, t.Tenant.Plan, nil, t.Change, t.Environments, t.New, t.Removed}
		if t.Tenant.PartnerSlug != "" {
			x.PartnerSlug = &t.Tenant.PartnerSlug
		}
		out.Turns = append(out.Turns, x)
	}
	if more {
		// The next page is of the same moments, whatever "now" is by then.
		pinned := r.Clone(r.Context())
		q.Set("from", d.From.At.Format(time.RFC3339Nano))
		q.Set("to", d.To.At.Format(time.RFC3339Nano))
		pinned.URL.RawQuery = q.Encode()
		linkNext(w, pinned, "after", placeText(turns[limit-1].Place()))
	}
	return writeJSON(w, http.StatusOK, out)
}

// turnsPage returns at most limit turns after a place, and whether there are more.
func turnsPage(d *flags.Difference, after flags.Place, limit int) (turns []flags.Turn, more bool) {
	for t := range d.Turns(after) {
		if len(turns) == limit {
			return turns, true
		}
		turns = append(turns, t)
	}
	return turns, false
}

// placeText is a place in a query: none of its parts has a slash.
func placeText(p flags.Place) string {
	return strings.Join([]string{p.Key, p.Slug, p.ID, string(p.Change)}, "/")
}

// place reads a place out of a query; nothing is the place before all.
func place(text string, bad *flags.Invalid) flags.Place {
	if text == "" {
		return flags.Place{}
	}
	parts := strings.Split(text, "/")
	if len(parts) != 4 {
		bad.Errors = append(bad.Errors, flags.FieldError{Field: "after", Message: "must be as the link to the next page has it"})
		return flags.Place{}
	}
	return flags.Place{Key: parts[0], Slug: parts[1], ID: parts[2], Change: flags.Direction(parts[3])}
}

// differenceTable answers with all turns as CSV, written as they are found.
func (a *app) differenceTable(w http.ResponseWriter, r *http.Request, d *flags.Difference) {
	h := w.Header()
	h.Set("Content-Type", tableType+"; charset=utf-8")
	h.Set("Content-Disposition", `attachment; filename="difference.csv"`)
	h.Set("Cache-Control", "no-store")
	a.cutShort(r, writeTurns(w, d, http.NewResponseController(w)))
}

func writeTurns(w io.Writer, d *flags.Difference, control *http.ResponseController) error {
	out := csv.NewWriter(w)
	out.UseCRLF = true
	err := out.Write([]string{"flag", "tenant", "tenantId", "name", "plan", "partner", "change", "environments", "tenantIs"})
	n := 0
	for t := range d.Turns(flags.Place{}) {
		row := []string{t.Key, t.Tenant.Slug, t.Tenant.ID, t.Tenant.Name, t.Tenant.Plan, t.Tenant.PartnerSlug, string(t.Change),
			strings.Join(t.Environments, " "), tenantIs(t)}
		for i := range row {
			row[i] = csvCell(row[i])
		}
		if err != nil {
			break
		}
		err = out.Write(row)
		if n++; err == nil && n%csvPage == 0 {
			err = control.SetWriteDeadline(time.Now().Add(30 * time.Second))
		}
	}
	if out.Flush(); err == nil {
		err = out.Error()
	}
	return err
}

// tenantIs says what became of a turn's tenant between the moments, "" where it was there at both.
func tenantIs(t flags.Turn) string {
	switch {
	case t.New:
		return "new"
	case t.Removed:
		return "removed"
	}
	return ""
}
