//! From a path to a checked drill: the only place where a drill file is read from disk.
use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use drill::file::{MAX_SIZE, Options, Problems, render};
use drill::spec::Drill;
use drill::stop::Stop;
use drill::verdict::EXIT_NOTHING_BEGUN;

use super::style::{Style, clean};
use super::{error_text, serve};

/// Why there is no drill. Nothing was begun.
#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    #[error("failed to read drill file {}", path.display())]
    Read {
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error("{} is not a regular file", path.display())]
    NotAFile { path: PathBuf },
    #[error("{} is not UTF-8: byte {byte} on line {line} is not part of any character", path.display())]
    NotUtf8 { path: PathBuf, line: usize, byte: usize },
    #[error("{} is not a drill", path.display())]
    Invalid {
        path: PathBuf,
        text: String,
        #[source]
        problems: Problems,
    },
    /// What a compact manifest leaves out stands in it.
    #[error("the configuration cannot be used")]
    Configuration(#[source] Stop),
}

impl LoadError {
    /// What a person reads, with a line feed at its end.
    pub fn render(&self, color: bool) -> String {
        let lines = match self {
            Self::Invalid { path, text, problems } => {
                return render(problems, &path.display().to_string(), text, color);
            }
            Self::Configuration(stop) => return error_text(stop, Style::plain()),
            Self::Read { source, .. } if source.kind() == io::ErrorKind::NotFound => {
                format!("{self}: it does not exist\n  name a drill file; `muster schema` prints what one may hold")
            }
            Self::Read { source, .. } => format!("{self}: {source}"),
            Self::NotAFile { .. } => format!("{self}\n  name one YAML file; each file declares one drill"),
            Self::NotUtf8 { .. } => format!("{self}\n  save it as UTF-8"),
        };
        let lines: Vec<String> = lines.lines().map(clean).collect();
        format!("error: {}\n", lines.join("\n"))
    }

    /// Prints it to stderr; the exit code says that nothing was begun.
    pub fn report(&self) -> ExitCode {
        let style = Style::of_stderr();
        // Nobody listens: the exit code says it too.
        let _ = io::stderr().lock().write_all(wrapped(&self.render(style.has_colour()), style).as_bytes());
        ExitCode::from(EXIT_NOTHING_BEGUN)
    }
}

/// Everything but excerpts of the file, where columns have a meaning.
pub(super) fn wrapped(text: &str, style: Style) -> String {
    let mut wrapped = String::new();
    for line in text.lines() {
        let words = line.trim_start();
        if line.contains(" | ") {
            wrapped.push_str(line);
        } else {
            wrapped.push_str(&style.hang(&line[..line.len() - words.len()], words));
        }
        wrapped.push('\n');
    }
    wrapped
}

/// Reads and checks a drill file. Gives the drill, the file's absolute path, and the directory that relative paths in it
/// start from. Symlinks are left alone: paths are relative to where the user sees the file. `config` is what somebody named as
/// the daemon's configuration; it is read where the file is a compact manifest.
pub fn load(path: &Path, options: Options, config: Option<&Path>) -> Result<(Drill, PathBuf, PathBuf), LoadError> {
    let text = expanded(path, config)?;
    let drill = drill::file::parse(&text, options).map_err(|problems| LoadError::Invalid {
        path: path.to_owned(),
        text,
        problems,
    })?;
    let absolute = std::path::absolute(path).map_err(|source| LoadError::Read { path: path.to_owned(), source })?;
    let directory = absolute.parent().unwrap_or(&absolute).to_owned();
    Ok((drill, absolute, directory))
}

/// A drill file's text, or that of the one which a compact manifest stands for.
pub fn expanded(path: &Path, config: Option<&Path>) -> Result<String, LoadError> {
    let text = read(path)?;
    if !drill::file::is_compact(&text) {
        return Ok(text);
    }
    let config = serve::in_force(config).map_err(LoadError::Configuration)?;
    let compact = config.and_then(|config| config.compact);
    match drill::file::full(&text, compact.as_ref()) {
        Ok(full) => Ok(full.into_owned()),
        Err(problems) => Err(LoadError::Invalid { path: path.to_owned(), text, problems }),
    }
}

/// At most one byte more than a drill file may have, so that the check of its size has something to see.
fn read(path: &Path) -> Result<String, LoadError> {
    let failed = |source| LoadError::Read { path: path.to_owned(), source };
    // Opening a pipe would wait for its writer.
    if !fs::metadata(path).map_err(failed)?.is_file() {
        return Err(LoadError::NotAFile { path: path.to_owned() });
    }
    let mut bytes = Vec::new();
    File::open(path).map_err(failed)?.take(MAX_SIZE as u64 + 1).read_to_end(&mut bytes).map_err(failed)?;
    let too_long = bytes.len() > MAX_SIZE;
    String::from_utf8(bytes).or_else(|error| {
        let good = error.utf8_error().valid_up_to();
        if too_long && error.utf8_error().error_len().is_none() {
            // The bound cut a character; the size is what is wrong.
            return Ok(String::from_utf8_lossy(error.as_bytes()).into_owned());
        }
        let lines = error.as_bytes()[..good].split(|byte| *byte == b'\n');
        let (line, byte) = lines.enumerate().last().map_or((1, 1), |(index, line)| (index + 1, line.len() + 1));
        Err(LoadError::NotUtf8 { path: path.to_owned(), line, byte })
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const SMALLEST: &str = "\
apiVersion: muster.dev/v1
kind: Drill
metadata: { name: orders }
spec: { source: { manifest: latest/manifest.json, trustedKeys: [{ file: backup.pub }] } }
";

    fn written(contents: &[u8]) -> (tempfile::TempDir, PathBuf) {
        let folder = tempfile::tempdir().expect("a temporary directory");
        let path = folder.path().join("orders.yaml");
        fs::write(&path, contents).expect("a new file");
        (folder, path)
    }

    fn refused(path: &Path) -> String {
        load(path, Options::default(), None).expect_err("it is refused").render(false)
    }

    #[test]
    fn a_drill_comes_with_the_directory_that_its_paths_start_from() {
        let (folder, path) = written(SMALLEST.as_bytes());
        let (drill, file, directory) = load(&path, Options::default(), None).expect("it is a drill");
        assert_eq!(drill.name.as_str(), "orders");
        assert_eq!(drill.digest, drill::id::Sha256Digest::of(SMALLEST.as_bytes()));
        assert_eq!((file.as_path(), directory.as_path()), (path.as_path(), folder.path()));
    }

    #[test]
    fn what_is_no_drill_is_refused_in_words() {
        let (folder, path) = written(b"kind: Drill\nname: \xff\n");
        assert!(refused(&path).contains("not UTF-8: byte 7 on line 2"), "{}", refused(&path));
        assert!(refused(&folder.path().join("absent.yaml")).contains("it does not exist"));
        assert!(refused(folder.path()).contains("is not a regular file"));

        let (_folder, path) = written(b"kind: Dril\n");
        let answer = refused(&path);
        assert!(answer.starts_with(&format!("error: 4 problems in {}\n", path.display())), "{answer}");
        let excerpt = " 1 | kind: Dril\n     |       ^^^^ write Drill\n";
        assert!(answer.contains(excerpt), "{answer}");
        let narrow = wrapped(&answer, Style::of_columns(40));
        assert!(narrow.contains(excerpt), "{narrow}");
        assert_eq!(wrapped(&answer, Style::plain()), answer);

        let (_folder, path) = written("ü".repeat(MAX_SIZE).as_bytes());
        assert!(refused(&path).contains("longer than the 1 MiB"), "{}", refused(&path));
    }
}
