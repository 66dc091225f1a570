-- Times are microseconds since 1970. `key` columns are the store's own handles; they are never
-- reused (AUTOINCREMENT), so that a handle in memory can't come to mean something else.

CREATE TABLE installation (
    id          TEXT NOT NULL,
    kek_id      TEXT NOT NULL,
    created_at  INTEGER NOT NULL
) STRICT;

CREATE TABLE data_keys (
    scope   TEXT PRIMARY KEY,
    wrapped BLOB NOT NULL,
    kek_id  TEXT NOT NULL
) STRICT, WITHOUT ROWID;

-- `roles` and `accounts` hold words with a space between; `accounts` is NULL for all of them.
CREATE TABLE api_keys (
    id               TEXT PRIMARY KEY,
    secret_sha256    BLOB NOT NULL,
    display_name     TEXT NOT NULL,
    roles            TEXT NOT NULL,
    accounts         TEXT,
    calls_per_second INTEGER,
    created_at       INTEGER NOT NULL,
    expires_at       INTEGER,
    last_used_at     INTEGER,
    revoked_at       INTEGER
) STRICT, WITHOUT ROWID;

CREATE TABLE serials (
    serial      BLOB PRIMARY KEY,
    recorded_at INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

CREATE TABLE requests (
    scope          TEXT NOT NULL,
    request_id     TEXT NOT NULL,
    content_sha256 BLOB NOT NULL,
    resource       TEXT NOT NULL,
    created_at     INTEGER NOT NULL,
    PRIMARY KEY (scope, request_id)
) STRICT, WITHOUT ROWID;

CREATE INDEX requests_by_time ON requests (created_at);

CREATE TABLE accounts (
    key          INTEGER PRIMARY KEY AUTOINCREMENT,
    id           TEXT NOT NULL UNIQUE,
    display_name TEXT NOT NULL,
    created_at   INTEGER NOT NULL,
    updated_at   INTEGER NOT NULL,
    revision     INTEGER NOT NULL
) STRICT;

CREATE TABLE authorities (
    owner      TEXT NOT NULL,
    generation INTEGER NOT NULL,
    anchor     BLOB NOT NULL,
    provenance BLOB,
    cross_signed BLOB,
    state      TEXT NOT NULL,
    sealed_key BLOB NOT NULL,
    not_before INTEGER NOT NULL,
    not_after  INTEGER NOT NULL,
    PRIMARY KEY (owner, generation)
) STRICT, WITHOUT ROWID;

-- Revoked certificates of delivery authorities. `sequence` grows: it tells which of them a list covers.
CREATE TABLE revocations (
    sequence   INTEGER PRIMARY KEY AUTOINCREMENT,
    owner      TEXT NOT NULL,
    generation INTEGER NOT NULL,
    serial     TEXT NOT NULL,
    revoked_at INTEGER NOT NULL,
    reason     TEXT NOT NULL,
    not_after  INTEGER NOT NULL,
    UNIQUE (owner, generation, serial)
) STRICT;

-- The revocation list of each generation of a delivery authority; number 0 before the first is signed.
CREATE TABLE crls (
    owner       TEXT NOT NULL,
    generation  INTEGER NOT NULL,
    number      INTEGER NOT NULL,
    this_update INTEGER NOT NULL,
    next_update INTEGER NOT NULL,
    der         BLOB NOT NULL,
    due_at      INTEGER NOT NULL,
    PRIMARY KEY (owner, generation)
) STRICT, WITHOUT ROWID;

CREATE INDEX crls_by_due ON crls (due_at);

CREATE TABLE destinations (
    key                INTEGER PRIMARY KEY AUTOINCREMENT,
    account            INTEGER NOT NULL REFERENCES accounts (key),
    id                 TEXT NOT NULL,
    display_name       TEXT NOT NULL,
    url                TEXT NOT NULL,
    trust_model        TEXT NOT NULL,
    key_algorithm      TEXT NOT NULL,
    region             TEXT,
    server_ca_pem      TEXT NOT NULL,
    minimum_tls        TEXT NOT NULL,
    mtls_enforcement   TEXT NOT NULL,
    attempt_timeout    INTEGER NOT NULL,
    concurrency_limit  INTEGER NOT NULL,
    allowed_ranges     TEXT NOT NULL,
    signatures         TEXT NOT NULL,
    retry_waits        TEXT NOT NULL,
    retry_deadline     INTEGER,
    rate_limit         INTEGER,
    max_offline        INTEGER,
    -- Since when attempts fail and none has been delivered.
    failing_since      INTEGER,
    ordering_failure   TEXT NOT NULL,
    delivery_receipts  INTEGER NOT NULL,
    state              TEXT NOT NULL,
    active_certificate INTEGER NOT NULL,
    generation         INTEGER NOT NULL,
    created_at         INTEGER NOT NULL,
    updated_at         INTEGER NOT NULL,
    revision           INTEGER NOT NULL,
    UNIQUE (account, id)
) STRICT;

CREATE TABLE client_certificates (
    destination       INTEGER NOT NULL REFERENCES destinations (key),
    version           INTEGER NOT NULL,
    state             TEXT NOT NULL,
    trust_model       TEXT NOT NULL,
    key_algorithm     TEXT NOT NULL,
    serial            TEXT NOT NULL,
    certificate       BLOB NOT NULL,
    chain             TEXT NOT NULL,
    issuer_generation INTEGER,
    sealed_key        BLOB NOT NULL,
    not_before        INTEGER NOT NULL,
    not_after         INTEGER NOT NULL,
    activated_at      INTEGER,
    confirmed_at      INTEGER,
    replaced_at       INTEGER,
    revoked_at        INTEGER,
    PRIMARY KEY (destination, version)
) STRICT, WITHOUT ROWID;

CREATE TABLE signing_secrets (
    destination INTEGER NOT NULL REFERENCES destinations (key),
    version     INTEGER NOT NULL,
    sealed      BLOB NOT NULL,
    public_key  BLOB NOT NULL,
    created_at  INTEGER NOT NULL,
    expires_at  INTEGER,
    PRIMARY KEY (destination, version)
) STRICT, WITHOUT ROWID;

CREATE TABLE deliveries (
    id            BLOB PRIMARY KEY,
    account       INTEGER NOT NULL,
    destination   INTEGER NOT NULL,
    state         INTEGER NOT NULL,
    payload_size  INTEGER NOT NULL,
    content_type  TEXT NOT NULL,
    event_type    TEXT NOT NULL,
    accepted_at   INTEGER NOT NULL,
    attempt_count INTEGER NOT NULL DEFAULT 0,
    -- Attempts that do not count in the present schedule: those before a retry by hand, and those
    -- after which the delivery was held.
    earlier_count INTEGER NOT NULL DEFAULT 0,
    -- Of the last lease that has ended.
    epoch         INTEGER NOT NULL DEFAULT 0,
    -- While it waits: when it can next be leased; NULL behind another of its ordering key. While it is
    -- leased: when it could be.
    due_at        INTEGER,
    last_class    TEXT,
    settled_at    INTEGER,
    -- Since when it waits for a cause to be gone that only a change can cure.
    held_since    INTEGER,
    ordering_key  TEXT
) STRICT, WITHOUT ROWID;

-- Lists of an account, newest first: ids are UUIDs of version 7 and sort by time.
CREATE INDEX deliveries_of_account ON deliveries (account, id);

-- What can be sent again.
CREATE INDEX dead_letters ON deliveries (account, id) WHERE state = 4;

-- What can be released when a cause is gone.
CREATE INDEX held_deliveries ON deliveries (destination, due_at) WHERE held_since IS NOT NULL;

-- Apart from `deliveries`, so that changing a delivery's state does not rewrite its payload. Rows are large, so
-- the table keeps them in the order in which they come, with the ids in a tree of their own: as the tree itself
-- (WITHOUT ROWID) seven of them would fill a page, each of its branches' pages as well.
CREATE TABLE payloads (
    id     BLOB NOT NULL PRIMARY KEY,
    sealed BLOB NOT NULL
) STRICT;

-- Deliveries that wait, by when they can next be leased; but for those that `arrivals` lists.
CREATE TABLE due (
    destination INTEGER NOT NULL,
    due_at      INTEGER NOT NULL,
    id          BLOB NOT NULL,
    PRIMARY KEY (destination, due_at, id)
) STRICT, WITHOUT ROWID;

-- Lists of deliveries that were accepted together, some of which wait for their first lease and have no row in
-- `due`: 16 bytes for each id.
CREATE TABLE arrivals (
    batch INTEGER PRIMARY KEY,
    ids   BLOB NOT NULL
) STRICT;

-- Deliveries with an ordering key, in the order of acceptance: a queue for each destination and key.
-- `place`: 0 the first, which is in `due` or `leases`; 1 behind it, and in neither; 2 the first, a dead
-- letter that holds its key.
CREATE TABLE ordered (
    destination  INTEGER NOT NULL,
    ordering_key TEXT NOT NULL,
    sequence     INTEGER NOT NULL,
    id           BLOB NOT NULL,
    place        INTEGER NOT NULL,
    PRIMARY KEY (destination, ordering_key, sequence)
) STRICT, WITHOUT ROWID;

CREATE UNIQUE INDEX ordered_by_id ON ordered (id);

-- Keys that dead letters hold.
CREATE INDEX blocked_keys ON ordered (destination) WHERE place = 2;

-- Who is attempting what, until when. Few rows at a time and no index, so that a lease is one small
-- insert: the delivery's own row is as it was until the lease ends.
CREATE TABLE leases (
    id          BLOB PRIMARY KEY,
    destination INTEGER NOT NULL,
    agent       INTEGER NOT NULL,
    epoch       INTEGER NOT NULL,
    until       INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

-- `record` is the outcome in its wire form. In the order in which they come, as payloads are.
CREATE TABLE attempts (
    delivery BLOB NOT NULL,
    number   INTEGER NOT NULL,
    agent    TEXT NOT NULL,
    record   BLOB NOT NULL,
    PRIMARY KEY (delivery, number)
) STRICT;

CREATE TABLE join_tokens (
    id                TEXT PRIMARY KEY,
    secret_sha256     BLOB NOT NULL,
    region            TEXT,
    agent_id          TEXT,
    source_ranges     TEXT NOT NULL,
    recovers          INTEGER NOT NULL,
    created_at        INTEGER NOT NULL,
    expires_at        INTEGER NOT NULL,
    revoked_at        INTEGER,
    used_by           TEXT,
    public_key_sha256 BLOB
) STRICT, WITHOUT ROWID;

CREATE TABLE agents (
    key                INTEGER PRIMARY KEY AUTOINCREMENT,
    id                 TEXT NOT NULL UNIQUE,
    region             TEXT,
    version            TEXT NOT NULL,
    created_at         INTEGER NOT NULL,
    last_seen_at       INTEGER NOT NULL,
    identity_not_after INTEGER NOT NULL,
    public_key_sha256  BLOB NOT NULL,
    draining           INTEGER NOT NULL DEFAULT 0,
    evicted_at         INTEGER,
    suspended_at       INTEGER,
    previous_key_sha256 BLOB,
    -- When it was given the identity that its present one was renewed from.
    identity_since     INTEGER NOT NULL
) STRICT;

CREATE TABLE bundle_acknowledgements (
    destination INTEGER NOT NULL REFERENCES destinations (key),
    agent       INTEGER NOT NULL REFERENCES agents (key),
    generation  INTEGER NOT NULL,
    status      TEXT NOT NULL,
    reason      TEXT NOT NULL,
    at          INTEGER NOT NULL,
    PRIMARY KEY (destination, agent)
) STRICT, WITHOUT ROWID;

CREATE TABLE alerts (
    id              TEXT PRIMARY KEY,
    cause           TEXT NOT NULL,
    resource        TEXT NOT NULL,
    severity        TEXT NOT NULL,
    message         TEXT NOT NULL,
    created_at      INTEGER NOT NULL,
    updated_at      INTEGER NOT NULL,
    acknowledged_at INTEGER,
    resolved_at     INTEGER
) STRICT, WITHOUT ROWID;

-- One open alert for a cause and a resource.
CREATE UNIQUE INDEX open_alerts ON alerts (cause, resource) WHERE resolved_at IS NULL;

-- Certificates in use, by when they end.
CREATE INDEX client_certificates_by_end ON client_certificates (not_after) WHERE state = 'ACTIVE';

-- How each destination's client certificate is being replaced.
CREATE TABLE rotations (
    destination      INTEGER PRIMARY KEY REFERENCES destinations (key),
    epoch            INTEGER NOT NULL,
    next_look_at     INTEGER NOT NULL,
    asked            INTEGER NOT NULL,
    refused_version  INTEGER,
    refused_class    TEXT,
    refused_at       INTEGER,
    refusals         INTEGER NOT NULL,
    held_up          TEXT,
    held_up_since    INTEGER,
    trust_generation INTEGER,
    trust_state      TEXT,
    trust_at         INTEGER
) STRICT;

CREATE INDEX rotations_by_look ON rotations (next_look_at);

-- What the last probe of each version and presentation found.
CREATE TABLE probe_notes (
    destination  INTEGER NOT NULL REFERENCES destinations (key),
    version      INTEGER NOT NULL,
    presentation TEXT NOT NULL,
    at           INTEGER NOT NULL,
    class        TEXT NOT NULL,
    accepted     INTEGER NOT NULL,
    failures     INTEGER NOT NULL,
    PRIMARY KEY (destination, version, presentation)
) STRICT, WITHOUT ROWID;

-- A key and a request that wait for a receiver's CA; one for a destination.
CREATE TABLE certificate_requests (
    destination   INTEGER PRIMARY KEY REFERENCES destinations (key),
    version       INTEGER NOT NULL,
    request       BLOB NOT NULL,
    key_algorithm TEXT NOT NULL,
    sealed_key    BLOB NOT NULL,
    created_at    INTEGER NOT NULL
) STRICT;

-- Which agents were told to stop using a certificate, and when they said that they have.
CREATE TABLE stops (
    agent           INTEGER NOT NULL REFERENCES agents (key),
    destination     INTEGER NOT NULL,
    serial          TEXT NOT NULL,
    asked_at        INTEGER NOT NULL,
    acknowledged_at INTEGER,
    PRIMARY KEY (destination, serial, agent)
) STRICT, WITHOUT ROWID;

CREATE INDEX open_stops ON stops (agent) WHERE acknowledged_at IS NULL;

-- Which certificates of a generation are in use.
CREATE INDEX client_certificates_by_issuer ON client_certificates (issuer_generation, destination)
    WHERE state IN ('PENDING', 'DISTRIBUTED', 'ACTIVE', 'RETIRING');

-- The audit log: each record's hash covers the one before it. Rows are added and never change.
CREATE TABLE audit_log (
    sequence INTEGER PRIMARY KEY,
    line     TEXT NOT NULL,
    hash     BLOB NOT NULL
) STRICT;

-- Signatures over the log up to a record.
CREATE TABLE audit_checkpoints (
    sequence  INTEGER PRIMARY KEY,
    hash      BLOB NOT NULL,
    signed_at INTEGER NOT NULL,
    signature BLOB NOT NULL
) STRICT;
