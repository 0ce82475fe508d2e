//! Times as people read them.
use std::time::Duration;

use jiff::Timestamp;

/// Two units at most: `0.3 s`, `26 h 3 m`, `3 d 4 h`. Hours go beyond a day, so that 26 of them and the 24 that were allowed
/// compare at a glance.
pub(crate) fn duration(duration: Duration) -> String {
    let seconds = duration.as_secs();
    let pair = |large: u64, unit: &str, small: u64, sub: &str| match small {
        0 => format!("{large} {unit}"),
        _ => format!("{large} {unit} {small} {sub}"),
    };
    match (seconds / 3_600, seconds / 60 % 60) {
        (hours, _) if hours >= 72 => pair(hours / 24, "d", hours % 24, "h"),
        (hours @ 1.., minutes) => pair(hours, "h", minutes, "m"),
        (0, minutes @ 1..) => pair(minutes, "m", seconds % 60, "s"),
        (0, 0) => format!("{:.1} s", duration.as_secs_f64()),
    }
}

/// `2026-11-22 02:14`, in UTC.
pub(crate) fn minute(micros: i64) -> String {
    formatted(micros, "%Y-%m-%d %H:%M")
}

/// `2026-11-22`, in UTC.
pub(crate) fn day(micros: i64) -> String {
    formatted(micros, "%Y-%m-%d")
}

fn formatted(micros: i64, format: &str) -> String {
    match Timestamp::from_microsecond(micros) {
        Ok(time) => time.strftime(format).to_string(),
        Err(_) => "outside the calendar".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_have_two_units() {
        for (seconds, text) in [
            (0, "0.0 s"),
            (59, "59.0 s"),
            (90, "1 m 30 s"),
            (24 * 3_600, "24 h"),
            (26 * 3_600 + 180, "26 h 3 m"),
            (71 * 3_600, "71 h"),
            (76 * 3_600, "3 d 4 h"),
        ] {
            assert_eq!(duration(Duration::from_secs(seconds)), text);
        }
    }

    #[test]
    fn times_are_told_in_utc() {
        assert_eq!(minute(1_795_313_699_000_000), "2026-11-22 02:14");
        assert_eq!(day(-1), "1969-12-31");
        assert_eq!(day(-210_866_803_200_000_000), "-4713-11-24");
        assert_eq!(minute(i64::MAX), "outside the calendar");
    }
}
