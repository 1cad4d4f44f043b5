//! The conformance suite on the memory backend.

use std::{process::ExitCode, sync::Arc};

use queue_api::async_trait;
use queue_conformance::{Connection, Harness, HarnessError, Store, TestTime};
use queue_memory::MemoryBackend;

pub(crate) struct Memory;

struct MemoryStore(MemoryBackend);

#[async_trait]
impl Harness for Memory {
    async fn store(&self, time: TestTime) -> Result<Arc<dyn Store>, HarnessError> {
        let backend = time.give_to(MemoryBackend::new(), MemoryBackend::with_clock);
        Ok(Arc::new(MemoryStore(backend)))
    }

    fn histories(&self) -> u32 {
        2000
    }
}

#[async_trait]
impl Store for MemoryStore {
    /// A second connection is another handle, because the queues live in this process.
    async fn connect(&self) -> Result<Connection, HarnessError> {
        Ok(Connection::new(self.0.clone()))
    }

    async fn remove(&self) -> Result<(), HarnessError> {
        Ok(())
    }
}

fn main() -> ExitCode {
    queue_conformance::run(Memory)
}
