//! What this machine can do for a sandbox, and what to type for what is missing.
use std::path::{Path, PathBuf};
use std::time::Duration;

use tokio::process::Command;

use super::cgroup::Cgroups;
use super::inside::{beside_lo, tunnel_advice};
use super::{LocalConfig, sys};

const PATIENCE: Duration = Duration::from_secs(10);
/// `--disable-userns` came with it.
const NEEDED: (u32, u32) = (0, 8);

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fact {
    pub name: String,
    pub ok: bool,
    pub detail: String,
    /// What to type, where something is missing.
    pub advice: Option<String>,
}

impl Fact {
    fn good(name: &str, detail: impl Into<String>) -> Self {
        Self { name: name.to_owned(), ok: true, detail: detail.into(), advice: None }
    }

    fn bad(name: &str, detail: impl Into<String>, advice: impl Into<String>) -> Self {
        Self { name: name.to_owned(), ok: false, detail: detail.into(), advice: Some(advice.into()) }
    }
}

/// Looks, and starts bubblewrap on `cat` once. Makes nothing in the state directory.
pub async fn doctor(config: &LocalConfig) -> Vec<Fact> {
    // Before anything is started: a group counts as delegated only while no other process is in it.
    let cgroups = Cgroups::detect();
    let bwrap = resolve(&config.bwrap);
    let version = version(&bwrap).await;
    let found = version.ok;
    let mut facts = vec![version];
    if found {
        facts.push(namespaces(&bwrap).await);
    }
    facts.push(match cgroups {
        Cgroups::None { why } => Fact::bad("cgroups", "limits of memory and processes hold per process only", {
            Cgroups::none(why).advice()
        }),
        usable => Fact::good("cgroups", usable.name().unwrap_or_default()),
    });
    facts.push(keyring());
    facts
}

/// An absolute path as it is; a bare name from the usual places, never from the working directory.
pub(super) fn resolve(bwrap: &Path) -> PathBuf {
    if bwrap.is_absolute() {
        return bwrap.to_owned();
    }
    let places = ["/usr/bin", "/bin", "/usr/local/bin"].map(|place| Path::new(place).join(bwrap));
    places.iter().find(|path| path.exists()).unwrap_or(&places[0]).clone()
}

async fn version(bwrap: &Path) -> Fact {
    let name = "bubblewrap";
    let install = "sudo apt-get install bubblewrap";
    match run(bwrap, &["--version"]).await {
        Err(error) => Fact::bad(name, format!("{}: {error}", bwrap.display()), install),
        Ok((_, text)) => {
            let version = text.split_whitespace().last().unwrap_or_default().to_owned();
            let mut numbers = version.split('.').filter_map(|part| part.parse::<u32>().ok());
            let found = (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0));
            if found >= NEEDED {
                Fact::good(name, format!("{version} at {}", bwrap.display()))
            } else {
                Fact::bad(
                    name,
                    format!("{version} is older than 0.8, which can refuse nested user namespaces"),
                    install,
                )
            }
        }
    }
}

async fn namespaces(bwrap: &Path) -> Fact {
    let name = "user namespaces";
    let arguments = [
        "--unshare-all",
        "--unshare-user",
        "--disable-userns",
        "--ro-bind",
        "/usr",
        "/usr",
        "--symlink",
        "usr/lib",
        "/lib",
        "--symlink",
        "usr/lib64",
        "/lib64",
        "--proc",
        "/proc",
        "/usr/bin/cat",
        "/proc/net/dev",
    ];
    match run(bwrap, &arguments).await {
        Ok((true, devices)) => match beside_lo(&devices) {
            Some(others) if others.is_empty() => Fact::good(name, "usable"),
            Some(others) => {
                let advice =
                    tunnel_advice(&others).unwrap_or("look for what puts interfaces into new network namespaces here");
                Fact::bad(name, format!("a new network namespace has {} beside lo", others.join(" ")), advice)
            }
            None => Fact::bad(name, "a new network namespace has no lo", namespace_advice()),
        },
        Ok((false, said)) => Fact::bad(name, said.trim().to_owned(), namespace_advice()),
        Err(error) => Fact::bad(name, error.to_string(), namespace_advice()),
    }
}

/// Ubuntu 24.04 lets only programs with a profile of `AppArmor` make user namespaces.
fn namespace_advice() -> String {
    let one = |path: &str, value: &str| std::fs::read_to_string(path).is_ok_and(|text| text.trim() == value);
    if one("/proc/sys/kernel/apparmor_restrict_unprivileged_userns", "1") {
        return "AppArmor restricts user namespaces here. Allow bubblewrap alone: write a profile \
                `abi <abi/4.0>, include <tunables/global> profile bwrap /usr/bin/bwrap flags=(unconfined) { userns, }` \
                to /etc/apparmor.d/bwrap, then `sudo systemctl reload apparmor`"
            .to_owned();
    }
    if one("/proc/sys/kernel/unprivileged_userns_clone", "0") {
        return "sudo sysctl kernel.unprivileged_userns_clone=1".to_owned();
    }
    if one("/proc/sys/user/max_user_namespaces", "0") {
        return "sudo sysctl user.max_user_namespaces=10000".to_owned();
    }
    "look at what bubblewrap said; in a container, start it with permission to make user namespaces".to_owned()
}

fn keyring() -> Fact {
    // On a thread of its own: a session keyring belongs to the thread that joins it.
    let joined = std::thread::spawn(sys::join_new_session_keyring).join();
    match joined {
        Ok(Ok(())) => Fact::good("session keyring", "a new one can be joined"),
        Ok(Err(error)) => Fact::bad("session keyring", error.to_string(), "raise kernel.keys.maxkeys by sysctl"),
        Err(_) => Fact::bad("session keyring", "it could not be tried", "report this as an error of muster"),
    }
}

async fn run(program: &Path, arguments: &[&str]) -> std::io::Result<(bool, String)> {
    let mut command = Command::new(program);
    command.args(arguments).env_clear().current_dir("/").kill_on_drop(true).stdin(std::process::Stdio::null());
    if rustix::process::geteuid().is_root() {
        // bubblewrap as root needs no user namespace, so it would prove nothing: the sandbox never runs as root.
        command.uid(65534).gid(65534);
    }
    let output = tokio::time::timeout(PATIENCE, command.output()).await;
    let output = output.map_err(|_| std::io::Error::from(std::io::ErrorKind::TimedOut))??;
    let text = if output.status.success() { output.stdout } else { output.stderr };
    Ok((output.status.success(), String::from_utf8_lossy(&text).into_owned()))
}
