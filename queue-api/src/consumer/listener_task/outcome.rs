//! Applies the answers of the store to the leases.

use std::time::{Duration, SystemTime};

use super::{
    ListenerTask,
    batcher::{Action, Completed, Item},
    leases::Key,
    reply,
};
use crate::{Error, LeaseAction, LeaseOutcome, Result, consumer::LeaseEnd, metrics, telemetry};

impl ListenerTask {
    pub(super) fn on_settled(&mut self, completed: Completed) {
        let now = self.now();
        match completed.answer {
            Ok(outcomes) => {
                self.count(&completed.items, &outcomes);
                for (item, outcome) in completed.items.into_iter().zip(outcomes) {
                    let outcome = known_outcome(&item, outcome);
                    self.finish(item, outcome);
                }
            }
            Err(error) => {
                self.report_error(&error);
                let is_repeated = is_repeated(&completed.items, &error);
                let mut again = Vec::new();
                let mut pause = Duration::MAX;
                for item in completed.items {
                    pause = pause.min(self.pause_for(item.key));
                    if is_repeated && self.leases.is_attended(item.key, now) {
                        again.push(item.failed(&error));
                    } else {
                        self.finish(item, Err(error.clone()));
                    }
                }
                if let Some(first) = again.first() {
                    let batcher = self.batcher_for(&first.action);
                    batcher.repeat(again, now, pause);
                }
            }
        }
    }

    /// Counts the outcomes that are known.
    fn count(&self, items: &[Item], outcomes: &[LeaseOutcome]) {
        let name = self.queue.name();
        let known = items.iter().zip(outcomes.iter().copied());
        let known = known.filter(|(item, outcome)| known_outcome(item, *outcome).is_ok());
        if items.iter().all(|item| item.action == Action::Ack) {
            let outcomes: Vec<_> = known.map(|(_, outcome)| outcome).collect();
            return metrics::acked(name, &outcomes);
        }
        let changes = known.filter_map(|(item, outcome)| Some((item.change()?, outcome)));
        metrics::changed(name, changes);
    }

    pub(super) fn finish(&mut self, item: Item, outcome: Result<LeaseOutcome>) {
        self.leases.remove(item.key);
        reply(item.answer, outcome);
    }

    pub(super) fn on_renewed(&mut self, completed: Completed) {
        let now = self.now();
        match completed.answer {
            Ok(outcomes) => {
                self.count(&completed.items, &outcomes);
                for (item, outcome) in completed.items.into_iter().zip(outcomes) {
                    match (outcome, &item.action) {
                        (LeaseOutcome::Applied, Action::Change(LeaseAction::Extend(by))) => {
                            self.leases.renewed(item.key, completed.sent, *by);
                        }
                        // A settlement that was sent meanwhile ended the lease.
                        _ if !self.leases.is_open(item.key) => {}
                        _ => {
                            self.leases.end(item.key, LeaseEnd::Superseded);
                            self.report_end(item.key, LeaseEnd::Superseded);
                        }
                    }
                    reply(item.answer, Ok(outcome));
                }
            }
            Err(error) => {
                self.report_error(&error);
                self.repeat_renewals(completed.items, &error, now);
            }
        }
    }

    /// Repeats renewals while the leases last, after any error: permissions may be fixed in time. An
    /// extension by the lease's owner fails with an error that does not pass by itself.
    fn repeat_renewals(&mut self, items: Vec<Item>, error: &Error, now: SystemTime) {
        let is_repeated = is_repeated(&items, error);
        let mut again = Vec::new();
        let mut pause = Duration::MAX;
        for item in items {
            let by_owner = item.answer.is_some();
            let ended = !self.leases.is_attended(item.key, now);
            if ended || by_owner && !is_repeated {
                reply(item.answer, Err(error.clone()));
                self.leases.renew_again(item.key, now);
                continue;
            }
            pause = pause.min(self.pause_for(item.key));
            again.push(item.failed(error));
        }
        self.renewals.repeat(again, now, pause);
    }

    /// The longest pause before a call for this lease is repeated, so that several attempts fit in its
    /// visibility timeout.
    fn pause_for(&self, key: Key) -> Duration {
        let lease = self.leases.get(key);
        lease.map_or(Duration::MAX, |lease| lease.renewal / 8)
    }

    pub(super) fn report_error(&self, error: &Error) {
        telemetry::consumer::store_error(self.queue.name(), error);
        self.options.call_hook(error);
    }

    pub(super) fn report_end(&self, key: Key, why: LeaseEnd) {
        if let Some(lease) = self.leases.get(key) {
            telemetry::consumer::lease_lost(self.queue.name(), &lease.receipt, why.label());
        }
    }
}

/// Whether a repeat of a failed call may succeed. If one of several items may have caused the error,
/// each is repeated alone.
fn is_repeated(items: &[Item], error: &Error) -> bool {
    error.is_retryable() || items.len() > 1 && error.may_be_one_item()
}

/// The outcome of a settlement. If it is `Lost` after an earlier call failed, that call may have taken
/// effect, or a purge or another process may have settled the message. Then it is the error of that
/// call.
fn known_outcome(item: &Item, outcome: LeaseOutcome) -> Result<LeaseOutcome> {
    match (&item.failure, &item.action) {
        (None, _) | (_, Action::Change(LeaseAction::Extend(_))) => Ok(outcome),
        _ if outcome.is_applied() => Ok(outcome),
        (Some(error), _) => Err(error.clone()),
    }
}
