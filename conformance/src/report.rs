//! What the suite found out about a backend, for people and for machines.

use std::{fmt, time::Duration};

use quick_junit::{NonSuccessKind, TestCase, TestCaseStatus, TestSuite};
use serde::Serialize;

use crate::contract::Line;

/// What the suite found out about a backend.
#[derive(Clone, Debug, Default, Serialize)]
#[non_exhaustive]
pub struct Report {
    /// One verdict for each check and each share of the random histories that ran, and one for
    /// each that was not claimed.
    pub verdicts: Vec<Verdict>,
}

/// What became of one check.
#[derive(Clone, Debug, Serialize)]
#[non_exhaustive]
pub struct Verdict {
    /// The code of the contract's line, such as `A2`; none for random histories, which are
    /// about all lines.
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
    /// The backend does not claim what the check is about; this is what it does not claim.
    NotClaimed(String),
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
        let titles = lines.chain([("random histories".to_owned(), None)]);
        titles.map(|(title, code)| {
            let verdicts = self
                .verdicts
                .iter()
                .filter(|verdict| verdict.line == code)
                .collect();
            (title, verdicts)
        })
    }
}

impl Verdict {
    fn status(&self) -> TestCaseStatus {
        match &self.outcome {
            Outcome::Passed => TestCaseStatus::success(),
            Outcome::Failed(why) => {
                let mut status = TestCaseStatus::non_success(NonSuccessKind::Failure);
                status.set_description(why);
                status
            }
            Outcome::NotClaimed(what) => {
                let mut status = TestCaseStatus::skipped();
                status.set_message(format!("{what} is not claimed"));
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
            let unclaimed = count(|outcome| matches!(outcome, Outcome::NotClaimed(_)));
            let verdict = match (failed, unclaimed) {
                (0, 0) => "pass",
                (0, n) if n == verdicts.len() => "not claimed",
                (0, _) => "pass, in part not claimed",
                _ => "FAIL",
            };
            writeln!(f, "{title}: {verdict}")?;
            for verdict in verdicts {
                let name = verdict.check.rsplit("::").next().unwrap_or(&verdict.check);
                match &verdict.outcome {
                    Outcome::Passed => writeln!(f, "    pass  {name}")?,
                    Outcome::Failed(_) => writeln!(f, "    FAIL  {name}")?,
                    Outcome::NotClaimed(what) => writeln!(f, "    ----  {name} ({what})")?,
                }
            }
        }
        Ok(())
    }
}
