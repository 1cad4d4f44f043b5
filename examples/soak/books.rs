//! What the processes told, and what it comes to.

use std::{
    collections::{BTreeMap, HashMap},
    fmt,
    process::ExitStatus,
};

use queue_api::{DeadLetter, DeadReason};

use crate::child::{self, Fate};

#[derive(Default)]
pub(crate) struct Books {
    /// By message id, in the order in which they were told.
    deliveries: HashMap<String, Vec<Delivery>>,
    kills: Vec<u64>,
    memory: Vec<u64>,
    connections: Vec<u64>,
    ends: BTreeMap<String, u64>,
    reports: Reports,
    failures: Vec<String>,
}

/// What the workers that ended by themselves reported, all together.
#[derive(Clone, Copy, Default)]
struct Reports {
    count: u64,
    lost: u64,
    unsettled: u64,
}

#[derive(Clone, Debug)]
struct Delivery {
    process: usize,
    attempt: u32,
    began: u64,
    ended: Option<u64>,
    how: String,
}

impl Books {
    /// Takes down a line of a process. The last one of a killed process may be cut off.
    pub(crate) fn enter(&mut self, process: usize, line: &str) {
        let words: Vec<&str> = line.split_whitespace().collect();
        match words.as_slice() {
            ["begin", id, attempt, at] => {
                if let (Ok(attempt), Ok(began)) = (attempt.parse(), at.parse()) {
                    let delivery = Delivery {
                        process,
                        attempt,
                        began,
                        ended: None,
                        how: "killed".to_owned(),
                    };
                    self.deliveries
                        .entry((*id).to_owned())
                        .or_default()
                        .push(delivery);
                }
            }
            ["end", id, _, at, how] => {
                let deliveries = self.deliveries.get_mut(*id);
                let open = deliveries.and_then(|all| {
                    all.iter_mut()
                        .rev()
                        .find(|d| d.process == process && d.ended.is_none())
                });
                if let (Some(open), Ok(ended)) = (open, at.parse()) {
                    open.ended = Some(ended);
                    open.how = (*how).to_owned();
                    *self.ends.entry((*how).to_owned()).or_default() += 1;
                }
            }
            ["report", lost, unsettled] => {
                if let (Ok(lost), Ok(unsettled)) = (lost.parse::<u64>(), unsettled.parse::<u64>()) {
                    self.reports.count += 1;
                    self.reports.lost += lost;
                    self.reports.unsettled += unsettled;
                }
            }
            _ => {}
        }
    }

    /// A process was killed, and all that it told has been entered.
    pub(crate) fn killed(&mut self, process: usize, at: u64) {
        self.kills.push(at);
        for delivery in self.deliveries.values_mut().flatten() {
            if delivery.process == process && delivery.ended.is_none() {
                delivery.ended = Some(at);
                *self.ends.entry("killed".to_owned()).or_default() += 1;
            }
        }
    }

    pub(crate) fn stopped(&mut self, process: usize, status: ExitStatus) {
        if !status.success() {
            self.failures.push(format!("process {process}: {status}"));
        }
    }

    pub(crate) fn remember(&mut self, memory: u64, connections: u64) {
        self.memory.push(memory);
        self.connections.push(connections);
    }

    pub(crate) fn handled(&self) -> usize {
        self.ends.get("handled").copied().unwrap_or(0) as usize
    }

    pub(crate) fn judge(&self, sent: u64, dead: &[DeadLetter]) -> Verdict {
        let dead: HashMap<&str, &DeadReason> = dead
            .iter()
            .map(|letter| (letter.id.as_str(), &letter.reason))
            .collect();
        let mut verdict = Verdict {
            sent,
            ends: self.ends.clone(),
            reports: self.reports,
            failures: self.failures.clone(),
            memory: growth(&self.memory),
            connections: growth(&self.connections),
            ..Verdict::default()
        };
        for number in 0..sent {
            let id = child::id(number);
            let mut deliveries = self
                .deliveries
                .get(id.as_str())
                .cloned()
                .unwrap_or_default();
            deliveries.sort_by_key(|delivery| delivery.began);
            let was_handled = deliveries.iter().any(|delivery| delivery.how == "handled");
            let reason = dead.get(id.as_str());
            let as_it_should = match Fate::of(number) {
                Fate::Handled => was_handled && reason.is_none(),
                Fate::GivenUp => reason.is_some_and(|reason| is_because(reason, "never works")),
                Fate::Undecodable => {
                    deliveries.is_empty()
                        && reason.is_some_and(|reason| is_because(reason, "cannot be decoded"))
                }
            };
            if !as_it_should {
                verdict
                    .astray
                    .push(format!("{id}: {deliveries:?} {reason:?}"));
            }
            for pair in deliveries.windows(2) {
                self.compare(&pair[0], &pair[1], id.as_str(), &mut verdict);
            }
        }
        verdict
    }

    fn compare(&self, earlier: &Delivery, later: &Delivery, id: &str, verdict: &mut Verdict) {
        let ended = earlier.ended.unwrap_or(u64::MAX);
        if later.began < ended {
            verdict
                .overlaps
                .push(format!("{id}: {earlier:?} {later:?}"));
        }
        if earlier.how != "cancelled" {
            return;
        }
        verdict.given_back += 1;
        // A process that is killed between a claim and the begin of its handler leaves an attempt
        // behind of which nobody told.
        let killed_between = |at: &u64| (ended..=later.began).contains(at);
        if later.attempt > earlier.attempt && !self.kills.iter().any(killed_between) {
            verdict.charged.push(format!("{id}: {earlier:?} {later:?}"));
        }
    }
}

/// How much more there is at the end than after a third of the time.
fn growth(values: &[u64]) -> f64 {
    let third = values.get(values.len() / 3).copied().unwrap_or(1);
    let last = values.last().copied().unwrap_or(1);
    last as f64 / third as f64
}

fn is_because(reason: &DeadReason, text: &str) -> bool {
    matches!(reason, DeadReason::Rejected(why) if why.contains(text))
}

#[derive(Default)]
pub(crate) struct Verdict {
    sent: u64,
    ends: BTreeMap<String, u64>,
    reports: Reports,
    failures: Vec<String>,
    /// Messages that nobody handled, or that are dead and should not be, or the reverse.
    astray: Vec<String>,
    overlaps: Vec<String>,
    given_back: u64,
    charged: Vec<String>,
    memory: f64,
    connections: f64,
}

impl Verdict {
    pub(crate) fn is_clean(&self) -> bool {
        let wrong = [&self.failures, &self.astray, &self.overlaps, &self.charged];
        wrong.iter().all(|list| list.is_empty()) && self.memory < 1.5 && self.connections < 1.5
    }
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            f,
            "messages sent                                 {:8}",
            self.sent
        )?;
        for (how, count) in &self.ends {
            writeln!(f, "handlers that ended: {how:24} {count:8}")?;
        }
        let rows = [
            ("messages that went astray", &self.astray),
            (
                "two handlers had a message at the same time",
                &self.overlaps,
            ),
            ("graceful stops that cost an attempt", &self.charged),
            ("processes that ended badly", &self.failures),
        ];
        writeln!(
            f,
            "processes that reported and ended by themselves{:7}",
            self.reports.count
        )?;
        writeln!(
            f,
            "verdicts that came too late, as they reported {:8}",
            self.reports.lost
        )?;
        writeln!(
            f,
            "verdicts that did not reach the store         {:8}",
            self.reports.unsettled
        )?;
        writeln!(
            f,
            "messages given back by a graceful stop        {:8}",
            self.given_back
        )?;
        writeln!(
            f,
            "memory at the end against a third of the time {:8.2}",
            self.memory
        )?;
        writeln!(
            f,
            "connections at the end, likewise              {:8.2}",
            self.connections
        )?;
        for (what, list) in rows {
            writeln!(f, "{what:45} {:8}", list.len())?;
            for example in list.iter().take(3) {
                writeln!(f, "    {example}")?;
            }
        }
        Ok(())
    }
}
