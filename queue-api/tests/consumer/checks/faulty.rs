//! A backend that fails, hangs and lies as it is told.

use std::{
    collections::HashSet,
    sync::{Arc, Mutex},
    time::Duration,
};

use queue_api::{
    Delivery, EnqueueOutcome, Error, ErrorKind, LeaseChange, LeaseOptions, LeaseOutcome, Limits,
    NewMessage, QueueBackend, QueueName, QueueStats, Receipt, Result, async_trait,
};
use tokio::sync::watch;

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Call {
    Lease,
    Ack,
    Change,
    Wait,
}

/// The sizes of no calls.
pub(crate) const NONE: [usize; 0] = [];

/// What becomes of a kind of call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fault {
    /// It does nothing and fails.
    Fails(ErrorKind),
    /// It does what it should and fails all the same, once.
    LosesOneAnswer,
    /// It panics.
    Panics,
    /// It answers at once, without having waited.
    Lies,
}

#[derive(Debug)]
pub(crate) struct Faulty {
    inner: Arc<dyn QueueBackend>,
    faults: Mutex<Vec<(Call, Fault)>>,
    calls: Mutex<Vec<(Call, usize)>>,
    /// Calls whose effect takes place and whose answer is held back.
    held: watch::Sender<HashSet<Call>>,
}

impl Faulty {
    pub(crate) fn new(inner: Arc<dyn QueueBackend>) -> Arc<Self> {
        Arc::new(Self {
            inner,
            faults: Mutex::default(),
            calls: Mutex::default(),
            held: watch::Sender::default(),
        })
    }

    pub(crate) fn fault(&self, call: Call, fault: Fault) {
        self.faults.lock().unwrap().push((call, fault));
    }

    pub(crate) fn heal(&self) {
        self.faults.lock().unwrap().clear();
    }

    /// Everything fails.
    pub(crate) fn go_down(&self) {
        for call in [Call::Lease, Call::Ack, Call::Change, Call::Wait] {
            self.fault(call, Fault::Fails(ErrorKind::Unavailable));
        }
    }

    pub(crate) fn hold_answers(&self, call: Call) {
        self.held.send_modify(|held| {
            held.insert(call);
        });
    }

    pub(crate) fn release_answers_to(&self, call: Call) {
        self.held.send_modify(|held| {
            held.remove(&call);
        });
    }

    pub(crate) fn release_answers(&self) {
        self.held.send_modify(HashSet::clear);
    }

    /// The sizes of the calls of one kind so far.
    pub(crate) fn calls(&self, call: Call) -> Vec<usize> {
        let calls = self.calls.lock().unwrap();
        let of_kind = calls.iter().filter(|(kind, _)| *kind == call);
        of_kind.map(|(_, size)| *size).collect()
    }

    fn fault_of(&self, call: Call) -> Option<Fault> {
        let mut faults = self.faults.lock().unwrap();
        let at = faults.iter().position(|(kind, _)| *kind == call)?;
        match faults[at].1 {
            Fault::LosesOneAnswer => Some(faults.remove(at).1),
            other => Some(other),
        }
    }

    async fn run<T>(
        &self,
        call: Call,
        size: usize,
        inner: impl Future<Output = Result<T>>,
    ) -> Result<T> {
        self.calls.lock().unwrap().push((call, size));
        let error = |kind| Err(Error::new(kind, "test", "a fault of the test"));
        let fault = self.fault_of(call);
        match fault {
            Some(Fault::Fails(kind)) => return error(kind),
            Some(Fault::Panics) => panic!("a fault of the test"),
            Some(Fault::LosesOneAnswer | Fault::Lies) | None => {}
        }
        let answer = inner.await;
        let mut held = self.held.subscribe();
        let released = held.wait_for(|held| !held.contains(&call)).await;
        released.expect("self owns the sender");
        match fault {
            Some(Fault::LosesOneAnswer) => error(ErrorKind::TimedOut),
            _ => answer,
        }
    }
}

#[async_trait]
impl QueueBackend for Faulty {
    fn limits(&self) -> Limits {
        self.inner.limits()
    }

    async fn enqueue(
        &self,
        queue: &QueueName,
        messages: &[NewMessage],
    ) -> Result<Vec<EnqueueOutcome>> {
        self.inner.enqueue(queue, messages).await
    }

    async fn lease(&self, queue: &QueueName, options: &LeaseOptions) -> Result<Vec<Delivery>> {
        let asked = options.max_messages();
        self.run(Call::Lease, asked, self.inner.lease(queue, options))
            .await
    }

    async fn ack(&self, queue: &QueueName, receipts: &[Receipt]) -> Result<Vec<LeaseOutcome>> {
        self.run(Call::Ack, receipts.len(), self.inner.ack(queue, receipts))
            .await
    }

    async fn change(
        &self,
        queue: &QueueName,
        changes: &[LeaseChange],
    ) -> Result<Vec<LeaseOutcome>> {
        let size = changes.len();
        self.run(Call::Change, size, self.inner.change(queue, changes))
            .await
    }

    async fn wait(&self, queue: &QueueName, at_most: Duration) -> Result<()> {
        let lies = self
            .faults
            .lock()
            .unwrap()
            .contains(&(Call::Wait, Fault::Lies));
        let waiting = async {
            if lies {
                tokio::task::yield_now().await;
                return Ok(());
            }
            self.inner.wait(queue, at_most).await
        };
        self.run(Call::Wait, 0, waiting).await
    }

    async fn stats(&self, queue: &QueueName) -> Result<QueueStats> {
        self.inner.stats(queue).await
    }
}
