package handlers

import (
	"net/http"
	"net/http/httptest"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus/testutil"
)

// samplesOf reads the samples whose name begins with platform_api_, each as its line.
func samplesOf(text string) map[string]bool {
	out := map[string]bool{}
	for line := range strings.Lines(text) {
		if strings.HasPrefix(line, "platform_api_") {
			out[strings.TrimSpace(line)] = true
		}
	}
	return out
}

func TestMetrics(t *testing.T) {
	t.Parallel()
	s := start(t)
	s.registry(t)
	s.want(t, 200, "POST /flags/evaluate", `{"tenantSlug":"acme"}`)
	s.want(t, 304, "POST /flags/evaluate", `{"tenantSlug":"acme"}`, "If-None-Match: *")
	s.want(t, 404, "POST /flags/evaluate", `{"tenantSlug":"nobody"}`)
	s.want(t, 404, "GET /nothing", "")
	s.want(t, 200, "GET /api/flags", "")
	text := s.want(t, 200, "GET /metrics", "", s.as("read")).body
	got := samplesOf(text)
	for _, want := range []string{
		`platform_api_requests_total{route="POST /flags/evaluate",status="200"} 1`,
		`platform_api_requests_total{route="POST /flags/evaluate",status="304"} 1`,
		`platform_api_requests_total{route="POST /flags/evaluate",status="404"} 1`,
		`platform_api_requests_total{route="GET /api/flags",status="200"} 1`,
		`platform_api_requests_total{route="none",status="404"} 1`,
		`platform_api_request_duration_seconds_count{route="POST /flags/evaluate"} 3`,
		`platform_api_request_duration_seconds_bucket{route="POST /flags/evaluate",le="+Inf"} 3`,
		`platform_api_evaluations_total 2`, `platform_api_consumers 1`, `platform_api_consumers_behind 0`,
		`platform_api_flags 3`, `platform_api_tenants 4`, `platform_api_ready 1`, `platform_api_streams{kind="console"} 0`, `platform_api_streams{kind="events"} 0`, `platform_api_streams{kind="ofrep"} 0`,
		`platform_api_snapshot_revision 9`,
	} {
		if !got[want] {
			t.Errorf("no %s", want)
		}
	}
	for _, name := range []string{"acme", "globex", "search", "mail_rules", "calendar"} {
		if strings.Contains(text, name) {
			t.Errorf("the metrics name %s", name)
		}
	}
	for _, name := range []string{"platform_api_sqlite_bytes ", "platform_api_sqlite_wal_bytes ", "go_goroutines ", "platform_api_build_info{"} {
		if !strings.Contains(text, "\n"+name) {
			t.Errorf("no %s", name)
		}
	}
	s.moveClock(time.Hour)
	age := regexp.MustCompile(`(?m)^platform_api_snapshot_age_seconds (\S+)$`).FindStringSubmatch(s.want(t, 200, "GET /metrics", "", s.as("read")).body)
	if len(age) != 2 {
		t.Fatal("no platform_api_snapshot_age_seconds")
	}
	if seconds, err := strconv.ParseFloat(age[1], 64); err != nil || seconds < 3600 || seconds >= 7200 {
		t.Errorf("an hour after the last change the snapshot is %s s old (%v), want 3600 and a little", age[1], err)
	}
	problems, err := testutil.GatherAndLint(registryOf(s.app.Load()))
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range problems {
		t.Errorf("%s: %s", p.Metric, p.Text)
	}
}

// The separate listener asks for nothing, and has profiles too.
func TestDiagnostics(t *testing.T) {
	t.Parallel()
	s := start(t)
	ask := func(h http.Handler, path string) (int, string) {
		w := httptest.NewRecorder()
		h.ServeHTTP(w, httptest.NewRequestWithContext(t.Context(), "GET", path, nil))
		return w.Code, w.Body.String()
	}
	d := s.Diagnostics()
	if status, text := ask(d, "/metrics"); status != 200 || !strings.Contains(text, "\nplatform_api_ready 1\n") {
		t.Errorf("GET /metrics = %d %.200s", status, text)
	}
	if status, text := ask(d, "/debug/pprof/heap?debug=1"); status != 200 || !strings.Contains(text, "heap profile") {
		t.Errorf("GET /debug/pprof/heap = %d %.200s", status, text)
	}
	if status, _ := ask(d, "/flags"); status != 404 {
		t.Errorf("GET /flags = %d, want 404: this is not the API", status)
	}
	s.want(t, 404, "GET /debug/pprof/", "")
	s.NotReady("stopping")
	if _, text := ask(d, "/metrics"); !strings.Contains(text, "\nplatform_api_ready 0\n") {
		t.Errorf("while it stops GET /metrics has no platform_api_ready 0")
	}
	if status, _ := ask(listen(t, readSpec()).Diagnostics(), "/metrics"); status != 503 {
		t.Errorf("before the start GET /metrics = %d, want 503", status)
	}
}

// Whatever comes is in a bucket at most once, and unknown statuses have a place.
func TestRouteStats(t *testing.T) {
	r := &routeStats{}
	for _, took := range []time.Duration{0, 100 * time.Microsecond, 101 * time.Microsecond, time.Hour} {
		r.count(418, took)
	}
	if got := [3]uint64{r.under[0].Load(), r.under[1].Load(), r.statuses[0].Load()}; got != [3]uint64{2, 1, 4} {
		t.Errorf("under 100 µs, under 500 µs, unknown status = %v, want [2 1 4]", got)
	}
	if len(counted) > len(r.statuses) || len(buckets) != len(r.under) {
		t.Errorf("%d statuses and %d buckets do not fit", len(counted), len(buckets))
	}
}

func BenchmarkCountRequest(b *testing.B) {
	s := stats{unrouted: {}, "POST /flags/evaluate": {}}
	b.ReportAllocs()
	b.RunParallel(func(pb *testing.PB) {
		for pb.Next() {
			s.count("POST /flags/evaluate", 200, 20*time.Microsecond)
		}
	})
}
