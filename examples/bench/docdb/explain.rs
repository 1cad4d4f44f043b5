//! How much the server examines for a claim, by its own `explain`.

use std::{
    mem,
    sync::{Arc, Mutex},
    time::Duration,
};

use anyhow::{Context as _, Result, ensure};
use mongodb::{
    Database,
    bson::{Bson, Document, doc},
    event::command::CommandEvent,
};
use queue_api::{LeaseOptions, Queue};

use super::{Place, backlog::fill, place::QUEUE};
use crate::report::{Report, Row, Target};

/// Batch sizes and targets.
const TARGETS: [(usize, Target); 3] = [
    (500, Target::AtMost(1.2)),
    (100, Target::AtMost(1.2)),
    (1, Target::None),
];

/// The commands that may look for messages.
const READS: [&str; 3] = ["find", "findAndModify", "aggregate"];

pub(super) async fn measure(report: &mut Report, place: &Place) -> Result<()> {
    let sent = Arc::<Mutex<Vec<Document>>>::default();
    let take = || mem::take(&mut *sent.lock().expect("not poisoned"));
    let seen = sent.clone();
    let record = move |event| {
        if let CommandEvent::Started(event) = event
            && READS.contains(&event.command_name.as_str())
        {
            seen.lock().expect("not poisoned").push(event.command);
        }
    };
    let queue = Queue::new(place.backend_with_events(record).await?, QUEUE)?;
    fill(&queue, 10_000, Duration::ZERO).await?;
    // A queue in use has leased messages.
    queue.lease_batch(&LeaseOptions::new(500)).await?;
    let database = place.database().await?;
    for (batch, target) in TARGETS {
        let name = format!("documents or keys examined by the find of a lease of {batch}");
        let row = Row::new(name, "a message", target);
        let examined = async || {
            take();
            let leased = queue.lease_batch(&LeaseOptions::new(batch)).await?.len();
            ensure!(leased == batch, "{leased} of {batch} leased");
            Ok(explain(&database, take()).await? as f64 / batch as f64)
        };
        report.measure(row, examined).await?;
    }
    Ok(())
}

/// The documents or the index keys that the server examines for these commands, whichever are
/// more.
async fn explain(database: &Database, commands: Vec<Document>) -> Result<i64> {
    ensure!(!commands.is_empty(), "the lease sent none of {READS:?}");
    let (mut documents, mut keys) = (0, 0);
    for command in commands {
        // Without the fields of the session that sent it.
        let is_session = |name: &str| name == "lsid" || name.starts_with('$');
        let fields = command.into_iter().filter(|(name, _)| !is_session(name));
        let command: Document = fields.collect();
        let explain = doc! { "explain": command, "verbosity": "executionStats" };
        let plan = database.run_command(explain).await?;
        let stats = plan.get_document("executionStats")?;
        documents += count(stats, "totalDocsExamined")?;
        keys += count(stats, "totalKeysExamined")?;
    }
    Ok(documents.max(keys))
}

fn count(stats: &Document, name: &str) -> Result<i64> {
    match stats.get(name) {
        Some(Bson::Int32(count)) => Ok(i64::from(*count)),
        Some(Bson::Int64(count)) => Ok(*count),
        other => None.with_context(|| format!("{name} is {other:?}; it must be a count")),
    }
}
