package db

import (
	"strings"
	"testing"
	"time"

	"github.com/dezky/platform-api/flags"
)

func TestTell(t *testing.T) {
	c := newClock()
	d := openTest(t, Options{Now: c.now})
	at := func(actor string, ago time.Duration) By { return By{Actor: actor, At: c.now().Add(-ago)} }
	document := documentOf(t, `{"flags": [{"key": "mail"}]}`)
	partner, tenant, patch := partnerOf(t, `{"slug": "p", "name": "P"}`), tenantOf(t, `{"id": "t3", "slug": "acme", "name": "Acme", "plan": "starter", "partnerSlug": "p"}`), tenantOf(t, `{"slug": "acme", "plan": "business"}`)
	on, again := newFlag(t, `{"key": "search", "state": "rollout", "pct": 50, "note": "half"}`), newFlag(t, `{"key": "search", "pct": 50}`)
	story := []Step{
		{By: at("system:seed", 9*time.Minute), Plant: &document},
		{By: at("ann", 8*time.Minute), Partner: &partner},
		{By: at("ann", 7*time.Minute), Tenant: &tenant},
		{By: at("bob", 6*time.Minute), Create: &on},
		{By: at("bob", 5*time.Minute), Patch: &again}, // changes nothing
		{By: at("ann", 4*time.Minute), PatchTenant: &patch},
		{By: at("bob", 3*time.Minute), Delete: &flags.NewFlag{Key: "search", Patch: flags.Patch{Note: "oops"}}},
		{By: at("bob", 4*time.Minute), Restore: &flags.NewFlag{Key: "search"}, Version: 1}, // told out of order
	}
	if err := d.Tell(t.Context(), story); err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, e := range history(t, d, HistoryFilter{}) {
		line, _, _ := strings.Cut(render(e), "\n")
		got = append([]string{line}, got...)
	}
	want := `#1 02:55:05 r1 system:seed: created flag mail v1
#2 02:56:05 r2 ann: created partner p
#3 02:57:05 r3 ann: created tenant acme
#4 02:58:05 r4 bob: created flag search v1 "half"
#5 03:00:05 r5 ann: updated tenant acme
#6 03:01:05 r6 bob: deleted flag search v2 "oops"
#7 03:01:05 r7 bob: restored flag search v3`
	if got := strings.Join(got, "\n"); got != want {
		t.Errorf("the log has\n%s\nwant\n%s", got, want)
	}
	s := d.Current()
	if s.Revision() != 7 || s.Tenant("acme").Plan != "business" || s.Flag("search").Version != 3 {
		t.Errorf("revision %d, %s, want 7", s.Revision(), export(t, d))
	}
	same(t, reopen(t, d).Current(), s)
}

func TestTellAllOrNothing(t *testing.T) {
	d := openTest(t, Options{})
	before := d.Current()
	a, bad := newFlag(t, `{"key": "a"}`), newFlag(t, `{"key": "b", "pct": 101}`)
	tests := []struct {
		name string
		step Step
		want string
	}{
		{"a bad step", Step{By: ops, Create: &bad}, "step 1: pct must "},
		{"a step for nothing", Step{By: ops, Patch: &flags.NewFlag{Key: "b"}}, `step 1: flag "b": not found`},
		{"a step without a change", Step{By: ops}, "step 1: names no change"},
		{"a patch of no tenant", Step{By: ops, PatchTenant: &flags.TenantPatch{}}, "step 1: names no change"},
		{"nobody's step", Step{Create: &flags.NewFlag{Key: "b"}}, "step 1: log: "},
	}
	for _, tt := range tests {
		if err := d.Tell(t.Context(), []Step{{By: ops, Create: &a}, tt.step}); err == nil || !strings.HasPrefix(err.Error(), tt.want) {
			t.Errorf("%s: %v, want %s", tt.name, err, tt.want)
		}
	}
	if d.Current() != before || len(history(t, d, HistoryFilter{})) > 0 {
		t.Errorf("of a story that failed there is %s", export(t, d))
	}
}
