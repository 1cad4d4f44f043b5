//! The calls about one message id.

use super::{
    Breach, breach,
    search::{Search, Verdict},
    step::{Action, Counted, Step},
};
use crate::record::event::{Call, ManageCall, Moment, Operation, RecordedMessage, is_in, place};

pub(super) struct Place<'a> {
    pub(super) name: String,
    /// In the order in which they ended.
    steps: Vec<Step<'a>>,
    /// When the lease calls began that may have leased the message without showing it: those without
    /// an answer, and those whose leases may have expired before they ended. Such a call may have
    /// lost a reply of its store, and then have looked again.
    unknown_leases: Vec<Moment>,
}

impl<'a> Place<'a> {
    pub(super) fn new(name: &str, calls: &'a [Call]) -> Self {
        let mut steps = Vec::new();
        let mut unknown_leases = Vec::new();
        for call in calls {
            let mut step = |action, is_certain| {
                steps.push(Step {
                    call,
                    action,
                    is_certain,
                });
            };
            match &call.operation {
                Operation::Enqueue {
                    id,
                    delay,
                    answered,
                } if place(id) == name => {
                    let answer = answered.then_some(true);
                    let (message, max_attempts) = (id, u32::MAX);
                    let store = Action::Store {
                        message,
                        delay: *delay,
                        max_attempts,
                        answer,
                    };
                    step(store, *answered);
                }
                Operation::Store {
                    id,
                    delay,
                    max_attempts,
                    answer,
                } if place(id) == name => {
                    let store = Action::Store {
                        message: id,
                        delay: *delay,
                        max_attempts: *max_attempts,
                        answer: *answer,
                    };
                    step(store, answer.is_some());
                }
                Operation::Lease { answer: None, .. } => unknown_leases.push(call.began),
                Operation::Lease {
                    visibility,
                    answer: Some(deliveries),
                } => {
                    if call.clock_to > call.clock_from + visibility {
                        unknown_leases.push(call.began);
                    }
                    for delivery in deliveries.iter().filter(|d| place(&d.id) == name) {
                        let visibility = *visibility;
                        step(
                            Action::Deliver {
                                delivery,
                                visibility,
                            },
                            true,
                        );
                    }
                }
                Operation::Settle {
                    receipt,
                    id,
                    action,
                    answer,
                } if place(id) == name => {
                    let settle = Action::Settle {
                        receipt,
                        action: *action,
                        answer: *answer,
                    };
                    step(settle, answer.is_some());
                }
                Operation::Manage {
                    queue,
                    call: managed,
                } if is_in(name, queue) => {
                    let id = &name[queue.len() + 1..];
                    for (action, is_certain) in manage(managed, id, name) {
                        step(action, is_certain);
                    }
                }
                _ => {}
            }
        }
        steps.sort_by_key(|step| (step.call.ended.unwrap_or(Moment::MAX), step.call.began));
        Self {
            name: name.to_owned(),
            steps,
            unknown_leases,
        }
    }

    pub(super) fn judge(&self) -> Result<(), Breach<'a>> {
        self.receipts_are_fresh()?;
        match Search::new(&self.steps, &self.unknown_leases, None).run() {
            Verdict::Possible => Ok(()),
            Verdict::Impossible { why, steps } => {
                breach(why, steps.into_iter().map(|step| self.steps[step].call))
            }
            Verdict::Undecided => breach(
                "the calls have too many possible orders, so they cannot be judged",
                [],
            ),
        }
    }

    fn receipts_are_fresh(&self) -> Result<(), Breach<'a>> {
        let delivered: Vec<_> = self
            .steps
            .iter()
            .filter_map(|step| match &step.action {
                Action::Deliver { delivery, .. } => Some((step.call, &delivery.receipt)),
                _ => None,
            })
            .collect();
        for (n, (call, receipt)) in delivered.iter().enumerate() {
            for (later, other) in &delivered[n + 1..] {
                if other == receipt {
                    let why = format!("L3: two deliveries have the receipt {receipt}");
                    return breach(why, [*call, *later]);
                }
                if (&later.by, later.number) == (&call.by, call.number) {
                    return breach("L4: one call delivered the message twice", [*call]);
                }
            }
        }
        Ok(())
    }

    /// Whether `call` may have counted the message as `counted`. `None` if it is not about it.
    pub(super) fn may_count(&self, call: &Call, counted: Counted) -> Option<bool> {
        let is_it = |step: &Step| step.is_certain && std::ptr::eq(step.call, call);
        let step = self.steps.iter().position(is_it)?;
        let search = Search::new(&self.steps, &self.unknown_leases, Some((step, counted)));
        // If it cannot be decided, it is possible.
        Some(!matches!(search.run(), Verdict::Impossible { .. }))
    }

    /// How many enqueues overlap `call`, so that it may meet the id more than once.
    pub(super) fn enqueues_during(&self, call: &Call) -> u64 {
        let overlaps = |step: &&Step| {
            let is_store = matches!(step.action, Action::Store { .. });
            let ended = step.call.ended.unwrap_or(Moment::MAX);
            is_store && Some(step.call.began) < call.ended && ended > call.began
        };
        self.steps.iter().filter(overlaps).count() as u64
    }
}

/// What a call on the whole queue means for one id, and whether that is certain.
fn manage<'a>(call: &'a ManageCall, id: &str, name: &str) -> Vec<(Action<'a>, bool)> {
    // A call that removes or redrives in several steps may meet the id again.
    let again = |action: fn() -> Action<'a>, is_answered| match is_answered {
        true => vec![(action(), true), (action(), false)],
        false => vec![(action(), false)],
    };
    let find = |seen: &'a [RecordedMessage]| seen.iter().find(|m| place(&m.id) == name);
    match call {
        ManageCall::PurgeLive(answer) => again(|| Action::RemoveLive, answer.is_some()),
        ManageCall::PurgeDead(answer) => again(|| Action::RemoveDead, answer.is_some()),
        ManageCall::Delete(answer) => again(|| Action::RemoveAll, answer.is_some()),
        ManageCall::Redrive { ids, answer } => match ids {
            Some(ids) if !ids.iter().any(|named| named == id) => vec![],
            _ => again(|| Action::Redrive, answer.is_some()),
        },
        ManageCall::DeadLetters(Some(seen)) => vec![(Action::SeeDead(find(seen)), true)],
        ManageCall::Peek(Some(seen)) => {
            let seen = find(seen).map(|seen| (Action::SeeLive(seen), true));
            seen.into_iter().collect()
        }
        ManageCall::List(Some(false)) => vec![(Action::MissQueue, true)],
        ManageCall::Stats(Some(_)) => vec![(Action::Count, true)],
        ManageCall::DeadLetters(None)
        | ManageCall::Peek(None)
        | ManageCall::List(_)
        | ManageCall::Stats(None) => vec![],
    }
}

impl ManageCall {
    /// The messages that the call has shown.
    pub(super) fn seen(&self) -> &[RecordedMessage] {
        match self {
            Self::DeadLetters(Some(seen)) | Self::Peek(Some(seen)) => seen,
            _ => &[],
        }
    }
}
