//! `isolation.kubernetes` of a drill file, and networks of production wherever they are listed.
use std::time::Duration;

use super::doorway;
use super::problem::{Problem, Problems};
use super::rule::{self, Complaint, TextRule};
use super::shape::{Choice, Form, LARGEST, MIB, Shape, duration, optional, required, usual};
use super::tree::Node;
use super::value::{self, Get, number, size};
use crate::network::{self, MOST_TARGETS, Target};
use crate::spec::{Claim, Kubernetes, Volume};

const DEFAULT_MEMORY: u64 = 1 << 30;
const DEFAULT_DISK: u64 = 8 << 30;
pub(super) const DEFAULT_PORT: u16 = 5432;
const DEFAULT_PROBE_INTERVAL: Duration = Duration::from_mins(1);

/// None where form has said what is missing.
pub(super) fn read(node: &Node, problems: &mut Problems) -> Option<Kubernetes> {
    let text = |name| value::text(Some(node), name).map(str::to_owned);
    let limits = node.get("limits");
    let claim = node.get("storage").get("claim");
    let volume = node.get("artifact").get("volume");
    let orchestrator = node.get("orchestratorCidr");
    let asked = Kubernetes {
        context: text("context"),
        image: text("image")?,
        muster_image: text("musterImage")?,
        memory: size(limits, "memory").unwrap_or(DEFAULT_MEMORY),
        disk: size(limits, "disk").unwrap_or(DEFAULT_DISK),
        cpu_millis: number(limits, "cpuMillis"),
        production: targets(node.get("production"), problems),
        orchestrator: orchestrator.and_then(Node::text).and_then(|text| network::network(text).ok()),
        probe_interval: value::duration(Some(node), "probeInterval").unwrap_or(DEFAULT_PROBE_INTERVAL),
        claim: size(claim, "size")
            .map(|size| Claim { storage_class: value::text(claim, "storageClass").map(str::to_owned), size }),
        port: number(Some(node), "port").unwrap_or(DEFAULT_PORT),
        doorway: node.get("doorway").and_then(|node| doorway::read(node, problems)),
        remove_finalizers_after: value::duration(Some(node), "removeFinalizersAfter"),
        artifact: value::text(volume, "name")
            .map(|name| Volume { name: name.to_owned(), path: value::text(volume, "path").map(str::to_owned) }),
    };
    if let (Some(given), Some(production)) = (orchestrator, asked.orchestrated_production()) {
        let message = format!("`orchestratorCidr` lets in what is listed as production's: {production}");
        problems.push(Problem::at(given.place, message).hint("name the machines alone that drive this drill"));
    }
    Some(asked)
}

/// A list of production's addresses and networks.
pub(super) fn targets(node: Option<&Node>, problems: &mut Problems) -> Vec<Target> {
    let items = node.map(Node::items).unwrap_or_default();
    if let Some(beyond) = items.get(MOST_TARGETS) {
        let message = format!("{} targets are listed, and {MOST_TARGETS} can be tried", items.len());
        let problem = Problem::at(beyond.place, message);
        problems.push(problem.hint("write networks in place of single addresses, or list those that matter most"));
    }
    items.iter().filter_map(Node::text).filter_map(|text| text.parse().ok()).collect()
}

/// Nobody inside may listen below.
pub(super) const PORT: Form = Form::Whole { min: 1_024, max: 65_535 };

pub(super) static KUBERNETES: Shape = Shape {
    choice: Choice::Any,
    keys: &[
        required(
            "image",
            Form::Text(&rule::IMAGE),
            "An image by digest that has the server's programs in /usr, such as one of your own production's.",
        ),
        required("musterImage", Form::Text(&rule::IMAGE), "muster's own image, by digest."),
        optional(
            "context",
            Form::Text(&rule::CONTEXT),
            "A context of the kubeconfig. Default: its current one, or the cluster that muster runs in.",
        ),
        optional("limits", Form::Object(&POD_LIMITS), "What the database's pod may use."),
        optional(
            "production",
            Form::List { item: &Form::Text(&TARGET), if_empty: None },
            "Addresses or networks of your production, each with a port, that the sandbox must not reach, beside those of the daemon's \
             configuration. Of a network the first host and the last are tried, from inside and from a pod that no policy holds.",
        ),
        optional(
            "orchestratorCidr",
            Form::Text(&NETWORK),
            "A network that may come to the database's port beside the agent. Default: nobody.",
        ),
        optional(
            "probeInterval",
            duration(Duration::from_secs(10), Duration::from_hours(1)),
            "How often isolation is proven again while the run restores and validates, from 10s to 1h. Default: 1m.",
        ),
        optional(
            "storage",
            Form::Object(&STORAGE),
            "Where the restored databases lie. Default: on the node's own disk.",
        ),
        optional("port", PORT, "The port of the database in the sandbox's own network. Default: 5432."),
        optional(
            "doorway",
            Form::Object(&doorway::DOORWAY),
            "From where the drill's Vault comes: let in while it makes, renews or revokes a lease, and not else.",
        ),
        optional(
            "removeFinalizersAfter",
            duration(Duration::from_mins(1), Duration::from_hours(1)),
            "How long after its deletion what a run made may be held by somebody's finalizers, from 1m to 1h; then muster removes them, and says \
             so. Default: never.",
        ),
        optional(
            "artifact",
            Form::Object(&ARTIFACT),
            "Where the dumps lie in the cluster already. Default: nowhere, and they are sent from where the manifest is.",
        ),
    ],
};

static POD_LIMITS: Shape = Shape {
    choice: Choice::Any,
    keys: &[
        optional("memory", Form::Size { min: 256 * MIB, max: LARGEST / 4 }, "Memory of the server. Default: 1GiB."),
        optional(
            "disk",
            Form::Size { min: 256 * MIB, max: LARGEST / 4 },
            "Disk of the node for the restored databases, and again for the backup; with a claim, for the backup alone. Default: 8GiB.",
        ),
        optional(
            "cpuMillis",
            Form::Whole { min: 100, max: 1_000_000 },
            "Processor time, in thousandths of a core. Default: no limit.",
        ),
    ],
};

static STORAGE: Shape = Shape {
    choice: Choice::AtMostOne,
    keys: &[optional(
        "claim",
        Form::Object(&CLAIM),
        "A PersistentVolumeClaim that is made for each run, and seen gone at its end.",
    )],
};

static CLAIM: Shape = Shape {
    choice: Choice::Any,
    keys: &[
        optional(
            "storageClass",
            Form::Text(&STORAGE_CLASS),
            "Whose volume is claimed. Default: the cluster's default class.",
        ),
        required("size", Form::Size { min: 256 * MIB, max: LARGEST / 4 }, "How much is claimed."),
    ],
};

static ARTIFACT: Shape = Shape {
    choice: Choice::ExactlyOne,
    keys: &[usual("volume", Form::Object(&VOLUME), "A volume that has the backup's directory.")],
};

static VOLUME: Shape = Shape {
    choice: Choice::Any,
    keys: &[
        required(
            "name",
            Form::Text(&VOLUME_NAME),
            "A PersistentVolume that nobody claims, with ReadOnlyMany and the reclaim policy Retain. A run claims it and frees it again.",
        ),
        optional("path", Form::Text(&PATH_ON_VOLUME), "The backup's directory on it. Default: all of the volume."),
    ],
};

pub(super) static TARGET: TextRule = TextRule {
    check: |text| {
        let hint = "such as 10.20.0.5:5432, 10.20.0.0/16:5432 or [2001:db8::]/64:5432; names are not looked up";
        text.parse::<Target>().map(drop).map_err(|why| Complaint::new(why).hint(hint))
    },
    pattern: None,
    example: "10.20.0.0/16:5432",
};

pub(super) static NETWORK: TextRule = TextRule {
    check: |text| {
        let hint = "such as 10.30.0.0/24, or 10.30.0.7/32 for one machine";
        network::network(text).map(drop).map_err(|why| Complaint::new(why).hint(hint))
    },
    pattern: None,
    example: "10.30.0.0/24",
};

static STORAGE_CLASS: TextRule = TextRule {
    check: |text| {
        if is_object_name(text) {
            Ok(())
        } else {
            Err(Complaint::new(format!("`{text}` is not the name of a storage class"))
                .hint("`kubectl get storageclass` lists them"))
        }
    },
    pattern: Some(OBJECT_NAME),
    example: "standard",
};

static VOLUME_NAME: TextRule = TextRule {
    check: |text| {
        if is_object_name(text) {
            Ok(())
        } else {
            Err(Complaint::new(format!("`{text}` is not the name of a volume")).hint("`kubectl get pv` lists them"))
        }
    },
    pattern: Some(OBJECT_NAME),
    example: "backups-orders",
};

/// What [`is_object_name`] takes, but for its length.
const OBJECT_NAME: &str = "^[a-z0-9]([a-z0-9.-]*[a-z0-9])?$";

fn is_object_name(text: &str) -> bool {
    let inner = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || matches!(c, '-' | '.');
    let ends = text.starts_with(['-', '.']) || text.ends_with(['-', '.']);
    !text.is_empty() && text.len() <= 253 && text.chars().all(inner) && !ends
}

static PATH_ON_VOLUME: TextRule = TextRule {
    check: |text| {
        let plain = |step: &str| !matches!(step, "" | "." | "..") && !step.chars().any(char::is_control);
        if text.len() <= 1024 && text.split('/').all(plain) {
            Ok(())
        } else {
            Err(Complaint::new(format!("`{}` is no directory on a volume", text.escape_debug()))
                .hint("such as orders/latest: relative to the volume, without `.` and `..`"))
        }
    },
    pattern: Some("^[^/]+(/[^/]+)*$"),
    example: "orders/latest",
};
