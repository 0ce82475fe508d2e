//! What a plain dump says of itself in comments and in its first statements.
use std::fs::File;
use std::io::{self, Read};

use drill::manifest::Packing;

use super::super::script::{Event, Scanner};
use super::{At, Begun, Description, Unreadable, create};
use crate::unpack::{Bounded, unpack};

const MOST_EXTENSIONS: usize = 1_000;
/// How often a packed script may be as large as its file. `gzip` reaches 1,032 on zeros, and dumps of rows reach 100.
const LONGEST_EXPANSION: u64 = 1_000;
const ALWAYS_ALLOWED: u64 = 1 << 30;

pub fn expansion_limit(size: u64) -> u64 {
    size.saturating_mul(LONGEST_EXPANSION).max(ALWAYS_ALLOWED)
}

/// Reads the script to its end, so that nothing in it can be anything but what `pg_dump` writes.
pub(super) fn read(packing: Packing, file: &File, stop: &dyn Fn() -> bool) -> Result<Description, Unreadable> {
    let mut description = Description::default();
    read_to_end(packing, file, stop, |event| note(&mut description, &event))?;
    // Who connects has made the database before, and says with which locale.
    if description.database.is_some() && description.locale.is_none() {
        return Err(Unreadable::Unknown("it connects to a database that it does not make as pg_dump does".to_owned()));
    }
    Ok(description)
}

fn read_to_end(
    packing: Packing,
    file: &File,
    stop: &dyn Fn() -> bool,
    tell: impl FnMut(Event<'_>),
) -> Result<(), Unreadable> {
    let size = file.metadata().map_err(Unreadable::Io)?.len();
    let limit = if packing == Packing::None { size } else { expansion_limit(size) };
    let (mut reader, _) = Bounded::new(unpack(packing, At { file, offset: 0 }), limit);
    let mut scanner = Scanner::new(tell);
    let mut buffer = vec![0; 128 << 10];
    loop {
        if stop() {
            return Err(Unreadable::Stopped);
        }
        match reader.read(&mut buffer) {
            Ok(0) => break,
            Ok(read) => scanner.push(&buffer[..read])?,
            Err(error) if error.kind() == io::ErrorKind::FileTooLarge => {
                return Err(Unreadable::TooLarge { limit, size });
            }
            Err(error) => return Err(Unreadable::Io(error)),
        }
    }
    Ok(scanner.finish()?)
}

/// Whether a script of roles holds what `pg_dumpall` writes, and nothing else.
pub fn check_globals(file: &File) -> Result<(), Unreadable> {
    read_to_end(Packing::None, file, &|| false, |_| ())
}

/// The first word on each matter counts: what follows may be a comment of the source's own.
fn note(description: &mut Description, event: &Event<'_>) {
    match event {
        Event::Comment(text) => {
            if let Some(version) = text.strip_prefix("Dumped from database version ") {
                description.server_version.get_or_insert_with(|| version.to_owned());
            } else if let Some(version) = text.strip_prefix("Dumped by pg_dump version ") {
                description.dump_version.get_or_insert_with(|| version.to_owned());
            } else if let Some(time) = text.strip_prefix("Started on ")
                && description.begun.is_none()
            {
                description.begun = begun(time);
            }
        }
        Event::Connect(database) => {
            description.database.get_or_insert_with(|| (*database).to_owned());
        }
        Event::Statement(text) => {
            if text.starts_with("CREATE DATABASE ") && description.locale.is_none() {
                description.locale = create::locale(text);
            } else if description.extensions.len() < MOST_EXTENSIONS {
                description.extensions.extend(create::extension(text));
            }
        }
    }
}

/// `2026-11-22 02:15:30 UTC`; the zone may be absent.
fn begun(text: &str) -> Option<Begun> {
    let (time, zone) = (text.get(..19)?, text.get(19..)?.trim());
    let time = jiff::civil::DateTime::strptime("%Y-%m-%d %H:%M:%S", time).ok()?;
    Some(Begun { time, zone: (!zone.is_empty()).then(|| zone.to_owned()) })
}
