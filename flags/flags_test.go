package flags_test

import (
	"encoding/json"
	"fmt"

	"github.com/dezky/platform-api/flags"
)

// everything is a Known for which every value is known; nothing is one for which none is.
func everything(flags.Axis, string) bool { return true }
func nothing(flags.Axis, string) bool    { return false }

// show renders a value for a comparison or a message.
func show(v any) string {
	data, err := json.Marshal(v)
	if err != nil {
		return err.Error()
	}
	return string(data)
}

// outcome is what an error says in one line: its kind, then its text.
func outcome(err error) string {
	switch err.(type) {
	case nil:
		return "ok"
	case *flags.Malformed:
		return "malformed: " + err.Error()
	case *flags.Invalid:
		return "invalid: " + err.Error()
	}
	return fmt.Sprintf("%T: %v", err, err)
}

// refused is err, or the problems that wait in a decoded value.
func refused(problems []flags.FieldError, err error) error {
	if err == nil && len(problems) > 0 {
		return &flags.Invalid{Errors: problems}
	}
	return err
}

// registry is a small world: two environments, two partners, three tenants.
func registry() *flags.Snapshot {
	return flags.NewSnapshot("epoch", 7, []string{"production", "staging"},
		nil,
		[]*flags.Tenant{
			{ID: "t1", Slug: "globex", Name: "Globex", Plan: "business", PartnerSlug: "nordhost", Status: flags.Active},
			{ID: "t2", Slug: "acme", Name: "Acme", Plan: "starter", Status: flags.Active},
			{ID: "t3", Slug: "initech", Name: "Initech", Plan: "enterprise", PartnerSlug: "nordhost", Status: flags.Suspended},
		},
		[]*flags.Partner{{Slug: "nordhost", Name: "Nordhost"}, {Slug: "fjordit", Name: "Fjord IT"}},
	)
}

// snapshotOf applies a document to an empty registry: partners, then tenants, then flags.
func snapshotOf(d flags.Document, environments []string) (*flags.Snapshot, error) {
	edit := flags.NewSnapshot("epoch", 1, environments, nil, nil, nil).Edit()
	for i, patch := range d.Partners {
		p, err := patch.Apply(flags.Partner{})
		if err != nil {
			return nil, fmt.Errorf("partners[%d]: %w", i, err)
		}
		edit.SetPartner(p.Slug, &p)
	}
	for i, patch := range d.Tenants {
		t, err := patch.Apply(flags.Tenant{}, edit.Known)
		if err != nil {
			return nil, fmt.Errorf("tenants[%d]: %w", i, err)
		}
		edit.SetTenant(t.Slug, &t)
	}
	for i, n := range d.Flags {
		f, err := n.Apply(flags.New(n.Key), edit.Known)
		if err != nil {
			return nil, fmt.Errorf("flags[%d]: %w", i, err)
		}
		edit.SetFlag(f.Key, &f)
	}
	return edit.View(), nil
}
