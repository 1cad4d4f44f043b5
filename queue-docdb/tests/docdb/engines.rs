//! Which engines accept the commands of each call. The gate judges every command.

use std::{collections::BTreeSet, fmt::Write, time::Duration};

use mongodb_test_server::documentdb::{Engine, Engines};
use queue_api::{LeaseChange, PageOptions, Purge, QueueAdmin, QueueTransaction, Redrive};
use queue_docdb::DocDbBackend;

use crate::fixture::{Fixture, MINUTE, applied, lease, message, name, queue_of};

tests! {
    on_one_thread:
        the_table_of_engines_is_up_to_date
}

/// Makes every kind of call once. Lists the commands of each, and the engines that refuse one.
async fn table(fixture: &Fixture) -> String {
    let (queue, backend) = (fixture.queue(), &fixture.backend);
    let mut table = String::from("| call | commands |");
    for engine in Engine::ALL {
        write!(table, " {engine} |").unwrap();
    }
    writeln!(table, "\n|---|---|{}", "---|".repeat(Engine::ALL.len())).unwrap();
    let mut note = |call: &str| {
        let commands: BTreeSet<String> = fixture.gate.commands();
        let names: Vec<&str> = commands.iter().map(String::as_str).collect();
        write!(table, "| {call} | {} |", names.join(", ")).unwrap();
        let findings = fixture.gate.findings();
        for engine in Engine::ALL {
            let refused: BTreeSet<&str> = findings
                .iter()
                .filter(|finding| finding.refused_by.contains(engine))
                .map(|finding| finding.item.as_str())
                .collect();
            let answer = match refused.len() {
                0 => "yes".to_owned(),
                _ => format!("no: {}", refused.into_iter().collect::<Vec<_>>().join(", ")),
            };
            write!(table, " {answer} |").unwrap();
        }
        table.push('\n');
        fixture.gate.verify().unwrap();
    };
    note("connect");
    let batch = ["a", "b", "c", "d", "e"].map(message);
    queue.enqueue_batch(&batch).await.unwrap();
    note("enqueue");
    let deliveries = lease(&queue, 5).await;
    let receipts: Vec<_> = deliveries.into_iter().map(|each| each.receipt).collect();
    note("lease");
    applied(queue.ack(&receipts[0])).await;
    queue.ack_batch(&receipts[..2]).await.unwrap();
    note("ack");
    let changes = [
        LeaseChange::extend(receipts[2].clone(), MINUTE),
        LeaseChange::nack(receipts[3].clone(), MINUTE),
        LeaseChange::dead_letter(receipts[4].clone(), "no"),
        LeaseChange::release(receipts[0].clone()),
    ];
    queue.change_batch(&changes).await.unwrap();
    note("extend, nack, release, dead-letter");
    queue.wait(Duration::ZERO).await.unwrap();
    note("wait");
    queue.stats().await.unwrap();
    note("stats");
    backend.peek(&name(), 9).await.unwrap();
    let page = PageOptions::new(9);
    backend.messages(&name(), &page).await.unwrap();
    backend.dead_letters(&name(), &page).await.unwrap();
    note("peek, list messages, list dead letters");
    backend.redrive(&name(), &Redrive::All).await.unwrap();
    backend.purge(&name(), Purge::Live).await.unwrap();
    note("redrive, purge");
    transact(fixture).await;
    note("enqueue and ack in a transaction");
    backend.list_queues().await.unwrap();
    backend.delete_queue(&name()).await.unwrap();
    note("list and delete queues");
    queue.enqueue(&message("first again")).await.unwrap();
    lease(&queue, 1).await;
    fixture.gate.verify().unwrap();
    // Last, because its client sends until it is dropped.
    let _streaming = wait_for_a_change_stream(fixture).await;
    note("wait with a change stream");
    table
}

/// Waits until a change stream reports a message.
async fn wait_for_a_change_stream(fixture: &Fixture) -> DocDbBackend {
    let streaming = fixture.streaming().connect().await.unwrap();
    let waits = queue_of(&streaming);
    let (waited, sent) = tokio::join!(waits.wait(60 * MINUTE), async {
        while !fixture.gate.commands().contains("getMore") {
            tokio::task::yield_now().await;
        }
        fixture.queue().enqueue(&message("streamed")).await
    });
    waited.unwrap();
    sent.unwrap();
    streaming
}

async fn transact(fixture: &Fixture) {
    fixture.queue().enqueue(&message("t")).await.unwrap();
    let receipt = lease(&fixture.queue(), 1).await.remove(0).receipt;
    let mut session = fixture.backend.start_session().await.unwrap();
    session.start_transaction().await.unwrap();
    let mut queues = fixture.backend.in_transaction(&mut session);
    queues.ack(&name(), &[receipt]).await.unwrap();
    queues.enqueue(&name(), &[message("next")]).await.unwrap();
    session.commit_transaction().await.unwrap();
}

async fn the_table_of_engines_is_up_to_date() {
    // No engine must accept every command, so the gate does not fail the test.
    let table = table(&Fixture::for_engines(Engines::of(&[])).await).await;
    println!("{table}");
    assert!(
        include_str!("../../docs/engines.md").contains(&table),
        "docs/engines.md has another table:\n{table}"
    );
}
