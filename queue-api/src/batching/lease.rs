//! Lease calls of several callers as one call.

use std::{mem, sync::Arc, time::Duration};

use tokio::runtime::Handle;

use super::{
    batch_queue::BatchQueues,
    caller::Caller,
    operation::{Ack, CallerOf, Change, Operation, Weight},
};
use crate::{Delivery, LeaseChange, LeaseOptions, QueueBackend, QueueName, Result};

/// As long as an ack takes on a store that is busy.
const LONGEST_WAIT_FOR_ACKS: Duration = Duration::from_millis(100);

pub(super) struct Lease {
    pub(super) acks: Arc<BatchQueues<Ack>>,
    pub(super) changes: Arc<BatchQueues<Change>>,
}

/// Deliveries on their way to a caller. If the caller was dropped, they are released at once
/// instead of after their visibility timeout.
pub(super) struct ReleaseOnDrop {
    deliveries: Vec<Delivery>,
    queue: QueueName,
    changes: Arc<BatchQueues<Change>>,
    /// The drop may happen on a thread without a runtime.
    runtime: Handle,
}

impl ReleaseOnDrop {
    pub(super) fn take(mut self) -> Vec<Delivery> {
        mem::take(&mut self.deliveries)
    }
}

impl Drop for ReleaseOnDrop {
    fn drop(&mut self) {
        let receipts = self.deliveries.drain(..).map(|delivery| delivery.receipt);
        let releases: Vec<_> = receipts.map(LeaseChange::release).collect();
        if !releases.is_empty() {
            let _in_runtime = self.runtime.enter();
            self.changes.submit(&self.queue, Caller::detached(releases));
        }
    }
}

impl Operation for Lease {
    const NAME: &'static str = "lease";
    type Request = LeaseOptions;
    type Answer = ReleaseOnDrop;

    fn weight(options: &LeaseOptions) -> Weight {
        Weight::of(options.max_messages())
    }

    fn visibility_timeout(options: &LeaseOptions) -> Option<Duration> {
        options.visibility_timeout()
    }

    /// A caller whose ack is answered is likely to lease next. If leases did not wait for acks in
    /// flight, the callers would split into two groups, each with its own round trips. But an ack may
    /// hang, for example because of a transaction that holds the message.
    async fn wait_for_related(&self, queue: &QueueName) -> usize {
        let completed = self.acks.batch_completed(queue);
        let completed = tokio::time::timeout(LONGEST_WAIT_FOR_ACKS, completed).await;
        completed.unwrap_or_default()
    }

    async fn call(
        &self,
        backend: &dyn QueueBackend,
        queue: &QueueName,
        callers: &[CallerOf<Self>],
    ) -> Result<Vec<ReleaseOnDrop>> {
        let Some(first) = callers.first() else {
            return Ok(Vec::new());
        };
        let asked = callers.iter().map(|caller| caller.request.max_messages());
        let options = first.request.clone().with_max_messages(asked.sum());
        let deliveries = backend.lease(queue, &options).await?;
        let answer = |deliveries| ReleaseOnDrop {
            deliveries,
            queue: queue.clone(),
            changes: self.changes.clone(),
            runtime: Handle::current(),
        };
        let shares = distribute(callers, deliveries).into_iter();
        Ok(shares.map(answer).collect())
    }

    /// A delivery is always true, whatever an earlier attempt leased.
    fn is_certain(_: &ReleaseOnDrop) -> bool {
        true
    }
}

/// Each caller's deliveries: first for those that wait, in the order of their calls, then for
/// those that were dropped.
fn distribute(callers: &[CallerOf<Lease>], deliveries: Vec<Delivery>) -> Vec<Vec<Delivery>> {
    let mut left = deliveries.into_iter();
    let mut shares: Vec<_> = callers.iter().map(|_| Vec::new()).collect();
    let (dropped, waiting): (Vec<usize>, Vec<usize>) =
        (0..callers.len()).partition(|&index| callers[index].is_dropped());
    for index in waiting.into_iter().chain(dropped) {
        let asked = callers[index].request.max_messages();
        shares[index].extend(left.by_ref().take(asked));
    }
    // A backend that leases more than was asked for is broken. Do not hide those messages.
    if let Some(last) = shares.last_mut() {
        last.extend(left);
    }
    shares
}
