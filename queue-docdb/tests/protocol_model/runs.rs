//! What is explored: the calls of a few processes, with a few faults, and the mistakes that the
//! protocol avoids.

use crate::document::entry::Action;

/// Runs of the quick share. In none may a line of the contract be broken. A run has
///
/// - a name
/// - how much time passes (a lease lasts 1), how many answers may be lost, how many processes may
///   die, and how many failovers there may be
/// - the entries that are there, by message ids
/// - processes with their calls. `/` separates calls of which a process makes one: `ack` with all its
///   receipts, `ack1` with one of them, `lease2` up to two messages, `12,3` to enqueue two entries.
const QUICK: &[&str] = &[
    "claims            | 1101 | 1    | lease1                 | lease1",
    "one               | 1100 | 1    | lease1 ack/nack/extend | lease1 ack/nack",
    "pair              | 1100 | 12   | lease2 ack/ack1        | lease1 ack",
    "two               | 1100 | 1,2  | lease2 ack             | lease1 ack",
    "extended          | 1000 | 12,3 | lease1 lease2          | lease2 extend",
    "expired           | 2000 | 1,2  | lease1                 | lease1 ack         | lease2",
    "crash             | 1010 | 12   | lease2 ack/ack1        | lease2 ack",
    "failover          | 1101 | 1    | lease1 ack/nack/extend | lease1 ack",
    "enqueued          | 0100 |      | 12                     | 2,3                | lease2",
    "enqueued_failover | 0101 | 1    | 12                     | 2 lease1",
    "again             | 1100 | 1    | lease1 ack             | 1 lease1 ack/nack",
    "again_keyed       | 1100 | 1,2  | lease2 ack             | 1 lease1",
];

/// Only `QUEUE_MODEL=all` has these.
const LONG: &[&str] = &[
    "dead              | 1100 | 12   | lease1 ack/nack        | lease2 ack",
    "pair_nacked       | 1100 | 12   | lease2 ack/nack1       | lease2 ack/ack1",
    "pair_failover     | 1101 | 12   | lease2 ack/ack1        | lease1 ack",
    "three             | 1100 | 123  | lease3 ack/ack1        | lease2 ack",
    "three_in_two      | 1100 | 12,3 | lease3 ack             | lease2 ack",
    "two_failover      | 1101 | 1,2  | lease2 ack             | lease1 ack",
    "two_faults        | 1201 | 1    | lease1 ack             | lease1 ack",
    "three_workers     | 1000 | 1    | lease1 ack             | lease1 ack         | lease1 extend",
    "extended_fault    | 1100 | 12,3 | lease1 lease2          | lease2 extend",
    "extended_failover | 1001 | 12,3 | lease1 lease2          | lease2 extend",
    "again_failover    | 1101 | 1    | lease1 ack             | 1 lease1 ack/nack",
    "failover_keyed    | 1101 | 1    | lease1 ack             | 1 lease1 ack/nack",
    "enqueued_three    | 0201 | 1    | 12                     | 23                 | 3",
];

/// Each mistake, a run in which it does harm, and the line that it breaks.
pub(crate) const BUGS: &[(Bug, &str, &str)] = &[
    (Bug::GuardWithoutRev, "claims", "L1"),
    (Bug::InsertAgain, "again", "E2"),
    (Bug::LostAfterDoubt, "one", "A4"),
    (Bug::NotYetIsNo, "one", "A4"),
    (Bug::GoneIsApplied, "one", "A4"),
    (Bug::RewrittenIsNotMade, "extended", "A4"),
    (Bug::RewrittenIsNotMade, "expired", "L1"),
    (Bug::OneAddend, "failover", "L1"),
    (Bug::NeverConfirmed, "claims", "L1"),
    (Bug::ConfirmedBefore, "claims", "L1"),
    (Bug::ConfirmedAfter, "claims", "L1"),
    (Bug::LostByFind, "failover", "A3"),
    (Bug::RefusedIsDuplicate, "enqueued", "E2"),
    (Bug::DuplicateByFind, "enqueued_failover", "E2"),
    (Bug::AnyBorn, "again_keyed", "A4"),
];

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Bug {
    None,
    /// A write matches its entry whatever the revision.
    GuardWithoutRev,
    /// An insert is sent again after a lost answer.
    InsertAgain,
    /// After a lost answer, a receipt that is no longer good is `Lost`.
    LostAfterDoubt,
    /// After a lost answer, a write that the entry does not show counts as not made.
    NotYetIsNo,
    /// An entry that was written again, and does not tell, shows that a write was not made.
    RewrittenIsNotMade,
    /// After a lost answer, an entry that is gone counts as acked by this call.
    GoneIsApplied,
    /// All tries of a call add the same number to a revision, whatever they write.
    OneAddend,
    /// What a find shows is told.
    NeverConfirmed,
    /// The same, after a majority write before the find.
    ConfirmedBefore,
    /// The same, after a majority write after the find.
    ConfirmedAfter,
    /// `Lost` is told though the write that confirms it has not matched.
    LostByFind,
    /// All messages of a refused entry are duplicates.
    RefusedIsDuplicate,
    /// A message is a duplicate because a find shows it.
    DuplicateByFind,
    /// An entry with the same `_id` is the same entry, though an `_id` may come again.
    AnyBorn,
}

/// A call.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Op {
    Enqueue(Vec<Vec<usize>>),
    Lease(usize),
    All(Action),
    One(Action),
}

#[derive(Clone, Debug)]
pub(crate) struct Run {
    pub(crate) name: &'static str,
    pub(crate) limits: Limits,
    pub(crate) stock: Vec<Vec<usize>>,
    /// Of each process the calls, and of each call the choices.
    pub(crate) processes: Vec<Vec<Vec<Op>>>,
    pub(crate) bug: Bug,
}

/// How much may still happen: ticks of the clock, lost answers, crashes, failovers.
pub(crate) type Limits = [u8; 4];

impl Run {
    /// The quick share, all, or the run with this name.
    pub(crate) fn wanted(which: &str) -> Vec<Self> {
        let quick = QUICK.iter().map(|text| Self::parse(text));
        let long = LONG.iter().map(|text| Self::parse(text));
        match which {
            "" => quick.collect(),
            "all" => quick.chain(long).collect(),
            name => quick.chain(long).filter(|it| it.name == name).collect(),
        }
    }

    fn parse(text: &'static str) -> Self {
        let mut fields = text.split('|').map(str::trim);
        let mut next = || fields.next().expect("a field");
        let (name, limits, stock) = (next(), next().as_bytes(), next());
        let call = |text: &str| text.split('/').map(op).collect();
        Self {
            name,
            limits: std::array::from_fn(|index| limits[index] - b'0'),
            stock: entries(stock),
            processes: fields
                .map(|text| text.split(' ').map(call).collect())
                .collect(),
            bug: Bug::None,
        }
    }

    /// Whether a message is found by its entry's `_id`, as on elastic clusters.
    pub(crate) fn is_keyed(&self) -> bool {
        self.name.ends_with("keyed")
    }

    pub(crate) fn max_attempts(&self) -> u32 {
        if self.name == "dead" { 1 } else { 9 }
    }
}

fn op(text: &str) -> Op {
    let extend = Action::Extend { until: 3 };
    let nack = Action::Nack { until: 0 };
    match text {
        "ack" => Op::All(Action::Ack),
        "ack1" => Op::One(Action::Ack),
        "nack" => Op::All(nack),
        "nack1" => Op::One(nack),
        "extend" => Op::All(extend),
        _ => match text.strip_prefix("lease") {
            Some(count) => Op::Lease(count.parse().expect("a number")),
            None => Op::Enqueue(entries(text)),
        },
    }
}

fn entries(text: &str) -> Vec<Vec<usize>> {
    let ids = |entry: &str| entry.bytes().map(|id| usize::from(id - b'0')).collect();
    text.split_terminator(',').map(ids).collect()
}
