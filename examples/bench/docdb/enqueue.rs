//! Many tasks that enqueue a message at a time, beside an insert for each.

use super::{
    Bench, Pair, Place,
    baselines::InsertOne,
    place::shared,
    stock::{fill, message},
};
use crate::{
    row::{Row, Unit},
    window::work,
};
use std::time::Duration;

/// How many tasks, and how many times as many single inserts.
const TASKS: [(usize, f64); 2] = [(32, 4.0), (256, 15.0)];

pub(super) async fn measure(bench: &mut Bench<'_>, place: &Place) -> anyhow::Result<()> {
    let scale = bench.scale;
    let backend = place.backend().await?;
    let shared = shared(&backend)?;
    // The first one makes the indexes.
    fill(&shared, 1, Duration::ZERO).await?;
    let inserts = InsertOne::new(place).await?;
    for (tasks, least) in TASKS {
        let mut pair = Pair::default();
        for round in 0..scale.rounds {
            bench
                .progress
                .round(round, scale.rounds, &format!("insert_one, {tasks} tasks"));
            let window = scale.pace.begin();
            let theirs = inserts.clone();
            let done = work(window, tasks, move || {
                let inserts = theirs.clone();
                async move { inserts.insert().await }
            });
            pair.baseline.push(done.await?.rate(window));

            bench
                .progress
                .round(round, scale.rounds, &format!("{tasks} tasks"));
            let window = scale.pace.begin();
            let queue = shared.clone();
            let done = work(window, tasks, move || {
                let queue = queue.clone();
                async move {
                    queue.enqueue(&message()).await?;
                    Ok(1)
                }
            });
            pair.measured.push(done.await?.rate(window));
        }
        let name = format!("single calls, {tasks} tasks: enqueue");
        let row = Row::new("enqueue", name, Unit::MessagesPerSecond)
            .measured(pair.measured)
            .against(format!("insert_one, {tasks} tasks"), pair.baseline)
            .at_least(least);
        bench.findings.rows.push(row);
    }
    Ok(())
}
