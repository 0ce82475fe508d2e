//! What the API answers. A promise to programs: it changes by addition only.
use std::collections::BTreeMap;
use std::time::Duration;

use drill::id::{DrillName, RunId};
use drill::ledger::Trigger;
use drill::port::{Alert, Quarantine, RunSummary};
use drill::schedule::Slot;
use drill::spec::Drill;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::dispatcher::{DrillView, FileView, Running};
use crate::fires;
use crate::http::page::worry::Worry;

#[derive(Debug, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[expect(clippy::struct_field_names, reason = "the names are the API's")]
pub(in crate::http) struct Drills {
    pub(in crate::http) drills: Vec<DrillState>,
    /// What to ask for as `after`; null on the last page.
    pub(in crate::http) next: Option<String>,
    /// No new runs begin.
    pub(in crate::http) stopping: bool,
}

#[derive(Debug, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(in crate::http) struct DrillState {
    pub(in crate::http) name: String,
    /// `failed`, `stale`, `inconclusive`, `running`, `never-ran` or `passed`.
    pub(in crate::http) state: String,
    pub(in crate::http) labels: BTreeMap<String, String>,
    pub(in crate::http) file: String,
    /// SHA-256 of the drill file.
    pub(in crate::http) digest: String,
    /// Null without a schedule: it runs when it is asked for.
    pub(in crate::http) cron: Option<String>,
    pub(in crate::http) timezone: Option<String>,
    pub(in crate::http) recovery_time_objective_milliseconds: Option<u64>,
    pub(in crate::http) recovery_point_objective_milliseconds: Option<u64>,
    #[schema(value_type = String, format = DateTime)]
    pub(in crate::http) known_since: Timestamp,
    pub(in crate::http) next: Option<Fire>,
    /// It is due, and waits for a run to end.
    pub(in crate::http) waiting: Option<Fire>,
    pub(in crate::http) running: Option<RunningState>,
    pub(in crate::http) last: Option<RunState>,
    /// The last run that passed.
    pub(in crate::http) last_success: Option<RunState>,
}

#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(in crate::http) struct Fire {
    pub(in crate::http) drill: String,
    /// What cron says.
    #[schema(value_type = String, format = DateTime)]
    pub(in crate::http) scheduled_for: Timestamp,
    /// That, and the drill's jitter.
    #[schema(value_type = String, format = DateTime)]
    pub(in crate::http) starts: Timestamp,
    /// In which cron is read.
    pub(in crate::http) timezone: String,
}

#[derive(Debug, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(in crate::http) struct Fires {
    /// Soonest first.
    pub(in crate::http) next: Vec<Fire>,
}

#[derive(Debug, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(in crate::http) struct RunningState {
    /// Null until it is in the ledger.
    pub(in crate::http) run: Option<String>,
    #[schema(value_type = String, format = DateTime)]
    pub(in crate::http) since: Timestamp,
    #[schema(value_type = Object)]
    pub(in crate::http) trigger: Trigger,
    /// Somebody asked for its end.
    pub(in crate::http) cancelled: bool,
}

#[derive(Debug, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(in crate::http) struct Runs {
    /// Newest first.
    pub(in crate::http) runs: Vec<RunState>,
    /// What to ask for as `before`; null on the last page.
    pub(in crate::http) next: Option<String>,
}

/// A run as a list shows it.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(in crate::http) struct RunState {
    pub(in crate::http) run: String,
    pub(in crate::http) drill: String,
    #[schema(value_type = String, format = DateTime)]
    pub(in crate::http) started: Timestamp,
    /// Null while it runs, and after a crash until it is recovered.
    #[schema(value_type = Option<String>, format = DateTime)]
    pub(in crate::http) ended: Option<Timestamp>,
    /// `passed`, `inconclusive` or `failed`.
    pub(in crate::http) verdict: Option<String>,
    pub(in crate::http) reason: Option<String>,
    /// `some`: something is still owed.
    pub(in crate::http) leftovers: String,
    pub(in crate::http) recovery_time_milliseconds: Option<u64>,
    /// Where the evidence is on the daemon's machine; `/api/v1/runs/{run}/evidence` is the file.
    pub(in crate::http) evidence: Option<String>,
    /// Why it began: `{"kind": "schedule", "scheduledFor": …}` and the like.
    #[schema(value_type = Object)]
    pub(in crate::http) trigger: Trigger,
}

/// All that the ledger knows of a run, in the words of evidence: what `muster report RUN --output json` prints.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(in crate::http) struct RunReport {
    pub(in crate::http) run: String,
    #[schema(value_type = Object)]
    pub(in crate::http) drill: serde_json::Value,
    pub(in crate::http) muster_version: String,
    #[schema(value_type = String, format = DateTime)]
    pub(in crate::http) started: Timestamp,
    #[schema(value_type = Option<String>, format = DateTime)]
    pub(in crate::http) ended: Option<Timestamp>,
    /// Verdict, reason, message, advice and leftovers.
    #[schema(value_type = Option<Object>)]
    pub(in crate::http) result: Option<serde_json::Value>,
    #[schema(value_type = Object)]
    pub(in crate::http) recovery: serde_json::Value,
    #[schema(value_type = Option<Object>)]
    pub(in crate::http) artifact: Option<serde_json::Value>,
    pub(in crate::http) quarantined: Option<String>,
    #[schema(value_type = Vec<Object>)]
    pub(in crate::http) phases: Vec<serde_json::Value>,
    #[schema(value_type = Vec<Object>)]
    pub(in crate::http) checks: Vec<serde_json::Value>,
    #[schema(value_type = Vec<Object>)]
    pub(in crate::http) findings: Vec<serde_json::Value>,
    #[schema(value_type = Vec<Object>)]
    pub(in crate::http) plugins: Vec<serde_json::Value>,
    #[schema(value_type = Object)]
    pub(in crate::http) isolation: serde_json::Value,
    #[schema(value_type = Option<Object>)]
    pub(in crate::http) lease: Option<serde_json::Value>,
    #[schema(value_type = Vec<Object>)]
    pub(in crate::http) teardown: Vec<serde_json::Value>,
    pub(in crate::http) connections_reported_by_restored_server: Vec<String>,
    #[schema(value_type = Option<Object>)]
    pub(in crate::http) evidence: Option<serde_json::Value>,
}

#[derive(Debug, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(in crate::http) struct Started {
    pub(in crate::http) run: String,
}

#[derive(Debug, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(in crate::http) struct Released {
    /// In how many places the backup was in quarantine.
    pub(in crate::http) released: u64,
}

#[derive(Debug, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(in crate::http) struct QuarantineList {
    pub(in crate::http) quarantine: Vec<Quarantined>,
}

/// A refused backup.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(in crate::http) struct Quarantined {
    /// SHA-256 of the manifest.
    pub(in crate::http) digest: String,
    pub(in crate::http) location: String,
    pub(in crate::http) run: String,
    pub(in crate::http) why: String,
    #[schema(value_type = String, format = DateTime)]
    pub(in crate::http) at: Timestamp,
}

#[derive(Debug, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(in crate::http) struct FileProblems {
    pub(in crate::http) problems: Vec<FileProblem>,
}

/// A drill file that cannot be used as it is.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(in crate::http) struct FileProblem {
    pub(in crate::http) path: String,
    /// The drill whose last good version is still in use.
    pub(in crate::http) keeps: Option<String>,
    pub(in crate::http) problem: String,
    #[schema(value_type = String, format = DateTime)]
    pub(in crate::http) since: Timestamp,
}

#[derive(Debug, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(in crate::http) struct OpenAlerts {
    /// Oldest first.
    pub(in crate::http) alerts: Vec<OpenAlert>,
}

#[derive(Debug, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(in crate::http) struct OpenAlert {
    pub(in crate::http) kind: String,
    pub(in crate::http) subject: String,
    pub(in crate::http) drill: Option<String>,
    pub(in crate::http) run: Option<String>,
    #[schema(value_type = String, format = DateTime)]
    pub(in crate::http) at: Timestamp,
    pub(in crate::http) message: String,
    pub(in crate::http) advice: Option<String>,
    #[schema(value_type = Object)]
    pub(in crate::http) details: serde_json::Value,
}

impl DrillState {
    pub(super) fn of(name: &DrillName, view: &DrillView, worry: Worry) -> Self {
        let objectives = &view.drill.objectives;
        let schedule = view.drill.schedule.as_ref();
        Self {
            name: name.to_string(),
            state: worry.as_str().to_owned(),
            labels: view.drill.labels.clone(),
            file: view.file.display().to_string(),
            digest: view.drill.digest.to_string(),
            cron: schedule.map(|schedule| schedule.cron.clone()),
            timezone: schedule.map(|schedule| schedule.timezone.clone()),
            recovery_time_objective_milliseconds: objectives.recovery_time.map(milliseconds),
            recovery_point_objective_milliseconds: objectives.recovery_point.map(milliseconds),
            known_since: view.known_since,
            next: view.next.map(|slot| Fire::of(&view.drill, slot)),
            waiting: view.waiting.map(|slot| Fire::of(&view.drill, slot)),
            running: view.running.as_ref().map(RunningState::of),
            last: view.last.as_deref().cloned().map(RunState::from),
            last_success: view.last_success.as_deref().cloned().map(RunState::from),
        }
    }
}

impl Fire {
    fn of(drill: &Drill, slot: Slot) -> Self {
        Self {
            drill: drill.name.to_string(),
            scheduled_for: slot.scheduled_for,
            starts: slot.starts,
            timezone: drill.schedule.as_ref().map(|schedule| schedule.timezone.clone()).unwrap_or_default(),
        }
    }
}

impl From<fires::Fire> for Fire {
    fn from(fire: fires::Fire) -> Self {
        let fires::Fire { drill, starts, scheduled_for, timezone } = fire;
        Self { drill: drill.to_string(), scheduled_for, starts, timezone }
    }
}

impl RunningState {
    fn of(running: &Running) -> Self {
        Self {
            run: running.run.as_ref().map(RunId::to_string),
            since: running.since,
            trigger: running.trigger.clone(),
            cancelled: running.cancelled,
        }
    }
}

impl From<RunSummary> for RunState {
    fn from(run: RunSummary) -> Self {
        Self {
            run: run.run.to_string(),
            drill: run.drill.to_string(),
            started: run.started,
            ended: run.ended,
            verdict: run.verdict.map(|verdict| verdict.as_str().to_owned()),
            reason: run.reason.map(name),
            leftovers: name(run.leftovers),
            recovery_time_milliseconds: run.recovery_time_milliseconds,
            evidence: run.evidence,
            trigger: run.trigger,
        }
    }
}

impl From<Quarantine> for Quarantined {
    fn from(entry: Quarantine) -> Self {
        Self {
            digest: entry.digest.to_string(),
            location: entry.location,
            run: entry.run.to_string(),
            why: entry.why,
            at: entry.at,
        }
    }
}

impl From<&FileView> for FileProblem {
    fn from(file: &FileView) -> Self {
        Self {
            path: file.path.display().to_string(),
            keeps: file.keeps.as_ref().map(DrillName::to_string),
            problem: file.problem.clone(),
            since: file.since,
        }
    }
}

impl From<Alert> for OpenAlert {
    fn from(alert: Alert) -> Self {
        Self {
            kind: alert.kind,
            subject: alert.subject,
            drill: alert.drill.map(String::from),
            run: alert.run.map(String::from),
            at: alert.at,
            message: alert.message,
            advice: alert.advice,
            details: alert.details,
        }
    }
}

/// The stable name of a value whose JSON is one word.
pub(in crate::http) fn name(value: impl Serialize) -> String {
    match serde_json::to_value(value) {
        Ok(serde_json::Value::String(name)) => name,
        _ => String::new(),
    }
}

fn milliseconds(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}
