//! When a drill is due. Pure: a calendar and a time in, slots out; what `muster next` prints and what fires come from the same
//! call.
//!
//! Slots of one drill are dealt with in the order in which they are scheduled. [`Calendar::next`] is the one after another;
//! [`Calendar::due`] says which of those that are due is run and how many were missed.
#[cfg(test)]
mod tests;

use std::time::Duration;

use croner::Cron;
use jiff::tz::TimeZone;
use jiff::{SignedDuration, Timestamp, Zoned};
use sha2::{Digest, Sha256};

use crate::id::DrillName;
use crate::spec::{Missed, Schedule};

/// A slot that is so late is not missed yet: the dispatcher was busy, or muster was started again.
pub const PUNCTUAL: SignedDuration = SignedDuration::from_secs(60);

/// Blackouts that a search for the next slot walks through; who asks for more has a schedule that never runs.
const BLACKOUTS: usize = 1_000;
/// How far missed slots are counted.
const COUNTED: u64 = 10_000;

/// A schedule that was understood. Keeps words and not what croner makes of them, which is five thousand bytes for the years
/// alone: a daemon has a calendar for each drill, and asks it little.
#[derive(Debug, Clone)]
pub struct Calendar {
    drill: DrillName,
    schedule: Schedule,
    zone: TimeZone,
}

/// What a calendar computes with.
struct Parsed<'a> {
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
    /// How many are not run, counted up to some thousands.
    pub missed_count: u64,
}

impl Calendar {
    /// An error says what of the schedule is not understood, or that it never comes.
    pub fn new(schedule: &Schedule, drill: &DrillName) -> Result<Self, String> {
        let zone = TimeZone::get(&schedule.timezone)
            .map_err(|error| format!("time zone `{}` is not known here: {error}", schedule.timezone))?;
        let calendar = Self { drill: drill.clone(), schedule: schedule.clone(), zone };
        calendar.parse()?;
        Ok(calendar)
    }

    /// The first slot that is scheduled after `after` and lies in no blackout.
    pub fn next(&self, after: Timestamp) -> Option<Slot> {
        self.parsed().next(after)
    }

    /// What becomes of `first`, which is due, and of all slots after it that are due by now.
    ///
    /// The newest runs: where it is punctual, or where missed runs run once and it is not too late. The others were missed.
    pub fn due(&self, first: Slot, now: Timestamp) -> Due {
        self.parsed().due(first, now)
    }

    /// Until when a slot may begin: its start deadline, by default the next slot.
    pub fn deadline(&self, slot: Slot) -> Timestamp {
        self.parsed().deadline(slot)
    }

    /// The end of the blackout that `at` lies in.
    pub fn blackout_end(&self, at: Timestamp) -> Option<Timestamp> {
        if self.schedule.blackout.is_empty() {
            return None;
        }
        self.parsed().blackout_end(at)
    }

    fn parsed(&self) -> Parsed<'_> {
        self.parse().expect("the same words were understood when the calendar was made")
    }

    fn parse(&self) -> Result<Parsed<'_>, String> {
        let schedule = &self.schedule;
        let blackouts = schedule.blackout.iter().map(|blackout| {
            let duration = SignedDuration::try_from(blackout.duration)
                .map_err(|_| format!("a blackout of {:?} is too long", blackout.duration))?;
            Ok((cron(&blackout.cron)?, duration))
        });
        Ok(Parsed {
            drill: &self.drill,
            cron: cron(&schedule.cron)?,
            zone: self.zone.clone(),
            jitter: schedule.jitter,
            start_deadline: schedule.start_deadline,
            missed: schedule.missed,
            blackouts: blackouts.collect::<Result<_, String>>()?,
        })
    }
}

impl Parsed<'_> {
    fn next(&self, after: Timestamp) -> Option<Slot> {
        let (mut from, mut inclusive) = (self.zoned(after), false);
        for _ in 0..BLACKOUTS {
            let slot = self.slot(&self.cron.find_next_occurrence(&from, inclusive).ok()?);
            match self.blackout_end(slot.starts) {
                None => return Some(slot),
                // Jitter may move a slot out of the blackout that is scheduled in it.
                Some(end) => {
                    let early = end.checked_sub(self.jitter).unwrap_or(end);
                    inclusive = early > slot.scheduled_for;
                    from = self.zoned(early.max(slot.scheduled_for));
                }
            }
        }
        None
    }

    fn due(&self, first: Slot, now: Timestamp) -> Due {
        let newest = self.newest(first, now);
        let late = now.duration_since(newest.starts);
        let in_time = late <= PUNCTUAL || (self.missed == Missed::RunOnce && now < self.deadline(newest));
        let run = Some(newest).filter(|_| in_time && self.blackout_end(now).is_none());
        let before = self.count(first, newest);
        match run {
            Some(_) if before == 0 => Due { run, missed: None, missed_count: 0 },
            Some(_) => Due { run, missed: self.previous(newest.scheduled_for).or(Some(first)), missed_count: before },
            None => Due { run, missed: Some(newest), missed_count: before + 1 },
        }
    }

    fn deadline(&self, slot: Slot) -> Timestamp {
        let by_rule = self.start_deadline.and_then(|deadline| slot.starts.checked_add(deadline).ok());
        by_rule.or_else(|| Some(self.next(slot.scheduled_for)?.starts)).unwrap_or(Timestamp::MAX)
    }

    fn blackout_end(&self, at: Timestamp) -> Option<Timestamp> {
        let at_here = self.zoned(at);
        // The one that began last ends last: all of one entry are equally long.
        let ends = self.blackouts.iter().filter_map(|(cron, duration)| {
            let began = cron.find_previous_occurrence(&at_here, true).ok()?.timestamp();
            began.checked_add(*duration).ok().filter(|end| at < *end)
        });
        ends.max()
    }

    /// The newest slot from `first` on that starts by now.
    fn newest(&self, first: Slot, now: Timestamp) -> Slot {
        let mut until = now;
        let mut inclusive = true;
        // Only the last `jitter` can hold slots that are scheduled and do not start yet.
        for _ in 0..64 {
            let Some(slot) = self.latest(until, inclusive) else { return first };
            if slot.scheduled_for <= first.scheduled_for {
                return first;
            }
            if slot.starts <= now && self.blackout_end(slot.starts).is_none() {
                return slot;
            }
            (until, inclusive) = (slot.scheduled_for, false);
        }
        let settled = now.checked_sub(self.jitter).ok().and_then(|settled| self.latest(settled, true));
        settled.filter(|slot| *slot > first && self.blackout_end(slot.starts).is_none()).unwrap_or(first)
    }

    fn previous(&self, before: Timestamp) -> Option<Slot> {
        self.latest(before, false)
    }

    fn latest(&self, until: Timestamp, inclusive: bool) -> Option<Slot> {
        let found = self.cron.find_previous_occurrence(&self.zoned(until), inclusive).ok()?;
        Some(self.slot(&found))
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
        let starts = scheduled_for.checked_add(self.delay(scheduled_for)).unwrap_or(scheduled_for);
        Slot { scheduled_for, starts }
    }

    /// The same for one drill and slot, whoever asks and however often; spread evenly over the jitter.
    fn delay(&self, scheduled_for: Timestamp) -> Duration {
        let bound = u64::try_from(self.jitter.as_millis()).unwrap_or(u64::MAX);
        if bound == 0 {
            return Duration::ZERO;
        }
        let digest = Sha256::digest(format!("{}\n{}", self.drill, scheduled_for.as_second()));
        let mut first = [0; 8];
        first.copy_from_slice(&digest[..8]);
        // Modulo favours small delays by less than one in 2^31.
        Duration::from_millis(u64::from_be_bytes(first) % (bound + 1))
    }

    fn zoned(&self, at: Timestamp) -> Zoned {
        at.to_zoned(self.zone.clone())
    }
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
