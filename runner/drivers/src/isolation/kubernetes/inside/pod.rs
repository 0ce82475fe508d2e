//! What a pod starts with. The main process of each reaps what nobody waits for, ends when it is asked to, and opens the ways
//! that its pod needs.
use std::fs::{self, File, OpenOptions};
use std::io;
use std::net::{Ipv4Addr, SocketAddr, TcpListener, UdpSocket};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt};
use std::path::Path;
use std::process::ExitCode;
use std::time::Duration;

use rustix::process::{DumpableBehavior, WaitOptions};
use tokio::signal::unix::{SignalKind, signal};

use super::doorway::relay_to;
use super::not_to_be_typed;
use crate::isolation::local::inside::users;

/// Before the database's container starts: muster's program, which nobody there may read, its
/// libraries, names for the user ids, and a
/// directory for the server's data that belongs to its user. The argument is where the volumes are.
pub(super) fn prepare(arguments: &[String]) -> io::Result<ExitCode> {
    let [volumes] = arguments else { return Err(not_to_be_typed()) };
    let volumes = Path::new(volumes);
    let program = volumes.join("program");
    for (name, contents) in users() {
        fs::write(program.join(name), contents)?;
        fs::set_permissions(program.join(name), fs::Permissions::from_mode(0o444))?;
    }
    libraries(&program.join("muster.d"))?;
    let muster = program.join("muster");
    let mut to = OpenOptions::new().write(true).create_new(true).mode(0o700).open(&muster)?;
    io::copy(&mut File::open("/proc/self/exe")?, &mut to)?;
    drop(to);
    // What cannot be read is not dumpable: hostile processes of the same user cannot open its descriptors, from the first moment.
    fs::set_permissions(&muster, fs::Permissions::from_mode(0o111))?;
    fs::DirBuilder::new().mode(0o700).create(volumes.join("data").join("data"))?;
    Ok(ExitCode::SUCCESS)
}

/// What the image brings along to load muster with, so that it runs beside whatever libraries an engine's image has.
fn libraries(to: &Path) -> io::Result<()> {
    fs::DirBuilder::new().mode(0o755).create(to)?;
    let entries = match fs::read_dir("/muster.d") {
        Ok(entries) => entries,
        // A static muster needs none.
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(error),
    };
    for entry in entries {
        let entry = entry?;
        let copy = to.join(entry.file_name());
        fs::copy(entry.path(), &copy)?;
        fs::set_permissions(copy, fs::Permissions::from_mode(0o555))?;
    }
    Ok(())
}

/// Arguments: `wait`; `relay PORT PORT`, from the pod's own address to its loopback; or `listen PORT`, where probes
/// that got out arrive.
pub(super) fn main(arguments: &[String]) -> io::Result<ExitCode> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let code = runtime.block_on(async {
        let mut asked = signal(SignalKind::terminate())?;
        rustix::process::set_dumpable_behavior(DumpableBehavior::NotDumpable)?;
        open(arguments)?;
        std::thread::Builder::new().stack_size(64 << 10).spawn(reap)?;
        asked.recv().await;
        Ok(ExitCode::SUCCESS)
    });
    runtime.shutdown_background();
    code
}

fn open(arguments: &[String]) -> io::Result<()> {
    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let port = |text: &str| text.parse::<u16>().map_err(io::Error::other);
    match words[..] {
        ["wait"] => Ok(()),
        ["relay", own, database] => relay_to(own, database),
        ["listen", own] => {
            let any = SocketAddr::from((Ipv4Addr::UNSPECIFIED, port(own)?));
            let (tcp, udp) = (TcpListener::bind(any)?, UdpSocket::bind(any)?);
            std::thread::Builder::new().spawn(move || while tcp.accept().is_ok() {})?;
            let echo = move || {
                let mut buffer = [0; 512];
                while let Ok((length, from)) = udp.recv_from(&mut buffer) {
                    let _ = udp.send_to(&buffer[..length], from);
                }
            };
            std::thread::Builder::new().spawn(echo).map(drop)
        }
        _ => Err(not_to_be_typed()),
    }
}

/// Processes whose parents have gone become ours.
fn reap() {
    loop {
        match rustix::process::wait(WaitOptions::empty()) {
            Ok(_) => {}
            Err(_) => std::thread::sleep(Duration::from_millis(200)),
        }
    }
}
