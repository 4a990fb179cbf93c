package flags

import (
	"bytes"
	"encoding/json"
	"fmt"
	"strings"
	"time"
	"unicode/utf8"
)

// Question asks for one tenant's flags. Environment is "" where the body names none.
type Question struct {
	TenantSlug  string
	Environment string
	At          *time.Time // as they were then; nil is now
}

// DecodeQuestion reads the body of evaluate and explain. A field missing or null is an *Invalid.
func DecodeQuestion(body []byte) (Question, error) {
	if q, ok := scanQuestion(body); ok {
		return q, nil
	}
	r, v, err := begin(body)
	if err != nil {
		return Question{}, err
	}
	var slug, environment, at *string
	r.fields("", v, map[string]func(string, value){
		"tenantSlug":  r.text(&slug),
		"environment": r.text(&environment),
		"at":          r.text(&at),
	})
	r.required("tenantSlug", slug)
	var q Question
	if slug != nil {
		q.TenantSlug = *slug
	}
	if environment != nil {
		if q.Environment = *environment; q.Environment == "" {
			r.problem("environment", "must not be empty")
		}
	}
	if at != nil {
		if q.At = parseTime(*at); q.At == nil {
			r.problem("at", timeMessage)
		}
	}
	if err := r.err(); err != nil {
		return q, err
	}
	if len(r.problems) > 0 {
		return q, &Invalid{Errors: r.problems}
	}
	return q, nil
}

const timeMessage = `must be a time by RFC 3339, such as "2026-01-31T14:02:00Z"`

// parseTime reads a time by RFC 3339 to the letter; nil is none.
func parseTime(text string) *time.Time {
	t, err := time.Parse(time.RFC3339, text)
	if err != nil {
		return nil
	}
	// What Go takes beside that: an hour of one digit, a comma for the point, offsets of a day and of 60 minutes.
	zone := text[len(text)-5:]
	if text[13] != ':' || text[19] == ',' || text[len(text)-1] != 'Z' && (zone > "24" || zone[3:] > "59") {
		return nil
	}
	return &t
}

// scanQuestion reads a question in the usual form, which asks of now. Where it is not ok, the body may be good all the same.
func scanQuestion(body []byte) (q Question, ok bool) {
	s := scanner{b: body}
	ok = s.members(func(name, text []byte, quoted bool) bool {
		switch {
		case !quoted || len(text) == 0:
			return false
		case string(name) == "tenantSlug" && q.TenantSlug == "":
			q.TenantSlug = string(text)
		case string(name) == "environment" && q.Environment == "":
			q.Environment = string(text)
		default:
			return false
		}
		return true
	})
	return q, ok && s.end() && q.TenantSlug != ""
}

// ErrorCode says what is wrong with an evaluation, in OpenFeature's words.
type ErrorCode string

// The error codes that occur.
const (
	ParseError          ErrorCode = "PARSE_ERROR"
	TargetingKeyMissing ErrorCode = "TARGETING_KEY_MISSING"
	InvalidContext      ErrorCode = "INVALID_CONTEXT"
	FlagNotFound        ErrorCode = "FLAG_NOT_FOUND"
	GeneralError        ErrorCode = "GENERAL"
)

// ContextError is an evaluation context by which nothing can be evaluated.
type ContextError struct {
	Code    ErrorCode
	Message string
}

func (e *ContextError) Error() string { return e.Message }

// Context is what an OpenFeature evaluation context says that matters here; "" is not said.
type Context struct {
	TargetingKey string // the tenant's slug
	Environment  string
	Plan         string     // of a tenant that the registry does not know
	Partner      string     // its partner's slug
	At           *time.Time // as it was then; nil is now

	Whole []byte // as it stands in the body

	at string
}

// tenant is what evaluation sees of a tenant that only its context tells of.
func (c *Context) tenant() *Tenant {
	return &Tenant{ID: c.TargetingKey, Slug: c.TargetingKey, Plan: c.Plan, PartnerSlug: c.Partner}
}

// field is where a context's attribute goes; nil where it does not matter.
func (c *Context) field(name string) *string {
	switch name {
	case "targetingKey":
		return &c.TargetingKey
	case "environment":
		return &c.Environment
	case "plan":
		return &c.Plan
	case "partner":
		return &c.Partner
	case "at":
		return &c.at
	}
	return nil
}

// TenantOf returns the tenant that a context asks for, and whether the registry knows it. One that it does
// not know is made from the context.
func (s *Snapshot) TenantOf(c *Context) (t *Tenant, registered bool) {
	if t := s.Tenant(c.TargetingKey); t != nil {
		return t, true
	}
	return c.tenant(), false
}

// DecodeContext reads the body of an OFREP request: {"context": {"targetingKey": …}}. Other attributes may
// be anything. The error is a *ContextError.
func DecodeContext(body []byte) (Context, error) {
	if c, ok := scanContext(body); ok {
		return c, nil
	}
	v, err := parseBody(body, true, inBody)
	if err != nil {
		return Context{}, &ContextError{ParseError, err.Error()}
	}
	bad := func(where string, v value, want string) error {
		return &ContextError{InvalidContext, fmt.Sprintf("%s must be %s, not %s", where, want, v.kind)}
	}
	if v.kind != "an object" {
		return Context{}, &ContextError{ParseError, "the body must be an object, not " + v.kind}
	}
	context := v.member("context")
	switch {
	case context == nil:
		return Context{}, &ContextError{InvalidContext, "context is missing; it names the tenant by its targetingKey"}
	case context.kind != "an object":
		return Context{}, bad("context", *context, "an object")
	}
	var c Context
	for _, m := range context.members {
		to := c.field(m.name)
		if to == nil || m.value.kind == "null" {
			continue
		}
		if m.value.kind != "a string" {
			return c, bad("context."+m.name, m.value, "a string")
		}
		if strings.ContainsRune(m.value.text, utf8.RuneError) {
			return c, &ContextError{InvalidContext, "context." + m.name + " contains U+FFFD or half of a surrogate pair"}
		}
		if *to = m.value.text; *to == "" && to == &c.Environment {
			return c, &ContextError{InvalidContext, "context.environment must not be empty"}
		}
		if to == &c.at {
			if c.At = parseTime(c.at); c.At == nil {
				return c, &ContextError{InvalidContext, "context.at " + timeMessage}
			}
		}
	}
	if c.TargetingKey == "" {
		return c, &ContextError{TargetingKeyMissing, "context.targetingKey is missing; it is the tenant's slug"}
	}
	whole := map[string]json.RawMessage{} // a struct's names would match in any case
	if err := json.Unmarshal(body, &whole); err != nil {
		return c, &ContextError{ParseError, err.Error()}
	}
	c.Whole = whole["context"]
	return c, nil
}

// scanContext is DecodeContext for the usual form: a context of plain texts, numbers and booleans.
func scanContext(body []byte) (c Context, ok bool) {
	s := scanner{b: body}
	var names [16][]byte
	if !s.object() || !s.name("context") {
		return c, false
	}
	start := s.i
	n := 0
	ok = s.members(func(name, text []byte, quoted bool) bool {
		for _, before := range names[:n] {
			if string(before) == string(name) {
				return false
			}
		}
		if n == len(names) {
			return false
		}
		names[n] = name
		n++
		to := c.field(string(name))
		if to == nil {
			return true
		}
		*to = string(text)
		if to == &c.at {
			c.At = parseTime(c.at)
			return quoted && c.At != nil
		}
		return quoted && (*to != "" || to != &c.Environment) // an empty one is refused, not left out
	})
	c.Whole = body[start:s.i]
	return c, ok && s.close() && s.end() && c.TargetingKey != ""
}

// scanner reads the plain part of JSON without reflection: objects of texts without escapes, numbers,
// booleans and null. Whatever else it meets is left to the parser, which knows all of JSON and says what is
// wrong.
type scanner struct {
	b []byte
	i int
}

func (s *scanner) space() {
	for s.i < len(s.b) && (s.b[s.i] == ' ' || s.b[s.i] == '\n' || s.b[s.i] == '\t' || s.b[s.i] == '\r') {
		s.i++
	}
}

// take reads one byte that must be the next after white space.
func (s *scanner) take(c byte) bool {
	s.space()
	if s.i >= len(s.b) || s.b[s.i] != c {
		return false
	}
	s.i++
	return true
}

func (s *scanner) object() bool { return s.take('{') }
func (s *scanner) close() bool  { return s.take('}') }

// end tells whether nothing follows.
func (s *scanner) end() bool { s.space(); return s.i == len(s.b) }

// name reads the name of a member, and the space before its value.
func (s *scanner) name(want string) bool {
	name, ok := s.text()
	if !ok || string(name) != want || !s.take(':') {
		return false
	}
	s.space()
	return true
}

func (s *scanner) text() ([]byte, bool) {
	if !s.take('"') {
		return nil, false
	}
	start, ascii := s.i, true
	for ; s.i < len(s.b); s.i++ {
		switch c := s.b[s.i]; {
		case c == '"':
			text := s.b[start:s.i]
			s.i++
			return text, ascii || utf8.Valid(text) && !bytes.ContainsRune(text, utf8.RuneError)
		case c < ' ' || c == '\\':
			return nil, false
		case c >= utf8.RuneSelf:
			ascii = false
		}
	}
	return nil, false
}

// plain reads a number (RFC 8259, section 6), a boolean or null.
func (s *scanner) plain() ([]byte, bool) {
	start := s.i
	for s.i < len(s.b) && strings.IndexByte(" \n\t\r,}", s.b[s.i]) < 0 {
		s.i++
	}
	text := s.b[start:s.i]
	switch string(text) {
	case "true", "false", "null":
		return text, true
	}
	rest := bytes.TrimPrefix(text, []byte("-"))
	digits := func() (n int) {
		for n < len(rest) && rest[n] >= '0' && rest[n] <= '9' {
			n++
		}
		rest = rest[n:]
		return n
	}
	leading := len(rest) > 0 && rest[0] == '0'
	if n := digits(); n == 0 || n > 1 && leading {
		return nil, false
	}
	if after, ok := bytes.CutPrefix(rest, []byte(".")); ok {
		if rest = after; digits() == 0 {
			return nil, false
		}
	}
	if len(rest) > 0 && rest[0]|0x20 == 'e' {
		rest = rest[1:]
		if len(rest) > 0 && (rest[0] == '+' || rest[0] == '-') {
			rest = rest[1:]
		}
		if digits() == 0 {
			return nil, false
		}
	}
	return text, len(rest) == 0
}

// members reads an object and hands each member over. It is not ok as soon as one is refused.
func (s *scanner) members(each func(name, text []byte, quoted bool) bool) bool {
	if !s.object() {
		return false
	}
	if s.close() {
		return true
	}
	for {
		name, ok := s.text()
		if !ok || !s.take(':') {
			return false
		}
		s.space()
		quoted := s.i < len(s.b) && s.b[s.i] == '"'
		var text []byte
		if quoted {
			text, ok = s.text()
		} else {
			text, ok = s.plain()
		}
		if !ok || !each(name, text, quoted) {
			return false
		}
		if s.close() {
			return true
		}
		if !s.take(',') {
			return false
		}
	}
}
