//! What a random history is made of.
//!
//! The domains are tiny on purpose: five ids in two queues and times of a few milliseconds, so
//! that duplicates, expiries and stale receipts are the rule and boundaries are hit exactly.

use proptest::{collection::vec, option, prelude::*, sample::Index, sample::select};
use queue_api::Purge;

use crate::harness::Capability;

#[derive(Clone, Debug)]
pub(crate) enum Command {
    Enqueue {
        queue: usize,
        messages: Vec<MessageSpec>,
    },
    Lease {
        queue: usize,
        max: usize,
        visibility: Option<u64>,
    },
    Ack {
        queue: usize,
        picks: Vec<ReceiptPick>,
    },
    Change {
        queue: usize,
        changes: Vec<(ReceiptPick, Action)>,
    },
    /// Lets so many milliseconds pass.
    Pass(u64),
    /// Goes on over a new connection.
    Reconnect,
    Peek {
        queue: usize,
        max: usize,
    },
    Purge {
        queue: usize,
        what: Purge,
    },
    /// Redrives the dead letters with these ids, or all where there are none.
    Redrive {
        queue: usize,
        ids: Vec<usize>,
    },
    Delete {
        queue: usize,
    },
}

/// A message to be enqueued.
#[derive(Clone, Debug)]
pub(crate) struct MessageSpec {
    pub(crate) id: usize,
    /// What tells two messages of the same id apart.
    pub(crate) payload: u16,
    pub(crate) delay: u64,
    pub(crate) visibility: u64,
    pub(crate) max_attempts: u32,
}

/// A receipt to be used, if the queue has given out any.
#[derive(Clone, Debug)]
pub(crate) enum ReceiptPick {
    /// One of those that were given out last: likely to be live.
    Recent(Index),
    /// Any that was ever given out: likely to be stale.
    Any(Index),
    /// One of the other queue's.
    Stranger(Index),
}

#[derive(Clone, Copy, Debug)]
pub(crate) enum Action {
    Extend(u64),
    Nack(u64),
    Release,
    DeadLetter,
}

/// How many queues a history works on.
pub(crate) const QUEUES: usize = 2;

/// How many ids a queue can hold.
pub(crate) const IDS: usize = 5;

/// Programs for a backend with the `capabilities`.
pub(crate) fn histories(
    capabilities: &[Capability],
) -> impl Strategy<Value = Vec<Command>> + use<> {
    let command = if capabilities.contains(&Capability::Admin) {
        // Without an admin nobody can tell which of two messages of one millisecond was buried,
        // so there attempts do not run out.
        prop_oneof![8 => core(vec![1, 2, 3, 100]), 1 => admin()].boxed()
    } else {
        core(vec![100]).boxed()
    };
    vec(command, 1..40)
}

/// Most of the work is on the first queue, so that something happens to it.
fn queue() -> impl Strategy<Value = usize> {
    prop_oneof![4 => Just(0), 1 => Just(1)]
}

fn core(max_attempts: Vec<u32>) -> impl Strategy<Value = Command> {
    prop_oneof![
        6 => (queue(), vec(message_spec(max_attempts), 1..4))
            .prop_map(|(queue, messages)| Command::Enqueue { queue, messages }),
        8 => (queue(), 1..4_usize, option::weighted(0.3, millis(1)))
            .prop_map(|(queue, max, visibility)| Command::Lease { queue, max, visibility }),
        4 => (queue(), vec(pick(), 1..4)).prop_map(|(queue, picks)| Command::Ack { queue, picks }),
        6 => (queue(), vec((pick(), action()), 1..4))
            .prop_map(|(queue, changes)| Command::Change { queue, changes }),
        7 => select(vec![1, 4, 5, 6, 9, 10, 11, 19, 20, 50]).prop_map(Command::Pass),
        1 => Just(Command::Reconnect),
    ]
}

fn admin() -> impl Strategy<Value = Command> {
    prop_oneof![
        1 => (queue(), 0..6_usize).prop_map(|(queue, max)| Command::Peek { queue, max }),
        1 => (queue(), select(vec![Purge::Live, Purge::Dead]))
            .prop_map(|(queue, what)| Command::Purge { queue, what }),
        2 => (queue(), vec(0..IDS, 0..3)).prop_map(|(queue, ids)| Command::Redrive { queue, ids }),
        1 => queue().prop_map(|queue| Command::Delete { queue }),
    ]
}

fn message_spec(max_attempts: Vec<u32>) -> impl Strategy<Value = MessageSpec> {
    let delay = prop_oneof![3 => Just(0), 2 => millis(1)];
    (0..IDS, any::<u16>(), delay, millis(1), select(max_attempts)).prop_map(
        |(id, payload, delay, visibility, max_attempts)| MessageSpec {
            id,
            payload,
            delay,
            visibility,
            max_attempts,
        },
    )
}

fn pick() -> impl Strategy<Value = ReceiptPick> {
    prop_oneof![
        6 => any::<Index>().prop_map(ReceiptPick::Recent),
        3 => any::<Index>().prop_map(ReceiptPick::Any),
        1 => any::<Index>().prop_map(ReceiptPick::Stranger),
    ]
}

fn action() -> impl Strategy<Value = Action> {
    prop_oneof![
        millis(1).prop_map(Action::Extend),
        millis(0).prop_map(Action::Nack),
        Just(Action::Release),
        Just(Action::DeadLetter),
    ]
}

/// Durations that fall together with each other and with the steps of time.
fn millis(least: u64) -> impl Strategy<Value = u64> {
    select(vec![least, 5, 10, 20])
}
