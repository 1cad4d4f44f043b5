//! How SQLite goes about the statements: each is led by an index, whatever a queue holds.

use rusqlite::Connection;

use crate::{admin, operations, schema::SCHEMA};

fn plan(sql: &str) -> Vec<String> {
    let connection = Connection::open_in_memory().expect("memory");
    connection.execute_batch(SCHEMA).expect("the schema is SQL");
    let mut explain = connection
        .prepare(&format!("EXPLAIN QUERY PLAN {sql}"))
        .expect("the statement fits the schema");
    // The parameters stay null: a plan is made without them.
    let steps = explain.raw_query().mapped(|row| row.get("detail"));
    steps.collect::<Result<_, _>>().expect("a plan is text")
}

#[test]
fn each_statement_is_one_search_in_order() {
    for (sql, index) in [
        (operations::READY, "claim (queue=? AND visible_at<?"),
        (operations::HEAD, "claim (queue=?"),
        (operations::ACK, "receipt (receipt=?"),
        (operations::EXTEND, "receipt (receipt=?"),
        (operations::NACK, "receipt (receipt=?"),
        (operations::RETURN, "receipt (receipt=?"),
        (operations::REJECT, "receipt (receipt=?"),
        (admin::PEEK, "claim (queue=?"),
        (admin::PURGE_LIVE, "claim (queue=?"),
        (admin::PURGE_DEAD, "dead (queue=?"),
        (admin::DEAD_LETTERS, "dead (queue=? AND id>?"),
        (admin::REDRIVE_ALL, "dead (queue=?"),
    ] {
        let plan = plan(sql);
        // One step: a sort would be a second.
        assert_eq!(plan.len(), 1, "{plan:?} for {sql}");
        let step = plan[0].replace("COVERING ", "");
        let expected = format!("SEARCH messages USING INDEX {index}");
        assert!(step.starts_with(&expected), "{step} for {sql}");
    }
}

#[test]
fn stats_count_along_indexes() {
    let plan = plan(operations::STATS);
    let is_scan = |step: &String| step.starts_with("SCAN messages");
    assert!(!plan.iter().any(is_scan), "{plan:?}");
}
