//! A1 to A5: acks and changes.

use std::time::Duration;

use queue_api::{
    LeaseAction, LeaseChange,
    LeaseOutcome::{Applied, Lost},
    Receipt,
};

use crate::fixture::{Fixture, dead_letter, extend, ids, msg, nack, receipts, sorted_ids};

/// Every action.
fn every_action() -> [LeaseAction; 4] {
    [
        extend(60_000),
        nack(0),
        LeaseAction::Release,
        dead_letter("no"),
    ]
}

fn change(receipt: &Receipt, action: LeaseAction) -> LeaseChange {
    LeaseChange {
        receipt: receipt.clone(),
        action,
    }
}

pub(super) async fn an_acked_message_is_gone(fixture: Fixture) {
    fixture.store(&[msg("m")]).await;
    let delivery = fixture.lease_one().await;
    assert_eq!(fixture.ack(&delivery.receipt).await, Applied);
    for _ in 0..3 {
        fixture.expect_none_ready("the message was acked").await;
        fixture.pass(10_000).await;
    }
    assert_eq!(fixture.stats().await, queue_api::QueueStats::default());
}

pub(super) async fn a_batch_of_acks_ends_exactly_its_messages(fixture: Fixture) {
    fixture
        .store(&[msg("a"), msg("b"), msg("c"), msg("d")])
        .await;
    let mut deliveries = fixture.lease(10).await;
    deliveries.sort_by(|a, b| a.id.cmp(&b.id));
    let receipts = [deliveries[3].receipt.clone(), deliveries[1].receipt.clone()];
    assert_eq!(fixture.ack_all(&receipts).await, [Applied, Applied]);
    assert_eq!(fixture.stats().await.leased, 2);
    fixture.pass(10_000).await;
    assert_eq!(sorted_ids(&fixture.lease(10).await), ["a", "c"]);
}

pub(super) async fn a_superseded_receipt_acks_nothing(fixture: Fixture) {
    fixture.store(&[msg("m")]).await;
    let first = fixture.lease_one().await;
    fixture.pass(10_000).await;
    let second = fixture.lease_one().await;
    assert_eq!(fixture.ack(&first.receipt).await, Lost);
    assert_eq!(fixture.stats().await.leased, 1);
    assert_eq!(fixture.ack(&second.receipt).await, Applied);
}

pub(super) async fn a_superseded_receipt_changes_nothing(fixture: Fixture) {
    fixture.store(&[msg("m")]).await;
    let first = fixture.lease_one().await;
    fixture.pass(10_000).await;
    let second = fixture.lease_one().await;
    let before = fixture.stats().await;
    for action in every_action() {
        let outcome = fixture.change(&first.receipt, action.clone()).await;
        assert_eq!(outcome, Lost, "{action:?} by a superseded receipt");
        assert_eq!(
            fixture.stats().await,
            before,
            "{action:?} by a superseded receipt"
        );
    }
    fixture.pass(9_999).await;
    fixture
        .expect_none_ready("the second lease still runs")
        .await;
    fixture.pass(1).await;
    assert_eq!(fixture.lease_one().await.attempt, second.attempt + 1);
}

/// A receipt made of message and attempt would repeat after a release.
pub(super) async fn a_receipt_is_not_repeated(fixture: Fixture) {
    fixture.store(&[msg("m")]).await;
    let mut old = fixture.lease_one().await.receipt;
    for redelivery in [Some(LeaseAction::Release), Some(nack(0)), None] {
        match redelivery {
            Some(action) => drop(fixture.change(&old, action).await),
            None => {
                assert!(fixture.ack(&old).await.is_applied());
                fixture.store(&[msg("m")]).await;
            }
        }
        let new = fixture.lease_one().await.receipt;
        assert_eq!(fixture.change(&old, nack(0)).await, Lost);
        assert_eq!(fixture.ack(&old).await, Lost);
        assert_eq!(fixture.change(&new, extend(10_000)).await, Applied);
        old = new;
    }
}

pub(super) async fn a_made_up_receipt_is_lost(fixture: Fixture) {
    fixture.store(&[msg("m")]).await;
    let delivery = fixture.lease_one().await;
    let real = delivery.receipt.as_str();
    let made_up = [
        String::new(),
        "m".to_owned(),
        "nonsense".to_owned(),
        format!("{real}0"),
        format!("0{real}"),
        format!("-{real}"),
        real.chars().rev().collect(),
        "f".repeat(300),
        "\u{1f980}.-:%zz".to_owned(),
    ];
    for text in made_up {
        let receipt = Receipt::new(text);
        if receipt == delivery.receipt {
            continue;
        }
        assert_eq!(fixture.ack(&receipt).await, Lost, "{receipt:?}");
        assert_eq!(fixture.change(&receipt, nack(0)).await, Lost, "{receipt:?}");
    }
    fixture.expect_none_ready("the lease still runs").await;
    let sent_elsewhere = Receipt::new(delivery.receipt.to_string());
    // Beside the only good one, too.
    let unknown = || Receipt::new("unknown");
    let all = [unknown(), sent_elsewhere, unknown()];
    assert_eq!(fixture.ack_all(&all).await, [Lost, Applied, Lost]);
}

pub(super) async fn a_late_ack_works(fixture: Fixture) {
    fixture.store(&[msg("m")]).await;
    let delivery = fixture.lease_one().await;
    // Longer than a store may remember receipts.
    fixture.pass(366 * 24 * 3_600_000).await;
    assert_eq!(fixture.stats().await.ready, 1);
    assert_eq!(fixture.ack(&delivery.receipt).await, Applied);
    fixture.expect_none_ready("the late ack took effect").await;
}

pub(super) async fn a_late_change_works(fixture: Fixture) {
    fixture.store(&[msg("m")]).await;
    for (n, action) in [nack(5), LeaseAction::Release, dead_letter("late")]
        .into_iter()
        .enumerate()
    {
        let delivery = fixture.lease_one().await;
        fixture.pass(20_000).await;
        let outcome = fixture.change(&delivery.receipt, action.clone()).await;
        assert_eq!(outcome, Applied, "{action:?} by an expired receipt");
        if n == 0 {
            fixture.expect_none_ready("the late nack delays it").await;
            fixture.pass(5).await;
        }
    }
    assert_eq!(fixture.stats().await.dead, 1);
}

pub(super) async fn a_late_extend_hides_the_message_again(fixture: Fixture) {
    fixture.store(&[msg("m")]).await;
    let delivery = fixture.lease_one().await;
    fixture.pass(15_000).await;
    assert_eq!(
        fixture.change(&delivery.receipt, extend(1000)).await,
        Applied
    );
    assert_eq!(fixture.stats().await.leased, 1);
    fixture.pass(999).await;
    fixture
        .expect_none_ready("1 ms of the late extension is left")
        .await;
    fixture.pass(1).await;
    assert_eq!(fixture.lease_one().await.attempt, 2);
    assert_eq!(fixture.change(&delivery.receipt, extend(1000)).await, Lost);
}

pub(super) async fn a_settled_receipt_is_lost(fixture: Fixture) {
    let settling = [
        None,
        Some(nack(0)),
        Some(LeaseAction::Release),
        Some(dead_letter("no")),
    ];
    for (n, settle) in settling.into_iter().enumerate() {
        fixture.store(&[msg(&format!("m{n}"))]).await;
        let receipt = fixture.lease_one().await.receipt;
        let first = match settle.clone() {
            None => fixture.ack(&receipt).await,
            Some(action) => fixture.change(&receipt, action).await,
        };
        assert_eq!(first, Applied, "{settle:?}");
        let before = fixture.stats().await;
        assert_eq!(fixture.ack(&receipt).await, Lost, "ack after {settle:?}");
        for action in every_action() {
            let outcome = fixture.change(&receipt, action.clone()).await;
            assert_eq!(outcome, Lost, "{action:?} after {settle:?}");
        }
        assert_eq!(
            fixture.stats().await,
            before,
            "a settled receipt changes nothing"
        );
        for left in fixture.lease(10).await {
            assert!(fixture.ack(&left.receipt).await.is_applied());
        }
    }
}

pub(super) async fn a_receipt_twice_in_one_batch_works_once(fixture: Fixture) {
    fixture.store(&[msg("a"), msg("b"), msg("c")]).await;
    let deliveries = fixture.lease(3).await;
    let [a, b, c] = [0, 1, 2].map(|n| deliveries[n].receipt.clone());
    let outcomes = fixture.ack_all(&[a.clone(), b.clone(), a.clone()]).await;
    assert_eq!(outcomes, [Applied, Applied, Lost]);
    let twice = [change(&c, nack(0)), change(&c, nack(0))];
    assert_eq!(fixture.change_all(&twice).await, [Applied, Lost]);
    assert_eq!(fixture.stats().await.ready, 1);
}

pub(super) async fn settled_and_live_receipts_in_one_batch(fixture: Fixture) {
    let messages: Vec<_> = (0..6).map(|n| msg(&format!("m{n}"))).collect();
    fixture.store(&messages).await;
    let receipts = receipts(fixture.lease(6).await);
    fixture
        .ack_all(&[receipts[0].clone(), receipts[3].clone()])
        .await;
    let outcomes = fixture.ack_all(&receipts[..5]).await;
    assert_eq!(outcomes, [Lost, Applied, Applied, Lost, Applied]);
    let changes: Vec<_> = receipts
        .iter()
        .map(|receipt| change(receipt, nack(0)))
        .collect();
    let outcomes = fixture.change_all(&changes).await;
    assert_eq!(outcomes, [Lost, Lost, Lost, Lost, Lost, Applied]);
}

pub(super) async fn changes_of_one_receipt_follow_each_other(fixture: Fixture) {
    fixture.store(&[msg("m"), msg("n")]).await;
    let deliveries = fixture.lease(2).await;
    let (m, n) = (&deliveries[0].receipt, &deliveries[1].receipt);
    let changes = [
        change(m, extend(60_000)),
        change(n, nack(70)),
        change(m, extend(50)),
        change(n, extend(10)),
    ];
    assert_eq!(
        fixture.change_all(&changes).await,
        [Applied, Applied, Applied, Lost]
    );
    fixture.pass(49).await;
    fixture.expect_none_ready("the last extension counts").await;
    fixture.pass(1).await;
    assert_eq!(ids(&fixture.lease(10).await), [deliveries[0].id.as_str()]);
    fixture.pass(20).await;
    assert_eq!(ids(&fixture.lease(10).await), [deliveries[1].id.as_str()]);
}

pub(super) async fn outcomes_are_in_order(fixture: Fixture) {
    let messages: Vec<_> = (0..8).map(|n| msg(&format!("m{n}"))).collect();
    fixture.store(&messages).await;
    let mut receipts = receipts(fixture.lease(8).await);
    // In reverse, with unknown receipts in between.
    receipts.reverse();
    receipts.insert(0, Receipt::new("unknown"));
    receipts.insert(4, Receipt::new("also unknown"));
    let actions = [
        nack(9),
        extend(9000),
        dead_letter("why"),
        LeaseAction::Release,
    ];
    let changes: Vec<_> = receipts
        .iter()
        .zip(actions.iter().cycle())
        .map(|(r, a)| change(r, a.clone()))
        .collect();
    let mut expected = vec![Applied; 10];
    expected[0] = Lost;
    expected[4] = Lost;
    assert_eq!(fixture.change_all(&changes).await, expected);
    // An extension does not settle, so exactly the extended ones can be acked.
    let extended = |n: usize| n % 4 == 1;
    let expected: Vec<_> = (0..10)
        .map(|n| if extended(n) { Applied } else { Lost })
        .collect();
    assert_eq!(fixture.ack_all(&receipts).await, expected);
}

pub(super) async fn an_empty_batch_has_no_outcomes(fixture: Fixture) {
    fixture.store(&[msg("m")]).await;
    fixture.lease_one().await;
    assert!(fixture.ack_all(&[]).await.is_empty());
    assert!(fixture.change_all(&[]).await.is_empty());
    assert!(fixture.enqueue(&[]).await.is_empty());
    assert_eq!(fixture.stats().await.leased, 1);
}

pub(super) async fn extend_counts_from_now(fixture: Fixture) {
    fixture.store(&[msg("m")]).await;
    let delivery = fixture.lease_one().await;
    fixture.pass(4000).await;
    assert_eq!(
        fixture.change(&delivery.receipt, extend(10_000)).await,
        Applied
    );
    fixture.pass(9999).await;
    fixture
        .expect_none_ready("1 ms of the extension is left")
        .await;
    fixture.pass(1).await;
    assert_eq!(ids(&fixture.lease(10).await), ["m"]);
}

pub(super) async fn extend_may_shorten(fixture: Fixture) {
    fixture.store(&[msg("m")]).await;
    let delivery = fixture.lease_one().await;
    assert_eq!(
        fixture.change(&delivery.receipt, extend(100)).await,
        Applied
    );
    fixture.pass(99).await;
    fixture
        .expect_none_ready("1 ms of the shortened lease is left")
        .await;
    fixture.pass(1).await;
    assert_eq!(fixture.lease_one().await.attempt, 2);
}

pub(super) async fn a_nack_delay_is_exact_to_the_millisecond(fixture: Fixture) {
    fixture.store(&[msg("m")]).await;
    let delivery = fixture.lease_one().await;
    fixture.pass(3000).await;
    assert_eq!(
        fixture.change(&delivery.receipt, nack(30_000)).await,
        Applied
    );
    assert_eq!(
        fixture.stats().await.delayed,
        1,
        "a nacked message is delayed, not leased"
    );
    fixture.pass(29_999).await;
    fixture
        .expect_none_ready("1 ms of the nack's delay is left")
        .await;
    fixture.pass(1).await;
    assert_eq!(fixture.lease_one().await.attempt, 2);
}

pub(super) async fn nack_without_delay_is_ready_at_once(fixture: Fixture) {
    fixture.store(&[msg("m")]).await;
    let delivery = fixture.lease_one().await;
    assert_eq!(fixture.change(&delivery.receipt, nack(0)).await, Applied);
    assert_eq!(fixture.stats().await.ready, 1);
    assert_eq!(fixture.lease_one().await.attempt, 2);
}

pub(super) async fn a_released_message_is_ready_at_once_and_not_counted(fixture: Fixture) {
    fixture.store(&[msg("m").with_max_attempts(2)]).await;
    for _ in 0..5 {
        let delivery = fixture.lease_one().await;
        assert_eq!(delivery.attempt, 1);
        assert_eq!(
            fixture
                .change(&delivery.receipt, LeaseAction::Release)
                .await,
            Applied
        );
        assert_eq!(fixture.stats().await.ready, 1);
    }
}

pub(super) async fn changes_in_one_batch_are_independent(fixture: Fixture) {
    let long = |id: &str| msg(id).with_visibility_timeout(Duration::from_secs(600));
    fixture
        .store(&["a", "b", "c", "d", "e", "f"].map(long))
        .await;
    let mut deliveries = fixture.lease(6).await;
    deliveries.sort_by(|a, b| a.id.cmp(&b.id));
    let receipt = |n: usize| &deliveries[n].receipt;
    let changes = [
        change(receipt(0), nack(20)),
        change(receipt(1), extend(30)),
        change(receipt(2), dead_letter("c is bad")),
        change(receipt(3), LeaseAction::Release),
        change(receipt(4), nack(10)),
    ];
    assert_eq!(fixture.change_all(&changes).await, [Applied; 5]);
    let stats = fixture.stats().await;
    let counts = (stats.ready, stats.delayed, stats.leased, stats.dead);
    assert_eq!(counts, (1, 2, 2, 1));
    for expected in ["d", "e", "a", "b"] {
        assert_eq!(ids(&fixture.lease(10).await), [expected]);
        fixture.pass(10).await;
    }
}
