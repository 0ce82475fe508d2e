//! The daemon and the command line. `main.rs` only calls [`cli::main`].
pub mod agent;
pub mod alarms;
pub mod alerts;
pub mod book;
pub mod cli;
mod client;
pub mod dispatcher;
pub mod evidence;
pub mod executor;
pub mod feed;
mod fires;
pub mod guard;
pub mod http;
pub mod logs;
pub mod metrics;
pub mod owner;
pub mod reconcile;
pub mod runner;
#[cfg(test)]
mod sample;
pub mod secrets;
pub mod serve;
pub mod state_dir;
pub mod wiring;
