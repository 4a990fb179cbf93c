package handlers

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/dezky/platform-api/auth"
	"github.com/dezky/platform-api/auth/authtest"
	"github.com/dezky/platform-api/db"
	"github.com/dezky/platform-api/db/dbtest"
	"github.com/dezky/platform-api/flags"
)

// reader follows a stream.
type reader struct {
	t     testing.TB
	lines *bufio.Reader
}

// heard is an event that a stream told.
type heard struct{ name, id, data string }

// follow opens a stream, which says at once that it is open.
func (s *running) follow(t testing.TB, line string, headers ...string) *reader {
	t.Helper()
	return followWith(t, s.client, s.request(t, line, "", headers...))
}

func followWith(t testing.TB, client *http.Client, r *http.Request) *reader {
	t.Helper()
	response, err := client.Do(r)
	if err != nil {
		t.Fatal(err)
	}
	patience := time.AfterFunc(time.Minute, func() { response.Body.Close() })
	t.Cleanup(func() {
		patience.Stop()
		response.Body.Close()
	})
	h := response.Header
	if response.StatusCode != 200 || h.Get("Content-Type") != eventStreamType || h.Get("Cache-Control") != "no-store" ||
		h.Get("X-Accel-Buffering") != "no" || h.Get("X-Request-Id") == "" || h.Get("X-Content-Type-Options") != "nosniff" || h.Get("Date") == "" {
		t.Fatalf("%s = %d %v, want a stream", r.URL.Path, response.StatusCode, h)
	}
	rd := &reader{t, bufio.NewReader(response.Body)}
	rd.begins()
	return rd
}

func (r *reader) begins() {
	r.t.Helper()
	begins := make([]byte, len(opening))
	if _, err := io.ReadFull(r.lines, begins); err != nil || !bytes.Equal(begins, opening) {
		r.t.Fatalf("the stream begins with %q, %v, want %q", begins, err, opening)
	}
}

// next reads the next event; ok is false where the stream has ended.
func (r *reader) next() (e heard, ok bool) {
	r.t.Helper()
	for {
		line, err := r.lines.ReadString('\n')
		if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) || errors.Is(err, syscall.ECONNRESET) {
			if line != "" || e != (heard{}) {
				r.t.Errorf("the stream ends in the middle of an event, %+v and %q", e, line)
			}
			return heard{}, false
		}
		if err != nil {
			r.t.Fatal(err)
		}
		field, value, _ := strings.Cut(strings.TrimSuffix(line, "\n"), ": ")
		switch field {
		case "event":
			e.name = value
		case "id":
			e.id = value
		case "data":
			e.data += value
		case "":
			if e != (heard{}) {
				return e, true
			}
		default:
			r.t.Fatalf("the stream says %q", line)
		}
	}
}

func (r *reader) want(name, id, data string) {
	r.t.Helper()
	if e, ok := r.next(); !ok || e != (heard{name, id, data}) {
		r.t.Fatalf("the stream says %+v (ended: %t), want %+v", e, !ok, heard{name, id, data})
	}
}

func (r *reader) wantEnd() {
	r.t.Helper()
	if e, ok := r.next(); ok {
		r.t.Fatalf("the stream says %+v, want its end", e)
	}
}

// id is the id of a revision's event.
func (s *running) id(revision int64) string { return idOf(s.db.Current().Epoch(), revision) }

// publish tells of a transaction that nobody made, and returns its revision.
func (s *running) publish(e flags.Event) int64 {
	edit := s.db.Current().Edit()
	e.Revision = edit.Revision() + 1
	edit.SetRevision(e.Revision, s.now())
	s.db.Live().Publish(edit.View(), e)
	return e.Revision
}

// startPinging starts a server that pings its streams often, and logs everything.
func startPinging(t testing.TB) *running {
	t.Helper()
	s := listen(t, readSpec())
	s.pings = 64 * time.Millisecond
	s.opts.Log = slog.New(slog.NewJSONHandler(s.log, &slog.HandlerOptions{Level: slog.LevelDebug}))
	s.dir = t.TempDir()
	s.db = dbtest.OpenAt(t, s.dir, s.now)
	if err := s.Start(appliance(t, s.db, s.now, s.opts.Log, s.url)); err != nil {
		t.Fatal(err)
	}
	for _, role := range db.TokenRoles {
		s.token(t, db.NewToken{Name: role, Role: role})
	}
	return s
}

// protocol2 serves the same server over HTTP/2 and returns its address and a client.
func (s *running) protocol2(t testing.TB) (address string, client *http.Client) {
	t.Helper()
	two := &http.Protocols{}
	two.SetUnencryptedHTTP2(true)
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	server := &http.Server{Handler: s.Server, Protocols: two}
	served := make(chan error, 1)
	go func() { served <- server.Serve(listener) }()
	transport := &http.Transport{Protocols: two}
	t.Cleanup(func() {
		s.EndStreams()
		transport.CloseIdleConnections()
		server.Close()
		<-served
	})
	return "http://" + listener.Addr().String(), &http.Client{Transport: transport}
}

func TestEventsTellEachTransaction(t *testing.T) {
	t.Parallel()
	s := start(t)
	s.registry(t)
	s.token(t, db.NewToken{Name: "pinned", Role: "evaluate", Environment: "staging"})
	address, two := s.protocol2(t)
	over2 := s.request(t, "GET /events", "", s.as("evaluate"))
	over2.URL.Host = strings.TrimPrefix(address, "http://")
	readers := map[string]*reader{
		"of role evaluate":   s.follow(t, "GET /events", s.as("evaluate")),
		"of one environment": s.follow(t, "GET /events", s.as("pinned")),
		"by API key":         s.follow(t, "GET /api/events", nobody, "X-API-Key: "+s.tokens["read"]),
		"of a session":       s.follow(t, "GET /api/events", nobody, s.cookie(t, auth.Read)),
		"over HTTP/2":        followWith(t, two, over2),
	}

	s.want(t, 200, "PATCH /flags/search", `{"pct":60}`)
	s.want(t, 201, "POST /flags", `{"key":"a_first"}`)
	s.want(t, 200, "PATCH /flags/a_first", `{}`) // changes nothing
	s.want(t, 200, "PATCH /tenants/acme", `{"plan":"starter"}`)
	s.want(t, 200, "PATCH /partners/nordhost", `{"name":"Nord"}`)
	s.want(t, 204, "DELETE /flags/a_first", "")
	imported := flags.Document{Tenants: crowd(2)}
	for _, key := range []string{"z_last", "b_second"} {
		imported.Flags = append(imported.Flags, flags.NewFlag{Key: key})
	}
	for _, d := range []flags.Document{imported, {Tenants: crowd(102)}, {Tenants: crowd(203)}} { // 4, 100 and 101 names
		if _, err := s.db.Import(t.Context(), db.By{Actor: "system:import"}, d, db.Import{}); err != nil {
			t.Fatal(err)
		}
	}
	hundred := make([]string, 100)
	for i := range hundred {
		hundred[i] = fmt.Sprintf("tenant-%06d", i+2)
	}
	for name, r := range readers {
		t.Logf("the stream %s", name)
		r.t = t
		r.want("", s.id(10), `{"revision":10,"action":"updated","actor":"token:operator","flags":["search"],"tenants":[]}`)
		r.want("", s.id(11), `{"revision":11,"action":"created","actor":"token:operator","flags":["a_first"],"tenants":[]}`)
		r.want("", s.id(12), `{"revision":12,"action":"updated","actor":"token:operator","flags":[],"tenants":["acme"]}`)
		r.want("", s.id(13), `{"revision":13,"action":"updated","actor":"token:operator","flags":[],"tenants":[]}`)
		r.want("", s.id(14), `{"revision":14,"action":"deleted","actor":"token:operator","flags":["a_first"],"tenants":[]}`)
		r.want("", s.id(15), `{"revision":15,"action":"created","actor":"system:import","flags":["b_second","z_last"],"tenants":["tenant-000000","tenant-000001"]}`)
		r.want("", s.id(16), `{"revision":16,"action":"created","actor":"system:import","flags":[],"tenants":`+show(hundred)+`}`)
		r.want("resync", s.id(17), `{"revision":17}`)
	}
}

// A customer's person is told that something changed, and nothing of what others have.
func TestEventsOfAMember(t *testing.T) {
	t.Parallel()
	p := authtest.New(t, authtest.Options{})
	s := trusting(t, p)
	r := s.follow(t, "GET /events", bearer(p.AccessToken(authtest.PortalID, authtest.AcmeSub)))
	s.want(t, 200, "PATCH /tenants/umbrella", `{"plan":"starter"}`)
	s.want(t, 200, "PATCH /flags/search", `{"pct":60}`)
	r.want("", s.id(10), `{"revision":10}`)
	r.want("", s.id(11), `{"revision":11}`)
	s.moveClock(time.Hour)
	s.want(t, 200, "PATCH /flags/search", `{"pct":61}`)
	r.wantEnd() // its token has expired
}

func TestEventsResume(t *testing.T) {
	t.Parallel()
	s := start(t)
	const latest = 3000
	for s.publish(flags.Event{Action: flags.Updated, Actor: "ops@dezky.example", Flags: []string{"search"}}) < latest {
	}
	event := func(n int64) heard {
		return heard{"", s.id(n), fmt.Sprintf(`{"revision":%d,"action":"updated","actor":"ops@dezky.example","flags":["search"],"tenants":[]}`, n)}
	}
	resync := heard{"resync", s.id(latest), fmt.Sprintf(`{"revision":%d}`, latest)}
	address, two := s.protocol2(t)
	for _, tt := range []struct {
		name, last string
		want       heard // the first event; the next change's, where there is nothing to tell
		many       int64
	}{
		{"none", "", event(latest + 1), 0},
		{"the newest", s.id(latest), event(latest + 1), 0},
		{"the one before", s.id(latest - 1), event(latest), 1},
		{"the oldest that is remembered", s.id(latest - 1024), event(latest - 1023), 1024},
		{"one before that", s.id(latest - 1025), resync, 1},
		{"the first", s.id(0), resync, 1},
		{"one to come", s.id(latest + 1), resync, 1},
		{"one below zero", s.id(-5), resync, 1},
		{"beyond all numbers", s.id(latest) + "0000000000000000000000", resync, 1},
		{"another epoch", "0123456789abcdef-2999", resync, 1},
		{"a revision alone", "2999", resync, 1},
		{"an epoch alone", s.db.Current().Epoch(), resync, 1},
		{"rubbish", "\"<script>\"", resync, 1},
	} {
		for _, over := range []string{"HTTP/1.1", "HTTP/2"} {
			request, client := s.request(t, "GET /events", "", s.as("evaluate")), s.client
			if tt.last != "" {
				request.Header.Set("Last-Event-ID", tt.last)
			}
			if over == "HTTP/2" {
				request.URL.Host, client = strings.TrimPrefix(address, "http://"), two
			}
			r := followWith(t, client, request)
			if tt.many == 0 {
				continue // told below
			}
			e, ok := r.next()
			if !ok || e != tt.want {
				t.Errorf("%s over %s: the stream says %+v (ended: %t), want %+v", tt.name, over, e, !ok, tt.want)
			}
			for n := latest - tt.many + 2; ok && n <= latest; n++ {
				if e, ok = r.next(); e != event(n) {
					t.Fatalf("%s over %s: the stream says %+v, want %+v", tt.name, over, e, event(n))
				}
			}
		}
	}
	none, newest := s.follow(t, "GET /events"), s.follow(t, "GET /events", "Last-Event-ID: "+s.id(latest))
	s.publish(flags.Event{Action: flags.Updated, Actor: "ops@dezky.example", Flags: []string{"search"}})
	for _, r := range []*reader{none, newest} {
		e := event(latest + 1)
		r.want(e.name, e.id, e.data)
	}
}

// What an OFREP stream tells: the newest state, where the tenant may be concerned.
func TestOFREPStream(t *testing.T) {
	t.Parallel()
	s := start(t)
	s.registry(t)
	app := s.app.Load()
	evaluator := &auth.Principal{Role: auth.Evaluate}
	s.moveClock(time.Hour) // the changes so far were long before
	follow := func(tenant string, headers ...string) *reader {
		t.Helper()
		path, found := strings.CutPrefix(app.streamURL(&http.Request{}, evaluator, tenant, s.now()), s.url)
		if !found {
			t.Fatalf("the stream's URL is %s, want it to begin with %s", path, s.url)
		}
		return s.follow(t, "GET "+path, append(headers, nobody)...)
	}
	changed := func() (id, data string) {
		now := s.db.Current()
		return eventID(now), fmt.Sprintf(`{"type":"refetchEvaluation","etag":"\"%s-%d\"","lastModified":%d}`, now.Epoch(), now.Revision(), now.Modified().Unix())
	}
	acme, globex, stranger := follow("acme"), follow("globex"), follow("hooli")
	for _, step := range []struct {
		status     int
		line, body string
		told       []*reader
	}{
		{200, "PATCH /flags/search", `{"pct":60}`, []*reader{acme, globex, stranger}},
		{200, "PATCH /tenants/acme", `{"plan":"starter"}`, []*reader{acme}},
		{200, "PATCH /partners/nordhost", `{"name":"Nord"}`, nil},
		{201, "POST /tenants", `{"slug":"hooli","name":"Hooli","plan":"starter"}`, []*reader{stranger}},
		{200, "PATCH /tenants/globex", `{"name":"Globex Inc"}`, []*reader{globex}},
		{204, "DELETE /flags/search", "", []*reader{acme, globex, stranger}}, // which would come after what is not to be told
	} {
		s.want(t, step.status, step.line, step.body)
		id, data := changed()
		if s.db.Current().Modified().Unix() < time.Now().Add(time.Hour/2).Unix() {
			t.Fatalf("the last change was at %v", s.db.Current().Modified())
		}
		for _, r := range step.told {
			r.want("", id, data)
		}
	}

	// What happened meanwhile is one event, the newest.
	revision := s.db.Current().Revision()
	for range 3 {
		s.publish(flags.Event{Flags: []string{"calendar"}})
	}
	id, data := changed()
	for name, last := range map[string]string{"behind": s.id(revision), "too old": s.id(-2000), "of another epoch": "x-1", "to come": s.id(revision + 9)} {
		t.Log(name)
		follow("acme", "Last-Event-ID: "+last).want("", id, data)
	}
	// A client that has evaluated just before a change, and follows just after it, is told.
	follow("acme").want("", id, data)
	s.moveClock(lately)
	quiet, again := follow("acme"), follow("acme", "Last-Event-ID: "+id)
	s.publish(flags.Event{Tenants: []string{"globex"}})
	other := follow("acme", "Last-Event-ID: "+id) // behind, by what is not its own
	s.publish(flags.Event{Flags: []string{"calendar"}})
	id, data = changed()
	for _, r := range []*reader{quiet, again, other} {
		r.want("", id, data)
	}
	s.publish(flags.Event{Tenants: []string{"umbrella", "globex", "acme"}}) // in the order of an import
	id, data = changed()
	quiet.want("", id, data)
}

// Who may open the OFREP stream, and what is kept of the credential.
func TestOFREPStreamCredential(t *testing.T) {
	t.Parallel()
	s := startPinging(t)
	ci := s.token(t, db.NewToken{Name: "ci", Role: "evaluate"})
	good := streamCredential(&auth.Principal{Role: auth.Evaluate, TokenID: ci.ID}, "acme")
	revoked := s.token(t, db.NewToken{Name: "revoked", Role: "evaluate"})
	if _, err := s.db.RevokeToken(t.Context(), db.By{Actor: "ops@dezky.example"}, revoked.ID); err != nil {
		t.Fatal(err)
	}
	other, err := auth.NewStreamKeys([][]byte{[]byte("another key, of thirty-two bytes")})
	if err != nil {
		t.Fatal(err)
	}
	const path = "/ofrep/v1/stream?credential="
	used := []string{good}
	for name, credential := range map[string]string{
		"rubbish": "nothing", "changed": good[:20] + string(good[20]^1) + good[21:], "of a revoked token": streamCredential(&auth.Principal{TokenID: revoked.ID}, "acme"),
		"of an unknown token": streamCredential(&auth.Principal{TokenID: "000000000000"}, "acme"), "a bearer token": s.tokens["operator"],
		"of another key": other.Issue(&auth.Principal{}, "acme", time.Now()), "expired": streamKeys.Issue(&auth.Principal{}, "acme", time.Now().Add(-2*time.Hour)),
	} {
		a := s.want(t, 401, "GET "+path+credential, "", s.as("operator")) // which does not count here
		if got := a.header.Get("WWW-Authenticate"); got != invalidToken {
			t.Errorf("%s: WWW-Authenticate %q, want %q", name, got, invalidToken)
		}
		if s.logged(t, a)["cause"] == nil {
			t.Errorf("%s: the log does not have the cause", name)
		}
		used = append(used, credential)
	}
	if got := s.want(t, 401, "GET /ofrep/v1/stream", "", s.as("operator")).header.Get("WWW-Authenticate"); got != "Bearer" {
		t.Errorf("without a credential: WWW-Authenticate %q, want Bearer", got)
	}
	s.want(t, 401, "GET /events?credential="+good, "", nobody)
	s.want(t, 401, "GET /events", "", bearer(good))
	s.want(t, 401, "POST /flags/evaluate", `{"tenantSlug":"acme"}`, "X-API-Key: "+good)
	s.want(t, 404, "GET /api"+path+good, "", nobody)

	r := s.follow(t, "GET "+path+good, nobody)
	s.want(t, 200, "GET "+path+good, "", bearer("nonsense"), "Cookie: x=y")
	s.want(t, 200, "HEAD "+path+good, "", nobody)
	s.eventually(t, "GET /metrics", s.as("read"), `platform_api_requests_total{route="GET /ofrep/v1/stream",status="200"} 3`) // they are counted after their first bytes
	metrics := s.want(t, 200, "GET /metrics", "").body
	for _, credential := range used {
		if log := s.log.String(); strings.Contains(log, credential) || strings.Contains(metrics, credential) {
			t.Errorf("the log or the metrics have the credential %s", credential)
		}
	}
	if _, err := s.db.RevokeToken(t.Context(), db.By{Actor: "ops@dezky.example"}, ci.ID); err != nil {
		t.Fatal(err)
	}
	s.app.Load().tokens.Forget(ci.ID)
	r.wantEnd()
	s.want(t, 401, "GET "+path+good, "", nobody)
}

// A stream ends with its credential: before anything more is told, and at the next ping.
func TestStreamsEndWithTheirCredentials(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name string
		open func(s *running, t *testing.T) *reader
		end  func(s *running, t *testing.T)
	}{
		{"revoked", func(s *running, t *testing.T) *reader { return s.follow(t, "GET /events", s.as("ci")) }, revokeCI},
		{"expired", func(s *running, t *testing.T) *reader { return s.follow(t, "GET /events", s.as("ci")) }, expireCI},
		{"revoked, of OFREP", followOFREP, revokeCI},
		{"expired, of OFREP", followOFREP, expireCI},
		{"too old, of OFREP", func(s *running, t *testing.T) *reader {
			return s.follow(t, "GET /ofrep/v1/stream?credential="+streamCredential(&auth.Principal{}, "acme"), nobody)
		}, func(s *running, t *testing.T) { s.moveClock(2 * time.Hour) }},
		{"revoked, over HTTP/2", func(s *running, t *testing.T) *reader {
			address, client := s.protocol2(t)
			r := s.request(t, "GET /events", "", s.as("ci"))
			r.URL.Host = strings.TrimPrefix(address, "http://")
			return followWith(t, client, r)
		}, revokeCI},
		{"a session that has ended", func(s *running, t *testing.T) *reader {
			return s.follow(t, "GET /api/events", nobody, s.cookie(t, auth.Read))
		}, func(s *running, t *testing.T) { s.moveClock(auth.SessionIdle) }},
	} {
		for how, begin := range map[string]func(testing.TB) *running{"before a change is told": start, "at a ping": startPinging} {
			t.Run(tt.name+", "+how, func(t *testing.T) {
				t.Parallel()
				s := begin(t)
				s.token(t, db.NewToken{Name: "ci", Role: "evaluate", Expires: time.Hour})
				r := tt.open(s, t)
				s.want(t, 201, "POST /flags", `{"key":"search"}`)
				if _, ok := r.next(); !ok {
					t.Fatal("the stream ends while its credential is good")
				}
				tt.end(s, t)
				if how != "at a ping" {
					s.publish(flags.Event{Flags: []string{"search"}})
				}
				r.wantEnd()
			})
		}
	}
}

// ciID is the id of the token ci.
func (s *running) ciID(t testing.TB) string {
	t.Helper()
	row, err := s.db.TokenByHash(t.Context(), db.HashToken(s.tokens["ci"]))
	if err != nil {
		t.Fatal(err)
	}
	return row.ID
}

func followOFREP(s *running, t *testing.T) *reader {
	t.Helper()
	return s.follow(t, "GET /ofrep/v1/stream?credential="+streamCredential(&auth.Principal{TokenID: s.ciID(t)}, "acme"), nobody)
}

func revokeCI(s *running, t *testing.T) {
	t.Helper()
	id := s.ciID(t)
	if _, err := s.db.RevokeToken(t.Context(), db.By{Actor: "ops@dezky.example"}, id); err != nil {
		t.Fatal(err)
	}
	s.app.Load().tokens.Forget(id)
}

func expireCI(s *running, _ *testing.T) { s.moveClock(time.Hour) }

// dial opens a stream on a connection of its own, whose reader is left to the test.
func (s *running) dial(t testing.TB, buffer int) (net.Conn, *reader) {
	t.Helper()
	dialer := net.Dialer{Control: func(_, _ string, c syscall.RawConn) error {
		var err error
		return errors.Join(c.Control(func(fd uintptr) { err = syscall.SetsockoptInt(int(fd), syscall.SOL_SOCKET, syscall.SO_RCVBUF, buffer) }), err)
	}}
	conn, err := dialer.DialContext(t.Context(), "tcp", strings.TrimPrefix(s.url, "http://"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	if err := conn.SetDeadline(time.Now().Add(time.Minute)); err != nil {
		t.Fatal(err)
	}
	fmt.Fprintf(conn, "GET /events HTTP/1.1\r\nHost: x\r\n%s\r\n\r\n", s.as("evaluate"))
	r := &reader{t, bufio.NewReaderSize(conn, 256)}
	for {
		line, err := r.lines.ReadString('\n')
		if err != nil {
			t.Fatal(err)
		}
		if line == "\r\n" {
			r.begins()
			return conn, r
		}
	}
}

// A reader that does not read holds nobody up. When it reads again it is told all of it, or, where that was
// too much, that it must ask anew; and it is told what comes after.
func TestSlowReader(t *testing.T) {
	t.Parallel()
	long := make([]string, 100)
	for i := range long {
		long[i] = fmt.Sprintf("flag_%03d_%s", i, strings.Repeat("x", 50))
	}
	for _, tt := range []struct {
		name    string
		changes int // of about 6 KiB each
		resync  bool
	}{{"a little slow", 200, false}, {"too slow", 1500, true}} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			s := start(t)
			_, slow := s.dial(t, 4096)
			fast := s.follow(t, "GET /events")
			var latest int64
			for range tt.changes {
				latest = s.publish(flags.Event{Flags: long})
				if e, ok := fast.next(); !ok || e.id != s.id(latest) {
					t.Fatalf("a quick reader is told %.100v (ended: %t), want revision %d", e, !ok, latest)
				}
			}
			at, resynced := int64(0), false
			for at < latest {
				e, ok := slow.next()
				if !ok {
					t.Fatalf("the slow reader's stream ended after revision %d", at)
				}
				revision, known := revisionOf(s.db.Current(), e.id)
				if resync := e.name == "resync"; !known || !resync && revision != at+1 || resync && (resynced || revision != latest) {
					t.Fatalf("after revision %d the slow reader is told %.100v", at, e)
				}
				at, resynced = revision, resynced || e.name == "resync"
			}
			if resynced != tt.resync {
				t.Errorf("the slow reader was told to ask anew: %t, want %t", resynced, tt.resync)
			}
			latest = s.publish(flags.Event{Flags: []string{"search"}})
			for _, r := range []*reader{fast, slow} {
				r.want("", s.id(latest), fmt.Sprintf(`{"revision":%d,"action":"","actor":"","flags":["search"],"tenants":[]}`, latest))
			}
		})
	}
}

// What a slow reader's goroutine holds has a bound, however much was missed.
func TestPartsAreBounded(t *testing.T) {
	t.Parallel()
	var live flags.Live
	publish := func(revision int64, names []string) {
		edit := flags.NewSnapshot("e", revision-1, nil, nil, nil, nil).Edit()
		edit.SetRevision(revision, time.Now())
		live.Publish(edit.View(), flags.Event{Revision: revision, Flags: names})
	}
	long := slices.Repeat([]string{strings.Repeat("x", 64)}, 100)
	for i := range long {
		long[i] += fmt.Sprint(i)
	}
	const latest = 500
	for revision := range int64(latest) {
		publish(revision+1, long)
	}
	n, st, parts := newNews(&live), &stream{kind: eventStream}, 0
	for last := false; !last; parts++ {
		var text []byte
		before := st.at
		text, st.at, last = n.next(st)
		if events := strings.Count(string(text), "\ndata: "); len(text) > partMost || len(text) < partMost/2 && !last || int64(events) != st.at-before {
			t.Fatalf("part %d has %d bytes and %d events, from revision %d to %d, want them all in at most %d bytes", parts, len(text), events, before, st.at, partMost)
		}
	}
	if st.at != latest || parts < latest*6900/partMost {
		t.Errorf("%d parts lead to revision %d, want %d", parts, st.at, latest)
	}
}

// A reader that is ahead when its stream opens, and is not when it is told, goes on from where it is.
func TestNothingToTell(t *testing.T) {
	t.Parallel()
	if p := eventsPart(flags.NewSnapshot("e", 7, nil, nil, nil, nil), nil, true, false); len(p.text) > 0 || p.to != 7 || !p.last {
		t.Errorf("at the newest revision, 7, the part is %+v", p)
	}
}

func TestManyStreams(t *testing.T) {
	t.Parallel()
	s := start(t)
	readers := make([]*reader, 2000)
	for i := range readers {
		_, readers[i] = s.dial(t, 4096)
	}
	for range 2 {
		latest := s.publish(flags.Event{Flags: []string{"search"}})
		for _, r := range readers {
			if e, ok := r.next(); !ok || e.id != s.id(latest) {
				t.Fatalf("a stream says %+v (ended: %t), want revision %d", e, !ok, latest)
			}
		}
	}
	if !samplesOf(s.want(t, 200, "GET /metrics", "").body)[`platform_api_streams{kind="events"} 2000`] {
		t.Error("the metrics do not have 2000 streams")
	}
}

// All streams end when they are told to, also one whose reader does not read; and nothing of them is left.
func TestStreamsEndWithTheServer(t *testing.T) {
	t.Parallel()
	s := start(t)
	_, slow := s.dial(t, 4096)
	address, two := s.protocol2(t)
	over2 := s.request(t, "GET /events", "")
	over2.URL.Host = strings.TrimPrefix(address, "http://")
	readers := []*reader{
		s.follow(t, "GET /events"), s.follow(t, "GET /api/events", nobody, s.cookie(t, auth.Read)),
		followWith(t, two, over2), s.follow(t, "GET /ofrep/v1/stream?credential="+streamCredential(&auth.Principal{}, "acme"), nobody),
	}
	names := slices.Repeat([]string{strings.Repeat("x", 64)}, 90)
	for i := range names {
		names[i] += fmt.Sprint(i)
	}
	for range 200 { // so that the slow one's goroutine waits
		s.publish(flags.Event{Flags: names})
	}
	s.EndStreams()
	s.EndStreams() // which is once enough
	for _, r := range append(readers, slow) {
		if _, err := io.Copy(io.Discard, r.lines); err != nil && !errors.Is(err, syscall.ECONNRESET) {
			t.Error(err)
		}
	}
	s.eventually(t, "GET /metrics", s.as("read"), `platform_api_streams{kind="events"} 0`)
	s.eventually(t, "GET /metrics", s.as("read"), `platform_api_streams{kind="ofrep"} 0`)
	if a := s.send(t, "GET /events", ""); a.status != 200 || a.body != string(opening) {
		t.Errorf("after the end a stream is answered with %d %q, want it to open and end", a.status, a.body)
	}
}

// A reader that has gone is found out at the next ping, and is not counted any more.
func TestGoneReaders(t *testing.T) {
	t.Parallel()
	s := startPinging(t)
	conn, r := s.dial(t, 4096)
	_, stays := s.dial(t, 4096)
	for range 2 {
		for line := ""; line != ": ping\n"; { // both are pinged, over and over
			var err error
			if line, err = r.lines.ReadString('\n'); err != nil {
				t.Fatal(err)
			}
		}
	}
	conn.Close()
	s.eventually(t, "GET /metrics", s.as("read"), `platform_api_streams{kind="events"} 1`)
	s.want(t, 201, "POST /flags", `{"key":"search"}`)
	stays.want("", s.id(1), `{"revision":1,"action":"created","actor":"token:operator","flags":["search"],"tenants":[]}`)
}

func TestMostStreams(t *testing.T) {
	t.Parallel()
	s := start(t)
	s.app.Load().hub.most = 1
	s.follow(t, "GET /events")
	a := s.want(t, 503, "GET /events", "")
	if p := decode[problem](t, a); p.Detail != "1 event streams are open, and that is the most" || a.header.Get("Retry-After") != "1" {
		t.Errorf("one too many is answered with %s, Retry-After %q", a.body, a.header.Get("Retry-After"))
	}
	s.want(t, 503, "GET /ofrep/v1/stream?credential="+streamCredential(&auth.Principal{}, "acme"), "", nobody)
	if got := s.app.Load().hub.count(); got != 1 {
		t.Errorf("%d streams are counted, want 1", got)
	}
}

// BenchmarkFanOut is one change to streams over loopback, until the last has it in its buffer.
func BenchmarkFanOut(b *testing.B) {
	for _, n := range []int{100, 1000} {
		b.Run(fmt.Sprintf("%dstreams", n), func(b *testing.B) {
			s := start(b)
			conns := make([]net.Conn, n)
			for i := range conns {
				conns[i], _ = s.dial(b, 64<<10)
			}
			rest := make([]byte, 64<<10)
			b.ReportAllocs()
			b.ResetTimer()
			for range b.N {
				s.publish(flags.Event{Flags: []string{"search"}})
				for _, conn := range conns {
					if _, err := conn.Read(rest); err != nil {
						b.Fatal(err)
					}
				}
			}
			b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/float64(n), "ns/stream")
		})
	}
}
