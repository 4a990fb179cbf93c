package flags

import (
	"encoding/json"
	"errors"
	"testing"
	"time"
)

// bodies are questions and contexts in usual and unusual forms.
var bodies = []string{
	`{"tenantSlug":"acme"}`, `{"tenantSlug":"acme","environment":"staging"}`, ` { "environment" : "x" , "tenantSlug" : "y" } `,
	`{"tenantSlug":""}`, `{"tenantSlug":"a","tenantSlug":"b"}`, `{"tenantSlug":"\u0061"}`, `{"tenantSlug":"æ"}`, `{"tenantSlug":"a"}x`,
	`{"tenantSlug":1}`, `{"tenantSlug":null}`, `{"tenantSlug":"a",}`, `{"tenantSlug":"a" "environment":"b"}`, `{}`, `[]`, ``, `{"tenantSlug":"a`,
	`{"context":{"targetingKey":"acme"}}`, `{"context":{"targetingKey":"acme","n":12,"b":true,"z":0,"plan":"x","partner":"y","environment":"e"}}`,
	`{"context":{"targetingKey":"acme","n":01}}`, `{"context":{"targetingKey":"acme","n":1.5}}`, `{"context":{"targetingKey":"acme","n":tru}}`,
	`{"context":{"targetingKey":"acme","plan":7}}`, `{"context":{"targetingKey":true}}`, `{"context":{"targetingKey":"acme","a":1,"a":2}}`,
	`{"context":{"targetingKey":"acme"},"more":1}`, `{"context":{"targetingKey":"acme"}`, `{"context":{},"context":{"targetingKey":"a"}}`,
	"{\"context\":{\"targetingKey\":\"a\x00\"}}", `{"context":{"targetingKey":"acme","n":-1}}`, `{"context":{"targetingKey":"acme","n":1234567890123456}}`,
	`{"context":{"targetingKey":"acme","plan":""}}`, `{"context":{"targetingKey":"æ","n":-0.5e+10,"m":-,"o":1.,"p":1e}}`,
	"{\"context\":{\"targetingKey\":\"\xff\"}}", "{\"context\":{\"targetingKey\":\"a\ufffd\"}}", `{"context":{"targetingKey":"a","n":-01,"m":0e5,"o":.5}}`,
	`{"tenantSlug":"acme","at":"2026-01-31T14:02:00Z"}`, `{"context":{"targetingKey":"acme","at":"2026-01-31T14:02:00Z"}}`,
	`{"context":{"targetingKey":"acme","at":""}}`, `{"context":{"targetingKey":"acme","at":null}}`, `{"context":{"targetingKey":"acme","at":7}}`,
}

// FuzzScan holds that what the scanner understands, the parser understands in the same way.
func FuzzScan(f *testing.F) {
	for _, body := range bodies {
		f.Add([]byte(body))
	}
	f.Fuzz(func(t *testing.T, body []byte) {
		v, err := parseBody(body, true, inBody)
		if q, ok := scanQuestion(body); ok {
			slug, environment := v.member("tenantSlug"), v.member("environment")
			if err != nil || slug == nil || slug.kind != "a string" || slug.text != q.TenantSlug ||
				(environment == nil) != (q.Environment == "") || environment != nil && environment.text != q.Environment {
				t.Errorf("%q is scanned as %+v, and parsed as %+v, %v", body, q, v, err)
			}
			if n := len(v.members); n > 2 {
				t.Errorf("%q is scanned although it has %d members", body, n)
			}
		}
		if c, ok := scanContext(body); ok {
			if err != nil {
				t.Fatalf("%q is scanned as %+v, but the parser says %v", body, c, err)
			}
			context := v.member("context")
			for name, got := range map[string]string{"targetingKey": c.TargetingKey, "environment": c.Environment, "plan": c.Plan, "partner": c.Partner, "at": c.at} {
				want := ""
				if m := context.member(name); m != nil {
					if m.kind != "a string" {
						t.Errorf("%q is scanned although %s is %s", body, name, m.kind)
					}
					want = m.text
				}
				if got != want {
					t.Errorf("%q: %s is scanned as %q, want %q", body, name, got, want)
				}
			}
			if (c.At == nil) != (context.member("at") == nil) || c.At != nil && parseTime(c.at) == nil {
				t.Errorf("%q: at %q is scanned as %v", body, c.at, c.At)
			}
			if !json.Valid(c.Whole) {
				t.Errorf("%q: the whole context is %q", body, c.Whole)
			}
		}
	})
}

// The usual forms are scanned, else the scanner is for nothing.
func TestScanTakesTheUsual(t *testing.T) {
	t.Parallel()
	for _, body := range []string{bodies[0], bodies[1], bodies[2]} {
		if _, ok := scanQuestion([]byte(body)); !ok {
			t.Errorf("%s is left to the parser", body)
		}
	}
	for _, body := range []string{`{"context":{"targetingKey":"acme"}}`, ` { "context" : { "targetingKey":"acme", "n":-12.5e3 , "beta":true, "plan":"", "none":null, "name":"Æble" } } `} {
		if _, ok := scanContext([]byte(body)); !ok {
			t.Errorf("%s is left to the parser", body)
		}
	}
	if _, err := DecodeContext([]byte(`{"context":{"targetingKey":"acme","l":[{}]}}`)); err != nil {
		t.Errorf("what the scanner leaves to the parser: %v", err)
	}
	var wrong *ContextError
	if _, err := DecodeContext([]byte(`{"context":{"targetingKey":"acme","plan":7}}`)); !errors.As(err, &wrong) || wrong.Code != InvalidContext {
		t.Errorf("a number for a plan: %v", err)
	}
}

// A time is read to the letter of RFC 3339, in a question and, scanned or parsed, in a context.
func TestDecodeAt(t *testing.T) {
	t.Parallel()
	noon := time.Date(2026, 1, 31, 12, 0, 0, 0, time.UTC)
	for _, tt := range []struct {
		at   string
		want *time.Time // nil: refused
	}{
		{"2026-01-31T12:00:00Z", &noon},
		{"2026-01-31T13:30:00.25+01:30", new(noon.Add(250 * time.Millisecond))},
		{"2026-01-31T12:00:00-00:00", &noon},
		{"2026-02-01T11:59:00+23:59", &noon},
		{"0001-01-01T00:00:00.000Z", &time.Time{}},
		{"", nil}, {"yesterday", nil}, {"2026-01-31", nil},
		{"2026-01-31T12:00:00", nil}, {"2026-01-31 12:00:00Z", nil}, {"2026-02-30T12:00:00Z", nil},
		{"2026-01-31T2:00:00Z", nil}, {"2026-01-31T12:00:00,5Z", nil}, {"1769860800", nil},
		{"2026-01-31T12:00:00+24:00", nil}, {"2026-01-31T12:00:00+01:60", nil},
	} {
		refused := tt.want == nil
		q, err := DecodeQuestion([]byte(`{"tenantSlug":"acme","at":"` + tt.at + `"}`))
		var invalid *Invalid
		if refused != errors.As(err, &invalid) || refused && (len(invalid.Errors) != 1 || invalid.Errors[0] != FieldError{"at", timeMessage}) ||
			!refused && (q.At == nil || !q.At.Equal(*tt.want)) {
			t.Errorf("a question at %q: %v, %v", tt.at, q.At, err)
		}
		for _, more := range []string{"", `,"list":[]`} {
			c, err := DecodeContext([]byte(`{"context":{"targetingKey":"acme","at":"` + tt.at + `"` + more + `}}`))
			var bad *ContextError
			if refused != errors.As(err, &bad) || refused && (bad.Code != InvalidContext || bad.Message != "context.at "+timeMessage) ||
				!refused && (c.At == nil || !c.At.Equal(*tt.want)) {
				t.Errorf("a context at %q%s: %v, %v", tt.at, more, c.At, err)
			}
		}
	}
	for body, want := range map[string]string{
		`{"tenantSlug":"acme","at":null}`: "at must not be null",
		`{"tenantSlug":"acme","at":7}`:    "at must be a string, not a number",
		`{"at":"soon"}`:                   "tenantSlug is required; at " + timeMessage,
	} {
		if _, err := DecodeQuestion([]byte(body)); err == nil || err.Error() != want {
			t.Errorf("%s: %v, want %s", body, err, want)
		}
	}
	if c, err := DecodeContext([]byte(`{"context":{"targetingKey":"acme","at":null}}`)); err != nil || c.At != nil {
		t.Errorf("null in a context: %v, %v; want now", c.At, err)
	}
	if _, err := DecodeContext([]byte(`{"context":{"targetingKey":"acme","at":7}}`)); err == nil || err.Error() != "context.at must be a string, not a number" {
		t.Errorf("a number in a context: %v", err)
	}
}

func BenchmarkDecodeContext(b *testing.B) {
	for name, body := range map[string]string{
		"scanned": `{"context":{"targetingKey":"tenant-000042","environment":"production","email":"a@b.example"}}`,
		"parsed":  `{"context":{"targetingKey":"tenant-000042","environment":"production","list":[]}}`,
	} {
		b.Run(name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				if _, err := DecodeContext([]byte(body)); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
