//! The files beside a baseline that hold what is too much for it: blocks, and row digests where they are asked for.
use std::fs::File;
use std::io::{self, BufWriter, Write};
use std::path::Path;

use drill::baseline::{ContentDigest, Layout};
use drill::content::{self, Block, Group};
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
            table.blocks.push(group.block());
            if let Some(side) = &mut self.row_digests {
                for prefix in group.prefixes() {
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
