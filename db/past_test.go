package db

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"os"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/dezky/platform-api/flags"
)

// asOf asks for one tenant's flags as of a time: each flag's explanation in each environment, or the error.
func asOf(t testing.TB, d *DB, at time.Time, slug string) string {
	t.Helper()
	p, err := d.AsOf(t.Context(), at, slug)
	return answered(p, slug, err)
}

func answered(p *flags.Past, slug string, err error) string {
	if errors.Is(err, flags.ErrNotFound) {
		return explained(nil, nil)
	}
	if err != nil {
		return err.Error()
	}
	return explained(p.Snapshot, p.Tenant(slug))
}

// explained is what each flag of a snapshot comes to for a tenant, nil for none.
func explained(s *flags.Snapshot, t *flags.Tenant) string {
	if t == nil {
		return "not found"
	}
	var b strings.Builder
	for _, f := range s.Flags() {
		for _, environment := range s.Environments() {
			fmt.Fprintf(&b, "%s v%d in %s: %t, %s\n", f.Key, f.Version, environment, f.Evaluate(t, environment), show(f.Explain(t, environment)))
		}
	}
	return b.String()
}

// teller tells a random history.
type teller struct {
	*rand.Rand
	d     *DB
	clock *clock
	words map[string]int // how often each change was made
}

var (
	toldKeys     = []string{"calendar", "mail", "search"}
	toldSlugs    = []string{"acme", "globex", "hooli", "initech", "umbrella"}
	toldPartners = []string{"fjordit", "nordhost"}
)

func (x *teller) of(list []string) string { return list[x.IntN(len(list))] }

func (x *teller) some(list []string) []string {
	return slices.DeleteFunc(slices.Clone(list), func(string) bool { return x.IntN(3) > 0 })
}

// known are names of the registry now.
func names[T any](list []*T, name func(*T) string) (out []string) {
	for _, v := range list {
		out = append(out, name(v))
	}
	return out
}

func (x *teller) flag() flags.Patch {
	s := x.d.Current()
	p := flags.Patch{Scope: map[flags.Axis][]string{}}
	if x.IntN(3) > 0 {
		p.State = &flags.States[x.IntN(len(flags.States))]
	}
	if x.IntN(2) > 0 {
		p.Pct = new(x.IntN(101))
	}
	if x.IntN(4) == 0 {
		p.Description = new(fmt.Sprint("As of ", x.IntN(100), `: "ø"`))
	}
	for a, values := range map[flags.Axis][]string{flags.AxisPlans: flags.Plans, flags.AxisEnvironments: s.Environments(),
		flags.AxisTenants:  names(s.Tenants(), func(t *flags.Tenant) string { return t.Slug }),
		flags.AxisPartners: names(s.Partners(), func(p *flags.Partner) string { return p.Slug })} {
		if x.IntN(4) == 0 {
			p.Scope[a] = x.some(values)
		}
	}
	return p
}

func (x *teller) tenant(slug string) flags.TenantPatch {
	p := flags.TenantPatch{Slug: &slug, Name: new(fmt.Sprint("Tenant ", x.IntN(9))), Plan: &flags.Plans[x.IntN(3)]}
	if x.IntN(2) == 0 {
		p.PartnerSlug = new(x.of(append(names(x.d.Current().Partners(), func(p *flags.Partner) string { return p.Slug }), "")))
	}
	if x.IntN(4) == 0 {
		p.Status = new(x.of([]string{flags.Active, flags.Suspended}))
	}
	return p
}

// document is the registry as it is but for some changes.
func (x *teller) document(replace bool) flags.Document {
	var d flags.Document
	s := x.d.Current()
	for _, slug := range toldPartners {
		if !replace || x.IntN(4) > 0 {
			d.Partners = append(d.Partners, flags.PartnerPatch{Slug: new(slug), Name: new(fmt.Sprint("Partner ", x.IntN(9)))})
		}
	}
	for _, slug := range x.some(toldSlugs) {
		p := x.tenant(slug)
		if s.Tenant(slug) != nil && replace {
			p = flags.TenantPatch{Slug: &slug}
		}
		d.Tenants = append(d.Tenants, p)
	}
	for _, key := range x.some(toldKeys) {
		d.Flags = append(d.Flags, flags.NewFlag{Key: key, Patch: flags.Patch{State: &flags.States[x.IntN(4)], Pct: new(x.IntN(101))}})
	}
	return d
}

// step makes one change, or none where the registry does not allow it.
func (x *teller) step(t testing.TB) {
	t.Helper()
	ctx, d, s := t.Context(), x.d, x.d.Current()
	key, slug, partner := x.of(toldKeys), x.of(toldSlugs), x.of(toldPartners)
	var what string
	var err error
	switch n := x.IntN(15); {
	case n < 4 && s.Flag(key) == nil && x.IntN(2) == 0:
		what = "restore of a deleted flag"
		_, err = d.RestoreFlag(ctx, ops, key, Restore{Version: 1 + x.Int64N(4)})
	case n < 4 && s.Flag(key) == nil:
		what = "new flag"
		_, err = d.CreateFlag(ctx, ops, flags.NewFlag{Key: key, Patch: x.flag()})
	case n < 3:
		what = "flag"
		_, err = d.PatchFlag(ctx, ops, key, x.flag())
	case n == 3:
		what = "kill"
		_, err = d.PatchFlag(ctx, ops, key, flags.Patch{State: new(flags.Off), Pct: new(0)})
	case n == 4:
		what = "deleted flag"
		err = d.DeleteFlag(ctx, ops, key, "", nil)
	case n == 5 && s.Flag(key) != nil:
		what = "restore"
		_, err = d.RestoreFlag(ctx, ops, key, Restore{Version: 1 + x.Int64N(s.Flag(key).Version)})
	case n < 8 && s.Tenant(slug) == nil:
		what = "new tenant"
		_, err = d.CreateTenant(ctx, ops, x.tenant(slug))
	case n < 8:
		what = "tenant"
		_, err = d.PatchTenant(ctx, ops, slug, x.tenant(slug))
	case n == 8:
		what = "removed tenant"
		err = d.DeleteTenant(ctx, ops, slug)
	case n == 9 && s.Partner(partner) == nil:
		what = "new partner"
		_, err = d.CreatePartner(ctx, ops, flags.PartnerPatch{Slug: &partner, Name: new("P")})
	case n == 9 && x.IntN(2) == 0:
		what = "removed partner"
		err = d.DeletePartner(ctx, ops, partner)
	case n == 9:
		what = "renamed partner"
		_, err = d.PatchPartner(ctx, ops, partner, flags.PartnerPatch{Name: new(fmt.Sprint("P", x.IntN(9)))})
	case n == 10:
		what = "rows"
		var in []flags.TenantRow
		for i, slug := range x.some(toldSlugs) {
			in = append(in, flags.TenantRow{Line: i + 1, Tenant: x.tenant(slug)})
		}
		_, err = d.ImportTenants(ctx, ops, in, TenantImport{DryRun: x.IntN(4) == 0})
	case n == 11:
		replace := x.IntN(2) == 0
		what = fmt.Sprintf("document, replace %t", replace)
		_, err = d.Import(ctx, By{Actor: "system:import"}, x.document(replace), Import{Replace: replace, DryRun: x.IntN(4) == 0})
	case n == 12:
		what = "token"
		_, _, err = d.CreateToken(ctx, ops, NewToken{Name: fmt.Sprint("token-", x.Int64()), Role: "read"})
	case n == 13:
		what = "story"
		ago := fromMillis(x.clock.ms.Load() - x.Int64N(3000))
		on := flags.NewFlag{Key: key, Patch: x.flag()}
		tenant := x.tenant(slug)
		steps := []Step{{By: By{Actor: "ann", At: ago}, Create: &on}, {By: By{Actor: "bob", At: ago.Add(time.Second)}, PatchTenant: &tenant}}
		if s.Flag(key) != nil {
			steps[0] = Step{By: steps[0].By, Patch: &on}
		}
		if s.Tenant(slug) == nil {
			steps[1] = Step{By: steps[1].By, Tenant: &tenant}
		}
		err = d.Tell(ctx, steps)
	default:
		what = "start"
		x.d = reopen(t, d)
	}
	var invalid *flags.Invalid
	switch {
	case err == nil:
		x.words[what]++
	case !errors.Is(err, flags.ErrNotFound) && !errors.Is(err, flags.ErrConflict) && !errors.As(err, &invalid):
		t.Fatalf("%s: %v", what, err)
	}
	switch x.IntN(8) {
	case 0:
		x.clock.advance(-time.Duration(x.IntN(5000)) * time.Millisecond)
	case 1: // the same millisecond
	default:
		x.clock.advance(time.Duration(x.IntN(2000)) * time.Millisecond)
	}
}

// Whatever happened, each moment is evaluated as it was evaluated then.
func TestAsOfAgainstWhatWas(t *testing.T) {
	seeds := []uint64{1, 3, rand.Uint64()} // the last is named by its subtest
	made := map[string]int{}
	for _, seed := range seeds {
		t.Run(fmt.Sprint("seed ", seed), func(t *testing.T) {
			c := newClock()
			x := &teller{rand.New(rand.NewPCG(seed, 8)), openTest(t, Options{Now: c.now, Rand: rand.NewChaCha8([32]byte{byte(seed)})}), c, made}
			type record struct {
				at      time.Time
				s       *flags.Snapshot
				answers map[string]string // by slug
			}
			var told []record
			last := func() flags.Entry {
				if log := history(t, x.d, HistoryFilter{Limit: 1}); len(log) > 0 {
					return log[0]
				}
				return flags.Entry{}
			}
			for range 150 {
				before := last()
				stories := made["story"]
				x.step(t)
				now := last()
				if now.ID == before.ID {
					continue
				}
				r := record{now.At, x.d.Current(), map[string]string{}}
				for _, slug := range toldSlugs {
					r.answers[slug] = explained(r.s, r.s.Tenant(slug))
				}
				// What came at the same time counts; a story's first step may have come at the time before it.
				if n := len(told); n > 0 && (told[n-1].at.Equal(r.at) || made["story"] > stories) {
					told = told[:n-1]
				}
				told = append(told, r)
			}
			end := max(c.ms.Load(), told[len(told)-1].at.UnixMilli())
			for _, i := range x.Perm(len(told)) { // in no order, for what is remembered
				r := told[i]
				next := end + 1
				if i+1 < len(told) {
					next = told[i+1].at.UnixMilli()
				}
				for n, ms := range []int64{r.at.UnixMilli(), next - 1} { // as long as nothing came
					between := i+1 < len(told) && told[i+1].s.Revision() != r.s.Revision()+1 // the first step of a story
					if n > 0 && (between || x.IntN(3) > 0) {
						continue
					}
					at := fromMillis(ms).Add(999 * time.Microsecond)
					if ms == end {
						at = fromMillis(ms)
					}
					for _, slug := range toldSlugs {
						p, err := x.d.AsOf(t.Context(), at, slug)
						if got := answered(p, slug, err); got != r.answers[slug] {
							t.Fatalf("%s at %s:\n%s\nwas\n%s", slug, at, got, r.answers[slug])
						}
						if err == nil {
							got, was := p.Tenant(slug), *r.s.Tenant(slug)
							was.Integrations = nil
							if show(got) != show(was) || !got.SubscribedAt.Equal(was.SubscribedAt) || flagsShown(p.Flags()) != flagsShown(r.s.Flags()) || p.Revision() != r.s.Revision() {
								t.Fatalf("at %s: revision %d, %s and %s\nwas %d, %s and %s", at, p.Revision(), show(got), show(p.Flags()),
									r.s.Revision(), show(was), show(r.s.Flags()))
							}
						}
					}
					if got := must(x.d.FlagsAt(t.Context(), at))(t); flagsShown(got) != flagsShown(r.s.Flags()) {
						t.Fatalf("the flags at %s:\n%s\nwere\n%s", at, show(got), show(r.s.Flags()))
					}
					if got := must(x.d.TenantsAt(t.Context(), at))(t); !sameTenants(got, r.s.Tenants()) {
						t.Fatalf("the tenants at %s:\n%s\nwere\n%s", at, show(got), show(r.s.Tenants()))
					}
				}
			}
			// The states that a migration reads out of the log are those that were kept as it was written.
			kept := states(t, x.d)
			closeTest(t, x.d)
			dir := t.TempDir()
			madeBefore(t, 8, dir, x.d)
			migrated := openTest(t, Options{Dir: dir, Now: c.now})
			if got := states(t, migrated); got != kept || got == "" {
				t.Errorf("migrated states\n%s\nwant\n%s", got, kept)
			}
			if got := check(t, migrated); got != "ok" {
				t.Errorf("the database: %s", got)
			}
		})
	}
	for _, want := range []string{"new flag", "flag", "kill", "deleted flag", "restore", "restore of a deleted flag", "new tenant", "tenant",
		"removed tenant", "new partner", "removed partner", "renamed partner", "rows", "document, replace true", "document, replace false",
		"token", "story", "start"} {
		if made[want] == 0 {
			t.Errorf("no history has a %s", want)
		}
	}
}

// flagsShown are flags in full; no list is none.
func flagsShown(fs []*flags.Flag) string { return show(append([]*flags.Flag{}, fs...)) }

// sameTenants compares what evaluation and people see of tenants.
func sameTenants(got, want []*flags.Tenant) bool {
	return slices.EqualFunc(got, want, func(a, b *flags.Tenant) bool {
		return a.ID == b.ID && a.Slug == b.Slug && a.Name == b.Name && a.Plan == b.Plan && a.PartnerSlug == b.PartnerSlug && a.Status == b.Status
	})
}

// states is the table of flags' states.
func states(t testing.TB, d *DB) string {
	t.Helper()
	return strings.Join(must(collect(t.Context(), d.reader, func(row scanner) (s string, err error) { return s, row.Scan(&s) },
		"SELECT json_array(id, key, version, state, pct, description, scope_id, scope, created_at, updated_at) FROM flag_states ORDER BY id"))(t), "\n")
}

func TestAsOfRefuses(t *testing.T) {
	c := newClock()
	d := openTest(t, Options{Now: c.now})
	begin := c.now()
	for _, at := range []time.Time{begin, begin.Add(-time.Hour)} {
		if got, want := asOf(t, d, at, "acme"), "at must not be before the log begins; at 2026-01-02T03:04:05Z it has no entry"; got != want {
			t.Errorf("with no log: %s, want %s", got, want)
		}
	}
	c.advance(time.Minute)
	importTest(t, d, world)
	c.advance(time.Hour)
	for _, tt := range []struct {
		at   time.Time
		want string
	}{
		{begin, "at must not be before 2026-01-02T03:05:05Z, when the log began"},
		{begin.Add(time.Minute - time.Nanosecond), "at must not be before 2026-01-02T03:05:05Z, when the log began"},
		{time.Date(1, 1, 1, 0, 0, 0, 0, time.UTC), "at must not be before 2026-01-02T03:05:05Z, when the log began"},
		{begin.Add(time.Minute), ""}, // no flags yet
		{c.now(), ""},
		{c.now().Add(time.Millisecond), "at must not be in the future; it is 2026-01-02T04:05:05Z now"},
		{time.Date(9999, 1, 1, 0, 0, 0, 0, time.UTC), "at must not be in the future; it is 2026-01-02T04:05:05Z now"},
	} {
		if got := asOf(t, d, tt.at, "acme"); got != tt.want {
			t.Errorf("at %s: %q, want %q", tt.at, got, tt.want)
		}
	}
	_, err := d.AsOf(t.Context(), c.now(), "nobody")
	if want := `tenant "nobody" did not exist at 2026-01-02T04:05:05Z: not found`; !errors.Is(err, flags.ErrNotFound) || err.Error() != want {
		t.Errorf("%v, want %s", err, want)
	}

	// The log may be ahead of a clock that was put back: its end is then no future.
	c.advance(-2 * time.Hour)
	must(d.CreateFlag(t.Context(), ops, newFlag(t, `{"key": "search", "state": "on"}`)))(t)
	if got := asOf(t, d, begin.Add(time.Minute), "acme"); !strings.HasPrefix(got, "search v1") {
		t.Errorf("at the log's end, past the clock: %q", got)
	}
	if got, want := asOf(t, d, begin.Add(time.Minute+time.Millisecond), "acme"), "at must not be in the future; it is 2026-01-02T03:05:05Z now"; got != want {
		t.Errorf("past the log's end: %q, want %q", got, want)
	}
}

// A slug means who held it then, under whatever id.
func TestAsOfFollowsTheSlug(t *testing.T) {
	c := newClock()
	d := openTest(t, Options{Now: c.now})
	do := func(_ any, err error) time.Time {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		defer c.advance(time.Minute)
		return c.now()
	}
	begun := do(d.CreateFlag(t.Context(), ops, newFlag(t, `{"key": "search"}`)))
	first := do(d.CreateTenant(t.Context(), ops, tenantOf(t, `{"id": "t3", "slug": "acme", "name": "Acme", "plan": "starter"}`)))
	gone := do(nil, d.DeleteTenant(t.Context(), ops, "acme"))
	second := do(d.CreateTenant(t.Context(), ops, tenantOf(t, `{"id": "t4", "slug": "acme", "name": "Another", "plan": "business"}`)))
	for _, tt := range []struct {
		at         time.Time
		id, reason string
	}{{begun, "", "not found"}, {first, "t3", ""}, {gone.Add(-time.Millisecond), "t3", ""}, {gone, "", "not found"},
		{second.Add(-time.Millisecond), "", "not found"}, {second, "t4", ""}} {
		p, err := d.AsOf(t.Context(), tt.at, "acme")
		switch {
		case tt.reason != "":
			if !errors.Is(err, flags.ErrNotFound) {
				t.Errorf("at %s: %v, want that it is not found", tt.at, err)
			}
		case err != nil || p.Tenant("acme").ID != tt.id:
			t.Errorf("at %s: %v, want %s", tt.at, err, tt.id)
		}
	}
}

// A change that is committed and not published yet has not been for anyone.
func TestAsOfIsOfWhatIsPublished(t *testing.T) {
	c := newClock()
	d := openTest(t, Options{Now: c.now})
	importTest(t, d, world)
	s := d.Current()
	must(d.CreateFlag(t.Context(), ops, newFlag(t, `{"key": "search"}`)))(t)
	must(d.PatchTenant(t.Context(), ops, "acme", tenantOf(t, `{"plan": "enterprise"}`)))(t)
	must(d.CreateTenant(t.Context(), ops, tenantOf(t, `{"slug": "later", "name": "Later", "plan": "starter"}`)))(t)
	must(d.PatchTenant(t.Context(), ops, "later", tenantOf(t, `{"plan": "business"}`)))(t)
	m := moment{at: c.now(), now: s}
	if err := d.find(t.Context(), d.reader, &m); err != nil || m.revision != s.Revision() {
		t.Errorf("revision %d, %v, want %d", m.revision, err, s.Revision())
	}
	if got := must(tenantsAt(t.Context(), d.reader, m))(t); !sameTenants(got, s.Tenants()) {
		t.Errorf("the tenants are %s, want %s", show(got), show(s.Tenants()))
	}
}

func TestMomentsAreBounded(t *testing.T) {
	var ms moments
	flag := func(n int) []*flags.Flag {
		f := flags.New("search")
		f.Scope.TenantSlugs = slices.Repeat([]string{strings.Repeat("a", 48)}, n) // 64 bytes each
		return []*flags.Flag{&f}
	}
	for i := range int64(2 * momentsMost) {
		ms.put(i, flag(1))
		ms.get(0)
	}
	held := map[int64]bool{}
	for _, h := range ms.held {
		held[h.entry] = true
	}
	if len(ms.held) != momentsMost || !held[0] || held[1] || !held[2*momentsMost-1] {
		t.Errorf("%d moments, %v, want %d: the first, which is asked for always, and the last", len(ms.held), slices.Sorted(maps.Keys(held)), momentsMost)
	}
	ms.put(1000, flag(momentsSize/64)) // more than all together may be
	if _, ok := ms.get(1000); ok {
		t.Error("a moment larger than the bound is held")
	}
	for i := range int64(8) {
		ms.put(2000+i, flag(momentsSize/64/4))
		ms.put(2000+i, flag(momentsSize/64/4)) // once
	}
	sum := 0
	for _, h := range ms.held {
		sum += h.bytes
	}
	if len(ms.held) != 3 || sum != ms.bytes || sum > momentsSize {
		t.Errorf("%d moments of %d bytes, counted as %d; want 3 within %d", len(ms.held), sum, ms.bytes, momentsSize)
	}
}

// Questions about the past and changes at once.
func TestAsOfWhileChanging(t *testing.T) {
	d := openTest(t, Options{})
	importTest(t, d, world)
	must(d.CreateFlag(t.Context(), ops, newFlag(t, `{"key": "search"}`)))(t)
	at := history(t, d, HistoryFilter{Limit: 1})[0].At
	for history(t, d, HistoryFilter{Limit: 1})[0].At.Equal(at) { // later changes are at a later time
		must(d.PatchFlag(t.Context(), ops, "search", flags.Patch{Description: new(time.Now().String())}))(t)
	}
	want := asOf(t, d, at, "acme")
	var all sync.WaitGroup
	done := make(chan struct{})
	for range 4 {
		all.Go(func() {
			for {
				select {
				case <-done:
					return
				default:
				}
				if got := asOf(t, d, at, "acme"); got != want {
					t.Errorf("it is %s, was %s", got, want)
					return
				}
			}
		})
	}
	for i := range 30 {
		must(d.PatchFlag(t.Context(), ops, "search", flags.Patch{State: new(flags.Rollout), Pct: new(i)}))(t)
		must(d.PatchTenant(t.Context(), ops, "acme", flags.TenantPatch{Plan: &flags.Plans[i%3]}))(t)
	}
	close(done)
	all.Wait()
}

// The long log is that of the large database after years: 100,000 changes of flags and tenants, and the creation
// of each tenant. It returns times: when every tenant was there, half of the flags' changes later, and the end.
var long = sync.OnceValues(func() (l longLog, err error) {
	c := newClock()
	l.o = Options{Environments: []string{"production", "staging", "development"}, Now: c.now}
	if l.o.Dir, err = os.MkdirTemp("", "platform-api-long-"); err != nil {
		return l, err
	}
	longDir = l.o.Dir
	d, err := Open(context.Background(), l.o)
	if err != nil {
		return l, err
	}
	defer func() { err = errors.Join(err, d.Close()) }()
	// Most changes of flags come before most tenants: to find who gains by each would take hours.
	if _, err := d.Import(context.Background(), ops, flags.Document{Flags: manyFlags(largeFlags), Partners: manyPartners(), Tenants: manyTenants(1)}, Import{}); err != nil {
		return l, err
	}
	var story []Step
	for i := range 80_000 {
		c.advance(time.Second)
		story = append(story, Step{By: By{Actor: ops.Actor, At: c.now()}, Patch: &flags.NewFlag{Key: fmt.Sprintf("flag_%04d", i%largeFlags),
			Patch: flags.Patch{State: new(flags.Rollout), Pct: new(1 + i/largeFlags), Description: new(fmt.Sprint("As of change ", i))}}})
		if i == 40_000 {
			l.half = c.now()
		}
	}
	if err := d.Tell(context.Background(), story); err != nil {
		return l, err
	}
	take := func(from, to, plan int) error {
		c.advance(time.Hour)
		var rows []flags.TenantRow
		for i, p := range manyTenants(largeTenants)[from:to] {
			p.Plan = &flags.Plans[(from+i+plan)%len(flags.Plans)]
			rows = append(rows, flags.TenantRow{Line: i + 1, Tenant: p})
		}
		_, err := d.ImportTenants(context.Background(), ops, rows, TenantImport{})
		return err
	}
	if err := take(0, largeTenants, 0); err != nil {
		return l, err
	}
	l.full = c.now()
	return l, take(0, 20_000, 1)
})

type longLog struct {
	o          Options
	half, full time.Time // half of the flags' changes; every tenant there and none changed
}

var longDir string

// cold opens the database anew for each round, so that nothing is remembered.
func cold(b *testing.B, run func(d *DB, l longLog)) {
	l := must(long())(b)
	b.Run("cold", func(b *testing.B) {
		for b.Loop() {
			b.StopTimer()
			d := must(Open(b.Context(), l.o))(b)
			b.StartTimer()
			run(d, l)
			b.StopTimer()
			closeTest(b, d)
			b.StartTimer()
		}
	})
	b.Run("warm", func(b *testing.B) {
		d := openTest(b, l.o)
		run(d, l)
		before := heap()
		for b.Loop() {
			run(d, l)
		}
		b.ReportMetric(heap()-before, "heap-MB")
	})
}

func BenchmarkAsOf(b *testing.B) {
	cold(b, func(d *DB, l longLog) {
		p := must(d.AsOf(b.Context(), l.half, "tenant-000000"))(b)
		for _, f := range p.Flags() {
			f.Evaluate(p.Tenants()[0], "production")
		}
	})
	b.Run("another moment each time", func(b *testing.B) {
		l := must(long())(b)
		d := openTest(b, l.o)
		i := 0
		for b.Loop() {
			must(d.AsOf(b.Context(), l.half.Add(time.Duration(i%10_000)*time.Second), "tenant-000000"))(b)
			i++
		}
		b.ReportMetric(float64(d.moments.bytes)/(1<<20), "held-MB")
	})
}

func BenchmarkFlagsAt(b *testing.B) {
	cold(b, func(d *DB, l longLog) { must(d.FlagsAt(b.Context(), l.half))(b) })
}

// Before 20,000 of the tenants changed, and before all but one were there.
func BenchmarkTenantsAt(b *testing.B) {
	b.Run("changes", func(b *testing.B) {
		cold(b, func(d *DB, l longLog) { must(d.TenantsAt(b.Context(), l.full))(b) })
	})
	b.Run("creations", func(b *testing.B) {
		cold(b, func(d *DB, l longLog) { must(d.TenantsAt(b.Context(), l.half))(b) })
	})
}
