package db

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/dezky/platform-api/flags"
)

func backTo(at time.Time, keys ...string) RestoreAt {
	return RestoreAt{BringBack: flags.BringBack{At: at, Keys: keys}}
}

// A mistake in many flags at once: an import that turns some on, and beside it one deleted, one made, one that
// names a tenant removed since.
func TestRestoreAt(t *testing.T) {
	c := newClock()
	d := openTest(t, Options{Now: c.now})
	ctx := t.Context()
	importTest(t, d, world)
	for _, body := range []string{`{"key": "calm"}`, `{"key": "gone", "state": "rollout", "pct": 40}`, `{"key": "mail", "description": "Mail", "state": "targeted", "scope": {"plans": ["business"]}}`,
		`{"key": "search"}`, `{"key": "tied", "state": "targeted", "scope": {"tenantSlugs": ["hooli"]}}`} {
		must(d.CreateFlag(ctx, ops, newFlag(t, body)))(t)
	}
	then := c.now()
	was := map[string]flags.Flag{}
	for _, f := range d.Current().Flags() {
		was[f.Key] = *f
	}
	c.advance(time.Hour)
	importTest(t, d, `{"flags": [{"key": "mail", "state": "on"}, {"key": "search", "state": "on"}]}`)
	if err := d.DeleteFlag(ctx, ops, "gone", "", nil); err != nil {
		t.Fatal(err)
	}
	must(d.CreateFlag(ctx, ops, newFlag(t, `{"key": "made", "state": "on"}`)))(t)
	must(d.PatchFlag(ctx, ops, "tied", patchOf(t, `{"scope": {"tenantSlugs": []}, "state": "off"}`)))(t)
	if err := d.DeleteTenant(ctx, ops, "hooli"); err != nil {
		t.Fatal(err)
	}
	c.advance(time.Hour)
	mistake := c.now()
	c.advance(time.Hour)
	state, log := export(t, d), show(history(t, d, HistoryFilter{}))

	why := `the flag "tied" can't come back: scope.tenantSlugs[0] must be a known tenant, not "hooli"`
	for _, refused := range []struct {
		name, want string
		r          RestoreAt
	}{
		{"all", "keys " + why, backTo(then)},
		{"by key", "keys[1] " + why, backTo(then, "mail", "tied")},
		{"every mistake", `keys[1] is "mail", as keys[0] is; keys[2] is "none": there is no such flag, and there was none then; keys[3] ` + why, backTo(then, "mail", "mail", "none", "tied")},
		{"before the log", "at must not be before 2026-01-02T03:04:05Z, when the log began", backTo(then.Add(-time.Hour))},
		{"the future", "at must not be in the future; it is 2026-01-02T06:04:05Z now", backTo(mistake.Add(2 * time.Hour))},
		{"not as seen", "flags were changed meanwhile; flags: gone, search", RestoreAt{flags.BringBack{At: then, Keys: []string{"gone", "mail", "search"}}, map[string]int64{"gone": 1, "mail": 2, "search": 1}}},
		{"a problem of the request", "keys must name one", RestoreAt{BringBack: flags.BringBack{At: then, Problems: []flags.FieldError{{Field: "keys", Message: "must name one"}}}}},
	} {
		_, err := d.RestoreAt(ctx, ops, refused.r)
		if err == nil || err.Error() != refused.want {
			t.Errorf("%s: %v\nwant %s", refused.name, err, refused.want)
		}
	}
	dry := backTo(then)
	dry.DryRun = true
	trial := must(d.RestoreAt(ctx, ops, dry))(t)
	if got := headlines(trial.Entries); trial.Last != 0 || len(trial.Refused) != 1 || trial.Refused[0].Key != "tied" || len(got) != 3 {
		t.Errorf("a trial: %s, refused %s, last entry %d", got, show(trial.Refused), trial.Last)
	}
	if export(t, d) != state || show(history(t, d, HistoryFilter{})) != log {
		t.Fatal("what was refused or tried changed something")
	}

	before := d.Current()
	done := must(d.RestoreAt(ctx, ops, backTo(then, "search", "mail", "made", "gone", "calm")))(t)
	now := d.Current()
	note := ` "restored from 2026-01-02T03:04:05Z"`
	want := []string{"restored flag gone v3" + note, "deleted flag made v2" + note, "restored flag mail v3" + note, "restored flag search v3" + note}
	if got := headlines(done.Entries); !slices.Equal(got, want) || !slices.Equal(done.Unchanged, []string{"calm"}) || done.Left != nil {
		t.Errorf("brought back %q, unchanged %q, left %q\nwant %q", got, done.Unchanged, done.Left, want)
	}
	if now.Revision() != before.Revision()+1 || now.Flag("made") != nil {
		t.Errorf("revision %d, made %v; want %d and none", now.Revision(), now.Flag("made"), before.Revision()+1)
	}
	for _, key := range []string{"gone", "mail", "search", "calm"} {
		f, past := now.Flag(key), was[key]
		if f == nil || !f.SameContent(&past) || !f.CreatedAt.Equal(past.CreatedAt) {
			t.Errorf("%s is %s, was %s", key, show(f), show(past))
		}
	}
	for i, e := range done.Entries {
		impact, _ := before.Impact(before.Flag(e.Name), now.Flag(e.Name), listed)
		if got, want := show(e.Impact), show(outcomes(now, impact)); got != want || !strings.Contains(render(history(t, d, HistoryFilter{Flag: e.Name, Limit: 1})[0]), headlines(done.Entries)[i]) {
			t.Errorf("the impact of %s is %s, want %s", e.Name, got, want)
		}
	}
	if all := must(d.RestoreAt(ctx, ops, backTo(then, "calm", "mail")))(t); all.Last != 0 || len(all.Entries) != 0 || d.Current().Revision() != now.Revision() {
		t.Errorf("once more: %s", show(all))
	}

	// Both moments are as they were, and all of it is undone in one.
	if fs := must(d.FlagsAt(ctx, mistake))(t); show(fs) != show(before.Flags()) {
		t.Errorf("at the mistake: %s", show(fs))
	}
	undone := must(d.UndoRevision(ctx, ops, done.Last-1))(t) // any entry of it
	if got := headlines(undone.Entries); len(got) != 4 || got[1] != fmt.Sprintf(`restored flag made v3 "undo of revision %d"`, now.Revision()) || export(t, d) != state {
		t.Errorf("undone %q", got)
	}
	must(d.UndoRevision(ctx, ops, undone.Last))(t) // and again
	must(d.PatchFlag(ctx, ops, "mail", patchOf(t, `{"description": "Post"}`)))(t)
	_, err := d.UndoRevision(ctx, ops, undone.Last)
	if got := outcome(err); got != "conflict: flags were changed since, and so not all can be undone together [gone made mail search] []" {
		t.Errorf("undo of what was undone: %s", got)
	}
	if _, err := d.UndoRevision(ctx, ops, 9999); !errors.Is(err, flags.ErrNotFound) {
		t.Errorf("undo of no entry: %v", err)
	}
	if got := check(t, d); got != "ok" {
		t.Errorf("the database: %s", got)
	}
}

// An import of flags is undone whole too; a tenant in the same document stays.
func TestUndoOfAnImport(t *testing.T) {
	d := openTest(t, Options{})
	importTest(t, d, world)
	importTest(t, d, `{"flags": [{"key": "mail", "pct": 10}, {"key": "search"}]}`)
	before := show(d.Current().Flags())
	importTest(t, d, `{"tenants": [{"slug": "piedpiper", "name": "Pied Piper", "plan": "starter"}], "flags": [{"key": "mail", "state": "on"}, {"key": "search", "state": "on"}]}`)
	last := history(t, d, HistoryFilter{Limit: 1})[0].ID
	if made := must(d.FlagsOfRevision(t.Context(), last))(t); len(made) != 2 {
		t.Errorf("its flags are %s", show(made))
	}
	if undone := must(d.UndoRevision(t.Context(), ops, last))(t); len(undone.Entries) != 2 || d.Current().Tenant("piedpiper") == nil {
		t.Errorf("undone %s", show(undone))
	}
	for _, f := range d.Current().Flags() {
		if f.State != flags.Off {
			t.Errorf("%s, before %s", show(f), before)
		}
	}
}

// While changes are frozen, what is nothing but kills comes back.
func TestRestoreAtWhileFrozen(t *testing.T) {
	c := newClock()
	d := openTest(t, Options{Now: c.now})
	ctx := t.Context()
	importTest(t, d, world)
	importTest(t, d, `{"flags": [{"key": "mail"}, {"key": "search"}, {"key": "text", "description": "T"}]}`)
	then := c.now()
	c.advance(time.Hour)
	importTest(t, d, `{"flags": [{"key": "mail", "state": "on"}, {"key": "search", "state": "rollout", "pct": 50}, {"key": "text", "state": "on", "description": "Text"}]}`)
	must(d.Freeze(ctx, ops, flags.NewFreeze{Reason: "launch", Until: c.now().Add(time.Hour)}))(t)
	var frozen *flags.Frozen
	if _, err := d.RestoreAt(ctx, ops, backTo(then)); !errors.As(err, &frozen) {
		t.Errorf("with more than kills: %v", err)
	}
	dry := backTo(then)
	dry.DryRun = true
	if trial := must(d.RestoreAt(ctx, ops, dry))(t); len(trial.Entries) != 3 {
		t.Errorf("a trial: %s", show(trial))
	}
	killed := must(d.RestoreAt(ctx, ops, backTo(then, "mail", "search")))(t)
	if got := headlines(killed.Entries); len(got) != 2 || !strings.HasPrefix(got[0], "restored flag mail v3") || d.Current().Flag("search").State != flags.Off {
		t.Errorf("kills: %q", got)
	}
	if _, err := d.UndoRevision(ctx, ops, killed.Last); !errors.As(err, &frozen) {
		t.Errorf("undo of kills: %v", err)
	}
}

// Whatever happened, each moment's flags come back as they were, but for what can't, and are undone as a whole.
func TestRestoreAtAgainstWhatWas(t *testing.T) {
	for _, seed := range []uint64{1, rand.Uint64()} { // the last is named by its subtest
		t.Run(fmt.Sprint("seed ", seed), func(t *testing.T) {
			c := newClock()
			x := &teller{rand.New(rand.NewPCG(seed, 9)), openTest(t, Options{Now: c.now}), c, map[string]int{}}
			moments := []time.Time{}
			brought := 0
			for range 80 {
				x.step(t)
				log := history(t, x.d, HistoryFilter{Limit: 1})
				if len(log) == 0 {
					continue
				}
				moments = append(moments, log[0].At)
				at := moments[x.IntN(len(moments))]
				then := must(x.d.FlagsAt(t.Context(), at))(t)
				before := x.d.Current()
				keys := []string{}
				var impacts []string
				all := before.Comebacks(then)
				var ds []flags.Comeback
				for _, diff := range all {
					if diff.Refused == nil && x.IntN(4) > 0 {
						keys = append(keys, diff.Key)
						ds = append(ds, diff)
					}
				}
				if len(keys) == 0 {
					continue
				}
				done, err := x.d.RestoreAt(t.Context(), ops, backTo(at, keys...))
				if err != nil {
					t.Fatalf("%s of %s: %v", keys, at, err)
				}
				after := x.d.Current()
				for i := range ds {
					was, is := ds[i].Then, after.Flag(ds[i].Key)
					j := slices.IndexFunc(then, func(f *flags.Flag) bool { return f.Key == ds[i].Key })
					if (j < 0) != (is == nil) || j >= 0 && !is.SameContent(then[j]) || (was == nil) != (is == nil) {
						t.Fatalf("%s came back as %s, was %s", ds[i].Key, show(is), show(was))
					}
					impact := map[string]flags.EnvOutcome{}
					for _, env := range after.Environments() {
						o := flags.EnvOutcome{Gains: []string{}, Losses: []string{}}
						for _, tenant := range after.Tenants() {
							had := ds[i].Now != nil && ds[i].Now.Evaluate(tenant, env)
							has := is != nil && is.Evaluate(tenant, env)
							if has && !had {
								o.Gained, o.Gains = o.Gained+1, append(o.Gains, tenant.Slug)
							} else if had && !has {
								o.Lost, o.Losses = o.Lost+1, append(o.Losses, tenant.Slug)
							}
						}
						impact[env] = o
					}
					impacts = append(impacts, show(impact))
					if got := show(done.Entries[i].Impact); got != impacts[i] {
						t.Fatalf("the impact of %s is %s, want %s", ds[i].Key, got, impacts[i])
					}
				}
				checkOfAll(t, before, ds)
				brought++
				if x.IntN(2) == 0 {
					must(x.d.UndoRevision(t.Context(), ops, done.Last))(t)
					if diffs := x.d.Current().Comebacks(before.Flags()); len(diffs) > 0 {
						t.Fatalf("undone, these differ: %s", show(diffs))
					}
				}
			}
			if brought < 10 {
				t.Errorf("brought back %d times", brought)
			}
			if got := check(t, x.d); got != "ok" {
				t.Errorf("the database: %s", got)
			}
		})
	}
}

// checkOfAll holds ImpactOfAll against evaluations.
func checkOfAll(t *testing.T, s *flags.Snapshot, ds []flags.Comeback) {
	t.Helper()
	got, gainedAny := s.ImpactOfAll(ds)
	has := func(f *flags.Flag, tenant *flags.Tenant, env string) bool { return f != nil && f.Evaluate(tenant, env) }
	gaining := map[string]bool{}
	for i, env := range s.Environments() {
		var want flags.EnvImpact
		for _, tenant := range s.Tenants() {
			gains := slices.ContainsFunc(ds, func(d flags.Comeback) bool { return !has(d.Now, tenant, env) && has(d.Then, tenant, env) })
			loses := slices.ContainsFunc(ds, func(d flags.Comeback) bool { return has(d.Now, tenant, env) && !has(d.Then, tenant, env) })
			if gains {
				want.Gained++
				gaining[tenant.Slug] = true
			}
			if loses {
				want.Lost++
			}
		}
		if got[i].Gained != want.Gained || got[i].Lost != want.Lost {
			t.Fatalf("in %s %+v, want %+v", env, got[i], want)
		}
	}
	if gainedAny != len(gaining) {
		t.Fatalf("%d gain in any environment, want %d", gainedAny, len(gaining))
	}
}
