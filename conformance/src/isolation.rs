//! Keeps one part of the suite from taking the rest with it: what panics or does not end fails,
//! and whoever started it goes on to clean up.

use std::{future::Future, sync::Arc, time::Duration};

use tokio::task::JoinSet;

use crate::{
    harness::{Harness, HarnessError, Store, TestTime},
    panic_location::{Panic, caught},
};

/// Runs `part` to its end, its panic, or the end of the patience with it.
pub(crate) async fn guarded<T>(
    patience: Duration,
    part: impl Future<Output = T>,
) -> Result<T, String> {
    match tokio::time::timeout(patience, caught(part)).await {
        Ok(ended) => ended.map_err(|panic: Panic| panic.to_string()),
        Err(_) => Err(format!("did not end within {patience:?}")),
    }
}

/// Has `part` work on a store of its own, and removes that whatever came of it.
pub(crate) async fn on_a_store<T>(
    harness: &dyn Harness,
    time: TestTime,
    patience: Duration,
    part: impl AsyncFnOnce(Arc<dyn Store>) -> Result<T, String>,
) -> Result<T, String> {
    let store = by_the_harness("make a store", harness, harness.store(time)).await?;
    let done = guarded(patience, part(store.clone())).await;
    let removed = by_the_harness("remove its store", harness, store.remove()).await;
    let done = done.and_then(|done| done)?;
    removed.map(|()| done)
}

async fn by_the_harness<T>(
    what: &str,
    harness: &dyn Harness,
    call: impl Future<Output = Result<T, HarnessError>>,
) -> Result<T, String> {
    let told = guarded(harness.patience(), call).await;
    let told = told.and_then(|answer| answer.map_err(|why| why.to_string()));
    told.map_err(|why| format!("the harness cannot {what}: {why}"))
}

/// Runs tasks side by side and gives what came of each, in their order. The first that panics
/// ends the others, which might wait for it in vain, and its panic goes on here.
pub(crate) async fn all_of<T, F>(tasks: impl IntoIterator<Item = F>) -> Vec<T>
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
        match joined.expect("panics are caught, and nobody aborts") {
            (n, Ok(output)) => ended.push((n, output)),
            (_, Err(panic)) => panic.resume(),
        }
    }
    ended.sort_by_key(|(n, _)| *n);
    ended.into_iter().map(|(_, output)| output).collect()
}
