//! What muster's account must be allowed, asked before anything is made: the API server itself answers.
use drill::spec::Kubernetes;
use drill::stop::Stop;
use drill::verdict::Reason;
use futures_util::future::try_join_all;
use k8s_openapi::api::authorization::v1::{ResourceAttributes, SelfSubjectAccessReview, SelfSubjectAccessReviewSpec};
use kube::Api;
use kube::api::PostParams;

use super::cluster::{self, Cluster};

/// Group, resource, subresource, verbs.
type Rule = (&'static str, &'static str, &'static str, &'static [&'static str]);

/// `deploy/kubernetes` has the same.
const RULES: [Rule; 9] = [
    ("", "namespaces", "", &["get", "list", "watch", "create", "patch", "delete"]),
    ("", "pods", "", &["get", "list", "watch", "create", "patch", "delete", "deletecollection"]),
    ("", "pods", "exec", &["get", "create"]),
    ("", "pods", "portforward", &["get", "create"]),
    ("", "persistentvolumeclaims", "", &["get", "list", "create", "patch", "delete"]),
    ("", "persistentvolumes", "", &["get"]),
    ("", "resourcequotas", "", &["create", "patch"]),
    ("", "limitranges", "", &["create", "patch"]),
    ("networking.k8s.io", "networkpolicies", "", &["get", "list", "watch", "create", "patch", "delete"]),
];

/// Of a drill that removes finalizers. `deploy/kubernetes/finalizers` has the same.
const FINALIZE: [Rule; 1] = [("", "namespaces", "finalize", &["update"])];
/// Where a drill names a volume that has its backup, asked about that one.
const BORROW: [Rule; 1] = [("", "persistentvolumes", "", &["patch"])];

/// Of the daemon itself, in its own namespace. `deploy/kubernetes` has the same.
const LEASE: [Rule; 1] = [("coordination.k8s.io", "leases", "", &["create", "get", "update"])];

/// Names everything that is missing.
pub(super) async fn check(cluster: &Cluster, asked: &Kubernetes) -> Result<(), Stop> {
    let client = &cluster.client;
    let finalize: &[Rule] = if asked.remove_finalizers_after.is_some() { &FINALIZE } else { &[] };
    let (borrow, volume): (&[Rule], _) = match &asked.artifact {
        Some(volume) => (&BORROW, Some(("", volume.name.as_str()))),
        None => (&[], None),
    };
    let (mut missing, borrow, finalize) = tokio::try_join!(
        missing_of(client, &RULES, None),
        missing_of(client, borrow, volume),
        missing_of(client, finalize, None),
    )?;
    missing.extend(borrow);
    let advice = match (missing.is_empty(), finalize.is_empty()) {
        (true, true) => return Ok(()),
        (true, false) => {
            "give it the ClusterRole of deploy/kubernetes/finalizers, or leave removeFinalizersAfter out of the drill"
        }
        (false, _) => "give it the ClusterRole of deploy/kubernetes",
    };
    missing.extend(finalize);
    let message = format!("muster's account in the cluster may not {}", missing.join(", "));
    Err(Stop::new(Reason::SandboxUnfit, message).advise(advice))
}

/// Whether muster's account may hold the Lease of this namespace and name.
pub(crate) async fn check_lease(client: &kube::Client, namespace: &str, name: &str) -> Result<(), Stop> {
    let missing = missing_of(client, &LEASE, Some((namespace, name))).await?;
    if missing.is_empty() {
        return Ok(());
    }
    let message =
        format!("muster's account may not {} in namespace `{namespace}`, for its Lease `{name}`", missing.join(", "));
    Err(Stop::new(Reason::Internal, message).advise("give it the Role of deploy/kubernetes/base/lease.yaml"))
}

/// `within` is a namespace, and a name in it; what is made has no name yet.
async fn missing_of(client: &kube::Client, rules: &[Rule], within: Option<(&str, &str)>) -> Result<Vec<String>, Stop> {
    let reviews: Api<SelfSubjectAccessReview> = Api::all(client.clone());
    let questions = rules.iter().flat_map(|rule| rule.3.iter().map(move |verb| (rule, *verb)));
    let answers = questions.map(|((group, resource, subresource, _), verb)| {
        let reviews = reviews.clone();
        async move {
            let attributes = ResourceAttributes {
                group: Some((*group).to_owned()),
                resource: Some((*resource).to_owned()),
                subresource: (!subresource.is_empty()).then(|| (*subresource).to_owned()),
                verb: Some(verb.to_owned()),
                namespace: within.map(|(namespace, _)| namespace.to_owned()),
                name: within.filter(|_| verb != "create").map(|(_, name)| name.to_owned()),
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
    Ok(try_join_all(answers).await?.into_iter().flatten().collect())
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
