//! The one task of a listener: it claims, renews and settles.
//!
//! It owns everything and is told what to do by messages, so there is no lock that a call to the
//! store could be made under, and no order of two tasks to think about. The calls themselves run
//! beside each other: a claim that takes long keeps no renewal waiting.

mod batcher;
mod claim;
mod command;
mod leases;
mod outcome;

use std::{collections::HashSet, future::pending, sync::Arc, time::SystemTime};

use tokio::sync::{mpsc, oneshot};

use self::{
    batcher::{Action, Answer, Batcher, BoxFuture, Item, Landed},
    claim::{Claim, Claimed},
    leases::{Due, Leases},
};
pub(crate) use self::{
    claim::ProbeAnswer,
    command::{Command, Settlement},
    leases::after,
};
use super::{Lease, ListenOptions, inbox::Inbox};
use crate::{Delivery, Error, ErrorKind, LeaseAction, LeaseOptions, LeaseOutcome, Queue, Result};

pub(crate) struct ListenerTask {
    queue: Queue,
    options: ListenOptions,
    commands: mpsc::UnboundedReceiver<Command>,
    /// Weak, because the task ends when the listener and all leases are gone.
    sender: mpsc::WeakUnboundedSender<Command>,
    inbox: Arc<Inbox>,
    leases: Leases,
    claim: Claim,
    acks: Batcher,
    changes: Batcher,
    renewals: Batcher,
    demanded: bool,
    stopped: bool,
    /// Nobody is left who could send a command.
    deserted: bool,
    stopping: Vec<oneshot::Sender<()>>,
    draining: Vec<oneshot::Sender<()>>,
}

/// Which batcher something came from.
#[derive(Clone, Copy, Debug)]
enum Settled {
    ByAck,
    ByChange,
}

enum Event {
    Told(Option<Command>),
    Claimed(Claimed),
    Settled(Settled, Landed),
    Renewed(Landed),
    Time,
}

impl ListenerTask {
    pub(crate) fn new(
        queue: Queue,
        options: ListenOptions,
        commands: mpsc::UnboundedReceiver<Command>,
        sender: mpsc::WeakUnboundedSender<Command>,
        inbox: Arc<Inbox>,
    ) -> Self {
        Self {
            queue,
            options,
            commands,
            sender,
            inbox,
            leases: Leases::default(),
            claim: Claim::new(),
            acks: Batcher::new(),
            changes: Batcher::new(),
            renewals: Batcher::new(),
            demanded: false,
            stopped: false,
            deserted: false,
            stopping: Vec::new(),
            draining: Vec::new(),
        }
    }

    /// Runs until the listener and all its leases are gone and every settlement has its outcome.
    pub(crate) async fn run(mut self) {
        let mut timer = Timer::default();
        loop {
            self.gather().await;
            let now = self.now();
            self.process_due(now);
            self.send(now);
            self.tell_who_waits();
            if self.is_done() {
                return;
            }
            timer.set(&self.options, self.next_due());
            // What has landed goes first: it makes room for what is asked for next.
            let event = tokio::select! {
                biased;
                landed = self.renewals.landed() => Event::Renewed(landed),
                landed = self.acks.landed() => Event::Settled(Settled::ByAck, landed),
                landed = self.changes.landed() => Event::Settled(Settled::ByChange, landed),
                claimed = self.claim.claimed() => Event::Claimed(claimed),
                command = self.commands.recv(), if !self.deserted => Event::Told(command),
                () = timer.elapsed() => Event::Time,
            };
            match event {
                Event::Renewed(landed) => self.renewed(landed),
                Event::Settled(batcher, landed) => self.settled(batcher, landed),
                Event::Claimed(claimed) => self.claimed(claimed),
                Event::Told(command) => self.on_command(command),
                // A timer that was due at once gave nobody else a turn on this thread.
                Event::Time => tokio::task::yield_now().await,
            }
        }
    }

    fn now(&self) -> SystemTime {
        self.options.clock.now()
    }

    /// Looks what has run out and what is to be renewed.
    fn process_due(&mut self, now: SystemTime) {
        while let Some(due) = self.leases.take_due(now) {
            match due {
                Due::Ended(key, why) => self.report_end(key, why),
                Due::Renewal(key, by) => {
                    let held = self.leases.get(key).expect("what is due is held");
                    self.renewals.waiting.push_back(Item {
                        key,
                        receipt: held.receipt.clone(),
                        action: Action::Change(LeaseAction::Extend(by)),
                        answer: None,
                        failures: 0,
                    });
                }
            }
        }
        if let Some(landed) = self.renewals.overdue(now) {
            self.renewed(landed);
        }
        if let Some(landed) = self.acks.overdue(now) {
            self.settled(Settled::ByAck, landed);
        }
        if let Some(landed) = self.changes.overdue(now) {
            self.settled(Settled::ByChange, landed);
        }
    }

    /// Sends what can be sent.
    fn send(&mut self, now: SystemTime) {
        if self.renewals.is_open(now) {
            self.send_renewals(now);
        }
        for batcher in [&mut self.acks, &mut self.changes] {
            if batcher.is_open(now) {
                batcher.send(&self.queue, &self.leases, now);
            }
        }
        let room = self.leases.room(self.options.concurrency);
        let wanted = self.demanded || self.claim.probe.is_some();
        // Asked first, because it ends a pause that is over, and one that nobody ends stays due.
        let open = self.claim.is_open(now);
        if open && wanted && !self.stopped && room > 0 {
            let most = room.min(self.queue.limits().max_batch);
            let mut options = LeaseOptions::new(most);
            if let Some(timeout) = self.options.visibility_timeout {
                options = options.with_visibility_timeout(timeout);
            }
            self.claim.lease(&self.queue, options, now);
        }
    }

    /// Extends what is still worth it. An extension that follows a settlement would be harmless, one
    /// that follows the end of a lease would hide a message for which nobody is working, and a
    /// renewal behind an extension that somebody asked for would cut it short.
    fn send_renewals(&mut self, now: SystemTime) {
        let waiting = std::mem::take(&mut self.renewals.waiting);
        let asked_for: HashSet<_> = waiting
            .iter()
            .filter(|item| item.answer.is_some())
            .map(|item| item.key)
            .collect();
        for item in waiting {
            let wanted = match item.answer {
                Some(_) => self.leases.is_open(item.key),
                None => self.leases.is_renewing(item.key) && !asked_for.contains(&item.key),
            };
            if wanted {
                self.renewals.waiting.push_back(item);
            } else {
                reply(item.answer, Ok(LeaseOutcome::Lost));
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

    fn claimed(&mut self, claimed: Claimed) {
        let now = self.now();
        match claimed {
            Claimed::Waited {
                since,
                answer: Ok(()),
            } => self.claim.waited(since, now),
            Claimed::Waited {
                answer: Err(error), ..
            } => self.claim_failed(&error, now),
            Claimed::Leased {
                answer: Err(error),
                probe,
                ..
            } => {
                self.claim.probe = self.claim.probe.take().or(probe);
                self.claim_failed(&error, now);
            }
            Claimed::Leased {
                sent,
                probe,
                answer: Ok(deliveries),
            } => {
                let found = match deliveries.is_empty() {
                    true => ProbeAnswer::NothingReady,
                    false => ProbeAnswer::SomethingLeased,
                };
                if let Some(probe) = probe {
                    // Whoever does not wait any more does not want to know.
                    let _ = probe.send(found);
                }
                self.leased(deliveries, sent, now);
            }
        }
    }

    fn leased(&mut self, deliveries: Vec<Delivery>, sent: SystemTime, now: SystemTime) {
        if !deliveries.is_empty() {
            self.claim.found_some();
            self.deliver(deliveries, sent, now);
        } else if !self.stopped {
            self.claim.found_nothing(&self.queue, now);
        }
    }

    fn claim_failed(&mut self, error: &Error, now: SystemTime) {
        self.report_error(error);
        if !self.stopped {
            self.claim.failed(error, now);
        }
    }

    /// Hands leases to the stream, or back where nobody will read it or the lease has run out
    /// on its way here.
    fn deliver(&mut self, deliveries: Vec<Delivery>, sent: SystemTime, now: SystemTime) {
        let mut late = 0;
        let mut fresh = Vec::with_capacity(deliveries.len());
        for delivery in deliveries {
            let (key, end) = self
                .leases
                .insert(&delivery, sent, self.options.max_lease_time);
            let in_time = after(sent, delivery.visibility_timeout) > now;
            late += usize::from(!in_time);
            match self.sender.upgrade() {
                Some(sender) if in_time && !self.stopped => {
                    fresh.push(Lease::new(delivery, key, sender, end));
                }
                _ => self.settle(key, Settlement::GiveBackUnstarted, None),
            }
        }
        if late > 0 {
            let message = format!("{late} leases ran out before the call that made them returned");
            let error = Error::new(ErrorKind::TimedOut, "lease", message);
            self.claim_failed(&error, now);
        }
        if !fresh.is_empty() {
            self.demanded = false;
            self.inbox.put(fresh);
        }
    }

    /// Answers those who wait for an end, when it has come.
    fn tell_who_waits(&mut self) {
        if !self.stopped || self.claim.is_leasing() {
            return;
        }
        let unstarted = |item: &Item| item.action == Action::GiveBackUnstarted;
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
        self.deserted
            && !self.claim.is_leasing()
            && batchers.iter().all(|batcher| batcher.is_idle())
    }

    fn next_due(&self) -> Option<SystemTime> {
        let batchers = [&self.acks, &self.changes, &self.renewals];
        batchers
            .iter()
            .filter_map(|batcher| batcher.next_due())
            .chain(self.leases.next_due())
            .chain(self.claim.next_due())
            .min()
    }
}

impl Drop for ListenerTask {
    /// Also when the runtime shuts down: whoever reads the stream learns that nothing comes.
    fn drop(&mut self) {
        self.inbox.close();
    }
}

fn reply(answer: Answer, outcome: Result<LeaseOutcome>) {
    if let Some(answer) = answer {
        // Whoever does not wait any more does not want to know.
        let _ = answer.send(outcome);
    }
}

/// Sleeps until the next thing is due, through the listener's clock.
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
