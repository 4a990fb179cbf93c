package db

import (
	"bytes"
	"database/sql"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/dezky/platform-api/flags"
)

// busy returns a closed database whose log has entries of every kind, and its chain.
func busy(t *testing.T) (dir string, whole Chain) {
	t.Helper()
	c := newClock()
	d := openTest(t, Options{Now: c.now})
	importTest(t, d, world)
	must(d.CreateFlag(t.Context(), ops, newFlag(t, `{"key": "search", "state": "rollout", "pct": 20, "note": "why <&> ø"}`)))(t)
	who := By{Actor: "kari@dezky.example", Via: flags.ViaConsole, Subject: "kari", Issuer: "https://id.example.com", Client: "console"}
	must(d.PatchFlag(t.Context(), who, "search", patchOf(t, `{"state": "targeted", "scope": {"plans": ["business"]}}`)))(t)
	must(d.PatchTenant(t.Context(), who, "acme", tenantOf(t, `{"plan": "business"}`)))(t) // flips search
	must(d.CreateFlag(t.Context(), ops, newFlag(t, `{"key": "gone"}`)))(t)
	if err := d.DeleteFlag(t.Context(), ops, "gone", "", nil); err != nil {
		t.Fatal(err)
	}
	if _, _, err := d.CreateToken(t.Context(), By{Actor: "system:cli"}, NewToken{Name: "ci", Role: "read"}); err != nil {
		t.Fatal(err)
	}
	whole = must(d.CheckChain(t.Context(), ""))(t)
	entries := len(history(t, d, HistoryFilter{}))
	closeTest(t, d)
	if whole.Wrong != "" || whole.Entries != int64(entries) || len(whole.Head) != 64 {
		t.Fatalf("the chain is %+v, want it whole, over all entries", whole)
	}
	return d.opts.Dir, whole
}

// forged is a copy of dir's database, changed by statements with the log's triggers out of the way.
func forged(t *testing.T, dir string, statements ...string) string {
	t.Helper()
	out := t.TempDir()
	if err := os.WriteFile(filepath.Join(out, File), must(os.ReadFile(filepath.Join(dir, File)))(t), 0o600); err != nil {
		t.Fatal(err)
	}
	d := must(sql.Open("sqlite", filepath.Join(out, File)))(t)
	defer d.Close()
	d.SetMaxOpenConns(1)
	for _, s := range append([]string{"DROP TRIGGER log_update", "DROP TRIGGER log_delete", "DROP TRIGGER log_order", "PRAGMA ignore_check_constraints = 1"}, statements...) {
		if _, err := d.ExecContext(t.Context(), s); err != nil {
			t.Fatalf("%s: %v", s, err)
		}
	}
	return out
}

// wrong is what a check of dir's database says.
func wrong(t *testing.T, dir, noted string) string {
	t.Helper()
	return must(CheckChainBeside(t.Context(), dir, noted))(t).Wrong
}

// Whatever column of whatever entry is changed, the check names that entry.
func TestChainFindsAnyChange(t *testing.T) {
	dir, whole := busy(t)
	before := files(t, dir)
	if got := wrong(t, dir, whole.Head); got != "" || !maps.EqualFunc(files(t, dir), before, bytes.Equal) {
		t.Fatalf("the check says %q, and leaves %v", got, slices.Sorted(maps.Keys(files(t, dir))))
	}
	if got := wrong(t, forged(t, dir), whole.Head); got != "" {
		t.Fatalf("a copy of which nothing was changed: %s", got)
	}
	changes := map[string][]string{}
	for _, c := range []string{"actor", "name", "action", "note", "subject", "issuer", "client"} {
		changes[c] = []string{c + " || ' '", "upper(" + c + ") || 'x'"}
	}
	for _, c := range []string{"at", "revision"} {
		changes[c] = []string{c + " + 1", c + " - 1"}
	}
	changes["kind"] = []string{"'instance'"}
	changes["via"] = []string{"'seed'"}
	changes["version"] = []string{"coalesce(version + 1000, 1000)"}
	changes["changes"] = []string{"changes || ' '", "'{}'", "replace(changes, '2', '3') || ' '"}
	changes["impact"] = []string{"coalesce(impact, '{}') || ' '", "iif(impact IS NULL, '{}', NULL)"}
	changes["hash"] = []string{"randomblob(32)"}
	d := must(sql.Open("sqlite", filepath.Join(forged(t, dir), File)))(t)
	defer d.Close()
	d.SetMaxOpenConns(1)
	exec := func(statement string) int64 {
		t.Helper()
		return must(must(d.ExecContext(t.Context(), statement))(t).RowsAffected())(t)
	}
	exec("PRAGMA ignore_check_constraints = 1")
	exec("CREATE TEMP TABLE kept AS SELECT * FROM log")
	tried := 0
	for column, values := range changes {
		for _, value := range values {
			for id := int64(1); id <= whole.Entries; id++ {
				if exec(fmt.Sprintf("UPDATE log SET %s = %s WHERE id = %d AND %[1]s IS NOT %[2]s", column, value, id)) == 0 {
					continue // it is that already
				}
				tried++
				if got := must(checkChain(t.Context(), d, "", time.Now))(t).Wrong; wrongID(got) != id {
					t.Errorf("%s of entry %d = %s: the check says %q", column, id, value, got)
				}
				exec(fmt.Sprintf("UPDATE log SET %s = (SELECT %[1]s FROM kept WHERE id = %d) WHERE id = %[2]d", column, id))
			}
		}
	}
	if got := must(checkChain(t.Context(), d, whole.Head, time.Now))(t); got.Wrong != "" || tried < 200 {
		t.Errorf("after %d changes that were taken back: %+v", tried, got)
	}
}

// wrongID is the entry that a finding names first.
func wrongID(wrong string) (id int64) {
	fmt.Sscanf(wrong, "entry %d ", &id)
	return id
}

func TestChainFindsWhatIsMissingOrPutIn(t *testing.T) {
	dir, whole := busy(t)
	n := whole.Entries
	columns := strings.ReplaceAll(entryColumns, "id, ", "") + ", hash"
	last := fmt.Sprintf("entry %d is missing", n)
	cut := fmt.Sprintf("DELETE FROM log WHERE id = %d", n)
	forgotten := fmt.Sprintf("UPDATE sqlite_sequence SET seq = %d WHERE name = 'log'", n-1)
	tests := []struct {
		name  string
		do    []string
		noted string
		want  string
	}{
		{"the first is cut", []string{"DELETE FROM log WHERE id = 1"}, "", "entry 1 is missing"},
		{"one in the middle", []string{"DELETE FROM log WHERE id = 5"}, "", "entry 5 is missing"},
		{"and the rest moved up", []string{"DELETE FROM log WHERE id = 5", "UPDATE log SET id = -id WHERE id > 5", "UPDATE log SET id = -id - 1 WHERE id < 0"}, "", "entry 5 has another hash"},
		{"two swapped", []string{"UPDATE log SET id = -3 WHERE id = 3", "UPDATE log SET id = 3 WHERE id = 4", "UPDATE log SET id = 4 WHERE id = -3"}, "", "entry 3 has another hash"},
		{"the last is cut", []string{cut}, "", last},
		{"and the count of entries", []string{cut, forgotten}, whole.Head, "no entry has the hash " + whole.Head},
		{"with the revision", []string{fmt.Sprintf("DELETE FROM log WHERE id >= %d", n-1), fmt.Sprintf("UPDATE sqlite_sequence SET seq = %d WHERE name = 'log'", n-2)}, "",
			fmt.Sprintf("entry %d is missing: the last entry is of revision", n-1)},
		{"one is put in at the end", []string{"DROP INDEX log_version", "INSERT INTO log (" + columns + ") SELECT " + columns + " FROM log WHERE id = 2"}, "", fmt.Sprintf("entry %d has another hash", n+1)},
		{"all are gone", []string{"DELETE FROM log"}, "", "entry 1 is missing"},
		{"a flag's state behind the log's back", []string{"UPDATE flags SET state = 'on', pct = 7 WHERE key = 'search'"}, "", "the flag search is not as entry 8 left it: pct, state"},
		{"its version", []string{"UPDATE flags SET version = 9 WHERE key = 'search'"}, "", "the flag search is not as entry 8 left it: version"},
		{"a flag removed", []string{"DELETE FROM flags WHERE key = 'search'"}, "", "the flag search of entry 8 is not there"},
		{"a flag put in", []string{"INSERT INTO flags SELECT 'mine', description, state, pct, scope, 1, created_at, updated_at FROM flags"}, "", "the flag mine is there, and no entry made it"},
		{"nothing, and a hash of another log was noted", nil, strings.Repeat("0", 64), "no entry has the hash 000"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			if got := wrong(t, forged(t, dir, tt.do...), tt.noted); !strings.HasPrefix(got, tt.want) {
				t.Errorf("the check says %q, want %s", got, tt.want)
			}
		})
	}
	// What is cut stays missing when the log goes on.
	d := openTest(t, Options{Dir: forged(t, dir, cut)})
	must(d.PatchFlag(t.Context(), ops, "search", patchOf(t, `{"pct": 1}`)))(t)
	if got := must(d.CheckChain(t.Context(), ""))(t).Wrong; !strings.HasPrefix(got, last) {
		t.Errorf("after a further change the check says %q, want %s", got, last)
	}
}

// A byte changed in the file, wherever it stands in an entry.
// Questions about the past are answered from flag_states, which must say what the log says.
func TestChainHoldsTheStatesAgainstTheLog(t *testing.T) {
	dir, whole := busy(t)
	for _, statement := range []string{
		"UPDATE flag_states SET state = 'on' WHERE version = 1 AND key = 'search'",
		"UPDATE flag_states SET pct = 21 WHERE version = 1 AND key = 'search'",
		"UPDATE flag_states SET description = 'x' WHERE version = 1 AND key = 'search'",
		"UPDATE flag_states SET version = 7 WHERE version = 2 AND key = 'search'",
		"UPDATE flag_states SET key = 'other' WHERE version = 2 AND key = 'search'",
		"UPDATE flag_states SET scope = json_set(scope, '$.plans', json('[\"starter\"]')) WHERE version = 2 AND key = 'search'",
		"UPDATE flag_states SET scope = NULL, scope_id = (SELECT id FROM flag_states WHERE version = 1 AND key = 'search') WHERE version = 2 AND key = 'search'",
		"UPDATE flag_states SET state = 'off', pct = 0, description = '', scope_id = id, scope = '{}' WHERE version = 2 AND key = 'gone'",
		"DELETE FROM flag_states WHERE version = 1 AND key = 'gone'",
		"INSERT INTO flag_states (id, key, version, updated_at) SELECT id, name, 9, 1 FROM log WHERE kind = 'tenant' LIMIT 1",
		"INSERT INTO flag_states (id, key, version, updated_at) VALUES (-1, 'search', 9, 1)",
		"INSERT INTO flag_states (id, key, version, updated_at) VALUES (9999, 'search', 9, 1)",
	} {
		if got := wrong(t, forged(t, dir, statement), whole.Head); !strings.HasPrefix(got, "flag_states ") {
			t.Errorf("%s: the check says %q", statement, got)
		}
	}
}

func TestChainFindsAnyByte(t *testing.T) {
	dir, _ := busy(t)
	file := must(os.ReadFile(filepath.Join(dir, File)))(t)
	for _, text := range []string{"why <&> ø", "https://id.example.com", `{"from":"rollout","to":"targeted"}`, "kari@dezky.example"} {
		at := bytes.Index(file, []byte(text))
		if at < 0 {
			t.Fatalf("the file does not hold %s", text)
		}
		for ; at >= 0; at = next(file, text, at) {
			out := t.TempDir()
			changed := slices.Clone(file)
			changed[at+2] ^= 1
			if err := os.WriteFile(filepath.Join(out, File), changed, 0o600); err != nil {
				t.Fatal(err)
			}
			c, err := CheckChainBeside(t.Context(), out, "")
			if err == nil && c.Wrong == "" {
				t.Errorf("a byte of %q was changed at %d, and nothing was found", text, at)
			}
		}
	}
}

// next is where a text comes after a place, or -1.
func next(in []byte, text string, after int) int {
	i := bytes.Index(in[after+1:], []byte(text))
	if i < 0 {
		return i
	}
	return after + 1 + i
}

// The log of earlier versions gets its hashes as it is migrated, and stays as it was.
func TestMigrateChain(t *testing.T) {
	dir, whole := busy(t)
	d := openTest(t, Options{Dir: dir})
	log := history(t, d, HistoryFilter{})
	closeTest(t, d)
	old := t.TempDir()
	madeBefore(t, 7, old, d)
	migrated := openTest(t, Options{Dir: old})
	sameLog(t, migrated, log)
	if got := must(migrated.CheckChain(t.Context(), whole.Head))(t); got.Wrong != "" || got.Head != whole.Head || got.Entries != whole.Entries {
		t.Errorf("the migrated log has the chain %+v, want the head %s of %d", got, whole.Head, whole.Entries)
	}
	if got := check(t, migrated); got != "ok" {
		t.Errorf("the database: %s", got)
	}
	for _, statement := range []string{"DELETE FROM log", "UPDATE log SET note = ''", "INSERT INTO log (at, revision, actor, kind, name, action, changes, hash) VALUES (0, 0, 'me', 'token', 'x', 'created', '{}', zeroblob(32))"} {
		if _, err := migrated.writer.ExecContext(t.Context(), statement); err == nil {
			t.Errorf("%s: the migrated log takes it", statement)
		}
	}
	must(migrated.PatchFlag(t.Context(), ops, "search", patchOf(t, `{"pct": 3}`)))(t)
	if got := must(migrated.CheckChain(t.Context(), whole.Head))(t); got.Wrong != "" || got.Entries != whole.Entries+1 {
		t.Errorf("after a further change: %+v", got)
	}
}

func TestCheckChainBesideRefuses(t *testing.T) {
	if _, err := CheckChainBeside(t.Context(), t.TempDir(), ""); !os.IsNotExist(err) {
		t.Errorf("without a database: %v", err)
	}
	o, _, _ := filled(t, Options{migrations: withMigration(t, "SELECT 1;")})
	if _, err := CheckChainBeside(t.Context(), o.Dir, ""); err == nil || !strings.Contains(err.Error(), "newer than this program's") {
		t.Errorf("of a newer schema: %v", err)
	}
	d, old := openTest(t, Options{}), t.TempDir()
	closeTest(t, d)
	madeBefore(t, 7, old, d)
	if _, err := CheckChainBeside(t.Context(), old, ""); err == nil || !strings.Contains(err.Error(), "start the server first") {
		t.Errorf("of an older schema: %v", err)
	}
}
