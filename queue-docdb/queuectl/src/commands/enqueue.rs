//! `enqueue`: messages from files or the standard input.

use std::path::Path;

use queue_api::{Limits, NewMessage};

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
    // Each object would be a payload.
    if let (None, Some(file)) = (args.format, files.iter().find(|file| is_json_lines(file))) {
        let text = format!(
            "{} looks like JSON lines: name --format lines or --format json",
            file.display()
        );
        return Err(Failure::usage(text));
    }
    let format = args.format.unwrap_or_default();
    // The same line of two files would have one id, and be one message.
    if args.label.is_some() && (files.len() > 1 || format == InputFormat::Files) {
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
    check(&defaults, connection.admin.backend().limits())?;
    let ids = match args.new_ids {
        true => Ids::New,
        false => Ids::Derived(args.label),
    };
    let input = |limits| Input {
        files,
        format,
        ids,
        defaults,
        dead: ImportDead::Refuse,
        skip: args.skip.skip,
        limits,
    };
    enqueue_input(connection, output, args.queue, args.create, input).await
}

/// Refuses flags that no message may have. Otherwise the first line of the input would be blamed.
fn check(flags: &Record, limits: Limits) -> Result<()> {
    let message = flags
        .clone()
        .complete(NewMessage::new(""), &Record::default());
    limits.check_messages(&[message]).map_err(|error| {
        let text = match error.invalid_input() {
            Some(it) => format!("{} is {}; it must be {}", it.name, it.value, it.allowed),
            None => error.to_string(),
        };
        Failure::usage(text)
    })
}

fn is_json_lines(file: &Path) -> bool {
    let extension = file.extension().unwrap_or_default();
    ["jsonl", "ndjson"]
        .iter()
        .any(|it| extension.eq_ignore_ascii_case(it))
}
