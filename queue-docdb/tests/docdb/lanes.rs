//! Lanes: an instance that competes takes messages of one; alone, it takes all in order.

use std::{
    sync::{Arc, Mutex},
    time::Duration,
};

use mongodb::{
    bson::{Document, doc},
    event::command::CommandEvent,
};
use tokio::time::Instant;

use crate::{
    fixture::{Fixture, ids, lease, message, queue_of},
    pause::Pause,
};

tests! {
    on_one_thread:
        messages_of_one_millisecond_are_in_the_order_of_their_enqueues,
        a_claim_in_a_lane_reads_the_documents_that_it_takes;
    on_threads:
        a_claim_after_a_loss_is_in_a_lane_and_misses_no_message
}

/// The filters of a backend's finds, and a stop after one of them.
#[derive(Clone, Default)]
struct Finds {
    filters: Arc<Mutex<Vec<Document>>>,
    pause: Pause,
}

impl Finds {
    fn see(&self, event: &CommandEvent) {
        match event {
            CommandEvent::Started(started) if started.command_name == "find" => {
                let filter = started.command.get_document("filter").expect("a filter");
                self.filters.lock().unwrap().push(filter.clone());
            }
            CommandEvent::Succeeded(found) if found.command_name == "find" => self.pause.stop(),
            _ => {}
        }
    }

    /// How many finds were in one lane.
    fn of_one_lane(&self) -> usize {
        let filters = self.filters.lock().unwrap();
        let lanes = filters.iter().filter(|filter| filter.contains_key("turn"));
        lanes.count()
    }
}

async fn a_claim_after_a_loss_is_in_a_lane_and_misses_no_message() {
    let fixture = Fixture::new().await;
    let other = fixture.queue();
    let messages: Vec<_> = (0..64).map(|n| message(&format!("m{n}"))).collect();
    other.enqueue_batch(&messages).await.unwrap();

    let finds = Finds::default();
    let seen = finds.clone();
    let watched = fixture.watched(move |event| seen.see(event));
    let loser = queue_of(&watched.connect().await.unwrap());
    // It knows the queue, so its next find is that of a claim.
    assert_eq!(loser.stats().await.unwrap().ready, 64);
    let mut stopped = finds.pause.next();
    let losing = tokio::spawn({
        let loser = loser.clone();
        async move { lease(&loser, 50).await }
    });
    stopped.reached().await;
    let taken = lease(&other, 40).await;
    let in_order: Vec<String> = (0..40).map(|n| format!("m{n}")).collect();
    assert_eq!(ids(&taken), in_order, "it was alone");
    stopped.resume();
    assert_eq!(losing.await.unwrap().len(), 10, "the rest of what it found");
    assert_eq!(finds.of_one_lane(), 0);

    let lost = Instant::now();
    assert_eq!(lease(&loser, 1).await.len(), 1);
    // On a slow machine, the instance is out of the lanes already.
    let was_slow = lost.elapsed() > Duration::from_millis(200);
    assert!(finds.of_one_lane() == 1 || was_slow);
    // A lane has fewer messages, so the claim looks at the others too.
    assert_eq!(lease(&loser, 100).await.len(), 13);
    // It lost nothing, so it is out of the lanes.
    let before = finds.of_one_lane();
    assert!(lease(&loser, 1).await.is_empty());
    assert_eq!(finds.of_one_lane(), before);
}

async fn messages_of_one_millisecond_are_in_the_order_of_their_enqueues() {
    let fixture = Fixture::new().await;
    let queue = fixture.queue();
    for batch in 0..4 {
        let messages: Vec<_> = (0..5).map(|n| message(&format!("{batch}-{n}"))).collect();
        queue.enqueue_batch(&messages).await.unwrap();
    }
    let sent: Vec<String> = (0..20).map(|n| format!("{}-{}", n / 5, n % 5)).collect();
    assert_eq!(ids(&lease(&queue, 20).await), sent);
}

/// It skips the keys of the other lanes, and does not read their documents.
async fn a_claim_in_a_lane_reads_the_documents_that_it_takes() {
    let fixture = Fixture::new().await;
    let messages: Vec<_> = (0..800).map(|n| message(&format!("m{n}"))).collect();
    fixture.queue().enqueue_batch(&messages).await.unwrap();
    for turn in [0, 7, 15] {
        let find = doc! {
            "find": "queue.mail",
            "filter": {
                "visible_at": { "$lte": mongodb::bson::DateTime::MAX },
                "turn": { "$mod": [16, turn] },
            },
            "sort": { "visible_at": 1, "turn": 1 },
            "hint": { "visible_at": 1, "turn": 1 },
            "limit": 20,
        };
        let explain = doc! { "explain": find, "verbosity": "executionStats" };
        let plan = fixture.raw.run_command(explain).await.unwrap();
        let stats = plan.get_document("executionStats").unwrap();
        assert_eq!(stats.get_i32("nReturned").unwrap(), 20);
        assert_eq!(stats.get_i32("totalDocsExamined").unwrap(), 20, "{plan}");
        assert!(stats.get_i32("totalKeysExamined").unwrap() <= 320, "{plan}");
    }
}
