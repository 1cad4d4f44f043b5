//! Histories under concurrency: random programs on several tasks or processes, recorded with
//! the begin and end of each call, and judged afterwards.
//!
//! What happened cannot be repeated, so a failing history is not shrunk by running it again. It
//! is small to begin with, the report shows only the message that something happened to, and
//! the whole record is kept as a file that can be judged again.
//!
//! A test that makes its own calls, because it has its own way to make a backend fail, records
//! them as [`Call`]s and has them [judged](judge):
//!
//! ```
//! use queue_conformance::{Line, record::{Call, What, judge, moment, wall_clock}};
//!
//! let (began, clock_from) = (moment(), wall_clock());
//! // Here a message is sent.
//! let sent = Call {
//!     by: "producer".into(),
//!     number: 1,
//!     part: 0,
//!     began,
//!     ended: Some(moment()),
//!     clock_from,
//!     clock_to: wall_clock(),
//!     what: What::Enqueue { id: "m".into(), delay: 0, answered: true },
//! };
//! let broken = judge(&[sent]);
//! assert_eq!(broken[0].message(), "m");
//! assert!(broken[0].is_about(Line::E1), "it was stored, and never came to be acked");
//! ```

mod event;
mod judge;
mod process;
mod program;
mod recorder;
mod timeline;
mod violation;
mod wrong_clock;

pub use event::{Action, Call, Given, Millis, Moment, What, moment, wall_clock};
pub use judge::judge;
pub use violation::Violation;

pub(crate) use process::{Clocks, child_main, kills};
pub(crate) use program::run_shard;

use std::{
    env, fs, io,
    path::{self, PathBuf},
};

use uuid::Uuid;

use crate::replay;

/// Judges the record in this file instead of running anything.
const RECORD: &str = "QUEUE_CONFORMANCE_RECORD";

/// Keeps the records of histories that fail in this folder, in place of that for temporary files.
const KEEP: &str = "QUEUE_CONFORMANCE_KEEP";

/// Judges a record, and where it breaks the contract keeps it and says what broke.
fn verdict(calls: &[Call]) -> Result<(), String> {
    judged(calls).map_err(|broken| {
        let kept = match keep(calls) {
            Err(error) => format!("the record could not be kept: {error}"),
            Ok(path) => {
                let command = replay::command(RECORD, path.display(), "concurrent_histories_1");
                format!("the whole record was kept; this item judges any again:\n\n    {command}\n")
            }
        };
        format!("{broken}\n{kept}")
    })
}

/// Judges a record.
fn judged(calls: &[Call]) -> Result<(), String> {
    match judge(calls).first() {
        None => Ok(()),
        Some(broken) => Err(format!(
            "a recorded history breaks the contract:\n\n{broken}"
        )),
    }
}

fn keep(calls: &[Call]) -> io::Result<PathBuf> {
    let folder = env::var_os(KEEP).map_or_else(env::temp_dir, PathBuf::from);
    fs::create_dir_all(&folder)?;
    // It is named in a command, which may be given anywhere.
    let path = path::absolute(folder)?.join(format!("queue-record-{}.json", Uuid::now_v7()));
    fs::write(&path, serde_json::to_vec_pretty(calls)?)?;
    Ok(path)
}

/// The record that the environment names, if it names one.
fn kept_record() -> Result<Option<Vec<Call>>, String> {
    let Some(path) = env::var_os(RECORD) else {
        return Ok(None);
    };
    let read = fs::read(&path).map_err(|error| format!("{RECORD}={path:?}: {error}"))?;
    let calls = serde_json::from_slice(&read);
    calls
        .map(Some)
        .map_err(|error| format!("{RECORD}={path:?} holds no record: {error}"))
}
