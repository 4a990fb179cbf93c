package flags_test

import (
	"reflect"
	"strings"
	"testing"

	"github.com/dezky/platform-api/flags"
)

// decoders are all that read a body, each with its refusals as one error.
var decoders = map[string]func(body []byte) error{
	"DecodePatch":    func(b []byte) error { p, err := flags.DecodePatch(b); return refused(p.Problems, err) },
	"DecodeNewFlag":  func(b []byte) error { n, err := flags.DecodeNewFlag(b); return refused(n.Problems, err) },
	"DecodeDraft":    func(b []byte) error { d, err := flags.DecodeDraft(b); return refused(d.Problems, err) },
	"DecodeQuestion": func(b []byte) error { _, err := flags.DecodeQuestion(b); return err },
	"DecodeRestore":  func(b []byte) error { _, _, problems, err := flags.DecodeRestore(b); return refused(problems, err) },
	"DecodeTenant":   func(b []byte) error { p, err := flags.DecodeTenant(b); return refused(p.Problems, err) },
	"DecodePartner":  func(b []byte) error { p, err := flags.DecodePartner(b); return refused(p.Problems, err) },
	"DecodeDocument": func(b []byte) error { _, err := flags.DecodeDocument(b); return err },
}

// TestDecodersRefuse holds what no decoder takes, whatever its fields are.
func TestDecodersRefuse(t *testing.T) {
	tests := []struct{ name, in, want string }{
		{"empty", "", "the body is empty; a JSON object is expected"},
		{"white space", " \r\n\t", "the body is empty; a JSON object is expected"},
		{"not JSON", "key=search", "the body is not JSON: invalid character 'k' looking for beginning of value at line 1, column 1"},
		{"cut off", `{"pct":`, "the body is not JSON: unexpected end of JSON input at line 1, column 7"},
		{"second line", "{\n  \"pct\": 1,\n}", "the body is not JSON: invalid character '}' looking for beginning of object key string at line 3, column 1"},
		{"single quotes", `{'pct':1}`, `the body is not JSON: invalid character '\'' looking for beginning of object key string at line 1, column 2`},
		{"a comment", `{/**/}`, "the body is not JSON: invalid character '/' looking for beginning of object key string at line 1, column 2"},
		{"NaN", `{"x":NaN}`, "the body is not JSON: invalid character 'N' looking for beginning of value at line 1, column 6"},
		{"leading zero", `{"x":01}`, "the body is not JSON: invalid character '1' after object key:value pair at line 1, column 7"},
		{"raw line break in a string", "{\"x\":\"a\nb\"}", `the body is not JSON: invalid character '\n' in string literal at line 1, column 8`},
		{"trailing object", `{}{}`, "the body is not JSON: invalid character '{' after top-level value at line 1, column 3"},
		{"trailing comma", `{},`, "the body is not JSON: invalid character ',' after top-level value at line 1, column 3"},
		{"byte order mark", "\xef\xbb\xbf{}", "the body is not JSON: invalid character 'ï' looking for beginning of value at line 1, column 1"},
		{"UTF-16", "\xff\xfe{\x00}\x00", "the body is not UTF-8"},
		{"invalid UTF-8 in a string", "{\"x\":\"\xff\"}", "the body is not UTF-8"},
		{"surrogate in UTF-8", "{\"x\":\"\xed\xa0\x80\"}", "the body is not UTF-8"},
		{"lone surrogate", `{"x":"\ud800"}`, "x contains U+FFFD or half of a surrogate pair"},
		{"lone low surrogate, deep", `{"x":[{"y":"a\udc00b"}]}`, "x[0].y contains U+FFFD or half of a surrogate pair"},
		{"surrogates the wrong way round", `{"x":"\udc00\ud800"}`, "x contains U+FFFD or half of a surrogate pair"},
		{"array", `[]`, "the body must be an object, not an array"},
		{"string", `"{}"`, "the body must be an object, not a string"},
		{"number", `1`, "the body must be an object, not a number"},
		{"boolean", `true`, "the body must be an object, not a boolean"},
		{"null", `null`, "the body must be an object, not null"},
		{"duplicate", `{"x":1,"y":2,"x":1}`, "x is given twice"},
		{"duplicate by an escape", `{"x":1,"\u0078":1}`, "x is given twice"},
		{"duplicate at depth", `{"x":{"y":[0,{"z":1,"z":1}]}}`, "x.y[1].z is given twice"},
		{"array bomb", strings.Repeat("[", 9000) + strings.Repeat("]", 9000), strings.Repeat("[0]", 17) + " is nested too deeply"},
		{"object bomb", strings.Repeat(`{"a":`, 9000) + "1" + strings.Repeat("}", 9000), strings.Repeat("a.", 16) + "a is nested too deeply"},
		{"bomb beyond what JSON readers take", strings.Repeat("[", 20_000) + strings.Repeat("]", 20_000), "the body is not JSON: invalid character '[' exceeded max depth at line 1, column 10001"},
		{"open bomb", strings.Repeat(`{"a":[`, 300_000), "the body is not JSON: invalid character '{' exceeded max depth at line 1, column 30001"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			for name, decode := range decoders {
				if got := outcome(decode([]byte(tt.in))); got != "malformed: "+tt.want {
					t.Errorf("%s(%.80q) = %.300s, want malformed: %.300s", name, tt.in, got, tt.want)
				}
			}
		})
	}
}

// TestDecoders holds what each decoder says of its own fields.
func TestDecoders(t *testing.T) {
	type test struct{ name, in, want string }
	const (
		pctRule   = "pct must be a whole number from 0 to 100"
		keyRule   = "key must be 1 to 64 lower-case letters, digits and underscores, and begin with a letter"
		flagNames = "is not a known field; the fields are description, key, note, pct, scope, state"
		axisNames = "is not a known field; the fields are environments, partnerSlugs, plans, tenantSlugs"
	)
	tests := map[string][]test{
		"DecodePatch": {
			{"nothing", `{}`, "ok"},
			{"white space around", " \n{}\n ", "ok"},
			{"everything", `{"description":"x","state":"rollout","pct":25,"scope":{"plans":["starter"],"tenantSlugs":[],"partnerSlugs":null},"note":"y"}`, "ok"},
			{"empty scope", `{"scope":{}}`, "ok"},
			{"surrogate pair", `{"note":"\ud83d\ude00"}`, "ok"},
			{"depth that means something", `{"scope":{"plans":["starter"]}}`, "ok"},

			{"pct of one decimal", `{"pct":25.0}`, "ok"},
			{"pct with exponent", `{"pct":2.5e1}`, "ok"},
			{"pct -0", `{"pct":-0}`, "ok"},
			{"pct in half", `{"pct":12.5}`, "invalid: " + pctRule},
			{"pct beyond a float", `{"pct":1e999}`, "invalid: " + pctRule},
			{"pct beyond an integer", `{"pct":1e99}`, "invalid: " + pctRule},
			{"pct far below", `{"pct":-9007199254740993000}`, "invalid: " + pctRule},
			{"pct as text", `{"pct":"25"}`, "malformed: pct must be a number, not a string"},
			{"pct as boolean", `{"pct":true}`, "malformed: pct must be a number, not a boolean"},
			{"pct as array", `{"pct":[25]}`, "malformed: pct must be a number, not an array"},

			{"null fields, in order", `{"description":null,"state":null,"pct":null,"scope":null,"note":null}`,
				"invalid: description must not be null; state must not be null; pct must not be null; scope must not be null; note must not be null"},
			{"null axis empties", `{"scope":{"plans":null,"tenantSlugs":null,"partnerSlugs":null,"environments":null}}`, "ok"},
			{"null in an axis waits for Apply", `{"scope":{"plans":["starter",null]}}`, "ok"},

			{"description as number", `{"description":1}`, "malformed: description must be a string, not a number"},
			{"state as boolean", `{"state":false}`, "malformed: state must be a string, not a boolean"},
			{"note as object", `{"note":{}}`, "malformed: note must be a string, not an object"},
			{"scope as array", `{"scope":[]}`, "malformed: scope must be an object, not an array"},
			{"axis as text", `{"scope":{"plans":"starter"}}`, "malformed: scope.plans must be an array, not a string"},
			{"axis as object", `{"scope":{"environments":{}}}`, "malformed: scope.environments must be an array, not an object"},
			{"number in an axis", `{"scope":{"plans":["starter",1]}}`, "malformed: scope.plans[1] must be a string, not a number"},
			{"array in an axis", `{"scope":{"tenantSlugs":[[]]}}`, "malformed: scope.tenantSlugs[0] must be a string, not an array"},

			{"unknown field", `{"pct":1,"percent":1}`, "malformed: percent is not a known field; the fields are description, note, pct, scope, state"},
			{"another case", `{"Pct":1}`, "malformed: Pct is not a known field; the fields are description, note, pct, scope, state"},
			{"key", `{"key":"search"}`, "malformed: key is not a known field; the fields are description, note, pct, scope, state"},
			{"unknown null field", `{"x":null}`, "malformed: x is not a known field; the fields are description, note, pct, scope, state"},
			{"unknown axis", `{"scope":{"plans":[],"plan":[]}}`, "malformed: scope.plan " + axisNames},
			{"duplicate axis", `{"scope":{"plans":[],"plans":[]}}`, "malformed: scope.plans is given twice"},
			{"the first mistake counts", `{"pct":"1","x":1}`, "malformed: pct must be a number, not a string"},
			{"malformed before invalid", `{"pct":12.5,"state":1}`, "malformed: state must be a string, not a number"},
		},
		"DecodeNewFlag": {
			{"key alone", `{"key":"search"}`, "ok"},
			{"everything", `{"key":"search","description":"x","state":"on","pct":0,"scope":{"plans":[]},"note":"y"}`, "ok"},
			{"no key", `{"pct":1}`, "invalid: key is required"},
			{"null key", `{"key":null}`, "invalid: key must not be null"},
			{"empty key", `{"key":""}`, "invalid: " + keyRule},
			{"bad key beside a bad pct", `{"key":"Search","pct":0.5}`, "invalid: " + pctRule + "; " + keyRule},
			{"reserved key", `{"key":"evaluate"}`, `invalid: key "evaluate" is reserved`},
			{"key as number", `{"key":1}`, "malformed: key must be a string, not a number"},
			{"version", `{"key":"search","version":1}`, "malformed: version " + flagNames},
		},
		"DecodeDraft": {
			{"nothing", `{}`, "ok"},
			{"everything", `{"state":"on","pct":1,"scope":{"environments":["production"]},"environment":"staging"}`, "ok"},
			{"environment empty", `{"environment":""}`, "invalid: environment must not be empty"},
			{"environment null", `{"environment":null}`, "invalid: environment must not be null"},
			{"environment as array", `{"environment":["production"]}`, "malformed: environment must be a string, not an array"},
			{"description", `{"description":"x"}`, "malformed: description is not a known field; the fields are environment, pct, scope, state"},
			{"note", `{"note":"x"}`, "malformed: note is not a known field; the fields are environment, pct, scope, state"},
			{"all bad values", `{"environment":"","pct":0.1,"state":null}`, "invalid: " + pctRule + "; state must not be null; environment must not be empty"},
		},
		"DecodeQuestion": {
			{"tenant alone", `{"tenantSlug":"acme"}`, "ok"},
			{"both", `{"environment":"staging","tenantSlug":"acme"}`, "ok"},
			{"no such tenant is not the decoder's business", `{"tenantSlug":""}`, "ok"},
			{"nothing", `{}`, "invalid: tenantSlug is required"},
			{"tenant null", `{"tenantSlug":null}`, "invalid: tenantSlug must not be null"},
			{"tenant as number", `{"tenantSlug":1}`, "malformed: tenantSlug must be a string, not a number"},
			{"environment null", `{"tenantSlug":"acme","environment":null}`, "invalid: environment must not be null"},
			{"environment empty", `{"environment":""}`, "invalid: tenantSlug is required; environment must not be empty"},
			{"environment as boolean", `{"tenantSlug":"acme","environment":true}`, "malformed: environment must be a string, not a boolean"},
			{"unknown field", `{"tenantSlug":"acme","tenant":"acme"}`, "malformed: tenant is not a known field; the fields are at, environment, tenantSlug"},
		},
		"DecodeRestore": {
			{"version alone", `{"version":3}`, "ok"},
			{"with note", `{"version":3,"note":"back"}`, "ok"},
			{"version of one decimal", `{"version":3.0}`, "ok"},
			{"nothing", `{}`, "invalid: version is required"},
			{"version null", `{"version":null}`, "invalid: version must not be null"},
			{"version 0", `{"version":0}`, "invalid: version must be a whole number from 1"},
			{"version -1", `{"version":-1}`, "invalid: version must be a whole number from 1"},
			{"version in half", `{"version":1.5}`, "invalid: version must be a whole number from 1"},
			{"version as text", `{"version":"3"}`, "malformed: version must be a number, not a string"},
			{"note null", `{"version":1,"note":null}`, "invalid: note must not be null"},
			{"note as number", `{"version":1,"note":1}`, "malformed: note must be a string, not a number"},
			{"unknown field", `{"version":1,"pct":1}`, "malformed: pct is not a known field; the fields are note, version"},
		},
		"DecodeTenant": {
			{"nothing", `{}`, "ok"},
			{"everything", `{"id":"t9","slug":"new","name":"New","plan":"starter","partnerSlug":"nordhost","status":"active"}`, "ok"},
			{"no partner", `{"partnerSlug":null}`, "ok"},
			{"nulls", `{"id":null,"slug":null,"name":null,"plan":null,"status":null}`,
				"invalid: id must not be null; slug must not be null; name must not be null; plan must not be null; status must not be null"},
			{"id as number", `{"id":65}`, "malformed: id must be a string, not a number"},
			{"partner as object", `{"partnerSlug":{"slug":"nordhost"}}`, "malformed: partnerSlug must be a string, not an object"},
			{"unknown field", `{"createdAt":"2026-01-01T00:00:00Z"}`, "malformed: createdAt is not a known field; the fields are id, name, partnerSlug, plan, slug, status"},
		},
		"DecodePartner": {
			{"nothing", `{}`, "ok"},
			{"everything", `{"slug":"nordhost","name":"Nordhost"}`, "ok"},
			{"nulls", `{"slug":null,"name":null}`, "invalid: slug must not be null; name must not be null"},
			{"name as number", `{"name":1}`, "malformed: name must be a string, not a number"},
			{"unknown field", `{"id":"p1"}`, "malformed: id is not a known field; the fields are name, slug"},
		},
		"DecodeDocument": {
			{"nothing", `{}`, "ok"},
			{"empty lists", `{"partners":[],"tenants":[],"flags":[]}`, "ok"},
			{"bad values wait", `{"flags":[{"key":"search","pct":0.5}],"tenants":[{"slug":null}]}`, "ok"},
			{"null lists", `{"partners":null,"tenants":null,"flags":null}`,
				"invalid: partners must not be null; tenants must not be null; flags must not be null"},
			{"list as object", `{"flags":{}}`, "malformed: flags must be an array, not an object"},
			{"malformed before invalid", `{"partners":null,"tenants":[1]}`, "malformed: tenants[0] must be an object, not a number"},
			{"null element", `{"flags":[{"key":"a"},null]}`, "malformed: flags[1] must be an object, not null"},
			{"array element", `{"partners":[[]]}`, "malformed: partners[0] must be an object, not an array"},
			{"wrong type in a flag", `{"flags":[{"key":"a"},{"key":"b","scope":{"plans":["starter",{}]}}]}`,
				"malformed: flags[1].scope.plans[1] must be a string, not an object"},
			{"wrong type in a tenant", `{"tenants":[{"slug":7}]}`, "malformed: tenants[0].slug must be a string, not a number"},
			{"unknown field in a partner", `{"partners":[{"slug":"a","id":"b"}]}`, "malformed: partners[0].id is not a known field; the fields are name, slug"},
			{"unknown field in a flag", `{"flags":[{"key":"a","history":[]}]}`, "malformed: flags[0].history " + flagNames},
			{"unknown axis in a flag", `{"flags":[{"key":"a","scope":{"tenants":[]}}]}`, "malformed: flags[0].scope.tenants " + axisNames},
			{"duplicate in a flag", `{"flags":[{"key":"a","key":"b"}]}`, "malformed: flags[0].key is given twice"},
			{"the first mistake counts, within a list", `{"flags":[{"key":1},{"key":2}]}`, "malformed: flags[0].key must be a string, not a number"},
			{"the first mistake counts, between lists", `{"tenants":[2],"partners":[1],"flags":1}`, "malformed: tenants[0] must be an object, not a number"},
			{"unknown list", `{"tokens":[]}`, "malformed: tokens is not a known field; the fields are flags, partners, tenants"},
		},
	}
	for name, decode := range decoders {
		if len(tests[name]) == 0 {
			t.Errorf("%s has no tests", name)
		}
		for _, tt := range tests[name] {
			t.Run(name+"/"+tt.name, func(t *testing.T) {
				if got := outcome(decode([]byte(tt.in))); got != tt.want {
					t.Errorf("%s(%s) = %s, want %s", name, tt.in, got, tt.want)
				}
			})
		}
	}
}

func TestMalformedWhere(t *testing.T) {
	tests := []struct{ name, in, where, message string }{
		{"the whole", ``, "", "is empty; a JSON object is expected"},
		{"a field", `{"pct":"1"}`, "pct", "must be a number, not a string"},
		{"deep", `{"scope":{"plans":["starter",1]}}`, "scope.plans[1]", "must be a string, not a number"},
		{"duplicate", `{"scope":{"plans":[],"plans":[]}}`, "scope.plans", "is given twice"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			_, err := flags.DecodePatch([]byte(tt.in))
			want := &flags.Malformed{Where: tt.where, Message: tt.message}
			if !reflect.DeepEqual(err, want) {
				t.Errorf("DecodePatch(%s) = %#v, want %#v", tt.in, err, want)
			}
		})
	}
}

func TestDecodedValues(t *testing.T) {
	type axes = map[flags.Axis][]string
	tests := []struct {
		name string
		got  func() (any, error)
		want any
	}{
		{"patch of nothing", func() (any, error) { return flags.DecodePatch([]byte(`{}`)) }, flags.Patch{Scope: axes{}}},
		{"patch", func() (any, error) {
			return flags.DecodePatch([]byte(`{"description":"\u00f8 <b>","state":"rollout","pct":2.5e1,` +
				`"scope":{"plans":[" starter","starter"],"tenantSlugs":null,"partnerSlugs":[]},"note":"why"}`))
		}, flags.Patch{
			Description: new("ø <b>"), State: new(flags.Rollout), Pct: new(25), Note: "why",
			Scope: axes{flags.AxisPlans: {" starter", "starter"}, flags.AxisTenants: {}, flags.AxisPartners: {}},
		}},
		{"patch with nulls on an axis", func() (any, error) { return flags.DecodePatch([]byte(`{"scope":{"plans":["starter",null,""]}}`)) },
			flags.Patch{Scope: axes{flags.AxisPlans: {"starter", "", ""}}}},
		{"new flag", func() (any, error) { return flags.DecodeNewFlag([]byte(`{"key":"search","pct":0}`)) },
			flags.NewFlag{Key: "search", Patch: flags.Patch{Pct: new(0), Scope: axes{}}}},
		{"draft", func() (any, error) {
			return flags.DecodeDraft([]byte(`{"state":"on","scope":{"environments":["staging"]},"environment":"production"}`))
		}, flags.Draft{Environment: "production", Patch: flags.Patch{State: new(flags.On), Scope: axes{flags.AxisEnvironments: {"staging"}}}}},
		{"question", func() (any, error) {
			return flags.DecodeQuestion([]byte(`{"tenantSlug":"acme","environment":"staging"}`))
		},
			flags.Question{TenantSlug: "acme", Environment: "staging"}},
		{"question without environment", func() (any, error) { return flags.DecodeQuestion([]byte(`{"tenantSlug":"acme"}`)) },
			flags.Question{TenantSlug: "acme"}},
		{"tenant", func() (any, error) {
			return flags.DecodeTenant([]byte(`{"id":"t9","slug":"new","name":"New","plan":"starter","partnerSlug":null,"status":"suspended"}`))
		}, flags.TenantPatch{ID: new("t9"), Slug: new("new"), Name: new("New"), Plan: new("starter"), PartnerSlug: new(""), Status: new("suspended")}},
		{"tenant of nothing", func() (any, error) { return flags.DecodeTenant([]byte(`{}`)) }, flags.TenantPatch{}},
		{"partner", func() (any, error) { return flags.DecodePartner([]byte(`{"slug":"nordhost","name":"Nordhost"}`)) },
			flags.PartnerPatch{Slug: new("nordhost"), Name: new("Nordhost")}},
		{"document of nothing", func() (any, error) { return flags.DecodeDocument([]byte(`{}`)) }, flags.Document{}},
		{"document of empty lists", func() (any, error) { return flags.DecodeDocument([]byte(`{"partners":[],"tenants":[],"flags":[]}`)) },
			flags.Document{Partners: []flags.PartnerPatch{}, Tenants: []flags.TenantPatch{}, Flags: []flags.NewFlag{}}},
		{"document whose bad values wait, each relative to its element", func() (any, error) {
			return flags.DecodeDocument([]byte(`{"partners":[{"name":null}],"tenants":[{"slug":"a"},{"plan":null}],"flags":[{"pct":1.5}]}`))
		}, flags.Document{
			Partners: []flags.PartnerPatch{{Problems: []flags.FieldError{{Field: "name", Message: "must not be null"}}}},
			Tenants:  []flags.TenantPatch{{Slug: new("a")}, {Problems: []flags.FieldError{{Field: "plan", Message: "must not be null"}}}},
			Flags: []flags.NewFlag{{Patch: flags.Patch{Scope: axes{}, Problems: []flags.FieldError{
				{Field: "pct", Message: "must be a whole number from 0 to 100"}, {Field: "key", Message: "is required"}}}}},
		}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			got, err := tt.got()
			if err != nil || !reflect.DeepEqual(got, tt.want) {
				t.Errorf("decoded %s, %v, want %s", show(got), err, show(tt.want))
			}
		})
	}

	version, note, problems, err := flags.DecodeRestore([]byte(`{"version":3e0,"note":"back"}`))
	if version != 3 || note != "back" || problems != nil || err != nil {
		t.Errorf("DecodeRestore = %d, %q, %v, %v, want 3, back and no problems", version, note, problems, err)
	}
}

// TestDecodedBadValues: what decoding found and what applying finds are told together.
func TestDecodedBadValues(t *testing.T) {
	tests := []struct{ name, in, want string }{
		{"null on an axis", `{"scope":{"plans":["starter",null]}}`, "invalid: scope.plans[1] must not be empty or null"},
		{"pct 101", `{"pct":101}`, "invalid: pct must be a whole number from 0 to 100"},
		{"pct -1", `{"pct":-1}`, "invalid: pct must be a whole number from 0 to 100"},
		{"pct 2^53", `{"pct":9007199254740992}`, "invalid: pct must be a whole number from 0 to 100"},
		{"both kinds", `{"pct":12.5,"state":"paused","note":null,"scope":{"plans":["free"]}}`,
			"invalid: pct must be a whole number from 0 to 100; note must not be null; state must be one of off, on, targeted, rollout; " +
				`scope.plans[0] must be a known plan (starter, business, enterprise), not "free"`},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			p, err := flags.DecodePatch([]byte(tt.in))
			if err != nil {
				t.Fatalf("DecodePatch(%s) = %v, want no error", tt.in, err)
			}
			if _, err = p.Apply(flags.New("search"), registry().Known); outcome(err) != tt.want {
				t.Errorf("Apply(DecodePatch(%s)) = %s, want %s", tt.in, outcome(err), tt.want)
			}
		})
	}
}

func TestWholeNumbers(t *testing.T) {
	for _, test := range []struct {
		in   string
		want int // -1: refused
	}{
		{"0", 0}, {"-0", 0}, {"0.0", 0}, {"0e999999999999", 0}, {"25", 25}, {"25.0", 25}, {"2.5e1", 25}, {"250E-1", 25}, {"0.25e+2", 25},
		{"2500000000000000000000e-20", 25}, {"100", 100},
		{"12.5", -1}, {"25.00000000000000000001", -1}, {"1e-400", -1}, {"1e400", -1}, {"1e999999999999", -1}, {"4294967321", -1}, {"101", -1}, {"-1", -1},
	} {
		p, err := flags.DecodePatch([]byte(`{"pct":` + test.in + `}`))
		if err != nil {
			t.Fatalf("DecodePatch(pct %s) = %v", test.in, err)
		}
		f, err := p.Apply(flags.New("k"), func(flags.Axis, string) bool { return false })
		if (err == nil) != (test.want >= 0) || err == nil && f.Pct != test.want {
			t.Errorf("pct %s = %d, %v, want %d", test.in, f.Pct, err, test.want)
		}
	}
}
