package seed_test

import (
	"encoding/json"
	"errors"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/dezky/platform-api/db"
	"github.com/dezky/platform-api/db/dbtest"
	"github.com/dezky/platform-api/flags"
	"github.com/dezky/platform-api/seed"
)

var (
	now = time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	ops = db.By{Actor: "ops@dezky.example"}
)

// at is a clock that stands still.
func at(t time.Time) func() time.Time { return func() time.Time { return t } }

func plant(t *testing.T, d *db.DB, demo bool, now time.Time) {
	t.Helper()
	if err := seed.Plant(t.Context(), d, demo, now); err != nil {
		t.Fatal(err)
	}
}

// history is the whole log, oldest first.
func history(t *testing.T, d *db.DB) []flags.Entry {
	t.Helper()
	log, err := d.History(t.Context(), db.HistoryFilter{Limit: 100_000})
	if err != nil {
		t.Fatal(err)
	}
	slices.Reverse(log)
	return log
}

func export(t *testing.T, d *db.DB) string {
	t.Helper()
	var b strings.Builder
	if err := flags.WriteDocument(&b, d.Current()); err != nil {
		t.Fatal(err)
	}
	return b.String()
}

func show(v any) string {
	data, err := json.Marshal(v)
	if err != nil {
		return err.Error()
	}
	return string(data)
}

// state is all that a database says of flags and registry, and their log.
func state(t *testing.T, d *db.DB) string {
	s := d.Current()
	return show([]any{s.Epoch(), s.Revision(), export(t, d), history(t, d)})
}

var seeded = []string{"attachment_sandbox", "calendar_federation", "dmarc_enforcement", "gdpr_export_v2", "imap_import_wizard",
	"jmap_native_v2", "mail_search_v2", "new_billing_engine", "passkey_sign_in", "retention_policies"}

func keys(s *flags.Snapshot) (keys []string) {
	for _, f := range s.Flags() {
		keys = append(keys, f.Key)
	}
	return keys
}

func TestSeeds(t *testing.T) {
	d := dbtest.OpenAt(t, t.TempDir(), at(now))
	plant(t, d, false, now)
	s := d.Current()
	if got := keys(s); !slices.Equal(got, seeded) {
		t.Errorf("flags %q, want %q", got, seeded)
	}
	for _, f := range s.Flags() {
		want := flags.New(f.Key)
		want.Description, want.Version, want.CreatedAt, want.UpdatedAt = f.Description, 1, now, now
		if got, want := show(f), show(want); got != want || f.Description == "" {
			t.Errorf("the flag is\n%s\nwant, with a description,\n%s", got, want)
		}
	}
	if got, want := show(s.Tenants()), `[{"id":"65f0c0ffee00000000000001","slug":"dezky","name":"Dezky","plan":"enterprise","partnerSlug":null,"status":"active",`+
		`"provisioningStatus":{"authentik":"ok"},"provisioningErrors":{},"createdAt":"2026-01-02T03:04:05Z","updatedAt":"2026-01-02T03:04:05Z"}]`; got != want {
		t.Errorf("tenants\n%s\nwant\n%s", got, want)
	}
	if got := len(s.Partners()); got != 0 {
		t.Errorf("%d partners, want none", got)
	}
	log := history(t, d)
	if len(log) != 11 || s.Revision() != 1 {
		t.Errorf("%d entries and revision %d, want 11 and 1", len(log), s.Revision())
	}
	for _, e := range log {
		if e.Actor != "system:seed" || e.Action != flags.Created || !e.At.Equal(now) {
			t.Errorf("the log has %s, want that system:seed created it", show(e))
		}
	}
}

func TestPlantAgain(t *testing.T) {
	dir := t.TempDir()
	d := dbtest.OpenAt(t, dir, at(now))
	ctx := t.Context()
	plant(t, d, false, now)
	again := func() {
		t.Helper()
		want := state(t, d)
		for range 3 {
			if err := d.Close(); err != nil {
				t.Fatal(err)
			}
			d = dbtest.OpenAt(t, dir, at(now.Add(time.Hour)))
			plant(t, d, false, now.Add(time.Hour))
			if got := state(t, d); got != want {
				t.Errorf("after another start there is\n%s\nwant\n%s", got, want)
			}
		}
	}
	again()
	on, name := flags.On, "Dezky AS"
	if _, err := d.PatchFlag(ctx, ops, "mail_search_v2", flags.Patch{State: &on}); err != nil {
		t.Fatal(err)
	}
	if _, err := d.PatchTenant(ctx, ops, "dezky", flags.TenantPatch{Name: &name}); err != nil {
		t.Fatal(err)
	}
	again()
	if err := d.DeleteFlag(ctx, ops, "jmap_native_v2", "", nil); err != nil {
		t.Fatal(err)
	}
	if err := d.DeleteTenant(ctx, ops, "dezky"); err != nil {
		t.Fatal(err)
	}
	again()
	if s := d.Current(); s.Flag("jmap_native_v2") != nil || s.Tenant("dezky") != nil || s.Flag("mail_search_v2").State != flags.On || s.Revision() != 5 {
		t.Errorf("revision %d with\n%s\nwant 5, without what was deleted, and mail_search_v2 on", s.Revision(), export(t, d))
	}
}

// demoOn checks what the demo registry promises wherever it is planted, with its story after from.
func demoOn(t *testing.T, d *db.DB, from time.Time) {
	t.Helper()
	s := d.Current()
	if got := len(s.Partners()); got != 4 {
		t.Errorf("%d partners, want 4", got)
	}
	if got := len(s.Tenants()); got != 41 {
		t.Errorf("%d tenants, want 40 and dezky", got)
	}
	plans := map[string]int{}
	for _, x := range s.Tenants() {
		plans[x.Plan]++
		if x.ID == "" || x.Slug != "dezky" && !strings.HasPrefix(x.ID, "65f") {
			t.Errorf("the tenant %s has the id %q, want a fixed one", x.Slug, x.ID)
		}
	}
	for _, plan := range flags.Plans {
		if plans[plan] < 5 {
			t.Errorf("%d tenants on plan %s, want some more", plans[plan], plan)
		}
	}
	states := map[flags.State]int{}
	for _, f := range s.Flags() {
		if !slices.Contains(seeded, f.Key) {
			states[f.State]++
		} else if f.State != flags.Off || f.Pct != 0 || f.HasAnyScope() || f.Version != 1 {
			t.Errorf("the seed is %s, want it off at version 1", show(f))
		}
	}
	for _, state := range flags.States {
		if states[state] == 0 {
			t.Errorf("none of the demo's flags is %s", state)
		}
	}
	log := history(t, d)
	actions := map[flags.Action]int{}
	for i, e := range log {
		if i > 0 && (e.At.Before(log[i-1].At) || e.Revision < log[i-1].Revision) {
			t.Errorf("entry %d of %v, revision %d, follows one of %v, revision %d", e.ID, e.At, e.Revision, log[i-1].At, log[i-1].Revision)
		}
		if e.At.Before(from) || e.At.After(now) {
			t.Errorf("entry %d is of %v, want it between %v and %v", e.ID, e.At, from, now)
		}
		actions[e.Action]++
	}
	for _, action := range []flags.Action{flags.Created, flags.Updated, flags.Killed, flags.Deleted, flags.Restored} {
		if actions[action] == 0 {
			t.Errorf("nothing was %s in the demo's history", action)
		}
	}
	if last := log[len(log)-1]; last.Revision != s.Revision() {
		t.Errorf("the last entry is of revision %d, the snapshot of %d", last.Revision, s.Revision())
	}
}

func TestDemo(t *testing.T) {
	dir := t.TempDir()
	d := dbtest.OpenAt(t, dir, at(now))
	plant(t, d, true, now)
	demoOn(t, d, now.Add(-42*24*time.Hour))
	log := history(t, d)
	if age := now.Sub(log[0].At); age < 35*24*time.Hour {
		t.Errorf("the history begins %v ago, want weeks", age)
	}
	// Once is enough, whatever the operator does with it.
	again := func() {
		t.Helper()
		want := state(t, d)
		if err := d.Close(); err != nil {
			t.Fatal(err)
		}
		d = dbtest.OpenAt(t, dir, at(now.Add(time.Hour)))
		plant(t, d, true, now.Add(time.Hour))
		if got := state(t, d); got != want {
			t.Errorf("after another start there is\n%s\nwant\n%s", got, want)
		}
	}
	again()
	for _, key := range keys(d.Current()) {
		if err := d.DeleteFlag(t.Context(), ops, key, "", nil); err != nil {
			t.Fatal(err)
		}
	}
	for _, x := range d.Current().Tenants()[5:] {
		if err := d.DeleteTenant(t.Context(), ops, x.Slug); err != nil {
			t.Fatal(err)
		}
	}
	again()
}

// Wherever it is planted, the demo is the same.
func TestDemoIsTheSameEverywhere(t *testing.T) {
	a, b := dbtest.OpenAt(t, t.TempDir(), at(now)), dbtest.OpenAt(t, t.TempDir(), at(now))
	plant(t, a, true, now)
	plant(t, b, true, now)
	if a, b := show(history(t, a)), show(history(t, b)); a != b {
		t.Errorf("two histories of the demo differ:\n%s\n%s", a, b)
	}
	if a, b := export(t, a), export(t, b); a != b {
		t.Errorf("two demos differ:\n%s\n%s", a, b)
	}
	later := dbtest.OpenAt(t, t.TempDir(), at(now))
	plant(t, later, false, now.Add(-time.Hour))
	plant(t, later, true, now)
	if a, b := export(t, a), export(t, later); a != b {
		t.Errorf("the demo after the seeds differs from the demo with them:\n%s\n%s", a, b)
	}
}

// On a directory that was seeded an hour ago, the story is told as of that hour.
func TestDemoLater(t *testing.T) {
	dir, hourAgo := t.TempDir(), now.Add(-time.Hour)
	d := dbtest.OpenAt(t, dir, at(hourAgo))
	plant(t, d, false, hourAgo)
	seeds := history(t, d)
	if err := d.Close(); err != nil {
		t.Fatal(err)
	}
	d = dbtest.OpenAt(t, dir, at(now))
	plant(t, d, true, now)
	demoOn(t, d, hourAgo)
	log := history(t, d)
	if got, want := show(log[:len(seeds)]), show(seeds); got != want {
		t.Errorf("the log begins with\n%s\nwant\n%s", got, want)
	}
	times := map[time.Time]bool{}
	for _, e := range log[len(seeds):] {
		times[e.At] = true
	}
	if steps := len(log) - len(seeds); len(times) < steps*9/10 {
		t.Errorf("%d entries are of %d different times, want nearly each of its own", steps, len(times))
	}
	if first, last := log[len(seeds)].At, log[len(log)-1].At; last.Sub(first) < 50*time.Minute {
		t.Errorf("the story goes from %v to %v, want most of the hour", first, last)
	}
}

// A clock that has gone back since makes no times of the future.
func TestDemoAfterTheClockWentBack(t *testing.T) {
	dir := t.TempDir()
	d := dbtest.OpenAt(t, dir, at(now))
	plant(t, d, false, now)
	before := now.Add(-time.Minute)
	plant(t, d, true, before)
	for _, e := range history(t, d) {
		if !e.At.Equal(now) {
			t.Fatalf("entry %d is of %v, want %v, as the one before the story", e.ID, e.At, now)
		}
	}
}

func TestDemoOnlyIfEmpty(t *testing.T) {
	tests := []struct {
		name  string
		first func(t *testing.T, d *db.DB) error
		want  bool // whether the demo comes
	}{
		{"nothing at all", func(*testing.T, *db.DB) error { return nil }, true},
		{"the seeds", func(t *testing.T, d *db.DB) error { return seed.Plant(t.Context(), d, false, now) }, true},
		{"the seeds, edited", func(t *testing.T, d *db.DB) error {
			plant(t, d, false, now)
			_, err := d.PatchTenant(t.Context(), ops, "dezky", flags.TenantPatch{Name: new("Dezky AS")})
			return err
		}, true},
		{"a token", func(t *testing.T, d *db.DB) error {
			_, _, err := d.CreateToken(t.Context(), ops, db.NewToken{Name: "ci", Role: "read"})
			return err
		}, true},
		{"a flag of the operator's own", func(t *testing.T, d *db.DB) error {
			_, err := d.CreateFlag(t.Context(), ops, flags.NewFlag{Key: "own"})
			return err
		}, true},
		{"another tenant", func(t *testing.T, d *db.DB) error {
			plant(t, d, false, now)
			_, err := d.CreateTenant(t.Context(), ops, flags.TenantPatch{Slug: new("acme"), Name: new("Acme"), Plan: new("starter")})
			return err
		}, false},
		{"a partner", func(t *testing.T, d *db.DB) error {
			_, err := d.CreatePartner(t.Context(), ops, flags.PartnerPatch{Slug: new("p"), Name: new("P")})
			return err
		}, false},
		{"the seeds, but the tenant deleted", func(t *testing.T, d *db.DB) error {
			plant(t, d, false, now)
			return d.DeleteTenant(t.Context(), ops, "dezky")
		}, false},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			d := dbtest.OpenAt(t, t.TempDir(), at(now))
			if err := tt.first(t, d); err != nil {
				t.Fatal(err)
			}
			plant(t, d, true, now)
			if got := len(d.Current().Tenants()) > 40; got != tt.want {
				t.Errorf("%d tenants; the demo came: %t, want %t", len(d.Current().Tenants()), got, tt.want)
			}
		})
	}
}

// A flag that the demo would make, but an operator made first, stays the operator's, also after its deletion.
func TestDemoLeavesFlagsAlone(t *testing.T) {
	d := dbtest.OpenAt(t, t.TempDir(), at(now))
	plant(t, d, false, now)
	on := flags.On
	if _, err := d.CreateFlag(t.Context(), ops, flags.NewFlag{Key: "thread_summaries", Patch: flags.Patch{State: &on}}); err != nil {
		t.Fatal(err)
	}
	for _, key := range []string{"bankid_sign_in", "calendar_room_booking"} { // which the story also restores
		if _, err := d.CreateFlag(t.Context(), ops, flags.NewFlag{Key: key}); err != nil {
			t.Fatal(err)
		}
		if err := d.DeleteFlag(t.Context(), ops, key, "", nil); err != nil {
			t.Fatal(err)
		}
	}
	plant(t, d, true, now)
	s := d.Current()
	if f := s.Flag("thread_summaries"); f.State != flags.On || f.Version != 1 {
		t.Errorf("the operator's flag is %s, want it as it was", show(f))
	}
	if s.Flag("bankid_sign_in") != nil || s.Flag("calendar_room_booking") != nil {
		t.Error("flags that the operator deleted are back")
	}
	if got := len(s.Tenants()); got != 41 {
		t.Errorf("%d tenants, want the demo's 40 and dezky", got)
	}
}

// The story names environments that an appliance need not have.
func TestDemoInOtherEnvironments(t *testing.T) {
	for _, environments := range [][]string{{"production"}, {"live", "test"}, {"production", "staging"}} {
		d, err := db.Open(t.Context(), db.Options{Dir: t.TempDir(), Environments: environments, Now: at(now)})
		if err != nil {
			t.Fatal(err)
		}
		defer d.Close()
		if err := seed.Plant(t.Context(), d, true, now); err != nil {
			t.Errorf("in environments %q: %v", environments, err)
			continue
		}
		demoOn(t, d, now.Add(-42*24*time.Hour))
	}
}

// The demo's export, imported into an empty directory, is exported the same; and that directory counts as seeded.
func TestDemoExportIsImportable(t *testing.T) {
	d := dbtest.OpenAt(t, t.TempDir(), at(now))
	plant(t, d, true, now)
	want := export(t, d)
	document, err := flags.DecodeDocument([]byte(want))
	if err != nil {
		t.Fatal(err)
	}
	seeds, err := seed.Seeds()
	if err != nil {
		t.Fatal(err)
	}
	empty := dbtest.OpenAt(t, t.TempDir(), at(now))
	if _, err := empty.Import(t.Context(), db.By{Actor: "system:import"}, document, db.Import{Seeds: seeds}); err != nil {
		t.Fatal(err)
	}
	for _, when := range []string{"after the import", "after the start that follows it"} {
		if got := export(t, empty); got != want {
			t.Errorf("%s, the export is\n%s\nwant\n%s", when, got, want)
		}
		plant(t, empty, true, now)
	}

	// Also one that lacks what the seeds have.
	document.Flags, document.Tenants, document.Partners = document.Flags[:1], nil, nil
	empty = dbtest.OpenAt(t, t.TempDir(), at(now))
	if _, err := empty.Import(t.Context(), db.By{Actor: "system:import"}, document, db.Import{Seeds: seeds}); err != nil {
		t.Fatal(err)
	}
	want = export(t, empty)
	plant(t, empty, false, now)
	if got := export(t, empty); got != want {
		t.Errorf("after the start that follows the import, the export is\n%s\nwant\n%s", got, want)
	}
}

// Seeds wait until changes are not frozen any more.
func TestPlantLater(t *testing.T) {
	d := dbtest.OpenAt(t, t.TempDir(), at(now))
	ctx := t.Context()
	if _, err := d.Freeze(ctx, ops, flags.NewFreeze{Reason: "launch", Until: now.Add(time.Hour)}); err != nil {
		t.Fatal(err)
	}
	var frozen *flags.Frozen
	if err := seed.Plant(ctx, d, false, now); !errors.As(err, &frozen) || len(d.Current().Flags()) > 0 {
		t.Fatalf("Plant while changes are frozen: %v, %d flags", err, len(d.Current().Flags()))
	}
	done := make(chan error, 1)
	go func() { done <- seed.PlantLater(ctx, d, false, at(now)) }()
	if err := d.Thaw(ctx, ops); err != nil {
		t.Fatal(err)
	}
	if err := <-done; err != nil || len(d.Current().Flags()) != 10 {
		t.Errorf("after the freeze: %v, %d flags", err, len(d.Current().Flags()))
	}
	if _, err := d.Freeze(ctx, ops, flags.NewFreeze{Reason: "launch", Until: now.Add(time.Hour)}); err != nil {
		t.Fatal(err)
	}
	if err := seed.Plant(ctx, d, false, now); err != nil {
		t.Errorf("with nothing to plant: %v", err)
	}
}
