//! `import`: what `export` wrote, into a queue.

use crate::{
    cli::{ImportArgs, InputFormat},
    commands::enqueue_input::enqueue_input,
    connect::Connection,
    failure::Result,
    input::{Ids, Input, or_stdin},
    output::Output,
    record::Record,
};

pub(super) async fn run(
    connection: &Connection,
    output: &mut Output,
    args: ImportArgs,
) -> Result<()> {
    let input = |limits| Input {
        files: or_stdin(args.files),
        format: InputFormat::Json,
        ids: Ids::Required,
        defaults: Record::default(),
        dead: args.dead,
        skip: args.skip.skip,
        limits,
    };
    enqueue_input(connection, output, args.queue, args.create, input).await
}
