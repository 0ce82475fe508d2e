use std::fs::{self, File};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use drill::id::Sha256Digest;
use drill::manifest::{ChunkTree, FILE_NAME, FileEntry, Manifest, SIGNATURE_FILE_NAME};
use drill::stop::{OrStop, Stop};
use drill::unit;
use drill::verdict::Reason;
use drivers::artifact::tree::{self, CHUNK_SIZE, Chunks, Meter, SIDE_FILE_SUFFIX};
use drivers::key::SigningKey;

/// Work on the manifest of a backup
#[derive(clap::Args)]
pub struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(clap::Subcommand)]
enum Command {
    Sign(SignArgs),
}

/// Describe the files of a backup anew and sign that
///
/// For whoever changed a backup on purpose, or signs with a new key. It vouches for the files as they are now: nothing is
/// compared with what the old manifest said.
#[derive(clap::Args)]
#[command(after_help = "Example:\n  muster manifest sign backups/orders/20261122T021500Z --key backup.key")]
struct SignArgs {
    /// The directory that holds manifest.json
    directory: PathBuf,
    /// The secret key, in minisign format
    #[arg(long, value_name = "FILE")]
    key: PathBuf,
    /// A file that holds the key's password
    #[arg(long, value_name = "FILE")]
    password_file: Option<PathBuf>,
}

pub async fn run(args: Args) -> Result<ExitCode, Stop> {
    let Command::Sign(args) = args.command;
    let work = tokio::task::spawn_blocking(move || sign(&args));
    work.await.or_stop(Reason::Internal, "signing a manifest")??;
    Ok(ExitCode::SUCCESS)
}

fn sign(args: &SignArgs) -> Result<(), Stop> {
    let path = args.directory.join(FILE_NAME);
    let tried = format!("reading `{}`", path.display());
    let raw = fs::read(&path).or_stop(Reason::Internal, &tried)?;
    let mut manifest = drivers::artifact::check(&raw).or_stop(Reason::Internal, tried)?;
    let password = args.password_file.as_deref().map(drivers::key::read_password).transpose()?;
    let key = SigningKey::load(&args.key, password.as_ref())?;

    for entry in files(&mut manifest) {
        describe(&args.directory, entry)?;
    }
    let mut content = serde_json::to_vec_pretty(&manifest).or_stop(Reason::Internal, "writing a manifest")?;
    content.push(b'\n');
    let signature = key.sign_detached(&content, &format!("muster backup {}", manifest.name))?;
    // The signature goes first: between the two writes the backup is refused, and never taken for something that it is not.
    replace(&args.directory.join(SIGNATURE_FILE_NAME), signature.as_bytes())?;
    replace(&path, &content)?;
    let count = u64::try_from(manifest.files().count()).unwrap_or(u64::MAX);
    // The work is done; a closed stream changes nothing.
    let _ = writeln!(
        std::io::stdout().lock(),
        "signed {} with key {}: {}, {}",
        path.display(),
        key.key_id(),
        unit::plural(count, "file"),
        unit::size(manifest.total_size())
    );
    Ok(())
}

fn files(manifest: &mut Manifest) -> impl Iterator<Item = &mut FileEntry> {
    let parts = manifest.parts.iter_mut().flat_map(|part| {
        let side =
            part.baseline.iter_mut().chain(&mut part.schema).chain(&mut part.blocks).chain(&mut part.row_digests);
        part.files.iter_mut().chain(side)
    });
    manifest.globals.iter_mut().chain(parts)
}

fn describe(directory: &Path, entry: &mut FileEntry) -> Result<(), Stop> {
    let path = directory.join(&entry.path);
    let tried = format!("reading `{}`", path.display());
    let file = File::open(&path).or_stop(Reason::Internal, &tried)?;
    entry.size = file.metadata().or_stop(Reason::Internal, &tried)?.len();
    let chunks = tree::hash(&file, None, entry.size, CHUNK_SIZE, None, &Meter::default())
        .map_err(|error| Stop::internal(format!("{tried}: {error:?}")))?;
    entry.tree = ChunkTree { chunk_size: CHUNK_SIZE, root: chunks.root() };
    entry.sha256 = whole(&file).or_stop(Reason::Internal, &tried)?;
    side_file(&path, &chunks)
}

fn whole(mut file: &File) -> std::io::Result<Sha256Digest> {
    use sha2::{Digest, Sha256};
    struct Hash(Sha256);
    impl Write for Hash {
        fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
            self.0.update(bytes);
            Ok(bytes.len())
        }
        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }
    let mut hash = Hash(Sha256::new());
    std::io::copy(&mut file, &mut hash)?;
    Ok(Sha256Digest::from_bytes(hash.0.finalize().into()))
}

/// What says where a damaged file differs; a file of one chunk needs none.
fn side_file(path: &Path, chunks: &Chunks) -> Result<(), Stop> {
    let mut side = path.as_os_str().to_owned();
    side.push(SIDE_FILE_SUFFIX);
    let side = PathBuf::from(side);
    if chunks.0.len() > 1 {
        return replace(&side, &chunks.to_bytes());
    }
    match fs::remove_file(&side) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(error).or_stop(Reason::Internal, format!("removing `{}`", side.display()))
        }
        Ok(()) | Err(_) => Ok(()),
    }
}

/// Whole or not at all.
fn replace(path: &Path, content: &[u8]) -> Result<(), Stop> {
    let mut new = path.as_os_str().to_owned();
    new.push(".new");
    let new = PathBuf::from(new);
    let written = (|| {
        let mut file = File::create(&new)?;
        file.write_all(content)?;
        file.sync_all()?;
        fs::rename(&new, path)
    })();
    written.or_stop(Reason::Internal, format!("writing `{}`", path.display()))
}
