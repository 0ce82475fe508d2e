//! Places that can reach nothing.
pub mod local;
