//! Tests of the program: they run it against a real MongoDB, and read what it prints.
//!
//! Most of them wait for it, so more of them run at a time than there are processors.

/// The tests of a file.
macro_rules! tests {
    ($($test:ident),+ $(,)?) => {
        pub(crate) fn tests() -> Vec<libtest_mimic::Trial> {
            vec![$(crate::trial(module_path!(), stringify!($test), $test)),+]
        }
    };
}

mod bench;
mod connecting;
mod dead_letters;
mod doctor;
mod enqueueing;
mod exporting;
mod fixture;
mod interrupted;
mod looking;
mod moving;
mod readme;
mod removing;
mod terminal;
mod top;
mod usage;

use std::process::ExitCode;

use libtest_mimic::{Arguments, Trial};
use tokio::runtime::Runtime;

const THREADS: usize = 6;

fn trial<F: Future<Output = ()>>(
    module: &str,
    name: &str,
    test: impl FnOnce() -> F + Send + 'static,
) -> Trial {
    let module = module.trim_start_matches("queuectl::");
    Trial::test(format!("{module}::{name}"), || {
        Runtime::new().expect("a runtime").block_on(test());
        Ok(())
    })
}

fn main() -> ExitCode {
    let mut arguments = Arguments::from_args();
    arguments.test_threads.get_or_insert(THREADS);
    let trials = [
        // The longest ones.
        top::tests(),
        doctor::servers::tests(),
        bench::tests(),
        connecting::tests(),
        dead_letters::tests(),
        doctor::clock::tests(),
        doctor::tests(),
        enqueueing::tests(),
        exporting::tests(),
        interrupted::tests(),
        looking::tests(),
        moving::tests(),
        readme::tests(),
        removing::tests(),
        terminal::tests(),
        usage::tests(),
    ];
    let trials = trials.into_iter().flatten().collect();
    libtest_mimic::run(&arguments, trials).exit_code()
}
