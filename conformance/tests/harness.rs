//! What becomes of a harness that does not do its part: each item still has a result, and each
//! store that was made is removed.

use std::{
    collections::BTreeSet,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use queue_api::async_trait;
use queue_conformance::{
    Capability, Connection, Fault, Faults, Harness, HarnessError, Outcome, Report, Store, TestTime,
    report,
};
use queue_memory::MemoryBackend;

/// What the harness does wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Wrong {
    CannotConnect,
    PanicsWhenConnecting,
    FaultsNeverHaveTheirTurn,
}

#[derive(Clone, Default)]
struct Count {
    made: Arc<AtomicUsize>,
    removed: Arc<AtomicUsize>,
}

#[derive(Clone)]
struct Broken {
    wrong: Wrong,
    count: Count,
}

impl Broken {
    /// The report on it, and the stores that were left behind.
    fn examined(wrong: Wrong) -> (Report, usize) {
        let count = Count::default();
        let broken = Self {
            wrong,
            count: count.clone(),
        };
        let report = report(broken, 4);
        let made = count.made.load(Ordering::SeqCst);
        assert!(made > 0);
        (report, made - count.removed.load(Ordering::SeqCst))
    }
}

#[async_trait]
impl Harness for Broken {
    async fn store(&self, time: TestTime) -> Result<Arc<dyn Store>, HarnessError> {
        self.count.made.fetch_add(1, Ordering::SeqCst);
        let backend = time.give_to(MemoryBackend::new(), MemoryBackend::with_clock);
        let broken = self.clone();
        Ok(Arc::new(BrokenStore { broken, backend }))
    }

    fn histories(&self) -> u32 {
        // So many that one of the concurrent ones meets faults, but for one time in a million.
        match self.wrong {
            Wrong::FaultsNeverHaveTheirTurn => 100,
            _ => 4,
        }
    }

    fn capabilities(&self) -> &'static [Capability] {
        match self.wrong {
            Wrong::FaultsNeverHaveTheirTurn => &[Capability::Admin],
            _ => &[
                Capability::Admin,
                Capability::Processes,
                Capability::ServerTime,
            ],
        }
    }

    fn timeout(&self) -> Duration {
        match self.wrong {
            // Longer than the checks in real time take; what never comes costs all of it.
            Wrong::FaultsNeverHaveTheirTurn => Duration::from_secs(8),
            _ => Duration::from_secs(60),
        }
    }
}

struct BrokenStore {
    broken: Broken,
    backend: MemoryBackend,
}

#[async_trait]
impl Store for BrokenStore {
    async fn connect(&self) -> Result<Connection, HarnessError> {
        match self.broken.wrong {
            Wrong::CannotConnect => Err("the server is away".into()),
            Wrong::PanicsWhenConnecting => panic!("the author made a mistake"),
            Wrong::FaultsNeverHaveTheirTurn => Ok(Connection::new(self.backend.clone())),
        }
    }

    fn faults(&self) -> Option<Arc<dyn Faults>> {
        Some(Arc::new(NoTurn))
    }

    async fn remove(&self) -> Result<(), HarnessError> {
        self.broken.count.removed.fetch_add(1, Ordering::SeqCst);
        Ok(())
    }
}

struct NoTurn;

#[async_trait]
impl Faults for NoTurn {
    async fn inject(&self, _: Fault) -> Result<(), HarnessError> {
        std::future::pending().await
    }

    async fn clear(&self) -> Result<(), HarnessError> {
        Ok(())
    }
}

/// Every item of the suite, by what it says of a backend that passes.
fn all_items(report: &Report) -> BTreeSet<&str> {
    report.results.iter().map(|v| &*v.check).collect()
}

#[test]
fn each_item_tells_of_a_harness_that_cannot_connect() {
    let (refusing, left) = Broken::examined(Wrong::CannotConnect);
    assert_eq!(left, 0, "each store is removed");
    for result in &refusing.results {
        let Outcome::Failed(why) = &result.outcome else {
            panic!("{} passes without a connection", result.check);
        };
        let expected = "the harness cannot connect: the server is away";
        assert!(why.contains(expected), "{}: {why}", result.check);
        assert!(!why.contains("breaks the contract"), "{why}");
    }
    let names = all_items(&refusing);
    assert_eq!(names.len(), refusing.results.len());
    assert!(names.contains("histories::concurrent_histories_4_of_4"));
    assert!(names.contains("L2_visible_again::clients_with_wrong_clocks_do_no_harm"));

    let (panicking, left) = Broken::examined(Wrong::PanicsWhenConnecting);
    assert_eq!(left, 0, "each store is removed");
    assert_eq!(all_items(&panicking), names);
    for result in &panicking.results {
        let Outcome::Failed(why) = &result.outcome else {
            panic!("{} passes without a connection", result.check);
        };
        let what_and_where = why.contains("the author made a mistake\nat ");
        assert!(what_and_where, "{}: {why}", result.check);
        assert!(why.contains("tests/harness.rs:"), "{why}");
    }
}

#[test]
fn a_fault_that_never_has_its_turn_is_not_waited_for_for_ever() {
    let (report, left) = Broken::examined(Wrong::FaultsNeverHaveTheirTurn);
    assert_eq!(left, 0, "each store is removed");
    let late = "did not end within 8s";
    let tells = |result: &&queue_conformance::CheckResult| {
        result.check.contains("concurrent_histories")
            && matches!(&result.outcome, Outcome::Failed(why) if why.starts_with(late))
    };
    assert!(report.results.iter().any(|v| tells(&v)), "{report}");
}
