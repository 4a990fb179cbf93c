package replica

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/benbjohnson/litestream"
)

// round is one sync, and those who wait for it.
type round struct {
	done chan struct{}
	err  error
}

func newRound() *round { return &round{done: make(chan struct{})} }

// wake makes the channel's reader look; it never blocks.
func wake(c chan struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}

// Wait waits until the replica has everything that was committed before the call, for at most 5 s. All
// who wait share a sync.
func (r *Replica) Wait(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, waitFor)
	defer cancel()
	var last error
	for {
		r.mu.Lock()
		next, final := r.round, r.final
		r.mu.Unlock()
		if final != nil {
			return final
		}
		wake(r.urgent)
		select {
		case <-next.done:
			if last = next.err; last == nil {
				return nil
			}
		case <-ctx.Done():
			return r.unanswered(last)
		}
		select { // failed for now: those who wait must not make it worse
		case <-time.After(r.pace.gap):
		case <-ctx.Done():
			return r.unanswered(last)
		}
	}
}

func (r *Replica) unanswered(last error) error {
	if last != nil {
		return last
	}
	return fmt.Errorf("it did not answer within %s", waitFor)
}

// run is the one loop that replicates: soon after each change, at once where somebody waits, and each beat
// where nothing happens, since what litestream says of itself is not to be relied on.
func (r *Replica) run(ctx context.Context) {
	beat := time.NewTicker(r.pace.beat)
	defer beat.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-beat.C:
		case <-r.poke:
		case <-r.urgent:
		}
		r.sync(ctx)
		select {
		case <-ctx.Done():
			return
		case <-time.After(r.pace.gap):
		case <-r.urgent:
			wake(r.urgent)
		}
	}
}

// sync replicates once. Who joins a round has committed before its sync begins.
func (r *Replica) sync(ctx context.Context) {
	r.mu.Lock()
	now := r.round
	r.round = newRound()
	r.mu.Unlock()
	changes, revision := r.changes.Load(), r.db.Current().Revision() // what is told of is committed
	err := r.attempt(ctx)
	if err == nil {
		r.succeeded(revision, changes)
	} else if ctx.Err() == nil {
		r.failed(err)
	}
	now.err = err
	close(now.done)
}

func (r *Replica) attempt(ctx context.Context) error {
	var err error
	if r.final == nil { // this goroutine alone sets it from now on
		err = r.replicate(ctx)
	}
	if r.final != nil {
		r.retire(ctx)
		return r.final
	}
	return err
}

func (r *Replica) replicate(ctx context.Context) error {
	if err := r.db.Intact(); err != nil { // what litestream would now take for the database is another one, or none
		return fmt.Errorf("database: %w", err)
	}
	if r.engine == nil || r.hold == nil || r.engine.gate.shut.Load() {
		return r.comeBack(ctx, errVanished)
	}
	if _, err := r.hold.valid(); errors.Is(err, errVanished) {
		return r.comeBack(ctx, err)
	} else if errors.Is(err, errLapsed) {
		call, cancel := context.WithTimeout(ctx, r.pace.sync)
		defer cancel()
		return errors.Join(err, r.engine.db.Sync(call)) // here alone: else the write-ahead log would grow and grow
	} else if err != nil {
		return r.finally(err)
	}
	err := r.upload(ctx)
	if err == nil {
		r.failing = time.Time{}
		return r.snapshotIfAsked(ctx)
	}
	if !r.stuck(err) || time.Now().Before(r.nextTry) {
		return err
	}
	r.o.Log.Error("replication is stuck and begins anew", "error", err.Error())
	return r.again(ctx, true)
}

// stuck tells whether an error is litestream's own, here, and will not pass: its files are not what it
// left, or it has failed for a while although neither the replica nor a full disk is the reason.
func (r *Replica) stuck(err error) bool {
	var remote *remoteError
	if errors.As(err, &remote) || noRoom(err) {
		r.failing = time.Time{}
		return false
	}
	var local *litestream.LTXError
	if errors.As(err, &local) && local.IsAutoRecoverable() {
		return true
	}
	if r.failing.IsZero() {
		r.failing = time.Now()
	}
	return time.Since(r.failing) > r.pace.stuck
}

// upload has the replica get all there is.
func (r *Replica) upload(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, r.pace.sync)
	defer cancel()
	if err := r.engine.db.SyncAndWait(ctx); err != nil {
		return err
	}
	if err := r.settle(); err != nil {
		return err
	}
	if !r.owed {
		return nil
	}
	if _, err := r.engine.db.Snapshot(ctx); err != nil {
		return fmt.Errorf("snapshot: %w", err)
	}
	r.owed = false
	return nil
}

// comeBack looks whether a replica that was away, because of cause, is there again.
func (r *Replica) comeBack(ctx context.Context, cause error) error {
	if time.Now().Before(r.nextTry) {
		return cmp.Or(r.why(), cause)
	}
	return r.again(ctx, false)
}

// again has litestream begin anew. Where that fails, the next time is put off by more than changes were held up.
func (r *Replica) again(ctx context.Context, stuck bool) error {
	r.cost, r.nextTry = 0, time.Time{}
	err := r.rebuild(ctx, stuck)
	if err != nil {
		r.nextTry = time.Now().Add(max(r.pace.retry, 10*r.cost))
	}
	return err
}

// rebuild starts litestream anew while the pools are closed; what may take its time is done before and after.
// Where it is stuck, its own state is dropped, so that it begins with a snapshot after what the replica has.
func (r *Replica) rebuild(ctx context.Context, stuck bool) error {
	if _, err := r.look(ctx); err != nil {
		return &remoteError{err}
	}
	if err := r.holdAgain(ctx); err != nil {
		return r.finally(err)
	}
	anew := stuck
	if !stuck {
		begun := time.Now()
		comparing, cancel := context.WithTimeout(ctx, 10*r.pace.sync)
		defer cancel()
		var err error
		if anew, err = r.compare(comparing); err != nil {
			r.cost = time.Since(begun) / 10
			return r.finally(err)
		}
	}
	pause, cancel := context.WithTimeout(ctx, min(r.pace.pause<<r.pauses, r.pace.sync))
	defer cancel()
	begun := time.Now()
	err := r.db.Reopen(pause, func(ctx context.Context) error {
		r.abandon()
		if anew {
			if err := dropMeta(r.o.Dir); err != nil {
				return err
			}
		}
		return r.start(ctx)
	})
	if err != nil {
		r.cost = time.Since(begun)
		if pause.Err() != nil {
			r.pauses = min(r.pauses+1, 3)
		}
		return r.finally(err)
	}
	r.pauses = 0
	r.owed = r.owed || stuck
	return r.upload(ctx)
}

// abandon ends litestream; no pool is open.
func (r *Replica) abandon() {
	e := r.engine
	if e == nil {
		return
	}
	r.engine = nil
	if err := e.abandon(); err != nil {
		r.o.Log.Warn("litestream did not close well", "error", err.Error())
	}
}

// retire ends litestream where replication has ended for good: it would keep SQLite from ever emptying the
// write-ahead log.
func (r *Replica) retire(ctx context.Context) {
	if r.engine == nil || time.Now().Before(r.nextTry) {
		return
	}
	r.engine.gate.shut.Store(true)
	pause, cancel := context.WithTimeout(ctx, r.pace.pause)
	defer cancel()
	begun := time.Now()
	err := r.db.Reopen(pause, func(context.Context) error {
		r.abandon()
		return nil
	})
	if err != nil && ctx.Err() == nil {
		r.o.Log.Warn("litestream could not be ended", "error", err.Error())
		r.nextTry = time.Now().Add(max(r.pace.retry, 10*time.Since(begun)))
	}
}

// holdAgain takes the right to write where there is none, or where what stood for it is gone.
func (r *Replica) holdAgain(ctx context.Context) error {
	if r.hold != nil {
		if _, err := r.hold.valid(); !errors.Is(err, errVanished) {
			return err
		}
		if r.engine != nil {
			r.engine.gate.shut.Store(true) // it goes with the right that it had
		}
		gone := r.hold
		r.setHold(nil)
		call, cancel := context.WithTimeout(ctx, r.pace.call)
		defer cancel()
		if err := gone.release(call); err != nil {
			return err
		}
	}
	h, err := r.acquire(ctx)
	if err != nil {
		return err
	}
	r.setHold(h)
	return nil
}

// acquire takes the right to write. Another's lease is waited out once.
func (r *Replica) acquire(ctx context.Context) (hold, error) {
	ctx, cancel := context.WithTimeout(ctx, r.pace.sync+r.pace.lease)
	defer cancel()
	return r.o.Config.acquire(ctx, r.owner, r.pace, r.o.Log)
}

func (r *Replica) setHold(h hold) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.hold = h
}

// finally keeps what only a person can mend: another writer, and changes that are not here.
func (r *Replica) finally(err error) error {
	var held *HeldError
	var diverged *DivergedError
	if errors.As(err, &held) || errors.As(err, &diverged) {
		r.mu.Lock()
		r.final = err
		r.mu.Unlock()
	}
	return err
}

// snapshotIfAsked writes a whole copy into the replica, which makes up for whatever is broken in it.
func (r *Replica) snapshotIfAsked(ctx context.Context) error {
	r.mu.Lock()
	asked, anew := r.snapshotAsked, r.anewAsked
	r.snapshotAsked, r.anewAsked = nil, false
	r.mu.Unlock()
	if asked == nil {
		return nil
	}
	defer close(asked)
	if anew {
		return r.again(ctx, true)
	}
	ctx, cancel := context.WithTimeout(ctx, r.pace.sync)
	defer cancel()
	if _, err := r.engine.db.Snapshot(ctx); err != nil {
		return fmt.Errorf("snapshot: %w", err)
	}
	return nil
}
