//! Waits that go on while a history does.

use std::{pin::pin, task::Poll, time::Duration};

use futures::poll;
use queue_api::Result;
use tokio::{sync::oneshot, task::JoinHandle};

use super::command::QUEUES;
use crate::fixture::OneQueue;

/// The waits of each queue that have not returned.
#[derive(Debug, Default)]
pub(super) struct Waits([Vec<JoinHandle<Result<()>>>; QUEUES]);

impl Waits {
    /// Starts a wait, which is polled before this returns. One for no time has to return at once.
    pub(super) async fn start(
        &mut self,
        queue: usize,
        on: OneQueue,
        at_most: Duration,
        within: Duration,
    ) -> std::result::Result<(), String> {
        let (begun, has_begun) = oneshot::channel();
        let wait = tokio::spawn(async move {
            let mut wait = pin!(on.backend().wait(&on.name, at_most));
            let polled = poll!(&mut wait);
            let _ = begun.send(());
            match polled {
                Poll::Ready(ended) => ended,
                Poll::Pending => wait.await,
            }
        });
        // If it panics, `all_return` reports it.
        let _ = has_begun.await;
        if at_most.is_zero() {
            return returns(wait, within).await;
        }
        self.0[queue].push(wait);
        Ok(())
    }

    /// Drops the oldest wait of a queue, and returns whether there was one that had not returned.
    pub(super) fn drop_one(&mut self, queue: usize) -> bool {
        let first = (!self.0[queue].is_empty()).then(|| self.0[queue].remove(0));
        first.is_some_and(|wait| {
            wait.abort();
            !wait.is_finished()
        })
    }

    /// All waits of a queue must return now. Returns how many there were.
    pub(super) async fn all_return(
        &mut self,
        queue: usize,
        within: Duration,
    ) -> std::result::Result<u64, String> {
        let waits = std::mem::take(&mut self.0[queue]);
        let count = waits.len() as u64;
        for wait in waits {
            returns(wait, within).await?;
        }
        Ok(count)
    }
}

async fn returns(
    wait: JoinHandle<Result<()>>,
    within: Duration,
) -> std::result::Result<(), String> {
    let ended = tokio::time::timeout(within, wait).await;
    let ended = ended.map_err(|_| "W1: a wait does not return".to_owned())?;
    let ended = ended.map_err(|panic| format!("W1: a wait panicked: {panic}"))?;
    ended.map_err(|error| format!("X1: an error without a cause: {error:?}"))
}

impl Drop for Waits {
    fn drop(&mut self) {
        self.0.iter().flatten().for_each(JoinHandle::abort);
    }
}
