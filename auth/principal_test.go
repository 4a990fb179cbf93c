package auth

import (
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
