//! A manifest for a dump that muster did not capture, made from what the dump says of itself. What it does not say stays unknown.
use drill::manifest::{DumpFormat, FileEntry, Kind, Manifest, Part, SnapshotTimeFrom, Source, VERSION};
use jiff::Timestamp;
use jiff::tz::TimeZone;

use crate::engine::postgresql::dump::{Begun, Description};
use crate::engine::postgresql::install::parse_version;

/// A dump and its files, as they are named in the manifest.
pub struct Described {
    pub name: String,
    pub format: DumpFormat,
    pub files: Vec<FileEntry>,
    pub globals: Option<FileEntry>,
    pub description: Description,
    pub timezone: Option<TimeZone>,
}

/// What is missing, as a sentence.
pub fn manifest(described: Described) -> Result<Manifest, String> {
    let Described { name, format, files, globals, description, timezone } = described;
    let version = description.server_version.ok_or("it does not say which version of PostgreSQL it is of")?;
    let tool = description.dump_version.ok_or("it does not say which version of pg_dump made it")?;
    let number = |text: &str| parse_version(&format!("postgres (PostgreSQL) {text}"));
    let (_, major, minor) =
        number(&version).ok_or_else(|| format!("`{}` is no version of PostgreSQL", version.escape_debug()))?;
    let version_number = major.checked_mul(10_000).and_then(|number| number.checked_add(minor.min(9_999)));
    let version_number = version_number.ok_or("its version of PostgreSQL cannot be")?;
    let database = match description.database {
        Some(database) => database,
        // A script that makes no database goes into one that muster makes.
        None if format.packing().is_some() && description.locale.is_none() => database_of(&name),
        None => return Err("it does not name its database".to_owned()),
    };
    let (snapshot_time, snapshot_time_from) = snapshot_time(description.begun.as_ref(), timezone.as_ref());
    let part = Part {
        database,
        format,
        files,
        baseline: None,
        schema: None,
        blocks: None,
        row_digests: None,
        locale: description.locale,
        extensions: description.extensions,
    };
    Ok(Manifest {
        version: VERSION,
        kind: Kind::Logical,
        name,
        snapshot_time,
        snapshot_time_from,
        source: Source {
            engine: "postgresql".to_owned(),
            version,
            version_number,
            tool: format!("pg_dump (PostgreSQL) {tool}"),
        },
        globals,
        parts: vec![part],
    })
}

fn database_of(name: &str) -> String {
    let taken = ["template0", "template1", "postgres"].contains(&name) || name.is_empty() || name.len() > 63;
    if taken { "restored".to_owned() } else { name.to_owned() }
}

/// Never a guess: a zone's abbreviation that is not UTC's says nothing by itself.
fn snapshot_time(begun: Option<&Begun>, timezone: Option<&TimeZone>) -> (Option<Timestamp>, SnapshotTimeFrom) {
    let Some(Begun { time, zone }) = begun else { return (None, SnapshotTimeFrom::Unknown) };
    let utc = zone.as_deref().is_some_and(|zone| ["UTC", "GMT", "Etc/UTC"].contains(&zone));
    let (zone, from) = match (utc, timezone, zone) {
        (true, _, _) => (TimeZone::UTC, SnapshotTimeFrom::DumpHeader),
        (false, Some(zone), _) => (zone.clone(), SnapshotTimeFrom::DumpHeaderInNamedZone),
        (false, None, None) => (TimeZone::UTC, SnapshotTimeFrom::DumpHeaderReadAsUtc),
        (false, None, Some(_)) => return (None, SnapshotTimeFrom::Unknown),
    };
    // An hour that comes twice is read as its first: a backup must not look newer than it is.
    match zone.to_ambiguous_timestamp(*time).earlier() {
        Ok(time) => (Some(time), from),
        Err(_) => (None, SnapshotTimeFrom::Unknown),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn described(begun: Option<&str>, zone: Option<&str>) -> Described {
        let begun = begun.map(|time| Begun { time: time.parse().expect("a time"), zone: zone.map(str::to_owned) });
        let description = Description {
            server_version: Some("15.18 (Debian 15.18-0+deb12u1)".to_owned()),
            dump_version: Some("16.3".to_owned()),
            begun,
            ..Description::default()
        };
        Described {
            name: "orders".to_owned(),
            format: DumpFormat::Plain,
            files: Vec::new(),
            globals: None,
            description,
            timezone: None,
        }
    }

    #[test]
    fn a_time_is_only_as_good_as_its_zone() {
        let of = |begun, zone, named: Option<&str>| {
            let timezone = named.map(|name| TimeZone::get(name).expect("a zone"));
            let made = manifest(Described { timezone, ..described(begun, zone) }).expect("a manifest");
            (made.snapshot_time.map(|time| time.to_string()), made.snapshot_time_from)
        };
        let summer = Some("2026-07-01T12:00:00");
        let at = |text: &str| Some(text.to_owned());
        assert_eq!(of(None, None, None), (None, SnapshotTimeFrom::Unknown));
        assert_eq!(of(summer, None, None), (at("2026-07-01T12:00:00Z"), SnapshotTimeFrom::DumpHeaderReadAsUtc));
        assert_eq!(
            of(summer, Some("UTC"), Some("Europe/Berlin")),
            (at("2026-07-01T12:00:00Z"), SnapshotTimeFrom::DumpHeader)
        );
        assert_eq!(of(summer, Some("CEST"), None), (None, SnapshotTimeFrom::Unknown));
        let named = (at("2026-07-01T10:00:00Z"), SnapshotTimeFrom::DumpHeaderInNamedZone);
        assert_eq!(of(summer, Some("CEST"), Some("Europe/Berlin")), named);
        assert_eq!(of(summer, None, Some("Europe/Berlin")), named);
        // 02:30 comes twice on this night.
        let twice = of(Some("2026-10-25T02:30:00"), None, Some("Europe/Berlin"));
        assert_eq!(twice.0, at("2026-10-25T00:30:00Z"));
    }

    #[test]
    fn a_script_without_a_database_gets_one_of_its_own_name() {
        let database = |name: &str| {
            let made = manifest(Described { name: name.to_owned(), ..described(None, None) });
            made.expect("a manifest").parts[0].database.clone()
        };
        assert_eq!(database("orders"), "orders");
        assert_eq!(database("template1"), "restored");
        assert!(manifest(Described { format: DumpFormat::Custom, ..described(None, None) }).is_err());
        let made = manifest(described(None, None)).expect("a manifest");
        assert_eq!((made.source.version_number, made.source.major()), (150_018, 15));
    }
}
