package db

import (
	"fmt"
	"testing"
	"time"

	"github.com/dezky/platform-api/flags"
)

// One partner's life, each step with what comes back and what the log says.
func TestPartnerLife(t *testing.T) {
	c := newClock()
	d := openTest(t, Options{Now: c.now})
	ctx := t.Context()
	create := func(body string) func() (*flags.Partner, error) {
		return func() (*flags.Partner, error) { return d.CreatePartner(ctx, ops, partnerOf(t, body)) }
	}
	patch := func(body string) func() (*flags.Partner, error) {
		return func() (*flags.Partner, error) { return d.PatchPartner(ctx, ops, "nordhost", partnerOf(t, body)) }
	}
	remove := func() (*flags.Partner, error) { return nil, d.DeletePartner(ctx, ops, "nordhost") }
	steps := []struct {
		name string
		do   func() (*flags.Partner, error)
		want string // with its times
		log  string // the new entry, "" for none
	}{
		{"created", create(`{"slug": "nordhost", "name": "Nordhost"}`), `{"slug":"nordhost","name":"Nordhost"} 03:04:06 03:04:06`,
			`#1 03:04:06 r1 ops@dezky.example: created partner nordhost
  name: null -> "Nordhost"
  slug: null -> "nordhost"`},
		{"renamed", patch(`{"name": " Nordhost AS "}`), `{"slug":"nordhost","name":"Nordhost AS"} 03:04:06 03:04:07`,
			`#2 03:04:07 r2 ops@dezky.example: updated partner nordhost
  name: "Nordhost" -> "Nordhost AS"`},
		{"patched to what it is", patch(`{"slug": "nordhost", "name": "Nordhost AS"}`), `{"slug":"nordhost","name":"Nordhost AS"} 03:04:06 03:04:07`, ""},
		{"deleted", remove, "", `#3 03:04:09 r3 ops@dezky.example: deleted partner nordhost
  name: "Nordhost AS" -> null
  slug: "nordhost" -> null`},
		{"created again", create(`{"slug": "nordhost", "name": "Nord"}`), `{"slug":"nordhost","name":"Nord"} 03:04:10 03:04:10`,
			`#4 03:04:10 r4 ops@dezky.example: created partner nordhost
  name: null -> "Nord"
  slug: null -> "nordhost"`},
	}
	timed := func(p *flags.Partner) string {
		if p == nil {
			return ""
		}
		return fmt.Sprintf("%s %s %s", show(p), p.CreatedAt.Format(time.TimeOnly), p.UpdatedAt.Format(time.TimeOnly))
	}
	for _, s := range steps {
		c.advance(time.Second)
		before, count := d.Current(), len(history(t, d, HistoryFilter{}))
		p, err := s.do()
		if err != nil {
			t.Fatalf("%s: %v", s.name, err)
		}
		if got := timed(p); got != s.want {
			t.Errorf("%s: the partner is %s, want %s", s.name, got, s.want)
		}
		if got := timed(d.Current().Partner("nordhost")); got != s.want {
			t.Errorf("%s: the snapshot has %s, want %s", s.name, got, s.want)
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

func TestPartnerRefusals(t *testing.T) {
	d := openTest(t, Options{})
	importTest(t, d, world)
	ctx := t.Context()
	must(d.CreateFlag(ctx, ops, newFlag(t, `{"key": "beta", "scope": {"partnerSlugs": ["nordhost"]}}`)))(t)
	must(d.CreateFlag(ctx, ops, newFlag(t, `{"key": "alpha", "scope": {"partnerSlugs": ["fjordit", "nordhost"]}}`)))(t)
	create := func(body string) error {
		_, err := d.CreatePartner(ctx, ops, partnerOf(t, body))
		return err
	}
	patch := func(slug, body string) error {
		_, err := d.PatchPartner(ctx, ops, slug, partnerOf(t, body))
		return err
	}
	tests := []struct {
		name string
		err  error
		want string
	}{
		{"create: nothing given", create(`{}`), "invalid: slug, name"},
		{"create: everything wrong", create(`{"slug": "-", "name": " "}`), "invalid: slug, name"},
		{"create: taken", create(`{"slug": "nordhost", "name": "Nordhost"}`), `conflict: a partner "nordhost" exists`},
		{"patch: unknown", patch("nobody", `{"name": "N"}`), `not found: partner "nobody": not found`},
		{"patch: another slug", patch("nordhost", `{"slug": "nord"}`), "invalid: slug"},
		{"patch: null", patch("nordhost", `{"name": null}`), "invalid: name"},
		{"delete: unknown", d.DeletePartner(ctx, ops, "nobody"), `not found: partner "nobody": not found`},
		{"delete: in use", d.DeletePartner(ctx, ops, "nordhost"),
			`conflict: the partner "nordhost" is in use by tenants or by the scope of flags [alpha beta] [globex initech]`},
		{"delete: only named by a scope", d.DeletePartner(ctx, ops, "fjordit"),
			`conflict: the partner "fjordit" is in use by tenants or by the scope of flags [alpha] []`},
	}
	for _, tt := range tests {
		if got := outcome(tt.err); got != tt.want {
			t.Errorf("%s: %s\nwant %s", tt.name, got, tt.want)
		}
	}
	if got, want := d.Current().Revision(), int64(3); got != want {
		t.Errorf("revision %d after refusals, want %d", got, want)
	}
}

func TestPartnerInUseNamesFirst100(t *testing.T) {
	d := openTest(t, Options{})
	document := documentOf(t, `{"partners": [{"slug": "big", "name": "Big"}]}`)
	var slugs []string
	for i := range 130 {
		slug := fmt.Sprintf("t%03d", i)
		slugs = append(slugs, slug)
		document.Tenants = append(document.Tenants, flags.TenantPatch{Slug: &slug, Name: &slug, Plan: new("starter"), PartnerSlug: new("big")})
	}
	must(d.Import(t.Context(), ops, document, Import{}))(t)
	want := outcome(&flags.Conflict{Message: `the partner "big" is in use by tenants or by the scope of flags`, Tenants: slugs[:100]})
	if got := outcome(d.DeletePartner(t.Context(), ops, "big")); got != want {
		t.Errorf("DeletePartner: %s\nwant %s", got, want)
	}
}
