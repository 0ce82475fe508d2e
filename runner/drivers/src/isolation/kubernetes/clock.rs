//! Whether this machine's clock and the cluster's agree: certificates are made by the one and looked at by the other.
use drill::stop::Stop;
use drill::verdict::Reason;
use jiff::{SignedDuration, Timestamp};
use kube::client::Body;

use super::cluster::{self, Cluster};

/// Less than certificates are backdated by.
const MOST: SignedDuration = SignedDuration::from_secs(45);

/// Asks the API server what time it is. That of its nodes is taken to be the same: the kubelet's leases depend on it.
pub(super) async fn check(cluster: &Cluster) -> Result<(), Stop> {
    let tried = "asking the API server for the time";
    let ask = || async {
        let request = http::Request::get("/version").body(Body::empty()).map_err(kube::Error::HttpError)?;
        Ok((cluster.client.send(request).await?, Timestamp::now()))
    };
    let (answer, now) = cluster::request(tried, ask).await?;
    let date = answer.headers().get(http::header::DATE).and_then(|date| date.to_str().ok());
    // One that does not say is no worse than before.
    let theirs = date.and_then(|date| jiff::fmt::rfc2822::parse(date).ok());
    theirs.map_or(Ok(()), |theirs| judge(now.duration_since(theirs.timestamp())))
}

fn judge(ahead: SignedDuration) -> Result<(), Stop> {
    if ahead.abs() <= MOST {
        return Ok(());
    }
    let by = drill::unit::duration(ahead.unsigned_abs());
    let side = if ahead.is_positive() { "ahead of" } else { "behind" };
    let message = format!(
        "this machine's clock is {by} {side} the cluster's: the run's certificates would not be valid there, and its times not true"
    );
    Err(Stop::new(Reason::SandboxUnfit, message).advise("set the clock, and keep it set by NTP: timedatectl status"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_clock_that_is_off_says_by_how_much_and_which_way() {
        assert_eq!(judge(SignedDuration::from_secs(45)), Ok(()));
        assert_eq!(judge(SignedDuration::from_secs(-45)), Ok(()));
        let ahead = judge(SignedDuration::from_mins(90)).expect_err("certificates would not be valid yet");
        assert!(ahead.message.contains("ahead of"), "{ahead}");
        let behind = judge(SignedDuration::from_secs(-46)).expect_err("they would end too early");
        assert!(behind.message.contains("behind"), "{behind}");
    }
}
