package db

import (
	"fmt"
	"maps"
	"math/rand/v2"
	"reflect"
	"slices"
	"testing"

	"github.com/dezky/platform-api/flags"
)

// Random transactions of the registry, some with a change of flags after it: the log's flips of each are the
// difference of all evaluations before and after, and nothing else.
func TestFlipsInTheLog(t *testing.T) {
	d := openTest(t, Options{})
	importTest(t, d, world)
	r := rand.New(rand.NewPCG(7, 7))
	partners := []string{"", "fjordit", "nordhost"}
	pick := func(from []string) *string { return &from[r.IntN(len(from))] }
	for i := range 12 {
		scope := map[flags.Axis][]string{}
		for axis, known := range map[flags.Axis][]string{flags.AxisPlans: flags.Plans, flags.AxisPartners: partners[1:], flags.AxisEnvironments: {"staging"}} {
			if r.IntN(2) == 0 {
				scope[axis] = known[:1+r.IntN(len(known))]
			}
		}
		state := flags.States[r.IntN(len(flags.States))]
		must(d.CreateFlag(t.Context(), ops, flags.NewFlag{Key: fmt.Sprintf("flag_%02d", i), Patch: flags.Patch{State: &state, Pct: new(r.IntN(101)), Scope: scope}}))(t)
	}
	flipped, quiet := 0, 0
	for n := range 150 {
		before, last := d.Current(), history(t, d, HistoryFilter{Limit: 1})[0].ID
		err := d.change(t.Context(), ops, func(tx *tx) error {
			tenants := tx.edit.View().Tenants()
			for range 1 + r.IntN(4) {
				var err error
				switch slug := tenants[r.IntN(len(tenants))].Slug; {
				case r.IntN(6) == 0:
					_, err = tx.createTenant(flags.TenantPatch{Slug: new(fmt.Sprintf("new-%d-%d", n, r.Int64())), Name: new("N"), Plan: pick(flags.Plans)})
				case tx.edit.Tenant(slug) == nil:
				case r.IntN(6) == 0 && len(tenants) > 4:
					err = tx.deleteTenant(slug)
				case r.IntN(6) == 0:
					_, err = tx.patchTenant(slug, flags.TenantPatch{Status: pick([]string{flags.Active, flags.Suspended}), Name: new(fmt.Sprint(n))})
				default:
					_, err = tx.patchTenant(slug, flags.TenantPatch{Plan: pick(flags.Plans), PartnerSlug: pick(partners)})
				}
				if err != nil {
					return err
				}
			}
			for range r.IntN(3) {
				key := fmt.Sprintf("flag_%02d", r.IntN(12))
				if _, err := tx.patchFlag(key, flags.Patch{State: &flags.States[r.IntN(4)], Pct: new(r.IntN(101))}); err != nil {
					return err
				}
			}
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
		after := d.Current()
		want := map[string]map[string]flags.EnvOutcome{}
		for _, f := range before.Flags() {
			impact, any := map[string]flags.EnvOutcome{}, false
			for _, environment := range before.Environments() {
				o := flags.EnvOutcome{Gains: []string{}, Losses: []string{}}
				for _, was := range before.Tenants() {
					is := after.Tenant(was.Slug)
					switch {
					case is == nil || f.Evaluate(was, environment) == f.Evaluate(is, environment):
					case f.Evaluate(is, environment):
						o.Gained, o.Gains = o.Gained+1, append(o.Gains, was.Slug)
					default:
						o.Lost, o.Losses = o.Lost+1, append(o.Losses, was.Slug)
					}
				}
				any = any || o.Gained+o.Lost > 0
				impact[environment] = o
			}
			if any {
				want[f.Key] = impact
			}
		}
		changed, entries := false, history(t, d, HistoryFilter{})
		slices.Reverse(entries)
		for _, e := range entries {
			switch {
			case e.ID <= last || e.Kind != flags.KindFlag:
				continue
			case e.Action != flags.Flipped:
				changed = true
				continue
			case changed:
				t.Errorf("transaction %d: %s comes after the change of a flag", n, headline(e))
			case e.Version != 0 || e.Note != "flipped by registry change" || len(e.Changes) > 0 || e.Actor != ops.Actor || e.Revision != after.Revision():
				t.Errorf("transaction %d: %s", n, render(e))
			}
			if !reflect.DeepEqual(e.Impact, want[e.Name]) {
				t.Errorf("transaction %d: %s flipped by %s, want %s", n, e.Name, show(e.Impact), show(want[e.Name]))
			}
			delete(want, e.Name) // a second one is one too many
			flipped++
		}
		if len(want) > 0 {
			t.Errorf("transaction %d: no entry of %v", n, slices.Sorted(maps.Keys(want)))
		}
		if !slices.ContainsFunc(entries, func(e flags.Entry) bool { return e.ID > last && e.Action == flags.Flipped }) {
			quiet++
		}
	}
	if flipped < 100 || quiet < 10 {
		t.Errorf("%d flips, and none in %d transactions: the test tests little", flipped, quiet)
	}
	s := d.Current()
	same(t, reopen(t, d).Current(), s)
}

// flipping is a database in which acme gains a flag with the plan business.
func flipping(t testing.TB) *DB {
	d := openTest(t, Options{})
	importTest(t, d, world)
	must(d.CreateFlag(t.Context(), ops, newFlag(t, `{"key": "wide", "state": "targeted", "scope": {"plans": ["business"], "environments": ["staging"]}}`)))(t)
	must(d.PatchFlag(t.Context(), ops, "wide", patchOf(t, `{"description": "Wide."}`)))(t)
	return d
}

// A flip is no version: what asks for those, and what goes back to one, does not see it.
func TestFlipsAreNoVersions(t *testing.T) {
	d := flipping(t)
	ctx := t.Context()
	x := must(d.PatchTenant(ctx, ops, "acme", tenantOf(t, `{"plan": "business"}`)))(t)
	if got, want := show(x.Flips), `[{"key":"wide","environments":{"staging":{"from":false,"to":true}}}]`; got != want {
		t.Errorf("PatchTenant flips %s, want %s", got, want)
	}
	x, created, err := d.PutTenant(ctx, ops, "acme", tenantOf(t, `{"name": "Acme", "plan": "starter"}`))
	if err != nil || created {
		t.Fatalf("PutTenant: %v, created %t", err, created)
	}
	if got, want := show(x.Flips), `[{"key":"wide","environments":{"staging":{"from":true,"to":false}}}]`; got != want {
		t.Errorf("PutTenant flips %s, want %s", got, want)
	}
	lines := func(f HistoryFilter) string { f.Flag = "wide"; return show(headlines(history(t, d, f))) }
	if got, want := lines(HistoryFilter{}), `["flipped flag wide \"flipped by registry change\"","flipped flag wide \"flipped by registry change\"","updated flag wide v2","created flag wide v1"]`; got != want {
		t.Errorf("the log is %s, want %s", got, want)
	}
	if got, want := lines(HistoryFilter{Versions: true}), `["updated flag wide v2","created flag wide v1"]`; got != want {
		t.Errorf("the versions are %s, want %s", got, want)
	}
	if got, want := lines(HistoryFilter{Versions: true, Limit: 1}), `["updated flag wide v2"]`; got != want {
		t.Errorf("the last version is %s, want %s", got, want)
	}
	_, events, ok := d.Live().Since(d.Current().Revision() - 1)
	if !ok || len(events) != 1 || len(events[0].Flags) > 0 || !slices.Equal(events[0].Tenants, []string{"acme"}) || events[0].Action != flags.Updated {
		t.Errorf("the event is %s, want one that names acme and no flag", show(events))
	}
	f := must(d.RestoreFlag(ctx, ops, "wide", Restore{Version: 1}))(t)
	if f.Version != 3 || f.Description != "" {
		t.Errorf("after a restore: %s, want version 3 without a description", show(f))
	}
	if err := d.DeleteFlag(ctx, ops, "wide", "", nil); err != nil {
		t.Fatal(err)
	}
	must(d.PatchTenant(ctx, ops, "acme", tenantOf(t, `{"plan": "business"}`)))(t) // of a flag that is gone nothing is told
	must(d.CreateFlag(ctx, ops, newFlag(t, `{"key": "wide"}`)))(t)
	if got, want := lines(HistoryFilter{Limit: 3}), `["created flag wide v5","deleted flag wide v4","restored flag wide v3"]`; got != want {
		t.Errorf("the log ends with %s, want %s", got, want)
	}
}

// What is no other plan or partner flips nothing.
func TestNothingElseFlips(t *testing.T) {
	d := flipping(t)
	ctx := t.Context()
	must(d.PatchTenant(ctx, ops, "hooli", tenantOf(t, `{"status": "suspended", "name": "Hooli Inc"}`)))(t)
	must(d.PatchTenant(ctx, ops, "hooli", tenantOf(t, `{"status": "active"}`)))(t)
	must(d.CreateTenant(ctx, ops, tenantOf(t, `{"slug": "new", "name": "New", "plan": "business"}`)))(t)
	if err := d.DeleteTenant(ctx, ops, "new"); err != nil {
		t.Fatal(err)
	}
	must(d.PatchTenant(ctx, ops, "hooli", tenantOf(t, `{"partnerSlug": "fjordit"}`)))(t) // no flag asks for it
	if got := history(t, d, HistoryFilter{Action: flags.Flipped}); len(got) > 0 {
		t.Errorf("flipped: %q, want none", headlines(got))
	}
}
