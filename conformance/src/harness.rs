//! What the author of a backend writes: how to get a fresh store, and how to connect to it.

use std::{fmt, sync::Arc};

use queue_api::{Clock, ManualClock, QueueAdmin, QueueBackend, async_trait};

/// What may go wrong in a harness: the suite only prints it.
pub type HarnessError = Box<dyn std::error::Error + Send + Sync>;

/// Makes stores for the suite: one for each check, so that checks run side by side.
#[async_trait]
pub trait Harness: Send + Sync + 'static {
    /// A store of its own: empty, and seen by nobody else.
    ///
    /// # Errors
    /// The store could not be made; the check fails.
    async fn store(&self, time: TestTime) -> Result<Arc<dyn Store>, HarnessError>;

    /// How many random histories to try, where neither the command line nor the environment
    /// says. As many as take half a minute is a good number.
    fn histories(&self) -> u32;
}

/// A store that one check works on.
#[async_trait]
pub trait Store: Send + Sync + 'static {
    /// A connection of its own, as another process would make it: nothing is remembered from
    /// those before. For a backend that lives in one process, another handle on it.
    ///
    /// # Errors
    /// The store cannot be reached; the check fails.
    async fn connect(&self) -> Result<Connection, HarnessError>;

    /// Removes the store and all that is in it. Called when the check is over, whether it
    /// passed, failed or panicked, with every connection dropped that the check had.
    ///
    /// # Errors
    /// Something was left behind; the check fails.
    async fn remove(&self) -> Result<(), HarnessError>;
}

/// A backend as a check uses it.
#[derive(Clone, Debug)]
pub struct Connection {
    pub(crate) backend: Arc<dyn QueueBackend>,
    pub(crate) admin: Arc<dyn QueueAdmin>,
}

impl Connection {
    /// A connection by way of `backend`.
    pub fn new<B: QueueBackend + QueueAdmin>(backend: B) -> Self {
        let backend = Arc::new(backend);
        Self {
            admin: backend.clone(),
            backend,
        }
    }
}

/// The time that a store is to run on.
#[derive(Clone, Debug)]
pub enum TestTime {
    /// A clock that the check moves: every connection to the store takes its time from it.
    Manual(Arc<ManualClock>),
    /// The backend's own default.
    Real,
}

impl TestTime {
    /// Hands the manual clock, if that is what the check runs on, to a backend that is being
    /// built.
    ///
    /// ```
    /// use queue_conformance::TestTime;
    /// use queue_memory::MemoryBackend;
    ///
    /// let backend = TestTime::Real.give_to(MemoryBackend::new(), MemoryBackend::with_clock);
    /// # drop(backend);
    /// ```
    pub fn give_to<B>(&self, backend: B, with_clock: impl FnOnce(B, Arc<dyn Clock>) -> B) -> B {
        match self {
            Self::Manual(clock) => with_clock(backend, clock.clone()),
            Self::Real => backend,
        }
    }
}

impl fmt::Debug for dyn Store {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Store")
    }
}
