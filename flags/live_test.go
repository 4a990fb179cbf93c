package flags_test

import (
	"fmt"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/dezky/platform-api/flags"
	"pgregory.net/rapid"
)

func at(revision int64) *flags.Snapshot {
	return flags.NewSnapshot("epoch", revision, []string{"production"}, nil, nil, nil)
}

func TestLiveTellsWhatHappenedSince(t *testing.T) {
	var l flags.Live
	if _, _, ok := l.Since(0); ok {
		t.Error("Since before anything was published is ok")
	}
	l.Publish(at(7)) // loaded at the start, without events
	for revision := int64(8); revision <= 10; revision++ {
		l.Publish(at(revision), flags.Event{Revision: revision})
	}
	for _, test := range []struct {
		since int64
		want  []int64
		ok    bool
	}{
		{10, nil, true}, {9, []int64{10}, true}, {7, []int64{8, 9, 10}, true},
		{6, nil, false},  // before what is remembered
		{11, nil, false}, // a revision that was never
	} {
		s, events, ok := l.Since(test.since)
		var got []int64
		for _, e := range events {
			got = append(got, e.Revision)
		}
		if ok != test.ok || !slices.Equal(got, test.want) || s.Revision() != 10 {
			t.Errorf("Since(%d) = revision %d, %v, %t, want 10, %v, %t", test.since, s.Revision(), got, ok, test.want, test.ok)
		}
	}
	for revision := int64(11); revision <= 10+1024; revision++ {
		l.Publish(at(revision), flags.Event{Revision: revision})
	}
	if _, events, ok := l.Since(10); !ok || len(events) != 1024 {
		t.Errorf("Since(10) = %d events, %t, want the last 1024", len(events), ok)
	}
	if _, _, ok := l.Since(9); ok {
		t.Error("Since(9) is ok, beyond the last 1024")
	}
}

func TestLiveWakesWithoutWaiting(t *testing.T) {
	var l flags.Live
	wake, end := l.Subscribe()
	_, slow := l.Subscribe() // never looks
	for revision := int64(1); revision <= 3; revision++ {
		l.Publish(at(revision), flags.Event{Revision: revision})
	}
	<-wake
	select {
	case <-wake:
		t.Error("three changes gave two wakes, want one")
	default:
	}
	if got := l.Current().Revision(); got != 3 {
		t.Errorf("Current().Revision() = %d, want 3", got)
	}
	end()
	slow()
	l.Publish(at(4), flags.Event{Revision: 4})
	select {
	case <-wake:
		t.Error("a change after the end woke its subscriber")
	default:
	}
}

func TestLiveAtOnce(t *testing.T) {
	var l flags.Live
	l.Publish(at(0))
	const last = 500
	var readers sync.WaitGroup
	for range 4 {
		readers.Go(func() {
			wake, end := l.Subscribe()
			defer end()
			for seen := int64(0); seen < last; {
				s, events, ok := l.Since(seen)
				if !ok || int64(len(events)) != s.Revision()-seen {
					t.Errorf("Since(%d) = %d events up to %d, %t", seen, len(events), s.Revision(), ok)
					return
				}
				if seen = s.Revision(); seen < last {
					<-wake
				}
			}
		})
	}
	for revision := int64(1); revision <= last; revision++ {
		l.Publish(at(revision), flags.Event{Revision: revision})
	}
	readers.Wait()
}

// Reach counts as evaluation does, whatever changed and in whatever order snapshots are asked.
func TestReachEqualsEvaluation(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		environments := []string{"production", "staging"}
		tenants := map[string]*flags.Tenant{}
		fs := map[string]*flags.Flag{}
		tenant := func(i int) *flags.Tenant {
			return &flags.Tenant{ID: fmt.Sprintf("id%d", rapid.IntRange(0, 1000).Draw(t, "id")), Slug: fmt.Sprintf("t%02d", i), Plan: rapid.SampledFrom(flags.Plans).Draw(t, "plan")}
		}
		flag := func(i int) *flags.Flag {
			f := flags.New(fmt.Sprintf("f%d", i))
			f.State, f.Pct = rapid.SampledFrom(flags.States).Draw(t, "state"), rapid.IntRange(0, 100).Draw(t, "pct")
			if rapid.Bool().Draw(t, "scoped") {
				f.Scope.Plans = []string{rapid.SampledFrom(flags.Plans).Draw(t, "scope")}
			}
			if rapid.Bool().Draw(t, "staged") {
				f.Scope.Environments = []string{"staging"}
			}
			return &f
		}
		s := flags.NewSnapshot("e", 1, environments, nil, nil, nil)
		var r flags.Reach
		for revision := int64(2); revision < 12; revision++ {
			e := s.Edit()
			for range rapid.IntRange(0, 3).Draw(t, "edits") {
				if i := rapid.IntRange(0, 5).Draw(t, "which"); rapid.Bool().Draw(t, "a tenant") {
					x := tenant(i)
					if rapid.Bool().Draw(t, "remove") {
						x = nil
					}
					tenants[fmt.Sprintf("t%02d", i)] = x
					e.SetTenant(fmt.Sprintf("t%02d", i), x)
				} else {
					x := flag(i)
					fs[x.Key] = x
					e.SetFlag(x.Key, x)
				}
			}
			e.SetRevision(revision, time.Time{})
			old := s
			s = e.View()
			for _, snapshot := range []*flags.Snapshot{s, old} {
				for _, f := range snapshot.Flags() {
					got := r.Of(snapshot, f)
					for i, env := range environments {
						want := 0
						for _, x := range snapshot.Tenants() {
							if f.Evaluate(x, env) {
								want++
							}
						}
						if got[i] != want {
							t.Fatalf("Of(revision %d, %s)[%s] = %d, want %d", snapshot.Revision(), f.Key, env, got[i], want)
						}
					}
				}
			}
		}
	})
}
