//! One file for each command.

pub(crate) mod bench;
mod dead;
mod delete;
pub(crate) mod doctor;
mod documents;
mod enqueue;
mod enqueue_input;
mod export;
mod import;
mod move_messages;
mod peek;
mod purge;
mod queues;
mod stats;

pub(crate) use self::queues::pause;
use crate::{
    cli::{Command, Global},
    connect,
    failure::Result,
    output::Output,
    top,
};

pub(crate) async fn run(global: Global, command: Command) -> Result<()> {
    let mut output = Output::new(global.output);
    // These need no database.
    match &command {
        Command::Completions(args) => return documents::completions(args),
        Command::Man(args) => return documents::man(args),
        _ => {}
    }
    // It goes on where a connection fails.
    if let Command::Doctor(args) = command {
        return doctor::run(global.connect, &mut output, args).await;
    }
    // It counts its commands.
    if let Command::Top(args) = command {
        return top::run(global.connect, args).await;
    }
    let connection = connect::connect(global.connect).await?;
    match command {
        Command::Queues(args) => queues::run(&connection, &mut output, args).await,
        Command::Stats(args) => stats::run(&connection, &mut output, args).await,
        Command::Peek(args) => peek::run(&connection, &mut output, args).await,
        Command::Enqueue(args) => enqueue::run(&connection, &mut output, args).await,
        Command::Dead(command) => dead::run(&connection, &mut output, command).await,
        Command::Move(args) => move_messages::run(&connection, &mut output, args).await,
        Command::Export(args) => export::run(&connection, &mut output, args).await,
        Command::Import(args) => import::run(&connection, &mut output, args).await,
        Command::Purge(args) => purge::run(&connection, &mut output, args).await,
        Command::Delete(args) => delete::run(&connection, &mut output, args).await,
        Command::Bench(args) => bench::run(&connection, &mut output, args).await,
        Command::Completions(_) | Command::Man(_) | Command::Doctor(_) | Command::Top(_) => Ok(()),
    }
}
