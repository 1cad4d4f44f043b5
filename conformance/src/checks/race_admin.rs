//! C2 and M1: admin calls race with each other and with the calls of producers and consumers.

use std::collections::BTreeSet;

use queue_api::{
    Delivery, EnqueueOutcome,
    EnqueueOutcome::{Duplicate, Stored},
    LeaseChange, LeaseOutcome,
    LeaseOutcome::Applied,
    NewMessage, Purge, QueueStats, Receipt, Redrive,
};

use crate::{
    fixture::{Fixture, id_of, msg, receipts},
    race::{race, race_on_threads},
};

/// New messages for each round.
fn trio(id: &str) -> [NewMessage; 3] {
    ["a", "b", "c"].map(|name| msg(&format!("{id}-{name}")))
}

async fn three_dead(fixture: &Fixture, id: &str) -> [NewMessage; 3] {
    let messages = trio(id);
    fixture.store_dead(&messages).await;
    messages
}

async fn three_leased(fixture: &Fixture, id: &str) -> Vec<Receipt> {
    fixture.store(&trio(id)).await;
    receipts(fixture.lease(3).await)
}

/// Leases and acks everything, which is these messages, each with its first attempt.
async fn drain(fixture: &Fixture, leased: Vec<Delivery>, expected: &[NewMessage]) {
    let rest = fixture.lease(10).await;
    let leased = [leased, rest].concat();
    let ids: BTreeSet<_> = leased.iter().map(|delivery| &delivery.id).collect();
    assert_eq!(ids, expected.iter().map(|message| &message.id).collect());
    assert_eq!(leased.len(), expected.len(), "each once: {leased:?}");
    assert!(
        leased.iter().all(|delivery| delivery.attempt == 1),
        "{leased:?}"
    );
    let outcomes = fixture.ack_all(&receipts(leased)).await;
    assert_eq!(outcomes, vec![Applied; expected.len()]);
    assert_eq!(fixture.stats().await, QueueStats::default());
}

pub(super) async fn concurrent_redrives_take_each_dead_letter_once(fixture: Fixture) {
    let prepare = async |id: &str| three_dead(&fixture, id).await;
    let all = async |queue: &Fixture, _: &_| queue.redrive(&Redrive::All).await;
    let named = async |queue: &Fixture, messages: &[NewMessage; 3]| {
        let ids = messages.iter().map(|message| message.id.clone());
        queue.redrive(&Redrive::Ids(ids.collect())).await
    };
    let judge = async |messages: [NewMessage; 3], first, second| {
        assert_eq!(first + second, 3, "{first} and {second} were redriven");
        drain(&fixture, Vec::new(), &messages).await;
    };
    race_on_threads(&fixture, &prepare, all, all, &judge).await;
    race(&fixture, prepare, all, named, judge).await;
}

pub(super) async fn a_dead_letter_is_redriven_or_purged(fixture: Fixture) {
    let prepare = async |id: &str| three_dead(&fixture, id).await;
    let redrive = async |queue: &Fixture, _: &_| queue.redrive(&Redrive::All).await;
    let purge = async |queue: &Fixture, _: &_| queue.purge(Purge::Dead).await;
    let judge = async |_, redriven, purged| {
        assert_eq!(redriven + purged, 3, "{redriven} redriven, {purged} purged");
        let stats = fixture.stats().await;
        assert_eq!((stats.ready, stats.dead), (redriven, 0));
        assert_eq!(fixture.purge(Purge::Live).await, redriven);
    };
    race(&fixture, prepare, redrive, purge, judge).await;
}

pub(super) async fn a_redrive_and_a_lease_lose_nothing(fixture: Fixture) {
    let prepare = async |id: &str| three_dead(&fixture, id).await;
    let redrive = async |queue: &Fixture, _: &_| queue.redrive(&Redrive::All).await;
    let lease = async |queue: &Fixture, _: &_| queue.lease(3).await;
    let judge = async |messages: [NewMessage; 3], redriven, leased| {
        assert_eq!(redriven, 3);
        drain(&fixture, leased, &messages).await;
    };
    race(&fixture, prepare, redrive, lease, judge).await;
}

/// A message moves between live and dead, and its id is in use all the time.
pub(super) async fn a_stored_id_is_a_duplicate_while_it_moves(fixture: Fixture) {
    let again = async |queue: &Fixture, messages: &[NewMessage; 3]| queue.enqueue(messages).await;
    let judge = async |messages: [NewMessage; 3], moved: u64, outcomes: Vec<EnqueueOutcome>| {
        assert_eq!((moved, &outcomes[..]), (3, &[Duplicate; 3][..]));
        let dead = fixture.stats().await.dead;
        assert_eq!(fixture.redrive(&Redrive::All).await, dead);
        drain(&fixture, Vec::new(), &messages).await;
    };
    let dead = async |id: &str| three_dead(&fixture, id).await;
    let redrive = async |queue: &Fixture, _: &_| queue.redrive(&Redrive::All).await;
    race(&fixture, dead, redrive, again, judge).await;

    let live = async |id: &str| {
        let messages = trio(id);
        fixture.store(&messages).await;
        let leased = receipts(fixture.lease(3).await);
        (messages, leased)
    };
    let die = async |queue: &Fixture, (_, leased): &([NewMessage; 3], Vec<Receipt>)| {
        let die = |receipt: &Receipt| LeaseChange::dead_letter(receipt.clone(), "no");
        let changes: Vec<_> = leased.iter().map(die).collect();
        let outcomes = queue.change_all(&changes).await;
        outcomes
            .iter()
            .filter(|outcome| **outcome == Applied)
            .count() as u64
    };
    let again =
        async |queue: &Fixture, (messages, _): &([NewMessage; 3], _)| queue.enqueue(messages).await;
    let judge = async |(messages, _), moved, outcomes| judge(messages, moved, outcomes).await;
    race(&fixture, live, die, again, judge).await;
}

pub(super) async fn a_message_is_purged_or_acked(fixture: Fixture) {
    let prepare = async |id: &str| three_leased(&fixture, id).await;
    let purge = async |queue: &Fixture, _: &_| queue.purge(Purge::Live).await;
    let ack = async |queue: &Fixture, leased: &Vec<Receipt>| queue.ack_all(leased).await;
    let judge = async |_, purged, outcomes: Vec<LeaseOutcome>| {
        let acked = outcomes
            .iter()
            .filter(|outcome| **outcome == Applied)
            .count() as u64;
        assert_eq!(purged + acked, 3, "{purged} purged, {acked} acked");
        assert_eq!(fixture.stats().await, QueueStats::default());
    };
    race(&fixture, prepare, purge, ack, judge).await;
}

/// A purge removes what was stored when it began, also what is leased meanwhile.
pub(super) async fn a_purged_message_is_not_leased(fixture: Fixture) {
    let prepare = async |id: &str| {
        let messages = trio(id);
        fixture.store(&messages).await;
        messages
    };
    let purge = async |queue: &Fixture, _: &_| queue.purge(Purge::Live).await;
    let lease = async |queue: &Fixture, _: &_| queue.lease(2).await;
    let judge = async |messages: [NewMessage; 3], purged, leased: Vec<Delivery>| {
        assert_eq!(purged, 3);
        for receipt in receipts(leased) {
            assert_eq!(fixture.ack(&receipt).await, LeaseOutcome::Lost);
        }
        assert_eq!(fixture.stats().await, QueueStats::default());
        // Nothing of them is left.
        fixture.store(&messages).await;
        drain(&fixture, Vec::new(), &messages).await;
    };
    race(&fixture, prepare, purge, lease, judge).await;
}

/// A message that is enqueued while its queue is deleted is there as a whole or not at all. The
/// queue works afterwards.
pub(super) async fn a_deleted_queue_can_be_used_at_once(fixture: Fixture) {
    let prepare = async |id: &str| {
        fixture.store(&[msg(&format!("{id}-before"))]).await;
        trio(id)
    };
    let delete = async |queue: &Fixture, _: &_| queue.delete().await;
    let enqueue = async |queue: &Fixture, messages: &[NewMessage; 3]| {
        let outcomes = queue.enqueue(messages).await;
        assert_eq!(outcomes, [Stored; 3], "their ids are new");
    };
    let judge = async |messages: [NewMessage; 3], (), ()| {
        for queue in [&fixture, &fixture.reconnect().await] {
            queue.enqueue(&messages).await;
            assert_eq!(queue.enqueue(&messages).await, [Duplicate; 3]);
        }
        drain(&fixture, Vec::new(), &messages).await;
    };
    race(&fixture, prepare, delete, enqueue, judge).await;

    let live = async |id: &str| {
        fixture.store(&trio(id)).await;
    };
    let lease = async |queue: &Fixture, (): &()| queue.lease(2).await;
    let judge = async |(), (), leased: Vec<Delivery>| {
        for receipt in receipts(leased) {
            assert_eq!(fixture.ack(&receipt).await, LeaseOutcome::Lost);
        }
        assert_eq!(fixture.stats().await, QueueStats::default());
        fixture.store(&[msg("after")]).await;
        assert_eq!(fixture.lease_one().await.id, id_of("after"));
        fixture.delete().await;
    };
    race(
        &fixture,
        live,
        async |queue: &Fixture, (): &()| queue.delete().await,
        lease,
        judge,
    )
    .await;
}

/// The removal of a queue meets its creation at each point.
pub(super) async fn a_queue_can_be_deleted_while_it_is_made(fixture: Fixture) {
    let prepare = async |id: &str| format!("queue-{id}");
    let message = [msg("m")];
    let delete = async |fixture: &Fixture, name: &String| fixture.other_queue(name).delete().await;
    let enqueue =
        async |fixture: &Fixture, name: &String| fixture.other_queue(name).enqueue(&message).await;
    let judge = async |name: String, (), outcomes| {
        assert_eq!(outcomes, [Stored]);
        // Now it is there in any case.
        enqueue(&fixture, &name).await;
        for process in [&fixture, &fixture.reconnect().await] {
            assert_eq!(enqueue(process, &name).await, [Duplicate]);
        }
        let leased = fixture.other_queue(&name).lease(2).await;
        assert_eq!(leased.len(), 1, "it is stored once: {leased:?}");
        delete(&fixture, &name).await;
    };
    race(&fixture, prepare, delete, enqueue, judge).await;
}
