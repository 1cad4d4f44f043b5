//! What is being done, for whoever waits.

use std::io::{IsTerminal, Write, stderr};

use crate::clock::{nanos, seconds_since};

/// Says on stderr what is measured: a line that is written over on a terminal, else a line for
/// each section.
#[derive(Debug)]
pub(crate) struct Progress {
    began: u64,
    sections: usize,
    section: usize,
    name: &'static str,
    is_terminal: bool,
}

impl Progress {
    pub(crate) fn of(sections: usize) -> Self {
        Self {
            began: nanos(),
            sections,
            section: 0,
            name: "",
            is_terminal: stderr().is_terminal(),
        }
    }

    pub(crate) fn section(&mut self, name: &'static str) {
        self.section += 1;
        self.name = name;
        match self.is_terminal {
            true => self.step("begins"),
            false => self.say(""),
        }
    }

    pub(crate) fn round(&self, round: usize, rounds: usize, what: &str) {
        self.step(&format!("{what}, round {} of {rounds}", round + 1));
    }

    pub(crate) fn step(&self, what: &str) {
        if self.is_terminal {
            self.say(what);
        }
    }

    pub(crate) fn end(&self) {
        let seconds = seconds_since(self.began);
        let clear = if self.is_terminal { "\r\x1b[K" } else { "" };
        eprintln!("{clear}done in {seconds:.0} s");
    }

    fn say(&self, what: &str) {
        let line = format!(
            "[{}/{} {:4.0} s] {}{}{what}",
            self.section,
            self.sections,
            seconds_since(self.began),
            self.name,
            if what.is_empty() { "" } else { ": " },
        );
        match self.is_terminal {
            // Progress that cannot be shown is no reason not to measure.
            true => {
                let _ = write!(stderr(), "\r\x1b[K{line}").and_then(|()| stderr().flush());
            }
            false => eprintln!("{line}"),
        }
    }
}
