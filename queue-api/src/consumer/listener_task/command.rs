//! What the task is told by the listener and its leases.

use std::time::Duration;

use tokio::sync::oneshot;

use super::{
    ListenerTask,
    batcher::{Action, Answer, Item},
    claim::Probe,
    leases::Key,
    reply,
};
use crate::{Error, LeaseAction, LeaseOutcome, Result, consumer::Lease};

/// What the listener and its leases tell the task.
#[derive(Debug)]
pub(crate) enum Command {
    /// The stream was polled and had nothing.
    Demand,
    /// Tell me whether anything is ready.
    Probe(Probe),
    /// Claim nothing more, and tell me when what nobody has begun is given back.
    Stop(oneshot::Sender<()>),
    /// Tell me when no lease is left.
    Drain(oneshot::Sender<()>),
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

/// What is to become of a lease.
#[derive(Debug)]
pub(crate) enum Settlement {
    Ack,
    Change(LeaseAction),
    /// It was dropped by whoever had it.
    Release,
    /// It was dropped before anybody had it.
    GiveBackUnstarted,
    /// Somebody settles it by other means.
    Dismiss,
}

/// How often in a row all others have run without another settlement, before those that there are
/// are sent; several, as another thread may be about to run who gives one.
const QUIET_TURNS: u32 = 3;

impl ListenerTask {
    /// Lets those give their settlements who are about to, for as long as somebody does: handlers
    /// that begin together and do little end together. The first settlement would go alone
    /// otherwise, and make room for a claim of one. It ends, because each lease has one settlement.
    pub(super) async fn gather(&mut self) {
        let now = self.now();
        let mut quiet_turns = 0;
        while quiet_turns < QUIET_TURNS && (self.acks.is_open(now) || self.changes.is_open(now)) {
            tokio::task::yield_now().await;
            let before = self.acks.waiting.len() + self.changes.waiting.len();
            while let Ok(next) = self.commands.try_recv() {
                self.handle(next);
            }
            let waiting = self.acks.waiting.len() + self.changes.waiting.len();
            quiet_turns = match waiting > before {
                true => 0,
                false => quiet_turns + 1,
            };
        }
    }

    /// Takes a command and those behind it, so that what was asked for together is sent together.
    pub(super) fn on_command(&mut self, first: Option<Command>) {
        let Some(first) = first else {
            self.deserted = true;
            self.stop();
            return;
        };
        self.handle(first);
        while let Ok(next) = self.commands.try_recv() {
            self.handle(next);
        }
    }

    fn handle(&mut self, command: Command) {
        match command {
            Command::Demand => self.demanded = true,
            Command::Probe(probe) => self.claim.ask(probe),
            Command::Stop(done) => {
                self.stop();
                self.stopping.push(done);
            }
            Command::Drain(done) => self.draining.push(done),
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
        self.claim.stop();
        self.claim.probe = None;
    }

    pub(super) fn settle(&mut self, key: Key, settlement: Settlement, mut answer: Answer) {
        let Some(held) = self.leases.get(key) else {
            return;
        };
        let receipt = held.receipt.clone();
        let release = || LeaseAction::Nack {
            delay: Lease::RELEASE_DELAY.min(held.visibility),
        };
        let action = match settlement {
            Settlement::Ack => Action::Ack,
            Settlement::GiveBackUnstarted => Action::GiveBackUnstarted,
            Settlement::Release => Action::Change(release()),
            Settlement::Dismiss => return self.leases.remove(key),
            Settlement::Change(action) => match self.queue.limits().check_action(&action) {
                Ok(()) => Action::Change(action),
                // One bad settlement must not fail the batch that it would be sent in.
                Err(wrong) => {
                    reply(answer.take(), Err(Error::invalid("change", wrong)));
                    Action::Change(release())
                }
            },
        };
        self.leases.begin_settling(key);
        let batcher = match action {
            Action::Ack => &mut self.acks,
            _ => &mut self.changes,
        };
        batcher.waiting.push_back(Item {
            key,
            receipt,
            action,
            answer,
            failures: 0,
        });
    }

    fn extend(&mut self, key: Key, by: Duration, answer: oneshot::Sender<Result<LeaseOutcome>>) {
        let action = LeaseAction::Extend(by);
        match (
            self.leases.get(key),
            self.queue.limits().check_action(&action),
        ) {
            (_, Err(wrong)) => reply(Some(answer), Err(Error::invalid("change", wrong))),
            (None, _) => reply(Some(answer), Ok(LeaseOutcome::Lost)),
            (Some(held), Ok(())) => self.renewals.waiting.push_back(Item {
                key,
                receipt: held.receipt.clone(),
                action: Action::Change(action),
                answer: Some(answer),
                failures: 0,
            }),
        }
    }
}
