//! Errors. People read them, so their texts carry all causes.

use std::error::Error;
use std::fmt;
use std::future::Future;
use std::time::Duration;

use crate::source::URI_VARIABLE;

/// No server was found or started. The text says why each way failed.
#[derive(Debug, Clone, thiserror::Error)]
#[error(
    "no MongoDB for tests; each of the three ways failed\n\
     1. {URI_VARIABLE}: {named}\n\
     2. Docker: {docker}\n\
     3. mongod process: {process}"
)]
pub struct StartError {
    pub(crate) named: String,
    pub(crate) docker: String,
    pub(crate) process: String,
}

/// A server, or a database on it, could not be removed.
#[derive(Debug, Clone, thiserror::Error)]
#[error("{0}")]
pub struct StopError(pub(crate) StepError);

/// A fault of a replica set's member could not be caused or ended.
#[derive(Debug, Clone, thiserror::Error)]
#[non_exhaustive]
pub enum MemberError {
    /// The member is a process, and only a container can be cut off.
    #[error("the member is a process; only a member in a container can be cut off")]
    NeedsContainers,
    /// The operation failed or took too long.
    #[error("{0}")]
    Failed(String),
}

impl From<StepError> for MemberError {
    fn from(failure: StepError) -> Self {
        Self::Failed(failure.to_string())
    }
}

/// Why one step failed. The text holds the causes, because a [`StartError`] lists several
/// failures side by side, which a `source` chain cannot.
#[derive(Debug, Clone, thiserror::Error)]
#[error("{0}")]
pub(crate) struct StepError(String);

impl StepError {
    pub(crate) fn new(text: impl Into<String>) -> Self {
        Self(text.into())
    }

    /// `step` reads as "pulling mongo:6.0".
    pub(crate) fn of(step: impl fmt::Display, error: &dyn Error) -> Self {
        let mut text = format!("{step} failed: {error}");
        let mut source = error.source();
        while let Some(cause) = source {
            let cause_text = cause.to_string();
            // Many errors repeat their source in their own text.
            if !text.contains(&cause_text) {
                text = format!("{text}: {cause_text}");
            }
            source = cause.source();
        }
        Self(text)
    }
}

/// Limits one step: a daemon or a download that hangs must not hang every test.
pub(crate) async fn within<T, E: Error>(
    limit: Duration,
    step: impl fmt::Display,
    future: impl Future<Output = Result<T, E>>,
) -> Result<T, StepError> {
    match tokio::time::timeout(limit, future).await {
        Ok(result) => result.map_err(|error| StepError::of(step, &error)),
        Err(_) => Err(StepError::new(format!(
            "{step} took longer than {} s",
            limit.as_secs()
        ))),
    }
}
