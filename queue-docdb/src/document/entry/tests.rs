//! An entry does what its messages would do alone: random calls, judged by the contract for one
//! message.

use proptest::{collection::vec, prelude::*, sample::select};

use super::*;

/// A message, as the contract describes it.
#[derive(Clone, Debug)]
struct Message {
    at: Millis,
    attempts: u32,
    lease: Option<Uuid>,
    /// Whether it is a dead letter, and why.
    dead: Option<Option<String>>,
}

#[derive(Clone, Debug)]
enum Call {
    Lease {
        wanted: usize,
        visibility: Millis,
    },
    /// Uses one of the receipts.
    Settle {
        message: usize,
        receipt: usize,
        action: u8,
        by: Millis,
    },
    Redrive {
        message: usize,
    },
    Remove {
        message: usize,
    },
}

fn call() -> impl Strategy<Value = (Millis, Call)> {
    let call = prop_oneof![
        4 => (0..5_usize, 0..6_i64)
            .prop_map(|(wanted, visibility)| Call::Lease { wanted, visibility }),
        5 => (0..6_usize, 0..8_usize, 0..6_u8, 0..5_i64).prop_map(
            |(message, receipt, action, by)| Call::Settle { message, receipt, action, by }
        ),
        1 => (0..6_usize).prop_map(|message| Call::Redrive { message }),
        1 => (0..6_usize).prop_map(|message| Call::Remove { message }),
    ];
    (0..4_i64, call)
}

fn nonce(number: usize) -> Uuid {
    Uuid::from_bytes((number as u128).to_be_bytes())
}

struct Model {
    messages: Vec<Option<Message>>,
    max_attempts: u32,
    leases: usize,
    now: Millis,
}

impl Model {
    fn message(&mut self, number: usize) -> Option<&mut Message> {
        self.messages.get_mut(number)?.as_mut()
    }

    /// Leases as a call does: part by part, in order of ready time.
    fn lease(&mut self, entry: &mut Entry, wanted: usize, visibility: Millis) {
        self.leases += 1;
        let (now, nonce) = (self.now, nonce(self.leases));
        let claim = NewLease {
            nonce,
            now,
            until: now + visibility,
        };
        let ready = |message: &Message| message.dead.is_none() && message.at <= now;
        let mut times: Vec<(Millis, usize)> = self
            .messages
            .iter()
            .enumerate()
            .filter_map(|(number, message)| {
                let message = message.as_ref().filter(|message| ready(message))?;
                Some((message.at, number))
            })
            .collect();
        times.sort_unstable();
        let mut given: Vec<usize> = Vec::new();
        let before = entry.clone();
        for (at, _) in &times {
            let left = wanted - given.len();
            if left == 0 {
                break;
            }
            let met = given.clone();
            if let Some(taken) = entry.lease(*at, &claim, left, |number| met.contains(&number)) {
                for number in &taken.numbers {
                    let message = self.messages[*number].as_ref().expect("it is there");
                    assert_eq!(taken.attempt, message.attempts + 1);
                    assert!(ready(message) && message.attempts < self.max_attempts);
                }
                given.extend(taken.numbers);
            }
        }
        let live = times.iter().filter(|(_, number)| {
            let message = self.messages[*number].as_ref();
            message.is_some_and(|message| message.attempts < self.max_attempts)
        });
        let live: Vec<(Millis, usize)> = live.copied().collect();
        assert_eq!(given.len(), live.len().min(wanted), "min(asked, ready)");
        let last = given
            .iter()
            .filter_map(|number| live.iter().find(|(_, n)| n == number));
        let last = last.map(|(at, _)| *at).max();
        for (at, number) in &live {
            let is_early = last.is_some_and(|last| *at < last);
            assert!(
                !is_early || given.contains(number),
                "in order of ready time"
            );
        }
        for (_, number) in times {
            let is_dead = entry
                .part(number)
                .is_some_and(|part| part.dead_at().is_some());
            let message = self.messages[number].as_mut().expect("it is there");
            if given.contains(&number) {
                message.at = claim.until;
                message.attempts += 1;
                message.lease = Some(nonce);
            } else if is_dead {
                assert!(wanted > 0 && message.attempts >= self.max_attempts, "D1");
                message.dead = Some(None);
                message.lease = None;
            }
        }
        if wanted == 0 {
            assert_eq!(*entry, before);
        }
    }

    fn settle(&mut self, entry: &mut Entry, number: usize, receipt: usize, action: &Action) {
        let nonce = nonce(receipt);
        let is_good = self
            .message(number)
            .is_some_and(|it| it.lease == Some(nonce));
        let before = entry.clone();
        assert_eq!(entry.settle(number, nonce, action), is_good, "A2 to A4");
        if !is_good {
            return assert_eq!(*entry, before);
        }
        let Some(message) = self.message(number) else {
            return;
        };
        match action {
            Action::Ack => self.messages[number] = None,
            Action::Extend { until } => message.at = *until,
            Action::Nack { until } => (message.at, message.lease) = (*until, None),
            Action::Release { at } => {
                (message.at, message.lease) = (*at, None);
                message.attempts -= 1;
            }
            Action::DeadLetter { reason, .. } => {
                (message.dead, message.lease) = (Some(Some(reason.clone())), None);
            }
        }
    }

    /// What the document says of its messages, and what its index keys are made of.
    fn check(&self, entry: &Entry) {
        let there = |number: &usize| self.messages[*number].is_some();
        let numbers: Vec<usize> = (0..self.messages.len()).filter(there).collect();
        assert_eq!(entry.numbers(), numbers, "each is in one part");
        assert_eq!(entry.is_gone(), numbers.is_empty());
        let live = self
            .messages
            .iter()
            .flatten()
            .filter(|message| message.dead.is_none());
        assert_eq!(entry.visible_at(), live.map(|message| message.at).min());
        let is_dead = self
            .messages
            .iter()
            .flatten()
            .any(|message| message.dead.is_some());
        assert_eq!(entry.dead_at().is_some(), is_dead);
        for (number, message) in self.messages.iter().enumerate() {
            let Some(message) = message else {
                continue;
            };
            let part = entry.part(number).expect("it is there");
            assert_eq!(part.attempts, message.attempts);
            assert_eq!(part.lease(), message.lease);
            match (&part.fate, &message.dead) {
                (Fate::Live { at, .. }, None) => assert_eq!(*at, message.at),
                (Fate::Dead { reason, .. }, Some(expected)) => assert_eq!(reason, expected),
                other => panic!("{other:?}"),
            }
        }
        let fates = entry.parts.iter().map(|part| (part.attempts, &part.fate));
        let fates: std::collections::HashSet<_> = fates.collect();
        assert_eq!(
            fates.len(),
            entry.parts.len(),
            "messages of one fate share a part"
        );
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(3000))]

    #[test]
    fn an_entry_does_what_its_messages_would_do_alone(
        count in 1..6_usize,
        at in 0..3_i64,
        max_attempts in select(vec![1_u32, 2, 3, 100]),
        calls in vec(call(), 1..40),
    ) {
        let part = Part {
            numbers: (0..count).collect(),
            attempts: 0,
            fate: Fate::Live { at, lease: None },
        };
        let mut entry = Entry { parts: vec![part], max_attempts, count };
        let message = Message { at, attempts: 0, lease: None, dead: None };
        let mut model = Model {
            messages: vec![Some(message); count],
            max_attempts,
            leases: 0,
            now: 0,
        };
        for (pass, call) in calls {
            model.now += pass;
            let now = model.now;
            match call {
                Call::Lease { wanted, visibility } => model.lease(&mut entry, wanted, visibility),
                Call::Settle { message, receipt, action, by } => {
                    // Recent receipts, so that many are good.
                    let receipt = model.leases.saturating_sub(receipt);
                    let action = match action {
                        0 | 1 => Action::Ack,
                        2 => Action::Extend { until: now + by },
                        3 => Action::Nack { until: now + by },
                        4 => Action::Release { at: now },
                        _ => Action::DeadLetter { at: now, reason: "no".to_owned() },
                    };
                    model.settle(&mut entry, message, receipt, &action);
                }
                Call::Redrive { message } => {
                    let is_dead = model.message(message).is_some_and(|it| it.dead.is_some());
                    prop_assert_eq!(entry.redrive(message, now), is_dead);
                    if let Some(message) = model.message(message).filter(|_| is_dead) {
                        *message = Message { at: now, attempts: 0, lease: None, dead: None };
                    }
                }
                Call::Remove { message } => {
                    entry.remove(message);
                    if let Some(message) = model.messages.get_mut(message) {
                        *message = None;
                    }
                }
            }
            model.check(&entry);
        }
    }
}
