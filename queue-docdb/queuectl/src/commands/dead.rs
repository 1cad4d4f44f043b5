//! `dead`: what to do with dead letters.

use std::{collections::HashSet, fmt, time::SystemTime};

use futures::{Stream, StreamExt, TryStreamExt, future, stream};
use jiff::Timestamp;
use queue_api::{DeadLetter, MessageId, Purge, QueueName, Redrive};
use serde::Serialize;

use crate::{
    cli::{
        DeadCommand, ExtentArgs, FilterArgs, ListArgs, Order, RedriveArgs, RemoveArgs, ShowArgs,
        What,
    },
    commands::purge::{Removed, stopped},
    confirm::confirm,
    connect::Connection,
    depth::contents,
    failure::{Exit, Failure, Result},
    find_queue::must_exist,
    output::{Column, Output, Row, count, preview},
    record::Record,
};

/// Rows of a table that have their widths in common.
const PAGE: usize = 100;

pub(super) async fn run(
    connection: &Connection,
    output: &mut Output,
    command: DeadCommand,
) -> Result<()> {
    match command {
        DeadCommand::List(args) => list(connection, output, args).await,
        DeadCommand::Show(args) => show(connection, output, args).await,
        DeadCommand::Redrive(args) => redrive(connection, output, args).await,
        DeadCommand::Remove(args) => remove(connection, output, args).await,
    }
}

async fn list(connection: &Connection, output: &mut Output, args: ListArgs) -> Result<()> {
    must_exist(connection, &args.queue).await?;
    let letters = connection.admin.all_dead_letters(&args.queue)?;
    let is_filtered = !args.filter.is_empty();
    let letters = select(letters, args.filter, &args.extent).await?;
    let mut pages = letters.map_ok(DeadRow::from).try_chunks(PAGE);
    let mut listed = 0;
    while let Some(rows) = pages.next().await {
        let rows = rows.map_err(|error| Failure::from(error.1))?;
        output.rows(&rows)?;
        listed += rows.len();
    }
    if listed == 0 {
        output.rows::<DeadRow>(&[])?;
    }
    if output.is_for_people() {
        let stats = connection.admin.stats(&args.queue).await?;
        let dead = contents(&stats, What::Dead);
        let matches = match is_filtered && listed == 0 {
            true => " match; case matters",
            false => "",
        };
        eprintln!("{listed} of {dead}{matches}");
    }
    Ok(())
}

async fn show(connection: &Connection, output: &mut Output, args: ShowArgs) -> Result<()> {
    must_exist(connection, &args.queue).await?;
    // There is no call for one of them, so this goes through the list.
    let mut wanted: HashSet<MessageId> = args.ids.into_iter().collect();
    let mut letters = connection.admin.all_dead_letters(&args.queue)?;
    while !wanted.is_empty() {
        match letters.next().await.transpose()? {
            Some(letter) if wanted.remove(&letter.id) => output.summary(&Shown(letter.into()))?,
            Some(_) => {}
            None => break,
        }
    }
    let missing: Vec<_> = wanted.into_iter().collect();
    all_found(&args.queue, &missing)
}

async fn redrive(connection: &Connection, output: &mut Output, args: RedriveArgs) -> Result<()> {
    let queue = args.queue;
    must_exist(connection, &queue).await?;
    let mut redriven = 0;
    let mut missing = Vec::new();
    let ended = if args.all {
        let what = contents(&connection.admin.stats(&queue).await?, What::Dead);
        confirm(&args.confirm, &format!("redrive {what} of queue {queue}"))?;
        redrive_one(connection, &queue, Redrive::All, &mut redriven).await
    } else if !args.ids.is_empty() {
        redrive_ids(connection, &queue, args.ids, &mut redriven, &mut missing).await
    } else if args.filter.is_empty() && args.extent.limit.is_none() {
        let text = "no dead letters are named; name ids, a filter, --limit or --all";
        return Err(Failure::usage(text));
    } else {
        redrive_selected(connection, &queue, args.filter, &args.extent, &mut redriven).await
    };
    output.summary(&Redriven {
        queue: queue.clone(),
        redriven,
    })?;
    ended?;
    all_found(&queue, &missing)
}

fn all_found(queue: &QueueName, missing: &[MessageId]) -> Result<()> {
    if missing.is_empty() {
        return Ok(());
    }
    let ids: Vec<_> = missing.iter().map(MessageId::as_str).collect();
    let text = format!("not dead letters of {queue}: {}", ids.join(", "));
    Err(Failure::new(Exit::NotFound, text))
}

/// Each by itself, because a call tells only how many of its ids it found.
async fn redrive_ids(
    connection: &Connection,
    queue: &QueueName,
    ids: Vec<MessageId>,
    redriven: &mut u64,
    missing: &mut Vec<MessageId>,
) -> Result<()> {
    let mut seen = HashSet::new();
    for id in ids {
        // An id that is named twice is one.
        if seen.insert(id.clone()) {
            let before = *redriven;
            redrive_one(connection, queue, Redrive::Ids(vec![id.clone()]), redriven).await?;
            if *redriven == before {
                missing.push(id);
            }
        }
    }
    Ok(())
}

/// One call of the store.
async fn redrive_one(
    connection: &Connection,
    queue: &QueueName,
    which: Redrive,
    redriven: &mut u64,
) -> Result<()> {
    let call = connection.admin.redrive(queue, &which).await;
    *redriven += call.map_err(|error| uncounted(error.into()))?;
    Ok(())
}

/// A failure of a call that may have redriven some. The count does not have them.
fn uncounted(failure: Failure) -> Failure {
    match failure.exit {
        Exit::Unreachable => {
            failure.advise("more than these may be ready; repeat the command for the rest")
        }
        _ => failure,
    }
}

/// Those that the filter selects, batch after batch. An error leaves the count of those before it.
async fn redrive_selected(
    connection: &Connection,
    queue: &QueueName,
    filter: FilterArgs,
    extent: &ExtentArgs,
    redriven: &mut u64,
) -> Result<()> {
    let admin = &connection.admin;
    // What dies again meanwhile would be found again, and this would never end.
    let dead = admin.stats(queue).await?.dead;
    let letters = admin
        .all_dead_letters(queue)?
        .take(usize::try_from(dead).unwrap_or(usize::MAX));
    let letters = select(letters, filter, extent).await?;
    let batch = connection.queue(queue)?.limits().max_batch.get();
    let mut batches = letters.map_ok(|letter| letter.id).try_chunks(batch);
    while let Some(ids) = batches.next().await {
        let ids = ids.map_err(|error| Failure::from(error.1))?;
        redrive_one(connection, queue, Redrive::Ids(ids), redriven).await?;
    }
    Ok(())
}

async fn remove(connection: &Connection, output: &mut Output, args: RemoveArgs) -> Result<()> {
    let (admin, queue) = (&connection.admin, args.queue);
    if let Some(other) = args.others.first() {
        let text = format!(
            "only --all is possible, not {other:?}: the store has no call that removes single dead \
             letters; redrive or export first those that you want to keep"
        );
        return Err(Failure::usage(text));
    }
    must_exist(connection, &queue).await?;
    let what = contents(&admin.stats(&queue).await?, What::Dead);
    confirm(&args.confirm, &format!("remove {what} of queue {queue}"))?;
    let purged = admin.purge(&queue, Purge::Dead).await;
    let removed = purged.map_err(|error| stopped(error.into(), 0))?;
    let noun = "dead letter";
    output.summary(&Removed {
        queue,
        removed,
        noun,
    })
}

/// The dead letters that pass the filter. Only the order `newest` holds more than a page in memory,
/// and no more than twice the limit.
async fn select(
    letters: impl Stream<Item = queue_api::Result<DeadLetter>> + Unpin,
    filter: FilterArgs,
    extent: &ExtentArgs,
) -> Result<impl Stream<Item = queue_api::Result<DeadLetter>> + Unpin> {
    let now = Timestamp::now();
    let passes = move |letter: &DeadLetter| future::ready(passes(&filter, letter, now));
    let mut found = letters.try_filter(passes);
    let limit = extent.limit.unwrap_or(usize::MAX);
    if extent.order == Order::Oldest {
        return Ok(found.take(limit).left_stream());
    }
    let newest_first = |letters: &mut Vec<DeadLetter>| {
        letters.sort_by_key(|letter: &DeadLetter| std::cmp::Reverse(letter.died_at));
        letters.truncate(limit);
    };
    let mut newest = Vec::new();
    while let Some(letter) = found.try_next().await? {
        newest.push(letter);
        if newest.len() / 2 > limit {
            newest_first(&mut newest);
        }
    }
    newest_first(&mut newest);
    Ok(stream::iter(newest.into_iter().map(Ok)).right_stream())
}

fn passes(filter: &FilterArgs, letter: &DeadLetter, now: Timestamp) -> bool {
    let dead_for = SystemTime::from(now).duration_since(letter.died_at);
    let dead_for = dead_for.unwrap_or_default();
    let reason = letter.reason.to_string();
    filter
        .reason
        .as_ref()
        .is_none_or(|text| reason.contains(text.as_str()))
        && filter.older_than.is_none_or(|least| dead_for > least)
        && filter.newer_than.is_none_or(|most| dead_for < most)
        && filter
            .headers
            .iter()
            .all(|(name, value)| letter.headers.get(name) == Some(value))
}

#[derive(Serialize)]
struct Redriven {
    queue: QueueName,
    redriven: u64,
}

impl fmt::Display for Redriven {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let letters = count(self.redriven, "dead letter");
        write!(f, "redrove {letters} of queue {}", self.queue)
    }
}

/// A line of the list.
#[derive(Serialize)]
#[serde(transparent)]
struct DeadRow(Record);

impl From<DeadLetter> for DeadRow {
    fn from(letter: DeadLetter) -> Self {
        Self(letter.into())
    }
}

impl Row for DeadRow {
    const COLUMNS: &[Column] = &[
        Column::Text("ID"),
        Column::Text("DIED AT"),
        Column::Number("ATTEMPTS"),
        Column::Text("REASON"),
        Column::Text("PAYLOAD"),
    ];

    fn cells(&self) -> Vec<String> {
        let Self(record) = self;
        vec![
            record
                .id
                .as_ref()
                .map(MessageId::to_string)
                .unwrap_or_default(),
            record.died_at.map(|at| at.to_string()).unwrap_or_default(),
            record.attempts.unwrap_or_default().to_string(),
            preview(record.reason.as_deref().unwrap_or_default(), 50),
            record.shown_payload(),
        ]
    }
}

/// All of a dead letter.
#[derive(Serialize)]
#[serde(transparent)]
struct Shown(Record);

impl fmt::Display for Shown {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self(record) = self;
        let fields = [
            ("id", record.id.as_ref().map(MessageId::to_string)),
            ("reason", record.reason.as_deref().map(multiline)),
            ("died at", record.died_at.map(|at| at.to_string())),
            ("enqueued at", record.enqueued_at.map(|at| at.to_string())),
            (
                "attempts",
                record.attempts.map(|attempts| attempts.to_string()),
            ),
        ];
        for (name, value) in fields {
            writeln!(f, "{name}: {}", value.unwrap_or_default())?;
        }
        for (name, value) in &record.headers {
            let (name, value) = (preview(name, usize::MAX), preview(value, usize::MAX));
            writeln!(f, "header {name}: {value}")?;
        }
        match (&record.payload, &record.payload_base64) {
            (_, Some(base64)) => writeln!(f, "payload in base64: {base64}"),
            (payload, _) => writeln!(
                f,
                "payload: {}",
                multiline(payload.as_deref().unwrap_or(""))
            ),
        }
    }
}

/// Text with its lines, and without other control characters.
fn multiline(text: &str) -> String {
    let lines: Vec<_> = text
        .split('\n')
        .map(|line| preview(line, usize::MAX))
        .collect();
    lines.join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failure_tells_that_more_may_be_redriven() {
        let said = |exit| uncounted(Failure::new(exit, "no answer")).text;
        let more = "no answer; more than these may be ready; repeat the command for the rest";
        assert_eq!(said(Exit::Unreachable), more);
        assert_eq!(said(Exit::Denied), "no answer");
    }
}
