//! The calls about one message id.

use super::{
    Breach, breach,
    search::{Verdict, counted, search},
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
        steps.extend(met_again(&steps, &unknown_leases));
        steps.sort_by_key(|step| (step.call.ended.unwrap_or(Moment::MAX), step.call.began));
        Self {
            name: name.to_owned(),
            steps,
            unknown_leases,
        }
    }

    pub(super) fn judge(&self) -> Result<(), Breach<'a>> {
        self.receipts_are_fresh()?;
        match search(&self.steps, &self.unknown_leases) {
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
                Action::Deliver { delivery, .. } => Some((step.call, *delivery)),
                _ => None,
            })
            .collect();
        for (n, (call, delivery)) in delivered.iter().enumerate() {
            for (later, other) in &delivered[n + 1..] {
                if other.receipt == delivery.receipt {
                    let receipt = &delivery.receipt;
                    let why = format!("L3: two deliveries have the receipt {receipt}");
                    return breach(why, [*call, *later]);
                }
                let is_same_call = (&later.by, later.number) == (&call.by, call.number);
                // An id that is stored again is another message, whose order the search looks for.
                if is_same_call && other.id == delivery.id {
                    return breach("L4: one call delivered the message twice", [*call]);
                }
            }
        }
        Ok(())
    }

    /// How each call may have counted the message, by the step of the call. A call that is not there
    /// was not about it.
    pub(super) fn counted(&self) -> Vec<(&'a Call, Vec<Counted>)> {
        let counts = |step: &Step| step.is_certain && !step.action.counts().is_empty();
        // All orders are many.
        if !self.steps.iter().any(counts) {
            return Vec::new();
        }
        let counted = counted(&self.steps, &self.unknown_leases);
        let steps = self.steps.iter().enumerate();
        steps
            .filter(|(_, step)| counts(step))
            .map(|(n, step)| {
                // If there are too many orders to look at, everything is possible.
                let all = || step.action.counts().to_vec();
                let possible = counted
                    .as_ref()
                    .map_or_else(all, |counted| counted.get(&n).cloned().unwrap_or_default());
                (step.call, possible)
            })
            .collect()
    }

    /// How often `call` may meet the id again.
    pub(super) fn times_again(&self, call: &Call) -> u64 {
        let own = self.steps.iter().find(|step| std::ptr::eq(step.call, call));
        let brings_back = |step: &&Step| {
            own.is_some_and(|own| is_back_after(&own.action, &step.action))
                && overlap(step.call, call)
        };
        let known = self.steps.iter().filter(brings_back).count();
        let is_redrive = own.is_some_and(|own| matches!(own.action, Action::Redrive));
        let unknown = match is_redrive {
            true => self
                .unknown_leases
                .iter()
                .filter(|began| **began < ended(call))
                .count(),
            false => 0,
        };
        (known + unknown) as u64
    }
}

/// Whether `meanwhile`, a call in several steps may meet again what it has changed: an id that is stored
/// again, or a message that is redriven, leased and dies again.
fn is_back_after(changed: &Action<'_>, meanwhile: &Action<'_>) -> bool {
    match changed {
        Action::RemoveLive | Action::RemoveDead | Action::RemoveAll => {
            matches!(meanwhile, Action::Store { .. })
        }
        Action::Redrive => matches!(meanwhile, Action::Deliver { .. }),
        _ => false,
    }
}

/// What calls in several steps may do once more.
fn met_again<'a>(steps: &[Step<'a>], unknown_leases: &[Moment]) -> Vec<Step<'a>> {
    let again = steps.iter().filter_map(|step| {
        let action = match step.action {
            Action::RemoveLive => Action::RemoveLive,
            Action::RemoveDead => Action::RemoveDead,
            Action::RemoveAll => Action::RemoveAll,
            Action::Redrive => Action::Redrive,
            _ => return None,
        };
        let (call, is_certain) = (step.call, false);
        let mut back = steps
            .iter()
            .filter(|it| is_back_after(&step.action, &it.action));
        let may_be_leased = || unknown_leases.iter().any(|began| *began < ended(call));
        let is_back = back.any(|it| overlap(it.call, call))
            || matches!(action, Action::Redrive) && may_be_leased();
        is_back.then_some(Step {
            call,
            action,
            is_certain,
        })
    });
    again.collect()
}

fn ended(call: &Call) -> Moment {
    call.ended.unwrap_or(Moment::MAX)
}

fn overlap(a: &Call, b: &Call) -> bool {
    a.began < ended(b) && b.began < ended(a)
}

/// What a call on the whole queue means for one id, and whether that is certain.
fn manage<'a>(call: &'a ManageCall, id: &str, name: &str) -> Vec<(Action<'a>, bool)> {
    let find = |seen: &'a [RecordedMessage]| seen.iter().filter(|m| place(&m.id) == name);
    // What is listed twice was away between.
    let listed = |seen: &'a [RecordedMessage],
                  see: fn(Option<&'a RecordedMessage>) -> Action<'a>| {
        let mut seen = find(seen);
        let first = see(seen.next());
        let again = seen.next().map(|_| see(None));
        let all = [first].into_iter().chain(again);
        all.map(|action| (action, true)).collect()
    };
    match call {
        ManageCall::PurgeLive(answer) => vec![(Action::RemoveLive, answer.is_some())],
        ManageCall::PurgeDead(answer) => vec![(Action::RemoveDead, answer.is_some())],
        ManageCall::Delete { answered } => vec![(Action::RemoveAll, *answered)],
        ManageCall::Redrive { ids, answer } => match ids {
            Some(ids) if !ids.iter().any(|named| named == id) => vec![],
            _ => vec![(Action::Redrive, answer.is_some())],
        },
        ManageCall::DeadLetters(Some(seen)) => listed(seen, Action::SeeDead),
        ManageCall::Messages(Some(seen)) => listed(seen, Action::SeeLive),
        ManageCall::Peek(Some(seen)) => {
            let seen = find(seen).next();
            seen.map(|seen| (Action::SeeLive(Some(seen)), true))
                .into_iter()
                .collect()
        }
        ManageCall::List(Some(false)) => vec![(Action::MissQueue, true)],
        ManageCall::Stats(Some(_)) => vec![(Action::Count, true)],
        ManageCall::DeadLetters(None)
        | ManageCall::Peek(None)
        | ManageCall::Messages(None)
        | ManageCall::List(_)
        | ManageCall::Stats(None) => vec![],
    }
}

impl ManageCall {
    /// The messages that the call has shown.
    pub(super) fn seen(&self) -> &[RecordedMessage] {
        match self {
            Self::DeadLetters(Some(seen)) | Self::Peek(Some(seen)) | Self::Messages(Some(seen)) => {
                seen
            }
            _ => &[],
        }
    }
}
