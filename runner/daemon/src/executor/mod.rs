//! Executes a run.
