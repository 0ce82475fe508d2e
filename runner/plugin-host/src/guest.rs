//! What the guest may ask of the host: the functions behind the contract's imports.
//!
//! Every function is bounded: what it gives fits a payload, what it passes on is counted, and an error that it returns
//! traps the guest with the name of a [`Limit`].
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use drill::finding::Severity;
use drill::spec::CheckLimits;
use wasmtime::Result;
use wasmtime::component::{Resource, ResourceTable};
use wasmtime_wasi::{WasiCtx, WasiCtxView, WasiView};

use crate::backend::{Backend, Reporter, Rows};
use crate::bindings::muster::check::{baseline, context, report, sql, values};
use crate::limits::{Growth, Limit, MAX_PAYLOAD, RUNTIME_HANDLES};
use crate::meter::CpuTime;
use crate::outcome::shown;
use crate::wasi::{self, Log};

mod convert;
mod scans;

#[expect(unreachable_pub, reason = "the generated bindings export them again, which takes `pub`")]
pub use scans::{FinishedScan, OpenObjects, OpenScan};

const MAX_SUBJECT: usize = 300;
const MAX_MESSAGE: usize = 4_000;
const MAX_DETAILS: usize = 50;
const MAX_DETAIL: usize = 1_000;
const MAX_UNIT: usize = 30;
const MAX_METRIC_NAME: usize = 100;
const MAX_LABELS: usize = 8;
/// People follow ten numbers a second.
const PROGRESS_EVERY: Duration = Duration::from_millis(100);

/// One call's side of the host: all that its guest can reach.
pub(crate) struct Guest {
    wasi: WasiCtx,
    resources: ResourceTable,
    pub(crate) growth: Growth,
    limits: CheckLimits,
    /// None while the plugin describes itself: nothing can be asked then.
    backend: Option<Backend>,
    pub(crate) cpu: CpuTime,
    pub(crate) log: Log,
    started: Instant,
    handles: u32,
    findings: u32,
    metrics: BTreeMap<(String, Vec<(String, String)>), f64>,
    progress: Progress,
}

#[derive(Default)]
struct Progress {
    told: Option<Instant>,
    waiting: Option<(u64, Option<u64>, String)>,
}

/// The guest's end of a statement that runs. Dropping it cancels.
#[expect(unreachable_pub, reason = "the generated bindings export it again, which takes `pub`")]
pub struct OpenRows(Box<dyn Rows>);

impl Guest {
    pub(crate) fn new(backend: Option<Backend>, limits: CheckLimits) -> Self {
        let reporter = backend.as_ref().map(|backend| Arc::clone(&backend.reporter));
        let now = backend.as_ref().map_or(jiff::Timestamp::UNIX_EPOCH, |backend| backend.context.started_at);
        let log = Log::new(reporter, limits);
        let mut resources = ResourceTable::new();
        resources.set_max_capacity(RUNTIME_HANDLES + limits.handles as usize);
        Self {
            wasi: wasi::context(&log, now),
            resources,
            growth: Growth::new(limits),
            limits,
            backend,
            cpu: CpuTime::default(),
            log,
            started: Instant::now(),
            handles: 0,
            findings: 0,
            metrics: BTreeMap::new(),
            progress: Progress::default(),
        }
    }

    /// Passes on what was held back. Called once, however the guest ended.
    pub(crate) fn finish(&mut self) {
        self.log.finish();
        let Some(backend) = &self.backend else { return };
        if let Some((done, total, unit)) = self.progress.waiting.take() {
            backend.reporter.progress(done, total, unit);
        }
        for ((name, labels), value) in std::mem::take(&mut self.metrics) {
            backend.reporter.metric(name, labels, value);
        }
    }

    fn backend(&self) -> Result<&Backend> {
        self.backend
            .as_ref()
            .ok_or_else(|| wasmtime::format_err!("nothing can be asked while a plugin describes itself"))
    }

    fn reporter(&self) -> Result<&dyn Reporter> {
        Ok(&*self.backend()?.reporter)
    }
}

impl WasiView for Guest {
    fn ctx(&mut self) -> WasiCtxView<'_> {
        WasiCtxView { ctx: &mut self.wasi, table: &mut self.resources }
    }
}

impl values::Host for Guest {}

impl context::Host for Guest {
    fn drill(&mut self) -> Result<String> {
        Ok(self.backend()?.context.drill.clone())
    }

    fn run(&mut self) -> Result<String> {
        Ok(self.backend()?.context.run.clone())
    }

    fn engine(&mut self) -> Result<String> {
        Ok(self.backend()?.context.engine.clone())
    }

    fn server_version(&mut self) -> Result<String> {
        Ok(self.backend()?.context.server_version.clone())
    }

    fn database(&mut self) -> Result<String> {
        Ok(self.backend()?.context.database.clone())
    }

    fn databases(&mut self) -> Result<Vec<String>> {
        Ok(self.backend()?.context.databases.clone())
    }

    fn tables(&mut self, skip: u32, max: u32) -> Result<Vec<context::Table>> {
        Ok(page(&self.backend()?.context.tables, skip, max, convert::table, |table| {
            let parent = table.parent.as_ref().map_or(0, |(schema, name)| schema.len() + name.len());
            table.schema.len() + table.name.len() + table.kind.len() + parent
        }))
    }

    fn columns(&mut self, schema: String, name: String) -> Result<Option<Vec<values::ColumnInfo>>> {
        let table = self.backend()?.context.tables.iter().find(|table| table.schema == schema && table.name == name);
        Ok(table.map(|table| table.columns.iter().map(convert::column_info).collect()))
    }

    fn started_at(&mut self) -> Result<i64> {
        Ok(self.backend()?.context.started_at.as_microsecond())
    }

    fn snapshot_time(&mut self) -> Result<Option<i64>> {
        Ok(self.backend()?.context.snapshot_time.map(jiff::Timestamp::as_microsecond))
    }

    fn recovery_point_objective(&mut self) -> Result<Option<u64>> {
        Ok(self.backend()?.context.recovery_point_objective.map(convert::micros))
    }

    fn remaining(&mut self) -> Result<u64> {
        self.backend()?;
        Ok(convert::micros(self.limits.wall_time.saturating_sub(self.started.elapsed())))
    }
}

impl sql::Host for Guest {
    async fn query(
        &mut self,
        statement: String,
        arguments: Vec<values::Value>,
    ) -> Result<Result<Resource<OpenRows>, values::Error>> {
        self.room_for_a_handle()?;
        let sql = Arc::clone(&self.backend()?.sql);
        let arguments = arguments.into_iter().map(convert::value).collect();
        match self.cpu.excuse(sql.query(&statement, arguments)).await {
            Ok(rows) => {
                let handle = self.resources.push(OpenRows(rows))?;
                self.handles += 1;
                Ok(Ok(handle))
            }
            Err(error) => Ok(Err(convert::error(error))),
        }
    }
}

impl sql::HostRows for Guest {
    fn columns(&mut self, rows: Resource<OpenRows>) -> Result<Vec<values::ColumnInfo>> {
        Ok(self.resources.get(&rows)?.0.columns().iter().map(convert::column_info).collect())
    }

    async fn next(
        &mut self,
        rows: Resource<OpenRows>,
        max_rows: u32,
    ) -> Result<Result<Option<values::Batch>, values::Error>> {
        let cpu = self.cpu.clone();
        let rows = self.resources.get_mut(&rows)?;
        Ok(match cpu.excuse(rows.0.next(max_rows.max(1))).await {
            Ok(None) => Ok(None),
            Ok(Some(batch)) if convert::batch_bytes(&batch) > MAX_PAYLOAD => Err(convert::too_large()),
            Ok(Some(batch)) => Ok(Some(convert::batch(batch))),
            Err(error) => Err(convert::error(error)),
        })
    }

    fn drop(&mut self, rows: Resource<OpenRows>) -> Result<()> {
        self.resources.delete(rows)?;
        self.handles = self.handles.saturating_sub(1);
        Ok(())
    }
}

impl baseline::Host for Guest {
    fn available(&mut self) -> Result<bool> {
        Ok(self.backend()?.baseline.is_some())
    }

    fn tables(&mut self, skip: u32, max: u32) -> Result<Vec<baseline::Table>> {
        let tables = self.backend()?.baseline.as_deref().unwrap_or_default();
        Ok(page(tables, skip, max, convert::baseline_table, |table| {
            let details: usize = table.details.iter().map(|(key, value)| key.len() + value.len()).sum();
            table.schema.len() + table.name.len() + table.root.as_ref().map_or(0, Vec::len) + details
        }))
    }
}

impl report::Host for Guest {
    fn add_finding(&mut self, finding: report::Finding) -> Result<()> {
        if self.findings >= self.limits.findings {
            return Err(Limit::findings(&self.limits).into());
        }
        self.findings += 1;
        let severity = match finding.severity {
            report::Severity::Info => Severity::Info,
            report::Severity::Warning => Severity::Warning,
            report::Severity::Failure => Severity::Failure,
        };
        let (subject, message) = (shown(&finding.subject, MAX_SUBJECT), shown(&finding.message, MAX_MESSAGE));
        self.reporter()?.finding(severity, subject, message, details(&finding.details));
        Ok(())
    }

    fn set_progress(&mut self, done: u64, total: Option<u64>, unit: String) -> Result<()> {
        let unit = shown(&unit, MAX_UNIT);
        if self.progress.told.is_some_and(|told| told.elapsed() < PROGRESS_EVERY) {
            self.backend()?;
            self.progress.waiting = Some((done, total, unit));
            return Ok(());
        }
        self.reporter()?.progress(done, total, unit);
        self.progress = Progress { told: Some(Instant::now()), waiting: None };
        Ok(())
    }

    fn set_metric(
        &mut self,
        name: String,
        mut labels: Vec<(String, String)>,
        value: f64,
    ) -> Result<Result<(), String>> {
        self.backend()?;
        if let Err(why) = check_metric(&name, &labels, value) {
            return Ok(Err(why));
        }
        labels.sort();
        let series = (name, labels);
        if self.metrics.len() >= self.limits.metrics as usize && !self.metrics.contains_key(&series) {
            return Err(Limit::metrics(&self.limits).into());
        }
        self.metrics.insert(series, value);
        Ok(Ok(()))
    }

    fn write_log(&mut self, message: String) -> Result<()> {
        self.backend()?;
        Ok(self.log.write(&message)?)
    }
}

fn check_metric(name: &str, labels: &[(String, String)], value: f64) -> std::result::Result<(), String> {
    let word = |text: &str| {
        text.len() <= MAX_METRIC_NAME
            && text.starts_with(|first: char| first.is_ascii_alphabetic() || first == '_')
            && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_')
    };
    if !word(name) {
        return Err(format!("`{}` is not a metric's name: [A-Za-z_][A-Za-z0-9_]*, at most 100", shown(name, 100)));
    }
    if !value.is_finite() {
        return Err(format!("{name}: {value} is not a finite number"));
    }
    if labels.len() > MAX_LABELS {
        return Err(format!("{name}: {} labels, at most {MAX_LABELS}", labels.len()));
    }
    for (index, (label, text)) in labels.iter().enumerate() {
        if !word(label) || label.starts_with("__") || text.len() > MAX_SUBJECT {
            return Err(format!("{name}: `{}` is not a label that can be exported", shown(label, 100)));
        }
        if labels[..index].iter().any(|(other, _)| other == label) {
            return Err(format!("{name}: label `{label}` twice"));
        }
    }
    Ok(())
}

fn details(given: &[(String, String)]) -> Vec<(String, String)> {
    let kept = given.iter().take(MAX_DETAILS).map(|(key, value)| (shown(key, MAX_UNIT), shown(value, MAX_DETAIL)));
    let cut = (given.len() > MAX_DETAILS).then(|| ("…".to_owned(), format!("{} more", given.len() - MAX_DETAILS)));
    kept.chain(cut).collect()
}

/// At most `max` items after the first `skip`, and no more than half a payload, but always one where there is one.
fn page<T, U>(items: &[T], skip: u32, max: u32, make: impl Fn(&T) -> U, text: impl Fn(&T) -> usize) -> Vec<U> {
    /// What an item takes in the guest beside its text.
    const FIXED: usize = 100;
    let mut room = MAX_PAYLOAD / 2;
    let mut taken = Vec::new();
    for item in items.iter().skip(skip as usize).take(max as usize) {
        let size = FIXED + text(item);
        if size > room && !taken.is_empty() {
            break;
        }
        room = room.saturating_sub(size);
        taken.push(make(item));
    }
    taken
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pages_end_and_fit() {
        let items: Vec<usize> = (0..20_000).collect();
        let mut seen = Vec::new();
        loop {
            let skip = u32::try_from(seen.len()).expect("small");
            let page = page(&items, skip, u32::MAX, |item| *item, |_| 100);
            if page.is_empty() {
                break;
            }
            assert!(page.len() <= MAX_PAYLOAD / 200);
            seen.extend(page);
        }
        assert_eq!(seen, items);
        assert_eq!(page(&items, 7, 1, |item| *item, |_| usize::MAX / 2), [7]);
        assert!(page(&items, 0, 0, |item| *item, |_| 1).is_empty());
    }

    #[test]
    fn metrics_are_what_prometheus_takes() {
        let check = |name: &str, labels: &[(&str, &str)], value| {
            let labels: Vec<_> = labels.iter().map(|(key, text)| ((*key).to_owned(), (*text).to_owned())).collect();
            check_metric(name, &labels, value).is_ok()
        };
        assert!(check("rows", &[("table", "public.orders")], 1.0));
        assert!(!check("1rows", &[], 1.0));
        assert!(!check("", &[], 1.0));
        assert!(!check("rows", &[], f64::NAN));
        assert!(!check("rows", &[("__name__", "x")], 1.0));
        assert!(!check("rows", &[("a", "x"), ("a", "y")], 1.0));
    }

    #[test]
    fn details_are_cut_with_a_mark() {
        let given = vec![("k".to_owned(), "v".to_owned()); MAX_DETAILS + 3];
        assert_eq!(details(&given).last(), Some(&("…".to_owned(), "3 more".to_owned())));
        assert_eq!(details(&given[..2]).len(), 2);
    }
}
