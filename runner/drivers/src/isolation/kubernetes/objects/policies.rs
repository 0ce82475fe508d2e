//! Who may come to the database, and where it may go: nowhere.
use std::net::IpAddr;

use drill::spec::{Kubernetes, Visitor};
use serde_json::{Value, json};

use super::{AGENT_EGRESS, DEFAULT_DENY, DOORWAY, ISOLATION, Names, STRANGER_EGRESS};

pub(super) fn policies(names: &Names, asked: &Kubernetes) -> Vec<Value> {
    let to_database = json!({ "podSelector": { "matchLabels": { "app": "restored-db" } } });
    let from_agent = json!({ "podSelector": { "matchLabels": { "role": "validation-agent" } } });
    let orchestrator = asked.orchestrator.map(|network| json!({ "ipBlock": { "cidr": network.to_string() } }));
    let may_come: Vec<Value> = std::iter::once(from_agent).chain(orchestrator).collect();
    let port = json!([{ "protocol": "TCP", "port": asked.port }]);
    let without = |label: &str| json!({ "key": label, "operator": "DoesNotExist" });
    let policy = |name: &str, spec: Value| {
        json!({
            "apiVersion": "networking.k8s.io/v1", "kind": "NetworkPolicy",
            "metadata": names.metadata(name, &names.sandbox), "spec": spec,
        })
    };
    vec![
        policy(
            STRANGER_EGRESS,
            json!({
                "podSelector": { "matchExpressions": [without("app"), without("role")] },
                "policyTypes": ["Egress"], "egress": [{}],
            }),
        ),
        policy(
            AGENT_EGRESS,
            json!({
                "podSelector": { "matchLabels": { "role": "validation-agent" } },
                "policyTypes": ["Ingress", "Egress"], "egress": [{ "to": [to_database], "ports": port }],
            }),
        ),
        policy(
            ISOLATION,
            json!({
                "podSelector": { "matchLabels": { "app": "restored-db" } },
                "policyTypes": ["Ingress", "Egress"], "ingress": [{ "from": may_come, "ports": port }],
            }),
        ),
        policy(DEFAULT_DENY, json!({ "podSelector": {}, "policyTypes": ["Ingress", "Egress"] })),
    ]
}

/// Added to what the database's pod lets in already.
pub(super) fn doorway(names: &Names, visitor: &Visitor, port: u16) -> Value {
    let from: Vec<Value> = match visitor {
        Visitor::Addresses(addresses) => {
            let alone = |address: &IpAddr| format!("{address}/{}", if address.is_ipv4() { 32 } else { 128 });
            addresses.iter().map(|address| json!({ "ipBlock": { "cidr": alone(address) } })).collect()
        }
        Visitor::Pods { namespace, labels } => vec![json!({
            "namespaceSelector": { "matchLabels": { "kubernetes.io/metadata.name": namespace } },
            "podSelector": { "matchLabels": labels },
        })],
    };
    json!({
        "apiVersion": "networking.k8s.io/v1", "kind": "NetworkPolicy", "metadata": names.metadata(DOORWAY, &names.sandbox),
        "spec": {
            "podSelector": { "matchLabels": { "app": "restored-db" } }, "policyTypes": ["Ingress"],
            "ingress": [{ "from": from, "ports": [{ "protocol": "TCP", "port": port }] }],
        },
    })
}

#[cfg(test)]
mod tests {
    use super::super::tests::{asked, asked_for_more};
    use super::super::{PORT, template};
    use super::*;

    #[test]
    fn an_orchestrator_comes_to_the_databases_port_and_to_nothing_else() {
        let with = policies(&Names::placeholders(), &asked_for_more());
        let without = policies(&Names::placeholders(), &asked());
        for (with, without) in with.iter().zip(&without) {
            if with["metadata"]["name"] != ISOLATION {
                assert_eq!(with, without);
                continue;
            }
            let ingress = with["spec"]["ingress"].as_array().expect("rules");
            assert_eq!(ingress.len(), 1);
            let agent = json!({ "podSelector": { "matchLabels": { "role": "validation-agent" } } });
            assert_eq!(ingress[0]["from"], json!([agent, { "ipBlock": { "cidr": "10.30.0.0/24" } }]));
            assert_eq!(ingress[0]["ports"], json!([{ "protocol": "TCP", "port": PORT }]));
            assert!(with["spec"].get("egress").is_none());
        }
        assert_ne!(template(&asked_for_more()), template(&asked()), "its digest says so");
    }

    #[test]
    fn policies_that_allow_come_before_the_one_that_denies() {
        let policies = policies(&Names::placeholders(), &asked());
        let names: Vec<_> =
            policies.iter().map(|policy| policy["metadata"]["name"].as_str().expect("a name")).collect();
        assert_eq!(names.last(), Some(&DEFAULT_DENY));
        let isolation = policies.iter().find(|policy| policy["metadata"]["name"] == ISOLATION).expect("it");
        assert_eq!(isolation["spec"]["policyTypes"], json!(["Ingress", "Egress"]));
        assert!(isolation["spec"].get("egress").is_none(), "no way out");
    }

    /// Whoever comes gets to one port of one pod.
    #[test]
    fn a_doorway_is_for_its_visitor_alone_and_part_of_the_template() {
        let policy = |visitor| doorway(&Names::placeholders(), &visitor, 5433)["spec"]["ingress"].clone();
        let port = json!([{ "protocol": "TCP", "port": 5433 }]);
        let addresses = ["192.0.2.10", "2001:db8::10"].map(|text| text.parse().expect(text)).to_vec();
        let blocks = json!([{ "ipBlock": { "cidr": "192.0.2.10/32" } }, { "ipBlock": { "cidr": "2001:db8::10/128" } }]);
        assert_eq!(policy(Visitor::Addresses(addresses.clone())), json!([{ "from": blocks, "ports": port }]));
        let labels = [("app".to_owned(), "vault".to_owned())].into();
        let pods = json!([{
            "namespaceSelector": { "matchLabels": { "kubernetes.io/metadata.name": "vault" } },
            "podSelector": { "matchLabels": { "app": "vault" } },
        }]);
        let visitor = Visitor::Pods { namespace: "vault".to_owned(), labels };
        assert_eq!(policy(visitor), json!([{ "from": pods, "ports": port }]));
        let with = Kubernetes { doorway: Some(Visitor::Addresses(addresses)), ..asked() };
        assert!(template(&with).contains(DOORWAY) && !template(&asked()).contains(DOORWAY));
    }
}
