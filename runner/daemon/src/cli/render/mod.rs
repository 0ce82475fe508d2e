//! What a run looks like while it goes on and when it is over. [`lines`] is pure; [`text`] and [`json`] put it on a stream.
mod json;
mod lines;
mod text;

pub use json::Json;
pub use text::Text;
