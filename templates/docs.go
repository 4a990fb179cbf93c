package templates

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"unicode/utf8"

	"go.yaml.in/yaml/v4"
)

// NewDocs reads an OpenAPI 3.1 document into the page that shows it. Operations keep the document's
// order within their tag. It is an error if a reference leads nowhere or an operation has no
// operationId, no tag of the document, no x-role or no response.
func NewDocs(spec []byte) (Docs, error) {
	var document yaml.Node
	if err := yaml.Load(spec, &document); err != nil {
		return Docs{}, fmt.Errorf("OpenAPI document: %w", err)
	}
	if len(document.Content) != 1 || document.Content[0].Kind != yaml.MappingNode {
		return Docs{}, errors.New("OpenAPI document: not a mapping")
	}
	r := reader{root: document.Content[0]}
	d := r.docs()
	if r.err != nil {
		return Docs{}, fmt.Errorf("OpenAPI document: %w", r.err)
	}
	return d, nil
}

// reader walks the document. The first error is kept; after it what is read means nothing.
type reader struct {
	root    *yaml.Node
	objects []string // the names of the schemas that have their own section
	err     error
}

func (r *reader) fail(n *yaml.Node, format string, args ...any) {
	if r.err == nil {
		r.err = fmt.Errorf("line %d: "+format, append([]any{n.Line}, args...)...)
	}
}

func (r *reader) docs() Docs {
	info := r.get(r.root, "info")
	d := Docs{
		Title:   text(r.get(info, "title")),
		Version: text(r.get(info, "version")),
		Summary: text(r.get(info, "summary")),
		Intro:   paragraphs(text(r.get(info, "description"))),
	}
	components := r.get(r.root, "components")
	for name, n := range r.members(r.get(components, "securitySchemes")) {
		d.Schemes = append(d.Schemes, r.scheme(name, n))
	}
	for _, n := range items(r.get(r.root, "tags")) {
		name := text(r.get(n, "name"))
		d.Groups = append(d.Groups, Group{
			ID:   strings.ToLower(name),
			Name: name,
			Text: paragraphs(text(r.get(n, "description"))),
		})
	}
	r.objects = r.answered()
	for path, item := range r.members(r.get(r.root, "paths")) {
		for method, n := range r.members(item) {
			if !slices.Contains(methods, method) {
				continue
			}
			op := r.operation(strings.ToUpper(method), path, item, n)
			tags := items(r.get(n, "tags"))
			i := slices.IndexFunc(d.Groups, func(g Group) bool { return len(tags) == 1 && g.Name == tags[0].Value })
			if i < 0 {
				r.fail(n, "%s %s: it needs one tag, of the document's", method, path)
				return d
			}
			d.Groups[i].Operations = append(d.Groups[i].Operations, op)
		}
	}
	for name, n := range r.members(r.get(components, "schemas")) {
		if slices.Contains(r.objects, name) {
			d.Objects = append(d.Objects, Object{
				ID:     objectID(name),
				Name:   name,
				Text:   paragraphs(text(r.get(n, "description"))),
				Fields: r.fields(n, ""),
			})
		}
	}
	for _, n := range r.members(r.get(components, "responses")) {
		body := r.get(r.get(n, "content"), problemJSON)
		p := r.problem(body)
		if p.Name == "" || slices.ContainsFunc(d.Problems, func(q Problem) bool { return q.Name == p.Name }) {
			continue
		}
		p.Text, p.Headers, p.Body = paragraphs(text(r.get(n, "description"))), r.headers(n), r.example(body)
		d.Problems = append(d.Problems, p)
		// Beside the reference stands what is special about this problem.
		if ref := member(r.get(body, "schema"), "$ref"); ref != nil && d.Problem == nil {
			d.Problem = r.fields(r.target(ref), "")
		}
	}
	return d
}

var methods = []string{"get", "put", "post", "delete", "patch"}

const problemJSON = "application/problem+json"

func objectID(name string) string  { return "object-" + strings.ToLower(name) }
func problemID(name string) string { return "problem-" + name }

func (r *reader) scheme(name string, n *yaml.Node) Scheme {
	s := Scheme{ID: "auth-" + strings.ToLower(name), Text: paragraphs(text(r.get(n, "description")))}
	switch text(r.get(n, "type")) {
	case "http":
		s.Title = "HTTP " + text(r.get(n, "scheme"))
	case "apiKey":
		s.Title = "Header " + text(r.get(n, "name"))
	default:
		r.fail(n, "security scheme %s: only http and apiKey can be shown", name)
	}
	return s
}

func (r *reader) operation(method, path string, item, n *yaml.Node) Operation {
	op := Operation{
		ID:     text(r.get(n, "operationId")),
		Method: method,
		Path:   path,
		Role:   text(r.get(n, "x-role")),
		Title:  text(r.get(n, "summary")),
		Text:   paragraphs(text(r.get(n, "description"))),
	}
	if op.ID == "" || op.Role == "" || op.Title == "" {
		r.fail(n, "%s %s: operationId, x-role and summary are needed", method, path)
	}
	var parameters []*yaml.Node
	for _, p := range slices.Concat(items(r.get(item, "parameters")), items(r.get(n, "parameters"))) {
		p = r.resolve(p)
		parameters = append(parameters, p)
		f := r.field(text(r.get(p, "name")), r.get(p, "schema"))
		f.In = text(r.get(p, "in"))
		f.Required = text(r.get(p, "required")) == "true"
		f.Text = paragraphs(text(r.get(p, "description")))
		op.Parameters = append(op.Parameters, f)
	}
	var body *yaml.Node
	for mediaType, m := range r.members(r.get(r.get(n, "requestBody"), "content")) {
		if body == nil {
			body = m
			op.Body = r.fields(r.get(m, "schema"), "")
		} else {
			op.BodyTypes = append(op.BodyTypes, Span{Text: " or "})
		}
		op.BodyTypes = append(op.BodyTypes, Span{Text: mediaType, Code: true})
	}
	security := r.get(n, "security")
	if security == nil {
		security = r.get(r.root, "security")
	}
	op.Request = r.curl(method, path, parameters, len(items(security)) > 0, body)
	for status, n := range r.members(r.get(n, "responses")) {
		op.Responses = append(op.Responses, r.response(status, n))
		if op.Answer == nil && strings.HasPrefix(status, "2") {
			op.Answer = r.answer(status, n)
		}
	}
	if len(op.Responses) == 0 {
		r.fail(n, "%s %s: no responses", method, path)
	}
	return op
}

func (r *reader) response(status string, n *yaml.Node) Response {
	out := Response{
		Status:  status,
		Reason:  reason(status),
		Text:    paragraphs(text(r.get(n, "description"))),
		Headers: r.headers(n),
	}
	for mediaType, m := range r.members(r.get(n, "content")) {
		schema := r.get(m, "schema")
		switch {
		case mediaType == problemJSON:
			p := r.problem(m)
			out.Body = Text{{Text: p.Name, Href: "#" + p.ID}}
		case schema == nil || mediaType != "application/json":
			out.Body = Text{{Text: mediaType, Code: true}}
		default:
			out.Body = r.typeOf(schema)
		}
	}
	return out
}

// common is the header of every response, which the introduction explains once.
const common = "X-Request-Id"

func (r *reader) headers(response *yaml.Node) []Header {
	var out []Header
	for name, h := range r.members(r.get(response, "headers")) {
		if name != common {
			out = append(out, Header{name, spans(text(r.get(h, "description")))})
		}
	}
	return out
}

func (r *reader) answer(status string, n *yaml.Node) *Answer {
	a := Answer{Status: status, Reason: reason(status)}
	content := r.get(n, "content")
	for _, m := range r.members(content) {
		a.Body = r.example(m)
	}
	if content != nil && a.Body == nil {
		return nil
	}
	for name, h := range r.members(r.get(n, "headers")) {
		if value := r.get(h, "example"); value != nil && name != common {
			a.Headers = append(a.Headers, Header{name, Text{{Text: value.Value}}})
		}
	}
	return &a
}

// problem reads what the response's schema says beside its reference to the problem in general.
func (r *reader) problem(body *yaml.Node) Problem {
	properties := r.get(r.get(body, "schema"), "properties")
	typ := text(r.get(r.get(properties, "type"), "const"))
	if typ == "" { // one of several: the one that the example shows
		typ = text(r.get(r.get(body, "example"), "type"))
	}
	status := text(r.get(r.get(properties, "status"), "const"))
	name := typ[strings.LastIndex(typ, ":")+1:]
	return Problem{ID: problemID(name), Name: name, Status: status, Reason: reason(status)}
}

func reason(status string) string {
	code, err := strconv.Atoi(status)
	if err != nil {
		return ""
	}
	return http.StatusText(code)
}

// answered names the component schemas that are JSON objects with members and are reached from the
// responses that are no problem.
func (r *reader) answered() []string {
	var names []string
	var visit func(schema *yaml.Node)
	visit = func(schema *yaml.Node) {
		if schema == nil || r.err != nil {
			return
		}
		schema, name := r.named(schema)
		properties := r.get(schema, "properties")
		if name != "" && properties != nil {
			if slices.Contains(names, name) {
				return
			}
			names = append(names, name)
		}
		for _, p := range r.members(properties) {
			visit(p)
		}
		visit(r.get(schema, "items"))
		visit(r.get(schema, "additionalProperties"))
	}
	for _, item := range r.members(r.get(r.root, "paths")) {
		for _, op := range r.members(item) {
			for _, response := range r.members(r.get(op, "responses")) {
				visit(r.get(r.get(r.get(response, "content"), "application/json"), "schema"))
			}
		}
	}
	return names
}

// maxDepth bounds the members of members that are shown; a schema that contains itself has no end.
const maxDepth = 8

// fields lists the members of an object, and after each that is an object without a section of its
// own the members of that.
func (r *reader) fields(schema *yaml.Node, prefix string) []Field {
	schema = r.resolve(schema)
	var required []string
	for _, n := range items(r.get(schema, "required")) {
		required = append(required, n.Value)
	}
	var out []Field
	for name, n := range r.members(r.get(schema, "properties")) {
		f := r.field(prefix+name, n)
		f.Required = slices.Contains(required, name)
		out = append(out, f)
		inner, suffix := n, "."
		if items := r.get(n, "items"); items != nil {
			inner, suffix = items, "[]."
		}
		if _, name := r.named(inner); slices.Contains(r.objects, name) || r.err != nil {
			continue
		}
		if strings.Count(f.Name, ".") > maxDepth {
			r.fail(n, "%s: too deep to be shown", f.Name)
			continue
		}
		out = append(out, r.fields(inner, f.Name+suffix)...)
	}
	return out
}

func (r *reader) field(name string, schema *yaml.Node) Field {
	f := Field{
		Name: name,
		Type: r.typeOf(schema),
		Text: paragraphs(text(r.get(schema, "description"))),
	}
	if n := r.get(schema, "default"); n != nil {
		f.Default = scalar(n).Text
	}
	if n := r.get(schema, "pattern"); n != nil && r.get(schema, "format") == nil {
		f.Pattern = n.Value
	}
	return f
}

// typeOf says in a phrase what a schema admits, but for the pattern.
func (r *reader) typeOf(schema *yaml.Node) Text {
	schema, name := r.named(schema)
	if slices.Contains(r.objects, name) {
		return Text{{Text: name, Href: "#" + objectID(name)}}
	}
	if n := r.get(schema, "const"); n != nil {
		return Text{{Text: scalar(n).Text, Code: true}}
	}
	if n := r.get(schema, "enum"); n != nil {
		var out Text
		for i, value := range items(n) {
			switch {
			case i > 0 && i == len(n.Content)-1:
				out = append(out, Span{Text: " or "})
			case i > 0:
				out = append(out, Span{Text: ", "})
			}
			out = append(out, Span{Text: value.Value, Code: true})
		}
		return out
	}
	var out Text
	or := func(t Text) {
		if len(out) > 0 {
			out = append(out, Span{Text: " or "})
		}
		out = append(out, t...)
	}
	for _, n := range items(r.get(schema, "anyOf")) {
		or(r.typeOf(n))
	}
	types := items(r.get(schema, "type"))
	if n := r.get(schema, "type"); n != nil && n.Kind == yaml.ScalarNode {
		types = []*yaml.Node{n}
	}
	for _, n := range types {
		or(r.kind(n.Value, schema))
	}
	return out
}

// kind is the phrase for one JSON type of a schema.
func (r *reader) kind(typ string, schema *yaml.Node) Text {
	plain := func(s string) Text { return Text{{Text: s}} }
	switch typ {
	case "integer", "number":
		if typ == "integer" {
			typ = "whole number"
		}
		return plain(typ + r.bounds(schema, "minimum", "maximum", ""))
	case "string":
		if text(r.get(schema, "format")) == "date-time" {
			return plain("time")
		}
		return plain("string" + r.bounds(schema, "minLength", "maxLength", " characters"))
	case "array":
		if items := r.get(schema, "items"); items != nil {
			of := r.typeOf(items)
			return slices.Concat(plain("array of "), of, plain(r.bounds(schema, "minItems", "maxItems", "")))
		}
	case "object":
		if values := r.get(schema, "additionalProperties"); values != nil && values.Kind == yaml.MappingNode {
			return append(plain("object, each value "), r.typeOf(values)...)
		}
	}
	return plain(typ)
}

// bounds says how small and how great something may be, after a comma.
func (r *reader) bounds(schema *yaml.Node, least, most, unit string) string {
	from, to := text(r.get(schema, least)), text(r.get(schema, most))
	switch {
	case from == "" && to == "":
		return ""
	case from == "1" && to == "" && least != "minimum":
		return ", not empty"
	case from == to:
		return ", exactly " + number(from) + unit
	case to == "":
		return ", at least " + number(from) + unit
	case from == "":
		return ", at most " + number(to) + unit
	}
	return ", " + number(from) + " to " + number(to) + unit
}

// number puts a comma before each three digits of a whole number.
func number(s string) string {
	if len(s) > 3 {
		return number(s[:len(s)-3]) + "," + s[len(s)-3:]
	}
	return s
}

// curl is the request as a command for the shell. Parameters take part if they have an example.
func (r *reader) curl(method, path string, parameters []*yaml.Node, guarded bool, body *yaml.Node) Code {
	var query, headers []string
	for _, p := range parameters {
		name, value := text(r.get(p, "name")), text(r.get(p, "example"))
		switch in := text(r.get(p, "in")); {
		case value == "" && in == "path":
			r.fail(p, "path parameter %s: no example", name)
		case value == "":
		case in == "path":
			path = strings.ReplaceAll(path, "{"+name+"}", value)
		case in == "query":
			query = append(query, name+"="+value)
		case in == "header":
			headers = append(headers, name+": "+value)
		}
	}
	if len(query) > 0 {
		path += "?" + strings.Join(query, "&")
	}
	command := "curl "
	if method != http.MethodGet {
		command += "-X " + method + " "
	}
	code := Code{{Text: command}, {"string", `"$URL` + path + `"`}}
	option := func(name, value string) {
		code = append(code, Token{Text: " \\\n  " + name + " "}, Token{"string", value})
	}
	if guarded {
		option("-H", `"Authorization: Bearer $TOKEN"`)
	}
	for _, h := range headers {
		option("-H", quote(h))
	}
	if body != nil {
		option("-H", quote("Content-Type: application/json"))
		var data strings.Builder
		for _, t := range r.example(body) {
			data.WriteString(t.Text)
		}
		option("-d", quote(data.String()))
	}
	return code
}

// quote makes one word of the shell out of s.
func quote(s string) string { return "'" + strings.ReplaceAll(s, "'", `'\''`) + "'" }

// example is the first example of a media type as JSON, or nil.
func (r *reader) example(mediaType *yaml.Node) Code {
	n := r.get(mediaType, "example")
	if n == nil {
		for _, e := range r.members(r.get(mediaType, "examples")) {
			n = r.get(e, "value")
			break
		}
	}
	if n == nil {
		return nil
	}
	return block(n, 0, 0)
}

// width is the most characters of a line of JSON, but for a scalar that is longer.
const width = 56

// block is the JSON of a node that begins at a column, on as few lines as are readable; all but the
// first are indented by at least indent spaces. The outermost object has a line for each member.
func block(n *yaml.Node, indent, column int) Code {
	short := line(n)
	outermost := column == 0 && len(parts(n)) > 1
	if n.Kind == yaml.ScalarNode || !outermost && column+length(short)+len(",") <= width {
		return short
	}
	opening, closing := brackets(n)
	code := Code{{Text: opening}}
	margin := "\n" + strings.Repeat(" ", indent+2)
	for i, part := range parts(n) {
		if i > 0 {
			code = append(code, Token{Text: ","})
			column += len(",")
		}
		// Scalars of a list share lines, so that a hundred numbers are not a hundred lines.
		if value := part.value; i > 0 && part.key == nil && value.Kind == yaml.ScalarNode &&
			column+length(line(value))+len(" ,") <= width {
			code = append(code, Token{Text: " "}, scalar(value))
			column += len(" ") + length(line(value))
			continue
		}
		code = append(code, Token{Text: margin})
		column = indent + 2
		if part.key != nil {
			key := encode(part.key.Value)
			code = append(code, Token{"key", key}, Token{Text: ": "})
			column += len(key) + len(": ")
		}
		value := block(part.value, indent+2, column)
		code = append(code, value...)
		column += length(value)
	}
	return append(code, Token{Text: "\n" + strings.Repeat(" ", indent) + closing})
}

// line is the JSON of a node on one line.
func line(n *yaml.Node) Code {
	if n.Kind == yaml.ScalarNode {
		return Code{scalar(n)}
	}
	opening, closing := brackets(n)
	code := Code{{Text: opening}}
	for i, part := range parts(n) {
		if i > 0 {
			code = append(code, Token{Text: ", "})
		}
		if part.key != nil {
			code = append(code, Token{"key", encode(part.key.Value)}, Token{Text: ": "})
		}
		code = append(code, line(part.value)...)
	}
	return append(code, Token{Text: closing})
}

func brackets(n *yaml.Node) (opening, closing string) {
	if n.Kind == yaml.SequenceNode {
		return "[", "]"
	}
	return "{", "}"
}

type part struct{ key, value *yaml.Node }

// parts are the members of a mapping, or the items of a sequence without keys.
func parts(n *yaml.Node) []part {
	var out []part
	if n.Kind == yaml.SequenceNode {
		for _, item := range n.Content {
			out = append(out, part{nil, item})
		}
		return out
	}
	for i := 0; i+1 < len(n.Content); i += 2 {
		out = append(out, part{n.Content[i], n.Content[i+1]})
	}
	return out
}

func length(c Code) int {
	n := 0
	for _, t := range c {
		n += utf8.RuneCountInString(t.Text)
	}
	return n
}

// scalar is one JSON value that is neither an object nor an array.
func scalar(n *yaml.Node) Token {
	switch n.ShortTag() {
	case "!!int", "!!float":
		return Token{"number", n.Value}
	case "!!bool":
		return Token{"literal", n.Value}
	case "!!null":
		return Token{"literal", "null"}
	}
	return Token{"string", encode(n.Value)}
}

func encode(s string) string {
	var b bytes.Buffer
	e := json.NewEncoder(&b)
	e.SetEscapeHTML(false)
	if err := e.Encode(s); err != nil {
		panic(err) // a string always encodes
	}
	return strings.TrimSuffix(b.String(), "\n")
}

// get is a member of a mapping, with references followed; nil if either is missing.
func (r *reader) get(n *yaml.Node, name string) *yaml.Node {
	return member(r.resolve(n), name)
}

func member(n *yaml.Node, name string) *yaml.Node {
	if n == nil || n.Kind != yaml.MappingNode {
		return nil
	}
	for i := 0; i+1 < len(n.Content); i += 2 {
		if n.Content[i].Value == name {
			return n.Content[i+1]
		}
	}
	return nil
}

// members ranges over a mapping in the order of the document, with references followed.
func (r *reader) members(n *yaml.Node) func(yield func(string, *yaml.Node) bool) {
	return func(yield func(string, *yaml.Node) bool) {
		n := r.resolve(n)
		if n == nil || n.Kind != yaml.MappingNode {
			return
		}
		for i := 0; i+1 < len(n.Content); i += 2 {
			if !yield(n.Content[i].Value, n.Content[i+1]) {
				return
			}
		}
	}
}

func items(n *yaml.Node) []*yaml.Node {
	if n == nil || n.Kind != yaml.SequenceNode {
		return nil
	}
	return n.Content
}

// text is the value of a scalar; of anything else it is empty.
func text(n *yaml.Node) string {
	if n == nil || n.Kind != yaml.ScalarNode {
		return ""
	}
	return n.Value
}

// resolve follows references. What stands beside a reference overrides the target's member of that name.
func (r *reader) resolve(n *yaml.Node) *yaml.Node {
	n, _ = r.named(n)
	return n
}

// named is resolve, and the name of the component schema that the last reference leads to.
func (r *reader) named(n *yaml.Node) (*yaml.Node, string) {
	name := ""
	for range 16 {
		to := member(n, "$ref")
		if to == nil || to.Kind != yaml.ScalarNode {
			return n, name
		}
		target := r.target(to)
		if target == nil {
			return nil, ""
		}
		var schema bool
		if name, schema = strings.CutPrefix(to.Value, "#/components/schemas/"); !schema {
			name = ""
		}
		// The first member of a name is the one that counts, so what stands beside goes before.
		var beside []*yaml.Node
		for i := 0; i+1 < len(n.Content); i += 2 {
			if n.Content[i+1] != to {
				beside = append(beside, n.Content[i], n.Content[i+1])
			}
		}
		if len(beside) == 0 {
			n = target
		} else {
			n = &yaml.Node{Kind: yaml.MappingNode, Line: n.Line, Content: slices.Concat(beside, target.Content)}
		}
	}
	r.fail(n, "references go in a circle")
	return nil, ""
}

// target is the node that a reference leads to, or nil.
func (r *reader) target(ref *yaml.Node) *yaml.Node {
	path, local := strings.CutPrefix(ref.Value, "#/")
	n := r.root
	for name := range strings.SplitSeq(path, "/") {
		n = member(n, strings.NewReplacer("~1", "/", "~0", "~").Replace(name))
	}
	if n == nil || !local {
		r.fail(ref, "reference %q leads nowhere", ref.Value)
		return nil
	}
	return n
}

// paragraphs splits a description at its blank lines; what stands in backticks becomes code.
func paragraphs(s string) []Text {
	var out []Text
	for _, p := range strings.Split(strings.TrimSpace(s), "\n\n") {
		if p = strings.TrimSpace(p); p != "" {
			out = append(out, spans(p))
		}
	}
	return out
}

func spans(s string) Text {
	var out Text
	for i, part := range strings.Split(s, "`") {
		if part != "" {
			out = append(out, Span{Text: part, Code: i%2 == 1})
		}
	}
	return out
}
