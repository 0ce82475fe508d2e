//! The newest row within the recovery point.
use whole_program::{Place, captured, muster};

const SQL: &str = "
CREATE TABLE orders (id int PRIMARY KEY, made timestamptz NOT NULL);
INSERT INTO orders SELECT g, now() - make_interval(hours => 5, mins => g) FROM generate_series(0, 100) g;
";

#[test]
fn a_backup_whose_newest_row_is_too_old_fails() {
    let place = Place::new();
    let backup = captured(&place, "shop", SQL);
    let drill = |within: &str| {
        backup.drill_with(&format!(
            "  checks:\n    - name: fresh\n      plugin: builtin:freshness\n      options: {{ columns: [{{ table: public.orders, column: made, within: {within} }}] }}\n"
        ))
    };
    let run = muster(&place, &["run", &drill("6h"), "--output", "json"]).expect(0);
    assert_eq!(run.result()["verdict"], "passed");

    let run = muster(&place, &["run", &drill("4h"), "--output", "json"]).expect(1);
    assert_eq!(run.result()["reason"], "check-failed");
    let message = run.result()["message"].as_str().unwrap().to_owned();
    assert!(message.contains("public.orders") && message.contains("4 h"), "{message}");

    let run = muster(&place, &["run", &drill("4h"), "--quiet"]).expect(1);
    assert!(run.stdout.contains("newest row"), "{}", run.stdout);
    place.assert_nothing_left();
}
