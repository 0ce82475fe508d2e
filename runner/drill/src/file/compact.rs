//! Compact manifests: one flat map of what differs between drills. With what the daemon's configuration says under `compact`, each
//! stands for one drill file, which [`full`] writes out.
use std::borrow::Cow;
use std::path::Path;

use serde_json::{Value, json};

use super::problem::{Place, Problem, Problems};
use super::rule::{self, Complaint, TextRule};
use super::shape::{Choice, Form, Shape, optional, required, trusted_keys};
use super::tree::{self, Node};
use super::value::{self, text};
use super::{MAX_SIZE, Options, form, kubernetes, vault};
use crate::config::Compact;

/// Whether it has a compact manifest's keys and none of a drill file's.
pub fn is_compact(text: &str) -> bool {
    // A daemon looks at thousands of files again and again: those without one of the words are not read for this.
    let mentions = |key: &super::shape::Key| text.contains(key.name);
    text.len() <= MAX_SIZE && COMPACT.keys.iter().any(mentions) && read(text).is_ok_and(|root| compact(&root))
}

fn read(text: &str) -> Result<Node, Problem> {
    tree::read(text.strip_prefix('\u{feff}').unwrap_or(text))
}

fn compact(root: &Node) -> bool {
    let known = |name: &str| COMPACT.keys.iter().any(|key| key.name == name);
    let full = |name: &str| ["apiVersion", "kind", "metadata", "spec"].contains(&name);
    let names = || root.entries().iter().map(|(key, _)| key.name.as_str());
    names().any(known) && !names().any(full)
}

/// The drill file that a text is, or that it stands for. What comes back of a compact manifest is a drill file without a problem;
/// all problems of the manifest, and what the configuration lacks for it, are told at their places in `text`.
pub fn full<'t>(text: &'t str, defaults: Option<&Compact>) -> Result<Cow<'t, str>, Problems> {
    if !is_compact(text) {
        return Ok(Cow::Borrowed(text));
    }
    let root = read(text)?;
    let mut problems = Problems::default();
    form::check(&root, &COMPACT, &mut problems);
    let file = if let Some(defaults) = defaults {
        expand(&root, defaults, &mut problems)
    } else {
        let problem = Problem::at(root.place, "no configuration says what this compact manifest leaves out");
        problems.push(problem.hint("name the daemon's configuration with --config; its `compact` has the rest"));
        None
    };
    match file {
        Some(file) if problems.is_empty() => checked(file, root.place).map(Cow::Owned),
        _ => {
            problems.sort();
            Err(problems)
        }
    }
}

/// None where form was wrong, or the configuration lacks something; `problems` says what.
fn expand(root: &Node, defaults: &Compact, problems: &mut Problems) -> Option<String> {
    for (name, what) in defaults.lacking() {
        let problem = Problem::at(root.place, format!("the configuration lacks `compact.{name}`: {what}"));
        problems.push(problem.hint(format!("add compact: {{ {name}: … }} to it; `muster config schema` has its form")));
    }
    let text = |name| text(Some(root), name);
    let major = text("db_engine").and_then(|engine| engine_major(engine).ok()).flatten();
    let image = major.and_then(|major| {
        let image = defaults.images.get(&major);
        if let (None, false, Some(node)) = (image, defaults.images.is_empty(), root.get("db_engine")) {
            let known: Vec<String> = defaults.images.keys().map(ToString::to_string).collect();
            let problem = Problem::at(node.place, format!("the configuration has no image of PostgreSQL {major}"));
            problems.push(problem.hint(format!("it has those of {}; add one to compact.images", known.join(", "))));
        }
        image
    });

    let mut cluster = defaults.kubernetes.clone()?;
    let mut leases = defaults.vault.clone()?;
    let put = |object: &mut Value, key: &str, value: Option<Value>| {
        if let Some(value) = value {
            object[key] = value;
        }
    };
    put(&mut cluster, "image", image.map(|image| json!(image)));
    let port = root.get("target_port").and_then(Node::whole);
    let port = port.or_else(|| cluster.get("port").is_none().then_some(kubernetes::DEFAULT_PORT.into()));
    put(&mut cluster, "port", port.map(|port| json!(port)));
    put(&mut cluster, "orchestratorCidr", text("orchestrator_cidr").map(|network| json!(network)));
    if let Some(Value::Object(volume)) = cluster.pointer_mut("/artifact/volume") {
        let backups = volume.get("path").and_then(Value::as_str).map(|path| format!("{path}/")).unwrap_or_default();
        volume.insert("path".to_owned(), json!(format!("{backups}{}", text("backup_snapshot")?)));
    }
    put(&mut leases, "mount", text("vault_path").map(|path| json!(path)));
    let ttl = root.get("ttl_seconds").and_then(Node::whole);
    let ttl = ttl.or_else(|| leases.get("ttl").is_none().then_some(vault::DEFAULT_TTL.as_secs()));
    put(&mut leases, "ttl", ttl.map(|seconds| json!(format!("{seconds}s"))));
    let engine = major.map_or_else(|| json!({}), |major| json!({ "major": major }));
    let manifest = defaults.backups.as_deref()?.join(text("backup_snapshot")?).join(crate::manifest::FILE_NAME);
    let drill = json!({
        "apiVersion": "muster.dev/v1",
        "kind": "Drill",
        "metadata": { "name": text("drill_id")? },
        "spec": {
            "source": { "manifest": manifest.to_str()?, "trustedKeys": defaults.trusted_keys.clone()? },
            "engine": { "postgresql": engine },
            "isolation": { "kubernetes": cluster },
            "credentials": { "vault": leases },
        },
    });
    serde_saphyr::to_string(&drill).ok()
}

/// What no value alone shows, such as a lease's life beyond what the configuration allows.
fn checked(file: String, place: Place) -> Result<String, Problems> {
    let Err(found) = super::parse(&file, Options::default()) else { return Ok(file) };
    let mut problems = Problems::default();
    for problem in found.iter() {
        let message = format!("the drill that this stands for is wrong: {}", problem.message);
        problems.push(Problem { message, place: Some(place), hint: problem.hint.clone() });
    }
    Err(problems)
}

/// Reads `compact` of the configuration, whose relative paths start from `base`.
pub(super) fn defaults(node: &Node, base: &Path, problems: &mut Problems) -> Compact {
    let keys = node.get("trustedKeys").map(Node::items);
    let images = node.get("images").map(Node::entries).unwrap_or_default().iter();
    let compact = Compact {
        backups: text(Some(node), "backups").map(|path| value::path(base, path)),
        trusted_keys: keys.map(|keys| keys.iter().map(|key| beneath(key, base, &["/file"])).collect()),
        images: images.filter_map(|(key, image)| Some((major(&key.name)?, image.text()?.to_owned()))).collect(),
        kubernetes: node.get("kubernetes").map(Node::to_json),
        vault: node.get("vault").map(|vault| beneath(vault, base, &VAULT_FILES)),
    };
    // What is wrong by itself has been said; what is lacking is said to whoever needs it.
    if compact.lacking().is_empty() && problems.is_empty() {
        let least = "{ drill_id: drill, backup_snapshot: it, db_engine: postgresql }";
        for problem in full(least, Some(&compact)).err().iter().flat_map(Problems::iter) {
            problems.push(Problem { place: Some(node.place), ..problem.clone() });
        }
    }
    compact
}

/// A part of the configuration, with the files that it names found from its directory.
fn beneath(part: &Node, base: &Path, files: &[&str]) -> Value {
    let mut value = part.to_json();
    for pointer in files {
        if let Some(Value::String(file)) = value.pointer_mut(pointer) {
            *file = value::path(base, file).to_string_lossy().into_owned();
        }
    }
    value
}

/// Every file that `compact.vault` may name.
const VAULT_FILES: [&str; 6] = [
    "/ca",
    "/auth/appRole/secretId/file",
    "/auth/kubernetes/tokenFile",
    "/auth/token/file",
    "/auth/certificate/certificate",
    "/auth/certificate/key",
];

/// The major that a `db_engine` names. PostgreSQL is the one engine there is.
fn engine_major(text: &str) -> Result<Option<u32>, Complaint> {
    let complaint = || {
        Complaint::new(format!("`{text}` is not an engine that muster restores"))
            .hint("postgresql, or postgresql:15 for that major; postgres is the same")
    };
    let (engine, major) = text.split_once(':').map_or((text, None), |(engine, major)| (engine, Some(major)));
    if !["postgresql", "postgres"].contains(&engine) {
        return Err(complaint());
    }
    major.map_or(Ok(None), |text| self::major(text).map(Some).ok_or_else(complaint))
}

fn major(text: &str) -> Option<u32> {
    text.parse().ok().filter(|major| (9..=99).contains(major))
}

static ENGINE: TextRule = TextRule {
    check: |text| engine_major(text).map(drop),
    pattern: Some("^postgres(ql)?(:[0-9]{1,2})?$"),
    example: "postgresql:15",
};

static SNAPSHOT: TextRule = TextRule {
    check: |text| {
        (rule::PATH.check)(text)?;
        if text.split('/').all(|step| !step.is_empty() && step != "." && step != "..") {
            Ok(())
        } else {
            Err(Complaint::new(format!("`{text}` is not a directory beneath compact.backups"))
                .hint("such as orders/latest: no slash at its ends, and no `..`"))
        }
    },
    pattern: Some("^[^/]+(/[^/]+)*$"),
    example: "orders/latest",
};

pub(super) static COMPACT: Shape = Shape {
    choice: Choice::Any,
    keys: &[
        required("drill_id", Form::Text(&rule::DRILL_NAME), "The drill's name, unique on its machine."),
        required(
            "backup_snapshot",
            Form::Text(&SNAPSHOT),
            "The backup's directory beneath `compact.backups` of the configuration.",
        ),
        required(
            "db_engine",
            Form::Text(&ENGINE),
            "`postgresql` restores into the backup's own major, `postgresql:15` into that one. `postgres` is the same.",
        ),
        optional(
            "target_port",
            kubernetes::PORT,
            "The port of the database in the sandbox's own network. Default: the configuration's, else 5432.",
        ),
        optional(
            "orchestrator_cidr",
            Form::Text(&kubernetes::NETWORK),
            "A network that reaches that port beside the agent. Default: the configuration's, else none.",
        ),
        optional(
            "vault_path",
            Form::Text(&vault::MOUNT),
            "Where the database secrets engine is mounted. Default: the configuration's, else database.",
        ),
        optional(
            "ttl_seconds",
            Form::Whole { min: 60, max: 86_400 },
            "How long a lease lives unless it is renewed. Default: the configuration's, else 900.",
        ),
    ],
};

/// `compact` of the daemon's configuration.
pub(super) static DEFAULTS: Shape = Shape {
    choice: Choice::Any,
    keys: &[
        optional("backups", Form::Text(&rule::PATH), "The directory that `backup_snapshot` is a path beneath."),
        optional(
            "trustedKeys",
            trusted_keys("name the public key of whoever signs, such as { file: keys/backup.pub }"),
            "Public keys; each backup must be signed by one of them.",
        ),
        optional(
            "images",
            Form::Map { key: &MAJOR, value: &Form::Text(&rule::IMAGE) },
            "By major: the image of a manifest whose `db_engine` names one. Default: that of `kubernetes`.",
        ),
        optional("kubernetes", Form::Object(&kubernetes::KUBERNETES), "As `isolation.kubernetes` of a drill file."),
        optional("vault", Form::Object(&vault::VAULT), "As `credentials.vault` of a drill file."),
    ],
};

static MAJOR: TextRule = TextRule {
    check: |text| match major(text) {
        Some(_) => Ok(()),
        None => Err(Complaint::new(format!("`{text}` is not a major version of PostgreSQL")).hint("such as \"15\": …")),
    },
    pattern: Some("^[1-9][0-9]?$"),
    example: "\"15\"",
};
