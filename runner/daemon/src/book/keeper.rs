use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use drill::config::Compact;
use drill::stop::{OrStop, Stop};
use drill::verdict::Reason;
use jiff::Timestamp;
use notify::{RecommendedWatcher, RecursiveMode, Watcher};
use tokio::sync::Notify;

use super::{Book, read};
use crate::dispatcher::{Event, Handle};

/// After a change, so long may nothing change before files are read: an editor writes more than once.
const SETTLE: Duration = Duration::from_millis(300);
/// Files are looked at so often whatever the kernel tells: network file systems tell nothing.
const LOOK: Duration = Duration::from_mins(1);

/// Watches the directories of drill files.
pub struct Keeper {
    directories: Vec<PathBuf>,
    compact: Option<Arc<Compact>>,
    book: Arc<Book>,
}

impl Keeper {
    /// Reads the files for the first time.
    pub async fn new(directories: Vec<PathBuf>, compact: Option<Compact>) -> Result<Self, Stop> {
        let mut keeper = Self { directories, compact: compact.map(Arc::new), book: Arc::default() };
        keeper.look().await?;
        Ok(keeper)
    }

    pub fn book(&self) -> Arc<Book> {
        Arc::clone(&self.book)
    }

    /// Hands each new book to the dispatcher. Never ends.
    pub async fn keep(mut self, dispatcher: Handle) -> Result<(), Stop> {
        let changed = Arc::new(Notify::new());
        let mut watcher = watcher(Arc::clone(&changed));
        loop {
            // Anew each time: a directory that was not there, or is another now, is watched from then on.
            self.watch(watcher.as_mut());
            let told = tokio::time::timeout(LOOK, changed.notified()).await.is_ok();
            if told {
                // A file that changes again and again is read all the same, if later.
                for _ in 0..10 {
                    if tokio::time::timeout(SETTLE, changed.notified()).await.is_err() {
                        break;
                    }
                }
            }
            if self.look().await? {
                dispatcher.tell(Event::Drills(self.book())).await;
            }
        }
    }

    fn watch(&self, watcher: Option<&mut RecommendedWatcher>) {
        let Some(watcher) = watcher else { return };
        for directory in &self.directories {
            if let Err(error) = watcher.watch(directory, RecursiveMode::NonRecursive) {
                let directory = directory.display();
                tracing::debug!(%error, %directory, "a directory of drill files is not watched, only looked at each minute");
            }
        }
    }

    /// Whether anything differs.
    async fn look(&mut self) -> Result<bool, Stop> {
        let (directories, compact, before) = (self.directories.clone(), self.compact.clone(), Arc::clone(&self.book));
        let reading =
            tokio::task::spawn_blocking(move || read(&directories, compact.as_deref(), &before, Timestamp::now()));
        let book = reading.await.or_stop(Reason::Internal, "reading the drill files")?;
        let same = book.problems == self.book.problems
            && book.drills.len() == self.book.drills.len()
            && book
                .drills
                .iter()
                .zip(&self.book.drills)
                .all(|((_, new), (_, old))| Arc::ptr_eq(&new.drill, &old.drill) && new.file == old.file);
        self.book = Arc::new(book);
        Ok(!same)
    }
}

/// Without one, files are still looked at each minute.
fn watcher(changed: Arc<Notify>) -> Option<RecommendedWatcher> {
    let heard = move |event: notify::Result<notify::Event>| {
        let is_read = event.is_ok_and(|event| event.kind.is_access());
        if !is_read {
            changed.notify_one();
        }
    };
    let made = notify::recommended_watcher(heard);
    made.inspect_err(|error| tracing::warn!(%error, "drill files cannot be watched; they are looked at each minute"))
        .ok()
}
