package flags

import (
	"errors"
	"fmt"
	"strings"
)

// ErrNotFound says that the named thing does not exist.
var ErrNotFound = errors.New("not found")

// ErrConflict says that the registry's present state forbids the change; *Conflict carries the particulars.
var ErrConflict = errors.New("conflict")

// FieldError is one mistake in one field. Field is the path in the request, such as "scope.plans[1]".
type FieldError struct {
	Field   string `json:"field"`
	Message string `json:"message"`
}

// Invalid is every bad value of a request at once: right JSON types, wrong contents.
type Invalid struct {
	Errors []FieldError
	More   int // how many there are beside those in Errors, of an import with very many
}

func (e *Invalid) Error() string {
	parts := make([]string, len(e.Errors))
	for i, f := range e.Errors {
		parts[i] = strings.TrimSpace(f.Field + " " + f.Message)
	}
	return strings.Join(parts, "; ")
}

// Prefixed returns a copy whose fields stand under path: "pct" becomes "flags[3].pct".
func (e *Invalid) Prefixed(path string) *Invalid {
	out := make([]FieldError, len(e.Errors))
	for i, f := range e.Errors {
		out[i] = FieldError{joinPath(path, f.Field), f.Message}
	}
	return &Invalid{Errors: out, More: e.More}
}

// Conflict explains an ErrConflict: a name already taken, or something still in use.
type Conflict struct {
	Message string
	Flags   []string // keys of the flags whose scope names the thing
	Tenants []string // slugs of the tenants that have the thing, the first 100
}

func (e *Conflict) Error() string {
	out := e.Message
	for _, in := range []struct {
		what  string
		names []string
	}{{"flags", e.Flags}, {"tenants", e.Tenants}} {
		if n := len(in.names); n > named {
			out += fmt.Sprintf("; %s: %s and %d more", in.what, strings.Join(in.names[:named], ", "), n-named)
		} else if n > 0 {
			out += fmt.Sprintf("; %s: %s", in.what, strings.Join(in.names, ", "))
		}
	}
	return out
}

// named is how many names an error's text lists.
const named = 10

// Unwrap makes errors.Is(err, ErrConflict) true.
func (e *Conflict) Unwrap() error { return ErrConflict }

// Stale is a failed precondition: the flag is no longer at a version the caller named.
type Stale struct {
	Current *Flag // nil when the flag does not exist
}

func (e *Stale) Error() string {
	if e.Current == nil {
		return "the flag does not exist now, so no version matches"
	}
	return fmt.Sprintf("the flag is at version %d now", e.Current.Version)
}

// StaleTenant is a failed precondition: the tenant is no longer as the caller saw it.
type StaleTenant struct{ Current *Tenant }

func (e *StaleTenant) Error() string {
	return fmt.Sprintf("the tenant %q was changed meanwhile", e.Current.Slug)
}
