//! `muster quarantine`.
use std::fmt::Write as _;
use std::process::ExitCode;

use drill::id::Sha256Digest;
use drill::port::Quarantine;
use drill::stop::Stop;
use drill::unit;
use drivers::store;
use serde::Deserialize;

use super::daemon::Daemon;
use super::style::{self, Mark, Output, Style, clean};
use crate::client::Client;
use crate::state_dir;

/// Backups that a run refused: later runs refuse them too, until they are released
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, clap::Subcommand)]
enum Command {
    List(ListArgs),
    Release(ReleaseArgs),
}

/// List refused backups, and why
#[derive(Debug, clap::Args)]
#[command(after_help = "Example:\n  muster quarantine list")]
struct ListArgs {
    #[command(flatten)]
    daemon: Daemon,
    /// How they are printed: for people, or one JSON object a line
    #[arg(long, value_enum, default_value = "text")]
    output: Output,
}

/// Let runs use a refused backup again
///
/// Releasing repairs nothing: the next run verifies the backup as any other.
#[derive(Debug, clap::Args)]
#[command(after_help = "Example:\n  muster quarantine list\n  muster quarantine release 3fb1a0c4\n\n\
    Exit codes: 0 released, 3 nothing was released.")]
struct ReleaseArgs {
    /// Digest of the backup's manifest, its first eight digits or more, or the run that refused it
    #[arg(value_name = "DIGEST|RUN")]
    which: String,
    #[command(flatten)]
    daemon: Daemon,
}

pub(super) async fn run(args: Args) -> Result<ExitCode, Stop> {
    match args.command {
        Command::List(args) => list(&args).await,
        Command::Release(args) => release(&args).await,
    }
}

async fn list(args: &ListArgs) -> Result<ExitCode, Stop> {
    let entries = match args.daemon.find()? {
        Some(daemon) => from_daemon(&daemon).await?,
        None => match store::look(&state_dir::find()?)? {
            Some(store) => store.quarantined().await?,
            None => Vec::new(),
        },
    };
    let shown = match args.output {
        Output::Json => entries.iter().map(style::json_line).collect::<Result<String, _>>()?,
        Output::Text => text(&entries, Style::of_stdout()),
    };
    style::print(&shown)?;
    Ok(ExitCode::SUCCESS)
}

async fn release(args: &ReleaseArgs) -> Result<ExitCode, Stop> {
    let (digest, released) = if let Some(daemon) = args.daemon.find()? {
        let digest = which(&args.which, &from_daemon(&daemon).await?)?;
        let Released { released } = daemon.post(&format!("/api/v1/quarantine/{digest}/release")).await?;
        (digest, released)
    } else {
        let open = store::open(&state_dir::resolve()?)?;
        let digest = which(&args.which, &open.quarantined().await?)?;
        let by = format!("user {}", rustix::process::getuid().as_raw());
        (digest, open.release_quarantine(digest, &by).await?)
    };
    style::print(&format!("released {digest} in {}; the next run verifies it again\n", places(released)))?;
    Ok(ExitCode::SUCCESS)
}

#[derive(Deserialize)]
struct Entries {
    quarantine: Vec<Quarantine>,
}

#[derive(Deserialize)]
struct Released {
    released: u64,
}

async fn from_daemon(daemon: &Client) -> Result<Vec<Quarantine>, Stop> {
    let Entries { quarantine } = daemon.get("/api/v1/quarantine").await?;
    Ok(quarantine)
}

fn places(number: u64) -> String {
    unit::plural(number, "place")
}

/// The one digest that is meant.
fn which(given: &str, entries: &[Quarantine]) -> Result<Sha256Digest, Stop> {
    let start = given.strip_prefix("sha256:").unwrap_or(given);
    let is_digest = start.len() >= 8 && start.chars().all(|c| c.is_ascii_hexdigit());
    let meant = |entry: &&Quarantine| {
        entry.run.as_str() == given || (is_digest && entry.digest.hex().starts_with(&start.to_ascii_lowercase()))
    };
    let mut digests: Vec<Sha256Digest> = entries.iter().filter(meant).map(|entry| entry.digest).collect();
    digests.sort();
    digests.dedup();
    match digests[..] {
        [digest] => Ok(digest),
        [] => Err(Stop::internal(format!("nothing in quarantine is `{}`", clean(given))).advise(
            "`muster quarantine list` shows what is: name a digest, its first eight digits or more, or the run",
        )),
        [..] => Err(Stop::internal(format!("`{given}` is the beginning of {} digests in quarantine", digests.len()))
            .advise("give more digits")),
    }
}

fn text(entries: &[Quarantine], style: Style) -> String {
    if entries.is_empty() {
        return "nothing is in quarantine\n".to_owned();
    }
    let number = u64::try_from(entries.len()).unwrap_or(u64::MAX);
    let mut text = format!("{} in quarantine\n\n", unit::plural(number, "backup"));
    for entry in entries {
        let mut say = |lead: &str, what: &str| {
            let _ = writeln!(text, "{}", style.hang(lead, &clean(what)));
        };
        say(&format!("  {} ", style.sign(Mark::Bad)), &entry.location);
        say("    why       ", &entry.why);
        say("    since     ", &format!("{}, by {}", style::time(entry.at), entry.run));
        say("    manifest  ", &entry.digest.to_string());
        say("    release   ", &format!("muster quarantine release {}", &entry.digest.hex()[..12]));
    }
    text
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a test fails by panicking")]
    #![expect(clippy::needless_raw_string_hashes, reason = "expect-test writes them")]
    use expect_test::expect;

    use super::*;

    fn entry(manifest: &[u8], location: &str) -> Quarantine {
        Quarantine {
            digest: Sha256Digest::of(manifest),
            location: location.to_owned(),
            run: "orders-20261122t021500z-k7x2".parse().unwrap(),
            why: "orders.dump: bytes 4194304 to 8388607 are not what was signed".to_owned(),
            at: "2026-11-22T02:15:01Z".parse().unwrap(),
        }
    }

    #[test]
    fn the_list_says_why_and_how_to_release() {
        assert_eq!(text(&[], Style::plain()), "nothing is in quarantine\n");
        expect![[r#"
            1 backup in quarantine

              ✗ /backups/orders/\u{1b}[2J
                why       orders.dump: bytes 4194304 to 8388607 are not what was signed
                since     2026-11-22 02:15:01Z, by orders-20261122t021500z-k7x2
                manifest  sha256:ca978112ca1bbdcafac231b39a23dc4da786eff8147c4e72b9807785afee48bb
                release   muster quarantine release ca978112ca1b
        "#]]
        .assert_eq(&text(&[entry(b"a", "/backups/orders/\u{1b}[2J")], Style::plain()));
        expect![[r#"
            1 backup in quarantine

              ✗ /backups/orders
                why       orders.dump: bytes 4194304
                          to 8388607 are not what
                          was signed
                since     2026-11-22 02:15:01Z, by
                          orders-20261122t021500z-k7x2
                manifest  sha256:ca978112ca1bbdcafac231b39a23dc4da786eff8147c4e72b9807785afee48bb
                release   muster quarantine release
                          ca978112ca1b
        "#]]
        .assert_eq(&text(&[entry(b"a", "/backups/orders")], Style::of_columns(40)));
    }

    #[test]
    fn one_is_meant_or_none() {
        let entries = [entry(b"a", "/here"), entry(b"a", "/there")];
        let digest = entries[0].digest;
        for given in [&digest.to_string(), &digest.hex(), &digest.hex()[..8], "orders-20261122t021500z-k7x2"] {
            assert_eq!(which(given, &entries).unwrap(), digest, "{given}");
        }
        for given in ["", "sha256:", &digest.hex()[..7], "00000000", "orders"] {
            assert!(which(given, &entries).unwrap_err().advice.is_some(), "{given}");
        }
        let several = [entry(b"a", "/here"), entry(b"b", "/here")];
        assert!(which("orders-20261122t021500z-k7x2", &several).unwrap_err().message.contains("2 digests"));
    }
}
