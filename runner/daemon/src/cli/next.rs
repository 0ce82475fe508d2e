//! `muster next`.
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;

use drill::file::Options;
use drill::id::DrillName;
use drill::schedule::Slots;
use drill::spec::{Drill, Enforcement};
use drill::stop::{OrStop, Stop};
use drill::verdict::{EXIT_NOTHING_BEGUN, Reason};
use jiff::Timestamp;
use jiff::tz::TimeZone;
use serde::Deserialize;

use super::daemon::Daemon;
use super::style::{self, Output, Style, clean};
use super::{drill_file, serve};
use crate::book::{self, Book};
use crate::client::Client;
use crate::fires::{self, Fire};

/// Say when drills are due next
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Examples:\n  muster next\n  muster next --drill orders-nightly --count 30\n  muster next schedules/\n\n\
                        A daemon that runs is asked. Without one, or of files that are named, it is computed as the daemon computes \
                        it.\n\nExit codes: 0 all files are good, 3 a file is not."
)]
pub(super) struct Args {
    /// Drill files, and directories of them; default: those of the daemon, or of its configuration
    #[arg(value_name = "PATH", conflicts_with = "config")]
    paths: Vec<PathBuf>,
    #[command(flatten)]
    daemon: Daemon,
    /// Only this drill
    #[arg(long, value_name = "NAME")]
    drill: Option<DrillName>,
    /// So many
    #[arg(long, value_name = "N", default_value_t = 10, value_parser = clap::value_parser!(u32).range(1..=i64::from(fires::MOST)))]
    count: u32,
    /// How they are printed: a table, or one JSON object a line
    #[arg(long, value_enum, default_value = "text")]
    output: Output,
}

pub(super) async fn run(args: Args) -> Result<ExitCode, Stop> {
    let daemon = if args.paths.is_empty() { args.daemon.find()? } else { None };
    let (fires, problems) = match daemon {
        Some(daemon) => from_daemon(&daemon, &args).await?,
        None => from_files(&args)?,
    };
    for problem in &problems {
        // Nobody listens: the exit code says it too.
        let _ = std::io::stderr().lock().write_all(problem.as_bytes());
    }
    let shown = match args.output {
        Output::Json => fires.iter().map(style::json_line).collect::<Result<String, Stop>>()?,
        Output::Text if fires.is_empty() && problems.is_empty() => "no drill has a schedule\n".to_owned(),
        Output::Text if fires.is_empty() => String::new(),
        Output::Text => table(&fires, Style::of_stdout()),
    };
    style::print(&shown)?;
    Ok(if problems.is_empty() { ExitCode::SUCCESS } else { ExitCode::from(EXIT_NOTHING_BEGUN) })
}

/// What `/api/v1/next` answers.
#[derive(Deserialize)]
struct Next {
    next: Vec<Fire>,
}

/// What `/api/v1/problems` answers.
#[derive(Deserialize)]
struct Problems {
    problems: Vec<BadFile>,
}

#[derive(Deserialize)]
struct BadFile {
    path: PathBuf,
    problem: String,
}

/// As the daemon has the drills, with the last good version of a file that is bad.
async fn from_daemon(daemon: &Client, args: &Args) -> Result<(Vec<Fire>, Vec<String>), Stop> {
    let drill = args.drill.as_ref().map(|drill| format!("&drill={drill}")).unwrap_or_default();
    let Next { next } = daemon.get(&format!("/api/v1/next?limit={}{drill}", args.count)).await?;
    let Problems { problems } = daemon.get("/api/v1/problems").await?;
    Ok((next, problems.iter().map(|file| problem(&file.path, &file.problem)).collect()))
}

fn from_files(args: &Args) -> Result<(Vec<Fire>, Vec<String>), Stop> {
    let now = Timestamp::now();
    let (drills, problems) = if args.paths.is_empty() {
        match serve::load(args.daemon.config.as_deref().unwrap_or(Path::new(serve::CONFIG)))? {
            Ok(config) => of_book(book::read(&config.drills, config.compact.as_ref(), &Book::default(), now)),
            Err(problems) => (Vec::new(), vec![problems]),
        }
    } else {
        of_paths(&args.paths, args.daemon.config.as_deref(), now)?
    };
    if let Some(name) = args.drill.as_ref().filter(|_| problems.is_empty())
        && !drills.iter().any(|drill| drill.name == *name)
    {
        return Err(Stop::internal(format!("there is no drill `{name}` in these files"))
            .advise("without --drill all of them are listed"));
    }
    Ok((fires(&drills, args.drill.as_ref(), args.count, now)?, problems))
}

/// Drills, and what is wrong with the other files, for people.
type Found = (Vec<Arc<Drill>>, Vec<String>);

fn of_book(book: Book) -> Found {
    let problems = book.problems.iter().map(|file| problem(&file.path, &file.problem)).collect();
    (book.drills.into_values().map(|entry| entry.drill).collect(), problems)
}

fn problem(path: &Path, text: &str) -> String {
    let lines: String = text.trim_end().lines().map(|line| clean(line) + "\n").collect();
    // Excerpts of a file come with a heading of their own.
    if text.starts_with("error: ") { lines } else { format!("error: {}: {lines}", clean(&path.display().to_string())) }
}

fn of_paths(paths: &[PathBuf], config: Option<&Path>, now: Timestamp) -> Result<Found, Stop> {
    let (mut drills, mut problems) = (Vec::new(), Vec::new());
    // A file reads it only where it needs it.
    let compact = if paths.iter().any(|path| path.is_dir()) {
        serve::in_force(config)?.and_then(|config| config.compact)
    } else {
        None
    };
    for path in paths {
        if path.is_dir() {
            let path = std::path::absolute(path).or_stop(Reason::Internal, "resolving a directory's path")?;
            let (more, bad) = of_book(book::read(&[path], compact.as_ref(), &Book::default(), now));
            drills.extend(more);
            problems.extend(bad);
            continue;
        }
        match drill_file::load(path, Options { enforcement: Enforcement::Required }, config) {
            Ok((drill, ..)) => drills.push(Arc::new(drill)),
            Err(error) => problems.push(error.render(Style::of_stderr().has_colour())),
        }
    }
    Ok((drills, problems))
}

/// The first `count` of all of them, in the order in which they start.
fn fires(drills: &[Arc<Drill>], only: Option<&DrillName>, count: u32, now: Timestamp) -> Result<Vec<Fire>, Stop> {
    let mut next = Vec::new();
    for drill in drills.iter().filter(|drill| only.is_none_or(|name| *name == drill.name)) {
        let Some(schedule) = &drill.schedule else { continue };
        let slots = Slots::of(schedule, &drill.name)
            .map_err(|why| Stop::internal(format!("the schedule of {} cannot be computed: {why}", drill.name)))?;
        next.extend(slots.upcoming(now).map(|slot| (drill.as_ref(), slot)));
    }
    fires::first(next, usize::try_from(count).unwrap_or(usize::MAX))
}

fn table(fires: &[Fire], style: Style) -> String {
    let head = ["drill", "starts", "scheduled for", ""].map(str::to_owned).to_vec();
    let rows = fires.iter().map(|fire| {
        let here = TimeZone::get(&fire.timezone).map(|zone| fire.scheduled_for.to_zoned(zone));
        let local = here.map(|here| format!("{} {}", here.strftime("%a %H:%M:%S"), fire.timezone));
        vec![
            fire.drill.as_str().to_owned(),
            style::time(fire.starts),
            style::time(fire.scheduled_for),
            local.unwrap_or_default(),
        ]
    });
    style.table(&std::iter::once(head).chain(rows).collect::<Vec<_>>())
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a test fails by panicking")]
    #![expect(clippy::needless_raw_string_hashes, reason = "expect-test writes them")]
    use expect_test::expect;

    use super::*;

    fn drill(name: &str, schedule: &str) -> Arc<Drill> {
        let text = format!(
            "apiVersion: muster.dev/v1\nkind: Drill\nmetadata: {{ name: {name} }}\nspec:\n  source: {{ manifest: m/manifest.json, \
             trustedKeys: [{{ file: k.pub }}] }}\n{schedule}"
        );
        Arc::new(drill::file::parse(&text, Options { enforcement: Enforcement::Required }).unwrap())
    }

    fn some() -> Vec<Arc<Drill>> {
        vec![
            drill("by-hand", ""),
            drill("orders", "  schedule: { cron: '30 2 * * *', timezone: Europe/Berlin, jitter: 10m }\n"),
            drill("stock", "  schedule: { cron: '@daily' }\n"),
        ]
    }

    fn now() -> Timestamp {
        "2026-10-24T00:35:00Z".parse().unwrap()
    }

    #[test]
    fn the_first_of_all_drills_come_in_their_order() {
        let fires = fires(&some(), None, 5, now()).unwrap();
        expect![[r#"
            drill    starts                 scheduled for
            stock    2026-10-25 00:00:00Z   2026-10-25 00:00:00Z   Sun 00:00:00 UTC
            orders   2026-10-25 00:38:48Z   2026-10-25 00:30:00Z   Sun 02:30:00 Europe/Berlin
            stock    2026-10-26 00:00:00Z   2026-10-26 00:00:00Z   Mon 00:00:00 UTC
            orders   2026-10-26 01:37:16Z   2026-10-26 01:30:00Z   Mon 02:30:00 Europe/Berlin
            stock    2026-10-27 00:00:00Z   2026-10-27 00:00:00Z   Tue 00:00:00 UTC
        "#]]
        .assert_eq(&table(&fires, Style::plain()));
    }

    #[test]
    fn the_json_has_one_fire_a_line() {
        let fires = fires(&some(), Some(&"stock".parse().unwrap()), 2, now()).unwrap();
        let lines: String = fires.iter().map(|fire| style::json_line(fire).unwrap()).collect();
        expect![[r#"
            {"drill":"stock","starts":"2026-10-25T00:00:00Z","scheduledFor":"2026-10-25T00:00:00Z","timezone":"UTC"}
            {"drill":"stock","starts":"2026-10-26T00:00:00Z","scheduledFor":"2026-10-26T00:00:00Z","timezone":"UTC"}
        "#]]
        .assert_eq(&lines);
    }

    #[test]
    fn many_drills_give_what_each_would() {
        // More than are kept as they are computed with.
        let many: Vec<_> = (0..120)
            .map(|n| drill(&format!("d{n}"), &format!("  schedule: {{ cron: '{} * * * *', jitter: 5m }}\n", n % 60)))
            .collect();
        let all = fires(&many, None, 250, now()).unwrap();
        let mut each: Vec<_> = many.iter().flat_map(|one| fires(&[Arc::clone(one)], None, 4, now()).unwrap()).collect();
        each.sort_by(|one, other| (one.starts, &one.drill).cmp(&(other.starts, &other.drill)));
        each.truncate(250);
        assert_eq!(all, each);
    }
}
