//! The server's binary timestamps: microseconds since 2000-01-01, with the two ends as infinities.

/// Microseconds from 1970-01-01 to 2000-01-01.
const EPOCH: i64 = 946_684_800_000_000;
const DAY: i64 = 86_400_000_000;

/// Microseconds since 1970-01-01; None for infinity and for what 64 bits cannot hold.
pub(super) fn unix_micros(postgres: i64) -> Option<i64> {
    if postgres == i64::MAX || postgres == i64::MIN { None } else { postgres.checked_add(EPOCH) }
}

/// The server's own text under `DateStyle = ISO` and `TimeZone = UTC`: `2026-11-22 02:15:00.5`, with `+00` behind it for
/// `timestamptz`, ` BC` for years before 1, and `infinity` or `-infinity`.
pub(super) fn text(postgres: i64, zoned: bool) -> String {
    match postgres {
        i64::MAX => return "infinity".to_owned(),
        i64::MIN => return "-infinity".to_owned(),
        _ => {}
    }
    // 2000-01-01 is day 10957 after 1970-01-01.
    let (year, month, day) = civil(postgres.div_euclid(DAY) + 10_957);
    let of_day = postgres.rem_euclid(DAY);
    let seconds = of_day / 1_000_000;
    let mut text = format!(
        "{:04}-{month:02}-{day:02} {:02}:{:02}:{:02}",
        if year > 0 { year } else { 1 - year },
        seconds / 3600,
        seconds / 60 % 60,
        seconds % 60
    );
    let micros = of_day % 1_000_000;
    if micros > 0 {
        let fraction = format!(".{micros:06}");
        text.push_str(fraction.trim_end_matches('0'));
    }
    if zoned {
        text.push_str("+00");
    }
    if year <= 0 {
        text.push_str(" BC");
    }
    text
}

/// What the server reads as the same instant.
pub(super) fn argument(unix_micros: i64) -> String {
    unix_micros.checked_sub(EPOCH).map_or_else(|| "-infinity".to_owned(), |postgres| text(postgres, true))
}

/// Days since 1970-01-01 as a date of the proleptic Gregorian calendar (Howard Hinnant, `civil_from_days`).
fn civil(days: i64) -> (i64, i64, i64) {
    let shifted = days + 719_468;
    let era = shifted.div_euclid(146_097);
    let of_era = shifted.rem_euclid(146_097);
    let year_of_era = (of_era - of_era / 1460 + of_era / 36_524 - of_era / 146_096) / 365;
    let day_of_year = of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month_index = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * month_index + 2) / 5 + 1;
    let month = if month_index < 10 { month_index + 3 } else { month_index - 9 };
    (year_of_era + era * 400 + i64::from(month <= 2), month, day)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_are_those_of_the_server() {
        assert_eq!(text(0, false), "2000-01-01 00:00:00");
        assert_eq!(text(1_500_000, true), "2000-01-01 00:00:01.5+00");
        assert_eq!(text(-1, true), "1999-12-31 23:59:59.999999+00");
        assert_eq!(text(9_223_371_331_199_999_999, false), "294276-12-31 23:59:59.999999");
        assert_eq!(text(-211_813_488_000_000_000, true), "4714-11-24 00:00:00+00 BC");
        assert_eq!(text(i64::MAX, true), "infinity");
        assert_eq!(argument(0), "1970-01-01 00:00:00+00");
    }

    #[test]
    fn what_64_bits_cannot_hold_is_none_and_never_wraps() {
        assert_eq!(unix_micros(0), Some(EPOCH));
        assert_eq!(unix_micros(i64::MAX), None);
        assert_eq!(unix_micros(i64::MIN), None);
        assert_eq!(unix_micros(9_223_371_331_199_999_999), None);
        for extreme in [i64::MIN + 1, i64::MAX - 1] {
            assert!(!text(extreme, false).is_empty());
        }
        for extreme in [i64::MIN, i64::MAX] {
            assert!(!argument(extreme).is_empty());
        }
    }
}
