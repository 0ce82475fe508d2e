//! Checks evidence: whether a trusted key signed it as it is, and whether the chain behind it is whole.
use std::path::Path;

use drill::evidence::{EVIDENCE_TYPE, Envelope, STATEMENT_TYPE, Statement, TOMBSTONE_TYPE, Tombstone};
use drill::id::Sha256Digest;
use drill::stop::Stop;
use drill::verdict::Reason;
use drivers::key::PublicKey;
use serde::Deserialize;

use super::chain::{self, ChainReport};
use super::files;

#[derive(Debug, Clone, PartialEq)]
pub struct Verified {
    pub statement: Statement,
    /// SHA-256 of the file.
    pub digest: Sha256Digest,
    /// Id of the trusted key that signed it.
    pub signed_by: String,
    pub chain: ChainReport,
}

/// An error where no trusted key signed the file as it is. A chain that is not whole is no error: see
/// [`Verified::chain`]. Blocks.
pub fn verify(file: &Path, trusted: &[PublicKey]) -> Result<Verified, Stop> {
    let bytes = files::read(file)
        .map_err(|error| refused(file, &format!("cannot be read: {error}")).advise("name a .dsse.json file"))?;
    let opened = open(&bytes, trusted)
        .map_err(|stop| Stop { message: format!("{}: {}", file.display(), stop.message), ..stop })?;
    let Content::Evidence(statement) = opened.content else {
        return Err(
            refused(file, "is a tombstone: it stands for evidence that was deleted").advise("verify a later one")
        );
    };
    let chain = chain::check(file, &statement, opened.digest, trusted)?;
    Ok(Verified { statement: *statement, digest: opened.digest, signed_by: opened.signed_by, chain })
}

pub(super) struct Opened {
    pub(super) content: Content,
    pub(super) digest: Sha256Digest,
    pub(super) signed_by: String,
}

pub(super) enum Content {
    Evidence(Box<Statement>),
    Tombstone(Tombstone),
}

/// Nothing of the payload is parsed before its signature was seen to be good.
pub(super) fn open(bytes: &[u8], trusted: &[PublicKey]) -> Result<Opened, Stop> {
    let envelope = Envelope::parse(bytes)?;
    let signer = std::cell::Cell::new(None);
    let payload = envelope.open(|message, signature| {
        let found = trusted.iter().find(|key| key.verify_raw(message, signature).is_ok());
        signer.set(found.map(PublicKey::key_id).or(signer.take()));
        found.is_some()
    })?;
    let signed_by = signer.take().unwrap_or_default();
    Ok(Opened { content: content(&payload)?, digest: Sha256Digest::of(bytes), signed_by })
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Kind {
    #[serde(rename = "_type")]
    statement_type: String,
    predicate_type: String,
}

fn content(payload: &[u8]) -> Result<Content, Stop> {
    let bad = |error: serde_json::Error| {
        Stop::new(Reason::ArtifactRefused, format!("it is signed and cannot be understood: {error}"))
            .advise("verify it with the version of muster that wrote it, or a newer one")
    };
    let kind: Kind = serde_json::from_slice(payload).map_err(bad)?;
    match (kind.statement_type.as_str(), kind.predicate_type.as_str()) {
        (STATEMENT_TYPE, EVIDENCE_TYPE) => Ok(Content::Evidence(serde_json::from_slice(payload).map_err(bad)?)),
        (STATEMENT_TYPE, TOMBSTONE_TYPE) => {
            let statement: Statement<Tombstone> = serde_json::from_slice(payload).map_err(bad)?;
            Ok(Content::Tombstone(statement.predicate))
        }
        (statement, predicate) => Err(Stop::new(
            Reason::ArtifactRefused,
            format!("it is signed, and is a `{statement}` with a `{predicate}` instead of evidence of a drill"),
        )),
    }
}

fn refused(file: &Path, what: &str) -> Stop {
    Stop::new(Reason::ArtifactRefused, format!("{} {what}", file.display()))
}
