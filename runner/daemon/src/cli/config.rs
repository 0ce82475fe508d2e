//! `muster config`: what a configuration means here, before the daemon lives by it.
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use drill::config::{Config, LogSink};
use drill::secret::SecretSource;
use drill::stop::Stop;
use drill::unit;
use drill::verdict::EXIT_NOTHING_BEGUN;

use super::drill_file::wrapped;
use super::serve::load;
use super::style::{self, Mark, Style, clean};
use crate::{secrets, state_dir, wiring};

/// Check the daemon's configuration, or print its JSON Schema
#[derive(clap::Args)]
pub(super) struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(clap::Subcommand)]
enum Command {
    /// Say all that is wrong with a configuration, or what will be in force
    #[command(
        after_help = "Example:\n  muster config check deploy/muster.yaml\n\nSecrets are looked for and never shown.\n\n\
        Exit codes: 0 the daemon can begin with it, 3 it cannot."
    )]
    Check {
        #[arg(value_name = "FILE", default_value = "/etc/muster/muster.yaml")]
        file: PathBuf,
    },
    /// Print the JSON Schema of configurations
    Schema,
}

pub(super) fn run(args: Args) -> Result<ExitCode, Stop> {
    match args.command {
        Command::Schema => {
            style::print(&format!("{:#}\n", drill::file::config_schema()))?;
            Ok(ExitCode::SUCCESS)
        }
        Command::Check { file } => check(&file),
    }
}

fn check(file: &Path) -> Result<ExitCode, Stop> {
    match load(file)? {
        Err(problems) => {
            // Nobody listens: the exit code says it too.
            let _ = std::io::stderr().lock().write_all(wrapped(&problems, Style::of_stderr()).as_bytes());
            Ok(ExitCode::from(EXIT_NOTHING_BEGUN))
        }
        Ok(config) => {
            let found = look(&config);
            style::print(&found.text(Style::of_stdout()))?;
            let bad = found.0.iter().any(|(mark, ..)| *mark == Mark::Bad);
            Ok(ExitCode::from(if bad { EXIT_NOTHING_BEGUN } else { 0 }))
        }
    }
}

/// Lines of a sign, a key and its value.
#[derive(Default)]
struct Found(Vec<(Mark, &'static str, String)>);

impl Found {
    fn text(&self, style: Style) -> String {
        let widest = self.0.iter().map(|(_, key, _)| key.len()).max().unwrap_or(0);
        let line = |(mark, key, value): &(Mark, &'static str, String)| {
            style.hang(&format!("{} {key:<widest$}  ", style.sign(*mark)), &clean(value)) + "\n"
        };
        self.0.iter().map(line).collect()
    }

    fn say(&mut self, key: &'static str, value: impl Into<String>) {
        self.0.push((Mark::None, key, value.into()));
    }

    fn directory(&mut self, key: &'static str, path: &Path) {
        match path.metadata() {
            Ok(found) if found.is_dir() => self.0.push((Mark::Good, key, path.display().to_string())),
            Ok(_) => self.0.push((Mark::Bad, key, format!("{}: it is not a directory", path.display()))),
            Err(error) => self.0.push((Mark::Bad, key, format!("{}: {error}", path.display()))),
        }
    }

    fn ca(&mut self, destination: &str, file: Option<&Path>) {
        let Some(shown) = file.map(Path::display) else { return };
        match wiring::ca(destination, file) {
            Ok(_) => self.0.push((Mark::Good, "its authorities", format!("{destination}: {shown}"))),
            Err(stop) => self.0.push((Mark::Bad, "its authorities", stop.message)),
        }
    }

    fn secret(&mut self, key: &'static str, whose: &str, source: &SecretSource) {
        let shown = match source {
            SecretSource::File(path) => path.display().to_string(),
            SecretSource::Env(name) => format!("variable {name}"),
        };
        let whose = if whose.is_empty() { String::new() } else { format!("{whose}: ") };
        if let Err(stop) = secrets::read(source, &format!("{whose}{shown}")) {
            self.0.push((Mark::Bad, key, stop.message));
            return;
        }
        let trouble = match source {
            SecretSource::File(path) => secrets::expand(path).ok().and_then(|path| secrets::trouble(&path)),
            SecretSource::Env(_) => None,
        };
        match trouble {
            Some(trouble) => self.0.push((Mark::Warning, key, format!("{whose}{shown}: {trouble}"))),
            None => self.0.push((Mark::Good, key, format!("{whose}{shown}"))),
        }
    }
}

fn look(config: &Config) -> Found {
    let mut found = Found::default();
    for directory in &config.drills {
        found.directory("drills", directory);
    }
    match config.state_directory.clone().map_or_else(state_dir::find, Ok) {
        Ok(directory) => found.say("state", directory.display().to_string()),
        Err(stop) => found.0.push((Mark::Bad, "state", stop.message)),
    }
    found.say(
        "evidence",
        config
            .evidence
            .directory
            .as_ref()
            .map_or("in the state directory".to_owned(), |path| path.display().to_string()),
    );
    match &config.evidence.key {
        Some(source) => found.secret("evidence key", "", source),
        None => found.say("evidence key", "made on first use"),
    }
    let concurrency = config.concurrency;
    found.say("concurrency", format!("{} in total, {} of one backup", concurrency.total, concurrency.per_target));
    let template = config.approved_template.map(|digest| digest.to_string());
    found.say("template", template.unwrap_or_else(|| "recorded, not compared".to_owned()));
    found.say("shutdown", format!("runs may go on for {}", unit::duration(config.shutdown.grace)));
    let tls = if config.http.tls.is_some() { " with TLS" } else { "" };
    found.say("listen", format!("{}{tls}", config.http.listen));
    if let Some(tls) = &config.http.tls {
        found.secret("certificate", "", &SecretSource::File(tls.certificate.clone()));
        // A certificate is for everybody to read.
        if let Some(last) = found.0.last_mut().filter(|(mark, ..)| *mark == Mark::Warning) {
            *last = (Mark::Good, "certificate", tls.certificate.display().to_string());
        }
        found.secret("TLS key", "", &SecretSource::File(tls.key.clone()));
    }
    if let Some(lease) = &config.lease {
        let duration = unit::duration(lease.duration);
        found.say("lease", format!("{}/{}, renewed within {duration}", lease.namespace, lease.name));
    }
    for token in &config.http.tokens {
        found.say("token", format!("{} ({:?})", token.name, token.role).to_lowercase());
    }
    for webhook in &config.alerts.webhooks {
        found.say("webhook", format!("{} at {}", webhook.name, host(&webhook.url)));
        found.secret("its secret", &webhook.name, &webhook.secret);
        found.ca(&webhook.name, webhook.ca.as_deref());
    }
    for alertmanager in &config.alerts.alertmanagers {
        found.say("alertmanager", format!("{} at {}", alertmanager.name, host(&alertmanager.url)));
        found.ca(&alertmanager.name, alertmanager.ca.as_deref());
    }
    if config.alerts.webhooks.is_empty() && config.alerts.alertmanagers.is_empty() {
        found.0.push((
            Mark::Warning,
            "alerts",
            "nobody is told: add alerts: { webhooks: … } or { alertmanagers: … }".into(),
        ));
    }
    if let Some(compact) = &config.compact {
        let lacking: Vec<&str> = compact.lacking().into_iter().map(|(name, _)| name).collect();
        match &lacking[..] {
            [] => found.0.push((Mark::Good, "compact manifests", "stand for whole drills".to_owned())),
            lacking => {
                found.0.push((
                    Mark::Warning,
                    "compact manifests",
                    format!("lack compact.{}", lacking.join(", compact.")),
                ));
            }
        }
    }
    let sink = match &config.logs.sink {
        LogSink::Stderr => "standard error".to_owned(),
        LogSink::File(path) | LogSink::Socket(path) => path.display().to_string(),
    };
    found.say(
        "logs",
        format!("{:?}, {:?}, to {sink}", config.logs.format, config.logs.level)
            .to_lowercase()
            .replace(&sink.to_lowercase(), &sink),
    );
    let age = config.retention.age.map(|age| format!("for {}", unit::duration(age)));
    let runs = config.retention.runs.map(|runs| format!("the newest {runs} of each drill"));
    let kept: Vec<String> = age.into_iter().chain(runs).collect();
    found.say("runs are kept", if kept.is_empty() { "for ever".to_owned() } else { kept.join(", ") });
    found
}

/// The rest of a URL may be a secret.
fn host(url: &str) -> String {
    let Some((scheme, rest)) = url.split_once("://") else { return "?".to_owned() };
    let authority = rest.split(['/', '?', '#']).next().unwrap_or_default();
    format!("{scheme}://{}", authority.rsplit('@').next().unwrap_or_default())
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a test fails by panicking")]
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn what_is_in_force_is_said_and_no_secret() {
        let place = tempfile::tempdir().unwrap();
        let write = |name: &str, mode: u32| {
            std::fs::write(place.path().join(name), "canary-1d2e\n").unwrap();
            std::fs::set_permissions(place.path().join(name), PermissionsExt::from_mode(mode)).unwrap();
        };
        write("tight", 0o600);
        write("loose", 0o644);
        std::fs::create_dir(place.path().join("drills")).unwrap();
        let text = "apiVersion: muster.dev/v1\nkind: Config\ndrills: [drills, nowhere]\nalerts:\n  webhooks:\n\
            \x20   - { name: one, url: 'https://hooks.example:8443/canary-0b?t=canary-0c', secret: { file: tight } }\n\
            \x20   - { name: two, url: 'https://hooks.example/canary-0d', secret: { file: loose } }\n\
            \x20   - { name: three, url: 'https://hooks.example/', secret: { env: MUSTER_TEST_NO_SUCH_VARIABLE } }\n\
            \x20 alertmanagers:\n    - { name: four, url: 'https://alerts.example/', ca: { file: loose } }\n\
            \x20   - { name: five, url: 'https://alerts.example/', ca: { file: none.pem } }\n";
        let config = drill::file::parse_config(text, place.path()).unwrap();
        let said = look(&config).text(Style::plain());
        assert!(!said.contains("canary"), "{said}");
        for line in [
            "one at https://hooks.example:8443\n",
            "(mode 644): chmod 600",
            "no variable MUSTER_TEST_NO_SUCH_VARIABLE",
            "none.pem",
        ] {
            assert!(said.contains(line), "{line}: {said}");
        }
        let signs = |sign: &str| said.lines().filter(|line| line.starts_with(sign)).count();
        // The directory, the variable and the authorities that are not there; the secret that others may read; drills, the other
        // secret, and authorities, which anybody may read.
        assert_eq!((signs("✗"), signs("!"), signs("✓")), (3, 1, 3), "{said}");
    }

    #[test]
    fn the_configuration_that_ships_is_valid() {
        let text = include_str!("../../../../deploy/muster.yaml");
        let config = drill::file::parse_config(text, Path::new("/etc/muster"));
        config.unwrap_or_else(|problems| panic!("{}", drill::file::render(&problems, "muster.yaml", text, false)));
    }
}
