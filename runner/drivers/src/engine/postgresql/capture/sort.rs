//! Sorts the rows of a table, of however many, in bounded memory: what does not fit goes, sorted, into a file without a name.
use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::ops::Range;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use drill::content::{Collector, Entry, Group, MAX_HELD, PlaceTooLarge, Row, cut, merge};
use drill::stop::{OrStop, Stop};
use drill::verdict::Reason;

pub(super) const SORTING: &str = "sorting the digests of rows in the backup's directory";
/// Of all runs together, while they are merged.
const BUFFERS: usize = 8 << 20;

pub(super) struct Sorter {
    directory: PathBuf,
    collector: Collector,
    spill: Option<Spill>,
    rows: u64,
}

impl Sorter {
    /// Where it needs a file, that is in `directory`.
    pub(super) fn new(directory: &Path) -> Self {
        Self::holding(directory, MAX_HELD)
    }

    fn holding(directory: &Path, max_held: usize) -> Self {
        Self { directory: directory.to_owned(), collector: Collector::new(max_held), spill: None, rows: 0 }
    }

    pub(super) fn push(&mut self, row: Row) -> io::Result<()> {
        self.rows += 1;
        if self.collector.push(row) {
            self.spill()?;
        }
        Ok(())
    }

    /// What it takes to sort goes with it, but for what is still to be read.
    pub(super) fn finish(mut self) -> io::Result<Sorted> {
        if self.spill.is_some() {
            self.spill()?;
        }
        Ok(Sorted { rows: self.rows, collector: self.collector, spill: self.spill })
    }

    fn spill(&mut self) -> io::Result<()> {
        if self.spill.is_none() {
            self.spill = Some(Spill::create(&self.directory)?);
        }
        let spill = self.spill.as_mut().expect("it was made above");
        spill.write(self.collector.sorted())?;
        self.collector.clear();
        Ok(())
    }
}

/// All rows of a table in the order of their places.
pub(super) struct Sorted {
    pub(super) rows: u64,
    collector: Collector,
    spill: Option<Spill>,
}

impl Sorted {
    /// Hands on block after block.
    pub(super) fn cut(
        mut self,
        each: impl FnMut(&[Group<'_>]) -> Result<(), Stop>,
    ) -> Result<Result<(), PlaceTooLarge>, Stop> {
        match self.spill {
            None => cut(self.collector.sorted().iter().copied().map(Ok), MAX_HELD, each),
            Some(spill) => {
                drop(self.collector);
                let entries = merge(spill.runs()).map(|entry| entry.or_stop(Reason::SandboxUnfit, SORTING));
                cut(entries, MAX_HELD, each)
            }
        }
    }
}

struct Spill {
    file: Arc<File>,
    runs: Vec<Range<u64>>,
}

impl Spill {
    fn create(directory: &Path) -> io::Result<Self> {
        let path = directory.join("sorting");
        let file = OpenOptions::new().read(true).write(true).create_new(true).mode(0o600).open(&path)?;
        fs::remove_file(&path)?;
        Ok(Self { file: Arc::new(file), runs: Vec::new() })
    }

    fn write(&mut self, run: &[Entry]) -> io::Result<()> {
        let begin = self.runs.last().map_or(0, |last| last.end);
        let mut out = io::BufWriter::with_capacity(256 << 10, self.file.as_ref());
        run.iter().try_for_each(|entry| out.write_all(&entry.bytes()))?;
        out.flush()?;
        self.runs.push(begin..begin + (run.len() * Entry::ENCODED) as u64);
        Ok(())
    }

    fn runs(&self) -> Vec<Run> {
        let share = BUFFERS / self.runs.len().max(1) / Entry::ENCODED;
        let run = |range: &Range<u64>| Run {
            file: self.file.clone(),
            range: range.clone(),
            buffer: Vec::new(),
            at: 0,
            entries: share.clamp(16, 4096),
        };
        self.runs.iter().map(run).collect()
    }
}

/// Reads a run again.
struct Run {
    file: Arc<File>,
    range: Range<u64>,
    buffer: Vec<u8>,
    at: usize,
    /// That are read at a time.
    entries: usize,
}

impl Run {
    fn fill(&mut self) -> io::Result<()> {
        let wanted = (self.entries * Entry::ENCODED) as u64;
        let size = wanted.min(self.range.end - self.range.start);
        self.buffer.resize(usize::try_from(size).expect("a few entries"), 0);
        self.file.read_exact_at(&mut self.buffer, self.range.start)?;
        self.range.start += size;
        self.at = 0;
        Ok(())
    }
}

impl Iterator for Run {
    type Item = io::Result<Entry>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.at == self.buffer.len()
            && let Err(error) = self.fill()
        {
            return Some(Err(error));
        }
        let entry = self.buffer[self.at..].first_chunk()?;
        self.at += Entry::ENCODED;
        Some(Ok(Entry::from_bytes(entry)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(number: u64) -> Row {
        let mut digest = [0; 32];
        digest[..8].copy_from_slice(&number.to_be_bytes());
        Row { place: number / 3, digest }
    }

    /// Places, rows and digests of the blocks of rows in an order that no key has.
    fn blocks(directory: &Path, count: u64, max_held: usize) -> (u64, Vec<drill::content::Block>) {
        let mut sorter = Sorter::holding(directory, max_held);
        for number in 0..count {
            // A step that shares no factor with any count here, and each row twice.
            sorter.push(row(number * 7919 % count)).expect("there is room");
            sorter.push(row(number * 104_729 % count)).expect("there is room");
        }
        let all = sorter.finish().expect("there is room");
        let (rows, mut blocks) = (all.rows, Vec::new());
        let done = all.cut(|groups| {
            blocks.extend(groups.iter().map(Group::block));
            Ok(())
        });
        assert_eq!(done.expect("it can be read"), Ok(()));
        (rows, blocks)
    }

    #[test]
    fn what_does_not_fit_is_sorted_on_disk_and_leaves_nothing() {
        let directory = tempfile::tempdir().expect("a directory");
        for count in [0, 1, 999, 20_000] {
            let (rows, held) = blocks(directory.path(), count, MAX_HELD);
            assert_eq!(rows, 2 * count);
            for max_held in [64, 1000, 20_000] {
                let spilled = blocks(directory.path(), count, max_held);
                assert_eq!(spilled, (rows, held.clone()), "{count} rows, {max_held} held");
            }
        }
        assert_eq!(fs::read_dir(directory.path()).expect("a directory").count(), 0);
    }

    #[test]
    fn what_cannot_be_written_is_an_error() {
        let gone = tempfile::tempdir().expect("a directory").path().join("gone");
        let mut sorter = Sorter::holding(&gone, 10);
        let pushed = (0..10).try_for_each(|number| sorter.push(row(number)));
        assert_eq!(pushed.map_err(|error| error.kind()), Err(io::ErrorKind::NotFound));
    }
}
