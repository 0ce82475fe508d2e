//! Signs evidence and checks it.
