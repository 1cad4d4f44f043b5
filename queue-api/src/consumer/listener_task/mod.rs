//! The task of a listener. It claims, renews and settles.
//!
//! The task owns all state and gets commands through a channel, so there are no locks. Backend
//! calls run concurrently: a slow claim does not delay a renewal.

mod batcher;
mod command;
mod leases;
mod outcome;
mod poller;

use std::{collections::HashSet, future::pending, sync::Arc, time::SystemTime};

use tokio::sync::{mpsc, oneshot};

use self::{
    batcher::{Action, Answer, Batcher, BoxFuture, Completed, Item},
    leases::{Due, Leases},
    poller::{LONGEST_CALL, Polled, Poller},
};
pub(crate) use self::{
    command::{Command, Settlement},
    leases::after,
    poller::ProbeAnswer,
};
use super::{Lease, ListenOptions, inbox::Inbox};
use crate::{Delivery, Error, ErrorKind, LeaseAction, LeaseOptions, LeaseOutcome, Queue, Result};

pub(crate) struct ListenerTask {
    queue: Queue,
    options: ListenOptions,
    commands: mpsc::UnboundedReceiver<Command>,
    /// Weak, so that the task ends when the listener and all leases are gone.
    sender: mpsc::WeakUnboundedSender<Command>,
    inbox: Arc<Inbox>,
    leases: Leases,
    poller: Poller,
    acks: Batcher,
    changes: Batcher,
    renewals: Batcher,
    demanded: bool,
    stopped: bool,
    /// A drain does not wait for a lease call in flight.
    given_up: bool,
    /// The listener and all leases are gone.
    commands_closed: bool,
    stopping: Vec<oneshot::Sender<()>>,
    draining: Vec<oneshot::Sender<()>>,
}

enum Event {
    Command(Option<Command>),
    Polled(Polled),
    Settled(Completed),
    Renewed(Completed),
    Timer,
}

impl ListenerTask {
    pub(crate) fn new(
        queue: Queue,
        options: ListenOptions,
        commands: mpsc::UnboundedReceiver<Command>,
        sender: mpsc::WeakUnboundedSender<Command>,
        inbox: Arc<Inbox>,
    ) -> Self {
        let max_visibility = queue.limits().max_visibility_timeout;
        Self {
            queue,
            options,
            commands,
            sender,
            inbox,
            leases: Leases::new(max_visibility),
            poller: Poller::new(),
            acks: Batcher::new(),
            changes: Batcher::new(),
            renewals: Batcher::new(),
            demanded: false,
            stopped: false,
            given_up: false,
            commands_closed: false,
            stopping: Vec::new(),
            draining: Vec::new(),
        }
    }

    /// Runs until the listener and its leases are gone and all settlements are answered.
    pub(crate) async fn run(&mut self) {
        let mut timer = Timer::default();
        loop {
            self.gather_settlements().await;
            let now = self.now();
            self.process_due(now);
            self.send_calls(now);
            self.notify_waiters();
            if self.is_done() {
                return;
            }
            timer.set(&self.options, self.next_due());
            // Completed calls first, because they make room for the next claim.
            let event = tokio::select! {
                biased;
                completed = self.renewals.completed() => Event::Renewed(completed),
                completed = self.acks.completed() => Event::Settled(completed),
                completed = self.changes.completed() => Event::Settled(completed),
                polled = self.poller.completed() => Event::Polled(polled),
                command = self.commands.recv(), if !self.commands_closed => Event::Command(command),
                () = timer.elapsed() => Event::Timer,
            };
            match event {
                Event::Renewed(completed) => self.on_renewed(completed),
                Event::Settled(completed) => self.on_settled(completed),
                Event::Polled(polled) => self.on_polled(polled),
                Event::Command(command) => self.handle_commands(command),
                // A timer that is due at once never yields to other tasks of this thread.
                Event::Timer => tokio::task::yield_now().await,
            }
        }
    }

    fn now(&self) -> SystemTime {
        self.options.clock.now()
    }

    /// Ends expired leases, queues renewals that are due, and gives up overdue calls.
    fn process_due(&mut self, now: SystemTime) {
        while let Some(due) = self.leases.take_due(now) {
            match due {
                Due::Ended(key, why) => self.report_end(key, why),
                Due::Renewal(key, by) => {
                    let lease = self.leases.get(key).expect("a due lease is in the table");
                    self.renewals.waiting.push_back(Item {
                        key,
                        receipt: lease.receipt.clone(),
                        action: Action::Change(LeaseAction::Extend(by)),
                        answer: None,
                        failure: None,
                    });
                }
            }
        }
        if let Some(overdue) = self.poller.take_overdue(now) {
            self.on_polled(overdue);
        }
        if let Some(overdue) = self.renewals.take_overdue(now) {
            self.on_renewed(overdue);
        }
        if let Some(overdue) = self.acks.take_overdue(now) {
            self.on_settled(overdue);
        }
        if let Some(overdue) = self.changes.take_overdue(now) {
            self.on_settled(overdue);
        }
    }

    fn send_calls(&mut self, now: SystemTime) {
        if self.renewals.can_send(now) {
            self.send_renewals(now);
        }
        for batcher in [&mut self.acks, &mut self.changes] {
            if batcher.can_send(now) {
                batcher.send(&self.queue, &self.leases, now);
            }
        }
        let room = self.leases.room(self.options.concurrency);
        let wanted = self.demanded || self.poller.probe.is_some();
        // Called in any case, because it ends a pause that is over.
        let can_lease = self.poller.can_lease(now);
        // A lease call could take a message whose short lease is not extended yet.
        let can_lease = can_lease && self.leases.all_secured();
        if can_lease && wanted && !self.stopped && room > 0 {
            let max = room.min(self.queue.limits().max_batch.get());
            let mut options = LeaseOptions::new(max);
            if let Some(timeout) = self.options.visibility_timeout {
                options = options.with_visibility_timeout(timeout);
            }
            self.poller.lease(&self.queue, options, now);
        }
    }

    /// Sends the extensions that are still wanted. After the end of a lease, a renewal would hide a
    /// message that no handler works on. After an extension by the lease's owner, it would shorten it.
    fn send_renewals(&mut self, now: SystemTime) {
        let waiting = std::mem::take(&mut self.renewals.waiting);
        let extended: HashSet<_> = waiting
            .iter()
            .filter(|item| item.answer.is_some())
            .map(|item| item.key)
            .collect();
        for item in waiting {
            let wanted = match item.answer {
                Some(_) => !self.leases.is_settled(item.key),
                None => self.leases.needs_renewal(item.key) && !extended.contains(&item.key),
            };
            if wanted {
                self.renewals.waiting.push_back(item);
            } else {
                reply(item.answer, Err(extended_too_late()));
            }
        }
        if self.renewals.waiting.is_empty() {
            return;
        }
        for item in self.renewals.send(&self.queue, &self.leases, now) {
            if let Action::Change(LeaseAction::Extend(by)) = item.action {
                self.leases.may_shorten(item.key, now, by);
            }
        }
    }

    fn on_polled(&mut self, polled: Polled) {
        let now = self.now();
        match polled {
            Polled::Waited {
                until,
                answer: Ok(()),
            } => self.poller.waited(until, now),
            Polled::Waited {
                answer: Err(error), ..
            } => self.on_poll_error(&error, now),
            Polled::Paused => {}
            Polled::Leased {
                answer: Err(error),
                probe,
                ..
            } => {
                self.poller.probe = self.poller.probe.take().or(probe);
                self.on_poll_error(&error, now);
            }
            Polled::Leased {
                sent,
                probe,
                answer: Ok(deliveries),
            } => {
                let found = match deliveries.is_empty() {
                    true => ProbeAnswer::NothingReady,
                    false => ProbeAnswer::SomethingLeased,
                };
                if let Some(probe) = probe {
                    let _ = probe.send(found);
                }
                self.on_leased(deliveries, sent, now);
            }
        }
    }

    fn on_leased(&mut self, deliveries: Vec<Delivery>, sent: SystemTime, now: SystemTime) {
        if !deliveries.is_empty() {
            self.poller.leased_some();
            self.deliver(deliveries, sent, now);
        } else if !self.stopped {
            self.poller.leased_none(&self.queue, now);
        }
    }

    fn on_poll_error(&mut self, error: &Error, now: SystemTime) {
        self.report_error(error);
        if !self.stopped {
            self.poller.failed(error, now);
        }
    }

    /// Puts leases in the inbox. A lease that expired in flight is short: it is handed out, because its
    /// attempt counts. If the process was suspended, other consumers are likely to have the message,
    /// so it is released. So are all leases after a stop.
    fn deliver(&mut self, deliveries: Vec<Delivery>, sent: SystemTime, now: SystemTime) {
        let mut expired = 0;
        let mut fresh = Vec::with_capacity(deliveries.len());
        let mut short = Vec::new();
        let suspended = after(sent, LONGEST_CALL) < now;
        for delivery in deliveries {
            let max_lease_time = self.options.max_lease_time;
            let (key, end) = self
                .leases
                .insert(&delivery, sent, now, max_lease_time, suspended);
            let is_short = !self.leases.is_secured(key);
            let in_time = is_short || after(sent, delivery.visibility_timeout) > now;
            expired += usize::from(!in_time);
            match self.sender.upgrade() {
                Some(sender) if in_time && !self.stopped => {
                    let leases = if is_short { &mut short } else { &mut fresh };
                    leases.push(Lease::new(delivery, key, sender, end));
                }
                _ => self.settle(key, Settlement::ReleaseUnstarted, None),
            }
        }
        fresh.append(&mut short);
        if expired > 0 {
            let message = format!("{expired} leases expired before their lease call returned");
            let error = Error::new(ErrorKind::TimedOut, "lease", message);
            self.on_poll_error(&error, now);
        }
        if !fresh.is_empty() {
            self.demanded = false;
            self.inbox.put(fresh);
        }
    }

    /// Answers the futures of `stop` and `drain` when their work is done.
    fn notify_waiters(&mut self) {
        if !self.stopped || self.poller.is_leasing() && !self.given_up {
            return;
        }
        let unstarted = |item: &Item| item.action == Action::ReleaseUnstarted;
        if !self.stopping.is_empty() && !self.changes.items().any(unstarted) {
            for done in self.stopping.drain(..) {
                let _ = done.send(());
            }
        }
        if self.leases.len() == 0 {
            for done in self.draining.drain(..) {
                let _ = done.send(());
            }
        }
    }

    fn is_done(&self) -> bool {
        let batchers = [&self.acks, &self.changes, &self.renewals];
        self.commands_closed
            && !self.poller.is_leasing()
            && batchers.iter().all(|batcher| batcher.is_idle())
    }

    fn next_due(&self) -> Option<SystemTime> {
        let batchers = [&self.acks, &self.changes, &self.renewals];
        batchers
            .iter()
            .filter_map(|batcher| batcher.next_due())
            .chain(self.leases.next_due())
            .chain(self.poller.next_due())
            .min()
    }
}

impl Drop for ListenerTask {
    /// Ends the stream if the runtime shuts down.
    fn drop(&mut self) {
        self.inbox.close();
    }
}

fn reply(answer: Answer, outcome: Result<LeaseOutcome>) {
    if let Some(answer) = answer {
        // The future may have been dropped.
        let _ = answer.send(outcome);
    }
}

/// Only the store says that a lease is lost.
fn extended_too_late() -> Error {
    let message = "the lease was settled before it was extended";
    Error::new(ErrorKind::Unavailable, "change", message)
}

/// Sleeps on the listener's clock until a lease or a call is due.
#[derive(Default)]
struct Timer {
    deadline: Option<SystemTime>,
    sleep: Option<BoxFuture<()>>,
}

impl Timer {
    fn set(&mut self, options: &ListenOptions, deadline: Option<SystemTime>) {
        if self.deadline == deadline {
            return;
        }
        let clock = options.clock.clone();
        self.deadline = deadline;
        self.sleep = deadline.map(|deadline| -> BoxFuture<()> {
            Box::pin(async move { clock.sleep_until(deadline).await })
        });
    }

    async fn elapsed(&mut self) {
        match &mut self.sleep {
            Some(sleep) => sleep.await,
            None => pending().await,
        }
        (self.deadline, self.sleep) = (None, None);
    }
}
