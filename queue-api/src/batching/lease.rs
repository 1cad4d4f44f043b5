//! Leases for several callers in one.

use std::{mem, time::Duration};

use tokio::runtime::Handle;

use super::{
    Shared,
    batch_queue::{BatchQueues, Target, Weight},
    call::Call,
    caller::Caller,
};
use crate::{Delivery, LeaseChange, LeaseOptions, Result};

/// Messages on their way to the caller for whom they were leased. What nobody takes is given
/// back, so that it need not wait for a visibility timeout that nobody works in.
#[derive(Debug)]
pub(super) struct Given {
    deliveries: Vec<Delivery>,
    target: Target,
    /// The drop may happen on any thread, and has to find a runtime.
    runtime: Handle,
}

impl Given {
    pub(super) fn taken(mut self) -> Vec<Delivery> {
        mem::take(&mut self.deliveries)
    }
}

impl Drop for Given {
    fn drop(&mut self) {
        let receipts = self.deliveries.drain(..).map(|delivery| delivery.receipt);
        let returns: Vec<_> = receipts.map(LeaseChange::release).collect();
        if !returns.is_empty() {
            let _in_runtime = self.runtime.enter();
            self.target.join(Caller::nobody(returns));
        }
    }
}

impl Call for LeaseOptions {
    const OPERATION: &'static str = "lease";
    type Answer = Given;

    fn queues(shared: &Shared) -> &BatchQueues<Self> {
        &shared.leases
    }

    fn visibility_timeout(&self) -> Option<Duration> {
        LeaseOptions::visibility_timeout(self)
    }

    fn weight(&self) -> Weight {
        Weight::of(self.max_messages())
    }

    async fn after_others(target: &Target) -> bool {
        target.acks_landed().await
    }

    async fn make(target: &Target, callers: &[Caller<Self>]) -> Result<Vec<Self::Answer>> {
        let Some(first) = callers.first() else {
            return Ok(Vec::new());
        };
        let asked = callers.iter().map(|caller| caller.call.max_messages());
        let options = first.call.clone().with_max_messages(asked.sum());
        let deliveries = target.backend().lease(&target.queue, &options).await?;
        let given = |deliveries| Given {
            deliveries,
            target: target.clone(),
            runtime: Handle::current(),
        };
        Ok(dealt(callers, deliveries).into_iter().map(given).collect())
    }

    /// A delivery is one, whatever was leased by an attempt before.
    fn is_certain(_: &Self::Answer) -> bool {
        true
    }
}

/// What each caller is given: first those who wait, in the order in which they came. What those
/// who are gone are given comes back from them.
fn dealt(callers: &[Caller<LeaseOptions>], deliveries: Vec<Delivery>) -> Vec<Vec<Delivery>> {
    let mut left = deliveries.into_iter();
    let mut hands: Vec<_> = callers.iter().map(|_| Vec::new()).collect();
    let (gone, waiting): (Vec<usize>, Vec<usize>) =
        (0..callers.len()).partition(|&index| callers[index].is_gone());
    for index in waiting.into_iter().chain(gone) {
        let asked = callers[index].call.max_messages();
        hands[index].extend(left.by_ref().take(asked));
    }
    // More than was asked for is a backend's mistake, which its caller has to see all the same.
    if let Some(last) = hands.last_mut() {
        last.extend(left);
    }
    hands
}
