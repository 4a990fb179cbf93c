package replica

import (
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
	if r.final != nil { // this goroutine alone sets it from now on
		return r.final
	}
	if err := r.db.Intact(); err != nil { // what litestream would now take for the database is another one, or none
		return fmt.Errorf("database: %w", err)
	}
	if r.engine == nil {
		return r.comeBack(ctx)
	}
	if _, err := r.hold.valid(); errors.Is(err, errVanished) {
		return r.comeBack(ctx)
	} else if err != nil {
		return r.finally(err)
	}
	call, cancel := context.WithTimeout(ctx, r.pace.sync)
	err := r.engine.db.SyncAndWait(call)
	cancel()
	if err == nil {
		r.failing = time.Time{}
		return r.snapshotIfAsked(ctx)
	}
	if !r.stuck(err) {
		return err
	}
	r.o.Log.Error("replication is stuck and begins anew", "error", err.Error())
	return r.rebuild(ctx, true)
}

// stuck tells whether an error is litestream's own, here, and will not pass: its files are not what it
// left, or it has failed for a while although neither the replica nor a full disk is the reason.
func (r *Replica) stuck(err error) bool {
	var remote *remoteError
	if errors.As(err, &remote) || errors.Is(err, litestream.ErrDiskFull) {
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

// comeBack looks whether a replica that was away is there again.
func (r *Replica) comeBack(ctx context.Context) error {
	if time.Now().Before(r.nextTry) {
		return r.why()
	}
	err := r.rebuild(ctx, false)
	r.nextTry = time.Now().Add(r.pace.retry)
	return err
}

// rebuild starts litestream anew while the pools are closed. Where it is stuck, its own state is dropped,
// so that it begins with a snapshot after what the replica has.
func (r *Replica) rebuild(ctx context.Context, stuck bool) error {
	if _, err := r.look(ctx); err != nil {
		return &remoteError{err}
	}
	if err := r.holdAgain(ctx); err != nil {
		return r.finally(err)
	}
	pause, cancel := context.WithTimeout(ctx, min(r.pace.pause<<r.pauses, r.pace.sync))
	defer cancel()
	err := r.db.Reopen(pause, func(ctx context.Context) error {
		if e := r.engine; e != nil {
			r.engine = nil
			if err := e.abandon(); err != nil {
				r.o.Log.Warn("litestream did not close well", "error", err.Error())
			}
		}
		if stuck {
			if err := dropMeta(r.o.Dir); err != nil {
				return err
			}
		} else if err := r.compare(ctx); err != nil {
			return err
		}
		if err := r.start(ctx); err != nil {
			return err
		}
		if !stuck {
			return nil
		}
		_, err := r.engine.db.Snapshot(ctx)
		return err
	})
	if err == nil {
		r.pauses = 0
	} else if pause.Err() != nil {
		r.pauses = min(r.pauses+1, 3)
	}
	return r.finally(err)
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
		if err := r.hold.release(ctx); err != nil {
			return err
		}
		r.setHold(nil)
	}
	h, err := r.o.Config.acquire(ctx, r.owner, r.pace, r.o.Log)
	if err != nil {
		return err
	}
	r.setHold(h)
	return nil
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
		return r.rebuild(ctx, true)
	}
	if _, err := r.engine.db.Snapshot(ctx); err != nil {
		return fmt.Errorf("snapshot: %w", err)
	}
	return nil
}
