package handlers

import (
	"cmp"
	"net/http"

	"github.com/dezky/platform-api/auth"
	"github.com/dezky/platform-api/flags"
)

// meAnswer is who asks, and which tenants are theirs.
type meAnswer struct {
	Profile      profile             `json:"profile"`
	Tenants      []flags.Subscriber  `json:"tenants"`
	Subscription *flags.Subscription `json:"subscription"` // of the first of them
}

// profile is a principal as it is told of itself.
type profile struct {
	Email   string   `json:"email"`
	Name    string   `json:"name"`
	Subject string   `json:"subject"`
	Kind    string   `json:"kind"` // operator, service or portal of a JWT, else token or session
	Groups  []string `json:"groups"`
}

func profileOf(p *auth.Principal) profile {
	out := profile{p.Email, cmp.Or(p.FullName, p.Name), p.Subject, string(p.Kind), list(p.Groups)}
	switch {
	case p.Via == flags.ViaToken:
		out.Kind, out.Name, out.Subject = "token", p.ConsumerName(), p.TokenID
	case p.Kind == "":
		out.Kind = "session"
	}
	return out
}

// me tells a principal who it is. Its tenants are those that GET /tenants has for it; who may only evaluate
// may list none.
func (a *app) me(w http.ResponseWriter, r *http.Request, c call) error {
	lists := c.principal.May(auth.Read) || c.principal.Role == auth.Member
	ts, err := pageOf(w, r, inReach(a.db.Current(), c.principal), slugOf, func(t *flags.Tenant) bool {
		return lists && c.principal.Sees(t)
	})
	if err != nil {
		return err
	}
	out := meAnswer{Profile: profileOf(c.principal), Tenants: []flags.Subscriber{}}
	for _, t := range ts {
		out.Tenants = append(out.Tenants, flags.Subscriber{Tenant: t})
	}
	if len(ts) > 0 {
		first := ts[0].Subscription()
		out.Subscription = &first
	}
	return writeJSON(w, http.StatusOK, out)
}
