//! Dead Simple Signing Envelope, <https://github.com/secure-systems-lab/dsse/blob/v1.0.0/protocol.md>.
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::{Deserialize, Serialize};

use crate::stop::Stop;
use crate::verdict::Reason;

pub const PAYLOAD_TYPE: &str = "application/vnd.in-toto+json";

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Envelope {
    pub payload_type: String,
    /// Base64.
    pub payload: String,
    pub signatures: Vec<Signature>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Signature {
    /// A hint that nobody signed: never a reason to trust.
    pub keyid: String,
    /// Base64 of the 64 bytes of Ed25519.
    pub sig: String,
}

/// What is signed: type and body with their lengths, so that neither can be read as the other.
pub fn pre_authentication_encoding(payload_type: &str, payload: &[u8]) -> Vec<u8> {
    let head = format!("DSSEv1 {} {payload_type} {} ", payload_type.len(), payload.len());
    [head.as_bytes(), payload].concat()
}

impl Envelope {
    pub fn seal(payload: &[u8], keyid: &str, sign: impl FnOnce(&[u8]) -> [u8; 64]) -> Self {
        let signature = sign(&pre_authentication_encoding(PAYLOAD_TYPE, payload));
        Self {
            payload_type: PAYLOAD_TYPE.to_owned(),
            payload: STANDARD.encode(payload),
            signatures: vec![Signature { keyid: keyid.to_owned(), sig: STANDARD.encode(signature) }],
        }
    }

    /// The file's bytes: one line.
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut bytes = serde_json::to_vec(self).expect("text fields can always be written as JSON");
        bytes.push(b'\n');
        bytes
    }

    pub fn parse(bytes: &[u8]) -> Result<Self, Stop> {
        let envelope: Self =
            serde_json::from_slice(bytes).map_err(|error| refused(format!("it is no DSSE envelope: {error}")))?;
        if envelope.payload_type != PAYLOAD_TYPE {
            return Err(refused(format!("its payload is `{}` and not `{PAYLOAD_TYPE}`", envelope.payload_type)));
        }
        Ok(envelope)
    }

    /// The payload, once `verifies` (message, signature) is true for one of the signatures. Nothing of the payload is read
    /// before.
    pub fn open(&self, verifies: impl Fn(&[u8], &[u8; 64]) -> bool) -> Result<Vec<u8>, Stop> {
        let payload = STANDARD.decode(&self.payload).map_err(|_| refused("its payload is not base64"))?;
        let message = pre_authentication_encoding(&self.payload_type, &payload);
        let signatures = self.signatures.iter().filter_map(|signature| STANDARD.decode(&signature.sig).ok());
        if signatures.filter_map(|bytes| <[u8; 64]>::try_from(bytes).ok()).any(|bytes| verifies(&message, &bytes)) {
            return Ok(payload);
        }
        let signers: Vec<&str> = self.signatures.iter().map(|signature| signature.keyid.as_str()).collect();
        let signers = if signers.is_empty() { "nobody".to_owned() } else { format!("key {}", signers.join(", ")) };
        Err(refused(format!("no trusted key signed it as it is; it claims to be signed by {signers}"))
            .advise("it was changed after signing, or the trusted key is not the one of the muster that wrote it"))
    }
}

fn refused(message: impl Into<String>) -> Stop {
    Stop::new(Reason::ArtifactRefused, message)
}
