//! Which process a run belongs to. A process id alone may be somebody else's by now; with its start time and the boot it is not.
use std::fs;

use drill::ledger::Owner;
use drill::stop::{OrStop, Stop};
use drill::verdict::Reason;

pub fn this_process() -> Result<Owner, Stop> {
    let pid = std::process::id();
    let start_ticks = start_ticks(pid).ok_or_else(|| Stop::internal("cannot read /proc/self/stat"))?;
    Ok(Owner { pid, start_ticks, boot_id: boot_id()? })
}

pub fn is_alive(owner: &Owner) -> bool {
    boot_id().is_ok_and(|boot_id| boot_id == owner.boot_id) && start_ticks(owner.pid) == Some(owner.start_ticks)
}

fn boot_id() -> Result<String, Stop> {
    let text =
        fs::read_to_string("/proc/sys/kernel/random/boot_id").or_stop(Reason::Internal, "reading the boot id")?;
    Ok(text.trim().to_owned())
}

/// Field 22 of /proc/PID/stat (proc_pid_stat(5)); the name in field 2 may hold spaces and brackets. None for a zombie: it has
/// ended, and only waits for its parent.
fn start_ticks(pid: u32) -> Option<u64> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let (_, after_name) = stat.rsplit_once(')')?;
    let mut fields = after_name.split_ascii_whitespace();
    let state = fields.next()?;
    (state != "Z").then(|| fields.nth(18)?.parse().ok())?
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_process_lives_and_a_later_one_of_the_same_number_is_another() {
        let me = this_process().expect("/proc is there");
        assert!(is_alive(&me));
        assert!(!is_alive(&Owner { start_ticks: me.start_ticks + 1, ..me.clone() }));
        assert!(!is_alive(&Owner { boot_id: "another".to_owned(), ..me }));
    }

    #[test]
    fn a_process_that_has_ended_is_not_alive_even_as_a_zombie() {
        let mut child = std::process::Command::new("/bin/true").spawn().expect("true runs");
        let owner = Owner { pid: child.id(), ..this_process().expect("/proc is there") };
        let zombie =
            || fs::read_to_string(format!("/proc/{}/stat", child.id())).is_ok_and(|stat| stat.contains(") Z "));
        for _ in 0..500 {
            if zombie() {
                break;
            }
            std::thread::sleep(std::time::Duration::from_millis(10));
        }
        assert!(zombie());
        assert_eq!(start_ticks(owner.pid), None);
        child.wait().expect("the child is ours");
    }
}
