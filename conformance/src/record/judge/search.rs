//! The search for an order of calls that the contract allows.

use std::collections::HashSet;

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

pub(super) struct Search<'s, 'a> {
    /// In the order in which they ended.
    steps: &'s [Step<'a>],
    unknown_leases: &'s [Moment],
    /// What a step must have counted.
    wanted: Option<(usize, Counted)>,
    seen: HashSet<(Vec<u64>, State<'a>)>,
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
    pub(super) fn new(
        steps: &'s [Step<'a>],
        unknown_leases: &'s [Moment],
        wanted: Option<(usize, Counted)>,
    ) -> Self {
        Self {
            steps,
            unknown_leases,
            wanted,
            seen: HashSet::new(),
            longest: 0,
            refused: Vec::new(),
        }
    }

    pub(super) fn run(mut self) -> Verdict {
        let start = Prefix {
            done: vec![0; self.steps.len().div_ceil(64)],
            certain: 0,
            began: 0,
            state: State::Absent,
            last: None,
        };
        if self.can_end(&start) {
            return Verdict::Possible;
        }
        if self.seen.len() >= MOST_STATES {
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
        if prefix.certain == self.steps.iter().filter(|step| step.is_certain).count() {
            let mut ends = prefix.state.with_hidden_leases(u64::MAX, 0).into_iter();
            if ends.any(|state| !state.is_live()) {
                return true;
            }
            let why = "E1: the message was stored, but never acked or made a dead letter";
            if let Some(last) = prefix.last {
                self.refuse(prefix, last, why.to_owned());
            }
        }
        let is_new = self
            .seen
            .insert((prefix.done.clone(), prefix.state.clone()));
        if !is_new || self.seen.len() >= MOST_STATES {
            return false;
        }
        let (certain, possible): (Vec<_>, Vec<_>) = (0..self.steps.len())
            .filter(|step| self.may_be_next(prefix, *step))
            .partition(|step| self.steps[*step].is_certain);
        certain
            .into_iter()
            .chain(possible)
            .any(|step| self.can_go_on(prefix, step))
    }

    fn may_be_next(&self, prefix: &Prefix<'a>, next: usize) -> bool {
        let is_done = |step: usize| prefix.done[step / 64] & 1 << (step % 64) != 0;
        if is_done(next) {
            return false;
        }
        let call = self.steps[next].call;
        // Its own end, if an earlier part of the order began after it.
        if call.ended.is_some_and(|ended| ended < prefix.began) {
            return false;
        }
        self.steps.iter().enumerate().all(|(n, other)| {
            let same_batch = other.call.number == call.number && other.call.by == call.by;
            if n != next && same_batch && other.call.part < call.part {
                return is_done(n) || !other.is_certain;
            }
            if same_batch && other.call.part > call.part {
                return !is_done(n);
            }
            let came_before = other.call.ended.is_some_and(|ended| ended < call.began);
            is_done(n) || !other.is_certain || !came_before
        })
    }

    fn can_go_on(&mut self, prefix: &Prefix<'a>, next: usize) -> bool {
        let step = &self.steps[next];
        let ended = step.call.ended.unwrap_or(Moment::MAX);
        let unknown = self
            .unknown_leases
            .iter()
            .filter(|began| **began < ended)
            .count();
        let last = prefix.last.map(|last| &self.steps[last]);
        for state in prefix.state.with_hidden_leases(step.call.clock_to, unknown) {
            if let Some((wanted, counted)) = self.wanted
                && wanted == next
                && !state.may_count(step, counted)
            {
                continue;
            }
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
            if self.can_end(&longer) {
                return true;
            }
        }
        false
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
