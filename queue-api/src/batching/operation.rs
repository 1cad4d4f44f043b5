//! How the calls of several callers become one call of the backend.

use std::{borrow::Cow, future::Future, time::Duration};

use super::caller::Caller;
use crate::{
    EnqueueOutcome, LeaseChange, LeaseOutcome, NewMessage, QueueBackend, QueueName, Receipt,
    Result, queue::counted,
};

pub(super) type CallerOf<O> = Caller<<O as Operation>::Request, <O as Operation>::Answer>;

/// A kind of backend call that callers can share.
pub(super) trait Operation: Send + Sync + 'static {
    const NAME: &'static str;

    type Request: Send + Sync + 'static;
    type Answer: Send + 'static;

    fn weight(request: &Self::Request) -> Weight;

    /// Only requests with an equal timeout share a call.
    fn visibility_timeout(_: &Self::Request) -> Option<Duration> {
        None
    }

    /// Waits for a call whose callers are likely to join this one. Returns how many these are.
    fn wait_for_related(&self, _queue: &QueueName) -> impl Future<Output = usize> + Send {
        async { 0 }
    }

    /// Makes one call. Returns each caller's answer, in order.
    fn call(
        &self,
        backend: &dyn QueueBackend,
        queue: &QueueName,
        callers: &[CallerOf<Self>],
    ) -> impl Future<Output = Result<Vec<Self::Answer>>> + Send;

    /// Whether the answer is true even if an earlier attempt took effect. `Duplicate` and `Lost`
    /// are not: the earlier attempt may have caused them.
    fn is_certain(answer: &Self::Answer) -> bool;
}

/// What a request adds to a batch.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Weight {
    pub(super) count: usize,
    pub(super) bytes: usize,
}

impl Weight {
    /// Receipts and changes count, but hardly have a size.
    pub(super) fn of(count: usize) -> Self {
        Self { count, bytes: 0 }
    }
}

pub(super) struct Enqueue;
pub(super) struct Ack;
pub(super) struct Change;

impl Operation for Enqueue {
    const NAME: &'static str = "enqueue";
    type Request = Vec<NewMessage>;
    type Answer = Vec<EnqueueOutcome>;

    fn weight(messages: &Vec<NewMessage>) -> Weight {
        let bytes = |message: &NewMessage| message.payload.len() + message.header_bytes();
        Weight {
            count: messages.len(),
            bytes: messages.iter().map(bytes).sum(),
        }
    }

    async fn call(
        &self,
        backend: &dyn QueueBackend,
        queue: &QueueName,
        callers: &[CallerOf<Self>],
    ) -> Result<Vec<Self::Answer>> {
        let outcomes = backend.enqueue(queue, &joined(callers)).await?;
        split(Self::NAME, callers, outcomes)
    }

    fn is_certain(answer: &Self::Answer) -> bool {
        answer.iter().all(|one| *one == EnqueueOutcome::Stored)
    }
}

impl Operation for Ack {
    const NAME: &'static str = "ack";
    type Request = Vec<Receipt>;
    type Answer = Vec<LeaseOutcome>;

    fn weight(receipts: &Vec<Receipt>) -> Weight {
        Weight::of(receipts.len())
    }

    async fn call(
        &self,
        backend: &dyn QueueBackend,
        queue: &QueueName,
        callers: &[CallerOf<Self>],
    ) -> Result<Vec<Self::Answer>> {
        let outcomes = backend.ack(queue, &joined(callers)).await?;
        split(Self::NAME, callers, outcomes)
    }

    fn is_certain(answer: &Self::Answer) -> bool {
        answer.iter().all(|one| *one == LeaseOutcome::Applied)
    }
}

impl Operation for Change {
    const NAME: &'static str = "change";
    type Request = Vec<LeaseChange>;
    type Answer = Vec<LeaseOutcome>;

    fn weight(changes: &Vec<LeaseChange>) -> Weight {
        Weight::of(changes.len())
    }

    async fn call(
        &self,
        backend: &dyn QueueBackend,
        queue: &QueueName,
        callers: &[CallerOf<Self>],
    ) -> Result<Vec<Self::Answer>> {
        let outcomes = backend.change(queue, &joined(callers)).await?;
        split(Self::NAME, callers, outcomes)
    }

    fn is_certain(answer: &Self::Answer) -> bool {
        answer.iter().all(|one| *one == LeaseOutcome::Applied)
    }
}

/// The items of all callers, in order.
fn joined<T: Clone, A>(callers: &[Caller<Vec<T>, A>]) -> Cow<'_, [T]> {
    if let [single] = callers {
        return Cow::Borrowed(&single.request);
    }
    let items = callers.iter().flat_map(|caller| &caller.request);
    Cow::Owned(items.cloned().collect())
}

/// Each caller's outcomes.
fn split<T, O>(
    operation: &'static str,
    callers: &[Caller<Vec<T>, Vec<O>>],
    outcomes: Vec<O>,
) -> Result<Vec<Vec<O>>> {
    let lengths = callers.iter().map(|caller| caller.request.len());
    let mut outcomes = counted(operation, lengths.clone().sum(), outcomes)?.into_iter();
    let own = |length| outcomes.by_ref().take(length).collect();
    Ok(lengths.map(own).collect())
}
