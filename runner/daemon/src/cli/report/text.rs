//! The report for people: the result first, what to do next last.
use std::fmt::Write as _;
use std::time::Duration;

use drill::evidence::{CheckOutcome, Facts, PhaseOutcome, Problem, ResourceOutcome};
use drill::finding::Severity;
use drill::proof::Expected;
use drill::spec::Fidelity;
use drill::unit;
use drill::verdict::Leftovers;

use super::Report;
use crate::cli::style::{Mark, Style, clean, time};

pub(super) fn text(report: &Report, style: Style) -> String {
    let mut page = Page { style, text: String::new() };
    let facts = Facts::of(&report.state);
    head(&mut page, report, &facts);
    phases(&mut page, &facts);
    checks(&mut page, &facts);
    findings(&mut page, &facts);
    isolation(&mut page, &facts);
    lease(&mut page, &facts);
    connections(&mut page, &facts);
    teardown(&mut page, &facts);
    evidence(&mut page, report);
    next(&mut page, report, &facts);
    page.text
}

struct Page {
    style: Style,
    text: String,
}

impl Page {
    fn section(&mut self, title: &str) {
        let _ = writeln!(self.text, "\n{}", self.style.heading(title));
    }

    /// `text` may hold what is hostile.
    fn line(&mut self, mark: Mark, text: &str) {
        let _ = writeln!(self.text, "  {} {}", self.style.sign(mark), clean(text));
    }

    fn more(&mut self, text: &str) {
        let _ = writeln!(self.text, "      {}", clean(text));
    }

    fn field(&mut self, name: &str, value: &str) {
        let _ = writeln!(self.text, "  {name:<15} {}", clean(value));
    }

    fn problem(&mut self, problem: &Problem) {
        if let Some(advice) = &problem.advice {
            self.more(&format!("what to do: {advice}"));
        }
    }
}

fn head(page: &mut Page, report: &Report, facts: &Facts) {
    let state = &report.state;
    let started = &state.started;
    let run = page.style.heading(started.run.as_str());
    let _ = writeln!(page.text, "{run}   drill {}, fidelity {}\n", started.drill, started.fidelity.as_str());
    match &state.summary {
        Some(summary) => {
            let mark = Mark::from(summary.verdict);
            let verdict = page.style.paint(mark, &summary.verdict.as_str().to_uppercase());
            let sign = page.style.sign(mark);
            let _ = writeln!(page.text, "  {sign} {verdict}: {}", clean(&summary.message));
        }
        None => page.line(Mark::Unsure, "NO RESULT: the run has not come to its end"),
    }
    if report.ended.is_some() && state.leftovers() == Leftovers::Some {
        page.line(Mark::Warning, "something is left over, see teardown");
    }
    page.text.push('\n');
    let ended = report.ended.map_or_else(|| "not ended".to_owned(), |at| format!("ended {}", time(at)));
    page.field("started", &format!("{}, {ended}", time(started.at)));
    page.field("drill file", &format!("{}, sha256 {}", started.drill_file, started.drill_digest.short()));
    if !started.labels.is_empty() {
        let labels: Vec<_> = started.labels.iter().map(|(name, value)| format!("{name}={value}")).collect();
        page.field("labels", &labels.join(", "));
    }
    if let Some(artifact) = &facts.artifact {
        let (size, digest) = (unit::size(artifact.size_bytes), artifact.digest.short());
        page.field("backup", &format!("{}, {size}, from {}", artifact.name, artifact.location));
        match &artifact.signed_by {
            Some(key) => page.field("", &format!("manifest sha256 {digest}, signed by {key}")),
            None => page.line(
                Mark::Warning,
                &format!("UNSIGNED dump, sha256 {digest}, vouched for by {}", artifact.vouched_by),
            ),
        }
        let note = artifact.snapshot_time_from.note();
        let taken = match artifact.snapshot_time {
            Some(taken) if note.is_empty() => format!("taken {}", time(taken)),
            Some(taken) => format!("taken {} ({note})", time(taken)),
            None => note.to_owned(),
        };
        page.field("", &format!("{taken} from {}", artifact.source_version));
    }
    recovery(page, facts);
}

fn recovery(page: &mut Page, facts: &Facts) {
    let recovery = &facts.recovery;
    let duration = |milliseconds: u64| unit::duration(Duration::from_millis(milliseconds));
    let measured = |actual: Option<u64>, objective: Option<u64>| {
        let actual = actual.map_or_else(|| "not measured".to_owned(), duration);
        match objective {
            Some(objective) => format!("{actual} of {}", duration(objective)),
            None => format!("{actual}, no objective"),
        }
    };
    page.field("recovery time", &measured(recovery.time_actual_milliseconds, recovery.time_objective_milliseconds));
    page.field("recovery point", &measured(recovery.point_actual_milliseconds, recovery.point_objective_milliseconds));
    if let Some(overhead) = recovery.boundary_overhead_milliseconds {
        page.field("boundaries cost", &duration(overhead));
    }
    if recovery.fidelity == Fidelity::Fast {
        page.line(Mark::Warning, "fidelity fast: these times say nothing of production");
    }
}

fn phases(page: &mut Page, facts: &Facts) {
    page.section("Phases");
    for phase in &facts.phases {
        let (mark, note) = match (phase.outcome, &phase.problem) {
            (PhaseOutcome::Stopped, Some(problem)) => (Mark::from(problem.reason.verdict()), problem.message.as_str()),
            (PhaseOutcome::Done, _) => (Mark::Good, phase.note.as_deref().unwrap_or_default()),
            (PhaseOutcome::Stopped, None) => (Mark::Unsure, "stopped"),
            (PhaseOutcome::CutOff, _) => (Mark::Unsure, "did not end"),
        };
        let took = phase.milliseconds.map_or_else(|| "-".to_owned(), |ms| unit::duration(Duration::from_millis(ms)));
        page.line(mark, &format!("{:<10} {took:>9}   {note}", phase.phase.as_str()));
        phase.problem.iter().for_each(|problem| page.problem(problem));
    }
}

fn checks(page: &mut Page, facts: &Facts) {
    if facts.checks.is_empty() && facts.plugins.is_empty() {
        return;
    }
    page.section("Checks");
    for check in &facts.checks {
        let failed = facts.findings.iter().any(|finding| {
            finding.severity == Severity::Failure
                && finding.source == check.check
                && finding.database.as_deref() == Some(check.database.as_str())
        });
        let (mark, outcome) = match check.outcome {
            CheckOutcome::Completed if failed => (Mark::Bad, "failed"),
            CheckOutcome::Completed => (Mark::Good, "passed"),
            CheckOutcome::Inconclusive => (Mark::Unsure, "inconclusive"),
            CheckOutcome::LimitReached => (Mark::Unsure, "stopped at a limit"),
            CheckOutcome::Trapped => (Mark::Unsure, "trapped"),
            CheckOutcome::Refused => (Mark::Unsure, "refused"),
            CheckOutcome::Cancelled => (Mark::Unsure, "cancelled"),
        };
        let message = check.message.as_ref().map(|message| format!(": {message}")).unwrap_or_default();
        page.line(mark, &format!("{} on {} {outcome}{message}", check.check, check.database));
        if let Some(limit) = &check.limit {
            page.more(&format!("{}: used {} of {}; {}", limit.name, limit.used, limit.allowed, limit.advice));
        }
        let usage = &check.usage;
        page.more(&format!(
            "took {}, {} of CPU, {} of memory",
            unit::duration(Duration::from_millis(usage.wall_milliseconds)),
            unit::duration(Duration::from_millis(usage.cpu_milliseconds)),
            unit::size(usage.memory_bytes)
        ));
    }
    for plugin in &facts.plugins {
        let grants = if plugin.grants.is_empty() { "nothing".to_owned() } else { plugin.grants.join(", ") };
        let digest = plugin.digest.short();
        page.line(Mark::None, &format!("{} is {}, sha256 {digest}, granted {grants}", plugin.check, plugin.from));
    }
}

/// Worst first, otherwise in the order in which they were seen.
fn findings(page: &mut Page, facts: &Facts) {
    if facts.findings.is_empty() {
        return;
    }
    page.section("Findings");
    for (severity, mark) in
        [(Severity::Failure, Mark::Bad), (Severity::Warning, Mark::Warning), (Severity::Info, Mark::None)]
    {
        for finding in facts.findings.iter().filter(|finding| finding.severity == severity) {
            let database = finding.database.as_ref().map(|name| format!(" on {name}")).unwrap_or_default();
            page.line(mark, &format!("{}{database}: {}: {}", finding.source, finding.subject, finding.message));
            if !finding.details.is_empty() {
                let details = finding.details.iter().map(|detail| format!("{} {}", detail.name, detail.value));
                page.more(&details.collect::<Vec<_>>().join(", "));
            }
        }
    }
}

fn isolation(page: &mut Page, facts: &Facts) {
    let isolation = &facts.isolation;
    page.section("Isolation");
    if let Some(template) = &isolation.template {
        page.line(Mark::None, &format!("{}, template sha256 {}", template.isolation, template.digest.short()));
    }
    for limit in &isolation.limits {
        let bytes = matches!(limit.what.as_str(), "memory" | "disk");
        let value = if bytes { unit::size(limit.value) } else { unit::count(limit.value) };
        let scope = if limit.total { "for the whole sandbox" } else { "not for the sandbox as a whole" };
        let mark = if limit.enforced_by == "none" { Mark::Warning } else { Mark::None };
        page.line(mark, &format!("{} {value}, by {}, {scope}", limit.what, limit.enforced_by));
    }
    if isolation.probes.is_empty() {
        page.line(Mark::Unsure, "not probed: no backup byte was loaded");
    }
    for probe in &isolation.probes {
        let mark = if probe.expected == probe.observed { Mark::Good } else { Mark::Bad };
        let observed = match probe.observed {
            Expected::Closed => "closed",
            Expected::Open => "open",
        };
        page.line(mark, &format!("{observed:<6}  {} ({})", probe.name, probe.detail));
    }
}

fn lease(page: &mut Page, facts: &Facts) {
    let Some(lease) = &facts.lease else { return };
    page.section("Lease");
    let ttl = unit::duration(Duration::from_millis(lease.ttl_milliseconds));
    page.line(Mark::None, &format!("{}, for {ttl} at a time", lease.role));
    for attempt in &lease.attempts {
        let mark = if attempt.held { Mark::Good } else { Mark::Bad };
        let held = if attempt.held { "could not" } else { "could" };
        let state = attempt.sqlstate.as_ref().map(|state| format!(" (SQLSTATE {state})")).unwrap_or_default();
        page.line(mark, &format!("{held} {} in {}{state}", attempt.what, attempt.database));
    }
}

fn connections(page: &mut Page, facts: &Facts) {
    if facts.connections_reported_by_restored_server.is_empty() {
        return;
    }
    page.section("Connections, as reported by the restored server");
    for line in &facts.connections_reported_by_restored_server {
        page.line(Mark::None, line);
    }
}

fn teardown(page: &mut Page, facts: &Facts) {
    if facts.teardown.is_empty() {
        return;
    }
    page.section("Teardown");
    for resource in &facts.teardown {
        let (mark, text) = match (resource.outcome, &resource.problem) {
            (ResourceOutcome::Released, _) => (Mark::Good, resource.observed.join(", ")),
            (ResourceOutcome::StillOwed, Some(problem)) => (Mark::Bad, format!("still there: {}", problem.message)),
            (ResourceOutcome::StillOwed, None) => (Mark::Unsure, "not released yet".to_owned()),
        };
        page.line(mark, &format!("{:<8} {text}", resource.resource));
        resource.problem.iter().for_each(|problem| page.problem(problem));
    }
}

fn evidence(page: &mut Page, report: &Report) {
    page.section("Evidence");
    match &report.state.evidence {
        Some((path, digest, sequence)) => {
            page.line(Mark::Good, path);
            page.more(&format!("number {sequence} of the chain, sha256 {}", digest.hex()));
        }
        None => page.line(Mark::Unsure, "not written"),
    }
}

fn next(page: &mut Page, report: &Report, facts: &Facts) {
    let state = &report.state;
    let mut steps = Vec::new();
    if report.ended.is_none() {
        let pid = state.started.owner.pid;
        steps.push(format!("process {pid} ran it; where that is gone, `muster reap` cleans up and concludes the run"));
    } else if state.leftovers() == Leftovers::Some {
        steps.push("`muster reap` removes what is left over, and says what stands in its way".to_owned());
    }
    steps.extend(state.summary.as_ref().and_then(|summary| summary.advice.clone()));
    if facts.quarantined.is_some() {
        let run = &state.started.run;
        steps.push(format!("later runs refuse this backup until you type `muster quarantine release {run}`"));
    }
    if steps.is_empty() {
        return;
    }
    page.section("What to do next");
    for step in steps {
        page.line(Mark::None, &step);
    }
}
