package templates

// PartnersPage is the partners of the registry.
type PartnersPage struct {
	Chrome
	List    PartnerList
	Removed string // name of the one that was removed just now
	Group   string // of its people, which is still there
	Ask     View   // the form of a new one without JavaScript
}

func (PartnersPage) template() (page, name string) { return "partners", "layout" }

// PartnerList is the partners that a filter lets through.
type PartnerList struct {
	Text    string
	Rows    []PartnerRow
	Matches int // how many match; more than Rows where the list is cut
	Total   int
}

func (PartnerList) template() (page, name string) { return "partners", "partner-list" }

// Count says in words how many there are.
func (l PartnerList) Count() string { return counted(l.Matches, "partner") }

// PartnerRow is one partner in the list.
type PartnerRow struct {
	Name, Slug string
	Tenants    int
}

// PartnerHead is what the page of a partner says above its tenants.
type PartnerHead struct {
	Facts                           []TenantFact
	AuditLink, EditLink, RemoveLink string
}

// NewPartner is the dialog that makes a partner.
type NewPartner struct {
	Slug, Name string
	SlugError  string
	Taken      bool // SlugError is that the slug is taken
	NameError  string
	Page       bool // shown without JavaScript
}

func (NewPartner) template() (page, name string) { return "", "partner-new" }

// PartnerEdit is the form that renames a partner.
type PartnerEdit struct {
	Slug, Name string
	Base       string // the name that the form began from
	NameError  string
	Stale      string // who renamed it meanwhile, in words
	Page       bool   // shown without JavaScript
	Back       string
}

func (PartnerEdit) template() (page, name string) { return "", "partner-edit" }

// PartnerRemoval asks before a partner is removed, or says what keeps it.
type PartnerRemoval struct {
	Slug, Name  string
	Group       string  // of its people
	Tenants     []Named // that have it, the first of them
	TenantCount int
	Flags       []string // whose scope names it, the first of them
	FlagCount   int
	AllFlags    string // address of these
	Refused     bool   // it was to be removed, and is not
	Page        bool   // shown without JavaScript
	Back        string // its page
}

func (PartnerRemoval) template() (page, name string) { return "", "partner-remove" }

// Used tells whether something keeps the partner.
func (p PartnerRemoval) Used() bool { return p.TenantCount+p.FlagCount > 0 }

// UsedBy says in words what keeps it.
func (p PartnerRemoval) UsedBy() string {
	tenants, flags := counted(p.TenantCount, "tenant"), counted(p.FlagCount, "flag")
	switch {
	case p.FlagCount == 0:
		return tenants
	case p.TenantCount == 0:
		return flags
	}
	return tenants + " and " + flags
}
