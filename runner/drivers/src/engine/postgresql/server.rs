//! The server inside a sandbox: started, asked, probed, stopped.
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use drill::agent::{ClientIdentity, SecretText};
use drill::manifest::Manifest;
use drill::port::{Exec, ExecOutput, ExitStatus, Progress, Restored, Rows, Sandbox, Server, Session, SqlError};
use drill::proof::{Expected, Probe};
use drill::schema::Taken;
use drill::secret::Secret;
use drill::stop::{OrStop, Stop};
use drill::verdict::Reason;
use tokio::sync::{Mutex, watch};
use tokio::time::Instant;
use tokio_util::task::AbortOnDropHandle;

use super::classify::MAKE_ROOM;
use super::client::{Connection, Who, open_in_plaintext};
use super::install::Install;
use super::log::ServerLog;
use super::schema::{self, TranslateError};
use super::text::plain;
use super::tls::Authority;
use super::{ADMIN_ROLE, MAINTENANCE_DATABASE, conf, restore};

/// Can log in and do nothing else; the restore takes its login away with everybody's.
const PROBE_ROLE: &str = "muster_probe";
const PROBE_LIFE: Duration = Duration::from_mins(5);
const START_DEADLINE: Duration = Duration::from_mins(1);
const STOP_DEADLINE: Duration = Duration::from_secs(20);
/// A postmaster gives its processes five seconds before it kills them.
const STOPPING: Duration = Duration::from_secs(8);
/// The executor's deadlines end a run long before; this only says that no command lives for ever.
pub(super) const LONGEST: Duration = Duration::from_hours(14 * 24);

pub(super) struct PostgresqlServer {
    pub(super) sandbox: Arc<dyn Sandbox>,
    pub(super) install: Install,
    pub(super) jobs: u32,
    authority: Arc<Authority>,
    admin: ClientIdentity,
    /// Held open: whoever floods the port cannot keep the administrator out.
    maintenance: Mutex<Option<Arc<Connection>>>,
    log: Arc<ServerLog>,
    ended: watch::Receiver<Option<String>>,
    /// The server lives as long as this: dropping it ends the command inside.
    process: AbortOnDropHandle<()>,
}

pub(super) async fn start(
    sandbox: Arc<dyn Sandbox>,
    install: &Install,
    authority: Arc<Authority>,
    jobs: u32,
) -> Result<PostgresqlServer, Stop> {
    let log = Arc::new(ServerLog::default());
    let (ended_sender, ended) = watch::channel(None);
    let mut exec = Exec::new(conf::serve_argv(install));
    exec.env = vec![("LC_ALL".to_owned(), "C".to_owned())];
    exec.deadline = LONGEST;
    exec.keep = 4 << 10;
    let sink = Arc::clone(&log);
    exec.lines = Some(Arc::new(move |_, line| sink.line(line)));
    let inside = Arc::clone(&sandbox);
    let process = AbortOnDropHandle::new(tokio::spawn(async move {
        let how = obituary(inside.exec(exec).await);
        // Nobody listens any more where the server was dropped.
        let _ = ended_sender.send(Some(how));
    }));
    let admin = authority.client(ADMIN_ROLE, LONGEST)?;
    let server = PostgresqlServer {
        sandbox,
        install: install.clone(),
        jobs,
        authority,
        admin,
        maintenance: Mutex::new(None),
        log,
        ended,
        process,
    };
    server.wait_until_it_answers().await?;
    Ok(server)
}

fn obituary(result: Result<ExecOutput, Stop>) -> String {
    match result {
        Ok(output) => match output.status {
            ExitStatus::Code(code) => format!("exit code {code}"),
            ExitStatus::Signal(signal) => format!("signal {signal}"),
            ExitStatus::DeadlineExceeded => "its deadline".to_owned(),
        },
        Err(stop) => stop.message,
    }
}

impl PostgresqlServer {
    async fn wait_until_it_answers(&self) -> Result<(), Stop> {
        let deadline = Instant::now() + START_DEADLINE;
        let mut pause = Duration::from_millis(10);
        loop {
            let Err(error) = self.admin(MAINTENANCE_DATABASE, "SELECT 1").await else { return Ok(()) };
            if let Some(how) = self.ended.borrow().clone() {
                return Err(self.why_gone(&how));
            }
            if Instant::now() >= deadline {
                return Err(Stop::new(
                    Reason::SandboxUnfit,
                    format!("PostgreSQL did not answer in {} s: {error}", START_DEADLINE.as_secs()),
                ));
            }
            tokio::select! {
                () = tokio::time::sleep(pause) => {}
                () = self.log.ready() => {}
            }
            pause = (pause * 2).min(Duration::from_millis(250));
        }
    }

    /// Turns the end of the server into what a person can act on. Never a verdict on the backup.
    pub(super) fn why_gone(&self, how: &str) -> Stop {
        let words = self.log.last_words();
        let words = if words.is_empty() { String::new() } else { format!(": {words}") };
        let message = format!("PostgreSQL ended in the sandbox with {how}{words}");
        if self.log.says("No space left on device") {
            return Stop::new(Reason::LimitReached, message).advise(MAKE_ROOM);
        }
        if how == "signal 9" || self.log.says("terminated by signal 9") || self.log.says("out of memory") {
            return Stop::new(Reason::LimitReached, message).advise("raise the sandbox's memory limit");
        }
        let stop = Stop::new(Reason::SandboxUnfit, message);
        if self.log.says("configuration file") || self.log.says("unrecognized configuration parameter") {
            return stop.advise("correct engine.settings of the drill");
        }
        stop
    }

    /// Its end, where it has ended or is about to.
    pub(super) async fn death(&self) -> Option<Stop> {
        let mut ended = self.ended.clone();
        let waited = tokio::time::timeout(Duration::from_millis(300), ended.wait_for(Option::is_some)).await;
        let how = waited.ok()?.map_or_else(|_| Some("a panic of its watcher".to_owned()), |how| how.clone())?;
        Some(self.why_gone(&how))
    }

    pub(super) fn log_says(&self, text: &str) -> bool {
        self.log.says(text)
    }

    /// So that a database can be dropped, or that its settings apply.
    pub(super) async fn forget_connections(&self) {
        self.maintenance.lock().await.take();
    }

    async fn maintenance(&self) -> Result<Arc<Connection>, SqlError> {
        let mut held = self.maintenance.lock().await;
        if let Some(connection) = held.as_ref().filter(|connection| connection.is_open()) {
            return Ok(Arc::clone(connection));
        }
        let connection =
            Connection::open(self.sandbox.as_ref(), &self.admin, MAINTENANCE_DATABASE, self.who(true)).await?;
        let connection = Arc::new(connection);
        *held = Some(Arc::clone(&connection));
        Ok(connection)
    }

    fn who(&self, admin: bool) -> Who {
        if admin { Who::Admin { major: self.install.major } } else { Who::Other }
    }

    async fn attempt(&self, name: &str, expected: Expected, identity: &ClientIdentity) -> Probe {
        let who = self.who(expected == Expected::Open);
        let seen = Connection::open(self.sandbox.as_ref(), identity, MAINTENANCE_DATABASE, who);
        probe(name, expected, seen.await.map(drop))
    }
}

fn probe(name: &str, expected: Expected, seen: Result<(), SqlError>) -> Probe {
    let (observed, detail) = match seen {
        Ok(()) => (Expected::Open, "logged in".to_owned()),
        Err(error) => (Expected::Closed, plain(&error.to_string(), 200)),
    };
    Probe { name: format!("database: {name}"), expected, observed, detail }
}

#[async_trait]
impl Server for PostgresqlServer {
    /// The control comes first and last, so that a refusal in between cannot be a server that is away.
    async fn probe(&self) -> Result<Vec<Probe>, Stop> {
        let mut without = self.admin.clone();
        without.certificate = String::new();
        without.key = SecretText(Secret::new(String::new()));
        let stranger = Authority::new(&self.admin.server_name)?.client(ADMIN_ROLE, LONGEST)?;
        let stranger = ClientIdentity { ca: self.admin.ca.clone(), ..stranger };
        let other_name =
            ClientIdentity { role: ADMIN_ROLE.to_owned(), ..self.authority.client("muster_somebody_else", LONGEST)? };
        let first = self.attempt("login of the runner", Expected::Open, &self.admin).await;
        let (without, stranger, other_name, plaintext) = tokio::join!(
            self.attempt("login without a certificate", Expected::Closed, &without),
            self.attempt("login with a stranger's certificate", Expected::Closed, &stranger),
            self.attempt("login with a certificate for another role", Expected::Closed, &other_name),
            open_in_plaintext(self.sandbox.as_ref(), ADMIN_ROLE),
        );
        let plaintext = probe("login without TLS", Expected::Closed, plaintext);
        let last = self.attempt("login of the runner, again", Expected::Open, &self.admin).await;
        Ok(vec![first, without, stranger, other_name, plaintext, last])
    }

    async fn probe_identity(&self) -> Result<ClientIdentity, Stop> {
        self.admin(MAINTENANCE_DATABASE, &format!("CREATE ROLE {PROBE_ROLE} LOGIN"))
            .await
            .or_stop(Reason::IsolationUnproven, "making a role for the probe")?;
        self.authority.client(PROBE_ROLE, PROBE_LIFE)
    }

    fn identity(&self, role: &str, ttl: Duration) -> Result<ClientIdentity, Stop> {
        self.authority.client(role, ttl)
    }

    async fn restore(&self, manifest: &Manifest, progress: &dyn Progress) -> Result<Restored, Stop> {
        restore::restore(self, manifest, progress).await
    }

    async fn admin(&self, database: &str, statements: &str) -> Result<Rows, SqlError> {
        if database == MAINTENANCE_DATABASE {
            self.maintenance().await?.run(statements).await
        } else {
            Connection::open(self.sandbox.as_ref(), &self.admin, database, self.who(true)).await?.run(statements).await
        }
    }

    async fn login(&self, identity: &ClientIdentity, database: &str) -> Result<Box<dyn Session>, SqlError> {
        let who = self.who(identity.role == ADMIN_ROLE);
        Ok(Box::new(Connection::open(self.sandbox.as_ref(), identity, database, who).await?))
    }

    async fn expected_schema(
        &self,
        manifest: &Manifest,
        database: &str,
        file: &[u8],
        taken: Vec<Taken>,
    ) -> Result<Vec<u8>, Stop> {
        let session = if manifest.source.major() == self.install.major {
            None
        } else {
            let session = self.login(&self.admin, database).await;
            Some(session.or_stop(Reason::SandboxUnfit, "logging in to compare views of another major version")?)
        };
        match schema::translate(file, taken, session.as_deref()).await {
            Ok(translated) => Ok(translated),
            // Whoever compares reads the file as well, and tells what is wrong with it.
            Err(TranslateError::File(_)) => Ok(file.to_vec()),
            error => error.or_stop(Reason::SandboxUnfit, "comparing views of another major version"),
        }
    }

    fn connections(&self) -> Vec<String> {
        self.log.connections()
    }

    async fn gone(&self) -> Stop {
        let mut ended = self.ended.clone();
        let how = match ended.wait_for(Option::is_some).await {
            Ok(how) => how.clone().unwrap_or_default(),
            Err(_) => "a panic of its watcher".to_owned(),
        };
        self.why_gone(&how)
    }

    /// Immediately, without a checkpoint: what it would write is about to be removed.
    async fn stop(&self) -> Result<(), Stop> {
        self.forget_connections().await;
        if self.ended.borrow().is_some() {
            return Ok(());
        }
        let pg_ctl = self.install.program("pg_ctl");
        // Not waited for by pg_ctl, which looks ten times a second: the end of the server's own command is seen at once.
        let mut exec = Exec::new([&pg_ctl, "stop", "-D", "/data", "-m", "immediate", "-W"]);
        exec.deadline = STOP_DEADLINE;
        let asked = self.sandbox.exec(exec).await;
        let mut ended = self.ended.clone();
        if tokio::time::timeout(STOPPING, ended.wait_for(Option::is_some)).await.is_ok() {
            return Ok(());
        }
        self.process.abort();
        let why = match asked {
            Ok(output) => plain(&String::from_utf8_lossy(&output.stderr), 200),
            Err(stop) => stop.message,
        };
        Err(Stop::internal(format!("PostgreSQL did not stop when asked and its command was ended: {why}")))
    }
}
