//! What a drill damages on a schedule: only what it has something to notice with.
use std::collections::BTreeMap;

use super::check::schedule;
use super::problem::{Problem, Problems};
use super::tree::Node;
use crate::ledger::Damage;
use crate::spec::{Drill, SelfTest, Source, noticed_by};

/// `drill` is all but complete. None where there is nothing to damage; `problems` says why.
pub(super) fn read(node: &Node, drill: &Drill, problems: &mut Problems) -> Option<SelfTest> {
    if matches!(drill.source, Source::Dump(_)) {
        let problem = Problem::at(node.place, "`selfTest` needs a backup with a manifest, and the source is a `dump`");
        problems.push(problem.hint("remove it, or `muster adopt` the dump and name its manifest"));
        return None;
    }
    if drill.isolation.volume().is_some() {
        let problem = Problem::at(
            node.place,
            "`selfTest` damages a copy of the backup, and this one lies on a volume in the cluster",
        );
        problems.push(problem.hint("remove it, and self-test a drill of the same backup that has no `artifact`"));
        return None;
    }
    let shared = schedule(node.get("schedule")?, problems);
    let Some(named) = node.get("damages") else {
        let damages = Damage::ALL.into_iter().filter(|damage| drill.can_notice(*damage));
        return Some(SelfTest { damages: damages.map(|damage| (damage, shared.clone())).collect() });
    };
    if named.entries().is_empty() {
        let problem = Problem::at(named.place, "`damages` is empty: nothing would be tried");
        problems.push(problem.hint("leave `damages` out for all of them"));
    }
    let mut damages = BTreeMap::new();
    for damage in Damage::ALL {
        let Some(entry) = named.get(damage.as_str()) else { continue };
        if let Some(check) = noticed_by(damage).filter(|_| !drill.can_notice(damage)) {
            let message = format!("nothing in this drill could notice `{damage}`: it has no check `builtin:{check}`");
            let problem = Problem::at(entry.place, message);
            problems.push(problem.hint(format!("add the check, or remove `{damage}`")));
        }
        let own = entry.get("schedule").map(|own| schedule(own, problems));
        damages.insert(damage, own.unwrap_or_else(|| shared.clone()));
    }
    Some(SelfTest { damages })
}
