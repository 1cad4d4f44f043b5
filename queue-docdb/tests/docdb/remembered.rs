//! An instance goes on with entries as it remembers them. What others do meanwhile counts.

use std::time::Duration;

use mongodb_test_server::documentdb::Engines;
use queue_api::{LeaseOutcome, LeaseOutcome::Lost, Purge, QueueAdmin, QueueTransaction};

use crate::{
    fixture::{
        Fixture, MINUTE, SECOND, TRANSACTIONAL, applied, ids, lease, message, name, queue_of,
    },
    round_trips::Sent,
};

tests! {
    on_one_thread:
        claims_that_follow_on_each_other_need_no_find,
        a_settlement_does_not_undo_what_another_instance_did_to_the_entry,
        the_receipts_of_expired_leases_are_lost_although_they_are_remembered,
        messages_that_transactions_ack_come_in_order,
        purged_messages_are_not_delivered_although_they_are_remembered,
        batches_and_single_calls_deliver_everything_between_them
}

async fn claims_that_follow_on_each_other_need_no_find() {
    let fixture = Fixture::new().await;
    let (sent, queue) = Sent::by_another(&fixture).await;
    let messages: Vec<_> = (0..200).map(|n| message(&format!("m{n:03}"))).collect();
    queue.enqueue_batch(&messages).await.unwrap();
    let mut without_find = 0;
    // A look counts for a moment only, so on a slow machine most need one.
    for message in &messages {
        sent.take();
        let one = queue.lease().await.unwrap().expect("one is ready");
        assert_eq!(Some(&one.id), Some(&message.id), "in order");
        without_find += usize::from(sent.names() == ["update"]);
        applied(queue.ack(&one.receipt)).await;
        let names = sent.names();
        // The last of an entry deletes it.
        assert!(names == ["update"] || names == ["delete"], "{names:?}");
    }
    assert!(without_find > 0, "each claim sent a find");
    assert!(lease(&queue, 9).await.is_empty());
}

async fn a_settlement_does_not_undo_what_another_instance_did_to_the_entry() {
    let fixture = Fixture::new().await;
    let mine = fixture.queue();
    let other = fixture.another_backend(fixture.clock.clone()).await;
    let others = queue_of(&other);
    let messages: Vec<_> = ["a", "b", "c", "d"].map(message).into();
    mine.enqueue_batch(&messages).await.unwrap();
    let a = lease(&mine, 1).await.remove(0);
    let b = lease(&others, 1).await.remove(0);
    applied(mine.ack(&a.receipt)).await;
    let c = lease(&mine, 1).await.remove(0);
    assert_eq!([&a.id, &b.id, &c.id].map(|id| id.as_str()), ["a", "b", "c"]);
    applied(others.nack(&b.receipt, Duration::ZERO)).await;
    applied(mine.nack(&c.receipt, MINUTE)).await;
    assert_eq!(ids(&lease(&mine, 9).await), ["d", "b"]);
    fixture.clock.advance(2 * MINUTE);
    assert_eq!(mine.stats().await.unwrap().ready, 3);
}

async fn the_receipts_of_expired_leases_are_lost_although_they_are_remembered() {
    let fixture = Fixture::new().await;
    let mine = fixture.queue();
    let other = fixture.another_backend(fixture.clock.clone()).await;
    let others = queue_of(&other);
    let brief = ["a", "b", "c", "d"].map(|id| message(id).with_visibility_timeout(SECOND));
    mine.enqueue_batch(&brief).await.unwrap();
    let held = lease(&mine, 3).await;
    fixture.clock.advance(2 * SECOND);
    let theirs = lease(&others, 2).await;
    applied(others.ack(&theirs[0].receipt)).await;
    // "d" is the first: it has been ready all the time.
    assert_eq!(ids(&theirs), ["d", "a"]);
    let outcome = async |receipt| mine.ack(receipt).await.unwrap();
    assert_eq!(
        outcome(&held[0].receipt).await,
        Lost,
        "it is leased to another"
    );
    assert_eq!(
        outcome(&held[1].receipt).await,
        LeaseOutcome::Applied,
        "nobody has it"
    );
    assert_eq!(mine.nack(&held[1].receipt, SECOND).await.unwrap(), Lost);
    applied(others.ack(&theirs[1].receipt)).await;
    applied(mine.ack(&held[2].receipt)).await;
    assert_eq!(outcome(&held[2].receipt).await, Lost);
    fixture.clock.advance(MINUTE);
    assert!(lease(&mine, 9).await.is_empty());
}

/// A transaction writes the entry that the instance remembers. That is no other consumer, which claims
/// would evade.
async fn messages_that_transactions_ack_come_in_order() {
    let fixture = Fixture::for_engines(Engines::of(TRANSACTIONAL)).await;
    let queue = fixture.queue();
    let messages: Vec<_> = (0..60).map(|n| message(&format!("m{n:02}"))).collect();
    queue.enqueue_batch(&messages).await.unwrap();
    let mut session = fixture.backend.start_session().await.unwrap();
    for message in &messages {
        let one = queue.lease().await.unwrap().expect("one is ready");
        assert_eq!(Some(&one.id), Some(&message.id));
        session.start_transaction().await.unwrap();
        let mut transaction = fixture.backend.in_transaction(&mut session);
        let acked = transaction.ack(&name(), &[one.receipt]).await.unwrap();
        assert_eq!(acked, [LeaseOutcome::Applied]);
        session.commit_transaction().await.unwrap();
    }
    assert!(lease(&queue, 9).await.is_empty());
}

async fn purged_messages_are_not_delivered_although_they_are_remembered() {
    let fixture = Fixture::new().await;
    let queue = fixture.queue();
    let other = fixture.another_backend(fixture.clock.clone()).await;
    for round in 0..5 {
        let messages: Vec<_> = (0..40).map(|n| message(&format!("{round} {n}"))).collect();
        queue.enqueue_batch(&messages).await.unwrap();
        let held = lease(&queue, 20).await;
        assert_eq!(other.purge(&name(), Purge::Live).await.unwrap(), 40);
        queue.enqueue(&message("new")).await.unwrap();
        assert_eq!(ids(&lease(&queue, 5).await), ["new"], "{round}");
        for held in held {
            assert_eq!(queue.ack(&held.receipt).await.unwrap(), Lost);
        }
        assert_eq!(other.purge(&name(), Purge::Live).await.unwrap(), 1);
    }
}

/// A batch that takes a part of an entry looks it up without its messages. A claim that goes on with
/// the rest must have them.
async fn batches_and_single_calls_deliver_everything_between_them() {
    let fixture = Fixture::new().await;
    let queue = fixture.queue();
    let mut left = 3000;
    for start in (0..left).step_by(500) {
        let batch: Vec<_> = (start..start + 500)
            .map(|n| message(&format!("m{n}")))
            .collect();
        queue.enqueue_batch(&batch).await.unwrap();
    }
    for wanted in [400, 1, 7, 100, 30, 333, 2, 60].into_iter().cycle() {
        let leased = lease(&queue, wanted).await;
        assert_eq!(leased.len(), wanted.min(left));
        let receipts: Vec<_> = leased.into_iter().map(|it| it.receipt).collect();
        let (some, others) = receipts.split_at(receipts.len() / 3);
        for receipts in [some, others] {
            let outcomes = queue.ack_batch(receipts).await.unwrap();
            assert!(outcomes.iter().all(|outcome| outcome.is_applied()));
        }
        left -= receipts.len();
        if left == 0 {
            break;
        }
    }
    assert!(lease(&queue, 9).await.is_empty());
}
