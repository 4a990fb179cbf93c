-- +goose Up

-- The one row about this database. A revision counts transactions that changed flags or registry; the
-- epoch names the line of revisions.
CREATE TABLE instance (
    id       INTEGER PRIMARY KEY CHECK (id = 1),
    epoch    TEXT    NOT NULL CHECK (length(epoch) BETWEEN 8 AND 64),
    revision INTEGER NOT NULL CHECK (revision >= 0)
) STRICT;

CREATE TABLE partners (
    slug       TEXT    NOT NULL PRIMARY KEY CHECK (length(slug) BETWEEN 1 AND 63),
    name       TEXT    NOT NULL CHECK (length(name) BETWEEN 1 AND 200),
    created_at INTEGER NOT NULL, -- times are Unix milliseconds
    updated_at INTEGER NOT NULL
) STRICT;

CREATE TABLE tenants (
    id                  TEXT    NOT NULL PRIMARY KEY CHECK (length(id) BETWEEN 1 AND 64),
    slug                TEXT    NOT NULL UNIQUE CHECK (length(slug) BETWEEN 1 AND 63),
    name                TEXT    NOT NULL CHECK (length(name) BETWEEN 1 AND 200),
    plan                TEXT    NOT NULL CHECK (plan IN ('starter', 'business', 'enterprise')),
    partner_slug        TEXT             REFERENCES partners (slug),
    status              TEXT    NOT NULL CHECK (status IN ('active', 'suspended')),
    provisioning_status TEXT    NOT NULL DEFAULT '{}' CHECK (json_type(provisioning_status) = 'object'),
    provisioning_errors TEXT    NOT NULL DEFAULT '{}' CHECK (json_type(provisioning_errors) = 'object'),
    created_at          INTEGER NOT NULL,
    updated_at          INTEGER NOT NULL
) STRICT;

CREATE INDEX tenants_partner ON tenants (partner_slug) WHERE partner_slug IS NOT NULL;

CREATE TABLE flags (
    key         TEXT    NOT NULL PRIMARY KEY CHECK (length(key) BETWEEN 1 AND 64),
    description TEXT    NOT NULL CHECK (length(description) <= 2000),
    state       TEXT    NOT NULL CHECK (state IN ('off', 'on', 'targeted', 'rollout')),
    pct         INTEGER NOT NULL CHECK (pct BETWEEN 0 AND 100),
    scope       TEXT    NOT NULL CHECK (json_type(scope) = 'object'),
    version     INTEGER NOT NULL CHECK (version >= 1),
    created_at  INTEGER NOT NULL,
    updated_at  INTEGER NOT NULL
) STRICT;

CREATE TABLE tokens (
    id           TEXT    NOT NULL PRIMARY KEY,
    name         TEXT    NOT NULL UNIQUE CHECK (length(name) BETWEEN 1 AND 64),
    hash         BLOB    NOT NULL UNIQUE CHECK (length(hash) = 32), -- SHA-256 of the whole token
    role         TEXT    NOT NULL CHECK (role IN ('operator', 'read', 'evaluate')),
    environment  TEXT             CHECK (environment <> ''),
    created_at   INTEGER NOT NULL,
    created_by   TEXT    NOT NULL,
    expires_at   INTEGER,
    revoked_at   INTEGER,
    last_used_at INTEGER
) STRICT;

-- The one log of flags, tenants, partners and tokens. Rows are only ever added.
CREATE TABLE log (
    id       INTEGER PRIMARY KEY AUTOINCREMENT,
    at       INTEGER NOT NULL,
    revision INTEGER NOT NULL CHECK (revision >= 0),
    actor    TEXT    NOT NULL CHECK (actor <> ''),
    kind     TEXT    NOT NULL CHECK (kind IN ('flag', 'tenant', 'partner', 'token')),
    name     TEXT    NOT NULL,
    action   TEXT    NOT NULL,
    version  INTEGER          CHECK (version >= 1),
    note     TEXT    NOT NULL DEFAULT '',
    changes  TEXT    NOT NULL CHECK (json_type(changes) = 'object'),
    impact   TEXT             CHECK (json_type(impact) = 'object'),
    CHECK (kind = 'flag' OR (version IS NULL AND impact IS NULL))
) STRICT;

CREATE INDEX log_thing ON log (kind, name, id);
CREATE INDEX log_actor ON log (actor, id);
CREATE UNIQUE INDEX log_version ON log (name, version) WHERE version IS NOT NULL;

-- +goose StatementBegin
CREATE TRIGGER log_update BEFORE UPDATE ON log BEGIN
    SELECT RAISE(ABORT, 'the log is append-only');
END;
-- +goose StatementEnd
-- +goose StatementBegin
CREATE TRIGGER log_delete BEFORE DELETE ON log BEGIN
    SELECT RAISE(ABORT, 'the log is append-only');
END;
-- +goose StatementEnd
-- +goose StatementBegin
CREATE TRIGGER log_order BEFORE INSERT ON log
WHEN NEW.at < (SELECT at FROM log ORDER BY id DESC LIMIT 1) BEGIN
    SELECT RAISE(ABORT, 'a log entry is never before the previous one');
END;
-- +goose StatementEnd

-- What seeding has planted once: it is never planted again, so deletions and edits stay.
CREATE TABLE seeded (
    kind TEXT NOT NULL CHECK (kind IN ('flag', 'tenant', 'partner')),
    name TEXT NOT NULL,
    PRIMARY KEY (kind, name)
) STRICT, WITHOUT ROWID;
