//! The leases that a listener holds, and when each is renewed or expires.

use std::{
    collections::{BTreeSet, HashMap, HashSet},
    time::{Duration, SystemTime},
};

use tokio::sync::watch;

use crate::{Delivery, Receipt, consumer::LeaseEnd};

/// Identifies a lease within its listener.
pub(crate) type Key = u64;

/// The table of leases, and a schedule of the next renewal or expiry of each. With the schedule,
/// finding what is due does not depend on the number of leases.
#[derive(Debug)]
pub(crate) struct Leases {
    leases: HashMap<Key, TrackedLease>,
    schedule: BTreeSet<(SystemTime, Key)>,
    /// The short leases that are not extended yet.
    unsecured: HashSet<Key>,
    max_visibility: Duration,
    last_key: Key,
    /// The number of leases whose settlement is in flight.
    settling: usize,
}

/// One lease. All times are of the listener's clock.
#[derive(Debug)]
pub(crate) struct TrackedLease {
    pub(crate) receipt: Receipt,
    /// The visibility timeout of the delivery.
    pub(crate) visibility: Duration,
    /// Each renewal is this long: the visibility timeout, or longer if that is too short.
    pub(crate) renewal: Duration,
    /// The lease lasts at least until then. It is counted from before the call was sent, and the
    /// store began to count later.
    pub(crate) expires: SystemTime,
    /// When it is taken for ended: at `expires`, or later if it is short and not extended yet.
    ends: SystemTime,
    /// It is not renewed beyond this.
    limit: SystemTime,
    /// Its entry in the schedule.
    due: Option<SystemTime>,
    /// It ended without settlement. Settled leases leave the table.
    ended: bool,
    /// Its settlement is waiting or in flight.
    settling: bool,
    /// It was due for renewal, and is not renewed yet.
    renewing: bool,
    end: watch::Sender<Option<LeaseEnd>>,
}

#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Due {
    /// The lease ended.
    Ended(Key, LeaseEnd),
    /// The lease needs an extension of this length.
    Renewal(Key, Duration),
}

impl Leases {
    pub(crate) fn new(max_visibility: Duration) -> Self {
        Self {
            leases: HashMap::new(),
            schedule: BTreeSet::new(),
            unsecured: HashSet::new(),
            max_visibility,
            last_key: 0,
            settling: 0,
        }
    }

    pub(crate) fn len(&self) -> usize {
        self.leases.len()
    }

    /// How many more messages may be claimed. A lease that is being settled takes no room, so the
    /// next message is claimed meanwhile. In case the store does not answer settlements, there are
    /// at most twice `concurrency` leases in all.
    pub(crate) fn room(&self, concurrency: usize) -> usize {
        let unsettled = self.leases.len() - self.settling;
        let max_total = concurrency.saturating_mul(2);
        let room = concurrency.saturating_sub(unsettled);
        room.min(max_total.saturating_sub(self.leases.len()))
    }

    pub(crate) fn get(&self, key: Key) -> Option<&TrackedLease> {
        self.leases.get(&key)
    }

    /// Adds a delivery of the lease call that was sent at `sent` and answered at `now`.
    ///
    /// If its visibility timeout is too short for the round trip, its attempt would be used up
    /// before a handler gets it. So it is handed out all the same, and extended at once. If
    /// `suspended`, the process did not run meanwhile, and the round trip says nothing.
    pub(crate) fn insert(
        &mut self,
        delivery: &Delivery,
        sent: SystemTime,
        now: SystemTime,
        max_lease_time: Duration,
        suspended: bool,
    ) -> (Key, watch::Receiver<Option<LeaseEnd>>) {
        self.last_key += 1;
        let key = self.last_key;
        let (end, ending) = watch::channel(None);
        let visibility = delivery.visibility_timeout;
        let margin = (visibility / 2).max(HANDOVER_TIME);
        let is_short = !suspended && after(sent, visibility) < after(now, margin);
        let lease = TrackedLease {
            receipt: delivery.receipt.clone(),
            visibility,
            renewal: visibility.min(self.max_visibility),
            expires: sent,
            ends: sent,
            limit: after(sent, max_lease_time),
            due: None,
            ended: false,
            settling: false,
            renewing: false,
            end,
        };
        self.leases.insert(key, lease);
        self.renewed(key, sent, visibility);
        if is_short {
            let round_trip = now.duration_since(sent).unwrap_or_default();
            let renewal = visibility
                .max(MIN_CALL_TIME)
                .max(round_trip.saturating_mul(4));
            self.secure(key, now, renewal.min(self.max_visibility));
        }
        (key, ending)
    }

    /// Makes the extension of a short lease due at once.
    fn secure(&mut self, key: Key, now: SystemTime, renewal: Duration) {
        if let Some(lease) = self.leases.get_mut(&key) {
            lease.renewal = renewal;
            lease.ends = after(now, renewal);
            self.unsecured.insert(key);
            self.set_due(key, Some(now));
        }
    }

    /// Whether the lease is not short, or is extended.
    pub(crate) fn is_secured(&self, key: Key) -> bool {
        !self.unsecured.contains(&key)
    }

    pub(crate) fn all_secured(&self) -> bool {
        self.unsecured.is_empty()
    }

    /// A call that was sent at `sent` set the lease to last `by` from then.
    pub(crate) fn renewed(&mut self, key: Key, sent: SystemTime, by: Duration) {
        let Some(lease) = self.leases.get_mut(&key) else {
            return;
        };
        lease.expires = after(sent, by);
        lease.ends = lease.expires;
        lease.renewing = false;
        let spare = by.min(lease.renewal) / 2;
        let due = if lease.limit > lease.expires {
            after(sent, by - spare)
        } else {
            lease.expires
        };
        self.unsecured.remove(&key);
        self.set_due(key, Some(due));
    }

    /// A call that is about to be sent may shorten the lease to `by` from `now`.
    pub(crate) fn may_shorten(&mut self, key: Key, now: SystemTime, by: Duration) {
        let Some(lease) = self.leases.get_mut(&key) else {
            return;
        };
        let expires = after(now, by);
        if expires < lease.expires {
            (lease.expires, lease.ends) = (expires, expires);
            self.set_due(key, Some(expires));
        }
    }

    /// When a call for the lease that is sent now is given up: when the lease expires, but not before
    /// a visibility timeout has passed, or a few seconds if that is shorter than a call may take.
    pub(crate) fn call_deadline(&self, key: Key, now: SystemTime) -> SystemTime {
        self.get(key).map_or(now, |lease| {
            lease.ends.max(after(now, lease.renewal.max(MIN_CALL_TIME)))
        })
    }

    /// Whether the lease is not taken for ended at `now`.
    pub(crate) fn is_attended(&self, key: Key, now: SystemTime) -> bool {
        self.get(key).is_some_and(|lease| lease.ends > now)
    }

    /// Whether the lease has neither ended nor been settled.
    pub(crate) fn is_open(&self, key: Key) -> bool {
        self.get(key)
            .is_some_and(|lease| !lease.ended && !lease.settling)
    }

    /// Whether its owner has settled the lease.
    pub(crate) fn is_settled(&self, key: Key) -> bool {
        self.get(key).is_none_or(|lease| lease.settling)
    }

    /// Whether the lease still needs the renewal that was due.
    pub(crate) fn needs_renewal(&self, key: Key) -> bool {
        self.is_open(key) && self.get(key).is_some_and(|lease| lease.renewing)
    }

    /// Makes the next renewal due again, after an extension was refused. Not before the lease needs it:
    /// a renewal would shorten a lease that an earlier extension made longer.
    pub(crate) fn renew_again(&mut self, key: Key, now: SystemTime) {
        let Some(lease) = self.leases.get(&key) else {
            return;
        };
        let due = if !self.is_secured(key) {
            now
        } else if lease.limit > lease.expires {
            let due = lease.expires.checked_sub(lease.renewal / 2);
            due.map_or(now, |due| due.max(now))
        } else {
            lease.ends
        };
        self.set_due(key, Some(due));
    }

    /// From now on the lease is not renewed.
    pub(crate) fn begin_settling(&mut self, key: Key) {
        self.set_due(key, None);
        if let Some(lease) = self.leases.get_mut(&key)
            && !std::mem::replace(&mut lease.settling, true)
        {
            self.settling += 1;
        }
    }

    /// Ends a lease that its owner has not settled.
    pub(crate) fn end(&mut self, key: Key, why: LeaseEnd) {
        self.set_due(key, None);
        self.unsecured.remove(&key);
        if let Some(lease) = self.leases.get_mut(&key) {
            lease.ended = true;
            lease.end.send_replace(Some(why));
        }
    }

    /// Removes a lease whose settlement succeeded or failed for good.
    pub(crate) fn remove(&mut self, key: Key) {
        self.set_due(key, None);
        self.unsecured.remove(&key);
        let Some(lease) = self.leases.remove(&key) else {
            return;
        };
        self.settling -= usize::from(lease.settling);
        if !lease.ended {
            lease.end.send_replace(Some(LeaseEnd::Settled));
        }
    }

    pub(crate) fn next_due(&self) -> Option<SystemTime> {
        self.schedule.first().map(|(due, _)| *due)
    }

    /// Takes the next end or renewal that is due. Renewals are taken a little early, so that leases
    /// that were claimed one after another end up renewed together.
    pub(crate) fn take_due(&mut self, now: SystemTime) -> Option<Due> {
        let (due, key) = *self.schedule.first()?;
        let lease = self
            .leases
            .get_mut(&key)
            .expect("the schedule lists only leases of the table");
        let (ends, limit, renewal) = (lease.ends, lease.limit, lease.renewal);
        if ends <= now {
            let why = match limit <= ends {
                true => LeaseEnd::TimeLimit,
                false => LeaseEnd::Expired,
            };
            self.end(key, why);
            return Some(Due::Ended(key, why));
        }
        // An entry at the end is not a renewal.
        if due == ends || due > after(now, renewal / 8) {
            return None;
        }
        lease.renewing = true;
        self.set_due(key, Some(ends));
        let until_limit = limit.duration_since(now).unwrap_or_default();
        let by = renewal.min(until_limit).max(MIN_EXTENSION);
        Some(Due::Renewal(key, by))
    }

    /// Sets when the lease is due next. A lease that is settling or has ended is never due: the
    /// answer to a renewal may come later than that.
    fn set_due(&mut self, key: Key, due: Option<SystemTime>) {
        let Some(lease) = self.leases.get_mut(&key) else {
            return;
        };
        let due = due.filter(|_| !lease.settling && !lease.ended);
        if let Some(before) = std::mem::replace(&mut lease.due, due) {
            self.schedule.remove(&(before, key));
        }
        if let Some(due) = due {
            self.schedule.insert((due, key));
        }
    }
}

/// The shortest renewal. An extension by 0 would end the lease.
const MIN_EXTENSION: Duration = Duration::from_millis(1);

/// The least time of a call, and of the renewals of a lease that is too short for the round trips to
/// the store.
const MIN_CALL_TIME: Duration = Duration::from_secs(5);

/// A short lease must last this long after its lease call, so that a handler gets it in time.
const HANDOVER_TIME: Duration = Duration::from_millis(100);

/// Longer durations are as good as endless.
const ENDLESS: Duration = Duration::from_secs(1000 * 365 * 24 * 3600);

/// `time` + `by`, in which [`ENDLESS`] is the longest. `time` itself at the end of time.
pub(crate) fn after(time: SystemTime, by: Duration) -> SystemTime {
    time.checked_add(by.min(ENDLESS)).unwrap_or(time)
}
