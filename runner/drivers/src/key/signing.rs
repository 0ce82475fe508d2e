use std::fmt;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use drill::secret::Secret;
use drill::stop::{OrStop, Stop};
use drill::verdict::Reason;
use minisign::{KeyPair, SecretKey, SecretKeyBox};
use zeroize::Zeroizing;

use super::{PublicKey, file};

/// A minisign secret key, decrypted. Signs what `minisign -V` verifies.
pub struct SigningKey {
    secret: SecretKey,
    public: PublicKey,
}

impl SigningKey {
    /// Byte range of the Ed25519 key pair (seed, public key) within minisign's secret key: after three algorithm names, salt,
    /// two limits and the key id.
    const PAIR: std::ops::Range<usize> = 62..126;
    const KDF: std::ops::Range<usize> = 2..4;
    const CHECKSUM: std::ops::Range<usize> = 126..158;

    /// `password` is needed where the key was made with one.
    pub fn load(path: &Path, password: Option<&Secret>) -> Result<Self, Stop> {
        let text = file::read_secret(path, "secret key")?;
        Self::parse(&text, password)
            .map_err(|stop| Stop { message: format!("secret key `{}`: {}", path.display(), stop.message), ..stop })
    }

    pub(super) fn parse(text: &str, password: Option<&Secret>) -> Result<Self, Stop> {
        let bad = |error: minisign::PError| Stop::new(Reason::Internal, format!("not a usable minisign key: {error}"));
        let Some(line) = text.lines().nth(1) else {
            return Err(Stop::new(Reason::Internal, "not a minisign secret key: its second line is absent"));
        };
        let bytes =
            Zeroizing::new(STANDARD.decode(line).map_err(|_| {
                Stop::new(Reason::Internal, "not a minisign secret key: its second line is not base64")
            })?);
        let boxed = SecretKeyBox::from(text.to_owned());
        let secret = match (bytes.get(Self::KDF), password) {
            // `minisign -W` leaves the checksum empty, which the crate calls corrupt; the pair is checked below either way.
            (Some([0, 0]), _) if bytes.get(Self::CHECKSUM).is_some_and(|sum| sum.iter().all(|byte| *byte == 0)) => {
                SecretKey::from_bytes(&bytes).map_err(bad)?
            }
            (Some([0, 0]), _) => boxed.into_unencrypted_secret_key().map_err(bad)?,
            (_, None) => {
                return Err(Stop::new(Reason::Internal, "the key is encrypted, and no password was given")
                    .advise("give the file that holds its password: --password-file FILE"));
            }
            (_, Some(password)) => boxed.into_secret_key(Some(password.expose().to_owned())).map_err(|error| {
                bad(error).advise("the password is the first line of the file, without its line end")
            })?,
        };
        Self::new(secret)
    }

    /// A key that is never written down.
    pub fn throwaway() -> Result<Self, Stop> {
        let (text, _) = make(None)?;
        Self::parse(&text, None)
    }

    fn new(secret: SecretKey) -> Result<Self, Stop> {
        let public = minisign::PublicKey::from_secret_key(&secret)
            .or_stop(Reason::Internal, "taking the public half of a secret key")?;
        let public = PublicKey::parse(&public.to_base64())?;
        let key = Self { secret, public };
        key.dalek().map(|_| key)
    }

    pub fn public(&self) -> PublicKey {
        self.public
    }

    pub fn key_id(&self) -> String {
        self.public.key_id()
    }

    /// The text of a `.minisig` file. `comment` is signed too: it says what the signature is about.
    pub fn sign_detached(&self, content: &[u8], comment: &str) -> Result<String, Stop> {
        let comment: String = comment.chars().map(|c| if c.is_control() { '?' } else { c }).collect();
        let untrusted = format!("signature from muster, key {}", self.key_id());
        minisign::sign(None, &self.secret, content, Some(&comment), Some(&untrusted))
            .map(|signature| signature.to_string())
            .or_stop(Reason::Internal, "signing")
    }

    pub(super) fn dalek(&self) -> Result<ed25519_dalek::SigningKey, Stop> {
        let bytes = Zeroizing::new(self.secret.to_bytes());
        let pair = bytes.get(Self::PAIR).and_then(|pair| <&[u8; 64]>::try_from(pair).ok());
        pair.and_then(|pair| ed25519_dalek::SigningKey::from_keypair_bytes(pair).ok()).ok_or_else(|| {
            Stop::new(Reason::Internal, "the secret key does not hold the public key that belongs to it")
        })
    }
}

impl fmt::Debug for SigningKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SigningKey({})", self.key_id())
    }
}

/// What `muster key generate` made.
#[derive(Debug)]
pub struct Generated {
    pub secret: PathBuf,
    pub public: PathBuf,
    pub key: PublicKey,
}

/// Writes `NAME.key` (0600) and `NAME.pub`; never replaces a file.
pub fn generate(name: &Path, password: Option<&Secret>) -> Result<Generated, Stop> {
    let with = |extension: &str| {
        let mut path = name.as_os_str().to_owned();
        path.push(extension);
        PathBuf::from(path)
    };
    let (secret_path, public_path) = (with(".key"), with(".pub"));
    let write = |path: &Path, mode, content: &str| {
        file::create(path, mode, content).map_err(|error| match error.kind() {
            ErrorKind::AlreadyExists => {
                Stop::new(Reason::Internal, format!("`{}` exists, and a key is never replaced", path.display()))
                    .advise("choose another name, or move the old key away yourself")
            }
            _ => Stop::new(Reason::Internal, format!("writing `{}`: {error}", path.display())),
        })
    };
    if public_path.symlink_metadata().is_ok() {
        return Err(write(&public_path, 0o644, "").expect_err("creating what exists fails"));
    }
    let (text, key) = make(password)?;
    write(&secret_path, 0o600, &text)?;
    write(&public_path, 0o644, &key.to_text()).inspect_err(|_| {
        let _ = std::fs::remove_file(&secret_path);
    })?;
    Ok(Generated { secret: secret_path, public: public_path, key })
}

/// The text of a new secret key file, and its public half.
pub(super) fn make(password: Option<&Secret>) -> Result<(Zeroizing<String>, PublicKey), Stop> {
    let tried = "making a key";
    let pair = match password {
        None => KeyPair::generate_unencrypted_keypair(),
        Some(password) => KeyPair::generate_encrypted_keypair(Some(password.expose().to_owned())),
    }
    .or_stop(Reason::Internal, tried)?;
    let public = PublicKey::parse(&pair.pk.to_base64())?;
    let comment = match password {
        None => format!("muster secret key {}", public.key_id()),
        Some(_) => format!("muster encrypted secret key {}", public.key_id()),
    };
    let text = pair.sk.to_box(Some(&comment)).or_stop(Reason::Internal, tried)?.into_string();
    Ok((Zeroizing::new(text), public))
}

/// The first line of a file, so that a password never stands in a process list.
pub fn read_password(path: &Path) -> Result<Secret, Stop> {
    let text = file::read_secret(path, "password file")?;
    match text.lines().next() {
        Some(line) if !line.is_empty() => Ok(Secret::new(line.to_owned())),
        _ => Err(Stop::new(Reason::Internal, format!("password file `{}` is empty", path.display()))),
    }
}
