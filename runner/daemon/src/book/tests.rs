#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]
use std::fs;
use std::path::Path;

use super::*;
use crate::dispatcher::{Event, Handle, View};

const NOW: jiff::Timestamp = jiff::Timestamp::UNIX_EPOCH;

fn drill_file(directory: &Path, file: &str, name: &str, more: &str) {
    let text = format!(
        "apiVersion: muster.dev/v1\nkind: Drill\nmetadata: {{ name: {name} }}\nspec:\n  source: {{ manifest: m/manifest.json, \
         trustedKeys: [{{ file: k.pub }}] }}\n{more}"
    );
    fs::write(directory.join(file), text).unwrap();
}

fn look(directory: &Path, before: &Book) -> Book {
    read(&[directory.to_owned()], None, before, NOW)
}

fn name(text: &str) -> DrillName {
    text.parse().unwrap()
}

fn names(book: &Book) -> Vec<&str> {
    book.drills.keys().map(DrillName::as_str).collect()
}

#[test]
fn a_bad_or_vanished_file_keeps_the_last_good_version() {
    let place = tempfile::tempdir().unwrap();
    let here = place.path();
    drill_file(here, "a.yaml", "orders", "");
    drill_file(here, "b.yml", "stock", "");
    fs::write(here.join("notes.txt"), "not a drill").unwrap();
    let first = look(here, &Book::default());
    assert_eq!(names(&first), ["orders", "stock"]);
    assert!(first.problems.is_empty());

    drill_file(here, "a.yaml", "orders", "  shedule: {}\n");
    fs::remove_file(here.join("b.yml")).unwrap();
    let second = look(here, &first);
    assert_eq!(names(&second), ["orders", "stock"]);
    assert!(Arc::ptr_eq(&second.drills[&name("orders")].drill, &first.drills[&name("orders")].drill));
    let [bad, gone] = &second.problems[..] else { panic!("{:?}", second.problems) };
    assert!(bad.problem.contains("shedule") && bad.problem.contains("schedule"), "{}", bad.problem);
    assert_eq!(bad.keeps.as_ref().unwrap().as_str(), "orders");
    assert_eq!((gone.problem.as_str(), gone.keeps.as_ref().unwrap().as_str()), ("the file is gone", "stock"));
    // It is still gone when it is looked at again.
    assert_eq!(look(here, &second).problems, second.problems);

    drill_file(here, "a.yaml", "orders", "  objectives: { recoveryTime: 1h }\n");
    drill_file(here, "b.yml", "stock", "");
    let third = look(here, &second);
    assert!(third.problems.is_empty(), "{:?}", third.problems);
    assert!(third.drills[&name("orders")].drill.objectives.recovery_time.is_some());
    assert!(
        Arc::ptr_eq(&third.drills[&name("stock")].drill, &first.drills[&name("stock")].drill),
        "the same bytes are the same drill"
    );
}

#[test]
fn a_drill_that_was_renamed_is_one_drill() {
    let place = tempfile::tempdir().unwrap();
    drill_file(place.path(), "a.yaml", "orders", "");
    let first = look(place.path(), &Book::default());
    fs::rename(place.path().join("a.yaml"), place.path().join("z.yaml")).unwrap();
    let second = look(place.path(), &first);
    assert_eq!((names(&second), second.problems.len()), (vec!["orders"], 0));
    assert!(second.drills[&name("orders")].file.ends_with("z.yaml"));
    // In the same file under another name, the old name is not kept.
    drill_file(place.path(), "z.yaml", "sales", "");
    assert_eq!(names(&look(place.path(), &second)), ["sales"]);
}

#[test]
fn of_two_with_one_name_the_first_counts() {
    let place = tempfile::tempdir().unwrap();
    drill_file(place.path(), "a.yaml", "orders", "");
    drill_file(place.path(), "b.yaml", "orders", "  objectives: { recoveryTime: 1h }\n");
    let book = look(place.path(), &Book::default());
    assert!(book.drills[&name("orders")].file.ends_with("a.yaml"));
    assert!(book.problems[0].path.ends_with("b.yaml") && book.problems[0].problem.contains("a.yaml"));
}

#[test]
fn what_is_no_file_of_text_is_a_problem_and_not_a_wait() {
    let place = tempfile::tempdir().unwrap();
    let here = place.path();
    fs::create_dir(here.join("directory.yaml")).unwrap();
    rustix::fs::mknodat(rustix::fs::CWD, here.join("fifo.yaml"), rustix::fs::FileType::Fifo, 0o600.into(), 0).unwrap();
    fs::write(here.join("latin.yaml"), b"name: caf\xe9\n").unwrap();
    fs::write(here.join("long.yaml"), vec![b'#'; drill::file::MAX_SIZE + 1]).unwrap();
    std::os::unix::fs::symlink("nowhere", here.join("link.yaml")).unwrap();
    let book = look(here, &Book::default());
    assert!(book.drills.is_empty());
    let said: Vec<_> = book.problems.iter().map(|file| file.problem.as_str()).collect();
    for (said, wanted) in
        said.iter().zip(["not a regular file", "not a regular file", "not UTF-8", "cannot be read", "1 MiB"])
    {
        assert!(said.contains(wanted), "{said}");
    }
    assert_eq!(said.len(), 5);
    let nowhere = read(&[here.join("nowhere")], None, &Book::default(), NOW);
    assert!(nowhere.problems[0].problem.contains("directory cannot be read"));
}

#[test]
fn a_directory_that_cannot_be_read_is_one_problem_and_keeps_its_drills() {
    let place = tempfile::tempdir().unwrap();
    let here = place.path().join("drills");
    fs::create_dir(&here).unwrap();
    for number in 0..5 {
        drill_file(&here, &format!("{number}.yaml"), &format!("drill-{number}"), "");
    }
    let first = look(&here, &Book::default());
    assert_eq!(first.drills.len(), 5);
    fs::rename(&here, place.path().join("elsewhere")).unwrap();
    let second = look(&here, &first);
    assert_eq!((second.drills.len(), second.problems.len()), (5, 1));
    assert!(second.problems[0].problem.contains("directory cannot be read"));
    assert_eq!(look(&here, &second).drills.len(), 5, "still");
    fs::rename(place.path().join("elsewhere"), &here).unwrap();
    assert!(look(&here, &second).problems.is_empty());
}

#[test]
fn a_schedule_that_never_comes_is_a_problem() {
    let place = tempfile::tempdir().unwrap();
    let never = "  schedule: { cron: '* * * * *', blackout: [{ cron: '@hourly', duration: 2h }] }\n";
    drill_file(place.path(), "a.yaml", "orders", never);
    let nowhere = "  schedule: { cron: '* * * * *', timezone: Nowhere/Else }\n";
    drill_file(place.path(), "b.yaml", "stock", nowhere);
    let book = look(place.path(), &Book::default());
    assert!(book.drills.is_empty());
    assert!(book.problems[0].problem.contains("never comes"), "{:?}", book.problems);
    assert!(book.problems[1].problem.contains("Nowhere/Else"), "{:?}", book.problems);
}

#[tokio::test]
async fn a_file_that_is_written_is_told_without_waiting_for_the_next_look() {
    let place = tempfile::tempdir().unwrap();
    drill_file(place.path(), "a.yaml", "orders", "");
    let keeper = Keeper::new(vec![place.path().to_owned(), place.path().join("nowhere")], None).await.unwrap();
    assert_eq!(names(&keeper.book()), ["orders"]);
    let (told, mut heard) = tokio::sync::mpsc::channel(8);
    let view = View {
        at: NOW,
        ticked: None,
        stopping: false,
        drills: Arc::default(),
        files: Arc::default(),
        slots: 1,
        stalled: false,
    };
    let (_view, watched) = tokio::sync::watch::channel(Arc::new(view));
    let mut keeping = tokio::task::JoinSet::new();
    keeping.spawn(keeper.keep(Handle::new(told, watched)));
    // Whether the directory is watched yet nobody can see: it is written to until somebody hears.
    let heard = tokio::time::timeout(std::time::Duration::from_secs(30), async {
        for number in 0.. {
            drill_file(place.path(), "b.yaml", "stock", &format!("  # {number}\n"));
            if let Ok(event) = tokio::time::timeout(std::time::Duration::from_secs(3), heard.recv()).await {
                return event;
            }
        }
        None
    });
    let Some(Event::Drills(book)) = heard.await.unwrap() else { panic!("another event") };
    assert_eq!(names(&book), ["orders", "stock"]);
}

/// With the configuration they are drills like any other, read again only where they differ; without it they say what they need.
#[test]
fn compact_manifests_are_drills_where_the_configuration_has_the_rest() {
    let place = tempfile::tempdir().unwrap();
    let manifest = r#"{ "drill_id": "orders", "backup_snapshot": "orders/latest", "db_engine": "postgresql" }"#;
    fs::write(place.path().join("orders.json"), manifest).unwrap();
    let digits = "0".repeat(64);
    let text = format!(
        "apiVersion: muster.dev/v1\nkind: Config\ndrills: [drills]\ncompact:\n  backups: /srv\n  trustedKeys: [{{ file: k.pub }}]\n  \
         kubernetes: {{ image: 'a@sha256:{digits}', musterImage: 'b@sha256:{digits}', doorway: {{ addresses: [192.0.2.1] }} }}\n  \
         vault: {{ address: 'https://v:8200', ca: v.pem, auth: {{ token: {{ file: t }} }} }}\n"
    );
    let config = drill::file::parse_config(&text, Path::new("/etc/muster")).unwrap();
    let directories = [place.path().to_owned()];
    let look = |before: &Book| read(&directories, config.compact.as_ref(), before, NOW);
    let first = look(&Book::default());
    assert!(first.problems.is_empty(), "{:?}", first.problems);
    let again = look(&first);
    assert!(Arc::ptr_eq(&again.drills[&name("orders")].drill, &first.drills[&name("orders")].drill));

    let alone = read(&directories, None, &Book::default(), NOW);
    assert!(
        alone.problems[0].problem.contains("name the daemon's configuration with --config"),
        "{:?}",
        alone.problems
    );
}
