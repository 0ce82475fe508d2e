//! Reads every file once: what is hashed is what is staged.
use std::fs::{DirBuilder, File, OpenOptions};
use std::io::Read as _;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::atomic::Ordering;

use drill::manifest::{DumpFormat, FileEntry, Manifest, Part};
use drill::stop::{OrStop, Stop};
use drill::unit;
use drill::verdict::Reason;

use super::super::beneath::Identity;
use super::super::fault;
use super::super::tree::{self, Chunks, HashError, Meter, SIDE_FILE_SUFFIX};
use super::{Inner, compare};
use crate::engine::postgresql::dump;
use crate::engine::postgresql::dump_header::DumpHeader;

/// What of a backup is read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Which {
    All,
    /// The dumps lie elsewhere.
    Baselines,
}

impl Which {
    pub(super) fn of(self, manifest: &Manifest) -> Vec<&FileEntry> {
        match self {
            Self::All => manifest.files().collect(),
            Self::Baselines => manifest.baselines().collect(),
        }
    }
}

impl Inner {
    pub(super) fn read_files(&self, which: Which, staging: Option<&Path>, meter: &Meter) -> Result<(), Stop> {
        self.read_entries(&which.of(&self.manifest), staging, meter)?;
        if which == Which::Baselines { Ok(()) } else { self.compare_all(staging, meter) }
    }

    pub(super) fn read_entries(
        &self,
        entries: &[&FileEntry],
        staging: Option<&Path>,
        meter: &Meter,
    ) -> Result<(), Stop> {
        // Sizes first: a truncated dump need not wait for gigabytes of hashing.
        for entry in entries {
            self.open(entry)?;
        }
        for entry in entries {
            self.read_file(entry, staging, meter)?;
        }
        Ok(())
    }

    pub(super) fn compare_all(&self, staging: Option<&Path>, meter: &Meter) -> Result<(), Stop> {
        for part in &self.manifest.parts {
            self.compare(part, staging, meter)?;
        }
        Ok(())
    }

    /// The dump itself against the manifest. A script is read to its end, so that it holds no surprise.
    fn compare(&self, part: &Part, staging: Option<&Path>, meter: &Meter) -> Result<(), Stop> {
        let Some(entry) = told_by(part) else {
            let problem = format!("the dump of database {} has no {}", part.database, dump::TOC);
            return Err(Stop::new(Reason::ArtifactRefused, problem));
        };
        let file = match staging {
            Some(staging) => File::open(staging.join(&entry.path))
                .map_err(|error| fault::staging(&error, format!("`{}`", entry.path)))?,
            None => self.open(entry)?.0,
        };
        let shown = self.shown(entry);
        let agrees = if self.manifest.snapshot_time_from.is_capture() && part.format == DumpFormat::Custom {
            let header = DumpHeader::read(std::io::BufReader::new(file))
                .or_stop(Reason::ArtifactRefused, format!("reading the header of {shown}"))?;
            compare::dump_agrees(&header, &self.manifest, part)
        } else {
            let description = dump::describe(part.format, file, &|| meter.stop.load(Ordering::Relaxed))
                .map_err(|error| error.stop(&shown))?;
            match &self.described {
                Some(described) if *described != description => {
                    Err("it does not say of itself what it said when it was opened, so it was changed meanwhile"
                        .to_owned())
                }
                _ => compare::description_agrees(&description, &self.manifest, part),
            }
        };
        agrees.map_err(|why| Stop::new(Reason::ArtifactRefused, format!("{shown}: {why}")))
    }

    pub(super) fn open(&self, entry: &FileEntry) -> Result<(File, Identity), Stop> {
        let reading = |error| fault::reading(&error, self.shown(entry));
        let file = self.directory.file(&entry.path).map_err(reading)?;
        let identity = Identity::of(&file).map_err(reading)?;
        if identity.size != entry.size {
            let problem = format!(
                "{} has {} bytes, and the manifest says {}",
                self.shown(entry),
                unit::count(identity.size),
                unit::count(entry.size)
            );
            return Err(Stop::new(Reason::ArtifactRefused, problem));
        }
        Ok((file, identity))
    }

    fn read_file(&self, entry: &FileEntry, staging: Option<&Path>, meter: &Meter) -> Result<(), Stop> {
        let (source, before) = self.open(entry)?;
        let expected = self.side_file(entry)?;
        let copy = staging.map(|staging| create(staging, &entry.path)).transpose()?;
        // Where the file system shares blocks, the copy costs nothing, and it is the copy that is hashed.
        let cloned = copy.as_ref().filter(|copy| rustix::fs::ioctl_ficlone(copy, &source).is_ok());
        let (from, to) = match cloned {
            Some(clone) => (clone, None),
            None => (&source, copy.as_ref()),
        };
        let hashed = tree::hash(from, to, entry.size, entry.tree.chunk_size, expected.as_ref(), meter);
        self.unchanged(entry, before, &source)?;
        let found = match hashed {
            Ok(chunks) => chunks.root(),
            Err(HashError::Differs { chunk }) => return Err(self.differs_at(entry, chunk)),
            Err(HashError::Stopped) => {
                return Err(Stop::new(Reason::Interrupted, "reading the backup was interrupted"));
            }
            Err(HashError::Read(error)) => return Err(fault::reading(&error, self.shown(entry))),
            Err(HashError::Write(error)) => return Err(fault::staging(&error, self.shown(entry))),
        };
        if found == entry.tree.root {
            return Ok(());
        }
        let range =
            if entry.size <= entry.tree.chunk_size { format!(" (bytes 0 to {})", entry.size) } else { String::new() };
        Err(Stop::new(
            Reason::ArtifactRefused,
            format!(
                "{} is not the file that was backed up: chunk tree {} expected, {} found{range}",
                self.shown(entry),
                entry.tree.root.short(),
                found.short()
            ),
        ))
    }

    fn differs_at(&self, entry: &FileEntry, chunk: usize) -> Stop {
        let from = chunk as u64 * entry.tree.chunk_size;
        let to = (from + entry.tree.chunk_size).min(entry.size);
        let problem = format!(
            "{} is not the file that was backed up: bytes {} to {} differ (chunk {} of {}, chunk tree {})",
            self.shown(entry),
            unit::count(from),
            unit::count(to),
            chunk + 1,
            tree::chunk_count(entry.size, entry.tree.chunk_size),
            entry.tree.root.short()
        );
        Stop::new(Reason::ArtifactRefused, problem)
    }

    /// The side file only says where a file differs, so a backup without it is whole; one that disagrees with the signed root
    /// is damaged like any other file.
    fn side_file(&self, entry: &FileEntry) -> Result<Option<Chunks>, Stop> {
        let count = tree::chunk_count(entry.size, entry.tree.chunk_size);
        let name = format!("{}{SIDE_FILE_SUFFIX}", entry.path);
        if count < 2 || self.manifest.files().any(|file| file.path == name) {
            return Ok(None);
        }
        let shown = format!("`{}`", self.location.join(&name).display());
        let file = match self.directory.file(&name) {
            Ok(file) => file,
            Err(error) if error.raw_os_error() == Some(libc::ENOENT) => return Ok(None),
            Err(error) => return Err(fault::reading(&error, shown)),
        };
        let length = count as u64 * 32;
        let mut bytes = Vec::new();
        file.take(length + 1).read_to_end(&mut bytes).map_err(|error| fault::reading(&error, &shown))?;
        Chunks::from_side_file(&bytes, &entry.tree).map(Some).ok_or_else(|| {
            let problem =
                format!("{shown} is damaged: it is not what chunk tree {} vouches for", entry.tree.root.short());
            Stop::new(Reason::ArtifactRefused, problem)
        })
    }

    fn unchanged(&self, entry: &FileEntry, before: Identity, source: &File) -> Result<(), Stop> {
        let reading = |error| fault::reading(&error, self.shown(entry));
        let after = Identity::of(source).map_err(reading)?;
        let there_now = self.directory.file(&entry.path).and_then(|file| Identity::of(&file)).map_err(reading)?;
        if after == before && there_now == before {
            Ok(())
        } else {
            Err(Stop::new(Reason::ArtifactRefused, format!("{} was changed while it was read", self.shown(entry))))
        }
    }

    fn shown(&self, entry: &FileEntry) -> String {
        format!("`{}`", self.location.join(&entry.path).display())
    }
}

/// The file that says what the dump is.
fn told_by(part: &Part) -> Option<&FileEntry> {
    match part.format {
        DumpFormat::Directory => part.files.iter().find(|file| file.path.rsplit('/').next() == Some(dump::TOC)),
        _ => part.files.first(),
    }
}

/// A new file in staging, readable for the sandbox's user whatever the umask is.
pub(super) fn create(staging: &Path, path: &str) -> Result<File, Stop> {
    let target: PathBuf = staging.join(path);
    let failed = |error| fault::staging(&error, format!("`{}`", target.display()));
    let mut directory = staging.to_owned();
    for step in Path::new(path).parent().into_iter().flat_map(Path::components) {
        directory.push(step);
        match DirBuilder::new().mode(0o755).create(&directory) {
            Ok(()) => {
                std::fs::set_permissions(&directory, std::fs::Permissions::from_mode(0o755)).map_err(failed)?;
            }
            Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => {}
            Err(error) => return Err(failed(error)),
        }
    }
    let file = OpenOptions::new().read(true).write(true).create_new(true).mode(0o644).open(&target).map_err(failed)?;
    file.set_permissions(std::fs::Permissions::from_mode(0o644)).map_err(failed)?;
    Ok(file)
}
