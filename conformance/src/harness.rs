//! What you implement to run the suite: how to make a store, and how to connect to it.

use std::{fmt, sync::Arc, time::Duration};

use queue_api::{Clock, ManualClock, QueueAdmin, QueueBackend, async_trait};

/// An error of a harness. The suite only prints it.
pub type HarnessError = Box<dyn std::error::Error + Send + Sync>;

/// Makes a new store for each check, so that checks can run in parallel.
#[async_trait]
pub trait Harness: Send + Sync + 'static {
    /// Makes an empty store that no other check uses.
    ///
    /// # Errors
    /// The store cannot be made. The check fails.
    async fn store(&self, time: TestTime) -> Result<Arc<dyn Store>, HarnessError>;

    /// The number of random histories, unless the environment sets it. A third as many concurrent
    /// histories run too. Choose a number that takes about half a minute.
    fn histories(&self) -> u32;

    /// The capabilities that the backend offers. The report names those that it does not offer.
    fn capabilities(&self) -> &'static [Capability] {
        &[Capability::Admin]
    }

    /// Connects to the store with this [`address`](Store::address), from another process. Called
    /// only if the harness offers [`Capability::Processes`].
    ///
    /// # Errors
    /// There is no such store. The check fails.
    async fn attach(&self, address: &str) -> Result<Connection, HarnessError> {
        Err(format!("this harness does not offer processes; the address is {address:?}").into())
    }

    /// The time that a check or a history may take, including the wait to inject a fault. It is
    /// also the time for making a store and for removing one.
    ///
    /// A `wait` has a sixth of it to notice that a message is ready, so a backend that polls must
    /// look more often. If one is ready when the wait begins, it has a sixtieth and the time of ten `stats`
    /// calls.
    fn timeout(&self) -> Duration {
        Duration::from_secs(60)
    }
}

/// A part of the suite that a backend may offer or not.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Capability {
    /// It implements [`QueueAdmin`]. Without it, line M1 is not checked, and dead letters are
    /// counted but not read.
    Admin,
    /// Processes share its store, and the store survives them. The suite starts the test binary
    /// several times on one store and kills these processes at random moments.
    ///
    /// Implement [`Harness::attach`] and [`Store::address`] for it.
    Processes,
    /// It takes all times from its server, so a wrong client clock does no harm. The suite starts
    /// processes whose clocks are wrong or jump.
    ///
    /// This needs what [`Capability::Processes`] needs, and a C compiler named `cc` on Linux.
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

/// The store of one check.
#[async_trait]
pub trait Store: Send + Sync + 'static {
    /// Makes a new connection that shares no state with earlier ones, as another process would. For
    /// a backend in memory, make another handle.
    ///
    /// # Errors
    /// The store cannot be reached. The check fails.
    async fn connect(&self) -> Result<Connection, HarnessError>;

    /// What another process needs to [`attach`](Harness::attach) to this store. Called only if the
    /// harness offers [`Capability::Processes`].
    fn address(&self) -> String {
        String::new()
    }

    /// Makes the server of this store fail on purpose, if the harness can. One in three concurrent
    /// histories uses it.
    fn faults(&self) -> Option<Arc<dyn Faults>> {
        None
    }

    /// Removes the store with all messages. Called after each check, also if it failed or
    /// panicked. Connections of the check may still be open.
    ///
    /// # Errors
    /// The store cannot be removed. The check fails.
    async fn remove(&self) -> Result<(), HarnessError>;
}

/// Makes a server fail on purpose, but only for the connections of one store.
///
/// Some servers can have one fault at a time. Let the first `inject` of a store wait until the
/// others are done; `clear`, or the drop of this, lets the next store go on.
#[async_trait]
pub trait Faults: Send + Sync + 'static {
    /// Makes one of the next commands fail. This replaces the last fault.
    ///
    /// # Errors
    /// The fault cannot be injected. The check fails.
    async fn inject(&self, fault: Fault) -> Result<(), HarnessError>;

    /// Removes a fault that has not taken effect.
    ///
    /// # Errors
    /// The fault cannot be removed. The check fails.
    async fn clear(&self) -> Result<(), HarnessError>;

    /// How many commands had met a fault when `inject` or `clear` was last called. The number may
    /// count those of other stores before the first `inject`.
    fn met(&self) -> u64;
}

/// How a command fails.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Fault {
    /// It has no effect, and the answer is a temporary error.
    ErrorBefore,
    /// It takes effect, and the answer is an error.
    ErrorAfter,
    /// The connection is closed instead of an answer.
    Disconnect,
}

impl Fault {
    /// Every fault.
    pub const ALL: [Self; 3] = [Self::ErrorBefore, Self::ErrorAfter, Self::Disconnect];
}

/// A connection to a store.
#[derive(Clone, Debug)]
pub struct Connection {
    pub(crate) backend: Arc<dyn QueueBackend>,
    pub(crate) admin: Option<Arc<dyn QueueAdmin>>,
}

impl Connection {
    /// A connection with `QueueAdmin`.
    pub fn new<B: QueueBackend + QueueAdmin>(backend: B) -> Self {
        let backend = Arc::new(backend);
        Self {
            admin: Some(backend.clone()),
            backend,
        }
    }

    /// A connection of a backend that does not offer [`Capability::Admin`].
    pub fn without_admin<B: QueueBackend>(backend: B) -> Self {
        Self {
            backend: Arc::new(backend),
            admin: None,
        }
    }

    /// Puts a wrapper around the backend. The `QueueAdmin` stays as it is.
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

/// The clock of a store.
#[derive(Clone, Debug)]
pub enum TestTime {
    /// A clock that the check moves. Every connection to the store must use it.
    Manual(Arc<ManualClock>),
    /// The backend's own clock.
    Real,
}

impl TestTime {
    /// Passes the manual clock, if there is one, to a backend that is being built.
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
