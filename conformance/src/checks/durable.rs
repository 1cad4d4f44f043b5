//! R1: what a connection leaves behind for the next.

use std::time::Duration;

use queue_api::LeaseOutcome::{Applied, Lost};

use crate::bed::{Bed, dead_letter, extend, ids, msg};

pub(super) async fn a_new_connection_finds_everything(bed: Bed) {
    let ready = msg("ready").with_header("k", "v").with_max_attempts(7);
    bed.store(&[msg("leased"), msg("dead")]).await;
    for delivery in bed.lease(2).await {
        if delivery.id.as_str() == "dead" {
            bed.change(&delivery.receipt, dead_letter("no")).await;
        }
    }
    bed.store(&[
        msg("delayed").with_delay(Duration::from_secs(60)),
        ready.clone(),
    ])
    .await;

    // Nothing more is asked of the first connection: what it kept to itself goes with it.
    let bed = {
        let next = bed.reconnect().await;
        drop(bed);
        next
    };
    let stats = bed.stats().await;
    let counts = (stats.ready, stats.delayed, stats.leased, stats.dead);
    assert_eq!(counts, (1, 1, 1, 1));
    let delivery = bed.lease_one().await;
    assert_eq!(
        (&delivery.id, &delivery.payload),
        (&ready.id, &ready.payload)
    );
    assert_eq!(delivery.headers, ready.headers);
    bed.ack(&delivery.receipt).await;
    bed.pass(10_000).await;
    let leased = bed.lease(10).await;
    assert_eq!((ids(&leased), leased[0].attempt), (vec!["leased"], 2));
    bed.pass(50_000).await;
    assert!(ids(&bed.lease(10).await).contains(&"delayed"));
}

pub(super) async fn a_receipt_outlives_its_connection(bed: Bed) {
    bed.store(&[msg("a"), msg("b")]).await;
    let deliveries = bed.lease(2).await;
    let (first, second) = (&deliveries[0].receipt, &deliveries[1].receipt);
    let bed = bed.reconnect().await;
    assert_eq!(bed.change(first, extend(20_000)).await, Applied);
    let bed = bed.reconnect().await;
    assert_eq!(bed.ack(second).await, Applied);
    bed.pass(10_000).await;
    bed.expect_none_ready("the lease was extended on another connection")
        .await;
    assert_eq!(bed.reconnect().await.ack(first).await, Applied);
    assert_eq!(bed.ack(first).await, Lost);
}

pub(super) async fn two_connections_share_leases(bed: Bed) {
    let other = bed.reconnect().await;
    bed.store(&[msg("a"), msg("b")]).await;
    let here = bed.lease_one().await;
    let there = other.lease_one().await;
    assert_ne!(here.id, there.id);
    other.expect_none_ready("both are leased").await;
    bed.pass(10_000).await;
    // On a third connection: one that counts its receipts by itself repeats those of the first.
    let again = bed.reconnect().await.lease(2).await;
    assert_eq!(again.len(), 2);
    assert!(
        again.iter().all(|delivery| delivery.attempt == 2),
        "each had been leased once: {again:?}"
    );
    assert_eq!(
        bed.ack_all(&[here.receipt, there.receipt]).await,
        [Lost, Lost]
    );
}
