package flags

import (
	"errors"
	"strings"
	"testing"
	"time"
)

func changed(action Action, at time.Time, before, after *Tenant) Entry {
	return Entry{Kind: KindTenant, Name: "acme", Action: action, At: at, Changes: DiffTenant(before, after)}
}

// lives are a tenant's states, one after another, and the entries that lead from each to the next.
func lives() (states []*Tenant, log []Entry) {
	day := time.Date(2026, 1, 2, 0, 0, 0, 0, time.UTC)
	at := func(d int) time.Time { return day.AddDate(0, 0, d) }
	first := Tenant{ID: "t1", Slug: "acme", Name: `Ac"me`, Plan: "starter", Status: Active, CreatedAt: at(0), UpdatedAt: at(0), SubscribedAt: at(0)}
	partner := first
	partner.PartnerSlug, partner.UpdatedAt = "nordhost", at(1)
	moved := partner
	moved.PartnerSlug, moved.Plan, moved.UpdatedAt, moved.SubscribedAt = "", "business", at(2), at(2)
	suspended := moved
	suspended.Status, suspended.Name, suspended.UpdatedAt, suspended.SubscribedAt = Suspended, "Acme", at(3), at(3)
	again := Tenant{ID: "t2", Slug: "acme", Name: "Another", Plan: "enterprise", PartnerSlug: "fjordit", Status: Active,
		CreatedAt: at(5), UpdatedAt: at(5), SubscribedAt: at(5)}
	states = []*Tenant{nil, &first, &partner, &moved, &suspended, nil, &again}
	for i, action := range []Action{Created, Updated, Updated, Updated, Deleted, Created} {
		log = append(log, changed(action, at(i), states[i], states[i+1]))
	}
	return states, log
}

func TestTenantAfter(t *testing.T) {
	states, log := lives()
	for i, want := range states {
		got, err := TenantAfter(log[:i])
		if err != nil || (got == nil) != (want == nil) || got != nil && *got != *want {
			t.Errorf("after %d entries %+v, %v, want %+v", i, got, err, want)
		}
	}
	if got, err := TenantAfter(log[5:]); err != nil || *got != *states[6] {
		t.Errorf("from the last creation on %+v, %v, want %+v", got, err, states[6])
	}
	for _, tt := range []struct {
		name string
		log  []Entry
		want string
	}{
		{"a change of nobody", log[1:2], `tenant "acme" was updated, says the log, and was not there`},
		{"a creation that says little", []Entry{changed(Created, time.Time{}, nil, &Tenant{Slug: "acme"})}, `tenant "acme": the log does not say its id, slug and plan`},
		{"an unknown field", []Entry{{Name: "acme", Action: Created, Changes: Changes{"country": {From: encode(nil), To: encode("NO")}}}}, `tenant "acme": a tenant has no country`},
		{"a number for a name", []Entry{{Name: "acme", Action: Created, Changes: Changes{"name": {From: encode(nil), To: encode(7)}}}}, `tenant "acme": name: json: `},
	} {
		if _, err := TenantAfter(tt.log); err == nil || !strings.HasPrefix(err.Error(), tt.want) {
			t.Errorf("%s: %v, want %s", tt.name, err, tt.want)
		}
	}
}

func TestUndoTenant(t *testing.T) {
	states, log := lives()
	other := &Tenant{ID: "t9", Slug: "globex", Name: "Globex", Plan: "starter", Status: Active}
	last := *states[len(states)-1]
	last.Integrations = NewIntegrations(map[string]string{"authentik": IntegrationOK}, nil)
	edit := NewSnapshot("e", 7, []string{"production"}, nil, []*Tenant{&last, other}, nil).Edit()
	for i := len(log) - 1; i >= 0; i-- {
		if err := edit.UndoTenant(log[i]); err != nil {
			t.Fatal(err)
		}
		got, want := edit.Tenant("acme"), states[i]
		if (got == nil) != (want == nil) || got != nil && (len(DiffTenant(got, want)) > 0 || got.Integrations != nil || !got.UpdatedAt.IsZero() || !got.SubscribedAt.IsZero()) {
			t.Errorf("before entry %d it is %+v, want %+v without later times", i, got, want)
		}
		if edit.Tenant("globex") != other {
			t.Error("another tenant is not what it was")
		}
	}
	if err := edit.UndoTenant(log[2]); err == nil || err.Error() != `tenant "acme" was updated, says the log, and was not there` {
		t.Errorf("an update of nobody: %v", err)
	}
	if states[6].PartnerSlug != "fjordit" || last.Integrations == nil {
		t.Error("the tenant of now has changed")
	}
}

func TestNoTenantAt(t *testing.T) {
	err := NoTenantAt("acme", time.Date(2026, 1, 2, 4, 4, 5, 6_000_000, time.FixedZone("", 3600)))
	if want := `tenant "acme" did not exist at 2026-01-02T03:04:05.006Z: not found`; !errors.Is(err, ErrNotFound) || err.Error() != want {
		t.Errorf("%v, want %s", err, want)
	}
}
