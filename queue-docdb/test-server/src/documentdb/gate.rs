//! Watches clients and fails a test that sent what an engine refuses.

use std::{
    collections::{BTreeSet, HashMap},
    fmt,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    thread,
};

use mongodb::{
    bson::{Bson, Document},
    event::{EventHandler, command::CommandEvent},
};

use super::{
    engine::Engines,
    judge::{Finding, judge, judge_item},
    table::Section,
};

/// Judges every command of the clients that it [watches](Self::watch).
///
/// Call [`verify`](Self::verify) at the end of a test. If you forget it, dropping the gate panics
/// where `verify` would fail, unless the test panics already.
///
/// ```
/// use mongodb_test_server::documentdb::{Engine, Engines, Gate};
///
/// let gate = Gate::new(Engines::of(&[Engine::V5_0]));
/// let mut options = mongodb::options::ClientOptions::default();
/// options.command_event_handler = Some(gate.watch());
/// // ... the test, with a client of these options ...
/// gate.verify()?;
/// # Ok::<(), mongodb_test_server::documentdb::Refused>(())
/// ```
#[derive(Debug)]
pub struct Gate {
    required: Engines,
    record: Arc<Record>,
}

/// A std mutex: nothing here awaits.
#[derive(Debug, Default)]
struct Record {
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    commands: BTreeSet<String>,
    findings: BTreeSet<Finding>,
    /// Commands without an answer yet that may leave a cursor open, by request id.
    pending: HashMap<i32, Opens>,
}

/// What a cursor is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Opens {
    Results,
    /// A change stream has no end, so its cursor stays open.
    Changes,
}

/// A first batch of this size may be all that fits into a reply of 16 MiB.
const FULL_BATCH: usize = 4 << 20;

impl Gate {
    /// Accepts what all of these engines take.
    #[must_use]
    pub fn new(required: Engines) -> Self {
        Self {
            required,
            record: Arc::default(),
        }
    }

    /// The `command_event_handler` for a client's options.
    #[must_use]
    pub fn watch(&self) -> EventHandler<CommandEvent> {
        let record = Arc::clone(&self.record);
        EventHandler::callback(move |event| record.see(&event))
    }

    /// The same, for a process that may be killed before it calls `verify`: calls `report` after
    /// each command, as soon as one is refused.
    #[must_use]
    pub fn watch_and_report(
        &self,
        report: impl Fn(&Refused) + Send + Sync + 'static,
    ) -> EventHandler<CommandEvent> {
        let (record, required) = (Arc::clone(&self.record), self.required);
        EventHandler::callback(move |event| {
            record.see(&event);
            if let Err(refused) = record.refused(required) {
                report(&refused);
            }
        })
    }

    /// The names of all commands sent.
    #[must_use]
    pub fn commands(&self) -> BTreeSet<String> {
        self.record.state().commands.clone()
    }

    /// What any engine refuses, also engines that this gate does not check for.
    #[must_use]
    pub fn findings(&self) -> Vec<Finding> {
        self.record.state().findings.iter().cloned().collect()
    }

    /// Checks all commands so far, and forgets them.
    ///
    /// # Errors
    /// If an engine refuses one of them.
    pub fn verify(&self) -> Result<(), Refused> {
        let result = self.record.refused(self.required);
        *self.record.state() = State::default();
        result
    }
}

impl Drop for Gate {
    fn drop(&mut self) {
        match self.verify() {
            // A second panic would abort the process with all its tests.
            Err(refused) if thread::panicking() => eprintln!("{refused}"),
            Err(refused) => panic!("{refused}"),
            Ok(()) => {}
        }
    }
}

impl Record {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn see(&self, event: &CommandEvent) {
        match event {
            CommandEvent::Started(started) => {
                let findings = judge(&started.command);
                let mut state = self.state();
                state.commands.insert(started.command_name.clone());
                state.findings.extend(findings);
                if let Some(opens) = opens(&started.command) {
                    state.pending.insert(started.request_id, opens);
                }
            }
            CommandEvent::Succeeded(succeeded) => {
                let mut state = self.state();
                let opened = state.pending.remove(&succeeded.request_id);
                if opened == Some(Opens::Results) && leaves_cursor_open(&succeeded.reply) {
                    let item = "cursor left open";
                    let findings = judge_item(Section::Cursors, &succeeded.command_name, item);
                    state.findings.extend(findings);
                }
            }
            CommandEvent::Failed(failed) => {
                self.state().pending.remove(&failed.request_id);
            }
            _ => {}
        }
    }

    fn refused(&self, required: Engines) -> Result<(), Refused> {
        let mut refused = self.state().findings.iter().cloned().collect::<Vec<_>>();
        for finding in &mut refused {
            finding.refused_by = finding.refused_by.and(required);
        }
        refused.retain(|finding| !finding.refused_by.is_empty());
        if refused.is_empty() {
            Ok(())
        } else {
            Err(Refused { findings: refused })
        }
    }
}

fn opens(command: &Document) -> Option<Opens> {
    match command.keys().next()?.as_str() {
        "find" | "listCollections" | "listIndexes" => Some(Opens::Results),
        "aggregate" => {
            let stages = command.get_array("pipeline").ok()?;
            let first = stages.first()?.as_document()?;
            Some(if first.contains_key("$changeStream") {
                Opens::Changes
            } else {
                Opens::Results
            })
        }
        _ => None,
    }
}

/// Whether the server keeps a cursor although the batch is not full. A larger `batchSize`
/// avoids that.
fn leaves_cursor_open(reply: &Document) -> bool {
    let Ok(cursor) = reply.get_document("cursor") else {
        return false;
    };
    cursor.get_i64("id").is_ok_and(|id| id != 0)
        && cursor
            .get_array("firstBatch")
            .is_ok_and(|batch| size_of_all(batch) < FULL_BATCH)
}

/// Roughly: only binaries and strings are large.
fn size_of_all(values: &[Bson]) -> usize {
    let size = |value: &Bson| match value {
        Bson::Binary(binary) => binary.bytes.len(),
        Bson::String(text) => text.len(),
        Bson::Array(values) => size_of_all(values),
        Bson::Document(document) => document
            .values()
            .map(|each| size_of_all(std::slice::from_ref(each)))
            .sum(),
        _ => 8,
    };
    values.iter().map(size).sum()
}

/// Commands were sent that an engine refuses.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub struct Refused {
    /// Each refused item once; `refused_by` has only engines that the gate checks for.
    pub findings: Vec<Finding>,
}

impl fmt::Display for Refused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Amazon DocumentDB refuses what was sent:")?;
        for finding in &self.findings {
            write!(f, "\n- {finding}")?;
        }
        Ok(())
    }
}
