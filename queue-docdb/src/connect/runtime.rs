//! The runtime that a backend was connected in.

use std::{sync::Mutex, time::Duration};

use futures_util::FutureExt as _;
use tokio::{runtime::Handle, task::JoinHandle};

use crate::{
    lock::lock,
    store::{
        error::StoreError,
        monotonic::{elapsed, monotonic_now},
    },
};

const ENDED: &str = "the tokio runtime in which this backend was connected has ended, and the \
                     connections with it; connect again in this runtime, or use one runtime for all \
                     calls";

/// How long a task may wait in a runtime that runs.
const BUSY: Duration = Duration::from_millis(100);

/// The runtime that runs the driver's tasks. Without them no server is ever selected.
#[derive(Debug)]
pub(crate) struct ConnectRuntime {
    handle: Handle,
    /// Whether the driver's client was made by the application, so that its tasks may run elsewhere.
    is_own_client: bool,
    /// The only task that this has in the runtime, and when it began.
    probe: Mutex<Option<(JoinHandle<()>, Duration)>>,
}

impl ConnectRuntime {
    /// The runtime of the caller.
    pub(crate) fn current(is_own_client: bool) -> Self {
        Self {
            handle: Handle::current(),
            is_own_client,
            probe: Mutex::default(),
        }
    }

    /// Whether the runtime may not be running.
    ///
    /// # Errors
    /// The runtime has ended.
    pub(crate) fn is_doubtful(&self) -> Result<bool, StoreError> {
        if Handle::try_current().is_ok_and(|here| here.id() == self.handle.id()) {
            return Ok(false);
        }
        let new = || (self.handle.spawn(async {}), monotonic_now());
        let mut probe = lock(&self.probe);
        let (mut task, mut since) = probe.take().unwrap_or_else(new);
        // A runtime that has ended cancels its tasks, and new ones at once.
        let mut ended = (&mut task).now_or_never();
        if matches!(ended, Some(Ok(()))) {
            // The runtime may have ended since.
            (task, since) = new();
            ended = (&mut task).now_or_never();
        }
        match ended {
            Some(Ok(())) => Ok(false),
            Some(Err(_)) if self.is_own_client => Ok(true),
            Some(Err(_)) => Err(StoreError::Invalid(ENDED.to_owned())),
            None => {
                *probe = Some((task, since));
                Ok(elapsed(since) > BUSY)
            }
        }
    }
}
