//! When a drill is due. Pure: a calendar and a time in, slots out; what `muster next` prints and what fires come from the same
//! call.
//!
//! Slots of one drill are dealt with in the order in which they are scheduled. [`Calendar::next`] is the one after another;
//! [`Calendar::due`] says which of those that are due is run, how many were missed, and which comes next.
#[cfg(test)]
mod tests;

use std::ops::Range;
use std::time::Duration;

use croner::Cron;
use jiff::tz::TimeZone;
use jiff::{RoundMode, SignedDuration, Timestamp, TimestampRound, Unit, Zoned};
use sha2::{Digest, Sha256};

use crate::id::DrillName;
use crate::spec::{Missed, Schedule};

/// A slot that is so late is not missed yet: the dispatcher was busy, or muster was started again.
pub const PUNCTUAL: SignedDuration = SignedDuration::from_secs(60);

/// Blackouts that a search for a slot walks through; who asks for more has a schedule that never runs.
const BLACKOUTS: usize = 1_000;
/// How far missed slots are counted.
const COUNTED: u64 = 1_000;

/// A schedule that was understood. Keeps words and not what croner makes of them, which is five thousand bytes for the years
/// alone: a daemon has a calendar for each drill, and asks it little.
#[derive(Debug, Clone)]
pub struct Calendar {
    drill: DrillName,
    schedule: Schedule,
    zone: TimeZone,
}

/// What a calendar computes with: for whoever asks several times in a row, and does not keep it.
pub struct Slots<'a> {
    drill: &'a DrillName,
    cron: Cron,
    zone: TimeZone,
    jitter: Duration,
    start_deadline: Option<Duration>,
    missed: Missed,
    blackouts: Vec<(Cron, SignedDuration)>,
}

/// One time at which a drill is due.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Slot {
    /// What cron says; with the drill's name the key of a claim.
    pub scheduled_for: Timestamp,
    /// That, and the drill's jitter for this slot.
    pub starts: Timestamp,
}

/// What becomes of slots that are due.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Due {
    pub run: Option<Slot>,
    /// The newest of those that are not run.
    pub missed: Option<Slot>,
    /// How many are not run, counted up to a thousand.
    pub missed_count: u64,
    /// The first that is not due yet.
    pub next: Option<Slot>,
}

impl Calendar {
    /// An error says what of the schedule is not understood.
    pub fn new(schedule: &Schedule, drill: &DrillName) -> Result<Self, String> {
        let zone = Slots::of(schedule, drill)?.zone;
        Ok(Self { drill: drill.clone(), schedule: schedule.clone(), zone })
    }

    pub fn schedule(&self) -> &Schedule {
        &self.schedule
    }

    /// The first slot that is scheduled after `after` and starts in no blackout.
    pub fn next(&self, after: Timestamp) -> Option<Slot> {
        self.slots().next(after)
    }

    /// The first slot that starts after `now`, though it may be scheduled before; what fires next.
    pub fn upcoming(&self, now: Timestamp) -> Option<Slot> {
        self.slots().upcoming(now)
    }

    /// What becomes of `first`, which is due, and of all slots after it that are due by now.
    ///
    /// The newest runs: where it is punctual, or where missed runs run once, and it is not too late. The others were missed.
    pub fn due(&self, first: Slot, now: Timestamp) -> Due {
        self.slots().due(first, now)
    }

    /// Until when a slot may begin: its start deadline, by default the next slot.
    pub fn deadline(&self, slot: Slot) -> Timestamp {
        self.slots().deadline(slot)
    }

    /// The end of the blackout that `at` lies in.
    pub fn blackout_end(&self, at: Timestamp) -> Option<Timestamp> {
        if self.schedule.blackout.is_empty() {
            return None;
        }
        self.slots().blackout_end(at)
    }

    fn slots(&self) -> Slots<'_> {
        Slots::with(&self.schedule, &self.drill, self.zone.clone())
            .expect("the same words were understood when the calendar was made")
    }
}

impl<'a> Slots<'a> {
    /// An error says what of the schedule is not understood.
    pub fn of(schedule: &Schedule, drill: &'a DrillName) -> Result<Self, String> {
        let zone = TimeZone::get(&schedule.timezone)
            .map_err(|error| format!("time zone `{}` is not known here: {error}", schedule.timezone))?;
        Self::with(schedule, drill, zone)
    }

    fn with(schedule: &Schedule, drill: &'a DrillName, zone: TimeZone) -> Result<Self, String> {
        let blackouts = schedule.blackout.iter().map(|blackout| {
            let duration = SignedDuration::try_from(blackout.duration)
                .map_err(|_| format!("a blackout of {:?} is too long", blackout.duration))?;
            Ok((cron(&blackout.cron)?, duration))
        });
        Ok(Self {
            drill,
            cron: cron(&schedule.cron)?,
            zone,
            jitter: schedule.jitter,
            start_deadline: schedule.start_deadline,
            missed: schedule.missed,
            blackouts: blackouts.collect::<Result<_, String>>()?,
        })
    }
}

impl Slots<'_> {
    /// As [`Calendar::next`].
    pub fn next(&self, after: Timestamp) -> Option<Slot> {
        let mut slot = self.following(after)?;
        for _ in 0..BLACKOUTS {
            let Some(blackout) = self.blackout(slot.starts) else { return Some(slot) };
            // Jitter may move a slot out of the blackout that is scheduled in it.
            let early = blackout.end.checked_sub(self.jitter).ok().and_then(whole_second);
            slot = match early.filter(|early| *early > slot.scheduled_for) {
                Some(early) => self.slot(&self.cron.find_next_occurrence(&self.zoned(early), true).ok()?),
                None => self.following(slot.scheduled_for)?,
            };
        }
        None
    }

    /// As [`Calendar::upcoming`].
    pub fn upcoming(&self, now: Timestamp) -> Option<Slot> {
        // Of the slots scheduled before, only the last can still have to start.
        let delayed = self.latest(now, true).filter(|slot| slot.starts > now && self.blackout(slot.starts).is_none());
        delayed.or_else(|| self.next(now))
    }

    fn due(&self, first: Slot, now: Timestamp) -> Due {
        let newest = self.newest(now, true, now).filter(|newest| *newest > first).unwrap_or(first);
        let late = now.duration_since(newest.starts);
        let in_time = now < self.deadline(newest) && (late <= PUNCTUAL || self.missed == Missed::RunOnce);
        let run = Some(newest).filter(|_| in_time && self.blackout(now).is_none());
        let before = self.count(first, newest);
        let (missed, missed_count) = match run {
            Some(_) if before == 0 => (None, 0),
            Some(_) => (self.newest(newest.scheduled_for, false, now).or(Some(first)), before),
            None => (Some(newest), before + 1),
        };
        Due { run, missed, missed_count, next: self.upcoming(now) }
    }

    fn deadline(&self, slot: Slot) -> Timestamp {
        let by_rule = self.start_deadline.and_then(|deadline| slot.starts.checked_add(deadline).ok());
        by_rule.or_else(|| Some(self.next(slot.scheduled_for)?.starts)).unwrap_or(Timestamp::MAX)
    }

    fn blackout_end(&self, at: Timestamp) -> Option<Timestamp> {
        self.blackout(at).map(|blackout| blackout.end)
    }

    /// From the earliest beginning to the latest end of those that `at` lies in.
    fn blackout(&self, at: Timestamp) -> Option<Range<Timestamp>> {
        let around = self.blackouts.iter().filter_map(|(cron, duration)| {
            // The one that began last ends last: all of one entry are equally long.
            let began = cron.find_previous_occurrence(&self.zoned(at), true).ok()?.timestamp();
            let end = began.checked_add(*duration).unwrap_or(Timestamp::MAX);
            (at < end).then_some(began..end)
        });
        around.reduce(|one, other| one.start.min(other.start)..one.end.max(other.end))
    }

    /// The newest slot in no blackout that is scheduled by `until` and has started by `now`.
    fn newest(&self, mut until: Timestamp, mut inclusive: bool, now: Timestamp) -> Option<Slot> {
        for _ in 0..BLACKOUTS {
            let slot = self.latest(until, inclusive)?;
            until = match self.blackout(slot.starts) {
                None if slot.starts <= now => return Some(slot),
                None => slot.scheduled_for,
                // All that is scheduled since it began starts in it as well: no slot starts before an earlier one.
                Some(blackout) => blackout.start.min(slot.scheduled_for),
            };
            inclusive = false;
        }
        None
    }

    fn following(&self, after: Timestamp) -> Option<Slot> {
        Some(self.slot(&self.cron.find_next_occurrence(&self.zoned(after), false).ok()?))
    }

    fn latest(&self, until: Timestamp, inclusive: bool) -> Option<Slot> {
        Some(self.slot(&self.cron.find_previous_occurrence(&self.zoned(until), inclusive).ok()?))
    }

    /// Slots from `first` up to and without `newest`.
    fn count(&self, first: Slot, newest: Slot) -> u64 {
        let (mut slot, mut count) = (first, 0);
        while slot.scheduled_for < newest.scheduled_for && count < COUNTED {
            count += 1;
            match self.next(slot.scheduled_for) {
                Some(next) => slot = next,
                None => break,
            }
        }
        count
    }

    fn slot(&self, at: &Zoned) -> Slot {
        let scheduled_for = at.timestamp();
        let starts = scheduled_for.checked_add(self.delay(at)).unwrap_or(scheduled_for);
        Slot { scheduled_for, starts }
    }

    /// The same for one drill and slot, whoever asks and however often; spread evenly over the jitter. Never as long as the
    /// distance to what is scheduled next, so that slots start in the order in which they are scheduled.
    fn delay(&self, at: &Zoned) -> Duration {
        if self.jitter.is_zero() {
            return Duration::ZERO;
        }
        let next = self.cron.find_next_occurrence(at, false).ok();
        let distance = next.and_then(|next| Duration::try_from(next.timestamp().duration_since(at.timestamp())).ok());
        let bound =
            distance.map_or(self.jitter, |distance| self.jitter.min(distance.saturating_sub(Duration::from_millis(1))));
        let bound = u64::try_from(bound.as_millis()).unwrap_or(u64::MAX - 1);
        let digest = Sha256::digest(format!("{}\n{}", self.drill, at.timestamp().as_second()));
        let mut first = [0; 8];
        first.copy_from_slice(&digest[..8]);
        // Modulo favours small delays by less than one in 2^31.
        Duration::from_millis(u64::from_be_bytes(first) % (bound + 1))
    }

    fn zoned(&self, at: Timestamp) -> Zoned {
        at.to_zoned(self.zone.clone())
    }
}

/// The first whole second that is not before `at`: cron knows no smaller unit.
fn whole_second(at: Timestamp) -> Option<Timestamp> {
    at.round(TimestampRound::new().smallest(Unit::Second).mode(RoundMode::Ceil)).ok()
}

/// Whether the calendar can make something of an expression.
pub(crate) fn cron(text: &str) -> Result<Cron, String> {
    // Only forms that `file::cron` knows: five fields, or six with seconds first; never a year.
    let parser = croner::parser::CronParser::builder()
        .seconds(croner::parser::Seconds::Optional)
        .year(croner::parser::Year::Disallowed)
        .build();
    // The one word that cron knows and croner does not.
    let known = if text == "@midnight" { "@daily" } else { text };
    parser.parse(known).map_err(|error| format!("`{text}`: {error}"))
}
