//! Enqueue and ack in the application's transaction.

use mongodb::{
    ClientSession,
    bson::{Document, doc},
    error::TRANSIENT_TRANSACTION_ERROR,
};
use mongodb_test_server::documentdb::Engines;
use queue_api::{
    EnqueueOutcome, Error, ErrorKind, LeaseOutcome, NewMessage, QueueName, QueueTransaction,
    Receipt, Result,
};

use crate::fixture::{Fixture, TRANSACTIONAL, applied, ids, lease, message, name, queue_of};

tests! {
    on_one_thread:
        a_transaction_commits_a_write_an_ack_and_an_enqueue,
        an_aborted_or_dropped_transaction_has_no_effect,
        outcomes_are_those_of_the_contract,
        an_id_of_a_document_that_cannot_be_read_is_a_duplicate,
        invalid_input_does_not_end_the_transaction,
        of_two_transactions_with_the_same_ack_one_is_retryable,
        of_two_transactions_with_the_same_id_one_is_retryable,
        the_first_enqueue_to_a_new_queue_is_retryable,
        a_transaction_that_the_server_has_ended_is_retryable
}

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

    /// A write of the application, the ack of its message, and an enqueue of the next.
    async fn work(&self, session: &mut ClientSession, receipt: &Receipt) -> Result<LeaseOutcome> {
        let invoices = self.invoices();
        let written = invoices
            .insert_one(doc! { "order": "a" })
            .session(&mut *session);
        written.await.expect("no other test writes invoices");
        let mut queues = self.backend.in_transaction(session);
        let acked = queues.ack(&name(), std::slice::from_ref(receipt)).await?;
        queues.enqueue(&next(), &[message("b")]).await?;
        Ok(acked[0])
    }

    /// The numbers of invoices and of next messages.
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
    // MongoDB up to 4.2 and DocumentDB cannot create a collection in a transaction.
    let invoices = fixture.raw.create_collection("invoices").await;
    invoices.unwrap();
    fixture.backend.prepare(&next()).await.unwrap();
    let delivery = queue.lease().await.unwrap().expect("one is ready");
    delivery.receipt
}

async fn a_transaction_commits_a_write_an_ack_and_an_enqueue() {
    let fixture = Fixture::for_engines(Engines::of(TRANSACTIONAL)).await;
    let receipt = leased(&fixture).await;
    let mut session = fixture.begin().await;
    let outcome = fixture.work(&mut session, &receipt).await.unwrap();
    assert_eq!(outcome, LeaseOutcome::Applied);
    assert_eq!(fixture.done().await, (0, 0), "invisible before the commit");
    assert_eq!(fixture.queue().stats().await.unwrap().leased, 1);

    session.commit_transaction().await.unwrap();
    assert_eq!(fixture.done().await, (1, 1));
    assert_eq!(fixture.queue().stats().await.unwrap().leased, 0);
    assert_eq!(
        fixture.queue().ack(&receipt).await.unwrap(),
        LeaseOutcome::Lost
    );
}

async fn an_aborted_or_dropped_transaction_has_no_effect() {
    let fixture = Fixture::for_engines(Engines::of(TRANSACTIONAL)).await;
    let receipt = leased(&fixture).await;
    let mut session = fixture.begin().await;
    applied(fixture.work(&mut session, &receipt)).await;
    session.abort_transaction().await.unwrap();
    assert_eq!(fixture.done().await, (0, 0));

    let mut session = fixture.begin().await;
    applied(fixture.work(&mut session, &receipt)).await;
    drop(session);
    // The driver aborts it in the background. The ack waits for that.
    assert_eq!(
        fixture.queue().ack(&receipt).await.unwrap(),
        LeaseOutcome::Applied
    );
    assert_eq!(fixture.done().await, (0, 0));
}

async fn outcomes_are_those_of_the_contract() {
    let fixture = Fixture::for_engines(Engines::of(TRANSACTIONAL)).await;
    let queue = fixture.queue();
    queue
        .enqueue_batch(&["a", "b", "c"].map(message))
        .await
        .unwrap();
    let deliveries = lease(&queue, 2).await;
    let [a, b] = [0, 1].map(|n: usize| deliveries[n].receipt.clone());
    applied(queue.ack(&b)).await;

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
    // c is stored, a was acked in this transaction, and d is there twice.
    let messages = ["c", "a", "d", "d"].map(message);
    let stored = queues.enqueue(&name(), &messages).await.unwrap();
    assert_eq!(stored, [Duplicate, Stored, Stored, Duplicate]);
    assert_eq!(queues.enqueue(&name(), &[]).await.unwrap(), []);
    session.commit_transaction().await.unwrap();
    assert_eq!(ids(&lease(&queue, 9).await), ["c", "a", "d"]);
}

async fn invalid_input_does_not_end_the_transaction() {
    let fixture = Fixture::for_engines(Engines::of(TRANSACTIONAL)).await;
    let receipt = leased(&fixture).await;
    let mut session = fixture.begin().await;
    applied(fixture.work(&mut session, &receipt)).await;
    let mut transaction = fixture.backend.in_transaction(&mut session);
    let (queue, large) = (fixture.queue(), NewMessage::new(vec![0; (8 << 20) + 1]));
    let sent = queue.enqueue_in(&mut transaction, std::slice::from_ref(&large));
    let error = sent.await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::InvalidInput);
    session.commit_transaction().await.unwrap();
    assert_eq!(fixture.done().await, (1, 1));
}

/// By the label that the driver's own retry loop uses.
fn may_be_retried(error: &Error) -> bool {
    let cause = queue_docdb::driver_error(error);
    cause.is_some_and(|cause| cause.contains_label(TRANSIENT_TRANSACTION_ERROR))
}

async fn of_two_transactions_with_the_same_ack_one_is_retryable() {
    let fixture = Fixture::for_engines(Engines::of(TRANSACTIONAL)).await;
    let receipt = leased(&fixture).await;
    let (mut first, mut second) = (fixture.begin().await, fixture.begin().await);
    applied(fixture.work(&mut first, &receipt)).await;
    let error = fixture.work(&mut second, &receipt).await.unwrap_err();
    assert!(error.is_retryable() && may_be_retried(&error), "{error:?}");
    second.abort_transaction().await.unwrap();
    first.commit_transaction().await.unwrap();

    second.start_transaction().await.unwrap();
    let again = fixture.work(&mut second, &receipt).await.unwrap();
    assert_eq!(
        again,
        LeaseOutcome::Lost,
        "the first transaction has acked it"
    );
    second.abort_transaction().await.unwrap();
    assert_eq!(fixture.done().await, (1, 1));
}

async fn of_two_transactions_with_the_same_id_one_is_retryable() {
    let fixture = Fixture::for_engines(Engines::of(TRANSACTIONAL)).await;
    let receipt = leased(&fixture).await;
    let mut session = fixture.begin().await;
    applied(fixture.work(&mut session, &receipt)).await;
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
    // Aborted here, because the driver's background task ends with the test.
    other.abort_transaction().await.unwrap();
}

async fn the_first_enqueue_to_a_new_queue_is_retryable() {
    let fixture = Fixture::for_engines(Engines::of(TRANSACTIONAL)).await;
    fixture.queue().enqueue(&message("a")).await.unwrap();
    let mut session = fixture.begin().await;
    let mut queues = fixture.backend.in_transaction(&mut session);
    queues.ack(&name(), &[]).await.unwrap();
    let error = queues.enqueue(&next(), &[message("b")]).await.unwrap_err();
    assert!(error.is_retryable() && may_be_retried(&error), "{error:?}");
    session.abort_transaction().await.unwrap();

    session.start_transaction().await.unwrap();
    let mut queues = fixture.backend.in_transaction(&mut session);
    queues.enqueue(&next(), &[message("b")]).await.unwrap();
    session.commit_transaction().await.unwrap();
    let names = fixture.raw.list_collection_names().await.unwrap();
    assert!(names.contains(&"queue.next".to_owned()), "{names:?}");
}

/// The server ends a transaction after a minute, or in a restart.
async fn a_transaction_that_the_server_has_ended_is_retryable() {
    let fixture = Fixture::for_engines(Engines::of(TRANSACTIONAL)).await;
    let receipt = leased(&fixture).await;
    let mut session = fixture.begin().await;
    applied(fixture.work(&mut session, &receipt)).await;
    let kill = doc! { "killSessions": [{ "id": session.id().get("id").unwrap() }] };
    fixture.raw.run_command(kill).await.unwrap();
    let mut queues = fixture.backend.in_transaction(&mut session);
    let error = queues.enqueue(&next(), &[message("c")]).await.unwrap_err();
    assert!(error.is_retryable() && may_be_retried(&error), "{error:?}");
    assert_eq!(fixture.done().await, (0, 0));

    let mut session = fixture.begin().await;
    let again = fixture.work(&mut session, &receipt).await.unwrap();
    assert_eq!(again, LeaseOutcome::Applied);
    session.commit_transaction().await.unwrap();
    assert_eq!(fixture.done().await, (1, 1));
}

async fn an_id_of_a_document_that_cannot_be_read_is_a_duplicate() {
    for entry_size in [1, 16] {
        let fixture = Fixture::for_engines(Engines::of(TRANSACTIONAL)).await;
        let backend = fixture.watched(|_| ()).entry_size(entry_size).connect();
        let backend = backend.await.unwrap();
        let both = ["a", "b"].map(message);
        queue_of(&backend).enqueue_batch(&both).await.unwrap();
        let damage = doc! { "$set": { "visibility": "soon" } };
        fixture.change_document("a", damage).await;
        if entry_size == 1 {
            let damage = doc! { "$set": { "ids": 7 } };
            fixture.change_document("b", damage).await;
        }
        let mut session = backend.start_session().await.unwrap();
        session.start_transaction().await.unwrap();
        let mut transaction = backend.in_transaction(&mut session);
        let messages = ["a", "new", "b"].map(message);
        let outcomes = transaction.enqueue(&name(), &messages).await.unwrap();
        use EnqueueOutcome::{Duplicate, Stored};
        assert_eq!(outcomes, [Duplicate, Stored, Duplicate], "{entry_size}");
        session.commit_transaction().await.unwrap();
        let leased = lease(&queue_of(&backend), 9).await;
        assert_eq!(ids(&leased), ["new"], "{entry_size}");
    }
}
