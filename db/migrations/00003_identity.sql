-- +goose Up

-- Of sessions that an identity provider began: who it is there, by which a back-channel logout finds them;
-- when the provider was last asked; and its tokens, sealed by a key that only the cookie has.
ALTER TABLE sessions ADD COLUMN issuer TEXT NOT NULL DEFAULT '';
ALTER TABLE sessions ADD COLUMN subject TEXT NOT NULL DEFAULT '';
ALTER TABLE sessions ADD COLUMN sid TEXT NOT NULL DEFAULT '';
ALTER TABLE sessions ADD COLUMN checked_at INTEGER NOT NULL DEFAULT 0;
ALTER TABLE sessions ADD COLUMN sealed BLOB;

CREATE INDEX sessions_subject ON sessions (issuer, subject) WHERE subject <> '';

-- What this node last learned of each identity provider: its own state, without history.
CREATE TABLE providers (
    url        TEXT    NOT NULL PRIMARY KEY,
    document   TEXT    NOT NULL CHECK (json_type(document) = 'object'),
    keys       TEXT    NOT NULL CHECK (json_type(keys) = 'object'),
    fetched_at INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

-- Who made a change, more exactly than the actor's name: by which entrance, and, where an identity provider
-- knows them, as whom and through which client. Older entries do not say: the log is append-only.
ALTER TABLE log ADD COLUMN via TEXT NOT NULL DEFAULT '' CHECK (via IN ('', 'console', 'api', 'token', 'command', 'import', 'seed'));
ALTER TABLE log ADD COLUMN subject TEXT NOT NULL DEFAULT '';
ALTER TABLE log ADD COLUMN issuer TEXT NOT NULL DEFAULT '';
ALTER TABLE log ADD COLUMN client TEXT NOT NULL DEFAULT '';
