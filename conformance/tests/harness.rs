//! A harness that fails: every item still has a result, and every store is removed.

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

/// How the harness fails.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum HarnessFailure {
    CannotConnect,
    PanicsWhenConnecting,
    InjectNeverReturns,
}

#[derive(Clone, Default)]
struct Count {
    made: Arc<AtomicUsize>,
    removed: Arc<AtomicUsize>,
}

#[derive(Clone)]
struct FailingHarness {
    failure: HarnessFailure,
    count: Count,
}

impl FailingHarness {
    /// Returns the report and the number of stores that were not removed.
    fn run(failure: HarnessFailure) -> (Report, usize) {
        let count = Count::default();
        let harness = Self {
            failure,
            count: count.clone(),
        };
        let report = report(harness, 4, &[]);
        let made = count.made.load(Ordering::SeqCst);
        assert!(made > 0);
        (report, made - count.removed.load(Ordering::SeqCst))
    }
}

#[async_trait]
impl Harness for FailingHarness {
    async fn store(&self, time: TestTime) -> Result<Arc<dyn Store>, HarnessError> {
        self.count.made.fetch_add(1, Ordering::SeqCst);
        let backend = time.give_to(MemoryBackend::new(), MemoryBackend::with_clock);
        let harness = self.clone();
        Ok(Arc::new(FailingStore { harness, backend }))
    }

    fn histories(&self) -> u32 {
        // So many that at least one concurrent history uses faults, but for one run in a million.
        match self.failure {
            HarnessFailure::InjectNeverReturns => 100,
            _ => 4,
        }
    }

    fn capabilities(&self) -> &'static [Capability] {
        match self.failure {
            HarnessFailure::InjectNeverReturns => &[Capability::Admin],
            _ => &[
                Capability::Admin,
                Capability::Processes,
                Capability::ServerTime,
            ],
        }
    }

    fn timeout(&self) -> Duration {
        match self.failure {
            // Longer than the checks in real time take. A call that never returns takes all of it.
            HarnessFailure::InjectNeverReturns => Duration::from_secs(8),
            _ => Duration::from_secs(60),
        }
    }
}

struct FailingStore {
    harness: FailingHarness,
    backend: MemoryBackend,
}

#[async_trait]
impl Store for FailingStore {
    async fn connect(&self) -> Result<Connection, HarnessError> {
        match self.harness.failure {
            HarnessFailure::CannotConnect => Err("the server is away".into()),
            HarnessFailure::PanicsWhenConnecting => panic!("the author made a mistake"),
            HarnessFailure::InjectNeverReturns => Ok(Connection::new(self.backend.clone())),
        }
    }

    fn faults(&self) -> Option<Arc<dyn Faults>> {
        Some(Arc::new(NeverInjects))
    }

    async fn remove(&self) -> Result<(), HarnessError> {
        self.harness.count.removed.fetch_add(1, Ordering::SeqCst);
        Ok(())
    }
}

struct NeverInjects;

#[async_trait]
impl Faults for NeverInjects {
    fn met(&self) -> u64 {
        0
    }

    async fn inject(&self, _: Fault) -> Result<(), HarnessError> {
        std::future::pending().await
    }

    async fn clear(&self) -> Result<(), HarnessError> {
        Ok(())
    }
}

/// The names of the items.
fn names_of(report: &Report) -> BTreeSet<&str> {
    report.results.iter().map(|v| &*v.check).collect()
}

#[test]
fn every_item_reports_a_harness_that_cannot_connect() {
    let (refusing, left) = FailingHarness::run(HarnessFailure::CannotConnect);
    assert_eq!(left, 0, "each store is removed");
    for result in &refusing.results {
        let Outcome::Failed(why) = &result.outcome else {
            panic!("{} passes without a connection", result.check);
        };
        let expected = "the harness cannot connect: the server is away";
        assert!(why.contains(expected), "{}: {why}", result.check);
        assert!(!why.contains("breaks the contract"), "{why}");
    }
    let names = names_of(&refusing);
    assert_eq!(names.len(), refusing.results.len());
    assert!(names.contains("histories::concurrent_histories_4_of_4"));
    assert!(names.contains("L2_visible_again::clients_with_wrong_clocks_do_no_harm"));

    let (panicking, left) = FailingHarness::run(HarnessFailure::PanicsWhenConnecting);
    assert_eq!(left, 0, "each store is removed");
    assert_eq!(names_of(&panicking), names);
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
fn a_fault_that_is_never_injected_times_out() {
    let (report, left) = FailingHarness::run(HarnessFailure::InjectNeverReturns);
    assert_eq!(left, 0, "each store is removed");
    let late = "did not end within 8s";
    let times_out = |result: &&queue_conformance::CheckResult| {
        result.check.contains("concurrent_histories")
            && matches!(&result.outcome, Outcome::Failed(why) if why.starts_with(late))
    };
    assert!(report.results.iter().any(|v| times_out(&v)), "{report}");
}
