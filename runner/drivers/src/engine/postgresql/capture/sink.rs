//! The files beside a baseline that hold what is too much for it: blocks, and row digests where they are asked for.
use std::fs::File;
use std::io::{self, BufWriter, Write};
use std::path::Path;

use drill::baseline::{ContentDigest, Layout};
use drill::content::{self, Block, Group, Prefixes};
use drill::stop::{OrStop, Stop};
use drill::verdict::Reason;

/// Writes what it has a file for.
pub(super) struct Sink {
    blocks: Option<Side>,
    row_digests: Option<Side>,
}

struct Side {
    file: BufWriter<File>,
    at: u64,
}

/// One table's blocks, as pass after pass over it makes them.
pub(super) struct TableBlocks {
    blocks: Vec<Block>,
    row_digests_at: Option<u64>,
}

impl Sink {
    pub(super) fn open(blocks: Option<&Path>, row_digests: Option<&Path>) -> Result<Self, Stop> {
        Ok(Self { blocks: blocks.map(Side::open).transpose()?, row_digests: row_digests.map(Side::open).transpose()? })
    }

    /// Nothing of another table may be written until this one is [finished](Self::finish): its row digests are one piece.
    pub(super) fn begin(&self) -> TableBlocks {
        TableBlocks { blocks: Vec::new(), row_digests_at: self.row_digests.as_ref().map(|side| side.at) }
    }

    pub(super) fn add(&mut self, table: &mut TableBlocks, groups: &[Group<'_>]) -> Result<(), Stop> {
        for group in groups {
            let block = group.block();
            table.blocks.push(block);
            let has_row_digests = content::row_digests(block.rows) == block.rows;
            if let Some(side) = self.row_digests.as_mut().filter(|_| has_row_digests) {
                for prefix in group.prefixes().into_iter().flat_map(Prefixes::each) {
                    side.write(&prefix.to_be_bytes()).or_stop(Reason::SandboxUnfit, "writing row digests")?;
                }
            }
        }
        Ok(())
    }

    /// What stands in the baseline.
    pub(super) fn finish(&mut self, table: &TableBlocks, layout: &Layout) -> Result<ContentDigest, Stop> {
        let at = self.blocks.as_ref().map_or(0, |side| side.at);
        if let Some(side) = &mut self.blocks {
            side.write(&content::encode(&table.blocks)).or_stop(Reason::SandboxUnfit, "writing blocks")?;
        }
        Ok(content::digest(layout.clone(), &table.blocks, at, table.row_digests_at))
    }

    pub(super) fn flush(&mut self) -> Result<(), Stop> {
        let mut sides = self.blocks.iter_mut().chain(&mut self.row_digests);
        sides.try_for_each(|side| side.file.flush()).or_stop(Reason::SandboxUnfit, "writing blocks and row digests")
    }
}

impl Side {
    fn open(path: &Path) -> Result<Self, Stop> {
        let file = std::fs::OpenOptions::new().write(true).open(path);
        let file = file.or_stop(Reason::SandboxUnfit, format!("writing `{}`", path.display()))?;
        Ok(Self { file: BufWriter::new(file), at: 0 })
    }

    fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.file.write_all(bytes)?;
        self.at += bytes.len() as u64;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use drill::baseline::{Bucketing, Form};
    use drill::content::{Entry, Row};

    use super::*;

    #[test]
    fn a_block_of_a_million_equal_rows_and_more_has_no_row_digests() {
        let file = tempfile::NamedTempFile::new().expect("a temporary file");
        let mut sink = Sink::open(None, Some(file.path())).expect("opens");
        let mut table = sink.begin();
        let entries = |first: u8, count| [Entry { row: Row { place: u64::from(first), digest: [first; 32] }, count }];
        let all = [entries(1, 3), entries(2, 1_000_000_000), entries(3, 2)];
        let groups: Vec<_> = all.iter().map(|entries| Group { first: entries[0].row.place, entries }).collect();
        sink.add(&mut table, &groups).expect("writes");
        let layout = Layout { form: Form::Binary, columns: vec![], bucketing: Bucketing::RowDigest };
        assert_eq!(sink.finish(&table, &layout).expect("writes").row_digests_at, Some(0));
        sink.flush().expect("writes");
        let written = std::fs::read(file.path()).expect("is read");
        assert_eq!(written, [[1; 24].as_slice(), &[3; 16]].concat());
        assert_eq!(table.blocks[1].rows, 1_000_000_000);
    }
}
