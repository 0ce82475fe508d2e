//! What every [`Guard`] must do; the fake and the real one run it.
use std::time::Duration;

use drill::port::Guard;

const TERM: Duration = Duration::from_secs(20);

/// Panics where it does not. `guard` has no record yet.
pub async fn all(guard: &dyn Guard) {
    assert_eq!(guard.read().await.expect("it answers"), None);
    let first = guard.write(None, Some("first"), TERM).await.expect("it answers").expect("nobody else writes");
    assert_eq!((first.holder.as_deref(), first.term), (Some("first"), TERM));
    assert!(first.since.is_some(), "people can see since when");
    assert_eq!(guard.read().await.expect("it answers").as_ref(), Some(&first));

    // Whoever saw something else writes nothing.
    assert_eq!(guard.write(None, Some("second"), TERM).await, Ok(None), "there is one already");
    let renewed = guard.write(Some(&first), Some("first"), TERM).await.expect("it answers").expect("it is ours");
    assert_ne!(renewed.version, first.version, "others see that it was renewed");
    assert_eq!(renewed.since, first.since, "and is held since it was taken");
    assert_eq!(guard.write(Some(&first), Some("second"), TERM).await, Ok(None), "it was renewed meanwhile");

    let taken = guard.write(Some(&renewed), Some("second"), TERM).await.expect("it answers").expect("nobody renews");
    assert_eq!(taken.holder.as_deref(), Some("second"));
    assert!(taken.since >= renewed.since);
    let gone = guard.write(Some(&taken), None, TERM).await.expect("it answers").expect("it is ours");
    assert_eq!(gone.holder, None);
    assert_eq!(guard.read().await.expect("it answers").expect("it stays").holder, None);
}
