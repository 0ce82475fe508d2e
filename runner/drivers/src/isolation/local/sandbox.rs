//! One provisioned sandbox: started, used, watched.
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::net::UnixListener;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use drill::agent::ProbeTargets;
use drill::id::RunId;
use drill::port::{AgentProcess, ByteStream, Doorway, Exec, ExecOutput, Sandbox, SandboxSpec};
use drill::proof::Probe;
use drill::spec::Limits;
use drill::stop::{OrStop, Stop};
use drill::verdict::Reason;
use rustix::fs::Mode;
use serde::{Deserialize, Serialize};
use tokio::net::unix::pipe::{Receiver, Sender};
use tokio_util::compat::{TokioAsyncReadCompatExt, TokioAsyncWriteCompatExt};

use super::bwrap::{Inside, Outside, PROGRAM};
use super::cgroup::Group;
use super::control::{self, Control};
use super::directory::RunDirectory;
use super::doorway::{LoopbackDoorway, WayIn};
use super::limits::Bounds;
use super::probe::Targets;
use super::process::Identity;
use super::spawn::{self, Launch, Running};
use super::watch::Watch;
use super::{Shared, exec, inside, probe, template, tree};

const SOCKET: &str = "db.sock";

/// What the ledger keeps of a sandbox or an agent, so that it is found after a crash.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Handle {
    pub(super) outer: Identity,
    pub(super) first: Identity,
    pub(super) uid: u32,
    pub(super) cgroup: Group,
}

/// What one bubblewrap of a run is started with; the agent's and the template's too.
pub(super) struct Start<'a> {
    pub(super) shared: &'a Shared,
    pub(super) run: &'a RunId,
    pub(super) directory: &'a RunDirectory,
    pub(super) uid: u32,
    pub(super) limits: &'a Limits,
}

impl Start<'_> {
    pub(super) fn data(&self, data: &str, programs: Option<PathBuf>) -> Inside {
        let path = |name| self.directory.join(name);
        Inside::Database { data: path(data), conf: path("conf"), backup: path("backup"), programs }
    }

    fn launch(&self, kind: &str, inside: Inside, bounds: &Bounds) -> Result<Launch, Stop> {
        let group = self.shared.cgroups.make(&self.shared.group_name(kind, self.run), bounds)?;
        Ok(Launch {
            bwrap: self.shared.bwrap.clone(),
            name: self.shared.root.process_name(kind, self.run),
            inside,
            outside: Outside {
                program: self.shared.root.reachable_program(&self.shared.program, self.uid)?,
                passwd: self.directory.join("etc/passwd"),
                group: self.directory.join("etc/group"),
            },
            limits: *self.limits,
            command: vec![PROGRAM.to_owned()],
            uid: self.uid,
            rlimits: bounds.rlimits(self.uid)?,
            group,
            inherit: Vec::new(),
            stdin: nothing_to_read()?,
            stdout: None,
        })
    }

    /// A sandbox whose first command is muster's init; returns when that answers.
    pub(super) async fn with_init(&self, inside: Inside, socket: &str, port: u16) -> Result<Started, Stop> {
        let tried = "preparing the sandbox's sockets";
        let listener = self.listen(socket).or_stop(Reason::Internal, tried)?;
        let (ours, theirs) = control::pair().or_stop(Reason::Internal, tried)?;
        let bounds = Bounds::database(self.limits);
        let mut launch = self.launch("sandbox", inside, &bounds)?;
        let number = |fd: &OwnedFd| fd.as_raw_fd().to_string();
        launch.command.extend([inside::INIT.to_owned(), number(&theirs), number(&listener), port.to_string()]);
        launch.inherit = vec![theirs, listener];
        let group = launch.group.clone();
        let running = spawn::launch(launch, Arc::clone(&self.shared.making)).await?;
        let control = Control::new(ours).or_stop(Reason::Internal, tried)?;
        if let Err(stop) = control.ready().await {
            let said = running.stderr.lock().map(|tail| tail.text()).unwrap_or_default();
            return Err(Stop { message: format!("{}: {}", stop.message, exec::clean(&said)), ..stop });
        }
        Ok(Started { running, control, group })
    }

    /// Bound and listened on by the runner, in a directory that no sandbox of a database sees.
    fn listen(&self, name: &str) -> std::io::Result<OwnedFd> {
        let directory = self.directory.open("socket")?;
        // Through the descriptor, because a socket's path has room for 107 bytes only.
        let path = format!("/proc/self/fd/{}/{name}", directory.as_raw_fd());
        let listener = UnixListener::bind(&path)?;
        let (uid, gid) = tree::ids(self.uid);
        rustix::fs::chownat(directory.as_fd(), name, uid, gid, rustix::fs::AtFlags::SYMLINK_NOFOLLOW)?;
        rustix::fs::chmodat(directory.as_fd(), name, Mode::RUSR | Mode::WUSR, rustix::fs::AtFlags::empty())?;
        Ok(listener.into())
    }
}

pub(super) struct Started {
    pub(super) running: Running,
    pub(super) control: Control,
    group: Group,
}

pub(super) struct LocalSandbox {
    shared: Arc<Shared>,
    run: RunId,
    limits: Limits,
    uid: u32,
    directory: RunDirectory,
    handle: serde_json::Value,
    control: Control,
    targets: Targets,
    watch: Watch,
    way_in: WayIn,
    /// They end with the sandbox.
    agents: Mutex<Vec<Running>>,
    _running: Running,
}

impl LocalSandbox {
    pub(super) async fn provision(shared: Arc<Shared>, spec: SandboxSpec) -> Result<Self, Stop> {
        let directory = shared.root.run(&spec.run);
        let uid = directory.owner()?;
        directory.write_inputs(&spec.inputs.files, uid)?;
        let start = Start { shared: &shared, run: &spec.run, directory: &directory, uid, limits: &spec.limits };
        if let Some(template) = &spec.inputs.template {
            template::fill(&start, template, spec.inputs.programs.clone()).await?;
        }
        let inside = start.data("data", spec.inputs.programs.clone());
        let Started { running, control, group } = start.with_init(inside, SOCKET, spec.inputs.port).await?;
        let handle = handle(&running, uid, &group)?;
        let socket_directory = directory.open("socket").or_stop(Reason::Internal, "opening the socket's directory")?;
        let way_in = WayIn::new(socket_directory, SOCKET);
        let targets = Targets::open(&spec.run)?;
        let watch = Watch::start(&running, group, &directory, spec.limits.disk)?;
        let (run, limits) = (spec.run, spec.limits);
        Ok(Self {
            shared,
            run,
            limits,
            uid,
            directory,
            handle,
            control,
            targets,
            watch,
            way_in,
            agents: Mutex::default(),
            _running: running,
        })
    }

    /// Why the sandbox ended says more than that it did.
    async fn or_breach<T>(&self, result: Result<T, Stop>) -> Result<T, Stop> {
        match result {
            Err(stop) if stop == control::gone() => {
                Err(tokio::time::timeout(Duration::from_secs(2), self.watch.breach()).await.unwrap_or(stop))
            }
            other => other,
        }
    }
}

#[async_trait]
impl Sandbox for LocalSandbox {
    fn handle(&self) -> serde_json::Value {
        self.handle.clone()
    }

    async fn deliver(&self) -> Result<(), Stop> {
        let (directory, uid) = (self.directory.clone(), self.uid);
        let tried = "delivering the backup to the sandbox";
        let done = tokio::task::spawn_blocking(move || directory.deliver(uid)).await;
        done.or_stop(Reason::Internal, tried)?.or_stop(Reason::Internal, tried)
    }

    async fn exec(&self, exec: Exec) -> Result<ExecOutput, Stop> {
        self.or_breach(exec::exec(&self.control, exec).await).await
    }

    async fn dial(&self) -> Result<Box<dyn ByteStream>, Stop> {
        Ok(Box::new(self.way_in.dial().await?.compat()))
    }

    async fn open_doorway(&self) -> Result<Box<dyn Doorway>, Stop> {
        Ok(Box::new(LoopbackDoorway::open(self.way_in.clone()).await?))
    }

    fn probe_targets(&self) -> ProbeTargets {
        self.targets.addresses.clone()
    }

    async fn probe(&self) -> Result<Vec<Probe>, Stop> {
        probe::probe(self, &self.targets).await
    }

    async fn run_agent(&self) -> Result<AgentProcess, Stop> {
        let tried = "starting the agent";
        let (stdin, stdin_writer) = spawn::pipe().or_stop(Reason::Internal, tried)?;
        let (stdout_reader, stdout) = spawn::pipe().or_stop(Reason::Internal, tried)?;
        let start = Start {
            shared: &self.shared,
            run: &self.run,
            directory: &self.directory,
            uid: self.uid,
            limits: &self.limits,
        };
        let inside = Inside::Agent { socket: self.directory.join("socket").join(SOCKET) };
        let mut launch = start.launch("agent", inside, &Bounds::agent(&self.limits))?;
        launch.command.push("agent".to_owned());
        launch.stdin = stdin;
        launch.stdout = Some(stdout);
        let group = launch.group.clone();
        let running = spawn::launch(launch, Arc::clone(&self.shared.making)).await?;
        let handle = handle(&running, self.uid, &group)?;
        let stderr = Arc::clone(&running.stderr);
        self.agents.lock().unwrap_or_else(PoisonError::into_inner).push(running);
        let stdin = Sender::from_owned_fd(stdin_writer).or_stop(Reason::Internal, tried)?;
        let stdout = Receiver::from_owned_fd(stdout_reader).or_stop(Reason::Internal, tried)?;
        Ok(AgentProcess {
            handle,
            stdin: Box::pin(stdin.compat_write()),
            stdout: Box::pin(stdout.compat()),
            stderr: Arc::new(move || stderr.lock().map(|tail| tail.text()).unwrap_or_default()),
        })
    }

    async fn breach(&self) -> Stop {
        self.watch.breach().await
    }
}

fn handle(running: &Running, uid: u32, group: &Group) -> Result<serde_json::Value, Stop> {
    let (outer, first) = (running.outer.identity.clone(), running.first.identity.clone());
    let handle = Handle { outer, first, uid, cgroup: group.clone() };
    serde_json::to_value(handle).or_stop(Reason::Internal, "writing the sandbox's handle")
}

/// A pipe whose other end is closed: a file of the host has no business inside.
fn nothing_to_read() -> Result<OwnedFd, Stop> {
    spawn::pipe().map(|(read, _)| read).or_stop(Reason::Internal, "making a pipe")
}
