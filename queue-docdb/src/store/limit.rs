//! The time that a call had, for its error.

use std::{fmt, time::Duration};

/// The operation timeout, and what else may explain that it has passed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Limit {
    pub(crate) after: Duration,
    /// Whether the runtime that connected may not be running.
    pub(crate) is_runtime_doubtful: bool,
}

impl fmt::Display for Limit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}", self.after)?;
        if self.is_runtime_doubtful {
            let why = "the tokio runtime in which this backend was connected may not be running";
            write!(f, "; {why}")?;
        }
        Ok(())
    }
}
