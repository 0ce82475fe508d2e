//! The schema check, with two sides that are lists.
use drill::agent::CheckOutcome;
use drill::spec::Grant;
use plugin_host::backend::Object;

use crate::world::{Call, schema};

fn side(objects: &[(&str, &str, &str)]) -> Vec<Object> {
    let object = |(kind, identity, content): &(&str, &str, &str)| Object {
        kind: (*kind).to_owned(),
        identity: (*identity).to_owned(),
        content: (*content).to_owned(),
    };
    objects.iter().map(object).collect()
}

async fn run(expected: Option<Vec<Object>>, found: Vec<Object>) -> (CheckOutcome, Vec<String>) {
    let grants = [Grant::Sql, Grant::Baseline, Grant::Catalog].into();
    let call = Call { grants, schemas: [expected, Some(found)], ..Call::default() };
    let (ended, report) = call.run(schema()).await;
    (ended.outcome, report.lines())
}

#[tokio::test]
async fn many_objects_pass_in_silence_and_each_difference_is_told() {
    let many: Vec<(String, String)> =
        (0..5_000).map(|number| (format!("public.f{number:05}()"), "x".repeat(200))).collect();
    let function = |(identity, body): &(String, String)| Object {
        kind: "function".to_owned(),
        identity: identity.clone(),
        content: format!(r#"{{"definition":"{body}"}}"#),
    };
    let expected: Vec<Object> = many.iter().map(function).collect();
    let completed = |summary: &str| CheckOutcome::Completed { summary: Some(summary.to_owned()) };
    let outcome = run(Some(expected.clone()), expected.clone()).await;
    assert_eq!(outcome, (completed("5,000 objects as in the backup"), Vec::new()));

    let mut found = expected.clone();
    found[4_999].content = r#"{"definition":"y"}"#.to_owned();
    found.remove(7);
    let (outcome, lines) = run(Some(expected), found).await;
    assert_eq!(outcome, completed("4,998 of 5,000 objects as in the backup, 1 missing, 1 changed"));
    assert_eq!(lines.len(), 2);
    assert!(lines[0].contains("function public.f00007()") && lines[0].contains("missing"), "{lines:?}");
}

#[tokio::test]
async fn a_backup_without_a_schema_is_no_pass() {
    let (outcome, lines) = run(None, side(&[("schema", "app", "{}")])).await;
    assert!(matches!(outcome, CheckOutcome::Inconclusive { why } if why.contains("no schema to compare with")));
    assert_eq!(lines, Vec::<String>::new());
}
