//! `muster runs`.
use std::process::ExitCode;
use std::time::Duration;

use drill::id::DrillName;
use drill::port::RunSummary;
use drill::stop::Stop;
use drill::unit;
use drill::verdict::Leftovers;
use drivers::store;
use serde::Deserialize;

use super::daemon::Daemon;
use super::style::{self, Output, Style, clean};
use crate::client::Client;
use crate::state_dir;

/// List runs, newest first
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Example:\n  muster runs --limit 10\n  muster runs --output json\n\nWhat happened in one of them: \
                        `muster report RUN`."
)]
pub(super) struct Args {
    /// Only runs of this drill
    #[arg(long, value_name = "NAME")]
    drill: Option<DrillName>,
    /// At most so many
    #[arg(long, value_name = "N", default_value_t = 20)]
    limit: u32,
    /// How the runs are printed: a table, or one JSON object a line
    #[arg(long, value_enum, default_value = "text")]
    output: Output,
    #[command(flatten)]
    daemon: Daemon,
}

pub(super) async fn run(args: Args) -> Result<ExitCode, Stop> {
    let directory = state_dir::find()?;
    let runs = match args.daemon.find()? {
        Some(daemon) => from_daemon(&daemon, args.drill.as_ref(), args.limit).await?,
        None => match store::look(&directory)? {
            Some(store) => store.runs(args.drill.as_ref(), args.limit).await?,
            None => Vec::new(),
        },
    };
    let shown = match args.output {
        Output::Json => json(&runs)?,
        Output::Text if runs.is_empty() => {
            let of = args.drill.map(|drill| format!(" of {drill}")).unwrap_or_default();
            format!("no run{of} yet in {}\n", directory.display())
        }
        Output::Text => table(&runs, Style::of_stdout()),
    };
    style::print(&shown)?;
    Ok(ExitCode::SUCCESS)
}

#[derive(Deserialize)]
struct Page {
    runs: Vec<RunSummary>,
    next: Option<String>,
}

/// Page by page.
async fn from_daemon(daemon: &Client, drill: Option<&DrillName>, limit: u32) -> Result<Vec<RunSummary>, Stop> {
    let limit = limit as usize;
    let drill = drill.map(|drill| format!("&drill={drill}")).unwrap_or_default();
    let (mut runs, mut before) = (Vec::new(), String::new());
    while runs.len() < limit {
        let size = (limit - runs.len()).min(200);
        let page: Page = daemon.get(&format!("/api/v1/runs?limit={size}{drill}{before}")).await?;
        runs.extend(page.runs);
        match page.next {
            Some(next) => before = format!("&before={next}"),
            None => break,
        }
    }
    Ok(runs)
}

fn json(runs: &[RunSummary]) -> Result<String, Stop> {
    runs.iter().map(style::json_line).collect()
}

fn table(runs: &[RunSummary], style: Style) -> String {
    let head = ["run", "started", "verdict", "recovery time", ""].map(str::to_owned).to_vec();
    let rows = runs.iter().map(|run| {
        let verdict = match (run.verdict, run.ended) {
            (Some(verdict), _) => verdict.to_string(),
            (None, None) => "not ended".to_owned(),
            (None, Some(_)) => "none".to_owned(),
        };
        let recovery = run.recovery_time_milliseconds.map(|time| unit::duration(Duration::from_millis(time)));
        let mut notes = Vec::new();
        if let Some(reason) = run.reason.filter(|reason| *reason != drill::verdict::Reason::Proven) {
            notes.push(style::json_line(&reason).unwrap_or_default().trim().trim_matches('"').to_owned());
        }
        if run.ended.is_some() && run.leftovers == Leftovers::Some {
            notes.push("something is left over: `muster reap`".to_owned());
        }
        let run_id = clean(run.run.as_str());
        vec![run_id, style::time(run.started), verdict, recovery.unwrap_or_else(|| "-".to_owned()), notes.join(", ")]
    });
    style.table(&std::iter::once(head).chain(rows).collect::<Vec<_>>())
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a test fails by panicking")]
    #![expect(clippy::needless_raw_string_hashes, reason = "expect-test writes them")]
    use drill::port::Store as _;
    use drivers::store::fake::MemoryStore;
    use expect_test::expect;

    use super::*;
    use crate::sample;

    async fn runs() -> Vec<RunSummary> {
        let store = MemoryStore::new();
        for (drill, events) in [("orders", sample::failed()), ("stock", sample::passed()), ("users", Vec::new())] {
            let started = sample::started(drill, std::path::Path::new("/var/lib/muster/evidence"));
            store.claim(&started).await.unwrap();
            for event in events {
                store.append(&started.run, &event).await.unwrap();
            }
        }
        let mut runs = store.runs(None, 10).await.unwrap();
        for run in &mut runs {
            run.ended = run.ended.map(|_| run.started);
        }
        runs
    }

    #[tokio::test]
    async fn the_table_says_what_needs_a_look() {
        expect![[r#"
            run                            started                verdict     recovery time
            users-20261122t021500z-j8y2    2026-11-22 02:15:00Z   not ended   -
            stock-20261122t021500z-j8y2    2026-11-22 02:15:00Z   passed      21.4 s
            orders-20261122t021500z-j8y2   2026-11-22 02:15:00Z   failed      21.4 s          check-failed, something is left over: `muster reap`
        "#]].assert_eq(&table(&runs().await, Style::plain()));
    }

    #[tokio::test]
    async fn on_a_narrow_terminal_each_run_has_lines_of_its_own() {
        expect![[r#"
            users-20261122t021500z-j8y2
              started        2026-11-22 02:15:00Z
              verdict        not ended
              recovery time  -
            stock-20261122t021500z-j8y2
              started        2026-11-22 02:15:00Z
              verdict        passed
              recovery time  21.4 s
            orders-20261122t021500z-j8y2
              started        2026-11-22 02:15:00Z
              verdict        failed
              recovery time  21.4 s
                             check-failed, something
                             is left over: `muster
                             reap`
        "#]]
        .assert_eq(&table(&runs().await, Style::of_columns(40)));
    }

    #[tokio::test]
    async fn the_json_has_one_run_a_line() {
        expect![[r#"
            {"run":"users-20261122t021500z-j8y2","drill":"users","started":"2026-11-22T02:15:00Z","ended":null,"verdict":null,"reason":null,"leftovers":"none","recoveryTimeMilliseconds":null,"evidence":null,"trigger":{"kind":"command"}}
            {"run":"stock-20261122t021500z-j8y2","drill":"stock","started":"2026-11-22T02:15:00Z","ended":"2026-11-22T02:15:00Z","verdict":"passed","reason":"proven","leftovers":"none","recoveryTimeMilliseconds":21400,"evidence":"/var/lib/muster/evidence/orders-20261122t021500z-j8y2.dsse.json","trigger":{"kind":"command"}}
            {"run":"orders-20261122t021500z-j8y2","drill":"orders","started":"2026-11-22T02:15:00Z","ended":"2026-11-22T02:15:00Z","verdict":"failed","reason":"check-failed","leftovers":"some","recoveryTimeMilliseconds":21400,"evidence":"/var/lib/muster/evidence/orders-20261122t021500z-j8y2.dsse.json","trigger":{"kind":"command"}}
        "#]].assert_eq(&json(&runs().await).unwrap());
    }
}
