//! A backend on its own database, with a manual clock.

use std::{sync::Arc, time::Duration};

use mongodb::{
    bson::{Document, doc},
    event::{EventHandler, command::CommandEvent},
};
use mongodb_test_server::{
    MongoServer, ScratchDatabase,
    documentdb::{Engine, Engines, Gate},
};
use queue_api::{
    Clock, Delivery, LeaseOptions, LeaseOutcome, ManualClock, MessageId, NewMessage, Queue,
    QueueName, Result,
};
use queue_docdb::{DocDbBackend, DocDbBuilder};

pub(crate) const SECOND: Duration = Duration::from_secs(1);
pub(crate) const MINUTE: Duration = Duration::from_secs(60);

/// The engines whose unique indexes keep ids unique: all but elastic clusters, which document none.
const UNIQUE: &[Engine] = &[Engine::V3_6, Engine::V4_0, Engine::V5_0, Engine::V8_0];

/// The engines that must accept every command, unless a test says otherwise.
pub(crate) fn all_engines() -> Engines {
    Engines::of(UNIQUE)
}

/// The engines with transactions.
pub(crate) const TRANSACTIONAL: &[Engine] = &[Engine::V4_0, Engine::V5_0, Engine::V8_0];

/// A backend on its own database, which is dropped with this.
pub(crate) struct Fixture {
    pub(crate) clock: Arc<ManualClock>,
    pub(crate) backend: DocDbBackend,
    /// The same database, without the backend.
    pub(crate) raw: mongodb::Database,
    pub(crate) database: ScratchDatabase,
    /// Judges every command. Its drop fails the test if an engine refuses one.
    pub(crate) gate: Gate,
    server: &'static MongoServer,
}

impl Fixture {
    pub(crate) async fn new() -> Self {
        Self::for_engines(all_engines()).await
    }

    /// Only these engines must accept the commands.
    pub(crate) async fn for_engines(engines: Engines) -> Self {
        let server = MongoServer::shared().await.expect("a MongoDB");
        let database = server.scratch_database();
        let clock = Arc::new(ManualClock::new());
        let gate = Gate::new(engines);
        let builder = builder(server.uri(), &gate)
            .database(database.name())
            .clock(clock.clone());
        let backend = builder.connect().await.expect("a backend");
        let client = mongodb::Client::with_uri_str(server.uri())
            .await
            .expect("a valid URI");
        let raw = client.database(database.name());
        Self {
            clock,
            backend,
            raw,
            database,
            gate,
            server,
        }
    }

    /// Another instance, which the database cannot tell from another process.
    pub(crate) async fn another_backend(&self, clock: Arc<dyn Clock>) -> DocDbBackend {
        let builder = builder(self.server.uri(), &self.gate)
            .database(self.database.name())
            .clock(clock);
        builder.connect().await.expect("a backend")
    }

    /// A builder of another instance, on the same clock, with a change stream.
    pub(crate) fn streaming(&self) -> DocDbBuilder {
        DocDbBackend::builder(self.server.uri())
            .command_event_handler(self.gate.watch())
            .database(self.database.name())
            .clock(self.clock.clone())
    }

    /// A builder of another instance. `see` is called for its command events.
    pub(crate) fn watched(
        &self,
        see: impl Fn(&CommandEvent) + Send + Sync + 'static,
    ) -> DocDbBuilder {
        self.watched_and_streaming(see).without_change_stream()
    }

    /// The same, with a change stream.
    pub(crate) fn watched_and_streaming(
        &self,
        see: impl Fn(&CommandEvent) + Send + Sync + 'static,
    ) -> DocDbBuilder {
        let gate = self.gate.watch();
        let events = EventHandler::callback(move |event: CommandEvent| {
            see(&event);
            if let EventHandler::Callback(judge) = &gate {
                judge(event);
            }
        });
        self.streaming().command_event_handler(events)
    }

    pub(crate) fn queue(&self) -> Queue {
        queue_of(&self.backend)
    }

    /// The collection of [`queue`](Self::queue).
    pub(crate) fn documents(&self) -> mongodb::Collection<Document> {
        self.raw.collection("queue.mail")
    }

    /// The document that has this message.
    pub(crate) async fn document(&self, id: &str) -> Document {
        let found = self.documents().find_one(doc! { "ids": id }).await;
        found.expect("a find").expect("a document")
    }

    /// Changes the document that has this message, without the backend.
    pub(crate) async fn change_document(&self, id: &str, update: Document) {
        let updated = self
            .documents()
            .update_one(doc! { "ids": id }, update)
            .await;
        assert_eq!(updated.expect("an update").matched_count, 1, "{id}");
    }
}

/// A builder whose commands are judged, without a change stream, which elastic clusters lack.
///
/// Tests use it instead of their own builder, so that every command is judged.
pub(crate) fn builder(uri: &str, gate: &Gate) -> DocDbBuilder {
    DocDbBackend::builder(uri)
        .command_event_handler(gate.watch())
        .without_change_stream()
}

pub(crate) fn queue_of(backend: &DocDbBackend) -> Queue {
    Queue::new(Arc::new(backend.clone()), "mail").expect("a queue")
}

pub(crate) fn name() -> QueueName {
    QueueName::new("mail").expect("a queue name")
}

pub(crate) fn id(id: &str) -> MessageId {
    MessageId::new(id).expect("a message id")
}

pub(crate) fn message(name: &str) -> NewMessage {
    NewMessage::new(format!("payload of {name}")).with_id(id(name))
}

/// Leases up to `max` messages.
pub(crate) async fn lease(queue: &Queue, max: usize) -> Vec<Delivery> {
    queue
        .lease_batch(&LeaseOptions::new(max))
        .await
        .expect("a lease")
}

pub(crate) fn ids(deliveries: &[Delivery]) -> Vec<&str> {
    deliveries
        .iter()
        .map(|delivery| delivery.id.as_str())
        .collect()
}

/// A settlement or an extension that must take effect.
pub(crate) async fn applied(call: impl Future<Output = Result<LeaseOutcome>>) {
    assert_eq!(
        call.await.expect("the call succeeds"),
        LeaseOutcome::Applied
    );
}
