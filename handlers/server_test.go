package handlers

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/dezky/platform-api/db/dbtest"
)

// logged is one line of the log.
type logged struct {
	Level, Msg, ID, Method, Route, Path, Principal, Client string
	Error, Cause, Stack                                    string
	Status                                                 int
	Bytes                                                  int64
	DurationMs                                             *float64
	Time                                                   string
}

// lines reads the log, in which every line must be an object with known members only.
func (b *buffer) lines(t *testing.T) []logged {
	t.Helper()
	var out []logged
	for line := range strings.Lines(b.String()) {
		dec := json.NewDecoder(strings.NewReader(line))
		dec.DisallowUnknownFields()
		var l logged
		if err := dec.Decode(&l); err != nil {
			t.Fatalf("%v in the line %s", err, line)
		}
		out = append(out, l)
	}
	return out
}

// of returns the lines of the log with a message.
func (b *buffer) of(t *testing.T, message string) []logged {
	t.Helper()
	return slices.DeleteFunc(b.lines(t), func(l logged) bool { return l.Msg != message })
}

func TestRouter(t *testing.T) {
	t.Parallel()
	s := start(t)
	s.registry(t)
	s.want(t, 201, "POST /flags", `{"key":"jmap_native_v2"}`)
	const flag = "DELETE, GET, HEAD, PATCH"
	tests := []struct {
		line, body string
		status     int
		allow      string
		location   string
	}{
		{"GET /nothing", "", 404, "", ""},
		{"POST /nothing", "{}", 404, "", ""},
		{"GET /flags/search/nothing", "", 404, "", ""},
		{"GET /flags/", "", 404, "", ""},
		{"GET /flags/search/", "", 404, "", ""},
		{"GET /health/", "", 404, "", ""},
		{"GET /Flags", "", 404, "", ""},
		{"GET /static/none.css", "", 404, "", ""},
		{"GET /static/", "", 404, "", ""},
		{"OPTIONS /nothing", "", 404, "", ""},
		{"HEAD /nothing", "", 404, "", ""},

		{"PUT /flags", "{}", 405, "GET, HEAD, POST", ""},
		{"DELETE /flags", "", 405, "GET, HEAD, POST", ""},
		{"OPTIONS /flags", "", 405, "GET, HEAD, POST", ""},
		{"BREW /flags", "", 405, "GET, HEAD, POST", ""},
		{"get /flags", "", 405, "GET, HEAD, POST", ""},
		{"OPTIONS /flags/search", "", 405, flag, ""},
		{"PUT /flags/search", "{}", 405, flag, ""},
		{"OPTIONS /flags/evaluate", "", 405, "DELETE, GET, HEAD, PATCH, POST", ""},
		{"GET /flags/search/impact", "", 405, "POST", ""},
		{"PUT /api/flags/search/history", "{}", 405, "GET, HEAD", ""},
		{"POST /tenants/acme", "{}", 405, "DELETE, GET, HEAD, PATCH, PUT", ""},
		{"POST /health", "{}", 405, "GET, HEAD", ""},
		{"POST /", "{}", 405, "GET, HEAD", ""},
		{"DELETE /docs", "", 405, "GET, HEAD", ""},

		{"HEAD /flags", "", 200, "", ""},
		{"HEAD /flags/search", "", 200, "", ""},
		{"HEAD /flags/missing", "", 404, "", ""},
		{"HEAD /health", "", 200, "", ""},
		{"HEAD /openapi.yaml", "", 200, "", ""},
		{"HEAD /docs", "", 200, "", ""},

		{"GET /flags/jmap%5Fnative%5fv2", "", 200, "", ""},
		{"PATCH /flags/%6amap_native_v2", `{"pct":5}`, 200, "", ""},
		{"GET /%66lags/search", "", 200, "", ""},
		{"GET /flags/search%2Fhistory", "", 404, "", ""},
		{"GET /flags/search%20", "", 404, "", ""},
		{"GET /flags/%00", "", 404, "", ""},
		{"GET /tenants/%61cme", "", 200, "", ""},

		{"GET //flags", "", 307, "", "/flags"},
		{"GET //flags//search", "", 307, "", "/flags/search"},
		{"GET /flags/./search", "", 307, "", "/flags/search"},
		{"GET /flags/../tenants?limit=1", "", 307, "", "/tenants?limit=1"},
		{"GET //evil.example", "", 307, "", "/evil.example"}, // not another host
		{"POST //flags", `{"key":"a"}`, 307, "", "/flags"},   // with the same method and body
		{"GET /", "", 303, "", "/operator/flags"},
		{"HEAD /", "", 303, "", "/operator/flags"},
	}
	for _, tt := range tests {
		t.Run(tt.line, func(t *testing.T) {
			got := s.want(t, tt.status, tt.line, tt.body)
			if allow := got.header.Get("Allow"); allow != tt.allow {
				t.Errorf("Allow %q, want %q", allow, tt.allow)
			}
			if location := got.header.Get("Location"); location != tt.location {
				t.Errorf("Location %q, want %q", location, tt.location)
			}
			if tt.status >= 400 && got.header.Get("Content-Type") != "application/problem+json" {
				t.Errorf("Content-Type %q, want a problem", got.header.Get("Content-Type"))
			}
			if tt.status == 405 {
				if p, want := decode[problem](t, got), "is not allowed here; allowed are "+tt.allow; p.Status != 405 || !strings.HasSuffix(p.Detail, want) {
					t.Errorf("problem %s, want a detail that ends in %q", show(p), want)
				}
			}
		})
	}
	whole := s.want(t, 200, "GET /flags/search", "")
	head := s.want(t, 200, "HEAD /flags/search", "")
	for _, name := range []string{"Content-Type", "Content-Length", "ETag", "Cache-Control"} {
		if got, want := head.header.Get(name), whole.header.Get(name); got != want || got == "" {
			t.Errorf("HEAD has %s %q, GET %q", name, got, want)
		}
	}
}

func TestRequestIDs(t *testing.T) {
	t.Parallel()
	s := start(t)
	seen := map[string]bool{}
	for range 3 {
		for _, line := range []string{"GET /flags", "GET /nothing", "PUT /flags", "GET /health", "GET /", "GET /static/x", "GET /docs", "GET //flags", "HEAD /flags"} {
			ids := s.send(t, line, "", "X-Request-Id: mine").header.Values("X-Request-Id")
			if len(ids) != 1 || ids[0] == "" || ids[0] == "mine" || seen[ids[0]] {
				t.Errorf("%s: X-Request-Id %q, want one that is new and ours", line, ids)
			}
			seen[strings.Join(ids, "")] = true
		}
	}
	// Another process begins elsewhere.
	if a, b := New(Options{}).ids.next(), New(Options{}).ids.next(); a == b {
		t.Errorf("two servers give the id %s", a)
	}
}

// withRoute adds a route that needs no credentials to a running server.
func (s *running) withRoute(path string, handle func(http.ResponseWriter, *http.Request, call) error) {
	mux := http.NewServeMux()
	mux.Handle("/", s.routes.Load())
	mux.Handle("GET "+path, (&app{server: s.Server}).open(route{path: path, handle: handle}))
	s.routes.Store(mux)
}

func TestPanic(t *testing.T) {
	t.Parallel()
	s := start(t)
	s.withRoute("/panic", func(http.ResponseWriter, *http.Request, call) error { panic("the cupboard is bare") })
	s.withRoute("/late-panic", func(w http.ResponseWriter, _ *http.Request, _ call) error {
		w.WriteHeader(http.StatusOK)
		io.WriteString(w, "half")
		panic("too late")
	})
	s.withRoute("/abort", func(http.ResponseWriter, *http.Request, call) error { panic(http.ErrAbortHandler) })
	s.withRoute("/error", func(http.ResponseWriter, *http.Request, call) error { return fmt.Errorf("a secret of the house") })

	got := s.want(t, 500, "GET /panic", "")
	p := decode[problem](t, got)
	if p.ID == "" || p.ID != got.header.Get("X-Request-Id") || strings.Contains(got.body, "cupboard") || strings.Contains(got.body, ".go") {
		t.Errorf("a panic is answered with %s, want only the id of the request", got.body)
	}
	lines := s.log.of(t, "panic")
	if len(lines) != 1 || lines[0].ID != p.ID || lines[0].Level != "ERROR" || lines[0].Cause != "the cupboard is bare" || !strings.Contains(lines[0].Stack, "TestPanic") {
		t.Errorf("the log has %s, want one panic with the id %s, its cause and stack", show(lines), p.ID)
	}
	requests := s.log.of(t, "request")
	if last := requests[len(requests)-1]; last.ID != p.ID || last.Status != 500 || last.Route != "GET /panic" {
		t.Errorf("the request is logged as %s, want status 500", show(last))
	}

	got = s.want(t, 500, "GET /error", "")
	p = decode[problem](t, got)
	if p.ID != got.header.Get("X-Request-Id") || strings.Contains(got.body, "secret") {
		t.Errorf("an error is answered with %s, want only the id of the request", got.body)
	}
	if lines := s.log.of(t, "request failed"); len(lines) != 1 || lines[0].ID != p.ID || lines[0].Error != "a secret of the house" {
		t.Errorf("the log has %s, want one error with the id %s", show(lines), p.ID)
	}

	// An answer that has begun is cut short.
	if status, body, err := s.raw(t, "/late-panic"); err == nil {
		t.Errorf("a panic halfway ends in a whole answer, %d %q", status, body)
	}
	if lines := s.log.of(t, "panic"); len(lines) < 2 || lines[1].Cause != "too late" { // a client may try again
		t.Errorf("the log has %s, want the second panic", show(lines))
	}
	if _, _, err := s.raw(t, "/abort"); err == nil {
		t.Error("an aborted answer came to its end")
	}
	s.want(t, 200, "GET /flags", "") // the server lives
}

// raw gets a path without a look at the answer.
func (s *running) raw(t *testing.T, path string) (int, string, error) {
	t.Helper()
	response, err := s.client.Do(s.request(t, "GET "+path, ""))
	if err != nil {
		return 0, "", err
	}
	defer response.Body.Close()
	body, err := io.ReadAll(response.Body)
	return response.StatusCode, string(body), err
}

// TestFailedRead is a database that fails after the credentials are known.
func TestFailedRead(t *testing.T) {
	t.Parallel()
	s := start(t)
	s.registry(t)
	s.db.Close()
	for _, line := range []string{"GET /flags/search", "GET /flags/search/history", "GET /history", "DELETE /flags/search", "PATCH /flags/search"} {
		body := map[bool]string{true: `{"pct":1}`}[strings.HasPrefix(line, "PATCH")]
		got := s.want(t, 500, line, body)
		if got.header.Get("ETag") != "" || got.header.Get("Cache-Control") != "no-store" {
			t.Errorf("%s: a 500 with ETag %q and Cache-Control %q, want none and no-store", line, got.header.Get("ETag"), got.header.Get("Cache-Control"))
		}
		if p := decode[problem](t, got); strings.Contains(got.body, "sql") || p.ID != got.header.Get("X-Request-Id") {
			t.Errorf("%s: %s, want nothing but the id", line, got.body)
		}
	}
	s.want(t, 200, "POST /flags/evaluate", `{"tenantSlug":"acme"}`) // needs no database
	s.want(t, 200, "GET /flags", "")
}

func TestRequestLog(t *testing.T) {
	t.Parallel()
	s := start(t)
	s.registry(t)
	n := len(s.log.of(t, "request"))
	tests := []struct {
		line, body string
		headers    []string
		want       logged
	}{
		{"GET /flags/search?q=hidden", "", []string{s.as("read")}, logged{Method: "GET", Route: "GET /flags/{key}", Path: "/flags/search", Status: 200, Principal: "token:read"}},
		{"PATCH /api/flags/search", `{"pct":3}`, nil, logged{Method: "PATCH", Route: "PATCH /api/flags/{key}", Path: "/api/flags/search", Status: 200, Principal: "token:operator"}},
		{"POST /flags/evaluate", `{"tenantSlug":"acme"}`, []string{"X-API-Key: " + s.tokens["evaluate"]}, logged{Method: "POST", Route: "POST /flags/evaluate", Path: "/flags/evaluate", Status: 200, Principal: "token:evaluate"}},
		{"POST /flags/evaluate", `{"tenantSlug":"acme"}`, []string{"If-None-Match: *"}, logged{Method: "POST", Route: "POST /flags/evaluate", Path: "/flags/evaluate", Status: 304, Principal: "token:operator"}},
		{"DELETE /flags/search", "", []string{s.as("read")}, logged{Method: "DELETE", Route: "DELETE /flags/{key}", Path: "/flags/search", Status: 403, Principal: "token:read"}},
		{"GET /flags", "", []string{nobody}, logged{Method: "GET", Route: "GET /flags", Path: "/flags", Status: 401, Principal: "none"}},
		{"GET /flags", "", []string{"Authorization: Bearer dzk_mistyped-secret"}, logged{Method: "GET", Route: "GET /flags", Path: "/flags", Status: 401, Principal: "none", Cause: "invalid token"}},
		{"GET /flags?access_token=dzk_in-the-query", "", []string{nobody, "Cookie: s=dzk_in-a-cookie"}, logged{Method: "GET", Route: "GET /flags", Path: "/flags", Status: 401, Principal: "none"}},
		{"GET /nothing", "", nil, logged{Method: "GET", Path: "/nothing", Status: 404, Principal: "none"}},
		{"PUT /flags", "{}", nil, logged{Method: "PUT", Path: "/flags", Status: 405, Principal: "none"}},
		{"GET /docs", "", []string{nobody}, logged{Method: "GET", Route: "GET /docs", Path: "/docs", Status: 200, Principal: "none"}},
		{"DELETE /flags/calendar", "", nil, logged{Method: "DELETE", Route: "DELETE /flags/{key}", Path: "/flags/calendar", Status: 204, Principal: "token:operator"}},
		{"GET /", "", nil, logged{Method: "GET", Route: "GET /{$}", Path: "/", Status: 303, Principal: "none"}},
	}
	for i, tt := range tests {
		a := s.want(t, tt.want.Status, tt.line, tt.body, tt.headers...)
		lines := s.log.of(t, "request")
		if len(lines) != n+i+1 {
			t.Fatalf("%s: %d lines of requests, want %d", tt.line, len(lines), n+i+1)
		}
		got := lines[n+i]
		if got.DurationMs == nil || *got.DurationMs < 0 || got.Time == "" || got.Client != "127.0.0.1" || got.ID != a.header.Get("X-Request-Id") || got.Bytes != int64(len(a.body)) {
			t.Errorf("%s: the line %s, want durationMs, time, client, id %s and bytes %d", tt.line, show(got), a.header.Get("X-Request-Id"), len(a.body))
		}
		tt.want.Level, tt.want.Msg = "INFO", "request"
		tt.want.ID, tt.want.DurationMs, tt.want.Time, tt.want.Client, tt.want.Bytes = got.ID, got.DurationMs, got.Time, got.Client, got.Bytes
		if got != tt.want {
			t.Errorf("%s: the line %s, want %s", tt.line, show(got), show(tt.want))
		}
	}
	// Probes are not worth a line.
	s.want(t, 200, "GET /health", "")
	s.want(t, 200, "GET /ready", "")
	if lines := s.log.of(t, "request"); len(lines) != n+len(tests) {
		t.Errorf("probes made %d lines", len(lines)-n-len(tests))
	}
	text := s.log.String()
	for _, secret := range append([]string{"mistyped-secret", "in-the-query", "in-a-cookie", "hidden", "dzk_"}, s.tokens["operator"], s.tokens["read"], s.tokens["evaluate"]) {
		if strings.Contains(text, secret) {
			t.Errorf("the log has %q", secret)
		}
	}
}

// TestClientGoesAway is a request whose client does not wait: it is no fault of the server's.
func TestClientGoesAway(t *testing.T) {
	t.Parallel()
	s := start(t)
	entered, gone := make(chan struct{}), make(chan struct{})
	s.withRoute("/slow", func(_ http.ResponseWriter, r *http.Request, _ call) error {
		close(entered)
		<-r.Context().Done()
		defer close(gone)
		return fmt.Errorf("history: %w", context.Cause(r.Context()))
	})
	conn, err := net.Dial("tcp", strings.TrimPrefix(s.url, "http://"))
	if err != nil {
		t.Fatal(err)
	}
	fmt.Fprint(conn, "GET /slow HTTP/1.1\r\nHost: x\r\n\r\n")
	<-entered
	conn.Close()
	<-gone
	for len(s.log.of(t, "request")) == 0 { // the line comes right after
		s.want(t, 200, "GET /health", "")
	}
	if line := s.log.of(t, "request")[0]; line.Status != 499 || len(s.log.of(t, "request failed")) != 0 {
		t.Errorf("the request is logged as %s, want 499 and no failure", show(line))
	}
}

func TestStarting(t *testing.T) {
	t.Parallel()
	s := listen(t, readSpec())
	refused := func(line, body, reason string) {
		t.Helper()
		got := s.want(t, 503, line, body)
		if p := decode[problem](t, got); p.Detail != reason || p.Type != "urn:dezky:problem:unavailable" || got.header.Get("Retry-After") != "1" {
			t.Errorf("%s: %s with Retry-After %q, want %q and 1", line, got.body, got.header.Get("Retry-After"), reason)
		}
	}
	for _, sample := range samples {
		if !strings.HasPrefix(sample.line, "GET /health") {
			refused(sample.line, sample.body, "starting")
		}
	}
	s.want(t, 200, "GET /health", "")
	refused("GET /nothing", "", "starting")
	refused("GET /", "", "starting")
	s.NotReady("opening the database")
	refused("GET /ready", "", "opening the database")
	refused("POST /api/flags/evaluate", `{"tenantSlug":"acme"}`, "opening the database")
	s.want(t, 200, "GET /health", "")

	other := start(t)
	s.tokens = other.tokens
	if err := s.Start(appliance(t, other.db, time.Now, discard, "not a URL")); err == nil {
		t.Error("Start takes a public URL that is none")
	}
	refused("GET /ready", "", "opening the database")
}

// TestStopping is a server that is told to stop: it says so, and goes on with what it gets.
func TestStopping(t *testing.T) {
	t.Parallel()
	s := start(t)
	s.registry(t)
	s.want(t, 200, "GET /ready", "", nobody)
	s.NotReady("stopping")
	if p := decode[problem](t, s.want(t, 503, "GET /ready", "", nobody)); p.Detail != "stopping" {
		t.Errorf("detail %q, want stopping", p.Detail)
	}
	s.want(t, 200, "GET /health", "", nobody)
	s.want(t, 200, "POST /flags/evaluate", `{"tenantSlug":"acme"}`)
	s.want(t, 200, "PATCH /flags/search", `{"pct":3}`)
	s.want(t, 404, "GET /nothing", "")
	s.want(t, 405, "PUT /flags", "{}")
}

// TestStartWhileServing starts a server under fire: no request is ever answered 404 or with a fault.
func TestStartWhileServing(t *testing.T) {
	t.Parallel()
	d := dbtest.Open(t)
	for range 20 {
		s := New(Options{Log: discard, Version: "x", Spec: readSpec()})
		var asked sync.WaitGroup
		ready := make(chan struct{})
		for range 4 {
			asked.Go(func() {
				<-ready
				for range 50 {
					w := &recorded{header: http.Header{}}
					r, _ := http.NewRequest("GET", "/ready", nil)
					if s.ServeHTTP(w, r); w.status != 200 && w.status != 503 {
						t.Errorf("GET /ready while starting = %d, want 200 or 503", w.status)
					}
				}
			})
		}
		close(ready)
		if err := s.Start(appliance(t, d, time.Now, discard, "http://127.0.0.1:3001")); err != nil {
			t.Fatal(err)
		}
		asked.Wait()
	}
}

// TestUnusualRequests writes what Go's client would not.
func TestUnusualRequests(t *testing.T) {
	t.Parallel()
	s := start(t)
	s.registry(t)
	const evaluate = `{"tenantSlug":"acme"}`
	auth := "Authorization: Bearer " + s.tokens["operator"] + "\r\n"
	tests := []struct {
		name, request string
		status        int
	}{
		{"a body in chunks", "POST /flags/evaluate HTTP/1.1\r\nHost: x\r\n" + auth + "Content-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n15\r\n" + evaluate + "\r\n0\r\n\r\n", 200},
		{"a body cut short", "POST /flags/evaluate HTTP/1.1\r\nHost: x\r\n" + auth + "Content-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n15\r\n" + evaluate + "\r\nnonsense\r\n\r\n", 400},
		{"a body on GET", fmt.Sprintf("GET /flags HTTP/1.1\r\nHost: x\r\n%sContent-Length: %d\r\n\r\n%s", auth, len(evaluate), evaluate), 200},
		{"an absolute target", "GET http://x/flags HTTP/1.1\r\nHost: x\r\n" + auth + "\r\n", 200},
		{"OPTIONS *", "OPTIONS * HTTP/1.1\r\nHost: x\r\n" + auth + "\r\n", 200},
		{"headers in lower case", "GET /flags HTTP/1.1\r\nhost: x\r\nauthorization: bearer " + s.tokens["read"] + "\r\n\r\n", 200},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			conn, err := net.Dial("tcp", strings.TrimPrefix(s.url, "http://"))
			if err != nil {
				t.Fatal(err)
			}
			defer conn.Close()
			io.WriteString(conn, tt.request)
			response, err := http.ReadResponse(bufio.NewReader(conn), nil)
			if err != nil {
				t.Fatal(err)
			}
			body, _ := io.ReadAll(response.Body)
			if response.StatusCode != tt.status {
				t.Errorf("status %d %s, want %d", response.StatusCode, body, tt.status)
			}
		})
	}
}
