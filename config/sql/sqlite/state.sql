-- `smartpulse.db`, version 1 (PRAGMA user_version): what a running graph keeps in its data folder. The bus first, then
-- positions, keyed state and dead letters.

CREATE TABLE IF NOT EXISTS bus_topics (
    id     INTEGER PRIMARY KEY,
    name   TEXT    NOT NULL UNIQUE,
    bytes  INTEGER NOT NULL DEFAULT 0    -- payload and key bytes of the messages kept
);

-- Ids rise over all topics in the order of publication and are never used again.
CREATE TABLE IF NOT EXISTS bus_messages (
    id            INTEGER PRIMARY KEY AUTOINCREMENT,
    topic         INTEGER NOT NULL,
    key           TEXT,
    payload       BLOB    NOT NULL,
    properties    TEXT,                  -- a JSON object of strings; NULL when there are none
    publish_time  INTEGER NOT NULL       -- milliseconds since 1970 UTC
);
CREATE INDEX IF NOT EXISTS bus_messages_by_topic ON bus_messages (topic, id);

-- Durable subscriptions: every message up to `cursor` is acked, and those of `bus_acks` beyond it.
CREATE TABLE IF NOT EXISTS bus_subscriptions (
    id      INTEGER PRIMARY KEY,
    topic   INTEGER NOT NULL,
    name    TEXT    NOT NULL,
    cursor  INTEGER NOT NULL,
    UNIQUE (topic, name)
);
CREATE TABLE IF NOT EXISTS bus_acks (
    subscription  INTEGER NOT NULL,
    message       INTEGER NOT NULL,
    PRIMARY KEY (subscription, message)
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS bus_redeliveries (
    subscription  INTEGER NOT NULL,
    message       INTEGER NOT NULL,
    count         INTEGER NOT NULL,
    PRIMARY KEY (subscription, message)
) WITHOUT ROWID;

CREATE TABLE IF NOT EXISTS positions (
    id          TEXT    NOT NULL PRIMARY KEY,
    position    BLOB    NOT NULL,
    updated_at  INTEGER NOT NULL         -- milliseconds since 1970 UTC
) WITHOUT ROWID;

CREATE TABLE IF NOT EXISTS chains (
    id    INTEGER PRIMARY KEY,
    name  TEXT NOT NULL UNIQUE
);
CREATE TABLE IF NOT EXISTS key_states (
    chain     INTEGER NOT NULL,
    key       TEXT    NOT NULL,
    version   INTEGER NOT NULL,
    document  BLOB,                      -- NULL for a deleted entity
    PRIMARY KEY (chain, key)
) WITHOUT ROWID;

CREATE TABLE IF NOT EXISTS dead_letters (
    id                INTEGER PRIMARY KEY AUTOINCREMENT,
    fingerprint       BLOB    NOT NULL UNIQUE,   -- of pipeline, component, key, version and payload
    pipeline          TEXT    NOT NULL,
    component         TEXT    NOT NULL,
    reason            TEXT    NOT NULL,
    attempts          INTEGER NOT NULL,
    section           TEXT,
    key               TEXT,
    version           INTEGER,
    operation         TEXT,
    time              INTEGER NOT NULL,          -- milliseconds since 1970 UTC
    origin            TEXT    NOT NULL,          -- JSON
    payload           BLOB    NOT NULL,
    replay_requested  INTEGER NOT NULL DEFAULT 0
);
CREATE INDEX IF NOT EXISTS dead_letters_to_replay ON dead_letters (pipeline, component, id)
    WHERE replay_requested = 1;
