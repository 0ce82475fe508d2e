//! Bad input: each wrong thing, and the verdict, reason, words and exit code that answer it.
mod artifact;
mod content;
mod dies;
mod machine;
mod moving;

use std::fs;
use std::process::Command;

use serde_json::Value;
use whole_program::{Backup, Finished, Place, muster};

/// What a run must answer: exit code, reason, and words of its message or advice.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Answer {
    pub(crate) code: i32,
    pub(crate) reason: &'static str,
    pub(crate) says: &'static [&'static str],
}

impl Answer {
    pub(crate) const fn refused(says: &'static [&'static str]) -> Self {
        Self { code: 1, reason: "artifact-refused", says }
    }

    pub(crate) const fn unfit(says: &'static [&'static str]) -> Self {
        Self { code: 2, reason: "sandbox-unfit", says }
    }

    /// None where it is so; otherwise what is not.
    pub(crate) fn differs(&self, case: &str, run: &Finished) -> Option<String> {
        let result = run.result();
        let verdict = match self.code {
            0 => "passed",
            1 => "failed",
            _ => "inconclusive",
        };
        let said = said(&result);
        let restored = run.events("phase-started").iter().any(|event| event["phase"] == "restore");
        let same = run.code == Some(self.code)
            && result["reason"] == self.reason
            && result["verdict"] == verdict
            && self.says.iter().all(|words| said.contains(words))
            && !(restored && self.reason == "artifact-refused");
        (!same).then(|| format!("{case}: expected {self:?}\n  {:?} {result}\n  {}", run.code, run.stderr))
    }
}

/// Message and advice of a result.
pub(crate) fn said(result: &Value) -> String {
    let text = |key: &str| result[key].as_str().unwrap_or_default().to_owned();
    format!("{}\n{}", text("message"), text("advice"))
}

/// Runs a drill as JSON.
pub(crate) fn run(place: &Place, drill: &str) -> Finished {
    muster(place, &["run", drill, "--output", "json"])
}

#[track_caller]
pub(crate) fn expect(place: &Place, drill: &str, case: &str, answer: Answer) -> Finished {
    let run = run(place, drill);
    if let Some(difference) = answer.differs(case, &run) {
        panic!("{difference}");
    }
    place.assert_nothing_left();
    run
}

/// Changes the manifest and signs it with the key of the backup, as whoever holds that key could.
pub(crate) fn edit_manifest(place: &Place, backup: &Backup<'_>, edit: impl FnOnce(&mut Value)) {
    let path = backup.directory().join("manifest.json");
    let mut manifest: Value = serde_json::from_slice(&fs::read(&path).unwrap()).unwrap();
    edit(&mut manifest);
    fs::write(&path, manifest.to_string()).unwrap();
    let signed = Command::new("minisign")
        .args(["-S", "-s"])
        .arg(place.path("backup.key"))
        .args(["-t", "edited", "-m"])
        .arg(&path)
        .output()
        .expect("minisign is installed by `make setup`");
    assert!(signed.status.success(), "{signed:?}");
}
