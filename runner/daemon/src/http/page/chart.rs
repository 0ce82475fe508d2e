//! Recovery times as a line: geometry only, in attributes; colours are the style sheet's, and every chart says in words what it
//! shows.
use std::fmt::Write as _;
use std::time::Duration;

use drill::port::RunSummary;
use drill::unit;
use drill::verdict::Verdict;

/// What a template draws.
pub(super) struct Chart {
    pub(super) width: u32,
    pub(super) height: u32,
    /// `x,y` of each recovery time, oldest first.
    pub(super) line: String,
    pub(super) points: Vec<Point>,
    /// The height of the objective; None without one, or where it is far above all that was seen.
    pub(super) objective: Option<String>,
    pub(super) words: String,
    /// The time at the upper edge.
    pub(super) top: String,
}

pub(super) struct Point {
    pub(super) x: String,
    pub(super) y: String,
    pub(super) class: &'static str,
    pub(super) title: String,
}

impl Chart {
    pub(super) fn radius(&self) -> f64 {
        if self.height > 100 { 5.0 } else { 3.5 }
    }
}

impl Point {
    /// A square for what failed, a diamond for what could not tell: colour is never alone.
    pub(super) fn shape(&self, radius: f64) -> String {
        let (x, y, r) = (&self.x, &self.y, radius);
        let d = 2.0 * r;
        if self.class == "bad" {
            format!("M{x},{y}m-{r},-{r}h{d}v{d}h-{d}z")
        } else {
            format!("M{x},{y}m0,-{e}l{e},{e}l-{e},{e}l-{e},-{e}z", e = r * 1.3)
        }
    }
}

/// Of runs as the store lists them, newest first. None where no run has a recovery time.
pub(super) fn chart(runs: &[RunSummary], objective: Option<Duration>, width: u32, height: u32) -> Option<Chart> {
    let timed: Vec<(&RunSummary, u64)> =
        runs.iter().rev().filter_map(|run| Some((run, run.recovery_time_milliseconds?))).collect();
    let (first, last) = (timed.first()?.0, timed.last()?.0);
    let longest = timed.iter().map(|(_, time)| *time).max()?.max(1);
    let shortest = timed.iter().map(|(_, time)| *time).min()?;
    let objective = objective.map(|objective| u64::try_from(objective.as_millis()).unwrap_or(u64::MAX));
    // An objective far above would press the line to the ground.
    let near = objective.filter(|objective| *objective <= longest.saturating_mul(3));
    let top = longest.max(near.unwrap_or(0)).saturating_mul(10) / 9;
    let (margin, all) = (6.0, last.started.duration_since(first.started).as_secs_f64());
    let x = |run: &RunSummary| {
        let after = run.started.duration_since(first.started).as_secs_f64();
        let share = if all > 0.0 { after / all } else { 0.5 };
        format!("{:.1}", margin + share * (f64::from(width) - 2.0 * margin))
    };
    let y = |time: u64| {
        format!("{:.1}", f64::from(height) - margin - ratio(time, top) * (f64::from(height) - 2.0 * margin))
    };
    let mut line = String::new();
    let mut points = Vec::new();
    for (run, time) in &timed {
        let (x, y) = (x(run), y(*time));
        let _ = write!(line, "{x},{y} ");
        let verdict = run.verdict.map_or("no verdict", Verdict::as_str);
        let class = match run.verdict {
            Some(Verdict::Passed) => "good",
            Some(Verdict::Failed) => "bad",
            Some(Verdict::Inconclusive) | None => "unsure",
        };
        let title = format!("{}: {}, {verdict}", run.started.strftime("%Y-%m-%d %H:%M"), shown(*time));
        points.push(Point { x, y, class, title });
    }
    let range = if shortest == longest { shown(longest) } else { format!("{} to {}", shown(shortest), shown(longest)) };
    let number = u64::try_from(timed.len()).unwrap_or(u64::MAX);
    let against =
        objective.map_or_else(|| "no objective".to_owned(), |objective| format!("objective {}", shown(objective)));
    let newest = timed.last().map(|(_, time)| shown(*time)).unwrap_or_default();
    Some(Chart {
        width,
        height,
        line,
        points,
        objective: near.map(y),
        words: format!("recovery time of {}: {range}, newest {newest}, {against}", unit::plural(number, "run")),
        top: shown(top),
    })
}

pub(super) fn shown(milliseconds: u64) -> String {
    unit::duration(Duration::from_millis(milliseconds))
}

#[expect(clippy::cast_precision_loss, reason = "a place on a chart")]
fn ratio(part: u64, whole: u64) -> f64 {
    part as f64 / whole.max(1) as f64
}
