package handlers

import (
	"encoding/json"
	"fmt"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"

	"github.com/dezky/platform-api/flags"
)

// TestConcurrency changes flags, evaluates and lists at once. Every answer must be one whole snapshot: what
// the log says the flags were at one revision. On a connection the revision never goes back.
func TestConcurrency(t *testing.T) {
	t.Parallel()
	const writers, evaluators, listers, changes = 3, 4, 2, 25
	s := start(t)
	s.registry(t)
	keys := make([]string, writers)
	for i := range keys {
		keys[i] = fmt.Sprintf("w%d", i)
		s.want(t, 201, "POST /flags", show(map[string]string{"key": keys[i]}))
	}
	from := s.db.Current().Revision()
	prefix := `"` + s.db.Current().Epoch() + "."

	// Each goroutine has a connection of its own.
	alone := func() *running {
		return &running{Server: s.Server, url: s.url, tokens: s.tokens, client: &http.Client{Transport: &http.Transport{MaxConnsPerHost: 1}}}
	}
	done := make(chan struct{})
	var writing, reading sync.WaitGroup
	for _, key := range keys {
		writing.Go(func() {
			c := alone()
			defer c.client.CloseIdleConnections()
			for n := range changes {
				// Every fifth time the flag goes and comes back. It counts in its percentage.
				line, body, want := "PATCH /flags/"+key, fmt.Sprintf(`{"pct":%d,"state":%q}`, n+1, []string{"on", "off"}[n%2]), 200
				if n%5 == 4 {
					line, body, want = "DELETE /flags/"+key, "", 204
				} else if n%5 == 0 && n > 0 {
					line, body, want = "POST /flags", fmt.Sprintf(`{"key":%q,"pct":%d,"state":"on"}`, key, n+1), 201
				}
				if a := c.do(t, c.request(t, line, body)); a.status != want {
					t.Errorf("%s %s = %d %s, want %d", line, body, a.status, a.body, want)
				}
			}
		})
	}
	type evaluation struct {
		revision int64
		values   map[string]bool
	}
	var mu sync.Mutex
	var evaluations []evaluation
	var lists []map[string]int64 // versions by key
	for range evaluators {
		reading.Go(func() {
			c := alone()
			defer c.client.CloseIdleConnections()
			last := from
			for {
				select {
				case <-done:
					return
				default:
				}
				a := c.do(t, c.request(t, "POST /flags/evaluate", `{"tenantSlug":"acme"}`))
				number, _, _ := strings.Cut(strings.TrimPrefix(a.header.Get("ETag"), prefix), ".")
				revision, err := strconv.ParseInt(number, 10, 64)
				var values map[string]bool
				if err != nil || a.status != 200 || json.Unmarshal([]byte(a.body), &values) != nil {
					t.Errorf("evaluate = %d with ETag %s: %s", a.status, a.header.Get("ETag"), a.body)
					return
				}
				if revision < last {
					t.Errorf("revision %d after %d", revision, last)
				}
				last = revision
				mu.Lock()
				evaluations = append(evaluations, evaluation{revision, values})
				mu.Unlock()
			}
		})
	}
	for range listers {
		reading.Go(func() {
			c := alone()
			defer c.client.CloseIdleConnections()
			last := map[string]int64{}
			for {
				select {
				case <-done:
					return
				default:
				}
				a := c.do(t, c.request(t, "GET /flags", ""))
				var list []flags.Flag
				if a.status != 200 || json.Unmarshal([]byte(a.body), &list) != nil {
					t.Errorf("GET /flags = %d %s", a.status, a.body)
					return
				}
				versions := map[string]int64{}
				for _, f := range list {
					versions[f.Key] = f.Version
					if f.Version < last[f.Key] {
						t.Errorf("%s: version %d after %d", f.Key, f.Version, last[f.Key])
					}
					last[f.Key] = f.Version
				}
				mu.Lock()
				lists = append(lists, versions)
				mu.Unlock()

				one := c.do(t, c.request(t, "GET /flags/"+keys[0], ""))
				if one.status == 200 {
					f := decode[flagWithHistory](t, one)
					if f.History[0].Version != f.Version || one.header.Get("ETag") != versionTag(f.Version) {
						t.Errorf("a flag at version %d has ETag %s and a history from %d on", f.Version, one.header.Get("ETag"), f.History[0].Version)
					}
				} else if one.status != 404 {
					t.Errorf("GET /flags/%s = %d %s", keys[0], one.status, one.body)
				}
			}
		})
	}
	writing.Wait()
	close(done)
	reading.Wait()

	// What the log says: each flag's value and version at each revision; version 0 is none.
	to := s.db.Current().Revision()
	if to != from+writers*changes {
		t.Errorf("%d changes made %d revisions", writers*changes, to-from)
	}
	type moment struct {
		version int64
		on      bool
	}
	was := map[string][]moment{}
	for _, key := range keys {
		entries := pages(t, s, "/flags/"+key+"/history", "", 50, func(e flags.Entry) flags.Entry { return e })
		slices.Reverse(entries)
		if len(entries) != changes+1 {
			t.Errorf("%s has %d entries, want %d", key, len(entries), changes+1)
		}
		at, next := moment{}, 0
		for revision := int64(0); revision <= to; revision++ {
			for next < len(entries) && entries[next].Revision == revision {
				e := entries[next]
				if e.Version != int64(next)+1 {
					t.Errorf("%s: entry %d is of version %d", key, next, e.Version)
				}
				at.version = e.Version
				if state, ok := e.Changes["state"]; ok {
					at.on = string(state.To) == `"on"`
				}
				if e.Action == flags.Deleted {
					at.version = 0
				}
				next++
			}
			was[key] = append(was[key], at)
		}
	}
	for _, e := range evaluations {
		for _, key := range keys {
			want := was[key][e.revision]
			if value, there := e.values[key]; there != (want.version > 0) || value != (want.on && there) {
				t.Errorf("revision %d: %s is %t (there: %t), the log says %+v", e.revision, key, value, there, want)
			}
		}
	}
	for _, versions := range lists {
		whole := false
		for revision := from; revision <= to && !whole; revision++ {
			whole = !slices.ContainsFunc(keys, func(key string) bool { return versions[key] != was[key][revision].version })
		}
		if !whole {
			t.Errorf("a list has the versions %v, which were never at one time", versions)
		}
	}
	if len(evaluations) < 50 || len(lists) < 10 {
		t.Errorf("only %d evaluations and %d lists were made meanwhile", len(evaluations), len(lists))
	}
}

// TestOneWriterWins has many make the same change on the same condition: one does, all others are told
// what the flag is since.
func TestOneWriterWins(t *testing.T) {
	t.Parallel()
	s := start(t)
	s.registry(t)
	const rivals = 8
	statuses := make(chan int, rivals)
	var racing sync.WaitGroup
	for i := range rivals {
		racing.Go(func() {
			a := s.do(t, s.request(t, "PATCH /flags/search", fmt.Sprintf(`{"pct":%d}`, i), `If-Match: "1"`))
			if a.status == 412 && !strings.Contains(a.body, `"version":2`) {
				t.Errorf("412 with %s, want the flag at version 2", a.body)
			}
			statuses <- a.status
		})
	}
	racing.Wait()
	close(statuses)
	count := map[int]int{}
	for status := range statuses {
		count[status]++
	}
	if count[200] != 1 || count[412] != rivals-1 {
		t.Errorf("statuses %v, want one 200 and %d 412", count, rivals-1)
	}
}
