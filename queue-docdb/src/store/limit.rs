//! The time that a call had, for its error.

use std::{fmt, time::Duration};

/// Whether the runtime that connected runs, as far as is known.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Liveness {
    Alive,
    Doubtful,
}

/// The operation timeout, and what else may explain that it has passed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Limit {
    pub(crate) after: Duration,
    pub(crate) liveness: Liveness,
}

impl Limit {
    pub(crate) fn new(after: Duration) -> Self {
        Self {
            after,
            liveness: Liveness::Alive,
        }
    }
}

impl fmt::Display for Limit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}", self.after)?;
        match self.liveness {
            Liveness::Alive => Ok(()),
            Liveness::Doubtful => f.write_str(
                "; the tokio runtime in which this backend was connected may not be running",
            ),
        }
    }
}
