//! The server: documents, statements, and what is true whatever a call was answered.

use std::collections::{BTreeMap, BTreeSet};

use mongodb::bson::Uuid;
use queue_api::LeaseOutcome;

use crate::{
    calls::uses::Use,
    document::{
        entry::{Action, Entry, Part},
        receipt::ParsedReceipt,
    },
    runs::Bug,
    store::written::Trace,
};

/// A message, by insert and number. An id may come again.
pub(crate) type Message = (u8, usize);

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Doc {
    pub(crate) id: Uuid,
    /// The insert that made it. Without an index on `ids`, a field of the document.
    pub(crate) born: u8,
    pub(crate) rev: i64,
    /// The message ids by number, also of those that are gone.
    pub(crate) ids: Vec<usize>,
    pub(crate) entry: Entry,
}

/// A statement of a command. It concerns one document, and is carried out in one step.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Statement {
    pub(crate) call: u8,
    pub(crate) guard: Guard,
    /// As the call has found it, or as it inserts it.
    pub(crate) doc: Doc,
    /// `None`: it is deleted.
    pub(crate) to: Option<Entry>,
    pub(crate) added: i64,
    pub(crate) trace: Trace,
    /// The uses of receipts that it stands for.
    pub(crate) uses: Vec<(Use, LeaseOutcome)>,
}

/// The filter.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Guard {
    /// An insert: no document has its `_id` or one of its ids.
    Absent,
    /// `are_at` of `write.rs`.
    Rev,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub(crate) struct Database {
    pub(crate) docs: Vec<Doc>,
    /// What has happened; a rollback undoes that too. Which inserts were carried out.
    pub(crate) inserted: BTreeSet<u8>,
    /// Messages, by insert and number.
    pub(crate) acked: BTreeSet<Message>,
    /// The receipts that took effect, by call and place in it.
    pub(crate) effects: BTreeMap<(u8, usize), Message>,
    /// The claims that were made, by nonce and insert.
    pub(crate) claims: BTreeSet<([u8; 16], u8)>,
}

impl Doc {
    pub(crate) fn holds(&self, id: usize) -> bool {
        let mut left = self.entry.numbers().into_iter();
        left.any(|number| self.ids[number] == id)
    }

    /// The part whose lease a receipt stands for.
    pub(crate) fn leased(&self, receipt: &ParsedReceipt) -> Option<&Part> {
        let part = self.entry.part(receipt.number);
        part.filter(|part| part.lease() == Some(receipt.nonce))
    }

    /// What `Stored::update` leaves, as a find reads it.
    fn put(&mut self, to: &Entry) {
        self.entry = to.clone();
        if to.whole().is_none() {
            self.entry.count = 0;
        }
    }
}

impl Database {
    pub(crate) fn doc(&self, id: Uuid) -> Option<&Doc> {
        self.docs.iter().find(|doc| doc.id == id)
    }

    pub(crate) fn has(&self, (born, number): Message) -> bool {
        let mut docs = self.docs.iter();
        docs.any(|doc| doc.born == born && doc.entry.part(number).is_some())
    }

    /// Carries out a statement. Returns whether it matched.
    ///
    /// # Errors
    /// It did what no statement may do.
    pub(crate) fn carry_out(&mut self, it: &Statement, bug: Bug) -> Result<bool, &'static str> {
        let matches = |doc: &Doc| match it.guard {
            Guard::Absent => doc.id == it.doc.id || it.doc.ids.iter().any(|id| doc.holds(*id)),
            _ if doc.id != it.doc.id => false,
            Guard::Rev => doc.rev == it.doc.rev || bug == Bug::GuardWithoutRev,
        };
        let at = self.docs.iter().position(matches);
        if it.guard == Guard::Absent {
            if at.is_none() {
                self.docs.push(it.doc.clone());
                self.docs.sort_by_key(|doc| doc.born);
            }
            return match at.is_some() || self.inserted.insert(it.doc.born) {
                true => Ok(at.is_none()),
                false => Err("E2: one insert stored its messages twice"),
            };
        }
        let Some(at) = at else {
            return Ok(false);
        };
        let before = self.docs[at].clone();
        match &it.to {
            Some(to) => {
                self.docs[at].rev += it.added;
                self.docs[at].put(to);
            }
            None => drop(self.docs.remove(at)),
        }
        self.judge(it, &before)
    }

    fn judge(&mut self, it: &Statement, before: &Doc) -> Result<bool, &'static str> {
        if let Trace::Claim(nonce) = it.trace {
            self.claims.insert((nonce.bytes(), before.born));
        }
        for (each, _) in it.uses.iter().filter(|(_, outcome)| outcome.is_applied()) {
            let message = (before.born, each.receipt.number);
            if before.leased(&each.receipt).is_none() {
                return Err("A2: an old receipt took effect");
            }
            if each.action == Action::Ack {
                self.acked.insert(message);
            }
            self.effects.insert((it.call, each.index), message);
        }
        let (before_it, after) = (before.entry.numbers(), it.to.as_ref());
        let left = after.map_or(Vec::new(), Entry::numbers);
        let is_acked = |number: &usize| self.acked.contains(&(before.born, *number));
        if before_it
            .iter()
            .any(|it| !left.contains(it) && !is_acked(it))
        {
            return Err("A2: a message went without its receipt");
        }
        match left.iter().all(|number| before_it.contains(number)) {
            true => Ok(true),
            false => Err("A1: a message that was gone is back"),
        }
    }
}
