//! Watches a client, and fails the test whose client sent what an engine refuses.

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
/// Whoever ends a test with [`verify`](Self::verify) is told what was refused. A gate that is
/// dropped instead panics in that case, unless the test panics already: no test passes because
/// nobody asked.
///
/// ```
/// use mongodb_test_server::documentdb::{Engine, Engines, Gate};
///
/// let gate = Gate::new(Engines::of(&[Engine::V5_0]));
/// let mut options = mongodb::options::ClientOptions::default();
/// options.command_event_handler = Some(gate.watch());
/// // ... what the test does with a client of these options ...
/// gate.verify()?;
/// # Ok::<(), mongodb_test_server::documentdb::Refused>(())
/// ```
#[derive(Debug)]
pub struct Gate {
    required: Engines,
    record: Arc<Record>,
}

/// What was seen. A std mutex: it is held for a look-up only, and nothing here awaits.
#[derive(Debug, Default)]
struct Record {
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    commands: BTreeSet<String>,
    findings: BTreeSet<Finding>,
    /// Commands that may leave a cursor open and were not answered yet, by their number.
    pending: HashMap<i32, Opens>,
}

/// What a command that is answered with a cursor is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Opens {
    Results,
    /// A stream of changes has no end, so its cursor stays open.
    Changes,
}

/// A first batch of this size may be all that fits into a reply of 16 MiB, as the next
/// document may have as much again.
const FULL_BATCH: usize = 4 << 20;

impl Gate {
    /// A gate that lets pass what all of these engines take.
    #[must_use]
    pub fn new(required: Engines) -> Self {
        Self {
            required,
            record: Arc::default(),
        }
    }

    /// What a client is watched by: the `command_event_handler` of its options.
    #[must_use]
    pub fn watch(&self) -> EventHandler<CommandEvent> {
        let record = Arc::clone(&self.record);
        EventHandler::callback(move |event| record.see(&event))
    }

    /// The same, for a process that may be killed before it gets to verify: `tell` is called
    /// with each command that the gate does not let pass, when it is sent.
    #[must_use]
    pub fn watch_and_tell(
        &self,
        tell: impl Fn(&Refused) + Send + Sync + 'static,
    ) -> EventHandler<CommandEvent> {
        let (record, required) = (Arc::clone(&self.record), self.required);
        EventHandler::callback(move |event| {
            record.see(&event);
            if let Err(refused) = record.refused(required) {
                tell(&refused);
            }
        })
    }

    /// The names of all commands that were sent.
    #[must_use]
    pub fn commands(&self) -> BTreeSet<String> {
        self.record.state().commands.clone()
    }

    /// All that some engine refuses, also those that this gate does not ask.
    #[must_use]
    pub fn findings(&self) -> Vec<Finding> {
        self.record.state().findings.iter().cloned().collect()
    }

    /// Forgets what was seen, and says whether all of it was let pass.
    ///
    /// # Errors
    /// What was sent, and who refuses it.
    pub fn verify(&self) -> Result<(), Refused> {
        let verdict = self.record.refused(self.required);
        *self.record.state() = State::default();
        verdict
    }
}

impl Drop for Gate {
    fn drop(&mut self) {
        match self.verify() {
            // A second panic would abort the process, and with it every other test.
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

/// Whether the server keeps a cursor although the batch was not full, which a larger
/// `batchSize` avoids.
fn leaves_cursor_open(reply: &Document) -> bool {
    let Ok(cursor) = reply.get_document("cursor") else {
        return false;
    };
    cursor.get_i64("id").is_ok_and(|id| id != 0)
        && cursor
            .get_array("firstBatch")
            .is_ok_and(|batch| size_of_all(batch) < FULL_BATCH)
}

/// About how many bytes: what is large are binaries and strings.
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

/// What a test sent and an engine refuses.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub struct Refused {
    /// Each refused item once; `refused_by` names those that the gate asked.
    pub findings: Vec<Finding>,
}

impl fmt::Display for Refused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "the gate refuses what was sent:")?;
        for finding in &self.findings {
            write!(f, "\n- {finding}")?;
        }
        Ok(())
    }
}
