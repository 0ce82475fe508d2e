//! One provisioned sandbox: made, used, watched.
use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;

use async_trait::async_trait;
use drill::agent::ProbeTargets;
use drill::id::RunId;
use drill::manifest::Manifest;
use drill::port::{
    AgentProcess, ByteStream, Doorway, Exec, ExecOutput, ExitStatus, InputFile, Sandbox, SandboxSpec, Template,
};
use drill::proof::Probe;
use drill::spec::{Kubernetes, Volume};
use drill::stop::{OrStop, Stop};
use drill::verdict::Reason;
use ipnet::IpNet;
use k8s_openapi::api::core::v1::{Namespace, Pod};
use k8s_openapi::api::networking::v1::NetworkPolicy;
use kube::ResourceExt;
use kube::api::{AttachedProcess, DeleteParams, Portforwarder};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, DuplexStream, ReadBuf};
use tokio_util::compat::{TokioAsyncReadCompatExt, TokioAsyncWriteCompatExt};
use tokio_util::task::TaskTracker;

use super::channel::Place;
use super::cluster::{self, Cluster};
use super::doorway::{self, OwnPolicy, WayIn};
use super::objects::{AGENT, DATABASE, INTAKE, Names, Objects, PORT, STRANGER, STRANGER_EGRESS, WITNESS};
use super::pods::{self, Running};
use super::probe::{self, Ground, Targets};
use super::watch::{Expected, Kept, LASTING, Watch};
use super::{Shared, artifact, deliver, exec, inside, release};
use crate::isolation::local::exec::{Tail, clean};

/// Of everything that is made: requests only, no waiting for what they start.
pub(super) const MAKE: Duration = Duration::from_mins(1);
/// For a pod to run, its images pulled and all. Shorter than a drill's usual deadline, so that what the scheduler says is told.
const START: Duration = Duration::from_secs(100);
const TEMPLATE: Duration = Duration::from_mins(2);
const GONE: Duration = Duration::from_mins(1);
const AGENT_STDERR: usize = 64 << 10;

pub(super) struct KubernetesSandbox {
    cluster: Cluster,
    names: Names,
    staging: PathBuf,
    ground: Ground,
    intake: Place,
    handle: serde_json::Value,
    probe_targets: ProbeTargets,
    stranger: Arc<AtomicBool>,
    watch: Watch,
    /// None: the drill names nobody who may come.
    way_in: Option<Arc<WayIn>>,
    /// None: the backup is sent.
    volume: Option<Volume>,
    leaving: TaskTracker,
    /// They end with the sandbox.
    agents: Mutex<Vec<AttachedProcess>>,
    /// What the agent must not reach by another way than the network.
    _socket: std::os::unix::net::UnixListener,
}

/// What was made, as the API server answered.
struct Made {
    namespace: Namespace,
    policies: Vec<NetworkPolicy>,
    pods: Vec<Pod>,
}

impl KubernetesSandbox {
    pub(super) async fn provision(shared: &Arc<Shared>, asked: Kubernetes, spec: SandboxSpec) -> Result<Self, Stop> {
        if let Some(programs) = &spec.inputs.programs {
            let message = format!("{} lies outside of /usr, which a pod takes from its image", programs.display());
            return Err(Stop::new(Reason::SandboxUnfit, message).advise("name a major that the image has in /usr"));
        }
        let owner = shared.records.owner().to_owned();
        let names = Names::of(&spec.run, &owner, &record(&spec.run));
        let cluster = Cluster::connect(asked.context.as_deref()).await?;
        let objects = Objects::render(&names, &asked);
        let doorway = objects.doorway.clone();
        let all = cluster.clone();
        let made = to_the_end(shared, async move { make(&all, &objects).await }).await?;
        let place = |pod, container| Place { pods: cluster.pods(&names.sandbox), pod, container };
        let (here, there) = (cluster.pods(&names.sandbox), cluster.pods(&names.witness));
        let (database, agent, stranger, witness) = tokio::try_join!(
            pods::running(&here, DATABASE, START),
            pods::running(&here, AGENT, START),
            pods::running(&here, STRANGER, START),
            pods::running(&there, WITNESS, START),
        )?;
        let pods = [(AGENT, agent.address), (STRANGER, stranger.address), (WITNESS, witness.address)];
        only_the_orchestrator(asked.orchestrator, &pods)?;
        let leaving = TaskTracker::new();
        let intake = place(DATABASE, INTAKE);
        let files = inputs(&spec, doorway.is_some().then_some(database.address))?;
        deliver::send(&intake, "/conf", deliver::inputs(&files), &leaving).await?;
        let inner = place(DATABASE, DATABASE);
        if let Some(template) = &spec.inputs.template {
            fill(&inner, template, &leaving).await?;
        }
        let stranger = Arc::new(AtomicBool::new(true));
        let own = Arc::<OwnPolicy>::default();
        let watch = Watch::start(&cluster, &names, expected(&made, &own));
        let way_in = doorway.map(|policy| {
            Arc::new(WayIn {
                cluster: cluster.clone(),
                namespace: names.sandbox.clone(),
                database: inner.clone(),
                address: doorway::address(database.address, asked.port),
                policy,
                own,
                leaving: leaving.clone(),
            })
        });
        let (socket, probe_targets) = targets_of_the_agent(&witness)?;
        let ground = Ground {
            database: inner,
            agent: place(AGENT, AGENT),
            stranger: place(STRANGER, STRANGER),
            witness: Place { pods: there, pod: WITNESS, container: WITNESS },
            targets: Targets::find(&cluster, &database, &witness, &asked.production).await?,
            database_port: SocketAddr::new(database.address, asked.port),
            doorway: way_in.as_ref().map(|way_in| way_in.address),
            stranger_there: Arc::clone(&stranger),
        };
        let handle = serde_json::json!({
            "context": asked.context, "namespace": names.sandbox, "uid": made.namespace.uid(), "pod": database.uid,
        });
        let staging = shared.records.staging(&spec.run);
        let agents = Mutex::default();
        Ok(Self {
            cluster,
            names,
            staging,
            ground,
            intake,
            handle,
            probe_targets,
            stranger,
            watch,
            way_in,
            volume: asked.artifact,
            leaving,
            agents,
            _socket: socket,
        })
    }

    /// The pod that may go anywhere, and the policy that lets it.
    async fn stranger_goes(&self) -> Result<(), Stop> {
        let (pods, policies) = (self.cluster.pods(&self.names.sandbox), self.cluster.policies(&self.names.sandbox));
        let now = DeleteParams::default();
        tokio::try_join!(cluster::delete(&pods, STRANGER, &now), cluster::delete(&policies, STRANGER_EGRESS, &now),)?;
        tokio::try_join!(release::gone(&pods, STRANGER, GONE), release::gone(&policies, STRANGER_EGRESS, GONE))?;
        self.stranger.store(false, Ordering::SeqCst);
        Ok(())
    }

    /// Why the sandbox ended says more than that it did.
    async fn or_breach<T>(&self, result: Result<T, Stop>) -> Result<T, Stop> {
        match result {
            Err(stop) if stop.reason == Reason::Internal => {
                Err(tokio::time::timeout(Duration::from_secs(2), self.watch.breach()).await.unwrap_or(stop))
            }
            other => other,
        }
    }
}

/// Pods that the network of the orchestrator holds could come in although no policy names them.
fn only_the_orchestrator(network: Option<IpNet>, pods: &[(&str, IpAddr)]) -> Result<(), Stop> {
    let inside = |network: IpNet| pods.iter().find(|(_, address)| network.contains(address)).map(|pod| (network, pod));
    match network.and_then(inside) {
        None => Ok(()),
        Some((network, (pod, address))) => {
            let message =
                format!("isolation.kubernetes.orchestratorCidr {network} lets in pods: `{pod}` is at {address}");
            Err(Stop::new(Reason::SandboxUnfit, message).advise("name the machines alone that drive this drill"))
        }
    }
}

/// What an operator reads on a namespace that was left over.
pub(super) fn record(run: &RunId) -> String {
    let host = rustix::system::uname().nodename().to_string_lossy().into_owned();
    serde_json::json!({ "host": host, "process": std::process::id(), "run": run.as_str() }).to_string()
}

/// Goes on to its end even where nobody awaits it any more, so that whoever releases sees all that was made.
pub(super) async fn to_the_end<T: Send + 'static>(
    shared: &Arc<Shared>,
    making: impl Future<Output = Result<T, Stop>> + Send + 'static,
) -> Result<T, Stop> {
    let guard = Arc::clone(&shared.making).read_owned().await;
    let to_the_end = async move {
        let made = tokio::time::timeout(MAKE, making).await;
        drop(guard);
        made.or_stop(Reason::SandboxUnfit, "making the sandbox's objects")?
    };
    tokio::spawn(to_the_end).await.or_stop(Reason::Internal, "making the sandbox's objects")?
}

/// What pods come into. Applied twice, it is the same.
pub(super) async fn ground(cluster: &Cluster, objects: &Objects) -> Result<(Namespace, Vec<NetworkPolicy>), Stop> {
    let mut namespaces = futures_util::future::try_join_all(
        objects.namespaces.iter().map(|namespace| cluster.apply_namespace(namespace)),
    )
    .await?;
    tokio::try_join!(cluster.apply_quota(&objects.quota), cluster.apply_limit_range(&objects.limit_range))?;
    let mut policies = Vec::new();
    for policy in &objects.policies {
        policies.push(cluster.apply_policy(policy).await?);
    }
    Ok((namespaces.swap_remove(0), policies))
}

async fn make(cluster: &Cluster, objects: &Objects) -> Result<Made, Stop> {
    let (namespace, policies) = ground(cluster, objects).await?;
    if let Some(claim) = &objects.claim {
        cluster.apply_claim(claim).await?;
    }
    let pods = futures_util::future::try_join_all(objects.pods.iter().map(|pod| cluster.apply_pod(pod))).await?;
    Ok(Made { namespace, policies, pods })
}

/// With a certificate for the pod's address, where somebody may come to it.
fn inputs(spec: &SandboxSpec, address: Option<IpAddr>) -> Result<Vec<InputFile>, Stop> {
    let files = spec.inputs.files.iter().cloned();
    let (Some(address), Some(at_address)) = (address, &spec.inputs.at_address) else { return Ok(files.collect()) };
    let others = at_address.0(address)?;
    let kept = files.filter(|file| others.iter().all(|other| other.name != file.name));
    Ok(kept.chain(others.iter().cloned()).collect())
}

fn expected(made: &Made, doorway: &Arc<OwnPolicy>) -> Expected {
    let stranger = made.pods.iter().filter(|pod| pod.name_any() == STRANGER).filter_map(ResourceExt::uid);
    let egress =
        made.policies.iter().filter(|policy| policy.name_any() == STRANGER_EGRESS).filter_map(ResourceExt::uid);
    let policies = made.policies.iter().filter(|policy| policy.name_any() != STRANGER_EGRESS);
    let pods = made.pods.iter().filter(|pod| LASTING.contains(&pod.name_any().as_str()));
    Expected {
        namespace: Kept::of(&made.namespace),
        policies: policies.map(|policy| (policy.name_any(), Kept::of(policy))).collect::<BTreeMap<_, _>>(),
        pods: pods.map(|pod| (pod.name_any(), Kept::of(pod))).collect(),
        passing: stranger.chain(egress).collect(),
        doorway: Arc::clone(doorway),
    }
}

async fn fill(place: &Place, template: &Template, leaving: &TaskTracker) -> Result<(), Stop> {
    let mut command = Exec::new(template.argv.clone());
    command.deadline = TEMPLATE;
    let output = exec::exec(place, command, leaving).await?;
    if output.status == ExitStatus::Code(0) {
        return Ok(());
    }
    let said = clean(String::from_utf8_lossy(&output.stderr).trim());
    let message = format!("making the data directory in the sandbox: it ended with {:?}: {said}", output.status);
    Err(Stop::new(Reason::SandboxUnfit, message)
        .advise("see that isolation.kubernetes.image has the server's programs"))
}

/// The witness's listeners, and a socket of this machine that no pod can see.
fn targets_of_the_agent(witness: &Running) -> Result<(std::os::unix::net::UnixListener, ProbeTargets), Stop> {
    use std::os::linux::net::SocketAddrExt;
    let tried = "opening the runner's own socket for the isolation probe";
    let mut nonce = [0; 8];
    getrandom::fill(&mut nonce).map_err(|error| Stop::internal(format!("{tried}: {error}")))?;
    let name = format!("muster-probe-{}", hex::encode(nonce));
    let address = std::os::unix::net::SocketAddr::from_abstract_name(&name).or_stop(Reason::Internal, tried)?;
    let socket = std::os::unix::net::UnixListener::bind_addr(&address).or_stop(Reason::Internal, tried)?;
    let there = probe::witness_datagrams(witness).to_string();
    Ok((socket, ProbeTargets { tcp: there.clone(), abstract_socket: name, dns: there }))
}

#[async_trait]
impl Sandbox for KubernetesSandbox {
    fn handle(&self) -> serde_json::Value {
        self.handle.clone()
    }

    async fn deliver(&self) -> Result<(), Stop> {
        self.stranger_goes().await?;
        if self.volume.is_some() {
            return Ok(());
        }
        let staging = self.staging.clone();
        let tried = "delivering the backup to the sandbox";
        let files = tokio::task::spawn_blocking(move || deliver::staged(&staging)).await;
        let files = files.or_stop(Reason::Internal, tried)??;
        self.or_breach(deliver::send(&self.intake, "/backup", files, &self.leaving).await).await.map(drop)
    }

    async fn verify_again(&self, manifest: &Manifest) -> Result<(), Stop> {
        let Some(volume) = &self.volume else { return Ok(()) };
        self.or_breach(artifact::verify_again(&self.intake, volume, manifest, &self.leaving).await).await
    }

    async fn exec(&self, exec: Exec) -> Result<ExecOutput, Stop> {
        self.or_breach(exec::exec(&self.ground.database, exec, &self.leaving).await).await
    }

    async fn dial(&self) -> Result<Box<dyn ByteStream>, Stop> {
        let tried = "connecting to the sandbox's database";
        let pods = &self.ground.database.pods;
        let mut forwarder = cluster::request(tried, || pods.portforward(DATABASE, &[PORT])).await?;
        let stream =
            forwarder.take_stream(PORT).ok_or_else(|| Stop::internal(format!("{tried}: there is no stream")))?;
        let refused = forwarder.take_error(PORT).map(|refused| Box::pin(refused) as Refused);
        Ok(Box::new(Dialed { stream, refused, forwarder }.compat()))
    }

    /// Drill files that would need one and say nothing of it are refused before.
    async fn open_doorway(&self) -> Result<Box<dyn Doorway>, Stop> {
        let Some(way_in) = &self.way_in else {
            let message = "the drill does not say from where somebody comes who is to be let into its sandbox";
            return Err(Stop::new(Reason::Credentials, message).advise("name it in isolation.kubernetes.doorway"));
        };
        Ok(Box::new(self.or_breach(way_in.open().await).await?))
    }

    fn probe_targets(&self) -> ProbeTargets {
        self.probe_targets.clone()
    }

    async fn probe(&self) -> Result<Vec<Probe>, Stop> {
        self.or_breach(Box::pin(probe::probe(&self.ground, &self.leaving)).await).await
    }

    async fn run_agent(&self) -> Result<AgentProcess, Stop> {
        let database = self.ground.database_port.to_string();
        let mut attached = self.ground.agent.attach(&[drill::port::PROGRAM, inside::AGENT, &database]).await?;
        let streams = (attached.stdin(), attached.stdout(), attached.stderr());
        let (Some(stdin), Some(stdout), Some(mut stderr)) = streams else {
            return Err(Stop::internal("the agent has no streams"));
        };
        let tail = Arc::new(Mutex::new(Tail::new(AGENT_STDERR)));
        let said = Arc::clone(&tail);
        self.leaving.spawn(async move {
            let mut buffer = vec![0; 8 << 10];
            while let Ok(read @ 1..) = stderr.read(&mut buffer).await {
                said.lock().unwrap_or_else(PoisonError::into_inner).push(&buffer[..read]);
            }
        });
        self.agents.lock().unwrap_or_else(PoisonError::into_inner).push(attached);
        Ok(AgentProcess {
            handle: serde_json::json!({ "namespace": self.names.sandbox, "pod": AGENT }),
            stdin: Box::pin(stdin.compat_write()),
            stdout: Box::pin(stdout.compat()),
            stderr: Arc::new(move || tail.lock().map(|tail| tail.text()).unwrap_or_default()),
        })
    }

    async fn breach(&self) -> Stop {
        self.watch.breach().await
    }
}

type Refused = Pin<Box<dyn Future<Output = Option<String>> + Send>>;

/// A forwarded connection. It ends with its forwarder, so the two stay together.
struct Dialed {
    stream: DuplexStream,
    /// What the node says where nobody listens in the pod. Its stream would stay open, and silent.
    refused: Option<Refused>,
    forwarder: Portforwarder,
}

impl Drop for Dialed {
    fn drop(&mut self) {
        self.forwarder.abort();
    }
}

impl AsyncRead for Dialed {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<std::io::Result<()>> {
        if let Poll::Ready(read) = Pin::new(&mut self.stream).poll_read(cx, buf) {
            return Poll::Ready(read);
        }
        match self.refused.as_mut().map(|refused| refused.as_mut().poll(cx)) {
            Some(Poll::Ready(Some(why))) => {
                self.refused = None;
                Poll::Ready(Err(std::io::Error::other(clean(why.trim()))))
            }
            // It ended without a word: so does its stream.
            Some(Poll::Ready(None)) => {
                self.refused = None;
                Poll::Pending
            }
            Some(Poll::Pending) | None => Poll::Pending,
        }
    }
}

impl AsyncWrite for Dialed {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<std::io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}
