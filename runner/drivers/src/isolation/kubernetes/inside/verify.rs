//! A backup on a volume against the manifest that the runner sends: the same look as at a backup beside the runner, where the
//! bytes are.
use std::io::{self, Read};
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::mpsc::{RecvTimeoutError, channel};
use std::time::Duration;

use drill::manifest::Manifest;
use drill::stop::Stop;

use super::{frame, not_to_be_typed};
use crate::artifact::file::verify_elsewhere;
use crate::artifact::tree::Meter;

/// How often it is said how far it is, so that nobody in between takes the connection for an idle one.
const TICK: Duration = Duration::from_secs(1);

/// The argument is the backup's directory. The last frame holds what is wrong, or null.
pub(super) fn main(arguments: &[String]) -> io::Result<ExitCode> {
    let [directory] = arguments else { return Err(not_to_be_typed()) };
    let manifest = manifest(&mut io::stdin().lock())?;
    // The end of the runner's stream is the end of this command.
    std::thread::spawn(|| {
        let _ = io::stdin().lock().read(&mut [0]);
        std::process::exit(1);
    });
    let (meter, directory) = (Arc::new(Meter::default()), PathBuf::from(directory));
    let (tell, told) = channel();
    let shared = Arc::clone(&meter);
    std::thread::spawn(move || tell.send(verify_elsewhere(&directory, manifest, &shared)));
    let mut out = io::stdout().lock();
    let wrong: Option<Stop> = loop {
        match told.recv_timeout(TICK) {
            Ok(seen) => break seen.err(),
            Err(RecvTimeoutError::Timeout) => {
                frame::write(&mut out, frame::STDOUT, &serde_json::to_vec(&meter.done.load(Relaxed))?)?;
            }
            Err(RecvTimeoutError::Disconnected) => return Err(io::Error::other("it panicked")),
        }
    };
    frame::write(&mut out, frame::RESULT, &serde_json::to_vec(&wrong)?)?;
    Ok(ExitCode::SUCCESS)
}

fn manifest(input: &mut impl Read) -> io::Result<Manifest> {
    let (mut bytes, mut payload) = (Vec::new(), Vec::new());
    loop {
        match frame::read(input, &mut payload)? {
            frame::DATA => bytes.extend_from_slice(&payload),
            frame::END => return crate::artifact::check(&bytes).map_err(io::Error::other),
            _ => return Err(io::Error::other("something came that is no manifest")),
        }
    }
}
