package main

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"hash/maphash"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/dezky/platform-api/auth/authtest"
	"github.com/dezky/platform-api/flags"
)

// What a load run is. docs/performance.md tells the method.
const (
	loadRounds      = 6 // of each server, taking turns
	loadRound       = 1100 * time.Millisecond
	loadWarmUp      = 400 * time.Millisecond
	loadConnections = 8
	loadTenants     = 10_000
	loadStreams     = 10_000
	loadWithin      = 8 * time.Minute // ends every process, whatever happens
)

// BenchmarkLoad asks the real server, in a process of its own, beside a bare net/http server in another, and
// prints a table. A figure beyond its limit is marked there and fails nothing; a wrong answer fails.
func BenchmarkLoad(b *testing.B) {
	if _, err := cpuTime(os.Getpid()); err != nil {
		fmt.Printf("The load run is skipped: it reads the servers' CPU time from /proc, which is not here (%v).\n", err)
		b.SkipNow()
	}
	l := newLoad(b)
	for _, n := range []int{100, 1000} {
		b.Run(fmt.Sprintf("evaluate/%d", n), func(b *testing.B) {
			s := l.serve(b, n)
			l.compare(b, 1.25, s.side(evaluations(s.evaluate)))
		})
	}
	b.Run("evaluate-304/100", func(b *testing.B) {
		s := l.serve(b, 100)
		requests := evaluations(s.evaluate)
		for i, etag := range l.learn(b, s.side(requests)).etags {
			requests[i] = rawPost("/flags/evaluate", s.evaluate, evaluation(i), "If-None-Match: "+etag)
		}
		l.compare(b, 1.25, s.side(requests))
	})
	b.Run("evaluate-jwt/100", func(b *testing.B) { l.withJWT(b) })
	b.Run("ofrep-bulk/100", func(b *testing.B) {
		s := l.serve(b, 100)
		bulk := s.side(bulks(s.evaluate))
		bulk.varies = true
		l.compare(b, 1.3, bulk)
	})
	b.Run("ofrep-single/100", func(b *testing.B) {
		s := l.serve(b, 100)
		requests := make([][]byte, loadTenants)
		for i := range requests {
			requests[i] = rawPost("/ofrep/v1/evaluate/flags/"+loadKey(0), s.evaluate, ofrepContext(i))
		}
		l.compare(b, 1.3, s.side(requests))
	})
	b.Run("evaluate-changing/100", func(b *testing.B) { l.whileChanging(b) })
	b.Run(fmt.Sprintf("streams/%d", loadStreams), func(b *testing.B) { l.withStreams(b) })
	b.Run("memory/100", func(b *testing.B) { l.memory(b) })
	l.table.print(os.Stdout)
}

// load is what the scenarios share: the program as it is shipped, filled data directories, an identity
// provider, and the table.
type load struct {
	ctx      context.Context
	program  string
	dir      string
	filled   map[int]filled // by number of flags
	provider *authtest.Provider
	table    table
}

// filled is a data directory with its tokens.
type filled struct{ dir, evaluate, operator string }

func newLoad(b *testing.B) *load {
	l := &load{dir: b.TempDir(), filled: map[int]filled{}, provider: authtest.New(b, authtest.Options{AccessTokenLife: time.Hour})}
	l.program = filepath.Join(l.dir, "platform-api")
	var cancel context.CancelFunc
	l.ctx, cancel = context.WithTimeout(context.Background(), loadWithin)
	b.Cleanup(cancel)
	build := exec.CommandContext(l.ctx, "go", "build", "-trimpath", "-buildvcs=false", "-ldflags", "-s -w", "-o", l.program, ".")
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		b.Fatalf("go build: %v\n%s", err, out)
	}
	return l
}

// do runs a command of the program to its end.
func (l *load) do(b *testing.B, args ...string) string {
	b.Helper()
	cmd := exec.CommandContext(l.ctx, l.program, args...)
	cmd.Stderr = os.Stderr
	out, err := cmd.Output()
	if err != nil {
		b.Fatalf("platform-api %s: %v", strings.Join(args, " "), err)
	}
	return strings.TrimSpace(string(out))
}

// fill imports that many flags and the tenants, once.
func (l *load) fill(b *testing.B, n int) filled {
	b.Helper()
	if f, done := l.filled[n]; done {
		return f
	}
	f := filled{dir: filepath.Join(l.dir, fmt.Sprintf("data-%d", n))}
	content, err := json.Marshal(loadDocument(n))
	if err != nil {
		b.Fatal(err)
	}
	document := filepath.Join(l.dir, fmt.Sprintf("document-%d.json", n))
	if err := os.WriteFile(document, content, 0o600); err != nil {
		b.Fatal(err)
	}
	l.do(b, "import", "-data-dir", f.dir, document)
	f.evaluate = l.do(b, "token", "create", "-name", "load", "-role", "evaluate", "-data-dir", f.dir)
	f.operator = l.do(b, "token", "create", "-name", "changes", "-role", "operator", "-data-dir", f.dir)
	l.filled[n] = f
	return f
}

func loadKey(i int) string {
	areas := []string{"mail", "billing", "calendar_sync", "search", "identity"}
	return fmt.Sprintf("%s_feature_%04d", areas[i%len(areas)], i)
}

func loadSlug(i int) string { return fmt.Sprintf("tenant-%06d", i) }

// loadDocument has n flags, a third of them rollouts and the rest in mixed states, and the tenants over all
// plans, half of them with a partner.
func loadDocument(n int) map[string]any {
	type object = map[string]any
	partners := make([]object, 10)
	for i := range partners {
		partners[i] = object{"slug": fmt.Sprintf("partner-%d", i), "name": fmt.Sprintf("Partner %d", i)}
	}
	tenants := make([]object, loadTenants)
	for i := range tenants {
		tenants[i] = object{"id": fmt.Sprintf("%024x", i*2654435761), "slug": loadSlug(i), "name": fmt.Sprintf("Tenant %d", i), "plan": flags.Plans[i%3]}
		if i%2 == 0 {
			tenants[i]["partnerSlug"] = partners[i/2%10]["slug"]
		}
	}
	all := make([]object, n)
	for i := range all {
		f := object{"key": loadKey(i), "state": "off",
			"description": fmt.Sprintf("Part %d of the new workspace: on for pilots first, then by plan. Ask the team before you raise it.", i)}
		switch i % 6 {
		case 0:
			f["state"], f["pct"] = "rollout", 1+i%99
		case 1:
			f["state"] = "on"
		case 2:
			f["state"], f["scope"] = "targeted", object{"plans": []string{"business", "enterprise"}, "environments": []string{"production"}}
		case 3:
			f["state"], f["pct"], f["scope"] = "rollout", 50, object{"plans": []string{"business", "starter"}, "environments": []string{"production", "staging"}}
		case 4:
			f["state"], f["scope"] = "targeted", object{"tenantSlugs": []string{loadSlug(1), loadSlug(42), loadSlug(77 + i)}}
		}
		all[i] = f
	}
	return object{"partners": partners, "tenants": tenants, "flags": all}
}

func evaluation(tenant int) string {
	return `{"tenantSlug":"` + loadSlug(tenant) + `","environment":"production"}`
}

func ofrepContext(tenant int) string {
	return `{"context":{"targetingKey":"` + loadSlug(tenant) + `","environment":"production"}}`
}

// evaluations are one request for each tenant.
func evaluations(token string) [][]byte {
	out := make([][]byte, loadTenants)
	for i := range out {
		out[i] = rawPost("/flags/evaluate", token, evaluation(i))
	}
	return out
}

func bulks(token string) [][]byte {
	out := make([][]byte, loadTenants)
	for i := range out {
		out[i] = rawPost("/ofrep/v1/evaluate/flags", token, ofrepContext(i))
	}
	return out
}

// rawPost is a request as it goes over the wire.
func rawPost(path, token, body string, headers ...string) []byte {
	lines := append([]string{"POST " + path + " HTTP/1.1", "Host: 127.0.0.1", "User-Agent: load", "Authorization: Bearer " + token,
		"Content-Type: application/json", "Content-Length: " + strconv.Itoa(len(body))}, headers...)
	return []byte(strings.Join(lines, "\r\n") + "\r\n\r\n" + body)
}

// asBare makes this test binary a bare net/http server: "304", or the number of bytes that it answers.
const asBare = "PLATFORM_API_TEST_AS_BARE"

// serveBare reads each request and answers it, until its stdin ends.
func serveBare(what string) {
	n, err := strconv.Atoi(what)
	if err != nil {
		panic(err)
	}
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		panic(err)
	}
	body, length := bytes.Repeat([]byte("x"), n), what
	server := http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		io.Copy(io.Discard, r.Body)
		if n == http.StatusNotModified {
			w.Header().Set("ETag", `"bare"`)
			w.WriteHeader(http.StatusNotModified)
			return
		}
		w.Header().Set("Content-Type", "application/json")
		w.Header().Set("Content-Length", length)
		w.Write(body)
	})}
	go server.Serve(listener)
	fmt.Printf("Listening on http://%s\n", listener.Addr())
	io.Copy(io.Discard, os.Stdin)
}

// loaded is a server's process that ends with the benchmark.
type loaded struct {
	filled
	name string
	pid  int
	addr string
	log  string // file of its stderr
}

// serve starts platform-api, as shipped, on that many flags.
func (l *load) serve(b *testing.B, n int) *loaded {
	b.Helper()
	f := l.fill(b, n)
	cmd := exec.CommandContext(l.ctx, l.program, "serve", "-addr", "127.0.0.1:0", "-data-dir", f.dir)
	cmd.Env = append(os.Environ(), "PLATFORM_API_OIDC_ISSUER="+l.provider.Issuer(), "PLATFORM_API_OIDC_CLIENT_ID="+authtest.ConsoleID,
		"PLATFORM_API_OIDC_CLIENT_SECRET="+authtest.Secret(authtest.ConsoleID), "PLATFORM_API_URL=http://localhost:3001",
		"PLATFORM_API_JWT_AUDIENCES=service="+l.provider.Issuer()+"#"+authtest.ServiceID)
	s := l.begin(b, "platform-api", cmd)
	s.filled = f
	for deadline := time.Now().Add(30 * time.Second); ; {
		response, err := http.Get("http://" + s.addr + "/ready")
		if err != nil {
			b.Fatal(err)
		}
		response.Body.Close()
		if response.StatusCode == http.StatusOK {
			return s
		}
		if time.Now().After(deadline) {
			b.Fatalf("platform-api is not ready after 30 s: %d", response.StatusCode)
		}
	}
}

// bare starts the server to compare with.
func (l *load) bare(b *testing.B, what int) *loaded {
	b.Helper()
	cmd := exec.CommandContext(l.ctx, os.Args[0])
	cmd.Env = append(os.Environ(), asBare+"="+strconv.Itoa(what))
	if _, err := cmd.StdinPipe(); err != nil { // ends with this process
		b.Fatal(err)
	}
	return l.begin(b, "bare", cmd)
}

func (l *load) begin(b *testing.B, name string, cmd *exec.Cmd) *loaded {
	b.Helper()
	log, err := os.OpenFile(filepath.Join(b.TempDir(), "log"), os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o600)
	if err != nil {
		b.Fatal(err)
	}
	defer log.Close()
	cmd.Stderr = log
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		b.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() {
		cmd.Process.Kill()
		cmd.Wait()
	})
	line, err := bufio.NewReader(stdout).ReadString('\n')
	m := listening.FindStringSubmatch(line)
	if err != nil || m == nil {
		text, _ := os.ReadFile(log.Name())
		b.Fatalf("%s did not listen: %q, %v\n%s", name, line, err, text)
	}
	return &loaded{name: name, pid: cmd.Process.Pid, addr: strings.TrimPrefix(m[1], "http://"), log: log.Name()}
}

// cpuTime is how long all threads of a process have run, to the nanosecond.
func cpuTime(pid int) (time.Duration, error) {
	threads, err := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/schedstat", pid))
	if err == nil && len(threads) == 0 {
		err = fmt.Errorf("process %d has no schedstat", pid)
	}
	var sum time.Duration
	for _, name := range threads {
		text, err := os.ReadFile(name)
		if errors.Is(err, os.ErrNotExist) { // the thread has ended
			continue
		}
		var ran int64
		if _, err := fmt.Sscan(string(text), &ran); err != nil {
			return 0, err
		}
		sum += time.Duration(ran)
	}
	return sum, err
}

// resident is the memory of a process in MB.
func resident(pid int) (float64, error) {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		return 0, err
	}
	_, rest, _ := strings.Cut(string(text), "\nVmRSS:")
	var kB float64
	_, err = fmt.Sscan(rest, &kB)
	return kB / 1000, err
}

// wire is a keep-alive connection that costs the machine as little as it can: it knows of an answer only
// what it needs.
type wire struct {
	net.Conn
	in    *bufio.Reader
	etag  []byte
	asked int // how many requests
}

func dial(addr string, buffer int) (*wire, error) {
	c, err := net.Dial("tcp", addr)
	if err != nil {
		return nil, err
	}
	return &wire{Conn: c, in: bufio.NewReaderSize(c, buffer)}, nil
}

// ask sends a request and returns the answer's status and body, which is good until the next ask.
func (c *wire) ask(request []byte) (status int, body []byte, err error) {
	if _, err := c.Write(request); err != nil {
		return 0, nil, err
	}
	status, length, err := c.head()
	if err != nil || status == http.StatusNotModified {
		return status, nil, err
	}
	if length < 0 {
		return status, nil, errors.New("an answer without Content-Length")
	}
	if body, err = c.in.Peek(length); err != nil {
		return status, nil, err
	}
	_, err = c.in.Discard(length)
	return status, body, err
}

// head reads up to the body, whose length is -1 where it is not told.
func (c *wire) head() (status, length int, err error) {
	length = -1
	for {
		line, err := c.in.ReadSlice('\n')
		if err != nil {
			return 0, 0, err
		}
		if line = bytes.TrimSpace(line); len(line) == 0 {
			return status, length, nil
		}
		name, value, _ := bytes.Cut(line, []byte(": "))
		switch {
		case status == 0:
			if status, err = strconv.Atoi(string(line[9:12])); err != nil {
				return 0, 0, err
			}
		case bytes.EqualFold(name, []byte("Content-Length")):
			if length, err = strconv.Atoi(string(value)); err != nil {
				return 0, 0, err
			}
		case bytes.EqualFold(name, []byte("ETag")):
			c.etag = append(c.etag[:0], value...)
		}
	}
}

// side is one of the servers that are compared, with what it is asked and what came of it.
type side struct {
	server   *loaded
	requests [][]byte
	status   int      // that every answer has
	varies   bool     // an answer is not always the same: flags change, or it carries a credential of its own
	sums     []uint64 // of each answer's body, where it does not vary
	during   func(ctx context.Context) error
	wires    []*wire

	cpu, rate []float64 // µs a request and requests a second, a round each
	took      []time.Duration
	rss       float64 // the most after a round, in MB
}

var loadSeed = maphash.MakeSeed()

func (s *loaded) side(requests [][]byte) *side {
	return &side{server: s, requests: requests}
}

// connect opens the connections when they are first used: the server soon closes one that asks nothing.
func (s *side) connect(b *testing.B) {
	b.Helper()
	for len(s.wires) < loadConnections {
		c, err := dial(s.server.addr, 256<<10)
		if err != nil {
			b.Fatal(err)
		}
		b.Cleanup(func() { c.Close() })
		s.wires = append(s.wires, c)
	}
}

// learned is what a server answers to each request of a side.
type learned struct {
	etags []string
	bytes int // of a body, on average
}

// learn asks everything once, and holds the later answers to these. It skips a route that is not there.
func (l *load) learn(b *testing.B, s *side) learned {
	b.Helper()
	s.connect(b)
	out := learned{etags: make([]string, len(s.requests))}
	s.sums = make([]uint64, len(s.requests))
	for i, request := range s.requests {
		c := s.wires[i%len(s.wires)]
		status, body, err := c.ask(request)
		if err != nil {
			b.Fatal(err)
		}
		if i == 0 {
			s.status = status
		}
		switch {
		case status != s.status || status != http.StatusOK && status != http.StatusNotModified:
			b.Fatalf("%s\n= %d %s", request, status, body)
		case status == http.StatusOK && !json.Valid(body):
			b.Fatalf("%s\n= %s, which is no JSON", request, body)
		}
		out.etags[i], s.sums[i] = string(c.etag), maphash.Bytes(loadSeed, body)
		out.bytes += len(body)
	}
	out.bytes /= len(s.requests)
	if s.varies {
		s.sums = nil
	}
	return out
}

// round has every connection ask without a pause, each its own share of the requests.
func (s *side) round(b *testing.B, length time.Duration, counts bool) {
	b.Helper()
	s.connect(b)
	ctx, cancel := context.WithTimeout(b.Context(), length)
	defer cancel()
	errs := make(chan error, len(s.wires)+1)
	var all sync.WaitGroup
	took := make([][]time.Duration, len(s.wires))
	before, err := cpuTime(s.server.pid)
	if err != nil {
		b.Fatal(err)
	}
	begun := time.Now()
	if s.during != nil {
		all.Go(func() { errs <- s.during(ctx) })
	}
	for w, c := range s.wires {
		all.Go(func() {
			var err error
			took[w], err = s.drive(c, w, begun.Add(length))
			errs <- err
		})
	}
	all.Wait()
	elapsed := time.Since(begun)
	after, err := cpuTime(s.server.pid)
	if err != nil {
		b.Fatal(err)
	}
	close(errs)
	for err := range errs {
		if err != nil {
			b.Fatalf("%s: %v", s.server.name, err)
		}
	}
	if err := os.Truncate(s.server.log, 0); err != nil { // a line a request would fill the disk
		b.Fatal(err)
	}
	rss, err := resident(s.server.pid)
	if err != nil {
		b.Fatal(err)
	}
	s.rss = max(s.rss, rss)
	if !counts {
		return
	}
	n := 0
	for _, t := range took {
		s.took = append(s.took, t...)
		n += len(t)
	}
	s.cpu = append(s.cpu, float64((after-before).Nanoseconds())/1000/float64(n))
	s.rate = append(s.rate, float64(n)/elapsed.Seconds())
}

// drive asks on one connection, the w-th, until the round ends, and returns how long each answer took.
func (s *side) drive(c *wire, w int, until time.Time) ([]time.Duration, error) {
	var took []time.Duration
	for now := time.Now(); now.Before(until); {
		i := (w + c.asked*len(s.wires)) % len(s.requests)
		c.asked++
		status, body, err := c.ask(s.requests[i])
		if err != nil {
			return nil, err
		}
		if status != s.status || s.sums != nil && maphash.Bytes(loadSeed, body) != s.sums[i] {
			return nil, fmt.Errorf("%s\n= %d %s, want %d and the same as before", s.requests[i], status, body, s.status)
		}
		then := now
		now = time.Now()
		took = append(took, now.Sub(then))
	}
	return took, nil
}

// measure lets the sides take turns, in an order that turns round too, after one round that does not count.
func measure(b *testing.B, sides ...*side) {
	b.Helper()
	for _, s := range sides {
		s.round(b, loadWarmUp, false)
	}
	for range loadRounds {
		for _, s := range sides {
			s.round(b, loadRound, true)
		}
		slices.Reverse(sides)
	}
}

// beside starts the bare server that answers as much as s did.
func (l *load) beside(b *testing.B, s *side, answers learned) *side {
	b.Helper()
	what := answers.bytes
	if s.status == http.StatusNotModified {
		what = http.StatusNotModified
	}
	bare := l.bare(b, what).side(s.requests)
	bare.status = s.status
	return bare
}

// compare measures s beside a bare server.
func (l *load) compare(b *testing.B, limit float64, s *side) {
	b.Helper()
	bare := l.beside(b, s, l.learn(b, s))
	measure(b, bare, s)
	l.table.add(b, row{bare: bare, s: s, limit: limit})
}

// withJWT compares a service's JWT with an API token: it may cost a tenth of a bare answer more.
func (l *load) withJWT(b *testing.B) {
	server := l.serve(b, 100)
	token := server.side(evaluations(server.evaluate))
	bare := l.beside(b, token, l.learn(b, token))
	jwt := server.side(evaluations(l.provider.AccessToken(authtest.ServiceID, authtest.ServiceSub(authtest.ServiceID))))
	l.learn(b, jwt)
	measure(b, bare, token, jwt)
	l.table.add(b, row{bare: bare, s: jwt, limit: times(token, bare) + 0.1})
}

// whileChanging evaluates while a flag changes ten times a second, beside a quiet run on the same server.
func (l *load) whileChanging(b *testing.B) {
	server := l.serve(b, 100)
	quiet := server.side(evaluations(server.evaluate))
	quiet.varies = true
	bare := l.beside(b, quiet, l.learn(b, quiet))
	changing := server.side(quiet.requests)
	changing.status = quiet.status
	changes := 0
	changing.during = func(ctx context.Context) error {
		for tick := time.NewTicker(100 * time.Millisecond); ; {
			select {
			case <-tick.C:
				changes++
				if _, err := server.change(changes); err != nil {
					return err
				}
			case <-ctx.Done():
				tick.Stop()
				return nil
			}
		}
	}
	measure(b, bare, quiet, changing)
	l.table.add(b, row{bare: bare, s: changing, limit: 2, quiet: quiet,
		remarks: []string{fmt.Sprintf("%d changes", changes)}})
}

// change gives a rollout another percentage, and returns the revision that this made.
func (s *loaded) change(i int) (revision int64, err error) {
	status, body, err := request("http://"+s.addr, s.operator, "PATCH", "/flags/"+loadKey(0), fmt.Sprintf(`{"pct":%d}`, 2+i%97))
	if err != nil {
		return 0, err
	}
	var flag struct{ History []struct{ Revision int64 } }
	if err := json.Unmarshal([]byte(body), &flag); err != nil || status != http.StatusOK || len(flag.History) == 0 {
		return 0, fmt.Errorf("PATCH = %d %s", status, body)
	}
	return flag.History[0].Revision, nil
}

// memory asks for every tenant's flags in each of the ways that the server has.
func (l *load) memory(b *testing.B) {
	server := l.serve(b, 100)
	s := server.side(append(evaluations(server.evaluate), bulks(server.evaluate)...))
	s.varies = true
	l.learn(b, s)
	measure(b, s)
	l.table.add(b, row{s: s, rssLimit: 120})
}

// spread is how far a change has come among the streams.
type spread struct {
	mu      sync.Mutex
	streams int
	seen    map[int64]int // streams that have a revision, by revision
	all     chan reached
	lost    error // why the first stream that ended did
}

// reached is the moment at which every stream had a revision.
type reached struct {
	revision int64
	at       time.Time
}

// follow reads one stream, which has what was there at the revision from, until it ends.
func (s *spread) follow(c *wire, from int64) {
	for {
		line, err := c.in.ReadSlice('\n')
		id, is := bytes.CutPrefix(line, []byte("id: "))
		if errors.Is(err, bufio.ErrBufferFull) || err == nil && !is {
			continue
		}
		var revision int64
		if err == nil {
			revision, err = strconv.ParseInt(string(bytes.TrimSpace(id[bytes.LastIndexByte(id, '-')+1:])), 10, 64)
		}
		s.mu.Lock()
		if s.lost == nil {
			s.lost = err
		}
		for ; from < revision; from++ { // one that came later stands for those that it overtook
			if s.seen[from+1]++; s.seen[from+1] == s.streams {
				s.all <- reached{from + 1, time.Now()}
			}
		}
		s.mu.Unlock()
		if err != nil {
			return
		}
	}
}

// alive tells why a stream has ended, if one has.
func (s *spread) alive() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.lost
}

// withStreams evaluates while streams are open and a change goes to all of them in each round.
func (l *load) withStreams(b *testing.B) {
	server := l.serve(b, 100)
	quiet := server.side(evaluations(server.evaluate))
	quiet.varies = true
	l.learn(b, quiet)
	n := loadStreams
	var limit syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_NOFILE, &limit); err != nil {
		b.Fatal(err)
	}
	if most := int(min(limit.Cur, 1<<30)) - 200; most < n {
		b.Logf("only %d streams: a process may open %d files (ulimit -n)", most, limit.Cur)
		n = most
	}
	from, err := server.change(0)
	if err != nil {
		b.Fatal(err)
	}
	wires := []*wire{server.stream(b)}
	l.opened(b, wires[0])
	measure(b, quiet) // one open stream is as good as none
	for range n - 1 { // all at once, as after a restart
		wires = append(wires, server.stream(b))
	}
	s := &spread{streams: n, seen: map[int64]int{}, all: make(chan reached, 1000)}
	for i, c := range wires {
		if i > 0 {
			l.opened(b, c)
		}
		go s.follow(c, from)
	}

	busy := server.side(quiet.requests)
	busy.status = quiet.status
	var longest time.Duration
	changes := 0
	busy.during = func(context.Context) error {
		changes++
		begun := time.Now()
		revision, err := server.change(changes)
		if err != nil {
			return err
		}
		timeout := time.After(30 * time.Second)
		for {
			select {
			case r := <-s.all:
				if r.revision == revision {
					longest = max(longest, r.at.Sub(begun))
					return nil
				}
			case <-timeout:
				return fmt.Errorf("after 30 s a change has not reached all %d streams (an ended one: %v)", n, s.alive())
			}
		}
	}
	measure(b, busy)
	if err := s.alive(); err != nil {
		b.Fatalf("a stream ended: %v", err)
	}
	b.ReportMetric(longest.Seconds()*1000, "spread-ms")
	r := row{s: busy, quiet: quiet, rssLimit: 250, remarks: []string{
		fmt.Sprintf("a change reaches all %d in %d ms at most", n, longest.Milliseconds())}}
	if longest > time.Second {
		r.remarks = append(r.remarks, "over the limit of 1 s")
	}
	l.table.add(b, r)
}

// stream asks for the events.
func (s *loaded) stream(b *testing.B) *wire {
	b.Helper()
	c, err := dial(s.addr, 512)
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { c.Close() })
	if _, err := io.WriteString(c, "GET /events HTTP/1.1\r\nHost: 127.0.0.1\r\nAuthorization: Bearer "+s.evaluate+"\r\n\r\n"); err != nil {
		b.Fatal(err)
	}
	return c
}

// opened reads a stream as far as its first event.
func (l *load) opened(b *testing.B, c *wire) {
	b.Helper()
	c.SetReadDeadline(time.Now().Add(30 * time.Second))
	status, _, err := c.head()
	switch {
	case err != nil:
		b.Fatalf("GET /events: %v", err)
	case status != http.StatusOK:
		b.Fatalf("GET /events = %d", status)
	}
	c.SetReadDeadline(time.Time{})
}

// table is what the run prints at its end, ready for docs/performance.md.
type table struct{ rows [][]string }

// row is one scenario: s, beside the bare server and a quiet run where there are such.
type row struct {
	s, bare, quiet  *side
	limit, rssLimit float64 // of times(s, bare), and in MB; 0 for none
	remarks         []string
}

func scenario(b *testing.B) string { return strings.TrimPrefix(b.Name(), "BenchmarkLoad/") }

func median(xs []float64) float64 {
	xs = slices.Sorted(slices.Values(xs))
	return xs[len(xs)/2]
}

// times is the CPU per request of one side in that of another, the median of what each pair of rounds gave.
func times(s, bare *side) float64 {
	ratios := make([]float64, len(s.cpu))
	for i := range ratios {
		ratios[i] = s.cpu[i] / bare.cpu[i]
	}
	return median(ratios)
}

// percentile is in ms.
func (s *side) percentile(p int) float64 {
	slices.Sort(s.took)
	return s.took[(len(s.took)-1)*p/100].Seconds() * 1000
}

func (t *table) add(b *testing.B, r row) {
	b.Helper()
	cells := []string{scenario(b), "", fmt.Sprintf("%.1f", median(r.s.cpu)), "", "",
		fmt.Sprintf("%.2f", r.s.percentile(50)), fmt.Sprintf("%.2f", r.s.percentile(99)), "",
		fmt.Sprintf("%.0f", median(r.s.rate)), fmt.Sprintf("%.0f", r.s.rss), ""}
	b.ReportMetric(0, "ns/op") // says nothing here
	b.ReportMetric(median(r.s.cpu), "µs-cpu/req")
	b.ReportMetric(r.s.percentile(50), "p50-ms")
	b.ReportMetric(r.s.percentile(99), "p99-ms")
	b.ReportMetric(median(r.s.rate), "req/s")
	b.ReportMetric(r.s.rss, "RSS-MB")
	if r.bare != nil {
		ratio := times(r.s, r.bare)
		cells[1], cells[3], cells[4] = fmt.Sprintf("%.1f", median(r.bare.cpu)), fmt.Sprintf("%.2f", ratio), fmt.Sprintf("%.2f", r.limit)
		cells[7] = fmt.Sprintf("%.2f, %.2f", r.bare.percentile(50), r.bare.percentile(99))
		b.ReportMetric(median(r.bare.cpu), "bare-µs-cpu/req")
		b.ReportMetric(r.bare.percentile(50), "bare-p50-ms")
		b.ReportMetric(r.bare.percentile(99), "bare-p99-ms")
		b.ReportMetric(ratio, "ratio")
		if ratio > r.limit {
			r.remarks = append(r.remarks, fmt.Sprintf("CPU over the limit of %.2f", r.limit))
		}
	}
	if r.quiet != nil {
		quiet := r.quiet.percentile(99)
		r.remarks = append(r.remarks, fmt.Sprintf("p99 of the quiet run %.2f", quiet))
		b.ReportMetric(quiet, "quiet-p99-ms")
		if r.s.percentile(99) > 3*quiet {
			r.remarks = append(r.remarks, "p99 over the limit of 3 times that")
		}
	}
	if r.rssLimit > 0 && r.s.rss > r.rssLimit {
		r.remarks = append(r.remarks, fmt.Sprintf("RSS over the limit of %.0f", r.rssLimit))
	}
	cells[len(cells)-1] = strings.Join(r.remarks, "; ")
	t.rows = append(t.rows, cells)
}

// print writes the table as Markdown that is readable as it is.
func (t *table) print(w io.Writer) {
	if len(t.rows) == 0 {
		return
	}
	rows := append([][]string{{"scenario", "bare, µs", "platform-api, µs", "ratio", "limit", "p50, ms", "p99, ms",
		"bare p50, p99", "requests/s", "RSS, MB", "remarks"}, nil}, t.rows...)
	widths := make([]int, len(rows[0]))
	for _, row := range rows {
		for i, cell := range row {
			widths[i] = max(widths[i], utf8.RuneCountInString(cell))
		}
	}
	for _, width := range widths {
		rows[1] = append(rows[1], strings.Repeat("-", width))
	}
	fmt.Fprintln(w)
	for _, row := range rows {
		for i, cell := range row {
			fmt.Fprintf(w, "| %-*s ", widths[i], cell)
		}
		fmt.Fprintln(w, "|")
	}
	fmt.Fprintln(w)
}
