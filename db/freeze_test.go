package db

import (
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/dezky/platform-api/flags"
)

func TestFreeze(t *testing.T) {
	c := newClock()
	d := openTest(t, Options{Now: c.now, Integrations: []string{"authentik"}})
	ctx := t.Context()
	importTest(t, d, world)
	must(d.CreateFlag(ctx, ops, newFlag(t, `{"key": "search", "state": "on"}`)))(t)
	must(d.CreateFlag(ctx, ops, newFlag(t, `{"key": "checkout", "state": "rollout", "pct": 20, "scope": {"plans": ["business"]}}`)))(t)
	must(d.CreateFlag(ctx, ops, newFlag(t, `{"key": "idle", "pct": 20}`)))(t)

	until := c.now().Add(time.Hour)
	before := d.Current().Revision()
	f := must(d.Freeze(ctx, ops, flags.NewFreeze{Reason: " the launch ", Until: until}))(t)
	if want := (flags.Freeze{Reason: "the launch", By: ops.Actor, Since: c.now(), Until: until}); *f != want {
		t.Fatalf("Freeze = %+v, want %+v", f, want)
	}
	if got := d.Current(); got.Revision() != before+1 || got.Frozen(c.now()) == nil || *got.Frozen(c.now()) != *f {
		t.Errorf("revision %d, %+v; want %d, %+v", got.Revision(), got.Frozen(c.now()), before+1, f)
	}
	if _, events, _ := d.Live().Since(before); len(events) != 1 || events[0].Action != flags.Froze || len(events[0].Flags) > 0 {
		t.Errorf("the events are %+v, want one that says frozen", events)
	}

	// Whatever changes flags or registry is refused, and changes nothing.
	off, none := flags.Off, 0
	seeds := documentOf(t, `{"flags": [{"key": "planted"}]}`)
	rows := []flags.TenantRow{{Line: 1, Tenant: tenantOf(t, `{"slug": "new", "name": "New", "plan": "starter"}`)}}
	ways := map[string]func() error{
		"create": func() error { _, err := d.CreateFlag(ctx, ops, newFlag(t, `{"key": "more"}`)); return err },
		"patch":  func() error { _, err := d.PatchFlag(ctx, ops, "checkout", patchOf(t, `{"pct": 30}`)); return err },
		"off with the percent kept": func() error {
			_, err := d.PatchFlag(ctx, ops, "checkout", patchOf(t, `{"state": "off"}`))
			return err
		},
		"a kill and more": func() error {
			_, err := d.PatchFlag(ctx, ops, "checkout", patchOf(t, `{"state": "off", "pct": 0, "description": "x"}`))
			return err
		},
		"delete":        func() error { return d.DeleteFlag(ctx, ops, "idle", "", nil) },
		"tenant":        func() error { _, err := d.CreateTenant(ctx, ops, rows[0].Tenant); return err },
		"tenant put":    func() error { _, _, err := d.PutTenant(ctx, ops, "new", rows[0].Tenant); return err },
		"tenant patch":  func() error { _, err := d.PatchTenant(ctx, ops, "acme", tenantOf(t, `{"name": "A"}`)); return err },
		"tenant delete": func() error { return d.DeleteTenant(ctx, ops, "hooli") },
		"partner": func() error {
			_, err := d.CreatePartner(ctx, ops, partnerOf(t, `{"slug": "p", "name": "P"}`))
			return err
		},
		"partner patch": func() error {
			_, err := d.PatchPartner(ctx, ops, "nordhost", partnerOf(t, `{"name": "P"}`))
			return err
		},
		"partner delete": func() error { return d.DeletePartner(ctx, ops, "fjordit") },
		"import":         func() error { _, err := d.Import(ctx, ops, seeds, Import{}); return err },
		"import of a kill": func() error {
			_, err := d.Import(ctx, ops, flags.Document{Flags: []flags.NewFlag{{Key: "search", Patch: flags.Patch{State: &off, Pct: &none}}}}, Import{})
			return err
		},
		"import of nothing": func() error { _, err := d.Import(ctx, ops, flags.Document{}, Import{}); return err },
		"tenants":           func() error { _, err := d.ImportTenants(ctx, ops, rows, TenantImport{}); return err },
		"seeds":             func() error { return d.Plant(ctx, ops, seeds) },
		"a story":           func() error { return d.Tell(ctx, []Step{{By: ops, Plant: &seeds}}) },
	}
	if f, err := d.PatchFlag(ctx, ops, "search", patchOf(t, `{"state": "off", "pct": 0, "note": "it burns"}`)); err != nil || f.State != flags.Off {
		t.Fatalf("a kill: %v, %v", f, err)
	}
	if f, err := d.PatchFlag(ctx, ops, "idle", patchOf(t, `{"pct": 0}`)); err != nil || f.Pct != 0 {
		t.Errorf("the percent of a flag that is off: %v, %v", f, err)
	}
	ways["restore of before the kill"] = func() error { _, err := d.RestoreFlag(ctx, ops, "search", Restore{Version: 1}); return err }
	state, log := export(t, d), show(history(t, d, HistoryFilter{}))
	revision := d.Current().Revision()
	for name, do := range ways {
		var frozen *flags.Frozen
		if err := do(); !errors.As(err, &frozen) || frozen.Freeze != *f {
			t.Errorf("%s: %v, want that changes are frozen", name, err)
		}
	}
	if export(t, d) != state || show(history(t, d, HistoryFilter{})) != log || d.Current().Revision() != revision {
		t.Error("what was refused changed something")
	}
	want := "changes are frozen until 2 Jan 2026 04:04 UTC by ops@dezky.example: the launch"
	if err := ways["create"](); err == nil || err.Error() != want {
		t.Errorf("the refusal says %v, want %s", err, want)
	}

	// The rest goes on: what changes nothing, trials, API tokens, and what other systems hold.
	must(d.PatchFlag(ctx, ops, "checkout", patchOf(t, `{"pct": 20}`)))(t)
	must(d.ImportTenants(ctx, ops, rows, TenantImport{DryRun: true}))(t)
	must(d.Import(ctx, ops, seeds, Import{DryRun: true}))(t)
	if _, token, err := d.CreateToken(ctx, ops, NewToken{Name: "ci", Role: "read"}); err != nil {
		t.Error(err)
	} else {
		must(d.RevokeToken(ctx, ops, token.ID))(t)
	}
	if err := d.QueueTenant(ctx, "authentik", "acme"); err != nil {
		t.Error(err)
	}
	job, ok, err := d.DueJob(ctx, "authentik", "acme")
	if err != nil || !ok || d.JobDone(ctx, "authentik", job) != nil {
		t.Errorf("a job of an integration: %t, %v", ok, err)
	}

	// It outlives a restart, and ends by itself, without a write.
	d = reopen(t, d)
	if got := d.Current().Frozen(c.now()); got == nil || *got != *f {
		t.Errorf("after a restart: %+v, want %+v", got, f)
	}
	entries := len(history(t, d, HistoryFilter{}))
	c.advance(time.Hour - time.Millisecond)
	if _, err := d.PatchFlag(ctx, ops, "checkout", patchOf(t, `{"pct": 30}`)); err == nil {
		t.Error("a change a moment before the end is made")
	}
	c.advance(time.Millisecond)
	if got := d.Current().Frozen(c.now()); got != nil {
		t.Errorf("at its end: %+v", got)
	}
	must(d.PatchFlag(ctx, ops, "checkout", patchOf(t, `{"pct": 30}`)))(t)
	if err := d.Thaw(ctx, ops); err != nil {
		t.Fatal(err)
	}
	if got := len(history(t, d, HistoryFilter{})); got != entries+1 {
		t.Errorf("%d entries since, want the one of the change", got-entries)
	}
	if got := must(d.CheckChain(ctx, ""))(t).Wrong; got != "" {
		t.Error(got)
	}
}

// The log says who stopped changes, why and until when, each time.
func TestFreezeInTheLog(t *testing.T) {
	c := newClock()
	d := openTest(t, Options{Now: c.now})
	ctx := t.Context()
	freeze := func(reason string, d2 time.Duration) {
		t.Helper()
		must(d.Freeze(ctx, ops, flags.NewFreeze{Reason: reason, Until: c.now().Add(d2)}))(t)
	}
	freeze("launch", time.Hour)
	freeze("launch", time.Hour) // is so already
	c.advance(time.Minute)
	freeze("launch", time.Hour)
	if got := d.Current().Frozen(c.now()); !got.Since.Equal(c.now().Add(-time.Minute)) {
		t.Errorf("one that goes on is since %v, want its beginning", got.Since)
	}
	c.advance(2 * time.Hour)
	freeze("audit", 30*24*time.Hour)
	if err := d.Thaw(ctx, By{Actor: "kari@dezky.example"}); err != nil {
		t.Fatal(err)
	}
	if err := d.Thaw(ctx, ops); err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, e := range history(t, d, HistoryFilter{}) {
		got = append(got, fmt.Sprintf("%s %s %s %s %d", e.Kind, e.Name, e.Action, e.Actor, e.Revision)+" "+show(e.Changes))
	}
	want := []string{
		`instance changes thawed kari@dezky.example 4 {"reason":{"from":"audit","to":null},"until":{"from":"2026-02-01T05:05:05Z","to":null}}`,
		`instance changes frozen ops@dezky.example 3 {"reason":{"from":null,"to":"audit"},"until":{"from":null,"to":"2026-02-01T05:05:05Z"}}`,
		`instance changes frozen ops@dezky.example 2 {"until":{"from":"2026-01-02T04:04:05Z","to":"2026-01-02T04:05:05Z"}}`,
		`instance changes frozen ops@dezky.example 1 {"reason":{"from":null,"to":"launch"},"until":{"from":null,"to":"2026-01-02T04:04:05Z"}}`,
	}
	if strings.Join(got, "\n") != strings.Join(want, "\n") {
		t.Errorf("the log is\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
	var invalid *flags.Invalid
	if _, err := d.Freeze(ctx, ops, flags.NewFreeze{Until: c.now()}); !errors.As(err, &invalid) || len(invalid.Errors) != 2 {
		t.Errorf("a freeze without reason and end: %v", err)
	}
}

// A clock that was put back to before a freeze began is no reason not to change its end.
func TestFreezeAfterTheClockWasPutBack(t *testing.T) {
	c := newClock()
	d := openTest(t, Options{Now: c.now})
	ctx := t.Context()
	must(d.Freeze(ctx, ops, flags.NewFreeze{Reason: "launch", Until: c.now().Add(time.Hour)}))(t)
	c.advance(-2 * time.Hour)
	until := c.now().Add(time.Hour)
	f := must(d.Freeze(ctx, ops, flags.NewFreeze{Reason: "launch", Until: until}))(t)
	if !f.Until.Equal(until) || f.Since.After(c.now()) {
		t.Errorf("the freeze is %+v, want its end at %s and its beginning not in the future", f, until)
	}
}
