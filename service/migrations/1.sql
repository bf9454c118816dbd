CREATE TABLE keys (
    id INTEGER PRIMARY KEY,
    hash BLOB NOT NULL UNIQUE,
    name TEXT NOT NULL,
    scope TEXT NOT NULL CHECK (scope IN ('admin', 'user')),
    created INTEGER NOT NULL,
    revoked INTEGER
) STRICT;

CREATE TABLE sessions (
    hash BLOB PRIMARY KEY,
    key INTEGER NOT NULL REFERENCES keys (id),
    form_token TEXT NOT NULL,
    expires INTEGER NOT NULL
) STRICT;

CREATE TABLE requests (
    id TEXT PRIMARY KEY,
    key INTEGER NOT NULL REFERENCES keys (id),
    created INTEGER NOT NULL,
    model TEXT NOT NULL,
    generation TEXT NOT NULL,
    prompt TEXT NOT NULL,
    answer TEXT NOT NULL,
    tokens TEXT NOT NULL,
    prompt_len INTEGER NOT NULL,
    finish_reason TEXT NOT NULL,
    attribution TEXT
) STRICT;

CREATE INDEX requests_of_key ON requests (key, created);

-- One job of a kind for a subject: asking twice is asking once.
CREATE TABLE jobs (
    id INTEGER PRIMARY KEY,
    kind TEXT NOT NULL,
    subject TEXT NOT NULL,
    created INTEGER NOT NULL,
    state TEXT NOT NULL CHECK (state IN ('queued', 'running', 'done', 'failed', 'cancelled')),
    phase TEXT,
    attempts INTEGER NOT NULL DEFAULT 0,
    not_before INTEGER NOT NULL DEFAULT 0,
    lease INTEGER NOT NULL DEFAULT 0,
    fence INTEGER NOT NULL DEFAULT 0,
    problem TEXT,
    result TEXT,
    UNIQUE (kind, subject)
) STRICT;
