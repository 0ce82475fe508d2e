//! Judges what the agent says of a job. Pure: a message in, a message fit for people out, or the reason to stop.
use std::collections::HashMap;

use drill::agent::{BaselinePart, FromAgent, Job, MAX_PIECE};
use drill::stop::Stop;
use drill::verdict::Reason;

use super::{job, text};

/// Progress a second of a check's wall time, and what is allowed on top.
const PROGRESS_RATE: u64 = 10;
const SLACK: u64 = 16;
const MAX_PAIRS: usize = 64;

pub(super) enum Heard {
    Event(FromAgent),
    /// A piece of the baseline of a database of the job; whether there is such a piece is for whoever has it to say.
    Want {
        id: u64,
        database: String,
        part: BaselinePart,
        at: u64,
        length: u64,
    },
    /// The job is over, and all that it was about has ended.
    Done,
}

pub(super) struct JobWatch {
    runs: HashMap<(String, String), Run>,
    events: u64,
    /// Bytes of baselines that may still be asked for.
    pieces: u64,
}

/// One check on one database: what it may still say.
struct Run {
    stage: Stage,
    findings: u64,
    logs: u64,
    log_bytes: u64,
    metrics: u64,
    progress: u64,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Stage {
    Due,
    Running,
    Ended,
}

impl JobWatch {
    /// `baselines`: bytes of all files that the agent may ask for pieces of.
    pub(super) fn new(job: &Job, baselines: u64) -> Self {
        let run = |check: &drill::agent::JobCheck| Run {
            stage: Stage::Due,
            findings: u64::from(check.limits.findings) + SLACK,
            logs: check.limits.log_bytes + SLACK,
            log_bytes: check.limits.log_bytes + text::MAX_TEXT as u64,
            metrics: u64::from(check.limits.metrics) + SLACK,
            progress: check.limits.wall_time.as_secs().saturating_mul(PROGRESS_RATE).saturating_add(SLACK),
        };
        let pairs = job.databases.iter().flat_map(|database| {
            job.checks.iter().map(move |check| ((check.name.clone(), database.name.clone()), run(check)))
        });
        // A check that reads every table asks for everything once.
        let pieces = baselines.saturating_mul(job.checks.len() as u64);
        Self { runs: pairs.collect(), events: 0, pieces }
    }

    pub(super) fn hear(&mut self, message: FromAgent) -> Result<Heard, Stop> {
        if let FromAgent::Done { events } = message {
            return self.done(events);
        }
        self.events += 1;
        let event = match message {
            FromAgent::Want { id, database, part, at, length } => {
                if length == 0 || length > MAX_PIECE {
                    return Err(broken("asked for a piece of the baseline that is too large"));
                }
                if !self.runs.iter().any(|((_, name), run)| *name == database && run.stage == Stage::Running) {
                    return Err(broken("asked for a baseline while no check of that database runs"));
                }
                let left = self.pieces.checked_sub(length);
                self.pieces = left.ok_or_else(|| broken("asked for more of the baselines than there is"))?;
                return Ok(Heard::Want { id, database, part, at, length });
            }
            FromAgent::CheckStarted { check, database } => {
                let run = self.run(&check, &database, Stage::Due)?;
                run.stage = Stage::Running;
                FromAgent::CheckStarted { check, database }
            }
            FromAgent::Progress { check, database, done, total, unit } => {
                spend(&mut self.run(&check, &database, Stage::Running)?.progress, 1, "progress", &check)?;
                FromAgent::Progress { check, database, done, total, unit: text::bounded(&unit, 64) }
            }
            FromAgent::Finding { check, database, severity, subject, message, details } => {
                spend(&mut self.run(&check, &database, Stage::Running)?.findings, 1, "findings", &check)?;
                let (subject, message) = (text::clean(&subject), text::clean(&message));
                FromAgent::Finding { check, database, severity, subject, message, details: pairs(details) }
            }
            FromAgent::Log { check, database, message } => {
                let run = self.run(&check, &database, Stage::Running)?;
                spend(&mut run.logs, 1, "log", &check)?;
                spend(&mut run.log_bytes, message.len() as u64, "log", &check)?;
                FromAgent::Log { check, database, message: text::clean(&message) }
            }
            FromAgent::Metric { check, database, name, labels, value } => {
                spend(&mut self.run(&check, &database, Stage::Running)?.metrics, 1, "metrics", &check)?;
                let name = text::bounded(&name, 256);
                FromAgent::Metric { check, database, name, labels: pairs(labels), value }
            }
            FromAgent::CheckEnded { check, database, outcome, usage } => {
                self.run(&check, &database, Stage::Running)?.stage = Stage::Ended;
                FromAgent::CheckEnded { check, database, outcome: job::clean(outcome), usage }
            }
            FromAgent::Ready | FromAgent::Probed { .. } | FromAgent::Done { .. } => {
                return Err(broken("sent a message that has no place in a job"));
            }
        };
        Ok(Heard::Event(event))
    }

    fn done(&self, events: u64) -> Result<Heard, Stop> {
        if events != self.events {
            return Err(broken(&format!("says that it sent {events} messages, and {} came", self.events)));
        }
        if let Some(((check, database), _)) = self.runs.iter().find(|(_, run)| run.stage != Stage::Ended) {
            return Err(broken(&format!("ended the job without running check `{check}` on `{database}` to its end")));
        }
        Ok(Heard::Done)
    }

    fn run(&mut self, check: &str, database: &str, stage: Stage) -> Result<&mut Run, Stop> {
        match self.runs.get_mut(&(check.to_owned(), database.to_owned())) {
            Some(run) if run.stage == stage => Ok(run),
            Some(_) => Err(broken(&format!("spoke of check `{check}` on `{database}` out of turn"))),
            None => {
                let (check, database) = (text::bounded(check, 80), text::bounded(database, 80));
                Err(broken(&format!("spoke of check `{check}` on `{database}`, which the job does not hold")))
            }
        }
    }
}

fn spend(left: &mut u64, amount: u64, what: &str, check: &str) -> Result<(), Stop> {
    *left =
        left.checked_sub(amount).ok_or_else(|| broken(&format!("sent more {what} of check `{check}` than allowed")))?;
    Ok(())
}

fn pairs(pairs: Vec<(String, String)>) -> Vec<(String, String)> {
    pairs.into_iter().take(MAX_PAIRS).map(|(name, value)| (text::bounded(&name, 256), text::clean(&value))).collect()
}

pub(super) fn broken(what: &str) -> Stop {
    Stop::new(Reason::CheckInconclusive, format!("the agent {what}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn watch(baselines: u64) -> JobWatch {
        let job = serde_json::json!({
            "run": "orders-20261122t021500z-k7x2", "drill": "orders", "engine": "postgresql",
            "startedAt": "2026-11-22T02:15:00Z", "snapshotTime": null,
            "databases": [{ "name": "orders", "baseline": null, "schema": null }],
            "checks": [{ "name": "content", "component": "sha256:".to_owned() + &"0".repeat(64), "grants": [],
                         "limits": drill::spec::CheckLimits::default(), "options": {}, "databases": ["orders"] }],
            "deadline": 60_000,
        });
        JobWatch::new(&serde_json::from_value(job).expect("a job"), baselines)
    }

    fn want(database: &str, length: u64) -> FromAgent {
        FromAgent::Want { id: 1, database: database.to_owned(), part: BaselinePart::Blocks, at: 0, length }
    }

    #[test]
    fn pieces_are_for_running_checks_and_as_many_as_there_are() {
        let started = || FromAgent::CheckStarted { check: "content".to_owned(), database: "orders".to_owned() };
        let refused = |watch: &mut JobWatch, message| watch.hear(message).err().expect("refused").message;
        assert!(refused(&mut watch(100), want("orders", 10)).contains("while no check of that database runs"));

        let mut watch = watch(100);
        assert!(matches!(watch.hear(started()), Ok(Heard::Event(_))));
        assert!(matches!(watch.hear(want("orders", 60)), Ok(Heard::Want { length: 60, .. })));
        assert!(refused(&mut watch, want("others", 10)).contains("while no check of that database runs"));
        assert!(refused(&mut watch, want("orders", 0)).contains("too large"));
        assert!(refused(&mut watch, want("orders", MAX_PIECE + 1)).contains("too large"));
        assert!(refused(&mut watch, want("orders", 41)).contains("more of the baselines than there is"));
    }
}
