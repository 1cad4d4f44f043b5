//! What happened to one message, as text for whoever looks for the bug.

use std::fmt::Write;

use super::event::{Call, Given, Millis, What};

/// What stands below each timeline: how to read it.
const LEGEND: &str = "  \
  Moments are in microseconds since the first of these calls, the backend's clock in milliseconds
  since the record began. ==> marks the calls that break the contract together; #n is the nth call
  of its task, and what was settled in one batch has the same. Calls that overlap may have taken
  effect in either order: only what is broken in each order is rejected.
";

/// The calls that concern the message `id`, in the order in which they began, with those that
/// broke something marked.
pub(super) fn timeline(calls: &[Call], id: &str, broken: &str, by: &[&Call]) -> String {
    let mut concerned: Vec<_> = calls.iter().filter(|call| call.concerns(id)).collect();
    concerned.sort_by_key(|call| call.began);
    let start = concerned.first().map_or(0, |call| call.began);
    let clock_start = calls.iter().map(|call| call.clock_from).min().unwrap_or(0);
    let mut text = format!("message {id}\n");
    for call in concerned {
        let mark = match by.iter().any(|broke| std::ptr::eq(*broke, call)) {
            true => "==>",
            false => "",
        };
        let since = |moment: u64| (moment - start) / 1000;
        let ended = call.ended.map(|ended| (since(ended), call.clock_to));
        let (ended, clock_to) = match ended {
            None => ("?".to_owned(), "?".to_owned()),
            Some((ended, clock)) => (ended.to_string(), (clock - clock_start).to_string()),
        };
        let (began, clock_from) = (since(call.began), call.clock_from - clock_start);
        let (by, number, what) = (&call.by, call.number, told(&call.what, clock_start));
        let _ = writeln!(
            text,
            "  {mark:3} {began:>8} to {ended:>8} us, clock {clock_from:>6} to {clock_to:>6}  \
             {by} #{number}: {what}"
        );
    }
    let _ = write!(text, "  ==> {broken}\n\n{LEGEND}");
    text
}

fn told(what: &What, clock_start: Millis) -> String {
    match what {
        What::Enqueue {
            id,
            delay,
            answered,
        } => {
            let answer = if *answered { "stored" } else { "?" };
            format!("enqueue {id} (delay {delay} ms) -> {answer}")
        }
        What::Lease { answer: None, .. } => "lease -> ?".to_owned(),
        What::Lease {
            answer: Some(given),
            ..
        } => {
            let given = given.iter().map(|given| {
                let Given {
                    id,
                    attempt,
                    receipt,
                    ..
                } = given;
                // What a backend says may be before the start, if it is wrong.
                let until = i128::from(given.expires) - i128::from(clock_start);
                format!("{id} (attempt {attempt}, until {until}, receipt {receipt})")
            });
            format!("lease -> {}", given.collect::<Vec<_>>().join(", "))
        }
        What::Settle {
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
    use crate::record::event::Action;

    fn call(number: u64, (began, ended): (u64, u64), what: What) -> Call {
        Call {
            by: "worker".to_owned(),
            number,
            part: 0,
            began: began * 1000,
            ended: Some(ended * 1000),
            clock_from: 7000,
            clock_to: 7000,
            what,
        }
    }

    fn ack(receipt: &str, applied: bool) -> What {
        What::Settle {
            receipt: receipt.to_owned(),
            id: "m".to_owned(),
            action: Action::Ack,
            answer: Some(applied),
        }
    }

    /// A message that is stored, leased and acked, and then whatever else is said to happen.
    fn record(second_ack: What, when: (u64, u64)) -> Vec<Call> {
        let enqueue = What::Enqueue {
            id: "m".to_owned(),
            delay: 0,
            answered: true,
        };
        let given = Given {
            id: "m".to_owned(),
            receipt: "r1".to_owned(),
            attempt: 1,
            expires: 7020,
        };
        let lease = What::Lease {
            visibility: 20,
            answer: Some(vec![given]),
        };
        vec![
            call(1, (0, 10), enqueue),
            call(2, (20, 30), lease),
            call(3, (40, 50), ack("r1", true)),
            call(4, when, second_ack),
        ]
    }

    #[test]
    fn what_broke_is_marked_and_the_receipt_named() {
        let told = judge(&record(ack("r1", true), (60, 70)))[0].to_string();
        let marked: Vec<_> = told.lines().filter(|line| line.contains("==>")).collect();
        assert_eq!(
            marked.len(),
            4,
            "two calls, what they break, the legend: {told}"
        );
        assert!(marked[0].contains("#3: Ack m (receipt r1)"), "{told}");
        assert!(marked[1].contains("#4: Ack m (receipt r1)"), "{told}");
        assert!(marked[2].contains("A4: receipt r1 worked after"), "{told}");
        assert!(told.contains("clock      0 to      0"), "{told}");
        assert!(told.contains("until 20, receipt r1"), "{told}");
    }

    #[test]
    fn calls_that_overlap_are_given_the_benefit_of_the_doubt() {
        // The lost one began first, and may have been made after the other.
        assert!(judge(&record(ack("r1", false), (35, 45))).is_empty());
        // Nothing had used it up.
        let told = judge(&record(ack("r1", false), (32, 38)))[0].to_string();
        assert!(told.contains("A3: receipt r1 was lost"), "{told}");
    }
}
