//! L4: a message that comes in late, with an earlier ready time, is passed over for 200 ms at most.

use std::time::Duration;

use mongodb::bson::{DateTime, doc};
use queue_docdb::DocDbBackend;

use crate::{
    failing_server::FailingServer,
    fixture::{SECOND, applied, message, queue_of},
};

tests! {
    on_threads:
        the_time_counts_from_the_beginning_of_a_look
}

/// The find is held after it was carried out, so a message can come in before its answer.
///
/// Sleeps because the time is real.
#[allow(clippy::disallowed_methods)]
async fn the_time_counts_from_the_beginning_of_a_look() {
    let server = FailingServer::new().await;
    let backend = DocDbBackend::builder(server.mongod.uri())
        .database("shop")
        .without_change_stream()
        .connect();
    let queue = queue_of(&backend.await.unwrap());
    for n in 0..4 {
        queue.enqueue(&message(&format!("m{n}"))).await.unwrap();
    }
    // The look at the queue's contents is made once a minute, and is not what is held.
    let one = queue.lease().await.unwrap().expect("ready");
    applied(queue.ack(&one.receipt)).await;
    // The next claim starts at the beginning.
    tokio::time::sleep(SECOND).await;

    let fail_point = "waitAfterCommandFinishesExecution";
    let data = doc! { "ns": "shop.queue.mail", "commands": ["find"] };
    let on = doc! { "configureFailPoint": fail_point, "mode": "alwaysOn", "data": data };
    server.admin.run_command(on).await.unwrap();
    let leasing = tokio::spawn({
        let queue = queue.clone();
        async move { queue.lease().await }
    });
    let wait = doc! {
        "waitForFailPoint": fail_point, "timesEntered": 1, "maxTimeMS": 10_000,
    };
    server.admin.run_command(wait).await.unwrap();
    let messages = server
        .admin
        .client()
        .database("shop")
        .collection::<mongodb::bson::Document>("queue.mail");
    let early = DateTime::from_millis(DateTime::now().timestamp_millis() - 60_000);
    let set = doc! { "$set": { "visible_at": early } };
    let late = messages.update_one(doc! { "ids": "m3" }, set).await;
    assert_eq!(late.unwrap().matched_count, 1);
    tokio::time::sleep(Duration::from_millis(250)).await;
    let off = doc! { "configureFailPoint": fail_point, "mode": "off" };
    server.admin.run_command(off).await.unwrap();
    let first = leasing.await.unwrap().unwrap().expect("ready");
    assert_eq!(first.id.as_str(), "m1", "it was the first by then");

    let next = queue.lease().await.unwrap().expect("ready");
    assert_eq!(next.id.as_str(), "m3", "it came in 250 ms ago");
    server.mongod.stop().await.unwrap();
}
