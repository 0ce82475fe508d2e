//! One answer to a scrape: the view and what is kept of each drill, family by family.
use std::collections::BTreeMap;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use drill::ledger::Resource;
use drill::phase::Phase;
use drill::port::RunSummary;
use drill::schedule::Slots;
use drill::spec::Drill;
use drill::verdict::{Leftovers, Reason};
use jiff::Timestamp;

use super::of_drill::{OfDrill, Seen, SelfTest, Usage};
use super::text::{Kind, Text};
use super::{Metrics, lock};
use crate::dispatcher::{DrillView, Skip, View};

/// The shortest time that a success may take to come after its run was due.
const PATIENCE: Duration = Duration::from_hours(1);
/// Kinds of alerts that have series of their own.
const KINDS: usize = 100;

/// A drill of the view, and what is kept of it.
struct Row<'a> {
    name: &'a str,
    view: &'a DrillView,
    kept: Arc<Mutex<OfDrill>>,
}

impl Metrics {
    /// What a scrape is answered with. Takes milliseconds for thousands of drills: not for a thread that others wait for.
    pub fn render(&self) -> String {
        let begun = Instant::now();
        let capacity = self.size.load(Ordering::Relaxed) + 4_096;
        let mut text = Text::with_capacity(capacity);
        self.of_daemon(&mut text);
        if let Some(view) = self.view() {
            self.of_view(&mut text, &view);
        }
        let mut out = text.into_string();
        match self.fixed.encode() {
            Ok(fixed) => out.push_str(&fixed),
            Err(stop) => tracing::error!(%stop, "a scrape was answered in part"),
        }
        self.size.store(out.len(), Ordering::Relaxed);
        self.fixed.last_render.set(begun.elapsed().as_secs_f64());
        out
    }

    fn of_daemon(&self, text: &mut Text) {
        let (sandboxes, leases, expires) = {
            let going = lock(&self.going);
            let expires = going.values().filter_map(|run| run.lease_expires).min();
            let (sandboxes, leases) =
                (going.values().filter(|run| run.sandbox), going.values().filter(|run| run.lease));
            (sandboxes.count(), leases.count(), expires)
        };
        let help = "Sandboxes of runs that go on.";
        text.one("muster_sandboxes_active", Kind::Gauge, help, number(sandboxes));
        let help = "Leases of runs that go on: logins that work.";
        text.one("muster_leases_active", Kind::Gauge, help, number(leases));
        if let Some(expires) = expires {
            let help = "When the lease that ends first ends, unless it is renewed: at two thirds of its life it is.";
            #[expect(clippy::cast_precision_loss, reason = "seconds until the year 9999")]
            text.one("muster_lease_expiry_timestamp_seconds", Kind::Gauge, help, expires.as_second() as f64);
        }
        let ledger = lock(&self.ledger);
        let unrevoked = ledger.owed.values().filter(|owed| owed.resources.contains(&Resource::Lease)).count();
        let help = "Leases of which nobody saw that their login is refused. Another process may have left them.";
        text.one("muster_leases_not_revoked", Kind::Gauge, help, number(unrevoked));
        if let Some(quarantined) = ledger.quarantined {
            let help = "Artifacts that were refused and that nobody released.";
            text.one("muster_artifacts_quarantined", Kind::Gauge, help, number(quarantined));
        }
        if let Some(head) = &ledger.head {
            let help = "How many links the chain of evidence has. It never falls, unless somebody cut it.";
            #[expect(clippy::cast_precision_loss, reason = "no chain has 2^52 links")]
            text.one("muster_evidence_chain_sequence", Kind::Gauge, help, head.sequence as f64);
            if let Some(digest) = &head.digest {
                let help = "Always 1; the SHA-256 of the newest evidence.";
                text.family("muster_evidence_chain_head_info", Kind::Gauge, help);
                text.sample(&[("digest", &digest.to_string())], 1.0);
            }
        }
        if let Some(alerts) = &ledger.alerts {
            text.family("muster_alerts_open", Kind::Gauge, "Alerts that are open, by what they are about.");
            for (kind, count) in alerts.iter().take(KINDS) {
                #[expect(clippy::cast_precision_loss, reason = "nobody has 2^52 alerts")]
                text.sample(&[("kind", kind)], *count as f64);
            }
        }
    }

    fn of_view(&self, text: &mut Text, view: &View) {
        let rows = self.rows(view);
        let running = rows.iter().filter(|row| row.view.running.is_some()).count();
        text.one("muster_drills", Kind::Gauge, "Drills that are known.", number(rows.len()));
        text.one("muster_runs_active", Kind::Gauge, "Runs that go on.", number(running));
        text.one("muster_run_slots", Kind::Gauge, "Runs that may go on at one time.", f64::from(view.slots));
        let help = "Drill files that are bad or gone; the last good version of each is in use, if there was one.";
        text.one("muster_drill_files_bad", Kind::Gauge, help, number(view.files.len()));
        let help = "When the scheduler's clock ticked last; 0 before it did.";
        text.one("muster_clock_tick_timestamp_seconds", Kind::Gauge, help, time(view.ticked));
        let help = "1 while the scheduler's clock is silent and muster helps itself.";
        text.one("muster_schedule_stalled", Kind::Gauge, help, f64::from(u8::from(view.stalled)));
        let help = "1 while muster is stopping: no new runs begin.";
        text.one("muster_stopping", Kind::Gauge, help, f64::from(u8::from(view.stopping)));
        schedules(text, &rows, view.at);
        counts(text, &rows);
        results(text, &rows);
        self_tests(text, &rows);
        self.leftovers(text, &rows);
    }

    /// Forgets drills that are gone, so that a drill that comes and goes does not stay.
    fn rows<'a>(&self, view: &'a View) -> Vec<Row<'a>> {
        let mut drills = lock(&self.drills);
        drills.retain(|name, _| view.drills.contains_key(name));
        let rows = view.drills.iter().map(|(name, view)| {
            let kept = match drills.get(name) {
                Some(known) => Arc::clone(known),
                None => Arc::clone(drills.entry(name.clone()).or_default()),
            };
            Row { name: name.as_str(), view: view.as_ref(), kept }
        });
        rows.collect()
    }

    /// Also of drills that are gone: what they owe is still here.
    fn leftovers(&self, text: &mut Text, rows: &[Row<'_>]) {
        let mut owed: BTreeMap<&str, usize> = BTreeMap::new();
        for row in rows {
            let of_last = row.view.last.as_ref().is_some_and(|last| last.leftovers == Leftovers::Some);
            // Until the store was asked, what the last run says of itself is all that is known.
            owed.insert(row.name, usize::from(of_last && !self.asked.load(Ordering::Relaxed)));
        }
        let ledger = lock(&self.ledger);
        for (drill, count) in ledger.owed.values().map(|owed| (&owed.drill, owed.resources.len())) {
            *owed.entry(drill.as_str()).or_default() += count;
        }
        let help = "Directories, sandboxes, processes and logins that ended runs left and muster still owes.";
        text.family("muster_leftovers", Kind::Gauge, help);
        for (drill, count) in owed {
            text.sample(&[("drill", drill)], number(count));
        }
    }
}

/// One series for each drill that has the value.
fn each(text: &mut Text, rows: &[Row<'_>], name: &'static str, help: &str, value: impl Fn(&Row<'_>) -> Option<f64>) {
    text.family(name, Kind::Gauge, help);
    for row in rows {
        if let Some(value) = value(row) {
            text.sample(&[("drill", row.name)], value);
        }
    }
}

fn schedules(text: &mut Text, rows: &[Row<'_>], now: Timestamp) {
    let help = "Since when muster knows the drill.";
    each(text, rows, "muster_drill_known_since_timestamp_seconds", help, |row| Some(seconds(row.view.known_since)));
    let help = "When the last run began; 0 if there was none.";
    each(text, rows, "muster_last_run_timestamp_seconds", help, |row| Some(began(row.view.last.as_deref())));
    let help = "When the last run that passed began; 0 if there was none.";
    each(text, rows, "muster_last_success_timestamp_seconds", help, |row| {
        Some(began(row.view.last_success.as_deref()))
    });
    let help = "When the next run begins; none without a schedule.";
    each(text, rows, "muster_next_run_timestamp_seconds", help, |row| {
        row.view.waiting.or(row.view.next).map(|slot| seconds(slot.starts))
    });
    let help = "When the next success is overdue: the first slot after the last success, and its objectives or the slot after.";
    each(text, rows, "muster_success_due_timestamp_seconds", help, |row| due(row, now).map(seconds));
    let help = "1 while the drill runs.";
    each(text, rows, "muster_drill_running", help, |row| Some(f64::from(u8::from(row.view.running.is_some()))));
}

fn counts(text: &mut Text, rows: &[Row<'_>]) {
    text.family("muster_runs_total", Kind::Counter, "Runs that ended since muster began, without self-tests.");
    for row in rows {
        let kept = lock(&row.kept);
        if !kept.runs.iter().any(|(reason, _)| *reason == Reason::Proven) {
            sample_of_runs(text, row.name, Reason::Proven, 0);
        }
        for (reason, count) in &kept.runs {
            sample_of_runs(text, row.name, *reason, *count);
        }
    }
    let help = "Slots of schedules that were not run since muster began.";
    text.family("muster_slots_skipped_total", Kind::Counter, help);
    for row in rows {
        let skipped = lock(&row.kept).skipped;
        for (why, count) in Skip::ALL.iter().zip(skipped) {
            text.sample(&[("drill", row.name), ("why", why.as_str())], counted(count));
        }
    }
    let help = "Runs that were due or asked for and could not begin, since muster began.";
    text.family("muster_runs_not_begun_total", Kind::Counter, help);
    for row in rows {
        text.sample(&[("drill", row.name)], counted(lock(&row.kept).not_begun));
    }
}

fn sample_of_runs(text: &mut Text, drill: &str, reason: Reason, count: u64) {
    let labels = [("drill", drill), ("verdict", reason.verdict().as_str()), ("reason", reason.as_str())];
    text.sample(&labels, counted(count));
}

fn results(text: &mut Text, rows: &[Row<'_>]) {
    text.family("muster_last_run_info", Kind::Gauge, "Always 1; how the last run ended.");
    for row in rows {
        let known = lock(&row.kept).last_reason.or(row.view.last.as_ref().and_then(|last| last.reason));
        if let Some(reason) = known {
            let labels = [("drill", row.name), ("verdict", reason.verdict().as_str()), ("reason", reason.as_str())];
            text.sample(&labels, 1.0);
        }
    }
    let help = "Recovery time of the last run: from its start until the restored database served.";
    each(text, rows, "muster_recovery_time_seconds", help, |row| match &lock(&row.kept).last {
        Some(last) => last.recovery_time.map(|time| time.as_secs_f64()),
        None => {
            row.view.last.as_ref()?.recovery_time_milliseconds.map(|time| Duration::from_millis(time).as_secs_f64())
        }
    });
    let help = "Recovery time that the drill tolerates.";
    each(text, rows, "muster_recovery_time_objective_seconds", help, |row| {
        row.view.drill.objectives.recovery_time.map(|time| time.as_secs_f64())
    });
    let help = "Recovery point of the last run: how old the backup was when the run began.";
    each(text, rows, "muster_recovery_point_seconds", help, |row| of_last(row, |last| last.recovery_point));
    let help = "Recovery point that the drill tolerates.";
    each(text, rows, "muster_recovery_point_objective_seconds", help, |row| {
        row.view.drill.objectives.recovery_point.map(|time| time.as_secs_f64())
    });
    let help = "What the boundaries cost the last run: probe, lease, relay.";
    each(text, rows, "muster_boundary_overhead_seconds", help, |row| of_last(row, |last| last.boundary_overhead));
    text.family("muster_phase_last_duration_seconds", Kind::Gauge, "How long a phase of the last run took.");
    for row in rows {
        for (phase, duration) in lock(&row.kept).last.iter().flat_map(|last| Phase::ALL.iter().zip(last.phases)) {
            if let Some(duration) = duration {
                text.sample(&[("drill", row.name), ("phase", phase.as_str())], duration.as_secs_f64());
            }
        }
    }
    text.family("muster_findings", Kind::Gauge, "Findings of the last run.");
    for row in rows {
        for (severity, count) in
            lock(&row.kept).last.iter().flat_map(|last| ["info", "warning", "failure"].into_iter().zip(last.findings))
        {
            text.sample(&[("drill", row.name), ("severity", severity)], f64::from(count));
        }
    }
    let help = "How long a check of the last run took, over all databases.";
    of_checks(text, rows, "muster_check_duration_seconds", help, |usage| usage.wall_time.as_secs_f64());
    let help = "CPU time that a check's plugin used in the last run, without waiting for the database.";
    of_checks(text, rows, "muster_plugin_cpu_seconds", help, |usage| usage.cpu_time.as_secs_f64());
    let help = "The most memory that a check's plugin had in the last run.";
    #[expect(clippy::cast_precision_loss, reason = "no plugin has 2^52 bytes")]
    of_checks(text, rows, "muster_plugin_memory_bytes", help, |usage| usage.memory as f64);
    reported(text, rows);
}

/// After what muster measures of checks, what they report themselves.
fn reported(text: &mut Text, rows: &[Row<'_>]) {
    let help = "What checks of the last run reported, by the name that their plugins give it.";
    text.family("muster_check_metric", Kind::Gauge, help);
    for row in rows {
        for (series, value) in lock(&row.kept).last.iter().flat_map(|last| &last.reported) {
            text.sample(&series.labels(row.name), *value);
        }
    }
}

fn of_last(row: &Row<'_>, value: impl Fn(&Seen) -> Option<Duration>) -> Option<f64> {
    lock(&row.kept).last.as_deref().and_then(value).map(|value| value.as_secs_f64())
}

fn of_checks(text: &mut Text, rows: &[Row<'_>], name: &'static str, help: &str, value: impl Fn(&Usage) -> f64) {
    text.family(name, Kind::Gauge, help);
    for row in rows {
        for (check, usage) in lock(&row.kept).last.iter().flat_map(|last| &last.checks) {
            text.sample(&[("drill", row.name), ("check", check)], value(usage));
        }
    }
}

fn self_tests(text: &mut Text, rows: &[Row<'_>]) {
    let help =
        "Self-tests that ended since muster began: `refused` is what must be, `passed` means that damage went unseen.";
    text.family("muster_self_tests_total", Kind::Counter, help);
    for row in rows {
        for (damage, outcome, count) in &lock(&row.kept).self_tests {
            let labels = [("drill", row.name), ("damage", damage.as_str()), ("outcome", outcome.as_str())];
            text.sample(&labels, counted(*count));
        }
    }
    let help =
        "1 where the last self-test with this damage did not see it: what muster says of backups cannot be relied on.";
    text.family("muster_self_test_passed_damage", Kind::Gauge, help);
    for row in rows {
        let kept = lock(&row.kept);
        for (damage, _, _) in kept.self_tests.iter().filter(|(_, outcome, _)| *outcome == SelfTest::Passed) {
            let unseen = kept.undetected.contains(damage);
            text.sample(&[("drill", row.name), ("damage", damage.as_str())], f64::from(u8::from(unseen)));
        }
    }
}

/// Computed anew only after a success, or where the drill's file changed.
fn due(row: &Row<'_>, now: Timestamp) -> Option<Timestamp> {
    let drill = &row.view.drill;
    drill.schedule.as_ref()?;
    let since = row.view.last_success.as_ref().map_or(row.view.known_since, |success| success.started).min(now);
    let mut kept = lock(&row.kept);
    match kept.due {
        Some((digest, from, due)) if (digest, from) == (drill.digest, since) => due,
        _ => {
            let due = success_due(drill, since);
            kept.due = Some((drill.digest, since, due));
            due
        }
    }
}

/// When a success that comes after `since` is overdue: the next run is due, has had what its objectives tolerate, and nobody
/// saw it pass. Without an objective for the recovery point it has until the slot after.
pub(super) fn success_due(drill: &Drill, since: Timestamp) -> Option<Timestamp> {
    let slots = Slots::of(drill.schedule.as_ref()?, &drill.name).ok()?;
    let slot = slots.next(since)?;
    match drill.objectives.recovery_point {
        Some(point) => {
            let patience = point.saturating_add(drill.objectives.recovery_time.unwrap_or_default()).max(PATIENCE);
            slot.starts.checked_add(patience).ok()
        }
        None => Some(slots.next(slot.scheduled_for)?.starts.max(slot.starts.checked_add(PATIENCE).ok()?)),
    }
}

fn began(run: Option<&RunSummary>) -> f64 {
    time(run.map(|run| run.started))
}

fn time(at: Option<Timestamp>) -> f64 {
    at.map_or(0.0, seconds)
}

#[expect(clippy::cast_precision_loss, reason = "milliseconds since 1970 fit into 2^52")]
fn seconds(at: Timestamp) -> f64 {
    at.as_millisecond() as f64 / 1_000.0
}

#[expect(clippy::cast_precision_loss, reason = "nothing that is counted here reaches 2^52")]
fn number(count: usize) -> f64 {
    count as f64
}

#[expect(clippy::cast_precision_loss, reason = "nothing that is counted here reaches 2^52")]
fn counted(count: u64) -> f64 {
    count as f64
}
