//! What waiting costs: commands while nothing happens, and the time from an enqueue to the moment
//! at which a consumer has the message.

use std::time::Duration;

use queue_api::Queue;

use super::{
    Bench, Place,
    place::{QUEUE, WakeMode},
    waking::{Apart, Here, sent_now},
};
use crate::{
    clock::pause,
    row::{Row, Unit},
    samples::Samples,
};

/// Lets pauses grow to their full length first, and a change stream be opened.
const SETTLING: Duration = Duration::from_secs(10);

/// The longest wake-up of another process that one percent may exceed, with a change stream.
const P99_MILLIS: f64 = 25.0;

pub(super) async fn measure(bench: &mut Bench<'_>, place: &Place) -> anyhow::Result<()> {
    // Each in a database of its own, as a change stream is about a database.
    let (database, elsewhere) = bench.place();
    let streamed = place.with_news(WakeMode::Streamed);
    let polled = elsewhere.with_news(WakeMode::Polled);
    let mut apart = [Apart::start(&streamed)?, Apart::start(&polled)?];
    idle(bench, &mut apart).await?;

    let [mut hears, mut looks] = apart;
    let wakes = bench.scale.wakes;
    let took = wake_apart(bench, &streamed, &mut hears, wakes).await?;
    report(
        bench,
        "another process, change stream",
        took,
        Some(P99_MILLIS),
    );
    drop(hears);
    let took = wake_here(bench, &streamed, wakes).await?;
    report(bench, "the same process, change stream", took, None);
    let took = wake_apart(bench, &polled, &mut looks, bench.scale.wakes_by_looking).await?;
    report(bench, "another process, looking", took, None);
    drop(looks);
    let took = wake_here(bench, &polled, wakes / 2).await?;
    report(bench, "the same process, looking", took, None);
    drop(database);
    Ok(())
}

/// Both at the same time: neither does much.
async fn idle(bench: &mut Bench<'_>, apart: &mut [Apart; 2]) -> anyhow::Result<()> {
    bench.progress.step("two idle consumers");
    pause(SETTLING).await;
    let before = [apart[0].commands()?, apart[1].commands()?];
    pause(bench.scale.idle).await;
    let names = ["change stream", "looking"];
    for ((apart, before), name) in apart.iter_mut().zip(before).zip(names) {
        let sent = (apart.commands()? - before) as f64;
        let row = Row::new(
            "waiting",
            format!("idle consumer, {name}"),
            Unit::CommandsPerSecond,
        )
        .measured(Samples::one(sent / bench.scale.idle.as_secs_f64()))
        .at_most(1.0);
        bench.findings.rows.push(row);
    }
    Ok(())
}

async fn wake_apart(
    bench: &Bench<'_>,
    place: &Place,
    apart: &mut Apart,
    wakes: usize,
) -> anyhow::Result<Samples> {
    let sender = Queue::new(place.backend().await?, QUEUE)?;
    // The first enqueue of all makes the queue, so it does not count.
    sender.enqueue(&sent_now()).await?;
    apart.woken()?;
    let mut took = Samples::default();
    for wake in 0..wakes {
        bench.progress.round(wake, wakes, "waking another process");
        settle_down().await;
        sender.enqueue(&sent_now()).await?;
        took.push(apart.woken()? as f64 / 1e6);
    }
    Ok(took)
}

async fn wake_here(bench: &Bench<'_>, place: &Place, wakes: usize) -> anyhow::Result<Samples> {
    let mut here = Here::listen(place).await?;
    let sender = here.queue.clone();
    let mut took = Samples::default();
    for wake in 0..wakes {
        bench.progress.round(wake, wakes, "waking this process");
        let sending = async {
            settle_down().await;
            sender.enqueue(&sent_now()).await
        };
        let (sent, woken) = tokio::join!(sending, here.woken());
        sent?;
        took.push(woken? as f64 / 1e6);
    }
    here.stop().await;
    Ok(took)
}

/// So that the consumer waits again, at moments that nothing is in step with.
async fn settle_down() {
    pause(Duration::from_millis(fastrand::u64(20..60))).await;
}

/// Of all wake-ups together: the 99th percentile of a few would be the slowest of them.
fn report(bench: &mut Bench<'_>, who: &str, took: Samples, p99: Option<f64>) {
    let row = |what: &str, share: f64| {
        let name = format!("wake-up of {who}: {what} of {}", took.len());
        let row = Row::new("waiting", name, Unit::Milliseconds);
        row.measured(took.clone()).at_quantile(share)
    };
    let (median, slow) = (row("median", 0.5), row("p99", 0.99));
    let slow = match p99 {
        Some(bound) => slow.at_most(bound),
        None => slow,
    };
    bench.findings.rows.extend([median, slow]);
}
