//! Data directories that are made once and copied for each run.
use std::fs::{DirBuilder, File};
use std::os::fd::AsFd;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use drill::port::{Exec, ExitStatus, Template};
use drill::stop::{OrStop, Stop};
use drill::verdict::Reason;
use rustix::fs::{CWD, Mode};

use super::sandbox::Start;
use super::{exec, process, spawn, tree};

const MAKE: Duration = Duration::from_mins(2);
const END: Duration = Duration::from_secs(30);
/// Characters of a boot's id.
const BOOT_ID: usize = 36;

/// Fills the run's `data/`: from the cache, or by making what belongs there first.
pub(super) async fn fill(start: &Start<'_>, template: &Template, programs: Option<PathBuf>) -> Result<(), Stop> {
    let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-');
    if template.key.is_empty() || template.key.len() > 100 || !template.key.chars().all(plain) {
        return Err(Stop::internal(format!("`{}` is no key of a template", template.key)));
    }
    // Made again after each boot: a crash may have torn what was never waited for to reach the disk, and waiting costs more.
    let boot = process::boot_id().or_stop(Reason::Internal, "reading the boot's id")?;
    let cached = start.shared.root.cache().join(format!("template-{}-{boot}", template.key));
    if !cached.is_dir() {
        make(start, template, programs, cached.clone()).await?;
    }
    let (data, uid) = (start.directory.join("data"), start.uid);
    let copy = move || -> std::io::Result<()> {
        let from = tree::open_directory(CWD, &cached)?;
        let to = tree::open_directory(CWD, &data)?;
        tree::copy(from.as_fd(), to.as_fd(), uid)
    };
    let tried = "copying the data directory's template";
    tokio::task::spawn_blocking(copy).await.or_stop(Reason::Internal, tried)?.or_stop(Reason::Internal, tried)
}

/// In a sandbox of the same kind, under the run's own name, so that whatever cleans up after the run cleans up after this.
async fn make(start: &Start<'_>, template: &Template, programs: Option<PathBuf>, cached: PathBuf) -> Result<(), Stop> {
    let tried = format!("making the data directory's template `{}`", template.key);
    let data = start.directory.join("template");
    DirBuilder::new().mode(0o700).create(&data).or_stop(Reason::Internal, &tried)?;
    let fd = File::open(&data).or_stop(Reason::Internal, &tried)?;
    tree::give(fd.as_fd(), Mode::RWXU, start.uid).or_stop(Reason::Internal, &tried)?;

    let started = start.with_init(start.data("template", programs), "template.sock", 1).await?;
    let mut command = Exec::new(template.argv.clone());
    command.deadline = MAKE;
    let output = exec::exec(&started.control, command).await?;
    if output.status != ExitStatus::Code(0) {
        let said = exec::clean(String::from_utf8_lossy(&output.stderr).trim());
        return Err(Stop::new(Reason::SandboxUnfit, format!("{tried}: it ended with {:?}: {said}", output.status)));
    }
    let runs_own = start.shared.root.cache().join(format!(".tmp-{}", start.run));
    let making = Arc::clone(&start.shared.making).read_owned().await;
    let keep = move || -> Result<(), Stop> {
        let _making = making;
        started.running.first.kill();
        spawn::seen_ended(&started.running.first, END)?;
        publish(&data, &runs_own, &cached).or_stop(Reason::Internal, tried)
    };
    tokio::task::spawn_blocking(keep).await.or_stop(Reason::Internal, "keeping the template")?
}

/// Whole or not at all. Whoever comes second finds the name taken, which is as good.
fn publish(made: &Path, temporary: &Path, cached: &Path) -> std::io::Result<()> {
    DirBuilder::new().mode(0o700).create(temporary)?;
    let from = tree::open_directory(CWD, made)?;
    let to = tree::open_directory(CWD, temporary)?;
    tree::copy(from.as_fd(), to.as_fd(), rustix::process::geteuid().as_raw())?;
    remove(made)?;
    match std::fs::rename(temporary, cached) {
        Err(_) if cached.is_dir() => remove(temporary),
        other => other.and_then(|()| remove_older(cached)),
    }
}

/// Those of the same key from before the last boot.
fn remove_older(cached: &Path) -> std::io::Result<()> {
    let (Some(cache), Some(name)) = (cached.parent(), cached.file_name().and_then(|name| name.to_str())) else {
        return Ok(());
    };
    let family = &name[..name.len().saturating_sub(BOOT_ID)];
    for entry in std::fs::read_dir(cache)? {
        let entry = entry?.file_name();
        let other = entry.to_str().filter(|other| other.len() == name.len() && other.starts_with(family));
        if let Some(other) = other.filter(|other| *other != name) {
            remove(&cache.join(other))?;
        }
    }
    Ok(())
}

fn remove(path: &Path) -> std::io::Result<()> {
    tree::remove_path(path, &|| true).map(drop)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_template_replaces_its_own_of_another_boot_and_no_other() {
        let cache = tempfile::tempdir().expect("a directory");
        let path = |name: &str| cache.path().join(name);
        let boot = |digit: &str| digit.repeat(BOOT_ID);
        for name in [format!("template-15-{}", boot("1")), format!("template-16-{}", boot("1")), "made".to_owned()] {
            std::fs::create_dir(path(&name)).expect("made");
            std::fs::write(path(&name).join("PG_VERSION"), name).expect("written");
        }
        publish(&path("made"), &path(".tmp"), &path(&format!("template-15-{}", boot("2")))).expect("published");
        let mut names: Vec<_> =
            std::fs::read_dir(cache.path()).expect("read").flatten().map(|e| e.file_name()).collect();
        names.sort();
        assert_eq!(
            names,
            [format!("template-15-{}", boot("2")), format!("template-16-{}", boot("1"))]
                .map(Into::<std::ffi::OsString>::into)
        );
        std::fs::create_dir(path("second")).expect("made");
        publish(&path("second"), &path(".tmp"), &path(&format!("template-15-{}", boot("2")))).expect("as good");
        assert!(path(&format!("template-15-{}", boot("2"))).join("PG_VERSION").exists());
        assert!(!path(".tmp").exists());
    }
}
