-- +goose Up

-- Each entry carries a hash of itself and of the hash of the one before, so that whoever changes, removes or
-- puts in an entry must write all later hashes anew. log_hash is a function of the program (db/chain.go).
-- The table is made anew, also because entries may be about the instance now: a freeze of changes.
CREATE TABLE log_chained (
    id       INTEGER PRIMARY KEY AUTOINCREMENT,
    at       INTEGER NOT NULL,
    revision INTEGER NOT NULL CHECK (revision >= 0),
    actor    TEXT    NOT NULL CHECK (actor <> ''),
    kind     TEXT    NOT NULL CHECK (kind IN ('flag', 'tenant', 'partner', 'token', 'instance')),
    name     TEXT    NOT NULL,
    action   TEXT    NOT NULL,
    version  INTEGER          CHECK (version >= 1),
    note     TEXT    NOT NULL DEFAULT '',
    changes  TEXT    NOT NULL CHECK (json_type(changes) = 'object'),
    impact   TEXT             CHECK (json_type(impact) = 'object'),
    via      TEXT    NOT NULL DEFAULT '' CHECK (via IN ('', 'console', 'api', 'token', 'command', 'import', 'seed')),
    subject  TEXT    NOT NULL DEFAULT '',
    issuer   TEXT    NOT NULL DEFAULT '',
    client   TEXT    NOT NULL DEFAULT '',
    hash     BLOB    NOT NULL CHECK (length(hash) = 32),
    CHECK (kind = 'flag' OR (version IS NULL AND impact IS NULL))
) STRICT;

INSERT INTO log_chained
WITH RECURSIVE chain (id, hash) AS (
    SELECT id, log_hash(NULL, id, at, revision, actor, kind, name, action, version, note, changes, impact, via, subject, issuer, client)
    FROM log WHERE id = (SELECT min(id) FROM log)
    UNION ALL
    SELECT log.id, log_hash(chain.hash, log.id, at, revision, actor, kind, name, action, version, note, changes, impact, via, subject, issuer, client)
    FROM chain JOIN log ON log.id = (SELECT min(id) FROM log WHERE id > chain.id)
)
SELECT id, at, revision, actor, kind, name, action, version, note, changes, impact, via, subject, issuer, client, hash
FROM chain JOIN log USING (id);

DROP TABLE log;
ALTER TABLE log_chained RENAME TO log;

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

-- Why, by whom and until when changes are stopped: the last freeze, unless it was ended before its time. It
-- ends by itself, without a write.
CREATE TABLE freeze (
    id     INTEGER PRIMARY KEY CHECK (id = 1),
    reason TEXT    NOT NULL CHECK (length(reason) BETWEEN 1 AND 500),
    actor  TEXT    NOT NULL CHECK (actor <> ''),
    since  INTEGER NOT NULL,
    until  INTEGER NOT NULL CHECK (until > since)
) STRICT;
