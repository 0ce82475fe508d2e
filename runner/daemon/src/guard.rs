//! Holds the record that lets one muster at a time work. [`take`] waits until nobody else can have it, or says who has; [`Keeper`]
//! renews it; [`Guarded`] is asked before a run is claimed. What to do is `drill::guard`'s to decide.
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use drill::config::ClusterLease;
use drill::guard::{Candidate, Record, Step};
use drill::port::Guard;
use drill::stop::Stop;
use drill::verdict::Reason;
use tokio::time::Instant;

/// How often somebody else's record is looked at.
const LOOK: Duration = Duration::from_millis(500);

/// Whether this muster may begin something. Cheap to clone.
#[derive(Clone, Default)]
pub struct Guarded(Option<Arc<Held>>);

struct Held {
    port: Arc<dyn Guard>,
    candidate: Mutex<Candidate>,
    /// As it was written last.
    record: Mutex<Option<Record>>,
    begun: Instant,
}

impl Held {
    fn candidate(&self) -> MutexGuard<'_, Candidate> {
        self.candidate.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn record(&self) -> MutexGuard<'_, Option<Record>> {
        self.record.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Writes this muster's name over what was seen last. False: somebody else was quicker.
    async fn write(&self) -> Result<bool, Stop> {
        let asked = self.begun.elapsed();
        let seen = self.record().clone();
        let (me, term) = {
            let candidate = self.candidate();
            (candidate.me().to_owned(), candidate.term())
        };
        let Some(written) = self.port.write(seen.as_ref(), Some(&me), term).await? else { return Ok(false) };
        *self.record() = Some(written);
        self.candidate().wrote(asked);
        Ok(true)
    }

    async fn look(&self) -> Result<Step, Stop> {
        let found = self.port.read().await?;
        let step = self.candidate().saw(found.as_ref(), self.begun.elapsed());
        *self.record() = found;
        Ok(step)
    }

    fn refusal(&self, holder: &str, since: Option<jiff::Timestamp>) -> Stop {
        let since = since.map(|since| format!(" since {since:.0}")).unwrap_or_default();
        Stop::new(Reason::Internal, format!("{} is held by another muster, {holder}{since}", self.port.name()))
            .advise("let one muster work at a time: end the other, or name another Lease for this one's own drills")
    }
}

/// Who this is, for whoever is refused.
pub fn identity(process: &str) -> String {
    format!("{}_{process}", rustix::system::uname().nodename().to_string_lossy())
}

/// Waits for a record that nobody renews to run out; refuses at once where it sees it renewed.
pub async fn take(port: Arc<dyn Guard>, config: &ClusterLease, me: String) -> Result<(Guarded, Keeper), Stop> {
    let candidate = Mutex::new(Candidate::new(me, config.duration));
    let held = Arc::new(Held { port, candidate, record: Mutex::default(), begun: Instant::now() });
    let mut waits = false;
    loop {
        match held.look().await? {
            // Whoever was quicker is seen by the next look.
            Step::Write => {
                if held.write().await? {
                    break;
                }
            }
            Step::Another { holder, since } => return Err(held.refusal(&holder, since)),
            Step::Wait { until } => {
                if !std::mem::replace(&mut waits, true) {
                    let holder = held.record().as_ref().and_then(|record| record.holder.clone());
                    tracing::info!(lease = held.port.name(), holder, "another muster held it; it may be gone");
                }
                tokio::time::sleep(until.saturating_sub(held.begun.elapsed()).min(LOOK)).await;
            }
        }
    }
    tracing::info!(lease = held.port.name(), me = held.candidate().me(), "this muster is the one that works");
    Ok((Guarded(Some(Arc::clone(&held))), Keeper { held }))
}

impl Guarded {
    /// Asked at the last moment before something begins.
    pub fn may_begin(&self) -> Result<(), Stop> {
        let Some(held) = &self.0 else { return Ok(()) };
        if held.candidate().holds(held.begun.elapsed()) {
            return Ok(());
        }
        let message = format!(
            "{} could not be renewed in time, so another muster may work: nothing new begins",
            held.port.name()
        );
        Err(Stop::new(Reason::Internal, message).advise("see whether the cluster answers: kubectl get --raw /readyz"))
    }

    /// So that the next one does not wait. One that another has by now stays as it is.
    pub async fn let_go(&self) {
        let Some(held) = &self.0 else { return };
        let (seen, me, term) = {
            let candidate = held.candidate();
            (held.record().clone(), candidate.me().to_owned(), candidate.term())
        };
        let Some(mine) = seen.filter(|seen| seen.holder.as_deref() == Some(&me)) else { return };
        match held.port.write(Some(&mine), None, term).await {
            Ok(_) => {}
            Err(stop) => tracing::warn!(%stop, "the next muster waits until this one's Lease has run out"),
        }
    }
}

/// Renews for as long as it is asked.
pub struct Keeper {
    held: Arc<Held>,
}

impl Keeper {
    /// Ends when somebody else holds the record.
    pub async fn keep(self) -> Result<(), Stop> {
        let held = &self.held;
        let mut lost = false;
        loop {
            let due = held.candidate().renew_at().saturating_sub(held.begun.elapsed());
            // After a try that failed the next one is due at once.
            let pause = if due.is_zero() { held.candidate().term() / 9 } else { due };
            tokio::time::sleep(pause).await;
            let renewed = match held.write().await {
                Ok(true) => Ok(()),
                Ok(false) => match held.look().await {
                    Ok(Step::Another { holder, since }) => return Err(held.refusal(&holder, since)),
                    Ok(Step::Write | Step::Wait { .. }) => held.write().await.map(drop),
                    Err(stop) => Err(stop),
                },
                Err(stop) => Err(stop),
            };
            let holds = held.candidate().holds(held.begun.elapsed());
            match (holds, renewed) {
                (true, _) if lost => tracing::info!(lease = held.port.name(), "renewed again: runs may begin"),
                (false, Err(stop)) if !lost => {
                    tracing::error!(%stop, lease = held.port.name(), "not renewed in time: no new runs begin");
                }
                (true, Err(stop)) => tracing::warn!(%stop, lease = held.port.name(), "not renewed; it is tried again"),
                _ => {}
            }
            lost = !holds;
        }
    }
}

#[cfg(test)]
mod tests {
    use drivers::guard::fake::FakeGuard;

    use super::*;

    const TERM: Duration = Duration::from_secs(15);

    fn config() -> ClusterLease {
        ClusterLease { context: None, namespace: "muster".to_owned(), name: "muster".to_owned(), duration: TERM }
    }

    async fn take_as(guard: &FakeGuard, me: &str) -> Result<(Guarded, Keeper), Stop> {
        take(Arc::new(guard.clone()), &config(), me.to_owned()).await
    }

    #[tokio::test(start_paused = true)]
    async fn a_second_one_is_refused_while_the_first_lives_and_follows_one_that_is_gone() {
        let guard = FakeGuard::default();
        let (first, keeper) = take_as(&guard, "first").await.expect("nobody has it");
        let renews = tokio::spawn(keeper.keep());
        let refused = take_as(&guard, "second").await.map(drop).expect_err("the first lives");
        assert!(refused.message.contains("held by another muster, first since "), "{refused}");
        assert_eq!(first.may_begin(), Ok(()));

        // Killed: it lets go of nothing.
        renews.abort();
        let began = Instant::now();
        let (second, _keeper) = take_as(&guard, "second").await.expect("the first is gone");
        assert!(began.elapsed() >= TERM, "a whole term was waited for");
        assert_eq!(second.may_begin(), Ok(()));
        assert!(first.may_begin().is_err(), "it would not begin anything any more");
    }

    #[tokio::test(start_paused = true)]
    async fn one_that_lets_go_is_followed_at_once() {
        let guard = FakeGuard::default();
        let (first, _keeper) = take_as(&guard, "first").await.expect("nobody has it");
        first.let_go().await;
        let began = Instant::now();
        take_as(&guard, "second").await.expect("it was let go");
        assert!(began.elapsed() < TERM);
        // What is another's by now stays its own.
        first.let_go().await;
        assert_eq!(guard.record().and_then(|record| record.holder).as_deref(), Some("second"));
    }

    #[tokio::test(start_paused = true)]
    async fn one_that_cannot_renew_begins_nothing_until_it_can() {
        let guard = FakeGuard::default();
        let (me, keeper) = take_as(&guard, "me").await.expect("nobody has it");
        let renews = tokio::spawn(keeper.keep());
        tokio::time::sleep(TERM * 3).await;
        assert_eq!(me.may_begin(), Ok(()), "it is renewed");
        guard.silence(true);
        tokio::time::sleep(TERM).await;
        let stop = me.may_begin().expect_err("it may have run out");
        assert!(stop.message.contains("could not be renewed in time"), "{stop}");
        guard.silence(false);
        tokio::time::sleep(TERM / 3).await;
        assert_eq!(me.may_begin(), Ok(()), "nobody took it meanwhile");
        renews.abort();
    }

    #[tokio::test(start_paused = true)]
    async fn one_whose_record_was_taken_ends_and_says_by_whom() {
        let guard = FakeGuard::default();
        let (me, keeper) = take_as(&guard, "me").await.expect("nobody has it");
        let seen = guard.record();
        guard.write(seen.as_ref(), Some("usurper"), TERM).await.expect("it answers").expect("written");
        let stop = keeper.keep().await.expect_err("it is another's");
        assert!(stop.message.contains("usurper"), "{stop}");
        me.let_go().await;
        assert_eq!(
            guard.record().and_then(|record| record.holder).as_deref(),
            Some("usurper"),
            "it is not ours to let go"
        );
    }

    #[tokio::test(start_paused = true)]
    async fn a_record_that_somebody_deletes_is_made_again() {
        let guard = FakeGuard::default();
        let (me, keeper) = take_as(&guard, "me").await.expect("nobody has it");
        guard.forget();
        let renews = tokio::spawn(keeper.keep());
        tokio::time::sleep(TERM * 2).await;
        assert_eq!(me.may_begin(), Ok(()));
        assert_eq!(guard.record().and_then(|record| record.holder).as_deref(), Some("me"));
        renews.abort();
    }

    #[tokio::test]
    async fn without_a_lease_nothing_is_in_the_way() {
        let nobody = Guarded::default();
        assert_eq!(nobody.may_begin(), Ok(()));
        nobody.let_go().await;
    }
}
