//! What the suite found out about a backend, for people and for machines.

use std::{fmt, time::Duration};

use quick_junit::{NonSuccessKind, TestCase, TestCaseStatus, TestSuite};
use serde::Serialize;

use crate::contract::Line;

/// What the suite found out about a backend.
#[derive(Clone, Debug, Default, Serialize)]
#[non_exhaustive]
pub struct Report {
    /// One verdict for each check and each share of the histories that ran, and one for each that
    /// was not claimed; in the order of the suite, whatever ended first.
    pub verdicts: Vec<Verdict>,
}

/// What became of one check.
#[derive(Clone, Debug, Serialize)]
#[non_exhaustive]
pub struct Verdict {
    /// The code of the contract's line, such as `A2`; none for random and concurrent histories,
    /// which are about all lines.
    pub line: Option<&'static str>,
    /// The check's name, as `cargo test` shows it.
    pub check: String,
    /// Pass or fail.
    pub outcome: Outcome,
    /// How long it took, in milliseconds.
    pub took_ms: u64,
}

/// How a check ended.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Outcome {
    /// The backend keeps what the check is about.
    Passed,
    /// It does not; this is what to tell its author.
    Failed(String),
    /// The backend does not offer what the check is about; this is what it does not offer.
    NotOffered(String),
    /// The environment left it nothing to judge; this is why.
    NotRun(String),
}

impl Report {
    /// Whether nothing failed.
    pub fn passed(&self) -> bool {
        self.rejections().next().is_none()
    }

    /// The names of the checks that failed.
    pub fn rejections(&self) -> impl Iterator<Item = &str> {
        let failed = |verdict: &&Verdict| matches!(verdict.outcome, Outcome::Failed(_));
        self.verdicts
            .iter()
            .filter(failed)
            .map(|verdict| &*verdict.check)
    }

    /// The report as JSON.
    pub fn to_json(&self) -> String {
        serde_json::to_string_pretty(self).expect("a report is plain data")
    }

    /// The report as JUnit XML, with a test suite for each line of the contract.
    pub fn to_junit(&self) -> String {
        let mut document = quick_junit::Report::new("queue contract");
        for (title, verdicts) in self.by_line() {
            let mut suite = TestSuite::new(title);
            for verdict in verdicts {
                let mut case = TestCase::new(&*verdict.check, verdict.status());
                case.set_time(Duration::from_millis(verdict.took_ms));
                suite.add_test_case(case);
            }
            document.add_test_suite(suite);
        }
        document.to_string().expect("a report is plain text")
    }

    /// The verdicts under each line's title, in the order of the contract, then the histories.
    fn by_line(&self) -> impl Iterator<Item = (String, Vec<&Verdict>)> {
        let lines = Line::ALL
            .iter()
            .map(|line| (line.to_string(), Some(line.code())));
        let histories = [RANDOM, CONCURRENT].map(|title| (title.to_owned(), None));
        lines.chain(histories).map(|(title, code)| {
            let of_it = |verdict: &&Verdict| match code {
                Some(_) => verdict.line == code,
                None => verdict.title() == title,
            };
            let verdicts = self.verdicts.iter().filter(of_it).collect();
            (title, verdicts)
        })
    }
}

/// What is about all lines has a title of its own.
const RANDOM: &str = "random histories";
const CONCURRENT: &str = "concurrent histories";

impl Verdict {
    /// What it stands under in a report.
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
                // Tools show the message in a list, and the whole where somebody looks closer.
                status.set_message(why.lines().next().unwrap_or_default());
                status.set_type(self.title());
                status.set_description(why);
                status
            }
            Outcome::NotOffered(what) => {
                let mut status = TestCaseStatus::skipped();
                status.set_message(format!("{what} is not claimed"));
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

/// The lines of the contract, each with its verdict and the checks under it.
impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (title, verdicts) in self.by_line() {
            if verdicts.is_empty() {
                writeln!(f, "{title}: not run")?;
                continue;
            }
            let count =
                |of: fn(&Outcome) -> bool| verdicts.iter().filter(|v| of(&v.outcome)).count();
            let failed = count(|outcome| matches!(outcome, Outcome::Failed(_)));
            let unclaimed = count(|outcome| matches!(outcome, Outcome::NotOffered(_)));
            let not_run = count(|outcome| matches!(outcome, Outcome::NotRun(_)));
            let verdict = match (failed, unclaimed, not_run) {
                (0, 0, 0) => "pass",
                (0, n, _) if n == verdicts.len() => "not claimed",
                (0, _, n) if n == verdicts.len() => "not run",
                (0, _, 0) => "pass, in part not claimed",
                (0, _, _) => "pass, in part not run",
                _ => "FAIL",
            };
            writeln!(f, "{title}: {verdict}")?;
            for verdict in verdicts {
                let name = verdict.check.rsplit("::").next().unwrap_or(&verdict.check);
                match &verdict.outcome {
                    Outcome::Passed => writeln!(f, "    pass  {name}")?,
                    Outcome::Failed(_) => writeln!(f, "    FAIL  {name}")?,
                    Outcome::NotOffered(what) => writeln!(f, "    ----  {name} ({what})")?,
                    Outcome::NotRun(why) => writeln!(f, "    ----  {name} ({why})")?,
                }
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn verdict(line: Option<&'static str>, check: &str, outcome: Outcome) -> Verdict {
        Verdict {
            line,
            check: check.to_owned(),
            outcome,
            took_ms: 1,
        }
    }

    #[test]
    fn a_failure_in_junit_has_a_message_and_a_type() {
        let why = "what is wrong\nat some/file.rs:7:5".to_owned();
        let failed = verdict(Some("A2"), "A2_fenced::x", Outcome::Failed(why));
        let verdicts = vec![failed];
        let junit = Report { verdicts }.to_junit();
        let opening = "<failure message=\"what is wrong\" type=\"A2 fenced\">";
        assert!(junit.contains(opening), "{junit}");
        assert!(junit.contains("at some/file.rs:7:5</failure>"), "{junit}");
    }

    #[test]
    fn histories_of_the_two_kinds_stand_apart_and_what_is_not_run_does_not_pass() {
        let nothing = Outcome::NotRun("none asked for".to_owned());
        let verdicts = vec![
            verdict(None, "histories::random_histories_1_of_1", Outcome::Passed),
            verdict(None, "histories::concurrent_histories_1_of_1", nothing),
        ];
        let text = Report { verdicts }.to_string();
        assert!(text.contains("random histories: pass\n"), "{text}");
        assert!(text.contains("concurrent histories: not run\n"), "{text}");
        assert!(text.contains("(none asked for)"), "{text}");
    }
}
