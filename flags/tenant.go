package flags

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"
)

// Plans lists the plans a tenant can have, the smallest first.
var Plans = []string{"starter", "business", "enterprise"}

// The statuses of a tenant. Evaluation ignores them.
const (
	Active    = "active"
	Suspended = "suspended"
)

// MaxName is the most characters of a tenant's or a partner's name.
const MaxName = 200

// Tenant is one customer. A Tenant in a Snapshot is never changed.
type Tenant struct {
	ID          string // [A-Za-z0-9_-]{1,64}; never changes; decides the rollout buckets
	Slug        string // [a-z0-9][a-z0-9-]{0,62}; never changes
	Name        string
	Plan        string
	PartnerSlug string // "" when the tenant came directly
	Status      string
	CreatedAt   time.Time
	UpdatedAt   time.Time

	SubscribedAt time.Time // since when it has its plan and status; no change of the rest moves it

	Integrations *Integrations // how other systems hold it; shared by all versions of the tenant, and live
}

// Mark stands for what the tenant is now, its values included: milliseconds alone would not tell two changes
// apart. Whoever gives db the mark of what they saw overwrites nothing that they did not see.
func (t *Tenant) Mark() string {
	sum := sha256.Sum256([]byte(strings.Join([]string{t.ID, t.Name, t.Plan, t.PartnerSlug, t.Status, strconv.FormatInt(t.UpdatedAt.UnixMilli(), 10)}, "\n")))
	return hex.EncodeToString(sum[:8])
}

// tenantFields is a tenant in JSON.
type tenantFields struct {
	ID                 string            `json:"id"`
	Slug               string            `json:"slug"`
	Name               string            `json:"name"`
	Plan               string            `json:"plan"`
	PartnerSlug        *string           `json:"partnerSlug"`
	Status             string            `json:"status"`
	ProvisioningStatus map[string]string `json:"provisioningStatus"`
	ProvisioningErrors map[string]string `json:"provisioningErrors"`
	CreatedAt          time.Time         `json:"createdAt"`
	UpdatedAt          time.Time         `json:"updatedAt"`
}

// Subscription is a tenant's plan and status, and since when it has both.
type Subscription struct {
	Plan   string    `json:"plan"`
	Status string    `json:"status"`
	Since  time.Time `json:"since"`
}

// Subscription returns what the tenant has.
func (t *Tenant) Subscription() Subscription {
	return Subscription{t.Plan, t.Status, t.SubscribedAt}
}

// Subscriber is a tenant whose JSON form has its subscription too.
type Subscriber struct{ *Tenant }

// MarshalJSON writes the tenant with its subscription.
func (s Subscriber) MarshalJSON() ([]byte, error) {
	return json.Marshal(struct {
		tenantFields
		Subscription Subscription `json:"subscription"`
	}{s.fields(), s.Subscription()})
}

func (t *Tenant) fields() tenantFields {
	states, errors := t.Integrations.States()
	return tenantFields{t.ID, t.Slug, t.Name, t.Plan, optional(t.PartnerSlug), t.Status, states, errors, t.CreatedAt, t.UpdatedAt}
}

// MarshalJSON writes no partner as null and no integrations as empty objects.
func (t Tenant) MarshalJSON() ([]byte, error) { return json.Marshal(t.fields()) }

// optional is the JSON form of a text that may be missing: null for "".
func optional(s string) *string {
	if s == "" {
		return nil
	}
	return &s
}

// Partner resells to tenants.
type Partner struct {
	Slug      string    `json:"slug"`
	Name      string    `json:"name"`
	CreatedAt time.Time `json:"-"`
	UpdatedAt time.Time `json:"-"`
}

// TenantPatch is a change of some of a tenant's fields, or, with ID and Slug, a new tenant.
type TenantPatch struct {
	ID, Slug, Name, Plan, PartnerSlug, Status *string

	// ProvisioningStatus is the state of the integrations of a new tenant; no request sets it.
	ProvisioningStatus map[string]string

	// Problems are mistakes found while decoding; Apply reports them with its own.
	Problems []FieldError
}

// Apply returns t as changed by p, or *Invalid naming every bad field. An id or slug that t has already
// can't be changed; on a new tenant slug, name and plan are required. An empty PartnerSlug is none.
func (p *TenantPatch) Apply(t Tenant, known Known) (Tenant, error) {
	bad := Invalid{Errors: slices.Clone(p.Problems)}
	fail := func(field, message string) { bad.Errors = append(bad.Errors, FieldError{field, message}) }

	// have is the field's text after the change; a name whose decoding failed is not also called missing.
	have := func(field string, now *string, to *string, required bool, check func(string) string) {
		switch {
		case to != nil:
			if *now = *to; field == "name" {
				*now = strings.TrimSpace(*to)
			}
			if message := check(*now); message != "" {
				fail(field, message)
			}
		case required && *now == "" && !bad.names(field):
			fail(field, "is required")
		}
	}
	fixed := func(field string, now string, check func(string) string) func(string) string {
		return func(to string) string {
			if now != "" && to != now {
				return fmt.Sprintf("is %q and never changes", now)
			}
			return check(to)
		}
	}
	have("id", &t.ID, p.ID, false, fixed("id", t.ID, checkID))
	have("slug", &t.Slug, p.Slug, true, fixed("slug", t.Slug, checkTenantSlug))
	have("name", &t.Name, p.Name, true, checkName)
	have("plan", &t.Plan, p.Plan, true, func(v string) string {
		i := slices.Index(Plans, v)
		if i < 0 {
			return unknownMessage(AxisPlans, v)
		}
		t.Plan = Plans[i] // many have the same: one text for all
		return ""
	})
	before := t.PartnerSlug
	have("partnerSlug", &t.PartnerSlug, p.PartnerSlug, false, func(v string) string {
		if v != "" && v != before && !known(AxisPartners, v) {
			return unknownMessage(AxisPartners, v)
		}
		return ""
	})
	have("status", &t.Status, p.Status, false, func(v string) string {
		if v != Active && v != Suspended {
			return "must be active or suspended"
		}
		return ""
	})
	if t.Status == "" {
		t.Status = Active
	}
	if t.Integrations == nil {
		t.Integrations = NewIntegrations(p.ProvisioningStatus, nil)
	}
	if len(bad.Errors) > 0 {
		return Tenant{}, &bad
	}
	return t, nil
}

func (e *Invalid) names(field string) bool {
	return slices.ContainsFunc(e.Errors, func(f FieldError) bool { return f.Field == field })
}

// PartnerPatch is a change of a partner's name, or, with Slug, a new partner.
type PartnerPatch struct {
	Slug, Name *string

	// Problems are mistakes found while decoding; Apply reports them with its own.
	Problems []FieldError
}

// Apply returns pa as changed by p, or *Invalid naming every bad field.
func (p *PartnerPatch) Apply(pa Partner) (Partner, error) {
	// A partner has the fields of a tenant that has only a slug and a name, under the same rules.
	as := TenantPatch{Slug: p.Slug, Name: p.Name, Problems: p.Problems}
	t, err := as.Apply(Tenant{Slug: pa.Slug, Name: pa.Name, Plan: Plans[0]}, nil)
	if err != nil {
		return Partner{}, err
	}
	pa.Slug, pa.Name = t.Slug, t.Name
	return pa, nil
}

func checkID(id string) string {
	ok := len(id) >= 1 && len(id) <= 64
	for i := 0; ok && i < len(id); i++ {
		c := id[i]
		ok = c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9' || c == '_' || c == '-'
	}
	if !ok {
		return "must be 1 to 64 letters, digits, underscores and hyphens"
	}
	return ""
}

func checkTenantSlug(slug string) string {
	if slug == "import" {
		return `"import" is reserved`
	}
	ok := len(slug) >= 1 && len(slug) <= 63 && slug[0] != '-'
	for i := 0; ok && i < len(slug); i++ {
		c := slug[i]
		ok = c >= 'a' && c <= 'z' || c >= '0' && c <= '9' || c == '-'
	}
	if !ok {
		return "must be 1 to 63 lower-case letters, digits and hyphens, and not begin with a hyphen"
	}
	return ""
}

func checkName(name string) string {
	switch n := utf8.RuneCountInString(name); {
	case n == 0:
		return "must not be empty"
	case n > MaxName:
		return fmt.Sprintf("has %d characters; at most %d are allowed", n, MaxName)
	case strings.ContainsFunc(name, unicode.IsControl):
		return "must not contain control characters"
	case strings.ContainsRune(name, utf8.RuneError):
		return notTextMessage
	}
	return ""
}
