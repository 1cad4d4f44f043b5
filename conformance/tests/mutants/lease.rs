//! Leases: what a lease call meets, what it gives, and what it buries on the way.

use std::{sync::atomic::Ordering, time::Duration};

use queue_api::{Bytes, DeadReason, Delivery, LeaseOptions, MessageId, QueueName, Receipt};

use crate::{
    bug::Bug,
    message::{Death, Lease, Message, Millis, Settled, to_time},
    state::{Caller, State},
};

impl State {
    /// The messages that a lease call meets, in order.
    pub(crate) fn met(
        &self,
        queue: &QueueName,
        options: &LeaseOptions,
        now: Millis,
        caller: &Caller,
    ) -> Vec<u64> {
        let seen = |message: &&Message| {
            let elsewhere = |lease: &Lease| lease.connection != caller.connection;
            let free =
                self.has(Bug::LeasesOfConnection) && message.lease.as_ref().is_some_and(elsewhere);
            let revived = self.has(Bug::RejectedComesBack) && message.ready_at <= now;
            free || revived || self.is_ready(message, now)
        };
        let mut met: Vec<_> = self.messages(queue).iter().filter(seen).collect();
        met.sort_by_key(|message| (message.ready_at, self.ties.rank(message)));
        match self.bug {
            Some(Bug::NewestFirst) => met.reverse(),
            Some(Bug::OrderOfEnqueue) => met.sort_by_key(|message| message.enqueued_at),
            Some(Bug::OrderOfId) => met.sort_by_key(|message| &message.sent.id),
            Some(Bug::ExhaustedHidesTheRest) => met.truncate(options.max_messages()),
            _ => {}
        }
        met.into_iter().map(|message| message.arrival).collect()
    }

    /// Leases as many of the messages met as were asked for and buries the exhausted ones
    /// among them.
    pub(crate) fn lease(
        &mut self,
        queue: &QueueName,
        met: &[u64],
        options: &LeaseOptions,
        now: Millis,
        caller: &Caller,
    ) -> Vec<Delivery> {
        let asked = self.asked(options.max_messages(), met.len());
        let timeout = self.timeout_for_all(queue, met, options);
        let call = self.number();
        let mut deliveries = Vec::new();
        for arrival in met {
            let enough = deliveries.len() >= asked;
            if enough && !self.has(Bug::BuryingGoesOn) {
                break;
            }
            // It is there, unless the caller found it under an earlier lock.
            let Some(message) = self.message(queue, *arrival).cloned() else {
                continue;
            };
            if self.is_exhausted(&message) {
                self.bury_exhausted(queue, &message, now);
            } else if !enough {
                deliveries.push(self.deliver(queue, message, timeout, call, now, caller));
            }
        }
        if self.has(Bug::AnswerTooLarge) {
            let mut size = 0;
            deliveries.retain(|delivery| {
                size += delivery.payload.len();
                size <= 1 << 20
            });
        }
        if self.has(Bug::AnswerSortedById) {
            deliveries.sort_by(|a, b| a.id.cmp(&b.id));
        }
        deliveries
    }

    fn asked(&self, asked: usize, ready: usize) -> usize {
        match self.bug {
            Some(Bug::OneMoreThanAsked) if asked > 0 => asked + 1,
            Some(Bug::OneLessThanReady) if asked > 1 && ready > 1 => asked.min(ready) - 1,
            Some(Bug::AtMostTen) => asked.min(10),
            Some(Bug::FirstPageOnly) => asked.min(101),
            Some(Bug::NothingIsOne) => asked.max(1),
            Some(Bug::NothingIsAll) if asked == 0 => usize::MAX,
            _ => asked,
        }
    }

    /// The timeout that replaces the messages' own.
    fn timeout_for_all(
        &self,
        queue: &QueueName,
        met: &[u64],
        options: &LeaseOptions,
    ) -> Option<Duration> {
        let mut messages = self.messages(queue).iter();
        match self.bug {
            Some(Bug::OverrideIgnored) => None,
            Some(Bug::TimeoutOfFirstForBatch) => {
                let first = messages.find(|message| Some(&message.arrival) == met.first());
                let own = first.map(|message| message.sent.visibility_timeout);
                options.visibility_timeout().or(own)
            }
            _ => options.visibility_timeout(),
        }
    }

    fn timeout(&self, message: &Message, for_all: Option<Duration>) -> Millis {
        let own = message.sent.visibility_timeout;
        self.millis(match (self.bug, for_all) {
            (Some(Bug::OverrideRemembered), None) => message.scars.timeout.unwrap_or(own),
            (Some(Bug::OverrideCannotLengthen), Some(timeout)) => timeout.min(own),
            _ => for_all.unwrap_or(own),
        })
    }

    fn is_exhausted(&self, message: &Message) -> bool {
        let most = message.sent.max_attempts;
        match self.bug {
            Some(Bug::NeverExhausted) => false,
            Some(Bug::MaxAttemptsAsI32) => message.attempts as i32 >= most as i32,
            Some(Bug::OneAttemptTooMany) => message.attempts > most,
            // At least one delivery there is, or this would be another bug.
            Some(Bug::OneAttemptTooFew) => message.attempts >= most.max(2) - 1,
            _ => message.attempts >= most,
        }
    }

    fn bury_exhausted(&mut self, queue: &QueueName, message: &Message, now: Millis) {
        match self.bug {
            Some(Bug::ExhaustedIsPassedOver) => {}
            Some(Bug::ExhaustedIsDeleted) => drop(self.remove(queue, message.arrival)),
            Some(Bug::DeadSinceExpiry) => {
                let reason = DeadReason::AttemptsExhausted;
                self.bury(
                    queue,
                    message.arrival,
                    message.ready_at,
                    reason,
                    Settled::Burial,
                );
            }
            _ => {
                let reason = DeadReason::AttemptsExhausted;
                self.bury(queue, message.arrival, now, reason, Settled::Burial);
            }
        }
    }

    /// Makes a dead letter of a message.
    pub(crate) fn bury(
        &mut self,
        queue: &QueueName,
        arrival: u64,
        at: Millis,
        reason: DeadReason,
        how: Settled,
    ) {
        let bug = self.bug;
        let message = self.message(queue, arrival).expect("it was found");
        message.settle(how);
        message.death = Some(Death { at, reason });
        match bug {
            Some(Bug::DeadLosesPayload) => message.sent.payload = Bytes::new(),
            Some(Bug::DeadLosesHeaders) => message.sent.headers.clear(),
            Some(Bug::DeadLosesAttempts) => message.attempts = 0,
            Some(Bug::DeadEnqueuedWhenBuried) => message.enqueued_at = at,
            _ => {}
        }
    }

    fn deliver(
        &mut self,
        queue: &QueueName,
        mut message: Message,
        timeout: Option<Duration>,
        call: u64,
        now: Millis,
        caller: &Caller,
    ) -> Delivery {
        self.count_attempt(&mut message, caller);
        let expires_at = now + self.timeout(&message, timeout);
        message.scars.was_ready_at = message.ready_at;
        message.scars.timeout = timeout.or(message.scars.timeout);
        message.scars.connection = caller.connection;
        message.scars.extended = false;
        message.scars.deliveries += 1;
        message.ready_at = match self.bug {
            Some(Bug::OverrideOnlyReported) => now + self.timeout(&message, None),
            _ => expires_at,
        };
        let receipt = self.new_receipt(&message, call, caller);
        message.lease = Some(Lease {
            receipt: receipt.clone(),
            begun_at: now,
            connection: caller.connection,
            call,
        });
        message.death = None;
        let delivery = Delivery {
            id: message.sent.id.clone(),
            payload: message.sent.payload.clone(),
            headers: message.sent.headers.clone(),
            attempt: message.attempts - u32::from(self.has(Bug::AttemptsFromZero)),
            enqueued_at: to_time(match self.bug {
                Some(Bug::EnqueuedAtIsDeliveryTime) => now,
                _ => message.enqueued_at,
            }),
            max_attempts: match self.bug {
                Some(Bug::MaxAttemptsNotTold) => u32::MAX,
                _ => message.sent.max_attempts,
            },
            visibility_timeout: match self.bug {
                Some(Bug::OverrideNotTold) => message.sent.visibility_timeout,
                _ => Duration::from_millis(expires_at - now),
            },
            lease_expires_at: to_time(expires_at),
            receipt,
        };
        if self.has(Bug::PayloadGivenOnce) {
            message.sent.payload = Bytes::new();
        }
        let place = self.message(queue, message.arrival);
        *place.expect("it was found") = message;
        delivery
    }

    fn count_attempt(&self, message: &mut Message, caller: &Caller) {
        let expired = message.lease.is_some();
        match self.bug {
            Some(Bug::AttemptsNotCounted) => message.attempts = 1,
            Some(Bug::OnlyNackCounts) if expired => {}
            Some(Bug::AttemptsOfConnection) if message.scars.connection != caller.connection => {
                message.attempts = 1;
            }
            _ => message.attempts += 1,
        }
    }

    fn new_receipt(&self, message: &Message, call: u64, caller: &Caller) -> Receipt {
        let (id, arrival) = (&message.sent.id, message.arrival);
        Receipt::new(match self.bug {
            Some(Bug::ReceiptReused) => receipt_text(arrival, id),
            Some(Bug::OneReceiptPerCall) => call.to_string(),
            Some(Bug::ReceiptIsBinary) => format!("{}-{id}\u{1}", self.number()),
            Some(Bug::ReceiptIsTheAttempt) => format!("{arrival}.{}-{id}", message.attempts),
            Some(Bug::ReceiptRestartsWithRedrive) => {
                format!("{arrival}.{}-{id}", message.scars.deliveries)
            }
            Some(Bug::ReceiptsCountedByConnection) => {
                receipt_text(caller.receipts.fetch_add(1, Ordering::Relaxed), id)
            }
            _ => receipt_text(self.number(), id),
        })
    }
}

fn receipt_text(number: u64, id: &MessageId) -> String {
    format!("{number}-{id}")
}

/// The id in a receipt: what a backend has that does not look at the rest.
pub(crate) fn id_in(receipt: &Receipt) -> Option<&str> {
    let (_, id) = receipt.as_str().split_once('-')?;
    Some(id)
}
