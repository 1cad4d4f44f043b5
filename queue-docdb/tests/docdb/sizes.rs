//! The largest batches, and empty ones.

use std::{collections::BTreeMap, time::Duration};

use mongodb_test_server::documentdb::Engines;
use queue_api::{
    LeaseChange, LeaseOptions, LeaseOutcome::Applied, NewMessage, PageOptions, Purge, QueueAdmin,
    QueueBackend, QueueTransaction, Redrive,
};

use crate::fixture::{Fixture, TRANSACTIONAL, applied, lease, message, name};

tests! {
    on_one_thread:
        every_call_takes_a_full_batch_of_long_ids,
        every_call_takes_any_number_of_messages,
        every_call_takes_entries_with_the_longest_reasons
}

async fn every_call_takes_a_full_batch_of_long_ids() {
    let fixture = Fixture::new().await;
    let queue = fixture.queue();
    let messages: Vec<NewMessage> = (0..1000)
        .map(|index| {
            let id = format!("{index:0>128}");
            NewMessage::new("").with_id(queue_api::MessageId::new(&id).unwrap())
        })
        .collect();
    queue.enqueue_batch(&messages).await.unwrap();
    let receipts: Vec<_> = lease(&queue, 1000)
        .await
        .into_iter()
        .map(|d| d.receipt)
        .collect();
    assert_eq!(receipts.len(), 1000);
    let reason = "r".repeat(queue_api::MAX_REASON_BYTES);
    let changes: Vec<_> = receipts[..500]
        .iter()
        .map(|receipt| queue_api::LeaseChange::dead_letter(receipt.clone(), reason.as_str()))
        .collect();
    let outcomes = queue.change_batch(&changes).await.unwrap();
    assert!(
        outcomes
            .iter()
            .all(|outcome| *outcome == queue_api::LeaseOutcome::Applied)
    );
    queue.ack_batch(&receipts).await.unwrap();
    let stats = queue.stats().await.unwrap();
    assert_eq!((stats.dead, stats.leased), (500, 0));
}

async fn every_call_takes_any_number_of_messages() {
    let fixture = Fixture::new().await;
    let (queue, backend) = (fixture.queue(), &fixture.backend);
    queue.enqueue_batch(&["a", "b"].map(message)).await.unwrap();
    let all = LeaseOptions::new(usize::MAX);
    assert_eq!(backend.peek(&name(), usize::MAX).await.unwrap().len(), 2);
    // Without the handle, which would split the call.
    let deliveries = backend.lease(&name(), &all).await.unwrap();
    assert_eq!(deliveries.len(), 2);
    applied(queue.dead_letter(&deliveries[0].receipt, "no")).await;
    let page = PageOptions::new(usize::MAX);
    assert_eq!(backend.dead_letters(&name(), &page).await.unwrap().len(), 1);
    assert_eq!(backend.messages(&name(), &page).await.unwrap().len(), 1);
    assert_eq!(
        backend.lease(&name(), &LeaseOptions::new(0)).await.unwrap(),
        []
    );
    assert_eq!(backend.peek(&name(), 0).await.unwrap(), []);
    let none = PageOptions::new(0);
    assert_eq!(backend.messages(&name(), &none).await.unwrap().len(), 0);
    assert_eq!(backend.enqueue(&name(), &[]).await.unwrap(), []);
    assert_eq!(backend.ack(&name(), &[]).await.unwrap(), []);
    assert_eq!(backend.change(&name(), &[]).await.unwrap(), []);
}

/// An update writes all reasons of an entry. Those of a thousand entries do not fit into one command.
async fn every_call_takes_entries_with_the_longest_reasons() {
    const ENTRIES: usize = 300;
    const SIZE: usize = 16;
    let fixture = Fixture::for_engines(Engines::of(TRANSACTIONAL)).await;
    let (queue, backend) = (fixture.queue(), &fixture.backend);
    let id = |number: usize| format!("{number:04}");
    let messages: Vec<_> = (0..ENTRIES * SIZE).map(|it| message(&id(it))).collect();
    for entries in messages.chunks(50 * SIZE) {
        queue.enqueue_batch(entries).await.unwrap();
    }
    let mut receipts = BTreeMap::new();
    while receipts.len() < messages.len() {
        let leased = lease(&queue, 1000).await;
        receipts.extend(leased.into_iter().map(|it| (it.id.to_string(), it.receipt)));
    }
    // Those of one message of each entry.
    let receipts_of = |message: usize| {
        let of_entry = |entry: usize| receipts[&id(entry * SIZE + message)].clone();
        (0..ENTRIES).map(of_entry).collect::<Vec<_>>()
    };
    let reason = "r".repeat(queue_api::MAX_REASON_BYTES);
    for message in 1..SIZE {
        // Each death is a part of its own.
        fixture.clock.advance(Duration::from_millis(1));
        let receipts = receipts_of(message).into_iter();
        let changes = receipts.map(|it| LeaseChange::dead_letter(it, reason.as_str()));
        let outcomes = queue.change_batch(&changes.collect::<Vec<_>>()).await;
        assert_eq!(outcomes.unwrap(), [Applied; ENTRIES], "{message}");
    }
    let alive = receipts_of(0);
    let mut session = backend.start_session().await.unwrap();
    session.start_transaction().await.unwrap();
    let mut transaction = backend.in_transaction(&mut session);
    let acked = transaction.ack(&name(), &alive).await.unwrap();
    assert_eq!(acked, [Applied; ENTRIES]);
    session.abort_transaction().await.unwrap();
    let released = alive.into_iter().map(LeaseChange::release);
    let outcomes = queue.change_batch(&released.collect::<Vec<_>>()).await;
    assert_eq!(outcomes.unwrap(), [Applied; ENTRIES]);
    let again = lease(&queue, 1000).await;
    assert_eq!(again.len(), ENTRIES);
    let again: Vec<_> = again.into_iter().map(|it| it.receipt).collect();
    let acked = queue.ack_batch(&again).await;
    assert_eq!(acked.unwrap(), [Applied; ENTRIES]);

    let second = (0..ENTRIES).map(|entry| messages[entry * SIZE + 1].id.clone());
    let second = Redrive::Ids(second.collect());
    let redriven = backend.redrive(&name(), &second).await;
    assert_eq!(redriven.unwrap(), ENTRIES as u64);
    let purged = backend.purge(&name(), Purge::Live).await;
    assert_eq!(purged.unwrap(), ENTRIES as u64);
    let left = (ENTRIES * (SIZE - 2)) as u64;
    assert_eq!(queue.stats().await.unwrap().dead, left);
    let redriven = backend.redrive(&name(), &Redrive::All).await;
    assert_eq!(redriven.unwrap(), left);
}
