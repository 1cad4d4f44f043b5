//! Isolates a part of the suite: if it panics or does not end, it fails, and cleanup still runs.

use std::{future::Future, sync::Arc, time::Duration};

use tokio::task::JoinSet;

use crate::{
    harness::{Harness, HarnessError, Store, TestTime},
    panic_location::{Panic, caught, forget_last_call, last_call},
};

/// Runs `part` until it ends, panics or times out.
pub(crate) async fn isolated<T>(
    timeout: Duration,
    part: impl Future<Output = T>,
) -> Result<T, String> {
    forget_last_call();
    match tokio::time::timeout(timeout, caught(part)).await {
        Ok(ended) => ended.map_err(|panic: Panic| panic.to_string()),
        Err(_) => Err(match last_call() {
            None => format!("did not end within {timeout:?}"),
            Some(last) => format!("did not end within {timeout:?}; its last call began {last}"),
        }),
    }
}

/// Runs `part` on a new store, and removes the store in any case.
pub(crate) async fn with_store<T>(
    harness: &dyn Harness,
    time: TestTime,
    timeout: Duration,
    part: impl AsyncFnOnce(Arc<dyn Store>) -> Result<T, String>,
) -> Result<T, String> {
    let store = harness_call("make a store", harness, harness.store(time)).await?;
    let done = isolated(timeout, part(store.clone())).await;
    let removed = harness_call("remove its store", harness, store.remove()).await;
    let done = done.flatten()?;
    removed.map(|()| done)
}

async fn harness_call<T>(
    what: &str,
    harness: &dyn Harness,
    call: impl Future<Output = Result<T, HarnessError>>,
) -> Result<T, String> {
    let answer = isolated(harness.timeout(), call).await;
    let answer = answer.and_then(|answer| answer.map_err(|why| why.to_string()));
    answer.map_err(|why| format!("the harness cannot {what}: {why}"))
}

/// Runs tasks concurrently and returns their outputs in order. If one panics, the others end,
/// because they might wait for it for ever, and the panic continues here.
pub(crate) async fn run_all<T, F>(tasks: impl IntoIterator<Item = F>) -> Vec<T>
where
    T: Send + 'static,
    F: Future<Output = T> + Send + 'static,
{
    let mut running = JoinSet::new();
    for (n, task) in tasks.into_iter().enumerate() {
        running.spawn(async move { (n, caught(task).await) });
    }
    let mut ended = Vec::new();
    while let Some(joined) = running.join_next().await {
        match joined.expect("panics are caught, and no task is aborted") {
            (n, Ok(output)) => ended.push((n, output)),
            (_, Err(panic)) => panic.resume(),
        }
    }
    ended.sort_by_key(|(n, _)| *n);
    ended.into_iter().map(|(_, output)| output).collect()
}
