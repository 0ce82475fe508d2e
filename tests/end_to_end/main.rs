//! The real program, real servers, real sandboxes. Nothing is mocked here.
#![expect(clippy::unwrap_used, reason = "a test that meets what it did not expect must end")]
mod adopt;
mod command_line;
mod content;
mod daemon;
mod drill;
mod ends;
mod fallbacks;
mod freshness;
mod hostile_plugins;
mod killed;
mod self_test;
mod store;
mod vault;
