//! `credentials.vault` of a drill file.
use std::path::PathBuf;
use std::time::Duration;

use super::problem::{Problem, Problems};
use super::rule::{self, Complaint, TextRule};
use super::shape::{Choice, DAY, Form, Shape, duration, optional, required, usual};
use super::tree::Node;
use super::value;
use crate::secret::SecretSource;
use crate::spec::{Vault, VaultAuth};
use crate::unit;

pub(super) const DEFAULT_TTL: Duration = Duration::from_mins(15);
const DEFAULT_MOUNT: &str = "database";
const DEFAULT_PATH: &str = "muster";
const SERVICE_ACCOUNT_TOKEN: &str = "/var/run/secrets/kubernetes.io/serviceaccount/token";

/// None where form was wrong; `problems` says why.
pub(super) fn read(node: &Node, problems: &mut Problems) -> Option<Vault> {
    let ttl = value::duration(Some(node), "ttl").unwrap_or(DEFAULT_TTL);
    let max_ttl = value::duration(Some(node), "maxTtl").unwrap_or(DAY);
    if let (true, Some(given)) = (max_ttl < ttl, node.get("maxTtl")) {
        let message = format!("`maxTtl` is shorter than `ttl`, which is {}", unit::duration(ttl));
        problems.push(Problem::at(given.place, message).hint("raise `maxTtl`, or shorten `ttl`"));
    }
    Some(Vault {
        address: text(node, "address")?.trim_end_matches('/').to_owned(),
        ca: PathBuf::from(text(node, "ca")?),
        namespace: text(node, "namespace"),
        auth: auth(node.get("auth")?)?,
        mount: text(node, "mount").unwrap_or_else(|| DEFAULT_MOUNT.to_owned()),
        path: text(node, "path").unwrap_or_else(|| DEFAULT_PATH.to_owned()),
        ttl,
        max_ttl,
    })
}

fn auth(node: &Node) -> Option<VaultAuth> {
    let path = |node, name| text(node, name).map(PathBuf::from);
    let mount = |node, default: &str| text(node, "mount").unwrap_or_else(|| default.to_owned());
    if let Some(node) = node.get("appRole") {
        let source = node.get("secretId")?;
        let secret_id = path(source, "file").map(SecretSource::File).or(text(source, "env").map(SecretSource::Env))?;
        return Some(VaultAuth::AppRole { mount: mount(node, "approle"), role_id: text(node, "roleId")?, secret_id });
    }
    if let Some(node) = node.get("kubernetes") {
        let token = path(node, "tokenFile").unwrap_or_else(|| PathBuf::from(SERVICE_ACCOUNT_TOKEN));
        return Some(VaultAuth::Kubernetes { mount: mount(node, "kubernetes"), role: text(node, "role")?, token });
    }
    if let Some(node) = node.get("certificate") {
        let (certificate, key) = (path(node, "certificate")?, path(node, "key")?);
        return Some(VaultAuth::Certificate { mount: mount(node, "cert"), role: text(node, "role"), certificate, key });
    }
    Some(VaultAuth::Token { file: path(node.get("token")?, "file")? })
}

fn text(node: &Node, name: &str) -> Option<String> {
    value::text(Some(node), name).map(str::to_owned)
}

pub(super) static VAULT: Shape = Shape {
    choice: Choice::Any,
    keys: &[
        required("address", Form::Text(&ADDRESS), "Where the Vault answers. Only https: a token crosses the wire."),
        required(
            "ca",
            Form::Text(&rule::PATH),
            "A PEM file, relative to the drill file: the only roots that are trusted.",
        ),
        optional("namespace", Form::Text(&MOUNT), "A namespace of the Vault. Default: its root."),
        required("auth", Form::Object(&AUTH), "How muster logs in."),
        optional("mount", Form::Text(&MOUNT), "Where the database secrets engine is mounted. Default: database."),
        optional(
            "path",
            Form::Text(&rule::CHECK_NAME),
            "What the names begin with that muster writes beneath the mount. Default: muster.",
        ),
        optional(
            "ttl",
            duration(Duration::from_mins(1), DAY),
            "How long a lease lives unless it is renewed, from 1m to 24h. Default: 15m.",
        ),
        optional(
            "maxTtl",
            duration(Duration::from_mins(1), DAY),
            "How long a lease may live in all; then another takes its place. Default: 24h.",
        ),
    ],
};

static AUTH: Shape = Shape {
    choice: Choice::ExactlyOne,
    keys: &[
        usual("appRole", Form::Object(&APP_ROLE), "A role id and a secret id."),
        optional("kubernetes", Form::Object(&KUBERNETES), "The token of muster's own service account."),
        optional("token", Form::Object(&TOKEN), "A token that somebody else keeps, such as Vault's agent."),
        optional("certificate", Form::Object(&CERTIFICATE), "A TLS client certificate."),
    ],
};

static APP_ROLE: Shape = Shape {
    choice: Choice::Any,
    keys: &[
        optional("mount", Form::Text(&MOUNT), "Where the method is mounted. Default: approle."),
        required("roleId", Form::Text(&WORD), "The role's id. It is no secret."),
        required("secretId", Form::Object(&SECRET), "The secret id."),
    ],
};

static SECRET: Shape = Shape {
    choice: Choice::ExactlyOne,
    keys: &[
        usual("file", Form::Text(&rule::PATH), "A file that holds it."),
        optional("env", Form::Text(&rule::VARIABLE), "An environment variable that holds it."),
    ],
};

static KUBERNETES: Shape = Shape {
    choice: Choice::Any,
    keys: &[
        optional("mount", Form::Text(&MOUNT), "Where the method is mounted. Default: kubernetes."),
        required("role", Form::Text(&WORD), "The role in that method."),
        optional("tokenFile", Form::Text(&rule::PATH), "Default: where Kubernetes puts the service account's token."),
    ],
};

static TOKEN: Shape = Shape {
    choice: Choice::Any,
    keys: &[required("file", Form::Text(&rule::PATH), "A file that holds it; read again when it changes.")],
};

static CERTIFICATE: Shape = Shape {
    choice: Choice::Any,
    keys: &[
        optional("mount", Form::Text(&MOUNT), "Where the method is mounted. Default: cert."),
        optional("role", Form::Text(&WORD), "The role in that method. Default: whichever takes the certificate."),
        required("certificate", Form::Text(&rule::PATH), "A PEM file; the leaf first."),
        required("key", Form::Text(&rule::PATH), "A PEM file that only muster's user can read."),
    ],
};

static ADDRESS: TextRule = TextRule {
    check: |text| {
        let host = text.strip_prefix("https://").map(|rest| rest.trim_end_matches('/'));
        match host {
            Some(host) if !host.is_empty() && text.len() <= 2_048 && host.chars().all(in_host) => Ok(()),
            _ => Err(Complaint::new(format!("`{text}` is not the address of a Vault"))
                .hint("such as https://vault.example:8200, without a path")),
        }
    },
    pattern: Some("^https://[^/@\\s]+/?$"),
    example: "https://vault.example:8200",
};

fn in_host(c: char) -> bool {
    c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | ':' | '[' | ']')
}

pub(super) static MOUNT: TextRule = TextRule {
    check: |text| {
        let inner = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
        let step = |step: &str| !step.is_empty() && step != "." && step != ".." && step.chars().all(inner);
        if text.len() <= 200 && text.split('/').all(step) {
            Ok(())
        } else {
            Err(Complaint::new(format!("`{text}` is not a path in a Vault"))
                .hint("letters, digits, - _ . in steps between slashes, such as teams/database"))
        }
    },
    pattern: Some("^[A-Za-z0-9._-]+(/[A-Za-z0-9._-]+)*$"),
    example: "database",
};

static WORD: TextRule = TextRule {
    check: |text| {
        if !text.is_empty() && text.len() <= 200 && text.chars().all(|c| c.is_ascii_graphic()) {
            Ok(())
        } else {
            Err(Complaint::new("it has between 1 and 200 characters without spaces"))
        }
    },
    pattern: Some("^[!-~]{1,200}$"),
    example: "7c3d0a4e-57f0-4a9a-9d3b-6c9c2b8f1f10",
};
