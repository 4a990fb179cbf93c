package db

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"
)

// The schema itself refuses what no code of ours should ever write.
func TestSchemaRefuses(t *testing.T) {
	d := openTest(t, Options{})
	tx := must(d.writer.BeginTx(t.Context(), nil))(t)
	defer tx.Rollback()

	valid := map[string]map[string]any{
		"partners": {"slug": "nordhost", "name": "Nordhost", "created_at": 1, "updated_at": 1},
		"tenants": {"id": "t1", "slug": "acme", "name": "Acme", "plan": "starter", "partner_slug": "nordhost", "status": "active",
			"provisioning_status": "{}", "provisioning_errors": "{}", "created_at": 1, "updated_at": 1},
		"flags": {"key": "search", "description": "", "state": "off", "pct": 0, "scope": "{}", "version": 1, "created_at": 1, "updated_at": 1},
		"tokens": {"id": "1", "name": "ci", "hash": make([]byte, 32), "role": "read", "environment": nil, "created_at": 1, "created_by": "me",
			"expires_at": nil, "revoked_at": nil, "last_used_at": nil},
		"log": {"at": 10, "revision": 0, "actor": "me", "kind": "flag", "name": "search", "action": "created", "version": 1, "note": "",
			"changes": "{}", "impact": "{}", "hash": make([]byte, 32)},
		"seeded": {"kind": "flag", "name": "search"},
		"provisioning": {"integration": "authentik", "slug": "acme", "tenant_id": "t1", "tenant_at": 1, "removed": 0, "wish": 1, "attempts": 0,
			"next_at": nil, "error": ""},
		"freeze": {"id": 1, "reason": "why", "actor": "me", "since": 1, "until": 2},
		"flag_states": {"id": 1, "key": "search", "version": 1, "state": "off", "pct": 0, "description": "", "scope_id": 1, "scope": "{}",
			"created_at": 1, "updated_at": 1},
		"instance": {"id": 1, "epoch": "01234567", "revision": 0}, // stands there already
	}
	// insert puts in the table's valid row, but for the columns in but.
	insert := func(table string, but map[string]any) error {
		row := maps.Clone(valid[table])
		maps.Copy(row, but)
		columns := slices.Sorted(maps.Keys(row))
		values := make([]any, len(columns))
		for i, c := range columns {
			values[i] = row[c]
		}
		_, err := tx.ExecContext(t.Context(), fmt.Sprintf("INSERT INTO %s (%s) VALUES (?%s)", table,
			strings.Join(columns, ", "), strings.Repeat(", ?", len(columns)-1)), values...)
		return err
	}
	for _, table := range []string{"partners", "tenants", "flags", "tokens", "log", "seeded", "provisioning", "flag_states", "freeze"} {
		if err := insert(table, nil); err != nil {
			t.Fatalf("the valid row of %s: %v", table, err)
		}
	}

	type but = map[string]any
	const checked, required, taken, typed = "CHECK constraint failed", "NOT NULL constraint failed", "UNIQUE constraint failed", "cannot store"
	tests := []struct {
		table string
		but   but
		want  string
	}{
		{"partners", but{"slug": "nordhost"}, taken},
		{"partners", but{"slug": ""}, checked},
		{"partners", but{"slug": strings.Repeat("a", 64)}, checked},
		{"partners", but{"slug": nil}, required},
		{"partners", but{"slug": "p2", "name": ""}, checked},
		{"partners", but{"slug": "p2", "name": strings.Repeat("ø", 201)}, checked},
		{"partners", but{"slug": "p2", "name": []byte("Two")}, typed},
		{"partners", but{"slug": "p2", "created_at": "yesterday"}, typed},
		{"partners", but{"slug": "p2", "updated_at": nil}, required},

		{"tenants", but{"slug": "b"}, taken},
		{"tenants", but{"id": "t2"}, taken},
		{"tenants", but{"id": nil, "slug": "b"}, required},
		{"tenants", but{"id": "", "slug": "b"}, checked},
		{"tenants", but{"id": strings.Repeat("a", 65), "slug": "b"}, checked},
		{"tenants", but{"id": "t2", "slug": strings.Repeat("a", 64)}, checked},
		{"tenants", but{"id": "t2", "slug": "b", "name": ""}, checked},
		{"tenants", but{"id": "t2", "slug": "b", "plan": "gold"}, checked},
		{"tenants", but{"id": "t2", "slug": "b", "plan": nil}, required},
		{"tenants", but{"id": "t2", "slug": "b", "partner_slug": "nobody"}, "FOREIGN KEY constraint failed"},
		{"tenants", but{"id": "t2", "slug": "b", "partner_slug": ""}, "FOREIGN KEY constraint failed"},
		{"tenants", but{"id": "t2", "slug": "b", "status": "gone"}, checked},
		{"tenants", but{"id": "t2", "slug": "b", "provisioning_status": "[]"}, checked},
		{"tenants", but{"id": "t2", "slug": "b", "provisioning_errors": "{"}, "malformed JSON"},
		{"tenants", but{"id": "t2", "slug": "b", "created_at": 1.5}, typed},

		{"flags", but{}, taken},
		{"flags", but{"key": ""}, checked},
		{"flags", but{"key": strings.Repeat("a", 65)}, checked},
		{"flags", but{"key": "b", "description": strings.Repeat("ø", 2001)}, checked},
		{"flags", but{"key": "b", "state": "maybe"}, checked},
		{"flags", but{"key": "b", "pct": -1}, checked},
		{"flags", but{"key": "b", "pct": 101}, checked},
		{"flags", but{"key": "b", "pct": 12.5}, typed},
		{"flags", but{"key": "b", "pct": "many"}, typed},
		{"flags", but{"key": "b", "scope": `"all"`}, checked},
		{"flags", but{"key": "b", "scope": "everyone"}, "malformed JSON"},
		{"flags", but{"key": "b", "scope": nil}, required},
		{"flags", but{"key": "b", "version": 0}, checked},

		{"tokens", but{"name": "b", "hash": make([]byte, 31)}, checked},
		{"tokens", but{"id": "2", "name": "b"}, taken},                                  // the hash
		{"tokens", but{"id": "2", "hash": []byte(strings.Repeat("a", 32))}, taken},      // the name
		{"tokens", but{"name": "b", "hash": []byte(strings.Repeat("a", 32))}, taken},    // the id
		{"tokens", but{"id": "2", "name": "b", "hash": strings.Repeat("a", 32)}, typed}, // text is no hash
		{"tokens", but{"id": "2", "name": "", "hash": []byte(strings.Repeat("a", 32))}, checked},
		{"tokens", but{"id": "2", "name": "b", "hash": []byte(strings.Repeat("a", 32)), "role": "root"}, checked},
		{"tokens", but{"id": "2", "name": "b", "hash": []byte(strings.Repeat("a", 32)), "environment": ""}, checked},
		{"tokens", but{"id": "2", "name": "b", "hash": []byte(strings.Repeat("a", 32)), "created_by": nil}, required},

		{"log", but{}, taken}, // the version
		{"log", but{"version": 0}, checked},
		{"log", but{"version": 2, "actor": ""}, checked},
		{"log", but{"version": 2, "revision": -1}, checked},
		{"log", but{"version": 2, "kind": "user"}, checked},
		{"log", but{"version": 2, "changes": "[]"}, checked},
		{"log", but{"version": 2, "changes": nil}, required},
		{"log", but{"version": 2, "impact": "3"}, checked},
		{"log", but{"version": 2, "note": nil}, required},
		{"log", but{"version": 2, "hash": make([]byte, 31)}, checked},
		{"log", but{"version": 2, "hash": nil}, required},
		{"log", but{"kind": "tenant", "version": 2, "impact": nil}, checked}, // only flags have versions
		{"log", but{"kind": "tenant", "version": nil}, checked},              // and impact
		{"log", but{"version": 2, "at": 9}, "a log entry is never before the previous one"},

		{"seeded", but{}, taken},
		{"seeded", but{"kind": "token"}, checked},
		{"seeded", but{"name": nil}, required},

		{"provisioning", but{}, taken},
		{"provisioning", but{"integration": ""}, checked},
		{"provisioning", but{"slug": ""}, checked},
		{"provisioning", but{"slug": strings.Repeat("a", 64)}, checked},
		{"provisioning", but{"slug": "b", "tenant_id": strings.Repeat("a", 65)}, checked},
		{"provisioning", but{"slug": "b", "removed": 2}, checked},
		{"provisioning", but{"slug": "b", "wish": 0}, checked},
		{"provisioning", but{"slug": "b", "attempts": -1}, checked},
		{"provisioning", but{"slug": "b", "next_at": "soon"}, typed},
		{"provisioning", but{"slug": "b", "error": nil}, required},

		{"freeze", but{}, taken},
		{"freeze", but{"id": 2}, checked},
		{"freeze", but{"reason": ""}, checked},
		{"freeze", but{"reason": strings.Repeat("ø", 501)}, checked},
		{"freeze", but{"actor": ""}, checked},
		{"freeze", but{"until": 1}, checked},
		{"flag_states", but{}, taken},
		{"flag_states", but{"id": 2, "scope_id": 2, "key": nil}, required},
		{"flag_states", but{"id": 2, "scope_id": 2, "version": 0}, checked},
		{"flag_states", but{"id": 2, "scope_id": 2, "state": "maybe"}, checked},
		{"flag_states", but{"id": 2, "scope_id": 2, "pct": 101}, checked},
		{"flag_states", but{"id": 2, "scope_id": 2, "pct": nil}, checked},
		{"flag_states", but{"id": 2, "scope_id": 2, "description": nil}, checked},
		{"flag_states", but{"id": 2, "scope_id": 2, "created_at": nil}, checked},
		{"flag_states", but{"id": 2, "scope_id": 2, "scope": "[]"}, checked},
		{"flag_states", but{"id": 2, "scope_id": 2, "scope": nil}, checked},   // the scope is its own, and is not there
		{"flag_states", but{"id": 2, "scope_id": nil, "scope": nil}, checked}, // of a flag that is not deleted
		{"flag_states", but{"id": 2, "scope_id": 1}, checked},                 // the scope is another's, and is there
		{"flag_states", but{"id": 2, "scope_id": 3, "scope": nil}, checked},   // a later one's

		{"instance", but{"id": 2}, checked},
		{"instance", but{}, taken},
	}
	for _, tt := range tests {
		if err := insert(tt.table, tt.but); err == nil || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("the valid row of %s but for %.120v: %v, want %s", tt.table, tt.but, err, tt.want)
		}
	}

	for _, tt := range []struct{ sql, want string }{
		{"UPDATE instance SET epoch = 'short'", checked},
		{"UPDATE instance SET revision = -1", checked},
		{"UPDATE log SET note = 'never happened'", "the log is append-only"},
		{"UPDATE log SET id = id + 1000", "the log is append-only"},
		{"DELETE FROM log", "the log is append-only"},
		{"DELETE FROM log WHERE id = 1", "the log is append-only"},
		{"DELETE FROM partners", "FOREIGN KEY constraint failed"},
		{"UPDATE partners SET slug = 'other'", "FOREIGN KEY constraint failed"},
	} {
		if _, err := tx.ExecContext(t.Context(), tt.sql); err == nil || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%s: %v, want %s", tt.sql, err, tt.want)
		}
	}

	// Beside what is refused, this is not.
	for _, ok := range []struct {
		table string
		but   but
	}{
		{"log", but{"version": 2, "at": 10}}, // at the same time as the one before
		{"log", but{"kind": "tenant", "name": "search", "version": nil, "impact": nil}},
		{"log", but{"kind": "instance", "name": "changes", "version": nil, "impact": nil}},
		{"tenants", but{"id": "t2", "slug": "b", "partner_slug": nil}},
		{"partners", but{"slug": "p2", "name": strings.Repeat("ø", 200)}}, // characters, not bytes
	} {
		if err := insert(ok.table, ok.but); err != nil {
			t.Errorf("the valid row of %s but for %v: %v", ok.table, ok.but, err)
		}
	}
}
