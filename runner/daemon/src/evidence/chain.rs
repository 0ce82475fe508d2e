//! The chain behind one evidence, as far as its files lie beside it.
use std::collections::{BTreeMap, HashMap};
use std::ops::RangeInclusive;
use std::path::{Path, PathBuf};

use drill::evidence::{FILE_SUFFIX, Statement, Stretch, merge};
use drill::id::Sha256Digest;
use drill::stop::Stop;
use drivers::key::PublicKey;

use super::files;
use super::verify::{Content, open};

/// Files of one directory that are looked at.
const MAX_FILES: usize = 200_000;

#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ChainReport {
    /// The place of the verified evidence: as many should be there.
    pub total: u64,
    /// Itself counted.
    pub present: u64,
    /// Deleted on purpose, as signed tombstones say.
    pub deleted: u64,
    /// Neither there nor accounted for, newest first.
    pub missing: Vec<RangeInclusive<u64>>,
    /// What contradicts the chain.
    pub wrong: Vec<String>,
}

impl ChainReport {
    pub fn is_whole(&self) -> bool {
        self.missing.is_empty() && self.wrong.is_empty()
    }

    /// `12 of 12 present`, `3 of 12 present, missing 4 to 9, 2`.
    pub fn line(&self) -> String {
        let mut line = format!("{} of {} present", self.present, self.total);
        if self.deleted > 0 {
            line = format!("{line}, {} deleted on purpose, as a signed tombstone says", self.deleted);
        }
        if !self.missing.is_empty() {
            let ranges = self.missing.iter().map(|range| match (range.start(), range.end()) {
                (start, end) if start == end => start.to_string(),
                (start, end) => format!("{start} to {end}"),
            });
            line = format!("{line}, missing {}", ranges.collect::<Vec<_>>().join(", "));
        }
        line
    }
}

/// Walks from `statement` towards the first, by digest. `file` is where it lies.
pub(super) fn check(
    file: &Path,
    statement: &Statement,
    digest: Sha256Digest,
    trusted: &[PublicKey],
) -> Result<ChainReport, Stop> {
    let position = &statement.predicate.chain;
    let mut beside = Beside::read(file, &position.store_id, trusted)?;
    let here = Link { path: file.to_owned(), sequence: position.sequence, previous: position.previous };
    beside.add(digest, here.clone());
    let mut report = ChainReport { total: position.sequence, present: 1, ..ChainReport::default() };
    report.wrong.extend(beside.forks(position.sequence));
    let mut at = here;
    while at.sequence > 1 {
        match beside.before(&at) {
            Ok(link) => {
                report.present += 1;
                at = link;
            }
            Err(wrong) => {
                report.wrong.extend(wrong);
                match beside.after_gap(&at, &mut report) {
                    Some(link) => at = link,
                    None => break,
                }
            }
        }
    }
    if at.sequence == 1 && at.previous.is_some() {
        report.wrong.push(format!("{} is the first and names one before it", at.path.display()));
    }
    let unreadable = std::mem::take(&mut beside.unreadable);
    if !report.is_whole() {
        report.wrong.extend(unreadable);
    }
    Ok(report)
}

#[derive(Debug, Clone)]
struct Link {
    path: PathBuf,
    sequence: u64,
    previous: Option<Sha256Digest>,
}

/// What lies beside the file, of the same store, signed by a trusted key.
#[derive(Default)]
struct Beside {
    links: HashMap<Sha256Digest, Link>,
    sequences: BTreeMap<u64, Vec<Sha256Digest>>,
    /// What tombstones say, oldest first.
    deleted: Vec<Stretch>,
    /// Said only where something is missing: other people's evidence may lie here too.
    unreadable: Vec<String>,
}

impl Beside {
    fn read(file: &Path, store_id: &str, trusted: &[PublicKey]) -> Result<Self, Stop> {
        let directory = match file.parent() {
            Some(parent) if !parent.as_os_str().is_empty() => parent,
            _ => Path::new("."),
        };
        let trouble = |error| Stop::internal(format!("directory {} cannot be read: {error}", directory.display()));
        let mut beside = Self::default();
        let mut seen = 0;
        for entry in std::fs::read_dir(directory).map_err(trouble)? {
            let path = entry.map_err(trouble)?.path();
            let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
            if !name.ends_with(FILE_SUFFIX) {
                continue;
            }
            seen += 1;
            if seen > MAX_FILES {
                return Err(Stop::internal(format!(
                    "{} holds more than {MAX_FILES} files of evidence",
                    directory.display()
                ))
                .advise("move the evidence that is to be verified, and all before it, to a directory of its own"));
            }
            beside.look_at(path, store_id, trusted);
        }
        beside.deleted.retain(|stretch| stretch.first >= 1 && stretch.first <= stretch.last);
        beside.deleted = merge(std::mem::take(&mut beside.deleted));
        Ok(beside)
    }

    fn look_at(&mut self, path: PathBuf, store_id: &str, trusted: &[PublicKey]) {
        let bytes = match files::read(&path) {
            Ok(bytes) => bytes,
            Err(error) => return self.unreadable.push(format!("{} cannot be read: {error}", path.display())),
        };
        match open(&bytes, trusted) {
            Err(stop) => self.unreadable.push(format!("{} does not count: {stop}", path.display())),
            Ok(opened) => match opened.content {
                Content::Evidence(statement) if statement.predicate.chain.store_id == store_id => {
                    let chain = statement.predicate.chain;
                    self.add(opened.digest, Link { path, sequence: chain.sequence, previous: chain.previous });
                }
                Content::Tombstone(tombstone) if tombstone.store_id == store_id => {
                    self.deleted.extend(tombstone.deleted);
                }
                Content::Evidence(_) | Content::Tombstone(_) => {}
            },
        }
    }

    /// A second copy of the same bytes is the same link.
    fn add(&mut self, digest: Sha256Digest, link: Link) {
        let sequence = link.sequence;
        if self.links.insert(digest, link).is_none() {
            self.sequences.entry(sequence).or_default().push(digest);
        }
    }

    fn at(&self, sequence: u64) -> impl Iterator<Item = &Link> {
        self.sequences.get(&sequence).into_iter().flatten().filter_map(|digest| self.links.get(digest))
    }

    /// Places that several claim, up to `last`.
    fn forks(&self, last: u64) -> Vec<String> {
        let claimed = self.sequences.range(..=last).filter(|(_, digests)| digests.len() > 1);
        claimed
            .map(|(sequence, _)| {
                let paths: Vec<_> = self.at(*sequence).map(|link| link.path.display().to_string()).collect();
                format!("the chain is forked: {} all are evidence {sequence}", paths.join(", "))
            })
            .collect()
    }

    /// The link that `at` names as the one before it; otherwise what is wrong, beyond its absence.
    fn before(&self, at: &Link) -> Result<Link, Option<String>> {
        let shown = at.path.display();
        let Some(previous) = at.previous else {
            return Err(Some(format!("{shown} is evidence {} and names none before it", at.sequence)));
        };
        match self.links.get(&previous) {
            Some(link) if link.sequence.checked_add(1) == Some(at.sequence) => Ok(link.clone()),
            Some(link) => Err(Some(format!(
                "{shown} is evidence {} and names {} before it, which is evidence {}",
                at.sequence,
                link.path.display(),
                link.sequence
            ))),
            None => Err(self.at(at.sequence - 1).next().map(|other| {
                format!("{} is not the evidence {} that {shown} names", other.path.display(), other.sequence)
            })),
        }
    }

    /// Counts what is deleted or missing before `at`, and gives where the chain goes on. None where nothing more is.
    fn after_gap(&self, at: &Link, report: &mut ChainReport) -> Option<Link> {
        let before = at.sequence - 1;
        if let Some(stretch) = self.deleted.iter().find(|stretch| stretch.contains(before)) {
            if stretch.last == before && Some(stretch.digest) != at.previous {
                report.wrong.push(format!(
                    "{} is evidence {} and names another before it than the one that a tombstone says was deleted",
                    at.path.display(),
                    at.sequence
                ));
            }
            report.deleted += at.sequence - stretch.first;
            return Some(Link { path: at.path.clone(), sequence: stretch.first, previous: stretch.previous });
        }
        let link = self.sequences.range(..before).next_back().and_then(|(sequence, _)| self.at(*sequence).next());
        let stretch = self.deleted.iter().rfind(|stretch| stretch.last < before);
        let (in_file, in_tombstone) = (link.map_or(0, |link| link.sequence), stretch.map_or(0, |stretch| stretch.last));
        report.missing.push(in_file.max(in_tombstone) + 1..=before);
        match (link, stretch) {
            (Some(link), _) if in_file >= in_tombstone => {
                report.present += 1;
                Some(link.clone())
            }
            (_, Some(stretch)) => {
                report.deleted += stretch.last + 1 - stretch.first;
                Some(Link { path: at.path.clone(), sequence: stretch.first, previous: stretch.previous })
            }
            (_, None) => None,
        }
    }
}
