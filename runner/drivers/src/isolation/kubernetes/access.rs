//! What muster's account must be allowed, asked before anything is made: the API server itself answers.
use drill::stop::Stop;
use drill::verdict::Reason;
use futures_util::future::try_join_all;
use k8s_openapi::api::authorization::v1::{ResourceAttributes, SelfSubjectAccessReview, SelfSubjectAccessReviewSpec};
use kube::Api;
use kube::api::PostParams;

use super::cluster::{self, Cluster};

/// Group, resource, subresource, verbs. `deploy/kubernetes` has the same.
const RULES: [(&str, &str, &str, &[&str]); 7] = [
    ("", "namespaces", "", &["get", "list", "watch", "create", "patch", "delete"]),
    ("", "pods", "", &["get", "list", "watch", "create", "patch", "delete", "deletecollection"]),
    ("", "pods", "exec", &["get", "create"]),
    ("", "pods", "portforward", &["get", "create"]),
    ("", "resourcequotas", "", &["create", "patch"]),
    ("", "limitranges", "", &["create", "patch"]),
    ("networking.k8s.io", "networkpolicies", "", &["get", "list", "watch", "create", "patch", "delete"]),
];

/// Names everything that is missing.
pub(super) async fn check(cluster: &Cluster) -> Result<(), Stop> {
    let reviews: Api<SelfSubjectAccessReview> = Api::all(cluster.client.clone());
    let questions = RULES.iter().flat_map(|rule| rule.3.iter().map(move |verb| (rule, *verb)));
    let answers = questions.map(|((group, resource, subresource, _), verb)| {
        let reviews = reviews.clone();
        async move {
            let attributes = ResourceAttributes {
                group: Some((*group).to_owned()),
                resource: Some((*resource).to_owned()),
                subresource: (!subresource.is_empty()).then(|| (*subresource).to_owned()),
                verb: Some(verb.to_owned()),
                ..ResourceAttributes::default()
            };
            let spec = SelfSubjectAccessReviewSpec { resource_attributes: Some(attributes), ..Default::default() };
            let review = SelfSubjectAccessReview { spec, ..Default::default() };
            let tried = "asking what muster's account may do";
            let parameters = PostParams::default();
            let review = cluster::request(tried, || reviews.create(&parameters, &review)).await?;
            let allowed = review.status.is_some_and(|status| status.allowed);
            Ok((!allowed).then(|| missing(verb, group, resource, subresource)))
        }
    });
    let missing: Vec<String> = try_join_all(answers).await?.into_iter().flatten().collect();
    if missing.is_empty() {
        return Ok(());
    }
    Err(Stop::new(Reason::SandboxUnfit, format!("muster's account in the cluster may not {}", missing.join(", ")))
        .advise("give it the ClusterRole of deploy/kubernetes"))
}

fn missing(verb: &str, group: &str, resource: &str, subresource: &str) -> String {
    let slash = if subresource.is_empty() { "" } else { "/" };
    let group = if group.is_empty() { String::new() } else { format!(".{group}") };
    format!("{verb} {resource}{slash}{subresource}{group}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_missing_is_named_as_a_rule_would() {
        assert_eq!(missing("create", "", "pods", "exec"), "create pods/exec");
        let policy = missing("watch", "networking.k8s.io", "networkpolicies", "");
        assert_eq!(policy, "watch networkpolicies.networking.k8s.io");
    }
}
