//! From where the configuration says that a secret is to the secret. Its words are in no error.
use std::ffi::OsString;
use std::fs::File;
use std::io::Read;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use drill::secret::Secret;
use drill::secret::SecretSource;
use drill::stop::Stop;
use zeroize::Zeroizing;

/// Where systemd puts what `LoadCredential=` names; the one variable that a path may begin with.
const CREDENTIALS: &str = "CREDENTIALS_DIRECTORY";
/// Bytes of a secret.
const MAX: u64 = 65_536;

/// Reads it. `what` says whose secret it is.
pub fn read(source: &SecretSource, what: &str) -> Result<Secret, Stop> {
    read_with(source, what, |name| std::env::var_os(name))
}

fn read_with(source: &SecretSource, what: &str, variable: impl Fn(&str) -> Option<OsString>) -> Result<Secret, Stop> {
    let text = match source {
        SecretSource::Env(name) => {
            let text = variable(name).ok_or_else(|| {
                Stop::internal(format!("{what}: the environment has no variable {name}"))
                    .advise("set it where muster is started, or name a file: { file: PATH }")
            })?;
            text.into_string().map_err(|_| Stop::internal(format!("{what}: the variable {name} is not UTF-8")))?
        }
        SecretSource::File(path) => {
            let path = expand_with(path, variable)?;
            let shown = path.display();
            let failed = |error: std::io::Error| {
                Stop::internal(format!("{what}: {shown} cannot be read: {error}"))
                    .advise("name a file that muster's user may read, and nobody else")
            };
            // A String that grows leaves pieces of the secret behind.
            let mut bytes = Zeroizing::new(Vec::with_capacity(usize::try_from(MAX).unwrap_or(0) + 1));
            File::open(&path).and_then(|file| file.take(MAX + 1).read_to_end(&mut bytes)).map_err(failed)?;
            if bytes.len() as u64 > MAX {
                return Err(Stop::internal(format!("{what}: {shown} is longer than {MAX} bytes")));
            }
            let text = std::str::from_utf8(&bytes);
            text.map_err(|_| Stop::internal(format!("{what}: {shown} is not UTF-8")))?.to_owned()
        }
    };
    let text = Zeroizing::new(text);
    let secret = text.strip_suffix('\n').map_or(text.as_str(), |line| line.strip_suffix('\r').unwrap_or(line));
    if secret.is_empty() {
        return Err(Stop::internal(format!("{what}: it is empty")).advise("an empty secret protects nothing"));
    }
    Ok(Secret::new(secret.to_owned()))
}

/// With the directory of systemd's credentials filled in.
pub fn expand(path: &Path) -> Result<PathBuf, Stop> {
    expand_with(path, |name| std::env::var_os(name))
}

fn expand_with(path: &Path, variable: impl Fn(&str) -> Option<OsString>) -> Result<PathBuf, Stop> {
    match path.strip_prefix(format!("${{{CREDENTIALS}}}")) {
        Err(_) => Ok(path.to_owned()),
        Ok(within) => variable(CREDENTIALS).map(|directory| PathBuf::from(directory).join(within)).ok_or_else(|| {
            Stop::internal(format!("{}: there is no {CREDENTIALS}", path.display()))
                .advise("systemd sets it for a unit with LoadCredential=; elsewhere name the file itself")
        }),
    }
}

/// What a person should know about a file that holds a secret, without looking into it.
pub fn trouble(path: &Path) -> Option<String> {
    match path.metadata() {
        Err(error) => Some(format!("{error}")),
        Ok(found) if !found.is_file() => Some("it is not a file".to_owned()),
        Ok(found) if found.mode() & 0o077 != 0 => {
            Some(format!("others may read it (mode {:o}): chmod 600", found.mode() & 0o777))
        }
        Ok(_) => None,
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a test fails by panicking")]
    use super::*;

    const CANARY: &str = "canary-5e1f";

    #[test]
    fn a_secret_is_a_file_or_a_variable_without_its_newline() {
        let place = tempfile::tempdir().unwrap();
        std::fs::write(place.path().join("key"), format!("{CANARY}\r\n")).unwrap();
        let variable = |name: &str| match name {
            "HOOK" => Some(CANARY.into()),
            CREDENTIALS => Some(place.path().as_os_str().to_owned()),
            _ => None,
        };
        let file = place.path().join("key");
        for source in [
            SecretSource::Env("HOOK".to_owned()),
            SecretSource::File(file),
            SecretSource::File("${CREDENTIALS_DIRECTORY}/key".into()),
        ] {
            assert_eq!(read_with(&source, "webhook `chat`", variable).unwrap().expose(), CANARY);
        }
    }

    #[test]
    fn what_is_wrong_is_said_without_the_secret() {
        let place = tempfile::tempdir().unwrap();
        let write = |name: &str, bytes: &[u8]| {
            std::fs::write(place.path().join(name), bytes).unwrap();
            SecretSource::File(place.path().join(name))
        };
        let long = CANARY.repeat(10_000);
        let cases = [
            (SecretSource::Env("NONE".to_owned()), "no variable NONE"),
            (SecretSource::File("/nowhere/key".into()), "/nowhere/key cannot be read"),
            (SecretSource::File("${CREDENTIALS_DIRECTORY}/key".into()), "there is no CREDENTIALS_DIRECTORY"),
            (write("empty", b"\n"), "it is empty"),
            (write("long", long.as_bytes()), "longer than"),
            (write("binary", &[CANARY.as_bytes(), b"\xff"].concat()), "not UTF-8"),
        ];
        for (source, said) in cases {
            let stop = read_with(&source, "webhook `chat`", |_| None).unwrap_err();
            assert!(stop.message.contains(said) && !format!("{stop:?}").contains("canary"), "{stop:?}");
        }
    }
}
