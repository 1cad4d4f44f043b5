//! R1: a new connection continues where another stopped.

use std::time::Duration;

use queue_api::LeaseOutcome::{Applied, Lost};

use crate::fixture::{Fixture, dead_letter, extend, ids, msg};

pub(super) async fn a_new_connection_sees_everything(fixture: Fixture) {
    let ready = msg("ready").with_header("k", "v").with_max_attempts(7);
    fixture.store(&[msg("leased"), msg("dead")]).await;
    for delivery in fixture.lease(2).await {
        if delivery.id.as_str() == "dead" {
            assert!(
                fixture
                    .change(&delivery.receipt, dead_letter("no"))
                    .await
                    .is_applied()
            );
        }
    }
    fixture
        .store(&[
            msg("delayed").with_delay(Duration::from_secs(60)),
            ready.clone(),
        ])
        .await;

    // Dropped: what only the first connection knew is gone.
    let fixture = {
        let next = fixture.reconnect().await;
        drop(fixture);
        next
    };
    let stats = fixture.stats().await;
    let counts = (stats.ready, stats.delayed, stats.leased, stats.dead);
    assert_eq!(counts, (1, 1, 1, 1));
    let delivery = fixture.lease_one().await;
    assert_eq!(
        (&delivery.id, &delivery.payload),
        (&ready.id, &ready.payload)
    );
    assert_eq!(delivery.headers, ready.headers);
    assert!(fixture.ack(&delivery.receipt).await.is_applied());
    fixture.pass(10_000).await;
    let leased = fixture.lease(10).await;
    assert_eq!((ids(&leased), leased[0].attempt), (vec!["leased"], 2));
    fixture.pass(50_000).await;
    assert!(ids(&fixture.lease(10).await).contains(&"delayed"));
}

pub(super) async fn a_receipt_outlives_its_connection(fixture: Fixture) {
    fixture.store(&[msg("a"), msg("b")]).await;
    let deliveries = fixture.lease(2).await;
    let (first, second) = (&deliveries[0].receipt, &deliveries[1].receipt);
    let fixture = fixture.reconnect().await;
    assert_eq!(fixture.change(first, extend(20_000)).await, Applied);
    let fixture = fixture.reconnect().await;
    assert_eq!(fixture.ack(second).await, Applied);
    fixture.pass(10_000).await;
    fixture
        .expect_none_ready("the lease was extended on another connection")
        .await;
    assert_eq!(fixture.reconnect().await.ack(first).await, Applied);
    assert_eq!(fixture.ack(first).await, Lost);
}

pub(super) async fn two_connections_share_leases(fixture: Fixture) {
    let other = fixture.reconnect().await;
    fixture.store(&[msg("a"), msg("b")]).await;
    let here = fixture.lease_one().await;
    let there = other.lease_one().await;
    assert_ne!(here.id, there.id);
    other.expect_none_ready("both are leased").await;
    fixture.pass(10_000).await;
    // A third connection: if it counted receipts by itself, it would repeat those of the first.
    let again = fixture.reconnect().await.lease(2).await;
    assert_eq!(again.len(), 2);
    assert!(
        again.iter().all(|delivery| delivery.attempt == 2),
        "each was leased once before: {again:?}"
    );
    assert_eq!(
        fixture.ack_all(&[here.receipt, there.receipt]).await,
        [Lost, Lost]
    );
}
