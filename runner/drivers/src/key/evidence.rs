use std::fmt;
use std::io::ErrorKind;
use std::path::Path;

use drill::stop::Stop;
use drill::verdict::Reason;
use ed25519_dalek::Signer as _;

use super::{PublicKey, SigningKey, file, signing};

/// The key that signs evidence: a minisign secret key without a password, because a daemon has nobody to ask.
pub struct EvidenceKey {
    key: ed25519_dalek::SigningKey,
    public: PublicKey,
}

impl EvidenceKey {
    /// Loads the key, or makes one (0600, and its `.pub` beside it) where there is none. True: it was made now.
    pub fn load_or_make(path: &Path) -> Result<(Self, bool), Stop> {
        if path.symlink_metadata().is_ok() {
            return Self::load(path).map(|key| (key, false));
        }
        let (text, public) = signing::make(None)?;
        match publish(path, &text) {
            Ok(()) => {
                let public_path = path.with_extension("pub");
                // For people's convenience only: whoever needs it can be given it again.
                let _ = file::create(&public_path, 0o644, &public.to_text());
                Self::load(path).map(|key| (key, true))
            }
            // Another process was first; its key is the key.
            Err(error) if error.kind() == ErrorKind::AlreadyExists => Self::load(path).map(|key| (key, false)),
            Err(error) => {
                Err(Stop::new(Reason::Internal, format!("writing evidence key `{}`: {error}", path.display())))
            }
        }
    }

    pub fn load(path: &Path) -> Result<Self, Stop> {
        Self::of(&SigningKey::load(path, None)?)
    }

    /// The text of a secret key file.
    pub fn parse(text: &str) -> Result<Self, Stop> {
        Self::of(&SigningKey::parse(text, None)?)
    }

    fn of(key: &SigningKey) -> Result<Self, Stop> {
        Ok(Self { key: key.dalek()?, public: key.public() })
    }

    /// An Ed25519 signature of `message` itself.
    pub fn sign_raw(&self, message: &[u8]) -> [u8; 64] {
        self.key.sign(message).to_bytes()
    }

    pub fn key_id(&self) -> String {
        self.public.key_id()
    }

    pub fn public(&self) -> PublicKey {
        self.public
    }
}

/// The file appears whole or not at all, and never replaces one.
fn publish(path: &Path, text: &str) -> std::io::Result<()> {
    let mut temporary = path.as_os_str().to_owned();
    temporary.push(format!(".tmp-{}", std::process::id()));
    let temporary = Path::new(&temporary);
    let _ = std::fs::remove_file(temporary);
    file::create(temporary, 0o600, text)?;
    let linked = std::fs::hard_link(temporary, path);
    let removed = std::fs::remove_file(temporary);
    linked.and(removed)
}

impl fmt::Debug for EvidenceKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "EvidenceKey({})", self.key_id())
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn a_key_is_made_once_kept_private_and_found_again() {
        let place = tempfile::tempdir().expect("a directory");
        let path = place.path().join("evidence.key");
        let (made, now) = EvidenceKey::load_or_make(&path).expect("made");
        let (again, later) = EvidenceKey::load_or_make(&path).expect("loaded");
        assert!(now && !later);
        assert_eq!(made.public(), again.public());
        assert_eq!(path.metadata().expect("it exists").permissions().mode() & 0o777, 0o600);
        assert_eq!(PublicKey::load(&place.path().join("evidence.pub")).expect("beside it"), made.public());
        assert_eq!(std::fs::read_dir(place.path()).expect("a directory").count(), 2, "no temporary file stays");

        let signature = made.sign_raw(b"statement");
        assert_eq!(again.public().verify_raw(b"statement", &signature), Ok(()));
        assert!(again.public().verify_raw(b"Statement", &signature).is_err());
        let mut other = signature;
        other[0] ^= 1;
        assert!(again.public().verify_raw(b"statement", &other).is_err());
    }

    #[test]
    fn a_key_that_everybody_can_read_is_refused() {
        let place = tempfile::tempdir().expect("a directory");
        let path = place.path().join("evidence.key");
        EvidenceKey::load_or_make(&path).expect("made");
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o644)).expect("chmod");
        let stop = EvidenceKey::load(&path).expect_err("it is open");
        assert!(stop.message.contains("open to every user"), "{stop}");
        assert_eq!(stop.advice, Some(format!("chmod 600 {}", path.display())));
    }
}
