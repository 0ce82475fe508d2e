//! Signing keys in minisign format. [`SigningKey`] signs manifests, [`EvidenceKey`] signs evidence, [`Trust`] is the gate.
mod evidence;
mod file;
mod public;
mod signing;
mod trust;

pub use evidence::EvidenceKey;
pub use public::PublicKey;
pub use signing::{Generated, SigningKey, generate, read_password};
pub use trust::{Signer, Trust};
