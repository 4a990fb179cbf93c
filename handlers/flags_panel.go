package handlers

import (
	"cmp"
	"encoding/json"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/dezky/platform-api/db"
	"github.com/dezky/platform-api/flags"
	"github.com/dezky/platform-api/templates"
)

// undoFor is how long a change can be undone in one press from the live strip.
const undoFor = 24 * time.Hour

// flipsShown is how many flips a panel's history tells beside the versions, which they must not push out.
const flipsShown = 5

// panelState is what a panel shows beside the flag itself.
type panelState struct {
	draft    *flags.Flag // nil: no draft
	base     int64       // the version that the draft began from
	note     string
	errors   map[string]string
	conflict *templates.Conflict
	focus    string
	say      string
	query    string
	tenant   string // to explain
	explain  string // its environment
	at       string // as of when
	all      bool   // name everyone in the impact
}

// panel is one flag to see and to change.
func (a *app) panel(r *http.Request, v visit, f *flags.Flag, st panelState) (*templates.FlagPanel, error) {
	entries, err := a.flagEntries(r, db.HistoryFilter{Flag: f.Key, Versions: true, Limit: recent})
	if err != nil {
		return nil, err
	}
	flips, err := a.flagEntries(r, db.HistoryFilter{Flag: f.Key, Action: flags.Flipped, Limit: flipsShown})
	if err != nil {
		return nil, err
	}
	entries = slices.DeleteFunc(entries, func(e flags.Entry) bool { return e.Version > f.Version })
	draft := f
	if st.draft != nil {
		draft = st.draft
	}
	if st.base == 0 {
		st.base = f.Version
	}
	preview := v.snapshot.Preview(f, draft, v.env, namedLimit(st.all))
	p := &templates.FlagPanel{Key: f.Key, Description: f.Description, Version: f.Version, Created: a.time(f.CreatedAt), Changed: a.time(f.UpdatedAt),
		By: "somebody", Operator: v.operator(), Clean: st.draft == nil || f.SameContent(draft), Errors: st.errors, Conflict: st.conflict,
		Facts: facts(f), Query: st.query, Focus: st.focus, Announce: st.say,
		History: templates.FlagHistory{Key: f.Key, Operator: v.operator(), Current: f.Version, Query: st.query}}
	all := slices.Concat(entries, flips)
	slices.SortFunc(all, func(a, b flags.Entry) int { return cmp.Compare(b.ID, a.ID) })
	for _, e := range all {
		h := a.historyEntry(e)
		h.Restorable = h.Restorable && e.Version != f.Version
		p.History.Entries = append(p.History.Entries, h)
	}
	p.Now = a.liveStrip(v, f, entries, st.focus)
	if len(entries) > 0 {
		p.By = entries[0].Actor
	}
	p.Impact = a.impactView(v, f, draft, preview, st.all)
	p.Form = a.form(v, f, draft, preview, st)
	p.Explain, err = a.explanation(r, v, draft, f, st.tenant, cmp.Or(st.explain, v.env), st.at)
	return p, err
}

func namedLimit(all bool) int {
	if all {
		return namedImpact
	}
	return namedFirst
}

// namedFirst is how many names a list of an impact shows at first.
const namedFirst = 14

// liveStrip is the head of a panel: what is live, never the draft.
func (a *app) liveStrip(v visit, f *flags.Flag, entries []flags.Entry, focus string) templates.FlagNow {
	env := slices.Index(v.snapshot.Environments(), v.env)
	now := templates.FlagNow{Key: f.Key, State: stateOf(f), Total: len(v.snapshot.Tenants()), Env: v.env,
		Killable: v.operator() && (f.State != flags.Off || f.Pct != 0), Focus: focus}
	if v.snapshot.Flag(f.Key) == f {
		now.Reach = a.reach.Of(v.snapshot, f)[env]
	}
	now.Consumers = a.arrival(f.Key, entries)
	if len(entries) == 0 {
		return now
	}
	last := entries[0]
	who := last.Actor
	if who == v.principal.Name {
		who = "you"
	}
	at := a.time(last.At)
	if last.Action == flags.Killed {
		now.Killed, now.By = &at, who
	}
	if v.operator() && f.Version > 1 && (who == "you" || a.now().Sub(last.At) < undoFor) &&
		(last.Action == flags.Killed || last.Action == flags.Updated || last.Action == flags.Restored) && len(entries) > 1 && entries[1].Action != flags.Deleted {
		now.Undo = &templates.Undo{Key: f.Key, Version: f.Version, Label: "Undo", Mine: who == "you", Title: fmt.Sprintf("Take back what %s changed %s", who, at.Ago)}
		if last.Action == flags.Killed {
			now.Undo.Label = "Undo kill"
		}
	}
	return now
}

// form is the draft in the form's controls.
func (a *app) form(v visit, f, draft *flags.Flag, preview flags.Preview, st panelState) templates.FlagForm {
	form := templates.FlagForm{Key: f.Key, Version: st.base, State: string(draft.State), Pct: draft.Pct, Cum: joinInts(preview.ByPct[:]),
		Count: preview.ByPct[min(max(draft.Pct, 0), 100)], Total: preview.Total, Description: draft.Description, Note: st.note,
		Hint: hint(draft.State), Env: v.env, Query: st.query}
	if !f.SameContent(draft) {
		form.Base = fields(f)
	}
	for _, s := range flags.States {
		form.States = append(form.States, templates.StateChoice{Name: string(s), Word: stateWords[s], Pct: 40, Checked: s == draft.State})
	}
	for _, pct := range []int{0, 1, 5, 10, 25, 50, 100} {
		form.Steps = append(form.Steps, templates.Step{Pct: pct, Pressed: pct == draft.Pct})
	}
	choices := func(known, chosen []string) []templates.Choice {
		all := slices.Clone(known)
		for _, value := range chosen {
			if !slices.Contains(all, value) {
				all = append(all, value) // no longer known, and kept until it is removed
			}
		}
		out := make([]templates.Choice, len(all))
		for i, value := range all {
			out[i] = templates.Choice{Value: value, Label: value, Checked: slices.Contains(chosen, value)}
		}
		return out
	}
	form.Plans = choices(flags.Plans, draft.Scope.Plans)
	form.Envs = choices(v.snapshot.Environments(), draft.Scope.Environments)
	for _, slug := range draft.Scope.PartnerSlugs {
		form.Partners = append(form.Partners, templates.Chip{Key: f.Key, Axis: "partner", Value: slug})
	}
	for _, slug := range draft.Scope.TenantSlugs {
		form.Tenants = append(form.Tenants, templates.Chip{Key: f.Key, Axis: "tenant", Value: slug})
	}
	return form
}

// fields is what a form of the flag holds, for the script to tell what a draft changes.
func fields(f *flags.Flag) string {
	out, err := json.Marshal(map[string][]string{"state": {string(f.State)}, "pct": {strconv.Itoa(f.Pct)}, "description": {f.Description},
		"plan": f.Scope.Plans, "env": f.Scope.Environments, "partner": f.Scope.PartnerSlugs, "tenant": f.Scope.TenantSlugs})
	if err != nil {
		panic(err) // strings can always be written
	}
	return string(out)
}

func joinInts(ns []int) string {
	b := make([]byte, 0, 4*len(ns))
	for i, n := range ns {
		if i > 0 {
			b = append(b, ',')
		}
		b = strconv.AppendInt(b, int64(n), 10)
	}
	return string(b)
}

// impactView says who gains and who loses under a draft.
func (a *app) impactView(v visit, f, draft *flags.Flag, p flags.Preview, all bool) templates.Impact {
	before := p.Matched - p.Gained + p.Lost
	out := templates.Impact{Key: f.Key, Env: v.env, Gain: p.Gained, Lose: p.Lost, Before: before, Now: p.Matched, Total: p.Total,
		Gains: named(p.Gains), Losses: named(p.Losses), MoreGains: p.Gained - len(p.Gains), MoreLosses: p.Lost - len(p.Losses),
		Nobody: draft.State == flags.Targeted && !draft.HasAnyScope(), Cum: joinInts(p.ByPct[:]),
		Keep: before - p.Lost, Open: all, Others: others(v, p), NothingMoves: p.Gained+p.Lost == 0}
	out.Expandable = !all && out.MoreGains+out.MoreLosses > 0
	changes := flags.DiffFlag(f, draft)
	var words []string
	for _, field := range orderedFields(changes) {
		word := fieldWord(field)
		switch field {
		case "state":
			word += " " + stateWords[f.State] + " → " + stateWords[draft.State]
		case "pct":
			word += fmt.Sprintf(" %d%% → %d%%", f.Pct, draft.Pct)
		}
		words = append(words, word)
	}
	out.Fields, out.FieldCount = strings.Join(words, ", "), len(words)
	out.SaveLabel = "Save"
	switch {
	case len(words) == 0:
	case p.Gained > 0 && p.Lost > 0:
		out.SaveLabel = fmt.Sprintf("Save · %d gain, %d lose", p.Gained, p.Lost)
	case p.Gained > 0:
		out.SaveLabel = fmt.Sprintf("Save · %d gain", p.Gained)
	case p.Lost > 0:
		out.SaveLabel = fmt.Sprintf("Save · %d lose", p.Lost)
	case slices.ContainsFunc(p.ByEnvironment, func(e flags.EnvImpact) bool { return e.Gained+e.Lost > 0 }):
		out.SaveLabel = "Save · changes other environments"
	default:
		out.SaveLabel = "Save · no tenant changes"
	}
	return out
}

func named(ts []*flags.Tenant) []templates.Named {
	out := make([]templates.Named, len(ts))
	for i, t := range ts {
		out[i] = templates.Named{Name: t.Name, Slug: t.Slug, Plan: t.Plan}
	}
	return out
}

// others says in words what happens in the other environments.
func others(v visit, p flags.Preview) string {
	var out []string
	for i, name := range v.snapshot.Environments() {
		if name == v.env {
			continue
		}
		e := p.ByEnvironment[i]
		word := strings.ToUpper(name[:1]) + name[1:]
		switch {
		case e.Gained+e.Lost == 0:
			out = append(out, word+": no change.")
		case e.Lost == 0:
			out = append(out, fmt.Sprintf("%s: +%d.", word, e.Gained))
		case e.Gained == 0:
			out = append(out, fmt.Sprintf("%s: −%d.", word, e.Lost))
		default:
			out = append(out, fmt.Sprintf("%s: +%d, −%d.", word, e.Gained, e.Lost))
		}
	}
	return strings.Join(out, " ")
}

// explanation answers for a tenant, live and, where there is a draft, under it; or as of a time.
func (a *app) explanation(r *http.Request, v visit, draft, f *flags.Flag, slug, env, at string) (templates.Explain, error) {
	if !v.snapshot.HasEnvironment(env) {
		env = v.env
	}
	if at != "" {
		return a.explanationThen(r, v, f.Key, slug, env, at)
	}
	out := templates.Explain{Key: f.Key, Tenant: slug, Env: env}
	if slug != "" {
		if t := v.snapshot.Tenant(slug); t != nil {
			out = explainView(f, t, env)
			if !f.SameContent(draft) {
				under := explainView(draft, t, env)
				out.Draft = &under
			}
		} else {
			out.Asked, out.Unknown = true, true
		}
	}
	out.Envs = v.snapshot.Environments()
	return out, nil
}

// openFlag is a flag's page: the list with the panel, or the panel alone as a fragment.
func (a *app) openFlag(w http.ResponseWriter, r *http.Request, v visit) error {
	q := r.URL.Query()
	filter := a.filterOf(q, v)
	f, err := a.flag(v.snapshot, r)
	if err != nil {
		return err
	}
	if !names(f, flags.AxisTenants, filter.Tenant) { // then the tenant is the one to explain, and no filter
		filter.Tenant = ""
		filter.Query = a.query(filter, nil)
	}
	st := panelState{focus: "title", query: filter.Query, tenant: q.Get("tenant"), explain: q.Get("env"), at: q.Get("at")}
	if version, err := strconv.ParseInt(q.Get("restore"), 10, 64); err == nil && v.operator() {
		content, err := a.db.FlagContent(r.Context(), f.Key, version)
		if err != nil {
			return err
		}
		draft, err := content.Apply(*f, func(flags.Axis, string) bool { return true })
		if err != nil {
			return err
		}
		st.draft, st.say = &draft, fmt.Sprintf("Version %d is loaded as a draft. Nothing is saved yet.", version)
		st.focus = "now"
	}
	switch {
	case r.Header.Get("HX-Source") == "div#panel":
		st.focus = "" // a refresh that nobody asked for
	case st.draft == nil:
		w.Header().Set("HX-Push-Url", "/operator/flags/"+f.Key+filter.Query)
	}
	return a.showPanel(w, r, v, f, st, http.StatusOK)
}

// showPanel answers with a panel in the way that the request can use.
func (a *app) showPanel(w http.ResponseWriter, r *http.Request, v visit, f *flags.Flag, st panelState, status int, parts ...templates.Part) error {
	p, err := a.panel(r, v, f, st)
	if err != nil {
		return err
	}
	if wantsFragment(r) {
		return a.swaps(w, status, templates.Swaps{Title: f.Key, Main: *p, Parts: parts})
	}
	filter := a.filterOf(queryOf(st.query), v)
	return a.flagsPage(w, status, v, templates.FlagsPage{List: a.list(v, filter, f.Key), Panel: p}, f.Key)
}

// explainFlag is the section that says why a tenant has a flag, and would have it under a draft.
func (a *app) explainFlag(w http.ResponseWriter, r *http.Request, v visit) error {
	f, err := a.flag(v.snapshot, r)
	if err != nil {
		return err
	}
	q, draft := r.URL.Query(), f
	if r.Method == http.MethodPost {
		q = r.PostForm
		if q.Has("explain_tenant") { // beside a draft, which has tenants and environments of its own
			post, err := a.readForm(r, v)
			if err != nil {
				return err
			}
			base, err := a.baseOf(r, f, post.base)
			if err != nil {
				return err
			}
			draft = effect(f, base, post)
			q = url.Values{"tenant": {q.Get("explain_tenant")}, "env": {q.Get("explain_env")}, "at": {q.Get("at")}}
		}
	}
	e, err := a.explanation(r, v, draft, f, strings.TrimSpace(q.Get("tenant")), cmp.Or(q.Get("env"), v.env), q.Get("at"))
	if err != nil {
		return err
	}
	return a.html(w, http.StatusOK, e)
}
