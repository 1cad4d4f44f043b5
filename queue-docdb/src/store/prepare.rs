//! Makes a queue ready for writes: the collection, its indexes, and its version.

use std::time::Duration;

use mongodb::bson::doc;
use queue_api::ErrorKind;
use tokio::time::Instant;

use crate::{
    connect::amazon::Engine,
    state::knowledge::Indexes,
    store::{
        collection::QueueCollection,
        error::StoreError,
        index::Index,
        inspect::{self, Contents, DELETED, version_document},
        pause::{jittered, real_time},
        write_reply,
    },
};

/// How often an index build is tried. DocumentDB refuses one while another process builds.
const INDEX_TRIES: u32 = 5;

impl QueueCollection {
    /// Creates the queue, or what it lacks, unless this instance has found it complete recently.
    ///
    /// The indexes are made before the first document. In an empty collection, a build does not
    /// wait for the members of the replica set.
    pub(crate) async fn prepare(&self) -> Result<(), StoreError> {
        self.prepare_for(Indexes::Ready).await
    }

    /// The same, unless what is known is enough.
    async fn prepare_for(&self, enough: Indexes) -> Result<(), StoreError> {
        let knowledge = &self.state.knowledge;
        if knowledge.indexes() >= Some(enough) {
            return Ok(());
        }
        let _preparing = self.state.preparing.lock().await;
        // Another call may have done it meanwhile.
        if knowledge.indexes() >= Some(enough) {
            return Ok(());
        }
        let mut contents = match knowledge.indexes() {
            // It may have no version yet.
            Some(Indexes::NotUnique) => self.check_now().await?,
            _ => self.check().await?,
        };
        let mut is_new = false;
        loop {
            match contents {
                // Elastic clusters do not create a collection with its first index.
                Contents::Missing => is_new = self.create_collection().await?,
                Contents::Deleted => {
                    let version = doc! { "_id": inspect::id() };
                    let update = doc! { "$unset": { DELETED: "" } };
                    let revival = doc! { "q": version, "u": update, "hint": { "_id": 1 } };
                    self.update_repeatedly(vec![revival]).await?;
                }
                _ => return self.complete(contents, is_new).await,
            }
            contents = match is_new {
                true => Contents::Empty,
                false => self.check_now().await?,
            };
        }
    }

    /// Adds what a queue has lost. Does nothing if there is no queue.
    pub(crate) async fn restore(&self) -> Result<(), StoreError> {
        if self.state.knowledge.indexes() >= Some(Indexes::NotUnique) {
            return Ok(());
        }
        match self.check().await? {
            Contents::Missing | Contents::Empty | Contents::Deleted => Ok(()),
            // An id is stored twice, because the unique index was missing for a while, or the server is
            // still building it. Consumers can drain the queue meanwhile.
            _ => match self.prepare_for(Indexes::NotUnique).await {
                Err(error) if error.is_duplicate() || error.is_late(Index::Ids) => {
                    let knowledge = &self.state.knowledge;
                    if knowledge.indexes().is_none() {
                        // The queue has no version yet. Its messages are not found by `_id`: such queues
                        // have no unique index.
                        knowledge.learn_queue(false);
                    }
                    knowledge.learn_indexes(Indexes::NotUnique);
                    Ok(())
                }
                prepared => prepared,
            },
        }
    }

    async fn complete(&self, contents: Contents, is_new: bool) -> Result<(), StoreError> {
        let existing = match is_new {
            true => Vec::new(),
            false => match self.indexes().await {
                Ok(indexes) => indexes,
                // The user may not look. The version says that the indexes were made.
                Err(error) if contents == Contents::Queue && error.kind() == ErrorKind::Denied => {
                    self.state.knowledge.learn_indexes(Indexes::Ready);
                    return Ok(());
                }
                Err(error) => return Err(error),
            },
        };
        let has_version = contents == Contents::Queue;
        // All are judged before one is made, so that a refusal changes nothing.
        let mut missing = Vec::new();
        // An existing queue keeps its kind.
        let is_keyed = match contents {
            Contents::Queue => self.state.knowledge.is_keyed(),
            Contents::Unversioned { is_keyed } => is_keyed,
            _ => self.entry_size == 1,
        };
        for index in Index::of_queue(is_keyed) {
            let is_there = index.is_among(&existing, self.messages.name())?;
            // The server may still build it, or a failover may undo it. Meanwhile it refuses nothing. The
            // others only find.
            let must_serve = index == Index::Ids;
            if !is_there || must_serve && !self.is_held_by_majority(index).await? {
                missing.push(index);
            }
        }
        for index in missing {
            self.make_index(index, contents == Contents::Empty).await?;
        }
        if !has_version {
            self.write_version(is_keyed).await?;
        }
        self.state.knowledge.learn_indexes(Indexes::Ready);
        Ok(())
    }

    /// Whether the collection is new.
    async fn create_collection(&self) -> Result<bool, StoreError> {
        const NAMESPACE_EXISTS: i32 = 48;
        let create = doc! { "create": self.messages.name() };
        match self.run(create, |_| Ok(())).await {
            Ok(()) => Ok(true),
            Err(error) if error.has_code(NAMESPACE_EXISTS) => Ok(false),
            Err(error) => Err(error),
        }
    }

    async fn make_index(&self, index: Index, is_empty: bool) -> Result<(), StoreError> {
        let mut command = doc! {
            "createIndexes": self.messages.name(),
            "indexes": [index.specification()],
            "writeConcern": { "w": "majority" },
        };
        // Otherwise MongoDB waits for every voting member, also for one that is down.
        let mut has_quorum = !is_empty && self.engine == Engine::MongoDb;
        if has_quorum {
            command.insert("commitQuorum", "majority");
        }
        let mut tries = 1;
        let mut retries = self.deadline.retries();
        loop {
            let sent = self.database.run_command(command.clone());
            let reply = retries.run(sent).await;
            match reply.and_then(|reply| write_reply::confirmed(&reply, 0)) {
                Ok(()) => return Ok(()),
                Err(error) if error.is_duplicate() => return Err(error),
                // A standalone server and other engines have no quorum.
                Err(error) if has_quorum && is_refusal(&error) => {
                    command.remove("commitQuorum");
                    has_quorum = false;
                }
                // DocumentDB documents no code for "another build is running".
                Err(error) if tries < INDEX_TRIES && error.kind() == ErrorKind::Internal => {
                    let pause = jittered(Duration::from_millis(75 << tries));
                    real_time(Instant::now() + pause).await;
                    tries += 1;
                }
                Err(error @ StoreError::TimedOut(_)) => {
                    retries
                        .after(error)
                        .await
                        .map_err(|_| StoreError::LateIndex {
                            index: index.name(),
                            collection: self.messages.name().to_owned(),
                            after: self.deadline.of_call(),
                        })?;
                }
                Err(error) => retries.after(error).await?,
            }
        }
    }

    /// Writes the version, before the first message.
    async fn write_version(&self, is_keyed: bool) -> Result<(), StoreError> {
        let mut insert = self.insert_command(vec![version_document(is_keyed)]);
        insert.insert("writeConcern", doc! { "w": "majority" });
        match self.run(insert, write_reply::matched).await {
            Ok(_) => {
                self.state.knowledge.learn_queue(is_keyed);
                Ok(())
            }
            // Another instance was first, perhaps one of another version.
            Err(error) if error.is_duplicate() => match self.check_now().await? {
                Contents::Queue | Contents::Deleted => Ok(()),
                // A failover rolled it back.
                _ => Err(StoreError::Uncertain),
            },
            Err(error) => Err(error),
        }
    }
}

fn is_refusal(error: &StoreError) -> bool {
    matches!(error.kind(), ErrorKind::Internal | ErrorKind::InvalidInput)
}
