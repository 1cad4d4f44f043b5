//! The states of the model, its steps, and the lines of the contract.

use std::collections::BTreeSet;

use mongodb::bson::Uuid;
use stateright::{Model, Property};

use crate::Run;
use crate::calls::uses::{self, Use};
use crate::document::entry::{Action, Entry, Millis, Part};
use crate::document::receipt::ParsedReceipt;
use crate::protocol::{Answer, Wire, new_doc};
use crate::store::written::Trace;

#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub(crate) struct State {
    pub(crate) now: Millis,
    /// What the primary has, and what is left of it after a failover.
    pub(crate) primary: Database,
    pub(crate) majority: Database,
    /// Statements whose senders have given up. Each may arrive, or not.
    pub(crate) late: Vec<Statement>,
    processes: Vec<Process>,
    /// What is left of `Run::limits`.
    left: Vec<u8>,
    /// What calls have denied. It must not happen later.
    ruled_out: BTreeSet<Event>,
    /// The line of the contract that is broken.
    pub(crate) broken: Option<&'static str>,
}

/// What a failover may undo.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub(crate) struct Database {
    pub(crate) docs: Vec<Doc>,
    happened: BTreeSet<Event>,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Doc {
    pub(crate) id: Uuid,
    /// The insert that made it. Without an index on `ids`, a field of the document.
    pub(crate) born: u8,
    /// 0: it is not inserted yet.
    pub(crate) rev: i64,
    /// The message ids by number, also of those that are gone.
    pub(crate) ids: Vec<usize>,
    pub(crate) entry: Entry,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) enum Event {
    /// An insert stored its messages.
    Stored(u8),
    /// The server refused an insert of this call, because another message has this id.
    Refused(u8, usize),
    /// A claim took a message: the nonce, the entry, and the message's number in it.
    Claimed(Uuid, Uuid, usize),
    /// A use of a receipt took effect: the index of the use.
    Applied(usize),
}

/// A statement of a command. It concerns one document, and is carried out in one step. An insert matches if
/// no document has one of its ids. Others match the revision, as `are_at` of `write.rs` does.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Statement {
    /// As the call has found it, or as it inserts it.
    pub(crate) doc: Doc,
    /// If no message is left, it is deleted.
    pub(crate) to: Entry,
    pub(crate) added: i64,
    pub(crate) trace: Trace,
    pub(crate) uses: Vec<Use>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub(crate) struct Process {
    /// How many calls it has ended.
    calls: usize,
    /// The receipts that it was told.
    pub(crate) held: Vec<ParsedReceipt>,
    pub(crate) call: Option<&'static str>,
    pub(crate) answers: Vec<Answer>,
}

/// The first three have limits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Tick,
    /// The answer of a command is lost. Statements that are not carried out may be later, or never. A process
    /// that makes no more steps has crashed.
    Lose,
    /// Another member becomes the primary. What no majority has is rolled back.
    Failover,
    /// A statement arrives whose sender has given up.
    Arrive,
    /// A request is carried out, of several statements the next one.
    Go,
}

impl Event {
    /// The line that is broken if it happens or is told, and must not, or if it is wrongly denied.
    fn line(self, is_told: bool) -> &'static str {
        match self {
            Self::Stored(_) => "E2, E1: an insert stored twice, or was said to store and did not",
            Self::Refused(..) => "E2: a duplicate that the server did not refuse",
            Self::Claimed(..) => "L1: a lease was taken or delivered, and must not have been",
            Self::Applied(_) if is_told => "A4, A2: a lost receipt took effect, or was said to",
            Self::Applied(_) => "A3: a good receipt was said to be lost",
        }
    }
}

impl Doc {
    pub(crate) fn has(&self, id: usize) -> bool {
        self.entry.numbers().iter().any(|n| self.ids[*n] == id)
    }

    pub(crate) fn is_good(&self, receipt: &ParsedReceipt) -> bool {
        let lease = self.entry.part(receipt.number).and_then(Part::lease);
        self.id == receipt.entry && lease == Some(receipt.nonce)
    }
}

impl Statement {
    /// What happens if it matches, and what does not. Its call may then tell that.
    pub(crate) fn events(&self) -> Vec<(Event, bool)> {
        let Doc { born, rev, .. } = self.doc;
        let mut events = Vec::from_iter((rev == 0).then_some((Event::Stored(born), true)));
        if let Trace::Claim(nonce) = self.trace {
            let parts = self.to.parts.iter().filter(|it| it.lease() == Some(nonce));
            let claimed = |number: &usize| (Event::Claimed(nonce, self.doc.id, *number), true);
            events.extend(parts.flat_map(|part| &part.numbers).map(claimed));
        }
        for (index, outcome) in uses::decide(&self.doc.entry, &self.uses).1 {
            events.push((Event::Applied(index), outcome.is_applied()));
        }
        events
    }
}

impl State {
    /// Carries out a statement. Returns whether it matched.
    pub(crate) fn carry_out(&mut self, it: &Statement, bug: &str) -> bool {
        let (now, Database { docs, happened }) = (self.now, &mut self.primary);
        let is_insert = it.doc.rev == 0;
        let is_held = |id: &&usize| is_insert && docs.iter().any(|doc| doc.has(**id));
        let held: Vec<usize> = it.doc.ids.iter().filter(is_held).copied().collect();
        let is_seen = |doc: &Doc| doc.rev == it.doc.rev || bug == "GuardWithoutRev";
        let is_it = |doc: &Doc| doc.id == it.doc.id && is_seen(doc);
        let at = docs.iter().position(is_it);
        if !held.is_empty() || at.is_none() != is_insert {
            let by = it.doc.born / 4;
            happened.extend(held.into_iter().map(|id| Event::Refused(by, id)));
            return false;
        }
        let mut doc = it.doc.clone();
        (doc.rev, doc.entry) = (doc.rev + it.added, it.to.clone());
        let before = at.map_or(doc.clone(), |at| docs.remove(at));
        docs.extend(Some(doc).filter(|doc| !doc.entry.is_gone()));
        docs.sort_by_key(|doc| doc.born);
        let is_good = |each: &&Use| before.is_good(&each.receipt);
        for (event, _) in it.events().into_iter().filter(|it| it.1) {
            let is_right = match event {
                Event::Claimed(.., n) => before.entry.part(n).is_some_and(|it| it.is_ready(now)),
                Event::Applied(at) => it.uses.iter().filter(is_good).any(|it| it.index == at),
                event => !happened.contains(&event),
            };
            self.broken = self.broken.or((!is_right).then(|| event.line(true)));
            happened.insert(event);
        }
        let is_acked = |it: &&Use| it.action == Action::Ack && is_good(it);
        let acked = it.uses.iter().filter(is_acked).map(|it| it.receipt.number);
        let mut numbers: Vec<usize> = acked.chain(it.to.numbers()).collect();
        numbers.sort_unstable();
        if numbers != before.entry.numbers() {
            self.broken = Some("A2, A1: a message went without its receipt, or is back");
        }
        true
    }

    /// A call runs up to its next request. Of those before, it has the answers.
    fn advance(&mut self, run: &Run, index: usize, kind: Kind) -> Option<()> {
        let mut wire = Wire {
            run,
            id: (index * 3 + self.processes[index].calls) as u8,
            process: self.processes[index].clone(),
            state: self,
            kind: Some(kind),
            read: 0,
            tries: 0,
        };
        let told = wire.resume();
        // Every step carries out a request or loses its answer.
        wire.kind.is_none().then_some(())?;
        let mut process = wire.process;
        for (event, is_told) in told.iter().flatten().copied() {
            let is_good = |it| self.majority.docs.iter().any(|doc| doc.is_good(it));
            let is_wrong = match event {
                Event::Applied(index) if !is_told => is_good(&process.held[index % 8]),
                _ => is_told && !self.majority.happened.contains(&event),
            };
            self.broken = self.broken.or(is_wrong.then(|| event.line(is_told)));
            self.ruled_out.extend((!is_told).then_some(event));
            if let (Event::Claimed(nonce, entry, number), true) = (event, is_told) {
                process.held.push(ParsedReceipt {
                    nonce,
                    entry,
                    number,
                });
            }
        }
        if told.is_some() {
            (process.call, process.answers, process.calls) = (None, Vec::new(), process.calls + 1);
        }
        self.processes[index] = process;
        Some(())
    }
}

impl Model for Run {
    type State = State;
    /// With the index of a process or of a late statement, and of the call that an idle process begins.
    type Action = (Kind, usize, usize);

    fn init_states(&self) -> Vec<State> {
        let mut state = State::default();
        for (born, ids) in (60..).zip(&self.stock) {
            state.primary.docs.push(new_doc(born, ids, 1 << 62, self));
        }
        state.majority = state.primary.clone();
        state.left.clone_from(&self.limits);
        state.processes = vec![Process::default(); self.processes.len()];
        vec![state]
    }

    /// Includes steps that cannot be made.
    fn actions(&self, state: &State, steps: &mut Vec<Self::Action>) {
        steps.extend([(Kind::Tick, 0, 0), (Kind::Failover, 0, 0)]);
        steps.extend((0..state.late.len()).map(|index| (Kind::Arrive, index, 0)));
        for (index, process) in state.processes.iter().enumerate() {
            let calls = self.processes[index].get(process.calls).map_or(0, Vec::len);
            let calls = if process.call.is_some() { 1 } else { calls };
            let kinds = |call| [Kind::Go, Kind::Lose].map(|kind| (kind, index, call));
            steps.extend((0..calls).flat_map(kinds));
        }
        steps.retain(|it| state.left.get(it.0 as usize) != Some(&0));
    }

    fn next_state(&self, state: &State, (kind, index, call): Self::Action) -> Option<State> {
        let mut next = state.clone();
        if let Some(left) = next.left.get_mut(kind as usize) {
            *left -= 1;
        }
        match kind {
            Kind::Tick => next.now += 1,
            Kind::Failover => next.primary = next.majority.clone(),
            Kind::Arrive => {
                let it = next.late.remove(index);
                next.carry_out(&it, self.bug);
            }
            Kind::Lose | Kind::Go => {
                let process = &mut next.processes[index];
                let calls = &self.processes[index][process.calls];
                process.call.get_or_insert(calls[call]);
                next.advance(self, index, kind)?;
            }
        }
        if next.left[Kind::Failover as usize] == 0 {
            // Nothing is rolled back any more.
            next.majority = next.primary.clone();
        }
        next.late.sort_by_key(|it| (it.added, it.doc.born));
        let mut wrong = next.primary.happened.intersection(&next.ruled_out);
        next.broken = next.broken.or(wrong.next().map(|event| event.line(true)));
        Some(next)
    }

    fn properties(&self) -> Vec<Property<Self>> {
        let holds = |_: &Self, state: &State| state.broken.is_none();
        vec![Property::always("contract", holds)]
    }
}
