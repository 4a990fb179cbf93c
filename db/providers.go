package db

import (
	"context"
	"fmt"
	"time"
)

// Provider is what this node last learned of an identity provider, so that a restart can do without it:
// its own state, without history.
type Provider struct {
	URL       string // the configured issuer
	Document  string // of its discovery, a JSON object
	Keys      string // its key set, a JSON object
	FetchedAt time.Time
}

// PutProvider keeps what was learned of a provider, replacing what was known.
func (db *DB) PutProvider(ctx context.Context, p Provider) error {
	return db.write(ctx, func(tx *tx) error {
		err := tx.exec("INSERT INTO providers (url, document, keys, fetched_at) VALUES (?, ?, ?, ?)"+
			" ON CONFLICT (url) DO UPDATE SET document = excluded.document, keys = excluded.keys, fetched_at = excluded.fetched_at",
			p.URL, p.Document, p.Keys, p.FetchedAt.UnixMilli())
		if err != nil {
			return fmt.Errorf("provider %s: %w", p.URL, err)
		}
		return nil
	})
}

// Providers returns what is kept of all providers.
func (db *DB) Providers(ctx context.Context) ([]Provider, error) {
	scan := func(row scanner) (Provider, error) {
		var p Provider
		var fetched int64
		err := row.Scan(&p.URL, &p.Document, &p.Keys, &fetched)
		p.FetchedAt = fromMillis(fetched)
		return p, err
	}
	ps, err := collect(ctx, db.reader, scan, "SELECT url, document, keys, fetched_at FROM providers ORDER BY url")
	if err != nil {
		return nil, fmt.Errorf("providers: %w", err)
	}
	return ps, nil
}
