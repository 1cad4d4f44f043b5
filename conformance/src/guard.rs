//! Keeps one part of the suite from taking the rest with it: what panics or does not end fails,
//! and whoever started it goes on to clean up.

use std::{any::Any, future::Future, panic::AssertUnwindSafe, time::Duration};

use futures::FutureExt;

/// Runs `part` to its end, its panic, or the end of the patience with it.
pub(crate) async fn guarded<T>(
    patience: Duration,
    part: impl Future<Output = T>,
) -> Result<T, String> {
    match tokio::time::timeout(patience, AssertUnwindSafe(part).catch_unwind()).await {
        Ok(Ok(output)) => Ok(output),
        Ok(Err(panic)) => Err(panic_message(panic)),
        Err(_) => Err(format!("did not end within {patience:?}")),
    }
}

fn panic_message(panic: Box<dyn Any + Send>) -> String {
    match panic.downcast::<String>() {
        Ok(message) => *message,
        Err(panic) => match panic.downcast::<&'static str>() {
            Ok(message) => (*message).to_owned(),
            Err(_) => "panicked".to_owned(),
        },
    }
}
