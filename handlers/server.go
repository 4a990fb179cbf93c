// Package handlers is the HTTP surface: routes.go shows every route and its guard, respond.go how errors
// look, and the other files hold a few handlers each.
package handlers

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"runtime/debug"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus/promhttp"

	"github.com/dezky/platform-api/auth"
	"github.com/dezky/platform-api/db"
	"github.com/dezky/platform-api/flags"
	"github.com/dezky/platform-api/provisioning"
	"github.com/dezky/platform-api/replica"
	"github.com/dezky/platform-api/static"
	"github.com/dezky/platform-api/templates"
)

// Service is the name by which the appliance calls itself, in answers and logs.
const Service = "dezky-platform-api"

// Options is what a Server is told when the process starts.
type Options struct {
	Log     *slog.Logger
	Version string // of the program, as /health tells it
	Commit  string // that the program was built from
	Spec    []byte // the OpenAPI document, in YAML
	Proxies int    // how many proxies stand before the server, which tell the client's address
}

// Appliance is what a Server needs to do more than say that it is starting.
type Appliance struct {
	DB          *db.DB
	Tokens      *auth.Tokens
	Environment string // the default environment: what is assumed where none is named
	PublicURL   string // scheme and host by which browsers reach the server
	ByHost      bool   // PublicURL is made up: services are told addresses by the Host that they asked

	Streams      *auth.StreamKeys // of the credentials in streams' URLs
	Sessions     *auth.Sessions
	OpenID       *auth.OpenID        // identity providers; nil where none is configured
	Links        *auth.Links         // one-time sign-in links; nil where there are none
	AnnounceLink func(secret string) // prints a link for whoever sees the server's output
	Origins      []string            // of pages that may evaluate, by scheme and host
	ConfirmGain  int                 // a console change by which more tenants gain is asked about
	Now          func() time.Time    // the clock
	Replica      *replica.Replica    // nil where there is none

	Provisioning *provisioning.Runner // nil where tenants are held by no other system
}

// Server answers HTTP. Until Start it knows only /health, and says 503 to all else.
type Server struct {
	opts     Options
	ids      requestIDs
	frequent sampler
	state    atomic.Pointer[string] // why the server is not ready; nil when it is
	routes   atomic.Pointer[http.ServeMux]
	app      atomic.Pointer[app] // nil until Start
	quit     chan struct{}       // closed when streams are to end
	end      func()              // closes it
	pings    time.Duration       // how often a quiet stream is pinged

	background sync.WaitGroup // what goes on after its request, until quit is closed
}

// New returns a server that is still starting.
func New(o Options) *Server {
	s := &Server{opts: o, ids: requestIDs{prefix: rand.Text()[:8]}, quit: make(chan struct{}), pings: pingEvery}
	s.end = sync.OnceFunc(func() { close(s.quit) })
	s.NotReady("starting")
	mux := http.NewServeMux()
	mux.Handle("GET /health", http.HandlerFunc(s.health))
	mux.Handle("/", http.HandlerFunc(s.starting))
	s.routes.Store(mux)
	return s
}

// starting answers for everything that is not there yet.
func (s *Server) starting(w http.ResponseWriter, r *http.Request) {
	rec := w.(*recorder)
	rec.routed = true
	reason := "starting"
	if now := s.state.Load(); now != nil { // else Start has ended just now
		reason = *now
	}
	s.fail(rec, r, &unavailable{reason})
}

// NotReady makes /ready answer 503 with the reason; everything else goes on as before.
func (s *Server) NotReady(reason string) { s.state.Store(&reason) }

// EndStreams ends the event streams, which else would keep a shutdown waiting, and what goes on without a request.
func (s *Server) EndStreams() { s.end() }

// Wait returns when nothing goes on without a request any more, after EndStreams and the last request.
func (s *Server) Wait() { s.background.Wait() }

// Start makes the server answer everything.
func (s *Server) Start(a Appliance) error {
	csrf := http.NewCrossOriginProtection()
	if err := csrf.AddTrustedOrigin(a.PublicURL); err != nil {
		return fmt.Errorf("public URL: %w", err)
	}
	app := &app{server: s, db: a.DB, tokens: a.Tokens, environment: a.Environment, csrf: csrf,
		bearers: auth.Bearers{Tokens: a.Tokens}, openID: a.OpenID, failures: auth.NewFailures(a.Now),
		sessions: a.Sessions, links: a.Links, announceLink: a.AnnounceLink, confirmGain: a.ConfirmGain,
		publicURL: a.PublicURL, byHost: a.ByHost, streams: a.Streams,
		now: a.Now, started: a.Now(), secure: strings.HasPrefix(a.PublicURL, "https:"), quit: s.quit, reach: &flags.Reach{}, replica: a.Replica,
		provisioning: a.Provisioning,
		origins:      a.Origins, stats: stats{unrouted: {}}, answers: &answers{live: a.DB.Live()},
		// The document is read when someone first asks for the page: a start need not wait for it.
		docs: sync.OnceValues(func() (templates.Docs, error) { return templates.NewDocs(s.opts.Spec) })}
	if a.OpenID != nil {
		app.bearers.JWTs, app.signIn = a.OpenID.JWTs, a.OpenID.SignIn
	}
	app.hub = newHub(a.DB.Live(), app.stillGood, s.pings, s.quit)
	mux := http.NewServeMux()
	handle := func(pattern string, h http.Handler) {
		mux.Handle(pattern, h)
		app.stats[pattern] = &routeStats{}
	}
	offer := func(r route, h http.Handler) {
		if len(a.Origins) > 0 && crossOrigin(r.path) {
			h = app.shared(h)
			handle("OPTIONS "+r.path, app.preflight(r.method))
		}
		handle(r.pattern(""), h)
	}
	for _, r := range app.apiRoutes() {
		offer(r, app.guard(r, false))
		handle(r.pattern("/api"), app.guard(r, true))
	}
	for _, r := range app.plainRoutes() {
		handle(r.pattern(""), app.guard(r, false))
	}
	for _, r := range app.openRoutes() {
		offer(r, app.open(r))
	}
	for _, p := range app.consolePages() {
		handle(p.pattern(), zipped(app.console(p, app.sessions.Find, largeBody)))
	}
	for _, p := range app.uploads() {
		handle(p.pattern(), zipped(app.console(p, app.sessions.Find, uploadMost)))
	}
	for _, p := range app.unattended() {
		handle(p.pattern(), zipped(app.console(p, app.sessions.Peek, largeBody)))
	}
	for _, p := range app.entrances() {
		handle(p.pattern(), zipped(app.entrance(p)))
	}
	handle("GET /static/", static.Handler())
	app.prometheus = promhttp.HandlerFor(registryOf(app), promhttp.HandlerOpts{EnableOpenMetrics: true, MaxRequestsInFlight: 4})
	go app.hub.run()
	go app.reach.All(a.DB.Current()) // so that the first list need not wait for the counts
	s.app.Store(app)
	s.routes.Store(mux)
	s.state.Store(nil)
	return nil
}

// ServeHTTP wraps every request: it gets an id and a line in the log, and a panic ends it alone.
func (s *Server) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	rec := &recorder{ResponseWriter: w, id: s.ids.next()}
	h := w.Header()
	h["X-Request-Id"] = []string{rec.id}
	h["X-Content-Type-Options"] = nosniff
	start := time.Now()
	defer func() {
		cause, begun := recover(), rec.status != 0
		if cause == http.ErrAbortHandler {
			panic(cause)
		}
		if cause != nil {
			s.opts.Log.Error("panic", "id", rec.id, "cause", fmt.Sprint(cause), "stack", string(debug.Stack()))
			s.fail(rec, r, errPanic)
		}
		took := time.Since(start)
		if a := s.app.Load(); a != nil {
			a.stats.count(r.Pattern, rec.status, took)
		}
		s.logRequest(rec, r, start, took)
		if cause != nil && begun {
			panic(http.ErrAbortHandler) // so that nobody takes half an answer for a whole one
		}
	}()
	s.routes.Load().ServeHTTP(rec, r)
	if rec.unrouted != 0 {
		rec.routed = true
		s.unrouted(rec, r)
	}
}

// unrouted turns the router's own 404 and 405 into problems, or into pages of the console; a 405 keeps its
// Allow header.
func (s *Server) unrouted(rec *recorder, r *http.Request) {
	err := &refusal{http.StatusNotFound, "not-found", "there is nothing at this path"}
	if rec.unrouted == http.StatusMethodNotAllowed {
		err = &refusal{http.StatusMethodNotAllowed, "method-not-allowed",
			fmt.Sprintf("%s is not allowed here; allowed are %s", r.Method, rec.Header().Get("Allow"))}
	}
	if a := s.app.Load(); a != nil && strings.HasPrefix(r.URL.Path+"/", "/operator/") {
		lost := screen{need: auth.Read, handle: func(http.ResponseWriter, *http.Request, visit) error { return err }}
		zipped(a.console(lost, a.sessions.Find, largeBody)).ServeHTTP(rec, r)
		return
	}
	s.fail(rec, r, err)
}

// logRequest writes a request's line. Of evaluations that went well only so many a second are worth one,
// unless all is to be told.
func (s *Server) logRequest(rec *recorder, r *http.Request, start time.Time, took time.Duration) {
	level := slog.LevelInfo
	if rec.quiet && rec.cause == "" || rec.frequent && rec.status < 400 && !s.frequent.take(start) {
		level = slog.LevelDebug
	}
	if !s.opts.Log.Enabled(context.Background(), level) {
		return
	}
	principal := "none"
	if rec.principal != nil {
		principal = rec.principal.Name
	}
	attrs := []slog.Attr{
		slog.String("id", rec.id), slog.String("method", r.Method), slog.String("route", r.Pattern),
		slog.String("path", r.URL.Path), slog.Int("status", rec.status), slog.Int64("bytes", rec.bytes),
		slog.Float64("durationMs", float64(took.Microseconds())/1000), slog.String("principal", principal),
		slog.String("client", auth.ClientAddress(r, s.opts.Proxies)),
	}
	if rec.cause != "" {
		attrs = append(attrs, slog.String("cause", rec.cause))
	}
	s.opts.Log.LogAttrs(context.Background(), level, "request", attrs...)
}

var errPanic = errors.New("panic")

// frequentMost is how many lines a second the log has of what happens all the time.
const frequentMost = 20

// sampler lets the first of each second through.
type sampler struct {
	second atomic.Int64
	taken  atomic.Int64
}

func (s *sampler) take(now time.Time) bool {
	second := now.Unix()
	if last := s.second.Load(); last != second && s.second.CompareAndSwap(last, second) {
		s.taken.Store(0)
	}
	return s.taken.Load() < frequentMost && s.taken.Add(1) <= frequentMost
}

var nosniff = []string{"nosniff"}

// requestIDs makes ids that are unique among processes and cheap: a random prefix and a count.
type requestIDs struct {
	prefix string
	count  atomic.Uint64
}

func (ids *requestIDs) next() string {
	return ids.prefix + "-" + strconv.FormatUint(ids.count.Add(1), 36)
}

// recorder notes what a request came to. Until a route of ours has it, it holds back the router's own 404
// and 405.
type recorder struct {
	http.ResponseWriter
	id        string
	principal *auth.Principal
	cause     string // why a credential was refused: for the log, never for the client
	routed    bool   // one of our handlers has the request
	quiet     bool   // logged at debug only
	frequent  bool   // happens all the time
	unrouted  int    // the router's status, held back
	status    int
	bytes     int64
}

func (rec *recorder) WriteHeader(status int) {
	if !rec.routed && (status == http.StatusNotFound || status == http.StatusMethodNotAllowed) {
		rec.unrouted = status
		return
	}
	if rec.status == 0 {
		rec.status = status
	}
	rec.ResponseWriter.WriteHeader(status)
}

func (rec *recorder) Write(b []byte) (int, error) {
	if rec.unrouted != 0 && !rec.routed {
		return len(b), nil
	}
	if rec.status == 0 {
		rec.status = http.StatusOK
	}
	n, err := rec.ResponseWriter.Write(b)
	rec.bytes += int64(n)
	return n, err
}

// Unwrap is for http.ResponseController.
func (rec *recorder) Unwrap() http.ResponseWriter { return rec.ResponseWriter }
