//! Dead letters and live messages that cannot be read, and the calls of an administrator.

use super::*;

tests! {
    on_threads:
        damaged_dead_letters_hide_no_others;
    on_one_thread:
        a_purge_removes_any_number_of_unreadable_documents
}

/// Dead letters that others have changed do not hide those behind them.
async fn damaged_dead_letters_hide_no_others() {
    let fixture = Fixture::new().await;
    let bench = Bench::new(&fixture, "mail");
    bench.queue.enqueue(&message("template")).await.unwrap();
    let delivery = bench.queue.lease().await.unwrap().expect("ready");
    applied(bench.queue.dead_letter(&delivery.receipt, "no")).await;
    let template = fixture.document("template").await;
    const BYTES: &[u8] = b"!\xff\xfe\xff";
    let mut kinds = vec![
        Kind::new("dead.id", |document, _| {
            document.insert("dead", doc! { "id": placeholder(BYTES) });
        })
        .invalid(BYTES),
        Kind::new("dead.id in an array", |document, number| {
            document.insert("dead", doc! { "id": ["!", format!("!{number}")] });
        }),
        Kind::new("dead.id too long", |document, number| {
            document.insert("dead", doc! { "id": "!".repeat(300 + number) });
        }),
        Kind::new("dead in an array", |document, number| {
            document.insert("dead", [doc! { "id": format!("!{number}") }].to_vec());
        }),
        Kind::new("live and dead", |document, number| {
            document.insert("dead.id", format!("!{number}"));
            document.insert("visible_at", DateTime::MAX);
        }),
    ];
    for kind in id_kinds() {
        let (what, invalid) = (kind.what.clone(), kind.invalid);
        let mut dead = Kind::new(what, move |document, number| {
            document.insert("dead", doc! { "id": format!("!{number}") });
            (kind.change)(document, number);
        });
        dead.invalid = invalid;
        kinds.push(dead);
    }
    for field in ["id", "at", "reason"] {
        kinds.extend(values().into_iter().map(|(what, value)| {
            Kind::new(format!("dead.{field} {what}"), move |document, number| {
                let mut dead = doc! { "id": format!("!{number}") };
                dead.insert(field, &value);
                document.insert("dead", dead);
            })
        }));
    }
    for (index, kind) in kinds.iter().enumerate() {
        let bench = Bench::new(&fixture, &format!("q{index}"));
        let several = if kind.what.starts_with("dead.id") && index < 3 {
            1001
        } else {
            3
        };
        let documents: Vec<_> = (0..several).map(|n| kind.document(&template, n)).collect();
        check_dead(&bench, &kind.what, &documents).await;
    }
}

async fn check_dead(bench: &Bench<'_>, what: &str, documents: &[RawDocumentBuf]) {
    let (queue, admin) = (&bench.queue, &bench.fixture.backend);
    queue.enqueue_batch(&SOUND.map(message)).await.unwrap();
    for delivery in lease(queue, 4).await {
        applied(queue.dead_letter(&delivery.receipt, "no")).await;
    }
    bench.store(documents).await;
    let dead = queue.stats().await.unwrap().dead;
    for max in [1, 3, 2000] {
        let mut page = PageOptions::new(max);
        let mut listed = Vec::new();
        loop {
            let letters = admin.dead_letters(&bench.name, &page).await.unwrap();
            listed.extend(letters.iter().map(|letter| letter.id.to_string()));
            let Some(token) = letters.next else { break };
            page = PageOptions::new(max).with_token(token);
        }
        assert_eq!(sound(listed), SOUND, "{what}, pages of {max}");
    }
    let redriven = admin.redrive(&bench.name, &Redrive::All).await.unwrap();
    assert_eq!(redriven, dead, "{what}");
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

    admin.purge(&bench.name, Purge::Live).await.unwrap();
    let again = queue.stats().await.unwrap().dead;
    let purged = admin.purge(&bench.name, Purge::Dead).await.unwrap();
    assert_eq!(purged, again, "{what}");
    admin.delete_queue(&bench.name).await.unwrap();
    queue.enqueue(&message("m0")).await.unwrap();
    bench.store(documents).await;
    let delivery = queue.lease().await.unwrap().expect("ready");
    applied(queue.dead_letter(&delivery.receipt, "no")).await;
    let dead = queue.stats().await.unwrap().dead;
    let purged = admin.purge(&bench.name, Purge::Dead).await.unwrap();
    assert_eq!(purged, dead, "{what}");
    assert_eq!(queue.stats().await.unwrap().dead, 0, "{what}");
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
    assert_eq!(purged.unwrap(), 1002);
    assert_eq!(bench.queue.stats().await.unwrap().ready, 0);
}
