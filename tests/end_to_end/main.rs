//! The real program, real servers, real sandboxes. Nothing is mocked here.
#![expect(clippy::unwrap_used, reason = "a test that meets what it did not expect must end")]
mod adopt;
mod bad_input;
mod command_line;
mod content;
mod daemon;
mod drill;
mod ends;
mod fallbacks;
mod freshness;
mod hostile;
mod hostile_plugins;
mod killed;
mod kubernetes;
mod kubernetes_drill;
mod kubernetes_failures;
mod kubernetes_inside;
mod kubernetes_lease;
mod kubernetes_rotation;
mod kubernetes_vault;
mod self_test;
mod service;
mod store;
mod vault;
