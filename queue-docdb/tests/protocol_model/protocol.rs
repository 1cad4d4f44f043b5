//! The calls, command by command, as in the code that each function names. What they decide is decided
//! by `entry.rs`, `uses.rs` and `written.rs`.

use std::collections::HashMap;

use mongodb::bson::Uuid;

use crate::calls::uses::{self, Use};
use crate::document::entry::{Action, Entry, Fate, Millis, NewLease, Part};
use crate::model::{Doc, Event, Kind, Process, State, Statement};
use crate::store::written::{self, Trace, Written};
use crate::{Run, entries};

/// How often a call decides.
const TRIES: u8 = 3;

/// Of a find: the time, and all documents. The caller takes what it asked for. Of another request: whether
/// the statement matched (a server only says how many), or `None` if the answer is lost.
pub(crate) type Answer = (Millis, Vec<Doc>, Option<bool>);

/// A call. It runs again from its beginning at each step, and reads the answers that it has. Its functions
/// return `None` when it waits for the next one.
pub(crate) struct Wire<'a> {
    pub(crate) run: &'a Run,
    pub(crate) state: &'a mut State,
    pub(crate) process: Process,
    /// The call's.
    pub(crate) id: u8,
    /// What happens to the first request without an answer.
    pub(crate) kind: Option<Kind>,
    /// How many answers it has read.
    pub(crate) read: usize,
    pub(crate) tries: u8,
}

/// An entry as `NewEntry::new` makes it.
pub(crate) fn new_doc(born: u8, ids: &[usize], rev: i64, run: &Run) -> Doc {
    let is_keyed = run.name.ends_with("keyed");
    let id = if is_keyed { ids[0] as u8 } else { born };
    let part = Part {
        numbers: (0..ids.len()).collect(),
        attempts: 0,
        fate: Fate::Live { at: 0, lease: None },
    };
    let entry = Entry {
        parts: vec![part],
        max_attempts: if run.name == "long_dead" { 1 } else { 9 },
        count: ids.len(),
    };
    let (id, ids) = (Uuid::from_bytes([id; 16]), ids.to_vec());
    Doc {
        id,
        born,
        rev,
        ids,
        entry,
    }
}

impl Wire<'_> {
    /// Returns what the call tells: what has happened, and what has not. An error tells nothing.
    pub(crate) fn resume(&mut self) -> Option<Vec<(Event, bool)>> {
        let call = self.process.call?;
        let verb = call.trim_end_matches(char::is_numeric);
        let number = call[verb.len()..].parse().unwrap_or(0);
        match verb {
            "ack" => self.settle(&Action::Ack, number),
            "nack" => self.settle(&Action::Nack { until: 0 }, number),
            "extend" => self.settle(&Action::Extend { until: 3 }, number),
            "lease" => self.lease(number),
            _ => self.enqueue(&entries(call)),
        }
    }

    /// `sent`: what may still arrive if the answer is lost. Other requests are repeated until they are
    /// answered.
    fn ask(&mut self, sent: &[Statement], go: impl FnOnce(&mut State) -> Answer) -> Option<Answer> {
        if self.read == self.process.answers.len() {
            let answer = match self.kind? {
                Kind::Lose if sent.is_empty() => return None,
                Kind::Lose => {
                    self.state.late.extend_from_slice(sent);
                    Answer::default()
                }
                _ => go(self.state),
            };
            self.process.answers.push(answer);
            self.kind = None;
        }
        self.read += 1;
        self.process.answers.get(self.read - 1).cloned()
    }

    /// `find` of `collection.rs`
    fn find(&mut self) -> Option<Answer> {
        if self.run.bug == "ConfirmedBefore" {
            self.confirm(0, |_| true)?;
        }
        let find = |state: &mut State| (state.now, state.primary.docs.clone(), None);
        self.ask(&[], find)
    }

    /// `held_by_majority` of `collection.rs`: a majority write whose filter states facts. Returns whether it
    /// matches this many.
    fn confirm(&mut self, count: usize, filter: impl Fn(&Doc) -> bool) -> Option<bool> {
        let bug = self.run.bug;
        let confirm = |state: &mut State| {
            if bug != "NeverConfirmed" {
                state.majority = state.primary.clone();
            }
            let matched = state.primary.docs.iter().filter(|doc| filter(doc)).count();
            let is_fact = matched == count || bug == "ConfirmedAfter";
            (0, Vec::new(), Some(is_fact))
        };
        self.ask(&[], confirm)?.2
    }

    /// The statements of a command, or of those of `compare_and_set`. Returns which matched, or `None` if the
    /// answer is lost. A majority has what is answered.
    fn write(&mut self, all: &[Statement]) -> Option<Option<Vec<bool>>> {
        let (bug, mut hits) = (self.run.bug, Vec::new());
        for (done, it) in all.iter().enumerate() {
            let carry_out = |state: &mut State| {
                let hit = state.carry_out(it, bug);
                state.majority = state.primary.clone();
                (0, Vec::new(), Some(hit))
            };
            match self.ask(&all[done..], carry_out)? {
                (.., Some(hit)) => hits.push(hit),
                _ => return Some(None),
            }
        }
        Some(Some(hits))
    }

    /// `enqueue.rs`
    fn enqueue(&mut self, entries: &[Vec<usize>]) -> Option<Vec<(Event, bool)>> {
        let (bug, mut told) = (self.run.bug, Vec::new());
        let mut open: Vec<Statement> = entries.iter().map(|ids| self.insert(ids)).collect();
        while !open.is_empty() {
            let is_stored = |doc: &Doc| open.iter().any(|it| it.doc.born == doc.born);
            let hits = match self.write(&open)? {
                Some(hits) => hits,
                // `has_all`
                None if self.confirm(open.len(), is_stored)? => vec![true; open.len()],
                None if bug == "InsertAgain" => continue,
                None => return Some(Vec::new()),
            };
            let (mut refused, id) = (Vec::new(), self.id);
            let duplicate = |it| (Event::Refused(id, it), true);
            for (it, hit) in open.drain(..).zip(hits) {
                match it.doc.ids {
                    _ if hit => told.extend(it.events()),
                    ids if ids.len() > 1 && bug != "RefusedIsDuplicate" => refused.extend(ids),
                    ids => told.extend(ids.into_iter().map(duplicate)),
                }
            }
            // `regroup`
            if !refused.is_empty() {
                let (_, found, _) = self.find()?;
                let is_held = |id: &usize| found.iter().any(|doc| doc.has(*id));
                let (mut held, new): (Vec<_>, Vec<_>) = refused.into_iter().partition(is_held);
                let size = if held.is_empty() { 1 } else { new.len().max(1) };
                if bug == "DuplicateByFind" {
                    told.extend(held.drain(..).map(duplicate));
                }
                let drafts = held.chunks(1).chain(new.chunks(size));
                open.extend(drafts.map(|ids| self.insert(ids)));
            }
        }
        Some(told)
    }

    /// An entry of `drafts`
    fn insert(&mut self, ids: &[usize]) -> Statement {
        let doc = new_doc(self.id * 4 + self.tries, ids, 0, self.run);
        let insert = self.statement(&doc, doc.entry.clone(), &[], uses::trace(&[]));
        self.tries += 1;
        insert
    }

    /// `write` of `settle.rs`
    fn statement(&self, doc: &Doc, to: Entry, uses: &[Use], trace: Trace) -> Statement {
        let tries = self.tries * u8::from(self.run.bug != "OneAddend");
        Statement {
            doc: doc.clone(),
            to,
            // A bit for each try, and one for its fence, so that equal histories are one state.
            added: 1 << (2 * (self.id * 4 + tries)),
            trace,
            uses: uses.to_vec(),
        }
    }

    /// `lease.rs`: rounds, until one leases something, or is neither unknown nor fenced.
    fn lease(&mut self, wanted: usize) -> Option<Vec<(Event, bool)>> {
        let (mut told, mut is_unknown) = (Vec::<(Event, bool)>::new(), false);
        for tries in 0..TRIES {
            self.tries = tries;
            let writes = self.take(wanted)?;
            let written = self.compare_and_set(&writes)?;
            let is_sure = |it: &Written| matches!(it, Written::Yes | Written::No);
            let is_last = written.iter().all(is_sure);
            for (it, mut written) in writes.iter().zip(written) {
                if written == Written::NotYet {
                    written = self.fence(it)?;
                }
                let events = it.events().into_iter().filter(|_| is_sure(&written));
                told.extend(events.map(|(event, _)| (event, written == Written::Yes)));
                is_unknown |= !is_sure(&written);
            }
            if is_last || told.iter().any(|it| it.1) {
                break;
            }
        }
        told.retain(|it| it.1 || !is_unknown);
        Some(told)
    }

    /// `take` of `claim.rs`
    fn take(&mut self, mut wanted: usize) -> Option<Vec<Statement>> {
        let (now, mut found, _) = self.find()?;
        found.sort_by_key(|doc| doc.entry.visible_at());
        // A lease lasts 1.
        let (nonce, until) = (Uuid::from_bytes([self.id * 4 + self.tries; 16]), now + 1);
        let new = NewLease { nonce, now, until };
        let take = |doc: &Doc| {
            let mut after = doc.entry.clone();
            while let Some(at) = after.visible_at().filter(|at| *at <= now && wanted > 0) {
                let taken = after.lease(at, &new, wanted, |_| false);
                wanted -= taken.map_or(0, |it| it.numbers.len());
            }
            (after != doc.entry).then(|| self.statement(doc, after, &[], Trace::Claim(nonce)))
        };
        Some(found.iter().filter_map(take).collect())
    }

    /// `settle.rs`. With the receipt in this place, from 1. 0: with all.
    fn settle(&mut self, action: &Action, place: usize) -> Option<Vec<(Event, bool)>> {
        let (bug, mut told, mut doubtful) = (self.run.bug, Vec::new(), HashMap::<Uuid, i64>::new());
        let used = self.process.held.iter().zip(8 * usize::from(self.id)..);
        let used = used.filter(|(_, index)| place == 0 || index % 8 + 1 == place);
        let uses = used.map(|(receipt, index)| Use {
            index,
            receipt: *receipt,
            action: action.clone(),
        });
        let mut open: Vec<Use> = uses.collect();
        open.sort_by_key(|it| it.receipt.entry);
        while !open.is_empty() && self.tries < TRIES {
            let (_, found, _) = self.find()?;
            let (mut writes, mut absent, mut is_uncertain) = (Vec::new(), Vec::new(), false);
            for uses in open.chunk_by(|one, other| one.receipt.entry == other.receipt.entry) {
                let id = uses[0].receipt.entry;
                let before = doubtful.get(&id).filter(|_| bug != "LostAfterDoubt");
                if let Some(doc) = found.iter().find(|doc| doc.id == id) {
                    let (after, outcomes) = uses::decide(&doc.entry, uses);
                    let is_changed = before.is_some_and(|rev| *rev != doc.rev);
                    is_uncertain |= is_changed && uses::has_lost(uses, &outcomes);
                    writes.push(self.statement(doc, after, uses, uses::trace(uses)));
                } else {
                    is_uncertain |= before.is_some() && bug != "GoneIsApplied";
                    absent.push(id);
                }
            }
            if is_uncertain {
                break;
            }
            // `are_absent`
            if !absent.is_empty() && self.confirm(0, |doc| absent.contains(&doc.id))? {
                for it in open.extract_if(.., |it| absent.contains(&it.receipt.entry)) {
                    let is_doubtful = doubtful.contains_key(&it.receipt.entry);
                    let is_made = is_doubtful && bug == "GoneIsApplied";
                    told.push((Event::Applied(it.index), is_made));
                }
            }
            // The updates first.
            writes.sort_by_key(|it| it.to.is_gone());
            for (it, written) in writes.iter().zip(self.compare_and_set(&writes)?) {
                match written {
                    Written::NotYet if bug == "NotYetIsNo" => {}
                    Written::No if bug != "LostByFind" || it.to != it.doc.entry => {}
                    Written::Yes | Written::No => {
                        open.retain(|each| each.receipt.entry != it.doc.id);
                        told.extend(it.events());
                    }
                    _ => _ = doubtful.entry(it.doc.id).or_insert(it.doc.rev),
                }
            }
            self.tries += 1;
        }
        Some(if open.is_empty() { told } else { Vec::new() })
    }

    /// `write.rs`, where updates and deletes are sent side by side. Here the updates come first. Deletes are in
    /// one command, as more than `MOST_DELETES` are.
    fn compare_and_set(&mut self, writes: &[Statement]) -> Option<Vec<Written>> {
        match self.write(writes)? {
            Some(hits) if !hits.contains(&false) => Some(vec![Written::Yes; writes.len()]),
            hits => self.look(writes, hits),
        }
    }

    /// What follows in `write_part` and `unanswered_updates` of `write.rs`.
    fn look(&mut self, writes: &[Statement], hits: Option<Vec<bool>>) -> Option<Vec<Written>> {
        let (bug, (_, found, _)) = (self.run.bug, self.find()?);
        let is_born = |doc: &Doc, it: &Doc| doc.born == it.born || bug == "AnyBorn";
        let is_it = |doc: &Doc, it: &Doc| doc.id == it.id && is_born(doc, it);
        let find = |it: &Statement| found.iter().find(|doc| is_it(doc, &it.doc));
        let is_made = |it: &Statement| {
            let found = find(it).map(|doc| (doc.rev, &doc.entry));
            let made = written::is_update_made(it.doc.rev, it.added, &it.trace, found);
            let are_good = |doc: &Doc| it.uses.iter().all(|each| doc.is_good(&each.receipt));
            let is_rewritten = bug == "RewrittenIsNotMade" && find(it).is_some_and(are_good);
            made.or(is_rewritten.then_some(false))
        };
        let count = writes.partition_point(|it| !it.to.is_gone());
        let (updates, deletes) = writes.split_at(count);
        let made: Vec<Option<bool>> = updates.iter().map(is_made).collect();
        let Some(hits) = hits else {
            let shown = writes.iter().zip(&made).filter(|it| *it.1 == Some(true));
            let shown = shown.filter_map(|(it, _)| find(it));
            let shown: Vec<(Uuid, i64)> = shown.map(|doc| (doc.id, doc.rev)).collect();
            let is_shown = |doc: &Doc| shown.contains(&(doc.id, doc.rev));
            let is_told = shown.is_empty() || bug == "ConfirmedBefore";
            let is_certain = is_told || self.confirm(shown.len(), is_shown)?;
            let mut written = written::of_unanswered_updates(&made, is_certain);
            written.resize(writes.len(), Written::Unknown);
            return Some(written);
        };
        let matched = |hits: &[bool]| hits.iter().filter(|hit| **hit).count() as u64;
        let are_left: Vec<bool> = deletes.iter().map(|it| find(it).is_some()).collect();
        let mut written = written::of_answered_updates(matched(&hits[..count]), &made);
        let deleted = written::of_answered_deletes(matched(&hits[count..]), &are_left);
        written.extend(deleted);
        Some(written)
    }

    /// `write.rs`. Raises the revision, so that a claim that arrives late matches nothing. One after another
    /// here.
    fn fence(&mut self, it: &Statement) -> Option<Written> {
        let mut fence = it.clone();
        (fence.to, fence.trace) = (it.doc.entry.clone(), uses::trace(&[]));
        fence.added *= 2 * i64::from(self.run.bug != "FenceWithoutRev");
        match self.compare_and_set(&[fence])?[0] {
            Written::Yes => Some(Written::No),
            Written::NotYet => Some(Written::NotYet),
            _ if self.run.bug == "FencedAnyway" => Some(Written::No),
            _ => Some(self.look(std::slice::from_ref(it), None)?[0]),
        }
    }
}
