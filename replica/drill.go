package replica

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"github.com/benbjohnson/litestream"

	"github.com/dezky/platform-api/db"
)

// Drill is what a trial of the replica came to: it was restored, checked and compared with what is served.
type Drill struct {
	At       time.Time // zero: there was none yet
	Took     time.Duration
	Contents db.Contents
	Error    string // "" if all was well
}

// Check restores the replica's latest state into a directory of its own below dir, checks it and removes it.
func Check(ctx context.Context, c *Config, dir string) (Restored, error) {
	client, err := c.client()
	if err != nil {
		return Restored{}, err
	}
	if backup, err := c.preflight(ctx, client); err != nil {
		return Restored{}, fmt.Errorf("replica: %w", err)
	} else if !backup {
		return Restored{}, ErrEmpty
	}
	begun := time.Now()
	work, err := os.MkdirTemp(dir, "restore-check-")
	if err != nil {
		return Restored{}, err
	}
	defer os.RemoveAll(work)
	contents, err := fetch(ctx, client, filepath.Join(work, "db"), Point{})
	return Restored{Contents: contents, Took: time.Since(begun)}, err
}

// RunDrill tries the replica now. Where it can't be restored, or lacks what it is known to have, a new
// snapshot is made, which mends it, and the log says so as an error.
//
// A drill that ctx ends has found nothing out: it returns the reason, and is not noted.
func (r *Replica) RunDrill(ctx context.Context) Drill {
	select {
	case r.drilling <- struct{}{}:
		defer func() { <-r.drilling }()
	case <-ctx.Done():
		return Drill{Error: "another drill is under way: " + ctx.Err().Error()}
	}
	r.Wait(ctx) // so that it is about the latest; where that fails, about what was replicated before
	d, full := r.tryRestore(ctx)
	if d.Error != "" && ctx.Err() != nil {
		return d
	}
	r.noteDrill(d)
	switch {
	case d.Error == "":
		r.o.Log.Info("the drill succeeded", "revision", d.Contents.Revision, "took", d.Took.String())
	case full:
		r.o.Log.Error("no drill: the data directory has no room to restore the replica in", "error", d.Error)
	default:
		r.o.Log.Error("the drill failed: the replica would not have brought the database back; a new snapshot is made", "error", d.Error)
		if r.mend(ctx) {
			d.Error += "; it is mended since, by a new snapshot"
			r.noteDrill(d)
		}
	}
	return d
}

func (r *Replica) noteDrill(d Drill) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.drill = d
}

// tryRestore restores the replica and looks at what comes. Where the data directory is full, that says nothing
// about the replica.
func (r *Replica) tryRestore(ctx context.Context) (d Drill, full bool) {
	r.mu.Lock()
	least := r.revision
	r.mu.Unlock()
	begun := time.Now()
	d = Drill{At: r.o.Now()}
	work := filepath.Join(r.o.Dir, db.File+".drill")
	defer os.RemoveAll(work)
	var err error
	d.Contents, err = fetch(ctx, r.client, work, Point{})
	d.Took = time.Since(begun)
	now := r.db.Current()
	switch got := d.Contents; {
	case noRoom(err):
		d.Error, full = "the data directory's disk is full, so the replica could not be tried: "+err.Error(), true
	case err != nil:
		d.Error = err.Error()
	case got.Epoch != now.Epoch() && least >= 0:
		d.Error = fmt.Sprintf("the replica is of another epoch, %s; served is %s", got.Epoch, now.Epoch())
	case got.Revision < least:
		d.Error = fmt.Sprintf("the replica is at revision %d, although %d was replicated", got.Revision, least)
	case got.Revision > now.Revision():
		d.Error = fmt.Sprintf("the replica is at revision %d, and served is %d", got.Revision, now.Revision())
	}
	return d, full
}

// mend has a snapshot made, and, where that does not help, replication begin anew. It tells whether it helped.
func (r *Replica) mend(ctx context.Context) bool {
	ctx, cancel := context.WithTimeout(ctx, 4*r.pace.sync)
	defer cancel()
	for _, anew := range []bool{false, true} {
		if err := r.askSnapshot(ctx, anew); err != nil {
			r.o.Log.Error("the replica is not mended", "error", err.Error())
			return false
		}
		d, _ := r.tryRestore(ctx)
		if d.Error == "" {
			r.o.Log.Info("the replica is mended: it can be restored again", "revision", d.Contents.Revision)
			return true
		}
		r.o.Log.Error("the replica is not mended by a snapshot", "error", d.Error)
	}
	return false
}

// askSnapshot has the loop write a snapshot, which alone may use litestream.
func (r *Replica) askSnapshot(ctx context.Context, anew bool) error {
	asked := make(chan struct{})
	r.mu.Lock()
	if r.snapshotAsked != nil {
		asked = r.snapshotAsked
	}
	r.snapshotAsked, r.anewAsked = asked, anew
	r.mu.Unlock()
	wake(r.urgent)
	select {
	case <-asked:
		return r.why()
	case <-ctx.Done():
		return ctx.Err()
	}
}

// keepHouse runs the drills and looks at how large the replica is.
func (r *Replica) keepHouse(ctx context.Context) {
	drill, survey := time.NewTimer(r.pace.first), time.NewTimer(r.pace.gap)
	defer drill.Stop()
	defer survey.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-drill.C:
			next := r.pace.drill
			if r.Status().State != OK { // there is nothing new to try
				next = r.pace.first
			} else if r.RunDrill(ctx).Error != "" {
				next = r.pace.drill / 24
			}
			drill.Reset(next)
		case <-survey.C:
			r.survey(ctx)
			survey.Reset(r.pace.survey)
		}
	}
}

// survey notes the replica's size and its newest snapshot; where it can't be asked, what was known stays.
func (r *Replica) survey(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, r.pace.sync)
	defer cancel()
	var bytes int64
	var newest time.Time
	for level := range litestream.SnapshotLevel + 1 {
		files, err := r.client.LTXFiles(ctx, level, 0, false)
		if err != nil {
			return
		}
		for files.Next() {
			bytes += files.Item().Size
			if level == litestream.SnapshotLevel && files.Item().CreatedAt.After(newest) {
				newest = files.Item().CreatedAt
			}
		}
		if errors.Join(files.Err(), files.Close()) != nil {
			return
		}
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.bytes, r.snapshot = bytes, newest
}
