//! Plain dumps: scripts for `psql`. Read as `psql` reads them (`scan`), so that nothing in them is taken for something else and
//! no command of `psql` itself gets by that `pg_dump` does not write.
mod data;
mod meta;
mod scan;

pub use scan::{Event, Refusal, Scanner};

#[cfg(test)]
mod tests;
