package templates

// TenantsPage is the registry, or the part of it that a filter lets through.
type TenantsPage struct {
	Chrome
	List        TenantList
	Partner     *PartnerHead // of the partner whose page this is
	Saved       bool         // it was renamed just now
	Removed     string       // the slug of the tenant that was removed just now
	Reconcile   bool         // all can be brought in line in another system
	Reconciling Reconciling
	Ask         View // a dialog that is asked without JavaScript
}

func (TenantsPage) template() (page, name string) { return "tenants", "layout" }

// TenantList is one page of tenants.
type TenantList struct {
	Filter        TenantFilter
	Partner       string // name of the filter's partner, whose page this then is
	Unserved      bool   // that partner has no tenants at all
	Partners      []Choice
	Plans         []PlanPill
	Provisioning  []Choice // states to filter by; none where no other system holds tenants
	Rows          []TenantRow
	Env           string
	Matches       int
	Total         int
	From, To      int // which of the matches the rows are
	Newer, Older  string
	WithoutFilter string
}

func (TenantList) template() (page, name string) { return "tenants", "tenant-list" }

// Count says in words how many there are.
func (l TenantList) Count() string { return counted(l.Matches, "tenant") }

// TenantFilter is what the address says about the list of tenants.
type TenantFilter struct {
	Text, Plan, Partner string
	Provisioning        string // state in other systems
	Env                 string // as the address has it, "" for the usual one
}

// PlanPill is the list with one plan, or with any.
type PlanPill struct {
	Word    string
	Link    string
	N       int
	Current bool
}

// PlanPills are the plans to choose from.
type PlanPills struct{ Plans []PlanPill }

func (PlanPills) template() (page, name string) { return "tenants", "plan-pills" }

// TenantRow is one tenant in the list.
type TenantRow struct {
	Name, Slug, Plan, Partner string
	Suspended                 bool
	On, Flags                 int
	Width                     string // of the bar, in per cent of the flags
	Link                      string
	Held                      Held
}

// Held is how other systems hold a tenant.
type Held struct {
	State string // pending, ok, error; "" where none does
	Word  string
	Icon  string
	Error string // in words
}

// AuditPage is the log, newest first.
type AuditPage struct {
	Chrome
	Filter  AuditFilter
	Actions []Choice
	Entries []AuditRow
	CSV     string
	Lines   string // address of the log as lines of JSON
	Most    int    // entries of a CSV
	Older   string // address of the next page, or ""
	Newest  string // address of the first page, where this is another
	Fresh   bool   // nothing restricts the log
	Presets []Link // ranges that are asked for often
}

func (AuditPage) template() (page, name string) { return "audit", "layout" }

// AuditFilter is what the address says about the log.
type AuditFilter struct {
	Flag, Tenant, Partner, Actor, Action string
	From, To                             string // times as an input has them, in UTC
}

// Link is a way to another page.
type Link struct{ Word, Href string }

// DifferencePage is who gained and who lost which flag between two moments.
type DifferencePage struct {
	Chrome
	Filter       DifferenceFilter
	Errors       map[string]string
	Plans        []Choice
	Environments []Choice
	Changes      []Choice
	Presets      []Link
	Log          string // address of the log's entries of the same time
	CSV          string
	Compared     bool // the rest says something
	FromAt, ToAt string
	Says         string // what flipped, in one line
	Flags        []FlagTurned
	MoreFlags    int // that are not in Flags
	Groups       []TurnGroup
	Shown, Total int
	First, Next  string // addresses of other pages of the list, or ""
	Clear        string // address without filters but the times, or "" where there are none
}

func (DifferencePage) template() (page, name string) { return "difference", "layout" }

// DifferenceFilter is what the address says about a difference.
type DifferenceFilter struct{ From, To, Flag, Tenant, Partner, Plan, Env, Change string }

// FlagTurned is one flag with how many tenants gained and lost it.
type FlagTurned struct {
	Key, Link    string
	Gained, Lost int
}

// TurnGroup is one flag's part of a page of turns.
type TurnGroup struct {
	FlagTurned // its link is the flag's page, "" where there is none any more
	Rows       []TurnRow
}

// TurnRow is one flag that turned for one tenant.
type TurnRow struct {
	Name, Slug, Link string // no link: the tenant is not there now
	Plan, Partner    string
	Gained           bool
	Environments     string
	Is               string // new, removed, or ""
}

// AuditRow is one entry of the log in its list.
type AuditRow struct {
	HistoryEntry
	Self    string // the entry's own address
	Restore int64  // the version to which the deleted flag can come back, or 0
}

// AuditEntryPage is one entry of the log, whole.
type AuditEntryPage struct {
	Chrome
	Entry                   AuditRow
	Action                  string
	Since, Change           string // what flipped since then, and by it; "" for the log's first entry
	Subject, Issuer, Client string // who it was to an identity provider, where one knows
	Fields                  []AuditField
	Reach                   []AuditReach
	Before                  string   // address at which flags come back to before it, or ""
	Undo                    *UndoAll // takes back all flags of the change that it is of, where there are more
}

func (AuditEntryPage) template() (page, name string) { return "audit_entry", "layout" }

// AuditField is a changed field with its whole values.
type AuditField struct {
	Name, From, To string
	Had, Has       bool // there was, there is a value
}

// AuditReach is who gained and who lost a flag in one environment, and where that was nobody.
type AuditReach struct {
	ReachChange
	Nobody bool
}

// TokensPage is the API tokens.
type TokensPage struct {
	Chrome
	Rows    []TokenRow
	Active  int
	Form    TokenForm
	Secret  *TokenSecret // of the one that was made just now
	Revoked string       // name of the one that was revoked just now
	Ask     *RevokeToken // the question without JavaScript
}

func (TokensPage) template() (page, name string) { return "tokens", "layout" }

// Count says in words how many there are.
func (p TokensPage) Count() string { return counted(p.Active, "active token") }

// TokenRow is one API token.
type TokenRow struct {
	ID, Name, Role, Env string
	Status              string // Active, Expired, Revoked
	CreatedBy           string
	Created             Time
	Used                *Time  // nil: never
	Ends                *Time  // expires or was revoked; nil: never
	EndsWord            string // before Ends
	Revocable           bool
}

// TokenForm makes an API token.
type TokenForm struct {
	Open   bool
	Name   string
	Days   string
	Roles  []Choice
	Envs   []Choice
	Errors map[string]string
}

// TokenSecret is shown once.
type TokenSecret struct {
	Name, Secret string
	Warning      string // what is not well with it yet, or ""
}

// RevokeToken asks before an API token ends for ever.
type RevokeToken struct {
	ID, Name, Role string
	Used           *Time
	Page           bool // shown without JavaScript
}

func (RevokeToken) template() (page, name string) { return "tokens", "revoke" }

// StatusPage says how the appliance is.
type StatusPage struct {
	Chrome
	Groups    []StatusGroup
	Consumers []ConsumerRow
	Text      string // all of it, to be copied
	Drill     bool   // the replica's drill can be run
	Freezing  *FreezeForm
}

func (StatusPage) template() (page, name string) { return "status", "layout" }

// FreezeForm stops all changes until a time.
type FreezeForm struct {
	Frozen      bool // they are stopped already: it gives another reason and end
	Reason      string
	Until       string // as a form has it, in UTC
	Least, Most string // of Until
	Errors      map[string]string
}

// StatusGroup is some facts under a heading.
type StatusGroup struct {
	Name  string
	Facts []StatusFact
}

// StatusFact is one fact; Note says more where it is needed.
type StatusFact struct{ Name, Value, Note string }

// ConsumerRow is a credential that evaluates, with what it received last.
type ConsumerRow struct {
	Name, Kind string
	Evaluated  Time
	Revision   int64
	Behind     string // how many revisions it lacks, in words; "" is none
}

// SettingsPage is how a person likes the console.
type SettingsPage struct {
	Chrome
	Themes    []Choice
	Densities []Choice
	Choices   []Choice // environments
	Saved     bool
}

func (SettingsPage) template() (page, name string) { return "settings", "layout" }

// counted is a number with its noun.
func counted(n int, noun string) string {
	if n == 1 {
		return "1 " + noun
	}
	return decimal(n) + " " + noun + "s"
}
