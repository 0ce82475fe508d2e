//! A backup directory on a file system.
