//! Commands of the listener and its leases to the task.

use std::time::Duration;

use tokio::sync::oneshot;

use super::{
    ListenerTask,
    batcher::{Action, Answer, Batcher, Item},
    extended_too_late,
    leases::Key,
    poller::Probe,
    reply,
};
use crate::{Error, ErrorKind, LeaseAction, LeaseOutcome, Result, consumer::Lease};

#[derive(Debug)]
pub(crate) enum Command {
    /// The stream was polled while the inbox was empty.
    Demand,
    Probe(Probe),
    /// Claim nothing more. Answered when leases that were not handed out are released.
    Stop(oneshot::Sender<()>),
    /// Answered when no lease is left.
    Drain(oneshot::Sender<()>),
    /// Wait no longer for the store.
    GiveUp,
    Settle {
        key: Key,
        settlement: Settlement,
        answer: Answer,
    },
    Extend {
        key: Key,
        by: Duration,
        answer: oneshot::Sender<Result<LeaseOutcome>>,
    },
}

/// How a lease ends.
#[derive(Debug)]
pub(crate) enum Settlement {
    Ack,
    Change(LeaseAction),
    /// The lease was dropped after it was handed out.
    Dropped,
    /// The lease was dropped before it was handed out.
    ReleaseUnstarted,
    /// The caller settles the receipt by other means.
    Detach,
}

/// Settlements are sent after this many scheduler turns without another one. One turn is too few
/// with several threads: another thread may be about to run a handler that ends.
const QUIET_TURNS: u32 = 3;

impl ListenerTask {
    /// Lets other tasks run for as long as they settle leases. Short handlers that begin together
    /// end together; otherwise the first settlement would go alone, and make room for a claim of
    /// one message. This ends, because each lease is settled once.
    pub(super) async fn gather_settlements(&mut self) {
        let now = self.now();
        let mut quiet_turns = 0;
        while quiet_turns < QUIET_TURNS && (self.acks.can_send(now) || self.changes.can_send(now)) {
            tokio::task::yield_now().await;
            let before = self.acks.waiting.len() + self.changes.waiting.len();
            while let Ok(next) = self.commands.try_recv() {
                self.handle_command(next);
            }
            let waiting = self.acks.waiting.len() + self.changes.waiting.len();
            quiet_turns = match waiting > before {
                true => 0,
                false => quiet_turns + 1,
            };
        }
    }

    /// Handles a command and all that wait behind it, so that they share calls. `None` means that no
    /// sender is left.
    pub(super) fn handle_commands(&mut self, first: Option<Command>) {
        let Some(first) = first else {
            self.commands_closed = true;
            self.stop();
            return;
        };
        self.handle_command(first);
        while let Ok(next) = self.commands.try_recv() {
            self.handle_command(next);
        }
    }

    fn handle_command(&mut self, command: Command) {
        match command {
            Command::Demand => self.demanded = true,
            Command::Probe(probe) => self.poller.set_probe(probe),
            Command::Stop(done) => {
                self.stop();
                self.stopping.push(done);
            }
            Command::Drain(done) => self.draining.push(done),
            Command::GiveUp => self.give_up(),
            Command::Settle {
                key,
                settlement,
                answer,
            } => self.settle(key, settlement, answer),
            Command::Extend { key, by, answer } => self.extend(key, by, answer),
        }
    }

    fn stop(&mut self) {
        self.stopped = true;
        self.demanded = false;
        self.poller.stop();
        self.poller.probe = None;
    }

    fn give_up(&mut self) {
        self.given_up = true;
        let mut items = self.acks.take_all();
        items.extend(self.changes.take_all());
        if items.is_empty() {
            return;
        }
        let message = "the store did not confirm the settlement before the shutdown ended";
        let error = Error::new(ErrorKind::TimedOut, "settle", message);
        self.report_error(&error);
        for item in items {
            self.finish(item, Err(error.clone()));
        }
    }

    pub(super) fn settle(&mut self, key: Key, settlement: Settlement, mut answer: Answer) {
        let Some(lease) = self.leases.get(key) else {
            return;
        };
        let receipt = lease.receipt.clone();
        let nack_soon = Action::Change(LeaseAction::Nack {
            delay: Lease::RELEASE_DELAY
                .min(lease.visibility)
                .min(self.queue.limits().max_delay),
        });
        let action = match settlement {
            Settlement::Ack => Action::Ack,
            Settlement::ReleaseUnstarted => Action::ReleaseUnstarted,
            Settlement::Dropped => nack_soon,
            Settlement::Detach => return self.leases.remove(key),
            Settlement::Change(action) => match self.queue.limits().check_action(&action) {
                Ok(()) => Action::Change(action),
                // An invalid settlement must not fail the whole batch.
                Err(wrong) => {
                    reply(answer.take(), Err(Error::invalid_value("change", wrong)));
                    nack_soon
                }
            },
        };
        self.leases.begin_settling(key);
        self.batcher_for(&action).waiting.push_back(Item {
            key,
            receipt,
            action,
            answer,
            failure: None,
        });
    }

    pub(super) fn batcher_for(&mut self, action: &Action) -> &mut Batcher {
        match action {
            Action::Ack => &mut self.acks,
            Action::Change(_) | Action::ReleaseUnstarted => &mut self.changes,
        }
    }

    fn extend(&mut self, key: Key, by: Duration, answer: oneshot::Sender<Result<LeaseOutcome>>) {
        let action = LeaseAction::Extend(by);
        if let Err(wrong) = self.queue.limits().check_action(&action) {
            return reply(Some(answer), Err(Error::invalid_value("change", wrong)));
        }
        match self.leases.get(key) {
            None => reply(Some(answer), Err(extended_too_late())),
            Some(lease) => self.renewals.waiting.push_back(Item {
                key,
                receipt: lease.receipt.clone(),
                action: Action::Change(action),
                answer: Some(answer),
                failure: None,
            }),
        }
    }
}
