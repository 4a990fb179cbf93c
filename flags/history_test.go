package flags_test

import (
	"testing"

	"github.com/dezky/platform-api/flags"
)

func TestChangeAction(t *testing.T) {
	flag := func(state flags.State, pct int) *flags.Flag {
		return &flags.Flag{Key: "search", State: state, Pct: pct}
	}
	tests := []struct {
		name          string
		before, after *flags.Flag
		want          flags.Action
	}{
		{"made", nil, flag(flags.On, 0), flags.Created},
		{"made off", nil, flag(flags.Off, 0), flags.Created},
		{"removed", flag(flags.On, 0), nil, flags.Deleted},
		{"raised", flag(flags.Rollout, 10), flag(flags.Rollout, 25), flags.Updated},
		{"switched on", flag(flags.Off, 0), flag(flags.On, 0), flags.Updated},
		{"on set off", flag(flags.On, 0), flag(flags.Off, 0), flags.Killed},
		{"targeted set off", flag(flags.Targeted, 0), flag(flags.Off, 0), flags.Killed},
		{"rollout set off and to 0", flag(flags.Rollout, 25), flag(flags.Off, 0), flags.Killed},
		{"rollout set off, pct kept", flag(flags.Rollout, 25), flag(flags.Off, 25), flags.Updated},
		{"rollout to 0, still a rollout", flag(flags.Rollout, 25), flag(flags.Rollout, 0), flags.Updated},
		{"was off already", flag(flags.Off, 25), flag(flags.Off, 0), flags.Updated},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			if got := flags.ChangeAction(tt.before, tt.after); got != tt.want {
				t.Errorf("ChangeAction(%s, %s) = %s, want %s", show(tt.before), show(tt.after), got, tt.want)
			}
		})
	}
}

func TestDiffFlag(t *testing.T) {
	base := flags.New("search")
	with := func(change func(f *flags.Flag)) *flags.Flag {
		f := base
		change(&f)
		return &f
	}
	tests := []struct {
		name          string
		before, after *flags.Flag
		want          string
	}{
		{"nothing", &base, with(func(f *flags.Flag) {}), `{}`},
		{"neither exists", nil, nil, `{}`},
		{"created: every field, from null", nil, with(func(f *flags.Flag) { f.Scope.Plans = []string{"starter"} }),
			`{"description":{"from":null,"to":""},"pct":{"from":null,"to":0},"scope.environments":{"from":null,"to":[]},` +
				`"scope.partnerSlugs":{"from":null,"to":[]},"scope.plans":{"from":null,"to":["starter"]},` +
				`"scope.tenantSlugs":{"from":null,"to":[]},"state":{"from":null,"to":"off"}}`},
		{"deleted: every field, to null", &flags.Flag{Key: "search", State: flags.On, Pct: 5}, nil,
			`{"description":{"from":"","to":null},"pct":{"from":5,"to":null},"scope.environments":{"from":[],"to":null},` +
				`"scope.partnerSlugs":{"from":[],"to":null},"scope.plans":{"from":[],"to":null},` +
				`"scope.tenantSlugs":{"from":[],"to":null},"state":{"from":"on","to":null}}`},
		{"description", &base, with(func(f *flags.Flag) { f.Description = "a \"b\"\n" }), `{"description":{"from":"","to":"a \"b\"\n"}}`},
		{"state and pct", &base, with(func(f *flags.Flag) { f.State, f.Pct = flags.Rollout, 25 }),
			`{"pct":{"from":0,"to":25},"state":{"from":"off","to":"rollout"}}`},
		{"each axis on its own", &base, with(func(f *flags.Flag) {
			f.Scope = flags.Scope{TenantSlugs: []string{"acme", "globex"}, Environments: []string{"staging"}}
		}), `{"scope.environments":{"from":[],"to":["staging"]},"scope.tenantSlugs":{"from":[],"to":["acme","globex"]}}`},
		{"nil is empty", &base, with(func(f *flags.Flag) { f.Scope = flags.Scope{} }), `{}`},
		{"versions and times are no change", &base, with(func(f *flags.Flag) { f.Version = 9 }), `{}`},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			if got := show(flags.DiffFlag(tt.before, tt.after)); got != tt.want {
				t.Errorf("DiffFlag(%s, %s) = %s, want %s", show(tt.before), show(tt.after), got, tt.want)
			}
		})
	}
	const fields = `["description","pct","scope.environments","scope.partnerSlugs","scope.plans","scope.tenantSlugs","state"]`
	if got := show(flags.DiffFlag(nil, &base).Fields()); got != fields {
		t.Errorf("Fields() = %s, want %s", got, fields)
	}
}

func TestDiffTenant(t *testing.T) {
	globex := registry().Tenant("globex")
	acme := registry().Tenant("acme")
	suspended := *globex
	suspended.Status, suspended.PartnerSlug = flags.Suspended, ""
	suspended.Integrations = flags.NewIntegrations(map[string]string{"authentik": "ok"}, nil)
	tests := []struct {
		name          string
		before, after *flags.Tenant
		want          string
	}{
		{"nothing", globex, registry().Tenant("globex"), `{}`},
		{"created", nil, acme, `{"id":{"from":null,"to":"t2"},"name":{"from":null,"to":"Acme"},"partnerSlug":{"from":null,"to":null},` +
			`"plan":{"from":null,"to":"starter"},"slug":{"from":null,"to":"acme"},"status":{"from":null,"to":"active"}}`},
		{"deleted", globex, nil, `{"id":{"from":"t1","to":null},"name":{"from":"Globex","to":null},"partnerSlug":{"from":"nordhost","to":null},` +
			`"plan":{"from":"business","to":null},"slug":{"from":"globex","to":null},"status":{"from":"active","to":null}}`},
		{"some fields, provisioning is none", globex, &suspended,
			`{"partnerSlug":{"from":"nordhost","to":null},"status":{"from":"active","to":"suspended"}}`},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			if got := show(flags.DiffTenant(tt.before, tt.after)); got != tt.want {
				t.Errorf("DiffTenant(%s, %s) = %s, want %s", show(tt.before), show(tt.after), got, tt.want)
			}
		})
	}
}

func TestDiffPartner(t *testing.T) {
	nordhost := &flags.Partner{Slug: "nordhost", Name: "Nordhost"}
	tests := []struct {
		name          string
		before, after *flags.Partner
		want          string
	}{
		{"nothing", nordhost, nordhost, `{}`},
		{"created", nil, nordhost, `{"name":{"from":null,"to":"Nordhost"},"slug":{"from":null,"to":"nordhost"}}`},
		{"deleted", nordhost, nil, `{"name":{"from":"Nordhost","to":null},"slug":{"from":"nordhost","to":null}}`},
		{"renamed", nordhost, &flags.Partner{Slug: "nordhost", Name: "Nord"}, `{"name":{"from":"Nordhost","to":"Nord"}}`},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			if got := show(flags.DiffPartner(tt.before, tt.after)); got != tt.want {
				t.Errorf("DiffPartner(%s, %s) = %s, want %s", show(tt.before), show(tt.after), got, tt.want)
			}
		})
	}
}

func TestContent(t *testing.T) {
	one := flags.New("search")
	one.Scope.TenantSlugs = []string{"acme"}
	two := one
	two.Description, two.State, two.Pct = "Search", flags.Rollout, 25
	created, updated, deleted := flags.DiffFlag(nil, &one), flags.DiffFlag(&one, &two), flags.DiffFlag(&two, nil)

	const ofTwo = `{"Description":"Search","State":"rollout","Pct":25,` +
		`"Scope":{"environments":[],"partnerSlugs":[],"plans":[],"tenantSlugs":["acme"]},"Note":"","IfVersion":null,"Problems":null}`
	tests := []struct {
		name string
		in   []flags.Changes
		want string
	}{
		{"two versions", []flags.Changes{updated, created}, ofTwo},
		{"what came before a creation does not count", []flags.Changes{updated, created, deleted, {"pct": {To: []byte(`"x"`)}}}, ofTwo},
		{"no changes", nil, "error: the log does not hold every field"},
		{"the creation is missing", []flags.Changes{updated}, "error: the log does not hold every field"},
		{"an empty change", []flags.Changes{{}, created}, `{"Description":"","State":"off","Pct":0,` +
			`"Scope":{"environments":[],"partnerSlugs":[],"plans":[],"tenantSlugs":["acme"]},"Note":"","IfVersion":null,"Problems":null}`},
		{"deleted", []flags.Changes{deleted, updated, created}, "error: the newest change is a deletion"},
		{"another type", []flags.Changes{{"pct": {To: []byte(`"x"`)}}, created},
			"error: field pct: json: cannot unmarshal string into Go value of type int"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			p, err := flags.Content(tt.in)
			got := show(p)
			if err != nil {
				got = "error: " + err.Error()
			}
			if got != tt.want {
				t.Errorf("Content(%s) = %s, want %s", show(tt.in), got, tt.want)
			}
		})
	}
}

func TestOutcome(t *testing.T) {
	tests := []struct {
		name string
		in   flags.EnvImpact
		want string
	}{
		{"nobody", flags.EnvImpact{}, `{"gained":0,"lost":0,"gains":[],"losses":[]}`},
		{"cut lists", flags.EnvImpact{Gained: 60, Lost: 1, Gains: []*flags.Tenant{{Slug: "acme"}, {Slug: "globex"}}, Losses: []*flags.Tenant{{Slug: "initech"}}},
			`{"gained":60,"lost":1,"gains":["acme","globex"],"losses":["initech"]}`},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			if got := show(tt.in.Outcome()); got != tt.want {
				t.Errorf("Outcome(%s) = %s, want %s", show(tt.in), got, tt.want)
			}
		})
	}
}
