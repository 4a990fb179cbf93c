package handlers

import (
	"cmp"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"

	"github.com/dezky/platform-api/flags"
	"github.com/dezky/platform-api/templates"
)

// found is the most that one group of the palette, or a picker, shows.
const found = 8

// match tells how well a name fits what was typed, the best first, and where; it is negative where it
// does not fit: 0 exact, 1 beginning, 2 beginning of a word, 3 within.
func match(name, text string) (rank, at int) {
	lower := strings.ToLower(name)
	at = strings.Index(lower, text)
	switch {
	case at < 0:
		return -1, -1
	case lower == text:
		return 0, 0
	case at == 0:
		return 1, 0
	}
	for i := at; i >= 0; {
		if before := lower[i-1]; before == '_' || before == '-' || before == ' ' {
			return 2, i
		}
		next := strings.Index(lower[i+1:], text)
		if next < 0 {
			break
		}
		i += 1 + next
	}
	return 3, at
}

// best returns the things that fit best, in order, of those that fit at all.
func best[T any](things []T, most int, name func(T) string, also func(T) string, text string, tie func(a, b T) int) []T {
	type ranked struct {
		thing T
		rank  int
	}
	out := make([]ranked, 0, most+1) // never more: nearly everything of a large registry may fit
	for _, x := range things {
		rank, _ := match(name(x), text)
		if rank < 0 && also != nil {
			if rank, _ = match(also(x), text); rank >= 0 {
				rank += 4
			}
		}
		if rank < 0 {
			continue
		}
		i := len(out)
		for i > 0 && cmp.Or(cmp.Compare(rank, out[i-1].rank), tie(x, out[i-1].thing)) < 0 {
			i--
		}
		if i < most {
			out = slices.Insert(out, i, ranked{x, rank})
			out = out[:min(len(out), most)]
		}
	}
	result := make([]T, 0, most)
	for _, r := range out {
		result = append(result, r.thing)
	}
	return result
}

func bestTenants(s *flags.Snapshot, text string) []*flags.Tenant {
	return best(s.Tenants(), found, func(t *flags.Tenant) string { return t.Name }, func(t *flags.Tenant) string { return t.Slug },
		text, func(x, y *flags.Tenant) int { return strings.Compare(x.Slug, y.Slug) })
}

func bestPartners(s *flags.Snapshot, text string) []*flags.Partner {
	return best(s.Partners(), found, func(p *flags.Partner) string { return p.Name }, func(p *flags.Partner) string { return p.Slug },
		text, func(x, y *flags.Partner) int { return strings.Compare(x.Slug, y.Slug) })
}

// fits tells whether a label has what was typed.
func fits(label, text string) bool {
	rank, _ := match(label, text)
	return rank >= 0
}

// labelled is an option whose label, in After, is marked.
func labelled(o templates.PaletteOption, text string) templates.PaletteOption {
	label := o.After
	o.After = ""
	return marked(o, label, text)
}

// marked is a label around what was typed.
func marked(o templates.PaletteOption, label, text string) templates.PaletteOption {
	// A letter may be longer or shorter in lower case (İ, Ⱥ): then nobody knows where it stands in the label.
	if _, at := match(label, text); at >= 0 && text != "" && len(strings.ToLower(label)) == len(label) {
		o.Before, o.Match, o.After = label[:at], label[at:at+len(text)], label[at+len(text):]
	} else {
		o.Before = label
	}
	return o
}

// palette finds flags, actions, tenants, partners and pages.
func (a *app) palette(w http.ResponseWriter, r *http.Request, v visit) error {
	typed := strings.TrimSpace(r.URL.Query().Get("q"))
	text := strings.ToLower(typed)
	p := templates.Palette{Text: typed}
	env := slices.Index(v.snapshot.Environments(), v.env)
	hits := best(v.snapshot.Flags(), found, func(f *flags.Flag) string { return f.Key }, func(f *flags.Flag) string { return f.Description },
		text, func(x, y *flags.Flag) int { return y.UpdatedAt.Compare(x.UpdatedAt) })
	group := func(id, name string, options []templates.PaletteOption) {
		for i := range options {
			options[i].ID = "po-" + id + strconv.Itoa(i)
		}
		if len(options) > 0 {
			p.Groups = append(p.Groups, templates.PaletteGroup{ID: id, Name: name, Options: options})
		}
	}
	var options []templates.PaletteOption
	for _, f := range hits {
		state := stateOf(f)
		options = append(options, marked(templates.PaletteOption{State: &state, Mono: true, Description: f.Description, End: state.Word,
			Href: "/operator/flags/" + f.Key}, f.Key, text))
	}
	group("flags", "Flags", options)

	options = nil
	if v.operator() && text != "" {
		for _, f := range hits[:min(len(hits), 3)] {
			if f.State == flags.Off {
				continue
			}
			n := a.reach.Of(v.snapshot, f)[env]
			lose := fmt.Sprintf("%d tenants lose it", n)
			if n == 1 {
				lose = "1 tenant loses it"
			}
			options = append(options, templates.PaletteOption{Icon: "kill", Before: "Kill switch: ", After: f.Key, End: lose, Post: "/operator/flags/" + f.Key + "/kill"})
		}
	}
	if v.operator() {
		o := templates.PaletteOption{Icon: "plus", Before: "New flag", Href: "/operator/new-flag", Dialog: true}
		if flags.CheckKey(text) == "" && v.snapshot.Flag(text) == nil {
			o.After, o.Href = " “"+text+"”", "/operator/new-flag?key="+url.QueryEscape(text)
			options = append(options, o)
		} else if fits("New flag", text) {
			options = append(options, o)
		}
		for _, o := range []templates.PaletteOption{
			{Icon: "plus", After: "New tenant", Href: "/operator/new-tenant", Dialog: true},
			{Icon: "plus", After: "New partner", Href: "/operator/new-partner", Dialog: true},
			{Icon: "tenants", After: "Import tenants", Href: "/operator/tenants/import"}} {
			if fits(o.After, text) {
				options = append(options, labelled(o, text))
			}
		}
	}
	group("actions", "Actions", options)

	options = nil
	if text != "" {
		for _, t := range bestTenants(v.snapshot, text) {
			options = append(options, marked(templates.PaletteOption{Icon: "tenants", Description: t.Slug, End: t.Plan, Href: "/operator/tenants/" + t.Slug}, t.Name, text))
		}
	}
	group("tenants", "Tenants", options)

	options = nil
	if text != "" {
		for _, p := range bestPartners(v.snapshot, text) {
			options = append(options, marked(templates.PaletteOption{Icon: "partner", Description: p.Slug, Href: "/operator/tenants?partner=" + p.Slug}, p.Name, text))
		}
	}
	group("partners", "Partners", options)

	options = nil
	pages := []templates.PaletteOption{
		{Icon: "flag", After: "Flags", Href: "/operator/flags"}, {Icon: "tenants", After: "Tenants", Href: "/operator/tenants"},
		{Icon: "partner", After: "Partners", Href: "/operator/partners"}, {Icon: "audit", After: "Audit log", Href: "/operator/audit"}, {Icon: "tokens", After: "API tokens", Href: "/operator/tokens"},
		{Icon: "status", After: "Status", Href: "/operator/status"}, {Icon: "gear", After: "Settings", Href: "/operator/settings"}}
	if !v.operator() {
		pages = slices.DeleteFunc(pages, func(o templates.PaletteOption) bool { return o.Href == "/operator/tokens" })
	}
	for _, o := range pages {
		if fits(o.After, text) {
			options = append(options, labelled(o, text))
		}
	}
	group("pages", "Pages", options)
	return a.html(w, http.StatusOK, p)
}

// suggest offers values to a picker: what fits best of what is typed.
func (a *app) suggest(w http.ResponseWriter, r *http.Request, v visit) error {
	q := r.URL.Query()
	kind := q.Get("kind")
	text := ""
	for _, field := range []string{"partner_add", "tenant_add", "tenant"} {
		text = cmp.Or(text, strings.ToLower(strings.TrimSpace(q.Get(field))))
	}
	var choices []templates.Choice
	if kind == "partner" {
		for _, p := range bestPartners(v.snapshot, text) {
			choices = append(choices, templates.Choice{Value: p.Slug, Label: p.Name})
		}
	} else {
		for _, t := range bestTenants(v.snapshot, text) {
			choices = append(choices, templates.Choice{Value: t.Slug, Label: t.Name})
		}
	}
	if kind == "explain" {
		return a.html(w, http.StatusOK, templates.Datalist{Options: choices})
	}
	return a.html(w, http.StatusOK, templates.Suggest{ID: kind, Options: choices})
}
