package handlers

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"log"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"strings"
	"sync"
	"testing"

	"github.com/getkin/kin-openapi/openapi3"
	"github.com/getkin/kin-openapi/openapi3filter"

	"github.com/dezky/platform-api/db"
	"github.com/dezky/platform-api/db/dbtest"
)

// ofrepSchema is OFREP's own document, by which others' programs read our answers.
var ofrepSchema = sync.OnceValue(func() *document {
	doc, err := openapi3.NewLoader().LoadFromFile("testdata/ofrep.yaml")
	if err != nil {
		panic(err)
	}
	return &document{T: doc}
})

// ofrepWitness carries requests to a server and holds those of OFREP, their answers and the events of
// streams against OFREP's schema. It is a proxy's transport.
type ofrepWitness struct {
	http.Transport
	report func(format string, args ...any) // what is not as OFREP says

	mu   sync.Mutex
	seen map[string]int // how often "bulk 200", "single 404", "stream 200", "event" …
	more *sync.Cond     // something was seen
}

func newOFREPWitness(report func(string, ...any)) *ofrepWitness {
	w := &ofrepWitness{report: report, seen: map[string]int{}}
	w.more = sync.NewCond(&w.mu)
	return w
}

// await waits until something was seen as often as that, or ctx ends.
func (w *ofrepWitness) await(ctx context.Context, what string, times int) error {
	defer context.AfterFunc(ctx, func() {
		w.mu.Lock()
		defer w.mu.Unlock()
		w.more.Broadcast()
	})()
	w.mu.Lock()
	defer w.mu.Unlock()
	for w.seen[what] < times {
		if ctx.Err() != nil {
			return fmt.Errorf("%s was not seen %d times, but %v", what, times, w.seen)
		}
		w.more.Wait()
	}
	return nil
}

// count tells how often something was seen.
func (w *ofrepWitness) count(what string) int {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.seen[what]
}

func (w *ofrepWitness) note(what string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.seen[what]++
	w.more.Broadcast()
}

func (w *ofrepWitness) RoundTrip(r *http.Request) (*http.Response, error) {
	var sent []byte
	if r.Body != nil {
		var err error
		if sent, err = io.ReadAll(r.Body); err != nil {
			return nil, err
		}
	}
	out := r.Clone(r.Context())
	out.Body, out.ContentLength = io.NopCloser(bytes.NewReader(sent)), int64(len(sent))
	response, err := w.Transport.RoundTrip(out)
	if err != nil {
		return nil, err
	}
	if strings.HasPrefix(response.Header.Get("Content-Type"), "text/event-stream") {
		w.note(fmt.Sprintf("stream %d", response.StatusCode))
		response.Body = &ofrepEvents{ReadCloser: response.Body, witness: w}
		return response, nil
	}
	got, err := io.ReadAll(response.Body)
	response.Body.Close()
	if err != nil {
		return nil, err
	}
	response.Body = io.NopCloser(bytes.NewReader(got))
	w.exchange(r, sent, response, got)
	return response, nil
}

// exchange holds one request with its answer against the schema; of other routes it takes no notice.
func (w *ofrepWitness) exchange(r *http.Request, sent []byte, response *http.Response, got []byte) {
	route, params := ofrepSchema().operation(r.Method, r.URL.Path)
	if route == nil {
		return
	}
	w.note(fmt.Sprintf("%s %d", route.Operation.OperationID, response.StatusCode))
	asked := r.Clone(context.Background())
	asked.Body = io.NopCloser(bytes.NewReader(sent))
	input := &openapi3filter.RequestValidationInput{Request: asked, PathParams: params, Route: route,
		Options: &openapi3filter.Options{SkipSettingDefaults: true}}
	wrong := func(side string, err error) {
		w.report("%s of OFREP's %s: %v\n%s %s\n%s\n%d %s\n%s", side, route.Operation.OperationID, err,
			r.Method, r.URL.RequestURI(), sent, response.StatusCode, response.Header.Get("Content-Type"), got)
	}
	if err := openapi3filter.ValidateRequest(context.Background(), input); err != nil {
		wrong("request", err)
	}
	err := openapi3filter.ValidateResponse(context.Background(), &openapi3filter.ResponseValidationInput{
		RequestValidationInput: input, Status: response.StatusCode, Header: response.Header, Body: io.NopCloser(bytes.NewReader(got)),
		Options: &openapi3filter.Options{IncludeResponseStatus: true}})
	if err == nil && response.StatusCode == http.StatusNotModified && len(got) > 0 { // openapi3filter looks at no 304
		err = fmt.Errorf("a 304 with a body")
	}
	if err != nil {
		wrong("answer", err)
	}
}

// ofrepEvents is a stream of events whose data is looked at as it goes by.
type ofrepEvents struct {
	io.ReadCloser
	witness *ofrepWitness
	rest    []byte // what has no end of line yet
}

func (e *ofrepEvents) Read(p []byte) (int, error) {
	n, err := e.ReadCloser.Read(p)
	e.rest = append(e.rest, p[:n]...)
	for {
		line, rest, whole := bytes.Cut(e.rest, []byte("\n"))
		if !whole {
			return n, err
		}
		e.rest = rest
		if data, is := bytes.CutPrefix(line, []byte("data:")); is {
			e.witness.event(data)
		}
	}
}

// event holds the data of one event, which is one line, against the schema.
func (w *ofrepWitness) event(data []byte) {
	w.note("event")
	var v any
	err := json.Unmarshal(data, &v)
	if err == nil {
		err = ofrepSchema().Components.Schemas["event"].Value.VisitJSON(v, openapi3.EnableJSONSchema2020())
	}
	if err != nil {
		w.report("event of a stream: %v\n%s", err, data)
	}
}

// witnessed is a server that is reached through a proxy, which is its public address, as behind TLS.
type witnessed struct {
	*running
	witness *ofrepWitness
	proxy   *httptest.Server
}

// startWitnessed starts a server on a new database with nothing but tokens in it, and the proxy before it.
func startWitnessed(t testing.TB) *witnessed {
	t.Helper()
	s := &witnessed{running: listen(t, readSpec()), witness: newOFREPWitness(t.Errorf)}
	s.witness.DisableCompression = true
	target, err := url.Parse(s.url)
	if err != nil {
		t.Fatal(err)
	}
	quiet := log.New(s.log, "", 0)
	s.proxy = httptest.NewUnstartedServer(&httputil.ReverseProxy{Transport: s.witness, FlushInterval: -1, ErrorLog: quiet,
		Rewrite: func(r *httputil.ProxyRequest) { r.SetURL(target) }})
	s.proxy.Config.ErrorLog = quiet
	s.proxy.Start()
	t.Cleanup(func() {
		s.proxy.CloseClientConnections()
		s.proxy.Close()
		s.witness.CloseIdleConnections()
	})
	s.db = dbtest.OpenAt(t, t.TempDir(), s.now)
	if err := s.Start(appliance(t, s.db, s.now, s.opts.Log, s.proxy.URL)); err != nil {
		t.Fatal(err)
	}
	for _, role := range db.TokenRoles {
		s.token(t, db.NewToken{Name: role, Role: role})
	}
	return s
}

// The witness must see what is wrong: one that sees nothing proves nothing.
func TestOFREPWitness(t *testing.T) {
	t.Parallel()
	const (
		bulk, single = "/ofrep/v1/evaluate/flags", "/ofrep/v1/evaluate/flags/a"
		asked        = `{"context":{"targetingKey":"acme"}}`
		value        = `{"key":"a","reason":"STATIC","value":true,"variant":"on","metadata":{"version":1,"description":"d"}}`
	)
	for _, c := range []struct {
		path, sent string
		status     int
		answer     string
		want       string // what is found wrong, or ""
	}{
		{single, asked, 200, value, ""},
		{single, `{"context":{"targetingKey":"acme","plan":"starter","seats":5}}`, 200, value, ""},
		{single, `{"context":{}}`, 400, `{"key":"a","errorCode":"TARGETING_KEY_MISSING"}`, ""},
		{single, asked, 404, `{"key":"a","errorCode":"FLAG_NOT_FOUND","errorDetails":"no flag a"}`, ""},
		{single, asked, 401, `{"title":"whatever"}`, ""},
		{bulk, asked, 200, `{"flags":[` + value + `],"metadata":{"revision":"5"}}`, ""},
		{bulk, asked, 200, `{"flags":[],"eventStreams":[{"type":"sse","url":"http://127.0.0.1/s","inactivityDelaySec":120}]}`, ""},
		{bulk, asked, 200, `{"flags":[],"eventStreams":[{"type":"sse","endpoint":{"requestUri":"/s"}}]}`, ""},
		{bulk + "?flagConfigEtag=x&flagConfigLastModified=5", asked, 304, "", ""},
		{bulk, asked, 400, `{"errorCode":"INVALID_CONTEXT"}`, ""},
		{"/flags/evaluate", "{}", 200, "nonsense", ""},

		{single, `{}`, 200, value, "request of OFREP's single"},
		{single, `{"context":{"targetingKey":5}}`, 200, value, "request of OFREP's single"},
		{bulk + "?flagConfigLastModified=-5", asked, 304, "", "request of OFREP's bulk"},
		{single, asked, 200, strings.Replace(value, "STATIC", "STATICAL", 1), "answer of OFREP's single"},
		{single, asked, 200, strings.Replace(value, `"key":"a",`, "", 1), "answer of OFREP's single"},
		{single, asked, 200, strings.Replace(value, `"on"`, "1", 1), "answer of OFREP's single"},
		{single, asked, 200, strings.Replace(value, `"version":1`, `"version":null`, 1), "answer of OFREP's single"},
		{single, asked, 200, strings.Replace(value, `"value":true`, `"value":null`, 1), "answer of OFREP's single"},
		{single, asked, 400, `{"key":"a","errorCode":"FLAG_NOT_FOUND"}`, "answer of OFREP's single"},
		{single, asked, 404, `{"title":"not found"}`, "answer of OFREP's single"},
		{single, asked, 422, `{}`, "answer of OFREP's single"},
		{bulk, asked, 404, `{"key":"a","errorCode":"FLAG_NOT_FOUND"}`, "answer of OFREP's bulk"},
		{bulk, asked, 200, `{}`, "answer of OFREP's bulk"},
		{bulk, asked, 200, `{"flags":[{"key":"a"}]}`, "answer of OFREP's bulk"},
		{bulk, asked, 200, `{"flags":[],"eventStreams":[{"type":"sse"}]}`, "answer of OFREP's bulk"},
		{bulk, asked, 200, `{"flags":[],"eventStreams":[{"type":"sse","url":"http://x/s","inactivityDelaySec":0}]}`, "answer of OFREP's bulk"},
		{bulk, asked, 200, `{"flags":[],"eventStreams":[{"type":"sse","url":"http://x/s","endpoint":{"requestUri":"/s"}}]}`, "answer of OFREP's bulk"},
	} {
		var found []string
		w := newOFREPWitness(func(format string, args ...any) { found = append(found, fmt.Sprintf(format, args...)) })
		r := httptest.NewRequest("POST", c.path, nil)
		r.Header.Set("Content-Type", "application/json; charset=utf-8")
		w.exchange(r, []byte(c.sent), &http.Response{StatusCode: c.status, Header: http.Header{"Content-Type": {"application/json"}}}, []byte(c.answer))
		if c.want == "" && len(found) > 0 || c.want != "" && (len(found) != 1 || !strings.HasPrefix(found[0], c.want)) {
			t.Errorf("%s %s = %d %s: found %q, want %q", c.path, c.sent, c.status, c.answer, found, c.want)
		}
	}

	var found []string
	w := newOFREPWitness(func(format string, args ...any) { found = append(found, fmt.Sprintf(format, args...)) })
	stream := &ofrepEvents{witness: w, ReadCloser: io.NopCloser(strings.NewReader(": beat\n\nid: e-5\n" +
		`data: {"type":"refetchEvaluation","etag":"e-5","lastModified":1700000000}` + "\n\n" + `data: {"etag":5}` + "\n\n"))}
	if _, err := io.Copy(io.Discard, stream); err != nil {
		t.Fatal(err)
	}
	if len(found) != 1 || !strings.Contains(found[0], `{"etag":5}`) || w.count("event") != 2 {
		t.Errorf("of two events, the second wrong, %q was found, and seen %v", found, w.seen)
	}
}
