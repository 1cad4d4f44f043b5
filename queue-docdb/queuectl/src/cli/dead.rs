//! Arguments of `dead`.

use std::time::Duration;

use clap::{Args, Subcommand, ValueEnum};
use queue_api::{MessageId, QueueName};

use super::{ConfirmArgs, at_least_one, transfer::header};
use crate::duration;

#[derive(Subcommand)]
pub(crate) enum DeadCommand {
    /// List dead letters.
    List(ListArgs),
    /// Show dead letters with all their content.
    Show(ShowArgs),
    /// Make dead letters ready again, with no attempts counted.
    Redrive(RedriveArgs),
    /// Remove all dead letters of a queue permanently.
    ///
    /// Only all of them: the store has no call that removes single ones. A redrive would make them
    /// ready first, and a worker could take them. To keep some, redrive or export those first.
    #[command(override_usage = "queuectl dead remove [OPTIONS] --all <QUEUE>")]
    Remove(RemoveArgs),
}

#[derive(Args)]
pub(crate) struct ListArgs {
    /// The queue.
    pub(crate) queue: QueueName,
    #[command(flatten)]
    pub(crate) filter: FilterArgs,
    #[command(flatten)]
    pub(crate) extent: ExtentArgs,
}

/// Which dead letters; all of these must be true.
#[derive(Args)]
#[command(next_help_heading = "Filters")]
pub(crate) struct FilterArgs {
    /// The reason contains this text; case matters.
    #[arg(long, value_name = "TEXT")]
    pub(crate) reason: Option<String>,
    /// It has this header, as NAME=VALUE; case matters.
    #[arg(long = "header", value_name = "NAME=VALUE", value_parser = header)]
    pub(crate) headers: Vec<(String, String)>,
    /// It has been dead for longer, by this machine's clock.
    #[arg(long, value_name = "DURATION", value_parser = duration::parse)]
    pub(crate) older_than: Option<Duration>,
    /// It has been dead for less time.
    #[arg(long, value_name = "DURATION", value_parser = duration::parse)]
    pub(crate) newer_than: Option<Duration>,
}

/// How many, and which first.
#[derive(Args)]
pub(crate) struct ExtentArgs {
    /// At most so many [default: no limit].
    #[arg(long, value_name = "COUNT", value_parser = at_least_one::<usize>)]
    pub(crate) limit: Option<usize>,
    /// Which ones come first. Newest without a limit holds all of them in memory.
    #[arg(long, value_enum, default_value_t)]
    pub(crate) order: Order,
}

#[derive(Clone, Copy, Default, PartialEq, Eq, ValueEnum)]
pub(crate) enum Order {
    /// In the order of the store's list, which is about the order of death.
    #[default]
    Oldest,
    /// By time of death, latest first.
    Newest,
}

#[derive(Args)]
pub(crate) struct ShowArgs {
    /// The queue.
    pub(crate) queue: QueueName,
    /// The ids.
    #[arg(required = true)]
    pub(crate) ids: Vec<MessageId>,
}

#[derive(Args)]
pub(crate) struct RedriveArgs {
    /// The queue.
    pub(crate) queue: QueueName,
    /// The ids [default: those that the filters name, or --all].
    #[arg(conflicts_with_all = ["all", "reason", "headers", "older_than", "newer_than", "limit", "order"])]
    pub(crate) ids: Vec<MessageId>,
    /// All of them. It asks first.
    #[arg(long, conflicts_with_all = ["reason", "headers", "older_than", "newer_than", "limit", "order"])]
    pub(crate) all: bool,
    #[command(flatten)]
    pub(crate) filter: FilterArgs,
    #[command(flatten)]
    pub(crate) extent: ExtentArgs,
    #[command(flatten)]
    pub(crate) confirm: ConfirmArgs,
}

#[derive(Args)]
pub(crate) struct RemoveArgs {
    /// The queue.
    pub(crate) queue: QueueName,
    /// Ids and filters, to say that there are none.
    #[arg(hide = true, allow_hyphen_values = true)]
    pub(crate) others: Vec<String>,
    /// Confirms that all of them are meant.
    #[arg(long, required_unless_present = "others")]
    pub(crate) all: bool,
    #[command(flatten)]
    pub(crate) confirm: ConfirmArgs,
}

impl FilterArgs {
    pub(crate) fn is_empty(&self) -> bool {
        let Self {
            reason,
            headers,
            older_than,
            newer_than,
        } = self;
        reason.is_none() && headers.is_empty() && older_than.is_none() && newer_than.is_none()
    }
}
