package replica

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"time"

	"github.com/benbjohnson/litestream"

	"github.com/dezky/platform-api/db"
)

// LagAlarm is how long nothing may have been replicated before that is said loudly.
const LagAlarm = 15 * time.Second

// waitFor is how long a change waits for the replica to have it.
const waitFor = 5 * time.Second

// pace is how often things are done.
type pace struct {
	beat   time.Duration // between syncs where nothing changes
	gap    time.Duration // between syncs where much does, and nobody waits
	retry  time.Duration // between attempts to reach a replica that is away
	stuck  time.Duration // how long a replica that answers may fail before replication begins anew
	call   time.Duration // for one look at the replica
	sync   time.Duration // for one sync
	pause  time.Duration // for which changes may wait until replication begins anew; more if that was not enough
	lease  time.Duration // what the right to write on S3 lasts; it is renewed in a third of it
	drill  time.Duration // between drills
	first  time.Duration // until the first drill
	survey time.Duration // between surveys of the replica's size
}

var usual = pace{beat: 2 * time.Second, gap: 500 * time.Millisecond, retry: 5 * time.Second, stuck: time.Minute,
	call: 5 * time.Second, sync: time.Minute, pause: 10 * time.Second, lease: 15 * time.Second,
	drill: 24 * time.Hour, first: time.Minute, survey: 5 * time.Minute}

// Options says what is replicated where.
type Options struct {
	Config    *Config
	Dir       string // data directory, which the caller has locked
	FirstBoot bool   // neither database nor backup is no reason to refuse
	Log       *slog.Logger
	Now       func() time.Time // the clock of what is told to people

	pace *pace // for tests
}

// Replica keeps a database's copy up to date.
type Replica struct {
	o        Options
	pace     pace
	owner    string
	client   litestream.ReplicaClient // for reading
	restored *Restored                // what Open has brought back, if anything

	// Open's, then the loop's alone, then Close's.
	engine  *engine
	nextTry time.Time     // to reach a replica that is away
	failing time.Time     // on this side since then; zero if not
	pauses  int           // that were too short, one after the other
	cost    time.Duration // for which the last attempt to begin anew held up changes, or what is as bad
	owed    bool          // a snapshot, since replication began anew
	settled bool          // the replica has had all there was, and that is noted

	db           *db.DB // from Start on
	changes      atomic.Int64
	poke, urgent chan struct{}
	end          func()
	tasks        sync.WaitGroup
	drilling     chan struct{} // has room for one drill at a time
	stopRenewing func()        // of the right to write, which Open begins

	mu            sync.Mutex // of what follows; held for moments only
	hold          hold       // nil while there is none; set by whom engine belongs to
	final         error      // what ended replication for good; set likewise
	round         *round     // the next sync
	state         State
	lastErr       error
	alarmed       bool      // the log knows of the lag
	success       time.Time // of the last sync, by the monotonic clock
	at            time.Time // of the same, for people; zero: never
	revision      int64     // that the replica is known to have; -1 for none
	replicated    int64     // of changes, likewise
	position      uint64
	bytes         int64
	snapshot      time.Time
	drill         Drill
	snapshotAsked chan struct{} // closed once the snapshot that is asked for was tried
	anewAsked     bool          // instead of a snapshot, begin anew
}

// Open makes the data directory and the replica ready, before the database is opened: it restores a
// database that is missing, and replicates what there is. Where only the replica is away and a database is
// there, it says so in the log and leaves the rest to Start. Its steps are in an order that matters. Without
// a Config there is nothing to do: it returns nil, whose methods do nothing either.
func Open(ctx context.Context, o Options) (r *Replica, err error) {
	if o.Config == nil {
		return nil, nil
	}
	client, err := o.Config.client()
	if err != nil {
		return nil, fmt.Errorf("replica: %w", err)
	}
	r = &Replica{o: o, pace: usual, owner: owner(o.Dir), client: client,
		poke: make(chan struct{}, 1), urgent: make(chan struct{}, 1), drilling: make(chan struct{}, 1), round: newRound(),
		state: OK, revision: -1, success: time.Now()}
	if o.Now == nil {
		r.o.Now = time.Now
	}
	if o.pace != nil {
		r.pace = *o.pace
	}
	client.SetLogger(quiet(o.Log))
	if err := os.MkdirAll(o.Dir, 0o700); err != nil {
		return nil, fmt.Errorf("data directory: %w", err)
	}
	name := filepath.Join(o.Dir, db.File)
	_, err = os.Stat(name)
	missing := errors.Is(err, os.ErrNotExist)
	if err != nil && !missing {
		return nil, fmt.Errorf("data directory: %w", err)
	}

	// The right to write is kept from when there is one until Close: a restore or a migration may take longer
	// than a lease lasts.
	opened := r // r is nil where an error is returned
	opened.stopRenewing = r.renewing(context.WithoutCancel(ctx))
	defer func() {
		if err != nil {
			opened.stopRenewing()
			if h := opened.hold; h != nil {
				call, cancel := context.WithTimeout(context.WithoutCancel(ctx), opened.pace.call)
				defer cancel()
				err = errors.Join(err, h.release(call))
			}
		}
	}()

	// 1. Is it there? An unmounted directory or a mistyped prefix must not count as "no backup".
	backup, err := r.look(ctx)
	if err != nil && missing {
		return nil, fmt.Errorf("there is no database in %s, and the replica %s can't be reached, so it is not known whether there is a backup: %w", o.Dir, o.Config, err)
	}
	if err != nil {
		return r, r.stayAway(&remoteError{err})
	}
	// 2. One writer, before anything is decided that another might change.
	h, err := r.acquire(ctx)
	if err != nil {
		var held *HeldError
		if missing || errors.As(err, &held) {
			return nil, fmt.Errorf("replica %s: %w", o.Config, err)
		}
		return r, r.stayAway(err)
	}
	r.setHold(h)

	// 3. and 4. A database this program knows.
	if missing {
		if err := r.bringDatabase(ctx, backup); err != nil {
			return nil, err
		}
	}
	if err := db.RequireKnownSchema(ctx, o.Dir); err != nil {
		return nil, err
	}
	if !missing {
		anew, err := r.compare(ctx)
		if err == nil && anew {
			err = dropMeta(o.Dir)
		}
		if err != nil {
			var diverged *DivergedError
			if errors.As(err, &diverged) {
				return nil, fmt.Errorf("replica %s: %w", o.Config, err)
			}
			return r, r.stayAway(err)
		}
	}
	// 5. Replicate before any pool is open: litestream drops the process's locks where its start fails.
	if err := r.start(ctx); err != nil {
		return r, r.stayAway(err)
	}
	if err := r.upload(ctx); err != nil {
		r.abandon()
		return r, r.stayAway(err)
	}
	r.succeeded(-1, 0)
	return r, nil
}

// Restored returns what Open has brought back from the replica, if anything.
func (r *Replica) Restored() (Restored, bool) {
	if r.restored == nil {
		return Restored{}, false
	}
	return *r.restored, true
}

func (r *Replica) bringDatabase(ctx context.Context, backup bool) error {
	if !backup {
		if !r.o.FirstBoot {
			return fmt.Errorf("there is no database in %s and no backup in the replica %s: if this is the very first start, say so with -first-boot (PLATFORM_API_FIRST_BOOT=true); "+
				"else something is not mounted, or the replica's URL is wrong", r.o.Dir, r.o.Config)
		}
		if err := moveAside(r.o.Dir, r.o.Now()); err != nil {
			return err
		}
		return db.Create(ctx, r.o.Dir)
	}
	restored, err := restoreInto(ctx, r.client, r.o.Dir, Point{})
	if err != nil {
		return fmt.Errorf("replica %s: %w", r.o.Config, err)
	}
	r.restored = &restored
	r.o.Log.Info("database restored from the replica", "revision", restored.Contents.Revision, "lastChange", restored.Contents.Last.At,
		"flags", restored.Contents.Flags, "tenants", restored.Contents.Tenants, "took", restored.Took.String())
	return nil
}

// look asks the replica whether it is there, and whether it has anything.
func (r *Replica) look(ctx context.Context) (backup bool, err error) {
	ctx, cancel := context.WithTimeout(ctx, r.pace.call)
	defer cancel()
	return r.o.Config.preflight(ctx, r.client)
}

// start starts litestream; no pool is open.
func (r *Replica) start(ctx context.Context) (err error) {
	ctx, cancel := context.WithTimeout(ctx, r.pace.sync)
	defer cancel()
	if r.engine, err = startEngine(ctx, r.o.Dir, r.client, r.hold, r.o.Log); err != nil {
		r.engine = nil
	}
	return err
}

// settle notes in the data directory that the replica has had all there was.
func (r *Replica) settle() error {
	if r.settled {
		return nil
	}
	if err := mark(replicated(r.o.Dir)); err != nil {
		return err
	}
	if err := os.Remove(supersedes(r.o.Dir)); err != nil && !errors.Is(err, os.ErrNotExist) {
		return err
	}
	r.settled = true
	return nil
}

// compare makes sure that the database may go on in the replica, and tells whether litestream must begin anew.
// It changes nothing, and pools may be open.
func (r *Replica) compare(ctx context.Context) (anew bool, err error) {
	anew, err = continues(ctx, r.client, r.o.Dir, r.o.FirstBoot)
	var diverged *DivergedError
	var broken *brokenError
	if err == nil || errors.As(err, &diverged) || errors.As(err, &broken) {
		return anew, err
	}
	return false, &remoteError{err}
}

// stayAway goes on without the replica for now.
func (r *Replica) stayAway(cause error) error {
	r.failed(cause)
	r.o.Log.Error("starting without the replica: until it is back, changes exist on this machine only")
	return nil
}

// Start replicates the database, which is open now, until Close.
func (r *Replica) Start(d *db.DB) {
	if r == nil {
		return
	}
	r.db = d
	d.OnChange(func() {
		r.changes.Add(1)
		wake(r.poke)
	})
	r.mu.Lock()
	if r.state == OK {
		r.revision = d.Current().Revision() // opening does not change it
	}
	r.mu.Unlock()
	ctx, end := context.WithCancel(context.Background())
	r.end = end
	r.tasks.Go(func() { r.run(ctx) })
	r.tasks.Go(func() { r.keepHouse(ctx) })
}

// Stop ends what is under way, so that the database can be closed, and waits for that until ctx ends. The right
// to write is kept for Close, which has still to come.
func (r *Replica) Stop(ctx context.Context) error {
	if r == nil || r.end == nil {
		return nil
	}
	r.end()
	return within(ctx, func(context.Context) error {
		r.tasks.Wait()
		return nil
	})
}

// Close ends replication with a last sync, which it gives 8 s. The pools are closed before. The error says
// what kept the replica from having everything; it is all in the data directory.
func (r *Replica) Close(ctx context.Context) error {
	if r == nil {
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, lastSync+time.Second)
	defer cancel()
	ended := r.Stop(ctx)
	stopped := within(ctx, func(context.Context) error {
		r.stopRenewing()
		return nil
	})
	if errors.Join(ended, stopped) != nil {
		return errors.New("the replica does not answer, and what was under way does not end")
	}
	err := r.why()
	if r.engine != nil && (r.hold == nil || r.engine.gate.shut.Load()) {
		r.abandon()
	}
	if r.engine == nil {
		err = cmp.Or(err, errShut) // it was stopped while it was to begin anew
	}
	if r.hold == nil {
		return err
	}
	if r.engine != nil {
		call, end := context.WithTimeout(ctx, lastSync/4)
		r.hold.renew(call) // so that it lasts until then; whether it did is asked next
		end()
		if _, invalid := r.hold.valid(); invalid != nil {
			err = errors.Join(invalid, r.engine.abandon())
		} else {
			err = within(ctx, r.engine.close)
		}
	}
	giving, end := context.WithTimeout(context.WithoutCancel(ctx), time.Second)
	defer end()
	if releasing := r.hold.release(giving); releasing != nil {
		r.o.Log.Warn("the right to write to the replica was not given back; it lapses by itself", "error", releasing.Error())
	}
	return err
}

// within calls fn and waits for it, but not past ctx: a hung file system can't be told to stop.
func within(ctx context.Context, fn func(context.Context) error) error {
	done := make(chan error, 1)
	go func() { done <- fn(ctx) }()
	select {
	case err := <-done:
		return err
	case <-ctx.Done():
		return ctx.Err()
	}
}

// renewing keeps the right to write until ctx or the returned function ends it.
func (r *Replica) renewing(ctx context.Context) (stop func()) {
	ctx, cancel := context.WithCancel(ctx)
	done := make(chan struct{})
	go func() {
		defer close(done)
		tick := time.NewTicker(r.pace.lease / 3)
		defer tick.Stop()
		for {
			select {
			case <-ctx.Done():
				return
			case <-tick.C:
			}
			r.mu.Lock()
			h := r.hold
			r.mu.Unlock()
			if h == nil {
				continue
			}
			call, end := context.WithTimeout(ctx, r.pace.lease/3)
			if err := h.renew(call); err != nil && ctx.Err() == nil {
				r.o.Log.Warn("the right to write to the replica was not renewed", "error", err.Error())
			}
			end()
		}
	}()
	return func() { cancel(); <-done }
}
