//! Makes a signed backup of a dump that muster did not capture. It vouches for the bytes as they are now, and for nothing that
//! happened to them before.
use std::fs::{DirBuilder, File};
use std::io;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

use drill::id::Sha256Digest;
use drill::manifest::{DumpFormat, FILE_NAME, FileEntry, GLOBALS_FILE_NAME, Manifest, SIGNATURE_FILE_NAME};
use drill::stop::{OrStop, Stop};
use drill::verdict::Reason;
use jiff::tz::TimeZone;

use super::super::described::{Described, manifest};
use super::super::tree::Meter;
use super::super::{check, digest, fault};
use super::dump::{Place, describe};
use crate::engine::postgresql::capture::directory::{self, WorkDirectory};
use crate::engine::postgresql::dump;
use crate::key::SigningKey;

pub struct AdoptRequest {
    /// A dump file, or a directory in directory format.
    pub dump: PathBuf,
    pub name: String,
    pub out: PathBuf,
    pub key: SigningKey,
    /// What the dump must be; of a directory, of what `LC_ALL=C sha256sum *` prints in it.
    pub sha256: Option<Sha256Digest>,
    /// Roles, as `pg_dumpall --globals-only` writes them.
    pub globals: Option<PathBuf>,
    /// Of the machine that made the dump.
    pub timezone: Option<TimeZone>,
}

#[derive(Debug)]
pub struct Adopted {
    pub directory: PathBuf,
    pub manifest: Manifest,
    /// SHA-256 of the manifest.
    pub digest: Sha256Digest,
    /// Of the dump.
    pub dump: Sha256Digest,
    pub signed_by: String,
}

/// Nothing is left of an adoption that fails or is dropped.
pub async fn adopt(request: AdoptRequest) -> Result<Adopted, Stop> {
    let place = Place::find(&request.dump)?;
    let shown = format!("`{}`", place.path.display());
    let work = WorkDirectory::create(&request.out)?;
    let copied = copy(&place, &work).await?;
    let mut entries = Vec::new();
    for name in &copied {
        entries.push(directory::entry(work.path(), name).await?);
    }
    let dump = digest_of(&place, &entries)?;
    if let Some(expected) = request.sha256.filter(|expected| *expected != dump) {
        let problem = format!("{shown} is not the dump that was expected: {expected} expected, {dump} found");
        return Err(Stop::new(Reason::ArtifactRefused, problem).advise("nothing was adopted; find out who changed it"));
    }
    let globals = match &request.globals {
        Some(globals) => Some(adopt_globals(globals, &work).await?),
        None => None,
    };
    let (format, description) = read(&place, &work, &copied, shown.clone()).await?;
    let AdoptRequest { name, timezone, .. } = request;
    let manifest = manifest(Described { name, format, files: entries, globals, description, timezone })
        .map_err(|why| Stop::new(Reason::ArtifactRefused, format!("{shown} cannot be adopted: {why}")))?;
    publish(work, manifest, dump, &request.key)
}

/// The copies, by their names in the manifest. A file system that shares blocks shares them.
async fn copy(place: &Place, work: &WorkDirectory) -> Result<Vec<String>, Stop> {
    let files = place.files()?;
    if place.is_directory {
        let path = work.path().join(&place.name);
        DirBuilder::new().mode(0o700).create(&path).or_stop(Reason::SandboxUnfit, "making the backup's directory")?;
    }
    let targets = files.iter().map(|(name, _)| work.file(name)).collect::<Result<Vec<_>, _>>()?;
    let names = files.iter().map(|(name, _)| name.clone()).collect();
    let work = move || -> Result<(), Stop> {
        for ((name, mut from), target) in files.into_iter().zip(targets) {
            let tried = format!("copying `{name}` to `{}`", target.display());
            let mut to = File::options().write(true).open(&target).or_stop(Reason::SandboxUnfit, &tried)?;
            io::copy(&mut from, &mut to).or_stop(Reason::SandboxUnfit, &tried)?;
        }
        Ok(())
    };
    tokio::task::spawn_blocking(work).await.or_stop(Reason::Internal, "copying a dump")??;
    Ok(names)
}

fn digest_of(place: &Place, entries: &[FileEntry]) -> Result<Sha256Digest, Stop> {
    match entries {
        entries if place.is_directory => Ok(Sha256Digest::of(digest::listing(entries).as_bytes())),
        [entry] => Ok(entry.sha256),
        _ => Err(Stop::internal("a file is not one file")),
    }
}

async fn adopt_globals(from: &Path, work: &WorkDirectory) -> Result<FileEntry, Stop> {
    let shown = format!("`{}`", from.display());
    let target = work.file(GLOBALS_FILE_NAME)?;
    std::fs::copy(from, &target).map_err(|error| fault::reading(&error, &shown))?;
    let copy = File::open(&target).or_stop(Reason::Internal, "reading the roles")?;
    dump::check_globals(&copy).map_err(|error| error.stop(&shown))?;
    directory::entry(work.path(), GLOBALS_FILE_NAME).await
}

/// What the copy says of itself; a script is read to its end.
async fn read(
    place: &Place,
    work: &WorkDirectory,
    names: &[String],
    shown: String,
) -> Result<(DumpFormat, dump::Description), Stop> {
    let open = |name: &String| {
        let file = File::open(work.path().join(name)).or_stop(Reason::Internal, "reading the copy of a dump")?;
        Ok((name.clone(), file))
    };
    let files = names.iter().map(open).collect::<Result<Vec<_>, Stop>>()?;
    let (name, is_directory) = (place.name.clone(), place.is_directory);
    let work = move || describe(&name, is_directory, &files, &shown, &Meter::default());
    tokio::task::spawn_blocking(work).await.or_stop(Reason::Internal, "reading a dump")?
}

fn publish(work: WorkDirectory, manifest: Manifest, dump: Sha256Digest, key: &SigningKey) -> Result<Adopted, Stop> {
    let mut json = serde_json::to_vec_pretty(&manifest).or_stop(Reason::Internal, "writing the manifest")?;
    json.push(b'\n');
    // What muster would refuse to read, it must not sign.
    check(&json).or_stop(Reason::ArtifactRefused, "describing the dump")?;
    let signature = key.sign_detached(&json, &format!("muster backup {}, adopted from {dump}", manifest.name))?;
    directory::write(&work.path().join(FILE_NAME), &json)?;
    directory::write(&work.path().join(SIGNATURE_FILE_NAME), signature.as_bytes())?;
    Ok(Adopted {
        // The name orders backups. Without a time of the snapshot it is the time of the adoption, which nothing is measured from.
        directory: work.publish(manifest.snapshot_time.unwrap_or_else(jiff::Timestamp::now))?,
        digest: Sha256Digest::of(&json),
        manifest,
        dump,
        signed_by: key.key_id(),
    })
}
