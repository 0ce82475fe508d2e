//! What the end of a guest means.
use drill::agent::CheckOutcome;
use wasmtime::Trap;
use wasmtime::component::ResourceTableError;
use wasmtime_wasi::I32Exit;

use crate::bindings::exports::muster::check::plugin::{Conclusion, Failure};
use crate::limits::Limit;

const MAX_SUMMARY: usize = 200;
const MAX_WHY: usize = 2_000;

/// The guest returned.
pub(crate) fn of_result(result: Result<Conclusion, Failure>) -> CheckOutcome {
    match result {
        Ok(Conclusion::Completed(summary)) => {
            let summary = shown(&summary, MAX_SUMMARY);
            CheckOutcome::Completed { summary: (!summary.is_empty()).then_some(summary) }
        }
        Ok(Conclusion::Inconclusive(why)) => CheckOutcome::Inconclusive { why: shown(&why, MAX_WHY) },
        Err(Failure::Options(why)) => CheckOutcome::Refused { why: format!("options: {}", shown(&why, MAX_WHY)) },
        Err(Failure::Other(why)) => CheckOutcome::Refused { why: shown(&why, MAX_WHY) },
    }
}

/// The guest was trapped. `printed` is the end of what it printed, such as a panic's message.
pub(crate) fn of_trap(error: &wasmtime::Error, printed: &str) -> CheckOutcome {
    if let Some(limit) = limit(error) {
        return limit.into_outcome();
    }
    if let Some(exit) = error.downcast_ref::<I32Exit>() {
        let why = format!("the plugin ended its process with code {} where it should have returned", exit.0);
        return CheckOutcome::Trapped { why };
    }
    let cause = match error.downcast_ref::<Trap>() {
        Some(Trap::UnreachableCodeReached) => "the plugin gave up (a panic or an abort)".to_owned(),
        Some(Trap::MemoryOutOfBounds) => {
            "the plugin reached outside of its memory, which is also how its own stack overflows".to_owned()
        }
        Some(trap) => format!("the plugin trapped: {trap}"),
        None => format!("the plugin trapped: {}", error.root_cause()),
    };
    let why = if printed.is_empty() { cause } else { format!("{cause}; it printed: {printed}") };
    CheckOutcome::Trapped { why: shown(&why, MAX_WHY) }
}

fn limit(error: &wasmtime::Error) -> Option<Limit> {
    if let Some(limit) = error.downcast_ref::<Limit>() {
        return Some(limit.clone());
    }
    if matches!(error.downcast_ref::<Trap>(), Some(Trap::StackOverflow)) {
        return Some(Limit::stack());
    }
    if matches!(error.downcast_ref::<ResourceTableError>(), Some(ResourceTableError::Full)) {
        return Some(Limit::runtime_handles());
    }
    // wasmtime keeps this error's type to itself; a test holds its words.
    error.root_cause().to_string().contains("fuel allocated for hostcalls has been exhausted").then(Limit::payload)
}

/// At most `max` characters for people: control characters become spaces, and what is cut is marked.
pub(crate) fn shown(text: &str, max: usize) -> String {
    let text = text.trim();
    let clean = |character: char| if character.is_control() { ' ' } else { character };
    if text.chars().nth(max).is_none() {
        return text.chars().map(clean).collect();
    }
    text.chars().take(max.saturating_sub(1)).map(clean).chain(['…']).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_for_people_is_bounded_and_clean() {
        assert_eq!(shown("a\x1b[31mb\n", 10), "a [31mb");
        assert_eq!(shown("äöüß", 4), "äöüß");
        assert_eq!(shown("äöüßx", 4), "äöü…");
    }
}
