//! Which check rejects which bug, and whether that is as it should be.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt::Write,
};

use queue_conformance::{CheckResult, Line, Outcome, Report};

use crate::bug::Bug;

/// The shares of the two kinds of histories, each called together: which share meets a bug is
/// chance.
const HISTORIES: [&str; 2] = ["random_histories", "concurrent_histories"];

/// How many names of checks a row shows.
const SHOWN: usize = 4;

/// What the suite said of every backend.
#[derive(Debug, Default)]
pub(crate) struct Matrix {
    /// Every check that the mutants claim, in the order of the contract, histories last.
    checks: Vec<String>,
    /// The checks that reject each bug, by the bug's name.
    rejections: BTreeMap<String, BTreeSet<String>>,
}

impl Matrix {
    /// Enters what became of the backend without a bug. The error names the checks that
    /// reject it.
    pub(crate) fn enter_control(&mut self, report: &Report) -> Result<(), String> {
        let lines = Line::ALL.iter().map(|line| Some(line.code())).chain([None]);
        for line in lines {
            let of_line = report.results.iter().filter(|v| v.line == line);
            let claimed = of_line.filter(|v| !matches!(v.outcome, Outcome::NotOffered(_)));
            self.checks
                .extend(claimed.map(|v| short(&v.check).to_owned()));
        }
        self.checks.dedup();
        if report.passed() {
            return Ok(());
        }
        Err(format!("the backend without a bug fails:\n{report}"))
    }

    /// Enters what became of a mutant. The error says that the suite is too weak for it, or does
    /// not say enough.
    pub(crate) fn enter(&mut self, bug: Bug, report: &Report) -> Result<(), String> {
        report.results.iter().try_for_each(says_where)?;
        let rejected = report
            .failed_checks()
            .map(|check| short(check).to_owned())
            .collect();
        let row = self
            .rejections
            .entry(format!("{bug:?}"))
            .or_insert(rejected);
        if row.contains(bug.check()) {
            return Ok(());
        }
        Err(format!(
            "{} passes a backend that is broken: {}. It is rejected by {row:?}",
            bug.check(),
            bug.what()
        ))
    }

    /// The checks that no bug of the table is under: nobody knows that they can fail.
    pub(crate) fn idle_checks(&self) -> Vec<&str> {
        let named: BTreeSet<&str> = Bug::ALL.iter().map(|bug| bug.check()).collect();
        let idle = |check: &&str| match HISTORIES.contains(check) {
            true => self.bugs_that(check).next().is_none(),
            false => !named.contains(check),
        };
        self.checks
            .iter()
            .map(String::as_str)
            .filter(idle)
            .collect()
    }

    fn bugs_that<'a>(&'a self, check: &'a str) -> impl Iterator<Item = Bug> + 'a {
        Bug::ALL
            .iter()
            .copied()
            .filter(move |bug| self.row(*bug).any(|other| other == check))
    }

    /// The checks that reject a bug, the one that must first.
    fn row(&self, bug: Bug) -> impl Iterator<Item = &str> {
        let row = self.rejections.get(&format!("{bug:?}"));
        let rejects = move |check: &&str| row.is_some_and(|row| row.contains(*check));
        let others = self
            .checks
            .iter()
            .map(String::as_str)
            .filter(move |c| *c != bug.check());
        [bug.check()].into_iter().chain(others).filter(rejects)
    }

    /// Both ways round, in Markdown.
    pub(crate) fn to_markdown(&self) -> String {
        let mut text = String::from(HEAD);
        let [random, concurrent] = HISTORIES.map(|kind| self.bugs_that(kind).count());
        let (bugs, checks) = (Bug::ALL.len(), self.checks.len() - HISTORIES.len());
        let _ = writeln!(
            text,
            "{bugs} bugs, {checks} checks. Of the bugs, {random} are met by random histories as \
             well, and {concurrent} by histories under concurrency.\n",
        );
        text.push_str("## Bugs\n\n| the backend | rejected by | names |\n|---|---|---|\n");
        for bug in Bug::ALL {
            let named: Vec<_> = self.row(*bug).collect();
            let shown: Vec<_> = named
                .iter()
                .take(SHOWN)
                .map(|name| format!("`{name}`"))
                .collect();
            let more = if named.len() > SHOWN { " …" } else { "" };
            let (what, count) = (bug.what(), named.len());
            let _ = writeln!(
                text,
                "| `{bug:?}`: {what} | {count} | {}{more} |",
                shown.join(" ")
            );
        }
        text.push_str("\n## Checks\n\n| check | rejects | for example |\n|---|---|---|\n");
        for check in &self.checks {
            let count = self.bugs_that(check).count();
            // The first that the check is there for, or else the first at all.
            let own = Bug::ALL.iter().copied().find(|bug| bug.check() == check);
            let example = own
                .or(self.bugs_that(check).next())
                .map(Bug::what)
                .unwrap_or_default();
            let _ = writeln!(text, "| `{check}` | {count} | {example} |");
        }
        text
    }
}

const HEAD: &str = "# What the suite rejects

The suite is run against a plain backend that can be broken in one way at a time. Each bug below
must be rejected by the check that is named first, and each check must have such a bug. This file
is written by

    QUEUE_CONFORMANCE_MATRIX=docs/mutants.md cargo test -p queue-conformance --test mutants

and what histories and bugs that are races come to varies a little from run to run.

";

/// What runs processes, whose failures have no place in the source.
const PROCESSES: [&str; 2] = [
    "killed_processes_lose_nothing",
    "clients_with_wrong_clocks_do_no_harm",
];

/// A named check that fails has to say where it stands, unless it just did not end, and to say
/// it itself: not wrapped in what became of a task.
fn says_where(result: &CheckResult) -> Result<(), String> {
    let name = short(&result.check);
    let Outcome::Failed(why) = &result.outcome else {
        return Ok(());
    };
    // The place, and below it the statement that stands there.
    let place = why.split_once("\nat ").map(|(_, place)| place);
    let has_a_place = place.is_some_and(|place| {
        place.contains("src/checks/") && place.lines().nth(1).is_some_and(|l| l.starts_with("    "))
    });
    let wrapped = why.contains("JoinError") || why.contains("PoisonError");
    let exempt = result.line.is_none() || PROCESSES.contains(&name);
    if !wrapped && (exempt || has_a_place || why.starts_with("did not end within")) {
        return Ok(());
    }
    Err(format!("{name} does not say where it failed:\n{why}"))
}

/// A check's name without its line, or without its share of the histories.
fn short(check: &str) -> &str {
    let (_, name) = check.split_once("::").unwrap_or(("", check));
    let histories = HISTORIES.into_iter().find(|kind| name.starts_with(kind));
    histories.unwrap_or(name)
}
