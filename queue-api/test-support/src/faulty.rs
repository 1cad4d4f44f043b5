//! A backend that counts its calls, and fails or hangs on demand.

use std::{
    collections::HashSet,
    future::pending,
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use queue_api::{
    Delivery, Error, ErrorKind, LeaseChange, LeaseOptions, LeaseOutcome, QueueBackend, QueueName,
    Receipt, Result, async_trait,
};
use tokio::sync::watch;

use crate::{Answer, Delegate, Delegated, Operation};

/// How a call fails.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// It fails and has no effect.
    Before(ErrorKind),
    /// It takes effect, and then fails.
    After(ErrorKind),
    /// It panics and has no effect.
    Panics,
    /// It takes effect, and then panics.
    PanicsAfter,
    /// It never answers and has no effect.
    Hangs,
    /// It takes effect and never answers.
    HangsAfter,
    /// Its answer lacks the last item.
    TooFew,
    /// Its answer has an item too many. A lease call leases it too.
    TooMany,
    /// A wait that returns at once.
    NoWait,
}

#[derive(Debug)]
struct Planned {
    operation: Operation,
    fault: Fault,
    /// How many calls go well before.
    skip: usize,
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
    refused: Mutex<Option<(Receipt, ErrorKind)>>,
    met: AtomicUsize,
    hanging: watch::Sender<HashSet<Hang>>,
}

impl Faulty {
    /// Forwards to `inner`, without faults.
    pub fn new(inner: Arc<dyn QueueBackend>) -> Arc<Delegated<Self>> {
        Arc::new(Delegated(Self {
            inner,
            calls: Mutex::default(),
            faults: Mutex::default(),
            refused: Mutex::default(),
            met: AtomicUsize::new(0),
            hanging: watch::Sender::default(),
        }))
    }

    /// Each call of this kind fails until [`clear`](Faulty::clear).
    pub fn fault(&self, operation: Operation, fault: Fault) {
        self.plan(operation, fault, 0, false);
    }

    /// The next call of this kind fails.
    pub fn fault_once(&self, operation: Operation, fault: Fault) {
        self.plan(operation, fault, 0, true);
    }

    /// After `skip` calls of this kind, the next one fails: `once`, or each until
    /// [`clear`](Faulty::clear).
    pub fn plan(&self, operation: Operation, fault: Fault, skip: usize, once: bool) {
        let planned = Planned {
            operation,
            fault,
            skip,
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

    /// Each ack or change with this receipt fails as a whole and has no effect, until
    /// [`clear`](Faulty::clear).
    pub fn refuse(&self, receipt: &Receipt, kind: ErrorKind) {
        *self.refused.lock().unwrap() = Some((receipt.clone(), kind));
    }

    /// Ends all faults.
    pub fn clear(&self) {
        self.faults.lock().unwrap().clear();
        *self.refused.lock().unwrap() = None;
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

    /// How many calls have met a fault.
    pub fn met(&self) -> usize {
        self.met.load(Ordering::Relaxed)
    }

    fn take_fault(&self, operation: Operation) -> Option<Fault> {
        let mut faults = self.faults.lock().unwrap();
        let index = faults.iter().position(|one| one.operation == operation)?;
        let planned = &mut faults[index];
        if planned.skip > 0 {
            planned.skip -= 1;
            return None;
        }
        let fault = planned.fault;
        if planned.once {
            faults.remove(index);
        }
        self.met.fetch_add(1, Ordering::Relaxed);
        Some(fault)
    }

    /// Whether the next call of this kind meets this fault.
    fn is_next(&self, operation: Operation, fault: Fault) -> bool {
        let faults = self.faults.lock().unwrap();
        let next = faults.iter().find(|one| one.operation == operation);
        next.is_some_and(|one| one.fault == fault && one.skip == 0)
    }

    /// An answer without items cannot have too few: the fault meets the next call.
    fn put_back(&self, operation: Operation, fault: Fault) {
        self.met.fetch_sub(1, Ordering::Relaxed);
        let is_planned = |one: &Planned| (one.operation, one.fault) == (operation, fault);
        if !self.faults.lock().unwrap().iter().any(is_planned) {
            self.plan(operation, fault, 0, true);
        }
    }

    fn check_receipts<'a>(&self, mut receipts: impl Iterator<Item = &'a Receipt>) -> Result<()> {
        match &*self.refused.lock().unwrap() {
            Some((refused, kind)) if receipts.any(|receipt| receipt == refused) => {
                Err(Error::new(*kind, "test", "a receipt that the test refuses"))
            }
            _ => Ok(()),
        }
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

    async fn around<T: Answer>(
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
            Some(Fault::Hangs) => return pending().await,
            _ => {}
        }
        self.released(Hang::Calls).await;
        let mut answer = call.await;
        self.released(Hang::Answers(operation)).await;
        let has_items = match (fault, &mut answer) {
            (Some(Fault::After(kind)), _) => return failed(kind),
            (Some(Fault::PanicsAfter), _) => panic!("a fault of the test"),
            (Some(Fault::HangsAfter), _) => return pending().await,
            (Some(Fault::TooFew), Ok(items)) => items.remove_last(),
            // A lease call has leased one too many already.
            (Some(Fault::TooMany), Ok(items)) if operation != Operation::Lease => {
                items.repeat_last()
            }
            _ => true,
        };
        if let Some(fault) = fault
            && !has_items
        {
            self.put_back(operation, fault);
        }
        answer
    }

    async fn lease(&self, queue: &QueueName, options: &LeaseOptions) -> Result<Vec<Delivery>> {
        let max = options.max_messages();
        let one_more = self.is_next(Operation::Lease, Fault::TooMany);
        let asked = options
            .clone()
            .with_max_messages(max + usize::from(one_more));
        let call = self.inner.lease(queue, &asked);
        let answer = self.around(Operation::Lease, max, call).await;
        if one_more && answer.as_ref().is_ok_and(|leased| leased.len() <= max) {
            self.put_back(Operation::Lease, Fault::TooMany);
        }
        answer
    }

    async fn ack(&self, queue: &QueueName, receipts: &[Receipt]) -> Result<Vec<LeaseOutcome>> {
        let checked = self.check_receipts(receipts.iter());
        let call = async {
            checked?;
            self.inner.ack(queue, receipts).await
        };
        self.around(Operation::Ack, receipts.len(), call).await
    }

    async fn change(&self, queue: &QueueName, all: &[LeaseChange]) -> Result<Vec<LeaseOutcome>> {
        let checked = self.check_receipts(all.iter().map(|change| &change.receipt));
        let call = async {
            checked?;
            self.inner.change(queue, all).await
        };
        self.around(Operation::Change, all.len(), call).await
    }

    async fn wait(&self, queue: &QueueName, at_most: Duration) -> Result<()> {
        let at_most = match self.is_next(Operation::Wait, Fault::NoWait) {
            true => Duration::ZERO,
            false => at_most,
        };
        let call = self.inner.wait(queue, at_most);
        self.around(Operation::Wait, 0, call).await
    }
}
