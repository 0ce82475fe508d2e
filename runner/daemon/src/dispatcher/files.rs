//! What drill files mean for what is due: a drill that is new, changed, or gone.
use std::path::PathBuf;
use std::sync::Arc;

use drill::id::DrillName;
use drill::port::{ScheduleHistory, SeenSchedule};
use drill::schedule::{Calendar, Slot};
use drill::spec::{Drill, Schedule};
use jiff::Timestamp;

use super::known::Known;
use super::state::State;
use crate::book::Book;

impl State {
    /// Takes the book's drills for its own. Runs that go on keep theirs. Answers with the schedules that are new or other than
    /// they were.
    #[must_use]
    pub(super) fn drills(&mut self, book: &Book, now: Timestamp) -> Vec<SeenSchedule> {
        self.files = Arc::new(book.problems.clone());
        let gone: Vec<_> = self.drills.keys().filter(|name| !book.drills.contains_key(*name)).cloned().collect();
        for name in gone {
            // One that still runs is forgotten when its run ends.
            if self.drills.get(&name).is_some_and(|known| known.running.is_none()) {
                self.forget(&name);
            } else if let Some(known) = self.drills.get_mut(&name) {
                known.calendar = None;
                self.tests.forget(&name);
                self.unschedule(&name);
            }
        }
        let mut seen = Vec::new();
        for (name, entry) in &book.drills {
            let same = self
                .drills
                .get(name)
                .is_some_and(|known| Arc::ptr_eq(&known.drill, &entry.drill) && known.file == entry.file);
            if !same {
                seen.extend(self.take(name, entry.drill.clone(), entry.file.clone(), now));
            }
        }
        seen
    }

    fn take(&mut self, name: &DrillName, drill: Arc<Drill>, file: PathBuf, now: Timestamp) -> Vec<SeenSchedule> {
        // What cannot be computed was refused when the file was read.
        let calendar = drill.schedule.as_ref().and_then(|schedule| Calendar::new(schedule, name).ok());
        let words = words(drill.schedule.as_ref());
        let history = if self.drills.contains_key(name) { None } else { self.histories.remove(name) };
        let schedules = history.as_ref().map(|history| history.schedules.clone()).unwrap_or_default();
        let mut seen = self.tests.take(&drill, &schedules, now);
        let own = schedules.get(&None);
        let is_new = if let Some(known) = self.drills.get_mut(name) {
            let same = known.drill.schedule == drill.schedule && known.calendar.is_some() == calendar.is_some();
            if let (Some(waiting), Some(calendar)) = (&mut known.waiting, &calendar) {
                waiting.until = calendar.deadline(waiting.slot);
            }
            let next = calendar.as_ref().and_then(|calendar| calendar.upcoming(now));
            known.drill_is(drill, file, calendar);
            if known.calendar.is_none() {
                self.unschedule(name);
            } else if !same {
                self.schedule(name, next);
            }
            !same
        } else {
            let next = calendar.as_ref().and_then(|calendar| first_slot(calendar, &words, own, now));
            self.drills.insert(name.clone(), Box::new(Known::new(drill, file, calendar, history, now)));
            self.schedule(name, next);
            own.and_then(|own| own.seen.as_ref()).is_none_or(|(seen, _)| *seen != words)
        };
        if is_new {
            seen.push(SeenSchedule { drill: name.clone(), self_test: None, words, at: now });
        }
        self.changed.insert(name.clone());
        seen
    }

    pub(super) fn forget(&mut self, name: &DrillName) {
        self.unschedule(name);
        self.tests.forget(name);
        if let Some(known) = self.drills.remove(name) {
            // It may come back, and what fell due meanwhile was nobody's to run.
            self.histories.insert(name.clone(), known.history());
        }
        self.changed.insert(name.clone());
    }

    fn unschedule(&mut self, name: &DrillName) {
        self.schedule(name, None);
        let waiting = self.drills.get_mut(name).and_then(|known| known.waiting.take());
        if let Some(waiting) = waiting {
            self.waiting.remove(&(waiting.slot.starts, name.clone()));
        }
    }

    pub(super) fn schedule(&mut self, name: &DrillName, next: Option<Slot>) {
        let Some(known) = self.drills.get_mut(name) else { return };
        if let Some(old) = std::mem::replace(&mut known.next, next) {
            self.due.remove(&(old.starts, name.clone()));
        }
        if let Some(next) = next {
            self.due.insert((next.starts, name.clone()));
        }
        self.changed.insert(name.clone());
    }
}

/// What the times of a schedule follow from; empty without one.
pub(super) fn words(schedule: Option<&Schedule>) -> String {
    schedule.map(|schedule| format!("{} {}", schedule.cron, schedule.timezone)).unwrap_or_default()
}

/// The first slot that nobody has dealt with: of a schedule that is as it was, also one that fell due while no daemon was here.
pub(super) fn first_slot(
    calendar: &Calendar,
    words: &str,
    history: Option<&ScheduleHistory>,
    now: Timestamp,
) -> Option<Slot> {
    // What lies after now was written by a clock that was wrong.
    let last = history.and_then(|history| history.last_slot).filter(|slot| *slot <= now);
    let since = match history.and_then(|history| history.seen.as_ref()) {
        Some((seen, _)) if seen != words => return calendar.upcoming(now),
        Some((_, since)) => Some(*since).filter(|since| *since <= now),
        None => None,
    };
    match (last, since) {
        (Some(last), Some(since)) if since > last => {
            calendar.upcoming(since).filter(|slot| slot.scheduled_for > last).or_else(|| calendar.next(last))
        }
        (Some(last), _) => calendar.next(last),
        (None, since) => calendar.upcoming(since.unwrap_or(now)),
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a test fails by panicking")]
    use super::*;

    /// Of a schedule at each tenth minute, at 12:35; times are of that day.
    fn first(last_slot: Option<&str>, seen: Option<(&str, &str)>) -> String {
        let at = |time: &str| format!("2026-01-05T{time}:00Z").parse::<Timestamp>().unwrap();
        let text = "apiVersion: muster.dev/v1\nkind: Drill\nmetadata: { name: orders }\nspec:\n  source: { manifest: m/manifest.json, \
                    trustedKeys: [{ file: k.pub }] }\n  schedule: { cron: '*/10 * * * *' }\n";
        let drill = drill::file::parse(text, drill::file::Options::default()).unwrap();
        let calendar = Calendar::new(drill.schedule.as_ref().unwrap(), &drill.name).unwrap();
        let history = ScheduleHistory {
            last_slot: last_slot.map(at),
            seen: seen.map(|(words, since)| (words.to_owned(), at(since))),
        };
        let words = words(drill.schedule.as_ref());
        assert_eq!(words, "*/10 * * * * UTC");
        let slot = first_slot(&calendar, &words, Some(&history), at("12:35")).unwrap();
        slot.scheduled_for.strftime("%H:%M").to_string()
    }

    #[test]
    fn a_schedule_goes_on_where_it_was_left() {
        let same = "*/10 * * * * UTC";
        assert_eq!(first(None, None), "12:40", "never seen");
        assert_eq!(first(None, Some((same, "12:05"))), "12:10", "seen, and nothing fell due before the end");
        assert_eq!(first(Some("12:10"), Some((same, "11:00"))), "12:20");
        assert_eq!(first(Some("12:10"), None), "12:20", "by an older muster");
        assert_eq!(first(Some("11:10"), Some((same, "12:15"))), "12:20", "it was another schedule in between");
        assert_eq!(first(Some("12:10"), Some(("@hourly UTC", "11:00"))), "12:40", "it is another schedule now");
        assert_eq!(first(Some("13:10"), Some((same, "13:00"))), "12:40", "by a clock that was wrong");
    }
}
