-- The outbox: the state of each alert, and what each destination knows of it. A refused backup was the only alert before, and
-- its drill's name stood in `drill`.
ALTER TABLE alerts RENAME TO alerts_before;

CREATE TABLE alerts (
    id       INTEGER PRIMARY KEY AUTOINCREMENT,
    kind     TEXT    NOT NULL,
    subject  TEXT    NOT NULL,
    drill    TEXT,
    run      TEXT,
    opened   INTEGER NOT NULL,
    message  TEXT    NOT NULL,
    advice   TEXT,
    -- JSON
    details  TEXT    NOT NULL,
    -- Grows with each change that is worth telling; `changed` is when.
    revision INTEGER NOT NULL,
    changed  INTEGER NOT NULL,
    -- NULL while it is open.
    resolved INTEGER,
    UNIQUE (kind, subject)
) STRICT;

-- What a destination was told last, and how it goes with what it was not told yet.
CREATE TABLE told (
    alert         INTEGER NOT NULL REFERENCES alerts (id) ON DELETE CASCADE,
    destination   TEXT    NOT NULL,
    -- 0, and no time: nothing yet.
    revision      INTEGER NOT NULL,
    open          INTEGER NOT NULL,
    at            INTEGER,
    attempts      INTEGER NOT NULL,
    failing_since INTEGER,
    again         INTEGER,
    why           TEXT,
    PRIMARY KEY (alert, destination)
) STRICT, WITHOUT ROWID;

INSERT INTO alerts (kind, subject, drill, run, opened, message, advice, details, revision, changed)
    SELECT kind, drill, nullif(drill, ''), nullif(run, ''), at, message, advice, '{}', 1, at FROM alerts_before
    WHERE true ORDER BY id
    ON CONFLICT (kind, subject) DO UPDATE SET
        run = excluded.run, opened = excluded.opened, message = excluded.message, advice = excluded.advice,
        changed = excluded.changed;
DROP TABLE alerts_before;
