//! How muster logs in, and what it finds out before there is a database.
use drill::port::Credentials as _;
use drill::secret::SecretSource;
use drill::spec::{Vault, VaultAuth};
use reqwest::Method;
use serde_json::json;

use super::place::{Place, credentials_of};
use super::request;
use crate::{TestFn, test};

pub(super) fn tests() -> Vec<(&'static str, TestFn)> {
    vec![
        test!(each_line_of_the_policy_is_needed_and_its_lack_is_named),
        test!(a_mount_that_is_no_database_engine_is_named),
        test!(a_token_is_read_again_when_its_file_changes),
        test!(a_client_certificate_logs_in),
        test!(what_is_wrong_with_a_login_is_said),
        test!(a_token_is_given_back_also_where_no_lease_came_of_it),
        test!(a_token_is_renewed_before_it_ends),
    ]
}

async fn each_line_of_the_policy_is_needed_and_its_lack_is_named() {
    let (place, run) = (Place::new().await, request("poli").run);
    let vault = place.credentials();
    vault.warm_up(&run).await.expect("the policy that ships is enough");
    let policy = place.policy();
    let lines: Vec<&str> = policy.lines().filter(|line| line.starts_with("path ")).collect();
    assert_eq!(lines.len(), 10, "{policy}");
    for line in lines {
        place.set_policy(&policy.replace(line, "")).await;
        let stop = vault.warm_up(&run).await.expect_err(line);
        let path = line.split('"').nth(1).expect("a path").trim_end_matches('*');
        assert!(stop.message.contains(path), "without `{line}`: {stop}");
        assert!(stop.advice.is_some());
    }
    // And each capability of a line.
    for capability in ["\"create\", ", ", \"delete\"", ", \"sudo\"", "\"list\", "] {
        place.set_policy(&policy.replace(capability, "")).await;
        let stop = vault.warm_up(&run).await.expect_err(capability);
        let word = capability.split('"').nth(1).expect("a word");
        assert!(stop.message.contains(&format!("lacks {word} on")), "without `{word}`: {stop}");
    }
    place.set_policy(&policy).await;
    place.assert_clean_after(&[&vault], &run).await;
}

async fn a_mount_that_is_no_database_engine_is_named() {
    let (place, request) = (Place::new().await, request("moun"));
    let vault = place.credentials();
    let mount = format!("sys/mounts/{}", place.name);
    place.vault.ok(Method::DELETE, &mount, None).await;
    vault.warm_up(&request.run).await.expect_err("there is nothing");
    place.vault.ok(Method::POST, &mount, Some(json!({ "type": "pki" }))).await;
    let stop = vault.warm_up(&request.run).await.expect_err("an engine of another kind");
    assert!(stop.message.contains("a `pki` engine"), "{stop}");
    assert!(stop.advice.is_some_and(|advice| advice.starts_with("vault secrets enable -path=")));
    place.vault.ok(Method::DELETE, &mount, None).await;
    place.vault.ok(Method::POST, &mount, Some(json!({ "type": "database" }))).await;
    place.assert_clean_after(&[&vault], &request.run).await;
}

async fn a_token_is_read_again_when_its_file_changes() {
    let (place, request) = (Place::new().await, request("toke"));
    let token = async || {
        let wanted = json!({ "policies": [place.name], "no_default_policy": true, "period": "60s" });
        let made = place.vault.ok(Method::POST, "auth/token/create-orphan", Some(wanted)).await;
        made["auth"]["client_token"].as_str().expect("a token").to_owned()
    };
    let first = token().await;
    let file = place.put("token", &first);
    let vault = credentials_of(Vault { auth: VaultAuth::Token { file }, ..place.config() });
    vault.warm_up(&request.run).await.expect("a token with a newline at its end");
    let found = place.token().await.expect("it is there");
    assert!(found["last_renewal_time"].is_number(), "what is left of its life is known from a renewal");
    vault.cool_down(&request.run).await;
    assert!(place.token().await.is_some(), "it is somebody else's, and stays");
    let second = token().await;
    place.put("token", &second);
    place.vault.ok(Method::POST, "auth/token/revoke", Some(json!({ "token": first }))).await;
    vault.warm_up(&request.run).await.expect("the other token");
    place.vault.ok(Method::POST, "auth/token/revoke", Some(json!({ "token": second }))).await;
    let stop = vault.warm_up(&request.run).await.expect_err("forgotten");
    assert!(stop.message.contains("does not know muster's token"), "{stop}");
    assert!(!stop.message.contains(&second));
    assert_eq!(stop.cause.as_deref(), Some("token-invalid"));
}

async fn a_client_certificate_logs_in() {
    let (place, request) = (Place::new().await, request("cert"));
    let key = rcgen::KeyPair::generate().expect("a key");
    let mut params = rcgen::CertificateParams::new(vec!["muster.example".to_owned()]).expect("a name");
    params.distinguished_name.push(rcgen::DnType::CommonName, "muster");
    params.extended_key_usages = vec![rcgen::ExtendedKeyUsagePurpose::ClientAuth];
    let certificate = params.self_signed(&key).expect("signed").pem();
    let wanted = json!({
        "certificate": certificate, "token_policies": place.name, "token_no_default_policy": true, "token_ttl": "60s"
    });
    place.vault.ok(Method::POST, &format!("auth/cert/certs/{}", place.name), Some(wanted)).await;
    let (certificate, key) = (place.put("cert.pem", &certificate), place.put("key.pem", &key.serialize_pem()));
    let auth = VaultAuth::Certificate { mount: "cert".to_owned(), role: Some(place.name.clone()), certificate, key };
    let vault = credentials_of(Vault { auth, ..place.config() });
    vault.warm_up(&request.run).await.expect("it logs in");
    place.assert_clean_after(&[&vault], &request.run).await;
}

async fn what_is_wrong_with_a_login_is_said() {
    let (place, run) = (Place::new().await, request("wron").run);
    let said = async |config: Vault| {
        let stop = credentials_of(config).warm_up(&run).await.expect_err("it cannot");
        assert!(stop.advice.is_some(), "{stop}");
        stop.message
    };
    let right = place.config();
    place.put("not-the-secret", "a-secret-that-nobody-has");
    let with = |secret_id: SecretSource| {
        let VaultAuth::AppRole { mount, role_id, .. } = right.auth.clone() else { unreachable!("see config") };
        Vault { auth: VaultAuth::AppRole { mount, role_id, secret_id }, ..right.clone() }
    };
    let message = said(with(SecretSource::File(place.path("not-the-secret")))).await;
    assert!(message.contains("auth/approle/login") && message.contains("invalid role or secret ID"), "{message}");
    assert!(!message.contains("a-secret-that-nobody-has"), "{message}");
    let message = said(with(SecretSource::File(place.path("nothing")))).await;
    assert!(message.contains("nothing") && message.contains("cannot be read"), "{message}");
    let message = said(with(SecretSource::Env("MUSTER_TEST_NO_SUCH_VARIABLE".to_owned()))).await;
    assert!(message.contains("MUSTER_TEST_NO_SUCH_VARIABLE"), "{message}");

    // Another authority than the Vault's: nothing is sent to it.
    let stranger = rcgen::generate_simple_self_signed(vec!["127.0.0.1".to_owned()]).expect("a certificate");
    let ca = place.put("stranger.pem", &stranger.cert.pem());
    let message = said(Vault { ca, ..right.clone() }).await;
    assert!(message.contains("it cannot be reached"), "{message}");
}

/// As when a run stops while it restores.
async fn a_token_is_given_back_also_where_no_lease_came_of_it() {
    let (place, first, second) = (Place::new().await, request("frst").run, request("scnd").run);
    let vault = place.credentials();
    assert_eq!(place.tokens().await.len(), 1, "root's own");
    vault.warm_up(&first).await.expect("warm");
    vault.warm_up(&second).await.expect("warm");
    assert_eq!(place.tokens().await.len(), 2);
    vault.cool_down(&first).await;
    assert_eq!(place.tokens().await.len(), 2, "another run still needs it");
    vault.cool_down(&second).await;
    assert_eq!(place.tokens().await.len(), 1, "given back");
    vault.cool_down(&second).await;
}

async fn a_token_is_renewed_before_it_ends() {
    let (place, run) = (Place::new().await, request("rene").run);
    let role = format!("auth/approle/role/{}", place.name);
    place.vault.ok(Method::POST, &role, Some(json!({ "token_period": "5s" }))).await;
    let vault = place.credentials();
    let renewed = async {
        loop {
            vault.warm_up(&run).await.expect("warm");
            if place.token().await.is_some_and(|token| token["last_renewal_time"].is_number()) {
                return;
            }
            tokio::time::sleep(std::time::Duration::from_millis(200)).await;
        }
    };
    tokio::time::timeout(std::time::Duration::from_mins(1), renewed).await.expect("it is renewed");
    place.assert_clean_after(&[&vault], &run).await;
}
