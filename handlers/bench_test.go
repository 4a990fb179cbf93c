package handlers

import (
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/dezky/platform-api/db"
	"github.com/dezky/platform-api/db/dbtest"
	"github.com/dezky/platform-api/flags"
)

// bench is a server without a network, whose log nobody reads.
type bench struct {
	*Server
	token string
}

// startBench starts a server on a database that holds the document.
func startBench(b *testing.B, d flags.Document) bench {
	b.Helper()
	s := bench{Server: New(Options{Log: discard, Version: "bench"})}
	database := dbtest.Open(b)
	if err := database.Plant(b.Context(), db.By{Actor: "system:seed"}, d); err != nil {
		b.Fatal(err)
	}
	var err error
	if s.token, _, err = database.CreateToken(b.Context(), db.By{Actor: "ops@dezky.example"}, db.NewToken{Name: "bench", Role: "read"}); err != nil {
		b.Fatal(err)
	}
	b.Cleanup(s.EndStreams)
	err = s.Start(appliance(b, database, time.Now, discard, "http://127.0.0.1:3001"))
	if err != nil {
		b.Fatal(err)
	}
	return s
}

// run sends one request over and over.
func (s bench) run(b *testing.B, path, body string) {
	b.Helper()
	content := strings.NewReader("")
	r, err := http.NewRequestWithContext(b.Context(), "POST", path, nil)
	if err != nil {
		b.Fatal(err)
	}
	r.Header.Set("Authorization", "Bearer "+s.token)
	r.Header.Set("Content-Type", "application/json")
	w := &recorded{header: http.Header{}}
	b.ReportAllocs()
	for b.Loop() {
		content.Reset(body)
		r.Body, r.ContentLength = io.NopCloser(content), int64(len(body))
		clear(w.header)
		w.status = 0
		if s.ServeHTTP(w, r); w.status != http.StatusOK {
			b.Fatalf("POST %s %s = %d, want 200", path, body, w.status)
		}
	}
}

// crowd returns n tenants over all plans.
func crowd(n int) []flags.TenantPatch {
	out := make([]flags.TenantPatch, n)
	for i := range out {
		id, slug := fmt.Sprintf("%024x", i*2654435761), fmt.Sprintf("tenant-%06d", i)
		out[i] = flags.TenantPatch{ID: &id, Slug: &slug, Name: &slug, Plan: &flags.Plans[i%3]}
	}
	return out
}

// BenchmarkEvaluateHTTPHandler is one evaluation from the request to the answer, without the network. A
// third of the flags are rollouts that ask the tenant's bucket.
func BenchmarkEvaluateHTTPHandler(b *testing.B) {
	for _, n := range []int{100, 1000} {
		d := flags.Document{Tenants: crowd(100)}
		states, pct := []flags.State{flags.Rollout, flags.Targeted, flags.On}, 50
		for i := range n {
			f := flags.NewFlag{Key: fmt.Sprintf("flag_%04d_of_a_usual_length", i)}
			f.State, f.Pct = &states[i%3], &pct
			f.Scope = map[flags.Axis][]string{flags.AxisPlans: {"business", "starter"}, flags.AxisEnvironments: {"production"}}
			if i%10 == 1 {
				f.Scope[flags.AxisTenants] = []string{"tenant-000001", "tenant-000042", "tenant-000077"}
			}
			d.Flags = append(d.Flags, f)
		}
		b.Run(fmt.Sprintf("%dflags", n), func(b *testing.B) {
			startBench(b, d).run(b, "/flags/evaluate", `{"tenantSlug":"tenant-000042","environment":"production"}`)
		})
		const context = `{"context":{"targetingKey":"tenant-000042","environment":"production"}}`
		b.Run(fmt.Sprintf("%dflags/ofrep", n), func(b *testing.B) {
			startBench(b, d).run(b, "/ofrep/v1/evaluate/flags", context)
		})
		b.Run(fmt.Sprintf("%dflags/ofrep-one", n), func(b *testing.B) {
			startBench(b, d).run(b, "/ofrep/v1/evaluate/flags/flag_0042_of_a_usual_length", context)
		})
	}
}

// BenchmarkImpact100k is the preview of a rollout raised from 10 to 25 among 100,000 tenants. An operator
// moves a slider meanwhile: docs/performance.md has the limit.
func BenchmarkImpact100k(b *testing.B) {
	rollout, pct := flags.Rollout, 10
	s := startBench(b, flags.Document{
		Tenants: crowd(100_000),
		Flags:   []flags.NewFlag{{Key: "search_v2", Patch: flags.Patch{State: &rollout, Pct: &pct}}},
	})
	s.run(b, "/flags/search_v2/impact", `{"pct":25}`)
}
