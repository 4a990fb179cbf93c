-- +goose Up

-- Since when a tenant has its plan and status: by the log, the last change of either, else its creation.
ALTER TABLE tenants ADD COLUMN subscribed_at INTEGER NOT NULL DEFAULT 0;

UPDATE tenants SET subscribed_at = coalesce((
    SELECT at FROM log
    WHERE kind = 'tenant' AND name = tenants.slug
        AND (json_type(changes, '$.plan') IS NOT NULL OR json_type(changes, '$.status') IS NOT NULL)
    ORDER BY id DESC LIMIT 1), created_at);
