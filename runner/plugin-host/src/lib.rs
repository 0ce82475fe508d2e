//! Runs check plugins: WebAssembly components under the contract in `wit/`. The one crate that knows wasmtime.
//!
//! A check is given what [`Grants`] its drill named, through the traits of [`backend`]; whoever holds the database implements
//! those. Every resource a guest can use is bounded by [`drill::spec::CheckLimits`].
pub mod backend;
