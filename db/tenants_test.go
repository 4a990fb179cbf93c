package db

import (
	"context"
	"errors"
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"github.com/dezky/platform-api/flags"
)

// seededRand is randomness that is the same in every run.
func seededRand() *rand.ChaCha8 { return rand.NewChaCha8([32]byte{}) }

// One tenant's life, each step with what comes back and what the log says.
func TestTenantLife(t *testing.T) {
	c := newClock()
	d := openTest(t, Options{Now: c.now, Rand: seededRand()})
	importTest(t, d, `{"partners": [{"slug": "fjordit", "name": "Fjord IT"}, {"slug": "nordhost", "name": "Nordhost"}]}`)
	ctx := t.Context()
	patch := func(body string) func() (any, error) {
		return func() (any, error) { return d.PatchTenant(ctx, ops, "acme", tenantOf(t, body)) }
	}
	var created bool
	put := func(body string) func() (any, error) {
		return func() (any, error) {
			x, is, err := d.PutTenant(ctx, ops, "acme", tenantOf(t, body))
			created = is
			return x, err
		}
	}
	remove := func() (any, error) { return nil, d.DeleteTenant(ctx, ops, "acme") }
	steps := []struct {
		name    string
		do      func() (any, error)
		want    string
		log     string // the new entry, "" for none
		created bool   // of put
	}{
		{"created, with an id of its own", func() (any, error) {
			return d.CreateTenant(ctx, ops, tenantOf(t, `{"slug": "acme", "name": " Acme ", "plan": "starter"}`))
		}, `{"id":"1a6f419ec627c76b1bfb1fa3","slug":"acme","name":"Acme","plan":"starter","partnerSlug":null,"status":"active","provisioningStatus":{},"provisioningErrors":{},"createdAt":"2026-01-02T03:04:06Z","updatedAt":"2026-01-02T03:04:06Z"}`,
			`#3 03:04:06 r2 ops@dezky.example: created tenant acme
  id: null -> "1a6f419ec627c76b1bfb1fa3"
  name: null -> "Acme"
  partnerSlug: null -> null
  plan: null -> "starter"
  slug: null -> "acme"
  status: null -> "active"`, false},
		{"patched", patch(`{"plan": "business", "partnerSlug": "nordhost"}`),
			`{"id":"1a6f419ec627c76b1bfb1fa3","slug":"acme","name":"Acme","plan":"business","partnerSlug":"nordhost","status":"active","provisioningStatus":{},"provisioningErrors":{},"createdAt":"2026-01-02T03:04:06Z","updatedAt":"2026-01-02T03:04:07Z"}`,
			`#4 03:04:07 r3 ops@dezky.example: updated tenant acme
  partnerSlug: null -> "nordhost"
  plan: "starter" -> "business"`, false},
		{"patched to what it is", patch(`{"id": "1a6f419ec627c76b1bfb1fa3", "slug": "acme", "plan": "business", "name": "Acme "}`),
			`{"id":"1a6f419ec627c76b1bfb1fa3","slug":"acme","name":"Acme","plan":"business","partnerSlug":"nordhost","status":"active","provisioningStatus":{},"provisioningErrors":{},"createdAt":"2026-01-02T03:04:06Z","updatedAt":"2026-01-02T03:04:07Z"}`,
			"", false},
		{"put: what is left out is as for a new one", put(`{"name": "Acme Corp", "plan": "enterprise"}`),
			`{"id":"1a6f419ec627c76b1bfb1fa3","slug":"acme","name":"Acme Corp","plan":"enterprise","partnerSlug":null,"status":"active","provisioningStatus":{},"provisioningErrors":{},"createdAt":"2026-01-02T03:04:06Z","updatedAt":"2026-01-02T03:04:09Z"}`,
			`#5 03:04:09 r4 ops@dezky.example: updated tenant acme
  name: "Acme" -> "Acme Corp"
  partnerSlug: "nordhost" -> null
  plan: "business" -> "enterprise"`, false},
		{"suspended", patch(`{"status": "suspended"}`),
			`{"id":"1a6f419ec627c76b1bfb1fa3","slug":"acme","name":"Acme Corp","plan":"enterprise","partnerSlug":null,"status":"suspended","provisioningStatus":{},"provisioningErrors":{},"createdAt":"2026-01-02T03:04:06Z","updatedAt":"2026-01-02T03:04:10Z"}`,
			`#6 03:04:10 r5 ops@dezky.example: updated tenant acme
  status: "active" -> "suspended"`, false},
		{"put: active again, for that was left out", put(`{"id": "1a6f419ec627c76b1bfb1fa3", "slug": "acme", "name": "Acme Corp", "plan": "enterprise", "partnerSlug": "fjordit"}`),
			`{"id":"1a6f419ec627c76b1bfb1fa3","slug":"acme","name":"Acme Corp","plan":"enterprise","partnerSlug":"fjordit","status":"active","provisioningStatus":{},"provisioningErrors":{},"createdAt":"2026-01-02T03:04:06Z","updatedAt":"2026-01-02T03:04:11Z"}`,
			`#7 03:04:11 r6 ops@dezky.example: updated tenant acme
  partnerSlug: null -> "fjordit"
  status: "suspended" -> "active"`, false},
		{"put to what it is", put(`{"name": "Acme Corp", "plan": "enterprise", "partnerSlug": "fjordit"}`),
			`{"id":"1a6f419ec627c76b1bfb1fa3","slug":"acme","name":"Acme Corp","plan":"enterprise","partnerSlug":"fjordit","status":"active","provisioningStatus":{},"provisioningErrors":{},"createdAt":"2026-01-02T03:04:06Z","updatedAt":"2026-01-02T03:04:11Z"}`,
			"", false},
		{"deleted", remove, `null`,
			`#8 03:04:13 r7 ops@dezky.example: deleted tenant acme
  id: "1a6f419ec627c76b1bfb1fa3" -> null
  name: "Acme Corp" -> null
  partnerSlug: "fjordit" -> null
  plan: "enterprise" -> null
  slug: "acme" -> null
  status: "active" -> null`, false},
		{"put where there is none: created, the slug from the path, another id", put(`{"name": "Acme", "plan": "starter"}`),
			`{"id":"7c41a11ea46add6a48d89474","slug":"acme","name":"Acme","plan":"starter","partnerSlug":null,"status":"active","provisioningStatus":{},"provisioningErrors":{},"createdAt":"2026-01-02T03:04:14Z","updatedAt":"2026-01-02T03:04:14Z"}`,
			`#9 03:04:14 r8 ops@dezky.example: created tenant acme
  id: null -> "7c41a11ea46add6a48d89474"
  name: null -> "Acme"
  partnerSlug: null -> null
  plan: null -> "starter"
  slug: null -> "acme"
  status: null -> "active"`, true},
		{"deleted again", remove, `null`,
			`#10 03:04:15 r9 ops@dezky.example: deleted tenant acme
  id: "7c41a11ea46add6a48d89474" -> null
  name: "Acme" -> null
  partnerSlug: null -> null
  plan: "starter" -> null
  slug: "acme" -> null
  status: "active" -> null`, false},
		{"put with an id that was another's once", put(`{"id": "1a6f419ec627c76b1bfb1fa3", "slug": "acme", "name": "Acme", "plan": "starter", "status": "suspended"}`),
			`{"id":"1a6f419ec627c76b1bfb1fa3","slug":"acme","name":"Acme","plan":"starter","partnerSlug":null,"status":"suspended","provisioningStatus":{},"provisioningErrors":{},"createdAt":"2026-01-02T03:04:16Z","updatedAt":"2026-01-02T03:04:16Z"}`,
			`#11 03:04:16 r10 ops@dezky.example: created tenant acme
  id: null -> "1a6f419ec627c76b1bfb1fa3"
  name: null -> "Acme"
  partnerSlug: null -> null
  plan: null -> "starter"
  slug: null -> "acme"
  status: null -> "suspended"`, true},
	}
	for _, s := range steps {
		c.advance(time.Second)
		created = false
		before, count := d.Current(), len(history(t, d, HistoryFilter{}))
		x, err := s.do()
		if err != nil {
			t.Fatalf("%s: %v", s.name, err)
		}
		if got := show(x); got != s.want {
			t.Errorf("%s: the tenant is\n%s\nwant\n%s", s.name, got, s.want)
		}
		if got := show(d.Current().Tenant("acme")); got != s.want {
			t.Errorf("%s: the snapshot has\n%s\nwant\n%s", s.name, got, s.want)
		}
		if created != s.created {
			t.Errorf("%s: created = %t, want %t", s.name, created, s.created)
		}
		added := len(history(t, d, HistoryFilter{})) - count
		switch {
		case s.log == "" && (added > 0 || d.Current() != before):
			t.Errorf("%s: it wrote %d entries, and the snapshot is at revision %d, want nothing new at %d", s.name, added, d.Current().Revision(), before.Revision())
		case s.log != "" && (added != 1 || newest(t, d) != s.log):
			t.Errorf("%s: the log has %d new entries, the last\n%s\nwant\n%s", s.name, added, newest(t, d), s.log)
		}
	}
	s := d.Current()
	same(t, reopen(t, d).Current(), s)
}

func TestTenantRefusals(t *testing.T) {
	d := openTest(t, Options{})
	importTest(t, d, world)
	ctx := t.Context()
	for _, body := range []string{
		`{"key": "zebra", "scope": {"tenantSlugs": ["acme"]}}`, // also while off
		`{"key": "alpha", "state": "targeted", "scope": {"tenantSlugs": ["acme", "globex"]}}`,
		`{"key": "other", "scope": {"tenantSlugs": ["hooli"], "partnerSlugs": ["nordhost"]}}`,
	} {
		must(d.CreateFlag(ctx, ops, newFlag(t, body)))(t)
	}
	create := func(body string) error {
		_, err := d.CreateTenant(ctx, ops, tenantOf(t, body))
		return err
	}
	patch := func(slug, body string) error {
		_, err := d.PatchTenant(ctx, ops, slug, tenantOf(t, body))
		return err
	}
	put := func(slug, body string) error {
		_, _, err := d.PutTenant(ctx, ops, slug, tenantOf(t, body))
		return err
	}
	tests := []struct {
		name string
		err  error
		want string
	}{
		{"create: nothing given", create(`{}`), "invalid: slug, name, plan"},
		{"create: everything wrong", create(`{"id": "a b", "slug": "Acme", "name": "", "plan": "gold", "partnerSlug": "nobody", "status": "gone"}`),
			"invalid: id, slug, name, plan, partnerSlug, status"},
		{"create: the reserved slug", create(`{"slug": "import", "name": "Import", "plan": "starter"}`), "invalid: slug"},
		{"create: slug taken", create(`{"slug": "acme", "name": "Acme", "plan": "starter"}`), `conflict: a tenant "acme" exists`},
		{"create: id taken", create(`{"id": "t0", "slug": "new", "name": "New", "plan": "starter"}`), `conflict: the id "t0" belongs to the tenant "globex"`},
		{"patch: unknown", patch("nobody", `{"plan": "gold"}`), `not found: tenant "nobody": not found`},
		{"patch: another id and slug", patch("acme", `{"id": "t4", "slug": "acme2"}`), "invalid: id, slug"},
		{"patch: null", patch("acme", `{"name": null, "plan": null}`), "invalid: name, plan"},
		{"patch: unknown partner", patch("acme", `{"partnerSlug": "nobody"}`), "invalid: partnerSlug"},
		{"put: too little", put("acme", `{"status": "active"}`), "invalid: name, plan"},
		{"put: another id than it has", put("acme", `{"id": "t4", "name": "Acme", "plan": "starter"}`), "invalid: id"},
		{"put: another slug than the path's", put("acme", `{"slug": "acme2", "name": "Acme", "plan": "starter"}`), "invalid: slug"},
		{"put: another slug than a new path's", put("new", `{"slug": "newer", "name": "Acme", "plan": "starter"}`), "invalid: slug"},
		{"put: a path that is no slug", put("New One", `{"name": "Acme", "plan": "starter"}`), "invalid: slug"},
		{"put: id taken", put("new", `{"id": "t0", "name": "New", "plan": "starter"}`), `conflict: the id "t0" belongs to the tenant "globex"`},
		{"delete: unknown", d.DeleteTenant(ctx, ops, "nobody"), `not found: tenant "nobody": not found`},
		{"delete: named by scopes", d.DeleteTenant(ctx, ops, "acme"), `conflict: the tenant "acme" is named by the scope of flags [alpha zebra] []`},
		{"delete: named by one", d.DeleteTenant(ctx, ops, "hooli"), `conflict: the tenant "hooli" is named by the scope of flags [other] []`},
	}
	for _, tt := range tests {
		if got := outcome(tt.err); got != tt.want {
			t.Errorf("%s: %s\nwant %s", tt.name, got, tt.want)
		}
	}
	if got, want := d.Current().Revision(), int64(4); got != want {
		t.Errorf("revision %d after refusals, want %d", got, want)
	}
	if got, want := len(history(t, d, HistoryFilter{})), 9; got != want {
		t.Errorf("%d log entries after refusals, want %d", got, want)
	}

	// Out of the scopes, it goes; so does one that only its partner is named of.
	for _, key := range []string{"alpha", "zebra"} {
		must(d.PatchFlag(ctx, ops, key, patchOf(t, `{"scope": {"tenantSlugs": null}}`)))(t)
	}
	for _, slug := range []string{"acme", "initech"} {
		if err := d.DeleteTenant(ctx, ops, slug); err != nil || d.Current().Tenant(slug) != nil {
			t.Errorf("DeleteTenant(%s): %v, and it is %s, want it gone", slug, err, show(d.Current().Tenant(slug)))
		}
	}
}

// What integrations reported is not lost by a change of anything else.
func TestTenantKeepsProvisioning(t *testing.T) {
	d := openTest(t, Options{})
	ctx := t.Context()
	p := tenantOf(t, `{"id": "t1", "slug": "dezky", "name": "Dezky", "plan": "enterprise"}`)
	p.ProvisioningStatus = map[string]string{"authentik": "ok"}
	must(d.CreateTenant(ctx, ops, p))(t)
	must(d.PatchTenant(ctx, ops, "dezky", tenantOf(t, `{"plan": "starter"}`)))(t)
	if _, _, err := d.PutTenant(ctx, ops, "dezky", tenantOf(t, `{"name": "Dezky AS", "plan": "starter"}`)); err != nil {
		t.Fatal(err)
	}
	s := d.Current()
	if got, want := show(s.Tenant("dezky").Integrations.All()), `[{"Name":"authentik","State":"ok","Error":""}]`; got != want {
		t.Errorf("provisioning status %s, want %s", got, want)
	}
	same(t, reopen(t, d).Current(), s)
}

func TestGeneratedIDs(t *testing.T) {
	ids := func() (ids []string) {
		d := openTest(t, Options{Rand: seededRand()})
		for _, slug := range []string{"a", "b", "c"} {
			x := must(d.CreateTenant(context.Background(), ops, tenantOf(t, `{"slug": "`+slug+`", "name": "N", "plan": "starter"}`)))(t)
			ids = append(ids, x.ID)
		}
		return ids
	}
	first, second := ids(), ids()
	if !slices.Equal(first, second) {
		t.Errorf("the same randomness gives the ids %v, then %v", first, second)
	}
	for i, id := range first {
		if len(id) != 24 || slices.Contains(first[:i], id) {
			t.Errorf("ids %v, want 24 characters each, and all different", first)
		}
	}
}

// A change that names what its maker saw is refused once that is no more so, also within one millisecond.
func TestChangeOfAStaleTenant(t *testing.T) {
	c := newClock() // which stands still
	d := openTest(t, Options{Now: c.now})
	create := func() *flags.Tenant {
		return must(d.CreateTenant(t.Context(), ops, tenantOf(t, `{"slug": "acme", "name": "Acme", "plan": "starter"}`)))(t)
	}
	refused := func(what string, seen *flags.Tenant, act func(mark string) error) {
		t.Helper()
		before := d.Current()
		var stale *flags.StaleTenant
		if err := act(seen.Mark()); !errors.As(err, &stale) || stale.Current != before.Tenant("acme") {
			t.Errorf("%s: %v, want *flags.StaleTenant with the tenant as it is", what, err)
		}
		if d.Current() != before {
			t.Errorf("%s: something changed", what)
		}
	}
	rename := func(mark string) error {
		_, err := d.PatchTenantAt(t.Context(), ops, "acme", mark, tenantOf(t, `{"name": "Mine"}`))
		return err
	}
	remove := func(mark string) error { return d.DeleteTenantAt(t.Context(), ops, "acme", mark) }

	seen := create()
	for _, body := range []string{`{"name": "Theirs"}`, `{"plan": "business"}`, `{"status": "suspended"}`} {
		changed := must(d.PatchTenant(t.Context(), ops, "acme", tenantOf(t, body)))(t)
		if !changed.UpdatedAt.Equal(seen.UpdatedAt) {
			t.Fatal("the clock moves")
		}
		refused("rename after "+body, seen, rename)
		refused("remove after "+body, seen, remove)
		seen = changed.Tenant
	}
	if err := d.DeleteTenant(t.Context(), ops, "acme"); err != nil {
		t.Fatal(err)
	}
	if err := rename(seen.Mark()); !errors.Is(err, flags.ErrNotFound) {
		t.Errorf("rename of none: %v, want ErrNotFound", err)
	}
	first := create()
	if err := remove(first.Mark()); err != nil {
		t.Fatal(err)
	}
	next := create()
	refused("remove the slug's next tenant", first, remove)

	changed := must(d.PatchTenantAt(t.Context(), ops, "acme", next.Mark(), tenantOf(t, `{"name": "Mine"}`)))(t)
	if changed.Name != "Mine" || changed.Revision != d.Current().Revision() {
		t.Errorf("the change of what was seen = %s of revision %d, want Mine of %d", changed.Name, changed.Revision, d.Current().Revision())
	}
	same := must(d.PatchTenantAt(t.Context(), ops, "acme", changed.Mark(), tenantOf(t, `{"name": "Mine"}`)))(t)
	if same.Revision != 0 {
		t.Errorf("nothing changed in revision %d, want 0", same.Revision)
	}
}

// What a tenant's change flipped is found by its revision, and nothing of other revisions with it.
func TestFlippedWith(t *testing.T) {
	d := openTest(t, Options{})
	importTest(t, d, `{"tenants": [{"id": "t1", "slug": "acme", "name": "Acme", "plan": "starter"}, {"id": "t2", "slug": "globex", "name": "Globex", "plan": "starter"}]}`)
	for _, key := range []string{"paid_b", "paid_a"} {
		must(d.CreateFlag(t.Context(), ops, flags.NewFlag{Key: key, Patch: flags.Patch{State: new(flags.Targeted), Scope: map[flags.Axis][]string{flags.AxisPlans: {"business"}}}}))(t)
	}
	revisions := map[string]int64{}
	for _, step := range []struct{ name, slug, body string }{
		{"gain", "acme", `{"plan": "business"}`}, {"other", "globex", `{"plan": "business"}`}, {"name", "acme", `{"name": "A"}`}, {"lose", "acme", `{"plan": "enterprise"}`},
	} {
		revisions[step.name] = must(d.PatchTenant(t.Context(), ops, step.slug, tenantOf(t, step.body)))(t).Revision
		must(d.CreateFlag(t.Context(), ops, flags.NewFlag{Key: "after_" + step.name}))(t)
	}
	for _, tt := range []struct {
		slug, revision string
		want           []string
	}{
		{"acme", "gain", []string{"paid_a +acme", "paid_b +acme"}}, {"globex", "other", []string{"paid_a +globex", "paid_b +globex"}},
		{"acme", "name", nil}, {"acme", "lose", []string{"paid_a -acme", "paid_b -acme"}}, {"acme", "other", nil}, {"nobody", "gain", nil},
	} {
		var got []string
		for _, e := range must(d.FlippedWith(t.Context(), tt.slug, revisions[tt.revision]))(t) {
			for _, sign := range []struct {
				is    string
				slugs []string
			}{{"+", e.Impact["production"].Gains}, {"-", e.Impact["production"].Losses}} {
				for _, slug := range sign.slugs {
					got = append(got, e.Name+" "+sign.is+slug)
				}
			}
		}
		if !slices.Equal(got, tt.want) {
			t.Errorf("FlippedWith(%s, %s) = %q, want %q", tt.slug, tt.revision, got, tt.want)
		}
	}
}
