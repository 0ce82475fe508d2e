use crate::support::TestFn;
use std::ffi::OsString;
use std::process::ExitCode;
pub(crate) fn tests() -> Vec<(&'static str, TestFn)> {
    vec![]
}
pub(crate) fn call(_arguments: &[OsString]) -> ExitCode {
    ExitCode::FAILURE
}
