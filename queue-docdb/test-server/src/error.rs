//! What is said when there is no server, or no end to one.

use std::error::Error;
use std::fmt;
use std::future::Future;
use std::time::Duration;

use crate::source::URI_VARIABLE;

/// No MongoDB could be had; says for each of the four ways why not.
#[derive(Debug, Clone, thiserror::Error)]
#[error(
    "no MongoDB for tests could be had in any of four ways\n\
     1. {URI_VARIABLE}: {environment}\n\
     2. Docker: {docker}\n\
     3. mongod on the PATH: {path}\n\
     4. fetched mongod: {fetched}"
)]
pub struct StartError {
    environment: String,
    docker: String,
    path: String,
    fetched: String,
}

impl StartError {
    /// The variable was set, so the other ways were not even tried.
    pub(crate) fn external(failure: &Failure) -> Self {
        let not_tried = format!("not tried, because {URI_VARIABLE} is set");
        Self {
            environment: failure.to_string(),
            docker: not_tried.clone(),
            path: not_tried.clone(),
            fetched: not_tried,
        }
    }

    pub(crate) fn all(
        environment: &str,
        docker: &Failure,
        path: &Failure,
        fetched: &Failure,
    ) -> Self {
        Self {
            environment: environment.to_owned(),
            docker: docker.to_string(),
            path: path.to_string(),
            fetched: fetched.to_string(),
        }
    }
}

/// A server, or a database on it, could not be taken down.
#[derive(Debug, Clone, thiserror::Error)]
#[error("{failure}")]
pub struct StopError {
    pub(crate) failure: Failure,
}

/// A member of a replica set could not be made to fail, or to come back.
#[derive(Debug, Clone, thiserror::Error)]
#[non_exhaustive]
pub enum FaultError {
    /// A member cannot be cut off where its network is the machine's own.
    #[error(
        "a member can be cut off only where Docker gives it a network of its own, and this one \
         is a process of this machine"
    )]
    NeedsContainers,
    /// What was tried did not work, or took too long.
    #[error("{0}")]
    Failed(String),
}

impl From<Failure> for FaultError {
    fn from(failure: Failure) -> Self {
        Self::Failed(failure.to_string())
    }
}

/// Why one step failed, told to its end: these errors are read by people, and a
/// [`StartError`] holds several of them side by side, which no `source` chain can.
#[derive(Debug, Clone, thiserror::Error)]
#[error("{0}")]
pub(crate) struct Failure(String);

impl Failure {
    pub(crate) fn new(text: impl Into<String>) -> Self {
        Self(text.into())
    }

    /// `doing` reads as "pulling mongo:7.0"; the causes of the error are appended.
    pub(crate) fn of(doing: impl fmt::Display, error: &dyn Error) -> Self {
        let mut text = format!("{doing} failed: {error}");
        let mut source = error.source();
        while let Some(cause) = source {
            let cause_text = cause.to_string();
            // Many errors repeat their source in their own text.
            if !text.contains(&cause_text) {
                text.push_str(": ");
                text.push_str(&cause_text);
            }
            source = cause.source();
        }
        Self(text)
    }
}

/// Bounds one step: a daemon or a download that hangs must not hang every test.
pub(crate) async fn within<T, E: Error>(
    limit: Duration,
    doing: &str,
    future: impl Future<Output = Result<T, E>>,
) -> Result<T, Failure> {
    match tokio::time::timeout(limit, future).await {
        Ok(result) => result.map_err(|error| Failure::of(doing, &error)),
        Err(_) => Err(Failure::new(format!(
            "{doing} took longer than {} s",
            limit.as_secs()
        ))),
    }
}
