package db

import (
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"slices"

	"github.com/dezky/platform-api/flags"
)

// Life returns how a flag's state and reach in an environment changed over time, newest step first, also of a flag
// that was deleted. The error is ErrNotFound for a key that never was. The log since the flag's creation is read
// once, of other entries but those about tenants no more than their kinds.
func (db *DB) Life(ctx context.Context, key, environment string) ([]flags.LifeStep, error) {
	now := db.Current()
	tx, err := db.reader.BeginTx(ctx, nil)
	if err != nil {
		return nil, fmt.Errorf("life of flag %q: %w", key, err)
	}
	defer tx.Rollback()
	steps, err := life(ctx, tx, now, key, environment)
	if err != nil {
		return nil, fmt.Errorf("life of flag %q: %w", key, err)
	}
	return steps, nil
}

func life(ctx context.Context, q querier, now *flags.Snapshot, key, environment string) ([]flags.LifeStep, error) {
	log, err := collect(ctx, q, scanEntry, "SELECT id, at, revision, actor, kind, name, action, version, note, changes, NULL, via, subject, issuer, client"+
		" FROM log WHERE kind = 'flag' AND name = ? AND revision <= ? ORDER BY id", key, now.Revision())
	if err != nil {
		return nil, err
	}
	if len(log) == 0 {
		return nil, flags.ErrNotFound
	}
	list, err := collect(ctx, q, scanFlag, "SELECT s.key, s.description, s.state, s.pct, o.scope, s.version, s.created_at, s.updated_at"+
		" FROM flag_states s CROSS JOIN flag_states o ON o.id = s.scope_id WHERE s.key = ?", key)
	if err != nil {
		return nil, err
	}
	versions := make(map[int64]*flags.Flag, len(list))
	for _, f := range list {
		versions[f.Version] = f
	}
	scan := func(row scanner) (e flags.Entry, err error) {
		var at int64
		var changes []byte
		if err := row.Scan(&e.ID, &at, &e.Name, &e.Action, &changes); err != nil {
			return e, err
		}
		if e.At = fromMillis(at); changes != nil {
			err = json.Unmarshal(changes, &e.Changes)
		}
		return e, err
	}
	// In the log's own order: the index has the tenants together, and would look up each of their entries.
	registry, err := collect(ctx, q, scan, "SELECT id, at, name, action, changes FROM log NOT INDEXED WHERE id > ? AND revision <= ? AND kind = 'tenant'"+
		" AND action <> ?", log[0].ID, now.Revision(), flags.Created)
	if err != nil {
		return nil, err
	}
	removed := map[string]bool{}
	var slugs []string
	for _, e := range registry {
		if e.Action == flags.Deleted && !removed[e.Name] {
			removed[e.Name], slugs = true, append(slugs, e.Name)
		}
	}
	if len(slugs) > 0 {
		list, err := toJSON(slugs)
		if err != nil {
			return nil, err
		}
		creations, err := collect(ctx, q, scan, "SELECT log.id, log.at, log.name, log.action, NULL FROM json_each(?) slug CROSS JOIN log"+
			" ON log.kind = 'tenant' AND log.name = slug.value AND log.id > ? WHERE log.action = ? AND log.revision <= ?",
			list, log[0].ID, flags.Created, now.Revision())
		if err != nil {
			return nil, err
		}
		registry = append(registry, creations...)
	}
	slices.SortFunc(registry, func(a, b flags.Entry) int { return cmp.Compare(b.ID, a.ID) })
	return now.Life(environment, versions, log, registry)
}
