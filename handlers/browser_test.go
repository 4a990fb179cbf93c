package handlers_test

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/chromedp/cdproto/cdp"
	"github.com/chromedp/cdproto/emulation"
	"github.com/chromedp/cdproto/input"
	"github.com/chromedp/cdproto/log"
	"github.com/chromedp/cdproto/network"
	"github.com/chromedp/cdproto/page"
	"github.com/chromedp/cdproto/runtime"
	"github.com/chromedp/chromedp"
	"github.com/chromedp/chromedp/kb"

	"github.com/dezky/platform-api/auth"
	"github.com/dezky/platform-api/db"
	"github.com/dezky/platform-api/db/dbtest"
	"github.com/dezky/platform-api/flags"
	"github.com/dezky/platform-api/handlers"
	"github.com/dezky/platform-api/seed"
)

// patience is how long a test waits for what must happen soon. It is long because machines are slow, and
// costs nothing where all is well.
const patience = 30 * time.Second

// The browser is started by the first test that needs it, and is one for all of them.
var (
	browser     = sync.OnceValues(startBrowser)
	stopBrowser = func() {}
	windows     = make(chan struct{}, 3) // tests that have the browser at the same time
)

func TestMain(m *testing.M) {
	m.Run()
	stopBrowser()
}

func findBrowser() string {
	for _, name := range []string{"chromium", "chromium-browser", "google-chrome"} {
		if path, err := exec.LookPath(name); err == nil {
			return path
		}
	}
	return ""
}

var errNoBrowser = errors.New("no chromium, chromium-browser or google-chrome in PATH")

func startBrowser() (context.Context, error) {
	path := findBrowser()
	if path == "" {
		return nil, errNoBrowser
	}
	allocator, end := chromedp.NewExecAllocator(context.Background(),
		chromedp.ExecPath(path), chromedp.Headless, chromedp.NoSandbox, chromedp.Flag("disable-gpu", true), chromedp.NoFirstRun, chromedp.NoDefaultBrowserCheck,
		chromedp.Flag("disable-quic", true), chromedp.Flag("disable-background-networking", true),
		chromedp.Flag("disable-component-update", true), chromedp.Flag("disable-sync", true),
		chromedp.Flag("disable-dev-shm-usage", true), chromedp.Flag("disable-background-timer-throttling", true),
		chromedp.Flag("disable-backgrounding-occluded-windows", true), chromedp.Flag("disable-renderer-backgrounding", true),
		chromedp.Flag("force-color-profile", "srgb"),
		// Each test has a window of its own: it needs no address bar with pages of its own, nor a process in reserve.
		chromedp.Flag("disable-features", "WebUIOmniboxPopup,WebUIOmniboxAimPopup,WebUIOmniboxFullPopup,AiModeOmniboxEntryPoint,SpareRendererForSitePerProcess"))
	ctx, cancel := chromedp.NewContext(allocator, chromedp.WithErrorf(func(string, ...any) {}))
	if err := chromedp.Do(ctx); err != nil {
		cancel()
		end()
		return nil, fmt.Errorf("start %s: %w", path, err)
	}
	stopBrowser = func() {
		cancel()
		end()
	}
	return ctx, nil
}

// needsBrowser skips a test where there is no browser, but not where CI runs it. It waits for its turn, so a
// test whose subtests call it must not have called it itself.
func needsBrowser(t testing.TB) {
	t.Helper()
	_, err := browser()
	if errors.Is(err, errNoBrowser) && os.Getenv("CI") == "" {
		t.Skip(err)
	}
	if err != nil {
		t.Fatal(err)
	}
	windows <- struct{}{}
	t.Cleanup(func() { <-windows })
}

// The people of the tests.
var (
	maria  = auth.Principal{Name: "maria@dezky.example", Role: auth.Operator}
	jonas  = auth.Principal{Name: "jonas@dezky.example", Role: auth.Operator}
	viewer = auth.Principal{Name: "vera@dezky.example", Role: auth.Read}
)

// site is a whole server with its database, on a port of its own.
type site struct {
	t        testing.TB
	url      string
	server   *handlers.Server
	db       *db.DB
	sessions *auth.Sessions
	secrets  chan string // of one-time links, as they are printed
	log      *logBook

	mu      sync.Mutex
	asked   []string // "METHOD path?query" of each request, but for files
	faults  []*fault
	streams map[context.Context]context.CancelFunc
	deaf    bool // no event stream is let in
}

// fault makes the requests to a path go wrong.
type fault struct {
	method, path string
	do           func(w http.ResponseWriter, r *http.Request, next http.Handler)
	met          atomic.Int32
}

// newSite starts a server with the demo registry.
func newSite(t testing.TB) *site {
	t.Helper()
	d := dbtest.Open(t)
	if err := seed.Plant(t.Context(), d, true, time.Now()); err != nil {
		t.Fatal(err)
	}
	return serve(t, d)
}

// serve starts a server on a database, with what else it is to have.
func serve(t testing.TB, d *db.DB, with ...func(*site, *handlers.Appliance)) *site {
	t.Helper()
	s := &site{t: t, db: d, secrets: make(chan string, 8), log: &logBook{}, streams: map[context.Context]context.CancelFunc{}}
	logger := slog.New(slog.NewJSONHandler(s.log, nil))
	var err error
	s.sessions, err = auth.NewSessions(auth.SessionOptions{DB: d, Keys: [][]byte{make([]byte, auth.SessionKeySize)}, Now: time.Now, Log: logger})
	if err != nil {
		t.Fatal(err)
	}
	streams, err := auth.NewStreamKeys([][]byte{make([]byte, auth.SessionKeySize)})
	if err != nil {
		t.Fatal(err)
	}
	h := handlers.New(handlers.Options{Log: logger, Version: "test"})
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { s.pass(w, r, h) }))
	s.url, s.server = server.URL, h
	t.Cleanup(func() {
		h.EndStreams()
		server.CloseClientConnections()
		server.Close()
		h.Wait()
		for _, line := range s.log.errors() {
			t.Errorf("the server logged: %s", line)
		}
	})
	a := handlers.Appliance{DB: d, Tokens: auth.NewTokens(d, time.Now, logger), Environment: "production", PublicURL: s.url,
		Streams: streams, Sessions: s.sessions, Links: auth.NewLinks(time.Now), AnnounceLink: func(secret string) { s.secrets <- secret }, ConfirmGain: 10, Now: time.Now}
	for _, set := range with {
		set(s, &a)
	}
	if err := h.Start(a); err != nil {
		t.Fatal(err)
	}
	return s
}

// pass notes a request and lets it through, unless something is to go wrong with it.
func (s *site) pass(w http.ResponseWriter, r *http.Request, next http.Handler) {
	s.mu.Lock()
	if !strings.HasPrefix(r.URL.Path, "/static/") {
		s.asked = append(s.asked, r.Method+" "+r.URL.RequestURI())
	}
	var wrong *fault
	for _, f := range s.faults {
		if f.method == r.Method && f.path == r.URL.Path {
			wrong = f
		}
	}
	deaf := false
	if r.URL.Path == "/operator/events" {
		ctx, cancel := context.WithCancel(r.Context())
		defer cancel()
		r = r.WithContext(ctx)
		s.streams[ctx] = cancel
		defer func() {
			s.mu.Lock()
			delete(s.streams, ctx)
			s.mu.Unlock()
		}()
		deaf = s.deaf
	}
	s.mu.Unlock()
	switch {
	case deaf:
		hangUp(w, r, next)
	case wrong != nil:
		wrong.met.Add(1)
		wrong.do(w, r, next)
	default:
		next.ServeHTTP(w, r)
	}
}

// wrong makes the requests to a path go wrong until the returned func is called.
func (s *site) wrong(method, path string, do func(w http.ResponseWriter, r *http.Request, next http.Handler)) (f *fault, mend func()) {
	f = &fault{method: method, path: path, do: do}
	s.mu.Lock()
	s.faults = append(s.faults, f)
	s.mu.Unlock()
	return f, func() {
		s.mu.Lock()
		s.faults = slices.DeleteFunc(s.faults, func(x *fault) bool { return x == f })
		s.mu.Unlock()
	}
}

// hangUp ends the connection without an answer.
func hangUp(w http.ResponseWriter, _ *http.Request, _ http.Handler) {
	conn, _, err := http.NewResponseController(w).Hijack()
	if err == nil {
		conn.Close()
	}
}

// doThenHangUp lets the server do what is asked, and loses its answer.
func doThenHangUp(w http.ResponseWriter, r *http.Request, next http.Handler) {
	next.ServeHTTP(httptest.NewRecorder(), r)
	hangUp(w, r, next)
}

// breakDown answers 500 without doing anything.
func breakDown(w http.ResponseWriter, _ *http.Request, _ http.Handler) {
	w.Header().Set("Content-Type", "text/plain")
	w.WriteHeader(http.StatusInternalServerError)
	io.WriteString(w, "broken")
}

// fallSilent never answers; it ends when the browser gives up.
func fallSilent(_ http.ResponseWriter, r *http.Request, _ http.Handler) {
	io.Copy(io.Discard, r.Body) // else the server does not notice that the browser has gone
	<-r.Context().Done()
}

// cutStreams ends all event streams, and lets none in until hear is called.
func (s *site) cutStreams() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.deaf = true
	for _, cancel := range s.streams {
		cancel()
	}
}

func (s *site) hear() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.deaf = false
}

// count is how many requests matched so far.
func (s *site) count(pattern string) int {
	s.mu.Lock()
	defer s.mu.Unlock()
	n, re := 0, regexp.MustCompile(pattern)
	for _, line := range s.asked {
		if re.MatchString(line) {
			n++
		}
	}
	return n
}

// make creates a flag as jonas.
func (s *site) make(key string, state flags.State, pct int, scope map[flags.Axis][]string) *flags.Flag {
	s.t.Helper()
	description := "About " + key
	f, err := s.db.CreateFlag(s.t.Context(), jonas.By(), flags.NewFlag{Key: key,
		Patch: flags.Patch{Description: &description, State: &state, Pct: &pct, Scope: scope}})
	if err != nil {
		s.t.Fatal(err)
	}
	return f
}

// patch changes a flag as jonas, who sits elsewhere.
func (s *site) patch(key string, p flags.Patch) *flags.Flag {
	s.t.Helper()
	f, err := s.db.PatchFlag(s.t.Context(), jonas.By(), key, p)
	if err != nil {
		s.t.Fatal(err)
	}
	return f
}

func (s *site) setPct(key string, pct int) *flags.Flag { return s.patch(key, flags.Patch{Pct: &pct}) }

func (s *site) flag(key string) *flags.Flag {
	s.t.Helper()
	f := s.db.Current().Flag(key)
	if f == nil {
		s.t.Fatalf("there is no flag %s", key)
	}
	return f
}

// who names the tenants for whom a flag is on, by evaluation alone.
func (s *site) who(f *flags.Flag, env string) []string {
	var names []string
	for _, t := range s.db.Current().Tenants() {
		if f.Evaluate(t, env) {
			names = append(names, t.Name)
		}
	}
	return names
}

// endSessions ends everybody's session.
func (s *site) endSessions() {
	s.t.Helper()
	later := time.Now().Add(time.Hour)
	if err := s.db.DeleteOldSessions(context.WithoutCancel(s.t.Context()), later, later); err != nil {
		s.t.Fatal(err)
	}
}

// cookie begins a session and returns its cookie.
func (s *site) cookie(p auth.Principal) *http.Cookie {
	s.t.Helper()
	w := httptest.NewRecorder()
	if err := s.sessions.SignIn(w, httptest.NewRequest(http.MethodGet, s.url, nil), p); err != nil {
		s.t.Fatal(err)
	}
	return w.Result().Cookies()[0]
}

// ask sends a request as a person, past the browser.
func (s *site) ask(cookie *http.Cookie, method, path string, body io.Reader, headers map[string]string) (status int, text string) {
	s.t.Helper()
	r, err := http.NewRequestWithContext(context.WithoutCancel(s.t.Context()), method, s.url+path, body)
	if err != nil {
		s.t.Fatal(err)
	}
	if cookie != nil {
		r.AddCookie(cookie)
	}
	for name, value := range headers {
		r.Header.Set(name, value)
	}
	client := &http.Client{CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}
	resp, err := client.Do(r)
	if err != nil {
		s.t.Fatal(err)
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	if err != nil {
		s.t.Fatal(err)
	}
	return resp.StatusCode, string(b)
}

// logBook keeps what a server logs.
type logBook struct {
	fine  bool // errors are no surprise
	mu    sync.Mutex
	lines []string
}

func (l *logBook) Write(b []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.lines = append(l.lines, string(b))
	return len(b), nil
}

func (l *logBook) errors() []string {
	l.mu.Lock()
	defer l.mu.Unlock()
	var out []string
	for _, line := range l.lines {
		if !l.fine && strings.Contains(line, `"level":"ERROR"`) {
			out = append(out, strings.TrimSpace(line))
		}
	}
	return out
}

// tab is one window of a browser that nobody has used before. What goes wrong in it and was not expected
// fails the test: exceptions, console errors, failed requests, violations of the CSP.
type tab struct {
	t    testing.TB
	site *site
	ctx  context.Context

	mu      sync.Mutex
	amiss   []string
	fine    []*regexp.Regexp
	dialogs int // of the browser's own, such as "Leave the page?", which are accepted
	methods map[network.RequestID]string
}

// size is a viewport; narrow ones are a phone's.
type size struct{ width, height int64 }

var (
	desktop = size{1280, 860}
	phone   = size{390, 844}
)

// look is how a browser is set up.
type look struct {
	size     size
	features map[string]string // of media, such as prefers-color-scheme
	noScript bool
	onStart  string // a script that runs before the page's own
}

// tab opens a window and signs a person in.
func (s *site) tab(who auth.Principal, l look) *tab {
	s.t.Helper()
	parent, err := browser()
	if err != nil {
		s.t.Fatal(err)
	}
	p := &tab{t: s.t, site: s, methods: map[network.RequestID]string{}}
	ctx, cancel := chromedp.NewContext(parent, chromedp.WithNewBrowserContext(), chromedp.WithListener(p.hear))
	p.ctx = ctx
	s.t.Cleanup(func() {
		if s.t.Failed() {
			p.keepPicture()
		}
		cancel()
		p.mu.Lock()
		defer p.mu.Unlock()
		for _, text := range p.amiss {
			if !slices.ContainsFunc(p.fine, func(re *regexp.Regexp) bool { return re.MatchString(text) }) {
				s.t.Errorf("in the browser: %s", text)
			}
		}
	})
	l.size = cmp.Or(l.size, desktop)
	p.do(chromedp.Func(func(ctx context.Context, t *chromedp.Target) error {
		script := `addEventListener('securitypolicyviolation', e => console.error('CSP: ' + e.violatedDirective + ' ' + e.blockedURI + ' ' + e.sourceFile + ':' + e.lineNumber + ' ' + e.sample));` + l.onStart
		_, err := cdp.Call(ctx, t, page.AddScriptToEvaluateOnNewDocument, page.AddScriptToEvaluateOnNewDocumentParams{Source: script})
		if err == nil {
			_, err = cdp.Call(ctx, t, emulation.SetFocusEmulationEnabled, emulation.SetFocusEmulationEnabledParams{Enabled: true})
		}
		if err == nil && l.noScript {
			_, err = cdp.Call(ctx, t, emulation.SetScriptExecutionDisabled, emulation.SetScriptExecutionDisabledParams{Value: true})
		}
		if err == nil && who.Name != "" {
			c := s.cookie(who)
			_, err = cdp.Call(ctx, t, network.SetCookie, network.SetCookieParams{Name: c.Name, Value: c.Value, URL: s.url, HTTPOnly: new(true), SameSite: network.CookieSameSiteLax})
		}
		return err
	}))
	p.resize(l.size)
	p.media(l.features)
	return p
}

// console opens a site with the demo registry, and a window on it for maria.
func console(t *testing.T, l look) (*site, *tab) {
	t.Helper()
	needsBrowser(t)
	s := newSite(t)
	return s, s.tab(maria, l)
}

// hear notes what goes wrong. It runs in the loop that reads from the browser, and must not call it.
func (p *tab) hear(ev any) {
	p.mu.Lock()
	defer p.mu.Unlock()
	note := func(format string, args ...any) { p.amiss = append(p.amiss, fmt.Sprintf(format, args...)) }
	switch ev := ev.(type) {
	case *runtime.EventExceptionThrown:
		text := ev.ExceptionDetails.Text
		if ev.ExceptionDetails.Exception != nil {
			text += " " + ev.ExceptionDetails.Exception.Description
		}
		note("exception: %s", text)
	case *runtime.EventConsoleAPICalled:
		if ev.Type == "error" || ev.Type == "warning" || ev.Type == "assert" {
			var text []string
			for _, arg := range ev.Args {
				text = append(text, cmp.Or(strings.Trim(string(arg.Value), `"`), arg.Description))
			}
			note("console.%s: %s", ev.Type, strings.Join(text, " "))
		}
	case *log.EventEntryAdded:
		if ev.Entry.Level == log.EntryLevelError || ev.Entry.Level == log.EntryLevelWarning || ev.Entry.Source == log.EntrySourceSecurity {
			note("log: %s %s", ev.Entry.Text, ev.Entry.URL)
		}
	case *network.EventRequestWillBeSent:
		p.methods[ev.RequestID] = ev.Request.Method + " " + strings.TrimPrefix(ev.Request.URL, p.site.url)
	case *network.EventResponseReceived:
		if ev.Response.Status >= 400 {
			note("status %d: %s", ev.Response.Status, p.methods[ev.RequestID])
		}
	case *network.EventLoadingFailed:
		if !ev.Canceled && ev.ErrorText != "net::ERR_ABORTED" {
			note("request failed, %s: %s", ev.ErrorText, p.methods[ev.RequestID])
		}
	case *page.EventJavascriptDialogOpening:
		p.dialogs++
		go chromedp.Call(p.ctx, page.HandleJavaScriptDialog, page.HandleJavaScriptDialogParams{Accept: true})
	}
}

// expect says that something that looks wrong is right in this test.
func (p *tab) expect(patterns ...string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, pattern := range patterns {
		p.fine = append(p.fine, regexp.MustCompile(pattern))
	}
}

// expectStatus says that an answer with this status is right.
func (p *tab) expectStatus(status int) {
	p.expect(fmt.Sprintf(`^status %d\b`, status), fmt.Sprintf(`^log: Failed to load resource: .* status of %d\b`, status))
}

// expectLoss says that requests to a path may fail.
func (p *tab) expectLoss(path string) {
	p.expect(`^request failed, .*`+regexp.QuoteMeta(path), `^log: Failed to load resource: net::.*`+regexp.QuoteMeta(path))
	if path == "/operator/events" {
		p.expect(`^console\.error: htmx: htmx:sse:error`)
	}
}

func (p *tab) keepPicture() {
	ctx, cancel := context.WithTimeout(p.ctx, 5*time.Second)
	defer cancel()
	png, err := chromedp.Run(ctx, chromedp.CaptureScreenshot())
	if err != nil {
		p.t.Logf("no picture of the failure: %v", err)
		return
	}
	path := filepath.Join(p.t.ArtifactDir(), fmt.Sprintf("failure-%d.png", time.Now().UnixNano()))
	if err := os.WriteFile(path, png, 0o644); err != nil {
		p.t.Logf("no picture of the failure: %v", err)
		return
	}
	p.t.Logf("a picture of the failure: %s (kept with -artifacts)", path)
}

func (p *tab) do(steps ...chromedp.Action[chromedp.Void]) {
	p.t.Helper()
	// The first run binds the window to its context, so the limit is on later ones alone.
	ctx := p.ctx
	if chromedp.FromContext(ctx).Target != nil {
		limited, cancel := context.WithTimeout(ctx, patience)
		defer cancel()
		ctx = limited
	}
	if err := chromedp.Do(ctx, steps...); err != nil {
		p.t.Fatal(err)
	}
}

func (p *tab) resize(s size) {
	p.t.Helper()
	p.do(func(ctx context.Context, t *chromedp.Target) (chromedp.Void, error) {
		_, err := cdp.Call(ctx, t, emulation.SetDeviceMetricsOverride, emulation.SetDeviceMetricsOverrideParams{Width: s.width, Height: s.height, DeviceScaleFactor: 1, Mobile: false})
		return chromedp.Void{}, err
	})
}

// media emulates media features, such as prefers-color-scheme: dark.
func (p *tab) media(features map[string]string) {
	p.t.Helper()
	var list []*emulation.MediaFeature
	for name, value := range features {
		list = append(list, &emulation.MediaFeature{Name: name, Value: value})
	}
	p.do(func(ctx context.Context, t *chromedp.Target) (chromedp.Void, error) {
		_, err := cdp.Call(ctx, t, emulation.SetEmulatedMedia, emulation.SetEmulatedMediaParams{Features: list})
		return chromedp.Void{}, err
	})
}

// open goes to a path and waits until its page has loaded and is at work.
func (p *tab) open(path string) {
	p.t.Helper()
	p.do(chromedp.Navigate(p.site.url + path))
}

// loads does something that loads a page, and waits for it.
func (p *tab) loads(act func()) {
	p.t.Helper()
	ctx, cancel := context.WithTimeout(p.ctx, patience)
	defer cancel()
	_, err := chromedp.Run(ctx, chromedp.WaitEvent(page.LoadEventFired, nil, chromedp.Func(func(context.Context, *chromedp.Target) error {
		act()
		return nil
	})))
	if err != nil {
		p.t.Fatalf("no page was loaded: %v", err)
	}
}

func (p *tab) reload() {
	p.t.Helper()
	p.loads(func() { p.do(chromedp.Evaluate[chromedp.Void](`location.reload()`)) })
}

// js evaluates an expression, or a promise of one.
func js[T any](p *tab, expression string) T {
	p.t.Helper()
	ctx, cancel := context.WithTimeout(p.ctx, patience)
	defer cancel()
	v, err := chromedp.Run(ctx, chromedp.Evaluate[T](expression, chromedp.EvalAwaitPromise))
	if err != nil {
		p.t.Fatalf("%s: %v", expression, err)
	}
	return v
}

// wait waits in the browser, frame by frame, until an expression is true.
func (p *tab) wait(expression string) {
	p.t.Helper()
	end := time.Now().Add(patience)
	script := fmt.Sprintf(`new Promise(done => {
		const end = performance.now() + %d
		const look = () => {
			let ok = false
			try { ok = !!(%s) } catch {}
			if (ok || performance.now() > end) done(ok); else requestAnimationFrame(look)
		}
		look()
	})`, patience.Milliseconds(), expression)
	for time.Now().Before(end) {
		ctx, cancel := context.WithDeadline(p.ctx, end.Add(time.Second))
		ok, err := chromedp.Run(ctx, chromedp.Evaluate[bool](script, chromedp.EvalAwaitPromise))
		cancel()
		if err == nil && ok {
			return
		}
		if err == nil || ctx.Err() != nil {
			break
		}
		// Else the page was left while it was asked: ask the new one.
	}
	p.t.Fatalf("never true: %s\nat %s\ntoasts: %s\nfocus: %s", expression, p.address(), p.textOf("#toasts"), p.focus())
}

// address is the path and query of the page.
func (p *tab) address() string {
	p.t.Helper()
	return js[string](p, `location.pathname + location.search + location.hash`)
}

func quote(text string) string {
	b, err := json.Marshal(text)
	if err != nil {
		panic(err) // a string can always be written
	}
	return string(b)
}

// text is what an element says, in one line; it must be there.
func (p *tab) text(selector string) string {
	p.t.Helper()
	p.wait(`document.querySelector(` + quote(selector) + `)`)
	return p.textOf(selector)
}

// textOf is what an element says, or "" if it is not there.
func (p *tab) textOf(selector string) string {
	p.t.Helper()
	return js[string](p, `(document.querySelector(`+quote(selector)+`)?.textContent ?? '').replace(/\s+/g, ' ').trim()`)
}

// texts is what each element of a selector says.
func (p *tab) texts(selector string) []string {
	p.t.Helper()
	return js[[]string](p, `[...document.querySelectorAll(`+quote(selector)+`)].map(e => e.textContent.replace(/\s+/g, ' ').trim())`)
}

func (p *tab) has(selector string) bool {
	p.t.Helper()
	return js[bool](p, `!!document.querySelector(`+quote(selector)+`)`)
}

// attr is an attribute's value, "" without it.
func (p *tab) attr(selector, name string) string {
	p.t.Helper()
	return js[string](p, `document.querySelector(`+quote(selector)+`)?.getAttribute(`+quote(name)+`) ?? ''`)
}

// value is a control's value.
func (p *tab) value(selector string) string {
	p.t.Helper()
	return js[string](p, `document.querySelector(`+quote(selector)+`).value`)
}

// focus tells which element has the focus: its id, else its text.
func (p *tab) focus() string {
	p.t.Helper()
	return js[string](p, `(e => e.id ? '#' + e.id : e === document.body ? 'body' : e.textContent.replace(/\s+/g, ' ').trim())(document.activeElement)`)
}

func (p *tab) waitFocus(selector string) {
	p.t.Helper()
	p.wait(`document.activeElement.matches(` + quote(selector) + `)`)
}

// waitText waits until an element says a text.
func (p *tab) waitText(selector, text string) {
	p.t.Helper()
	p.wait(`(document.querySelector(` + quote(selector) + `)?.textContent ?? '').replace(/\s+/g, ' ').includes(` + quote(text) + `)`)
}

// click presses the mouse on an element that can be seen, and fails if something else is in front of it.
func (p *tab) click(selector string) {
	p.t.Helper()
	find := `document.querySelector(` + quote(selector) + `)`
	if !p.scriptless() {
		p.wait(`(e => e && e.checkVisibility() && !e.disabled)(` + find + `)`)
	}
	at := js[struct {
		X, Y  float64
		Front string
	}](p, `(e => {
		if (!e) return {front: 'it is not there'}
		e.scrollIntoView({block: 'center', inline: 'center', behavior: 'instant'})
		const r = [...e.getClientRects()].find(r => r.width && r.height)
		if (!r) return {front: 'it is not to be seen'}
		const x = r.x + r.width / 2, y = r.y + r.height / 2, top = document.elementFromPoint(x, y)
		return {x, y, front: top && (e.contains(top) || top.contains(e) || top.closest('label')?.contains(e)) ? '' : 'in front of it is ' + (top ? top.outerHTML.slice(0, 120) : 'nothing')}
	})(`+find+`)`)
	if at.Front != "" {
		p.t.Fatalf("click %s: %s", selector, at.Front)
	}
	p.do(chromedp.MouseEvent(chromedp.MouseMoved, at.X, at.Y), chromedp.MouseClickXY(at.X, at.Y))
}

// scriptless tells whether the page's own scripts do not run.
func (p *tab) scriptless() bool {
	return js[bool](p, `typeof htmx === 'undefined'`)
}

// clickText clicks the first button or link that says exactly this.
func (p *tab) clickText(within, text string) {
	p.t.Helper()
	find := `[...document.querySelectorAll(` + quote(within) + `)].flatMap(e => [...e.querySelectorAll('a, button, summary')]).find(e => e.textContent.replace(/\s+/g, ' ').trim() === ` + quote(text) + ` && e.checkVisibility())`
	if !p.scriptless() {
		p.wait(find)
	}
	if !js[bool](p, `(e => { document.querySelectorAll('[data-to-click]').forEach(x => x.removeAttribute('data-to-click')); e?.setAttribute('data-to-click', ''); return !!e })(`+find+`)`) {
		p.t.Fatalf("nothing in %s says %q", within, text)
	}
	p.click(`[data-to-click]`)
}

// typeIn focuses a field and types into it.
func (p *tab) typeIn(selector, text string) {
	p.t.Helper()
	p.click(selector)
	p.waitFocus(selector)
	p.press(text)
}

// fill replaces what is in a field by typing.
func (p *tab) fill(selector, text string) {
	p.t.Helper()
	p.click(selector)
	js[chromedp.Void](p, `document.querySelector(`+quote(selector)+`).select()`)
	if text == "" {
		text = kb.Delete
	}
	p.press(text)
}

// press types keys. As of a keyboard, a key whose event is prevented types nothing.
func (p *tab) press(keys string, modifiers ...chromedp.Modifier) {
	p.t.Helper()
	p.do(chromedp.Func(func(ctx context.Context, t *chromedp.Target) error {
		for _, r := range keys {
			events := kb.Encode(r)
			down, up := events[0], events[len(events)-1]
			for _, m := range modifiers {
				down.Modifiers |= int64(m)
				up.Modifiers |= int64(m)
			}
			if len(events) == 3 && down.Modifiers&^int64(chromedp.ModifierShift) == 0 {
				down.Text, down.UnmodifiedText = events[1].Text, events[1].UnmodifiedText
			}
			for _, event := range []*input.DispatchKeyEventParams{down, up} {
				if _, err := cdp.Call(ctx, t, input.DispatchKeyEvent, *event); err != nil {
					return err
				}
			}
		}
		return nil
	}))
}

// ready waits until the page's scripts are at work and its event stream is open.
func (p *tab) ready() {
	p.t.Helper()
	p.wait(`document.querySelector('#live-state').dataset.state === 'live'`)
}

// openLive opens a page and waits until it follows the server.
func (p *tab) openLive(path string) {
	p.t.Helper()
	p.open(path)
	p.ready()
}

// rows is the keys of the rows that can be seen, in order.
func (p *tab) rows() []string {
	p.t.Helper()
	return js[[]string](p, `[...document.querySelectorAll('#rows tr')].filter(r => r.checkVisibility()).map(r => r.id.replace('flag-', ''))`)
}

// effect is who gains and who loses by a change, by evaluating both for every tenant.
type effect struct {
	gains, losses        []string
	before, after, total int
}

func (s *site) effect(from, to *flags.Flag, env string) effect {
	e := effect{total: len(s.db.Current().Tenants())}
	for _, t := range s.db.Current().Tenants() {
		was, is := from.Evaluate(t, env), to.Evaluate(t, env)
		if was {
			e.before++
		}
		if is {
			e.after++
		}
		if is && !was {
			e.gains = append(e.gains, t.Name)
		}
		if was && !is {
			e.losses = append(e.losses, t.Name)
		}
	}
	return e
}

// saveLabel is what the Save button says of an effect.
func (e effect) saveLabel() string {
	switch gain, lose := len(e.gains), len(e.losses); {
	case gain > 0 && lose > 0:
		return fmt.Sprintf("Save · %d gain, %d lose", gain, lose)
	case gain > 0:
		return fmt.Sprintf("Save · %d gain", gain)
	case lose > 0:
		return fmt.Sprintf("Save · %d lose", lose)
	}
	return "Save · no tenant changes"
}

// with is a flag with some of its fields changed.
func with(f *flags.Flag, change func(*flags.Flag)) *flags.Flag {
	c := *f
	change(&c)
	return &c
}

func withPct(f *flags.Flag, pct int) *flags.Flag { return with(f, func(c *flags.Flag) { c.Pct = pct }) }

// waitEffect waits until the panel shows the effect of its draft.
func (p *tab) waitEffect(e effect) {
	p.t.Helper()
	p.wait(fmt.Sprintf(`(i => i.dataset.gain === '%d' && i.dataset.lose === '%d')(document.querySelector('#impact')) && document.querySelector('#save').textContent.includes(%s)`,
		len(e.gains), len(e.losses), quote(e.saveLabel())))
}

// draftPct types another percentage and waits for its effect.
func (p *tab) draftPct(f *flags.Flag, pct int) effect {
	p.t.Helper()
	p.fill("#pct-n", fmt.Sprint(pct))
	e := p.site.effect(f, withPct(f, pct), "production")
	p.waitEffect(e)
	return e
}

// dirty tells whether the panel has an unsaved draft.
func (p *tab) dirty() bool {
	p.t.Helper()
	return js[bool](p, `!document.querySelector('#foot').hasAttribute('data-clean')`)
}

// waitVersion waits until the panel shows a version.
func (p *tab) waitVersion(version int64) {
	p.t.Helper()
	p.wait(fmt.Sprintf(`document.querySelector('#panel > .panel').dataset.version === '%d'`, version))
}

func equal[T comparable](t testing.TB, what string, got, want T) {
	t.Helper()
	if got != want {
		t.Errorf("%s: %v, want %v", what, got, want)
	}
}

func equalLists(t testing.TB, what string, got, want []string) {
	t.Helper()
	if !slices.Equal(got, want) {
		t.Errorf("%s:\n %q, want\n %q", what, got, want)
	}
}
