//! `/quarantine`: backups that runs refuse.
use ::drill::port::Quarantine;
use askama::Template;
use axum::extract::State;

use super::{Page, count, html, now};
use crate::cli::style::time;
use crate::http::Shared;

#[derive(Template)]
#[template(path = "page/quarantine.html")]
struct QuarantinePage {
    at: String,
    total: String,
    entries: Vec<Entry>,
}

struct Entry {
    location: String,
    why: String,
    since: String,
    run: String,
    digest: String,
    release: String,
}

pub(super) async fn page(State(shared): State<Shared>) -> Page {
    let entries = shared.app.store.quarantined().await?;
    let total = count(entries.len(), "backup");
    html(&QuarantinePage { at: now(), total, entries: entries.into_iter().map(Entry::of).collect() })
}

impl Entry {
    fn of(entry: Quarantine) -> Self {
        Self {
            since: time(entry.at),
            run: entry.run.to_string(),
            release: format!("muster quarantine release {}", &entry.digest.hex()[..12]),
            digest: entry.digest.to_string(),
            location: entry.location,
            why: entry.why,
        }
    }
}
