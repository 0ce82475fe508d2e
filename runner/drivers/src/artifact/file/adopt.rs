//! Makes a signed backup of a dump that muster did not capture. It vouches for the bytes as they are now, and for nothing that
//! happened to them before.
use std::fs::{DirBuilder, File};
use std::io::{self, Read as _};
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

use drill::id::Sha256Digest;
use drill::manifest::{DumpFormat, FILE_NAME, FileEntry, GLOBALS_FILE_NAME, Manifest, SIGNATURE_FILE_NAME};
use drill::stop::{OrStop, Stop};
use drill::verdict::Reason;
use jiff::tz::TimeZone;

use super::super::described::{Described, manifest};
use super::super::tree::Meter;
use super::super::{check, fault};
use super::StopWhenDropped;
use super::dump::{Place, describe, digest_of};
use crate::engine::postgresql::capture::directory::{self, WorkDirectory};
use crate::engine::postgresql::dump;
use crate::key::SigningKey;

/// Bytes of roles; more than any server has.
const MAX_GLOBALS: u64 = 256 << 20;

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
    let dump = digest_of(place.is_directory, &entries)?;
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
    blocking("copying a dump", move |meter| {
        for ((name, from), target) in files.iter().zip(&targets) {
            copy_file(from, u64::MAX, target, meter)
                .map_err(|error| copying(&error, &format!("copying `{name}` to `{}`", target.display())))?;
        }
        Ok(())
    })
    .await?;
    Ok(names)
}

/// No more than `limit` bytes, into a file that is there.
fn copy_file(mut from: &File, limit: u64, target: &Path, meter: &Meter) -> io::Result<()> {
    /// Between two looks at whether anybody still waits.
    const STEP: u64 = 64 << 20;
    let mut to = File::options().write(true).open(target)?;
    let mut left = limit;
    while left > 0 {
        if meter.stop.load(Relaxed) {
            return Err(io::ErrorKind::Interrupted.into());
        }
        let copied = io::copy(&mut (&mut from).take(STEP.min(left)), &mut to)?;
        if copied == 0 {
            break;
        }
        left -= copied;
    }
    Ok(())
}

fn copying(error: &io::Error, tried: &str) -> Stop {
    let reason = if error.kind() == io::ErrorKind::Interrupted { Reason::Interrupted } else { Reason::SandboxUnfit };
    Stop::new(reason, format!("{tried}: {error}"))
}

/// On a thread for it, and no longer than anybody waits.
async fn blocking<T: Send + 'static>(
    tried: &str,
    work: impl FnOnce(&Meter) -> Result<T, Stop> + Send + 'static,
) -> Result<T, Stop> {
    let meter = Arc::new(Meter::default());
    let _guard = StopWhenDropped(meter.clone());
    tokio::task::spawn_blocking(move || work(&meter)).await.or_stop(Reason::Internal, tried)?
}

/// Found and opened like a dump: a regular file, whose copy is private.
async fn adopt_globals(from: &Path, work: &WorkDirectory) -> Result<FileEntry, Stop> {
    let place = Place::find(from)?;
    let shown = format!("`{}`", place.path.display());
    let refused = |why: String| Stop::new(Reason::ArtifactRefused, format!("{shown}: {why}"));
    if place.is_directory {
        return Err(refused("it is a directory, and roles are one file".to_owned()));
    }
    let Ok([(_, file)]) = <[_; 1]>::try_from(place.files()?) else {
        return Err(Stop::internal("a file is not one file"));
    };
    let size = file.metadata().map_err(|error| fault::reading(&error, &shown))?.len();
    if size > MAX_GLOBALS {
        return Err(refused(format!("it has more than {MAX_GLOBALS} bytes, and no server has as many roles")));
    }
    let target = work.file(GLOBALS_FILE_NAME)?;
    let tried = format!("copying {shown} to `{}`", target.display());
    blocking("copying the roles", move |meter| {
        copy_file(&file, MAX_GLOBALS, &target, meter).map_err(|error| copying(&error, &tried))?;
        let copy = File::open(&target).or_stop(Reason::Internal, "reading the roles")?;
        dump::check_globals(&copy).map_err(|error| error.stop(&shown))
    })
    .await?;
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
    blocking("reading a dump", move |meter| describe(&name, is_directory, &files, &shown, meter)).await
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
