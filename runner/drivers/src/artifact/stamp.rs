//! Names of backup directories: `YYYYMMDDTHHMMSSZ`, so that the order of names is the order of time.
use jiff::Timestamp;

const FORM: &str = "%Y%m%dT%H%M%SZ";

pub fn of(time: Timestamp) -> String {
    time.strftime(FORM).to_string()
}

/// None for every other name.
pub fn parse(name: &str) -> Option<Timestamp> {
    let time = Timestamp::strptime("%Y%m%dT%H%M%S%z", format!("{}+0000", name.strip_suffix('Z')?)).ok()?;
    (of(time) == name).then_some(time)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_one_form_is_a_stamp() {
        let time: Timestamp = "2026-11-22T02:15:00Z".parse().expect("a time");
        assert_eq!(of(time), "20261122T021500Z");
        assert_eq!(parse("20261122T021500Z"), Some(time));
        for bad in [
            "latest",
            "20261122T021500",
            "2026-11-22T02:15:00Z",
            "20261322T021500Z",
            ".tmp-20261122T021500Z-1",
            "Z",
            "",
        ] {
            assert_eq!(parse(bad), None, "{bad}");
        }
    }
}
