//! Queue names of the greatest length, by the room that the database and the prefix leave.

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering},
};

use mongodb::event::command::CommandEvent;
use mongodb_test_server::documentdb::Engines;
use queue_api::{ErrorKind, Queue, QueueAdmin, QueueName};

use crate::{
    fixture::{Fixture, TRANSACTIONAL, applied, lease, message},
    foreign::{CALLS, receipt_of_another_queue},
};

tests! {
    on_one_thread:
        the_longest_name_works_and_a_longer_one_is_refused_before_anything_is_sent
}

async fn the_longest_name_works_and_a_longer_one_is_refused_before_anything_is_sent() {
    let fixture = Fixture::for_engines(Engines::of(TRANSACTIONAL)).await;
    let receipt = receipt_of_another_queue(&fixture).await;
    let room = 120 - fixture.database.name().len() - 1;
    let mut complaints = Vec::new();
    for most in [QueueName::MAX_BYTES, QueueName::MAX_BYTES - 1, 40, 1] {
        let sent = Arc::new(AtomicUsize::new(0));
        let count = sent.clone();
        let watched = fixture.watched(move |event| {
            if matches!(event, CommandEvent::Started(_)) {
                count.fetch_add(1, Ordering::Relaxed);
            }
        });
        let prefix = "p".repeat(room - most);
        let backend = watched.collection_prefix(&prefix).connect().await.unwrap();
        let queue = Queue::new(Arc::new(backend.clone()), "q".repeat(most)).unwrap();
        queue.enqueue(&message("a")).await.unwrap();
        let delivery = lease(&queue, 1).await.remove(0);
        assert_eq!(backend.list_queues().await.unwrap(), [queue.name().clone()]);
        applied(queue.ack(&delivery.receipt)).await;
        backend.delete_queue(queue.name()).await.unwrap();

        let Ok(longer) = QueueName::new(&"q".repeat(most + 1)) else {
            continue;
        };
        let before = sent.load(Ordering::Relaxed);
        let hint = format!(
            "the queue name `{longer}` has {} bytes; with this database and the \
             collection_prefix {prefix:?} it may have at most {most}",
            most + 1
        );
        for call in CALLS {
            match call.make_on(&longer, &backend, &receipt).await {
                Err(error)
                    if error.kind() == ErrorKind::InvalidInput
                        && error.to_string().ends_with(&hint) => {}
                other => complaints.push(format!("{most}, {call:?}: {other:?}")),
            }
        }
        assert_eq!(sent.load(Ordering::Relaxed), before, "a command was sent");
    }
    assert!(complaints.is_empty(), "{}", complaints.join("\n"));
}
