//! What one call does to the message of one id, when calls come one after another.

use crate::record::event::{Call, Millis, ReceiptAction, RecordedDelivery, RecordedMessage};

/// The part of a call that is about one message id.
#[derive(Debug)]
pub(super) struct Step<'a> {
    pub(super) call: &'a Call,
    pub(super) action: Action<'a>,
    /// Whether it took effect for certain. Otherwise, it may have.
    pub(super) is_certain: bool,
}

#[derive(Debug)]
pub(super) enum Action<'a> {
    Store {
        message: &'a str,
        delay: Millis,
        max_attempts: u32,
        answer: Option<bool>,
    },
    Deliver {
        delivery: &'a RecordedDelivery,
        visibility: Millis,
    },
    Settle {
        receipt: &'a str,
        action: ReceiptAction,
        answer: Option<bool>,
    },
    RemoveLive,
    RemoveDead,
    RemoveAll,
    Redrive,
    /// The dead letter in the list, if any.
    SeeDead(Option<&'a RecordedMessage>),
    SeeLive(Option<&'a RecordedMessage>),
    /// The list of queues does not have this one.
    MissQueue,
    Count,
}

/// The message of one id. Times are ranges, because a call does not know the clock exactly.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) enum State<'a> {
    Absent,
    Live(Live<'a>),
    Dead {
        message: Sent<'a>,
        attempts: u32,
        exhausted: bool,
    },
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct Live<'a> {
    message: Sent<'a>,
    attempts: u32,
    lease: Lease<'a>,
    /// The earliest and the latest ready time.
    ready: (Millis, Millis),
    /// How many lease calls without an answer have taken it.
    unknown_leases: usize,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct Sent<'a> {
    name: &'a str,
    max_attempts: u32,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Lease<'a> {
    None,
    Of(&'a str),
    /// Of a call without an answer.
    Unknown,
}

/// What a call that counts has counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Counted {
    Nothing,
    /// The message was removed or redriven.
    Changed,
    Ready,
    Delayed,
    Leased,
    Dead,
}

impl Action<'_> {
    /// Whether it changes nothing in any state.
    pub(super) fn only_looks(&self) -> bool {
        matches!(
            self,
            Self::Store {
                answer: Some(false),
                ..
            } | Self::Settle {
                answer: Some(false),
                ..
            } | Self::SeeDead(_)
                | Self::SeeLive(_)
                | Self::MissQueue
                | Self::Count
        )
    }

    pub(super) fn is_count(&self) -> bool {
        matches!(self, Self::Count)
    }

    /// How it may count a message.
    pub(super) fn counts(&self) -> &'static [Counted] {
        use Counted::{Changed, Dead, Delayed, Leased, Nothing, Ready};
        match self {
            Self::Count => &[Nothing, Ready, Delayed, Leased, Dead],
            Self::RemoveLive | Self::RemoveDead | Self::RemoveAll | Self::Redrive => {
                &[Nothing, Changed]
            }
            _ => &[],
        }
    }
}

impl<'a> State<'a> {
    pub(super) fn is_live(&self) -> bool {
        matches!(self, Self::Live(_))
    }

    /// This state, and those to which lease calls may lead that show no delivery: a call that meets
    /// an exhausted message, and at most `unknown` calls without an answer.
    ///
    /// For each number of attempts, only the fewest such calls are tried. Whatever may follow on more
    /// of them may follow on these, too.
    pub(super) fn with_hidden_leases(&self, until: Millis, unknown: usize) -> Vec<Self> {
        let mut states = vec![self.clone()];
        let Self::Live(live) = self else {
            return states;
        };
        if live.ready.0 > until {
            return states;
        }
        let left = unknown.saturating_sub(live.unknown_leases);
        for (counted, attempts) in (0..=left).zip(live.attempts..) {
            let is_exhausted = attempts >= live.message.max_attempts;
            // A call that counts no attempt: its caller may have released the message, as `Batching`
            // does.
            let is_new = counted > 0 || live.lease != Lease::Unknown && !is_exhausted;
            let calls = counted.max(1);
            if is_new && calls <= left {
                states.push(Self::Live(Live {
                    attempts,
                    lease: Lease::Unknown,
                    ready: (live.ready.0, Millis::MAX),
                    unknown_leases: live.unknown_leases + calls,
                    ..live.clone()
                }));
            }
            if is_exhausted {
                states.push(Self::Dead {
                    message: live.message,
                    attempts,
                    exhausted: true,
                });
                break;
            }
        }
        states
    }

    /// Whether `step` may count the message as `counted` in this state.
    pub(super) fn may_count(&self, step: &Step<'a>, counted: Counted) -> bool {
        let (from, to) = (step.call.clock_from, step.call.clock_to);
        match (&step.action, self) {
            (Action::Count, Self::Absent) => counted == Counted::Nothing,
            (Action::Count, Self::Dead { .. }) => counted == Counted::Dead,
            (Action::Count, Self::Live(live)) => match counted {
                Counted::Ready => live.ready.0 <= to,
                Counted::Delayed => live.ready.1 > from && live.lease == Lease::None,
                Counted::Leased => live.ready.1 > from && live.lease != Lease::None,
                _ => false,
            },
            (Action::RemoveLive, Self::Live(_))
            | (Action::RemoveDead | Action::Redrive, Self::Dead { .. })
            | (Action::RemoveAll, Self::Live(_) | Self::Dead { .. }) => counted == Counted::Changed,
            _ => counted == Counted::Nothing,
        }
    }

    /// The state after `step`, or why the contract does not allow it. `last` led to this state.
    pub(super) fn after(&self, step: &Step<'a>, last: Option<&Step<'a>>) -> Result<Self, String> {
        let (from, to) = (step.call.clock_from, step.call.clock_to);
        match (&step.action, self) {
            (
                Action::Store {
                    answer: Some(false),
                    ..
                },
                Self::Absent,
            ) => Err(
                "E2: it is said to be a duplicate, but the queue has no message of this id".into(),
            ),
            (
                Action::Store {
                    answer: Some(true), ..
                },
                Self::Live(_) | Self::Dead { .. },
            ) => Err("E2: it was stored, but the queue had a message of this id".into()),
            (
                Action::Store {
                    message,
                    delay,
                    max_attempts,
                    ..
                },
                Self::Absent,
            ) => Ok(Self::Live(Live {
                message: Sent {
                    name: message,
                    max_attempts: *max_attempts,
                },
                attempts: 0,
                lease: Lease::None,
                ready: (from.saturating_add(*delay), to.saturating_add(*delay)),
                unknown_leases: 0,
            })),
            (
                Action::Deliver {
                    delivery,
                    visibility,
                },
                _,
            ) => {
                let live = self.delivered(step, delivery, last)?;
                let (from, to) = (from + visibility, to.saturating_add(*visibility));
                Ok(Self::Live(Live {
                    attempts: delivery.attempt,
                    lease: Lease::Of(&delivery.receipt),
                    ready: (delivery.expires.min(from), delivery.expires.max(to)),
                    ..live.clone()
                }))
            }
            (
                Action::Settle {
                    receipt,
                    action,
                    answer,
                },
                _,
            ) => self.settled(step, (receipt, *action, *answer), last),
            (Action::RemoveLive | Action::RemoveAll, Self::Live(_))
            | (Action::RemoveDead | Action::RemoveAll, Self::Dead { .. }) => Ok(Self::Absent),
            (Action::Redrive, Self::Dead { message, .. }) => Ok(Self::Live(Live {
                message: *message,
                attempts: 0,
                lease: Lease::None,
                ready: (from, to),
                unknown_leases: 0,
            })),
            (Action::SeeDead(None), Self::Dead { message, .. }) => Err(format!(
                "D1: dead letter {} is not in the list",
                message.name
            )),
            (
                Action::SeeDead(Some(seen)),
                Self::Dead {
                    message,
                    attempts,
                    exhausted,
                },
            ) if (message.name, *attempts, *exhausted)
                == (&*seen.id, seen.attempts, seen.exhausted) =>
            {
                Ok(self.clone())
            }
            (Action::SeeDead(Some(seen)), _) => Err(format!(
                "D1: {seen:?} is in the list of dead letters, but it is {self:?}"
            )),
            (Action::SeeLive(None), Self::Live(live)) => Err(format!(
                "M1: message {} is not in the list",
                live.message.name
            )),
            (Action::SeeLive(Some(seen)), Self::Live(live))
                if (live.message.name, live.attempts) == (&*seen.id, seen.attempts) =>
            {
                Ok(self.clone())
            }
            (Action::SeeLive(Some(seen)), _) => {
                Err(format!("M1: {seen:?} was read, but it is {self:?}"))
            }
            (Action::MissQueue, Self::Live(_) | Self::Dead { .. }) => {
                Err("M1: the queue is not in the list, but it has a message".into())
            }
            _ => Ok(self.clone()),
        }
    }

    /// The message that a lease call may deliver now.
    fn delivered(
        &self,
        step: &Step<'a>,
        delivery: &RecordedDelivery,
        last: Option<&Step<'a>>,
    ) -> Result<&Live<'a>, String> {
        let RecordedDelivery {
            id,
            receipt,
            attempt,
            ..
        } = delivery;
        let lease = format!("receipt {receipt}");
        let Self::Live(live) = self else {
            return Err(match last.map(|last| &last.action) {
                None => format!("E1: {lease} was delivered before the message was enqueued"),
                Some(Action::Settle {
                    receipt, action, ..
                }) => {
                    format!("A1, D1: {lease} came after the {action:?} of receipt {receipt}")
                }
                Some(Action::Deliver { .. }) => {
                    format!("D1: {lease} came after the attempts of the message ran out")
                }
                _ => format!("M1: {lease} came after the message was removed"),
            });
        };
        if live.message.name != id {
            return Err(format!(
                "A1, E2: {lease} is of {id}, but the queue has {}",
                live.message.name
            ));
        }
        if step.call.clock_to < live.ready.0 {
            return Err(match last.map(|last| (&last.action, &last.call.by)) {
                Some((
                    Action::Deliver {
                        delivery: other, ..
                    },
                    owner,
                )) => {
                    let (by, other) = (&step.call.by, &other.receipt);
                    format!("L1: {by} leased {lease} while {owner} had receipt {other}")
                }
                Some((
                    Action::Settle {
                        receipt,
                        action: ReceiptAction::Nack(_),
                        ..
                    },
                    _,
                )) => {
                    format!(
                        "A5: {lease} came before the nack delay of receipt {receipt} had passed"
                    )
                }
                Some((Action::Settle { receipt, .. }, _)) => {
                    format!("L1: {lease} came before the extended lease of receipt {receipt} ended")
                }
                _ => format!("E4: {lease} came before the delay of its enqueue had passed"),
            });
        }
        // What a call without an answer took may be delivered by another call, as the same attempt.
        if live.lease == Lease::Unknown && *attempt == live.attempts {
            return Ok(live);
        }
        if live.attempts >= live.message.max_attempts {
            let max = live.message.max_attempts;
            return Err(format!(
                "D1: {lease} was delivered more often than {max} times"
            ));
        }
        if *attempt != live.attempts + 1 {
            let expected = live.attempts + 1;
            return Err(format!("L3: {lease} has attempt {attempt}, not {expected}"));
        }
        Ok(live)
    }

    fn settled(
        &self,
        step: &Step<'a>,
        (receipt, action, answer): (&str, ReceiptAction, Option<bool>),
        last: Option<&Step<'a>>,
    ) -> Result<Self, String> {
        let (from, to) = (step.call.clock_from, step.call.clock_to);
        let live = match self {
            Self::Live(live) if live.lease == Lease::Of(receipt) => live,
            _ if answer != Some(true) => return Ok(self.clone()),
            _ => {
                return Err(match last.map(|last| &last.action) {
                    Some(Action::Deliver {
                        delivery: later, ..
                    }) if later.receipt != receipt => {
                        let later = &later.receipt;
                        format!(
                            "A2: receipt {receipt} worked after receipt {later} had superseded it"
                        )
                    }
                    Some(Action::RemoveLive | Action::RemoveAll) => {
                        format!("M1: receipt {receipt} worked after the message was removed")
                    }
                    _ => format!("A4: receipt {receipt} worked after it was settled"),
                });
            }
        };
        if answer == Some(false) {
            return Err(format!(
                "A3: receipt {receipt} was lost, but it was neither settled nor superseded"
            ));
        }
        let later = |by| (from.saturating_add(by), to.saturating_add(by));
        let change = |attempts, lease, by| {
            Self::Live(Live {
                attempts,
                lease,
                ready: later(by),
                ..live.clone()
            })
        };
        Ok(match action {
            ReceiptAction::Ack => Self::Absent,
            ReceiptAction::Extend(by) => change(live.attempts, live.lease, by),
            ReceiptAction::Nack(delay) => change(live.attempts, Lease::None, delay),
            ReceiptAction::Release => change(live.attempts - 1, Lease::None, 0),
            ReceiptAction::DeadLetter => Self::Dead {
                message: live.message,
                attempts: live.attempts,
                exhausted: false,
            },
        })
    }
}
