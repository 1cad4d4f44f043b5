//! How much a claim makes the server look at, by the server's own account.

use std::sync::{Arc, Mutex};

use anyhow::{Context as _, ensure};
use mongodb::{
    Database,
    bson::{Bson, Document, doc},
    event::{EventHandler, command::CommandEvent},
};
use queue_api::{LeaseOptions, Queue};

use super::{Bench, Place, place::QUEUE, stock::fill};
use crate::{
    row::{Row, Unit},
    samples::Samples,
};

/// How many messages a claim is for, and whether there is a target.
const BATCHES: [(usize, bool); 3] = [(500, true), (100, true), (1, false)];

/// The commands by which a claim may look for messages.
const LOOKING: [&str; 3] = ["find", "findAndModify", "aggregate"];

pub(super) async fn measure(bench: &mut Bench<'_>, place: &Place) -> anyhow::Result<()> {
    let scale = bench.scale;
    let sent = Arc::<Mutex<Vec<Document>>>::default();
    let seen = sent.clone();
    let events = EventHandler::callback(move |event| {
        if let CommandEvent::Started(event) = event
            && LOOKING.contains(&event.command_name.as_str())
        {
            seen.lock()
                .expect("pushing does not panic")
                .push(event.command);
        }
    });
    let backend = place.observed(events).await?;
    let queue = Queue::new(backend, QUEUE)?;
    fill(&queue, scale.small, std::time::Duration::ZERO).await?;
    // As in a queue that is in use: some are leased.
    queue.lease_batch(&LeaseOptions::new(500)).await?;
    let database = place.database().await?;
    for (batch, has_target) in BATCHES {
        let mut examined = Samples::default();
        for round in 0..scale.rounds {
            bench
                .progress
                .round(round, scale.rounds, &format!("a claim of {batch}"));
            let take = || std::mem::take(&mut *sent.lock().expect("pushing does not panic"));
            take();
            let leased = queue.lease_batch(&LeaseOptions::new(batch)).await?.len();
            ensure!(leased == batch, "so many are ready");
            let (documents, keys) = explained(&database, take()).await?;
            examined.push(documents.max(keys) as f64 / batch as f64);
        }
        let name = format!(
            "examined by the find for each message of a lease of {batch}: documents or keys"
        );
        let row = Row::new("examined", name, Unit::PerMessage).measured(examined);
        bench
            .findings
            .rows
            .push(if has_target { row.at_most(1.2) } else { row });
    }
    Ok(())
}

/// How many documents and index keys the server looks at for these commands.
async fn explained(database: &Database, commands: Vec<Document>) -> anyhow::Result<(i64, i64)> {
    ensure!(!commands.is_empty(), "a claim looks for messages");
    let (mut documents, mut keys) = (0, 0);
    for mut command in commands {
        // What belongs to the connection that sent it.
        let session = |name: &String| name == "lsid" || name.starts_with('$');
        let sessions: Vec<String> = command
            .keys()
            .filter(|name| session(name))
            .cloned()
            .collect();
        for name in sessions {
            command.remove(name);
        }
        let explain = doc! { "explain": command, "verbosity": "executionStats" };
        let plan = database.run_command(explain).await?;
        let stats = plan.get_document("executionStats")?;
        documents += count(stats, "totalDocsExamined")?;
        keys += count(stats, "totalKeysExamined")?;
    }
    Ok((documents, keys))
}

fn count(stats: &Document, name: &str) -> anyhow::Result<i64> {
    match stats.get(name) {
        Some(Bson::Int32(count)) => Ok(i64::from(*count)),
        Some(Bson::Int64(count)) => Ok(*count),
        other => None.with_context(|| format!("{name} is {other:?}")),
    }
}
