//! The signed description of a backup, made when the backup is. Manifest v1; unknown keys are errors.
//!
//! A backup is one directory: the dumps, `globals.sql`, the baseline files, `manifest.json`, `manifest.json.minisig`.
use serde::{Deserialize, Serialize};

use crate::id::Sha256Digest;

pub const FILE_NAME: &str = "manifest.json";
pub const SIGNATURE_FILE_NAME: &str = "manifest.json.minisig";
pub const GLOBALS_FILE_NAME: &str = "globals.sql";
pub const VERSION: u32 = 1;
/// Bytes a manifest may have; it is read before anything about it is believed.
pub const MAX_SIZE: u64 = 16 << 20;

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Manifest {
    pub version: u32,
    pub kind: Kind,
    /// What is backed up, such as `orders`; the same for every backup of it.
    pub name: String,
    /// When the snapshot was taken: the recovery point is measured from here. None where nobody recorded it.
    pub snapshot_time: Option<jiff::Timestamp>,
    #[serde(default, skip_serializing_if = "SnapshotTimeFrom::is_capture")]
    pub snapshot_time_from: SnapshotTimeFrom,
    pub source: Source,
    /// Roles, memberships and role settings. None is a finding: a backup without its roles is a classic disaster.
    pub globals: Option<FileEntry>,
    pub parts: Vec<Part>,
}

/// Who says when the snapshot was taken.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum SnapshotTimeFrom {
    /// The source server's clock, asked in the snapshot itself.
    #[default]
    Capture,
    /// The dump says when it was begun, and in UTC.
    DumpHeader,
    /// The dump says when it was begun, in a time zone that somebody named.
    DumpHeaderInNamedZone,
    /// The dump says when it was begun and not in which time zone: it was read as UTC.
    DumpHeaderReadAsUtc,
    /// Nobody recorded it, and a file's modification time proves nothing.
    Unknown,
}

impl SnapshotTimeFrom {
    pub fn is_capture(&self) -> bool {
        *self == Self::Capture
    }

    /// What a person should know about the time; empty where there is nothing to add.
    pub fn note(self) -> &'static str {
        match self {
            Self::Capture => "",
            Self::DumpHeader => "by the dump's own header",
            Self::DumpHeaderInNamedZone => "by the dump's own header, in the time zone that was named for it",
            Self::DumpHeaderReadAsUtc => "by the dump's own header, which names no time zone and was read as UTC",
            Self::Unknown => "nobody recorded when it was taken",
        }
    }
}

/// `physical` is reserved.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Kind {
    Logical,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Source {
    /// `postgresql`.
    pub engine: String,
    /// As the server says it, such as `15.18 (Debian 15.18-0+deb12u1)`.
    pub version: String,
    /// Such as 150018.
    pub version_number: u32,
    /// The tool that made the dump, such as `pg_dump (PostgreSQL) 15.18`.
    pub tool: String,
}

impl Source {
    pub fn major(&self) -> u32 {
        self.version_number / 10_000
    }
}

/// One database.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Part {
    pub database: String,
    pub format: DumpFormat,
    pub files: Vec<FileEntry>,
    pub baseline: Option<FileEntry>,
    /// The objects of its schema: see [`crate::schema`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub schema: Option<FileEntry>,
    /// The blocks of the baseline's content digests.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub blocks: Option<FileEntry>,
    /// Eight bytes of each row's digest.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub row_digests: Option<FileEntry>,
    /// None where the dump does not say what its database was made with.
    pub locale: Option<Locale>,
    pub extensions: Vec<Extension>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum DumpFormat {
    Custom,
    /// Several files, `toc.dat` among them.
    Directory,
    Tar,
    /// A script for `psql`.
    Plain,
    PlainGzip,
    PlainZstd,
}

impl DumpFormat {
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Custom => "custom",
            Self::Directory => "directory",
            Self::Tar => "tar",
            Self::Plain => "plain",
            Self::PlainGzip => "plain-gzip",
            Self::PlainZstd => "plain-zstd",
        }
    }

    /// How a script is packed; None for archives, which `pg_restore` unpacks itself.
    pub fn packing(self) -> Option<Packing> {
        match self {
            Self::Custom | Self::Directory | Self::Tar => None,
            Self::Plain => Some(Packing::None),
            Self::PlainGzip => Some(Packing::Gzip),
            Self::PlainZstd => Some(Packing::Zstd),
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Packing {
    None,
    Gzip,
    Zstd,
}

impl Packing {
    pub const ALL: [Self; 3] = [Self::None, Self::Gzip, Self::Zstd];

    pub fn as_str(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::Gzip => "gzip",
            Self::Zstd => "zstd",
        }
    }
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct FileEntry {
    /// Beneath the backup's directory; never absolute, never through `..` or a symlink.
    pub path: String,
    pub size: u64,
    pub sha256: Sha256Digest,
    pub tree: ChunkTree,
}

/// SHA-256 over the SHA-256 digests of equal chunks, so that a file is hashed on all cores. See checksum notes in
/// ARCHITECTURE.md; the domain tag is `muster chunk tree v1\n`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ChunkTree {
    pub chunk_size: u64,
    pub root: Sha256Digest,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Locale {
    pub encoding: String,
    pub collate: String,
    pub ctype: String,
    /// `libc`, `icu` or `builtin`.
    pub provider: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub icu_locale: Option<String>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Extension {
    pub name: String,
    /// None where only the dump tells of the extension: it names no version.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub version: Option<String>,
    pub schema: String,
}

impl Part {
    fn baselines(&self) -> impl Iterator<Item = &FileEntry> {
        self.baseline.iter().chain(&self.schema).chain(&self.blocks).chain(&self.row_digests)
    }

    /// Whether the dump makes its own database. Archives always do; a script does where it says with which locale.
    pub fn makes_its_database(&self) -> bool {
        self.format.packing().is_none() || self.locale.is_some()
    }
}

impl Manifest {
    /// Every file that the manifest vouches for.
    pub fn files(&self) -> impl Iterator<Item = &FileEntry> {
        let parts = self.parts.iter().flat_map(|part| part.files.iter().chain(part.baselines()));
        self.globals.iter().chain(parts)
    }

    /// Those that the checks compare with, and no restore needs.
    pub fn baselines(&self) -> impl Iterator<Item = &FileEntry> {
        self.parts.iter().flat_map(Part::baselines)
    }

    pub fn total_size(&self) -> u64 {
        self.files().map(|file| file.size).sum()
    }
}
