use std::fmt::Write as _;
use std::path::Path;
use std::process::ExitCode;

use drill::stop::{OrStop, Stop};
use drill::unit;
use drill::verdict::Reason;
use drivers::engine::postgresql::install::{Install, installs};
use drivers::isolation::local::{Fact, LocalConfig, doctor};

use rustix::fs::Access;

use super::style::{self, Mark, Style, clean};
use crate::state_dir;

/// Say what this machine can do, and what to type for what is missing
#[derive(clap::Args)]
#[command(after_help = "Example:\n  muster doctor\n\nExit code 1: a drill cannot run here.")]
pub struct Args {
    /// Name the extensions of each PostgreSQL
    #[arg(long)]
    extensions: bool,
}

pub async fn run(args: Args) -> Result<ExitCode, Stop> {
    let program = std::env::current_exe().or_stop(Reason::Internal, "finding muster's own program")?;
    let state_directory = state_dir::find()?;
    let mut facts = doctor(&LocalConfig::new(state_directory.clone(), program)).await;
    facts.extend(engines(&installs(), args.extensions));
    facts.push(state(&state_directory));
    let mut able = true;
    for fact in &facts {
        // A limit that nothing holds is a warning; without a sandbox or a server there is no drill.
        able &= fact.ok || !matches!(fact.name.as_str(), "bubblewrap" | "user namespaces" | "PostgreSQL" | STATE);
    }
    style::print(&text(&facts, Style::of_stdout()))?;
    Ok(ExitCode::from(u8::from(!able)))
}

fn text(facts: &[Fact], style: Style) -> String {
    let mut text = String::new();
    for fact in facts {
        let mark = if fact.ok { Mark::Good } else { Mark::Bad };
        let mut say = |lead: &str, what: &str| {
            let _ = writeln!(text, "{}", style.hang(lead, &clean(what)));
        };
        say(&format!("  {} {:<18} ", style.sign(mark), clean(&fact.name)), &fact.detail);
        if let Some(advice) = &fact.advice {
            say(&format!("    {:<18} ", ""), advice);
        }
    }
    text
}

const STATE: &str = "state directory";

/// Whether it, or what it would be made in, can be written.
fn state(directory: &Path) -> Fact {
    let nearest = directory.ancestors().find(|path| path.exists()).unwrap_or(directory);
    let usable = nearest.is_dir() && rustix::fs::access(nearest, Access::WRITE_OK).is_ok();
    let detail = match (usable, nearest == directory) {
        (true, true) => directory.display().to_string(),
        (true, false) => format!("{} (made by the first run)", directory.display()),
        (false, _) => format!("{} cannot be written", nearest.display()),
    };
    let advice = (!usable).then(|| "set MUSTER_STATE_DIR to a directory of yours".to_owned());
    Fact { name: STATE.to_owned(), ok: usable, detail, advice }
}

fn engines(installs: &[Install], name_extensions: bool) -> Vec<Fact> {
    if installs.is_empty() {
        return vec![Fact {
            name: "PostgreSQL".to_owned(),
            ok: false,
            detail: "no server found".to_owned(),
            advice: Some("sudo apt-get install postgresql".to_owned()),
        }];
    }
    let describe = |install: &Install| {
        let count = u64::try_from(install.extensions.len()).unwrap_or(u64::MAX);
        let extensions = if name_extensions {
            format!("extensions {}", install.extensions.keys().cloned().collect::<Vec<_>>().join(" "))
        } else {
            unit::plural(count, "extension")
        };
        let options = match &install.options {
            Some(options) => format!(", built with {}", options.iter().cloned().collect::<Vec<_>>().join(" ")),
            None => String::new(),
        };
        format!("{} in {}, {extensions}{options}", install.version, install.bin.display())
    };
    installs
        .iter()
        .map(|install| Fact { name: "PostgreSQL".to_owned(), ok: true, detail: describe(install), advice: None })
        .collect()
}

#[cfg(test)]
mod tests {
    #![expect(clippy::needless_raw_string_hashes, reason = "expect-test writes them")]
    use expect_test::expect;

    use super::*;

    #[test]
    fn what_is_missing_is_marked_and_advised_on_a_narrow_terminal_too() {
        let fact = |name: &str, ok, detail: &str, advice: Option<&str>| Fact {
            name: name.to_owned(),
            ok,
            detail: detail.to_owned(),
            advice: advice.map(str::to_owned),
        };
        let facts = [
            fact("bubblewrap", true, "0.8.0 in /usr/bin/bwrap", None),
            fact(
                "PostgreSQL",
                false,
                "no server\u{1b}[2J was found on this machine",
                Some("sudo apt-get install postgresql"),
            ),
        ];
        // A first line without a margin keeps the margins of the others.
        let golden = |style| format!("$ muster doctor\n{}", text(&facts, style));
        expect![[r#"
            $ muster doctor
              ✓ bubblewrap         0.8.0 in /usr/bin/bwrap
              ✗ PostgreSQL         no server\u{1b}[2J was found on this machine
                                   sudo apt-get install postgresql
        "#]]
        .assert_eq(&golden(Style::plain()));
        expect![[r#"
            $ muster doctor
              ✓ bubblewrap         0.8.0 in
                /usr/bin/bwrap
              ✗ PostgreSQL         no
                server\u{1b}[2J was found on this
                machine
                sudo apt-get install postgresql
        "#]]
        .assert_eq(&golden(Style::of_columns(40)));
    }
}
