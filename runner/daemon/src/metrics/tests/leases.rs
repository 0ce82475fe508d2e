use drill::ledger::PhaseOutcome;
use drill::phase::Phase;
use drill::stop::Stop;

use super::*;

const EXPIRY: &str = "muster_lease_expiry_timestamp_seconds";

#[test]
fn a_lease_is_timed_its_renewals_count_and_its_end_shows_while_it_lives() {
    let (metrics, _) = metrics(vec![known(drill("orders", ""))]);
    let started = sample::started("orders", Path::new("/evidence"));
    let mut sequence = 0;
    let mut event = |seconds: i64, event: Event| {
        sequence += 1;
        let at = started.at + jiff::SignedDuration::from_secs(seconds);
        tell(&metrics, &started, Stamped { sequence, at, event });
    };
    let lease = |expires_at: &str, renewed: bool| {
        let update = RunUpdate::Lease { expires_at: at(expires_at), renewed };
        metrics.heard(&Happening::Run { drill: started.drill.clone(), run: started.run.clone(), update });
    };
    event(0, Event::Started(started.clone()));
    event(1, Event::Intended { resource: Resource::Lease });
    event(3, Event::Acquired { resource: Resource::Lease, handle: serde_json::json!({}) });
    lease("2026-11-22T02:31:00Z", false);
    let text = metrics.render();
    assert_has(&text, &[("muster_lease_issue_seconds_count", 1.0), ("muster_lease_issue_seconds_sum", 2.0)]);
    assert_has(&text, &[("muster_lease_renewals_total", 0.0), (EXPIRY, 1_795_314_660.0)]);
    lease("2026-11-22T02:41:00Z", true);
    assert_has(&metrics.render(), &[("muster_lease_renewals_total", 1.0), (EXPIRY, 1_795_315_260.0)]);

    let sealed = Stop::new(Reason::Credentials, "the Vault is sealed").because("sealed");
    event(5, Event::ReleaseFailed { resource: Resource::Lease, stop: sealed });
    let text = metrics.render();
    assert_has(&text, &[("muster_lease_failures_total{cause=\"sealed\",operation=\"revoke\"}", 1.0)]);
    assert_eq!(value(&text, EXPIRY), None, "what is owed is counted elsewhere");
}

#[test]
fn failures_say_what_was_tried_and_why() {
    for (phase, operation) in [(Phase::Restore, "warm-up"), (Phase::Lease, "issue"), (Phase::Validate, "renew")] {
        let (metrics, _) = metrics(vec![known(drill("orders", ""))]);
        let started = sample::started("orders", Path::new("/evidence"));
        let outcome = PhaseOutcome::Stopped(Stop::new(Reason::Credentials, "no"));
        let ended = Event::PhaseEnded { phase, duration: Duration::from_secs(1), outcome };
        run(&metrics, &started, vec![ended]);
        let series = format!("muster_lease_failures_total{{cause=\"other\",operation=\"{operation}\"}}");
        assert_has(&metrics.render(), &[(&series, 1.0)]);
    }
}
