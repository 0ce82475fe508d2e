//! Takes the builtin plugins from where `make plugins` puts them.
use std::path::PathBuf;
use std::process::ExitCode;

const PLUGINS: [&str; 4] = ["checksum", "freshness", "row_count", "schema"];

fn main() -> ExitCode {
    // Asked for when it runs: a checkout that was moved may bring along a script that was compiled elsewhere.
    let directory = |name| PathBuf::from(std::env::var_os(name).expect("cargo sets it for build scripts"));
    let built = directory("CARGO_MANIFEST_DIR").join("../../plugins/target/wasm32-wasip2/release");
    let out = directory("OUT_DIR");
    for plugin in PLUGINS {
        let file = built.join(plugin).with_extension("wasm");
        println!("cargo::rerun-if-changed={}", file.display());
        if let Err(error) = std::fs::copy(&file, out.join(plugin).with_extension("wasm")) {
            println!("cargo::error=the builtin plugin {} is not there ({error}): run `make plugins`", file.display());
            return ExitCode::FAILURE;
        }
    }
    println!("cargo::rerun-if-changed=build.rs");
    println!("cargo::rerun-if-changed=../../wit");
    ExitCode::SUCCESS
}
