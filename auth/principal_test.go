package auth

import (
	"strings"
	"testing"

	"github.com/dezky/platform-api/db"
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
