//! The part of a self-test that is not like any other run: the copy, the damage, and the end before anything damaged is restored.
use std::path::PathBuf;
use std::sync::Arc;

use drill::ledger::{Answer, Damage, Event, Trigger};
use drill::port::{LookedAt, Opened, Storage};
use drill::spec::{Check, Exercise, Plugin, Source, noticed_by};
use drill::stop::{OrStop, Stop};
use drill::verdict::Reason;

use super::opening;
use super::phases::Context;

/// None: the run is no self-test.
pub(super) fn damage(context: &Context<'_>) -> Option<Damage> {
    match context.request.trigger {
        Trigger::SelfTest { damage, .. } => Some(damage),
        Trigger::Command | Trigger::Schedule { .. } | Trigger::Operator { .. } => None,
    }
}

/// A damaged copy, opened as the drill opens any backup: the real gate must refuse it.
pub(super) async fn damaged(
    context: &Context<'_>,
    opened: &Opened,
    storage: &Storage,
    damage: Damage,
) -> Result<Opened, Stop> {
    let drill = &context.request.drill;
    let copy = directory(storage);
    std::fs::create_dir(&copy).or_stop(Reason::Internal, "making a place for the copy")?;
    let looked_at = looked_at(&drill.checks, damage);
    let made = opened.artifact.damaged_copy(damage, &copy, &looked_at).await.map_err(not_of_the_copy)?;
    context.journal.append(Event::Damaged(made.damaged.clone())).await?;
    let source = drill
        .source
        .places()
        .into_iter()
        .find(|(place, _)| *place == context.journal.state().source.unwrap_or_default());
    let trusted_keys = match (made.trusted_keys, source) {
        (Some(only), _) => only,
        (None, Some((_, Source::Manifest { trusted_keys, .. }))) => trusted_keys,
        (None, _) => return Err(Stop::internal("the source of the self-test has no keys")),
    };
    let path = made.manifest.display().to_string();
    let source = Source::Manifest { path, trusted_keys, fallbacks: Vec::new(), exercise: Exercise::First };
    context.ports.artifacts.open(&source, opening::base(context)).await
}

/// That the original cannot be copied says nothing about what the drill notices.
fn not_of_the_copy(stop: Stop) -> Stop {
    match stop.reason {
        Reason::ArtifactRefused => Stop { reason: Reason::SelfTestInconclusive, ..stop },
        _ => stop,
    }
}

/// In the run's own storage, and apart from what is staged: it goes with the run, whatever happens.
fn directory(storage: &Storage) -> PathBuf {
    storage.staging.join(".self-test")
}

/// Before anything is delivered: no sandbox sees the copy.
pub(super) fn remove_copy(storage: &Storage) -> Result<(), Stop> {
    std::fs::remove_dir_all(directory(storage)).or_stop(Reason::Internal, "removing the damaged copy")
}

/// Invariant 1 holds for self-tests, too: a damaged artifact that verify did not refuse is not restored.
pub(super) fn must_be_refused<T>(context: &Context<'_>, verified: Result<T, Stop>) -> Result<T, Stop> {
    let verified = verified?;
    match context.journal.state().damaged.as_ref().map(|damaged| &damaged.answer) {
        Some(Answer::Finding { .. }) => Ok(verified),
        Some(Answer::Refused { .. }) => {
            Err(Stop::new(Reason::DamageUnnoticed, "verify took a damaged copy for the backup: it is not restored"))
        }
        None => Err(Stop::internal("a self-test verified what it had not damaged")),
    }
}

/// What the checks that must notice compare exactly: damage that a drill was told to overlook would prove nothing.
fn looked_at(checks: &[Check], damage: Damage) -> LookedAt {
    let wanted = noticed_by(damage).unwrap_or_default();
    let options: Vec<serde_json::Value> = checks
        .iter()
        .filter(|check| matches!(&check.plugin, Plugin::Builtin(name) if name == wanted))
        .map(|check| check.options.clone())
        .collect();
    Arc::new(move |name, table| options.iter().any(|options| looks_at(options, damage, name, table)))
}

fn looks_at(options: &serde_json::Value, damage: Damage, name: &str, table: Option<&str>) -> bool {
    let globs = |key: &str| -> Vec<&str> {
        let listed = options.get(key).and_then(|listed| listed.as_array());
        listed.into_iter().flatten().filter_map(|glob| glob.as_str()).collect()
    };
    let any = |key: &str, text: &str| globs(key).iter().any(|pattern| glob(pattern, text));
    let chosen = globs("tables").is_empty() || any("tables", name);
    match damage {
        Damage::BaselineRows => {
            let told_apart = |key: &str| options.get(key).is_some_and(|map| map.get(name).is_some());
            chosen && !told_apart("expect") && !told_apart("tolerance")
        }
        Damage::BaselineDigest => chosen && !any("except", name),
        Damage::BaselineColumn => {
            let kind = "relation column";
            let ignored = any("ignore", name)
                || any("ignore", &format!("{kind} {name}"))
                || table.is_some_and(|table| any("ignore", table));
            (globs("kinds").is_empty() || any("kinds", kind)) && !ignored
        }
        Damage::Byte | Damage::Signature | Damage::Truncated => true,
    }
}

/// As checks read globs: `*` is any text, `?` any one character.
fn glob(pattern: &str, label: &str) -> bool {
    let (pattern, label): (Vec<char>, Vec<char>) = (pattern.chars().collect(), label.chars().collect());
    let (mut at, mut from) = (0, 0);
    // Where the last star stood, and how much of the label it has taken.
    let mut star: Option<(usize, usize)> = None;
    while from < label.len() {
        match (pattern.get(at), star) {
            (Some('*'), _) => {
                star = Some((at, from));
                at += 1;
            }
            (Some(&wanted), _) if wanted == '?' || wanted == label[from] => (at, from) = (at + 1, from + 1),
            (_, Some((position, taken))) => {
                star = Some((position, taken + 1));
                (at, from) = (position + 1, taken + 1);
            }
            (_, None) => return false,
        }
    }
    pattern[at..].iter().all(|&rest| rest == '*')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn damage_is_done_only_to_what_the_drill_compares_exactly() {
        let of = |damage, options: serde_json::Value, name: &str, table| looks_at(&options, damage, name, table);
        let (rows, digest, column) = (Damage::BaselineRows, Damage::BaselineDigest, Damage::BaselineColumn);
        assert!(of(rows, serde_json::json!({}), "a.b", None));
        assert!(!of(rows, serde_json::json!({ "tables": ["a.c"] }), "a.b", None));
        assert!(!of(rows, serde_json::json!({ "tolerance": { "a.b": 10 } }), "a.b", None));
        assert!(!of(rows, serde_json::json!({ "expect": { "a.b": 10 } }), "a.b", None));
        assert!(!of(digest, serde_json::json!({ "except": ["a.*"] }), "a.b", None));
        assert!(!of(column, serde_json::json!({ "ignore": ["a.?"] }), "a.b.c", Some("a.b")));
        assert!(!of(column, serde_json::json!({ "kinds": ["function"] }), "a.b.c", Some("a.b")));
        assert!(of(column, serde_json::json!({ "kinds": ["relation*"] }), "a.b.c", Some("a.b")));
    }
}
