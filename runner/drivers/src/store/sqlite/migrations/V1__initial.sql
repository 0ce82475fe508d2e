-- Times are nanoseconds since 1970-01-01T00:00:00Z. Names of verdicts and reasons are those of the JSON output.

CREATE TABLE meta (
    key   TEXT PRIMARY KEY,
    value TEXT NOT NULL
) STRICT, WITHOUT ROWID;

-- What the events of a run add up to, kept beside them in the same transaction so that a list does not replay them.
CREATE TABLE runs (
    run                 TEXT PRIMARY KEY,
    drill               TEXT    NOT NULL,
    owner_pid           INTEGER NOT NULL,
    owner_start_ticks   INTEGER NOT NULL,
    owner_boot_id       TEXT    NOT NULL,
    started             INTEGER NOT NULL,
    ended               INTEGER,
    verdict             TEXT,
    reason              TEXT,
    leftovers           TEXT    NOT NULL,
    recovery_time_milliseconds INTEGER,
    evidence            TEXT
) STRICT, WITHOUT ROWID;

-- A drill never overlaps itself, whatever a program believes.
CREATE UNIQUE INDEX one_open_run_of_a_drill ON runs (drill) WHERE ended IS NULL;
CREATE INDEX runs_newest_first ON runs (started DESC, run DESC);
CREATE INDEX runs_of_a_drill ON runs (drill, started DESC, run DESC);
CREATE INDEX runs_unsettled ON runs (started) WHERE ended IS NULL OR leftovers = 'some';

CREATE TABLE events (
    run      TEXT    NOT NULL REFERENCES runs (run),
    sequence INTEGER NOT NULL,
    at       INTEGER NOT NULL,
    json     TEXT    NOT NULL,
    PRIMARY KEY (run, sequence)
) STRICT, WITHOUT ROWID;

-- A damaged copy: the same manifest at another place is another copy.
CREATE TABLE quarantine (
    digest      TEXT    NOT NULL,
    location    TEXT    NOT NULL,
    run         TEXT    NOT NULL,
    why         TEXT    NOT NULL,
    at          INTEGER NOT NULL,
    released_at INTEGER,
    released_by TEXT
) STRICT;

CREATE UNIQUE INDEX quarantined_once ON quarantine (digest, location) WHERE released_at IS NULL;

CREATE TABLE chain (
    sequence INTEGER PRIMARY KEY CHECK (sequence > 0),
    run      TEXT NOT NULL UNIQUE,
    digest   TEXT NOT NULL UNIQUE,
    path     TEXT NOT NULL
) STRICT;

-- The outbox.
CREATE TABLE alerts (
    id      INTEGER PRIMARY KEY AUTOINCREMENT,
    kind    TEXT    NOT NULL,
    drill   TEXT    NOT NULL,
    run     TEXT    NOT NULL,
    at      INTEGER NOT NULL,
    message TEXT    NOT NULL,
    advice  TEXT
) STRICT;
