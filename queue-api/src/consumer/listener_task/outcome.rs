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
                let answers = completed.items.iter().zip(outcomes);
                let outcomes: Vec<_> = answers
                    .map(|(item, outcome)| self.infer_outcome(item, outcome, now))
                    .collect();
                self.count(&completed.items, &outcomes);
                for (item, outcome) in completed.items.into_iter().zip(outcomes) {
                    self.finish(item, Ok(outcome));
                }
            }
            Err(error) => {
                self.report_error(&error);
                let mut again = Vec::new();
                let mut pause = Duration::MAX;
                for item in completed.items {
                    pause = pause.min(self.pause_for(item.key));
                    if error.is_retryable() && self.leases.is_attended(item.key, now) {
                        again.push(item);
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

    /// The true outcome of an item that is `Lost` after an earlier call failed. While the lease lasts
    /// no other consumer can have the message, so the failed call must have settled it.
    fn infer_outcome(&self, item: &Item, outcome: LeaseOutcome, now: SystemTime) -> LeaseOutcome {
        if outcome == LeaseOutcome::Lost && item.failures > 0 && self.is_running(item.key, now) {
            return LeaseOutcome::Applied;
        }
        outcome
    }

    fn count(&self, items: &[Item], outcomes: &[LeaseOutcome]) {
        let name = self.queue.name();
        if items.iter().all(|item| item.action == Action::Ack) {
            return metrics::acked(name, outcomes);
        }
        let changes = items.iter().filter_map(Item::change);
        metrics::changed(name, changes.zip(outcomes.iter().copied()));
    }

    /// Whether the lease has certainly not expired.
    fn is_running(&self, key: Key, now: SystemTime) -> bool {
        self.leases
            .get(key)
            .is_some_and(|lease| lease.expires > now)
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
        let mut again = Vec::new();
        let mut pause = Duration::MAX;
        for item in items {
            let by_owner = item.answer.is_some();
            if self.leases.get(item.key).is_none() {
                reply(item.answer, Ok(LeaseOutcome::Lost));
                continue;
            }
            let ended = !self.leases.is_attended(item.key, now);
            if ended || by_owner && !error.is_retryable() {
                reply(item.answer, Err(error.clone()));
                self.leases.renew_at(item.key, now);
                continue;
            }
            pause = pause.min(self.pause_for(item.key));
            again.push(item);
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
