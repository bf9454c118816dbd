-- The chain in this process: where it began, and its transactions. State says what each came to, with all before it.
CREATE TABLE chain (
    one INTEGER PRIMARY KEY CHECK (one = 1),
    chain_id INTEGER NOT NULL,
    started INTEGER NOT NULL,
    state BLOB NOT NULL
) STRICT;

CREATE TABLE transactions (
    number INTEGER PRIMARY KEY,
    time INTEGER NOT NULL,
    sender BLOB NOT NULL,
    recipient BLOB,
    value BLOB NOT NULL,
    data BLOB NOT NULL,
    gas INTEGER,
    state BLOB NOT NULL
) STRICT;

-- Contracts, as poa-deployment/1, for each key of outer proofs and each division of fees.
CREATE TABLE deployments (
    key_digest TEXT NOT NULL,
    shares TEXT NOT NULL,
    deployment TEXT NOT NULL,
    PRIMARY KEY (key_digest, shares)
) STRICT;

-- Which key wraps a model's proofs of a size; found by proving and recording one request.
CREATE TABLE outer_keys (
    model TEXT NOT NULL,
    slots INTEGER NOT NULL,
    key_digest TEXT NOT NULL,
    statement TEXT NOT NULL,
    key TEXT NOT NULL,
    trial TEXT,
    PRIMARY KEY (model, slots)
) STRICT;

-- Models on the chain.
CREATE TABLE registrations (
    model TEXT NOT NULL,
    settlement TEXT NOT NULL,
    number INTEGER NOT NULL,
    datanet INTEGER NOT NULL,
    PRIMARY KEY (model, settlement)
) STRICT;

CREATE TABLE settlements (
    request TEXT PRIMARY KEY REFERENCES requests (id),
    created INTEGER NOT NULL,
    -- Of the prompt's digest on the chain; for whoever may read the prompt.
    salt TEXT
) STRICT;

-- What is done of a settlement, never undone: offered, escrowed, proven, wrapped, settled, paid, refunded.
CREATE TABLE settlement_steps (
    request TEXT NOT NULL REFERENCES settlements (request),
    step TEXT NOT NULL,
    created INTEGER NOT NULL,
    outcome TEXT NOT NULL,
    PRIMARY KEY (request, step)
) STRICT;

-- What contributors were credited with on the chain, in wei.
CREATE TABLE payouts (
    request TEXT NOT NULL REFERENCES settlements (request),
    contributor TEXT NOT NULL,
    account TEXT NOT NULL,
    amount TEXT NOT NULL,
    PRIMARY KEY (request, contributor)
) STRICT;

CREATE INDEX payouts_of_contributor ON payouts (contributor);

-- Which answers of a model are proven or settled without being asked for: a share in basis points.
CREATE TABLE policies (
    model TEXT PRIMARY KEY,
    proof_bps INTEGER NOT NULL CHECK (proof_bps BETWEEN 0 AND 10000),
    settlement_bps INTEGER NOT NULL CHECK (settlement_bps BETWEEN 0 AND 10000)
) STRICT;
