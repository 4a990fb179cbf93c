package flags

import (
	"slices"
	"strings"
	"sync/atomic"
	"unique"
)

// The states of an integration.
const (
	IntegrationPending = "pending"
	IntegrationOK      = "ok"
	IntegrationError   = "error"
)

// Integration is how another system holds a tenant.
type Integration struct {
	Name  string // such as "authentik"
	State string // IntegrationPending, IntegrationOK or IntegrationError
	Error string // why, in words for people; "" unless it is in error
}

// Integrations is how the other systems hold a tenant now. It is a node's doing and no change of the tenant,
// so all versions of a tenant share one, and it alone of a snapshot changes. Whoever changes it holds the
// database's turn to write. A nil one is empty.
type Integrations struct{ now atomic.Value } // of []Integration

// NewIntegrations returns a holder of states, by the names of the integrations.
func NewIntegrations(states, errors map[string]string) *Integrations {
	var list []Integration
	for name, state := range states {
		list = WithIntegration(list, Integration{name, state, errors[name]})
	}
	in := &Integrations{}
	if list != nil { // nearly always: keep no empty list per tenant
		in.Set(list)
	}
	return in
}

// All returns the integrations by name. It takes no lock, and what it returns must not be changed.
func (in *Integrations) All() []Integration {
	if in == nil {
		return nil
	}
	list, _ := in.now.Load().([]Integration) // nothing is there until the first Set
	return list
}

// Set replaces all states; list, sorted by name, must not be changed any more.
func (in *Integrations) Set(list []Integration) {
	in.now.Store(list)
}

// States returns the states of the integrations and the errors of those that have one, by name.
func (in *Integrations) States() (states, errors map[string]string) {
	return IntegrationMaps(in.All())
}

// IntegrationMaps returns the states of integrations, and the errors of those that have one, by name.
func IntegrationMaps(list []Integration) (states, errors map[string]string) {
	states, errors = map[string]string{}, map[string]string{}
	for _, i := range list {
		states[i.Name] = i.State
		if i.Error != "" {
			errors[i.Name] = i.Error
		}
	}
	return states, errors
}

// WithIntegration returns a list sorted by name with one integration added or replaced.
func WithIntegration(list []Integration, i Integration) []Integration {
	i.Name, i.State = unique.Make(i.Name).Value(), unique.Make(i.State).Value() // many tenants have the same
	at, found := slices.BinarySearchFunc(list, i.Name, func(i Integration, name string) int { return strings.Compare(i.Name, name) })
	if found {
		list = slices.Clone(list)
		list[at] = i
		return list
	}
	return slices.Insert(slices.Clip(list), at, i)
}
