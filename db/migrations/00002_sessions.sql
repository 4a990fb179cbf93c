-- +goose Up

-- People who are signed in to the console on this node: its own state, without history.
CREATE TABLE sessions (
    hash       BLOB    NOT NULL PRIMARY KEY CHECK (length(hash) = 32), -- SHA-256 of the id in the cookie
    data       TEXT    NOT NULL CHECK (json_type(data) = 'object'),
    created_at INTEGER NOT NULL,
    seen_at    INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

CREATE INDEX sessions_seen ON sessions (seen_at);
