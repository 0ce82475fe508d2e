use std::fmt;
use std::path::Path;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use drill::stop::Stop;
use drill::verdict::Reason;

use super::file;

/// A minisign public key: an Ed25519 key with an identifier of eight random bytes.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct PublicKey {
    id: [u8; 8],
    key: [u8; 32],
}

impl PublicKey {
    /// `Ed`, key id, key; see <https://jedisct1.github.io/minisign/#public-key-format>.
    const BYTES: usize = 2 + 8 + 32;

    pub fn load(path: &Path) -> Result<Self, Stop> {
        Self::parse(&file::read_public(path, "public key")?)
            .map_err(|stop| Stop { message: format!("public key `{}`: {}", path.display(), stop.message), ..stop })
    }

    /// The text of a `.pub` file; the comment line may be absent.
    pub fn parse(text: &str) -> Result<Self, Stop> {
        let bad = |why: &str| {
            Stop::new(Reason::Internal, format!("not a minisign public key: {why}"))
                .advise("name the .pub file that `muster key generate` or `minisign -G` wrote, or its second line")
        };
        let mut lines = text.lines().map(str::trim).filter(|line| !line.is_empty());
        let mut line = lines.next().ok_or_else(|| bad("it is empty"))?;
        if line.starts_with("untrusted comment:") {
            line = lines.next().ok_or_else(|| bad("there is nothing after the comment"))?;
        }
        if lines.next().is_some() {
            return Err(bad("there is more than one line of key"));
        }
        let bytes = STANDARD.decode(line).map_err(|_| bad("the line of the key is not base64"))?;
        if bytes.len() != Self::BYTES {
            return Err(bad(&format!("it has {} bytes instead of {}", bytes.len(), Self::BYTES)));
        }
        if bytes[..2] != *b"Ed" {
            return Err(bad("its algorithm is not Ed25519"));
        }
        let mut public = Self { id: [0; 8], key: [0; 32] };
        public.id.copy_from_slice(&bytes[2..10]);
        public.key.copy_from_slice(&bytes[10..]);
        public.dalek().ok_or_else(|| bad("it is not a point of the curve, or a weak one"))?;
        Ok(public)
    }

    /// As minisign prints it: sixteen hexadecimal digits.
    pub fn key_id(&self) -> String {
        format!("{:016X}", u64::from_le_bytes(self.id))
    }

    /// The line that stands in a `.pub` file and in `trustedKeys`.
    pub fn to_base64(&self) -> String {
        let mut bytes = b"Ed".to_vec();
        bytes.extend_from_slice(&self.id);
        bytes.extend_from_slice(&self.key);
        STANDARD.encode(bytes)
    }

    /// The text of a `.pub` file.
    pub fn to_text(&self) -> String {
        format!("untrusted comment: minisign public key {}\n{}\n", self.key_id(), self.to_base64())
    }

    pub fn key_bytes(&self) -> &[u8; 32] {
        &self.key
    }

    /// An Ed25519 signature of `message` itself, with the strict rules (RFC 8032, no weak keys, no malleable signature).
    pub fn verify_raw(&self, message: &[u8], signature: &[u8; 64]) -> Result<(), Stop> {
        self.dalek()
            .and_then(|key| key.verify_strict(message, &ed25519_dalek::Signature::from_bytes(signature)).ok())
            .ok_or_else(|| {
                Stop::new(Reason::ArtifactRefused, format!("the signature is not one of key {}", self.key_id()))
            })
    }

    fn dalek(&self) -> Option<ed25519_dalek::VerifyingKey> {
        ed25519_dalek::VerifyingKey::from_bytes(&self.key).ok().filter(|key| !key.is_weak())
    }
}

impl fmt::Debug for PublicKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "PublicKey({})", self.key_id())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LINE: &str = "RWQf6LRCGA9i53mlYecO4IzT51TGPpvWucNSCh1CBM0QTaLn73Y7GFO3";

    #[test]
    fn a_public_key_is_read_with_and_without_its_comment() {
        let bare = PublicKey::parse(LINE).expect("minisign's own key");
        let file = PublicKey::parse(&format!("untrusted comment: minisign\r\n{LINE}\r\n")).expect("a .pub file");
        assert_eq!(bare, file);
        assert_eq!(bare.key_id(), "E7620F1842B4E81F");
        assert_eq!(PublicKey::parse(&bare.to_text()).expect("our own text"), bare);
        assert_eq!(bare.to_base64(), LINE);
    }

    #[test]
    fn what_is_not_a_public_key_is_refused_with_why() {
        let weak = STANDARD.encode([b"Ed".as_slice(), &[0; 8], &[1], &[0; 31]].concat());
        for (text, why) in [
            ("", "empty"),
            ("untrusted comment: x\n", "nothing after"),
            ("hello", "base64"),
            ("aGVsbG8=", "5 bytes"),
            (weak.as_str(), "weak"),
            (&format!("{LINE}\n{LINE}"), "more than one"),
        ] {
            let stop = PublicKey::parse(text).expect_err(text);
            assert!(stop.message.contains(why), "{text}: {stop}");
        }
    }
}
