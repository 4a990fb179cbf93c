package templates

import "strconv"

// ImportPage takes tenants in from a file or from what is pasted.
type ImportPage struct {
	Chrome
	State  ImportState
	Pasted string // the rows that were pasted, where the page comes anew
}

func (ImportPage) template() (page, name string) { return "import", "layout" }

// ImportState is the import that runs, or what came of the last one, with the buttons for the next.
type ImportState struct {
	Running     bool
	Who         string // whose it is, "" is the reader's own
	Refused     bool   // the reader's own was not begun
	Check       bool   // it only checks
	Done, Total int    // rows; while these are read there is no total
	Result      *ImportResult
	Focus       bool // it answers what the reader did
}

func (ImportState) template() (page, name string) { return "import", "import-state" }

// Ready tells whether a check has found something to import.
func (s ImportState) Ready() bool {
	return s.Result != nil && s.Result.Check && s.Result.OK() && s.Result.Created+s.Result.Changed > 0
}

// Button is what the button says that imports.
func (s ImportState) Button() string {
	if s.Ready() {
		return "Import " + counted(s.Result.Created+s.Result.Changed, "tenant")
	}
	return "Import"
}

// Stage says what the import does.
func (s ImportState) Stage() string {
	switch {
	case s.Total == 0:
		return "Reading rows"
	case s.Check:
		return "Checking"
	}
	return "Writing"
}

// Of says how far it is; "" while nobody knows.
func (s ImportState) Of() string {
	if s.Total == 0 {
		return ""
	}
	return decimal(s.Done) + " of " + decimal(s.Total)
}

// ImportResult is what an import did, or would do after a check.
type ImportResult struct {
	Check                       bool
	Created, Changed, Unchanged int
	Flips                       []ImportFlip
	Mistakes                    []Mistake
	More                        int    // mistakes beside these
	Failed                      string // why it came to nothing, where not for mistakes
	Warning                     string // what is not well with it yet, or ""
	At                          Time
}

// OK tells whether the rows are right, and were taken in unless they were only checked.
func (r ImportResult) OK() bool { return len(r.Mistakes) == 0 && r.Failed == "" }

// Says is the result in a line.
func (r ImportResult) Says() string {
	counts := decimal(r.Created) + " created, " + decimal(r.Changed) + " changed, " + decimal(r.Unchanged) + " unchanged"
	switch {
	case r.Failed != "":
		return r.Failed + " Nothing was changed."
	case len(r.Mistakes) > 0:
		return counted(len(r.Mistakes)+r.More, "mistake") + ". Nothing was changed."
	case r.Check && r.Created+r.Changed == 0:
		return "The rows are right, and " + counted(r.Unchanged, "tenant") + " stay as they are: there is nothing to import."
	case r.Check:
		return "The rows are right. An import makes this: " + counts + "."
	}
	return "Imported: " + counts + "."
}

// Others is how many mistakes are not listed.
func (r ImportResult) Others() string { return decimal(r.More) }

// Mistake is what is wrong in a row.
type Mistake struct{ Line, Field, Message string }

// ImportFlip is a flag that tenants gain or lose by an import.
type ImportFlip struct {
	Key  string
	Envs []ReachChange
}

// Reconciling is how far it is with bringing all tenants in line in another system.
type Reconciling struct {
	Shown               bool
	Running             bool
	Total, Done, Failed int // tenants
}

func (Reconciling) template() (page, name string) { return "tenants", "reconciling" }

// Of says how far it is.
func (r Reconciling) Of() string {
	s := decimal(r.Done) + " of " + decimal(r.Total)
	if r.Failed > 0 {
		s += ", " + decimal(r.Failed) + " failed"
	}
	return s
}

// Says is what came of it.
func (r Reconciling) Says() string {
	if r.Failed > 0 {
		return decimal(r.Done-r.Failed) + " of " + counted(r.Total, "tenant") + " in line with Authentik. " + decimal(r.Failed) + " failed; that is tried again by itself."
	}
	return counted(r.Total, "tenant") + " in line with Authentik."
}

// ReconcileAll asks before every tenant is brought in line.
type ReconcileAll struct {
	Tenants int
	Page    bool // shown without JavaScript
}

func (ReconcileAll) template() (page, name string) { return "tenants", "reconcile-all" }

// Count says in words how many there are.
func (r ReconcileAll) Count() string { return counted(r.Tenants, "tenant") }

// decimal is a whole number with its thousands apart.
func decimal(n int) string { return number(strconv.Itoa(n)) }
