//! Entries as this instance last found or wrote them.
//!
//! A call that goes on with one of them needs no find. If another instance has written it since, its
//! revision differs, so the write matches nothing. That costs a round trip, and then the call reads.

use std::{
    collections::HashMap,
    sync::{
        Mutex,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
    time::Duration,
};

use mongodb::bson::{DateTime, Uuid};
use tokio::time::{Instant, timeout};

use crate::{document::stored::Stored, lock::lock, state::recent::Recent};

/// How long claims take what a find has shown. A slower clock or a long transaction may write before it.
const TRUST: Duration = Duration::from_millis(200);

/// How long a call waits for its turn. Another may hang, for example because of a transaction that
/// holds an entry.
const LONGEST_WAIT: Duration = Duration::from_millis(100);

/// Calls of up to this many entries run one at a time and use the cache. For more, a find costs little.
pub(crate) const FEW: usize = 16;

/// How many entries are remembered at least, if they were used lately and are not deleted.
const REMEMBERED: usize = 128;

/// The most bytes of messages that are remembered for the next claim.
pub(crate) const AHEAD_BYTES: usize = 128 << 10;

/// What an instance remembers of a queue's entries.
#[derive(Debug, Default)]
pub(crate) struct EntryCache {
    /// A call of few entries holds it from its find to its write. The calls of an instance often concern
    /// the same entries, of which only one write succeeds. A tokio mutex, because that awaits.
    turn: tokio::sync::Mutex<()>,
    /// Whether the last call that wanted its turn went on without it.
    is_hanging: AtomicBool,
    memory: Mutex<Memory>,
}

/// What a scan has found and no claim has taken yet.
#[derive(Debug)]
pub(crate) struct Ahead {
    /// In order of their ready time, none left out.
    pub(crate) entries: Vec<Stored>,
    /// Up to this ready time.
    pub(crate) horizon: DateTime,
    /// When the last scan from the beginning began, if that is known.
    pub(crate) scanned: Option<Instant>,
}

#[derive(Debug, Default)]
struct Memory {
    entries: Recent<Uuid, Stored, REMEMBERED>,
    /// Its entries are among those.
    ahead: Option<(Vec<Uuid>, DateTime, Instant)>,
}

impl EntryCache {
    /// Waits until no other call of few entries is under way, if this is one. Only one call waits for
    /// one that hangs.
    pub(crate) async fn turn(&self, entries: usize) -> Option<tokio::sync::MutexGuard<'_, ()>> {
        if entries > FEW {
            return None;
        }
        let turn = match self.is_hanging.load(Relaxed) {
            true => self.turn.try_lock().ok(),
            false => timeout(LONGEST_WAIT, self.turn.lock()).await.ok(),
        };
        self.is_hanging.store(turn.is_none(), Relaxed);
        turn
    }

    /// The entries of these ids, if all are remembered. The caller has them alone until it puts them
    /// back.
    pub(crate) fn take(&self, ids: &[Uuid]) -> Option<HashMap<Uuid, Stored>> {
        let mut memory = lock(&self.memory);
        if !ids.iter().all(|id| memory.entries.get(id).is_some()) {
            return None;
        }
        let taken = ids.iter().map(|id| Some((*id, memory.entries.take(id)?)));
        taken.collect()
    }

    /// What a claim of `wanted` messages takes, if it needs no scan.
    pub(crate) fn take_ahead(&self, wanted: usize) -> Option<Ahead> {
        let mut memory = lock(&self.memory);
        let (ids, horizon, scanned) = memory.ahead.take()?;
        let all = ids.len();
        let entries = ids.iter().filter_map(|id| memory.entries.take(id));
        let entries: Vec<_> = entries.collect();
        // A claim must not skip an entry. One may be in use by another call, or cached without its messages.
        let is_whole = entries.len() == all && entries.iter().all(|it| !it.messages.is_empty());
        let ready = entries.iter().flat_map(|entry| &entry.entry.parts);
        let ready = ready.filter(|part| part.is_ready(horizon.timestamp_millis()));
        let ready: usize = ready.map(|part| part.numbers.len()).sum();
        // A scan for the rest would cost as much as one for all.
        if scanned.elapsed() < TRUST && is_whole && ready >= wanted {
            return Some(Ahead {
                entries,
                horizon,
                scanned: Some(scanned),
            });
        }
        for entry in entries {
            memory.put(entry.without_messages());
        }
        None
    }

    /// Remembers these for the next claim, if it is known how old they are.
    pub(crate) fn put_ahead(&self, mut ahead: Ahead) {
        let Some(scanned) = ahead.scanned else {
            return;
        };
        ahead.entries.sort_by_key(|it| it.entry.visible_at());
        let mut bytes = 0;
        let fits = |entry: &&Stored| {
            bytes += entry.message_bytes();
            bytes <= AHEAD_BYTES
        };
        let kept = ahead.entries.iter().take_while(fits).count();
        if kept < ahead.entries.len() {
            ahead.entries.truncate(kept);
            let last = ahead.entries.last().and_then(|it| it.entry.visible_at());
            ahead.horizon = last.map_or(ahead.horizon, DateTime::from_millis);
        }
        let ids: Vec<Uuid> = ahead.entries.iter().map(|it| it.id).collect();
        let mut memory = lock(&self.memory);
        for id in memory.ahead.take().into_iter().flat_map(|(ids, ..)| ids) {
            if let Some(entry) = memory.entries.take(&id) {
                memory.put(entry.without_messages());
            }
        }
        memory.ahead = (!ids.is_empty()).then_some((ids, ahead.horizon, scanned));
        for entry in ahead.entries {
            memory.put(entry);
        }
    }

    /// Remembers an entry as it was written.
    pub(crate) fn put(&self, entry: Stored) {
        lock(&self.memory).put(entry);
    }

    pub(crate) fn forget(&self, id: Uuid) {
        lock(&self.memory).entries.take(&id);
    }
}

impl Memory {
    fn put(&mut self, entry: Stored) {
        self.entries.put(entry.id, entry, |_| false);
    }
}

#[cfg(test)]
mod tests {
    use mongodb::bson::RawDocumentBuf;
    use queue_api::{Bytes, NewMessage};

    use super::*;
    use crate::document::{encode::NewEntry, entry::Fate};

    /// An entry of one message, which is ready since 5 ms.
    fn entry(number: usize) -> Stored {
        let messages = [NewMessage::new("")];
        let entry = NewEntry::new(&messages, vec![0], false, DateTime::from_millis(5));
        let document = RawDocumentBuf::from_document(&entry.document(&messages));
        Stored {
            id: Uuid::from_bytes((number as u128).to_be_bytes()),
            ..Stored::read_all(&document.expect("encoded")).expect("readable")
        }
    }

    fn ahead(numbers: std::ops::Range<usize>) -> Ahead {
        Ahead {
            entries: numbers.map(entry).collect(),
            horizon: DateTime::from_millis(5),
            scanned: Some(Instant::now()),
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_claim_uses_all_that_a_scan_found_or_nothing() {
        let cache = EntryCache::default();
        let taken = || cache.take_ahead(3).map(|ahead| ahead.entries.len());
        cache.put_ahead(ahead(0..3));
        assert_eq!(taken(), Some(3));
        assert_eq!(taken(), None, "another claim has them");

        cache.put_ahead(ahead(0..2));
        assert_eq!(taken(), None, "less than it needs");

        cache.put_ahead(ahead(0..3));
        assert!(cache.take(&[entry(1).id, entry(7).id]).is_none());
        assert_eq!(taken(), Some(3), "a call that lacks one takes none");

        cache.put_ahead(ahead(0..3));
        assert!(cache.take(&[entry(1).id]).is_some());
        assert_eq!(taken(), None, "a settlement has one of them");

        cache.put_ahead(ahead(0..3));
        cache.put(entry(1).without_messages());
        assert_eq!(taken(), None, "there is nothing to deliver of one of them");

        cache.put_ahead(ahead(0..3));
        tokio::time::advance(TRUST).await;
        assert_eq!(taken(), None, "late");
        let first = cache.take(&[entry(0).id]).expect("for a settlement");
        assert!(first[&entry(0).id].messages.is_empty());

        cache.put_ahead(ahead(0..1));
        cache.put_ahead(ahead(1..4));
        let first = cache.take(&[entry(0).id]).expect("remembered");
        assert!(
            first[&entry(0).id].messages.is_empty(),
            "no claim goes on with it"
        );
        assert_eq!(taken(), Some(3));

        let later = Ahead {
            horizon: DateTime::from_millis(4),
            ..ahead(0..3)
        };
        cache.put_ahead(later);
        assert_eq!(taken(), None, "they are not ready at that time");
    }

    #[test]
    fn a_queue_keeps_few_bytes_of_messages() {
        let cache = EntryCache::default();
        let mut large = ahead(0..9);
        // As a claim has left them: what it took a part of comes first.
        for (at, entry) in large.entries.iter_mut().rev().enumerate() {
            entry.messages[0].payload = Bytes::from(vec![0; AHEAD_BYTES / 4]);
            entry.entry.parts[0].fate = Fate::Live {
                at: at as i64,
                lease: None,
            };
        }
        cache.put_ahead(large);
        let kept = cache.take_ahead(1).expect("four of nine");
        // What is ready later may be behind one that is not kept.
        assert_eq!(
            (kept.entries.len(), kept.horizon.timestamp_millis()),
            (4, 3)
        );
    }

    #[test]
    fn the_entries_that_were_used_least_lately_are_forgotten() {
        let cache = EntryCache::default();
        for number in 0..5 * REMEMBERED {
            cache.put(entry(number));
            // One that is used again and again.
            let first = cache.take(&[entry(0).id]).expect("remembered");
            first.into_values().for_each(|entry| cache.put(entry));
        }
        let memory = lock(&cache.memory);
        let number = memory.entries.values().count();
        assert!((REMEMBERED..=2 * REMEMBERED).contains(&number), "{number}");
    }

    #[tokio::test(start_paused = true)]
    async fn a_call_that_hangs_holds_up_no_other_for_long() {
        let cache = EntryCache::default();
        let hanging = cache.turn(1).await;
        assert!(hanging.is_some());
        assert!(cache.turn(1).await.is_none(), "it goes on without its turn");
        drop(hanging);
        assert!(cache.turn(1).await.is_some());
    }
}
