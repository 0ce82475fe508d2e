use std::io::Write;
use std::path::{Path, PathBuf};

use drill::spec::TrustedKey;
use drill::stop::{OrStop, Stop};
use drill::verdict::Reason;

use super::PublicKey;

/// Whose signatures are believed.
#[derive(Debug, Clone)]
pub struct Trust(Vec<(String, PublicKey)>);

/// Who signed, and what they signed with it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Signer {
    /// File name of the key, or its id where it has no file.
    pub name: String,
    pub key_id: String,
    /// The signed comment, such as `backup orders 20261122T021500Z`.
    pub comment: String,
}

impl Trust {
    /// `base`: the directory that relative paths start from.
    pub fn load(keys: &[TrustedKey], base: &Path) -> Result<Self, Stop> {
        if keys.is_empty() {
            return Err(Stop::new(
                Reason::Internal,
                "no trusted key is named, and without one no backup can be believed",
            ));
        }
        let load = |key: &TrustedKey| match key {
            TrustedKey::File(file) => {
                let path: PathBuf = base.join(file);
                let name = path.file_name().map_or_else(|| file.clone(), |name| name.to_string_lossy().into_owned());
                PublicKey::load(&path).map(|key| (name, key))
            }
            TrustedKey::Inline(text) => PublicKey::parse(text).map(|key| (format!("key {}", key.key_id()), key)),
        };
        keys.iter().map(load).collect::<Result<_, _>>().map(Self)
    }

    /// `signature` is the text of a `.minisig` file. Only prehashed signatures count (minisign's own default since 0.10):
    /// a raw signature over the same bytes could have been made for another purpose.
    pub fn verify(&self, content: &[u8], signature: &str, what: &str) -> Result<Signer, Stop> {
        let write = |to: &mut dyn Write| to.write_all(content).or_stop(Reason::Internal, "hashing");
        self.verify_stream(signature, what, write).map(|(signer, ())| signer)
    }

    /// Of content of any length: `write` writes it, once for each trusted key that the signature names. Its result is the one
    /// of the content that was signed.
    pub fn verify_stream<T>(
        &self,
        signature: &str,
        what: &str,
        write: impl Fn(&mut dyn Write) -> Result<T, Stop>,
    ) -> Result<(Signer, T), Stop> {
        let refused = |why: String| Stop::new(Reason::ArtifactRefused, why);
        let parsed = minisign_verify::Signature::decode(signature)
            .map_err(|error| refused(format!("the signature of {what} is not a minisign signature: {error}")))?;
        let mut seen_key = None;
        for (name, public) in &self.0 {
            let Ok(key) = minisign_verify::PublicKey::from_base64(&public.to_base64()) else { continue };
            let verified = match key.verify_stream(&parsed) {
                Ok(verifier) => {
                    let mut verifier = Hashing(verifier);
                    let written = write(&mut verifier)?;
                    verifier.0.finalize().map(|()| written)
                }
                Err(error) => Err(error),
            };
            match verified {
                Ok(written) => {
                    let comment = parsed.trusted_comment().to_owned();
                    return Ok((Signer { name: name.clone(), key_id: public.key_id(), comment }, written));
                }
                Err(minisign_verify::Error::UnexpectedKeyId) => {}
                Err(minisign_verify::Error::UnexpectedAlgorithm | minisign_verify::Error::UnsupportedLegacyMode) => {
                    return Err(refused(format!(
                        "the signature of {what} is of the legacy kind that is not prehashed"
                    ))
                    .advise("sign it again with minisign 0.10 or later, without -l"));
                }
                Err(_) => seen_key = Some(name),
            }
        }
        let trusted =
            self.0.iter().map(|(name, key)| format!("{name} ({})", key.key_id())).collect::<Vec<_>>().join(", ");
        let Some(name) = seen_key else {
            let signer = signer_id(signature).unwrap_or_else(|| "an unknown key".to_owned());
            return Err(refused(format!("{what} is signed by {signer}, and trusted is only {trusted}"))
                .advise("if that key is yours, add its .pub file to the trusted keys"));
        };
        Err(refused(format!("{what} is not what {name} signed: it, or its signature, was changed"))
            .advise("treat this backup as tampered with until you know who changed it"))
    }
}

struct Hashing<'a>(minisign_verify::StreamVerifier<'a>);

impl Write for Hashing<'_> {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.update(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

/// The key id that a signature names. Not proven by anything: for the message only.
fn signer_id(signature: &str) -> Option<String> {
    use base64::Engine as _;
    let bytes = base64::engine::general_purpose::STANDARD.decode(signature.lines().nth(1)?.trim()).ok()?;
    let id = <[u8; 8]>::try_from(bytes.get(2..10)?).ok()?;
    Some(format!("key {:016X}", u64::from_le_bytes(id)))
}

#[cfg(test)]
mod tests {
    use super::super::{SigningKey, signing};
    use super::*;

    fn key() -> SigningKey {
        SigningKey::parse(&signing::make(None).expect("a key").0, None).expect("its own format")
    }

    fn trusting(keys: &[&SigningKey]) -> Trust {
        let keys: Vec<_> = keys.iter().map(|key| TrustedKey::Inline(key.public().to_base64())).collect();
        Trust::load(&keys, Path::new("/")).expect("public keys")
    }

    #[test]
    fn the_key_that_signed_is_found_among_the_trusted_ones() {
        let (ours, other) = (key(), key());
        let signature = ours.sign_detached(b"manifest", "backup orders\n2026").expect("signed");
        let signer = trusting(&[&other, &ours]).verify(b"manifest", &signature, "manifest.json").expect("trusted");
        assert_eq!(signer.name, format!("key {}", ours.key_id()));
        assert_eq!(signer.comment, "backup orders?2026");
    }

    #[test]
    fn refusals_say_which_of_the_three_is_wrong() {
        let (ours, other) = (key(), key());
        let signature = ours.sign_detached(b"manifest", "x").expect("signed");
        let refuse = |trust: &Trust, content: &[u8], signature: &str| {
            let stop = trust.verify(content, signature, "manifest.json").expect_err("refused");
            assert_eq!(stop.reason, Reason::ArtifactRefused);
            stop.message
        };
        let edited = refuse(&trusting(&[&ours]), b"Manifest", &signature);
        assert!(edited.contains("is not what"), "{edited}");
        let stranger = refuse(&trusting(&[&other]), b"manifest", &signature);
        assert!(stranger.contains(&ours.key_id()) && stranger.contains(&other.key_id()), "{stranger}");
        let garbage = refuse(&trusting(&[&ours]), b"manifest", "hello");
        assert!(garbage.contains("not a minisign signature"), "{garbage}");
        let comment = refuse(&trusting(&[&ours]), b"manifest", &signature.replace("comment: x", "comment: y"));
        assert!(comment.contains("is not what"), "{comment}");
    }
}
