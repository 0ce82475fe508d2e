//! What a run looks like while it goes on and when it is over. [`lines`] is pure; [`text`] and [`json`] put it on a stream.
mod json;
mod lines;
mod text;

use drill::ledger::{Event, Stamped, State};

pub use json::Json;
pub use text::Text;

/// Keeps a view's own fold of the run. The journal has applied the event already, and a view never decides anything: what does
/// not fit is left out.
fn follow(state: &mut Option<State>, stamped: &Stamped) {
    match (state, &stamped.event) {
        (state @ None, Event::Started(started)) => *state = Some(State::new(started.clone())),
        (Some(state), _) => {
            let _ = state.apply(stamped);
        }
        (None, _) => {}
    }
}
