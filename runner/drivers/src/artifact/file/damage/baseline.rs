//! A baseline that says something else than what was backed up. One thing in one file, or in the two that belong together: what
//! else the baseline says stays true, so that only the one check can notice it.
use std::fs::File;
use std::io::{BufRead as _, BufReader, BufWriter, Write};
use std::os::unix::fs::FileExt as _;
use std::path::Path;

use drill::baseline::{Table, TableKind};
use drill::content;
use drill::ledger::{Answer, Damage, Damaged};
use drill::manifest::{FileEntry, Manifest};
use drill::port::LookedAt;
use drill::schema::Object;
use drill::spec::noticed_by;
use drill::stop::{OrStop, Stop};
use drill::verdict::Reason;

use super::super::super::tree::Meter;
use super::{describe, open};

/// Of a block in the blocks file.
const BLOCK: u64 = 48;

/// Changes the first thing that the drill's check looks at, and what the manifest says of its file.
pub(super) fn damage(
    damage: Damage,
    manifest: &mut Manifest,
    copy: &Path,
    looked_at: &LookedAt,
    meter: &Meter,
) -> Result<Damaged, Stop> {
    for part in &mut manifest.parts {
        let done = match damage {
            Damage::BaselineColumn => change(&mut part.schema, copy, meter, |line| Ok(lost_column(line, looked_at)))?,
            Damage::BaselineRows => change(&mut part.baseline, copy, meter, |line| one_row_more(line, looked_at))?,
            _ => match &mut part.blocks {
                None => None,
                Some(blocks) => {
                    let path = blocks.path.clone();
                    let done =
                        change(&mut part.baseline, copy, meter, |line| other_digest(line, looked_at, copy, &path))?;
                    if done.is_some() {
                        describe(copy, blocks, meter)?;
                    }
                    done
                }
            },
        };
        if let Some((what, subject)) = done {
            let plugin = noticed_by(damage).unwrap_or_default().to_owned();
            return Ok(Damaged { what, answer: Answer::Finding { plugin, database: part.database.clone(), subject } });
        }
    }
    let message = format!("the backup has no baseline in which the drill could notice {damage}");
    Err(Stop::new(Reason::SelfTestInconclusive, message)
        .advise("make backups with `muster capture`, or leave this damage out of `selfTest: { damages }`"))
}

/// What became of one line.
enum Line {
    Kept,
    /// In its place, if anything; what was done, and to what.
    Changed(Option<String>, String, String),
}

/// Writes the file anew, one line changed. None where no line could be.
fn change(
    entry: &mut Option<FileEntry>,
    copy: &Path,
    meter: &Meter,
    mut each: impl FnMut(&str) -> Result<Line, Stop>,
) -> Result<Option<(String, String)>, Stop> {
    let Some(entry) = entry else { return Ok(None) };
    let tried = format!("damaging the copy of `{}`", entry.path);
    let (path, new) = (copy.join(&entry.path), copy.join(format!("{}.new", entry.path)));
    let from = BufReader::new(File::open(&path).or_stop(Reason::Internal, &tried)?);
    let mut to = BufWriter::new(File::create(&new).or_stop(Reason::Internal, &tried)?);
    let mut done = None;
    for line in from.lines() {
        let line = line.or_stop(Reason::Internal, &tried)?;
        let kept = match done {
            Some(_) => Line::Kept,
            None => each(&line)?,
        };
        let put = match kept {
            Line::Kept => Some(line),
            Line::Changed(put, what, subject) => {
                done = Some((what, subject));
                put
            }
        };
        if let Some(put) = put {
            to.write_all(put.as_bytes()).and_then(|()| to.write_all(b"\n")).or_stop(Reason::Internal, &tried)?;
        }
    }
    to.flush().or_stop(Reason::Internal, &tried)?;
    std::fs::rename(&new, &path).or_stop(Reason::Internal, &tried)?;
    if done.is_some() {
        describe(copy, entry, meter)?;
    }
    Ok(done)
}

/// None for the header and for what the check does not look at. What a restore refreshes is never a failure.
fn table(line: &str, looked_at: &LookedAt) -> Option<(Table, String)> {
    let table: Table = serde_json::from_str(line).ok()?;
    let label = format!("{}.{}", table.schema, table.name);
    (table.kind == TableKind::Table && looked_at(&label, None)).then_some((table, label))
}

fn one_row_more(line: &str, looked_at: &LookedAt) -> Result<Line, Stop> {
    let Some((mut table, label)) = table(line, looked_at) else { return Ok(Line::Kept) };
    let Some(rows) = table.rows else { return Ok(Line::Kept) };
    table.rows = Some(rows + 1);
    Ok(Line::Changed(Some(json(&table)?), format!("one row more of {label} in the baseline"), label))
}

/// The first block of the table gets another digest, and the root of the table follows from it: the baseline agrees with
/// itself, and not with the rows.
fn other_digest(line: &str, looked_at: &LookedAt, copy: &Path, blocks_file: &str) -> Result<Line, Stop> {
    let Some((mut table, label)) = table(line, looked_at) else { return Ok(Line::Kept) };
    let Some(content) = table.digest.take().filter(|content| content.blocks > 0) else { return Ok(Line::Kept) };
    let tried = format!("damaging the copy of `{blocks_file}`");
    let file = open(copy, blocks_file).or_stop(Reason::Internal, &tried)?;
    let length = usize::try_from(content.blocks * BLOCK).or_stop(Reason::Internal, &tried)?;
    let mut bytes = vec![0; length];
    file.read_exact_at(&mut bytes, content.at).or_stop(Reason::Internal, &tried)?;
    let mut blocks = content::decode(&bytes, &content).or_stop(Reason::ArtifactRefused, &tried)?;
    blocks[0].digest[0] ^= 1;
    file.write_all_at(&content::encode(&blocks[..1]), content.at).or_stop(Reason::Internal, &tried)?;
    table.digest = Some(content::digest(content.layout, &blocks, content.at, content.row_digests_at));
    Ok(Line::Changed(Some(json(&table)?), format!("another digest of {label} in the baseline"), label))
}

fn lost_column(line: &str, looked_at: &LookedAt) -> Line {
    let Ok(object) = serde_json::from_str::<Object>(line) else { return Line::Kept };
    let of_table = serde_json::from_str::<serde_json::Value>(object.content.get())
        .ok()
        .and_then(|content| Some(content.get("table")?.as_str()?.to_owned()));
    if object.kind != "relation column" || !looked_at(&object.identity, of_table.as_deref()) {
        return Line::Kept;
    }
    let subject = format!("column {}", object.identity);
    Line::Changed(None, format!("the missing {subject} in the baseline"), subject)
}

fn json(table: &Table) -> Result<String, Stop> {
    serde_json::to_string(table).or_stop(Reason::Internal, "writing a baseline")
}
