//! What the author of a backend writes: how to get a fresh store, and how to connect to it.

use std::{fmt, sync::Arc, time::Duration};

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

    /// How many random histories to try, where the environment does not say, with a third as
    /// many concurrent ones. As many as take half a minute is a good number.
    fn histories(&self) -> u32;

    /// What the backend offers beyond the core of the contract. The report says what was not
    /// claimed.
    fn capabilities(&self) -> &'static [Capability] {
        &[Capability::Admin]
    }

    /// A connection to the store that has this [`address`](Store::address), from a process that
    /// did not make it. Only asked of a harness that offers [`Capability::Processes`].
    ///
    /// # Errors
    /// There is no such store; the check fails.
    async fn attach(&self, address: &str) -> Result<Connection, HarnessError> {
        Err(format!("this harness does not offer processes; asked for {address}").into())
    }

    /// How long a check or a history may take before it fails, with the wait for its turn to
    /// inject a fault; and how long the making and the removal of a store may take.
    fn patience(&self) -> Duration {
        Duration::from_secs(60)
    }
}

/// A part of the contract that a backend may keep or not.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Capability {
    /// It implements [`QueueAdmin`]. Without it, dead letters can be counted but not looked at,
    /// and line M1 is not claimed.
    Admin,
    /// Its store is shared by processes and survives them. The suite then starts processes that
    /// work on one store, and kills them at random moments.
    ///
    /// The harness has to implement [`Harness::attach`] and [`Store::address`]; the processes
    /// are the test binary itself, started again.
    Processes,
    /// It takes all times from its server (or from nowhere), so it makes no difference that a
    /// client's clock is wrong or jumps. The suite then starts processes whose clocks are and do.
    ///
    /// Demands what [`Capability::Processes`] demands, and a system where a C compiler is at hand as
    /// `cc`, as Rust's own linking needs it on Linux.
    ServerTime,
}

impl fmt::Display for Capability {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Admin => "QueueAdmin",
            Self::Processes => "processes",
            Self::ServerTime => "server time",
        })
    }
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

    /// What another process needs to know to [`attach`](Harness::attach) to this store. Only
    /// asked of a harness that offers [`Capability::Processes`].
    fn address(&self) -> String {
        String::new()
    }

    /// What makes this store's server fail on purpose, where the harness can do that. One in
    /// three of the histories under concurrency then uses it; nothing else does.
    fn faults(&self) -> Option<Arc<dyn Faults>> {
        None
    }

    /// Removes the store and all that is in it. Called when the check is over, whether it
    /// passed, failed or panicked; connections that the check had may still be open.
    ///
    /// # Errors
    /// Something was left behind; the check fails.
    async fn remove(&self) -> Result<(), HarnessError>;
}

/// Makes a server fail on purpose, in a way that only the connections of one store notice.
///
/// A server that can be told of one fault alone is told by one store at a time: the first
/// `inject` then waits for its turn, and `heal`, or the drop of this, ends it.
#[async_trait]
pub trait Faults: Send + Sync + 'static {
    /// Has one of the next commands fail, in place of the fault that was injected before.
    ///
    /// # Errors
    /// The fault could not be injected; the check fails.
    async fn inject(&self, fault: Fault) -> Result<(), HarnessError>;

    /// Takes back what has not struck yet.
    ///
    /// # Errors
    /// The server could not be told; the check fails.
    async fn heal(&self) -> Result<(), HarnessError>;
}

/// A way in which a command fails.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Fault {
    /// It is answered with an error that passes, and has no effect.
    ErrorBefore,
    /// It takes effect, and is answered with an error.
    ErrorAfter,
    /// Its connection is closed in place of an answer.
    Disconnect,
}

impl Fault {
    /// Every fault there is.
    pub const ALL: [Self; 3] = [Self::ErrorBefore, Self::ErrorAfter, Self::Disconnect];
}

/// A backend as a check uses it.
#[derive(Clone, Debug)]
pub struct Connection {
    pub(crate) backend: Arc<dyn QueueBackend>,
    pub(crate) admin: Option<Arc<dyn QueueAdmin>>,
}

impl Connection {
    /// A connection by way of `backend`.
    pub fn new<B: QueueBackend + QueueAdmin>(backend: B) -> Self {
        let backend = Arc::new(backend);
        Self {
            admin: Some(backend.clone()),
            backend,
        }
    }

    /// A connection by way of a backend that does not offer [`Capability::Admin`].
    pub fn without_admin<B: QueueBackend>(backend: B) -> Self {
        Self {
            backend: Arc::new(backend),
            admin: None,
        }
    }

    /// The same connection by way of a wrapper around its backend. Its `QueueAdmin` stays what it
    /// was.
    #[must_use]
    pub fn wrapped(
        self,
        wrap: impl FnOnce(Arc<dyn QueueBackend>) -> Arc<dyn QueueBackend>,
    ) -> Self {
        Self {
            backend: wrap(self.backend),
            admin: self.admin,
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
