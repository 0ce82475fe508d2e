//! The rules that every store keeps: what an event makes of a run, who may write one, and what a refusal says.
use drill::id::{DrillName, RunId};
use drill::ledger::{Damage, Event, IllegalEvent, Owner, RunStarted, Stamped, State, Trigger};
use drill::port::{ChainLink, RunSummary};
use drill::stop::Stop;
use drill::verdict::Reason;
use jiff::Timestamp;

/// Bytes of one event as JSON. Far above what any phase writes; it bounds what a hostile restored server can make a run keep.
pub(super) const MAX_EVENT: usize = 4 << 20;

/// Runs that one call of `prune` forgets: a transaction that others wait for stays short.
pub(super) const PORTION: u32 = 200;

/// What a run's events add up to, and what `runs` shows of it.
#[derive(Debug, Clone)]
pub(super) struct Folded {
    state: State,
    last: u64,
    ended: Option<Timestamp>,
}

impl Folded {
    pub(super) fn start(started: &RunStarted, at: Timestamp) -> (Self, Stamped) {
        let stamped = Stamped { sequence: 1, at, event: Event::Started(started.clone()) };
        (Self { state: State::new(started.clone()), last: 1, ended: None }, stamped)
    }

    pub(super) fn replay(run: &RunId, events: &[Stamped]) -> Result<Self, Stop> {
        let state = State::replay(events).map_err(|error| illegal(run, &error))?;
        for (index, stamped) in events.iter().enumerate() {
            if stamped.sequence != index as u64 + 1 {
                return Err(Stop::internal(format!("the ledger of {run} has a gap before event {}", stamped.sequence))
                    .advise(DAMAGED_ADVICE));
            }
        }
        let ended = events.iter().find(|stamped| matches!(stamped.event, Event::Ended { .. })).map(|end| end.at);
        Ok(Self { state, last: events.len() as u64, ended })
    }

    /// On an error what is folded is spoilt, and must be thrown away.
    pub(super) fn advance(&mut self, event: &Event, at: Timestamp) -> Result<Stamped, Stop> {
        let stamped = Stamped { sequence: self.last + 1, at, event: event.clone() };
        self.state.apply(&stamped).map_err(|error| illegal(&self.state.started.run, &error))?;
        self.last = stamped.sequence;
        if matches!(event, Event::Ended { .. }) {
            self.ended = Some(at);
        }
        Ok(stamped)
    }

    pub(super) fn summary(&self) -> RunSummary {
        let summary = self.state.summary.as_ref();
        RunSummary {
            run: self.state.started.run.clone(),
            drill: self.state.started.drill.clone(),
            started: self.state.started.at,
            ended: self.ended,
            verdict: summary.map(|summary| summary.verdict),
            reason: summary.map(|summary| summary.reason),
            leftovers: self.state.leftovers(),
            recovery_time_milliseconds: summary.and_then(|summary| summary.recovery_time_milliseconds),
            evidence: self.state.evidence.as_ref().map(|(path, ..)| path.clone()),
            trigger: self.state.started.trigger.clone(),
        }
    }

    /// Nothing more can come.
    pub(super) fn settled(&self) -> bool {
        self.ended.is_some() && !self.state.owes()
    }
}

pub(super) const DAMAGED_ADVICE: &str =
    "keep a copy of the file, and put back the last good copy of the state directory; evidence files are not affected";

pub(super) fn check_size(run: &RunId, json: &str) -> Result<(), Stop> {
    if json.len() > MAX_EVENT {
        return Err(Stop::internal(format!(
            "an event of {run} has {} bytes, and the ledger keeps {MAX_EVENT} at most",
            json.len()
        )));
    }
    Ok(())
}

pub(super) fn already_running(drill: &DrillName, run: &RunId, owner: &Owner) -> Stop {
    Stop::new(Reason::AlreadyRunning, format!("drill {drill} is running already: {run}, process {}", owner.pid))
        .advise("wait for it to end; where that process is gone, `muster reap` cleans up what it left")
}

/// The schedule of a drill itself, beside those of its self-tests.
pub(super) const DRILL: &str = "drill";

/// The name of a schedule.
pub(super) fn schedule(self_test: Option<Damage>) -> &'static str {
    self_test.map_or(DRILL, Damage::as_str)
}

/// The schedule of that name.
pub(super) fn schedule_named(name: &str) -> Result<Option<Damage>, String> {
    if name == DRILL {
        return Ok(None);
    }
    let damage = Damage::ALL.into_iter().find(|damage| damage.as_str() == name);
    damage.map(Some).ok_or_else(|| format!("no schedule is `{name}`"))
}

/// The schedule and the slot that a run claims.
pub(super) fn slot(trigger: &Trigger) -> Option<(String, Timestamp)> {
    match trigger {
        Trigger::Schedule { scheduled_for } => Some((DRILL.to_owned(), *scheduled_for)),
        Trigger::SelfTest { damage, scheduled_for: Some(at) } => Some((damage.as_str().to_owned(), *at)),
        Trigger::SelfTest { scheduled_for: None, .. } | Trigger::Command | Trigger::Operator { .. } => None,
    }
}

pub(super) fn is_self_test(trigger: &Trigger) -> bool {
    matches!(trigger, Trigger::SelfTest { .. })
}

pub(super) fn slot_taken(drill: &DrillName, scheduled_for: Timestamp) -> Stop {
    Stop::new(Reason::AlreadyRunning, format!("the slot {scheduled_for} of drill {drill} was run or skipped before"))
        .advise("nothing needs to be done: a slot is run once")
}

pub(super) fn run_exists(run: &RunId) -> Stop {
    Stop::internal(format!("there is a run {run} already")).advise("start it again: a new run gets a new name")
}

pub(super) fn no_such_run(run: &RunId) -> Stop {
    Stop::internal(format!("the ledger has no run {run}")).advise("`muster runs` lists those that it has")
}

pub(super) fn not_held(run: &RunId) -> Stop {
    Stop::internal(format!("run {run} was neither claimed nor taken over by this process, which may not write to it"))
}

pub(super) fn taken_over(run: &RunId, by: &Owner) -> Stop {
    Stop::internal(format!("run {run} was taken over by process {}", by.pid))
        .advise("leave it to that process: it cleans up what this run made")
}

/// `head` is the sequence of the last link; 0 where there is none.
pub(super) fn check_link(head: u64, link: &ChainLink) -> Result<(), Stop> {
    if link.sequence == head + 1 {
        return Ok(());
    }
    Err(Stop::internal(format!(
        "the chain of evidence is at {head}, so its next link is {} and not {}",
        head + 1,
        link.sequence
    )))
}

pub(super) fn chained_already(run: &RunId) -> Stop {
    Stop::internal(format!("the chain of evidence has a link for {run} already"))
}

fn illegal(run: &RunId, error: &IllegalEvent) -> Stop {
    Stop::internal(format!("run {run}: {error}"))
        .advise("this is a defect of muster, or the state directory was changed by hand; please report it")
}
