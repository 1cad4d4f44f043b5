//! Runs the table and the random histories under `cargo test`.

use std::{any::Any, panic::AssertUnwindSafe, process::ExitCode, sync::Arc, time::Duration};

use futures::FutureExt;
use libtest_mimic::{Arguments, Failed, Trial};
use queue_api::ManualClock;
use tokio::runtime::{Builder, Runtime};

use crate::{
    bed::Bed,
    checks::{CHECKS, Check, CheckTime},
    harness::{Harness, TestTime},
    history,
};

/// How long a check may take before it is taken for one that never ends.
const WATCHDOG: Duration = Duration::from_secs(60);

/// The random histories are tried in so many tests, which the test runner runs side by side.
const SHARDS: u32 = 4;

/// Runs the whole suite on the backend of `harness`: the `main` of a test target.
///
/// It takes the arguments of `cargo test`: a filter, `--list`, `--test-threads` and so on. No
/// check is left out, and none is ignored.
pub fn run(harness: impl Harness) -> ExitCode {
    let arguments = Arguments::from_args();
    libtest_mimic::run(&arguments, trials(Arc::new(harness))).exit_code()
}

fn trials(harness: Arc<dyn Harness>) -> Vec<Trial> {
    let checks = CHECKS.iter().map(|check| {
        let harness = harness.clone();
        Trial::test(check.full_name(), move || run_check(&*harness, check))
    });
    let histories = (0..SHARDS).map(|shard| {
        let harness = harness.clone();
        let name = format!("histories::random_histories_{}_of_{SHARDS}", shard + 1);
        Trial::test(name, move || {
            history::run_shard(&harness, &runtime(), shard, SHARDS).map_err(Failed::from)
        })
    });
    checks.chain(histories).collect()
}

impl Check {
    /// The name that the check has in `cargo test`: `L1_exclusive::no_two_…`.
    fn full_name(&self) -> String {
        format!(
            "{}::{}",
            self.line.to_string().replace([' ', '-'], "_"),
            self.name
        )
    }
}

/// Each check has a runtime of its own, so nothing that it left running meets the next.
fn runtime() -> Runtime {
    let built = Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build();
    built.expect("the system gives threads to a runtime")
}

fn run_check(harness: &dyn Harness, check: &Check) -> Result<(), Failed> {
    runtime().block_on(async {
        let time = match check.time {
            CheckTime::Manual => TestTime::Manual(Arc::new(ManualClock::new())),
            CheckTime::Real => TestTime::Real,
        };
        let store = harness
            .store(time.clone())
            .await
            .map_err(|why| why.to_string())?;
        // A panic ends the check and not the runner; the store is removed whatever happened.
        let check = async { (check.run)(Bed::new(store.clone(), time).await).await };
        let check = AssertUnwindSafe(check).catch_unwind();
        let verdict = match tokio::time::timeout(WATCHDOG, check).await {
            Ok(Ok(())) => Ok(()),
            Ok(Err(panic)) => Err(panic_message(panic)),
            Err(_) => Err(format!("did not end within {WATCHDOG:?}")),
        };
        let removed = store.remove().await;
        verdict?;
        removed.map_err(|why| format!("the store could not be removed: {why}"))?;
        Ok(())
    })
}

fn panic_message(panic: Box<dyn Any + Send>) -> String {
    match panic.downcast::<String>() {
        Ok(message) => *message,
        Err(panic) => match panic.downcast::<&'static str>() {
            Ok(message) => (*message).to_owned(),
            Err(_) => "panicked".to_owned(),
        },
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;
    use crate::contract::Line;

    #[test]
    fn every_line_of_the_contract_has_a_check() {
        for line in Line::ALL {
            assert!(
                CHECKS.iter().any(|check| check.line == *line),
                "{line} has no check"
            );
        }
    }

    #[test]
    fn every_check_has_a_name_of_its_own() {
        let names: HashSet<_> = CHECKS.iter().map(Check::full_name).collect();
        assert_eq!(names.len(), CHECKS.len());
    }
}
