-- +goose Up

-- A rare action is found without reading the log; an actor, or a thing with many entries, is tested in the index.
CREATE INDEX log_action ON log (action, id, actor, kind, name);
