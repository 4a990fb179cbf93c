package handlers

import (
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"runtime"
	"strconv"
	"strings"
	"time"

	"github.com/dezky/platform-api/templates"
)

// statusPage says how the appliance is.
func (a *app) statusPage(w http.ResponseWriter, r *http.Request, v visit) error {
	return a.showStatus(w, r, v, http.StatusOK, a.freezeForm(v))
}

func (a *app) showStatus(w http.ResponseWriter, r *http.Request, v visit, status int, freeze *templates.FreezeForm) error {
	about, err := a.db.About(r.Context())
	tokens, tokensErr := a.db.Tokens(r.Context())
	if err := errors.Join(err, tokensErr); err != nil && a.db.Trouble() == "" { // trouble is told below
		return err
	}
	now, usable := a.now(), 0
	for _, t := range tokens {
		if t.Usable(now) {
			usable++
		}
	}
	s := v.snapshot
	fact := func(name, value string) templates.StatusFact { return templates.StatusFact{Name: name, Value: value} }
	count := func(name string, n int) templates.StatusFact { return fact(name, strconv.Itoa(n)) }
	page := templates.StatusPage{Chrome: a.chrome(v, "status", "Status"), Groups: []templates.StatusGroup{
		{Name: "Program", Facts: []templates.StatusFact{
			fact("Version", a.server.opts.Version), fact("Commit", a.server.opts.Commit), fact("Go", strings.TrimPrefix(runtime.Version(), "go")),
			{Name: "Up for", Value: lasting(now.Sub(a.started)), Note: "since " + a.started.UTC().Format("2 Jan 2006 15:04") + " UTC"}}},
		{Name: "Replica", Facts: a.replicaFacts()},
		{Name: "Data", Facts: []templates.StatusFact{
			a.databaseFact(), fact("Revision", strconv.FormatInt(s.Revision(), 10)), fact("Epoch", s.Epoch()),
			{Name: "Size", Value: size(about.Bytes), Note: "and " + size(about.WAL) + " in its write-ahead log"},
			fact("Schema", strconv.FormatInt(about.Schema, 10)), fact("SQLite", about.SQLite)}},
		{Name: "Registry", Facts: []templates.StatusFact{
			count("Flags", len(s.Flags())), count("Tenants", len(s.Tenants())), count("Partners", len(s.Partners())),
			{Name: "Environments", Value: strings.Join(s.Environments(), ", "), Note: "the default is " + a.environment}}},
		{Name: "Log", Facts: a.chainFacts(about.Entries)},
		{Name: "Access", Facts: append(a.accessFacts(), count("Active API tokens", usable), count("Event streams now", a.hub.count()))},
	}}
	page.Consumers = a.consumerRows(s.Revision())
	page.Drill, page.Freezing = a.replica != nil && v.operator(), freeze
	var text strings.Builder
	fmt.Fprintf(&text, "%s, %s\n", Service, now.UTC().Format(time.RFC3339))
	for _, g := range page.Groups {
		for _, f := range g.Facts {
			fmt.Fprintf(&text, "%s: %s", f.Name, f.Value)
			if f.Note != "" {
				fmt.Fprintf(&text, " (%s)", f.Note)
			}
			text.WriteByte('\n')
		}
	}
	for _, c := range page.Consumers {
		fmt.Fprintf(&text, "Consumer: %s (%s), evaluated %s at revision %d", c.Name, c.Kind, clock(c.Evaluated.At), c.Revision)
		if c.Behind != "" {
			fmt.Fprintf(&text, ", %s", c.Behind)
		}
		text.WriteByte('\n')
	}
	if f := v.snapshot.Frozen(now); f != nil {
		fmt.Fprintf(&text, "Freeze: changes are frozen until %s by %s: %s\n", clock(f.Until), f.By, f.Reason)
	}
	page.Text = text.String()
	return a.html(w, status, page)
}

// accessFacts say how people and services get in, and how the identity providers are.
func (a *app) accessFacts() []templates.StatusFact {
	signIn := templates.StatusFact{Name: "Sign-in", Value: "none", Note: "no identity provider, and not a loopback address"}
	switch {
	case a.signIn != nil:
		groups := a.signIn.Groups()
		signIn = templates.StatusFact{Name: "Sign-in", Value: "single sign-on", Note: "members of " + groups.Operator + " change flags"}
		if groups.Read != "" {
			signIn.Note += ", of " + groups.Read + " look at them"
		}
	case a.links != nil:
		signIn = templates.StatusFact{Name: "Sign-in", Value: "one-time link", Note: "for operator@localhost, on loopback addresses alone"}
	}
	facts := []templates.StatusFact{signIn}
	for _, p := range a.openID.Providers() {
		fact := templates.StatusFact{Name: "Identity provider", Value: p.Issuer}
		switch {
		case p.Trouble != nil && p.Trouble.Away:
			fact.Note = "away since " + p.Trouble.Since.UTC().Format("2 Jan 15:04") + " UTC: " + p.Trouble.Error()
		case p.Trouble != nil:
			fact.Note = "can’t be used: " + p.Trouble.Error()
		case p.Asked.IsZero():
			fact.Note = "not asked yet"
		default:
			fact.Note = "keys from " + ago(p.Asked, a.now())
		}
		facts = append(facts, fact)
	}
	return facts
}

// consumerRows are the consumers, with what they lack of a revision.
func (a *app) consumerRows(revision int64) []templates.ConsumerRow {
	var rows []templates.ConsumerRow
	for _, c := range a.consuming() {
		row := templates.ConsumerRow{Name: c.name, Kind: "API token", Evaluated: a.time(c.at), Revision: c.revision}
		if c.issuer != "" {
			row.Kind = "client of " + c.issuer
		}
		if lacks := revision - c.revision; lacks > 0 {
			row.Behind = plural(int(lacks), "revision") + " behind"
		}
		rows = append(rows, row)
	}
	return rows
}

// lasting is a duration as people read it: its two largest units.
func lasting(d time.Duration) string {
	days, hours, minutes := int(d/(24*time.Hour)), int(d/time.Hour)%24, int(d/time.Minute)%60
	switch {
	case days > 0:
		return fmt.Sprintf("%d d %d h", days, hours)
	case hours > 0:
		return fmt.Sprintf("%d h %d min", hours, minutes)
	case minutes > 0:
		return fmt.Sprintf("%d min", minutes)
	}
	return fmt.Sprintf("%d s", int(d/time.Second))
}

// size is a number of bytes as people read it.
func size(n int64) string {
	switch {
	case n >= 1<<30:
		return fmt.Sprintf("%.1f GiB", float64(n)/(1<<30))
	case n >= 1<<20:
		return fmt.Sprintf("%.1f MiB", float64(n)/(1<<20))
	case n >= 1<<10:
		return fmt.Sprintf("%d KiB", (n+1<<9)>>10)
	}
	return plural(int(n), "byte")
}

// preferencesLast is how long a browser keeps a person's preferences.
const preferencesLast = 365 * 24 * time.Hour

// settingsPage is how a person likes the console.
func (a *app) settingsPage(w http.ResponseWriter, r *http.Request, v visit) error {
	page := templates.SettingsPage{Chrome: a.chrome(v, "settings", "Settings"), Saved: r.URL.Query().Get("saved") != ""}
	choice := func(value, label, now string) templates.Choice {
		return templates.Choice{Value: value, Label: label, Checked: value == now}
	}
	page.Themes = []templates.Choice{choice("", "As the system", v.prefs.Theme), choice("light", "Light", v.prefs.Theme), choice("dark", "Dark", v.prefs.Theme)}
	page.Densities = []templates.Choice{choice("", "Comfortable", v.prefs.Density), choice("compact", "Compact", v.prefs.Density)}
	env := v.prefs.Env
	if !v.snapshot.HasEnvironment(env) {
		env = ""
	}
	page.Choices = []templates.Choice{choice("", "The server’s default ("+a.environment+")", env)}
	for _, name := range v.snapshot.Environments() {
		page.Choices = append(page.Choices, choice(name, name, env))
	}
	return a.html(w, http.StatusOK, page)
}

// saveSettings keeps them in a cookie, which only the server reads. What is as usual is not kept.
func (a *app) saveSettings(w http.ResponseWriter, r *http.Request, v visit) error {
	if err := r.ParseForm(); err != nil {
		return fmt.Errorf("form: %w", err)
	}
	q := url.Values{}
	if theme := r.PostFormValue("theme"); theme == "light" || theme == "dark" {
		q.Set("theme", theme)
	}
	if r.PostFormValue("density") == "compact" {
		q.Set("density", "compact")
	}
	if env := r.PostFormValue("env"); v.snapshot.HasEnvironment(env) {
		q.Set("env", env)
	}
	if r.PostFormValue("keys") == "" {
		q.Set("keys", "off")
	}
	cookie := &http.Cookie{Name: preferencesCookie, Value: q.Encode(), Path: "/", MaxAge: int(preferencesLast / time.Second),
		HttpOnly: true, Secure: a.secure, SameSite: http.SameSiteLaxMode}
	if len(q) == 0 {
		cookie.MaxAge = -1
	}
	http.SetCookie(w, cookie)
	http.Redirect(w, r, "/operator/settings?saved=1", http.StatusSeeOther)
	return nil
}
