//! What every isolation must keep, whatever it is made of. Run against the fake and against the real ones.
use drill::id::{DrillName, RunId};
use drill::ledger::Resource;
use drill::port::{Exec, ExitStatus, Isolation, Leftover, SandboxInputs, SandboxSpec};
use drill::proof::IsolationProof;
use drill::spec::{Enforcement, Limits};

const LIMITS: Limits =
    Limits { memory: Some(1 << 30), disk: Some(1 << 30), processes: 100, enforcement: Enforcement::BestEffort };
/// What an isolation can be asked to release.
const HELD: [Resource; 3] = [Resource::Agent, Resource::Sandbox, Resource::Storage];

pub async fn all(isolation: &dyn Isolation) {
    releasing_the_unknown_is_fine(isolation).await;
    releasing_twice_is_fine(isolation).await;
    release_needs_no_handle(isolation).await;
    leftovers_name_what_a_run_holds(isolation).await;
    a_sandbox_without_storage_is_refused(isolation).await;
    isolation_is_proven_and_commands_run(isolation).await;
    the_template_differs_by_nothing_but_the_limits(isolation);
}

pub async fn releasing_the_unknown_is_fine(isolation: &dyn Isolation) {
    let run = run_id("unknown");
    for resource in HELD {
        let proof = isolation.release(&run, resource, None).await.expect("finding nothing is success");
        assert!(!proof.observed.is_empty(), "it says that it found nothing");
    }
}

pub async fn releasing_twice_is_fine(isolation: &dyn Isolation) {
    let run = run_id("twice");
    let storage = isolation.prepare(&run).await.expect("prepared");
    let sandbox = isolation.provision(spec(&run)).await.expect("provisioned");
    let handle = sandbox.handle();
    for _ in 0..2 {
        isolation.release(&run, Resource::Sandbox, Some(&handle)).await.expect("the sandbox is released");
        isolation.release(&run, Resource::Storage, Some(&storage.handle)).await.expect("the storage is released");
    }
    assert_eq!(of(&run, isolation).await, []);
}

/// A crash between the effect and the ledger's note of it leaves a name and no handle.
pub async fn release_needs_no_handle(isolation: &dyn Isolation) {
    let run = run_id("nameless");
    isolation.prepare(&run).await.expect("prepared");
    let sandbox = isolation.provision(spec(&run)).await.expect("provisioned");
    let agent = sandbox.run_agent().await.expect("an agent");
    for resource in HELD {
        isolation.release(&run, resource, None).await.expect("released by name");
    }
    drop(agent);
    assert_eq!(of(&run, isolation).await, []);
}

pub async fn leftovers_name_what_a_run_holds(isolation: &dyn Isolation) {
    let run = run_id("left");
    isolation.prepare(&run).await.expect("prepared");
    assert_eq!(of(&run, isolation).await, [Resource::Storage]);
    let sandbox = isolation.provision(spec(&run)).await.expect("provisioned");
    assert_eq!(of(&run, isolation).await, [Resource::Storage, Resource::Sandbox]);
    isolation.release(&run, Resource::Sandbox, Some(&sandbox.handle())).await.expect("released");
    assert_eq!(of(&run, isolation).await, [Resource::Storage]);
    isolation.release(&run, Resource::Storage, None).await.expect("released");
    assert_eq!(of(&run, isolation).await, []);
}

pub async fn a_sandbox_without_storage_is_refused(isolation: &dyn Isolation) {
    let run = run_id("unprepared");
    assert!(isolation.provision(spec(&run)).await.is_err());
    assert_eq!(of(&run, isolation).await, []);
}

pub async fn isolation_is_proven_and_commands_run(isolation: &dyn Isolation) {
    let run = run_id("proven");
    isolation.prepare(&run).await.expect("prepared");
    let sandbox = isolation.provision(spec(&run)).await.expect("provisioned");
    let proof = IsolationProof { probes: sandbox.probe().await.expect("probed") };
    proof.judge().expect("isolation is proven");
    let output = sandbox.exec(Exec::new(["/bin/true"])).await.expect("it ran");
    assert_eq!(output.status, ExitStatus::Code(0));
    isolation.release(&run, Resource::Sandbox, None).await.expect("released");
    isolation.release(&run, Resource::Storage, None).await.expect("released");
}

pub fn the_template_differs_by_nothing_but_the_limits(isolation: &dyn Isolation) {
    let template = || isolation.template(&LIMITS).expect("a template");
    assert_eq!(template(), template());
}

/// A run of its own for each test of the contract.
pub fn run_id(what: &str) -> RunId {
    let drill: DrillName = format!("contract-{what}").parse().expect("a name");
    let mut entropy = [0; 4];
    getrandom::fill(&mut entropy).expect("entropy");
    RunId::new(&drill, jiff::Timestamp::now(), entropy)
}

fn spec(run: &RunId) -> SandboxSpec {
    SandboxSpec { run: run.clone(), limits: LIMITS, inputs: SandboxInputs { port: 5432, ..SandboxInputs::default() } }
}

async fn of(run: &RunId, isolation: &dyn Isolation) -> Vec<Resource> {
    let leftovers: Vec<Leftover> = isolation.leftovers().await.expect("looked");
    leftovers.into_iter().filter(|leftover| leftover.run == *run).map(|leftover| leftover.resource).collect()
}
