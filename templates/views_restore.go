package templates

import "strconv"

// RestorePage brings flags back to how they were at a time.
type RestorePage struct {
	Chrome
	At      string   // as the form has it, in UTC
	Step    string   // of the form's time, in seconds
	Latest  string   // of it
	Presets []Choice // times to choose, as addresses
	Error   string   // what is wrong with the time
	List    *RestoreList
	Ask     View // the question without JavaScript
}

func (RestorePage) template() (page, name string) { return "restore", "layout" }

// RestoreList is how flags differ from then, with a tick for each that is to come back.
type RestoreList struct {
	At      string // exact
	When    string // in words
	Env     string // in which tenants are counted first
	Rows    []RestoreRow
	Tally   RestoreTally
	Done    *RestoreDone
	Changed string // which flags were changed meanwhile, so that nothing was done
	Focus   string // done, changed, all, none
}

func (RestoreList) template() (page, name string) { return "restore", "restore-list" }

// Ticked is how many are to come back.
func (l RestoreList) Ticked() []RestoreRow {
	var out []RestoreRow
	for _, r := range l.Rows {
		if r.Ticked {
			out = append(out, r)
		}
	}
	return out
}

// RestoreRow is a flag that is not as it was: From is now, To is then.
type RestoreRow struct {
	HistoryEntry
	Ticked bool
	Why    string // why it can't come back, or ""
}

// RestoreTally is what the ticked flags would do together.
type RestoreTally struct {
	Flags, Of int
	Reach     []ReachChange // environments in which tenants change, counts only
	Label     string        // of the button
	Frozen    bool          // a freeze stands in the way
}

func (RestoreTally) template() (page, name string) { return "restore", "restore-tally" }

// RestoreDone is flags that one change made, which can be undone as a whole.
type RestoreDone struct {
	Says  string
	Entry int64  // of the log
	At    string // of the page to come back to
}

// Undo is the way back from it.
func (d RestoreDone) Undo() UndoAll { return UndoAll{Entry: d.Entry, At: d.At, Label: "Undo all"} }

// UndoAll takes all flags back that one change made.
type UndoAll struct {
	Entry int64
	At    string
	Label string
}

func (UndoAll) template() (page, name string) { return "", "undo-all" }

// ConfirmRestore asks before many tenants gain flags.
type ConfirmRestore struct {
	Ack   int // tenants that gain a flag somewhere
	Flags int
	Tally RestoreTally
	List  *RestoreList // without JavaScript the dialog carries the whole form
}

func (ConfirmRestore) template() (page, name string) { return "restore", "confirm-restore" }

// What is the question's end.
func (c ConfirmRestore) What() string { return counted(c.Flags, "flag") }

// Gain says how many gain.
func (c ConfirmRestore) Gain() string { return counted(c.Ack, "tenant") }

// Seen is a flag with the version that the page shows, as the form posts it.
func (r RestoreRow) Seen() string { return r.Name + ":" + strconv.FormatInt(r.Version, 10) }

// Count says how many flags are ticked.
func (t RestoreTally) Count() string { return decimal(t.Flags) + " of " + counted(t.Of, "flag") }
