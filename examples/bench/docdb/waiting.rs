//! The cost of waiting: commands of an idle consumer, and the time from an enqueue until a
//! consumer has the message.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use anyhow::{Context as _, Result};
use mongodb::event::command::CommandEvent;
use queue_api::{NewMessage, Queue, consumer::ListenOptions};
use serde::{Deserialize, Serialize};

use super::{
    Location, Scale,
    location::{QUEUE, WakeMode},
};
use crate::{
    child::{self, Child, Orders, Role},
    report::{Report, Row, Target},
    window::{nanos, pause},
};

/// Until pauses between polls have their full length and the change stream is open.
const SETTLING: Duration = Duration::from_secs(10);

#[derive(Debug, Serialize, Deserialize)]
enum Order {
    /// Answers how many commands were sent so far.
    CountCommands,
    /// Enqueues a message.
    Enqueue,
}

pub(super) async fn measure(report: &mut Report, scale: &Scale, location: &Location) -> Result<()> {
    for (mode, wake_mode, wakes, p99) in [
        (
            "change stream",
            WakeMode::ChangeStream,
            scale.wakes,
            Target::AtMost(25.0),
        ),
        // Takes up to two seconds each.
        ("polling", WakeMode::Polling, scale.wakes / 10, Target::None),
    ] {
        let location = Location {
            wake_mode,
            ..location.clone()
        };
        let mut listener = Child::start(&Role::Listener(location.clone()))?;
        report.step(format!("idle consumer, {mode}"));
        pause(SETTLING).await;
        let before = commands(&mut listener).await?;
        pause(scale.idle).await;
        let sent = commands(&mut listener).await? - before;
        report.rows.push(Row {
            figures: vec![sent as f64 / scale.idle.as_secs_f64()],
            ..Row::new(
                format!("idle consumer, {mode}"),
                "commands/s",
                Target::AtMost(1.0),
            )
        });

        let sender = Queue::new(location.backend().await?, QUEUE)?;
        let enqueue = async |_: &mut Child| Ok(sender.enqueue(&sent_now()).await.map(drop)?);
        let millis = wake(report, wakes, &mut listener, enqueue).await?;
        push_rows(report, &format!("another process, {mode}"), millis, p99);
        let enqueue = async |listener: &mut Child| listener.order(&Order::Enqueue).await;
        let millis = wake(report, scale.wakes, &mut listener, enqueue).await?;
        push_rows(
            report,
            &format!("the same process, {mode}"),
            millis,
            Target::None,
        );
    }
    Ok(())
}

async fn commands(listener: &mut Child) -> Result<u64> {
    listener.order(&Order::CountCommands).await?;
    listener.answer().await
}

/// The milliseconds from each enqueue until the listener has the message.
async fn wake(
    report: &Report,
    wakes: usize,
    listener: &mut Child,
    enqueue: impl AsyncFn(&mut Child) -> Result<()>,
) -> Result<Vec<f64>> {
    let mut millis = Vec::new();
    for wake in 0..=wakes {
        report.step(format!("wake-up {wake} of {wakes}"));
        // Random, so that it is not in step with any poll.
        pause(Duration::from_millis(fastrand::u64(20..60))).await;
        enqueue(listener).await?;
        let nanos: u64 = listener.answer().await?;
        // The first enqueue opens connections.
        if wake > 0 {
            millis.push(nanos as f64 / 1e6);
        }
    }
    Ok(millis)
}

fn push_rows(report: &mut Report, who: &str, millis: Vec<f64>, p99: Target) {
    for (what, quantile, target) in [("median", 0.5, Target::None), ("p99", 0.99, p99)] {
        let name = format!("wake-up of {who}: {what} of {}", millis.len());
        report.rows.push(Row {
            figures: millis.clone(),
            quantile,
            ..Row::new(name, "ms", target)
        });
    }
}

/// The payload is the time of the enqueue.
fn sent_now() -> NewMessage {
    NewMessage::new(nanos().to_string())
}

/// The program of a child: consumes, and answers how many nanoseconds each message took.
pub(crate) async fn listen(location: &Location, mut orders: Orders) -> Result<()> {
    let commands = Arc::new(AtomicU64::new(0));
    let count = commands.clone();
    let record = move |event| {
        if let CommandEvent::Started(_) = event {
            count.fetch_add(1, Ordering::Relaxed);
        }
    };
    let queue = Queue::new(location.backend_with_events(record).await?, QUEUE)?;
    let mut listener = queue.listen(ListenOptions::new(8))?;
    loop {
        tokio::select! {
            lease = listener.next() => {
                let lease = lease.context("the listener was stopped")?;
                let sent: u64 = std::str::from_utf8(lease.payload())?.parse()?;
                let took = nanos() - sent;
                assert!(lease.ack().await?.is_applied());
                child::tell(&took)?;
            }
            order = orders.next() => match order? {
                Order::CountCommands => child::tell(&commands.load(Ordering::Relaxed))?,
                Order::Enqueue => {
                    let queue = queue.clone();
                    tokio::spawn(async move { queue.enqueue(&sent_now()).await });
                }
            },
        }
    }
}
