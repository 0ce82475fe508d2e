use std::fs::{File, OpenOptions};
use std::io::{ErrorKind, Read};
use std::os::unix::ffi::OsStrExt;
use std::process::Stdio;

use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};
use rustix::termios::{Winsize, tcsetwinsize};

use crate::{Place, program};

/// What muster prints on a terminal of so many columns, and its exit code. Its standard error is elsewhere.
pub fn on_terminal(
    place: &Place,
    columns: u16,
    environment: &[(&str, &str)],
    arguments: &[&str],
) -> (String, Option<i32>) {
    let ours = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY).expect("a terminal");
    grantpt(&ours).expect("it is ours");
    unlockpt(&ours).expect("it is ours");
    let size = Winsize { ws_row: 24, ws_col: columns, ws_xpixel: 0, ws_ypixel: 0 };
    tcsetwinsize(&ours, size).expect("it is ours");
    let name = ptsname(&ours, Vec::new()).expect("it has a name");
    let path = std::ffi::OsStr::from_bytes(name.as_bytes());
    let theirs = OpenOptions::new().read(true).write(true).open(path).expect("its other side");
    let mut command = place.command(program());
    let mut child = command
        .args(arguments)
        .envs(environment.iter().copied())
        .stdout(theirs)
        .stderr(Stdio::null())
        .spawn()
        .expect("muster starts");
    drop(command);
    let mut printed = Vec::new();
    let mut buffer = [0; 4096];
    let mut ours = File::from(ours);
    // The end of a terminal is an error: nobody has its other side open any more.
    loop {
        match ours.read(&mut buffer) {
            Ok(0) => break,
            Ok(read) => printed.extend(&buffer[..read]),
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(_) => break,
        }
    }
    let status = child.wait().expect("it is ours");
    (String::from_utf8_lossy(&printed).replace("\r\n", "\n"), status.code())
}
