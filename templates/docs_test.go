package templates

import (
	"bytes"
	"encoding/json"
	"errors"
	"os"
	"reflect"
	"regexp"
	"slices"
	"strings"
	"testing"

	"go.yaml.in/yaml/v4"
)

func readSpec(t *testing.T) []byte {
	t.Helper()
	spec, err := os.ReadFile("../openapi.yaml")
	if err != nil {
		t.Fatal(err)
	}
	return spec
}

func render(t *testing.T, spec []byte) string {
	t.Helper()
	d, err := NewDocs(spec)
	if err != nil {
		t.Fatal(err)
	}
	var b bytes.Buffer
	if err := Render(&b, d); err != nil {
		t.Fatal(err)
	}
	return b.String()
}

func TestDocsShowEveryOperation(t *testing.T) {
	spec := readSpec(t)
	html := render(t, spec)
	var document struct {
		Paths map[string]map[string]any
	}
	if err := yaml.Load(spec, &document); err != nil {
		t.Fatal(err)
	}
	n := 0
	for path, item := range document.Paths {
		for method, v := range item {
			op, ok := v.(map[string]any)
			if !ok {
				continue // the parameters of the path
			}
			n++
			id := op["operationId"].(string)
			start := strings.Index(html, `<article class="entry" id="`+id+`"`)
			if start < 0 {
				t.Errorf("no article for %s %s (%s)", method, path, id)
				continue
			}
			article := html[start:]
			article = article[:strings.Index(article, "</article>")]
			role := "role <b>" + op["x-role"].(string) + "</b>"
			if op["x-role"] == "none" {
				role = "no credentials"
			}
			want := []string{
				`data-method="` + strings.ToUpper(method) + `"`,
				`<code class="path">` + path + `</code>`,
				role,
				"curl ",
			}
			for status := range op["responses"].(map[string]any) {
				want = append(want, ">"+status+"</span>")
			}
			for _, w := range want {
				if !strings.Contains(article, w) {
					t.Errorf("%s %s: no %q in its article", method, path, w)
				}
			}
			if got := strings.Contains(article, "Authorization: Bearer"); got == (op["x-role"] == "none") {
				t.Errorf("%s %s: role %s, and the example has a token: %t", method, path, op["x-role"], got)
			}
		}
	}
	if n < 20 {
		t.Errorf("%d operations were looked for, want all of them", n)
	}
}

func TestDocsShowEveryProblem(t *testing.T) {
	html := render(t, readSpec(t))
	for _, name := range []string{
		"bad-request", "unauthorized", "forbidden", "not-found", "method-not-allowed", "conflict",
		"precondition-failed", "too-large", "unsupported-media-type", "invalid", "internal", "unavailable",
	} {
		if n := strings.Count(html, `<article class="entry" id="problem-`+name+`"`); n != 1 {
			t.Errorf("problem %s has %d articles, want 1", name, n)
		}
	}
	if want := `<code>errors[].message</code>`; !strings.Contains(html, want) {
		t.Errorf("no %s among the members of a problem", want)
	}
}

func TestDocsPageIsStrictAndWhole(t *testing.T) {
	html := render(t, readSpec(t))
	for _, bad := range []string{`(?i)<script`, `<[^>]*\sstyle=`, `<style`, `<[^>]*\son[a-z]+\s*=`, `javascript:`, `ZgotmplZ`} {
		if found := regexp.MustCompile(bad).FindString(html); found != "" {
			t.Errorf("%s matches %q", bad, found)
		}
	}
	for tag, want := range map[string]int{"<h1": 1, "<main": 1, "<nav": 1, `class="skip"`: 1, `<html lang="en"`: 1} {
		if n := strings.Count(html, tag); n != want {
			t.Errorf("%d times %s, want %d", n, tag, want)
		}
	}
	var ids []string
	for _, m := range regexp.MustCompile(` id="([^"]*)"`).FindAllStringSubmatch(html, -1) {
		if slices.Contains(ids, m[1]) {
			t.Errorf("id %q is there twice", m[1])
		}
		ids = append(ids, m[1])
	}
	for _, m := range regexp.MustCompile(`(?:href="#|labelledby=")([^"]*)"`).FindAllStringSubmatch(html, -1) {
		if !slices.Contains(ids, m[1]) {
			t.Errorf("a link or label to %q, which is not there", m[1])
		}
	}
}

// minimal is a document that NewDocs takes; each test of a mistake breaks one thing in it.
const minimal = `
openapi: 3.1.0
info: {title: T, version: '1', description: 'first <b>'}
tags: [{name: A}]
paths:
  /a/{id}:
    parameters: [{name: id, in: path, required: true, example: x, schema: {type: string}}]
    put:
      operationId: putA
      tags: [A]
      x-role: operator
      summary: Put
      requestBody: {content: {application/json: {schema: {$ref: '#/components/schemas/B'}, example: {say: "it's"}}}}
      responses: {'204': {description: done}}
components:
  schemas:
    B: {type: object, properties: {say: {$ref: '#/components/schemas/C', description: over, maxLength: 2000}}}
    C: {type: [string, 'null'], description: under, minLength: 1, default: ''}
`

func TestNewDocsResolvesReferences(t *testing.T) {
	d, err := NewDocs([]byte(minimal))
	if err != nil {
		t.Fatal(err)
	}
	op := d.Groups[0].Operations[0]
	want := []Field{{
		Name:    "say",
		Type:    Text{{Text: "string, 1 to 2,000 characters"}, {Text: " or "}, {Text: "null"}},
		Default: `""`,
		Text:    []Text{{{Text: "over"}}},
	}}
	if !reflect.DeepEqual(op.Body, want) {
		t.Errorf("body fields = %+v, want %+v", op.Body, want)
	}
	wantCurl := `curl -X PUT "$URL/a/x" \
  -H 'Content-Type: application/json' \
  -d '{"say": "it'\''s"}'`
	if got := join(op.Request); got != wantCurl {
		t.Errorf("request = %s\nwant %s", got, wantCurl)
	}
	if html := render(t, []byte(minimal)); !strings.Contains(html, "first &lt;b&gt;") {
		t.Error("a description is not escaped")
	}
}

func TestNewDocsRefuses(t *testing.T) {
	tests := []struct{ name, old, new, want string }{
		{"no YAML", minimal, "a: [", "OpenAPI document"},
		{"no mapping", minimal, "- a", "not a mapping"},
		{"a dead reference", "schemas/C'", "schemas/D'", `"#/components/schemas/D" leads nowhere`},
		{"a foreign reference", "'#/components/schemas/C'", "'other.yaml#/C'", `leads nowhere`},
		{"a circle of references", "C: {", "C: {$ref: '#/components/schemas/C', ", "circle"},
		{"a schema without end", "properties: {say: {", "properties: {in: {$ref: '#/components/schemas/B'}, say: {", "too deep"},
		{"no operationId", "operationId: putA", "", "operationId"},
		{"no role", "x-role: operator", "", "x-role"},
		{"an unknown tag", "tags: [A]", "tags: [Z]", "tag"},
		{"no tag", "tags: [A]", "", "tag"},
		{"no responses", "responses:", "x-responses:", "no responses"},
		{"a path parameter without example", "example: x,", "", "no example"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			if !strings.Contains(minimal, tt.old) {
				t.Fatalf("the document has no %q", tt.old)
			}
			_, err := NewDocs([]byte(strings.Replace(minimal, tt.old, tt.new, 1)))
			if err == nil || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("NewDocs: %v, want an error with %q", err, tt.want)
			}
		})
	}
}

// The examples on the page must be the document's, whatever the line breaks.
func TestExamplesAreJSON(t *testing.T) {
	for _, source := range []string{
		`{a: 1, b: [], c: {}, d: null, e: true, f: "<a> & \"b\"", g: 'off'}`,
		`[{slug: a, name: A}, {slug: b, name: B}]`,
		`{long: [aaaaaaaaaaaaaaaaaaaaaaaa, bbbbbbbbbbbbbbbbbbbbbbbbbbbbbb, cccccccccccccccccc, d], 'scope.plans': {from: null, to: [x]}}`,
		`{production_environment: {gained: 0, lost: 0, gains: [], loss: []}, x: {a: {b: {c: [d, [e, f], {}]}}}}`,
		`{n: [0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16, 17, 18, 19, 20, 21, 22, 23, 24]}`,
	} {
		var node yaml.Node
		var want any
		if err := errors.Join(yaml.Load([]byte(source), &node), yaml.Load([]byte(source), &want)); err != nil {
			t.Fatal(err)
		}
		text := join(block(node.Content[0], 0, 0))
		var got any
		if err := json.Unmarshal([]byte(text), &got); err != nil {
			t.Errorf("%s: %v in\n%s", source, err, text)
			continue
		}
		a, _ := json.Marshal(got)
		b, _ := json.Marshal(want)
		if !bytes.Equal(a, b) || strings.Contains(text, `\u`) {
			t.Errorf("%s became\n%s", source, text)
		}
		for line := range strings.Lines(text) {
			if len(strings.TrimRight(line, "\n")) > width {
				t.Errorf("%s: a line of more than %d characters: %s", source, width, line)
			}
		}
	}
}

func TestParagraphs(t *testing.T) {
	got := paragraphs("Has `a` and\n`b`.\n\nSecond.\n")
	want := []Text{
		{{Text: "Has "}, {Text: "a", Code: true}, {Text: " and\n"}, {Text: "b", Code: true}, {Text: "."}},
		{{Text: "Second."}},
	}
	if !reflect.DeepEqual(got, want) {
		t.Errorf("paragraphs = %+v, want %+v", got, want)
	}
}

type brokenView struct{}

func (brokenView) template() (page, name string) { return "docs", "layout" }

func TestRenderWritesAllOrNothing(t *testing.T) {
	var b bytes.Buffer
	if err := Render(&b, brokenView{}); err == nil || b.Len() > 0 {
		t.Errorf("Render of a view without the fields: %v and %d bytes, want an error and none", err, b.Len())
	}
	lost := errors.New("lost")
	if err := Render(failingWriter{lost}, Docs{}); !errors.Is(err, lost) {
		t.Errorf("Render to a failing writer: %v, want it to wrap %v", err, lost)
	}
}

type failingWriter struct{ err error }

func (w failingWriter) Write([]byte) (int, error) { return 0, w.err }

func join(c Code) string {
	var b strings.Builder
	for _, t := range c {
		b.WriteString(t.Text)
	}
	return b.String()
}
