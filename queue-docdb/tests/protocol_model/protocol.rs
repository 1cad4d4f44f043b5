//! The calls, command by command, as in the code that each function names. What they decide is decided
//! by `entry.rs`, `uses.rs` and `written.rs`.

use std::collections::HashMap;

use mongodb::bson::Uuid;
use queue_api::LeaseOutcome;

use crate::{
    calls::uses::{self, Use},
    database::{Doc, Guard, Statement},
    document::{
        entry::{self, Entry, Fate, Millis, Part},
        receipt::ParsedReceipt,
    },
    model::{Call, Held},
    runs::{Bug, Op, Run},
    store::written::{self, Trace, Written},
};

/// How often a call decides.
const TRIES: u8 = 3;

/// How long a lease lasts.
const VISIBILITY: Millis = 1;

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Request {
    /// A find. The model's answer has all documents, and the caller takes what it asked for.
    Find,
    /// The statements of a command, or of the two of `compare_and_set`.
    Write(Vec<Statement>),
    /// `held_by_majority` of `collection.rs`: a majority write whose filter states facts.
    Confirm(Vec<(Uuid, Fact)>),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Fact {
    Absent,
    Born(u8),
    Rev(i64),
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub(crate) struct Answer {
    pub(crate) now: Millis,
    pub(crate) found: Vec<Doc>,
    /// Which statements matched. A server only says how many. `None`: the answer is lost.
    pub(crate) hits: Option<Vec<bool>>,
    pub(crate) is_fact: bool,
}

/// What a call returns.
#[derive(Debug, Default)]
pub(crate) struct Done {
    pub(crate) stored: Vec<(u8, usize)>,
    pub(crate) duplicates: Vec<usize>,
    pub(crate) leased: Vec<Held>,
    pub(crate) claims: Vec<([u8; 16], u8)>,
    pub(crate) outcomes: Vec<(usize, LeaseOutcome)>,
}

impl Done {
    /// The write was carried out.
    fn settle(&mut self, write: &Statement) {
        let outcomes = write.uses.iter();
        let outcomes = outcomes.map(|(each, outcome)| (each.index, *outcome));
        self.outcomes.extend(outcomes);
    }
}

pub(crate) enum Stop {
    Asks(Request),
    /// `StoreError::Uncertain`, or the error of the last try.
    Uncertain,
}

/// A call that runs again from its beginning after each answer, up to its next request.
pub(crate) struct Wire<'a> {
    run: &'a Run,
    call: &'a Call,
    answers: std::slice::Iter<'a, Answer>,
    inserts: u8,
    tries: u8,
}

/// A value that is only compared.
pub(crate) fn uuid(number: u8) -> Uuid {
    Uuid::from_bytes([number; 16])
}

/// An entry as `NewEntry::new` makes it.
pub(crate) fn new_doc(born: u8, ids: &[usize], run: &Run) -> Doc {
    let fate = Fate::Live { at: 0, lease: None };
    let numbers = (0..ids.len()).collect();
    let id = if run.is_keyed() {
        200 + ids[0] as u8
    } else {
        born
    };
    Doc {
        id: uuid(id),
        born,
        rev: i64::from(born) << 40,
        ids: ids.to_vec(),
        entry: Entry {
            parts: vec![Part {
                numbers,
                attempts: 0,
                fate,
            }],
            max_attempts: run.max_attempts(),
            count: ids.len(),
        },
    }
}

impl<'a> Wire<'a> {
    pub(crate) fn resume(run: &'a Run, call: &'a Call) -> Result<Done, Stop> {
        let answers = call.answers.iter();
        let mut wire = Self {
            run,
            call,
            answers,
            inserts: 0,
            tries: 0,
        };
        match &call.op {
            Op::Enqueue(entries) => wire.enqueue(entries),
            Op::Lease(wanted) => wire.lease(*wanted),
            Op::All(_) | Op::One(_) => wire.settle(),
        }
    }

    fn ask(&mut self, request: Request) -> Result<Answer, Stop> {
        let answer = self.answers.next().cloned();
        answer.ok_or(Stop::Asks(request))
    }

    fn find(&mut self) -> Result<Answer, Stop> {
        if self.run.bug == Bug::ConfirmedBefore {
            self.ask(Request::Confirm(Vec::new()))?;
        }
        self.ask(Request::Find)
    }

    fn confirm(&mut self, facts: Vec<(Uuid, Fact)>) -> Result<bool, Stop> {
        let is_early = self.run.bug == Bug::ConfirmedBefore;
        Ok(facts.is_empty() || is_early || self.ask(Request::Confirm(facts))?.is_fact)
    }

    /// `enqueue.rs`
    fn enqueue(&mut self, entries: &[Vec<usize>]) -> Result<Done, Stop> {
        let mut done = Done::default();
        let mut open: Vec<Statement> = entries.iter().map(|ids| self.insert(ids)).collect();
        while !open.is_empty() {
            let Some(hits) = self.ask(Request::Write(open.clone()))?.hits else {
                // `has_all`
                let sent = open.iter().map(|it| (it.doc.id, Fact::Born(it.doc.born)));
                if self.confirm(sent.collect())? {
                    let stored = open.iter().map(|it| (it.doc.born, it.doc.ids.len()));
                    done.stored.extend(stored);
                    return Ok(done);
                }
                self.tries += 1;
                if self.run.bug == Bug::InsertAgain && self.tries < TRIES {
                    continue;
                }
                return Err(Stop::Uncertain);
            };
            let mut refused = Vec::new();
            for (it, hit) in open.drain(..).zip(hits) {
                match it.doc.ids.len() {
                    count if hit => done.stored.push((it.doc.born, count)),
                    1 => done.duplicates.extend(it.doc.ids),
                    _ if self.run.bug == Bug::RefusedIsDuplicate => {
                        done.duplicates.extend(it.doc.ids);
                    }
                    _ => refused.extend(it.doc.ids),
                }
            }
            if !refused.is_empty() {
                open = self.regroup(&refused, &mut done)?;
            }
        }
        Ok(done)
    }

    fn regroup(&mut self, refused: &[usize], done: &mut Done) -> Result<Vec<Statement>, Stop> {
        let found = self.find()?.found;
        let is_held = |id: &usize| found.iter().any(|doc| doc.holds(*id));
        let (held, new): (Vec<usize>, Vec<usize>) = refused.iter().partition(|id| is_held(id));
        let size = if held.is_empty() { 1 } else { new.len().max(1) };
        let mut drafts: Vec<&[usize]> = held.chunks(1).collect();
        if self.run.bug == Bug::DuplicateByFind {
            drafts.clear();
            done.duplicates.extend(&held);
        }
        drafts.extend(new.chunks(size));
        Ok(drafts.into_iter().map(|ids| self.insert(ids)).collect())
    }

    fn insert(&mut self, ids: &[usize]) -> Statement {
        let doc = new_doc(self.call.id * 4 + self.inserts, ids, self.run);
        self.inserts += 1;
        self.statement(&doc, Guard::Absent, None, Vec::new())
    }

    fn statement(
        &self,
        doc: &Doc,
        guard: Guard,
        to: Option<Entry>,
        uses: Vec<(Use, LeaseOutcome)>,
    ) -> Statement {
        let tries = self.tries * u8::from(self.run.bug != Bug::OneAddend);
        let each: Vec<Use> = uses.iter().map(|(each, _)| each.clone()).collect();
        Statement {
            call: self.call.id,
            guard,
            doc: doc.clone(),
            to,
            // A bit for each try, so that equal histories are one state.
            added: 1 << (self.call.id * TRIES + tries),
            trace: match self.call.op {
                Op::Lease(_) => Trace::Claim(self.nonce()),
                _ => uses::trace(&each),
            },
            uses,
        }
    }

    /// That of a round of `lease.rs`.
    fn nonce(&self) -> Uuid {
        uuid(100 + self.call.id * TRIES + self.tries)
    }

    /// `lease.rs`: rounds, until one is not unknown. Without `fence`: here, a claim may always arrive late.
    fn lease(&mut self, wanted: usize) -> Result<Done, Stop> {
        let mut done = Done::default();
        while self.tries < TRIES {
            let answer = self.find()?;
            let writes = self.take(answer, wanted);
            let written = self.compare_and_set(&writes)?;
            for (write, written) in writes.iter().zip(&written) {
                if *written == Written::Yes {
                    done.claims.push((self.nonce().bytes(), write.doc.born));
                    done.leased.extend(self.deliver(write));
                }
            }
            let is_sure = |it: &Written| matches!(it, Written::Yes | Written::No);
            if written.iter().all(is_sure) || !done.leased.is_empty() {
                return Ok(done);
            }
            self.tries += 1;
        }
        Err(Stop::Uncertain)
    }

    /// `take` of `claim.rs`
    fn take(&self, Answer { now, mut found, .. }: Answer, mut wanted: usize) -> Vec<Statement> {
        found.sort_by_key(|doc| doc.entry.visible_at());
        let (nonce, until) = (self.nonce(), now + VISIBILITY);
        let claim = entry::NewLease { nonce, now, until };
        let mut writes = Vec::new();
        for doc in found {
            let mut after = doc.entry.clone();
            let mut times: Vec<_> = doc.entry.parts.iter().filter_map(Part::ready_at).collect();
            times.sort_unstable();
            let mut met = Vec::new();
            for at in times.into_iter().filter(|at| *at <= now) {
                if wanted > 0
                    && let Some(taken) = after.lease(at, &claim, wanted, |it| met.contains(&it))
                {
                    wanted -= taken.numbers.len();
                    met.extend(taken.numbers);
                }
            }
            if after != doc.entry {
                writes.push(self.statement(&doc, Guard::Rev, Some(after), Vec::new()));
            }
        }
        writes
    }

    /// `deliver` of `claim.rs`: receipts, and until when they are good.
    fn deliver(&self, write: &Statement) -> Vec<Held> {
        let (nonce, entry) = (self.nonce(), write.doc.id);
        let parts = write.to.iter().flat_map(|after| &after.parts);
        let parts = parts.filter(|part| part.lease() == Some(nonce));
        let held = |part: &'_ Part, number| {
            let receipt = ParsedReceipt {
                nonce,
                entry,
                number,
            };
            Some((receipt, part.ready_at()?))
        };
        let numbers = parts.flat_map(|part| part.numbers.iter().map(move |number| (part, *number)));
        numbers
            .filter_map(|(part, number)| held(part, number))
            .collect()
    }

    /// `settle.rs`
    fn settle(&mut self) -> Result<Done, Stop> {
        let bug = self.run.bug;
        let mut done = Done::default();
        let (mut open, mut doubtful) = (self.call.uses.clone(), HashMap::new());
        while self.tries < TRIES {
            let found = self.find()?.found;
            let find = |uses: &[Use]| found.iter().find(|doc| doc.id == uses[0].receipt.entry);
            let absent = open.iter().filter(|uses| find(uses).is_none()).flatten();
            let absent: Vec<Use> = absent.cloned().collect();
            let mut outcome = LeaseOutcome::Lost;
            if absent
                .iter()
                .any(|it| doubtful.contains_key(&it.receipt.entry))
            {
                match bug {
                    Bug::GoneIsApplied => outcome = LeaseOutcome::Applied,
                    Bug::LostAfterDoubt => {}
                    _ => return Err(Stop::Uncertain),
                }
            }
            // `are_absent`
            let facts = absent.iter().map(|it| (it.receipt.entry, Fact::Absent));
            if self.confirm(facts.collect())? {
                open.retain(|uses| find(uses).is_some());
                done.outcomes
                    .extend(absent.iter().map(|it| (it.index, outcome)));
            }
            let mut writes = Vec::new();
            for uses in &open {
                let Some(doc) = find(uses) else {
                    continue;
                };
                let (after, outcomes) = uses::decide(&doc.entry, uses);
                let before = doubtful.get(&doc.id);
                let is_doubtful = before.is_some_and(|before| *before != doc.rev);
                let is_doubtful = is_doubtful && bug != Bug::LostAfterDoubt;
                if is_doubtful && uses::has_lost(uses, &outcomes) {
                    return Err(Stop::Uncertain);
                }
                let outcomes = outcomes.into_iter().map(|(_, outcome)| outcome);
                let decided: Vec<_> = uses.iter().cloned().zip(outcomes).collect();
                let to = (!after.is_gone()).then_some(after);
                writes.push(self.statement(doc, Guard::Rev, to, decided));
            }
            // The updates first.
            writes.sort_by_key(|it| it.to.is_none());
            let mut written = self.compare_and_set(&writes)?;
            for (write, written) in writes.iter().zip(&mut written) {
                let is_same = write.to.as_ref() == Some(&write.doc.entry);
                match written {
                    Written::No if bug == Bug::LostByFind && is_same => *written = Written::Yes,
                    Written::NotYet if bug == Bug::NotYetIsNo => *written = Written::No,
                    _ => {}
                }
                match written {
                    Written::Yes => {
                        open.retain(|uses| uses[0].receipt.entry != write.doc.id);
                        done.settle(write);
                    }
                    Written::No => {}
                    Written::NotYet | Written::Unknown => {
                        doubtful.entry(write.doc.id).or_insert(write.doc.rev);
                    }
                }
            }
            if open.is_empty() {
                return Ok(done);
            }
            self.tries += 1;
        }
        Err(Stop::Uncertain)
    }

    /// `write.rs`
    fn compare_and_set(&mut self, writes: &[Statement]) -> Result<Vec<Written>, Stop> {
        if writes.is_empty() {
            return Ok(Vec::new());
        }
        let hits = self.ask(Request::Write(writes.to_vec()))?.hits;
        let is_delete = |it: &Statement| it.to.is_none();
        let (updates, deletes) = writes.split_at(writes.partition_point(|it| !is_delete(it)));
        if hits.is_none() && updates.is_empty() {
            return Ok(vec![Written::Unknown; deletes.len()]);
        }
        if hits.as_ref().is_some_and(|hits| !hits.contains(&false)) {
            return Ok(vec![Written::Yes; writes.len()]);
        }
        let found = self.find()?.found;
        let any_born = self.run.bug == Bug::AnyBorn;
        let find = |it: &Statement| {
            let is_it = |doc: &&Doc| doc.id == it.doc.id && (doc.born == it.doc.born || any_born);
            found.iter().find(is_it)
        };
        let is_made = |it: &Statement| {
            let found = find(it).map(|doc| (doc.rev, &doc.entry));
            let made = written::is_update_made(it.doc.rev, it.added, &it.trace, found);
            let are_good = || {
                let mut uses = it.uses.iter().map(|(each, _)| each.receipt);
                find(it).is_some_and(|doc| uses.all(|held| doc.leased(&held).is_some()))
            };
            let is_rewritten = self.run.bug == Bug::RewrittenIsNotMade && are_good();
            made.or(is_rewritten.then_some(false))
        };
        let made: Vec<Option<bool>> = updates.iter().map(is_made).collect();
        let Some(hits) = hits else {
            let shown = updates.iter().zip(&made).filter(|it| *it.1 == Some(true));
            let shown = shown.filter_map(|(it, _)| find(it));
            let shown = shown.map(|doc| (doc.id, Fact::Rev(doc.rev)));
            let is_certain = self.confirm(shown.collect())?;
            let mut written = written::of_unanswered_updates(&made, is_certain);
            written.extend(vec![Written::Unknown; deletes.len()]);
            return Ok(written);
        };
        let (updated, deleted) = hits.split_at(updates.len());
        let matched = |hits: &[bool]| hits.iter().filter(|hit| **hit).count() as u64;
        let mut written = match updated.contains(&false) {
            true => written::of_answered_updates(matched(updated), &made),
            false => vec![Written::Yes; updated.len()],
        };
        let are_left: Vec<bool> = deletes.iter().map(|it| find(it).is_some()).collect();
        // Few have a command each.
        let size = if self.run.is_keyed() {
            deletes.len()
        } else {
            1
        };
        for (deleted, are_left) in deleted
            .chunks(size.max(1))
            .zip(are_left.chunks(size.max(1)))
        {
            written.extend(written::of_answered_deletes(matched(deleted), are_left));
        }
        Ok(written)
    }
}
