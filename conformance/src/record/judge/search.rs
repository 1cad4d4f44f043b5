//! The search for an order of calls that the contract allows.

use std::collections::{BTreeMap, HashMap};

use super::step::{Counted, State, Step};
use crate::record::event::Moment;

pub(super) enum Verdict {
    Possible,
    /// The steps that show it.
    Impossible {
        why: String,
        steps: Vec<usize>,
    },
    /// There are too many orders.
    Undecided,
}

/// More than any record of the suite needs.
const MOST_STATES: usize = 300_000;

/// Looks for an order of `steps`, which are in the order in which they ended. `unknown_leases` are
/// the moments when lease calls began that may have taken the message. Each makes more orders
/// possible, so it tries with few of them first.
pub(super) fn search<'a>(steps: &[Step<'a>], unknown_leases: &[Moment]) -> Verdict {
    let order = Order::new(steps);
    let mut verdict = Verdict::Undecided;
    for most_unknown in 0..=unknown_leases.len() {
        let search = Search::new(steps, &order, unknown_leases, most_unknown);
        verdict = search.run();
        if !matches!(verdict, Verdict::Impossible { .. }) {
            return verdict;
        }
    }
    verdict
}

/// How each step may have counted the message, in all orders. `None` if there are too many.
pub(super) fn counted<'a>(
    steps: &[Step<'a>],
    unknown_leases: &[Moment],
) -> Option<BTreeMap<usize, Vec<Counted>>> {
    let order = Order::new(steps);
    let mut search = Search::new(steps, &order, unknown_leases, unknown_leases.len());
    search.in_all_orders = true;
    search.most_states = MOST_STATES / 60;
    search.can_end(&search.start());
    (search.seen.len() < search.most_states).then_some(search.counted)
}

/// What is certain about the order: for each step, a bit for each other step.
struct Order {
    /// The certain steps that came before it.
    before: Vec<Vec<u64>>,
    /// The steps that came after it, if both took effect.
    behind: Vec<Vec<u64>>,
}

impl Order {
    fn new(steps: &[Step]) -> Self {
        let bits = |of: &dyn Fn(&Step) -> bool| {
            let mut bits = vec![0; steps.len().div_ceil(64)];
            for (n, step) in steps.iter().enumerate() {
                bits[n / 64] |= u64::from(of(step)) << (n % 64);
            }
            bits
        };
        let (mut before, mut behind) = (Vec::new(), Vec::new());
        for step in steps {
            let call = step.call;
            let is_part =
                |other: &Step| other.call.number == call.number && other.call.by == call.by;
            before.push(bits(&|other| {
                let ended_before = other.call.ended.is_some_and(|ended| ended < call.began);
                let is_earlier_part = other.call.part < call.part && is_part(other);
                other.is_certain && (ended_before || is_earlier_part)
            }));
            behind.push(bits(&|other| other.call.part > call.part && is_part(other)));
        }
        Self { before, behind }
    }
}

struct Search<'s, 'a> {
    /// In the order in which they ended.
    steps: &'s [Step<'a>],
    order: &'s Order,
    unknown_leases: &'s [Moment],
    most_unknown: usize,
    in_all_orders: bool,
    most_states: usize,
    /// The steps of the prefixes so far with their states, and whether such a prefix can end.
    seen: HashMap<(Vec<u64>, State<'a>), bool>,
    /// How steps counted the message in the orders so far.
    counted: BTreeMap<usize, Vec<Counted>>,
    /// The most steps in an order that is possible up to there, and what does not fit behind it.
    longest: usize,
    refused: Vec<Refused>,
}

/// A step that does not fit behind `last`.
struct Refused {
    step: usize,
    last: Option<usize>,
    why: String,
}

/// A possible beginning of the order.
struct Prefix<'a> {
    /// A bit for each step that is in it.
    done: Vec<u64>,
    certain: usize,
    /// When the last call in it began.
    began: Moment,
    state: State<'a>,
    /// The step that led to the state.
    last: Option<usize>,
}

impl<'s, 'a> Search<'s, 'a> {
    fn new(
        steps: &'s [Step<'a>],
        order: &'s Order,
        unknown_leases: &'s [Moment],
        most_unknown: usize,
    ) -> Self {
        Self {
            steps,
            order,
            unknown_leases,
            most_unknown,
            in_all_orders: false,
            most_states: MOST_STATES,
            seen: HashMap::new(),
            counted: BTreeMap::new(),
            longest: 0,
            refused: Vec::new(),
        }
    }

    fn start(&self) -> Prefix<'a> {
        Prefix {
            done: vec![0; self.steps.len().div_ceil(64)],
            certain: 0,
            began: 0,
            state: State::Absent,
            last: None,
        }
    }

    fn run(mut self) -> Verdict {
        if self.can_end(&self.start()) {
            return Verdict::Possible;
        }
        if self.seen.len() >= self.most_states {
            return Verdict::Undecided;
        }
        // The steps are in the order of their ends. So this one waits for no other.
        let blocking = self.refused.into_iter().min_by_key(|refused| refused.step);
        blocking.map_or(Verdict::Undecided, |refused| Verdict::Impossible {
            why: refused.why,
            steps: refused.last.into_iter().chain([refused.step]).collect(),
        })
    }

    /// Whether some order begins with `prefix`, has all certain steps, and leaves no live message.
    fn can_end(&mut self, prefix: &Prefix<'a>) -> bool {
        let key = (prefix.done.clone(), prefix.state.clone());
        if let Some(can_end) = self.seen.get(&key) {
            return *can_end;
        }
        if self.seen.len() >= self.most_states {
            return false;
        }
        let mut can_end = self.is_end(prefix);
        if !can_end || self.in_all_orders {
            for step in self.next_steps(prefix) {
                can_end |= self.can_go_on(prefix, step);
                if can_end && !self.in_all_orders {
                    break;
                }
            }
        }
        self.seen.insert(key, can_end);
        can_end
    }

    fn is_end(&mut self, prefix: &Prefix<'a>) -> bool {
        if prefix.certain < self.steps.iter().filter(|step| step.is_certain).count() {
            return false;
        }
        let mut ends = prefix.state.with_hidden_leases(u64::MAX, 0).into_iter();
        if ends.any(|state| !state.is_live()) {
            return true;
        }
        if let Some(last) = prefix.last {
            let why = "E1: the message was stored, but never acked or made a dead letter";
            self.refuse(prefix, last, why.to_owned());
        }
        false
    }

    /// The steps that may come next, those that are certain first.
    fn next_steps(&self, prefix: &Prefix<'a>) -> Vec<usize> {
        let may_be_next = |step: &usize| self.may_be_next(prefix, *step);
        let (mut next, possible): (Vec<_>, Vec<_>) = (0..self.steps.len())
            .filter(may_be_next)
            .partition(|step| self.steps[*step].is_certain);
        // A look that fits here need not be tried later: it fits into every order that goes on.
        let fits = |step: &usize| {
            let step = &self.steps[*step];
            let looks = step.action.only_looks() && !(self.in_all_orders && step.action.is_count());
            looks && prefix.state.after(step, None).is_ok()
        };
        if let Some(look) = next.iter().copied().find(fits) {
            return vec![look];
        }
        next.extend(possible);
        next
    }

    fn may_be_next(&self, prefix: &Prefix<'a>, next: usize) -> bool {
        let none = |of: &[u64], are: &dyn Fn(u64) -> u64| {
            of.iter()
                .zip(&prefix.done)
                .all(|(of, done)| of & are(*done) == 0)
        };
        let is_done = prefix.done[next / 64] & 1 << (next % 64) != 0;
        // Not behind a call that began after its end.
        let ended = self.steps[next].call.ended;
        !is_done
            && ended.is_none_or(|ended| ended >= prefix.began)
            && none(&self.order.before[next], &|done| !done)
            && none(&self.order.behind[next], &|done| done)
    }

    fn can_go_on(&mut self, prefix: &Prefix<'a>, next: usize) -> bool {
        let step = &self.steps[next];
        let ended = step.call.ended.unwrap_or(Moment::MAX);
        let unknown = self
            .unknown_leases
            .iter()
            .filter(|began| **began < ended)
            .count()
            .min(self.most_unknown);
        let last = prefix.last.map(|last| &self.steps[last]);
        let mut can_end = false;
        for state in prefix.state.with_hidden_leases(step.call.clock_to, unknown) {
            let after = match state.after(step, last) {
                Ok(after) => after,
                Err(why) => {
                    if state == prefix.state {
                        self.refuse(prefix, next, why);
                    }
                    continue;
                }
            };
            let is_changed = after != state;
            if !is_changed && !step.is_certain {
                continue;
            }
            let mut longer = Prefix {
                done: prefix.done.clone(),
                certain: prefix.certain + usize::from(step.is_certain),
                began: prefix.began.max(step.call.began),
                state: after,
                last: if is_changed { Some(next) } else { prefix.last },
            };
            longer.done[next / 64] |= 1 << (next % 64);
            if !self.can_end(&longer) {
                continue;
            }
            if !self.in_all_orders {
                return true;
            }
            can_end = true;
            let counted = self.counted.entry(next).or_default();
            for count in step.action.counts() {
                if state.may_count(step, *count) && !counted.contains(count) {
                    counted.push(*count);
                }
            }
        }
        can_end
    }

    fn refuse(&mut self, prefix: &Prefix<'a>, step: usize, why: String) {
        if prefix.certain > self.longest {
            self.longest = prefix.certain;
            self.refused.clear();
        }
        if prefix.certain == self.longest {
            self.refused.push(Refused {
                step,
                last: prefix.last,
                why,
            });
        }
    }
}
