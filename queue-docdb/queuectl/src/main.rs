//! The program `queuectl`: manages the queues of queue-docdb. README.md is its manual.

mod cli;
mod commands;
mod confirm;
mod connect;
mod depth;
mod duration;
mod failure;
mod find_queue;
mod input;
mod output;
mod profile;
mod progress;
mod record;
mod secret;
mod stop;
mod top;

use std::process::ExitCode;

use clap::{CommandFactory, FromArgMatches};

use crate::{
    cli::Cli,
    failure::{Exit, Failure},
};

fn main() -> ExitCode {
    let runtime = tokio::runtime::Runtime::new().expect("the system gives threads to a runtime");
    let code = runtime.block_on(run());
    // While its tasks were dropped, one of the driver's could still ask for a connection, and panic.
    std::mem::forget(runtime);
    code
}

async fn run() -> ExitCode {
    let matches = match command().try_get_matches() {
        Ok(matches) => matches,
        Err(error) => return usage_error(&error),
    };
    let mut cli = match Cli::from_arg_matches(&matches) {
        Ok(cli) => cli,
        Err(error) => return usage_error(&error),
    };
    let checked = connect::check_command_line(&cli.global.connect, &matches);
    connect::leave_out_foreign_profile(&mut cli.global.connect, &matches);
    let done = match checked {
        Ok(()) => commands::run(cli.global, cli.command).await,
        Err(failure) => Err(failure),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(Failure { exit, text }) => {
            if !text.is_empty() {
                eprintln!("error: {}", secret::redact(&text));
            }
            exit.into()
        }
    }
}

/// With usage lines that do not depend on the environment: clap shows flags that it sets as if they
/// had to be given.
fn command() -> clap::Command {
    fn own_usage(mut command: clap::Command) -> clap::Command {
        let names = command.get_subcommands().map(|it| it.get_name().to_owned());
        for name in names.collect::<Vec<_>>() {
            command = command.mut_subcommand(name, own_usage);
        }
        let usage = command.render_usage().to_string();
        command.override_usage(usage.trim_start_matches("Usage: ").to_owned())
    }
    let mut command = Cli::command();
    command.build();
    own_usage(command)
}

/// Prints help, or what is wrong with the command line. A mistyped flag may leave a URI with a
/// password where another argument is expected, and clap quotes it.
fn usage_error(error: &clap::Error) -> ExitCode {
    let text = error.to_string();
    if secret::redact(&text) == text {
        // In colours, if the terminal has them. A closed output is not an error.
        let _ = error.print();
    } else {
        eprint!("{}", secret::redact(&text));
    }
    match error.exit_code() {
        0 => ExitCode::SUCCESS,
        _ => Exit::Usage.into(),
    }
}
