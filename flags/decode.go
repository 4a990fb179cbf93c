package flags

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"unicode/utf8"
)

// Malformed is a body that can't be understood: not JSON, a duplicate or unknown field, or a wrong JSON
// type. A value of the right type that is not allowed is an *Invalid instead.
type Malformed struct {
	Where   string // the path in the body, such as "scope.plans[1]"; "" is the whole
	Message string
}

func (e *Malformed) Error() string {
	if e.Where == "" {
		return "the body " + e.Message
	}
	return e.Where + " " + e.Message
}

// maxDepth bounds nesting; the deepest body that means anything has five levels.
const maxDepth = 16

// value is parsed JSON that remembers what encoding/json forgets: null, duplicates, and number texts.
type value struct {
	kind    string // in words: "an object", "an array", "a string", "a number", "a boolean", "null"
	text    string // of a string, a number or a boolean
	members []member
	items   []value
}

type member struct {
	name  string
	value value
}

// member returns the value of an object's member, or nil.
func (v *value) member(name string) *value {
	for i := range v.members {
		if v.members[i].name == name {
			return &v.members[i].value
		}
	}
	return nil
}

// parse reads exactly one JSON value, strictly (RFC 8259, names unique, UTF-8, no lone surrogates).
func parse(body []byte) (value, error) { return parseBody(body, false, inBody) }

// parseBody is parse; with anyText, texts may have what stands for characters that could not be read. position
// says in words where a mistake is.
func parseBody(body []byte, anyText bool, position func(line, column int) string) (value, error) {
	if len(bytes.TrimSpace(body)) == 0 {
		return value{}, &Malformed{"", "is empty; a JSON object is expected"}
	}
	if !utf8.Valid(body) {
		return value{}, &Malformed{"", "is not UTF-8"}
	}
	var whole json.RawMessage
	if err := json.Unmarshal(body, &whole); err != nil {
		var syntax *json.SyntaxError
		if errors.As(err, &syntax) {
			return value{}, &Malformed{"", fmt.Sprintf("is not JSON: %s at %s", err, position(lineAndColumn(body, int(syntax.Offset))))}
		}
		return value{}, &Malformed{"", "is not JSON: " + err.Error()}
	}
	dec := json.NewDecoder(bytes.NewReader(body))
	dec.UseNumber()
	return (&parser{dec, anyText}).value("", 0)
}

type parser struct {
	*json.Decoder
	anyText bool
}

func inBody(line, column int) string { return fmt.Sprintf("line %d, column %d", line, column) }

func lineAndColumn(body []byte, offset int) (line, column int) {
	head := body[:min(max(offset-1, 0), len(body))]
	return 1 + bytes.Count(head, []byte("\n")), len(head) - bytes.LastIndexByte(head, '\n')
}

func (p *parser) value(path string, depth int) (value, error) {
	if depth > maxDepth {
		return value{}, &Malformed{path, "is nested too deeply"}
	}
	token, err := p.Token()
	if err != nil {
		return value{}, &Malformed{path, err.Error()}
	}
	switch t := token.(type) {
	case json.Delim:
		if t == '{' {
			return p.object(path, depth)
		}
		return p.array(path, depth)
	case string:
		if !p.anyText && strings.ContainsRune(t, utf8.RuneError) {
			return value{}, &Malformed{path, "contains U+FFFD or half of a surrogate pair"}
		}
		return value{kind: "a string", text: t}, nil
	case json.Number:
		return value{kind: "a number", text: t.String()}, nil
	case bool:
		return value{kind: "a boolean", text: strconv.FormatBool(t)}, nil
	default:
		return value{kind: "null"}, nil
	}
}

func (p *parser) object(path string, depth int) (value, error) {
	v := value{kind: "an object"}
	seen := map[string]bool{}
	for p.More() {
		token, err := p.Token()
		if err != nil {
			return value{}, &Malformed{path, err.Error()}
		}
		name := token.(string)
		at := joinPath(path, label(name))
		if seen[name] {
			return value{}, &Malformed{at, "is given twice"}
		}
		seen[name] = true
		inner, err := p.value(at, depth+1)
		if err != nil {
			return value{}, err
		}
		v.members = append(v.members, member{name, inner})
	}
	p.Token() // the closing brace: the whole was valid
	return v, nil
}

func (p *parser) array(path string, depth int) (value, error) {
	v := value{kind: "an array"}
	for p.More() {
		inner, err := p.value(path+"["+strconv.Itoa(len(v.items))+"]", depth+1)
		if err != nil {
			return value{}, err
		}
		v.items = append(v.items, inner)
	}
	p.Token()
	return v, nil
}

func joinPath(path, name string) string {
	switch {
	case path == "":
		return name
	case name == "":
		return path
	}
	return path + "." + name
}

// label is a member's name in a path; an empty one is made visible.
func label(name string) string {
	if name == "" {
		return `""`
	}
	return name
}

// reader takes values apart. It keeps the first wrong type or unknown field (malformed) and every bad
// value (problems), so that a person learns of all mistakes at once.
type reader struct {
	base      string // path of the thing within the body; problems stand relative to it
	malformed *Malformed
	problems  []FieldError
}

func (r *reader) wrong(path, message string) {
	if r.malformed == nil {
		r.malformed = &Malformed{joinPath(r.base, path), message}
	}
}

func (r *reader) problem(path, message string) {
	r.problems = append(r.problems, FieldError{path, message})
}

// is tells whether v has the kind; null is a bad value, everything else a wrong type.
func (r *reader) is(path string, v value, kind string) bool {
	switch v.kind {
	case kind:
		return true
	case "null":
		r.problem(path, "must not be null")
	default:
		r.wrong(path, fmt.Sprintf("must be %s, not %s", kind, v.kind))
	}
	return false
}

// fields reads an object whose members are all named.
func (r *reader) fields(path string, v value, known map[string]func(path string, v value)) {
	if v.kind == "null" && path == "" {
		r.wrong(path, "must be an object, not null")
		return
	}
	if !r.is(path, v, "an object") {
		return
	}
	for _, m := range v.members {
		at := joinPath(path, label(m.name))
		if read, ok := known[m.name]; ok {
			read(at, m.value)
			continue
		}
		names := make([]string, 0, len(known))
		for name := range known {
			names = append(names, name)
		}
		slices.Sort(names)
		r.wrong(at, "is not a known field; the fields are "+strings.Join(names, ", "))
	}
}

func (r *reader) text(to **string) func(string, value) {
	return func(path string, v value) {
		if r.is(path, v, "a string") {
			*to = &v.text
		}
	}
}

// nullableText reads null as "".
func (r *reader) nullableText(to **string) func(string, value) {
	return func(path string, v value) {
		if v.kind == "null" {
			v = value{kind: "a string"}
		}
		r.text(to)(path, v)
	}
}

// whole reads a whole number; 25.0 and 2.5e1 are whole, 12.5 and 1e99 are bad values.
func (r *reader) whole(to **int64, message string) func(string, value) {
	return func(path string, v value) {
		if !r.is(path, v, "a number") {
			return
		}
		if n, ok := wholeNumber(v.text); ok {
			*to = &n
		} else {
			r.problem(path, message)
		}
	}
}

// wholeNumber reads a JSON number that is exactly whole and has at most 15 digits, which is more than
// any field takes. It reads digits: as a float, 25.00000000000000001 would look whole.
func wholeNumber(text string) (int64, bool) {
	mantissa, exponent, _ := strings.Cut(strings.ToLower(text), "e")
	mantissa, negative := strings.CutPrefix(mantissa, "-")
	whole, fraction, _ := strings.Cut(mantissa, ".")
	digits := strings.TrimRight(whole+fraction, "0")
	if strings.Trim(digits, "0") == "" {
		return 0, true
	}
	point := len(whole)
	if exponent != "" {
		shift, err := strconv.ParseInt(exponent, 10, 32)
		if err != nil || max(shift, -shift) > 1<<20 {
			return 0, false
		}
		point += int(shift)
	}
	if len(digits) > point || point > 15 {
		return 0, false
	}
	n, err := strconv.ParseInt(digits+strings.Repeat("0", point-len(digits)), 10, 64)
	if negative {
		n = -n
	}
	return n, err == nil
}

func (r *reader) axis(scope map[Axis][]string, a Axis) func(string, value) {
	return func(path string, v value) {
		if v.kind == "null" { // an axis alone may be null: it empties it
			scope[a] = []string{}
			return
		}
		if !r.is(path, v, "an array") {
			return
		}
		values := make([]string, len(v.items))
		for i, item := range v.items {
			if item.kind == "null" {
				continue // stands as an empty value, which Apply refuses
			}
			if r.is(path+"["+strconv.Itoa(i)+"]", item, "a string") {
				values[i] = item.text
			}
		}
		scope[a] = values
	}
}

// patchFields are the fields by which a flag is changed.
func (r *reader) patchFields(p *Patch) map[string]func(string, value) {
	p.Scope = map[Axis][]string{}
	axes := map[string]func(string, value){}
	for _, a := range Axes {
		axes[string(a)] = r.axis(p.Scope, a)
	}
	return map[string]func(string, value){
		"description": r.text(&p.Description),
		"state": func(path string, v value) {
			if r.is(path, v, "a string") {
				state := State(v.text)
				p.State = &state
			}
		},
		"pct": func(path string, v value) {
			var n *int64
			if r.whole(&n, pctMessage)(path, v); n != nil {
				pct := int(min(max(*n, -1), MaxPct+1)) // what is out of bounds stays out of them
				p.Pct = &pct
			}
		},
		"scope": func(path string, v value) { r.fields(path, v, axes) },
		"note":  r.note(&p.Note),
	}
}

func (r *reader) note(to *string) func(string, value) {
	return func(path string, v value) {
		var note *string
		if r.text(&note)(path, v); note != nil {
			*to = *note
		}
	}
}

func (r *reader) err() error {
	if r.malformed != nil {
		return r.malformed
	}
	return nil
}

// begin parses a body for a reader.
func begin(body []byte) (*reader, value, error) {
	v, err := parse(body)
	return &reader{}, v, err
}

// DecodePatch reads the merge patch of a flag: description, state, pct, scope and note. It returns
// *Malformed for a body that can't be understood; bad values wait in Problems for Apply.
func DecodePatch(body []byte) (Patch, error) {
	var p Patch
	r, v, err := begin(body)
	if err != nil {
		return p, err
	}
	r.fields("", v, r.patchFields(&p))
	p.Problems = r.problems
	return p, r.err()
}

// NewFlag is a flag to be created: its key, and how it differs from off for nobody.
type NewFlag struct {
	Key string
	Patch
}

// DecodeNewFlag reads the body that creates a flag: a patch with its key.
func DecodeNewFlag(body []byte) (NewFlag, error) {
	r, v, err := begin(body)
	if err != nil {
		return NewFlag{}, err
	}
	n := r.newFlag(v)
	return n, r.err()
}

func (r *reader) newFlag(v value) NewFlag {
	var n NewFlag
	var key *string
	fields := r.patchFields(&n.Patch)
	fields["key"] = r.text(&key)
	r.fields("", v, fields)
	r.required("key", key)
	if key != nil {
		n.Key = *key
		if message := CheckKey(n.Key); message != "" {
			r.problem("key", message)
		}
	}
	n.Problems = r.problems
	return n
}

// required reports a text that was not given; one that was given as null is reported already.
func (r *reader) required(name string, got *string) {
	if got == nil && !(&Invalid{Errors: r.problems}).names(name) {
		r.problem(name, "is required")
	}
}

// Draft is a change that is only looked at. Environment is "" where the body names none.
type Draft struct {
	Patch
	Environment string
}

// DecodeDraft reads the body of an impact question: state, pct, scope, environment.
func DecodeDraft(body []byte) (Draft, error) {
	var d Draft
	r, v, err := begin(body)
	if err != nil {
		return d, err
	}
	var environment *string
	fields := r.patchFields(&d.Patch)
	delete(fields, "description")
	delete(fields, "note")
	fields["environment"] = r.text(&environment)
	r.fields("", v, fields)
	if environment != nil {
		if d.Environment = *environment; d.Environment == "" {
			r.problem("environment", "must not be empty")
		}
	}
	d.Problems = r.problems
	return d, r.err()
}

// DecodeRestore reads which version of a flag is to come back, and why. Bad values are in the problems.
func DecodeRestore(body []byte) (version int64, note string, problems []FieldError, err error) {
	r, v, err := begin(body)
	if err != nil {
		return 0, "", nil, err
	}
	var number *int64
	r.fields("", v, map[string]func(string, value){
		"version": r.whole(&number, "must be a whole number from 1"),
		"note":    r.note(&note),
	})
	switch {
	case number != nil && *number < 1:
		r.problem("version", "must be a whole number from 1")
	case number != nil:
		version = *number
	case !(&Invalid{Errors: r.problems}).names("version"):
		r.problem("version", "is required")
	}
	return version, note, r.problems, r.err()
}

// DecodeTenant reads the fields of a tenant: id, slug, name, plan, partnerSlug (null is none), status.
func DecodeTenant(body []byte) (TenantPatch, error) {
	r, v, err := begin(body)
	if err != nil {
		return TenantPatch{}, err
	}
	p := r.tenant(v)
	return p, r.err()
}

func (r *reader) tenant(v value) TenantPatch {
	var p TenantPatch
	r.fields("", v, map[string]func(string, value){
		"id": r.text(&p.ID), "slug": r.text(&p.Slug), "name": r.text(&p.Name), "plan": r.text(&p.Plan),
		"partnerSlug": r.nullableText(&p.PartnerSlug), "status": r.text(&p.Status),
	})
	p.Problems = r.problems
	return p
}

// DecodePartner reads the fields of a partner: slug and name.
func DecodePartner(body []byte) (PartnerPatch, error) {
	r, v, err := begin(body)
	if err != nil {
		return PartnerPatch{}, err
	}
	p := r.partner(v)
	return p, r.err()
}

func (r *reader) partner(v value) PartnerPatch {
	var p PartnerPatch
	r.fields("", v, map[string]func(string, value){"slug": r.text(&p.Slug), "name": r.text(&p.Name)})
	p.Problems = r.problems
	return p
}
