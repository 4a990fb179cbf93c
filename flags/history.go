package flags

import (
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"
)

// Kind says what a log entry is about.
type Kind string

// The kinds of things in the log.
const (
	KindFlag    Kind = "flag"
	KindTenant  Kind = "tenant"
	KindPartner Kind = "partner"
	KindToken   Kind = "token"
	// KindInstance is the appliance itself, of which changes are frozen.
	KindInstance Kind = "instance"
)

// Action says what was done.
type Action string

// The actions in the log. Killed is a live flag set to off and pct 0; Revoked is a token's; Flipped says that
// tenants gained or lost a flag by a change of the registry, which is no version of the flag.
const (
	Created  Action = "created"
	Updated  Action = "updated"
	Killed   Action = "killed"
	Deleted  Action = "deleted"
	Restored Action = "restored"
	Revoked  Action = "revoked"
	Flipped  Action = "flipped"
	Froze    Action = "frozen" // all changes, until a time
	Thawed   Action = "thawed" // before that time
)

// Via is the entrance by which a change came.
type Via string

// The entrances. An entry from before they were noted has none.
const (
	ViaConsole Via = "console" // a person in the console
	ViaAPI     Via = "api"     // a person or service by JWT, or a person's session, on the JSON routes
	ViaToken   Via = "token"   // an API token
	ViaCommand Via = "command" // a command on the server's machine
	ViaImport  Via = "import"  // a document that was taken in
	ViaSeed    Via = "seed"    // what a start plants
)

// Entry is one line of the log: one change of one thing. Entries are only ever added.
type Entry struct {
	ID       int64                 `json:"id"` // grows with every entry
	At       time.Time             `json:"at"` // never before the previous entry's
	Revision int64                 `json:"revision"`
	Actor    string                `json:"actor"`
	Kind     Kind                  `json:"kind,omitempty"`
	Name     string                `json:"name,omitempty"` // key, slug or token name
	Action   Action                `json:"action"`
	Version  int64                 `json:"version,omitempty"` // of a flag
	Note     string                `json:"note"`
	Changes  Changes               `json:"changes"`
	Impact   map[string]EnvOutcome `json:"impact,omitempty"` // of a flag, by environment known at the time

	// Who it was, more exactly than the actor's name says.
	Via     Via    `json:"via,omitempty"`
	Subject string `json:"subject,omitempty"` // as the identity provider knows them
	Issuer  string `json:"issuer,omitempty"`  // the identity provider
	Client  string `json:"client,omitempty"`  // through which of its clients
}

// EnvOutcome is an EnvImpact as the log keeps it: exact counts, and the first 50 slugs of each list.
type EnvOutcome struct {
	Gained int      `json:"gained"`
	Lost   int      `json:"lost"`
	Gains  []string `json:"gains"`
	Losses []string `json:"losses"`
}

// Outcome returns the form in which the log keeps an impact.
func (e *EnvImpact) Outcome() EnvOutcome {
	return EnvOutcome{e.Gained, e.Lost, slugs(e.Gains), slugs(e.Losses)}
}

func slugs(ts []*Tenant) []string {
	out := make([]string, len(ts))
	for i, t := range ts {
		out[i] = t.Slug
	}
	return out
}

// Changes maps each changed field to its values before and after.
type Changes map[string]FromTo

// Fields returns the names of the changed fields, sorted.
func (c Changes) Fields() []string { return slices.Sorted(maps.Keys(c)) }

// FromTo is a field before and after; null where the thing did not exist.
type FromTo struct {
	From json.RawMessage `json:"from"`
	To   json.RawMessage `json:"to"`
}

// field is one named value of a thing, for comparison.
type field struct {
	name  string
	value any
}

// diff lists the fields whose encoded values differ. A missing side counts as null, and then every
// field is listed.
func diff(before, after []field) Changes {
	changes := Changes{}
	for i := range max(len(before), len(after)) {
		var name string
		from, to := json.RawMessage("null"), json.RawMessage("null")
		if before != nil {
			name, from = before[i].name, encode(before[i].value)
		}
		if after != nil {
			name, to = after[i].name, encode(after[i].value)
		}
		if before == nil || after == nil || string(from) != string(to) {
			changes[name] = FromTo{from, to}
		}
	}
	return changes
}

func encode(v any) json.RawMessage {
	data, err := json.Marshal(v)
	if err != nil {
		panic(err) // texts, numbers and lists of texts always encode
	}
	return data
}

// DiffFlag lists what differs between two versions of a flag; nil is a flag that does not exist.
func DiffFlag(before, after *Flag) Changes {
	fields := func(f *Flag) []field {
		if f == nil {
			return nil
		}
		out := []field{{"description", f.Description}, {"state", f.State}, {"pct", f.Pct}}
		s := f.Scope.filled()
		for _, a := range Axes {
			out = append(out, field{"scope." + string(a), s.Axis(a)})
		}
		return out
	}
	return diff(fields(before), fields(after))
}

// DiffTenant lists what differs between two states of a tenant; nil is a tenant that does not exist.
func DiffTenant(before, after *Tenant) Changes {
	fields := func(t *Tenant) []field {
		if t == nil {
			return nil
		}
		return []field{{"id", t.ID}, {"slug", t.Slug}, {"name", t.Name}, {"plan", t.Plan},
			{"partnerSlug", optional(t.PartnerSlug)}, {"status", t.Status}}
	}
	return diff(fields(before), fields(after))
}

// DiffPartner lists what differs between two states of a partner; nil is a partner that does not exist.
func DiffPartner(before, after *Partner) Changes {
	fields := func(p *Partner) []field {
		if p == nil {
			return nil
		}
		return []field{{"slug", p.Slug}, {"name", p.Name}}
	}
	return diff(fields(before), fields(after))
}

// ChangeAction names the change of a flag from before to after.
func ChangeAction(before, after *Flag) Action {
	switch {
	case before == nil:
		return Created
	case after == nil:
		return Deleted
	case before.State != Off && after.State == Off && after.Pct == 0:
		return Killed
	default:
		return Updated
	}
}

// Content reads a flag's content out of its log: the patch that gives a flag what the newest of the
// changes left it with. It is an error if they do not reach back to where every field was set.
func Content(newestFirst []Changes) (Patch, error) {
	p := Patch{Scope: map[Axis][]string{}}
	for _, changes := range newestFirst {
		for name, c := range changes {
			if string(c.To) == "null" { // every field of a flag that exists has a value
				return Patch{}, errors.New("the newest change is a deletion")
			}
			var err error
			switch axis, scoped := strings.CutPrefix(name, "scope."); {
			case scoped && p.Scope[Axis(axis)] == nil:
				values := []string{}
				err = json.Unmarshal(c.To, &values)
				p.Scope[Axis(axis)] = values
			case name == "description" && p.Description == nil:
				err = json.Unmarshal(c.To, &p.Description)
			case name == "state" && p.State == nil:
				err = json.Unmarshal(c.To, &p.State)
			case name == "pct" && p.Pct == nil:
				err = json.Unmarshal(c.To, &p.Pct)
			}
			if err != nil {
				return Patch{}, fmt.Errorf("field %s: %w", name, err)
			}
		}
		if p.Description != nil && p.State != nil && p.Pct != nil && len(p.Scope) == len(Axes) {
			return p, nil
		}
	}
	return Patch{}, errors.New("the log does not hold every field")
}
