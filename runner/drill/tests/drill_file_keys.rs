//! A drill file that holds every key: none is ignored, and the JSON Schema knows the same.
#![expect(clippy::unwrap_used, reason = "a test that cannot go on has failed")]
use drill::file::{Options, json_schema, parse, render};
use drill::ledger::Damage;
use drill::spec::Drill;
use serde_json::{Value, json};

fn read(text: &str) -> Result<Drill, String> {
    parse(text, Options::default()).map_err(|problems| render(&problems, "drill.yaml", text, false))
}

/// Every key that this version offers, none at its default.
fn full() -> Value {
    full_where(Damage::Byte)
}

/// One damage has no schedule of its own.
fn full_where(shares: Damage) -> Value {
    let schedule = json!({
        "cron": "0 5 * * 0", "timezone": "Europe/Berlin", "jitter": "9m", "startDeadline": "2h", "missed": "run-once",
        "blackout": [{ "cron": "0 0 25 12 *", "duration": "24h" }],
    });
    let own = json!({ "schedule": { "cron": "0 6 * * 0", "timezone": "Europe/Paris", "jitter": "8m", "startDeadline": "3h",
        "missed": "run-once", "blackout": [{ "cron": "0 0 26 12 *", "duration": "25h" }] } });
    // The shared schedule is for whoever has none of its own.
    let own = |damage: Damage| if damage == shares { json!({}) } else { own.clone() };
    let damages: serde_json::Map<String, Value> =
        Damage::ALL.iter().map(|damage| (damage.as_str().to_owned(), own(*damage))).collect();
    let checks = [("schema", "schema"), ("rows", "row-count"), ("content", "checksum")];
    let builtins = checks.map(|(name, plugin)| json!({ "name": name, "plugin": format!("builtin:{plugin}") }));
    let mut full = json!({
        "apiVersion": "muster.dev/v1",
        "kind": "Drill",
        "metadata": { "name": "full", "labels": { "team": "payments" } },
        "spec": {
            "schedule": {
                "cron": "15 2 * * *", "timezone": "Europe/Berlin", "jitter": "10m", "startDeadline": "1h", "missed": "run-once",
                "blackout": [{ "cron": "0 0 24 12 *", "duration": "72h" }],
            },
            "objectives": { "recoveryTime": "31m", "recoveryPoint": "25h" },
            "source": {
                "manifest": "a/manifest.json",
                "trustedKeys": [
                    { "file": "backup.pub" },
                    { "inline": "RWQf6LRCGA9i53mlYecO4IzT51TGPpvWucNSCh1CBM0QTaLn73Y7GFO3" },
                ],
                "fallbacks": [{
                    "manifest": "b/manifest.json",
                    "trustedKeys": [
                        { "file": "offsite.pub" },
                        { "inline": "RWQf6LRCGA9i53mlYecO4IzT51TGPpvWucNSCh1CBM0QTaLn73Y7GFO3" },
                    ],
                }],
                "exercise": "all",
            },
            "engine": { "postgresql": { "major": 15, "jobs": 7, "fidelity": "fast", "settings": { "shared_buffers": "1GB" } } },
            "isolation": {
                "local": { "limits": { "memory": "5GiB", "disk": "51GiB", "processes": 201, "enforcement": "required" } },
            },
            "credentials": { "embedded": { "ttl": "16m" } },
            "checks": [{
                "name": "own",
                "plugin": format!("own.wasm@sha256:{}", "0a".repeat(32)),
                "grants": { "sql": {}, "baseline": {}, "catalog": {}, "digest": {} },
                "limits": {
                    "memory": "65MiB", "cpuTime": "11s", "wallTime": "6m", "logBytes": "65KiB", "findings": 1001, "metrics": 101,
                    "handles": 65,
                },
                "options": { "deep": [{ "x": null }] },
            }],
            "deadlines": {
                "preflight": "2m", "verify": "11m", "sandbox": "3m", "restore": "2h", "lease": "2m", "validate": "31m",
                "teardown": "6m",
            },
            "selfTest": { "schedule": schedule, "damages": damages },
        },
    });
    let checks = full["spec"]["checks"].as_array_mut().unwrap();
    checks.extend(builtins);
    full
}

/// The same, of a dump without a manifest.
fn full_of_a_dump() -> Value {
    let mut value = full();
    value["spec"]["source"] = json!({
        "dump": "orders.dump",
        "sha256": format!("sha256:{}", "0a".repeat(32)),
        "signature": "signatures/orders.minisig",
        "timezone": "Europe/Berlin",
        "trustedKeys": [{ "file": "backup.pub" }],
    });
    value["spec"].as_object_mut().unwrap().remove("selfTest");
    value
}

/// The same, in a cluster.
fn full_in_a_cluster() -> Value {
    let mut value = full();
    value["spec"]["isolation"] = json!({ "kubernetes": {
        "context": "staging",
        "image": format!("registry.example/postgres@sha256:{}", "0a".repeat(32)),
        "musterImage": format!("registry.example/muster@sha256:{}", "0b".repeat(32)),
        "limits": { "memory": "3GiB", "disk": "52GiB", "cpuMillis": 1500 },
        "production": ["10.20.0.5:5432", "10.21.0.0/16:5432"],
        "orchestratorCidr": "10.30.0.0/24",
        "probeInterval": "45s",
        "storage": { "claim": { "storageClass": "fast", "size": "53GiB" } },
        "port": 6432,
        "removeFinalizersAfter": "3m",
    } });
    value
}

/// The same, with a backup that is there already: such a drill has one source, and no self-test.
fn full_on_a_volume() -> Value {
    let mut value = full_in_a_cluster();
    value["spec"]["isolation"]["kubernetes"]["artifact"] =
        json!({ "volume": { "name": "backups-orders", "path": "orders/latest" } });
    let spec = value["spec"].as_object_mut().unwrap();
    spec.remove("selfTest");
    let source = spec["source"].as_object_mut().unwrap();
    source.remove("fallbacks");
    source.remove("exercise");
    value
}

#[test]
fn what_a_backup_on_a_volume_cannot_have_is_said_at_once() {
    let with = |more: &dyn Fn(&mut Value)| {
        let mut value = full_on_a_volume();
        more(&mut value);
        read(&value.to_string())
    };
    let drill = with(&|_| ()).unwrap();
    let volume = drill.isolation.volume().unwrap();
    assert_eq!((volume.name.as_str(), volume.path.as_deref()), ("backups-orders", Some("orders/latest")));
    assert!(drill.damages().is_empty(), "there is no copy to damage");
    let all = with(&|value| {
        value["spec"]["selfTest"] = full()["spec"]["selfTest"].clone();
        value["spec"]["source"]["fallbacks"] = full()["spec"]["source"]["fallbacks"].clone();
    });
    let all = all.unwrap_err();
    assert!(all.contains("has no `fallbacks`") && all.contains("`selfTest` damages a copy"), "{all}");
    let dump = with(&|value| value["spec"]["source"] = full_of_a_dump()["spec"]["source"].clone()).unwrap_err();
    assert!(dump.contains("needs a manifest"), "{dump}");
    for path in ["", "/orders", "orders/", "a/../b", "./a", "a\u{7}"] {
        let said = with(&|value| value["spec"]["isolation"]["kubernetes"]["artifact"]["volume"]["path"] = json!(path));
        assert!(said.unwrap_err().contains("is no directory on a volume"), "{path}");
    }
    let neither = with(&|value| value["spec"]["isolation"]["kubernetes"]["artifact"] = json!({})).unwrap_err();
    assert!(neither.contains("volume"), "{neither}");
}

/// The same, with a Vault that comes in by a doorway.
fn full_with_doorways() -> [Value; 2] {
    let doorways = [
        json!({ "addresses": ["192.0.2.10", "2001:db8::10"] }),
        json!({ "pods": { "namespace": "vault", "labels": { "app.kubernetes.io/name": "vault" } } }),
    ];
    doorways.map(|doorway| {
        let mut value = full_in_a_cluster();
        value["spec"]["isolation"]["kubernetes"]["doorway"] = doorway;
        value["spec"]["credentials"] = json!({ "vault": vaults().swap_remove(0) });
        value
    })
}

/// JSON is YAML: each key of the full file in turn is taken out, and the result must notice.
#[test]
fn no_key_is_ignored() {
    let of_all_kinds =
        [full(), full_where(Damage::Signature), full_of_a_dump(), full_in_a_cluster(), full_on_a_volume()];
    for full in of_all_kinds.into_iter().chain(full_with_doorways()) {
        no_key_of(&full);
    }
}

fn no_key_of(full: &Value) {
    let whole = parsed(full).unwrap();
    let mut paths = Vec::new();
    pointers(full, "", &mut paths);
    assert!(paths.len() > 50);
    for pointer in paths {
        let mut less = full.clone();
        let (parent, key) = pointer.rsplit_once('/').unwrap();
        let removed = match less.pointer_mut(parent).unwrap() {
            Value::Object(map) => map.remove(&key.replace("~1", "/")),
            Value::Array(list) => Some(list.remove(key.parse().unwrap())),
            _ => None,
        };
        assert!(removed.is_some(), "{pointer}");
        assert_ne!(parsed(&less).as_ref(), Ok(&whole), "{pointer} makes no difference");
    }
}

fn parsed(value: &Value) -> Result<Drill, String> {
    let drill = read(&value.to_string())?;
    Ok(Drill { digest: drill::id::Sha256Digest::from_bytes([0; 32]), ..drill })
}

fn pointers(value: &Value, at: &str, into: &mut Vec<String>) {
    let mut visit = |key: &str, value: &Value| {
        let here = format!("{at}/{}", key.replace('/', "~1"));
        into.push(here.clone());
        pointers(value, &here, into);
    };
    match value {
        Value::Object(map) => map.iter().for_each(|(key, value)| visit(key, value)),
        Value::Array(list) => list.iter().enumerate().for_each(|(index, value)| visit(&index.to_string(), value)),
        _ => {}
    }
}

/// Both ways: the full file holds every key that the schema knows and offers, and the schema knows every key of it.
#[test]
fn the_schema_and_the_parser_know_the_same_keys() {
    let schema = json_schema();
    let validator = jsonschema::validator_for(&schema).unwrap();
    for full in [full(), full_of_a_dump(), full_in_a_cluster(), full_on_a_volume()] {
        assert!(validator.is_valid(&full));
    }

    let mut known = Vec::new();
    schema_keys(&schema, "", &mut known);
    let mut written = Vec::new();
    pointers(&full(), "", &mut written);
    pointers(&full_where(Damage::Signature), "", &mut written);
    pointers(&full_of_a_dump(), "", &mut written);
    for vault in vaults() {
        assert!(validator.is_valid(&full_with(&vault)), "{vault}");
        read(&full_with(&vault).to_string()).unwrap();
        pointers(&full_with(&vault), "", &mut written);
    }
    pointers(&full_on_a_volume(), "", &mut written);
    for full in full_with_doorways() {
        assert!(validator.is_valid(&full));
        pointers(&full, "", &mut written);
    }
    let written: Vec<String> = written
        .iter()
        .map(|pointer| {
            pointer
                .split('/')
                .map(|step| if step.parse::<u32>().is_ok() { "*" } else { step })
                .collect::<Vec<_>>()
                .join("/")
        })
        .collect();
    for (key, offered) in known {
        assert_eq!(written.contains(&key), offered, "{key}");
    }

    // An unknown key and a key of a later version, at every place where there is a map with known keys.
    let mut places = vec![String::new()];
    pointers(&full(), "", &mut places);
    for place in places
        .iter()
        .filter(|place| !place.contains("/options") && !place.contains("/labels") && !place.contains("/settings"))
    {
        let mut more = full();
        let Some(Value::Object(map)) = more.pointer_mut(place) else { continue };
        map.insert("zzz".to_owned(), json!({}));
        assert!(!validator.is_valid(&more), "{place}");
        assert!(read(&more.to_string()).unwrap_err().contains("unknown key `zzz`"), "{place}");
    }
    let mut later = full();
    later.pointer_mut("/spec/source/trustedKeys/0").unwrap()["secretRef"] = json!({});
    assert!(!validator.is_valid(&later));
    let answer = read(&later.to_string()).unwrap_err();
    assert!(answer.contains("`secretRef` is not offered by this version of muster"), "{answer}");
}

fn full_with(vault: &Value) -> Value {
    let mut full = full();
    full["spec"]["credentials"] = json!({ "vault": vault });
    full
}

/// One for each way to log in, and one for each place of a secret.
fn vaults() -> Vec<Value> {
    let logins = [
        json!({ "appRole": { "mount": "teams/approle", "roleId": "7c3d", "secretId": { "file": "secret-id" } } }),
        json!({ "appRole": { "roleId": "7c3d", "secretId": { "env": "SECRET_ID" } } }),
        json!({ "kubernetes": { "mount": "k8s", "role": "muster", "tokenFile": "/var/run/token" } }),
        json!({ "token": { "file": "token" } }),
        json!({ "certificate": { "mount": "tls", "role": "muster", "certificate": "muster.pem", "key": "muster.key" } }),
    ];
    let vault = |auth| {
        json!({
            "address": "https://vault.example:8200", "ca": "vault.pem", "namespace": "teams/dr", "auth": auth,
            "mount": "drills/database", "path": "orders", "ttl": "5m", "maxTtl": "1h",
        })
    };
    logins.map(vault).to_vec()
}

/// Paths of all properties, and whether this version offers them.
fn schema_keys(schema: &Value, at: &str, into: &mut Vec<(String, bool)>) {
    for (name, property) in schema.get("properties").and_then(Value::as_object).into_iter().flatten() {
        assert!(
            property["description"].as_str().is_some_and(|text| text.ends_with('.')),
            "{at}/{name} says what it is"
        );
        let here = format!("{at}/{name}");
        into.push((here.clone(), property.get("not").is_none()));
        schema_keys(property, &here, into);
    }
    if let Some(items) = schema.get("items") {
        schema_keys(items, &format!("{at}/*"), into);
    }
}

#[test]
fn a_network_that_is_none_says_why_and_where() {
    let wrong = |key: &str, value: Value| {
        let mut full = full_in_a_cluster();
        full["spec"]["isolation"]["kubernetes"][key] = value;
        let text = serde_json::to_string_pretty(&full).unwrap();
        let line = text.lines().position(|line| line.contains(&format!("\"{key}\""))).unwrap() + 1;
        (read(&text).unwrap_err(), line)
    };
    for (key, value, why) in [
        ("orchestratorCidr", json!("10.30.0.0"), "not a network in CIDR notation"),
        ("orchestratorCidr", json!("10.30.0.7/24"), "the network itself is 10.30.0.0/24"),
        ("orchestratorCidr", json!("0.0.0.0/0"), "every address there is"),
        ("orchestratorCidr", json!("::/0"), "every address there is"),
        ("orchestratorCidr", json!("10.21.4.0/24"), "lets in what is listed as production's: 10.21.0.0/16:5432"),
        ("orchestratorCidr", json!("10.20.0.0/24"), "lets in what is listed as production's: 10.20.0.5:5432"),
        ("probeInterval", json!("9s"), "between 10.0 s and 1 h"),
        ("probeInterval", json!("2h"), "between 10.0 s and 1 h"),
        ("removeFinalizersAfter", json!("59s"), "between 1 m and 1 h"),
    ] {
        let (said, line) = wrong(key, value);
        assert!(said.contains(why) && said.contains(&format!("{line} |")), "{key}, line {line}: {said}");
    }
    let production = |targets: Value| wrong("production", targets).0;
    assert!(production(json!(["10.20.0.0/40:5432"])).contains("not a network in CIDR notation"));
    assert!(production(json!(["10.20.0.0/16"])).contains("is not an address or a network, and a port"));
    let many: Vec<String> = (0..33).map(|last| format!("10.20.0.{last}:5432")).collect();
    assert!(production(json!(many)).contains("33 targets are listed, and 32 can be tried"));
}
