//! Whether this muster may work: a record that all see names the one that does. A guard against a second one, not a way to have
//! several: whoever finds the record alive refuses to begin.
//!
//! No clock is compared with another's. A record lives for as long as it is seen to change; what its holder wrote of the time is for
//! people. So clocks may differ by any amount, and by a third in their speed. client-go's leader election is the same in this.
use std::time::Duration;

use jiff::Timestamp;

/// Since this process began, by a clock that nobody sets.
pub type Elapsed = Duration;

/// No holder is waited for longer, whatever its record says.
pub const LONGEST_TERM: Duration = Duration::from_mins(10);

/// What the record says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Record {
    /// None: it was let go.
    pub holder: Option<String>,
    /// By the holder's own clock.
    pub since: Option<Timestamp>,
    /// How long it lives without being renewed.
    pub term: Duration,
    /// Another one with each change.
    pub version: String,
}

/// What to do about what was seen.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Step {
    /// Write one's own name over it, unless it changes before.
    Write,
    /// Its holder may be gone: look again until then.
    Wait { until: Elapsed },
    /// Somebody else holds it.
    Another { holder: String, since: Option<Timestamp> },
}

/// One muster's part.
#[derive(Debug, Clone)]
pub struct Candidate {
    me: String,
    term: Duration,
    /// Somebody else's record, and since when it has not changed.
    other: Option<(Record, Elapsed)>,
    /// When this muster last asked for what was then written.
    renewed: Option<Elapsed>,
}

impl Candidate {
    pub fn new(me: impl Into<String>, term: Duration) -> Self {
        Self { me: me.into(), term, other: None, renewed: None }
    }

    pub fn me(&self) -> &str {
        &self.me
    }

    pub fn term(&self) -> Duration {
        self.term
    }

    /// Somebody looked `now`, and found this.
    pub fn saw(&mut self, found: Option<&Record>, now: Elapsed) -> Step {
        let Some(record) = found else { return Step::Write };
        let holder = match &record.holder {
            Some(holder) if *holder != self.me => holder.clone(),
            _ => return Step::Write,
        };
        let another = Step::Another { holder, since: record.since };
        if self.renewed.is_some() {
            return another;
        }
        match &self.other {
            Some((before, unchanged_since)) if before.version == record.version => {
                let until = *unchanged_since + record.term.min(LONGEST_TERM);
                if now >= until { Step::Write } else { Step::Wait { until } }
            }
            // It was renewed, or taken, before our eyes.
            Some(_) => another,
            None => {
                self.other = Some((record.clone(), now));
                Step::Wait { until: now + record.term.min(LONGEST_TERM) }
            }
        }
    }

    /// What was asked for at `asked` was written.
    pub fn wrote(&mut self, asked: Elapsed) {
        (self.renewed, self.other) = (Some(asked), None);
    }

    /// Whether nobody else can have it by now: others wait for a whole term after they saw the last change.
    pub fn holds(&self, now: Elapsed) -> bool {
        self.renewed.is_some_and(|renewed| now < renewed + self.term * 2 / 3)
    }

    /// When to renew.
    pub fn renew_at(&self) -> Elapsed {
        self.renewed.map_or(Elapsed::ZERO, |renewed| renewed + self.term / 3)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TERM: Duration = Duration::from_secs(15);

    fn at(seconds: u64) -> Elapsed {
        Elapsed::from_secs(seconds)
    }

    fn record(holder: &str, version: &str) -> Record {
        // By a clock that is years off.
        let since = "1999-01-01T00:00:00Z".parse().ok();
        Record { holder: Some(holder.to_owned()), since, term: TERM, version: version.to_owned() }
    }

    #[test]
    fn what_nobody_holds_is_taken_at_once() {
        let mut me = Candidate::new("me", TERM);
        assert_eq!(me.saw(None, at(0)), Step::Write);
        let let_go = Record { holder: None, ..record("", "1") };
        assert_eq!(me.saw(Some(&let_go), at(0)), Step::Write);
        assert_eq!(me.saw(Some(&record("me", "1")), at(0)), Step::Write);
    }

    #[test]
    fn a_holder_that_is_seen_to_renew_refuses_a_second_one() {
        let mut me = Candidate::new("me", TERM);
        assert_eq!(me.saw(Some(&record("first", "1")), at(3)), Step::Wait { until: at(18) });
        assert_eq!(me.saw(Some(&record("first", "1")), at(17)), Step::Wait { until: at(18) });
        let Step::Another { holder, since } = me.saw(Some(&record("first", "2")), at(17)) else { panic!("it lives") };
        assert_eq!((holder.as_str(), since), ("first", record("", "").since));
    }

    #[test]
    fn a_holder_that_is_gone_is_followed_after_a_whole_term_of_ones_own_clock() {
        let mut me = Candidate::new("me", TERM);
        me.saw(Some(&record("first", "1")), at(3));
        assert_eq!(me.saw(Some(&record("first", "1")), at(18)), Step::Write);
        // One that was quicker is another.
        assert!(matches!(me.saw(Some(&record("third", "2")), at(18)), Step::Another { .. }));
    }

    #[test]
    fn a_term_without_end_is_not_waited_for() {
        let mut me = Candidate::new("me", TERM);
        let endless = Record { term: Duration::MAX, ..record("first", "1") };
        assert_eq!(me.saw(Some(&endless), at(0)), Step::Wait { until: LONGEST_TERM });
    }

    /// Whoever holds stops before anybody else may begin, whenever each of them looks.
    #[test]
    fn no_two_hold_it_at_one_time() {
        for renewed in 0..40 {
            for first_look in 0..40 {
                let mut first = Candidate::new("first", TERM);
                first.wrote(at(renewed));
                // The last renewal is seen no earlier than it was asked for.
                let seen = at(renewed.max(first_look));
                let mut second = Candidate::new("second", TERM);
                let found = record("first", "1");
                second.saw(Some(&found), seen);
                let takes = (0..200).map(at).find(|now| *now >= seen && second.saw(Some(&found), *now) == Step::Write);
                let takes = takes.expect("the first is gone, and is followed");
                assert!(!first.holds(takes), "renewed at {renewed}, first looked at {first_look}, taken at {takes:?}");
                // Even where the second's clock runs a quarter faster.
                assert!(!first.holds(at(renewed) + takes.saturating_sub(seen) * 4 / 5));
            }
        }
    }

    #[test]
    fn a_holder_renews_and_stops_without() {
        let mut me = Candidate::new("me", TERM);
        assert!(!me.holds(at(0)), "nothing was written");
        me.wrote(at(100));
        assert_eq!(me.renew_at(), at(105));
        assert!(me.holds(at(109)) && !me.holds(at(110)));
        assert_eq!(me.saw(Some(&record("me", "7")), at(112)), Step::Write, "nobody has taken it meanwhile");
        assert!(matches!(me.saw(Some(&record("second", "8")), at(113)), Step::Another { .. }));
        me.wrote(at(112));
        assert!(me.holds(at(113)));
    }
}
