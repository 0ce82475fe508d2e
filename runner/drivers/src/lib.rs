//! What muster drives: one folder a port, one module a technology. Only `wiring` in the daemon names a driver.
pub mod alert;
pub mod artifact;
pub mod credentials;
pub mod engine;
pub mod guard;
pub mod isolation;
pub mod key;
pub mod store;
pub mod unpack;
