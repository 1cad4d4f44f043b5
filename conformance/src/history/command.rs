//! The commands of a random history.
//!
//! The domains are tiny on purpose: five ids, two queues and a few milliseconds. So duplicates,
//! expiries and stale receipts are common, and boundaries are hit exactly.

use std::time::Duration;

use proptest::{collection::vec, option, prelude::*, sample::Index, sample::select};
use queue_api::{LeaseAction, Purge};

use crate::{
    fixture::{dead_letter, extend, nack},
    harness::Capability,
};

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
        changes: Vec<(ReceiptPick, LeaseAction)>,
    },
    /// Lets this many milliseconds pass.
    Pass(u64),
    /// Continues on a new connection.
    Reconnect,
    /// Continues on another connection that is still open, or on a new one.
    Use(usize),
    /// Batches the calls of this connection from now on.
    Batch,
    /// Starts waits. They go on until a message is ready, or until `at_most` has passed.
    Wait {
        queue: usize,
        waits: usize,
        at_most: Duration,
        /// Drops the first of them.
        drops_one: bool,
    },
    Peek {
        queue: usize,
        max: usize,
    },
    Purge {
        queue: usize,
        what: Purge,
    },
    /// Redrives the dead letters with these ids, or all if `ids` is empty.
    Redrive {
        queue: usize,
        ids: Vec<usize>,
    },
    Delete {
        queue: usize,
    },
    List,
    /// Lists all dead letters, at most `max` on a page.
    DeadLetters {
        queue: usize,
        max: usize,
    },
    /// Lists all live messages, at most `max` on a page.
    Messages {
        queue: usize,
        max: usize,
    },
}

/// A message to enqueue.
#[derive(Clone, Debug)]
pub(crate) struct MessageSpec {
    pub(crate) id: usize,
    /// Distinguishes messages with the same id.
    pub(crate) payload: u16,
    pub(crate) delay: u64,
    pub(crate) visibility: u64,
    pub(crate) max_attempts: u32,
}

/// The choice of a receipt, if there is one.
#[derive(Clone, Debug)]
pub(crate) enum ReceiptPick {
    /// One of the last receipts of the queue: probably current.
    Recent(Index),
    /// Any receipt of the queue: probably stale.
    Any(Index),
    /// A receipt of the other queue.
    OtherQueue(Index),
    /// A receipt that no backend made.
    MadeUp,
}

/// The number of queues.
pub(crate) const QUEUES: usize = 2;

/// The most connections at a time.
pub(crate) const CONNECTIONS: usize = 4;

/// The number of ids.
pub(crate) const IDS: usize = 5;

/// Histories for a backend with these capabilities.
pub(crate) fn histories(
    capabilities: &[Capability],
) -> impl Strategy<Value = Vec<Command>> + use<> {
    let command = if capabilities.contains(&Capability::Admin) {
        // Only `QueueAdmin` shows which of two messages that became ready in the same millisecond
        // is now a dead letter. So without it, attempts do not run out.
        prop_oneof![5 => core(vec![1, 2, 3, 100]), 1 => admin()].boxed()
    } else {
        core(vec![100]).boxed()
    };
    // Before or after the first messages, and not in every history.
    let batch = option::weighted(0.2, (0..4_usize).prop_map(|at| (at, Command::Batch)));
    (vec(command, 1..40), batch).prop_map(|(mut commands, batch)| {
        if let Some((at, batch)) = batch {
            commands.insert(at.min(commands.len()), batch);
        }
        commands
    })
}

/// Mostly the first queue, so that its messages have long histories.
fn queue() -> impl Strategy<Value = usize> {
    prop_oneof![4 => Just(0), 1 => Just(1)]
}

fn core(max_attempts: Vec<u32>) -> impl Strategy<Value = Command> {
    prop_oneof![
        6 => (queue(), vec(message_spec(max_attempts), 1..4))
            .prop_map(|(queue, messages)| Command::Enqueue { queue, messages }),
        8 => (queue(), 1..4_usize, option::weighted(0.3, millis()))
            .prop_map(|(queue, max, visibility)| Command::Lease { queue, max, visibility }),
        4 => (queue(), vec(pick(), 1..4)).prop_map(|(queue, picks)| Command::Ack { queue, picks }),
        6 => (queue(), vec((pick(), action()), 1..4))
            .prop_map(|(queue, changes)| Command::Change { queue, changes }),
        7 => select(vec![1, 4, 5, 6, 9, 10, 11, 19, 20, 50]).prop_map(Command::Pass),
        1 => Just(Command::Reconnect),
        1 => (0..CONNECTIONS).prop_map(Command::Use),
        1 => wait(),
    ]
}

fn admin() -> impl Strategy<Value = Command> {
    prop_oneof![
        2 => (queue(), 0..6_usize).prop_map(|(queue, max)| Command::Peek { queue, max }),
        2 => (queue(), select(vec![Purge::Live, Purge::Dead]))
            .prop_map(|(queue, what)| Command::Purge { queue, what }),
        4 => (queue(), vec(0..IDS, 0..3)).prop_map(|(queue, ids)| Command::Redrive { queue, ids }),
        1 => queue().prop_map(|queue| Command::Delete { queue }),
        1 => Just(Command::List),
        2 => (queue(), 1..4_usize).prop_map(|(queue, max)| Command::DeadLetters { queue, max }),
        4 => (queue(), 1..4_usize).prop_map(|(queue, max)| Command::Messages { queue, max }),
    ]
}

fn wait() -> impl Strategy<Value = Command> {
    let at_most = select(vec![Duration::ZERO, Duration::MAX, Duration::MAX]);
    (queue(), 1..4_usize, at_most, any::<bool>()).prop_map(|(queue, waits, at_most, drops_one)| {
        Command::Wait {
            queue,
            waits,
            at_most,
            drops_one,
        }
    })
}

fn message_spec(max_attempts: Vec<u32>) -> impl Strategy<Value = MessageSpec> {
    let delay = prop_oneof![3 => Just(0), 2 => millis()];
    (0..IDS, any::<u16>(), delay, millis(), select(max_attempts)).prop_map(
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
        1 => any::<Index>().prop_map(ReceiptPick::OtherQueue),
        1 => Just(ReceiptPick::MadeUp),
    ]
}

fn action() -> impl Strategy<Value = LeaseAction> {
    prop_oneof![
        millis().prop_map(extend),
        millis().prop_map(nack),
        Just(LeaseAction::Release),
        Just(dead_letter("no")),
    ]
}

/// Durations that coincide with each other and with the steps of time.
fn millis() -> impl Strategy<Value = u64> {
    select(vec![0, 1, 5, 10, 20])
}
