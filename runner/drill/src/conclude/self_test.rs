//! What a self-test adds up to. It passes when the drill gave exactly the answer that the damage asks for; it fails only when
//! the drill took the damage for a good backup; whatever else happened says nothing.
use super::{troubles, worst};
use crate::finding::{Finding, Severity};
use crate::ledger::{Answer, Damage, Damaged, PhaseOutcome, State};
use crate::phase::Phase;
use crate::stop::Stop;
use crate::verdict::{Reason, Verdict};

pub(super) fn conclude(damage: Damage, state: &State) -> Stop {
    let Some(damaged) = &state.damaged else {
        let why = worst(&troubles(state));
        return unclear(why, format!("no copy of the backup was damaged ({damage})"));
    };
    match &damaged.answer {
        Answer::Refused { file } => refused(damaged, file, state),
        Answer::Finding { plugin, database, subject } => {
            let failures: Vec<&Finding> =
                state.findings.iter().filter(|finding| finding.severity == Severity::Failure).collect();
            found(damaged, &Wanted { plugin, database, subject }, &failures, state)
        }
    }
}

fn refused(damaged: &Damaged, file: &str, state: &State) -> Stop {
    let verify = state.phase(Phase::Verify).and_then(|record| record.ended.as_ref());
    match verify {
        Some((_, PhaseOutcome::Done { .. })) => unnoticed(damaged),
        Some((_, PhaseOutcome::Stopped(stop))) if stop.reason == Reason::ArtifactRefused => {
            if stop.message.contains(file) && state.phase(Phase::Restore).is_none() {
                return noticed(damaged, &stop.message);
            }
            unclear(Some(stop.clone()), format!("another refusal than the one of {file}"))
        }
        Some((_, PhaseOutcome::Stopped(_))) | None => {
            unclear(worst(&troubles(state)), format!("verify did not answer {}", damaged.what))
        }
    }
}

/// The finding that must be there.
struct Wanted<'a> {
    plugin: &'a str,
    database: &'a str,
    subject: &'a str,
}

fn found(damaged: &Damaged, wanted: &Wanted<'_>, failures: &[&Finding], state: &State) -> Stop {
    let troubles = troubles(state);
    if let Some(trouble) = worst(&troubles) {
        return unclear(Some(trouble), format!("the checks were not seen to their end after {}", damaged.what));
    }
    let from = format!("builtin:{}", wanted.plugin);
    let checks: Vec<&str> =
        state.plugins.iter().filter(|plugin| plugin.from == from).map(|plugin| plugin.check.as_str()).collect();
    if checks.is_empty() {
        return unclear(None, format!("the drill ran no check {from}, which must notice {}", damaged.what));
    }
    let is_wanted = |finding: &&Finding| {
        checks.contains(&finding.source.as_str())
            && finding.database.as_deref() == Some(wanted.database)
            && finding.subject == wanted.subject
    };
    let other = failures.iter().find(|finding| !is_wanted(finding));
    match (failures.iter().find(|finding| is_wanted(finding)), other) {
        (Some(finding), None) => {
            noticed(damaged, &format!("{}: {}: {}", finding.source, finding.subject, finding.message))
        }
        (_, Some(other)) => {
            let words = format!("{}: {}: {}", other.source, other.subject, other.message);
            unclear(None, format!("something was found that the self-test did not cause: {words}"))
        }
        (None, None) => unnoticed(damaged),
    }
}

fn noticed(damaged: &Damaged, answer: &str) -> Stop {
    Stop::new(Reason::Proven, format!("the drill noticed {}: {answer}", damaged.what))
}

fn unnoticed(damaged: &Damaged) -> Stop {
    let message = format!("THE DRILL DID NOT NOTICE {}: it would call a damaged backup good", damaged.what);
    Stop::new(Reason::DamageUnnoticed, message).advise(format!(
        "until this is explained, no pass of this drill proves anything; expected was {}",
        damaged.answer
    ))
}

/// Whatever stopped it, a self-test never says that the backup is bad.
fn unclear(why: Option<Stop>, what: String) -> Stop {
    let Some(why) = why else { return Stop::new(Reason::SelfTestInconclusive, what) };
    let reason = match why.reason.verdict() {
        Verdict::Inconclusive => why.reason,
        Verdict::Failed | Verdict::Passed => Reason::SelfTestInconclusive,
    };
    Stop { reason, message: format!("{what}: {}", why.message), ..why }
}

#[cfg(test)]
mod tests {
    use super::super::tests::{check_ended, finding_of, phase, plugin, started_by, state_of, stopped, whole};
    use crate::conclude::conclude;
    use crate::finding::Severity;
    use crate::ledger::{Answer, Damage, Damaged, Event, Summary, Trigger};
    use crate::phase::Phase;
    use crate::stop::Stop;
    use crate::verdict::{Reason, Verdict};

    fn summary(damage: Damage, events: &[Event]) -> Summary {
        conclude(&state_of(started_by(Trigger::SelfTest { damage, scheduled_for: None }), events))
    }

    fn damaged(answer: Answer) -> Event {
        Event::Damaged(Damaged { what: "one bit of shop.dump".to_owned(), answer })
    }

    fn refusal() -> Event {
        damaged(Answer::Refused { file: "shop.dump".to_owned() })
    }

    fn in_verify(outcome: &Stop) -> Vec<Event> {
        let mut events = phase(Phase::Preflight, 1).to_vec();
        events.push(Event::PhaseStarted { phase: Phase::Verify });
        events.push(refusal());
        events.push(stopped(Phase::Verify, outcome.clone()));
        events
    }

    fn refused(message: &str) -> Stop {
        Stop::new(Reason::ArtifactRefused, message)
    }

    #[test]
    fn only_the_refusal_of_the_damaged_file_passes() {
        let good = summary(Damage::Byte, &in_verify(&refused("`/x/shop.dump` is not the file")));
        assert_eq!((good.verdict, good.reason), (Verdict::Passed, Reason::Proven), "{}", good.message);
        let other = summary(Damage::Byte, &in_verify(&refused("`/x/globals.sql` is not the file")));
        assert_eq!(other.reason, Reason::SelfTestInconclusive);
        let network = summary(Damage::Byte, &in_verify(&Stop::new(Reason::SourceUnreachable, "gone")));
        assert_eq!(network.reason, Reason::SourceUnreachable);
    }

    #[test]
    fn the_original_that_is_refused_says_nothing_about_the_drill() {
        let mut events = vec![Event::PhaseStarted { phase: Phase::Verify }];
        events.push(stopped(Phase::Verify, refused("`/x/shop.dump` is not the file")));
        let summary = summary(Damage::Byte, &events);
        assert_eq!((summary.verdict, summary.reason), (Verdict::Inconclusive, Reason::SelfTestInconclusive));
    }

    #[test]
    fn a_copy_that_passes_verify_is_the_loudest_failure() {
        let mut events = whole(20);
        events.insert(0, refusal());
        for length in [5, events.len()] {
            let summary = summary(Damage::Byte, &events[..length]);
            assert_eq!((summary.verdict, summary.reason), (Verdict::Failed, Reason::DamageUnnoticed), "{length}");
        }
    }

    fn checked(findings: &[(&str, &str)]) -> Vec<Event> {
        let answer = Answer::Finding {
            plugin: "row-count".to_owned(),
            database: "d".to_owned(),
            subject: "public.orders".to_owned(),
        };
        let mut events = vec![plugin("rows", "builtin:row-count"), damaged(answer)];
        events.extend(whole(20));
        events.extend(findings.iter().map(|(check, subject)| finding_of(check, subject, Severity::Failure)));
        events.push(check_ended("rows"));
        events
    }

    #[test]
    fn only_the_finding_that_was_caused_passes() {
        let of = |findings: &[(&str, &str)]| summary(Damage::BaselineRows, &checked(findings)).reason;
        assert_eq!(of(&[("rows", "public.orders")]), Reason::Proven);
        assert_eq!(of(&[]), Reason::DamageUnnoticed);
        assert_eq!(of(&[("rows", "public.lines")]), Reason::SelfTestInconclusive);
        assert_eq!(of(&[("other", "public.orders")]), Reason::SelfTestInconclusive);
        assert_eq!(of(&[("rows", "public.orders"), ("rows", "public.lines")]), Reason::SelfTestInconclusive);
    }

    #[test]
    fn a_self_test_that_was_cut_off_never_fails_before_the_checks_were_heard() {
        let events = checked(&[]);
        for length in 2..events.len() - 1 {
            let summary = summary(Damage::BaselineRows, &events[..length]);
            assert_eq!(summary.verdict, Verdict::Inconclusive, "{length}: {}", summary.message);
        }
    }

    #[test]
    fn without_its_check_nothing_is_known() {
        let events = checked(&[]);
        let summary = summary(Damage::BaselineRows, &events[1..]);
        assert_eq!((summary.verdict, summary.reason), (Verdict::Inconclusive, Reason::SelfTestInconclusive));
    }

    #[test]
    fn old_age_and_slowness_are_no_matter() {
        let mut events = checked(&[("rows", "public.orders")]);
        events.splice(2..16, whole(500));
        assert_eq!(summary(Damage::BaselineRows, &events).reason, Reason::Proven);
    }
}
