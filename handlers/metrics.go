package handlers

import (
	"context"
	"net/http"
	"net/http/pprof"
	"slices"
	"strconv"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"

	"github.com/dezky/platform-api/replica"
)

// Labels are bounded on purpose: routes, statuses, environments and providers of the configuration, never
// flags, tenants or people.

// counted are the statuses that are counted by themselves; others count as 0.
var counted = []int{0, 200, 201, 204, 303, 304, 400, 401, 403, 404, 405, 409, 412, 413, 415, 422, 423, 428, 429, 499, 500, 503}

// buckets are the bounds of request durations.
var buckets = []time.Duration{100 * time.Microsecond, 500 * time.Microsecond, time.Millisecond, 5 * time.Millisecond,
	25 * time.Millisecond, 100 * time.Millisecond, 500 * time.Millisecond, 2 * time.Second}

// routeStats count the requests to one route. Counting takes no lock.
type routeStats struct {
	statuses [32]atomic.Uint64 // by index in counted
	under    [8]atomic.Uint64  // by index in buckets, each once
	nanos    atomic.Int64
}

func (s *routeStats) count(status int, took time.Duration) {
	s.statuses[max(0, slices.Index(counted, status))].Add(1)
	if i := slices.IndexFunc(buckets, func(b time.Duration) bool { return took <= b }); i >= 0 {
		s.under[i].Add(1)
	}
	s.nanos.Add(int64(took))
}

// stats are the counts by route pattern; it is never changed once requests come.
type stats map[string]*routeStats

// unrouted is the route of requests that have none.
const unrouted = "none"

func (s stats) count(pattern string, status int, took time.Duration) {
	r := s[pattern]
	if r == nil {
		r = s[unrouted]
	}
	r.count(status, took)
}

// metrics tells Prometheus how the server is. It is a prometheus.Collector, asked only when someone looks.
type metrics struct {
	app *app

	build, up, revision, age, flags, tenants, streams, evaluations, requests, durations,
	consumers, behind, provisioning, provisioningErrors,
	database, wal, provider, chain, chainChecked, frozen,
	replicating, lag, pending, synced, position, snapshot, copied, drilled, drill *prometheus.Desc
}

func newMetrics(a *app) *metrics {
	desc := func(name, help string, labels ...string) *prometheus.Desc {
		return prometheus.NewDesc("platform_api_"+name, help, labels, nil)
	}
	return &metrics{
		app:                a,
		build:              desc("build_info", "Always 1; the labels say what runs.", "version", "commit"),
		up:                 desc("ready", "1 while requests are answered, 0 while the server is stopping."),
		revision:           desc("snapshot_revision", "Revision of flags and registry that is served."),
		age:                desc("snapshot_age_seconds", "Since flags or registry changed last, in seconds."),
		flags:              desc("flags", "Flags that exist."),
		tenants:            desc("tenants", "Tenants that exist."),
		streams:            desc("streams", "Event streams that are open, by kind.", "kind"),
		evaluations:        desc("evaluations_total", "Evaluations of a tenant that were answered, unchanged ones too."),
		consumers:          desc("consumers", "API tokens and JWT clients that evaluated here within 24 hours."),
		behind:             desc("consumers_behind", "Those of them that have not evaluated at the revision that is served."),
		provisioning:       desc("provisioning_pending", "Tenants that wait to be brought in line in other systems, and removals. This and the next are there only where there is such a system."),
		provisioningErrors: desc("provisioning_errors", "Those for which that failed; it is tried again."),
		requests:           desc("requests_total", "Requests by route and status; route none is what has no route.", "route", "status"),
		durations:          desc("request_duration_seconds", "How long requests took, by route.", "route"),
		database:           desc("sqlite_bytes", "Size of the database file."),
		wal:                desc("sqlite_wal_bytes", "Size of the write-ahead log beside it."),
		chain:              desc("log_chain_ok", "1 if the last check found each entry of the log whole and after the one before, 0 if it did not or could not be made. Missing before the first."),
		chainChecked:       desc("log_chain_check_timestamp_seconds", "When that was."),
		frozen:             desc("frozen", "1 while changes are frozen."),
		replicating:        desc("replication_ok", "1 while the replica is kept up to date. This and the others are there only where a replica is configured."),
		lag:                desc("replication_lag_seconds", "Time since the replica had everything."),
		pending:            desc("replication_pending_revisions", "Revisions that the replica is not known to have."),
		synced:             desc("replication_last_success_timestamp_seconds", "When the replica last had everything."),
		position:           desc("replication_position", "The last transaction in the replica."),
		snapshot:           desc("replication_snapshot_timestamp_seconds", "The newest whole copy in the replica."),
		copied:             desc("replication_bytes", "Size of the replica when it was last looked at."),
		drilled:            desc("replication_drill_timestamp_seconds", "When the replica was last restored to see that it can be."),
		drill:              desc("replication_drill_ok", "1 if that succeeded."),
		provider:           desc("identity_provider_up", "1 if the identity provider answered what can be used when it was last asked.", "issuer"),
	}
}

// Describe sends what there is.
func (m *metrics) Describe(out chan<- *prometheus.Desc) {
	for _, d := range []*prometheus.Desc{m.build, m.up, m.revision, m.age, m.flags, m.tenants, m.streams, m.evaluations, m.consumers, m.behind, m.provisioning, m.provisioningErrors, m.requests, m.durations,
		m.database, m.wal, m.provider, m.chain, m.chainChecked, m.frozen, m.replicating, m.lag, m.pending, m.synced, m.position, m.snapshot, m.copied, m.drilled, m.drill} {
		out <- d
	}
}

// Collect sends how it is now.
func (m *metrics) Collect(out chan<- prometheus.Metric) {
	gauge := func(d *prometheus.Desc, v float64, labels ...string) {
		out <- prometheus.MustNewConstMetric(d, prometheus.GaugeValue, v, labels...)
	}
	flag := func(on bool) float64 {
		if on {
			return 1
		}
		return 0
	}
	a, s := m.app, m.app.db.Current()
	gauge(m.build, 1, a.server.opts.Version, a.server.opts.Commit)
	gauge(m.up, flag(a.server.state.Load() == nil))
	gauge(m.revision, float64(s.Revision()))
	if !s.Modified().IsZero() {
		gauge(m.age, a.now().Sub(s.Modified()).Seconds())
	}
	gauge(m.flags, float64(len(s.Flags())))
	gauge(m.tenants, float64(len(s.Tenants())))
	for kind, name := range streamNames {
		gauge(m.streams, float64(a.hub.open[kind].Load()), name)
	}
	out <- prometheus.MustNewConstMetric(m.evaluations, prometheus.CounterValue, float64(a.evaluations.Load()))
	consumers := a.consuming()
	gauge(m.consumers, float64(len(consumers)))
	gauge(m.behind, float64(len(lacking(consumers, s.Revision()))))
	if file, wal, err := a.db.Size(); err == nil { // else they are missing, which says it
		gauge(m.database, float64(file))
		gauge(m.wal, float64(wal))
	}
	if c := a.chain.last.Load(); c != nil {
		gauge(m.chain, flag(c.whole()))
		gauge(m.chainChecked, float64(c.At.UnixMilli())/1000)
	}
	gauge(m.frozen, flag(s.Frozen(a.now()) != nil))
	if p, err := a.provisioning.Progress(context.Background()); a.provisioning != nil && err == nil {
		gauge(m.provisioning, float64(p.Pending))
		gauge(m.provisioningErrors, float64(p.Errors))
	}
	if r := a.replica.Status(); r.State != replica.Off {
		when := func(d *prometheus.Desc, t time.Time) {
			if !t.IsZero() {
				gauge(d, float64(t.UnixMilli())/1000)
			}
		}
		gauge(m.replicating, flag(r.State == replica.OK))
		gauge(m.lag, r.Lag.Seconds())
		if r.Pending >= 0 {
			gauge(m.pending, float64(r.Pending))
		}
		when(m.synced, r.LastSuccess)
		gauge(m.position, float64(r.Position))
		when(m.snapshot, r.Snapshot)
		gauge(m.copied, float64(r.Bytes))
		if !r.Drill.At.IsZero() {
			when(m.drilled, r.Drill.At)
			gauge(m.drill, flag(r.Drill.Error == ""))
		}
	}
	for _, p := range a.openID.Providers() {
		gauge(m.provider, flag(p.Trouble == nil && !p.Asked.IsZero()), p.Issuer)
	}
	for route, r := range a.stats {
		var total uint64
		for i, status := range counted {
			if n := r.statuses[i].Load(); n > 0 {
				total += n
				out <- prometheus.MustNewConstMetric(m.requests, prometheus.CounterValue, float64(n), route, strconv.Itoa(status))
			}
		}
		under, sum := map[float64]uint64{}, uint64(0)
		for i, b := range buckets {
			sum += r.under[i].Load()
			under[b.Seconds()] = sum
		}
		out <- prometheus.MustNewConstHistogram(m.durations, max(total, sum), time.Duration(r.nanos.Load()).Seconds(), under, route)
	}
}

// registryOf has all of it, and what the Go runtime and the process tell.
func registryOf(a *app) *prometheus.Registry {
	registry := prometheus.NewRegistry()
	registry.MustRegister(newMetrics(a), collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	return registry
}

// metricsRoute answers whoever may read everything.
func (a *app) metricsRoute(w http.ResponseWriter, r *http.Request, _ call) error {
	w.(*recorder).quiet = true
	a.prometheus.ServeHTTP(w, r)
	return nil
}

// Diagnostics is what a separate listener serves without a credential: /metrics, and /debug/pprof/, which
// can cost much and tell much. Before Start it answers 503.
func (s *Server) Diagnostics() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /metrics", func(w http.ResponseWriter, r *http.Request) {
		if a := s.app.Load(); a != nil {
			a.prometheus.ServeHTTP(w, r)
			return
		}
		http.Error(w, "starting", http.StatusServiceUnavailable)
	})
	mux.HandleFunc("/debug/pprof/", pprof.Index)
	mux.HandleFunc("/debug/pprof/cmdline", pprof.Cmdline)
	mux.HandleFunc("/debug/pprof/profile", pprof.Profile)
	mux.HandleFunc("/debug/pprof/symbol", pprof.Symbol)
	mux.HandleFunc("/debug/pprof/trace", pprof.Trace)
	return mux
}
