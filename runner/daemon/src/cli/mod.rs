//! The command line.
pub mod drill_file;
pub mod schema;

use std::process::ExitCode;

pub fn main() -> ExitCode {
    ExitCode::SUCCESS
}
