//! Acks and changes: whose lease a receipt proves, and what becomes of it.

use queue_api::{DeadReason, LeaseAction, LeaseOutcome, QueueName, Receipt, Result};

use crate::{
    bug::Bug,
    lease::id_in,
    message::{Message, Millis, Settled},
    state::{State, refused},
};

/// A receipt and what is wanted of it.
#[derive(Clone, Debug)]
pub(crate) struct Use {
    pub(crate) receipt: Receipt,
    pub(crate) action: Action,
}

#[derive(Clone, Debug)]
pub(crate) enum Action {
    Ack,
    Change(LeaseAction),
}

impl Use {
    pub(crate) fn is_ack(&self) -> bool {
        matches!(self.action, Action::Ack)
    }

    pub(crate) fn is_burial(&self) -> bool {
        matches!(self.action, Action::Change(LeaseAction::DeadLetter { .. }))
    }
}

use LeaseOutcome::{Applied, Lost};

impl State {
    /// Carries out a batch of acks or of changes.
    pub(crate) fn settle(
        &mut self,
        queue: &QueueName,
        uses: &[Use],
        now: Millis,
    ) -> Result<Vec<LeaseOutcome>> {
        if uses.is_empty() && self.has(Bug::EmptyBatchIsAnError) {
            return Err(refused("settle", "a batch of none"));
        }
        let found: Vec<_> = uses.iter().map(|u| self.held_by(queue, u, now)).collect();
        if self.has(Bug::AllOrNothing) && found.contains(&None) {
            return Ok(vec![Lost; uses.len()]);
        }
        let mut outcomes = Vec::new();
        for (n, wanted) in uses.iter().enumerate() {
            self.refuse_malformed(&wanted.receipt)?;
            outcomes.push(match self.bug {
                Some(Bug::OnlyFirstSettled) if n > 0 => found[n].as_ref().map_or(Lost, |_| Applied),
                Some(Bug::SettlesAtMost100) if n >= 100 => {
                    found[n].as_ref().map_or(Lost, |_| Applied)
                }
                Some(Bug::TwiceInBatchIsTwiceApplied) => match found[n].clone() {
                    Some((queue, arrival)) => self.apply(&queue, arrival, &wanted.action, now),
                    None => Lost,
                },
                Some(Bug::FirstActionForBatch) => self.settle_one(queue, wanted, &uses[0], now),
                Some(Bug::LastChangeOnly) => {
                    let last = uses.iter().rfind(|u| u.receipt == wanted.receipt);
                    self.settle_one(queue, wanted, last.unwrap_or(wanted), now)
                }
                Some(Bug::FirstChangeOnly) => {
                    let first = uses.iter().find(|u| u.receipt == wanted.receipt);
                    self.settle_one(queue, wanted, first.unwrap_or(wanted), now)
                }
                _ => self.settle_one(queue, wanted, wanted, now),
            });
        }
        if self.has(Bug::LostIsAnError) && outcomes.contains(&Lost) {
            return Err(refused("settle", "no such lease"));
        }
        Ok(self.as_told(uses, outcomes))
    }

    fn as_told(&self, uses: &[Use], mut outcomes: Vec<LeaseOutcome>) -> Vec<LeaseOutcome> {
        match self.bug {
            Some(Bug::AllAppliedIfAny) if outcomes.contains(&Applied) => outcomes.fill(Applied),
            Some(Bug::LostOutcomesLast) => outcomes.sort_by_key(|outcome| *outcome == Lost),
            Some(Bug::LostOutcomesMissing) => outcomes.retain(|outcome| *outcome == Applied),
            Some(Bug::OutcomesSortedById) => {
                let mut by_id: Vec<_> = uses.iter().zip(outcomes).collect();
                by_id.sort_by_key(|(wanted, _)| id_in(&wanted.receipt));
                outcomes = by_id.into_iter().map(|(_, outcome)| outcome).collect();
            }
            _ => {}
        }
        outcomes
    }

    fn settle_one(
        &mut self,
        queue: &QueueName,
        wanted: &Use,
        made: &Use,
        now: Millis,
    ) -> LeaseOutcome {
        match self.held_by(queue, wanted, now) {
            Some((queue, arrival)) => self.apply(&queue, arrival, &made.action, now),
            None => self.told_of_none(queue, wanted),
        }
    }

    /// The message that the receipt gives a right to, and its queue.
    pub(crate) fn held_by(
        &self,
        queue: &QueueName,
        wanted: &Use,
        now: Millis,
    ) -> Option<(QueueName, u64)> {
        let anywhere = self.has(Bug::ReceiptsOfAnyQueue);
        let queues = self
            .queues
            .iter()
            .filter(|(name, _)| anywhere || *name == queue);
        queues
            .flat_map(|(name, messages)| messages.iter().map(move |message| (name, message)))
            .find(|(_, message)| self.holds(message, wanted, now))
            .map(|(name, message)| (name.clone(), message.arrival))
    }

    fn holds(&self, message: &Message, wanted: &Use, now: Millis) -> bool {
        let receipt = &wanted.receipt;
        let late = message.ready_at <= now;
        let is_ack = wanted.is_ack();
        let is_extend = matches!(wanted.action, Action::Change(LeaseAction::Extend(_)));
        let held = message.is_held_by(receipt);
        let of_its_id = message.lease.is_some() && id_in(receipt) == Some(message.sent.id.as_str());
        let spent_on = |how| message.was_settled(receipt, how);
        match self.bug {
            Some(Bug::LateAckRefused) if is_ack => held && !late,
            Some(Bug::LateExtendRefused) if is_extend => held && !late,
            Some(Bug::LateChangeRefused) if !is_ack && !is_extend => held && !late,
            Some(Bug::LastAttemptAckRefused) if is_ack => {
                held && !(late && message.attempts >= message.sent.max_attempts)
            }
            Some(Bug::ExtendSettles) => held && !message.scars.extended,
            Some(Bug::AckById) if is_ack => of_its_id,
            Some(Bug::ChangeById) if !is_ack && !is_extend => of_its_id,
            Some(Bug::ExtendById) if is_extend => of_its_id,
            Some(Bug::PurgedReceiptWorks) => {
                held || self
                    .memory
                    .purged
                    .contains(&(receipt.clone(), message.sent.id.clone()))
            }
            Some(Bug::NackKeepsReceipt) => held || spent_on(Settled::Nack),
            Some(Bug::ReleaseKeepsReceipt) => held || spent_on(Settled::Release),
            Some(Bug::DeadLetterKeepsReceipt) => held || spent_on(Settled::DeadLetter),
            Some(Bug::BuriedReceiptAcks) if is_ack => held || spent_on(Settled::Burial),
            Some(Bug::ReceiptsCompareByPrefix) => {
                let starts = |lease: &str| receipt.as_str().starts_with(lease);
                message
                    .lease
                    .as_ref()
                    .is_some_and(|lease| starts(lease.receipt.as_str()))
            }
            _ => held,
        }
    }

    fn refuse_malformed(&self, receipt: &Receipt) -> Result<()> {
        let number = receipt
            .as_str()
            .split_once('-')
            .map(|(number, _)| number.parse::<u64>());
        match (self.bug, number) {
            (_, Some(Ok(_))) => Ok(()),
            (Some(Bug::MadeUpReceiptPanics), _) => panic!("no number in {receipt}"),
            (Some(Bug::MadeUpReceiptIsAnError), _) => Err(refused("settle", "no receipt")),
            _ => Ok(()),
        }
    }

    /// What is said of a receipt that nothing answers to.
    fn told_of_none(&self, queue: &QueueName, wanted: &Use) -> LeaseOutcome {
        let id = id_in(&wanted.receipt);
        let gone = || {
            !self
                .messages(queue)
                .iter()
                .any(|m| Some(m.sent.id.as_str()) == id)
        };
        match (self.bug, &wanted.action) {
            (Some(Bug::SecondAckApplied), Action::Ack) if gone() => Applied,
            (Some(Bug::ChangeAfterAckApplied), Action::Change(_)) if gone() => Applied,
            _ => Lost,
        }
    }

    fn apply(
        &mut self,
        queue: &QueueName,
        arrival: u64,
        action: &Action,
        now: Millis,
    ) -> LeaseOutcome {
        match action {
            Action::Ack => self.apply_ack(queue, arrival, now),
            Action::Change(action) => self.apply_change(queue, arrival, action, now),
        }
        Applied
    }

    fn apply_ack(&mut self, queue: &QueueName, arrival: u64, now: Millis) {
        match (self.bug, self.message(queue, arrival)) {
            // It was removed by an earlier use of the same batch.
            (_, None) => {}
            (Some(Bug::AckOnlyHides), Some(message)) => {
                message.settle(Settled::Nack);
                message.ready_at = now + message.sent.visibility_timeout.as_millis() as Millis;
            }
            (Some(Bug::AckBuries), Some(_)) => {
                let reason = DeadReason::Rejected("done".to_owned());
                self.bury(queue, arrival, now, reason, Settled::DeadLetter);
            }
            (Some(Bug::AckEndsItsLeaseCall), Some(message)) => {
                let call = message.lease.as_ref().map(|lease| lease.call);
                let other = |m: &Message| m.lease.as_ref().map(|lease| lease.call) != call;
                self.messages_mut(queue).retain(other);
            }
            _ => drop(self.remove(queue, arrival)),
        }
    }

    fn apply_change(&mut self, queue: &QueueName, arrival: u64, action: &LeaseAction, now: Millis) {
        match action {
            LeaseAction::Extend(by) => {
                let until = now + self.millis(*by);
                self.extend(queue, arrival, until, now);
            }
            LeaseAction::Nack { delay } => {
                let delay = self.millis(*delay);
                self.nack(queue, arrival, delay, now);
            }
            LeaseAction::Release => self.release(queue, arrival, now),
            LeaseAction::DeadLetter { reason } => {
                let reason = match self.bug {
                    Some(Bug::ReasonLost) => DeadReason::Rejected(String::new()),
                    Some(Bug::ReasonCutAt256) => {
                        DeadReason::Rejected(reason.chars().take(256).collect())
                    }
                    Some(Bug::RejectedAsExhausted) => DeadReason::AttemptsExhausted,
                    _ => DeadReason::Rejected(reason.clone()),
                };
                let at = match self.bug {
                    Some(Bug::RejectedSinceExpiry) => self
                        .message(queue, arrival)
                        .map_or(now, |message| message.ready_at),
                    _ => now,
                };
                self.bury(queue, arrival, at, reason, Settled::DeadLetter);
            }
        }
    }

    fn extend(&mut self, queue: &QueueName, arrival: u64, until: Millis, now: Millis) {
        let bug = self.bug;
        let message = self.message(queue, arrival).expect("it was found");
        let (old, late) = (message.ready_at, message.ready_at <= now);
        message.ready_at = match bug {
            Some(Bug::ExtendAddsToExpiry) => old + (until - now),
            Some(Bug::ExtendCannotShorten) => old.max(until),
            Some(Bug::ExtendByOwnTimeout) => {
                now + message.sent.visibility_timeout.as_millis() as Millis
            }
            Some(Bug::ExtendWithoutEffect) => old,
            Some(Bug::LateExtendWithoutEffect) if late => old,
            Some(Bug::ExtendOnlyOnce) if message.scars.extended => old,
            _ => until,
        };
        message.scars.extended = true;
        message.attempts += u32::from(bug == Some(Bug::ExtendCounts));
    }

    fn nack(&mut self, queue: &QueueName, arrival: u64, delay: Millis, now: Millis) {
        let bug = self.bug;
        let message = self.message(queue, arrival).expect("it was found");
        message.ready_at = match (bug, &message.lease) {
            (Some(Bug::NackIgnoresDelay), _) => now,
            (Some(Bug::NackDelayFromLease), Some(lease)) => lease.begun_at + delay,
            (Some(Bug::NackWaitsForTimeout), _) => message.ready_at.max(now + delay),
            _ => now + delay,
        };
        match bug {
            Some(Bug::NackDoesNotCount) => message.attempts -= 1,
            Some(Bug::NackResetsAttempts) => message.attempts = 0,
            _ => {}
        }
        message.settle(Settled::Nack);
        if bug == Some(Bug::NackBuriesLastAttempt) && message.attempts >= message.sent.max_attempts
        {
            self.bury(
                queue,
                arrival,
                now,
                DeadReason::AttemptsExhausted,
                Settled::Nack,
            );
        }
    }

    fn release(&mut self, queue: &QueueName, arrival: u64, now: Millis) {
        let bug = self.bug;
        let message = self.message(queue, arrival).expect("it was found");
        message.ready_at = match bug {
            Some(Bug::ReturnWaitsForTimeout) => message.ready_at.max(now),
            Some(Bug::ReturnKeepsReadyTime) => message.scars.was_ready_at,
            _ => now,
        };
        match bug {
            Some(Bug::ReturnCounts) => {}
            Some(Bug::ReturnResetsAttempts) => message.attempts = 0,
            _ => message.attempts = message.attempts.saturating_sub(1),
        }
        message.settle(Settled::Release);
    }
}
