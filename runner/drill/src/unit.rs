//! Durations and sizes as people write and read them.
use std::time::Duration;

#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error("`{given}` is not {wanted}")]
pub struct BadUnit {
    given: String,
    wanted: &'static str,
}

/// `90s`, `15m`, `1h30m`, `7d`, `250ms`: whole numbers with a unit, largest first.
pub fn parse_duration(text: &str) -> Result<Duration, BadUnit> {
    const UNITS: [(&str, u64); 6] =
        [("w", 604_800_000), ("d", 86_400_000), ("h", 3_600_000), ("m", 60_000), ("s", 1_000), ("ms", 1)];
    let bad = || BadUnit { given: text.to_owned(), wanted: "a duration such as `90s`, `15m`, `1h30m` or `7d`" };
    let mut rest = text;
    let mut total: u64 = 0;
    let mut next_unit = 0;
    while !rest.is_empty() {
        let (number, after) = split_number(rest).ok_or_else(bad)?;
        let (unit, after) = after.split_at(after.find(|c: char| c.is_ascii_digit()).unwrap_or(after.len()));
        let position = UNITS.iter().position(|(name, _)| *name == unit).ok_or_else(bad)?;
        if position < next_unit {
            return Err(bad());
        }
        next_unit = position + 1;
        total = number.checked_mul(UNITS[position].1).and_then(|ms| total.checked_add(ms)).ok_or_else(bad)?;
        rest = after;
    }
    if text.is_empty() { Err(bad()) } else { Ok(Duration::from_millis(total)) }
}

/// `4GiB`, `4Gi`, `512MiB`, `10GB`, `4096` (bytes).
pub fn parse_size(text: &str) -> Result<u64, BadUnit> {
    let bad = || BadUnit { given: text.to_owned(), wanted: "a size such as `512MiB`, `4GiB` or `10GB`" };
    let (number, unit) = split_number(text).ok_or_else(bad)?;
    let factor: u64 = match unit {
        "" | "B" => 1,
        "kB" | "KB" => 1_000,
        "MB" => 1_000_000,
        "GB" => 1_000_000_000,
        "TB" => 1_000_000_000_000,
        "Ki" | "KiB" => 1 << 10,
        "Mi" | "MiB" => 1 << 20,
        "Gi" | "GiB" => 1 << 30,
        "Ti" | "TiB" => 1 << 40,
        _ => return Err(bad()),
    };
    number.checked_mul(factor).ok_or_else(bad)
}

/// Two units at most, for people: `0.3 s`, `21.4 s`, `6 h 12 m`, `3 d 4 h`.
pub fn duration(duration: Duration) -> String {
    let seconds = duration.as_secs();
    let (minutes, hours, days) = (seconds / 60 % 60, seconds / 3600 % 24, seconds / 86_400);
    let pair = |large: u64, unit: &str, small: u64, sub: &str| match small {
        0 => format!("{large} {unit}"),
        _ => format!("{large} {unit} {small} {sub}"),
    };
    match () {
        () if days > 0 => pair(days, "d", hours, "h"),
        () if hours > 0 => pair(hours, "h", minutes, "m"),
        () if minutes > 0 => pair(minutes, "m", seconds % 60, "s"),
        () => format!("{:.1} s", duration.as_secs_f64()),
    }
}

/// `1.2 GiB`, `611 MiB`, `12 B`.
#[expect(clippy::cast_precision_loss, reason = "three digits are shown")]
pub fn size(bytes: u64) -> String {
    const UNITS: [&str; 5] = ["B", "KiB", "MiB", "GiB", "TiB"];
    let mut value = bytes as f64;
    let mut unit = 0;
    while value >= 999.5 && unit + 1 < UNITS.len() {
        value /= 1024.0;
        unit += 1;
    }
    if unit == 0 || value >= 99.95 {
        format!("{value:.0} {}", UNITS[unit])
    } else {
        format!("{value:.1} {}", UNITS[unit])
    }
}

/// `12,402,118`.
pub fn count(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::with_capacity(digits.len() + digits.len() / 3);
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// `1 table`, `38 tables`: the regular plural.
pub fn plural(number: u64, noun: &str) -> String {
    if number == 1 { format!("1 {noun}") } else { format!("{} {noun}s", count(number)) }
}

fn split_number(text: &str) -> Option<(u64, &str)> {
    let end = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    Some((text[..end].parse().ok()?, &text[end..]))
}

/// Serde as whole milliseconds, for the ledger and the evidence.
pub mod millis {
    use std::time::Duration;

    use serde::{Deserialize, Deserializer, Serializer};

    pub fn serialize<S: Serializer>(duration: &Duration, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_u64(u64::try_from(duration.as_millis()).unwrap_or(u64::MAX))
    }

    pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Duration, D::Error> {
        u64::deserialize(deserializer).map(Duration::from_millis)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_read_as_written() {
        let ms = |text| parse_duration(text).map(|d| d.as_millis());
        assert_eq!(ms("90s"), Ok(90_000));
        assert_eq!(ms("1h30m"), Ok(5_400_000));
        assert_eq!(ms("7d"), Ok(604_800_000));
        assert_eq!(ms("250ms"), Ok(250));
        for bad in ["", "s", "10", "5m1h", "1h1h", "-5m", "1.5h", "99999999999999999999w", "9999999999999999w"] {
            assert!(parse_duration(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn sizes_are_read_in_both_binary_spellings() {
        assert_eq!(parse_size("4GiB"), Ok(4 << 30));
        assert_eq!(parse_size("4Gi"), parse_size("4GiB"));
        assert_eq!(parse_size("10GB"), Ok(10_000_000_000));
        for bad in ["", "GiB", "4 GiB", "4gib", "-1", "99999999999TiB"] {
            assert!(parse_size(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn people_read_two_units_at_most() {
        assert_eq!(duration(Duration::from_millis(340)), "0.3 s");
        assert_eq!(duration(Duration::from_mins(372)), "6 h 12 m");
        assert_eq!(duration(Duration::from_hours(24)), "1 d");
        assert_eq!(size(1_288_490_189), "1.2 GiB");
        assert_eq!(size(640_679_936), "611 MiB");
        assert_eq!(count(12_402_118), "12,402,118");
        assert_eq!(plural(1, "table"), "1 table");
    }
}
