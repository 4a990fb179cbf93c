-- +goose Up

-- What other systems hold of tenants, and what is to be done about it: a node's own state, without history.
-- A row is about what stands under a slug there, whoever the slug's tenant was, is or will be.
CREATE TABLE provisioning (
    integration TEXT    NOT NULL CHECK (integration <> ''),
    slug        TEXT    NOT NULL CHECK (length(slug) BETWEEN 1 AND 63),
    tenant_id   TEXT    NOT NULL DEFAULT '' CHECK (length(tenant_id) <= 64), -- whose it was made there; '' unknown or nobody's
    tenant_at   INTEGER NOT NULL DEFAULT 0, -- that tenant's updated_at, as it was brought in line
    removed     INTEGER NOT NULL DEFAULT 0 CHECK (removed IN (0, 1)), -- a tenant was removed, and what was its may still be there
    wish        INTEGER NOT NULL CHECK (wish >= 1), -- grows with every wish: the newest counts
    attempts    INTEGER NOT NULL DEFAULT 0 CHECK (attempts >= 0), -- that failed since the newest wish
    next_at     INTEGER, -- when it is to be brought in line; NULL: it is
    error       TEXT    NOT NULL DEFAULT '', -- of the last attempt
    PRIMARY KEY (integration, slug)
) STRICT, WITHOUT ROWID;

CREATE INDEX provisioning_due ON provisioning (integration, next_at) WHERE next_at IS NOT NULL;
