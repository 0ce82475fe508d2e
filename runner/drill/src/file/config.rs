//! The daemon's configuration: the same machinery as drill files, with a table and combinations of its own.
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::problem::{Problem, Problems};
use super::rule::{Complaint, TextRule};
use super::shape::{Choice, DAY, DECADE, Form, IfEmpty, SECOND, Shape, duration, optional, required};
use super::tree::Node;
use super::value::{self, number, text};
use super::{MAX_SIZE, compact, form, kubernetes, rule, tree, vault};
use crate::config::{
    Alertmanager, Alerts, ClusterLease, Concurrency, Config, Evidence, Http, LogFormat, LogLevel, LogSink, Logs,
    Production, Retention, Role, Shutdown, Tls, Token, Webhook,
};
use crate::guard::LONGEST_TERM;
use crate::secret::SecretSource;

/// Loopback, on a port that no well-known exporter uses.
const DEFAULT_LISTEN: &str = "127.0.0.1:9642";
const DEFAULT_GRACE: Duration = Duration::from_mins(5);
const DEFAULT_TOTAL: u32 = 2;
/// As Kubernetes' own programs have it.
const DEFAULT_LEASE: Duration = Duration::from_secs(15);
const SHORTEST_LEASE: Duration = Duration::from_secs(3);

/// Reads a configuration. `base` is the directory that relative paths start from.
pub fn parse_config(text: &str, base: &Path) -> Result<Config, Problems> {
    if text.len() > MAX_SIZE {
        return Err(Problem::whole_file("the file is longer than the 1 MiB that a configuration may have").into());
    }
    let root = tree::read(text.strip_prefix('\u{feff}').unwrap_or(text))?;
    if root.value == tree::Value::Null {
        let problem = Problem::whole_file("the file is empty");
        return Err(problem.hint("the least that it needs: apiVersion, kind: Config, and drills: [DIRECTORY]").into());
    }
    let mut problems = Problems::default();
    form::check(&root, &CONFIG, &mut problems);
    let config = Reader { base, problems: &mut problems }.config(&root);
    match config {
        Some(config) if problems.is_empty() => Ok(config),
        _ => {
            problems.sort();
            Err(problems)
        }
    }
}

/// The JSON Schema of a configuration.
pub fn config_schema() -> serde_json::Value {
    super::schema::of(&CONFIG, "muster configuration", "What the daemon drills, where it listens and whom it tells.")
}

struct Reader<'a> {
    base: &'a Path,
    problems: &'a mut Problems,
}

impl Reader<'_> {
    fn config(&mut self, root: &Node) -> Option<Config> {
        let drills = root.get("drills").map(Node::items).unwrap_or_default();
        let drills = drills.iter().filter_map(Node::text).map(|text| self.path(text)).collect();
        let concurrency = root.get("concurrency");
        let total = number(concurrency, "total").unwrap_or(DEFAULT_TOTAL);
        let retention = root.get("retention");
        let mut names = BTreeMap::new();
        Some(Config {
            drills,
            state_directory: self.path_of(Some(root), "stateDirectory"),
            evidence: Evidence {
                directory: self.path_of(root.get("evidence"), "directory"),
                key: root.get("evidence").and_then(|evidence| self.secret(evidence.get("key")?)),
            },
            concurrency: Concurrency { total, per_target: number(concurrency, "perTarget").unwrap_or(1) },
            approved_template: text(Some(root), "approvedTemplate").and_then(|text| text.parse().ok()),
            shutdown: Shutdown { grace: value::duration(root.get("shutdown"), "grace").unwrap_or(DEFAULT_GRACE) },
            http: self.http(root.get("http"))?,
            alerts: self.alerts(root.get("alerts"), &mut names),
            logs: self.logs(root.get("logs")),
            production: self.production(root.get("production")),
            compact: root.get("compact").map(|node| compact::defaults(node, self.base, self.problems)),
            retention: Retention { age: value::duration(retention, "age"), runs: number(retention, "runs") },
            lease: root.get("kubernetes").and_then(|kubernetes| lease(kubernetes.get("lease")?)),
        })
    }

    fn http(&mut self, node: Option<&Node>) -> Option<Http> {
        let listen: SocketAddr = text(node, "listen").unwrap_or(DEFAULT_LISTEN).parse().ok()?;
        let tls = node.and_then(|node| node.get("tls")).and_then(|tls| {
            Some(Tls { certificate: self.path_of(Some(tls), "certificate")?, key: self.path_of(Some(tls), "key")? })
        });
        let mut names = BTreeMap::new();
        let items = node.and_then(|node| node.get("tokens")).map(Node::items).unwrap_or_default();
        let mut tokens = Vec::new();
        for item in items {
            self.unique(&mut names, item, "token");
            let (name, role) = (text(Some(item), "name"), text(Some(item), "role"));
            let sha256 = text(Some(item), "sha256").and_then(|text| text.parse().ok());
            if let (Some(name), Some(role), Some(sha256)) = (name, role, sha256) {
                let role = if role == "operator" { Role::Operator } else { Role::Viewer };
                tokens.push(Token { name: name.to_owned(), role, sha256 });
            }
        }
        if let Some(given) = node.and_then(|node| node.get("listen"))
            && !listen.ip().is_loopback()
            && (tls.is_none() || tokens.is_empty())
        {
            let message =
                format!("`listen` on {listen} lets other machines in, and that needs `tls` and `tokens` beside it");
            self.problems.push(Problem::at(given.place, message).hint(
                "add tls: { certificate: …, key: … } and tokens: [{ name: …, role: viewer, sha256: … }], or listen on 127.0.0.1",
            ));
        }
        Some(Http { listen, tls, tokens, socket: self.path_of(node, "socket") })
    }

    fn alerts<'n>(&mut self, node: Option<&'n Node>, names: &mut BTreeMap<&'n str, usize>) -> Alerts {
        let items = |name| node.and_then(|node| node.get(name)).map(Node::items).unwrap_or_default();
        let mut alerts = Alerts::default();
        for item in items("webhooks") {
            self.unique(names, item, "destination");
            let (name, url) = (text(Some(item), "name"), text(Some(item), "url"));
            let secret = item.get("secret").and_then(|secret| self.secret(secret));
            let ca = self.ca(item);
            if let (Some(name), Some(url), Some(secret)) = (name, url, secret) {
                alerts.webhooks.push(Webhook { name: name.to_owned(), url: url.to_owned(), secret, ca });
            }
        }
        for item in items("alertmanagers") {
            self.unique(names, item, "destination");
            let ca = self.ca(item);
            if let (Some(name), Some(url)) = (text(Some(item), "name"), text(Some(item), "url")) {
                let url = url.trim_end_matches('/').to_owned();
                alerts.alertmanagers.push(Alertmanager { name: name.to_owned(), url, ca });
            }
        }
        alerts
    }

    /// Who may vouch for a destination.
    fn ca(&mut self, item: &Node) -> Option<PathBuf> {
        let node = item.get("ca")?;
        if text(Some(item), "url").is_some_and(|url| url.starts_with("http://")) {
            let problem = Problem::at(node.place, "`ca` is about TLS, and this URL begins with http://");
            self.problems.push(problem.hint("use https://, or remove `ca`"));
        }
        self.path_of(Some(node), "file")
    }

    fn logs(&mut self, node: Option<&Node>) -> Logs {
        let (file, socket) = (self.path_of(node, "file"), self.path_of(node, "socket"));
        if let (Some(_), Some(_), Some(socket)) = (&file, &socket, node.and_then(|node| node.get("socket"))) {
            let problem = Problem::at(socket.place, "`logs` takes one of `file` and `socket`, not both");
            self.problems.push(problem.hint("remove one"));
        }
        Logs {
            format: if text(node, "format") == Some("json") { LogFormat::Json } else { LogFormat::Text },
            sink: file.map(LogSink::File).or(socket.map(LogSink::Socket)).unwrap_or_default(),
            level: match text(node, "level") {
                Some("error") => LogLevel::Error,
                Some("warn") => LogLevel::Warn,
                Some("debug") => LogLevel::Debug,
                _ => LogLevel::Info,
            },
        }
    }

    fn production(&mut self, node: Option<&Node>) -> Production {
        let listed = node.and_then(|node| node.get("vault")).map(Node::items).unwrap_or_default();
        Production {
            vault: listed.iter().filter_map(Node::text).map(str::to_owned).collect(),
            networks: kubernetes::targets(node.and_then(|node| node.get("networks")), self.problems),
        }
    }

    fn secret(&self, node: &Node) -> Option<SecretSource> {
        let file = text(Some(node), "file").map(|file| SecretSource::File(self.path(file)));
        file.or_else(|| text(Some(node), "env").map(|name| SecretSource::Env(name.to_owned())))
    }

    fn unique<'n>(&mut self, names: &mut BTreeMap<&'n str, usize>, item: &'n Node, what: &str) {
        let Some(node) = item.get("name") else { return };
        let name = node.text().unwrap_or_default();
        if let Some(line) = names.insert(name, node.place.line) {
            let problem = Problem::at(node.place, format!("another {what} is called `{name}`"));
            self.problems.push(problem.hint(format!("the other is on line {line}; name them apart")));
        }
    }

    fn path_of(&self, node: Option<&Node>, name: &str) -> Option<PathBuf> {
        text(node, name).map(|text| self.path(text))
    }

    fn path(&self, text: &str) -> PathBuf {
        value::path(self.base, text)
    }
}

fn lease(node: &Node) -> Option<ClusterLease> {
    let owned = |name| text(Some(node), name).map(str::to_owned);
    Some(ClusterLease {
        context: owned("context"),
        namespace: owned("namespace")?,
        name: owned("name").unwrap_or_else(|| "muster".to_owned()),
        duration: value::duration(Some(node), "duration").unwrap_or(DEFAULT_LEASE),
    })
}

static ADDRESS: TextRule = TextRule {
    check: |text| {
        let complaint = || {
            Complaint::new(format!("`{text}` is not an address and a port"))
                .hint("such as 127.0.0.1:9642 or [::1]:9642; names are not looked up")
        };
        text.parse::<SocketAddr>().map(drop).map_err(|_| complaint())
    },
    pattern: None,
    example: DEFAULT_LISTEN,
};

static URL: TextRule = TextRule {
    check: |text| {
        let rest = text.strip_prefix("https://").or_else(|| text.strip_prefix("http://"));
        let host = rest.map(|rest| rest.split(['/', '?', '#']).next().unwrap_or_default());
        let plain = text.len() <= 2_048 && !text.chars().any(|c| c.is_control() || c.is_whitespace());
        match host {
            Some(host) if plain && !host.is_empty() && !host.contains('@') => Ok(()),
            Some(host) if host.contains('@') => Err(Complaint::new("a URL with a password in it would end up in logs")
                .hint("remove what stands before the @")),
            _ => Err(Complaint::new("a URL begins with https:// or http:// and names a host")),
        }
    },
    pattern: Some("^https?://[^\\s@]+$"),
    example: "https://hooks.example/muster",
};

static CONFIG: Shape = Shape {
    choice: Choice::Any,
    keys: &[
        required("apiVersion", Form::Constant("muster.dev/v1"), "The version of this format."),
        required("kind", Form::Constant("Config"), "What the file declares."),
        required(
            "drills",
            Form::List {
                item: &Form::Text(&rule::PATH),
                if_empty: Some(IfEmpty {
                    message: "`drills` is empty: there would be nothing to drill",
                    hint: "name the directories of your drill files, such as [/etc/muster/drills]",
                }),
            },
            "Directories whose *.yaml and *.yml are drill files; watched.",
        ),
        optional(
            "stateDirectory",
            Form::Text(&rule::PATH),
            "Where muster keeps what must survive. Default: $MUSTER_STATE_DIR, /var/lib/muster for root.",
        ),
        optional("evidence", Form::Object(&EVIDENCE), "Where evidence goes and what signs it."),
        optional("concurrency", Form::Object(&CONCURRENCY), "How many runs may go on at one time."),
        optional(
            "approvedTemplate",
            Form::Text(&rule::SHA256),
            "Digest of the isolation template that runs may use; any other stops them. Default: recorded, not compared.",
        ),
        optional("shutdown", Form::Object(&SHUTDOWN), "What a stop does to runs that go on."),
        optional("http", Form::Object(&HTTP), "The page, the API and the metrics."),
        optional("alerts", Form::Object(&ALERTS), "Who is told. Default: nobody but the page and the metrics."),
        optional("logs", Form::Object(&LOGS), "How and where muster logs. Default: text on standard error."),
        optional("compact", Form::Object(&compact::DEFAULTS), "What compact manifests leave out."),
        optional("kubernetes", Form::Object(&KUBERNETES), "What the daemon itself asks of a cluster."),
        optional("production", Form::Object(&PRODUCTION), "What belongs to production, and so to no drill."),
        optional(
            "retention",
            Form::Object(&RETENTION),
            "Which old runs are forgotten. Default: none. What owes something and each drill's last success stay.",
        ),
    ],
};

static KUBERNETES: Shape = Shape {
    choice: Choice::Any,
    keys: &[optional(
        "lease",
        Form::Object(&LEASE),
        "A Lease that one muster at a time holds; a second one refuses to begin. Default: the lock on the state directory is all.",
    )],
};

static LEASE: Shape = Shape {
    choice: Choice::Any,
    keys: &[
        required("namespace", Form::Text(&rule::CHECK_NAME), "Where it lies: muster's own namespace."),
        optional("name", Form::Text(&rule::CHECK_NAME), "Default: muster."),
        optional(
            "duration",
            duration(SHORTEST_LEASE, LONGEST_TERM),
            "How long it stands without being renewed, and so how long the next one waits for one that was killed. Default: 15s.",
        ),
        optional(
            "context",
            Form::Text(&rule::CONTEXT),
            "Of the kubeconfig. Default: the current one, or muster's own cluster.",
        ),
    ],
};

static PRODUCTION: Shape = Shape {
    choice: Choice::Any,
    keys: &[
        optional(
            "vault",
            Form::List { item: &Form::Text(&vault::MOUNT), if_empty: None },
            "Paths of database secrets engines: MOUNT, or MOUNT/PATH of a mount that drills share. A drill that names one is refused.",
        ),
        optional(
            "networks",
            Form::List { item: &Form::Text(&kubernetes::TARGET), if_empty: None },
            "Addresses or networks, each with a port, that every drill in a cluster must prove out of reach, such as 10.20.0.0/16:5432.",
        ),
    ],
};

static EVIDENCE: Shape = Shape {
    choice: Choice::Any,
    keys: &[
        optional("directory", Form::Text(&rule::PATH), "Default: `evidence` in the state directory."),
        optional(
            "key",
            Form::Object(&SECRET),
            "The secret key that signs. Default: one that muster makes on first use.",
        ),
    ],
};

static SECRET: Shape = Shape {
    choice: Choice::ExactlyOne,
    keys: &[
        optional(
            "file",
            Form::Text(&rule::PATH),
            "A file that holds the secret. ${CREDENTIALS_DIRECTORY}/NAME is what systemd's LoadCredential gives.",
        ),
        optional("env", Form::Text(&rule::VARIABLE), "An environment variable that holds the secret."),
    ],
};

static CONCURRENCY: Shape = Shape {
    choice: Choice::Any,
    keys: &[
        optional("total", Form::Whole { min: 1, max: 1_000 }, "Runs at one time. Default: 2."),
        optional("perTarget", Form::Whole { min: 1, max: 1_000 }, "Runs of one backup at one time. Default: 1."),
    ],
};

static SHUTDOWN: Shape = Shape {
    choice: Choice::Any,
    keys: &[optional(
        "grace",
        duration(Duration::ZERO, DAY),
        "How long runs may go on after a stop was asked for; then they are cancelled and torn down. Default: 5m.",
    )],
};

static HTTP: Shape = Shape {
    choice: Choice::Any,
    keys: &[
        optional(
            "listen",
            Form::Text(&ADDRESS),
            "Address and port. Any but loopback needs `tls` and `tokens`. Default: 127.0.0.1:9642.",
        ),
        optional("tls", Form::Object(&TLS), "Certificate and key."),
        optional(
            "tokens",
            Form::List { item: &Form::Object(&TOKEN), if_empty: None },
            "Who may look, and who may act.",
        ),
        optional(
            "socket",
            Form::Text(&rule::PATH),
            "The Unix socket that the command line talks to. Default: `muster.sock` in the state directory.",
        ),
    ],
};

static TLS: Shape = Shape {
    choice: Choice::Any,
    keys: &[
        required("certificate", Form::Text(&rule::PATH), "A PEM file; the leaf first, then what leads to its root."),
        required("key", Form::Text(&rule::PATH), "A PEM file that only muster's user can read."),
    ],
};

static TOKEN: Shape = Shape {
    choice: Choice::Any,
    keys: &[
        required("name", Form::Text(&rule::CHECK_NAME), "Who it is for; stands in logs."),
        required(
            "role",
            Form::OneOf(&["viewer", "operator"]),
            "`viewer` looks, `operator` starts, cancels and releases.",
        ),
        required(
            "sha256",
            Form::Text(&rule::SHA256),
            "Digest of the token; the token itself is nowhere. `printf %s TOKEN | sha256sum` prints the digits.",
        ),
    ],
};

static ALERTS: Shape = Shape {
    choice: Choice::Any,
    keys: &[
        optional(
            "webhooks",
            Form::List { item: &Form::Object(&WEBHOOK), if_empty: None },
            "Each gets every alert as signed JSON.",
        ),
        optional(
            "alertmanagers",
            Form::List { item: &Form::Object(&ALERTMANAGER), if_empty: None },
            "Alertmanagers with the API of version 2.",
        ),
    ],
};

static WEBHOOK: Shape = Shape {
    choice: Choice::Any,
    keys: &[
        required("name", Form::Text(&rule::CHECK_NAME), "Unique among all destinations."),
        required("url", Form::Text(&URL), "Where alerts are posted."),
        required("secret", Form::Object(&SECRET), "Signs each request with HMAC-SHA-256."),
        optional("ca", Form::Object(&CA), "Who may vouch for it, and nobody else. Default: whom the system trusts."),
    ],
};

static ALERTMANAGER: Shape = Shape {
    choice: Choice::Any,
    keys: &[
        required("name", Form::Text(&rule::CHECK_NAME), "Unique among all destinations."),
        required("url", Form::Text(&URL), "Its base, such as http://127.0.0.1:9093."),
        optional("ca", Form::Object(&CA), "Who may vouch for it, and nobody else. Default: whom the system trusts."),
    ],
};

static CA: Shape = Shape {
    choice: Choice::Any,
    keys: &[required("file", Form::Text(&rule::PATH), "Certificates of authorities, as PEM.")],
};

static LOGS: Shape = Shape {
    choice: Choice::Any,
    keys: &[
        optional("format", Form::OneOf(&["text", "json"]), "Default: text."),
        optional("level", Form::OneOf(&["error", "warn", "info", "debug"]), "Default: info."),
        optional("file", Form::Text(&rule::PATH), "Appended to, and opened anew at SIGHUP."),
        optional("socket", Form::Text(&rule::PATH), "A Unix datagram socket: one line a datagram."),
    ],
};

static RETENTION: Shape = Shape {
    choice: Choice::Any,
    keys: &[
        optional("age", duration(SECOND, DECADE), "Runs that ended longer ago are forgotten."),
        optional("runs", Form::Whole { min: 1, max: 1_000_000 }, "Runs kept of each drill."),
    ],
};
