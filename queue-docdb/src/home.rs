//! The runtime that a backend was connected in.

use std::{
    pin::Pin,
    task::{Context, Poll, Waker},
};

use tokio::runtime::Handle;

use crate::error::StoreError;

/// The runtime that runs the driver's tasks. Without them no server is ever selected.
#[derive(Clone, Debug)]
pub(crate) struct Home(Handle);

impl Home {
    /// The runtime of the caller.
    pub(crate) fn current() -> Self {
        Self(Handle::current())
    }

    /// # Errors
    /// The runtime has ended.
    pub(crate) fn check(&self) -> Result<(), StoreError> {
        if Handle::try_current().is_ok_and(|here| here.id() == self.0.id()) {
            return Ok(());
        }
        // A runtime that has ended cancels new tasks at once.
        let mut task = self.0.spawn(async {});
        let mut context = Context::from_waker(Waker::noop());
        match Pin::new(&mut task).poll(&mut context) {
            Poll::Ready(Err(_)) => Err(StoreError::RuntimeEnded),
            Poll::Ready(Ok(())) | Poll::Pending => Ok(()),
        }
    }
}
