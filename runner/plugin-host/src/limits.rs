//! What a guest may use, and how it is told from anything else that went wrong when it used more.
use std::fmt;
use std::time::Duration;

use drill::agent::CheckOutcome;
use drill::spec::CheckLimits;
use drill::unit;
use wasmtime::{ResourceLimiter, Result};

/// Bytes that may cross at once, in either direction.
pub(crate) const MAX_PAYLOAD: usize = 1 << 20;
/// Bytes of native stack for the guest's calls.
pub(crate) const MAX_STACK: usize = 512 << 10;
/// Things of the runtime's own that a guest may hold open beside its `handles`: streams, pollables, refused sockets.
pub(crate) const RUNTIME_HANDLES: usize = 256;

/// Function references in all tables of a component together.
const MAX_TABLE_ELEMENTS: usize = 100_000;
/// Core instances, tables and memories of one component: a Rust component has about five, two and one.
const MAX_INSTANCES: usize = 100;

/// The guest was stopped at a limit. Traps it when a host function returns it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Limit {
    name: &'static str,
    used: String,
    allowed: String,
    advice: String,
}

impl Limit {
    pub(crate) fn memory(used: u64, limits: &CheckLimits) -> Self {
        let enough = used.max(limits.memory.saturating_mul(2)).checked_next_power_of_two().unwrap_or(u64::MAX);
        Self::new("memory", unit::size(used), unit::size(limits.memory), &yaml_size(enough))
    }

    pub(crate) fn cpu_time(used: Duration, limits: &CheckLimits) -> Self {
        let (used, allowed) = (unit::duration(used), unit::duration(limits.cpu_time));
        Self::new("cpuTime", used, allowed, &yaml_duration(limits.cpu_time.saturating_mul(2)))
    }

    pub(crate) fn wall_time(used: Duration, limits: &CheckLimits) -> Self {
        let (used, allowed) = (unit::duration(used), unit::duration(limits.wall_time));
        Self::new("wallTime", used, allowed, &yaml_duration(limits.wall_time.saturating_mul(2)))
    }

    pub(crate) fn log_bytes(used: u64, limits: &CheckLimits) -> Self {
        let (used, allowed) = (unit::size(used), unit::size(limits.log_bytes));
        Self::new("logBytes", used, allowed, &yaml_size(limits.log_bytes.saturating_mul(2)))
    }

    pub(crate) fn findings(limits: &CheckLimits) -> Self {
        Self::counted("findings", limits.findings)
    }

    pub(crate) fn metrics(limits: &CheckLimits) -> Self {
        Self::counted("metrics", limits.metrics)
    }

    pub(crate) fn handles(limits: &CheckLimits) -> Self {
        Self::counted("handles", limits.handles)
    }

    pub(crate) fn stack() -> Self {
        let size = unit::size(MAX_STACK as u64);
        Self::fixed("stack", format!("more than {size}"), size, "the plugin calls itself without end, or too deep")
    }

    pub(crate) fn payload() -> Self {
        let size = unit::size(MAX_PAYLOAD as u64);
        let advice = "the plugin must hand over less at a time, such as shorter messages or statements";
        Self::fixed("payload", format!("more than {size} in one call"), size, advice)
    }

    pub(crate) fn runtime_handles() -> Self {
        let allowed = unit::count(RUNTIME_HANDLES as u64);
        let advice = "the plugin must close the streams and timers of its runtime";
        Self::fixed("handles", format!("more than {allowed} of the runtime's own"), allowed, advice)
    }

    fn tables(used: usize) -> Self {
        let allowed = unit::count(MAX_TABLE_ELEMENTS as u64);
        Self::fixed("tables", unit::count(used as u64), allowed, "the plugin must use smaller tables of functions")
    }

    fn counted(name: &'static str, allowed: u32) -> Self {
        let more = u64::from(allowed) + 1;
        let enough = u64::from(allowed).saturating_mul(2).max(1);
        Self::new(name, unit::count(more), unit::count(allowed.into()), &enough.to_string())
    }

    fn new(name: &'static str, used: String, allowed: String, enough: &str) -> Self {
        let advice =
            format!("if the plugin is right to need more, give the check more: `limits: {{ {name}: {enough} }}`");
        Self { name, used, allowed, advice }
    }

    /// A limit that no drill can raise.
    fn fixed(name: &'static str, used: String, allowed: String, advice: &str) -> Self {
        Self { name, used, allowed, advice: format!("{advice}; this limit is fixed") }
    }

    pub(crate) fn into_outcome(self) -> CheckOutcome {
        let Self { name, used, allowed, advice } = self;
        CheckOutcome::LimitReached { limit: name.to_owned(), used, allowed, advice }
    }
}

impl fmt::Display for Limit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "limit `{}` reached: {} used, {} allowed", self.name, self.used, self.allowed)
    }
}

impl std::error::Error for Limit {}

/// As [`unit::parse_size`] reads it.
fn yaml_size(bytes: u64) -> String {
    match bytes {
        bytes if bytes >= 1 << 20 => format!("{}MiB", bytes.div_ceil(1 << 20)),
        bytes => format!("{}KiB", bytes.div_ceil(1 << 10)),
    }
}

/// As [`unit::parse_duration`] reads it.
fn yaml_duration(duration: Duration) -> String {
    match duration.as_millis() {
        millis if millis.is_multiple_of(60_000) && millis > 0 => format!("{}m", millis / 60_000),
        millis if millis.is_multiple_of(1_000) => format!("{}s", millis / 1_000),
        millis => format!("{millis}ms"),
    }
}

/// Counts memory and tables over all instances of one component.
#[derive(Debug)]
pub(crate) struct Growth {
    limits: CheckLimits,
    /// Bytes of all memories together.
    pub(crate) memory: usize,
    tables: usize,
}

impl Growth {
    pub(crate) fn new(limits: CheckLimits) -> Self {
        Self { limits, memory: 0, tables: 0 }
    }
}

impl ResourceLimiter for Growth {
    fn memory_growing(&mut self, current: usize, desired: usize, _maximum: Option<usize>) -> Result<bool> {
        let total = self.memory.saturating_add(desired.saturating_sub(current));
        if total as u64 > self.limits.memory {
            // A refusal that the guest could see ends in its own words for "out of memory": a trap can name the limit.
            return Err(Limit::memory(total as u64, &self.limits).into());
        }
        self.memory = total;
        Ok(true)
    }

    fn table_growing(&mut self, current: usize, desired: usize, _maximum: Option<usize>) -> Result<bool> {
        let total = self.tables.saturating_add(desired.saturating_sub(current));
        if total > MAX_TABLE_ELEMENTS {
            return Err(Limit::tables(total).into());
        }
        self.tables = total;
        Ok(true)
    }

    fn instances(&self) -> usize {
        MAX_INSTANCES
    }

    fn tables(&self) -> usize {
        MAX_INSTANCES
    }

    fn memories(&self) -> usize {
        MAX_INSTANCES
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn advice_can_be_pasted_and_is_more_than_was_allowed() {
        let limits = CheckLimits::default();
        assert!(Limit::memory(65 << 20, &limits).advice.contains("`limits: { memory: 128MiB }`"));
        assert!(Limit::cpu_time(limits.cpu_time, &limits).advice.contains("`limits: { cpuTime: 20s }`"));
        assert!(Limit::wall_time(limits.wall_time, &limits).advice.contains("`limits: { wallTime: 10m }`"));
        assert!(Limit::log_bytes(1, &limits).advice.contains("`limits: { logBytes: 128KiB }`"));
        assert!(Limit::handles(&limits).advice.contains("`limits: { handles: 128 }`"));
        assert_eq!(unit::parse_size(&yaml_size(100)), Ok(1 << 10));
        assert_eq!(
            unit::parse_duration(&yaml_duration(Duration::from_millis(1_500))),
            Ok(Duration::from_millis(1_500))
        );
    }
}
