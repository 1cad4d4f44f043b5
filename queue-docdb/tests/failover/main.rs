//! Producers and consumers, each a process, on a replica set whose members fail.
//!
//! `QUEUE_FAILOVER_ROUNDS=20 cargo test -p queue-docdb --test failover` runs twenty rounds of
//! mixed scenarios; without the variable, each scenario runs once. See `docs/failover.md`.

mod client;
mod clients;
mod report;
mod round;
mod rounds;
mod scenario;
mod self_test;
mod table;

use std::process::ExitCode;

use libtest_mimic::{Arguments, Failed, Trial};

fn main() -> ExitCode {
    if let Some(ended) = client::client_main() {
        return ended;
    }
    let rounds = || {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .enable_all()
            .build()?;
        runtime.block_on(rounds::run()).map_err(Failed::from)
    };
    let trials = vec![
        Trial::test("the_table_shows_each_violation", || {
            self_test::the_table_shows_each_violation();
            Ok(())
        }),
        Trial::test("nothing_is_lost_in_a_failover", rounds),
    ];
    libtest_mimic::run(&Arguments::from_args(), trials).exit_code()
}
