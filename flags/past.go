package flags

import (
	"encoding/json"
	"errors"
	"fmt"
	"time"
)

// Past is flags and one tenant as they were at a moment, and the environments of now. Of the registry its
// snapshot has that tenant alone, if it existed then.
type Past struct {
	*Snapshot
	At    time.Time // the moment, in whole milliseconds
	Entry int64     // the id of the last log entry that counts
}

// NoTenantAt says that nobody held a slug at a time.
func NoTenantAt(slug string, at time.Time) error {
	return fmt.Errorf("tenant %q did not exist at %s: %w", slug, at.UTC().Format(time.RFC3339Nano), ErrNotFound)
}

// TenantAfter returns a tenant as the entries of its log, oldest first and from its creation on, left it; nil
// where they end with its removal.
func TenantAfter(log []Entry) (*Tenant, error) {
	var t *Tenant
	for _, e := range log {
		switch {
		case e.Action == Deleted:
			t = nil
			continue
		case e.Action == Created:
			t = &Tenant{CreatedAt: e.At}
		case t == nil:
			return nil, e.noTenant()
		}
		if err := t.take(e.Changes, FromTo.to); err != nil {
			return nil, fmt.Errorf("tenant %q: %w", e.Name, err)
		}
		t.UpdatedAt = e.At
		if e.Changes.touch("plan") || e.Changes.touch("status") {
			t.SubscribedAt = e.At
		}
	}
	return t, nil
}

func (e *Entry) noTenant() error {
	return fmt.Errorf("tenant %q was %s, says the log, and was not there", e.Name, e.Action)
}

func (c Changes) touch(field string) bool { _, ok := c[field]; return ok }

func (x FromTo) from() json.RawMessage { return x.From }
func (x FromTo) to() json.RawMessage   { return x.To }

// take sets the fields that the changes name to what they were on one side.
func (t *Tenant) take(changes Changes, side func(FromTo) json.RawMessage) error {
	for name, c := range changes {
		to := t.text(name)
		if to == nil {
			return fmt.Errorf("a tenant has no %s", name)
		}
		*to = "" // null leaves it: no partner
		if err := json.Unmarshal(side(c), to); err != nil {
			return fmt.Errorf("%s: %w", name, err)
		}
	}
	if t.ID == "" || t.Slug == "" || t.Plan == "" {
		return errors.New("the log does not say its id, slug and plan")
	}
	return nil
}

// text is the field of a name in the log.
func (t *Tenant) text(name string) *string {
	switch name {
	case "id":
		return &t.ID
	case "slug":
		return &t.Slug
	case "name":
		return &t.Name
	case "plan":
		return &t.Plan
	case "partnerSlug":
		return &t.PartnerSlug
	case "status":
		return &t.Status
	}
	return nil
}

// UndoTenant takes one change of a tenant back: it must be that tenant's newest that is not taken back yet.
// Of what the tenant was before, the log does not tell how other systems held it, nor since when it was so:
// UpdatedAt and SubscribedAt are zero, after a removal CreatedAt too.
func (e *Edit) UndoTenant(entry Entry) error {
	if entry.Action == Created {
		e.SetTenant(entry.Name, nil)
		return nil
	}
	before, err := entry.tenantBefore(e.Tenant(entry.Name))
	if err != nil {
		return err
	}
	e.SetTenant(entry.Name, before)
	return nil
}

// tenantBefore is a tenant before the entry, which is no creation, and nil after is a removed one.
func (e *Entry) tenantBefore(after *Tenant) (*Tenant, error) {
	var before Tenant
	if after != nil {
		before = *after
		before.Integrations, before.UpdatedAt, before.SubscribedAt = nil, time.Time{}, time.Time{}
	} else if e.Action != Deleted {
		return nil, e.noTenant()
	}
	if err := before.take(e.Changes, FromTo.from); err != nil {
		return nil, fmt.Errorf("tenant %q: %w", e.Name, err)
	}
	return &before, nil
}
