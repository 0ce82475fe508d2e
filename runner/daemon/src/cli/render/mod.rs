//! What a run looks like while it goes on and when it is over. [`lines`] is pure; [`text`] and [`json`] put it on a stream.
mod json;
mod lines;
mod text;

pub use json::Json;
pub use text::Text;

/// What a run is shown as.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum Output {
    /// For people.
    Text,
    /// One JSON object a line, with stable field names.
    Json,
}
