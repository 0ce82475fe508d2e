//! `muster next`.
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;

use drill::file::Options;
use drill::id::DrillName;
use drill::schedule::Calendar;
use drill::spec::{Drill, Enforcement};
use drill::stop::{OrStop, Stop};
use drill::verdict::{EXIT_NOTHING_BEGUN, Reason};
use jiff::Timestamp;
use jiff::tz::TimeZone;
use serde::Serialize;

use super::style::{self, Output, Style, clean};
use super::{drill_file, serve};
use crate::book::{self, Book};

/// Fires that one look computes for each drill.
const MOST: u32 = 10_000;

/// Say when drills are due next
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Examples:\n  muster next\n  muster next --drill orders-nightly --count 30\n  muster next schedules/\n\n\
                        It is computed as the daemon computes it, from the files as they are now.\n\n\
                        Exit codes: 0 all files are good, 3 a file is not."
)]
pub(super) struct Args {
    /// Drill files, and directories of them; default: the directories of the configuration
    #[arg(value_name = "PATH")]
    paths: Vec<PathBuf>,
    /// The configuration
    #[arg(long, value_name = "FILE", default_value = "/etc/muster/muster.yaml", conflicts_with = "paths")]
    config: PathBuf,
    /// Only this drill
    #[arg(long, value_name = "NAME")]
    drill: Option<DrillName>,
    /// So many
    #[arg(long, value_name = "N", default_value_t = 10, value_parser = clap::value_parser!(u32).range(1..=i64::from(MOST)))]
    count: u32,
    /// How they are printed: a table, or one JSON object a line
    #[arg(long, value_enum, default_value = "text")]
    output: Output,
}

/// One time at which a drill starts.
#[derive(Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
struct Fire {
    drill: DrillName,
    starts: Timestamp,
    scheduled_for: Timestamp,
    timezone: String,
}

pub(super) fn run(args: &Args) -> Result<ExitCode, Stop> {
    let now = Timestamp::now();
    let (drills, problems) = if args.paths.is_empty() {
        match serve::load(&args.config)? {
            Ok(config) => of_book(book::read(&config.drills, &Book::default(), now)),
            Err(problems) => (Vec::new(), vec![problems]),
        }
    } else {
        of_paths(&args.paths, now)?
    };
    for problem in &problems {
        // Nobody listens: the exit code says it too.
        let _ = std::io::stderr().lock().write_all(problem.as_bytes());
    }
    if let Some(name) = args.drill.as_ref().filter(|_| problems.is_empty())
        && !drills.iter().any(|drill| drill.name == *name)
    {
        return Err(Stop::internal(format!("there is no drill `{name}` in these files"))
            .advise("without --drill all of them are listed"));
    }
    let fires = fires(&drills, args.drill.as_ref(), args.count, now)?;
    let shown = match args.output {
        Output::Json => fires.iter().map(style::json_line).collect::<Result<String, Stop>>()?,
        Output::Text if fires.is_empty() && problems.is_empty() => "no drill has a schedule\n".to_owned(),
        Output::Text if fires.is_empty() => String::new(),
        Output::Text => table(&fires, Style::of_stdout()),
    };
    style::print(&shown)?;
    Ok(if problems.is_empty() { ExitCode::SUCCESS } else { ExitCode::from(EXIT_NOTHING_BEGUN) })
}

/// Drills, and what is wrong with the other files, for people.
type Found = (Vec<Arc<Drill>>, Vec<String>);

fn of_book(book: Book) -> Found {
    let problem = |path: &Path, text: &str| {
        // Excerpts of a file come with a heading of their own.
        let lines: String = text.trim_end().lines().map(|line| clean(line) + "\n").collect();
        if text.starts_with("error: ") {
            lines
        } else {
            format!("error: {}: {lines}", clean(&path.display().to_string()))
        }
    };
    let problems = book.problems.iter().map(|file| problem(&file.path, &file.problem)).collect();
    (book.drills.into_values().map(|entry| entry.drill).collect(), problems)
}

fn of_paths(paths: &[PathBuf], now: Timestamp) -> Result<Found, Stop> {
    let (mut drills, mut problems) = (Vec::new(), Vec::new());
    for path in paths {
        if path.is_dir() {
            let path = std::path::absolute(path).or_stop(Reason::Internal, "resolving a directory's path")?;
            let (more, bad) = of_book(book::read(&[path], &Book::default(), now));
            drills.extend(more);
            problems.extend(bad);
            continue;
        }
        match drill_file::load(path, Options { enforcement: Enforcement::Required }) {
            Ok((drill, ..)) => drills.push(Arc::new(drill)),
            Err(error) => problems.push(error.render(Style::of_stderr().has_colour())),
        }
    }
    Ok((drills, problems))
}

/// The first `count` of all of them, in the order in which they start.
fn fires(drills: &[Arc<Drill>], only: Option<&DrillName>, count: u32, now: Timestamp) -> Result<Vec<Fire>, Stop> {
    let count = usize::try_from(count).unwrap_or(usize::MAX);
    let mut fires = Vec::new();
    for drill in drills.iter().filter(|drill| only.is_none_or(|name| *name == drill.name)) {
        let Some(schedule) = &drill.schedule else { continue };
        let calendar = Calendar::new(schedule, &drill.name)
            .map_err(|why| Stop::internal(format!("the schedule of {} cannot be computed: {why}", drill.name)))?;
        let slots = std::iter::successors(calendar.upcoming(now), |slot| calendar.next(slot.scheduled_for));
        fires.extend(slots.take(count).map(|slot| Fire {
            drill: drill.name.clone(),
            starts: slot.starts,
            scheduled_for: slot.scheduled_for,
            timezone: schedule.timezone.clone(),
        }));
        // What is beyond the first `count` of some is beyond those of all.
        if fires.len() > count.saturating_mul(8) {
            keep_first(&mut fires, count);
        }
    }
    keep_first(&mut fires, count);
    Ok(fires)
}

fn keep_first(fires: &mut Vec<Fire>, count: usize) {
    fires.sort_by(|one, other| (one.starts, &one.drill).cmp(&(other.starts, &other.drill)));
    fires.truncate(count);
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
        let many: Vec<_> = (0..100)
            .map(|n| drill(&format!("d{n}"), &format!("  schedule: {{ cron: '{} * * * *', jitter: 5m }}\n", n % 60)))
            .collect();
        let all = fires(&many, None, 30, now()).unwrap();
        let mut each: Vec<_> =
            many.iter().flat_map(|one| fires(&[Arc::clone(one)], None, 30, now()).unwrap()).collect();
        keep_first(&mut each, 30);
        assert_eq!(all, each);
    }
}
