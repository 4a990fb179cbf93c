package db

import (
	"slices"
	"testing"

	"github.com/dezky/platform-api/flags"
)

const seeds = `{
	"partners": [{"slug": "nordhost", "name": "Nordhost"}],
	"tenants": [{"id": "t1", "slug": "dezky", "name": "Dezky", "plan": "enterprise", "partnerSlug": "nordhost"}],
	"flags": [{"key": "mail"}, {"key": "search", "state": "targeted", "scope": {"tenantSlugs": ["dezky"]}}]}`

func plant(t *testing.T, d *DB, document string) {
	t.Helper()
	if err := d.Plant(t.Context(), By{Actor: "system:seed"}, documentOf(t, document)); err != nil {
		t.Fatal(err)
	}
}

func TestPlant(t *testing.T) {
	d := openTest(t, Options{})
	ctx := t.Context()
	plant(t, d, seeds)
	log := history(t, d, HistoryFilter{})
	if got, want := headlines(log), []string{"created flag search v1", "created flag mail v1", "created tenant dezky", "created partner nordhost"}; !slices.Equal(got, want) {
		t.Errorf("the log has %q, want %q", got, want)
	}
	for _, e := range log {
		if e.Actor != "system:seed" || e.Revision != 1 {
			t.Errorf("%s, want that system:seed did it in revision 1", render(e))
		}
	}

	// Planting again, also after an edit and a removal of everything, does nothing.
	planted := func(want int64) {
		t.Helper()
		for range 2 {
			before := d.Current()
			plant(t, d, seeds)
			if d.Current() != before || before.Revision() != want {
				t.Errorf("planted again: revision %d, want %d to stay", d.Current().Revision(), want)
			}
			d = reopen(t, d)
			same(t, d.Current(), before)
		}
	}
	planted(1)
	must(d.PatchFlag(ctx, ops, "search", patchOf(t, `{"state": "on", "scope": {"tenantSlugs": []}}`)))(t)
	must(d.PatchTenant(ctx, ops, "dezky", tenantOf(t, `{"name": "Dezky AS", "partnerSlug": ""}`)))(t)
	planted(3)
	for _, err := range []error{d.DeleteFlag(ctx, ops, "mail", "", nil), d.DeleteTenant(ctx, ops, "dezky"), d.DeletePartner(ctx, ops, "nordhost")} {
		if err != nil {
			t.Fatal(err)
		}
	}
	planted(6)
	if s := d.Current(); s.Flag("mail") != nil || s.Tenant("dezky") != nil || s.Partner("nordhost") != nil || s.Flag("search").State != flags.On {
		t.Errorf("an edit or a removal did not stay: %s", export(t, d))
	}

	// A later version's new seed comes, unless somebody had that name first.
	must(d.CreateFlag(ctx, ops, newFlag(t, `{"key": "taken", "state": "on"}`)))(t)
	must(d.CreateFlag(ctx, ops, newFlag(t, `{"key": "gone"}`)))(t)
	if err := d.DeleteFlag(ctx, ops, "gone", "", nil); err != nil {
		t.Fatal(err)
	}
	plant(t, d, `{"flags": [{"key": "mail"}, {"key": "later"}, {"key": "taken"}, {"key": "gone"}]}`)
	if s := d.Current(); s.Revision() != 10 || s.Flag("later") == nil || s.Flag("taken").State != flags.On || s.Flag("gone") != nil || s.Flag("mail") != nil {
		t.Errorf("revision %d with %s, want 10, with only later new", s.Revision(), show(s.Flags()))
	}
}

func TestPlantAllOrNothing(t *testing.T) {
	d := openTest(t, Options{})
	for _, tt := range []struct{ in, want string }{
		{`{"flags": [{"key": "a"}, {"key": "b", "scope": {"tenantSlugs": ["nobody"]}}]}`, "invalid: scope.tenantSlugs[0]"},
		{`{"tenants": [{"id": "t", "slug": "a", "name": "A", "plan": "starter"}, {"id": "t", "slug": "b", "name": "B", "plan": "starter"}]}`,
			`conflict: the id "t" belongs to the tenant "a"`},
	} {
		if err := d.Plant(t.Context(), ops, documentOf(t, tt.in)); outcome(err) != tt.want {
			t.Errorf("Plant: %s, want %s", outcome(err), tt.want)
		}
	}
	// Of what failed, nothing counts as planted.
	plant(t, d, `{"flags": [{"key": "a"}], "tenants": [{"id": "t", "slug": "a", "name": "A", "plan": "starter"}]}`)
	if s := d.Current(); s.Flag("a") == nil || s.Tenant("a") == nil || s.Revision() != 1 {
		t.Errorf("revision %d with %s, want flag and tenant at 1", s.Revision(), export(t, d))
	}
}

// A directory that an import fills first has had its seeds: what the import left out stays out.
func TestImportCountsAsSeeded(t *testing.T) {
	tests := []struct {
		name   string
		before func(*DB)
		dryRun bool
		want   []string // what planting adds, oldest first
	}{
		{"into an empty directory", func(*DB) {}, false, []string{}},
		{"into one that has a token", func(d *DB) {
			if _, _, err := d.CreateToken(t.Context(), ops, NewToken{Name: "ci", Role: "read"}); err != nil {
				t.Fatal(err)
			}
		}, false, []string{}},
		{"into one that has a flag", func(d *DB) { must(d.CreateFlag(t.Context(), ops, newFlag(t, `{"key": "own"}`)))(t) }, false,
			[]string{"created partner nordhost", "created tenant dezky", "created flag mail v1"}},
		{"into one that had a tenant", func(d *DB) {
			must(d.CreateTenant(t.Context(), ops, tenantOf(t, `{"slug": "dezky", "name": "D", "plan": "starter"}`)))(t)
			if err := d.DeleteTenant(t.Context(), ops, "dezky"); err != nil {
				t.Fatal(err)
			}
		}, false, []string{"created partner nordhost", "created flag mail v1"}},
		{"dry", func(*DB) {}, true, []string{"created partner nordhost", "created tenant dezky", "created flag mail v1", "created flag search v1"}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			d := openTest(t, Options{})
			tt.before(d)
			must(d.Import(t.Context(), ops, documentOf(t, `{"flags": [{"key": "search", "state": "on"}]}`), Import{Seeds: documentOf(t, seeds), DryRun: tt.dryRun}))(t)
			d = reopen(t, d)
			log := len(history(t, d, HistoryFilter{}))
			plant(t, d, seeds)
			added := headlines(history(t, d, HistoryFilter{}))
			added = added[:len(added)-log]
			slices.Reverse(added)
			if !slices.Equal(added, tt.want) {
				t.Errorf("planting adds %q, want %q", added, tt.want)
			}
		})
	}
	// An import that fails is none.
	d := openTest(t, Options{})
	if _, err := d.Import(t.Context(), ops, documentOf(t, `{"flags": [{"key": "X"}]}`), Import{Seeds: documentOf(t, seeds)}); err == nil {
		t.Fatal("a bad import went in")
	}
	plant(t, d, seeds)
	if d.Current().Flag("mail") == nil {
		t.Error("no seeds after an import that failed")
	}
}
