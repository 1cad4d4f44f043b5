//! Many messages, large batches and long texts: more than a store handles in one step.

use std::{
    collections::{BTreeSet, HashMap, HashSet},
    future::Future,
    time::Duration,
};

use queue_api::{
    DeadReason,
    EnqueueOutcome::{Duplicate, Stored},
    LeaseAction, LeaseChange,
    LeaseOutcome::{self, Applied, Lost},
    MessageId, NewMessage, Purge, QueueStats, Receipt, Redrive,
};

use super::enqueue::LOOK_ALIKE;
use crate::fixture::{
    Fixture, OneQueue, dead_letter, extend, ids, msg, nack, receipts, sorted_ids,
};

/// The size of the largest batch, but not more than a check can afford.
pub(super) fn largest_batch(queue: &OneQueue) -> usize {
    queue.backend().limits().max_batch.get().min(1000)
}

/// Messages that fit into 100 batches, and not more than `most`.
pub(super) fn batches(queue: &OneQueue, most: usize) -> Vec<NewMessage> {
    let count = most.min(100 * largest_batch(queue));
    (0..count).map(|n| msg(&format!("m{n:05}"))).collect()
}

/// Redrive and purge take more than a batch. A redrive may take long, so the clock moves meanwhile.
pub(super) async fn ten_thousand_dead_letters_are_listed_and_redriven(fixture: Fixture) {
    let messages = batches(&fixture, 10_000);
    let (count, most) = (messages.len(), largest_batch(&fixture));
    fixture.store_dead(&messages).await;
    let dead = QueueStats::default().with_dead(count as u64);
    assert_eq!(fixture.stats().await, dead);
    let letters = fixture.all_dead_letters().await;
    let mut listed: Vec<_> = letters.iter().map(|letter| &letter.id).collect();
    listed.sort_unstable();
    assert!(
        listed
            .into_iter()
            .eq(messages.iter().map(|message| &message.id))
    );
    fixture.pass(1).await;

    let mut first: Vec<_> = letters.into_iter().map(|letter| letter.id).collect();
    let mut last = first.split_off(count - most);
    last.reverse();
    let last = Redrive::Ids(last);
    assert_eq!(fixture.redrive(&last).await, most as u64);
    assert_eq!(fixture.redrive(&last).await, 0, "a repeat");
    let deliveries = fixture.lease_for(count, 3_600_000).await;
    assert!(deliveries.iter().all(|delivery| delivery.attempt == 1));
    assert_eq!(deliveries.len(), most);
    let redrive_all = async {
        let redriven = fixture.redrive(&Redrive::All).await;
        assert_eq!(redriven, first.len() as u64);
    };
    while_time_passes(&fixture, redrive_all).await;
    let stats = fixture.stats().await.with_oldest_ready(None);
    let expected = QueueStats::default().with_leased(most as u64);
    assert_eq!(stats, expected.with_ready(first.len() as u64));
    expect_first_ready_in_order(&fixture, &first).await;
    assert_eq!(fixture.purge(Purge::Live).await, count as u64);
    assert_eq!(fixture.stats().await, QueueStats::default());

    let several_batches = &messages[..2 * most + 1];
    fixture.store_dead(several_batches).await;
    let purged = fixture.purge(Purge::Dead).await;
    assert_eq!(purged, several_batches.len() as u64);
    assert_eq!(fixture.stats().await, QueueStats::default());
}

/// Lets the clock go on until the call ends.
async fn while_time_passes(fixture: &Fixture, call: impl Future<Output = ()>) {
    let pass = async {
        loop {
            fixture.pass(1).await;
            // In real time, because a busy loop would slow the call down.
            #[allow(clippy::disallowed_methods)]
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    };
    tokio::select! {
        biased;
        () = call => {}
        () = pass => {}
    }
}

/// These ids are ready in this order. Those of one millisecond may come in any order.
async fn expect_first_ready_in_order(fixture: &Fixture, ids: &[MessageId]) {
    let places: HashMap<_, _> = ids.iter().zip(0..).collect();
    let mut first = fixture.peek(largest_batch(fixture)).await;
    let last = first.last().expect("messages are ready").ready_at;
    first.sort_by_key(|message| places[&message.id]);
    let times = first.iter().map(|message| message.ready_at);
    assert!(
        times.is_sorted(),
        "a dead letter is ready earlier than one before it in the list"
    );
    // Of the last millisecond, there may be more than those.
    first.retain(|message| message.ready_at < last);
    let mut before = first.iter().zip(ids);
    let is_same = before.all(|(message, id)| message.id == *id);
    assert!(
        is_same,
        "a dead letter is not ready, but a later one in the list is"
    );
}

/// More than a batch of dead letters and of ready messages, and many of the other states.
pub(super) async fn a_queue_of_several_batches_is_deleted(fixture: Fixture) {
    let most = largest_batch(&fixture);
    let named = |state: &str, count: usize| {
        let named = (0..count).map(|n| msg(&format!("{state}{n:04}")));
        named.collect::<Vec<_>>()
    };
    let other = fixture.other_queue("other");
    other.fill_every_state().await;
    let dead = named("dead", most + 1);
    fixture.store_dead(&dead).await;
    let leased = named("leased", most - 1);
    fixture.store(&leased).await;
    assert_eq!(fixture.lease_for(most, 3_600_000).await.len(), most - 1);
    let ready = named("ready", most + 1);
    let late = |message: NewMessage| message.with_delay(Duration::from_secs(7200));
    let delayed: Vec<_> = named("delayed", most / 2).into_iter().map(late).collect();
    fixture.store(&[&ready[..], &delayed].concat()).await;

    fixture.delete().await;
    for queue in [&fixture, &fixture.reconnect().await] {
        assert_eq!(queue.stats().await, QueueStats::default());
        assert!(queue.messages_in_pages(most).await.is_empty());
        assert!(queue.all_dead_letters().await.is_empty());
    }
    assert_eq!(other.stats().await.ready, 1);
    fixture.expect_queues(&["other"]).await;
    // The first and the last of each state may be used again.
    let ends = [dead, leased, ready, delayed].map(|of| [of[0].clone(), of[of.len() - 1].clone()]);
    fixture.store(ends.as_flattened()).await;
}

/// Nothing but a redrive or a purge removes a dead letter.
pub(super) async fn dead_letters_outlive_a_hundred_thousand_messages(fixture: Fixture) {
    let kept = ["a", "b", "c"].map(msg);
    fixture.store_dead(&kept).await;
    let batch: Vec<_> = (0..largest_batch(&fixture))
        .map(|n| msg(&format!("m{n}")))
        .collect();
    for round in 0..100 {
        fixture.store(&batch).await;
        if round % 10 > 0 && fixture.has_admin() {
            // This takes less time.
            let purged = fixture.purge(Purge::Live).await;
            assert_eq!(purged, batch.len() as u64);
        } else {
            let receipts = receipts(fixture.lease(batch.len()).await);
            assert_eq!(fixture.ack_all(&receipts).await, vec![Applied; batch.len()]);
        }
        // Longer than any lease.
        fixture.pass(7 * 24 * 3_600_000).await;
    }
    assert_eq!(fixture.stats().await, QueueStats::default().with_dead(3));
    let again = fixture.enqueue(&kept).await;
    assert_eq!(again, [Duplicate; 3], "their ids are in use");
    if fixture.has_admin() {
        let letters = fixture.all_dead_letters().await;
        let mut payloads: Vec<_> = letters.iter().map(|letter| &letter.payload[..]).collect();
        payloads.sort_unstable();
        assert_eq!(payloads, [b"a", b"b", b"c"]);
    }
}

pub(super) async fn exhausted_messages_of_more_than_a_batch_hide_nothing(fixture: Fixture) {
    let exhaust = async |name: &str, count: usize, millis| {
        let once = |n| msg(&format!("{name}{n}")).with_max_attempts(1);
        fixture
            .store(&(0..count).map(once).collect::<Vec<_>>())
            .await;
        assert_eq!(fixture.lease_for(count, millis).await.len(), count);
    };
    let most = largest_batch(&fixture);
    exhaust("first", most + 101, 1).await;
    fixture
        .store(&[msg("a").with_delay(Duration::from_millis(2))])
        .await;
    fixture.pass(2).await;
    assert_eq!(ids(&fixture.lease(1).await), ["a"]);
    assert_eq!(fixture.stats().await.dead, most as u64 + 101);

    // Ready messages between them.
    for (n, id) in (1..).zip(["b", "c", "d"]) {
        exhaust(id, 101, 10 * n).await;
        let delay = Duration::from_millis(10 * n + 5);
        fixture.store(&[msg(id).with_delay(delay)]).await;
    }
    fixture.pass(100).await;
    assert_eq!(ids(&fixture.lease(3).await), ["b", "c", "d"]);
    assert_eq!(fixture.stats().await.dead, most as u64 + 404);
}

/// Receipts of every kind, in an order that is neither that of the messages nor of the receipts.
pub(super) async fn outcomes_of_the_largest_batch_are_in_order(fixture: Fixture) {
    let most = largest_batch(&fixture);
    let messages: Vec<_> = (0..most).map(|n| msg(&format!("m{n}"))).collect();
    fixture.store(&messages).await;
    let superseded = receipts(fixture.lease(most).await);
    fixture.pass(10_000).await;
    let current = receipts(fixture.lease(most).await);
    let settled: Vec<_> = current.iter().step_by(3).cloned().collect();
    fixture.ack_all(&settled).await;
    let other = fixture.other_queue("other");
    other.store(&["a", "b", "c"].map(msg)).await;
    let foreign = receipts(other.lease(3).await);
    let mut live: HashSet<_> = current.iter().cloned().collect();
    live.retain(|receipt| !settled.contains(receipt));

    let actions = [
        extend(60_000),
        nack(60_000),
        dead_letter("no"),
        LeaseAction::Release,
    ];
    let pick = |n: usize| match n % 5 {
        0 | 1 => current[n * 7 % most].clone(),
        2 => superseded[n].clone(),
        3 => foreign[n % 3].clone(),
        // Again what came a little earlier.
        _ => current[(n - 4) * 7 % most].clone(),
    };
    let changes: Vec<_> = (0..most)
        .map(|n| LeaseChange {
            receipt: pick(n),
            action: actions[n * 3 / 5 % 4].clone(),
        })
        .collect();
    let mut expect = |receipt: &Receipt, settles: bool| {
        let is_live = live.contains(receipt);
        if settles {
            live.remove(receipt);
        }
        if is_live { Applied } else { Lost }
    };
    let extends = |change: &LeaseChange| matches!(change.action, LeaseAction::Extend(_));
    let expected: Vec<_> = changes
        .iter()
        .map(|change| expect(&change.receipt, !extends(change)))
        .collect();
    expect_equal(&fixture.change_all(&changes).await, &expected);
    let acks: Vec<_> = (0..most).map(|n| pick(most - 1 - n)).collect();
    let expected: Vec<_> = acks.iter().map(|receipt| expect(receipt, true)).collect();
    expect_equal(&fixture.ack_all(&acks).await, &expected);
    assert_eq!(fixture.stats().await.leased, live.len() as u64);
    assert_eq!(other.stats().await.leased, 3);
}

/// Asserts that two long lists are equal, and names the first difference only.
fn expect_equal(outcomes: &[LeaseOutcome], expected: &[LeaseOutcome]) {
    let differs = |n: &usize| outcomes[*n] != expected[*n];
    let first = (0..expected.len()).find(differs);
    assert_eq!(first, None, "the number of the first wrong outcome");
}

pub(super) async fn duplicates_of_the_largest_batch_are_in_order(fixture: Fixture) {
    let most = largest_batch(&fixture);
    let named = |n: usize| msg(&format!("m{n}"));
    let every_third: Vec<_> = (0..most).step_by(3).map(named).collect();
    fixture.store(&every_third).await;
    // Each id that is new comes twice, far from each other.
    let messages: Vec<_> = (0..most).map(|n| named(n * 7 % (most / 2))).collect();
    let mut known: HashSet<_> = every_third.iter().map(|message| &message.id).collect();
    let expected: Vec<_> = messages
        .iter()
        .map(|message| {
            if known.insert(&message.id) {
                Stored
            } else {
                Duplicate
            }
        })
        .collect();
    let outcomes = fixture.enqueue(&messages).await;
    let first = (0..most).find(|n| outcomes[*n] != expected[*n]);
    assert_eq!(first, None, "the number of the first wrong outcome");
    assert_eq!(fixture.stats().await.ready, known.len() as u64);
}

/// Ids of the most bytes: each of 1 to 4 bytes a character, and differing at either end.
fn longest_ids() -> Vec<String> {
    let mut ids = Vec::new();
    for (fill, other) in [
        ("x", "y"),
        ("\u{e9}", "\u{e8}"),
        ("\u{540d}\u{524d}", "\u{524d}\u{540d}"),
        ("\u{1f980}", "\u{1f981}"),
    ] {
        let count = MessageId::MAX_BYTES / fill.len();
        let pad = "p".repeat(MessageId::MAX_BYTES % fill.len());
        let most = fill.repeat(count - 1);
        ids.push(format!("{pad}{most}{fill}"));
        ids.push(format!("{pad}{most}{other}"));
        ids.push(format!("{pad}{other}{most}"));
    }
    ids
}

pub(super) async fn the_longest_ids_are_distinct(fixture: Fixture) {
    let mut names = longest_ids();
    let messages: Vec<_> = names.iter().map(|name| msg(name)).collect();
    fixture.store(&messages).await;
    let again = fixture.enqueue(&messages).await;
    assert_eq!(again, vec![Duplicate; names.len()]);
    names.sort();
    for _ in 0..2 {
        let deliveries = fixture.lease(20).await;
        assert_eq!(sorted_ids(&deliveries), names);
        for delivery in &deliveries {
            assert_eq!(delivery.payload, delivery.id.as_str());
            assert_eq!(fixture.change(&delivery.receipt, nack(0)).await, Applied);
        }
    }
    let mut deliveries = fixture.lease(20).await;
    let kept = deliveries.split_off(names.len() / 2);
    let acked = fixture.ack_all(&receipts(deliveries)).await;
    assert_eq!(acked, vec![Applied; names.len() / 2]);
    fixture.pass(10_000).await;
    assert_eq!(sorted_ids(&fixture.lease(20).await), sorted_ids(&kept));
}

/// Also as tokens, in the ids of a redrive, and with the longest reason.
pub(super) async fn long_and_similar_ids_are_distinct_in_lists(fixture: Fixture) {
    let mut names = longest_ids();
    names.extend(LOOK_ALIKE.map(str::to_owned));
    let messages: Vec<_> = names.iter().map(|name| msg(name)).collect();
    fixture.store(&messages).await;
    names.sort();
    let listed = fixture.messages_in_pages(1).await;
    let mut listed: Vec<_> = listed.iter().map(|message| message.id.as_str()).collect();
    listed.sort_unstable();
    assert_eq!(listed, names);
    let reason = "\u{e9}".repeat(queue_api::MAX_REASON_BYTES / 2);
    let leased = fixture.lease(names.len()).await.into_iter();
    let changes = leased.map(|delivery| LeaseChange::dead_letter(delivery.receipt, &*reason));
    let outcomes = fixture.change_all(&changes.collect::<Vec<_>>()).await;
    assert_eq!(outcomes, vec![Applied; names.len()]);
    let letters = fixture.dead_letters_in_pages(1).await;
    let mut listed: Vec<_> = letters.iter().map(|letter| letter.id.as_str()).collect();
    listed.sort_unstable();
    assert_eq!(listed, names);
    for letter in letters {
        assert_eq!(letter.reason, DeadReason::Rejected(reason.clone()));
        assert_eq!(letter.payload, letter.id.as_str());
        let one = Redrive::Ids(vec![letter.id.clone()]);
        assert_eq!(fixture.redrive(&one).await, 1);
        assert_eq!(ids(&fixture.lease(2).await), [letter.id.as_str()]);
    }
}

/// A part of a receipt, another case, or any other long text is not a receipt.
pub(super) async fn a_receipt_is_whole(fixture: Fixture) {
    let longest = longest_ids();
    fixture
        .store(&[msg("m"), msg(&longest[0]), msg(&longest[9])])
        .await;
    let receipts = receipts(fixture.lease(3).await);
    let real: BTreeSet<_> = receipts.iter().map(Receipt::as_str).collect();
    let mut made_up = vec!["\u{1f980}".repeat(10_000), "0".repeat(100_000)];
    for receipt in &real {
        // A receipt may be as short as a byte.
        let shorter = |from, to| receipt.get(from..to).unwrap_or_default().to_owned();
        let end = receipt.len();
        made_up.extend([1, 2, 4].map(|cut| shorter(0, end.saturating_sub(cut))));
        made_up.extend([1, 2, 4].map(|cut| shorter(cut, end)));
        made_up.extend([receipt.to_uppercase(), receipt.to_lowercase()]);
        made_up.extend([
            format!("{receipt} "),
            format!(" {receipt}"),
            format!("{receipt}\0"),
        ]);
    }
    made_up.retain(|text| !real.contains(&**text));
    for text in made_up {
        let receipt = Receipt::new(text);
        assert_eq!(fixture.ack(&receipt).await, Lost, "{receipt:?}");
        assert_eq!(fixture.change(&receipt, nack(0)).await, Lost, "{receipt:?}");
    }
    assert_eq!(fixture.ack_all(&receipts).await, [Applied; 3]);
}

pub(super) async fn three_hundred_queues_are_listed(fixture: Fixture) {
    use futures::stream::{StreamExt, iter};
    let names: Vec<_> = (0..300).map(|n| format!("queue-{n:03}")).collect();
    let message = [msg("m")];
    // A store may need a while for a new queue.
    let stores = iter(&names).map(|name| {
        let queue = fixture.other_queue(name);
        let message = &message;
        async move { queue.store(message).await }
    });
    stores.buffer_unordered(10).collect::<Vec<()>>().await;
    let names: Vec<_> = names.iter().map(String::as_str).collect();
    fixture.expect_queues(&names).await;
}
