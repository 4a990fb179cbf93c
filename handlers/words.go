package handlers

import (
	"encoding/json"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/dezky/platform-api/flags"
	"github.com/dezky/platform-api/templates"
)

// axisWords are the axes as people read them.
var axisWords = map[flags.Axis]string{
	flags.AxisPlans: "plan", flags.AxisTenants: "tenant", flags.AxisPartners: "partner", flags.AxisEnvironments: "environment",
}

var stateWords = map[flags.State]string{flags.Off: "Off", flags.On: "On", flags.Targeted: "Targeted", flags.Rollout: "Rollout"}

// stateOf is a flag's state for its badge.
func stateOf(f *flags.Flag) templates.State {
	s := templates.State{Name: string(f.State), Pct: f.Pct, Word: stateWords[f.State]}
	if f.State == flags.Rollout {
		s.Word += " " + strconv.Itoa(f.Pct) + "%"
	}
	return s
}

// onOff is a state for one tenant.
func onOff(on bool) templates.State {
	if on {
		return templates.State{Name: "on", Word: "On"}
	}
	return templates.State{Name: "off", Word: "Off"}
}

// whoGetsIt is a flag's scope in words: tags, or what stands instead of them.
func whoGetsIt(f *flags.Flag) (tags []string, unused string) {
	switch {
	case f.State == flags.Off && f.HasAnyScope():
		return nil, "Nobody (rules kept)"
	case f.State == flags.Off:
		return nil, "Nobody"
	case f.State == flags.On:
		return nil, "Everyone"
	case f.State == flags.Targeted && !f.HasAnyScope():
		return nil, "No rules: nobody"
	case !f.HasAnyScope():
		return []string{"all tenants"}, ""
	}
	s := &f.Scope
	if len(s.Plans) > 0 {
		tags = append(tags, orWords(s.Plans, 3, "plans"))
	}
	if len(s.TenantSlugs) > 0 {
		tags = append(tags, orWords(s.TenantSlugs, 1, "tenants"))
	}
	if len(s.PartnerSlugs) > 0 {
		tags = append(tags, "via "+orWords(s.PartnerSlugs, 2, "partners"))
	}
	if len(s.Environments) > 0 {
		tags = append(tags, orWords(s.Environments, 2, "environments"))
	}
	return tags, ""
}

// orWords joins a few values, and counts many.
func orWords(values []string, most int, noun string) string {
	if len(values) > most {
		return strconv.Itoa(len(values)) + " " + noun
	}
	return strings.Join(values, " or ")
}

// facts is what a viewer reads instead of the form.
func facts(f *flags.Flag) []templates.Fact {
	out := []templates.Fact{{Name: "State", Value: stateWords[f.State]}}
	if f.State == flags.Rollout {
		out[0] = templates.Fact{Name: "Rollout", Value: strconv.Itoa(f.Pct) + "% of matching tenants"}
	}
	for _, a := range flags.Axes {
		value := "any"
		if values := f.Scope.Axis(a); len(values) > 0 {
			value = strings.Join(values, " or ")
		}
		word := axisWords[a]
		out = append(out, templates.Fact{Name: strings.ToUpper(word[:1]) + word[1:], Value: value})
	}
	return out
}

// hint says by Targeting whether it is used.
func hint(state flags.State) string {
	switch state {
	case flags.Off:
		return "Kept, not used while Off"
	case flags.On:
		return "Kept, not used while On"
	}
	return "Every row that has chips must match"
}

// fieldWord is a changed field as people read it.
func fieldWord(name string) string {
	if axis, scoped := strings.CutPrefix(name, "scope."); scoped {
		return axisWords[flags.Axis(axis)]
	}
	switch name {
	case "pct":
		return "rollout"
	case "partnerSlug":
		return "partner"
	case "expiresAt":
		return "expires"
	}
	return name
}

// fieldOrder is the order in which changed fields are told; what is not in it comes last, by name.
var fieldOrder = []string{"state", "pct", "scope.plans", "scope.environments", "scope.partnerSlugs", "scope.tenantSlugs", "description", "name", "plan", "partnerSlug", "status"}

func orderedFields(c flags.Changes) []string {
	fields := c.Fields()
	slices.SortStableFunc(fields, func(a, b string) int { return rank(a) - rank(b) })
	return fields
}

func rank(field string) int {
	if i := slices.Index(fieldOrder, field); i >= 0 {
		return i
	}
	return len(fieldOrder)
}

// named is how many values of a list a diff tells.
const namedValues = 12

// diffs tells the changed fields of an entry. Of a creation it tells what is not as in an empty flag.
func diffs(e flags.Entry) []templates.Diff {
	var out []templates.Diff
	for _, field := range orderedFields(e.Changes) {
		c := e.Changes[field]
		d := templates.Diff{Field: fieldWord(field)}
		var from, to []string
		if isList(c.From) || isList(c.To) {
			json.Unmarshal(c.From, &from)
			json.Unmarshal(c.To, &to)
			d.Added, d.Gone = minus(to, from), minus(from, to)
			if len(d.Added)+len(d.Gone) == 0 {
				continue
			}
		} else {
			d.From, d.To = plainValue(field, c.From), plainValue(field, c.To)
			if e.Action == flags.Created && (d.To == "" || d.To == "0%" || field == "slug") || d.From == d.To {
				continue
			}
		}
		out = append(out, d)
	}
	return out
}

func isList(raw json.RawMessage) bool { return len(raw) > 0 && raw[0] == '[' }

// minus returns what is in a and not in b, at most namedValues and then how many more.
func minus(a, b []string) []string {
	var out []string
	more := 0
	for _, v := range a {
		if _, found := slices.BinarySearch(b, v); found {
			continue
		}
		if len(out) == namedValues {
			more++
			continue
		}
		out = append(out, v)
	}
	if more > 0 {
		out = append(out, strconv.Itoa(more)+" more")
	}
	return out
}

// plainValue is a scalar as people read it.
func plainValue(field string, raw json.RawMessage) string {
	var v any
	if json.Unmarshal(raw, &v) != nil || v == nil {
		return ""
	}
	switch field {
	case "pct":
		return fmt.Sprint(v) + "%"
	case "expiresAt", "until":
		if at, err := time.Parse(time.RFC3339, fmt.Sprint(v)); err == nil {
			return at.UTC().Format("2 Jan 2006 15:04") + " UTC"
		}
	}
	return fmt.Sprint(v)
}

// throughWords are the ways by which a change comes, in words.
var throughWords = map[flags.Via]string{
	flags.ViaConsole: "in the console", flags.ViaAPI: "by the API", flags.ViaToken: "by an API token",
	flags.ViaCommand: "by a command on the server", flags.ViaImport: "by an import", flags.ViaSeed: "at the start, from the seeds",
}

// historyEntry is a log entry in words.
func (a *app) historyEntry(e flags.Entry) templates.HistoryEntry {
	h := templates.HistoryEntry{ID: e.ID, When: a.time(e.At), Actor: e.Actor, Kind: string(e.Kind), Name: e.Name,
		Diffs: diffs(e), Note: e.Note, Version: e.Version, Revision: e.Revision, Via: throughWords[e.Via]}
	switch e.Kind {
	case flags.KindFlag, "":
		h.Link = "/operator/flags/" + e.Name
		h.Restorable = e.Action != flags.Deleted && e.Action != flags.Flipped
	case flags.KindTenant:
		h.Link = "/operator/tenants/" + e.Name
	case flags.KindInstance:
		h.Link = "/operator/status"
	case flags.KindPartner:
		h.Link = "/operator/tenants?partner=" + e.Name
	}
	switch e.Action {
	case flags.Created:
		h.What, h.Icon = "created it", "plus"
	case flags.Deleted:
		h.What, h.Icon, h.Diffs = "deleted it", "trash", nil
	case flags.Killed:
		h.What, h.Icon = "used the kill switch", "kill"
	case flags.Restored:
		h.What, h.Icon = "restored an earlier version", "undo"
	case flags.Froze:
		h.What, h.Icon = "froze all changes", "none"
	case flags.Thawed:
		h.What, h.Icon = "ended the freeze of changes", "undo"
	case flags.Revoked:
		h.What, h.Icon = "revoked it", "close"
	case flags.Flipped:
		h.What, h.Icon, h.Note = "changed the plan or partner of tenants, which flipped it", "tenants", ""
	default:
		h.What, h.Icon = "changed "+plural(len(h.Diffs), "field"), "edit"
	}
	for _, name := range sortedNames(e.Impact) {
		o := e.Impact[name]
		if o.Gained+o.Lost == 0 {
			continue
		}
		h.Reach = append(h.Reach, templates.ReachChange{Env: name, Gained: o.Gained, Lost: o.Lost, Gains: o.Gains, Losses: o.Losses,
			MoreGains: o.Gained - len(o.Gains), MoreLosses: o.Lost - len(o.Losses)})
	}
	return h
}

func sortedNames(impact map[string]flags.EnvOutcome) []string {
	names := make([]string, 0, len(impact))
	for name := range impact {
		names = append(names, name)
	}
	slices.Sort(names)
	return names
}

// explainView says why a tenant has a flag or has it not, step by step up to the one that decided.
func explainView(f *flags.Flag, t *flags.Tenant, env string) templates.Explain {
	e := f.Explain(t, env)
	out := templates.Explain{Key: f.Key, Tenant: t.Slug, Env: env, Asked: true, Name: t.Name, State: onOff(e.Value)}
	step := func(outcome, name, text string) {
		out.Steps = append(out.Steps, templates.ExplainStep{Outcome: outcome, Name: name, Text: text})
	}
	switch {
	case f.State == flags.Off:
		step("stop", "State", "off, so nobody has it")
		return out
	case f.State == flags.On:
		step("pass", "State", "on for everyone; targeting is not used")
		return out
	case f.State == flags.Targeted && !f.HasAnyScope():
		step("stop", "State", "targeted without any rule, so nobody has it")
		return out
	}
	step("pass", "State", string(f.State)+", so the rules below decide")
	own := map[flags.Axis]string{flags.AxisPlans: t.Plan, flags.AxisTenants: t.Slug, flags.AxisPartners: t.PartnerSlug, flags.AxisEnvironments: env}
	for _, a := range flags.Axes {
		word := axisWords[a]
		name := strings.ToUpper(word[:1]) + word[1:]
		values, has := f.Scope.Axis(a), own[a]
		switch {
		case len(values) == 0:
			step("none", name, "no rule")
		case e.Axis == a && has == "":
			step("stop", name, "no "+word+", and the rule asks for "+orWords(values, 4, word+"s"))
			return out
		case e.Axis == a:
			step("stop", name, has+" is not "+oneOf(values, word))
			return out
		default:
			step("pass", name, has+" is "+oneOf(values, word))
		}
	}
	if e.Bucket != nil {
		if e.Value {
			step("pass", "Percent", fmt.Sprintf("bucket %d is below %d", *e.Bucket, *e.Pct))
		} else {
			step("stop", "Percent", fmt.Sprintf("bucket %d is not below %d. On from %d%% upward.", *e.Bucket, *e.Pct, *e.Bucket+1))
		}
	}
	return out
}

func oneOf(values []string, word string) string {
	if len(values) == 1 {
		return values[0]
	}
	if len(values) > 4 {
		return fmt.Sprintf("one of the %d %ss", len(values), word)
	}
	return "one of " + strings.Join(values, ", ")
}
