//! C2: races of lease calls that make dead letters.

use std::collections::BTreeSet;

use queue_api::{
    Delivery, LeaseAction,
    LeaseOutcome::{Applied, Lost},
    QueueStats, Receipt,
};

use super::{
    concurrent::{is_drained, many},
    race::ack_everything,
};
use crate::{
    fixture::{Fixture, dead_letter, extend, msg, nack},
    race::{race, race_on_threads},
};

/// A message whose attempts are used up, and the number of dead letters before it.
struct Exhausted {
    id: String,
    receipt: Receipt,
    dead_before: u64,
}

/// A claim meets an exhausted message and makes it a dead letter later. In between, a late call may
/// settle it, and its id may be used again.
pub(super) async fn an_exhausted_message_is_settled_or_dead(fixture: Fixture) {
    let release = LeaseAction::Release;
    let actions = [
        None,
        Some(extend(60_000)),
        Some(release),
        Some(dead_letter("no")),
    ];
    for (number, action) in actions.iter().enumerate() {
        let prepare = async |id: &str| {
            let id = format!("{id}-{number}");
            fixture.store(&[msg(&id).with_max_attempts(1)]).await;
            let receipt = fixture.lease_one().await.receipt;
            fixture.pass(10_000).await;
            let dead_before = fixture.stats().await.dead;
            Exhausted {
                id,
                receipt,
                dead_before,
            }
        };
        let lease = async |queue: &Fixture, _: &Exhausted| queue.lease(1).await;
        let settle = async |queue: &Fixture, message: &Exhausted| {
            let Some(action) = action.clone() else {
                let outcome = queue.ack(&message.receipt).await;
                if outcome == Applied {
                    queue.store(&[msg(&message.id).with_payload("anew")]).await;
                }
                return outcome;
            };
            queue.change(&message.receipt, action).await
        };
        let judge = async |message: Exhausted, leased: Vec<Delivery>, outcome| {
            let stats = fixture.stats().await;
            let live = stats.ready + stats.leased;
            let dead = stats.dead - message.dead_before;
            let expected = match (outcome, action) {
                (Lost, _) | (Applied, Some(LeaseAction::DeadLetter { .. })) => (0, 1),
                (Applied, _) => (1, 0),
            };
            let what = format!("{action:?} (None: acked and stored anew): {outcome:?}, {leased:?}");
            assert_eq!((live, dead), expected, "live, dead after {what}");
            for delivery in leased {
                assert_eq!(delivery.attempt, 1, "{what}");
                assert_eq!(delivery.payload == "anew", action.is_none(), "{what}");
            }
            fixture.pass(60_000).await;
            ack_everything(&fixture).await;
        };
        race(&fixture, prepare, lease, settle, judge).await;
    }
}

pub(super) async fn an_exhausted_message_becomes_one_dead_letter(fixture: Fixture) {
    two_leases_meet_exhausted_messages(&fixture).await;
    many_consumers_exhaust_messages(&fixture).await;
}

/// Three exhausted messages come before two others, and each call asks for two.
async fn two_leases_meet_exhausted_messages(fixture: &Fixture) {
    let prepare = async |id: &str| {
        let named = |n: usize| msg(&format!("{id}-{n}"));
        let once = [0, 1, 2].map(|n| named(n).with_max_attempts(1));
        fixture.store(&once).await;
        fixture.lease_for(3, 1).await;
        fixture.pass(2).await;
        fixture.store(&[named(3), named(4)]).await;
        fixture.stats().await.dead
    };
    let lease = async |queue: &Fixture, _: &u64| queue.lease(2).await;
    let judge = async |dead_before, first: Vec<Delivery>, second: Vec<Delivery>| {
        // Under contention, a call may return less.
        let rest = fixture.lease(10).await;
        let leased = [first, second, rest].concat();
        let distinct: BTreeSet<_> = leased.iter().map(|delivery| &delivery.id).collect();
        assert_eq!((leased.len(), distinct.len()), (2, 2), "leased: {leased:?}");
        assert_eq!(fixture.stats().await.dead, dead_before + 3);
        for delivery in leased {
            assert_eq!(fixture.ack(&delivery.receipt).await, Applied);
        }
    };
    race_on_threads(fixture, prepare, lease, lease, judge).await;
}

/// Each delivery fails at once, until the attempts are used up.
async fn many_consumers_exhaust_messages(fixture: &Fixture) {
    const MESSAGES: u32 = 60;
    let dead_before = fixture.stats().await.dead;
    let messages = (0..MESSAGES).map(|n| msg(&format!("many{n}")).with_max_attempts(n % 3 + 1));
    fixture.store(&messages.collect::<Vec<_>>()).await;
    let leased = many(fixture, 8, async |fixture: Fixture, _| {
        let mut leased = Vec::new();
        let mut idle = fixture.idle_timeout();
        while !is_drained(&fixture).await {
            let deliveries = fixture.lease(3).await;
            if deliveries.is_empty() {
                idle.check("no message was leased, but not all are dead")
                    .await;
                continue;
            }
            idle.reset();
            for delivery in deliveries {
                assert_eq!(fixture.change(&delivery.receipt, nack(0)).await, Applied);
                leased.push((delivery.id, delivery.attempt));
            }
        }
        leased
    })
    .await;
    let leased: Vec<_> = leased.into_iter().flatten().collect();
    let distinct: BTreeSet<_> = leased.iter().collect();
    let attempts = 2 * MESSAGES as usize;
    let counts = (leased.len(), distinct.len());
    assert_eq!(counts, (attempts, attempts), "each attempt is leased once");
    let dead = dead_before + u64::from(MESSAGES);
    assert_eq!(fixture.stats().await, QueueStats::default().with_dead(dead));
}
