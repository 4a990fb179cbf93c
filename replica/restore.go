package replica

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/benbjohnson/litestream"
	"github.com/superfly/ltx"

	"github.com/dezky/platform-api/db"
)

// Point is a state of the database that the replica can bring back.
type Point struct {
	At       time.Time // when it was replicated: nothing that was committed later is in it
	Position uint64    // litestream's transaction
}

// ErrEmpty says that nothing is in the replica.
var ErrEmpty = errors.New("the replica is empty")

// Points returns the states that the replica can bring back, oldest first: every change of the last hour,
// and steps of 30 s, 5 min, 1 h and 6 h before that. None is named whose parts are not all there.
func Points(ctx context.Context, c *Config) ([]Point, error) {
	client, err := c.client()
	if err != nil {
		return nil, err
	}
	if _, err := c.preflight(ctx, client); err != nil {
		return nil, fmt.Errorf("replica: %w", err)
	}
	return points(ctx, client)
}

func points(ctx context.Context, client litestream.ReplicaClient) ([]Point, error) {
	all := &listing{ReplicaClient: client}
	at := map[ltx.TXID]time.Time{} // the earliest time at which a file ends there
	for level := range all.levels {
		files, err := client.LTXFiles(ctx, level, 0, true)
		if err != nil {
			return nil, fmt.Errorf("replica: %w", err)
		}
		for files.Next() {
			info := *files.Item()
			all.levels[level] = append(all.levels[level], &info)
			if t, there := at[info.MaxTXID]; !there || info.CreatedAt.Before(t) {
				at[info.MaxTXID] = info.CreatedAt
			}
		}
		if err := errors.Join(files.Err(), files.Close()); err != nil {
			return nil, fmt.Errorf("replica: %w", err)
		}
	}
	var out []Point
	for txid, at := range at {
		if _, err := litestream.CalcRestorePlan(ctx, all, txid, time.Time{}, slog.New(slog.DiscardHandler)); err == nil {
			out = append(out, Point{at.UTC(), uint64(txid)})
		}
	}
	slices.SortFunc(out, func(a, b Point) int { return cmp.Compare(a.Position, b.Position) })
	return out, nil
}

// listing answers from one look at the replica: a plan asks for every level, and there are many plans.
type listing struct {
	litestream.ReplicaClient
	levels [litestream.SnapshotLevel + 1][]*ltx.FileInfo
}

func (l *listing) LTXFiles(_ context.Context, level int, seek ltx.TXID, _ bool) (ltx.FileIterator, error) {
	var out []*ltx.FileInfo
	for _, info := range l.levels[level] {
		if info.MinTXID >= seek {
			out = append(out, info)
		}
	}
	return ltx.NewFileInfoSliceIterator(out), nil
}

// Restored is what a restore has brought.
type Restored struct {
	Point    // At is zero where the latest state was asked for
	Contents db.Contents
	Took     time.Duration
}

// Restore puts the replica's latest state, or the last one not after a time, into a directory that holds
// no database. Its integrity is checked before it has its name. The caller holds the directory's lock. The
// first start on it begins a new epoch, and continues the replica from there.
func Restore(ctx context.Context, c *Config, dir string, at time.Time) (Restored, error) {
	client, err := c.client()
	if err != nil {
		return Restored{}, err
	}
	if backup, err := c.preflight(ctx, client); err != nil {
		return Restored{}, fmt.Errorf("replica: %w", err)
	} else if !backup {
		return Restored{}, ErrEmpty
	}
	if _, err := os.Stat(filepath.Join(dir, db.File)); err == nil {
		return Restored{}, fmt.Errorf("%s holds a database already; restore to another directory, or move it away first", dir)
	}
	var p Point
	if !at.IsZero() {
		if p, err = pointAt(ctx, client, at, time.Now()); err != nil {
			return Restored{}, err
		}
	}
	if err := mark(supersedes(dir)); err != nil {
		return Restored{}, err
	}
	restored, err := restoreInto(ctx, client, dir, p)
	if err != nil {
		return Restored{}, errors.Join(err, os.Remove(supersedes(dir)))
	}
	return restored, nil
}

// pointAt returns the last state not after a time.
func pointAt(ctx context.Context, client litestream.ReplicaClient, at, now time.Time) (Point, error) {
	if at.After(now) {
		return Point{}, fmt.Errorf("%s lies in the future", at.UTC().Format(time.RFC3339))
	}
	all, err := points(ctx, client)
	if err != nil {
		return Point{}, err
	}
	if len(all) == 0 {
		return Point{}, errors.New("nothing in the replica can be restored")
	}
	first := slices.MinFunc(all, func(a, b Point) int { return a.At.Compare(b.At) })
	var best Point
	for _, p := range all { // by position: of two at the same time the later state
		if !p.At.After(at) && !p.At.Before(best.At) {
			best = p
		}
	}
	if best.Position == 0 {
		return Point{}, fmt.Errorf("%s is before the first state that can be restored, of %s", at.UTC().Format(time.RFC3339), first.At.Format(time.RFC3339))
	}
	return best, nil
}

// restoreInto brings a state into dir, the latest where p is zero, and checks it before it counts.
func restoreInto(ctx context.Context, client litestream.ReplicaClient, dir string, p Point) (Restored, error) {
	begun := time.Now()
	work := filepath.Join(dir, db.File+".restoring")
	contents, err := fetch(ctx, client, work, p)
	defer os.RemoveAll(work)
	if err != nil {
		return Restored{}, err
	}
	// What is left of another database would be taken for this one's and make it corrupt.
	if err := moveAside(dir, begun); err != nil {
		return Restored{}, err
	}
	if err := db.MarkRestored(dir); err != nil {
		return Restored{}, err
	}
	if err := os.Rename(filepath.Join(work, db.File), filepath.Join(dir, db.File)); err != nil {
		return Restored{}, err
	}
	return Restored{p, contents, time.Since(begun)}, syncDir(dir)
}

// fetch restores a state into a directory of its own, which it makes, and checks it.
func fetch(ctx context.Context, client litestream.ReplicaClient, work string, p Point) (db.Contents, error) {
	if err := errors.Join(os.RemoveAll(work), os.MkdirAll(work, 0o700)); err != nil {
		return db.Contents{}, err
	}
	name := filepath.Join(work, db.File)
	o := litestream.NewRestoreOptions()
	o.OutputPath, o.TXID = name, ltx.TXID(p.Position)
	if err := litestream.NewReplicaWithClient(nil, &readOnly{client}).Restore(ctx, o); err != nil {
		return db.Contents{}, fmt.Errorf("restore: %w", err)
	}
	if err := os.Chmod(name, 0o600); err != nil {
		return db.Contents{}, err
	}
	contents, err := db.Inspect(ctx, name)
	if err != nil {
		return contents, fmt.Errorf("what was restored: %w", err)
	}
	return contents, nil
}

// readOnly is a client without its other formats: replicas of an older litestream are none of ours.
type readOnly struct{ litestream.ReplicaClient }

// moveAside gets what belongs to a database that is gone out of the way of the next one.
func moveAside(dir string, now time.Time) error {
	suffix := ".aside-" + now.UTC().Format("20060102T150405.000Z")
	for _, name := range []string{filepath.Join(dir, db.File+"-wal"), filepath.Join(dir, db.File+"-shm"), metaDir(dir), replicated(dir)} {
		if err := os.Rename(name, name+suffix); err != nil && !errors.Is(err, os.ErrNotExist) {
			return err
		}
	}
	return nil
}

// supersedes is a file that says that a database is older than the replica on purpose.
func supersedes(dir string) string { return filepath.Join(dir, db.File+".supersedes-replica") }

// replicated is a file that says that a replica has had all of the database.
func replicated(dir string) string { return filepath.Join(dir, db.File+".replicated") }

func mark(name string) error {
	if err := os.MkdirAll(filepath.Dir(name), 0o700); err != nil {
		return err
	}
	f, err := os.OpenFile(name, os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o600)
	if err != nil {
		return err
	}
	if err := errors.Join(f.Sync(), f.Close()); err != nil {
		return err
	}
	return syncDir(filepath.Dir(name))
}

func syncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}

// DivergedError says that the replica has changes that the data directory lacks: replicating would bury them.
type DivergedError struct{ Replica db.Contents }

func (e *DivergedError) Error() string {
	l := e.Replica.Last
	return fmt.Sprintf("the replica has changes that the data directory lacks, up to revision %d of %s by %s, so another server has written to it since; "+
		"to go on from the replica move %s away, to go on from the data directory use another, empty replica",
		l.Revision, l.At.Format(time.RFC3339), l.Actor, db.File)
}

// errEmptied says that a replica has lost everything, which is what a missing mount looks like.
var errEmptied = errors.New("the replica is empty, although this data directory has been replicated before: either something is not mounted, " +
	"or it is a new replica; then say so with -first-boot (PLATFORM_API_FIRST_BOOT=true)")

// continues makes sure that dir's database continues what the replica has: litestream compares positions
// alone, and takes whatever is here for the newest. Where the last piece of the replica is not one that was
// written from here, the log decides; litestream is then to begin anew, with a snapshot after what is there.
func continues(ctx context.Context, client litestream.ReplicaClient, dir string, firstBoot bool) (anew bool, err error) {
	if _, err := os.Stat(supersedes(dir)); err == nil {
		return true, nil
	}
	last, err := litestream.NewReplicaWithClient(nil, client).MaxLTXFileInfo(ctx, 0)
	if err != nil {
		return false, err
	}
	if last.MaxTXID > 0 {
		if same, err := samePiece(ctx, client, dir, &last); err != nil || same {
			return false, err
		}
	} else if backup, err := anything(ctx, client); err != nil {
		return false, err
	} else if backup {
		return false, &brokenError{errors.New("its newest files are gone, so that nothing can follow what is left")}
	} else if _, err := os.Stat(replicated(dir)); err == nil && !firstBoot {
		return false, errEmptied
	} else if err != nil && !errors.Is(err, os.ErrNotExist) {
		return false, err
	} else {
		return true, nil // an empty replica gets all of it, not only what comes next
	}
	work := filepath.Join(dir, db.File+".comparing")
	defer os.RemoveAll(work)
	seen := &witness{ReplicaClient: client}
	there, err := fetch(ctx, seen, work, Point{})
	if err != nil && ctx.Err() == nil && !seen.failed.Load() && !noRoom(err) {
		return false, &brokenError{err}
	}
	if err != nil {
		return false, fmt.Errorf("the replica can't be compared with the data directory: %w", err)
	}
	if !there.Empty && there.Entries > 0 {
		if has, err := db.HasEntry(ctx, dir, there.Last); err != nil {
			return false, err
		} else if !has {
			return false, &DivergedError{there}
		}
	}
	return true, nil
}

// brokenError says that the replica answers and can't be restored.
type brokenError struct{ err error }

func (e *brokenError) Error() string {
	return "the replica can't be restored, so it is not known whether the data directory has all that was in it: " + e.err.Error() +
		"; to go on from the data directory use another, empty replica, or empty this one, and start once with -first-boot (PLATFORM_API_FIRST_BOOT=true)"
}

func (e *brokenError) Unwrap() error { return e.err }

// noRoom tells whether it is this machine's disk that an error is about, because it is full.
func noRoom(err error) bool {
	return errors.Is(err, syscall.ENOSPC) || errors.Is(err, syscall.EDQUOT) || errors.Is(err, litestream.ErrDiskFull)
}

// witness is a client that notes whether the replica has failed to answer, rather than answered with what is
// of no use.
type witness struct {
	litestream.ReplicaClient
	failed atomic.Bool
}

func (w *witness) note(err error) {
	if err != nil && err != io.EOF {
		w.failed.Store(true)
	}
}

func (w *witness) LTXFiles(ctx context.Context, level int, seek ltx.TXID, useMetadata bool) (ltx.FileIterator, error) {
	files, err := w.ReplicaClient.LTXFiles(ctx, level, seek, useMetadata)
	w.note(err)
	return files, err
}

func (w *witness) OpenLTXFile(ctx context.Context, level int, minTXID, maxTXID ltx.TXID, offset, size int64) (io.ReadCloser, error) {
	file, err := w.ReplicaClient.OpenLTXFile(ctx, level, minTXID, maxTXID, offset, size)
	w.note(err)
	if err != nil {
		return nil, err
	}
	return witnessed{file, w}, nil
}

type witnessed struct {
	io.ReadCloser
	by *witness
}

func (f witnessed) Read(p []byte) (int, error) {
	n, err := f.ReadCloser.Read(p)
	f.by.note(err)
	return n, err
}

// samePiece tells whether the replica's file is the one that is kept here: of the same size, and with the
// same end, which holds the checksum of the whole.
func samePiece(ctx context.Context, client litestream.ReplicaClient, dir string, info *ltx.FileInfo) (bool, error) {
	f, err := os.Open(litestream.LTXFilePath(metaDir(dir), 0, info.MinTXID, info.MaxTXID))
	if errors.Is(err, os.ErrNotExist) {
		return false, nil
	}
	if err != nil {
		return false, err
	}
	defer f.Close()
	size, err := f.Seek(0, io.SeekEnd)
	if err != nil || size != info.Size {
		return false, err
	}
	from := max(0, size-64<<10)
	here := make([]byte, size-from)
	if _, err := f.ReadAt(here, from); err != nil {
		return false, err
	}
	r, err := client.OpenLTXFile(ctx, 0, info.MinTXID, info.MaxTXID, from, 0)
	if err != nil {
		return false, err
	}
	defer r.Close()
	there, err := io.ReadAll(io.LimitReader(r, int64(len(here))+1))
	return bytes.Equal(here, there), err
}
