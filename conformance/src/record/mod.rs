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

mod broken;
mod event;
mod judge;
mod process;
mod program;
mod wrong_clock;

pub use broken::Broken;
pub use event::{Action, Call, Given, Millis, Moment, What, moment, wall_clock};
pub use judge::judge;

pub(crate) use process::{Clocks, child_main, kills};
pub(crate) use program::run_shard;

use std::{env, fs, path::PathBuf};

/// Judges the record in this file instead of running anything.
const RECORD: &str = "QUEUE_CONFORMANCE_RECORD";

/// Judges a record, and where it breaks the contract keeps it and says what broke.
fn verdict(calls: &[Call]) -> Result<(), String> {
    let broken = judge(calls);
    let Some(broken) = broken.first() else {
        return Ok(());
    };
    let kept = keep(calls).map_or_else(
        |error| format!("the record could not be kept: {error}"),
        |path| {
            format!(
                "the whole record was kept; judge it again with {RECORD}={}",
                path.display()
            )
        },
    );
    Err(format!(
        "a recorded history breaks the contract:\n\n{broken}\n{kept}"
    ))
}

fn keep(calls: &[Call]) -> std::io::Result<PathBuf> {
    let path = env::temp_dir().join(format!("queue-record-{}.json", uuid::Uuid::now_v7()));
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
