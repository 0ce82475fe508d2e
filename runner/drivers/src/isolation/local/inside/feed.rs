//! Unpacks a script into a command's standard input: the command sees a pipe, and nobody unpacks onto a disk.
use std::fs::File;
use std::io::{self, Read as _, Write as _};
use std::os::unix::process::ExitStatusExt;
use std::process::{Command, ExitCode, Stdio};

use drill::manifest::Packing;

use crate::unpack::unpack;

pub(super) fn main(arguments: &[String]) -> ExitCode {
    match feed(arguments) {
        Ok(code) => ExitCode::from(code),
        Err(error) => {
            eprintln!("muster {}: {error}", drill::port::FEED);
            ExitCode::FAILURE
        }
    }
}

/// The command's own exit code. It belongs to our process group, so what ends us ends it.
fn feed(arguments: &[String]) -> io::Result<u8> {
    let [packing, path, program, rest @ ..] = arguments else {
        return Err(io::Error::other("it is not meant to be typed"));
    };
    let packing = Packing::ALL.into_iter().find(|known| known.as_str() == packing);
    let packing = packing.ok_or_else(|| io::Error::other("the packing is unknown"))?;
    let mut script = unpack(packing, File::open(path)?);
    let mut child = Command::new(program).args(rest).stdin(Stdio::piped()).spawn()?;
    let mut stdin = child.stdin.take().ok_or_else(|| io::Error::other("the command has no input"))?;
    let mut buffer = vec![0; 128 << 10];
    let copied = loop {
        match script.read(&mut buffer) {
            Ok(0) => break Ok(()),
            Ok(read) => match stdin.write_all(&buffer[..read]) {
                Ok(()) => {}
                // A command that has seen enough says why in its exit code.
                Err(_) => break Ok(()),
            },
            Err(error) => break Err(error),
        }
    };
    drop(stdin);
    let status = child.wait()?;
    copied?;
    let signal = status.signal().and_then(|signal| u8::try_from(128 + signal).ok());
    Ok(status.code().and_then(|code| u8::try_from(code).ok()).or(signal).unwrap_or(1))
}
