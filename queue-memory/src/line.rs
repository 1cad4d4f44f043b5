//! Messages that stand in line: first come, first leased.

use std::iter;

use queue_api::millis::Millis;

use crate::{
    message::{Place, Set},
    messages::{Messages, Slot},
};

/// A line of messages, each of which knows its neighbours: joining, leaving from the front and
/// leaving from the middle take the same few steps however long the line is.
#[derive(Debug, Default)]
pub(crate) struct Line {
    ends: Option<Ends>,
    len: u64,
}

#[derive(Clone, Copy, Debug)]
struct Ends {
    first: Slot,
    last: Slot,
}

/// A message's place in the line.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Standing {
    /// When the message became ready, or will.
    pub(crate) at: Millis,
    ahead: Option<Slot>,
    behind: Option<Slot>,
}

impl Standing {
    /// Of a message that is in no line yet.
    pub(crate) fn alone(at: Millis) -> Self {
        Self {
            at,
            ahead: None,
            behind: None,
        }
    }
}

impl Line {
    pub(crate) fn is_empty(&self) -> bool {
        self.ends.is_none()
    }

    pub(crate) fn len(&self) -> u64 {
        self.len
    }

    /// When the first message became ready, or will.
    pub(crate) fn first(&self, messages: &Messages) -> Option<Millis> {
        Some(standing(messages, self.ends?.first).at)
    }

    /// From the front to the back, with the time at which each became ready, or will.
    pub(crate) fn iter(&self, messages: &Messages) -> impl Iterator<Item = (Slot, Millis)> {
        let first = self.ends.map(|ends| ends.first);
        let line = iter::successors(first, |slot| standing(messages, *slot).behind);
        line.map(|slot| (slot, standing(messages, slot).at))
    }

    /// Puts a message that is in no line at the back.
    pub(crate) fn join(&mut self, messages: &mut Messages, slot: Slot, set: Set, at: Millis) {
        let ahead = self.ends.map(|ends| ends.last);
        let behind = None;
        messages[slot].place = Place::InLine(set, Standing { at, ahead, behind });
        if let Some(ahead) = ahead {
            standing_mut(messages, ahead).behind = Some(slot);
        }
        self.ends = Some(Ends {
            first: self.ends.map_or(slot, |ends| ends.first),
            last: slot,
        });
        self.len += 1;
    }

    /// Takes the first message out.
    pub(crate) fn leave_first(&mut self, messages: &mut Messages) -> Option<Slot> {
        let first = self.ends?.first;
        self.leave(messages, first);
        Some(first)
    }

    /// Takes out a message that is in the line, which has to be put elsewhere then.
    pub(crate) fn leave(&mut self, messages: &mut Messages, slot: Slot) {
        let Standing { ahead, behind, .. } = *standing(messages, slot);
        if let Some(ahead) = ahead {
            standing_mut(messages, ahead).behind = behind;
        }
        if let Some(behind) = behind {
            standing_mut(messages, behind).ahead = ahead;
        }
        self.ends = self.ends.and_then(|Ends { first, last }| {
            let first = if first == slot { behind? } else { first };
            let last = if last == slot { ahead? } else { last };
            Some(Ends { first, last })
        });
        self.len -= 1;
    }

    /// Moves all who are in the line from one store to another.
    pub(crate) fn relocate(&mut self, from: &mut Messages, to: &mut Messages) {
        let mut line = Self::default();
        while let Some(slot) = self.leave_first(from) {
            let message = from.remove(slot);
            if let Place::InLine(set, Standing { at, .. }) = message.place {
                let slot = to.insert(message);
                line.join(to, slot, set, at);
            }
        }
        *self = line;
    }
}

fn standing(messages: &Messages, slot: Slot) -> &Standing {
    match &messages[slot].place {
        Place::InLine(_, standing) => standing,
        other => panic!("{other:?} in a line"),
    }
}

fn standing_mut(messages: &mut Messages, slot: Slot) -> &mut Standing {
    match &mut messages[slot].place {
        Place::InLine(_, standing) => standing,
        other => panic!("{other:?} in a line"),
    }
}
