package templates

// TenantPage is one tenant with every flag.
type TenantPage struct {
	Chrome
	Top    TenantTop
	At     Moment // that is asked for
	List   TenantFlags
	Dialog View // one that is asked without JavaScript
}

func (TenantPage) template() (page, name string) { return "tenant", "layout" }

// TenantTop is what is known of one tenant, and what can be done with it.
type TenantTop struct {
	Name, Slug   string
	Suspended    bool
	Operator     bool
	Done         *TenantDone // what was done just now
	Then         *TenantThen // it is shown as it was
	Facts        []TenantFact
	Provisioning Provisioning
	AuditLink    string
	EditLink     string
	RemoveLink   string
	StatusLink   string // suspends and resumes
}

func (TenantTop) template() (page, name string) { return "tenant", "tenant-top" }

// TenantDone says what was done, and which flags that flipped.
type TenantDone struct {
	Text  string
	Flips []TenantFlips
}

// TenantThen says of when the page is, and who the tenant was.
type TenantThen struct {
	At    string
	Other string // in a sentence: it was another tenant than now, or is none now
	Later string // in a sentence: flags that did not exist then
	Now   string // the address of the page of now
}

// TenantFact is one line of what is known of a tenant.
type TenantFact struct {
	Name, Value string
	Link        string
	Mono        bool
	Time        *Time // instead of Value
	Status      bool  // it can be suspended and resumed here
}

// TenantFlags is the flags of one tenant in one environment.
type TenantFlags struct {
	Tenant  string // name
	Env     string
	Pills   []PlanPill // all, on, off
	Show    string
	Rows    []TenantFlag
	Any     bool // there are flags at all
	AllLink string
}

// TenantFlag is a flag as one tenant has it.
type TenantFlag struct {
	Key, Description string
	State            State // on or off
	Reason           string
	Link             string
	Now              string // where it is not so now: on, off, gone
}

// TenantEdit is the form that changes a tenant.
type TenantEdit struct {
	Slug     string
	Base     string // the mark of the tenant that the form began from
	Fields   TenantFields
	Impact   TenantImpact
	Stale    string // who changed it meanwhile and what is live, in words
	Page     bool   // shown without JavaScript
	Back     string
	Action   string // the address that saves
	Previews string // the address that shows the effect
}

func (TenantEdit) template() (page, name string) { return "tenant", "tenant-edit" }

// TenantNew is the dialog that makes a tenant.
type TenantNew struct {
	Slug, ID string
	Exists   bool // the slug is taken
	Fields   TenantFields
	Page     bool // shown without JavaScript
	Back     string
}

func (TenantNew) template() (page, name string) { return "", "new-tenant" }

// TenantFields are what a form says of a tenant, beside slug and id.
type TenantFields struct {
	Name     string
	Plans    []Choice
	Partners []Choice
	Statuses []Choice
	Errors   map[string]string
	Focus    string // the first field with an error, else name
}

// TenantImpact is which flags the form's changes flip for its tenant.
type TenantImpact struct {
	Changed bool // the form changes something
	Count   int
	Flips   []TenantFlips
}

func (TenantImpact) template() (page, name string) { return "tenant", "tenant-impact" }

// Says tells how many flags flip.
func (i TenantImpact) Says() string {
	switch i.Count {
	case 0:
		return "no flag flips"
	case 1:
		return "1 flag flips"
	}
	return counted(i.Count, "flag") + " flip"
}

// SaveLabel is the button's.
func (i TenantImpact) SaveLabel() string {
	if !i.Changed {
		return "Save tenant"
	}
	return "Save · " + i.Says()
}

// TenantFlips are the flags that a tenant gains and loses in some environments.
type TenantFlips struct {
	Envs          string
	Gains, Losses []string
}

// TenantRemove asks before a tenant is removed.
type TenantRemove struct {
	Name, Slug, Base string
	Env              string
	On               []string // the flags that are on for it
	Group            string   // in Authentik; "" where nothing is held there
	Scoped           []string // flags whose scope names it, which forbid the removal
	Stale            string   // who changed it meanwhile, in words
	Page             bool     // shown without JavaScript
	Back             string
	Action           string
}

func (TenantRemove) template() (page, name string) { return "tenant", "tenant-remove" }

// Provisioning is how other systems hold a tenant. Without rows it is not shown.
type Provisioning struct {
	Rows      []ProvisioningRow
	Waiting   bool   // it asks again by itself until nothing is pending
	Asks      string // the address that it asks
	Reconcile string // the address that brings the tenant in line; "" for those who may not
	Page      string // the tenant's page, for those without JavaScript
}

func (Provisioning) template() (page, name string) { return "tenant", "provisioning" }

// ProvisioningRow is one of these systems.
type ProvisioningRow struct {
	Name string
	Held
}
