//! The client against a real server. One server serves all cases, because starting one takes longer than all of them.
#![expect(clippy::unwrap_used, reason = "a test")]
mod cases;
mod rotation;
mod server;

pub(in crate::agent) use server::{Authority, TestServer};
