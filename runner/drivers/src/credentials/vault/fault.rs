//! What can be wrong with a Vault, told apart by what to do about it.
use drill::stop::Stop;
use drill::verdict::Reason;

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Fault {
    /// No connection, or one that broke off.
    Unreachable(String),
    TimedOut,
    Sealed,
    /// The node answers, and no node of the cluster is active.
    Standby,
    Throttled,
    /// Its own trouble, or that of the database behind it.
    Broken(u16, String),
    TokenInvalid,
    Denied,
    Absent,
    /// It understood, and will not.
    Refused(u16, String),
    /// Not what a Vault answers.
    Garbled(String),
    /// What muster itself must have to ask at all: a file, a certificate, a secret.
    Unprepared(String),
}

/// A request that Vault did not fulfil.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Failure {
    /// Such as `PUT sys/leases/revoke-prefix/database/creds/muster-orders-…`.
    pub request: String,
    pub fault: Fault,
}

impl Fault {
    /// Of an answer that is no success. `said` is the list of errors in its body.
    pub(super) fn of(status: u16, said: &[String]) -> Self {
        let text = said.join("; ").split_whitespace().collect::<Vec<_>>().join(" ");
        let says = |words: &str| text.contains(words);
        match status {
            403 if says("invalid token") || says("bad token") || says("missing client token") => Self::TokenInvalid,
            403 => Self::Denied,
            404 => Self::Absent,
            429 => Self::Throttled,
            _ if says("Vault is sealed") => Self::Sealed,
            307 => Self::Standby,
            500.. if says("not active") || says("standby") || says("no leader") || says("step-down") => Self::Standby,
            500.. => Self::Broken(status, text),
            _ => Self::Refused(status, text),
        }
    }

    /// Whether the same request may succeed a little later.
    pub(super) fn may_pass(&self) -> bool {
        match self {
            Self::Unreachable(_)
            | Self::TimedOut
            | Self::Sealed
            | Self::Standby
            | Self::Throttled
            | Self::Broken(..)
            | Self::Garbled(_) => true,
            Self::TokenInvalid | Self::Denied | Self::Absent | Self::Refused(..) | Self::Unprepared(_) => false,
        }
    }

    /// Stable, for metrics.
    fn cause(&self) -> &'static str {
        match self {
            Self::Unreachable(_) => "unreachable",
            Self::TimedOut => "timeout",
            Self::Sealed => "sealed",
            Self::Standby => "standby",
            Self::Throttled => "throttled",
            Self::Broken(..) => "server-error",
            Self::TokenInvalid => "token-invalid",
            Self::Denied => "permission-denied",
            Self::Absent => "not-found",
            Self::Refused(..) => "refused",
            Self::Garbled(_) => "garbled",
            Self::Unprepared(_) => "unprepared",
        }
    }

    fn what(&self) -> String {
        match self {
            Self::Unreachable(why) => format!("it cannot be reached: {why}"),
            Self::TimedOut => "it did not answer in time".to_owned(),
            Self::Sealed => "it is sealed".to_owned(),
            Self::Standby => "it is in standby, and no active node answers for it".to_owned(),
            Self::Throttled => "it answered 429: too many requests".to_owned(),
            Self::Broken(status, text) | Self::Refused(status, text) => format!("it answered {status}: {text}"),
            Self::TokenInvalid => "it does not know muster's token any more".to_owned(),
            Self::Denied => "permission denied".to_owned(),
            Self::Absent => "it answered 404: there is no such thing".to_owned(),
            Self::Garbled(why) => format!("its answer is not that of a Vault: {why}"),
            Self::Unprepared(why) => why.clone(),
        }
    }

    fn advice(&self) -> &'static str {
        match self {
            Self::Unreachable(why) if why.contains("CaUsedAsEndEntity") => {
                "Vault's certificate is its own authority; docs/vault.md says how to make two"
            }
            Self::Unreachable(_) => "look at credentials.vault.address and .ca, and whether this machine gets there",
            Self::TimedOut => "look at the Vault's load, and at what lies between",
            Self::Sealed => "unseal it",
            Self::Standby => "look at `vault operator raft list-peers`, or wait for its election",
            Self::Throttled => "raise the quota of the mount, or run fewer drills at once",
            Self::Broken(..) => "the Vault's own log says more",
            Self::TokenInvalid => "look at who revokes it; a `token_period` lets muster renew it without end",
            Self::Denied => "give muster's policy that path; docs/vault.md has the whole policy",
            Self::Absent => "look at credentials.vault.mount, and whether the engine is there",
            Self::Refused(..) | Self::Unprepared(_) => "correct what it names; docs/vault.md has an example",
            Self::Garbled(_) => "look at what answers at credentials.vault.address",
        }
    }
}

impl Failure {
    /// `doing` is what muster was about.
    pub(super) fn stop(&self, doing: &str) -> Stop {
        let request = if self.request.is_empty() { String::new() } else { format!(" ({})", self.request) };
        Stop::new(Reason::Credentials, format!("{doing}{request}: Vault: {}", self.fault.what()))
            .advise(self.fault.advice())
            .because(self.fault.cause())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_are_told_apart_by_what_to_do_about_them() {
        let of = |status, said: &str| Fault::of(status, &[said.to_owned()]);
        assert_eq!(of(503, "Vault is sealed"), Fault::Sealed);
        assert_eq!(of(403, "permission denied"), Fault::Denied);
        assert_eq!(of(403, "2 errors occurred:\n\t* permission denied\n\t* invalid token\n\n"), Fault::TokenInvalid);
        assert_eq!(of(500, "local node not active but active cluster node not found"), Fault::Standby);
        assert_eq!(of(429, "request path \"x\": rate limit quota exceeded"), Fault::Throttled);
        assert_eq!(of(500, "1 error  occurred:\n\t* x"), Fault::Broken(500, "1 error occurred: * x".to_owned()));
        assert!(of(502, "").may_pass() && !of(400, "no").may_pass() && !of(404, "").may_pass());
    }

    #[test]
    fn a_failure_says_what_was_asked_and_what_to_do() {
        let failure = Failure { request: "GET database/creds/x".to_owned(), fault: Fault::Denied };
        let stop = failure.stop("leasing credentials");
        assert_eq!(stop.message, "leasing credentials (GET database/creds/x): Vault: permission denied");
        assert!(stop.advice.is_some_and(|advice| advice.contains("policy")));
        assert_eq!(stop.cause.as_deref(), Some("permission-denied"));
        let own_authority = "invalid peer certificate: Other(OtherError(CaUsedAsEndEntity))".to_owned();
        let advice = Fault::Unreachable(own_authority).advice();
        assert!(advice.contains("its own authority"), "{advice}");
    }
}
