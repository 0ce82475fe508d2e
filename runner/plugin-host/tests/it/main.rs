//! Real components on the real host; the database is a fake.
#![expect(clippy::unwrap_used, reason = "tests")]
mod cache;
mod checksum;
mod freshness;
mod hostile;
mod row_count;
mod schema;
mod world;
