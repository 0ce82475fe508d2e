//! Places that can reach nothing. [`local`] is bubblewrap on this machine, [`kubernetes`] a namespace of a cluster, [`fake`] is the
//! same promise in memory, and [`contract`] is what every implementation must pass.
pub mod contract;
pub mod fake;
pub mod kubernetes;
pub mod local;
