//! Producers and consumers, each a process, on a replica set whose members fail.
//!
//! `QUEUE_FAILOVER_ROUNDS=20 cargo test -p queue-docdb --test docdb failover` runs twenty rounds of
//! mixed scenarios; without the variable, each scenario runs once. See `docs/failover.md`.

mod client;
mod clients;
mod report;
mod round;
mod rounds;
mod scenario;
mod self_test;
mod table;

pub(crate) use client::client_main;

tests! {
    without_runtime:
        the_table_shows_each_violation,
        nothing_is_lost_in_a_failover
}

fn the_table_shows_each_violation() {
    self_test::the_table_shows_each_violation();
}

fn nothing_is_lost_in_a_failover() {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .enable_all()
        .build()
        .unwrap();
    runtime
        .block_on(rounds::run())
        .unwrap_or_else(|why| panic!("{why}"));
}
