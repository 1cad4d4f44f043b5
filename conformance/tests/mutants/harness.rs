//! The plain backend, plugged into the suite.

use std::{
    sync::Arc,
    time::{Duration, SystemTime},
};

use queue_api::{Clock, Limits, TokioClock, async_trait};
use queue_conformance::{Capability, Connection, Harness, HarnessError, Store, TestTime};
use uuid::Uuid;

use crate::{
    backend::{Backend, Shared},
    bug::Bug,
    file::{Folder, FolderClock},
    message::Ties,
};

/// The plain backend with one bug, or with none.
#[derive(Clone, Debug)]
pub(crate) struct Mutant {
    pub(crate) bug: Option<Bug>,
    pub(crate) limits: Limits,
    pub(crate) ties: Ties,
    patience: Duration,
    capabilities: &'static [Capability],
}

/// Small ones, because hundreds of backends are examined in a minute.
pub(crate) const LIMITS: Limits = Limits {
    max_batch: 200,
    max_payload_bytes: 256 << 10,
    max_header_bytes: 8 << 10,
    ..Limits::STANDARD
};

/// The smallest that the suite can work with.
const LEAST_LIMITS: Limits = Limits {
    max_batch: 10,
    max_payload_bytes: 100_000,
    max_header_bytes: 1000,
    max_visibility_timeout: Duration::from_secs(7200),
    max_delay: Duration::from_secs(7200),
};

impl Mutant {
    pub(crate) fn new(bug: Option<Bug>, patience: Duration) -> Self {
        // Processes take seconds, so they are for the bugs that only processes see.
        let capabilities: &[Capability] = match bug {
            None | Some(Bug::LeaseInTwoWrites | Bug::ClientTime) => &[
                Capability::Admin,
                Capability::Processes,
                Capability::ServerTime,
            ],
            _ => &[Capability::Admin],
        };
        let limits = LIMITS;
        Self {
            bug,
            limits,
            ties: Ties::default(),
            patience,
            capabilities,
        }
    }

    /// The same backend with another order where the contract asks for none.
    pub(crate) fn with_ties(self, ties: Ties) -> Self {
        Self { ties, ..self }
    }

    /// The same backend as its author may have made it: it capabilities nothing, and it does not take
    /// more than it must.
    pub(crate) fn at_its_least(self) -> Self {
        let limits = LEAST_LIMITS;
        Self {
            limits,
            capabilities: &[],
            ..self
        }
    }
}

struct MutantStore {
    mutant: Mutant,
    clock: Arc<dyn Clock>,
    folder: Option<Folder>,
    shared: Arc<Shared>,
}

#[async_trait]
impl Harness for Mutant {
    async fn store(&self, time: TestTime) -> Result<Arc<dyn Store>, HarnessError> {
        let (clock, folder): (Arc<dyn Clock>, _) = match time {
            TestTime::Manual(clock) if self.bug != Some(Bug::GivenClockIgnored) => (clock, None),
            TestTime::Real if self.capabilities.contains(&Capability::Processes) => {
                let folder = Folder::make(&format!("queue-mutant-{}", Uuid::now_v7()))?;
                (folder_clock(self.bug, &folder), Some(folder))
            }
            _ => (default_clock(self.bug), None),
        };
        Ok(Arc::new(MutantStore {
            mutant: self.clone(),
            shared: Arc::new(Shared::new(self, clock.clone(), folder.clone())),
            clock,
            folder,
        }))
    }

    fn histories(&self) -> u32 {
        40
    }

    fn capabilities(&self) -> &'static [Capability] {
        self.capabilities
    }

    async fn attach(&self, address: &str) -> Result<Connection, HarnessError> {
        let (bug, path) = address.split_once(' ').ok_or("an address has two parts")?;
        let bug = Bug::ALL
            .iter()
            .copied()
            .find(|known| format!("{known:?}") == bug);
        let folder = Folder::at(path)?;
        let clock = folder_clock(bug, &folder);
        let shared = Shared::new(&Self::new(bug, self.patience), clock, Some(folder));
        Ok(Connection::new(Backend::connect(Arc::new(shared))))
    }

    fn timeout(&self) -> Duration {
        self.patience
    }
}

fn folder_clock(bug: Option<Bug>, folder: &Folder) -> Arc<dyn Clock> {
    match bug {
        Some(Bug::ClientTime) => Arc::new(TokioClock::new()),
        _ => Arc::new(FolderClock::new(folder.clone())),
    }
}

#[async_trait]
impl Store for MutantStore {
    async fn connect(&self) -> Result<Connection, HarnessError> {
        let shared = match self.mutant.bug {
            Some(Bug::StateLostOnReconnect) => {
                Arc::new(Shared::new(&self.mutant, self.clock.clone(), None))
            }
            _ => self.shared.clone(),
        };
        let backend = Backend::connect(shared);
        Ok(
            match self.mutant.capabilities.contains(&Capability::Admin) {
                true => Connection::new(backend),
                false => Connection::without_admin(backend),
            },
        )
    }

    /// The bug's name, for the process that attaches, and the folder.
    fn address(&self) -> String {
        let bug = self
            .mutant
            .bug
            .map_or("none".to_owned(), |bug| format!("{bug:?}"));
        let path = self.folder.as_ref().map(Folder::to_string);
        format!("{bug} {}", path.unwrap_or_default())
    }

    async fn remove(&self) -> Result<(), HarnessError> {
        match &self.folder {
            Some(folder) => Ok(folder.remove()?),
            None => Ok(()),
        }
    }
}

fn default_clock(bug: Option<Bug>) -> Arc<dyn Clock> {
    let real = TokioClock::new();
    let started_at = real.now();
    let (speed, timer_speed) = match bug {
        Some(Bug::DefaultClockStandsStill) => (0.0, 1.0),
        Some(Bug::DefaultClockTenTimesSlow) => (0.1, 1.0),
        Some(Bug::TimersTooSlow) => (1.0, 0.1),
        _ => return Arc::new(real),
    };
    Arc::new(BrokenClock {
        real,
        started_at,
        speed,
        timer_speed,
    })
}

/// A clock that runs at its own speed, with a timer that runs at another.
#[derive(Debug)]
struct BrokenClock {
    real: TokioClock,
    started_at: SystemTime,
    speed: f64,
    timer_speed: f64,
}

#[async_trait]
impl Clock for BrokenClock {
    fn now(&self) -> SystemTime {
        let elapsed = self
            .real
            .now()
            .duration_since(self.started_at)
            .unwrap_or_default();
        self.started_at + elapsed.mul_f64(self.speed)
    }

    async fn sleep_until(&self, deadline: SystemTime) {
        while let Ok(left) = deadline.duration_since(self.now())
            && !left.is_zero()
        {
            self.real
                .sleep_until(self.real.now() + left.div_f64(self.timer_speed))
                .await;
        }
    }
}
