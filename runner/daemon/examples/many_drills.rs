//! What one daemon does with ten thousand drills: the real dispatcher, store and metrics, and a runner that is instant. Prints
//! rows of a Markdown table. `scripts/bench-daemon` runs it; build it with `--release`, or its times say nothing.
//!
//! `many_drills schedule DIRECTORY` measures lag, idle CPU and memory. `many_drills fill DIRECTORY` then fills the store of that
//! directory with copies of its runs, once, and has it checked. `many_drills records DIRECTORY` measures what a restart and a
//! look at it take.
#![expect(clippy::print_stdout, reason = "a table on standard output is all that it makes")]
use std::collections::BTreeMap;
use std::error::Error;
use std::fmt::Write;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use async_trait::async_trait;
use drill::config::{Concurrency, Http};
use drill::id::{DrillName, RunId, Sha256Digest};
use drill::ledger::{Event as LedgerEvent, Owner, RunStarted, Stamped, State, Summary, Trigger};
use drill::port::Store;
use drill::spec::{Fidelity, Objectives};
use drill::stop::Stop;
use drill::verdict::{Leftovers, Reason};
use drivers::store::sqlite::{FILE_NAME, Mode, SqliteStore};
use jiff::{SignedDuration, Timestamp};
use muster::alarms::Alarms;
use muster::book::{Book, Entry};
use muster::dispatcher::{Dispatcher, Event, Happening, Job, Listener, Listeners, RunUpdate, Runner, Setup};
use muster::executor::{Cancel, Ended, Observer, Update};
use muster::feed::Feed;
use muster::http::{App, Server};
use muster::metrics::{Metrics, Timed};
use rusqlite::params;
use tokio_util::sync::CancellationToken;

type Outcome<T> = Result<T, Box<dyn Error>>;

/// Runs at one time.
const SLOTS: u32 = 32;
/// Runs that are copied in one transaction, so that the log beside the database stays small.
const BATCH: i64 = 1_000;
/// Nothing here takes so long that it is not given up.
const PATIENCE: Duration = Duration::from_mins(15);

#[tokio::main]
async fn main() -> Outcome<()> {
    if rustls::crypto::aws_lc_rs::default_provider().install_default().is_err() {
        return Err("there are two TLS providers".into());
    }
    let words: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    match words.as_slice() {
        ["schedule", directory] => schedule(Path::new(directory)).await,
        ["fill", directory] => fill(Path::new(directory)).await,
        ["records", directory] => records(Path::new(directory)).await,
        _ => Err("say `schedule DIRECTORY`, `fill DIRECTORY` or `records DIRECTORY`".into()),
    }
}

/// From the environment, where it says.
fn setting(name: &str, default: usize) -> Outcome<usize> {
    std::env::var(name).map_or(Ok(default), |text| Ok(text.parse()?))
}

async fn schedule(directory: &Path) -> Outcome<()> {
    let count = setting("BENCH_DRILLS", 10_000)?;
    let minutes = setting("BENCH_SPREAD_MINUTES", 10)?;
    let idle = Duration::from_secs(setting("BENCH_IDLE_SECONDS", 30)?.try_into()?);
    let daemon = Daemon::start(directory, book(count, |_| "0 0 1 1 *".to_owned())?).await?;

    let (cpu, memory) = daemon.rest(idle).await?;
    row("idle CPU, nothing due", count, format!("{cpu:.2} % of a core"), "1 %");
    row("resident memory, before the first run", count, mebibytes(memory), "64 MiB");

    let due = Timestamp::now().checked_add(SignedDuration::from_secs(20))?;
    daemon.lags(book(count, |_| cron(due))?, count, "all due in one second").await?;

    let (from, spread) = (Timestamp::now().checked_add(SignedDuration::from_secs(20))?, minutes * 60);
    let due =
        |n: usize| i64::try_from(n % spread).ok().and_then(|n| from.checked_add(SignedDuration::from_secs(n)).ok());
    let what = format!("spread over {minutes} minutes");
    daemon.lags(book(count, |n| cron(due(n).unwrap_or(from)))?, count, &what).await?;

    daemon.tell(book(count, |_| "0 0 1 1 *".to_owned())?).await;
    let (cpu, memory) = daemon.rest(idle).await?;
    row("idle CPU, after two runs of each", count, format!("{cpu:.2} % of a core"), "1 %");
    row("resident memory, after two runs of each", count, mebibytes(memory), "64 MiB");
    daemon.scrape(count)?;
    row("resident memory, after scrapes", count, mebibytes(resident()?), "");
    daemon.stop().await
}

/// What a store of so many runs costs whoever starts on it, and whoever looks.
async fn records(directory: &Path) -> Outcome<()> {
    let path = directory.join(FILE_NAME);
    let wanted = usize::try_from(runs(&rusqlite::Connection::open(&path)?)?)?;
    let size = std::fs::metadata(&path)?.len();
    #[expect(clippy::cast_precision_loss, reason = "a size to look at")]
    let each = size as f64 / wanted as f64;
    row("store, runs of 3 events each", wanted, format!("{} ({each:.0} B a run)", mebibytes(size)), "");

    let count = setting("BENCH_DRILLS", 10_000)?;
    let begun = Instant::now();
    let daemon = Daemon::start(directory, book(count, |_| "0 0 1 1 *".to_owned())?).await?;
    row("start of the dispatcher, from that store", wanted, seconds(begun.elapsed()), "");
    let begun = Instant::now();
    daemon.metrics.remember(daemon.store.as_ref()).await?;
    row("metrics remember the last runs", wanted, seconds(begun.elapsed()), "");
    let newest = daemon.store.runs(None, 1).await?.pop().ok_or("no run is there")?;
    let (_, idle) = daemon.rest(Duration::from_secs(1)).await?;
    row("resident memory, with that store", wanted, mebibytes(idle), "64 MiB");
    let pages = Pages::open(directory, &daemon)?;
    for (what, path) in [
        ("page of all drills", "/".to_owned()),
        ("page of one drill", format!("/drills/{}", newest.drill)),
        ("page of one run", format!("/runs/{}", newest.run)),
        ("the newest 50 runs of all", "/api/v1/runs?limit=50".to_owned()),
        ("the newest 50 runs of one drill", format!("/api/v1/runs?limit=50&drill={}", newest.drill)),
        ("the next 50 fires", "/api/v1/next?limit=50".to_owned()),
        ("/metrics", "/metrics".to_owned()),
    ] {
        pages.time(what, &path, wanted).await?;
    }
    let begun = Instant::now();
    daemon.store.unsettled().await?;
    row("runs that are not settled", wanted, seconds(begun.elapsed()), "");
    let begun = Instant::now();
    daemon.store.prunable(None, Some(1_000)).await?;
    row("looking for old runs where there are none", wanted, seconds(begun.elapsed()), "");
    pages.close().await?;
    row("resident memory, after that", wanted, mebibytes(resident()?), "");
    daemon.stop().await
}

async fn fill(directory: &Path) -> Outcome<()> {
    let wanted = i64::try_from(setting("BENCH_RECORDS", 1_000_000)?)?;
    let path = directory.join(FILE_NAME);
    let count = copy(&mut rusqlite::Connection::open(&path)?, wanted)?;
    // That muster takes it for its own: every page, and each ledger beside what is listed of it.
    SqliteStore::open(&path, Mode::ReadWrite)?.check().await?;
    eprintln!("full: {count} runs");
    Ok(())
}

/// Copies of the runs that are there, under other ids and a day earlier each. All copies of a run are written beside it, in the
/// order of their keys, so that no run is read twice and few pages are open at a time.
fn copy(connection: &mut rusqlite::Connection, wanted: i64) -> Outcome<i64> {
    let was_filled = "SELECT EXISTS (SELECT 1 FROM runs WHERE run LIKE '%-copy%')";
    if connection.query_row(was_filled, [], |row| row.get::<_, bool>(0))? {
        return Err("this store was filled before: begin with a new one".into());
    }
    connection.pragma_update(None, "synchronous", "OFF")?;
    connection.pragma_update(None, "cache_size", -262_144)?;
    connection.execute("CREATE TEMP TABLE originals (run TEXT PRIMARY KEY) WITHOUT ROWID", [])?;
    connection.execute("INSERT INTO originals SELECT run FROM runs", [])?;
    let copies = wanted.checked_div(runs(connection)?).unwrap_or(0) - 1;
    let part = "SELECT max(run) FROM (SELECT run FROM originals WHERE run > ?1 ORDER BY run LIMIT ?2)";
    let mut after = String::new();
    while copies > 0
        && let Some(upto) = connection.query_row(part, params![after, BATCH], |row| row.get::<_, Option<String>>(0))?
    {
        let transaction = connection.transaction()?;
        for (table, place) in [
            ("runs", "originals JOIN runs AS was USING (run)"),
            ("events", "originals JOIN events AS was USING (run)"),
            // Slots are found by their drill.
            (
                "slots",
                "originals JOIN runs USING (run) JOIN slots AS was ON was.drill = runs.drill AND was.run = originals.run",
            ),
        ] {
            let (columns, values) = copied_columns(&transaction, table)?;
            let sql = format!(
                "WITH RECURSIVE copies (copy) AS (SELECT 1 UNION ALL SELECT copy + 1 FROM copies WHERE copy < ?3)
                 INSERT INTO {table} ({columns}) SELECT {values} FROM {place}, copies
                 WHERE originals.run > ?1 AND originals.run <= ?2"
            );
            transaction.execute(&sql, params![after, upto, copies])?;
        }
        transaction.commit()?;
        connection.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |_| Ok(()))?;
        after = upto;
    }
    runs(connection)
}

fn runs(connection: &rusqlite::Connection) -> Outcome<i64> {
    Ok(connection.query_row("SELECT count(*) FROM runs", [], |row| row.get(0))?)
}

/// The columns of a table, and what stands in each of them in a copy.
fn copied_columns(connection: &rusqlite::Connection, table: &str) -> Outcome<(String, String)> {
    let mut statement = connection.prepare(&format!("SELECT name FROM pragma_table_info('{table}')"))?;
    let columns = statement.query_map([], |row| row.get(0))?.collect::<Result<Vec<String>, _>>()?;
    // Nanoseconds stay: SQLite moves the day alone.
    let earlier = |json: &str, path: &str| {
        let was = format!("json_extract({json}, '{path}')");
        format!("json_replace({json}, '{path}', date(substr({was}, 1, 10), -copy || ' days') || substr({was}, 11))")
    };
    let values = columns.iter().map(|column| match column.as_str() {
        "run" => "was.run || '-copy' || copy".to_owned(),
        "started" | "ended" | "at" | "scheduled_for" => format!("was.{column} - copy * 86400000000000"),
        "trigger" => earlier("was.trigger", "$.scheduledFor"),
        // The first event says who the run is and when it was due; the others say nothing of that.
        "json" => {
            let moved = earlier(&earlier("was.json", "$.data.at"), "$.data.trigger.scheduledFor");
            format!(
                "CASE was.sequence WHEN 1 THEN json_replace({moved}, '$.data.run', was.run || '-copy' || copy) \
                 ELSE was.json END"
            )
        }
        other => format!("was.{other}"),
    });
    let values = values.collect::<Vec<_>>().join(", ");
    Ok((columns.join(", "), values))
}

/// The daemon's own server, asked over loopback.
struct Pages {
    address: std::net::SocketAddr,
    client: reqwest::Client,
    stop: CancellationToken,
    task: tokio::task::JoinHandle<Result<(), Stop>>,
}

impl Pages {
    fn open(directory: &Path, daemon: &Daemon) -> Outcome<Self> {
        let listen = "127.0.0.1:0".parse()?;
        let config = Http { listen, tls: None, tokens: Vec::new(), socket: None };
        let server = Server::bind(&config, &directory.join("bench.sock"))?;
        let (address, stop, figures) = (server.address(), CancellationToken::new(), Arc::clone(&daemon.metrics));
        let app = App {
            dispatcher: daemon.handle.clone(),
            store: Arc::clone(&daemon.store),
            feed: Feed::new(),
            metrics: Arc::new(move || figures.render()),
            guarded: muster::guard::Guarded::default(),
        };
        let task = tokio::spawn(server.serve(app, stop.clone()));
        let client = reqwest::Client::builder().no_proxy().timeout(PATIENCE).tls_certs_only([]).build()?;
        Ok(Self { address, client, stop, task })
    }

    async fn time(&self, what: &str, path: &str, count: usize) -> Outcome<()> {
        let (mut times, mut size) = (Vec::new(), 0);
        for _ in 0..11 {
            let begun = Instant::now();
            let answer = self.client.get(format!("http://{}{path}", self.address)).send().await?.error_for_status()?;
            size = answer.bytes().await?.len();
            times.push(begun.elapsed());
        }
        let first = times.first().copied().ok_or("no answer")?;
        times.sort();
        let middle = times.get(times.len() / 2).copied().ok_or("no answer")?;
        let value = format!("{} ({} the first), {} KiB", seconds(middle), seconds(first), size / 1_024);
        row(what, count, value, "");
        Ok(())
    }

    async fn close(self) -> Outcome<()> {
        self.stop.cancel();
        Ok(tokio::time::timeout(PATIENCE, self.task).await???)
    }
}

struct Daemon {
    store: Arc<dyn Store>,
    metrics: Arc<Metrics>,
    lags: Arc<Lags>,
    handle: muster::dispatcher::Handle,
    task: tokio::task::JoinHandle<Result<(), Stop>>,
}

impl Daemon {
    async fn start(directory: &Path, book: Arc<Book>) -> Outcome<Self> {
        let metrics = Arc::new(Metrics::new()?);
        let real: Arc<dyn Store> = Arc::new(SqliteStore::open(&directory.join(FILE_NAME), Mode::ReadWrite)?);
        let store: Arc<dyn Store> = Arc::new(Timed::new(real, Arc::clone(&metrics)));
        let lags = Arc::new(Lags::default());
        let listeners = Listeners::new(vec![Arc::clone(&metrics) as Arc<dyn Listener>, Arc::clone(&lags) as _]);
        let setup = Setup {
            concurrency: Concurrency { total: SLOTS, per_target: SLOTS },
            grace: Duration::from_secs(10),
            store: Arc::clone(&store),
            runner: Arc::new(Instantly { store: Arc::clone(&store) }),
            listeners,
            alarms: Alarms::new(Arc::clone(&store) as _),
        };
        let (dispatcher, handle) = Dispatcher::new(setup, book).await?;
        let view = handle.clone();
        metrics.follow(move || view.view());
        let task = tokio::spawn(dispatcher.run());
        Ok(Self { store, metrics, lags, handle, task })
    }

    async fn tell(&self, book: Arc<Book>) {
        self.handle.tell(Event::Drills(book)).await;
        // What is read takes a moment to be understood, and that is not idleness.
        tokio::time::sleep(Duration::from_secs(3)).await;
    }

    /// CPU time of the whole process in percent of a core, and its resident memory.
    async fn rest(&self, time: Duration) -> Outcome<(f64, u64)> {
        tokio::time::sleep(Duration::from_secs(3)).await;
        let (before, begun) = (cpu()?, Instant::now());
        tokio::time::sleep(time).await;
        let used = cpu()? - before;
        Ok((100.0 * used / begun.elapsed().as_secs_f64(), resident()?))
    }

    async fn lags(&self, book: Arc<Book>, count: usize, what: &str) -> Outcome<()> {
        self.lags.take();
        let begun = Instant::now();
        self.handle.tell(Event::Drills(book)).await;
        while self.lags.ended() < count {
            if begun.elapsed() > PATIENCE {
                return Err(format!("{what}: only {} of {count} runs ended", self.lags.ended()).into());
            }
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
        let mut lags = self.lags.take();
        lags.sort_by(f64::total_cmp);
        let at = |share: usize| lags.get((lags.len() * share / 100).min(lags.len().saturating_sub(1))).copied();
        let value = format!("{:.2} s / {:.2} s", at(50).ok_or("no run")?, at(99).ok_or("no run")?);
        row(&format!("schedule lag p50 / p99, {what}"), count, value, "");
        Ok(())
    }

    fn scrape(&self, count: usize) -> Outcome<()> {
        let mut times = Vec::new();
        let mut size = 0;
        for _ in 0..20 {
            let begun = Instant::now();
            size = self.metrics.render().len();
            times.push(begun.elapsed());
        }
        let first = times.first().copied().ok_or("no scrape")?;
        times.sort();
        let middle = times.get(times.len() / 2).copied().ok_or("no scrape")?;
        let value = format!("{} ({} the first)", seconds(middle), seconds(first));
        row(&format!("/metrics, {}", mebibytes(size.try_into()?)), count, value, "");
        Ok(())
    }

    async fn stop(self) -> Outcome<()> {
        self.handle.tell(Event::Stop).await;
        Ok(tokio::time::timeout(PATIENCE, self.task).await???)
    }
}

/// Writes a run into the store as the executor would, and does nothing in between.
struct Instantly {
    store: Arc<dyn Store>,
}

#[async_trait]
impl Runner for Instantly {
    async fn run(&self, job: Job, observer: Arc<dyn Observer>, _: Cancel) -> Result<Ended, Stop> {
        let at = Timestamp::now();
        let entropy = Sha256Digest::of(format!("{at}{}", job.name()).as_bytes());
        let [a, b, c, d, ..] = *entropy.as_bytes();
        let started = RunStarted {
            run: RunId::new(job.name(), at, [a, b, c, d]),
            drill: job.name().clone(),
            drill_digest: job.drill.digest,
            drill_file: job.file.display().to_string(),
            labels: BTreeMap::new(),
            at,
            owner: Owner { pid: std::process::id(), start_ticks: 1, boot_id: "boot".to_owned() },
            muster_version: env!("CARGO_PKG_VERSION").to_owned(),
            fidelity: Fidelity::Production,
            objectives: Objectives::default(),
            evidence_directory: "/var/lib/muster/evidence".to_owned(),
            trigger: job.trigger,
        };
        self.store.claim(&started).await?;
        let mut events = vec![Stamped { sequence: 1, at, event: LedgerEvent::Started(started.clone()) }];
        observer.update(Update::Event(&events[0]));
        let summary = Summary {
            verdict: Reason::Proven.verdict(),
            reason: Reason::Proven,
            message: "everything asked for was seen".to_owned(),
            advice: None,
            recovery_time_milliseconds: Some(21_400),
            recovery_point_milliseconds: Some(22_320_000),
            boundary_overhead_milliseconds: Some(900),
        };
        let ends = [LedgerEvent::Concluded(summary.clone()), LedgerEvent::Ended { leftovers: Leftovers::None }];
        for event in ends {
            let stamped = self.store.append(&started.run, &event).await?;
            observer.update(Update::Event(&stamped));
            events.push(stamped);
        }
        let state = State::replay(&events).map_err(|error| Stop::internal(error.to_string()))?;
        Ok(Ended { state, summary, leftovers: Leftovers::None, trouble: None })
    }
}

/// How late each run began, and how many have ended.
#[derive(Default)]
struct Lags(Mutex<(Vec<f64>, usize)>);

impl Lags {
    fn ended(&self) -> usize {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).1
    }

    fn take(&self) -> Vec<f64> {
        std::mem::take(&mut *self.0.lock().unwrap_or_else(PoisonError::into_inner)).0
    }
}

impl Listener for Lags {
    fn heard(&self, happening: &Happening) {
        match happening {
            Happening::Run { update: RunUpdate::Event(stamped), .. } => {
                let mut lags = self.0.lock().unwrap_or_else(PoisonError::into_inner);
                match &stamped.event {
                    LedgerEvent::Started(started) => {
                        if let Trigger::Schedule { scheduled_for } = started.trigger {
                            lags.0.push(stamped.at.duration_since(scheduled_for).as_secs_f64());
                        }
                    }
                    LedgerEvent::Ended { .. } => lags.1 += 1,
                    _ => {}
                }
            }
            Happening::Run { .. } | Happening::Recovered { .. } => {}
            Happening::Skipped { drill, why, .. } => eprintln!("skipped: {drill}, {}", why.as_str()),
            Happening::NotBegun { drill, why } => eprintln!("not begun: {drill}: {why}"),
        }
    }
}

fn book(count: usize, cron: impl Fn(usize) -> String) -> Outcome<Arc<Book>> {
    let mut drills = BTreeMap::new();
    for n in 0..count {
        let mut text = String::from("apiVersion: muster.dev/v1\nkind: Drill\n");
        write!(
            text,
            "metadata: {{ name: drill-{n:05} }}\nspec:\n  schedule: {{ cron: '{}', missed: run-once }}\n  \
             objectives: {{ recoveryTime: 30m, recoveryPoint: 24h }}\n  \
             source: {{ manifest: /backups/{n:05}/latest/manifest.json, trustedKeys: [{{ file: /etc/muster/backup.pub }}] }}\n",
            cron(n)
        )?;
        let drill = drill::file::parse(&text, drill::file::Options::default()).map_err(|_| format!("bad:\n{text}"))?;
        let name: DrillName = drill.name.clone();
        let file = PathBuf::from(format!("/etc/muster/drills/{name}.yaml"));
        drills.insert(name, Entry { drill: Arc::new(drill), file });
    }
    Ok(Arc::new(Book { drills, problems: Vec::new() }))
}

/// Once a year, at that second.
fn cron(at: Timestamp) -> String {
    at.strftime("%-S %-M %-H %-d %-m *").to_string()
}

/// Seconds of CPU time of this process: fields 14 and 15 of /proc/self/stat, in hundredths.
fn cpu() -> Outcome<f64> {
    let stat = std::fs::read_to_string("/proc/self/stat")?;
    let (_, fields) = stat.rsplit_once(") ").ok_or("no name in /proc/self/stat")?;
    let ticks: Vec<f64> = fields.split(' ').skip(11).take(2).map(str::parse).collect::<Result<_, _>>()?;
    Ok(ticks.iter().sum::<f64>() / 100.0)
}

fn resident() -> Outcome<u64> {
    let status = std::fs::read_to_string("/proc/self/status")?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).ok_or("no VmRSS in /proc/self/status")?;
    let kibibytes: u64 = line.trim().trim_end_matches(" kB").parse()?;
    Ok(kibibytes * 1_024)
}

fn mebibytes(bytes: u64) -> String {
    let tenths = bytes * 10 / (1 << 20);
    format!("{}.{} MiB", tenths / 10, tenths % 10)
}

fn seconds(time: Duration) -> String {
    format!("{:.1} ms", time.as_secs_f64() * 1_000.0)
}

fn row(what: &str, count: usize, value: impl AsRef<str>, goal: &str) {
    println!("| {what} | {count} | {} | {goal} |", value.as_ref());
}
