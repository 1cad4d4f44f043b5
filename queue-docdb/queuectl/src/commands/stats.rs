//! `stats`: one queue, once or again and again.

use crate::{
    cli::StatsArgs,
    commands::queues::{Sample, pause},
    connect::Connection,
    failure::Result,
    find_queue::must_exist,
    output::Output,
};

pub(super) async fn run(
    connection: &Connection,
    output: &mut Output,
    args: StatsArgs,
) -> Result<()> {
    must_exist(connection, &args.queue).await?;
    let mut before = None;
    loop {
        let now = Sample::take(connection, args.queue.clone()).await?;
        output.rows(&[now.row(before.as_ref())])?;
        before = Some(now);
        match args.watch.map(|interval| args.interval.unwrap_or(interval)) {
            Some(interval) => pause(interval).await,
            None => return Ok(()),
        }
    }
}
