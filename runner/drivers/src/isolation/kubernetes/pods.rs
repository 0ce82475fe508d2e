//! What becomes of a pod after it was asked for.
use std::net::IpAddr;
use std::time::Duration;

use drill::stop::Stop;
use drill::verdict::Reason;
use k8s_openapi::api::core::v1::{ContainerStatus, Pod};
use kube::runtime::wait::await_condition;
use kube::{Api, ResourceExt};

use crate::isolation::local::exec::clean;

/// Between two tries to watch a pod.
const AGAIN: Duration = Duration::from_millis(500);

/// What will not come right by waiting.
const HOPELESS: [&str; 9] = [
    "ErrImagePull",
    "ErrImageNeverPull",
    "ImagePullBackOff",
    "ImageInspectError",
    "InvalidImageName",
    "CreateContainerConfigError",
    "CreateContainerError",
    "RunContainerError",
    "CrashLoopBackOff",
];

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Running {
    pub(super) uid: String,
    pub(super) address: IpAddr,
    pub(super) node: IpAddr,
}

#[derive(Debug, PartialEq, Eq)]
pub(super) enum Progress {
    /// On what.
    Waiting(String),
    Running(Running),
    Over(Stop),
}

/// Waits until every container of the pod runs, or until it is seen that they will not.
pub(super) async fn running(pods: &Api<Pod>, name: &str, patience: Duration) -> Result<Running, Stop> {
    let settled = |pod: Option<&Pod>| pod.is_none_or(|pod| !matches!(progress(pod), Progress::Waiting(_)));
    let watched = async {
        loop {
            // Its first error ends it, and that may be one that passes.
            if let Ok(pod) = await_condition(pods.clone(), name, settled).await {
                return pod;
            }
            tokio::time::sleep(AGAIN).await;
        }
    };
    let waited = tokio::time::timeout(patience, watched).await;
    let unfit = |why: String| Stop::new(Reason::SandboxUnfit, format!("starting pod `{name}`: {why}"));
    let pod = match waited {
        Ok(pod) => pod,
        Err(_) => super::cluster::get(pods, name).await?,
    };
    match pod.as_ref().map(progress) {
        None => Err(unfit("somebody deleted it".to_owned())),
        Some(Progress::Running(running)) => Ok(running),
        Some(Progress::Over(stop)) => Err(stop),
        Some(Progress::Waiting(why)) => {
            let stop = unfit(format!("it does not run after {} s: {why}", patience.as_secs()));
            Err(if why.contains("Insufficient") {
                stop.advise("make room, or lower isolation.kubernetes.limits")
            } else {
                stop
            })
        }
    }
}

pub(super) fn progress(pod: &Pod) -> Progress {
    let name = pod.name_any();
    let Some(status) = &pod.status else { return Progress::Waiting("it was not scheduled yet".to_owned()) };
    let containers = status.container_statuses.iter().flatten();
    let all: Vec<&ContainerStatus> =
        status.init_container_statuses.iter().flatten().chain(containers.clone()).collect();
    if let Some(stop) = over(pod) {
        return Progress::Over(stop);
    }
    for container in &all {
        let Some(waiting) = container.state.as_ref().and_then(|state| state.waiting.as_ref()) else { continue };
        let reason = waiting.reason.as_deref().unwrap_or_default();
        if HOPELESS.contains(&reason) {
            let said = clean(waiting.message.as_deref().unwrap_or_default());
            let message = format!("pod `{name}`, container `{}`: {reason}: {said}", container.name);
            let stop = Stop::new(Reason::SandboxUnfit, message);
            let image = reason.contains("Image");
            let advice = "see that the node can pull the image: isolation.kubernetes names it";
            return Progress::Over(if image { stop.advise(advice) } else { stop });
        }
    }
    let wanted = pod.spec.as_ref().map_or(0, |spec| spec.containers.len());
    let runs = |one: &ContainerStatus| one.state.as_ref().is_some_and(|state| state.running.is_some());
    let address = |text: &Option<String>| text.as_deref().and_then(|text| text.parse().ok());
    if wanted > 0
        && containers.clone().filter(|one| runs(one)).count() == wanted
        && let (Some(address), Some(node)) = (address(&status.pod_ip), address(&status.host_ip))
    {
        return Progress::Running(Running { uid: pod.uid().unwrap_or_default(), address, node });
    }
    let unmet = status.conditions.iter().flatten().find(|one| one.type_ == "PodScheduled" && one.status == "False");
    let why = unmet.and_then(|one| one.message.as_deref()).map(clean);
    Progress::Waiting(why.unwrap_or_else(|| format!("its phase is {}", status.phase.as_deref().unwrap_or("unknown"))))
}

/// Somebody makes room on its node, or empties it.
pub(super) fn evicted(pod: &Pod) -> Option<Stop> {
    let name = pod.name_any();
    let conditions = pod.status.iter().flat_map(|status| status.conditions.iter().flatten());
    let disrupted = conditions.into_iter().find(|one| one.type_ == "DisruptionTarget" && one.status == "True")?;
    let why = disrupted.reason.as_deref().unwrap_or_default();
    let said = clean(disrupted.message.as_deref().unwrap_or_default());
    Some(
        Stop::internal(format!("pod `{name}` was evicted while the run went on: {why}: {said}"))
            .advise("run the drill again once the node is not drained any more, or keep drills on nodes of their own"),
    )
}

/// Why a pod will not run again.
pub(super) fn over(pod: &Pod) -> Option<Stop> {
    let name = pod.name_any();
    let status = pod.status.as_ref()?;
    let stop = |reason, message: String| Some(Stop::new(reason, message));
    let all = status.init_container_statuses.iter().flatten().chain(status.container_statuses.iter().flatten());
    for container in all {
        let Some(ended) = container.state.as_ref().and_then(|state| state.terminated.as_ref()) else { continue };
        if ended.reason.as_deref() == Some("OOMKilled") {
            let message = format!("container `{}` of pod `{name}` reached its memory limit", container.name);
            return stop(Reason::LimitReached, message)
                .map(|stop| stop.advise("raise isolation.kubernetes.limits.memory"));
        }
    }
    if status.reason.as_deref() == Some("Evicted") {
        let message = format!("pod `{name}` was evicted: {}", clean(status.message.as_deref().unwrap_or_default()));
        return stop(Reason::LimitReached, message)
            .map(|stop| stop.advise("raise isolation.kubernetes.limits.disk, or make room on the node"));
    }
    let is_over = matches!(status.phase.as_deref(), Some("Failed" | "Succeeded"));
    let init_failed = status.init_container_statuses.iter().flatten().any(|one| {
        one.state.as_ref().and_then(|state| state.terminated.as_ref()).is_some_and(|ended| ended.exit_code != 0)
    });
    let one_ended = status.container_statuses.iter().flatten().find_map(|one| {
        let ended = one.state.as_ref()?.terminated.as_ref()?;
        Some(format!("container `{}` ended with {}", one.name, ended.exit_code))
    });
    if is_over || init_failed || one_ended.is_some() {
        let why = one_ended.or_else(|| status.message.as_deref().map(clean));
        let why = why.unwrap_or_else(|| "its first container failed".to_owned());
        return stop(Reason::Internal, format!("pod `{name}` ended: {why}"));
    }
    None
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn pod(status: &serde_json::Value) -> Pod {
        let containers = json!([{ "name": "database" }, { "name": "intake" }]);
        let object =
            json!({ "metadata": { "name": "database" }, "spec": { "containers": containers }, "status": status });
        serde_json::from_value(object).expect("a pod")
    }

    fn container(name: &str, state: &serde_json::Value) -> serde_json::Value {
        json!({ "name": name, "image": "", "imageID": "", "ready": false, "restartCount": 0, "state": state })
    }

    #[test]
    fn a_pod_runs_when_all_its_containers_do() {
        let running = |name| container(name, &json!({ "running": {} }));
        let one = json!({ "podIP": "10.0.0.7", "hostIP": "10.0.1.1", "containerStatuses": [running("database")] });
        assert!(matches!(progress(&pod(&one)), Progress::Waiting(_)));
        let two = json!({ "podIP": "10.0.0.7", "hostIP": "10.0.1.1",
            "containerStatuses": [running("database"), running("intake")] });
        assert!(matches!(progress(&pod(&two)), Progress::Running(_)));
    }

    #[test]
    fn what_will_not_come_right_says_what_to_do() {
        let waiting = json!({ "waiting": { "reason": "ErrImageNeverPull", "message": "not present" } });
        let Progress::Over(stop) = progress(&pod(&json!({ "containerStatuses": [container("database", &waiting)] })))
        else {
            panic!("it is hopeless")
        };
        assert!(stop.message.contains("ErrImageNeverPull") && stop.advice.is_some(), "{stop:?}");
        let killed = json!({ "terminated": { "reason": "OOMKilled", "exitCode": 137 } });
        let stop = over(&pod(&json!({ "containerStatuses": [container("database", &killed)] }))).expect("over");
        assert_eq!(stop.reason, Reason::LimitReached);
        let drained = json!({ "conditions": [{ "type": "DisruptionTarget", "status": "True",
            "reason": "EvictionByEvictionAPI", "message": "Eviction API: evicting" }] });
        let stop = super::evicted(&pod(&drained)).expect("it goes");
        assert!(stop.message.contains("EvictionByEvictionAPI") && stop.advice.is_some(), "{stop:?}");
        let evicted = over(&pod(&json!({ "phase": "Failed", "reason": "Evicted", "message": "disk" }))).expect("over");
        assert_eq!(evicted.reason, Reason::LimitReached);
    }
}
