//! Time: the server's by default.

use std::time::{Duration, SystemTime};

use mongodb::bson::doc;
use mongodb_test_server::{
    MongoServer,
    documentdb::{Engines, Gate},
};

use crate::fixture::{builder, message, queue_of};

#[tokio::test]
async fn the_default_time_is_the_servers() {
    let server = MongoServer::shared().await.unwrap();
    let database = server.scratch_database();
    let gate = Gate::new(Engines::ALL);
    let backend = builder(server.uri(), &gate)
        .database(database.name())
        .connect()
        .await
        .unwrap();
    let client = mongodb::Client::with_uri_str(server.uri()).await.unwrap();
    let server_time = async || -> SystemTime {
        let hello = client
            .database("admin")
            .run_command(doc! { "hello": 1 })
            .await
            .unwrap();
        hello.get_datetime("localTime").unwrap().to_system_time()
    };
    let queue = queue_of(&backend);
    let before = server_time().await;
    queue.enqueue(&message("a")).await.unwrap();
    let delivery = queue.lease().await.unwrap().expect("ready at once");
    let after = server_time().await;
    // Half of the round trip that was measured, and the millisecond that is cut.
    let slack = Duration::from_millis(20);
    assert!(
        before - slack <= delivery.enqueued_at,
        "{before:?} {delivery:?}"
    );
    assert!(
        delivery.enqueued_at <= after + slack,
        "{after:?} {delivery:?}"
    );
}
