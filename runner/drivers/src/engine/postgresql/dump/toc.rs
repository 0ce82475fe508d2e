//! The table of contents of an archive (`ReadToc` of `pg_backup_archiver.c`), for what muster wants to know before a restore.
use std::io::Read;

use super::super::dump_header::{ArchiveKind, BadDump, Reader};
use super::{Begun, Description, create};

/// More than any archive holds; a hostile header cannot make the runner read for ever, because each entry has bytes.
const MOST_EXTENSIONS: usize = 1_000;

pub(super) fn read(kind: ArchiveKind, from: &mut dyn Read) -> Result<Description, BadDump> {
    let mut reader = Reader { from, int_size: 4 };
    let header = reader.header()?;
    // `pg_dump` itself says "tar" in the table of contents of a directory (`InitArchiveFmt_Directory`).
    let says = if kind == ArchiveKind::Directory { [kind, ArchiveKind::Tar] } else { [kind; 2] };
    if !says.contains(&header.kind) {
        return Err(BadDump::Impossible("format: it is part of another kind of archive"));
    }
    if header.entries == 0 {
        return Err(BadDump::Impossible("number of entries: there are none"));
    }
    let mut description = Description {
        database: header.database,
        server_version: header.server_version,
        dump_version: header.dump_version,
        begun: header.created.map(|time| Begun { time, zone: None }),
        ..Description::default()
    };
    let minor = (header.version.0, header.version.1);
    for _ in 0..header.entries {
        let entry = entry(&mut reader, minor, kind, header.offset_size)?;
        match entry.kind.as_str() {
            "DATABASE" => description.locale = create::locale(&entry.definition),
            "EXTENSION" if description.extensions.len() < MOST_EXTENSIONS => {
                description.extensions.extend(create::extension(&entry.definition));
            }
            _ => {}
        }
    }
    Ok(description)
}

struct Entry {
    kind: String,
    /// Its beginning.
    definition: String,
}

fn entry<R: Read>(reader: &mut Reader<R>, minor: (u8, u8), kind: ArchiveKind, offset: u8) -> Result<Entry, BadDump> {
    // Identifier of the dump, whether it has data, identifiers of the catalogue.
    reader.int()?;
    reader.int()?;
    reader.text()?;
    reader.text()?;
    reader.long_text()?;
    let description = reader.text()?.unwrap_or_default();
    if minor >= (1, 11) {
        reader.int()?;
    }
    let definition = reader.long_text()?.unwrap_or_default();
    // How to drop it, how to copy into it, its schema and its tablespace.
    reader.long_text()?;
    reader.long_text()?;
    reader.long_text()?;
    reader.long_text()?;
    if minor >= (1, 14) {
        reader.text()?;
    }
    if minor >= (1, 16) {
        reader.int()?;
    }
    // Its owner, and whether it has oids.
    reader.long_text()?;
    reader.text()?;
    while reader.text()?.is_some() {}
    match kind {
        ArchiveKind::Custom => {
            let mut place = vec![0; 1 + usize::from(offset)];
            reader.fill(&mut place)?;
        }
        ArchiveKind::Tar | ArchiveKind::Directory => {
            reader.text()?;
        }
    }
    Ok(Entry { kind: description, definition })
}
