//! Who makes the login that checks use.
pub mod embedded;
pub mod fake;
