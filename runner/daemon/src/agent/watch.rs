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
    pub(super) fn new(job: &Job) -> Self {
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
        Self { runs: pairs.collect(), events: 0 }
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
