//! The outcome of a run, as tables.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
    time::Duration,
};

use crate::case::{Case, Report};

/// The sum of some cases.
#[derive(Default)]
struct Row {
    requests: BTreeSet<String>,
    faults: BTreeSet<String>,
    adversaries: BTreeSet<String>,
    cases: usize,
    answered: usize,
    took: Duration,
    slowest: Duration,
    wrong: usize,
}

/// All cases that were run.
#[derive(Default)]
pub(crate) struct Table {
    calls: BTreeMap<String, Row>,
    faults: BTreeMap<String, Row>,
    all: Row,
    /// How often a case was run again: it took too long or failed without a reason, or the adversary was
    /// late, on a busy machine.
    pub(crate) repeated: usize,
    /// Cases that did not meet their first fault, and cases that met only that one.
    not_met: [usize; 2],
    adversaries_late: usize,
}

impl Table {
    pub(crate) fn add(&mut self, case: &Case, report: &Report) {
        if case.count_faults_not_met(report) > 0 {
            self.not_met[report.met.len().min(1)] += 1;
        }
        self.adversaries_late += usize::from(report.is_adversary_late);
        let call = self.calls.entry(case.call.to_string()).or_default();
        call.add(case, report);
        let classes: Vec<String> = case.faults.iter().map(|fault| fault.class()).collect();
        let fault = match classes.len() {
            0 => "none".to_owned(),
            1 => classes[0].clone(),
            _ => "one after the other".to_owned(),
        };
        self.faults.entry(fault).or_default().add(case, report);
        self.all.add(case, report);
    }
}

impl Row {
    fn add(&mut self, case: &Case, report: &Report) {
        self.requests
            .insert(format!("{} {:?} {}", case.call, case.client, case.at));
        self.faults
            .extend(case.faults.iter().map(ToString::to_string));
        self.adversaries.insert(case.adversary.to_string());
        self.cases += 1;
        self.answered += usize::from(report.answer.is_ok());
        self.took += report.took;
        self.slowest = self.slowest.max(report.took);
        self.wrong += usize::from(!report.wrong.is_empty());
    }
}

impl fmt::Display for Row {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            cases,
            answered,
            wrong,
            ..
        } = self;
        write!(
            f,
            " {} | {} | {} | {cases} | {answered} | {:.0} | {:.1} | {wrong} |",
            self.requests.len(),
            self.faults.len(),
            self.adversaries.len(),
            self.took.as_secs_f64(),
            self.slowest.as_secs_f64(),
        )
    }
}

impl fmt::Display for Table {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let columns =
            "| requests | faults | adversaries | cases | answered | seconds | longest | wrong |";
        for (first, rows) in [("call", &self.calls), ("fault", &self.faults)] {
            writeln!(f, "| {first} {columns}\n|{}", "---|".repeat(9))?;
            for (name, row) in rows {
                writeln!(f, "| {name} |{row}")?;
            }
            writeln!(f, "| all |{}\n", self.all)?;
        }
        let Self {
            repeated,
            not_met: [first, second],
            adversaries_late,
            ..
        } = self;
        writeln!(
            f,
            "first fault not met: {first}, second not met: {second}, adversary late: \
             {adversaries_late}, run again: {repeated}"
        )
    }
}
