//! The record that lets one muster at a time work: a Lease of a Kubernetes cluster, and a fake.
pub mod contract;
pub mod fake;
pub mod kubernetes;
