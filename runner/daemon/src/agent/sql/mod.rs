//! The plugins' `sql`, spoken by muster itself: the extended protocol over TLS over a Unix socket.
//!
//! ```text
//! Database (holds the snapshot) ── CheckSql (one a check) ── task ── Session (transaction, portals) ── Connection ── wire
//! ```
//!
//! Why not a client library: result formats must be chosen a column (text where a binary form depends on the server), several
//! results must be open in one transaction, and every byte of the server is hostile.
mod argument;
mod batch;
mod catalog;
mod check;
mod connection;
mod database;
mod fault;
mod holder;
mod objects;
mod portal;
mod scan;
mod session;
mod shape;
mod time;
mod tls;
mod wire;

#[cfg(test)]
mod tests;

#[cfg(test)]
pub(super) use tests::{Authority, TestServer};

pub(super) use database::{Database, SharedIdentity, login};
pub(super) use scan::{Scan, Scans};
pub(super) use wire::CopySink;
