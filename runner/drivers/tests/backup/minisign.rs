//! The real `minisign` and muster agree in both directions.
use std::path::Path;
use std::process::{Command, Output};

use drill::secret::Secret;
use drill::spec::TrustedKey;
use drivers::key::{SigningKey, Trust, generate, read_password};

fn minisign(arguments: &[&str], directory: &Path) -> Output {
    Command::new("minisign")
        .args(arguments)
        .current_dir(directory)
        .output()
        .expect("minisign is installed by `make setup`")
}

#[test]
fn minisign_accepts_what_muster_signs() {
    let place = tempfile::tempdir().unwrap();
    let password = Secret::new("correct horse".to_owned());
    for password in [None, Some(&password)] {
        let name = place.path().join(if password.is_some() { "locked" } else { "open" });
        let made = generate(&name, password).unwrap();
        let key = SigningKey::load(&made.secret, password).unwrap();
        let manifest = place.path().join("manifest.json");
        std::fs::write(&manifest, b"{}\n").unwrap();
        let signature = key.sign_detached(b"{}\n", "backup orders").unwrap();
        std::fs::write(place.path().join("manifest.json.minisig"), signature).unwrap();
        let public = made.public.to_str().unwrap();
        let output = minisign(&["-V", "-p", public, "-m", "manifest.json"], place.path());
        let text = String::from_utf8_lossy(&output.stdout);
        assert!(output.status.success(), "{output:?}");
        assert!(text.contains("Trusted comment: backup orders"), "{text}");
        // minisign can read the secret key, too.
        if password.is_none() {
            let secret = made.secret.to_str().unwrap();
            let output = minisign(&["-S", "-s", secret, "-m", "manifest.json", "-x", "again"], place.path());
            assert!(output.status.success(), "{output:?}");
        }
        std::fs::write(&manifest, b"{ }\n").unwrap();
        assert!(!minisign(&["-V", "-p", public, "-m", "manifest.json"], place.path()).status.success());
    }
}

#[test]
fn muster_accepts_what_minisign_signs() {
    let place = tempfile::tempdir().unwrap();
    let made = minisign(&["-G", "-W", "-p", "backup.pub", "-s", "backup.key"], place.path());
    assert!(made.status.success(), "{made:?}");
    std::fs::write(place.path().join("manifest.json"), b"{}\n").unwrap();
    let trust = Trust::load(&[TrustedKey::File("backup.pub".to_owned())], place.path()).unwrap();
    let signature = || std::fs::read_to_string(place.path().join("manifest.json.minisig")).unwrap();

    let signed = minisign(&["-S", "-W", "-s", "backup.key", "-m", "manifest.json", "-t", "by hand"], place.path());
    assert!(signed.status.success(), "{signed:?}");
    let by_hand = trust.verify(b"{}\n", &signature(), "manifest.json").unwrap();
    assert_eq!((by_hand.name.as_str(), by_hand.comment.as_str()), ("backup.pub", "by hand"));

    let legacy = minisign(&["-S", "-l", "-s", "backup.key", "-m", "manifest.json"], place.path());
    assert!(legacy.status.success(), "{legacy:?}");
    let stop = trust.verify(b"{}\n", &signature(), "manifest.json").unwrap_err();
    assert!(stop.message.contains("legacy"), "{stop}");

    // Its secret key signs here.
    let key = SigningKey::load(&place.path().join("backup.key"), None).unwrap();
    let ours = key.sign_detached(b"{}\n", "by muster").unwrap();
    assert_eq!(trust.verify(b"{}\n", &ours, "manifest.json").unwrap().comment, "by muster");
}

#[test]
fn a_key_is_never_replaced_and_a_password_is_asked_for() {
    use std::os::unix::fs::PermissionsExt as _;
    let place = tempfile::tempdir().unwrap();
    let name = place.path().join("backup");
    let made = generate(&name, None).unwrap();
    assert_eq!(made.secret.metadata().unwrap().permissions().mode() & 0o777, 0o600);
    let before = std::fs::read(&made.secret).unwrap();
    assert!(generate(&name, None).unwrap_err().message.contains("never replaced"));
    std::fs::remove_file(&made.public).unwrap();
    assert!(generate(&name, None).unwrap_err().message.contains("never replaced"));
    assert_eq!(std::fs::read(&made.secret).unwrap(), before);
    std::fs::remove_file(&made.secret).unwrap();
    std::fs::write(&made.public, "mine").unwrap();
    assert!(generate(&name, None).is_err());
    assert!(!made.secret.exists(), "half a pair is no pair");

    let password_file = place.path().join("password");
    std::fs::write(&password_file, "s3cret\n").unwrap();
    std::fs::set_permissions(&password_file, std::fs::Permissions::from_mode(0o600)).unwrap();
    let password = read_password(&password_file).unwrap();
    let locked = generate(&place.path().join("locked"), Some(&password)).unwrap();
    let stop = SigningKey::load(&locked.secret, None).unwrap_err();
    assert!(stop.message.contains("encrypted") && stop.advice.unwrap().contains("--password-file"));
    let wrong = Secret::new("wrong".to_owned());
    assert!(SigningKey::load(&locked.secret, Some(&wrong)).unwrap_err().message.contains("assword"));
}
