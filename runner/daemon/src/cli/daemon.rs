//! Where the daemon listens, for the commands that ask it.
use std::path::{Path, PathBuf};

use drill::stop::Stop;

use super::serve;
use super::style::clean;
use crate::client::Client;
use crate::http::SOCKET;
use crate::state_dir;

#[derive(Debug, Default, clap::Args)]
pub(super) struct Daemon {
    /// The daemon's configuration, which says where it listens [default: /etc/muster/muster.yaml, if that is there]
    #[arg(long, value_name = "FILE")]
    pub(super) config: Option<PathBuf>,
}

impl Daemon {
    /// None where none answers: nobody listens, or it is another user's.
    pub(super) fn find(&self) -> Result<Option<Client>, Stop> {
        Client::at(&self.socket()?)
    }

    /// For what only a daemon can do; `instead` is what to do without one.
    pub(super) fn needed(&self, instead: &str) -> Result<Client, Stop> {
        let socket = self.socket()?;
        Client::at(&socket)?.ok_or_else(|| {
            Stop::internal(format!("no daemon answers at {}", socket.display()))
                .advise(format!("start one with `muster serve`, as the user who asks now; {instead}"))
        })
    }

    fn socket(&self) -> Result<PathBuf, Stop> {
        let variable =
            |name: &str| std::env::var_os(name).map(PathBuf::from).filter(|value| !value.as_os_str().is_empty());
        socket(self.config.as_deref(), Path::new(serve::CONFIG), variable, state_dir::find)
    }
}

/// What was named by hand comes before what lies at its usual place: a configuration, a variable, the usual configuration, the
/// state directory.
fn socket(
    config: Option<&Path>,
    usual: &Path,
    variable: impl Fn(&str) -> Option<PathBuf>,
    state_directory: impl Fn() -> Result<PathBuf, Stop>,
) -> Result<PathBuf, Stop> {
    if let Some(file) = config {
        let said = match serve::load(file)? {
            Ok(config) => said(&config),
            Err(problems) => {
                let shown = clean(&file.display().to_string());
                return Err(Stop::internal(format!("{shown} is no configuration:\n{problems}"))
                    .advise("mend it, or name another with --config"));
            }
        };
        return said.map_or_else(|| Ok(state_directory()?.join(SOCKET)), Ok);
    }
    if let Some(socket) = variable("MUSTER_SOCKET") {
        return Ok(socket);
    }
    if variable("MUSTER_STATE_DIR").is_none()
        // One that cannot be read, or is bad, is the daemon's trouble and not that of who asks it.
        && let Some(socket) = serve::load(usual).ok().and_then(Result::ok).as_ref().and_then(said)
    {
        return Ok(socket);
    }
    Ok(state_directory()?.join(SOCKET))
}

/// Where a daemon with this configuration listens; None where it is up to the environment.
fn said(config: &drill::config::Config) -> Option<PathBuf> {
    let in_state = || config.state_directory.as_ref().map(|directory| directory.join(SOCKET));
    config.http.socket.clone().or_else(in_state)
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a test fails by panicking")]
    use super::*;

    #[test]
    fn what_was_named_by_hand_comes_first() {
        let place = tempfile::tempdir().unwrap();
        let write = |name: &str, more: &str| {
            let path = place.path().join(name);
            std::fs::write(&path, format!("apiVersion: muster.dev/v1\nkind: Config\ndrills: [drills]\n{more}"))
                .unwrap();
            path
        };
        let usual = write("usual.yaml", "http: { socket: /run/usual.sock }\n");
        let named = write("named.yaml", "http: { socket: /run/named.sock }\n");
        let by_state = write("by-state.yaml", "stateDirectory: /srv/muster\n");
        let silent = write("silent.yaml", "");
        let bad = write("bad.yaml", "htp: {}\n");
        let missing = place.path().join("missing.yaml");
        let find = |config: Option<&Path>, usual: &Path, set: &[(&str, &str)]| {
            let variable = |name: &str| set.iter().find(|(of, _)| *of == name).map(|(_, value)| PathBuf::from(value));
            socket(config, usual, variable, || Ok("/var/lib/muster".into())).map(|path| path.display().to_string())
        };
        let (socket, state) = (("MUSTER_SOCKET", "/run/by-hand.sock"), ("MUSTER_STATE_DIR", "/elsewhere"));
        assert_eq!(find(Some(&named), &usual, &[socket, state]).unwrap(), "/run/named.sock");
        assert_eq!(find(Some(&by_state), &usual, &[]).unwrap(), "/srv/muster/muster.sock");
        assert_eq!(find(Some(&silent), &usual, &[]).unwrap(), "/var/lib/muster/muster.sock");
        assert_eq!(find(None, &usual, &[socket]).unwrap(), "/run/by-hand.sock");
        assert_eq!(find(None, &usual, &[state]).unwrap(), "/var/lib/muster/muster.sock", "as that variable says");
        assert_eq!(find(None, &usual, &[]).unwrap(), "/run/usual.sock");
        for usual in [&missing, &bad] {
            assert_eq!(find(None, usual, &[]).unwrap(), "/var/lib/muster/muster.sock");
        }
        for config in [&missing, &bad] {
            assert!(find(Some(config), &usual, &[]).unwrap_err().advice.unwrap().contains("--config"));
        }
    }
}
