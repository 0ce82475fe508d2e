//! Makes a backup directory from a live server. Start at [`capture`]; the order of its steps is the point.
mod conninfo;
mod describe;
mod digests;
pub(crate) mod directory;
mod pgpass;
mod role;
mod scan;
mod schema;
mod session;
mod sink;
mod snapshot;
mod sort;
mod throttle;
mod tls;
mod tools;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use drill::baseline::Table;
use drill::id::Sha256Digest;
use drill::manifest::{
    DumpFormat, FILE_NAME, FileEntry, GLOBALS_FILE_NAME, Kind, Manifest, Part, SIGNATURE_FILE_NAME, SnapshotTimeFrom,
    Source, VERSION,
};
use drill::port::Progress;
use drill::stop::{OrStop, Stop};
use drill::unit;
use drill::verdict::Reason;
use tokio_util::sync::CancellationToken;

pub use conninfo::{ConnInfo, Environment};
pub use digests::Digests;
pub use role::LEAST_ROLE;

use self::directory::WorkDirectory;
use self::sink::Sink;
use self::snapshot::Snapshot;
use self::throttle::ScanMeter;
use self::tools::Tools;
use super::dump_header::DumpHeader;
use crate::artifact::file::dump_agrees;
use crate::artifact::tree::Meter;
use crate::key::SigningKey;

/// How often everything is done again because somebody waits for a stronger lock than `pg_dump` gets past.
const ATTEMPTS: u32 = 3;

/// What to back up, and where to.
pub struct CaptureRequest {
    /// What is backed up, such as `orders`; the same for every backup of it.
    pub name: String,
    /// Databases of one server; never empty.
    pub databases: Vec<ConnInfo>,
    pub key: SigningKey,
    /// Where the backup's directory and `latest` go, such as `/backups/orders`.
    pub out: PathBuf,
    /// Whose rows are digested; the others' are counted.
    pub digests: Digests,
    /// Whether eight bytes of each row's digest are kept, so that a drill can say how many rows differ.
    pub row_digests: bool,
    /// Connections that read tables beside `pg_dump`; at least 1.
    pub jobs: usize,
    /// Bytes a second that all of them together read to digest rows; neither `pg_dump` nor counting is limited.
    pub max_rate: Option<u64>,
    /// How long to wait for a table that somebody has locked.
    pub lock_timeout: Duration,
    pub environment: Environment,
}

/// A backup that was published.
#[derive(Debug)]
pub struct Captured {
    pub directory: PathBuf,
    pub manifest: Manifest,
    /// SHA-256 of the manifest.
    pub digest: Sha256Digest,
    pub signed_by: String,
    pub tables: u64,
    pub rows: u64,
    pub warnings: Vec<String>,
    pub took: Duration,
}

/// Takes the snapshots, dumps, counts and digests inside them, signs, and publishes in one rename. Whatever stops it, nothing that looks
/// like a backup stays behind.
pub async fn capture(
    request: &CaptureRequest,
    progress: &dyn Progress,
    cancel: &CancellationToken,
) -> Result<Captured, Stop> {
    tokio::select! {
        biased;
        () = cancel.cancelled() => Err(Stop::new(Reason::Interrupted, "the capture was interrupted; nothing was kept")),
        result = capture_all(request, progress) => result,
    }
}

async fn capture_all(request: &CaptureRequest, progress: &dyn Progress) -> Result<Captured, Stop> {
    let began = Instant::now();
    if request.databases.is_empty() || request.name.is_empty() || request.name.chars().any(char::is_control) {
        return Err(Stop::new(Reason::Internal, "a capture needs a name and at least one database"));
    }
    let mut attempt = 1;
    let (work, made) = loop {
        let work = WorkDirectory::create(&request.out)?;
        match dump(request, &work, progress).await? {
            Ok(made) => break (work, made),
            Err(message) if attempt == ATTEMPTS => {
                let problem =
                    format!("tables were created, dropped or locked during all of {ATTEMPTS} attempts ({message})");
                return Err(Stop::new(Reason::SandboxUnfit, problem).advise("capture when no migration runs"));
            }
            Err(_) => attempt += 1,
        }
    };
    publish(request, work, made, began)
}

/// What was written, before it is signed.
struct Made {
    source: Source,
    snapshot_time: jiff::Timestamp,
    globals: FileEntry,
    parts: Vec<Part>,
    tables: u64,
    rows: u64,
    warnings: Vec<String>,
}

/// The inner error means "try again": somebody queues for a lock that `pg_dump` needs.
async fn dump(
    request: &CaptureRequest,
    work: &WorkDirectory,
    progress: &dyn Progress,
) -> Result<Result<Made, String>, Stop> {
    let mut snapshots = Vec::new();
    for info in &request.databases {
        snapshots.push(snapshot::take(info, request.lock_timeout).await?);
    }
    let first = &snapshots[0].session;
    let major = first.version_number / 10_000;
    if snapshots.iter().any(|snapshot| snapshot.session.version_number != first.version_number) {
        return Err(Stop::new(Reason::Internal, "the databases of one backup must be of one server"));
    }
    let tools = Tools::find(major, &request.environment).await?;
    let source = Source {
        engine: "postgresql".to_owned(),
        version: first.cell("SHOW server_version").await?,
        version_number: first.version_number,
        tool: tools.shown.clone(),
    };
    let mut warnings = Vec::new();
    let globals = dump_globals(request, &tools, work, &mut warnings).await?;
    let snapshot_time = snapshots.iter().map(|snapshot| snapshot.time).min().unwrap_or_default();
    let (mut parts, mut tables, mut rows) = (Vec::new(), 0, 0);
    for (number, (info, snapshot)) in request.databases.iter().zip(snapshots).enumerate() {
        let place = Place { number, info, tools: &tools, work };
        match dump_database(request, &place, &snapshot, progress, &mut warnings).await? {
            Ok((part, listed)) => {
                tables += listed.iter().filter(|table| table.rows.is_some()).count() as u64;
                rows += listed.iter().filter_map(|table| table.rows).sum::<u64>();
                parts.push(part);
            }
            Err(message) => return Ok(Err(message)),
        }
    }
    Ok(Ok(Made { source, snapshot_time, globals, parts, tables, rows, warnings }))
}

async fn dump_globals(
    request: &CaptureRequest,
    tools: &Tools,
    work: &WorkDirectory,
    warnings: &mut Vec<String>,
) -> Result<FileEntry, Stop> {
    let info = &request.databases[0];
    let path = work.file(GLOBALS_FILE_NAME)?;
    let mut command = tools.command("pg_dumpall", info, &request.environment);
    command.args(["--globals-only", "--no-role-passwords", "--no-tablespaces", "--no-password", "--no-sync"]);
    command.arg(format!("--database=dbname={}", conninfo::quote(info.database()))).arg("--file").arg(path);
    let messages = tools::run(command, "pg_dumpall").await.map_err(tool_failed)?;
    warnings.extend(messages.lines().map(str::to_owned));
    directory::entry(work.path(), GLOBALS_FILE_NAME).await
}

struct Place<'a> {
    number: usize,
    info: &'a ConnInfo,
    tools: &'a Tools,
    work: &'a WorkDirectory,
}

async fn dump_database(
    request: &CaptureRequest,
    place: &Place<'_>,
    snapshot: &Snapshot,
    progress: &dyn Progress,
    warnings: &mut Vec<String>,
) -> Result<Result<(Part, Vec<Table>), String>, Stop> {
    let info = place.info;
    let dump_name = dump_name(info.database(), place.number);
    let dump_path = place.work.file(&dump_name)?;
    let command = pg_dump(request, place, snapshot, &dump_path, warnings);
    let meter = Arc::new(ScanMeter::new(request.max_rate));
    let side = SideFiles::create(request, place)?;
    let options = scan::Options { digests: &request.digests, jobs: request.jobs.max(1), directory: place.work.path() };
    let sink = side.sink(place.work)?;
    let work = async {
        // The first trouble ends both.
        tokio::try_join!(async { tools::run(command, "pg_dump").await.map_err(Trouble::Tool) }, async {
            scan::scan(snapshot, info, &options, sink, &meter).await.map_err(Trouble::Stop)
        })
    };
    let done = tokio::select! {
        done = work => done,
        never = show(progress, &dump_path, &meter) => match never {},
    };
    let (messages, mut scanned) = match done {
        Ok(done) => done,
        // pg_dump waits for its locks under a statement timeout.
        Err(Trouble::Tool(message)) if message.contains("LOCK TABLE") && message.contains("timeout") => {
            return Ok(Err(message));
        }
        Err(Trouble::Tool(message)) => return Err(tool_failed(message)),
        Err(Trouble::Stop(stop)) => return Err(stop),
    };
    warnings.extend(messages.lines().map(str::to_owned));
    warnings.append(&mut scanned.warnings);
    let tables = describe::tables(snapshot, scanned).await?;
    let baseline_name = format!("baseline-{}.jsonl", place.number);
    describe::write_baseline(&place.work.file(&baseline_name)?, info.database(), &tables)?;
    let schema = match schema::write(snapshot, place, warnings).await? {
        Ok(schema) => schema,
        Err(message) => return Ok(Err(message)),
    };
    let part = Part {
        database: info.database().to_owned(),
        format: DumpFormat::Custom,
        files: vec![directory::entry(place.work.path(), &dump_name).await?],
        baseline: Some(directory::entry(place.work.path(), &baseline_name).await?),
        schema,
        blocks: entry_of(place.work, side.blocks.as_deref()).await?,
        row_digests: entry_of(place.work, side.row_digests.as_deref()).await?,
        locale: Some(describe::locale(&snapshot.session).await?),
        extensions: describe::extensions(&snapshot.session).await?,
    };
    Ok(Ok((part, tables)))
}

/// What lies beside a baseline: the files that were asked for.
struct SideFiles {
    blocks: Option<String>,
    row_digests: Option<String>,
}

impl SideFiles {
    fn create(request: &CaptureRequest, place: &Place<'_>) -> Result<Self, Stop> {
        let create = |kind: &str, wanted: bool| {
            let name = format!("{kind}-{}.bin", place.number);
            if wanted { place.work.file(&name).map(|_| Some(name)) } else { Ok(None) }
        };
        let digests = request.digests != Digests::None;
        Ok(Self {
            blocks: create("blocks", digests)?,
            row_digests: create("rowdigests", digests && request.row_digests)?,
        })
    }

    fn sink(&self, work: &WorkDirectory) -> Result<Sink, Stop> {
        let path = |name: &Option<String>| name.as_ref().map(|name| work.path().join(name));
        Sink::open(path(&self.blocks).as_deref(), path(&self.row_digests).as_deref())
    }
}

async fn entry_of(work: &WorkDirectory, name: Option<&str>) -> Result<Option<FileEntry>, Stop> {
    match name {
        Some(name) => Ok(Some(directory::entry(work.path(), name).await?)),
        None => Ok(None),
    }
}

enum Trouble {
    Tool(String),
    Stop(Stop),
}

fn pg_dump(
    request: &CaptureRequest,
    place: &Place<'_>,
    snapshot: &Snapshot,
    path: &Path,
    warnings: &mut Vec<String>,
) -> tokio::process::Command {
    let mut command = place.tools.command("pg_dump", place.info, &request.environment);
    command.args(["--format=custom", "--no-password", "--no-sync"]);
    command.arg(format!("--snapshot={}", snapshot.id));
    command.arg(format!("--lock-wait-timeout={}", request.lock_timeout.as_millis().max(1)));
    command.arg(format!("--dbname=dbname={}", conninfo::quote(place.info.database()))).arg("--file").arg(path);
    let unlogged = snapshot.relations.iter().filter(|relation| relation.unlogged).count();
    if snapshot.in_recovery && unlogged > 0 {
        command.arg("--no-unlogged-table-data");
        warnings.push(format!("a standby cannot read unlogged tables: the backup holds no rows of {unlogged}"));
    }
    command
}

/// The dump's size as it grows and what the scan has read, for as long as somebody polls this.
async fn show(progress: &dyn Progress, dump: &Path, meter: &ScanMeter) -> std::convert::Infallible {
    let mut tick = tokio::time::interval(Duration::from_millis(200));
    loop {
        tick.tick().await;
        let size = dump.metadata().map_or(0, |metadata| metadata.len());
        let (rows, bytes) = meter.read();
        let scanned = format!("bytes dumped, {} and {} scanned", unit::plural(rows, "row"), unit::size(bytes));
        progress.set(size, None, &scanned);
    }
}

fn publish(request: &CaptureRequest, work: WorkDirectory, made: Made, began: Instant) -> Result<Captured, Stop> {
    let manifest = Manifest {
        version: VERSION,
        kind: Kind::Logical,
        name: request.name.clone(),
        snapshot_time: Some(made.snapshot_time),
        snapshot_time_from: SnapshotTimeFrom::Capture,
        source: made.source,
        globals: Some(made.globals),
        parts: made.parts,
    };
    for part in &manifest.parts {
        for file in &part.files {
            let header = DumpHeader::read_file(&work.path().join(&file.path))?;
            dump_agrees(&header, &manifest, part).map_err(|why| {
                Stop::new(
                    Reason::SandboxUnfit,
                    format!("the dump of `{}` is not what was asked for: {why}", part.database),
                )
                .advise("if the clocks of this machine and of the server disagree, set them right")
            })?;
        }
    }
    let mut json = serde_json::to_vec_pretty(&manifest).or_stop(Reason::Internal, "writing the manifest")?;
    json.push(b'\n');
    // What muster would refuse to read, it must not sign.
    crate::artifact::check(&json).or_stop(Reason::Internal, "checking the manifest")?;
    let comment = format!("muster backup {} of {}", manifest.name, made.snapshot_time);
    let signature = request.key.sign_detached(&json, &comment)?;
    directory::write(&work.path().join(FILE_NAME), &json)?;
    directory::write(&work.path().join(SIGNATURE_FILE_NAME), signature.as_bytes())?;
    Ok(Captured {
        directory: work.publish(made.snapshot_time)?,
        digest: Sha256Digest::of(&json),
        manifest,
        signed_by: request.key.key_id(),
        tables: made.tables,
        rows: made.rows,
        warnings: made.warnings,
        took: began.elapsed(),
    })
}

fn tool_failed(message: String) -> Stop {
    if message.contains("permission denied") || message.contains("row-level security") {
        return Stop::new(Reason::Credentials, message).advise(role::advice());
    }
    if message.contains("No space left") {
        return Stop::new(Reason::SandboxUnfit, message);
    }
    Stop::internal(message)
}

/// The database's own name where it is a plain file name.
fn dump_name(database: &str, number: usize) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || c == '_' || c == '-';
    if database.chars().all(plain) && !database.starts_with('-') && database.len() <= 60 {
        format!("{database}.dump")
    } else {
        format!("database-{number}.dump")
    }
}

pub(super) struct StopOnDrop(Arc<Meter>);

impl Drop for StopOnDrop {
    fn drop(&mut self) {
        self.0.stop.store(true, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_are_named_after_databases_that_are_plain_names() {
        assert_eq!(dump_name("orders", 0), "orders.dump");
        assert_eq!(dump_name("../orders", 1), "database-1.dump");
        assert_eq!(dump_name("Größe", 2), "database-2.dump");
        assert_eq!(dump_name("-x", 3), "database-3.dump");
    }

    #[test]
    fn a_missing_right_is_answered_with_the_role_that_has_it() {
        let stop = tool_failed("pg_dump failed: ERROR:  permission denied for table x".to_owned());
        assert_eq!(stop.reason, Reason::Credentials);
        assert!(stop.advice.expect("advice").contains("--print-role"));
    }
}
