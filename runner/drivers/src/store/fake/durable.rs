//! What a store in memory keeps, and what follows from it.
use std::collections::{BTreeMap, BTreeSet, HashMap};

use drill::evidence::Stretch;
use drill::id::{DrillName, RunId};
use drill::ledger::{Damage, Owner, Stamped};
use drill::port::{ChainLink, Chained, Quarantine, RunSummary, ScheduleHistory, SeenSchedule};
use drill::verdict::{Leftovers, Verdict};
use jiff::Timestamp;

use super::outbox::MemoryOutbox;
use crate::store::fold::{self, Folded};

/// What survives a crash.
#[derive(Default)]
pub(super) struct Durable {
    pub(super) id: String,
    pub(super) runs: BTreeMap<RunId, Run>,
    pub(super) quarantine: Vec<Quarantine>,
    pub(super) chain: Vec<ChainLink>,
    pub(super) outbox: MemoryOutbox,
    /// Links of `chain` whose runs are forgotten.
    pub(super) pruned: BTreeSet<u64>,
    pub(super) deleted_evidence: Vec<Stretch>,
    /// By drill, schedule and time: the run, or why it was skipped.
    pub(super) slots: BTreeMap<(DrillName, String, Timestamp), String>,
    /// What was seen last of each schedule, and when it was first seen.
    pub(super) seen: BTreeMap<(DrillName, Option<Damage>), (SeenSchedule, Timestamp)>,
}

impl Durable {
    /// Oldest first, at most one more than a portion.
    pub(super) fn prunable(&self, before: Option<Timestamp>, keep: Option<u32>) -> Vec<RunSummary> {
        let mut runs: Vec<_> = self.runs.values().map(|run| run.folded.summary()).collect();
        runs.sort_by(|a, b| (b.started, &b.run).cmp(&(a.started, &a.run)));
        let mut seen: HashMap<(DrillName, bool), u32> = HashMap::new();
        let mut passed = BTreeSet::new();
        runs.retain(|run| {
            let self_test = fold::is_self_test(&run.trigger);
            let place = seen.entry((run.drill.clone(), self_test)).or_default();
            *place += 1;
            let last_success = !self_test && run.verdict == Some(Verdict::Passed) && passed.insert(run.drill.clone());
            let settled = run.ended.is_some() && run.leftovers == Leftovers::None;
            let head = self.chain.last().is_some_and(|head| head.run == run.run);
            let old = before.is_some_and(|before| run.started < before);
            settled && !last_success && !head && (old || keep.is_some_and(|keep| *place > keep))
        });
        runs.reverse();
        runs.truncate(fold::PORTION as usize + 1);
        runs
    }

    pub(super) fn schedules(&self, drill: &DrillName) -> BTreeMap<Option<Damage>, ScheduleHistory> {
        let seen = self.seen.iter().filter(|((of, _), _)| of == drill);
        let mut schedules: BTreeMap<_, _> = seen
            .map(|((_, schedule), (seen, _))| {
                (*schedule, ScheduleHistory { last_slot: None, seen: Some((seen.words.clone(), seen.at)) })
            })
            .collect();
        schedules.entry(None).or_default();
        for (schedule, history) in &mut schedules {
            let slots = self.slots.keys().filter(|(of, name, _)| of == drill && name == fold::schedule(*schedule));
            history.last_slot = slots.map(|(.., at)| *at).max();
        }
        schedules
    }

    pub(super) fn chained(&self, link: &ChainLink) -> Chained {
        let before = link.sequence - 1;
        let kept = self.chain.iter().find(|link| link.sequence == before).map(|link| link.digest);
        let deleted = self.deleted_evidence.iter().find(|stretch| stretch.last == before);
        Chained { link: link.clone(), previous: kept.or_else(|| deleted.map(|stretch| stretch.digest)) }
    }
}

pub(super) struct Run {
    pub(super) owner: Owner,
    pub(super) folded: Folded,
    pub(super) events: Vec<Stamped>,
}
