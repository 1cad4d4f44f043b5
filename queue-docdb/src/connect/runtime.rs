//! The runtime that a backend was connected in.

use std::{
    pin::Pin,
    sync::Mutex,
    task::{Context, Poll, Waker},
    time::Duration,
};

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
    /// The only task that this has in the runtime.
    probe: Mutex<Option<Probe>>,
}

#[derive(Debug)]
struct Probe {
    since: Duration,
    task: JoinHandle<()>,
}

impl ConnectRuntime {
    /// The runtime of the caller, for a client that was made in it.
    pub(crate) fn current() -> Self {
        Self {
            handle: Handle::current(),
            is_own_client: false,
            probe: Mutex::default(),
        }
    }

    /// The same for a client of the application.
    pub(crate) fn of_own_client() -> Self {
        Self {
            is_own_client: true,
            ..Self::current()
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
        let mut probe = lock(&self.probe);
        let mut last = probe.take().unwrap_or_else(|| self.probe());
        let mut poll = last.poll();
        if matches!(poll, Poll::Ready(Ok(()))) {
            // The runtime may have ended since.
            last = self.probe();
            poll = last.poll();
        }
        match poll {
            Poll::Ready(Ok(())) => Ok(false),
            Poll::Ready(Err(_)) if self.is_own_client => Ok(true),
            Poll::Ready(Err(_)) => Err(StoreError::Invalid(ENDED.to_owned())),
            Poll::Pending => {
                let is_busy = elapsed(last.since) > BUSY;
                *probe = Some(last);
                Ok(is_busy)
            }
        }
    }

    fn probe(&self) -> Probe {
        Probe {
            since: monotonic_now(),
            task: self.handle.spawn(async {}),
        }
    }
}

impl Probe {
    /// A runtime that has ended cancels its tasks, and new ones at once.
    fn poll(&mut self) -> Poll<Result<(), tokio::task::JoinError>> {
        Pin::new(&mut self.task).poll(&mut Context::from_waker(Waker::noop()))
    }
}
