use std::collections::BTreeMap;
use std::time::Duration;

use crate::finding::Finding;
use crate::id::Sha256Digest;
use crate::ledger::event::{
    Artifact, CheckEnded, Damaged, Event, PhaseOutcome, Plugin, Resource, RunStarted, Stamped, Summary, Trigger,
};
use crate::phase::Phase;
use crate::proof::{IsolationProof, LeaseProof, LimitInForce, ReleaseProof};
use crate::spec::{Place, Vault};
use crate::stop::Stop;
use crate::verdict::Leftovers;

/// An event that cannot follow what came before: a bug, or a ledger that somebody wrote by hand.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error("illegal event in the ledger: {what}")]
pub struct IllegalEvent {
    what: String,
}

/// All that a run's events add up to.
#[derive(Debug, Clone, PartialEq)]
pub struct State {
    pub started: RunStarted,
    pub phases: Vec<PhaseRecord>,
    /// Whether nothing of the sandbox was begun before the artifact was verified.
    pub verified_first: bool,
    pub held: BTreeMap<Resource, Held>,
    /// In the order in which they were intended.
    pub order: Vec<Resource>,
    /// None where the drill has one source only.
    pub source: Option<Place>,
    pub artifact: Option<Artifact>,
    /// Of a self-test, once its copy is damaged.
    pub damaged: Option<Damaged>,
    pub template: Option<(String, Sha256Digest)>,
    pub limits: Vec<LimitInForce>,
    pub isolation: Option<IsolationProof>,
    /// None: muster makes its own.
    pub lease_from: Option<Vault>,
    pub lease: Option<LeaseProof>,
    pub plugins: Vec<Plugin>,
    pub findings: Vec<Finding>,
    pub checks: Vec<CheckEnded>,
    pub connections: Vec<String>,
    pub quarantined: Option<Sha256Digest>,
    pub summary: Option<Summary>,
    pub evidence: Option<(String, Sha256Digest, u64)>,
    pub ended: Option<Leftovers>,
}

#[derive(Debug, Clone, PartialEq)]
pub struct PhaseRecord {
    pub phase: Phase,
    pub started: jiff::Timestamp,
    /// None while it runs, or where a crash cut it off.
    pub ended: Option<(Duration, PhaseOutcome)>,
}

#[derive(Debug, Clone, PartialEq)]
pub enum Held {
    /// It may exist.
    Intended,
    Acquired {
        handle: serde_json::Value,
    },
    /// Releasing it failed; it may still exist.
    Owed {
        handle: Option<serde_json::Value>,
        stop: Stop,
    },
    Released {
        proof: ReleaseProof,
    },
}

impl Held {
    pub fn is_owed(&self) -> bool {
        !matches!(self, Self::Released { .. })
    }

    pub fn handle(&self) -> Option<&serde_json::Value> {
        match self {
            Self::Acquired { handle } | Self::Owed { handle: Some(handle), .. } => Some(handle),
            Self::Intended | Self::Owed { handle: None, .. } | Self::Released { .. } => None,
        }
    }
}

impl State {
    /// The first event must be [`Event::Started`].
    pub fn replay<'a>(events: impl IntoIterator<Item = &'a Stamped>) -> Result<Self, IllegalEvent> {
        let mut events = events.into_iter();
        let first = events.next().ok_or_else(|| illegal("the run has none"))?;
        let Event::Started(started) = &first.event else { return Err(illegal("the first is not `started`")) };
        let mut state = Self::new(started.clone());
        for stamped in events {
            state.apply(stamped)?;
        }
        Ok(state)
    }

    pub fn new(started: RunStarted) -> Self {
        Self {
            started,
            phases: Vec::new(),
            verified_first: false,
            held: BTreeMap::new(),
            order: Vec::new(),
            source: None,
            artifact: None,
            damaged: None,
            template: None,
            limits: Vec::new(),
            isolation: None,
            lease_from: None,
            lease: None,
            plugins: Vec::new(),
            findings: Vec::new(),
            checks: Vec::new(),
            connections: Vec::new(),
            quarantined: None,
            summary: None,
            evidence: None,
            ended: None,
        }
    }

    /// Whether anything may still exist.
    pub fn owes(&self) -> bool {
        self.held.values().any(Held::is_owed)
    }

    /// What may still exist, for people: why it could not be released, and by which names a secret store knows the leases.
    pub fn what_is_owed(&self) -> Option<String> {
        let owed = self.held.iter().filter_map(|(resource, held)| {
            let why = match held {
                Held::Owed { stop, .. } => stop.message.as_str(),
                Held::Intended | Held::Acquired { .. } => "not tried yet",
                Held::Released { .. } => return None,
            };
            let leases = self.lease.as_ref().filter(|_| *resource == Resource::Lease).map_or(&[][..], |of| &of.leases);
            let ids: Vec<&str> = leases.iter().map(|lease| lease.id.as_str()).collect();
            let ids = if ids.is_empty() { String::new() } else { format!(" ({})", ids.join(", ")) };
            Some(format!("{resource}{ids}: {why}"))
        });
        let owed: Vec<String> = owed.collect();
        (!owed.is_empty()).then(|| owed.join("; "))
    }

    pub fn leftovers(&self) -> Leftovers {
        if self.owes() { Leftovers::Some } else { Leftovers::None }
    }

    pub fn phase(&self, phase: Phase) -> Option<&PhaseRecord> {
        self.phases.iter().find(|record| record.phase == phase)
    }

    pub fn apply(&mut self, stamped: &Stamped) -> Result<(), IllegalEvent> {
        let after_end = matches!(stamped.event, Event::Released { .. } | Event::ReleaseFailed { .. });
        if self.ended.is_some() && !after_end {
            return Err(illegal("the run has ended"));
        }
        match stamped.event.clone() {
            Event::Started(_) => return Err(illegal("the run has started already")),
            Event::PhaseStarted { phase } => self.phase_started(phase, stamped.at)?,
            Event::PhaseEnded { phase, duration, outcome } => self.phase_ended(phase, duration, outcome)?,
            Event::Intended { resource } => self.intended(resource)?,
            Event::Acquired { resource, handle } => self.acquired(resource, handle)?,
            Event::Released { resource, proof } => {
                *self.owed(resource)? = Held::Released { proof };
            }
            Event::ReleaseFailed { resource, stop } => {
                let held = self.owed(resource)?;
                *held = Held::Owed { handle: held.handle().cloned(), stop };
            }
            Event::Source { place } => self.source_tried(place)?,
            Event::Artifact(artifact) => self.artifact = Some(artifact),
            Event::Damaged(damaged) => self.copy_damaged(damaged)?,
            Event::Template { isolation, digest } => self.template = Some((isolation, digest)),
            Event::Limits { limits } => self.limits = limits,
            Event::Isolation(proof) => self.proven(proof),
            Event::LeaseFrom(vault) => self.lease_from = Some(vault),
            Event::Lease(proof) => self.lease = Some(proof),
            Event::Plugin(plugin) => self.plugins.push(plugin),
            Event::Finding(finding) => self.findings.push(finding),
            Event::CheckEnded(check) => self.checks.push(check),
            Event::Connections { lines } => self.connections = lines,
            Event::Quarantined { digest } => self.quarantined = Some(digest),
            Event::Concluded(summary) => self.concluded(summary)?,
            Event::EvidenceWritten { path, digest, sequence } => self.evidence_written(path, digest, sequence)?,
            Event::Ended { leftovers } => self.end(leftovers)?,
        }
        Ok(())
    }

    fn proven(&mut self, proof: IsolationProof) {
        let known = self.isolation.get_or_insert_default();
        for probe in proof.probes {
            match known.probes.iter_mut().find(|earlier| earlier.name == probe.name) {
                Some(earlier) => *earlier = probe,
                None => known.probes.push(probe),
            }
        }
    }

    fn source_tried(&mut self, place: Place) -> Result<(), IllegalEvent> {
        if self.artifact.is_some() {
            return Err(illegal(format!("the {place} source was tried after an artifact was opened")));
        }
        self.source = Some(place);
        Ok(())
    }

    /// Only a self-test damages anything, and only once: its verdict depends on what was damaged.
    fn copy_damaged(&mut self, damaged: Damaged) -> Result<(), IllegalEvent> {
        if !matches!(self.started.trigger, Trigger::SelfTest { .. }) {
            return Err(illegal("a copy was damaged, and the run is no self-test"));
        }
        if self.damaged.is_some() {
            return Err(illegal("a copy was damaged twice"));
        }
        self.damaged = Some(damaged);
        Ok(())
    }

    fn phase_started(&mut self, phase: Phase, at: jiff::Timestamp) -> Result<(), IllegalEvent> {
        // Recovery tears down again where a crash cut teardown off; no other phase happens twice.
        if phase == Phase::Teardown {
            self.phases.retain(|record| record.phase != Phase::Teardown);
        }
        if self.phase(phase).is_some() {
            return Err(illegal(format!("phase {phase} started twice")));
        }
        if phase == Phase::Sandbox {
            self.verified_first = self.phase(Phase::Verify).is_some_and(|verify| verify.ended.is_some());
        }
        self.phases.push(PhaseRecord { phase, started: at, ended: None });
        Ok(())
    }

    fn phase_ended(&mut self, phase: Phase, duration: Duration, outcome: PhaseOutcome) -> Result<(), IllegalEvent> {
        let record = self.phases.iter_mut().find(|record| record.phase == phase && record.ended.is_none());
        let record = record.ok_or_else(|| illegal(format!("phase {phase} ended and was not running")))?;
        record.ended = Some((duration, outcome));
        Ok(())
    }

    fn intended(&mut self, resource: Resource) -> Result<(), IllegalEvent> {
        if self.summary.is_some() {
            return Err(illegal(format!("{resource} intended after the run was concluded")));
        }
        if self.held.contains_key(&resource) {
            return Err(illegal(format!("{resource} intended twice")));
        }
        self.held.insert(resource, Held::Intended);
        self.order.push(resource);
        Ok(())
    }

    fn acquired(&mut self, resource: Resource, handle: serde_json::Value) -> Result<(), IllegalEvent> {
        match self.held.get_mut(&resource) {
            Some(held @ (Held::Intended | Held::Acquired { .. })) => {
                *held = Held::Acquired { handle };
                Ok(())
            }
            Some(Held::Owed { .. } | Held::Released { .. }) => {
                Err(illegal(format!("{resource} acquired after its release")))
            }
            None => Err(illegal(format!("{resource} acquired and never intended"))),
        }
    }

    fn owed(&mut self, resource: Resource) -> Result<&mut Held, IllegalEvent> {
        match self.held.get_mut(&resource) {
            Some(held) if held.is_owed() => Ok(held),
            Some(_) => Err(illegal(format!("{resource} released twice"))),
            None => Err(illegal(format!("{resource} released and never intended"))),
        }
    }

    /// Evidence states what teardown was observed to have done; so nothing is concluded before each resource was released, or
    /// its release failed.
    fn concluded(&mut self, summary: Summary) -> Result<(), IllegalEvent> {
        if self.summary.is_some() {
            return Err(illegal("concluded twice"));
        }
        let untried = self.held.iter().find(|(_, held)| matches!(held, Held::Intended | Held::Acquired { .. }));
        if let Some((resource, _)) = untried {
            return Err(illegal(format!("concluded before the release of {resource} was tried")));
        }
        if summary.verdict != summary.reason.verdict() {
            return Err(illegal(format!("verdict {} does not follow from {:?}", summary.verdict, summary.reason)));
        }
        self.summary = Some(summary);
        Ok(())
    }

    fn evidence_written(&mut self, path: String, digest: Sha256Digest, sequence: u64) -> Result<(), IllegalEvent> {
        if self.summary.is_none() {
            return Err(illegal("evidence written before the run was concluded"));
        }
        if self.evidence.is_some() {
            return Err(illegal("evidence written twice"));
        }
        self.evidence = Some((path, digest, sequence));
        Ok(())
    }

    fn end(&mut self, leftovers: Leftovers) -> Result<(), IllegalEvent> {
        if self.summary.is_none() {
            return Err(illegal("ended before it was concluded"));
        }
        if leftovers != self.leftovers() {
            return Err(illegal("ended with other leftovers than the ledger owes"));
        }
        self.ended = Some(leftovers);
        Ok(())
    }
}

fn illegal(what: impl Into<String>) -> IllegalEvent {
    IllegalEvent { what: what.into() }
}
