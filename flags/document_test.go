package flags_test

import (
	"errors"
	"strings"
	"testing"

	"github.com/dezky/platform-api/flags"
)

func TestWriteDocument(t *testing.T) {
	edit := registry().Edit()
	edit.SetFlag("search", &flags.Flag{Key: "search", Description: "<b> & \"q\"\n\u2028ø", State: flags.Rollout, Pct: 25, Version: 9,
		Scope: flags.Scope{Plans: []string{"business", "starter"}, Environments: []string{"staging"}}})
	edit.SetFlag("a", new(flags.New("a")))

	tests := []struct {
		name string
		in   *flags.Snapshot
		want string
	}{
		{"empty", flags.NewSnapshot("e", 1, nil, nil, nil, nil), `{"partners":[],` + "\n" + `"tenants":[],` + "\n" + `"flags":[]}` + "\n"},
		{"full", edit.View(), `{"partners":[
{"slug":"fjordit","name":"Fjord IT"},
{"slug":"nordhost","name":"Nordhost"}],
"tenants":[
{"id":"t2","slug":"acme","name":"Acme","plan":"starter","partnerSlug":null,"status":"active"},
{"id":"t1","slug":"globex","name":"Globex","plan":"business","partnerSlug":"nordhost","status":"active"},
{"id":"t3","slug":"initech","name":"Initech","plan":"enterprise","partnerSlug":"nordhost","status":"suspended"}],
"flags":[
{"key":"a","description":"","state":"off","pct":0,"scope":{"plans":[],"tenantSlugs":[],"partnerSlugs":[],"environments":[]}},
{"key":"search","description":"<b> & \"q\"\n\u2028ø","state":"rollout","pct":25,"scope":{"plans":["business","starter"],"tenantSlugs":[],"partnerSlugs":[],"environments":["staging"]}}]}
`},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			var b strings.Builder
			if err := flags.WriteDocument(&b, tt.in); err != nil || b.String() != tt.want {
				t.Errorf("WriteDocument = %s, %v, want %s", b.String(), err, tt.want)
			}
		})
	}
}

// full is a writer without space.
type full struct{}

var errFull = errors.New("no space left")

func (full) Write([]byte) (int, error) { return 0, errFull }

func TestWriteDocumentFails(t *testing.T) {
	if err := flags.WriteDocument(full{}, registry()); !errors.Is(err, errFull) {
		t.Errorf("WriteDocument to a full disk = %v, want %v", err, errFull)
	}
}
