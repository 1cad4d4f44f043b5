//! `peek`: the next messages.

use crate::{
    cli::PeekArgs, connect::Connection, failure::Result, find_queue::must_exist, output::Output,
    record::Record,
};

pub(super) async fn run(
    connection: &Connection,
    output: &mut Output,
    args: PeekArgs,
) -> Result<()> {
    let messages = connection.admin.peek(&args.queue, args.max).await?;
    if messages.is_empty() {
        must_exist(connection, &args.queue).await?;
    }
    let records: Vec<_> = messages.into_iter().map(Record::from).collect();
    output.rows(&records)
}
