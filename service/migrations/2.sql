-- Two more scopes. References to the table are by its name, and checked after the migration.
CREATE TABLE keys_2 (
    id INTEGER PRIMARY KEY,
    hash BLOB NOT NULL UNIQUE,
    name TEXT NOT NULL,
    scope TEXT NOT NULL CHECK (scope IN ('admin', 'owner', 'contributor', 'user')),
    created INTEGER NOT NULL,
    revoked INTEGER
) STRICT;
INSERT INTO keys_2 SELECT id, hash, name, scope, created, revoked FROM keys;
DROP TABLE keys;
ALTER TABLE keys_2 RENAME TO keys;

CREATE TABLE datanets (
    id INTEGER PRIMARY KEY,
    name TEXT NOT NULL UNIQUE,
    owner INTEGER NOT NULL REFERENCES keys (id),
    licence TEXT NOT NULL,
    -- Whether everyone with a key may read its texts.
    public INTEGER NOT NULL CHECK (public IN (0, 1)),
    created INTEGER NOT NULL
) STRICT;

-- What was uploaded: samples as JSON lines, in a file named by its content.
CREATE TABLE submissions (
    id INTEGER PRIMARY KEY,
    datanet INTEGER NOT NULL REFERENCES datanets (id),
    key INTEGER NOT NULL REFERENCES keys (id),
    created INTEGER NOT NULL,
    name TEXT NOT NULL,
    file TEXT NOT NULL,
    samples INTEGER NOT NULL,
    report TEXT NOT NULL,
    state TEXT NOT NULL CHECK (state IN ('pending', 'approved', 'rejected')),
    reason TEXT
) STRICT;

CREATE INDEX submissions_of_datanet ON submissions (datanet);

-- Samples that were taken back: no later version has them.
CREATE TABLE withdrawals (
    datanet INTEGER NOT NULL REFERENCES datanets (id),
    sample BLOB NOT NULL,
    key INTEGER NOT NULL REFERENCES keys (id),
    created INTEGER NOT NULL,
    PRIMARY KEY (datanet, sample)
) STRICT;

-- Never changed once there.
CREATE TABLE versions (
    datanet INTEGER NOT NULL REFERENCES datanets (id),
    version INTEGER NOT NULL,
    created INTEGER NOT NULL,
    root TEXT NOT NULL,
    file TEXT NOT NULL,
    licence TEXT NOT NULL,
    samples INTEGER NOT NULL,
    contributors INTEGER NOT NULL,
    PRIMARY KEY (datanet, version)
) STRICT;

CREATE TABLE trainings (
    id TEXT PRIMARY KEY,
    key INTEGER NOT NULL REFERENCES keys (id),
    created INTEGER NOT NULL,
    base TEXT NOT NULL,
    name TEXT NOT NULL,
    datanet INTEGER NOT NULL,
    version INTEGER NOT NULL,
    settings TEXT NOT NULL,
    UNIQUE (base, name),
    FOREIGN KEY (datanet, version) REFERENCES versions (datanet, version)
) STRICT;

CREATE TABLE epochs (
    training TEXT NOT NULL REFERENCES trainings (id),
    phase TEXT NOT NULL CHECK (phase IN ('choosing', 'last')),
    epoch INTEGER NOT NULL,
    trained REAL NOT NULL,
    held_out REAL,
    PRIMARY KEY (training, phase, epoch)
) STRICT;
