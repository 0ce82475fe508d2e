//! The report as one page that can be kept, mailed and printed: no script, no other file, nothing from a network.
//!
//! What came out of a backup, a plugin or a restored database may be hostile. The template escapes every value, and the page's
//! own policy forbids scripts, should that ever fail.
use std::fmt::Write as _;

use askama::Template;
use drill::evidence::{Facts, Finding, Phase, Plugin, Teardown};
use drill::finding::Severity;
use drill::spec::Fidelity;
use drill::stop::{OrStop, Stop};
use drill::unit;
use drill::verdict::{Leftovers, Reason};

use super::Report;
use super::words::{self, Objective};
use crate::cli::style::{Mark, clean, time};

pub(super) fn html(report: &Report) -> Result<String, Stop> {
    let facts = Facts::of(&report.state);
    rendered(&Page::of(report, &facts))
}

/// A direction override would turn the text around it, and a NUL is no character of HTML. No template has either.
pub(crate) fn rendered(page: &impl Template) -> Result<String, Stop> {
    let page = page.render().or_stop(Reason::Internal, "writing a page of HTML")?;
    Ok(page.lines().fold(String::with_capacity(page.len()), |mut cleaned, line| {
        let _ = writeln!(cleaned, "{}", clean(line));
        cleaned
    }))
}

#[derive(Template)]
#[template(path = "report.html")]
pub(crate) struct Page<'a> {
    pub(crate) run: &'a str,
    pub(crate) drill: &'a str,
    pub(crate) verdict: Item,
    pub(crate) warnings: Vec<Item>,
    pub(crate) next: Vec<String>,
    pub(crate) what: Vec<(&'static str, String)>,
    pub(crate) objectives: [Objective; 2],
    pub(crate) overhead: Option<String>,
    pub(crate) bars: Vec<Bar<'a>>,
    pub(crate) total: String,
    pub(crate) groups: Vec<Group<'a>>,
    pub(crate) checks: Vec<Item>,
    pub(crate) plugins: Vec<PluginRow<'a>>,
    pub(crate) template: Option<String>,
    pub(crate) limits: Vec<Item>,
    pub(crate) probes: Vec<Item>,
    pub(crate) lease: Option<(String, Vec<Item>)>,
    pub(crate) teardown: Vec<Item>,
    pub(crate) connections: &'a [String],
    pub(crate) evidence: Option<Evidence<'a>>,
    pub(crate) version: &'a str,
}

/// A mark, what it is about, and more of it.
pub(crate) struct Item {
    pub(crate) mark: Mark,
    pub(crate) text: String,
    pub(crate) more: Vec<String>,
}

/// One phase on the scale of the whole run; places are in percent.
pub(crate) struct Bar<'a> {
    pub(crate) mark: Mark,
    pub(crate) name: &'static str,
    pub(crate) took: String,
    pub(crate) left: String,
    pub(crate) width: String,
    pub(crate) note: &'a str,
    pub(crate) advice: Option<&'a str>,
}

/// The findings of one check on one database, or of one phase.
pub(crate) struct Group<'a> {
    pub(crate) title: String,
    pub(crate) findings: Vec<&'a Finding>,
}

pub(crate) struct PluginRow<'a> {
    pub(crate) check: &'a str,
    pub(crate) from: &'a str,
    pub(crate) digest: String,
    pub(crate) grants: String,
}

pub(crate) struct Evidence<'a> {
    pub(crate) path: &'a str,
    pub(crate) digest: String,
    pub(crate) sequence: u64,
}

impl<'a> Page<'a> {
    pub(crate) fn of(report: &'a Report, facts: &'a Facts) -> Self {
        let state = &report.state;
        let (bars, total) = timeline(report, facts);
        let probes = facts.isolation.probes.iter().map(|probe| {
            let (mark, observed) = words::probe(probe);
            Item::new(mark, format!("{observed}: {}", probe.name)).with([probe.detail.clone()])
        });
        let lease = facts.lease.as_ref().map(|lease| {
            let title = format!("{}, for {} at a time", lease.role, words::milliseconds(lease.ttl_milliseconds));
            let tried = lease.attempts.iter().map(words::attempt);
            (title, tried.chain(lease.untried.iter().map(words::untried)).map(Item::from).collect())
        });
        let evidence = state.evidence.as_ref();
        Self {
            run: state.started.run.as_str(),
            drill: facts.drill.name.as_str(),
            verdict: verdict(report),
            warnings: warnings(report, facts),
            next: report.next_steps(),
            what: what(report, facts),
            objectives: words::objectives(&facts.recovery),
            overhead: facts.recovery.boundary_overhead_milliseconds.map(words::milliseconds),
            bars,
            total,
            groups: groups(&facts.findings),
            checks: checks(facts),
            plugins: plugins(facts),
            template: facts.isolation.template.as_ref().map(|t| format!("{}, template {}", t.isolation, t.digest)),
            limits: facts.isolation.limits.iter().map(words::limit).map(Item::from).collect(),
            probes: probes.collect(),
            lease,
            teardown: teardown(facts),
            connections: &facts.connections_reported_by_restored_server,
            evidence: evidence.map(|(path, digest, sequence)| Evidence {
                path,
                digest: digest.hex(),
                sequence: *sequence,
            }),
            version: &state.started.muster_version,
        }
    }
}

/// For the template's rules of style.
impl Mark {
    pub(crate) fn class(self) -> &'static str {
        match self {
            Self::Good => "good",
            Self::Bad => "bad",
            Self::Unsure => "unsure",
            Self::Warning => "warning",
            Self::None => "plain",
        }
    }
}

impl Item {
    fn new(mark: Mark, text: impl Into<String>) -> Self {
        Self { mark, text: text.into(), more: Vec::new() }
    }

    fn with(mut self, more: impl IntoIterator<Item = String>) -> Self {
        self.more.extend(more);
        self
    }
}

impl From<(Mark, String)> for Item {
    fn from((mark, text): (Mark, String)) -> Self {
        Self::new(mark, text)
    }
}

impl Group<'_> {
    pub(crate) fn mark(finding: &Finding) -> Mark {
        words::severity(finding.severity)
    }

    pub(crate) fn severity(finding: &Finding) -> &'static str {
        match finding.severity {
            Severity::Failure => "failure",
            Severity::Warning => "warning",
            Severity::Info => "note",
        }
    }
}

fn verdict(report: &Report) -> Item {
    match &report.state.summary {
        Some(summary) => Item::new(Mark::from(summary.verdict), summary.verdict.as_str().to_uppercase())
            .with([summary.message.clone()]),
        None => Item::new(Mark::Unsure, "NO RESULT").with(["the run has not come to its end".to_owned()]),
    }
}

fn warnings(report: &Report, facts: &Facts) -> Vec<Item> {
    let mut warnings = Vec::new();
    if report.ended.is_some() && report.state.leftovers() == Leftovers::Some {
        warnings.push(Item::new(Mark::Warning, "something is left over, see teardown"));
    }
    warnings.extend(facts.self_test.as_ref().map(|test| Item::new(Mark::Warning, words::self_test(test))));
    if let Some((Mark::Warning, unsigned)) = facts.artifact.as_ref().map(words::vouched) {
        warnings.push(Item::new(Mark::Warning, unsigned));
    }
    if facts.recovery.fidelity == Fidelity::Fast {
        warnings.push(Item::new(Mark::Warning, "fidelity fast: these times say nothing of production"));
    }
    warnings
}

fn what(report: &Report, facts: &Facts) -> Vec<(&'static str, String)> {
    let started = &report.state.started;
    let ended = report.ended.map_or_else(|| "not ended".to_owned(), time);
    let mut what = Vec::new();
    if let Some(artifact) = &facts.artifact {
        what.push(("Backup", format!("{}, {}", artifact.name, unit::size(artifact.size_bytes))));
        let source = artifact.source.as_ref().map(|source| format!(" ({source})")).unwrap_or_default();
        what.push(("From", format!("{}{source}", artifact.location)));
        what.push(("Digest", artifact.digest.to_string()));
        what.push(("Vouched for", words::vouched(artifact).1));
        what.push(("Snapshot", words::taken(artifact)));
        what.push(("Databases", artifact.databases.join(", ")));
    }
    what.push(("Started", time(started.at)));
    what.push(("Ended", ended));
    what.push(("Drill file", started.drill_file.clone()));
    what.push(("Its digest", started.drill_digest.to_string()));
    what.push(("Fidelity", started.fidelity.as_str().to_owned()));
    if !started.labels.is_empty() {
        let labels: Vec<_> = started.labels.iter().map(|(name, value)| format!("{name}={value}")).collect();
        what.push(("Labels", labels.join(", ")));
    }
    what
}

fn timeline<'a>(report: &Report, facts: &'a Facts) -> (Vec<Bar<'a>>, String) {
    let start = |phase: &Phase| {
        let after = phase.started.duration_since(report.state.started.at).as_millis();
        u64::try_from(after).unwrap_or(0)
    };
    let length = |phase: &Phase| phase.milliseconds.unwrap_or(0);
    let total = facts.phases.iter().map(|phase| start(phase).saturating_add(length(phase))).max().unwrap_or(0);
    let bar = |phase: &'a Phase| {
        let (mark, note) = words::phase(phase);
        Bar {
            mark,
            name: phase.phase.as_str(),
            took: words::took(phase),
            left: percent(start(phase), total),
            width: percent(length(phase), total),
            note,
            advice: phase.problem.as_ref().and_then(|problem| problem.advice.as_deref()),
        }
    };
    (facts.phases.iter().map(bar).collect(), words::milliseconds(total))
}

/// To a hundredth, such as `12.34`.
fn percent(part: u64, total: u64) -> String {
    let hundredths = u128::from(part) * 10_000 / u128::from(total.max(1));
    format!("{}.{:02}", hundredths / 100, hundredths % 100)
}

/// Worst first in each group, and the group with the worst finding first; otherwise in the order in which they were seen.
fn groups(findings: &[Finding]) -> Vec<Group<'_>> {
    let mut groups: Vec<Group<'_>> = Vec::new();
    for finding in findings {
        let title = match &finding.database {
            Some(database) => format!("{} on {database}", finding.source),
            None => finding.source.clone(),
        };
        match groups.iter_mut().find(|group| group.title == title) {
            Some(group) => group.findings.push(finding),
            None => groups.push(Group { title, findings: vec![finding] }),
        }
    }
    for group in &mut groups {
        group.findings.sort_by_key(|finding| std::cmp::Reverse(finding.severity));
    }
    groups.sort_by_key(|group| group.findings.first().map(|finding| std::cmp::Reverse(finding.severity)));
    groups
}

fn checks(facts: &Facts) -> Vec<Item> {
    let item = |check| {
        let limit = words::check_limit(check);
        Item::from(words::check(check, facts)).with(limit.into_iter().chain([words::usage(&check.usage)]))
    };
    facts.checks.iter().map(item).collect()
}

fn plugins<'a>(facts: &'a Facts) -> Vec<PluginRow<'a>> {
    let row = |plugin: &'a Plugin| PluginRow {
        check: &plugin.check,
        from: &plugin.from,
        digest: plugin.digest.to_string(),
        grants: words::grants(plugin),
    };
    facts.plugins.iter().map(row).collect()
}

fn teardown(facts: &Facts) -> Vec<Item> {
    let item = |resource: &Teardown| {
        let (mark, text) = words::teardown(resource);
        let advice = resource.problem.as_ref().and_then(|problem| problem.advice.as_ref());
        Item::new(mark, format!("{}: {text}", resource.resource))
            .with(advice.map(|advice| format!("what to do: {advice}")))
    };
    facts.teardown.iter().map(item).collect()
}
