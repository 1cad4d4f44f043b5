//! What may happen to the messages of an entry: the contract for a few messages that share a
//! document. Pure: no clock, no database.
//!
//! A call reads an entry, changes it here, and writes it back if no other call has written since.

use mongodb::bson::Uuid;

pub(crate) use queue_api::millis::Millis;

/// The messages of an entry, by their numbers, and their fates.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Entry {
    pub(crate) parts: Vec<Part>,
    pub(crate) max_attempts: u32,
    /// How many messages were enqueued in it. 0 if the stored document is in parts. It stays so: fates
    /// that have parted seldom become equal again.
    pub(crate) count: usize,
}

/// Messages of an entry that share a fate.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Part {
    /// In ascending order.
    pub(crate) numbers: Vec<usize>,
    pub(crate) attempts: u32,
    pub(crate) fate: Fate,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Fate {
    /// Ready from `at` on. `lease` is the nonce of the last claim, until it is settled.
    Live { at: Millis, lease: Option<Uuid> },
    /// No reason: attempts exhausted.
    Dead { at: Millis, reason: Option<String> },
}

/// What a receipt is used for.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Action {
    Ack,
    Extend { until: Millis },
    Nack { until: Millis },
    Release { at: Millis },
    DeadLetter { at: Millis, reason: String },
}

/// A lease that a claim makes.
#[derive(Clone, Copy, Debug)]
pub(crate) struct NewLease {
    pub(crate) nonce: Uuid,
    /// When a message without attempts left becomes a dead letter.
    pub(crate) now: Millis,
    /// When the leases expire.
    pub(crate) until: Millis,
}

/// What a claim took of a part.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Taken {
    pub(crate) numbers: Vec<usize>,
    /// The number of the delivery.
    pub(crate) attempt: u32,
}

impl Entry {
    /// The fate of all messages, if the document's own fields can hold it.
    pub(crate) fn whole(&self) -> Option<&Part> {
        match self.parts.as_slice() {
            [part] if part.numbers.len() == self.count => part.ready_at().map(|_| part),
            _ => None,
        }
    }

    pub(crate) fn is_parted(&self) -> bool {
        self.count == 0
    }

    /// When claims need to look at it: the earliest ready time.
    pub(crate) fn visible_at(&self) -> Option<Millis> {
        self.parts.iter().filter_map(Part::ready_at).min()
    }

    /// When its first dead letter died.
    pub(crate) fn dead_at(&self) -> Option<Millis> {
        self.parts.iter().filter_map(Part::dead_at).min()
    }

    /// Whether no message is left.
    pub(crate) fn is_gone(&self) -> bool {
        self.parts.is_empty()
    }

    /// The numbers of all messages, in ascending order.
    pub(crate) fn numbers(&self) -> Vec<usize> {
        let numbers = self.parts.iter().flat_map(|part| &part.numbers);
        let mut numbers: Vec<usize> = numbers.copied().collect();
        numbers.sort_unstable();
        numbers
    }

    /// The part of a message.
    pub(crate) fn part(&self, number: usize) -> Option<&Part> {
        self.parts
            .iter()
            .find(|part| part.numbers.contains(&number))
    }

    /// Leases up to `wanted` messages of a part that is ready since `at`, without those that
    /// `is_met`. If the part has no attempts left, its messages become dead letters instead (D1).
    pub(crate) fn lease(
        &mut self,
        at: Millis,
        new: &NewLease,
        wanted: usize,
        is_met: impl Fn(usize) -> bool,
    ) -> Option<Taken> {
        let is_ready = |part: &Part| {
            part.ready_at() == Some(at) && !part.numbers.iter().all(|&number| is_met(number))
        };
        let index = self.parts.iter().position(is_ready)?;
        let mut part = self.parts.swap_remove(index);
        let numbers = std::mem::take(&mut part.numbers);
        let (met, mut open): (Vec<_>, Vec<_>) = numbers.into_iter().partition(|&n| is_met(n));
        self.leave(met, &part);
        let mut numbers = Vec::new();
        if part.attempts >= self.max_attempts {
            part.fate = Fate::Dead {
                at: new.now,
                reason: None,
            };
        } else {
            let rest = open.split_off(wanted.min(open.len()));
            self.leave(rest, &part);
            part.attempts += 1;
            part.fate = Fate::Live {
                at: new.until,
                lease: Some(new.nonce),
            };
            numbers.clone_from(&open);
        }
        let attempt = part.attempts;
        let taken = Taken { numbers, attempt };
        part.numbers = open;
        self.parts.push(part);
        self.tidy();
        Some(taken)
    }

    /// Uses a receipt. Returns whether it was good (A2 to A5). No clock decides that.
    pub(crate) fn settle(&mut self, number: usize, nonce: Uuid, action: &Action) -> bool {
        let part = self.part(number);
        let Some(part) = part.filter(|part| part.lease() == Some(nonce)) else {
            return false;
        };
        let attempts = part.attempts;
        let live = |at: &Millis, lease| Fate::Live { at: *at, lease };
        match action {
            Action::Ack => self.remove(number),
            Action::Extend { until } => self.put(number, attempts, live(until, Some(nonce))),
            Action::Nack { until } => self.put(number, attempts, live(until, None)),
            // The lease stands for an attempt that was counted.
            Action::Release { at } => self.put(number, attempts.saturating_sub(1), live(at, None)),
            Action::DeadLetter { at, reason } => {
                let reason = Some(reason.clone());
                self.put(number, attempts, Fate::Dead { at: *at, reason });
            }
        }
        true
    }

    /// Makes a dead letter ready, with no attempts counted. Returns whether it was one.
    pub(crate) fn redrive(&mut self, number: usize, now: Millis) -> bool {
        let is_dead = self
            .part(number)
            .is_some_and(|part| part.dead_at().is_some());
        if is_dead {
            let fate = Fate::Live {
                at: now,
                lease: None,
            };
            self.put(number, 0, fate);
        }
        is_dead
    }

    /// Removes a message, whatever its state.
    pub(crate) fn remove(&mut self, number: usize) {
        for part in &mut self.parts {
            part.numbers.retain(|&other| other != number);
        }
        self.tidy();
    }

    fn put(&mut self, number: usize, attempts: u32, fate: Fate) {
        self.remove(number);
        self.parts.push(Part {
            numbers: vec![number],
            attempts,
            fate,
        });
        self.tidy();
    }

    fn leave(&mut self, numbers: Vec<usize>, part: &Part) {
        let part = Part {
            numbers,
            ..part.clone()
        };
        self.parts.push(part);
    }

    /// Messages of one fate share a part.
    fn tidy(&mut self) {
        let mut tidy: Vec<Part> = Vec::with_capacity(self.parts.len());
        for part in std::mem::take(&mut self.parts) {
            let is_same =
                |other: &&mut Part| other.fate == part.fate && other.attempts == part.attempts;
            match tidy.iter_mut().find(is_same) {
                Some(other) => {
                    other.numbers.extend(part.numbers);
                    other.numbers.sort_unstable();
                }
                None if part.numbers.is_empty() => {}
                None => tidy.push(part),
            }
        }
        self.parts = tidy;
    }
}

impl Part {
    /// The ready time of live messages.
    pub(crate) fn ready_at(&self) -> Option<Millis> {
        match self.fate {
            Fate::Live { at, .. } => Some(at),
            Fate::Dead { .. } => None,
        }
    }

    pub(crate) fn is_ready(&self, now: Millis) -> bool {
        self.ready_at().is_some_and(|at| at <= now)
    }

    pub(crate) fn dead_at(&self) -> Option<Millis> {
        match self.fate {
            Fate::Live { .. } => None,
            Fate::Dead { at, .. } => Some(at),
        }
    }

    pub(crate) fn lease(&self) -> Option<Uuid> {
        match self.fate {
            Fate::Live { lease, .. } => lease,
            Fate::Dead { .. } => None,
        }
    }
}

#[cfg(test)]
mod tests;
