//! What the whole-program tests stand on: the real program, throwaway servers, and a look at what is left.
mod backup;
mod cluster;
mod daemon;
mod faulty_api;
mod place;
mod program;
mod prometheus;
mod server;
mod terminal;
mod vault;

pub use backup::{Backup, captured, captured_from, sample};
pub use cluster::{Cluster, within};
pub use daemon::Daemon;
pub use faulty_api::{Asked, Fault, FaultyApi};
pub use place::Place;
pub use program::{Finished, Muster, muster, not_tested, program};
pub use prometheus::Prometheus;
pub use server::{Server, programs};
pub use terminal::on_terminal;
pub use vault::Vault;
