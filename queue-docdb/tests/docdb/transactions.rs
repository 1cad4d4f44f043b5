//! Enqueue and ack in a transaction of the caller's.

use std::error::Error as _;

use mongodb::{
    ClientSession,
    bson::{Document, doc},
    error::{Error as DriverError, TRANSIENT_TRANSACTION_ERROR},
};
use mongodb_test_server::documentdb::{Engine, Engines};
use queue_api::{
    EnqueueOutcome, Error, ErrorKind, LeaseOutcome, NewMessage, QueueName, Receipt, Result,
};

use crate::fixture::{Fixture, ids, lease, message, name};

/// Those that have transactions.
const TRANSACTIONAL: &[Engine] = &[Engine::V4_0, Engine::V5_0, Engine::V8_0];

fn next() -> QueueName {
    QueueName::new("next").expect("a queue name")
}

impl Fixture {
    /// The application's own collection.
    fn invoices(&self) -> mongodb::Collection<Document> {
        let client = self.backend.client();
        client.database(self.raw.name()).collection("invoices")
    }

    async fn begin(&self) -> ClientSession {
        let mut session = self.backend.start_session().await.expect("a session");
        session.start_transaction().await.expect("a transaction");
        session
    }

    /// A business write, the ack of what it came from, and what comes next.
    async fn work(&self, session: &mut ClientSession, receipt: &Receipt) -> Result<LeaseOutcome> {
        let invoices = self.invoices();
        let written = invoices
            .insert_one(doc! { "order": "a" })
            .session(&mut *session);
        written.await.expect("nobody else writes invoices");
        let mut queues = self.backend.in_transaction(session);
        let acked = queues.ack(&name(), std::slice::from_ref(receipt)).await?;
        queues.enqueue(&next(), &[message("b")]).await?;
        Ok(acked[0])
    }

    /// Invoices, and messages to do next.
    async fn done(&self) -> (u64, u64) {
        let invoices = self.invoices().count_documents(doc! {}).await;
        let next = self.raw.collection::<Document>("queue.next");
        let next = next.count_documents(doc! { "visible_at": { "$exists": true } });
        (invoices.expect("a count"), next.await.expect("a count"))
    }
}

async fn leased(fixture: &Fixture) -> Receipt {
    let queue = fixture.queue();
    queue.enqueue(&message("a")).await.unwrap();
    // MongoDB up to 4.2 and DocumentDB make no collection within a transaction.
    let invoices = fixture.raw.create_collection("invoices").await;
    invoices.unwrap();
    fixture.backend.prepare(&next()).await.unwrap();
    let delivery = queue.lease().await.unwrap().expect("one is ready");
    delivery.receipt
}

#[tokio::test]
async fn a_business_write_its_ack_and_what_comes_next_are_one_step() {
    let fixture = Fixture::for_engines(Engines::of(TRANSACTIONAL)).await;
    let receipt = leased(&fixture).await;
    let mut session = fixture.begin().await;
    let outcome = fixture.work(&mut session, &receipt).await.unwrap();
    assert_eq!(outcome, LeaseOutcome::Applied);
    assert_eq!(
        fixture.done().await,
        (0, 0),
        "nobody sees it before its commit"
    );
    assert_eq!(fixture.queue().stats().await.unwrap().leased, 1);

    session.commit_transaction().await.unwrap();
    assert_eq!(fixture.done().await, (1, 1));
    assert_eq!(fixture.queue().stats().await.unwrap().leased, 0);
    assert_eq!(
        fixture.queue().ack(&receipt).await.unwrap(),
        LeaseOutcome::Lost
    );
}

#[tokio::test]
async fn what_is_aborted_or_dropped_did_not_happen() {
    let fixture = Fixture::for_engines(Engines::of(TRANSACTIONAL)).await;
    let receipt = leased(&fixture).await;
    let mut session = fixture.begin().await;
    fixture.work(&mut session, &receipt).await.unwrap();
    session.abort_transaction().await.unwrap();
    assert_eq!(fixture.done().await, (0, 0));

    let mut session = fixture.begin().await;
    fixture.work(&mut session, &receipt).await.unwrap();
    drop(session);
    // The driver aborts it behind our back; an ack outside waits for that.
    assert_eq!(
        fixture.queue().ack(&receipt).await.unwrap(),
        LeaseOutcome::Applied
    );
    assert_eq!(fixture.done().await, (0, 0));
}

#[tokio::test]
async fn outcomes_are_those_of_the_contract() {
    let fixture = Fixture::for_engines(Engines::of(TRANSACTIONAL)).await;
    let queue = fixture.queue();
    queue
        .enqueue_batch(&["a", "b", "c"].map(message))
        .await
        .unwrap();
    let deliveries = lease(&queue, 2).await;
    let [a, b] = [0, 1].map(|n: usize| deliveries[n].receipt.clone());
    queue.ack(&b).await.unwrap();

    let mut session = fixture.begin().await;
    let mut queues = fixture.backend.in_transaction(&mut session);
    let made_up = Receipt::new("made up");
    let receipts = [b.clone(), a.clone(), made_up, a.clone()];
    let acked = queues.ack(&name(), &receipts).await.unwrap();
    use LeaseOutcome::{Applied, Lost};
    assert_eq!(acked, [Lost, Applied, Lost, Lost]);
    assert_eq!(
        queues.ack(&name(), &[a]).await.unwrap(),
        [Lost],
        "acked before"
    );
    assert_eq!(queues.ack(&name(), &[]).await.unwrap(), []);
    use EnqueueOutcome::{Duplicate, Stored};
    // c is stored, a was acked in this transaction, and d comes twice.
    let messages = ["c", "a", "d", "d"].map(message);
    let stored = queues.enqueue(&name(), &messages).await.unwrap();
    assert_eq!(stored, [Duplicate, Stored, Stored, Duplicate]);
    assert_eq!(queues.enqueue(&name(), &[]).await.unwrap(), []);
    session.commit_transaction().await.unwrap();
    assert_eq!(ids(&lease(&queue, 9).await), ["c", "a", "d"]);
}

#[tokio::test]
async fn bad_input_is_refused_and_the_transaction_goes_on() {
    let fixture = Fixture::for_engines(Engines::of(TRANSACTIONAL)).await;
    let receipt = leased(&fixture).await;
    let mut session = fixture.begin().await;
    fixture.work(&mut session, &receipt).await.unwrap();
    let mut queues = fixture.backend.in_transaction(&mut session);
    let large = NewMessage::new(vec![0; (8 << 20) + 1]);
    let error = queues.enqueue(&next(), &[large]).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::InvalidInput);
    session.commit_transaction().await.unwrap();
    assert_eq!(fixture.done().await, (1, 1));
}

/// What the driver's own loop goes by.
fn is_worth_another_try(error: &Error) -> bool {
    let cause = error
        .source()
        .and_then(|cause| cause.downcast_ref::<DriverError>());
    cause.is_some_and(|cause| cause.contains_label(TRANSIENT_TRANSACTION_ERROR))
}

#[tokio::test]
async fn of_two_transactions_that_ack_the_same_one_is_told_to_try_again() {
    let fixture = Fixture::for_engines(Engines::of(TRANSACTIONAL)).await;
    let receipt = leased(&fixture).await;
    let (mut first, mut second) = (fixture.begin().await, fixture.begin().await);
    fixture.work(&mut first, &receipt).await.unwrap();
    let error = fixture.work(&mut second, &receipt).await.unwrap_err();
    assert!(
        error.is_retryable() && is_worth_another_try(&error),
        "{error:?}"
    );
    second.abort_transaction().await.unwrap();
    first.commit_transaction().await.unwrap();

    second.start_transaction().await.unwrap();
    let again = fixture.work(&mut second, &receipt).await.unwrap();
    assert_eq!(again, LeaseOutcome::Lost, "the first did it");
    second.abort_transaction().await.unwrap();
    assert_eq!(fixture.done().await, (1, 1));
}

#[tokio::test]
async fn of_two_that_enqueue_the_same_id_one_is_told_to_try_again() {
    let fixture = Fixture::for_engines(Engines::of(TRANSACTIONAL)).await;
    let receipt = leased(&fixture).await;
    let mut session = fixture.begin().await;
    fixture.work(&mut session, &receipt).await.unwrap();
    let mut other = fixture.begin().await;
    let mut queues = fixture.backend.in_transaction(&mut other);
    let error = queues.enqueue(&next(), &[message("b")]).await.unwrap_err();
    assert!(error.is_retryable(), "{error:?}");
    other.abort_transaction().await.unwrap();
    session.commit_transaction().await.unwrap();

    other.start_transaction().await.unwrap();
    let mut queues = fixture.backend.in_transaction(&mut other);
    let again = queues.enqueue(&next(), &[message("b")]).await.unwrap();
    assert_eq!(again, [EnqueueOutcome::Duplicate]);
    // The driver aborts what is dropped in the background, which ends with the test.
    other.abort_transaction().await.unwrap();
}

#[tokio::test]
async fn the_first_enqueue_to_a_new_queue_may_be_tried_again() {
    let fixture = Fixture::for_engines(Engines::of(TRANSACTIONAL)).await;
    fixture.queue().enqueue(&message("a")).await.unwrap();
    let mut session = fixture.begin().await;
    let mut queues = fixture.backend.in_transaction(&mut session);
    queues.ack(&name(), &[]).await.unwrap();
    let error = queues.enqueue(&next(), &[message("b")]).await.unwrap_err();
    assert!(
        error.is_retryable() && is_worth_another_try(&error),
        "{error:?}"
    );
    session.abort_transaction().await.unwrap();

    session.start_transaction().await.unwrap();
    let mut queues = fixture.backend.in_transaction(&mut session);
    queues.enqueue(&next(), &[message("b")]).await.unwrap();
    session.commit_transaction().await.unwrap();
    let names = fixture.raw.list_collection_names().await.unwrap();
    assert!(names.contains(&"queue.next".to_owned()), "{names:?}");
}

/// As it does after a minute on DocumentDB and MongoDB, or in a restart.
#[tokio::test]
async fn a_transaction_that_the_server_gave_up_can_be_tried_again() {
    let fixture = Fixture::for_engines(Engines::of(TRANSACTIONAL)).await;
    let receipt = leased(&fixture).await;
    let mut session = fixture.begin().await;
    fixture.work(&mut session, &receipt).await.unwrap();
    let give_up = doc! { "killSessions": [{ "id": session.id().get("id").unwrap() }] };
    fixture.raw.run_command(give_up).await.unwrap();
    let mut queues = fixture.backend.in_transaction(&mut session);
    let error = queues.enqueue(&next(), &[message("c")]).await.unwrap_err();
    assert!(
        error.is_retryable() && is_worth_another_try(&error),
        "{error:?}"
    );
    assert_eq!(fixture.done().await, (0, 0));

    let mut session = fixture.begin().await;
    let again = fixture.work(&mut session, &receipt).await.unwrap();
    assert_eq!(again, LeaseOutcome::Applied);
    session.commit_transaction().await.unwrap();
    assert_eq!(fixture.done().await, (1, 1));
}
