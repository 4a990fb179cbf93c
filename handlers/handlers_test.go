package handlers

import (
	"bufio"
	"bytes"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log"
	"log/slog"
	"maps"
	"net"
	"net/http"
	"os"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/getkin/kin-openapi/openapi3"
	"github.com/getkin/kin-openapi/openapi3filter"
	"github.com/getkin/kin-openapi/routers"

	"github.com/dezky/platform-api/auth"
	"github.com/dezky/platform-api/db"
	"github.com/dezky/platform-api/db/dbtest"
	"github.com/dezky/platform-api/flags"
	"github.com/dezky/platform-api/seed"
)

// running is a server that listens, with a client whose every exchange is held against the document.
type running struct {
	*Server
	db      *db.DB // nil while it is starting
	dir     string
	ahead   *atomic.Int64 // how far its clock is ahead, in nanoseconds
	url     string
	tokens  map[string]string // secrets by name; each role has one of its name
	log     *buffer
	http    *http.Server
	client  *http.Client
	mu      sync.Mutex
	covered map[string]bool // "operation status" of what was exchanged
}

// start starts a server on a new database with nothing but tokens in it.
func start(t testing.TB) *running {
	s := open(t, t.TempDir())
	for _, role := range db.TokenRoles {
		s.token(t, db.NewToken{Name: role, Role: role})
	}
	return s
}

// startDemo starts a server with the demo registry.
func startDemo(t testing.TB) *running {
	s := start(t)
	if err := seed.Plant(t.Context(), s.db, true, time.Now()); err != nil {
		t.Fatal(err)
	}
	return s
}

// open starts a server on the database in dir.
func open(t testing.TB, dir string) *running {
	t.Helper()
	s := listen(t, readSpec())
	s.dir, s.db = dir, dbtest.OpenAt(t, dir, s.now)
	err := s.Start(appliance(t, s.db, s.now, s.opts.Log, s.url))
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// now is the server's clock, which a test moves.
func (s *running) now() time.Time { return time.Now().Add(time.Duration(s.ahead.Load())) }

// moveClock moves the server's clock forward.
func (s *running) moveClock(d time.Duration) { s.ahead.Add(int64(d)) }

// appliance is what a test's server runs on.
func appliance(t testing.TB, d *db.DB, now func() time.Time, log *slog.Logger, address string) Appliance {
	t.Helper()
	sessions, err := auth.NewSessions(auth.SessionOptions{DB: d, Keys: [][]byte{make([]byte, auth.SessionKeySize)}, Now: now, Log: log})
	if err != nil {
		t.Fatal(err)
	}
	return Appliance{DB: d, Tokens: auth.NewTokens(d, now, log), Environment: "production", PublicURL: address,
		Streams: streamKeys, Sessions: sessions, Links: auth.NewLinks(now), AnnounceLink: func(string) {}, ConfirmGain: 10, Now: now}
}

// streamKeys are every test server's.
var streamKeys = func() *auth.StreamKeys {
	k, err := auth.NewStreamKeys([][]byte{make([]byte, auth.SessionKeySize)})
	if err != nil {
		panic(err)
	}
	return k
}()

// streamCredential opens a stream now.
func streamCredential(p *auth.Principal, tenant string) string {
	return streamKeys.Issue(p, tenant, time.Now())
}

// listen serves on a free port; Start has yet to come.
func listen(t testing.TB, spec []byte) *running {
	t.Helper()
	logged := &buffer{}
	s := &running{
		Server: New(Options{Log: slog.New(slog.NewJSONHandler(logged, nil)), Version: "v1.2.3-test", Spec: spec}),
		ahead:  new(atomic.Int64), tokens: map[string]string{}, log: logged, covered: map[string]bool{},
		client: &http.Client{
			Transport:     &http.Transport{DisableCompression: true},
			CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
		},
	}
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	s.url = "http://" + listener.Addr().String()
	server := &http.Server{Handler: s, ErrorLog: log.New(logged, "", 0)}
	s.http = server
	served := make(chan error, 1)
	go func() { served <- server.Serve(listener) }()
	t.Cleanup(func() {
		s.client.CloseIdleConnections()
		s.EndStreams()
		server.Close()
		if err := <-served; !errors.Is(err, http.ErrServerClosed) {
			t.Error(err)
		}
	})
	return s
}

// stop closes server and database, as the end of the process does.
func (s *running) stop(t testing.TB) {
	t.Helper()
	if err := errors.Join(s.http.Close(), s.db.Close()); err != nil {
		t.Fatal(err)
	}
}

// token makes a token and keeps its secret under its name.
func (s *running) token(t testing.TB, n db.NewToken) db.Token {
	t.Helper()
	secret, token, err := s.db.CreateToken(t.Context(), db.By{Actor: "ops@dezky.example"}, n)
	if err != nil {
		t.Fatal(err)
	}
	s.tokens[n.Name] = secret
	return token
}

// as is the header by which a token is shown.
func (s *running) as(token string) string { return "Authorization: Bearer " + s.tokens[token] }

// nobody is the header line that stands for no credentials.
const nobody = "Authorization:"

// buffer is a log that can be read while it is written.
type buffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (b *buffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.Write(p)
}

func (b *buffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.String()
}

// answer is a response, read to its end.
type answer struct {
	status int
	header http.Header
	body   string
}

// send sends a request, such as "PATCH /flags/search", with a body if that is not empty. It comes from
// the operator and says that the body is JSON unless a header line ("Name: value") says otherwise. Of
// every exchange it holds that it is as documented, and that a refused request changed nothing.
func (s *running) send(t testing.TB, line, body string, headers ...string) *answer {
	t.Helper()
	r := s.request(t, line, body, headers...)
	var before *flags.Snapshot
	if s.db != nil {
		before = s.db.Current()
	}
	a := s.do(t, r)
	if a.status >= 400 && s.db != nil && s.db.Current() != before {
		t.Errorf("%s is answered with %d and changed something: revision %d, before %d",
			line, a.status, s.db.Current().Revision(), before.Revision())
	}
	if operation := openapi().check(t, r, body, a); operation != "" {
		s.mu.Lock()
		s.covered[operation+" "+strconv.Itoa(a.status)] = true
		s.mu.Unlock()
	}
	return a
}

// want is send for a request whose status is known.
func (s *running) want(t testing.TB, status int, line, body string, headers ...string) *answer {
	t.Helper()
	a := s.send(t, line, body, headers...)
	if a.status != status {
		t.Fatalf("%s %.200s = %d %.600s, want %d", line, body, a.status, a.body, status)
	}
	return a
}

func (s *running) request(t testing.TB, line, body string, headers ...string) *http.Request {
	t.Helper()
	method, path, _ := strings.Cut(line, " ")
	r, err := http.NewRequestWithContext(t.Context(), method, s.url+path, strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	for _, h := range headers {
		name, value, _ := strings.Cut(h, ":")
		r.Header.Add(name, strings.TrimSpace(value))
	}
	if r.Header["Authorization"] == nil && r.Header["X-Api-Key"] == nil {
		r.Header.Set("Authorization", "Bearer "+s.tokens["operator"])
	}
	if body != "" && r.Header["Content-Type"] == nil {
		r.Header.Set("Content-Type", "application/json")
	}
	for _, name := range []string{"Authorization", "Content-Type"} {
		if r.Header.Get(name) == "" {
			r.Header.Del(name)
		}
	}
	return r
}

func (s *running) do(t testing.TB, r *http.Request) *answer {
	t.Helper()
	response, err := s.client.Do(r)
	if err != nil {
		t.Fatal(err)
	}
	defer response.Body.Close()
	body, err := readAll(response)
	if err != nil {
		t.Fatal(err)
	}
	return &answer{response.StatusCode, response.Header, string(body)}
}

// readAll reads a response, of a stream only the first thing that it says.
func readAll(response *http.Response) ([]byte, error) {
	if response.Header.Get("Content-Type") != eventStreamType || response.Request.Method == http.MethodHead {
		return io.ReadAll(response.Body)
	}
	var body []byte
	for lines := bufio.NewReader(response.Body); !bytes.HasSuffix(body, []byte("\n\n")); {
		line, err := lines.ReadBytes('\n')
		if body = append(body, line...); err != nil {
			return body, err
		}
	}
	return body, nil
}

const eventStreamType = "text/event-stream"

func init() {
	for _, media := range []string{eventStreamType, "application/x-ndjson", "text/csv"} {
		openapi3filter.RegisterBodyDecoder(media, openapi3filter.RegisteredBodyDecoder("text/plain"))
	}
}

// decode reads an answer strictly.
func decode[T any](t testing.TB, a *answer) T {
	t.Helper()
	var out T
	dec := json.NewDecoder(strings.NewReader(a.body))
	dec.DisallowUnknownFields()
	if err := dec.Decode(&out); err != nil {
		t.Fatalf("%v in %.600s", err, a.body)
	}
	return out
}

// errorFields lists the bad fields that a 422 names.
func errorFields(t testing.TB, a *answer) []string {
	t.Helper()
	var out []string
	for _, e := range decode[problem](t, a).Errors {
		out = append(out, e.Field)
	}
	return out
}

func show(v any) string {
	text, err := json.Marshal(v)
	if err != nil {
		panic(err)
	}
	return string(text)
}

// registry creates two partners, four tenants and three flags.
func (s *running) registry(t testing.TB) {
	t.Helper()
	for _, x := range []struct{ path, body string }{
		{"/partners", `{"slug":"fjordit","name":"Fjord IT"}`},
		{"/partners", `{"slug":"nordhost","name":"Nordhost"}`},
		{"/tenants", `{"id":"t1","slug":"acme","name":"Acme","plan":"business","partnerSlug":"nordhost"}`},
		{"/tenants", `{"id":"t2","slug":"globex","name":"Globex","plan":"starter"}`},
		{"/tenants", `{"id":"t3","slug":"initech","name":"Initech","plan":"enterprise","partnerSlug":"fjordit"}`},
		{"/tenants", `{"id":"t4","slug":"umbrella","name":"Umbrella","plan":"enterprise"}`},
		{"/flags", `{"key":"calendar","state":"on"}`},
		{"/flags", `{"key":"mail_rules","state":"targeted","scope":{"tenantSlugs":["globex"],"partnerSlugs":["nordhost"]}}`},
		{"/flags", `{"key":"search","description":"New search","state":"rollout","pct":50,"scope":{"environments":["staging"]}}`},
	} {
		s.want(t, http.StatusCreated, "POST "+x.path, x.body)
	}
}

// document is the OpenAPI document that every exchange is held against.
type document struct {
	*openapi3.T
	elsewhere *openapi3.Operation // what is answered where no operation is

	mu    sync.Mutex
	right map[[sha256.Size]byte]bool // bodies that were found right: to look at one takes milliseconds
}

const specFile = "../openapi.yaml"

var readSpec = sync.OnceValue(func() []byte {
	spec, err := os.ReadFile(specFile)
	if err != nil {
		panic(err)
	}
	return spec
})

var openapi = sync.OnceValue(func() *document {
	doc, err := openapi3.NewLoader().LoadFromData(readSpec())
	if err != nil {
		panic(err)
	}
	responses := openapi3.NewResponsesWithCapacity(3)
	for status, name := range map[string]string{"404": "NotFound", "405": "MethodNotAllowed", "500": "Internal", "503": "Unavailable"} {
		responses.Set(status, doc.Components.Responses[name])
	}
	return &document{T: doc, right: map[[sha256.Size]byte]bool{},
		elsewhere: &openapi3.Operation{OperationID: "none", Responses: responses}}
})

// operation finds what a request is for; under /api stands what needs credentials, but for the metrics.
func (d *document) operation(method, path string) (*routers.Route, map[string]string) {
	rest, api := strings.CutPrefix(path, "/api/")
	if api {
		path = "/" + rest
	}
	segments := strings.Split(path, "/")
	var best *routers.Route
	var params map[string]string
	for template, item := range d.Paths.Map() {
		op, parts := item.GetOperation(method), strings.Split(template, "/")
		if op == nil || len(parts) != len(segments) || api && (op.Security != nil || template == "/metrics") {
			continue
		}
		found, fits := map[string]string{}, true
		for i, part := range parts {
			switch {
			case strings.HasPrefix(part, "{") && segments[i] != "":
				found[strings.Trim(part, "{}")] = segments[i]
			case part != segments[i]:
				fits = false
			}
		}
		if fits && (best == nil || len(found) < len(params)) { // a fixed path goes before one with a parameter
			best, params = &routers.Route{Spec: d.T, Path: template, PathItem: item, Method: method, Operation: op}, found
		}
	}
	return best, params
}

// headersTold are the headers that an answer has only if it is documented to.
var headersTold = []string{"Allow", "Etag", "Link", "Location", "Retry-After", "Www-Authenticate"}

// prose is what two bodies may differ in and be as right as each other.
var prose = regexp.MustCompile(`("(?:detail|message)":)"(?:[^"\\]|\\.)+"`)

// check holds an exchange against the document and returns the operation's id, or "" where there is none.
func (d *document) check(t testing.TB, r *http.Request, sent string, a *answer) string {
	t.Helper()
	if r.Method == http.MethodHead {
		if a.body != "" {
			t.Errorf("HEAD %s has a body", r.URL.Path)
		}
		return ""
	}
	route, params := d.operation(r.Method, r.URL.Path)
	id := ""
	if route != nil {
		id = route.Operation.OperationID
	} else {
		if d.elsewhere.Responses.Status(a.status) == nil {
			return "" // a redirect or a static file
		}
		route = &routers.Route{Spec: d.T, Operation: d.elsewhere, Path: r.URL.Path, Method: r.Method}
	}
	name := fmt.Sprintf("%s %s (%s), answered with %d", r.Method, r.URL.Path, route.Operation.OperationID, a.status)

	request := r.Clone(t.Context())
	request.Body = io.NopCloser(strings.NewReader(sent))
	input := &openapi3filter.RequestValidationInput{Request: request, PathParams: params, Route: route,
		Options: &openapi3filter.Options{AuthenticationFunc: openapi3filter.NoopAuthenticationFunc, SkipSettingDefaults: true, RejectWhenRequestBodyNotSpecified: true}}
	if a.status < 300 {
		if err := openapi3filter.ValidateRequest(t.Context(), input); err != nil {
			t.Errorf("%s, is accepted, but the document refuses it: %v", name, err)
		}
	}

	documented := route.Operation.Responses.Status(a.status)
	if documented == nil {
		t.Errorf("%s: the document does not have this status; body %.300s", name, a.body)
		return ""
	}
	for _, header := range headersTold {
		told := slices.ContainsFunc(slices.Collect(maps.Keys(documented.Value.Headers)), func(h string) bool { return strings.EqualFold(h, header) })
		if a.header.Get(header) != "" && !told {
			t.Errorf("%s: the document does not have its header %s", name, header)
		}
	}
	if len(documented.Value.Content) == 0 && a.body != "" {
		t.Errorf("%s has the body %.300s, want none", name, a.body)
	}
	if a.status == http.StatusNotModified { // openapi3filter looks at no 304
		for header, h := range documented.Value.Headers {
			if err := h.Value.Schema.Value.VisitJSON(a.header.Get(header), openapi3.EnableJSONSchema2020()); err != nil {
				t.Errorf("%s: header %s: %v", name, header, err)
			}
		}
		return id
	}
	key := sha256.Sum256([]byte(route.Operation.OperationID + "\n" + strconv.Itoa(a.status) + "\n" + a.header.Get("Content-Type") + "\n" + prose.ReplaceAllString(a.body, "$1")))
	d.mu.Lock()
	right := d.right[key]
	d.mu.Unlock()
	err := openapi3filter.ValidateResponse(t.Context(), &openapi3filter.ResponseValidationInput{
		RequestValidationInput: input, Status: a.status, Header: a.header, Body: io.NopCloser(strings.NewReader(a.body)),
		Options: &openapi3filter.Options{IncludeResponseStatus: true, ExcludeResponseBody: right}})
	if err != nil {
		t.Errorf("%s, is not as documented: %v", name, err)
		return ""
	}
	d.mu.Lock()
	d.right[key] = true
	d.mu.Unlock()
	return id
}
