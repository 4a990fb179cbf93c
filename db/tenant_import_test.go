package db

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/dezky/platform-api/flags"
)

func rows(t testing.TB, lines ...string) []flags.TenantRow {
	t.Helper()
	return must(flags.DecodeTenantLines(strings.NewReader(strings.Join(lines, "\n"))))(t)
}

func flipsOf(flips []flags.Flip) string {
	var out []string
	for _, f := range flips {
		for _, e := range f.Impact {
			out = append(out, fmt.Sprintf("%s +%d -%d", f.Flag.Key, e.Gained, e.Lost))
		}
	}
	return strings.Join(out, ", ")
}

func TestImportTenants(t *testing.T) {
	d := flipping(t) // its environments are production and staging
	before, log, exported := d.Current(), history(t, d, HistoryFilter{}), export(t, d)
	in := rows(t,
		`{"slug": "zeta", "name": "Zeta", "plan": "business", "partnerSlug": "fjordit", "status": "suspended", "id": "z"}`,
		`{"slug": "acme", "name": "Acme", "plan": "business"}`,
		`{"slug": "hooli", "name": "Hooli", "plan": "business"}`,
		`{"slug": "globex", "name": "Globex", "plan": "starter"}`)
	var told []string
	take := func(o TenantImport) ImportedTenants {
		told = nil
		o.Progress = func(done, total int) { told = append(told, fmt.Sprintf("%d of %d", done, total)) }
		return must(d.ImportTenants(t.Context(), By{Actor: "token:crm", Via: flags.ViaToken}, in, o))(t)
	}
	says := func(x ImportedTenants) string {
		return fmt.Sprintf("%d created, %d changed, %d unchanged; %s", x.Created, x.Changed, x.Unchanged, flipsOf(x.Flips))
	}
	const want = "1 created, 2 changed, 1 unchanged; wide +0 -0, wide +1 -1"
	if got := says(take(TenantImport{DryRun: true})); got != want {
		t.Errorf("the dry run says %s, want %s", got, want)
	}
	if d.Current() != before || export(t, d) != exported {
		t.Errorf("the dry run changed the registry to\n%s", export(t, d))
	}
	sameLog(t, d, log)

	if got := says(take(TenantImport{})); got != want {
		t.Errorf("the import says %s, want %s", got, want)
	}
	if want := []string{"4 of 4"}; !slices.Equal(told, want) {
		t.Errorf("progress %q, want %q", told, want)
	}
	if got, want := d.Current().Revision(), before.Revision()+1; got != want {
		t.Errorf("revision %d, want %d", got, want)
	}
	added := history(t, d, HistoryFilter{Actor: "token:crm"})
	slices.Reverse(added)
	var lines []string
	for _, e := range added {
		lines = append(lines, what(e))
	}
	if got, want := strings.Join(lines, "\n"), `created tenant zeta
  id: null -> "z"
  name: null -> "Zeta"
  partnerSlug: null -> "fjordit"
  plan: null -> "business"
  slug: null -> "zeta"
  status: null -> "suspended"
updated tenant acme
  plan: "starter" -> "business"
updated tenant globex
  partnerSlug: "nordhost" -> null
  plan: "business" -> "starter"
flipped flag wide "flipped by registry change"
  production: +0 [] -0 []
  staging: +1 [acme] -1 [globex]`; got != want {
		t.Errorf("the log says\n%s\nwant\n%s", got, want)
	}
	_, events, ok := d.Live().Since(before.Revision())
	if !ok || len(events) != 1 || !slices.Equal(events[0].Tenants, []string{"zeta", "acme", "globex"}) || len(events[0].Flags) > 0 || events[0].Action != flags.Created {
		t.Errorf("the events are %s, want one that names the three tenants", show(events))
	}
	s := d.Current()
	if got, want := says(take(TenantImport{})), "0 created, 0 changed, 4 unchanged; "; got != want || d.Current() != s {
		t.Errorf("again it says %s at revision %d, want %s at %d", got, d.Current().Revision(), want, s.Revision())
	}
	same(t, reopen(t, d).Current(), s)
}

func TestImportTenantsRefusals(t *testing.T) {
	d := flipping(t)
	before, log := d.Current(), history(t, d, HistoryFilter{})
	tests := []struct {
		name string
		in   []flags.TenantRow
		want string
	}{
		{"every bad row, beside good ones, by its line", rows(t, ``, `{"slug": "good", "name": "Good", "plan": "starter"}`, ``,
			`{"slug": "Bad", "name": "", "plan": "gold", "partnerSlug": "nobody", "status": "asleep"}`, `{"name": "N", "plan": null}`, `{}`,
			`{"slug": "import", "name": "I", "plan": "starter"}`),
			`line 4: slug must be 1 to 63 lower-case letters, digits and hyphens, and not begin with a hyphen; ` +
				`line 4: name must not be empty; line 4: plan must be a known plan (starter, business, enterprise), not "gold"; ` +
				`line 4: partnerSlug must be a known partner, not "nobody"; line 4: status must be active or suspended; ` +
				`line 5: plan must not be null; line 5: slug is required; line 6: slug is required; line 6: name is required; line 6: plan is required; ` +
				`line 7: slug "import" is reserved`},
		{"a slug twice and three times", rows(t, `{"slug": "a", "name": "A", "plan": "starter"}`, `{"slug": "acme", "name": "A", "plan": "starter"}`,
			`{"slug": "a", "name": "A", "plan": "starter"}`, `{"slug": "a", "name": "B", "plan": "starter"}`),
			`line 3: slug is "a", as on line 1; line 4: slug is "a", as on line 1`},
		{"another's id, one twice, another than it has", rows(t, `{"slug": "a", "name": "A", "plan": "starter", "id": "t0"}`, `{"slug": "b", "name": "B", "plan": "starter", "id": "b"}`,
			`{"slug": "c", "name": "C", "plan": "starter", "id": "b"}`, `{"slug": "acme", "name": "A", "plan": "starter", "id": "new"}`),
			`line 1: id is taken: the id "t0" belongs to the tenant "globex"; line 3: id is taken: the id "b" belongs to the tenant "b"; line 4: id is "t3" and never changes`},
	}
	for _, tt := range tests {
		for _, dry := range []bool{true, false} {
			_, err := d.ImportTenants(t.Context(), ops, tt.in, TenantImport{DryRun: dry})
			if err == nil || err.Error() != tt.want {
				t.Errorf("%s (dry run: %t): %v\nwant %s", tt.name, dry, err, tt.want)
			}
		}
	}
	// A thousand mistakes are told, however they fall on rows; the rest are counted.
	var crowd []flags.TenantRow
	for i := range 700 {
		crowd = append(crowd, flags.TenantRow{Line: i + 1, Tenant: tenantOf(t, `{"plan": "gold"}`)})
		crowd[i].Tenant.Slug = new(fmt.Sprintf("x%d", i))
	}
	_, err := d.ImportTenants(t.Context(), ops, crowd, TenantImport{})
	var bad *flags.Invalid
	if !errors.As(err, &bad) || len(bad.Errors) != 1000 || bad.More != 400 || bad.Errors[999].Field != "line 500: plan" {
		t.Errorf("1,400 mistakes: %.100v, %d and %d more, want 1,000 and 400", err, len(bad.Errors), bad.More)
	}
	if d.Current() != before {
		t.Errorf("what was refused changed the registry to\n%s", export(t, d))
	}
	sameLog(t, d, log)
}

// An import that may be interrupted ends with its context, and leaves nothing; another ends as it would.
func TestImportTenantsInterrupted(t *testing.T) {
	d := openTest(t, Options{})
	var crowd []flags.TenantRow
	for i, p := range manyTenants(1500) {
		p.PartnerSlug = nil
		crowd = append(crowd, flags.TenantRow{Line: i + 1, Tenant: p})
	}
	before := d.Current()
	for _, interruptible := range []bool{true, false} {
		ctx, cancel := context.WithCancel(t.Context())
		done, err := d.ImportTenants(ctx, ops, crowd, TenantImport{Interruptible: interruptible, Progress: func(int, int) { cancel() }})
		if interruptible && (!errors.Is(err, context.Canceled) || d.Current() != before || len(history(t, d, HistoryFilter{})) > 0) {
			t.Errorf("interrupted: %v at revision %d, want the context's error and nothing changed", err, d.Current().Revision())
		}
		if !interruptible && (err != nil || done.Created != 1500) {
			t.Errorf("not to be interrupted: %v, created %d, want 1,500", err, done.Created)
		}
	}
}

func TestImportTenantsTellsProgress(t *testing.T) {
	d := openTest(t, Options{})
	var crowd []flags.TenantRow
	for i, p := range manyTenants(2500) {
		p.PartnerSlug = nil
		crowd = append(crowd, flags.TenantRow{Line: i + 1, Tenant: p})
	}
	var told []int
	done := must(d.ImportTenants(t.Context(), ops, crowd, TenantImport{Progress: func(done, total int) {
		if total != 2500 {
			t.Errorf("of %d, want 2,500", total)
		}
		told = append(told, done)
	}}))(t)
	if want := []int{1000, 2000, 2500}; !slices.Equal(told, want) || done.Created != 2500 {
		t.Errorf("told %v and created %d, want %v and 2,500", told, done.Created, want)
	}
}
