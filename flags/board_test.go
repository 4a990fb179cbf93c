package flags_test

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/dezky/platform-api/flags"
)

// agree holds a sheet of a board against evaluation without memory.
func agree(t *testing.T, b *flags.Board, tenant *flags.Tenant, environment string) {
	t.Helper()
	sh := b.Sheet(tenant, environment)
	for i, f := range b.Flags() {
		on := sh.On[i/8]>>(i%8)&1 == 1
		if want := f.Explain(tenant, environment); on != want.Value || f.Evaluate(tenant, environment) != on || f.Outcome(tenant, environment) != sh.Outcomes[i] {
			t.Errorf("revision %d, %s for %s in %s: on %t, outcome %d, want %+v", b.Revision(), f.Key, tenant.Slug, environment, on, sh.Outcomes[i], want)
		}
	}
	if len(sh.Outcomes) != len(b.Flags()) {
		t.Errorf("revision %d: %d outcomes, want %d", b.Revision(), len(sh.Outcomes), len(b.Flags()))
	}
}

// TestBoardRemembersNothingWrong changes flags and tenants at random while others ask the board.
func TestBoardRemembersNothingWrong(t *testing.T) {
	t.Parallel()
	random := rand.New(rand.NewPCG(1, 2))
	environments := []string{"production", "staging"}
	var tenants []*flags.Tenant
	for i := range 20 {
		tenants = append(tenants, &flags.Tenant{ID: fmt.Sprint(i), Slug: fmt.Sprintf("t%d", i), Plan: flags.Plans[i%3]})
	}
	states := []flags.State{flags.Off, flags.On, flags.Targeted, flags.Rollout}
	flag := func(key string) *flags.Flag {
		f := &flags.Flag{Key: key, State: states[random.IntN(4)], Pct: random.IntN(101)}
		if random.IntN(2) == 0 {
			f.Scope.Plans = []string{flags.Plans[random.IntN(3)]}
		}
		if random.IntN(3) == 0 {
			f.Scope.Environments = []string{environments[random.IntN(2)]}
		}
		return f
	}
	var live flags.Live
	live.Publish(flags.NewSnapshot("e", 0, environments, nil, tenants, nil))
	var askers sync.WaitGroup
	stop := make(chan struct{})
	for i := range 4 {
		askers.Go(func() {
			random := rand.New(rand.NewPCG(3, uint64(i)))
			for {
				select {
				case <-stop:
					return
				default:
				}
				b := live.Board()
				agree(t, b, b.Tenants()[random.IntN(len(b.Tenants()))], environments[random.IntN(2)])
			}
		})
	}
	for revision := range int64(400) {
		e := live.Current().Edit()
		for range 1 + random.IntN(3) {
			key := fmt.Sprintf("f%02d", random.IntN(30))
			switch {
			case random.IntN(10) > 0:
				e.SetFlag(key, flag(key))
			case e.Flag(key) != nil:
				e.SetFlag(key, nil)
			}
		}
		if random.IntN(4) == 0 {
			changed := *tenants[random.IntN(len(tenants))]
			changed.Plan = flags.Plans[random.IntN(3)]
			e.SetTenant(changed.Slug, &changed)
		}
		e.SetRevision(revision+1, time.Time{})
		live.Publish(e.View())
		b := live.Board()
		for _, tenant := range b.Tenants() {
			for _, environment := range environments {
				if random.IntN(2) == 0 {
					agree(t, b, tenant, environment)
				}
			}
		}
	}
	close(stop)
	askers.Wait()
}

// A change costs a tenant the flags that it touched, and one elsewhere nothing.
func TestBoardKeepsWhatAChangeDoesNotTouch(t *testing.T) {
	t.Parallel()
	tenants := []*flags.Tenant{{ID: "1", Slug: "acme", Plan: "starter"}, {ID: "2", Slug: "globex", Plan: "starter"}}
	var fs []*flags.Flag
	for i := range 20 {
		fs = append(fs, &flags.Flag{Key: fmt.Sprintf("f%02d", i), State: flags.Rollout, Pct: 50})
	}
	var live flags.Live
	live.Publish(flags.NewSnapshot("e", 1, []string{"production"}, fs, tenants, nil))
	before := live.Board().Sheet(tenants[0], "production")
	if again := live.Board().Sheet(tenants[0], "production"); again != before {
		t.Error("asked again, the sheet is another")
	}
	e := live.Current().Edit()
	e.SetTenant("globex", &flags.Tenant{ID: "2", Slug: "globex", Plan: "business"})
	live.Publish(e.View())
	if after := live.Board().Sheet(tenants[0], "production"); &after.Outcomes[0] != &before.Outcomes[0] {
		t.Error("another tenant's change made the sheet anew")
	}
	e = live.Current().Edit()
	e.SetFlag("f07", &flags.Flag{Key: "f07", State: flags.On})
	live.Publish(e.View())
	after := live.Board().Sheet(tenants[0], "production")
	want := slices.Clone(before.Outcomes)
	want[7] = flags.Static
	if !slices.Equal(after.Outcomes, want) {
		t.Errorf("outcomes %v, want %v", after.Outcomes, want)
	}
	if before.Outcomes[7] == flags.Static {
		t.Error("a sheet that was given out has changed")
	}
	// Another epoch is another line: a revision may come again.
	live.Publish(flags.NewSnapshot("f", 1, []string{"production"}, fs[:1], tenants, nil))
	if sh := live.Board().Sheet(tenants[0], "production"); len(sh.Outcomes) != 1 {
		t.Errorf("after a restore there are %d outcomes, want 1", len(sh.Outcomes))
	}
}
