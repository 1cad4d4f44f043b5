//! Concurrent histories: random programs on several tasks or processes. Each call is recorded with
//! its begin and end, and the record is judged afterwards.
//!
//! A concurrent history cannot be repeated, so a failing one is not shrunk. Instead it is small,
//! the report shows one message only, and the whole record is kept as a file that can be judged
//! again.
//!
//! A test that makes its own calls records them as [`Call`]s and passes them to [`judge`]:
//!
//! ```
//! use queue_conformance::{Line, record::{Call, Operation, judge, moment, wall_clock}};
//!
//! let (began, clock_from) = (moment(), wall_clock());
//! // Enqueue a message here.
//! let enqueue = Call {
//!     by: "producer".into(),
//!     number: 1,
//!     part: 0,
//!     began,
//!     ended: Some(moment()),
//!     clock_from,
//!     clock_to: wall_clock(),
//!     operation: Operation::Enqueue { id: "m".into(), delay: 0, answered: true },
//! };
//! let violations = judge(&[enqueue]);
//! assert_eq!(violations[0].message(), "m");
//! assert!(violations[0].is_about(Line::E1), "it was stored, but never acked");
//! ```

mod event;
mod judge;
mod manage;
mod process;
mod program;
mod recorder;
mod timeline;
mod violation;
mod wake;
mod worker;
mod wrong_clock;

pub use event::{
    Call, ManageCall, Millis, Moment, Operation, ReceiptAction, RecordedDelivery, RecordedMessage,
    RecordedStats, message_name, moment, wall_clock,
};
pub use judge::judge;
pub use violation::Violation;

pub(crate) use event::millis;
pub(crate) use process::{Clocks, child_main, kill_processes};
pub(crate) use program::run_shard;

use std::{
    env, fs, io,
    path::{self, PathBuf},
};

use uuid::Uuid;

use crate::{
    replay,
    report::{Outcome, Report},
};

/// Names a file with a record to judge instead of new ones.
const RECORD: &str = "QUEUE_CONFORMANCE_RECORD";

/// Names the folder for the records of failing histories. The default is that for temporary files.
const KEEP: &str = "QUEUE_CONFORMANCE_KEEP";

/// Judges a record. If it breaks the contract, keeps it as a file.
fn judge_and_keep(calls: &[Call]) -> Result<(), String> {
    judge_record(calls).map_err(|violation| {
        let kept = match keep(calls) {
            Err(error) => format!("the record cannot be kept as a file: {error}"),
            Ok(path) => {
                let command = replay::command(RECORD, path.display(), "concurrent_histories_1");
                format!("to judge the whole record again, run\n\n    {command}\n")
            }
        };
        format!("{violation}\n{kept}")
    })
}

fn judge_record(calls: &[Call]) -> Result<(), String> {
    match judge(calls).first() {
        None => Ok(()),
        Some(violation) => Err(format!(
            "a recorded history breaks the contract:\n\n{violation}"
        )),
    }
}

fn keep(calls: &[Call]) -> io::Result<PathBuf> {
    let folder = env::var_os(KEEP).map_or_else(env::temp_dir, PathBuf::from);
    fs::create_dir_all(&folder)?;
    // Absolute, because the command that names it may be run in another folder.
    let path = path::absolute(folder)?.join(format!("queue-record-{}.json", Uuid::now_v7()));
    fs::write(&path, serde_json::to_vec_pretty(calls)?)?;
    Ok(path)
}

/// Removes the records that a run kept, for a test that expects failures.
///
/// # Errors
/// That of a file that cannot be removed.
pub fn remove_kept(report: &Report) -> io::Result<()> {
    let assignment = format!("{RECORD}=");
    for result in &report.results {
        if let Outcome::Failed(why) = &result.outcome
            && let Some((_, command)) = why.split_once(&assignment)
        {
            let path = command.split_whitespace().next().unwrap_or_default();
            fs::remove_file(path)?;
        }
    }
    Ok(())
}

fn record_from_env() -> Result<Option<Vec<Call>>, String> {
    let Some(path) = env::var_os(RECORD) else {
        return Ok(None);
    };
    let read = fs::read(&path).map_err(|error| format!("{RECORD} is {path:?}: {error}"))?;
    let calls = serde_json::from_slice(&read);
    calls
        .map(Some)
        .map_err(|error| format!("{RECORD} is {path:?}, which is not a record: {error}"))
}
