//! Leases that were claimed and not handed out yet.

use std::{
    collections::VecDeque,
    sync::{Mutex, MutexGuard},
    task::{Context, Waker},
};

use super::Lease;

/// The listener's task puts leases in, and the stream takes them out. It never holds more than the
/// listener's concurrency.
#[derive(Debug, Default)]
pub(crate) struct Inbox {
    /// A std mutex, because it is held for a few assignments and never across an await.
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    leases: VecDeque<Lease>,
    closed: bool,
    /// The panic that ended the listener's task.
    panic: Option<String>,
    demanded: bool,
    reader: Option<Waker>,
}

/// The next item of the stream.
#[derive(Debug)]
pub(crate) enum Next {
    Lease(Lease),
    Closed,
    /// Empty, for the first time since a lease was put in.
    Drained,
    /// Still empty.
    Empty,
}

impl Inbox {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().expect("nothing panics under the lock")
    }

    /// Adds leases. If the stream has ended, they are dropped and so released.
    pub(crate) fn put(&self, leases: Vec<Lease>) {
        let mut state = self.lock();
        if state.closed {
            return;
        }
        state.leases.extend(leases);
        state.demanded = false;
        let reader = state.reader.take();
        drop(state);
        if let Some(reader) = reader {
            reader.wake();
        }
    }

    /// Takes the next lease, if there is one now.
    pub(crate) fn take(&self) -> Option<Lease> {
        self.lock().leases.pop_front()
    }

    /// Takes the next lease, or registers the reader to be woken.
    pub(crate) fn next(&self, cx: &mut Context<'_>) -> Next {
        let mut state = self.lock();
        if let Some(lease) = state.leases.pop_front() {
            return Next::Lease(lease);
        }
        if state.closed {
            return Next::Closed;
        }
        match &mut state.reader {
            Some(reader) => reader.clone_from(cx.waker()),
            none => *none = Some(cx.waker().clone()),
        }
        match std::mem::replace(&mut state.demanded, true) {
            false => Next::Drained,
            true => Next::Empty,
        }
    }

    /// Remembers the panic that ends the listener's task.
    pub(crate) fn set_panic(&self, panic: String) {
        self.lock().panic = Some(panic);
    }

    pub(crate) fn panic(&self) -> Option<String> {
        self.lock().panic.clone()
    }

    /// Ends the stream. Leases that were not taken are dropped and so released.
    pub(crate) fn close(&self) {
        let mut state = self.lock();
        state.closed = true;
        let unread = std::mem::take(&mut state.leases);
        let reader = state.reader.take();
        drop(state);
        drop(unread);
        if let Some(reader) = reader {
            reader.wake();
        }
    }
}
