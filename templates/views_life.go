package templates

// FlagLife is a flag's state and reach over time.
type FlagLife struct {
	Chrome
	Key           string
	Exists        bool
	State         State
	Reach, Total  int // now
	Chart         LifeChart
	Rows          []LifeRow
	Newest, Older string // addresses of other pages of the table, or ""
}

func (FlagLife) template() (page, name string) { return "flag_life", "layout" }

// LifeChart is drawn in units of its own, which are stretched.
type LifeChart struct {
	Width, Height, BandHeight int
	Line                      string // of an SVG path
	Most                      int    // the reach at the top
	Bands                     []LifeBand
	Marks                     []LifeMark
	Times                     []string   // at the left, in the middle, at the right
	Patterns                  []LifeBand // one of each state, to explain the bands
	Summary                   string
}

// Under is the line, closed to an area below it.
func (c LifeChart) Under() string {
	if c.Line == "" {
		return ""
	}
	return c.Line + "V" + decimal(c.Height) + "H0Z"
}

// LifeBand is a time in one state. States differ by how much of the band is filled, and by stripes.
type LifeBand struct {
	X, Width int
	Y, High  int // of what is filled
	State    State
	Title    string
}

// Fill fills as much of the band as its state says, at the percent of a rollout.
func (b *LifeBand) Fill(pct, height int) {
	switch b.State.Name {
	case "on", "targeted":
		b.High = height
	case "rollout":
		b.High = max(3, height*pct/100)
	case "off":
		b.High = 2
	}
	b.Y = height - b.High
}

// LifeMark is a change, or some that are close together.
type LifeMark struct {
	X, Y, Count int
	Kill        bool
	Title       string // who, what and why, a line each
}

// LifeRow is a time at which a flag changed or its reach did.
type LifeRow struct {
	When         Time
	Exactly      string
	State        State
	Reach, Total int
	Gained, Lost int
	Entries      []HistoryEntry // Link is the entry's own
	Moved        []LifeMoved
}

// LifeMoved is tenants that were made or removed.
type LifeMoved struct {
	Text    string
	Tenants []Choice // Value is an address
	More    int
}
