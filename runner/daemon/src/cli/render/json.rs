use std::io::Write;
use std::sync::{Mutex, PoisonError};

use drill::ledger::State;
use drill::stop::Stop;
use drill::verdict::exit_code;
use serde_json::{Value, json};

use super::follow;
use crate::cli::style::clean_json;
use crate::executor::{Observer, Update};

/// One JSON object a line, whose names are stable. `type` is
///
/// - `event`: what the ledger holds, as it holds it: `sequence`, `at`, `event: { event, data }`;
/// - `progress` (`phase`, `done`, `total`, `unit`) and `check` (`check`, `database`, `done`, `total`, `unit`): how far it is;
/// - `log` (`check`, `message`), `alert`, `key-made` (`publicKey`);
/// - once and last, `result`: `verdict`, `reason`, `message`, `advice`, `leftovers`, `exitCode`, times and evidence.
pub struct Json {
    state: Mutex<Option<State>>,
    quiet: bool,
}

impl Json {
    /// `quiet`: only the `result`, and only if the run does not pass.
    pub fn new(quiet: bool) -> Self {
        Self { state: Mutex::new(None), quiet }
    }
}

impl Json {
    /// The `result` of a drill that was not begun.
    pub fn not_begun(stop: &Stop, code: u8) {
        print(&json!({
            "type": "result",
            "run": null,
            "verdict": stop.reason.verdict(),
            "reason": stop.reason,
            "message": stop.message,
            "advice": stop.advice,
            "leftovers": "none",
            "exitCode": code,
        }));
    }
}

impl Observer for Json {
    fn update(&self, update: Update<'_>) {
        let line = match update {
            Update::Event(stamped) => {
                let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
                follow(&mut state, stamped);
                let event = tagged("event", serde_json::to_value(stamped).unwrap_or_default());
                let result = state.as_ref().filter(|state| state.ended.is_some()).map(result);
                drop(state);
                self.print(&event);
                if let Some(result) = result {
                    let passed = result["exitCode"] == json!(0);
                    if !self.quiet || !passed {
                        print(&result);
                    }
                }
                return;
            }
            Update::Progress { phase, done, total, unit } => {
                json!({ "type": "progress", "phase": phase, "done": done, "total": total, "unit": unit })
            }
            Update::Check { name, database, done, total, unit } => {
                json!({ "type": "check", "check": name, "database": database, "done": done, "total": total, "unit": unit })
            }
            Update::Lease { expires_at, renewed } => {
                json!({ "type": "lease", "expiresAt": expires_at, "renewed": renewed })
            }
            Update::Log { check, message } => json!({ "type": "log", "check": check, "message": message }),
            Update::NotWritten(ended) => {
                let mut result = result(&ended.state);
                result["verdict"] = json!(ended.summary.verdict);
                result["reason"] = json!(ended.summary.reason);
                result["message"] = json!(ended.summary.message);
                result["exitCode"] = json!(ended.exit_code());
                result["trouble"] = json!(ended.trouble.as_ref().map(|stop| &stop.message));
                print(&result);
                return;
            }
            Update::KeyMade { directory } => {
                json!({ "type": "key-made", "publicKey": directory.join("evidence.pub") })
            }
            Update::Alert(alert) => tagged("alert", serde_json::to_value(alert).unwrap_or_default()),
        };
        self.print(&line);
    }
}

impl Json {
    fn print(&self, line: &Value) {
        if !self.quiet {
            print(line);
        }
    }
}

fn print(line: &Value) {
    // Nobody reads on: the run itself goes on, and its evidence says what it saw.
    let _ = writeln!(std::io::stdout().lock(), "{}", clean_json(&line.to_string()));
}

fn tagged(kind: &str, mut value: Value) -> Value {
    if let Some(object) = value.as_object_mut() {
        object.insert("type".to_owned(), Value::from(kind));
    }
    value
}

/// What scripts read: the last line.
fn result(state: &State) -> Value {
    let summary = state.summary.as_ref();
    let leftovers = state.leftovers();
    json!({
        "type": "result",
        "run": state.started.run,
        "drill": state.started.drill,
        "verdict": summary.map(|summary| summary.verdict),
        "reason": summary.map(|summary| summary.reason),
        "message": summary.map(|summary| &summary.message),
        "advice": summary.and_then(|summary| summary.advice.as_ref()),
        "leftovers": leftovers,
        "exitCode": summary.map(|summary| exit_code(summary.verdict, leftovers)),
        "fidelity": state.started.fidelity,
        "recoveryTimeMilliseconds": summary.and_then(|summary| summary.recovery_time_milliseconds),
        "recoveryPointMilliseconds": summary.and_then(|summary| summary.recovery_point_milliseconds),
        "boundaryOverheadMilliseconds": summary.and_then(|summary| summary.boundary_overhead_milliseconds),
        "evidence": state.evidence.as_ref().map(|(path, digest, sequence)| json!({ "path": path, "digest": digest, "sequence": sequence })),
    })
}
