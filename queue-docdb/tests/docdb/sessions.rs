//! Transactions on clients with other options than the queue needs.

use std::sync::{Arc, Mutex};

use mongodb::{
    Client, ClientSession,
    bson::{Document, doc},
    event::{EventHandler, command::CommandEvent},
    options::ClientOptions,
};
use queue_api::{EnqueueOutcome, LeaseOutcome, Queue, QueueTransaction};
use queue_docdb::DocDbBackend;

use crate::fixture::{Fixture, message, name};

tests! {
    on_one_thread:
        transactions_commit_to_a_majority_and_read_from_the_primary
}

/// Options of an application's URI.
const OPTIONS: [&str; 6] = [
    "",
    "w=1",
    "w=majority",
    "readPreference=secondaryPreferred&retryWrites=false",
    "readPreference=secondary&w=1",
    "readPreference=nearest&readConcernLevel=local",
];

/// A backend on the application's own client, and the commits that it sends.
async fn connect(fixture: &Fixture, options: &str) -> (DocDbBackend, Arc<Mutex<Vec<Document>>>) {
    let uri = mongodb_test_server::MongoServer::shared()
        .await
        .unwrap()
        .uri();
    let joint = if uri.contains('?') { "&" } else { "?" };
    let uri = format!("{uri}{joint}{options}");
    let mut options = ClientOptions::parse(uri.trim_end_matches(joint))
        .await
        .unwrap();
    let commits = Arc::<Mutex<Vec<Document>>>::default();
    let seen = commits.clone();
    options.command_event_handler = Some(EventHandler::callback(move |event| {
        if let CommandEvent::Started(started) = event
            && started.command_name == "commitTransaction"
        {
            seen.lock().unwrap().push(started.command);
        }
    }));
    let client = Client::with_options(options).unwrap();
    let database = client.database(fixture.database.name());
    let builder = DocDbBackend::from_database(database).without_change_stream();
    (builder.connect().await.unwrap(), commits)
}

/// A read of the application, an ack and an enqueue.
async fn work(fixture: &Fixture, backend: &DocDbBackend, session: &mut ClientSession) {
    let queue = Queue::new(Arc::new(backend.clone()), "mail").unwrap();
    let receipt = queue.lease().await.unwrap().expect("a message").receipt;
    let database = backend.client().database(fixture.database.name());
    let invoices = database.collection::<Document>("invoices");
    session.start_transaction().await.unwrap();
    let found = invoices.find_one(doc! {}).session(&mut *session);
    assert_eq!(found.await.expect("a find"), None);
    let mut queues = backend.in_transaction(session);
    let acked = queues.ack(&name(), &[receipt]).await.unwrap();
    assert_eq!(acked, [LeaseOutcome::Applied]);
    let stored = queues.enqueue(&name(), &[message("next")]).await.unwrap();
    assert_eq!(stored, [EnqueueOutcome::Stored]);
    session.commit_transaction().await.unwrap();
}

async fn transactions_commit_to_a_majority_and_read_from_the_primary() {
    for options in OPTIONS {
        let fixture = Fixture::new().await;
        fixture.raw.create_collection("invoices").await.unwrap();
        fixture.queue().enqueue(&message("first")).await.unwrap();
        let (backend, commits) = connect(&fixture, options).await;
        let mut session = backend.start_session().await.unwrap();
        work(&fixture, &backend, &mut session).await;
        let commits = commits.lock().unwrap();
        let [commit] = commits.as_slice() else {
            panic!("{options}: {commits:?}");
        };
        let concern = commit.get_document("writeConcern");
        let w = concern.ok().and_then(|concern| concern.get_str("w").ok());
        assert_eq!(w, Some("majority"), "{options}: {commit}");
    }
}
