//! Outcomes of batches in which some receipts are lost.

use std::time::Duration;

use queue_api::{
    DeadReason, EnqueueOutcome, LeaseChange, LeaseOutcome, MessageState, PageOptions, Purge,
    QueueAdmin, QueueStats, Receipt, Redrive,
};

use crate::fixture::{Fixture, MINUTE, SECOND, applied, id, ids, lease, message, name};

use EnqueueOutcome::{Duplicate, Stored};
use LeaseOutcome::{Applied, Lost};

tests! {
    on_one_thread:
        a_message_is_enqueued_leased_and_acked,
        a_batch_of_enqueues_has_an_outcome_for_each,
        a_batch_of_acks_has_an_outcome_for_each,
        changes_of_one_message_in_a_batch_are_made_in_order,
        an_expired_lease_can_still_be_settled,
        a_claim_makes_dead_letters_of_the_exhausted_messages_it_finds,
        a_queue_is_administered,
        wait_returns_for_what_becomes_ready
}

async fn a_message_is_enqueued_leased_and_acked() {
    let fixture = Fixture::new().await;
    let queue = fixture.queue();
    assert!(
        queue.lease().await.unwrap().is_none(),
        "an unused queue is empty"
    );

    let sent = message("a")
        .with_header("content.type", "$text")
        .with_delay(SECOND);
    assert_eq!(queue.enqueue(&sent).await.unwrap(), Stored);
    assert!(queue.lease().await.unwrap().is_none());
    fixture.clock.advance(SECOND);

    let delivery = queue.lease().await.unwrap().expect("its delay has passed");
    assert_eq!(delivery.payload, sent.payload);
    assert_eq!(delivery.headers, sent.headers);
    assert_eq!(delivery.attempt, 1);
    assert!(queue.lease().await.unwrap().is_none());

    fixture.clock.advance(sent.visibility_timeout_or_default());
    let again = queue.lease().await.unwrap().expect("its lease ran out");
    assert_eq!(again.attempt, 2);
    assert_eq!(queue.ack(&delivery.receipt).await.unwrap(), Lost);
    assert_eq!(queue.ack(&again.receipt).await.unwrap(), Applied);
    assert_eq!(queue.ack(&again.receipt).await.unwrap(), Lost);
    assert_eq!(queue.stats().await.unwrap(), QueueStats::default());
}

async fn a_batch_of_enqueues_has_an_outcome_for_each() {
    let fixture = Fixture::new().await;
    let queue = fixture.queue();
    queue.enqueue(&message("b")).await.unwrap();
    let twice = message("c");
    let batch = [
        message("a"),
        message("b"),
        twice.clone(),
        twice,
        message("d"),
    ];
    let outcomes = queue.enqueue_batch(&batch).await.unwrap();
    assert_eq!(outcomes, [Stored, Duplicate, Stored, Duplicate, Stored]);
    let again = queue.enqueue_batch(&batch).await.unwrap();
    assert_eq!(again, [Duplicate; 5]);
}

async fn a_batch_of_acks_has_an_outcome_for_each() {
    let fixture = Fixture::new().await;
    let queue = fixture.queue();
    queue
        .enqueue_batch(&["a", "b", "c"].map(message))
        .await
        .unwrap();
    let stale = lease(&queue, 1).await.remove(0).receipt;
    fixture.clock.advance(MINUTE);
    let deliveries = lease(&queue, 3).await;
    assert_eq!(ids(&deliveries), ["b", "c", "a"], "in order of ready time");
    let receipts: Vec<Receipt> = deliveries.iter().map(|d| d.receipt.clone()).collect();
    applied(queue.ack(&receipts[0])).await;

    let batch = [
        receipts[0].clone(),
        receipts[1].clone(),
        stale,
        receipts[2].clone(),
        receipts[1].clone(),
        Receipt::new("made up"),
    ];
    let outcomes = queue.ack_batch(&batch).await.unwrap();
    assert_eq!(outcomes, [Lost, Applied, Lost, Applied, Lost, Lost]);
}

async fn changes_of_one_message_in_a_batch_are_made_in_order() {
    let fixture = Fixture::new().await;
    let queue = fixture.queue();
    queue
        .enqueue_batch(&["a", "b", "c", "d"].map(message))
        .await
        .unwrap();
    let deliveries = lease(&queue, 4).await;
    let receipt = |index: usize| deliveries[index].receipt.clone();
    let changes = [
        LeaseChange::extend(receipt(0), MINUTE),
        LeaseChange::nack(receipt(0), SECOND),
        LeaseChange::extend(receipt(0), MINUTE),
        LeaseChange::release(receipt(1)),
        LeaseChange::release(receipt(1)),
        LeaseChange::dead_letter(receipt(2), "poison"),
        LeaseChange::extend(receipt(3), 5 * MINUTE),
        LeaseChange::extend(Receipt::new("made up"), MINUTE),
    ];
    let outcomes = queue.change_batch(&changes).await.unwrap();
    assert_eq!(
        outcomes,
        [
            Applied, Applied, Lost, Applied, Lost, Applied, Applied, Lost
        ]
    );

    let stats = queue.stats().await.unwrap();
    let expected = QueueStats::default()
        .with_ready(1)
        .with_delayed(1)
        .with_leased(1)
        .with_dead(1)
        .with_oldest_ready(Some(Duration::ZERO));
    assert_eq!(stats, expected);
    let released = lease(&queue, 4).await.remove(0);
    assert_eq!((released.id.as_str(), released.attempt), ("b", 1));
    fixture.clock.advance(SECOND);
    let nacked = lease(&queue, 4).await.remove(0);
    assert_eq!((nacked.id.as_str(), nacked.attempt), ("a", 2));
}

async fn an_expired_lease_can_still_be_settled() {
    let fixture = Fixture::new().await;
    let queue = fixture.queue();
    queue.enqueue_batch(&["a", "b"].map(message)).await.unwrap();
    let deliveries = lease(&queue, 2).await;
    fixture.clock.advance(24 * 60 * MINUTE);
    let extended = queue.extend(&deliveries[0].receipt, MINUTE).await.unwrap();
    assert_eq!(extended, Applied);
    assert_eq!(ids(&lease(&queue, 2).await), ["b"]);
    assert_eq!(queue.ack(&deliveries[0].receipt).await.unwrap(), Applied);
    assert_eq!(queue.ack(&deliveries[1].receipt).await.unwrap(), Lost);
}

async fn a_claim_makes_dead_letters_of_the_exhausted_messages_it_finds() {
    let fixture = Fixture::new().await;
    let queue = fixture.queue();
    // Every other message has one attempt only.
    for index in 0..10 {
        let attempts = if index % 2 == 0 { 1 } else { 5 };
        let sent = message(&format!("m{index}")).with_max_attempts(attempts);
        queue.enqueue(&sent).await.unwrap();
        fixture.clock.advance(Duration::from_millis(1));
    }
    assert_eq!(lease(&queue, 10).await.len(), 10);
    fixture.clock.advance(MINUTE);

    assert_eq!(ids(&lease(&queue, 2).await), ["m1", "m3"]);
    assert_eq!(
        queue.stats().await.unwrap().dead,
        2,
        "m0 and m2 were found, m4 was not"
    );
    assert_eq!(ids(&lease(&queue, 9).await), ["m5", "m7", "m9"]);
    let dead = fixture
        .backend
        .dead_letters(&name(), &PageOptions::new(3))
        .await
        .unwrap();
    let page = PageOptions::new(3).with_token(dead.next.clone().unwrap());
    let rest = fixture.backend.dead_letters(&name(), &page).await.unwrap();
    let listed: Vec<&str> = dead
        .iter()
        .chain(&rest)
        .map(|letter| letter.id.as_str())
        .collect();
    assert_eq!(listed, ["m0", "m2", "m4", "m6", "m8"]);
    assert_eq!(dead[0].reason, DeadReason::AttemptsExhausted);
    assert_eq!(dead[0].attempts, 1);
    assert_eq!(dead[0].payload, "payload of m0");
}

async fn a_queue_is_administered() {
    let fixture = Fixture::new().await;
    let (queue, backend) = (fixture.queue(), &fixture.backend);
    let later = message("later").with_delay(MINUTE);
    let batch = [message("poison"), message("taken"), message("now"), later];
    queue.enqueue_batch(&batch).await.unwrap();
    for delivery in lease(&queue, 3).await {
        assert!(
            match delivery.id.as_str() {
                "poison" => queue.dead_letter(&delivery.receipt, "no").await.unwrap(),
                "now" => queue.release(&delivery.receipt).await.unwrap(),
                _ => Applied,
            }
            .is_applied()
        );
    }
    let peeked = backend.peek(&name(), 10).await.unwrap();
    let states: Vec<_> = peeked
        .iter()
        .map(|seen| (seen.id.as_str(), seen.state))
        .collect();
    let expected = [
        ("now", MessageState::Ready),
        ("taken", MessageState::Leased),
        ("later", MessageState::Delayed),
    ];
    assert_eq!(states, expected);
    assert_eq!(backend.list_queues().await.unwrap(), [name()]);

    let some = Redrive::Ids(vec![id("poison"), id("now"), id("unknown")]);
    assert_eq!(backend.redrive(&name(), &some).await.unwrap(), 1);
    assert_eq!(backend.redrive(&name(), &Redrive::All).await.unwrap(), 0);
    let redriven = lease(&queue, 2).await;
    assert_eq!(
        redriven
            .iter()
            .find(|d| d.id == id("poison"))
            .expect("redriven")
            .attempt,
        1
    );
    applied(queue.dead_letter(&redriven[0].receipt, "again")).await;

    assert_eq!(backend.purge(&name(), Purge::Live).await.unwrap(), 3);
    assert_eq!(queue.ack(&redriven[1].receipt).await.unwrap(), Lost);
    assert_eq!(backend.purge(&name(), Purge::Dead).await.unwrap(), 1);
    backend.delete_queue(&name()).await.unwrap();
    backend.delete_queue(&name()).await.unwrap();
    assert_eq!(backend.list_queues().await.unwrap(), []);
}

async fn wait_returns_for_what_becomes_ready() {
    let fixture = Fixture::new().await;
    let queue = fixture.queue();
    // Nothing is there: an enqueue of this instance ends the wait.
    let sent = message("a");
    let (waited, stored) = tokio::join!(queue.wait(60 * MINUTE), queue.enqueue(&sent));
    waited.unwrap();
    assert_eq!(stored.unwrap(), Stored);
    // A message is ready.
    queue.wait(60 * MINUTE).await.unwrap();
    // A message becomes ready.
    let delivery = queue.lease().await.unwrap().expect("enqueued");
    let move_time = async {
        tokio::task::yield_now().await;
        fixture.clock.advance(MINUTE);
    };
    let (waited, ()) = tokio::join!(queue.wait(60 * MINUTE), move_time);
    waited.unwrap();
    assert_eq!(queue.ack(&delivery.receipt).await.unwrap(), Applied);
    // Nothing comes, and the time passes.
    let (waited, ()) = tokio::join!(queue.wait(MINUTE), async {
        tokio::task::yield_now().await;
        fixture.clock.advance(MINUTE);
    });
    waited.unwrap();
}
