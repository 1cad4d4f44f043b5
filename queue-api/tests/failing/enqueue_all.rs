//! Streams of messages.

use std::{collections::BTreeMap, panic::AssertUnwindSafe, sync::Arc};

use futures::{FutureExt, StreamExt, stream};

use crate::{
    code::Place,
    world::{SECOND, World, message},
};

const MESSAGES: usize = 30;

/// A program that enqueues a stream. What has no outcome goes in the next stream.
pub(crate) async fn all(world: &Arc<World>) {
    let queue = world.queue("q");
    let ids = (0..MESSAGES).map(|number| format!("Plain-{number:02}"));
    let mut left: BTreeMap<String, _> = ids.map(|id| (id.clone(), message(&id))).collect();
    let mut attempts = 0;
    while !left.is_empty() {
        attempts += 1;
        if attempts > 1 && !world.case.once && !world.is_mended() {
            world.pause(SECOND * 10).await;
        }
        let messages: Vec<_> = left.values().cloned().collect();
        let mut all =
            queue.enqueue_all(stream::iter(messages).inspect(|_| world.code.at(Place::StreamPoll)));
        loop {
            let next = AssertUnwindSafe(all.next()).catch_unwind();
            match tokio::time::timeout(SECOND * 60, next).await {
                Ok(Ok(Some(Ok(enqueued)))) => {
                    let id = enqueued.id.to_string();
                    if left.remove(&id).is_none() {
                        world.problem(format!("{id} has a second outcome"));
                    }
                }
                Ok(Ok(Some(Err(failed)))) => {
                    world.error(&failed.error);
                    for message in &failed.messages {
                        if !left.contains_key(message.id.as_str()) {
                            world.problem(format!("{} fails after its outcome", message.id));
                        }
                    }
                }
                Ok(Ok(None)) => break,
                // The panic of the backend reaches the caller, who polls again.
                Ok(Err(_)) => {}
                // It hangs, and its caller drops it.
                Err(_) => break,
            }
        }
        if attempts > 100 {
            return world.problem(format!("{} messages are never stored", left.len()));
        }
    }
    let stored = world.elsewhere("q").stats().await.unwrap().ready;
    if stored != MESSAGES as u64 {
        world.problem(format!("{stored} of {MESSAGES} are stored"));
    }
}
