//! The command line: one module a command. Exit codes are `drill::verdict`'s; 3 means that nothing was begun.
pub mod adopt;
pub(crate) mod advice;
mod cancel;
pub mod capture;
pub mod completions;
pub mod config;
mod daemon;
pub mod doctor;
pub mod drill_file;
pub mod evidence;
mod expand;
mod health;
pub mod key;
pub mod manifest;
mod next;

pub mod quarantine;
pub mod reap;
pub mod render;
pub mod report;
pub mod run;
pub mod runs;
pub mod schema;
mod serve;
pub(crate) mod start;
pub mod store;
pub mod style;
pub mod template;
pub mod verify;

use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;

use clap::{CommandFactory as _, Parser, Subcommand};
use drill::stop::{Stop, chain};
use drill::verdict::EXIT_NOTHING_BEGUN;

use self::style::{Mark, Style, clean};
use crate::agent::{PluginRunner, process};

#[derive(Parser)]
#[command(name = "muster", version, about, arg_required_else_help = true, disable_help_subcommand = true)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    Key(key::Args),
    Capture(capture::Args),
    Adopt(adopt::Args),
    Verify(verify::Args),
    Run(run::Args),
    Start(start::Args),
    Cancel(cancel::Args),
    Runs(runs::Args),
    Report(report::Args),
    Evidence(evidence::Args),
    Quarantine(quarantine::Args),
    Store(store::Args),
    Manifest(manifest::Args),
    Config(config::Args),
    Render(template::Args),
    Expand(expand::Args),
    Next(next::Args),
    Health(health::Args),
    Doctor(doctor::Args),
    Schema(schema::Args),
    Completions(completions::Args),
    Reap(reap::Args),
    Serve(serve::Args),
}

/// The whole program.
pub fn main() -> ExitCode {
    // Inside a sandbox muster is its own init, relay and agent: no runtime, no arguments for people.
    let inside = drivers::isolation::local::inside::dispatch(std::env::args_os());
    if let Some(code) = inside.or_else(|| drivers::isolation::kubernetes::inside::dispatch(std::env::args_os())) {
        return code;
    }
    if rustls::crypto::aws_lc_rs::default_provider().install_default().is_err() {
        return report_error(&Stop::internal("the TLS provider was installed twice"));
    }
    if std::env::args_os().nth(1).is_some_and(|argument| argument == "agent") {
        return agent(std::env::args_os().nth(2).map_or_else(|| process::SOCKET.into(), PathBuf::from));
    }
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => {
            // A closed stream is nobody's error here.
            let _ = error.print();
            return ExitCode::from(if error.use_stderr() { EXIT_NOTHING_BEGUN } else { 0 });
        }
    };
    let runtime = match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => return report_error(&Stop::internal(format!("starting the runtime: {error}"))),
    };
    let code = runtime.block_on(dispatch(cli.command));
    runtime.shutdown_timeout(std::time::Duration::from_secs(2));
    code.unwrap_or_else(|stop| report_error(&stop))
}

/// What a sandbox runs beside the database: frames on standard input and output.
fn agent(socket: PathBuf) -> ExitCode {
    match PluginRunner::new() {
        Ok(runner) => process::main(socket, Arc::new(runner)),
        Err(error) => report_error(&Stop::internal(format!("the plugin host does not start: {}", chain(&error)))),
    }
}

async fn dispatch(command: Command) -> Result<ExitCode, Stop> {
    match command {
        Command::Key(args) => key::run(args).await,
        Command::Capture(args) => capture::run(args).await,
        Command::Adopt(args) => adopt::run(args).await,
        Command::Verify(args) => verify::run(args).await,
        Command::Run(args) => run::run(args).await,
        Command::Start(args) => start::run(args).await,
        Command::Cancel(args) => cancel::run(args).await,
        Command::Runs(args) => runs::run(args).await,
        Command::Report(args) => report::run(args).await,
        Command::Evidence(args) => evidence::run(args).await,
        Command::Quarantine(args) => quarantine::run(args).await,
        Command::Store(args) => store::run(args).await,
        Command::Manifest(args) => manifest::run(args).await,
        Command::Config(args) => config::run(args),
        Command::Render(args) => template::run(&args),
        Command::Expand(args) => expand::run(&args),
        Command::Next(args) => next::run(args).await,
        Command::Health(args) => health::run(args).await,
        Command::Doctor(args) => doctor::run(args).await,
        Command::Schema(args) => Ok(schema::run(&args)),
        Command::Completions(args) => completions::run(&args, Cli::command()),
        Command::Reap(args) => reap::run(args).await,
        Command::Serve(args) => serve::run(args).await,
    }
}

/// The one place where an error of the command line is printed.
fn report_error(stop: &Stop) -> ExitCode {
    use std::io::Write;
    // Nobody listens: the exit code says it too.
    let _ = std::io::stderr().lock().write_all(error_text(stop, Style::of_stderr()).as_bytes());
    ExitCode::from(EXIT_NOTHING_BEGUN)
}

/// What other programs said may have lines of its own; they cannot pass for muster's.
fn error_text(stop: &Stop, style: Style) -> String {
    let mut text = String::new();
    let mut lead = format!("{} ", style.paint(Mark::Bad, "error:"));
    for line in stop.message.lines() {
        text.push_str(&style.hang(&lead, &clean(line)));
        text.push('\n');
        "  ".clone_into(&mut lead);
    }
    if let Some(advice) = &stop.advice {
        text.push_str(&style.hang("  what to do: ", &clean(advice)));
        text.push('\n');
    }
    text
}

#[cfg(test)]
mod tests {
    #![expect(clippy::needless_raw_string_hashes, reason = "expect-test writes them")]
    use expect_test::expect;

    use super::*;

    #[test]
    fn an_error_says_what_to_do_and_nothing_to_the_terminal() {
        let stop = Stop::internal("pg_dump ended with 1: FATAL: \u{1b}]0;owned\u{7}\nerror: all is well")
            .advise("look at the log of the server, which says why it would not let this role in");
        expect![[r#"
            error: pg_dump ended with 1: FATAL: \u{1b}]0;owned\u{7}
              error: all is well
              what to do: look at the log of the server, which says why it would not let this role in
        "#]]
        .assert_eq(&error_text(&stop, Style::plain()));
        expect![[r#"
            error: pg_dump ended with 1: FATAL:
                   \u{1b}]0;owned\u{7}
              error: all is well
              what to do: look at the log of the
                          server, which says why it
                          would not let this role in
        "#]]
        .assert_eq(&error_text(&stop, Style::of_columns(40)));
    }

    #[test]
    fn the_command_line_is_well_formed() {
        Cli::command().debug_assert();
    }
}
