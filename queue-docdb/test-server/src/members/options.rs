//! What a replica set starts with, and what can be done to its members.

use std::time::Duration;

use mongodb::bson::{Bson, Document, doc};

use crate::replica_set;

pub(crate) const MEMBERS: usize = 3;

/// What a member is [cut off](crate::MongoReplicaSet::cut) from. Both sides continue to run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CutFrom {
    /// The other members and all clients.
    MembersAndClients,
    /// The other members. Clients of this machine still reach it. A primary then answers until
    /// the election timeout has passed.
    Members,
}

#[derive(Debug, Clone, Copy)]
pub(crate) enum Action {
    Kill,
    Stop,
    Start,
    Freeze,
    Thaw,
    Cut(CutFrom),
    Heal,
}

/// Options of a replica set of three.
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
    /// The election timeout if you set none. MongoDB's default is 10 s.
    pub const DEFAULT_ELECTION_TIMEOUT: Duration = Duration::from_secs(2);

    /// Heartbeats per election timeout, as MongoDB has it.
    const HEARTBEATS: u32 = 5;

    /// The default election timeout. Secondaries wait 1 s, not 5 s, for a silent member that
    /// they copy from.
    pub fn new() -> Self {
        Self {
            election_timeout: Self::DEFAULT_ELECTION_TIMEOUT,
        }
    }

    /// Sets how long members wait for a silent primary before they elect another one. A primary
    /// that does not hear from the others steps down after the same time.
    ///
    /// # Panics
    /// If it is shorter than 100 ms.
    pub fn with_election_timeout(mut self, timeout: Duration) -> Self {
        assert!(
            timeout >= Duration::from_millis(100),
            "the election timeout is {timeout:?}; it must be at least 100ms"
        );
        self.election_timeout = timeout;
        self
    }

    /// The election timeout.
    #[must_use]
    pub fn election_timeout(&self) -> Duration {
        self.election_timeout
    }

    /// The configuration of a set with these members.
    pub(crate) fn config(&self, addresses: &[String]) -> Document {
        let members: Vec<Bson> = (0_i32..)
            .zip(addresses)
            .map(|(id, host)| Bson::Document(doc! { "_id": id, "host": host }))
            .collect();
        let millis = |duration: Duration| i64::try_from(duration.as_millis()).unwrap_or(i64::MAX);
        // A new primary takes no writes until it has heard from all members, or has waited for
        // so long.
        let seconds = (self.election_timeout / 2).as_secs().max(1);
        doc! {
            "_id": replica_set::NAME,
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
