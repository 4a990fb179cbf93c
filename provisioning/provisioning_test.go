package provisioning

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/dezky/platform-api/db"
	"github.com/dezky/platform-api/flags"
	"github.com/dezky/platform-api/provisioning/provisioningtest"
)

// clock is the runner's clock, which a test moves, and its alarm clock.
type clock struct {
	mu    sync.Mutex
	at    time.Time
	waits []alarm
}

type alarm struct {
	until time.Time
	c     chan time.Time
}

func newClock() *clock { return &clock{at: time.Date(2026, 11, 24, 12, 0, 0, 0, time.UTC)} }

func (c *clock) now() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.at
}

func (c *clock) wait(until time.Time) <-chan time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	a := alarm{until, make(chan time.Time, 1)}
	c.waits = append(c.waits, a)
	c.ring()
	return a.c
}

func (c *clock) move(d time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.at = c.at.Add(d)
	c.ring()
}

func (c *clock) ring() {
	var left []alarm
	for _, a := range c.waits {
		if a.until.After(c.at) {
			left = append(left, a)
		} else {
			a.c <- c.at
		}
	}
	c.waits = left
}

// house is a database, a runner and an Authentik.
type house struct {
	t       *testing.T
	dir     string
	clock   *clock
	server  *provisioningtest.Server
	db      *db.DB
	runner  *Runner
	settled chan string // slugs, after each attempt
	log     *bytes.Buffer
	stop    func()
}

var ops = db.By{Actor: "ops@dezky.example"}

func newHouse(t *testing.T) *house {
	h := &house{t: t, dir: t.TempDir(), clock: newClock(), server: provisioningtest.New(t), log: &bytes.Buffer{}}
	h.open()
	t.Cleanup(func() { h.stop() })
	return h
}

// open opens the database for a runner that does not run yet.
func (h *house) open(integrations ...string) {
	h.t.Helper()
	if integrations == nil {
		integrations = []string{Name}
	}
	d, err := db.Open(context.Background(), db.Options{Dir: h.dir, Environments: []string{"production"}, Now: h.clock.now, Integrations: integrations})
	if err != nil {
		h.t.Fatal(err)
	}
	h.db, h.settled = d, make(chan string, 1000)
	h.runner = New(Options{DB: d, Authentik: client(h.server), Log: slog.New(slog.NewTextHandler(&locked{b: h.log}, nil)),
		Now: h.clock.now, Wait: h.clock.wait, Jitter: func() float64 { return 0 }})
	h.runner.settled = func(slug string) { h.settled <- slug }
	h.stop = func() { d.Close() }
}

// locked is a log that several goroutines write.
type locked struct {
	mu sync.Mutex
	b  *bytes.Buffer
}

func (l *locked) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

// run starts the runner, until stop.
func (h *house) run() {
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() { h.runner.Run(ctx); close(done) }()
	d := h.db
	h.stop = func() {
		cancel()
		<-done
		d.Close()
	}
}

func (h *house) restart() {
	h.t.Helper()
	h.stop()
	h.open()
	h.run()
}

// await waits for n attempts.
func (h *house) await(n int) {
	h.t.Helper()
	deadline := time.After(30 * time.Second)
	for range n {
		select {
		case <-h.settled:
		case <-deadline:
			h.t.Fatalf("there was no attempt; the log has\n%s", h.log)
		}
	}
}

func (h *house) create(body string) {
	h.t.Helper()
	p, err := flags.DecodeTenant([]byte(body))
	if err == nil {
		_, err = h.db.CreateTenant(context.Background(), ops, p)
	}
	if err != nil {
		h.t.Fatal(err)
	}
}

func (h *house) remove(slug string) {
	h.t.Helper()
	if err := h.db.DeleteTenant(context.Background(), ops, slug); err != nil {
		h.t.Fatal(err)
	}
}

func (h *house) reconcile(slug string) {
	h.t.Helper()
	if err := h.runner.Reconcile(context.Background(), slug); err != nil {
		h.t.Fatal(err)
	}
}

// want holds what a tenant says of Authentik: a state, and part of an error.
func (h *house) want(slug, state, words string) {
	h.t.Helper()
	var got struct {
		ProvisioningStatus, ProvisioningErrors map[string]string
	}
	text, err := json.Marshal(h.db.Current().Tenant(slug))
	if err == nil {
		err = json.Unmarshal(text, &got)
	}
	why := got.ProvisioningErrors[Name]
	if err != nil || got.ProvisioningStatus[Name] != state || !strings.Contains(why, words) || (why == "") != (words == "") {
		h.t.Errorf("the tenant %s says %s, want %s %q", slug, text, state, words)
	}
}

func (h *house) progress(want db.Progress) {
	h.t.Helper()
	if got, err := h.runner.Progress(context.Background()); err != nil || got != want {
		h.t.Errorf("progress %+v, %v, want %+v", got, err, want)
	}
}

const dezky = `{"id":"t0","slug":"dezky","name":"Dezky","plan":"enterprise"}`

func (h *house) one(slug string) provisioningtest.Group {
	h.t.Helper()
	groups := h.server.Groups("tenant:" + slug)
	if len(groups) != 1 {
		h.t.Fatalf("there are %d groups tenant:%s: %v, want one", len(groups), slug, groups)
	}
	return groups[0]
}

// A tenant's group follows it from its birth to its end, and none of this is a change of the registry.
func TestGroupFollowsTheTenant(t *testing.T) {
	h := newHouse(t)
	h.create(dezky)
	h.want("dezky", "pending", "")
	h.progress(db.Progress{Total: 1, Pending: 1})
	h.run()
	h.await(1)
	h.want("dezky", "ok", "")
	h.progress(db.Progress{Total: 1, OK: 1})
	if got, _ := json.Marshal(h.one("dezky").Attributes); string(got) != `{"dezky_partner":null,"dezky_plan":"enterprise","dezky_tenant_id":"t0","dezky_tenant_name":"Dezky"}` {
		t.Errorf("attributes %s", got)
	}

	plan := "business"
	if _, err := h.db.PatchTenant(t.Context(), ops, "dezky", flags.TenantPatch{Plan: &plan}); err != nil {
		t.Fatal(err)
	}
	h.await(1)
	if got := h.one("dezky").Attributes["dezky_plan"]; got != "business" {
		t.Errorf("the group has the plan %v, want business", got)
	}
	h.want("dezky", "ok", "")
	if got := h.db.Current().Revision(); got != 2 {
		t.Errorf("revision %d, want 2: one for each change by a person", got)
	}

	h.remove("dezky")
	h.await(1)
	if got := h.server.Groups(""); len(got) != 0 {
		t.Errorf("after the removal there are %v, want no group", got)
	}
	h.progress(db.Progress{})
}

func TestReconcile(t *testing.T) {
	h := newHouse(t)
	h.create(dezky)
	for range 2 {
		h.reconcile("dezky")
		h.want("dezky", "ok", "")
		h.one("dezky")
	}
	if got := strings.Join(h.server.Calls(), " "); got != "GET POST GET" {
		t.Errorf("calls %s, want GET POST GET", got)
	}
	if err := h.runner.Reconcile(t.Context(), "nobody"); err == nil {
		t.Error("an unknown tenant is reconciled")
	}
	if n := strings.Count(h.log.String(), "tenant provisioned"); n != 1 {
		t.Errorf("%d lines say that it is provisioned, want one:\n%s", n, h.log)
	}
}

// With Authentik away a tenant says so, and heals by itself: at growing intervals, across a restart.
func TestHealsAcrossARestart(t *testing.T) {
	h := newHouse(t)
	h.create(dezky)
	h.server.Down()
	h.run()
	h.await(1)
	h.want("dezky", "error", "can't be reached")
	h.progress(db.Progress{Total: 1, Errors: 1})
	for _, wait := range []time.Duration{time.Second, 2 * time.Second, 4 * time.Second} {
		h.clock.move(wait - time.Millisecond)
		if slugs, err := h.db.DueJobs(t.Context(), Name, h.clock.now(), 9); err != nil || len(slugs) != 0 {
			t.Fatalf("due before %v: %v, %v", wait, slugs, err)
		}
		h.clock.move(time.Millisecond)
		h.await(1)
	}
	h.restart()
	h.want("dezky", "error", "can't be reached")
	if slugs, err := h.db.DueJobs(t.Context(), Name, h.clock.now(), 9); err != nil || len(slugs) != 0 {
		t.Errorf("a restart forgets how long to wait: due %v, %v", slugs, err)
	}
	h.server.Up()
	h.clock.move(8 * time.Second)
	h.await(1)
	h.want("dezky", "ok", "")
	h.one("dezky")
	if text := h.log.String(); strings.Count(text, "tenant not provisioned") != 1 || strings.Count(text, "tenant provisioned") != 1 || strings.Contains(text, provisioningtest.Token) {
		t.Errorf("the log is not one line for each change of the state, without the token:\n%s", text)
	}
}

// While it waits after a failure, a person may have it tried at once, and so does a further change.
func TestRetriedAtOnce(t *testing.T) {
	h := newHouse(t)
	h.create(dezky)
	h.server.Behave(func(w http.ResponseWriter, _ *http.Request) {
		provisioningtest.Detail(w, 403, "You do not have permission to perform this action.")
	})
	h.reconcile("dezky")
	h.want("dezky", "error", "view_group")
	h.server.Behave(nil)
	h.reconcile("dezky")
	h.want("dezky", "ok", "")
	h.server.Behave(func(w http.ResponseWriter, _ *http.Request) { provisioningtest.Detail(w, 500, "no") })
	h.reconcile("dezky")
	h.want("dezky", "error", "(500")
	h.server.Behave(nil)
	h.run()
	if err := h.runner.RetryAll(t.Context()); err != nil {
		t.Fatal(err)
	}
	h.await(4) // of which three were reconciled above
	h.want("dezky", "ok", "")
	h.progress(db.Progress{Total: 1, OK: 1})
}

func TestBackoff(t *testing.T) {
	for _, tt := range []struct {
		attempts int
		jitter   float64
		want     time.Duration
	}{
		{0, 0, time.Second}, {0, 0.5, 750 * time.Millisecond}, {1, 0, 2 * time.Second}, {9, 0, 512 * time.Second}, {10, 0, 15 * time.Minute},
		{10, 0.999, 7*time.Minute + 30*time.Second + 450*time.Millisecond}, {1 << 40, 0, 15 * time.Minute},
	} {
		r := New(Options{Jitter: func() float64 { return tt.jitter }})
		if got := r.backoff(tt.attempts); got != tt.want {
			t.Errorf("backoff(%d) at %v = %v, want %v", tt.attempts, tt.jitter, got, tt.want)
		}
	}
}

// Where Authentik asks to wait, nobody of the queue asks it before, and a failure waits at least as long.
func TestWaitsAsAsked(t *testing.T) {
	h := newHouse(t)
	h.create(dezky)
	h.server.Behave(func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Retry-After", "60")
		w.WriteHeader(429)
	})
	h.run()
	h.await(1)
	h.want("dezky", "error", "(429)")
	h.server.Behave(nil)
	h.server.Calls()
	h.create(`{"id":"t1","slug":"acme","name":"Acme","plan":"starter"}`)
	h.clock.move(59 * time.Second)
	if next, err := h.runner.dispatch(t.Context(), &sync.WaitGroup{}); err != nil || next.Sub(h.clock.now()) != time.Second {
		t.Errorf("looks again at %v, %v, want in a second", next, err)
	}
	if got := h.server.Calls(); len(got) != 0 {
		t.Errorf("it is asked meanwhile: %v", got)
	}
	h.clock.move(time.Second)
	h.await(2)
	h.want("dezky", "ok", "")
	h.want("acme", "ok", "")
}

// The people of a removed tenant do not enter the slug's next one, in whatever order things happen.
func TestNextTenantInheritsNothing(t *testing.T) {
	next := `{"id":"t9","slug":"acme","name":"Another","plan":"starter"}`
	const first = `{"id":"t1","slug":"acme","name":"Acme","plan":"business"}`
	for name, act := range map[string]func(h *house){
		"removed, then created": func(h *house) {
			h.reconcile("acme")
			h.server.Join("tenant:acme", 7)
			h.run()
			h.remove("acme")
			h.await(2)
			h.create(next)
			h.await(1)
		},
		"created before the removal was done": func(h *house) {
			h.reconcile("acme")
			h.server.Join("tenant:acme", 7)
			h.remove("acme")
			h.create(next)
			h.want("acme", "pending", "")
			h.restart()
			h.await(1)
		},
		"made by hand before the first attempt": func(h *house) {
			h.server.Put(provisioningtest.Group{Name: "tenant:acme", Users: []int{7}})
			h.remove("acme")
			h.create(next)
			h.run()
			h.await(1)
		},
		"exchanged while nothing was configured": func(h *house) {
			h.reconcile("acme")
			h.server.Join("tenant:acme", 7)
			h.stop()
			h.open("billing") // another appliance's, say: Authentik learns nothing
			h.remove("acme")
			h.create(next)
			h.restart()
			h.await(1)
		},
	} {
		t.Run(name, func(t *testing.T) {
			h := newHouse(t)
			h.create(first)
			act(h)
			h.want("acme", "ok", "")
			if g := h.one("acme"); len(g.Users) != 0 || g.Attributes["dezky_tenant_id"] != "t9" {
				t.Errorf("the group has the people %v and the attributes %v, want nobody, of t9", g.Users, g.Attributes)
			}
		})
	}
}

// A removal that nothing was configured for is done when it is.
func TestRemovalIsNotForgotten(t *testing.T) {
	h := newHouse(t)
	h.create(dezky)
	h.reconcile("dezky")
	h.stop()
	h.open("billing")
	h.remove("dezky")
	h.restart()
	h.await(1)
	if got := h.server.Groups(""); len(got) != 0 {
		t.Errorf("there are %v, want no group", got)
	}
}

// A group that was made by hand is a tenant's if the slug had no other; else a person is asked.
func TestGroupsMadeByHand(t *testing.T) {
	h := newHouse(t)
	h.server.Put(provisioningtest.Group{Name: "tenant:dezky", Users: []int{7}})
	h.create(dezky)
	h.reconcile("dezky")
	if g := h.one("dezky"); len(g.Users) != 1 || g.Attributes["dezky_tenant_id"] != "t0" {
		t.Errorf("the group has the people %v and the attributes %v, want it adopted", g.Users, g.Attributes)
	}

	h.create(`{"id":"t1","slug":"acme","name":"Acme","plan":"starter"}`)
	h.remove("acme")
	h.create(`{"id":"t2","slug":"acme","name":"Acme","plan":"starter"}`)
	h.reconcile("acme") // what was the first one's is gone
	for _, g := range h.server.Groups("tenant:acme") {
		if err := h.runner.Authentik.remove(t.Context(), group{PK: g.PK, Name: g.Name}); err != nil {
			t.Fatal(err)
		}
	}
	h.server.Put(provisioningtest.Group{Name: "tenant:acme", Users: []int{7}})
	h.reconcile("acme")
	h.want("acme", "error", "had another tenant before")
	h.one("acme")
}

// Two hundred tenants at once are queued without waiting for Authentik, which sees few requests at once.
func TestManyAtOnce(t *testing.T) {
	h := newHouse(t)
	gate := make(chan struct{})
	h.server.Behave(func(w http.ResponseWriter, r *http.Request) {
		<-gate
		h.server.Behave(nil)
		w.WriteHeader(502)
	})
	h.run()
	const many = 200
	for i := range many {
		h.create(fmt.Sprintf(`{"slug":"t-%03d","name":"T","plan":"starter"}`, i))
	}
	close(gate)
	h.await(many)
	for p, n := (db.Progress{}), 0; p.OK != many; n++ {
		var err error
		if p, err = h.runner.Progress(t.Context()); err != nil || n > 10*many {
			t.Fatalf("progress %+v, %v", p, err)
		}
		if p.OK != many {
			h.clock.move(time.Second)
			h.await(min(p.Errors+p.Pending, 1))
		}
	}
	if got := h.server.Most(); got > atOnce {
		t.Errorf("%d requests at once, want at most %d", got, atOnce)
	}
	if got := len(h.server.Groups("")); got != many {
		t.Errorf("%d groups, want %d", got, many)
	}
}

// Turned on later, it brings all in line that it does not know to be, and no others at the next start.
func TestTurnedOn(t *testing.T) {
	h := newHouse(t)
	h.stop()
	h.open("billing")
	h.create(dezky)
	h.create(`{"id":"t1","slug":"acme","name":"Acme","plan":"starter"}`)
	h.restart()
	h.await(2)
	h.want("dezky", "ok", "")
	h.want("acme", "ok", "")
	h.server.Calls()
	h.restart()
	h.create(`{"id":"t2","slug":"globex","name":"Globex","plan":"starter"}`)
	h.await(1)
	if got := strings.Join(h.server.Calls(), " "); got != "GET POST" {
		t.Errorf("calls %s, want GET POST: of the new one alone", got)
	}
}

// A change while an attempt is under way is not lost, and the state is not ok before it is there.
func TestChangedMeanwhile(t *testing.T) {
	h := newHouse(t)
	h.create(dezky)
	arrived, gate := make(chan struct{}), make(chan struct{})
	h.server.Behave(func(w http.ResponseWriter, r *http.Request) {
		h.server.Behave(nil)
		close(arrived)
		<-gate
		h.server.ServeHTTP(w, r)
	})
	h.run()
	<-arrived
	h.remove("dezky")
	h.create(`{"id":"t5","slug":"dezky","name":"Dezky","plan":"starter"}`)
	close(gate)
	h.await(2)
	h.want("dezky", "ok", "")
	if got := h.one("dezky").Attributes["dezky_tenant_id"]; got != "t5" {
		t.Errorf("the group is %v's, want t5's", got)
	}
}

// A stop cuts an attempt short, which then counts as none.
func TestStopped(t *testing.T) {
	h := newHouse(t)
	h.create(dezky)
	arrived := make(chan struct{})
	h.server.Behave(func(_ http.ResponseWriter, r *http.Request) {
		h.server.Behave(nil)
		close(arrived)
		<-r.Context().Done()
	})
	h.run()
	<-arrived
	h.restart()
	h.want("dezky", "pending", "")
	h.await(1)
	h.want("dezky", "ok", "")
}
