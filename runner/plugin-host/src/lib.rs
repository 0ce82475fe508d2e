//! Runs check plugins: WebAssembly components under the contract in `wit/`. The one crate that knows wasmtime.
//!
//! Start at [`Host`]. A check is given the grants its drill named, through the traits of [`backend`]; whoever holds the
//! database implements those. Every resource a guest can use is bounded by [`drill::spec::CheckLimits`].
mod ahead;
pub mod backend;
mod bindings;
mod builtin;
mod cache;
mod guest;
mod host;
mod inspect;
mod limits;
mod meter;
mod outcome;
mod wasi;

pub use ahead::{Code, Compiler};
pub use builtin::{BUILTINS, builtin};
pub use host::{Component, Description, Host, HostError, RunOutcome};
pub use inspect::{Inspection, MAX_COMPONENT};
