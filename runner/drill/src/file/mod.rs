//! Drill files: YAML text to a checked [`Drill`], or every problem of the file at once.
//!
//! A file becomes a tree that knows where everything stands (`tree`); the tree is compared with the one table of known keys
//! (`shape`, by `form`), which is also the JSON Schema (`schema`); then values are read, defaults filled in, and combinations
//! refused (`check`). [`render`] draws the problems for a person.
mod check;
mod compact;
mod config;
mod cron;
mod doorway;
mod form;
mod kubernetes;
mod problem;
mod rule;
mod schema;
mod self_test;
mod shape;
mod tree;
mod value;
mod vault;

pub use compact::{full, is_compact};
pub use config::{config_schema, parse_config};
pub use problem::{Place, Problem, Problems, render};
pub use rule::is_reserved_setting;
pub use schema::{compact_schema, json_schema};

use crate::id::{DrillName, Sha256Digest};
use crate::spec::{Drill, DumpSource, Enforcement, Need};

/// The plugins that ship inside muster.
pub const BUILTIN_PLUGINS: &[&str] = &["checksum", "freshness", "row-count", "schema"];

/// Name and plugin of the checks of a drill that names none, and what they compare with where they do nothing else.
const DEFAULT_CHECKS: &[(&str, &str, Option<Need>)] = &[
    ("schema", "schema", Some(Need::Schema)),
    ("rows", "row-count", None),
    ("content", "checksum", Some(Need::Digests)),
];

/// Bytes that a drill file may have.
pub const MAX_SIZE: usize = 1 << 20;

/// What depends on who reads the file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Options {
    /// Where the file does not say: `muster run` warns, the daemon refuses.
    pub enforcement: Enforcement,
}

impl Default for Options {
    fn default() -> Self {
        Self { enforcement: Enforcement::BestEffort }
    }
}

/// The drill of a dump that no file describes: every default, and a name made from the dump's.
pub fn of_dump(dump: DumpSource, options: Options) -> Drill {
    let name = name_of_dump(&dump.path);
    // There is no file to make a digest of; these are the words that say the same.
    let words = format!(
        "muster run --dump {} --sha256 {} --timezone {}",
        dump.path,
        dump.sha256.map_or_else(|| "none".to_owned(), |digest| digest.to_string()),
        dump.timezone.as_deref().unwrap_or("none"),
    );
    check::bare(name, Sha256Digest::of(words.as_bytes()), dump, options)
}

/// A dump's file name up to its first dot, as far as a drill may be called so.
pub fn name_of_dump(path: &str) -> DrillName {
    let file = path.trim_end_matches('/').rsplit('/').next().unwrap_or_default();
    let stem = file.split('.').find(|part| !part.is_empty()).unwrap_or_default();
    let name = rule::as_label(stem, DrillName::MAX).unwrap_or_else(|| stem.to_owned());
    name.parse().or_else(|_| "dump".parse()).expect("`dump` is a DNS label")
}

/// Reads a drill file. Time zones are looked up in the system's database.
pub fn parse(text: &str, options: Options) -> Result<Drill, Problems> {
    if text.len() > MAX_SIZE {
        let problem = Problem::whole_file("the file is longer than the 1 MiB that a drill file may have");
        return Err(problem.into());
    }
    let digest = Sha256Digest::of(text.as_bytes());
    let root = tree::read(text.strip_prefix('\u{feff}').unwrap_or(text))?;
    if root.value == tree::Value::Null {
        return Err(Problem::whole_file("the file is empty").hint("`muster schema` prints what it may hold").into());
    }
    let mut problems = Problems::default();
    form::check(&root, &shape::DRILL, &mut problems);
    let drill = check::check(&root, digest, options, &mut problems);
    match drill {
        Some(drill) if problems.is_empty() => Ok(drill),
        _ => {
            problems.sort();
            Err(problems)
        }
    }
}
