//! The suite on a wrapper around a backend.

use std::{fmt, sync::Arc, time::Duration};

use queue_api::{QueueBackend, async_trait};

use crate::harness::{Capability, Connection, Faults, Harness, HarnessError, Store, TestTime};

type Wrap = fn(Arc<dyn QueueBackend>) -> Arc<dyn QueueBackend>;

/// A harness that puts a wrapper around every backend of another harness. It offers the same
/// capabilities, because a wrapper must not lose any.
///
/// ```
/// use std::sync::Arc;
/// use queue_api::Batching;
/// use queue_conformance::{Harness, Wrapped};
///
/// fn batching(plain: impl Harness) -> impl Harness {
///     Wrapped::new(plain, |backend| Arc::new(Batching::new(backend))).with_histories(20)
/// }
/// ```
pub struct Wrapped<H> {
    plain: H,
    wrap: Wrap,
    histories: Option<u32>,
}

impl<H: Harness> Wrapped<H> {
    /// Applies `wrap` to every backend of `plain`.
    pub fn new(plain: H, wrap: Wrap) -> Self {
        Self {
            plain,
            wrap,
            histories: None,
        }
    }

    /// Runs this many random histories instead of the number of the plain harness.
    #[must_use]
    pub fn with_histories(mut self, histories: u32) -> Self {
        self.histories = Some(histories);
        self
    }
}

impl<H> fmt::Debug for Wrapped<H> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Wrapped")
            .field("histories", &self.histories)
            .finish_non_exhaustive()
    }
}

#[async_trait]
impl<H: Harness> Harness for Wrapped<H> {
    async fn store(&self, time: TestTime) -> Result<Arc<dyn Store>, HarnessError> {
        let plain = self.plain.store(time).await?;
        let wrap = self.wrap;
        Ok(Arc::new(WrappedStore { plain, wrap }))
    }

    fn histories(&self) -> u32 {
        self.histories.unwrap_or_else(|| self.plain.histories())
    }

    fn capabilities(&self) -> &'static [Capability] {
        self.plain.capabilities()
    }

    async fn attach(&self, address: &str) -> Result<Connection, HarnessError> {
        Ok(self.plain.attach(address).await?.wrapped(self.wrap))
    }

    fn timeout(&self) -> Duration {
        self.plain.timeout()
    }
}

struct WrappedStore {
    plain: Arc<dyn Store>,
    wrap: Wrap,
}

#[async_trait]
impl Store for WrappedStore {
    async fn connect(&self) -> Result<Connection, HarnessError> {
        Ok(self.plain.connect().await?.wrapped(self.wrap))
    }

    fn address(&self) -> String {
        self.plain.address()
    }

    fn faults(&self) -> Option<Arc<dyn Faults>> {
        self.plain.faults()
    }

    async fn remove(&self) -> Result<(), HarnessError> {
        self.plain.remove().await
    }
}
