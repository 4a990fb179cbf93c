// Package auth says who is asking: it turns a request's credentials into a Principal.
package auth

import (
	"fmt"
	"slices"
	"strings"
	"time"
	"unicode"
	"unique"

	"github.com/dezky/platform-api/db"
	"github.com/dezky/platform-api/flags"
)

// Role is what a principal may do. Each role may do what the lower ones may; Member stands apart.
type Role int

// The roles, the least first.
const (
	Nobody   Role = iota
	Evaluate      // evaluates flags
	Read          // reads everything
	Operator      // changes things

	// Member is a customer's person. It may do nothing but what is opened to it: see what of its own
	// tenants is on.
	Member
)

var roleNames = [...]string{"nobody", "evaluate", "read", "operator", "member"}

func (r Role) String() string { return roleNames[r] }

// MarshalText writes a role by its name.
func (r Role) MarshalText() ([]byte, error) { return []byte(r.String()), nil }

// UnmarshalText reads a role's name.
func (r *Role) UnmarshalText(name []byte) (err error) {
	*r, err = ParseRole(string(name))
	return err
}

// ParseRole returns the role of a name, such as "read". Member is none that can be given.
func ParseRole(name string) (Role, error) {
	for i, n := range roleNames {
		if r := Role(i); n == name && r != Nobody && r != Member {
			return r, nil
		}
	}
	return Nobody, fmt.Errorf("unknown role %q", name)
}

// Principal is who asks, as far as credentials tell. A nil Principal gave none.
type Principal struct {
	Name        string    `json:"name"` // for the history: "token:NAME", or a person's email
	Role        Role      `json:"role"`
	Environment string    `json:"environment,omitempty"` // where the credential is for one environment only, that one
	Via         flags.Via `json:"-"`                     // the entrance by which it came
	TokenID     string    `json:"-"`                     // of an API token, its id
	Until       time.Time `json:"-"`                     // when the credential ends by itself; zero is never, or not known

	// What an identity provider says. Who it is, is issuer and subject together; the name is a label.
	Subject string `json:"subject,omitempty"`
	Issuer  string `json:"issuer,omitempty"`
	Client  string `json:"client,omitempty"` // through which of its clients (azp)
	Kind    Kind   `json:"-"`                // of a bearer JWT

	// As claimed, at most 200 characters each, to be shown and never to decide by.
	Email    string   `json:"email,omitempty"`
	FullName string   `json:"fullName,omitempty"` // the display name, else the username
	Groups   []string `json:"groups,omitempty"`   // at most 200 of them, of 16 KiB together

	Tenants  []string `json:"-"` // of a Member: the slugs of its own tenants, sorted
	Partners []string `json:"-"` // of a Member: the slugs of the partners whose tenants are its own too, sorted

	// Consumer identifies the API token or the client that evaluates, "" for a person's session. It is made
	// once for each credential, and no two of them have the same.
	Consumer string `json:"-"`
}

// consumer is a JWT's Consumer: its client, or where it names none its subject, at its issuer.
func (p *Principal) consumer() string {
	if p.Client != "" {
		return "client " + p.Issuer + " " + p.Client
	}
	return "subject " + p.Issuer + " " + p.Subject
}

// ConsumerName is the Consumer as people read it.
func (p *Principal) ConsumerName() string {
	if p.Via == flags.ViaToken {
		return strings.TrimPrefix(p.Name, "token:")
	}
	return label("", p.Client, p.Subject)
}

// May tells whether the principal may do what needs the role.
func (p *Principal) May(need Role) bool {
	return p != nil && (need == Nobody || p.Role != Member && p.Role >= need)
}

// Sees tells whether the principal may know of a tenant: a member sees its own alone, and those that are its
// partner's now.
func (p *Principal) Sees(t *flags.Tenant) bool {
	if p.Role != Member {
		return true
	}
	_, own := slices.BinarySearch(p.Tenants, t.Slug)
	if !own && t.PartnerSlug != "" {
		_, own = slices.BinarySearch(p.Partners, t.PartnerSlug)
	}
	return own
}

// By is the principal as the history names it.
func (p *Principal) By() db.By {
	return db.By{Actor: p.Name, Via: p.Via, Subject: p.Subject, Issuer: p.Issuer, Client: p.Client}
}

// Through is the principal as it came by an entrance; an API token is one wherever it is shown.
func (p *Principal) Through(via flags.Via) *Principal {
	if p.Via == flags.ViaToken {
		return p
	}
	q := *p
	q.Via = via
	return &q
}

// Groups says which groups of an identity provider mean what here.
type Groups struct {
	Operator string // its members change things
	Read     string // its members read; "" is no such group
}

// role is what a person's groups make of them.
func (g Groups) role(groups []string) Role {
	switch {
	case g.Operator != "" && slices.Contains(groups, g.Operator):
		return Operator
	case g.Read != "" && slices.Contains(groups, g.Read):
		return Read
	}
	return Nobody
}

// What begins the name of a group whose members belong to a tenant, or to all tenants of a partner.
const (
	tenantGroup  = "tenant:"
	partnerGroup = "partner:"
)

// slugsOf are the slugs that groups name after a prefix.
func slugsOf(groups []string, prefix string) []string {
	var slugs []string
	for _, g := range groups {
		if slug, ok := strings.CutPrefix(g, prefix); ok && slug != "" {
			slugs = append(slugs, slug)
		}
	}
	slices.Sort(slugs)
	return slices.Compact(slugs)
}

// How much of what is claimed is kept: characters of a name, groups, and the bytes of these together.
const (
	nameMost   = 200
	groupsMost = 200
	groupsSize = 16 << 10
)

// short is a claimed text, or the beginning of one that is too long.
func short(s string) string {
	if len(s) <= nameMost {
		return s
	}
	if runes := []rune(s); len(runes) > nameMost {
		return string(runes[:nameMost])
	}
	return s
}

// some are the first groups, as many as are kept. They are texts that all who are in them share.
func some(groups []string) []string {
	var out []string
	size := 0
	for _, g := range groups[:min(len(groups), groupsMost)] {
		if size += len(g); size > groupsSize {
			break
		}
		out = append(out, unique.Make(g).Value())
	}
	return slices.Clip(out)
}

// invisible characters have no place in a name: what looks like another's is taken for it.
func invisible(r rune) bool {
	return unicode.IsControl(r) || unicode.IsSpace(r) || unicode.Is(unicode.Cf, r)
}

// label is the name of a person for the history: the email, else the username, else the subject. The names
// of what is no person can't be claimed.
func label(email, username, subject string) string {
	for _, name := range []string{email, username, subject} {
		name = strings.Join(strings.FieldsFunc(name, invisible), " ")
		if name == "" {
			continue
		}
		name = short(name)
		lower := strings.ToLower(name)
		if strings.HasPrefix(lower, "token:") || strings.HasPrefix(lower, "system:") || lower == LocalOperator.Name {
			return "person:" + name
		}
		return name
	}
	return "person:unknown" // a subject of blanks alone
}
