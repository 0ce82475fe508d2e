//! What an operator does next, for whatever a run concludes. The end of `muster run` and every form of `muster report` say it
//! in these words.
use std::path::Path;
use std::time::Duration;

use drill::ledger::{State, Summary};
use drill::verdict::Reason;

use super::capture::shell;

/// Nothing after a run that passed and left nothing in quarantine. Whoever stopped the run knows best; where they said nothing,
/// the reason decides.
pub(crate) fn steps(state: &State, summary: &Summary) -> Vec<String> {
    let own = summary.advice.clone();
    let mut steps: Vec<String> = own.or_else(|| by_reason(state, summary)).into_iter().collect();
    if state.quarantined.is_some() {
        let run = &state.started.run;
        steps.push(format!("later runs refuse this backup until you type `muster quarantine release {run}`"));
    }
    steps
}

fn by_reason(state: &State, summary: &Summary) -> Option<String> {
    let run = &state.started.run;
    let file = shell(Path::new(&state.started.drill_file));
    let step = match summary.reason {
        Reason::Proven => return None,
        Reason::ArtifactRefused => match &state.artifact {
            Some(artifact) => format!(
                "do not restore from {}; take another copy, and find out what changed this one",
                artifact.location
            ),
            None => "do not restore from it; make a new backup, or name the key of whoever signed this one in \
                     `trustedKeys`"
                .to_owned(),
        },
        Reason::RestoreFailed => format!(
            "this backup does not restore as it is: `muster report {run}` has each error; mend its cause in the source, \
             make a new backup and drill that"
        ),
        Reason::CheckFailed => format!(
            "do not rely on this backup: `muster report {run}` has every finding; compare them with the source, make a new \
             backup and drill that"
        ),
        Reason::ObjectiveExceeded => exceeded(state, summary),
        Reason::DeadlineAfterObjective => format!(
            "the objective cannot be met as things are: `muster report {run}` says where the time went; raise the deadline \
             to learn how long all of it takes"
        ),
        Reason::SandboxUnfit => format!(
            "`muster doctor --extensions` says what this machine has: install what is missing, or drill where it is, then \
             `muster run {file}`"
        ),
        Reason::TemplateDrift => {
            format!("put the isolation's template back, or accept the new one on purpose, then `muster run {file}`")
        }
        Reason::IsolationUnproven => format!(
            "nothing was restored, because something could have got out: `muster report {run}` names the probe; close that \
             way, see `muster doctor`, then `muster run {file}`"
        ),
        Reason::IsolationBreached => format!(
            "find out who opened the sandbox, because restored data lay in it: `muster report {run}` names what was changed; then \
             `muster run {file}`"
        ),
        Reason::LimitReached => format!(
            "if what was asked for is right, raise that limit (`isolation: {{ local: {{ limits }} }}`, or the check's own \
             `limits`), then `muster run {file}`"
        ),
        Reason::Credentials => format!(
            "no check ran, because its login could not be made or could do too much: `muster report {run}` has each \
             attempt; see to that, then `muster run {file}`"
        ),
        Reason::Deadline => {
            format!(
                "if the time was well spent, raise that phase's deadline under `deadlines`, then `muster run {file}`"
            )
        }
        Reason::Interrupted => format!("run it again: `muster run {file}`"),
        Reason::Quarantined => {
            "an earlier run refused this backup: `muster quarantine list` says why; drill another copy, or \
                                release it there once you know what happened"
                .to_owned()
        }
        Reason::SourceUnreachable => {
            format!("see that the backup's place can be reached from here, then `muster run {file}`")
        }
        Reason::ArtifactChanged => format!(
            "what was restored is not known to be what was signed: find out who writes to the backup's volume, then `muster run {file}`"
        ),
        Reason::CheckInconclusive => format!(
            "nothing is known to be wrong, and not all was checked: `muster report {run}` says what the check could not \
             tell; see to that, then `muster run {file}`"
        ),
        Reason::DamageUnnoticed => {
            format!(
                "believe no pass of this drill until this is explained: `muster report {run}` says what was damaged"
            )
        }
        Reason::SelfTestInconclusive => format!(
            "whether the drill notices damage is not known: `muster report {run}` says what came between; see to that, then run the \
             self-test again"
        ),
        Reason::AlreadyRunning => {
            "wait for the run that goes on: `muster runs` shows it; where its process is gone, `muster reap` ends it"
                .to_owned()
        }
        Reason::Internal => format!(
            "the backup was not judged: see to what muster says, then `muster run {file}`; if it stays, report it with \
             `muster report {run} --output json`"
        ),
    };
    Some(step)
}

/// A backup that is too old is not helped by a faster restore.
fn exceeded(state: &State, summary: &Summary) -> String {
    let millis = |objective: Option<Duration>| objective.map_or(u128::MAX, |objective| objective.as_millis());
    let objectives = state.started.objectives;
    let too_old =
        summary.recovery_point_milliseconds.is_some_and(|age| u128::from(age) > millis(objectives.recovery_point));
    if too_old {
        "make a new backup now, and back up more often than the objective of the recovery point; if it should have been \
         newer, see why the last ones were not made"
            .to_owned()
    } else {
        let run = &state.started.run;
        format!(
            "`muster report {run}` says where the time went: restore with more `jobs` or from a faster disk, or agree on \
             another objective"
        )
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use drill::id::Sha256Digest;
    use drill::verdict::Verdict;

    use super::*;
    use crate::sample;

    fn state() -> State {
        State::new(sample::started("orders", Path::new("evidence")))
    }

    #[test]
    fn every_reason_but_success_has_a_next_step_of_its_own() {
        let mut said = BTreeSet::new();
        for reason in Reason::ALL {
            let steps = steps(&state(), &sample::summary(reason, "what happened"));
            assert_eq!(steps.is_empty(), reason.verdict() == Verdict::Passed, "{reason:?}");
            for step in steps {
                assert!(!step.contains('\n') && !step.ends_with('.') && step.len() > 20, "{step}");
                assert!(said.insert(step), "{reason:?} says what another says");
            }
        }
    }

    #[test]
    fn a_backup_that_is_too_old_needs_a_newer_one_and_no_faster_disk() {
        let mut summary = sample::summary(Reason::ObjectiveExceeded, "what happened");
        assert!(steps(&state(), &summary)[0].contains("`jobs`"));
        summary.recovery_point_milliseconds = Some(86_400_001);
        assert!(steps(&state(), &summary)[0].contains("new backup now"));
    }

    #[test]
    fn whoever_stopped_the_run_knows_better() {
        for reason in Reason::ALL {
            let mut summary = sample::summary(reason, "what happened");
            summary.advice = Some("free 2 GiB in /var/tmp".to_owned());
            assert_eq!(steps(&state(), &summary), ["free 2 GiB in /var/tmp"]);
        }
    }

    #[test]
    fn a_quarantine_is_said_whoever_gave_the_advice() {
        let mut state = state();
        state.quarantined = Some(Sha256Digest::of(b"manifest"));
        let steps = steps(&state, &sample::summary(Reason::ArtifactRefused, "a byte differs"));
        assert!(steps[1].ends_with("`muster quarantine release orders-20261122t021500z-j8y2`"), "{steps:?}");
    }
}
