package auth

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/dezky/platform-api/db"
	"github.com/dezky/platform-api/flags"
)

func TestMay(t *testing.T) {
	principal := func(r Role) *Principal { return &Principal{Role: r} }
	tests := []struct {
		name                     string
		in                       *Principal
		evaluate, read, operator bool
	}{
		{"without credentials", nil, false, false, false},
		{"nobody", principal(Nobody), false, false, false},
		{"evaluate", principal(Evaluate), true, false, false},
		{"read", principal(Read), true, true, false},
		{"operator", principal(Operator), true, true, true},
	}
	for _, tt := range tests {
		for need, want := range map[Role]bool{Evaluate: tt.evaluate, Read: tt.read, Operator: tt.operator} {
			if got := tt.in.May(need); got != want {
				t.Errorf("%s: May(%v) = %t, want %t", tt.name, need, got, want)
			}
		}
	}
}

// A member sees its own tenants, and those that are its partner's as they stand in the registry.
func TestSees(t *testing.T) {
	member := &Principal{Role: Member, Tenants: []string{"acme", "globex"}, Partners: []string{"fjordit", "nordhost"}}
	direct := &Principal{Role: Member, Tenants: []string{"acme"}}
	for _, tt := range []struct {
		name          string
		who           *Principal
		slug, partner string
		want          bool
	}{
		{"its own", member, "acme", "", true},
		{"its own, of another's partner", member, "globex", "mailbyen", true},
		{"its partner's", member, "hooli", "nordhost", true},
		{"its other partner's", member, "hooli", "fjordit", true},
		{"another partner's", member, "hooli", "mailbyen", false},
		{"without a partner", member, "hooli", "", false},
		{"named as its partner is", member, "nordhost", "", false},
		{"of a partner named as its tenant is", member, "hooli", "acme", false},
		{"of no partner's people", direct, "hooli", "nordhost", false},
		{"of no partner's people, and without a partner", direct, "hooli", "", false},
		{"an unnamed partner's people", &Principal{Role: Member, Partners: []string{""}}, "hooli", "", false},
		{"nothing of its own", &Principal{Role: Member}, "hooli", "nordhost", false},
		{"no member", &Principal{Role: Evaluate}, "hooli", "nordhost", true},
	} {
		tenant := &flags.Tenant{Slug: tt.slug, PartnerSlug: tt.partner}
		if got := tt.who.Sees(tenant); got != tt.want {
			t.Errorf("%s: Sees(%s of %q) = %t, want %t", tt.name, tt.slug, tt.partner, got, tt.want)
		}
		if n := testing.AllocsPerRun(100, func() { tt.who.Sees(tenant) }); n != 0 {
			t.Errorf("%s: Sees makes %v allocations, want none", tt.name, n)
		}
	}
}

// Of what is claimed, so much is kept.
func TestKeptClaims(t *testing.T) {
	names := func(n int) (out []string) {
		for i := range n {
			out = append(out, fmt.Sprintf("tenant:%07d", i))
		}
		return out
	}
	long := []string{"a", strings.Repeat("ø", groupsSize/2), "b"}
	for _, tt := range []struct {
		name     string
		in, want []string
	}{
		{"none", nil, nil},
		{"an empty list", []string{}, nil},
		{"as they came", []string{"b", "", "a", "b", "ÆØÅ"}, []string{"b", "", "a", "b", "ÆØÅ"}},
		{"the most", names(groupsMost), names(groupsMost)},
		{"one more", names(groupsMost + 1), names(groupsMost)},
		{"too long together", long, long[:1]},
		{"the longest together", long[1:2], long[1:2]},
	} {
		got := some(tt.in)
		if !slices.Equal(got, tt.want) || cap(got) != len(got) {
			t.Errorf("%s: some = %d groups of %d places, want %d", tt.name, len(got), cap(got), len(tt.want))
		}
	}
	most := strings.Repeat("ø", nameMost)
	for in, want := range map[string]string{"": "", "Ærlig Ødegård 👩‍💻": "Ærlig Ødegård 👩‍💻", most: most, most + "x": most} {
		if got := short(in); got != want {
			t.Errorf("short(%q) = %q, want %q", in, got, want)
		}
	}
}

func TestParseRole(t *testing.T) {
	for _, r := range []Role{Evaluate, Read, Operator} {
		if got, err := ParseRole(r.String()); got != r || err != nil {
			t.Errorf("ParseRole(%q) = %v, %v, want %v", r.String(), got, err, r)
		}
	}
	for _, name := range []string{"", "nobody", "Operator", "admin", "member"} {
		if got, err := ParseRole(name); got != Nobody || err == nil {
			t.Errorf("ParseRole(%q) = %v, %v, want an error", name, got, err)
		}
	}
	// Every role that a token can have is one.
	for _, name := range db.TokenRoles {
		if _, err := ParseRole(name); err != nil {
			t.Error(err)
		}
	}
}

func TestBy(t *testing.T) {
	p := Principal{Name: "token:ci", Role: Operator}
	if got, want := p.By(), (db.By{Actor: "token:ci"}); got != want {
		t.Errorf("By() = %+v, want %+v", got, want)
	}
}

// No two credentials are one consumer, and none has a name that is not fit to be shown.
func TestConsumer(t *testing.T) {
	for _, tt := range []struct {
		p        Principal
		id, name string
	}{
		{Principal{Issuer: "https://id", Client: "portal", Subject: "1"}, "client https://id portal", "portal"},
		{Principal{Issuer: "https://id", Subject: "1"}, "subject https://id 1", "1"},
		{Principal{Issuer: "https://id", Client: "token:ci\n", Subject: "1"}, "client https://id token:ci\n", "person:token:ci"},
	} {
		if id, name := tt.p.consumer(), tt.p.ConsumerName(); id != tt.id || name != tt.name {
			t.Errorf("%+v is the consumer %q, shown as %q, want %q and %q", tt.p, id, name, tt.id, tt.name)
		}
	}
	if got := (&Principal{Name: "token:ci", Via: flags.ViaToken}).ConsumerName(); got != "ci" {
		t.Errorf("a token's ConsumerName = %q, want ci", got)
	}
}

func TestLabel(t *testing.T) {
	long := strings.Repeat("å", 300)
	for _, tt := range []struct{ email, username, subject, want string }{
		{"ops@dezky.example", "ops", "1", "ops@dezky.example"},
		{"", "ops", "1", "ops"},
		{" \t", "", "1", "1"},
		{"", "", "\n", "person:unknown"},
		{"system:seed", "", "1", "person:system:seed"},
		{"", "Token:ci", "1", "person:Token:ci"},
		{"operator@localhost", "", "1", "person:operator@localhost"},
		{"\u200bsystem:seed", "", "1", "person:system:seed"},
		{"\u202esystem:seed", "", "1", "person:system:seed"},
		{"sys\u00adtem:seed", "", "1", "sys tem:seed"},
		{"a\nb\x1b[31mc", "", "1", "a b [31mc"},
		{long, "", "1", long[:2*nameMost]},
	} {
		if got := label(tt.email, tt.username, tt.subject); got != tt.want {
			t.Errorf("label(%q, %q, %q) = %q, want %q", tt.email, tt.username, tt.subject, got, tt.want)
		}
	}
}
