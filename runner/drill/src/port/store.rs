use std::collections::BTreeMap;
use std::ops::RangeInclusive;
use std::path::Path;

use async_trait::async_trait;
use serde::{Deserialize, Serialize};

use crate::evidence::Stretch;
use crate::id::{DrillName, RunId, Sha256Digest};
use crate::ledger::{Damage, Event, Owner, RunStarted, Stamped, Trigger};
use crate::port::Outbox;
use crate::stop::Stop;
use crate::verdict::{Leftovers, Reason, Verdict};

/// The durable memory: beside the alerts that wait to be sent, the ledger, the slots of schedules, the quarantine, the chain of evidence.
#[async_trait]
pub trait Store: Outbox {
    /// Made once with the store; names the chain of evidence.
    async fn id(&self) -> Result<String, Stop>;

    /// Writes the run's first event, unless its drill has a run that has not ended: then [`Reason::AlreadyRunning`]. A run that a
    /// schedule triggered claims its slot with it, and is refused with [`Reason::AlreadyRunning`] where the slot was taken.
    async fn claim(&self, started: &RunStarted) -> Result<(), Stop>;

    /// Durable when it returns. Refuses an event that the ledger's fold calls illegal, and a run that another owner took over.
    async fn append(&self, run: &RunId, event: &Event) -> Result<Stamped, Stop>;

    /// Empty where there is no such run.
    async fn events(&self, run: &RunId) -> Result<Vec<Stamped>, Stop>;

    /// Newest first.
    async fn runs(&self, drill: Option<&DrillName>, limit: u32) -> Result<Vec<RunSummary>, Stop>;

    /// The newest of each of these drills, in the order of [`Store::runs`]; a drill that never ran is not there.
    async fn newest_of_each(
        &self,
        drills: &[DrillName],
        limit: u32,
    ) -> Result<BTreeMap<DrillName, Vec<RunSummary>>, Stop>;

    /// Those that come after `than` in the order of [`Store::runs`], whether that is still there or not.
    async fn older_runs(
        &self,
        drill: Option<&DrillName>,
        than: (jiff::Timestamp, &RunId),
        limit: u32,
    ) -> Result<Vec<RunSummary>, Stop>;

    /// Runs that have not ended, or that ended and still owe something.
    async fn unsettled(&self) -> Result<Vec<RunId>, Stop>;

    /// Whose the run is by now: its first owner, or whoever took it over. None where there is no such run.
    async fn owner(&self, run: &RunId) -> Result<Option<Owner>, Stop>;

    /// Makes `new` the owner of a run whose owner was `old`; false where somebody else was faster.
    async fn take_over(&self, run: &RunId, old: &Owner, new: &Owner) -> Result<bool, Stop>;

    /// Refuses an artifact from now on.
    async fn quarantine(&self, entry: &Quarantine) -> Result<(), Stop>;
    async fn quarantined(&self) -> Result<Vec<Quarantine>, Stop>;
    /// How many entries of this digest were released.
    async fn release_quarantine(&self, digest: Sha256Digest, by: &str) -> Result<u64, Stop>;

    /// The last link of the chain of evidence.
    async fn chain_head(&self) -> Result<Option<ChainLink>, Stop>;
    /// Refused where `link.sequence` does not follow the head.
    async fn extend_chain(&self, link: &ChainLink) -> Result<(), Stop>;
    /// Without what was pruned.
    async fn chain(&self) -> Result<Vec<ChainLink>, Stop>;
    /// The link of one run.
    async fn chained(&self, run: &RunId) -> Result<Option<Chained>, Stop>;

    /// Writes that a slot of a drill, or of one of its self-tests, is not run, and why. False where the slot was claimed or
    /// skipped before.
    async fn skip(
        &self,
        drill: &DrillName,
        self_test: Option<Damage>,
        scheduled_for: jiff::Timestamp,
        why: &str,
    ) -> Result<bool, Stop>;

    /// Writes since when schedules are as they are, all of them or none. When each was first seen stays.
    async fn seen(&self, schedules: &[SeenSchedule]) -> Result<(), Stop>;

    /// What is known of each drill that was ever seen, or had a run or a slot.
    async fn histories(&self) -> Result<Vec<DrillHistory>, Stop>;

    /// Forgets ended runs that owe nothing, in bounded portions: of each drill those older than `before` and those beyond the
    /// newest `keep`. Its last success stays, and so does the run of the last link of the chain. A link of a run that is
    /// forgotten is pruned: its evidence is still to be deleted.
    async fn prune(&self, before: Option<jiff::Timestamp>, keep: Option<u32>) -> Result<Pruned, Stop>;

    /// Runs that [`Store::prune`] would forget, as far as one portion goes.
    async fn prunable(&self, before: Option<jiff::Timestamp>, keep: Option<u32>) -> Result<Vec<RunSummary>, Stop>;

    /// Pruned links whose evidence is not known to be deleted, oldest first, in bounded number.
    async fn pruned_links(&self) -> Result<Vec<Chained>, Stop>;

    /// The evidence of these pruned links is deleted: what is left of them is a stretch of the chain.
    async fn evidence_deleted(&self, links: &[Chained]) -> Result<(), Stop>;

    /// Stretches of deleted evidence that begin in this part of the chain, oldest first.
    async fn deleted_evidence(&self, part: RangeInclusive<u64>) -> Result<Vec<Stretch>, Stop>;

    /// Writes something that nobody reads, durably: an error says why it takes nothing.
    async fn try_write(&self) -> Result<(), Stop>;

    /// Reads all of it and says what is damaged.
    async fn check(&self) -> Result<(), Stop>;

    /// A consistent copy into a new file, while others go on writing.
    async fn back_up(&self, to: &Path) -> Result<(), Stop>;
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct RunSummary {
    pub run: RunId,
    pub drill: DrillName,
    pub started: jiff::Timestamp,
    /// None while it runs, and after a crash until it is recovered.
    pub ended: Option<jiff::Timestamp>,
    pub verdict: Option<Verdict>,
    pub reason: Option<Reason>,
    pub leftovers: Leftovers,
    pub recovery_time_milliseconds: Option<u64>,
    pub evidence: Option<String>,
    pub trigger: Trigger,
}

/// A damaged copy: the same manifest at another place is another copy.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Quarantine {
    /// SHA-256 of the manifest's bytes.
    pub digest: Sha256Digest,
    pub location: String,
    pub run: RunId,
    pub why: String,
    pub at: jiff::Timestamp,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ChainLink {
    /// From 1, without gaps.
    pub sequence: u64,
    pub run: RunId,
    /// SHA-256 of the envelope's bytes.
    pub digest: Sha256Digest,
    pub path: String,
}

/// A link and the digest of the one before it, which is None for the first.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Chained {
    pub link: ChainLink,
    pub previous: Option<Sha256Digest>,
}

impl Chained {
    pub fn stretch(&self) -> Stretch {
        let ChainLink { sequence, digest, .. } = self.link;
        Stretch { first: sequence, last: sequence, digest, previous: self.previous }
    }
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DrillHistory {
    pub drill: DrillName,
    /// When a daemon first read it. None where only commands ran it.
    pub first_seen: Option<jiff::Timestamp>,
    /// Of its own schedule (None), and of those of its self-tests.
    pub schedules: BTreeMap<Option<Damage>, ScheduleHistory>,
    pub last: Option<RunSummary>,
    /// The last run that passed.
    pub last_success: Option<RunSummary>,
}

#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ScheduleHistory {
    /// The newest slot that was claimed or skipped.
    pub last_slot: Option<jiff::Timestamp>,
    /// What was seen last, and since when it is so.
    pub seen: Option<(String, jiff::Timestamp)>,
}

/// A schedule as a daemon read it: what falls due from now on is missed where nobody runs it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SeenSchedule {
    pub drill: DrillName,
    /// None: the drill's own.
    pub self_test: Option<Damage>,
    /// What its times follow from; empty where the drill has no schedule.
    pub words: String,
    pub at: jiff::Timestamp,
}

#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Pruned {
    pub runs: u64,
    /// Whether there is more to forget.
    pub more: bool,
}
