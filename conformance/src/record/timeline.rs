//! The calls about one message, as text.

use std::fmt::Write;

use super::event::{Call, Millis, Operation};

/// How to read a timeline.
const LEGEND: &str = "  \
  Moments are microseconds since the first of these calls. Clock times are milliseconds since the
  record began, by the backend's clock. ==> marks the calls that together break the contract. #n is
  the nth call of its task; the parts of one batch have the same n. Overlapping calls may have taken
  effect in either order: a record is rejected only if it breaks the contract in every order.
";

/// The calls about message `id`, in the order in which they began. Those in `broken_by` are marked.
pub(super) fn timeline(calls: &[Call], id: &str, why: &str, broken_by: &[&Call]) -> String {
    let mut about: Vec<_> = calls.iter().filter(|call| call.concerns(id)).collect();
    about.sort_by_key(|call| call.began);
    let start = about.first().map_or(0, |call| call.began);
    let clock_start = calls.iter().map(|call| call.clock_from).min().unwrap_or(0);
    let since = |moment: u64| (moment - start) / 1000;
    let mut text = format!("message {id}\n");
    for call in about {
        let is_marked = broken_by.iter().any(|marked| std::ptr::eq(*marked, call));
        let mark = if is_marked { "==>" } else { "" };
        let (ended, clock_to) = match call.ended {
            None => ("?".to_owned(), "?".to_owned()),
            Some(ended) => (
                since(ended).to_string(),
                (call.clock_to - clock_start).to_string(),
            ),
        };
        let (began, clock_from) = (since(call.began), call.clock_from - clock_start);
        let (by, number) = (&call.by, call.number);
        let operation = describe(&call.operation, clock_start);
        let _ = writeln!(
            text,
            "  {mark:3} {began:>8} to {ended:>8} us, clock {clock_from:>6} to {clock_to:>6}  \
             {by} #{number}: {operation}"
        );
    }
    let _ = write!(text, "  ==> {why}\n\n{LEGEND}");
    text
}

fn describe(operation: &Operation, clock_start: Millis) -> String {
    match operation {
        Operation::Enqueue {
            id,
            delay,
            answered,
        } => {
            let answer = if *answered { "stored" } else { "?" };
            format!("enqueue {id} (delay {delay} ms) -> {answer}")
        }
        Operation::Store {
            id,
            delay,
            max_attempts,
            answer,
        } => {
            let answer = match answer {
                None => "?",
                Some(true) => "stored",
                Some(false) => "duplicate",
            };
            format!("enqueue {id} (delay {delay} ms, max attempts {max_attempts}) -> {answer}")
        }
        Operation::Manage { queue, call } => format!("queue {queue}: {call:?}"),
        Operation::Lease { answer: None, .. } => "lease -> ?".to_owned(),
        Operation::Lease {
            answer: Some(deliveries),
            ..
        } => {
            let leased = deliveries.iter().map(|delivery| {
                let (id, attempt, receipt) = (&delivery.id, delivery.attempt, &delivery.receipt);
                // A wrong backend may report a time before the start.
                let until = i128::from(delivery.expires) - i128::from(clock_start);
                format!("{id} (attempt {attempt}, until {until}, receipt {receipt})")
            });
            format!("lease -> {}", leased.collect::<Vec<_>>().join(", "))
        }
        Operation::Settle {
            receipt,
            id,
            action,
            answer,
        } => {
            let answer = match answer {
                None => "?",
                Some(true) => "applied",
                Some(false) => "lost",
            };
            format!("{action:?} {id} (receipt {receipt}) -> {answer}")
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{super::judge::judge, *};
    use crate::record::event::{ManageCall, ReceiptAction, RecordedDelivery};

    fn call(number: u64, (began, ended): (u64, u64), operation: Operation) -> Call {
        Call {
            by: "worker".to_owned(),
            number,
            part: 0,
            began: began * 1000,
            ended: Some(ended * 1000),
            clock_from: 7000,
            clock_to: 7000,
            operation,
        }
    }

    fn ack(receipt: &str, applied: bool) -> Operation {
        Operation::Settle {
            receipt: receipt.to_owned(),
            id: "m".to_owned(),
            action: ReceiptAction::Ack,
            answer: Some(applied),
        }
    }

    /// A lease of the message, with each receipt and attempt.
    fn lease(visibility: u64, answer: &[(&str, u32)]) -> Operation {
        let delivery = |&(receipt, attempt): &(&str, u32)| RecordedDelivery {
            id: "m".to_owned(),
            receipt: receipt.to_owned(),
            attempt,
            expires: 7000 + visibility,
        };
        Operation::Lease {
            visibility,
            answer: Some(answer.iter().map(delivery).collect()),
        }
    }

    /// A message is stored, leased and acked, then acked again.
    fn record(second_ack: Operation, when: (u64, u64)) -> Vec<Call> {
        let enqueue = Operation::Enqueue {
            id: "m".to_owned(),
            delay: 0,
            answered: true,
        };
        vec![
            call(1, (0, 10), enqueue),
            call(2, (20, 30), lease(20, &[("r1", 1)])),
            call(3, (40, 50), ack("r1", true)),
            call(4, when, second_ack),
        ]
    }

    #[test]
    fn the_calls_that_break_the_contract_are_marked() {
        let text = judge(&record(ack("r1", true), (60, 70)))[0].to_string();
        let marked: Vec<_> = text.lines().filter(|line| line.contains("==>")).collect();
        assert_eq!(
            marked.len(),
            4,
            "two calls, the reason and the legend: {text}"
        );
        assert!(marked[0].contains("#3: Ack m (receipt r1)"), "{text}");
        assert!(marked[1].contains("#4: Ack m (receipt r1)"), "{text}");
        assert!(marked[2].contains("A4: receipt r1 worked after"), "{text}");
        assert!(text.contains("clock      0 to      0"), "{text}");
        assert!(text.contains("until 20, receipt r1"), "{text}");
    }

    #[test]
    fn overlapping_calls_may_have_either_order() {
        // The lost ack began first, but may have taken effect second.
        assert!(judge(&record(ack("r1", false), (35, 45))).is_empty());
        // The lost ack ended before the other began.
        let text = judge(&record(ack("r1", false), (32, 38)))[0].to_string();
        assert!(text.contains("A3: receipt r1 was lost"), "{text}");
    }

    #[test]
    fn one_call_meets_a_message_once() {
        let leased = |answer: &[(&str, u32)]| {
            let mut calls = record(ack("r1", false), (60, 70));
            calls[1].operation = lease(0, answer);
            calls[2].operation = ack(answer[answer.len() - 1].0, true);
            calls.truncate(3);
            judge(&calls)
        };
        assert!(leased(&[("r1", 1)]).is_empty());
        let text = leased(&[("r1", 1), ("r2", 2)])[0].to_string();
        assert!(text.contains("==> L4: one call delivered"), "{text}");
    }

    /// A purge and another enqueue of the id, while one call leases. Both take effect within it.
    #[test]
    fn one_call_may_meet_two_messages_of_an_id() {
        let store = |copy: &str| Operation::Enqueue {
            id: copy.to_owned(),
            delay: 0,
            answered: true,
        };
        let leased = |copies: [&str; 2]| {
            let mut leased = lease(1000, &[("r1", 1), ("r2", 1)]);
            if let Operation::Lease {
                answer: Some(answer),
                ..
            } = &mut leased
            {
                for (delivery, copy) in answer.iter_mut().zip(copies) {
                    copy.clone_into(&mut delivery.id);
                }
            }
            leased
        };
        let mut last = ack("r2", true);
        if let Operation::Settle { id, .. } = &mut last {
            "q/m#2".clone_into(id);
        }
        let judged = |purge: (u64, u64), copies| {
            judge(&[
                call(1, (0, 10), store("q/m#1")),
                call(2, (20, 90), leased(copies)),
                call(
                    3,
                    purge,
                    Operation::Manage {
                        queue: "q".to_owned(),
                        call: ManageCall::PurgeLive(Some(1)),
                    },
                ),
                call(4, (40, 50), store("q/m#2")),
                call(5, (95, 99), last.clone()),
            ])
        };
        let copies = ["q/m#1", "q/m#2"];
        assert!(judged((25, 45), copies).is_empty());
        for (purge, why) in [
            ((12, 15), "removed before the lease began"),
            ((60, 70), "not removed until the second was stored"),
        ] {
            assert!(!judged(purge, copies).is_empty(), "{why}");
        }
        let text = judged((25, 45), ["q/m#2", "q/m#2"])[0].to_string();
        assert!(text.contains("==> L4: one call delivered"), "{text}");
    }
}
