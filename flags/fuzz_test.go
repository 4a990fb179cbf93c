package flags_test

import (
	"crypto/sha256"
	"encoding/json"
	"math/big"
	"slices"
	"strings"
	"testing"

	"github.com/dezky/platform-api/flags"
)

// bigBucket is the bucket by the rule's own words: the whole hash as one number, mod 100.
func bigBucket(tenantID, key string) int {
	sum := sha256.Sum256([]byte(tenantID + ":" + key))
	return int(new(big.Int).Mod(new(big.Int).SetBytes(sum[:]), big.NewInt(100)).Int64())
}

func FuzzDecodePatch(f *testing.F) {
	for _, seed := range []string{
		``, `{}`, `[]`, `null`, "\xef\xbb\xbf{}", `{"pct":25}{}`,
		`{"description":"ø \ud83d\ude00","state":"rollout","pct":25,"scope":{"plans":["starter"],"tenantSlugs":[],"partnerSlugs":null,"environments":["production"]},"note":"why"}`,
		`{"scope":{"tenantSlugs":[" b","a\t","b","a"]}}`, `{"scope":{"plans":[null,1]}}`, `{"scope":{"plans":[],"plans":[]}}`,
		`{"pct":2.5e1}`, `{"pct":1e999}`, `{"pct":12.5}`, `{"pct":-0}`, `{"pct":"25"}`, `{"pct":null,"state":null}`,
		`{"description":"\ud800"}`, `{"description":"\ufffd"}`, "{\"description\":\"\xff\"}", `{"description":"\u0000"}`,
		`{"\u0070ct":1,"pct":1}`, `{"":{"":[]}}`, strings.Repeat(`{"scope":`, 40), strings.Repeat("[", 40) + strings.Repeat("]", 40),
	} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, body []byte) {
		p, err := flags.DecodePatch(body)
		if err != nil {
			if malformed, ok := err.(*flags.Malformed); !ok || malformed.Message == "" {
				t.Fatalf("DecodePatch(%q) = %v, want *Malformed with a message", body, err)
			}
			return
		}
		got, err := p.Apply(flags.New("search"), everything)
		if err != nil {
			invalid, ok := err.(*flags.Invalid)
			if !ok || len(invalid.Errors) == 0 {
				t.Fatalf("Apply(%q) = %v, want *Invalid with errors", body, err)
			}
			for _, e := range invalid.Errors {
				if e.Field == "" || e.Message == "" {
					t.Errorf("Apply(%q) = %q, want each error with its field and message", body, invalid.Errors)
				}
			}
			return
		}
		if !slices.Contains(flags.States, got.State) || got.Pct < 0 || got.Pct > 100 {
			t.Errorf("Apply(%q) = %s, want a known state and a pct from 0 to 100", body, show(got))
		}
		for _, a := range flags.Axes {
			values := got.Scope.Axis(a)
			trimmed := !slices.ContainsFunc(values, func(v string) bool { return v == "" || v != strings.TrimSpace(v) })
			if values == nil || !ascending(values) || !trimmed || len(values) > flags.MaxAxis {
				t.Errorf("Apply(%q) = %s %q, want them trimmed, ascending and not nil", body, a, values)
			}
		}
		again, err := json.Marshal(map[string]any{"description": got.Description, "state": got.State, "pct": got.Pct, "scope": got.Scope})
		if err != nil {
			t.Fatal(err)
		}
		p, err = flags.DecodePatch(again)
		if err != nil {
			t.Fatalf("DecodePatch(%s) = %v, want no error", again, err)
		}
		if back, err := p.Apply(flags.New("search"), everything); err != nil || !back.SameContent(&got) {
			t.Errorf("Apply(%s) = %s, %v, want %s", again, show(back), err, show(got))
		}
	})
}

func FuzzEvaluate(f *testing.F) {
	f.Add("65f0c0ffee00000000000001", "dezky", "enterprise", "", "production", "jmap_native_v2", "rollout", 25, "", "", "", "")
	f.Add("t49", "acme", "business", "nordhost", "staging", "search_v2", "rollout", 1, "business,starter", "acme", "nordhost", "staging")
	f.Add("t26", "acme", "business", "", "staging", "search_v2", "rollout", 42, "a,b,business,c,d", "", "", "")
	f.Add("t27", "acme", "starter", "nordhost", "production", "search_v2", "targeted", 99, "business", "globex", "fjordit", "staging")
	f.Add("", "", "", "", "", "", "targeted", 0, "", "", "", "")
	f.Add("ø\xff", "a", "b", "c", "d", "æ", "on", -1, "a", "b", "c", "d")
	f.Add("t1", "a", "b", "c", "d", "e", "off", 101, "", "a,b,c,d,e,f", "", "")
	f.Add(strings.Repeat("t", 200), "a", "b", "c", "d", strings.Repeat("k", 200), "rollout", 50, "", "", "", "")
	f.Fuzz(func(t *testing.T, id, slug, plan, partner, environment, key, state string, pct int, plans, tenants, partners, environments string) {
		axis := func(s string) []string {
			if s == "" {
				return nil
			}
			values := strings.Split(s, ",")
			slices.Sort(values)
			return slices.Compact(values)
		}
		tenant := &flags.Tenant{ID: id, Slug: slug, Plan: plan, PartnerSlug: partner}
		flag := &flags.Flag{Key: key, State: flags.State(state), Pct: pct, Scope: flags.Scope{
			Plans: axis(plans), TenantSlugs: axis(tenants), PartnerSlugs: axis(partners), Environments: axis(environments)}}

		want := bigBucket(id, key)
		if got := flags.Bucket(id, key); got != want || got < 0 || got > 99 {
			t.Errorf("Bucket(%q, %q) = %d, want %d", id, key, got, want)
		}
		e := flag.Explain(tenant, environment)
		if got := flag.Evaluate(tenant, environment); got != e.Value {
			t.Errorf("Evaluate(%s, %s, %q) = %t, want %t as explained", show(flag), show(tenant), environment, got, e.Value)
		}
		split := e.Reason == flags.ReasonSplit
		if split != (e.Bucket != nil) || split != (e.Pct != nil) || split && (*e.Bucket != want || *e.Pct != pct) {
			t.Errorf("Explain(%s, %s, %q) = %s, want bucket %d and pct %d just with SPLIT", show(flag), show(tenant), environment, show(e), want, pct)
		}

		s := flags.NewSnapshot("epoch", 1, []string{environment}, []*flags.Flag{flag}, []*flags.Tenant{tenant}, nil)
		gained := 0
		if e.Value {
			gained = 1
		}
		if impact, anywhere := s.Impact(nil, flag, 1); impact[0].Gained != gained || anywhere != gained {
			t.Errorf("Impact(nil, %s) for %s = %s, %d, want %d gained", show(flag), show(tenant), show(impact), anywhere, gained)
		}
	})
}
