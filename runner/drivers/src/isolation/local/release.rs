//! Removes what a run holds, from its name alone where need be, and looks until it is gone.
use std::collections::BTreeMap;
use std::path::Path;
use std::time::{Duration, Instant};

use drill::id::RunId;
use drill::ledger::Resource;
use drill::port::Leftover;
use drill::proof::ReleaseProof;
use drill::stop::{OrStop, Stop};
use drill::verdict::Reason;

use super::process::{self, Process};
use super::sandbox::Handle;
use super::{Shared, spawn, tree};

const END: Duration = Duration::from_secs(30);
const CGROUP: Duration = Duration::from_secs(10);

/// `sandbox` and `agent`, as they stand in names.
const KINDS: [(&str, Resource); 2] = [("sandbox", Resource::Sandbox), ("agent", Resource::Agent)];

/// Blocks.
pub(super) fn processes(
    shared: &Shared,
    run: &RunId,
    kind: &str,
    handle: Option<&serde_json::Value>,
) -> Result<ReleaseProof, Stop> {
    let tried = || format!("ending the {kind} of {run}");
    let handle = handle.and_then(|value| serde_json::from_value::<Handle>(value.clone()).ok());
    let mut observed = Vec::new();
    let deadline = Instant::now() + END;
    // Twice: what was about to start while we looked is found by the second look.
    loop {
        let name = shared.root.process_name(kind, run);
        let owner = |uid| shared.root.may_own(uid);
        let mut found = process::named(&|found| found == name, &owner).or_stop(Reason::Internal, tried())?;
        let by_handle = handle.iter().flat_map(|handle| [&handle.first, &handle.outer]).filter_map(Process::find);
        found.extend(by_handle.map(|process| (name.clone(), process)));
        if found.is_empty() {
            break;
        }
        for (_, process) in &found {
            process.kill();
        }
        for (_, process) in &found {
            spawn::seen_ended(process, deadline.saturating_duration_since(Instant::now()))?;
            let seen = format!("process {} ended", process.identity.pid);
            if !observed.contains(&seen) {
                observed.push(seen);
            }
        }
    }
    let group_name = shared.group_name(kind, run);
    let mut groups = vec![shared.cgroups.find(&group_name)];
    if let Some(mut handle) = handle {
        handle.cgroup.directories.retain(|path| path.to_string_lossy().ends_with(&group_name) && path.exists());
        groups.push(handle.cgroup);
    }
    for group in groups.iter().filter(|group| !group.directories.is_empty()) {
        group.remove(CGROUP).or_stop(Reason::Internal, format!("removing the cgroup of {run}"))?;
        observed.push("cgroup removed".to_owned());
    }
    observed.dedup();
    if observed.is_empty() {
        observed.push(format!("no {kind} was found"));
    }
    Ok(ReleaseProof { observed })
}

/// Blocks. `go_on` may end it between two files.
pub(super) fn storage(shared: &Shared, run: &RunId, go_on: &dyn Fn() -> bool) -> Result<ReleaseProof, Stop> {
    let tried = || format!("removing {}", shared.root.run(run).path.display());
    let remove = |path: &Path| tree::remove_path(path, go_on).or_stop(Reason::Internal, tried());
    remove(&shared.root.cache().join(format!(".tmp-{run}")))?;
    match remove(&shared.root.runs().join(run.to_string()))? {
        0 => Ok(ReleaseProof::of("no directory was found")),
        entries => Ok(ReleaseProof::of(format!("directory removed, {entries} entries"))),
    }
}

/// Everything that carries the names of this state directory.
pub(super) fn leftovers(shared: &Shared) -> Result<Vec<Leftover>, Stop> {
    let tried = "looking for what runs left behind";
    let mut found: BTreeMap<(RunId, Resource), String> = BTreeMap::new();
    for entry in std::fs::read_dir(shared.root.runs()).or_stop(Reason::Internal, tried)? {
        let entry = entry.or_stop(Reason::Internal, tried)?;
        if let Some(run) = entry.file_name().to_str().and_then(|name| name.parse::<RunId>().ok()) {
            found.insert((run, Resource::Storage), format!("directory {}", entry.path().display()));
        }
    }
    let suffix = format!(":{}", shared.root.tag());
    let ours = |name: &str| name.starts_with("muster-") && name.ends_with(&suffix);
    let owner = |uid| shared.root.may_own(uid);
    for (name, process) in process::named(&ours, &owner).or_stop(Reason::Internal, tried)? {
        let what = || format!("process {}", process.identity.pid);
        for (kind, resource) in KINDS {
            let run = name.strip_prefix(&format!("muster-{kind}:")).and_then(|rest| rest.strip_suffix(&suffix));
            if let Some(run) = run.and_then(|run| run.parse().ok()) {
                found.entry((run, resource)).or_insert_with(what);
            }
        }
    }
    for (kind, resource) in KINDS {
        let suffix = format!(".{}.{kind}", shared.root.tag());
        for name in shared.cgroups.names(&suffix) {
            if let Some(run) = name.strip_suffix(&suffix).and_then(|run| run.parse().ok()) {
                found.entry((run, resource)).or_insert_with(|| format!("cgroup {name}"));
            }
        }
    }
    Ok(found.into_iter().map(|((run, resource), what)| Leftover { run, resource, what }).collect())
}
