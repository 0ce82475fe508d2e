//! Makes a backup directory from a live server.
