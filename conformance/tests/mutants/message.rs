//! A message as the plain backend stores it.

use std::{
    hash::{DefaultHasher, Hash, Hasher},
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use queue_api::{DeadReason, NewMessage, Receipt};

/// Milliseconds since the Unix epoch.
pub(crate) type Millis = u64;

#[derive(Clone, Debug)]
pub(crate) struct Message {
    pub(crate) sent: NewMessage,
    /// Tells it from every other message that the store has ever held.
    pub(crate) arrival: u64,
    pub(crate) enqueued_at: Millis,
    pub(crate) ready_at: Millis,
    pub(crate) attempts: u32,
    /// The last delivery, until somebody settles it.
    pub(crate) lease: Option<Lease>,
    pub(crate) death: Option<Death>,
    pub(crate) scars: Scars,
}

/// Which of the messages that became ready in the same millisecond comes first. The contract
/// leaves it open, so no check may lean on it.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) enum Ties {
    #[default]
    FirstStored,
    LastStored,
    /// By a hash of the id.
    Hashed,
}

impl Ties {
    pub(crate) fn rank(self, message: &Message) -> u64 {
        match self {
            Self::FirstStored => message.arrival,
            Self::LastStored => u64::MAX - message.arrival,
            Self::Hashed => {
                let mut hasher = DefaultHasher::new();
                message.sent.id.hash(&mut hasher);
                hasher.finish()
            }
        }
    }
}

#[derive(Clone, Debug)]
pub(crate) struct Lease {
    pub(crate) receipt: Receipt,
    pub(crate) begun_at: Millis,
    /// The connection and the lease call that took it.
    pub(crate) connection: u64,
    pub(crate) call: u64,
}

#[derive(Clone, Debug)]
pub(crate) struct Death {
    pub(crate) at: Millis,
    pub(crate) reason: DeadReason,
}

/// How a receipt came to be settled without the message going away.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Settled {
    Nack,
    Release,
    DeadLetter,
    Burial,
}

/// What only a broken backend keeps of a message's past.
#[derive(Clone, Debug, Default)]
pub(crate) struct Scars {
    pub(crate) spent: Option<(Receipt, Settled)>,
    /// The ready time before the last lease.
    pub(crate) was_ready_at: Millis,
    pub(crate) timeout: Option<Duration>,
    pub(crate) extended: bool,
    /// How often it has been delivered since it was stored or redriven.
    pub(crate) deliveries: u32,
    /// Whose lease was the last, settled or not.
    pub(crate) connection: u64,
}

impl Message {
    pub(crate) fn new(sent: NewMessage, arrival: u64, now: Millis, delay: Millis) -> Self {
        Self {
            sent,
            arrival,
            enqueued_at: now,
            ready_at: now + delay,
            attempts: 0,
            lease: None,
            death: None,
            scars: Scars::default(),
        }
    }

    /// Ends the lease, if there is one.
    pub(crate) fn settle(&mut self, how: Settled) {
        if let Some(lease) = self.lease.take() {
            self.scars.spent = Some((lease.receipt, how));
        }
    }

    pub(crate) fn was_settled(&self, receipt: &Receipt, how: Settled) -> bool {
        matches!(&self.scars.spent, Some((spent, by)) if spent == receipt && *by == how)
    }

    pub(crate) fn is_held_by(&self, receipt: &Receipt) -> bool {
        matches!(&self.lease, Some(lease) if lease.receipt == *receipt)
    }
}

pub(crate) fn to_millis(time: SystemTime) -> Millis {
    let since_epoch = time.duration_since(UNIX_EPOCH);
    since_epoch.map_or(0, |since| since.as_millis() as Millis)
}

pub(crate) fn to_time(millis: Millis) -> SystemTime {
    UNIX_EPOCH + Duration::from_millis(millis)
}
