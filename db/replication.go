package db

import "context"

// replication is what a replica has asked of the database; it is set before the first change that it is about.
type replication struct {
	committed   func()
	acknowledge func(context.Context) error
}

// NotReplicated says that a change stands here, and that the replica was not known to have it when the
// wait for that ended: the machine's loss would undo it.
type NotReplicated struct {
	Version int64 // of the flag that was changed, 0 where none was
	Cause   error
}

func (e *NotReplicated) Error() string {
	return "the change is made here, but the replica does not have it yet: " + e.Cause.Error()
}

func (e *NotReplicated) Unwrap() error { return e.Cause }

// OnChange has fn called after each change that wrote something is published. fn must not block. It is called once, before
// others use the database.
func (db *DB) OnChange(fn func()) { db.copied.committed = fn }

// AcknowledgeBy makes every further change wait, once it is published, until fn says that the replica has
// it; if fn fails, the change stands and its error is *NotReplicated. It is called once, before others use
// the database.
func (db *DB) AcknowledgeBy(fn func(context.Context) error) { db.copied.acknowledge = fn }

func (r *replication) changed() {
	if r.committed != nil {
		r.committed()
	}
}

// acknowledged waits for the replica without the turn to write, so that others' changes share the wait. It
// waits also where nothing was written: what the caller then learns may rest on a change still under way.
func (r *replication) acknowledged(ctx context.Context, version int64) error {
	if r.acknowledge == nil {
		return nil
	}
	if err := r.acknowledge(ctx); err != nil {
		return &NotReplicated{version, err}
	}
	return nil
}
