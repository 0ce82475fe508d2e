//! `isolation.kubernetes.doorway` of a drill file.
use std::collections::BTreeMap;
use std::net::IpAddr;

use super::problem::{Problem, Problems};
use super::rule::{self, Complaint, TextRule};
use super::shape::{Choice, Form, IfEmpty, Shape, required, usual};
use super::tree::Node;
use crate::spec::Visitor;

/// None where form was wrong; `problems` says why.
pub(super) fn read(node: &Node, problems: &mut Problems) -> Option<Visitor> {
    let Some(pods) = node.get("pods") else {
        let addresses = node.get("addresses")?.items().iter().filter_map(Node::text);
        return Some(Visitor::Addresses(addresses.filter_map(|text| text.parse().ok()).collect()));
    };
    let labels = pods.get("labels")?;
    if labels.entries().is_empty() {
        let problem = Problem::at(labels.place, "`labels` is empty: every pod of the namespace would be let in");
        problems.push(problem.hint("write the labels of the Vault's pods, such as { app.kubernetes.io/name: vault }"));
    }
    let entries = labels.entries().iter();
    let labels: BTreeMap<String, String> =
        entries.filter_map(|(key, value)| Some((key.name.clone(), value.text()?.to_owned()))).collect();
    Some(Visitor::Pods { namespace: pods.get("namespace")?.text()?.to_owned(), labels })
}

pub(super) static DOORWAY: Shape = Shape {
    choice: Choice::ExactlyOne,
    keys: &[
        usual(
            "addresses",
            Form::List {
                item: &Form::Text(&ADDRESS),
                if_empty: Some(IfEmpty {
                    message: "`addresses` is empty: nobody could come in",
                    hint: "write the address that the Vault's connections come from; one for each of its nodes",
                }),
            },
            "Addresses that a Vault outside of the cluster connects from. It needs a route to the pods' network.",
        ),
        usual("pods", Form::Object(&PODS), "The pods of a Vault in the cluster."),
    ],
};

static PODS: Shape = Shape {
    choice: Choice::Any,
    keys: &[
        required("namespace", Form::Text(&rule::CHECK_NAME), "The namespace that they are in."),
        required(
            "labels",
            Form::Map { key: &rule::LABEL_NAME, value: &Form::Text(&POD_LABEL) },
            "Labels that they all have, and no other pod there.",
        ),
    ],
};

static ADDRESS: TextRule = TextRule {
    check: |text| match text.parse::<IpAddr>() {
        Ok(_) => Ok(()),
        Err(_) => Err(Complaint::new(format!("`{text}` is not an address"))
            .hint("such as 192.0.2.10 or 2001:db8::10; names are not looked up, and networks are not let in")),
    },
    pattern: None,
    example: "192.0.2.10",
};

static POD_LABEL: TextRule = TextRule {
    check: |text| {
        let inner = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
        let edge = |c: Option<char>| c.is_some_and(|c| c.is_ascii_alphanumeric());
        if text.len() <= 63 && text.chars().all(inner) && edge(text.chars().next()) && edge(text.chars().last()) {
            Ok(())
        } else {
            Err(Complaint::new(format!("`{text}` is not a label's value in Kubernetes"))
                .hint("1 to 63 letters, digits, - _ . with a letter or a digit at both ends"))
        }
    },
    pattern: Some("^[A-Za-z0-9]([A-Za-z0-9._-]{0,61}[A-Za-z0-9])?$"),
    example: "vault",
};
