package flags_test

import (
	"strings"
	"testing"
	"time"

	"github.com/dezky/platform-api/flags"
)

func TestTenantApply(t *testing.T) {
	const (
		idRule   = "must be 1 to 64 letters, digits, underscores and hyphens"
		slugRule = "must be 1 to 63 lower-case letters, digits and hyphens, and not begin with a hyphen"
	)
	known := registry().Known
	none := flags.Tenant{}
	globex := *registry().Tenant("globex")
	stray := globex
	stray.PartnerSlug = "gone"
	// made is a new tenant's patch with one thing changed.
	made := func(change func(p *flags.TenantPatch)) flags.TenantPatch {
		p := flags.TenantPatch{ID: new("t9"), Slug: new("new"), Name: new("New"), Plan: new("starter")}
		change(&p)
		return p
	}

	tests := []struct {
		name   string
		tenant flags.Tenant
		in     flags.TenantPatch
		want   string
	}{
		{"created", none, made(func(p *flags.TenantPatch) {}), "ok"},
		{"created without id", none, made(func(p *flags.TenantPatch) { p.ID = nil }), "ok"},
		{"created with nothing", none, flags.TenantPatch{}, "invalid: slug is required; name is required; plan is required"},
		{"changed in nothing", globex, flags.TenantPatch{}, "ok"},

		{"id of 64", none, made(func(p *flags.TenantPatch) { p.ID = new(strings.Repeat("Z", 64)) }), "ok"},
		{"id of all that is allowed", none, made(func(p *flags.TenantPatch) { p.ID = new("aZ09_-") }), "ok"},
		{"id of 65", none, made(func(p *flags.TenantPatch) { p.ID = new(strings.Repeat("Z", 65)) }), "invalid: id " + idRule},
		{"id empty", none, made(func(p *flags.TenantPatch) { p.ID = new("") }), "invalid: id " + idRule},
		{"id with a colon", none, made(func(p *flags.TenantPatch) { p.ID = new("a:b") }), "invalid: id " + idRule},
		{"id not ASCII", none, made(func(p *flags.TenantPatch) { p.ID = new("ø") }), "invalid: id " + idRule},
		{"id again", globex, flags.TenantPatch{ID: new("t1")}, "ok"},
		{"another id", globex, flags.TenantPatch{ID: new("t9")}, `invalid: id is "t1" and never changes`},
		{"id taken away", globex, flags.TenantPatch{ID: new("")}, `invalid: id is "t1" and never changes`},

		{"slug of 63", none, made(func(p *flags.TenantPatch) { p.Slug = new(strings.Repeat("a", 63)) }), "ok"},
		{"slug of 64", none, made(func(p *flags.TenantPatch) { p.Slug = new(strings.Repeat("a", 64)) }), "invalid: slug " + slugRule},
		{"slug empty", none, made(func(p *flags.TenantPatch) { p.Slug = new(" ") }), "invalid: slug " + slugRule},
		{"slug begins with a digit", none, made(func(p *flags.TenantPatch) { p.Slug = new("7-up-") }), "ok"},
		{"slug begins with a hyphen", none, made(func(p *flags.TenantPatch) { p.Slug = new("-a") }), "invalid: slug " + slugRule},
		{"slug with an underscore", none, made(func(p *flags.TenantPatch) { p.Slug = new("a_b") }), "invalid: slug " + slugRule},
		{"slug in upper case", none, made(func(p *flags.TenantPatch) { p.Slug = new("Acme") }), "invalid: slug " + slugRule},
		{"slug reserved", none, made(func(p *flags.TenantPatch) { p.Slug = new("import") }), `invalid: slug "import" is reserved`},
		{"slug again", globex, flags.TenantPatch{Slug: new("globex")}, "ok"},
		{"another slug", globex, flags.TenantPatch{Slug: new("globex2")}, `invalid: slug is "globex" and never changes`},

		{"name of 200", globex, flags.TenantPatch{Name: new(strings.Repeat("ø", 200))}, "ok"},
		{"name of 201", globex, flags.TenantPatch{Name: new(strings.Repeat("ø", 201))}, "invalid: name has 201 characters; at most 200 are allowed"},
		{"name of 200 with space around", globex, flags.TenantPatch{Name: new(" " + strings.Repeat("ø", 200) + "\n")}, "ok"},
		{"name empty", globex, flags.TenantPatch{Name: new(" \t")}, "invalid: name must not be empty"},
		{"name of two lines", globex, flags.TenantPatch{Name: new("a\nb")}, "invalid: name must not contain control characters"},
		{"name not UTF-8", globex, flags.TenantPatch{Name: new("a\xffb")}, "invalid: name must not contain U+FFFD or invalid UTF-8"},

		{"plan", globex, flags.TenantPatch{Plan: new("enterprise")}, "ok"},
		{"plan unknown", globex, flags.TenantPatch{Plan: new("free")}, `invalid: plan must be a known plan (starter, business, enterprise), not "free"`},
		{"plan empty", globex, flags.TenantPatch{Plan: new("")}, `invalid: plan must be a known plan (starter, business, enterprise), not ""`},

		{"partner", globex, flags.TenantPatch{PartnerSlug: new("fjordit")}, "ok"},
		{"partner taken away", globex, flags.TenantPatch{PartnerSlug: new("")}, "ok"},
		{"partner unknown", globex, flags.TenantPatch{PartnerSlug: new("nobody")}, `invalid: partnerSlug must be a known partner, not "nobody"`},
		{"partner unknown, but there already", stray, flags.TenantPatch{PartnerSlug: new("gone")}, "ok"},

		{"status", globex, flags.TenantPatch{Status: new("suspended")}, "ok"},
		{"status unknown", globex, flags.TenantPatch{Status: new("deleted")}, "invalid: status must be active or suspended"},
		{"status empty", globex, flags.TenantPatch{Status: new("")}, "invalid: status must be active or suspended"},

		{"all at once, decoding's problems first", none, flags.TenantPatch{
			ID: new("a b"), Name: new(""), Plan: new("x"), PartnerSlug: new("y"), Status: new("z"),
			Problems: []flags.FieldError{{Field: "slug", Message: "must not be null"}},
		}, `invalid: slug must not be null; id ` + idRule + `; name must not be empty; ` +
			`plan must be a known plan (starter, business, enterprise), not "x"; ` +
			`partnerSlug must be a known partner, not "y"; status must be active or suspended`},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			got, err := tt.in.Apply(tt.tenant, known)
			if outcome(err) != tt.want {
				t.Errorf("Apply(%s) = %s, want %s", show(tt.in), outcome(err), tt.want)
			}
			if err != nil && show(got) != show(flags.Tenant{}) {
				t.Errorf("Apply(%s) = %s beside its error, want no tenant", show(tt.in), show(got))
			}
		})
	}
}

func TestTenantApplyValues(t *testing.T) {
	at := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	globex := *registry().Tenant("globex")
	globex.CreatedAt, globex.UpdatedAt = at, at
	globex.Integrations = flags.NewIntegrations(map[string]string{"authentik": "error"}, map[string]string{"authentik": "timeout"})

	const rest = `"createdAt":"2026-01-02T03:04:05Z","updatedAt":"2026-01-02T03:04:05Z"}`
	tests := []struct {
		name   string
		tenant flags.Tenant
		in     flags.TenantPatch
		want   string
	}{
		{"created, name trimmed, active", flags.Tenant{CreatedAt: at, UpdatedAt: at}, flags.TenantPatch{
			ID: new("t9"), Slug: new("new"), Name: new("\tNew Co "), Plan: new("starter"), PartnerSlug: new("fjordit"),
		}, `{"id":"t9","slug":"new","name":"New Co","plan":"starter","partnerSlug":"fjordit","status":"active",` +
			`"provisioningStatus":{},"provisioningErrors":{},` + rest},
		{"created suspended, without partner", flags.Tenant{CreatedAt: at, UpdatedAt: at}, flags.TenantPatch{
			Slug: new("new"), Name: new("New"), Plan: new("starter"), PartnerSlug: new(""), Status: new("suspended"),
		}, `{"id":"","slug":"new","name":"New","plan":"starter","partnerSlug":null,"status":"suspended",` +
			`"provisioningStatus":{},"provisioningErrors":{},` + rest},
		{"changed in nothing", globex, flags.TenantPatch{},
			`{"id":"t1","slug":"globex","name":"Globex","plan":"business","partnerSlug":"nordhost","status":"active",` +
				`"provisioningStatus":{"authentik":"error"},"provisioningErrors":{"authentik":"timeout"},` + rest},
		{"changed in all that can be", globex, flags.TenantPatch{
			ID: new("t1"), Slug: new("globex"), Name: new("Globex A/S"), Plan: new("enterprise"), PartnerSlug: new(""), Status: new("suspended"),
		}, `{"id":"t1","slug":"globex","name":"Globex A/S","plan":"enterprise","partnerSlug":null,"status":"suspended",` +
			`"provisioningStatus":{"authentik":"error"},"provisioningErrors":{"authentik":"timeout"},` + rest},
		{"created with integrations", flags.Tenant{CreatedAt: at, UpdatedAt: at}, flags.TenantPatch{
			Slug: new("new"), Name: new("New"), Plan: new("starter"), ProvisioningStatus: map[string]string{"billing": "pending", "authentik": "ok"},
		}, `{"id":"","slug":"new","name":"New","plan":"starter","partnerSlug":null,"status":"active",` +
			`"provisioningStatus":{"authentik":"ok","billing":"pending"},"provisioningErrors":{},` + rest},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			got, err := tt.in.Apply(tt.tenant, registry().Known)
			if err != nil || show(got) != tt.want {
				t.Errorf("Apply(%s) = %s, %v, want %s", show(tt.in), show(got), err, tt.want)
			}
			if pointed := show(&got); pointed != show(got) {
				t.Errorf("JSON by pointer = %s, want %s", pointed, show(got))
			}
		})
	}
}

func TestPartnerApply(t *testing.T) {
	none := flags.Partner{}
	nordhost := *registry().Partner("nordhost")
	tests := []struct {
		name    string
		partner flags.Partner
		in      flags.PartnerPatch
		want    string
		wantIs  string
	}{
		{"created", none, flags.PartnerPatch{Slug: new("mailbyen"), Name: new(" Mailbyen ")}, "ok", `{"slug":"mailbyen","name":"Mailbyen"}`},
		{"created with nothing", none, flags.PartnerPatch{}, "invalid: slug is required; name is required", `{"slug":"","name":""}`},
		{"bad slug and name", none, flags.PartnerPatch{Slug: new("a b"), Name: new("")},
			"invalid: slug must be 1 to 63 lower-case letters, digits and hyphens, and not begin with a hyphen; name must not be empty", `{"slug":"","name":""}`},
		{"renamed", nordhost, flags.PartnerPatch{Name: new("Nord")}, "ok", `{"slug":"nordhost","name":"Nord"}`},
		{"another slug", nordhost, flags.PartnerPatch{Slug: new("nord")}, `invalid: slug is "nordhost" and never changes`, `{"slug":"","name":""}`},
		{"changed in nothing", nordhost, flags.PartnerPatch{}, "ok", `{"slug":"nordhost","name":"Nordhost"}`},
		{"decoding's problems", nordhost, flags.PartnerPatch{Problems: []flags.FieldError{{Field: "name", Message: "must not be null"}}},
			"invalid: name must not be null", `{"slug":"","name":""}`},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			got, err := tt.in.Apply(tt.partner)
			if outcome(err) != tt.want || show(got) != tt.wantIs {
				t.Errorf("Apply(%s) = %s, %s, want %s, %s", show(tt.in), show(got), outcome(err), tt.wantIs, tt.want)
			}
		})
	}

	at := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	nordhost.CreatedAt, nordhost.UpdatedAt = at, at
	got, err := (&flags.PartnerPatch{Name: new("Nord")}).Apply(nordhost)
	if err != nil || !got.CreatedAt.Equal(at) || !got.UpdatedAt.Equal(at) {
		t.Errorf("Apply keeps the times %v and %v, %v, want %v", got.CreatedAt, got.UpdatedAt, err, at)
	}
}
