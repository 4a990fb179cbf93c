package templates

import (
	"strconv"
	"time"
)

// Chrome is what surrounds every page of the console.
type Chrome struct {
	Title     string // of the document, before " · Dezky"
	Section   string // whose entry in the navigation is current: flags, tenants, audit, tokens, status, settings
	Who       string // the person's name
	Initials  string
	Role      string // in words
	Operator  bool   // may change things
	FlagCount int
	Tenants   int
	Theme     string // light, dark, or "" as the system has it
	Density   string // compact, or "" for comfortable
	KeysOff   bool   // no single-key shortcuts
	Env       string // in which counts are made
	Envs      []string
	Revision  string // what the page shows, for the event stream to go on from
	Alarm     Alarm
	Freeze    Freeze
}

// Time is a moment as people read it, with the exact one behind it.
type Time struct {
	At  time.Time
	Ago string // such as "22 min ago"
}

// ISO is the time for machines.
func (t Time) ISO() string { return t.At.UTC().Format(time.RFC3339) }

// Full is the time for the title: exact, in UTC.
func (t Time) Full() string { return t.At.UTC().Format("2 Jan 2006 15:04:05") + " UTC" }

// Moment is a time that a page can be asked for, as its form has it, in UTC.
type Moment struct {
	Value string // "" is now
	Step  string // in seconds, so that the value is allowed
	Error string
}

// State is a flag's state as its badge shows it.
type State struct {
	Name string // off, on, targeted, rollout
	Pct  int
	Word string // such as "Rollout 25%"
}

// FlagsPage is the list of flags, with or without one of them open beside it.
type FlagsPage struct {
	Chrome
	List   FlagList
	Panel  *FlagPanel
	Dialog *NewFlag // the page of the new flag without JavaScript
	Ask    View     // a dialog that is asked without JavaScript
}

func (FlagsPage) template() (page, name string) { return "flags", "layout" }

// NoChip and NoPanel are for the templates that the script fills.
func (FlagsPage) NoChip() Chip       { return Chip{} }
func (FlagsPage) NoPanel() FlagPanel { return FlagPanel{Operator: true} }

// FlagList is the flags that a filter lets through.
type FlagList struct {
	Filter   FlagFilter
	Counts   StateCounts
	Rows     []FlagRow
	Matches  int // how many match; more than Rows where the list is cut
	Total    int
	Operator bool
	Env      string
	Plans    []string
	Facets   []Facet // filters beside text and state, each with a way to remove it
}

func (FlagList) template() (page, name string) { return "", "list" }

// FlagFilter is what the address says about the list.
type FlagFilter struct {
	Text, State, Plan, Partner, Tenant, Env, Sort string
	Query                                         string // all of it, as a query with its "?", or ""
}

// Facet is one filter in words.
type Facet struct {
	Name, Value string
	Without     string // the address without it
}

// Facets are the filters in words.
type Facets []Facet

func (Facets) template() (page, name string) { return "", "facets" }

// StateCounts is how many flags there are in each state.
type StateCounts struct {
	All, On, Targeted, Rollout, Off int
	Links                           map[string]string // the list with that state, by its name; "" is all
	Current                         string
}

func (StateCounts) template() (page, name string) { return "", "counts" }

// pill is one of the links that choose a state.
type pill struct {
	Link, State, Word string
	Count             int
	Current           bool
}

func newPill(c StateCounts, state, word string, count int) pill {
	return pill{c.Links[state], state, word, count, c.Current == state}
}

// FlagRow is one flag in the list. It says nothing that is particular to a person.
type FlagRow struct {
	Key, Description string
	State            State
	Tags             []string // the scope, in words
	Unused           string   // instead of tags: nobody, everyone
	Reach, Total     int
	Width            string // of the bar, in per cent of the tenants
	Changed          Time
	By               string
	Version          int64
	Query            string // of the list that it stands in, "" in a live update
	Current          bool
	Flash            string // flash-a or flash-b in a live update
}

func (FlagRow) template() (page, name string) { return "", "row" }

// FlagPanel is one flag, to see and to change.
type FlagPanel struct {
	Key, Description string
	Version          int64
	Created, Changed Time
	By               string
	Operator         bool
	Deleted          bool // it is gone; the panel says so and is read-only
	Now              FlagNow
	Form             FlagForm
	Impact           Impact
	Clean            bool // there is no draft
	Errors           map[string]string
	Conflict         *Conflict
	Facts            []Fact
	Explain          Explain
	History          FlagHistory
	Query            string // of the list behind it
	Focus            string // which element gets the focus: title, now, undo, conflict
	Announce         string // said to those who do not see it
}

func (FlagPanel) template() (page, name string) { return "", "panel" }

// FlagNow is what is live, never the draft.
type FlagNow struct {
	Key          string
	State        State
	Reach, Total int
	Env          string
	Killed       *Time // when the last change was the kill switch
	By           string
	Killable     bool // an operator could kill it
	Undo         *Undo
	Focus        string
	Consumers    FlagConsumers
}

func (FlagNow) template() (page, name string) { return "", "now" }

// FlagConsumers says at how many consumers a flag's last change has arrived.
type FlagConsumers struct {
	Key    string
	Count  string // such as "Live at 11 of 12 consumers"; "" says nothing
	Behind string // who lacks it, in words
	Every  string // how often to ask again, such as "1s"; "" is not at all
	Asked  bool   // the line itself has asked, and keeps its room, so that nothing below it moves
}

func (FlagConsumers) template() (page, name string) { return "", "consumers" }

// Undo is the way back from the last change.
type Undo struct {
	Key     string
	Version int64 // that is undone
	Label   string
	Title   string // what it takes back
	Mine    bool   // the change was this person's: the key u takes it back
}

// FlagForm is the draft.
type FlagForm struct {
	Key          string
	Version      int64 // that the draft began from
	States       []StateChoice
	State        string
	Pct          int
	Steps        []Step
	Cum          string // tenants reached at 0 to 100 per cent, comma-separated
	Count, Total int    // tenants reached at Pct
	Plans        []Choice
	Envs         []Choice
	Partners     []Chip
	Tenants      []Chip
	Description  string
	Note         string
	Hint         string // by Targeting
	Base         string // the live fields as JSON, where the form shows a draft
	Env          string // that counts are made in
	Query        string
}

// StateChoice is one segment of the state control.
type StateChoice struct {
	Name, Word string
	Pct        int
	Checked    bool
}

// Step is one of the common percentages.
type Step struct {
	Pct     int
	Pressed bool
}

// Choice is one value of an axis.
type Choice struct {
	Value, Label string
	Checked      bool
}

// Impact is who gains and who loses under a draft.
type Impact struct {
	Key          string
	Env          string
	Gain, Lose   int
	Before, Now  int // tenants that have it, live and under the draft
	Total        int
	Gains        []Named
	Losses       []Named
	MoreGains    int // beyond the list
	MoreLosses   int
	Expandable   bool   // more names can be asked for
	Others       string // the other environments, in words
	Nobody       bool   // targeted without any value
	Cum          string
	Keep         int // tenants that have it and keep it
	Open         bool
	Static       bool // in a dialog: no live parts
	SaveLabel    string
	Fields       string // which fields the draft changes, in words
	FieldCount   int
	NothingMoves bool
}

func (Impact) template() (page, name string) { return "", "impact-answer" }

// Part is so many tenants as a part of the strip's width.
func (i Impact) Part(n int) string {
	return strconv.FormatFloat(100*float64(n)/float64(max(i.Total, 1)), 'f', 2, 64) + "%"
}

// Named is a tenant in a list of names.
type Named struct{ Name, Slug, Plan string }

// Conflict is a draft that meets a change by someone else.
type Conflict struct {
	Key    string
	Who    string
	When   Time
	Lost   bool // a save was refused; else the change was only noticed
	Fields []ConflictField
	Query  string
}

func (Conflict) template() (page, name string) { return "", "stale" }

// ConflictField is one field with its three values.
type ConflictField struct{ Name, Base, Live, Draft string }

// Confirm asks before many gain a flag.
type Confirm struct {
	Key    string
	Ack    int
	What   string // the change in words
	Plans  string // how many of them are on the biggest plan, in words
	Impact Impact
	Form   *FlagForm // without JavaScript the dialog carries the whole draft
	Note   string
}

func (Confirm) template() (page, name string) { return "", "confirm" }

// Delete asks before a flag is deleted.
type Delete struct {
	Key     string
	Version int64
	Query   string
	Page    bool // shown without JavaScript
}

func (Delete) template() (page, name string) { return "", "delete" }

// Fact is one line of a definition list.
type Fact struct{ Name, Value string }

// Explain says why one tenant has a flag or has it not.
type Explain struct {
	Key     string
	Tenant  string // the slug that was asked for
	Env     string
	Envs    []string
	Asked   bool
	Unknown bool
	Name    string
	State   State // On or Off, for this tenant
	Steps   []ExplainStep
	Draft   *Explain // the same under the draft, where there is one
	At      Moment
	Then    string // as of when, in words; "" is now
	Version int64  // of the flag then; 0: it did not exist
}

func (Explain) template() (page, name string) { return "", "explain" }

// ExplainStep is one step towards the verdict.
type ExplainStep struct {
	Name, Text string
	Outcome    string // pass, none, stop
}

// FlagHistory is the newest entries of a flag's log.
type FlagHistory struct {
	Key      string
	Entries  []HistoryEntry
	Operator bool
	Current  int64 // the live version
	Query    string
}

func (FlagHistory) template() (page, name string) { return "", "history" }

// HistoryEntry is one change in words.
type HistoryEntry struct {
	ID         int64
	When       Time
	Actor      string
	What       string // "changed 2 fields", "used the kill switch"
	Kind       string // flag, tenant, partner, token
	Name       string
	Link       string // to the thing
	Icon       string // undo, kill, plus, trash, state
	State      State
	Diffs      []Diff
	Note       string
	Reach      []ReachChange
	Version    int64
	Revision   int64
	Restorable bool
	Via        string // the entrance, in words; "" where the log does not say
}

// Diff is one field before and after.
type Diff struct {
	Field       string
	From, To    string   // one of a scalar
	Added, Gone []string // of a list
}

// ReachChange is who gained and lost a flag in one environment.
type ReachChange struct {
	Env                   string
	Gained, Lost          int
	Gains, Losses         []string
	MoreGains, MoreLosses int
}

// NewFlag is the dialog that makes a flag.
type NewFlag struct {
	Key, Description string
	KeyError         string
	Exists           bool // KeyError is that the key is taken
	DescriptionError string
	Page             bool // shown without JavaScript
}

func (NewFlag) template() (page, name string) { return "", "newflag" }

// Alarm is what everybody in the console should know about the server now; "" is nothing.
type Alarm struct{ Text string }

func (Alarm) template() (page, name string) { return "", "alarm" }

// Freeze says on every page that changes are frozen; without a reason they are not.
type Freeze struct {
	By, Reason string
	Until      Time
	Operator   bool // may end it
}

func (Freeze) template() (page, name string) { return "", "freeze" }

// Toast is a short notice.
type Toast struct {
	Icon    string // a check if empty
	Text    string
	Strong  string // before the text
	Undo    *Undo
	All     *UndoAll
	Restore string // key of a deleted flag that can come back
	Version int64
	Alert   bool
}

func (Toast) template() (page, name string) { return "", "toast" }

// Swaps is several fragments in one answer, each for its own place.
type Swaps struct {
	Title string // of the document, or ""
	Main  View   // for the request's own target, or nil
	Parts []Part
}

// Part is a fragment for one place.
type Part struct {
	Target string // a selector
	Swap   string // htmx's style
	View   View
	Text   string // instead of a view
}

// Palette is what the command palette finds.
type Palette struct {
	Text   string
	Groups []PaletteGroup
}

func (Palette) template() (page, name string) { return "", "palette" }

// PaletteGroup is one kind of findings.
type PaletteGroup struct {
	ID, Name string
	Options  []PaletteOption
}

// PaletteOption is one finding.
type PaletteOption struct {
	ID                   string
	Icon                 string
	State                *State
	Before, Match, After string // the label, around what was typed
	Mono                 bool
	Description          string
	End                  string
	Href                 string
	Post                 string // the address to post to, for an action
	Dialog               bool   // Href opens a dialog
}

// Suggest is what a picker offers.
type Suggest struct {
	ID      string // of the list
	Options []Choice
	More    int
}

func (Suggest) template() (page, name string) { return "", "suggest" }

// Datalist is what a field with a datalist offers.
type Datalist struct{ Options []Choice }

func (Datalist) template() (page, name string) { return "", "datalist" }

// Chip is one chosen value of an axis, with the way to remove it.
type Chip struct{ Key, Axis, Value string }

// SignIn is the page before a session.
type SignIn struct {
	Provider string // the identity provider's host; "" where there is none
	Link     bool   // a one-time link can be had
	Printed  bool   // a new one has been printed
	ReturnTo string
	Error    string
	Reason   string // why there is no sign-in here, in words
}

func (SignIn) template() (page, name string) { return "login", "layout" }

// NoGroup tells a person whom the identity provider knows why they are not in.
type NoGroup struct {
	Who            string
	Groups         []string // that the provider sent
	Operator, Read string   // those that let people in; Read may be ""
	ReturnTo       string
}

func (NoGroup) template() (page, name string) { return "no_group", "layout" }

// SignInLink is the page that redeems a one-time link.
type SignInLink struct {
	ReturnTo string
	Error    string
}

func (SignInLink) template() (page, name string) { return "link", "layout" }

// SignInDialog opens over a page whose session has ended.
type SignInDialog struct{ ReturnTo string }

func (SignInDialog) template() (page, name string) { return "", "signin-dialog" }

// ErrorPage is a whole page that says what went wrong.
type ErrorPage struct {
	Chrome
	SignedIn bool
	Status   int
	Heading  string
	Text     string
	ID       string // of the request, to search the log for
	Back     string
	BackText string
}

func (ErrorPage) template() (page, name string) { return "error", "layout" }
