package replica

import (
	"errors"
	"time"

	"github.com/benbjohnson/litestream"
)

// State is how replication is, in a word.
type State string

const (
	Off      State = "off"      // no replica is configured
	OK       State = "ok"       // the last sync succeeded
	Behind   State = "behind"   // no sync has ended for LagAlarm
	Away     State = "away"     // the replica can't be reached or written to; that is tried again
	Stuck    State = "stuck"    // replication fails on this side; that is tried again
	Taken    State = "taken"    // another server writes to the replica; it takes a restart to try again
	Diverged State = "diverged" // the replica has changes that are not here; it takes a person
)

// Status is how replication is. The zero value is without a replica.
type Status struct {
	State       State
	Replica     string        // its URL
	Lag         time.Duration // since the last success
	LastSuccess time.Time     // zero: never
	Pending     int64         // changes that the replica is not known to have; -1 where that can't be told
	Position    uint64        // the last transaction in the replica
	Snapshot    time.Time     // the newest whole copy in it; zero: not known yet
	Bytes       int64         // its size when it was last looked at
	Holder      string        // the other writer, where there is one
	HolderSince time.Time
	LastError   string // of the last sync, if it failed
	Drill       Drill  // the last one
}

// Late tells whether people should be told: nothing has been replicated for too long.
func (s Status) Late() bool {
	switch s.State {
	case "", Off:
		return false
	case Taken, Diverged:
		return true
	}
	return s.Lag > LagAlarm
}

// Status returns how replication is. It is cheap, waits for nothing, and may be asked of a nil Replica.
func (r *Replica) Status() Status {
	if r == nil {
		return Status{State: Off}
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	s := Status{State: r.state, Replica: r.o.Config.String(), Lag: time.Since(r.success), LastSuccess: r.at, Pending: -1,
		Position: r.position, Snapshot: r.snapshot, Bytes: r.bytes, Drill: r.drill}
	if s.State == OK && s.Lag > LagAlarm {
		s.State = Behind
	}
	if r.revision >= 0 {
		s.Pending = r.changes.Load() - r.replicated
	}
	if r.lastErr != nil {
		s.LastError = r.lastErr.Error()
		var held *HeldError
		if errors.As(r.lastErr, &held) {
			s.Holder, s.HolderSince = held.Holder, held.Since
		}
	}
	return s
}

// remoteError is one from the replica's side.
type remoteError struct{ err error }

func (e *remoteError) Error() string { return e.err.Error() }
func (e *remoteError) Unwrap() error { return e.err }

// stateOf says what an error makes of replication.
func stateOf(err error) State {
	var held *HeldError
	var diverged *DivergedError
	var remote *remoteError
	switch {
	case errors.As(err, &held):
		return Taken
	case errors.As(err, &diverged):
		return Diverged
	case errors.As(err, &remote), errors.Is(err, errLapsed), errors.Is(err, errVanished):
		return Away
	}
	return Stuck
}

// succeeded notes a sync, which has the replica at a revision and at so many changes since the start, at
// least. A revision of -1 says that it is not known.
func (r *Replica) succeeded(revision, changes int64) {
	r.mu.Lock()
	before := r.state
	r.state, r.lastErr = OK, nil
	r.success, r.at = time.Now(), r.o.Now()
	if r.engine != nil {
		r.position = r.engine.position()
	}
	if revision >= 0 {
		r.revision, r.replicated = revision, changes
	}
	r.alarmed = false
	r.mu.Unlock()
	if before != OK {
		r.o.Log.Info("replication goes on", "replica", r.o.Config.String(), "before", string(before))
	}
}

// failed notes a sync that failed. The log hears of each state once, and of a lag that becomes an alarm.
func (r *Replica) failed(err error) {
	r.mu.Lock()
	before := r.state
	r.state, r.lastErr = stateOf(err), err
	now, lag := r.state, time.Since(r.success)
	alarm := lag > LagAlarm && !r.alarmed
	r.alarmed = r.alarmed || alarm
	r.mu.Unlock()
	if errors.Is(err, litestream.ErrDiskFull) && now != before {
		r.o.Log.Error("replication waits: the data directory's disk is full", "error", err.Error())
	} else if now != before || alarm {
		r.o.Log.Error("replication fails", "state", string(now), "replica", r.o.Config.String(), "lag", lag.Round(time.Second).String(), "error", err.Error())
	}
}

// why returns what the last sync failed with.
func (r *Replica) why() error {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.lastErr
}
