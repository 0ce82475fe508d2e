use std::io::Write;
use std::process::ExitCode;

use drill::stop::{OrStop, Stop};
use drill::unit;
use drill::verdict::Reason;
use drivers::engine::postgresql::install::{Install, installs};
use drivers::isolation::local::{Fact, LocalConfig, doctor};

use crate::state_dir;

/// Say what this machine can do, and what to type for what is missing
#[derive(clap::Args)]
#[command(after_help = "Example:\n  muster doctor\n\nExit code 1: a drill cannot run here.")]
pub struct Args {}

pub async fn run(Args {}: Args) -> Result<ExitCode, Stop> {
    let program = std::env::current_exe().or_stop(Reason::Internal, "finding muster's own program")?;
    let state_directory = state_dir::find()?;
    let mut facts = doctor(&LocalConfig::new(state_directory.clone(), program)).await;
    facts.extend(engines(&installs()));
    facts.push(Fact {
        name: "state directory".to_owned(),
        ok: true,
        detail: state_directory.display().to_string(),
        advice: None,
    });
    let mut out = std::io::stdout().lock();
    let mut able = true;
    for fact in &facts {
        // A limit that nothing holds is a warning; without a sandbox or a server there is no drill.
        able &= fact.ok || !matches!(fact.name.as_str(), "bubblewrap" | "user namespaces" | "PostgreSQL");
        let sign = if fact.ok { "✓" } else { "✗" };
        // Nobody reads on: the exit code says it too.
        let _ = writeln!(out, "  {sign} {:<18} {}", fact.name, fact.detail);
        if let Some(advice) = &fact.advice {
            let _ = writeln!(out, "    {:<18} {advice}", "");
        }
    }
    Ok(ExitCode::from(u8::from(!able)))
}

fn engines(installs: &[Install]) -> Vec<Fact> {
    if installs.is_empty() {
        return vec![Fact {
            name: "PostgreSQL".to_owned(),
            ok: false,
            detail: "no server found".to_owned(),
            advice: Some("sudo apt-get install postgresql".to_owned()),
        }];
    }
    let describe = |install: &Install| {
        let extensions = u64::try_from(install.extensions.len()).unwrap_or(u64::MAX);
        let options = match &install.options {
            Some(options) => format!(", built with {}", options.iter().cloned().collect::<Vec<_>>().join(" ")),
            None => String::new(),
        };
        format!("{} in {}, {}{options}", install.version, install.bin.display(), unit::plural(extensions, "extension"))
    };
    installs
        .iter()
        .map(|install| Fact { name: "PostgreSQL".to_owned(), ok: true, detail: describe(install), advice: None })
        .collect()
}
