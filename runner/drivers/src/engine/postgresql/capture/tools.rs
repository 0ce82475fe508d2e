//! `pg_dump` and `pg_dumpall`: which ones, and running them.
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use drill::stop::{OrStop, Stop};
use drill::verdict::Reason;
use tokio::io::AsyncReadExt;
use tokio::process::Command;

use super::conninfo::{ConnInfo, Environment};

/// Bytes of a tool's messages that are kept.
const MAX_MESSAGES: usize = 64 << 10;

/// One installation of the client tools.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Tools {
    pub(super) directory: PathBuf,
    /// (major, minor).
    version: (u32, u32),
    /// As `pg_dump --version` says it.
    pub(super) shown: String,
}

impl Tools {
    /// The server's own major where it is installed, else the next newer one: an older `pg_dump` cannot read a newer server,
    /// and a newer one writes what the server's own `pg_restore` may not read.
    pub(super) async fn find(server_major: u32, environment: &Environment) -> Result<Self, Stop> {
        let mut found = Vec::new();
        for directory in directories(environment) {
            found.extend(inspect(&directory).await);
        }
        let majors: Vec<String> = found.iter().map(|tools| tools.version.0.to_string()).collect();
        choose(found, server_major).ok_or_else(|| {
            let there = if majors.is_empty() { "none".to_owned() } else { majors.join(", ") };
            let problem = format!("the server is PostgreSQL {server_major}, and of pg_dump there is only {there}");
            Stop::new(Reason::SandboxUnfit, problem)
                .advise(format!("install its client tools, such as: apt-get install postgresql-client-{server_major}"))
        })
    }

    pub(super) fn command(&self, tool: &str, info: &ConnInfo, environment: &Environment) -> Command {
        let mut command = Command::new(self.directory.join(tool));
        command.env_clear();
        for keep in ["PATH", "HOME", "LD_LIBRARY_PATH", "SSL_CERT_FILE", "SSL_CERT_DIR", "KRB5CCNAME", "KRB5_CONFIG"] {
            if let Some(value) = environment.get(keep) {
                command.env(keep, value);
            }
        }
        command.envs(info.variables());
        // UTC, so that the time in the dump's header means something; C, so that messages can be understood.
        command.envs([("TZ", "UTC"), ("LC_ALL", "C"), ("PGAPPNAME", "muster capture")]);
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped()).kill_on_drop(true);
        command
    }
}

fn choose(found: Vec<Tools>, server_major: u32) -> Option<Tools> {
    let suitable = found.into_iter().filter(|tools| tools.version.0 >= server_major);
    suitable.min_by_key(|tools| (tools.version.0, u32::MAX - tools.version.1))
}

fn directories(environment: &Environment) -> Vec<PathBuf> {
    let below = |root: &str, tail: &str| {
        let entries = std::fs::read_dir(root).into_iter().flatten().filter_map(Result::ok);
        let mut found: Vec<_> = entries.map(|entry| entry.path().join(tail)).collect();
        found.sort();
        found
    };
    let mut all = below("/usr/lib/postgresql", "bin");
    all.extend(below("/usr", "bin").into_iter().filter(|path| path.starts_with("/usr") && is_pgdg(path)));
    all.push(PathBuf::from("/usr/local/pgsql/bin"));
    all.extend(below("/opt", "bin"));
    all.extend(environment.get("PATH").into_iter().flat_map(std::env::split_paths));
    all
}

/// `/usr/pgsql-15/bin`.
fn is_pgdg(path: &Path) -> bool {
    path.components().nth(2).is_some_and(|step| step.as_os_str().to_string_lossy().starts_with("pgsql-"))
}

async fn inspect(directory: &Path) -> Option<Tools> {
    if !directory.join("pg_dump").is_file() || !directory.join("pg_dumpall").is_file() {
        return None;
    }
    let mut command = Command::new(directory.join("pg_dump"));
    command.arg("--version").env("LC_ALL", "C").stdin(Stdio::null()).stderr(Stdio::null()).kill_on_drop(true);
    let output = tokio::time::timeout(Duration::from_secs(10), command.output()).await.ok()?.ok()?;
    let shown = String::from_utf8(output.stdout).ok()?.trim().to_owned();
    Some(Tools { directory: directory.to_owned(), version: version(&shown)?, shown })
}

/// From `pg_dump (PostgreSQL) 15.18 (Debian 15.18-0+deb12u1)`; betas such as `19beta1` count as their major.
fn version(shown: &str) -> Option<(u32, u32)> {
    let number = shown.strip_prefix("pg_dump (PostgreSQL) ")?.split_whitespace().next()?;
    let digits = |text: &str| text.chars().take_while(char::is_ascii_digit).collect::<String>().parse().ok();
    let (major, minor) = number.split_once('.').unwrap_or((number, "0"));
    Some((digits(major)?, digits(minor).unwrap_or(0)))
}

/// What a tool said, when it ended well; what it said is the error otherwise.
pub(super) async fn run(mut command: Command, what: &str) -> Result<String, String> {
    let mut child = command.spawn().map_err(|error| format!("starting {what}: {error}"))?;
    let mut stderr = child.stderr.take().ok_or_else(|| format!("{what} has no messages"))?;
    let mut messages = Vec::new();
    let mut buffer = vec![0; 8192];
    loop {
        match stderr.read(&mut buffer).await {
            Ok(0) | Err(_) => break,
            Ok(length) => {
                let room = MAX_MESSAGES.saturating_sub(messages.len());
                messages.extend_from_slice(&buffer[..length.min(room)]);
            }
        }
    }
    let status = child.wait().await.map_err(|error| format!("waiting for {what}: {error}"))?;
    let messages = String::from_utf8_lossy(&messages).trim().to_owned();
    if status.success() { Ok(messages) } else { Err(format!("{what} failed ({status}): {messages}")) }
}

pub(super) fn create_private(path: &Path) -> Result<(), Stop> {
    use std::os::unix::fs::OpenOptionsExt;
    let mut options = std::fs::OpenOptions::new();
    options.write(true).create_new(true).mode(0o600);
    options.open(path).map(drop).or_stop(Reason::SandboxUnfit, format!("creating `{}`", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tools(major: u32, minor: u32) -> Tools {
        Tools { directory: PathBuf::from(format!("/{major}.{minor}")), version: (major, minor), shown: String::new() }
    }

    #[test]
    fn the_servers_own_major_comes_first_and_an_older_one_never() {
        let all = vec![tools(13, 9), tools(17, 2), tools(15, 4), tools(15, 18), tools(16, 1)];
        let pick = |major| choose(all.clone(), major).map(|tools| tools.version);
        assert_eq!(pick(15), Some((15, 18)));
        assert_eq!(pick(14), Some((15, 18)));
        assert_eq!(pick(18), None);
    }

    #[test]
    fn versions_are_read_as_pg_dump_says_them() {
        assert_eq!(version("pg_dump (PostgreSQL) 15.18 (Debian 15.18-0+deb12u1)"), Some((15, 18)));
        assert_eq!(version("pg_dump (PostgreSQL) 19beta1"), Some((19, 0)));
        assert_eq!(version("psql (PostgreSQL) 15.18"), None);
    }
}
