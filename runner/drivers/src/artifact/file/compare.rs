//! The dump's own header against the manifest: a right digest of the wrong dump is caught here.
use std::time::Duration;

use drill::manifest::{Manifest, Part};
use drill::unit;

use crate::engine::postgresql::dump::Description;
use crate::engine::postgresql::dump_header::DumpHeader;

/// How far the clock of the machine that captured may be behind the server's. A capture that sees more says so at once.
pub const CLOCK_TOLERANCE: Duration = Duration::from_hours(1);
/// Databases are dumped one after the other, long after their snapshots.
const LONGEST_CAPTURE: Duration = Duration::from_hours(72);

/// What does not agree, as a sentence. The header's time is in UTC, because capture runs `pg_dump` with `TZ=UTC`.
pub fn dump_agrees(header: &DumpHeader, manifest: &Manifest, part: &Part) -> Result<(), String> {
    let same = |what: &str, found: Option<&str>, expected: &str| match found {
        Some(found) if found == expected => Ok(()),
        found => Err(format!(
            "the dump is of {what} `{}`, and the manifest says `{expected}`",
            found.unwrap_or("unknown").escape_debug()
        )),
    };
    same("database", header.database.as_deref(), &part.database)?;
    same("server version", header.server_version.as_deref(), &manifest.source.version)?;
    if header.entries == 0 {
        return Err("the dump has no entries".to_owned());
    }
    let created = header.created.and_then(|time| time.to_zoned(jiff::tz::TimeZone::UTC).ok());
    let Some(created) = created else { return Err("the dump does not say when it was made".to_owned()) };
    let Some(taken) = manifest.snapshot_time else {
        return Err("the manifest does not say when the snapshot was taken".to_owned());
    };
    let after = created.timestamp().duration_since(taken);
    let apart = after.unsigned_abs();
    if apart > if after.is_negative() { CLOCK_TOLERANCE } else { LONGEST_CAPTURE } {
        return Err(format!(
            "the dump was made at {}, {} from the snapshot's {taken}",
            created.timestamp(),
            unit::duration(apart),
        ));
    }
    Ok(())
}

/// The same for a dump that muster did not capture: its manifest was made of what it says of itself, and still must be.
pub(super) fn description_agrees(found: &Description, manifest: &Manifest, part: &Part) -> Result<(), String> {
    let same = |what: &str, found: Option<&str>, expected: &str| match found {
        Some(found) if found != expected => {
            Err(format!("the dump is of {what} `{}`, and the manifest says `{expected}`", found.escape_debug()))
        }
        Some(_) | None => Ok(()),
    };
    same("database", found.database.as_deref(), &part.database)?;
    same("server version", found.server_version.as_deref(), &manifest.source.version)?;
    if found.locale != part.locale {
        return Err("the dump makes its database with another locale than the manifest says".to_owned());
    }
    Ok(())
}
