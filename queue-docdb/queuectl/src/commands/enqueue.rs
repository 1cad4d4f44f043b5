//! `enqueue`: messages from files or the standard input.

use crate::{
    cli::{EnqueueArgs, ImportDead, InputFormat},
    commands::enqueue_input::enqueue_input,
    connect::Connection,
    failure::{Failure, Result},
    input::{Ids, Input, or_stdin},
    output::Output,
    record::Record,
};

pub(super) async fn run(
    connection: &Connection,
    output: &mut Output,
    args: EnqueueArgs,
) -> Result<()> {
    let files = or_stdin(args.files);
    // The same line of two files would have one id, and be one message.
    if args.label.is_some() && (files.len() > 1 || args.format == InputFormat::Files) {
        let text = "--label stands for the name of one file with lines; leave it out for several \
                    files and for --format files";
        return Err(Failure::usage(text));
    }
    let defaults = Record {
        headers: args.headers.into_iter().collect(),
        delay: args.delay,
        visibility_timeout: args.visibility_timeout,
        max_attempts: args.max_attempts,
        ..Record::default()
    };
    let ids = match args.new_ids {
        true => Ids::New,
        false => Ids::Derived(args.label),
    };
    let input = |limits| Input {
        files,
        format: args.format,
        ids,
        defaults,
        dead: ImportDead::Refuse,
        skip: args.skip.skip,
        limits,
    };
    enqueue_input(connection, output, args.queue, args.create, input).await
}
