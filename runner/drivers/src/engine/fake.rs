//! An engine without a database, for the tests of whoever drives one. It knows roles and nothing else; each step can be made
//! to fail, and each calls a hook that a test may panic in.
use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use drill::agent::{ClientIdentity, SecretText};
use drill::finding::Finding;
use drill::manifest::Manifest;
use drill::port::{
    Engine, EnginePlan, Programs, Progress, Restored, Rows, Sandbox, SandboxInputs, Server, Session, SqlError,
};
use drill::proof::{Expected, Probe};
use drill::schema::Taken;
use drill::secret::Secret;
use drill::spec::Postgresql;
use drill::stop::Stop;
use tokio::sync::watch;

/// Called with the name of a step, such as `server.restore`, before it happens.
pub type Hook = Arc<dyn Fn(&str) + Send + Sync>;

/// What a test tells the fake to do, and what it can look at afterwards. Clones share it.
#[derive(Clone)]
pub struct Script {
    hook: Hook,
    failures: Arc<Mutex<BTreeMap<String, Stop>>>,
    roles: Arc<Mutex<BTreeSet<String>>>,
    findings: Arc<Mutex<Vec<Finding>>>,
    gone: Arc<watch::Sender<Option<Stop>>>,
}

impl Default for Script {
    fn default() -> Self {
        Self::new(Arc::new(|_| ()))
    }
}

impl Script {
    pub fn new(hook: Hook) -> Self {
        Self {
            hook,
            failures: Arc::default(),
            roles: Arc::default(),
            findings: Arc::default(),
            gone: Arc::new(watch::channel(None).0),
        }
    }

    /// Makes a step fail from now on.
    pub fn fail(&self, step: &str, why: Stop) {
        if let Ok(mut failures) = self.failures.lock() {
            failures.insert(step.to_owned(), why);
        }
    }

    /// What the restore will have found.
    pub fn find(&self, finding: Finding) {
        if let Ok(mut findings) = self.findings.lock() {
            findings.push(finding);
        }
    }

    /// Ends the server by itself.
    pub fn die(&self, stop: Stop) {
        self.gone.send_replace(Some(stop));
    }

    /// Roles that exist in the server.
    pub fn roles(&self) -> Vec<String> {
        self.roles.lock().map(|roles| roles.iter().cloned().collect()).unwrap_or_default()
    }

    fn step(&self, name: &str) -> Result<(), Stop> {
        (self.hook)(name);
        match self.failures.lock().ok().and_then(|failures| failures.get(name).cloned()) {
            Some(stop) => Err(stop),
            None => Ok(()),
        }
    }

    fn sql(&self, name: &str) -> Result<(), SqlError> {
        self.step(name).map_err(|stop| SqlError { sqlstate: None, message: stop.message })
    }
}

pub struct FakeEngine {
    script: Script,
}

impl FakeEngine {
    pub fn new(script: Script) -> Self {
        Self { script }
    }
}

#[async_trait]
impl Engine for FakeEngine {
    fn name(&self) -> &'static str {
        "postgresql"
    }

    async fn plan(
        &self,
        _manifest: &Manifest,
        _wanted: &Postgresql,
        _programs: Programs,
    ) -> Result<Box<dyn EnginePlan>, Stop> {
        self.script.step("engine.plan")?;
        Ok(Box::new(FakePlan { script: self.script.clone() }))
    }
}

struct FakePlan {
    script: Script,
}

#[async_trait]
impl EnginePlan for FakePlan {
    fn note(&self) -> String {
        "a fake engine".to_owned()
    }

    fn findings(&self) -> Vec<Finding> {
        Vec::new()
    }

    fn disk_estimate(&self) -> u64 {
        1 << 20
    }

    fn inputs(&self) -> SandboxInputs {
        SandboxInputs { port: 5432, ..SandboxInputs::default() }
    }

    async fn serve(&self, _sandbox: Arc<dyn Sandbox>) -> Result<Arc<dyn Server>, Stop> {
        self.script.step("engine.serve")?;
        self.script.gone.send_replace(None);
        Ok(Arc::new(FakeServer::new(self.script.clone())))
    }
}

pub struct FakeServer {
    script: Script,
}

impl FakeServer {
    pub fn new(script: Script) -> Self {
        Self { script }
    }
}

#[async_trait]
impl Server for FakeServer {
    async fn probe(&self) -> Result<Vec<Probe>, Stop> {
        self.script.step("server.probe")?;
        let probe = |name: &str, seen| Probe {
            name: format!("database: {name}"),
            expected: seen,
            observed: seen,
            detail: "fake".to_owned(),
        };
        Ok(vec![probe("login of the runner", Expected::Open), probe("login without a certificate", Expected::Closed)])
    }

    async fn probe_identity(&self) -> Result<ClientIdentity, Stop> {
        self.script.step("server.probe_identity")?;
        self.identity("muster_probe", Duration::from_mins(5))
    }

    fn identity(&self, role: &str, _ttl: Duration) -> Result<ClientIdentity, Stop> {
        Ok(ClientIdentity {
            role: role.to_owned(),
            server_name: "db.sandbox.muster".to_owned(),
            ca: String::new(),
            certificate: String::new(),
            key: SecretText(Secret::new(String::new())),
        })
    }

    async fn restore(&self, manifest: &Manifest, progress: &dyn Progress) -> Result<Restored, Stop> {
        self.script.step("server.restore")?;
        progress.set(1, Some(1), "entries");
        let databases = manifest.parts.iter().map(|part| part.database.clone()).collect();
        let findings = self.script.findings.lock().map(|findings| findings.clone()).unwrap_or_default();
        Ok(Restored { databases, findings, note: "1 entry, 1 database".to_owned() })
    }

    /// Knows `CREATE ROLE "name"` and `DROP ROLE IF EXISTS "name"`.
    async fn admin(&self, _database: &str, statements: &str) -> Result<Rows, SqlError> {
        self.script.sql("server.admin")?;
        let name = |prefix: &str| statements.strip_prefix(prefix).map(|rest| rest.trim_matches('"').to_owned());
        if let Ok(mut roles) = self.script.roles.lock() {
            if let Some(role) = name("CREATE ROLE ") {
                roles.insert(role);
            } else if let Some(role) = name("DROP ROLE IF EXISTS ") {
                roles.remove(&role);
            }
        }
        Ok(Rows::new())
    }

    async fn login(&self, identity: &ClientIdentity, _database: &str) -> Result<Box<dyn Session>, SqlError> {
        self.script.sql("server.login")?;
        if self.script.roles().contains(&identity.role) {
            Ok(Box::new(FakeSession))
        } else {
            let message = format!("role \"{}\" does not exist", identity.role);
            Err(SqlError { sqlstate: Some("28000".to_owned()), message })
        }
    }

    async fn expected_schema(&self, _: &Manifest, _: &str, file: &[u8], _: Vec<Taken>) -> Result<Vec<u8>, Stop> {
        Ok(file.to_vec())
    }

    fn connections(&self) -> Vec<String> {
        Vec::new()
    }

    async fn gone(&self) -> Stop {
        let mut gone = self.script.gone.subscribe();
        let stop = gone.wait_for(Option::is_some).await.ok().and_then(|stop| stop.clone());
        match stop {
            Some(stop) => stop,
            None => std::future::pending().await,
        }
    }

    async fn stop(&self) -> Result<(), Stop> {
        self.script.step("server.stop")?;
        if let Ok(mut roles) = self.script.roles.lock() {
            roles.clear();
        }
        Ok(())
    }
}

struct FakeSession;

#[async_trait]
impl Session for FakeSession {
    async fn run(&self, _statements: &str) -> Result<Rows, SqlError> {
        Err(SqlError { sqlstate: Some("42501".to_owned()), message: "permission denied".to_owned() })
    }
}
