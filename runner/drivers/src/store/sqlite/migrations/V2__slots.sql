-- What became of the slots of schedules. A claim of a slot is one row, whoever claims.
CREATE TABLE slots (
    drill         TEXT    NOT NULL,
    -- `drill`, or the damage of a self-test: each has a schedule of its own.
    schedule      TEXT    NOT NULL,
    scheduled_for INTEGER NOT NULL,
    run           TEXT,
    skipped       TEXT,
    PRIMARY KEY (drill, schedule, scheduled_for),
    CHECK ((run IS NULL) <> (skipped IS NULL))
) STRICT, WITHOUT ROWID;

-- Why a run began, as JSON. What older rows do not say was started by a command.
ALTER TABLE runs ADD COLUMN trigger TEXT NOT NULL DEFAULT '{"kind":"command"}';
-- Self-tests say nothing of when a drill last ran or passed.
ALTER TABLE runs ADD COLUMN is_self_test INTEGER NOT NULL DEFAULT 0;

CREATE INDEX runs_that_count ON runs (drill, started DESC, run DESC) WHERE is_self_test = 0;
CREATE INDEX runs_that_passed ON runs (drill, started DESC, run DESC) WHERE is_self_test = 0 AND verdict = 'passed';
CREATE INDEX runs_that_test ON runs (drill, started DESC, run DESC) WHERE is_self_test = 1;

-- Links of runs that are forgotten, and whose evidence is still to be deleted.
ALTER TABLE chain ADD COLUMN pruned INTEGER NOT NULL DEFAULT 0;
CREATE INDEX chain_pruned ON chain (sequence) WHERE pruned = 1;

-- What is left of deleted evidence: stretches of the chain, by the digests at their ends.
CREATE TABLE deleted_evidence (
    first    INTEGER PRIMARY KEY,
    last     INTEGER NOT NULL UNIQUE,
    digest   TEXT    NOT NULL,
    previous TEXT,
    CHECK (first <= last)
) STRICT;
