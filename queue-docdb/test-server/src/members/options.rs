//! What a replica set is started with.

use std::time::Duration;

use mongodb::bson::{Bson, Document, doc};

use crate::options::REPLICA_SET;

/// What a replica set of three is started with.
///
/// ```
/// use std::time::Duration;
/// use mongodb_test_server::ReplicaSetOptions;
///
/// let options = ReplicaSetOptions::new().with_election_timeout(Duration::from_secs(10));
/// assert_eq!(options.election_timeout(), Duration::from_secs(10));
/// ```
#[derive(Debug, Clone)]
#[must_use]
pub struct ReplicaSetOptions {
    election_timeout: Duration,
}

impl ReplicaSetOptions {
    /// The election timeout unless another is set; MongoDB's own is 10 s.
    pub const DEFAULT_ELECTION_TIMEOUT: Duration = Duration::from_secs(2);

    /// How often members ask each other, relative to the election timeout: MongoDB's ratio.
    const HEARTBEATS: u32 = 5;

    /// A replica set that elects a new primary about two seconds after the loss of the old, and
    /// whose secondaries wait a second, not five, for a member that they copy from.
    pub fn new() -> Self {
        Self {
            election_timeout: Self::DEFAULT_ELECTION_TIMEOUT,
        }
    }

    /// How long the members wait for a sign of the primary before they elect another, and how
    /// long a primary that hears nothing of the others stays one. The heartbeats are five
    /// times as frequent, as by default.
    ///
    /// # Panics
    /// When it is shorter than 100 ms.
    pub fn with_election_timeout(mut self, timeout: Duration) -> Self {
        assert!(
            timeout >= Duration::from_millis(100),
            "members cannot tell a loss from a pause in {timeout:?}"
        );
        self.election_timeout = timeout;
        self
    }

    /// What [`with_election_timeout`](Self::with_election_timeout) set.
    #[must_use]
    pub fn election_timeout(&self) -> Duration {
        self.election_timeout
    }

    /// The configuration of a set of these members.
    pub(crate) fn config(&self, addresses: &[String]) -> Document {
        let members: Vec<Bson> = (0_i32..)
            .zip(addresses)
            .map(|(id, host)| Bson::Document(doc! { "_id": id, "host": host }))
            .collect();
        let millis = |duration: Duration| i64::try_from(duration.as_millis()).unwrap_or(i64::MAX);
        // A new primary waits until it has heard of everybody, or has waited so long, before it
        // takes writes.
        let seconds = (self.election_timeout / 2).as_secs().max(1);
        doc! {
            "_id": REPLICA_SET,
            "members": members,
            "settings": {
                "electionTimeoutMillis": millis(self.election_timeout),
                "heartbeatIntervalMillis": millis(self.election_timeout / Self::HEARTBEATS),
                "heartbeatTimeoutSecs": i64::try_from(seconds).unwrap_or(i64::MAX),
            },
        }
    }
}

impl Default for ReplicaSetOptions {
    fn default() -> Self {
        Self::new()
    }
}
