package replica

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"sync/atomic"
	"time"

	"github.com/benbjohnson/litestream"
	"github.com/superfly/ltx"

	"github.com/dezky/platform-api/db"
)

const (
	snapshotEvery = 6 * time.Hour
	snapshotsKept = 7 * 24 * time.Hour
	changesKept   = time.Hour // one by one; after that in steps of 30 s, 5 min and 1 h
	lastSync      = 8 * time.Second
)

func levels() litestream.CompactionLevels {
	return litestream.CompactionLevels{
		{Level: 0},
		{Level: 1, Interval: 30 * time.Second},
		{Level: 2, Interval: 5 * time.Minute},
		{Level: 3, Interval: time.Hour},
	}
}

// engine is an open litestream. It opens and closes descriptors of the database file past SQLite, which
// drops the locks of the whole process: both are for when no pool is open.
type engine struct {
	store *litestream.Store
	db    *litestream.DB
	gate  *gate
	stop  chan struct{} // closed to end litestream's last attempts at once
}

// startEngine opens litestream and has it take in what there is so far; the replica gets it from the first
// SyncAndWait, which touches no descriptor of the database any more and so may come when the pools are open.
func startEngine(ctx context.Context, dir string, client litestream.ReplicaClient, h hold, log *slog.Logger) (*engine, error) {
	d := litestream.NewDB(filepath.Join(dir, db.File))
	// Our own loop is the only one that syncs: theirs backs off for up to five minutes, and tells nobody.
	d.MonitorInterval = 0
	e := &engine{db: d, gate: &gate{ReplicaClient: client, hold: h}, stop: make(chan struct{})}
	d.Replica = litestream.NewReplicaWithClient(d, e.gate)
	d.Replica.MonitorEnabled = false
	// AutoRecoverEnabled stays off: it makes some replicas unrestorable. See Replica.rebuild.
	e.store = litestream.NewStore([]*litestream.DB{d}, levels())
	e.store.Logger = quiet(log)
	d.SetLogger(e.store.Logger)
	e.store.SnapshotInterval, e.store.SnapshotRetention = snapshotEvery, snapshotsKept
	e.store.L0RetentionCheckInterval = time.Minute
	e.store.SetL0Retention(changesKept)
	e.store.SetShutdownSyncTimeout(lastSync)
	e.store.SetDone(e.stop)
	err := e.store.Open(ctx)
	if err == nil {
		err = d.Sync(ctx)
	}
	if err != nil {
		return nil, errors.Join(err, ignoreInterrupted(e.abandon()))
	}
	return e, nil
}

// close ends replication after a last sync.
func (e *engine) close(ctx context.Context) error { return e.store.Close(ctx) }

// abandon ends replication and writes nothing more to the replica.
func (e *engine) abandon() error {
	e.gate.shut.Store(true)
	close(e.stop)
	return ignoreInterrupted(e.store.Close(context.Background()))
}

func ignoreInterrupted(err error) error {
	if errors.Is(err, litestream.ErrShutdownInterrupted) || errors.Is(err, errShut) {
		return nil
	}
	return err
}

func (e *engine) position() uint64 { return uint64(e.db.Replica.Pos().TXID) }

// gate is the replica as litestream sees it: it is written to only by right.
type gate struct {
	litestream.ReplicaClient
	hold hold
	shut atomic.Bool
}

var errShut = errors.New("replication has ended")

// SetLogger does nothing: the client is shared with those who read at the same time, and has its logger.
func (g *gate) SetLogger(*slog.Logger) {}

func (g *gate) may(ctx context.Context) (context.Context, context.CancelFunc, error) {
	if g.shut.Load() {
		return nil, nil, errShut
	}
	right, err := g.hold.valid()
	if err != nil {
		return nil, nil, err
	}
	ctx, cancel := context.WithCancelCause(ctx)
	stop := context.AfterFunc(right, func() { cancel(context.Cause(right)) })
	return ctx, func() { stop(); cancel(nil) }, nil
}

func (g *gate) WriteLTXFile(ctx context.Context, level int, minTXID, maxTXID ltx.TXID, r io.Reader) (*ltx.FileInfo, error) {
	ctx, cancel, err := g.may(ctx)
	if err != nil {
		return nil, err
	}
	defer cancel()
	info, err := g.ReplicaClient.WriteLTXFile(ctx, level, minTXID, maxTXID, r)
	return info, remote(err)
}

func (g *gate) LTXFiles(ctx context.Context, level int, seek ltx.TXID, useMetadata bool) (ltx.FileIterator, error) {
	files, err := g.ReplicaClient.LTXFiles(ctx, level, seek, useMetadata)
	if err != nil {
		return nil, &remoteError{err}
	}
	return remoteFiles{files}, nil
}

// remoteFiles is a listing whose errors are the replica's.
type remoteFiles struct{ ltx.FileIterator }

func (f remoteFiles) Err() error   { return remote(f.FileIterator.Err()) }
func (f remoteFiles) Close() error { return remote(f.FileIterator.Close()) }

func (g *gate) OpenLTXFile(ctx context.Context, level int, minTXID, maxTXID ltx.TXID, offset, size int64) (io.ReadCloser, error) {
	file, err := g.ReplicaClient.OpenLTXFile(ctx, level, minTXID, maxTXID, offset, size)
	return file, remote(err)
}

func remote(err error) error {
	if err == nil {
		return nil
	}
	return &remoteError{err}
}

func (g *gate) DeleteLTXFiles(ctx context.Context, files []*ltx.FileInfo) error {
	ctx, cancel, err := g.may(ctx)
	if err != nil {
		return err
	}
	defer cancel()
	return g.ReplicaClient.DeleteLTXFiles(ctx, files)
}

func (g *gate) DeleteAll(context.Context) error {
	return errors.New("the replica is never emptied from here")
}

// metaDir is litestream's own state in a data directory.
func metaDir(dir string) string { return filepath.Join(dir, "."+db.File+litestream.MetaDirSuffix) }

// dropMeta makes litestream begin anew, with a snapshot after what the replica has.
func dropMeta(dir string) error { return os.RemoveAll(metaDir(dir)) }

// quiet takes litestream's log: what it calls info is said in its own words at debug.
func quiet(log *slog.Logger) *slog.Logger {
	return slog.New(demoted{log.Handler()}).With("from", "litestream")
}

type demoted struct{ slog.Handler }

func (h demoted) level(l slog.Level) slog.Level {
	if l == slog.LevelInfo {
		return slog.LevelDebug
	}
	return l
}

func (h demoted) Enabled(ctx context.Context, l slog.Level) bool {
	return h.Handler.Enabled(ctx, h.level(l))
}

func (h demoted) Handle(ctx context.Context, r slog.Record) error {
	r.Level = h.level(r.Level)
	return h.Handler.Handle(ctx, r)
}

func (h demoted) WithAttrs(attrs []slog.Attr) slog.Handler {
	return demoted{h.Handler.WithAttrs(attrs)}
}
func (h demoted) WithGroup(name string) slog.Handler { return demoted{h.Handler.WithGroup(name)} }
