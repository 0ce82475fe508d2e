-- Since when drills and their schedules are known: what fell due before is nobody's to make up for.
CREATE TABLE seen (
    drill    TEXT    NOT NULL,
    -- As in `slots`. Each drill has a row for `drill`.
    schedule TEXT    NOT NULL,
    -- What its times follow from; empty where the drill has no schedule.
    words    TEXT    NOT NULL,
    -- Of these words, and of any.
    since    INTEGER NOT NULL,
    first    INTEGER NOT NULL,
    PRIMARY KEY (drill, schedule)
) STRICT, WITHOUT ROWID;
