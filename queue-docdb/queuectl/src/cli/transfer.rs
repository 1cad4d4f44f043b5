//! Arguments of the commands that move many messages.

use std::{path::PathBuf, time::Duration};

use clap::{Args, ValueEnum, ValueHint};
use queue_api::QueueName;

use super::{What, at_least_one};
use crate::duration;

#[derive(Args)]
pub(crate) struct EnqueueArgs {
    /// The queue.
    pub(crate) queue: QueueName,
    /// The files to read; - is the standard input [default: -].
    #[arg(value_hint = ValueHint::FilePath)]
    pub(crate) files: Vec<PathBuf>,
    /// What a message is in the input [default: lines].
    ///
    /// A file of JSON lines, by its name, needs it.
    #[arg(long, value_enum)]
    pub(crate) format: Option<InputFormat>,
    /// Make the queue if it does not exist.
    #[arg(long)]
    pub(crate) create: bool,
    /// A header of each message, as NAME=VALUE. A header in a JSON line comes first.
    #[arg(long = "header", value_name = "NAME=VALUE", value_parser = header)]
    pub(crate) headers: Vec<(String, String)>,
    /// The time until the messages are ready [default: 0s].
    #[arg(long, value_parser = duration::parse)]
    pub(crate) delay: Option<Duration>,
    /// How long a lease lasts [default: 30s].
    #[arg(long, value_name = "DURATION", value_parser = duration::parse_positive)]
    pub(crate) visibility_timeout: Option<Duration>,
    /// The deliveries after which a message becomes a dead letter [default: 25].
    #[arg(long, value_name = "COUNT", value_parser = at_least_one::<u32>)]
    pub(crate) max_attempts: Option<u32>,
    /// Stands for the file's name in the ids. Only with one file, or the standard input.
    ///
    /// A message without an id gets one from the label, the number of its line, its content, and
    /// the other flags. So the same command again finds its messages there already, unless they
    /// were finished meanwhile.
    /// The standard input has the label "stdin".
    #[arg(long, conflicts_with = "new_ids")]
    pub(crate) label: Option<String>,
    /// Give each message that has none a new id. A repeat then enqueues it again.
    #[arg(long)]
    pub(crate) new_ids: bool,
    #[command(flatten)]
    pub(crate) skip: SkipArgs,
}

/// To go on with an input after an interrupt.
#[derive(Args)]
pub(crate) struct SkipArgs {
    /// Leave out the first messages of the input. A command that was stopped says how many.
    #[arg(
        long,
        value_name = "COUNT",
        default_value_t = 0,
        hide_default_value = true
    )]
    pub(crate) skip: u64,
}

#[derive(Clone, Copy, Default, PartialEq, Eq, ValueEnum)]
pub(crate) enum InputFormat {
    /// Each line is the payload of a message.
    #[default]
    Lines,
    /// Each file is the payload of a message.
    Files,
    /// Each line is a JSON object, as peek and export print them; only the payload is needed.
    Json,
}

impl InputFormat {
    /// As the command line has it.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Lines => "lines",
            Self::Files => "files",
            Self::Json => "json",
        }
    }
}

#[derive(Args)]
pub(crate) struct ImportArgs {
    /// The queue.
    pub(crate) queue: QueueName,
    /// The files that export wrote; - is the standard input [default: -].
    #[arg(value_hint = ValueHint::FilePath)]
    pub(crate) files: Vec<PathBuf>,
    /// Make the queue if it does not exist.
    #[arg(long)]
    pub(crate) create: bool,
    /// What to do with dead letters. No queue takes a message as dead.
    #[arg(long, value_enum, default_value_t)]
    pub(crate) dead: ImportDead,
    #[command(flatten)]
    pub(crate) skip: SkipArgs,
}

#[derive(Clone, Copy, Default, PartialEq, Eq, ValueEnum)]
pub(crate) enum ImportDead {
    /// Stop at the first one.
    #[default]
    Refuse,
    /// Leave them out.
    Skip,
    /// Enqueue them as new messages, which are ready.
    Enqueue,
}

#[derive(Args)]
pub(crate) struct ExportArgs {
    /// The queue.
    pub(crate) queue: QueueName,
    /// The file to write; - is the standard output [default: -].
    ///
    /// While it is not complete, FILE.part beside it says how far it is. The same command goes on
    /// from there.
    #[arg(value_hint = ValueHint::FilePath)]
    pub(crate) file: Option<PathBuf>,
    /// Which messages to export.
    #[arg(long, value_enum, default_value_t)]
    pub(crate) what: What,
    /// Begin again, and overwrite the file.
    #[arg(long)]
    pub(crate) force: bool,
}

#[derive(Args)]
pub(crate) struct MoveArgs {
    /// The queue to take messages from.
    pub(crate) from: QueueName,
    /// The queue to put them into.
    pub(crate) to: QueueName,
    /// Move at most so many messages [default: as many as are ready at the beginning].
    #[arg(long, value_name = "COUNT", value_parser = at_least_one::<u64>)]
    pub(crate) max: Option<u64>,
    /// Make the second queue if it does not exist.
    #[arg(long)]
    pub(crate) create: bool,
}

/// `NAME=VALUE`.
pub(crate) fn header(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((name, value)) if !name.is_empty() => Ok((name.to_owned(), value.to_owned())),
        _ => Err(format!("{text:?} is not a header; it must be NAME=VALUE")),
    }
}
