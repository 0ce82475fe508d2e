//! The report for people: the result first, what to do next last.
use std::fmt::Write as _;

use drill::evidence::{Facts, Problem};
use drill::finding::Severity;
use drill::spec::Fidelity;
use drill::unit;
use drill::verdict::Leftovers;

use super::{Report, words};
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
    next(&mut page, report);
    page.text
}

struct Page {
    style: Style,
    text: String,
}

impl Page {
    fn section(&mut self, title: &str) {
        let _ = writeln!(self.text, "\n{}", self.style.hang("", &self.style.heading(title)));
    }

    /// `text` may hold what is hostile.
    fn line(&mut self, mark: Mark, text: &str) {
        let lead = format!("  {} ", self.style.sign(mark));
        self.hang(&lead, text);
    }

    /// A line with a column of its own before the text.
    fn row(&mut self, mark: Mark, lead: &str, text: &str) {
        let lead = format!("  {} {lead}", self.style.sign(mark));
        self.hang(&lead, text);
    }

    fn more(&mut self, text: &str) {
        self.hang("      ", text);
    }

    fn field(&mut self, name: &str, value: &str) {
        self.hang(&format!("  {name:<15} "), value);
    }

    fn hang(&mut self, lead: &str, text: &str) {
        let _ = writeln!(self.text, "{}", self.style.hang(lead, &clean(text)));
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
    let words = format!("drill {}, fidelity {}", started.drill, started.fidelity.as_str());
    let _ = writeln!(page.text, "{}\n", page.style.hang("", &format!("{run}   {words}")));
    match &state.summary {
        Some(summary) => {
            let mark = Mark::from(summary.verdict);
            let verdict = page.style.paint(mark, &summary.verdict.as_str().to_uppercase());
            let lead = format!("  {} {verdict}: ", page.style.sign(mark));
            page.hang(&lead, &summary.message);
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
    if let Some(test) = &facts.self_test {
        page.line(Mark::Warning, &words::self_test(test));
    }
    if let Some(artifact) = &facts.artifact {
        let (size, digest) = (unit::size(artifact.size_bytes), artifact.digest.short());
        let source = artifact.source.as_ref().map(|source| format!(" ({source})")).unwrap_or_default();
        page.field("backup", &format!("{}, {size}, from {}{source}", artifact.name, artifact.location));
        match words::vouched(artifact) {
            (Mark::None, signed) => page.field("", &format!("manifest sha256 {digest}, {signed}")),
            (mark, unsigned) => page.line(mark, &format!("{unsigned}; sha256 {digest}")),
        }
        page.field("", &words::taken(artifact));
    }
    recovery(page, facts);
}

fn recovery(page: &mut Page, facts: &Facts) {
    for objective in words::objectives(&facts.recovery) {
        page.field(objective.name, &objective.text);
    }
    if let Some(overhead) = facts.recovery.boundary_overhead_milliseconds {
        page.field("boundaries cost", &words::milliseconds(overhead));
    }
    if facts.recovery.fidelity == Fidelity::Fast {
        page.line(Mark::Warning, "fidelity fast: these times say nothing of production");
    }
}

fn phases(page: &mut Page, facts: &Facts) {
    page.section("Phases");
    for phase in &facts.phases {
        let (mark, note) = words::phase(phase);
        page.row(mark, &format!("{:<10} {:>9}   ", phase.phase.as_str(), words::took(phase)), note);
        phase.problem.iter().for_each(|problem| page.problem(problem));
    }
}

fn checks(page: &mut Page, facts: &Facts) {
    if facts.checks.is_empty() && facts.plugins.is_empty() {
        return;
    }
    page.section("Checks");
    for check in &facts.checks {
        let (mark, text) = words::check(check, facts);
        page.line(mark, &text);
        if let Some(limit) = words::check_limit(check) {
            page.more(&limit);
        }
        page.more(&words::usage(&check.usage));
    }
    for plugin in &facts.plugins {
        let (grants, digest) = (words::grants(plugin), plugin.digest.short());
        page.line(Mark::None, &format!("{} is {}, sha256 {digest}, granted {grants}", plugin.check, plugin.from));
    }
}

/// Worst first, otherwise in the order in which they were seen.
fn findings(page: &mut Page, facts: &Facts) {
    if facts.findings.is_empty() {
        return;
    }
    page.section("Findings");
    for severity in [Severity::Failure, Severity::Warning, Severity::Info] {
        for finding in facts.findings.iter().filter(|finding| finding.severity == severity) {
            let database = finding.database.as_ref().map(|name| format!(" on {name}")).unwrap_or_default();
            let text = format!("{}{database}: {}: {}", finding.source, finding.subject, finding.message);
            page.line(words::severity(severity), &text);
            if !finding.details.is_empty() {
                page.more(&words::details(finding));
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
        let (mark, text) = words::limit(limit);
        page.line(mark, &text);
    }
    if isolation.probes.is_empty() {
        page.line(Mark::Unsure, "not probed: no backup byte was loaded");
    }
    for probe in &isolation.probes {
        let (mark, observed) = words::probe(probe);
        page.row(mark, &format!("{observed:<6}  "), &format!("{} ({})", probe.name, probe.detail));
    }
}

fn lease(page: &mut Page, facts: &Facts) {
    let Some(lease) = &facts.lease else { return };
    page.section("Lease");
    page.line(Mark::None, &format!("{}, for {} at a time", lease.role, words::milliseconds(lease.ttl_milliseconds)));
    for attempt in &lease.attempts {
        let (mark, text) = words::attempt(attempt);
        page.line(mark, &text);
    }
    for untried in &lease.untried {
        let (mark, text) = words::untried(untried);
        page.line(mark, &text);
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
        let (mark, text) = words::teardown(resource);
        page.row(mark, &format!("{:<8} ", resource.resource), &text);
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

fn next(page: &mut Page, report: &Report) {
    let steps = report.next_steps();
    if steps.is_empty() {
        return;
    }
    page.section("What to do next");
    for step in steps {
        page.line(Mark::None, &step);
    }
}
