//! The form of a cron expression: what can be said without computing a due time, which is the daemon's.
use super::rule::{Complaint, nearest};

const WORDS: [&str; 7] = ["@yearly", "@annually", "@monthly", "@weekly", "@daily", "@midnight", "@hourly"];
const MONTHS: [&str; 12] = ["jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec"];
const DAYS: [&str; 7] = ["sun", "mon", "tue", "wed", "thu", "fri", "sat"];

struct Field {
    what: &'static str,
    min: u32,
    max: u32,
    names: &'static [&'static str],
}

const SECOND: Field = Field { what: "a second", min: 0, max: 59, names: &[] };
const MINUTE: Field = Field { what: "a minute", min: 0, max: 59, names: &[] };
const HOUR: Field = Field { what: "an hour", min: 0, max: 23, names: &[] };
const DAY_OF_MONTH: Field = Field { what: "a day of the month", min: 1, max: 31, names: &[] };
const MONTH: Field = Field { what: "a month", min: 1, max: 12, names: &MONTHS };
/// 0 and 7 are Sunday.
const DAY_OF_WEEK: Field = Field { what: "a day of the week", min: 0, max: 7, names: &DAYS };

/// Five fields, six with seconds first, or a word such as `@daily`.
pub(super) fn check(text: &str) -> Result<(), Complaint> {
    form(text)?;
    // Whatever form allows and the calendar does not would be a drill that never runs.
    crate::schedule::cron(text).map(drop).map_err(Complaint::new)
}

fn form(text: &str) -> Result<(), Complaint> {
    if text.len() > 512 {
        return Err(Complaint::new("a cron expression has at most 512 bytes"));
    }
    if text.starts_with('@') {
        return word(text);
    }
    let fields: Vec<&str> = text.split_whitespace().collect();
    let kinds = [SECOND, MINUTE, HOUR, DAY_OF_MONTH, MONTH, DAY_OF_WEEK];
    let kinds = match fields.len() {
        5 => &kinds[1..],
        6 => &kinds[..],
        count => {
            return Err(Complaint::new(format!(
                "`{text}` has {} instead of five or six",
                crate::unit::plural(count as u64, "field")
            ))
            .hint("minute hour day-of-month month day-of-week, such as `15 2 * * *`"));
        }
    };
    for (field, kind) in fields.iter().zip(kinds) {
        field.split(',').try_for_each(|part| kind.check(part))?;
    }
    comes_at_all(fields[fields.len() - 3], fields[fields.len() - 2], fields[fields.len() - 1])
}

fn word(text: &str) -> Result<(), Complaint> {
    if WORDS.contains(&text) {
        return Ok(());
    }
    let hint = nearest(text, &WORDS).map_or_else(|| WORDS.join(", "), |word| format!("did you mean `{word}`?"));
    Err(Complaint::new(format!("`{text}` is not a schedule")).hint(hint))
}

impl Field {
    /// One part of a comma-separated list: `*`, `7`, `1-5`, `*/15`, `1-30/2`, and for days `L`, `15W`, `5L`, `1#2`.
    fn check(&self, part: &str) -> Result<(), Complaint> {
        let (range, step) = match part.split_once('/') {
            Some((range, step)) => (range, Some(step)),
            None => (part, None),
        };
        if let Some(step) = step
            && !number(step).is_some_and(|step| step > 0 && step <= self.max)
        {
            return Err(Complaint::new(format!("`{part}` has a step that is not 1 to {}", self.max)));
        }
        if range == "*" || self.is_special(range) {
            return Ok(());
        }
        let (from, to) = range.split_once('-').map_or((range, None), |(from, to)| (from, Some(to)));
        let first = self.value(from)?;
        match to.map(|to| self.value(to)).transpose()? {
            Some(last) if last < first => Err(Complaint::new(format!("`{range}` runs backwards"))),
            _ => Ok(()),
        }
    }

    fn is_special(&self, range: &str) -> bool {
        match self.max {
            31 => {
                matches!(range, "?" | "L" | "LW") || range.strip_suffix('W').is_some_and(|day| self.value(day).is_ok())
            }
            7 => {
                let nth = |(day, nth): (&str, &str)| {
                    self.value(day).is_ok() && (nth == "L" || number(nth).is_some_and(|nth| (1..=5).contains(&nth)))
                };
                range == "?"
                    || range.strip_suffix('L').is_some_and(|day| self.value(day).is_ok())
                    || range.split_once('#').is_some_and(nth)
            }
            _ => false,
        }
    }

    fn value(&self, text: &str) -> Result<u32, Complaint> {
        let by_name = || {
            let lower = text.to_ascii_lowercase();
            let position = self.names.iter().position(|name| *name == lower)?;
            u32::try_from(position).ok().map(|position| position + self.min)
        };
        number(text)
            .or_else(by_name)
            .filter(|value| (self.min..=self.max).contains(value))
            .ok_or_else(|| Complaint::new(format!("`{text}` is not {} ({} to {})", self.what, self.min, self.max)))
    }

    /// The days or months named outright; None where it is more than a list of those.
    fn listed(&self, field: &str) -> Option<Vec<u32>> {
        let ranges = field.split(',').map(|part| {
            let (from, to) = part.split_once('-').unwrap_or((part, part));
            Some(self.value(from).ok()?..=self.value(to).ok()?)
        });
        Some(ranges.collect::<Option<Vec<_>>>()?.into_iter().flatten().collect())
    }
}

fn comes_at_all(day: &str, month: &str, day_of_week: &str) -> Result<(), Complaint> {
    let longest = |month: u32| match month {
        2 => 29,
        4 | 6 | 9 | 11 => 30,
        _ => 31,
    };
    let (Some(days), Some(months)) = (DAY_OF_MONTH.listed(day), MONTH.listed(month)) else { return Ok(()) };
    let comes = months.iter().any(|month| days.iter().any(|day| *day <= longest(*month)));
    if comes || !matches!(day_of_week, "*" | "?") {
        Ok(())
    } else {
        Err(Complaint::new(format!("day {day} of month {month} never comes")))
    }
}

/// At most four digits, and nothing but digits.
fn number(text: &str) -> Option<u32> {
    let digits = !text.is_empty() && text.len() <= 4 && text.bytes().all(|byte| byte.is_ascii_digit());
    if digits { text.parse().ok() } else { None }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_cron_understands_is_accepted() {
        for good in [
            "15 2 * * *",
            "0 0 24 12 *",
            "*/15 0-6 1,15 * mon-fri",
            "30 15 2 * * *",
            "0 0 L * ?",
            "0 0 15W * *",
            "0 0 LW * *",
            "0 0 * * 5L",
            "0 0 * * fri#2",
            "0 0 * JAN 7",
            "0 0 29 2 *",
            "0 0 31 2,3 *",
            "0 0 30 2 1",
            "0 0 * * 5-7",
            "@daily",
        ] {
            assert_eq!(check(good), Ok(()), "{good}");
        }
    }

    #[test]
    fn what_would_never_or_wrongly_ring_is_refused() {
        for (bad, why) in [
            ("", "`` has 0 fields instead of five or six"),
            ("* * * *", "`* * * *` has 4 fields instead of five or six"),
            ("60 * * * *", "`60` is not a minute (0 to 59)"),
            ("0 24 * * *", "`24` is not an hour (0 to 23)"),
            ("0 0 0 * *", "`0` is not a day of the month (1 to 31)"),
            ("0 0 * 13 *", "`13` is not a month (1 to 12)"),
            ("0 0 * * 8", "`8` is not a day of the week (0 to 7)"),
            ("0 0 * * funday", "`funday` is not a day of the week (0 to 7)"),
            ("5-1 * * * *", "`5-1` runs backwards"),
            ("0 0 * * 5-0", "`5-0` runs backwards"),
            ("*/0 * * * *", "`*/0` has a step that is not 1 to 59"),
            ("*/x * * * *", "`*/x` has a step that is not 1 to 59"),
            ("0 0 30 2 *", "day 30 of month 2 never comes"),
            ("0 0 31 4,jun *", "day 31 of month 4,jun never comes"),
            ("1,,2 * * * *", "`` is not a minute (0 to 59)"),
            ("@dayly", "`@dayly` is not a schedule"),
        ] {
            assert_eq!(check(bad).expect_err(bad).message, why);
        }
    }
}
