package db

import (
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/dezky/platform-api/flags"
)

func TestHistoryFilters(t *testing.T) {
	d := openTest(t, Options{})
	ctx := t.Context()
	importTest(t, d, world)                                                                         // 1 to 6
	must(d.CreateFlag(ctx, ops, newFlag(t, `{"key": "acme"}`)))(t)                                  // 7: a flag with a tenant's name
	must(d.PatchFlag(ctx, By{Actor: "token:ci"}, "acme", patchOf(t, `{"pct": 5}`)))(t)              // 8
	must(d.PatchTenant(ctx, By{Actor: "token:ci"}, "acme", tenantOf(t, `{"plan": "business"}`)))(t) // 9
	must(d.CreateFlag(ctx, ops, newFlag(t, `{"key": "search"}`)))(t)                                // 10
	if _, _, err := d.CreateToken(ctx, ops, NewToken{Name: "acme", Role: "read"}); err != nil {     // 11: a token too
		t.Fatal(err)
	}
	if err := d.DeleteFlag(ctx, ops, "acme", "", nil); err != nil { // 12
		t.Fatal(err)
	}
	tests := []struct {
		name string
		in   HistoryFilter
		want []int64
	}{
		{"all", HistoryFilter{Limit: 100}, []int64{12, 11, 10, 9, 8, 7, 6, 5, 4, 3, 2, 1}},
		{"none", HistoryFilter{}, nil},
		{"the newest", HistoryFilter{Limit: 3}, []int64{12, 11, 10}},
		{"a page on", HistoryFilter{Before: 10, Limit: 3}, []int64{9, 8, 7}},
		{"before the first", HistoryFilter{Before: 1, Limit: 3}, nil},
		{"a flag, deleted", HistoryFilter{Flag: "acme", Limit: 100}, []int64{12, 8, 7}},
		{"a flag, a page on", HistoryFilter{Flag: "acme", Before: 12, Limit: 1}, []int64{8}},
		{"a tenant", HistoryFilter{Tenant: "acme", Limit: 100}, []int64{9, 3}},
		{"an actor", HistoryFilter{Actor: "token:ci", Limit: 100}, []int64{9, 8}},
		{"a flag by an actor", HistoryFilter{Flag: "acme", Actor: "token:ci", Limit: 100}, []int64{8}},
		{"a flag and a tenant are never one entry", HistoryFilter{Flag: "acme", Tenant: "acme", Limit: 100}, nil},
		{"unknown", HistoryFilter{Flag: "nothing", Limit: 100}, nil},
		{"SQL is a name like any other", HistoryFilter{Flag: "' OR 1 --", Limit: 100}, nil},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			var got []int64
			for _, e := range must(d.History(ctx, tt.in))(t) {
				got = append(got, e.ID)
			}
			if !slices.Equal(got, tt.want) {
				t.Errorf("History(%+v) has the entries %v, want %v", tt.in, got, tt.want)
			}
		})
	}
	for key, want := range map[string]bool{"acme": true, "search": true, "globex": false, "nothing": false} {
		if got := must(d.EverFlag(ctx, key))(t); got != want {
			t.Errorf("EverFlag(%s) = %t, want %t", key, got, want)
		}
	}
}

func TestTimesNeverGoBack(t *testing.T) {
	c := newClock()
	d := openTest(t, Options{Now: c.now})
	ctx := t.Context()
	at := func() string { return history(t, d, HistoryFilter{Limit: 1})[0].At.Format(time.TimeOnly) }
	step := func(name string, move time.Duration, want string, do func() (time.Time, error)) {
		t.Helper()
		c.advance(move)
		said, err := do()
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		if got := said.Format(time.TimeOnly); got != want || at() != want {
			t.Errorf("%s: it says %s and the log %s, want %s", name, got, at(), want)
		}
	}
	patch := func(by By, pct int) func() (time.Time, error) {
		return func() (time.Time, error) {
			f, err := d.PatchFlag(ctx, by, "search", flags.Patch{Pct: &pct})
			if err != nil {
				return time.Time{}, err
			}
			return f.UpdatedAt, nil
		}
	}
	step("created", 0, "03:04:05", func() (time.Time, error) {
		f, err := d.CreateFlag(ctx, ops, newFlag(t, `{"key": "search"}`))
		return f.CreatedAt, err
	})
	step("the clock goes back", -time.Hour, "03:04:05", patch(ops, 1))
	step("and on, but not far enough", time.Minute, "03:04:05", patch(ops, 2))
	step("a token meanwhile", 0, "03:04:05", func() (time.Time, error) {
		_, token, err := d.CreateToken(ctx, ops, NewToken{Name: "ci", Role: "read"})
		return token.CreatedAt, err
	})
	step("beyond", time.Hour, "03:05:05", patch(ops, 3))
	step("told later, of before", 0, "03:05:05", patch(By{Actor: "me", At: c.now().Add(-time.Hour)}, 4))
	step("told ahead", 0, "03:06:05", patch(By{Actor: "me", At: c.now().Add(time.Minute)}, 5))
	step("back to the clock, which is behind that", 0, "03:06:05", patch(ops, 6))
	step("beyond that too", 2*time.Minute, "03:07:05", patch(ops, 7))

	log := history(t, d, HistoryFilter{})
	slices.Reverse(log)
	if !slices.IsSortedFunc(log, func(a, b flags.Entry) int { return a.At.Compare(b.At) }) {
		t.Errorf("the log's times go back: %s", fmt.Sprint(headlines(log)))
	}
}
