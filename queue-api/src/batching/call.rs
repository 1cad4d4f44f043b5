//! The kinds of calls that are shared: how several are one call of the backend, and what each is
//! told of its answer.

use std::{borrow::Cow, future::Future, time::Duration};

use super::{
    Shared,
    batch_queue::{BatchQueues, Target, Weight},
    caller::Caller,
};
use crate::{
    EnqueueOutcome, LeaseChange, LeaseOutcome, NewMessage, Receipt, Result, queue::counted,
};

/// What a caller asks for. Calls of one kind can be made together.
pub(super) trait Call: Sized + Send + Sync + 'static {
    const OPERATION: &'static str;

    type Answer: Send + 'static;

    /// The queues in which calls of this kind gather.
    fn queues(shared: &Shared) -> &BatchQueues<Self>;

    /// What the callers of a shared call have to agree on, besides the queue.
    fn visibility_timeout(&self) -> Option<Duration>;

    /// What it adds to a batch.
    fn weight(&self) -> Weight;

    /// Waits for a call of another kind whose callers are likely to join this one, and says
    /// whether there was any.
    fn after_others(target: &Target) -> impl Future<Output = bool> + Send;

    /// Makes the calls of all callers in one, and gives each its part of the answer, in order.
    fn make(
        target: &Target,
        callers: &[Caller<Self>],
    ) -> impl Future<Output = Result<Vec<Self::Answer>>> + Send;

    /// Whether an answer tells the truth although an earlier attempt may have been carried out:
    /// what that has stored or settled is found stored or settled.
    fn is_certain(answer: &Self::Answer) -> bool;
}

impl Call for Vec<NewMessage> {
    const OPERATION: &'static str = "enqueue";
    type Answer = Vec<EnqueueOutcome>;

    fn queues(shared: &Shared) -> &BatchQueues<Self> {
        &shared.enqueues
    }

    fn visibility_timeout(&self) -> Option<Duration> {
        None
    }

    fn weight(&self) -> Weight {
        let bytes = |message: &NewMessage| message.payload.len() + message.header_bytes();
        Weight {
            count: self.len(),
            bytes: self.iter().map(bytes).sum(),
        }
    }

    async fn after_others(_: &Target) -> bool {
        false
    }

    async fn make(target: &Target, callers: &[Caller<Self>]) -> Result<Vec<Self::Answer>> {
        let messages = joined(callers);
        let outcomes = target.backend().enqueue(&target.queue, &messages).await?;
        parted(callers, outcomes)
    }

    fn is_certain(answer: &Self::Answer) -> bool {
        answer
            .iter()
            .all(|outcome| *outcome == EnqueueOutcome::Stored)
    }
}

impl Call for Vec<Receipt> {
    const OPERATION: &'static str = "ack";
    type Answer = Vec<LeaseOutcome>;

    fn queues(shared: &Shared) -> &BatchQueues<Self> {
        &shared.acks
    }

    fn visibility_timeout(&self) -> Option<Duration> {
        None
    }

    fn weight(&self) -> Weight {
        Weight::of(self.len())
    }

    async fn after_others(_: &Target) -> bool {
        false
    }

    async fn make(target: &Target, callers: &[Caller<Self>]) -> Result<Vec<Self::Answer>> {
        let receipts = joined(callers);
        let outcomes = target.backend().ack(&target.queue, &receipts).await?;
        parted(callers, outcomes)
    }

    fn is_certain(answer: &Self::Answer) -> bool {
        all_applied(answer)
    }
}

impl Call for Vec<LeaseChange> {
    const OPERATION: &'static str = "change";
    type Answer = Vec<LeaseOutcome>;

    fn queues(shared: &Shared) -> &BatchQueues<Self> {
        &shared.changes
    }

    fn visibility_timeout(&self) -> Option<Duration> {
        None
    }

    fn weight(&self) -> Weight {
        Weight::of(self.len())
    }

    async fn after_others(_: &Target) -> bool {
        false
    }

    async fn make(target: &Target, callers: &[Caller<Self>]) -> Result<Vec<Self::Answer>> {
        let changes = joined(callers);
        let outcomes = target.backend().change(&target.queue, &changes).await?;
        parted(callers, outcomes)
    }

    fn is_certain(answer: &Self::Answer) -> bool {
        all_applied(answer)
    }
}

fn all_applied(answer: &[LeaseOutcome]) -> bool {
    answer
        .iter()
        .all(|outcome| *outcome == LeaseOutcome::Applied)
}

/// The items of all callers, one caller after the other.
fn joined<T: Clone>(callers: &[Caller<Vec<T>>]) -> Cow<'_, [T]>
where
    Vec<T>: Call,
{
    if let [alone] = callers {
        return Cow::Borrowed(&alone.call);
    }
    let items = callers.iter().flat_map(|caller| &caller.call);
    Cow::Owned(items.cloned().collect())
}

/// The outcomes of each caller's items.
fn parted<T, O>(callers: &[Caller<Vec<T>>], outcomes: Vec<O>) -> Result<Vec<Vec<O>>>
where
    Vec<T>: Call,
{
    let asked = callers.iter().map(|caller| caller.call.len()).sum();
    let mut outcomes = counted(Vec::<T>::OPERATION, asked, outcomes)?.into_iter();
    let part = |caller: &Caller<Vec<T>>| outcomes.by_ref().take(caller.call.len()).collect();
    Ok(callers.iter().map(part).collect())
}
