//! Round trips that are shared: how many there are, and that nobody notices.

mod backend;
mod dropped;
mod errors;
mod rounds;
mod sharing;

use queue_api::{MessageId, NewMessage, Queue};

/// A message with its id as payload.
fn msg(id: &str) -> NewMessage {
    NewMessage::new(id.to_owned()).with_id(MessageId::new(id).expect("a valid id"))
}

/// Stores so many messages, named m000 and on.
async fn store(queue: &Queue, messages: usize) {
    let messages: Vec<_> = (0..messages).map(|n| msg(&format!("m{n:03}"))).collect();
    queue.enqueue_batch(&messages).await.expect("stored");
}

/// Lets every other task come as far as it can: on a runtime of one thread each is polled once
/// between two polls of this one.
async fn others_run() {
    for _ in 0..20 {
        tokio::task::yield_now().await;
    }
}
