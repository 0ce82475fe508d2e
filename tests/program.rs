use std::io::{BufRead, BufReader, Read, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdout, Command, Output, Stdio};
use std::sync::OnceLock;

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

use crate::Place;

/// The program that cargo built beside the tests.
pub fn program() -> &'static Path {
    static PROGRAM: OnceLock<PathBuf> = OnceLock::new();
    PROGRAM.get_or_init(|| {
        let test = std::env::current_exe().expect("a test has a program");
        let debug = test.ancestors().nth(2).expect("target/debug/deps/test").to_owned();
        let built = debug.join("muster");
        assert!(
            built.exists(),
            "{} is not there: `cargo build --workspace` makes it (make test does)",
            built.display()
        );
        built
    })
}

/// Says why something is not tested here, past what a test that passes has printed and nobody sees.
pub fn not_tested(why: &str) {
    let said = std::io::stderr().write_all(format!("NOT TESTED: {why}\n").as_bytes());
    said.expect("there is a standard error");
}

pub fn muster(place: &Place, arguments: &[&str]) -> Finished {
    Muster::start(place, arguments).wait()
}

/// A muster that runs.
pub struct Muster {
    child: Child,
    stdout: Option<BufReader<ChildStdout>>,
    printed: String,
    arguments: String,
}

pub struct Finished {
    pub code: Option<i32>,
    pub stdout: String,
    pub stderr: String,
    arguments: String,
}

impl Muster {
    pub fn start(place: &Place, arguments: &[&str]) -> Self {
        Self::start_with(place, arguments, |_| {})
    }

    pub fn start_with(place: &Place, arguments: &[&str], prepare: impl FnOnce(&mut Command)) -> Self {
        let mut command = place.command(program());
        command.args(arguments).stdout(Stdio::piped()).stderr(Stdio::piped());
        prepare(&mut command);
        let mut child = command.spawn().expect("muster starts");
        let stdout = child.stdout.take().map(BufReader::new);
        Self { child, stdout, printed: String::new(), arguments: arguments.join(" ") }
    }

    pub fn signal(&self, signal: Signal) {
        let pid = Pid::from_child(&self.child);
        kill_process(pid, signal).expect("it is ours and not waited for");
    }

    /// To everybody in its process group, of which it must be the leader.
    pub fn signal_group(&self, signal: Signal) {
        let group = Pid::from_child(&self.child);
        rustix::process::kill_process_group(group, signal).expect("it leads a group of its own");
    }

    /// Reads what it prints until a line holds `text`. Panics when it ends before.
    #[track_caller]
    pub fn read_until(&mut self, text: &str) {
        let stdout = self.stdout.as_mut().expect("it is piped");
        loop {
            let mut line = String::new();
            let read = stdout.read_line(&mut line).expect("it prints text");
            assert!(read > 0, "muster {} ended before it printed {text}; it printed\n{}", self.arguments, self.printed);
            self.printed.push_str(&line);
            if line.contains(text) {
                return;
            }
        }
    }

    /// The next event of the ledger that `--output json` prints; None where it printed its last.
    pub fn next_event(&mut self) -> Option<Value> {
        let stdout = self.stdout.as_mut().expect("it is piped");
        loop {
            let mut line = String::new();
            if stdout.read_line(&mut line).expect("it prints text") == 0 {
                return None;
            }
            self.printed.push_str(&line);
            let mut value: Value = serde_json::from_str(&line).expect("each line is JSON");
            if value["type"] == "event" {
                return Some(value["event"].take());
            }
        }
    }

    pub fn wait(mut self) -> Finished {
        if let Some(mut stdout) = self.stdout.take() {
            stdout.read_to_string(&mut self.printed).expect("it prints text");
        }
        let Output { status, stderr, .. } = self.child.wait_with_output().expect("it is ours");
        Finished {
            code: status.code(),
            stdout: self.printed,
            stderr: String::from_utf8_lossy(&stderr).into_owned(),
            arguments: self.arguments,
        }
    }
}

impl Finished {
    #[track_caller]
    #[expect(clippy::return_self_not_must_use, reason = "most callers only want the exit code to be right")]
    pub fn expect(self, code: i32) -> Self {
        assert_eq!(
            self.code,
            Some(code),
            "muster {}\n--- stdout\n{}\n--- stderr\n{}",
            self.arguments,
            self.stdout,
            self.stderr
        );
        self
    }

    /// The last line of `--output json`.
    #[track_caller]
    pub fn result(&self) -> Value {
        let last = self.stdout.lines().last().unwrap_or_else(|| panic!("nothing was printed; stderr: {}", self.stderr));
        let value: Value = serde_json::from_str(last).expect("the last line is JSON");
        assert_eq!(value["type"], "result", "{last}");
        value
    }

    /// Every line of `--output json`.
    pub fn json(&self) -> Vec<Value> {
        self.stdout.lines().map(|line| serde_json::from_str(line).expect("each line is JSON")).collect()
    }

    /// The ledger's events in the order in which they were printed, by name.
    pub fn events(&self, name: &str) -> Vec<Value> {
        let events = self.json().into_iter().filter(|line| line["type"] == "event" && line["event"]["event"] == name);
        events.map(|line| line["event"]["data"].clone()).collect()
    }
}
