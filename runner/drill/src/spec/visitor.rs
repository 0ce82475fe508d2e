use std::collections::BTreeMap;
use std::net::IpAddr;

/// From where a secret store comes that needs a doorway into a sandbox in a cluster.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Visitor {
    /// Outside of the cluster: one for each of its nodes. Never empty.
    Addresses(Vec<IpAddr>),
    /// In the cluster. `labels` are never empty, because that would be every pod.
    Pods { namespace: String, labels: BTreeMap<String, String> },
}
