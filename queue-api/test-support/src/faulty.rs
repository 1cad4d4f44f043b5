//! A backend that counts its calls, and fails or hangs on demand.

use std::{
    collections::HashSet,
    sync::{Arc, Mutex},
    time::Duration,
};

use queue_api::{Error, ErrorKind, QueueBackend, QueueName, Result, async_trait};
use tokio::sync::watch;

use crate::{Delegate, Delegated, Operation};

/// How a call fails.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// It fails and has no effect.
    Before(ErrorKind),
    /// It takes effect, and then fails.
    After(ErrorKind),
    /// It panics and has no effect.
    Panics,
    /// A wait that returns at once.
    NoWait,
}

#[derive(Debug)]
struct Planned {
    operation: Operation,
    fault: Fault,
    once: bool,
}

#[derive(Debug, PartialEq, Eq, Hash)]
enum Hang {
    /// Calls of every kind hang and have no effect.
    Calls,
    /// Calls of one kind take effect and hang.
    Answers(Operation),
}

/// Forwards to another backend, counts the calls, and injects faults.
#[derive(Debug)]
pub struct Faulty {
    inner: Arc<dyn QueueBackend>,
    calls: Mutex<Vec<(Operation, usize)>>,
    faults: Mutex<Vec<Planned>>,
    hanging: watch::Sender<HashSet<Hang>>,
}

impl Faulty {
    /// Forwards to `inner`, without faults.
    pub fn new(inner: Arc<dyn QueueBackend>) -> Arc<Delegated<Self>> {
        Arc::new(Delegated(Self {
            inner,
            calls: Mutex::default(),
            faults: Mutex::default(),
            hanging: watch::Sender::default(),
        }))
    }

    /// Each call of this kind fails until [`clear`](Faulty::clear).
    pub fn fault(&self, operation: Operation, fault: Fault) {
        self.plan(operation, fault, false);
    }

    /// The next call of this kind fails.
    pub fn fault_once(&self, operation: Operation, fault: Fault) {
        self.plan(operation, fault, true);
    }

    fn plan(&self, operation: Operation, fault: Fault, once: bool) {
        let planned = Planned {
            operation,
            fault,
            once,
        };
        self.faults.lock().unwrap().push(planned);
    }

    /// Each call that a consumer makes fails until [`clear`](Faulty::clear).
    pub fn go_down(&self) {
        use Operation::{Ack, Change, Lease, Wait};
        for operation in [Lease, Ack, Change, Wait] {
            self.fault(operation, Fault::Before(ErrorKind::Unavailable));
        }
    }

    /// Ends all faults.
    pub fn clear(&self) {
        self.faults.lock().unwrap().clear();
    }

    /// Calls hang before they take effect, until [`release`](Faulty::release).
    pub fn hold_calls(&self) {
        self.hanging.send_modify(|all| _ = all.insert(Hang::Calls));
    }

    /// Calls of this kind hang after they took effect, until released.
    pub fn hold_answers(&self, operation: Operation) {
        let hang = Hang::Answers(operation);
        self.hanging.send_modify(|all| _ = all.insert(hang));
    }

    /// Ends [`hold_answers`](Faulty::hold_answers) for one kind of call.
    pub fn release_answers(&self, operation: Operation) {
        let hang = Hang::Answers(operation);
        self.hanging.send_modify(|all| _ = all.remove(&hang));
    }

    /// Lets every call that hangs go on.
    pub fn release(&self) {
        self.hanging.send_modify(HashSet::clear);
    }

    /// The sizes of the calls of one kind so far.
    pub fn calls(&self, operation: Operation) -> Vec<usize> {
        let calls = self.calls.lock().unwrap();
        let of_kind = calls.iter().filter(|(kind, _)| *kind == operation);
        of_kind.map(|(_, size)| *size).collect()
    }

    fn take_fault(&self, operation: Operation) -> Option<Fault> {
        let mut faults = self.faults.lock().unwrap();
        let index = faults.iter().position(|one| one.operation == operation)?;
        let fault = faults[index].fault;
        if faults[index].once {
            faults.remove(index);
        }
        Some(fault)
    }

    async fn released(&self, hang: Hang) {
        let mut hanging = self.hanging.subscribe();
        let released = hanging.wait_for(|all| !all.contains(&hang)).await;
        released.expect("self owns the sender");
    }
}

#[async_trait]
impl Delegate for Faulty {
    type Inner = dyn QueueBackend;

    fn inner(&self) -> &dyn QueueBackend {
        &*self.inner
    }

    async fn around<T: Send>(
        &self,
        operation: Operation,
        size: usize,
        call: impl Future<Output = Result<T>> + Send,
    ) -> Result<T> {
        self.calls.lock().unwrap().push((operation, size));
        let failed = |kind| Err(Error::new(kind, "test", "a fault of the test"));
        let fault = self.take_fault(operation);
        match fault {
            Some(Fault::Before(kind)) => return failed(kind),
            Some(Fault::Panics) => panic!("a fault of the test"),
            Some(Fault::After(_) | Fault::NoWait) | None => {}
        }
        self.released(Hang::Calls).await;
        let answer = call.await;
        self.released(Hang::Answers(operation)).await;
        match fault {
            Some(Fault::After(kind)) => failed(kind),
            _ => answer,
        }
    }

    async fn wait(&self, queue: &QueueName, at_most: Duration) -> Result<()> {
        let hurried = |one: &Planned| one.fault == Fault::NoWait;
        let at_most = match self.faults.lock().unwrap().iter().any(hurried) {
            true => Duration::ZERO,
            false => at_most,
        };
        let call = self.inner.wait(queue, at_most);
        self.around(Operation::Wait, 0, call).await
    }
}
