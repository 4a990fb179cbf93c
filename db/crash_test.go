package db

import (
	"fmt"
	"testing"

	"github.com/dezky/platform-api/flags"
)

// A server that is killed in the middle of its writes has lost nothing that it acknowledged.
func TestKill(t *testing.T) {
	dir := t.TempDir()
	acknowledged := map[string]int64{} // the last version of each key
	total := 0
	for _, after := range []int{1, 20, 57, 111, 200} {
		c := startChild(t, "patch", dir)
		lines := make([]string, after)
		for i := range lines {
			lines[i] = c.line(t)
		}
		if err := c.cmd.Process.Kill(); err != nil {
			t.Fatal(err)
		}
		more, err := c.rest() // said before it was killed, and read only now
		if err == nil || err.Error() != "signal: killed" {
			t.Fatalf("the child ended with %v, want signal: killed", err)
		}
		for _, line := range append(lines, more...) {
			var key string
			var version int64
			if n, err := fmt.Sscanf(line, "%s %d", &key, &version); n != 2 || err != nil {
				t.Fatalf("the child says %q: %v", line, err)
			}
			if version <= acknowledged[key] {
				t.Errorf("flag %s: version %d was acknowledged after %d", key, version, acknowledged[key])
			}
			acknowledged[key] = version
			total++
		}

		d := openTest(t, Options{Dir: dir})
		if got := check(t, d); got != "ok" {
			t.Errorf("killed after %d: %s", total, got)
		}
		revision := int64(0)
		for key, version := range acknowledged {
			f, log := d.Current().Flag(key), history(t, d, HistoryFilter{Flag: key})
			if f == nil || f.Version < version {
				t.Fatalf("killed after %d: flag %s is %s, want version %d or later", total, key, show(f), version)
			}
			if f.Version > version+1 {
				t.Errorf("killed after %d: flag %s is at version %d, acknowledged was %d: more than one change under way", total, key, f.Version, version)
			}
			// Each version has its entry, and the flag is what they say.
			changes := make([]flags.Changes, len(log))
			for i, e := range log {
				if want := f.Version - int64(i); e.Version != want {
					t.Fatalf("killed after %d: entry %d of flag %s is of version %d, want %d", total, i, key, e.Version, want)
				}
				changes[i] = e.Changes
			}
			if log[len(log)-1].Version != 1 {
				t.Errorf("killed after %d: the first entry of flag %s is of version %d, want 1", total, key, log[len(log)-1].Version)
			}
			p := must(flags.Content(changes))(t)
			if *p.Description != f.Description || *p.Pct != f.Pct {
				t.Errorf("killed after %d: flag %s is %s, and its log says %s %d", total, key, show(f), *p.Description, *p.Pct)
			}
			revision += f.Version
		}
		// A key whose creation was under way is not in acknowledged.
		for _, f := range d.Current().Flags() {
			if acknowledged[f.Key] == 0 {
				revision += f.Version
			}
		}
		if got := d.Current().Revision(); got != revision {
			t.Errorf("killed after %d: revision %d, want %d, one for each version", total, got, revision)
		}
		closeTest(t, d)
	}
}
