package handlers

import (
	"encoding/json"
	"os"
	"reflect"
	"testing"
)

// vectors are the cases of the domain's tests.
type vectors struct {
	Partners []string
	Tenants  []json.RawMessage
	Flags    []json.RawMessage
	Cases    []struct {
		TenantSlug, Environment string
		Expect                  map[string]bool
	}
}

// vectors brings the vectors' partners, tenants and flags in through the API.
func (s *running) vectors(t *testing.T) vectors {
	t.Helper()
	data, err := os.ReadFile("../flags/testdata/evaluation.json")
	if err != nil {
		t.Fatal(err)
	}
	var v vectors
	if err := json.Unmarshal(data, &v); err != nil {
		t.Fatal(err)
	}
	if len(v.Partners) != 4 || len(v.Tenants) != 24 || len(v.Flags) != 32 || len(v.Cases) != 72 {
		t.Fatalf("%d partners, %d tenants, %d flags and %d cases, want 4, 24, 32 and 72", len(v.Partners), len(v.Tenants), len(v.Flags), len(v.Cases))
	}
	for _, slug := range v.Partners {
		s.want(t, 201, "POST /partners", show(map[string]string{"slug": slug, "name": slug}))
	}
	for _, tenant := range v.Tenants {
		s.want(t, 201, "POST /tenants", string(tenant))
	}
	for _, flag := range v.Flags {
		s.want(t, 201, "POST /flags", string(flag))
	}
	return v
}

// TestVectors imports the vectors of the domain's tests through the API and asks for every case, before
// and after a restart.
func TestVectors(t *testing.T) {
	t.Parallel()
	s := start(t)
	v := s.vectors(t)
	tags := map[string]string{}
	ask := func(s *running) {
		t.Helper()
		for _, c := range v.Cases {
			a := s.want(t, 200, "POST /flags/evaluate", question(c.TenantSlug, c.Environment), s.as("evaluate"))
			if got := decode[map[string]bool](t, a); !reflect.DeepEqual(got, c.Expect) {
				t.Errorf("%s in %s: %s, want %s", c.TenantSlug, c.Environment, show(got), show(c.Expect))
			}
			name, tag := c.TenantSlug+" in "+c.Environment, a.header.Get("ETag")
			if before := tags[name]; before != "" && before != tag {
				t.Errorf("%s: ETag %s after the restart, want %s still", name, tag, before)
			}
			tags[name] = tag
		}
	}
	ask(s)
	s.stop(t)
	again := open(t, s.dir)
	again.tokens = s.tokens
	ask(again)
}
