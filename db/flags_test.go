package db

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/dezky/platform-api/flags"
)

// restoreOf reads a restore as a request brings it.
func restoreOf(t testing.TB, body string) Restore {
	t.Helper()
	version, note, problems, err := flags.DecodeRestore([]byte(body))
	if err != nil {
		t.Fatal(err)
	}
	return Restore{Version: version, Note: note, Problems: problems}
}

// One flag's life, each step with what comes back and what the log says.
func TestFlagLife(t *testing.T) {
	c := newClock()
	d := openTest(t, Options{Now: c.now})
	importTest(t, d, world)
	ctx := t.Context()
	create := func(body string) func() (*flags.Flag, error) {
		return func() (*flags.Flag, error) { return d.CreateFlag(ctx, ops, newFlag(t, body)) }
	}
	patch := func(body string) func() (*flags.Flag, error) {
		return func() (*flags.Flag, error) {
			return d.PatchFlag(ctx, By{Actor: "token:ci"}, "search", patchOf(t, body))
		}
	}
	remove := func(note string) func() (*flags.Flag, error) {
		return func() (*flags.Flag, error) { return nil, d.DeleteFlag(ctx, ops, "search", note, nil) }
	}
	restore := func(body string) func() (*flags.Flag, error) {
		return func() (*flags.Flag, error) { return d.RestoreFlag(ctx, ops, "search", restoreOf(t, body)) }
	}
	const none = `{"plans":[],"tenantSlugs":[],"partnerSlugs":[],"environments":[]}`
	steps := []struct {
		name string
		do   func() (*flags.Flag, error)
		want string // the flag
		log  string // the new entry, "" for none
	}{
		{"created as a rollout", create(`{"key": "search", "description": "Finds", "state": "rollout", "pct": 20, "note": "DZ-1"}`),
			`{"key":"search","description":"Finds","state":"rollout","pct":20,"scope":` + none + `,"version":1,"createdAt":"2026-01-02T03:04:06Z","updatedAt":"2026-01-02T03:04:06Z"}`,
			`#7 03:04:06 r2 ops@dezky.example: created flag search v1 "DZ-1"
  description: null -> "Finds"
  pct: null -> 20
  scope.environments: null -> []
  scope.partnerSlugs: null -> []
  scope.plans: null -> []
  scope.tenantSlugs: null -> []
  state: null -> "rollout"
  production: +2 [acme globex] -0 []
  staging: +2 [acme globex] -0 []`},
		{"raised, in one environment and for one plan", patch(`{"pct": 50, "scope": {"environments": ["staging"], "plans": ["business"]}, "note": "slowly"}`),
			`{"key":"search","description":"Finds","state":"rollout","pct":50,"scope":{"plans":["business"],"tenantSlugs":[],"partnerSlugs":[],"environments":["staging"]},"version":2,"createdAt":"2026-01-02T03:04:06Z","updatedAt":"2026-01-02T03:04:07Z"}`,
			`#8 03:04:07 r3 token:ci: updated flag search v2 "slowly"
  pct: 20 -> 50
  scope.environments: [] -> ["staging"]
  scope.plans: [] -> ["business"]
  production: +0 [] -2 [acme globex]
  staging: +1 [hooli] -1 [acme]`},
		{"patched to what it is, with a note", patch(`{"pct": 50, "state": "rollout", "scope": {"plans": [" business ", "business"]}, "note": "again"}`),
			`{"key":"search","description":"Finds","state":"rollout","pct":50,"scope":{"plans":["business"],"tenantSlugs":[],"partnerSlugs":[],"environments":["staging"]},"version":2,"createdAt":"2026-01-02T03:04:06Z","updatedAt":"2026-01-02T03:04:07Z"}`,
			""},
		{"patched with nothing", patch(`{}`),
			`{"key":"search","description":"Finds","state":"rollout","pct":50,"scope":{"plans":["business"],"tenantSlugs":[],"partnerSlugs":[],"environments":["staging"]},"version":2,"createdAt":"2026-01-02T03:04:06Z","updatedAt":"2026-01-02T03:04:07Z"}`,
			""},
		{"killed", patch(`{"state": "off", "pct": 0}`),
			`{"key":"search","description":"Finds","state":"off","pct":0,"scope":{"plans":["business"],"tenantSlugs":[],"partnerSlugs":[],"environments":["staging"]},"version":3,"createdAt":"2026-01-02T03:04:06Z","updatedAt":"2026-01-02T03:04:10Z"}`,
			`#9 03:04:10 r4 token:ci: killed flag search v3
  pct: 50 -> 0
  state: "rollout" -> "off"
  production: +0 [] -0 []
  staging: +0 [] -2 [globex hooli]`},
		{"described, while off", patch(`{"description": ""}`),
			`{"key":"search","description":"","state":"off","pct":0,"scope":{"plans":["business"],"tenantSlugs":[],"partnerSlugs":[],"environments":["staging"]},"version":4,"createdAt":"2026-01-02T03:04:06Z","updatedAt":"2026-01-02T03:04:11Z"}`,
			`#10 03:04:11 r5 token:ci: updated flag search v4
  description: "Finds" -> ""
  production: +0 [] -0 []
  staging: +0 [] -0 []`},
		{"restored to the first version", restore(`{"version": 1, "note": "back"}`),
			`{"key":"search","description":"Finds","state":"rollout","pct":20,"scope":` + none + `,"version":5,"createdAt":"2026-01-02T03:04:06Z","updatedAt":"2026-01-02T03:04:12Z"}`,
			`#11 03:04:12 r6 ops@dezky.example: restored flag search v5 "back"
  description: "" -> "Finds"
  pct: 0 -> 20
  scope.environments: ["staging"] -> []
  scope.plans: ["business"] -> []
  state: "off" -> "rollout"
  production: +2 [acme globex] -0 []
  staging: +2 [acme globex] -0 []`},
		{"restored to what it is", restore(`{"version": 1, "note": "twice"}`),
			`{"key":"search","description":"Finds","state":"rollout","pct":20,"scope":` + none + `,"version":5,"createdAt":"2026-01-02T03:04:06Z","updatedAt":"2026-01-02T03:04:12Z"}`,
			""},
		{"deleted", remove("DZ-2"), `null`,
			`#12 03:04:14 r7 ops@dezky.example: deleted flag search v6 "DZ-2"
  description: "Finds" -> null
  pct: 20 -> null
  scope.environments: [] -> null
  scope.partnerSlugs: [] -> null
  scope.plans: [] -> null
  scope.tenantSlugs: [] -> null
  state: "rollout" -> null
  production: +0 [] -2 [acme globex]
  staging: +0 [] -2 [acme globex]`},
		{"restored from its deletion, created when it was", restore(`{"version": 2}`),
			`{"key":"search","description":"Finds","state":"rollout","pct":50,"scope":{"plans":["business"],"tenantSlugs":[],"partnerSlugs":[],"environments":["staging"]},"version":7,"createdAt":"2026-01-02T03:04:06Z","updatedAt":"2026-01-02T03:04:15Z"}`,
			`#13 03:04:15 r8 ops@dezky.example: restored flag search v7
  description: null -> "Finds"
  pct: null -> 50
  scope.environments: null -> ["staging"]
  scope.partnerSlugs: null -> []
  scope.plans: null -> ["business"]
  scope.tenantSlugs: null -> []
  state: null -> "rollout"
  production: +0 [] -0 []
  staging: +2 [globex hooli] -0 []`},
		{"deleted again", remove(""), `null`,
			`#14 03:04:16 r9 ops@dezky.example: deleted flag search v8
  description: "Finds" -> null
  pct: 50 -> null
  scope.environments: ["staging"] -> null
  scope.partnerSlugs: [] -> null
  scope.plans: ["business"] -> null
  scope.tenantSlugs: [] -> null
  state: "rollout" -> null
  production: +0 [] -0 []
  staging: +0 [] -2 [globex hooli]`},
		{"made anew: created now, versions go on", create(`{"key": "search", "state": "targeted", "scope": {"partnerSlugs": ["nordhost"]}}`),
			`{"key":"search","description":"","state":"targeted","pct":0,"scope":{"plans":[],"tenantSlugs":[],"partnerSlugs":["nordhost"],"environments":[]},"version":9,"createdAt":"2026-01-02T03:04:17Z","updatedAt":"2026-01-02T03:04:17Z"}`,
			`#15 03:04:17 r10 ops@dezky.example: created flag search v9
  description: null -> ""
  pct: null -> 0
  scope.environments: null -> []
  scope.partnerSlugs: null -> ["nordhost"]
  scope.plans: null -> []
  scope.tenantSlugs: null -> []
  state: null -> "targeted"
  production: +2 [globex initech] -0 []
  staging: +2 [globex initech] -0 []`},
		{"set off with its pct at 0 already: killed", patch(`{"state": "off"}`),
			`{"key":"search","description":"","state":"off","pct":0,"scope":{"plans":[],"tenantSlugs":[],"partnerSlugs":["nordhost"],"environments":[]},"version":10,"createdAt":"2026-01-02T03:04:17Z","updatedAt":"2026-01-02T03:04:18Z"}`,
			`#16 03:04:18 r11 token:ci: killed flag search v10
  state: "targeted" -> "off"
  production: +0 [] -2 [globex initech]
  staging: +0 [] -2 [globex initech]`},
		{"restored over the deletion to a version before it", restore(`{"version": 5}`),
			`{"key":"search","description":"Finds","state":"rollout","pct":20,"scope":` + none + `,"version":11,"createdAt":"2026-01-02T03:04:17Z","updatedAt":"2026-01-02T03:04:19Z"}`,
			`#17 03:04:19 r12 ops@dezky.example: restored flag search v11
  description: "" -> "Finds"
  pct: 0 -> 20
  scope.partnerSlugs: ["nordhost"] -> []
  state: "off" -> "rollout"
  production: +2 [acme globex] -0 []
  staging: +2 [acme globex] -0 []`},
	}
	for _, s := range steps {
		c.advance(time.Second)
		before, count := d.Current(), len(history(t, d, HistoryFilter{}))
		f, err := s.do()
		if err != nil {
			t.Fatalf("%s: %v", s.name, err)
		}
		if got := show(f); got != s.want {
			t.Errorf("%s: the flag is\n%s\nwant\n%s", s.name, got, s.want)
		}
		if got := show(d.Current().Flag("search")); got != s.want {
			t.Errorf("%s: the snapshot has\n%s\nwant\n%s", s.name, got, s.want)
		}
		added := history(t, d, HistoryFilter{})
		added = added[:len(added)-count]
		switch {
		case s.log == "" && (len(added) > 0 || d.Current() != before):
			t.Errorf("%s: it wrote %d entries, and the snapshot is at revision %d, want nothing new at %d", s.name, len(added), d.Current().Revision(), before.Revision())
		case s.log != "" && (len(added) != 1 || render(added[0]) != s.log):
			t.Errorf("%s: the log has %d new entries, the last\n%s\nwant\n%s", s.name, len(added), newest(t, d), s.log)
		}
	}
	s, log := d.Current(), history(t, d, HistoryFilter{})
	d = reopen(t, d)
	same(t, d.Current(), s)
	sameLog(t, d, log)
	same(t, must(beside(t, d).Load(ctx))(t), s)
}

func TestFlagRefusals(t *testing.T) {
	d := openTest(t, Options{})
	importTest(t, d, world)
	importTest(t, d, `{"partners": [{"slug": "gone", "name": "Gone"}], "tenants": [{"id": "g", "slug": "goner", "name": "Goner", "plan": "starter"}]}`)
	ctx := t.Context()
	for _, body := range []string{
		`{"key": "search", "state": "on"}`,
		`{"key": "old", "state": "targeted", "scope": {"tenantSlugs": ["goner", "acme"], "partnerSlugs": ["gone"]}}`,
		`{"key": "kept", "state": "targeted", "scope": {"environments": ["staging"]}}`,
	} {
		must(d.CreateFlag(ctx, ops, newFlag(t, body)))(t)
	}
	must(d.PatchFlag(ctx, ops, "old", patchOf(t, `{"scope": {"tenantSlugs": [], "partnerSlugs": []}}`)))(t)
	if err := errors.Join(d.DeleteFlag(ctx, ops, "old", "", nil), d.DeleteTenant(ctx, ops, "goner"), d.DeletePartner(ctx, ops, "gone")); err != nil {
		t.Fatal(err)
	}
	// "staging" is unknown from here on.
	closeTest(t, d)
	o := d.opts
	o.Environments = []string{"production"}
	d = openTest(t, o)
	must(d.PatchFlag(ctx, ops, "kept", patchOf(t, `{"state": "off", "scope": {"environments": []}}`)))(t)

	at := func(body string, versions ...int64) Restore {
		r := restoreOf(t, body)
		r.IfVersion = versions
		return r
	}
	ifVersion := func(body string, versions ...int64) flags.Patch {
		p := patchOf(t, body)
		p.IfVersion = append([]int64{}, versions...)
		return p
	}
	tests := []struct {
		name string
		do   func() (*flags.Flag, error)
		want string
	}{
		{"create: a bad key", func() (*flags.Flag, error) { return d.CreateFlag(ctx, ops, newFlag(t, `{"key": "evaluate"}`)) },
			`invalid: key`},
		{"create: everything wrong at once", func() (*flags.Flag, error) {
			return d.CreateFlag(ctx, ops, newFlag(t, `{"key": "Bad", "state": "maybe", "pct": 101, "scope": {"plans": ["gold"], "tenantSlugs": ["acme", "nobody"], "environments": ["staging"]}}`))
		}, `invalid: key, state, pct, scope.plans[0], scope.tenantSlugs[1], scope.environments[0]`},
		{"create: taken", func() (*flags.Flag, error) { return d.CreateFlag(ctx, ops, newFlag(t, `{"key": "search"}`)) },
			`conflict: a flag "search" exists`},
		{"create: taken, and bad", func() (*flags.Flag, error) {
			return d.CreateFlag(ctx, ops, newFlag(t, `{"key": "search", "pct": -1}`))
		}, `invalid: pct`},

		{"patch: unknown", func() (*flags.Flag, error) { return d.PatchFlag(ctx, ops, "nothing", ifVersion(`{"pct": 101}`, 7)) },
			`not found: flag "nothing": not found`},
		{"patch: deleted", func() (*flags.Flag, error) { return d.PatchFlag(ctx, ops, "old", patchOf(t, `{}`)) },
			`not found: flag "old": not found`},
		{"patch: stale before invalid", func() (*flags.Flag, error) { return d.PatchFlag(ctx, ops, "search", ifVersion(`{"pct": 101}`, 2, 3)) },
			`stale: the flag is at version 1 now`},
		{"patch: stale though it would change nothing", func() (*flags.Flag, error) { return d.PatchFlag(ctx, ops, "search", ifVersion(`{}`, 2)) },
			`stale: the flag is at version 1 now`},
		{"patch: no version at all matches", func() (*flags.Flag, error) { return d.PatchFlag(ctx, ops, "search", ifVersion(`{"pct": 1}`)) },
			`stale: the flag is at version 1 now`},
		{"patch: invalid", func() (*flags.Flag, error) { return d.PatchFlag(ctx, ops, "search", ifVersion(`{"pct": 12.5}`, 1)) },
			`invalid: pct`},
		{"patch: a value that is unknown now", func() (*flags.Flag, error) {
			return d.PatchFlag(ctx, ops, "search", patchOf(t, `{"scope": {"partnerSlugs": ["gone"]}}`))
		}, `invalid: scope.partnerSlugs[0]`},

		{"delete: unknown", func() (*flags.Flag, error) { return nil, d.DeleteFlag(ctx, ops, "nothing", "", []int64{1}) },
			`not found: flag "nothing": not found`},
		{"delete: stale", func() (*flags.Flag, error) { return nil, d.DeleteFlag(ctx, ops, "search", "", []int64{2}) },
			`stale: the flag is at version 1 now`},

		{"restore: unknown key", func() (*flags.Flag, error) { return d.RestoreFlag(ctx, ops, "nothing", at(`{"version": 1}`, 9)) },
			`not found: flag "nothing", version 1: not found`},
		{"restore: unknown key and no version", func() (*flags.Flag, error) { return d.RestoreFlag(ctx, ops, "nothing", at(`{}`)) },
			`not found: flag "nothing", version 0: not found`},
		{"restore: unknown version, and stale", func() (*flags.Flag, error) { return d.RestoreFlag(ctx, ops, "search", at(`{"version": 2}`, 9)) },
			`not found: flag "search", version 2: not found`},
		{"restore: stale", func() (*flags.Flag, error) { return d.RestoreFlag(ctx, ops, "search", at(`{"version": 1}`, 9)) },
			`stale: the flag is at version 1 now`},
		{"restore: stale, for there is none", func() (*flags.Flag, error) {
			return d.RestoreFlag(ctx, ops, "old", at(`{"version": 2}`, 3, flags.AnyVersion))
		},
			`stale: the flag does not exist now, so no version matches`},
		{"restore: no version", func() (*flags.Flag, error) { return d.RestoreFlag(ctx, ops, "search", at(`{}`)) },
			`invalid: version`},
		{"restore: a deletion", func() (*flags.Flag, error) { return d.RestoreFlag(ctx, ops, "old", at(`{"version": 3}`)) },
			`invalid: version`},
		{"restore: unknown tenant and partner", func() (*flags.Flag, error) { return d.RestoreFlag(ctx, ops, "old", at(`{"version": 1}`)) },
			`invalid: scope.tenantSlugs[1], scope.partnerSlugs[0]`},
		{"restore: unknown environment", func() (*flags.Flag, error) { return d.RestoreFlag(ctx, ops, "kept", at(`{"version": 1}`)) },
			`invalid: scope.environments[0]`},
		{"restore: a long note", func() (*flags.Flag, error) {
			return d.RestoreFlag(ctx, ops, "old", at(`{"version": 2, "note": "`+strings.Repeat("x", 501)+`"}`))
		}, `invalid: note`},
	}
	before, log := d.Current(), history(t, d, HistoryFilter{})
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			f, err := tt.do()
			if got := outcome(err); got != tt.want || f != nil {
				t.Errorf("it gives %s, %s\nwant %s", show(f), got, tt.want)
			}
			var stale *flags.Stale
			if key := "search"; errors.As(err, &stale) && stale.Current != nil && stale.Current != d.Current().Flag(key) {
				t.Errorf("Stale.Current = %s, want the flag as it is now", show(stale.Current))
			}
		})
	}
	if d.Current() != before {
		t.Error("what was refused published a snapshot")
	}
	sameLog(t, d, log)
}

func TestRestoreOfDeletionSaysSo(t *testing.T) {
	d := openTest(t, Options{})
	must(d.CreateFlag(t.Context(), ops, newFlag(t, `{"key": "search"}`)))(t)
	if err := d.DeleteFlag(t.Context(), ops, "search", "", nil); err != nil {
		t.Fatal(err)
	}
	r := restoreOf(t, `{"version": 2, "note": null}`)
	_, err := d.RestoreFlag(t.Context(), ops, "search", r)
	if got, want := outcome(err), "invalid: note, version"; got != want {
		t.Errorf("RestoreFlag: %s, want %s", got, want)
	}
	if want := "version 2 is the flag's deletion, which has no content"; err != nil && !strings.HasSuffix(err.Error(), want) {
		t.Errorf("RestoreFlag: %v, want %s", err, want)
	}
}

func TestIfVersionHolds(t *testing.T) {
	d := openTest(t, Options{})
	ctx := t.Context()
	must(d.CreateFlag(ctx, ops, newFlag(t, `{"key": "search"}`)))(t)
	for i, versions := range [][]int64{nil, {2}, {7, 3}, {flags.AnyVersion}, {9, flags.AnyVersion}} {
		p := patchOf(t, fmt.Sprintf(`{"pct": %d}`, i+1))
		p.IfVersion = versions
		f, err := d.PatchFlag(ctx, ops, "search", p)
		if err != nil || f.Version != int64(i)+2 {
			t.Errorf("PatchFlag at %v of version %d: %s, %v, want version %d", versions, i+1, show(f), err, i+2)
		}
	}
	if f, err := d.RestoreFlag(ctx, ops, "search", Restore{Version: 1, IfVersion: []int64{6}}); err != nil || f.Version != 7 {
		t.Errorf("RestoreFlag at version 6: %s, %v, want version 7", show(f), err)
	}
	if err := d.DeleteFlag(ctx, ops, "search", "", []int64{6, 7}); err != nil {
		t.Errorf("DeleteFlag at version 7: %v", err)
	}
}

// A value that is unknown by now stays as long as nobody takes it out.
func TestFlagKeepsUnknownEnvironment(t *testing.T) {
	d := openTest(t, Options{})
	ctx := t.Context()
	must(d.CreateFlag(ctx, ops, newFlag(t, `{"key": "search", "scope": {"environments": ["production", "staging"]}}`)))(t)
	closeTest(t, d)
	o := d.opts
	o.Environments = []string{"production", "development"}
	d = openTest(t, o)
	f, err := d.PatchFlag(ctx, ops, "search", patchOf(t, `{"scope": {"environments": ["staging", "development"]}}`))
	if want := []string{"development", "staging"}; err != nil || !slices.Equal(f.Scope.Environments, want) {
		t.Fatalf("PatchFlag = %s, %v, want environments %v", show(f), err, want)
	}
	// The log names the environments that are known at the time.
	want := `#2 r2 updated flag search v2
  scope.environments: ["production","staging"] -> ["development","staging"]
  development: +0 [] -0 []
  production: +0 [] -0 []`
	if e := history(t, d, HistoryFilter{Limit: 1})[0]; fmt.Sprintf("#%d r%d %s", e.ID, e.Revision, what(e)) != want {
		t.Errorf("the log has\n%s\nwant\n%s", what(e), want)
	}
}

func TestLogListsFirst50(t *testing.T) {
	d := openTest(t, Options{})
	ctx := t.Context()
	var slugs []string
	var document flags.Document
	for i := range 120 {
		slug := fmt.Sprintf("t%03d", i)
		slugs = append(slugs, slug)
		document.Tenants = append(document.Tenants, flags.TenantPatch{Slug: &slug, Name: &slug, Plan: &flags.Plans[0]})
	}
	must(d.Import(ctx, ops, document, Import{}))(t)
	must(d.CreateFlag(ctx, ops, newFlag(t, `{"key": "search", "state": "on"}`)))(t)
	must(d.PatchFlag(ctx, ops, "search", patchOf(t, `{"state": "targeted", "scope": {"environments": ["production"], "tenantSlugs": ["t007"]}}`)))(t)
	log := history(t, d, HistoryFilter{Flag: "search"})
	but7 := slices.DeleteFunc(slices.Clone(slugs), func(s string) bool { return s == "t007" })
	for _, tt := range []struct {
		entry       int
		environment string
		want        flags.EnvOutcome
	}{
		{1, "production", flags.EnvOutcome{Gained: 120, Gains: slugs[:50], Losses: []string{}}},
		{1, "staging", flags.EnvOutcome{Gained: 120, Gains: slugs[:50], Losses: []string{}}},
		{0, "production", flags.EnvOutcome{Lost: 119, Gains: []string{}, Losses: but7[:50]}},
		{0, "staging", flags.EnvOutcome{Lost: 120, Gains: []string{}, Losses: slugs[:50]}},
	} {
		if got, want := show(log[tt.entry].Impact[tt.environment]), show(tt.want); got != want {
			t.Errorf("%s of %s:\n%s\nwant\n%s", tt.environment, headline(log[tt.entry]), got, want)
		}
	}
}
