//! A backup that changes under the drill's hands: what was hashed is what is restored.
use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;

use whole_program::{Muster, Place, sample};

/// What is done to the dump once it was hashed.
type Meddle = fn(&Path);

#[test]
fn what_becomes_of_the_backup_after_it_was_hashed_changes_nothing() {
    let meddle: [(&str, Meddle); 5] = [
        ("overwritten", |dump| fs::write(dump, "no dump").unwrap()),
        ("appended to", |dump| {
            let mut bytes = fs::read(dump).unwrap();
            bytes.extend(vec![0; 1 << 20]);
            fs::write(dump, bytes).unwrap();
        }),
        ("replaced by a symlink", |dump| {
            fs::remove_file(dump).unwrap();
            symlink("/dev/zero", dump).unwrap();
        }),
        ("swapped", |dump| {
            let other = dump.with_extension("other");
            fs::write(&other, "no dump").unwrap();
            fs::rename(&other, dump).unwrap();
        }),
        ("removed with its directory", |dump| fs::remove_dir_all(dump.parent().unwrap()).unwrap()),
    ];
    let place = Place::new();
    for (nth, (case, meddle)) in meddle.iter().enumerate() {
        let backup = sample(&place, &format!("shop-{nth}"));
        let (dump, drill) = (backup.file(".dump"), backup.drill());
        let mut running = Muster::start(&place, &["run", &drill, "--output", "json"]);
        loop {
            let event = running.next_event().unwrap_or_else(|| panic!("{case}: it ended before it had verified"));
            if event["event"] == "phase-ended" && event["data"]["phase"] == "verify" {
                break;
            }
        }
        meddle(&dump);
        let finished = running.wait().expect(0);
        assert_eq!(finished.result()["reason"], "proven", "{case}");
        place.assert_nothing_left();
    }
}
