//! A dump without a manifest: opened as a backup of one part, whose manifest is made here and now.
use std::fs::File;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

use drill::id::Sha256Digest;
use drill::ledger::Vouched;
use drill::manifest::{DumpFormat, FileEntry};
use drill::spec::{DumpSignature, DumpSource};
use drill::stop::{OrStop, Stop};
use drill::verdict::Reason;

use super::super::beneath::Directory;
use super::super::described::{Described, manifest};
use super::super::tree::{HashError, Meter};
use super::super::{check, digest, fault};
use super::{FileBackup, Inner, MAX_SIGNATURE};
use crate::engine::postgresql::dump;
use crate::key::{Signer, Trust};

/// Files of one directory; more than any dump has.
const MOST_FILES: usize = 100_000;

impl FileBackup {
    /// Digest and signature come first: what nobody vouches for is not parsed where somebody should.
    pub(super) fn open_dump(source: &DumpSource, base: &Path, meter: &Meter) -> Result<Self, Stop> {
        let place = Place::find(&base.join(&source.path))?;
        let shown = format!("`{}`", place.path.display());
        let files = place.files()?;
        let (entries, signer) = match &source.signature {
            None => (hash_all(&files, &shown, meter)?, None),
            Some(signature) => {
                let (entries, signer) = signed(signature, base, &place, &files, &shown, meter)?;
                (entries, Some(signer))
            }
        };
        let digest = digest_of(place.is_directory, &entries)?;
        if let Some(expected) = source.sha256.filter(|expected| *expected != digest) {
            let problem = format!("{shown} is not the dump that the drill pins: {expected} expected, {digest} found");
            return Err(Stop::new(Reason::ArtifactRefused, problem)
                .advise("find out who changed it; if this is the dump that you mean, pin its digest"));
        }
        let vouched = match (&signer, source.sha256) {
            (Some(signer), _) => Vouched::Signature { key: signer.name.clone() },
            (None, Some(_)) => Vouched::Sha256,
            (None, None) => Vouched::Nobody,
        };
        let timezone = source.timezone.as_deref().map(jiff::tz::TimeZone::get).transpose();
        let timezone = timezone.or_stop(Reason::Internal, "looking up the dump's time zone")?;
        let (format, description) = describe(&place.name, place.is_directory, &files, &shown, meter)?;
        let described = Some(description.clone());
        let name = drill::file::name_of_dump(&source.path).to_string();
        let manifest = manifest(Described { name, format, files: entries, globals: None, description, timezone })
            .map_err(|why| Stop::new(Reason::ArtifactRefused, format!("{shown} cannot be drilled: {why}")))?;
        let json = serde_json::to_vec(&manifest).or_stop(Reason::Internal, "describing a dump")?;
        check(&json).or_stop(Reason::ArtifactRefused, format!("{shown} cannot be drilled"))?;
        let location = place.path.clone();
        let inner = Arc::new(Inner {
            directory: place.parent,
            manifest: manifest.clone(),
            location: place.parent_path,
            described,
            signed: None,
        });
        Ok(Self { inner, manifest, digest, location, vouched, signer })
    }
}

/// A dump, beneath a directory that is held open.
pub(super) struct Place {
    parent: Directory,
    parent_path: PathBuf,
    /// Where it really is.
    pub(super) path: PathBuf,
    pub(super) name: String,
    pub(super) is_directory: bool,
}

impl Place {
    /// The one time that symbolic links are followed: `latest.dump` is often one.
    pub(super) fn find(path: &Path) -> Result<Self, Stop> {
        let shown = format!("`{}`", path.display());
        let path = path.canonicalize().map_err(|error| fault::reading(&error, &shown))?;
        let name = path.file_name().and_then(|name| name.to_str());
        let name = name
            .ok_or_else(|| Stop::new(Reason::ArtifactRefused, format!("{shown} has no name that is UTF-8")))?
            .to_owned();
        let parent_path = path.parent().unwrap_or(Path::new("/")).to_owned();
        let parent = Directory::open(&parent_path).map_err(|error| fault::reading(&error, &shown))?;
        let is_directory = path.is_dir();
        Ok(Self { parent, parent_path, path, name, is_directory })
    }

    /// By name in the manifest. What is hidden is none of `pg_dump`'s.
    pub(super) fn files(&self) -> Result<Vec<(String, File)>, Stop> {
        let reading = |error: std::io::Error, what: &str| {
            fault::reading(&error, format!("`{}`", self.parent_path.join(what).display()))
        };
        let names = if self.is_directory { self.members()? } else { vec![self.name.clone()] };
        names
            .into_iter()
            .map(|name| self.parent.file(&name).map(|file| (name.clone(), file)).map_err(|error| reading(error, &name)))
            .collect()
    }

    fn members(&self) -> Result<Vec<String>, Stop> {
        let shown = format!("`{}`", self.path.display());
        let refused = |why: &str| Stop::new(Reason::ArtifactRefused, format!("{shown}: {why}"));
        let mut names = Vec::new();
        for entry in std::fs::read_dir(&self.path).map_err(|error| fault::reading(&error, &shown))? {
            let entry = entry.map_err(|error| fault::reading(&error, &shown))?;
            let name = entry.file_name().into_string().map_err(|_| refused("a name in it is not UTF-8"))?;
            if !name.starts_with('.') {
                names.push(format!("{}/{name}", self.name));
            }
            if names.len() > MOST_FILES {
                return Err(refused("it has more files than any dump has"));
            }
        }
        names.sort();
        Ok(names)
    }
}

/// Of the file, or of the list of a directory's files.
pub(super) fn digest_of(is_directory: bool, entries: &[FileEntry]) -> Result<Sha256Digest, Stop> {
    match entries {
        entries if is_directory => Ok(Sha256Digest::of(digest::listing(entries).as_bytes())),
        [entry] => Ok(entry.sha256),
        _ => Err(Stop::internal("a file is not one file")),
    }
}

fn hash_all(files: &[(String, File)], shown: &str, meter: &Meter) -> Result<Vec<FileEntry>, Stop> {
    files.iter().map(|(name, file)| hash(file, name, shown, meter, &mut io::sink())).collect()
}

fn hash(file: &File, name: &str, shown: &str, meter: &Meter, also: &mut dyn Write) -> Result<FileEntry, Stop> {
    digest::entry(file, name, meter, also).map_err(|error| match error {
        HashError::Read(error) | HashError::Write(error) => fault::reading(&error, shown),
        HashError::Differs { .. } | HashError::Stopped => {
            Stop::new(Reason::Interrupted, "reading the dump was interrupted")
        }
    })
}

/// The files, and who signed them: the one file, or the list of a directory's files. What is signed is what was hashed, by the
/// same reading.
fn signed(
    signature: &DumpSignature,
    base: &Path,
    place: &Place,
    files: &[(String, File)],
    shown: &str,
    meter: &Meter,
) -> Result<(Vec<FileEntry>, Signer), Stop> {
    let trust = Trust::load(&signature.trusted_keys, base)?;
    let text = read_signature(&base.join(&signature.path))?;
    match files {
        files if place.is_directory => {
            let entries = hash_all(files, shown, meter)?;
            let listing = digest::listing(&entries);
            let signer = trust.verify(listing.as_bytes(), &text, &format!("the list of files of {shown}"))?;
            Ok((entries, signer))
        }
        [(name, file)] => {
            let (signer, entry) = trust.verify_stream(&text, shown, |to| hash(file, name, shown, meter, to))?;
            Ok((vec![entry], signer))
        }
        _ => Err(Stop::internal("a file is not one file")),
    }
}

fn read_signature(path: &Path) -> Result<String, Stop> {
    use std::io::Read as _;
    let shown = format!("`{}`", path.display());
    let stop = |error: std::io::Error| {
        let stop = fault::reading(&error, &shown);
        Stop { message: format!("{}, so nobody vouches for the dump", stop.message), ..stop }
    };
    let file = File::open(path).map_err(stop)?;
    let mut bytes = Vec::new();
    file.take(MAX_SIGNATURE).read_to_end(&mut bytes).map_err(stop)?;
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

pub(super) fn describe(
    name: &str,
    is_directory: bool,
    files: &[(String, File)],
    shown: &str,
    meter: &Meter,
) -> Result<(DumpFormat, dump::Description), Stop> {
    let unreadable = |error: dump::Unreadable| error.stop(shown);
    let toc = format!("{name}/{}", dump::TOC);
    let (format, file) = match files {
        [(_, file)] if !is_directory => (dump::format_of_file(file).map_err(unreadable)?, file),
        files => {
            let toc = files.iter().find(|(name, _)| *name == toc);
            let (_, file) = toc
                .ok_or_else(|| unreadable(dump::Unreadable::Unknown(format!("the directory has no {}", dump::TOC))))?;
            (DumpFormat::Directory, file)
        }
    };
    let file = file.try_clone().or_stop(Reason::Internal, "reading a dump")?;
    let description = dump::describe(format, file, &|| meter.stop.load(Relaxed)).map_err(unreadable)?;
    Ok((format, description))
}
