//! The key that signs evidence: the configured one, or one that muster made for itself.
use std::path::Path;

use drill::secret::SecretSource;
use drill::stop::Stop;
use drivers::key::EvidenceKey;

use super::write::blocking;

/// Within the state directory; its public half is [`PUBLIC_KEY_NAME`].
pub const KEY_NAME: &str = "evidence.key";
pub const PUBLIC_KEY_NAME: &str = "evidence.pub";

/// The key that the configuration names, or what is wrong with it. Blocks for a moment.
pub fn configured(source: &SecretSource) -> Result<EvidenceKey, Stop> {
    let advice = "name a secret key without a password, as `muster key generate NAME` makes them";
    match source {
        SecretSource::File(path) => EvidenceKey::load(path)
            .map_err(|stop| Stop {
                message: format!("the evidence key of the configuration: {}", stop.message),
                ..stop
            })
            .map_err(|stop| if stop.advice.is_some() { stop } else { stop.advise(advice) }),
        SecretSource::Env(name) => {
            let wrong = |what: &str| {
                let message = format!("the evidence key of the configuration, environment variable {name}: {what}");
                Stop::internal(message).advise(advice)
            };
            match std::env::var(name) {
                Err(std::env::VarError::NotPresent) => Err(wrong("it is not set")),
                Err(std::env::VarError::NotUnicode(_)) => Err(wrong("it is not UTF-8")),
                Ok(text) => EvidenceKey::parse(&text).map_err(|stop| wrong(&stop.message)),
            }
        }
    }
}

/// The key of the state directory. True: it was made now.
pub(super) async fn self_made(state_directory: &Path) -> Result<(EvidenceKey, bool), Stop> {
    let path = state_directory.join(KEY_NAME);
    blocking(move || EvidenceKey::load_or_make(&path)).await
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a test fails by panicking")]
    use super::*;

    #[test]
    fn a_key_that_cannot_be_used_is_said_at_once_and_never_shown() {
        let place = tempfile::tempdir().unwrap();
        let path = place.path().join("evidence.key");
        let (made, _) = EvidenceKey::load_or_make(&path).unwrap();
        assert_eq!(configured(&SecretSource::File(path.clone())).unwrap().public(), made.public());
        let text = std::fs::read_to_string(&path).unwrap();
        assert_eq!(EvidenceKey::parse(&text).unwrap().public(), made.public());

        std::fs::write(&path, text.replace("secret key", "secret key\nCANARY")).unwrap();
        for source in [
            SecretSource::File(path),
            SecretSource::File(place.path().join("none")),
            SecretSource::Env("MUSTER_TEST_NO_SUCH_VARIABLE".to_owned()),
            // What PATH holds is no key, and may not be printed.
            SecretSource::Env("PATH".to_owned()),
        ] {
            let stop = configured(&source).unwrap_err();
            assert!(stop.message.contains("the evidence key of the configuration"), "{stop}");
            assert!(stop.advice.is_some(), "{stop}");
            assert!(!stop.message.contains("CANARY") && !stop.message.contains("/bin"), "{stop}");
        }
    }
}
