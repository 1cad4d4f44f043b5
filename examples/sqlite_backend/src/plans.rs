//! Tests that each statement uses an index, so its cost does not grow with the table.

use rusqlite::Connection;

use crate::{admin, operations, schema::SCHEMA};

fn plan(sql: &str) -> Vec<String> {
    let connection = Connection::open_in_memory().expect("memory");
    connection.execute_batch(SCHEMA).expect("the schema is SQL");
    let mut explain = connection
        .prepare(&format!("EXPLAIN QUERY PLAN {sql}"))
        .expect("the statement fits the schema");
    // A plan does not depend on the parameters, so they stay unset.
    let steps = explain.raw_query().mapped(|row| row.get("detail"));
    steps.collect::<Result<_, _>>().expect("a plan is text")
}

#[test]
fn each_statement_is_one_index_search_without_a_sort() {
    for (sql, index) in [
        (operations::READY, "ready (queue=? AND visible_at<?"),
        (operations::NEXT_READY, "ready (queue=?"),
        (operations::ACK, "receipt (receipt=?"),
        (operations::EXTEND, "receipt (receipt=?"),
        (operations::NACK, "receipt (receipt=?"),
        (operations::RELEASE, "receipt (receipt=?"),
        (operations::DEAD_LETTER, "receipt (receipt=?"),
        (admin::PEEK, "ready (queue=?"),
        (
            admin::MESSAGES,
            "sqlite_autoindex_messages_1 (queue=? AND id>?",
        ),
        (admin::PURGE_LIVE, "ready (queue=?"),
        (admin::PURGE_DEAD, "dead (queue=?"),
        (admin::DEAD_LETTERS, "dead (queue=? AND id>?"),
        (admin::REDRIVE_ALL, "dead (queue=?"),
    ] {
        let plan = plan(sql);
        // A sort would be a second step.
        assert_eq!(plan.len(), 1, "{plan:?} for {sql}");
        let step = plan[0].replace("COVERING ", "");
        let expected = format!("SEARCH messages USING INDEX {index}");
        assert!(step.starts_with(&expected), "{step} for {sql}");
    }
}

#[test]
fn stats_uses_indexes() {
    let plan = plan(operations::STATS);
    let is_scan = |step: &String| step.starts_with("SCAN messages");
    assert!(!plan.iter().any(is_scan), "{plan:?}");
}
