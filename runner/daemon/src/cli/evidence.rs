//! `muster evidence`.
use std::fmt::Write as _;
use std::path::PathBuf;
use std::process::ExitCode;

use drill::stop::{OrStop, Stop};
use drill::verdict::{Leftovers, Reason, exit_code};
use drivers::key::PublicKey;
use serde::Serialize;

use super::style::{self, Mark, Output, Style, clean};
use crate::evidence::{Verified, verify};

/// Check the signed record of a run
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, clap::Subcommand)]
enum Command {
    Verify(VerifyArgs),
}

/// Check the signature of a run's evidence, and the chain of all evidence before it
///
/// Every earlier evidence is looked for beside the file. Where some are missing the signature still holds, and the chain is
/// reported as incomplete.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Example:\n  muster evidence verify \"$(ls -t /var/lib/muster/evidence/*.dsse.json | head -n 1)\" \\\n    \
                  --trust /var/lib/muster/evidence.pub\n\n\
                  Exit codes: 0 signed and the chain is whole, 1 the signature or the chain is wrong, 2 the chain is \
                  incomplete, 3 nothing was begun."
)]
struct VerifyArgs {
    /// Evidence of a run: a .dsse.json file
    file: PathBuf,
    /// Public key of a muster whose evidence is trusted; may be given several times
    #[arg(long, value_name = "PUB", required = true)]
    trust: Vec<PathBuf>,
    /// How the result is printed
    #[arg(long, value_enum, default_value = "text")]
    output: Output,
}

pub(super) async fn run(Args { command: Command::Verify(args) }: Args) -> Result<ExitCode, Stop> {
    let trusted = args.trust.iter().map(|path| PublicKey::load(path)).collect::<Result<Vec<_>, _>>()?;
    let (file, output) = (args.file.clone(), args.output);
    // A file that is not there was never looked at.
    if let Err(error) = file.metadata() {
        return Err(Stop::internal(format!("{} cannot be opened: {error}", file.display()))
            .advise("`muster report RUN` says where the evidence of a run is"));
    }
    let verified = tokio::task::spawn_blocking(move || verify(&file, &trusted)).await;
    let verified = verified.or_stop(Reason::Internal, "verifying evidence")?;
    let (code, text) = match (&verified, output) {
        (Ok(verified), Output::Text) => (code(verified), text(verified, Style::of_stdout())),
        (Ok(verified), Output::Json) => (code(verified), style::json_line(&json(verified))?),
        (Err(stop), _) => (exit_code(stop.reason.verdict(), Leftovers::None), refusal(stop, output)?),
    };
    style::print(&text)?;
    Ok(ExitCode::from(code))
}

fn code(verified: &Verified) -> u8 {
    match (verified.chain.wrong.is_empty(), verified.chain.missing.is_empty()) {
        (false, _) => 1,
        (true, false) => 2,
        (true, true) => 0,
    }
}

fn text(verified: &Verified, style: Style) -> String {
    let (chain, said) = (&verified.chain, &verified.statement.predicate);
    let mut text = format!("{}\n\n", style.heading(&format!("evidence of {}", said.run)));
    let mut say = |mark: Mark, what: &str| {
        let _ = writeln!(text, "{}", style.hang(&format!("  {} ", style.sign(mark)), what));
    };
    say(Mark::Good, &format!("signed by key {} and unchanged since", verified.signed_by));
    let mark = match code(verified) {
        0 => Mark::Good,
        1 => Mark::Bad,
        _ => Mark::Unsure,
    };
    say(mark, &format!("chain: {}", chain.line()));
    for wrong in &chain.wrong {
        say(Mark::Bad, &clean(wrong));
    }
    let _ = writeln!(text, "\nit says");
    let verdict = said.result.verdict;
    let lead = format!("  {} {}: ", style.sign(verdict.into()), verdict.as_str().to_uppercase());
    let _ = writeln!(text, "{}", style.hang(&lead, &clean(&said.result.message)));
    if said.result.leftovers == Leftovers::Some {
        let _ = writeln!(text, "  {} something was left over", style.sign(Mark::Warning));
    }
    for subject in &verified.statement.subject {
        let _ = writeln!(text, "    subject   {}, sha256 {}", clean(&subject.name), subject.digest.sha256);
    }
    let _ = writeln!(text, "    started   {}, concluded {}", style::time(said.started), style::time(said.concluded));
    let _ = writeln!(text, "    evidence  {} of store {}", said.chain.sequence, clean(&said.chain.store_id));
    text
}

fn refusal(stop: &Stop, output: Output) -> Result<String, Stop> {
    match output {
        Output::Text => {
            let advice =
                stop.advice.as_ref().map(|advice| format!("    what to do: {}\n", clean(advice))).unwrap_or_default();
            let sign = Style::of_stdout().sign(Mark::Bad);
            Ok(format!("  {sign} {}\n{advice}", clean(&stop.message)))
        }
        Output::Json => {
            style::json_line(&Refused { signed: false, message: &stop.message, advice: stop.advice.as_deref() })
        }
    }
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Refused<'a> {
    signed: bool,
    message: &'a str,
    advice: Option<&'a str>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Accepted<'a> {
    signed: bool,
    signed_by: &'a str,
    digest: String,
    chain: ChainJson<'a>,
    statement: &'a drill::evidence::Statement,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct ChainJson<'a> {
    total: u64,
    present: u64,
    deleted: u64,
    /// First and last of each gap.
    missing: Vec<(u64, u64)>,
    wrong: &'a [String],
}

fn json(verified: &Verified) -> Accepted<'_> {
    let chain = &verified.chain;
    Accepted {
        signed: true,
        signed_by: &verified.signed_by,
        digest: verified.digest.to_string(),
        chain: ChainJson {
            total: chain.total,
            present: chain.present,
            deleted: chain.deleted,
            missing: chain.missing.iter().map(|range| (*range.start(), *range.end())).collect(),
            wrong: &chain.wrong,
        },
        statement: &verified.statement,
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a test fails by panicking")]
    #![expect(clippy::needless_raw_string_hashes, reason = "expect-test writes them")]
    use drivers::key::EvidenceKey;
    use drivers::store::fake::MemoryStore;
    use expect_test::expect;

    use super::*;
    use crate::sample::{conclude, started};

    #[tokio::test]
    async fn what_is_said_of_a_chain_with_a_gap() {
        let (place, store) = (tempfile::tempdir().unwrap(), MemoryStore::new());
        let mut paths = Vec::new();
        for drill in ["a", "b", "c"] {
            let run = started(drill, &place.path().join("evidence"));
            conclude(&store, &run).await;
            paths.push(crate::evidence::write(&store, &run.run, place.path(), None).await.unwrap().path);
        }
        let key = EvidenceKey::load(&place.path().join("evidence.key")).unwrap().public();
        let shown = |path: &std::path::Path| {
            let verified = verify(path, &[key]).unwrap();
            (code(&verified), text(&verified, Style::plain()).replace(&key.key_id(), "KEY"))
        };
        let (whole, said) = shown(&paths[2]);
        assert_eq!(whole, 0);
        expect![[r#"
            evidence of c-20261122t021500z-j8y2

              ✓ signed by key KEY and unchanged since
              ✓ chain: 3 of 3 present

            it says
              ? INCONCLUSIVE: a signal ended it
                subject   drill c, sha256 b76419d9ad059fdfdc06637cb4db8ac93be25deb5bdf3cd2a7bbedaffe99d014
                started   2026-11-22 02:15:00Z, concluded NOW
                evidence  3 of store 00000000000000000000000000000001
        "#]]
        .assert_eq(&with_fixed_time(&said));
        std::fs::remove_file(&paths[1]).unwrap();
        let (gap, said) = shown(&paths[2]);
        assert_eq!(gap, 2);
        assert!(said.contains("? chain: 2 of 3 present, missing 2"), "{said}");
        std::fs::copy(&paths[0], &paths[1]).unwrap();
        assert_eq!(shown(&paths[2]).0, 2, "a copy of another is not the one that is missing");
    }

    fn with_fixed_time(text: &str) -> String {
        let Some((before, after)) = text.split_once("concluded ") else { return text.to_owned() };
        format!("{before}concluded NOW{}", &after[after.find('\n').unwrap()..])
    }
}
