//! The report, as text, JSON and JUnit XML.

use std::{collections::BTreeMap, fmt, time::Duration};

use quick_junit::{NonSuccessKind, TestCase, TestCaseStatus, TestSuite};
use serde::Serialize;

use crate::contract::Line;

/// The results of a run of the suite.
#[derive(Clone, Debug, Default, Serialize)]
#[non_exhaustive]
pub struct Report {
    /// One result for each check and each shard of the histories, in the order of the suite.
    pub results: Vec<CheckResult>,
}

/// The result of one check.
#[derive(Clone, Debug, Serialize)]
#[non_exhaustive]
pub struct CheckResult {
    /// The code of the contract's line, such as `A2`. `None` for histories, which check all lines.
    pub line: Option<&'static str>,
    /// The check's name, as `cargo test` shows it.
    pub check: String,
    /// How it ended.
    pub outcome: Outcome,
    /// How long it took, in milliseconds.
    pub took_ms: u64,
    /// What histories did, and how often. Empty for other checks.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub did: BTreeMap<String, u64>,
}

/// How a check ended.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Outcome {
    /// The backend passes.
    Passed,
    /// The backend fails, and this is why.
    Failed(String),
    /// The backend does not offer this capability, which the check needs.
    NotOffered(String),
    /// The environment left it nothing to run, and this is why.
    NotRun(String),
}

impl Report {
    /// Whether nothing failed.
    pub fn passed(&self) -> bool {
        self.failed_checks().next().is_none()
    }

    /// The names of the checks that failed.
    pub fn failed_checks(&self) -> impl Iterator<Item = &str> {
        let failed = |result: &&CheckResult| matches!(result.outcome, Outcome::Failed(_));
        self.results
            .iter()
            .filter(failed)
            .map(|result| &*result.check)
    }

    /// The report as JSON.
    pub fn to_json(&self) -> String {
        serde_json::to_string_pretty(self).expect("a report is plain data")
    }

    /// The report as JUnit XML, with a test suite for each line of the contract.
    pub fn to_junit(&self) -> String {
        let mut document = quick_junit::Report::new("queue contract");
        for (title, results) in self.by_line() {
            let mut suite = TestSuite::new(title);
            for result in &results {
                let mut case = TestCase::new(&*result.check, result.status());
                case.set_time(Duration::from_millis(result.took_ms));
                suite.add_test_case(case);
            }
            for (what, count) in did(&results) {
                suite.add_property((what, &*count.to_string()));
            }
            document.add_test_suite(suite);
        }
        document.to_string().expect("a report is plain text")
    }

    /// The results by title: the lines of the contract in order, then the histories.
    fn by_line(&self) -> impl Iterator<Item = (String, Vec<&CheckResult>)> {
        let lines = Line::ALL
            .iter()
            .map(|line| (line.to_string(), Some(line.code())));
        let histories = [RANDOM, CONCURRENT].map(|title| (title.to_owned(), None));
        lines.chain(histories).map(|(title, code)| {
            let of_it = |result: &&CheckResult| match code {
                Some(_) => result.line == code,
                None => result.title() == title,
            };
            let results = self.results.iter().filter(of_it).collect();
            (title, results)
        })
    }
}

/// What the histories of all shards did.
fn did<'a>(results: &[&'a CheckResult]) -> BTreeMap<&'a str, u64> {
    let mut sum = BTreeMap::new();
    for (what, count) in results.iter().flat_map(|result| &result.did) {
        *sum.entry(&**what).or_default() += count;
    }
    sum
}

/// The titles of the histories.
const RANDOM: &str = "random histories";
const CONCURRENT: &str = "concurrent histories";

impl CheckResult {
    /// The title in a report.
    fn title(&self) -> String {
        let line = Line::ALL.iter().find(|line| Some(line.code()) == self.line);
        match line {
            Some(line) => line.to_string(),
            None if self.check.contains("concurrent") => CONCURRENT.to_owned(),
            None => RANDOM.to_owned(),
        }
    }

    fn status(&self) -> TestCaseStatus {
        match &self.outcome {
            Outcome::Passed => TestCaseStatus::success(),
            Outcome::Failed(why) => {
                let mut status = TestCaseStatus::non_success(NonSuccessKind::Failure);
                // Tools show the message in lists and the description on the page of the test.
                status.set_message(why.lines().next().unwrap_or_default());
                status.set_type(self.title());
                status.set_description(why);
                status
            }
            Outcome::NotOffered(what) => {
                let mut status = TestCaseStatus::skipped();
                status.set_message(format!("{what} is not offered"));
                status
            }
            Outcome::NotRun(why) => {
                let mut status = TestCaseStatus::skipped();
                status.set_message(format!("not run: {why}"));
                status
            }
        }
    }
}

/// Each line of the contract with its result and its checks.
impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (title, results) in self.by_line() {
            if results.is_empty() {
                writeln!(f, "{title}: not run")?;
                continue;
            }
            let count =
                |of: fn(&Outcome) -> bool| results.iter().filter(|v| of(&v.outcome)).count();
            let failed = count(|outcome| matches!(outcome, Outcome::Failed(_)));
            let not_offered = count(|outcome| matches!(outcome, Outcome::NotOffered(_)));
            let not_run = count(|outcome| matches!(outcome, Outcome::NotRun(_)));
            let result = match (failed, not_offered, not_run) {
                (0, 0, 0) => "pass",
                (0, n, _) if n == results.len() => "not offered",
                (0, _, n) if n == results.len() => "not run",
                (0, _, 0) => "pass, partly not offered",
                (0, _, _) => "pass, partly not run",
                _ => "FAIL",
            };
            writeln!(f, "{title}: {result}")?;
            for result in &results {
                let name = result.check.rsplit("::").next().unwrap_or(&result.check);
                match &result.outcome {
                    Outcome::Passed => writeln!(f, "    pass  {name}")?,
                    Outcome::Failed(_) => writeln!(f, "    FAIL  {name}")?,
                    Outcome::NotOffered(what) => writeln!(f, "    ----  {name} ({what})")?,
                    Outcome::NotRun(why) => writeln!(f, "    ----  {name} ({why})")?,
                }
            }
            for (what, count) in did(&results) {
                writeln!(f, "    {count:>8}  {what}")?;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn result(line: Option<&'static str>, check: &str, outcome: Outcome) -> CheckResult {
        CheckResult {
            line,
            check: check.to_owned(),
            outcome,
            took_ms: 1,
            did: BTreeMap::new(),
        }
    }

    #[test]
    fn a_failure_in_junit_has_a_message_and_a_type() {
        let why = "what is wrong\nat some/file.rs:7:5".to_owned();
        let failed = result(Some("A2"), "A2_fenced::x", Outcome::Failed(why));
        let results = vec![failed];
        let junit = Report { results }.to_junit();
        let opening = "<failure message=\"what is wrong\" type=\"A2 fenced\">";
        assert!(junit.contains(opening), "{junit}");
        assert!(junit.contains("at some/file.rs:7:5</failure>"), "{junit}");
    }

    #[test]
    fn the_two_kinds_of_histories_are_separate_and_what_is_not_run_does_not_pass() {
        let nothing = Outcome::NotRun("none asked for".to_owned());
        let results = vec![
            result(None, "histories::random_histories_1_of_1", Outcome::Passed),
            result(None, "histories::concurrent_histories_1_of_1", nothing),
        ];
        let text = Report { results }.to_string();
        assert!(text.contains("random histories: pass\n"), "{text}");
        assert!(text.contains("concurrent histories: not run\n"), "{text}");
        assert!(text.contains("(none asked for)"), "{text}");
    }
}
