//! What a drill, and the daemon's configuration, may ask for beside the least.
use super::*;

const SLOW: &str = "--\n-- PostgreSQL database dump\n--\n\n-- Dumped from database version 15.18\n\
    -- Dumped by pg_dump version 15.18\n\nSET client_encoding = 'UTF8';\nCREATE TABLE public.slow (n int);\n\
    INSERT INTO public.slow VALUES (1);\nSELECT pg_sleep(32);\n\n\
    --\n-- PostgreSQL database dump complete\n--\n";

#[test]
fn a_claim_an_orchestrator_and_networks_of_production_in_a_restore_that_takes_its_time() {
    let Some(world) = World::new() else { return };
    let drill = slow_drill(&world)
        + "      orchestratorCidr: 10.251.255.1/32\n      probeInterval: 10s\n      \
           storage: { claim: { storageClass: local, size: 1GiB } }\n";
    world.place.write("shop.yaml", &drill);
    world.place.write(
        "muster.yaml",
        "apiVersion: muster.dev/v1\nkind: Config\ndrills: [.]\nproduction: { networks: ['10.250.0.10/31:5432'] }\n",
    );
    let run = world.muster(&["run", "shop.yaml", "--config", "muster.yaml", "--output", "json"]).expect(0);
    assert_eq!(run.result()["reason"], "proven", "{}", run.result());

    let proofs = run.events("isolation");
    let probes: Vec<&Value> = proofs.iter().flat_map(|proof| proof["probes"].as_array().unwrap()).collect();
    let probe = |name: &str| {
        let found = probes.iter().find(|probe| probe["name"] == name);
        *found.unwrap_or_else(|| panic!("no probe `{name}` in {probes:#?}"))
    };
    // Of the network that the configuration lists, one end is another name of what the drill lists, and one is silent.
    let silent = probe("sandbox: production at 10.250.0.11:5432, of 10.250.0.10/31:5432");
    assert!(silent["detail"].as_str().unwrap().contains("nothing answers there without a policy either"), "{silent}");
    assert_eq!(probe("an unlabelled pod that may go anywhere: production at 10.250.0.10:5432")["observed"], "open");
    let again = probe("sandbox: production at 10.250.0.10:5432 (again during restore)");
    assert_eq!(again["observed"], "closed");
    assert!(again["detail"].as_str().unwrap().contains("proofs that held: "), "{again}");
    assert_eq!(probe("a pod that no policy holds: the node (again during restore)")["observed"], "open");

    let released = run.events("released");
    let seen: Vec<&str> = released
        .iter()
        .flat_map(|release| release["proof"]["observed"].as_array().unwrap())
        .filter_map(Value::as_str)
        .collect();
    assert!(seen.iter().any(|line| line.starts_with("claim database of dr-sandbox-")), "{seen:?}");
    assert!(seen.iter().any(|line| line.starts_with("volume local-") && line.ends_with(" gone")), "{seen:?}");
    world.assert_nothing_left();
}

/// Of a dump that takes its time.
fn slow_drill(world: &World) -> String {
    let dump = world.place.write("slow.sql", SLOW);
    let digest = world.place.command("/usr/bin/sha256sum".as_ref()).arg(&dump).output().unwrap().stdout;
    let digest = String::from_utf8(digest).unwrap()[..64].to_owned();
    let source = "manifest: backups/shop/latest/manifest.json, trustedKeys: [{ file: backup.pub }]";
    world.drill_text().replace(source, &format!("dump: slow.sql, sha256: 'sha256:{digest}'"))
}

/// Calico has policies of its own, which come before those of Kubernetes: no watch of a namespace sees them.
#[test]
fn a_hole_that_no_watch_sees_ends_the_run() {
    let Some(world) = World::new() else { return };
    let mut running = world.start_text(&(slow_drill(&world) + "      probeInterval: 10s\n"));
    while running
        .next_event()
        .is_some_and(|event| event["event"] != "phase-started" || event["data"]["phase"] != "restore")
    {}
    let runs = muster(&world.place, &["runs", "--output", "json", "--limit", "1"]).expect(0).stdout;
    let run: Value = serde_json::from_str(runs.lines().next().unwrap()).unwrap();
    let sandbox = format!("dr-sandbox-{}", run["run"].as_str().unwrap());
    let hole = Hole { world: &world, name: format!("muster-test-{}", std::process::id()) };
    world.cluster.apply(&format!(
        "apiVersion: crd.projectcalico.org/v1\nkind: GlobalNetworkPolicy\nmetadata: {{ name: {} }}\nspec:\n  order: 1\n  \
         selector: projectcalico.org/namespace == '{sandbox}'\n  types: [Egress]\n  egress: [{{ action: Allow }}]\n",
        hole.name
    ));
    while running.next_event().is_some() {}
    let run = running.wait().expect(2);
    assert_breach_is_told(&run, "a policy of Calico's own", "probe-open", "sandbox: the node (connect was answered)");
    world.assert_nothing_left();
}

/// Closed when dropped.
struct Hole<'a> {
    world: &'a World,
    name: String,
}

impl Drop for Hole<'_> {
    fn drop(&mut self) {
        let kind = "globalnetworkpolicies.crd.projectcalico.org";
        self.world.cluster.try_kubectl(&["delete", kind, &self.name, "--ignore-not-found"], "");
    }
}

/// The run says so, a finding names the object, and an alert goes out.
#[track_caller]
pub(super) fn assert_breach_is_told(run: &Finished, what: &str, changed: &str, object: &str) {
    let result = run.result();
    assert_eq!(result["reason"], "isolation-breached", "{what}: {result}");
    let findings = run.events("finding");
    let finding = findings.iter().find(|finding| finding["source"] == "isolation").expect(what);
    assert_eq!(finding["subject"], changed, "{what}: {finding}");
    assert!(finding["message"].as_str().unwrap().contains(object), "{what}: {finding}");
    let lines = run.json();
    let alert = lines.iter().find(|line| line["type"] == "alert").expect(what);
    assert!(alert.to_string().contains("isolation-breached"), "{what}: {alert}");
}
