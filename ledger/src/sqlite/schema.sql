-- Version 1. A migration is a file of its own; this one never changes.
-- STRICT: a sum that leaves 64 bits is an error, not a float.

CREATE TABLE meta (
    key   TEXT PRIMARY KEY,
    value INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

CREATE TABLE budget (
    id     TEXT PRIMARY KEY,
    known  TEXT NOT NULL,
    active INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

-- AUTOINCREMENT: the id of a forgotten series must not come back, old attempts still name it.
CREATE TABLE series (
    id         INTEGER PRIMARY KEY AUTOINCREMENT,
    budget     TEXT NOT NULL,
    period     TEXT NOT NULL,
    rolling_ms INTEGER,
    UNIQUE (budget, period)
) STRICT;

CREATE TABLE slot (
    series         INTEGER NOT NULL,
    start          INTEGER NOT NULL,
    settled_tokens INTEGER NOT NULL,
    settled_nano   INTEGER NOT NULL,
    held_tokens    INTEGER NOT NULL,
    held_nano      INTEGER NOT NULL,
    PRIMARY KEY (series, start)
) STRICT, WITHOUT ROWID;

-- state: 0 open, 1 settled, 2 released, 3 lapsed. postings: [[series, slot], ...].
CREATE TABLE attempt (
    id             TEXT PRIMARY KEY,
    reserved_at    INTEGER NOT NULL,
    lapses_at      INTEGER NOT NULL,
    budgets        TEXT NOT NULL,
    want_tokens    INTEGER NOT NULL,
    want_nano      INTEGER NOT NULL,
    least_tokens   INTEGER NOT NULL,
    least_nano     INTEGER NOT NULL,
    lease          INTEGER NOT NULL,
    held_tokens    INTEGER NOT NULL,
    held_nano      INTEGER NOT NULL,
    charged_tokens INTEGER NOT NULL,
    charged_nano   INTEGER NOT NULL,
    state          INTEGER NOT NULL,
    postings       TEXT NOT NULL
) STRICT, WITHOUT ROWID;
CREATE INDEX attempt_open ON attempt (lapses_at) WHERE state = 0;
CREATE INDEX attempt_reserved ON attempt (reserved_at);

CREATE TABLE usage (
    seq            INTEGER PRIMARY KEY,
    attempt        TEXT NOT NULL,
    revision       INTEGER NOT NULL,
    budgets        TEXT NOT NULL,
    reserved_at    INTEGER NOT NULL,
    settled_at     INTEGER NOT NULL,
    tokens         INTEGER NOT NULL,
    nano_usd       INTEGER NOT NULL,
    subject        TEXT NOT NULL,
    namespace      TEXT NOT NULL,
    model          TEXT NOT NULL,
    variant        TEXT NOT NULL,
    hardware_class TEXT NOT NULL,
    prompt         INTEGER NOT NULL,
    cached         INTEGER NOT NULL,
    completion     INTEGER NOT NULL,
    outcome        TEXT NOT NULL,
    UNIQUE (attempt, revision)
) STRICT;
-- Append-only, also for a hand at the database's shell.
CREATE TRIGGER usage_keeps BEFORE UPDATE ON usage BEGIN SELECT RAISE(ABORT, 'usage rows are never changed'); END;
CREATE TRIGGER usage_stays BEFORE DELETE ON usage BEGIN SELECT RAISE(ABORT, 'usage rows are never deleted'); END;

CREATE TABLE spend (
    pod_uid        TEXT NOT NULL,
    hour_start     INTEGER NOT NULL,
    namespace      TEXT NOT NULL,
    model          TEXT NOT NULL,
    variant        TEXT NOT NULL,
    hardware_class TEXT NOT NULL,
    nano_usd       INTEGER NOT NULL,
    PRIMARY KEY (pod_uid, hour_start)
) STRICT, WITHOUT ROWID;
CREATE INDEX spend_hour ON spend (hour_start, namespace, nano_usd);
