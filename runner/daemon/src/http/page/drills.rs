//! `/`: every drill, worst first.
use std::sync::Arc;

use ::drill::id::DrillName;
use ::drill::port::Alert;
use ::drill::verdict::{Leftovers, Verdict};
use askama::Template;
use axum::extract::rejection::QueryRejection;
use axum::extract::{Query, State};
use jiff::Timestamp;
use serde::Deserialize;

use super::chart::{Chart, chart, shown};
use super::worry::{Worry, reason};
use super::{Page, When, count, html, now};
use crate::cli::style::Mark;
use crate::dispatcher::{DrillView, FileView};
use crate::http::Shared;

const PAGE: usize = 200;
/// Runs in the small line of each drill.
const LINE: u32 = 20;
/// Alerts and bad files that are shown; of more only the number.
const SHOWN: usize = 20;

#[derive(Deserialize)]
pub(super) struct Asked {
    page: Option<usize>,
    /// Only drills in this state.
    state: Option<String>,
    /// Only drills whose name has this in it.
    find: Option<String>,
}

#[derive(Template)]
#[template(path = "page/drills.html")]
struct DrillsPage<'a> {
    at: String,
    stopping: bool,
    stalled: bool,
    files: &'a [FileView],
    more_files: usize,
    alerts: &'a [Alert],
    more_alerts: usize,
    total: String,
    states: Vec<StateLink>,
    filtered: bool,
    find: &'a str,
    rows: Vec<Row>,
    pages: Option<Pages>,
}

struct StateLink {
    mark: Mark,
    sign: &'static str,
    words: &'static str,
    name: &'static str,
    number: usize,
    current: bool,
}

struct Pages {
    page: usize,
    of: usize,
    before: Option<String>,
    after: Option<String>,
}

/// One drill.
pub(super) struct Row {
    pub(super) mark: Mark,
    pub(super) sign: &'static str,
    pub(super) name: String,
    pub(super) state: &'static str,
    pub(super) why: Option<&'static str>,
    pub(super) last: Option<(String, When)>,
    pub(super) proven: Option<When>,
    pub(super) recovery: Option<String>,
    pub(super) chart: Option<Chart>,
    pub(super) next: Option<When>,
    pub(super) waiting: bool,
    pub(super) running: Option<(Option<String>, When, bool)>,
    pub(super) leftovers: bool,
}

pub(super) async fn page(State(shared): State<Shared>, query: Result<Query<Asked>, QueryRejection>) -> Page {
    let Query(asked) = query?;
    let view = shared.app.dispatcher.view();
    let now_at = Timestamp::now();
    shared.worries.keep(|name| view.drills.contains_key(name), view.drills.len());
    let mut drills: Vec<(Worry, &DrillName, &Arc<DrillView>)> =
        view.drills.iter().map(|(name, drill)| (shared.worries.of(name, drill, now_at), name, drill)).collect();
    let wanted = asked.state.as_deref().and_then(|state| Worry::ALL.into_iter().find(|worry| worry.as_str() == state));
    let states = Worry::ALL.into_iter().map(|worry| StateLink {
        mark: worry.mark(),
        sign: worry.sign(),
        words: worry.words(),
        name: worry.as_str(),
        number: drills.iter().filter(|(of, ..)| *of == worry).count(),
        current: wanted == Some(worry),
    });
    let states = states.filter(|state| state.number > 0 || state.current).collect();
    let find = asked.find.unwrap_or_default().trim().to_ascii_lowercase();
    drills.retain(|(worry, name, _)| wanted.is_none_or(|wanted| wanted == *worry) && name.as_str().contains(&find));
    drills.sort_by_key(|(worry, name, _)| (*worry, *name));
    let pages = pages(drills.len(), asked.page, wanted, &find);
    let skip = pages.as_ref().map_or(0, |pages| (pages.page - 1) * PAGE);
    let shown: Vec<_> = drills.into_iter().skip(skip).take(PAGE).collect();
    let ran: Vec<DrillName> =
        shown.iter().filter(|(.., drill)| drill.last.is_some()).map(|(_, name, _)| (*name).clone()).collect();
    let runs = shared.app.store.newest_of_each(&ran, LINE).await?;
    let rows = shown.into_iter().map(|(worry, name, drill)| {
        let runs = runs.get(name).map_or(&[][..], Vec::as_slice);
        let chart = chart(runs, drill.drill.objectives.recovery_time, 120, 32);
        Row::of(worry, name, drill, chart, now_at)
    });
    let rows = rows.collect();
    let alerts = shared.app.store.open_alerts().await?;
    html(&DrillsPage {
        at: now(),
        stopping: view.stopping,
        stalled: view.stalled,
        files: &view.files[..view.files.len().min(SHOWN)],
        more_files: view.files.len().saturating_sub(SHOWN),
        alerts: &alerts[..alerts.len().min(SHOWN)],
        more_alerts: alerts.len().saturating_sub(SHOWN),
        total: count(view.drills.len(), "drill"),
        states,
        filtered: wanted.is_some() || !find.is_empty(),
        find: &find,
        rows,
        pages,
    })
}

/// None where one page holds all.
fn pages(number: usize, page: Option<usize>, state: Option<Worry>, find: &str) -> Option<Pages> {
    let of = number.div_ceil(PAGE);
    if of < 2 {
        return None;
    }
    let page = page.unwrap_or(1).clamp(1, of);
    let link = |page: usize| {
        let state = state.map(|state| format!("&state={}", state.as_str())).unwrap_or_default();
        let plain = find.chars().all(|c| c.is_ascii_alphanumeric() || c == '-');
        let find = if find.is_empty() || !plain { String::new() } else { format!("&find={find}") };
        format!("/?page={page}{state}{find}")
    };
    Some(Pages { page, of, before: (page > 1).then(|| link(page - 1)), after: (page < of).then(|| link(page + 1)) })
}

impl Row {
    pub(super) fn of(worry: Worry, name: &DrillName, view: &DrillView, chart: Option<Chart>, now: Timestamp) -> Self {
        let last = view.last.as_ref();
        let objective = view.drill.objectives.recovery_time;
        let recovery = last.and_then(|last| last.recovery_time_milliseconds).map(|actual| match objective {
            Some(objective) => format!("{} of {}", shown(actual), ::drill::unit::duration(objective)),
            None => shown(actual),
        });
        Self {
            mark: worry.mark(),
            sign: worry.sign(),
            name: name.to_string(),
            state: worry.words(),
            why: match worry {
                Worry::Stale => Some("no success since two of its slots"),
                Worry::Failed | Worry::Inconclusive => last.and_then(|last| last.reason).map(reason),
                Worry::Running | Worry::NeverRan | Worry::Passed => None,
            },
            last: last.map(|last| {
                let verdict = last.verdict.map_or("no verdict", Verdict::as_str);
                (verdict.to_owned(), When::ago(last.ended.unwrap_or(last.started), now))
            }),
            proven: view.last_success.as_ref().map(|run| When::ago(run.ended.unwrap_or(run.started), now)),
            recovery,
            chart,
            next: view.next.map(|slot| When::ahead(slot.starts, now)),
            waiting: view.waiting.is_some(),
            running: view.running.as_ref().map(|running| {
                let run = running.run.as_ref().map(ToString::to_string);
                (run, When::ago(running.since, now), running.cancelled)
            }),
            leftovers: last.is_some_and(|last| last.ended.is_some() && last.leftovers == Leftovers::Some),
        }
    }
}
