// Package auth says who is asking: it turns a request's credentials into a Principal.
package auth

import (
	"fmt"

	"github.com/dezky/platform-api/db"
)

// Role is what a principal may do. Each role may do what the lower ones may.
type Role int

// The roles, the least first.
const (
	Nobody   Role = iota
	Evaluate      // evaluates flags
	Read          // reads everything
	Operator      // changes things
)

var roleNames = [...]string{"nobody", "evaluate", "read", "operator"}

func (r Role) String() string { return roleNames[r] }

// MarshalText writes a role by its name.
func (r Role) MarshalText() ([]byte, error) { return []byte(r.String()), nil }

// UnmarshalText reads a role's name.
func (r *Role) UnmarshalText(name []byte) (err error) {
	*r, err = ParseRole(string(name))
	return err
}

// ParseRole returns the role of a name, such as "read".
func ParseRole(name string) (Role, error) {
	for i, n := range roleNames {
		if n == name && Role(i) != Nobody {
			return Role(i), nil
		}
	}
	return Nobody, fmt.Errorf("unknown role %q", name)
}

// Principal is who asks, as far as credentials tell. A nil Principal gave none.
type Principal struct {
	Name        string `json:"name"` // for the history: "token:NAME", or a person's email
	Role        Role   `json:"role"`
	Environment string `json:"environment,omitempty"` // where the credential is for one environment only, that one
}

// May tells whether the principal may do what needs the role.
func (p *Principal) May(need Role) bool { return p != nil && p.Role >= need }

// By is the principal as the history names it.
func (p *Principal) By() db.By { return db.By{Actor: p.Name} }
