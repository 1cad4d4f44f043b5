//! Tests of what the conformance suite does not check.
//!
//! Most of them wait: for timeouts, elections, back-offs. So more of them run at a time than there are
//! processors.

/// The tests of a file, by the runtime that they need.
macro_rules! tests {
    ($($runtime:ident: $($test:ident),+);+) => {
        pub(crate) fn tests() -> Vec<libtest_mimic::Trial> {
            vec![$($(crate::$runtime(module_path!(), stringify!($test), $test)),+),+]
        }
    };
}

mod certificates;
mod codes;
mod connecting;
mod damage;
mod documents;
mod engines;
mod failing_server;
mod failover;
mod fixture;
mod foreign;
mod forwarder;
mod inspection;
mod late_messages;
mod locked;
mod long_names;
mod members_away;
mod missing_unique_index;
mod mistakes;
mod operators_indexes;
mod outages;
mod plans;
mod pools;
mod remembered;
mod reserved_names;
mod rights;
mod round_trips;
mod runtimes;
mod schema;
mod sessions;
mod settings;
mod shared_waits;
mod sharing;
mod silent_connection;
mod sizes;
mod stream_backoff;
#[cfg(target_os = "linux")]
mod suspended;
mod transaction_handles;
mod transactions;
mod unique_index;
mod unreadable;
mod uri_settings;
mod waking;
mod warnings;

use std::{process::ExitCode, time::Duration};

use libtest_mimic::{Arguments, Trial};
use tokio::runtime::Builder;

const THREADS: usize = 8;

/// Ten times what the slowest test needs.
const LIMIT: Duration = Duration::from_secs(900);

fn on_one_thread<F: Future<Output = ()>>(
    module: &str,
    name: &str,
    test: impl FnOnce() -> F + Send + 'static,
) -> Trial {
    without_runtime(module, name, || {
        run(&mut Builder::new_current_thread(), test())
    })
}

fn on_threads<F: Future<Output = ()>>(
    module: &str,
    name: &str,
    test: impl FnOnce() -> F + Send + 'static,
) -> Trial {
    without_runtime(module, name, || {
        run(&mut Builder::new_multi_thread(), test())
    })
}

/// For tests that make their own.
fn without_runtime(module: &str, name: &str, test: impl FnOnce() + Send + 'static) -> Trial {
    let module = module.trim_start_matches("docdb::");
    Trial::test(format!("{module}::{name}"), || {
        test();
        Ok(())
    })
}

fn run(runtime: &mut Builder, test: impl Future<Output = ()>) {
    let runtime = runtime.enable_all().build().expect("a runtime");
    let ended = runtime.block_on(async { tokio::time::timeout(LIMIT, test).await });
    assert!(ended.is_ok(), "the test did not end within {LIMIT:?}");
}

fn main() -> ExitCode {
    if let Some(ended) = failover::client_main() {
        return ended;
    }
    let mut arguments = Arguments::from_args();
    warnings::count_from_now();
    arguments.test_threads.get_or_insert(THREADS);
    let trials = [
        // The longest ones.
        failover::tests(),
        stream_backoff::tests(),
        unreadable::tests(),
        unreadable::dead_letters::tests(),
        codes::tests(),
        connecting::tests(),
        damage::tests(),
        documents::tests(),
        engines::tests(),
        foreign::tests(),
        inspection::tests(),
        late_messages::tests(),
        locked::tests(),
        long_names::tests(),
        members_away::tests(),
        missing_unique_index::tests(),
        mistakes::tests(),
        operators_indexes::tests(),
        outages::tests(),
        plans::tests(),
        pools::tests(),
        remembered::tests(),
        reserved_names::tests(),
        rights::tests(),
        round_trips::tests(),
        runtimes::tests(),
        schema::tests(),
        sessions::tests(),
        settings::tests(),
        shared_waits::tests(),
        sharing::tests(),
        silent_connection::tests(),
        sizes::tests(),
        #[cfg(target_os = "linux")]
        suspended::tests(),
        transaction_handles::tests(),
        transactions::tests(),
        unique_index::tests(),
        uri_settings::tests(),
        waking::tests(),
    ];
    let trials = trials.into_iter().flatten().collect();
    libtest_mimic::run(&arguments, trials).exit_code()
}
