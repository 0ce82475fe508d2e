use std::time::Duration;

use async_trait::async_trait;

use crate::guard::Record;
use crate::stop::Stop;

/// Where the record lies that lets one muster at a time work.
#[async_trait]
pub trait Guard: Send + Sync {
    /// For people, such as `Lease muster/muster`.
    fn name(&self) -> String;

    /// None: there is none yet.
    async fn read(&self) -> Result<Option<Record>, Stop>;

    /// Writes over what was `seen`; without a `holder` it is let go. None: somebody else wrote in between, and nothing was written.
    async fn write(&self, seen: Option<&Record>, holder: Option<&str>, term: Duration) -> Result<Option<Record>, Stop>;
}
