//! Where alerts go: a webhook of anybody's, an Alertmanager, and a fake. `http` is what the first two have in common.
pub mod alertmanager;
#[cfg(test)]
mod contract;
pub mod fake;
mod http;
pub mod webhook;
