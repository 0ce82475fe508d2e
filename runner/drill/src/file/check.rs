//! From a tree to a [`Drill`]: fills in defaults and refuses what each key allows and all of them together do not.
//!
//! Form has been checked before, and has said what it had to say; what cannot be read here is taken as left out.
use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use super::problem::{Problem, Problems};
use super::tree::Node;
use super::value::{Get, duration, number, size};
use super::{DEFAULT_CHECKS, Options, kubernetes, rule, self_test};
use crate::id::{DrillName, Sha256Digest};
use crate::spec::{
    Blackout, Check, CheckLimits, Credentials, Deadlines, Drill, DumpSignature, DumpSource, Enforcement, Exercise,
    Fallback, Fidelity, Grant, Isolation, Limits, Missed, Need, Objectives, Plugin, Postgresql, Schedule, Source,
    TrustedKey,
};
use crate::unit;

const DEFAULT_JOBS: u32 = 2;
const DEFAULT_PROCESSES: u32 = 200;
const DEFAULT_TTL: Duration = Duration::from_mins(15);

/// None where form was so wrong that there is no name; `problems` says why.
pub(super) fn check(root: &Node, digest: Sha256Digest, options: Options, problems: &mut Problems) -> Option<Drill> {
    let metadata = root.get("metadata");
    let name: Option<DrillName> = metadata.get("name").and_then(Node::text).and_then(|name| name.parse().ok());
    let spec = root.get("spec");
    let deadlines = deadlines(spec.get("deadlines"));
    let schedule = spec.get("schedule").map(|schedule| self::schedule(schedule, problems));
    let engine = postgresql(spec.get("engine").get("postgresql"), problems);
    let source = source(spec.get("source"), problems);
    let checks = checks(spec.get("checks"), spec.get("deadlines"), deadlines, problems);
    let mut drill = Drill {
        // Last, because without a name there is still much to be said.
        name: name?,
        labels: texts(metadata.get("labels")),
        digest,
        schedule,
        objectives: objectives(spec.get("objectives")),
        source: source?,
        engine,
        isolation: isolation(spec.get("isolation"), options, problems),
        credentials: credentials(spec, problems)?,
        checks,
        deadlines,
        self_test: None,
    };
    of_a_volume(spec, &drill, problems);
    drill.self_test = spec.get("selfTest").and_then(|node| self_test::read(node, &drill, problems));
    Some(drill)
}

/// One place has the dumps, and one manifest says what they are.
fn of_a_volume(spec: Option<&Node>, drill: &Drill, problems: &mut Problems) {
    if drill.isolation.volume().is_none() {
        return;
    }
    let source = spec.get("source");
    if let Some(dump) = source.get("dump") {
        let problem = Problem::at(dump.place, "a backup on a volume needs a manifest, and the source is a `dump`");
        problems.push(
            problem.hint("`muster adopt` the dump and name its manifest, or remove isolation.kubernetes.artifact"),
        );
    }
    if let Some(fallbacks) = source.get("fallbacks") {
        let problem = Problem::at(fallbacks.place, "a backup on a volume has no `fallbacks`: there is one volume");
        problems.push(problem.hint("make another drill of each, or remove isolation.kubernetes.artifact"));
    }
}

pub(super) fn schedule(node: &Node, problems: &mut Problems) -> Schedule {
    let text = |name| node.get(name).and_then(Node::text).map(str::to_owned);
    let missed = match node.get("missed").and_then(Node::text) {
        Some("run-once") => Missed::RunOnce,
        _ => Missed::Skip,
    };
    let start_deadline = duration(Some(node), "startDeadline");
    if let (Missed::Skip, Some(start_deadline)) = (missed, node.get("startDeadline")) {
        problems.push(
            Problem::at(
                start_deadline.place,
                "`startDeadline` says how late a missed run may start, and missed runs are skipped",
            )
            .hint("add `missed: run-once`, or remove it"),
        );
    }
    let blackout = node.get("blackout").map(Node::items).unwrap_or_default().iter().filter_map(|entry| {
        let cron = entry.get("cron")?.text()?.to_owned();
        Some(Blackout { cron, duration: duration(Some(entry), "duration")? })
    });
    Schedule {
        cron: text("cron").unwrap_or_default(),
        timezone: text("timezone").unwrap_or_else(|| "UTC".to_owned()),
        jitter: duration(Some(node), "jitter").unwrap_or_default(),
        start_deadline,
        missed,
        blackout: blackout.collect(),
    }
}

fn objectives(node: Option<&Node>) -> Objectives {
    Objectives { recovery_time: duration(node, "recoveryTime"), recovery_point: duration(node, "recoveryPoint") }
}

/// What `muster run --dump` runs: everything at its default. Without a name that a drill may have, there is none.
pub(super) fn bare(name: DrillName, digest: Sha256Digest, dump: DumpSource, options: Options) -> Drill {
    let nothing = &mut Problems::default();
    Drill {
        name,
        labels: BTreeMap::new(),
        digest,
        schedule: None,
        objectives: objectives(None),
        source: Source::Dump(dump),
        engine: postgresql(None, nothing),
        isolation: local(None, options),
        credentials: embedded(None),
        checks: default_checks(self::deadlines(None)),
        deadlines: deadlines(None),
        self_test: None,
    }
}

fn source(node: Option<&Node>, problems: &mut Problems) -> Option<Source> {
    let node = node?;
    let text = |name| node.get(name).and_then(Node::text).map(str::to_owned);
    let trusted_keys = trusted_keys(node);
    match (node.get("manifest"), node.get("dump")) {
        (Some(_), Some(dump)) => {
            let problem = Problem::at(dump.place, "`source` takes one of `manifest` and `dump`, not both");
            problems.push(problem.hint("keep `manifest` for a backup of muster's own, `dump` for one of another tool"));
            None
        }
        (None, None) => {
            let problem = Problem::at(node.place, "`source` names no backup");
            problems.push(problem.hint("write `manifest`, or `dump` with `sha256`"));
            None
        }
        (Some(_), None) => {
            for name in ["sha256", "signature", "timezone"] {
                if let Some(given) = node.get(name) {
                    let problem =
                        Problem::at(given.place, format!("`{name}` is for a `dump`: a manifest says it itself"));
                    problems.push(problem.hint("remove it"));
                }
            }
            if node.get("trustedKeys").is_none() {
                let problem = Problem::at(node.place, "`trustedKeys` is missing from `source`");
                problems.push(problem.hint("add trustedKeys: [{ file: keys/backup.pub }]"));
            }
            let fallbacks = fallbacks(node, &trusted_keys);
            let exercise = exercise(node, &fallbacks, problems);
            Some(Source::Manifest { path: text("manifest")?, trusted_keys, fallbacks, exercise })
        }
        (None, Some(dump)) => {
            for name in ["fallbacks", "exercise"] {
                if let Some(given) = node.get(name) {
                    let problem = Problem::at(given.place, format!("`{name}` is for backups with a manifest"));
                    problems.push(problem.hint("remove it, or `muster adopt` the dump"));
                }
            }
            dump_source(node, dump, trusted_keys, problems).map(Source::Dump)
        }
    }
}

fn fallbacks(node: &Node, primary: &[TrustedKey]) -> Vec<Fallback> {
    let listed = node.get("fallbacks").map(Node::items).unwrap_or_default().iter();
    let fallback = |item: &Node| {
        let own = trusted_keys(item);
        let path = item.get("manifest")?.text()?.to_owned();
        Some(Fallback { path, trusted_keys: if own.is_empty() { primary.to_vec() } else { own } })
    };
    listed.filter_map(fallback).collect()
}

fn exercise(node: &Node, fallbacks: &[Fallback], problems: &mut Problems) -> Exercise {
    let Some(given) = node.get("exercise").filter(|given| given.text() == Some("all")) else { return Exercise::First };
    if fallbacks.is_empty() && node.get("fallbacks").is_none() {
        let problem = Problem::at(given.place, "`exercise: all` has one source only");
        problems.push(problem.hint("add `fallbacks`, or remove it"));
    }
    Exercise::All
}

fn dump_source(node: &Node, dump: &Node, trusted_keys: Vec<TrustedKey>, problems: &mut Problems) -> Option<DumpSource> {
    let text = |name| node.get(name).and_then(Node::text).map(str::to_owned);
    let path = dump.text()?.to_owned();
    match (node.get("sha256"), node.get("signature"), node.get("trustedKeys")) {
        (_, Some(signature), None) => {
            let problem =
                Problem::at(signature.place, "`signature` needs `trustedKeys`: without a key it proves nothing");
            problems.push(problem.hint("add trustedKeys: [{ file: keys/backup.pub }]"));
        }
        (None, None, None) => {
            let problem =
                Problem::at(dump.place, "nobody vouches for this dump: neither `sha256` nor `trustedKeys` is given");
            problems.push(problem.hint(
                "add sha256: sha256:… (`sha256sum` prints the digits), or sign it and add trustedKeys; for a first try without either: \
                 muster run --dump FILE",
            ));
        }
        _ => {}
    }
    let signed = node.get("trustedKeys").is_some();
    let signature = signed.then(|| DumpSignature {
        path: text("signature").unwrap_or_else(|| format!("{}.minisig", path.trim_end_matches('/'))),
        trusted_keys,
    });
    let sha256 = text("sha256").and_then(|text| text.parse().ok());
    Some(DumpSource { path, sha256, signature, timezone: text("timezone") })
}

fn trusted_keys(node: &Node) -> Vec<TrustedKey> {
    let keys = node.get("trustedKeys").map(Node::items).unwrap_or_default().iter().filter_map(|key| {
        let text = |name| key.get(name).and_then(Node::text).map(str::to_owned);
        text("file").map(TrustedKey::File).or_else(|| text("inline").map(TrustedKey::Inline))
    });
    keys.collect()
}

fn postgresql(node: Option<&Node>, problems: &mut Problems) -> Postgresql {
    let fidelity = match node.get("fidelity").and_then(Node::text) {
        Some("fast") => Fidelity::Fast,
        _ => Fidelity::Production,
    };
    if fidelity == Fidelity::Production {
        for (key, value) in node.get("settings").map(Node::entries).unwrap_or_default() {
            let durability = ["fsync", "full_page_writes", "synchronous_commit"].contains(&key.name.as_str());
            if durability && value.written().is_some_and(is_off) {
                problems.push(
                    Problem::at(key.place, format!("`{}` off contradicts `fidelity: production`", key.name))
                        .hint("remove it, or write `fidelity: fast`, which every result will say"),
                );
            }
        }
    }
    let whole = |name| node.get(name).and_then(Node::whole).and_then(|number| u32::try_from(number).ok());
    Postgresql {
        major: whole("major"),
        jobs: whole("jobs").unwrap_or(DEFAULT_JOBS),
        fidelity,
        settings: texts(node.get("settings")),
    }
}

/// As the server reads it (`parse_bool`): any beginning of the words that is not ambiguous.
fn is_off(text: &str) -> bool {
    let text = text.trim().to_ascii_lowercase();
    text == "0"
        || (text.len() >= 2 && "off".starts_with(&text))
        || (!text.is_empty() && ("false".starts_with(&text) || "no".starts_with(&text)))
}

fn isolation(node: Option<&Node>, options: Options, problems: &mut Problems) -> Isolation {
    match node.get("kubernetes").and_then(|node| kubernetes::read(node, problems)) {
        Some(kubernetes) => Isolation::Kubernetes(Box::new(kubernetes)),
        None => local(node.get("local"), options),
    }
}

fn local(node: Option<&Node>, options: Options) -> Isolation {
    let limits = node.get("limits");
    Isolation::Local(Limits {
        memory: size(limits, "memory"),
        disk: size(limits, "disk"),
        processes: number(limits, "processes").unwrap_or(DEFAULT_PROCESSES),
        enforcement: match limits.get("enforcement").and_then(Node::text) {
            Some("required") => Enforcement::Required,
            Some("best-effort") => Enforcement::BestEffort,
            _ => options.enforcement,
        },
    })
}

fn credentials(spec: Option<&Node>, problems: &mut Problems) -> Option<Credentials> {
    let node = spec.get("credentials");
    let cluster = spec.get("isolation").get("kubernetes");
    let doorway = cluster.get("doorway");
    let Some(vault) = node.get("vault") else {
        if let Some(doorway) = doorway {
            let problem = Problem::at(doorway.place, "`doorway` is for a Vault, and this drill has none");
            problems.push(problem.hint("remove it, or add credentials: { vault: … }"));
        }
        return Some(embedded(node.get("embedded")));
    };
    if let (Some(_), None) = (cluster, doorway) {
        let problem = Problem::at(vault.place, "nobody says from where this Vault reaches the sandbox in the cluster");
        problems.push(problem.hint(
            "add isolation.kubernetes.doorway: { addresses: [192.0.2.10] }, or { pods: { namespace: …, labels: … } } for one in the cluster",
        ));
    }
    super::vault::read(vault, problems).map(Box::new).map(Credentials::Vault)
}

fn embedded(node: Option<&Node>) -> Credentials {
    Credentials::Embedded { ttl: duration(node, "ttl").unwrap_or(DEFAULT_TTL) }
}

fn checks(
    node: Option<&Node>,
    deadlines_node: Option<&Node>,
    deadlines: Deadlines,
    problems: &mut Problems,
) -> Arc<[Check]> {
    let Some(node) = node else { return default_checks(deadlines) };
    let mut lines = BTreeMap::new();
    let mut checks = Vec::new();
    for item in node.items() {
        let name_node = item.get("name");
        let name = name_node.and_then(Node::text).unwrap_or_default();
        if let Some(place) = name_node.map(|name| name.place)
            && let Some(line) = lines.insert(name, place.line)
        {
            let problem = Problem::at(place, format!("another check is called `{name}`"));
            problems.push(problem.hint(format!("the other is on line {line}; name them apart")));
        }
        if let Some(wall_time) = item.get("limits").get("wallTime")
            && duration(item.get("limits"), "wallTime").is_some_and(|wall_time| wall_time > deadlines.validate)
        {
            let whose = if deadlines_node.get("validate").is_some() { "" } else { " by default" };
            let message = format!(
                "`wallTime` is longer than all checks together may take: {}{whose}",
                unit::duration(deadlines.validate)
            );
            problems
                .push(Problem::at(wall_time.place, message).hint("shorten it, or raise `validate` under `deadlines`"));
        }
        if let Some(plugin) = item.get("plugin").and_then(Node::text).and_then(|text| rule::plugin(text).ok()) {
            checks.push(check_of(item, name, plugin, deadlines, problems));
        }
    }
    checks.into()
}

fn check_of(node: &Node, name: &str, plugin: Plugin, deadlines: Deadlines, problems: &mut Problems) -> Check {
    let grants: BTreeSet<Grant> = Grant::ALL
        .into_iter()
        .filter(|grant| node.get("grants").is_some_and(|g| g.get(grant.as_str()).is_some()))
        .collect();
    if let (Plugin::Builtin(_), Some(given)) = (&plugin, node.get("grants")) {
        problems.push(
            Problem::at(given.place, "`grants` are for plugins of your own: a built-in one gets what it imports")
                .hint("remove them"),
        );
    }
    let options = node.get("options").map_or_else(|| serde_json::json!({}), Node::to_json);
    let limits = check_limits(node.get("limits"), default_limits(&plugin, deadlines));
    Check { name: name.to_owned(), plugin, grants, limits, options, needs: None }
}

/// muster's own checks look at all that was restored, however much that is: the deadline of all checks bounds them.
fn default_limits(plugin: &Plugin, deadlines: Deadlines) -> CheckLimits {
    let default = CheckLimits::default();
    match plugin {
        Plugin::Builtin(_) => CheckLimits { cpu_time: deadlines.validate, wall_time: deadlines.validate, ..default },
        Plugin::File { .. } => default,
    }
}

fn check_limits(node: Option<&Node>, default: CheckLimits) -> CheckLimits {
    CheckLimits {
        memory: size(node, "memory").unwrap_or(default.memory),
        cpu_time: duration(node, "cpuTime").unwrap_or(default.cpu_time),
        wall_time: duration(node, "wallTime").unwrap_or(default.wall_time),
        log_bytes: size(node, "logBytes").unwrap_or(default.log_bytes),
        findings: number(node, "findings").unwrap_or(default.findings),
        metrics: number(node, "metrics").unwrap_or(default.metrics),
        handles: number(node, "handles").unwrap_or(default.handles),
    }
}

/// Made once for all drills that name no deadlines either.
fn default_checks(deadlines: Deadlines) -> Arc<[Check]> {
    static USUAL: OnceLock<Arc<[Check]>> = OnceLock::new();
    if deadlines == Deadlines::default() {
        Arc::clone(USUAL.get_or_init(|| made_checks(deadlines)))
    } else {
        made_checks(deadlines)
    }
}

fn made_checks(deadlines: Deadlines) -> Arc<[Check]> {
    let check = |(name, plugin, needs): &(&str, &str, Option<Need>)| {
        let plugin = Plugin::Builtin((*plugin).to_owned());
        Check {
            name: (*name).to_owned(),
            limits: default_limits(&plugin, deadlines),
            plugin,
            grants: BTreeSet::new(),
            options: serde_json::json!({}),
            needs: *needs,
        }
    };
    DEFAULT_CHECKS.iter().map(check).collect()
}

fn deadlines(node: Option<&Node>) -> Deadlines {
    let default = Deadlines::default();
    Deadlines {
        preflight: duration(node, "preflight").unwrap_or(default.preflight),
        verify: duration(node, "verify").unwrap_or(default.verify),
        sandbox: duration(node, "sandbox").unwrap_or(default.sandbox),
        restore: duration(node, "restore").unwrap_or(default.restore),
        lease: duration(node, "lease").unwrap_or(default.lease),
        validate: duration(node, "validate").unwrap_or(default.validate),
        teardown: duration(node, "teardown").unwrap_or(default.teardown),
    }
}

fn texts(node: Option<&Node>) -> BTreeMap<String, String> {
    let entries = node.map(Node::entries).unwrap_or_default().iter();
    entries.filter_map(|(key, value)| Some((key.name.clone(), value.written()?.to_owned()))).collect()
}
