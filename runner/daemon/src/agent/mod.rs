//! The agent: the process that holds the lease and the plugins, and the runner's side of talking to it.
