package db

import (
	"errors"
	"strings"
	"testing"
)

func TestImport(t *testing.T) {
	// Every case begins with the world, in which acme is alpha's and nordhost beta's.
	const more = `{"flags": [
		{"key": "alpha", "state": "targeted", "scope": {"tenantSlugs": ["acme"]}},
		{"key": "beta", "state": "rollout", "pct": 100, "scope": {"partnerSlugs": ["nordhost"]}}]}`
	tests := []struct {
		name    string
		in      string
		replace bool
		want    string // the entries but for their numbers, times, revisions and actors
	}{
		{"nothing", `{}`, false, ``},
		{"nothing, replacing nothing", `{}`, true, ``},
		{"what is there", world, false, ``},
		{"what an element leaves out stays", `{
			"partners": [{"slug": "fjordit", "name": "Fjord"}],
			"tenants": [{"slug": "globex", "name": "Globex", "plan": "starter"}],
			"flags": [{"key": "beta", "pct": 10}]}`, false,
			`updated partner fjordit
  name: "Fjord IT" -> "Fjord"
updated tenant globex
  plan: "business" -> "starter"
updated flag beta v2
  pct: 100 -> 10
  production: +0 [] -1 [globex]
  staging: +0 [] -1 [globex]`},
		{"scopes and tenants name what the same document brings", `{
			"flags": [{"key": "new", "state": "targeted", "scope": {"tenantSlugs": ["umbrella"], "partnerSlugs": ["skynet"]}}],
			"tenants": [{"id": "u", "slug": "umbrella", "name": "Umbrella", "plan": "starter", "partnerSlug": "skynet"}],
			"partners": [{"slug": "skynet", "name": "Skynet"}]}`, false,
			`created partner skynet
  name: null -> "Skynet"
  slug: null -> "skynet"
created tenant umbrella
  id: null -> "u"
  name: null -> "Umbrella"
  partnerSlug: null -> "skynet"
  plan: null -> "starter"
  slug: null -> "umbrella"
  status: null -> "active"
created flag new v1
  description: null -> ""
  pct: null -> 0
  scope.environments: null -> []
  scope.partnerSlugs: null -> ["skynet"]
  scope.plans: null -> []
  scope.tenantSlugs: null -> ["umbrella"]
  state: null -> "targeted"
  production: +1 [umbrella] -0 []
  staging: +1 [umbrella] -0 []`},
		{"killed by import", `{"flags": [{"key": "alpha", "state": "off", "note": "from the file"}]}`, false,
			`killed flag alpha v2 "from the file"
  state: "targeted" -> "off"
  production: +0 [] -1 [acme]
  staging: +0 [] -1 [acme]`},
		{"replace removes what its list does not name, and no other kind", `{"flags": [{"key": "beta"}]}`, true,
			`deleted flag alpha v2
  description: "" -> null
  pct: 0 -> null
  scope.environments: [] -> null
  scope.partnerSlugs: [] -> null
  scope.plans: [] -> null
  scope.tenantSlugs: ["acme"] -> null
  state: "targeted" -> null
  production: +0 [] -1 [acme]
  staging: +0 [] -1 [acme]`},
		{"replace with an empty list removes all of its kind, a tenant that only a removed flag named too", `{
			"flags": [],
			"tenants": [{"slug": "globex", "name": "Globex", "plan": "business"}, {"slug": "hooli", "name": "Hooli", "plan": "business"}, {"slug": "initech", "name": "Initech", "plan": "enterprise"}]}`, true,
			`deleted flag alpha v2
  description: "" -> null
  pct: 0 -> null
  scope.environments: [] -> null
  scope.partnerSlugs: [] -> null
  scope.plans: [] -> null
  scope.tenantSlugs: ["acme"] -> null
  state: "targeted" -> null
  production: +0 [] -1 [acme]
  staging: +0 [] -1 [acme]
deleted flag beta v2
  description: "" -> null
  pct: 100 -> null
  scope.environments: [] -> null
  scope.partnerSlugs: ["nordhost"] -> null
  scope.plans: [] -> null
  scope.tenantSlugs: [] -> null
  state: "rollout" -> null
  production: +0 [] -2 [globex initech]
  staging: +0 [] -2 [globex initech]
deleted tenant acme
  id: "t3" -> null
  name: "Acme" -> null
  partnerSlug: null -> null
  plan: "starter" -> null
  slug: "acme" -> null
  status: "active" -> null`},
		{"replace removes a partner whose tenants and flags the document takes from it", `{
			"partners": [{"slug": "fjordit", "name": "Fjord IT"}],
			"tenants": [{"slug": "acme", "name": "Acme", "plan": "starter"}, {"slug": "globex", "name": "Globex", "plan": "business", "partnerSlug": "fjordit"}, {"slug": "hooli", "name": "Hooli", "plan": "business"}],
			"flags": [{"key": "alpha"}, {"key": "beta", "scope": {"partnerSlugs": ["fjordit"]}}]}`, true,
			`updated tenant globex
  partnerSlug: "nordhost" -> "fjordit"
flipped flag beta "flipped by registry change"
  production: +0 [] -1 [globex]
  staging: +0 [] -1 [globex]
updated flag beta v2
  scope.partnerSlugs: ["nordhost"] -> ["fjordit"]
  production: +1 [globex] -1 [initech]
  staging: +1 [globex] -1 [initech]
deleted tenant initech
  id: "t19" -> null
  name: "Initech" -> null
  partnerSlug: "nordhost" -> null
  plan: "enterprise" -> null
  slug: "initech" -> null
  status: "active" -> null
deleted partner nordhost
  name: "Nordhost" -> null
  slug: "nordhost" -> null`},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			d := openTest(t, Options{})
			importTest(t, d, world)
			importTest(t, d, more)
			document := documentOf(t, tt.in)
			before, log, exported := d.Current(), history(t, d, HistoryFilter{}), export(t, d)

			// The dry run tells the same and does nothing.
			dry, err := d.Import(t.Context(), By{Actor: "system:import"}, document, Import{Replace: tt.replace, DryRun: true})
			if err != nil {
				t.Fatalf("dry run: %v", err)
			}
			if d.Current() != before || export(t, d) != exported {
				t.Errorf("the dry run changed the registry to\n%s", export(t, d))
			}
			sameLog(t, d, log)

			wet, err := d.Import(t.Context(), By{Actor: "system:import"}, document, Import{Replace: tt.replace})
			if err != nil {
				t.Fatal(err)
			}
			var told, did []string
			for i := range max(len(dry), len(wet)) {
				if i < len(dry) {
					told = append(told, what(dry[i]))
				}
				if i < len(wet) {
					did = append(did, what(wet[i]))
				}
			}
			if got := strings.Join(did, "\n"); got != tt.want {
				t.Errorf("Import says\n%s\nwant\n%s", got, tt.want)
			}
			if got, want := strings.Join(told, "\n"), strings.Join(did, "\n"); got != want {
				t.Errorf("the dry run says\n%s\nand the import\n%s", got, want)
			}

			// The log says so too, all in one revision by the importer.
			added := history(t, d, HistoryFilter{})
			added = added[:len(added)-len(log)]
			revision := before.Revision()
			if len(wet) > 0 {
				revision++
			}
			if got := d.Current().Revision(); got != revision {
				t.Errorf("revision %d, want %d", got, revision)
			}
			if len(added) != len(wet) {
				t.Fatalf("the log has %d new entries, want %d", len(added), len(wet))
			}
			for i, e := range wet {
				logged := added[len(added)-1-i]
				if what(logged) != what(e) || logged.Revision != revision || logged.Actor != "system:import" {
					t.Errorf("the log has\n%s\nwant revision %d, system:import and\n%s", render(logged), revision, what(e))
				}
			}
			s := d.Current()
			same(t, reopen(t, d).Current(), s)
		})
	}
}

func TestImportRefusals(t *testing.T) {
	d := openTest(t, Options{})
	importTest(t, d, world)
	importTest(t, d, `{"flags": [{"key": "alpha", "scope": {"tenantSlugs": ["acme"], "partnerSlugs": ["fjordit"]}}]}`)
	before, log := d.Current(), history(t, d, HistoryFilter{})
	tests := []struct {
		name    string
		in      string
		replace bool
		want    string
	}{
		{"every bad element, beside good ones", `{
			"partners": [{"slug": "good", "name": "Good"}, {"slug": "Bad", "name": ""}, {"name": "Nameless"}],
			"tenants": [{"slug": "better", "name": "Better", "plan": "starter", "partnerSlug": "good"}, {"slug": "worse", "name": "Worse", "plan": "gold", "partnerSlug": "nobody", "id": "no id"}, {"slug": "acme", "status": null}],
			"flags": [{"key": "fine", "scope": {"tenantSlugs": ["better", "worst"]}}, {"state": "maybe"}, {"key": "alpha", "pct": 101, "scope": {"plans": ["starter", "gold"]}}]}`, false,
			"invalid: partners[1].slug, partners[1].name, partners[2].slug, tenants[1].id, tenants[1].plan, tenants[1].partnerSlug, tenants[2].status, flags[0].scope.tenantSlugs[1], flags[1].key, flags[1].state, flags[2].pct, flags[2].scope.plans[1]"},
		{"twice the same", `{
			"partners": [{"slug": "a", "name": "A"}, {"slug": "b", "name": "B"}, {"slug": "a", "name": "A"}],
			"tenants": [{"slug": "acme", "name": "Acme", "plan": "starter"}, {"slug": "acme", "name": "Acme", "plan": "starter"}, {"slug": " acme", "name": "Acme", "plan": "starter"}],
			"flags": [{"key": "x"}, {"key": "x"}]}`, false, "invalid: partners[2], tenants[1], tenants[2].slug, flags[1]"},
		{"two without a key", `{"flags": [{"pct": 1}, {"pct": 2}]}`, false, "invalid: flags[0].key, flags[1].key"},
		{"another's id, or one twice", `{"tenants": [
			{"slug": "a", "name": "A", "plan": "starter", "id": "t0"}, {"slug": "b", "name": "B", "plan": "starter", "id": "x"}, {"slug": "c", "name": "C", "plan": "starter", "id": "x"}]}`, false,
			"invalid: tenants[0], tenants[2]"},
		{"another id than it has", `{"tenants": [{"slug": "acme", "id": "t99"}]}`, false, "invalid: tenants[0].id"},
		{"a tenant that a scope still names", `{"tenants": []}`, true, `conflict: the tenant "acme" is named by the scope of flags [alpha] []`},
		{"a partner that a scope still names", `{"partners": [{"slug": "nordhost", "name": "Nordhost"}]}`, true,
			`conflict: the partner "fjordit" is in use by tenants or by the scope of flags [alpha] []`},
		{"a partner that tenants still have", `{"flags": [], "partners": []}`, true,
			`conflict: the partner "nordhost" is in use by tenants or by the scope of flags [] [globex initech]`},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			for _, dry := range []bool{true, false} {
				_, err := d.Import(t.Context(), ops, documentOf(t, tt.in), Import{Replace: tt.replace, DryRun: dry})
				if got := outcome(err); got != tt.want {
					t.Errorf("Import (dry run: %t): %s\nwant %s", dry, got, tt.want)
				}
			}
		})
	}
	if d.Current() != before {
		t.Errorf("what was refused changed the registry to\n%s", export(t, d))
	}
	sameLog(t, d, log)
	same(t, reopen(t, d).Current(), before)
}

func TestImportSaysWhatIsTwice(t *testing.T) {
	d := openTest(t, Options{})
	_, err := d.Import(t.Context(), ops, documentOf(t, `{"flags": [{"key": "a"}, {"key": "x"}, {"key": "x"}]}`), Import{})
	if want := `flags[2] is "x", as flags[1] is`; err == nil || err.Error() != want {
		t.Errorf("Import: %v, want %s", err, want)
	}
}

// What export writes, import reads, and then export writes it again.
func TestExportIsImportable(t *testing.T) {
	d := openTest(t, Options{})
	importTest(t, d, world)
	importTest(t, d, `{"flags": [
		{"key": "alpha", "description": "with \"quotes\", <b>, \u2028 and\nlines", "state": "rollout", "pct": 33, "scope": {"plans": ["starter"], "tenantSlugs": ["acme"], "partnerSlugs": ["nordhost"], "environments": ["staging"]}},
		{"key": "beta"}], "tenants": [{"slug": "acme", "status": "suspended"}]}`)
	must(d.PatchFlag(t.Context(), ops, "beta", patchOf(t, `{"pct": 3}`)))(t)
	want := export(t, d)
	for _, o := range []Import{{}, {Replace: true}} {
		empty := openTest(t, Options{})
		must(empty.Import(t.Context(), ops, documentOf(t, want), o))(t)
		if got := export(t, empty); got != want {
			t.Errorf("exported after an import into an empty directory:\n%s\nwant\n%s", got, want)
		}
		// A second time, nothing is left to do.
		if entries, err := empty.Import(t.Context(), ops, documentOf(t, want), o); len(entries) > 0 || err != nil {
			t.Errorf("the second import says %q, %v, want nothing", headlines(entries), err)
		}
	}
}

func TestImportIsAllOrNothingOnDisk(t *testing.T) {
	d := openTest(t, Options{})
	importTest(t, d, world)
	before := d.Current()
	// No room for even one more page.
	if _, err := d.writer.ExecContext(t.Context(), "PRAGMA max_page_count = 1"); err != nil {
		t.Fatal(err)
	}
	document := documentOf(t, `{"flags": [{"key": "small"}, {"key": "large", "description": "`+strings.Repeat("x", 2000)+`"}]}`)
	for range 20 {
		document.Flags[0].Key += "x"
		document.Flags = append(document.Flags, newFlag(t, `{"key": "`+document.Flags[0].Key+`y", "description": "`+strings.Repeat("x", 2000)+`"}`))
	}
	_, err := d.Import(t.Context(), ops, document, Import{})
	if err == nil || !strings.Contains(err.Error(), "database or disk is full") {
		t.Fatalf("Import into a full disk: %v, want that it is full", err)
	}
	if d.Current() != before {
		t.Error("what failed was published")
	}
	// With room again, all goes on.
	if _, err := d.writer.ExecContext(t.Context(), "PRAGMA max_page_count = 1000000"); err != nil {
		t.Fatal(err)
	}
	if entries, err := d.Import(t.Context(), ops, document, Import{}); len(entries) != len(document.Flags) || err != nil {
		t.Errorf("Import = %q, %v, want %d entries", headlines(entries), err, len(document.Flags))
	}
	if got, want := d.Current().Revision(), before.Revision()+1; got != want {
		t.Errorf("revision %d, want %d", got, want)
	}
	s := d.Current()
	d = reopen(t, d)
	same(t, d.Current(), s)
	if got := check(t, d); got != "ok" {
		t.Error(got)
	}
}

func TestErrorsKeepTheirCause(t *testing.T) {
	d := openTest(t, Options{})
	closeTest(t, d)
	_, err := d.CreateFlag(t.Context(), ops, newFlag(t, `{"key": "search"}`))
	if err == nil || errors.Unwrap(err) == nil || !strings.HasPrefix(err.Error(), "begin: ") {
		t.Errorf("CreateFlag on a closed database: %v, want an error of begin", err)
	}
}
