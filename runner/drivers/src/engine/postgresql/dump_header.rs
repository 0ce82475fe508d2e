//! The header of an archive of `pg_dump`, as `pg_backup_archiver.c` writes it: the same in a custom file, in the `toc.dat` of a
//! directory, and in the `toc.dat` that is the first member of a tar. Everything in it is hostile input.
use std::fmt;
use std::io::{self, Read};
use std::path::Path;

use drill::stop::{OrStop, Stop};
use drill::verdict::Reason;

/// Bytes a text of the header may have.
const MAX_TEXT: u64 = 16 << 10;
/// `pg_dump` 9.1 to 18 write 1.12 to 1.16.
const OLDEST: (u8, u8) = (1, 10);
const NEWEST: (u8, u8) = (1, 16);

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DumpHeader {
    /// Of the archive format, such as (1, 14, 0).
    pub version: (u8, u8, u8),
    pub int_size: u8,
    pub offset_size: u8,
    pub kind: ArchiveKind,
    pub compression: Compression,
    /// When the dump was begun, in the time zone of the process that made it (which is not recorded).
    pub created: Option<jiff::civil::DateTime>,
    pub database: Option<String>,
    /// Such as `15.18 (Debian 15.18-0+deb12u1)`.
    pub server_version: Option<String>,
    pub dump_version: Option<String>,
    /// Entries of the table of contents.
    pub entries: u64,
}

/// `archCustom`, `archTar` and `archDirectory`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ArchiveKind {
    Custom,
    Tar,
    Directory,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Compression {
    None,
    Gzip,
    Lz4,
    Zstd,
}

impl Compression {
    pub fn as_str(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::Gzip => "gzip",
            Self::Lz4 => "lz4",
            Self::Zstd => "zstd",
        }
    }
}

#[derive(Debug, thiserror::Error)]
pub enum BadDump {
    #[error("it ends within its header")]
    Short,
    #[error("it does not begin with PGDMP: it is no archive of pg_dump")]
    Magic,
    #[error("its archive version {0}.{1} is not one of 1.10 to 1.16")]
    Version(u8, u8),
    #[error("its format is {0}, and 1 (custom), 3 (tar) and 5 (directory) are known")]
    Format(u8),
    #[error("its header holds an impossible {0}")]
    Impossible(&'static str),
    #[error("reading it failed")]
    Io(#[source] io::Error),
}

impl DumpHeader {
    pub fn read(from: impl Read) -> Result<Self, BadDump> {
        Reader { from, int_size: 4 }.header()
    }

    pub fn read_file(path: &Path) -> Result<Self, Stop> {
        let shown = path.display();
        let file = std::fs::File::open(path).or_stop(Reason::Internal, format!("opening the dump `{shown}`"))?;
        Self::read(io::BufReader::new(file)).or_stop(Reason::ArtifactRefused, format!("reading the dump `{shown}`"))
    }
}

/// Entries of a dump's table of contents, for "812 of 1,204 entries".
pub fn toc_entries(path: &Path) -> Result<u64, Stop> {
    DumpHeader::read_file(path).map(|header| header.entries)
}

pub(super) struct Reader<R> {
    pub(super) from: R,
    pub(super) int_size: u8,
}

impl<R: Read> Reader<R> {
    pub(super) fn header(&mut self) -> Result<DumpHeader, BadDump> {
        let mut magic = [0; 5];
        self.fill(&mut magic)?;
        if magic != *b"PGDMP" {
            return Err(BadDump::Magic);
        }
        let version = (self.byte()?, self.byte()?, self.byte()?);
        let minor = (version.0, version.1);
        if !(OLDEST..=NEWEST).contains(&minor) {
            return Err(BadDump::Version(version.0, version.1));
        }
        self.int_size = self.byte()?;
        if !(1..=32).contains(&self.int_size) {
            return Err(BadDump::Impossible("size of integers"));
        }
        let offset_size = self.byte()?;
        let kind = match self.byte()? {
            1 => ArchiveKind::Custom,
            3 => ArchiveKind::Tar,
            5 => ArchiveKind::Directory,
            other => return Err(BadDump::Format(other)),
        };
        let compression = self.compression(minor)?;
        let created = self.created()?;
        let database = self.text()?;
        let server_version = self.text()?;
        let dump_version = self.text()?;
        let entries = u64::try_from(self.int()?).map_err(|_| BadDump::Impossible("number of entries"))?;
        Ok(DumpHeader {
            version,
            int_size: self.int_size,
            offset_size,
            kind,
            compression,
            created,
            database,
            server_version,
            dump_version,
            entries,
        })
    }

    /// A byte since 1.15; before it a level, of gzip where it is not 0.
    fn compression(&mut self, version: (u8, u8)) -> Result<Compression, BadDump> {
        if version < (1, 15) {
            return Ok(if self.int()? == 0 { Compression::None } else { Compression::Gzip });
        }
        match self.byte()? {
            0 => Ok(Compression::None),
            1 => Ok(Compression::Gzip),
            2 => Ok(Compression::Lz4),
            3 => Ok(Compression::Zstd),
            _ => Err(BadDump::Impossible("compression")),
        }
    }

    /// The fields of a `struct tm`. None where they are no time: `pg_restore` only warns then.
    fn created(&mut self) -> Result<Option<jiff::civil::DateTime>, BadDump> {
        let mut fields = [0i64; 7];
        for field in &mut fields {
            *field = self.int()?;
        }
        let [second, minute, hour, day, month, year, _] = fields;
        let small = |value: i64| i8::try_from(value).ok();
        let time = || {
            let year = i16::try_from(year.checked_add(1900)?).ok()?;
            let month = small(month.checked_add(1)?)?;
            // A leap second is the last one of its minute.
            let second = small(second.min(59))?;
            jiff::civil::DateTime::new(year, month, small(day)?, small(hour)?, small(minute)?, second, 0).ok()
        };
        Ok(time())
    }

    pub(super) fn text(&mut self) -> Result<Option<String>, BadDump> {
        let Ok(length) = u64::try_from(self.int()?) else { return Ok(None) };
        if length > MAX_TEXT {
            return Err(BadDump::Impossible("length of a text"));
        }
        self.exactly(length).map(Some)
    }

    /// The beginning of a text of any length; the rest is passed over.
    pub(super) fn long_text(&mut self) -> Result<Option<String>, BadDump> {
        let Ok(length) = u64::try_from(self.int()?) else { return Ok(None) };
        let kept = self.exactly(length.min(MAX_TEXT))?;
        let rest = length.saturating_sub(MAX_TEXT);
        let skipped = io::copy(&mut (&mut self.from).take(rest), &mut io::sink()).map_err(BadDump::Io)?;
        if skipped == rest { Ok(Some(kept)) } else { Err(BadDump::Short) }
    }

    fn exactly(&mut self, length: u64) -> Result<String, BadDump> {
        let mut bytes = Vec::new();
        let read = (&mut self.from).take(length).read_to_end(&mut bytes).map_err(BadDump::Io)?;
        if read as u64 != length {
            return Err(BadDump::Short);
        }
        Ok(String::from_utf8_lossy(&bytes).into_owned())
    }

    /// A sign byte, then the value with its lowest byte first.
    pub(super) fn int(&mut self) -> Result<i64, BadDump> {
        let negative = self.byte()? != 0;
        let mut value: i64 = 0;
        for position in 0..self.int_size {
            let byte = i64::from(self.byte()?);
            if byte != 0 {
                if position >= 4 {
                    return Err(BadDump::Impossible("integer"));
                }
                value |= byte << (8 * u32::from(position));
            }
        }
        Ok(if negative { -value } else { value })
    }

    fn byte(&mut self) -> Result<u8, BadDump> {
        let mut byte = [0];
        self.fill(&mut byte)?;
        Ok(byte[0])
    }

    pub(super) fn fill(&mut self, bytes: &mut [u8]) -> Result<(), BadDump> {
        self.from.read_exact(bytes).map_err(|error| match error.kind() {
            io::ErrorKind::UnexpectedEof => BadDump::Short,
            _ => BadDump::Io(error),
        })
    }
}

impl fmt::Display for DumpHeader {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let text = |value: &Option<String>| value.clone().unwrap_or_else(|| "nobody knows".to_owned());
        write!(
            f,
            "archive {}.{}, {} entries, compression {}, server {}, pg_dump {}",
            self.version.0,
            self.version.1,
            self.entries,
            self.compression.as_str(),
            text(&self.server_version),
            text(&self.dump_version),
        )
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Writes what `WriteHead` writes.
    fn header(minor: u8) -> Vec<u8> {
        let int = |value: i32| {
            let mut bytes = vec![u8::from(value < 0)];
            bytes.extend(value.unsigned_abs().to_le_bytes());
            bytes
        };
        let text = |text: &str| [int(i32::try_from(text.len()).expect("short")), text.as_bytes().to_vec()].concat();
        let mut bytes = b"PGDMP".to_vec();
        bytes.extend([1, minor, 0, 4, 8, 1]);
        bytes.extend(if minor < 15 { int(-1) } else { vec![1] });
        for field in [30, 15, 2, 22, 10, 126, 0] {
            bytes.extend(int(field));
        }
        bytes.extend([text("orders"), text("15.18 (Debian)"), text("15.18"), int(1204)].concat());
        bytes
    }

    #[test]
    fn headers_of_all_versions_are_read() {
        for minor in 10..=16 {
            let read = DumpHeader::read(header(minor).as_slice()).expect("a header");
            assert_eq!(read.version, (1, minor, 0));
            assert_eq!(read.compression, Compression::Gzip);
            assert_eq!(read.database.as_deref(), Some("orders"));
            assert_eq!(read.server_version.as_deref(), Some("15.18 (Debian)"));
            assert_eq!(read.created, Some(jiff::civil::date(2026, 11, 22).at(2, 15, 30, 0)));
            assert_eq!(read.entries, 1204);
        }
    }

    #[test]
    fn what_is_no_dump_says_why() {
        let refuse = |bytes: &[u8]| DumpHeader::read(bytes).expect_err("no dump").to_string();
        assert!(refuse(b"").contains("ends within"));
        assert!(refuse(b"PK\x03\x04....").contains("PGDMP"));
        assert!(refuse(&header(17)).contains("1.17"));
        let mut tar = header(14);
        tar[10] = 3;
        assert_eq!(DumpHeader::read(tar.as_slice()).expect("a header").kind, ArchiveKind::Tar);
        tar[10] = 2;
        assert!(refuse(&tar).contains("format is 2"));
        let mut negative = header(14);
        let sign = negative.len() - 5;
        negative[sign] = 1;
        assert!(refuse(&negative).contains("number of entries"));
    }

    proptest! {
        #[test]
        fn every_cut_is_short(minor in 10u8..=16, cut in any::<prop::sample::Index>()) {
            let whole = header(minor);
            let cut = cut.index(whole.len());
            prop_assert!(matches!(DumpHeader::read(&whole[..cut]), Err(BadDump::Short)));
        }

        #[test]
        fn no_change_makes_it_panic_or_read_without_end(
            minor in 10u8..=16,
            changes in proptest::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..8),
        ) {
            let mut bytes = header(minor);
            for (at, value) in changes {
                let at = at.index(bytes.len());
                bytes[at] = value;
            }
            if let Ok(read) = DumpHeader::read(bytes.as_slice()) {
                let texts = [read.database, read.server_version, read.dump_version];
                prop_assert!(texts.iter().flatten().all(|text| text.len() <= 3 * bytes.len()));
            }
        }

        #[test]
        fn no_bytes_make_it_panic(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
            let _ = DumpHeader::read([b"PGDMP\x01\x0e\x00".as_slice(), &bytes].concat().as_slice());
        }
    }
}
