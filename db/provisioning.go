package db

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"time"

	"github.com/dezky/platform-api/flags"
)

// Job is what an integration is to bring in line under one slug.
type Job struct {
	Slug     string
	Tenant   *flags.Tenant // who has the slug; nil: nobody, so that nothing is to be there
	Removed  bool          // a tenant of this slug was removed, and what was its may still be there
	Known    bool          // something is known to be there
	Wish     int64         // which wish it is: a newer one may come while it is done
	Attempts int           // that failed since then
	Last     string        // the error of the last attempt, or ""
}

// Queued is woken when there may be something new to do for an integration.
func (db *DB) Queued() <-chan struct{} { return db.queued }

// pending returns how the integrations hold a tenant that this transaction changes.
func (tx *tx) pending(list []flags.Integration) []flags.Integration {
	for _, name := range tx.db.opts.Integrations {
		list = flags.WithIntegration(list, flags.Integration{Name: name, State: flags.IntegrationPending})
	}
	return list
}

// queueTenant has every integration bring a tenant in line that this transaction wrote with its states held.
func (tx *tx) queueTenant(t *flags.Tenant, held []flags.Integration) error {
	for _, name := range tx.db.opts.Integrations {
		if err := tx.queue(name, t.Slug, false); err != nil {
			return err
		}
	}
	if len(tx.db.opts.Integrations) > 0 {
		tx.committed(func() { t.Integrations.Set(held) })
	}
	return nil
}

// queueRemoval has every integration remove what it holds under a slug, so that the slug's next tenant
// inherits nothing.
func (tx *tx) queueRemoval(slug string) error {
	for _, name := range tx.db.opts.Integrations {
		if err := tx.queue(name, slug, true); err != nil {
			return err
		}
	}
	return nil
}

// queue makes the newest wish about a slug due now.
func (tx *tx) queue(integration, slug string, removed bool) error {
	err := tx.exec("INSERT INTO provisioning (integration, slug, removed, wish, next_at) VALUES (?, ?, ?, 1, ?)"+
		" ON CONFLICT DO UPDATE SET removed = max(removed, excluded.removed), wish = wish + 1, attempts = 0, next_at = excluded.next_at",
		integration, slug, removed, tx.db.timestamp())
	if err != nil {
		return fmt.Errorf("queue %q for %s: %w", slug, integration, err)
	}
	if !tx.queued {
		tx.queued = true
		tx.committed(tx.db.wakeQueue)
	}
	return nil
}

func (db *DB) wakeQueue() {
	select {
	case db.queued <- struct{}{}:
	default: // it has a wake to come already
	}
}

// setIntegration notes how an integration holds a tenant. Others see it after the commit.
func (tx *tx) setIntegration(t *flags.Tenant, i flags.Integration) error {
	list := flags.WithIntegration(t.Integrations.All(), i)
	states, errs := flags.IntegrationMaps(list)
	status, err := toJSON(states)
	if err != nil {
		return err
	}
	failures, err := toJSON(errs)
	if err != nil {
		return err
	}
	if err := tx.exec("UPDATE tenants SET provisioning_status = ?, provisioning_errors = ? WHERE id = ?", status, failures, t.ID); err != nil {
		return fmt.Errorf("tenant %q: %w", t.Slug, err)
	}
	tx.committed(func() { t.Integrations.Set(list) })
	return nil
}

// QueueTenant has an integration bring a tenant in line once more. The error is ErrNotFound where there is no
// such tenant.
func (db *DB) QueueTenant(ctx context.Context, integration, slug string) error {
	return db.write(ctx, func(tx *tx) error {
		t := db.live.Current().Tenant(slug)
		if t == nil {
			return fmt.Errorf("tenant %q: %w", slug, flags.ErrNotFound)
		}
		if err := tx.queue(integration, slug, false); err != nil {
			return err
		}
		return tx.setIntegration(t, flags.Integration{Name: integration, State: flags.IntegrationPending})
	})
}

// QueueStale has an integration bring in line what it was not known to hold as the registry has it, and remove
// what it holds of tenants that are gone. What is queued already keeps its turn.
func (db *DB) QueueStale(ctx context.Context, integration string) error {
	return db.queueMany(ctx, integration,
		"INSERT INTO provisioning (integration, slug, wish, next_at) SELECT ?1, slug, 1, ?2 FROM tenants t WHERE NOT EXISTS"+
			" (SELECT 1 FROM provisioning p WHERE p.integration = ?1 AND p.slug = t.slug AND p.tenant_id = t.id AND p.tenant_at = t.updated_at)"+
			" ON CONFLICT DO UPDATE SET wish = wish + 1, attempts = 0, next_at = excluded.next_at WHERE provisioning.next_at IS NULL",
		"UPDATE provisioning SET wish = wish + 1, removed = 1, attempts = 0, next_at = ?2 WHERE integration = ?1 AND next_at IS NULL"+
			" AND NOT EXISTS (SELECT 1 FROM tenants t WHERE t.slug = provisioning.slug)")
}

// QueueAll has an integration bring every tenant in line once more, and try at once what failed.
func (db *DB) QueueAll(ctx context.Context, integration string) error {
	return db.queueMany(ctx, integration,
		"INSERT INTO provisioning (integration, slug, wish, next_at) SELECT ?1, slug, 1, ?2 FROM tenants WHERE true"+
			" ON CONFLICT DO UPDATE SET wish = wish + 1, attempts = 0, next_at = excluded.next_at",
		"UPDATE provisioning SET wish = wish + 1, attempts = 0, next_at = ?2 WHERE integration = ?1 AND next_at > ?2")
}

// queueMany runs statements that queue, whose parameters are the integration and the time, and shows the
// tenants that now wait as pending.
func (db *DB) queueMany(ctx context.Context, integration string, statements ...string) error {
	return db.write(ctx, func(tx *tx) error {
		now := db.timestamp()
		for _, s := range statements {
			if err := tx.exec(s, integration, now); err != nil {
				return fmt.Errorf("queue tenants for %s: %w", integration, err)
			}
		}
		path := `$."` + integration + `"`
		slugs, err := collect(tx.ctx, tx.sql, scanText, "UPDATE tenants SET provisioning_status = json_set(provisioning_status, ?1, ?2),"+
			" provisioning_errors = json_remove(provisioning_errors, ?1) WHERE json_extract(provisioning_status, ?1) IS NOT ?2 AND EXISTS"+
			" (SELECT 1 FROM provisioning p WHERE p.integration = ?3 AND p.slug = tenants.slug AND p.next_at IS NOT NULL AND p.attempts = 0) RETURNING slug",
			path, flags.IntegrationPending, integration)
		if err != nil {
			return fmt.Errorf("queue tenants for %s: %w", integration, err)
		}
		tx.committed(func() {
			s := db.live.Current()
			for _, slug := range slugs {
				in := s.Tenant(slug).Integrations
				in.Set(flags.WithIntegration(in.All(), flags.Integration{Name: integration, State: flags.IntegrationPending}))
			}
		})
		tx.committed(db.wakeQueue)
		return nil
	})
}

func scanText(row scanner) (text string, err error) { return text, row.Scan(&text) }

// DueJobs returns the slugs of at most limit jobs of an integration that are due by a time, the longest due first.
func (db *DB) DueJobs(ctx context.Context, integration string, by time.Time, limit int) ([]string, error) {
	slugs, err := collect(ctx, db.reader, scanText, "SELECT slug FROM provisioning WHERE integration = ? AND next_at <= ? ORDER BY next_at, slug LIMIT ?",
		integration, by.UnixMilli(), limit)
	if err != nil {
		return nil, fmt.Errorf("jobs of %s: %w", integration, err)
	}
	return slugs, nil
}

// NextJob returns when an integration's first job is due after a time; zero: there is none.
func (db *DB) NextJob(ctx context.Context, integration string, after time.Time) (time.Time, error) {
	var at sql.NullInt64
	err := db.reader.QueryRowContext(ctx, "SELECT min(next_at) FROM provisioning WHERE integration = ? AND next_at > ?", integration, after.UnixMilli()).Scan(&at)
	if err != nil {
		return time.Time{}, fmt.Errorf("jobs of %s: %w", integration, err)
	}
	if !at.Valid {
		return time.Time{}, nil
	}
	return fromMillis(at.Int64), nil
}

// DueJob returns an integration's job about a slug, with the tenant as it was when the wish was the newest; it
// is not ok where none is due.
func (db *DB) DueJob(ctx context.Context, integration, slug string) (j Job, ok bool, err error) {
	fail := func(err error) (Job, bool, error) {
		return Job{}, false, fmt.Errorf("job of %s about %q: %w", integration, slug, err)
	}
	tx, err := db.reader.BeginTx(ctx, nil) // not the snapshot: it may be of before the wish
	if err != nil {
		return fail(err)
	}
	defer tx.Rollback()
	j.Slug = slug
	err = tx.QueryRowContext(ctx, "SELECT removed, tenant_id <> '', wish, attempts, error FROM provisioning"+
		" WHERE integration = ? AND slug = ? AND next_at <= ?", integration, slug, db.timestamp()).
		Scan(&j.Removed, &j.Known, &j.Wish, &j.Attempts, &j.Last)
	if errors.Is(err, sql.ErrNoRows) {
		return j, false, nil
	}
	if err != nil {
		return fail(err)
	}
	ts, err := collect(ctx, tx, scanTenant, "SELECT "+tenantColumns+" FROM tenants WHERE slug = ?", slug)
	if err != nil {
		return fail(err)
	}
	if len(ts) > 0 {
		j.Tenant = ts[0]
	}
	return j, true, nil
}

// HadTenant tells whether a tenant with the slug was ever removed.
func (db *DB) HadTenant(ctx context.Context, slug string) (had bool, err error) {
	err = db.reader.QueryRowContext(ctx, "SELECT EXISTS (SELECT 1 FROM log WHERE kind = ? AND name = ? AND action = ?)",
		flags.KindTenant, slug, flags.Deleted).Scan(&had)
	if err != nil {
		return false, fmt.Errorf("history of the tenant %q: %w", slug, err)
	}
	return had, nil
}

// JobDone notes that a job was done. A newer wish than the job's stays due.
func (db *DB) JobDone(ctx context.Context, integration string, j Job) error {
	return db.settle(ctx, integration, j, func(tx *tx, newest bool) error {
		id, at := "", int64(0)
		if t := j.Tenant; t != nil {
			id, at = t.ID, t.UpdatedAt.UnixMilli()
		}
		switch {
		case !newest: // a removal that was noted stays noted: it may be the newer wish
			return tx.exec("UPDATE provisioning SET tenant_id = ?, tenant_at = ?, error = '' WHERE integration = ? AND slug = ?", id, at, integration, j.Slug)
		case j.Tenant == nil:
			return tx.exec("DELETE FROM provisioning WHERE integration = ? AND slug = ?", integration, j.Slug)
		}
		err := tx.exec("UPDATE provisioning SET tenant_id = ?, tenant_at = ?, removed = 0, attempts = 0, next_at = NULL, error = '' WHERE integration = ? AND slug = ?",
			id, at, integration, j.Slug)
		if err != nil {
			return err
		}
		return tx.setIntegration(db.live.Current().Tenant(j.Slug), flags.Integration{Name: integration, State: flags.IntegrationOK})
	})
}

// JobFailed notes why a job failed, in words, and when it is due again. A newer wish is due anyhow.
func (db *DB) JobFailed(ctx context.Context, integration string, j Job, words string, next time.Time) error {
	return db.settle(ctx, integration, j, func(tx *tx, newest bool) error {
		if !newest {
			return nil
		}
		err := tx.exec("UPDATE provisioning SET attempts = attempts + 1, next_at = ?, error = ? WHERE integration = ? AND slug = ?",
			next.UnixMilli(), words, integration, j.Slug)
		if t := db.live.Current().Tenant(j.Slug); err == nil && t != nil {
			err = tx.setIntegration(t, flags.Integration{Name: integration, State: flags.IntegrationError, Error: words})
		}
		return err
	})
}

// settle runs fn for a job, and tells it whether the job's wish is still the newest. Then flags and registry
// have the tenant, or none, that the wish was about.
func (db *DB) settle(ctx context.Context, integration string, j Job, fn func(tx *tx, newest bool) error) error {
	return db.write(ctx, func(tx *tx) error {
		var wish int64
		err := tx.get("SELECT wish FROM provisioning WHERE integration = ? AND slug = ?", []any{integration, j.Slug}, &wish)
		if err == nil {
			err = fn(tx, wish == j.Wish)
		}
		if err != nil {
			return fmt.Errorf("job of %s about %q: %w", integration, j.Slug, err)
		}
		return nil
	})
}

// Progress counts what an integration has to do and has done.
type Progress struct {
	Total   int // tenants, and removals still to be done
	OK      int // brought in line
	Pending int // waiting for their first attempt
	Errors  int // failed, and tried again later
}

// Progress returns how far an integration is.
func (db *DB) Progress(ctx context.Context, integration string) (p Progress, err error) {
	err = db.reader.QueryRowContext(ctx, "SELECT count(*), count(*) FILTER (WHERE next_at IS NOT NULL AND attempts = 0), count(*) FILTER (WHERE attempts > 0)"+
		" FROM provisioning WHERE integration = ?", integration).Scan(&p.Total, &p.Pending, &p.Errors)
	if err != nil {
		return p, fmt.Errorf("progress of %s: %w", integration, err)
	}
	p.OK = p.Total - p.Pending - p.Errors
	return p, nil
}
