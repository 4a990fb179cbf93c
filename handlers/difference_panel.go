package handlers

import (
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/dezky/platform-api/flags"
	"github.com/dezky/platform-api/templates"
)

// Bounds of one page of a difference.
const (
	turnsShown     = 100
	flagsTurnShown = 100 // flags with their counts
)

// consoleTime reads a time out of the address of a page, as readMoment does; what is none is no time.
func consoleTime(text string) (value string, at time.Time) {
	at, err := readMoment(text)
	if err != nil {
		return "", time.Time{}
	}
	return at.Format(formTime), at
}

// presets are ranges up to now that are asked for often.
func presets(now time.Time, link func(from string) string) []templates.Link {
	now = now.UTC()
	var out []templates.Link
	for _, p := range []struct {
		word string
		from time.Time
	}{{"Last hour", now.Add(-time.Hour)}, {"Today", now.Truncate(24 * time.Hour)}, {"Last 24 hours", now.AddDate(0, 0, -1)}, {"Last 7 days", now.AddDate(0, 0, -7)}} {
		out = append(out, templates.Link{Word: p.word, Href: link(p.from.Truncate(time.Second).Format(formTime))})
	}
	return out
}

func differenceAddress(path string, f templates.DifferenceFilter, more ...string) string {
	return address(path, append([]string{"from", f.From, "to", f.To, "flag", f.Flag, "tenant", f.Tenant, "partner", f.Partner,
		"plan", f.Plan, "env", f.Env, "change", f.Change}, more...)...)
}

// differenceAsked reads what is to be compared out of an address, the last 24 hours where it says no begin. A plan,
// an environment or a direction that is unknown is none.
func (a *app) differenceAsked(r *http.Request, v visit) (templates.DifferenceFilter, flags.DifferenceFilter, time.Time, time.Time) {
	g := changeFilter(r)
	if !slices.Contains(flags.Plans, g.Plan) {
		g.Plan = ""
	}
	if !v.snapshot.HasEnvironment(g.Environment) {
		g.Environment = ""
	}
	if g.Change != flags.Gained && g.Change != flags.Lost {
		g.Change = ""
	}
	f := templates.DifferenceFilter{Flag: g.Flag, Tenant: g.Tenant, Partner: g.Partner, Plan: g.Plan, Env: g.Environment, Change: string(g.Change)}
	var from, to time.Time
	f.From, from = consoleTime(r.URL.Query().Get("from"))
	f.To, to = consoleTime(r.URL.Query().Get("to"))
	return f, g, from, to
}

// notBefore is a time, or when the log began where that is later.
func notBefore(at, began time.Time) time.Time {
	if at.Before(began) {
		return began
	}
	return at
}

// differencePage tells who gained and who lost which flag between two moments.
func (a *app) differencePage(w http.ResponseWriter, r *http.Request, v visit) error {
	f, filter, from, to := a.differenceAsked(r, v)
	began, err := a.db.Began(r.Context())
	if err != nil {
		return err
	}
	if from.IsZero() {
		usual := a.now()
		if !to.IsZero() {
			usual = to
		}
		from = notBefore(usual.AddDate(0, 0, -1).UTC(), began)
		f.From = from.Format(formTime)
	}
	page := templates.DifferencePage{Chrome: a.chrome(v, "audit", "What flipped for whom"), Filter: f,
		Log: auditAddress("/operator/audit", templates.AuditFilter{Flag: f.Flag, Tenant: f.Tenant, Partner: f.Partner, From: f.From, To: f.To}, 0)}
	if (f != templates.DifferenceFilter{From: f.From, To: f.To}) {
		page.Clear = differenceAddress("/operator/audit/difference", templates.DifferenceFilter{From: f.From, To: f.To})
	}
	page.Presets = presets(a.now(), func(text string) string {
		g := f
		_, at := consoleTime(text)
		g.From, g.To = notBefore(at, began).UTC().Format(formTime), ""
		return differenceAddress("/operator/audit/difference", g)
	})
	page.Plans, page.Environments = choicesOf(flags.Plans, "any", f.Plan), choicesOf(v.snapshot.Environments(), "any", f.Env)
	page.Changes = choicesOf([]string{string(flags.Gained), string(flags.Lost)}, "gained or lost", f.Change)

	d, err := a.db.Difference(r.Context(), from, to, filter)
	if invalid := (*flags.Invalid)(nil); errors.As(err, &invalid) {
		page.Errors, page.Says = fieldErrors(invalid.Errors), "choose other moments."
		return a.html(w, http.StatusUnprocessableEntity, page)
	}
	if err != nil {
		return err
	}
	var bad flags.Invalid
	after := place(r.URL.Query().Get("after"), &bad) // a bad one is the first page
	a.showDifference(&page, v, d, after)
	return a.html(w, http.StatusOK, page)
}

// choicesOf are values to choose from, and none of them.
func choicesOf(values []string, none, chosen string) []templates.Choice {
	out := []templates.Choice{{Label: none, Checked: chosen == ""}}
	for _, value := range values {
		out = append(out, templates.Choice{Value: value, Label: value, Checked: value == chosen})
	}
	return out
}

// showDifference puts a page of a difference into the view.
func (a *app) showDifference(page *templates.DifferencePage, v visit, d *flags.Difference, after flags.Place) {
	f := page.Filter
	page.Compared, page.FromAt, page.ToAt = true, exactly(d.From.At), exactly(d.To.At)
	page.Says = fmt.Sprintf("%s: %d gained, %d lost", plural(len(d.Flags), "flag"), d.Gained, d.Lost)
	counts := map[string]flags.Turned{}
	for _, c := range d.Flags {
		counts[c.Key] = c.Turned
		if len(page.Flags) < flagsTurnShown {
			one := f
			one.Flag = c.Key
			page.Flags = append(page.Flags, templates.FlagTurned{Key: c.Key, Link: differenceAddress("/operator/audit/difference", one), Gained: c.Gained, Lost: c.Lost})
		}
	}
	page.MoreFlags = len(d.Flags) - len(page.Flags)
	turns, more := turnsPage(d, after, turnsShown)
	page.Shown, page.Total = len(turns), d.Gained+d.Lost
	for _, t := range turns {
		if n := len(page.Groups); n == 0 || page.Groups[n-1].Key != t.Key {
			g := templates.TurnGroup{FlagTurned: templates.FlagTurned{Key: t.Key, Gained: counts[t.Key].Gained, Lost: counts[t.Key].Lost}}
			if v.snapshot.Flag(t.Key) != nil {
				g.Link = "/operator/flags/" + t.Key
			}
			page.Groups = append(page.Groups, g)
		}
		row := templates.TurnRow{Name: t.Tenant.Name, Slug: t.Tenant.Slug, Plan: t.Tenant.Plan, Partner: t.Tenant.PartnerSlug,
			Gained: t.Change == flags.Gained, Environments: strings.Join(t.Environments, ", "), Is: tenantIs(t)}
		if now := v.snapshot.Tenant(t.Tenant.Slug); now != nil && now.ID == t.Tenant.ID {
			row.Link = "/operator/tenants/" + t.Tenant.Slug
		}
		g := &page.Groups[len(page.Groups)-1]
		g.Rows = append(g.Rows, row)
	}
	if after != (flags.Place{}) {
		page.First = differenceAddress("/operator/audit/difference", f)
	}
	// Of the same moments, whatever now is by then.
	f.From, f.To = d.From.At.UTC().Format(formTime), d.To.At.UTC().Format(formTime)
	page.CSV = differenceAddress("/operator/audit/difference.csv", f)
	if more {
		page.Next = differenceAddress("/operator/audit/difference", f, "after", placeText(turns[len(turns)-1].Place()))
	}
}

// differenceCSV is the whole difference under the page's filter as a file.
func (a *app) differenceCSV(w http.ResponseWriter, r *http.Request, v visit) error {
	_, filter, from, to := a.differenceAsked(r, v)
	if from.IsZero() {
		return badQuery("from", "must be a time")
	}
	d, err := a.db.Difference(r.Context(), from, to, filter)
	if err != nil {
		return err
	}
	a.differenceTable(w, r, d)
	return nil
}
