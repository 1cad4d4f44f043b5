//! What the answers of the store mean for the leases.

use std::time::{Duration, SystemTime};

use super::{
    ListenerTask, Settled,
    batcher::{Action, Item, Landed},
    leases::Key,
    reply,
};
use crate::{Error, LeaseAction, LeaseOutcome, Result, consumer::LeaseEnd, metrics, telemetry};

impl ListenerTask {
    pub(super) fn settled(&mut self, batcher: Settled, landed: Landed) {
        let now = self.now();
        match landed.answer {
            Ok(outcomes) => {
                let answers = landed.items.iter().zip(outcomes);
                let outcomes: Vec<_> = answers
                    .map(|(item, outcome)| self.inferred(item, outcome, now))
                    .collect();
                self.count(&landed.items, &outcomes);
                for (item, outcome) in landed.items.into_iter().zip(outcomes) {
                    self.finish(item, Ok(outcome));
                }
            }
            Err(error) => {
                self.report_error(&error);
                let mut again = Vec::new();
                let mut pause = Duration::MAX;
                for item in landed.items {
                    pause = pause.min(self.pause_for(item.key));
                    if error.is_retryable() && self.lasts(item.key, now) {
                        again.push(item);
                    } else {
                        self.finish(item, Err(error.clone()));
                    }
                }
                let batcher = match batcher {
                    Settled::ByAck => &mut self.acks,
                    Settled::ByChange => &mut self.changes,
                };
                batcher.repeat(again, now, pause);
            }
        }
    }

    /// What really happened to an item whose call failed before and now says `Lost`. While the
    /// lease lasts nobody else can have been given the message, so the one who settled it was the
    /// call that failed.
    fn inferred(&self, item: &Item, outcome: LeaseOutcome, now: SystemTime) -> LeaseOutcome {
        if outcome == LeaseOutcome::Lost && item.failures > 0 && self.lasts(item.key, now) {
            return LeaseOutcome::Applied;
        }
        outcome
    }

    /// Counts what happened in truth, which is more than what the store has said.
    fn count(&self, items: &[Item], outcomes: &[LeaseOutcome]) {
        let name = self.queue.name();
        if items.iter().all(|item| item.action == Action::Ack) {
            return metrics::acked(name, outcomes);
        }
        let changes = items.iter().filter_map(Item::change);
        metrics::changed(name, changes.zip(outcomes.iter().copied()));
    }

    /// Whether a lease certainly lasts.
    fn lasts(&self, key: Key, now: SystemTime) -> bool {
        self.leases.get(key).is_some_and(|held| held.expires > now)
    }

    fn finish(&mut self, item: Item, outcome: Result<LeaseOutcome>) {
        self.leases.remove(item.key);
        reply(item.answer, outcome);
    }

    pub(super) fn renewed(&mut self, landed: Landed) {
        let now = self.now();
        match landed.answer {
            Ok(outcomes) => {
                self.count(&landed.items, &outcomes);
                for (item, outcome) in landed.items.into_iter().zip(outcomes) {
                    match (outcome, &item.action) {
                        (LeaseOutcome::Applied, Action::Change(LeaseAction::Extend(by))) => {
                            self.leases.renewed(item.key, landed.sent, *by);
                        }
                        // Behind a settlement it was the settlement that ended the lease.
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
                self.renew_again(landed.items, &error, now);
            }
        }
    }

    /// Repeats renewals for as long as there is something to renew, whatever the error: what was
    /// denied may be granted in time, and giving up early helps nobody. Who asked for an
    /// extension learns of an error that does not pass.
    fn renew_again(&mut self, items: Vec<Item>, error: &Error, now: SystemTime) {
        let mut again = Vec::new();
        let mut pause = Duration::MAX;
        for item in items {
            let asked_for = item.answer.is_some();
            let Some(held) = self.leases.get(item.key) else {
                reply(item.answer, Ok(LeaseOutcome::Lost));
                continue;
            };
            if held.expires <= now || asked_for && !error.is_retryable() {
                reply(item.answer, Err(error.clone()));
                self.leases.renew_at(item.key, now);
                continue;
            }
            pause = pause.min(self.pause_for(item.key));
            again.push(item);
        }
        self.renewals.repeat(again, now, pause);
    }

    /// The longest pause after which a call for this lease is repeated: several attempts have to
    /// fit into its time.
    fn pause_for(&self, key: Key) -> Duration {
        let held = self.leases.get(key);
        held.map_or(Duration::MAX, |held| held.visibility / 8)
    }

    pub(super) fn report_error(&self, error: &Error) {
        telemetry::consumer::store_error(self.queue.name(), error);
        self.options.call_hook(error);
    }

    pub(super) fn report_end(&self, key: Key, why: LeaseEnd) {
        if let Some(held) = self.leases.get(key) {
            telemetry::consumer::lease_lost(self.queue.name(), &held.receipt, why.label());
        }
    }
}
