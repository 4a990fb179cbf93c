// Package provisioning makes other systems hold what the registry says of tenants. What is to be done is
// queued by db in the transaction of each change; nobody who changes the registry waits for it.
package provisioning

import (
	"context"
	"errors"
	"log/slog"
	"math/rand/v2"
	"sync"
	"time"

	"github.com/dezky/platform-api/db"
)

// Name is the integration's: in provisioningStatus, and in the queue.
const Name = "authentik"

const (
	atOnce          = 4                // tenants that are brought in line at once
	jobWithin       = 30 * time.Second // one tenant, waiting for its turn included where somebody waits for it
	backoffLeast    = time.Second
	backoffMost     = 15 * time.Minute
	databaseBackoff = 10 * time.Second // where the queue can't be read
)

// Options is what a Runner works with.
type Options struct {
	DB        *db.DB // opened with Name among its integrations
	Authentik *Authentik
	Log       *slog.Logger

	Now    func() time.Time                       // the clock
	Wait   func(until time.Time) <-chan time.Time // the alarm clock; time.After if nil
	Jitter func() float64                         // in [0, 1); random if nil
}

// Runner works the queue off. A nil one is of an appliance without integrations.
type Runner struct {
	Options
	slots chan struct{} // one token for each tenant that is being brought in line
	free  chan struct{} // woken when a token comes back

	mu     sync.Mutex
	busy   map[string]chan struct{} // by slug: closed when it is no longer being worked on
	paused time.Time                // until when Authentik asked to be left alone

	settled func(slug string) // for tests: after each attempt
}

// New returns a runner that does nothing until Run.
func New(o Options) *Runner {
	if o.Wait == nil {
		o.Wait = func(until time.Time) <-chan time.Time { return time.After(time.Until(until)) }
	}
	if o.Jitter == nil {
		o.Jitter = rand.Float64
	}
	return &Runner{Options: o, slots: make(chan struct{}, atOnce), free: make(chan struct{}, 1),
		busy: map[string]chan struct{}{}, settled: func(string) {}}
}

// Run queues what is not known to be in line, and works the queue off until ctx ends. An attempt that is cut
// short then counts as none.
func (r *Runner) Run(ctx context.Context) {
	var running sync.WaitGroup
	defer running.Wait()
	begun, failing := false, false
	for ctx.Err() == nil {
		var next time.Time
		var err error
		if !begun {
			err = r.DB.QueueStale(ctx, Name)
			begun = err == nil
		}
		if err == nil {
			next, err = r.dispatch(ctx, &running)
		}
		if err != nil && !failing && ctx.Err() == nil { // once, not at each look
			r.Log.Error("the queue of provisioning can't be used", "error", err.Error())
		}
		if failing = err != nil; failing {
			next = r.Now().Add(databaseBackoff)
		}
		var alarm <-chan time.Time // never, where nothing is waited for
		if !next.IsZero() {
			alarm = r.Wait(next)
		}
		select {
		case <-ctx.Done():
		case <-r.DB.Queued():
		case <-r.free:
		case <-alarm:
		}
	}
}

// dispatch starts what is due as far as there are free slots, and returns when to look again; zero: when a
// slot is free or something is queued.
func (r *Runner) dispatch(ctx context.Context, running *sync.WaitGroup) (next time.Time, err error) {
	r.mu.Lock()
	paused, busy := r.paused, len(r.busy)
	r.mu.Unlock()
	now := r.Now() // for both questions: what becomes due between them must not be missed
	if now.Before(paused) {
		return paused, nil
	}
	slugs, err := r.DB.DueJobs(ctx, Name, now, atOnce+busy)
	if err != nil {
		return next, err
	}
	for _, slug := range slugs {
		select {
		case r.slots <- struct{}{}:
		default:
			return next, nil
		}
		if r.claim(slug) != nil {
			<-r.slots
			continue
		}
		running.Go(func() {
			defer r.release(slug)
			if err := r.attempt(ctx, slug); err != nil { // the job is still due: not again at once
				r.Log.Error("provisioning could not be noted", "tenant", slug, "error", err.Error())
				r.pause(databaseBackoff)
			}
		})
	}
	return r.DB.NextJob(ctx, Name, now)
}

// claim takes a slug for the caller alone, or returns what is closed when it is free again.
func (r *Runner) claim(slug string) (taken <-chan struct{}) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if c, is := r.busy[slug]; is {
		return c
	}
	r.busy[slug] = make(chan struct{})
	return nil
}

// release gives a slug and a slot back.
func (r *Runner) release(slug string) {
	r.mu.Lock()
	close(r.busy[slug])
	delete(r.busy, slug)
	r.mu.Unlock()
	<-r.slots
	select {
	case r.free <- struct{}{}:
	default:
	}
}

// Reconcile brings a tenant in line now, within 30 seconds; where that fails, the tenant's state says why, and
// the queue goes on. The error is ErrNotFound for an unknown tenant, or the database's. Where ctx ends the
// attempt still goes on.
func (r *Runner) Reconcile(ctx context.Context, slug string) error {
	if r == nil {
		return nil
	}
	if err := r.DB.QueueTenant(ctx, Name, slug); err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), jobWithin)
	defer cancel()
	for {
		select {
		case r.slots <- struct{}{}:
		case <-ctx.Done():
			return nil
		}
		taken := r.claim(slug)
		if taken == nil {
			defer r.release(slug)
			return r.attempt(ctx, slug)
		}
		<-r.slots
		select {
		case <-taken: // whoever had it may have done what was just queued
		case <-ctx.Done():
			return nil
		}
	}
}

// attempt does the job about a slug, if one is due, and notes what came of it. Its error is the database's.
func (r *Runner) attempt(ctx context.Context, slug string) error {
	defer r.settled(slug)
	job, due, err := r.DB.DueJob(ctx, Name, slug)
	if err != nil || !due {
		return err
	}
	err = r.perform(ctx, job)
	if errors.Is(ctx.Err(), context.Canceled) {
		return nil
	}
	ctx = context.WithoutCancel(ctx)
	if err == nil {
		if job.Last != "" || !job.Known || job.Tenant == nil {
			r.Log.Info("tenant provisioned", "integration", Name, "tenant", slug, "there", job.Tenant != nil)
		}
		return r.DB.JobDone(ctx, Name, job)
	}
	var why *Failure
	if !errors.As(err, &why) {
		return err
	}
	wait := r.backoff(job.Attempts)
	if why.Wait > 0 {
		wait = max(wait, why.Wait)
		r.pause(why.Wait)
	}
	if job.Last == "" {
		r.Log.Warn("tenant not provisioned", "integration", Name, "tenant", slug, "error", why.Words)
	}
	return r.DB.JobFailed(ctx, Name, job, why.Words, r.Now().Add(wait))
}

// pause starts no job of the queue for a while.
func (r *Runner) pause(d time.Duration) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.paused = r.Now().Add(d)
}

// perform makes Authentik hold what the registry says under a slug.
func (r *Runner) perform(ctx context.Context, job db.Job) error {
	ctx, cancel := context.WithTimeout(ctx, jobWithin)
	defer cancel()
	if job.Tenant == nil {
		return r.Authentik.Remove(ctx, job.Slug)
	}
	unmarked := Renew
	if !job.Removed {
		had, err := r.DB.HadTenant(ctx, job.Slug)
		if err != nil {
			return err
		}
		if unmarked = Adopt; had {
			unmarked = Refuse
		}
	}
	return r.Authentik.Ensure(ctx, job.Tenant, unmarked)
}

// backoff is how long to wait after so many failures and one more: twice as long each time, up to a bound,
// and up to half less at random, so that many tenants do not come back at once.
func (r *Runner) backoff(attempts int) time.Duration {
	wait := backoffMost
	if attempts < 10 {
		wait = min(backoffLeast<<attempts, backoffMost)
	}
	return wait - time.Duration(r.Jitter()*float64(wait/2))
}

// Progress returns how far it is with all tenants.
func (r *Runner) Progress(ctx context.Context) (db.Progress, error) {
	if r == nil {
		return db.Progress{}, nil
	}
	return r.DB.Progress(ctx, Name)
}

// RetryAll queues every tenant once more, also those that wait after a failure. Progress tells how it goes.
func (r *Runner) RetryAll(ctx context.Context) error {
	if r == nil {
		return nil
	}
	return r.DB.QueueAll(ctx, Name)
}
