package flags_test

import (
	"encoding/json"
	"os"
	"testing"

	"github.com/dezky/platform-api/flags"
)

// vectors are buckets and values that were computed by another implementation.
type vectors struct {
	Partners     []string          `json:"partners"`
	Environments []string          `json:"environments"`
	Tenants      []json.RawMessage `json:"tenants"`
	Flags        []json.RawMessage `json:"flags"`
	Cases        []struct {
		TenantSlug  string          `json:"tenantSlug"`
		Environment string          `json:"environment"`
		Expect      map[string]bool `json:"expect"`
	} `json:"cases"`
	Buckets []struct {
		TenantID string `json:"tenantId"`
		Key      string `json:"key"`
		Bucket   int    `json:"bucket"`
	} `json:"buckets"`
}

// loadVectors reads the vectors, and their registry and flags through the decoders.
func loadVectors(t *testing.T) (vectors, *flags.Snapshot) {
	t.Helper()
	data, err := os.ReadFile("testdata/evaluation.json")
	if err != nil {
		t.Fatal(err)
	}
	var v vectors
	if err := json.Unmarshal(data, &v); err != nil {
		t.Fatal(err)
	}
	type partner struct {
		Slug string `json:"slug"`
		Name string `json:"name"`
	}
	body := struct {
		Partners []partner         `json:"partners"`
		Tenants  []json.RawMessage `json:"tenants"`
		Flags    []json.RawMessage `json:"flags"`
	}{nil, v.Tenants, v.Flags}
	for _, slug := range v.Partners {
		body.Partners = append(body.Partners, partner{slug, slug})
	}
	doc, err := flags.DecodeDocument([]byte(show(body)))
	if err != nil {
		t.Fatal(err)
	}
	s, err := snapshotOf(doc, v.Environments)
	if err != nil {
		t.Fatal(err)
	}
	return v, s
}

func TestVectorBuckets(t *testing.T) {
	v, _ := loadVectors(t)
	if len(v.Buckets) != 255 {
		t.Fatalf("the vectors have %d buckets, want 255", len(v.Buckets))
	}
	for _, b := range v.Buckets {
		if got := flags.Bucket(b.TenantID, b.Key); got != b.Bucket {
			t.Errorf("Bucket(%q, %q) = %d, want %d", b.TenantID, b.Key, got, b.Bucket)
		}
	}
}

func TestVectorCases(t *testing.T) {
	v, s := loadVectors(t)
	buckets := map[[2]string]int{}
	for _, b := range v.Buckets {
		buckets[[2]string{b.TenantID, b.Key}] = b.Bucket
	}
	type place struct{ key, environment string }
	matched := map[place]int{}
	values, splits := 0, 0

	for _, c := range v.Cases {
		tenant := s.Tenant(c.TenantSlug)
		if tenant == nil || !s.HasEnvironment(c.Environment) || len(c.Expect) != len(s.Flags()) {
			t.Fatalf("case %s in %s names a tenant or environment that is not there, or not all %d flags",
				c.TenantSlug, c.Environment, len(s.Flags()))
		}
		for _, f := range s.Flags() {
			want := c.Expect[f.Key]
			values++
			if got := f.Evaluate(tenant, c.Environment); got != want {
				t.Errorf("Evaluate(%s, %s, %s) = %t, want %t", f.Key, c.TenantSlug, c.Environment, got, want)
			}
			e := f.Explain(tenant, c.Environment)
			if e.Value != want {
				t.Errorf("Explain(%s, %s, %s) = %s, want %t", f.Key, c.TenantSlug, c.Environment, show(e), want)
			}
			if bucket, ok := buckets[[2]string{tenant.ID, f.Key}]; ok && e.Bucket != nil {
				splits++
				if *e.Bucket != bucket {
					t.Errorf("Explain(%s, %s, %s).Bucket = %d, want %d", f.Key, c.TenantSlug, c.Environment, *e.Bucket, bucket)
				}
			}
			if want {
				matched[place{f.Key, c.Environment}]++
			}
		}
	}
	if want := len(s.Tenants()) * len(s.Environments()) * len(s.Flags()); values != want || splits == 0 {
		t.Errorf("saw %d values and %d buckets, want %d and more than none", values, splits, want)
	}

	for _, f := range s.Flags() {
		for i, environment := range s.Environments() {
			want := matched[place{f.Key, environment}]
			impact, _ := s.Impact(nil, f, 0)
			if got := impact[i].Gained; got != want {
				t.Errorf("Impact(nil, %s)[%s].Gained = %d, want %d", f.Key, environment, got, want)
			}
			if got := s.Preview(f, f, environment, 0).Matched; got != want {
				t.Errorf("Preview(%s, %s).Matched = %d, want %d", f.Key, environment, got, want)
			}
		}
	}
}
