//! Commands, arguments and flags.

mod dead;
mod transfer;

use std::{fmt::Display, path::PathBuf, str::FromStr, time::Duration};

use clap::{Args, Parser, Subcommand, ValueEnum, ValueHint};
use queue_api::QueueName;
use serde::{Deserialize, Serialize};

pub(crate) use self::{
    dead::{
        DeadCommand, ExtentArgs, FilterArgs, ListArgs, Order, RedriveArgs, RemoveArgs, ShowArgs,
    },
    transfer::{EnqueueArgs, ExportArgs, ImportArgs, ImportDead, InputFormat, MoveArgs},
};

use crate::{
    commands::{bench::BenchArgs, doctor::DoctorArgs},
    duration,
    top::TopArgs,
};

const AFTER_HELP: &str = "\
Exit codes: 0 done, 1 failed, 2 wrong usage, 3 not found, 4 database not reachable, 5 denied,
6 not confirmed, 7 invalid input data, 130 and 143 stopped by SIGINT and SIGTERM.";

/// Manage the job queues of queue-docdb in MongoDB and Amazon DocumentDB.
#[derive(Parser)]
#[command(name = "queuectl", version, after_help = AFTER_HELP, max_term_width = 100)]
pub(crate) struct Cli {
    #[command(flatten)]
    pub(crate) global: Global,
    #[command(subcommand)]
    pub(crate) command: Command,
}

/// What applies to all commands.
#[derive(Args)]
pub(crate) struct Global {
    #[command(flatten)]
    pub(crate) connect: ConnectArgs,
    /// How results are printed: tables for people, or one JSON object a line.
    #[arg(
        long,
        global = true,
        value_enum,
        default_value_t,
        env = "QUEUECTL_OUTPUT"
    )]
    pub(crate) output: Format,
}

#[derive(Clone, Copy, Default, PartialEq, Eq, ValueEnum)]
pub(crate) enum Format {
    #[default]
    Table,
    Json,
}

/// How to reach the database. A flag comes before its environment variable, and that before the
/// profile.
#[derive(Args)]
#[command(next_help_heading = "Connection")]
pub(crate) struct ConnectArgs {
    /// A profile of the profile file.
    #[arg(long, global = true, env = "QUEUECTL_PROFILE")]
    pub(crate) profile: Option<String>,
    /// The profile file [default: queuectl/config.toml in $XDG_CONFIG_HOME or ~/.config].
    #[arg(long, global = true, env = "QUEUECTL_CONFIG", value_name = "FILE", value_hint = ValueHint::FilePath)]
    pub(crate) config: Option<PathBuf>,
    /// The connection string, mongodb://… or mongodb+srv://…, without a password.
    ///
    /// Other users of the machine can see the command line. Put the password into the file of
    /// --password-file. A URI in a profile or in QUEUECTL_URI may contain it.
    #[arg(long, global = true, env = "QUEUECTL_URI", hide_env_values = true)]
    pub(crate) uri: Option<String>,
    /// The database with the queues [default: the database that the URI names].
    #[arg(long, global = true, env = "QUEUECTL_DATABASE", value_name = "NAME")]
    pub(crate) database: Option<String>,
    /// What the collections of the queues begin with [default: queue.].
    #[arg(long, global = true, env = "QUEUECTL_PREFIX")]
    pub(crate) prefix: Option<String>,
    /// A PEM file with the certificate authorities to trust. It turns TLS on.
    #[arg(long, global = true, env = "QUEUECTL_CA_FILE", value_name = "FILE", value_hint = ValueHint::FilePath)]
    pub(crate) ca_file: Option<PathBuf>,
    /// A file with the password of the URI's user [default: ask on the terminal].
    #[arg(long, global = true, env = "QUEUECTL_PASSWORD_FILE", value_name = "FILE", value_hint = ValueHint::FilePath)]
    pub(crate) password_file: Option<PathBuf>,
    /// How long a call of the database may take [default: 10s].
    #[arg(long, global = true, env = "QUEUECTL_TIMEOUT", value_name = "DURATION", value_parser = duration::parse_positive)]
    pub(crate) timeout: Option<Duration>,
}

#[derive(Subcommand)]
pub(crate) enum Command {
    /// List all queues with their numbers of messages.
    Queues(QueuesArgs),
    /// Count the messages of a queue by state.
    Stats(StatsArgs),
    /// Show the next messages of a queue without leasing them.
    Peek(PeekArgs),
    /// Put messages into a queue, from files or the standard input.
    ///
    /// They go in batches. SIGINT and SIGTERM stop after the batch under way.
    Enqueue(EnqueueArgs),
    /// List, show, redrive and remove dead letters.
    #[command(subcommand)]
    Dead(DeadCommand),
    /// Move the ready messages of a queue into another one.
    ///
    /// A message keeps its id. It is leased, enqueued into the second queue, and then acked, so none
    /// is lost when this stops. To go on, repeat the command. A message whose id the second queue
    /// already has, also as a dead letter, is removed from the first queue. A lease call makes messages without
    /// attempts left dead letters of the first queue.
    Move(MoveArgs),
    /// Write the messages of a queue as JSON lines, without leasing them.
    ///
    /// Messages that are in the queue all the time are written exactly once. For one consistent
    /// state, stop consumers and producers meanwhile. With --what all, a message that becomes a dead
    /// letter or is redriven meanwhile may be written twice or not at all. SIGINT and SIGTERM stop after
    /// the page under way.
    Export(ExportArgs),
    /// Put exported messages into a queue, with their ids.
    ///
    /// Attempts and the time of the enqueue begin anew. A message that was delayed or leased is
    /// delayed until the same time. SIGINT and SIGTERM stop after the batch under way.
    Import(ImportArgs),
    /// Remove the messages of a queue permanently.
    Purge(PurgeArgs),
    /// Delete a queue with all its messages and dead letters.
    Delete(DeleteArgs),
    /// Check the connection, the servers and a queue, and say what to do.
    ///
    /// It changes nothing. The exit code is 1 if a check failed; a warning is no failure.
    Doctor(DoctorArgs),
    /// Watch all queues live, open one, and redrive, purge or delete.
    ///
    /// NET/S is the net change of ready, delayed and leased messages. A queue does not count what
    /// comes in and what goes out.
    Top(TopArgs),
    /// Measure a short load on a queue of its own, which is removed afterwards.
    Bench(BenchArgs),
    /// Print a completion script for a shell.
    Completions(CompletionsArgs),
    /// Print the manual page.
    Man(ManArgs),
}

#[derive(Args)]
pub(crate) struct QueuesArgs {
    /// The time between two counts, which show the change of depth; 0s counts once.
    ///
    /// The change is that of ready, delayed and leased messages together, a second. It is the
    /// net change: a queue does not count what comes in and what goes out, so a queue that gets
    /// and finishes 100 messages a second shows 0.
    #[arg(long, value_name = "DURATION", default_value = "2s", value_parser = duration::parse)]
    pub(crate) interval: Duration,
}

#[derive(Args)]
pub(crate) struct StatsArgs {
    /// The queue.
    pub(crate) queue: QueueName,
    /// Count again after each interval, until interrupted.
    #[arg(long, value_name = "INTERVAL", num_args = 0..=1, require_equals = true, default_missing_value = "2s", value_parser = duration::parse_positive)]
    pub(crate) watch: Option<Duration>,
    /// The interval of `--watch 1s`, with a space.
    #[arg(hide = true, requires = "watch", value_parser = duration::parse_positive)]
    pub(crate) interval: Option<Duration>,
}

#[derive(Args)]
pub(crate) struct PeekArgs {
    /// The queue.
    pub(crate) queue: QueueName,
    /// How many messages to show, 1 to 1000.
    #[arg(long, short = 'n', value_name = "COUNT", default_value_t = 10)]
    pub(crate) max: usize,
}

#[derive(Args)]
pub(crate) struct PurgeArgs {
    /// The queue.
    pub(crate) queue: QueueName,
    /// Which messages to remove.
    #[arg(long, value_enum, default_value_t)]
    pub(crate) what: What,
    #[command(flatten)]
    pub(crate) confirm: ConfirmArgs,
}

#[derive(Clone, Copy, Debug, Default, Deserialize, PartialEq, Eq, Serialize, ValueEnum)]
#[serde(rename_all = "lowercase")]
pub(crate) enum What {
    /// Ready, delayed and leased messages.
    #[default]
    Live,
    /// Dead letters.
    Dead,
    /// Both.
    All,
}

impl What {
    pub(crate) fn has_live(self) -> bool {
        self != Self::Dead
    }

    pub(crate) fn has_dead(self) -> bool {
        self != Self::Live
    }

    /// As the command line has it.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Live => "live",
            Self::Dead => "dead",
            Self::All => "all",
        }
    }
}

#[derive(Args)]
pub(crate) struct DeleteArgs {
    /// The queue.
    pub(crate) queue: QueueName,
    #[command(flatten)]
    pub(crate) confirm: ConfirmArgs,
}

/// For what cannot be undone.
#[derive(Args)]
pub(crate) struct ConfirmArgs {
    /// Do not ask. Needed if the standard input is no terminal.
    #[arg(long, short = 'y')]
    pub(crate) yes: bool,
}

#[derive(Args)]
pub(crate) struct CompletionsArgs {
    /// The shell.
    #[arg(value_enum)]
    pub(crate) shell: clap_complete::Shell,
}

#[derive(Args)]
pub(crate) struct ManArgs {
    /// Write the pages of all commands into this folder instead.
    #[arg(long, value_name = "FOLDER", value_hint = ValueHint::DirPath)]
    pub(crate) dir: Option<PathBuf>,
}

/// A count that is not 0. An error says what is allowed.
pub(crate) fn at_least_one<T: FromStr + Default + PartialEq + Display>(
    text: &str,
) -> Result<T, String> {
    match text.parse() {
        Ok(count) if count != T::default() => Ok(count),
        _ => Err(format!(
            "{text:?} is not allowed; it must be a whole number of at least 1"
        )),
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn clap_finds_no_mistake() {
        Cli::command().debug_assert();
    }
}
