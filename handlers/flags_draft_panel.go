package handlers

import (
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strconv"
	"strings"

	"github.com/dezky/platform-api/db"
	"github.com/dezky/platform-api/flags"
	"github.com/dezky/platform-api/templates"
)

// posted is a draft as a form posts it.
type posted struct {
	base  int64
	want  flags.Patch // every field
	query string
	ack   int
}

// readForm reads the draft and, without JavaScript, what was typed to be added or pressed to be removed.
func (a *app) readForm(r *http.Request, v visit) (posted, error) {
	var p posted
	if err := r.ParseForm(); err != nil {
		return p, fmt.Errorf("form: %w", err)
	}
	form := r.PostForm
	p.base, _ = strconv.ParseInt(form.Get("version"), 10, 64)
	p.ack, _ = strconv.Atoi(form.Get("ack"))
	p.query = a.filterOf(queryOf(form.Get("q_query")), v).Query
	state, description := flags.State(form.Get("state")), strings.ReplaceAll(form.Get("description"), "\r\n", "\n")
	p.want = flags.Patch{State: &state, Description: &description, Note: strings.TrimSpace(form.Get("note")), Scope: map[flags.Axis][]string{}}
	pct, err := strconv.Atoi(strings.TrimSuffix(strings.TrimSpace(form.Get("pct")), "%"))
	if err != nil {
		pct = -1 // Apply says what is allowed
	}
	p.want.Pct = &pct
	for axis, name := range map[flags.Axis]string{flags.AxisPlans: "plan", flags.AxisEnvironments: "env", flags.AxisPartners: "partner", flags.AxisTenants: "tenant"} {
		values := slices.Clone(form[name])
		values = append(values, strings.FieldsFunc(form.Get(name+"_add"), func(r rune) bool { return r == ',' || r == ' ' })...)
		gone := form[name+"_remove"]
		p.want.Scope[axis] = slices.DeleteFunc(values, func(value string) bool { return slices.Contains(gone, value) })
	}
	return p, nil
}

// draftOn applies a posted draft to a flag, whatever is known, for showing it.
func (p posted) draftOn(f flags.Flag) *flags.Flag {
	want := p.want
	want.Note = ""
	draft, err := want.Apply(f, func(flags.Axis, string) bool { return true })
	if err != nil { // show what can be shown: the field that is wrong stays as it was
		pct, state := f.Pct, f.State
		if !slices.Contains(flags.States, *want.State) {
			want.State = &state
		}
		if *want.Pct < 0 || *want.Pct > 100 {
			want.Pct = &pct
		}
		if draft, err = want.Apply(f, func(flags.Axis, string) bool { return true }); err != nil {
			return &f
		}
	}
	return &draft
}

// sinceBase is the part of a draft that differs from what it began with: only that is to be changed.
func sinceBase(base, draft *flags.Flag, want flags.Patch) (p flags.Patch, behaviour bool) {
	changes := flags.DiffFlag(base, draft)
	p.Note, p.Scope = want.Note, map[flags.Axis][]string{}
	for field := range changes {
		switch axis, scoped := strings.CutPrefix(field, "scope."); {
		case scoped:
			p.Scope[flags.Axis(axis)] = want.Scope[flags.Axis(axis)]
		case field == "state":
			p.State = want.State
		case field == "pct":
			p.Pct = want.Pct
		case field == "description":
			p.Description = want.Description
			continue
		}
		behaviour = true
	}
	return p, behaviour
}

// baseOf is the flag as it was at the version that a draft began from.
func (a *app) baseOf(r *http.Request, f *flags.Flag, version int64) (*flags.Flag, error) {
	if version == f.Version || version < 1 {
		return f, nil
	}
	content, err := a.db.FlagContent(r.Context(), f.Key, version)
	if err != nil {
		return nil, err
	}
	base, err := content.Apply(flags.New(f.Key), func(flags.Axis, string) bool { return true })
	base.Version = version
	return &base, err
}

// readDraft reads a draft, the flag that it is of (nil where there is none), and the version that it began
// from.
func (a *app) readDraft(r *http.Request, v visit) (post posted, f, base *flags.Flag, err error) {
	if post, err = a.readForm(r, v); err != nil {
		return post, nil, nil, err
	}
	if f, err = a.flag(v.snapshot, r); err != nil {
		return post, nil, nil, err
	}
	base, err = a.baseOf(r, f, post.base)
	return post, f, base, err
}

// behaves tells whether two versions of a flag give the same answers: all but the description.
func behaves(a, b *flags.Flag) bool {
	c := *b
	c.Description = a.Description
	return a.SameContent(&c)
}

// saveFlag saves a draft, or says why it can't be saved as it is.
func (a *app) saveFlag(w http.ResponseWriter, r *http.Request, v visit) error {
	post, f, base, err := a.readDraft(r, v)
	if f == nil && errors.Is(err, flags.ErrNotFound) {
		return a.flagGone(w, r, v)
	}
	if err != nil {
		return err
	}
	if _, err := post.want.Apply(*base, v.snapshot.Known); err != nil {
		return a.badDraft(w, r, v, f, base, post, err)
	}
	draft := post.draftOn(*base)
	patch, behaviour := sinceBase(base, draft, post.want)
	if behaviour && !behaves(base, f) {
		return a.stale(w, r, v, f, base, draft, post)
	}
	next, err := patch.Apply(*f, v.snapshot.Known)
	if err != nil {
		return a.badDraft(w, r, v, f, base, post, err)
	}
	preview := v.snapshot.Preview(f, &next, v.env, namedFirst)
	if preview.GainedAny > a.confirmGain && post.ack != preview.GainedAny {
		return a.confirm(w, r, v, f, &next, preview, post)
	}
	patch.IfVersion = []int64{f.Version}
	saved, err := a.db.PatchFlag(r.Context(), v.principal.By(), f.Key, patch)
	var stale *flags.Stale
	if errors.As(err, &stale) && stale.Current != nil { // someone was faster by a moment
		v.snapshot = a.db.Current()
		return a.stale(w, r, v, stale.Current, base, draft, post)
	}
	if err != nil {
		return err
	}
	if saved.Version == f.Version { // someone did the same meanwhile
		return a.answerChange(w, r, v, saved, post.query, "now", templates.Toast{Strong: f.Key + " is like that already.", Text: "Nothing was changed."})
	}
	text := "No tenant changes in " + v.env + "."
	switch {
	case preview.Gained > 0 && preview.Lost > 0:
		text = fmt.Sprintf("%s it, %s it.", gains(preview.Gained), loses(preview.Lost))
	case preview.Gained > 0:
		text = gains(preview.Gained) + " it."
	case preview.Lost > 0:
		text = loses(preview.Lost) + " it."
	}
	return a.answerChange(w, r, v, saved, post.query, "now", templates.Toast{Strong: "Saved " + f.Key + ".", Text: text, Undo: undoOf(saved)})
}

// undoOf is the way back from a change that was just made.
func undoOf(f *flags.Flag) *templates.Undo { return &templates.Undo{Key: f.Key, Version: f.Version} }

func gains(n int) string {
	if n == 1 {
		return "1 tenant gained"
	}
	return fmt.Sprintf("%d tenants gained", n)
}

func loses(n int) string {
	if n == 1 {
		return "1 tenant lost"
	}
	return fmt.Sprintf("%d tenants lost", n)
}

// answerChange answers a change: the panel as it is now, if the flag is the open one, the row and the counts
// in the list, and a toast.
func (a *app) answerChange(w http.ResponseWriter, r *http.Request, v visit, f *flags.Flag, query, focus string, toast templates.Toast) error {
	if !fromHtmx(r) {
		http.Redirect(w, r, "/operator/flags/"+f.Key+query, http.StatusSeeOther)
		return nil
	}
	v.snapshot = a.db.Current()
	if current := v.snapshot.Flag(f.Key); current != nil {
		f = current
	}
	parts := a.listParts(v, f, toast, a.isOpen(r, f.Key))
	if !a.isOpen(r, f.Key) {
		return a.swaps(w, http.StatusOK, templates.Swaps{Parts: parts})
	}
	return a.showPanel(w, r, v, f, panelState{query: query, focus: focus}, http.StatusOK, parts...)
}

// isOpen tells whether the page that htmx asks from has the flag's panel open.
func (a *app) isOpen(r *http.Request, key string) bool {
	return strings.HasPrefix(currentPath(r)+"/", "/operator/flags/"+key+"/")
}

// listParts are the fragments beside a panel after a change.
func (a *app) listParts(v visit, f *flags.Flag, toast templates.Toast, open bool) []templates.Part {
	row := a.row(v.snapshot, f, slices.Index(v.snapshot.Environments(), v.env))
	row.Current = open
	parts := []templates.Part{
		{Target: "#flag-" + f.Key, Swap: "outerMorph", View: row},
		{Target: "#toasts", Swap: "beforeend", View: toast},
		{Target: "#dialogs", Swap: "innerHTML"},
	}
	return append(parts, a.countParts(v)...)
}

// formField is the form's name of a domain's field, where its error stands.
func formField(field string) string {
	for prefix, name := range map[string]string{"scope.plans": "plan", "scope.environments": "env", "scope.partnerSlugs": "partner", "scope.tenantSlugs": "tenant"} {
		if strings.HasPrefix(field, prefix) {
			return name
		}
	}
	return field
}

// badDraft says what is wrong beside each field; the draft stays as it is.
func (a *app) badDraft(w http.ResponseWriter, r *http.Request, v visit, f, base *flags.Flag, post posted, err error) error {
	var invalid *flags.Invalid
	if !errors.As(err, &invalid) {
		return err
	}
	messages := map[string]string{}
	for _, e := range invalid.Errors {
		name := formField(e.Field)
		messages[name] = strings.TrimSpace(messages[name] + " " + sentence(e.Message))
	}
	if fromHtmx(r) {
		var parts []templates.Part
		for _, name := range []string{"state", "pct", "partner", "tenant", "description", "note"} {
			parts = append(parts, templates.Part{Target: "#err-" + name, Swap: "textContent", Text: messages[name]})
		}
		return a.swaps(w, http.StatusUnprocessableEntity, templates.Swaps{Parts: parts})
	}
	return a.showPanel(w, r, v, f, panelState{draft: post.draftOn(*base), base: post.base, note: post.want.Note, errors: messages, query: post.query}, http.StatusUnprocessableEntity)
}

// stale shows the three values of each field that differs: where the draft began, what is live, the draft.
func (a *app) stale(w http.ResponseWriter, r *http.Request, v visit, live, base, draft *flags.Flag, post posted) error {
	c, err := a.conflict(r, v, live, base, draft, post.query, true)
	if err != nil {
		return err
	}
	if fromHtmx(r) {
		return a.swaps(w, http.StatusConflict, templates.Swaps{Parts: []templates.Part{
			{Target: "#stale", Swap: "innerHTML", View: *c}, {Target: "#dialogs", Swap: "innerHTML"}}})
	}
	return a.showPanel(w, r, v, live, panelState{draft: draft, base: post.base, note: post.want.Note, conflict: c, query: post.query}, http.StatusConflict)
}

func (a *app) conflict(r *http.Request, v visit, live, base, draft *flags.Flag, query string, lost bool) (*templates.Conflict, error) {
	entries, err := a.flagEntries(r, db.HistoryFilter{Flag: live.Key, Versions: true, Limit: 1})
	if err != nil {
		return nil, err
	}
	c := &templates.Conflict{Key: live.Key, Who: "Somebody", When: a.time(live.UpdatedAt), Lost: lost, Query: query}
	if len(entries) > 0 {
		c.Who = entries[0].Actor
		if c.Who == v.principal.Name {
			c.Who = c.Who + " (you, elsewhere)"
		}
	}
	fields := map[string]bool{}
	for _, field := range flags.DiffFlag(base, live).Fields() {
		fields[field] = true
	}
	for _, field := range flags.DiffFlag(base, draft).Fields() {
		fields[field] = true
	}
	all := flags.DiffFlag(nil, live)
	for _, field := range orderedFields(all) {
		if fields[field] {
			c.Fields = append(c.Fields, templates.ConflictField{Name: fieldWord(field),
				Base: valueOf(base, field), Live: valueOf(live, field), Draft: valueOf(draft, field)})
		}
	}
	return c, nil
}

// valueOf is a field of a flag in words.
func valueOf(f *flags.Flag, field string) string {
	switch axis, scoped := strings.CutPrefix(field, "scope."); {
	case scoped:
		if values := f.Scope.Axis(flags.Axis(axis)); len(values) > 0 {
			return orWords(values, 6, axisWords[flags.Axis(axis)]+"s")
		}
		return "any"
	case field == "state":
		return stateWords[f.State]
	case field == "pct":
		return strconv.Itoa(f.Pct) + "%"
	}
	switch text := []rune(f.Description); {
	case len(text) == 0:
		return "none"
	case len(text) > 80:
		return strings.TrimSpace(string(text[:79])) + "…"
	}
	return f.Description
}

// confirm asks before many gain a flag; the answer carries the number that was asked about.
func (a *app) confirm(w http.ResponseWriter, r *http.Request, v visit, f, next *flags.Flag, preview flags.Preview, post posted) error {
	impact := a.impactView(v, f, next, preview, false)
	impact.Static = true
	c := templates.Confirm{Key: f.Key, Ack: preview.GainedAny, Impact: impact, Note: post.want.Note}
	if impact.Fields != "" {
		c.What = sentence(impact.Fields + " in " + v.env)
	}
	gaining, _ := v.snapshot.Impact(f, next, len(v.snapshot.Tenants()))
	biggest, n := flags.Plans[len(flags.Plans)-1], 0
	for _, t := range gaining[slices.Index(v.snapshot.Environments(), v.env)].Gains {
		if t.Plan == biggest {
			n++
		}
	}
	if n > 0 {
		c.Plans = fmt.Sprintf("%d of them on the %s plan.", n, biggest)
	}
	if fromHtmx(r) {
		return a.swaps(w, http.StatusPreconditionRequired, templates.Swaps{Parts: []templates.Part{{Target: "#dialogs", Swap: "innerHTML", View: c}}})
	}
	st := panelState{draft: next, base: post.base, note: post.want.Note, query: post.query}
	p, err := a.panel(r, v, f, st)
	if err != nil {
		return err
	}
	c.Form = &p.Form
	return a.flagsPage(w, http.StatusPreconditionRequired, v,
		templates.FlagsPage{List: a.list(v, a.filterOf(queryOf(post.query), v), f.Key), Panel: p, Ask: c}, f.Key)
}

// previewFlag shows the draft with its impact, for a browser without JavaScript.
func (a *app) previewFlag(w http.ResponseWriter, r *http.Request, v visit) error {
	post, f, base, err := a.readDraft(r, v)
	if err != nil {
		return err
	}
	return a.showPanel(w, r, v, f, panelState{draft: post.draftOn(*base), base: post.base, note: post.want.Note, query: post.query, all: true}, http.StatusOK)
}

// draftImpact answers what the draft in the form would do.
func (a *app) draftImpact(w http.ResponseWriter, r *http.Request, v visit) error {
	post, f, base, err := a.readDraft(r, v)
	if err != nil {
		return err
	}
	draft := effect(f, base, post)
	all := r.URL.Query().Get("all") == "1"
	return a.html(w, http.StatusOK, a.impactView(v, f, draft, v.snapshot.Preview(f, draft, v.env, namedLimit(all)), all))
}

// effect is what a flag would be after saving a draft. A draft of the description alone goes onto whatever is
// live; else a draft that began with another version stands as it is, until its conflict is resolved.
func effect(f, base *flags.Flag, post posted) *flags.Flag {
	draft := post.draftOn(*base)
	if patch, behaviour := sinceBase(base, draft, post.want); !behaviour || behaves(base, f) {
		patch.Note = ""
		if next, err := patch.Apply(*f, func(flags.Axis, string) bool { return true }); err == nil {
			return &next
		}
	}
	return draft
}

// killFlag turns a flag off at once: no dialog, whatever the version and the draft. Killing twice is harmless.
func (a *app) killFlag(w http.ResponseWriter, r *http.Request, v visit) error {
	post, err := a.readForm(r, v)
	if err != nil {
		return err
	}
	f, err := a.flag(v.snapshot, r)
	if err != nil {
		return a.flagGone(w, r, v)
	}
	lost := a.reach.Of(v.snapshot, f)[slices.Index(v.snapshot.Environments(), v.env)]
	off, none := flags.Off, 0
	killed, err := a.db.PatchFlag(r.Context(), v.principal.By(), f.Key, flags.Patch{State: &off, Pct: &none, Note: noteWithin(post.want.Note)})
	if err != nil {
		return err
	}
	toast := templates.Toast{Icon: "kill", Strong: f.Key + " is off.", Text: "It was off already."}
	if killed.Version != f.Version {
		toast.Text, toast.Undo = loses(lost)+" it.", undoOf(killed)
	}
	return a.answerChange(w, r, v, killed, post.query, "undo", toast)
}

// noteWithin drops a note that is too long: it must not stand in the way of a kill.
func noteWithin(note string) string {
	if len(note) > flags.MaxNote {
		return ""
	}
	return note
}

// undoChange takes a change back exactly, if the flag still is at its version; else the inverse opens as
// a draft.
func (a *app) undoChange(w http.ResponseWriter, r *http.Request, v visit) error {
	if err := r.ParseForm(); err != nil {
		return fmt.Errorf("form: %w", err)
	}
	version, err := strconv.ParseInt(r.PostFormValue("undo"), 10, 64)
	if err != nil || version < 2 {
		return &refusal{http.StatusUnprocessableEntity, "invalid", "there is nothing to undo"}
	}
	f, err := a.flag(v.snapshot, r)
	if err != nil {
		return a.flagGone(w, r, v)
	}
	query := a.filterOf(queryOf(r.PostFormValue("q_query")), v).Query
	undone, err := a.db.RestoreFlag(r.Context(), v.principal.By(), f.Key,
		db.Restore{Version: version - 1, Note: fmt.Sprintf("undo of version %d", version), IfVersion: []int64{version}})
	var stale *flags.Stale
	if errors.As(err, &stale) && stale.Current != nil {
		v.snapshot = a.db.Current()
		if fromHtmx(r) && !a.isOpen(r, f.Key) { // a page of its own for the draft
			w.Header().Set("HX-Redirect", fmt.Sprintf("/operator/flags/%s?restore=%d", f.Key, version-1))
			w.WriteHeader(http.StatusNoContent)
			return nil
		}
		content, err := a.db.FlagContent(r.Context(), f.Key, version-1)
		if err != nil {
			return err
		}
		draft, err := content.Apply(*stale.Current, func(flags.Axis, string) bool { return true })
		if err != nil {
			return err
		}
		return a.showPanel(w, r, v, stale.Current, panelState{draft: &draft, query: query, focus: "now",
			say: "The flag has changed since. What undo would do is loaded as a draft."}, http.StatusOK)
	}
	if err != nil {
		return err
	}
	return a.answerChange(w, r, v, undone, query, "now", templates.Toast{Icon: "undo", Strong: "Undone.", Text: f.Key + " is as it was before.", Undo: undoOf(undone)})
}

// ontop puts the changed fields of a draft on the live version, unsaved.
func (a *app) ontop(w http.ResponseWriter, r *http.Request, v visit) error {
	post, f, base, err := a.readDraft(r, v)
	if f == nil && errors.Is(err, flags.ErrNotFound) {
		return a.flagGone(w, r, v)
	}
	if err != nil {
		return err
	}
	patch, _ := sinceBase(base, post.draftOn(*base), post.want)
	draft, err := patch.Apply(*f, func(flags.Axis, string) bool { return true })
	if err != nil {
		return a.badDraft(w, r, v, f, base, post, err)
	}
	return a.showPanel(w, r, v, f, panelState{draft: &draft, note: post.want.Note, query: post.query, focus: "now",
		say: "Your changes are on top of the live version. Nothing is saved yet."}, http.StatusOK)
}

// theirs drops the draft for the live version, for a browser without JavaScript.
func (a *app) theirs(w http.ResponseWriter, r *http.Request, v visit) error {
	post, err := a.readForm(r, v)
	if err != nil {
		return err
	}
	http.Redirect(w, r, "/operator/flags/"+r.PathValue("key")+post.query, http.StatusSeeOther)
	return nil
}

// conflictCard compares the draft in the form with what is live now, when a change was noticed. The live strip
// is told in any case.
func (a *app) conflictCard(w http.ResponseWriter, r *http.Request, v visit) error {
	post, f, base, err := a.readDraft(r, v)
	if f == nil && errors.Is(err, flags.ErrNotFound) {
		return a.flagGone(w, r, v)
	}
	if err != nil {
		return err
	}
	draft := post.draftOn(*base)
	if f.SameContent(draft) && !f.SameContent(base) { // what the draft wants is live: it was saved, or someone else wants it too
		p, err := a.panel(r, v, f, panelState{query: post.query})
		if err != nil {
			return err
		}
		return a.swaps(w, http.StatusOK, templates.Swaps{Parts: []templates.Part{{Target: "#panel", Swap: "innerHTML", View: *p}}})
	}
	entries, err := a.flagEntries(r, db.HistoryFilter{Flag: f.Key, Versions: true, Limit: 2})
	if err != nil {
		return err
	}
	out := templates.Swaps{Parts: []templates.Part{{Target: "#now", Swap: "outerHTML", View: a.liveStrip(v, f, entries, "")}}}
	if _, behaviour := sinceBase(base, draft, post.want); behaviour && !behaves(base, f) {
		c, err := a.conflict(r, v, f, base, draft, post.query, false)
		if err != nil {
			return err
		}
		out.Main = *c
	}
	return a.swaps(w, http.StatusOK, out)
}
