//! Lease: find entries that are ready, decide what to take of them, and write that if no other
//! call has written since.

use std::time::Duration;

use mongodb::bson::{DateTime, Document, Uuid, doc};
use queue_api::{Delivery, LeaseOptions};
use tokio::time::Instant;

use super::claim::Claim;
use crate::{
    document::{
        fields::{ID, VISIBLE_AT},
        stored::Stored,
    },
    state::entry_cache::{AHEAD_BYTES, Ahead, FEW},
    store::{
        collection::{Query, QueueCollection, REPLY_BYTES},
        error::StoreError,
        index::Index,
        set_aside::Unreadable,
        write::new_addend,
        written::Written,
    },
};

/// How often a call claims that gets nothing, before it reports that nothing is ready. Each time
/// another call won, so there is progress without this one.
const CONTENDED_TRIES: u32 = 5;

/// How long a claim may take, besides the time for each entry. A longer one has met a silent connection, or an
/// entry that an open transaction holds: the server lets the claim wait until the transaction ends.
const LONGEST_CLAIM: Duration = Duration::from_millis(1250);

/// How much longer a claim may take for each entry that it writes: a slow server needs it for large ones.
const LONGEST_OF_ENTRY: Duration = Duration::from_millis(3);

/// The same while claims pass over locked entries: the transaction that holds them may hold more. And for the
/// fence of a claim that was given up.
const LONGEST_CLAIM_BESIDE_LOCKED: Duration = Duration::from_millis(300);

/// The most entries that a round reads beyond those that it needs, because earlier rounds met only
/// dead letters.
const MOST_EXTRA: usize = 256;

/// How many entries a find reads for each that is needed, if claims follow each other.
const SCAN_AHEAD: usize = 4;

/// Where a scan starts.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
struct ScanStart {
    /// The ready time from which it scans, if that is not the beginning.
    from: Option<DateTime>,
    skip: usize,
}

impl ScanStart {
    fn is_head(self) -> bool {
        self == Self::default()
    }
}

/// The result of a round.
#[derive(Default)]
struct Round {
    /// Entries without a message to deliver.
    undeliverable: usize,
    is_lost: bool,
    is_unknown: bool,
    /// A claim without an answer was fenced: it matches nothing if it arrives late. Its messages are still
    /// ready, so the call goes on.
    is_fenced: bool,
    /// The entries of a claim that took too long and was not carried out.
    slow: Vec<Uuid>,
    /// It saw all that is ready from its start on.
    saw_all: bool,
    has_leased: bool,
    /// It went on with what an earlier scan had found.
    is_guess: bool,
}

impl QueueCollection {
    /// Leases up to as many messages as asked for.
    pub(crate) async fn lease(&self, options: &LeaseOptions) -> Result<Vec<Delivery>, StoreError> {
        self.restore().await?;
        let mut claim = Claim::new(options);
        let (mut extra, mut lost_rounds) = (0, 0);
        let mut most = usize::MAX;
        let (mut from_head, mut is_unknown) = (false, false);
        let mut may_guess = true;
        let mut retries = self.deadline.retries();
        while claim.wanted() > 0 {
            // One more: the last claim may have left only a few messages of the first entry.
            let probably = self.state.sizes.entries(claim.wanted()).saturating_add(1);
            let needed = probably.min(claim.wanted()).saturating_add(extra).min(most);
            let start = match from_head {
                true => ScanStart::default(),
                false => ScanStart {
                    from: self.state.cursor.begin(),
                    skip: self.state.contention.skip(needed),
                },
            };
            let may_guess = std::mem::take(&mut may_guess);
            let round = match self.claim(&mut claim, start, needed, may_guess).await {
                Ok(round) => round,
                // An error would hide what is leased already until its timeout, and another try
                // would use that up.
                Err(error) if claim.has_deliveries() => {
                    tracing::warn!(queue = self.messages.name(), %error, "a lease was cut short");
                    break;
                }
                Err(error) => {
                    retries.after(error).await?;
                    continue;
                }
            };
            extra = (extra + round.undeliverable).min(MOST_EXTRA);
            // The rest may lie before the start of this round.
            from_head |= round.saw_all || !round.has_leased;
            is_unknown |= round.is_unknown;
            most = match round.slow.as_slice() {
                [] => most,
                [entry] => {
                    self.state.locked.add(*entry);
                    usize::MAX
                }
                // One of them is locked, and the others are to be leased.
                several => several.len() / 2,
            };
            if round.is_guess {
                // What this instance remembers may be old. That is no contention, and a scan tells more.
                continue;
            }
            if round.is_lost {
                self.state.contention.lost();
                lost_rounds += 1;
                if claim.has_deliveries() || lost_rounds == CONTENDED_TRIES {
                    break;
                }
            } else if round.saw_all && start.is_head() && !round.is_unknown && !round.is_fenced {
                break;
            }
        }
        match is_unknown && !claim.has_deliveries() {
            true => Err(StoreError::Uncertain),
            false => Ok(claim.into_deliveries()),
        }
    }

    /// One round: a find and an update. The first one may do without a find.
    async fn claim(
        &self,
        claim: &mut Claim<'_>,
        start: ScanStart,
        needed: usize,
        may_guess: bool,
    ) -> Result<Round, StoreError> {
        let _turn = self.state.cache.turn(needed).await;
        let now = self.now().await;
        let ahead = match may_guess && self.state.locked.is_empty() {
            true => self.state.cache.take_ahead(claim.wanted()),
            false => None,
        };
        let is_guess = ahead.is_some();
        let (found, unreadable, saw_all) = match ahead {
            Some(ahead) => (ahead, Vec::new(), false),
            None => self.scan(claim, start, now, needed).await?,
        };
        let mut round = Round {
            undeliverable: unreadable.len(),
            saw_all: saw_all && unreadable.is_empty(),
            is_guess,
            ..Round::default()
        };
        let (scanned, horizon) = (found.scanned, found.horizon.min(now));
        self.set_aside(unreadable).await?;
        // Read after the documents, which may take long.
        let leased_at = self.now().await;
        let (taken, mut rest) = claim.take(found.entries, horizon, leased_at);
        if taken.is_empty() {
            return Ok(round);
        }
        let writes: Vec<_> = taken.iter().map(|taken| taken.write()).collect();
        let of_entries = LONGEST_OF_ENTRY.saturating_mul(writes.len() as u32);
        let longest = of_entries
            + match self.state.locked.is_empty() {
                true => LONGEST_CLAIM,
                false => LONGEST_CLAIM_BESIDE_LOCKED,
            };
        let added = new_addend();
        let claimed = self.compare_and_set(&writes, added, usize::MAX, longest);
        let (mut written, has_given_up) = claimed.await?;
        // Whether the fence hung too. Then an entry is locked; otherwise only a connection was silent.
        let mut is_locked = false;
        if written.contains(&Written::NotYet) {
            let longest = match has_given_up {
                true => of_entries / 3 + LONGEST_CLAIM_BESIDE_LOCKED,
                false => longest,
            };
            // It would hide messages if it arrived when the call has gone on with others.
            match self.fence(&writes, added, &mut written, longest).await {
                Ok(has_given_up_too) => {
                    round.is_fenced = true;
                    is_locked = has_given_up && has_given_up_too;
                }
                // What is claimed for certain is delivered all the same.
                Err(error) => {
                    tracing::warn!(queue = self.messages.name(), %error, "a late claim may hide messages");
                }
            }
        }
        let (mut leased, mut open) = (Vec::new(), Vec::new());
        for (taken, written) in taken.into_iter().zip(written) {
            match written {
                Written::Yes => {
                    round.undeliverable += usize::from(!taken.has_deliveries());
                    leased.push(taken);
                }
                // The fence itself has changed the revision. That is no contention.
                Written::No if round.is_fenced => {}
                Written::No => round.is_lost = true,
                Written::NotYet => {
                    round.is_unknown = true;
                    open.push(taken.entry());
                }
                Written::Unknown => round.is_unknown = true,
            }
        }
        if is_locked {
            round.slow = open;
        }
        round.has_leased = !leased.is_empty() && !round.is_lost;
        claim.deliver(&leased);
        let is_over = round.is_lost || round.is_unknown || round.is_fenced;
        let mut entries = Vec::with_capacity(leased.len() + rest.len());
        for taken in leased {
            match taken.written(added, horizon) {
                (stored, true) if !is_over => entries.push(stored),
                (stored, _) => self.state.cache.put(stored.without_messages()),
            }
        }
        if is_over {
            return Ok(round);
        }
        self.state.contention.won();
        // Under contention, each consumer continues with its own entries.
        if start.skip == 0 {
            entries.append(&mut rest);
        }
        self.state.cache.put_ahead(Ahead {
            entries,
            horizon,
            scanned,
        });
        Ok(round)
    }

    /// Finds entries that are ready, in order of their ready time. Returns also those that cannot be read,
    /// and whether it saw all that is ready from the start on.
    async fn scan(
        &self,
        claim: &Claim<'_>,
        start: ScanStart,
        now: DateTime,
        needed: usize,
    ) -> Result<(Ahead, Vec<Unreadable>, bool), StoreError> {
        let began = Instant::now();
        let follows = start.from.is_some() && start.skip == 0 && needed <= FEW;
        let wanted = match follows {
            true => (needed * SCAN_AHEAD).min(self.state.sizes.entries_of(AHEAD_BYTES)),
            false => needed,
        };
        // With room for entries that this call has already leased from: they may be ready again.
        let limit = wanted.max(needed).saturating_add(claim.met_entries());
        // What came in since the last scan from the beginning may lie before the start.
        let scanned = match start.from {
            None => Some(began),
            Some(_) => self.state.cursor.scanned(),
        };
        let mut filter = ready(now, start.from);
        let mut passed_over = self.state.locked.entries();
        passed_over.extend(claim.met_again(now));
        if !passed_over.is_empty() {
            filter.insert(ID, doc! { "$nin": passed_over });
        }
        let query = Query::in_order_of(Index::Claim.keys(), filter, limit).skipping(start.skip);
        let found = self
            .find_entries(REPLY_BYTES, query, Stored::read_all)
            .await?;
        let saw_all = found.is_whole && found.number < limit;
        let ready_at = |stored: &Stored| stored.entry.visible_at().map(DateTime::from_millis);
        match found.entries.first().and_then(ready_at) {
            _ if saw_all && start.is_head() => self.state.cursor.forget(),
            Some(first) if start.skip == 0 => self.state.cursor.found(start.from, first, began),
            None if start.skip > 0 => self.state.contention.forget(),
            _ => {}
        }
        self.state.sizes.saw(&found.entries);
        let last = found.entries.last().filter(|_| !saw_all);
        let ahead = Ahead {
            horizon: last.and_then(ready_at).unwrap_or(now),
            entries: found.entries,
            scanned,
        };
        Ok((ahead, found.unreadable, saw_all))
    }
}

/// Selects what is ready.
fn ready(now: DateTime, from: Option<DateTime>) -> Document {
    match from {
        None => doc! { VISIBLE_AT: { "$lte": now } },
        Some(at) => doc! { VISIBLE_AT: { "$gte": at, "$lte": now } },
    }
}
