-- +goose Up

-- What each log entry that made a version left of its flag, so that a moment is found by one look for each flag.
-- It says nothing that the log does not say.
CREATE TABLE flag_states (
    id          INTEGER PRIMARY KEY, -- the log entry's
    key         TEXT    NOT NULL,
    version     INTEGER NOT NULL CHECK (version >= 1),
    state       TEXT             CHECK (state IN ('off', 'on', 'targeted', 'rollout')), -- NULL: it was deleted
    pct         INTEGER          CHECK (pct BETWEEN 0 AND 100),
    description TEXT             CHECK (length(description) <= 2000),
    scope_id    INTEGER          CHECK (scope_id <= id), -- the row with its scope: lists can be long, and most changes leave them
    scope       TEXT             CHECK (json_type(scope) = 'object'),
    created_at  INTEGER,
    updated_at  INTEGER NOT NULL,
    CHECK (state IS NULL OR (pct IS NOT NULL AND description IS NOT NULL AND scope_id IS NOT NULL AND created_at IS NOT NULL)),
    CHECK ((scope IS NOT NULL) = (scope_id IS id))
) STRICT;

INSERT INTO flag_states
WITH RECURSIVE
    versions AS NOT MATERIALIZED (
        SELECT id, name, version, action, at,
            changes ->> '$.state.to' AS state, changes ->> '$.pct.to' AS pct, changes ->> '$.description.to' AS description,
            changes -> '$."scope.plans".to' AS plans, changes -> '$."scope.tenantSlugs".to' AS tenants,
            changes -> '$."scope.partnerSlugs".to' AS partners, changes -> '$."scope.environments".to' AS environments
        FROM log WHERE version IS NOT NULL
    ),
    -- A field that an entry does not name is as the version before left it; after a deletion all are named.
    lives AS (
        SELECT id, name, version, action, at, state, pct, description, plans, tenants, partners, environments, id AS scope_id, at AS created_at
        FROM versions WHERE version = 1
        UNION ALL
        SELECT v.id, v.name, v.version, v.action, v.at, coalesce(v.state, l.state), coalesce(v.pct, l.pct), coalesce(v.description, l.description),
            coalesce(v.plans, l.plans), coalesce(v.tenants, l.tenants), coalesce(v.partners, l.partners), coalesce(v.environments, l.environments),
            iif(coalesce(v.plans, v.tenants, v.partners, v.environments) IS NULL, l.scope_id, v.id), iif(v.action = 'created', v.at, l.created_at)
        FROM lives l JOIN versions v ON v.name = l.name AND v.version = l.version + 1
    )
SELECT id, name, version,
    iif(action = 'deleted', NULL, state), iif(action = 'deleted', NULL, pct), iif(action = 'deleted', NULL, description),
    iif(action = 'deleted', NULL, scope_id),
    iif(action <> 'deleted' AND scope_id = id,
        json_object('plans', json(plans), 'tenantSlugs', json(tenants), 'partnerSlugs', json(partners), 'environments', json(environments)), NULL),
    iif(action = 'deleted', NULL, created_at), at
FROM lives ORDER BY id;

CREATE INDEX flag_states_key ON flag_states (key, id);
