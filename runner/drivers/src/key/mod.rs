//! Signing keys in minisign format.
