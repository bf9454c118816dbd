-- Calls with an idempotency key: what was answered, so that it is answered again and not done again.
CREATE TABLE calls (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    key INTEGER NOT NULL REFERENCES keys (id),
    name TEXT NOT NULL,
    fingerprint BLOB NOT NULL,
    created INTEGER NOT NULL,
    -- Which process works on it.
    process TEXT,
    -- Where what it made is, written together with it.
    made TEXT,
    status INTEGER,
    content_type TEXT,
    body BLOB,
    UNIQUE (key, name)
) STRICT;

-- Counts what can be seen of a job change.
ALTER TABLE jobs ADD COLUMN change INTEGER NOT NULL DEFAULT 0;
CREATE TRIGGER jobs_change AFTER UPDATE OF state, phase, attempts, problem, result ON jobs
WHEN NEW.state IS NOT OLD.state OR NEW.phase IS NOT OLD.phase OR NEW.attempts IS NOT OLD.attempts
    OR NEW.problem IS NOT OLD.problem OR NEW.result IS NOT OLD.result
BEGIN
    UPDATE jobs SET change = OLD.change + 1 WHERE id = NEW.id;
END;

CREATE TABLE webhooks (
    id TEXT PRIMARY KEY,
    key INTEGER NOT NULL REFERENCES keys (id),
    created INTEGER NOT NULL,
    url TEXT NOT NULL,
    -- As a JSON list.
    events TEXT NOT NULL,
    secret BLOB NOT NULL
) STRICT;

CREATE INDEX webhooks_of_key ON webhooks (key);

-- A message for one endpoint, written together with what it tells of.
CREATE TABLE deliveries (
    id TEXT PRIMARY KEY,
    webhook TEXT NOT NULL REFERENCES webhooks (id) ON DELETE CASCADE,
    created INTEGER NOT NULL,
    event TEXT NOT NULL,
    payload TEXT NOT NULL
) STRICT;

CREATE INDEX deliveries_of_webhook ON deliveries (webhook, created);

CREATE TABLE delivery_attempts (
    delivery TEXT NOT NULL REFERENCES deliveries (id) ON DELETE CASCADE,
    attempt INTEGER NOT NULL,
    at INTEGER NOT NULL,
    milliseconds INTEGER NOT NULL,
    status INTEGER,
    problem TEXT,
    PRIMARY KEY (delivery, attempt)
) STRICT;

-- Adapters that were uploaded.
CREATE TABLE adapters (
    id TEXT PRIMARY KEY,
    key INTEGER NOT NULL REFERENCES keys (id),
    created INTEGER NOT NULL,
    base TEXT NOT NULL,
    name TEXT NOT NULL,
    file TEXT NOT NULL,
    -- What it's indexed with, where that is said.
    datanet INTEGER,
    version INTEGER,
    UNIQUE (base, name),
    FOREIGN KEY (datanet, version) REFERENCES versions (datanet, version)
) STRICT;
