//! The states of the model, its steps, and the lines of the contract.

use std::collections::BTreeSet;

use stateright::{Model, Property};

use crate::{
    calls::uses::Use,
    database::{Database, Doc, Message, Statement},
    document::{
        entry::{Action, Millis},
        receipt::ParsedReceipt,
    },
    protocol::{Answer, Done, Fact, Request, Stop, Wire, new_doc},
    runs::{Bug, Limits, Op, Run},
};

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct State {
    now: Millis,
    /// What the primary has, and what is left of it after a failover.
    primary: Database,
    majority: Database,
    /// Statements whose senders have given up. Each may arrive, or not.
    late: Vec<Statement>,
    processes: Vec<Process>,
    left: Limits,
    told: BTreeSet<Told>,
    /// The line of the contract that is broken.
    pub(crate) broken: Option<&'static str>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
struct Process {
    /// How many calls it has begun.
    calls: usize,
    /// The leases that it was told.
    held: Vec<Held>,
    call: Option<Call>,
}

/// A receipt, and until when the lease lasts.
pub(crate) type Held = (ParsedReceipt, Millis);

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Call {
    pub(crate) id: u8,
    pub(crate) op: Op,
    /// Of each entry.
    pub(crate) uses: Vec<Vec<Use>>,
    pub(crate) answers: Vec<Answer>,
    request: Request,
    /// Whether the statements matched that are carried out.
    hits: Vec<bool>,
    /// What a majority had at some time since it began: message ids that an enqueue may call
    /// duplicates, or places in the call of receipts that were lost.
    had: BTreeSet<usize>,
}

/// What calls have answered. Messages are by insert and number, receipts by call and place in it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
enum Told {
    Stored(Message),
    Acked(Message),
    Lost((u8, usize)),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Step {
    Tick,
    /// Another member becomes the primary. What no majority has is rolled back.
    Failover,
    /// A statement arrives whose sender has given up.
    Arrive(usize),
    /// A process begins a call: which of those that it may make, and with which of its receipts.
    Begin(usize, usize, usize),
    /// A request of a process is carried out, of several statements the next one.
    Go(usize, Fault),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fault {
    None,
    /// The statement is carried out. The answer is lost.
    ReplyLost,
    /// The caller gives up. What is not carried out may be, at any time.
    Late,
    /// The same, because the process dies.
    Crash,
}

impl Call {
    fn remember(&mut self, majority: &Database) {
        let uses = self.uses.iter().flatten();
        let find = |each: &Use| majority.doc(each.receipt.entry)?.leased(&each.receipt);
        let lost = uses.filter(|each| find(each).is_none());
        self.had.extend(lost.map(|each| each.index));
        if let Op::Enqueue(entries) = &self.op {
            let others = majority.docs.iter().filter(|it| it.born / 4 != self.id);
            let others: Vec<&Doc> = others.collect();
            let is_held = |id: &&usize| others.iter().any(|doc| doc.holds(**id));
            self.had.extend(entries.iter().flatten().filter(is_held));
        }
    }
}

impl State {
    /// A majority has all that the primary has, so a write is answered.
    fn commit(&mut self) {
        self.majority = self.primary.clone();
    }

    fn carry_out(&mut self, statement: &Statement, run: &Run) -> bool {
        let matched = self.primary.carry_out(statement, run.bug);
        self.broken = self.broken.or(matched.err());
        matched.unwrap_or(true)
    }

    fn begin(&mut self, run: &Run, index: usize, op: &Op, choice: usize) -> Option<()> {
        let process = &mut self.processes[index];
        let (held, action) = match op {
            Op::All(action) if choice == 0 => (process.held.clone(), Some(action)),
            Op::One(action) => (vec![*process.held.get(choice)?], Some(action)),
            _ if choice > 0 => return None,
            _ => (Vec::new(), None),
        };
        if action.is_some() && held.is_empty() {
            return None;
        }
        if !matches!(action, Some(Action::Extend { .. })) {
            process.held.retain(|it| !held.contains(it));
        }
        let mut uses: Vec<Vec<Use>> = Vec::new();
        for (index, (held, _)) in held.into_iter().enumerate() {
            let action = action?.clone();
            let each = Use {
                index,
                receipt: held,
                action,
            };
            match uses.iter_mut().find(|it| it[0].receipt.entry == held.entry) {
                Some(uses) => uses.push(each),
                None => uses.push(vec![each]),
            }
        }
        let mut call = Call {
            id: (index * 4 + process.calls) as u8,
            op: op.clone(),
            uses,
            answers: Vec::new(),
            request: Request::Find,
            hits: Vec::new(),
            had: BTreeSet::new(),
        };
        process.calls += 1;
        call.remember(&self.majority);
        self.resume(run, index, call);
        // It looks as soon as it begins: an earlier beginning only makes more answers true.
        match self.processes[index].call.as_ref()?.request {
            Request::Write(_) => Some(()),
            _ => self.go(run, index, Fault::None),
        }
    }

    fn resume(&mut self, run: &Run, index: usize, mut call: Call) {
        match Wire::resume(run, &call) {
            Err(Stop::Asks(request)) => {
                (call.request, call.hits) = (request, Vec::new());
                self.processes[index].call = Some(call);
            }
            Err(Stop::Uncertain) => {}
            Ok(done) => {
                call.remember(&self.majority);
                let broken = self.tell(index, &call, done);
                self.broken = self.broken.or(broken);
            }
        }
    }

    fn go(&mut self, run: &Run, index: usize, fault: Fault) -> Option<()> {
        let mut call = self.processes[index].call.take()?;
        let mut answer = Answer {
            now: self.now,
            ..Answer::default()
        };
        match (&call.request, fault) {
            (Request::Write(statements), Fault::None | Fault::ReplyLost) => {
                call.hits
                    .push(self.carry_out(&statements[call.hits.len()], run));
                match (call.hits.len() == statements.len(), fault) {
                    (true, Fault::None) => {
                        self.commit();
                        answer.hits = Some(call.hits.clone());
                    }
                    (true, _) => {}
                    (false, Fault::None) => {
                        self.processes[index].call = Some(call);
                        return Some(());
                    }
                    // As `Late`, if nothing arrives.
                    (false, _) => return None,
                }
            }
            (Request::Write(statements), _) => {
                self.late
                    .extend(statements[call.hits.len()..].iter().cloned());
            }
            (_, Fault::ReplyLost | Fault::Late) => return None,
            (Request::Find, _) => answer.found = self.primary.docs.clone(),
            (Request::Confirm(facts), _) => {
                let is_fact = |(id, fact): &(_, Fact)| match (self.primary.doc(*id), fact) {
                    (None, Fact::Absent) => true,
                    (Some(doc), Fact::Born(born)) => doc.born == *born,
                    (Some(doc), Fact::Rev(rev)) => doc.rev == *rev,
                    _ => false,
                };
                answer.is_fact = facts.iter().all(is_fact) || run.bug == Bug::ConfirmedAfter;
                if run.bug != Bug::NeverConfirmed {
                    self.commit();
                }
            }
        }
        if fault == Fault::Crash {
            let (calls, held, call) = (usize::MAX, Vec::new(), None);
            self.processes[index] = Process { calls, held, call };
            return Some(());
        }
        call.answers.push(answer);
        self.resume(run, index, call);
        Some(())
    }

    /// A call answers. The answer must be true.
    fn tell(&mut self, index: usize, call: &Call, done: Done) -> Option<&'static str> {
        let held = &mut self.processes[index].held;
        held.extend(done.leased);
        for (born, count) in done.stored {
            self.told
                .extend((0..count).map(|number| Told::Stored((born, number))));
        }
        if done.duplicates.iter().any(|id| !call.had.contains(id)) {
            return Some("E2: a duplicate of what the queue did not hold during the call");
        }
        let claims = &self.majority.claims;
        if done.claims.iter().any(|claim| !claims.contains(claim)) {
            return Some("L1: a lease was delivered that was never taken");
        }
        for (index, outcome) in done.outcomes {
            let each = call.uses.iter().flatten().find(|it| it.index == index)?;
            let effect = self.majority.effects.get(&(call.id, index));
            let lease = held.iter_mut().find(|it| it.0 == each.receipt);
            match (outcome.is_applied(), effect, &each.action) {
                (false, ..) if !call.had.contains(&index) => {
                    return Some("A3: a good receipt was said to be lost");
                }
                (false, ..) => {
                    self.told.insert(Told::Lost((call.id, index)));
                    held.retain(|it| it.0 != each.receipt);
                }
                (true, None, _) => {
                    return Some("A4: a receipt was said to be applied, and was not");
                }
                (true, Some(message), Action::Ack) => {
                    self.told.insert(Told::Acked(*message));
                }
                (true, _, Action::Extend { until }) => drop(lease.map(|lease| lease.1 = *until)),
                (true, ..) => {}
            }
        }
        None
    }

    /// Which line is broken by what processes were told.
    fn broken(&self) -> Option<&'static str> {
        let (primary, majority) = (&self.primary, &self.majority);
        for told in &self.told {
            match told {
                Told::Acked(it) if primary.has(*it) || majority.has(*it) => {
                    return Some("A1: an acked message is there");
                }
                Told::Lost(it) if primary.effects.contains_key(it) => {
                    return Some("A4: a receipt took effect that was said to be lost");
                }
                Told::Stored(it) if !majority.has(*it) && !majority.acked.contains(it) => {
                    return Some("E1: a stored message is nowhere");
                }
                _ => {}
            }
        }
        let mut held = self.processes.iter().flat_map(|process| &process.held);
        let is_kept = held.all(|(receipt, until)| {
            let doc = primary.doc(receipt.entry);
            let at = doc.and_then(|doc| doc.leased(receipt)?.ready_at());
            *until <= self.now || at >= Some(*until)
        });
        (!is_kept).then_some("L1: the database does not know a lease that has not expired")
    }
}

impl Model for Run {
    type State = State;
    type Action = Step;

    fn init_states(&self) -> Vec<State> {
        let mut primary = Database::default();
        let mut told = BTreeSet::new();
        for (born, ids) in (60..).zip(&self.stock) {
            primary.docs.push(new_doc(born, ids, self));
            told.extend((0..ids.len()).map(|number| Told::Stored((born, number))));
        }
        vec![State {
            now: 0,
            majority: primary.clone(),
            primary,
            late: Vec::new(),
            processes: vec![Process::default(); self.processes.len()],
            left: self.limits,
            told,
            broken: None,
        }]
    }

    /// Also steps that cannot be made.
    fn actions(&self, state: &State, steps: &mut Vec<Step>) {
        if state.broken.is_some() {
            return;
        }
        steps.extend([Step::Tick, Step::Failover]);
        steps.extend((0..state.late.len()).map(Step::Arrive));
        for (index, process) in state.processes.iter().enumerate() {
            if process.call.is_some() {
                let faults = [Fault::None, Fault::ReplyLost, Fault::Late, Fault::Crash];
                steps.extend(faults.map(|fault| Step::Go(index, fault)));
                continue;
            }
            let calls = self.processes[index].get(process.calls);
            for call in 0..calls.map_or(0, Vec::len) {
                let choices = 0..process.held.len().max(1);
                steps.extend(choices.map(|choice| Step::Begin(index, call, choice)));
            }
        }
    }

    fn next_state(&self, state: &State, step: Step) -> Option<State> {
        let mut left = state.left;
        let limit = match step {
            Step::Tick => 0,
            Step::Go(_, Fault::ReplyLost | Fault::Late) => 1,
            Step::Go(_, Fault::Crash) => 2,
            Step::Failover => 3,
            _ => left.len(),
        };
        if let Some(left) = left.get_mut(limit) {
            *left = left.checked_sub(1)?;
        }
        let mut next = State {
            left,
            ..state.clone()
        };
        match step {
            Step::Tick => next.now += 1,
            Step::Failover => {
                next.primary = next.majority.clone();
                for index in 0..next.processes.len() {
                    // A command that has begun ends with an error.
                    let call = &mut next.processes[index].call;
                    if let Some(mut call) = call.take_if(|it| !it.hits.is_empty()) {
                        call.answers.push(Answer::default());
                        next.resume(self, index, call);
                    }
                }
            }
            Step::Arrive(index) => {
                let statement = next.late.remove(index);
                next.carry_out(&statement, self);
            }
            Step::Begin(index, call, choice) => {
                let calls = &self.processes[index][state.processes[index].calls];
                next.begin(self, index, &calls[call], choice)?;
            }
            Step::Go(index, fault) => next.go(self, index, fault)?,
        }
        if next.left[3] == 0 {
            // Nothing is rolled back any more.
            next.commit();
        }
        next.late.sort_by_key(|it| (it.call, it.doc.id.bytes()));
        for call in next.processes.iter_mut().filter_map(|it| it.call.as_mut()) {
            call.remember(&next.majority);
        }
        next.broken = next.broken.or_else(|| next.broken());
        Some(next)
    }

    fn properties(&self) -> Vec<Property<Self>> {
        let holds = |_: &Self, state: &State| state.broken.is_none();
        vec![Property::always("the contract", holds)]
    }
}
