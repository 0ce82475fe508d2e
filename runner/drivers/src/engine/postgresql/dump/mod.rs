//! What a dump says of itself, whatever its format. Everything in it is hostile input: it is read here, outside the sandbox, by
//! muster alone and in bounded memory.
mod create;
mod script;
mod toc;

use std::fs::File;
use std::io::{self, BufReader, Read, Seek, SeekFrom};
use std::os::unix::fs::FileExt;
use std::path::Path;

use drill::manifest::{DumpFormat, Extension, Locale, Packing};
use drill::stop::Stop;
use drill::verdict::Reason;

use super::dump_header::{ArchiveKind, BadDump};
use super::script::Refusal;
use crate::unpack;

pub use script::{check_globals, expansion_limit};

/// What makes a directory a dump.
pub const TOC: &str = "toc.dat";
const TAR_BLOCK: usize = 512;

/// What is known of a dump; None where it does not say.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Description {
    pub database: Option<String>,
    /// Such as `15.18 (Debian 15.18-0+deb12u1)`.
    pub server_version: Option<String>,
    pub dump_version: Option<String>,
    pub begun: Option<Begun>,
    /// What the dump makes its database with.
    pub locale: Option<Locale>,
    pub extensions: Vec<Extension>,
}

/// When `pg_dump` began.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Begun {
    pub time: jiff::civil::DateTime,
    /// An abbreviation such as `CET`; archives record none.
    pub zone: Option<String>,
}

#[derive(Debug, thiserror::Error)]
pub enum Unreadable {
    #[error(transparent)]
    Archive(#[from] BadDump),
    #[error(transparent)]
    Script(#[from] Refusal),
    #[error("{0}")]
    Unknown(String),
    #[error("it unpacks to more than {} from {}", drill::unit::size(*.limit), drill::unit::size(*.size))]
    TooLarge { limit: u64, size: u64 },
    #[error("reading it was interrupted")]
    Stopped,
    #[error("reading it failed: {0}")]
    Io(#[source] io::Error),
}

impl Unreadable {
    /// `shown` is the file.
    pub fn stop(self, shown: &str) -> Stop {
        let message = format!("{shown} is no dump that can be restored: {self}");
        match self {
            Self::Script(refusal) => Stop::new(Reason::ArtifactRefused, message).advise(refusal.advice),
            Self::Archive(_) | Self::Unknown(_) => Stop::new(Reason::ArtifactRefused, message),
            Self::TooLarge { .. } => Stop::new(Reason::LimitReached, format!("{shown}: {self}"))
                .advise("if that is right, unpack it yourself and drill the plain file"),
            Self::Stopped => Stop::new(Reason::Interrupted, format!("{shown}: {self}")),
            Self::Io(ref error) if error.raw_os_error().is_none() => Stop::new(Reason::ArtifactRefused, message),
            Self::Io(error) => crate::artifact::reading(&error, shown),
        }
    }
}

/// The format of a file, by how it begins; of a directory, by what is in it.
pub fn format(path: &Path) -> Result<DumpFormat, Unreadable> {
    if path.is_dir() {
        return if path.join(TOC).is_file() {
            Ok(DumpFormat::Directory)
        } else {
            Err(Unreadable::Unknown(format!("the directory has no {TOC}")))
        };
    }
    format_of_file(&File::open(path).map_err(Unreadable::Io)?)
}

/// Of a file that is no directory's.
pub fn format_of_file(file: &File) -> Result<DumpFormat, Unreadable> {
    let mut head = [0; TAR_BLOCK];
    let length = read_at(file, &mut head)?;
    let head = &head[..length];
    if head.starts_with(b"PGDMP") {
        return Ok(DumpFormat::Custom);
    }
    if head.get(257..262) == Some(b"ustar".as_slice()) {
        return Ok(DumpFormat::Tar);
    }
    let packing = unpack::packing(head);
    let mut inner = [0; TAR_BLOCK];
    let unpacked = match packing {
        Packing::None => head,
        Packing::Gzip | Packing::Zstd => {
            let mut reader = unpack::unpack(packing, At { file, offset: 0 });
            let length = fill(&mut reader, &mut inner).map_err(Unreadable::Io)?;
            &inner[..length]
        }
    };
    if packing != Packing::None
        && (unpacked.starts_with(b"PGDMP") || unpacked.get(257..262) == Some(b"ustar".as_slice()))
    {
        let why = format!("it is an archive of pg_dump within {}: unpack it first", packing.as_str());
        return Err(Unreadable::Unknown(why));
    }
    if unpacked.starts_with(&[0xff, 0xfe]) || unpacked.starts_with(&[0xfe, 0xff]) {
        let why = "it is UTF-16, as the `>` of PowerShell writes it: dump with `pg_dump --file` instead";
        return Err(Unreadable::Unknown(why.to_owned()));
    }
    let text = String::from_utf8_lossy(unpacked);
    if text.contains("-- PostgreSQL database cluster dump") {
        let why = "it is of pg_dumpall: drill each database's own dump, and hand the roles to `muster adopt --globals`";
        return Err(Unreadable::Unknown(why.to_owned()));
    }
    if !text.contains("-- PostgreSQL database dump") {
        return Err(Unreadable::Unknown("it begins like no dump of pg_dump".to_owned()));
    }
    Ok(match packing {
        Packing::None => DumpFormat::Plain,
        Packing::Gzip => DumpFormat::PlainGzip,
        Packing::Zstd => DumpFormat::PlainZstd,
    })
}

/// Reads an archive's table of contents, or the whole of a script. `file` is a directory's `toc.dat`. `stop` is asked now and then.
pub fn describe(format: DumpFormat, mut file: File, stop: &dyn Fn() -> bool) -> Result<Description, Unreadable> {
    file.seek(SeekFrom::Start(0)).map_err(Unreadable::Io)?;
    let archive = |kind, from: &mut dyn Read| toc::read(kind, from).map_err(Unreadable::from);
    match format {
        DumpFormat::Custom => archive(ArchiveKind::Custom, &mut BufReader::new(file)),
        DumpFormat::Directory => archive(ArchiveKind::Directory, &mut BufReader::new(file)),
        DumpFormat::Tar => {
            let size = first_member(&mut file)?;
            archive(ArchiveKind::Tar, &mut BufReader::new(file.take(size)))
        }
        DumpFormat::Plain => script::read(Packing::None, &file, stop),
        DumpFormat::PlainGzip => script::read(Packing::Gzip, &file, stop),
        DumpFormat::PlainZstd => script::read(Packing::Zstd, &file, stop),
    }
}

/// The size of a tar's first member, which is `toc.dat` in what `pg_dump` writes.
fn first_member(file: &mut File) -> Result<u64, Unreadable> {
    let mut header = [0; TAR_BLOCK];
    file.read_exact(&mut header).map_err(|_| BadDump::Short)?;
    let name = header[..100].split(|byte| *byte == 0).next().unwrap_or_default();
    if name != TOC.as_bytes() {
        return Err(Unreadable::Unknown(format!(
            "it is a tar that does not begin with {TOC}: pg_dump did not make it"
        )));
    }
    let mut size = header[124..136].iter().filter(|byte| byte.is_ascii_digit());
    size.try_fold(0u64, |size, digit| size.checked_mul(8)?.checked_add(u64::from(digit - b'0')))
        .ok_or_else(|| Unreadable::Unknown("the size of its table of contents cannot be".to_owned()))
}

fn read_at(file: &File, buffer: &mut [u8]) -> Result<usize, Unreadable> {
    fill(&mut At { file, offset: 0 }, buffer).map_err(Unreadable::Io)
}

fn fill(from: &mut dyn Read, buffer: &mut [u8]) -> io::Result<usize> {
    let mut filled = 0;
    while filled < buffer.len() {
        match from.read(&mut buffer[filled..])? {
            0 => break,
            read => filled += read,
        }
    }
    Ok(filled)
}

/// Reads without moving the file's own position.
struct At<'a> {
    file: &'a File,
    offset: u64,
}

impl Read for At<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = self.file.read_at(buffer, self.offset)?;
        self.offset += read as u64;
        Ok(read)
    }
}
