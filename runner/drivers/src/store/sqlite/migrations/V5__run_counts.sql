-- How many runs there are of each drill, so that what has too many is found without a look at the others. Triggers keep it:
-- whoever adds a run or forgets one counts it in the same transaction.
CREATE TABLE run_counts (
    drill        TEXT    NOT NULL,
    is_self_test INTEGER NOT NULL,
    runs         INTEGER NOT NULL CHECK (runs > 0),
    PRIMARY KEY (drill, is_self_test)
) STRICT, WITHOUT ROWID;

CREATE INDEX run_counts_by_number ON run_counts (runs);

INSERT INTO run_counts (drill, is_self_test, runs)
    SELECT drill, is_self_test, count(*) FROM runs GROUP BY drill, is_self_test;

CREATE TRIGGER run_is_counted AFTER INSERT ON runs BEGIN
    INSERT INTO run_counts (drill, is_self_test, runs) VALUES (new.drill, new.is_self_test, 1)
        ON CONFLICT (drill, is_self_test) DO UPDATE SET runs = runs + 1;
END;

CREATE TRIGGER run_is_forgotten AFTER DELETE ON runs BEGIN
    DELETE FROM run_counts WHERE drill = old.drill AND is_self_test = old.is_self_test AND runs = 1;
    UPDATE run_counts SET runs = runs - 1 WHERE drill = old.drill AND is_self_test = old.is_self_test;
END;
