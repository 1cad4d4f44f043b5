//! Dead letters that cannot be read, and the calls of an administrator.

use super::{documents::field_kinds, *};

tests! {
    on_threads:
        damaged_dead_letters_hide_no_others;
    on_one_thread:
        a_letter_is_listed_behind_damaged_ones_at_its_place,
        a_purge_removes_any_number_of_unreadable_documents
}

/// Dead letters that others have changed do not hide those behind them.
async fn damaged_dead_letters_hide_no_others() {
    let fixture = Fixture::new().await;
    let bench = Bench::new(&fixture, "mail");
    bench.queue.enqueue(&message("template")).await.unwrap();
    let delivery = bench.queue.lease().await.unwrap().expect("ready");
    applied(bench.queue.dead_letter(&delivery.receipt, "no")).await;
    let mut template = fixture.document("template").await;
    // Before the others.
    template.insert("dead_key", "!");
    const BYTES: &[u8] = b"!\xff\xfe\xff";
    let mut kinds = vec![
        Kind::new("a place that is not UTF-8", |document, _| {
            document.insert("dead_key", placeholder(BYTES));
        })
        .invalid(BYTES),
        Kind::new("places", |document, number| {
            document.insert("dead_key", vec!["!".to_owned(), format!("!{number}")]);
        }),
        Kind::new("a long place", |document, number| {
            document.insert("dead_key", "!".repeat(300 + number));
        }),
        Kind::new("live and dead", |document, _| {
            document.insert("visible_at", DateTime::MAX);
        }),
    ];
    kinds.extend(field_kinds("dead_key"));
    for field in [
        "ids",
        "rev",
        "parts",
        "messages",
        "max_attempts",
        "visibility",
    ] {
        kinds.extend(field_kinds(field));
    }
    kinds.extend(id_kinds());
    // Several at a time, because each waits for the server.
    const AT_ONCE: usize = 4;
    let (fixture, kinds, template) = (&fixture, &kinds, &template);
    let in_turn = (0..AT_ONCE).map(|number| async move {
        let bench = Bench::new(fixture, &format!("q{number}"));
        for (index, kind) in kinds.iter().enumerate().skip(number).step_by(AT_ONCE) {
            // Making a queue takes longer than the rest.
            fixture.backend.delete_queue(&bench.name).await.unwrap();
            let several = match index {
                _ if kind.what.starts_with("ids") => 1,
                0..3 => 1001,
                _ => 3,
            };
            let documents: Vec<_> = (0..several).map(|n| kind.document(template, n)).collect();
            check_dead(&bench, &kind.what, &documents).await;
        }
    });
    join_all(in_turn).await;
}

async fn check_dead(bench: &Bench<'_>, what: &str, documents: &[RawDocumentBuf]) {
    let (queue, admin) = (&bench.queue, &bench.fixture.backend);
    queue.enqueue_batch(&SOUND.map(message)).await.unwrap();
    for delivery in lease(queue, 4).await {
        applied(queue.dead_letter(&delivery.receipt, "no")).await;
    }
    bench.store(documents).await;
    let mut readable = None;
    for max in [1, 3, 2000] {
        let mut page = PageOptions::new(max);
        let mut listed = Vec::new();
        loop {
            let letters = admin.dead_letters(&bench.name, &page).await.unwrap();
            listed.extend(letters.iter().map(|letter| letter.id.to_string()));
            assert!(
                listed.len() <= 4 + documents.len(),
                "{what}, pages of {max}"
            );
            let Some(token) = letters.next else { break };
            page = PageOptions::new(max).with_token(token);
        }
        assert_eq!(
            *readable.get_or_insert(listed.len()),
            listed.len(),
            "{what}"
        );
        assert_eq!(sound(listed), SOUND, "{what}, pages of {max}");
    }
    let redriven = admin.redrive(&bench.name, &Redrive::All).await.unwrap();
    // What cannot be delivered may have been changed.
    assert!(redriven >= readable.unwrap() as u64, "{what}: {redriven}");
    let mut leased = Vec::new();
    loop {
        let deliveries = lease(queue, 1000).await;
        if deliveries.is_empty() {
            break;
        }
        leased.extend(deliveries.iter().map(|it| it.id.to_string()));
    }
    leased.sort();
    assert_eq!(sound(leased), SOUND, "{what}");
    bench.assert_waits(what).await;
    purge_all(bench, what).await;

    admin.delete_queue(&bench.name).await.unwrap();
    queue.enqueue(&message("m0")).await.unwrap();
    bench.store(documents).await;
    let delivery = queue.lease().await.unwrap().expect("ready");
    applied(queue.dead_letter(&delivery.receipt, "no")).await;
    let purged = admin.purge(&bench.name, Purge::Dead).await.unwrap();
    assert!(purged > 0, "{what}");
    assert_eq!(queue.stats().await.unwrap().dead, 0, "{what}");
}

/// The pages must not go on behind the place, although many documents have it.
async fn a_letter_is_listed_behind_damaged_ones_at_its_place() {
    let fixture = Fixture::new().await;
    let bench = Bench::new(&fixture, "mail");
    let all = ["a", "b", "c", "d", "e"];
    for id in all {
        bench.queue.enqueue(&message(id)).await.unwrap();
    }
    for delivery in lease(&bench.queue, 9).await {
        applied(bench.queue.dead_letter(&delivery.receipt, "no")).await;
        fixture.clock.advance(Duration::from_millis(1));
    }
    let place = fixture.document("d").await;
    let place = place.get_str("dead_key").unwrap();
    for id in ["a", "b"] {
        let update = doc! { "$set": { "dead_key": place } };
        fixture.change_document(id, update).await;
    }
    for max in 1..6 {
        let mut page = PageOptions::new(max);
        let mut listed = Vec::new();
        loop {
            let letters = fixture.backend.dead_letters(&bench.name, &page).await;
            let letters = letters.unwrap();
            listed.extend(letters.iter().map(|letter| letter.id.to_string()));
            assert!(listed.len() < 9, "pages of {max}: {listed:?}");
            let Some(token) = letters.next else { break };
            page = PageOptions::new(max).with_token(token);
        }
        assert_eq!(listed, ["c", "d", "e"], "pages of {max}");
    }
}

/// More than one command removes, all with an `_id` that no command can contain.
async fn a_purge_removes_any_number_of_unreadable_documents() {
    let fixture = Fixture::new().await;
    let template = early_template(&fixture).await;
    let bench = Bench::new(&fixture, "mail");
    bench.queue.enqueue(&message("m0")).await.unwrap();
    let kind = &id_kinds()[0];
    let documents: Vec<_> = (0..1001).map(|n| kind.document(&template, n)).collect();
    bench.store(&documents).await;
    let purged = fixture.backend.purge(&bench.name, Purge::Live).await;
    assert_eq!(purged.unwrap(), 1, "the others are set aside");
    assert_eq!(bench.queue.stats().await.unwrap().dead, 1001);
    let purged = fixture.backend.purge(&bench.name, Purge::Dead).await;
    assert_eq!(purged.unwrap(), 1001);
    assert_eq!(bench.queue.stats().await.unwrap(), QueueStats::default());

    // Neither a claim nor the list of dead letters finds these.
    let mut hidden = super::parted::template(&template);
    hidden.remove("visible_at");
    hidden.remove("dead_key");
    let documents: Vec<_> = (0..1001).map(|n| kind.document(&hidden, n)).collect();
    bench.store(&documents).await;
    assert_eq!(bench.queue.stats().await.unwrap().dead, 1001);
    let purged = fixture.backend.purge(&bench.name, Purge::Dead).await;
    assert_eq!(purged.unwrap(), 1001);
    assert_eq!(bench.queue.stats().await.unwrap(), QueueStats::default());
}
