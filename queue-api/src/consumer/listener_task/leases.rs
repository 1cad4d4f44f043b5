//! The leases that a listener holds, and when something is to be done about each.

use std::{
    collections::{BTreeSet, HashMap},
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use tokio::sync::watch;

use crate::{Delivery, Receipt, consumer::LeaseEnd};

/// Names a lease within its listener.
pub(crate) type Key = u64;

/// The table, and an agenda with one entry for each lease that is to be renewed or may run out:
/// whatever the number of leases, finding what is due costs nothing while nothing is.
#[derive(Debug, Default)]
pub(crate) struct Leases {
    held: HashMap<Key, Held>,
    agenda: BTreeSet<(SystemTime, Key)>,
    last_key: Key,
    /// How many have a settlement that is on its way.
    settling: usize,
}

/// One lease, on the listener's clock.
#[derive(Debug)]
pub(crate) struct Held {
    pub(crate) receipt: Receipt,
    pub(crate) visibility: Duration,
    /// Until when the lease certainly lasts: counted from before the call was sent, so the store,
    /// which began to count later, ends it later.
    pub(crate) expires: SystemTime,
    /// When it is no longer renewed.
    limit: SystemTime,
    /// Its entry in the agenda.
    due: Option<SystemTime>,
    /// Settled ones leave the table, so what is here has ended otherwise.
    ended: bool,
    /// There is a settlement, which is on its way to the store.
    settling: bool,
    /// It was due to be renewed, and has not been.
    renewing: bool,
    end: watch::Sender<Option<LeaseEnd>>,
}

/// What is due.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Due {
    /// It has run out, for that reason.
    Ended(Key, LeaseEnd),
    /// It is to be renewed by so much.
    Renewal(Key, Duration),
}

impl Leases {
    pub(crate) fn len(&self) -> usize {
        self.held.len()
    }

    /// How many more may be claimed, so that at most `concurrency` are worked on at a time. One
    /// whose settlement is on its way is not worked on any more, and takes no room: so the next are
    /// claimed while it is told to the store. Where the store does not answer settlements, there
    /// are never more than twice as many in all.
    pub(crate) fn room(&self, concurrency: usize) -> usize {
        let unsettled = self.held.len() - self.settling;
        let in_all = concurrency.saturating_mul(2);
        let room = concurrency.saturating_sub(unsettled);
        room.min(in_all.saturating_sub(self.held.len()))
    }

    pub(crate) fn get(&self, key: Key) -> Option<&Held> {
        self.held.get(&key)
    }

    /// Enters a delivery that was asked for at `sent`.
    pub(crate) fn insert(
        &mut self,
        delivery: &Delivery,
        sent: SystemTime,
        max_lease_time: Duration,
    ) -> (Key, watch::Receiver<Option<LeaseEnd>>) {
        self.last_key += 1;
        let (end, ending) = watch::channel(None);
        let held = Held {
            receipt: delivery.receipt.clone(),
            visibility: delivery.visibility_timeout,
            expires: sent,
            limit: after(sent, max_lease_time),
            due: None,
            ended: false,
            settling: false,
            renewing: false,
            end,
        };
        self.held.insert(self.last_key, held);
        self.renewed(self.last_key, sent, delivery.visibility_timeout);
        (self.last_key, ending)
    }

    /// Notes that a call of `sent` made the lease last `by` from then.
    pub(crate) fn renewed(&mut self, key: Key, sent: SystemTime, by: Duration) {
        let Some(held) = self.held.get_mut(&key) else {
            return;
        };
        held.expires = after(sent, by);
        held.renewing = false;
        let spare = by.min(held.visibility) / 2;
        let due = if held.limit > held.expires {
            held.expires - spare
        } else {
            held.expires
        };
        self.schedule(key, Some(due));
    }

    /// Notes that a call which is about to be sent may make the lease last only `by` from `now`.
    pub(crate) fn may_shorten(&mut self, key: Key, now: SystemTime, by: Duration) {
        let Some(held) = self.held.get_mut(&key) else {
            return;
        };
        let expires = after(now, by);
        if expires < held.expires {
            held.expires = expires;
            self.schedule(key, Some(expires));
        }
    }

    /// Until when a call for the lease that is sent now may take: as long as the lease lasts, and
    /// for a lease that is late, as long as one that is not.
    pub(crate) fn call_may_last(&self, key: Key, now: SystemTime) -> SystemTime {
        self.get(key)
            .map_or(now, |held| held.expires.max(after(now, held.visibility)))
    }

    /// Whether the lease is to be kept up: it has not ended, and there is no settlement.
    pub(crate) fn is_open(&self, key: Key) -> bool {
        self.get(key)
            .is_some_and(|held| !held.ended && !held.settling)
    }

    /// Whether a renewal that was due still is.
    pub(crate) fn is_renewing(&self, key: Key) -> bool {
        self.is_open(key) && self.get(key).is_some_and(|held| held.renewing)
    }

    /// Makes a renewal due at once, in place of an extension that was refused.
    pub(crate) fn renew_at(&mut self, key: Key, now: SystemTime) {
        if self.is_open(key) {
            self.schedule(key, Some(now));
        }
    }

    /// Notes that there is a settlement: from now on the lease is not renewed.
    pub(crate) fn begin_settling(&mut self, key: Key) {
        self.schedule(key, None);
        if let Some(held) = self.held.get_mut(&key)
            && !std::mem::replace(&mut held.settling, true)
        {
            self.settling += 1;
        }
    }

    /// The end of a lease that stays in the hands of its owner.
    pub(crate) fn end(&mut self, key: Key, why: LeaseEnd) {
        self.schedule(key, None);
        if let Some(held) = self.held.get_mut(&key) {
            held.ended = true;
            held.end.send_replace(Some(why));
        }
    }

    /// Removes a lease whose settlement was carried out or has failed.
    pub(crate) fn remove(&mut self, key: Key) {
        self.schedule(key, None);
        let Some(held) = self.held.remove(&key) else {
            return;
        };
        self.settling -= usize::from(held.settling);
        if !held.ended {
            held.end.send_replace(Some(LeaseEnd::Settled));
        }
    }

    /// When the next thing is due.
    pub(crate) fn next_due(&self) -> Option<SystemTime> {
        self.agenda.first().map(|(due, _)| *due)
    }

    /// Takes the next thing that is due. What would be due soon is due already when somebody
    /// asks, so that leases which were claimed one after another come to be renewed together.
    pub(crate) fn take_due(&mut self, now: SystemTime) -> Option<Due> {
        let (due, key) = *self.agenda.first()?;
        let held = self.held.get_mut(&key).expect(LISTED);
        let (expires, limit, visibility) = (held.expires, held.limit, held.visibility);
        if expires <= now {
            let why = match limit <= expires {
                true => LeaseEnd::TimeLimit,
                false => LeaseEnd::Expired,
            };
            self.end(key, why);
            return Some(Due::Ended(key, why));
        }
        // One that is only waiting for its end has its entry there.
        if due == expires || due > now + visibility / 8 {
            return None;
        }
        held.renewing = true;
        self.schedule(key, Some(expires));
        let until_limit = limit.duration_since(now).unwrap_or_default();
        let by = visibility.min(until_limit).max(SHORTEST_EXTENSION);
        Some(Due::Renewal(key, by))
    }

    /// Puts a lease on the agenda, unless there is nothing to be done about it any more: the
    /// answer to a renewal may come after the settlement or the end.
    fn schedule(&mut self, key: Key, due: Option<SystemTime>) {
        let Some(held) = self.held.get_mut(&key) else {
            return;
        };
        let due = due.filter(|_| !held.settling && !held.ended);
        if let Some(before) = std::mem::replace(&mut held.due, due) {
            self.agenda.remove(&(before, key));
        }
        if let Some(due) = due {
            self.agenda.insert((due, key));
        }
    }
}

/// What every backend takes.
const SHORTEST_EXTENSION: Duration = Duration::from_millis(1);

/// `time` + `by`, or where there is no such time, one that nobody lives to see.
pub(crate) fn after(time: SystemTime, by: Duration) -> SystemTime {
    time.checked_add(by)
        .unwrap_or(UNIX_EPOCH + Duration::from_secs(1 << 40))
}

const LISTED: &str = "the agenda lists what is held";
