package replica

import (
	"os"
	"slices"
	"testing"
	"time"
)

// atLength is "make faults": each fault many times, and figures are held, for which a run of all tests is
// too busy.
var atLength = os.Getenv("FAULTS") != ""

// rounds is how often a fault test does its worst.
func rounds(few, many int) int {
	if atLength {
		return many
	}
	return few
}

// wreck kills a storm, at another moment each time, and returns all that was acknowledged and when it died.
func wreck(t *testing.T, what, dir string, c *Config, round int) ([]acknowledgement, time.Time) {
	t.Helper()
	storm := startChild(t, what, dir, c)
	lines := storm.take(t, 1+round*37%400)
	died := time.Now()
	return acknowledgements(t, append(lines, storm.kill(t)...)), died
}

// A server that is killed in a storm of changes has lost none that it acknowledged.
func TestKill(t *testing.T) {
	onEach(t, func(t *testing.T, c *Config) {
		dir := dirs(t)
		var all []acknowledgement
		for round := range rounds(3, 15) {
			more, _ := wreck(t, "storm", dir, c, round)
			all = append(all, more...)
			n := serve(t, Options{Config: c, Dir: dir})
			if gone := lost(n, all); len(gone) > 0 {
				t.Errorf("round %d: of %d acknowledged changes %d are lost", round, len(all), len(gone))
			}
			integrity(t, n)
			want := n.db.Current().Revision()
			n.synced(t)
			n.stop()
			// What the replica has is the same.
			if r := must(Restore(t.Context(), c, dirs(t), time.Time{}))(t); r.Contents.Revision != want {
				t.Errorf("round %d: the replica is at revision %d, want %d", round, r.Contents.Revision, want)
			}
		}
		t.Logf("%d acknowledged changes, none lost", len(all))
	})
}

// Killed, and the disk gone with it: what comes back is the state of one moment, a second or two old.
func TestDisaster(t *testing.T) {
	onEach(t, func(t *testing.T, c *Config) {
		var ages, starts []time.Duration
		changes, gone := 0, 0
		for round := range rounds(3, 15) {
			dir := dirs(t)
			all, died := wreck(t, "storm", dir, c, round*3+1)
			lose(t, dir)
			begun := time.Now()
			n := serve(t, Options{Config: c, Dir: dir})
			starts = append(starts, time.Since(begun))
			integrity(t, n)
			missing := lost(n, all)
			changes, gone = changes+len(all), gone+len(missing)
			age := time.Duration(0)
			for _, a := range missing {
				age = max(age, died.Sub(a.at))
			}
			ages = append(ages, age)
			// A prefix: of each key all versions up to one, and nothing that came after what is missing.
			for _, a := range all {
				if len(missing) > 0 && a.at.Before(missing[0].at.Add(-50*time.Millisecond)) && slices.Contains(missing, a) {
					t.Errorf("round %d: %v is missing, and what came after is there", round, a)
				}
			}
			n.stop()
			lose(t, dir)
		}
		slices.Sort(ages)
		slices.Sort(starts)
		t.Logf("%d acknowledged changes, %d lost; the oldest of them: median %s, worst %s; restored and started: median %s, worst %s",
			changes, gone, ages[len(ages)/2], ages[len(ages)-1], starts[len(starts)/2], starts[len(starts)-1])
		if worst := ages[len(ages)-1]; atLength && worst > 3*time.Second {
			t.Errorf("a change was lost %s after it was acknowledged, want 3 s at most", worst)
		}
		if median := starts[len(starts)/2]; atLength && median > time.Second {
			t.Errorf("restored and started after %s, want a second at most", median)
		}
	})
}

// Acknowledged by the replica means that nothing is lost, not even with the disk.
func TestDisasterReplicated(t *testing.T) {
	onEach(t, func(t *testing.T, c *Config) {
		changes := 0
		for round := range rounds(3, 15) {
			dir := dirs(t)
			all, _ := wreck(t, "replicated", dir, c, round)
			lose(t, dir)
			n := serve(t, Options{Config: c, Dir: dir})
			if gone := lost(n, all); len(gone) > 0 {
				t.Errorf("round %d: of %d acknowledged changes %d are lost", round, len(all), len(gone))
			}
			integrity(t, n)
			changes += len(all)
			n.stop()
			lose(t, dir)
		}
		t.Logf("%d acknowledged changes, none lost", changes)
	})
}
