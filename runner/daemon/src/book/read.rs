use std::collections::{BTreeSet, HashMap};
use std::fs::OpenOptions;
use std::io::Read;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use drill::config::Compact;
use drill::file::{self, MAX_SIZE, Options};
use drill::id::Sha256Digest;
use drill::schedule::Slots;
use drill::spec::{Drill, Enforcement};
use jiff::Timestamp;

use super::{Book, Entry};
use crate::dispatcher::FileView;

/// Files that one directory may hold.
const MAX_FILES: usize = 100_000;

/// Reads every `*.yaml`, `*.yml` and `*.json` of the directories. What `before` holds of a file that is bad or gone now, is kept. Blocks.
/// `compact` is what compact manifests among them leave out.
pub fn read(directories: &[PathBuf], compact: Option<&Compact>, before: &Book, now: Timestamp) -> Book {
    let mut book = Book::default();
    let before =
        Before { book: before, by_file: before.drills.values().map(|one| (one.file.as_path(), one)).collect() };
    let before = &before;
    let mut seen = BTreeSet::new();
    let mut problems = Vec::new();
    let mut unread = BTreeSet::new();
    for directory in directories.iter().collect::<BTreeSet<_>>() {
        match list(directory) {
            Ok(files) => {
                for path in files {
                    seen.insert(path.clone());
                    if let Err(problem) = read_one(&path, compact, before, &mut book, now) {
                        problems.push((path, problem));
                    }
                }
            }
            Err(problem) => {
                unread.insert(directory.as_path());
                problems.push((directory.clone(), problem));
            }
        }
    }
    for (path, problem) in problems {
        keep(before, &mut book, &path, problem, now);
    }
    for entry in before.book.drills.values().filter(|entry| !seen.contains(&entry.file)) {
        if book.drills.contains_key(&entry.drill.name) {
            continue;
        }
        if entry.file.parent().is_some_and(|directory| unread.contains(directory)) {
            // That the directory cannot be read was said once; nobody knows of its files.
            book.drills.insert(entry.drill.name.clone(), entry.clone());
        } else {
            keep(before, &mut book, &entry.file, "the file is gone".to_owned(), now);
        }
    }
    book
}

/// The book before, found by file.
struct Before<'a> {
    book: &'a Book,
    by_file: HashMap<&'a Path, &'a Entry>,
}

fn list(directory: &Path) -> Result<Vec<PathBuf>, String> {
    let failed = |error| format!("the directory cannot be read: {error}");
    let mut files = Vec::new();
    for entry in std::fs::read_dir(directory).map_err(failed)? {
        let path = entry.map_err(failed)?.path();
        let named =
            path.extension().is_some_and(|extension| ["yaml", "yml", "json"].iter().any(|known| extension == *known));
        let hidden = path.file_name().is_some_and(|name| name.as_encoded_bytes().starts_with(b"."));
        if named && !hidden {
            files.push(path);
        }
        if files.len() > MAX_FILES {
            return Err(format!("the directory holds more than {MAX_FILES} drill files"));
        }
    }
    files.sort();
    Ok(files)
}

fn read_one(
    path: &Path,
    compact: Option<&Compact>,
    before: &Before<'_>,
    book: &mut Book,
    now: Timestamp,
) -> Result<(), String> {
    let text = bytes(path)?;
    let text = String::from_utf8(text).map_err(|error| format!("the file is not UTF-8: {error}"))?;
    let full = file::full(&text, compact);
    let full = full.map_err(|problems| file::render(&problems, &path.display().to_string(), &text, false))?;
    let drill = match known(before, path, &full) {
        Some(drill) => drill,
        None => Arc::new(parse(path, &full, now)?),
    };
    if let Some(first) = book.drills.get(&drill.name) {
        return Err(format!(
            "there is another drill of the name `{}` in {}, which is the one that counts",
            drill.name,
            first.file.display()
        ));
    }
    book.drills.insert(drill.name.clone(), Entry { drill, file: path.to_owned() });
    Ok(())
}

/// Not a byte more than a drill file may have, and nothing that would wait for a writer.
fn bytes(path: &Path) -> Result<Vec<u8>, String> {
    let failed = |error| format!("the file cannot be read: {error}");
    // To open a device may be to use it.
    if !std::fs::metadata(path).map_err(failed)?.is_file() {
        return Err("it is not a regular file".to_owned());
    }
    let nonblocking = i32::try_from(rustix::fs::OFlags::NONBLOCK.bits()).unwrap_or(0);
    let file = OpenOptions::new().read(true).custom_flags(nonblocking).open(path).map_err(failed)?;
    if !file.metadata().map_err(failed)?.is_file() {
        return Err("it is not a regular file".to_owned());
    }
    let mut bytes = Vec::new();
    file.take(MAX_SIZE as u64 + 1).read_to_end(&mut bytes).map_err(failed)?;
    Ok(bytes)
}

/// The drill that the same text of the same file gave before.
fn known(before: &Before<'_>, path: &Path, text: &str) -> Option<Arc<Drill>> {
    let entry = before.by_file.get(path)?;
    (entry.drill.digest == Sha256Digest::of(text.as_bytes())).then(|| Arc::clone(&entry.drill))
}

fn parse(path: &Path, text: &str, now: Timestamp) -> Result<Drill, String> {
    let options = Options { enforcement: Enforcement::Required };
    let shown = path.display().to_string();
    let drill = file::parse(text, options).map_err(|problems| file::render(&problems, &shown, text, false))?;
    if let Some(schedule) = &drill.schedule {
        let slots = Slots::of(schedule, &drill.name)?;
        if slots.upcoming(now).is_none() {
            return Err("its schedule never comes: a blackout covers each time at which it is due".to_owned());
        }
    }
    Ok(drill)
}

/// Goes on with the last good version, and says so.
fn keep(before: &Before<'_>, book: &mut Book, path: &Path, problem: String, now: Timestamp) {
    let last_good = before.by_file.get(path).filter(|entry| !book.drills.contains_key(&entry.drill.name));
    let keeps = last_good.map(|entry| entry.drill.name.clone());
    if let Some(entry) = last_good {
        book.drills.insert(entry.drill.name.clone(), Entry::clone(entry));
    }
    let known = before.book.problems.iter().find(|file| file.path == path && file.problem == problem);
    let since = known.map_or(now, |file| file.since);
    book.problems.push(FileView { path: path.to_owned(), keeps, problem, since });
}
