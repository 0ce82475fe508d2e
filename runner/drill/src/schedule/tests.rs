#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]
use proptest::prelude::*;

use super::*;
use crate::spec::Blackout;

fn schedule(cron: &str, zone: &str) -> Schedule {
    Schedule {
        cron: cron.to_owned(),
        timezone: zone.to_owned(),
        jitter: Duration::ZERO,
        start_deadline: None,
        missed: Missed::Skip,
        blackout: Vec::new(),
    }
}

fn calendar(schedule: &Schedule) -> Calendar {
    Calendar::new(schedule, &"orders".parse().unwrap()).unwrap()
}

fn at(text: &str) -> Timestamp {
    text.parse().unwrap()
}

/// The next fires, as UTC.
fn fires(cron: &str, zone: &str, after: &str, count: usize) -> Vec<String> {
    let calendar = calendar(&schedule(cron, zone));
    let slots = std::iter::successors(calendar.next(at(after)), |slot| calendar.next(slot.scheduled_for));
    slots.take(count).map(|slot| slot.scheduled_for.to_string()).collect()
}

#[test]
fn a_night_with_23_or_25_hours_has_one_run() {
    // Berlin: 02:00 to 03:00 is left out on 2026-03-29, and comes twice on 2026-10-25.
    assert_eq!(
        fires("30 2 * * *", "Europe/Berlin", "2026-03-28T00:00:00Z", 3),
        ["2026-03-28T01:30:00Z", "2026-03-29T01:00:00Z", "2026-03-30T00:30:00Z"]
    );
    assert_eq!(
        fires("30 2 * * *", "Europe/Berlin", "2026-10-24T00:00:00Z", 3),
        ["2026-10-24T00:30:00Z", "2026-10-25T00:30:00Z", "2026-10-26T01:30:00Z"]
    );
    // London: a daily midnight on the day that is an hour short.
    assert_eq!(
        fires("@daily", "Europe/London", "2026-03-28T12:00:00Z", 3),
        ["2026-03-29T00:00:00Z", "2026-03-29T23:00:00Z", "2026-03-30T23:00:00Z"]
    );
    // New York.
    assert_eq!(
        fires("30 2 * * *", "America/New_York", "2026-03-07T12:00:00Z", 2),
        ["2026-03-08T07:00:00Z", "2026-03-09T06:30:00Z"]
    );
    assert_eq!(
        fires("30 1 * * *", "America/New_York", "2026-10-31T12:00:00Z", 2),
        ["2026-11-01T05:30:00Z", "2026-11-02T06:30:00Z"]
    );
    // Lord Howe moves its clocks by half an hour: 02:00 to 02:30 is left out, 01:30 to 02:00 comes twice.
    assert_eq!(
        fires("15 2 * * *", "Australia/Lord_Howe", "2026-10-02T20:00:00Z", 2),
        ["2026-10-03T15:30:00Z", "2026-10-04T15:15:00Z"]
    );
    assert_eq!(
        fires("45 1 * * *", "Australia/Lord_Howe", "2026-04-04T00:00:00Z", 2),
        ["2026-04-04T14:45:00Z", "2026-04-05T15:15:00Z"]
    );
    // Cairo moves them at midnight: 00:00 to 01:00 is left out on 2026-04-24, and 23:00 to 24:00 comes twice on 2026-10-29.
    assert_eq!(
        fires("@daily", "Africa/Cairo", "2026-04-22T23:00:00Z", 2),
        ["2026-04-23T22:00:00Z", "2026-04-24T21:00:00Z"]
    );
    assert_eq!(
        fires("30 23 * * *", "Africa/Cairo", "2026-10-28T23:00:00Z", 2),
        ["2026-10-29T20:30:00Z", "2026-10-30T21:30:00Z"]
    );
    // Beirut and Santiago do as well.
    assert_eq!(
        fires("@daily", "Asia/Beirut", "2026-03-28T12:00:00Z", 2),
        ["2026-03-28T22:00:00Z", "2026-03-29T21:00:00Z"]
    );
    assert_eq!(
        fires("@daily", "America/Santiago", "2026-09-05T12:00:00Z", 2),
        ["2026-09-06T04:00:00Z", "2026-09-07T03:00:00Z"]
    );
    assert_eq!(
        fires("30 23 * * *", "America/Santiago", "2026-04-04T12:00:00Z", 2),
        ["2026-04-05T02:30:00Z", "2026-04-06T03:30:00Z"]
    );
}

#[test]
fn an_hour_that_comes_twice_has_twice_the_hourly_runs() {
    assert_eq!(
        fires("0 * * * *", "Europe/Berlin", "2026-10-24T23:59:59Z", 4),
        ["2026-10-25T00:00:00Z", "2026-10-25T01:00:00Z", "2026-10-25T02:00:00Z", "2026-10-25T03:00:00Z"]
    );
}

#[test]
fn a_leap_day_comes_every_fourth_year() {
    assert_eq!(fires("0 0 29 2 *", "UTC", "2026-01-01T00:00:00Z", 2), ["2028-02-29T00:00:00Z", "2032-02-29T00:00:00Z"]);
}

#[test]
fn seconds_and_words_are_understood() {
    assert_eq!(
        fires("*/20 * * * * *", "UTC", "2026-01-01T00:00:01Z", 2),
        ["2026-01-01T00:00:20Z", "2026-01-01T00:00:40Z"]
    );
    for word in ["@yearly", "@annually", "@monthly", "@weekly", "@daily", "@midnight", "@hourly"] {
        assert!(!fires(word, "UTC", "2026-01-01T00:00:01Z", 1).is_empty(), "{word}");
    }
    assert!(cron("* * * * * * 2030").is_err());
}

#[test]
fn jitter_is_within_its_bound_and_stays_what_it_was() {
    let mut late = schedule("@hourly", "UTC");
    late.jitter = Duration::from_mins(10);
    let (calendar, again) = (calendar(&late), calendar(&late));
    let other = Calendar::new(&late, &"stock".parse().unwrap()).unwrap();
    let (mut spread, mut differ) = ([0_u32; 10], 0);
    let mut after = at("2026-01-01T00:00:00Z");
    for _ in 0..2_000 {
        let slot = calendar.next(after).unwrap();
        assert_eq!(again.next(after), Some(slot));
        let delay = slot.starts.duration_since(slot.scheduled_for);
        assert!(!delay.is_negative() && delay <= SignedDuration::from_secs(600));
        spread[usize::try_from(delay.as_secs() / 60).unwrap().min(9)] += 1;
        differ += u32::from(other.next(after) != Some(slot));
        after = slot.scheduled_for;
    }
    assert!(spread.iter().all(|count| (120..300).contains(count)), "{spread:?}");
    assert!(differ > 1_900, "two drills start at different times");
}

#[test]
fn however_long_the_jitter_slots_start_in_their_order() {
    let mut late = schedule("0 0,1,2 * * *", "Europe/Berlin");
    late.jitter = Duration::from_hours(24);
    let calendar = calendar(&late);
    let mut before = calendar.next(at("2026-03-28T00:00:00Z")).unwrap();
    for _ in 0..50 {
        let slot = calendar.next(before.scheduled_for).unwrap();
        assert!(before.starts < slot.scheduled_for, "{before:?} {slot:?}");
        before = slot;
    }
}

#[test]
fn a_slot_that_is_scheduled_and_has_not_started_is_upcoming() {
    let mut late = schedule("0 2 * * *", "UTC");
    late.jitter = Duration::from_hours(1);
    let calendar = calendar(&late);
    let slot = calendar.next(at("2026-01-01T00:00:00Z")).unwrap();
    assert!(slot.starts > slot.scheduled_for, "a drill whose delay is not zero");
    for now in ["2026-01-01T00:00:00Z", "2026-01-01T02:00:00Z", "2026-01-01T02:00:00.5Z"] {
        assert_eq!(calendar.upcoming(at(now)), Some(slot), "{now}");
    }
    assert_eq!(calendar.upcoming(slot.starts), calendar.next(slot.scheduled_for));
}

#[test]
fn missed_slots_are_found_behind_a_blackout() {
    // The whole of Saturday and Sunday; the daemon was down from Friday on and begins on Sunday.
    let mut quiet = schedule("* * * * *", "UTC");
    quiet.blackout = vec![Blackout { cron: "0 0 * * 6".to_owned(), duration: Duration::from_hours(48) }];
    quiet.missed = Missed::RunOnce;
    let calendar = calendar(&quiet);
    let first = calendar.next(at("2026-01-02T22:00:00Z")).unwrap();
    let due = calendar.due(first, at("2026-01-04T12:00:00.25Z"));
    assert_eq!(due.run, None, "it is a blackout still");
    assert_eq!((due.missed.unwrap().scheduled_for, due.missed_count), (at("2026-01-02T23:59:00Z"), 119));
    assert_eq!(due.next.unwrap().scheduled_for, at("2026-01-05T00:00:00Z"));
}

#[test]
fn a_blackout_that_ends_between_two_seconds_ends_no_search() {
    let mut quiet = schedule("0 * * * *", "UTC");
    quiet.jitter = Duration::from_millis(500);
    quiet.blackout = vec![Blackout { cron: "0 0 * * *".to_owned(), duration: Duration::from_hours(12) }];
    let calendar = calendar(&quiet);
    let slot = calendar.next(at("2026-01-01T00:00:00Z")).unwrap();
    assert_eq!(slot.scheduled_for, at("2026-01-01T12:00:00Z"));
}

#[test]
fn a_short_start_deadline_is_kept() {
    assert_eq!(due(Missed::RunOnce, Some(10), "2026-01-01T00:01:09Z").0.as_deref(), Some("00:01"));
    assert_eq!(due(Missed::RunOnce, Some(10), "2026-01-01T00:01:10Z"), (None, Some("00:01".to_owned()), 1));
}

#[test]
fn nothing_starts_in_a_blackout() {
    let mut quiet = schedule("0 2 * * *", "Europe/Berlin");
    quiet.blackout = vec![Blackout { cron: "0 0 24 12 *".to_owned(), duration: Duration::from_hours(72) }];
    let calendar = calendar(&quiet);
    let slot = calendar.next(at("2026-12-23T12:00:00Z")).unwrap();
    assert_eq!(slot.scheduled_for.to_string(), "2026-12-27T01:00:00Z");
    assert_eq!(calendar.blackout_end(at("2026-12-24T12:00:00Z")), Some(at("2026-12-26T23:00:00Z")));
    assert_eq!(calendar.blackout_end(at("2026-12-26T23:00:00Z")), None, "the end is not in it");
}

#[test]
fn a_blackout_over_all_time_is_no_endless_search() {
    let mut quiet = schedule("* * * * * *", "UTC");
    quiet.blackout = vec![Blackout { cron: "@hourly".to_owned(), duration: Duration::from_hours(2) }];
    assert_eq!(calendar(&quiet).next(at("2026-01-01T00:00:00Z")), None);
}

/// What becomes of slots at whole minutes of which the one at 00:01 is first, at `now`.
fn due(missed: Missed, start_deadline: Option<u64>, now: &str) -> (Option<String>, Option<String>, u64) {
    let mut minutely = schedule("* * * * *", "UTC");
    (minutely.missed, minutely.start_deadline) = (missed, start_deadline.map(Duration::from_secs));
    let calendar = calendar(&minutely);
    let first = calendar.next(at("2026-01-01T00:00:00Z")).unwrap();
    let due = calendar.due(first, at(now));
    let time = |slot: Option<Slot>| slot.map(|slot| slot.scheduled_for.strftime("%H:%M").to_string());
    (time(due.run), time(due.missed), due.missed_count)
}

#[test]
fn of_missed_slots_the_newest_runs_once_or_none() {
    let (skip, once) = (Missed::Skip, Missed::RunOnce);
    let time = |text: &str| Some(text.to_owned());
    assert_eq!(due(skip, None, "2026-01-01T00:01:00Z"), (time("00:01"), None, 0));
    assert_eq!(due(skip, None, "2026-01-01T00:01:59Z"), (time("00:01"), None, 0), "a busy dispatcher misses nothing");
    assert_eq!(due(skip, None, "2026-01-01T05:00:30Z"), (time("05:00"), time("04:59"), 299));
    assert_eq!(due(once, Some(600), "2026-01-01T05:00:30Z"), (time("05:00"), time("04:59"), 299));

    let mut nightly = schedule("0 2 * * *", "UTC");
    let first = calendar(&nightly).next(at("2026-01-01T00:00:00Z")).unwrap();
    let late = at("2026-01-05T02:30:00Z");
    let skipped = calendar(&nightly).due(first, late);
    assert_eq!((skipped.run, skipped.missed_count), (None, 5));
    assert_eq!(skipped.missed.unwrap().scheduled_for, at("2026-01-05T02:00:00Z"));
    nightly.missed = once;
    let ran = calendar(&nightly).due(first, late);
    assert_eq!(ran.run.unwrap().scheduled_for, at("2026-01-05T02:00:00Z"));
    assert_eq!((ran.missed.unwrap().scheduled_for, ran.missed_count), (at("2026-01-04T02:00:00Z"), 4));
    nightly.start_deadline = Some(Duration::from_mins(20));
    assert_eq!(calendar(&nightly).due(first, late).run, None, "too late");
}

#[test]
fn ten_years_of_seconds_are_a_moments_work() {
    let every_second = calendar(&schedule("* * * * * *", "UTC"));
    let first = every_second.next(at("2016-01-01T00:00:00Z")).unwrap();
    let due = every_second.due(first, at("2026-01-01T00:00:00Z"));
    assert_eq!(due.run.unwrap().scheduled_for, at("2026-01-01T00:00:00Z"));
    assert_eq!(due.missed_count, COUNTED);
}

const CRONS: [&str; 9] = [
    "* * * * *",
    "*/7 * * * *",
    "30 2 * * *",
    "15 0-3 * * *",
    "@hourly",
    "0 0 * * 1",
    "45 1,23 * * *",
    "@daily",
    "*/40 * * * * *",
];
const ZONES: [&str; 7] = [
    "UTC",
    "Europe/Berlin",
    "America/New_York",
    "Australia/Lord_Howe",
    "Africa/Cairo",
    "America/Santiago",
    "Asia/Beirut",
];
/// When the clocks of those change in 2026.
const CHANGES: [&str; 12] = [
    "2026-03-29T01:00:00Z",
    "2026-10-25T01:00:00Z",
    "2026-03-08T07:00:00Z",
    "2026-11-01T06:00:00Z",
    "2026-04-04T15:00:00Z",
    "2026-10-03T15:30:00Z",
    "2026-04-23T22:00:00Z",
    "2026-10-29T21:00:00Z",
    "2026-04-05T03:00:00Z",
    "2026-09-06T04:00:00Z",
    "2026-03-28T22:00:00Z",
    "2026-10-24T21:00:00Z",
];

proptest! {
    #![proptest_config(ProptestConfig { cases: 192, ..ProptestConfig::default() })]

    /// However time is cut into ticks, and wherever the clocks change, each slot is run once or told as missed once, and what
    /// was said to come next is what comes.
    #[test]
    fn every_slot_is_dealt_with_once(
        cron in 0..CRONS.len(),
        zone in 0..ZONES.len(),
        jitter in prop_oneof![Just(0_u64), 1_u64..7_200],
        (quiet, hours) in (0..CRONS.len(), 0_u64..3),
        (change, before) in (0..CHANGES.len(), 0_i64..20 * 3_600_000),
        ticks in prop::collection::vec(prop_oneof![1_i64..2_000, 1_i64..7_200_000], 1..40),
    ) {
        let mut made = schedule(CRONS[cron], ZONES[zone]);
        made.jitter = Duration::from_secs(jitter);
        if hours > 0 && quiet < 7 && quiet != 4 {
            made.blackout = vec![Blackout { cron: CRONS[quiet].to_owned(), duration: Duration::from_mins(hours * 3) }];
        }
        let calendar = calendar(&made);
        let begin = at(CHANGES[change]) - SignedDuration::from_millis(before);
        let Some(first) = calendar.upcoming(begin) else { return Ok(()) };
        let mut now = begin;
        let mut next = first;
        let mut dealt_with = 0;
        for tick in ticks {
            now += SignedDuration::from_millis(tick);
            if next.starts > now {
                prop_assert_eq!(calendar.upcoming(now), Some(next));
                continue;
            }
            let due = calendar.due(next, now);
            let last = due.run.or(due.missed).unwrap();
            prop_assert!(last.scheduled_for >= next.scheduled_for && last.starts <= now);
            if let Some(run) = due.run {
                prop_assert!(now.duration_since(run.starts) <= PUNCTUAL);
            }
            if let (Some(run), Some(missed)) = (due.run, due.missed) {
                prop_assert_eq!(calendar.next(missed.scheduled_for), Some(run));
            }
            dealt_with += due.missed_count + u64::from(due.run.is_some());
            let following = calendar.next(last.scheduled_for);
            prop_assert_eq!(due.next, following);
            prop_assert!(following.unwrap().starts > now);
            next = following.unwrap();
        }
        let mut expected = 0;
        let mut slot = first;
        while slot.scheduled_for < next.scheduled_for {
            expected += 1;
            let following = calendar.next(slot.scheduled_for).unwrap();
            prop_assert!(following.scheduled_for > slot.starts);
            slot = following;
        }
        prop_assert_eq!(slot, next);
        prop_assert_eq!(dealt_with, expected);
    }

    /// Whatever the calendar takes, it can search in both directions, and finds the same.
    #[test]
    fn an_expression_that_is_taken_can_be_computed(
        text in "(\\*|[0-5]?[0-9]|\\*/[1-9]) (\\*|[0-9]|1[0-9]|2[0-3]) (\\*|\\?|L|LW|[12]?[0-9]|31|[1-9]W|31W|29|1-7) \
                (\\*|2|[1-9]|feb|2,4|6-9) (\\*|\\?|[0-7]|[0-7]L|[0-6]#[1-5]|mon-fri|5-7)",
        after in 0_i64..4_000_000_000,
    ) {
        let Ok(cron) = cron(&text) else { return Ok(()) };
        let after = Timestamp::from_second(after).unwrap().to_zoned(TimeZone::get("Africa/Cairo").unwrap());
        if let Ok(next) = cron.find_next_occurrence(&after, false) {
            prop_assert!(next > after);
            if let Ok(previous) = cron.find_previous_occurrence(&next, true) {
                prop_assert_eq!(previous, next, "{}", text);
            }
        }
    }
}
